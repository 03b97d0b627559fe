//! Every change to the file system, one function a kind. Nothing else in this driver writes, names or syncs a file, so
//! what a power cut may leave behind can be worked out from a record of these calls alone. In builds without the
//! simulator they are the plain calls.

use super::error::is_call_refused;
#[cfg(any(test, feature = "sim"))]
use super::power_loss::record::{self, Kind, Operation};
use rustix::fd::AsFd;
use rustix::fs::{CWD, FallocateFlags, OFlags, RenameFlags, fallocate, renameat_with};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// What a file that is opened to be written must be like.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Open {
    /// It is there.
    Existing,
    /// It is not there, and is made.
    New,
    /// It is made when it is not there.
    Keep,
    /// It is made when it is not there, and emptied when it is.
    Empty,
}

/// Opens a file for reading and writing. `mode` is for one that is made.
pub(super) fn open(path: &Path, how: Open, mode: u32, flags: OFlags) -> io::Result<File> {
    #[cfg(any(test, feature = "sim"))]
    let new = {
        record::attempt(Kind::Open, path)?;
        record::is_active() && path.symlink_metadata().is_err()
    };
    let mut options = OpenOptions::new();
    options.read(true).write(true).truncate(how == Open::Empty);
    options.create(matches!(how, Open::Keep | Open::Empty)).create_new(how == Open::New);
    let file = options.mode(mode).custom_flags(flags.bits() as i32).open(path)?;
    #[cfg(any(test, feature = "sim"))]
    record::opened(&file, path, new, how == Open::Empty)?;
    Ok(file)
}

/// Writes all of `bytes` from `offset` on.
pub(super) fn write_at(file: &File, path: &Path, bytes: &[u8], offset: u64) -> io::Result<()> {
    #[cfg(any(test, feature = "sim"))]
    if let Some((taken, error)) = record::cut_short(path, bytes.len()) {
        if taken > 0 {
            file.write_all_at(&bytes[..taken], offset)?;
            record::written(file, &bytes[..taken], offset)?;
        }
        return Err(error);
    }
    file.write_all_at(bytes, offset)?;
    #[cfg(any(test, feature = "sim"))]
    record::written(file, bytes, offset)?;
    let _ = path;
    Ok(())
}

/// Moves at most `max` bytes of what is in a pipe into a file, from `offset` on; how many it moved.
pub(super) fn splice_at(
    pipe: impl AsFd,
    file: &File,
    path: &Path,
    offset: u64,
    max: usize,
) -> io::Result<usize> {
    let moved = |max: usize| -> io::Result<usize> {
        let mut end = offset;
        let moved = splice(&pipe, None, file, Some(&mut end), max, SpliceFlags::empty())?;
        #[cfg(any(test, feature = "sim"))]
        if record::is_active() {
            let mut bytes = vec![0; moved];
            file.read_exact_at(&mut bytes, offset)?;
            record::written(file, &bytes, offset)?;
        }
        Ok(moved)
    };
    #[cfg(any(test, feature = "sim"))]
    record::attempt(Kind::Splice, path)?;
    #[cfg(any(test, feature = "sim"))]
    if let Some((taken, error)) = record::cut_short(path, max) {
        if taken > 0 {
            moved(taken)?;
        }
        return Err(error);
    }
    let _ = path;
    moved(max)
}

/// Cuts a file off, or lets it grow by a hole.
pub(super) fn set_length(file: &File, path: &Path, length: u64) -> io::Result<()> {
    #[cfg(any(test, feature = "sim"))]
    record::attempt(Kind::SetLength, path)?;
    file.set_len(length)?;
    #[cfg(any(test, feature = "sim"))]
    record::resized(file, length)?;
    let _ = path;
    Ok(())
}

/// Gives a file another name, which may have been another file's.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(any(test, feature = "sim"))]
    record::attempt(Kind::Rename, to)?;
    fs::rename(from, to)?;
    #[cfg(any(test, feature = "sim"))]
    record::log(|| Operation::Rename { from: from.to_owned(), to: to.to_owned() });
    Ok(())
}

