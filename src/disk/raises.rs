//! The log of raises: a stored piece gets more copies or a longer lifetime.
//!
//! The trailer of a piece's file has the values with which it was stored. It is never rewritten, because a torn trailer would lose
//! the piece. A later raise is appended to this log, and the log is synced, before the raise is acknowledged; several records share
//! a sync. A record names the stored values that it replaces, so a record that outlives its piece does not affect another piece
//! with the same key. Each record has a slot of fixed size and a checksum: a torn record damages no other.

use super::durable::{Replace, replace};
use super::error::failed;
use super::files::{self, Open, sync_data, write_at};
use super::layout::Layout;
use super::piece_file::{self, Found};
use crate::claim::{CLAIM_BYTES, PieceClaim};
use crate::id::Key;
use crate::io::{DiskDone, DiskError, DiskErrorKind, DiskId, DiskReply, PieceMeta, Place};
use rustix::fs::OFlags;
use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use xxhash_rust::xxh3::xxh3_64;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The length from which on the log is rewritten without superseded records.
const LOG_BYTES: u64 = 4 << 20;
/// The most bytes read from a log.
const LOG_BYTES_MAX: u64 = 64 << 20;
/// The number of superseded slots from which on a start rewrites the log.
const SPARE_SLOTS: usize = 64;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Record {
    magic: [u8; 4],
    version: u8,
    /// The number of copies in the piece's trailer, and the raised number.
    stored_replicas: u8,
    replicas: u8,
    reserved: u8,
    key: Key,
    stored_expires: U64,
    expires: U64,
    /// The claim that raises; all zero when there is none.
    claim: [u8; CLAIM_BYTES],
    reserved_rest: [u8; 16],
    checksum: U64,
}

const RECORD_BYTES: usize = size_of::<Record>();
const MAGIC: [u8; 4] = *b"ELVR";
/// Records of version 1 had no claim. They are not read: a piece without a claim is kept for a day only.
const VERSION: u8 = 2;
const _: () = assert!(RECORD_BYTES == 192);

impl Record {
    fn new((key, stored_replicas, stored_expires): Subject, raise: &Raise) -> Record {
        let mut record = Record {
            magic: MAGIC,
            version: VERSION,
            stored_replicas,
            replicas: raise.replicas,
            reserved: 0,
            key,
            stored_expires: U64::new(stored_expires),
            expires: U64::new(raise.expires),
            claim: PieceClaim::encode(raise.claim),
            reserved_rest: [0; 16],
            checksum: U64::new(0),
        };
        record.checksum = U64::new(record.sum());
        record
    }

    fn raise(&self) -> Raise {
        let claim = PieceClaim::decode(&self.claim).flatten();
        Raise { replicas: self.replicas, expires: self.expires.get(), claim }
    }

    fn sum(&self) -> u64 {
        xxh3_64(&self.as_bytes()[..RECORD_BYTES - 8])
    }

    fn is_whole(&self) -> bool {
        self.magic == MAGIC && self.version == VERSION && self.checksum.get() == self.sum()
    }

    /// The subject of the record: a piece with the values of its trailer.
    fn subject(&self) -> Subject {
        (self.key, self.stored_replicas, self.stored_expires.get())
    }
}

/// A piece with the number of copies and the expiry of its trailer.
type Subject = (Key, u8, u64);

fn subject(stored: &PieceMeta) -> Subject {
    (stored.key, stored.replicas, stored.expires)
}

/// The values to which a piece is raised.
#[derive(Clone, Copy, Default)]
struct Raise {
    replicas: u8,
    expires: u64,
    claim: Option<PieceClaim>,
}

impl Raise {
    /// Both: the higher of each value, and the claim that supersedes the other.
    fn join(&self, other: &Raise) -> Raise {
        let claim = match (self.claim, other.claim) {
            (Some(one), Some(other)) if !other.supersedes(&one) => Some(one),
            (one, other) => other.or(one),
        };
        let (replicas, expires) = (self.replicas.max(other.replicas), self.expires.max(other.expires));
        Raise { replicas, expires, claim }
    }
}

