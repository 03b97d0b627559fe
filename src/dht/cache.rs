//! Values found by lookups, cached for this node's own use. A cached value is not a replica: it is not served to other nodes.

use crate::id::Key;
use crate::time::{Duration, Instant};
use std::collections::BTreeMap;

/// The longest time for which a found value is used without another lookup.
const CACHED_FOR_MAX: Duration = Duration::from_secs(3600);
/// Cached values, of up to 1,072 bytes each.
const CACHED_MAX: usize = 128;

/// A bounded cache of value records.
#[derive(Default)]
pub(super) struct Cache {
    records: BTreeMap<Key, Cached>,
}

struct Cached {
    bytes: Vec<u8>,
    sequence: u64,
    expires: Instant,
}

impl Cache {
    /// Caches a verified record for its lifetime (`lifetime` seconds), but an hour at most, unless a newer one is cached.
    pub(super) fn insert(&mut self, now: Instant, key: Key, bytes: &[u8], sequence: u64, lifetime: u32) {
        if self.records.get(&key).is_some_and(|cached| cached.expires > now && cached.sequence > sequence) {
            return;
        }
        if self.records.len() >= CACHED_MAX && !self.records.contains_key(&key) {
            let first = self.records.iter().min_by_key(|(_, cached)| cached.expires).map(|(key, _)| *key);
            first.and_then(|first| self.records.remove(&first));
        }
        let expires = now + CACHED_FOR_MAX.min(Duration::from_secs(u64::from(lifetime)));
        self.records.insert(key, Cached { bytes: bytes.to_vec(), sequence, expires });
    }

    /// The record under `key`, until it expires.
    pub(super) fn get(&self, now: Instant, key: &Key) -> Option<&[u8]> {
        self.records.get(key).filter(|cached| cached.expires > now).map(|cached| &cached.bytes[..])
    }

    /// Removes expired records.
    pub(super) fn expire(&mut self, now: Instant) {
        self.records.retain(|_, cached| cached.expires > now);
    }

    /// Whether nothing is cached.
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_used_for_an_hour_or_its_lifetime() {
        let (mut cache, start) = (Cache::default(), Instant::ZERO);
        cache.insert(start, Key([1; 32]), b"a", 1, 10);
        cache.insert(start, Key([2; 32]), b"b", 1, 1_000_000);
        assert_eq!(cache.get(Instant::from_secs(9), &Key([1; 32])), Some(&b"a"[..]));
        assert_eq!(cache.get(Instant::from_secs(10), &Key([1; 32])), None);
        assert!(cache.get(Instant::from_secs(3599), &Key([2; 32])).is_some());
        assert!(cache.get(Instant::from_secs(3600), &Key([2; 32])).is_none());
        cache.insert(start, Key([2; 32]), b"older", 0, 100);
        assert_eq!(cache.get(start, &Key([2; 32])), Some(&b"b"[..]));
        cache.expire(Instant::from_secs(3600));
        assert!(cache.is_empty());
    }

    #[test]
    fn it_is_bounded() {
        let mut cache = Cache::default();
        for index in 0..=255 {
            cache.insert(Instant::ZERO, Key([index; 32]), b"x", 1, 100 + u32::from(index));
        }
        assert_eq!(cache.records.len(), CACHED_MAX);
    }
}
