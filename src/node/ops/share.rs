//! Sharing files: from a path to an address that others can fetch, for as long as the user wants.
//!
//! A share is a claim about a path, kept until the user ends it. Putting a file hashes it, writes the claim down and then tells
//! others. What is put again and looks as it did is answered without reading it. A file that looks different is hashed again in
//! the background: with the same content it goes on being served, with another its claim is *changed*. One that cannot be
//! opened is *absent*, and looked for again, ever more rarely, and at once when anybody asks for it.

use crate::id::Key;
use crate::io::{
    DiskError, DiskErrorKind, DiskOp, DiskReply, Extent, FileStamp, PassedId, Place, Share, ShareState,
};
use crate::limits::LIFETIME_SECONDS_MAX;
use crate::manifest::Manifest;
use crate::node::command::{CommandId, FailureReason, Progress, Reply, Stage};
use crate::node::inspect::nothing_of;
use crate::node::machines::Machines;
use crate::node::{Waiting, status};
use crate::store::{Ended, Full, Shared};
use crate::time::{Duration, Instant};
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files that are not what they should be are looked for again after this, then after twice as long, and so on.
const LOOK_AGAIN_MIN: Duration = Duration::from_secs(10);
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(15 * 60);
/// Requests of others have such a file looked for at most this often.
const ASKED_AGAIN: Duration = Duration::from_secs(1);
/// Files that wait to be looked at before it is their turn.
const URGENT_MAX: usize = 256;

/// What the rest of the node has to do.
#[derive(Debug)]
pub(in crate::node) enum ShareEvent {
    /// A file is served.
    Served {
        /// Its address.
        hash: Key,
        /// Its manifest, when it is at hand.
        manifest: Option<Arc<Manifest>>,
        /// The command that waits for its copies.
        waiter: Option<CommandId>,
        /// Whether it was not served before.
        fresh: bool,
    },
    /// Nothing of a file is served any more.
    Withdrawn {
        /// What it was.
        shared: Shared,
        /// Why, for a person to read.
        why: String,
    },
}

/// A file that is being put.
struct Put {
    place: Place,
    /// What the command asks for; `None` is what the share has, or the node's default.
    replicas: Option<u8>,
    lifetime: Option<u32>,
    step: PutStep,
}

enum PutStep {
    /// Whether a file that is shared from there still looks as it did.
    Looking(Key),
    /// The file is read.
    Hashing,
    /// The claim is being written down.
    Saving(Share, Arc<Manifest>),
    /// So are all claims on a file whose copies are to be more, or kept longer.
    Raising(Key),
}

/// A claim that is being looked at again.
struct Examination {
    hash: Key,
    place: Place,
    hashing: bool,
}

/// Every claim of this node.
pub(in crate::node) struct Shares {
    /// What a `put` that does not say gets.
    replicas: u8,
    lifetime: u32,
    puts_max: usize,
    puts: BTreeMap<CommandId, Put>,
    /// One at a time.
    under_way: Option<Examination>,
    /// Claims that are looked at before it is their turn.
    urgent: VecDeque<(Key, Place)>,
    /// The position in the table while all claims are looked at that are not what they should be.
    sweep: Option<(u32, u32)>,
    /// When that begins again.
    sweep_at: Option<Instant>,
    pause: Duration,
    asked_at: Option<Instant>,
    /// Files that were found to have other content.
    pub(in crate::node) changed: u64,
    /// Files that were found not to be there.
    pub(in crate::node) lost: u64,
}

impl Shares {
    /// No claim is looked at yet: the first look is at `now`.
    pub(in crate::node) fn new(replicas: u8, lifetime: u32, puts_max: usize, now: Instant) -> Self {
        Shares {
            replicas,
            lifetime,
            puts_max,
            puts: BTreeMap::new(),
            under_way: None,
            urgent: VecDeque::new(),
            sweep: None,
            sweep_at: Some(now),
            pause: LOOK_AGAIN_MIN,
            asked_at: None,
            changed: 0,
            lost: 0,
        }
    }

    /// When [`handle_timeout`](Shares::handle_timeout) is due.
    pub(in crate::node) fn next_deadline(&self) -> Option<Instant> {
        self.sweep_at
    }

