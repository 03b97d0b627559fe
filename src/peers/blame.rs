//! Blame: which peers sent content that does not verify, for which file, and until when they are banned.
//!
//! One bad chunk is no evidence of malice: disks rot, and files are edited in place. So a ban first covers one file of the peer
//! for minutes, and doubles with each further offence. Only a peer that sends bad content for several files within a window is
//! *shunned*: banned from everything, again for minutes first. Only time lifts a ban. Content that verifies costs a hostile peer
//! nothing, so it redeems nothing.
//!
//! A peer is its authenticated identity. A new identity starts without blame, but can only send one bad chunk before it is banned.
//! Offenders are in a table of their own: a peer loses its place in the [table of peers](super::table) to any other, and must not
//! lose its blame with it. A full table is contested like any other: a party with many identities makes this node forget its own
//! offences, and those of no other party.

use super::contest::{Holder, gives_way};
use super::party::Parties;
use crate::id::{Key, NodeId};
use crate::time::{Duration, Instant, earliest};
use crate::wire::contact::Contact;
use std::collections::BTreeMap;

/// A peer with bad content for this many files within [`BanTimes::window`] is shunned.
const FILES_SHUN: usize = 3;
/// Files that are remembered for one peer. The oldest offence gives way.
const FILES_MAX: usize = 8;

const _: () = assert!(FILES_MAX >= FILES_SHUN, "as many files must be remembered as are counted");

/// The lengths of bans.
#[derive(Clone, Copy, Debug)]
pub struct BanTimes {
    /// The first ban of a peer from a file of which it sent wrong content. Doubles with each offence.
    pub first: Duration,
    /// The longest ban.
    pub max: Duration,
    /// How long offences are remembered after a ban. Offences for several files within this time count together.
    pub window: Duration,
}

impl Default for BanTimes {
    fn default() -> Self {
        let hour = Duration::from_secs(3600);
        BanTimes { first: Duration::from_secs(120), max: hour, window: hour }
    }
}

/// A ban of a peer from a file, or from everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ban {
    /// The peer.
    pub peer: Contact,
    /// The file; `None` is everything, and then no stream to the peer is opened or kept.
    pub file: Option<Key>,
    /// When it ends.
    pub until: Instant,
    /// The number of offences in a row.
    pub times: u32,
}

/// The peers that sent content which does not verify.
pub struct Blame {
    peers_max: usize,
    parties: Parties,
    times: BanTimes,
    peers: BTreeMap<NodeId, Offender>,
    /// When the next ban ends.
    next_end: Option<Instant>,
}

struct Offender {
    contact: Contact,
    files: BTreeMap<Key, Offence>,
    all: Option<Offence>,
}

#[derive(Clone, Copy)]
struct Offence {
    last: Instant,
    until: Instant,
    times: u32,
}

impl Offence {
    /// One more offence. Its ban is twice as long as the one before, unless that is forgotten.
    fn again(before: Option<Offence>, now: Instant, lengths: &BanTimes) -> Offence {
        let before = before.filter(|offence| !offence.is_forgotten(now, lengths));
        let times = before.map_or(0, |offence| offence.times).saturating_add(1);
        let longer = 1_u32.checked_shl(times - 1).unwrap_or(u32::MAX);
        let seconds = lengths.first.as_secs().saturating_mul(u64::from(longer));
        let length = Duration::from_secs(seconds).min(lengths.max);
        Offence { last: now, until: now + length, times }
    }

    fn is_forgotten(&self, now: Instant, lengths: &BanTimes) -> bool {
        self.until + lengths.window <= now
    }
}

impl Offender {
    fn offences(&self) -> impl Iterator<Item = (Option<Key>, &Offence)> {
        let files = self.files.iter().map(|(file, offence)| (Some(*file), offence));
        self.all.iter().map(|offence| (None, offence)).chain(files)
    }

    /// When the last of its bans ends.
    fn last_end(&self) -> Option<Instant> {
        self.offences().map(|(_, offence)| offence.until).max()
    }
}

impl Blame {
    /// No blame yet. At most `peers_max` peers are remembered, of parties that are told apart as `parties` says.
    pub fn new(peers_max: usize, parties: Parties, times: BanTimes) -> Blame {
        Blame { peers_max, parties, times, peers: BTreeMap::new(), next_end: None }
    }

