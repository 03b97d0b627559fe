//! Names of downloads: where the final one leads, what the file is called until then, and how it gets the final one.

use super::{Look, Target};
use crate::disk::error::{failed, refused};
use crate::disk::extent::stamp_of;
use crate::disk::files;
use crate::id::Key;
use crate::io::{DiskError, DiskErrorKind, DiskReply, Mode};
use rustix::fs::{Access, AtFlags, CWD, StatxAttributes, StatxFlags, access, statx};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The longest name that Linux takes, in bytes.
const NAME_BYTES_MAX: usize = 255;
/// As many symbolic links as Linux follows.
const LINKS_MAX: usize = 40;
const PART: &str = ".part";

/// Where a download goes, and what is there.
pub(super) struct Final {
    /// The name behind all symbolic links.
    pub(super) name: PathBuf,
    /// The regular file that has it.
    pub(super) existing: Option<Metadata>,
}

/// Follows `target` to the name that the download will have. What can be known to fail at the end fails here.
pub(super) fn resolve(target: &Path, force: bool) -> Result<Final, DiskError> {
    let found = follow(target)?;
    if found.existing.is_none() && found.name != target && !force {
        let what = "is a symbolic link to nothing: --force makes the file that it points to";
        return Err(refused(DiskErrorKind::Exists, target, what));
    }
    let (name, existing) = (&found.name, &found.existing);
    if existing.as_ref().is_some_and(Metadata::is_dir) {
        return Err(refused(DiskErrorKind::Unsuitable, name, "is a directory"));
    }
    if existing.as_ref().is_some_and(|there| !there.is_file()) {
        let what = "is no regular file: write to it with -o - and a redirection";
        return Err(refused(DiskErrorKind::Unsuitable, name, what));
    }
    let parent = name.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !parent.is_dir() {
        return Err(refused(DiskErrorKind::NotFound, parent, "is no directory that is there"));
    }
    access(parent, Access::WRITE_OK | Access::EXEC_OK)
        .map_err(|errno| failed("write into", parent, errno))?;
    if existing.is_some() && is_mount_point(name) {
        let what = "is a mount point and cannot be replaced: write to it with -o - and a redirection";
        return Err(refused(DiskErrorKind::Unsuitable, name, what));
    }
    Ok(found)
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

/// Whether another file system, or a part of one, is mounted over a file: it cannot be renamed over then.
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

/// What the file may be called until it is complete, the first that is to be had. The second has the file's own hash in its
/// name: it is no other program's, and no other file's.
pub(super) fn candidates(name: &Path, hash: &Key) -> [PathBuf; 2] {
    let (hash, file_name) = (hash.to_string(), name.file_name().unwrap_or_default());
    let with = |middle: &str| {
        let mut long = OsString::from(file_name);
        long.push(middle);
        long.push(PART);
        match long.len() <= NAME_BYTES_MAX {
            true => name.with_file_name(long),
            // The name's hash in place of the name.
            false => name.with_file_name(short(file_name.as_encoded_bytes(), middle)),
        }
    };
    [with(""), with(&format!(".{}", &hash[..16]))]
}

fn short(name: &[u8], middle: &str) -> String {
    format!("{}{middle}{PART}", &blake3::hash(name).to_hex()[..32])
}

/// The same, for file systems whose names are shorter.
pub(super) fn shorter(name: &Path, hash: &Key) -> PathBuf {
    let file_name = name.file_name().unwrap_or_default().as_encoded_bytes();
    name.with_file_name(short(file_name, &format!(".{}", &hash.to_string()[..16])))
}

/// Gives a complete file its final name.
pub(super) fn give(target: &Target, mode: Mode) -> Result<DiskReply, DiskError> {
    let (path, name) = (&target.path, &target.name);
    let tried = |error: io::Error| failed("create", name, error);
    if !target.has_name(path) {
        let what = "was removed or replaced during the download";
        return Err(refused(DiskErrorKind::Lost, path, what));
    }
    let before = target.file.metadata().map_err(tried)?;
    let made = before.permissions().mode() & 0o777;
    if mode.applied_to(made) != made {
        // The mode is a hint: the content is what was asked for, whether or not it can be executed.
        let _ = files::set_mode(&target.file, mode.applied_to(made));
    }
    if path != name {
        match name.symlink_metadata() {
            Ok(there) if target.force => {
                if there.is_file() {
                    // The content is another, so what it may do for its owner is not carried over: no set-user-ID.
                    let mode = there.permissions().mode() & 0o777;
                    let _ = files::set_mode(&target.file, mode);
                }
                files::rename(path, name).map_err(tried)?;
            }
            _ => files::rename_new(path, name).map_err(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => refused(
                    DiskErrorKind::Exists,
                    name,
                    "was made by another program during the download: replace it with --force, or name another \
                     with -o",
                ),
                _ => tried(error),
            })?,
        }
    }
    let after = target.file.metadata().map_err(tried)?;
    let (was, is) = (Look::of(&before), Look::of(&after));
    if !target.has_name(name) || (was.length, was.modified) != (is.length, is.modified) {
        let what = "was changed by another program as it got its name: do not trust it";
        return Err(refused(DiskErrorKind::Lost, name, what));
    }
    Ok(DiskReply::Finished { stamp: stamp_of(&after), path: name.clone() })
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
