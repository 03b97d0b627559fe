//! The frames of an audit: a node's report on its pieces, and on other copies that it knows of.

use super::piece::QuestionHead;
use super::{Body, Frame};
use crate::id::Key;
use crate::wire::Refused;
use crate::wire::inspect::{INSPECT_KEYS_MAX, WireInspectEntry};
use crate::wire::layout::exactly;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct InspectBody {
    head: QuestionHead,
    keys: [Key],
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct InspectedBody {
    head: QuestionHead,
    entries: [WireInspectEntry],
}

impl InspectBody {
    pub(super) fn write(out: &mut Vec<u8>, question: u32, keys: &[Key]) {
        out.extend_from_slice(QuestionHead::new(question).as_bytes());
        out.extend_from_slice(keys.as_bytes());
    }
}

impl Body for InspectBody {
    const BYTES_MAX: usize = size_of::<QuestionHead>() + INSPECT_KEYS_MAX * size_of::<Key>();

    fn parse(bytes: &[u8]) -> Result<Frame<'_>, Refused> {
        let body: &Self = exactly(bytes)?;
        Ok(Frame::Inspect { question: body.head.check()?, keys: &body.keys })
    }

    #[cfg(test)]
    fn examples() -> Vec<Frame<'static>> {
        let inspect = |keys| Frame::Inspect { question: 7, keys };
        vec![inspect(&[]), inspect(&[Key([1; 32])]), inspect(&[Key([1; 32]); INSPECT_KEYS_MAX])]
    }
}

impl InspectedBody {
    pub(super) fn write(out: &mut Vec<u8>, question: u32, entries: &[WireInspectEntry]) {
        out.extend_from_slice(QuestionHead::new(question).as_bytes());
        out.extend_from_slice(entries.as_bytes());
    }
}

impl Body for InspectedBody {
    const BYTES_MAX: usize = size_of::<QuestionHead>() + INSPECT_KEYS_MAX * size_of::<WireInspectEntry>();

    fn parse(bytes: &[u8]) -> Result<Frame<'_>, Refused> {
        let body: &Self = exactly(bytes)?;
        let question = body.head.check()?;
        if body.entries.iter().any(|entry| entry.get().is_none()) {
            return Err(Refused::Value);
        }
        Ok(Frame::Inspected { question, entries: &body.entries })
    }

    #[cfg(test)]
    fn examples() -> Vec<Frame<'static>> {
        use crate::wire::inspect::{Held, InspectEntry, RepairPhase};
        let entry =
            InspectEntry { held: Held::Stored, replicas: 3, live: 2, phase: RepairPhase::Waiting, since: 61 };
        let entries = [InspectEntry::default(), entry].repeat(INSPECT_KEYS_MAX / 2);
        let entries: Vec<_> = entries.iter().map(WireInspectEntry::new).collect();
        let entries = entries.leak();
        let inspected = |entries| Frame::Inspected { question: 7, entries };
        vec![inspected(&entries[..0]), inspected(&entries[..3]), inspected(entries)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::with_byte;
    use super::*;

    #[test]
    fn an_entry_with_an_invalid_value_is_refused() {
        let example = InspectedBody::examples()[1];
        // The first entry is for a piece that the node does not have: all its bytes are zero.
        for at in 8..16 {
            assert_eq!(with_byte(&example, at, 4), Err(Refused::Value), "byte {at}");
        }
    }

    #[test]
    fn a_reserved_byte_of_a_question_or_an_answer_is_refused() {
        for frame in [InspectBody::examples(), InspectedBody::examples()].concat() {
            assert_eq!(with_byte(&frame, 7, 1), Err(Refused::Reserved), "{frame:?}");
        }
    }
}
