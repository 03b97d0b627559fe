//! The body of a gossip and of its reply: states, what the sender knows, whom it suspects.

use super::Refused;
use super::message::reserved;
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
    news: u8,
    reserved: [u8; 2],
}

const _: () = assert!(size_of::<GossipHead>() == 8);

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
    /// Which of the first eight states are news, the lowest bit for the first: the sender heard of them lately as news, or they
    /// are its own and new. Only news is passed on: what merely fills a gap would go round for ever.
    pub news: u8,
    /// Members that do not answer the sender, with the number of the state that it knows.
    pub suspicions: &'a [StateMark],
}

impl<'a> GossipBody<'a> {
    /// Reads a body that fills `payload` exactly.
    pub(super) fn parse(payload: &'a [u8]) -> Result<Self, Refused> {
        let (head, rest) = GossipHead::ref_from_prefix(payload).map_err(|_| Refused::Length)?;
        reserved(&head.reserved)?;
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
            news: head.news,
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
            && (self.states.len() >= 8 || self.news >> self.states.len() == 0)
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
        right.then_some(GossipHead {
            states,
            digests,
            nearest,
            suspicions,
            whole,
            news: body.news,
            reserved: [0; 2],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::wire::datagram::PAYLOAD_BYTES_MAX;
    use crate::wire::header::Kind;
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
            news: 5,
            suspicions: &marks[..2],
        };
        let payload = written(body).unwrap();
        assert_eq!(payload.len(), 8 + 3 * 160 + 7 * 16);
        assert_eq!(Message::parse(Kind::Gossip, &payload), Ok(Message::Gossip(body)));
        assert_eq!(Message::parse(Kind::GossipReply, &payload), Ok(Message::GossipReply(body)));
    }

    #[test]
    fn what_no_recipient_would_take_is_not_written() {
        let (states, marks) = ([state()], [StateMark::new([7; 8], 3); 2]);
        let body =
            GossipBody { states: &states, digest: &marks, nearest: 2, whole: true, news: 1, suspicions: &[] };
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
            news: 0,
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
            (5, 2, Refused::Value),
            (6, 1, Refused::Reserved),
        ] {
            let mut changed = payload.clone();
            changed[index] = value;
            assert_eq!(Message::parse(Kind::Gossip, &changed), Err(why), "byte {index} is {value}");
        }
    }
}
