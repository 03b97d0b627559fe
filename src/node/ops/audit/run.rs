//! One audit, from the root to the answer of its command: asking, and the deadlines.

use super::Settings;
use super::plan::{Plan, Question};
use crate::id::Key;
use crate::id::NodeId;
use crate::io::Mode;
use crate::manifest::{Content, Manifest};
use crate::node::command::{CommandId, FailureReason, Progress, Reply, Stage};
use crate::node::machines::Machines;
use crate::node::ops::audit::answer;
use crate::node::ops::queue::Waits;
use crate::node::ops::seek::Seek;
use crate::node::ops::seek::sources::Search;
use crate::node::ops::seek::verdict::Sought;
use crate::node::ops::table::{Entry, Operation};
use crate::node::{Looker, Purpose, status};
use crate::time::{Duration, Instant, earliest};
use crate::transfer::{DownloadId, InspectError, InspectId};
use crate::wire::contact::Contact;
use crate::wire::inspect::InspectEntry;
use crate::wire::message::Want;
use core::net::SocketAddr;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The time limit for answers, unless the command says otherwise.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Lookups under way for the pieces of one file.
const LOOKUPS_MAX: usize = 3;
/// Pieces whose closest nodes are determined in one step.
const PIECES_PER_STEP: usize = 256;
/// Outstanding questions about one file.
const QUESTIONS_MAX: usize = 16;
/// The pause when too many lookups or questions are under way.
const NO_ROOM_WAIT: Duration = Duration::from_millis(250);

/// A command to audit a file.
pub(in crate::node) struct Order {
    pub(in crate::node) id: CommandId,
    pub(in crate::node) hash: Key,
    /// Seconds after which missing answers are not awaited any longer; `None` is the node's default.
    pub(in crate::node) timeout: Option<u32>,
}

impl Waits for Order {
    fn command(&self) -> CommandId {
        self.id
    }
}

/// The audit of one file.
pub(in crate::node) struct Audit {
    id: DownloadId,
    command: CommandId,
    hash: Key,
    /// The deadline of the answers.
    until: Instant,
    /// The address of this node until it knows how others see it.
    listen: SocketAddr,
    search: Search,
    /// The pieces and the nodes, once the root is known.
    plan: Option<Plan>,
    /// The pieces whose closest nodes are being looked up.
    looked_up: BTreeMap<Key, u16>,
    /// The outstanding questions.
    asked: BTreeMap<InspectId, Question>,
    /// When to go on without an event.
    step_at: Option<Instant>,
    /// Whether the command has been answered.
    is_over: bool,
}

impl Operation for Audit {
    type Id = DownloadId;
    type Order = Order;
    type Settings = Settings;

    fn id(number: u64) -> DownloadId {
        DownloadId(number)
    }

    fn admit<'a>(
        _: &Order,
        settings: &Settings,
        others: impl Iterator<Item = &'a Audit>,
    ) -> Entry<DownloadId> {
        let most = settings.most;
        if others.count() < most {
            return Entry::Begin;
        }
        let why =
            format!("{most} files are being explained, and no more are allowed (`--explains`): try later");
        Entry::Refuse(FailureReason::Busy, why)
    }

    fn begin(
        now: Instant,
        id: DownloadId,
        order: Order,
        settings: &Settings,
        machines: &mut Machines,
    ) -> Self {
        let timeout =
            order.timeout.map_or(TIMEOUT_DEFAULT, |seconds| Duration::from_secs(seconds.max(1).into()));
        let mut audit = Audit {
            id,
            command: order.id,
            hash: order.hash,
            until: now + timeout,
            listen: settings.listen,
            search: Search::new(id, order.hash),
            plan: None,
            looked_up: BTreeMap::new(),
            asked: BTreeMap::new(),
            step_at: None,
            is_over: false,
        };
        // Providers are asked about the pieces, too, so they are looked up even if the root is here.
        audit.search.look_up(now, machines);
        match machines.store.source(&order.hash) {
            Some(claim) => {
                machines.look_at(claim.place(&order.hash), claim.stamp, Looker::Seeker(id));
            }
            None => audit.find_layout(now, machines),
        }
        audit
    }

    fn awaits(&self, command: CommandId) -> bool {
        self.command == command
    }

    fn is_over(&self) -> bool {
        self.is_over
    }

    fn next_deadline(&self) -> Option<Instant> {
        let next = earliest(self.step_at, self.search.next_deadline());
        earliest(next, Some(self.until))
    }

    fn handle_timeout(&mut self, now: Instant, machines: &mut Machines) {
        self.step_at = None;
        if self.until <= now {
            return self.time_is_up(now, machines);
        }
        if self.search.is_due(now) {
            self.search.look_up(now, machines);
        }
        self.place(now, machines);
    }

    fn cancel(&mut self, now: Instant, _: CommandId, machines: &mut Machines) {
        self.end(now, machines);
    }
}

