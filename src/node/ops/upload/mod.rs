//! Uploads: copying a shared file's pieces to the nodes closest to each.
//!
//! A piece (a chunk, the manifest, or a file of one chunk) belongs on the `replicas` nodes closest to its key. A file counts as stored
//! when every piece has ⌊replicas/2⌋+1 synced copies, including the publisher's own. The waiting command is answered then. The rest
//! goes on in the background, and pieces that cannot be placed now are tried again later.
//!
//! `file` is the upload of one file. Some files are uploaded at a time; the others wait in `line`.

mod file;
mod line;
#[cfg(test)]
mod tests;

use super::share::{decoded, manifest_of};
use crate::id::{Key, NodeId};
use crate::io::{DiskError, DiskOp, DiskReply};
use crate::manifest::Manifest;
use crate::node::Waiting;
use crate::node::command::{CommandId, FailureReason, Reply};
use crate::node::machines::Machines;
use crate::node::ops::stock;
use crate::store::Shared;
use crate::time::{Instant, earliest};
use crate::transfer::{PushError, PushId, PushOutcome};
use crate::wire::contact::Contact;
use file::{RETRY_MIN, State, Upload};
use line::Line;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Files that are uploaded at a time. The others wait in line, known only by their addresses.
const UPLOADS_MAX: usize = 64;
/// Files of several chunks that wait for another round with their state in memory.
const RESTING_MAX: usize = 64;

const NOT_THERE: &str = "its file is not there any more";
const NOT_READABLE: &str = "its file is not what it was, or cannot be read";
const NO_MANIFEST: &str = "its manifest cannot be read: the file is hashed again";

/// The uploads of shared files.
#[derive(Default)]
pub(in crate::node) struct Uploads {
    under_way: BTreeMap<Key, Upload>,
    line: Line,
    /// Commands that wait for copies of files whose upload has not begun.
    waiting: BTreeMap<Key, Vec<CommandId>>,
    /// When files in line are begun although no upload ended.
    fill_at: Option<Instant>,
}

impl Uploads {
    // Getters.

    /// The known copies of the piece with the fewest; `None` when the file is not being uploaded.
    pub(in crate::node) fn copies(&self, hash: &Key) -> Option<u8> {
        self.under_way.get(hash).map(Upload::copies)
    }

    /// When [`handle_timeout`](Uploads::handle_timeout) is due.
    pub(in crate::node) fn next_deadline(&self) -> Option<Instant> {
        let files = self.under_way.values().filter_map(Upload::next_deadline).min();
        [files, self.line.next_deadline(), self.fill_at].into_iter().fold(None, earliest)
    }

    // Inputs.

    /// A file is served. Its upload begins unless all copies exist, and `waiter` waits for it. `fresh` says that it was not served
    /// before.
    pub(in crate::node) fn served(
        &mut self,
        now: Instant,
        shared: &Shared,
        manifest: Option<Arc<Manifest>>,
        waiter: Option<CommandId>,
        fresh: bool,
        machines: &mut Machines,
    ) {
        if self.join(now, shared, waiter, machines) {
            return;
        }
        match waiter {
            Some(command) if shared.replicated && !(fresh && shared.replicas == 0) => {
                answer(command, shared, shared.replicas.max(1), true, machines);
            }
            None if shared.replicated => {}
            _ => {
                self.waiting.entry(shared.hash).or_default().extend(waiter);
                self.open(now, shared, manifest, machines);
            }
        }
        self.fill(now, machines);
    }

    /// The manifest of a file was read. Returns false when it cannot be used: then the file must be hashed again.
    pub(in crate::node) fn handle_manifest(
        &mut self,
        now: Instant,
        hash: &Key,
        result: Result<DiskReply, DiskError>,
        machines: &mut Machines,
    ) -> bool {
        let manifest = decoded(hash, result);
        let usable = manifest.is_some();
        match manifest {
            Some(manifest) => self.opened(now, Arc::new(manifest), machines),
            None => self.end(hash, NO_MANIFEST, machines),
        }
        self.fill(now, machines);
        usable
    }

    /// The lookup for a piece of a file ended.
    pub(in crate::node) fn handle_looked_up(
        &mut self,
        now: Instant,
        (file, piece): (Key, usize),
        closest: &[Contact],
        machines: &mut Machines,
    ) {
        if let Some(upload) = self.under_way.get_mut(&file) {
            upload.handle_looked_up(now, piece, closest, machines);
        }
        self.review(now, &file, machines);
    }

