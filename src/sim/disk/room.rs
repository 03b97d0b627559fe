//! The capacity of a disk, in bytes.

use super::error;
use crate::io::{DiskError, DiskErrorKind};

/// The capacity of a disk, and how much of it is used.
pub(super) struct Room {
    capacity: u64,
    used: u64,
}

impl Room {
    pub(super) fn new(capacity: u64) -> Self {
        Room { capacity, used: 0 }
    }

    /// The error "no space left" when `bytes` more do not fit.
    pub(super) fn check(&self, bytes: u64) -> Result<(), DiskError> {
        match self.used.saturating_add(bytes) > self.capacity {
            true => Err(error(DiskErrorKind::NoSpace, "no space left")),
            false => Ok(()),
        }
    }

    /// Takes `bytes` more. The caller has [checked](Room::check) that they fit.
    pub(super) fn take(&mut self, bytes: u64) {
        self.used += bytes;
    }

    /// Frees `bytes`.
    pub(super) fn give(&mut self, bytes: u64) {
        debug_assert!(bytes <= self.used, "no more is given back than was taken");
        self.used -= bytes;
    }
}
