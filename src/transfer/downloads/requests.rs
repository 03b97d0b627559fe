//! Downloads: which sources to dial, which piece to request from which source, and when to ask the node for more sources.

use super::chunks::{Bits, Chunks, Owner};
use super::download::{Download, Phase};
use super::sources::{RootState, Source};
use crate::id::{Key, NodeId};
use crate::io::{Place, StreamId};
use crate::limits::RATE_MIN;
use crate::manifest::{CHUNK_BYTES_MIN, Manifest};
use crate::time::{Instant, earliest};
use crate::transfer::Transfer;
use crate::transfer::events::{DownloadId, TransferEvent};
use crate::transfer::streams::close::CloseReason;
use crate::transfer::streams::session::{
    Part, Purpose, Question, Receiving, Request, Session, next_question,
};
use crate::wire::contact::Contact;
use crate::wire::frame::Frame;
use std::sync::Arc;

/// Unanswered questions to one peer.
const QUESTIONS_AHEAD_MAX: usize = 4;
/// Sources that are asked for a root at a time: a further one is asked when the others are slow.
const ROOT_ASKED_MAX: usize = 3;
/// Streams over which one chunk is requested at a time: the second one when the first is slow.
const OWNERS_MAX: usize = 2;
/// A chunk is requested from another source if at least this many requests are before it: then its content is not on its way yet.
const WAITS_BEHIND_MIN: usize = 3;
/// Chunks that are requested from a complete source at a time although a co-downloader ranks before this node for them.
const OUT_OF_TURN_MAX: usize = 2;
/// The assumed length of a root in bytes: its actual length is unknown before it arrives.
const ROOT_BYTES_MAX: u32 = CHUNK_BYTES_MIN as u32;

const _: () = assert!(ROOT_BYTES_MAX >= crate::manifest::MANIFEST_BYTES_MAX);

/// Downloads.
impl Transfer {
    /// Starts a download with the piece under the file's own hash: its manifest, or the file itself when it is one chunk. False
    /// when there are too many downloads, or one with this number.
    pub fn fetch(&mut self, now: Instant, download: DownloadId, hash: Key, sources: &[Contact]) -> bool {
        let added = self.enter(now, download, hash, Phase::Root);
        if added {
            self.add_sources(now, download, sources);
            self.settle(now);
        }
        added
    }

    /// Like [`fetch`](Transfer::fetch), for a file that will pass through a window: it is not announced to peers.
    pub fn fetch_windowed(&mut self, now: Instant, download: DownloadId, hash: Key) -> bool {
        let added = self.enter(now, download, hash, Phase::Root);
        if let Some(entry) = self.downloads.get_mut(&download).filter(|_| added) {
            entry.is_shared = false;
            self.settle(now);
        }
        added
    }

    /// Adds nodes that may have some of the file. Banned nodes are counted, but not asked. False when there was no room for all:
    /// places become free as sources turn out to have nothing (more) to give.
    pub fn add_sources(&mut self, now: Instant, download: DownloadId, sources: &[Contact]) -> bool {
        let mut room = true;
        for contact in sources {
            room &= self.add_source(now, download, *contact, None);
        }
        self.settle(now);
        room
    }

    /// Goes on with the chunks of a file, each to its place in `place`. `have` tells which chunks are there already. This may also
    /// start a download without [`fetch`](Transfer::fetch); then add sources with [`add_sources`](Transfer::add_sources). False
    /// when there are too many downloads.
    pub fn begin(
        &mut self,
        now: Instant,
        download: DownloadId,
        manifest: Arc<Manifest>,
        place: Place,
        have: Vec<bool>,
    ) -> bool {
        if !self.downloads.contains_key(&download)
            && !self.enter(now, download, manifest.hash(), Phase::Prepare)
        {
            return false;
        }
        // A file in the cache is read while it arrives, from the start.
        let is_read = matches!(place, Place::Cache(_));
        let mut chunks = Chunks::new(manifest, place, &have, self.common.rng.u64());
        if is_read {
            chunks.read_ahead();
        }
        self.begin_chunks(now, download, chunks);
        true
    }

