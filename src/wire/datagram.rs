//! Datagrams: bytes parse into [`Unverified`], which verifies into [`Verified`]. Only the latter gives its message out.

pub use super::header::{DATAGRAM_BYTES_MAX, Epoch, PAYLOAD_BYTES_MAX};
pub use super::mac::MacKey;

use super::Refused;
use super::header::{Auth, HEADER_BYTES, Header, Kind, VERSION, flags};
use super::mac::{MAC_BYTES, equal};
use super::message::Message;
use super::network::Network;
use crate::id::{Key, NodeId, PublicKey, ShortId};
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
const _: () = assert!(MAC_BYTES == Auth::Mac.tail_bytes());

/// A well-formed datagram from a sender that is not authenticated. It gives out only the fields that decide whether it is worth a
/// check, and how it is to be checked.
#[derive(Clone, Copy, Debug)]
pub struct Unverified<'a> {
    bytes: &'a [u8],
    header: &'a Header,
    kind: Kind,
    auth: Auth,
    message: Message<'a>,
}

impl<'a> Unverified<'a> {
    /// Checks the form: length, version, network, kind, reserved bits, the layout of the body, and the work that the sender's key shows.
    #[inline]
    pub fn parse(bytes: &'a [u8], network: &Network) -> Result<Self, Refused> {
        if bytes.len() > DATAGRAM_BYTES_MAX {
            return Err(Refused::Length);
        }
        let (header, kind, auth) = Header::parse(bytes, network.id())?;
        let payload = &bytes[HEADER_BYTES..HEADER_BYTES + usize::from(header.payload_length.get())];
        let unverified = Unverified { bytes, header, kind, auth, message: Message::parse(kind, payload)? };
        // A MAC proves a peer whose key was seen before.
        match auth {
            Auth::Signed if !network.admits(&unverified.signed_tail()?.1.public) => Err(Refused::Work),
            _ => Ok(unverified),
        }
    }

    /// The kind in its header.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// How it is authenticated.
    pub fn auth(&self) -> Auth {
        self.auth
    }

    /// The first bytes of the sender's id, as the header claims it.
    pub fn sender(&self) -> ShortId {
        self.header.sender
    }

    /// The sender's epoch, as the header claims it.
    pub fn epoch(&self) -> Epoch {
        self.header.epoch
    }

    /// The sequence number in its header.
    pub fn sequence(&self) -> u64 {
        self.header.sequence.get()
    }

    /// The transaction in its header.
    pub fn transaction(&self) -> u64 {
        self.header.transaction.get()
    }

    /// The token in its header.
    pub fn token(&self) -> u64 {
        self.header.token.get()
    }

    /// The length of the whole datagram in bytes.
    pub fn datagram_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it is a here of a sender that knows the network's secret. The sender may have recorded it.
    pub fn is_marked(&self, network: &Network) -> bool {
        let Message::Here { mark } = self.message else { return false };
        equal(&mark, &network.presence_mark(&self.sender(), self.epoch(), self.sequence()))
    }

    /// The node whose request a challenge is about; `None` for every other kind.
    pub fn challenged(&self) -> Option<ShortId> {
        match self.message {
            Message::Challenge { asker } => Some(asker),
            _ => None,
        }
    }

    /// Authenticates the sender by its signature (about 50 µs). `recipient` is this node. Refuses a datagram without a signature.
    pub fn verify(self, network: &Network, recipient: &NodeId) -> Result<Verified<'a>, Refused> {
        // A datagram that names no recipient can be reflected to its sender, which must not take itself for a peer.
        self.verify_signature(network, recipient, |id| id != recipient)
    }

    /// The same for a datagram of another process that holds this node's own key. It may be a recording of an earlier run.
    pub fn verify_own(self, network: &Network, own: &NodeId) -> Result<Verified<'a>, Refused> {
        self.verify_signature(network, own, |id| id == own)
    }

    fn verify_signature(
        self,
        network: &Network,
        recipient: &NodeId,
        may_send: impl FnOnce(&NodeId) -> bool,
    ) -> Result<Verified<'a>, Refused> {
        let (covered, tail) = self.signed_tail()?;
        let id = tail.public.node_id();
        if id.short() != self.header.sender || !may_send(&id) {
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
        Ok(self.verified(tail.public, id))
    }

    /// Authenticates the sender by its MAC (about 0.5 µs), under the key for datagrams of the node `id` with the key `public` to this
    /// node, in the epochs of both. Refuses a datagram without a MAC.
    pub fn authenticate(
        self,
        network: &Network,
        key: &MacKey,
        public: &PublicKey,
        id: &NodeId,
    ) -> Result<Verified<'a>, Refused> {
        let (covered, tail) = self.split(Auth::Mac)?;
        let tag = tail.try_into().map_err(|_| Refused::Length)?;
        if id.short() != self.header.sender {
            return Err(Refused::Sender);
        }
        if !key.verify(network.scheme(), covered, tag) {
            return Err(Refused::Mac);
        }
        Ok(self.verified(*public, *id))
    }

    /// Header with payload, and tail, of a signed datagram.
    fn signed_tail(&self) -> Result<(&'a [u8], &'a SignedTail), Refused> {
        let (covered, tail) = self.split(Auth::Signed)?;
        Ok((covered, SignedTail::ref_from_bytes(tail).map_err(|_| Refused::Length)?))
    }

    /// Header with payload, and tail, of a datagram with this form of authentication.
    fn split(&self, auth: Auth) -> Result<(&'a [u8], &'a [u8]), Refused> {
        if self.auth != auth {
            return Err(Refused::Auth);
        }
        self.bytes.split_at_checked(self.bytes.len().wrapping_sub(auth.tail_bytes())).ok_or(Refused::Length)
    }

    fn verified(self, public: PublicKey, id: NodeId) -> Verified<'a> {
        let Unverified { bytes, header, auth, message, .. } = self;
        Verified { header, message, public, id, auth, length: bytes.len() }
    }
}

