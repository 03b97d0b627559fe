//! What the core asks of the world and what it hears back, as plain values.
//!
//! The core names places and moves no byte of content itself: it says which part of which file goes to which stream,
//! and where the bytes that arrive on a stream are to be put, and hears what they hashed to.

use crate::id::Key;
use crate::manifest::{Content, HashAs, Manifest};
use core::fmt;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A TCP stream, named by the driver. Never the same twice, so what is said about one that is gone harms nobody.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct StreamId(pub u64);

/// An attempt to connect, named by the core.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DialId(pub u64);

/// A disk operation under way, named by the core.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DiskId(pub u64);

/// An open file that a user's program passed to the driver, named by the driver.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PassedId(pub u64);

/// A file, by what it is for. Only the disk driver knows where it lies.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Place {
    /// A stored piece: its content starts at offset 0.
    Piece(Key),
    /// A piece that is arriving and has not been committed.
    Incoming(u64),
    /// The manifest of a shared file of several chunks: it starts at offset 0.
    ShareManifest(Key),
    /// A file of the user's.
    File(Arc<Path>),
    /// A file of the user's that is being downloaded: beside its final path, with `.part` appended.
    Partial(Arc<Path>),
    /// A file in the node's own cache, whole or being downloaded.
    Cache(Key),
    /// One chunk of a file that is on its way to a client: it starts at offset 0. Each has a file of its own, written once:
    /// bytes that were sent from it may be shared with the socket.
    Window {
        /// The number of the window.
        window: u64,
        /// The chunk.
        chunk: u32,
    },
}

/// What a file looked like when it was hashed. One that looks different is hashed again before it is served. The inode's
/// number is no part of it: some file systems give a file another one at every mount.
#[derive(Clone, Copy, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct FileStamp {
    /// Length in bytes.
    pub length: u64,
    /// Modification time: nanoseconds since 1970, as the file system tells it. A program may set it to anything.
    pub modified: i64,
    /// Time of the last change of content, names or mode: nanoseconds since 1970. Only the system sets it.
    pub changed: i64,
    /// The file's mode. It goes with the file and says nothing of its content, so two stamps that differ in it are equal.
    pub mode: Mode,
}

impl PartialEq for FileStamp {
    fn eq(&self, other: &Self) -> bool {
        (self.length, self.modified, self.changed) == (other.length, other.modified, other.changed)
    }
}

impl Eq for FileStamp {}

/// The permission bits of a file, as the one who put it in has them: read, write and execute, never set-user-id and the like.
///
/// They are a hint. The address says nothing of them, so any source may claim others, and of several claims the first counts.
/// A download takes over no more than whether the file can be executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize, serde::Deserialize)]
pub struct Mode(Option<u16>);

impl Mode {
    /// Nothing is known.
    pub const UNKNOWN: Mode = Mode(None);
    /// Tells the mode 000 from none, on the wire and on disk.
    const KNOWN: u16 = 0x8000;

    /// The nine permission bits of a file's mode.
    pub fn of(bits: u32) -> Mode {
        Mode(Some((bits & 0o777) as u16))
    }

    /// The bits, when they are known: at most 0o777.
    pub fn bits(self) -> Option<u32> {
        self.0.map(u32::from)
    }

    /// As two bytes say it; `None` when they say what no mode is.
    pub fn decode(encoded: u16) -> Option<Mode> {
        match encoded {
            0 => Some(Mode::UNKNOWN),
            _ if encoded & !0o777 == Mode::KNOWN => Some(Mode(Some(encoded & 0o777))),
            _ => None,
        }
    }

    /// As two bytes; zero when nothing is known.
    pub fn encode(self) -> u16 {
        self.0.map_or(0, |bits| bits | Mode::KNOWN)
    }

    /// Whether the file can be executed: its owner may.
    pub fn is_executable(self) -> bool {
        self.bits().is_some_and(|bits| bits & 0o100 != 0)
    }

    /// The permissions of a file that was made with the permissions `made`: when this mode is that of an executable, all may
    /// execute it that may read it. A claim that nothing proves gives nobody more to read or to write.
    pub fn applied_to(self, made: u32) -> u32 {
        if self.is_executable() { made | (made >> 2) & 0o111 } else { made }
    }
}

/// What may be done with a file that was downloaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Permissions {
    /// As for any new file, and that it may be executed when this mode is that of an executable. A file that replaces another has
    /// that one's permissions instead.
    Usual(Mode),
    /// Exactly these, as the user asked, also for a file that was there already.
    Exact(Mode),
}

/// A run of bytes in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Extent {
    /// The file.
    pub place: Place,
    /// The first byte.
    pub offset: u64,
    /// How many.
    pub length: u32,
    /// What the file must look like; `None` for files that only the node itself writes.
    pub stamp: Option<FileStamp>,
}

