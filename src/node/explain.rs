//! The audit of a file (`explain`): every node that should hold a piece of it is asked now whether it does.
//!
//! First the manifest is needed: from this node's disk, or fetched like that of a download, and nothing else of the file. Then the
//! nodes closest to each piece, and the file's providers, are asked over authenticated streams. Only what a node says about its own
//! disk counts. Nodes that have not answered by the deadline are reported.

use super::command::{CommandId, ExplainedNode, FailureReason, Progress, Reply, Stage};
use super::explanation::{Findings, Piece};
use super::inquiry::{Asked, Asking, Explain, Looking};
use super::inspect::nothing_of;
use super::{Node, Purpose, Waiting, status};
use crate::dht::LookupId;
use crate::id::Key;
use crate::io::{DiskError, DiskOp, DiskReply};
use crate::manifest::{Content, Manifest};
use crate::time::{Duration, Instant};
use crate::transfer::{DownloadId, InspectError, InspectId, Root};
use crate::wire::contact::Contact;
use crate::wire::inspect::{INSPECT_KEYS_MAX, InspectEntry};
use crate::wire::message::Want;
use std::sync::Arc;

/// The time limit for answers, unless the command says otherwise.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// The most nodes closest to each piece that are asked about it.
const CLOSEST_ASKED_MAX: usize = 17;
/// Nodes that are asked beyond those that should hold a piece: nodes may disagree about which ones are closest.
const SPARE_NODES: usize = 3;
/// Nodes near the hash that are asked for the manifest.
const ROOT_ASKED: usize = 6;
/// Lookups under way for one file.
const LOOKUPS_MAX: usize = 3;
/// Pieces whose closest nodes are determined in one step.
const PIECES_PER_STEP: usize = 256;
/// Outstanding questions for one file, and attempts to ask one node the same question.
const QUESTIONS_MAX: usize = 16;
const TRIES_MAX: u8 = 2;
/// Providers that are asked about one file. Each is asked about every piece.
const PROVIDERS_MAX: usize = 32;
/// The pause when too many lookups or questions are under way.
const NO_ROOM_WAIT: Duration = Duration::from_millis(250);

impl Node {
    pub(super) fn explain(&mut self, now: Instant, id: CommandId, hash: Key, timeout: Option<u32>) {
        let most = self.config.limits.explains_max;
        if self.explains.len() >= most {
            let message = format!(
                "{most} files are being explained, and no more are allowed (`--explains`): try later"
            );
            return self.machines.fail(id, FailureReason::Busy, message);
        }
        let timeout = timeout.map_or(TIMEOUT_DEFAULT, |seconds| Duration::from_secs(seconds.max(1).into()));
        self.explains.insert(id, Explain::new(hash, now + timeout));
        self.explain_look_up(now, id);
        match self.machines.store.source(&hash) {
            Some(claim) => {
                let file = nothing_of(claim.place(&hash), claim.stamp);
                self.machines.disk(DiskOp::Read(file), Waiting::Explain(id));
            }
            None => self.explain_locate(now, id),
        }
    }

    fn explain_look_up(&mut self, now: Instant, id: CommandId) {
        let Some(explain) = self.explains.get_mut(&id) else { return };
        match self.machines.dht.find(now, explain.hash, Want::Providers, &mut self.machines.outbox) {
            Some(lookup) => {
                explain.lookup = Some(lookup);
                self.machines.lookups.insert(lookup, Purpose::ExplainProviders(id));
            }
            None => explain.step_at = Some(now + NO_ROOM_WAIT),
        }
    }

    // The manifest.

