//! What a person or a program asks of a node, and what it answers. All of it goes over the control socket as JSON.

mod explanation;
mod status;

pub use explanation::{CopiesOf, ExplainedNode, Explanation, Loss, Repair, Run, UnderRepair};
pub use status::{
    DiskHealth, DiskStatus, GossipStatus, MemberState, Peer, PeerBan, RepairStatus, Role, ScrubReport,
    ScrubStatus, Status,
};

use crate::id::{Key, NodeId, PublicKey};
use crate::limits::Rates;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A command under way, named by the driver.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CommandId(pub u64);

/// What is asked. Each command is answered by any number of [`Response::Progress`] and one of the others.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum Command {
    /// Share a file where it lies and copy its chunks to other nodes.
    Put {
        /// An absolute path.
        #[serde(with = "path")]
        path: PathBuf,
        /// How many copies the network is to keep; 0 only shares; `None` is the node's default.
        #[serde(default)]
        replicas: Option<u8>,
        /// Seconds that copies are to be kept; `None` is the node's default.
        #[serde(default)]
        lifetime: Option<u32>,
    },
    /// Fetch a file.
    Get {
        /// Its address.
        hash: Key,
        /// An absolute path; `None` is a file in the node's cache, whose path is told in every answer.
        #[serde(default, with = "path::option")]
        target: Option<PathBuf>,
        /// Whether a file at the target is replaced. Otherwise one that is not this file is an error.
        #[serde(default)]
        force: bool,
        /// The permission bits that the file at the target gets, at most 0o777; `None` is as for any new file, and executable
        /// when it was where it was put.
        #[serde(default)]
        mode: Option<u32>,
        /// Seconds without progress after which it is given up; `None` is the node's default, 0 is never.
        #[serde(default)]
        timeout: Option<u32>,
    },
    /// Find out how safe a file is: who has which pieces of it, just now.
    Explain {
        /// Its address.
        hash: Key,
        /// Seconds after which those who have not answered are named as silent; `None` is 30.
        #[serde(default)]
        timeout: Option<u32>,
    },
    /// Stop sharing a file. The file stays, unless it lies in the node's own cache.
    Remove {
        /// Its address.
        hash: Key,
    },
    /// The files that this node shares, as many as one answer has room for.
    List {
        /// The last file of the answer before; `None` is from the beginning.
        #[serde(default)]
        after: Option<Listed>,
    },
    /// Publish a value under this node's key.
    Set {
        /// 1 to 64 bytes, no control characters, no `/`.
        name: String,
        /// At most 896 bytes.
        value: Vec<u8>,
        /// Seconds that other nodes keep it without hearing from this one; `None` is the node's default.
        #[serde(default)]
        lifetime: Option<u32>,
    },
    /// Publish a value no more.
    Unset {
        /// Its name.
        name: String,
    },
    /// The values that this node publishes.
    Values,
    /// Find a value.
    Lookup {
        /// Under whose key.
        publisher: PublicKey,
        /// Its name.
        name: String,
        /// Ask the network although an answer of the last hour is at hand.
        #[serde(default)]
        fresh: bool,
    },
    /// The nodes in the routing table.
    Peers,
    /// Lift the bans of a peer that sent content which does not verify.
    Forgive {
        /// Which peer; `None` is all of them.
        #[serde(default)]
        peer: Option<NodeId>,
    },
    /// How the node is doing.
    Status,
    /// Read everything on disk again now, and drop what has rotted.
    Scrub {
        /// Answer at once.
        #[serde(default)]
        background: bool,
    },
    /// Who the node is.
    Id,
    /// Hand over what only this node has, say goodbye to the network and stop.
    Leave {
        /// Seconds that handing over may take; `None` is 60.
        #[serde(default)]
        timeout: Option<u32>,
    },
    /// Change what the node may use while it runs; what is `None` stays. It is not remembered over a restart.
    Limit {
        /// Bytes per second to all peers together; 0 is any number.
        #[serde(default)]
        upload: Option<u64>,
        /// Bytes per second from all peers together; 0 is any number.
        #[serde(default)]
        download: Option<u64>,
        /// Bytes per second to one peer; 0 is any number.
        #[serde(default)]
        peer_upload: Option<u64>,
        /// Bytes per second from one peer; 0 is any number.
        #[serde(default)]
        peer_download: Option<u64>,
        /// TCP streams.
        #[serde(default)]
        streams: Option<usize>,
        /// Peers that are sent content at a time.
        #[serde(default)]
        uploads: Option<usize>,
    },
    /// Read a file, or a part of one, in order: its bytes come with the answers ([`Response::Content`]), each of them
    /// verified. Nothing of it is kept.
    Read {
        /// The file's address.
        hash: Key,
        /// Which part; `None` is all of it.
        #[serde(default)]
        part: Option<Part>,
        /// Seconds without progress after which it is given up; `None` is the node's default, 0 is never.
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
        /// The first byte that is not wanted; `None`, or more than there are, is the end of the file.
        #[serde(default)]
        end: Option<u64>,
    },
    /// The last so many bytes: all of them when there are fewer.
    Last(u64),
}

