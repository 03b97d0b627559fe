//! A hash over all events of a run. Two runs with the same hash are the same.

use crate::time::Instant;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// The running hash.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Trace(u64);

impl Trace {
    /// Adds an event at a host to the hash: its kind, its size, and a checksum or number that tells it from similar events.
    pub(super) fn note(&mut self, at: Instant, host: usize, kind: u8, length: usize, detail: u64) {
        let mut bytes = [0; 24];
        bytes[..8].copy_from_slice(&at.as_nanos().to_le_bytes());
        bytes[8..12].copy_from_slice(&(host as u32).to_le_bytes());
        bytes[12..16].copy_from_slice(&((length as u32) << 8 | u32::from(kind)).to_le_bytes());
        bytes[16..].copy_from_slice(&detail.to_le_bytes());
        self.0 = xxh3_64_with_seed(&bytes, self.0);
    }

    /// The hash so far.
    pub fn value(self) -> u64 {
        self.0
    }
}