/// Gives a file another name, which no file may have. The error is `AlreadyExists` when one has it.
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(any(test, feature = "sim"))]
    record::attempt(Kind::Rename, to)?;
    rename_exclusively(from, to)?;
    #[cfg(any(test, feature = "sim"))]
    record::log(|| Operation::Rename { from: from.to_owned(), to: to.to_owned() });
    Ok(())
}

/// A way to give a file a name that no file has. `None` where the system or the file system knows no such way, or a filter of
/// system calls forbids it.
type WayToRename = fn(&Path, &Path) -> Option<io::Result<()>>;

/// Renames in the first way that there is. In none of them does a file that appears at `to` meanwhile get lost.
pub(crate) fn rename_exclusively(from: &Path, to: &Path) -> io::Result<()> {
    rename_by(&[by_one_call, by_second_name, by_placeholder], from, to)
}

fn rename_by(ways: &[WayToRename], from: &Path, to: &Path) -> io::Result<()> {
    let nothing = || Err(io::ErrorKind::Unsupported.into());
    ways.iter().find_map(|way| way(from, to)).unwrap_or_else(nothing)
}

/// What every local file system of today has; NFS and some of FUSE's have not.
fn by_one_call(from: &Path, to: &Path) -> Option<io::Result<()>> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Some(Ok(())),
        Err(errno) if is_call_refused(errno) => None,
        Err(errno) => Some(Err(errno.into())),
    }
}

/// Makes a second name and takes the first away. FAT has no second names.
fn by_second_name(from: &Path, to: &Path) -> Option<io::Result<()>> {
    match fs::hard_link(from, to) {
        Ok(()) => Some(fs::remove_file(from).inspect_err(|_| drop(fs::remove_file(to)))),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Some(Err(error)),
        Err(_) => None,
    }
}

/// Takes the name with an empty file, which is replaced.
fn by_placeholder(from: &Path, to: &Path) -> Option<io::Result<()>> {
    let made =
        File::create_new(to).and_then(|_| fs::rename(from, to).inspect_err(|_| drop(fs::remove_file(to))));
    Some(made)
}

/// Makes a hole of a run of zeros, where the file system knows holes. What is read stays the same.
pub(super) fn punch(file: &File, offset: u64, length: u64) {
    #[cfg(any(test, feature = "sim"))]
    if record::is_active() {
        return;
    }
    let _ = fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length);
}

/// Sets what the owner, the group and others may do.
pub(super) fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    file.set_permissions(fs::Permissions::from_mode(mode))
}

/// How many names a file has. The one that a record keeps for itself does not count.
pub(super) fn links(metadata: &Metadata) -> u64 {
    #[cfg(any(test, feature = "sim"))]
    return metadata.nlink().saturating_sub(u64::from(record::keeps_names()));
    #[cfg(not(any(test, feature = "sim")))]
    metadata.nlink()
}

/// Deletes a file; one that is not there is as good as deleted.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    #[cfg(any(test, feature = "sim"))]
    record::attempt(Kind::Remove, path)?;
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        result => result?,
    }
    #[cfg(any(test, feature = "sim"))]
    record::log(|| Operation::Remove { path: path.to_owned() });
    Ok(())
}

/// Makes one directory that only this user enters.
pub(super) fn make_directory(path: &Path) -> io::Result<()> {
    #[cfg(any(test, feature = "sim"))]
    record::attempt(Kind::MakeDirectory, path)?;
    DirBuilder::new().mode(0o700).create(path)?;
    #[cfg(any(test, feature = "sim"))]
    record::log(|| Operation::MakeDirectory { path: path.to_owned() });
    Ok(())
}

/// Deletes an empty directory.
pub(super) fn remove_directory(path: &Path) -> io::Result<()> {
    #[cfg(any(test, feature = "sim"))]
    record::attempt(Kind::RemoveDirectory, path)?;
    fs::remove_dir(path)?;
    #[cfg(any(test, feature = "sim"))]
    record::log(|| Operation::RemoveDirectory { path: path.to_owned() });
    Ok(())
}

