//! The names of a target: the final name behind links, the temporary name until it is complete, and the rename.

use super::Target;
use crate::disk::error::{failed, refused};
use crate::disk::extent::stamp_of;
use crate::disk::files;
use crate::id::Key;
use crate::io::{DiskError, DiskErrorKind, DiskReply, Permissions};
use rustix::fs::{
    Access, AtFlags, CWD, FileType, Mode, OFlags, StatxAttributes, StatxFlags, Timespec, Timestamps,
    UTIME_OMIT, access, futimens, openat, statat, statx,
};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

/// The longest name that Linux accepts, in bytes.
const NAME_BYTES_MAX: usize = 255;
/// The number of symbolic links that Linux follows.
const LINKS_MAX: usize = 40;
const PART: &str = ".part";
/// The owner's permissions until a file is complete, whatever its final mode.
pub(super) const OWNER_WRITES: u32 = 0o600;
/// The operation in the error when a mode is refused.
const PERMIT: &str = "set the mode of";

/// The final name of a download.
pub(super) struct Final {
    /// The name behind all symbolic links.
    pub(super) name: PathBuf,
    /// The metadata of the existing file with this name.
    pub(super) existing: Option<Metadata>,
}

/// Follows `target` to the final name of the download. Returns every foreseeable error of the final rename.
pub(super) fn resolve(target: &Path, force: bool) -> Result<Final, DiskError> {
    let found = follow(target)?;
    if found.existing.is_none() && found.name != target && !force {
        let what = "is a dangling symbolic link: use --force to create the file that it points to";
        return Err(refused(DiskErrorKind::Exists, target, what));
    }
    let (name, existing) = (&found.name, &found.existing);
    if existing.as_ref().is_some_and(Metadata::is_dir) {
        return Err(refused(DiskErrorKind::Unsuitable, name, "is a directory"));
    }
    if existing.as_ref().is_some_and(|there| !there.is_file()) {
        let what = "is not a regular file: write to it with -o - and a redirection";
        return Err(refused(DiskErrorKind::Unsuitable, name, what));
    }
    let parent = name.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !parent.is_dir() {
        return Err(refused(DiskErrorKind::NotFound, parent, "is not an existing directory"));
    }
    access(parent, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|errno| failed("write into", parent, errno))?;
    if existing.is_some() && is_mount_point(name) {
        let what = "is a mount point and cannot be replaced: write to it with -o - and a redirection";
        return Err(refused(DiskErrorKind::Unsuitable, name, what));
    }
    Ok(found)
}

/// Refuses a target outside the tree of `root`: one with a symbolic link below the root on its path, or as its name.
pub(super) fn stays_in(root: &Path, target: &Path) -> Result<(), DiskError> {
    let outside = |path: &Path| {
        let what = "is a symbolic link, which leads out of the set's directory: remove it";
        Err(refused(DiskErrorKind::Unsuitable, path, what))
    };
    let mut here = root.to_owned();
    let mut directory =
        open_directory(CWD, root, OFlags::empty()).map_err(|errno| failed("open", root, errno))?;
    let (Ok(place), Some(name)) = (target.strip_prefix(root), target.file_name()) else {
        return outside(target);
    };
    for component in place.parent().into_iter().flat_map(Path::components) {
        here.push(component);
        let Component::Normal(component) = component else { return outside(&here) };
        directory = match open_directory(&directory, Path::new(component), OFlags::NOFOLLOW) {
            Ok(next) => next,
            Err(Errno::LOOP | Errno::NOTDIR) if here.is_symlink() => return outside(&here),
            Err(errno) => return Err(failed("open", &here, errno)),
        };
    }
    match statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(there) if FileType::from_raw_mode(there.st_mode) == FileType::Symlink => outside(target),
        _ => Ok(()),
    }
}

fn open_directory(at: impl AsFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    openat(at, path, flags | OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Sets a file's time of modification. An error is ignored: a time that its file system cannot keep only makes the next comparison
/// slower.
pub(super) fn date(file: &File, path: &Path, seconds: i64) {
    let last_modification = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    if let Err(errno) = futimens(file, &Timestamps { last_access, last_modification }) {
        log::info!("cannot set the time of {}: {errno}", path.display());
    }
}

fn follow(target: &Path) -> Result<Final, DiskError> {
    let mut name = target.to_owned();
    for _ in 0..=LINKS_MAX {
        match name.symlink_metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Final { name, existing: None });
            }
            Err(error) => return Err(failed("read", &name, error)),
            Ok(metadata) if metadata.is_symlink() => {
                let to = name.read_link().map_err(|error| failed("read", &name, error))?;
                name = name.parent().unwrap_or(Path::new("/")).join(to);
            }
            Ok(metadata) => return Ok(Final { name, existing: Some(metadata) }),
        }
    }
    Err(failed("read", target, Errno::LOOP))
}

