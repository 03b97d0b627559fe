//! The wire: fixed layouts, read in place and written in place.
//!
//! Everything is little-endian and naturally aligned, has no padding, and its size is asserted when it is compiled. Reserved
//! bits are zero and checked. Message numbers are never reused. Nothing here allocates, and nothing here can panic on
//! what it is given.
//!
//! - [`header`]: the 48 bytes that every datagram starts with.
//! - [`message`]: the bodies of datagrams.
//! - [`datagram`]: bytes → [`Unverified`](datagram::Unverified) → [`Verified`](datagram::Verified), and back.
//! - [`contact`], [`state`], [`provider`], [`record`]: what nodes tell each other about nodes, files and names.
//! - [`gossip`]: the body in which states travel.
//! - [`reconcile`]: what nodes tell each other about what they hold.
//! - [`frame`]: what goes over TCP streams; [`inspect`]: what a node says there of its copies.
//! - `layout`: what every parser checks first.
//! - [`network`]: the domains that signatures are made under.
//! - [`outbox`]: where machines put datagrams.

pub mod contact;
pub mod datagram;
pub mod frame;
pub mod gossip;
pub mod header;
pub mod inspect;
mod layout;
pub mod message;
pub mod network;
pub mod outbox;
pub mod provider;
pub mod reconcile;
pub mod record;
pub mod state;

use core::fmt;

/// Why bytes were refused. Every reason is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Too short, too long, or the lengths inside contradict each other.
    Length,
    /// Another version of the protocol.
    Version,
    /// Another network.
    Network,
    /// A message or frame number that this version does not know.
    Kind,
    /// An authentication form that this version does not know, or one that the kind does not allow.
    Auth,
    /// A reserved bit is set.
    Reserved,
    /// A field has a value that no node would send.
    Value,
    /// The sender's short id is not that of the public key it signed with, or the sender is this node itself.
    Sender,
    /// The signature does not fit.
    Signature,
}

impl Refused {
    /// The reason in one word.
    pub fn name(self) -> &'static str {
        match self {
            Refused::Length => "length",
            Refused::Version => "version",
            Refused::Network => "network",
            Refused::Kind => "kind",
            Refused::Auth => "auth",
            Refused::Reserved => "reserved",
            Refused::Value => "value",
            Refused::Sender => "sender",
            Refused::Signature => "signature",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused: {}", self.name())
    }
}

impl std::error::Error for Refused {}
