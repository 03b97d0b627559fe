//! Provider records that this node keeps for others, because it is one of the closest to the files' hashes.

use crate::id::{Distance, Key, NodeId};
use crate::rng::Rng;
use crate::time::{Duration, Instant, earliest};
use crate::wire::message::NotStored;
use crate::wire::provider::ProviderRecord;
use std::collections::BTreeMap;

/// Providers in one answer.
pub(super) const PROVIDERS_ANSWERED_MAX: usize = 4;

/// The least time between two searches for expired records while the table is full.
const EXPIRE_PAUSE: Duration = Duration::from_secs(1);

/// The records of one node. Files are ordered by their distance to the node.
pub(super) struct Providers {
    own: NodeId,
    capacity: usize,
    per_file: usize,
    files: BTreeMap<Distance, Vec<Kept>>,
    length: usize,
    /// No record expires before this instant, so no search is needed until then.
    first_expiry: Option<Instant>,
    /// The earliest time of the next search for expired records. Otherwise a full table whose records expire one after the other
    /// would be searched for every new one.
    look_again_at: Instant,
}

struct Kept {
    /// A withdrawal (lifetime zero) is kept until the withdrawn record would have expired, so that no node can store that record
    /// again.
    record: ProviderRecord,
    expires: Instant,
}

impl Kept {
    fn serves(&self, now: Instant) -> bool {
        self.expires > now && self.record.lifetime() > 0
    }
}

impl Providers {
    /// A table of the node `own` with room for `capacity` records, and `per_file` for each file.
    pub(super) fn new(own: NodeId, capacity: usize, per_file: usize) -> Self {
        Providers {
            own,
            capacity,
            per_file,
            files: BTreeMap::new(),
            length: 0,
            first_expiry: None,
            look_again_at: Instant::ZERO,
        }
    }

    /// Why [`store`](Providers::store) would refuse the record, apart from its signature. `None` when it would take the record, so
    /// that the signature is worth checking.
    pub(super) fn refuses(&self, now: Instant, file: &Key, record: &ProviderRecord) -> Option<NotStored> {
        let kept = self.files.get(&self.own.distance(file))?;
        let known = kept.iter().find(|kept| kept.record.provider() == record.provider())?;
        (known.expires > now && record.sequence() < known.record.sequence()).then_some(NotStored::Older)
    }

    /// Stores a record that came from its provider and whose signature verifies. The highest sequence number wins; the same record
    /// again changes nothing. When the table is full, a record of a file farther from this node gives way.
    pub(super) fn store(&mut self, now: Instant, file: &Key, record: &ProviderRecord) -> NotStored {
        let place = self.own.distance(file);
        let expires = now + Duration::from_secs(u64::from(record.lifetime()));
        let known = self
            .files
            .get_mut(&place)
            .and_then(|kept| kept.iter_mut().find(|kept| kept.record.provider() == record.provider()));
        if let Some(known) = known {
            if known.expires > now && record.sequence() < known.record.sequence() {
                return NotStored::Older;
            }
            if record.sequence() != known.record.sequence() || known.expires <= now {
                let expires = if record.lifetime() == 0 { known.expires } else { expires };
                *known = Kept { record: *record, expires };
                self.first_expiry = earliest(self.first_expiry, Some(expires));
            }
            return NotStored::Nothing;
        }
        if record.lifetime() == 0 {
            return NotStored::Nothing;
        }
        if !self.make_room(now, &place) {
            return NotStored::Full;
        }
        let kept = self.files.entry(place).or_insert_with(|| Vec::with_capacity(1));
        kept.push(Kept { record: *record, expires });
        self.length += 1;
        self.first_expiry = earliest(self.first_expiry, Some(expires));
        NotStored::Nothing
    }

    /// Fills `out` with providers of `file`, a random sample if there are more. Returns their number.
    pub(super) fn sample(
        &self,
        now: Instant,
        file: &Key,
        rng: &mut Rng,
        out: &mut [ProviderRecord],
    ) -> usize {
        let Some(kept) = self.files.get(&self.own.distance(file)) else { return 0 };
        let mut seen = 0;
        // Reservoir sampling: the i-th record replaces a sampled one with probability places / i.
        for record in kept.iter().filter(|kept| kept.serves(now)).map(|kept| kept.record) {
            let place = if seen < out.len() { seen } else { rng.below(seen as u64 + 1) as usize };
            if let Some(place) = out.get_mut(place) {
                *place = record;
            }
            seen += 1;
        }
        seen.min(out.len())
    }

    /// All providers of `file`.
    pub(super) fn of(&self, now: Instant, file: &Key) -> impl Iterator<Item = &ProviderRecord> {
        let kept = self.files.get(&self.own.distance(file)).map_or(&[][..], |kept| &kept[..]);
        kept.iter().filter(move |kept| kept.serves(now)).map(|kept| &kept.record)
    }