/// Whether a file is a mount point, which a rename cannot replace.
fn is_mount_point(name: &Path) -> bool {
    let known = statx(CWD, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()).ok();
    let known = known.filter(|found| found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT));
    match known {
        Some(found) => found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
        // Kernels before 5.8.
        None => std::fs::read_to_string("/proc/self/mountinfo").is_ok_and(|table| is_listed(name, &table)),
    }
}

/// Whether a table of mounts, as proc(5) describes it, has this path.
fn is_listed(name: &Path, table: &str) -> bool {
    let Some(name) = name.to_str() else { return false };
    let escape = |character: char| match character {
        ' ' | '\t' | '\n' | '\\' => format!("\\{:03o}", u32::from(character)),
        other => other.to_string(),
    };
    let escaped: String = name.chars().map(escape).collect();
    table.lines().any(|line| line.split(' ').nth(4) == Some(&escaped))
}

/// The temporary names, in order of preference. The second contains the file's hash, so it belongs to no other program and no other
/// file.
pub(super) fn candidates(name: &Path, hash: &Key) -> [PathBuf; 2] {
    let (hash, file_name) = (hash.to_string(), name.file_name().unwrap_or_default());
    let with = |middle: &str| {
        let mut long = OsString::from(file_name);
        long.push(middle);
        long.push(PART);
        match long.len() <= NAME_BYTES_MAX {
            true => name.with_file_name(long),
            // The name is too long: its hash replaces it.
            false => name.with_file_name(short(file_name.as_encoded_bytes(), middle)),
        }
    };
    [with(""), with(&format!(".{}", &hash[..16]))]
}

fn short(name: &[u8], middle: &str) -> String {
    format!("{}{middle}{PART}", &blake3::hash(name).to_hex()[..32])
}

/// A temporary name for file systems with a lower limit on names.
pub(super) fn shorter(name: &Path, hash: &Key) -> PathBuf {
    let file_name = name.file_name().unwrap_or_default().as_encoded_bytes();
    name.with_file_name(short(file_name, &format!(".{}", &hash.to_string()[..16])))
}

/// Tests before the download whether the file accepts the requested permissions. Until the file is complete its owner may still
/// write into it, because a later attempt opens it again.
pub(super) fn try_permissions(file: &File, path: &Path, permissions: Permissions) -> Result<(), DiskError> {
    permit(file, path, permissions)?;
    let Permissions::Exact(mode) = permissions else { return Ok(()) };
    let bits = mode.bits().unwrap_or(0);
    match bits & OWNER_WRITES == OWNER_WRITES {
        true => Ok(()),
        false => files::set_mode(file, bits | OWNER_WRITES).map_err(|error| failed(PERMIT, path, error)),
    }
}

/// Gives a file the permissions that the user requested, if any.
pub(super) fn permit(file: &File, path: &Path, permissions: Permissions) -> Result<(), DiskError> {
    let Permissions::Exact(mode) = permissions else { return Ok(()) };
    let bits = mode.bits().unwrap_or(0);
    let tried = |error: io::Error| failed(PERMIT, path, error);
    let has = || file.metadata().map(|metadata| metadata.permissions().mode() & 0o7777).map_err(tried);
    if has()? == bits {
        return Ok(());
    }
    files::set_mode(file, bits).map_err(tried)?;
    match has()? == bits {
        true => Ok(()),
        false => {
            let what =
                format!("cannot have the mode {bits:03o}: its file system keeps no modes, leave --mode out");
            Err(refused(DiskErrorKind::Unsuitable, path, what))
        }
    }
}

