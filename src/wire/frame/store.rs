//! The frames that offer a piece to a node for storage.

use super::piece::mode_of;
use super::{Body, Frame};
use crate::claim::{CLAIM_BYTES, PieceClaim};
use crate::id::Key;
#[cfg(test)]
use crate::id::PublicKey;
use crate::io::{Brought, Mode, PieceMeta};
use crate::limits::LIFETIME_SECONDS_MAX;
use crate::manifest::{CHUNK_BYTES_MAX, Content};
use crate::wire::Refused;
use crate::wire::layout::{exactly, reserved};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The offer of a piece, as [`Frame::Store`] carries it. The parser does not test whether it is
/// [possible](Offer::is_possible): the answer to an impossible offer is [`Refusal::Invalid`](super::Refusal::Invalid).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Offer {
    /// The piece.
    pub key: Key,
    /// Its kind.
    pub content: Content,
    /// Its length in bytes.
    pub length: u32,
    /// The offset of a chunk in its file; zero for manifests and files.
    pub input_offset: u64,
    /// The number of copies that the network keeps.
    pub replicas: u8,
    /// For a piece whose key is a file's hash: the file's mode. A hint.
    pub mode: Mode,
    /// What is left of its lifetime, in seconds.
    pub lifetime: u32,
    /// The publisher's claim.
    pub claim: Option<PieceClaim>,
}

impl Offer {
    /// Whether a file can have such a piece, `replicas` and `lifetime` are in range, and they do not exceed the claim. The claim's
    /// signature is not verified.
    pub fn is_possible(&self) -> bool {
        let claimed =
            |claim: PieceClaim| self.replicas == claim.replicas() && self.lifetime <= claim.lifetime();
        self.claim.is_none_or(claimed)
            && self.content.fits(self.input_offset, self.length)
            && self.replicas > 0
            && (1..=LIFETIME_SECONDS_MAX).contains(&self.lifetime)
    }

    /// The metadata of the piece when it is stored: brought by this party, and kept until this age of the node in seconds.
    pub fn stored(&self, brought: Brought, expires: u64) -> PieceMeta {
        let Offer { key, content, length, input_offset, replicas, mode, claim, .. } = *self;
        PieceMeta { key, content, length, input_offset, replicas, mode, expires, claim, brought }
    }
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct StoreBody {
    request: U32,
    length: U32,
    input_offset: U64,
    lifetime: U32,
    content: u8,
    replicas: u8,
    mode: U16,
    reserved: [u8; 8],
    key: Key,
    /// All zero without a claim.
    claim: [u8; CLAIM_BYTES],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct AcceptBody {
    request: U32,
    have: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct StoreDataBody {
    request: U32,
    length: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct StoredBody {
    request: U32,
    reserved: [u8; 4],
}

const _: () = assert!(size_of::<StoreBody>() == 176);
const _: () = assert!(size_of::<AcceptBody>() == 8);
const _: () = assert!(size_of::<StoreDataBody>() == 8);
const _: () = assert!(size_of::<StoredBody>() == 8);

impl StoreBody {
    pub(super) fn write(out: &mut Vec<u8>, request: u32, offer: Offer) {
        let body = StoreBody {
            request: U32::new(request),
            length: U32::new(offer.length),
            input_offset: U64::new(offer.input_offset),
            lifetime: U32::new(offer.lifetime),
            content: offer.content as u8,
            replicas: offer.replicas,
            mode: U16::new(offer.mode.encode()),
            reserved: [0; 8],
            key: offer.key,
            claim: PieceClaim::encode(offer.claim),
        };
        out.extend_from_slice(body.as_bytes());
    }
}

impl Body for StoreBody {
    const BYTES_MAX: usize = size_of::<Self>();

    fn parse(bytes: &[u8]) -> Result<Frame<'_>, Refused> {
        let body: &Self = exactly(bytes)?;
        reserved(&body.reserved)?;
        let content = Content::from_number(body.content).ok_or(Refused::Value)?;
        let offer = Offer {
            key: body.key,
            content,
            length: body.length.get(),
            input_offset: body.input_offset.get(),
            replicas: body.replicas,
            mode: mode_of(content, body.mode)?,
            lifetime: body.lifetime.get(),
            claim: PieceClaim::decode(&body.claim).ok_or(Refused::Value)?,
        };
        Ok(Frame::Store { request: body.request.get(), offer })
    }

    #[cfg(test)]
    fn examples() -> Vec<Frame<'static>> {
        let chunk = Offer {
            key: Key([1; 32]),
            content: Content::Chunk,
            length: 1 << 18,
            input_offset: 3 << 18,
            replicas: 3,
            mode: Mode::UNKNOWN,
            lifetime: 86_400,
            claim: None,
        };
        let manifest = Offer { content: Content::Manifest, input_offset: 0, mode: Mode::of(0o600), ..chunk };
        let claim = Some(PieceClaim::unsigned(PublicKey([2; 32]), 3, 90_000, 5));
        let claimed = Offer { claim, ..chunk };
        [chunk, manifest, claimed].map(|offer| Frame::Store { request: 7, offer }).to_vec()
    }
}

impl AcceptBody {
    pub(super) fn write(out: &mut Vec<u8>, request: u32, have: bool) {
        let body = AcceptBody { request: U32::new(request), have: U32::new(u32::from(have)) };
        out.extend_from_slice(body.as_bytes());
    }
}

impl Body for AcceptBody {
    const BYTES_MAX: usize = size_of::<Self>();

    fn parse(bytes: &[u8]) -> Result<Frame<'_>, Refused> {
        let body: &Self = exactly(bytes)?;
        let have = match body.have.get() {
            0 => false,
            1 => true,
            _ => return Err(Refused::Reserved),
        };
        Ok(Frame::Accept { request: body.request.get(), have })
    }

    #[cfg(test)]
    fn examples() -> Vec<Frame<'static>> {
        [false, true].map(|have| Frame::Accept { request: 7, have }).to_vec()
    }
}

