//! The configuration of a node on this machine.

use super::HttpToken;
#[cfg(doc)]
use super::{CONTROL_SOCKET, DEFAULT_PORT, Driver};
use crate::disk::Way;
use crate::gossip::GossipConfig;
use crate::id::IdWork;
use crate::limits::Limits;
use crate::node::{BootstrapNode, NodeConfig};
use crate::replication::ReplicationConfig;
use crate::wire::network::{Network, NetworkSecret};
use core::net::SocketAddr;
use std::path::PathBuf;

/// The node's control socket: where it is, and who can connect. Who can connect commands the node, in everything.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ControlSocket {
    /// The socket's path; `None` is [`CONTROL_SOCKET`] in the node's directory.
    pub path: Option<PathBuf>,
    /// The permission bits of the socket file.
    pub mode: u32,
    /// The number of the group of the socket file; `None` is the group of any new file.
    pub group: Option<u32>,
}

impl Default for ControlSocket {
    fn default() -> Self {
        ControlSocket { path: None, mode: 0o600, group: None }
    }
}

/// The configuration of a node on this machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// The node's directory: identity, state and content. The driver creates it when it is missing.
    pub dir: PathBuf,
    /// The address to listen on; `None` is every address, IPv6 and IPv4, at [`DEFAULT_PORT`]. Port 0 is any free port.
    pub listen: Option<SocketAddr>,
    /// The control socket.
    pub control: ControlSocket,
    /// The HTTP gateway; `None` is none. It serves at most [`Limits::http_clients_max`] connections.
    pub http: Option<HttpConfig>,
    /// Nodes to join through, by address or by name.
    pub bootstrap: Vec<BootstrapNode>,
    /// Whether the node finds others on its own links by multicast: see [`LAN_PORT`](super::LAN_PORT). A node that listens on a
    /// loopback address has no links.
    pub lan: bool,
    /// The copies that the network keeps of a file, unless `put` gives another number.
    pub replicas: u8,
    /// The seconds that copies are kept, unless `put` gives another number.
    pub lifetime_seconds: u32,
    /// The node's bounds.
    pub limits: Limits,
    /// Whether the node is a leaf: it looks up and downloads, but enters no routing table and stores nothing for others.
    pub leaf: bool,
    /// The network's name.
    pub network: String,
    /// The network's secret; without one the network is open to every node that knows its name.
    pub network_secret: Option<NetworkSecret>,
    /// The work that the identities of the network have to show. A node that starts for the first time looks for such an identity.
    pub id_work: IdWork,
    /// How content is moved from streams into files.
    pub way: Way,
    /// Whether SIGTERM and SIGINT end [`Driver::run`], and SIGHUP is noted ([`Driver::take_hangup`]). A program with signal
    /// handlers of its own sets it to `false`.
    pub handle_signals: bool,
    /// Membership: gossip and failure detection.
    pub gossip: GossipConfig,
    /// Replication: repair and reconciliation.
    pub replication: ReplicationConfig,
}

/// The HTTP gateway of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HttpConfig {
    /// The address to listen on. Port 0 is any free port.
    pub listen: SocketAddr,
    /// The secret that allows changes. On an address that is not loopback, every request needs it, and there must be one.
    pub token: Option<HttpToken>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            dir: PathBuf::from("."),
            listen: None,
            control: ControlSocket::default(),
            http: None,
            bootstrap: Vec::new(),
            lan: false,
            replicas: NodeConfig::REPLICAS,
            lifetime_seconds: NodeConfig::LIFETIME,
            limits: Limits::default(),
            leaf: false,
            network: Network::DEFAULT_NAME.to_owned(),
            network_secret: None,
            id_work: IdWork::NONE,
            way: Way::default(),
            handle_signals: true,
            gossip: GossipConfig::default(),
            replication: ReplicationConfig::default(),
        }
    }
}
