//! Watching shares: whether the file of each claim exists and has the claimed content.

use super::{ShareEvent, not_any_more, shown};
use crate::id::Key;
use crate::io::{DiskError, DiskErrorKind, DiskOp, DiskReply, Extent, FileStamp, Place, Share, ShareState};
use crate::manifest::Manifest;
use crate::node::Waiting;
use crate::node::machines::Machines;
use crate::store::Ended;
use crate::time::{Duration, Instant, earliest};
use std::collections::VecDeque;
use std::sync::Arc;

/// The first pause before a changed or absent file is checked again. Each further pause is twice as long.
const LOOK_AGAIN_MIN: Duration = Duration::from_secs(10);
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(15 * 60);
/// The least time between two checks of such a file on requests of peers.
const ASKED_AGAIN: Duration = Duration::from_secs(1);
/// Files that wait for a check ahead of the sweep.
const URGENT_MAX: usize = 256;
/// Files of a sweep that are checked without a pause, and the pause that follows: a missing medium with a hundred thousand files must
/// not keep the disk busy.
const SWEEP_BURST: u32 = 256;
const SWEEP_PAUSE: Duration = Duration::from_secs(1);

/// A claim that is being checked.
struct Examination {
    hash: Key,
    place: Place,
    hashing: bool,
}

/// The claims whose files may have changed.
pub(in crate::node) struct Watch {
    /// The check under way: one at a time.
    under_way: Option<Examination>,
    /// Claims that are checked ahead of the sweep.
    urgent: VecDeque<(Key, Place)>,
    /// The position of a sweep, which checks all claims whose files are changed or absent.
    sweep: Option<(u32, u32)>,
    /// Files that were checked since the sweep began or paused, and when it goes on.
    swept: u32,
    sweep_on: Option<Instant>,
    /// When the next sweep begins.
    sweep_at: Option<Instant>,
    pause: Duration,
    asked_at: Option<Instant>,
    /// Files that were found with other content.
    pub(in crate::node) changed: u64,
    /// Files that were found absent.
    pub(in crate::node) lost: u64,
}

impl Watch {
    /// The first sweep is at `now`.
    pub(in crate::node) fn new(now: Instant) -> Self {
        Watch {
            under_way: None,
            urgent: VecDeque::new(),
            sweep: None,
            swept: 0,
            sweep_on: None,
            sweep_at: Some(now),
            pause: LOOK_AGAIN_MIN,
            asked_at: None,
            changed: 0,
            lost: 0,
        }
    }

    /// When [`handle_timeout`](Watch::handle_timeout) is due.
    pub(in crate::node) fn next_deadline(&self) -> Option<Instant> {
        earliest(self.sweep_at, self.sweep_on)
    }

    /// A file could not be read, or its content was wrong: it is checked now.
    pub(in crate::node) fn doubt(&mut self, now: Instant, place: &Place, machines: &mut Machines) {
        let Some(hash) = machines.store.claimed_at(place) else { return };
        self.look_first(hash, place.clone());
        self.advance(now, machines);
    }

    /// Opening a claimed file with its known stamp failed.
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

    /// The content of a file is wrong although its stamp is the same: it is hashed again, and not served until then.
    pub(in crate::node) fn distrust(&mut self, now: Instant, hash: &Key, machines: &mut Machines) {
        let served = machines.store.source(hash).is_some();
        let Some(shared) = machines.store.shared(hash) else { return };
        for share in machines.store.records(hash) {
            if share.state == ShareState::Present {
                // An impossible stamp: even after a crash the file is hashed before it is served.
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

    /// A peer asks for a file that is not served: its absent and changed paths are checked now.
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

    /// Some files may have changed: schedules a sweep soon.
    fn look_soon(&mut self, now: Instant, machines: &Machines) {
        if machines.store.has_unsettled() {
            self.pause = LOOK_AGAIN_MIN;
            let soon = now + LOOK_AGAIN_MIN;
            self.sweep_at = Some(self.sweep_at.map_or(soon, |at| at.min(soon)));
        }
    }

    /// The deadline of [`next_deadline`](Watch::next_deadline) has come.
    pub(in crate::node) fn handle_timeout(&mut self, now: Instant, machines: &mut Machines) {
        let goes_on = self.sweep_on.take_if(|at| *at <= now).is_some();
        let begins = self.sweep_at.take_if(|at| *at <= now).is_some();
        if begins {
            self.sweep.get_or_insert((0, 0));
        }
        if begins || goes_on {
            self.advance(now, machines);
        }
    }

    /// Checks the next claim, unless a check is under way.
    fn advance(&mut self, now: Instant, machines: &mut Machines) {
        while self.under_way.is_none() {
            let Some((hash, place)) = self.next(now, machines) else { return };
            let Some(share) = machines.store.record(&hash, &place) else { continue };
            let hashing = share.state == ShareState::Doubtful;
            let op = match hashing {
                true => DiskOp::Hash { place: place.clone(), passed: None, background: true },
                false => DiskOp::Read(Extent::nothing_of(place.clone(), share.stamp)),
            };
            self.under_way = Some(Examination { hash, place, hashing });
            machines.disk(op, Waiting::Examine);
        }
    }

    fn next(&mut self, now: Instant, machines: &Machines) -> Option<(Key, Place)> {
        if let Some(next) = self.urgent.pop_front() {
            return Some(next);
        }
        let position = self.sweep.filter(|_| self.sweep_on.is_none())?;
        if self.swept == SWEEP_BURST {
            (self.swept, self.sweep_on) = (0, Some(now + SWEEP_PAUSE));
            return None;
        }
        match machines.store.unsettled_from(position) {
            Some((share, after)) => {
                self.sweep = Some(after);
                self.swept += 1;
                Some((share.hash, share.place))
            }
            None => {
                (self.sweep, self.swept) = (None, 0);
                if machines.store.has_unsettled() {
                    let again = now + self.pause;
                    self.sweep_at = Some(self.sweep_at.map_or(again, |at| at.min(again)));
                    self.pause = (self.pause * 2).min(LOOK_AGAIN_MAX);
                }
                None
            }
        }
    }

    /// The disk has checked a claim's file.
    pub(in crate::node) fn handle_disk(
        &mut self,
        now: Instant,
        result: Result<DiskReply, DiskError>,
        machines: &mut Machines,
    ) {
        if matches!(result, Ok(DiskReply::Progress { .. })) {
            return;
        }
        let Some(Examination { hash, place, hashing }) = self.under_way.take() else { return };
        // The claim may have ended meanwhile, or been put again.
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
                // It is the same as at the last check.
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
                // The file is being written: it is hashed when that ends.
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
            // The manifest on disk may have been the wrong one.
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
            // A file known as changed stays so while it is absent.
            ShareState::Absent | ShareState::Changed => {}
        }
    }

    /// Enters the state of a claim's file. A file that is missing from the cache is forgotten, because no user put it there.
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
