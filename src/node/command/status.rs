//! What `status` and `peers` answer.

use crate::id::{Key, NodeId, PublicKey};
use crate::limits::Rates;
use core::net::SocketAddr;
use serde::{Deserialize, Serialize};

/// A node in the routing table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Peer {
    /// Its place in the key space.
    pub id: NodeId,
    /// Its public key.
    pub public: PublicKey,
    /// Where it answers.
    pub addr: SocketAddr,
    /// Whether it answered lately (15 minutes).
    pub good: bool,
    /// Seconds since it was last heard from.
    pub last_seen_seconds: u64,
    /// Smoothed round-trip time in microseconds; `None` before the first answer.
    pub rtt_micros: Option<u64>,
    /// Whether it is there, as far as membership knows; `None` when it is no member. So is everything below.
    #[serde(default)]
    pub state: Option<MemberState>,
    /// How busy it says it is, per mille.
    #[serde(default)]
    pub load: Option<u16>,
    /// How many pieces it says it stores for others.
    #[serde(default)]
    pub chunks: Option<u32>,
    /// How many bytes it says it has left for others.
    #[serde(default)]
    pub free_bytes: Option<u64>,
    /// The version of the program that it says it runs.
    #[serde(default)]
    pub version: Option<String>,
    /// What part it says it takes.
    #[serde(default)]
    pub role: Option<Role>,
    /// The number of the state that it signed: the higher the newer.
    #[serde(default)]
    pub sequence: Option<u64>,
    /// What this node does not ask it for, because it sent content that does not verify.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bans: Vec<PeerBan>,
}

/// What a peer is not asked for.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerBan {
    /// The file; `None` is everything.
    pub file: Option<Key>,
    /// Seconds until it is asked again.
    pub seconds: u64,
    /// How often in a row it was banned.
    pub times: u32,
}

/// Whether a member is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// It was heard from lately.
    Live,
    /// It is silent and does not answer, not yet for long.
    Suspect,
    /// It has been silent for so long that others may take its place as a holder.
    Unresponsive,
    /// It has been silent for so long that it is no holder of anything.
    Evicted,
    /// It said goodbye.
    Left,
    /// Others told of it; this node has never heard from it.
    Unproven,
}

/// What part a node takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It serves lookups and keeps pieces for others.
    Full,
    /// It asks and fetches only.
    Leaf,
}

/// Whether a disk does its work, from well to worst.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskHealth {
    /// It does.
    #[default]
    Well,
    /// It has no room left.
    Full,
    /// Nothing can be written.
    ReadOnly,
    /// The medium reports errors.
    Failing,
    /// The node's directory is not there any more.
    Gone,
}

impl DiskHealth {
    /// What is said of a disk like this: it is …
    pub fn name(self) -> &'static str {
        match self {
            DiskHealth::Well => "well",
            DiskHealth::Full => "full",
            DiskHealth::ReadOnly => "read-only",
            DiskHealth::Failing => "failing",
            DiskHealth::Gone => "gone",
        }
    }
}

/// How the disk that the node's directory lies on is doing.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DiskStatus {
    /// Whether it does its work. When it does not, the node serves what it has and takes nothing new.
    pub health: DiskHealth,
    /// Seconds since that changed last, or since the node was started.
    pub seconds: u64,
    /// What is wrong, for a person to read; empty when it is well.
    pub message: String,
}

