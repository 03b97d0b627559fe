//! The bytes that a disk has room for.

use super::error;
use crate::io::{DiskError, DiskErrorKind};

/// Room, some of which is taken.
pub(super) struct Room {
    capacity: u64,
    used: u64,
}

impl Room {
    pub(super) fn new(capacity: u64) -> Self {
        Room { capacity, used: 0 }
    }

    /// The error "no space left" when so many bytes more do not fit.
    pub(super) fn check(&self, bytes: u64) -> Result<(), DiskError> {
        match self.used.saturating_add(bytes) > self.capacity {
            true => Err(error(DiskErrorKind::NoSpace, "no space left")),
            false => Ok(()),
        }
    }

    /// So many bytes more are taken: [checked](Room::check) before.
    pub(super) fn take(&mut self, bytes: u64) {
        self.used += bytes;
    }

    /// So many bytes are free again.
    pub(super) fn give(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.used, "no more is given back than was taken");
        self.used -= bytes;
    }
}
