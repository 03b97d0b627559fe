//! The frames of co-downloaders, by which nodes that download the same file find and serve each other.

use super::{Body, Frame};
use crate::id::Key;
use crate::wire::Refused;
use crate::wire::contact::WireContact;
use crate::wire::layout::{exactly, reserved};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The most chunks in one [`Frame::Gained`].
pub const GAINED_CHUNKS_MAX: usize = 128;

/// The most contacts in one [`Frame::Sources`].
pub const SOURCES_MAX: usize = 16;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct FollowBody {
    file: Key,
    over: u8,
    reserved: [u8; 7],
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct GainedBody {
    file: Key,
    chunks: [U32],
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct SourcesBody {
    file: Key,
    contacts: [WireContact],
}

const _: () = assert!(size_of::<FollowBody>() == 40);

impl FollowBody {
    pub(super) fn write(out: &mut Vec<u8>, file: Key, over: bool) {
        out.extend_from_slice(FollowBody { file, over: u8::from(over), reserved: [0; 7] }.as_bytes());
    }
}

impl Body for FollowBody {
    const BYTES_MAX: usize = size_of::<Self>();

    fn parse(bytes: &[u8]) -> Result<Frame<'_>, Refused> {
        let body: &Self = exactly(bytes)?;
        reserved(&body.reserved)?;
        let over = match body.over {
            0 => false,
            1 => true,
            _ => return Err(Refused::Value),
        };
        Ok(Frame::Follow { file: body.file, over })
    }

    #[cfg(test)]
    fn examples() -> Vec<Frame<'static>> {
        [false, true].map(|over| Frame::Follow { file: Key([1; 32]), over }).to_vec()
    }
}

impl GainedBody {
    pub(super) fn write(out: &mut Vec<u8>, file: Key, chunks: &[U32]) {
        out.extend_from_slice(file.as_bytes());
        out.extend_from_slice(chunks.as_bytes());
    }
}

impl Body for GainedBody {
    const BYTES_MAX: usize = size_of::<Key>() + GAINED_CHUNKS_MAX * size_of::<U32>();

    fn parse(bytes: &[u8]) -> Result<Frame<'_>, Refused> {
        let body: &Self = exactly(bytes)?;
        Ok(Frame::Gained { file: body.file, chunks: &body.chunks })
    }

    #[cfg(test)]
    fn examples() -> Vec<Frame<'static>> {
        const CHUNKS: [U32; GAINED_CHUNKS_MAX] = [U32::new(0x0102_0304); GAINED_CHUNKS_MAX];
        let gained = |chunks| Frame::Gained { file: Key([1; 32]), chunks };
        vec![gained(&[]), gained(&CHUNKS[..2]), gained(&CHUNKS)]
    }
}

impl SourcesBody {
    pub(super) fn write(out: &mut Vec<u8>, file: Key, contacts: &[WireContact]) {
        out.extend_from_slice(file.as_bytes());
        out.extend_from_slice(contacts.as_bytes());
    }
}

impl Body for SourcesBody {
    const BYTES_MAX: usize = size_of::<Key>() + SOURCES_MAX * size_of::<WireContact>();

    fn parse(bytes: &[u8]) -> Result<Frame<'_>, Refused> {
        let body: &Self = exactly(bytes)?;
        if !body.contacts.iter().all(WireContact::is_well_formed) {
            return Err(Refused::Reserved);
        }
        Ok(Frame::Sources { file: body.file, contacts: &body.contacts })
    }

    #[cfg(test)]
    fn examples() -> Vec<Frame<'static>> {
        use crate::id::PublicKey;
        use crate::wire::contact::Contact;
        let contact = |number: u8| {
            let addr = core::net::SocketAddr::from(([192, 0, 2, number], 3583));
            WireContact::new(&Contact::new(PublicKey([number; 32]), addr), 0)
        };
        let contacts: &[_] = (1..=SOURCES_MAX as u8).map(contact).collect::<Vec<_>>().leak();
        let sources = |contacts| Frame::Sources { file: Key([1; 32]), contacts };
        vec![sources(&contacts[..0]), sources(&contacts[..2]), sources(contacts)]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::with_byte;
    use super::*;

    #[test]
    fn a_follow_that_is_neither_begun_nor_over_is_refused() {
        for follow in FollowBody::examples() {
            assert_eq!(with_byte(&follow, 32, 2), Err(Refused::Value));
            assert_eq!(with_byte(&follow, 33, 1), Err(Refused::Reserved));
        }
    }

    #[test]
    fn a_contact_with_a_reserved_bit_is_refused() {
        for sources in &SourcesBody::examples()[1..] {
            assert_eq!(with_byte(sources, 32 + 50, 1), Err(Refused::Reserved), "{sources:?}");
        }
    }
}
