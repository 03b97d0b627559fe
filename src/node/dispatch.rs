//! Dispatch: from an input, or from a machine's event, to the one component that handles it.
//!
//! Nothing is decided here. [`Node::settle`] defines the order: events of the machines come before the work that follows from them,
//! until no machine has an event left.

use super::command::{Command, CommandId, FailureReason, Reply};
use super::ops::audit::answer::Question;
use super::ops::place_piece::PlaceFor;
use super::ops::repair::Relocated;
use super::ops::share::ShareEvent;
use super::ops::{audit, download, read, share, stock, values};
use super::{Copying, Node, Output, Purpose, Waiting};
use crate::dht::DhtEvent;
use crate::id::{Key, NodeId};
use crate::io::{DiskError, DiskReply, Recovered};
use crate::peers::standing::Standing;
use crate::store::PieceChange;
use crate::time::Instant;
use crate::transfer::{DownloadError, PushError, PushId, PushOutcome, TransferEvent};
use crate::wire::datagram::Verified;
use crate::wire::header::Kind;
use crate::wire::message::Message;
use core::net::SocketAddr;

impl Node {
    /// Passes the events of the machines on until none is left.
    pub(super) fn settle(&mut self, now: Instant) {
        loop {
            while let Some(event) = self.machines.dht.poll_event() {
                self.dht_event(now, event);
            }
            if let Some(event) = self.machines.gossip.poll_event() {
                self.gossip_event(now, event);
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
                self.share_event(now, event);
                continue;
            }
            self.tell_neighbourhood(now);
            if self.repair(now) || self.hand_over(now) || self.hand_on(now) {
                continue;
            }
            if self.early.is_empty() || self.machines.dht.is_joining() {
                break;
            }
            for (id, command) in self.early.take() {
                self.obey(now, id, command);
            }
        }
        self.seekers.review(now, &mut self.machines);
        while let Some(output) = self.machines.transfer.poll_output() {
            self.machines.outputs.push_back(Output::Stream(output));
        }
        self.machines.tidy();
    }

    /// Offers the pieces that are handed over before this node leaves, and goes when it is time. Returns whether there was anything to do.
    fn hand_over(&mut self, now: Instant) -> bool {
        let mut acted = false;
        while let Some(key) = self.departure.next() {
            self.repair.relocate(now, key, &mut self.machines);
            acted = true;
        }
        if self.departure.is_due(now) {
            self.say_goodbye(now, true);
            self.departure.finish(&mut self.machines);
        }
        acted
    }

    /// Passes an authenticated datagram to the machine that handles it.
    pub(super) fn deliver(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &Verified<'_>,
        standing: Standing,
    ) {
        self.sender_is_there(now, from, datagram, standing.is_validated());
        let kind = datagram.message().kind();
        match kind {
            Kind::Gossip | Kind::GossipReply | Kind::Probe | Kind::ProbeReply => {
                self.machines.gossip.handle_datagram(
                    now,
                    from,
                    datagram,
                    standing,
                    &mut self.machines.outbox,
                );
            }
            Kind::Reconcile | Kind::Reconciled => {
                self.machines.replication.handle_datagram(
                    now,
                    from,
                    datagram,
                    standing.is_validated(),
                    &mut self.machines.outbox,
                );
            }
            Kind::Pong if self.machines.gossip.is_expected(kind, datagram.transaction(), from) => {
                self.machines.gossip.handle_datagram(
                    now,
                    from,
                    datagram,
                    standing,
                    &mut self.machines.outbox,
                );
            }
            // A goodbye that may be a recording only makes this node probe the member.
            Kind::Leave if !standing.is_fresh() => self.machines.gossip.note_failed(now, &datagram.id()),
            _ => {
                if let Message::Leave { for_good, sequence } = datagram.message() {
                    let (id, epoch) = (datagram.id(), datagram.epoch());
                    self.machines.gossip.note_leave(now, &id, epoch, for_good, sequence);
                }
                self.machines.dht.handle_datagram(now, from, datagram, standing, &mut self.machines.outbox);
            }
        }
    }

    /// A challenge to a request came from an address: the machine whose request it is sends that again, with a signature.
    pub(super) fn challenged(&mut self, now: Instant, from: SocketAddr, transaction: u64, token: u64) {
        let super::machines::Machines { dht, gossip, replication, outbox, .. } = &mut self.machines;
        dht.handle_challenge(now, from, transaction, token, outbox);
        gossip.handle_challenge(now, from, transaction, token, outbox);
        replication.handle_challenge(now, from, transaction, token, outbox);
    }

