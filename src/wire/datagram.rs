//! Datagrams: bytes parse into [`Unverified`], which verifies into [`Verified`]. Only the latter gives its message out.

pub use super::header::{DATAGRAM_BYTES_MAX, PAYLOAD_BYTES_MAX};

use super::Refused;
use super::header::{Auth, HEADER_BYTES, Header, Kind, VERSION, flags};
use super::message::Message;
use super::network::Network;
use crate::id::{Key, NodeId, PublicKey};
use crate::identity::Identity;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct SignedTail {
    public: PublicKey,
    signature: [u8; 64],
}

const _: () = assert!(size_of::<SignedTail>() == Auth::Signed.tail_bytes());

/// A well-formed datagram from a sender that is not authenticated. It gives out only the fields that decide whether it is worth a
/// signature check.
#[derive(Clone, Copy, Debug)]
pub struct Unverified<'a> {
    bytes: &'a [u8],
    header: &'a Header,
    kind: Kind,
    message: Message<'a>,
}

impl<'a> Unverified<'a> {
    /// Checks the form: length, version, network, kind, reserved bits, and the layout of the body.
    #[inline]
    pub fn parse(bytes: &'a [u8], network: &Network) -> Result<Self, Refused> {
        if bytes.len() > DATAGRAM_BYTES_MAX {
            return Err(Refused::Length);
        }
        let (header, kind, auth) = Header::parse(bytes, network.id())?;
        if auth != Auth::Signed {
            return Err(Refused::Auth);
        }
        let payload = &bytes[HEADER_BYTES..HEADER_BYTES + usize::from(header.payload_length.get())];
        Ok(Unverified { bytes, header, kind, message: Message::parse(kind, payload)? })
    }

    /// The kind in its header.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The transaction in its header.
    pub fn transaction(&self) -> u64 {
        self.header.transaction.get()
    }

    /// The token in its header.
    pub fn token(&self) -> u64 {
        self.header.token.get()
    }

    /// Authenticates the sender by its signature (about 50 µs). `recipient` is this node.
    pub fn verify(self, network: &Network, recipient: &NodeId) -> Result<Verified<'a>, Refused> {
        let covered = &self.bytes[..self.bytes.len() - Auth::Signed.tail_bytes()];
        let tail = SignedTail::ref_from_bytes(&self.bytes[covered.len()..]).map_err(|_| Refused::Length)?;
        let id = tail.public.node_id();
        // A datagram that names no recipient can be reflected to its sender, which must not take itself for a peer.
        if id.short() != self.header.sender || id == *recipient {
            return Err(Refused::Sender);
        }
        let recipient = match self.header.flags & flags::RECIPIENT_UNKNOWN {
            0 => recipient.key(),
            _ => Key([0; 32]),
        };
        let digest = network.datagram_digest(covered, &tail.public, &recipient);
        if !network.verify(&tail.public, &digest, &tail.signature) {
            return Err(Refused::Signature);
        }
        Ok(Verified {
            header: self.header,
            message: self.message,
            public: tail.public,
            id,
            length: self.bytes.len(),
        })
    }
}

/// A datagram from an authenticated sender: the only form in which a message reaches a machine.
#[derive(Clone, Copy, Debug)]
pub struct Verified<'a> {
    header: &'a Header,
    message: Message<'a>,
    public: PublicKey,
    id: NodeId,
    length: usize,
}

impl<'a> Verified<'a> {
    /// The message.
    pub fn message(&self) -> Message<'a> {
        self.message
    }

    /// The sender's public key.
    pub fn public(&self) -> PublicKey {
        self.public
    }

    /// The sender's id.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// Whether the sender is a leaf and must stay out of routing tables.
    pub fn is_leaf(&self) -> bool {
        self.header.flags & flags::LEAF != 0
    }

    /// The transaction.
    pub fn transaction(&self) -> u64 {
        self.header.transaction.get()
    }

    /// The token.
    pub fn token(&self) -> u64 {
        self.header.token.get()
    }

    /// The sender's sequence number.
    pub fn sequence(&self) -> u64 {
        self.header.sequence.get()
    }

    /// The length of the whole datagram in bytes. An answer to an unvalidated address has at most three times as many.
    pub fn datagram_bytes(&self) -> usize {
        self.length
    }
}

