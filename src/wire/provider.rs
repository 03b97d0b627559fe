//! Provider records: a node's signed word that it serves a file.

use super::Refused;
use super::contact::{Contact, WireAddr};
use super::network::Network;
use crate::id::{Key, PublicKey};
use crate::identity::Identity;
use core::net::SocketAddr;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A provider record: 128 bytes. The file that it is about is not part of it but covered by its signature.
#[derive(Clone, Copy, PartialEq, Eq, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct ProviderRecord {
    provider: PublicKey,
    addr: WireAddr,
    flags: U16,
    lifetime: U32,
    sequence: U64,
    signature: [u8; 64],
}

const _: () = assert!(size_of::<ProviderRecord>() == 128);
const COVERED: usize = 64;

/// Set in a record's flags by a node that is still downloading the file.
const PARTIAL: u16 = 1;

impl ProviderRecord {
    /// The longest lifetime that is taken, in seconds: two days.
    pub const LIFETIME_MAX: u32 = 48 * 3600;

    /// A record, signed: this node serves `file` at `addr` for `lifetime` seconds. The record with the higher
    /// sequence number replaces the other; a lifetime of zero takes it back.
    pub fn new(
        network: &Network,
        identity: &Identity,
        file: &Key,
        addr: SocketAddr,
        partial: bool,
        lifetime: u32,
        sequence: u64,
    ) -> Self {
        let mut record = ProviderRecord {
            provider: identity.public(),
            addr: WireAddr::new(addr),
            flags: U16::new(if partial { PARTIAL } else { 0 }),
            lifetime: U32::new(lifetime),
            sequence: U64::new(sequence),
            signature: [0; 64],
        };
        record.signature = identity.sign(&record.digest(network, file));
        record
    }

    /// Checks values and signature (about 50 µs).
    pub fn verify(&self, network: &Network, file: &Key) -> Result<(), Refused> {
        self.check()?;
        match network.verify(&self.provider, &self.digest(network, file), &self.signature) {
            true => Ok(()),
            false => Err(Refused::Signature),
        }
    }

    /// What can be checked without cryptography.
    pub(super) fn check(&self) -> Result<(), Refused> {
        if self.flags.get() & !PARTIAL != 0 {
            return Err(Refused::Reserved);
        }
        if self.lifetime.get() > Self::LIFETIME_MAX || self.addr.get().is_none() {
            return Err(Refused::Value);
        }
        Ok(())
    }

    /// Who serves, and where; `None` when the address is nobody's.
    pub fn contact(&self) -> Option<Contact> {
        self.addr.get().map(|addr| Contact::new(self.provider, addr))
    }

    /// The public key of who serves.
    pub fn provider(&self) -> PublicKey {
        self.provider
    }

    /// Whether it has only a part of the file yet.
    pub fn is_partial(&self) -> bool {
        self.flags.get() & PARTIAL != 0
    }

    /// Seconds that the record is to be kept; zero takes an earlier one back.
    pub fn lifetime(&self) -> u32 {
        self.lifetime.get()
    }

    /// The higher number wins.
    pub fn sequence(&self) -> u64 {
        self.sequence.get()
    }

    fn digest(&self, network: &Network, file: &Key) -> [u8; 32] {
        network.provider_digest(file, &self.as_bytes()[..COVERED])
    }
}
