//! The announced files: which of them are due, and the queue of announcements to be sent.
//!
//! Between two rounds a file takes about 130 bytes: its key, a [`Placement`], and 12 bytes in the schedule.

use super::pace::Pace;
use super::placement::{List, Placement, Stage, Tick};
use crate::id::{Key, NodeId};
use crate::time::{Instant, earliest};
use crate::wire::contact::Contact;
use crate::wire::message::{ANNOUNCEMENTS_MAX, Announcement};
use crate::wire::provider::ProviderRecord;
use core::ops::Bound;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Files that are taken from the schedule ahead of their turn, so that files of one region fill datagrams together.
const BATCH: usize = 512;
/// Files that one turn compares with nodes that came and went.
const REVIEWED_PER_TURN_MAX: usize = 1024;
/// Nodes that all files are compared with in one pass, and nodes that wait for the next pass. Nodes beyond these are left to the
/// regular rounds.
const NEWS_PER_PASS_MAX: usize = 16;
const NEWS_MAX: usize = 64;

/// The announced files, and the queue of announcements to be sent.
#[derive(Default)]
pub(super) struct Announcements {
    pub(super) files: BTreeMap<Key, Announced>,
    /// Files whose round is due, and the file at which the last turn stopped. The next turn goes on from there, so that small keys
    /// are not preferred.
    pub(super) due: BTreeSet<Key>,
    pub(super) last: Option<Key>,
    schedule: Schedule,
    pace: Pace,
    pub(super) settled: BTreeSet<Key>,
    /// Files that can be found since the last turn: enough nodes have answered in their rounds.
    pub(super) findable: Vec<Key>,
    /// The provider records of the rounds under way.
    pub(super) records: BTreeMap<Key, ProviderRecord>,
    queue: BTreeMap<NodeId, (Contact, Vec<Key>)>,
    pub(super) queued: usize,
    pub(super) in_flight: usize,
    /// The number of withdrawn files whose withdrawal has not been sent everywhere yet.
    pub(super) withdrawn: usize,
    review: Review,
    /// Since when files wait for the next turn.
    pub(super) more: Option<Instant>,
}

pub(super) struct Announced {
    pub(super) placement: Placement,
    /// The sequence number of the latest announcement, counted from the first of this run; 0 when there is none.
    pub(super) sequence: u32,
    pub(super) partial: bool,
    pub(super) withdrawn: bool,
}

impl Announced {
    pub(super) fn new(placement: Placement, partial: bool) -> Self {
        Announced { placement, sequence: 0, partial, withdrawn: false }
    }
}

const _: () = assert!(size_of::<Announced>() <= 64, "there is one for each shared file");

/// When files are due, by the first bytes of their keys. Files with the same prefix and time share an entry.
#[derive(Default)]
struct Schedule(BTreeSet<(Tick, Prefix)>);

type Prefix = [u8; 8];

fn prefix(key: &Key) -> Prefix {
    core::array::from_fn(|index| key.0[index])
}

/// The first and the last key with a prefix.
fn range(prefix: Prefix) -> core::ops::RangeInclusive<Key> {
    let filled = |rest| core::array::from_fn(|index| prefix.get(index).copied().unwrap_or(rest));
    Key(filled(0))..=Key(filled(0xff))
}

/// The comparison of all files with the nodes that came and went, some files in each turn.
#[derive(Default)]
struct Review {
    /// The news of this pass, and the last file that was told.
    told: Vec<News>,
    after: Option<Key>,
    waiting: VecDeque<News>,
}

/// A node that came or went, and the earliest time of rounds that this causes.
#[derive(Clone, Copy)]
enum News {
    Came(NodeId, Tick),
    Went(NodeId, Tick),
    Moved(Tick),
}

impl Announcements {
    /// Adds a file that is not announced yet.
    pub(super) fn add(&mut self, file: Key, announced: Announced) {
        let list = announced.placement.list();
        self.files.insert(file, announced);
        self.enter(file, list);
    }

    pub(super) fn remove(&mut self, file: &Key) {
        if let Some(announced) = self.files.remove(file) {
            self.withdrawn -= usize::from(announced.withdrawn);
            self.leave(*file, announced.placement.list());
        }
        self.records.remove(file);
    }

    /// Changes a file, and moves it to the list that it then belongs to.
    pub(super) fn change<T>(&mut self, file: &Key, change: impl FnOnce(&mut Announced) -> T) -> Option<T> {
        let announced = self.files.get_mut(file)?;
        let (before, was_withdrawn) = (announced.placement.list(), announced.withdrawn);
        let changed = change(announced);
        let (after, withdrawn) = (announced.placement.list(), announced.withdrawn);
        self.withdrawn = self.withdrawn + usize::from(withdrawn) - usize::from(was_withdrawn);
        if before != after {
            self.leave(*file, before);
            self.enter(*file, after);
        }
        Some(changed)
    }

