//! The frames that request pieces, ask which pieces a node has, and send them.

use super::{Body, Frame};
use crate::id::Key;
use crate::io::Mode;
use crate::manifest::Content;
use crate::wire::Refused;
use crate::wire::layout::{exactly, reserved};
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The most keys in one question.
pub const WHICH_KEYS_MAX: usize = 128;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RequestBody {
    request: U32,
    reserved: [u8; 4],
    key: Key,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct BlockBody {
    request: U32,
    length: U32,
    content: u8,
    reserved: u8,
    mode: U16,
    reserved_rest: [u8; 4],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct CancelBody {
    request: U32,
    reserved: [u8; 4],
}

/// The head of a question about keys, and of its answer.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct QuestionHead {
    question: U32,
    reserved: [u8; 4],
}

#[derive(FromBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct WhichBody {
    head: QuestionHead,
    keys: [Key],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct HaveBody {
    head: QuestionHead,
    bitmap: [u8; WHICH_KEYS_MAX / 8],
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct UnverifiedBody {
    key: Key,
    reserved: [u8; 8],
}

const _: () = assert!(size_of::<RequestBody>() == 40);
const _: () = assert!(size_of::<BlockBody>() == 16);
const _: () = assert!(size_of::<CancelBody>() == 8);
const _: () = assert!(size_of::<QuestionHead>() == 8);
const _: () = assert!(size_of::<HaveBody>() == 24);
const _: () = assert!(size_of::<UnverifiedBody>() == 40);

impl RequestBody {
    pub(super) fn write(out: &mut Vec<u8>, request: u32, key: Key) {
        out.extend_from_slice(RequestBody { request: U32::new(request), reserved: [0; 4], key }.as_bytes());
    }
}

impl Body for RequestBody {
    const BYTES_MAX: usize = size_of::<Self>();

    fn parse(bytes: &[u8]) -> Result<Frame<'_>, Refused> {
        let body: &Self = exactly(bytes)?;
        reserved(&body.reserved)?;
        Ok(Frame::Request { request: body.request.get(), key: body.key })
    }

    #[cfg(test)]
    fn examples() -> Vec<Frame<'static>> {
        vec![Frame::Request { request: 7, key: Key([1; 32]) }]
    }
}

impl BlockBody {
    pub(super) fn write(out: &mut Vec<u8>, request: u32, content: Content, length: u32, mode: Mode) {
        let body = BlockBody {
            request: U32::new(request),
            length: U32::new(length),
            content: content as u8,
            reserved: 0,
            mode: U16::new(mode.encode()),
            reserved_rest: [0; 4],
        };
        out.extend_from_slice(body.as_bytes());
    }
}

impl Body for BlockBody {
    const BYTES_MAX: usize = size_of::<Self>();

    fn parse(bytes: &[u8]) -> Result<Frame<'_>, Refused> {
        let body: &Self = exactly(bytes)?;
        reserved(&[body.reserved])?;
        reserved(&body.reserved_rest)?;
        let content = Content::from_number(body.content).ok_or(Refused::Value)?;
        let length = body.length.get();
        if !content.has_length(length) {
            return Err(Refused::Value);
        }
        let mode = mode_of(content, body.mode)?;
        Ok(Frame::Block { request: body.request.get(), content, length, mode })
    }

    #[cfg(test)]
    fn examples() -> Vec<Frame<'static>> {
        let block = |content, length, mode| Frame::Block { request: 7, content, length, mode };
        vec![
            block(Content::Chunk, 5, Mode::UNKNOWN),
            block(Content::Manifest, 90, Mode::of(0o755)),
            block(Content::File, 0, Mode::of(0)),
        ]
    }
}

impl CancelBody {
    pub(super) fn write(out: &mut Vec<u8>, request: u32) {
        out.extend_from_slice(CancelBody { request: U32::new(request), reserved: [0; 4] }.as_bytes());
    }
}

impl Body for CancelBody {
    const BYTES_MAX: usize = size_of::<Self>();

    fn parse(bytes: &[u8]) -> Result<Frame<'_>, Refused> {
        let body: &Self = exactly(bytes)?;
        reserved(&body.reserved)?;
        Ok(Frame::Cancel { request: body.request.get() })
    }

    #[cfg(test)]
    fn examples() -> Vec<Frame<'static>> {
        vec![Frame::Cancel { request: 7 }]
    }
}

impl QuestionHead {
    pub(super) fn new(question: u32) -> Self {
        QuestionHead { question: U32::new(question), reserved: [0; 4] }
    }

    /// The question's number.
    pub(super) fn check(&self) -> Result<u32, Refused> {
        reserved(&self.reserved)?;
        Ok(self.question.get())
    }
}

impl WhichBody {
    pub(super) fn write(out: &mut Vec<u8>, question: u32, keys: &[Key]) {
        out.extend_from_slice(QuestionHead::new(question).as_bytes());
        out.extend_from_slice(keys.as_bytes());
    }
}

