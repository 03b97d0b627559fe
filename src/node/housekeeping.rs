//! Periodic work: saving what the next run needs. It writes little to disk, because flash wears out.

use super::Waiting;
use super::machines::Machines;
use super::ops::scrub::Scrub;
use crate::id::PublicKey;
use crate::io::{Ages, DiskOp};
use crate::time::{Duration, Instant};
use crate::wire::contact::{Contact, WireContact};
use crate::wire::network::Network;
use zerocopy::{FromBytes, IntoBytes};

/// How often age and contacts are saved. A crash makes the node lose up to this much of its age.
const EVERY: Duration = Duration::from_secs(3600);
/// When the age is saved for the first time.
const FIRST: Duration = Duration::from_secs(30);
/// The pauses before the first saves of the contacts. A site whose power fails in its first minute must find itself again, and a
/// network that starts is complete only after some seconds.
const PEERS_FIRST: [Duration; 3] = [Duration::from_secs(5), Duration::from_secs(15), Duration::from_secs(40)];

/// What is saved for the next run, and when.
pub(super) struct Housekeeping {
    /// The number of runs of the node, this one included.
    boots: u64,
    ages_due: Instant,
    peers_due: Instant,
    /// Saves of contacts, up to the number of [`PEERS_FIRST`].
    peers_saved: usize,
    written_peers: Vec<u8>,
    written_scrub: Vec<u8>,
}

impl Housekeeping {
    /// `boots` is the number of runs of the node, this one included.
    pub(super) fn new(boots: u64, now: Instant) -> Self {
        Housekeeping {
            boots,
            ages_due: now + FIRST,
            peers_due: now + PEERS_FIRST[0],
            peers_saved: 0,
            written_peers: Vec::new(),
            written_scrub: Vec::new(),
        }
    }

    // Getters.

    /// The age of the node, which its directory keeps across runs.
    pub(super) fn ages(&self, now: Instant, machines: &Machines) -> Ages {
        Ages { boots: self.boots, seconds: machines.store.age(now), clean: false }
    }

    /// When [`handle_timeout`](Housekeeping::handle_timeout) is due.
    pub(super) fn next_deadline(&self) -> Instant {
        self.ages_due.min(self.peers_due)
    }

    // Inputs.

    /// The deadline of [`next_deadline`](Housekeeping::next_deadline) has come.
    pub(super) fn handle_timeout(&mut self, now: Instant, scrub: &Scrub, machines: &mut Machines) {
        if self.peers_due <= now {
            self.remember_peers(machines);
            self.peers_saved(now, !self.written_peers.is_empty());
        }
        if self.ages_due <= now {
            self.ages_due = now + EVERY;
            machines.disk(DiskOp::SaveAges(self.ages(now, machines)), Waiting::Nothing);
            self.remember_scrub(scrub, machines);
        }
    }

    /// The contacts are saved, if there are `any`.
    fn peers_saved(&mut self, now: Instant, any: bool) {
        self.peers_saved += usize::from(any);
        self.peers_due = now + PEERS_FIRST.get(self.peers_saved).copied().unwrap_or(EVERY);
    }

    /// Saves the contacts for the next run, if they have changed.
    pub(super) fn remember_peers(&mut self, machines: &mut Machines) {
        let bytes = encode_contacts(&machines.dht.contacts_to_remember(machines.outbox.peers()));
        if !bytes.is_empty() && bytes != self.written_peers {
            self.written_peers.clone_from(&bytes);
            machines.disk(DiskOp::SavePeers(bytes), Waiting::Nothing);
        }
    }

    /// Saves the progress of the scrub, if it has changed.
    pub(super) fn remember_scrub(&mut self, scrub: &Scrub, machines: &mut Machines) {
        let bytes = scrub.encode();
        if bytes != self.written_scrub {
            self.written_scrub.clone_from(&bytes);
            machines.disk(DiskOp::SaveScrub(bytes), Waiting::Nothing);
        }
    }
}

/// The format of contacts on disk: as in datagrams, and with the scopes of link-local addresses.
fn encode_contacts(contacts: &[Contact]) -> Vec<u8> {
    let mut contacts: Vec<WireContact> = contacts.iter().map(WireContact::kept).collect();
    contacts.sort_by_key(|contact| contact.public);
    contacts.as_bytes().to_vec()
}

