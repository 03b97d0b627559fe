//! `put`: a file is hashed, its claim is saved, and then it is served.

use super::{ShareEvent, aimed, claim};
use crate::id::Key;
use crate::io::{DiskError, DiskOp, DiskReply, Extent, FileStamp, PassedId, Place, Share, ShareState};
use crate::limits::LIFETIME_SECONDS_MAX;
use crate::manifest::Manifest;
use crate::node::Waiting;
use crate::node::command::{CommandId, FailureReason, Progress, Stage};
use crate::node::machines::Machines;
use crate::store::{Full, Shared};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// A `put` under way.
struct Put {
    place: Place,
    /// The command's values; `None` is the value of the present share, or the node's default.
    replicas: Option<u8>,
    lifetime: Option<u32>,
    step: PutStep,
}

enum PutStep {
    /// Checking whether a file that is shared from this path has the same stamp.
    Looking(Key),
    /// Hashing the file.
    Hashing,
    /// Saving the claim.
    Saving(Share, Arc<Manifest>),
    /// Saving all claims on the file, whose number of copies or lifetime rises.
    Raising(Key),
}

/// All `put` commands.
pub(in crate::node) struct Puts {
    /// The defaults of a `put`.
    replicas: u8,
    lifetime: u32,
    max: usize,
    under_way: BTreeMap<CommandId, Put>,
}

impl Puts {
    /// No command; at most `max` may be under way.
    pub(in crate::node) fn new(replicas: u8, lifetime: u32, max: usize) -> Self {
        Puts { replicas, lifetime, max, under_way: BTreeMap::new() }
    }

    /// A command to share a file.
    pub(in crate::node) fn start(
        &mut self,
        id: CommandId,
        path: PathBuf,
        replicas: Option<u8>,
        lifetime: Option<u32>,
        machines: &mut Machines,
    ) {
        if !path.is_absolute() {
            let message = "a path must be absolute: the node has a directory of its own";
            return machines.fail(id, FailureReason::Usage, message);
        }
        if self.under_way.len() >= self.max {
            let most = self.max;
            let message =
                format!("{most} files are being put, and no more are allowed (`--commands`): try later");
            return machines.fail(id, FailureReason::Busy, message);
        }
        let asks_for_copies = replicas.unwrap_or(self.replicas) != 0;
        if asks_for_copies && !(1..=LIFETIME_SECONDS_MAX).contains(&lifetime.unwrap_or(self.lifetime)) {
            let message = format!("copies are kept for 1 to {LIFETIME_SECONDS_MAX} seconds (365 days)");
            return machines.fail(id, FailureReason::Usage, message);
        }
        let place = Place::File(Arc::from(path));
        if let Err(full) = machines.store.check_room(&place) {
            return refuse(id, full, machines);
        }
        let known = machines.store.claimed_at(&place).and_then(|hash| machines.store.record(&hash, &place));
        let known = known.filter(|share| share.state == ShareState::Present && share.synced);
        let (step, op) = match known {
            Some(share) => {
                let look = DiskOp::Read(Extent::nothing_of(place.clone(), share.stamp));
                (PutStep::Looking(share.hash), look)
            }
            None => (
                PutStep::Hashing,
                DiskOp::Hash { place: place.clone(), passed: Some(PassedId(id.0)), background: false },
            ),
        };
        self.under_way.insert(id, Put { place, replicas, lifetime, step });
        machines.disk(op, Waiting::Put(id));
    }

    /// A disk operation of a `put` ended, or made progress.
    pub(in crate::node) fn handle_disk(
        &mut self,
        id: CommandId,
        result: Result<DiskReply, DiskError>,
        machines: &mut Machines,
    ) {
        // A raise has as many answers as the file has paths, and the first one ends the `put`.
        let Some(put) = self.under_way.get_mut(&id) else { return };
        match (&put.step, result) {
            (_, Ok(DiskReply::Progress { done, total })) => {
                let stage = Stage::Hashing;
                machines.progress(id, Progress { stage, done, total, prefix: 0, path: None });
            }
            (PutStep::Looking(hash), looked) => {
                let still_claimed = machines.store.claimed_at(&put.place) == Some(*hash);
                let shared = machines.store.shared(hash).filter(|_| looked.is_ok() && still_claimed);
                match shared {
                    Some(shared) => self.unchanged(id, &shared, machines),
                    // The file looks different, or its claim has ended meanwhile.
                    None => {
                        let place = put.place.clone();
                        put.step = PutStep::Hashing;
                        let passed = Some(PassedId(id.0));
                        machines.disk(DiskOp::Hash { place, passed, background: false }, Waiting::Put(id));
                    }
                }
            }
            (PutStep::Hashing, Ok(DiskReply::Hashed { manifest, stamp, .. })) => {
                self.hashed(id, manifest, stamp, machines);
            }
            (PutStep::Saving(..) | PutStep::Raising(_), Ok(_)) => self.saved(id, machines),
            (PutStep::Hashing, Ok(other)) => log::error!("hashing was answered by {other:?}"),
            (_, Err(error)) => {
                self.under_way.remove(&id);
                machines.disk_failed(id, &error);
            }
        }
    }

