//! Content for the other end of a stream: what waits to be sent, in order, and what the driver is sending.

use super::close::CloseReason;
use super::session::{BYTES_PER_SECOND_MIN, PROGRESS_BYTES};
use crate::id::Key;
use crate::io::{Extent, Place};
use crate::time::{Duration, Instant};
use crate::transfer::events::PushId;
use crate::transfer::{Bytes, Located};
use std::collections::VecDeque;

/// Blocks that may be queued in the driver.
const BLOCKS_QUEUED_MAX: usize = 2;

/// Content for the other end.
pub(in crate::transfer) struct Outgoing {
    /// What waits, in order.
    pub(in crate::transfer) queue: VecDeque<Item>,
    /// Content that the driver has and that has not left yet.
    pub(in crate::transfer) sending: Vec<Sending>,
    /// Since when the driver has had content to send, and when some of it last left.
    sending_since: Instant,
    sent_at: Instant,
    sent_bytes: u64,
    /// Bytes that have left since the driver last had nothing to send.
    batch_bytes: u64,
}

/// Content that waits to be sent to the other end.
pub(in crate::transfer) enum Item {
    /// The other end requested it.
    Wanted { request: u32, key: Key, lookup: Lookup },
    /// The other end accepted this end's offer of it.
    Push { request: u32, push: PushId, extent: Extent },
}

/// The lookup of a requested piece.
pub(in crate::transfer) enum Lookup {
    Waiting,
    Asked,
    Found(Located),
}

/// Content that the driver has been told to send.
pub(in crate::transfer) struct Sending {
    /// The file that it is read from; `None` when it is in memory.
    pub(in crate::transfer) place: Option<Place>,
    pub(in crate::transfer) length: u32,
    pub(in crate::transfer) push: Option<PushId>,
}

impl Item {
    /// The number of bytes of content; 0 while the lookup is not answered.
    pub(in crate::transfer) fn length(&self) -> u64 {
        match self {
            Item::Wanted { lookup: Lookup::Found(found), .. } => match &found.bytes {
                Bytes::File(extent) => u64::from(extent.length),
                Bytes::Memory(bytes) => bytes.len() as u64,
            },
            Item::Wanted { .. } => 0,
            Item::Push { extent, .. } => u64::from(extent.length),
        }
    }

    /// Whether this is the content of an offer of this end.
    pub(in crate::transfer) fn is_push(&self, number: u32) -> bool {
        matches!(self, Item::Push { request, .. } if *request == number)
    }
}

impl Outgoing {
    /// Nothing is to be sent.
    pub(super) fn new(now: Instant) -> Self {
        Outgoing {
            queue: VecDeque::new(),
            sending: Vec::new(),
            sending_since: now,
            sent_at: now,
            sent_bytes: 0,
            batch_bytes: 0,
        }
    }

