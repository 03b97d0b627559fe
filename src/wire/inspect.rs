//! A node's report on its copies of pieces, for an audit.

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The most keys in one inspection.
pub const INSPECT_KEYS_MAX: usize = 64;

/// Whether a node has a piece, and how.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[repr(u8)]
pub enum Held {
    /// It does not have the piece.
    #[default]
    Nothing = 0,
    /// The piece is stored and synced.
    Stored = 1,
    /// The piece is part of a file that a user shares there.
    Shared = 2,
    /// The piece is in a cache or a downloaded file. It may be evicted or changed at any time and does not count as a copy.
    Cached = 3,
}

impl Held {
    fn from_number(number: u8) -> Option<Self> {
        [Held::Nothing, Held::Stored, Held::Shared, Held::Cached]
            .into_iter()
            .find(|held| *held as u8 == number)
    }

    /// Whether it counts as a copy.
    pub fn is_durable(self) -> bool {
        matches!(self, Held::Stored | Held::Shared)
    }
}

/// The state of a holder's repair of a piece.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[repr(u8)]
pub enum RepairPhase {
    /// The holder knows of no missing copy.
    #[default]
    Whole = 0,
    /// Copies are missing. The holder waits for other holders to return or to copy.
    Waiting = 1,
    /// The holder is making a copy.
    Copying = 2,
    /// The holder suspects that it is partitioned, and makes no copies.
    CutOff = 3,
}

impl RepairPhase {
    fn from_number(number: u8) -> Option<Self> {
        use RepairPhase::*;
        [Whole, Waiting, Copying, CutOff].into_iter().find(|phase| *phase as u8 == number)
    }
}

/// A node's report on one piece. When it does not have the piece, all other fields are zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct InspectEntry {
    /// Whether it has the piece.
    pub held: Held,
    /// The number of copies asked for, as far as the node knows; 0 when the piece is only shared.
    pub replicas: u8,
    /// The live copies that it knows of, its own included; 0 when unknown.
    pub live: u8,
    /// The state of its repair.
    pub phase: RepairPhase,
    /// The seconds that the repair has been in this state; 0 when unknown.
    pub since: u32,
}

/// An [`InspectEntry`] on the wire: 8 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct WireInspectEntry {
    held: u8,
    replicas: u8,
    live: u8,
    phase: u8,
    since: U32,
}

const _: () = assert!(size_of::<WireInspectEntry>() == 8);

impl WireInspectEntry {
    /// The entry in its wire form.
    pub fn new(entry: &InspectEntry) -> Self {
        let InspectEntry { held, replicas, live, phase, since } = *entry;
        WireInspectEntry { held: held as u8, replicas, live, phase: phase as u8, since: U32::new(since) }
    }

    /// The entry; `None` when its values are not allowed.
    pub fn get(&self) -> Option<InspectEntry> {
        let held = Held::from_number(self.held)?;
        let phase = RepairPhase::from_number(self.phase)?;
        let entry =
            InspectEntry { held, replicas: self.replicas, live: self.live, phase, since: self.since.get() };
        (held != Held::Nothing || entry == InspectEntry::default()).then_some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_survives_encoding() {
        for held in [Held::Stored, Held::Shared, Held::Cached] {
            for phase in [RepairPhase::Whole, RepairPhase::Waiting, RepairPhase::Copying, RepairPhase::CutOff]
            {
                let entry = InspectEntry { held, replicas: 3, live: 2, phase, since: u32::MAX };
                assert_eq!(WireInspectEntry::new(&entry).get(), Some(entry));
            }
        }
        let nothing = InspectEntry::default();
        assert_eq!(WireInspectEntry::new(&nothing).get(), Some(nothing));
    }

    #[test]
    fn an_entry_with_an_invalid_value_is_refused() {
        for wrong in [
            [4, 0, 0, 0, 0, 0, 0, 0],
            [1, 3, 1, 4, 0, 0, 0, 0],
            [0, 3, 0, 0, 0, 0, 0, 0],
            [0, 0, 0, 0, 1, 0, 0, 0],
        ] {
            assert_eq!(WireInspectEntry::read_from_bytes(&wrong).unwrap().get(), None, "{wrong:?}");
        }
    }
}
