//! Content that does not verify or cannot be read, whichever operation finds it: at peers and on this node's disk.

use super::recheck::{Finding, Verdict as RecheckVerdict};
use super::scrub::Rotten;
use super::{Ops, read};
use crate::counters::counters;
use crate::id::Key;
use crate::io::{DiskError, DiskErrorKind, DiskReply, Place};
use crate::node::Looker;
use crate::node::machines::Machines;
use crate::time::Instant;
use crate::transfer::{Ban, DownloadId, SampleId};

counters! {
    /// The counters of damaged content.
    pub(in crate::node) struct DamageCounters {
        /// Pieces from peers that do not verify.
        bad_sources = "sources_bad",
        /// Stored pieces that no longer verify.
        pieces_rotten = "pieces_rotten",
    }
}

impl Ops {
    /// The stamp of a shared file was checked. A file that has changed is withdrawn before the operation goes on.
    pub(super) fn looked_at(
        &mut self,
        now: Instant,
        place: &Place,
        looker: Looker,
        result: Result<DiskReply, DiskError>,
        machines: &mut Machines,
    ) {
        if let Err(error) = &result {
            self.watch.look_failed(now, place, error, machines);
        }
        match looker {
            Looker::Seeker(id) => self.seekers.hand(now, id, machines, |seeker, machines| {
                seeker.handle_stamp(now, result.is_ok(), machines);
            }),
            Looker::Question(question) => question.go_on(now, machines),
        }
    }

    /// A disk operation of a read ended. Content that turns out to have changed or rotted is handled first.
    pub(super) fn read_disk(
        &mut self,
        now: Instant,
        id: DownloadId,
        step: read::Step,
        result: Result<DiskReply, DiskError>,
        machines: &mut Machines,
    ) {
        let place = self.seekers.reads.copied_from(id, step).cloned();
        match (place, &result) {
            (Some(place), Err(error)) => self.send_failed(now, &place, error, machines),
            (Some(place), Ok(DiskReply::Copied { key }))
                if self.seekers.reads.copied_key(id, step) != Some(*key) =>
            {
                log::warn!("a chunk on this disk has changed or rotted: it is fetched from other nodes");
                match place {
                    Place::Piece(key) => self.piece_rotten(&key, machines),
                    place => {
                        if let Some(hash) = machines.store.claimed_at(&place) {
                            self.watch.distrust(now, &hash, machines);
                        }
                    }
                }
            }
            _ => {}
        }
        self.seekers.reads.hand(now, id, machines, |read, machines| {
            read.handle_disk(now, step, result, machines);
        });
    }

    /// A peer sent content that does not match what it was asked for, or what it offered.
    pub(in crate::node) fn source_bad(&mut self, now: Instant, ban: &Ban, file: &Key, key: &Key) {
        self.damage.bad_sources += 1;
        let piece = if file == key { String::new() } else { format!(" (piece {key})") };
        let not_asked = match ban.file {
            Some(_) => "it is not asked for that file",
            None => "it did so with several files and is shunned",
        };
        log::warn!(
            "{} at {} sent content of {file}{piece} that does not verify; {not_asked} for {} s \
             (`elver peers` shows it, `elver peers --forgive` lifts it)",
            ban.peer.id,
            ban.peer.addr,
            ban.until.since(now).as_secs()
        );
    }

    /// A piece that a peer reported was checked. A rotten one is no longer served or counted, so that its holders make a new copy.
    pub(super) fn rechecked(
        &mut self,
        now: Instant,
        result: Result<DiskReply, DiskError>,
        machines: &mut Machines,
    ) {
        let Some(Finding { key, reporter, place, verdict }) = self.rechecks.disk(result, machines) else {
            return;
        };
        let why = match verdict {
            RecheckVerdict::Good => {
                return log::info!("piece {key}, which {reporter} reported, verifies here");
            }
            RecheckVerdict::Unknown(error) => return self.send_failed(now, &place, &error, machines),
            RecheckVerdict::Rotten(why) => why,
        };
        log::warn!("piece {key} does not verify here, as {reporter} reported: {why}");
        match &place {
            Place::Piece(key) => {
                machines.store.remove_piece(key);
                log::warn!("the stored copy of {key} is dropped; its other holders make a new one");
            }
            // The manifest is written again when the file has been hashed again.
            Place::ShareManifest(hash) => {
                self.watch.distrust(now, hash, machines);
            }
            _ => {
                machines.store.chunk_lost(&key);
                // The file's stamp is unchanged, but its content is not: it is hashed again.
                if let Some(hash) = machines.store.claimed_at(&place) {
                    self.watch.distrust(now, &hash, machines);
                }
            }
        }
    }

    /// A file could not be read for a peer: it is checked again. A stored piece that is gone is dropped.
    pub(in crate::node) fn send_failed(
        &mut self,
        now: Instant,
        place: &Place,
        error: &DiskError,
        machines: &mut Machines,
    ) {
        log::warn!("{error}");
        if matches!(place, Place::Piece(_) | Place::Cache(_) | Place::ShareManifest(_)) {
            self.health.note_error(now, error);
        }
        if let Place::Piece(key) = place {
            if matches!(error.kind, DiskErrorKind::NotFound | DiskErrorKind::Changed) {
                machines.store.remove_piece(key);
            }
            return;
        }
        self.watch.doubt(now, place, machines);
    }

    /// Parts of a piece were read for a proof of possession.
    pub(super) fn sampled(
        &mut self,
        now: Instant,
        sample: SampleId,
        place: &Place,
        result: Result<DiskReply, DiskError>,
        machines: &mut Machines,
    ) {
        let result = match result {
            Ok(DiskReply::Bytes(bytes)) => Ok(bytes),
            Ok(_) => unreachable!("a sample is answered with bytes"),
            Err(error) => {
                self.send_failed(now, place, &error, machines);
                Err(error)
            }
        };
        machines.transfer.sampled(now, sample, result);
    }

    /// The scrub read a piece or a file. Rotten content is dropped, and from now on counts as a missing copy.
    pub(super) fn scrubbed(
        &mut self,
        now: Instant,
        result: Result<DiskReply, DiskError>,
        machines: &mut Machines,
    ) {
        match self.scrub.handle_disk(now, result, machines) {
            Some(Rotten::Piece(key)) => self.piece_rotten(&key, machines),
            Some(Rotten::File(place, error)) => {
                log::warn!("{error}: it is hashed again");
                if let Some(hash) = machines.store.claimed_at(&place) {
                    self.watch.distrust(now, &hash, machines);
                }
            }
            None => {}
        }
    }

    /// A stored piece does not verify: it is deleted, and repair makes a new copy.
    pub(super) fn piece_rotten(&mut self, key: &Key, machines: &mut Machines) {
        if machines.store.remove_piece(key) {
            log::warn!(
                "the stored piece {key} has rotted and is dropped; other nodes will be asked for a copy"
            );
            self.damage.pieces_rotten += 1;
        }
    }
}
