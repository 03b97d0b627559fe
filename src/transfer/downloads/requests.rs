//! Which piece to request from which source.

use super::chunks::{Bits, Chunks, Owner};
use super::download::{Download, Phase};
use super::sources::{RootState, Source};
use super::table::Downloads;
use crate::id::{Key, NodeId};
use crate::io::StreamId;
use crate::limits::RATE_MIN;
use crate::manifest::CHUNK_BYTES_MIN;
use crate::time::Instant;
use crate::transfer::common::{Common, Out};
use crate::transfer::events::DownloadId;
use crate::transfer::streams::close::CloseReason;
use crate::transfer::streams::session::{Part, Purpose, Receiving, Request, Session};
use crate::wire::frame::Frame;

/// Sources that are asked for a root at a time: a further one is asked when the others are slow.
const ROOT_ASKED_MAX: usize = 3;
/// Chunks that are requested from a complete source at a time although a co-downloader ranks before this node for them.
const OUT_OF_TURN_MAX: usize = 2;
/// The assumed length of a root in bytes: its actual length is unknown before it arrives.
const ROOT_BYTES_MAX: u32 = CHUNK_BYTES_MIN as u32;

const _: () = assert!(ROOT_BYTES_MAX >= crate::manifest::MANIFEST_BYTES_MAX);

/// The root.
impl Download {
    /// Requests the root from one source, and from another when that one is slow.
    pub(super) fn ask_root(&mut self, now: Instant, common: &mut Common) {
        while self.may_ask_root(now, common) {
            let Some((stream, peer)) = self.next_for_root(now, common) else { return };
            if let Some(source) = self.sources.get_mut(&peer) {
                source.root = RootState::Asked { since: now };
            }
            let request =
                Request { download: self.id, part: Part::Root, length: ROOT_BYTES_MAX, cancelled: false };
            send_request(now, stream, request, self.hash, common);
        }
    }

    /// Whether the sources that have been asked for the root are too few, or slow.
    fn may_ask_root(&self, now: Instant, common: &Common) -> bool {
        let (patience, stall) = (common.config.timing.patience, common.config.timing.stall);
        let asked = self.sources.values().filter_map(|source| match source.root {
            RootState::Asked { since } => Some(since),
            _ => None,
        });
        // A source that has had its full time may still answer, but no longer counts.
        let count = asked.clone().filter(|since| *since + stall > now).count();
        count < ROOT_ASKED_MAX && asked.max().is_none_or(|since| since + patience <= now)
    }

    /// The source to ask next for the root, and the stream to it.
    fn next_for_root(&self, now: Instant, common: &Common) -> Option<(StreamId, NodeId)> {
        let may = |source: &&Source| {
            let again = match source.root {
                RootState::Unasked => true,
                RootState::Asked { .. } => false,
                RootState::NotFound { again } => again <= now,
            };
            again && source.pause <= now && !source.banned
        };
        let most = common.config.limits.requests_in_flight_max;
        let free = |source: &Source| {
            let stream = common.streams.to(&source.contact.id)?;
            let session = common.streams.get(&stream)?;
            let place = (source.failures, source.order);
            session.has_room(self.id, ROOT_BYTES_MAX, most, 1).then_some((place, (stream, source.contact.id)))
        };
        let candidates = self.sources.values().filter(may).filter_map(free);
        candidates.min_by_key(|(place, _)| *place).map(|(_, next)| next)
    }
}

/// Chunks.
impl Download {
    /// Requests chunks from every connected source, one each in turn, until all have enough to do. `others` are the other
    /// downloads.
    pub(super) fn ask_chunks(&mut self, now: Instant, others: &Downloads, common: &mut Common) {
        let spared = self.spared(now, common);
        let Some(chunks) = self.chunks() else { return };
        let useful =
            |source: &&Source| !source.banned && source.pause <= now && chunks.unasked_of(&source.has);
        let connected =
            |source: &Source| Some((source.order, source.contact.id, common.streams.to(&source.contact.id)?));
        let mut ready: Vec<(u64, NodeId, StreamId)> =
            self.sources.values().filter(useful).filter_map(connected).collect();
        ready.sort_unstable();
        leave_out(&mut ready, common);
        while !ready.is_empty() {
            ready.retain(|&(_, peer, stream)| {
                let sharers = others.count_from(&peer) + 1;
                self.ask_chunk(now, peer, (stream, sharers), spared.as_ref(), common)
            });
        }
    }

