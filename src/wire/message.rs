//! The bodies of datagrams. A [`Message`] is parsed in place, or built to be written.

use super::Refused;
use super::contact::{WireAddr, WireContact};
use super::gossip::{GossipBody, GossipHead};
use super::header::{Auth, Kind};
use super::layout::{exactly, reserved};
use super::mac::MAC_BYTES;
use super::provider::ProviderRecord;
use super::reconcile::{Answers, ReconcileHead, WireRange, check_ranges};
use super::record::Record;
use crate::id::{Key, NodeId, ShortId};
use core::net::SocketAddr;
use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The most provider announcements in one datagram.
pub const ANNOUNCEMENTS_MAX: usize = 6;

/// The padding of a request without a token, in bytes: the answer may be three times as long as the request, which is then enough.
pub const PADDING_BYTES: usize = 240;

/// What a find requests besides the contacts nearest to its target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Want {
    /// Nothing else.
    Nodes = 0,
    /// The value record under this key.
    Value = 1,
    /// The providers of the file with this hash.
    Providers = 2,
}

/// The body of a find.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct FindBody {
    target: Key,
    want: u8,
    reserved: [u8; 7],
}

/// The body of a pong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct PongBody {
    observed: WireAddr,
    reserved: [u8; 6],
}

/// The head of a found; contacts, providers and at most one record follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct FoundHead {
    contacts: u8,
    providers: u8,
    record_length: U16,
    reserved: [u8; 12],
}

/// One announcement: a provider record and its file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Announcement {
    /// The file.
    pub file: Key,
    /// The provider record.
    pub provider: ProviderRecord,
}

/// The body of a stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct StoredBody {
    accepted: u8,
    reason: u8,
    reserved: [u8; 6],
}

/// The body of a leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct LeaveBody {
    for_good: u8,
    reserved: [u8; 7],
    sequence: U64,
}

/// The body of a challenge.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ChallengeBody {
    asker: ShortId,
}

/// The body of a probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ProbeBody {
    target: NodeId,
    reserved: [u8; 8],
}

/// The body of a probe's reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ProbeReplyBody {
    target: ShortId,
    outcome: u8,
    reserved: [u8; 7],
}

/// The body of a here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct HereBody {
    mark: [u8; MAC_BYTES],
}

const _: () = assert!(size_of::<HereBody>() == 16);
const _: () = assert!(size_of::<FindBody>() == 40);
const _: () = assert!(size_of::<PongBody>() == 24);
const _: () = assert!(size_of::<FoundHead>() == 16);
const _: () = assert!(size_of::<Announcement>() == 160);
const _: () = assert!(size_of::<StoredBody>() == 8);
const _: () = assert!(size_of::<LeaveBody>() == 16);
const _: () = assert!(size_of::<ChallengeBody>() == Auth::Bare.payload_bytes_max());
const _: () = assert!(size_of::<ProbeBody>() == 40);
const _: () = assert!(size_of::<ProbeReplyBody>() == 16);

/// Why a record was not stored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum NotStored {
    /// All records were stored.
    Nothing = 0,
    /// The token does not validate the sender's address, or has expired. The answer carries a fresh one.
    Token = 1,
    /// The node keeps a record with a higher sequence number.
    Older = 2,
    /// A record's signature is not valid.
    Signature = 3,
    /// The table is full.
    Full = 4,
    /// The node is a leaf, or does not keep such records.
    Unwilling = 5,
}

impl NotStored {
    fn from_number(number: u8) -> Option<Self> {
        use NotStored::*;
        [Nothing, Token, Older, Signature, Full, Unwilling].into_iter().find(|reason| *reason as u8 == number)
    }
}

/// The result of a probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum ProbeOutcome {
    /// The member did not answer in time.
    Silent = 0,
    /// The member answered.
    Answered = 1,
    /// The node did not ping the member: it does not know it, or too many probes are under way.
    Unknown = 2,
}