/// Where the next `length` raw bytes of a stream go, and how they are hashed on the way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sink {
    /// The file, created when it is not there.
    pub place: Place,
    /// Where in the file.
    pub offset: u64,
    /// How many bytes.
    pub length: u32,
    /// How the piece is hashed.
    pub hash_as: HashAs,
}

/// A piece that is here, with all that its content can be checked by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PieceAt {
    /// What its content must come to.
    pub key: Key,
    /// What it is.
    pub content: Content,
    /// Where a chunk starts in the file that it is a chunk of.
    pub input_offset: u64,
    /// Where its bytes lie.
    pub extent: Extent,
}

/// A shared file, with all that its content can be checked by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileAt {
    /// What its content must hash to.
    pub hash: Key,
    /// Its length in bytes.
    pub length: u64,
    /// Where it lies.
    pub place: Place,
    /// What it looked like when it was hashed.
    pub stamp: FileStamp,
}

/// What a second reading of a piece showed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Soundness {
    /// Every byte is what it should be.
    Sound,
    /// The bytes are not what the key says, or what lies beside them is damaged.
    Rotten,
    /// The medium could not give the bytes.
    Unreadable,
    /// There is no such file any more.
    Missing,
}

/// What is kept with a stored piece.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PieceMeta {
    /// The piece.
    pub key: Key,
    /// What it is.
    pub content: Content,
    /// Its length in bytes.
    pub length: u32,
    /// Where a chunk starts in its file.
    pub input_offset: u64,
    /// How many nodes are to keep it.
    pub replicas: u8,
    /// Of the piece under a file's own hash: the file's mode, as it was offered.
    pub mode: Mode,
    /// When it expires, in seconds of the node's age (see [`Ages`]).
    pub expires: u64,
}

/// Whether a file is what a share claims.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ShareState {
    /// It looks as it did when it was hashed: it is served.
    #[default]
    Present,
    /// It looks different, or may not be whole: it is hashed again before anything of it is served.
    Doubtful,
    /// It has other content. The claim stands until the user ends it, or the content is back.
    Changed,
    /// It cannot be opened: its medium may be missing. It is looked for again.
    Absent,
}

/// A claim of the user's: the file at this place has the content of this address, and is served from there. A place has at most
/// one claim; an address may have several.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Share {
    /// The file's address.
    pub hash: Key,
    /// The length in bytes of the file with this address.
    pub length: u64,
    /// Where it lies: [`Place::File`] or [`Place::Cache`].
    pub place: Place,
    /// What it looked like when it was last hashed.
    pub stamp: FileStamp,
    /// Whether the file is what it should be.
    pub state: ShareState,
    /// How many copies the network is to keep: 0 when it is only shared.
    pub replicas: u8,
    /// Seconds that copies are to be kept.
    pub lifetime: u32,
    /// Whether every chunk has been copied to as many nodes as were asked for.
    pub replicated: bool,
    /// Whether its content is known to be on disk. What was downloaded is synced when the run ends in order: after a
    /// power cut before that it is hashed again, or dropped when it lies in the cache.
    pub synced: bool,
}

/// Time as the node counts it over restarts: nobody needs to know what year it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Ages {
    /// How often the node has been started.
    pub boots: u64,
    /// Seconds that it has been running, all runs together, as last written down.
    pub seconds: u64,
    /// Whether the last run ended in order.
    pub clean: bool,
}

/// What the file system that the node's directory lies on has, as it tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// Bytes of a block: a file takes whole ones. 0 when that is not known.
    pub block_bytes: u32,
    /// Bytes in all; 0 when that is not known.
    pub total_bytes: u64,
    /// Bytes that this user may still take.
    pub free_bytes: u64,
    /// Files (inodes) in all; 0 when there is no fixed number of them.
    pub total_files: u64,
    /// Files that may still be made.
    pub free_files: u64,
}

impl Default for Space {
    /// Nothing is known, and nothing is bounded.
    fn default() -> Self {
        Space { block_bytes: 0, total_bytes: 0, free_bytes: u64::MAX, total_files: 0, free_files: u64::MAX }
    }
}

/// What a node finds in its directory when it starts.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// This run's number and the age so far.
    pub ages: Ages,
    /// Stored pieces, in no particular order.
    pub pieces: Vec<PieceMeta>,
    /// Claims on shared files, in the order in which they were made. [`ShareState`] says what was found of each.
    pub shares: Vec<Share>,
    /// The manifests of shared files of several chunks, as far as they could be read.
    pub manifests: BTreeMap<Key, Arc<Manifest>>,
    /// Encoded contacts of last time: see [`DiskOp::SavePeers`].
    pub peers: Vec<u8>,
    /// This node's own value records, encoded: see [`DiskOp::SaveRecords`].
    pub records: Vec<u8>,
    /// What the file system has.
    pub space: Space,
    /// How far the scrub was: see [`DiskOp::SaveScrub`].
    pub scrub: Vec<u8>,
}

