//! The agreement of a value lookup's answers: the record with the highest sequence number, and the nodes that hold it.
//!
//! A record's publisher stores it at the [`COPIES`] nodes closest to its key. When a [`MAJORITY`] of the closest nodes hold the
//! newest record, any newer record that the same nodes acknowledged to its publisher would have been among the answers (majority
//! quorums: Gifford, "Weighted voting for replicated data", 1979). So a lookup need not wait for the rest.

use super::placement::COPIES;
use crate::id::NodeId;
use crate::wire::record::Record;

/// The number of the [`COPIES`] closest nodes that must hold the newest record.
pub(super) const MAJORITY: usize = COPIES / 2 + 1;

/// How a record compares with the best one found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Compared {
    /// It would be the best: its signature must be verified.
    Newer,
    /// It is the best one, byte for byte, so its signature verifies.
    Same,
    /// It is older, or contradicts the best one under the same number.
    Other,
}

/// The best record of one lookup.
#[derive(Default)]
pub(super) struct Agreement {
    best: Option<(u64, Vec<u8>)>,
    holders: Vec<NodeId>,
}

impl Agreement {
    /// Compares a record with the best one.
    pub(super) fn compare(&self, record: &Record<'_>) -> Compared {
        match &self.best {
            None => Compared::Newer,
            Some((best, _)) if record.sequence() > *best => Compared::Newer,
            Some((_, bytes)) if record.bytes() == &bytes[..] => Compared::Same,
            Some(_) => Compared::Other,
        }
    }

    /// `holder` has a newer record, whose signature verifies.
    pub(super) fn supersede(&mut self, holder: NodeId, record: &Record<'_>) {
        self.best = Some((record.sequence(), record.bytes().to_vec()));
        self.holders.clear();
        self.holders.push(holder);
    }

    /// `holder` has the best record, too.
    pub(super) fn agree(&mut self, holder: NodeId) {
        if !self.holders.contains(&holder) {
            self.holders.push(holder);
        }
    }

    /// The sequence number of the best record.
    pub(super) fn sequence(&self) -> Option<u64> {
        self.best.as_ref().map(|(sequence, _)| *sequence)
    }

    /// The bytes of the best record.
    pub(super) fn into_record(self) -> Option<Vec<u8>> {
        self.best.map(|(_, bytes)| bytes)
    }

    /// Whether this node holds the best record.
    pub(super) fn is_held_by(&self, id: &NodeId) -> bool {
        self.holders.contains(id)
    }

    /// Whether a majority of the closest nodes hold the best record. `nearest` are living nodes, nearest to the key first.
    pub(super) fn is_settled<'a>(&self, nearest: impl Iterator<Item = &'a NodeId>) -> bool {
        self.holders.len() >= MAJORITY
            && nearest.take(COPIES).filter(|id| self.is_held_by(id)).count() >= MAJORITY
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::wire::network::Network;
    use crate::wire::record::sign_record;

    fn signed(value: &[u8], sequence: u64) -> Vec<u8> {
        let identity = Identity::from_secret(&[1; 32]);
        sign_record(&Network::new("test"), &identity, "name", value, 60, sequence).unwrap()
    }

    fn id(index: u8) -> NodeId {
        NodeId([index; 32])
    }

    /// What nodes 1, 2, … hold: the value's sequence number for each.
    fn answers(sequences: &[u64]) -> Agreement {
        let mut agreement = Agreement::default();
        for (index, &sequence) in sequences.iter().enumerate() {
            let bytes = signed(b"value", sequence);
            let (record, holder) = (Record::parse(&bytes).unwrap(), id(index as u8 + 1));
            match agreement.compare(&record) {
                Compared::Newer => agreement.supersede(holder, &record),
                Compared::Same => agreement.agree(holder),
                Compared::Other => {}
            }
        }
        agreement
    }

    fn settled(sequences: &[u64]) -> bool {
        let nearest: Vec<NodeId> = (1..=20).map(id).collect();
        answers(sequences).is_settled(nearest.iter())
    }

    #[test]
    fn five_of_the_eight_closest_settle_a_lookup_and_four_do_not() {
        assert!(!settled(&[3, 3, 3, 3]));
        assert!(settled(&[3, 3, 3, 3, 3]));
    }

    #[test]
    fn nodes_beyond_the_eight_closest_do_not_count() {
        let agreement = answers(&[3, 3, 3, 3, 3]);
        let nearest: Vec<NodeId> = (5..=20).chain(1..=4).map(id).collect();
        assert!(!agreement.is_settled(nearest.iter()));
    }

    #[test]
    fn a_newer_record_unsettles_what_older_ones_agreed_on() {
        assert!(!settled(&[3, 3, 3, 3, 3, 4]));
        assert_eq!(answers(&[3, 3, 3, 3, 3, 4]).sequence(), Some(4));
    }

    #[test]
    fn an_equal_record_is_known_by_its_bytes_and_another_one_of_its_number_does_not_count() {
        let agreement = answers(&[3]);
        let (same, other) = (signed(b"value", 3), signed(b"other", 3));
        assert_eq!(agreement.compare(&Record::parse(&same).unwrap()), Compared::Same);
        assert_eq!(agreement.compare(&Record::parse(&other).unwrap()), Compared::Other);
    }

    #[test]
    fn a_holder_that_answers_twice_counts_once() {
        let mut agreement = answers(&[3, 3, 3, 3]);
        agreement.agree(id(4));
        let nearest: Vec<NodeId> = (1..=8).map(id).collect();
        assert!(!agreement.is_settled(nearest.iter()));
    }
}
