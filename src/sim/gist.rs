//! What the world can read of a datagram without checking anything, at fixed places of the header (see
//! [`wire::header`](crate::wire::header)).

use crate::wire::header::{HEADER_BYTES, Header, Kind};
use zerocopy::FromBytes;

/// The parts of a datagram that the world looks at.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Gist {
    /// What it is.
    pub kind: Kind,
    /// The exchange that it belongs to.
    pub transaction: u64,
    /// What it carries to prove an address.
    pub token: u64,
    /// Its sender's count.
    pub sequence: u64,
}

impl Gist {
    /// `None` when it is nothing that a node would take.
    pub fn of(bytes: &[u8]) -> Option<Gist> {
        let (header, _) = Header::ref_from_prefix(bytes).ok()?;
        Some(Gist {
            kind: Kind::from_number(header.kind)?,
            transaction: header.transaction.get(),
            token: header.token.get(),
            sequence: header.sequence.get(),
        })
    }

    /// A number that another datagram hardly has: the beginning of the signature, which depends on every other byte.
    pub(super) fn checksum(bytes: &[u8]) -> u64 {
        let at = bytes.len().saturating_sub(64).max(HEADER_BYTES.min(bytes.len()));
        bytes[at..].first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
    }
}
