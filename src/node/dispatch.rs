//! Dispatch: from an input, or from a machine's event, to the one component that handles it.
//!
//! Nothing is decided here. [`Node::settle`] defines the order: events of the machines come before the work that follows from them,
//! until no machine has an event left.

use super::command::{Command, CommandId, FailureReason, Reply};
use super::lan::Heard;
use super::machines::Machines;
use super::ops::{audit, download, read, values};
use super::{HostName, Node, Waiting, bridge, joining, limit, status};
use crate::dht::DhtEvent;
use crate::io::{DiskOp, Tree};
use crate::peers::inbox;
use crate::peers::requests::Challenge;
use crate::peers::standing::Standing;
use crate::peers::table::{Hold, Received};
use crate::time::Instant;
use crate::transfer::{DownloadError, TransferEvent};
use crate::wire::Refused;
use crate::wire::contact::{Contact, canonical};
use crate::wire::datagram::{Unverified, Verified};
use crate::wire::header::Kind;
use crate::wire::message::Message;
use core::net::SocketAddr;

impl Node {
    /// Passes the events of the machines on until none is left.
    pub(super) fn settle(&mut self, now: Instant) {
        loop {
            self.ops.run_errands(now, &mut self.machines);
            while let Some(event) = self.machines.dht.poll_event() {
                self.dht_event(now, event);
            }
            if let Some(event) = self.machines.gossip.poll_event() {
                self.presence.handle_event(now, &event, &mut self.machines);
                self.bridge.handle_event(now, &event, &mut self.machines);
                continue;
            }
            if self.machines.transfer.has_lookups() {
                self.at_the_shelf(now, |transfer, _, shelf| transfer.look_up(now, shelf));
                continue;
            }
            if let Some(event) = self.machines.transfer.poll_event() {
                self.transfer_event(now, event);
                continue;
            }
            if let Some(event) = self.machines.share_events.pop_front() {
                self.ops.handle_share_event(now, event, &mut self.machines);
                continue;
            }
            self.bridge.tell_neighbourhood(now, &mut self.machines);
            if self.ops.go_on(now, &mut self.machines) {
                continue;
            }
            if self.ops.departure.is_due(now) {
                self.say_goodbye(now, true);
                self.ops.departure.finish(&mut self.machines);
            }
            if self.early.is_empty() || self.is_joining() {
                break;
            }
            for (id, command) in self.early.take() {
                self.obey(now, id, command);
            }
        }
        self.ops.seekers.review(now, &mut self.machines);
        self.presence.send_questions(now, &mut self.machines.outbox);
        self.machines.tidy();
    }

    /// Passes an authenticated datagram to the machine that handles it.
    pub(super) fn deliver(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &Verified<'_>,
        standing: Standing,
    ) {
        let sender = Contact { id: datagram.id(), public: datagram.public(), addr: from };
        bridge::sender_is_there(now, sender, datagram, standing.is_validated(), &mut self.machines);
        for download in self.source_probes.sender_is_there(now, &sender, &mut self.machines.transfer) {
            let machines = &mut self.machines;
            self.ops.seekers.hand(now, download, machines, |seeker, _| seeker.handle_reached(now));
        }
        let kind = datagram.message().kind();
        if self.presence.is_expected(kind, datagram.transaction(), from) {
            return self.presence.handle_answer(now, from, datagram, &mut self.machines);
        }
        if self.survey.is_expected(kind, datagram.transaction(), from) {
            return self.survey.handle_answer(now, from, datagram, &mut self.machines);
        }
        let Machines { dht, gossip, replication, outbox, .. } = &mut self.machines;
        let is_pong_to_gossip = kind == Kind::Pong && gossip.is_expected(kind, datagram.transaction(), from);
        match kind {
            Kind::Gossip | Kind::GossipReply | Kind::Probe | Kind::ProbeReply => {
                gossip.handle_datagram(now, from, datagram, standing, outbox);
            }
            _ if is_pong_to_gossip => gossip.handle_datagram(now, from, datagram, standing, outbox),
            Kind::Reconcile | Kind::Reconciled => {
                replication.handle_datagram(now, from, datagram, standing.is_validated(), outbox);
            }
            // A here comes through a group: see [`Node::handle_here`].
            Kind::Here => {}
            Kind::Pong if self.source_probes.is_expected(kind, datagram.transaction(), from) => {
                self.source_probes.handle_answer(now, from, datagram, outbox);
            }
            // A goodbye that may be a recording only makes this node probe the member.
            Kind::Leave if !standing.is_fresh() => gossip.note_failed(now, &datagram.id()),
            _ => {
                if let Message::Leave { for_good, sequence } = datagram.message() {
                    gossip.note_leave(now, &datagram.id(), datagram.epoch(), for_good, sequence);
                }
                dht.handle_datagram(now, from, datagram, standing, outbox);
            }
        }
    }

