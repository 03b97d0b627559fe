//! The commands of a node and their answers. Over the control socket they are JSON, one object a line.

mod event;
mod explanation;
mod line;
mod status;
mod trouble;

pub use event::{Event, Numbered};
pub use explanation::{CopiesOf, ExplainedNode, Explanation, Loss, Repair, Run, UnderRepair};
pub use line::{Wrapping, parse_line};
pub use status::{
    AddressGone, BootstrapName, DiskHealth, DiskStatus, GossipStatus, IdentityTwice, Learned, MemberState,
    PartitionStatus, Peer, PeerBan, RepairStatus, Role, ScrubReport, ScrubStatus, Status, Unreachable,
};
pub use trouble::{Trouble, TroubleKind};

use crate::id::{Key, NodeId, PublicKey};
use crate::limits::Rates;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A command under way. The driver chooses the number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CommandId(pub u64);

/// A command. Its answers are any number of [`Response::Progress`] and [`Response::Content`], and then one of the others.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Share a file where it lies and copy its chunks to other nodes.
    Put {
        /// The file's absolute path.
        #[serde(with = "path")]
        path: PathBuf,
        /// The number of copies in the network; 0 only shares the file; `None` is the node's default.
        #[serde(default)]
        replicas: Option<u8>,
        /// The lifetime of the copies in seconds; `None` is the node's default.
        #[serde(default)]
        lifetime: Option<u32>,
    },
    /// Fetch a file.
    Get {
        /// Its address.
        hash: Key,
        /// The target's absolute path; `None` is a file in the node's cache, whose path is in every answer.
        #[serde(default, with = "path::option")]
        target: Option<PathBuf>,
        /// Whether another file at the target is replaced. If not, it is an error.
        #[serde(default)]
        force: bool,
        /// The permission bits of the new file, at most 0o777. `None` is the default for new files, plus executable if the file was
        /// so where it was put.
        #[serde(default)]
        mode: Option<u32>,
        /// Seconds without progress after which the command fails; `None` is the node's default, 0 is never.
        #[serde(default)]
        timeout: Option<u32>,
    },
    /// Fetch a file of a set to its place in a directory. A file that has the place is replaced. No symbolic link below the directory
    /// is followed.
    GetEntry {
        /// Its address.
        hash: Key,
        /// The absolute path of the directory.
        #[serde(with = "path")]
        directory: PathBuf,
        /// The place below the directory: names only. The directories on it exist.
        #[serde(with = "path")]
        place: PathBuf,
        /// The permission bits of the file, at most 0o777; `None` are those of any new file.
        #[serde(default)]
        mode: Option<u32>,
        /// Its time of modification, in seconds since 1970; `None` is the time at which it is complete.
        #[serde(default)]
        modified: Option<i64>,
        /// Seconds without progress after which the command fails; `None` is the node's default, 0 is never.
        #[serde(default)]
        timeout: Option<u32>,
    },
    /// Audit a file: ask which nodes hold which pieces of it now.
    Explain {
        /// Its address.
        hash: Key,
        /// Seconds after which nodes that have not answered are reported as silent; `None` is 30.
        #[serde(default)]
        timeout: Option<u32>,
    },
    /// Stop sharing a file. The file stays, unless it is in the node's own cache.
    Remove {
        /// Its address.
        hash: Key,
    },
    /// List the files that this node shares, as many as fit in one answer.
    List {
        /// The last file of the answer before; `None` for the first page.
        #[serde(default)]
        after: Option<Listed>,
    },
    /// Publish a value under this node's key.
    Set {
        /// 1 to 64 bytes, no control characters, no `/`.
        name: String,
        /// At most 896 bytes.
        value: Vec<u8>,
        /// Seconds that other nodes keep the value without hearing from this node; `None` is the node's default.
        #[serde(default)]
        lifetime: Option<u32>,
    },
    /// Stop publishing a value.
    Unset {
        /// Its name.
        name: String,
    },
    /// List the values that this node publishes.
    Values,
    /// Find a value.
    Lookup {
        /// The publisher's key.
        publisher: PublicKey,
        /// Its name.
        name: String,
        /// Whether only the network's answer counts: neither this node's own record nor what it found within the last hour.
        #[serde(default)]
        fresh: bool,
    },
    /// List the nodes in the routing table.
    Peers,
    /// Lift the bans of a peer that sent content which does not verify.
    Forgive {
        /// The peer; `None` is all peers.
        #[serde(default)]
        peer: Option<NodeId>,
    },
    /// Report the node's status.
    Status,
    /// Read everything on disk again now, and drop rotten content.
    Scrub {
        /// Whether to answer at once, and scrub in the background.
        #[serde(default)]
        background: bool,
    },
    /// Report the node's id and key.
    Id,
    /// Report what happens: answered as soon as there are events. A client then asks again for those that follow.
    Events {
        /// The number of the last event that the client knows; `None` is the last that there is.
        #[serde(default)]
        after: Option<u64>,
    },
    /// Hand over pieces with too few other copies, say goodbye to the network, and stop.
    Leave {
        /// The time limit for handing over, in seconds; `None` is 60.
        #[serde(default)]
        timeout: Option<u32>,
    },
    /// Change limits of the running node; `None` leaves one as it is. The changes end with a restart.
    Limit {
        /// Bytes per second to all peers together; 0 is unlimited.
        #[serde(default)]
        upload: Option<u64>,
        /// Bytes per second from all peers together; 0 is unlimited.
        #[serde(default)]
        download: Option<u64>,
        /// Bytes per second to one peer; 0 is unlimited.
        #[serde(default)]
        peer_upload: Option<u64>,
        /// Bytes per second from one peer; 0 is unlimited.
        #[serde(default)]
        peer_download: Option<u64>,
        /// The number of TCP streams.
        #[serde(default)]
        streams: Option<usize>,
        /// The number of peers that are sent content at a time.
        #[serde(default)]
        uploads: Option<usize>,
    },
    /// Read a file, or a part of one, in order. The bytes come with the answers ([`Response::Content`]), each of them verified. The
    /// node keeps none of them.
    Read {
        /// The file's address.
        hash: Key,
        /// The part; `None` is the whole file.
        #[serde(default)]
        part: Option<Part>,
        /// Seconds without progress after which the command fails; `None` is the node's default, 0 is never.
        #[serde(default)]
        timeout: Option<u32>,
    },
}

