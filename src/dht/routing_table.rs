//! The routing table: Kademlia's k-buckets (Maymounkov and Mazières, 2002).
//!
//! Departures from the paper:
//! - There is one bucket for each length of the common prefix with the own id. Buckets are never split.
//! - Only nodes that answered a request enter. A request from an unknown node makes it worth a ping, and nothing else.
//! - Newcomers to a full bucket wait in a replacement cache. The bucket's stalest contact is pinged when it is questionable (15
//!   minutes of silence), and gives way after two unanswered requests.
//! - A node that appears at a new address moves there only when its old address has fallen silent.
//! - A full bucket, and a full replacement cache, are contested: a newcomer displaces the contact that entered last of the party that
//!   holds more of the bucket than the newcomer's would. While there is room no contact is refused.

use super::Origin;
use super::closest::{Nearest, Slot};
use crate::id::{Key, NodeId};
use crate::peers::contest::{Holder, gives_way};
use crate::peers::party::Parties;
use crate::peers::table::Peers;
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::wire::contact::Contact;
use core::net::SocketAddr;

/// Contacts in a bucket, and nodes in the neighbourhood of a key: Kademlia's k.
pub const K: usize = 20;
/// Contacts in the replacement cache of a bucket.
const WAITING_MAX: usize = 8;
/// The silence after which a contact is questionable.
pub(super) const QUESTIONABLE_AFTER: Duration = Duration::from_secs(15 * 60);
/// Unanswered requests in a row, of all machines, after which a contact is dropped.
const UNANSWERED_MAX: u8 = 2;

/// A node that answered. What is known of it as a peer, such as when it was heard from, is in the table of peers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Its id, key and address.
    pub(super) contact: Contact,
    /// How this node learned of it.
    pub(super) origin: Origin,
    /// When it entered.
    pub(super) since: Instant,
    /// Another address at which it answers. It moves there if the present one falls silent.
    pub(super) moved_to: Option<SocketAddr>,
}

impl Entry {
    /// When it was last heard from: when it entered, if it has no place in the table of peers.
    pub(super) fn heard(&self, peers: &Peers) -> Instant {
        peers.heard(&self.contact.id).unwrap_or(self.since)
    }

    /// Whether it owes no answer.
    pub(super) fn owes_nothing(&self, peers: &Peers) -> bool {
        peers.unanswered(&self.contact.id) == 0
    }

    /// Whether it was heard from recently and owes no answer.
    pub(super) fn is_good(&self, now: Instant, peers: &Peers) -> bool {
        self.owes_nothing(peers) && now.since(self.heard(peers)) < QUESTIONABLE_AFTER
    }
}

#[derive(Default)]
struct Bucket {
    live: Vec<Entry>,
    /// The replacement cache, most recently heard from last.
    waiting: Vec<Entry>,
    /// When a lookup last went through this bucket.
    touched: Option<Instant>,
}

/// The effect of an answer on the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answered {
    /// The node was in the table.
    Refreshed,
    /// The node has entered.
    Added,
    /// The node waits in the replacement cache. The contact is questionable, and should be checked.
    Waits(Option<Contact>),
    /// The node is in the table under this other address, which should be checked.
    Moved(Contact),
    /// There is no place for the node.
    Refused,
}

/// The effect of an unanswered request on the table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Failed {
    /// The node is not in the table.
    Unknown,
    /// The node stays for now.
    Kept,
    /// The node was dropped.
    Dropped(Contact),
}

/// The routing table of one node.
pub(super) struct RoutingTable {
    own: Key,
    parties: Parties,
    buckets: Vec<Bucket>,
    /// The number of buckets, from the farthest on, that have ever held a contact. Most buckets never do, and are not searched.
    reached: usize,
    length: usize,
}

impl RoutingTable {
    /// The empty table of the node `own`.
    pub(super) fn new(own: NodeId, parties: Parties) -> Self {
        let buckets = core::iter::repeat_with(Bucket::default).take(256).collect();
        RoutingTable { own: own.key(), parties, buckets, reached: 0, length: 0 }
    }

