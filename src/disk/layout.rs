//! The paths in the node's directory.
//!
//! | path | content |
//! |---|---|
//! | `lock` | held while a node runs here |
//! | `identity.key` | the node's secret, 64 hexadecimal digits |
//! | `identity.key.old` | the secret before that, if the node got a new identity |
//! | `ages`, `ages.copy` | the number of starts, and the node's age |
//! | `peers`, `records` | the contacts of the last run, own value records |
//! | `scrub` | the progress of scrub |
//! | `raises` | the log of raised copies and lifetimes of stored pieces |
//! | `pieces/ab/abcd…` | stored pieces, by key |
//! | `incoming/17` | pieces that are not committed |
//! | `shares.log` | the log of shares |
//! | `shares/abcd…` | the manifests of shared files |
//! | `reserve` | space that is freed on a full disk, so that shares can be ended |
//! | `damaged/ages.3` | the last files of the node that were damaged |
//! | `cache/abcd…` | files fetched without a path of the user |
//! | `sets/abcd…` | the lists of sets that were put, written by the command line and shared from there |

use crate::id::Key;
use crate::io::Place;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The extension of a file until it is complete.
const TEMPORARY: &str = "tmp";

/// The paths in one node's directory.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(super) fn new(root: PathBuf) -> Self {
        Layout { root }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// A file or directory right under the root.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(super) fn pieces(&self) -> PathBuf {
        self.file("pieces")
    }

    pub(super) fn incoming(&self) -> PathBuf {
        self.file("incoming")
    }

    pub(super) fn shares(&self) -> PathBuf {
        self.file("shares")
    }

    pub(super) fn cache(&self) -> PathBuf {
        self.file("cache")
    }

    pub(super) fn sets(&self) -> PathBuf {
        self.file("sets")
    }

    pub(super) fn share(&self, hash: &Key) -> PathBuf {
        self.shares().join(hash.to_string())
    }

    /// A piece from memory that is not committed.
    pub(super) fn written(&self, number: u64) -> PathBuf {
        self.incoming().join(format!("m{number}"))
    }

    /// The path of a place.
    pub(super) fn path(&self, place: &Place) -> PathBuf {
        match place {
            Place::Piece(key) => {
                let name = key.to_string();
                self.pieces().join(&name[..2]).join(name)
            }
            Place::Incoming(number) => self.incoming().join(number.to_string()),
            Place::ShareManifest(hash) => self.share(hash),
            Place::File(path) => path.to_path_buf(),
            Place::Partial(path) => appended(path, "part"),
            Place::Cache(hash) => self.cache().join(hash.to_string()),
            Place::Window { window, chunk } => self.incoming().join(format!("w{window}-{chunk}")),
        }
    }
}

/// The name under which a file is written before it replaces the one at `path`.
pub(super) fn temporary(path: &Path) -> PathBuf {
    appended(path, TEMPORARY)
}

/// Whether a crash left this file while it was about to replace another.
pub(super) fn is_temporary(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == TEMPORARY)
}

/// `path` with an extension after the one it has. Names are bytes, not text.
fn appended(path: &Path, extension: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".");
    name.push(extension);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn each_place_has_its_path() {
        let layout = Layout::new("/d".into());
        let (key, hex) = (Key([0xab; 32]), "ab".repeat(32));
        let odd = Path::new(std::ffi::OsStr::from_bytes(b"/u/\xff.tar"));
        let pairs = [
            (Place::Piece(key), format!("/d/pieces/ab/{hex}")),
            (Place::Incoming(17), "/d/incoming/17".to_owned()),
            (Place::Window { window: 3, chunk: 4 }, "/d/incoming/w3-4".to_owned()),
            (Place::ShareManifest(key), format!("/d/shares/{hex}")),
            (Place::Cache(key), format!("/d/cache/{hex}")),
            (Place::Partial(Path::new("/u/f.tar").into()), "/u/f.tar.part".to_owned()),
        ];
        for (place, path) in pairs {
            assert_eq!(layout.path(&place), Path::new(&path));
        }
        assert_eq!(layout.path(&Place::Partial(odd.into())).as_os_str().as_bytes(), b"/u/\xff.tar.part");
        assert!(is_temporary(&temporary(odd)) && !is_temporary(odd));
    }
}
