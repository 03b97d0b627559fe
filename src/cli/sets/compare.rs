//! Which files of a directory have the content of the set already.

use super::tree::Tree;
use crate::set::SetFile;
use rustix::fs::{
    FileType, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, fchmod, fstat, futimens, openat,
};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;

/// Bytes hashed at a time.
const BLOCK_BYTES: usize = 64 << 10;

/// How files are compared.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    /// Whether the set has times.
    pub(super) times: bool,
    /// Whether the file system of the directory keeps modes.
    pub(super) modes: bool,
    /// Whether every file is read, although its length and time are those of the set.
    pub(super) checksum: bool,
}

/// What a file needs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// Nothing.
    Same,
    /// Its content is there. Its time or its mode was another, and is that of the set now.
    Mended,
    /// Its content.
    Fetch,
}

impl Rules {
    /// Compares the file with this name in the present directory. A file of the same length and time counts as the same; one of the
    /// same length and another time is read.
    pub(super) fn compare(self, tree: &Tree, name: &[u8], expected: &SetFile) -> io::Result<Verdict> {
        let Some(there) = tree.look(name)? else { return Ok(Verdict::Fetch) };
        let is_file = FileType::from_raw_mode(there.st_mode) == FileType::RegularFile;
        if !is_file || u64::try_from(there.st_size) != Ok(expected.length) {
            return Ok(Verdict::Fetch);
        }
        let quick = self.times && !self.checksum && there.st_mtime == expected.modified;
        if quick && self.has_mode(&there, expected) {
            return Ok(Verdict::Same);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(tree.here(), OsStr::from_bytes(name), flags, Mode::empty()) {
            Ok(file) => File::from(file),
            // What cannot be read can still be replaced.
            Err(Errno::ACCESS) => return Ok(Verdict::Fetch),
            Err(errno) => return Err(errno.into()),
        };
        if !quick && !has_content(&file, expected)? {
            return Ok(Verdict::Fetch);
        }
        self.mend(&file, expected)
    }

    fn has_mode(self, stat: &Stat, expected: &SetFile) -> bool {
        !self.modes || stat.st_mode & 0o7777 == u32::from(expected.mode)
    }

    /// Gives a file with the right content its time and mode.
    fn mend(self, file: &File, expected: &SetFile) -> io::Result<Verdict> {
        let there = fstat(file)?;
        let mut verdict = Verdict::Same;
        if self.times && there.st_mtime != expected.modified {
            let last_modification = Timespec { tv_sec: expected.modified, tv_nsec: 0 };
            let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
            match futimens(file, &Timestamps { last_access, last_modification }) {
                Ok(()) => verdict = Verdict::Mended,
                // The file belongs to another user: the node replaces it.
                Err(Errno::PERM | Errno::ACCESS) => return Ok(Verdict::Fetch),
                Err(errno) => return Err(errno.into()),
            }
        }
        if !self.has_mode(&there, expected) {
            match fchmod(file, Mode::from_raw_mode(u32::from(expected.mode))) {
                Ok(()) => verdict = Verdict::Mended,
                Err(Errno::PERM | Errno::ACCESS) => return Ok(Verdict::Fetch),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(verdict)
    }
}

fn has_content(mut file: &File, expected: &SetFile) -> io::Result<bool> {
    let (mut hasher, mut block) = (blake3::Hasher::new(), vec![0; BLOCK_BYTES]);
    loop {
        match file.read(&mut block) {
            Ok(0) => return Ok(hasher.finalize() == blake3::Hash::from_bytes(expected.hash.0)),
            Ok(read) => drop(hasher.update(&block[..read])),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::Scratch;
    use crate::id::Key;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    const RULES: Rules = Rules { times: true, modes: true, checksum: false };

    fn expected(content: &[u8], modified: i64) -> SetFile {
        let hash = Key(*blake3::hash(content).as_bytes());
        SetFile { hash, length: content.len() as u64, modified, mode: 0o640 }
    }

    #[test]
    fn length_and_time_are_enough_unless_every_file_is_to_be_read() {
        let scratch = Scratch::new();
        let path = scratch.path().join("f");
        let tree = Tree::open(scratch.path()).unwrap();
        let compare = |rules: Rules, content: &[u8], time| {
            rules.compare(&tree, b"f", &expected(content, time)).unwrap()
        };
        assert_eq!(compare(RULES, b"old", 1000), Verdict::Fetch);
        fs::write(&path, "old").unwrap();
        // Another time: the content decides, and gets the time and the mode.
        assert_eq!(compare(RULES, b"new", 1000), Verdict::Fetch);
        assert_eq!(compare(RULES, b"old", 1000), Verdict::Mended);
        let metadata = path.metadata().unwrap();
        assert_eq!((metadata.mtime(), metadata.mode() & 0o7777), (1000, 0o640));
        assert_eq!(compare(RULES, b"old", 1000), Verdict::Same);
        // The same length and time count as the same content.
        assert_eq!(compare(RULES, b"new", 1000), Verdict::Same);
        assert_eq!(compare(Rules { checksum: true, ..RULES }, b"new", 1000), Verdict::Fetch);
        assert_eq!(compare(Rules { times: false, ..RULES }, b"new", 0), Verdict::Fetch);
        assert_eq!(compare(Rules { times: false, ..RULES }, b"old", 0), Verdict::Same);
        assert_eq!(compare(RULES, b"longer", 1000), Verdict::Fetch);
    }

    #[test]
    fn set_user_id_bits_and_links_do_not_stay() {
        let scratch = Scratch::new();
        let path = scratch.path().join("f");
        let tree = Tree::open(scratch.path()).unwrap();
        fs::write(&path, "x").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4640)).unwrap();
        assert_eq!(RULES.compare(&tree, b"f", &expected(b"x", 5)).unwrap(), Verdict::Mended);
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o640);
        symlink("f", scratch.path().join("l")).unwrap();
        assert_eq!(RULES.compare(&tree, b"l", &expected(b"x", 5)).unwrap(), Verdict::Fetch);
    }
}