    /// The number of live contacts.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Whether there is no live contact.
    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The live contacts, farthest bucket first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.buckets[..self.reached].iter().flat_map(|bucket| &bucket.live)
    }

    /// A live contact.
    pub(super) fn get(&self, id: &NodeId) -> Option<&Entry> {
        self.buckets[self.index(id)?].live.iter().find(|entry| entry.contact.id == *id)
    }

    /// Those of the live contacts that pass `filter` and are nearest to `target`, as many as there are slots.
    pub(super) fn nearest<'s, 't>(
        &'t self,
        target: &Key,
        slots: &'s mut [Slot<&'t Entry>],
        filter: impl Fn(&Entry) -> bool,
    ) -> Nearest<'s, &'t Entry> {
        let mut nearest = Nearest::new(target, slots);
        let reached = &self.buckets[..self.reached];
        let (farther, nearer) = reached.split_at(reached.len().min(self.own.common_prefix(target) as usize));
        // First the bucket that the target belongs to, then the nearer ones, which are all at about the same distance from the
        // target. In the farther ones, a bucket that is farther from this node is also farther from the target.
        let (same, nearer) = nearer.split_at(nearer.len().min(1));
        let groups = [same, nearer].into_iter().chain(farther.chunks(1).rev());
        for group in groups {
            if nearest.is_full() {
                break;
            }
            for entry in group.iter().flat_map(|bucket| &bucket.live).filter(|entry| filter(entry)) {
                nearest.offer(&entry.contact.id.key(), entry);
            }
        }
        nearest
    }

    /// Whether a node is a live contact at this address.
    pub(super) fn is_at(&self, id: &NodeId, addr: SocketAddr) -> bool {
        self.get(id).is_some_and(|entry| entry.contact.addr == addr)
    }

    /// Whether a node that sent a request should be pinged, because it could enter.
    pub(super) fn wants(&self, now: Instant, id: &NodeId, addr: SocketAddr, peers: &Peers) -> bool {
        let Some(index) = self.index(id) else { return false };
        let bucket = &self.buckets[index];
        if let Some(entry) = bucket.live.iter().find(|entry| entry.contact.id == *id) {
            return entry.contact.addr != addr && entry.moved_to.is_none();
        }
        if bucket.waiting.iter().any(|entry| entry.contact.id == *id) {
            return false;
        }
        let has_room = bucket.live.len() < K || bucket.waiting.len() < WAITING_MAX;
        has_room
            || bucket.live.iter().any(|entry| !entry.is_good(now, peers))
            || self.displaced(now, index, self.holder(id, addr)).is_some()
    }

    /// A node answered a request at the address of `contact`.
    pub(super) fn answered(&mut self, now: Instant, contact: Contact, peers: &Peers) -> Answered {
        let Some(index) = self.index(&contact.id) else { return Answered::Refused };
        if let Some(entry) = self.get_mut(&contact.id) {
            if entry.contact.addr != contact.addr {
                entry.moved_to = Some(contact.addr);
                return Answered::Moved(entry.contact);
            }
            entry.moved_to = None;
            return Answered::Refreshed;
        }
        let bucket = &mut self.buckets[index];
        let waiting = bucket.waiting.iter().position(|entry| entry.contact.id == contact.id);
        let entry = match waiting.map(|position| bucket.waiting.remove(position)) {
            Some(entry) if entry.contact.addr == contact.addr => entry,
            _ => Entry::new(now, contact),
        };
        if bucket.live.len() < K {
            // A bucket allocates its memory at first use: most of the 256 are never used.
            bucket.live.reserve_exact(K - bucket.live.len());
            bucket.live.push(entry);
            self.length += 1;
            self.reached = self.reached.max(index + 1);
            return Answered::Added;
        }
        if let Some(displaced) = self.displaced(now, index, self.holder(&contact.id, contact.addr)) {
            let displaced = core::mem::replace(&mut self.buckets[index].live[displaced], entry);
            self.wait(index, displaced, peers);
            return Answered::Added;
        }
        self.wait(index, entry, peers);
        Answered::Waits(self.buckets[index].stalest(now, peers))
    }

    /// A node did not answer at this address. Moves it to its other address, if it has answered there.
    pub(super) fn moved(&mut self, now: Instant, id: &NodeId, addr: SocketAddr) -> Option<Contact> {
        let entry = self.get_mut(id).filter(|entry| entry.contact.addr == addr)?;
        let addr = entry.moved_to.take()?;
        *entry = Entry { origin: entry.origin, ..Entry::new(now, Contact { addr, ..entry.contact }) };
        Some(entry.contact)
    }

    /// Sets how this node learned of a contact.
    pub(super) fn set_origin(&mut self, id: &NodeId, origin: Origin) {
        if let Some(entry) = self.get_mut(id) {
            entry.origin = origin;
        }
    }

    /// A contact told a link of this machine that it is there. Perhaps it had heard this node there, and only called first.
    pub(super) fn note_on_link(&mut self, id: &NodeId) {
        if let Some(entry) = self.get_mut(id).filter(|entry| entry.origin == Origin::Called) {
            entry.origin = Origin::Link;
        }
    }

    /// A node did not answer a request at this address, nor `unanswered - 1` requests before.
    pub(super) fn failed(&mut self, id: &NodeId, addr: SocketAddr, unanswered: u8) -> Failed {
        let Some(index) = self.index(id) else { return Failed::Unknown };
        let bucket = &mut self.buckets[index];
        bucket.waiting.retain(|entry| entry.contact.id != *id || entry.contact.addr != addr);
        let Some(entry) = self.get(id).filter(|entry| entry.contact.addr == addr) else {
            return Failed::Unknown;
        };
        if unanswered < UNANSWERED_MAX {
            return Failed::Kept;
        }
        let contact = entry.contact;
        self.remove(id);
        Failed::Dropped(contact)
    }

    /// Removes a node. A node of the bucket's replacement cache takes its place: of the parties that hold least of the bucket, the node
    /// that was heard most recently.
    pub(super) fn remove(&mut self, id: &NodeId) -> bool {
        let Some(index) = self.index(id) else { return false };
        let bucket = &mut self.buckets[index];
        bucket.waiting.retain(|entry| entry.contact.id != *id);
        let Some(position) = bucket.live.iter().position(|entry| entry.contact.id == *id) else {
            return false;
        };
        bucket.live.remove(position);
        self.length -= 1;
        if let Some(position) = self.successor(index) {
            let bucket = &mut self.buckets[index];
            let entry = bucket.waiting.remove(position);
            bucket.live.push(entry);
            self.length += 1;
        }
        true
    }

    /// Marks the bucket that `target` belongs to: a lookup went through it.
    pub(super) fn touch(&mut self, now: Instant, target: &Key) {
        if let Some(bucket) = self.buckets.get_mut(self.own.common_prefix(target) as usize) {
            bucket.touched = Some(now);
        }
    }

    /// Marks all buckets: a lookup saw the whole network.
    pub(super) fn touch_all(&mut self, now: Instant) {
        self.buckets.iter_mut().for_each(|bucket| bucket.touched = Some(now));
    }

    /// The bucket through which no lookup has gone for longest, and when one last did. Only buckets up to the deepest one that holds
    /// a contact are considered.
    pub(super) fn longest_untouched(&self) -> Option<(usize, Option<Instant>)> {
        let deepest = self.buckets.iter().rposition(|bucket| !bucket.live.is_empty())?;
        let buckets = self.buckets[..=deepest].iter().enumerate();
        buckets
            .map(|(index, bucket)| (index, bucket.touched))
            .min_by_key(|(index, touched)| (*touched, *index))
    }

    /// A random key that belongs to a bucket.
    pub(super) fn random_key(&self, bucket: usize, rng: &mut Rng) -> Key {
        let mut key = Key(rng.bytes());
        for bit in 0..=bucket.min(255) {
            let (byte, mask) = (bit / 8, 0x80 >> (bit % 8));
            let own = self.own.0[byte] & mask;
            key.0[byte] = key.0[byte] & !mask | if bit == bucket { own ^ mask } else { own };
        }
        key
    }

    fn get_mut(&mut self, id: &NodeId) -> Option<&mut Entry> {
        let index = self.index(id)?;
        self.buckets[index].live.iter_mut().find(|entry| entry.contact.id == *id)
    }

    /// The bucket of a node; `None` for the own id.
    fn index(&self, id: &NodeId) -> Option<usize> {
        Some(self.own.common_prefix(&id.key()) as usize).filter(|&index| index < self.buckets.len())
    }

    fn holder(&self, id: &NodeId, addr: SocketAddr) -> Holder {
        Holder::node(self.parties, id, addr)
    }

    fn holder_of(&self, entry: &Entry) -> Holder {
        self.holder(&entry.contact.id, entry.contact.addr)
    }

    /// The place of the live contact that a newcomer to a full bucket displaces. Contacts of one party displace none of their own: the
    /// oldest are the likeliest to stay.
    fn displaced(&self, now: Instant, index: usize, newcomer: Holder) -> Option<usize> {
        let live = self.buckets[index].live.iter();
        let mut entries: Vec<(Holder, Option<Duration>)> =
            live.map(|entry| (self.holder_of(entry), Some(now.since(entry.since)))).collect();
        entries.push((newcomer, None));
        gives_way(&entries).filter(|loser| *loser + 1 < entries.len())
    }

    /// Adds a node to the replacement cache. A full cache is contested: of the party that holds most of it, the node that was heard
    /// least recently gives way.
    fn wait(&mut self, index: usize, entry: Entry, peers: &Peers) {
        let bucket = &mut self.buckets[index];
        bucket.waiting.reserve_exact(WAITING_MAX + 1 - bucket.waiting.len());
        bucket.waiting.push(entry);
        if bucket.waiting.len() > WAITING_MAX {
            let waiting = self.buckets[index].waiting.iter();
            let entries: Vec<_> = waiting.map(|entry| (self.holder_of(entry), entry.heard(peers))).collect();
            // Of nodes that were heard at one instant, the first that came gives way: the list is in the order of arrival.
            let entries: Vec<_> = entries.into_iter().rev().collect();
            if let Some(loser) = gives_way(&entries) {
                self.buckets[index].waiting.remove(WAITING_MAX - loser);
            }
        }
    }

    /// The node of the replacement cache that takes a free place in its bucket.
    fn successor(&self, index: usize) -> Option<usize> {
        let bucket = &self.buckets[index];
        let crowd = |entry: &Entry| {
            self.holder_of(entry).crowd(bucket.live.iter().map(|other| self.holder_of(other)))
        };
        let waiting = bucket.waiting.iter().enumerate().rev();
        waiting.min_by_key(|(_, entry)| crowd(entry)).map(|(position, _)| position)
    }
}