    /// Whether an answer matches an outstanding request of one of the machines.
    pub(super) fn is_expected(&self, kind: Kind, transaction: u64, from: SocketAddr) -> bool {
        self.machines.dht.is_expected(kind, transaction, from)
            || self.machines.gossip.is_expected(kind, transaction, from)
            || self.machines.replication.is_expected(kind, transaction, from)
    }

    /// A disk operation ended, or made progress.
    pub(super) fn disk_done(&mut self, now: Instant, waiting: Waiting, result: Result<DiskReply, DiskError>) {
        match waiting {
            Waiting::UsersFile => {
                if let Err(error) = result {
                    log::warn!("{error}");
                    self.counters.disk_errors += 1;
                }
            }
            Waiting::Nothing => {
                if let Err(error) = result {
                    self.own_file_failed(now, &error);
                }
            }
            Waiting::Put(command) => self.puts.handle_disk(command, result, &mut self.machines),
            Waiting::Unshare(command) => {
                if let Err(error) = &result {
                    self.health.note_error(now, error);
                }
                self.removals.handle_disk(command, result, &mut self.machines);
            }
            Waiting::Examine => self.watch.handle_disk(now, result, &mut self.machines),
            Waiting::Upload(hash) => {
                if !self.uploads.handle_manifest(now, &hash, result, &mut self.machines) {
                    // The manifest is written again when the file has been hashed again.
                    self.watch.distrust(now, &hash, &mut self.machines);
                }
            }
            Waiting::Stock(hash) => {
                if !stock::handle_manifest(now, &hash, result, &mut self.machines) {
                    self.watch.distrust(now, &hash, &mut self.machines);
                }
            }
            Waiting::Forget(shared) => {
                stock::handle_ended_manifest(now, &shared, result, &mut self.machines);
            }
            Waiting::Stamp(place, looker) => self.looked_at(now, &place, looker, result),
            Waiting::Root(id) => self.seekers.handle_root_read(now, id, result, &mut self.machines),
            Waiting::Download(download, step) => {
                self.seekers.downloads.handle_disk(now, download, step, result, &mut self.machines);
            }
            Waiting::Read(id, step) => self.read_disk(now, id, step, result),
            Waiting::Inbound(step) => {
                if let Some(error) = self.inbound.handle_disk(now, step, result, &mut self.machines) {
                    self.own_file_failed(now, &error);
                }
            }
            Waiting::Scrub => self.scrubbed(now, result),
            Waiting::Recheck => self.rechecked(now, result),
            Waiting::Record(command, reply) => match result {
                Ok(_) => self.machines.done(command, reply),
                Err(error) => {
                    self.health.note_error(now, &error);
                    self.machines.disk_failed(command, &error);
                }
            },
        }
    }

    /// Passes a command to its operation.
    pub(super) fn obey(&mut self, now: Instant, id: CommandId, command: Command) {
        match command {
            Command::Put { path, replicas, lifetime } => {
                self.puts.start(id, path, replicas, lifetime, &mut self.machines);
            }
            Command::Explain { hash, timeout } => {
                self.seekers.audits.start(now, audit::Order { id, hash, timeout }, &mut self.machines);
            }
            Command::Get { hash, target, force, mode, timeout } => {
                self.watch.asked_for(now, &hash, &mut self.machines);
                let order = download::Order { id, hash, target, force, mode, timeout };
                self.seekers.downloads.start(now, order, &mut self.machines);
            }
            Command::Read { hash, part, timeout } => {
                self.watch.asked_for(now, &hash, &mut self.machines);
                self.seekers.reads.start(now, read::Order { id, hash, part, timeout }, &mut self.machines);
            }
            Command::Limit { upload, download, peer_upload, peer_download, streams, uploads } => {
                let mut limits = self.config.limits.clone();
                let rates = &mut limits.rates;
                rates.upload = upload.unwrap_or(rates.upload);
                rates.download = download.unwrap_or(rates.download);
                rates.peer_upload = peer_upload.unwrap_or(rates.peer_upload);
                rates.peer_download = peer_download.unwrap_or(rates.peer_download);
                limits.streams_max = streams.unwrap_or(limits.streams_max);
                limits.uploads_max = uploads.unwrap_or(limits.uploads_max);
                match self.limit(now, limits) {
                    Ok(reply) => self.machines.done(id, reply),
                    Err(error) => self.machines.fail(id, FailureReason::Usage, error.to_string()),
                }
            }
            Command::Remove { hash } => self.removals.start(id, hash, &mut self.machines),
            Command::Set { name, value, lifetime } => {
                self.values.set(now, id, &name, &value, lifetime, &mut self.machines);
            }
            Command::Unset { name } => {
                let early = self.early.take_sets(&name);
                self.values.unset(id, &name, early, &mut self.machines);
            }
            Command::Values => {
                let (publisher, values) = (self.public, values::own(&self.machines));
                self.machines.done(id, Reply::Values { publisher, values });
            }
            Command::Lookup { publisher, name, fresh } => {
                self.values.look_up(now, id, publisher, &name, fresh, &mut self.machines);
            }
            Command::List { after } => {
                let page = self.list(after.as_ref());
                self.machines.done(id, page);
            }
            Command::Peers => {
                let peers = self.peers(now);
                self.machines.done(id, Reply::Peers { peers });
            }
            Command::Forgive { peer } => {
                let bans = self.machines.transfer.forgive(now, peer.as_ref()) as u32;
                self.machines.done(id, Reply::Forgive { bans });
            }
            Command::Scrub { background } => self.scrub.start(now, id, background, &mut self.machines),
            Command::Status => {
                let status = self.status(now);
                self.machines.done(id, Reply::Status(Box::new(status)));
            }
            Command::Id => self.machines.done(id, Reply::Id { id: self.id, public: self.public }),
            Command::Leave { timeout } => self.departure.start(now, id, timeout, &self.machines),
        }
    }

