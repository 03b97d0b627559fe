//! The core's operations on streams and the disk, and their results, as plain values.
//!
//! No content passes through the core. It names the part of a file that goes to a stream, and the place for the bytes that
//! arrive on a stream; the driver moves and hashes them, and reports the hash.

mod disk;

pub use disk::{DiskDone, DiskError, DiskErrorKind, DiskLook, DiskOp, DiskReply};

use crate::claim::PieceClaim;
use crate::id::Key;
use crate::manifest::{Content, HashAs, Manifest};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// A TCP stream, numbered by the driver. Numbers are never used again, so a late event of a closed stream has no effect.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamId(pub u64);

/// An attempt to connect, numbered by the core.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DialId(pub u64);

/// A pending disk operation, numbered by the core.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DiskId(pub u64);

/// An open file that a client passed to the driver, numbered by the driver.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PassedId(pub u64);

/// A file, by its purpose. Only the disk driver knows its path.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Place {
    /// A stored piece. Its content starts at offset 0.
    Piece(Key),
    /// An arriving piece that is not committed.
    Incoming(u64),
    /// The manifest of a shared file of several chunks. It starts at offset 0.
    ShareManifest(Key),
    /// A file of the user.
    File(Arc<Path>),
    /// The target of a download: the final path with `.part` appended.
    Partial(Arc<Path>),
    /// A file in the node's cache, whole or being downloaded.
    Cache(Key),
    /// One chunk of a file that is streamed to a client. It starts at offset 0. Each chunk has its own file, written only once:
    /// after sendfile(2) the socket may still share the file's pages.
    Window {
        /// The number of the window.
        window: u64,
        /// The chunk.
        chunk: u32,
    },
}

/// The metadata of a file when it was hashed. A file with a different stamp is hashed again before it is served. The inode number
/// is no part of it: on some file systems it changes at every mount.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct FileStamp {
    /// Length in bytes.
    pub length: u64,
    /// Modification time: nanoseconds since 1970, as the file system reports it. A program may set it to any value.
    pub modified: i64,
    /// Time of the last change of content, names or mode: nanoseconds since 1970. Only the system sets it.
    pub changed: i64,
    /// The file's mode. It does not depend on the content, so stamps that differ only in it are equal.
    pub mode: Mode,
}

impl PartialEq for FileStamp {
    fn eq(&self, other: &Self) -> bool {
        (self.length, self.modified, self.changed) == (other.length, other.modified, other.changed)
    }
}

impl Eq for FileStamp {}

/// The permission bits of a file at its publisher: read, write and execute; never set-user-id, set-group-id or sticky.
///
/// They are a hint. The address does not cover them, so a source may claim any; the first claim counts. A download uses only
/// whether the file is executable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Mode(Option<u16>);

impl Mode {
    /// An unknown mode.
    pub const UNKNOWN: Mode = Mode(None);
    /// Set in the encoding of a known mode, so that mode 000 differs from an unknown one.
    const KNOWN: u16 = 0x8000;

    /// The mode with the nine permission bits of `bits`; other bits are dropped.
    pub fn of(bits: u32) -> Mode {
        Mode(Some((bits & 0o777) as u16))
    }

    /// The permission bits, at most 0o777; `None` when unknown.
    pub fn bits(self) -> Option<u32> {
        self.0.map(u32::from)
    }

    /// Decodes two bytes; `None` when they encode no mode.
    pub fn decode(encoded: u16) -> Option<Mode> {
        match encoded {
            0 => Some(Mode::UNKNOWN),
            _ if encoded & !0o777 == Mode::KNOWN => Some(Mode(Some(encoded & 0o777))),
            _ => None,
        }
    }

    /// Encodes the mode in two bytes; 0 when unknown.
    pub fn encode(self) -> u16 {
        self.0.map_or(0, |bits| bits | Mode::KNOWN)
    }

    /// Whether the file's owner may execute it.
    pub fn is_executable(self) -> bool {
        self.bits().is_some_and(|bits| bits & 0o100 != 0)
    }

    /// The permissions of a downloaded file that was created with `made`. If this mode is executable, every user with permission
    /// to read the file may also execute it. An unverified claim never adds read or write permissions.
    pub fn applied_to(self, made: u32) -> u32 {
        if self.is_executable() { made | (made >> 2) & 0o111 } else { made }
    }
}

