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
