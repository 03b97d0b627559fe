//! Sealed frames: after the handshake each frame carries a tag that only the two ends of the stream can compute.
//!
//! The hellos carry X25519 public keys (RFC 7748), and each end signs both hellos. So the shared secret belongs to the two
//! identities, although a relay may forward every byte. From the secret, both hellos and the network each direction has its own
//! key. A tag is the first 16 bytes of keyed BLAKE3 over the number of the frame in its direction and over the frame without its
//! tag. The number is not sent: it makes a frame that is repeated, left out or moved fail.
//!
//! A node on the path can delay a stream or cut it. It cannot accept, acknowledge or refuse in the name of an end. Content has
//! no tag, so that it goes from file to socket without a copy: the hash that was requested proves it.
//!
//! A tag has 16 bytes, as those of datagrams have. A wrong one ends the stream, so a forger has one attempt a handshake, and
//! eight bytes would do; but eight bytes more are nothing beside the content that frames announce.

use super::{FRAME_HEAD_BYTES, Hello};
use crate::identity::Scheme;
use crate::wire::mac::{MAC_BYTES, MacKey, equal};
use crate::wire::network::Network;
use curve25519_dalek::MontgomeryPoint;
use zerocopy::IntoBytes;

/// The size of a tag.
pub(super) const TAG_BYTES: usize = MAC_BYTES;
/// A head without its tag: the tag comes last.
const HEAD_SEALED_BYTES: usize = FRAME_HEAD_BYTES - TAG_BYTES;

/// The X25519 key pair of one end for one stream.
pub struct Ephemeral {
    scheme: Scheme,
    secret: [u8; 32],
    public: [u8; 32],
}

impl Ephemeral {
    /// The key pair of this secret: 32 random bytes, used for one stream only (about 15 µs).
    pub fn new(network: &Network, secret: [u8; 32]) -> Self {
        let scheme = network.scheme();
        let public = match scheme {
            Scheme::Ed25519 => MontgomeryPoint::mul_base_clamped(secret).to_bytes(),
            // Simulated secrets are public: a simulated relay could compute the keys, but does not.
            #[cfg(feature = "sim")]
            Scheme::StandIn => secret,
        };
        Ephemeral { scheme, secret, public }
    }

    /// The public key, for the hello.
    pub fn public(&self) -> [u8; 32] {
        self.public
    }

    /// The keys of the stream between the ends with these hellos, of which `ours` has this public key (about 40 µs). `dialled`
    /// says that this end connected. `None` when the other end's key is one of those with which every secret gives zero.
    pub fn agree(
        &self,
        network: &Network,
        dialled: bool,
        ours: &Hello,
        theirs: &Hello,
    ) -> Option<StreamKeys> {
        let shared = self.shared(&theirs.ephemeral)?;
        let (connector, acceptor) = if dialled { (ours, theirs) } else { (theirs, ours) };
        let key = |connected| FrameKey {
            scheme: self.scheme,
            key: MacKey(network.stream_key(connected, &shared, connector.as_bytes(), acceptor.as_bytes())),
            frames: 0,
        };
        Some(StreamKeys { ours: key(dialled), theirs: key(!dialled) })
    }

    fn shared(&self, theirs: &[u8; 32]) -> Option<[u8; 32]> {
        match self.scheme {
            Scheme::Ed25519 => {
                let shared = MontgomeryPoint(*theirs).mul_clamped(self.secret);
                (shared != MontgomeryPoint([0; 32])).then(|| shared.to_bytes())
            }
            #[cfg(feature = "sim")]
            Scheme::StandIn => Some(core::array::from_fn(|byte| self.secret[byte] ^ theirs[byte])),
        }
    }
}

/// The keys of one end of a stream.
#[derive(Clone)]
pub struct StreamKeys {
    /// For the frames that this end sends.
    pub ours: FrameKey,
    /// For the frames of the other end.
    pub theirs: FrameKey,
}

/// The key of one direction of a stream, and how many frames have gone in it.
#[derive(Clone)]
pub struct FrameKey {
    scheme: Scheme,
    key: MacKey,
    frames: u64,
}

