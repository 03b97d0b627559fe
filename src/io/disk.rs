//! Disk operations: what the core asks of the disk, and the answers.

use super::{
    Ages, DiskId, Extent, FileAt, FileStamp, PassedId, Permissions, PieceAt, PieceMeta, Place, Run, Share,
    Sink, Soundness, Tree,
};
use crate::claim::PieceClaim;
use crate::id::Key;
use crate::manifest::Manifest;
use core::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// A disk operation. One [`DiskDone`] answers it, after any number of [`DiskReply::Progress`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DiskOp {
    /// Hash a file of the user, a slice at a time, and sync it. Answer: [`DiskReply::Hashed`].
    Hash {
        /// The file.
        place: Place,
        /// The passed descriptor of the file; `None` when the driver opens it by its path.
        passed: Option<PassedId>,
        /// Whether no command waits for it. All other work then comes first.
        background: bool,
    },
    /// Save a share; it replaces an earlier one of the same place. It is durable if the file's content is known to be on disk.
    /// Concurrent operations share one sync. Answer: [`DiskReply::Done`].
    SaveShare {
        /// The share.
        share: Share,
        /// The file's manifest, if it has one that is not saved yet. It is durable before the share is.
        manifest: Option<Arc<Manifest>>,
    },
    /// Remove a share, durably, and its file if that is in the cache. Answer: [`DiskReply::Done`].
    RemoveShare {
        /// The share.
        share: Share,
        /// Whether it is the last share of its address. Then its manifest is deleted too.
        last: bool,
    },
    /// Read a short file or a part of one into memory. Answer: [`DiskReply::Bytes`].
    Read(Extent),
    /// Read parts of an extent into memory. Answer: [`DiskReply::Bytes`], the parts in their order.
    Sample {
        /// The extent.
        extent: Extent,
        /// The parts, in ascending order and apart from each other.
        runs: Vec<Run>,
    },
    /// Open the target of a download, exclusively, and hash the content that an earlier attempt left there. Its directory must
    /// be writable, and its final name must not belong to a directory or, unless `force` is set, to another file. Answer:
    /// [`DiskReply::Opened`], or [`DiskReply::Finished`] when the final name has this content already. The error is
    /// [`DiskErrorKind::Exists`] or [`DiskErrorKind::Locked`] when the name is taken.
    OpenTarget {
        /// [`Place::Partial`] or [`Place::Cache`].
        place: Place,
        /// The manifest of the complete file.
        manifest: Arc<Manifest>,
        /// Whether the download replaces a file that has the final name.
        force: bool,
        /// The permissions of the complete file.
        permissions: Permissions,
        /// The tree of a file that is one of a set.
        tree: Option<Tree>,
    },
    /// Hash the chunks of a file, a slice at a time. Answer: [`DiskReply::Checked`].
    Check {
        /// The file.
        place: Place,
        /// The manifest of the complete file.
        manifest: Arc<Manifest>,
    },
    /// Write bytes into a target. Answer: [`DiskReply::Done`].
    WriteTarget {
        /// [`Place::Partial`] or [`Place::Cache`].
        place: Place,
        /// The offset in the file.
        offset: u64,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Copy a piece from one file to another, and hash it. Answer: [`DiskReply::Copied`].
    Copy {
        /// The source.
        from: Extent,
        /// The target, and how the piece is hashed.
        to: Sink,
    },
    /// Give a complete download its final name. When another program may have written into the file, the driver hashes every byte
    /// again before that. When one may have done so during the rename, it hashes again after it, and takes the name back from
    /// wrong content. Answer: [`DiskReply::Finished`] or [`DiskReply::Spoiled`]. The error is [`DiskErrorKind::Lost`] when the
    /// file was removed or replaced, [`DiskErrorKind::Exists`] when another file took the name meanwhile.
    FinishTarget {
        /// [`Place::Partial`] or [`Place::Cache`].
        place: Place,
    },
    /// Close the target of a download. Answer: [`DiskReply::Done`].
    CloseTarget {
        /// [`Place::Partial`] or [`Place::Cache`].
        place: Place,
        /// Whether to delete the file, whose content is of no use to a later attempt.
        delete: bool,
    },
    /// Make an arrived piece durable: data, then name, then directory. Answer: [`DiskReply::Done`].
    Commit {
        /// The number of its [`Place::Incoming`].
        incoming: u64,
        /// Its metadata.
        meta: PieceMeta,
    },
    /// Write a piece from memory, durably. Answer: [`DiskReply::Done`].
    WritePiece {
        /// Its metadata.
        meta: PieceMeta,
        /// Its content.
        bytes: Vec<u8>,
    },
    /// Raise the number of copies or the lifetime of a stored piece, durably. Concurrent operations share one sync. Answer:
    /// [`DiskReply::Done`].
    Raise {
        /// The piece.
        key: Key,
        /// The least number of copies that the network keeps.
        replicas: u8,
        /// The earliest time of its expiry, in seconds of the node's age.
        expires: u64,
        /// The claim that raises it.
        claim: Option<PieceClaim>,
    },
    /// Read a piece again and verify it against its key, a slice at a time; of a stored piece, also its trailer and checksums.
    /// Answer: [`DiskReply::Verified`]; an error when the result is uncertain, or when a share's file has changed.
    Verify {
        /// The piece.
        piece: PieceAt,
        /// Whether it waits for the disk's idle time. Then it also reads from the medium instead of the page cache, and leaves
        /// the page cache unchanged.
        idle: bool,
    },
    /// Read a shared file again in the disk's idle time and verify it against its hash. Answer: [`DiskReply::Verified`]; an error
    /// when the result is uncertain, or when the file has changed or is missing.
    VerifyFile(FileAt),
    /// Delete a stored or an arriving piece, the target of a download, or the manifest of a file that is no longer shared. Answer:
    /// [`DiskReply::Done`].
    Remove(Place),
    /// Save contacts for the next start. Not synced. Answer: [`DiskReply::Done`].
    SavePeers(Vec<u8>),
    /// Save own value records, durably. Answer: [`DiskReply::Done`].
    SaveRecords(Vec<u8>),
    /// Save the progress of scrub. Not synced. Answer: [`DiskReply::Done`].
    SaveScrub(Vec<u8>),
    /// Save the node's age. Answer: [`DiskReply::Done`].
    SaveAges(Ages),
}

