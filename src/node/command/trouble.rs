//! What is wrong with a node, in one list: the line of truth of `status`.

use super::status::{DiskHealth, Status};
use serde::{Deserialize, Serialize};

/// One thing that is wrong with a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Trouble {
    /// What it is.
    pub kind: TroubleKind,
    /// For how many seconds it has been so.
    pub seconds: u64,
    /// The same in words, with what follows from it.
    pub message: String,
}

/// The kinds of trouble, from worst to least.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TroubleKind {
    /// Another process runs with the same key.
    IdentityTwice,
    /// The node's directory does not exist any more.
    DirectoryGone,
    /// The disk reports errors.
    DiskFailing,
    /// The disk cannot be written to.
    DiskReadOnly,
    /// The disk is full.
    DiskFull,
    /// The address that the node listens on has gone from the machine.
    AddressGone,
    /// No other node is there.
    NoMembers,
    /// Other nodes cannot connect to it: it is behind a NAT or a firewall, and takes part as a leaf.
    Unreachable,
    /// Many neighbours fell silent at once: the node suspects that it is partitioned.
    Partition,
}

impl Trouble {
    /// What is wrong according to a status, the worst first.
    pub fn all_of(status: &Status) -> Vec<Trouble> {
        let mut troubles = Vec::new();
        let mut add = |kind, seconds, message: String| troubles.push(Trouble { kind, seconds, message });
        if let Some(twice) = &status.identity_twice {
            let message = format!(
                "its identity is in use twice: another node with the same key is at {}",
                twice.address
            );
            add(TroubleKind::IdentityTwice, twice.seconds, message);
        }
        let kind = match status.disk.health {
            DiskHealth::Well => None,
            DiskHealth::Gone => Some(TroubleKind::DirectoryGone),
            DiskHealth::Failing => Some(TroubleKind::DiskFailing),
            DiskHealth::ReadOnly => Some(TroubleKind::DiskReadOnly),
            DiskHealth::Full => Some(TroubleKind::DiskFull),
        };
        if let Some(kind) = kind {
            let message = match kind {
                TroubleKind::DirectoryGone => format!("its directory is gone: {}", status.disk.message),
                _ => format!("its disk is {}: {}", status.disk.health.name(), status.disk.message),
            };
            add(kind, status.disk.seconds, message);
        }
        if let Some(gone) = &status.address_gone {
            let message = format!("the address {} on which it listens is not on this machine", gone.address);
            add(TroubleKind::AddressGone, gone.seconds, message);
        }
        if let Some(seconds) = status.alone_seconds {
            add(TroubleKind::NoMembers, seconds, "no other node can be reached".to_owned());
        }
        if let Some(unreachable) = &status.unreachable {
            let at = unreachable.address.map_or(String::new(), |address| format!(" at {address}"));
            let message =
                format!("other nodes cannot connect to it{at} (NAT or firewall): it takes part as a leaf");
            add(TroubleKind::Unreachable, unreachable.seconds, message);
        }
        if let Some(partition) = status.repair.as_ref().and_then(|repair| repair.partition) {
            let message = format!(
                "a partition is suspected: {} of {} neighbours fell silent at once",
                partition.silent, partition.neighbours
            );
            add(TroubleKind::Partition, partition.seconds, message);
        }
        debug_assert!(troubles.is_sorted_by_key(|trouble| trouble.kind));
        troubles
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::command::{
        AddressGone, DiskStatus, IdentityTwice, PartitionStatus, RepairStatus, Unreachable,
    };

    fn kinds(status: &Status) -> Vec<TroubleKind> {
        Trouble::all_of(status).iter().map(|trouble| trouble.kind).collect()
    }

    #[test]
    fn a_node_without_troubles_is_well() {
        assert_eq!(kinds(&Status::default()), []);
    }

    #[test]
    fn every_trouble_is_told_and_the_worst_first() {
        let partition =
            PartitionStatus { silent: 5, neighbours: 8, seconds: 7, ..PartitionStatus::default() };
        let status = Status {
            identity_twice: Some(IdentityTwice { address: ([10, 0, 0, 1], 1).into(), seconds: 1 }),
            disk: DiskStatus { health: DiskHealth::Full, seconds: 2, message: "no room".into() },
            address_gone: Some(AddressGone { address: [10, 0, 0, 9].into(), seconds: 3 }),
            alone_seconds: Some(60),
            unreachable: Some(Unreachable { address: None, seconds: 6 }),
            repair: Some(RepairStatus { partition: Some(partition), ..RepairStatus::default() }),
            ..Status::default()
        };
        let expected = [
            TroubleKind::IdentityTwice,
            TroubleKind::DiskFull,
            TroubleKind::AddressGone,
            TroubleKind::NoMembers,
            TroubleKind::Unreachable,
            TroubleKind::Partition,
        ];
        assert_eq!(kinds(&status), expected);
        let seconds: Vec<u64> = Trouble::all_of(&status).iter().map(|trouble| trouble.seconds).collect();
        assert_eq!(seconds, [1, 2, 3, 60, 6, 7]);
    }

    #[test]
    fn each_state_of_the_disk_but_well_is_a_trouble_of_its_own() {
        let of = |health| {
            kinds(&Status { disk: DiskStatus { health, ..DiskStatus::default() }, ..Status::default() })
        };
        assert_eq!(of(DiskHealth::Well), []);
        let unwell = [DiskHealth::Full, DiskHealth::ReadOnly, DiskHealth::Failing, DiskHealth::Gone];
        let expected = [
            TroubleKind::DiskFull,
            TroubleKind::DiskReadOnly,
            TroubleKind::DiskFailing,
            TroubleKind::DirectoryGone,
        ];
        assert_eq!(unwell.into_iter().flat_map(of).collect::<Vec<TroubleKind>>(), expected);
    }
}
