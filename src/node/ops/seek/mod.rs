//! Seeking a file: its root, and the nodes that have it. Downloads, reads and audits begin with it.
//!
//! The root is taken from this node's disk, or fetched ([`root`]). Its sources are the file's providers and the nodes near its hash
//! ([`sources`]). When all of them have been asked in vain, the search is hopeless ([`verdict`]).
//!
//! [`Seekers`] are all operations that seek a file. They share one number space, that of downloads, so each event belongs to one of them:
//! [`Seekers::hand`] finds it.

pub(in crate::node) mod root;
pub(in crate::node) mod sources;
pub(in crate::node) mod verdict;

use super::audit::Audits;
use super::download::Downloads;
use super::fetch::Fetcher;
use super::read::Reads;
use super::table::{Operation, Table};
use crate::dht::LookupId;
use crate::id::{Key, NodeId};
use crate::io::{DiskError, DiskReply, Mode};
use crate::limits::Limits;
use crate::manifest::Manifest;
use crate::node::Purpose;
use crate::node::command::{CommandId, FailureReason};
use crate::node::machines::Machines;
use crate::time::{Instant, earliest};
use crate::transfer::{DownloadId, Root};
use crate::wire::contact::Contact;
use core::net::SocketAddr;
use root::Found;
use sources::Search;
use std::sync::Arc;
use verdict::Sought;

/// An operation that seeks a file.
pub(in crate::node) trait Seek {
    /// The search for the file's sources.
    fn search(&self) -> &Search;

    /// The search for the file's sources, to be changed.
    fn search_mut(&mut self) -> &mut Search;

    /// The stamp of the file that is shared here was checked.
    fn handle_stamp(&mut self, now: Instant, unchanged: bool, machines: &mut Machines);

    /// The file's layout is known, and its content if it has one chunk that came with the root. `mode` is the file's mode as the source
    /// reports it.
    fn handle_layout(
        &mut self,
        now: Instant,
        layout: Arc<Manifest>,
        content: Option<Vec<u8>>,
        mode: Mode,
        machines: &mut Machines,
    );

    /// What the operation needs from a source now; `None` when it needs nothing.
    fn sought(&self) -> Option<Sought>;

    /// Ends the operation: its commands fail for this reason.
    fn give_up(&mut self, now: Instant, reason: FailureReason, why: &str, machines: &mut Machines);

    /// Ends the operation if it is hopeless and no further event will come. Called when a lookup for providers has ended and none is
    /// under way.
    fn review(&mut self, now: Instant, machines: &mut Machines) {
        self.review_search(now, machines);
    }

    /// Ends the operation if no source can give what is [sought](Seek::sought).
    fn review_search(&mut self, now: Instant, machines: &mut Machines) {
        let state = machines.transfer.download_state(self.search().download());
        let (Some(sought), Some(state)) = (self.sought(), state) else {
            return;
        };
        let unreached = self.search().unreached(machines);
        match verdict::hopeless(sought, self.search(), &state, unreached) {
            // A provider that cannot be reached now may be back, or elsewhere, before the time is up.
            Some(_) if unreached > 0 => {}
            Some((reason, why)) => self.give_up(now, reason, &why, machines),
            None => {}
        }
    }

    /// A source can be reached again after an outage.
    fn handle_reached(&mut self, now: Instant) {
        self.search_mut().hurry(now);
    }

    // The way to the root is the same for all.

    /// Looks for the root.
    fn find_root(&mut self, now: Instant, machines: &mut Machines) {
        let found = root::find(now, self.search_mut(), machines);
        self.root_sought(now, found, machines);
    }

    /// The disk read the root that is stored here, or failed to.
    fn handle_root_read(
        &mut self,
        now: Instant,
        result: Result<DiskReply, DiskError>,
        machines: &mut Machines,
    ) {
        let found = root::handle_read(now, result, self.search_mut(), machines);
        self.root_sought(now, found, machines);
    }

    /// The root is known, or looked for.
    fn root_sought(&mut self, now: Instant, found: Found, machines: &mut Machines) {
        match found {
            Found::Root(root) => {
                let mode = machines.store.mode(&self.search().hash());
                self.handle_root(now, root, mode, machines);
            }
            Found::Later => {}
            Found::NoRoom => {
                let why = "too many downloads are under way (`--downloads`): try later";
                self.give_up(now, FailureReason::Busy, why, machines);
            }
        }
    }

