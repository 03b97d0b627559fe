//! All changes to the file system, one function for each kind. No other code of this driver writes, renames or syncs a file, so a
//! record of these calls determines all states that a power cut may leave. In builds without the simulator they are the plain
//! calls.

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

/// How a file is opened for writing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Open {
    /// The file must exist.
    Existing,
    /// The file must not exist, and is created.
    New,
    /// The file is created if it does not exist.
    Keep,
    /// The file is created if it does not exist, and else truncated.
    Empty,
}

/// Opens a file for reading and writing. `mode` is the mode of a created file.
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

/// Moves at most `max` bytes from a pipe into a file, from `offset` on. Returns the number of bytes moved.
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

/// Truncates a file, or extends it by a hole.
pub(super) fn set_length(file: &File, path: &Path, length: u64) -> io::Result<()> {
    #[cfg(any(test, feature = "sim"))]
    record::attempt(Kind::SetLength, path)?;
    file.set_len(length)?;
    #[cfg(any(test, feature = "sim"))]
    record::resized(file, length)?;
    let _ = path;
    Ok(())
}

/// Renames a file. It replaces a file with the new name.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(any(test, feature = "sim"))]
    record::attempt(Kind::Rename, to)?;
    fs::rename(from, to)?;
    #[cfg(any(test, feature = "sim"))]
    record::log(|| Operation::Rename { from: from.to_owned(), to: to.to_owned() });
    Ok(())
}

/// Renames a file to a name that no file has. The error is `AlreadyExists` when a file has it.
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(any(test, feature = "sim"))]
    record::attempt(Kind::Rename, to)?;
    rename_exclusively(from, to)?;
    #[cfg(any(test, feature = "sim"))]
    record::log(|| Operation::Rename { from: from.to_owned(), to: to.to_owned() });
    Ok(())
}

/// A way to rename a file without replacing another. `None` where the system or the file system does not have it, or a filter of
/// system calls forbids it.
type WayToRename = fn(&Path, &Path) -> Option<io::Result<()>>;

/// Renames in the first way that works. None of them loses a file that appears at `to` meanwhile.
pub(crate) fn rename_exclusively(from: &Path, to: &Path) -> io::Result<()> {
    rename_by(&[by_one_call, by_second_name, by_placeholder], from, to)
}

fn rename_by(ways: &[WayToRename], from: &Path, to: &Path) -> io::Result<()> {
    let nothing = || Err(io::ErrorKind::Unsupported.into());
    ways.iter().find_map(|way| way(from, to)).unwrap_or_else(nothing)
}

/// With renameat2(2), which current local file systems support; NFS and some FUSE file systems do not.
fn by_one_call(from: &Path, to: &Path) -> Option<io::Result<()>> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => Some(Ok(())),
        Err(errno) if is_call_refused(errno) => None,
        Err(errno) => Some(Err(errno.into())),
    }
}

/// By a hard link and the removal of the old name. FAT has no hard links.
fn by_second_name(from: &Path, to: &Path) -> Option<io::Result<()>> {
    match fs::hard_link(from, to) {
        Ok(()) => Some(fs::remove_file(from).inspect_err(|_| drop(fs::remove_file(to)))),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Some(Err(error)),
        Err(_) => None,
    }
}

/// By an empty file that takes the name and is then replaced.
fn by_placeholder(from: &Path, to: &Path) -> Option<io::Result<()>> {
    let made =
        File::create_new(to).and_then(|_| fs::rename(from, to).inspect_err(|_| drop(fs::remove_file(to))));
    Some(made)
}

/// Turns a run of zeros into a hole, where the file system supports holes. The content stays the same.
pub(super) fn punch(file: &File, offset: u64, length: u64) {
    #[cfg(any(test, feature = "sim"))]
    if record::is_active() {
        return;
    }
    let _ = fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length);
}

/// Sets the permission bits.
pub(super) fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    file.set_permissions(fs::Permissions::from_mode(mode))
}

/// The number of names of a file, without the one that a record of the changes keeps.
pub(super) fn links(metadata: &Metadata) -> u64 {
    #[cfg(any(test, feature = "sim"))]
    return metadata.nlink().saturating_sub(u64::from(record::keeps_names()));
    #[cfg(not(any(test, feature = "sim")))]
    metadata.nlink()
}

/// Deletes a file, if it exists.
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

/// Creates a directory that only this user may enter.
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

/// Syncs a file's data and length.
pub(super) fn sync_data(file: &File, path: &Path) -> io::Result<()> {
    #[cfg(any(test, feature = "sim"))]
    record::attempt_sync(file, path, Kind::SyncData)?;
    rustix::fs::fdatasync(file)?;
    #[cfg(any(test, feature = "sim"))]
    record::synced(file, path, Kind::SyncData)?;
    let _ = path;
    Ok(())
}

/// Syncs all of a file, including its time of modification: the stamp of a share contains it, and a sync of the data need not write
/// it.
pub(super) fn sync_all(file: &File, path: &Path) -> io::Result<()> {
    #[cfg(any(test, feature = "sim"))]
    record::attempt_sync(file, path, Kind::SyncAll)?;
    file.sync_all()?;
    #[cfg(any(test, feature = "sim"))]
    record::synced(file, path, Kind::SyncAll)?;
    let _ = path;
    Ok(())
}

/// Syncs the whole file system of a file. A record of the changes does not support it, so it fails while one is made.
pub(super) fn sync_file_system(file: &File) -> io::Result<()> {
    #[cfg(any(test, feature = "sim"))]
    if record::is_active() {
        return Err(io::ErrorKind::Unsupported.into());
    }
    rustix::fs::syncfs(file)?;
    Ok(())
}

/// Syncs the names in a directory.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = File::open(path)?;
    #[cfg(any(test, feature = "sim"))]
    record::attempt_sync(&directory, path, Kind::SyncDirectory)?;
    directory.sync_all()?;
    #[cfg(any(test, feature = "sim"))]
    record::synced(&directory, path, Kind::SyncDirectory)?;
    Ok(())
}

/// Syncs the names in a directory that this user may not be allowed to sync. Only an error of the medium counts.
pub(super) fn sync_directory_of_others(path: &Path) -> io::Result<()> {
    match sync_directory(path) {
        Err(error) if is_trouble(&error) => Err(error),
        _ => Ok(()),
    }
}

/// Whether a failed sync may have lost data; else it could not be attempted.
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
    fn no_way_to_rename_replaces_a_file_or_a_dangling_link() {
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
    fn the_next_way_is_used_when_one_is_refused() {
        let refused: WayToRename = |_, _| None;
        let (dir, from, to) = scratch("next");
        rename_by(&[refused, by_second_name], &from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), b"content");
        let error = rename_by(&[refused], &to, &from).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        fs::remove_dir_all(dir).unwrap();
    }
}
