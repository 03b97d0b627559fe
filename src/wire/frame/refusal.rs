//! The refusal of a request for a piece, or of an offer of one.

use super::{Body, Frame};
use crate::wire::Refused;
use crate::wire::layout::exactly;
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Why a request or an offer is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Refusal {
    /// The node does not have the piece.
    NotFound = 1,
    /// The node is at a limit of concurrent work. A later attempt may succeed.
    Busy = 2,
    /// The disk is full, or the quota is used up.
    NoSpace = 3,
    /// Too many nodes are closer to the key.
    NotClose = 4,
    /// No piece has the length or the offset of the offer.
    Invalid = 5,
    /// The disk failed.
    Disk = 6,
    /// The content that arrived does not match the offer.
    Mismatch = 7,
}

impl Refusal {
    const ALL: [Refusal; 7] = {
        use Refusal::*;
        [NotFound, Busy, NoSpace, NotClose, Invalid, Disk, Mismatch]
    };

    fn from_number(number: u32) -> Option<Self> {
        Refusal::ALL.into_iter().find(|reason| *reason as u32 == number)
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RefuseBody {
    request: U32,
    reason: U32,
}

const _: () = assert!(size_of::<RefuseBody>() == 8);

impl RefuseBody {
    pub(super) fn write(out: &mut Vec<u8>, request: u32, reason: Refusal) {
        let body = RefuseBody { request: U32::new(request), reason: U32::new(reason as u32) };
        out.extend_from_slice(body.as_bytes());
    }
}

impl Body for RefuseBody {
    const BYTES_MAX: usize = size_of::<Self>();

    fn parse(bytes: &[u8]) -> Result<Frame<'_>, Refused> {
        let body: &Self = exactly(bytes)?;
        let reason = Refusal::from_number(body.reason.get()).ok_or(Refused::Value)?;
        Ok(Frame::Refuse { request: body.request.get(), reason })
    }

    #[cfg(test)]
    fn examples() -> Vec<Frame<'static>> {
        Refusal::ALL.map(|reason| Frame::Refuse { request: 7, reason }).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::with_byte;
    use super::*;

    #[test]
    fn a_reason_that_this_version_does_not_know_is_refused() {
        let refuse = Frame::Refuse { request: 1, reason: Refusal::NotFound };
        assert_eq!(with_byte(&refuse, 4, 0), Err(Refused::Value));
        assert_eq!(with_byte(&refuse, 4, 8), Err(Refused::Value));
        // 257: its lowest byte alone would be a reason.
        assert_eq!(with_byte(&refuse, 5, 1), Err(Refused::Value));
    }
}