    /// Requests one chunk from a source, over a stream that `sharers` downloads take from. False when the source has none to
    /// request, or has enough to do.
    fn ask_chunk(
        &mut self,
        now: Instant,
        peer: NodeId,
        (stream, sharers): (StreamId, usize),
        spared: Option<&Bits>,
        common: &mut Common,
    ) -> bool {
        let Some(session) = common.streams.get(&stream) else {
            debug_assert!(false, "a source that is ready has an open stream");
            return false;
        };
        let (Some(source), Phase::Chunks(chunks)) = (self.sources.get(&peer), &mut self.phase) else {
            return false;
        };
        let length = chunks.manifest.chunk_bytes().min(chunks.manifest.length()) as u32;
        let most = common.config.limits.requests_in_flight_max;
        let room = session.has_room(self.id, length, most, sharers);
        let spared = spared.filter(|_| chunks.is_all(&source.has));
        let Some(index) = room.then(|| chunks.pick(&source.has, spared)).flatten() else { return false };
        // The co-downloader that ranks first requests this chunk, too: what is requested too early is sent twice.
        if chunks.is_all(&source.has) && chunks.turn(index) > 0 && session.requests.len() >= OUT_OF_TURN_MAX {
            return false;
        }
        request_chunk(now, self.id, chunks, (index, stream), common);
        true
    }
}

/// Under a rate limit, leaves out sources, so that each of the others can send fast enough to count as alive.
fn leave_out(ready: &mut Vec<(u64, NodeId, StreamId)>, common: &Common) {
    let most = match common.config.limits.rates.download {
        0 => return,
        rate => (rate / RATE_MIN).max(1),
    };
    let is_busy = |session: &Session| !session.requests.is_empty();
    let mut busy = common.streams.values().filter(|session| is_busy(session)).count() as u64;
    ready.retain(|(_, _, stream)| {
        let is_one = common.streams.get(stream).is_some_and(is_busy);
        let stays = is_one || busy < most;
        busy += u64::from(stays && !is_one);
        stays
    });
}

/// Requests a chunk over a stream.
pub(super) fn request_chunk(
    now: Instant,
    download: DownloadId,
    chunks: &mut Chunks,
    (index, stream): (u32, StreamId),
    common: &mut Common,
) {
    let Some(key) = chunks.key(index) else { return debug_assert!(false, "the file has no chunk {index}") };
    let length = chunks.manifest.chunk_length(index);
    let request = Request { download, part: Part::Chunk(index), length, cancelled: false };
    if let Some(request) = send_request(now, stream, request, key, common) {
        chunks.ask(index, Owner { stream, request, asked: now, receiving: false });
    }
}

fn send_request(
    now: Instant,
    stream: StreamId,
    request: Request,
    key: Key,
    common: &mut Common,
) -> Option<u32> {
    let session = common.streams.get_mut(&stream)?;
    let number = session.request(now, request);
    common.out.write(stream, session, &Frame::Request { request: number, key });
    Some(number)
}

/// Cancels every request of a download. A stream that is writing to its target is closed.
pub(super) fn withdraw(download: DownloadId, common: &mut Common) {
    let mut writing = Vec::new();
    for (&stream, session) in common.streams.iter_mut() {
        let theirs = session.requests.iter().filter(|(_, request)| request.download == download);
        let numbers: Vec<u32> = theirs.map(|(&number, _)| number).collect();
        ignore_answers(session, download);
        if is_sinking(session, &numbers) {
            writing.push(stream);
        } else {
            numbers.into_iter().for_each(|number| cancel(&mut common.out, stream, session, number));
        }
    }
    for stream in writing {
        common.close(stream, CloseReason::Withdrawn);
    }
}

