//! What this node says about itself: signed once for each change that is worth telling.

use crate::time::{Duration, Instant};
use crate::wire::outbox::Outbox;
use crate::wire::state::{About, NodeState};
use core::net::SocketAddr;

/// What a node tells about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OwnState {
    /// Where it answers: one address of each family, or fewer.
    pub addrs: [Option<SocketAddr>; 2],
    /// Pieces that it stores for the network.
    pub chunks: u32,
    /// How busy it is, per mille.
    pub load: u16,
    /// Bytes that it would still store for the network.
    pub free_bytes: u64,
    /// The version of its program.
    pub version: [u8; 4],
    /// Whether it only asks.
    pub leaf: bool,
}

/// This node's own state, as it is and as it was told.
pub(super) struct SelfState {
    wanted: About,
    told: About,
    told_at: Instant,
    /// Since when the present state says something that all of the network should know.
    news_at: Instant,
    sequence: u64,
    signed: Option<NodeState>,
}

impl SelfState {
    /// Since when the present state is news: another address, another version, a goodbye, a new life. Numbers, and that it is
    /// there, are none: who is near hears those from it in every round, and who is far in digests.
    pub(super) fn news_at(&self) -> Instant {
        self.news_at
    }

    /// Nothing to say yet. `sequence` is over every number that earlier runs used.
    pub(super) fn new(leaf: bool, sequence: u64, now: Instant) -> Self {
        let about = About { leaf, ..About::default() };
        let sequence = sequence.saturating_add(1);
        SelfState { wanted: about, told: about, told_at: now, news_at: now, sequence, signed: None }
    }

    /// The number of the present state.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Sets what is to be said.
    pub(super) fn set(&mut self, state: &OwnState) {
        let OwnState { addrs, chunks, load, free_bytes, version, leaf } = *state;
        let load = load.min(NodeState::LOAD_MAX);
        self.wanted = About { addrs, leaf, load, chunks, version, free_bytes, ..self.wanted };
    }

    /// Says from now on that this node is leaving.
    pub(super) fn leave(&mut self, for_good: bool) {
        (self.wanted.gone, self.wanted.away) = (for_good, !for_good);
    }

    /// Makes a new state when there is a change that is worth it. True when there was.
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

    /// Makes a new state although nothing has changed: this node is there.
    pub(super) fn renew(&mut self, now: Instant) {
        self.follow(self.sequence);
        (self.told, self.told_at) = (self.wanted, now);
    }

    /// Whether this is the present state, as it was told.
    pub(super) fn is(&self, state: &NodeState) -> bool {
        self.signed.as_ref() == Some(state)
    }

    /// Somebody has a state of this node with a number that it does not remember: everybody may have it.
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

    /// The state, signed when it is new.
    pub(super) fn state(&mut self, outbox: &Outbox) -> NodeState {
        let sign = || NodeState::new(outbox.network(), outbox.identity(), &self.told, self.sequence);
        *self.signed.get_or_insert_with(sign)
    }

    /// A tenth of all that a node can be busy, or an eighth more or less of what it has.
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
    fn only_a_change_worth_telling_makes_a_new_state() {
        let outbox = Outbox::new(Network::new("test"), Identity::from_secret(&[1; 32]), false, 1, 1);
        let mut own = SelfState::new(false, 7 << 32, Instant::from_secs(1));
        let first = OwnState { chunks: 1000, load: 100, ..OwnState::default() };
        own.set(&first);
        assert!(own.reconsider(Instant::from_secs(1), PAUSE), "nothing was told yet");
        let state = own.state(&outbox);
        assert_eq!((state.chunks(), state.sequence() >> 32), (1000, 7));
        assert_eq!(own.news_at(), Instant::from_secs(1));
        own.set(&OwnState { chunks: 1050, load: 150, ..first });
        assert!(!own.reconsider(Instant::from_secs(9000), PAUSE), "small change");
        assert_eq!(own.state(&outbox), state);
        own.set(&OwnState { chunks: 2000, ..first });
        assert!(!own.reconsider(Instant::from_secs(100), PAUSE), "too soon");
        assert!(own.reconsider(Instant::from_secs(301), PAUSE));
        assert!(own.state(&outbox).sequence() > state.sequence());
        own.renew(Instant::from_secs(301));
        assert_eq!(own.news_at(), Instant::from_secs(1), "numbers are no news, nor is being there");
        let moved = OwnState { addrs: [Some(([192, 0, 2, 1], 1).into()), None], chunks: 2000, ..first };
        own.set(&moved);
        assert!(own.reconsider(Instant::from_secs(302), PAUSE), "an address is told at once");
        assert_eq!(own.news_at(), Instant::from_secs(302));
        assert_eq!(own.state(&outbox).addrs().count(), 1);
    }

    #[test]
    fn a_number_that_others_remember_is_outdone() {
        let mut own = SelfState::new(false, 1 << 32, Instant::ZERO);
        own.outdo(Instant::ZERO, 5 << 32);
        assert_eq!(own.sequence(), (5 << 32) + 1);
        own.outdo(Instant::ZERO, 7);
        assert_eq!(own.sequence(), (5 << 32) + 1);
    }
}
