//! A window that slides over a part of a file: the chunks that have arrived and not left yet, each in a file of its own.
//!
//! A chunk enters when it is verified. It is handed out after all chunks before it, and its file is removed when its bytes have left.
//! A file is never written twice: `sendfile` passes pages on without a copy, so bytes that were sent may still be on their way when
//! the call returns.

use crate::io::{Extent, Place};
use crate::manifest::Manifest;
use crate::node::command::{Content, Part};
use core::ops::Range;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The least number of chunks in a window: one that leaves, one that is complete, one that arrives.
const CHUNKS_MIN: u64 = 3;

/// Verified chunks of one file, in order. It is independent of the reader.
pub(super) struct Window {
    manifest: Arc<Manifest>,
    /// The number in the names of its files.
    number: u64,
    /// The requested bytes of the file.
    bytes: Range<u64>,
    /// The chunks that contain them.
    chunks: Range<u32>,
    /// The largest number of chunks in the window.
    size: u32,
    /// The chunks before this one have left completely.
    left: u32,
    /// The chunks before this one have been handed out.
    handed: u32,
    /// Chunks that have arrived and were not handed out.
    here: BTreeSet<u32>,
    /// The number of bytes that have left.
    sent: u64,
}

impl Window {
    /// A window over `part` of a file (`None` is the whole file) that holds about `window_bytes`. `None` when the file ends before the
    /// part begins.
    pub(super) fn new(
        manifest: Arc<Manifest>,
        number: u64,
        part: Option<Part>,
        window_bytes: u64,
    ) -> Option<Window> {
        let (length, chunk) = (manifest.length(), manifest.chunk_bytes());
        let bytes = part.map_or(Some(0..length), |part| part.of(length))?;
        let chunks = match bytes.is_empty() {
            true => 0..0,
            false => (bytes.start / chunk) as u32..bytes.end.div_ceil(chunk) as u32,
        };
        let size = (window_bytes / chunk).max(CHUNKS_MIN).min(u64::from(u32::MAX)) as u32;
        let (left, handed) = (chunks.start, chunks.start);
        Some(Window { manifest, number, bytes, chunks, size, left, handed, here: BTreeSet::new(), sent: 0 })
    }

    // Getters.

    pub(super) fn manifest(&self) -> &Arc<Manifest> {
        &self.manifest
    }

    /// The requested bytes of the file.
    pub(super) fn bytes(&self) -> Range<u64> {
        self.bytes.clone()
    }

    /// The chunks that contain them.
    pub(super) fn chunks(&self) -> Range<u32> {
        self.chunks.clone()
    }

    /// The number of bytes that have left.
    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    /// The largest size of the window's files together, in bytes.
    pub(super) fn bytes_max(&self) -> u64 {
        self.bytes_of_chunks(self.size)
    }

    /// The same with the least number of chunks.
    pub(super) fn bytes_min(&self) -> u64 {
        self.bytes_of_chunks(CHUNKS_MIN as u32)
    }

    fn bytes_of_chunks(&self, count: u32) -> u64 {
        let count = u64::from(count).min(self.chunks.len() as u64);
        (count * self.manifest.chunk_bytes()).min(self.manifest.length())
    }

    /// The edge: chunks before this one may enter.
    pub(super) fn edge(&self) -> u32 {
        self.left.saturating_add(self.size).min(self.chunks.end)
    }

    /// The position in the file up to which bytes were handed out.
    pub(super) fn handed_end(&self) -> u64 {
        self.manifest.chunk_offset(self.handed).clamp(self.bytes.start, self.bytes.end)
    }

    /// Whether everything has left.
    pub(super) fn is_over(&self) -> bool {
        self.left == self.chunks.end
    }

    /// Whether the reader waits for chunks: all that was handed out has left.
    pub(super) fn is_starved(&self) -> bool {
        self.handed == self.left
    }

    /// Whether a chunk has arrived, even if it has left since.
    pub(super) fn has(&self, index: u32) -> bool {
        index < self.handed || self.here.contains(&index)
    }

    /// The number of chunks that have not arrived.
    pub(super) fn missing(&self) -> u32 {
        (self.chunks.end - self.handed).saturating_sub(self.here.len() as u32)
    }

    /// The file of a chunk.
    pub(super) fn place(&self, index: u32) -> Place {
        Place::Window { window: self.number, chunk: index }
    }

    /// The chunks that may have a file and were not handed out.
    pub(super) fn unhanded(&self) -> Range<u32> {
        self.handed..self.edge()
    }

    /// The chunks that may have a file.
    pub(super) fn filed(&self) -> Range<u32> {
        self.left..self.edge()
    }

    // Changes.

    /// Reduces the window to `bytes`, but to no less than the least number of chunks.
    pub(super) fn shrink(&mut self, bytes: u64) {
        let fits = (bytes / self.manifest.chunk_bytes()).max(CHUNKS_MIN);
        self.size = self.size.min(u32::try_from(fits).unwrap_or(u32::MAX));
    }

    /// A verified chunk is in its file. False when the window does not need it.
    pub(super) fn enter(&mut self, index: u32) -> bool {
        self.unhanded().contains(&index) && self.here.insert(index)
    }

    /// Hands out the next chunk, if it has arrived: its description and its extent.
    pub(super) fn next_content(&mut self) -> Option<(Content, Extent)> {
        let index = self.handed;
        if !self.here.remove(&index) {
            return None;
        }
        self.handed += 1;
        let bytes = self.bytes_of(index);
        let length = (bytes.end - bytes.start) as u32;
        let offset = bytes.start - self.manifest.chunk_offset(index);
        let content = Content { offset: bytes.start, length, file_length: self.manifest.length() };
        Some((content, Extent { place: self.place(index), offset, length, stamp: None }))
    }

