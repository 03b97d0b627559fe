//! The state that all wings of the machine share. A wing gets it with each input, so the compiler shows that it touches no other
//! wing.
//!
//! An event that concerns several wings at once, such as the end of a stream, is entered in [`Unsettled`]; the machine passes it
//! to the wings when it settles.

use super::config::TransferConfig;
use super::counters::TransferCounters;
use super::events::{StreamOutput, TransferEvent};
use super::streams::close::CloseReason;
use super::streams::session::{Purpose, Receiving, Session};
use super::streams::table::Streams;
use crate::id::{Key, NodeId};
use crate::io::{Sink, StreamId};
use crate::peers::blame::{Ban, Blame};
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::contact::Contact;
use crate::wire::frame::Frame;
use crate::wire::network::Network;
use std::collections::VecDeque;

/// The state that all wings share.
pub(super) struct Common {
    pub(super) config: TransferConfig,
    pub(super) rng: Rng,
    pub(super) streams: Streams,
    pub(super) blame: Blame,
    pub(super) out: Out,
    pub(super) unsettled: Unsettled,
}

/// Events that the wings do not know yet. It is empty between two inputs.
#[derive(Default)]
pub(super) struct Unsettled {
    /// Streams that were closed.
    pub(super) closed: VecDeque<Closed>,
    /// Bans that are not enforced yet.
    pub(super) bans: VecDeque<Ban>,
    /// Whether a stream opened or closed: that may matter to every download, push and inspection.
    pub(super) streams: bool,
}

/// A stream that was closed, with what it was used for.
pub(super) struct Closed {
    pub(super) stream: StreamId,
    pub(super) session: Session,
    /// Whether downloads that are still owed something over it count this as a failure of the peer.
    pub(super) blames_peer: bool,
}

impl Common {
    pub(super) fn new(config: TransferConfig, network: Network, seed: [u8; 32]) -> Common {
        Common {
            rng: Rng::new(seed),
            streams: Streams::new(network),
            blame: Blame::new(config.limits.blamed_peers_max, config.parties, config.timing.ban),
            out: Out::default(),
            unsettled: Unsettled::default(),
            config,
        }
    }

    /// Connects to a node unless a stream to it exists or is being dialled. False when there is no room.
    pub(super) fn dial(&mut self, now: Instant, contact: Contact) -> bool {
        self.streams.dial(now, contact, &self.config, &mut self.out)
    }

    /// Connects to a node that is being dialled once more: see [`Streams::dial_again`].
    pub(super) fn dial_again(&mut self, now: Instant, contact: Contact) {
        self.streams.dial_again(now, contact, &self.config, &mut self.out);
    }

    /// Whether this is the number of an offer of this end.
    pub(super) fn is_offer(&self, stream: StreamId, number: u32) -> bool {
        self.streams.get(&stream).is_some_and(|session| session.pushes.contains_key(&number))
    }

    /// The next raw bytes of a stream go to a file.
    pub(super) fn start_sink(&mut self, now: Instant, stream: StreamId, purpose: Purpose, sink: Sink) {
        let Some(session) = self.streams.get_mut(&stream) else { return };
        session.receiving = Receiving::Sink { purpose, length: sink.length, begun: now, received: 0 };
        self.out.outputs.push_back(StreamOutput::Sink { stream, sink });
    }
}

/// Ends of streams.
impl Common {
    /// Closes a stream.
    pub(super) fn close(&mut self, stream: StreamId, reason: CloseReason) {
        if let Some(session) = self.streams.remove(stream) {
            *self.out.counters.closed(reason) += 1;
            self.out.outputs.push_back(StreamOutput::Close { stream });
            let blames_peer = reason.blames_peer();
            self.unsettled.closed.push_back(Closed { stream, session, blames_peer });
        }
    }

    /// A stream broke, or the other end closed it.
    pub(super) fn broke(&mut self, stream: StreamId) {
        if let Some(session) = self.streams.remove(stream) {
            self.out.counters.stream_closed += 1;
            self.unsettled.closed.push_back(Closed { stream, session, blames_peer: true });
        }
    }

    /// Closes the streams of a peer, each when the peer has read what was written to it.
    pub(super) fn shun(&mut self, peer: &NodeId) {
        for stream in self.streams.disown_all(peer) {
            match self.streams.get_mut(&stream) {
                Some(session) if session.unread > 0 => session.ending = true,
                _ => self.close(stream, CloseReason::Shunned),
            }
        }
        self.unsettled.streams = true;
    }

    /// Bans a peer for wrong content of a file: from the file, or from everything.
    pub(super) fn ban(&mut self, now: Instant, peer: Contact, file: Key, key: Key) {
        let ban = self.blame.note(now, peer, file);
        self.out.event(TransferEvent::SourceBad { ban, file, key });
        self.unsettled.bans.push_back(ban);
    }
}

/// The outputs and events that wait to be polled, and the counters.
#[derive(Default)]
pub(super) struct Out {
    pub(super) outputs: VecDeque<StreamOutput>,
    pub(super) events: VecDeque<TransferEvent>,
    pub(super) counters: TransferCounters,
    pub(super) downloaded: u64,
    pub(super) uploaded: u64,
}

impl Out {
    pub(super) fn event(&mut self, event: TransferEvent) {
        self.events.push_back(event);
    }

    pub(super) fn write(&mut self, stream: StreamId, session: &mut Session, frame: &Frame<'_>) {
        let bytes = session.write(frame);
        self.outputs.push_back(StreamOutput::Write { stream, bytes });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::transfer::testing::{NOW, connected, peer, stream};

    const KEY: Key = Key([1; 32]);

    #[test]
    fn a_closed_stream_that_waits_to_be_released_is_no_stream_to_its_peer() {
        let mut common = connected(1, Limits::default()).common;
        common.close(stream(1), CloseReason::Idle);
        common.close(stream(1), CloseReason::Idle);
        assert!(!common.streams.is_connected(&peer(1).id));
        assert_eq!(common.outputs(), [StreamOutput::Close { stream: stream(1) }]);
        let closed: Vec<_> = common.unsettled.closed.drain(..).map(|closed| closed.stream).collect();
        assert_eq!(closed, [stream(1)], "once");
    }

    #[test]
    fn a_stream_that_broke_is_not_closed_again() {
        let mut common = connected(1, Limits::default()).common;
        common.broke(stream(1));
        assert_eq!(common.outputs(), []);
        assert_eq!(common.out.counters.stream_closed, 1);
        assert!(common.unsettled.closed[0].blames_peer);
    }

    #[test]
    fn a_shunned_peer_may_read_what_was_written_to_it_before_its_stream_closes() {
        let mut common = connected(2, Limits::default()).common;
        for (seed, unread) in [(1, 10), (2, 0)] {
            common.streams.get_mut(&stream(seed)).unwrap().unread = unread;
            common.shun(&peer(seed).id);
            assert!(!common.streams.is_connected(&peer(seed).id), "neither is used any more");
        }
        assert!(common.streams.get(&stream(1)).is_some_and(|session| session.ending));
        assert!(common.streams.get(&stream(2)).is_none());
    }

    #[test]
    fn a_ban_is_told_to_the_node_at_once_and_enforced_when_the_machine_settles() {
        let mut common = connected(1, Limits::default()).common;
        common.ban(NOW, peer(1), KEY, KEY);
        assert!(common.blame.is_banned(NOW, &peer(1).id, &KEY));
        assert!(matches!(common.events()[..], [TransferEvent::SourceBad { file: KEY, .. }]));
        assert_eq!(common.unsettled.bans.len(), 1);
    }
}