    /// Whether nothing waits and nothing is being sent.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.sending.is_empty()
    }

    /// The number of requested pieces that wait.
    pub(super) fn wanted_count(&self) -> usize {
        self.queue.iter().filter(|item| matches!(item, Item::Wanted { .. })).count()
    }

    /// When the stream is closed unless the other end takes what is sent, and for which reason. `idle` is the time without progress.
    pub(super) fn deadline(&self, idle: Duration) -> Option<(Instant, CloseReason)> {
        if self.sending.is_empty() {
            return None;
        }
        // A peer that takes a copy very slowly would hold up the operation that waits for it.
        let bytes: u64 = self.sending.iter().map(|sending| u64::from(sending.length)).sum();
        let slowest = Duration::from_secs(bytes / BYTES_PER_SECOND_MIN);
        let (unread, slow) = (self.sent_at + idle, self.sending_since + idle + slowest);
        Some(if slow < unread { (slow, CloseReason::Slow) } else { (unread, CloseReason::Unread) })
    }

    /// Counts `bytes` of content that left.
    pub(super) fn sent(&mut self, now: Instant, bytes: u64) {
        self.sent_bytes = self.sent_bytes.saturating_add(bytes);
        self.batch_bytes = self.batch_bytes.saturating_add(bytes);
        if self.sent_bytes >= PROGRESS_BYTES {
            (self.sent_at, self.sent_bytes) = (now, 0);
        }
    }

    /// Since when the driver has had content to send, and how many bytes have left since then.
    pub(in crate::transfer) fn batch(&self) -> (Instant, u64) {
        (self.sending_since, self.batch_bytes)
    }

    /// Hands content to the driver. If the driver had none, the other end's time to take it starts now.
    pub(super) fn send(&mut self, now: Instant, sending: Sending) {
        if self.sending.is_empty() {
            (self.sending_since, self.sent_at) = (now, now);
            (self.sent_bytes, self.batch_bytes) = (0, 0);
        }
        self.sending.push(sending);
    }

    /// The pieces that are to be looked up now. A lookup is made no earlier than its piece can be sent, because the file that it
    /// finds may disappear.
    pub(in crate::transfer) fn lookups(&mut self) -> Vec<(u32, Key)> {
        let ahead = BLOCKS_QUEUED_MAX.saturating_sub(self.sending.len());
        let mut due = Vec::new();
        for item in self.queue.iter_mut().take(ahead) {
            if let Item::Wanted { request, key, lookup } = item {
                if matches!(lookup, Lookup::Waiting) {
                    *lookup = Lookup::Asked;
                    due.push((*request, *key));
                }
            }
        }
        due
    }

    /// Takes the next content to send. All content that the driver has at one time comes from one file, so that a read error
    /// names the file.
    pub(in crate::transfer) fn next_item(&mut self) -> Option<Item> {
        let place = match self.queue.front()? {
            Item::Wanted { lookup: Lookup::Found(found), .. } => match &found.bytes {
                Bytes::File(extent) => Some(&extent.place),
                Bytes::Memory(_) => None,
            },
            Item::Wanted { .. } => return None,
            Item::Push { extent, .. } => Some(&extent.place),
        };
        let free = match self.sending.last() {
            Some(sending) => self.sending.len() < BLOCKS_QUEUED_MAX && sending.place.as_ref() == place,
            None => true,
        };
        if free { self.queue.pop_front() } else { None }
    }

    /// Whether content is ready to be sent.
    pub(in crate::transfer) fn is_ready_to_send(&self) -> bool {
        match self.queue.front() {
            Some(Item::Wanted { lookup, .. }) => matches!(lookup, Lookup::Found(_)),
            Some(Item::Push { .. }) => true,
            None => false,
        }
    }

    /// The position of a requested piece in the queue.
    pub(in crate::transfer) fn wanted(&self, number: u32) -> Option<usize> {
        self.queue.iter().position(|item| matches!(item, Item::Wanted { request, .. } if *request == number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Mode;
    use crate::manifest::Content;

    const START: Instant = Instant::from_secs(9);

    fn sending(length: u32, place: Option<Place>) -> Sending {
        Sending { place, length, push: None }
    }

    /// A piece that was requested and found in this file.
    fn found(request: u32, file: u64) -> Item {
        let place = Place::Incoming(file);
        let extent = Extent { place, offset: 0, length: 10, stamp: None };
        let located = Located { content: Content::Chunk, mode: Mode::UNKNOWN, bytes: Bytes::File(extent) };
        Item::Wanted { request, key: Key([7; 32]), lookup: Lookup::Found(located) }
    }

    #[test]
    fn a_piece_is_looked_up_once_and_only_when_it_can_be_sent_soon() {
        let mut outgoing = Outgoing::new(START);
        for request in 1..=3 {
            let lookup = Lookup::Waiting;
            outgoing.queue.push_back(Item::Wanted { request, key: Key([request as u8; 32]), lookup });
        }
        let due: Vec<u32> = outgoing.lookups().iter().map(|(request, _)| *request).collect();
        assert_eq!(due, [1, 2]);
        assert_eq!(outgoing.lookups(), []);
    }

    #[test]
    fn content_that_the_driver_has_at_one_time_is_of_one_file() {
        let mut outgoing = Outgoing::new(START);
        outgoing.queue.extend([found(1, 1), found(2, 2)]);
        while let Some(item) = outgoing.next_item() {
            let Item::Wanted { lookup: Lookup::Found(located), .. } = item else { panic!("it was found") };
            let Bytes::File(extent) = located.bytes else { panic!("it is in a file") };
            outgoing.send(START, sending(extent.length, Some(extent.place)));
        }
        assert_eq!(outgoing.sending.len(), 1);
        outgoing.sending.clear();
        assert!(outgoing.next_item().is_some(), "the other file is next");
    }

    #[test]
    fn a_peer_that_takes_nothing_is_given_up_before_one_that_takes_too_little() {
        let mut outgoing = Outgoing::new(START);
        let idle = Duration::from_secs(30);
        assert!(outgoing.deadline(idle).is_none());
        outgoing.send(START, sending(20_480, None));
        assert_eq!(outgoing.deadline(idle), Some((START + idle, CloseReason::Unread)));
        let later = START + Duration::from_secs(25);
        outgoing.sent(later, PROGRESS_BYTES);
        let slowest = Duration::from_secs(10);
        assert_eq!(outgoing.deadline(idle), Some((START + idle + slowest, CloseReason::Slow)));
    }
}
