//! The settings without a flag: how membership and repair work.
//!
//! They serve tests of a whole cycle of failure and repair on one desk, and networks of an unusual kind. In a list of flags they
//! would only be in the way. Each stands under a section of `elver.toml` and has a variable: `interval` of `[gossip]` is
//! `ELVER_GOSSIP_INTERVAL`.

use super::units;
use crate::gossip::GossipConfig;
use crate::replication::ReplicationConfig;
use crate::time::Duration;
use std::collections::BTreeMap;

/// The configurations that the settings of all sections change.
#[derive(Clone, Default)]
pub(super) struct Tuning {
    pub(super) gossip: GossipConfig,
    pub(super) replication: ReplicationConfig,
}

/// A setting of a section.
pub(super) struct Setting {
    pub(super) section: &'static str,
    pub(super) name: &'static str,
    /// The explanation, for the sample file.
    pub(super) about: &'static str,
    /// The default, as it is written in a file.
    pub(super) default: &'static str,
    set: fn(&mut Tuning, &str) -> Result<(), String>,
}

/// Every setting of every section, the settings of a section together.
pub(super) const SETTINGS: [Setting; 16] = [
    Setting {
        section: "gossip",
        name: "interval",
        about: "Time between two rounds of gossip.",
        default: "5",
        set: |to, text| time(text, &mut to.gossip.interval),
    },
    Setting {
        section: "gossip",
        name: "peers",
        about: "Members told in a round.",
        default: "3",
        set: |to, text| count(text, &mut to.gossip.fanout),
    },
    Setting {
        section: "gossip",
        name: "view",
        about: "Members remembered.",
        default: "512",
        set: |to, text| count(text, &mut to.gossip.view_max),
    },
    Setting {
        section: "membership",
        name: "monitored",
        about: "Nearest members that are probed when they are silent.",
        default: "10",
        set: |to, text| count(text, &mut to.gossip.monitored),
    },
    Setting {
        section: "membership",
        name: "silent",
        about: "Silence after which a member is probed.",
        default: "15",
        set: |to, text| time(text, &mut to.gossip.silent_after),
    },
    Setting {
        section: "membership",
        name: "unresponsive",
        about: "Silence after which a holder's place may be given to another node.",
        default: "45",
        set: |to, text| time(text, &mut to.gossip.unresponsive_after),
    },
    Setting {
        section: "membership",
        name: "evicted",
        about: "Silence after which a member is no holder any more.",
        default: "900",
        set: |to, text| time(text, &mut to.gossip.evicted_after),
    },
    Setting {
        section: "repair",
        name: "urgent",
        about: "A piece with no more copies than a quorum is repaired after this time.",
        default: "60",
        set: |to, text| time(text, &mut to.replication.urgent_after),
    },
    Setting {
        section: "repair",
        name: "rank",
        about: "The next holder waits this much longer than the one before it.",
        default: "30",
        set: |to, text| time(text, &mut to.replication.rank_wait),
    },
    Setting {
        section: "repair",
        name: "settle",
        about: "Time until a newcomer counts.",
        default: "60",
        set: |to, text| time(text, &mut to.replication.settle),
    },
    Setting {
        section: "repair",
        name: "surplus",
        about: "Time for which a copy too many is kept.",
        default: "3600",
        set: |to, text| time(text, &mut to.replication.surplus_after),
    },
    Setting {
        section: "repair",
        name: "reconcile",
        about: "Time between two full checks with a neighbour.",
        default: "600",
        set: |to, text| time(text, &mut to.replication.reconcile_interval),
    },
    Setting {
        section: "repair",
        name: "transfers",
        about: "Copies made at a time.",
        default: "5",
        set: |to, text| count(text, &mut to.replication.transfers_max),
    },
    Setting {
        section: "repair",
        name: "rate",
        about: "Bytes a second for repair; 0 is a quarter of the uplink.",
        default: "0",
        set: |to, text| {
            to.replication.bytes_per_second = units::parse_size(text).map_err(|error| error.to_string())?;
            Ok(())
        },
    },
    Setting {
        section: "repair",
        name: "cut_off_percent",
        about: "When more of the neighbours than this fall silent at once, the node suspects that it is cut off, and repairs nothing.",
        default: "15",
        set: |to, text| {
            let percent = text.parse().map_err(|_| format!("`{text}` is no number from 0 to 100"))?;
            to.replication.cut_off_percent = percent;
            Ok(())
        },
    },
    Setting {
        section: "repair",
        name: "cut_off_wait",
        about: "Time after which it repairs all the same.",
        default: "900",
        set: |to, text| time(text, &mut to.replication.cut_off_wait),
    },
];

