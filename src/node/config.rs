//! The configuration of a node.

use super::names::HostName;
use crate::gossip::{self, GossipConfig};
use crate::id::IdWork;
use crate::limits::{InvalidLimits, LIFETIME_SECONDS_MAX, Limits};
use crate::replication::{self, ReplicationConfig};
use crate::wire::network::NetworkSecret;
use core::fmt;
use core::net::SocketAddr;
use std::path::PathBuf;

/// The configuration of a node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// The bounds.
    pub limits: Limits,
    /// Whether the node is a leaf: it looks up and downloads, but is in no routing table and keeps nothing for others.
    pub leaf: bool,
    /// The network's name. Nodes of different networks refuse each other's messages.
    pub network: String,
    /// The network's secret; without one the network is open to every node that knows its name.
    pub network_secret: Option<NetworkSecret>,
    /// The work that the identities of the network have to show, this node's included.
    pub id_work: IdWork,
    /// The address of the driver's sockets, UDP and TCP.
    pub listen: SocketAddr,
    /// Nodes to join through.
    pub bootstrap: Vec<SocketAddr>,
    /// Names of further nodes to join through.
    pub bootstrap_names: Vec<HostName>,
    /// Whether the node finds others on its own links: see [`Output::Here`](super::Output::Here).
    pub lan: bool,
    /// Copies that the network keeps of a file, unless `put` says otherwise.
    pub replicas: u8,
    /// Seconds that copies are kept, unless `put` says otherwise.
    pub lifetime: u32,
    /// The directory of the node's cache, for the paths in answers.
    pub cache_dir: PathBuf,
    /// The configuration of membership.
    pub gossip: GossipConfig,
    /// The configuration of replication.
    pub replication: ReplicationConfig,
}

impl NodeConfig {
    /// Copies that the network keeps of a file by default.
    pub const REPLICAS: u8 = 3;
    /// Seconds that copies are kept by default: a year.
    pub const LIFETIME: u32 = LIFETIME_SECONDS_MAX;

    /// Checks that no two values contradict each other.
    pub fn validate(&self) -> Result<(), InvalidConfig> {
        self.limits.validate()?;
        self.gossip.validate()?;
        self.replication.validate()?;
        Ok(())
    }
}

/// A contradiction between values of the configuration.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum InvalidConfig {
    /// Of the bounds.
    Limits(InvalidLimits),
    /// Of membership.
    Gossip(gossip::InvalidGossipConfig),
    /// Of replication.
    Replication(replication::InvalidReplication),
    /// This node's own identity does not show the work that the network asks for.
    IdWork {
        /// The work that is asked for.
        asked: IdWork,
        /// The bits that the identity shows.
        shown: u32,
    },
}

impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InvalidConfig::Limits(error) => error.fmt(f),
            InvalidConfig::Gossip(error) => error.fmt(f),
            InvalidConfig::Replication(error) => error.fmt(f),
            InvalidConfig::IdWork { asked, shown } => {
                let bits = asked.bits();
                write!(
                    f,
                    "the node's identity shows {shown} of the {asked} of work that its network asks for (--id-work), so no node \
                     of the network would deal with it: find one with `elver id --new --id-work {bits}`, which tries about \
                     {} keys, or leave --id-work out to join a network that asks for none",
                    asked.keys()
                )
            }
        }
    }
}

impl std::error::Error for InvalidConfig {}

impl From<InvalidLimits> for InvalidConfig {
    fn from(error: InvalidLimits) -> Self {
        InvalidConfig::Limits(error)
    }
}

impl From<gossip::InvalidGossipConfig> for InvalidConfig {
    fn from(error: gossip::InvalidGossipConfig) -> Self {
        InvalidConfig::Gossip(error)
    }
}

impl From<replication::InvalidReplication> for InvalidConfig {
    fn from(error: replication::InvalidReplication) -> Self {
        InvalidConfig::Replication(error)
    }
}

#[cfg(test)]
impl NodeConfig {
    /// The configuration of a node of a test, at this address, that joins through these.
    pub(super) fn of_a_test(listen: SocketAddr, bootstrap: &[SocketAddr]) -> NodeConfig {
        NodeConfig {
            limits: Limits::default(),
            leaf: false,
            network: "test".to_owned(),
            network_secret: None,
            id_work: IdWork::NONE,
            listen,
            bootstrap: bootstrap.to_vec(),
            bootstrap_names: Vec::new(),
            lan: false,
            replicas: 3,
            lifetime: 3600,
            cache_dir: "/cache".into(),
            gossip: GossipConfig::default(),
            replication: ReplicationConfig::default(),
        }
    }
}