    /// A copy of a piece succeeded or failed.
    pub(in crate::node) fn handle_copied(
        &mut self,
        now: Instant,
        (file, piece, push): (Key, usize, PushId),
        target: &NodeId,
        result: &Result<PushOutcome, PushError>,
        machines: &mut Machines,
    ) {
        if let Some(upload) = self.under_way.get_mut(&file) {
            upload.handle_copied(now, (piece, push), target, result, machines);
        }
        self.review(now, &file, machines);
    }

    /// A file is announced.
    pub(in crate::node) fn handle_announced(&mut self, now: Instant, file: &Key, machines: &mut Machines) {
        if let Some(upload) = self.under_way.get_mut(file) {
            upload.handle_announced(now, machines);
            self.review(now, file, machines);
        }
    }

    /// The node has contacts now: pieces that could not be placed are tried again.
    pub(in crate::node) fn handle_joined(&mut self, now: Instant, machines: &mut Machines) {
        self.under_way.values_mut().for_each(|upload| upload.hurry(now));
        self.line.wake_all();
        self.fill(now, machines);
    }

    /// The deadline of [`next_deadline`](Uploads::next_deadline) has come.
    pub(in crate::node) fn handle_timeout(&mut self, now: Instant, machines: &mut Machines) {
        self.fill_at.take_if(|at| *at <= now);
        self.line.end_rests(now);
        self.fill(now, machines);
        let due = |upload: &Upload| upload.next_deadline().is_some_and(|at| at <= now);
        let due = self.under_way.iter().filter(|(_, upload)| due(upload));
        let due: Vec<Key> = due.map(|(hash, _)| *hash).collect();
        for hash in due {
            if let Some(upload) = self.under_way.get_mut(&hash) {
                upload.handle_timeout(now, machines);
            }
            self.review(now, &hash, machines);
        }
    }

    /// Ends the upload of a file that is not served any more. Commands that wait for it fail.
    pub(in crate::node) fn stop(&mut self, now: Instant, hash: &Key, why: &str, machines: &mut Machines) {
        self.end(hash, why, machines);
        self.fill(now, machines);
    }

    /// Lets a command wait for the upload of a file, if that is under way or in line.
    fn join(
        &mut self,
        now: Instant,
        shared: &Shared,
        waiter: Option<CommandId>,
        machines: &mut Machines,
    ) -> bool {
        let hash = shared.hash;
        if let Some(upload) = self.under_way.get_mut(&hash) {
            let does = upload.does(shared);
            if does {
                upload.join(now, waiter, machines);
                self.review(now, &hash, machines);
            }
            return does;
        }
        if self.line.is_resting(&hash) && machines.dht.statistics().contacts == 0 {
            // There is still no node to copy it to.
            if let Some(command) = waiter {
                answer(command, shared, 1, false, machines);
            }
            return true;
        }
        let in_line = self.line.contains(&hash);
        if in_line {
            self.waiting.entry(hash).or_default().extend(waiter);
        }
        in_line
    }

    /// Begins the upload of a file, after reading its manifest if that is not in memory.
    fn open(
        &mut self,
        now: Instant,
        shared: &Shared,
        manifest: Option<Arc<Manifest>>,
        machines: &mut Machines,
    ) {
        let single = || Manifest::single(shared.hash, shared.layout.length()).map(Arc::new);
        match manifest.or_else(single) {
            Some(manifest) => self.opened(now, manifest, machines),
            None => machines.disk(DiskOp::Read(manifest_of(shared)), Waiting::Upload(shared.hash)),
        }
    }