/// The permissions that a downloaded file gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Permissions {
    /// Those of any new file, and execute permission if this mode is executable. A file that replaces another keeps the
    /// permissions of the replaced file.
    Usual(Mode),
    /// Exactly these, as the user asked, also when a file with this content exists already.
    Exact(Mode),
}

/// The tree that the target of a download belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tree {
    /// The directory at its top. No symbolic link below it is followed on the way to the target.
    pub root: Arc<Path>,
    /// The time of modification that the file gets, in seconds since 1970; `None` is the time of its completion.
    pub modified: Option<i64>,
}

/// A run of bytes in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Extent {
    /// The file.
    pub place: Place,
    /// The offset of its first byte in the file.
    pub offset: u64,
    /// Its length in bytes.
    pub length: u32,
    /// The stamp that the file must have; `None` for files that only the node writes.
    pub stamp: Option<FileStamp>,
}

impl Extent {
    /// No byte of a file. Reading it checks only the file's stamp.
    pub fn nothing_of(place: Place, stamp: FileStamp) -> Extent {
        Extent { place, offset: 0, length: 0, stamp: Some(stamp) }
    }
}

/// A part of an extent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    /// The offset of its first byte in the extent.
    pub offset: u32,
    /// Its length in bytes.
    pub length: u32,
}

/// The target of the next `length` raw bytes of a stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sink {
    /// The file, created when it is missing.
    pub place: Place,
    /// The offset in the file.
    pub offset: u64,
    /// The number of bytes.
    pub length: u32,
    /// How the piece is hashed.
    pub hash_as: HashAs,
}

/// A piece on this disk, with all that is needed to verify its content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PieceAt {
    /// The key that its content must have.
    pub key: Key,
    /// Its kind.
    pub content: Content,
    /// The offset of a chunk in its file.
    pub input_offset: u64,
    /// The place of its bytes.
    pub extent: Extent,
}

/// A shared file, with all that is needed to verify its content.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileAt {
    /// The hash that its content must have.
    pub hash: Key,
    /// Its length in bytes.
    pub length: u64,
    /// The file.
    pub place: Place,
    /// Its stamp when it was hashed.
    pub stamp: FileStamp,
}

/// The result of verifying a piece or a file on disk again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Soundness {
    /// Every byte is right.
    Sound,
    /// The bytes do not match the key, or the data stored with them is damaged.
    Rotten,
    /// The medium returned an error.
    Unreadable,
    /// The file does not exist.
    Missing,
}

/// The metadata of a stored piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PieceMeta {
    /// The piece.
    pub key: Key,
    /// Its kind.
    pub content: Content,
    /// Its length in bytes.
    pub length: u32,
    /// The offset of a chunk in its file.
    pub input_offset: u64,
    /// The number of copies that the network keeps.
    pub replicas: u8,
    /// For a piece whose key is a file's hash: the file's mode, as offered.
    pub mode: Mode,
    /// When it expires, in seconds of the node's age (see [`Ages`]).
    pub expires: u64,
    /// The publisher's claim, with which the piece is handed on.
    pub claim: Option<PieceClaim>,
    /// The party that brought it here.
    pub brought: Brought,
}

#[cfg(test)]
impl PieceMeta {
    /// A file of one chunk, kept for ever in three copies, without a claim.
    pub(crate) fn file(key: Key, length: u32) -> PieceMeta {
        PieceMeta {
            key,
            content: Content::File,
            length,
            input_offset: 0,
            replicas: 3,
            mode: Mode::UNKNOWN,
            expires: u64::MAX,
            claim: None,
            brought: Brought::default(),
        }
    }
}

/// The party of the node that brought a piece, in the form of [`Party::as_bytes`](crate::peers::party::Party::as_bytes); all zero when
/// an earlier version stored the piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Brought(pub [u8; 16]);

/// Whether a file has the content that its share claims.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ShareState {
    /// Its stamp is the one of its last hashing: it is served.
    #[default]
    Present,
    /// Its stamp differs, or the file may be incomplete: it is hashed again before it is served.
    Doubtful,
    /// It has other content. The claim stands until the user ends it, or the content returns.
    Changed,
    /// It cannot be opened, as when its medium is missing. The node tries again from time to time.
    Absent,
}

