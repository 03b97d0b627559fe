//! The three steps that make a file survive a power cut, always in this order: sync its data, give it its name, sync
//! the directory that has the name. A fourth undoes: after a failed sync, what it covered is deleted, because the
//! kernel may have dropped the pages and would call the next sync a success (Rebello et al., "Can Applications
//! Recover from fsync Failures?", 2020).

use super::layout::temporary;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Step one: a file's data and its length are on the medium.
pub(super) fn sync_data(file: &File, path: &Path) -> io::Result<()> {
    #[cfg(test)]
    script::step(script::Step::Data(path.to_owned()))?;
    let _ = path;
    Ok(rustix::fs::fdatasync(file)?)
}

/// Step two: a file has its name.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(test)]
    script::step(script::Step::Rename(from.to_owned(), to.to_owned()))?;
    fs::rename(from, to)
}

/// Step three: the names in a directory are on the medium.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    #[cfg(test)]
    script::step(script::Step::Directory(path.to_owned()))?;
    File::open(path)?.sync_all()
}

/// Deletes a file; one that is not there is as good as deleted.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// How a file is replaced.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Replace {
    /// All three steps: afterwards the new content is there for good.
    Durably,
    /// Only the name: after a power cut there may be the old content, the new, or a torn one.
    Lightly,
}

/// Replaces what is at `path` by `parts`, one after the other. The file is nobody else's to read.
pub(super) fn replace(path: &Path, parts: &[&[u8]], how: Replace) -> io::Result<()> {
    let fresh = temporary(path);
    let result = write_and_rename(&fresh, path, parts, how);
    if result.is_err() {
        let _ = remove(&fresh);
    }
    result
}

fn write_and_rename(fresh: &Path, path: &Path, parts: &[&[u8]], how: Replace) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(fresh)?;
    parts.iter().try_for_each(|part| file.write_all(part))?;
    if how == Replace::Durably {
        sync_data(&file, fresh)?;
    }
    rename(fresh, path)?;
    match path.parent() {
        Some(parent) if how == Replace::Durably => sync_directory(parent),
        _ => Ok(()),
    }
}

/// What tests know of the steps, and where they make them fail.
#[cfg(test)]
pub(super) mod script {
    use rustix::io::Errno;
    use std::cell::RefCell;
    use std::io;
    use std::path::PathBuf;

    #[derive(Clone, PartialEq, Eq, Debug)]
    pub(in crate::disk) enum Step {
        Data(PathBuf),
        Rename(PathBuf, PathBuf),
        Directory(PathBuf),
    }

    /// Decides for the step of this number whether it fails.
    type Fault = Box<dyn Fn(usize, &Step) -> Option<Errno>>;

    thread_local! {
        static DONE: RefCell<Vec<Step>> = const { RefCell::new(Vec::new()) };
        static FAULT: RefCell<Option<Fault>> = const { RefCell::new(None) };
    }

    pub(super) fn step(step: Step) -> io::Result<()> {
        let number = DONE.with_borrow(Vec::len);
        if let Some(errno) = FAULT.with_borrow(|fault| fault.as_ref().and_then(|fails| fails(number, &step)))
        {
            return Err(errno.into());
        }
        DONE.with_borrow_mut(|done| done.push(step));
        Ok(())
    }

    /// Starts a new record of steps on this thread, with a fault.
    pub(in crate::disk) fn begin(errno: Errno, fails: impl Fn(usize, &Step) -> bool + 'static) {
        DONE.with_borrow_mut(Vec::clear);
        FAULT.set(Some(Box::new(move |number, step| fails(number, step).then_some(errno))));
    }

    /// Ends the fault and returns the steps that were done.
    pub(in crate::disk) fn end() -> Vec<Step> {
        FAULT.set(None);
        DONE.take()
    }
}