/// The contacts of the last run that the network admits; none if the file is damaged.
pub(super) fn decode_contacts(bytes: &[u8], network: &Network) -> Vec<Contact> {
    let contacts = <[WireContact]>::ref_from_bytes(bytes).unwrap_or_default();
    let contacts = contacts.iter().take(64).filter_map(WireContact::get_kept);
    contacts.filter(|contact| network.admits(&contact.public)).collect()
}

/// A contact on disk contains only the public key as its name.
const _: () = assert!(size_of::<WireContact>() == 56 && size_of::<PublicKey>() == 32);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::IdWork;
    use crate::node::Output;
    use crate::node::command::CommandId;

    const START: Instant = Instant::from_secs(100);

    /// What is saved between the start and this time, by name.
    fn saved(housekeeping: &mut Housekeeping, machines: &mut Machines, seconds: u64) -> Vec<&'static str> {
        let scrub = Scrub::new(0, &[], machines, START);
        let until = START + Duration::from_secs(seconds);
        while housekeeping.next_deadline() <= until {
            housekeeping.handle_timeout(housekeeping.next_deadline(), &scrub, machines);
        }
        let ops = machines.outputs.drain(..).map(|output| match output {
            Output::Disk { op: DiskOp::SaveAges(_), .. } => "ages",
            Output::Disk { op: DiskOp::SavePeers(_), .. } => "peers",
            Output::Disk { op: DiskOp::SaveScrub(_), .. } => "scrub",
            other => panic!("{other:?}"),
        });
        ops.collect()
    }

    #[test]
    fn a_node_without_contacts_saves_its_age_soon_and_then_once_an_hour() {
        let (mut housekeeping, mut machines) = (Housekeeping::new(7, START), Machines::alone(START));
        assert_eq!(saved(&mut housekeeping, &mut machines, 30), ["ages"]);
        assert_eq!(saved(&mut housekeeping, &mut machines, 3600), [""; 0]);
        assert_eq!(saved(&mut housekeeping, &mut machines, 3630), ["ages"]);
    }

    #[test]
    fn the_age_that_is_saved_names_this_run() {
        let (housekeeping, machines) = (Housekeeping::new(7, START), Machines::alone(START));
        let ages = housekeeping.ages(START + Duration::from_secs(5), &machines);
        assert_eq!(ages.boots, 7);
        assert_eq!(ages.seconds, 5);
        assert!(!ages.clean, "only the driver knows that the node stopped in order");
    }

    #[test]
    fn the_progress_of_the_scrub_is_saved_only_if_it_has_changed() {
        let (mut housekeeping, mut machines) = (Housekeeping::new(7, START), Machines::alone(START));
        let mut scrub = Scrub::new(0, &[], &machines, START);
        housekeeping.remember_scrub(&scrub, &mut machines);
        assert!(machines.outputs.is_empty(), "nothing was read yet");
        scrub.start(START, CommandId(1), true, &mut machines);
        machines.outputs.clear();
        housekeeping.remember_scrub(&scrub, &mut machines);
        housekeeping.remember_scrub(&scrub, &mut machines);
        assert_eq!(machines.outputs.len(), 1);
    }

    #[test]
    fn contacts_are_saved_three_times_in_the_first_minute_and_then_hourly() {
        let mut housekeeping = Housekeeping::new(7, START);
        let mut saves = Vec::new();
        for any in [false, false, true, true, true, true] {
            let at = housekeeping.peers_due;
            saves.push(at.since(START).as_secs());
            housekeeping.peers_saved(at, any);
        }
        assert_eq!(saves, [5, 10, 15, 30, 70, 3670], "a node without contacts looks every five seconds");
    }

    #[test]
    fn contacts_survive_a_restart_and_a_damaged_file_costs_only_them() {
        let contacts: Vec<Contact> = (1..4u8)
            .map(|i| Contact::new(PublicKey([i; 32]), format!("[fe80::{i}%7]:3583").parse().unwrap()))
            .collect();
        let bytes = encode_contacts(&contacts);
        let network = Network::new("test");
        assert_eq!(decode_contacts(&bytes, &network), contacts);
        assert_eq!(decode_contacts(&bytes[1..], &network), []);
        let asking = network.with_id_work(IdWork::new(30).unwrap());
        assert_eq!(decode_contacts(&bytes, &asking), [], "none of them shows work");
    }
}
