//! The number of starts of the node and its age, in two copies.
//!
//! The sequence numbers of a run's datagrams begin at `boots << 32`. If a run used the start of an earlier one, other nodes would
//! refuse its datagrams as replays, for up to 15 minutes. So the count must never go back, whatever happens to a file:
//!
//! - `ages` is written at every start, every hour and at the end of the run; `ages.copy` at every start, after it.
//! - When only the copy is readable, the count goes on two above the copy's: the copy may be one start behind.
//! - When neither is readable and there has been a run (there is an identity), the count goes on from a number that no count
//!   reaches by starting: the seconds since 1970, by the clock or by the newest file in the directory, whichever is later. A node
//!   starts less than once a second, so a later leap leads further. The age in seconds begins at 0, so that pieces expire too late
//!   and never too early.
//! - On a full disk `ages` is overwritten in place, which needs no space on most file systems. That counts only if the medium
//!   has the file's name: the directory is synced after it, and once a save has failed in another way, the file is not
//!   overwritten before it has been replaced. If the file cannot be overwritten, the node runs with a number that its next start
//!   may use again, and tries again to save it.

use super::damaged::Damaged;
use super::durable::{Replace, replace};
use super::files::{Open, open, sync_data, sync_directory, write_at};
use super::layout::Layout;
use super::state::read_small;
use crate::io::Ages;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::fs;
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use xxhash_rust::xxh3::xxh3_64;
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The file, and its copy.
const NAME: &str = "ages";
const COPY: &str = "ages.copy";

/// The lowest count after a leap, even with a clock at 1970. A node never starts this many times.
const LEAP_MIN: u64 = 1 << 28;
/// Later times than this (2097) are ignored: the count has 32 bits, and further starts need some of them.
const LEAP_MAX: u64 = 4_000_000_000;

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct AgesFile {
    magic: [u8; 4],
    version: u8,
    clean: u8,
    reserved: [u8; 2],
    boots: U64,
    seconds: U64,
    /// The boot id of the machine when it was written; zero when unknown.
    machine_boot: [u8; 16],
    reserved_rest: [u8; 16],
    checksum: U64,
}

const MAGIC: [u8; 4] = *b"ELVA";
const VERSION: u8 = 1;
const COVERED: usize = size_of::<AgesFile>() - 8;
const _: () = assert!(size_of::<AgesFile>() == 64);

/// The record of the last run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct LastRun {
    pub(super) ages: Ages,
    /// Whether the machine has not restarted since, so that writes without a sync are still there.
    pub(super) same_machine_boot: bool,
}

/// The record of this run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    pub(super) ages: Ages,
    /// Whether the next run may trust writes without a sync. It may not if this start could not delete what an earlier one left.
    pub(super) cleared: bool,
}

/// Reads the record of the last run; zero when there was none. A damaged file is set aside.
pub(super) fn read(layout: &Layout, damaged: &Damaged, has_run: bool) -> LastRun {
    let mut missing = true;
    let mut file = |name: &str| {
        let path = layout.file(name);
        let found = read_small(&path);
        missing &= found.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        match found {
            Ok(bytes) => {
                let parsed = parse(&bytes);
                if parsed.is_none() {
                    damaged.set_aside(&path, "its checksum or version is wrong");
                }
                parsed
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                log::warn!("cannot read {}: {error}; the node starts without it", path.display());
                None
            }
        }
    };
    match (file(NAME), file(COPY)) {
        (Some(last), _) => last,
        (None, Some(mut copy)) => {
            // The copy may be one start behind.
            copy.ages = Ages { boots: copy.ages.boots.saturating_add(1), clean: false, ..copy.ages };
            copy.same_machine_boot = false;
            copy
        }
        // A new directory.
        (None, None) if missing && !has_run => LastRun::default(),
        (None, None) => {
            let boots = leap(layout.root());
            log::warn!("the number of this node's starts is lost: it goes on from {boots}");
            LastRun { ages: Ages { boots, ..Ages::default() }, same_machine_boot: false }
        }
    }
}

fn parse(bytes: &[u8]) -> Option<LastRun> {
    let file = AgesFile::ref_from_bytes(bytes).ok().filter(|file| {
        file.magic == MAGIC
            && file.version == VERSION
            && file.checksum.get() == xxh3_64(&file.as_bytes()[..COVERED])
    })?;
    let ages = Ages { boots: file.boots.get(), seconds: file.seconds.get(), clean: file.clean == 1 };
    let same_machine_boot = file.machine_boot != [0; 16] && file.machine_boot == machine_boot();
    Some(LastRun { ages, same_machine_boot })
}