/// A part of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Part {
    /// From one byte to another.
    Between {
        /// The first byte.
        start: u64,
        /// The byte after the last one. `None`, or a number past the end, is the end of the file.
        #[serde(default)]
        end: Option<u64>,
    },
    /// The last bytes, this many; the whole file if it is shorter.
    Last(u64),
}

impl Part {
    /// The range of bytes in a file of `length` bytes. `None` when the file ends before the part begins. An empty range is valid if its
    /// position exists in the file.
    pub fn of(&self, length: u64) -> Option<core::ops::Range<u64>> {
        match *self {
            Part::Between { start, end } => {
                let end = end.unwrap_or(u64::MAX);
                let is_there = start < length || start == 0 || start == length && end <= start;
                is_there.then(|| start..end.min(length).max(start))
            }
            Part::Last(bytes) => Some(length.saturating_sub(bytes)..length),
        }
    }
}

/// An answer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Response {
    /// The command made progress.
    Progress(Progress),
    /// Bytes of a file. Over the control socket, this line is followed by that number of raw bytes. A program with an embedded node
    /// takes them with [`Driver::read_content`](crate::net::Driver::read_content).
    Content(Content),
    /// The command succeeded.
    Done(Reply),
    /// The command failed.
    Failed(Failure),
}

/// A run of bytes of a file that is being read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Content {
    /// The first byte, counted from the start of the file: the end of the run before.
    pub offset: u64,
    /// The number of bytes, at least 1.
    pub length: u32,
    /// The length of the file.
    pub file_length: u64,
}

/// The progress of a command.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// The present stage.
    pub stage: Stage,
    /// What is done: bytes; or pieces when replicating or handing over; nodes when looking up; answers when inspecting.
    pub done: u64,
    /// The total, in the same unit; 0 when it is unknown.
    pub total: u64,
    /// When downloading: the verified bytes without a gap, from the start of the file or of the part.
    pub prefix: u64,
    /// When downloading: the file that holds the bytes.
    #[serde(default, with = "path::option")]
    pub path: Option<PathBuf>,
}

/// The stage of a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Looking up nodes in the network.
    LookingUp,
    /// Reading and hashing the file.
    Hashing,
    /// Copying pieces to other nodes.
    Replicating,
    /// Verifying what an earlier attempt left.
    Checking,
    /// Receiving pieces from other nodes.
    Downloading,
    /// Asking other nodes which pieces they have.
    Inspecting,
    /// Copying pieces with too few other copies, before the node leaves.
    HandingOver,
    /// Reading everything on disk again.
    Scrubbing,
    /// Looking for more sources: nothing has arrived for a while.
    Waiting,
    /// Waiting for its turn: [`done`](Progress::done) is the number of others before it.
    Queued,
}