    /// The number and the lifetime of copies that a `put` asks for: never less than before, unless the command says so.
    fn goal(&self, put: &Put, known: Option<&Shared>) -> (u8, u32) {
        let replicas = known.map_or(0, |known| known.replicas).max(self.replicas);
        let lifetime = known.filter(|known| known.replicas > 0).map_or(self.lifetime, |known| known.lifetime);
        (put.replicas.unwrap_or(replicas), put.lifetime.unwrap_or(lifetime))
    }

    /// A file that is put again has the same stamp.
    fn unchanged(&mut self, id: CommandId, shared: &Shared, machines: &mut Machines) {
        let Some(put) = self.under_way.get(&id) else { return debug_assert!(false, "it is under way") };
        let hash = shared.hash;
        let (replicas, lifetime) = self.goal(put, Some(shared));
        if (replicas, lifetime) == (shared.replicas, shared.lifetime) {
            self.under_way.remove(&id);
            let served = ShareEvent::Served { hash, manifest: None, waiter: Some(id), fresh: false };
            return machines.share_events.push_back(served);
        }
        machines.store.set_shared(aimed(shared, replicas, lifetime));
        for share in machines.store.records(&hash) {
            machines.disk(DiskOp::SaveShare { share, manifest: None }, Waiting::Put(id));
        }
        if let Some(put) = self.under_way.get_mut(&id) {
            put.step = PutStep::Raising(hash);
        }
    }

    fn hashed(&mut self, id: CommandId, manifest: Arc<Manifest>, stamp: FileStamp, machines: &mut Machines) {
        let (hash, length) = (manifest.hash(), manifest.length());
        let known = machines.store.shared(&hash);
        let Some(put) = self.under_way.get(&id) else { return debug_assert!(false, "it is under way") };
        if let Err(full) = machines.store.check_room(&put.place) {
            self.under_way.remove(&id);
            return refuse(id, full, machines);
        }
        let (replicas, lifetime) = self.goal(put, known.as_ref());
        let shared =
            Shared { hash, layout: manifest.layout(), replicas, lifetime, replicated: replicas == 0 };
        let shared = known.map_or(shared, |known| aimed(&known, replicas, lifetime));
        let share = Share {
            hash,
            length,
            place: put.place.clone(),
            stamp,
            state: ShareState::Present,
            replicas,
            lifetime,
            replicated: shared.replicated,
            synced: true,
        };
        // The other claims on the address get the same values.
        if known.is_some_and(|known| known != shared) {
            machines.store.set_shared(shared);
            for share in machines.store.records(&hash) {
                machines.disk(DiskOp::SaveShare { share, manifest: None }, Waiting::Nothing);
            }
        }
        let unknown = !machines.store.has_manifest(&hash);
        let op = DiskOp::SaveShare { share: share.clone(), manifest: unknown.then(|| Arc::clone(&manifest)) };
        if let Some(put) = self.under_way.get_mut(&id) {
            put.step = PutStep::Saving(share, manifest);
        }
        machines.disk(op, Waiting::Put(id));
    }

    /// The claim is saved: it survives a restart from now on, and is announced.
    fn saved(&mut self, id: CommandId, machines: &mut Machines) {
        let Some(put) = self.under_way.remove(&id) else { return debug_assert!(false, "it is under way") };
        let (share, manifest) = match put.step {
            PutStep::Saving(share, manifest) => (share, manifest),
            PutStep::Raising(hash) => {
                let waiter = Some(id);
                let served = ShareEvent::Served { hash, manifest: None, waiter, fresh: false };
                return machines.share_events.push_back(served);
            }
            PutStep::Looking(_) | PutStep::Hashing => return debug_assert!(false, "nothing was saved"),
        };
        let claimed = claim(&share, &manifest, Some(id), machines);
        if let Err(full) = claimed {
            machines.disk(DiskOp::RemoveShare { share, last: true }, Waiting::Nothing);
            refuse(id, full, machines);
        }
    }
}

fn refuse(id: CommandId, full: Full, machines: &mut Machines) {
    machines.fail(id, FailureReason::NoSpace, full.to_string());
}