    /// Goes on with the chunks of a file that `have` lacks, in order, each into a file of its own ([`Place::Window`]). Chunks from
    /// `edge` on are requested only after [`advance`](Transfer::advance) moves the edge. The reader removes the files. The download
    /// is neither served nor announced to peers. False when there are too many downloads.
    pub fn begin_window(
        &mut self,
        now: Instant,
        download: DownloadId,
        manifest: Arc<Manifest>,
        window: u64,
        have: &[bool],
        edge: u32,
    ) -> bool {
        if !self.downloads.contains_key(&download)
            && !self.enter(now, download, manifest.hash(), Phase::Prepare)
        {
            return false;
        }
        if let Some(entry) = self.downloads.get_mut(&download) {
            entry.is_shared = false;
        }
        self.begin_chunks(now, download, Chunks::in_window(manifest, window, have, edge));
        true
    }

    /// The window moved: its chunks before `edge` may be requested.
    pub fn advance(&mut self, now: Instant, download: DownloadId, edge: u32) {
        let Some(chunks) = self.downloads.get_mut(&download).and_then(Download::chunks_mut) else { return };
        debug_assert!(chunks.is_windowed(), "a download without a window has no edge");
        chunks.advance(edge);
        self.changed.insert(download);
        self.settle(now);
    }

    /// A chunk that `have` contained is missing after all. False when there is no such download (any more): then begin a new one
    /// with [`begin_window`](Transfer::begin_window).
    pub fn want(&mut self, now: Instant, download: DownloadId, index: u32) -> bool {
        let Some(chunks) = self.downloads.get_mut(&download).and_then(Download::chunks_mut) else {
            return false;
        };
        chunks.lose(index);
        self.changed.insert(download);
        self.settle(now);
        true
    }

    fn begin_chunks(&mut self, now: Instant, download: DownloadId, chunks: Chunks) {
        self.withdraw(now, download);
        if let Some(entry) = self.downloads.get_mut(&download) {
            entry.begin(chunks);
        }
        self.changed.insert(download);
        self.settle(now);
    }

    /// Aborts a download. Nothing more is written to its target.
    pub fn abort(&mut self, now: Instant, download: DownloadId) {
        self.withdraw(now, download);
        if let Some(download) = self.downloads.remove(&download) {
            self.unfollow(&download);
        }
        self.settle(now);
    }
}

impl Transfer {
    fn enter(&mut self, now: Instant, id: DownloadId, hash: Key, phase: Phase) -> bool {
        let most = self.common.config.limits.downloads_max + self.common.config.limits.reads_max;
        let full = self.downloads.len() >= most;
        if full || self.downloads.contains_key(&id) {
            return false;
        }
        if self.common.blame.has_ended(now) {
            self.review_bans(now);
        }
        self.downloads.insert(id, Download::new(now, hash, phase));
        self.changed.insert(id);
        true
    }

    /// Adds a node that may have some of the file. `hearsay` is the peer that named it, if one did. False when there is no room.
    pub(in crate::transfer) fn add_source(
        &mut self,
        now: Instant,
        download: DownloadId,
        contact: Contact,
        hearsay: Option<NodeId>,
    ) -> bool {
        let mut source = Source::new(now, contact, self.common.rng.u64(), &self.common.config.timing);
        source.hearsay = hearsay;
        let most = self.common.config.limits.sources_per_download_max;
        let Some(entry) = self.downloads.get_mut(&download) else { return true };
        source.banned = self.common.blame.is_banned(now, &contact.id, &entry.hash);
        self.changed.insert(download);
        entry.add_source(now, source, most, |id| self.common.streams.is_connected(id))
    }

    /// Cancels every request of a download. A stream that is writing to its target is closed.
    pub(in crate::transfer) fn withdraw(&mut self, now: Instant, download: DownloadId) {
        let mut writing = Vec::new();
        for (&stream, session) in self.common.streams.iter_mut() {
            let theirs = session.requests.iter().filter(|(_, request)| request.download == download);
            let numbers: Vec<u32> = theirs.map(|(&number, _)| number).collect();
            session.questions.values_mut().filter(|question| question.download == download).for_each(
                // The answer still counts as awaited, but its content is ignored.
                |question| question.chunks.clear(),
            );
            if is_sinking(session, &numbers) {
                writing.push(stream);
            } else {
                numbers.into_iter().for_each(|number| cancel(&mut self.common.out, stream, session, number));
            }
        }
        for stream in writing {
            self.drop_stream(now, stream, CloseReason::Withdrawn);
        }
    }

