//! Rewrites the log of shares while the node runs, a bounded part in each turn of the loop.
//!
//! The first pass finds the last record of each place, and keeps 40 bytes of each. The second copies these records to a new file,
//! which is synced as it grows. New records are still appended to the log, so no operation waits for the compaction. They are
//! copied at the end, before the new file replaces the log. A compaction that fails or is interrupted leaves the log unchanged.

use super::contents::{PlaceId, place_id};
use super::record::{CLAIM, END, FILE_HEAD, HEAD_BYTES, Head, RECORD_BYTES_MAX, decode};
use crate::disk::files::{self, Open, remove, rename, sync_data, write_at};
use crate::disk::layout::temporary;
use crate::id::Key;
use rustix::fs::OFlags;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use zerocopy::FromBytes;

/// Bytes of the log that one turn reads, in both passes.
const READ_BYTES: usize = 128 << 10;
/// Records that one turn of the second pass copies.
const COPIED_MAX: usize = 512;

/// The last record of a place.
#[derive(Clone, Copy)]
struct Last {
    /// The offset of the share's first record, by which shares keep their order.
    first: u64,
    offset: u64,
    length: u32,
}

/// The pass of a compaction.
enum Pass {
    /// Finding the last record of each place, up to the log's length at the beginning.
    Finding(BTreeMap<PlaceId, Last>),
    /// Copying these records, taken from the end of the list.
    Copying(Vec<Last>),
    /// Copying the records that were appended since.
    CatchingUp,
}

/// A running compaction.
pub(super) struct Compaction {
    log: File,
    fresh: PathBuf,
    file: File,
    /// The length of the new file.
    end: u64,
    /// The offset up to which the log has been read, and the end of the first pass.
    at: u64,
    until: u64,
    pass: Pass,
    buffer: Vec<u8>,
}

impl Compaction {
    /// Begins to rewrite the log at `path`, which has `until` valid bytes.
    pub(super) fn begin(path: &Path, until: u64) -> io::Result<Self> {
        let fresh = temporary(path);
        let log = File::open(path)?;
        let file = files::open(&fresh, Open::Empty, 0o600, OFlags::empty())?;
        write_at(&file, &fresh, &FILE_HEAD, 0)?;
        let head = FILE_HEAD.len() as u64;
        let pass = Pass::Finding(BTreeMap::new());
        Ok(Compaction { log, fresh, file, end: head, at: head, until, pass, buffer: Vec::new() })
    }

    /// Works for one turn. `log_end` is the length of the log now. `true` when the new file has all records of the log: then the
    /// caller [replaces](Compaction::replace) the log in the same turn.
    pub(super) fn step(&mut self, log_end: u64) -> io::Result<bool> {
        match &mut self.pass {
            Pass::Finding(_) => self.find()?,
            Pass::Copying(_) => self.copy()?,
            Pass::CatchingUp => return self.catch_up(log_end),
        }
        Ok(false)
    }

    /// Replaces the log by the new file, whose data is synced and whose name is not. Returns the file and its length.
    pub(super) fn replace(self, path: &Path) -> io::Result<(File, u64)> {
        sync_data(&self.file, &self.fresh)?;
        rename(&self.fresh, path)?;
        Ok((self.file, self.end))
    }

    /// Gives up: nothing of it stays.
    pub(super) fn abandon(self) {
        let _ = remove(&self.fresh);
    }

    fn find(&mut self) -> io::Result<()> {
        let Pass::Finding(found) = &mut self.pass else { return Ok(()) };
        let wanted = (self.until - self.at).min(READ_BYTES as u64) as usize;
        self.buffer.resize(wanted, 0);
        self.log.read_exact_at(&mut self.buffer, self.at)?;
        let whole = self.at + wanted as u64 == self.until;
        let mut taken = 0;
        // What is cut off by the end of the buffer is read again with the next part.
        while whole && taken < wanted || wanted - taken >= RECORD_BYTES_MAX {
            let offset = self.at + taken as u64;
            match decode(&self.buffer[taken..]) {
                Some((record, _)) => {
                    note(&self.log, found, offset, &record)?;
                    taken += record.length;
                }
                None => taken += 8.min(wanted - taken),
            }
        }
        self.at += taken as u64;
        if self.at == self.until {
            let mut last: Vec<Last> = core::mem::take(found).into_values().collect();
            last.sort_by_key(|last| core::cmp::Reverse(last.first));
            self.pass = Pass::Copying(last);
        }
        Ok(())
    }

    fn copy(&mut self) -> io::Result<()> {
        let Pass::Copying(left) = &mut self.pass else { return Ok(()) };
        self.buffer.clear();
        for _ in 0..COPIED_MAX {
            let Some(last) = left.pop() else { break };
            let start = self.buffer.len();
            self.buffer.resize(start + last.length as usize, 0);
            self.log.read_exact_at(&mut self.buffer[start..], last.offset)?;
            if self.buffer.len() >= READ_BYTES {
                break;
            }
        }
        let over = left.is_empty();
        self.append()?;
        if over {
            self.pass = Pass::CatchingUp;
        }
        Ok(())
    }