/// A count above every count that was used before: see the [module](self).
fn leap(root: &Path) -> u64 {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let written = entries.filter_map(|entry| entry.metadata().ok()?.modified().ok());
    let times = written.map(seconds).chain([seconds(SystemTime::now())]);
    times.filter(|&time| time <= LEAP_MAX).max().unwrap_or(0).max(LEAP_MIN)
}

/// The record of this run, and whether it is saved.
pub(super) struct Diary {
    record: Record,
    saved: bool,
    copied: bool,
    /// A save failed, perhaps after the rename: the name on the medium may belong to another file than the name in memory.
    name_in_doubt: bool,
    /// Whether a failure has been logged.
    complained: bool,
}

impl Diary {
    pub(super) fn new(record: Record) -> Self {
        Diary { record, saved: false, copied: false, name_in_doubt: false, complained: false }
    }

    /// Whether both copies are saved.
    pub(super) fn is_written(&self) -> bool {
        self.saved && self.copied
    }

    /// Saves the copies that are not saved yet. If that fails, the caller tries again later.
    pub(super) fn write(&mut self, layout: &Layout) {
        if !self.saved {
            let ages = self.record.ages;
            match self.save(layout, &ages) {
                Ok(()) => {}
                Err(error) if !core::mem::replace(&mut self.complained, true) => log::warn!(
                    "cannot save the number of this start in {}: {error}; if the node restarts before it is saved, other \
                     nodes may ignore it for 15 minutes",
                    layout.file(NAME).display()
                ),
                Err(_) => {}
            }
        }
        if self.saved && !self.copied {
            self.copied = save_copy(layout, &self.record).is_ok();
        }
    }

    /// Saves the node's age.
    pub(super) fn save(&mut self, layout: &Layout, ages: &Ages) -> io::Result<()> {
        self.record.ages = *ages;
        let (path, file) = (layout.file(NAME), encode(&self.record));
        let mut saved = replace(&path, &[file.as_bytes()], Replace::Durably);
        match &saved {
            Ok(()) => self.name_in_doubt = false,
            Err(error) if is_full(error) && !self.name_in_doubt => {
                match write_over(&path, file.as_bytes()).and_then(|()| sync_directory(layout.root())) {
                    Ok(()) => saved = Ok(()),
                    Err(_) => self.name_in_doubt = true,
                }
            }
            Err(_) => self.name_in_doubt = true,
        }
        self.saved |= saved.is_ok();
        saved
    }
}

/// Saves the copy, durably. This happens once in each run, after the record itself is saved.
fn save_copy(layout: &Layout, record: &Record) -> io::Result<()> {
    replace(&layout.file(COPY), &[encode(record).as_bytes()], Replace::Durably)
}

fn encode(record: &Record) -> AgesFile {
    let Record { ages, cleared } = record;
    let mut file = AgesFile {
        magic: MAGIC,
        version: VERSION,
        clean: u8::from(ages.clean && *cleared),
        reserved: [0; 2],
        boots: U64::new(ages.boots),
        seconds: U64::new(ages.seconds),
        machine_boot: if *cleared { machine_boot() } else { [0; 16] },
        reserved_rest: [0; 16],
        checksum: U64::new(0),
    };
    file.checksum = U64::new(xxh3_64(&file.as_bytes()[..COVERED]));
    file
}

/// Overwrites a file in place. If a power cut tears it, the copy is still whole.
fn write_over(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let file = open(path, Open::Existing, 0o600, OFlags::NOFOLLOW)?;
    if file.metadata()?.len() != bytes.len() as u64 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    write_at(&file, path, bytes, 0)?;
    sync_data(&file, path)
}

fn is_full(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSPC | Errno::DQUOT))
}

