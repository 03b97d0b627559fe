//! A record of every change that this thread makes to files, and the faults that it is to meet.
//!
//! Only in builds with the simulator, and in tests. A recorded file's time of modification is set to the number of the
//! change, so that the same run leaves the same files.

use rustix::io::Errno;
use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A change to the file system that was made. A file is named by its inode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::disk) enum Operation {
    /// A file was made.
    Create {
        /// Its inode.
        file: u64,
        /// Where.
        path: PathBuf,
        /// Its time of modification: see [`Operation::Write`].
        modified: u64,
    },
    /// Bytes were written.
    Write {
        /// Into which inode.
        file: u64,
        /// From where on.
        offset: u64,
        /// What.
        bytes: Vec<u8>,
        /// The time of modification that the file has since, in seconds since 1970.
        modified: u64,
    },
    /// A file was cut off or extended.
    SetLength {
        /// Its inode.
        file: u64,
        /// Its length since.
        length: u64,
        /// See [`Operation::Write`].
        modified: u64,
    },
    /// A file got another name.
    Rename {
        /// What it was called.
        from: PathBuf,
        /// What it is called.
        to: PathBuf,
    },
    /// A name was deleted.
    Remove {
        /// Which.
        path: PathBuf,
    },
    /// A directory was made.
    MakeDirectory {
        /// Which.
        path: PathBuf,
    },
    /// An empty directory was deleted.
    RemoveDirectory {
        /// Which.
        path: PathBuf,
    },
    /// A file or a directory was synced.
    Sync {
        /// Which inode.
        file: u64,
        /// What it is called.
        path: PathBuf,
        /// How: [`Kind::SyncData`], [`Kind::SyncAll`] or [`Kind::SyncDirectory`].
        kind: Kind,
        /// Whether the system said that it is on the medium.
        succeeded: bool,
    },
}

/// What kind of change is to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::disk) enum Kind {
    /// A file is opened to be written, and made or emptied.
    Open,
    /// Bytes are written.
    Write,
    /// A file is cut off or extended.
    SetLength,
    /// A file gets another name.
    Rename,
    /// A name is deleted.
    Remove,
    /// A directory is made.
    MakeDirectory,
    /// A directory is deleted.
    RemoveDirectory,
    /// A file's data and length are synced.
    SyncData,
    /// All of a file is synced, its time of modification too.
    SyncAll,
    /// A directory's names are synced.
    SyncDirectory,
    /// Content is sent from a file. It changes nothing, but a filter may refuse it.
    SendFile,
    /// Content is spliced from a socket into a pipe; there is no path.
    Fill,
    /// Content is spliced from a pipe into a file.
    Splice,
}

impl Kind {
    /// Whether it is a sync.
    pub(in crate::disk) fn is_sync(self) -> bool {
        matches!(self, Kind::SyncData | Kind::SyncAll | Kind::SyncDirectory)
    }
}

/// A change that is about to be made.
#[derive(Clone, Copy, Debug)]
pub(in crate::disk) struct Attempt<'a> {
    /// What kind.
    pub(in crate::disk) kind: Kind,
    /// Where; for a rename, the new name.
    pub(in crate::disk) path: &'a Path,
}

/// What happens instead of a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::disk) enum Fault {
    /// It fails with this error. Of a sync it is not known afterwards what it did.
    Fail(Errno),
    /// A write stores at most this many bytes, then the disk is full.
    Full(usize),
    /// Nothing happens: the process has been killed, as far as the file system knows.
    Killed,
}

