//! How often a node tells of itself, and how long it believes in the silent.

use crate::time::Duration;
use core::fmt;

/// What membership is to keep to. The default is the design's; set small, a whole cycle from silence to eviction fits
/// into a minute.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GossipConfig {
    /// Between two rounds of gossip, jitter aside.
    pub interval: Duration,
    /// Peers that are told in one round.
    pub fanout: usize,
    /// Members that are remembered.
    pub view_max: usize,
    /// The nearest members, by distance to this node: those with which it shares the care for what is stored.
    pub neighbours: usize,
    /// Of those, how many of the nearest are probed when they are silent.
    pub monitored: usize,
    /// Silence after which a monitored member is probed.
    pub silent_after: Duration,
    /// Silence, with failed probes of this node's own, after which a member is unresponsive: holders that it was one of may
    /// be given a substitute.
    pub unresponsive_after: Duration,
    /// Silence after which a member is evicted: it is no holder of anything any more.
    pub evicted_after: Duration,
}

impl Default for GossipConfig {
    fn default() -> Self {
        GossipConfig {
            interval: Duration::from_secs(5),
            fanout: 3,
            view_max: 512,
            neighbours: 40,
            monitored: 10,
            silent_after: Duration::from_secs(15),
            unresponsive_after: Duration::from_secs(45),
            evicted_after: Duration::from_secs(900),
        }
    }
}

/// Values of membership that contradict each other, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidTiming(pub &'static str);

impl fmt::Display for InvalidTiming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the settings of [gossip] and [membership] contradict each other: {}", self.0)
    }
}

impl std::error::Error for InvalidTiming {}

impl GossipConfig {
    /// Checks the values against each other.
    pub fn validate(&self) -> Result<(), InvalidTiming> {
        let rules = [
            (!self.interval.is_zero(), "an interval of 0 would never let the node rest"),
            (self.fanout >= 1, "a round that tells no peer is none"),
            (self.neighbours >= 1, "somebody must be a neighbour"),
            (self.view_max >= self.neighbours, "the view must have room for the whole neighbourhood"),
            (self.view_max > self.fanout, "the view must have room for more than the peers of one round"),
            (self.monitored >= 1, "somebody must be watched"),
            (self.monitored <= self.neighbours, "only neighbours are watched"),
            (!self.silent_after.is_zero(), "nobody can be heard from without a pause"),
            (self.unresponsive_after > self.silent_after, "`unresponsive` comes after `silent`"),
            (self.evicted_after > self.unresponsive_after, "`evicted` comes after `unresponsive`"),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, why)) => Err(InvalidTiming(why)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_a_contradiction_is_named() {
        let default = GossipConfig::default();
        assert_eq!(default.validate(), Ok(()));
        for (wrong, expected) in [
            (GossipConfig { interval: Duration::ZERO, ..default.clone() }, "interval of 0"),
            (
                GossipConfig { unresponsive_after: Duration::from_secs(3), ..default.clone() },
                "after `silent`",
            ),
            (GossipConfig { evicted_after: Duration::from_secs(45), ..default.clone() }, "`evicted` comes"),
            (GossipConfig { monitored: 41, ..default.clone() }, "only neighbours"),
            (GossipConfig { view_max: 39, ..default.clone() }, "the whole neighbourhood"),
        ] {
            assert!(wrong.validate().unwrap_err().to_string().contains(expected), "{expected}");
        }
    }
}