    /// Cancels a request: the piece is not needed any more.
    pub(in crate::transfer) fn cancel(&mut self, stream: StreamId, request: u32) {
        if let Some(session) = self.common.streams.get_mut(&stream) {
            cancel(&mut self.common.out, stream, session, request);
        }
    }

    /// Dials, asks and requests whatever one download can at this time.
    pub(in crate::transfer) fn pump(&mut self, now: Instant, id: DownloadId) {
        let Some(mut download) = self.downloads.remove(&id) else { return };
        self.connect_sources(now, &mut download);
        if download.is_shared {
            self.follow(&download);
            self.update_co_downloaders(&mut download);
        }
        match download.phase {
            Phase::Root => self.ask_root(now, id, &mut download),
            Phase::Prepare => {}
            Phase::Chunks(_) => {
                self.ask_chunks(now, id, &mut download);
                self.ask_again(now, id, &mut download);
                self.ask_which(now, id, &mut download);
            }
        }
        if download.chunks().is_some_and(|chunks| chunks.missing() == 0) {
            let sources = download.contributors.len() as u32;
            self.unfollow(&download);
            self.common.out.event(TransferEvent::Complete { download: id, sources });
            return;
        }
        self.need_sources(now, id, &mut download);
        download.wake = self.wake(now, &download);
        self.downloads.insert(id, download);
    }

    /// Dials sources that are not connected, those with the fewest failures first.
    fn connect_sources(&mut self, now: Instant, download: &mut Download) {
        let on_the_way = |source: &Source| match self.common.streams.to(&source.contact.id) {
            Some(_) if source.banned => false,
            Some(stream) => !download.is_exhausted(source) && !self.is_doubtful(now, source, stream),
            None => self.common.streams.is_dialling(&source.contact.id),
        };
        let useful = download.sources.values().filter(|source| on_the_way(source)).count();
        let wanted = download.sources_wanted().saturating_sub(useful);
        if wanted == 0 {
            return;
        }
        let mut candidates: Vec<(u8, u64, Contact)> = download
            .sources
            .values()
            .filter(|source| !source.given_up() && source.retry_at <= now)
            .filter(|source| self.common.streams.to(&source.contact.id).is_none())
            .filter(|source| !self.common.streams.is_dialling(&source.contact.id))
            .map(|source| (source.failures, source.order, source.contact))
            .collect();
        candidates.sort_unstable_by_key(|&(failures, order, _)| (failures, order));
        for (_, _, contact) in candidates.into_iter().take(wanted) {
            if !self.common.dial(now, contact) {
                return;
            }
        }
    }

    /// Whether a connected source is slow: it answered that it is busy, or a request to it makes no progress.
    fn is_doubtful(&self, now: Instant, source: &Source, stream: StreamId) -> bool {
        let patience = self.common.config.timing.patience;
        let slow_root = matches!(source.root, RootState::Asked { since } if since + patience <= now);
        let stalled =
            |session: &Session| !session.requests.is_empty() && session.received_at + patience <= now;
        source.pause > now || slow_root || self.common.streams.get(&stream).is_some_and(stalled)
    }

