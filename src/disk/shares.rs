//! The log of shares, `shares.log`: a record for each share that the user made or ended.
//!
//! A record is appended and synced before it is acknowledged. Records of the same turns of the loop share a sync, so ten thousand
//! files are put with a few syncs. Each record has a checksum. The last record on a place counts. Damaged records are skipped.
//!
//! A start relies on the records that it reads, so the medium must have exactly those. After an orderly end it does
//! ([`ShareLog::settle`]). A run that was killed may have left records without a sync, or may have truncated a refused record without
//! a sync: then the start rewrites the log. It also does so when records are damaged, or when most are superseded.
//!
//! The manifest of a file of several chunks has a file of its own, `shares/HASH`, ready to be sent. A missing or damaged manifest is
//! made again by hashing the file.

mod compaction;
mod contents;
mod record;

use super::damaged::Damaged;
use super::durable::{Replace, replace};
use super::error::{failed, kind_of, refused};
use super::extent::{open_regular, stamp_of};
use super::files::{
    self, Open, remove, rename, set_length, sync_all, sync_data, sync_directory, sync_directory_of_others,
    write_at,
};
use super::layout::{Layout, temporary};
use super::reserve::Reserve;
use crate::id::Key;
use crate::io::{DiskDone, DiskError, DiskErrorKind, DiskId, DiskReply, Place, Share};
use crate::manifest::Manifest;
use compaction::Compaction;
pub(super) use contents::Contents;
use contents::{Table, read_all};
pub(super) use record::PATH_BYTES_MAX;
use record::{CLAIM, END, FILE_HEAD, decode, encode};
use rustix::fs::OFlags;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The most turns that the first record of a group waits while others join.
const TURNS_MAX: u32 = 4;
/// A group of this many bytes waits for no more.
const GROUP_BYTES_MAX: usize = 1 << 20;
/// A start does not rewrite the log for fewer superseded records than this.
const STALE_MIN: usize = 1000;
/// While the node runs, it rewrites the log, a part in each turn, when the log has grown by this many bytes and to more than twice
/// its length.
const GROWTH_MIN: u64 = 4 << 20;

/// The identity of a share: its path, or the address of a file in the cache.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Subject {
    Path(Arc<Path>),
    Cached(Key),
}

impl Subject {
    pub(super) fn of(share: &Share) -> Subject {
        match &share.place {
            Place::File(path) => Subject::Path(Arc::clone(path)),
            _ => Subject::Cached(share.hash),
        }
    }
}

/// The log, opened for appending.
pub(super) struct ShareLog {
    path: PathBuf,
    /// `None` before the first record.
    file: Option<File>,
    /// The offset of the next record.
    end: u64,
    /// Its length after the last rewrite, or at the last attempt.
    base: u64,
    /// The running compaction.
    compaction: Option<Compaction>,
    /// Whether bytes were written or truncated since the last sync.
    unsynced: bool,
    /// Whether a sync failed. Then the acknowledged records are rewritten before the next record is appended.
    distrusted: bool,
    /// The shares that the log should have, if the start could not rewrite it.
    unwritten: Option<Vec<Share>>,
    /// Whether the log exists but could not be read. It must be read before another file replaces it.
    unread: bool,
    /// Records that wait to be written and synced, and the operations that wait for them.
    pending: Vec<u8>,
    waiting: Vec<DiskId>,
    /// Whether one of them ends a share.
    ending: bool,
    turns: u32,
}

impl ShareLog {
    pub(super) fn new(layout: &Layout) -> Self {
        ShareLog {
            path: layout.file("shares.log"),
            file: None,
            end: 0,
            base: 0,
            compaction: None,
            unsynced: false,
            distrusted: false,
            unwritten: None,
            unread: false,
            pending: Vec::new(),
            waiting: Vec::new(),
            ending: false,
            turns: 0,
        }
    }

