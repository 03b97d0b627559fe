//! The own state of this node, signed anew for each change that is worth spreading.

use crate::peers::outbox::Outbox;
use crate::time::{Duration, Instant};
use crate::wire::state::{About, NodeState};
use core::net::SocketAddr;

/// The content of this node's own state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OwnState {
    /// The addresses where it answers: at most one of each family.
    pub addrs: [Option<SocketAddr>; 2],
    /// The number of pieces that it stores for the network.
    pub chunks: u32,
    /// Its load, per mille.
    pub load: u16,
    /// Free bytes that it offers to the network.
    pub free_bytes: u64,
    /// The version of the program.
    pub version: [u8; 4],
    /// Whether it is a leaf: it requests, but does not serve the network.
    pub leaf: bool,
}

/// The own state: its present content, and the content that was last signed.
pub(super) struct SelfState {
    wanted: About,
    told: About,
    told_at: Instant,
    /// Since when the signed state has been news to the whole network.
    news_at: Instant,
    sequence: u64,
    signed: Option<NodeState>,
}

impl SelfState {
    /// Since when the present state has been news: a new address, a new version, a goodbye, a new run. Changed numbers, and a
    /// refutation, are no news: near nodes see them in every round, and far ones in digests.
    pub(super) fn news_at(&self) -> Instant {
        self.news_at
    }

    /// An empty state. `sequence` must be above every number that earlier runs used.
    pub(super) fn new(leaf: bool, sequence: u64, now: Instant) -> Self {
        let about = About { leaf, ..About::default() };
        let sequence = sequence.saturating_add(1);
        SelfState { wanted: about, told: about, told_at: now, news_at: now, sequence, signed: None }
    }

    /// The sequence number of the present state.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Sets the content to be signed next.
    pub(super) fn set(&mut self, state: &OwnState) {
        let OwnState { addrs, chunks, load, free_bytes, version, leaf } = *state;
        let load = load.min(NodeState::LOAD_MAX);
        self.wanted = About { addrs, leaf, load, chunks, version, free_bytes, ..self.wanted };
    }

    /// States from now on that this node is leaving.
    pub(super) fn leave(&mut self, for_good: bool) {
        (self.wanted.gone, self.wanted.away) = (for_good, !for_good);
    }

    /// Makes a new state if the content has changed enough. Returns whether it did.
    pub(super) fn reconsider(&mut self, now: Instant, tell_interval: Duration) -> bool {
        let numbers = |about: &About| About {
            load: self.told.load,
            chunks: self.told.chunks,
            free_bytes: self.told.free_bytes,
            ..*about
        };
        let urgent = numbers(&self.wanted) != self.told;
        let due = self.signed.is_none() || now.since(self.told_at) >= tell_interval;
        let changed = urgent || due && self.is_much();
        if changed {
            self.renew(now);
        }
        if urgent {
            self.news_at = now;
        }
        changed
    }

    /// Makes a new state without a change, to refute a suspicion.
    pub(super) fn renew(&mut self, now: Instant) {
        self.follow(self.sequence);
        (self.told, self.told_at) = (self.wanted, now);
    }

    /// Whether `state` is the present state as it was signed.
    pub(super) fn is(&self, state: &NodeState) -> bool {
        self.signed.as_ref() == Some(state)
    }

    /// Another node has a state of this node with a number that this run did not use: takes a higher one, and counts it as news.
    pub(super) fn outdo(&mut self, now: Instant, sequence: u64) {
        self.follow(sequence);
        self.news_at = now;
    }

    fn follow(&mut self, sequence: u64) {
        if sequence >= self.sequence {
            self.sequence = sequence.saturating_add(1);
            self.signed = None;
        }
    }

    /// The state, signed if it is new.
    pub(super) fn state(&mut self, outbox: &Outbox) -> NodeState {
        let sign = || NodeState::new(outbox.network(), outbox.identity(), &self.told, self.sequence);
        *self.signed.get_or_insert_with(sign)
    }

    /// Whether numbers differ by enough to be signed anew: a load by a tenth of the maximum, any other number by an eighth.
    fn is_much(&self) -> bool {
        let much = |a: u64, b: u64| a.abs_diff(b) > a.max(b) / 8;
        self.wanted.load.abs_diff(self.told.load) >= 100
            || much(u64::from(self.wanted.chunks), u64::from(self.told.chunks))
            || much(self.wanted.free_bytes, self.told.free_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::wire::network::Network;

    const PAUSE: Duration = Duration::from_secs(300);

    #[test]
    fn only_a_large_change_makes_a_new_state() {
        let outbox =
            crate::peers::testing::outbox(&Network::new("test"), Identity::from_secret(&[1; 32]), false, 1);
        let mut own = SelfState::new(false, 7 << 32, Instant::from_secs(1));
        let first = OwnState { chunks: 1000, load: 100, ..OwnState::default() };
        own.set(&first);
        assert!(own.reconsider(Instant::from_secs(1), PAUSE), "nothing was told yet");
        let state = own.state(&outbox);
        assert_eq!(state.chunks(), 1000);
        assert_eq!(state.sequence() >> 32, 7);
        assert_eq!(own.news_at(), Instant::from_secs(1));
        own.set(&OwnState { chunks: 1050, load: 150, ..first });
        assert!(!own.reconsider(Instant::from_secs(9000), PAUSE), "small change");
        assert_eq!(own.state(&outbox), state);
        own.set(&OwnState { chunks: 2000, ..first });
        assert!(!own.reconsider(Instant::from_secs(100), PAUSE), "too soon");
        assert!(own.reconsider(Instant::from_secs(301), PAUSE));
        assert!(own.state(&outbox).sequence() > state.sequence());
        own.renew(Instant::from_secs(301));
        assert_eq!(own.news_at(), Instant::from_secs(1), "neither numbers nor a refutation are news");
        let moved = OwnState { addrs: [Some(([192, 0, 2, 1], 1).into()), None], chunks: 2000, ..first };
        own.set(&moved);
        assert!(own.reconsider(Instant::from_secs(302), PAUSE), "an address is told at once");
        assert_eq!(own.news_at(), Instant::from_secs(302));
        assert_eq!(own.state(&outbox).addrs().count(), 1);
    }

    #[test]
    fn a_number_that_others_remember_is_exceeded() {
        let mut own = SelfState::new(false, 1 << 32, Instant::ZERO);
        own.outdo(Instant::ZERO, 5 << 32);
        assert_eq!(own.sequence(), (5 << 32) + 1);
        own.outdo(Instant::ZERO, 7);
        assert_eq!(own.sequence(), (5 << 32) + 1);
    }
}
