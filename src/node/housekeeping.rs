//! Periodic work. It writes little to disk, because flash wears out.

use super::{Node, Waiting};
use crate::id::PublicKey;
use crate::io::{Ages, DiskOp};
use crate::time::{Duration, Instant};
use crate::wire::contact::{Contact, WireContact};
use zerocopy::{FromBytes, IntoBytes};

/// How often age and contacts are saved. A crash makes the node lose up to this much of its age.
const EVERY: Duration = Duration::from_secs(3600);
/// When the age is saved for the first time.
const FIRST: Duration = Duration::from_secs(30);
/// The pauses before the first saves of the contacts. A site whose power fails in its first minute must find itself again, and a
/// network that starts is complete only after some seconds.
const PEERS_FIRST: [Duration; 3] = [Duration::from_secs(5), Duration::from_secs(15), Duration::from_secs(40)];

pub(super) struct Housekeeping {
    ages_due: Instant,
    peers_due: Instant,
    /// Saves of contacts, up to the number of [`PEERS_FIRST`].
    peers_saved: usize,
    written_peers: Vec<u8>,
    written_scrub: Vec<u8>,
}

impl Housekeeping {
    pub(super) fn new(now: Instant) -> Self {
        Housekeeping {
            ages_due: now + FIRST,
            peers_due: now + PEERS_FIRST[0],
            peers_saved: 0,
            written_peers: Vec::new(),
            written_scrub: Vec::new(),
        }
    }

    pub(super) fn next_deadline(&self) -> Instant {
        self.ages_due.min(self.peers_due)
    }

    /// The contacts are saved, if there are `any`.
    fn peers_saved(&mut self, now: Instant, any: bool) {
        self.peers_saved += usize::from(any);
        self.peers_due = now + PEERS_FIRST.get(self.peers_saved).copied().unwrap_or(EVERY);
    }
}

impl Node {
    pub(super) fn keep_house(&mut self, now: Instant) {
        if self.housekeeping.peers_due <= now {
            self.remember_peers();
            let any = !self.housekeeping.written_peers.is_empty();
            self.housekeeping.peers_saved(now, any);
        }
        if self.housekeeping.ages_due <= now {
            self.housekeeping.ages_due = now + EVERY;
            self.machines.disk(DiskOp::SaveAges(self.ages(now)), Waiting::Nothing);
            self.remember_scrub();
        }
    }

    /// The age of the node, which its directory keeps across runs.
    pub fn ages(&self, now: Instant) -> Ages {
        Ages { boots: self.boots, seconds: self.machines.store.age(now), clean: false }
    }

    /// Saves the progress of the scrub, if it has changed.
    pub(super) fn remember_scrub(&mut self) {
        let bytes = self.scrub.encode();
        if bytes != self.housekeeping.written_scrub {
            self.housekeeping.written_scrub.clone_from(&bytes);
            self.machines.disk(DiskOp::SaveScrub(bytes), Waiting::Nothing);
        }
    }

    /// Saves the contacts for the next run, if they have changed.
    pub(super) fn remember_peers(&mut self) {
        let bytes = encode_contacts(&self.machines.dht.contacts_to_remember());
        if !bytes.is_empty() && bytes != self.housekeeping.written_peers {
            self.housekeeping.written_peers.clone_from(&bytes);
            self.machines.disk(DiskOp::SavePeers(bytes), Waiting::Nothing);
        }
    }
}

/// The format of contacts on disk, the same as in datagrams.
fn encode_contacts(contacts: &[Contact]) -> Vec<u8> {
    let mut contacts: Vec<WireContact> =
        contacts.iter().map(|contact| WireContact::new(contact, 0)).collect();
    contacts.sort_by_key(|contact| contact.public);
    contacts.as_bytes().to_vec()
}

/// The contacts of the last run; none if the file is damaged.
pub(super) fn decode_contacts(bytes: &[u8]) -> Vec<Contact> {
    let contacts = <[WireContact]>::ref_from_bytes(bytes).unwrap_or_default();
    contacts.iter().take(64).filter_map(WireContact::get).collect()
}

/// A contact on disk contains only the public key as its name.
const _: () = assert!(size_of::<WireContact>() == 56 && size_of::<PublicKey>() == 32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contacts_are_saved_three_times_in_the_first_minute_and_then_hourly() {
        let start = Instant::from_secs(100);
        let mut housekeeping = Housekeeping::new(start);
        let mut saves = Vec::new();
        for any in [false, false, true, true, true, true] {
            let at = housekeeping.peers_due;
            saves.push(at.since(start).as_secs());
            housekeeping.peers_saved(at, any);
        }
        assert_eq!(saves, [5, 10, 15, 30, 70, 3670], "a node without contacts looks every five seconds");
    }

    #[test]
    fn contacts_survive_a_restart_and_a_damaged_file_costs_only_them() {
        let contacts: Vec<Contact> =
            (1..4u8).map(|i| Contact::new(PublicKey([i; 32]), ([127, 0, 0, i], 3583).into())).collect();
        let bytes = encode_contacts(&contacts);
        assert_eq!(decode_contacts(&bytes), contacts);
        assert_eq!(decode_contacts(&bytes[1..]), []);
    }
}