    /// A peer sent content for this file that does not verify. Returns the ban that follows: from the file, or from everything.
    /// While a ban from the file is in force, further bad content was already on its way and does not count.
    pub fn note(&mut self, now: Instant, peer: Contact, file: Key) -> Ban {
        self.forget(now);
        if !self.peers.contains_key(&peer.id) {
            self.make_room(&peer);
        }
        let offender = self.peers.entry(peer.id).or_insert_with(|| Offender {
            contact: peer,
            files: BTreeMap::new(),
            all: None,
        });
        offender.contact = peer;
        if let Some(offence) = offender.files.get(&file).filter(|offence| now < offence.until) {
            return Ban { peer, file: Some(file), until: offence.until, times: offence.times };
        }
        let offence = Offence::again(offender.files.get(&file).copied(), now, &self.times);
        offender.files.insert(file, offence);
        if offender.files.len() > FILES_MAX {
            let oldest = offender.files.iter().min_by_key(|(_, offence)| offence.last).map(|(file, _)| *file);
            oldest.and_then(|oldest| offender.files.remove(&oldest));
        }
        let lately = offender.files.values().filter(|offence| now < offence.last + self.times.window).count();
        let (file, offence) = match lately >= FILES_SHUN {
            true => (None, *offender.all.insert(Offence::again(offender.all, now, &self.times))),
            false => (Some(file), offence),
        };
        self.find_next_end(now);
        Ban { peer, file, until: offence.until, times: offence.times }
    }

    /// Whether a peer is banned from a file.
    pub fn is_banned(&self, now: Instant, peer: &NodeId, file: &Key) -> bool {
        let Some(offender) = self.peers.get(peer) else { return false };
        let offences = offender.files.get(file).into_iter().chain(&offender.all);
        offences.into_iter().any(|offence| now < offence.until)
    }

    /// Whether a peer is banned from everything.
    pub fn is_shunned(&self, now: Instant, peer: &NodeId) -> bool {
        let all = self.peers.get(peer).and_then(|offender| offender.all);
        all.is_some_and(|offence| now < offence.until)
    }

    /// The bans that are in force, in the order of the peers' ids.
    pub fn bans(&self, now: Instant) -> impl Iterator<Item = Ban> {
        self.peers.values().flat_map(move |offender| {
            let hold = offender.offences().filter(move |(_, offence)| now < offence.until);
            hold.map(|(file, &Offence { until, times, .. })| Ban {
                peer: offender.contact,
                file,
                until,
                times,
            })
        })
    }

    /// Lifts the bans of one peer, or of all, and forgets the offences. Returns the number of bans lifted.
    pub fn forgive(&mut self, now: Instant, peer: Option<&NodeId>) -> usize {
        let theirs = |ban: &Ban| peer.is_none_or(|peer| ban.peer.id == *peer);
        let lifted = self.bans(now).filter(theirs).count();
        self.peers.retain(|id, _| peer.is_some_and(|peer| id != peer));
        self.find_next_end(now);
        lifted
    }

    /// When the next ban ends.
    pub fn next_end(&self) -> Option<Instant> {
        self.next_end
    }

    /// Advances the time. Returns whether a ban has ended since the last call.
    pub fn has_ended(&mut self, now: Instant) -> bool {
        let ended = self.next_end.is_some_and(|at| at <= now);
        if ended {
            self.find_next_end(now);
        }
        ended
    }

    fn find_next_end(&mut self, now: Instant) {
        self.next_end = self.bans(now).map(|ban| Some(ban.until)).fold(None, earliest);
    }

    fn forget(&mut self, now: Instant) {
        let times = &self.times;
        self.peers.retain(|_, offender| {
            offender.files.retain(|_, offence| !offence.is_forgotten(now, times));
            offender.all = offender.all.filter(|offence| !offence.is_forgotten(now, times));
            !offender.files.is_empty() || offender.all.is_some()
        });
    }

