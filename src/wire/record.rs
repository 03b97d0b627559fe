//! Value records: small named values under their publisher's key, ordered by sequence number.

use super::Refused;
use super::layout::reserved;
use super::network::Network;
use crate::id::{Key, PublicKey};
use crate::identity::Identity;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The longest name, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 64;
/// The longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 896;
/// The longest lifetime, in seconds: 30 days.
pub const LIFETIME_MAX: u32 = 30 * 24 * 3600;

/// The head of a value record; name and value follow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RecordHead {
    publisher: PublicKey,
    sequence: U64,
    lifetime: U32,
    name_length: u8,
    reserved: u8,
    value_length: U16,
    signature: [u8; 64],
}

const _: () = assert!(size_of::<RecordHead>() == 112);
const COVERED: usize = 48;

/// The longest record, in bytes.
pub const RECORD_BYTES_MAX: usize = size_of::<RecordHead>() + NAME_BYTES_MAX + VALUE_BYTES_MAX;

/// A well-formed value record, read in place. [`verify`](Record::verify) checks its signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    bytes: &'a [u8],
    head: &'a RecordHead,
}

impl<'a> Record<'a> {
    /// Parses a record that must fill `bytes` exactly.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Refused> {
        let (head, rest) = RecordHead::ref_from_prefix(bytes).map_err(|_| Refused::Length)?;
        let (name_length, value_length) =
            (usize::from(head.name_length), usize::from(head.value_length.get()));
        if rest.len() != name_length + value_length {
            return Err(Refused::Length);
        }
        reserved(&[head.reserved])?;
        let name = core::str::from_utf8(&rest[..name_length]).map_err(|_| Refused::Value)?;
        if !is_name(name) || value_length > VALUE_BYTES_MAX || head.lifetime.get() > LIFETIME_MAX {
            return Err(Refused::Value);
        }
        Ok(Record { bytes, head })
    }

    /// Checks the signature (about 50 µs).
    pub fn verify(&self, network: &Network) -> Result<(), Refused> {
        match network.verify(&self.head.publisher, &digest(network, self.bytes), &self.head.signature) {
            true => Ok(()),
            false => Err(Refused::Signature),
        }
    }

    /// The publisher's public key.
    pub fn publisher(&self) -> PublicKey {
        self.head.publisher
    }

    /// The sequence number. The higher one wins.
    pub fn sequence(&self) -> u64 {
        self.head.sequence.get()
    }

    /// The seconds that nodes keep it after it was last published.
    pub fn lifetime(&self) -> u32 {
        self.head.lifetime.get()
    }

    /// Its name under the publisher's key: 1 to 64 bytes without control characters or `/`.
    pub fn name(&self) -> &'a str {
        let end = size_of::<RecordHead>() + usize::from(self.head.name_length);
        core::str::from_utf8(&self.bytes[size_of::<RecordHead>()..end]).unwrap_or_default()
    }

    /// Its value: at most 896 bytes, of any kind.
    pub fn value(&self) -> &'a [u8] {
        &self.bytes[size_of::<RecordHead>() + usize::from(self.head.name_length)..]
    }

    /// The key under which the network keeps it.
    pub fn key(&self) -> Key {
        record_key(&self.publisher(), self.name())
    }

    /// The record in its wire form, which is also stored.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// The bytes of a new signed record. `None` when the name, the value or the lifetime is not allowed.
pub fn sign_record(
    network: &Network,
    identity: &Identity,
    name: &str,
    value: &[u8],
    lifetime: u32,
    sequence: u64,
) -> Option<Vec<u8>> {
    if !is_name(name) || value.len() > VALUE_BYTES_MAX || lifetime > LIFETIME_MAX {
        return None;
    }
    let mut head = RecordHead {
        publisher: identity.public(),
        sequence: U64::new(sequence),
        lifetime: U32::new(lifetime),
        name_length: name.len() as u8,
        reserved: 0,
        value_length: U16::new(value.len() as u16),
        signature: [0; 64],
    };
    let mut bytes = [head.as_bytes(), name.as_bytes(), value].concat();
    head.signature = identity.sign(&digest(network, &bytes));
    bytes[..size_of::<RecordHead>()].copy_from_slice(head.as_bytes());
    Some(bytes)
}

/// The key under which the network keeps the record called `name` of `publisher`.
pub fn record_key(publisher: &PublicKey, name: &str) -> Key {
    let mut hasher = blake3::Hasher::new_derive_key("elver 2026-11 value record key");
    hasher.update(&publisher.0).update(name.as_bytes());
    Key(*hasher.finalize().as_bytes())
}

/// Whether `name` can name a record: 1 to 64 bytes, no control characters, no `/`.
pub fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(|c| c.is_control() || c == '/')
}

fn digest(network: &Network, bytes: &[u8]) -> [u8; 32] {
    network.record_digest(&bytes[..COVERED], &bytes[size_of::<RecordHead>()..])
}