    /// A datagram arrived through the group of a link that this machine is on. The driver hands over only datagrams whose source is
    /// an address of that link: see [`Output::Here`](super::Output::Here).
    pub fn handle_here(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        let from = canonical(from);
        self.counters.datagrams_in += 1;
        let here = match Unverified::parse(bytes, self.machines.outbox.network()) {
            Ok(here) if here.kind() == Kind::Here => here,
            Ok(_) => return self.refuse(Refused::Kind),
            Err(reason) => return self.refuse(reason),
        };
        if !here.is_marked(self.machines.outbox.network()) {
            self.lan.counters.unmarked += 1;
            return;
        }
        if here.sender() == self.id().short() {
            if here.epoch() != self.machines.outbox.epoch() {
                self.own_key_used(now, from, here);
                self.settle(now);
            }
            return;
        }
        let heard = Heard { epoch: here.epoch(), sequence: here.sequence(), addr: from, at: now };
        if self.lan.is_old(&here.sender(), &heard) {
            self.lan.counters.over_budget += 1;
        } else {
            match inbox::receive(&mut self.machines.outbox, now, from, here, false, |_| Hold::Loose) {
                Ok(Received { datagram, .. }) => {
                    let sender = Contact { id: datagram.id(), public: datagram.public(), addr: from };
                    self.lan.handle_here(now, sender, heard, &mut self.machines);
                    self.settle(now);
                }
                Err(rejected) => self.reject(rejected),
            }
        }
    }

    /// A name of a bootstrap node was resolved ([`Output::Resolve`](super::Output::Resolve)), or the reason why it was not. Of the
    /// addresses, the first [`ADDRESSES_PER_NAME_MAX`](super::ADDRESSES_PER_NAME_MAX) are used.
    pub fn handle_resolved(
        &mut self,
        now: Instant,
        name: &HostName,
        result: Result<Vec<SocketAddr>, String>,
    ) {
        self.names.handle_resolved(now, name, result, &mut self.machines);
        self.settle(now);
    }

    /// Whether the first attempt to join the network is under way.
    pub(super) fn is_joining(&self) -> bool {
        let dht = &self.machines.dht;
        let may_join = self.names.are_awaited() || self.lan.is_awaited();
        dht.is_joining() || may_join && dht.statistics().contacts == 0
    }

    /// A challenge arrived: the machine whose request it is about sends that again, with a signature.
    pub(super) fn challenged(&mut self, now: Instant, challenge: &Challenge) {
        let Machines { dht, gossip, replication, outbox, .. } = &mut self.machines;
        dht.handle_challenge(now, challenge, outbox);
        gossip.handle_challenge(now, challenge, outbox);
        replication.handle_challenge(now, challenge, outbox);
        self.source_probes.handle_challenge(now, challenge, outbox);
        self.presence.handle_challenge(now, challenge, outbox);
        self.survey.handle_challenge(now, challenge, outbox);
    }

    /// A datagram arrived that claims to be of this node: of this run, an earlier one, or another process that has this node's key.
    pub(super) fn own_key_used(&mut self, now: Instant, from: SocketAddr, datagram: Unverified<'_>) {
        if !self.presence.is_own_expected(now, from, &datagram) {
            self.counters.unexpected_answers += 1;
        } else if let Err(rejected) = self.presence.handle_own(now, from, datagram, &mut self.machines.outbox)
        {
            self.reject(rejected);
        }
    }