    pub(super) fn explain_disk(&mut self, now: Instant, id: CommandId, result: Result<DiskReply, DiskError>) {
        let Some(explain) = self.explains.get(&id) else { return };
        let (hash, stage) = (explain.hash, explain.stage);
        match (stage, result) {
            (Looking::OwnFile, result) => {
                let place = self.machines.store.source(&hash).map(|claim| claim.place(&hash));
                if let (Some(place), Err(error)) = (place, result) {
                    self.watch.look_failed(now, &place, &error, &mut self.machines);
                }
                self.explain_locate(now, id);
            }
            (Looking::OwnManifest, Ok(DiskReply::Bytes(bytes))) => match Manifest::decode(&bytes, &hash) {
                Ok(manifest) => self.explain_pieces(now, id, Arc::new(manifest)),
                Err(_) => {
                    self.machines.store.remove_piece(&hash);
                    self.explain_fetch(now, id);
                }
            },
            // The stored manifest cannot be read: the network may have it.
            (Looking::OwnManifest, _) => self.explain_fetch(now, id),
            (Looking::Root(_) | Looking::Pieces, _) => {}
        }
    }

    /// Takes the manifest from this node's disk, if it is there.
    fn explain_locate(&mut self, now: Instant, id: CommandId) {
        let Some(explain) = self.explains.get_mut(&id) else { return };
        let hash = explain.hash;
        if let Some(manifest) = self.machines.store.partial(&hash).cloned() {
            return self.explain_pieces(now, id, manifest);
        }
        let empty = (hash == Key(*blake3::hash(&[]).as_bytes())).then_some(0);
        let single = match self.machines.store.locate(&hash) {
            Some((Content::Manifest, extent)) => {
                explain.stage = Looking::OwnManifest;
                return self.machines.disk(DiskOp::Read(extent), Waiting::Explain(id));
            }
            Some((Content::File, extent)) => Some(u64::from(extent.length)),
            _ => empty,
        };
        match single.and_then(|length| Manifest::single(hash, length)) {
            Some(manifest) => self.explain_pieces(now, id, Arc::new(manifest)),
            None => self.explain_fetch(now, id),
        }
    }

    fn explain_fetch(&mut self, now: Instant, id: CommandId) {
        let download = DownloadId(self.machines.fresh_id());
        let Some(explain) = self.explains.get_mut(&id) else { return };
        explain.stage = Looking::Root(download);
        let sources: Vec<Contact> = explain.providers.iter().chain(&explain.near).copied().collect();
        if !self.machines.transfer.fetch(now, download, explain.hash, &sources) {
            self.end_explain(now, id);
            let message = "too many downloads are under way (`--downloads`) to fetch the manifest: try later";
            self.machines.fail(id, FailureReason::Busy, message);
        }
    }

    /// The command whose manifest this download fetches.
    fn explained_by(&self, download: DownloadId) -> Option<CommandId> {
        let theirs = |explain: &Explain| explain.stage == Looking::Root(download);
        self.explains.iter().find(|(_, explain)| theirs(explain)).map(|(id, _)| *id)
    }

    /// The root of a download has arrived. False when the download is not for an audit.
    pub(super) fn explain_root(&mut self, now: Instant, download: DownloadId, root: &Root) -> bool {
        let Some(id) = self.explained_by(download) else { return false };
        self.machines.transfer.abort(now, download);
        let Some(explain) = self.explains.get(&id) else { return true };
        let manifest = match root {
            Root::Manifest(manifest, _) => Some(Arc::clone(manifest)),
            Root::File(content) => Manifest::single(explain.hash, content.len() as u64).map(Arc::new),
        };
        match manifest {
            Some(manifest) => self.explain_pieces(now, id, manifest),
            None => {
                self.end_explain(now, id);
                self.machines.fail(id, FailureReason::Unverified, "a one-chunk file of several chunks");
            }
        }
        true
    }

    pub(super) fn explain_providers_found(
        &mut self,
        now: Instant,
        lookup: LookupId,
        contacts: &[(Contact, bool)],
    ) {
        let Some(Purpose::ExplainProviders(id)) = self.machines.lookups.get(&lookup) else { return };
        let id = *id;
        let Some(explain) = self.explains.get_mut(&id) else { return };
        let room = PROVIDERS_MAX.saturating_sub(explain.providers.len());
        let others = contacts.iter().map(|(contact, _)| *contact).filter(|contact| contact.id != self.id);
        let found: Vec<Contact> = others.take(room).collect();
        explain.found += found.len() as u32;
        explain.providers.extend(&found);
        self.explain_meet(now, id, &found);
    }