    // Putting.

    /// A command to share a file.
    pub(in crate::node) fn put(
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
        if self.puts.len() >= self.puts_max {
            let message = "too many files are being put at once; try later";
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
                let look = DiskOp::Read(nothing_of(place.clone(), share.stamp));
                (PutStep::Looking(share.hash), look)
            }
            None => (
                PutStep::Hashing,
                DiskOp::Hash { place: place.clone(), passed: Some(PassedId(id.0)), background: false },
            ),
        };
        self.puts.insert(id, Put { place, replicas, lifetime, step });
        machines.disk(op, Waiting::Put(id));
    }

    /// The disk has done what a `put` waits for, or has come some way.
    pub(in crate::node) fn put_disk(
        &mut self,
        id: CommandId,
        result: Result<DiskReply, DiskError>,
        machines: &mut Machines,
    ) {
        let Some(put) = self.puts.get_mut(&id) else { return };
        match (&put.step, result) {
            (_, Ok(DiskReply::Progress { done, total })) => {
                let stage = Stage::Hashing;
                machines.progress(id, Progress { stage, done, total, prefix: 0, path: None });
            }
            (PutStep::Looking(hash), Ok(_)) => {
                let hash = *hash;
                self.unchanged(id, hash, machines);
            }
            (PutStep::Looking(_), Err(_)) => {
                let place = put.place.clone();
                put.step = PutStep::Hashing;
                let passed = Some(PassedId(id.0));
                machines.disk(DiskOp::Hash { place, passed, background: false }, Waiting::Put(id));
            }
            (PutStep::Hashing, Ok(DiskReply::Hashed { manifest, stamp, .. })) => {
                self.hashed(id, manifest, stamp, machines);
            }
            (PutStep::Saving(..) | PutStep::Raising(_), Ok(_)) => self.saved(id, machines),
            (PutStep::Hashing, Ok(other)) => log::error!("hashing was answered by {other:?}"),
            (_, Err(error)) => {
                self.puts.remove(&id);
                machines.disk_failed(id, &error);
            }
        }
    }

    /// Copies and their lifetime that a put asks for: never fewer than before, unless it says so.
    fn goal(&self, put: &Put, known: Option<&Shared>) -> (u8, u32) {
        let replicas = known.map_or(0, |known| known.replicas).max(self.replicas);
        let lifetime = known.filter(|known| known.replicas > 0).map_or(self.lifetime, |known| known.lifetime);
        (put.replicas.unwrap_or(replicas), put.lifetime.unwrap_or(lifetime))
    }

    /// A file that is put again looks as it did.
    fn unchanged(&mut self, id: CommandId, hash: Key, machines: &mut Machines) {
        let shared = machines.store.shared(&hash);
        let Some((put, shared)) = self.puts.get(&id).zip(shared) else { return };
        let (replicas, lifetime) = self.goal(put, Some(&shared));
        if (replicas, lifetime) == (shared.replicas, shared.lifetime) {
            self.puts.remove(&id);
            let served = ShareEvent::Served { hash, manifest: None, waiter: Some(id), fresh: false };
            return machines.share_events.push_back(served);
        }
        machines.store.set_shared(aimed(&shared, replicas, lifetime));
        for share in machines.store.records(&hash) {
            machines.disk(DiskOp::SaveShare { share, manifest: None }, Waiting::Put(id));
        }
        if let Some(put) = self.puts.get_mut(&id) {
            put.step = PutStep::Raising(hash);
        }
    }

    fn hashed(&mut self, id: CommandId, manifest: Arc<Manifest>, stamp: FileStamp, machines: &mut Machines) {
        let (hash, length) = (manifest.hash(), manifest.length());
        let known = machines.store.shared(&hash);
        let Some(put) = self.puts.get(&id) else { return };
        if let Err(full) = machines.store.check_room(&put.place) {
            self.puts.remove(&id);
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
        // The other claims on the address say the same of its copies.
        if known.is_some_and(|known| known != shared) {
            machines.store.set_shared(shared);
            for share in machines.store.records(&hash) {
                machines.disk(DiskOp::SaveShare { share, manifest: None }, Waiting::Nothing);
            }
        }
        let unknown = !machines.store.has_manifest(&hash);
        let op = DiskOp::SaveShare { share: share.clone(), manifest: unknown.then(|| Arc::clone(&manifest)) };
        if let Some(put) = self.puts.get_mut(&id) {
            put.step = PutStep::Saving(share, manifest);
        }
        machines.disk(op, Waiting::Put(id));
    }

    /// It is written down: from here on it survives a restart, and others may know.
    fn saved(&mut self, id: CommandId, machines: &mut Machines) {
        let Some(put) = self.puts.remove(&id) else { return };
        let (share, manifest) = match put.step {
            PutStep::Saving(share, manifest) => (share, manifest),
            PutStep::Raising(hash) => {
                let waiter = Some(id);
                let served = ShareEvent::Served { hash, manifest: None, waiter, fresh: false };
                return machines.share_events.push_back(served);
            }
            PutStep::Looking(_) | PutStep::Hashing => return,
        };
        let claimed = claim(&share, &manifest, Some(id), machines);
        if let Err(full) = claimed {
            machines.disk(DiskOp::RemoveShare { share, last: true }, Waiting::Nothing);
            refuse(id, full, machines);
        }
    }

    // Ending.

    /// A command to share a file no longer, from any path.
    pub(in crate::node) fn remove(&mut self, id: CommandId, hash: &Key, machines: &mut Machines) {
        let served = machines.store.source(hash).is_some();
        let Some(shared) = machines.store.shared(hash) else {
            let message = format!("this node does not share {hash}: `elver ls` shows what it shares");
            return machines.fail(id, FailureReason::NotFound, message);
        };
        let ended: Vec<Ended> = machines
            .store
            .records(hash)
            .iter()
            .filter_map(|share| machines.store.end_claim(hash, &share.place))
            .collect();
        not_any_more(served, shared, "it is not shared any more".to_owned(), machines);
        for Ended { share, last } in ended {
            // The claims end together: the last one's answer holds for all.
            let waiting = match last {
                true => Waiting::Record(id, Reply::Remove { hash: *hash }),
                false => Waiting::Nothing,
            };
            machines.disk(DiskOp::RemoveShare { share, last }, waiting);
        }
    }

    // Looking again.

    /// A file could not be read, or what was read of it was wrong: it is looked at now.
    pub(in crate::node) fn doubt(&mut self, now: Instant, place: &Place, machines: &mut Machines) {
        let Some(hash) = machines.store.claimed_at(place) else { return };
        self.look_first(hash, place.clone());
        self.advance(now, machines);
    }

    /// A look at a claimed file, with the stamp that is known of it, failed.
    pub(in crate::node) fn look_failed(
        &mut self,
        now: Instant,
        place: &Place,
        error: &DiskError,
        machines: &mut Machines,
    ) {
        let hash = machines.store.claimed_at(place);
        let share = hash.and_then(|hash| machines.store.record(&hash, place));
        let Some(share) = share.filter(|share| share.state == ShareState::Present) else { return };
        if error.kind != DiskErrorKind::Changed {
            return self.unreadable(now, &share, error, machines);
        }
        let why = format!("{} looks different, and is hashed again", shown(place));
        let stamp = share.stamp;
        self.became(now, &share, ShareState::Doubtful, stamp, why, machines);
        self.look_first(share.hash, share.place);
        self.advance(now, machines);
    }

    /// The content of a file is wrong although it looks as it did: it is hashed again, and not served until then.
    pub(in crate::node) fn distrust(&mut self, now: Instant, hash: &Key, machines: &mut Machines) {
        let served = machines.store.source(hash).is_some();
        let Some(shared) = machines.store.shared(hash) else { return };
        for share in machines.store.records(hash) {
            if share.state == ShareState::Present {
                // A stamp that nothing has: whatever becomes of the node meanwhile, it is hashed before it is served.
                let stamp = FileStamp::default();
                machines.store.settle_claim(hash, &share.place, ShareState::Doubtful, stamp);
                let share = Share { stamp, ..share };
                self.look_first(*hash, share.place.clone());
                machines.disk(DiskOp::SaveShare { share, manifest: None }, Waiting::Nothing);
            }
        }
        not_any_more(served, shared, "its file is being checked".to_owned(), machines);
        self.look_soon(now, machines);
        self.advance(now, machines);
    }

    /// Somebody asks for a file that is not served: should it be shared from a path that had nothing, that is looked at now.
    pub(in crate::node) fn asked_for(&mut self, now: Instant, hash: &Key, machines: &mut Machines) {
        let lately = self.asked_at.is_some_and(|at| now.since(at) < ASKED_AGAIN);
        if lately || machines.store.claims(hash).is_empty() || machines.store.source(hash).is_some() {
            return;
        }
        self.asked_at = Some(now);
        for share in machines.store.records(hash) {
            self.look_first(*hash, share.place);
        }
        self.advance(now, machines);
    }

    fn look_first(&mut self, hash: Key, place: Place) {
        let next = (hash, place);
        if self.urgent.len() < URGENT_MAX && !self.urgent.contains(&next) {
            self.urgent.push_back(next);
        }
    }

    /// Some claim may not be what it should be: all such are looked at soon.
    fn look_soon(&mut self, now: Instant, machines: &Machines) {
        if machines.store.has_unsettled() {
            self.pause = LOOK_AGAIN_MIN;
            let soon = now + LOOK_AGAIN_MIN;
            self.sweep_at = Some(self.sweep_at.map_or(soon, |at| at.min(soon)));
        }
    }

    /// The time that [`next_deadline`](Shares::next_deadline) named has come.
    pub(in crate::node) fn handle_timeout(&mut self, now: Instant, machines: &mut Machines) {
        if self.sweep_at.is_some_and(|at| at <= now) {
            self.sweep_at = None;
            self.sweep.get_or_insert((0, 0));
            self.advance(now, machines);
        }
    }

    /// Looks at the next claim, when none is being looked at.
    fn advance(&mut self, now: Instant, machines: &mut Machines) {
        while self.under_way.is_none() {
            let Some((hash, place)) = self.next(now, machines) else { return };
            let Some(share) = machines.store.record(&hash, &place) else { continue };
            let hashing = share.state == ShareState::Doubtful;
            let op = match hashing {
                true => DiskOp::Hash { place: place.clone(), passed: None, background: true },
                false => DiskOp::Read(nothing_of(place.clone(), share.stamp)),
            };
            self.under_way = Some(Examination { hash, place, hashing });
            machines.disk(op, Waiting::Examine);
        }
    }

    fn next(&mut self, now: Instant, machines: &Machines) -> Option<(Key, Place)> {
        if let Some(next) = self.urgent.pop_front() {
            return Some(next);
        }
        let position = self.sweep?;
        match machines.store.unsettled_from(position) {
            Some((share, after)) => {
                self.sweep = Some(after);
                Some((share.hash, share.place))
            }
            None => {
                self.sweep = None;
                if machines.store.has_unsettled() {
                    let again = now + self.pause;
                    self.sweep_at = Some(self.sweep_at.map_or(again, |at| at.min(again)));
                    self.pause = (self.pause * 2).min(LOOK_AGAIN_MAX);
                }
                None
            }
        }
    }

    /// The disk has looked at a claim's file.
    pub(in crate::node) fn examined(
        &mut self,
        now: Instant,
        result: Result<DiskReply, DiskError>,
        machines: &mut Machines,
    ) {
        if matches!(result, Ok(DiskReply::Progress { .. })) {
            return;
        }
        let Some(Examination { hash, place, hashing }) = self.under_way.take() else { return };
        // It may have ended meanwhile, or been put again.
        if let Some(share) = machines.store.record(&hash, &place) {
            match (hashing, result) {
                (true, Ok(DiskReply::Hashed { manifest, stamp, .. })) => {
                    self.hashed_again(now, share, &manifest, stamp, machines);
                }
                (false, Ok(_)) if share.state == ShareState::Absent => {
                    log::info!("{} is there again", shown(&place));
                    let stamp = share.stamp;
                    self.became(now, &share, ShareState::Present, stamp, String::new(), machines);
                }
                // It is what it was when it was last looked at.
                (_, Ok(_)) => {}
                (false, Err(error)) if error.kind == DiskErrorKind::Changed => {
                    let stamp = share.stamp;
                    if share.state != ShareState::Changed {
                        let why = format!("{} looks different, and is hashed again", shown(&place));
                        log::info!("{why}");
                        self.became(now, &share, ShareState::Doubtful, stamp, why, machines);
                    }
                    self.under_way = Some(Examination { hash, place: place.clone(), hashing: true });
                    machines.disk(DiskOp::Hash { place, passed: None, background: true }, Waiting::Examine);
                    return;
                }
                // It is being written: it is hashed once that is over.
                (true, Err(error)) if error.kind == DiskErrorKind::Changed => self.look_soon(now, machines),
                (_, Err(error)) => self.unreadable(now, &share, &error, machines),
            }
        }
        self.advance(now, machines);
    }

    fn hashed_again(
        &mut self,
        now: Instant,
        share: Share,
        manifest: &Arc<Manifest>,
        stamp: FileStamp,
        machines: &mut Machines,
    ) {
        if manifest.hash() == share.hash {
            log::info!("{} has the content that it is shared for", shown(&share.place));
            let share = Share { stamp, state: ShareState::Present, synced: true, ..share };
            let fresh = machines.store.source(&share.hash).is_none();
            if machines.store.claim(&share, Some(manifest)).is_ok() && fresh {
                let (hash, manifest) = (share.hash, Some(Arc::clone(manifest)));
                machines.share_events.push_back(ShareEvent::Served { hash, manifest, waiter: None, fresh });
            }
            // The one on disk may have been what was wrong.
            let manifest = Some(Arc::clone(manifest));
            return machines.disk(DiskOp::SaveShare { share, manifest }, Waiting::Nothing);
        }
        let why = format!("{} has other content now", shown(&share.place));
        if share.state != ShareState::Changed {
            self.changed += 1;
            log::warn!(
                "{why}: it is not shared as {} any more until it has that again; put it to share what it has",
                share.hash
            );
        }
        self.became(now, &share, ShareState::Changed, stamp, why, machines);
        let share = Share { stamp, state: ShareState::Changed, ..share };
        if machines.store.record(&share.hash, &share.place).is_some() {
            machines.disk(DiskOp::SaveShare { share, manifest: None }, Waiting::Nothing);
        }
    }

    fn unreadable(&mut self, now: Instant, share: &Share, error: &DiskError, machines: &mut Machines) {
        match share.state {
            ShareState::Present | ShareState::Doubtful => {
                self.lost += 1;
                log::warn!("{error}: its share is kept, and it is looked for again");
                let stamp = share.stamp;
                self.became(now, share, ShareState::Absent, stamp, error.message.clone(), machines);
            }
            // That its content was another one is not forgotten.
            ShareState::Absent | ShareState::Changed => {}
        }
    }

    /// Notes what became of a claim's file. What the cache has lost is forgotten: nobody put it there.
    fn became(
        &mut self,
        now: Instant,
        share: &Share,
        state: ShareState,
        stamp: FileStamp,
        why: String,
        machines: &mut Machines,
    ) {
        let (hash, place) = (share.hash, &share.place);
        let served = machines.store.source(&hash).is_some();
        let Some(shared) = machines.store.shared(&hash) else { return };
        let gone = matches!(state, ShareState::Absent | ShareState::Changed);
        if gone && matches!(place, Place::Cache(_)) {
            let ended = machines.store.end_claim(&hash, place);
            not_any_more(served, shared, why, machines);
            if let Some(Ended { share, last }) = ended {
                machines.disk(DiskOp::RemoveShare { share, last }, Waiting::Nothing);
            }
            return;
        }
        machines.store.settle_claim(&hash, place, state, stamp);
        not_any_more(served, shared, why, machines);
        if !served && machines.store.source(&hash).is_some() {
            let served = ShareEvent::Served { hash, manifest: None, waiter: None, fresh: true };
            machines.share_events.push_back(served);
        }
        if state != ShareState::Present {
            self.look_soon(now, machines);
        }
    }
}