impl Setting {
    /// The setting's name outside of its section: `section.name`.
    pub(super) fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// The variable that has the same value.
    pub(super) fn variable(&self) -> String {
        format!("ELVER_{}_{}", self.section, self.name).to_ascii_uppercase()
    }
}

/// The setting of this name in this section; none in a section that is not there.
pub(super) fn find(section: &str, name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.section == section && setting.name == name)
}

/// The names of the sections.
pub(super) fn sections() -> Vec<&'static str> {
    let mut sections: Vec<_> = SETTINGS.iter().map(|setting| setting.section).collect();
    sections.dedup();
    sections
}

/// The settings of sections that one source gives. Each value was tried when it was read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sections(BTreeMap<(&'static str, &'static str), String>);

impl Sections {
    /// Takes a value. The error is the reason why the value is refused.
    pub(super) fn set(&mut self, setting: &Setting, text: String) -> Result<(), String> {
        (setting.set)(&mut Tuning::default(), &text)?;
        self.0.insert((setting.section, setting.name), text);
        Ok(())
    }

    /// These settings, completed by those of `others`.
    pub(super) fn or(self, mut others: Sections) -> Sections {
        others.0.extend(self.0);
        others
    }

    /// The names of the settings that differ from those of `others`, with their sections.
    pub(super) fn differing(&self, others: &Sections) -> Vec<String> {
        let differs = |setting: &&Setting| {
            let key = (setting.section, setting.name);
            self.0.get(&key) != others.0.get(&key)
        };
        SETTINGS.iter().filter(differs).map(Setting::path).collect()
    }

    /// The default configurations, changed by these settings.
    pub(super) fn tuning(&self) -> Tuning {
        let mut tuning = Tuning::default();
        for ((section, name), text) in &self.0 {
            if let Some(setting) = find(section, name) {
                (setting.set)(&mut tuning, text).expect("a value that was tried when it was read");
            }
        }
        // These values have no settings. They keep their proportion to values that have.
        let (gossip, default) = (&mut tuning.gossip, GossipConfig::default());
        gossip.tell_interval = gossip.interval * times(default.tell_interval, default.interval);
        let default_window = ReplicationConfig::default().cut_off_window;
        tuning.replication.cut_off_window =
            gossip.unresponsive_after * times(default_window, default.unresponsive_after);
        tuning
    }
}

/// The quotient of two whole numbers of seconds.
fn times(whole: Duration, part: Duration) -> u32 {
    (whole.as_secs() / part.as_secs()) as u32
}

fn time(text: &str, to: &mut Duration) -> Result<(), String> {
    *to = units::parse_time(text).map_err(|error| error.to_string())?;
    Ok(())
}

fn count(text: &str, to: &mut usize) -> Result<(), String> {
    *to = text.parse::<u16>().map_err(|_| format!("`{text}` is no number from 0 to {}", u16::MAX))?.into();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_that_is_shown_is_the_default() {
        for setting in &SETTINGS {
            let (mut set, unset) = (Tuning::default(), Tuning::default());
            (setting.set)(&mut set, setting.default).unwrap();
            assert_eq!(
                (set.gossip, set.replication),
                (unset.gossip, unset.replication),
                "{}",
                setting.path()
            );
        }
    }

    #[test]
    fn what_has_no_setting_keeps_its_proportion() {
        let tuning = Sections::default().tuning();
        assert_eq!(tuning.gossip, GossipConfig::default());
        assert_eq!(tuning.replication, ReplicationConfig::default());
        let mut sections = Sections::default();
        for (section, name, text) in [("gossip", "interval", "0.5"), ("membership", "unresponsive", "4")] {
            sections.set(find(section, name).unwrap(), text.to_owned()).unwrap();
        }
        let tuning = sections.tuning();
        assert_eq!(tuning.gossip.tell_interval, Duration::from_secs(30));
        assert_eq!(tuning.replication.cut_off_window, Duration::from_secs(8));
    }
}