    pub(super) fn has_work(&self) -> bool {
        !self.waiting.is_empty() || self.compaction.is_some()
    }

    /// Continues a running compaction.
    pub(super) fn compact(&mut self) {
        let Some(compaction) = &mut self.compaction else { return };
        let done = match compaction.step(self.end) {
            Ok(false) => return,
            Ok(true) => self.compaction.take().map_or(Ok(()), |compaction| {
                let (file, end) = compaction.replace(&self.path)?;
                (self.file, self.end, self.base, self.unsynced) = (Some(file), end, end, false);
                let named = self.path.parent().map_or(Ok(()), sync_directory);
                self.distrusted |= named.is_err();
                named
            }),
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            log::warn!("cannot rewrite {}: {error}; it keeps growing", self.path.display());
            self.give_up_compaction();
            self.base = self.end;
        }
    }

    /// Ends a compaction without result.
    pub(super) fn give_up_compaction(&mut self) {
        if let Some(compaction) = self.compaction.take() {
            compaction.abandon();
        }
    }

    fn begin_compaction(&mut self) {
        match Compaction::begin(&self.path, self.end) {
            Ok(compaction) => self.compaction = Some(compaction),
            Err(error) => {
                log::debug!("cannot rewrite {}: {error}", self.path.display());
                self.base = self.end;
            }
        }
    }

