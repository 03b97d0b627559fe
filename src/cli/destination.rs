//! The destination of content: a descriptor or a device, which is written to in place, or a file that gets its name at the end.

use super::exit::CommandError;
use super::output::shown;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Component, Path, PathBuf};

/// The descriptor that a path names, such as /dev/stdout or /dev/fd/3.
fn descriptor(path: &Path) -> Option<u32> {
    match path.to_str()? {
        "/dev/stdout" => Some(1),
        "/dev/stderr" => Some(2),
        path => path.strip_prefix("/dev/fd/").or_else(|| path.strip_prefix("/proc/self/fd/"))?.parse().ok(),
    }
}

/// Whether a path is written to in place and never replaced: a descriptor, a pipe, a terminal or another device.
pub(super) fn is_special(path: &Path) -> bool {
    let device = |metadata: Metadata| metadata.file_type().is_fifo() || metadata.file_type().is_char_device();
    descriptor(path).is_some() || path.metadata().is_ok_and(device)
}

pub(super) fn open_special(path: &Path) -> Result<File, CommandError> {
    let opened = match descriptor(path) {
        Some(1) => io::stdout().as_fd().try_clone_to_owned().map(File::from),
        Some(2) => io::stderr().as_fd().try_clone_to_owned().map(File::from),
        // The earlier content of an open file belongs to the user, so it is not truncated.
        Some(number) => File::options().append(true).open(format!("/proc/self/fd/{number}")),
        None => File::options().write(true).open(path),
    };
    opened.map_err(|error| CommandError::failed(format!("cannot write to {}: {error}", shown(path))))
}

/// The absolute path of a download's target. The node decides about a file that has the name already.
pub(super) fn target(output: &Path) -> Result<PathBuf, CommandError> {
    let cannot = |reason: &str| CommandError::failed(format!("cannot get into {}: {reason}", shown(output)));
    let target = std::path::absolute(output).map_err(|error| cannot(&error.to_string()))?;
    if output.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(cannot("there is no such directory"));
    }
    let Some((parent, name)) = target.parent().zip(target.file_name()) else {
        return Err(cannot("it is a directory"));
    };
    if !parent.is_dir() {
        return Err(cannot(&format!("there is no directory {}", shown(parent))));
    }
    match parent.components().any(|component| component == Component::ParentDir) {
        // The file is shared from this path, so the path must not depend on directories that may be moved.
        true => parent.canonicalize().map(|real| real.join(name)).map_err(|error| cannot(&error.to_string())),
        false => Ok(target),
    }
}

pub(super) fn cannot_write(path: &Path, error: &io::Error) -> CommandError {
    let failed = CommandError::write_failed(&shown(path), error);
    let advice = match error.kind() {
        io::ErrorKind::AlreadyExists => "; replace it with --force, or choose another path with -o",
        _ => "",
    };
    CommandError { message: failed.message + advice, ..failed }
}

/// A file with a temporary name. It is deleted unless it gets the target's name.
pub(super) struct Temporary(PathBuf);

impl Temporary {
    /// A new file in the directory of `target`.
    pub(super) fn beside(target: &Path) -> io::Result<(File, Temporary)> {
        const TRIES: u32 = 100;
        let mut number = 0;
        loop {
            // The name is short, because the target's may have the greatest length.
            let path = target.with_file_name(format!(".elver-{}-{number}.part", std::process::id()));
            match File::create_new(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists && number < TRIES => number += 1,
                result => return result.map(|file| (file, Temporary(path))),
            }
        }
    }

    /// Gives the file the target's name. Without `force` it fails if a file has that name.
    pub(super) fn take_name(self, target: &Path, force: bool) -> io::Result<()> {
        if force {
            return fs::rename(&self.0, target);
        }
        // If the temporary name is still there, dropping `self` removes it.
        crate::disk::rename_exclusively(&self.0, target)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::Scratch;

    #[test]
    fn descriptors_and_devices_are_written_to_and_never_replaced() {
        for (path, number) in
            [("/dev/stdout", 1), ("/dev/stderr", 2), ("/dev/fd/7", 7), ("/proc/self/fd/9", 9)]
        {
            assert_eq!(descriptor(Path::new(path)), Some(number));
        }
        assert!(is_special(Path::new("/dev/null")) && !is_special(Path::new("/dev/fd/x")));
        let scratch = Scratch::new();
        let pipe = scratch.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(is_special(&pipe) && !is_special(scratch.path()) && !is_special(Path::new("Cargo.toml")));
    }

    #[test]
    fn a_temporary_file_gets_its_name_or_goes() {
        let scratch = Scratch::new();
        let target = scratch.path().join("x".repeat(255));
        let make = || Temporary::beside(&target).unwrap().1;
        make().take_name(&target, false).unwrap();
        assert_eq!(make().take_name(&target, false).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        make().take_name(&target, true).unwrap();
        drop(make());
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 1);
    }
}