impl Seek for Audit {
    fn search(&self) -> &Search {
        &self.search
    }

    fn search_mut(&mut self) -> &mut Search {
        &mut self.search
    }

    fn handle_stamp(&mut self, now: Instant, _: bool, machines: &mut Machines) {
        // A file that has changed is not served any more by now.
        self.find_layout(now, machines);
    }

    fn handle_layout(
        &mut self,
        now: Instant,
        layout: Arc<Manifest>,
        _: Option<Vec<u8>>,
        _: Mode,
        machines: &mut Machines,
    ) {
        machines.transfer.abort(now, self.id);
        let identity = machines.outbox.identity();
        let addr = machines.dht.own_addr().unwrap_or(self.listen);
        let mut plan = Plan::new(layout, Contact::new(identity.public(), addr));
        plan.answer_for_itself(|key| answer::copy_of(now, key, &machines.store, &machines.replication));
        self.search.providers().iter().for_each(|provider| plan.enter_everywhere(*provider));
        self.plan = Some(plan);
        self.place(now, machines);
    }

    fn sought(&self) -> Option<Sought> {
        self.plan.is_none().then_some(Sought::Root)
    }

    fn review(&mut self, now: Instant, machines: &mut Machines) {
        let Some(plan) = &mut self.plan else { return self.review_search(now, machines) };
        if !plan.is_done() || !self.looked_up.is_empty() || !self.asked.is_empty() {
            return;
        }
        match plan.widen() {
            true => self.step_at = Some(now),
            false => self.report(now, true, machines),
        }
    }

    fn give_up(&mut self, now: Instant, reason: FailureReason, why: &str, machines: &mut Machines) {
        let message = format!("{}: {why}", self.hash);
        self.end(now, machines);
        machines.fail(self.command, reason, message);
    }

    /// Providers may have the root, and they have every piece.
    fn handle_providers(
        &mut self,
        now: Instant,
        own: NodeId,
        contacts: &[(Contact, bool)],
        machines: &mut Machines,
    ) {
        let known = self.search.providers().len();
        self.search.providers_found(now, own, contacts, machines);
        if let Some(plan) = &mut self.plan {
            self.search.providers()[known..].iter().for_each(|provider| plan.enter_everywhere(*provider));
            self.ask(now, machines);
        }
    }

    fn handle_providers_looked_up(
        &mut self,
        now: Instant,
        closest: &[Contact],
        answered: u32,
        machines: &mut Machines,
    ) {
        self.search.providers_looked_up(now, closest, answered, machines);
        // One lookup is enough: an audit is about the nodes that can be found now.
        self.search.rest();
    }

    fn handle_holders_looked_up(
        &mut self,
        now: Instant,
        key: Key,
        closest: &[Contact],
        answered: u32,
        machines: &mut Machines,
    ) {
        let (Some(piece), Some(plan)) = (self.looked_up.remove(&key), &mut self.plan) else {
            return debug_assert!(false, "a lookup that ends was begun");
        };
        closest.iter().take(plan.closest()).for_each(|contact| plan.enter(*contact, piece));
        if answered == 0 {
            plan.no_other_nodes();
        }
        self.place(now, machines);
    }
}

impl Audit {
    /// Whether this question is outstanding.
    pub(super) fn has_asked(&self, question: InspectId) -> bool {
        self.asked.contains_key(&question)
    }

    /// The outstanding questions, and the node that each is for.
    #[cfg(test)]
    pub(super) fn outstanding(&self) -> Vec<(InspectId, Contact, usize)> {
        let Some(plan) = &self.plan else { return Vec::new() };
        let described = |(id, question): (&InspectId, &Question)| {
            (*id, plan.contact(question), plan.keys(question).len())
        };
        self.asked.iter().map(described).collect()
    }

    // The layout.