    /// Reads the log. It keeps a copy of a damaged log, or of one of another version. The log itself stays until another file
    /// replaces it, because this start may be killed as well.
    pub(super) fn read(&mut self, damaged: &Damaged, clean: bool) -> io::Result<Contents> {
        let contents = match File::open(&self.path).and_then(read_all) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Contents::default()),
            result => result.inspect_err(|_| self.unread = true)?,
        };
        if !contents.found {
            damaged.keep_copy(&self.path, "it is no log of shares of this version: put the files again");
        } else if contents.torn_inside || (clean && contents.damaged > 0) {
            damaged.keep_copy(&self.path, "some shares may be lost: `elver ls` shows what is left");
        }
        Ok(contents)
    }

    /// Prepares the log for appending. `contents` is the [read](ShareLog::read) content without the `dropped` shares and with the
    /// `new` ones. The log is rewritten, durably, when it differs from that, or when the last run did not end in order (not `clean`).
    pub(super) fn begin(
        &mut self,
        contents: &Contents,
        dropped: usize,
        new: usize,
        clean: bool,
    ) -> io::Result<()> {
        let stale = contents.stale + dropped;
        let as_it_is = clean && contents.found && contents.damaged == 0 && new == 0;
        if as_it_is && stale <= STALE_MIN.max(contents.claims.len()) {
            self.end = self.path.metadata()?.len();
            self.base = self.end;
            return Ok(());
        }
        if !contents.found && contents.claims.is_empty() {
            return Ok(());
        }
        self.rewrite(contents.claims.iter()).inspect_err(|_| self.unwritten = Some(contents.claims.clone()))
    }

    /// Appends a share. It is answered once it is durable. A share whose content is not synced is answered at once.
    pub(super) fn save(&mut self, id: DiskId, share: &Share) -> Result<Option<DiskReply>, DiskError> {
        if let Place::File(path) = &share.place {
            if path.as_os_str().len() > PATH_BYTES_MAX {
                return Err(refused(
                    DiskErrorKind::Unsuitable,
                    path,
                    "cannot be shared: the path is too long",
                ));
            }
        }
        encode(&mut self.pending, share, CLAIM);
        match share.synced {
            true => self.waiting.push(id),
            // A sync here may have to wait for all recently downloaded content, which need not survive a power cut.
            false if self.waiting.is_empty() => {
                self.write_pending().map_err(|error| failed("write", &self.path, error))?;
                return Ok(Some(DiskReply::Done));
            }
            false => return Ok(Some(DiskReply::Done)),
        }
        Ok(None)
    }

    /// Appends the end of a share. It is answered once it is durable.
    pub(super) fn forget(&mut self, id: DiskId, share: &Share) {
        encode(&mut self.pending, share, END);
        self.ending = true;
        self.waiting.push(id);
    }

    /// Writes and syncs the pending records, unless they wait for others. `more` tells that others may still join.
    pub(super) fn flush(&mut self, more: bool, reserve: &mut Reserve, done: &mut VecDeque<DiskDone>) {
        if self.waiting.is_empty() {
            return;
        }
        self.turns += 1;
        if more && self.turns < TURNS_MAX && self.pending.len() < GROUP_BYTES_MAX {
            return;
        }
        self.turns = 0;
        let ending = core::mem::take(&mut self.ending);
        let pending = if ending { self.pending.clone() } else { Vec::new() };
        let mut written = self.write_and_sync();
        let full = written.as_ref().is_err_and(|error| kind_of(error) == DiskErrorKind::NoSpace);
        if ending && full && reserve.give_up() {
            // On a full disk the end of a share frees space.
            self.pending = pending;
            written = self.write_and_sync();
        }
        let result = match written {
            Ok(()) => Ok(DiskReply::Done),
            Err(error) => Err(failed("write", &self.path, error)),
        };
        done.extend(self.waiting.drain(..).map(|id| DiskDone { id, result: result.clone() }));
    }

    /// Rewrites the log if the medium may lack some of its records.
    pub(super) fn mend(&mut self) -> Result<(), DiskError> {
        if !self.is_doubtful() {
            return Ok(());
        }
        self.write_anew(&[]).map_err(|error| failed("write", &self.path, error))
    }

    /// Makes the log durable, so that the next start relies on no record that a power cut could take back.
    pub(super) fn settle(&mut self) -> Result<(), DiskError> {
        self.mend()?;
        match self.unsynced {
            true => self.sync().map_err(|error| failed("sync", &self.path, error)),
            false => Ok(()),
        }
    }

    fn is_doubtful(&self) -> bool {
        self.distrusted || self.unwritten.is_some()
    }

    fn write_and_sync(&mut self) -> io::Result<()> {
        let before = self.end;
        match self.write_pending()? {
            Written::Anew => Ok(()),
            Written::Appended => self.sync().inspect_err(|_| {
                self.end = before;
                self.give_up_compaction();
            }),
        }
    }

    fn write_pending(&mut self) -> io::Result<Written> {
        let pending = core::mem::take(&mut self.pending);
        if self.is_doubtful() || self.end == 0 {
            return self.write_anew(&pending).map(|()| Written::Anew);
        }
        let file = match self.file.take() {
            Some(file) => file,
            None => files::open(&self.path, Open::Existing, 0o600, OFlags::empty())?,
        };
        self.unsynced = true;
        let written = write_at(&file, &self.path, &pending, self.end);
        match written {
            Ok(()) => self.end += pending.len() as u64,
            // A failed write may leave whole records behind the end. Without truncation they would follow the next ones.
            Err(_) => self.distrusted |= set_length(&file, &self.path, self.end).is_err(),
        }
        self.file = Some(file);
        if written.is_ok() && self.compaction.is_none() && self.has_outgrown() {
            self.begin_compaction();
        }
        written.map(|()| Written::Appended)
    }

    fn sync(&mut self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let synced = sync_data(file, &self.path);
        self.unsynced = synced.is_err();
        self.distrusted |= synced.is_err();
        synced
    }

    fn has_outgrown(&self) -> bool {
        self.end > 2 * self.base + growth_min()
    }

    /// Writes the current records and `pending` to another file, and replaces the log by it, durably.
    fn write_anew(&mut self, pending: &[u8]) -> io::Result<()> {
        let claims = match (&self.unwritten, self.end) {
            (Some(claims), _) => claims.clone(),
            (None, 0) if self.unread => read_all(File::open(&self.path)?)?.claims,
            (None, 0) => Vec::new(),
            (None, end) => read_all(File::open(&self.path)?.take(end))?.claims,
        };
        let mut parsed = Table::default();
        parsed.take(claims);
        let mut left = pending;
        while let Some((record, rest)) = decode(left) {
            parsed.apply(record);
            left = rest;
        }
        self.rewrite(parsed.into_claims().iter())
    }

    fn rewrite<'a>(&mut self, claims: impl Iterator<Item = &'a Share>) -> io::Result<()> {
        self.give_up_compaction();
        let fresh = temporary(&self.path);
        let rewritten = self.write_and_rename(&fresh, claims);
        if rewritten.is_err() {
            // The partial file would take space on a disk that may be full.
            let _ = remove(&fresh);
        }
        rewritten
    }

    fn write_and_rename<'a>(
        &mut self,
        fresh: &Path,
        claims: impl Iterator<Item = &'a Share>,
    ) -> io::Result<()> {
        let file = files::open(fresh, Open::Empty, 0o600, OFlags::empty())?;
        let mut buffer = FILE_HEAD.to_vec();
        let mut end = 0;
        for share in claims {
            encode(&mut buffer, share, CLAIM);
            if buffer.len() >= GROUP_BYTES_MAX {
                write_at(&file, fresh, &buffer, end)?;
                end += buffer.len() as u64;
                buffer.clear();
            }
        }
        write_at(&file, fresh, &buffer, end)?;
        end += buffer.len() as u64;
        sync_data(&file, fresh)?;
        rename(fresh, &self.path)?;
        // From here on this file is the log, even if the sync of its name fails.
        (self.file, self.end, self.base) = (Some(file), end, end);
        (self.unsynced, self.unwritten, self.unread) = (false, None, false);
        let named = self.path.parent().map_or(Ok(()), sync_directory);
        self.distrusted = named.is_err();
        named
    }
}

