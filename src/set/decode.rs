//! Reading a list.

use super::path::Position;
use super::{FLAG_TIMES, HEAD_BYTES, Invalid, LIST_BYTES_MAX, MAGIC, Record, SetFile, VERSION};
use crate::id::Key;

/// Reads a list from pieces of any length. What it has not accepted it does not return.
#[derive(Default)]
pub struct Decoder {
    /// `None` before the head.
    position: Option<Position>,
    /// The bytes of the list so far.
    bytes: u64,
}

/// The start of the bytes given to a decoder.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Decoded<'a> {
    /// More bytes are needed.
    More,
    /// The head of the list, of [`HEAD_BYTES`].
    Head,
    /// A record, and its length in bytes.
    Record(Record<'a>, usize),
    /// The list is over, and no bytes follow.
    Over,
}

impl Decoder {
    /// Reads one record from the start of `bytes`. The caller drops its bytes and calls again with those that follow. `last` says
    /// that no bytes follow `bytes`. After an error the decoder is of no use.
    pub fn decode<'a>(&mut self, bytes: &'a [u8], last: bool) -> Result<Decoded<'a>, Invalid> {
        let Some(position) = &mut self.position else { return self.head(bytes, last) };
        if position.is_over() {
            return match (bytes.is_empty(), last) {
                (false, _) => Err(Invalid::Trailing),
                (true, true) => Ok(Decoded::Over),
                (true, false) => Ok(Decoded::More),
            };
        }
        match record(bytes)? {
            Some((record, length)) => {
                self.bytes += length as u64;
                if self.bytes > LIST_BYTES_MAX {
                    return Err(Invalid::TooLong);
                }
                position.take(&record)?;
                Ok(Decoded::Record(record, length))
            }
            None if last => Err(Invalid::Truncated),
            None => Ok(Decoded::More),
        }
    }

    fn head<'a>(&mut self, bytes: &'a [u8], last: bool) -> Result<Decoded<'a>, Invalid> {
        let there = bytes.len().min(MAGIC.len());
        if bytes[..there] != MAGIC[..there] || last && there < MAGIC.len() {
            return Err(Invalid::NoSet);
        }
        let Some(head) = bytes.first_chunk::<HEAD_BYTES>() else {
            return if last { Err(Invalid::Truncated) } else { Ok(Decoded::More) };
        };
        let version = u16::from_le_bytes([head[8], head[9]]);
        if version != VERSION {
            return Err(Invalid::Version(version));
        }
        let flags = u16::from_le_bytes([head[10], head[11]]);
        if flags & !FLAG_TIMES != 0 || head[12..] != [0; 4] {
            return Err(Invalid::Reserved);
        }
        self.position = Some(Position::new(flags == FLAG_TIMES));
        self.bytes = HEAD_BYTES as u64;
        Ok(Decoded::Head)
    }

    /// The path of the present directory below the set's own, without a slash at its end: after a directory's record its own path,
    /// after its END that of the directory around it.
    pub fn directory(&self) -> &[u8] {
        self.position.as_ref().map_or(&[], Position::directory)
    }

    /// Whether the files of the list have times of modification.
    pub fn has_times(&self) -> bool {
        self.position.as_ref().is_some_and(Position::has_times)
    }
}

/// The record at the start of `bytes`, and its length; `None` when it goes on after them.
fn record(bytes: &[u8]) -> Result<Option<(Record<'_>, usize)>, Invalid> {
    let mut fields = Fields { bytes, at: 0 };
    let Some([kind]) = fields.array() else { return Ok(None) };
    let record = match kind {
        0 => Some(Record::End),
        1 => fields.directory(),
        2 => fields.file(),
        3 => fields.link(),
        kind => return Err(Invalid::Kind(kind)),
    };
    Ok(record.map(|record| (record, fields.at)))
}

struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    fn slice(&mut self, length: usize) -> Option<&'a [u8]> {
        let field = self.bytes.get(self.at..self.at + length)?;
        self.at += length;
        Some(field)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.slice(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn directory(&mut self) -> Option<Record<'a>> {
        let [length] = self.array()?;
        let mode = self.u16()?;
        Some(Record::Directory { mode, name: self.slice(length.into())? })
    }

    fn file(&mut self) -> Option<Record<'a>> {
        let [name_length] = self.array()?;
        let mode = self.u16()?;
        let length = self.array().map(u64::from_le_bytes)?;
        let modified = self.array().map(i64::from_le_bytes)?;
        let hash = Key(self.array()?);
        let name = self.slice(name_length.into())?;
        Some(Record::File { name, file: SetFile { hash, length, modified, mode } })
    }

    fn link(&mut self) -> Option<Record<'a>> {
        let [name_length] = self.array()?;
        let target_length = self.u16()?;
        let name = self.slice(name_length.into())?;
        Some(Record::Link { name, target: self.slice(target_length.into())? })
    }
}
