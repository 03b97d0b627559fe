//! A user's file, opened to be hashed and shared: by its path, or by a descriptor that the user's program passed.

use super::error::{failed, refused};
use super::extent::{open_regular, stamp_of};
use super::own::Own;
use crate::io::{DiskError, DiskErrorKind, FileStamp};
use rustix::fs::fstatfs;
use std::fs::{File, Metadata};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// File systems that the kernel makes up as they are read, by the number that `statfs` gives (linux/magic.h). The lengths
/// of their files mean nothing, and what one read says the next may not.
const MADE_UP: &[(u32, &str)] = &[
    (0x9fa0, "procfs"),
    (0x6265_6572, "sysfs"),
    (0x6462_6720, "debugfs"),
    (0x7472_6163, "tracefs"),
    (0x0027_e0eb, "cgroup"),
    (0x6367_7270, "cgroup2"),
    (0x7363_6673, "securityfs"),
    (0xf97c_ff8c, "selinuxfs"),
    (0x4341_5d53, "smackfs"),
    (0x5a3c_69f0, "apparmorfs"),
    (0x6265_6570, "configfs"),
    (0x6165_676c, "pstore"),
    (0xde5e_81e4, "efivarfs"),
    (0xcafe_4a11, "bpf"),
    (0x6e73_6673, "nsfs"),
    (0x6573_5543, "fusectl"),
    (0x4249_4e4d, "binfmt_misc"),
    (0x1980_0202, "mqueue"),
    (0x0765_5821, "resctrl"),
    (0x0000_1cd1, "devpts"),
];

/// A file of a user's that is suitable to be shared, open.
#[derive(Clone)]
pub(super) struct Source {
    /// Where it lies, as the user named it.
    pub(super) path: PathBuf,
    pub(super) file: Arc<File>,
    pub(super) metadata: Metadata,
    /// Only the passed descriptor reaches it: this process may not open the path.
    pub(super) only_passed: bool,
}

impl Source {
    /// Opens the file at `path`. `passed` is the descriptor of a program that has opened it already; the path has to
    /// lead to the same file, so that what is shared is what the user named.
    pub(super) fn open(path: PathBuf, passed: Option<File>, own: &Own) -> Result<Self, DiskError> {
        let (file, metadata, only_passed) = match passed {
            Some(passed) => match_passed(&path, passed)?,
            None => open_regular(&path).map(|(file, metadata)| (file, metadata, false))?,
        };
        own.refuse_source(&path, &metadata)?;
        if let Some(name) = made_up(&file) {
            let what =
                format_args!("is made up by the kernel ({name}) and does not tell its length: {COPY_IT}");
            return Err(refused(DiskErrorKind::Unsuitable, &path, what));
        }
        Ok(Source { path, file: Arc::new(file), metadata, only_passed })
    }

    /// What it looks like by its name: a file that was replaced meanwhile is not the one that was opened.
    pub(super) fn stamp_by_name(&self) -> Result<FileStamp, DiskError> {
        let metadata = match self.only_passed {
            true => self.file.metadata(),
            false => self.path.metadata(),
        };
        let metadata = metadata.map_err(|error| failed("read", &self.path, error))?;
        // Two files that are written at the same time look the same; while one is open its number is its own.
        let same = (metadata.dev(), metadata.ino()) == (self.metadata.dev(), self.metadata.ino());
        Ok(if same { stamp_of(&metadata) } else { FileStamp::default() })
    }

    /// Whether there is nothing after the last byte that it is said to have. A file system may tell 0, or an old length,
    /// and give more.
    pub(super) fn check_end(&self) -> Result<(), DiskError> {
        let read = self.file.read_at(&mut [0], self.metadata.len());
        match read.map_err(|error| failed("read", &self.path, error))? {
            0 => Ok(()),
            _ => Err(self.misfit("longer")),
        }
    }

    /// The error for a file that is `longer` or `shorter` than it was said to be: it changed, or its length is a lie.
    pub(super) fn misfit(&self, how: &str) -> DiskError {
        let length = self.metadata.len();
        match self.file.metadata() {
            Ok(now) if now.len() == length => {
                let what = format_args!("says that it has {length} bytes and is {how} than that: {COPY_IT}");
                refused(DiskErrorKind::Unsuitable, &self.path, what)
            }
            _ => refused(DiskErrorKind::Changed, &self.path, format_args!("became {how} while it was read")),
        }
    }
}

const COPY_IT: &str = "copy it to a regular file and put that";

/// The passed file, if the path leads to it as this process sees the world; and whether only the descriptor reaches it.
fn match_passed(path: &Path, passed: File) -> Result<(File, Metadata, bool), DiskError> {
    let metadata = passed.metadata().map_err(|error| failed("read", path, error))?;
    if !metadata.is_file() {
        return Err(refused(DiskErrorKind::Unsuitable, path, "is not a regular file"));
    }
    if metadata.nlink() == 0 {
        return Err(refused(
            DiskErrorKind::NotFound,
            path,
            "has no name any more: it was deleted or never had one",
        ));
    }
    match open_regular(path) {
        Ok((_, named)) if (named.dev(), named.ino()) == (metadata.dev(), metadata.ino()) => {
            Ok((passed, metadata, false))
        }
        Ok(_) => Err(refused(
            DiskErrorKind::Unsuitable,
            path,
            "is another file for the node than for you: it was replaced just now, or the node sees other mounts",
        )),
        Err(error) if error.kind == DiskErrorKind::Denied => {
            // Its name can be told apart as long as its directory may be searched.
            match path.metadata() {
                Ok(named) if (named.dev(), named.ino()) != (metadata.dev(), metadata.ino()) => {
                    Err(refused(DiskErrorKind::Unsuitable, path, "is another file for the node than for you"))
                }
                _ => Ok((passed, metadata, true)),
            }
        }
        Err(error) => Err(error),
    }
}

/// The name of the file system, when the kernel makes its files up.
fn made_up(file: &File) -> Option<&'static str> {
    let magic = fstatfs(file).ok()?.f_type as u32;
    MADE_UP.iter().find(|(number, _)| *number == magic).map(|(_, name)| *name)
}
