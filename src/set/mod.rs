//! Sets: a directory as one file.
//!
//! The list of a set names everything in a directory: files with their addresses, symbolic links, directories. The list is an
//! ordinary file. Its hash is the address of the set, and equal trees have equal lists.
//!
//! The layout follows the tree, and all integers are little-endian. A *head* of 16 bytes comes first:
//!
//! | bytes | field |
//! |---|---|
//! | 8 | `elverset` |
//! | 2 | version: 1 |
//! | 2 | flags: bit 0 is set when files have times of modification; the other bits are 0 |
//! | 4 | 0 |
//!
//! Then come the records of the set's directory. A directory's record is followed by the records of what is in it and by an END.
//! The END of the set's directory is the last byte of the list.
//!
//! | record | layout: bytes of each field |
//! |---|---|
//! | END | 0 (1) |
//! | directory | 1 (1), length of the name (1), mode (2), name |
//! | file | 2 (1), length of the name (1), mode (2), length (8), time (8), address (32), name |
//! | symbolic link | 3 (1), length of the name (1), length of the target (2), name, target |
//!
//! - A name is one component: 1 to 255 bytes, no `/`, no 0, neither `.` nor `..`. So no record leaves its directory, and nothing can
//!   be inside a file or a link. The names of a directory strictly ascend, as bytes.
//! - A mode is nine permission bits. There is no bit for set-user-ID, set-group-ID or sticky, and no kind for devices, pipes and
//!   sockets.
//! - A time counts whole seconds since 1970, because not every file system and archive keeps parts of them. Without flag 0 it is 0.
//!   Directories and links have no time: what writes a tree changes it.
//! - The target of a link is relative and stays in the set: `..` comes first or not at all, and at most as often as the link's
//!   directory is deep. Each `..` then leaves a directory of the set and not one behind another link.
//!
//! [`Encoder`] writes records, and [`Decoder`] reads them. Both hold no more than the path of the present record and the last name of
//! each directory on it, so that a list of any length passes through them.

mod decode;
mod encode;
mod path;

pub use decode::{Decoded, Decoder};
pub use encode::Encoder;

use crate::id::Key;
use core::fmt;

/// The length of the head, in bytes.
pub const HEAD_BYTES: usize = 16;
/// The first bytes of every list.
pub const MAGIC: [u8; 8] = *b"elverset";
const VERSION: u16 = 1;
const FLAG_TIMES: u16 = 1;

/// The longest record, in bytes: a link with the longest name and target.
pub const RECORD_BYTES_MAX: usize = 6 + NAME_BYTES_MAX + TARGET_BYTES_MAX;
/// The longest list, in bytes: 256 MiB.
pub const LIST_BYTES_MAX: u64 = 256 << 20;
/// The most files, links and directories in a set.
pub const ENTRIES_MAX: u32 = 1 << 20;
/// The longest name, in bytes: that of Linux.
pub const NAME_BYTES_MAX: usize = 255;
/// The longest path below the set's directory, in bytes. Linux takes 4,095, of which the directory's own path needs a part.
pub const PATH_BYTES_MAX: usize = 3072;
/// The longest target of a link, in bytes.
pub const TARGET_BYTES_MAX: usize = 4095;
/// The most directories in each other, the set's own not counted.
pub const DEPTH_MAX: usize = 128;
/// The latest and, with the opposite sign, the earliest time of modification: seconds from 1970, more than 30,000 years.
pub const TIME_MAX: i64 = 1 << 40;

/// A file of a set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SetFile {
    /// Its address.
    pub hash: Key,
    /// Its length in bytes.
    pub length: u64,
    /// Its time of modification: seconds since 1970; 0 in a list without times.
    pub modified: i64,
    /// Its permission bits, at most 0o777.
    pub mode: u16,
}

/// One record of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Record<'a> {
    /// A directory. The records up to its END are inside it.
    Directory {
        /// Its name.
        name: &'a [u8],
        /// Its permission bits, at most 0o777.
        mode: u16,
    },
    /// A file.
    File {
        /// Its name.
        name: &'a [u8],
        /// Its content and its attributes.
        file: SetFile,
    },
    /// A symbolic link.
    Link {
        /// Its name.
        name: &'a [u8],
        /// Its target.
        target: &'a [u8],
    },
    /// The end of a directory.
    End,
}

/// Why bytes are no list, or a record has no place in one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Invalid {
    /// The bytes do not begin as a list does.
    NoSet,
    /// The list has this version, which is unknown.
    Version(u16),
    /// A record has an unknown kind: neither a file, a link nor a directory.
    Kind(u8),
    /// A reserved field is not 0.
    Reserved,
    /// A name is empty, longer than 255 bytes, `.` or `..`, or contains `/` or 0.
    Name,
    /// A name does not follow the name before it in its directory.
    Order,
    /// A mode has bits beyond 0o777.
    Mode,
    /// A file is longer than a file can be.
    Length,
    /// A time is out of range.
    Time,
    /// The target of a link is empty, absolute or longer than 4,095 bytes, contains 0, or leaves the set.
    Target,
    /// A path is longer than 3,072 bytes or has more than 128 directories.
    Path,
    /// There are more than 1,048,576 entries.
    Entries,
    /// The list is longer than 256 MiB.
    TooLong,
    /// The list ends within a directory.
    Truncated,
    /// Bytes follow the end of the list.
    Trailing,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Invalid::NoSet => "it is not the list of a set",
            Invalid::Version(version) => {
                return write!(f, "it has version {version}, which a newer elver may know");
            }
            Invalid::Kind(kind) => {
                return write!(f, "it has an entry of kind {kind}: neither a file, a link nor a directory");
            }
            Invalid::Reserved => "a reserved field is not 0",
            Invalid::Name => "a name is empty or too long, `.` or `..`, or contains a slash or a zero byte",
            Invalid::Order => "its names are not in order, or one occurs twice",
            Invalid::Mode => "a mode has bits beyond 777",
            Invalid::Length => "a file is longer than 64 GiB",
            Invalid::Time => "a time of modification is out of range",
            Invalid::Target => "the target of a symbolic link is empty, too long, or outside the set",
            Invalid::Path => "a path has more than 3,072 bytes or 128 directories",
            Invalid::Entries => "it has more than 1,048,576 entries",
            Invalid::TooLong => "it has more than 256 MiB",
            Invalid::Truncated => "it ends too early",
            Invalid::Trailing => "bytes follow its end",
        };
        f.write_str(text)
    }
}

impl core::error::Error for Invalid {}

/// Whether a link in a directory `depth` levels below a root leads to a place below that root: its target is relative, and `..`
/// comes only first and at most `depth` times.
pub fn stays_inside(target: &[u8], depth: usize) -> bool {
    let usable = !target.is_empty() && target.len() <= TARGET_BYTES_MAX && !target.contains(&0);
    if !usable || target[0] == b'/' {
        return false;
    }
    let (mut climbed, mut descends) = (0, false);
    for component in target.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." if descends => return false,
            b".." => climbed += 1,
            _ => descends = true,
        }
    }
    climbed <= depth
}

#[cfg(test)]
mod tests;
