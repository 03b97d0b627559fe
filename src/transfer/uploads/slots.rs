//! Upload slots: which peers are sent content when several wait for some.
//!
//! A few peers are sent content at a time, because an uplink that is divided among too many serves none of them well. Each of
//! them holds a *slot* for one batch of blocks. The next slot goes to the peer that has received least, by start-time fair
//! queueing (Goyal, Vin and Cheng, 1996). The weight of a peer grows from 1 to 4 with what it has given, so a peer that gives
//! receives up to four times as much as one that does not, and none starves. A new peer starts at the queue's present virtual
//! time. A peer that has waited too long is told that this node is busy, and asks elsewhere or again.

use crate::id::NodeId;
use crate::io::StreamId;
use crate::time::{Duration, Instant};
use crate::transfer::streams::session::Session;
use crate::transfer::streams::table::Streams;
use std::collections::BTreeMap;

/// Peers whose given and received bytes are remembered.
const ACCOUNTS_MAX: usize = 256;
/// The half-life of the remembered bytes.
const HALF_LIFE: Duration = Duration::from_secs(20);
/// The highest weight: the multiple that a peer receives if it gives at least as much as it takes.
const REWARD: u64 = 4;
/// The least time that a slot is held, even if little leaves on it.
const HOLD: Duration = Duration::from_secs(1);
/// Under a rate limit, each slot needs at least this rate, in bytes per second: that bounds the number of slots.
const SLOT_RATE: u64 = 16 << 10;
/// The least rate at which a slot stays held, in bytes per second.
const RATE_MIN: u64 = 1 << 10;

/// The upload slots: which streams wait for one, and what each peer has given and received.
#[derive(Default)]
pub(super) struct Slots {
    /// Streams that have content to send and no slot, and since when.
    waiting: BTreeMap<StreamId, Instant>,
    accounts: BTreeMap<NodeId, Account>,
    /// The virtual time of fair queueing: a new peer's position starts here.
    clock: u64,
    /// The highest recent upload rate, in bytes per second. It decays.
    uplink: u64,
    /// The present measurement of the upload rate: its start, and the bytes since then.
    window: Option<(Instant, u64)>,
    /// The upload limit in bytes per second; 0 is unlimited.
    pub(super) rate: u64,
    /// When slots were last assigned.
    seen: Instant,
}

/// What a peer has given and received, in bytes.
#[derive(Default)]
struct Account {
    given: u64,
    taken: u64,
    /// When the halving was last applied.
    at: Instant,
    /// The peer's virtual finish time.
    position: u64,
}

impl Account {
    fn age(&mut self, now: Instant) {
        let halvings = (now.since(self.at).as_secs() / HALF_LIFE.as_secs()).min(63);
        if halvings > 0 {
            (self.given, self.taken, self.at) = (self.given >> halvings, self.taken >> halvings, now);
        }
    }

    /// The peer's weight in fair queueing: from 1 up to [`REWARD`].
    fn weight(&self) -> u64 {
        let (given, taken) = (self.given >> 10, (self.taken >> 10).max(1));
        1 + (REWARD - 1) * given.min(taken) / taken
    }
}

impl Slots {
    pub(super) fn with_rate(rate: u64) -> Slots {
        Slots { rate, ..Slots::default() }
    }

    fn account(&mut self, now: Instant, peer: NodeId) -> &mut Account {
        if !self.accounts.contains_key(&peer) && self.accounts.len() >= ACCOUNTS_MAX {
            let oldest = self.accounts.iter().min_by_key(|(_, account)| account.at).map(|(id, _)| *id);
            oldest.map(|oldest| self.accounts.remove(&oldest));
        }
        let account = self.accounts.entry(peer).or_insert(Account { at: now, ..Account::default() });
        account.age(now);
        account
    }

