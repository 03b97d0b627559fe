//! A TCP stream of frames, cut into pieces as a network would.
#![no_main]

use elver::wire::Refused;
use elver::wire::frame::{FRAME_BYTES_MAX, FRAME_HEAD_BYTES, Frame, Parsed};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&cut, stream)) = data.split_first() else { return };
    let whole = read(stream, stream.len().max(1));
    let cut_up = read(stream, usize::from(cut) + 1);
    assert_eq!(whole, cut_up, "the same frames come out however the stream is cut");
});

/// Reads a stream whose bytes arrive `step` at a time: every frame, written anew, and why the stream was dropped.
fn read(stream: &[u8], step: usize) -> (Vec<Vec<u8>>, Option<Refused>) {
    let (mut buffer, mut frames) = (Vec::new(), Vec::new());
    for piece in stream.chunks(step) {
        buffer.extend_from_slice(piece);
        loop {
            match Frame::parse(&buffer) {
                Ok(Parsed::Frame(frame, length)) => {
                    assert!((FRAME_HEAD_BYTES..=FRAME_BYTES_MAX).contains(&length));
                    let mut written = Vec::new();
                    frame.write(&mut written);
                    assert_eq!(written, &buffer[..length]);
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
