//! Local health: how slow this node itself is.

use crate::time::Duration;

/// Local health: 0 is well, [`LocalHealth::WORST`] is worst. A node that receives nothing should suspect itself before it suspects all
/// others (the local health multiplier of Lifeguard: Dadgar, Phillips and Currey, 2018).
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct LocalHealth(u8);

impl LocalHealth {
    /// The worst score.
    pub(super) const WORST: u8 = 8;
    /// The worst score that the word of others can cause. Liars must not make this node slow to detect failures.
    const WORST_HEARSAY: u8 = 2;

    /// Evidence of bad health: a timer that fired late, relays that did not answer.
    pub(super) fn worse(&mut self) {
        self.0 = (self.0 + 1).min(Self::WORST);
    }

    /// Another node says that others reach a member which this node does not reach, or that it does not reach this node.
    pub(super) fn doubted(&mut self) {
        if self.0 < Self::WORST_HEARSAY {
            self.worse();
        }
    }

    /// Evidence of good health: an answer in time.
    pub(super) fn better(&mut self) {
        self.0 = self.0.saturating_sub(1);
    }

    /// The score, 0 to [`LocalHealth::WORST`].
    pub(super) fn score(self) -> u8 {
        self.0
    }

    /// A timeout of `time`, extended by bad health.
    pub(super) fn stretch(self, time: Duration) -> Duration {
        time * (1 + u32::from(self.0))
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
}
