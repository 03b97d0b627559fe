//! Value records that this node keeps for others, because it is one of the closest to their keys.

use crate::id::{Distance, Key, NodeId};
use crate::time::{Duration, Instant};
use crate::wire::message::NotStored;
use crate::wire::record::Record;
use std::collections::BTreeMap;

/// The records of one node, ordered by the distance of their keys to the node.
pub(super) struct Values {
    own: NodeId,
    capacity: usize,
    records: BTreeMap<Distance, Kept>,
}

struct Kept {
    bytes: Box<[u8]>,
    sequence: u64,
    expires: Instant,
}

impl Values {
    /// A table of the node `own` with room for `capacity` records.
    pub(super) fn new(own: NodeId, capacity: usize) -> Self {
        Values { own, capacity, records: BTreeMap::new() }
    }

    /// Stores a record whose signature verifies. The highest sequence number wins. The same record again extends its life only if
    /// its publisher sent it (`first_hand`): otherwise other nodes could keep it alive for ever. When the table is full, a record
    /// whose key is farther from this node gives way.
    pub(super) fn store(&mut self, now: Instant, record: &Record<'_>, first_hand: bool) -> NotStored {
        let place = self.own.distance(&record.key());
        let expires = now + Duration::from_secs(u64::from(record.lifetime()));
        if let Some(kept) = self.records.get_mut(&place).filter(|kept| kept.expires > now) {
            if record.sequence() < kept.sequence {
                return NotStored::Older;
            }
            if record.sequence() == kept.sequence {
                // Two different records with one number are an error of the publisher: the first stays, at every node.
                if *kept.bytes != *record.bytes() {
                    return NotStored::Older;
                }
                if first_hand {
                    kept.expires = expires;
                }
                return NotStored::Nothing;
            }
        } else if !self.make_room(now, &place) {
            return NotStored::Full;
        }
        self.records
            .insert(place, Kept { bytes: record.bytes().into(), sequence: record.sequence(), expires });
        NotStored::Nothing
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
        self.records.retain(|_, kept| kept.expires > now);
    }

    fn make_room(&mut self, now: Instant, place: &Distance) -> bool {
        if self.records.len() < self.capacity || self.records.contains_key(place) {
            return true;
        }
        self.expire(now);
        if self.records.len() < self.capacity {
            return true;
        }
        match self.records.last_key_value() {
            Some((farthest, _)) if place < farthest => self.records.pop_last().is_some(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::wire::network::Network;
    use crate::wire::record::sign_record;

    fn record(name: &str, value: &[u8], lifetime: u32, sequence: u64) -> Vec<u8> {
        sign_record(&Network::new("test"), &Identity::from_secret(&[1; 32]), name, value, lifetime, sequence)
            .unwrap()
    }

    fn values(capacity: usize) -> Values {
        Values::new(NodeId([0; 32]), capacity)
    }

    #[test]
    fn the_higher_sequence_wins_and_an_expired_record_is_gone() {
        let mut values = values(8);
        let (first, second) = (record("a", b"1", 100, 1), record("a", b"2", 50, 2));
        let (first, second) = (Record::parse(&first).unwrap(), Record::parse(&second).unwrap());
        assert_eq!(values.store(Instant::ZERO, &second, false), NotStored::Nothing);
        assert_eq!(values.store(Instant::ZERO, &first, false), NotStored::Older);
        assert_eq!(values.get(Instant::from_secs(49), &first.key()), Some(second.bytes()));
        assert_eq!(values.get(Instant::from_secs(50), &first.key()), None);
        assert_eq!(values.store(Instant::from_secs(50), &first, false), NotStored::Nothing);
        values.expire(Instant::from_secs(150));
        assert_eq!(values.len(), 0);
    }

    #[test]
    fn only_the_publisher_extends_the_life_of_a_record() {
        let mut values = values(8);
        let bytes = record("a", b"1", 100, 1);
        let record = Record::parse(&bytes).unwrap();
        values.store(Instant::ZERO, &record, false);
        values.store(Instant::from_secs(90), &record, false);
        assert!(values.get(Instant::from_secs(100), &record.key()).is_none());
        values.store(Instant::from_secs(90), &record, true);
        assert!(values.get(Instant::from_secs(100), &record.key()).is_some());
    }

    #[test]
    fn a_full_table_takes_nearer_records_and_refuses_the_rest() {
        let mut values = values(2);
        let mut records: Vec<_> = (0..4).map(|i| record(&format!("n{i}"), b"", 100, 1)).collect();
        records.sort_by_key(|bytes| values.own.distance(&Record::parse(bytes).unwrap().key()));
        let store = |values: &mut Values, index: usize| {
            values.store(Instant::ZERO, &Record::parse(&records[index]).unwrap(), true)
        };
        assert_eq!(store(&mut values, 1), NotStored::Nothing);
        assert_eq!(store(&mut values, 2), NotStored::Nothing);
        assert_eq!(store(&mut values, 3), NotStored::Full);
        assert_eq!(store(&mut values, 0), NotStored::Nothing);
        assert!(values.get(Instant::ZERO, &Record::parse(&records[2]).unwrap().key()).is_none());
    }
}
