//! The frames that challenge a holder to prove that it has a piece.

use super::piece::QuestionHead;
use super::{Body, Frame};
use crate::id::Key;
use crate::wire::Refused;
use crate::wire::layout::{exactly, reserved};
use crate::wire::possession::{Nonce, Proof};
use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct ChallengeBody {
    head: QuestionHead,
    key: Key,
    nonce: Nonce,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct PossessionBody {
    question: U32,
    held: U32,
    proof: Proof,
}

const _: () = assert!(size_of::<ChallengeBody>() == 72);
const _: () = assert!(size_of::<PossessionBody>() == 40);

impl ChallengeBody {
    pub(super) fn write(out: &mut Vec<u8>, question: u32, key: Key, nonce: Nonce) {
        let body = ChallengeBody { head: QuestionHead::new(question), key, nonce };
        out.extend_from_slice(body.as_bytes());
    }
}

impl Body for ChallengeBody {
    const BYTES_MAX: usize = size_of::<Self>();

    fn parse(bytes: &[u8]) -> Result<Frame<'_>, Refused> {
        let body: &Self = exactly(bytes)?;
        Ok(Frame::Challenge { question: body.head.check()?, key: body.key, nonce: body.nonce })
    }

    #[cfg(test)]
    fn examples() -> Vec<Frame<'static>> {
        vec![Frame::Challenge { question: 7, key: Key([1; 32]), nonce: [2; 32] }]
    }
}

impl PossessionBody {
    pub(super) fn write(out: &mut Vec<u8>, question: u32, proof: Option<Proof>) {
        let (held, proof) = (u32::from(proof.is_some()), proof.unwrap_or_default());
        let body = PossessionBody { question: U32::new(question), held: U32::new(held), proof };
        out.extend_from_slice(body.as_bytes());
    }
}

impl Body for PossessionBody {
    const BYTES_MAX: usize = size_of::<Self>();

    fn parse(bytes: &[u8]) -> Result<Frame<'_>, Refused> {
        let body: &Self = exactly(bytes)?;
        let proof = match body.held.get() {
            0 => {
                reserved(&body.proof)?;
                None
            }
            1 => Some(body.proof),
            _ => return Err(Refused::Value),
        };
        Ok(Frame::Possession { question: body.question.get(), proof })
    }

    #[cfg(test)]
    fn examples() -> Vec<Frame<'static>> {
        [None, Some([3; 32])].map(|proof| Frame::Possession { question: 7, proof }).to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::with_byte;
    use super::*;

    #[test]
    fn an_answer_that_neither_proves_nor_denies_is_refused() {
        for example in PossessionBody::examples() {
            assert_eq!(with_byte(&example, 4, 2), Err(Refused::Value), "{example:?}");
        }
    }

    #[test]
    fn a_denial_with_a_proof_is_refused() {
        assert_eq!(with_byte(&PossessionBody::examples()[0], 20, 1), Err(Refused::Reserved));
    }

    #[test]
    fn a_reserved_byte_of_a_challenge_is_refused() {
        assert_eq!(with_byte(&ChallengeBody::examples()[0], 7, 1), Err(Refused::Reserved));
    }
}
