//! A TCP stream of frames, cut into pieces as a network cuts it.
#![no_main]

use elver::id::PublicKey;
use elver::wire::Refused;
use elver::wire::frame::{Ephemeral, FRAME_BYTES_MAX, FRAME_HEAD_BYTES, Frame, Hello, Parsed, StreamKeys};
use elver::wire::network::Network;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&cut, stream)) = data.split_first() else { return };
    let whole = read(stream, stream.len().max(1));
    let cut_up = read(stream, usize::from(cut) + 1);
    assert_eq!(whole, cut_up, "the same frames come out however the stream is cut");
});

/// Reads a stream whose bytes arrive `step` at a time. Returns every frame, encoded again, and why the stream was dropped.
fn read(stream: &[u8], step: usize) -> (Vec<Vec<u8>>, Option<Refused>) {
    let (mut buffer, mut frames) = (Vec::new(), Vec::new());
    let keys = keys();
    for piece in stream.chunks(step) {
        buffer.extend_from_slice(piece);
        loop {
            match Frame::parse(&buffer) {
                Ok(Parsed::Frame(frame, length)) => {
                    assert!((FRAME_HEAD_BYTES..=FRAME_BYTES_MAX).contains(&length));
                    let mut written = Vec::new();
                    frame.write(&mut written);
                    assert_eq!(written, &buffer[..length]);
                    check_seal(&frame, &keys);
                    frames.push(written);
                    buffer.drain(..length);
                }
                Ok(Parsed::Incomplete) => {
                    assert!(buffer.len() < FRAME_BYTES_MAX, "nothing is waited for past the largest frame");
                    break;
                }
                Err(why) => return (frames, Some(why)),
            }
        }
    }
    (frames, None)
}

/// The keys of an end whose stream leads to itself, so that it can open what it seals.
fn keys() -> StreamKeys {
    let network = Network::new("fuzz");
    let ephemeral = Ephemeral::new(&network, [1; 32]);
    let hello = Hello::new(network.id(), PublicKey([2; 32]), ephemeral.public(), 1, false);
    ephemeral.agree(&network, true, &hello, &hello).expect("an honest key")
}

/// A sealed frame opens as the same frame. With a flipped bit it does not open.
fn check_seal(frame: &Frame<'_>, keys: &StreamKeys) {
    let mut sealed = Vec::new();
    frame.write_sealed(&mut sealed, &mut keys.ours.clone());
    assert_eq!(Frame::open(&sealed, &mut keys.ours.clone()), Ok(Parsed::Frame(*frame, sealed.len())));
    let last = sealed.len() - 1;
    sealed[last] ^= 1;
    assert_eq!(Frame::open(&sealed, &mut keys.ours.clone()), Err(Refused::Mac));
}