impl FrameKey {
    /// Writes the tag into the next frame of this direction.
    pub(super) fn seal(&mut self, frame: &mut [u8]) {
        let tag = self.tag(frame);
        frame[HEAD_SEALED_BYTES..FRAME_HEAD_BYTES].copy_from_slice(&tag);
        self.frames += 1;
    }

    /// Whether this is the next frame of this direction.
    pub(super) fn open(&mut self, frame: &[u8]) -> bool {
        let tag = self.tag(frame);
        let right =
            frame[HEAD_SEALED_BYTES..FRAME_HEAD_BYTES].try_into().is_ok_and(|given| equal(given, &tag));
        self.frames += u64::from(right);
        right
    }

    fn tag(&self, frame: &[u8]) -> [u8; TAG_BYTES] {
        let (head, body) = (&frame[..HEAD_SEALED_BYTES], &frame[FRAME_HEAD_BYTES..]);
        self.key.tag_over(self.scheme, &[&self.frames.to_le_bytes(), head, body])
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::written;
    use super::super::{Frame, Parsed, examples};
    use super::*;
    use crate::identity::Identity;
    use crate::wire::Refused;

    /// The keys of both ends of a stream, the connecting end's first. Different seeds give different streams.
    fn keys_in(name: &str, seed: u8) -> (StreamKeys, StreamKeys) {
        let network = Network::new(name);
        let end = |secret: u8| {
            let ephemeral = Ephemeral::new(&network, [secret ^ seed; 32]);
            let public = Identity::from_secret(&[secret; 32]).public();
            let hello = Hello::new(network.id(), public, ephemeral.public(), 1, false);
            (ephemeral, hello)
        };
        let ((a, hello_a), (b, hello_b)) = (end(1), end(2));
        let connector = a.agree(&network, true, &hello_a, &hello_b).expect("an honest key");
        let acceptor = b.agree(&network, false, &hello_b, &hello_a).expect("an honest key");
        (connector, acceptor)
    }

    fn keys() -> (StreamKeys, StreamKeys) {
        keys_in("test", 0)
    }

    fn sealed(frame: &Frame<'_>, key: &mut FrameKey) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame.write_sealed(&mut bytes, key);
        bytes
    }

    fn each_example(check: impl FnMut(&Frame<'static>)) {
        examples().iter().flat_map(|(_, frames)| frames).for_each(check);
    }

    #[test]
    fn both_ends_have_the_same_keys_and_frames_of_every_kind_pass_in_both_directions() {
        let (mut a, mut b) = keys();
        each_example(|frame| {
            let bytes = sealed(frame, &mut a.ours);
            assert_eq!(Frame::open(&bytes, &mut b.theirs), Ok(Parsed::Frame(*frame, bytes.len())));
            let bytes = sealed(frame, &mut b.ours);
            assert_eq!(Frame::open(&bytes, &mut a.theirs), Ok(Parsed::Frame(*frame, bytes.len())));
        });
    }

    #[test]
    fn every_flipped_bit_of_every_kind_is_refused() {
        each_example(|frame| {
            let (mut a, mut b) = keys();
            let bytes = sealed(frame, &mut a.ours);
            for bit in 0..bytes.len() * 8 {
                let mut changed = bytes.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                let opened = Frame::open(&changed, &mut b.theirs);
                // A longer length waits for bytes that will fail, too.
                let waits = bit < 32 && opened == Ok(Parsed::Incomplete);
                assert!(opened.is_err() || waits, "bit {bit} of {frame:?}");
            }
            assert!(Frame::open(&bytes, &mut b.theirs).is_ok(), "a refused frame does not count");
        });
    }

    #[test]
    fn every_truncation_of_every_kind_waits_for_more_and_does_not_count() {
        each_example(|frame| {
            let (mut a, mut b) = keys();
            let bytes = sealed(frame, &mut a.ours);
            for length in 0..bytes.len() {
                assert_eq!(Frame::open(&bytes[..length], &mut b.theirs), Ok(Parsed::Incomplete), "{length}");
            }
            assert!(Frame::open(&bytes, &mut b.theirs).is_ok());
        });
    }

    #[test]
    fn a_frame_that_is_repeated_left_out_or_moved_is_refused() {
        let (mut a, mut b) = keys();
        let frames: Vec<Vec<u8>> =
            (0..3).map(|request| sealed(&Frame::Stored { request }, &mut a.ours)).collect();
        assert_eq!(Frame::open(&frames[1], &mut b.theirs), Err(Refused::Mac), "the second one first");
        assert!(Frame::open(&frames[0], &mut b.theirs).is_ok());
        assert_eq!(Frame::open(&frames[0], &mut b.theirs), Err(Refused::Mac), "repeated");
        assert_eq!(Frame::open(&frames[2], &mut b.theirs), Err(Refused::Mac), "the second one is left out");
        assert!(Frame::open(&frames[1], &mut b.theirs).is_ok());
    }

    #[test]
    fn a_frame_that_is_sent_back_to_its_writer_is_refused() {
        let (mut a, _) = keys();
        let frame = sealed(&Frame::Stored { request: 1 }, &mut a.ours);
        assert_eq!(Frame::open(&frame, &mut a.theirs), Err(Refused::Mac));
    }

    #[test]
    fn a_frame_of_another_stream_or_another_network_is_refused() {
        let (mut here, _) = keys();
        let frame = sealed(&Frame::Stored { request: 1 }, &mut here.ours);
        for (_, mut other) in [keys_in("test", 8), keys_in("other", 0)] {
            assert_eq!(Frame::open(&frame, &mut other.theirs), Err(Refused::Mac));
        }
    }

    #[test]
    fn an_unsealed_frame_is_refused_where_a_sealed_one_is_due_and_the_other_way_round() {
        let (mut a, mut b) = keys();
        let frame = Frame::Stored { request: 1 };
        assert_eq!(Frame::open(&written(&frame), &mut b.theirs), Err(Refused::Mac));
        assert_eq!(Frame::parse(&sealed(&frame, &mut a.ours)), Err(Refused::Reserved));
    }

    #[test]
    fn a_public_key_of_low_order_gives_no_keys() {
        // The points of low order on Curve25519 and its twist: RFC 7748, section 6.1, and "May the Fourth Be With You"
        // (Genkin, Valenta, Yarom 2017).
        let mut order_8 = [0; 32];
        order_8.copy_from_slice(&[
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
            0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
        ]);
        let small = |first: u8| {
            let mut point = [0; 32];
            point[0] = first;
            point
        };
        let below_p = |first: u8| {
            let mut point = [0xff; 32];
            (point[0], point[31]) = (first, 0x7f);
            point
        };
        let network = Network::new("test");
        let ephemeral = Ephemeral::new(&network, [7; 32]);
        let hello = |key| Hello::new(network.id(), Identity::from_secret(&[1; 32]).public(), key, 1, false);
        let ours = hello(ephemeral.public());
        for point in [small(0), small(1), order_8, below_p(0xec), below_p(0xed), below_p(0xee)] {
            assert!(ephemeral.agree(&network, true, &ours, &hello(point)).is_none(), "{point:?}");
        }
    }

    #[cfg(feature = "sim")]
    #[test]
    fn simulated_ends_have_the_same_keys_and_refuse_each_others_changed_frames() {
        let identity = Identity::stand_in(&[1; 32]);
        let network = Network::of("test", &identity);
        let ends = [3, 4].map(|secret| Ephemeral::new(&network, [secret; 32]));
        let [hello_a, hello_b] =
            ends.each_ref().map(|end| Hello::new(network.id(), identity.public(), end.public(), 1, false));
        let mut a = ends[0].agree(&network, true, &hello_a, &hello_b).expect("keys");
        let mut b = ends[1].agree(&network, false, &hello_b, &hello_a).expect("keys");
        let mut bytes = sealed(&Frame::Stored { request: 1 }, &mut a.ours);
        assert!(Frame::open(&bytes, &mut b.theirs).is_ok());
        *bytes.last_mut().expect("a frame") ^= 1;
        assert_eq!(Frame::open(&bytes, &mut b.theirs), Err(Refused::Mac));
    }
}
