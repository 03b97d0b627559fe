//! Writing a list.

use super::path::Position;
use super::{FLAG_TIMES, HEAD_BYTES, Invalid, LIST_BYTES_MAX, MAGIC, Record, VERSION};

/// Writes the records of a list in their order.
pub struct Encoder {
    position: Position,
    /// The bytes of the list so far.
    bytes: u64,
}

impl Encoder {
    /// Begins a list, and appends its head to `list`. Without `times`, the time of each file must be 0.
    pub fn begin(times: bool, list: &mut Vec<u8>) -> Self {
        list.extend_from_slice(&MAGIC);
        list.extend_from_slice(&VERSION.to_le_bytes());
        list.extend_from_slice(&if times { FLAG_TIMES } else { 0 }.to_le_bytes());
        list.extend_from_slice(&[0; 4]);
        Encoder { position: Position::new(times), bytes: HEAD_BYTES as u64 }
    }

    /// Appends the next record to `list`. After an error the list cannot be continued.
    pub fn push(&mut self, record: &Record<'_>, list: &mut Vec<u8>) -> Result<(), Invalid> {
        self.position.take(record)?;
        let before = list.len();
        match *record {
            Record::End => list.push(0),
            Record::Directory { name, mode } => {
                list.extend_from_slice(&[1, name.len() as u8]);
                list.extend_from_slice(&mode.to_le_bytes());
                list.extend_from_slice(name);
            }
            Record::File { name, file } => {
                list.extend_from_slice(&[2, name.len() as u8]);
                list.extend_from_slice(&file.mode.to_le_bytes());
                list.extend_from_slice(&file.length.to_le_bytes());
                list.extend_from_slice(&file.modified.to_le_bytes());
                list.extend_from_slice(&file.hash.0);
                list.extend_from_slice(name);
            }
            Record::Link { name, target } => {
                list.extend_from_slice(&[3, name.len() as u8]);
                list.extend_from_slice(&(target.len() as u16).to_le_bytes());
                list.extend_from_slice(name);
                list.extend_from_slice(target);
            }
        }
        self.bytes += (list.len() - before) as u64;
        if self.bytes > LIST_BYTES_MAX { Err(Invalid::TooLong) } else { Ok(()) }
    }

    /// Whether the END of the set's own directory was written.
    pub fn is_over(&self) -> bool {
        self.position.is_over()
    }
}