impl StoreDataBody {
    pub(super) fn write(out: &mut Vec<u8>, request: u32, length: u32) {
        let body = StoreDataBody { request: U32::new(request), length: U32::new(length) };
        out.extend_from_slice(body.as_bytes());
    }
}

impl Body for StoreDataBody {
    const BYTES_MAX: usize = size_of::<Self>();

    fn parse(bytes: &[u8]) -> Result<Frame<'_>, Refused> {
        let body: &Self = exactly(bytes)?;
        let length = body.length.get();
        if u64::from(length) > CHUNK_BYTES_MAX {
            return Err(Refused::Value);
        }
        Ok(Frame::StoreData { request: body.request.get(), length })
    }

    #[cfg(test)]
    fn examples() -> Vec<Frame<'static>> {
        [0, CHUNK_BYTES_MAX as u32].map(|length| Frame::StoreData { request: 7, length }).to_vec()
    }
}

impl StoredBody {
    pub(super) fn write(out: &mut Vec<u8>, request: u32) {
        out.extend_from_slice(StoredBody { request: U32::new(request), reserved: [0; 4] }.as_bytes());
    }
}

impl Body for StoredBody {
    const BYTES_MAX: usize = size_of::<Self>();

    fn parse(bytes: &[u8]) -> Result<Frame<'_>, Refused> {
        let body: &Self = exactly(bytes)?;
        reserved(&body.reserved)?;
        Ok(Frame::Stored { request: body.request.get() })
    }

    #[cfg(test)]
    fn examples() -> Vec<Frame<'static>> {
        vec![Frame::Stored { request: 7 }]
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{reread, with_byte};
    use super::*;

    #[test]
    fn an_announcement_of_more_bytes_than_a_chunk_has_is_refused() {
        for length in [CHUNK_BYTES_MAX as u32 + 1, u32::MAX] {
            assert_eq!(reread(&Frame::StoreData { request: 1, length }), Err(Refused::Value));
        }
    }

    #[test]
    fn an_impossible_offer_is_parsed_so_that_it_can_be_answered() {
        for example in StoreBody::examples() {
            let Frame::Store { request, offer } = example else { panic!("{example:?}") };
            let odd = Offer { length: u32::MAX, input_offset: 1, ..offer };
            assert_eq!(reread(&Frame::Store { request, offer: odd }), Ok(()));
        }
    }

    #[test]
    fn an_offer_is_possible_when_its_piece_its_replicas_and_its_lifetime_are() {
        let (key, content, mode) = (Key([1; 32]), Content::File, Mode::UNKNOWN);
        let good =
            Offer { key, content, length: 5, input_offset: 0, replicas: 1, mode, lifetime: 1, claim: None };
        assert!(good.is_possible());
        let claim =
            |replicas, lifetime| Some(PieceClaim::unsigned(PublicKey([2; 32]), replicas, lifetime, 5));
        assert!(Offer { claim: claim(1, 60), ..good }.is_possible());
        assert!(!Offer { claim: claim(2, 60), ..good }.is_possible(), "other replicas than were claimed");
        assert!(!Offer { lifetime: 61, claim: claim(1, 60), ..good }.is_possible(), "a longer lifetime");
        assert!(Offer { lifetime: LIFETIME_SECONDS_MAX, ..good }.is_possible());
        assert!(!Offer { lifetime: LIFETIME_SECONDS_MAX + 1, ..good }.is_possible());
        assert!(!Offer { lifetime: 0, ..good }.is_possible());
        assert!(!Offer { replicas: 0, ..good }.is_possible());
        assert!(!Offer { content: Content::Chunk, ..good }.is_possible(), "a first chunk of five bytes");
        assert!(!Offer { content: Content::Manifest, ..good }.is_possible(), "a manifest of five bytes");
    }

    #[test]
    fn an_offer_of_an_unknown_kind_of_content_is_refused() {
        for example in StoreBody::examples() {
            assert_eq!(with_byte(&example, 20, 9), Err(Refused::Value));
        }
    }

    #[test]
    fn an_answer_with_a_reserved_bit_is_refused() {
        for answer in [AcceptBody::examples(), StoredBody::examples()].concat() {
            for at in 4..8 {
                assert_eq!(with_byte(&answer, at, 2), Err(Refused::Reserved), "byte {at} of {answer:?}");
            }
        }
    }
}
