//! The chunks of one download: which are here, which are requested, and how rare each is among the sources.

use crate::id::Key;
use crate::io::{Place, Sink, StreamId};
use crate::manifest::{Content, Manifest};
use crate::time::Instant;
use core::ops::Range;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A bit set with one bit for each chunk.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    pub(super) fn new(count: u32) -> Self {
        Bits { words: vec![0; count.div_ceil(64) as usize] }
    }

    /// Bit `index`; false past the end.
    pub(super) fn get(&self, index: u32) -> bool {
        self.words.get(index as usize / 64).is_some_and(|word| word & (1 << (index % 64)) != 0)
    }

    /// Sets or clears bit `index`. Returns whether the bit changed.
    pub(super) fn put(&mut self, index: u32, value: bool) -> bool {
        let changes = self.get(index) != value;
        if let (true, Some(word)) = (changes, self.words.get_mut(index as usize / 64)) {
            *word ^= 1 << (index % 64);
        }
        changes
    }

    /// The number of set bits.
    pub(super) fn count(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// Sets every bit that is set in `others`.
    pub(super) fn join(&mut self, others: &Bits) {
        self.words.iter_mut().zip(&others.words).for_each(|(word, other)| *word |= other);
    }

    fn word(&self, i: usize) -> u64 {
        self.words.get(i).copied().unwrap_or(0)
    }

    /// The indices of set bits.
    pub(super) fn ones(&self) -> impl Iterator<Item = u32> + '_ {
        self.words.iter().enumerate().flat_map(|(i, &word)| ones_of(word, i))
    }
}

/// The indices of the set bits of word `i`.
fn ones_of(mut word: u64, i: usize) -> impl Iterator<Item = u32> {
    core::iter::from_fn(move || {
        let bit = (word != 0).then(|| word.trailing_zeros())?;
        word &= word - 1;
        Some(i as u32 * 64 + bit)
    })
}

/// Spreads the bits of a number over all of another (the finalizer of SplitMix64).
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// A request for a chunk, and the stream that it was sent over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Owner {
    pub(super) stream: StreamId,
    pub(super) request: u32,
    pub(super) asked: Instant,
    /// Whether its content is arriving.
    pub(super) receiving: bool,
}

/// The chunks of one download.
pub(super) struct Chunks {
    pub(super) manifest: Arc<Manifest>,
    target: Target,
    have: Bits,
    missing: u32,
    /// The first chunk that is missing.
    prefix: u32,
    asked: Bits,
    in_flight: BTreeMap<u32, Vec<Owner>>,
    /// The number of connected sources that have each chunk.
    rarity: Vec<u16>,
    /// Where the search for the next chunk starts. Random, so that downloads of the same file differ.
    start: u32,
    /// For each chunk, the number of co-downloaders that rank before this node: they fetch the chunk sooner. Empty when there are
    /// no co-downloaders.
    turns: Vec<u8>,
    /// How many chunks from the first missing one on are requested in order, before rare ones.
    ahead: u32,
    /// Chunks from this index on may not be requested yet.
    edge: u32,
    /// A lower bound of the [`cost`](Chunks::cost) of every chunk that is still to be requested.
    floor: (u16, u8),
}

/// Where verified chunks are written.
#[derive(Clone, Debug)]
enum Target {
    /// Each to its place in one file.
    File(Place),
    /// Each into a file of its own, from which the reader takes it. This is the number of the window.
    Window(u64),
}

/// Bytes that are requested in order when the file is read while it arrives.
const READ_AHEAD_BYTES: u64 = 16 << 20;

impl Chunks {
    /// The chunks of `manifest`, of which those in `have` are here. `start` is any number.
    pub(super) fn new(manifest: Arc<Manifest>, place: Place, have: &[bool], start: u64) -> Self {
        Chunks::into_target(manifest, Target::File(place), have, start)
    }

    /// The chunks of `manifest` that pass through a window in order. Those before `edge` may be requested.
    pub(super) fn in_window(manifest: Arc<Manifest>, window: u64, have: &[bool], edge: u32) -> Self {
        let mut chunks = Chunks::into_target(manifest, Target::Window(window), have, 0);
        chunks.ahead = u32::MAX;
        chunks.edge = edge;
        chunks
    }

