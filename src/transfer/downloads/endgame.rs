//! The endgame: when every missing chunk of a source is requested already, an idle source is asked for one of them, too.

use super::chunks::{Chunks, Owner};
use super::download::{Download, Phase};
use super::requests::{cancel_owner, request_chunk};
use super::sources::Source;
use crate::io::StreamId;
use crate::time::Instant;
use crate::transfer::common::Common;
use crate::transfer::streams::session::Session;

/// Streams over which one chunk is requested at a time: the second one when the first is slow.
const OWNERS_MAX: usize = 2;
/// A chunk is requested from another source if at least this many requests are before it: then its content is not on its way yet.
const WAITS_BEHIND_MIN: usize = 3;

impl Download {
    /// Asks each idle source for a chunk that makes no progress; or lets it take over a chunk that waits behind many others.
    pub(super) fn ask_again(&mut self, now: Instant, common: &mut Common) {
        let spared = self.spared(now, common);
        let Phase::Chunks(chunks) = &mut self.phase else { return };
        for source in self.sources.values() {
            let Some(stream) = idle_stream(now, source, common) else { continue };
            if let Some(index) = slow_chunk(now, chunks, source, stream, common) {
                common.out.counters.chunk_asked_again += 1;
                request_chunk(now, self.id, chunks, (index, stream), common);
                continue;
            }
            if spared.is_some() && chunks.is_all(&source.has) {
                continue;
            }
            if let Some((index, owner)) = last_in_line(chunks, source, common) {
                common.out.counters.chunk_asked_elsewhere += 1;
                chunks.release(index, owner.stream, owner.request);
                cancel_owner(&owner, common);
                request_chunk(now, self.id, chunks, (index, stream), common);
            }
        }
    }
}

/// A chunk of this source that makes no progress over the stream on which it was requested.
fn slow_chunk(
    now: Instant,
    chunks: &Chunks,
    source: &Source,
    stream: StreamId,
    common: &Common,
) -> Option<u32> {
    let slow = |owner: &Owner| owner.stream != stream && may_be_overtaken(now, owner, stream, common);
    let slow = |(index, owners): &(&u32, &Vec<Owner>)| {
        source.has.get(**index) && owners.len() < OWNERS_MAX && owners.iter().all(slow)
    };
    chunks.in_flight().iter().find(slow).map(|(&index, _)| index)
}

/// The chunk of this source that waits behind the most other requests to another source.
fn last_in_line(chunks: &Chunks, source: &Source, common: &Common) -> Option<(u32, Owner)> {
    let waits = |(&index, owners): (&u32, &Vec<Owner>)| {
        let [owner] = owners[..] else { return None };
        let behind = common.streams.get(&owner.stream)?.waits_behind(owner.request)?;
        (source.has.get(index) && behind >= WAITS_BEHIND_MIN).then_some((behind, index, owner))
    };
    let last = chunks.in_flight().iter().filter_map(waits).max_by_key(|(behind, ..)| *behind);
    last.map(|(_, index, owner)| (index, owner))
}

/// The stream to a source, if the source has nothing to do.
pub(super) fn idle_stream(now: Instant, source: &Source, common: &Common) -> Option<StreamId> {
    if source.banned || source.pause > now {
        return None;
    }
    let stream = common.streams.to(&source.contact.id)?;
    common.streams.get(&stream)?.requests.is_empty().then_some(stream)
}

/// Whether a chunk that was requested over one stream is better requested over `by`, too: it makes no progress, or is far
/// slower than `by`.
pub(super) fn may_be_overtaken(now: Instant, owner: &Owner, by: StreamId, common: &Common) -> bool {
    let (streams, stall) = (&common.streams, common.config.timing.stall);
    let sessions = streams.get(&owner.stream).filter(|_| owner.receiving).zip(streams.get(&by));
    let outpaced = |(slow, other): (&Session, _)| slow.is_outpaced_by(other, now, stall);
    stale_at(owner, common) <= now || sessions.is_some_and(outpaced)
}

/// When a requested chunk counts as making no progress.
pub(super) fn stale_at(owner: &Owner, common: &Common) -> Instant {
    let progress = match common.streams.get(&owner.stream) {
        Some(session) if owner.receiving => session.received_at.max(owner.asked),
        _ => owner.asked,
    };
    progress + common.config.timing.patience
}

#[cfg(test)]
mod tests {
    use super::super::testing::{ID, fetching, requests};
    use super::*;
    use crate::time::Duration;
    use crate::transfer::testing::{NOW, stream};

    #[test]
    fn an_idle_source_is_asked_for_a_chunk_only_when_the_first_makes_no_progress() {
        let (mut downloads, mut common) = fetching(2, &[1]);
        downloads.pump_all(NOW, &mut common);
        downloads.has_all(2);
        let patience = common.config.timing.patience;
        downloads.pump_all(NOW + patience - Duration::from_millis(1), &mut common);
        assert!(requests(&common, 2).is_empty());
        downloads.pump_all(NOW + patience, &mut common);
        assert_eq!(requests(&common, 2).len(), 1);
        assert_eq!(common.out.counters.chunk_asked_again, 1);
        assert!(requests(&common, 1).iter().all(|request| !request.cancelled), "the first may still send it");
    }

    #[test]
    fn no_more_than_two_sources_are_asked_for_one_chunk() {
        let (mut downloads, mut common) = fetching(2, &[1, 2]);
        let chunks = downloads.the_one().chunks_mut().unwrap();
        for seed in 1..=2 {
            request_chunk(NOW, ID, chunks, (0, stream(seed)), &mut common);
        }
        let later = NOW + common.config.timing.patience * 2;
        let download = downloads.the_one();
        let source = download.sources.values().next().unwrap();
        assert_eq!(slow_chunk(later, download.chunks().unwrap(), source, StreamId(77), &common), None);
    }

    #[test]
    fn an_idle_source_takes_over_the_chunk_that_waits_behind_most_others() {
        let (mut downloads, mut common) = fetching(5, &[1, 2]);
        let chunks = downloads.the_one().chunks_mut().unwrap();
        for index in 0..5 {
            request_chunk(NOW, ID, chunks, (index, stream(1)), &mut common);
        }
        downloads.pump_all(NOW, &mut common);
        assert_eq!(common.out.counters.chunk_asked_elsewhere, 1);
        let cancelled: Vec<bool> = requests(&common, 1).iter().map(|request| request.cancelled).collect();
        assert_eq!(cancelled, [false, false, false, false, true]);
        assert_eq!(requests(&common, 2).len(), 1);
        assert_eq!(downloads.in_flight(ID), 5);
    }
}