impl Part {
    /// Which bytes of a file of `length` bytes these are; `None` when it ends before they begin. No bytes at all are a
    /// part too, where the file has that place.
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
    /// It goes on.
    Progress(Progress),
    /// Bytes of a file. Over the control socket, as many raw bytes as it says follow this line; a program that has a node
    /// inside takes them with [`Driver::read_content`](crate::net::Driver::read_content).
    Content(Content),
    /// It is done.
    Done(Reply),
    /// It failed.
    Failed(Failure),
}

/// A run of bytes of a file that is being read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Content {
    /// The first byte, counted from the start of the file: where the run before it ended.
    pub offset: u64,
    /// How many bytes: at least one.
    pub length: u32,
    /// How long the file is.
    pub file_length: u64,
}

/// How far a command has come.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// What is going on.
    pub stage: Stage,
    /// Bytes, or pieces when replicating or handing over, or nodes when looking up, or answers when inspecting.
    pub done: u64,
    /// Of how many; 0 when that is not known.
    pub total: u64,
    /// When downloading: up to which byte everything is there and verified, from the start of the file or of the part that
    /// is wanted.
    pub prefix: u64,
    /// When downloading: the file that the bytes are in.
    #[serde(default, with = "path::option")]
    pub path: Option<PathBuf>,
}

/// What a command is busy with.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Asking the network where something is.
    LookingUp,
    /// Reading and hashing the file.
    Hashing,
    /// Copying pieces to other nodes.
    Replicating,
    /// Checking what is there from an earlier attempt.
    Checking,
    /// Taking pieces from other nodes.
    Downloading,
    /// Asking other nodes which pieces they have.
    Inspecting,
    /// Copying what only this node has to others, before it leaves.
    HandingOver,
    /// Reading everything on disk again.
    Scrubbing,
    /// Looking for nodes that have what is missing: nothing has come for a while.
    Waiting,
    /// Waiting for its turn: [`done`](Progress::done) says how many others come first.
    Queued,
}