    /// Providers, or nodes near the hash, are known: they may have the manifest, and providers have every piece.
    fn explain_meet(&mut self, now: Instant, id: CommandId, contacts: &[Contact]) {
        let Some(explain) = self.explains.get_mut(&id) else { return };
        match explain.stage {
            Looking::Root(download) => _ = self.machines.transfer.add_sources(now, download, contacts),
            Looking::Pieces => {
                let pieces = explain.pieces.len() as u16;
                for contact in contacts {
                    (0..pieces).for_each(|piece| explain.enter(*contact, piece));
                }
                self.explain_ask(now, id);
            }
            Looking::OwnFile | Looking::OwnManifest => {}
        }
    }

    pub(super) fn explain_looked_up(&mut self, now: Instant, id: CommandId, closest: &[Contact], asked: u32) {
        let Some(explain) = self.explains.get_mut(&id) else { return };
        (explain.lookup, explain.looked_up, explain.asked) = (None, true, asked);
        explain.near = closest[..closest.len().min(ROOT_ASKED)].to_vec();
        if let Looking::Root(download) = explain.stage {
            self.machines.transfer.add_sources(now, download, &explain.near);
        }
    }

    // The pieces.

    fn explain_pieces(&mut self, now: Instant, id: CommandId, manifest: Arc<Manifest>) {
        let Some(explain) = self.explains.get_mut(&id) else { return };
        explain.keys = manifest.keys().to_vec();
        explain.keys.extend((!manifest.is_single()).then(|| manifest.hash()));
        explain.manifest = Some(manifest);
        explain.pieces = vec![Piece::default(); explain.keys.len()];
        explain.todo = (0..explain.keys.len() as u16).collect();
        explain.stage = Looking::Pieces;
        // This node is the first, and answers at once.
        let addr = self.machines.dht.own_addr().unwrap_or(self.config.listen);
        let mut own = Asked::new(Contact::new(self.public, addr), explain.keys.len());
        own.answered = true;
        explain.nodes.push(own);
        explain.numbers.insert(self.id, 0);
        for (piece, key) in explain.keys.clone().iter().enumerate() {
            let entry = self.inspect_piece(now, key);
            if let Some(explain) = self.explains.get_mut(&id) {
                explain.nodes[0].enter(piece as u16);
                explain.note(0, piece as u16, &entry);
            }
        }
        let providers = self.explains.get(&id).map(|explain| explain.providers.clone()).unwrap_or_default();
        self.explain_meet(now, id, &providers);
        self.explain_step(now, id);
    }

    /// Determines the closest nodes of some pieces. One lookup answers for nearby keys, too.
    fn explain_step(&mut self, now: Instant, id: CommandId) {
        for _ in 0..PIECES_PER_STEP {
            let Some(explain) = self.explains.get_mut(&id) else { return };
            let Some(piece) = explain.todo.pop_front() else { break };
            let key = explain.keys[usize::from(piece)];
            if let Some(closest) = self.machines.dht.region(now, &key, explain.closest) {
                closest.into_iter().for_each(|contact| explain.enter(contact, piece));
                continue;
            }
            explain.todo.push_front(piece);
            if explain.lookups >= LOOKUPS_MAX {
                return self.explain_ask(now, id);
            }
            let Some(lookup) = self.machines.dht.find(now, key, Want::Nodes, &mut self.machines.outbox)
            else {
                explain.step_at = Some(now + NO_ROOM_WAIT);
                return self.explain_ask(now, id);
            };
            explain.todo.pop_front();
            explain.lookups += 1;
            self.machines.lookups.insert(lookup, Purpose::ExplainHolders(id, piece));
        }
        if let Some(explain) = self.explains.get_mut(&id).filter(|explain| !explain.todo.is_empty()) {
            explain.step_at = Some(now);
        }
        self.explain_ask(now, id);
    }

