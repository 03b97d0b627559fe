//! Manifests, and the lists of sets, as a hostile peer may forge them.
#![no_main]

use elver::id::Key;
use elver::manifest::{CHUNK_BYTES_MIN, MANIFEST_BYTES_MAX, Manifest, ManifestBuilder};
use elver::set::{Decoded, Decoder, Encoder, HEAD_BYTES, MAGIC, PATH_BYTES_MAX};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

/// The files of the test vectors.
static FILES: LazyLock<Vec<Manifest>> = LazyLock::new(|| {
    [CHUNK_BYTES_MIN + 1, 2 * CHUNK_BYTES_MIN, 2 * CHUNK_BYTES_MIN + 100_000]
        .map(|length| {
            let bytes: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
            let mut builder = ManifestBuilder::new(length).expect("an allowed length");
            builder.update(&bytes);
            builder.finish().expect("all bytes were fed")
        })
        .to_vec()
});

fuzz_target!(|data: &[u8]| {
    for file in FILES.iter() {
        check(data, &file.hash(), Some(file));
    }
    // A valid head, so that the input reaches the checks of lengths and layouts at once.
    if let Some(length) = data.first_chunk::<8>() {
        let mended = [&b"ELVM\x01\0\0\0"[..], length, &data[8..]].concat();
        check(&mended, &Key([9; 32]), None);
    }
    for times in [0, 1] {
        read_set(&[&MAGIC[..], &[1, 0, times, 0, 0, 0, 0, 0], data].concat());
    }
    read_set(data);
});

/// What is read of a list is what this version would write, however the bytes arrive.
fn read_set(list: &[u8]) {
    let (mut decoder, mut at, mut end, mut encoder) = (Decoder::default(), 0, 0, None);
    let mut written = Vec::new();
    loop {
        match decoder.decode(&list[at..end], end == list.len()) {
            Ok(Decoded::More) => end = (end + 50).min(list.len()),
            Ok(Decoded::Head) => {
                encoder = Some(Encoder::begin(decoder.has_times(), &mut written));
                at += HEAD_BYTES;
            }
            Ok(Decoded::Record(record, length)) => {
                let encoder = encoder.as_mut().expect("a head comes first");
                encoder.push(&record, &mut written).expect("the writer has the reader's rules");
                assert!(decoder.directory().len() <= PATH_BYTES_MAX);
                at += length;
            }
            Ok(Decoded::Over) => return assert_eq!(written, list),
            Err(_) => return assert_eq!(written, list[..at]),
        }
    }
}

fn check(bytes: &[u8], hash: &Key, file: Option<&Manifest>) {
    if let Ok(manifest) = Manifest::decode(bytes, hash) {
        assert!(bytes.len() <= MANIFEST_BYTES_MAX as usize);
        assert_eq!(Some(&manifest), file, "only the file's own manifest merges to its hash");
        assert_eq!(manifest.encode(), bytes);
        let last = manifest.chunk_count() - 1;
        assert_eq!(manifest.chunk_offset(last) + u64::from(manifest.chunk_length(last)), manifest.length());
    }
}
