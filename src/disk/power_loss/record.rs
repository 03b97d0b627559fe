//! A record of every change that this thread makes to files, and the faults injected into those changes.
//!
//! It exists only in builds with the simulator, and in tests. A recorded file's time of modification is set to the
//! number of the change, so that the same run leaves the same files.

use rustix::io::Errno;
use std::cell::{Cell, RefCell};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A completed change to the file system. A file is named by its inode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::disk) enum Operation {
    /// A file was created.
    Create {
        /// Its inode.
        file: u64,
        /// Its path.
        path: PathBuf,
        /// Its time of modification: see [`Operation::Write`].
        modified: u64,
    },
    /// Bytes were written.
    Write {
        /// The inode of the file.
        file: u64,
        /// The offset of the first byte.
        offset: u64,
        /// The bytes.
        bytes: Vec<u8>,
        /// The file's time of modification after the write, in seconds since 1970.
        modified: u64,
    },
    /// A file was truncated or extended.
    SetLength {
        /// Its inode.
        file: u64,
        /// Its new length.
        length: u64,
        /// See [`Operation::Write`].
        modified: u64,
    },
    /// A file was renamed.
    Rename {
        /// The old path.
        from: PathBuf,
        /// The new path.
        to: PathBuf,
    },
    /// A name was deleted.
    Remove {
        /// The path.
        path: PathBuf,
    },
    /// A directory was made.
    MakeDirectory {
        /// Its path.
        path: PathBuf,
    },
    /// An empty directory was deleted.
    RemoveDirectory {
        /// Its path.
        path: PathBuf,
    },
    /// A file or a directory was synced.
    Sync {
        /// Its inode.
        file: u64,
        /// Its path.
        path: PathBuf,
        /// The kind of sync: [`Kind::SyncData`], [`Kind::SyncAll`] or [`Kind::SyncDirectory`].
        kind: Kind,
        /// Whether the system reported success.
        succeeded: bool,
    },
}

/// The kind of a change that is about to be made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::disk) enum Kind {
    /// A file is opened for writing, and created or emptied.
    Open,
    /// Bytes are written.
    Write,
    /// A file is truncated or extended.
    SetLength,
    /// A file is renamed.
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
    /// The kind.
    pub(in crate::disk) kind: Kind,
    /// The path; for a rename, the new one.
    pub(in crate::disk) path: &'a Path,
}

/// The outcome that replaces a change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::disk) enum Fault {
    /// The change fails with this error. The effect of a failed sync is unknown.
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

/// Starts a new record on this thread. Every file created from now on gets a second name in the directory `vault`: its
/// inode's number. So no inode is used twice, and a file can be put back under its inode.
pub(in crate::disk) fn begin(vault: Option<&Path>) {
    let vault = vault.map(Path::to_owned);
    RECORD.set(Some(Record { operations: Vec::new(), vault }));
}

/// Sets the clock back to its first second, so that the next record has the same times of modification.
pub(in crate::disk) fn reset_clock() {
    SECOND.set(FIRST_SECOND);
}

/// The number of recorded changes.
pub(in crate::disk) fn position() -> usize {
    RECORD.with_borrow(|record| record.as_ref().map_or(0, |record| record.operations.len()))
}

/// Ends the record and the plan of faults. Returns the changes in their order.
pub(in crate::disk) fn end() -> Vec<Operation> {
    PLAN.set(None);
    RECORD.take().map_or_else(Vec::new, |record| record.operations)
}

/// Sets the plan that decides the fault of each following change, until the record ends or another plan is set. It
/// also applies without a record.
pub(in crate::disk) fn plan(decide: impl FnMut(&Attempt<'_>) -> Option<Fault> + 'static) {
    PLAN.set(Some(Box::new(decide)));
}

/// Removes the plan: every change happens.
pub(in crate::disk) fn end_plan() {
    PLAN.set(None);
}

/// Sets the boot id that this thread sees as the machine's; `None` asks the kernel.
pub(in crate::disk) fn set_machine_boot(name: Option<[u8; 16]>) {
    MACHINE_BOOT.set(name);
}

pub(in crate::disk) fn machine_boot() -> Option<[u8; 16]> {
    MACHINE_BOOT.get()
}

pub(in crate::disk) fn is_active() -> bool {
    RECORD.with_borrow(Option::is_some)
}

/// Whether every new file gets a second name in the vault.
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

/// Fails if the plan says so.
pub(in crate::disk) fn attempt(kind: Kind, path: &Path) -> io::Result<()> {
    fate(kind, path).map_or(Ok(()), |fault| Err(error_of(fault)))
}

/// If the plan fails this write: the number of bytes that are written before the error, and the error.
pub(in crate::disk) fn cut_short(path: &Path, length: usize) -> Option<(usize, io::Error)> {
    let fault = fate(Kind::Write, path)?;
    let taken = if let Fault::Full(most) = fault { most.min(length) } else { 0 };
    Some((taken, error_of(fault)))
}

/// Fails if the plan says so, and then records a failed sync, unless the process is killed.
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