    /// Handles an event of the DHT.
    fn dht_event(&mut self, now: Instant, event: DhtEvent) {
        match event {
            DhtEvent::Providers { lookup, contacts } => {
                self.seekers.handle_providers(now, lookup, self.id, &contacts, &mut self.machines);
            }
            DhtEvent::Finished { lookup, closest, record, asked, .. } => {
                match self.machines.lookups.remove(&lookup) {
                    Some(Purpose::Providers(id)) => {
                        let machines = &mut self.machines;
                        self.seekers.handle_providers_looked_up(now, id, &closest, asked, machines);
                    }
                    Some(Purpose::Holders(id, key)) => {
                        let machines = &mut self.machines;
                        self.seekers.handle_holders_looked_up(now, id, key, &closest, asked, machines);
                    }
                    Some(Purpose::Place(PlaceFor::Relocation { key })) => {
                        self.repair.handle_looked_up(now, key, &closest, &mut self.machines);
                    }
                    Some(Purpose::Place(PlaceFor::Upload { file, piece })) => {
                        self.uploads.handle_looked_up(now, (file, piece), &closest, &mut self.machines);
                    }
                    Some(Purpose::Value(question)) => {
                        question.answer(now, record.as_deref(), asked, &mut self.machines);
                    }
                    None => {}
                }
            }
            DhtEvent::Published { publish, copies, record, .. } => {
                self.values.handle_published(publish, copies, &record, &mut self.machines);
            }
            DhtEvent::Announced { file, copies } => {
                log::debug!("{file} is announced to {copies} nodes");
                self.uploads.handle_announced(now, &file, &mut self.machines);
            }
            DhtEvent::Unanswered { id } => self.machines.gossip.note_failed(now, &id),
            DhtEvent::Joined { contacts } => self.joined(now, contacts),
            DhtEvent::BootstrapFailed { retry_in, round } => self.bootstrap_failed(retry_in, round),
        }
    }

    /// Handles an event of the transfer machine.
    fn transfer_event(&mut self, now: Instant, event: TransferEvent) {
        match event {
            TransferEvent::InspectAsked { stream, question, keys } => {
                Question::new(stream, question, keys, &self.machines).go_on(now, &mut self.machines);
            }
            TransferEvent::Inspected { inspection, result, .. } => {
                self.seekers.audits.handle_answer(now, inspection, result, &mut self.machines);
            }
            TransferEvent::Arrived { stream, request, incoming, bytes, .. } => {
                self.inbound.handle_arrived((stream, request), incoming, bytes, &mut self.machines);
            }
            TransferEvent::ArrivalUnwritten { error } => {
                if let Some(error) = self.inbound.handle_unwritten(now, error) {
                    self.own_file_failed(now, &error);
                }
            }
            TransferEvent::ArrivalFailed { incoming } => {
                self.inbound.handle_arrival_failed(incoming, &mut self.machines);
            }
            TransferEvent::Root { download, root, mode } => {
                self.seekers.handle_root(now, download, root, mode, &mut self.machines);
            }
            TransferEvent::ChunkDone { download, index } => {
                self.seekers.handle_chunk(now, download, index, &mut self.machines);
            }
            TransferEvent::Complete { download, sources } => {
                self.seekers.handle_complete(now, download, sources, &mut self.machines);
            }
            TransferEvent::SourcesNeeded { download, keys } => {
                self.seekers.handle_sources_needed(now, download, &keys, &mut self.machines);
            }
            TransferEvent::DownloadFailed { download, error } => {
                let (DownloadError::NoSpace(error) | DownloadError::Disk(error)) = error;
                self.seekers.handle_failed(now, download, &error, &mut self.machines);
            }
            TransferEvent::PushDone { push, target, result } => self.copied(now, push, target, &result),
            TransferEvent::SourceBad { ban, file, key } => self.source_bad(now, &ban, &file, &key),
            TransferEvent::Reported { peer, key } => {
                self.rechecks.report(now, key, peer, &mut self.machines);
            }
            TransferEvent::Peer { contact, leaf, alive } => self.stream_told(now, contact, leaf, alive),
            TransferEvent::SendFailed { place, error } => self.send_failed(now, &place, &error),
        }
    }