/// The result of a command that succeeded.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// The file is shared; `copies` tells how far it is copied.
    Put {
        /// Its address.
        hash: Key,
        /// Its length in bytes.
        length: u64,
        /// The copies of the piece with the fewest, including this node's own.
        copies: u32,
        /// The number of copies requested.
        replicas: u8,
        /// Whether `copies` is a quorum: at least ⌊replicas/2⌋+1, or `replicas` is 0.
        quorum: bool,
        /// Whether the node has no permission to open the file, and shares it through the descriptor that came with the command,
        /// until the node stops.
        #[serde(default)]
        kept_open: bool,
    },
    /// The file is complete; every byte is verified.
    Get {
        /// Its address.
        hash: Key,
        /// Its length in bytes.
        length: u64,
        /// Its path.
        #[serde(with = "path")]
        path: PathBuf,
        /// The number of nodes that sent content.
        sources: u32,
    },
    /// Every requested byte has been sent, verified.
    Read {
        /// The file's address.
        hash: Key,
        /// The file's length in bytes.
        length: u64,
        /// The first byte.
        start: u64,
        /// The number of bytes.
        bytes: u64,
        /// The number of nodes that sent content.
        sources: u32,
    },
    /// The result of the audit.
    Explain(Box<Explanation>),
    /// What has happened.
    Events {
        /// In order, at least one, not always all that there are.
        events: Vec<Numbered>,
        /// The number of events before them that the node has forgotten.
        missed: u64,
    },
    /// The file is no longer shared.
    Remove {
        /// Its address.
        hash: Key,
    },
    /// The shared files.
    List {
        /// Ordered by address, then by path.
        files: Vec<SharedFile>,
        /// Whether there are more: ask again with the last one.
        #[serde(default)]
        more: bool,
    },
    /// The value is published.
    Set {
        /// The publisher's key: this node's.
        publisher: PublicKey,
        /// Its name.
        name: String,
        /// The number of nodes that keep it, including this one if it is among the closest.
        copies: u32,
        /// Its sequence number.
        sequence: u64,
    },
    /// The value is no longer published.
    Unset {
        /// The publisher's key: this node's.
        publisher: PublicKey,
        /// Its name.
        name: String,
        /// Seconds for which other nodes may still keep it.
        lifetime: u32,
    },
    /// The values that this node publishes.
    Values {
        /// The publisher's key: this node's.
        publisher: PublicKey,
        /// Ordered by name.
        values: Vec<OwnValue>,
    },
    /// The value.
    Lookup {
        /// The publisher's key.
        publisher: PublicKey,
        /// Its name.
        name: String,
        /// The value.
        value: Vec<u8>,
        /// Its sequence number.
        sequence: u64,
        /// The number of nodes asked; 0 when this node itself publishes the value.
        asked: u32,
        /// Whether the network did not confirm the value: too few nodes answered, or those that did do not have it. It is the newest
        /// that this node keeps or has found within the last hour.
        #[serde(default)]
        from_memory: bool,
    },
    /// The routing table, nearest first.
    Peers {
        /// Its contacts.
        peers: Vec<Peer>,
    },
    /// The bans are lifted.
    Forgive {
        /// The number of bans lifted.
        bans: u32,
    },
    /// The node's status.
    Status(Box<Status>),
    /// The scrub has ended, or runs.
    Scrub {
        /// Whether it runs in the background; then the report is empty.
        running: bool,
        /// Its findings.
        report: ScrubReport,
    },
    /// The node's identity.
    Id {
        /// Its id, a point of the key space.
        id: NodeId,
        /// Its public key.
        public: PublicKey,
    },
    /// The limits now in force.
    Limit {
        /// Bytes per second.
        rates: Rates,
        /// The number of TCP streams.
        streams: usize,
        /// The number of peers that are sent content at a time.
        uploads: usize,
    },
    /// The node has said goodbye, and stops.
    Leave {
        /// Pieces that had too few copies elsewhere and were copied.
        handed_over: u32,
        /// Pieces with no known copy elsewhere: they are unavailable until this node returns.
        left_behind: u32,
    },
}

/// Why a command failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// The kind of failure.
    pub reason: FailureReason,
    /// What was tried, what went wrong and what to do.
    pub message: String,
}