/// A message. When parsed, it borrows from the datagram; when built, from its caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// See [`Kind::Ping`]. `padding` zero bytes follow.
    Ping {
        /// Bytes of padding, at most [`PADDING_BYTES`].
        padding: usize,
    },
    /// See [`Kind::Pong`].
    Pong {
        /// The address that the ping came from.
        observed: SocketAddr,
    },
    /// See [`Kind::Find`].
    Find {
        /// The key.
        target: Key,
        /// What it requests besides contacts.
        want: Want,
        /// Bytes of padding, at most [`PADDING_BYTES`].
        padding: usize,
    },
    /// See [`Kind::Found`].
    Found {
        /// The nearest contacts that the sender knows, nearest first.
        contacts: &'a [WireContact],
        /// The file's providers; their signatures are not verified yet.
        providers: &'a [ProviderRecord],
        /// The record; its signature is not verified yet.
        record: Option<Record<'a>>,
    },
    /// See [`Kind::StoreRecord`].
    StoreRecord {
        /// The record; its signature is not verified yet.
        record: Record<'a>,
    },
    /// See [`Kind::Announce`].
    Announce {
        /// The records with their files, one to [`ANNOUNCEMENTS_MAX`]; their signatures are not verified yet.
        announcements: &'a [Announcement],
    },
    /// See [`Kind::Stored`].
    Stored {
        /// The number of records kept.
        accepted: u8,
        /// Why the others were not kept.
        reason: NotStored,
    },
    /// See [`Kind::Leave`].
    Leave {
        /// Whether the sender leaves for good, rather than for a while.
        for_good: bool,
        /// The durable sequence number of the sender's [state](super::state::NodeState) that says so. No answer shows that the
        /// goodbye is fresh, so this number orders it among the sender's runs. Not zero.
        sequence: u64,
    },
    /// See [`Kind::Challenge`]. Every field of a challenge may be forged.
    Challenge {
        /// The first bytes of the id of the node whose request is challenged.
        asker: ShortId,
    },
    /// See [`Kind::Gossip`]. The states' signatures are not verified yet.
    Gossip(GossipBody<'a>),
    /// See [`Kind::GossipReply`]. The states' signatures are not verified yet.
    GossipReply(GossipBody<'a>),
    /// See [`Kind::Probe`].
    Probe {
        /// The member.
        target: NodeId,
    },
    /// See [`Kind::ProbeReply`].
    ProbeReply {
        /// The member.
        target: ShortId,
        /// The result of the probe.
        outcome: ProbeOutcome,
    },
    /// See [`Kind::Reconcile`].
    Reconcile {
        /// The salt of the fingerprints.
        salt: u64,
        /// The sender's ranges, ascending and without overlap.
        ranges: &'a [WireRange],
    },
    /// See [`Kind::Reconciled`].
    Reconciled {
        /// The answers to the first ranges of the request, as many as fit.
        answers: Answers<'a>,
    },
    /// See [`Kind::Here`].
    Here {
        /// Shows that the sender knows the network's secret: see [`Network::presence_mark`](super::network::Network::presence_mark).
        mark: [u8; MAC_BYTES],
    },
}

impl<'a> Message<'a> {
    /// The message's kind.
    pub fn kind(&self) -> Kind {
        match self {
            Message::Ping { .. } => Kind::Ping,
            Message::Pong { .. } => Kind::Pong,
            Message::Find { .. } => Kind::Find,
            Message::Found { .. } => Kind::Found,
            Message::StoreRecord { .. } => Kind::StoreRecord,
            Message::Announce { .. } => Kind::Announce,
            Message::Stored { .. } => Kind::Stored,
            Message::Leave { .. } => Kind::Leave,
            Message::Challenge { .. } => Kind::Challenge,
            Message::Gossip(_) => Kind::Gossip,
            Message::GossipReply(_) => Kind::GossipReply,
            Message::Probe { .. } => Kind::Probe,
            Message::ProbeReply { .. } => Kind::ProbeReply,
            Message::Reconcile { .. } => Kind::Reconcile,
            Message::Reconciled { .. } => Kind::Reconciled,
            Message::Here { .. } => Kind::Here,
        }
    }

    /// Parses a payload of the given kind.
    #[inline]
    pub fn parse(kind: Kind, payload: &'a [u8]) -> Result<Self, Refused> {
        Ok(match kind {
            Kind::Ping => Message::Ping { padding: padding(payload)? },
            Kind::Pong => {
                let body: &PongBody = exactly(payload)?;
                reserved(&body.reserved)?;
                Message::Pong { observed: body.observed.get().ok_or(Refused::Value)? }
            }
            Kind::Find => {
                let (body, rest) = FindBody::ref_from_prefix(payload).map_err(|_| Refused::Length)?;
                reserved(&body.reserved)?;
                let want = match body.want {
                    0 => Want::Nodes,
                    1 => Want::Value,
                    2 => Want::Providers,
                    _ => return Err(Refused::Value),
                };
                Message::Find { target: body.target, want, padding: padding(rest)? }
            }
            Kind::Found => parse_found(payload)?,
            Kind::StoreRecord => Message::StoreRecord { record: Record::parse(payload)? },
            Kind::Announce => {
                let announcements = <[Announcement]>::ref_from_bytes(payload).map_err(|_| Refused::Length)?;
                if !(1..=ANNOUNCEMENTS_MAX).contains(&announcements.len()) {
                    return Err(Refused::Length);
                }
                announcements.iter().try_for_each(|announcement| announcement.provider.check())?;
                Message::Announce { announcements }
            }
            Kind::Stored => {
                let body: &StoredBody = exactly(payload)?;
                reserved(&body.reserved)?;
                let reason = NotStored::from_number(body.reason).ok_or(Refused::Value)?;
                Message::Stored { accepted: body.accepted, reason }
            }
            Kind::Leave => {
                let body: &LeaveBody = exactly(payload)?;
                reserved(&body.reserved)?;
                let sequence = body.sequence.get();
                match (body.for_good, sequence) {
                    (0 | 1, 1..) => Message::Leave { for_good: body.for_good == 1, sequence },
                    _ => return Err(Refused::Value),
                }
            }
            Kind::Challenge => Message::Challenge { asker: exactly::<ChallengeBody>(payload)?.asker },
            Kind::Gossip => Message::Gossip(GossipBody::parse(payload)?),
            Kind::GossipReply => Message::GossipReply(GossipBody::parse(payload)?),
            Kind::Probe => {
                let body: &ProbeBody = exactly(payload)?;
                reserved(&body.reserved)?;
                Message::Probe { target: body.target }
            }
            Kind::ProbeReply => {
                let body: &ProbeReplyBody = exactly(payload)?;
                reserved(&body.reserved)?;
                let outcome = match body.outcome {
                    0 => ProbeOutcome::Silent,
                    1 => ProbeOutcome::Answered,
                    2 => ProbeOutcome::Unknown,
                    _ => return Err(Refused::Value),
                };
                Message::ProbeReply { target: body.target, outcome }
            }
            Kind::Reconcile => {
                let (head, rest) = ReconcileHead::ref_from_prefix(payload).map_err(|_| Refused::Length)?;
                let ranges = <[WireRange]>::ref_from_bytes(rest).map_err(|_| Refused::Length)?;
                check_ranges(ranges)?;
                Message::Reconcile { salt: head.salt.get(), ranges }
            }
            Kind::Reconciled => Message::Reconciled { answers: Answers::parse(payload)? },
            Kind::Here => Message::Here { mark: exactly::<HereBody>(payload)?.mark },
        })
    }

    /// Writes the payload to the start of `out`, and returns its length in bytes. `None` when it does not fit, or when
    /// [`parse`](Message::parse) would refuse it: too much padding, no announcement, an unusable address, a goodbye without a number.
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        let mut writer = Writer { out, length: 0 };
        match *self {
            Message::Ping { padding } => writer.padding(padding)?,
            Message::Pong { observed } => {
                let observed = WireAddr::new(observed);
                observed.get()?;
                writer.put(&PongBody { observed, reserved: [0; 6] })?;
            }
            Message::Find { target, want, padding } => {
                writer.put(&FindBody { target, want: want as u8, reserved: [0; 7] })?;
                writer.padding(padding)?;
            }
            Message::Found { contacts, providers, record } => {
                let record = record.map_or(&[][..], |record| record.bytes());
                writer.put(&FoundHead {
                    contacts: u8::try_from(contacts.len()).ok()?,
                    providers: u8::try_from(providers.len()).ok()?,
                    record_length: U16::new(u16::try_from(record.len()).ok()?),
                    reserved: [0; 12],
                })?;
                writer.put(contacts)?;
                writer.put(providers)?;
                writer.put(record)?;
            }
            Message::StoreRecord { record } => writer.put(record.bytes())?,
            Message::Announce { announcements: [] } => return None,
            Message::Announce { announcements } => writer.put(announcements)?,
            Message::Stored { accepted, reason } => {
                writer.put(&StoredBody { accepted, reason: reason as u8, reserved: [0; 6] })?;
            }
            Message::Leave { sequence: 0, .. } => return None,
            Message::Leave { for_good, sequence } => {
                let (for_good, sequence) = (u8::from(for_good), U64::new(sequence));
                writer.put(&LeaveBody { for_good, reserved: [0; 7], sequence })?
            }
            Message::Challenge { asker } => writer.put(&ChallengeBody { asker })?,
            Message::Gossip(body) | Message::GossipReply(body) => {
                writer.put(&GossipHead::of(&body)?)?;
                writer.put(body.states)?;
                writer.put(body.digest)?;
                writer.put(body.suspicions)?;
            }
            Message::Probe { target } => writer.put(&ProbeBody { target, reserved: [0; 8] })?,
            Message::ProbeReply { target, outcome } => {
                writer.put(&ProbeReplyBody { target, outcome: outcome as u8, reserved: [0; 7] })?;
            }
            Message::Reconcile { salt, ranges } => {
                check_ranges(ranges).ok()?;
                writer.put(&ReconcileHead { salt: U64::new(salt) })?;
                writer.put(ranges)?;
            }
            Message::Reconciled { answers } => writer.put(answers.bytes())?,
            Message::Here { mark } => writer.put(&HereBody { mark })?,
        }
        Some(writer.length)
    }
}