/// A file was fetched: it is shared from where it is. What the disk is to write down; `None` when there is no room for it,
/// or it is shared from elsewhere and this one lies in the cache.
pub(in crate::node) fn fetched(
    manifest: &Arc<Manifest>,
    place: Place,
    stamp: FileStamp,
    machines: &mut Machines,
) -> Option<DiskOp> {
    let (hash, length) = (manifest.hash(), manifest.length());
    let known = machines.store.shared(&hash);
    let same = machines.store.record(&hash, &place);
    if same.is_some_and(|share| share.state == ShareState::Present && share.stamp == stamp) {
        return None;
    }
    let elsewhere = machines.store.claims(&hash).iter().any(|claim| claim.state == ShareState::Present);
    if elsewhere && matches!(place, Place::Cache(_)) {
        return None;
    }
    let (replicas, lifetime, replicated) = known
        .map_or((0, machines.lifetime, true), |known| (known.replicas, known.lifetime, known.replicated));
    let state = ShareState::Present;
    // It has perhaps taken the place of the file that was shared there, and nobody has synced it.
    let share = Share { hash, length, place, stamp, state, replicas, lifetime, replicated, synced: false };
    let unknown = !machines.store.has_manifest(&hash);
    if claim(&share, manifest, None, machines).is_err() {
        let limit = machines.store.claims_max();
        log::warn!("{hash} was fetched and is not shared: {limit} paths are shared already, and no more fit");
        return None;
    }
    Some(DiskOp::SaveShare { share, manifest: unknown.then(|| Arc::clone(manifest)) })
}

