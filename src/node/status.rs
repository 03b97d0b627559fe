//! What a node says of itself.

use super::Node;
use super::command::{
    FailureReason, GossipStatus, MemberState, Peer, PeerBan, RepairStatus, Reply, Role, Status,
};
use crate::gossip::{Liveness, Member};
use crate::id::NodeId;
use crate::io::{DiskError, DiskErrorKind, Place};
use crate::limits::{InvalidLimits, Limits};
use crate::time::{Duration, Instant};
use crate::wire::Refused;
use crate::wire::contact::Contact;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What the node itself counts; the machines have counters of their own.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) datagrams_in: u64,
    pub(super) datagrams_out: u64,
    pub(super) refused: [u64; Refused::COUNT],
    pub(super) unexpected_answers: u64,
    pub(super) over_budget: u64,
    pub(super) replayed: u64,
    pub(super) disk_errors: u64,
    pub(super) bad_sources: u64,
    pub(super) pieces_rotten: u64,
    pub(super) suspected: u64,
    pub(super) unresponsive: u64,
    pub(super) evicted: u64,
    pub(super) left: u64,
    pub(super) returned: u64,
}

impl Counters {
    fn named(&self) -> BTreeMap<String, u64> {
        let own = [
            ("datagrams_in", self.datagrams_in),
            ("datagrams_out", self.datagrams_out),
            ("datagrams_unexpected", self.unexpected_answers),
            ("datagrams_over_budget", self.over_budget),
            ("datagrams_replayed", self.replayed),
            ("disk_errors", self.disk_errors),
            ("sources_bad", self.bad_sources),
            ("pieces_rotten", self.pieces_rotten),
            ("members_suspected", self.suspected),
            ("members_unresponsive", self.unresponsive),
            ("members_evicted", self.evicted),
            ("members_left", self.left),
            ("members_returned", self.returned),
        ];
        let refused =
            Refused::NAMES.iter().zip(self.refused).map(|(name, n)| (format!("datagrams_refused_{name}"), n));
        own.into_iter().map(|(name, n)| (name.to_owned(), n)).chain(refused).collect()
    }
}

impl Node {
    pub(super) fn status(&self, now: Instant) -> Status {
        let (dht, store) = (self.machines.dht.statistics(), self.machines.store.stats());
        let mut counters = self.counters.named();
        let rechecks = self.rechecks.counters;
        counters.insert("rechecks_good".to_owned(), rechecks.good);
        counters.insert("rechecks_rotten".to_owned(), rechecks.rotten);
        counters.insert("rechecks_refused".to_owned(), rechecks.refused);
        counters.insert("datagrams_dropped".to_owned(), self.machines.outbox.dropped());
        counters.extend(dht.counters.iter().map(|(name, n)| ((*name).to_owned(), *n)));
        counters.extend(self.machines.transfer.counters().iter().map(|(name, n)| ((*name).to_owned(), *n)));
        let machines =
            [self.machines.gossip.statistics().counters, self.machines.replication.statistics().counters];
        counters.extend(machines.iter().flatten().map(|(name, n)| ((*name).to_owned(), *n)));
        counters.insert("shares_changed".to_owned(), self.shares.changed);
        counters.insert("shares_lost".to_owned(), self.shares.lost);
        counters.insert("cache_evicted".to_owned(), store.evicted);
        counters.insert("pieces_expired".to_owned(), store.expired);
        counters.insert("pieces_handed_over".to_owned(), self.shrink.handed_over);
        counters.insert("refused_over_quota".to_owned(), store.refused_quota);
        counters.insert("refused_keep_free".to_owned(), store.refused_free);
        Status {
            id: self.id.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            listen: self.config.listen.to_string(),
            address: self.machines.dht.own_addr(),
            leaf: self.config.leaf,
            network: self.network.id(),
            uptime_seconds: now.since(self.started).as_secs(),
            boots: self.boots,
            peers: dht.contacts as u32,
            lookups: dht.lookups as u32,
            streams: self.machines.transfer.streams() as u32,
            downloads: self.downloads.len() as u32,
            reads: self.reads.len() as u32,
            queued: (self.downloads.queued() + self.reads.queued()) as u32,
            records: dht.records as u32,
            providers: dht.providers as u32,
            shares: store.shares,
            pieces: store.pieces,
            stored_bytes: store.piece_bytes + store.cached_bytes,
            quota_bytes: self.config.limits.quota_bytes,
            disk: self.health.status(now),
            free_bytes: Some(store.free_bytes).filter(|bytes| *bytes < u64::MAX),
            keep_free_bytes: store.keep_free_bytes,
            over_quota: store.over,
            downloaded_bytes: self.machines.transfer.downloaded_bytes(),
            uploaded_bytes: self.machines.transfer.uploaded_bytes(),
            gossip: Some(self.gossip_status()),
            repair: Some(self.repair_status(now)),
            scrub: self.scrub.status(now, &self.machines),
            rates: self.config.limits.rates,
            streams_max: self.config.limits.streams_max as u32,
            uploads_max: self.config.limits.uploads_max as u32,
            counters,
        }
    }

    /// Changes what the node may use; tells what that is then.
    pub(super) fn limit(&mut self, now: Instant, limits: Limits) -> Result<Reply, InvalidLimits> {
        limits.validate()?;
        let reply =
            Reply::Limit { rates: limits.rates, streams: limits.streams_max, uploads: limits.uploads_max };
        self.machines.transfer.set_limits(now, &limits);
        self.config.limits = limits;
        Ok(reply)
    }