/// A datagram from an authenticated sender: the only form in which a message reaches a machine.
#[derive(Clone, Copy, Debug)]
pub struct Verified<'a> {
    header: &'a Header,
    message: Message<'a>,
    public: PublicKey,
    id: NodeId,
    auth: Auth,
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

    /// How the sender was authenticated. A signed request gets a signed answer.
    pub fn auth(&self) -> Auth {
        self.auth
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

    /// The sender's epoch.
    pub fn epoch(&self) -> Epoch {
        self.header.epoch
    }

    /// The datagram's number in the sender's epoch. It says nothing about other epochs.
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
    /// This node's epoch.
    pub epoch: Epoch,
    /// The number of the datagram in this node's epoch, from 1. A challenge carries none.
    pub sequence: u64,
    /// The transaction.
    pub transaction: u64,
    /// See [`Header::token`].
    pub token: u64,
}

/// Writes and signs a datagram into `out`, and returns its length in bytes. `None` when the message does not fit, or when every
/// recipient would refuse it (see [`Message::write`]): it is a challenge, has the number 0, or names no recipient where the kind
/// requires one.
pub fn write(
    out: &mut [u8; DATAGRAM_BYTES_MAX],
    network: &Network,
    identity: &Identity,
    envelope: &Envelope,
    message: &Message<'_>,
) -> Option<usize> {
    let length = compose(out, network, identity, envelope, message, Auth::Signed)?;
    let (covered, rest) = out.split_at_mut(length);
    let recipient = envelope.recipient.map_or(Key([0; 32]), |id| id.key());
    let public = identity.public();
    let signature = identity.sign(&network.datagram_digest(covered, &public, &recipient));
    let tail = SignedTail { public, signature };
    rest[..size_of::<SignedTail>()].copy_from_slice(tail.as_bytes());
    Some(length + size_of::<SignedTail>())
}

/// Writes a datagram with a MAC into `out`, and returns its length in bytes. `key` is that for datagrams of this node to the
/// recipient, in the epochs of both. `None` as for [`write()`], and for a goodbye, which must be signed.
pub fn write_mac(
    out: &mut [u8; DATAGRAM_BYTES_MAX],
    network: &Network,
    identity: &Identity,
    key: &MacKey,
    envelope: &Envelope,
    message: &Message<'_>,
) -> Option<usize> {
    envelope.recipient?;
    let length = compose(out, network, identity, envelope, message, Auth::Mac)?;
    let tag = key.tag(network.scheme(), &out[..length]);
    out[length..length + MAC_BYTES].copy_from_slice(&tag);
    Some(length + MAC_BYTES)
}

/// Writes a challenge into `out`, and returns its length in bytes. `request` is the datagram that this node cannot check; `token`
/// validates the address that it came from.
pub fn write_challenge(
    out: &mut [u8; DATAGRAM_BYTES_MAX],
    network: &Network,
    identity: &Identity,
    epoch: Epoch,
    token: u64,
    request: &Unverified<'_>,
) -> Option<usize> {
    let transaction = request.transaction();
    let envelope = Envelope { recipient: None, leaf: false, epoch, sequence: 0, transaction, token };
    let message = Message::Challenge { asker: request.sender() };
    compose(out, network, identity, &envelope, &message, Auth::Bare)
}