    /// The number of records.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Removes expired records.
    pub(super) fn expire(&mut self, now: Instant) {
        self.files.retain(|_, kept| {
            kept.retain(|kept| kept.expires > now);
            !kept.is_empty()
        });
        self.length = self.files.values().map(Vec::len).sum();
        self.first_expiry = self.files.values().flatten().map(|kept| kept.expires).min();
        self.look_again_at = now + EXPIRE_PAUSE;
    }

    fn make_room(&mut self, now: Instant, place: &Distance) -> bool {
        let fits = |providers: &Self| {
            let of_file = providers.files.get(place).map_or(0, Vec::len);
            (of_file < providers.per_file, providers.length < providers.capacity)
        };
        let looks = self.look_again_at <= now && self.first_expiry.is_some_and(|at| at <= now);
        if fits(self) != (true, true) && looks {
            self.expire(now);
        }
        match fits(self) {
            (true, true) => true,
            (true, false) => {
                let Some(mut farthest) = self.files.last_entry() else { return false };
                if farthest.key() <= place {
                    return false;
                }
                // Of the farthest file's records, the one that expires first.
                let kept = farthest.get_mut();
                let first =
                    kept.iter().enumerate().min_by_key(|(_, kept)| kept.expires).map(|(index, _)| index);
                first.map(|index| kept.swap_remove(index));
                if kept.is_empty() {
                    farthest.remove();
                }
                self.length -= 1;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::wire::network::Network;
    use zerocopy::FromZeros;

    fn record(provider: u8, file: &Key, lifetime: u32, sequence: u64) -> ProviderRecord {
        let addr = ([127, 0, 0, 1], 1000 + u16::from(provider)).into();
        let identity = Identity::from_secret(&[provider; 32]);
        ProviderRecord::new(&Network::new("test"), &identity, file, addr, false, lifetime, sequence)
    }

    fn providers(capacity: usize, per_file: usize) -> Providers {
        Providers::new(NodeId([0; 32]), capacity, per_file)
    }

    const FILE: Key = Key([5; 32]);

    #[test]
    fn a_withdrawn_record_cannot_be_stored_again_until_it_would_have_expired() {
        let mut providers = providers(8, 8);
        providers.store(Instant::ZERO, &FILE, &record(1, &FILE, 100, 1));
        assert_eq!(providers.of(Instant::ZERO, &FILE).count(), 1);
        providers.store(Instant::ZERO, &FILE, &record(1, &FILE, 0, 2));
        assert_eq!(providers.of(Instant::ZERO, &FILE).count(), 0);
        assert_eq!(providers.store(Instant::ZERO, &FILE, &record(1, &FILE, 100, 1)), NotStored::Older);
        providers.expire(Instant::from_secs(100));
        assert_eq!(providers.len(), 0);
    }

    #[test]
    fn storing_the_same_record_again_does_not_extend_its_life() {
        let mut providers = providers(8, 8);
        let record = record(1, &FILE, 100, 1);
        providers.store(Instant::ZERO, &FILE, &record);
        assert_eq!(providers.store(Instant::from_secs(99), &FILE, &record), NotStored::Nothing);
        assert_eq!(providers.of(Instant::from_secs(100), &FILE).count(), 0);
    }

    #[test]
    fn both_caps_hold_and_a_nearer_file_makes_room() {
        let mut providers = providers(3, 2);
        for provider in 1..4 {
            providers.store(Instant::ZERO, &FILE, &record(provider, &FILE, 100, 1));
        }
        assert_eq!(providers.len(), 2);
        let (near, far) = (Key([1; 32]), Key([9; 32]));
        assert_eq!(providers.store(Instant::ZERO, &far, &record(1, &far, 100, 1)), NotStored::Nothing);
        assert_eq!(providers.store(Instant::ZERO, &far, &record(2, &far, 100, 1)), NotStored::Full);
        assert_eq!(providers.store(Instant::ZERO, &near, &record(1, &near, 100, 1)), NotStored::Nothing);
        assert_eq!((providers.len(), providers.of(Instant::ZERO, &far).count()), (3, 0));
    }

    #[test]
    fn answers_name_different_providers_and_all_in_time() {
        let mut providers = providers(64, 64);
        for provider in 1..=12 {
            providers.store(Instant::ZERO, &FILE, &record(provider, &FILE, 100, 1));
        }
        let (mut rng, mut seen) = (Rng::new([1; 32]), std::collections::BTreeSet::new());
        for _ in 0..100 {
            let mut out: [ProviderRecord; PROVIDERS_ANSWERED_MAX] =
                core::array::from_fn(|_| ProviderRecord::new_zeroed());
            assert_eq!(providers.sample(Instant::ZERO, &FILE, &mut rng, &mut out), out.len());
            let names: std::collections::BTreeSet<_> = out.iter().map(|record| record.provider()).collect();
            assert_eq!(names.len(), out.len());
            seen.extend(names);
        }
        assert_eq!(seen.len(), 12);
    }
}