    fn catch_up(&mut self, log_end: u64) -> io::Result<bool> {
        let wanted = log_end.saturating_sub(self.at).min(READ_BYTES as u64) as usize;
        self.buffer.resize(wanted, 0);
        self.log.read_exact_at(&mut self.buffer, self.at)?;
        self.at += wanted as u64;
        let over = self.at >= log_end;
        match over {
            // The rest is synced with the whole.
            true => {
                write_at(&self.file, &self.fresh, &self.buffer, self.end)?;
                self.end += wanted as u64;
            }
            false => self.append()?,
        }
        Ok(over)
    }

    /// Adds the buffer to the new file, and has it on the medium: the last sync must not have to wait for all.
    fn append(&mut self) -> io::Result<()> {
        write_at(&self.file, &self.fresh, &self.buffer, self.end)?;
        self.end += self.buffer.len() as u64;
        sync_data(&self.file, &self.fresh)
    }
}

fn note(
    log: &File,
    found: &mut BTreeMap<PlaceId, Last>,
    offset: u64,
    record: &super::record::Record,
) -> io::Result<()> {
    let place = place_id(&record.share);
    let known = found.get(&place).copied();
    let same = match known {
        Some(last) => hash_at(log, last.offset)? == record.share.hash,
        None => false,
    };
    match record.ends {
        // A claim on the place that was made since stays.
        true if same => _ = found.remove(&place),
        true => {}
        false => {
            let first = known.filter(|_| same).map_or(offset, |last| last.first);
            found.insert(place, Last { first, offset, length: record.length as u32 });
        }
    }
    Ok(())
}

/// The address that the record at an offset is about.
fn hash_at(log: &File, offset: u64) -> io::Result<Key> {
    let mut bytes = [0; HEAD_BYTES];
    log.read_exact_at(&mut bytes, offset)?;
    let (head, _) = Head::read_from_prefix(&bytes).map_err(|_| io::ErrorKind::UnexpectedEof)?;
    debug_assert!(matches!(head.kind, CLAIM | END));
    Ok(head.hash)
}

#[cfg(test)]
mod tests {
    use super::super::contents::read_all;
    use super::super::record::encode;
    use super::*;
    use crate::io::{FileStamp, Place, Share, ShareState};
    use crate::rng::Rng;
    use std::io::Write;

    fn claim(number: u64, byte: u8) -> Share {
        Share {
            hash: Key([byte; 32]),
            length: 10,
            place: match number % 7 {
                0 => Place::Cache(Key([byte; 32])),
                _ => Place::File(
                    Path::new(&format!("/{number:0width$}", width = 1 + number as usize % 300)).into(),
                ),
            },
            stamp: FileStamp { length: number, ..FileStamp::default() },
            state: ShareState::Present,
            replicas: 0,
            lifetime: 1,
            replicated: true,
            synced: true,
        }
    }

    /// Random records about a few hundred places.
    fn records(rng: &mut Rng, count: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        for _ in 0..count {
            let share = claim(rng.below(300), rng.below(4) as u8);
            encode(&mut bytes, &share, if rng.below(4) == 0 { END } else { CLAIM });
        }
        bytes
    }

    #[test]
    fn the_new_file_says_what_the_log_says_though_records_come_meanwhile() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shares.log");
        for seed in 0..5 {
            let mut rng = Rng::new([seed; 32]);
            let mut log = File::create(&path).unwrap();
            log.write_all(&FILE_HEAD).unwrap();
            log.write_all(&records(&mut rng, 4000)).unwrap();
            let mut compaction = Compaction::begin(&path, log.metadata().unwrap().len()).unwrap();
            let mut turns = 0;
            while !compaction.step(log.metadata().unwrap().len()).unwrap() {
                turns += 1;
                assert!(turns < 1000);
                if turns % 3 == 0 {
                    log.write_all(&records(&mut rng, 2)).unwrap();
                }
            }
            assert!(turns > 5, "{turns} turns are no parts");
            let expected = read_all(File::open(&path).unwrap()).unwrap();
            let (file, end) = compaction.replace(&path).unwrap();
            assert_eq!(file.metadata().unwrap().len(), end);
            let found = read_all(File::open(&path).unwrap()).unwrap();
            assert_eq!(found.claims, expected.claims);
            assert!(found.found && found.damaged == 0 && found.stale < expected.stale / 2);
        }
    }

    #[test]
    fn damage_in_the_log_is_left_out_and_an_abandoned_file_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shares.log");
        let mut bytes = FILE_HEAD.to_vec();
        bytes.extend(records(&mut Rng::new([1; 32]), 500));
        bytes[5000..5300].fill(7);
        std::fs::write(&path, &bytes).unwrap();
        let mut compaction = Compaction::begin(&path, bytes.len() as u64).unwrap();
        while !compaction.step(bytes.len() as u64).unwrap() {}
        let expected = read_all(&bytes[..]).unwrap();
        assert!(expected.damaged > 0);
        let found = read_all(File::open(&compaction.fresh).unwrap()).unwrap();
        assert_eq!(found.claims, expected.claims);
        assert_eq!(found.damaged, 0);
        let fresh = compaction.fresh.clone();
        compaction.abandon();
        assert!(!fresh.exists());
    }
}
