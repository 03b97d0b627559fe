//! Rumours: recently learned states, each sent a bounded number of times.
//!
//! A state reaches the whole network although no node knows all members: a node that hears it for the first time sends it about as
//! often as the logarithm of the network's size (Demers et al., 1987; SWIM, Das et al., 2002). Of nodes that are not in the view,
//! only the sequence number is remembered, in a table of fixed size.

use crate::id::ShortId;
use crate::wire::gossip::Hops;
use crate::wire::state::NodeState;

/// Rumours that are spread at a time.
pub(super) const RUMOURS_MAX: usize = 24;
const _: () = assert!(RUMOURS_MAX <= u32::BITS as usize, "a mask names them");
/// States whose number is remembered. This must exceed the states that arrive while one of them still circulates (about twenty in a
/// round of five seconds, for some minutes); otherwise that one would count as news again.
const SEEN_MAX: usize = 2048;
/// Hops after which a rumour is not spread further. Each node tells several others, so the network has heard it by then.
const HOPS_MAX: u8 = 14;
/// The associativity of the table: places that one short id may be in.
const WAYS: usize = 4;

struct Rumour {
    short: ShortId,
    state: NodeState,
    told: u8,
    /// The number of nodes that it has passed through, including this one.
    hops: u8,
}

/// The rumours that are spread, and the states that were heard.
pub(super) struct Rumours {
    hot: Vec<Rumour>,
    /// Short ids and sequence numbers, in groups of [`WAYS`], the latest first.
    seen: Vec<(ShortId, u64)>,
    salt: u64,
}

impl Rumours {
    /// No rumours. `salt` is secret, so that no other node can choose states that share a place.
    pub(super) fn new(salt: u64) -> Self {
        Rumours { hot: Vec::with_capacity(RUMOURS_MAX), seen: vec![([0; 8], 0); SEEN_MAX], salt }
    }

    /// The number of rumours that are spread.
    pub(super) fn len(&self) -> usize {
        self.hot.len()
    }

    /// Whether this state, or a newer one of the same node, was heard before.
    pub(super) fn is_seen(&self, short: ShortId, sequence: u64) -> bool {
        self.seen[self.group(short)].iter().any(|seen| seen.0 == short && seen.1 >= sequence)
    }

    /// Whether a newer state of the same node was heard.
    pub(super) fn is_outdated(&self, short: ShortId, sequence: u64) -> bool {
        self.seen[self.group(short)].iter().any(|seen| seen.0 == short && seen.1 > sequence)
    }

    /// Spreads a state from now on, unless it was heard before. It came over `hops` hops. Returns whether another rumour was displaced
    /// before it had been sent often enough.
    pub(super) fn add(&mut self, short: ShortId, state: &NodeState, hops: u8) -> bool {
        if self.is_seen(short, state.sequence()) {
            return false;
        }
        let group = self.group(short);
        let group = &mut self.seen[group];
        let place = group.iter().position(|seen| seen.0 == short).unwrap_or(WAYS - 1);
        group[..=place].rotate_right(1);
        group[0] = (short, state.sequence());

        // A state that has come this far has reached every node.
        if hops > HOPS_MAX {
            return false;
        }
        let rumour = Rumour { short, state: *state, told: 0, hops };
        if let Some(old) = self.hot.iter_mut().find(|old| old.short == short) {
            *old = rumour;
            return false;
        }
        if self.hot.len() < RUMOURS_MAX {
            self.hot.push(rumour);
            return false;
        }
        // The rumour that was sent most often has spread furthest.
        if let Some(oldest) = self.hot.iter_mut().max_by_key(|rumour| rumour.told) {
            *oldest = rumour;
        }
        true
    }

    /// Fills `out` with rumours that are not about `about` and were sent fewer than `limit` times, the least sent first, and counts
    /// them as sent. They follow the first state of a datagram; `hops` gets their hops.
    pub(super) fn tell(
        &mut self,
        about: ShortId,
        limit: u8,
        out: &mut [NodeState],
        hops: &mut Hops,
    ) -> usize {
        let (mut count, mut taken) = (0, 0_u32);
        while count < out.len() {
            let candidates = self.hot.iter().enumerate().filter(|(index, rumour)| {
                taken & (1 << index) == 0 && rumour.short != about && rumour.told < limit
            });
            let Some((index, _)) = candidates.min_by_key(|(_, rumour)| rumour.told) else { break };
            taken |= 1 << index;
            let rumour = &mut self.hot[index];
            out[count] = rumour.state;
            hops.set(count + 1, rumour.hops);
            rumour.told = rumour.told.saturating_add(1);
            count += 1;
        }
        self.hot.retain(|rumour| rumour.told < limit);
        count
    }

    fn group(&self, short: ShortId) -> core::ops::Range<usize> {
        let hash = (u64::from_le_bytes(short) ^ self.salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let group = (hash >> 32) as usize % (SEEN_MAX / WAYS);
        group * WAYS..(group + 1) * WAYS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::wire::network::Network;
    use crate::wire::state::About;

    fn state(index: u8, sequence: u64) -> (ShortId, NodeState) {
        let identity = Identity::from_secret(&[index; 32]);
        let state = NodeState::new(&Network::new("test"), &identity, &About::default(), sequence);
        (identity.id().short(), state)
    }

    #[test]
    fn each_rumour_is_sent_a_bounded_number_of_times_least_sent_first() {
        let mut rumours = Rumours::new(7);
        let mut out = [state(9, 1).1; 2];
        for index in 1..=3 {
            let (short, state) = state(index, 1);
            assert!(!rumours.add(short, &state, 1));
        }
        let mut told = 0;
        for _ in 0..20 {
            told += rumours.tell([0; 8], 4, &mut out, &mut Hops::NO_NEWS.clone());
        }
        assert_eq!(told, 12);
        assert_eq!(rumours.len(), 0);
        let (short, again) = state(1, 1);
        rumours.add(short, &again, 1);
        assert_eq!(rumours.len(), 0, "a state that was heard before is no news");
        let (short, newer) = state(1, 2);
        rumours.add(short, &newer, 1);
        assert_eq!(
            rumours.tell(short, 4, &mut out, &mut Hops::NO_NEWS.clone()),
            0,
            "a node is not told about itself"
        );
        assert_eq!(rumours.tell([0; 8], 4, &mut out, &mut Hops::NO_NEWS.clone()), 1);
    }

    #[test]
    fn a_flood_of_rumours_is_bounded_and_displaces_those_sent_most() {
        let mut rumours = Rumours::new(7);
        let mut out = [state(9, 1).1; 4];
        let displaced = (1..=200).filter(|&index| {
            let (short, state) = state(index, 1);
            let displaced = rumours.add(short, &state, 1);
            rumours.tell([0; 8], 50, &mut out, &mut Hops::NO_NEWS.clone());
            displaced
        });
        assert_eq!(displaced.count(), 200 - RUMOURS_MAX);
        assert_eq!(rumours.len(), RUMOURS_MAX);
    }
}
