//! The space that pieces and files take on the file system, and its bounds.
//!
//! A file takes whole blocks, an inode and a directory entry, so even a piece of one byte has a cost. The quota bounds the node's
//! use. The *floor* is the free space that the node leaves to the host, whatever the quota: bytes, and inodes where the file system
//! has a fixed number of them.

use super::PIECE_OVERHEAD_BYTES;
use crate::io::Space;

/// The default floor is a twentieth of the file system, and at least this.
const FLOOR_BYTES_MIN: u64 = 64 << 20;
const FLOOR_SHARE: u64 = 20;
/// The largest block size that is believed; a larger one counts as this.
const BLOCK_BYTES_MAX: u64 = 64 << 10;

/// The sizes on disk, by the block size of the file system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Costs {
    block: u64,
}

impl Costs {
    /// Costs with blocks of this size; with 0, unknown, the cost of content is its length.
    pub(super) fn new(block_bytes: u32) -> Self {
        Costs { block: u64::from(block_bytes).clamp(1, BLOCK_BYTES_MAX) }
    }

    /// An inode and a directory entry: about 350 bytes on ext4 with blocks of 4 KiB.
    fn entry(self) -> u64 {
        self.block / 8
    }

    /// An empty directory. Its entries count with their files.
    pub(super) fn directory(self) -> u64 {
        if self.block > 1 { self.block + self.entry() } else { 0 }
    }

    /// A stored piece.
    pub(super) fn piece(self, length: u32) -> u64 {
        (u64::from(length) + PIECE_OVERHEAD_BYTES).next_multiple_of(self.block) + self.entry()
    }

    /// `files` files in the cache, of `bytes` together, with their share records and manifests.
    pub(super) fn cached(self, bytes: u64, files: usize) -> u64 {
        let each = if self.block > 1 { 2 * (self.block + self.entry()) } else { 0 };
        let manifests = if self.block > 1 { bytes / 4096 } else { 0 };
        bytes + manifests + each * files as u64
    }
}

/// The quota, and the free space above the floor.
#[derive(Clone, Debug)]
pub(super) struct Room {
    pub(super) quota: u64,
    keep_free: Option<u64>,
    space: Space,
    /// Bytes and files taken and freed since `space` was read.
    taken: (u64, u64),
    freed: (u64, u64),
}

impl Room {
    pub(super) fn new(quota: u64, keep_free: Option<u64>, space: Space) -> Self {
        Room { quota, keep_free, space, taken: (0, 0), freed: (0, 0) }
    }

    /// Updates the space of the file system.
    pub(super) fn set_space(&mut self, space: Space) {
        (self.space, self.taken, self.freed) = (space, (0, 0), (0, 0));
    }

    /// Counts a written file whose reservation has ended.
    pub(super) fn take(&mut self, bytes: u64) {
        self.taken = (self.taken.0.saturating_add(bytes), self.taken.1 + 1);
    }

    /// Counts a deleted file.
    pub(super) fn free(&mut self, bytes: u64) {
        self.freed = (self.freed.0.saturating_add(bytes), self.freed.1 + 1);
    }

    /// The floor in bytes.
    pub(super) fn floor(&self) -> u64 {
        let default = (self.space.total_bytes / FLOOR_SHARE).max(FLOOR_BYTES_MIN);
        if self.space.total_bytes == 0 { 0 } else { self.keep_free.unwrap_or(default) }
    }

    /// The floor in inodes: the same fraction of all inodes as of all bytes.
    fn floor_files(&self) -> u64 {
        let Space { total_bytes, total_files, .. } = self.space;
        let share = match self.keep_free {
            Some(bytes) => u128::from(total_files) * u128::from(bytes) / u128::from(total_bytes.max(1)),
            None => u128::from(total_files / FLOOR_SHARE),
        };
        share.min(u128::from(total_files)) as u64
    }

    /// The free bytes above the floor.
    pub(super) fn bytes_left(&self) -> u64 {
        let free = self.space.free_bytes.saturating_add(self.freed.0);
        free.saturating_sub(self.taken.0).saturating_sub(self.floor())
    }

    /// The free inodes above the floor.
    pub(super) fn files_left(&self) -> u64 {
        if self.space.total_files == 0 {
            return u64::MAX;
        }
        let free = self.space.free_files.saturating_add(self.freed.1);
        free.saturating_sub(self.taken.1).saturating_sub(self.floor_files())
    }

    /// The free bytes of the file system, as last read.
    pub(super) fn free_bytes(&self) -> u64 {
        self.space.free_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_piece_takes_a_block_and_a_directory_entry() {
        let costs = Costs::new(4096);
        assert_eq!(costs.piece(0), 4096 + 512);
        assert_eq!(costs.piece(4096 - 256), 4096 + 512);
        assert_eq!(costs.piece(4096 - 255), 8192 + 512);
        assert_eq!(costs.directory(), 4096 + 512);
        // With an unknown block size the cost of content is its length.
        let bare = Costs::new(0);
        assert_eq!(bare.piece(100), 356);
        assert_eq!(bare.directory(), 0);
        assert_eq!(bare.cached(77, 3), 77);
        assert_eq!(Costs::new(u32::MAX).piece(1), (64 << 10) + (8 << 10), "a block is bounded");
    }

    #[test]
    fn the_default_floor_is_a_twentieth_of_the_file_system_and_at_least_64_mib() {
        let space = |total: u64| Space {
            block_bytes: 4096,
            total_bytes: total,
            free_bytes: total / 2,
            total_files: 10_000,
            free_files: 600,
        };
        let room = |total, keep| Room::new(1 << 30, keep, space(total));
        assert_eq!(room(100 << 30, None).floor(), 5 << 30);
        assert_eq!(room(256 << 20, None).floor(), 64 << 20);
        assert_eq!(room(256 << 20, None).bytes_left(), 64 << 20);
        assert_eq!(room(32 << 20, None).bytes_left(), 0);
        assert_eq!(room(32 << 20, Some(0)).bytes_left(), 16 << 20);
        assert_eq!(room(1 << 30, None).files_left(), 100);
        assert_eq!(room(1000, Some(10)).files_left(), 500, "a hundredth of both");
        let unknown = Room::new(1 << 30, Some(1 << 40), Space::default());
        assert_eq!(unknown.floor(), 0);
        assert_eq!(unknown.bytes_left(), u64::MAX);
        assert_eq!(unknown.files_left(), u64::MAX);
    }

    #[test]
    fn bytes_taken_and_freed_count_until_the_space_is_read_again() {
        let mut space = Space { total_bytes: 1000, free_bytes: 500, ..Space::default() };
        space.total_files = 10;
        space.free_files = 5;
        let mut room = Room::new(1 << 30, Some(100), space);
        assert_eq!(room.bytes_left(), 400);
        assert_eq!(room.files_left(), 4);
        room.take(150);
        assert_eq!(room.bytes_left(), 250);
        assert_eq!(room.files_left(), 3);
        room.free(50);
        assert_eq!(room.bytes_left(), 300);
        assert_eq!(room.files_left(), 4);
        room.set_space(space);
        assert_eq!(room.bytes_left(), 400);
        assert_eq!(room.files_left(), 4);
    }
}