    /// The manifest of a file is known: its upload begins if the file is still served. If it has to wait for its turn, its manifest is
    /// read again then.
    fn opened(&mut self, now: Instant, manifest: Arc<Manifest>, machines: &mut Machines) {
        let hash = manifest.hash();
        let served = machines.store.source(&hash).is_some();
        let Some(shared) = machines.store.shared(&hash).filter(|_| served) else {
            return self.end(&hash, NOT_THERE, machines);
        };
        let was_opening = self.line.opened(&hash);
        if !was_opening && !self.has_room() && !self.under_way.contains_key(&hash) {
            return self.line.push(hash);
        }
        // Commands that wait for an earlier `put` of the same file are answered together with this one.
        let earlier = self.under_way.remove(&hash);
        let mut waiters = earlier.map(|earlier| earlier.cancel(machines)).unwrap_or_default();
        waiters.extend(self.waiting.remove(&hash).unwrap_or_default());
        let retry_delay = self.line.wake(&hash).unwrap_or(RETRY_MIN);
        let upload = Upload::begin(now, &shared, manifest, waiters, retry_delay, machines);
        self.under_way.insert(hash, upload);
        self.conclude(now, &hash, machines);
    }

    fn has_room(&self) -> bool {
        let busy = self.under_way.values().filter(|upload| !upload.is_resting()).count();
        busy + self.line.opening() < UPLOADS_MAX
    }

    /// Begins the uploads of files in line while there is room.
    fn fill(&mut self, now: Instant, machines: &mut Machines) {
        for _ in 0..UPLOADS_MAX {
            if !self.has_room() {
                return;
            }
            let Some(hash) = self.line.pop() else { return };
            let served = machines.store.source(&hash).is_some();
            let shared = machines.store.shared(&hash).filter(|_| served);
            let wanted = |shared: &Shared| !shared.replicated || self.waiting.contains_key(&hash);
            match shared.filter(wanted) {
                Some(shared) => {
                    self.line.open(hash);
                    self.open(now, &shared, None, machines);
                }
                None => self.end(&hash, NOT_THERE, machines),
            }
        }
        // One call begins a limited number.
        self.fill_at = (!self.line.is_empty()).then_some(now);
    }

    /// Ends an upload that is over, and begins those for which there is room then.
    fn review(&mut self, now: Instant, hash: &Key, machines: &mut Machines) {
        self.conclude(now, hash, machines);
        self.fill(now, machines);
    }

    /// Ends an upload that is over. One that rests, and that no command waits for, goes back in line.
    fn conclude(&mut self, now: Instant, hash: &Key, machines: &mut Machines) {
        let Some(upload) = self.under_way.get(hash) else { return };
        match upload.state() {
            State::UnderWay => {}
            State::Gone => self.end(hash, NOT_READABLE, machines),
            State::Complete => {
                if let Some(complete) = self.under_way.remove(hash) {
                    replicated(now, &complete, machines);
                }
            }
            State::Resting { until, pause } => {
                let resting = || self.under_way.values().filter(|other| other.is_resting()).count();
                if upload.manifest().is_single() || resting() > RESTING_MAX {
                    self.under_way.remove(hash);
                    self.line.rest(*hash, until, pause);
                }
            }
        }
    }

    /// Ends the upload of a file. Commands that wait for it fail.
    fn end(&mut self, hash: &Key, why: &str, machines: &mut Machines) {
        self.line.opened(hash);
        self.line.wake(hash);
        let upload = self.under_way.remove(hash);
        let waiters = upload.map(|upload| upload.cancel(machines)).unwrap_or_default();
        for command in waiters.into_iter().chain(self.waiting.remove(hash).unwrap_or_default()) {
            machines.fail(command, FailureReason::Failed, format!("copying {hash} was stopped: {why}"));
        }
    }
}

/// Every piece of a file has its copies: saves that, so that the next run need not copy again.
fn replicated(now: Instant, complete: &Upload, machines: &mut Machines) {
    let hash = complete.shared().hash;
    let Some(shared) = machines.store.shared(&hash) else { return };
    if shared.replicated || !complete.does(&shared) {
        return;
    }
    let shared = Shared { replicated: true, ..shared };
    machines.store.set_shared(shared);
    stock::file_kept(now, &shared, complete.manifest(), machines);
    for share in machines.store.records(&hash) {
        machines.disk(DiskOp::SaveShare { share, manifest: None }, Waiting::Nothing);
    }
}

/// Answers a `put` without an upload.
fn answer(command: CommandId, shared: &Shared, copies: u8, quorum: bool, machines: &mut Machines) {
    let (hash, length, replicas) = (shared.hash, shared.layout.length(), shared.replicas);
    let copies = u32::from(copies);
    machines.done(command, Reply::Put { hash, length, copies, replicas, quorum, kept_open: false });
}
