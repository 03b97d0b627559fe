//! Files whose upload waits: for their turn, for their manifest, or for the next round. Only their addresses are kept.

use crate::id::Key;
use crate::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Files that wait for their upload.
#[derive(Default)]
pub(super) struct Line {
    queue: VecDeque<Key>,
    queued: BTreeSet<Key>,
    /// Files whose manifest is being read.
    opening: BTreeSet<Key>,
    /// Files that lack copies and are tried again later.
    resting: BTreeSet<(Instant, Key)>,
    /// The time of the next attempt of each, and the pause after it. An entry remains until the upload begins.
    rests: BTreeMap<Key, (Instant, Duration)>,
}

impl Line {
    /// When the first resting file is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.resting.first().map(|(at, _)| *at)
    }

    /// Whether no file waits for its turn.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// The number of files whose manifest is being read.
    pub(super) fn opening(&self) -> usize {
        self.opening.len()
    }

    /// Whether a file waits for its turn, or its manifest is being read.
    pub(super) fn contains(&self, hash: &Key) -> bool {
        self.queued.contains(hash) || self.opening.contains(hash)
    }

    /// Whether a file lacks copies, and its next round has not begun.
    pub(super) fn is_resting(&self, hash: &Key) -> bool {
        self.rests.contains_key(hash)
    }

    /// Puts a file at the end of the line, unless it is in line already.
    pub(super) fn push(&mut self, hash: Key) {
        if self.queued.insert(hash) {
            self.queue.push_back(hash);
        }
    }

    /// Takes the file whose turn it is.
    pub(super) fn pop(&mut self) -> Option<Key> {
        let hash = self.queue.pop_front()?;
        self.queued.remove(&hash);
        Some(hash)
    }

    /// The manifest of a file is being read.
    pub(super) fn open(&mut self, hash: Key) {
        self.opening.insert(hash);
    }

    /// The manifest of a file has been read, or is not needed any more. Returns whether it was being read.
    pub(super) fn opened(&mut self, hash: &Key) -> bool {
        self.opening.remove(hash)
    }

    /// A file rests until then. `pause` is the length of the rest after it.
    pub(super) fn rest(&mut self, hash: Key, until: Instant, pause: Duration) {
        self.wake(&hash);
        self.resting.insert((until, hash));
        self.rests.insert(hash, (until, pause));
    }

    /// Ends the rest of a file. Returns the length of the next one.
    pub(super) fn wake(&mut self, hash: &Key) -> Option<Duration> {
        let (until, pause) = self.rests.remove(hash)?;
        self.resting.remove(&(until, *hash));
        Some(pause)
    }

    /// Puts the files whose rest is over in line. The length of their next rest is kept.
    pub(super) fn end_rests(&mut self, now: Instant) {
        while let Some((at, hash)) = self.resting.first().copied().filter(|(at, _)| *at <= now) {
            self.resting.remove(&(at, hash));
            self.push(hash);
        }
    }

    /// Puts all resting files in line. Their next rests are short again.
    pub(super) fn wake_all(&mut self) {
        let resting: Vec<Key> = self.rests.keys().copied().collect();
        for hash in resting {
            self.wake(&hash);
            self.push(hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> Key {
        Key([byte; 32])
    }

    fn at(seconds: u64) -> Instant {
        Instant::from_secs(seconds)
    }

    const PAUSE: Duration = Duration::from_secs(60);

    #[test]
    fn files_come_in_the_order_in_which_they_were_put_in_line_and_once_each() {
        let mut line = Line::default();
        [1, 2, 1, 3].map(key).into_iter().for_each(|hash| line.push(hash));
        let order: Vec<Key> = core::iter::from_fn(|| line.pop()).collect();
        assert_eq!(order, [1, 2, 3].map(key));
        assert!(line.is_empty());
    }

    #[test]
    fn a_file_that_rests_is_in_line_when_its_time_has_come_and_keeps_its_pause() {
        let mut line = Line::default();
        line.rest(key(1), at(100), PAUSE);
        line.rest(key(2), at(50), PAUSE);
        assert_eq!(line.next_deadline(), Some(at(50)));
        line.end_rests(at(99));
        assert_eq!(line.pop(), Some(key(2)));
        assert_eq!(line.pop(), None);
        assert!(line.is_resting(&key(2)), "its upload has not begun");
        assert_eq!(line.wake(&key(2)), Some(PAUSE));
        assert!(!line.is_resting(&key(2)));
    }

    #[test]
    fn a_file_that_rests_again_has_one_deadline() {
        let mut line = Line::default();
        line.rest(key(1), at(50), PAUSE);
        line.rest(key(1), at(100), PAUSE * 2);
        assert_eq!(line.next_deadline(), Some(at(100)));
        line.end_rests(at(100));
        assert_eq!(line.next_deadline(), None);
        assert_eq!(line.wake(&key(1)), Some(PAUSE * 2));
    }

    #[test]
    fn waking_all_puts_every_resting_file_in_line_without_its_pause() {
        let mut line = Line::default();
        line.rest(key(1), at(50), PAUSE);
        line.rest(key(2), at(60), PAUSE);
        line.wake_all();
        assert_eq!(line.next_deadline(), None);
        assert_eq!([line.pop(), line.pop()], [Some(key(1)), Some(key(2))]);
        assert_eq!(line.wake(&key(1)), None);
    }

    #[test]
    fn a_file_whose_manifest_is_being_read_is_waited_for() {
        let mut line = Line::default();
        line.open(key(1));
        assert!(line.contains(&key(1)));
        assert_eq!(line.opening(), 1);
        assert!(line.opened(&key(1)));
        assert!(!line.opened(&key(1)) && !line.contains(&key(1)));
    }
}
