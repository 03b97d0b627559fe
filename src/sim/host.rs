//! A simulated machine: a disk, a link, and a node, which may be down.

use super::adversary::Adversary;
use super::disk::Disk;
use crate::id::{NodeId, PublicKey};
use crate::identity::Identity;
use crate::node::command::{Command, CommandId};
use crate::node::{Node, NodeConfig};
use crate::time::{Duration, Instant};
use core::net::SocketAddr;

/// Whether a host runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// The node runs.
    Up,
    /// The process is paused. Its clock runs on, and its socket queues some datagrams.
    Paused,
    /// The machine sleeps. Its clock stops, and datagrams to it are lost.
    Suspended,
    /// No node runs.
    Down,
}

/// The most datagrams that the socket of a paused process queues. Further ones are lost.
pub(super) const BACKLOG: usize = 64;

/// One host.
pub struct Host {
    pub(super) node: Option<Node>,
    pub(super) config: NodeConfig,
    pub(super) secret: [u8; 32],
    pub(super) real: bool,
    pub(super) public: PublicKey,
    pub(super) id: NodeId,
    /// The host's disk.
    pub disk: Disk,
    pub(super) life: Life,
    /// How far the host's clock is behind the world's.
    pub(super) lag: Duration,
    pub(super) slept_at: Instant,
    /// The time of the armed wake event. No deadline of the node is earlier.
    pub(super) armed: Option<Instant>,
    /// The number of the host's runs so far. It tells apart events of this run from those of earlier ones.
    pub(super) run: u32,
    pub(super) adversary: Option<Box<dyn Adversary>>,
    pub(super) backlog: Vec<(SocketAddr, Vec<u8>)>,
    /// The commands that a paused or suspended host has yet to carry out.
    pub(super) commands: Vec<(CommandId, Command)>,
    /// The traffic of the host's link.
    pub traffic: Traffic,
    /// When the host last started, or woke from sleep.
    pub since: Instant,
    /// When the host last started, or went on after a pause or a sleep.
    pub active_since: Instant,
    /// When the host went down, or fell asleep. Meaningless while it is awake.
    pub down_since: Instant,
}

/// What a host sent and received.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Datagrams sent.
    pub datagrams_out: u64,
    /// Their bytes.
    pub datagram_bytes_out: u64,
    /// Datagrams received.
    pub datagrams_in: u64,
    /// Bytes sent on streams.
    pub stream_bytes_out: u64,
    /// Bytes received on streams.
    pub stream_bytes_in: u64,
}

impl Traffic {
    pub(super) fn sent_datagram(&mut self, bytes: u64) {
        self.datagrams_out += 1;
        self.datagram_bytes_out += bytes;
    }
}

/// The identity of a secret: a real one, or one that stands in for it.
pub(super) fn identity_of(secret: &[u8; 32], real: bool) -> Identity {
    match real {
        true => Identity::from_secret(secret),
        false => Identity::stand_in(secret),
    }
}

impl Host {
    /// A machine whose node does not run yet.
    pub(super) fn new(config: NodeConfig, secret: [u8; 32], real: bool, disk: Disk) -> Host {
        let identity = identity_of(&secret, real);
        Host {
            node: None,
            config,
            secret,
            real,
            public: identity.public(),
            id: identity.id(),
            disk,
            life: Life::Down,
            lag: Duration::ZERO,
            slept_at: Instant::ZERO,
            armed: None,
            run: 0,
            adversary: None,
            backlog: Vec::new(),
            commands: Vec::new(),
            traffic: Traffic::default(),
            since: Instant::ZERO,
            active_since: Instant::ZERO,
            down_since: Instant::ZERO,
        }
    }

    /// The node, unless the host is down.
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// Whether the node runs.
    pub fn is_up(&self) -> bool {
        self.life == Life::Up
    }

    /// Whether the machine runs the node. To the network, one that sleeps is as good as down.
    pub fn is_awake(&self) -> bool {
        matches!(self.life, Life::Up | Life::Paused)
    }

    /// Whether the host's node and users are honest: it has no adversary, or one on the path to it.
    pub fn is_honest(&self) -> bool {
        self.adversary.as_ref().is_none_or(|adversary| adversary.is_on_path())
    }

    /// The state of the host.
    pub fn life(&self) -> Life {
        self.life
    }

    /// The node's configuration. Changes take effect at the next start.
    pub fn config_mut(&mut self) -> &mut NodeConfig {
        &mut self.config
    }

    /// The host's identity, derived again from its secret.
    pub fn identity(&self) -> Identity {
        identity_of(&self.secret, self.real)
    }

    /// The time on the host's own clock.
    pub(super) fn clock(&self, now: Instant) -> Instant {
        now - self.lag
    }
}