    /// Requests the root from one source, and from another when that one is slow.
    fn ask_root(&mut self, now: Instant, id: DownloadId, download: &mut Download) {
        let (patience, stall) = (self.common.config.timing.patience, self.common.config.timing.stall);
        loop {
            let asked = download.sources.values().filter_map(|source| match source.root {
                RootState::Asked { since } => Some(since),
                _ => None,
            });
            // A source that has had its full time may still answer, but no longer counts.
            let count = asked.clone().filter(|since| *since + stall > now).count();
            if count >= ROOT_ASKED_MAX || asked.max().is_some_and(|since| since + patience > now) {
                return;
            }
            let may = |source: &&mut Source| {
                let again = match source.root {
                    RootState::Unasked => true,
                    RootState::Asked { .. } => false,
                    RootState::NotFound { again } => again <= now,
                };
                again && source.pause <= now && !source.banned
            };
            let free = |source: &Source| {
                let stream = self.common.streams.to(&source.contact.id)?;
                let session = self.common.streams.get(&stream)?;
                session
                    .has_room(id, ROOT_BYTES_MAX, self.common.config.limits.requests_in_flight_max, 1)
                    .then_some((stream, (source.failures, source.order)))
            };
            let candidates =
                download.sources.values_mut().filter(may).filter_map(|source| Some((free(source)?, source)));
            let Some(((stream, _), source)) = candidates.min_by_key(|((_, order), _)| *order) else { return };
            source.root = RootState::Asked { since: now };
            let request =
                Request { download: id, part: Part::Root, length: ROOT_BYTES_MAX, cancelled: false };
            self.send_request(now, stream, request, download.hash);
        }
    }

    /// Requests chunks from every connected source, one each in turn, until all have enough to do.
    fn ask_chunks(&mut self, now: Instant, id: DownloadId, download: &mut Download) {
        let spared = self.spared(now, download);
        let Some(chunks) = download.chunks() else { return };
        let mut ready: Vec<(u64, NodeId, StreamId)> = download
            .sources
            .values()
            .filter(|source| !source.banned && source.pause <= now && chunks.unasked_of(&source.has))
            .filter_map(|source| {
                Some((source.order, source.contact.id, self.common.streams.to(&source.contact.id)?))
            })
            .collect();
        ready.sort_unstable();
        self.leave_out(&mut ready);
        while !ready.is_empty() {
            ready.retain(|&(_, peer, stream)| {
                self.ask_chunk(now, id, download, peer, stream, spared.as_ref())
            });
        }
    }

    /// Under a rate limit, leaves out sources, so that each of the others can send fast enough to count as alive.
    fn leave_out(&self, ready: &mut Vec<(u64, NodeId, StreamId)>) {
        let most = match self.common.config.limits.rates.download {
            0 => return,
            rate => (rate / RATE_MIN).max(1),
        };
        let is_busy = |session: &Session| !session.requests.is_empty();
        let mut busy = self.common.streams.values().filter(|session| is_busy(session)).count() as u64;
        ready.retain(|(_, _, stream)| {
            let stays = self.common.streams.get(stream).is_some_and(is_busy) || busy < most;
            busy += u64::from(stays && !self.common.streams.get(stream).is_some_and(is_busy));
            stays
        });
    }

    /// Requests one chunk from a source. False when it has none to request, or has enough to do.
    fn ask_chunk(
        &mut self,
        now: Instant,
        id: DownloadId,
        download: &mut Download,
        peer: NodeId,
        stream: StreamId,
        spared: Option<&Bits>,
    ) -> bool {
        let sharers = self.downloads_from(&peer) + 1;
        let Some(session) = self.common.streams.get(&stream) else { return false };
        let (Some(source), Phase::Chunks(chunks)) = (download.sources.get(&peer), &mut download.phase) else {
            return false;
        };
        let length = chunks.manifest.chunk_bytes().min(chunks.manifest.length()) as u32;
        let room = session.has_room(id, length, self.common.config.limits.requests_in_flight_max, sharers);
        let spared = spared.filter(|_| chunks.is_all(&source.has));
        let Some(index) = room.then(|| chunks.pick(&source.has, spared)).flatten() else { return false };
        // The co-downloader that ranks first requests this chunk, too: what is requested too early is sent twice.
        if chunks.is_all(&source.has) && chunks.turn(index) > 0 && session.requests.len() >= OUT_OF_TURN_MAX {
            return false;
        }
        self.request_chunk(now, id, chunks, index, stream);
        true
    }

    /// The number of other downloads that take from a peer. Its capacity is divided among them, so that all advance together.
    fn downloads_from(&self, peer: &NodeId) -> usize {
        let others = self.downloads.values().filter(|other| {
            other.chunks().is_some_and(|chunks| {
                other.sources.get(peer).is_some_and(|source| chunks.lacks_of(&source.has))
            })
        });
        others.count()
    }