/// Gives a complete file its final name.
pub(super) fn give(target: &Target) -> Result<(), DiskError> {
    let (path, name) = (&target.path, &target.name);
    let tried = |error: io::Error| failed("create", name, error);
    if !target.has_name(path) {
        let what = "was removed or replaced during the download";
        return Err(refused(DiskErrorKind::Lost, path, what));
    }
    let replaced = target.force.then(|| name.symlink_metadata().ok()).flatten();
    let replaced = replaced.filter(|there| path != name && there.is_file());
    match target.permissions {
        exact @ Permissions::Exact(_) => permit(&target.file, path, exact)?,
        Permissions::Usual(elsewhere) => {
            let has = target.file.metadata().map_err(tried)?.permissions().mode() & 0o7777;
            let mode = match replaced {
                // The content is new, so the set-user-ID, set-group-ID and sticky bits are not kept.
                Some(there) => there.permissions().mode() & 0o777,
                None => elsewhere.applied_to(has & 0o777),
            };
            if mode != has {
                // An error is ignored: the mode is only a hint.
                let _ = files::set_mode(&target.file, mode);
            }
        }
    }
    let result = match target.force {
        _ if path == name => return Ok(()),
        true => files::rename(path, name),
        false => files::rename_new(path, name),
    };
    if result.is_ok() && target.has_name(path) {
        // Both were hard links to this file, and rename(2) does nothing then.
        let _ = files::remove(path);
    }
    result.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => refused(
            DiskErrorKind::Exists,
            name,
            "was created by another program during the download: replace it with --force, or choose another path with -o",
        ),
        _ => tried(error),
    })
}

/// The answer for a file that has its final name.
pub(super) fn finished(target: &Target) -> Result<DiskReply, DiskError> {
    let name = &target.name;
    let metadata = target.file.metadata().map_err(|error| failed("read", name, error))?;
    match target.has_name(name) {
        true => Ok(DiskReply::Finished { stamp: stamp_of(&metadata), path: name.clone() }),
        false => {
            let what = "was moved or replaced by another program as soon as it had its name";
            Err(refused(DiskErrorKind::Lost, name, what))
        }
    }
}

/// Takes the final name back from a file with wrong content, and gives it its temporary name again.
pub(super) fn take_back(target: &Target) -> Result<(), DiskError> {
    let (path, name) = (&target.path, &target.name);
    let lost = |what: &str| Err(refused(DiskErrorKind::Lost, name, what));
    if path == name {
        return Ok(());
    }
    if !target.has_name(name) {
        return lost("was changed, and moved or replaced, by another program as soon as it had its name");
    }
    let taken = match target.has_name(path) {
        // Another program linked the file to its temporary name again, or this node could not remove that name.
        true => files::remove(name),
        false => files::rename_new(name, path),
    };
    if let Err(error) = taken {
        let what = format!(
            "was changed by another program as it got its name, and has wrong content: do not use it (it cannot be called \
             {} again: {error})",
            path.display()
        );
        return lost(&what);
    }
    if !target.has_name(path) {
        // The renamed file belongs to another program: it gets its name back.
        let _ = files::rename_new(path, name);
        return lost("was replaced by another program as soon as it had its name");
    }
    log::warn!(
        "{} was changed by another program as it got its name: the name is taken back, and the file is {} again",
        name.display(),
        path.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_is_found_in_the_table_of_mounts() {
        let table = "22 1 8:1 / / rw - ext4 /dev/a rw\n40 22 8:1 /x /a\\040b rw,relatime - ext4 /dev/a rw\n";
        assert!(is_listed(Path::new("/a b"), table) && is_listed(Path::new("/"), table));
        assert!(!is_listed(Path::new("/a"), table) && !is_listed(Path::new("/x"), table));
    }

    #[test]
    fn long_names_have_short_ones_until_they_are_complete_and_no_two_the_same() {
        let hash = Key([0xab; 32]);
        let plain = candidates(Path::new("/u/f.tar"), &hash);
        assert_eq!(plain[0], Path::new("/u/f.tar.part"));
        assert_eq!(plain[1], Path::new("/u/f.tar.abababababababab.part"));
        let mut seen = std::collections::BTreeSet::new();
        for length in 230..=255 {
            for last in ["x", "y"] {
                let name = format!("/u/{}{last}", "n".repeat(length - 1));
                for part in candidates(Path::new(&name), &hash) {
                    assert!(part.file_name().unwrap().len() <= NAME_BYTES_MAX);
                    assert!(seen.insert(part));
                }
            }
        }
    }
}
