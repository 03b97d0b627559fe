//! The body of a gossip and of its reply: states, what the sender knows, whom it suspects.

use super::Refused;
use super::state::{NodeState, StateMark};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What a gossip starts with; states, digest and suspicions follow.
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

/// How news has travelled: four bits for each of the first six states, the lowest first. A state that is told as news says over
/// how many nodes it came, at most 14, and is passed on with one more; 15 is no news. So nothing goes round for ever, however
/// many nodes have forgotten that they heard it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(transparent)]
pub struct Hops([u8; 3]);

impl Hops {
    /// No state is news.
    pub const NO_NEWS: Hops = Hops([0xff; 3]);
    /// States that hops are told of.
    pub const STATES_MAX: usize = 6;
    /// What is no news.
    const OLD: u8 = 15;

    /// Over how many nodes the state at `index` came, when it is news.
    pub fn get(&self, index: usize) -> Option<u8> {
        let hops = self.0.get(index / 2)? >> (index % 2 * 4) & 15;
        (hops != Hops::OLD).then_some(hops)
    }

    /// The state at `index` is news that came over `hops` nodes. What came over more than 14 is none.
    pub fn set(&mut self, index: usize, hops: u8) {
        let Some(byte) = self.0.get_mut(index / 2) else { return };
        let shift = index % 2 * 4;
        *byte = *byte & !(15 << shift) | hops.min(Hops::OLD) << shift;
    }
}

/// A gossip, or the reply to one: both have the same layout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GossipBody<'a> {
    /// The sender's own state, then what it relays. At least one.
    pub states: &'a [NodeState],
    /// Some of the states that the sender knows.
    pub digest: &'a [StateMark],
    /// How many at the start of the digest are the sender's nearest, nearest first and without a gap: what is nearer to
    /// the sender than the last of these and is not listed, it does not know.
    pub nearest: u8,
    /// Whether the digest names everybody that the sender knows: `nearest` is all of it then.
    pub whole: bool,
    /// Which states are news: heard as such lately, or the sender's own and new. Only news is passed on: what merely fills a gap
    /// would never come to rest.
    pub hops: Hops,
    /// Members that do not answer the sender, with the number of the state that it knows.
    pub suspicions: &'a [StateMark],
}

impl<'a> GossipBody<'a> {
    /// Reads a body that fills `payload` exactly.
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
    /// The head of a body; `None` when nobody would take that body.
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
    fn hops_are_told_of_news_and_of_nothing_else() {
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
        assert_eq!((hops.get(0), hops.get(1)), (None, Some(7)));
    }

    #[test]
    fn what_no_recipient_would_take_is_not_written() {
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
