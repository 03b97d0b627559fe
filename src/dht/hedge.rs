//! Whether a lookup asks one node more than it needs, in case that an answer is late.
//!
//! The spare request saves the wait for a late answer and costs a request and its answer in every lookup (hedged requests: Dean and
//! Barroso, "The tail at scale", 2013). So lookups send it only for a while after an answer was late.

/// The number of answers in time after which no spare request is sent. A lookup needs five answers: where one answer in 256 is late,
/// one lookup in fifty waits.
const CALM: u16 = 256;
/// The number at the start: a new node does not know its network.
const CALM_AT_START: u16 = 64;

/// How many answers in time are missing before lookups send no spare request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hedge {
    wary: u16,
}

impl Default for Hedge {
    fn default() -> Self {
        Hedge { wary: CALM_AT_START }
    }
}

impl Hedge {
    /// A node answered a lookup's request before its answer was late.
    pub(super) fn in_time(&mut self) {
        self.wary = self.wary.saturating_sub(1);
    }

    /// The answer to a lookup's request is late.
    pub(super) fn late(&mut self) {
        self.wary = CALM;
    }

    /// The number of requests that a lookup sends beyond those that it needs.
    pub(super) fn spare(self) -> usize {
        usize::from(self.wary > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spare_request_is_sent_until_answers_came_in_time_for_a_while() {
        let mut hedge = Hedge::default();
        (1..CALM_AT_START).for_each(|_| hedge.in_time());
        assert_eq!(hedge.spare(), 1);
        hedge.in_time();
        assert_eq!(hedge.spare(), 0);
    }

    #[test]
    fn one_late_answer_brings_the_spare_request_back() {
        let mut hedge = Hedge::default();
        (0..1000).for_each(|_| hedge.in_time());
        hedge.late();
        (1..CALM).for_each(|_| hedge.in_time());
        assert_eq!(hedge.spare(), 1);
        hedge.in_time();
        assert_eq!(hedge.spare(), 0);
    }
}