/// Has a file's data and length on the medium.
pub(super) fn sync_data(file: &File, path: &Path) -> io::Result<()> {
    #[cfg(any(test, feature = "sim"))]
    record::attempt_sync(file, path, Kind::SyncData)?;
    rustix::fs::fdatasync(file)?;
    #[cfg(any(test, feature = "sim"))]
    record::synced(file, path, Kind::SyncData)?;
    let _ = path;
    Ok(())
}

/// Has all of a file on the medium, its time of modification too: shares are known by that, and a sync of the data
/// alone need not write it.
pub(super) fn sync_all(file: &File, path: &Path) -> io::Result<()> {
    #[cfg(any(test, feature = "sim"))]
    record::attempt_sync(file, path, Kind::SyncAll)?;
    file.sync_all()?;
    #[cfg(any(test, feature = "sim"))]
    record::synced(file, path, Kind::SyncAll)?;
    let _ = path;
    Ok(())
}

/// Has everything that was written to a file's file system on the medium. A record of changes knows no such call, so while
/// one is made it fails.
pub(super) fn sync_file_system(file: &File) -> io::Result<()> {
    #[cfg(any(test, feature = "sim"))]
    if record::is_active() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    rustix::fs::syncfs(file)?;
    Ok(())
}

/// Has the names in a directory on the medium.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = File::open(path)?;
    #[cfg(any(test, feature = "sim"))]
    record::attempt_sync(&directory, path, Kind::SyncDirectory)?;
    directory.sync_all()?;
    #[cfg(any(test, feature = "sim"))]
    record::synced(&directory, path, Kind::SyncDirectory)?;
    Ok(())
}

/// Has the names in a directory on the medium that need not be this user's to sync. Only trouble with the medium counts.
pub(super) fn sync_directory_of_others(path: &Path) -> io::Result<()> {
    match sync_directory(path) {
        Err(error) if is_trouble(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Whether what a sync covered may be lost, rather than that nothing could be synced.
fn is_trouble(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::IO | Errno::NOSPC | Errno::DQUOT))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAYS: [WayToRename; 3] = [by_one_call, by_second_name, by_placeholder];

    /// A directory with a file in it, and a name that no file has.
    fn scratch(name: &str) -> (std::path::PathBuf, std::path::PathBuf, std::path::PathBuf) {
        let dir = std::env::temp_dir().join(format!("elver-rename-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (from, to) = (dir.join("from"), dir.join("to"));
        fs::write(&from, "content").unwrap();
        (dir, from, to)
    }

    #[test]
    fn every_way_to_rename_gives_the_name_and_leaves_nothing_under_the_first() {
        for (index, way) in WAYS.iter().enumerate() {
            let (dir, from, to) = scratch(&format!("gives-{index}"));
            way(&from, &to).expect("a way").unwrap();
            assert_eq!(fs::read(&to).unwrap(), b"content", "way {index}");
            assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "way {index}");
            fs::remove_dir_all(dir).unwrap();
        }
    }

    #[test]
    fn no_way_to_rename_takes_the_place_of_a_file_or_of_a_link_to_nothing() {
        for (index, way) in WAYS.iter().enumerate() {
            for dangling in [false, true] {
                let (dir, from, to) = scratch(&format!("takes-{index}-{dangling}"));
                match dangling {
                    true => std::os::unix::fs::symlink(dir.join("nothing"), &to).unwrap(),
                    false => fs::write(&to, "mine").unwrap(),
                }
                let error = way(&from, &to).expect("a way").unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::AlreadyExists, "way {index}");
                assert_eq!(to.symlink_metadata().unwrap().is_symlink(), dangling, "way {index}");
                assert_eq!(fs::read(&from).unwrap(), b"content", "way {index}");
                fs::remove_dir_all(dir).unwrap();
            }
        }
    }

    #[test]
    fn a_failed_rename_leaves_no_placeholder() {
        let (dir, from, to) = scratch("placeholder");
        fs::remove_file(&from).unwrap();
        assert!(by_placeholder(&from, &to).expect("a way").is_err());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_way_that_is_refused_gives_place_to_the_next() {
        let refused: WayToRename = |_, _| None;
        let (dir, from, to) = scratch("next");
        rename_by(&[refused, by_second_name], &from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"content");
        let error = rename_by(&[refused], &to, &from).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        fs::remove_dir_all(dir).unwrap();
    }
}