    /// Makes room for `newcomer`. Of the party that has most offenders, the newcomer among them, the one whose last ban ends first is
    /// forgotten.
    fn make_room(&mut self, newcomer: &Contact) {
        while self.peers.len() >= self.peers_max.max(1) {
            let holder = |contact: &Contact| Holder::node(self.parties, &contact.id, contact.addr);
            let mut contest: Vec<(Holder, Option<Instant>)> =
                self.peers.values().map(|known| (holder(&known.contact), known.last_end())).collect();
            let oldest = gives_way(&contest).unwrap_or(0);
            // The newcomer's ban ends last.
            contest.push((holder(newcomer), Some(Instant::from_nanos(u64::MAX))));
            let loser = gives_way(&contest).filter(|loser| *loser < self.peers.len()).unwrap_or(oldest);
            if let Some(id) = self.peers.keys().nth(loser).copied() {
                self.peers.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PublicKey;

    const START: Instant = Instant::from_secs(1000);

    /// A peer at an address that is a party of its own.
    fn peer(number: u16) -> Contact {
        let [high, low] = number.to_be_bytes();
        at(number, [20, high, low, 1])
    }

    fn at(number: u16, ip: [u8; 4]) -> Contact {
        let mut public = [0; 32];
        public[..2].copy_from_slice(&number.to_le_bytes());
        Contact::new(PublicKey(public), (ip, 1).into())
    }

    fn blame(peers_max: usize) -> (Blame, BanTimes) {
        let times = BanTimes::default();
        (Blame::new(peers_max, Parties::ByAddress, times), times)
    }

    fn file(number: u8) -> Key {
        Key([number; 32])
    }

    fn after(seconds: u64) -> Instant {
        START + Duration::from_secs(seconds)
    }

    #[test]
    fn one_bad_chunk_bans_a_peer_for_that_file_only_and_for_minutes() {
        let (mut blame, _) = blame(4);
        let ban = blame.note(START, peer(1), file(1));
        assert_eq!(ban.file, Some(file(1)));
        assert_eq!(ban.times, 1);
        assert_eq!(ban.until, after(120));
        assert!(blame.is_banned(START, &peer(1).id, &file(1)));
        assert!(!blame.is_banned(START, &peer(1).id, &file(2)) && !blame.is_shunned(START, &peer(1).id));
        assert!(!blame.is_banned(START, &peer(2).id, &file(1)));
        assert_eq!(blame.next_end(), Some(after(120)));
        assert!(!blame.has_ended(after(119)) && blame.has_ended(after(120)) && !blame.has_ended(after(121)));
        assert!(!blame.is_banned(after(120), &peer(1).id, &file(1)));
        assert_eq!(blame.next_end(), None);
        assert_eq!(blame.bans(after(120)).count(), 0);
    }

    #[test]
    fn a_ban_doubles_with_each_offence_up_to_an_hour_and_is_forgotten_in_time() {
        let (mut blame, times) = blame(4);
        let mut now = START;
        for (times, minutes) in [(1, 2), (2, 4), (3, 8), (4, 16), (5, 32), (6, 60), (7, 60)] {
            let ban = blame.note(now, peer(1), file(1));
            assert_eq!(ban.times, times);
            assert_eq!(ban.until.since(now).as_secs(), minutes * 60);
            // Content that was on its way already is no further offence.
            assert_eq!(blame.note(now + Duration::from_secs(1), peer(1), file(1)), ban);
            now = ban.until;
        }
        let ban = blame.note(now + times.window, peer(1), file(1));
        assert_eq!(ban.times, 1);
        assert_eq!(ban.file, Some(file(1)));
    }

    #[test]
    fn a_peer_with_bad_content_for_three_files_is_shunned_and_each_further_one_lengthens_that() {
        let (mut blame, _) = blame(4);
        blame.note(START, peer(1), file(1));
        blame.note(after(1), peer(1), file(2));
        assert!(!blame.is_shunned(after(1), &peer(1).id));
        let ban = blame.note(after(2), peer(1), file(3));
        assert_eq!(ban.file, None);
        assert_eq!(ban.times, 1);
        assert_eq!(ban.until, after(122));
        assert!(blame.is_banned(after(3), &peer(1).id, &file(99)));
        let ban = blame.note(after(200), peer(1), file(4));
        assert_eq!(ban.file, None);
        assert_eq!(ban.times, 2);
        assert_eq!(ban.until, after(440));
        assert_eq!(blame.bans(after(201)).count(), 2, "from everything, and from the file");
    }

    #[test]
    fn offences_for_three_files_in_three_windows_do_not_shun() {
        let (mut blame, times) = blame(4);
        for number in 0..9 {
            let at = START + times.window * u32::from(number) / 2;
            assert_eq!(blame.note(at, peer(1), file(number)).file, Some(file(number)), "{number}");
        }
    }

    #[test]
    fn bans_are_lifted_for_one_peer_or_for_all() {
        let (mut blame, _) = blame(4);
        blame.note(START, peer(1), file(1));
        blame.note(START, peer(1), file(2));
        blame.note(START, peer(2), file(1));
        assert_eq!(blame.forgive(START, Some(&peer(3).id)), 0);
        assert_eq!(blame.forgive(START, Some(&peer(1).id)), 2);
        assert!(!blame.is_banned(START, &peer(1).id, &file(1)));
        assert!(blame.is_banned(START, &peer(2).id, &file(1)));
        assert_eq!(blame.forgive(START, None), 1);
        assert_eq!(blame.next_end(), None);
        assert_eq!(blame.note(START, peer(2), file(1)).times, 1, "nothing is remembered");
    }

    #[test]
    fn blame_is_bounded_in_peers_and_files_and_keeps_the_longest_bans() {
        let (mut blame, _) = blame(16);
        for number in 0..4 {
            blame.note(START, peer(0), file(number));
        }
        for number in 1..1000 {
            blame.note(after(u64::from(number) / 100), peer(number), file(1));
        }
        assert_eq!(blame.peers.len(), 16);
        assert!(blame.is_shunned(after(10), &peer(0).id), "peers with fewer offences must not displace it");
        for number in 0..=255 {
            blame.note(after(11), peer(0), file(number));
        }
        assert!(blame.peers[&peer(0).id].files.len() <= FILES_MAX);
    }

    #[test]
    fn a_party_with_many_identities_makes_a_node_forget_only_its_own_offences() {
        let (mut blame, _) = blame(16);
        let others: Vec<Contact> = (0..8).map(peer).collect();
        for contact in &others {
            blame.note(START, *contact, file(1));
        }
        for number in 0..1000 {
            blame.note(after(1), at(1000 + number, [30, 0, 0, 1]), file(1));
        }
        assert_eq!(blame.peers.len(), 16);
        assert!(others.iter().all(|contact| blame.is_banned(after(2), &contact.id, &file(1))));
    }
}
