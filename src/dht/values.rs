//! Value records that this node keeps for others, because it is one of the closest to their keys. In a full table the holder of most
//! records gives way (see [`contest`](crate::peers::contest)).

use crate::id::{Distance, Key, NodeId};
use crate::peers::contest::{Holder, Holdings};
use crate::time::{Duration, Instant};
use crate::wire::message::NotStored;
use crate::wire::record::Record;
use core::cmp::Ordering;
use std::collections::BTreeMap;

/// The records of one node, ordered by the distance of their keys to the node.
pub(super) struct Values {
    own: NodeId,
    capacity: usize,
    records: BTreeMap<Distance, Kept>,
    holdings: Holdings<Distance>,
}

struct Kept {
    /// The node that stored it; the publisher as soon as it does so itself.
    holder: Holder,
    bytes: Box<[u8]>,
    sequence: u64,
    expires: Instant,
}

impl Values {
    /// A table of the node `own` with room for `capacity` records.
    pub(super) fn new(own: NodeId, capacity: usize) -> Self {
        Values { own, capacity, records: BTreeMap::new(), holdings: Holdings::default() }
    }

    /// Stores a record whose signature verifies, for the node `from`. The highest sequence number wins. The same record again extends
    /// its life only if its publisher sent it (`first_hand`): otherwise other nodes could keep it alive for ever.
    pub(super) fn store(
        &mut self,
        now: Instant,
        record: &Record<'_>,
        from: Holder,
        first_hand: bool,
    ) -> NotStored {
        let place = self.own.distance(&record.key());
        let expires = now + Duration::from_secs(u64::from(record.lifetime()));
        let mut holder = from;
        if let Some(kept) = self.records.get_mut(&place).filter(|kept| kept.expires > now) {
            if record.sequence() < kept.sequence {
                return NotStored::Older;
            }
            // Two different records with one number are an error of the publisher: the first stays, at every node.
            if record.sequence() == kept.sequence && *kept.bytes != *record.bytes() {
                return NotStored::Older;
            }
            if !first_hand {
                if record.sequence() == kept.sequence {
                    return NotStored::Nothing;
                }
                holder = kept.holder;
            }
        } else if !self.make_room(now, &place, from) {
            return NotStored::Full;
        }
        let kept = Kept { holder, bytes: record.bytes().into(), sequence: record.sequence(), expires };
        self.holdings.add(holder);
        if let Some(old) = self.records.insert(place, kept) {
            self.holdings.remove(&old.holder);
        }
        NotStored::Nothing
    }

    /// What [`store`](Values::store) would answer whether or not the signature verifies, because it would change nothing. `None` when
    /// it would take the record, so that the signature is worth checking.
    pub(super) fn outcome_unchecked(
        &mut self,
        now: Instant,
        record: &Record<'_>,
        from: Holder,
        first_hand: bool,
    ) -> Option<NotStored> {
        let place = self.own.distance(&record.key());
        if let Some(kept) = self.records.get(&place).filter(|kept| kept.expires > now) {
            let same = *kept.bytes == *record.bytes();
            return match record.sequence().cmp(&kept.sequence) {
                Ordering::Less => Some(NotStored::Older),
                Ordering::Equal if !same => Some(NotStored::Older),
                Ordering::Equal if !first_hand => Some(NotStored::Nothing),
                Ordering::Equal | Ordering::Greater => None,
            };
        }
        (!self.has_room(now, &place, from)).then_some(NotStored::Full)
    }

    /// The bytes of the record under `key`.
    pub(super) fn get(&self, now: Instant, key: &Key) -> Option<&[u8]> {
        let kept = self.records.get(&self.own.distance(key))?;
        (kept.expires > now).then_some(&kept.bytes[..])
    }

    /// The number of records.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Removes expired records.
    pub(super) fn expire(&mut self, now: Instant) {
        let holdings = &mut self.holdings;
        self.records.retain(|_, kept| {
            let stays = kept.expires > now;
            if !stays {
                holdings.remove(&kept.holder);
            }
            stays
        });
    }

    fn is_full_for(&self, place: &Distance) -> bool {
        self.records.len() >= self.capacity && !self.records.contains_key(place)
    }

    /// Whether [`make_room`](Values::make_room) would find a place for a record of the newcomer.
    fn has_room(&mut self, now: Instant, place: &Distance, newcomer: Holder) -> bool {
        if self.is_full_for(place) {
            self.expire(now);
        }
        let farthest_first = || self.records.iter().rev().map(|(place, kept)| (kept.holder, *place));
        !self.is_full_for(place) || self.holdings.finds_place(newcomer, place, farthest_first)
    }

