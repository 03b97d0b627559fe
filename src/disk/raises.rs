//! What was promised of stored pieces after they were stored: more copies, or a longer life.
//!
//! A piece's own file says what it was stored with, in a trailer that is never rewritten, because a torn trailer would lose
//! the piece. What is raised later goes to the end of one log, several records synced together, before the promise is
//! acknowledged. A record names the promise that it replaces, so one that outlives its piece does not touch another
//! piece of the same key. Each has a slot of its own and a checksum: a torn record damages no other.

use super::durable::{Replace, replace};
use super::error::failed;
use super::files::{self, Open, sync_data, write_at};
use super::layout::Layout;
use super::piece_file::{self, Found};
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

/// From this length on the log is written anew without what has been raised again since.
const LOG_BYTES: u64 = 4 << 20;
/// More than this is read of no log.
const LOG_BYTES_MAX: u64 = 64 << 20;
/// Slots that may be of no use before a start writes the log anew.
const SPARE_SLOTS: usize = 64;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Record {
    magic: [u8; 4],
    version: u8,
    /// What the piece's own file says, and what holds from now on.
    stored_replicas: u8,
    replicas: u8,
    reserved: u8,
    key: Key,
    stored_expires: U64,
    expires: U64,
    checksum: U64,
}

const RECORD_BYTES: usize = size_of::<Record>();
const MAGIC: [u8; 4] = *b"ELVR";
const VERSION: u8 = 1;
const _: () = assert!(RECORD_BYTES == 64);

impl Record {
    fn new(stored: &PieceMeta, replicas: u8, expires: u64) -> Record {
        let mut record = Record {
            magic: MAGIC,
            version: VERSION,
            stored_replicas: stored.replicas,
            replicas,
            reserved: 0,
            key: stored.key,
            stored_expires: U64::new(stored.expires),
            expires: U64::new(expires),
            checksum: U64::new(0),
        };
        record.checksum = U64::new(record.sum());
        record
    }

    fn sum(&self) -> u64 {
        xxh3_64(&self.as_bytes()[..RECORD_BYTES - 8])
    }

    fn is_whole(&self) -> bool {
        self.magic == MAGIC && self.version == VERSION && self.checksum.get() == self.sum()
    }

    /// What the record is about: a piece as it was stored.
    fn subject(&self) -> (Key, u8, u64) {
        (self.key, self.stored_replicas, self.stored_expires.get())
    }
}

/// The highest promise for each piece as it was stored.
type Promises = BTreeMap<(Key, u8, u64), (u8, u64)>;

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
        *promise = (promise.0.max(record.replicas), promise.1.max(record.expires.get()));
    }
    Ok((promises, slots))
}

fn write(path: &std::path::Path, promises: &Promises) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(promises.len() * RECORD_BYTES);
    for ((key, stored_replicas, stored_expires), (replicas, expires)) in promises {
        let mut record = Record {
            magic: MAGIC,
            version: VERSION,
            stored_replicas: *stored_replicas,
            replicas: *replicas,
            reserved: 0,
            key: *key,
            stored_expires: U64::new(*stored_expires),
            expires: U64::new(*expires),
            checksum: U64::new(0),
        };
        record.checksum = U64::new(record.sum());
        bytes.extend_from_slice(record.as_bytes());
    }
    replace(path, &[&bytes], Replace::Durably)
}

/// The end of the log, and what is about to go there.
#[derive(Default)]
pub(super) struct Raises {
    log: Option<(File, PathBuf)>,
    /// Where the next record goes.
    end: u64,
    /// The length from which on the log is written anew.
    rewrite_at: u64,
    pending: Vec<(DiskId, Record)>,
    /// Writing failed: the log may show what the medium does not have. It is written anew before anything is added, or
    /// the run counts as one that ended in order.
    distrusted: bool,
}

impl Raises {
    /// Applies what was raised to the pieces that were found. `complete` says that these are all that there are: then what
    /// is about others is dropped from the log, when that is worth writing it anew.
    ///
    /// The start counts on what the log shows. After a run that did not end in order (`clean`) the medium may not have that:
    /// the run may have had no time to sync, or a sync failed, and then the next one may succeed without the lost bytes. So
    /// the log is written anew; where that fails, by [`settle`](Raises::settle).
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
            let subject = (piece.key, piece.replicas, piece.expires);
            if let Some(&(replicas, expires)) = promises.get(&subject) {
                useful.insert(subject, (replicas, expires));
                (piece.replicas, piece.expires) = (piece.replicas.max(replicas), piece.expires.max(expires));
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

    /// Has a promise written down. The answer at once, when its piece's file says as much already.
    pub(super) fn push(
        &mut self,
        layout: &Layout,
        id: DiskId,
        key: &Key,
        replicas: u8,
        expires: u64,
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
        self.pending.push((id, Record::new(&stored, replicas, expires)));
        Ok(None)
    }

    /// Writes and syncs what is pending, all together.
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

    /// Makes the log durable as it is, unless it is known to be.
    pub(super) fn settle(&mut self, layout: &Layout) -> Result<(), DiskError> {
        if !self.distrusted {
            return Ok(());
        }
        let path = layout.file("raises");
        self.write_anew(&path).map_err(|error| failed("write", &path, error))
    }

    fn write_anew(&mut self, path: &std::path::Path) -> io::Result<()> {
        self.log = None;
        let (promises, _) = read(path)?;
        write(path, &promises)?;
        self.rewrite_at = 2 * (promises.len() * RECORD_BYTES) as u64;
        self.distrusted = false;
        Ok(())
    }

    fn append(&mut self, path: &std::path::Path, bytes: &[u8]) -> io::Result<()> {
        if self.distrusted || self.end >= self.rewrite_at.max(LOG_BYTES) {
            self.write_anew(path)?;
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
    use crate::io::Mode;
    use crate::manifest::Content;
    use tempfile::TempDir;

    #[test]
    fn what_a_full_disk_left_in_the_log_is_on_the_medium_before_it_is_counted_on() {
        let root = TempDir::new().unwrap();
        let layout = Layout::new(root.path().to_owned());
        let (key, content, mode) = (Key([7; 32]), Content::File, Mode::of(0o644));
        let stored = PieceMeta { key, content, length: 9, input_offset: 0, replicas: 2, mode, expires: 10 };
        let mut raises = Raises::default();
        let mut done = VecDeque::new();
        raises.pending.push((DiskId(1), Record::new(&stored, 3, 20)));
        // All of the record is written, and yet it is not synced.
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
        assert!(!record::end().is_empty(), "a run that was killed may have left it to nobody");
    }
}
