//! The body of a gossip and of its reply: states, a digest of the states that the sender knows, and its suspicions.

use super::Refused;
use super::state::{NodeState, StateMark};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The head of a gossip; states, digest and suspicions follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct GossipHead {
    states: u8,
    digests: u8,
    nearest: u8,
    suspicions: u8,
    whole: u8,
    hops: Hops,
}

const _: () = assert!(size_of::<GossipHead>() == 8);

/// The hop counts of rumours: four bits for each of the first six states, the lowest first. A rumour carries the number of nodes
/// that relayed it, at most 14, and is relayed with one more; 15 marks a state that is no rumour. So no rumour circulates for
/// ever, even if every node forgets that it has relayed it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(transparent)]
pub struct Hops([u8; 3]);

impl Hops {
    /// No state is a rumour.
    pub const NO_NEWS: Hops = Hops([0xff; 3]);
    /// The states that have a hop count.
    pub const STATES_MAX: usize = 6;
    /// The mark of a state that is no rumour.
    const OLD: u8 = 15;

    /// The number of nodes that relayed the state at `index`; `None` when it is no rumour.
    pub fn get(&self, index: usize) -> Option<u8> {
        let hops = self.0.get(index / 2)? >> (index % 2 * 4) & 15;
        (hops != Hops::OLD).then_some(hops)
    }

    /// Marks the state at `index` as a rumour that `hops` nodes relayed. With more than 14 it is none.
    pub fn set(&mut self, index: usize, hops: u8) {
        let Some(byte) = self.0.get_mut(index / 2) else { return };
        let shift = index % 2 * 4;
        *byte = *byte & !(15 << shift) | hops.min(Hops::OLD) << shift;
    }
}

/// A gossip, or the reply to one: both have the same layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GossipBody<'a> {
    /// The sender's own state, then those that it relays. At least one.
    pub states: &'a [NodeState],
    /// Marks of states that the sender knows.
    pub digest: &'a [StateMark],
    /// The number of marks at the start of the digest that are the sender's nearest members, nearest first and without a gap. The
    /// sender does not know a member that is nearer than the last of them and not among them.
    pub nearest: u8,
    /// Whether the digest has every member that the sender knows. Then `nearest` is the length of the digest.
    pub whole: bool,
    /// The states that are rumours: received as such, or the sender's own new state. Nodes relay only rumours: states that merely
    /// fill a gap would circulate for ever.
    pub hops: Hops,
    /// Members that do not answer the sender, with the sequence number of the state that it knows.
    pub suspicions: &'a [StateMark],
}

impl<'a> GossipBody<'a> {
    /// Parses a body that must fill `payload` exactly.
    pub(super) fn parse(payload: &'a [u8]) -> Result<Self, Refused> {
        let (head, rest) = GossipHead::ref_from_prefix(payload).map_err(|_| Refused::Length)?;
        let (states, rest) = <[NodeState]>::ref_from_prefix_with_elems(rest, usize::from(head.states))
            .map_err(|_| Refused::Length)?;
        let (digest, rest) = <[StateMark]>::ref_from_prefix_with_elems(rest, usize::from(head.digests))
            .map_err(|_| Refused::Length)?;
        let suspicions = <[StateMark]>::ref_from_bytes(rest).map_err(|_| Refused::Length)?;
        if suspicions.len() != usize::from(head.suspicions) {
            return Err(Refused::Length);
        }
        let body = GossipBody {
            states,
            digest,
            nearest: head.nearest,
            whole: head.whole == 1,
            hops: head.hops,
            suspicions,
        };
        if head.whole > 1 || !body.is_right() {
            return Err(Refused::Value);
        }
        states.iter().try_for_each(NodeState::check)?;
        Ok(body)
    }

    fn is_right(&self) -> bool {
        let nearest = usize::from(self.nearest);
        !self.states.is_empty()
            && nearest <= self.digest.len()
            && (!self.whole || nearest == self.digest.len())
            && (self.states.len()..Hops::STATES_MAX).all(|index| self.hops.get(index).is_none())
    }
}