/// The raise of each piece.
type Promises = BTreeMap<Subject, Raise>;

fn read(path: &std::path::Path) -> io::Result<(Promises, usize)> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => _ = file.take(LOG_BYTES_MAX).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut promises = Promises::new();
    let mut slots = 0;
    for slot in bytes.chunks_exact(RECORD_BYTES) {
        slots += 1;
        let Some(record) = Record::ref_from_bytes(slot).ok().filter(|record| record.is_whole()) else {
            continue;
        };
        let promise = promises.entry(record.subject()).or_default();
        *promise = promise.join(&record.raise());
    }
    Ok((promises, slots))
}

fn write(path: &std::path::Path, promises: &Promises) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(promises.len() * RECORD_BYTES);
    for (subject, raise) in promises {
        bytes.extend_from_slice(Record::new(*subject, raise).as_bytes());
    }
    replace(path, &[&bytes], Replace::Durably)
}

/// [`LOG_BYTES`], and little of that in the check of power cuts, whose logs are short.
fn log_bytes() -> u64 {
    #[cfg(any(test, feature = "sim"))]
    if super::power_loss::record::keeps_names() {
        return LOG_BYTES >> 14;
    }
    LOG_BYTES
}

/// The end of the log, and the records that are about to be appended.
#[derive(Default)]
pub(super) struct Raises {
    log: Option<(File, PathBuf)>,
    /// The offset of the next record.
    end: u64,
    /// The length from which on the log is rewritten.
    rewrite_at: u64,
    pending: Vec<(DiskId, Record)>,
    /// A write failed, so the log may show records that the medium does not have. It is rewritten before a record is appended, and
    /// before the run counts as one that ended in order.
    distrusted: bool,
}

impl Raises {
    /// Applies the raises to the pieces found. `complete` tells that these are all pieces: then records of other pieces are dropped,
    /// if that is worth rewriting the log.
    ///
    /// The start relies on the records that it reads. After a run that did not end in order (not `clean`), the medium may lack some:
    /// the run may have had no time to sync, or a sync failed, after which the next sync may succeed without the lost bytes. So the
    /// log is rewritten; if that fails, [`settle`](Raises::settle) does it later.
    pub(super) fn recover(
        &mut self,
        layout: &Layout,
        pieces: &mut [PieceMeta],
        clean: bool,
        complete: bool,
    ) -> io::Result<()> {
        let path = layout.file("raises");
        let (promises, slots) = read(&path)?;
        if slots == 0 {
            return Ok(());
        }
        let mut useful = Promises::new();
        for piece in pieces {
            let subject = subject(piece);
            if let Some(promise) = promises.get(&subject) {
                useful.insert(subject, *promise);
                let PieceMeta { replicas, expires, claim, .. } = *piece;
                let raised = Raise { replicas, expires, claim }.join(promise);
                (piece.replicas, piece.expires, piece.claim) =
                    (raised.replicas, raised.expires, raised.claim);
            }
        }
        let shrinks = complete && slots > 2 * useful.len() + SPARE_SLOTS;
        let written = match (shrinks, clean) {
            (true, _) => write(&path, &useful),
            (false, true) => Ok(()),
            (false, false) => write(&path, &promises),
        };
        self.distrusted = written.is_err();
        written
    }

