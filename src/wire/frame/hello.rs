//! The handshake: each end sends its keys, then authenticates itself by a signature.

use super::{Body, Frame};
use crate::id::PublicKey;
use crate::wire::Refused;
use crate::wire::layout::{exactly, reserved};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The first frame of either end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Hello {
    magic: [u8; 4],
    version: u8,
    flags: u8,
    /// The port that the sender listens on. With the source address of the connection it is the sender's address.
    pub port: U16,
    network: U32,
    reserved: [u8; 4],
    /// The sender's public key.
    pub public: PublicKey,
    /// An X25519 public key, fresh for each stream: see [`Ephemeral`](super::Ephemeral).
    pub ephemeral: [u8; 32],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct ProofBody {
    signature: [u8; 64],
}

const _: () = assert!(size_of::<Hello>() == 80);
const _: () = assert!(size_of::<ProofBody>() == 64);

const MAGIC: [u8; 4] = *b"ELVS";
const VERSION: u8 = 2;
const LEAF: u8 = 1;

impl Hello {
    /// A hello of this version.
    pub fn new(network: u32, public: PublicKey, ephemeral: [u8; 32], port: u16, leaf: bool) -> Self {
        Hello {
            magic: MAGIC,
            version: VERSION,
            flags: if leaf { LEAF } else { 0 },
            port: U16::new(port),
            network: U32::new(network),
            reserved: [0; 4],
            public,
            ephemeral,
        }
    }

    /// The sender's network.
    pub fn network(&self) -> u32 {
        self.network.get()
    }

    /// Whether the sender is a leaf.
    pub fn is_leaf(&self) -> bool {
        self.flags & LEAF != 0
    }

    pub(super) fn write(out: &mut Vec<u8>, hello: &Hello) {
        out.extend_from_slice(hello.as_bytes());
    }
}

impl Body for Hello {
    const BYTES_MAX: usize = size_of::<Self>();

    fn parse(bytes: &[u8]) -> Result<Frame<'_>, Refused> {
        let hello: &Hello = exactly(bytes)?;
        if hello.magic != MAGIC || hello.version != VERSION {
            return Err(Refused::Version);
        }
        reserved(&[hello.flags & !LEAF])?;
        reserved(&hello.reserved)?;
        Ok(Frame::Hello(hello))
    }

    #[cfg(test)]
    fn examples() -> Vec<Frame<'static>> {
        let hello = |leaf| Hello::new(0x0102_0304, PublicKey([5; 32]), [6; 32], 3583, leaf);
        [hello(false), hello(true)].map(|hello| Frame::Hello(Box::leak(Box::new(hello)))).to_vec()
    }
}

impl ProofBody {
    pub(super) fn write(out: &mut Vec<u8>, signature: &[u8; 64]) {
        out.extend_from_slice(signature);
    }
}

impl Body for ProofBody {
    const BYTES_MAX: usize = size_of::<Self>();

    fn parse(bytes: &[u8]) -> Result<Frame<'_>, Refused> {
        exactly::<Self>(bytes).map(|body| Frame::Proof { signature: &body.signature })
    }

    #[cfg(test)]
    fn examples() -> Vec<Frame<'static>> {
        vec![Frame::Proof { signature: &[9; 64] }]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::with_byte;
    use super::*;

    #[test]
    fn a_hello_of_another_protocol_or_version_is_refused() {
        for hello in Hello::examples() {
            assert_eq!(with_byte(&hello, 0, b'X'), Err(Refused::Version), "magic");
            assert_eq!(with_byte(&hello, 4, VERSION + 1), Err(Refused::Version), "version");
        }
    }

    #[test]
    fn a_hello_with_an_unknown_flag_or_a_reserved_byte_is_refused() {
        for hello in Hello::examples() {
            assert_eq!(with_byte(&hello, 5, 2), Err(Refused::Reserved), "flags");
            assert_eq!(with_byte(&hello, 12, 1), Err(Refused::Reserved), "reserved");
        }
    }
}