/// The boot id of the machine; zero where the kernel does not tell.
fn machine_boot() -> [u8; 16] {
    #[cfg(any(test, feature = "sim"))]
    if let Some(name) = super::power_loss::record::machine_boot() {
        return name;
    }
    let text = fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    match text.is_empty() {
        true => [0; 16],
        false => core::array::from_fn(|index| blake3::hash(&text).as_bytes()[index]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::power_loss::record::{self, Fault, Kind};
    use std::path::PathBuf;
    use tempfile::TempDir;

    struct Directory {
        layout: Layout,
        _removed_at_the_end: TempDir,
    }

    impl Directory {
        fn new() -> Self {
            let dir = TempDir::new().unwrap();
            Directory { layout: Layout::new(dir.path().to_owned()), _removed_at_the_end: dir }
        }

        fn read(&self) -> LastRun {
            read(&self.layout, &Damaged::new(&self.layout), true)
        }

        /// One start, as the driver has it.
        fn start(&self) -> u64 {
            let last = self.read();
            let ages = Ages { boots: last.ages.boots + 1, ..last.ages };
            Diary::new(Record { ages, cleared: true }).write(&self.layout);
            ages.boots
        }

        fn file(&self, name: &str) -> PathBuf {
            self.layout.file(name)
        }
    }

    /// Creates a file whose modification time is this many seconds from now.
    fn later(directory: &Directory, seconds: u64) {
        let file = fs::File::create(directory.file("peers")).unwrap();
        file.set_modified(SystemTime::now() + std::time::Duration::from_secs(seconds)).unwrap();
    }

    #[test]
    fn a_count_never_goes_back_whichever_file_is_lost() {
        let directory = Directory::new();
        let mut before = 0;
        let mut start = |damage: &[&str], content: &[u8]| {
            for name in damage {
                fs::write(directory.file(name), content).unwrap();
            }
            let boots = directory.start();
            assert!(boots > before, "{boots} after {before}");
            before = boots;
            boots
        };
        // Neither was ever written, and yet there is an identity.
        let first = start(&[], b"");
        assert!(first > LEAP_MIN);
        assert_eq!(start(&[], b""), first + 1);
        assert_eq!(start(&["ages.copy"], &[0; 64]), first + 2);
        assert_eq!(start(&["ages"], &[0; 64]), first + 4, "the copy may be a start behind");
        assert_eq!(start(&["ages"], b"short"), first + 6);
        // A node that is started less than once a second.
        later(&directory, 100);
        assert!(start(&["ages", "ages.copy"], &[0; 64]) > first + 6);
        let set_aside = fs::read_dir(directory.file("damaged")).unwrap().count();
        assert_eq!(set_aside, 5);
    }

    #[test]
    fn a_file_of_the_far_future_does_not_use_up_the_count() {
        let directory = Directory::new();
        fs::write(directory.file("peers"), b"").unwrap();
        let file = fs::File::options().write(true).open(directory.file("peers")).unwrap();
        file.set_modified(UNIX_EPOCH + std::time::Duration::from_secs(LEAP_MAX + 1)).unwrap();
        assert!(leap(directory.layout.root()) < LEAP_MAX);
        file.set_modified(UNIX_EPOCH + std::time::Duration::from_secs(LEAP_MAX)).unwrap();
        assert_eq!(leap(directory.layout.root()), LEAP_MAX);
    }

    #[test]
    fn on_a_full_disk_the_count_is_written_over_and_a_new_one_waits_for_room() {
        let directory = Directory::new();
        let full = |attempt: &record::Attempt<'_>| {
            let new = attempt.kind == Kind::Open && attempt.path.extension().is_some();
            new.then_some(Fault::Fail(Errno::NOSPC))
        };
        record::plan(full);
        let record = Record { ages: Ages { boots: 1, ..Ages::default() }, cleared: true };
        let mut diary = Diary::new(record);
        diary.write(&directory.layout);
        assert!(!diary.is_written() && !directory.file(NAME).exists());
        record::end_plan();
        diary.write(&directory.layout);
        assert!(diary.is_written());
        record::plan(full);
        assert_eq!(directory.start(), 2);
        record::end_plan();
        assert_eq!(directory.start(), 3);
    }

    #[test]
    fn a_file_whose_name_the_medium_may_not_have_is_not_written_over() {
        let directory = Directory::new();
        let mut diary = Diary::new(Record { ages: Ages { boots: 1, ..Ages::default() }, cleared: true });
        diary.write(&directory.layout);
        let seconds = |seconds| Ages { boots: 1, seconds, clean: false };
        let full = |attempt: &record::Attempt<'_>| {
            let new = attempt.kind == Kind::Open && attempt.path.extension().is_some();
            new.then_some(Fault::Fail(Errno::NOSPC))
        };
        record::plan(|attempt| (attempt.kind == Kind::SyncDirectory).then_some(Fault::Fail(Errno::IO)));
        assert!(diary.save(&directory.layout, &seconds(5)).is_err(), "renamed, but not durably");
        record::plan(full);
        assert!(diary.save(&directory.layout, &seconds(6)).is_err());
        record::end_plan();
        diary.save(&directory.layout, &seconds(7)).unwrap();
        record::plan(full);
        diary.save(&directory.layout, &seconds(8)).unwrap();
        record::end_plan();
        assert_eq!(directory.read().ages.seconds, 8);
    }

    #[test]
    fn a_start_that_could_not_clear_away_leaves_nothing_to_be_trusted() {
        let directory = Directory::new();
        let ages = Ages { boots: 7, seconds: 9, clean: true };
        for cleared in [true, false] {
            Diary::new(Record { ages, cleared }).write(&directory.layout);
            let last = directory.read();
            assert_eq!(last.ages.boots, 7);
            assert_eq!(last.ages.clean, cleared);
            let knows = Path::new("/proc/sys/kernel/random/boot_id").exists();
            assert_eq!(last.same_machine_boot, cleared && knows);
        }
    }
}