    pub(super) fn has_work(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Queues a raise. Returns the answer at once if the piece's trailer covers the raise already.
    pub(super) fn push(
        &mut self,
        layout: &Layout,
        id: DiskId,
        key: &Key,
        (replicas, expires, claim): (u8, u64, Option<PieceClaim>),
    ) -> Result<Option<DiskReply>, DiskError> {
        let path = layout.path(&Place::Piece(*key));
        let found = File::open(&path).and_then(|file| piece_file::read(&file, key));
        let stored = match found.map_err(|error| failed("read", &path, error))? {
            Found::Piece(stored, _) => stored,
            _ => {
                let message = format!("{} is damaged", path.display());
                return Err(DiskError { kind: DiskErrorKind::Failed, message });
            }
        };
        if stored.replicas >= replicas && stored.expires >= expires {
            return Ok(Some(DiskReply::Done));
        }
        self.pending.push((id, Record::new(subject(&stored), &Raise { replicas, expires, claim })));
        Ok(None)
    }

    /// Writes and syncs the pending records together.
    pub(super) fn flush(&mut self, layout: &Layout, done: &mut VecDeque<DiskDone>) {
        if self.pending.is_empty() {
            return;
        }
        let pending = core::mem::take(&mut self.pending);
        let records: Vec<Record> = pending.iter().map(|(_, record)| *record).collect();
        let path = layout.file("raises");
        let result = self.append(&path, records.as_bytes()).map_err(|error| failed("write", &path, error));
        self.distrusted |= result.is_err();
        done.extend(
            pending
                .into_iter()
                .map(|(id, _)| DiskDone { id, result: result.clone().map(|()| DiskReply::Done) }),
        );
    }

    /// Makes the log durable, unless it is known to be.
    pub(super) fn settle(&mut self, layout: &Layout) -> Result<(), DiskError> {
        if !self.distrusted {
            return Ok(());
        }
        let path = layout.file("raises");
        self.rewrite(&path).map_err(|error| failed("write", &path, error))
    }

    fn rewrite(&mut self, path: &std::path::Path) -> io::Result<()> {
        self.log = None;
        let (promises, _) = read(path)?;
        write(path, &promises)?;
        self.rewrite_at = 2 * (promises.len() * RECORD_BYTES) as u64;
        self.distrusted = false;
        Ok(())
    }

    fn append(&mut self, path: &std::path::Path, bytes: &[u8]) -> io::Result<()> {
        if self.distrusted || self.end >= self.rewrite_at.max(log_bytes()) {
            self.rewrite(path)?;
        }
        if self.log.is_none() {
            if path.symlink_metadata().is_err() {
                replace(path, &[], Replace::Durably)?;
            }
            let file = files::open(path, Open::Existing, 0o600, OFlags::NOFOLLOW)?;
            let slots = file.metadata()?.len() / RECORD_BYTES as u64;
            self.end = slots * RECORD_BYTES as u64;
            self.log = Some((file, path.to_owned()));
        }
        let Some((file, path)) = &self.log else { return Ok(()) };
        write_at(file, path, bytes, self.end)?;
        sync_data(file, path)?;
        self.end += bytes.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::power_loss::record::{self, Fault, Kind, Operation};
    use crate::io::{Brought, Mode};
    use crate::manifest::Content;
    use tempfile::TempDir;

    #[test]
    fn records_left_by_a_full_disk_are_synced_before_a_start_relies_on_them() {
        let root = TempDir::new().unwrap();
        let layout = Layout::new(root.path().to_owned());
        let (key, content, mode) = (Key([7; 32]), Content::File, Mode::of(0o644));
        let (replicas, expires, claim) = (2, 10, None);
        let stored = PieceMeta {
            key,
            content,
            length: 9,
            input_offset: 0,
            replicas,
            mode,
            expires,
            claim,
            brought: Brought::default(),
        };
        let mut raises = Raises::default();
        let mut done = VecDeque::new();
        raises
            .pending
            .push((DiskId(1), Record::new(subject(&stored), &Raise { replicas: 3, expires: 20, claim })));
        // The whole record is written, but not synced.
        record::plan(|attempt| (attempt.kind == Kind::Write).then_some(Fault::Full(RECORD_BYTES)));
        raises.flush(&layout, &mut done);
        record::end_plan();
        let error = done.pop_front().unwrap().result.unwrap_err();
        assert_eq!(error.kind, DiskErrorKind::NoSpace);
        assert_eq!(read(&layout.file("raises")).unwrap().0.len(), 1);
        record::begin(None);
        raises.settle(&layout).unwrap();
        raises.settle(&layout).unwrap();
        let syncs = record::end().into_iter().filter(|operation| matches!(operation, Operation::Sync { .. }));
        assert_eq!(syncs.count(), 2, "its data and its name, once");
        record::begin(None);
        raises.recover(&layout, &mut [stored], false, true).unwrap();
        assert!(!record::end().is_empty(), "a run that was killed may not have synced it");
    }
}