    pub(super) fn explain_holders_looked_up(
        &mut self,
        now: Instant,
        id: CommandId,
        piece: u16,
        closest: &[Contact],
        asked: u32,
    ) {
        let Some(explain) = self.explains.get_mut(&id) else { return };
        explain.lookups -= 1;
        let contacts = closest.iter().take(explain.closest).copied();
        contacts.for_each(|contact| explain.enter(contact, piece));
        if asked == 0 {
            // There are no other nodes: the other pieces have no closest nodes either.
            explain.todo.clear();
        }
        self.explain_step(now, id);
    }

    /// Sends as many questions as may be outstanding.
    fn explain_ask(&mut self, now: Instant, id: CommandId) {
        loop {
            let question = InspectId(self.machines.fresh_id());
            let Some(explain) = self.explains.get_mut(&id) else { return };
            if explain.questions >= QUESTIONS_MAX {
                return;
            }
            let Some(number) = explain.ready.pop_front() else { return };
            let node = &mut explain.nodes[usize::from(number)];
            node.queued = false;
            let pieces: Vec<u16> = node.todo.drain(..node.todo.len().min(INSPECT_KEYS_MAX)).collect();
            if pieces.is_empty() {
                continue;
            }
            let keys = pieces.iter().map(|&piece| explain.keys[usize::from(piece)]).collect();
            if !self.machines.transfer.inspect(now, question, node.contact, keys) {
                // Too many questions are outstanding: goes on after a pause.
                pieces.into_iter().rev().for_each(|piece| node.todo.push_front(piece));
                node.queued = true;
                explain.ready.push_front(number);
                explain.step_at = Some(now + NO_ROOM_WAIT);
                return;
            }
            node.in_flight += 1;
            explain.questions += 1;
            explain.make_ready(number);
            self.inspections.insert(question, Asking { command: id, node: number, pieces });
        }
    }

    /// A node answered, or failed to.
    pub(super) fn explain_answered(
        &mut self,
        now: Instant,
        question: InspectId,
        result: Result<Vec<InspectEntry>, InspectError>,
    ) {
        let Some(Asking { command: id, node: number, pieces }) = self.inspections.remove(&question) else {
            return;
        };
        let Some(explain) = self.explains.get_mut(&id) else { return };
        explain.questions -= 1;
        let node = &mut explain.nodes[usize::from(number)];
        node.in_flight -= 1;
        match result {
            Ok(entries) => {
                node.answered = true;
                explain.answers += entries.len() as u64;
                for (piece, entry) in pieces.iter().zip(&entries) {
                    explain.note(number, *piece, entry);
                }
            }
            Err(error) => {
                node.tries += 1;
                pieces.into_iter().rev().for_each(|piece| node.todo.push_front(piece));
                if node.tries >= TRIES_MAX || error == InspectError::Unreachable {
                    explain.give_up(number, error);
                }
            }
        }
        explain.make_ready(number);
        let (done, total) = (explain.answers, explain.answers_due);
        self.machines.progress(id, Progress { stage: Stage::Inspecting, done, total, prefix: 0, path: None });
        self.explain_ask(now, id);
    }

    // The end.

    /// Ends audits for which no further event will come: no source of the manifest is left, or all answers are in.
    pub(super) fn review_explains(&mut self, now: Instant) {
        let ids: Vec<CommandId> = self.explains.keys().copied().collect();
        for id in ids {
            let Some(explain) = self.explains.get_mut(&id) else { continue };
            if explain.is_over() {
                let closest = (usize::from(explain.replicas()) + SPARE_NODES).min(CLOSEST_ASKED_MAX);
                if closest > explain.closest {
                    // The file has more copies than nodes were asked for.
                    explain.closest = closest;
                    explain.todo = (0..explain.keys.len() as u16).collect();
                    explain.step_at = Some(now);
                } else {
                    self.explained(now, id, true);
                }
            } else if let (Looking::Root(download), true) = (explain.stage, explain.looked_up) {
                self.review_root(now, id, download);
            }
        }
    }

