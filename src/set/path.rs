//! The position in a list: the path of the present directory, and the rules that depend on it.

use super::{
    DEPTH_MAX, ENTRIES_MAX, Invalid, NAME_BYTES_MAX, PATH_BYTES_MAX, Record, TIME_MAX, stays_inside,
};
use crate::manifest::FILE_BYTES_MAX;

/// The directories from the set's own down to the present one. It takes the records in their order and refuses those that break a
/// rule of the list.
pub(super) struct Position {
    times: bool,
    /// The path of the present directory, without a slash at its end.
    path: Vec<u8>,
    /// The directories on the path. It is empty when the set's own directory has ended.
    levels: Vec<Level>,
    entries: u32,
}

#[derive(Default)]
struct Level {
    /// The length of the path of the directory around it.
    outer: usize,
    /// The last name in it; empty when it has none yet.
    last: Vec<u8>,
}

impl Position {
    /// The start of a list, with or without times.
    pub(super) fn new(times: bool) -> Self {
        Position { times, path: Vec::new(), levels: vec![Level::default()], entries: 0 }
    }

    /// The path of the present directory below the set's own.
    pub(super) fn directory(&self) -> &[u8] {
        &self.path
    }

    pub(super) fn has_times(&self) -> bool {
        self.times
    }

    /// Whether the set's own directory has ended.
    pub(super) fn is_over(&self) -> bool {
        self.levels.is_empty()
    }

    /// Takes the next record. After an error the position is of no use.
    pub(super) fn take(&mut self, record: &Record<'_>) -> Result<(), Invalid> {
        match *record {
            Record::End => {
                let level = self.levels.pop().ok_or(Invalid::Trailing)?;
                self.path.truncate(level.outer);
            }
            Record::Directory { name, mode } => {
                self.enter(name, mode)?;
                if self.levels.len() > DEPTH_MAX {
                    return Err(Invalid::Path);
                }
                let outer = self.path.len();
                if outer > 0 {
                    self.path.push(b'/');
                }
                self.path.extend_from_slice(name);
                self.levels.push(Level { outer, last: Vec::new() });
            }
            Record::File { name, file } => {
                self.enter(name, file.mode)?;
                if file.length > FILE_BYTES_MAX {
                    return Err(Invalid::Length);
                }
                if !(-TIME_MAX..=TIME_MAX).contains(&file.modified) || !self.times && file.modified != 0 {
                    return Err(Invalid::Time);
                }
            }
            Record::Link { name, target } => {
                self.enter(name, 0)?;
                if !stays_inside(target, self.levels.len() - 1) {
                    return Err(Invalid::Target);
                }
            }
        }
        Ok(())
    }

    /// Checks an entry's name and mode, and notes its name.
    fn enter(&mut self, name: &[u8], mode: u16) -> Result<(), Invalid> {
        let level = self.levels.last_mut().ok_or(Invalid::Trailing)?;
        let is_component = !matches!(name, b"" | b"." | b"..") && !name.iter().any(|b| matches!(b, b'/' | 0));
        if !is_component || name.len() > NAME_BYTES_MAX {
            return Err(Invalid::Name);
        }
        if name <= &level.last[..] {
            return Err(Invalid::Order);
        }
        if mode > 0o777 {
            return Err(Invalid::Mode);
        }
        if self.path.len() + 1 + name.len() > PATH_BYTES_MAX {
            return Err(Invalid::Path);
        }
        if self.entries == ENTRIES_MAX {
            return Err(Invalid::Entries);
        }
        self.entries += 1;
        level.last.clear();
        level.last.extend_from_slice(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_ten_million_entries_the_first_too_many_is_refused() {
        let mut position = Position { entries: ENTRIES_MAX - 2, ..Position::new(true) };
        let taken = (0..10_000_000_u32).position(|number| {
            let name = format!("{number:08}");
            position.take(&Record::Link { name: name.as_bytes(), target: b"x" }) == Err(Invalid::Entries)
        });
        assert_eq!(taken, Some(2));
    }
}