    /// A peer sent content.
    pub(super) fn given(&mut self, now: Instant, peer: NodeId, bytes: u64) {
        let account = self.account(now, peer);
        account.given = account.given.saturating_add(bytes);
    }

    /// Content was sent to a peer.
    pub(super) fn taken(&mut self, now: Instant, peer: NodeId, bytes: u64) {
        let account = self.account(now, peer);
        account.taken = account.taken.saturating_add(bytes);
        let (since, sum) = self.window.get_or_insert((now, 0));
        *sum = sum.saturating_add(bytes);
        let elapsed = now.since(*since);
        if elapsed.as_secs() >= 1 {
            let rate = sum.saturating_mul(1000) / (elapsed.as_millis() as u64).max(1);
            self.uplink = rate.max(self.uplink - self.uplink / 8);
            self.window = Some((now, 0));
        }
    }

    /// A peer gets a batch of `bytes`: advances its position.
    pub(super) fn charge(&mut self, now: Instant, peer: NodeId, bytes: u64) {
        let clock = self.clock;
        let account = self.account(now, peer);
        let start = account.position.max(clock);
        account.position = start + bytes.saturating_mul(REWARD) / account.weight();
        self.clock = start;
    }

    fn position(&self, peer: Option<NodeId>) -> u64 {
        let account = peer.and_then(|peer| self.accounts.get(&peer));
        account.map_or(0, |account| account.position).max(self.clock)
    }

    /// The stream closed.
    pub(super) fn forget(&mut self, stream: StreamId) {
        self.waiting.remove(&stream);
    }

    fn count(&self, uploads_max: usize) -> usize {
        match self.rate {
            0 => uploads_max,
            rate => uploads_max.min((rate / SLOT_RATE) as usize).max(1),
        }
    }

    /// Until when a stream holds its slot. A peer that takes less than a quarter of a fair share of this node's upload rate loses
    /// the slot to others.
    fn held_until(&self, session: &Session, slots: usize) -> Instant {
        let pace = (self.uplink / (4 * slots as u64)).max(RATE_MIN);
        let (since, sent) = session.outgoing.batch();
        since + HOLD + Duration::from_millis(sent.saturating_mul(1000) / pace)
    }
}

/// Turns.
impl Slots {
    /// Whether a stream may be handed content now. If it may not, it waits for a slot.
    pub(super) fn has_turn(
        &mut self,
        now: Instant,
        stream: StreamId,
        streams: &Streams,
        uploads_max: usize,
    ) -> bool {
        let Some(session) = streams.get(&stream) else { return false };
        if !session.outgoing.is_ready_to_send() || !session.outgoing.sending.is_empty() {
            self.waiting.remove(&stream);
            return true;
        }
        self.waiting.entry(stream).or_insert(now);
        let slots = self.count(uploads_max);
        let held = |session: &&Session| {
            !session.outgoing.sending.is_empty() && now < self.held_until(session, slots)
        };
        let free = slots.saturating_sub(streams.values().filter(held).count());
        if self.before(stream, streams) >= free {
            return false;
        }
        self.waiting.remove(&stream);
        true
    }

    /// The rank of a waiting stream: the peer that has received less comes first, then the stream that has waited longer.
    fn place(&self, stream: StreamId, since: Instant, streams: &Streams) -> (u64, Instant, StreamId) {
        let peer = streams.get(&stream).and_then(Session::peer_id);
        (self.position(peer), since, stream)
    }

    /// The number of waiting streams that rank before this one.
    fn before(&self, stream: StreamId, streams: &Streams) -> usize {
        let Some(since) = self.waiting.get(&stream) else { return 0 };
        let own = self.place(stream, *since, streams);
        self.waiting.iter().filter(|(stream, since)| self.place(**stream, **since, streams) < own).count()
    }

    /// Forgets the streams that have nothing to send any more. The slots are about to be assigned.
    pub(super) fn review(&mut self, now: Instant, streams: &Streams) {
        self.seen = now;
        let ready =
            |session: &Session| session.outgoing.is_ready_to_send() && session.outgoing.sending.is_empty();
        self.waiting.retain(|stream, _| streams.get(stream).is_some_and(ready));
    }