/// Something to be done on disk. Each is answered by one [`DiskDone`], after any number of [`DiskReply::Progress`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DiskOp {
    /// Hash a user's file, a slice at a time, and sync it. Answer: [`DiskReply::Hashed`].
    Hash {
        /// The file.
        place: Place,
        /// The descriptor of it that was passed; `None` when the driver is to open it by its path.
        passed: Option<PassedId>,
        /// Nobody waits for it: whatever else there is to do comes first.
        background: bool,
    },
    /// Write a claim down, in place of an earlier one on the same place: durably, when its content is known to be on disk.
    /// Several that come together are synced together. Answer: [`DiskReply::Done`].
    SaveShare {
        /// The claim.
        share: Share,
        /// The file's manifest, when it has one and that has not been written down. It is durable before the claim is.
        manifest: Option<Arc<Manifest>>,
    },
    /// Forget a claim, durably, and delete its file when that is in the cache. Answer: [`DiskReply::Done`].
    RemoveShare {
        /// The claim.
        share: Share,
        /// Whether no other claim has this address: its manifest is deleted too.
        last: bool,
    },
    /// Read a short file or a part of one into memory. Answer: [`DiskReply::Bytes`].
    Read(Extent),
    /// Open the file of a download, for that alone, and hash what an earlier attempt left there: its directory must be
    /// writable, and its final name must not be a directory's, nor (unless `force`) another file's. Answer:
    /// [`DiskReply::Opened`], or [`DiskReply::Finished`] when the final name is a file of this content already. The error
    /// is [`DiskErrorKind::Exists`] or [`DiskErrorKind::Locked`] when the name is taken.
    OpenTarget {
        /// [`Place::Partial`] or [`Place::Cache`].
        place: Place,
        /// What the file is to become.
        manifest: Arc<Manifest>,
        /// Whether a file that has the final name is replaced.
        force: bool,
        /// What may be done with it then.
        permissions: Permissions,
    },
    /// Hash the chunks of a file, a slice at a time. Answer: [`DiskReply::Checked`].
    Check {
        /// The file.
        place: Place,
        /// What it is to become.
        manifest: Arc<Manifest>,
    },
    /// Write bytes into a target. Answer: [`DiskReply::Done`].
    WriteTarget {
        /// [`Place::Partial`] or [`Place::Cache`].
        place: Place,
        /// Where in the file.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// Copy a piece from one file to another, hashing it. Answer: [`DiskReply::Copied`].
    Copy {
        /// From where.
        from: Extent,
        /// Where to, and how it is hashed.
        to: Sink,
    },
    /// A download is complete: give it its final name. When another program may have written into the file, every byte is
    /// hashed again before; when one may have done so as the name was given, after it, and a name with wrong content is taken
    /// back. Answer: [`DiskReply::Finished`] or [`DiskReply::Spoiled`]. The error is [`DiskErrorKind::Lost`] when the file was
    /// removed or replaced, [`DiskErrorKind::Exists`] when another file has got the name meanwhile.
    FinishTarget {
        /// [`Place::Partial`] or [`Place::Cache`].
        place: Place,
    },
    /// Give the open file of a download up. Answer: [`DiskReply::Done`].
    CloseTarget {
        /// [`Place::Partial`] or [`Place::Cache`].
        place: Place,
        /// Whether what is there is of no use to another attempt.
        delete: bool,
    },
    /// Make an arrived piece durable: data, then name, then directory. Answer: [`DiskReply::Done`].
    Commit {
        /// The number of its [`Place::Incoming`].
        incoming: u64,
        /// What to keep with it.
        meta: PieceMeta,
    },
    /// Write a piece from memory, durably. Answer: [`DiskReply::Done`].
    WritePiece {
        /// What to keep with it.
        meta: PieceMeta,
        /// Its content.
        bytes: Vec<u8>,
    },
    /// Keep a stored piece on more nodes or longer than it was stored with, durably. Several that come together are synced
    /// together. Answer: [`DiskReply::Done`].
    Raise {
        /// The piece.
        key: Key,
        /// How many nodes are to keep it, at the least.
        replicas: u8,
        /// When it expires at the earliest, in seconds of the node's age.
        expires: u64,
    },
    /// Read a piece again and check it against its key, a slice at a time. Of a stored piece the trailer and its checksums
    /// are checked too. Answer: [`DiskReply::Verified`]; an error when it cannot be told, or when a share's file
    /// has changed.
    Verify {
        /// The piece.
        piece: PieceAt,
        /// Whether it waits until the disk has nothing else to do. Then it also reads from the medium rather than from
        /// the page cache, and leaves that as it was.
        idle: bool,
    },
    /// Read a shared file again and check it against its hash, when the disk has nothing else to do. Answer:
    /// [`DiskReply::Verified`]; an error when it cannot be told, when the file has changed, or when it is not there.
    VerifyFile(FileAt),
    /// Delete a stored or an arriving piece, a download's file, or the manifest of a file that is not shared any more. Answer:
    /// [`DiskReply::Done`].
    Remove(Place),
    /// Remember contacts for the next start. Not synced. Answer: [`DiskReply::Done`].
    SavePeers(Vec<u8>),
    /// Remember own value records, durably. Answer: [`DiskReply::Done`].
    SaveRecords(Vec<u8>),
    /// Remember how far the scrub is. Not synced. Answer: [`DiskReply::Done`].
    SaveScrub(Vec<u8>),
    /// Write down the node's age. Answer: [`DiskReply::Done`].
    SaveAges(Ages),
}

