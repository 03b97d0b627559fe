//! Provider records that this node keeps for others, because it is one of the closest to the files' hashes. In a full table, and among
//! the providers of a file that has as many as it may, the holder of most records gives way (see [`contest`](crate::peers::contest)).

use crate::id::{Distance, Key, NodeId, PublicKey};
use crate::peers::contest::{Holder, Holdings, gives_way};
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
    holdings: Holdings<(Distance, PublicKey)>,
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
    /// The provider, at the address that it last announced from.
    holder: Holder,
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
            holdings: Holdings::default(),
            length: 0,
            first_expiry: None,
            look_again_at: Instant::ZERO,
        }
    }

    /// What [`store`](Providers::store) would answer whether or not the signature verifies, because it would change nothing. `None`
    /// when it would take the record, so that the signature is worth checking.
    pub(super) fn outcome_unchecked(
        &mut self,
        now: Instant,
        file: &Key,
        record: &ProviderRecord,
        holder: Holder,
    ) -> Option<NotStored> {
        let place = self.own.distance(file);
        let kept = self.files.get(&place).map_or(&[][..], |kept| &kept[..]);
        if let Some(known) = kept.iter().find(|kept| kept.record.provider() == record.provider()) {
            let (new, old) = (record.sequence(), known.record.sequence());
            return match known.expires > now {
                true if new < old => Some(NotStored::Older),
                true if new == old => Some(NotStored::Nothing),
                _ => None,
            };
        }
        if record.lifetime() == 0 {
            return Some(NotStored::Nothing);
        }
        let expires = now + Duration::from_secs(u64::from(record.lifetime()));
        let newcomer = Kept { record: *record, expires, holder };
        (!self.has_room(now, &place, &newcomer)).then_some(NotStored::Full)
    }

    /// Stores a record that came from its provider, `holder`, and whose signature verifies. The highest sequence number wins; the same
    /// record again changes nothing.
    pub(super) fn store(
        &mut self,
        now: Instant,
        file: &Key,
        record: &ProviderRecord,
        holder: Holder,
    ) -> NotStored {
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
                self.holdings.add(holder);
                self.holdings.remove(&known.holder);
                *known = Kept { record: *record, expires, holder };
                self.first_expiry = earliest(self.first_expiry, Some(expires));
            }
            return NotStored::Nothing;
        }
        if record.lifetime() == 0 {
            return NotStored::Nothing;
        }
        let newcomer = Kept { record: *record, expires, holder };
        if !self.make_room(now, &place, &newcomer) {
            return NotStored::Full;
        }
        self.files.entry(place).or_insert_with(|| Vec::with_capacity(1)).push(newcomer);
        self.holdings.add(holder);
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
        let holdings = &mut self.holdings;
        self.files.retain(|_, kept| {
            kept.iter().filter(|kept| kept.expires <= now).for_each(|kept| holdings.remove(&kept.holder));
            kept.retain(|kept| kept.expires > now);
            !kept.is_empty()
        });
        self.length = self.files.values().map(Vec::len).sum();
        self.first_expiry = self.files.values().flatten().map(|kept| kept.expires).min();
        self.look_again_at = now + EXPIRE_PAUSE;
    }

    fn of_file(&self, place: &Distance) -> usize {
        self.files.get(place).map_or(0, Vec::len)
    }

    /// Removes expired records if a new one for this file would find no place otherwise.
    fn expire_for(&mut self, now: Instant, place: &Distance) {
        let full = self.of_file(place) >= self.per_file || self.length >= self.capacity;
        let looks = self.look_again_at <= now && self.first_expiry.is_some_and(|at| at <= now);
        if full && looks {
            self.expire(now);
        }
    }

    /// Whether [`make_room`](Providers::make_room) would find a place for the newcomer.
    fn has_room(&mut self, now: Instant, place: &Distance, newcomer: &Kept) -> bool {
        self.expire_for(now, place);
        if self.of_file(place) >= self.per_file {
            // The place of another record of the same file.
            return self.loser_in_file(place, newcomer).is_some();
        }
        let wanted = (*place, newcomer.record.provider());
        let Providers { files, holdings, .. } = self;
        self.length < self.capacity
            || holdings.finds_place(newcomer.holder, &wanted, || farthest_first(files))
    }

    fn make_room(&mut self, now: Instant, place: &Distance, newcomer: &Kept) -> bool {
        self.expire_for(now, place);
        if self.of_file(place) >= self.per_file && !self.make_room_in_file(place, newcomer) {
            return false;
        }
        while self.length >= self.capacity {
            let wanted = (*place, newcomer.record.provider());
            let farthest_first = || farthest_first(&self.files);
            let Some(loser) = self.holdings.gives_way(newcomer.holder, &wanted, farthest_first) else {
                return false;
            };
            self.remove(&loser);
        }
        true
    }

    /// Makes room among the providers of one file.
    fn make_room_in_file(&mut self, place: &Distance, newcomer: &Kept) -> bool {
        match self.loser_in_file(place, newcomer) {
            Some(loser) => self.remove(&(*place, loser)),
            None => false,
        }
    }

    /// The provider of one file that gives way to a newcomer. Of those that hold the same, the one that expires first gives way.
    fn loser_in_file(&self, place: &Distance, newcomer: &Kept) -> Option<PublicKey> {
        let kept = self.files.get(place)?;
        let entries: Vec<(Holder, Instant)> =
            kept.iter().chain([newcomer]).map(|kept| (kept.holder, kept.expires)).collect();
        let loser = gives_way(&entries).and_then(|loser| kept.get(loser));
        loser.map(|loser| loser.record.provider())
    }

    fn remove(&mut self, (place, provider): &(Distance, PublicKey)) -> bool {
        let Some(kept) = self.files.get_mut(place) else { return false };
        let Some(index) = kept.iter().position(|kept| kept.record.provider() == *provider) else {
            return false;
        };
        let removed = kept.swap_remove(index);
        if kept.is_empty() {
            self.files.remove(place);
        }
        self.holdings.remove(&removed.holder);
        self.length -= 1;
        true
    }
}

