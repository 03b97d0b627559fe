//! The status of the node.

use super::Node;
use super::bridge::BridgeCounters;
use super::command::{
    FailureReason, GossipStatus, Learned, MemberState, PartitionStatus, Peer, PeerBan, RepairStatus, Role,
    Status, Trouble,
};
use super::machines::Machines;
use crate::counters::counters;
use crate::dht::Origin;
use crate::gossip::{Gossip, Liveness, Member};
use crate::id::NodeId;
use crate::io::{DiskError, DiskErrorKind, Place};
use crate::replication::Replication;
use crate::time::{Duration, Instant};
use crate::transfer::Transfer;
use crate::wire::Refused;
use crate::wire::contact::Contact;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

counters! {
    /// The node's own counters; the machines have others.
    pub(super) struct NodeCounters {
        /// Datagrams received.
        datagrams_in = "datagrams_in",
        /// Datagrams handed to the driver.
        datagrams_out = "datagrams_out",
        /// Datagrams refused for their length.
        refused_length = "datagrams_refused_length",
        /// Datagrams of another version of the protocol.
        refused_version = "datagrams_refused_version",
        /// Datagrams of another network.
        refused_network = "datagrams_refused_network",
        /// Datagrams of an unknown kind.
        refused_kind = "datagrams_refused_kind",
        /// Datagrams with an unknown or disallowed authentication.
        refused_auth = "datagrams_refused_auth",
        /// Datagrams with a reserved bit that is set.
        refused_reserved = "datagrams_refused_reserved",
        /// Datagrams with a value that no node would send.
        refused_value = "datagrams_refused_value",
        /// Datagrams whose sender is another node than the one that signed, or this node.
        refused_sender = "datagrams_refused_sender",
        /// Datagrams whose signature does not verify.
        refused_signature = "datagrams_refused_signature",
        /// A MAC was not valid.
        refused_mac = "datagrams_refused_mac",
        /// Datagrams whose sender's key does not show the work that the network asks for.
        refused_work = "datagrams_refused_work",
        /// Answers that match no outstanding request.
        unexpected_answers = "datagrams_unexpected",
        /// Datagrams that admission refused: the budget of signature checks was spent.
        over_budget = "datagrams_over_budget",
        /// Datagrams that were received before.
        replayed = "datagrams_replayed",
    }
}

impl NodeCounters {
    /// The counter of datagrams refused for this reason.
    pub(super) fn refused(&mut self, reason: Refused) -> &mut u64 {
        match reason {
            Refused::Length => &mut self.refused_length,
            Refused::Version => &mut self.refused_version,
            Refused::Network => &mut self.refused_network,
            Refused::Kind => &mut self.refused_kind,
            Refused::Auth => &mut self.refused_auth,
            Refused::Reserved => &mut self.refused_reserved,
            Refused::Value => &mut self.refused_value,
            Refused::Sender => &mut self.refused_sender,
            Refused::Signature => &mut self.refused_signature,
            Refused::Mac => &mut self.refused_mac,
            Refused::Work => &mut self.refused_work,
        }
    }
}