    /// Whether an answer matches an outstanding request of one of the machines.
    pub(super) fn is_expected(&self, kind: Kind, transaction: u64, from: SocketAddr) -> bool {
        self.machines.dht.is_expected(kind, transaction, from)
            || self.machines.gossip.is_expected(kind, transaction, from)
            || self.machines.replication.is_expected(kind, transaction, from)
            || self.source_probes.is_expected(kind, transaction, from)
            || self.presence.is_expected(kind, transaction, from)
            || self.survey.is_expected(kind, transaction, from)
    }

    /// Passes a command to its operation.
    pub(super) fn obey(&mut self, now: Instant, id: CommandId, command: Command) {
        match command {
            Command::Put { path, replicas, lifetime } => {
                self.ops.puts.start(id, path, replicas, lifetime, &mut self.machines);
            }
            Command::Explain { hash, timeout } => {
                self.ops.seekers.audits.start(now, audit::Order { id, hash, timeout }, &mut self.machines);
            }
            Command::Get { hash, target, force, mode, timeout } => {
                self.ops.watch.asked_for(now, &hash, &mut self.machines);
                let order = download::Order { id, hash, target, force, mode, tree: None, timeout };
                self.ops.seekers.downloads.start(now, order, &mut self.machines);
            }
            Command::GetEntry { hash, directory, place, mode, modified, timeout } => {
                self.ops.watch.asked_for(now, &hash, &mut self.machines);
                let (target, root) = (Some(directory.join(place)), directory.into());
                let tree = Some(Tree { root, modified });
                let order = download::Order { id, hash, target, force: true, mode, tree, timeout };
                self.ops.seekers.downloads.start(now, order, &mut self.machines);
            }
            Command::Read { hash, part, timeout } => {
                self.ops.watch.asked_for(now, &hash, &mut self.machines);
                self.ops.seekers.reads.start(
                    now,
                    read::Order { id, hash, part, timeout },
                    &mut self.machines,
                );
            }
            Command::Limit { upload, download, peer_upload, peer_download, streams, uploads } => {
                let change = limit::Change { upload, download, peer_upload, peer_download, streams, uploads };
                change.apply(now, id, &mut self.config.limits, &mut self.machines);
            }
            Command::Remove { hash } => self.ops.removals.start(id, hash, &mut self.machines),
            Command::Set { name, value, lifetime } => {
                self.ops.values.set(now, id, &name, &value, lifetime, &mut self.machines);
            }
            Command::Unset { name } => {
                let early = self.early.take_sets(&name);
                self.ops.values.unset(id, &name, early, &mut self.machines);
            }
            Command::Values => {
                let (publisher, values) = (self.public(), values::own(&self.machines));
                self.machines.done(id, Reply::Values { publisher, values });
            }
            Command::Lookup { publisher, name, fresh } => {
                self.ops.values.look_up(now, id, publisher, &name, fresh, &mut self.machines);
            }
            Command::List { after } => {
                let page = self.ops.list(after.as_ref(), &self.machines);
                self.machines.done(id, page);
            }
            Command::Peers => {
                let peers = status::peers(now, &self.machines);
                self.machines.done(id, Reply::Peers { peers });
            }
            Command::Forgive { peer } => {
                let bans = self.machines.transfer.forgive(now, peer.as_ref()) as u32;
                self.machines.done(id, Reply::Forgive { bans });
            }
            Command::Scrub { background } => self.ops.scrub.start(now, id, background, &mut self.machines),
            Command::Status => {
                let status = self.status(now);
                self.machines.done(id, Reply::Status(Box::new(status)));
            }
            Command::Id => self.machines.done(id, Reply::Id { id: self.id(), public: self.public() }),
            // The driver has the events, and answers.
            Command::Events { .. } => {
                self.machines.fail(id, FailureReason::Usage, "this node is run without events");
            }
            Command::Leave { timeout } => self.ops.departure.start(now, id, timeout, &self.machines),
        }
    }

