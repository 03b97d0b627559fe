//! The answers to `status` and `peers`.

use super::trouble::Trouble;
use crate::id::{Key, NodeId, PublicKey};
use crate::limits::Rates;
use core::net::{IpAddr, SocketAddr};
use serde::{Deserialize, Serialize};

/// A node in the routing table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Peer {
    /// Its id.
    pub id: NodeId,
    /// Its public key.
    pub public: PublicKey,
    /// Its address.
    pub addr: SocketAddr,
    /// Whether it answered in the last 15 minutes.
    pub good: bool,
    /// Seconds since it was last heard from.
    pub last_seen_seconds: u64,
    /// Smoothed round-trip time in microseconds; `None` before the first answer.
    pub rtt_micros: Option<u64>,
    /// How this node learned of it; `None` when it is not in the routing table.
    #[serde(default)]
    pub learned: Option<Learned>,
    /// Its liveness in membership; `None`, like the fields below, when it is no member.
    #[serde(default)]
    pub state: Option<MemberState>,
    /// Its reported load, per mille.
    #[serde(default)]
    pub load: Option<u16>,
    /// Its reported number of pieces stored for others.
    #[serde(default)]
    pub chunks: Option<u32>,
    /// Its reported free bytes for others.
    #[serde(default)]
    pub free_bytes: Option<u64>,
    /// Its reported program version.
    #[serde(default)]
    pub version: Option<String>,
    /// Its reported role.
    #[serde(default)]
    pub role: Option<Role>,
    /// The sequence number of its signed state.
    #[serde(default)]
    pub sequence: Option<u64>,
    /// Its bans at this node, because it sent content that does not verify.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bans: Vec<PeerBan>,
}

/// A ban of a peer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PeerBan {
    /// The file that it is banned from; `None` is everything.
    pub file: Option<Key>,
    /// Seconds until the ban ends.
    pub seconds: u64,
    /// The number of offences in a row.
    pub times: u32,
}

/// The liveness of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    /// It was heard from recently.
    Live,
    /// It has been silent for a short time, and does not answer.
    Suspect,
    /// It has been silent for long: others may replace it as a holder.
    Unresponsive,
    /// It has been silent for so long that it does not count as a holder.
    Evicted,
    /// It said goodbye.
    Left,
    /// Not contacted: others named it, but it has not answered this node.
    Unproven,
}

/// How a node learned of another.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Learned {
    /// It is a bootstrap node.
    Bootstrap,
    /// It was a contact before, in this run or the last.
    Remembered,
    /// It told the link that it is there.
    Lan,
    /// Another node named it.
    Told,
    /// It sent a request.
    Called,
}

impl Learned {
    /// In a word, for the list of peers.
    pub fn name(self) -> &'static str {
        match self {
            Learned::Bootstrap => "bootstrap",
            Learned::Remembered => "remembered",
            Learned::Lan => "lan",
            Learned::Told => "told",
            Learned::Called => "called",
        }
    }
}

/// The role of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It serves lookups and keeps pieces for others.
    Full,
    /// It only looks up and downloads.
    Leaf,
}

/// The health of a disk, from well to worst.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskHealth {
    /// It works.
    #[default]
    Well,
    /// It has no free space.
    Full,
    /// It cannot be written to.
    ReadOnly,
    /// The medium reports errors.
    Failing,
    /// The node's directory does not exist any more.
    Gone,
}

impl DiskHealth {
    /// The health in words, for "the disk is …".
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

/// The state of the disk that holds the node's directory.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct DiskStatus {
    /// Its health. While it is not well, the node serves what it has, and takes nothing new.
    pub health: DiskHealth,
    /// Seconds since the health last changed, or since the start.
    pub seconds: u64,
    /// The problem, in words; empty when the disk is well.
    pub message: String,
}

/// A process that runs with the same key as this one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct IdentityTwice {
    /// Its address.
    pub address: SocketAddr,
    /// Seconds since it was found.
    pub seconds: u64,
}