impl GossipHead {
    /// The head of a body; `None` when every recipient would refuse the body.
    pub(super) fn of(body: &GossipBody<'_>) -> Option<Self> {
        let count = |length: usize| u8::try_from(length).ok();
        let (states, digests) = (count(body.states.len())?, count(body.digest.len())?);
        let suspicions = count(body.suspicions.len())?;
        let (nearest, whole) = (body.nearest, u8::from(body.whole));
        let right = body.is_right() && body.states.iter().all(|state| state.check().is_ok());
        right.then_some(GossipHead { states, digests, nearest, suspicions, whole, hops: body.hops })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::wire::header::Kind;
    use crate::wire::header::PAYLOAD_BYTES_MAX;
    use crate::wire::message::Message;
    use crate::wire::network::Network;
    use crate::wire::state::About;

    fn state() -> NodeState {
        NodeState::new(&Network::new("test"), &Identity::from_secret(&[1; 32]), &About::default(), 5)
    }

    fn written(body: GossipBody<'_>) -> Option<Vec<u8>> {
        let mut out = [0xff; PAYLOAD_BYTES_MAX];
        let length = Message::Gossip(body).write(&mut out)?;
        Some(out[..length].to_vec())
    }

    #[test]
    fn a_body_reads_as_it_was_written() {
        let (states, marks) = ([state(); 3], [StateMark::new([7; 8], 3); 5]);
        let body = GossipBody {
            states: &states,
            digest: &marks,
            nearest: 4,
            whole: false,
            hops: Hops::NO_NEWS,
            suspicions: &marks[..2],
        };
        let payload = written(body).unwrap();
        assert_eq!(payload.len(), 8 + 3 * 160 + 7 * 16);
        assert_eq!(Message::parse(Kind::Gossip, &payload), Ok(Message::Gossip(body)));
        assert_eq!(Message::parse(Kind::GossipReply, &payload), Ok(Message::GossipReply(body)));
    }

    #[test]
    fn only_rumours_have_a_hop_count() {
        let mut hops = Hops::NO_NEWS;
        hops.set(1, 0);
        hops.set(4, 14);
        hops.set(5, 200);
        hops.set(6, 1);
        assert_eq!(
            [0, 1, 2, 3, 4, 5, 6].map(|index| hops.get(index)),
            [None, Some(0), None, None, Some(14), None, None]
        );
        hops.set(1, 7);
        assert_eq!(hops.get(0), None);
        assert_eq!(hops.get(1), Some(7));
    }

    #[test]
    fn a_body_that_every_recipient_would_refuse_is_not_written() {
        let (states, marks) = ([state()], [StateMark::new([7; 8], 3); 2]);
        let body = GossipBody {
            states: &states,
            digest: &marks,
            nearest: 2,
            whole: true,
            hops: Hops::NO_NEWS,
            suspicions: &[],
        };
        assert!(written(body).is_some());
        assert_eq!(written(GossipBody { nearest: 3, whole: false, ..body }), None);
        assert_eq!(written(GossipBody { nearest: 1, ..body }), None, "the whole has no rest");
        assert_eq!(written(GossipBody { states: &[], ..body }), None);
        assert_eq!(written(GossipBody { states: &[NodeState::unknown(state().public())], ..body }), None);
        assert_eq!(written(GossipBody { states: &[state(); 7], ..body }), None, "it does not fit");
    }

    #[test]
    fn counts_that_contradict_the_length_are_refused() {
        let (states, marks) = ([state()], [StateMark::new([7; 8], 3)]);
        let body = GossipBody {
            states: &states,
            digest: &marks,
            nearest: 1,
            whole: false,
            hops: Hops::NO_NEWS,
            suspicions: &[],
        };
        let payload = written(body).unwrap();
        for (index, value, why) in [
            (0, 0, Refused::Length),
            (0, 255, Refused::Length),
            (1, 2, Refused::Length),
            (2, 2, Refused::Value),
            (3, 1, Refused::Length),
            (4, 2, Refused::Value),
            (5, 0x0f, Refused::Value),
            (7, 0xf0, Refused::Value),
        ] {
            let mut changed = payload.clone();
            changed[index] = value;
            assert_eq!(Message::parse(Kind::Gossip, &changed), Err(why), "byte {index} is {value}");
        }
    }
}