    /// Handles an event of the DHT.
    fn dht_event(&mut self, now: Instant, event: DhtEvent) {
        match event {
            DhtEvent::Providers { lookup, contacts } => {
                let own = self.id();
                self.ops.seekers.handle_providers(now, lookup, own, &contacts, &mut self.machines);
            }
            DhtEvent::Finished { lookup, closest, record, turnout, .. } => {
                let machines = &mut self.machines;
                self.ops.handle_looked_up(now, lookup, &closest, record.as_deref(), turnout, machines);
            }
            DhtEvent::Published { publish, copies, record, .. } => {
                self.ops.values.handle_published(publish, copies, &record, &mut self.machines);
            }
            DhtEvent::Findable { file } => {
                self.ops.uploads.handle_announced(now, &file, &mut self.machines);
            }
            DhtEvent::Announced { file, copies } => {
                log::debug!("{file} is announced to {copies} nodes");
                self.ops.uploads.handle_announced(now, &file, &mut self.machines);
            }
            DhtEvent::Unanswered { id } => self.machines.gossip.note_failed(now, &id),
            DhtEvent::Joined { contacts } => {
                joining::log_joined(contacts);
                self.names.note_joined();
                self.ops.uploads.handle_joined(now, &mut self.machines);
            }
            DhtEvent::BootstrapFailed { retry_in, round } => {
                joining::log_failed(self.config.listen, round, retry_in);
                self.names.note_unanswered(now);
            }
        }
    }

    /// Handles an event of the transfer machine.
    fn transfer_event(&mut self, now: Instant, event: TransferEvent) {
        match event {
            TransferEvent::Inspected { inspection, result, .. } => {
                self.ops.seekers.audits.handle_answer(now, inspection, result, &mut self.machines);
            }
            TransferEvent::Arrived { stream, request, incoming, bytes, .. } => {
                self.ops.inbound.handle_arrived((stream, request), incoming, bytes, &mut self.machines);
            }
            TransferEvent::ArrivalUnwritten { error } => {
                if let Some(error) = self.ops.inbound.handle_unwritten(now, error) {
                    self.ops.health.own_file_failed(now, &error);
                }
            }
            TransferEvent::ArrivalFailed { incoming } => {
                self.ops.inbound.handle_arrival_failed(incoming, &mut self.machines);
            }
            TransferEvent::Root { download, root, mode } => {
                self.ops.seekers.hand(now, download, &mut self.machines, |seeker, machines| {
                    seeker.handle_root(now, root, mode, machines);
                });
            }
            TransferEvent::ChunkDone { download, index } => {
                self.ops.seekers.hand_to_fetcher(now, download, &mut self.machines, |fetcher, machines| {
                    fetcher.handle_chunk(now, index, machines);
                });
            }
            TransferEvent::Complete { download, sources } => {
                self.ops.seekers.hand_to_fetcher(now, download, &mut self.machines, |fetcher, machines| {
                    fetcher.handle_complete(sources, machines);
                });
            }
            TransferEvent::SourcesNeeded { download, keys } => {
                self.ops.seekers.hand_to_fetcher(now, download, &mut self.machines, |fetcher, machines| {
                    fetcher.handle_sources_needed(now, &keys, machines);
                });
            }
            TransferEvent::DownloadFailed { download, error } => {
                let (DownloadError::NoSpace(error) | DownloadError::Disk(error)) = error;
                self.ops.seekers.hand_to_fetcher(now, download, &mut self.machines, |fetcher, machines| {
                    fetcher.handle_failed(now, &error, machines);
                });
            }
            TransferEvent::SampleNeeded { sample, extent, runs } => {
                let waiting = Waiting::Sample(sample, extent.place.clone());
                self.machines.disk(DiskOp::Sample { extent, runs }, waiting);
            }
            TransferEvent::Proven { proof, proven, .. } => {
                self.ops.repair.handle_proven(now, proof, proven, &mut self.machines);
            }
            TransferEvent::Tried { dial, connected } => {
                self.presence.handle_tried(now, dial, connected, &mut self.machines);
            }
            TransferEvent::PushDone { push, target, result } => {
                self.ops.handle_pushed(now, push, &target, &result, &mut self.machines);
            }
            TransferEvent::SourceBad { ban, file, key } => self.ops.source_bad(now, &ban, &file, &key),
            TransferEvent::Reported { peer, key } => {
                self.ops.rechecks.report(now, key, peer, &mut self.machines);
            }
            TransferEvent::Peer { contact, leaf, alive } => {
                bridge::stream_told(now, contact, leaf, alive, &mut self.machines);
            }
            TransferEvent::SendFailed { place, error } => {
                self.ops.send_failed(now, &place, &error, &mut self.machines)
            }
        }
    }
}