    /// The contacts and the members, nearest first: whom lookups go through, and who is watched.
    pub(super) fn peers(&self, now: Instant) -> Vec<Peer> {
        let mut peers: Vec<Peer> = self
            .machines
            .dht
            .peers(now)
            .into_iter()
            .map(|peer| Peer {
                good: peer.good,
                last_seen_seconds: peer.silent_for.as_secs(),
                rtt_micros: peer.rtt.map(micros),
                ..stranger(&peer.contact)
            })
            .collect();
        let contacts: BTreeSet<NodeId> = peers.iter().map(|peer| peer.id).collect();
        let others = self.machines.gossip.members().filter(|member| !contacts.contains(&member.contact.id));
        let met = others.filter(|member| member.heard.is_some());
        peers.extend(met.map(|member| stranger(&member.contact)));
        self.add_bans(now, &mut peers);
        for peer in &mut peers {
            if let Some(member) = self.machines.gossip.member(&peer.id) {
                describe(now, peer, &member);
            }
        }
        peers.sort_by_key(|peer| peer.id.distance(&self.id.key()));
        peers
    }

    /// Adds what peers are not asked for, and the peers that only that is known of.
    fn add_bans(&self, now: Instant, peers: &mut Vec<Peer>) {
        for ban in self.machines.transfer.bans(now) {
            // Rounded up, so that a ban that is shown has time left.
            let seconds = ban.until.since(now).as_millis().div_ceil(1000) as u64;
            let shown = PeerBan { file: ban.file, seconds, times: ban.times };
            match peers.iter_mut().find(|peer| peer.id == ban.peer.id) {
                Some(peer) => peer.bans.push(shown),
                None => peers.push(Peer { bans: vec![shown], ..stranger(&ban.peer) }),
            }
        }
    }

    fn gossip_status(&self) -> GossipStatus {
        let statistics = self.machines.gossip.statistics();
        let count =
            |name| statistics.counters.iter().find(|(its, _)| *its == name).map_or(0, |(_, count)| *count);
        let mut status = GossipStatus {
            rounds: count("gossip_rounds"),
            states_learned: count("gossip_states_learned"),
            states_refused: count("gossip_state_forged") + count("gossip_state_over_budget"),
            local_health: u32::from(statistics.local_health),
            probes: count("gossip_probes") + count("gossip_probes_indirect"),
            suspicions: self.counters.suspected,
            refuted: self.counters.returned,
            ..GossipStatus::default()
        };
        for member in self.machines.gossip.members() {
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

    fn repair_status(&self, now: Instant) -> RepairStatus {
        let statistics = self.machines.replication.statistics();
        let count =
            |name| statistics.counters.iter().find(|(its, _)| *its == name).map_or(0, |(_, count)| *count);
        RepairStatus {
            whole: statistics.whole as u32,
            short: (statistics.short + statistics.urgent) as u32,
            urgent: statistics.urgent as u32,
            copying: statistics.copying as u32,
            surplus: statistics.surplus as u32,
            copies_made: count("repair_copied"),
            bytes: count("repair_copied_bytes"),
            abandoned: count("repair_abandoned"),
            cut_off_seconds: statistics.cut_off_since.map(|since| now.since(since).as_secs()),
        }
    }
}

/// A node of which only its contact is known.
fn stranger(contact: &Contact) -> Peer {
    Peer {
        id: contact.id,
        public: contact.public,
        addr: contact.addr,
        good: false,
        last_seen_seconds: 0,
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

/// Adds what membership knows.
fn describe(now: Instant, peer: &mut Peer, member: &Member) {
    peer.state = Some(match member.liveness {
        Liveness::Live => MemberState::Live,
        Liveness::Suspect => MemberState::Suspect,
        Liveness::Unresponsive => MemberState::Unresponsive,
        Liveness::Evicted => MemberState::Evicted,
        Liveness::Left { .. } => MemberState::Left,
        Liveness::Unproven => MemberState::Unproven,
    });
    if let Some(heard) = member.heard {
        peer.last_seen_seconds = now.since(heard).as_secs();
    }
    peer.rtt_micros = peer.rtt_micros.or(member.rtt.map(micros));
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

/// Where a file lies, for a person to read; empty for places that are nobody's business.
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

/// How many nodes were asked, in words.
pub(super) fn asked(count: u32) -> String {
    if count == 1 { "1 node was asked".to_owned() } else { format!("{count} nodes were asked") }
}

/// That nodes sent wrong content of a file, in words. They are named where the bans are shown.
pub(super) fn sent_wrong_content(count: u32) -> String {
    let (nodes, are) =
        if count == 1 { ("1 node".to_owned(), "is") } else { (format!("{count} nodes"), "are") };
    format!("{nodes} sent content that is not this file's and {are} not asked for it now (`elver peers`)")
}

/// How a person is told of a disk error.
pub(super) fn failure_of(error: &DiskError) -> FailureReason {
    match error.kind {
        DiskErrorKind::NoSpace => FailureReason::NoSpace,
        DiskErrorKind::Busy => FailureReason::Busy,
        _ => FailureReason::Failed,
    }
}
