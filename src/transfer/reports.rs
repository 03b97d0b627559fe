//! Reports: telling a peer that a piece from it does not verify, and being told so about pieces from this node.
//!
//! A source whose disk rots, or whose file was edited in place, learns of it only from nodes that verify what they receive. A
//! report is a hint which piece to check. It is accepted only from a peer that was sent this very piece recently, so that a
//! report costs its sender at least the transfer of the piece. The node decides what follows from it.

use super::common::Common;
use super::events::TransferEvent;
use crate::id::Key;
use crate::io::StreamId;
use crate::time::Instant;
use crate::wire::contact::Contact;
use crate::wire::frame::Frame;
use std::collections::VecDeque;

/// Reports over one stream in each direction. A peer with more to report should use another source.
const REPORTS_PER_STREAM_MAX: u32 = 16;
/// The last pieces sent over one stream that may be reported: as many as may be on their way at a time.
const SENT_REMEMBERED_MAX: usize = 64;

/// The pieces that were sent last over one stream, the oldest first.
#[derive(Default)]
pub(super) struct RecentKeys(VecDeque<Key>);

impl RecentKeys {
    pub(super) fn push(&mut self, key: Key) {
        if self.0.len() >= SENT_REMEMBERED_MAX {
            self.0.pop_front();
        }
        self.0.push_back(key);
    }

    /// Removes a piece: it can be reported once for each time that it was sent.
    fn take(&mut self, key: &Key) -> bool {
        let position = self.0.iter().position(|sent| sent == key);
        position.and_then(|position| self.0.remove(position)).is_some()
    }
}

/// A piece that was requested for `file` arrived over a stream and does not match its key: tells the peer, and bans it.
pub(super) fn source_bad(
    now: Instant,
    stream: StreamId,
    peer: Contact,
    (file, key): (Key, Key),
    common: &mut Common,
) {
    common.out.counters.source_bad += 1;
    if let Some(session) = common.streams.get_mut(&stream) {
        if session.reports_sent < REPORTS_PER_STREAM_MAX {
            session.reports_sent += 1;
            common.out.counters.report_sent += 1;
            common.out.write(stream, session, &Frame::Unverified { key });
        }
    }
    common.ban(now, peer, file, key);
}

/// The other end reports that a piece does not verify. The report is ignored if the piece was not sent over this stream, or
/// too long ago, or if there were too many reports.
pub(super) fn on_unverified(now: Instant, stream: StreamId, key: Key, common: &mut Common) {
    let Some(session) = common.streams.get_mut(&stream) else { return };
    let Some(peer) = session.peer_id() else { return };
    session.last_active = now;
    if !session.sent.take(&key) {
        common.out.counters.report_unfounded += 1;
        return;
    }
    if session.reports_received >= REPORTS_PER_STREAM_MAX {
        common.out.counters.report_over_budget += 1;
        return;
    }
    session.reports_received += 1;
    common.out.counters.report_received += 1;
    common.out.event(TransferEvent::Reported { peer, key });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::Limits;
    use crate::transfer::testing::{NOW, connected, peer, stream};

    fn key(number: u8) -> Key {
        Key([number; 32])
    }

    fn sent(common: &mut Common, piece: Key) {
        common.streams.get_mut(&stream(1)).unwrap().sent.push(piece);
    }

    #[test]
    fn a_piece_may_be_reported_once_for_each_time_that_it_was_sent() {
        let mut common = connected(1, Limits::default()).common;
        sent(&mut common, key(1));
        on_unverified(NOW, stream(1), key(1), &mut common);
        assert_eq!(common.events(), [TransferEvent::Reported { peer: peer(1).id, key: key(1) }]);
        on_unverified(NOW, stream(1), key(1), &mut common);
        on_unverified(NOW, stream(1), key(2), &mut common);
        assert_eq!(common.events(), []);
        assert_eq!(common.out.counters.report_unfounded, 2);
    }

    #[test]
    fn the_reports_over_one_stream_are_bounded_in_both_directions() {
        let mut common = connected(1, Limits::default()).common;
        for number in 0..20 {
            sent(&mut common, key(number));
            on_unverified(NOW, stream(1), key(number), &mut common);
            source_bad(NOW, stream(1), peer(1), (key(number), key(number)), &mut common);
        }
        assert_eq!(common.out.counters.report_received, u64::from(REPORTS_PER_STREAM_MAX));
        assert_eq!(common.out.counters.report_over_budget, 20 - u64::from(REPORTS_PER_STREAM_MAX));
        assert_eq!(common.out.counters.report_sent, u64::from(REPORTS_PER_STREAM_MAX));
        assert_eq!(common.out.counters.source_bad, 20, "each counts");
    }

    #[test]
    fn only_the_pieces_that_were_sent_last_may_be_reported() {
        let mut recent = RecentKeys::default();
        recent.push(key(0));
        (0..SENT_REMEMBERED_MAX).for_each(|_| recent.push(key(1)));
        assert!(!recent.take(&key(0)));
        assert!(recent.take(&key(1)));
    }
}