    /// Endgame: every missing chunk of an idle source is requested already. So the source is also asked for a chunk that makes no
    /// progress; or it takes over a chunk that waits behind many others.
    fn ask_again(&mut self, now: Instant, id: DownloadId, download: &mut Download) {
        let spared = self.spared(now, download);
        let Phase::Chunks(chunks) = &mut download.phase else { return };
        for source in download.sources.values() {
            let Some(stream) = self.idle_stream(now, source) else { continue };
            let stale = chunks.in_flight().iter().find(|(index, owners)| {
                source.has.get(**index)
                    && owners.len() < OWNERS_MAX
                    && owners
                        .iter()
                        .all(|owner| owner.stream != stream && self.may_be_overtaken(now, owner, stream))
            });
            if let Some(index) = stale.map(|(&index, _)| index) {
                self.common.out.counters.chunk_asked_again += 1;
                self.request_chunk(now, id, chunks, index, stream);
                continue;
            }
            if spared.is_some() && chunks.is_all(&source.has) {
                continue;
            }
            let waits = |(index, owners): &(&u32, &Vec<Owner>)| {
                let [owner] = owners[..] else { return None };
                let behind = self.common.streams.get(&owner.stream)?.waits_behind(owner.request)?;
                (source.has.get(**index) && behind >= WAITS_BEHIND_MIN).then_some((behind, **index, owner))
            };
            if let Some((_, index, owner)) =
                chunks.in_flight().iter().filter_map(|it| waits(&it)).max_by_key(|it| it.0)
            {
                self.common.out.counters.chunk_asked_elsewhere += 1;
                chunks.release(index, owner.stream, owner.request);
                self.cancel(owner.stream, owner.request);
                self.request_chunk(now, id, chunks, index, stream);
            }
        }
    }

    /// The stream to a source, if the source has nothing to do.
    fn idle_stream(&self, now: Instant, source: &Source) -> Option<StreamId> {
        if source.banned || source.pause > now {
            return None;
        }
        let stream = self.common.streams.to(&source.contact.id)?;
        let session = self.common.streams.get(&stream)?;
        session.requests.is_empty().then_some(stream)
    }

    /// Whether a chunk that was requested over one stream is better requested over `by`, too: it makes no progress, or is far
    /// slower than `by`.
    pub(in crate::transfer) fn may_be_overtaken(&self, now: Instant, owner: &Owner, by: StreamId) -> bool {
        let sessions = self
            .common
            .streams
            .get(&owner.stream)
            .filter(|_| owner.receiving)
            .zip(self.common.streams.get(&by));
        let outpaced =
            |(slow, other): (&Session, _)| slow.is_outpaced_by(other, now, self.common.config.timing.stall);
        self.stale_at(owner) <= now || sessions.is_some_and(outpaced)
    }

    /// When a requested chunk counts as making no progress.
    pub(in crate::transfer) fn stale_at(&self, owner: &Owner) -> Instant {
        let progress = match self.common.streams.get(&owner.stream) {
            Some(session) if owner.receiving => session.received_at.max(owner.asked),
            _ => owner.asked,
        };
        progress + self.common.config.timing.patience
    }

    fn request_chunk(
        &mut self,
        now: Instant,
        id: DownloadId,
        chunks: &mut Chunks,
        index: u32,
        stream: StreamId,
    ) {
        let Some(key) = chunks.key(index) else { return };
        let length = chunks.manifest.chunk_length(index);
        let request = Request { download: id, part: Part::Chunk(index), length, cancelled: false };
        if let Some(request) = self.send_request(now, stream, request, key) {
            chunks.ask(index, Owner { stream, request, asked: now, receiving: false });
        }
    }

    fn send_request(&mut self, now: Instant, stream: StreamId, request: Request, key: Key) -> Option<u32> {
        let session = self.common.streams.get_mut(&stream)?;
        let number = session.request(now, request);
        self.common.out.write(stream, session, &Frame::Request { request: number, key });
        Some(number)
    }