/// Whether one of these requests is being written to a file.
fn is_sinking(session: &Session, requests: &[u32]) -> bool {
    match session.receiving {
        Receiving::Sink { purpose: Purpose::Request(number), .. } => requests.contains(&number),
        _ => false,
    }
}

/// The answers to a download's questions still count as awaited, but their content is ignored.
pub(super) fn ignore_answers(session: &mut Session, download: DownloadId) {
    let theirs = session.questions.values_mut().filter(|question| question.download == download);
    theirs.for_each(|question| question.chunks.clear());
}

/// Cancels a request: the piece is not needed any more.
pub(super) fn cancel(out: &mut Out, stream: StreamId, session: &mut Session, number: u32) {
    if let Some(request) = session.requests.get_mut(&number) {
        if !core::mem::replace(&mut request.cancelled, true) {
            out.write(stream, session, &Frame::Cancel { request: number });
        }
    }
}

/// Cancels the request of an owner, if its stream is still there.
pub(super) fn cancel_owner(owner: &Owner, common: &mut Common) {
    if let Some(session) = common.streams.get_mut(&owner.stream) {
        cancel(&mut common.out, owner.stream, session, owner.request);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ID, fetching, requests};
    use super::*;
    use crate::limits::Limits;
    use crate::time::Duration;
    use crate::transfer::Transfer;
    use crate::transfer::testing::{NOW, connected, peer};
    use std::collections::BTreeSet;

    fn asked(common: &Common) -> usize {
        (1..=2).map(|seed| requests(common, seed).len()).sum()
    }

    #[test]
    fn the_root_is_asked_of_one_source_and_of_another_when_that_one_is_slow() {
        let Transfer { mut downloads, mut common, .. } = connected(2, Limits::default());
        assert!(downloads.fetch(NOW, ID, Key([1; 32]), true, &mut common));
        for seed in 1..=2 {
            assert!(downloads.add_source(NOW, ID, peer(seed), None, &mut common));
        }
        downloads.pump_all(NOW, &mut common);
        assert_eq!(asked(&common), 1);
        let patience = common.config.timing.patience;
        downloads.pump_all(NOW + patience - Duration::from_millis(1), &mut common);
        assert_eq!(asked(&common), 1);
        downloads.pump_all(NOW + patience, &mut common);
        assert_eq!(asked(&common), 2);
    }

    #[test]
    fn sources_are_asked_for_different_chunks_and_each_for_few_at_first() {
        let (mut downloads, mut common) = fetching(9, &[1, 2]);
        downloads.pump_all(NOW, &mut common);
        let chunk = |request: &Request| match request.part {
            Part::Chunk(index) => index,
            Part::Root => panic!("the root is here"),
        };
        let parts: Vec<u32> =
            (1..=2).flat_map(|seed| requests(&common, seed)).map(|request| chunk(&request)).collect();
        assert_eq!(parts.len(), 4, "two of each");
        assert_eq!(parts.iter().collect::<BTreeSet<_>>().len(), 4);
    }

    #[test]
    fn under_a_rate_limit_no_more_sources_are_asked_than_can_send_fast_enough() {
        let (mut downloads, mut common) = fetching(9, &[1, 2]);
        common.config.limits.rates.download = RATE_MIN;
        downloads.pump_all(NOW, &mut common);
        assert!(requests(&common, 1).is_empty() != requests(&common, 2).is_empty());
    }

    #[test]
    fn a_source_on_pause_is_not_asked() {
        let (mut downloads, mut common) = fetching(9, &[1]);
        let until = NOW + Duration::from_secs(1);
        downloads.the_one().sources.get_mut(&peer(1).id).unwrap().pause = until;
        downloads.pump_all(NOW, &mut common);
        assert_eq!(asked(&common), 0);
        downloads.pump_all(until, &mut common);
        assert_eq!(asked(&common), 2);
    }

    #[test]
    fn a_request_is_cancelled_once() {
        let (mut downloads, mut common) = fetching(9, &[1]);
        downloads.pump_all(NOW, &mut common);
        common.outputs();
        withdraw(ID, &mut common);
        assert_eq!(common.outputs().len(), 2);
        withdraw(ID, &mut common);
        assert_eq!(common.outputs(), []);
    }
}