    /// Looks for the layout. That of a file which is being downloaded, or of a one-chunk file which is stored here, is known without
    /// reading.
    fn find_layout(&mut self, now: Instant, machines: &mut Machines) {
        let single = match machines.store.locate(&self.hash) {
            Some((Content::File, extent)) => Manifest::single(self.hash, u64::from(extent.length)),
            _ => None,
        };
        let known = machines.store.partial(&self.hash).cloned().or_else(|| single.map(Arc::new));
        match known {
            Some(layout) => self.handle_layout(now, layout, None, Mode::UNKNOWN, machines),
            None => self.find_root(now, machines),
        }
    }

    // The pieces.

    /// Determines the closest nodes of some pieces. One lookup answers for nearby keys, too.
    fn place(&mut self, now: Instant, machines: &mut Machines) {
        let Some(plan) = &mut self.plan else { return };
        let mut placed = 0;
        while let Some((piece, key)) = plan.next_unplaced() {
            if placed == PIECES_PER_STEP {
                plan.put_back(piece);
                self.step_at = Some(now);
                break;
            }
            placed += 1;
            if let Some(closest) = machines.dht.region(now, &key, plan.closest()) {
                closest.into_iter().for_each(|contact| plan.enter(contact, piece));
                continue;
            }
            if self.looked_up.len() >= LOOKUPS_MAX {
                plan.put_back(piece);
                break;
            }
            let Some(lookup) = machines.dht.find(now, key, Want::Nodes, &mut machines.outbox) else {
                plan.put_back(piece);
                self.step_at = Some(now + NO_ROOM_WAIT);
                break;
            };
            self.looked_up.insert(key, piece);
            machines.lookups.insert(lookup, Purpose::Holders(self.id, key));
        }
        self.ask(now, machines);
    }

    /// Sends as many questions as may be outstanding.
    fn ask(&mut self, now: Instant, machines: &mut Machines) {
        let Some(plan) = &mut self.plan else { return debug_assert!(false, "the layout is known") };
        while self.asked.len() < QUESTIONS_MAX {
            let Some(question) = plan.next_question() else { return };
            let id = InspectId(machines.fresh_id());
            let (contact, keys) = (plan.contact(&question), plan.keys(&question));
            if !machines.transfer.inspect(now, id, contact, keys) {
                // Too many questions of all audits are outstanding.
                plan.withdraw(question);
                self.step_at = Some(now + NO_ROOM_WAIT);
                return;
            }
            plan.sent(&question);
            self.asked.insert(id, question);
        }
    }

    /// A node answered a question, or failed to.
    pub(super) fn handle_answer(
        &mut self,
        now: Instant,
        question: InspectId,
        result: Result<Vec<InspectEntry>, InspectError>,
        machines: &mut Machines,
    ) {
        let (Some(question), Some(plan)) = (self.asked.remove(&question), &mut self.plan) else {
            return debug_assert!(false, "a question that is answered was asked");
        };
        match result {
            Ok(entries) => plan.answered(&question, &entries),
            Err(error) => plan.failed(question, error),
        }
        let (done, total) = plan.progress();
        let progress = Progress { stage: Stage::Inspecting, done, total, prefix: 0, path: None };
        machines.progress(self.command, progress);
        self.ask(now, machines);
    }

    // The end.

    fn time_is_up(&mut self, now: Instant, machines: &mut Machines) {
        if self.plan.is_some() {
            return self.report(now, false, machines);
        }
        let answered = status::answered(self.search.answered());
        let why = format!("no node that should have its manifest answered in time; {answered}");
        self.give_up(now, FailureReason::Unreachable, &why, machines);
    }

    /// Answers the command with what is known.
    fn report(&mut self, now: Instant, in_time: bool, machines: &mut Machines) {
        let shared = machines.store.shared(&self.hash).map(|shared| shared.replicas);
        let Some(plan) = &self.plan else { return debug_assert!(false, "the layout is known") };
        let explanation = plan.explain(shared.filter(|replicas| *replicas > 0), in_time);
        self.end(now, machines);
        machines.done(self.command, Reply::Explain(Box::new(explanation)));
    }

    /// Ends the audit. Its outstanding lookups and questions are forgotten.
    fn end(&mut self, now: Instant, machines: &mut Machines) {
        self.is_over = true;
        machines.transfer.abort(now, self.id);
        for question in core::mem::take(&mut self.asked).into_keys() {
            machines.transfer.forget_inspection(question);
        }
        machines.stop_lookups(self.id);
    }
}