    /// The waiting stream that ranks first.
    pub(super) fn first(&self, streams: &Streams) -> Option<StreamId> {
        let places = self.waiting.iter().map(|(stream, since)| self.place(*stream, *since, streams));
        places.min().map(|(_, _, first)| first)
    }

    /// Whether a stream waits for a slot.
    pub(super) fn is_waiting(&self, stream: StreamId) -> bool {
        self.waiting.contains_key(&stream)
    }

    /// The streams that have waited for `long`. Their time starts anew.
    pub(super) fn late(&mut self, now: Instant, long: Duration) -> Vec<StreamId> {
        let late = self.waiting.iter_mut().filter(|(_, since)| **since + long <= now);
        late.map(|(stream, since)| {
            *since = now;
            *stream
        })
        .collect()
    }

    /// When, with time alone, a slot becomes free or a stream has waited for `long`.
    pub(super) fn next_turn(&self, streams: &Streams, uploads_max: usize, long: Duration) -> Option<Instant> {
        let first = self.waiting.values().min()?;
        let slots = self.count(uploads_max);
        let held = streams.values().filter(|session| !session.outgoing.sending.is_empty());
        // A slot whose time ended before `seen` was assigned to another stream then.
        let free = held.map(|session| self.held_until(session, slots)).filter(|at| *at > self.seen);
        free.chain([*first + long]).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_secs(10);

    /// The number of `batches` that each peer gets when all always wait. The last peer comes after half of them.
    fn shares(gives: &[bool], batches: u32) -> Vec<u32> {
        let mut slots = Slots::default();
        let mut got = vec![0; gives.len()];
        let peer = |index: usize| NodeId([index as u8 + 1; 32]);
        for batch in 0..batches {
            let present = if batch < batches / 2 { gives.len() - 1 } else { gives.len() };
            let next =
                (0..present).min_by_key(|index| (slots.position(Some(peer(*index))), got[*index])).unwrap();
            slots.charge(NOW, peer(next), 1 << 20);
            slots.taken(NOW, peer(next), 1 << 20);
            if gives[next] {
                slots.given(NOW, peer(next), 1 << 20);
            }
            got[next] += 1;
        }
        got
    }

    #[test]
    fn equal_peers_receive_the_same_and_a_newcomer_a_fair_share() {
        let got = shares(&[false; 4], 1200);
        assert!(got[..3].iter().all(|got| (340..=360).contains(got)), "{got:?}");
        assert!((140..=160).contains(&got[3]), "{got:?}");
    }

    #[test]
    fn a_peer_that_gives_receives_four_times_as_much_and_the_others_do_not_starve() {
        let got = shares(&[true, false, false, false], 1200);
        assert!((3 * got[1]..=5 * got[1]).contains(&got[0]), "{got:?}");
        assert!(got[2] > 100 && got[3] > 50, "{got:?}");
    }

    #[test]
    fn a_contribution_counts_less_with_time() {
        let mut slots = Slots::default();
        let peer = NodeId([1; 32]);
        slots.given(NOW, peer, 1 << 30);
        slots.taken(NOW, peer, 1 << 30);
        assert_eq!(slots.account(NOW, peer).weight(), REWARD);
        assert_eq!(slots.account(NOW + Duration::from_secs(3600), peer).weight(), 1);
    }

    #[test]
    fn the_number_of_accounts_is_bounded() {
        let mut slots = Slots::default();
        for number in 0..1000_u32 {
            let mut id = [2; 32];
            id[..4].copy_from_slice(&number.to_le_bytes());
            slots.given(NOW, NodeId(id), 1);
        }
        assert_eq!(slots.accounts.len(), ACCOUNTS_MAX);
    }
}
