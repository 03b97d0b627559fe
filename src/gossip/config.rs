//! The configuration of membership.

use crate::peers::party::Parties;
use crate::time::Duration;
use core::fmt;

/// The configuration of membership. The default suits nodes that stay for days. All durations divided by the same number make the
/// whole cycle faster by that number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GossipConfig {
    /// The time between two rounds, ± 10 %.
    pub interval: Duration,
    /// Members that a round goes to. A leaf goes to one.
    pub fanout: usize,
    /// Members that are remembered: the nearest, and a sample of the others. Each takes about 300 bytes.
    pub view_max: usize,
    /// The members nearest to this node that make up its neighbourhood.
    pub neighbours: usize,
    /// The nearest of those. They are probed as soon as they are silent.
    pub monitored: usize,
    /// The silence after which a monitored member is probed.
    pub silent_after: Duration,
    /// The silence after which a suspect is unresponsive, if local health is good.
    pub unresponsive_after: Duration,
    /// The silence after which a member is evicted.
    pub evicted_after: Duration,
    /// The least time between two states of this node in which only numbers changed: the load, pieces, free bytes.
    pub tell_interval: Duration,
    /// Signatures of states that are checked in one second for one teller.
    pub state_checks_per_second_max: u32,
    /// Probes for others in one second.
    pub relayed_probes_per_second_max: u32,
    /// How parties are told apart.
    pub parties: Parties,
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
            parties: Parties::default(),
        }
    }
}

/// A contradiction between values of the configuration, in words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvalidGossipConfig(pub &'static str);

impl fmt::Display for InvalidGossipConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gossip settings contradict each other: {}", self.0)
    }
}

impl std::error::Error for InvalidGossipConfig {}

impl GossipConfig {
    /// The largest allowed view.
    pub const VIEW_MAX: usize = 8192;

    /// Checks the values against each other.
    pub fn validate(&self) -> Result<(), InvalidGossipConfig> {
        let rules = [
            (
                self.interval >= Duration::from_millis(100),
                "a round must take 100 ms or longer, so that answers arrive before the next begins",
            ),
            (
                self.interval <= self.silent_after,
                "the interval of rounds must not be longer than the silence after which a member is probed",
            ),
            (
                self.silent_after * 2 <= self.unresponsive_after,
                "a member must be silent at least twice as long before it is unresponsive as before it is probed",
            ),
            (
                self.unresponsive_after < self.evicted_after,
                "a member must be evicted later than it is unresponsive",
            ),
            ((1..=16).contains(&self.fanout), "a round must go to 1 to 16 members"),
            ((1..=255).contains(&self.neighbours), "a neighbourhood must have 1 to 255 members"),
            (
                self.monitored <= self.neighbours,
                "no more members can be monitored than the neighbourhood has",
            ),
            (
                self.neighbours * 2 <= self.view_max,
                "the neighbourhood must leave half of the view to members that are far away",
            ),
            (self.view_max <= Self::VIEW_MAX, "a view can have at most 8192 members"),
            (
                self.state_checks_per_second_max >= 10,
                "at least 10 states a second must be checked, because every new member brings one",
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
    fn the_default_is_valid_and_a_contradiction_is_reported() {
        assert_eq!(GossipConfig::default().validate(), Ok(()));
        let wrong = GossipConfig { view_max: 50, ..GossipConfig::default() };
        assert!(wrong.validate().unwrap_err().to_string().contains("half of the view"));
    }
}