/// The address that a node listens on is not on its machine: it has gone, or has not come yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct AddressGone {
    /// The address.
    pub address: IpAddr,
    /// Seconds since it went, or since the start.
    pub seconds: u64,
}

/// A name of a bootstrap node, and what it resolved to.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct BootstrapName {
    /// The name, with the port.
    pub name: String,
    /// The addresses of the last answer.
    pub addresses: Vec<SocketAddr>,
    /// Further addresses of that answer, which are not used.
    pub left_out: u32,
    /// The reason why the last resolution failed; `None` when it did not.
    #[serde(default)]
    pub error: Option<String>,
    /// Seconds since the addresses were found; `None` before the first answer.
    #[serde(default)]
    pub seconds: Option<u64>,
}

/// Other nodes cannot connect to a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Unreachable {
    /// The address at which they see it, if it is known.
    pub address: Option<SocketAddr>,
    /// Seconds since that was found.
    pub seconds: u64,
}

/// The status of a node.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    /// Its id in hexadecimal.
    pub id: String,
    /// What is wrong with the node, the worst first. It is well when there is nothing.
    #[serde(default)]
    pub troubles: Vec<Trouble>,
    /// The version of the program.
    pub version: String,
    /// The address that it listens on.
    pub listen: String,
    /// The address of the HTTP gateway, if there is one.
    #[serde(default)]
    pub http: Option<SocketAddr>,
    /// The address at which other nodes see it; `None` before the first observation.
    pub address: Option<SocketAddr>,
    /// Whether it is a leaf: because it is configured so, or because no other node can connect to it.
    pub leaf: bool,
    /// Present when other nodes cannot connect to it, although it is not configured as a leaf.
    #[serde(default)]
    pub unreachable: Option<Unreachable>,
    /// The network's number.
    pub network: u32,
    /// Whether the network has a secret, so that only nodes with its key can join.
    #[serde(default)]
    pub network_closed: bool,
    /// The bits of work that the network asks of each identity.
    #[serde(default)]
    pub id_work: u8,
    /// How often a node whose identity shows less was kept out.
    #[serde(default)]
    pub without_work: u64,
    /// Another process with this node's key, if there is one.
    #[serde(default)]
    pub identity_twice: Option<IdentityTwice>,
    /// The address that it listens on, if that has gone from the machine.
    #[serde(default)]
    pub address_gone: Option<AddressGone>,
    /// Seconds since any other node was last there; `None` while one is, or was a short time ago.
    #[serde(default)]
    pub alone_seconds: Option<u64>,
    /// The names of bootstrap nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub bootstrap_names: Vec<BootstrapName>,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// The number of starts.
    pub boots: u64,
    /// Contacts in the routing table.
    pub peers: u32,
    /// Lookups under way.
    pub lookups: u32,
    /// Open streams.
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
    /// Shared files.
    pub shares: u32,
    /// Pieces stored for others.
    pub pieces: u32,
    /// The space that stored pieces and the cache take on disk, in whole blocks, directories included.
    pub stored_bytes: u64,
    /// The quota for them, in bytes.
    pub quota_bytes: u64,
    /// The state of the disk.
    #[serde(default)]
    pub disk: DiskStatus,
    /// Free bytes of the file system; `None` when it does not tell.
    #[serde(default)]
    pub free_bytes: Option<u64>,
    /// The part of the free bytes that is left to the host.
    #[serde(default)]
    pub keep_free_bytes: u64,
    /// Whether more is stored than the limits allow. Then the node takes nothing new, and hands pieces over to other nodes.
    #[serde(default)]
    pub over_quota: bool,
    /// Bytes of content received.
    pub downloaded_bytes: u64,
    /// Bytes of content sent.
    pub uploaded_bytes: u64,
    /// Membership; `None` when the node takes no part in it.
    #[serde(default)]
    pub gossip: Option<GossipStatus>,
    /// Replication of the stored pieces; `None` when the node repairs nothing.
    #[serde(default)]
    pub repair: Option<RepairStatus>,
    /// The progress of the scrub.
    #[serde(default)]
    pub scrub: ScrubStatus,
    /// The rate limits of content, in bytes per second.
    #[serde(default)]
    pub rates: Rates,
    /// The limit of open TCP streams.
    #[serde(default)]
    pub streams_max: u32,
    /// The limit of peers that are sent content at a time.
    #[serde(default)]
    pub uploads_max: u32,
    /// The counters, by name.
    pub counters: std::collections::BTreeMap<String, u64>,
}