    /// A copy to another node ended. Its operation may have been cancelled.
    fn copied(
        &mut self,
        now: Instant,
        push: PushId,
        target: NodeId,
        result: &Result<PushOutcome, PushError>,
    ) {
        let machines = &mut self.machines;
        match machines.pushes.remove(&push).map(|(copying, _)| copying) {
            Some(Copying::Place(PlaceFor::Upload { file, piece })) => {
                self.uploads.handle_copied(now, (file, piece, push), &target, result, machines);
            }
            Some(Copying::Place(PlaceFor::Relocation { key })) => {
                self.repair.handle_placed(now, (key, push), &target, result, machines);
            }
            Some(Copying::Repair(key)) => self.repair.handle_copied(now, &key, &target, result, machines),
            None => {}
        }
    }

    /// After a start: announces shared files again, adds them to replication, and continues unfinished uploads.
    pub(super) fn resume_shares(&mut self, now: Instant, recovered: &Recovered) {
        for shared in share::served(&self.machines) {
            let manifest = recovered.manifests.get(&shared.hash).cloned();
            self.machines.dht.provide_again(now, shared.hash);
            stock::file_served(now, &shared, manifest.clone(), &mut self.machines);
            self.uploads.served(now, &shared, manifest, None, true, &mut self.machines);
        }
    }

    /// Handles an event of a share: a file is served from now on, or no longer.
    fn share_event(&mut self, now: Instant, event: ShareEvent) {
        match event {
            ShareEvent::Served { hash, manifest, waiter, fresh } => {
                let Some(shared) = self.machines.store.shared(&hash) else { return };
                self.machines.dht.provide(now, hash, false, &mut self.machines.outbox);
                if fresh {
                    stock::file_served(now, &shared, manifest.clone(), &mut self.machines);
                }
                self.uploads.served(now, &shared, manifest, waiter, fresh, &mut self.machines);
            }
            ShareEvent::Withdrawn { shared, why, manifest } => {
                // It may be served again, from another path.
                if self.machines.store.source(&shared.hash).is_none() {
                    stock::file_withdrawn(now, &shared, manifest.as_deref(), &mut self.machines);
                    self.unserved(now, &shared.hash, &why);
                }
            }
        }
    }

    /// A file is no longer served: ends its announcement and its upload.
    fn unserved(&mut self, now: Instant, hash: &Key, why: &str) {
        self.machines.dht.unprovide(now, hash, &mut self.machines.outbox);
        self.uploads.stop(now, hash, why, &mut self.machines);
    }

    /// Tells replication about changes of the store, carries out its decisions, and reports relocations that ended. Returns whether
    /// there was a decision or an end.
    fn repair(&mut self, now: Instant) -> bool {
        while let Some(change) = self.machines.store.poll_change() {
            match change {
                PieceChange::Kept(meta) => stock::piece_changed(now, &meta.key, &mut self.machines),
                PieceChange::Evicted(hash) => {
                    self.unserved(now, &hash, "its file was in the cache, and made room");
                }
                PieceChange::Dropped(key) => {
                    self.scrub.piece_dropped(&key);
                    stock::piece_removed(now, &key, &mut self.machines);
                }
            }
        }
        let mut acted = false;
        while let Some(action) = self.machines.replication.poll_action() {
            self.repair.act(now, action, &mut self.machines);
            acted = true;
        }
        while let Some(Relocated { key, copies }) = self.repair.poll_relocated() {
            self.shrink.placed(now, &key, copies, &mut self.machines);
            self.departure.placed(&key, copies, &mut self.machines);
            acted = true;
        }
        acted
    }

    /// Hands on pieces that exceed the limits. Returns whether there was anything to do.
    fn hand_on(&mut self, now: Instant) -> bool {
        let next = self.shrink.next(now, &self.id, &self.machines).filter(|_| !self.departure.is_under_way());
        if let Some(key) = next {
            self.repair.relocate(now, key, &mut self.machines);
        }
        next.is_some()
    }
}
