//! Sets on the command line: `put DIR`, `ls SET`, `get SET -o DIR`, `get SET/path`, `rm SET`.
//!
//! | file | what it does |
//! |---|---|
//! | `address` | `HASH`, `HASH/` and `HASH/path` |
//! | `ignore` | the patterns of `.elverignore` |
//! | `walk` | the entries of a directory, in the order of a list |
//! | `put` | shares the files of a directory, writes the list and shares it |
//! | `list` | fetches a list and reads it, record by record |
//! | `ls` | prints a list |
//! | `tree` | the directory that a set goes into: no step leaves it |
//! | `compare` | which files of a directory have the content of the set already |
//! | `get` | fetches what differs |
//!
//! A list passes through these in a stream: memory does not grow with the number of files, only with the largest directory.

mod address;
mod compare;
mod get;
mod ignore;
mod list;
mod ls;
mod put;
mod tree;
mod walk;

pub(super) use address::Address;
pub(super) use get::{GetSet, get};
pub(super) use list::{Found, each_file, find, is_list};
pub(super) use ls::list;
pub(super) use put::{PutSet, list_path, put};