/// The places of all records with their holders, those of the files farthest from this node first.
fn farthest_first(
    files: &BTreeMap<Distance, Vec<Kept>>,
) -> impl Iterator<Item = (Holder, (Distance, PublicKey))> + '_ {
    files
        .iter()
        .rev()
        .flat_map(|(place, kept)| kept.iter().map(|kept| (kept.holder, (*place, kept.record.provider()))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::peers::party::Party;
    use crate::wire::network::Network;
    use zerocopy::FromZeros;

    fn record(provider: u8, file: &Key, lifetime: u32, sequence: u64) -> ProviderRecord {
        let addr = ([127, 0, 0, 1], 1000 + u16::from(provider)).into();
        let identity = Identity::from_secret(&[provider; 32]);
        ProviderRecord::new(&Network::new("test"), &identity, file, addr, false, lifetime, sequence)
    }

    /// A provider at an address of its own.
    fn at(number: u8) -> Holder {
        Holder { party: Party::of([9, 9, number, 1].into()), identity: [number; 8] }
    }

    fn providers(capacity: usize, per_file: usize) -> Providers {
        Providers::new(NodeId([0; 32]), capacity, per_file)
    }

    const FILE: Key = Key([5; 32]);

    #[test]
    fn a_withdrawn_record_cannot_be_stored_again_until_it_would_have_expired() {
        let mut providers = providers(8, 8);
        providers.store(Instant::ZERO, &FILE, &record(1, &FILE, 100, 1), at(1));
        assert_eq!(providers.of(Instant::ZERO, &FILE).count(), 1);
        providers.store(Instant::ZERO, &FILE, &record(1, &FILE, 0, 2), at(1));
        assert_eq!(providers.of(Instant::ZERO, &FILE).count(), 0);
        assert_eq!(providers.store(Instant::ZERO, &FILE, &record(1, &FILE, 100, 1), at(1)), NotStored::Older);
        providers.expire(Instant::from_secs(100));
        assert_eq!(providers.len(), 0);
    }

    #[test]
    fn storing_the_same_record_again_does_not_extend_its_life() {
        let mut providers = providers(8, 8);
        let record = record(1, &FILE, 100, 1);
        providers.store(Instant::ZERO, &FILE, &record, at(1));
        assert_eq!(providers.store(Instant::from_secs(99), &FILE, &record, at(1)), NotStored::Nothing);
        assert_eq!(providers.of(Instant::from_secs(100), &FILE).count(), 0);
    }

    /// A file that is nearer to this node the smaller its number is.
    fn file(number: u16) -> Key {
        let mut key = Key([0; 32]);
        key.0[..2].copy_from_slice(&number.to_be_bytes());
        key
    }

    #[test]
    fn both_caps_hold() {
        let mut providers = providers(6, 2);
        for number in 0..10 {
            for provider in 1..4 {
                let record = record(provider, &file(number), 100, 1);
                providers.store(Instant::ZERO, &file(number), &record, at(provider));
            }
        }
        assert_eq!(providers.len(), 6);
        assert!((0..10).all(|number| providers.of(Instant::ZERO, &file(number)).count() <= 2));
    }

    #[test]
    fn of_one_holder_a_full_table_keeps_the_nearest_files() {
        let mut providers = providers(4, 2);
        for number in [9, 5, 7, 3, 8, 1, 2] {
            providers.store(Instant::ZERO, &file(number), &record(1, &file(number), 100, 1), at(1));
        }
        let kept = |number: &u16| providers.of(Instant::ZERO, &file(*number)).count() == 1;
        assert_eq!((0..10).filter(kept).collect::<Vec<_>>(), [1, 2, 3, 5]);
    }

    #[test]
    fn one_address_that_floods_a_full_table_displaces_only_its_own_records() {
        let mut providers = providers(512, 8);
        for number in 0..20 {
            let far = file(60_000 + number);
            providers.store(Instant::ZERO, &far, &record(1, &far, 100, 1), at(number as u8));
        }
        for number in 0..2000 {
            let record = record(2 + (number % 50) as u8, &file(number), 100, 1);
            let crowd = Holder { identity: [number as u8 % 50; 8], ..at(200) };
            providers.store(Instant::ZERO, &file(number), &record, crowd);
        }
        assert!((0..20).all(|number| providers.of(Instant::ZERO, &file(60_000 + number)).count() == 1));
        assert_eq!(providers.len(), 512);
        let late = file(61_000);
        let stored = providers.store(Instant::ZERO, &late, &record(1, &late, 100, 1), at(100));
        assert_eq!(stored, NotStored::Nothing, "the flood makes room");
    }

    #[test]
    fn one_address_that_floods_a_file_with_providers_does_not_displace_the_others() {
        let mut providers = providers(512, 8);
        let crowd = |identity: u8| Holder { identity: [identity; 8], ..at(200) };
        (1..20).for_each(|number| {
            providers.store(Instant::ZERO, &FILE, &record(number, &FILE, 1000, 1), crowd(number));
        });
        let honest = |number: u8| (record(number, &FILE, 100, 1), at(number));
        for number in 20..24 {
            let (record, holder) = honest(number);
            assert_eq!(providers.store(Instant::ZERO, &FILE, &record, holder), NotStored::Nothing);
        }
        (30..60).for_each(|number| {
            providers.store(Instant::ZERO, &FILE, &record(number, &FILE, 1000, 1), crowd(number));
        });
        let named: Vec<PublicKey> =
            providers.of(Instant::ZERO, &FILE).map(ProviderRecord::provider).collect();
        assert_eq!(named.len(), 8);
        assert!((20..24).all(|number| named.contains(&honest(number).0.provider())));
    }

    #[test]
    fn no_signature_is_worth_a_check_when_the_record_would_change_nothing() {
        let mut providers = providers(4, 2);
        let now = Instant::ZERO;
        let outcome = |providers: &mut Providers, file: u16, lifetime, sequence, holder| {
            providers.outcome_unchecked(
                now,
                &self::file(file),
                &record(1, &self::file(file), lifetime, sequence),
                holder,
            )
        };
        assert_eq!(outcome(&mut providers, 3, 100, 5, at(1)), None, "there is room");
        assert_eq!(outcome(&mut providers, 3, 0, 5, at(1)), Some(NotStored::Nothing), "nothing to withdraw");
        for number in [3, 1, 2, 4] {
            providers.store(now, &file(number), &record(1, &file(number), 100, 5), at(1));
        }
        assert_eq!(outcome(&mut providers, 3, 100, 4, at(1)), Some(NotStored::Older));
        assert_eq!(outcome(&mut providers, 3, 100, 5, at(1)), Some(NotStored::Nothing), "the same again");
        assert_eq!(outcome(&mut providers, 3, 100, 6, at(1)), None);
        assert_eq!(outcome(&mut providers, 9, 100, 5, at(1)), Some(NotStored::Full), "farther than its own");
        assert_eq!(outcome(&mut providers, 9, 100, 5, at(7)), None, "another party finds a place");
        assert_eq!(providers.len(), 4, "asking changes nothing");
    }

    #[test]
    fn an_expired_record_holds_nothing() {
        let mut providers = providers(4, 4);
        (1..4).for_each(|n| _ = providers.store(Instant::ZERO, &FILE, &record(n, &FILE, 10, 1), at(1)));
        providers.expire(Instant::from_secs(11));
        let late = Instant::from_secs(12);
        (4..9).for_each(|n| _ = providers.store(late, &FILE, &record(n, &FILE, 10, 1), at(n)));
        assert_eq!(providers.len(), 4);
    }

    #[test]
    fn answers_name_different_providers_and_all_in_time() {
        let mut providers = providers(64, 64);
        for provider in 1..=12 {
            providers.store(Instant::ZERO, &FILE, &record(provider, &FILE, 100, 1), at(provider));
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
