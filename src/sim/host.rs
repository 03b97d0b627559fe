//! A simulated machine: a disk, a link, and a node that runs or does not.

use super::adversary::Adversary;
use super::disk::Disk;
use crate::id::{NodeId, PublicKey};
use crate::identity::Identity;
use crate::node::{Node, NodeConfig};
use crate::time::{Duration, Instant};
use core::net::SocketAddr;

/// Whether a host runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// The node runs.
    Up,
    /// The process stands still; its clock goes on, and its socket keeps what fits.
    Paused,
    /// The machine sleeps: its clock stands still, and what is sent to it is lost.
    Suspended,
    /// There is no node.
    Down,
}

/// Datagrams that wait at the socket of a process that stands still. More are lost.
pub(super) const BACKLOG: usize = 64;

/// One host.
pub struct Host {
    pub(super) node: Option<Node>,
    pub(super) config: NodeConfig,
    pub(super) secret: [u8; 32],
    pub(super) real: bool,
    pub(super) public: PublicKey,
    pub(super) id: NodeId,
    /// Its disk.
    pub disk: Disk,
    pub(super) life: Life,
    /// How far its clock is behind the world's.
    pub(super) lag: Duration,
    pub(super) slept_at: Instant,
    /// When the world will look after its deadline; nothing is to be done before.
    pub(super) armed: Option<Instant>,
    /// Counts its runs, so that what was meant for an earlier one is recognised.
    pub(super) run: u32,
    pub(super) adversary: Option<Box<dyn Adversary>>,
    pub(super) backlog: Vec<(SocketAddr, Vec<u8>)>,
    /// What went through its link.
    pub traffic: Traffic,
    /// When it last started.
    pub since: Instant,
    /// When it went down; meaningless while it is up.
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

impl Host {
    /// A machine whose node does not run yet.
    pub(super) fn new(config: NodeConfig, secret: [u8; 32], real: bool, disk: Disk) -> Host {
        let identity = match real {
            true => Identity::from_secret(&secret),
            false => Identity::stand_in(&secret),
        };
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
            traffic: Traffic::default(),
            since: Instant::ZERO,
            down_since: Instant::ZERO,
        }
    }

    /// The node, while there is one.
    pub fn node(&self) -> Option<&Node> {
        self.node.as_ref()
    }

    /// Whether the node runs.
    pub fn is_up(&self) -> bool {
        self.life == Life::Up
    }

    /// Whether it runs and is what it should be.
    pub fn is_honest(&self) -> bool {
        self.adversary.is_none()
    }

    /// Whether it runs.
    pub fn life(&self) -> Life {
        self.life
    }

    /// What it is told when it starts. Changes count from the next start on.
    pub fn config_mut(&mut self) -> &mut NodeConfig {
        &mut self.config
    }

    /// The host's identity, made anew.
    pub fn identity(&self) -> Identity {
        match self.real {
            true => Identity::from_secret(&self.secret),
            false => Identity::stand_in(&self.secret),
        }
    }

    /// The host's own time.
    pub(super) fn clock(&self, now: Instant) -> Instant {
        now - self.lag
    }
}