/// A claim of the user: the file at this place has the content of this address, and is served from there. A place has at most
/// one claim; an address may have several.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Share {
    /// The file's address.
    pub hash: Key,
    /// The length in bytes of the file with this address.
    pub length: u64,
    /// The file: [`Place::File`] or [`Place::Cache`].
    pub place: Place,
    /// Its stamp when it was last hashed.
    pub stamp: FileStamp,
    /// Whether the file has the claimed content.
    pub state: ShareState,
    /// The number of copies that the network keeps; 0 when the file is only shared.
    pub replicas: u8,
    /// The seconds that copies are kept.
    pub lifetime: u32,
    /// Whether every chunk has `replicas` copies.
    pub replicated: bool,
    /// Whether its content is known to be on disk. A downloaded file is synced at the end of an orderly run. After a power cut
    /// before that it is hashed again, or dropped if it is in the cache.
    pub synced: bool,
}

/// The node's own time, which goes on over restarts and depends on no wall clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ages {
    /// The number of starts of the node.
    pub boots: u64,
    /// The seconds that the node has run, over all runs, when it last saved them.
    pub seconds: u64,
    /// Whether the last run ended in order.
    pub clean: bool,
}

/// The space of the file system of the node's directory, as statvfs(3) reports it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// The size of a block in bytes: a file takes whole blocks. 0 when unknown.
    pub block_bytes: u32,
    /// The size of the file system in bytes; 0 when unknown.
    pub total_bytes: u64,
    /// The bytes that this user can still allocate.
    pub free_bytes: u64,
    /// The number of inodes; 0 when the file system has no fixed number.
    pub total_files: u64,
    /// The number of files that can still be created.
    pub free_files: u64,
}

impl Default for Space {
    /// An unknown file system without bounds.
    fn default() -> Self {
        Space { block_bytes: 0, total_bytes: 0, free_bytes: u64::MAX, total_files: 0, free_files: u64::MAX }
    }
}

/// The state that a starting node recovers from its directory.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// This run's number and the age so far.
    pub ages: Ages,
    /// Stored pieces, in no particular order.
    pub pieces: Vec<PieceMeta>,
    /// Shares, in the order in which they were made, each with the state of its file now.
    pub shares: Vec<Share>,
    /// The readable manifests of shared files of several chunks.
    pub manifests: BTreeMap<Key, Arc<Manifest>>,
    /// The encoded contacts of the last run: see [`DiskOp::SavePeers`].
    pub peers: Vec<u8>,
    /// This node's own value records, encoded: see [`DiskOp::SaveRecords`].
    pub records: Vec<u8>,
    /// The space of the file system.
    pub space: Space,
    /// The progress of scrub: see [`DiskOp::SaveScrub`].
    pub scrub: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_executable_mode_adds_execute_permission_where_read_is_permitted_and_nothing_else() {
        for (published, made, applied) in [
            (0o755, 0o644, 0o755),
            (0o755, 0o600, 0o700),
            (0o700, 0o644, 0o755),
            (0o777, 0o640, 0o750),
            (0o111, 0o666, 0o777),
            (0o666, 0o600, 0o600),
            (0o4755, 0o644, 0o755),
            (0o011, 0o644, 0o644),
            (0o000, 0o644, 0o644),
        ] {
            assert_eq!(Mode::of(published).applied_to(made), applied, "{published:o} on {made:o}");
        }
        assert_eq!(Mode::UNKNOWN.applied_to(0o644), 0o644);
        // A file in a node's cache, which only its owner may read, is still executable for the next downloader.
        assert!(Mode::of(Mode::of(0o755).applied_to(0o600)).is_executable());
    }

    #[test]
    fn a_mode_survives_encoding_and_other_bytes_decode_to_none() {
        for mode in [Mode::UNKNOWN, Mode::of(0), Mode::of(0o755), Mode::of(0o777)] {
            assert_eq!(Mode::decode(mode.encode()), Some(mode));
        }
        let modes = (0..=u16::MAX).filter(|&encoded| Mode::decode(encoded).is_some()).count();
        assert_eq!(modes, 1 + 0o1000);
    }
}