/// The status of a node.
pub(super) fn status(now: Instant, node: &Node) -> Status {
    let Node { config, machines, ops, bridge, .. } = node;
    let presence = node.presence.status(now, machines.dht.own_addr());
    let (dht, store) = (machines.dht.statistics(), machines.store.stats());
    let counters = (node.counters.named())
        .chain(node.source_probes.counters.named())
        .chain(bridge.counters.named())
        .chain(node.lan.counters.named())
        .chain(ops.damage.named())
        .chain(ops.rechecks.counters.named())
        .chain(dht.counters.named())
        .chain(machines.transfer.counters().named())
        .chain(machines.gossip.statistics().counters.named())
        .chain(machines.replication.statistics().counters.named())
        .chain(machines.outbox.peers().counters().named())
        .chain([
            ("dialled_back", presence.dialled_back),
            ("disk_errors", ops.health.errors),
            ("datagrams_dropped", machines.outbox.dropped()),
            ("claims_forged", ops.claims.forged()),
            ("shares_changed", ops.watch.changed),
            ("shares_lost", ops.watch.lost),
            ("cache_evicted", store.evicted),
            ("pieces_expired", store.expired),
            ("pieces_handed_over", ops.shrink.handed_over),
            ("refused_over_quota", store.refused_quota),
            ("refused_keep_free", store.refused_free),
            ("refused_over_share", store.refused_share),
            ("pieces_displaced", store.displaced),
        ]);
    let mut status = Status {
        id: machines.id().to_string(),
        troubles: Vec::new(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        listen: config.listen.to_string(),
        // The driver fills it in.
        http: None,
        address: machines.dht.own_addr(),
        leaf: machines.outbox.is_leaf(),
        unreachable: presence.unreachable,
        network: machines.outbox.network().id(),
        network_closed: config.network_secret.is_some(),
        id_work: config.id_work.bits(),
        without_work: without_work(&node.counters, machines),
        identity_twice: presence.identity_twice,
        address_gone: presence.address_gone,
        alone_seconds: presence.alone_seconds,
        bootstrap_names: node.names.status(now),
        uptime_seconds: now.since(node.started).as_secs(),
        boots: node.ages(now).boots,
        peers: dht.contacts as u32,
        lookups: dht.lookups as u32,
        streams: machines.transfer.streams() as u32,
        downloads: ops.seekers.downloads.len() as u32,
        reads: ops.seekers.reads.len() as u32,
        queued: (ops.seekers.downloads.queued() + ops.seekers.reads.queued()) as u32,
        records: dht.records as u32,
        providers: dht.providers as u32,
        shares: store.shares,
        pieces: store.pieces,
        stored_bytes: store.piece_bytes + store.cached_bytes,
        quota_bytes: config.limits.quota_bytes,
        disk: ops.health.status(now),
        free_bytes: Some(store.free_bytes).filter(|bytes| *bytes < u64::MAX),
        keep_free_bytes: store.keep_free_bytes,
        over_quota: store.over,
        downloaded_bytes: machines.transfer.downloaded_bytes(),
        uploaded_bytes: machines.transfer.uploaded_bytes(),
        gossip: Some(gossip_status(&bridge.counters, &machines.gossip)),
        repair: Some(repair_status(now, &machines.replication)),
        scrub: ops.scrub.status(now, machines),
        rates: config.limits.rates,
        streams_max: config.limits.streams_max as u32,
        uploads_max: config.limits.uploads_max as u32,
        counters: counters.map(|(name, count)| (name.to_owned(), count)).collect(),
    };
    status.troubles = Trouble::all_of(&status);
    status
}

/// The contacts and the members, nearest first.
pub(super) fn peers(now: Instant, machines: &Machines) -> Vec<Peer> {
    let mut peers: Vec<Peer> = machines
        .dht
        .peers(now, machines.outbox.peers())
        .into_iter()
        .map(|peer| Peer {
            good: peer.good,
            learned: Some(learned(peer.origin)),
            last_seen_seconds: peer.silent_for.as_secs(),
            ..stranger(&peer.contact)
        })
        .collect();
    let contacts: BTreeSet<NodeId> = peers.iter().map(|peer| peer.id).collect();
    let others = machines.gossip.members().filter(|member| !contacts.contains(&member.contact.id));
    let met = others.filter(|member| member.heard.is_some());
    peers.extend(met.map(|member| stranger(&member.contact)));
    add_bans(now, &mut peers, &machines.transfer);
    for peer in &mut peers {
        peer.rtt_micros = machines.outbox.peers().rtt(&peer.id).map(micros);
        if let Some(member) = machines.gossip.member(&peer.id) {
            describe(now, peer, &member);
        }
    }
    let own = machines.id();
    peers.sort_by_key(|peer| peer.id.distance(&own.key()));
    peers
}

/// How this node learned of a contact, for `peers`.
fn learned(origin: Origin) -> Learned {
    match origin {
        Origin::Bootstrap => Learned::Bootstrap,
        Origin::Remembered => Learned::Remembered,
        Origin::Link => Learned::Lan,
        Origin::Told => Learned::Told,
        Origin::Called => Learned::Called,
    }
}

/// The number of times that a node without enough work was kept out: as the sender of a datagram, at the other end of a stream, or
/// named by others.
fn without_work(counters: &NodeCounters, machines: &Machines) -> u64 {
    let Machines { dht, gossip, transfer, .. } = machines;
    let (streams, named) = (transfer.counters().handshake_work, transfer.counters().sources_without_work);
    let named = named + dht.statistics().counters.without_work + gossip.statistics().counters.without_work;
    counters.refused_work + streams + named
}

/// Adds the bans of peers, and banned peers that are neither contacts nor members.
fn add_bans(now: Instant, peers: &mut Vec<Peer>, transfer: &Transfer) {
    for ban in transfer.bans(now) {
        // Rounded up, so that a ban in the list always has time left.
        let seconds = ban.until.since(now).as_millis().div_ceil(1000) as u64;
        let shown = PeerBan { file: ban.file, seconds, times: ban.times };
        match peers.iter_mut().find(|peer| peer.id == ban.peer.id) {
            Some(peer) => peer.bans.push(shown),
            None => peers.push(Peer { bans: vec![shown], ..stranger(&ban.peer) }),
        }
    }
}

fn gossip_status(changes: &BridgeCounters, gossip: &Gossip) -> GossipStatus {
    let statistics = gossip.statistics();
    let counters = &statistics.counters;
    let mut status = GossipStatus {
        rounds: counters.rounds,
        states_learned: counters.states_learned,
        states_refused: counters.state_forged + counters.state_over_budget,
        local_health: u32::from(statistics.local_health),
        probes: counters.probes + counters.probes_indirect,
        suspicions: changes.suspected,
        refuted: changes.returned,
        ..GossipStatus::default()
    };
    for member in gossip.members() {
        *match member.liveness {
            Liveness::Live => &mut status.live,
            Liveness::Suspect => &mut status.suspect,
            Liveness::Unresponsive => &mut status.unresponsive,
            Liveness::Evicted => &mut status.evicted,
            Liveness::Left { .. } => &mut status.left,
            Liveness::Unproven => &mut status.unproven,
        } += 1;
    }
    status
}

fn repair_status(now: Instant, replication: &Replication) -> RepairStatus {
    let statistics = replication.statistics();
    RepairStatus {
        whole: statistics.whole as u32,
        short: (statistics.short + statistics.urgent) as u32,
        urgent: statistics.urgent as u32,
        copying: statistics.copying as u32,
        surplus: statistics.surplus as u32,
        copies_made: statistics.counters.copied,
        bytes: statistics.counters.copied_bytes,
        abandoned: statistics.counters.abandoned,
        partition: statistics.partition.map(|suspicion| PartitionStatus {
            seconds: now.since(suspicion.since).as_secs(),
            silent: suspicion.silent as u32,
            neighbours: suspicion.neighbours as u32,
            tolerated: suspicion.tolerated as u32,
            seconds_left: suspicion.ends_at.since(now).as_secs(),
        }),
    }
}

/// A node of which only the contact is known.
fn stranger(contact: &Contact) -> Peer {
    Peer {
        id: contact.id,
        public: contact.public,
        addr: contact.addr,
        good: false,
        last_seen_seconds: 0,
        learned: None,
        rtt_micros: None,
        state: None,
        load: None,
        chunks: None,
        free_bytes: None,
        version: None,
        role: None,
        sequence: None,
        bans: Vec::new(),
    }
}

impl From<Liveness> for MemberState {
    fn from(liveness: Liveness) -> Self {
        match liveness {
            Liveness::Live => MemberState::Live,
            Liveness::Suspect => MemberState::Suspect,
            Liveness::Unresponsive => MemberState::Unresponsive,
            Liveness::Evicted => MemberState::Evicted,
            Liveness::Left { .. } => MemberState::Left,
            Liveness::Unproven => MemberState::Unproven,
        }
    }
}

/// Adds what membership knows about a peer.
fn describe(now: Instant, peer: &mut Peer, member: &Member) {
    peer.state = Some(member.liveness.into());
    if let Some(heard) = member.heard {
        peer.last_seen_seconds = now.since(heard).as_secs();
    }
    if let Some(state) = &member.state {
        let [major, minor, patch, _] = state.version();
        peer.load = Some(state.load());
        peer.chunks = Some(state.chunks());
        peer.free_bytes = Some(state.free_bytes());
        peer.version = Some(format!("{major}.{minor}.{patch}"));
        peer.role = Some(if state.is_leaf() { Role::Leaf } else { Role::Full });
        peer.sequence = Some(state.sequence());
    }
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

/// The path of a file, for messages; empty for internal files.
pub(super) fn path_of(cache_dir: &Path, place: &Place) -> PathBuf {
    match place {
        Place::File(path) => path.to_path_buf(),
        Place::Partial(path) => {
            let mut name = path.as_os_str().to_owned();
            name.push(".part");
            PathBuf::from(name)
        }
        Place::Cache(hash) => cache_dir.join(hash.to_string()),
        Place::Piece(_) | Place::Incoming(_) | Place::ShareManifest(_) | Place::Window { .. } => {
            PathBuf::new()
        }
    }
}

/// The number of nodes that answered a lookup, in words.
pub(super) fn answered(count: u32) -> String {
    if count == 1 { "1 node answered".to_owned() } else { format!("{count} nodes answered") }
}

/// A message that nodes sent wrong content of a file. The list of bans names them.
pub(super) fn sent_wrong_content(count: u32) -> String {
    let (nodes, are) =
        if count == 1 { ("1 node".to_owned(), "is") } else { (format!("{count} nodes"), "are") };
    format!("{nodes} sent content that is not this file's and {are} not asked for it now (`elver peers`)")
}

/// The kind of failure of a disk error.
pub(super) fn failure_of(error: &DiskError) -> FailureReason {
    match error.kind {
        DiskErrorKind::NoSpace => FailureReason::NoSpace,
        DiskErrorKind::Busy => FailureReason::Busy,
        _ => FailureReason::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::DhtCounters;
    use crate::gossip::GossipCounters;
    use crate::node::ops::damage::DamageCounters;
    use crate::node::ops::recheck::RecheckCounters;
    use crate::replication::ReplicationCounters;
    use crate::transfer::TransferCounters;

    #[test]
    fn no_two_counts_share_a_name() {
        let names = (NodeCounters::default().named())
            .chain(BridgeCounters::default().named())
            .chain(DamageCounters::default().named())
            .chain(RecheckCounters::default().named())
            .chain(DhtCounters::default().named())
            .chain(TransferCounters::default().named())
            .chain(GossipCounters::default().named())
            .chain(ReplicationCounters::default().named());
        let names: Vec<&str> = names.map(|(name, _)| name).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
    }

    #[test]
    fn each_reason_to_refuse_a_datagram_is_counted_under_its_own_name() {
        use Refused::*;
        for reason in [Length, Version, Network, Kind, Auth, Reserved, Value, Sender, Signature, Mac, Work] {
            let mut counters = NodeCounters::default();
            *counters.refused(reason) += 1;
            let counted: Vec<_> = counters.named().filter(|(_, count)| *count > 0).collect();
            assert_eq!(counted, [(format!("datagrams_refused_{}", reason.name()).as_str(), 1)]);
        }
    }
}
