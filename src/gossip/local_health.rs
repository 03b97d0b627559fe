//! Local health: how slow this node itself is.

use crate::time::Duration;

/// Local health: 0 is well, [`LocalHealth::WORST`] is worst. A node that receives nothing should suspect itself before it suspects all
/// others (the local health multiplier of Lifeguard: Dadgar, Phillips and Currey, 2018). A departure from that paper: the word of
/// others weighs little. Otherwise many liars together would keep every node slow to detect failures.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct LocalHealth {
    /// What this node noticed itself.
    own: u8,
    /// What others said.
    hearsay: u8,
}

impl LocalHealth {
    /// The worst score.
    pub(super) const WORST: u8 = 8;
    /// The worst score that the word of others can cause.
    const WORST_HEARSAY: u8 = 2;
    /// A point of hearsay extends a timeout by one in this many parts of it, all of them together by a quarter.
    const HEARSAY_PARTS: u32 = 8;

    /// Evidence of bad health: a timer that fired late, relays that did not answer.
    pub(super) fn worse(&mut self) {
        self.own = (self.own + 1).min(Self::WORST);
    }

    /// Another node says that others reach a member which this node does not reach, or that it does not reach this node.
    pub(super) fn doubted(&mut self) {
        self.hearsay = (self.hearsay + 1).min(Self::WORST_HEARSAY);
    }

    /// Evidence of good health: an answer in time.
    pub(super) fn better(&mut self) {
        (self.own, self.hearsay) = (self.own.saturating_sub(1), self.hearsay.saturating_sub(1));
    }

    /// The score, 0 to [`LocalHealth::WORST`].
    pub(super) fn score(self) -> u8 {
        (self.own + self.hearsay).min(Self::WORST)
    }

    /// A timeout of `time`, extended by bad health.
    pub(super) fn stretch(self, time: Duration) -> Duration {
        time * (1 + u32::from(self.own)) + time * u32::from(self.hearsay) / Self::HEARSAY_PARTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_health_extends_timeouts_and_is_bounded() {
        let mut health = LocalHealth::default();
        assert_eq!(health.stretch(Duration::from_secs(45)), Duration::from_secs(45));
        (0..100).for_each(|_| health.worse());
        assert_eq!(health.stretch(Duration::from_secs(45)), Duration::from_secs(45 * 9));
        (0..100).for_each(|_| health.better());
        assert_eq!(health.score(), 0);
    }

    #[test]
    fn the_word_of_others_extends_timeouts_by_a_quarter_at_most() {
        let mut health = LocalHealth::default();
        (0..100).for_each(|_| health.doubted());
        assert_eq!(health.stretch(Duration::from_secs(40)), Duration::from_secs(50));
        assert_eq!(health.score(), 2);
        (0..2).for_each(|_| health.better());
        assert_eq!(health.stretch(Duration::from_secs(40)), Duration::from_secs(40));
    }
}
