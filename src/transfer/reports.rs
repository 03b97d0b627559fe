//! Reports: telling a peer that a piece of it does not verify, and hearing that of pieces of this node.
//!
//! A source that serves from a rotten disk, or a file that was edited in place, learns of it only from those that check what
//! they get. A report is a hint: it says which piece to look at. It is taken only from a peer that was sent this very piece
//! lately, so that a report costs its sender at least the piece; what it leads to is the node's to decide.

use super::Transfer;
use super::close::CloseReason;
use super::events::TransferEvent;
use super::fetch::cancel;
use super::session::{Part, Purpose, Receiving};
use crate::id::{Key, NodeId};
use crate::io::StreamId;
use crate::time::Instant;
use crate::wire::contact::Contact;
use crate::wire::frame::Frame;
use std::collections::VecDeque;

/// Reports that go over one stream either way. Whoever has more to complain of does not need this source.
const REPORTS_PER_STREAM_MAX: u32 = 16;
/// Pieces sent last over one stream that may be complained of: as many as may be on their way at a time.
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

    /// Takes a piece out: it can be complained of once each time that it is sent.
    fn take(&mut self, key: &Key) -> bool {
        let position = self.0.iter().position(|sent| sent == key);
        position.and_then(|position| self.0.remove(position)).is_some()
    }
}

/// Bans.
impl Transfer {
    /// Lifts the bans of one peer, or of all, and forgets what they were for. Says how many there were.
    pub fn forgive(&mut self, now: Instant, peer: Option<&NodeId>) -> usize {
        let lifted = self.blame.forgive(now, peer);
        self.review_bans(now);
        self.settle(now);
        lifted
    }
}

impl Transfer {
    /// A piece that was asked for `file` came over a stream and is not what its key says.
    pub(super) fn source_bad(&mut self, now: Instant, stream: StreamId, peer: Contact, file: Key, key: Key) {
        self.out.counters.source_bad += 1;
        if let Some(session) = self.streams.get_mut(&stream) {
            if session.complaints < REPORTS_PER_STREAM_MAX {
                session.complaints += 1;
                self.out.counters.report_sent += 1;
                self.out.write(stream, session, &Frame::Unverified { key });
            }
        }
        self.charge_with(now, peer, file, key);
    }

    /// Blames a peer for wrong content of a file: it is not asked for it for a while, or shunned.
    pub(super) fn charge_with(&mut self, now: Instant, peer: Contact, file: Key, key: Key) {
        let ban = self.blame.note(now, &self.config.timing, peer, file);
        self.out.event(TransferEvent::SourceBad { ban, file, key });
        self.review_bans(now);
        if ban.file.is_none() {
            self.shun(now, &peer.id);
        }
    }

    /// Closes the streams of a peer, each as soon as the peer has been told what was written to it.
    fn shun(&mut self, now: Instant, peer: &NodeId) {
        for stream in self.peers.remove(peer).unwrap_or_default() {
            match self.streams.get_mut(&stream) {
                Some(session) if session.unread > 0 => session.ending = true,
                _ => self.drop_stream(now, stream, CloseReason::Shunned),
            }
        }
        self.everything_changed();
    }

    /// Bans began or ended: sources of downloads are asked no more, or again.
    pub(super) fn review_bans(&mut self, now: Instant) {
        let mut newly = Vec::new();
        for (&id, download) in &mut self.downloads {
            let hash = download.hash;
            let turned = |(peer, banned): (&NodeId, bool)| {
                let is = self.blame.is_banned(now, peer, &hash);
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

    /// Takes back what a peer was asked for a download, but for a piece that is coming: that is still looked at.
    fn withdraw_from(&mut self, download: super::DownloadId, peer: &NodeId) {
        for stream in self.peers.get(peer).cloned().unwrap_or_default() {
            let Some(session) = self.streams.get_mut(&stream) else { continue };
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
                // The answer is still awaited, but tells nothing.
                |question| question.chunks.clear(),
            );
            for (number, part) in theirs {
                cancel(&mut self.out, stream, session, number);
                let chunks = self.downloads.get_mut(&download).and_then(|download| download.chunks_mut());
                if let (Part::Chunk(index), Some(chunks)) = (part, chunks) {
                    chunks.release(index, stream, number);
                }
            }
        }
    }

    /// The other end says that a piece does not verify. What was not sent over this stream, or too long ago, or what comes too
    /// often, leads to nothing.
    pub(super) fn on_unverified(&mut self, now: Instant, stream: StreamId, key: Key) {
        let Some(session) = self.streams.get_mut(&stream) else { return };
        let Some(peer) = session.peer_id() else { return };
        session.last_active = now;
        if !session.sent.take(&key) {
            self.out.counters.report_unfounded += 1;
            return;
        }
        if session.complained >= REPORTS_PER_STREAM_MAX {
            self.out.counters.report_over_budget += 1;
            return;
        }
        session.complained += 1;
        self.out.counters.report_received += 1;
        self.out.event(TransferEvent::Reported { peer, key });
    }
}
