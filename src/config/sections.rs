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
    set: fn(&mut Tuning, &str) -> Result<(), String>,
}

/// Every setting of every section, the settings of a section together.
pub(super) const SETTINGS: [Setting; 16] = [
    Setting { section: "gossip", name: "interval", set: |to, text| time(text, &mut to.gossip.interval) },
    Setting { section: "gossip", name: "peers", set: |to, text| count(text, &mut to.gossip.fanout) },
    Setting { section: "gossip", name: "view", set: |to, text| count(text, &mut to.gossip.view_max) },
    Setting {
        section: "membership",
        name: "monitored",
        set: |to, text| count(text, &mut to.gossip.monitored),
    },
    Setting {
        section: "membership",
        name: "silent",
        set: |to, text| time(text, &mut to.gossip.silent_after),
    },
    Setting {
        section: "membership",
        name: "unresponsive",
        set: |to, text| time(text, &mut to.gossip.unresponsive_after),
    },
    Setting {
        section: "membership",
        name: "evicted",
        set: |to, text| time(text, &mut to.gossip.evicted_after),
    },
    Setting {
        section: "repair",
        name: "urgent",
        set: |to, text| time(text, &mut to.replication.urgent_after),
    },
    Setting { section: "repair", name: "rank", set: |to, text| time(text, &mut to.replication.rank_wait) },
    Setting { section: "repair", name: "settle", set: |to, text| time(text, &mut to.replication.settle) },
    Setting {
        section: "repair",
        name: "surplus",
        set: |to, text| time(text, &mut to.replication.surplus_after),
    },
    Setting {
        section: "repair",
        name: "reconcile",
        set: |to, text| time(text, &mut to.replication.reconcile_interval),
    },
    Setting {
        section: "repair",
        name: "transfers",
        set: |to, text| count(text, &mut to.replication.transfers_max),
    },
    Setting {
        section: "repair",
        name: "rate",
        set: |to, text| {
            to.replication.bytes_per_second = units::parse_size(text).map_err(|error| error.to_string())?;
            Ok(())
        },
    },
    Setting {
        section: "repair",
        name: "cut_off_percent",
        set: |to, text| {
            let percent = text.parse().map_err(|_| format!("`{text}` is no number from 0 to 100"))?;
            to.replication.cut_off_percent = percent;
            Ok(())
        },
    },
    Setting {
        section: "repair",
        name: "cut_off_wait",
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

/// The names of a section's settings; empty when there is no such section.
pub(super) fn names(section: &str) -> Vec<&'static str> {
    SETTINGS.iter().filter(|setting| setting.section == section).map(|setting| setting.name).collect()
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