fn parse_found(payload: &[u8]) -> Result<Message<'_>, Refused> {
    let (head, rest) = FoundHead::ref_from_prefix(payload).map_err(|_| Refused::Length)?;
    reserved(&head.reserved)?;
    let (contacts, rest) = <[WireContact]>::ref_from_prefix_with_elems(rest, usize::from(head.contacts))
        .map_err(|_| Refused::Length)?;
    let (providers, rest) = <[ProviderRecord]>::ref_from_prefix_with_elems(rest, usize::from(head.providers))
        .map_err(|_| Refused::Length)?;
    if rest.len() != usize::from(head.record_length.get()) {
        return Err(Refused::Length);
    }
    if !contacts.iter().all(WireContact::is_well_formed) {
        return Err(Refused::Reserved);
    }
    providers.iter().try_for_each(ProviderRecord::check)?;
    let record = if rest.is_empty() { None } else { Some(Record::parse(rest)?) };
    Ok(Message::Found { contacts, providers, record })
}

fn padding(bytes: &[u8]) -> Result<usize, Refused> {
    if bytes.len() > PADDING_BYTES {
        return Err(Refused::Length);
    }
    reserved(bytes).map(|()| bytes.len())
}

struct Writer<'a> {
    out: &'a mut [u8],
    length: usize,
}

