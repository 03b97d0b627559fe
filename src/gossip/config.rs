//! What a node's membership is told at the start.

use crate::time::Duration;
use core::fmt;

/// How a node keeps in touch with the others. The default is for nodes that stay for days; with everything divided by the
/// same number the whole cycle runs faster by that number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GossipConfig {
    /// Between two rounds, give or take a tenth.
    pub interval: Duration,
    /// Members that a round goes to. A leaf goes to one.
    pub fanout: usize,
    /// Members that are remembered: the nearest, and a sample of the others. Each takes about 300 bytes.
    pub view_max: usize,
    /// The members nearest to this node that make up its neighbourhood.
    pub neighbours: usize,
    /// The nearest of those, which are asked whether they are there as soon as they are silent.
    pub monitored: usize,
    /// Silence after which a monitored member is asked.
    pub silent_after: Duration,
    /// Silence after which a suspect is unresponsive, when this node itself is well.
    pub unresponsive_after: Duration,
    /// Silence after which a member is evicted.
    pub evicted_after: Duration,
    /// The least time between two states of this node that tell of no more than another load or another number of pieces.
    pub tell_interval: Duration,
    /// Signatures of states that are checked in one second.
    pub state_checks_per_second_max: u32,
    /// Members that are asked for others in one second.
    pub relayed_probes_per_second_max: u32,
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
            tell_interval: Duration::from_secs(300),
            state_checks_per_second_max: 100,
            relayed_probes_per_second_max: 8,
        }
    }
}

/// A value of the configuration that contradicts another, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvalidGossipConfig(pub &'static str);

impl fmt::Display for InvalidGossipConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gossip settings contradict each other: {}", self.0)
    }
}

impl std::error::Error for InvalidGossipConfig {}

impl GossipConfig {
    /// The most members that can be remembered.
    pub const VIEW_MAX: usize = 8192;

    /// Checks the values against each other.
    pub fn validate(&self) -> Result<(), InvalidGossipConfig> {
        let rules = [
            (
                self.interval >= Duration::from_millis(100),
                "a round takes longer than a tenth of a second: answers must have come when the next begins",
            ),
            (self.interval <= self.silent_after, "who is silent is asked within a round"),
            (
                self.silent_after * 2 <= self.unresponsive_after,
                "a silent member needs time to answer before it is unresponsive: at least as long again",
            ),
            (
                self.unresponsive_after < self.evicted_after,
                "a member is unresponsive for a while before it is evicted",
            ),
            ((1..=16).contains(&self.fanout), "a round goes to 1 up to 16 members"),
            ((1..=255).contains(&self.neighbours), "a neighbourhood has 1 up to 255 members"),
            (self.monitored <= self.neighbours, "who is monitored is a neighbour"),
            (self.neighbours * 2 <= self.view_max, "half of the view is for members that are far away"),
            (self.view_max <= Self::VIEW_MAX, "a view has at most 8192 members"),
            (
                self.state_checks_per_second_max >= 10,
                "every member that is met brings a state whose signature is checked",
            ),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, why)) => Err(InvalidGossipConfig(why)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_a_contradiction_is_named() {
        assert_eq!(GossipConfig::default().validate(), Ok(()));
        let wrong = GossipConfig { view_max: 50, ..GossipConfig::default() };
        assert!(wrong.validate().unwrap_err().to_string().contains("half of the view"));
    }
}