/// How a node is doing.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// Its place in the key space, in hexadecimal.
    pub id: String,
    /// The version of the program.
    pub version: String,
    /// Where it listens.
    pub listen: String,
    /// Where other nodes see it; `None` before any said so.
    pub address: Option<SocketAddr>,
    /// Whether it is a leaf.
    pub leaf: bool,
    /// The network's number.
    pub network: u32,
    /// Seconds since it was started.
    pub uptime_seconds: u64,
    /// How often it was started.
    pub boots: u64,
    /// Contacts in the routing table.
    pub peers: u32,
    /// Lookups under way.
    pub lookups: u32,
    /// Streams that are open.
    pub streams: u32,
    /// Downloads under way.
    pub downloads: u32,
    /// Files that are being streamed to clients.
    #[serde(default)]
    pub reads: u32,
    /// Downloads and reads that wait for their turn.
    #[serde(default)]
    pub queued: u32,
    /// Value records kept for others.
    pub records: u32,
    /// Provider records kept for others.
    pub providers: u32,
    /// Files shared.
    pub shares: u32,
    /// Pieces stored for others.
    pub pieces: u32,
    /// What stored pieces and the cache take on disk, in whole blocks, with their directories.
    pub stored_bytes: u64,
    /// Bytes that they may take.
    pub quota_bytes: u64,
    /// How the disk is doing.
    #[serde(default)]
    pub disk: DiskStatus,
    /// Bytes that the file system has free; `None` when it does not tell.
    #[serde(default)]
    pub free_bytes: Option<u64>,
    /// How many of them are left to others.
    #[serde(default)]
    pub keep_free_bytes: u64,
    /// Whether more is stored than the limits allow. Then nothing new is taken, and other nodes are asked to take it over.
    #[serde(default)]
    pub over_quota: bool,
    /// Bytes of content received and sent.
    pub downloaded_bytes: u64,
    /// Bytes of content sent.
    pub uploaded_bytes: u64,
    /// Who is there; `None` when the node takes no part in membership.
    #[serde(default)]
    pub gossip: Option<GossipStatus>,
    /// How the copies of what it stores are doing; `None` when it repairs nothing.
    #[serde(default)]
    pub repair: Option<RepairStatus>,
    /// How far everything on disk has been read again.
    #[serde(default)]
    pub scrub: ScrubStatus,
    /// Bytes per second that content may take.
    #[serde(default)]
    pub rates: Rates,
    /// TCP streams that may be open.
    #[serde(default)]
    pub streams_max: u32,
    /// Peers that may be sent content at a time.
    #[serde(default)]
    pub uploads_max: u32,
    /// What was counted, by name.
    pub counters: std::collections::BTreeMap<String, u64>,
}

/// Who is there, as far as a node knows.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct GossipStatus {
    /// Members heard from lately.
    pub live: u32,
    /// Members that are silent, not yet for long.
    pub suspect: u32,
    /// Members that have been silent for so long that others may take their place.
    pub unresponsive: u32,
    /// Members that have been silent for so long that they are no holders.
    pub evicted: u32,
    /// Members that said goodbye.
    pub left: u32,
    /// Members that others told of and this node has never heard from.
    pub unproven: u32,
    /// Rounds of gossip so far.
    pub rounds: u64,
    /// States of members that were new.
    pub states_learned: u64,
    /// States that were refused: forged, malformed, or over a bound.
    pub states_refused: u64,
    /// How badly this node itself is doing, as it notices by its own lost probes: 0 is well; with each step it gives others more
    /// time.
    pub local_health: u32,
    /// Members probed, directly and through others.
    pub probes: u64,
    /// Members that became suspect.
    pub suspicions: u64,
    /// Suspicions that turned out to be wrong.
    pub refuted: u64,
}

/// How the copies of what a node stores are doing, as far as it knows.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RepairStatus {
    /// Stored pieces with as many live copies as they should have.
    pub whole: u32,
    /// Stored pieces with fewer.
    pub short: u32,
    /// Of those: with no more than a quorum.
    pub urgent: u32,
    /// Pieces that are being copied by this node.
    pub copying: u32,
    /// Pieces that are stored here and need not be.
    pub surplus: u32,
    /// Copies made so far.
    pub copies_made: u64,
    /// Bytes sent for them.
    pub bytes: u64,
    /// Repairs given up because their cause was gone.
    pub abandoned: u64,
    /// For how many seconds the node has been taking itself for cut off, and repaired nothing; `None` when it does not.
    pub cut_off_seconds: Option<u64>,
}

/// What reading everything on disk again has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ScrubReport {
    /// Stored pieces that were read.
    pub pieces: u64,
    /// Shared files that were read.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How many were not what they should be.
    pub bad: u64,
    /// How long it took, in seconds that the node was running.
    pub seconds: u64,
}

/// How far everything on disk has been read again. Ages are seconds that the node was running, over all its starts.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ScrubStatus {
    /// Seconds within which everything is read; 0 is only on command.
    pub every_seconds: u64,
    /// What the round under way has come to so far; `None` between two.
    pub running: Option<ScrubReport>,
    /// How much of it is done.
    pub percent: u8,
    /// Whether a command asked for it, so that it goes as fast as the disk is idle.
    pub asked: bool,
    /// What the last complete round came to; `None` when there has not been one.
    pub last: Option<ScrubReport>,
    /// How long ago that ended.
    pub last_age_seconds: Option<u64>,
    /// Whether one piece after the other cannot be read, so that nothing more is dropped for that.
    pub failing: bool,
}