    /// Asks connected sources which of the missing chunks they have: once at first, and again at growing intervals while they have
    /// nothing to give, because they may be downloading themselves.
    fn ask_which(&mut self, now: Instant, id: DownloadId, download: &mut Download) {
        let Phase::Chunks(chunks) = &mut download.phase else { return };
        for (peer, source) in download.sources.iter_mut().filter(|(_, source)| !source.banned) {
            let Some(stream) = self.common.streams.to(peer) else { continue };
            let Some(session) = self.common.streams.get_mut(&stream) else { continue };
            let between = source.cursor.is_none() && source.questions == 0;
            if between && source.ask_at <= now && !chunks.unasked_of(&source.has) {
                source.start_round();
            }
            let asking = source.cursor.is_some();
            while let Some(from) = source.cursor {
                if session.questions.len() >= QUESTIONS_AHEAD_MAX {
                    break;
                }
                let missing = |index| chunks.is_missing(index);
                let (asked, next) = next_question(missing, &source.has, from, chunks.count());
                source.cursor = next;
                let keys: Vec<Key> = asked.iter().filter_map(|&index| chunks.key(index)).collect();
                if keys.is_empty() {
                    break;
                }
                let question = session.number();
                self.common.out.write(stream, session, &Frame::Which { question, keys: &keys });
                session.questions.insert(question, Question { download: id, chunks: asked });
                source.questions += 1;
            }
            if asking && source.cursor.is_none() && source.questions == 0 {
                source.end_round(now, &self.common.config.timing);
            }
        }
    }

    /// Asks the node for sources when no present source has the missing pieces.
    fn need_sources(&mut self, now: Instant, id: DownloadId, download: &mut Download) {
        let hope = self.common.config.timing.hope;
        if now < download.needed_at
            || download.is_hopeful(now, hope, |id| self.common.streams.is_connected(id))
        {
            return;
        }
        let keys: Vec<Key> = match &download.phase {
            Phase::Root => vec![download.hash],
            Phase::Prepare => Vec::new(),
            Phase::Chunks(chunks) => chunks.orphans().filter_map(|index| chunks.key(index)).collect(),
        };
        if !keys.is_empty() {
            download.needed_at = now + self.common.config.timing.needed;
            self.common.out.event(TransferEvent::SourcesNeeded { download: id, keys });
        }
    }

    /// When time alone gives the download something to do. A past instant does not count: its action is done, or waits for an event.
    fn wake(&self, now: Instant, download: &Download) -> Option<Instant> {
        let timing = &self.common.config.timing;
        let mut wake = (download.needed_at > now).then_some(download.needed_at);
        let mut at = |due: Instant| {
            if due > now {
                wake = earliest(wake, Some(due));
            }
        };
        let mut some_idle = false;
        for source in download.sources.values().filter(|source| !source.banned) {
            if self.common.streams.to(&source.contact.id).is_none() {
                if source.failures == 0 {
                    at(source.retry_at + timing.hope);
                }
                if !source.given_up() {
                    at(source.retry_at);
                }
                continue;
            }
            at(source.pause);
            if !download.co_downloaders.is_empty() {
                self.common
                    .streams
                    .to(&source.contact.id)
                    .and_then(|stream| self.silent_at(stream))
                    .map(&mut at);
            }
            some_idle |= self.idle_stream(now, source).is_some();
            match (&download.phase, source.root) {
                (Phase::Root, RootState::Asked { since }) => {
                    at(since + timing.patience);
                    at(since + timing.stall);
                }
                (Phase::Root, RootState::NotFound { again }) => at(again),
                (Phase::Chunks(_), _) if source.cursor.is_none() => at(source.ask_at),
                _ => {}
            }
        }
        if let (true, Some(chunks)) = (some_idle, download.chunks()) {
            chunks.in_flight().values().flatten().for_each(|owner| at(self.stale_at(owner)));
        }
        wake
    }
}

/// Whether one of these requests is being written to a file.
fn is_sinking(session: &Session, requests: &[u32]) -> bool {
    match session.receiving {
        Receiving::Sink { purpose: Purpose::Request(number), .. } => requests.contains(&number),
        _ => false,
    }
}

pub(in crate::transfer) fn cancel(
    out: &mut crate::transfer::Out,
    stream: StreamId,
    session: &mut Session,
    number: u32,
) {
    if let Some(request) = session.requests.get_mut(&number) {
        if !core::mem::replace(&mut request.cancelled, true) {
            out.write(stream, session, &Frame::Cancel { request: number });
        }
    }
}