    /// The root is known.
    fn handle_root(&mut self, now: Instant, root: Root, mode: Mode, machines: &mut Machines) {
        let (layout, content) = match root {
            Root::Manifest(manifest, _) => (Some(manifest), None),
            Root::File(content) => {
                let layout = Manifest::single(self.search().hash(), content.len() as u64);
                (layout.map(Arc::new), Some(content))
            }
        };
        match layout {
            Some(layout) => self.handle_layout(now, layout, content, mode, machines),
            None => {
                let why = "a one-chunk file of several chunks";
                self.give_up(now, FailureReason::Unverified, why, machines);
            }
        }
    }

    // Lookups pass their results to the search.

    /// A lookup found providers; `own` is this node.
    fn handle_providers(
        &mut self,
        now: Instant,
        own: NodeId,
        contacts: &[(Contact, bool)],
        machines: &mut Machines,
    ) {
        self.search_mut().providers_found(now, own, contacts, machines);
    }

    /// A lookup for providers ended.
    fn handle_providers_looked_up(
        &mut self,
        now: Instant,
        closest: &[Contact],
        answered: u32,
        machines: &mut Machines,
    ) {
        self.search_mut().providers_looked_up(now, closest, answered, machines);
    }

    /// A lookup for the nodes closest to a piece ended.
    fn handle_holders_looked_up(
        &mut self,
        now: Instant,
        key: Key,
        closest: &[Contact],
        _answered: u32,
        machines: &mut Machines,
    ) {
        self.search_mut().holders_looked_up(now, key, closest, machines);
    }
}

impl<O: Operation<Id = DownloadId> + Seek> Table<O> {
    /// Ends operations that are hopeless. Call this after each input.
    pub(in crate::node) fn review(&mut self, now: Instant, machines: &mut Machines) {
        for id in self.ids(|seeker| !seeker.search().is_looking() && seeker.search().lookups() > 0) {
            self.hand(now, id, machines, |seeker, machines| seeker.review(now, machines));
        }
    }
}

/// All operations that seek a file.
pub(in crate::node) struct Seekers {
    pub(in crate::node) downloads: Downloads,
    pub(in crate::node) reads: Reads,
    pub(in crate::node) audits: Audits,
}

impl Seekers {
    /// None is under way. `listen` is the address of this node until it knows how others see it.
    pub(in crate::node) fn new(limits: &Limits, listen: SocketAddr) -> Self {
        Seekers {
            downloads: Downloads::new(limits),
            reads: Reads::new(limits),
            audits: Audits::new(limits, listen),
        }
    }

    // Getters.

    /// When [`handle_timeout`](Seekers::handle_timeout) is due.
    pub(in crate::node) fn next_deadline(&self) -> Option<Instant> {
        let deadlines =
            [self.downloads.next_deadline(), self.reads.next_deadline(), self.audits.next_deadline()];
        deadlines.into_iter().fold(None, earliest)
    }

    // Inputs.

    /// Passes an event to the operation with this number. The event of an operation that has ended is dropped.
    pub(in crate::node) fn hand(
        &mut self,
        now: Instant,
        id: DownloadId,
        machines: &mut Machines,
        event: impl FnOnce(&mut dyn Seek, &mut Machines),
    ) {
        if self.reads.contains(id) {
            self.reads.hand(now, id, machines, |read, machines| event(read, machines));
        } else if self.audits.contains(id) {
            self.audits.hand(now, id, machines, |audit, machines| event(audit, machines));
        } else {
            self.downloads.hand(now, id, machines, |download, machines| event(download, machines));
        }
    }

    /// The same for an event that only a download or a read can have.
    pub(in crate::node) fn hand_to_fetcher(
        &mut self,
        now: Instant,
        id: DownloadId,
        machines: &mut Machines,
        event: impl FnOnce(&mut dyn Fetcher, &mut Machines),
    ) {
        if self.reads.contains(id) {
            self.reads.hand(now, id, machines, |read, machines| event(read, machines));
        } else {
            self.downloads.hand(now, id, machines, |download, machines| event(download, machines));
        }
    }

    /// A lookup found providers; `own` is this node.
    pub(in crate::node) fn handle_providers(
        &mut self,
        now: Instant,
        lookup: LookupId,
        own: NodeId,
        contacts: &[(Contact, bool)],
        machines: &mut Machines,
    ) {
        let Some(Purpose::Providers(id)) = machines.lookups.get(&lookup) else { return };
        let id = *id;
        self.hand(now, id, machines, |seeker, machines| {
            seeker.handle_providers(now, own, contacts, machines)
        });
    }