    fn make_room(&mut self, now: Instant, place: &Distance, newcomer: Holder) -> bool {
        if self.is_full_for(place) {
            self.expire(now);
        }
        while self.is_full_for(place) {
            let farthest_first = || self.records.iter().rev().map(|(place, kept)| (kept.holder, *place));
            let Some(loser) = self.holdings.gives_way(newcomer, place, farthest_first) else { return false };
            if let Some(kept) = self.records.remove(&loser) {
                self.holdings.remove(&kept.holder);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::peers::party::Party;
    use crate::wire::network::Network;
    use crate::wire::record::sign_record;

    fn record(name: &str, value: &[u8], lifetime: u32, sequence: u64) -> Vec<u8> {
        sign_record(&Network::new("test"), &Identity::from_secret(&[1; 32]), name, value, lifetime, sequence)
            .unwrap()
    }

    /// A node at an address of its own.
    fn from(number: u8) -> Holder {
        Holder { party: Party::of([9, 9, number, 1].into()), identity: [number; 8] }
    }

    fn values(capacity: usize) -> Values {
        Values::new(NodeId([0; 32]), capacity)
    }

    #[test]
    fn the_higher_sequence_wins_until_its_record_expires() {
        let mut values = values(8);
        let (first, second) = (record("a", b"1", 100, 1), record("a", b"2", 50, 2));
        let (first, second) = (Record::parse(&first).unwrap(), Record::parse(&second).unwrap());
        assert_eq!(values.store(Instant::ZERO, &second, from(1), false), NotStored::Nothing);
        assert_eq!(values.store(Instant::ZERO, &first, from(1), false), NotStored::Older);
        assert_eq!(values.get(Instant::from_secs(49), &first.key()), Some(second.bytes()));
        assert_eq!(values.get(Instant::from_secs(50), &first.key()), None);
        assert_eq!(values.store(Instant::from_secs(50), &first, from(1), false), NotStored::Nothing);
        values.expire(Instant::from_secs(150));
        assert_eq!(values.len(), 0);
    }

    #[test]
    fn only_the_publisher_extends_the_life_of_a_record() {
        let mut values = values(8);
        let bytes = record("a", b"1", 100, 1);
        let record = Record::parse(&bytes).unwrap();
        values.store(Instant::ZERO, &record, from(1), false);
        values.store(Instant::from_secs(90), &record, from(1), false);
        assert!(values.get(Instant::from_secs(100), &record.key()).is_none());
        values.store(Instant::from_secs(90), &record, from(1), true);
        assert!(values.get(Instant::from_secs(100), &record.key()).is_some());
    }

    #[test]
    fn of_one_holder_a_full_table_keeps_the_nearest_records() {
        let mut values = values(2);
        let mut records: Vec<_> = (0..4).map(|i| record(&format!("n{i}"), b"", 100, 1)).collect();
        records.sort_by_key(|bytes| values.own.distance(&Record::parse(bytes).unwrap().key()));
        let store = |values: &mut Values, index: usize| {
            values.store(Instant::ZERO, &Record::parse(&records[index]).unwrap(), from(1), true)
        };
        assert_eq!(store(&mut values, 1), NotStored::Nothing);
        assert_eq!(store(&mut values, 2), NotStored::Nothing);
        assert_eq!(store(&mut values, 3), NotStored::Full);
        assert_eq!(store(&mut values, 0), NotStored::Nothing);
        assert!(values.get(Instant::ZERO, &Record::parse(&records[2]).unwrap().key()).is_none());
    }

    #[test]
    fn no_signature_is_worth_a_check_when_the_record_would_change_nothing() {
        let mut values = values(2);
        let mut records: Vec<_> = (0..3).map(|i| record(&format!("n{i}"), b"1", 100, 5)).collect();
        records.sort_by_key(|bytes| values.own.distance(&Record::parse(bytes).unwrap().key()));
        let parsed = |index: usize| Record::parse(&records[index]).unwrap();
        assert_eq!(
            values.outcome_unchecked(Instant::ZERO, &parsed(0), from(1), false),
            None,
            "there is room"
        );
        (0..2).for_each(|index| _ = values.store(Instant::ZERO, &parsed(index), from(1), false));
        let mut outcome = |record: &Record<'_>, holder, first| {
            values.outcome_unchecked(Instant::ZERO, record, holder, first)
        };
        assert_eq!(outcome(&parsed(0), from(1), false), Some(NotStored::Nothing), "the same again");
        assert_eq!(outcome(&parsed(0), from(1), true), None, "its publisher extends its life");
        assert_eq!(outcome(&parsed(2), from(1), false), Some(NotStored::Full), "farther than its own");
        assert_eq!(outcome(&parsed(2), from(7), false), None, "another party finds a place");
        let name = parsed(0).name().to_owned();
        let (older, other) = (record(&name, b"1", 100, 4), record(&name, b"2", 100, 5));
        for refused in [&older, &other] {
            let refused = outcome(&Record::parse(refused).unwrap(), from(1), true);
            assert_eq!(refused, Some(NotStored::Older));
        }
        assert_eq!(values.len(), 2, "asking changes nothing");
    }

    #[test]
    fn one_address_that_floods_a_full_table_displaces_only_its_own_records() {
        let mut values = values(64);
        let store = |values: &mut Values, name: String, holder: Holder| {
            let bytes = record(&name, b"", 100, 1);
            values.store(Instant::ZERO, &Record::parse(&bytes).unwrap(), holder, false);
            Record::parse(&bytes).unwrap().key()
        };
        let honest: Vec<Key> = (0..10).map(|n| store(&mut values, format!("honest {n}"), from(n))).collect();
        for n in 0..300 {
            let crowd = Holder { identity: [n as u8; 8], ..from(99) };
            store(&mut values, format!("flood {n}"), crowd);
        }
        assert!(honest.iter().all(|key| values.get(Instant::ZERO, key).is_some()));
        let late = store(&mut values, "late".to_owned(), from(20));
        assert!(values.get(Instant::ZERO, &late).is_some(), "the flood makes room");
        assert_eq!(values.len(), 64);
    }

    #[test]
    fn a_record_belongs_to_its_publisher_as_soon_as_the_publisher_stores_it() {
        let mut values = values(4);
        let bytes = record("a", b"1", 100, 1);
        let record_a = Record::parse(&bytes).unwrap();
        values.store(Instant::ZERO, &record_a, from(99), false);
        values.store(Instant::ZERO, &record_a, from(1), true);
        values.store(Instant::ZERO, &record_a, from(99), false);
        for n in 0..20 {
            let bytes = record(&format!("flood {n}"), b"", 100, 1);
            values.store(Instant::ZERO, &Record::parse(&bytes).unwrap(), from(99), false);
        }
        assert!(values.get(Instant::ZERO, &record_a.key()).is_some());
    }
}