/// [`GROWTH_MIN`]; a fraction of it in the check of power cuts, whose logs are short.
fn growth_min() -> u64 {
    #[cfg(any(test, feature = "sim"))]
    if super::power_loss::record::keeps_names() {
        return GROWTH_MIN >> 14;
    }
    GROWTH_MIN
}

/// How records were written.
enum Written {
    /// At the end of the log, without a sync.
    Appended,
    /// With all others in a new file, durably.
    Anew,
}

/// Writes the manifest of a file of several chunks, in the form in which it is sent.
pub(super) fn save_manifest(layout: &Layout, manifest: &Manifest, how: Replace) -> Result<(), DiskError> {
    let path = layout.share(&manifest.hash());
    replace(&path, &[&manifest.encode()], how).map_err(|error| failed("write", &path, error))
}

/// Syncs the content of a shared file. `false` when its stamp differs.
pub(super) fn sync_content(layout: &Layout, share: &Share) -> Result<bool, DiskError> {
    let path = layout.path(&share.place);
    let file = match open_regular(&path) {
        Ok((file, metadata)) if stamp_of(&metadata) == share.stamp => file,
        _ => return Ok(false),
    };
    let synced = sync_all(&file, &path).and_then(|()| path.parent().map_or(Ok(()), sync_directory_of_others));
    synced.map_err(|error| failed("sync", &path, error))?;
    Ok(true)
}

/// Deletes the files of a share: the file itself if it is in the cache, the manifest if it is the last share of the address. If the
/// power fails before the end of the share is on the medium, the next start finds the share without them, and detects that. A file
/// that cannot be deleted belongs to no share, and the next start deletes it.
pub(super) fn remove_files(layout: &Layout, share: &Share, last: bool) {
    let cached = matches!(share.place, Place::Cache(_)).then(|| layout.path(&share.place));
    let manifest = last.then(|| layout.share(&share.hash));
    for path in cached.into_iter().chain(manifest) {
        if let Err(error) = remove(&path) {
            log::warn!("cannot delete {}: {error}; the next start tries again", path.display());
        }
    }
}