/// The fields of an outgoing datagram besides its message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Envelope {
    /// The recipient; `None` when the node at the address is unknown.
    pub recipient: Option<NodeId>,
    /// Whether this node is a leaf.
    pub leaf: bool,
    /// This node's sequence number.
    pub sequence: u64,
    /// The transaction.
    pub transaction: u64,
    /// See [`Header::token`].
    pub token: u64,
}

/// Writes and signs a datagram into `out`, and returns its length in bytes. `None` when the message does not fit, when every
/// recipient would refuse it (see [`Message::write`]), or when `envelope` names no recipient and the kind requires one.
pub fn write(
    out: &mut [u8; DATAGRAM_BYTES_MAX],
    network: &Network,
    identity: &Identity,
    envelope: &Envelope,
    message: &Message<'_>,
) -> Option<usize> {
    if envelope.recipient.is_none() && !message.kind().may_be_first() {
        return None;
    }
    let payload_length = message.write(&mut out[HEADER_BYTES..HEADER_BYTES + PAYLOAD_BYTES_MAX])?;
    let unknown = if envelope.recipient.is_none() { flags::RECIPIENT_UNKNOWN } else { 0 };
    let header = Header {
        version: VERSION,
        kind: message.kind() as u8,
        auth: Auth::Signed as u8,
        flags: unknown | if envelope.leaf { flags::LEAF } else { 0 },
        network: U32::new(network.id()),
        sender: identity.id().short(),
        sequence: U64::new(envelope.sequence),
        transaction: U64::new(envelope.transaction),
        token: U64::new(envelope.token),
        payload_length: U16::new(payload_length as u16),
        reserved: [0; 6],
    };
    out[..HEADER_BYTES].copy_from_slice(header.as_bytes());
    let (covered, rest) = out.split_at_mut(HEADER_BYTES + payload_length);
    let recipient = envelope.recipient.map_or(Key([0; 32]), |id| id.key());
    let public = identity.public();
    let signature = identity.sign(&network.datagram_digest(covered, &public, &recipient));
    let tail = SignedTail { public, signature };
    rest[..size_of::<SignedTail>()].copy_from_slice(tail.as_bytes());
    Some(covered.len() + size_of::<SignedTail>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::{NotStored, Want};

    const PING: Message<'static> = Message::Ping { padding: 0 };

    fn written(recipient: Option<NodeId>, message: &Message<'_>) -> Option<Vec<u8>> {
        let (network, identity) = (Network::new("test"), Identity::from_secret(&[1; 32]));
        let envelope = Envelope { recipient, leaf: false, sequence: 1, transaction: 2, token: 3 };
        let mut out = [0; DATAGRAM_BYTES_MAX];
        let length = write(&mut out, &network, &identity, &envelope, message)?;
        Some(out[..length].to_vec())
    }

    #[test]
    fn only_a_ping_or_a_find_goes_to_an_unknown_node() {
        let known = Some(NodeId([7; 32]));
        let stored = Message::Stored { accepted: 1, reason: NotStored::Nothing };
        let find = Message::Find { target: Key([5; 32]), want: Want::Nodes, padding: 0 };
        assert!(written(None, &PING).is_some() && written(None, &find).is_some());
        assert!(written(known, &stored).is_some());
        assert_eq!(written(None, &stored), None);
    }

    #[test]
    fn a_datagram_that_is_reflected_to_its_sender_is_refused() {
        let (network, ours) = (Network::new("test"), Identity::from_secret(&[1; 32]).id());
        let bytes = written(None, &PING).unwrap();
        let verify = |node: &NodeId| {
            Unverified::parse(&bytes, &network).and_then(|d| d.verify(&network, node)).map(|d| d.id())
        };
        assert_eq!(verify(&ours), Err(Refused::Sender));
        assert_eq!(verify(&NodeId([7; 32])), Ok(ours));
    }

    #[test]
    fn a_datagram_with_a_mac_is_refused_for_its_authentication() {
        let mut bytes = written(None, &PING).unwrap();
        bytes.truncate(HEADER_BYTES + Auth::Mac.tail_bytes());
        bytes[2] = Auth::Mac as u8;
        let network = Network::new("test");
        assert_eq!(Unverified::parse(&bytes, &network).err(), Some(Refused::Auth));
    }
}
