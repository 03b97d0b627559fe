//! One source of a download: what it has, what it has been asked, and when it may be dialled or asked again.

use super::chunks::Bits;
use crate::id::NodeId;
use crate::time::{Duration, Instant};
use crate::transfer::Timing;
use crate::wire::contact::Contact;

/// Attempts to connect after the first.
const RETRIES_MAX: u8 = 2;

/// A node that may have some of the file.
pub(super) struct Source {
    pub(super) contact: Contact,
    /// A random number. Sources are tried in the order of these numbers.
    pub(super) order: u64,
    /// Failures in a row.
    pub(super) failures: u8,
    /// When it may next be dialled.
    pub(super) retry_at: Instant,
    /// When it may next be asked for pieces: it answered that it is busy.
    pub(super) pause: Instant,
    pub(super) banned: bool,
    /// Whether it has authenticated itself on a stream.
    pub(super) met: bool,
    /// The source that named it, if one did. That such a node exists is hearsay until it is authenticated.
    pub(super) hearsay: Option<NodeId>,
    /// Chunks in a row that it announced and then refused.
    pub(super) denied: u32,
    pub(super) root: RootState,
    /// The chunks that it has announced.
    pub(super) has: Bits,
    /// The chunk from which the next question starts; `None` between two rounds of questions.
    pub(super) cursor: Option<u32>,
    /// The number of questions that it has not answered.
    pub(super) questions: u32,
    /// Whether this round of questions brought anything new.
    pub(super) news: bool,
    /// Whether it has answered a whole round.
    pub(super) asked_once: bool,
    /// When the next round starts, and the wait before the round after that.
    pub(super) ask_at: Instant,
    pub(super) ask_delay: Duration,
}

/// Whether a source has the root.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RootState {
    Unasked,
    Asked { since: Instant },
    NotFound { again: Instant },
}

impl Source {
    pub(super) fn new(now: Instant, contact: Contact, order: u64, timing: &Timing) -> Self {
        Source {
            contact,
            order,
            failures: 0,
            retry_at: now,
            pause: now,
            banned: false,
            met: false,
            hearsay: None,
            denied: 0,
            root: RootState::Unasked,
            has: Bits::default(),
            cursor: None,
            questions: 0,
            news: false,
            asked_once: false,
            ask_at: now,
            ask_delay: timing.ask_again,
        }
    }

    /// Whether it is not dialled any more.
    pub(super) fn given_up(&self) -> bool {
        self.banned || self.failures > RETRIES_MAX
    }

    /// It could not be reached, or its stream broke while it was needed.
    pub(super) fn fail(&mut self, now: Instant, timing: &Timing) {
        self.failures = self.failures.saturating_add(1);
        self.retry_at = now
            + match self.failures {
                1 => timing.retry_first,
                2 => timing.retry_second,
                _ => timing.forgive,
            };
    }

    /// Starts a round of questions which chunks it has.
    pub(super) fn start_round(&mut self) {
        (self.cursor, self.news) = (Some(0), false);
    }

    /// Ends a round of questions. The wait before the next doubles if this one brought nothing new.
    pub(super) fn end_round(&mut self, now: Instant, timing: &Timing) {
        self.ask_delay = match self.news || !self.asked_once {
            true => timing.ask_again,
            false => (self.ask_delay * 2).min(timing.ask_again_max),
        };
        (self.asked_once, self.news) = (true, false);
        self.ask_at = now + self.ask_delay;
    }

    /// It answered that it does not have the root.
    pub(super) fn root_not_found(&mut self, now: Instant, timing: &Timing) {
        self.root = RootState::NotFound { again: now + self.ask_delay };
        self.ask_delay = (self.ask_delay * 2).min(timing.ask_again_max);
    }
}