impl DiskOp {
    /// The place that does not lead to its file any more once this operation has run: the file is deleted, closed, or renamed. What is
    /// still to be read of the file must be opened before.
    pub fn vacates(&self) -> Option<&Place> {
        match self {
            DiskOp::Remove(place) | DiskOp::FinishTarget { place } | DiskOp::CloseTarget { place, .. } => {
                Some(place)
            }
            DiskOp::RemoveShare { share, .. } => Some(&share.place),
            _ => None,
        }
    }
}

/// The end of a disk operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskDone {
    /// The operation.
    pub id: DiskId,
    /// Its result.
    pub result: Result<DiskReply, DiskError>,
}

/// The result of a disk operation that succeeded.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DiskReply {
    /// Success, without further data.
    Done,
    /// A file was hashed.
    Hashed {
        /// Its manifest.
        manifest: Arc<Manifest>,
        /// Its stamp.
        stamp: FileStamp,
        /// Whether the driver keeps the passed descriptor because this process may not open the file itself. The node can then
        /// serve the file until the process ends.
        kept_open: bool,
    },
    /// The progress of a [`DiskOp::Hash`] or a [`DiskOp::Check`]. A final answer follows.
    Progress {
        /// Bytes so far.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The bytes that were read.
    Bytes(Vec<u8>),
    /// The target of a download is open.
    Opened {
        /// Its path until it is complete.
        path: PathBuf,
        /// For each chunk, whether the target has it from an earlier attempt; empty when it has none.
        good: Vec<bool>,
        /// For each chunk, whether the file that will be replaced has it; empty when it has none.
        old: Vec<bool>,
    },
    /// The chunks of a file were hashed.
    Checked {
        /// For each chunk, whether it matches its key.
        good: Vec<bool>,
    },
    /// A piece was copied.
    Copied {
        /// The key of the copied bytes.
        key: Key,
    },
    /// A piece or a file was verified again.
    Verified {
        /// The result.
        soundness: Soundness,
    },
    /// A download has its final name.
    Finished {
        /// The file's stamp.
        stamp: FileStamp,
        /// The file's path: the requested name, or the target of a symbolic link there.
        path: PathBuf,
    },
    /// Another program wrote into the target of a download, which does not have its final name.
    Spoiled {
        /// For each chunk, whether it is still good.
        good: Vec<bool>,
    },
}

/// The result of checking the node's directory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskLook {
    /// Whether the driver wrote and synced a few bytes as a trial.
    pub tried: bool,
    /// The bytes that this user can still allocate.
    pub free_bytes: u64,
    /// The inodes that are free; the highest number where the file system does not count them.
    pub free_inodes: u64,
}

/// The kind of a disk error.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DiskErrorKind {
    /// The disk is full, or the user's quota on it.
    NoSpace,
    /// The file or directory does not exist.
    NotFound,
    /// Permission denied, or a read-only file system.
    Denied,
    /// The file's stamp differs, or the file changed while it was read.
    Changed,
    /// The file is too large, or not a regular file.
    Unsuitable,
    /// The system is short of descriptors or memory. The file may be fine, and a later attempt may succeed.
    Busy,
    /// The node's directory is gone: it was deleted, or its medium was removed. Files missing in it do not count as lost.
    Gone,
    /// Another download is writing the file.
    Locked,
    /// Another file has the name.
    Exists,
    /// The target of a download was removed or replaced, with its content.
    Lost,
    /// Any other error, such as one of the medium.
    Failed,
}

/// Why a disk operation failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DiskError {
    /// The kind of the error.
    pub kind: DiskErrorKind,
    /// For a person to read: the operation, the file, and the system's error.
    pub message: String,
}

impl fmt::Display for DiskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DiskError {}