/// The kinds of failure, each with an exit code of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    /// Exit code 1.
    Failed,
    /// The command is invalid: exit code 2.
    Usage,
    /// No node that was asked has it: exit code 3.
    NotFound,
    /// No peer could be reached: exit code 4.
    Unreachable,
    /// Received content does not verify: exit code 6.
    Unverified,
    /// The disk is full, or the quota is used up: exit code 7.
    NoSpace,
    /// A limit is reached for now; try later: exit code 8.
    Busy,
}

/// A value that this node publishes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OwnValue {
    /// Its name.
    pub name: String,
    /// The value.
    pub value: Vec<u8>,
    /// Its sequence number.
    pub sequence: u64,
    /// Seconds that other nodes keep it without hearing from this node.
    pub lifetime: u32,
}

/// The state of a path in the list of files.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    /// The file is served from there.
    Shared,
    /// The file's stamp changed: it is hashed again, and not served until then.
    Checking,
    /// The file's content changed: it is not served. `rm` removes it from the list.
    Changed,
    /// The file cannot be read; its medium may be missing. It is tried again.
    Absent,
    /// The file is being downloaded to this path.
    Downloading,
    /// The download to this path waits for its turn.
    Queued,
}

/// A position in the list of files.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Listed {
    /// The file's address.
    pub hash: Key,
    /// Its path.
    #[serde(with = "path")]
    pub path: PathBuf,
}

/// One path of a shared file or of a download.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SharedFile {
    /// Its address.
    pub hash: Key,
    /// Its length in bytes.
    pub length: u64,
    /// Its path.
    #[serde(with = "path")]
    pub path: PathBuf,
    /// The copies of the piece with the fewest, including this node's own.
    pub copies: u32,
    /// The number of copies requested.
    pub replicas: u8,
    /// Bytes that are here and verified: fewer than `length` during a download.
    pub have: u64,
    /// Whether it is in the node's cache, which evicts files when space is needed.
    pub cached: bool,
    /// Whether the node has no permission to open it, and serves it through the descriptor that came with `put`, until it stops.
    #[serde(default)]
    pub kept_open: bool,
    /// Its state.
    pub state: FileState,
}

/// Paths in JSON: as text, or as serde writes bytes if they are not UTF-8. A file name is any bytes but `/` and 0.
mod path {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use std::ffi::OsString;
    use std::path::{Path, PathBuf};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Name {
        Text(String),
        Bytes(OsString),
    }

    impl From<&Path> for Name {
        fn from(path: &Path) -> Name {
            match path.to_str() {
                Some(text) => Name::Text(text.to_owned()),
                None => Name::Bytes(path.as_os_str().to_owned()),
            }
        }
    }

    impl From<Name> for PathBuf {
        fn from(name: Name) -> PathBuf {
            match name {
                Name::Text(text) => text.into(),
                Name::Bytes(bytes) => bytes.into(),
            }
        }
    }

    pub(super) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        Name::from(path).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        Name::deserialize(deserializer).map(PathBuf::from)
    }

    pub(super) mod option {
        use super::{Deserialize, Deserializer, Name, PathBuf, Serialize, Serializer};

        pub(in super::super) fn serialize<S: Serializer>(
            path: &Option<PathBuf>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            path.as_deref().map(Name::from).serialize(serializer)
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            deserializer: D,
        ) -> Result<Option<PathBuf>, D::Error> {
            Ok(Option::<Name>::deserialize(deserializer)?.map(PathBuf::from))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn paths_that_are_not_utf8_survive_json_and_others_stay_readable() {
        for bytes in [&b"/a/b"[..], b"/bad\xff\n", b""] {
            let path = PathBuf::from(OsStr::from_bytes(bytes));
            let put = Command::Put { path: path.clone(), replicas: None, lifetime: None };
            let get = Command::Get {
                hash: Key([1; 32]),
                target: Some(path),
                force: false,
                mode: None,
                timeout: None,
            };
            for command in [put, get] {
                let json = serde_json::to_string(&command).unwrap();
                assert_eq!(serde_json::from_str::<Command>(&json).unwrap(), command, "{json}");
                assert_eq!(json.contains("/a/b"), bytes == b"/a/b", "{json}");
            }
        }
        let get = format!(r#"{{"command":"get","hash":"{}"}}"#, Key([1; 32]));
        assert!(matches!(serde_json::from_str(&get).unwrap(), Command::Get { target: None, .. }));
        assert!(serde_json::from_str::<Command>(r#"{"command":"put","path":7}"#).is_err());
    }
}
