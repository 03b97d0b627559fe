//! A whole node, driven by a sequence of inputs: see the library's `steps`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| elver_fuzz::steps::play(data));