    /// `count` of the handed-out bytes have left. Returns the chunks whose files are no longer needed.
    pub(super) fn leave(&mut self, count: u64) -> Range<u32> {
        let first = self.left;
        self.sent += count;
        while self.left < self.handed && self.bytes_of(self.left).end <= self.bytes.start + self.sent {
            self.left += 1;
        }
        debug_assert!(self.bytes.start + self.sent <= self.bytes.end, "more has left than was handed out");
        first..self.left
    }

    /// The requested bytes of a chunk.
    fn bytes_of(&self, index: u32) -> Range<u64> {
        let start = self.manifest.chunk_offset(index);
        let end = start + u64::from(self.manifest.chunk_length(index));
        start.max(self.bytes.start)..end.min(self.bytes.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{CHUNK_BYTES_MIN, ManifestBuilder};

    const CHUNK: u64 = CHUNK_BYTES_MIN;

    fn window(length: u64, part: Option<Part>, window_bytes: u64) -> Option<Window> {
        let mut builder = ManifestBuilder::new(length).unwrap();
        builder.update(&vec![7; length as usize]);
        Window::new(Arc::new(builder.finish().unwrap()), 9, part, window_bytes)
    }

    fn between(start: u64, end: u64) -> Option<Part> {
        Some(Part::Between { start, end: Some(end) })
    }

    #[test]
    fn chunks_leave_their_files_in_the_order_in_which_they_are_handed_out() {
        let mut window = window(6 * CHUNK + 5, None, 4 * CHUNK).unwrap();
        assert_eq!(window.edge(), 4);
        assert_eq!(window.chunks(), 0..7);
        assert!(window.is_starved());
        assert!(window.enter(1) && !window.enter(1) && !window.enter(4));
        assert_eq!(window.next_content(), None);
        assert!(window.enter(0));
        let (content, extent) = window.next_content().unwrap();
        assert_eq!(content.offset, 0);
        assert_eq!(u64::from(content.length), CHUNK);
        assert_eq!(extent.place, Place::Window { window: 9, chunk: 0 });
        assert_eq!(extent.offset, 0);
        window.next_content().unwrap();
        assert_eq!(window.next_content(), None);
        assert!(!window.is_starved());
        assert_eq!(window.missing(), 5);
        assert_eq!(window.leave(CHUNK - 1), 0..0);
        assert_eq!(window.edge(), 4);
        assert_eq!(window.leave(2), 0..1);
        assert_eq!(window.edge(), 5);
        assert_eq!(window.leave(CHUNK - 1), 1..2);
        assert_eq!(window.edge(), 6);
        assert!(window.is_starved());
        for index in 2..7 {
            assert!(window.enter(index), "chunk {index}");
            let (content, _) = window.next_content().unwrap();
            window.leave(u64::from(content.length));
        }
        assert!(window.is_over());
        assert_eq!(window.sent(), 6 * CHUNK + 5);
    }

    #[test]
    fn only_the_requested_part_of_the_first_and_last_chunk_is_read() {
        let mut window = window(4 * CHUNK, between(CHUNK + 10, 2 * CHUNK + 1), u64::MAX).unwrap();
        assert_eq!(window.chunks(), 1..3);
        assert_eq!(window.edge(), 3);
        assert!(window.enter(1) && window.enter(2) && !window.enter(0));
        let (content, extent) = window.next_content().unwrap();
        assert_eq!(content.offset, CHUNK + 10);
        assert_eq!(extent.offset, 10);
        assert_eq!(u64::from(extent.length), CHUNK - 10);
        let (content, extent) = window.next_content().unwrap();
        assert_eq!(content.offset, 2 * CHUNK);
        assert_eq!(extent.offset, 0);
        assert_eq!(extent.length, 1);
        assert_eq!(window.leave(CHUNK - 9), 1..3);
        assert!(window.is_over());
    }

    #[test]
    fn an_empty_part_is_valid_and_one_past_the_end_is_not() {
        for (length, part) in [(0, None), (CHUNK * 2, between(5, 5)), (0, between(0, 9))] {
            assert!(window(length, part, CHUNK).unwrap().is_over(), "{part:?} of {length}");
        }
        assert!(window(CHUNK * 2, between(CHUNK * 2, CHUNK * 2 + 1), CHUNK).is_none());
    }

    #[test]
    fn a_window_has_room_for_three_chunks_however_small_it_is_to_be() {
        assert_eq!(window(9 * CHUNK, None, 1).unwrap().edge(), 3);
        assert_eq!(window(9 * CHUNK, None, 5 * CHUNK + 1).unwrap().edge(), 5);
    }

    #[test]
    fn a_window_takes_no_more_than_its_part_and_can_be_made_smaller() {
        let sizes = |window: &Window| (window.bytes_max(), window.bytes_min());
        let mut long = window(9 * CHUNK, None, 6 * CHUNK).unwrap();
        assert_eq!(sizes(&long), (6 * CHUNK, 3 * CHUNK));
        long.shrink(5 * CHUNK - 1);
        assert_eq!(long.edge(), 4);
        assert_eq!(long.bytes_max(), 4 * CHUNK);
        long.shrink(1);
        assert_eq!(long.edge(), 3, "three chunks are the least");
        assert_eq!(sizes(&window(9 * CHUNK, between(0, 1), 6 * CHUNK).unwrap()), (CHUNK, CHUNK));
        assert_eq!(sizes(&window(100, None, 6 * CHUNK).unwrap()), (100, 100));
        assert_eq!(sizes(&window(0, None, 6 * CHUNK).unwrap()), (0, 0));
    }
}