impl Entry {
    fn new(now: Instant, contact: Contact) -> Self {
        Entry { contact, origin: Origin::default(), since: now, moved_to: None }
    }
}

impl Bucket {
    fn stalest(&self, now: Instant, peers: &Peers) -> Option<Contact> {
        let questionable = self.live.iter().filter(|entry| !entry.is_good(now, peers));
        questionable.min_by_key(|entry| entry.heard(peers)).map(|entry| entry.contact)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PublicKey;
    use crate::peers::testing;

    const NOW: Instant = Instant::from_secs(1000);

    fn table() -> RoutingTable {
        RoutingTable::new(NodeId([0; 32]), Parties::ByAddress)
    }

    /// A contact in the farthest bucket.
    fn far(index: u8, ip: [u8; 4]) -> Contact {
        let mut id = NodeId([index; 32]);
        id.0[0] = 0x80;
        Contact { id, public: PublicKey([index; 32]), addr: (ip, 1000 + u16::from(index)).into() }
    }

    fn full(peers: &Peers) -> RoutingTable {
        let mut table = table();
        for index in 0..K as u8 {
            assert_eq!(table.answered(NOW, far(index, [127, 0, 0, 1]), peers), Answered::Added);
        }
        table
    }

    #[test]
    fn a_newcomer_waits_while_the_bucket_is_good_and_replaces_a_contact_that_fails_twice() {
        let peers = testing::peers();
        let mut table = full(&peers);
        let newcomer = far(100, [127, 0, 0, 1]);
        assert_eq!(table.answered(NOW, newcomer, &peers), Answered::Waits(None));
        let later = NOW + QUESTIONABLE_AFTER;
        let oldest = far(0, [127, 0, 0, 1]);
        assert_eq!(table.answered(later, newcomer, &peers), Answered::Waits(Some(oldest)));
        assert_eq!(table.failed(&oldest.id, oldest.addr, 1), Failed::Kept);
        assert_eq!(table.failed(&oldest.id, oldest.addr, 2), Failed::Dropped(oldest));
        assert!(table.get(&newcomer.id).is_some() && table.get(&oldest.id).is_none());
        assert_eq!(table.len(), K);
    }

    #[test]
    fn the_replacement_cache_is_bounded_and_prefers_the_latest() {
        let peers = testing::peers();
        let mut table = full(&peers);
        for index in 50..90 {
            table.answered(NOW, far(index, [127, 0, 0, 1]), &peers);
        }
        assert_eq!(table.buckets[0].waiting.len(), WAITING_MAX);
        assert!(table.remove(&far(3, [127, 0, 0, 1]).id));
        assert!(table.get(&far(89, [127, 0, 0, 1]).id).is_some());
    }

    #[test]
    fn the_nearest_are_those_that_a_full_scan_finds() {
        use crate::dht::closest::closest;
        use crate::rng::Rng;
        let mut rng = Rng::new([3; 32]);
        let peers = testing::peers();
        let mut table = RoutingTable::new(NodeId(rng.bytes()), Parties::ByAddress);
        for _ in 0..600 {
            // Some are near this node, so that many buckets have contacts.
            let mut id = NodeId(rng.bytes());
            let shared = rng.below(3) as usize;
            id.0[..shared].copy_from_slice(&table.own.0[..shared]);
            let contact = Contact { id, public: PublicKey(rng.bytes()), addr: ([127, 0, 0, 1], 1000).into() };
            table.answered(NOW, contact, &peers);
        }
        assert!(table.len() > 100);
        for count in [0, 1, 7, 20, 1000] {
            for round in 0..20 {
                let target = match round {
                    0 => table.own,
                    round => {
                        let mut target = Key(rng.bytes());
                        target.0[..round % 3].copy_from_slice(&table.own.0[..round % 3]);
                        target
                    }
                };
                let mut slots = vec![None; count];
                let found = table.nearest(&target, &mut slots, |entry| entry.contact.id.0[31] % 2 == 0);
                let found: Vec<Contact> = found.iter().map(|entry| entry.contact).collect();
                let even =
                    table.iter().map(|entry| &entry.contact).filter(|contact| contact.id.0[31] % 2 == 0);
                assert_eq!(found, closest(even, &target, count));
            }
        }
    }

    #[test]
    fn the_own_id_never_enters() {
        let (mut table, peers) = (table(), testing::peers());
        let own = Contact { id: NodeId([0; 32]), ..far(1, [127, 0, 0, 1]) };
        assert_eq!(table.answered(NOW, own, &peers), Answered::Refused);
        assert!(!table.wants(NOW, &own.id, own.addr, &peers) && table.is_empty());
    }

    #[test]
    fn a_network_in_one_prefix_fills_its_buckets_like_any_other() {
        for network in [[8, 8, 8], [100, 64, 0], [10, 0, 0]] {
            let (mut table, peers) = (table(), testing::peers());
            let [a, b, c] = network;
            for index in 0..30 {
                table.answered(NOW, far(index, [a, b, c, index]), &peers);
            }
            assert_eq!(table.len(), K, "{network:?}");
            assert_eq!(table.buckets[0].waiting.len(), WAITING_MAX, "{network:?}");
            assert!(table.get(&far(0, [a, b, c, 0]).id).is_some(), "the oldest stay: {network:?}");
        }
    }

    #[test]
    fn a_bucket_full_of_one_party_makes_room_for_every_other() {
        let (mut table, peers) = (table(), testing::peers());
        for index in 0..28 {
            table.answered(NOW, far(index, [8, 8, 8, index]), &peers);
        }
        for index in 40..50 {
            let other = far(index, [9, 9, index, 1]);
            assert!(table.wants(NOW, &other.id, other.addr, &peers));
            assert_eq!(table.answered(NOW, other, &peers), Answered::Added);
        }
        let others =
            table.iter().filter(|entry| entry.contact.addr.ip().to_string().starts_with("9.")).count();
        assert_eq!(others, 10);
        assert_eq!(table.len(), K);
        let crowd = far(60, [8, 8, 8, 60]);
        assert!(!table.wants(NOW, &crowd.id, crowd.addr, &peers), "the party holds half of the bucket");
    }

    #[test]
    fn the_place_of_a_lost_contact_goes_to_the_party_that_holds_least() {
        let (mut table, peers) = (table(), testing::peers());
        for index in 0..K as u8 {
            table.answered(NOW, far(index, [8, 8, index / 2, index]), &peers);
        }
        table.answered(NOW, far(50, [8, 8, 0, 50]), &peers);
        table.answered(NOW, far(51, [8, 8, 7, 51]), &peers);
        table.answered(NOW, far(52, [8, 8, 1, 52]), &peers);
        table.remove(&far(14, [8, 8, 7, 14]).id);
        assert!(table.get(&far(51, [8, 8, 7, 51]).id).is_some());
    }

    #[test]
    fn a_contact_moves_when_its_old_address_is_silent() {
        let (mut table, peers) = (table(), testing::peers());
        let old = far(1, [10, 0, 0, 1]);
        let new = Contact { addr: ([10, 0, 0, 2], 7).into(), ..old };
        table.answered(NOW, old, &peers);
        assert_eq!(table.answered(NOW, new, &peers), Answered::Moved(old));
        assert_eq!(table.get(&old.id).unwrap().contact, old);
        assert_eq!(table.moved(NOW, &old.id, old.addr), Some(new));
        assert_eq!(table.get(&old.id).unwrap().contact, new);
        // If the old address had answered, the new one would have been discarded.
        table.answered(NOW, old, &peers);
        table.answered(NOW, new, &peers);
        assert_eq!(table.moved(NOW, &old.id, new.addr), None);
    }

    #[test]
    fn a_contact_is_good_while_the_table_of_peers_has_heard_from_it_lately_and_it_owes_no_answer() {
        let (mut table, mut peers) = (table(), testing::peers());
        let [heard, unheard] = [1, 2].map(|index| far(index, [10, 0, 0, index]));
        let later = NOW + QUESTIONABLE_AFTER;
        for contact in [heard, unheard] {
            table.answered(NOW, contact, &peers);
        }
        testing::meet(&mut peers, later, &heard);
        let is_good = |table: &RoutingTable, contact: &Contact, peers: &Peers| {
            table.get(&contact.id).is_some_and(|entry| entry.is_good(later, peers))
        };
        assert!(is_good(&table, &heard, &peers) && !is_good(&table, &unheard, &peers));
        peers.note_unanswered(later, &heard.id);
        assert!(!is_good(&table, &heard, &peers));
    }

    #[test]
    fn a_random_key_of_a_bucket_falls_into_it() {
        let table = full(&testing::peers());
        let mut rng = Rng::new([1; 32]);
        for bucket in [0, 1, 7, 8, 9, 63, 255] {
            assert_eq!(table.own.common_prefix(&table.random_key(bucket, &mut rng)), bucket as u32);
        }
    }

    #[test]
    fn the_bucket_that_was_not_touched_for_longest_is_refreshed_first() {
        let mut table = full(&testing::peers());
        assert_eq!(table.longest_untouched(), Some((0, None)));
        table.touch(NOW, &Key([0xff; 32]));
        assert_eq!(table.longest_untouched(), Some((0, Some(NOW))));
    }
}
