//! The fields of a datagram that the world reads without any check, at their fixed offsets in the header (see
//! [`wire::header`](crate::wire::header)).

use crate::wire::header::{Auth, Epoch, HEADER_BYTES, Header, Kind};
use crate::wire::mac::MAC_BYTES;
use zerocopy::FromBytes;

/// The peeked fields of a header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peeked {
    /// The kind of message.
    pub kind: Kind,
    /// The transaction: a request and its answer carry the same one.
    pub transaction: u64,
    /// The token by which the sender proves its address.
    pub token: u64,
    /// The sender's epoch.
    pub epoch: Epoch,
    /// The datagram's number in that epoch.
    pub sequence: u64,
}

impl Peeked {
    /// `None` for bytes that are too short or of an unknown kind. Every node refuses those.
    pub fn of(bytes: &[u8]) -> Option<Peeked> {
        let (header, _) = Header::ref_from_prefix(bytes).ok()?;
        Some(Peeked {
            kind: Kind::from_number(header.kind)?,
            transaction: header.transaction.get(),
            token: header.token.get(),
            epoch: header.epoch,
            sequence: header.sequence.get(),
        })
    }

    /// A checksum for the trace: the first bytes of the signature or the MAC, which depends on every other byte.
    pub(super) fn checksum(bytes: &[u8]) -> u64 {
        let tail = match bytes.get(2).copied().and_then(Auth::from_number) {
            Some(Auth::Mac) => MAC_BYTES,
            _ => 64,
        };
        let at = bytes.len().saturating_sub(tail).max(HEADER_BYTES.min(bytes.len()));
        bytes[at..].first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
    }
}
