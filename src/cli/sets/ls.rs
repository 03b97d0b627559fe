//! `ls SET`: what is in a set.

use super::Address;
use super::list::{Scope, stream};
use crate::cli::Context;
use crate::cli::exit::{CommandError, Exit};
use crate::cli::output::{Output, shown};
use crate::config::units::format_size;
use crate::set::Record;
use serde_json::json;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// The last second of the year 9999, in seconds since 1970.
const YEAR_9999: i64 = 253_402_300_799;

/// Lists a set, or a directory in it.
pub(in crate::cli) fn list(context: &mut Context, address: &Address) -> Result<Exit, CommandError> {
    let mut scope = Scope::new(address.path());
    let mut closed = false;
    let none = Output::new(false, true, Box::new(std::io::sink()), Box::new(std::io::sink()));
    // The list is printed as it arrives, so the output is taken out of the context that the request needs.
    let mut output = core::mem::replace(&mut context.output, none);
    let result = stream(
        context,
        address.hash,
        None,
        |_| Ok(()),
        |directory, record| {
            if !scope.contains(directory, &record) || closed {
                return Ok(());
            }
            match output.json {
                true => match object(directory, &record) {
                    Some(object) => output.object(&object)?,
                    None => return Ok(()),
                },
                false => match line(directory, &record) {
                    Some(line) => output.line(&line)?,
                    None => return Ok(()),
                },
            }
            closed = output.is_closed();
            Ok(())
        },
    );
    context.output = output;
    result?;
    scope.check(address)?;
    Ok(Exit::Done)
}

/// The path of an entry below the set's directory.
fn path_of(directory: &[u8], name: &[u8]) -> PathBuf {
    Path::new(OsStr::from_bytes(directory)).join(OsStr::from_bytes(name))
}

fn line(directory: &[u8], record: &Record<'_>) -> Option<String> {
    let none = "-".repeat(64);
    Some(match record {
        Record::End => return None,
        Record::Directory { mode, .. } => {
            let path = shown(Path::new(OsStr::from_bytes(directory)));
            format!("{none}  {:>10}  d{}  {:20}  {path}/", "-", letters(*mode), "-")
        }
        Record::File { name, file } => {
            let (size, time) = (format_size(file.length), time(file.modified));
            let path = shown(&path_of(directory, name));
            format!("{}  {size:>10}  -{}  {time:20}  {path}", file.hash, letters(file.mode))
        }
        Record::Link { name, target } => {
            let (path, target) =
                (shown(&path_of(directory, name)), shown(Path::new(OsStr::from_bytes(target))));
            format!("{none}  {:>10}  l{}  {:20}  {path} -> {target}", "-", letters(0o777), "-")
        }
    })
}

fn object(directory: &[u8], record: &Record<'_>) -> Option<serde_json::Value> {
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    Some(match record {
        Record::End => return None,
        Record::Directory { mode, .. } => {
            json!({ "kind": "directory", "path": String::from_utf8_lossy(directory), "mode": format!("{mode:03o}") })
        }
        Record::File { name, file } => json!({
            "kind": "file", "path": text(path_of(directory, name)), "hash": file.hash, "length": file.length,
            "mode": format!("{:03o}", file.mode), "modified": file.modified,
        }),
        Record::Link { name, target } => json!({
            "kind": "link", "path": text(path_of(directory, name)), "target": String::from_utf8_lossy(target),
        }),
    })
}

/// Permission bits as ls(1) writes them.
fn letters(mode: u16) -> String {
    (0..9).map(|bit| if mode & (0o400 >> bit) == 0 { '-' } else { b"rwx"[bit % 3] as char }).collect()
}

/// A time in UTC, or the number of seconds if its year has not four digits.
fn time(seconds: i64) -> String {
    match u64::try_from(seconds) {
        Ok(since) if seconds <= YEAR_9999 => {
            humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(since)).to_string()
        }
        _ => format!("@{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_and_times_are_written_as_others_do() {
        assert_eq!([0o640, 0o755, 0].map(letters), ["rw-r-----", "rwxr-xr-x", "---------"]);
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(time(YEAR_9999), "9999-12-31T23:59:59Z");
        assert_eq!(
            [time(-1), time(YEAR_9999 + 1), time(i64::MAX)].map(|time| time.starts_with('@')),
            [true; 3]
        );
    }
}