/// Decides the fault that replaces a change; `None` lets the change happen.
type Plan = Box<dyn FnMut(&Attempt<'_>) -> Option<Fault>>;

struct Record {
    operations: Vec<Operation>,
    vault: Option<PathBuf>,
}

/// The recorder's clock starts at this time, in seconds since 1970: the first recorded change is made one second later.
const FIRST_SECOND: u64 = 1_000_000_000;

thread_local! {
    static RECORD: RefCell<Option<Record>> = const { RefCell::new(None) };
    static PLAN: RefCell<Option<Plan>> = const { RefCell::new(None) };
    static MACHINE_BOOT: Cell<Option<[u8; 16]>> = const { Cell::new(None) };
    static SECOND: Cell<u64> = const { Cell::new(FIRST_SECOND) };
}

/// Starts a new record on this thread. Every file that is made from now on gets a second name in the directory
/// `vault`, its inode's number: so an inode is never used twice, and can be put back.
pub(in crate::disk) fn begin(vault: Option<&Path>) {
    let vault = vault.map(Path::to_owned);
    RECORD.set(Some(Record { operations: Vec::new(), vault }));
}

/// Sets the clock back to the time of modification that the first change has.
pub(in crate::disk) fn reset_clock() {
    SECOND.set(FIRST_SECOND);
}

/// How many changes have been recorded.
pub(in crate::disk) fn position() -> usize {
    RECORD.with_borrow(|record| record.as_ref().map_or(0, |record| record.operations.len()))
}

/// Ends the record and the faults. The changes, in the order in which they were made.
pub(in crate::disk) fn end() -> Vec<Operation> {
    PLAN.set(None);
    RECORD.take().map_or_else(Vec::new, |record| record.operations)
}

/// Decides the fate of what follows, until the record ends or another plan is made. It holds without a record, too.
pub(in crate::disk) fn plan(decide: impl FnMut(&Attempt<'_>) -> Option<Fault> + 'static) {
    PLAN.set(Some(Box::new(decide)));
}

/// Lets everything happen again.
pub(in crate::disk) fn end_plan() {
    PLAN.set(None);
}

/// Says in which run of the machine this thread believes to be; `None` asks the kernel.
pub(in crate::disk) fn set_machine_boot(name: Option<[u8; 16]>) {
    MACHINE_BOOT.set(name);
}

pub(in crate::disk) fn machine_boot() -> Option<[u8; 16]> {
    MACHINE_BOOT.get()
}

pub(in crate::disk) fn is_active() -> bool {
    RECORD.with_borrow(Option::is_some)
}

/// Whether every file has a second name, in the vault.
pub(in crate::disk) fn keeps_names() -> bool {
    RECORD.with_borrow(|record| record.as_ref().is_some_and(|record| record.vault.is_some()))
}

fn fate(kind: Kind, path: &Path) -> Option<Fault> {
    PLAN.with_borrow_mut(|plan| plan.as_mut().and_then(|decide| decide(&Attempt { kind, path })))
}

fn error_of(fault: Fault) -> io::Error {
    match fault {
        Fault::Fail(errno) => errno.into(),
        Fault::Full(_) => Errno::NOSPC.into(),
        Fault::Killed => Errno::IO.into(),
    }
}

/// Fails when the plan says so.
pub(in crate::disk) fn attempt(kind: Kind, path: &Path) -> io::Result<()> {
    fate(kind, path).map_or(Ok(()), |fault| Err(error_of(fault)))
}

/// How much of a write happens before it fails, and how, when the plan says so.
pub(in crate::disk) fn cut_short(path: &Path, length: usize) -> Option<(usize, io::Error)> {
    let fault = fate(Kind::Write, path)?;
    let taken = if let Fault::Full(most) = fault { most.min(length) } else { 0 };
    Some((taken, error_of(fault)))
}

/// Fails when the plan says so, and records that.
pub(in crate::disk) fn attempt_sync(file: &File, path: &Path, kind: Kind) -> io::Result<()> {
    let Some(fault) = fate(kind, path) else {
        return Ok(());
    };
    if fault != Fault::Killed {
        log_sync(file, path, kind, false)?;
    }
    Err(error_of(fault))
}

pub(in crate::disk) fn synced(file: &File, path: &Path, kind: Kind) -> io::Result<()> {
    log_sync(file, path, kind, true)
}

fn log_sync(file: &File, path: &Path, kind: Kind, succeeded: bool) -> io::Result<()> {
    if is_active() {
        let file = file.metadata()?.ino();
        log(|| Operation::Sync { file, path: path.to_owned(), kind, succeeded });
    }
    Ok(())
}

pub(in crate::disk) fn log(operation: impl FnOnce() -> Operation) {
    RECORD.with_borrow_mut(|record| {
        if let Some(record) = record {
            record.operations.push(operation());
        }
    });
}

pub(in crate::disk) fn opened(file: &File, path: &Path, new: bool, emptied: bool) -> io::Result<()> {
    if !is_active() {
        return Ok(());
    }
    if !new {
        return if emptied { resized(file, 0) } else { Ok(()) };
    }
    let inode = file.metadata()?.ino();
    RECORD.with_borrow(|record| match record.as_ref().and_then(|record| record.vault.as_ref()) {
        Some(vault) => fs::hard_link(path, vault.join(inode.to_string())),
        None => Ok(()),
    })?;
    log_modified(file, |file, modified| Operation::Create { file, path: path.to_owned(), modified })
}

pub(in crate::disk) fn written(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    log_modified(file, |file, modified| Operation::Write { file, offset, bytes: bytes.to_vec(), modified })
}

pub(in crate::disk) fn resized(file: &File, length: u64) -> io::Result<()> {
    log_modified(file, |file, modified| Operation::SetLength { file, length, modified })
}

fn log_modified(file: &File, operation: impl FnOnce(u64, u64) -> Operation) -> io::Result<()> {
    if !is_active() {
        return Ok(());
    }
    let modified = SECOND.get() + 1;
    SECOND.set(modified);
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(modified))?;
    let inode = file.metadata()?.ino();
    log(|| operation(inode, modified));
    Ok(())
}
