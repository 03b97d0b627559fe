//! The fuzzer's bytes, read from front to back.

use arbitrary::Unstructured;

/// The rest of an input. Every read succeeds: past the end there are zeros, and byte strings are shorter. All reads take from the
/// front, so that a seed can be written as a plain sequence.
pub struct Tape<'a>(Unstructured<'a>);

impl<'a> Tape<'a> {
    /// A tape at its start.
    pub fn new(bytes: &'a [u8]) -> Self {
        Tape(Unstructured::new(bytes))
    }

    /// Whether all bytes are read.
    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> u8 {
        self.0.arbitrary().unwrap_or_default()
    }

    /// Two bytes, little-endian.
    pub fn word(&mut self) -> u16 {
        self.0.arbitrary().unwrap_or_default()
    }

    /// Eight bytes, little-endian.
    pub fn number(&mut self) -> u64 {
        self.0.arbitrary().unwrap_or_default()
    }

    /// One byte as a choice among `count`.
    pub fn choice(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count.max(1)
    }

    /// A length of two bytes, and as many bytes, or as there are.
    pub fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.word()).min(self.0.len());
        self.0.bytes(length).unwrap_or_default()
    }
}