/// What a command that is done found.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// The file is shared, and copied as far as `copies` says.
    Put {
        /// Its address.
        hash: Key,
        /// Its length in bytes.
        length: u64,
        /// How many copies there are of the piece with the fewest, this node's own included.
        copies: u32,
        /// How many were asked for.
        replicas: u8,
        /// Whether `copies` is enough to call it stored: ⌊replicas/2⌋+1, or `replicas` is 0.
        quorum: bool,
        /// Whether the node may not open the file itself, and shares it from the descriptor that came with the command: until
        /// the node stops.
        #[serde(default)]
        kept_open: bool,
    },
    /// The file is there, every byte verified.
    Get {
        /// Its address.
        hash: Key,
        /// Its length in bytes.
        length: u64,
        /// Where it is.
        #[serde(with = "path")]
        path: PathBuf,
        /// How many nodes content came from.
        sources: u32,
    },
    /// Every byte that was to be read has been sent, verified.
    Read {
        /// The file's address.
        hash: Key,
        /// The file's length in bytes.
        length: u64,
        /// The first byte that was read.
        start: u64,
        /// How many bytes were read.
        bytes: u64,
        /// How many nodes content came from.
        sources: u32,
    },
    /// How safe the file is.
    Explain(Box<Explanation>),
    /// The file is not shared any more.
    Remove {
        /// Its address.
        hash: Key,
    },
    /// The shared files.
    List {
        /// In the order of their addresses, and of their paths.
        files: Vec<SharedFile>,
        /// Whether others follow behind the last one: ask again with that.
        #[serde(default)]
        more: bool,
    },
    /// The value is published.
    Set {
        /// Under whose key.
        publisher: PublicKey,
        /// Its name.
        name: String,
        /// How many nodes keep it, this one included when it is one of the closest.
        copies: u32,
        /// Its sequence number.
        sequence: u64,
    },
    /// The value is published no more.
    Unset {
        /// Under whose key it was.
        publisher: PublicKey,
        /// Its name.
        name: String,
        /// Seconds after which the other nodes have forgotten it.
        lifetime: u32,
    },
    /// The values that this node publishes.
    Values {
        /// Under whose key.
        publisher: PublicKey,
        /// In the order of their names.
        values: Vec<OwnValue>,
    },
    /// The value.
    Lookup {
        /// Under whose key.
        publisher: PublicKey,
        /// Its name.
        name: String,
        /// What it is.
        value: Vec<u8>,
        /// Its sequence number.
        sequence: u64,
        /// How many nodes were asked; 0 when the answer was at hand.
        asked: u32,
    },
    /// The routing table, nearest first.
    Peers {
        /// Its contacts.
        peers: Vec<Peer>,
    },
    /// The bans are lifted.
    Forgive {
        /// How many there were.
        bans: u32,
    },
    /// How the node is doing.
    Status(Box<Status>),
    /// Everything on disk has been read again, or is being read.
    Scrub {
        /// Whether it goes on in the background. Then nothing is known yet.
        running: bool,
        /// What was found.
        report: ScrubReport,
    },
    /// Who the node is.
    Id {
        /// Its place in the key space.
        id: NodeId,
        /// Its public key.
        public: PublicKey,
    },
    /// What the node may use now.
    Limit {
        /// Bytes per second.
        rates: Rates,
        /// TCP streams.
        streams: usize,
        /// Peers that are sent content at a time.
        uploads: usize,
    },
    /// Goodbye has been said, and the node stops.
    Leave {
        /// Pieces that had too few copies elsewhere and have been copied.
        handed_over: u32,
        /// Pieces of which nobody else is known to have a copy: they are gone until this node comes back.
        left_behind: u32,
    },
}

/// Why a command failed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of failure.
    pub reason: FailureReason,
    /// What was tried, what went wrong and what to do.
    pub message: String,
}

/// The kinds of failure that have an exit code of their own.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureReason {
    /// Exit code 1.
    Failed,
    /// The command makes no sense: exit code 2.
    Usage,
    /// Nobody has it: exit code 3.
    NotFound,
    /// No peer could be reached: exit code 4.
    Unreachable,
    /// What was received does not verify: exit code 6.
    Unverified,
    /// No space on disk, or the quota is used up: exit code 7.
    NoSpace,
    /// Too much of this kind is going on, and it is worth trying later: exit code 8.
    Busy,
}

/// A value that this node publishes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct OwnValue {
    /// Its name.
    pub name: String,
    /// What it is.
    pub value: Vec<u8>,
    /// Its sequence number.
    pub sequence: u64,
    /// Seconds that other nodes keep it without hearing from this one.
    pub lifetime: u32,
}

/// What a path in the list of files is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FileState {
    /// The file is served from there.
    Shared,
    /// It looks different than it did: it is being hashed again, and not served until then.
    Checking,
    /// It has other content: it is not served from there. `rm` takes it off the list.
    Changed,
    /// It cannot be read: its medium may be missing. It is looked for again.
    Absent,
    /// It is being downloaded to there.
    Downloading,
    /// It will be downloaded to there.
    Queued,
}

/// A place in the list of files.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Listed {
    /// The address of the file there.
    pub hash: Key,
    /// Where it lies.
    #[serde(with = "path")]
    pub path: PathBuf,
}

/// A shared file, or a download: one for each path.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SharedFile {
    /// Its address.
    pub hash: Key,
    /// Its length in bytes.
    pub length: u64,
    /// Where it lies.
    #[serde(with = "path")]
    pub path: PathBuf,
    /// Copies of the piece with the fewest, this node's own included.
    pub copies: u32,
    /// How many were asked for.
    pub replicas: u8,
    /// Bytes that are here and verified: less than `length` while it is being downloaded.
    pub have: u64,
    /// Whether it lies in the node's cache, to be evicted when space is needed.
    pub cached: bool,
    /// Whether the node may not open it itself, and serves it from the descriptor that came with `put`: until it stops.
    #[serde(default)]
    pub kept_open: bool,
    /// What is at that path.
    pub state: FileState,
}

/// Paths in JSON: as text, or as serde writes the bytes of those that are no text. A name is any bytes but `/` and 0.
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