    /// A client no longer waits for a command.
    pub(in crate::node) fn cancel(&mut self, now: Instant, command: CommandId, machines: &mut Machines) {
        self.downloads.cancel(now, command, machines);
        self.reads.cancel(now, command, machines);
        self.audits.cancel(now, command, machines);
    }

    /// Ends operations that are hopeless. Call this after each input.
    pub(in crate::node) fn review(&mut self, now: Instant, machines: &mut Machines) {
        self.downloads.review(now, machines);
        self.reads.review(now, machines);
        self.audits.review(now, machines);
    }

    /// The deadline of [`next_deadline`](Seekers::next_deadline) has come.
    pub(in crate::node) fn handle_timeout(&mut self, now: Instant, machines: &mut Machines) {
        self.downloads.handle_timeout(now, machines);
        self.reads.handle_timeout(now, machines);
        self.audits.handle_timeout(now, machines);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::DiskOp;
    use crate::node::Output;
    use crate::node::ops::{audit, download, read};

    const START: Instant = Instant::from_secs(100);

    fn hash_of(content: &[u8]) -> Key {
        Key(*blake3::hash(content).as_bytes())
    }

    /// A download, a read and an audit, each of its own file, in this order.
    fn seekers(machines: &mut Machines) -> (Seekers, [DownloadId; 3]) {
        let mut seekers = Seekers::new(&Limits::default(), ([127, 0, 0, 1], 1).into());
        let (hash, id) = (hash_of(b"one"), CommandId(1));
        let order =
            download::Order { id, hash, target: None, force: false, mode: None, tree: None, timeout: None };
        seekers.downloads.start(START, order, machines);
        let (hash, id) = (hash_of(b"two"), CommandId(2));
        seekers.reads.start(START, read::Order { id, hash, part: None, timeout: None }, machines);
        let (hash, id) = (hash_of(b"three"), CommandId(3));
        seekers.audits.start(START, audit::Order { id, hash, timeout: None }, machines);
        let ids = [
            seekers.downloads.ids(|_| true)[0],
            seekers.reads.ids(|_| true)[0],
            seekers.audits.ids(|_| true)[0],
        ];
        (seekers, ids)
    }

    #[test]
    fn a_root_reaches_the_operation_with_its_number_alone() {
        let mut machines = Machines::alone(START);
        let (mut seekers, [download, read, audit]) = seekers(&mut machines);
        let root = Root::File(b"two".to_vec());
        seekers.hand(START, read, &mut machines, |seeker, machines| {
            seeker.handle_root(START, root, Mode::UNKNOWN, machines);
        });
        let writes = |output: &Output| matches!(output, Output::Disk { op: DiskOp::WriteTarget { .. }, .. });
        assert_eq!(machines.outputs.iter().filter(|output| writes(output)).count(), 1);
        assert!(machines.transfer.download_state(read).is_none());
        assert!(machines.transfer.download_state(download).is_some());
        assert!(machines.transfer.download_state(audit).is_some());
    }

    #[test]
    fn a_root_for_an_operation_that_has_ended_is_dropped() {
        let mut machines = Machines::alone(START);
        let (mut seekers, [_, read, _]) = seekers(&mut machines);
        seekers.cancel(START, CommandId(2), &mut machines);
        machines.outputs.clear();
        seekers.hand(START, read, &mut machines, |_, _| panic!("it is over"));
        assert!(machines.outputs.is_empty());
    }

    #[test]
    fn a_cancelled_command_ends_its_own_operation_only() {
        let mut machines = Machines::alone(START);
        let (mut seekers, _) = seekers(&mut machines);
        seekers.cancel(START, CommandId(3), &mut machines);
        assert_eq!(seekers.audits.len(), 0);
        assert_eq!(seekers.reads.len(), 1);
        seekers.cancel(START, CommandId(1), &mut machines);
        assert_eq!(seekers.downloads.len(), 0);
        assert_eq!(seekers.reads.len(), 1);
    }

    #[test]
    fn without_another_node_every_search_ends_after_its_lookup() {
        let mut machines = Machines::alone(START);
        let (mut seekers, ids) = seekers(&mut machines);
        machines.lookups.clear();
        for id in ids {
            seekers.hand(START, id, &mut machines, |seeker, machines| {
                seeker.handle_providers_looked_up(START, &[], 0, machines);
            });
        }
        seekers.review(START, &mut machines);
        assert_eq!(seekers.next_deadline(), None);
    }
}
