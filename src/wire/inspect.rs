//! What a node says of its copy of a piece when somebody asks how safe that is.

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The most keys in one inspection.
pub const INSPECT_KEYS_MAX: usize = 64;

/// What a node has of a piece.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[repr(u8)]
pub enum Held {
    /// Nothing.
    #[default]
    Nothing = 0,
    /// It is stored, and synced.
    Stored = 1,
    /// It is part of a file that was put in there, and is served from where that lies.
    Shared = 2,
    /// It was fetched: it may be evicted or changed at any time, and is no copy to count on.
    Cached = 3,
}

impl Held {
    fn from_number(number: u8) -> Option<Self> {
        [Held::Nothing, Held::Stored, Held::Shared, Held::Cached]
            .into_iter()
            .find(|held| *held as u8 == number)
    }

    /// Whether it is a copy to count on.
    pub fn is_durable(self) -> bool {
        matches!(self, Held::Stored | Held::Shared)
    }
}

/// What a holder does about the copies of a piece.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[repr(u8)]
pub enum RepairPhase {
    /// Nothing is missing, as far as is known there.
    #[default]
    Whole = 0,
    /// Copies are missing, and it waits whether holders come back or another makes them.
    Waiting = 1,
    /// It is making a copy.
    Copying = 2,
    /// It takes itself for cut off, and makes no copies.
    CutOff = 3,
}

impl RepairPhase {
    fn from_number(number: u8) -> Option<Self> {
        use RepairPhase::*;
        [Whole, Waiting, Copying, CutOff].into_iter().find(|phase| *phase as u8 == number)
    }
}

/// What a node says of one piece. Where nothing is held, everything else is zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct InspectEntry {
    /// What it has.
    pub held: Held,
    /// How many nodes are to keep the piece, as far as is known there; 0 when it is only shared.
    pub replicas: u8,
    /// Live copies that it knows of, its own included; 0 when it has not found out.
    pub live: u8,
    /// What it does about them.
    pub phase: RepairPhase,
    /// For how many seconds it has been doing that; 0 when it does not know.
    pub since: u32,
}

/// An [`InspectEntry`] as it is carried: 8 bytes.
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
    /// The carried form.
    pub fn new(entry: &InspectEntry) -> Self {
        let InspectEntry { held, replicas, live, phase, since } = *entry;
        WireInspectEntry { held: held as u8, replicas, live, phase: phase as u8, since: U32::new(since) }
    }

    /// The entry; `None` when no node would say so.
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
    fn every_entry_comes_back_and_what_no_node_would_say_does_not() {
        for held in [Held::Stored, Held::Shared, Held::Cached] {
            for phase in [RepairPhase::Whole, RepairPhase::Waiting, RepairPhase::Copying, RepairPhase::CutOff]
            {
                let entry = InspectEntry { held, replicas: 3, live: 2, phase, since: u32::MAX };
                assert_eq!(WireInspectEntry::new(&entry).get(), Some(entry));
            }
        }
        let nothing = InspectEntry::default();
        assert_eq!(WireInspectEntry::new(&nothing).get(), Some(nothing));
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