    fn into_target(manifest: Arc<Manifest>, target: Target, have: &[bool], start: u64) -> Self {
        let count = manifest.chunk_count();
        let mut chunks = Chunks {
            target,
            have: Bits::new(count),
            missing: count,
            prefix: 0,
            asked: Bits::new(count),
            in_flight: BTreeMap::new(),
            rarity: vec![0; count as usize],
            start: (start % u64::from(count)) as u32,
            turns: Vec::new(),
            ahead: 0,
            edge: count,
            floor: (0, 0),
            manifest,
        };
        for (index, _) in (0..count).zip(have).filter(|(_, have)| **have) {
            chunks.done(index);
        }
        chunks
    }

    pub(super) fn count(&self) -> u32 {
        self.manifest.chunk_count()
    }

    pub(super) fn missing(&self) -> u32 {
        self.missing
    }

    /// Bytes from the start of the file that are here, without a gap.
    #[cfg(test)]
    pub(super) fn prefix(&self) -> u64 {
        self.manifest.chunk_offset(self.prefix).min(self.manifest.length())
    }

    pub(super) fn in_flight(&self) -> &BTreeMap<u32, Vec<Owner>> {
        &self.in_flight
    }

    pub(super) fn is_missing(&self, index: u32) -> bool {
        index < self.count() && !self.have.get(index)
    }

    pub(super) fn key(&self, index: u32) -> Option<Key> {
        self.manifest.keys().get(index as usize).copied()
    }

    /// The kind of content that a chunk of this file is on its own.
    pub(super) fn content(&self) -> Content {
        if self.manifest.is_single() { Content::File } else { Content::Chunk }
    }

    /// Whether the chunks pass through a window. They do not stay here, so they are not offered to peers.
    pub(super) fn is_windowed(&self) -> bool {
        matches!(self.target, Target::Window(_))
    }

    /// Where a chunk is written.
    pub(super) fn sink(&self, index: u32) -> Sink {
        let (length, hash_as) = (self.manifest.chunk_length(index), self.manifest.hash_as(index));
        match &self.target {
            Target::File(place) => {
                Sink { place: place.clone(), offset: self.manifest.chunk_offset(index), length, hash_as }
            }
            Target::Window(window) => {
                let place = Place::Window { window: *window, chunk: index };
                Sink { place, offset: 0, length, hash_as }
            }
        }
    }

    /// Moves the edge forward: chunks before `edge` may be requested from now on.
    pub(super) fn advance(&mut self, edge: u32) {
        self.edge = self.edge.max(edge);
    }

    /// The bits of word `i` whose chunks may be requested.
    fn open_word(&self, i: usize) -> u64 {
        match self.edge.saturating_sub(i as u32 * 64) {
            64.. => u64::MAX,
            open => (1 << open) - 1,
        }
    }

    /// Counts a source as one that has a chunk, or no longer has it.
    pub(super) fn count_source(&mut self, index: u32, has: bool) {
        if let Some(rarity) = self.rarity.get_mut(index as usize) {
            *rarity = if has { rarity.saturating_add(1) } else { rarity.saturating_sub(1) };
            self.floor = self.floor.min(self.cost(index));
        }
    }

    /// Whether a source with these chunks has any that is missing here and may be requested.
    pub(super) fn lacks_of(&self, has: &Bits) -> bool {
        let words = has.words.iter().zip(&self.have.words).enumerate();
        words.into_iter().any(|(i, (has, have))| has & !have & self.open_word(i) != 0)
    }

    /// Whether a source with these chunks has any that is still to be requested.
    pub(super) fn unasked_of(&self, has: &Bits) -> bool {
        self.unasked_words(has).any(|(_, word)| word != 0)
    }

    /// The file is read from the start while it arrives: the chunks that are read next come first, then the rare ones.
    pub(super) fn read_ahead(&mut self) {
        self.start = 0;
        self.ahead = (READ_AHEAD_BYTES / self.manifest.chunk_bytes()).max(2) as u32;
    }

    /// Divides the file among co-downloaders. Rendezvous hashing gives each chunk an order of all of them that every node computes
    /// alike. So they request different chunks from a source that has all, without coordination: a node requests first the
    /// chunks for which it ranks first, then those for which it ranks second, and so on.
    pub(super) fn share_among(&mut self, own: u64, others: &[u64]) {
        let turn = |index: u32| {
            let chunk = mix(u64::from(index));
            let ours = mix(own ^ chunk);
            others.iter().filter(|other| mix(**other ^ chunk) > ours).count() as u8
        };
        self.floor = (0, 0);
        self.turns = if others.is_empty() { Vec::new() } else { (0..self.count()).map(turn).collect() };
    }