    fn enter(&mut self, file: Key, list: List) {
        match list {
            List::Due => _ = self.due.insert(file),
            List::Scheduled(at) => _ = self.schedule.0.insert((at, prefix(&file))),
            List::Settled => _ = self.settled.insert(file),
            List::None => {}
        }
    }

    /// Takes a file off a list. The file's own state has already changed, or is gone.
    fn leave(&mut self, file: Key, list: List) {
        match list {
            List::Due => _ = self.due.remove(&file),
            List::Scheduled(at) => {
                let mut same = self.files.range(range(prefix(&file)));
                if !same.any(|(_, other)| other.placement.list() == list) {
                    self.schedule.0.remove(&(at, prefix(&file)));
                }
            }
            List::Settled => _ = self.settled.remove(&file),
            List::None => {}
        }
    }

    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// Moves files whose time has come to the due list, as far as the pace allows.
    pub(super) fn fire(&mut self, now: Instant) {
        self.pace.set_files(self.files.len());
        while self.due.len() < BATCH {
            let Some(&(at, prefix)) = self.schedule.0.first().filter(|(at, _)| at.instant() <= now) else {
                return;
            };
            if !self.pace.take(now) {
                return;
            }
            let files: Vec<Key> = self.files.range(range(prefix)).map(|(file, _)| *file).collect();
            for file in files {
                self.change(&file, |file| file.placement.fire(now));
            }
            debug_assert!(!self.schedule.0.contains(&(at, prefix)));
            self.schedule.0.remove(&(at, prefix));
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let scheduled = self.schedule.0.first().filter(|_| self.due.len() < BATCH);
        earliest(self.more, scheduled.map(|(at, _)| at.instant().max(self.pace.free_at())))
    }

    /// The own address changed: every file is announced again.
    pub(super) fn address_changed(&mut self, now: Instant) {
        let known = |news: &News| matches!(news, News::Moved(_));
        if !self.review.waiting.iter().any(known) && !self.files.is_empty() {
            self.review.waiting.push_back(News::Moved(Tick::passed(now)));
        }
        if self.review() {
            self.more = Some(now);
        }
    }

    /// A node is alive: it may be among the closest to some files.
    pub(super) fn consider(&mut self, now: Instant, node: NodeId, soon: Instant) {
        self.hear(now, News::Came(node, Tick::not_before(soon)));
    }

    /// A node departed: it may have kept announcements.
    pub(super) fn lost(&mut self, now: Instant, node: NodeId, soon: Instant) {
        self.hear(now, News::Went(node, Tick::not_before(soon)));
    }

    fn hear(&mut self, now: Instant, news: News) {
        if self.review.waiting.len() < NEWS_MAX && !self.files.is_empty() {
            self.review.waiting.push_back(news);
            if self.review() {
                self.more = Some(now);
            }
        }
    }

    /// Compares some files with the nodes that came and went. Returns whether some are left for the next turn.
    pub(super) fn review(&mut self) -> bool {
        let mut left = REVIEWED_PER_TURN_MAX;
        let mut moved = Vec::new();
        while left > 0 {
            if self.review.told.is_empty() {
                let pass = self.review.waiting.len().min(NEWS_PER_PASS_MAX);
                self.review.told.extend(self.review.waiting.drain(..pass));
            }
            if self.review.told.is_empty() {
                break;
            }
            let from = self.review.after.map_or(Bound::Unbounded, Bound::Excluded);
            let mut seen = 0;
            for (key, file) in self.files.range_mut((from, Bound::Unbounded)).take(left) {
                let before = file.placement.list();
                for news in &self.review.told {
                    match news {
                        News::Came(node, soon) => file.placement.consider(key, node, *soon),
                        News::Went(node, soon) => file.placement.lost(node, *soon),
                        News::Moved(now) => file.placement.changed(Stage::Scheduled(*now)),
                    }
                }
                if before != file.placement.list() {
                    moved.push((*key, before, file.placement.list()));
                }
                self.review.after = Some(*key);
                seen += 1;
            }
            if seen < left {
                (self.review.told, self.review.after) = (Vec::new(), None);
            }
            left -= seen;
            if seen == 0 && self.files.is_empty() {
                self.review.waiting.clear();
            }
        }
        for (key, before, after) in moved {
            self.leave(key, before);
            self.enter(key, after);
        }
        !self.review.told.is_empty() || !self.review.waiting.is_empty()
    }

    /// The announcements in a request.
    pub(super) fn records(&self, files: &[Key]) -> Vec<Announcement> {
        let record = |file: &Key| Some(Announcement { file: *file, provider: *self.records.get(file)? });
        files.iter().filter_map(record).take(ANNOUNCEMENTS_MAX).collect()
    }

    /// A request succeeded or failed: the node keeps the first `accepted` of its records.
    pub(super) fn settle(&mut self, id: &NodeId, files: &[Key], accepted: usize) {
        self.in_flight = self.in_flight.saturating_sub(1);
        for (index, file) in files.iter().enumerate() {
            let findable = self.change(file, |file| file.placement.settle(id, index < accepted));
            if findable == Some(true) {
                self.findable.push(*file);
            }
        }
    }

    /// The next due file: the first after the last one in the order of keys, or else the first of all.
    pub(super) fn next_due(&self) -> Option<Key> {
        let behind = self
            .last
            .and_then(|last| self.due.range((Bound::Excluded(last), Bound::Unbounded)).next().copied());
        behind.or_else(|| self.due.first().copied())
    }

    pub(super) fn enqueue(&mut self, file: &Key, targets: &[Contact]) {
        for contact in targets {
            self.queue.entry(contact.id).or_insert_with(|| (*contact, Vec::new())).1.push(*file);
        }
        self.queued += targets.len();
    }

    pub(super) fn dequeue(&mut self) -> Option<(Contact, Vec<Key>)> {
        let mut entry = self.queue.first_entry()?;
        let (contact, files) = entry.get_mut();
        let rest = files.split_off(files.len().min(ANNOUNCEMENTS_MAX));
        let batch = (*contact, core::mem::replace(files, rest));
        if files.is_empty() {
            entry.remove();
        }
        self.queued -= batch.1.len();
        Some(batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    const HOUR: Duration = Duration::from_secs(3600);

    fn key(number: u32) -> Key {
        Key(*blake3::hash(&number.to_le_bytes()).as_bytes())
    }

    fn scheduled(files: impl Iterator<Item = Key>, at: Instant) -> Announcements {
        let mut announcements = Announcements::default();
        for file in files {
            let placement = Placement::new(at);
            announcements.add(file, Announced::new(placement, false));
        }
        announcements
    }

    #[test]
    fn a_hundred_thousand_files_that_are_due_together_take_turns_at_a_steady_pace() {
        const FILES: usize = 100_000;
        let mut announcements = scheduled((0..FILES as u32).map(key), Instant::ZERO);
        let (mut now, mut fired, mut first_minute) = (Instant::from_secs(1), 0, 0);
        for _ in 0..100_000 {
            announcements.fire(now);
            let due: Vec<Key> = announcements.due.iter().copied().collect();
            assert!(due.len() <= BATCH);
            for file in &due {
                announcements.change(file, |file| file.placement.stage = Stage::Looking);
            }
            fired += due.len();
            if now < Instant::from_secs(60) {
                first_minute = fired;
            }
            match announcements.next_deadline() {
                Some(next) => now = next.max(now + Duration::from_millis(1)),
                None => break,
            }
        }
        assert_eq!(fired, FILES, "every file has its turn");
        assert!((1000..4000).contains(&first_minute), "{first_minute} in the first minute");
        assert!(now < Instant::ZERO + HOUR, "all within an hour");
    }

    #[test]
    fn small_keys_are_not_preferred() {
        let mut announcements = Announcements::default();
        let small = |number: u8| Key([number; 32]);
        for number in [1, 2, 3] {
            let placement = Placement::due();
            announcements.add(small(number), Announced::new(placement, false));
        }
        let mut order = Vec::new();
        for _ in 0..6 {
            announcements.last = announcements.next_due();
            order.push(announcements.last.unwrap().0[0]);
        }
        assert_eq!(order, [1, 2, 3, 1, 2, 3]);
    }

    #[test]
    fn two_files_with_the_same_prefix_and_time_are_both_announced() {
        let (mut one, mut other) = (Key([7; 32]), Key([7; 32]));
        (one.0[31], other.0[31]) = (1, 2);
        let mut announcements = scheduled([one, other].into_iter(), Instant::from_secs(5));
        announcements.change(&one, |file| file.placement.changed(Stage::Due));
        assert_eq!(announcements.due.iter().collect::<Vec<_>>(), [&one]);
        announcements.fire(Instant::from_secs(5));
        assert_eq!(announcements.due.iter().collect::<Vec<_>>(), [&one, &other]);
        announcements.remove(&one);
        announcements.remove(&other);
        assert!(announcements.schedule.0.is_empty() && announcements.due.is_empty());
    }

    #[test]
    fn a_new_node_is_compared_with_all_files_over_several_turns() {
        const FILES: u32 = 3 * REVIEWED_PER_TURN_MAX as u32;
        let far = Instant::ZERO + HOUR;
        let mut announcements = scheduled((0..FILES).map(key), far);
        let soon = Instant::from_secs(5);
        announcements.consider(Instant::ZERO, NodeId([9; 32]), soon);
        let hastened = |announcements: &Announcements| {
            announcements.files.values().filter(|file| file.placement.deadline() == Some(soon)).count()
        };
        assert_eq!(hastened(&announcements), REVIEWED_PER_TURN_MAX);
        assert_eq!(announcements.next_deadline(), Some(Instant::ZERO), "the next turn goes on");
        assert!(announcements.review());
        announcements.lost(Instant::ZERO, NodeId([9; 32]), soon);
        for _ in 0..10 {
            announcements.review();
        }
        assert_eq!(hastened(&announcements), FILES as usize);
        assert!(announcements.review.told.is_empty() && announcements.review.waiting.is_empty());
    }
}