/// The status of membership.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct GossipStatus {
    /// Live members.
    pub live: u32,
    /// Suspects: silent for a short time.
    pub suspect: u32,
    /// Unresponsive members: silent for so long that others may replace them.
    pub unresponsive: u32,
    /// Evicted members: silent for so long that they do not count as holders.
    pub evicted: u32,
    /// Members that said goodbye.
    pub left: u32,
    /// Members that others named and this node has not contacted.
    pub unproven: u32,
    /// Rounds of gossip so far.
    pub rounds: u64,
    /// States of members that were new to this node.
    pub states_learned: u64,
    /// States that were refused: forged, malformed, or over a bound.
    pub states_refused: u64,
    /// The local health of this node (Lifeguard): 0 is well, 8 is worst. The worse it is, the longer the node waits before it declares
    /// others unresponsive.
    pub local_health: u32,
    /// Members probed, directly and through relays.
    pub probes: u64,
    /// Members that became suspect.
    pub suspicions: u64,
    /// Suspicions of this node that it refuted.
    pub refuted: u64,
}

/// The status of replication.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct RepairStatus {
    /// Healthy pieces: as many known live copies as they should have.
    pub whole: u32,
    /// Under-replicated pieces.
    pub short: u32,
    /// Of those: with no more than a quorum.
    pub urgent: u32,
    /// Pieces that are being copied by this node.
    pub copying: u32,
    /// Surplus pieces: stored here, but other nodes are closer and hold enough copies.
    pub surplus: u32,
    /// Copies made so far.
    pub copies_made: u64,
    /// Bytes sent for them.
    pub bytes: u64,
    /// Repairs abandoned because their cause was gone.
    pub abandoned: u64,
    /// The suspicion of the node that it is partitioned, which suspends repair; `None` when it has none.
    pub partition: Option<PartitionStatus>,
}

/// The suspicion of a node that it is partitioned: many neighbours fell silent at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct PartitionStatus {
    /// Seconds since it began.
    pub seconds: u64,
    /// The neighbours that fell silent and have not answered since.
    pub silent: u32,
    /// All neighbours, silent ones included.
    pub neighbours: u32,
    /// Repair resumes when no more than this many of them are silent.
    pub tolerated: u32,
    /// Seconds until repair resumes even if no neighbour answers.
    pub seconds_left: u64,
}

/// The findings of a scrub.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ScrubReport {
    /// Stored pieces that were read.
    pub pieces: u64,
    /// Shared files that were read.
    pub files: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Pieces and files that do not verify.
    pub bad: u64,
    /// The duration in seconds of the node's running time.
    pub seconds: u64,
}

/// The status of the scrub. Ages are seconds of the node's running time, over all its runs.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ScrubStatus {
    /// The time within which everything is read once; 0 is only on command.
    pub every_seconds: u64,
    /// The findings of the present round so far; `None` between two rounds.
    pub running: Option<ScrubReport>,
    /// The progress of the present round in percent.
    pub percent: u8,
    /// Whether a command started it, so that it runs as fast as the idle disk allows.
    pub asked: bool,
    /// The findings of the last complete round; `None` when there was none.
    pub last: Option<ScrubReport>,
    /// The time since that round ended.
    pub last_age_seconds: Option<u64>,
    /// Whether many pieces in a row cannot be read. Then the medium is suspect, and nothing more is dropped.
    pub failing: bool,
}