impl Body for WhichBody {
    const BYTES_MAX: usize = size_of::<QuestionHead>() + WHICH_KEYS_MAX * size_of::<Key>();

    fn parse(bytes: &[u8]) -> Result<Frame<'_>, Refused> {
        let body: &Self = exactly(bytes)?;
        Ok(Frame::Which { question: body.head.check()?, keys: &body.keys })
    }

    #[cfg(test)]
    fn examples() -> Vec<Frame<'static>> {
        let which = |keys| Frame::Which { question: 7, keys };
        vec![which(&[]), which(&[Key([1; 32]), Key([2; 32])]), which(&[Key([3; 32]); WHICH_KEYS_MAX])]
    }
}

impl HaveBody {
    pub(super) fn write(out: &mut Vec<u8>, question: u32, bitmap: [u8; WHICH_KEYS_MAX / 8]) {
        out.extend_from_slice(HaveBody { head: QuestionHead::new(question), bitmap }.as_bytes());
    }
}

impl Body for HaveBody {
    const BYTES_MAX: usize = size_of::<Self>();

    fn parse(bytes: &[u8]) -> Result<Frame<'_>, Refused> {
        let body: &Self = exactly(bytes)?;
        Ok(Frame::Have { question: body.head.check()?, bitmap: body.bitmap })
    }

    #[cfg(test)]
    fn examples() -> Vec<Frame<'static>> {
        vec![Frame::Have { question: 7, bitmap: [0b101; WHICH_KEYS_MAX / 8] }]
    }
}

impl UnverifiedBody {
    pub(super) fn write(out: &mut Vec<u8>, key: Key) {
        out.extend_from_slice(UnverifiedBody { key, reserved: [0; 8] }.as_bytes());
    }
}

impl Body for UnverifiedBody {
    const BYTES_MAX: usize = size_of::<Self>();

    fn parse(bytes: &[u8]) -> Result<Frame<'_>, Refused> {
        let body: &Self = exactly(bytes)?;
        reserved(&body.reserved)?;
        Ok(Frame::Unverified { key: body.key })
    }

    #[cfg(test)]
    fn examples() -> Vec<Frame<'static>> {
        vec![Frame::Unverified { key: Key([1; 32]) }]
    }
}

/// The mode in a frame with a piece. A chunk of several has none: the mode comes with the manifest.
pub(super) fn mode_of(content: Content, encoded: U16) -> Result<Mode, Refused> {
    let mode = Mode::decode(encoded.get()).ok_or(Refused::Reserved)?;
    if content == Content::Chunk && mode != Mode::UNKNOWN { Err(Refused::Reserved) } else { Ok(mode) }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{reread, with_byte};
    use super::*;

    fn block(content: Content, length: u32, mode: Mode) -> Frame<'static> {
        Frame::Block { request: 1, content, length, mode }
    }

    #[test]
    fn a_block_with_an_impossible_length_is_refused_before_its_bytes_come() {
        let block = |content, length| reread(&block(content, length, Mode::UNKNOWN));
        for content in [Content::Chunk, Content::Manifest, Content::File] {
            assert_eq!(block(content, content.bytes_max()), Ok(()));
            assert_eq!(block(content, content.bytes_max() + 1), Err(Refused::Value));
            assert_eq!(block(content, u32::MAX), Err(Refused::Value));
        }
        assert_eq!(block(Content::File, 0), Ok(()));
        assert_eq!(block(Content::Chunk, 0), Err(Refused::Value));
    }

    #[test]
    fn a_manifest_and_a_whole_file_may_carry_a_mode_and_a_chunk_may_not() {
        for mode in [Mode::UNKNOWN, Mode::of(0), Mode::of(0o755)] {
            assert_eq!(reread(&block(Content::Manifest, 90, mode)), Ok(()));
            assert_eq!(reread(&block(Content::File, 90, mode)), Ok(()));
        }
        assert_eq!(reread(&block(Content::Chunk, 90, Mode::of(0o755))), Err(Refused::Reserved));
    }

    #[test]
    fn a_mode_with_set_user_id_is_refused() {
        let mode = Mode::of(0o755).encode().to_le_bytes()[1] | 0o4000_u16.to_le_bytes()[1];
        assert_eq!(with_byte(&block(Content::File, 90, Mode::of(0o755)), 11, mode), Err(Refused::Reserved));
    }

    #[test]
    fn an_unknown_kind_of_content_is_refused() {
        assert_eq!(with_byte(&block(Content::File, 90, Mode::UNKNOWN), 8, 9), Err(Refused::Value));
    }

    #[test]
    fn a_reserved_byte_of_a_request_or_a_question_is_refused() {
        for frame in [RequestBody::examples(), CancelBody::examples(), WhichBody::examples()].concat() {
            assert_eq!(with_byte(&frame, 4, 1), Err(Refused::Reserved), "{frame:?}");
        }
    }
}
