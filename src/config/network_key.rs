//! The key of a closed network, in its file: text of three lines, so that it can be copied by any means.
//!
//! ```text
//! elver network key 1
//! NAME
//! SECRET CHECK
//! ```
//!
//! The secret is 32 hexadecimal digits. The check is 8 more, the start of a BLAKE3 hash over name and secret: a file that was cut off
//! or mistyped would else give a node that finds no other.

use super::values::parse_network;
use crate::net::entropy;
use crate::wire::network::NetworkSecret;
use core::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

const FIRST_LINE: &str = "elver network key 1";
/// The longest key file in bytes.
const FILE_BYTES_MAX: u64 = 4096;
const SECRET_DIGITS: usize = 32;
const CHECK_DIGITS: usize = 8;

/// The key of a closed network.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NetworkKey {
    /// The network's name.
    pub name: String,
    /// The network's secret.
    pub secret: NetworkSecret,
}

/// Why there is no key.
#[derive(Debug)]
pub enum NetworkKeyError {
    /// The file cannot be read or written.
    System(io::Error),
    /// Other users can read or change it. It has this mode.
    Exposed(u32),
    /// It is no key.
    NoKey,
    /// It is incomplete or altered: it is not what `elver network new` wrote.
    Damaged,
}

impl fmt::Display for NetworkKeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            NetworkKeyError::System(error) => error.fmt(f),
            NetworkKeyError::Exposed(mode) => write!(
                f,
                "other users can read or change the file (mode {mode:04o}), so the key may be known: run chmod 600 on it, \
                 or make another key if it was exposed"
            ),
            NetworkKeyError::NoKey => {
                f.write_str("this is no network key; `elver network new NAME` makes one")
            }
            NetworkKeyError::Damaged => f.write_str(
                "the key is cut off or changed; copy the file again from another node of the network",
            ),
        }
    }
}

impl std::error::Error for NetworkKeyError {}

impl From<io::Error> for NetworkKeyError {
    fn from(error: io::Error) -> Self {
        NetworkKeyError::System(error)
    }
}

/// Makes the key of a new network, and writes it to a new file that only its owner can read. An existing file is not changed.
pub fn create(path: &Path, name: &str) -> Result<(), NetworkKeyError> {
    let mut secret = [0; 16];
    secret.copy_from_slice(&entropy()?[..16]);
    let key = NetworkKey { name: name.to_owned(), secret: NetworkSecret(secret) };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(key.to_text().as_bytes())?;
    Ok(file.sync_all()?)
}

/// Reads a key from its file.
pub fn read(path: &Path) -> Result<NetworkKey, NetworkKeyError> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(NetworkKeyError::NoKey);
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(NetworkKeyError::Exposed(mode));
    }
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text)?;
    NetworkKey::parse(&text)
}

impl NetworkKey {
    fn to_text(&self) -> String {
        let digits: String = self.secret.0.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{FIRST_LINE}\n{}\n{digits} {}\n", self.name, self.check())
    }

    fn parse(text: &[u8]) -> Result<NetworkKey, NetworkKeyError> {
        let text = core::str::from_utf8(text).map_err(|_| NetworkKeyError::NoKey)?;
        let Some(rest) = text.strip_prefix(FIRST_LINE) else {
            let is_start = !text.is_empty() && FIRST_LINE.starts_with(text);
            return Err(if is_start { NetworkKeyError::Damaged } else { NetworkKeyError::NoKey });
        };
        Self::parse_rest(rest).ok_or(NetworkKeyError::Damaged)
    }

    fn parse_rest(rest: &str) -> Option<NetworkKey> {
        let rest = rest.strip_suffix('\n').unwrap_or(rest);
        let (name, last) = rest.strip_prefix('\n')?.split_once('\n')?;
        let name = parse_network(name).ok()?;
        let (digits, check) = last.split_once(' ')?;
        if digits.len() != SECRET_DIGITS || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let secret = NetworkSecret(u128::from_str_radix(digits, 16).ok()?.to_be_bytes());
        let key = NetworkKey { name, secret };
        (key.check() == check).then_some(key)
    }

    fn check(&self) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("elver 2026-11 network key check");
        hasher.update(&self.secret.0).update(self.name.as_bytes());
        hasher.finalize().to_hex()[..CHECK_DIGITS].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;
    use tempfile::TempDir;

    fn key() -> NetworkKey {
        NetworkKey { name: "museum".to_owned(), secret: NetworkSecret([0x0b; 16]) }
    }

    #[test]
    fn a_new_key_is_read_as_it_was_made_and_by_its_owner_only() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("museum.key");
        create(&path, "museum").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let first = read(&path).unwrap();
        assert_eq!(first.name, "museum");
        create(&dir.path().join("other"), "museum").unwrap();
        assert_ne!(read(&dir.path().join("other")).unwrap().secret, first.secret);
    }

    #[test]
    fn a_key_never_replaces_a_file() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("museum.key");
        create(&path, "museum").unwrap();
        let first = read(&path).unwrap();
        assert!(matches!(create(&path, "museum"), Err(NetworkKeyError::System(_))));
        assert_eq!(read(&path).unwrap(), first);
    }

    #[test]
    fn a_key_that_others_can_read_or_change_is_refused() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("museum.key");
        create(&path, "museum").unwrap();
        for mode in [0o640, 0o604, 0o620, 0o602, 0o644] {
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            assert!(matches!(read(&path), Err(NetworkKeyError::Exposed(found)) if found == mode), "{mode:o}");
        }
        fs::set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        assert!(read(&path).is_ok());
    }

    #[test]
    fn a_key_that_was_cut_off_or_changed_is_refused() {
        let text = key().to_text();
        assert_eq!(NetworkKey::parse(text.as_bytes()).unwrap(), key());
        // The last byte is the newline, which an editor may leave out.
        for length in 1..text.len() - 1 {
            let refused = NetworkKey::parse(&text.as_bytes()[..length]);
            assert!(matches!(refused, Err(NetworkKeyError::Damaged)), "cut at {length}");
        }
        for index in 0..text.len() - 1 {
            let mut changed = text.clone().into_bytes();
            changed[index] ^= 1;
            assert!(NetworkKey::parse(&changed).is_err(), "byte {index}");
        }
        assert!(NetworkKey::parse(format!("{text}more").as_bytes()).is_err());
    }

    #[test]
    fn another_file_is_no_key() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("elver.toml");
        for content in ["", "network = \"museum\"\n", "\u{fffd}"] {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(read(&path), Err(NetworkKeyError::NoKey)), "{content:?}");
        }
        assert!(matches!(read(dir.path()), Err(NetworkKeyError::NoKey)), "a directory");
        assert!(matches!(read(&dir.path().join("absent")), Err(NetworkKeyError::System(_))));
    }
}