    /// Ends an audit when no node is left to ask for the manifest.
    fn review_root(&mut self, now: Instant, id: CommandId, download: DownloadId) {
        let Some(explain) = self.explains.get(&id) else { return };
        let Some(state) = self.machines.transfer.download_state(download).filter(|state| state.idle) else {
            return;
        };
        let (asked, found) = (explain.asked, explain.found);
        let (reason, why) = if state.banned > 0 {
            let why = format!("{}, and no other has it", status::sent_wrong_content(state.banned));
            (FailureReason::Unverified, why)
        } else if asked == 0 && state.not_found == 0 {
            let why = "this node could reach no other node to ask: see `elver peers`".to_owned();
            (FailureReason::Unreachable, why)
        } else if found > 0 && state.not_found < found && state.failed > 0 {
            let why = format!("{} of the nodes that should have it could not be reached", state.failed);
            (FailureReason::Unreachable, why)
        } else {
            (FailureReason::NotFound, format!("no node that was asked has it; {}", status::asked(asked)))
        };
        let message = format!("{}: {why}", explain.hash);
        self.end_explain(now, id);
        self.machines.fail(id, reason, message);
    }

    pub(super) fn explains_timeout(&mut self, now: Instant) {
        let due = self.explains.iter().filter(|(_, explain)| explain.next_deadline() <= Some(now));
        let due: Vec<CommandId> = due.map(|(id, _)| *id).collect();
        for id in due {
            let Some(explain) = self.explains.get_mut(&id) else { continue };
            explain.step_at = None;
            if explain.until <= now {
                match explain.stage {
                    Looking::Pieces => self.explained(now, id, false),
                    _ => {
                        let why = "no node that should have its manifest answered in time";
                        let message = format!("{}: {why}; {}", explain.hash, status::asked(explain.asked));
                        self.end_explain(now, id);
                        self.machines.fail(id, FailureReason::Unreachable, message);
                    }
                }
                continue;
            }
            if explain.lookup.is_none() && !explain.looked_up {
                self.explain_look_up(now, id);
            }
            self.explain_step(now, id);
        }
    }

    /// Answers the command.
    fn explained(&mut self, now: Instant, id: CommandId, in_time: bool) {
        let Some(explain) = self.end_explain(now, id) else { return };
        let Some(manifest) = &explain.manifest else { return };
        let replicas = match self.machines.store.shared(&explain.hash) {
            Some(shared) if shared.replicas > 0 => shared.replicas,
            _ => explain.replicas(),
        };
        let nodes = explain.nodes.iter().enumerate().map(|(number, node)| ExplainedNode {
            addr: node.contact.addr,
            own: number == 0,
            // A node that still owes an answer has not answered everything.
            answered: node.answered && node.error.is_none() && node.in_flight == 0 && node.todo.is_empty(),
            unreachable: node.error == Some(InspectError::Unreachable),
            ..ExplainedNode::new(node.contact.id)
        });
        let complete = in_time && !explain.skipped;
        let nodes = nodes.collect();
        let findings = Findings { manifest, replicas, pieces: &explain.pieces, nodes, complete };
        let explanation = findings.explain();
        self.machines.done(id, Reply::Explain(Box::new(explanation)));
    }

    /// Removes an audit. Its outstanding lookups and questions are forgotten.
    pub(super) fn end_explain(&mut self, now: Instant, id: CommandId) -> Option<Explain> {
        let explain = self.explains.remove(&id)?;
        if let Looking::Root(download) = explain.stage {
            self.machines.transfer.abort(now, download);
        }
        let theirs = |asking: &Asking| asking.command == id;
        let open: Vec<InspectId> = self
            .inspections
            .iter()
            .filter(|(_, asking)| theirs(asking))
            .map(|(question, _)| *question)
            .collect();
        for question in open {
            self.inspections.remove(&question);
            self.machines.transfer.forget_inspection(question);
        }
        let theirs = |purpose: &Purpose| match purpose {
            Purpose::ExplainProviders(other) | Purpose::ExplainHolders(other, _) => *other == id,
            _ => false,
        };
        let open: Vec<LookupId> = self
            .machines
            .lookups
            .iter()
            .filter(|(_, purpose)| theirs(purpose))
            .map(|(lookup, _)| *lookup)
            .collect();
        for lookup in open {
            self.machines.lookups.remove(&lookup);
            self.machines.dht.stop(lookup);
        }
        Some(explain)
    }
}