    /// The chunk to request from a source that has `has`. The chunk that is read next comes first. Then the rarest; among equally
    /// rare ones the one for which this node ranks best; then the first from `start` on. Chunks in `spared` are left out.
    pub(super) fn pick(&mut self, has: &Bits, spared: Option<&Bits>) -> Option<u32> {
        let urgent = self.prefix..self.prefix.saturating_add(self.ahead).min(self.edge);
        if let Some(index) = urgent.into_iter().find(|&index| has.get(index) && self.is_unasked(index)) {
            return Some(index);
        }
        let mut best: Option<((u16, u8), u32)> = None;
        let after = self.candidates(has, spared, self.start..self.count());
        for index in after.chain(self.candidates(has, spared, 0..self.start)) {
            let cost = self.cost(index);
            if best.is_none_or(|(least, _)| cost < least) {
                best = Some((cost, index));
                if cost <= self.floor {
                    // No chunk is cheaper. A large file has thousands, so the search ends here.
                    return Some(index);
                }
            }
        }
        let (least, index) = best?;
        if spared.is_none() && self.is_all_unasked(has) {
            self.floor = least;
        }
        Some(index)
    }

    /// The order of requests, least first: the number of sources that have the chunk, then the co-downloaders that rank first.
    fn cost(&self, index: u32) -> (u16, u8) {
        (self.rarity.get(index as usize).copied().unwrap_or(0), self.turn(index))
    }