/// Writes header and payload; returns the length of both.
fn compose(
    out: &mut [u8; DATAGRAM_BYTES_MAX],
    network: &Network,
    identity: &Identity,
    envelope: &Envelope,
    message: &Message<'_>,
    auth: Auth,
) -> Option<usize> {
    let kind = message.kind();
    let known = envelope.recipient.is_some() || auth == Auth::Bare;
    let numbered = (envelope.sequence == 0) == (auth == Auth::Bare);
    if !kind.allows(auth) || !numbered || !(known || kind.may_be_first()) {
        return None;
    }
    let payload_length = message.write(&mut out[HEADER_BYTES..HEADER_BYTES + auth.payload_bytes_max()])?;
    let header = Header {
        version: VERSION,
        kind: kind as u8,
        auth: auth as u8,
        flags: if known { 0 } else { flags::RECIPIENT_UNKNOWN } | if envelope.leaf { flags::LEAF } else { 0 },
        network: U32::new(network.id()),
        sender: identity.id().short(),
        sequence: U64::new(envelope.sequence),
        transaction: U64::new(envelope.transaction),
        token: U64::new(envelope.token),
        payload_length: U16::new(payload_length as u16),
        epoch: envelope.epoch,
    };
    out[..HEADER_BYTES].copy_from_slice(header.as_bytes());
    Some(HEADER_BYTES + payload_length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::IdWork;
    use crate::wire::contact::{Contact, WireContact};
    use crate::wire::header::CHALLENGE_BYTES;
    use crate::wire::message::{NotStored, Want};

    const PING: Message<'static> = Message::Ping { padding: 0 };
    const LEAVE: Message<'static> = Message::Leave { for_good: true, sequence: 7 };
    const KEY: MacKey = MacKey([9; 32]);

    fn fixture() -> (Network, Identity) {
        (Network::new("test"), Identity::from_secret(&[1; 32]))
    }

    fn envelope(recipient: Option<NodeId>) -> Envelope {
        Envelope { recipient, leaf: false, epoch: Epoch::new(7), sequence: 1, transaction: 2, token: 3 }
    }

    fn written(recipient: Option<NodeId>, message: &Message<'_>) -> Option<Vec<u8>> {
        let (network, identity) = fixture();
        let mut out = [0; DATAGRAM_BYTES_MAX];
        let length = write(&mut out, &network, &identity, &envelope(recipient), message)?;
        Some(out[..length].to_vec())
    }

    fn written_with_mac(recipient: Option<NodeId>, message: &Message<'_>) -> Option<Vec<u8>> {
        let (network, identity) = fixture();
        let mut out = [0; DATAGRAM_BYTES_MAX];
        let length = write_mac(&mut out, &network, &identity, &KEY, &envelope(recipient), message)?;
        Some(out[..length].to_vec())
    }

    #[test]
    fn a_sender_without_the_work_that_the_network_asks_for_is_refused_before_its_signature_is_checked() {
        let (network, identity) = fixture();
        let shown = IdWork::shown(&identity.public()) as u8;
        let asking = |bits| network.clone().with_id_work(IdWork::new(bits).unwrap());
        let recipient = Some(NodeId([7; 32]));
        let signed = written(recipient, &PING).unwrap();
        assert!(Unverified::parse(&signed, &asking(shown)).is_ok());
        assert_eq!(Unverified::parse(&signed, &asking(shown + 1)).err(), Some(Refused::Work));
        let with_mac = written_with_mac(recipient, &PING).unwrap();
        for bytes in [with_mac, challenge()] {
            assert!(Unverified::parse(&bytes, &asking(shown + 1)).is_ok(), "it names no key");
        }
    }

    fn challenge() -> Vec<u8> {
        let (network, identity) = fixture();
        let request = written_with_mac(Some(NodeId([7; 32])), &PING).unwrap();
        let request = Unverified::parse(&request, &network).unwrap();
        let mut out = [0; DATAGRAM_BYTES_MAX];
        let length = write_challenge(&mut out, &network, &identity, Epoch::new(8), 5, &request).unwrap();
        out[..length].to_vec()
    }

    fn refusal(bytes: &[u8]) -> Option<Refused> {
        Unverified::parse(bytes, &fixture().0).err()
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
        let parsed = Unverified::parse(&bytes, &network).unwrap();
        assert_eq!(parsed.verify_own(&network, &ours).map(|datagram| datagram.id()), Ok(ours));
        assert_eq!(parsed.verify_own(&network, &NodeId([7; 32])).err(), Some(Refused::Sender));
    }

    #[test]
    fn a_mac_proves_its_sender_to_the_holder_of_the_key_only() {
        let (network, sender) = fixture();
        let bytes = written_with_mac(Some(NodeId([7; 32])), &PING).unwrap();
        let check = |key: &MacKey, id: &NodeId| {
            let datagram = Unverified::parse(&bytes, &network).unwrap();
            datagram.authenticate(&network, key, &sender.public(), id).map(|verified| verified.auth())
        };
        assert_eq!(bytes.len(), HEADER_BYTES + 16);
        assert_eq!(check(&KEY, &sender.id()), Ok(Auth::Mac));
        assert_eq!(check(&MacKey([8; 32]), &sender.id()), Err(Refused::Mac));
        assert_eq!(check(&KEY, &NodeId([7; 32])), Err(Refused::Sender));
    }

    #[test]
    fn each_form_is_checked_in_its_own_way_only() {
        let (network, sender) = fixture();
        let node = NodeId([7; 32]);
        let (signed, with_mac) =
            (written(Some(node), &PING).unwrap(), written_with_mac(Some(node), &PING).unwrap());
        let verify = |bytes: &[u8]| Unverified::parse(bytes, &network).unwrap().verify(&network, &node).err();
        let authenticate = |bytes: &[u8]| {
            let datagram = Unverified::parse(bytes, &network).unwrap();
            datagram.authenticate(&network, &KEY, &sender.public(), &sender.id()).err()
        };
        assert_eq!(verify(&signed), None);
        assert_eq!(verify(&with_mac), Some(Refused::Auth));
        assert_eq!(verify(&challenge()), Some(Refused::Auth));
        assert_eq!(authenticate(&with_mac), None);
        assert_eq!(authenticate(&signed), Some(Refused::Auth));
        assert_eq!(authenticate(&challenge()), Some(Refused::Auth));
    }

    #[test]
    fn twenty_contacts_fit_a_datagram_with_a_mac() {
        let contact = Contact::new(PublicKey([5; 32]), ([192, 0, 2, 7], 3583).into());
        let contacts = [WireContact::new(&contact, 1); 21];
        let found = |count| Message::Found { contacts: &contacts[..count], providers: &[], record: None };
        let node = Some(NodeId([7; 32]));
        assert!(written_with_mac(node, &found(20)).is_some());
        assert_eq!(written_with_mac(node, &found(21)), None);
        assert!(written(node, &found(19)).is_some());
        assert_eq!(written(node, &found(20)), None);
    }

    #[test]
    fn a_goodbye_and_a_first_contact_never_have_a_mac() {
        let node = Some(NodeId([7; 32]));
        assert_eq!(written_with_mac(node, &LEAVE), None);
        assert_eq!(written_with_mac(None, &PING), None);
        let mut leave = written(node, &LEAVE).unwrap();
        leave.truncate(leave.len() - 80);
        leave[2] = Auth::Mac as u8;
        assert_eq!(refusal(&leave), Some(Refused::Auth));
        let mut first = written_with_mac(node, &PING).unwrap();
        first[3] = flags::RECIPIENT_UNKNOWN;
        assert_eq!(refusal(&first), Some(Refused::Reserved));
    }

    #[test]
    fn a_challenge_answers_one_request_and_is_shorter_than_it() {
        let bytes = challenge();
        let network = fixture().0;
        let datagram = Unverified::parse(&bytes, &network).unwrap();
        assert_eq!(bytes.len(), CHALLENGE_BYTES);
        assert_eq!(datagram.challenged(), Some(fixture().1.id().short()));
        assert_eq!(datagram.transaction(), 2);
        assert_eq!(datagram.token(), 5);
        assert_eq!(datagram.epoch(), Epoch::new(8));
    }

    #[test]
    fn only_a_challenge_goes_without_authentication() {
        let node = Some(NodeId([7; 32]));
        assert_eq!(written(node, &Message::Challenge { asker: [1; 8] }), None);
        assert_eq!(written_with_mac(node, &Message::Challenge { asker: [1; 8] }), None);
        let mut ping = written(node, &PING).unwrap();
        ping.truncate(HEADER_BYTES);
        ping[2] = Auth::Bare as u8;
        assert_eq!(refusal(&ping), Some(Refused::Auth));
        for auth in [Auth::Signed, Auth::Mac] {
            let mut bytes = challenge();
            bytes[2] = auth as u8;
            bytes.extend_from_slice(&[0; 96][..auth.tail_bytes()]);
            assert_eq!(refusal(&bytes), Some(Refused::Auth), "{auth:?}");
        }
    }

    #[test]
    fn a_datagram_without_an_epoch_or_a_number_is_refused() {
        let ping = written(None, &PING).unwrap();
        let changed = |range: core::ops::Range<usize>, byte: u8, mut bytes: Vec<u8>| {
            bytes[range].fill(byte);
            refusal(&bytes)
        };
        assert_eq!(refusal(&ping), None);
        assert_eq!(changed(42..48, 0, ping.clone()), Some(Refused::Value));
        assert_eq!(changed(16..24, 0, ping), Some(Refused::Value));
        assert_eq!(changed(16..24, 1, challenge()), Some(Refused::Value));
    }
}
