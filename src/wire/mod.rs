//! The wire format: fixed layouts, read in place and written in place.
//!
//! Fields are little-endian and naturally aligned, without padding; compile-time assertions fix the sizes. Reserved bits are zero
//! and checked. Message numbers are never reused. Parsing does not allocate, and no input makes it panic.
//!
//! - [`header`]: the 48 bytes that every datagram starts with.
//! - [`message`]: the bodies of datagrams.
//! - [`datagram`]: bytes → [`Unverified`](datagram::Unverified) → [`Verified`](datagram::Verified), and back; [`mac`]: the keys
//!   that two nodes share.
//! - [`contact`], [`state`], [`provider`], [`record`]: contacts, node states, provider records and value records.
//! - [`claim`]: signing and verifying claims on pieces.
//! - [`gossip`]: the body that carries states.
//! - [`reconcile`]: the range-based reconciliation of two nodes' keys.
//! - [`frame`]: the frames of TCP streams; [`inspect`]: a node's report on its copies; [`possession`]: the proof of one.
//! - `layout`: checks that every parser makes first.
//! - [`network`]: the domains of signatures.

pub mod claim;
pub mod contact;
pub mod datagram;
pub mod frame;
pub mod gossip;
pub mod header;
pub mod inspect;
mod layout;
pub mod mac;
pub mod message;
pub mod network;
pub mod possession;
pub mod provider;
pub mod reconcile;
pub mod record;
pub mod state;

use core::fmt;

/// Why bytes were refused. The node counts each reason.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// Too short, too long, or with lengths inside that contradict each other.
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
    /// A field has a value that is not allowed.
    Value,
    /// The sender's short id does not match the public key of the signature, or the sender is this node itself.
    Sender,
    /// The signature is not valid.
    Signature,
    /// The MAC is not valid under the key that the two nodes share.
    Mac,
    /// The sender's key does not show the work that the network asks for.
    Work,
}

impl Refused {
    /// The reason in one word, as part of its counter's name.
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
            Refused::Mac => "mac",
            Refused::Work => "work",
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "refused: {}", self.name())
    }
}

impl std::error::Error for Refused {}