/// How a disk operation ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskDone {
    /// Which.
    pub id: DiskId,
    /// What it found, or why it failed.
    pub result: Result<DiskReply, DiskError>,
}

/// What a disk operation found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DiskReply {
    /// It is done.
    Done,
    /// A file was hashed.
    Hashed {
        /// Its manifest.
        manifest: Arc<Manifest>,
        /// What it looked like.
        stamp: FileStamp,
        /// Whether this process may not open the file itself: the driver keeps the descriptor that was passed, and the
        /// file can be served until the process ends.
        kept_open: bool,
    },
    /// How far a [`DiskOp::Hash`] or a [`DiskOp::Check`] has come. It is not the last word on the operation.
    Progress {
        /// Bytes so far.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// What was read.
    Bytes(Vec<u8>),
    /// The file of a download is open.
    Opened {
        /// Where it lies until it is complete.
        path: PathBuf,
        /// Which chunks an earlier attempt left there, one for each chunk; empty is none.
        good: Vec<bool>,
        /// Which chunks are in the file that will be replaced, likewise.
        old: Vec<bool>,
    },
    /// Which chunks of a file are good.
    Checked {
        /// One for each chunk.
        good: Vec<bool>,
    },
    /// A piece was copied.
    Copied {
        /// What it hashed to.
        key: Key,
    },
    /// A piece was read again.
    Verified {
        /// What that showed.
        soundness: Soundness,
    },
    /// A download has its final name.
    Finished {
        /// What it looks like.
        stamp: FileStamp,
        /// Where it is: the name that was asked for, or what a symbolic link there points to.
        path: PathBuf,
    },
    /// Another program wrote into the file of a download, which has not got its name.
    Spoiled {
        /// The chunks that are good all the same, one for each chunk.
        good: Vec<bool>,
    },
}

/// What the driver sees when it looks at the node's directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskLook {
    /// Whether a few bytes were written and synced as a trial.
    pub tried: bool,
    /// Bytes that the file system has left for this user.
    pub free_bytes: u64,
    /// Inodes; as many as there can be where the file system does not count them.
    pub free_inodes: u64,
}

/// What kind of trouble a disk operation met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskErrorKind {
    /// The disk is full, or the user's quota on it.
    NoSpace,
    /// There is no such file or directory.
    NotFound,
    /// Permission denied, or a read-only file system.
    Denied,
    /// The file is not what it was, or changed while it was read.
    Changed,
    /// The file is too large, or not a regular file.
    Unsuitable,
    /// The system is short of descriptors or memory: it says nothing of the file, and another time it may work.
    Busy,
    /// The node's directory is not there any more: it was deleted, or the medium was taken away. What is missing in it is not
    /// lost for that.
    Gone,
    /// Another download is writing the file.
    Locked,
    /// Another file has the name.
    Exists,
    /// The file of a download was removed or replaced: what it held is gone.
    Lost,
    /// Anything else: the medium may be broken.
    Failed,
}

/// Why a disk operation failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskError {
    /// What kind of trouble.
    pub kind: DiskErrorKind,
    /// What was tried on which file and what the system said, for a person to read.
    pub message: String,
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DiskError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_execute_an_executable_that_may_read_it_and_nothing_else_changes() {
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
        // What was fetched into a node's own cache, which only its owner reads, is an executable for the next one too.
        assert!(Mode::of(Mode::of(0o755).applied_to(0o600)).is_executable());
    }

    #[test]
    fn two_bytes_say_a_mode_or_nothing_else() {
        for mode in [Mode::UNKNOWN, Mode::of(0), Mode::of(0o755), Mode::of(0o777)] {
            assert_eq!(Mode::decode(mode.encode()), Some(mode));
        }
        let modes = (0..=u16::MAX).filter(|&encoded| Mode::decode(encoded).is_some()).count();
        assert_eq!(modes, 1 + 0o1000);
    }
}
