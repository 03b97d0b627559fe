//! Shared by the tests of the wire format: fixed identities, a fixed network, and the checked-in vectors.

use elver::identity::Identity;
use elver::wire::datagram::MacKey;
use elver::wire::network::Network;
use std::fs;
use std::path::{Path, PathBuf};

/// The network that the vectors belong to.
pub(crate) fn network() -> Network {
    Network::new("vectors")
}

/// The sender of every datagram vector.
pub(crate) fn sender() -> Identity {
    Identity::from_secret(&[1; 32])
}

/// The recipient of every datagram vector.
pub(crate) fn recipient() -> Identity {
    Identity::from_secret(&[2; 32])
}

/// The key under which the sender authenticates datagrams to the recipient.
pub(crate) fn mac_key() -> MacKey {
    MacKey([7; 32])
}

/// The path of a folder of vectors: `datagrams`, `datagrams-mac`, `challenges`, `frames`, `manifests` or `records`.
pub(crate) fn folder(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(folder)
}

/// The checked-in vectors of a folder, with their names, sorted by name.
pub(crate) fn vectors(name: &str) -> Vec<(String, Vec<u8>)> {
    let mut vectors: Vec<_> = fs::read_dir(folder(name))
        .expect("the folder of vectors")
        .map(|entry| entry.expect("an entry of the folder").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "hex"))
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a readable vector");
            let stem = path.file_stem().expect("a name").to_string_lossy().into_owned();
            let bytes = from_hex(&text).unwrap_or_else(|| panic!("{} is not hexadecimal", path.display()));
            (stem, bytes)
        })
        .collect();
    vectors.sort();
    assert!(!vectors.is_empty(), "no vectors in {name}");
    vectors
}

/// Bytes from hexadecimal digits; lines that start with `#` are comments.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| line.trim().chars())
        .map(|digit| digit.to_digit(16).map(|value| value as u8))
        .collect();
    let digits = digits?;
    let pairs = digits.chunks_exact(2);
    pairs.remainder().is_empty().then(|| pairs.map(|pair| pair[0] << 4 | pair[1]).collect())
}
