//! Provider records: a node's signed claim that it serves a file.

use super::Refused;
use super::contact::{Contact, WireAddr};
use super::network::Network;
use crate::id::{Key, PublicKey};
use crate::identity::Identity;
use core::net::SocketAddr;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A provider record: 128 bytes. It does not contain its file's key, which its signature covers.
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

/// The flag of a node that is still downloading the file.
const PARTIAL: u16 = 1;

impl ProviderRecord {
    /// The longest lifetime, in seconds: two days.
    pub const LIFETIME_MAX: u32 = 48 * 3600;

    /// A signed record: this node serves `file` at `addr` for `lifetime` seconds. The record with the higher sequence number
    /// replaces the other; a lifetime of zero withdraws it.
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

    /// Checks the values, without cryptography.
    pub(super) fn check(&self) -> Result<(), Refused> {
        if self.flags.get() & !PARTIAL != 0 {
            return Err(Refused::Reserved);
        }
        if self.lifetime.get() > Self::LIFETIME_MAX || self.addr.get().is_none() {
            return Err(Refused::Value);
        }
        Ok(())
    }

    /// The provider's contact; `None` when no node can be at its address.
    pub fn contact(&self) -> Option<Contact> {
        self.addr.get().map(|addr| Contact::new(self.provider, addr))
    }

    /// The provider's public key.
    pub fn provider(&self) -> PublicKey {
        self.provider
    }

    /// Whether the provider has only a part of the file.
    pub fn is_partial(&self) -> bool {
        self.flags.get() & PARTIAL != 0
    }

    /// The lifetime in seconds; zero withdraws an earlier record.
    pub fn lifetime(&self) -> u32 {
        self.lifetime.get()
    }

    /// The sequence number. The higher one wins.
    pub fn sequence(&self) -> u64 {
        self.sequence.get()
    }

    fn digest(&self, network: &Network, file: &Key) -> [u8; 32] {
        network.provider_digest(file, &self.as_bytes()[..COVERED])
    }
}
