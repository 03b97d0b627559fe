//! Reports: telling a peer that a piece from it does not verify, and being told so about pieces from this node.
//!
//! A source whose disk rots, or whose file was edited in place, learns of it only from nodes that verify what they receive. A
//! report is a hint which piece to check. It is accepted only from a peer that was sent this very piece recently, so that a
//! report costs its sender at least the transfer of the piece. The node decides what follows from it.

use super::Transfer;
use super::downloads::requests::cancel;
use super::events::TransferEvent;
use super::streams::close::CloseReason;
use super::streams::session::{Part, Purpose, Receiving};
use crate::id::{Key, NodeId};
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

/// Bans.
impl Transfer {
    /// Lifts the bans of one peer, or of all, and forgets the offences. Returns the number of bans lifted.
    pub fn forgive(&mut self, now: Instant, peer: Option<&NodeId>) -> usize {
        let lifted = self.common.blame.forgive(now, peer);
        self.review_bans(now);
        self.settle(now);
        lifted
    }
}

impl Transfer {
    /// A piece that was requested for `file` arrived over a stream and does not match its key.
    pub(super) fn source_bad(&mut self, now: Instant, stream: StreamId, peer: Contact, file: Key, key: Key) {
        self.common.out.counters.source_bad += 1;
        if let Some(session) = self.common.streams.get_mut(&stream) {
            if session.reports_sent < REPORTS_PER_STREAM_MAX {
                session.reports_sent += 1;
                self.common.out.counters.report_sent += 1;
                self.common.out.write(stream, session, &Frame::Unverified { key });
            }
        }
        self.ban_for(now, peer, file, key);
    }

    /// Bans a peer for wrong content of a file: from the file, or from everything.
    pub(super) fn ban_for(&mut self, now: Instant, peer: Contact, file: Key, key: Key) {
        let ban = self.common.blame.note(now, &self.common.config.timing, peer, file);
        self.common.out.event(TransferEvent::SourceBad { ban, file, key });
        self.review_bans(now);
        if ban.file.is_none() {
            self.shun(now, &peer.id);
        }
    }

    /// Closes the streams of a peer, each when the peer has read what was written to it.
    fn shun(&mut self, now: Instant, peer: &NodeId) {
        for stream in self.common.streams.disown_all(peer) {
            match self.common.streams.get_mut(&stream) {
                Some(session) if session.unread > 0 => session.ending = true,
                _ => self.drop_stream(now, stream, CloseReason::Shunned),
            }
        }
        self.everything_changed();
    }

    /// Bans began or ended: updates the sources of downloads.
    pub(super) fn review_bans(&mut self, now: Instant) {
        let mut newly = Vec::new();
        for (&id, download) in &mut self.downloads {
            let hash = download.hash;
            let turned = |(peer, banned): (&NodeId, bool)| {
                let is = self.common.blame.is_banned(now, peer, &hash);
                (is != banned).then_some((*peer, is))
            };
            let sources = download.sources.iter().map(|(peer, source)| (peer, source.banned));
            let turned: Vec<(NodeId, bool)> = sources.filter_map(turned).collect();
            for (peer, banned) in turned {
                download.set_banned(now, &peer, banned);
                self.changed.insert(id);
                if banned {
                    newly.push((id, peer));
                }
            }
        }
        for (download, peer) in newly {
            self.withdraw_from(download, &peer);
        }
    }

    /// Cancels what a peer was asked for a download. A piece that is arriving is still verified.
    fn withdraw_from(&mut self, download: super::DownloadId, peer: &NodeId) {
        for stream in self.common.streams.all_to(peer).to_vec() {
            let Some(session) = self.common.streams.get_mut(&stream) else { continue };
            let coming = match session.receiving {
                Receiving::Sink { purpose: Purpose::Request(number), .. }
                | Receiving::Memory { purpose: Purpose::Request(number), .. } => Some(number),
                _ => None,
            };
            let theirs = session.requests.iter().filter(|(number, request)| {
                request.download == download && !request.cancelled && Some(**number) != coming
            });
            let theirs: Vec<(u32, Part)> = theirs.map(|(&number, request)| (number, request.part)).collect();
            session.questions.values_mut().filter(|question| question.download == download).for_each(
                // The answer still counts as awaited, but its content is ignored.
                |question| question.chunks.clear(),
            );
            for (number, part) in theirs {
                cancel(&mut self.common.out, stream, session, number);
                let chunks = self.downloads.get_mut(&download).and_then(|download| download.chunks_mut());
                if let (Part::Chunk(index), Some(chunks)) = (part, chunks) {
                    chunks.release(index, stream, number);
                }
            }
        }
    }

    /// The other end reports that a piece does not verify. The report is ignored if the piece was not sent over this stream, or
    /// too long ago, or if there were too many reports.
    pub(super) fn on_unverified(&mut self, now: Instant, stream: StreamId, key: Key) {
        let Some(session) = self.common.streams.get_mut(&stream) else { return };
        let Some(peer) = session.peer_id() else { return };
        session.last_active = now;
        if !session.sent.take(&key) {
            self.common.out.counters.report_unfounded += 1;
            return;
        }
        if session.reports_received >= REPORTS_PER_STREAM_MAX {
            self.common.out.counters.report_over_budget += 1;
            return;
        }
        session.reports_received += 1;
        self.common.out.counters.report_received += 1;
        self.common.out.event(TransferEvent::Reported { peer, key });
    }
}