    /// The chunks in a range that may be requested from a source with these chunks.
    fn candidates<'a>(
        &'a self,
        has: &'a Bits,
        spared: Option<&'a Bits>,
        range: Range<u32>,
    ) -> impl Iterator<Item = u32> + 'a {
        let words = range.start as usize / 64..range.end.div_ceil(64) as usize;
        words
            .flat_map(move |i| {
                let gone = self.have.word(i) | self.asked.word(i) | spared.map_or(0, |spared| spared.word(i));
                ones_of(has.word(i) & !gone & self.open_word(i), i)
            })
            .filter(move |index| range.contains(index))
    }

    /// The number of co-downloaders that rank before this node for a chunk.
    pub(super) fn turn(&self, index: u32) -> u8 {
        self.turns.get(index as usize).copied().unwrap_or(0)
    }

    /// Whether a source with these chunks has every chunk that is still to be requested.
    fn is_all_unasked(&self, has: &Bits) -> bool {
        let lacks = |i: usize| {
            (0..64).any(|bit| {
                let index = i as u32 * 64 + bit;
                index < self.edge && self.is_unasked(index) && !has.get(index)
            })
        };
        let full = |i: &usize| {
            has.word(*i) | self.have.word(*i) | self.asked.word(*i) | !self.open_word(*i) == u64::MAX
        };
        !(0..self.have.words.len()).filter(|i| !full(i)).any(lacks)
    }

    fn is_unasked(&self, index: u32) -> bool {
        !self.have.get(index) && !self.asked.get(index)
    }

    /// Whether a source with these chunks has the whole file.
    pub(super) fn is_all(&self, has: &Bits) -> bool {
        has.count() >= self.count()
    }

    /// Bytes that are missing here and that a source with these chunks has.
    pub(super) fn bytes_lacking_of(&self, has: &Bits) -> u64 {
        let lacking = has.words.iter().zip(&self.have.words).map(|(has, have)| (has & !have).count_ones());
        u64::from(lacking.sum::<u32>()) * self.manifest.chunk_bytes()
    }

    /// Missing chunks that may be requested, that no connected source has, and that are not requested.
    pub(super) fn orphans(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.edge).filter(|&i| !self.have.get(i) && !self.asked.get(i) && self.rarity[i as usize] == 0)
    }

    /// The hashes of the missing chunks.
    #[cfg(test)]
    pub(super) fn missing_keys(&self) -> impl Iterator<Item = Key> + '_ {
        (0..self.count())
            .zip(self.manifest.keys())
            .filter(|&(index, _)| !self.have.get(index))
            .map(|(_, key)| *key)
    }

    /// Enters a request for a chunk.
    pub(super) fn ask(&mut self, index: u32, owner: Owner) {
        debug_assert!(self.is_missing(index));
        self.asked.put(index, true);
        self.in_flight.entry(index).or_default().push(owner);
    }

    /// Removes a request that ended without the chunk.
    pub(super) fn release(&mut self, index: u32, stream: StreamId, request: u32) {
        if let Some(owners) = self.in_flight.get_mut(&index) {
            owners.retain(|owner| (owner.stream, owner.request) != (stream, request));
            if owners.is_empty() {
                self.in_flight.remove(&index);
                self.asked.put(index, false);
                self.floor = self.floor.min(self.cost(index));
            }
        }
    }

    /// The requests for a chunk.
    pub(super) fn owners(&mut self, index: u32) -> &mut [Owner] {
        self.in_flight.get_mut(&index).map(Vec::as_mut_slice).unwrap_or_default()
    }

    /// Enters a chunk that is here. Returns the requests for it that are left over.
    pub(super) fn done(&mut self, index: u32) -> Vec<Owner> {
        if self.have.put(index, true) {
            self.missing -= 1;
            while self.prefix < self.count() && self.have.get(self.prefix) {
                self.prefix += 1;
            }
        }
        self.asked.put(index, false);
        self.in_flight.remove(&index).unwrap_or_default()
    }

    /// Enters that a chunk is missing after all.
    pub(super) fn lose(&mut self, index: u32) {
        if index < self.count() && self.have.put(index, false) {
            self.missing += 1;
            self.prefix = self.prefix.min(index);
            self.floor = self.floor.min(self.cost(index));
        }
    }

    fn unasked_words<'a>(&'a self, has: &'a Bits) -> impl Iterator<Item = (usize, u64)> + 'a {
        let gone = self.have.words.iter().zip(&self.asked.words);
        let words = has.words.iter().zip(gone).enumerate();
        words.map(|(i, (has, (have, asked)))| (i, has & !have & !asked & self.open_word(i)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{CHUNK_BYTES_MIN, ManifestBuilder};
    use std::path::Path;

    fn chunks(count: u64, have: &[bool], start: u64) -> Chunks {
        let length = (count - 1) * CHUNK_BYTES_MIN + 5;
        let mut builder = ManifestBuilder::new(length).unwrap();
        builder.update(&vec![7; length as usize]);
        let place = Place::Partial(Path::new("/t").into());
        Chunks::new(Arc::new(builder.finish().unwrap()), place, have, start)
    }

    fn all(count: u32) -> Bits {
        let mut bits = Bits::new(count);
        (0..count).for_each(|index| assert!(bits.put(index, true)));
        bits
    }

    #[test]
    fn each_chunk_is_asked_for_once_beginning_with_the_rarest() {
        let mut chunks = chunks(5, &[], 3);
        let everything = all(5);
        everything.ones().for_each(|index| chunks.count_source(index, true));
        [0, 2, 3, 4].into_iter().for_each(|index| chunks.count_source(index, true));
        let mut order = Vec::new();
        while let Some(index) = chunks.pick(&everything, None) {
            let owner = Owner { stream: StreamId(1), request: index, asked: Instant::ZERO, receiving: false };
            chunks.ask(index, owner);
            order.push(index);
        }
        assert_eq!(order, [1, 3, 4, 0, 2]);
        assert_eq!(chunks.in_flight().len(), 5);
        assert_eq!(chunks.missing(), 5);
        chunks.release(4, StreamId(1), 4);
        assert_eq!(chunks.pick(&everything, None), Some(4));
        assert_eq!(chunks.pick(&everything, Some(&everything)), None);
        assert_eq!(chunks.pick(&Bits::new(5), None), None);
    }

    #[test]
    fn peers_that_fetch_the_same_file_take_turns_that_cover_it_evenly() {
        let peers: Vec<u64> = (1..=7).map(|peer| mix(peer * 7)).collect();
        let mut first = vec![0; 7];
        let mut taken = Bits::new(700);
        for (own, count) in peers.iter().zip(&mut first) {
            let others: Vec<u64> = peers.iter().copied().filter(|other| other != own).collect();
            let mut chunks = chunks(700, &[], 0);
            chunks.share_among(*own, &others);
            let ours = (0..700).filter(|index| chunks.turns[*index as usize] == 0);
            ours.for_each(|index| {
                assert!(taken.put(index, true), "chunk {index} is the first turn of two");
                *count += 1;
            });
        }
        assert_eq!(taken.count(), 700);
        assert!(first.iter().all(|count| (60..140).contains(count)), "{first:?}");
    }

    #[test]
    fn the_picked_chunk_always_has_the_least_cost() {
        let mut rng = crate::rng::Rng::new([5; 32]);
        let mut chunks = chunks(200, &[], 77);
        let mut sources = [all(200), Bits::new(200), Bits::new(200)];
        (0..200).for_each(|index| chunks.count_source(index, true));
        let mut asked: Vec<u32> = Vec::new();
        for step in 0..4000 {
            let index = (rng.u64() % 200) as u32;
            let source = (rng.u64() % 3) as usize;
            match rng.u64() % 12 {
                0..3 => {
                    let has = rng.u64() % 4 > 0;
                    if sources[source].put(index, has) {
                        chunks.count_source(index, has);
                    }
                }
                3 => {
                    let others: Vec<u64> = (0..rng.u64() % 4).collect();
                    chunks.share_among(9, &others);
                }
                4 if !asked.is_empty() => {
                    let index = asked.swap_remove(index as usize % asked.len());
                    chunks.release(index, StreamId(1), index);
                }
                5 if step % 16 == 0 => {
                    asked.retain(|asked| *asked != index);
                    chunks.done(index);
                }
                _ => {
                    let spared = (rng.u64() % 4 == 0).then(|| sources[(source + 1) % 3].clone());
                    let turned = |index: u32| if index < 77 { index + 200 } else { index };
                    let best = (0..200)
                        .filter(|&index| sources[source].get(index) && chunks.is_unasked(index))
                        .filter(|&index| !spared.as_ref().is_some_and(|spared| spared.get(index)))
                        .min_by_key(|&index| (chunks.cost(index), turned(index)));
                    let picked = chunks.pick(&sources[source], spared.as_ref());
                    assert_eq!(picked, best, "step {step}");
                    if let Some(request) = picked {
                        let asked_at = Instant::ZERO;
                        let owner = Owner { stream: StreamId(1), request, asked: asked_at, receiving: false };
                        chunks.ask(request, owner);
                        asked.push(request);
                    }
                }
            }
        }
    }

    #[test]
    fn chunks_that_are_read_next_come_before_rare_ones() {
        let mut chunks = chunks(100, &[true, false, true], 50);
        chunks.read_ahead();
        let everything = all(100);
        (0..99).for_each(|index| chunks.count_source(index, true));
        assert_eq!(chunks.pick(&everything, Some(&everything)), Some(1));
        for index in (1..65).filter(|index| *index != 2) {
            let owner = Owner { stream: StreamId(1), request: index, asked: Instant::ZERO, receiving: false };
            chunks.ask(index, owner);
        }
        // First 64 chunks of 256 KiB from the first missing one on, then the one that no other source has.
        assert_eq!(chunks.pick(&everything, None), Some(99));
    }

    #[test]
    fn a_window_is_fetched_in_order_up_to_its_edge() {
        let manifest = chunks(200, &[], 0).manifest;
        let have: Vec<bool> = (0..200).map(|index| index < 62).collect();
        let mut chunks = Chunks::in_window(manifest, 7, &have, 65);
        let everything = all(200);
        everything.ones().for_each(|index| chunks.count_source(index, true));
        chunks.count_source(64, true);
        let owner = |request| Owner { stream: StreamId(1), request, asked: Instant::ZERO, receiving: false };
        for index in 62..65 {
            assert!(chunks.unasked_of(&everything) && chunks.lacks_of(&everything));
            assert_eq!(chunks.pick(&everything, None), Some(index));
            chunks.ask(index, owner(index));
        }
        assert_eq!(chunks.pick(&everything, None), None);
        assert!(!chunks.unasked_of(&everything));
        (62..65).for_each(|index| drop(chunks.done(index)));
        assert!(!chunks.lacks_of(&everything), "chunks past the edge do not count as lacking");
        assert_eq!(chunks.orphans().next(), None);
        everything.ones().for_each(|index| chunks.count_source(index, false));
        chunks.advance(130);
        assert_eq!(chunks.orphans().collect::<Vec<_>>(), (65..130).collect::<Vec<_>>());
        assert_eq!(chunks.pick(&everything, None), Some(65));
        chunks.advance(100);
        chunks.ask(65, owner(65));
        chunks.release(65, StreamId(1), 65);
        assert_eq!(
            chunks.pick(&everything, None),
            Some(65),
            "a chunk that was released is requested again first"
        );
        let sink = chunks.sink(65);
        assert_eq!(sink.place, Place::Window { window: 7, chunk: 65 });
        assert_eq!(sink.offset, 0);
    }

    #[test]
    fn a_chunk_that_is_done_is_not_lacked_any_more() {
        let mut chunks = chunks(3, &[true, false, true], 0);
        assert_eq!(chunks.missing(), 1);
        assert_eq!(chunks.prefix(), CHUNK_BYTES_MIN);
        assert!(chunks.lacks_of(&all(3)));
        chunks.done(1);
        assert!(!chunks.lacks_of(&all(3)));
        assert_eq!(chunks.prefix(), chunks.manifest.length());
    }
}