/// Enters a claim. One on another address that its place had ends.
fn claim(
    share: &Share,
    manifest: &Arc<Manifest>,
    waiter: Option<CommandId>,
    machines: &mut Machines,
) -> Result<(), Full> {
    let before = machines.store.claimed_at(&share.place).filter(|hash| *hash != share.hash);
    let served = before.is_some_and(|before| machines.store.source(&before).is_some());
    let shared = before.and_then(|before| machines.store.shared(&before));
    let fresh = machines.store.source(&share.hash).is_none();
    let ended = machines.store.claim(share, Some(manifest))?;
    if let Some((ended, shared)) = ended.zip(shared) {
        let path = shown(&share.place);
        log::info!("{path} is shared as {} from now on, and not as {} any more", share.hash, shared.hash);
        let why = format!("{path} has other content now, and was put as {}", share.hash);
        not_any_more(served, shared, why, machines);
        if ended.last && !shared.layout.is_single() {
            machines.disk(DiskOp::Remove(Place::ShareManifest(shared.hash)), Waiting::Nothing);
        }
    }
    let manifest = Some(Arc::clone(manifest));
    machines.share_events.push_back(ShareEvent::Served { hash: share.hash, manifest, waiter, fresh });
    Ok(())
}

/// Nothing of a file may be served any more: whoever has to do with that is told. The manifest is still on disk.
fn not_any_more(served: bool, shared: Shared, why: String, machines: &mut Machines) {
    if !served || machines.store.source(&shared.hash).is_some() {
        return;
    }
    if shared.replicas > 0 && !shared.layout.is_single() {
        machines.disk(DiskOp::Read(manifest_of(&shared)), Waiting::Forget(shared));
    }
    machines.share_events.push_back(ShareEvent::Withdrawn { shared, why });
}

/// A shared file with another aim: what has been copied is enough when that is no higher.
fn aimed(shared: &Shared, replicas: u8, lifetime: u32) -> Shared {
    let enough = shared.replicated && replicas <= shared.replicas && lifetime <= shared.lifetime;
    Shared { replicas, lifetime, replicated: replicas == 0 || (enough && shared.replicas > 0), ..*shared }
}

/// Where the manifest of a shared file lies.
pub(in crate::node) fn manifest_of(shared: &Shared) -> Extent {
    let length = shared.layout.manifest_bytes();
    Extent { place: Place::ShareManifest(shared.hash), offset: 0, length, stamp: None }
}

fn refuse(id: CommandId, full: Full, machines: &mut Machines) {
    let most = machines.store.claims_max();
    let message = format!("{full}: {most} paths are shared (`--shares`): stop sharing some with `elver rm`");
    machines.fail(id, FailureReason::NoSpace, message);
}

/// A place for a person to read.
fn shown(place: &Place) -> String {
    status::path_of(Path::new("the cache"), place).display().to_string()
}