impl Writer<'_> {
    fn put<T: IntoBytes + Immutable + ?Sized>(&mut self, value: &T) -> Option<()> {
        let bytes = value.as_bytes();
        self.out.get_mut(self.length..self.length + bytes.len())?.copy_from_slice(bytes);
        self.length += bytes.len();
        Some(())
    }

    fn padding(&mut self, count: usize) -> Option<()> {
        if count > PADDING_BYTES {
            return None;
        }
        self.out.get_mut(self.length..self.length + count)?.fill(0);
        self.length += count;
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::header::PAYLOAD_BYTES_MAX;

    fn written(message: &Message<'_>) -> Option<Vec<u8>> {
        let mut out = [0xff; PAYLOAD_BYTES_MAX];
        let length = message.write(&mut out)?;
        Some(out[..length].to_vec())
    }

    #[test]
    fn a_message_that_every_recipient_would_refuse_is_not_written() {
        let nowhere = SocketAddr::from(([192, 0, 2, 7], 0));
        assert_eq!(written(&Message::Pong { observed: nowhere }), None);
        assert_eq!(written(&Message::Ping { padding: PADDING_BYTES + 1 }), None);
        assert_eq!(written(&Message::Ping { padding: usize::MAX }), None);
        assert_eq!(written(&Message::Announce { announcements: &[] }), None);
        assert_eq!(written(&Message::Leave { for_good: true, sequence: 0 }), None);
    }

    #[test]
    fn counts_that_exceed_the_payload_are_refused() {
        let mut payload = written(&Message::Found { contacts: &[], providers: &[], record: None }).unwrap();
        for (index, value) in [(0, 1), (0, 255), (1, 1), (1, 255), (2, 1), (3, 255)] {
            payload[index] = value;
            assert_eq!(
                Message::parse(Kind::Found, &payload),
                Err(Refused::Length),
                "byte {index} is {value}"
            );
            payload[index] = 0;
        }
    }

    #[test]
    fn padding_that_is_not_zero_is_refused() {
        let mut payload = written(&Message::Ping { padding: PADDING_BYTES }).unwrap();
        assert_eq!(payload, [0; PADDING_BYTES]);
        payload[17] = 1;
        assert_eq!(Message::parse(Kind::Ping, &payload), Err(Refused::Reserved));
        assert_eq!(Message::parse(Kind::Ping, &[0; PADDING_BYTES + 1]), Err(Refused::Length));
    }
}
