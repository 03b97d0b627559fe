//! Identities and keys: points of one 256-bit space under the XOR metric (Maymounkov and Mazières, 2002).

mod work;

pub use work::IdWork;

use core::fmt;
use core::str::FromStr;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// A point of the key space: the BLAKE3 hash of a file (its address), the chaining value of a chunk, or the hash of a value
/// record's publisher and name.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(transparent)]
pub struct Key(pub [u8; 32]);

/// A node's point in the key space: the BLAKE3 hash of its [`PublicKey`].
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(transparent)]
pub struct NodeId(pub [u8; 32]);

/// An Ed25519 public key in its 32-byte compressed form (RFC 8032). Not every value is a valid point.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(transparent)]
pub struct PublicKey(pub [u8; 32]);

/// The first eight bytes of a [`NodeId`], as the datagram header carries it.
pub type ShortId = [u8; 8];

/// The distance of two points: their XOR, compared as a big-endian number. Stored as words, most significant first: lookups
/// compare many distances, and the first word decides nearly every comparison.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Distance([u64; 4]);

impl Key {
    /// The distance between two keys.
    pub fn distance(&self, other: &Key) -> Distance {
        let word = |key: &Key, i: usize| u64::from_be_bytes(core::array::from_fn(|byte| key.0[i * 8 + byte]));
        Distance(core::array::from_fn(|i| word(self, i) ^ word(other, i)))
    }

    /// The number of leading bits that two keys share: 0 to 256.
    pub fn common_prefix(&self, other: &Key) -> u32 {
        self.distance(other).leading_zeros()
    }

    /// Bit `index`, 0 being the most significant.
    ///
    /// # Panics
    /// When `index` is over 255.
    pub fn bit(&self, index: u32) -> bool {
        self.0[(index / 8) as usize] & (0x80 >> (index % 8)) != 0
    }
}

impl NodeId {
    /// The node's place in the key space.
    pub fn key(&self) -> Key {
        Key(self.0)
    }

    /// The part that the datagram header carries.
    pub fn short(&self) -> ShortId {
        core::array::from_fn(|i| self.0[i])
    }

    /// The distance between this node and a key.
    pub fn distance(&self, key: &Key) -> Distance {
        self.key().distance(key)
    }
}

impl PublicKey {
    /// The id of the node that holds this key.
    pub fn node_id(&self) -> NodeId {
        NodeId(*blake3::hash(&self.0).as_bytes())
    }
}

impl Distance {
    /// The first 64 bits.
    pub fn first_word(&self) -> u64 {
        self.0[0]
    }

    /// Leading zero bits: 0 to 256. A distance of zero has 256.
    pub fn leading_zeros(&self) -> u32 {
        match self.0.iter().position(|&word| word != 0) {
            Some(index) => index as u32 * 64 + self.0[index].leading_zeros(),
            None => 256,
        }
    }
}

/// A text that is not 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InvalidHex;

impl fmt::Display for InvalidHex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected 64 hexadecimal digits")
    }
}

impl std::error::Error for InvalidHex {}

macro_rules! hexadecimal {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&blake3::Hash::from_bytes(self.0).to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let hex = blake3::Hash::from_bytes(self.0).to_hex();
                write!(f, "{}({}…)", stringify!($name), &hex[..12])
            }
        }

        impl FromStr for $name {
            type Err = InvalidHex;

            fn from_str(text: &str) -> Result<Self, InvalidHex> {
                blake3::Hash::from_hex(text).map(|hash| $name(*hash.as_bytes())).map_err(|_| InvalidHex)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}

hexadecimal!(Key NodeId PublicKey);

#[cfg(test)]
mod tests {
    use super::*;

    fn key(first: u8, last: u8) -> Key {
        let mut bytes = [0; 32];
        (bytes[0], bytes[31]) = (first, last);
        Key(bytes)
    }

    #[test]
    fn distance_orders_by_the_most_significant_difference() {
        let origin = key(0, 0);
        assert!(origin.distance(&key(0, 255)) < origin.distance(&key(1, 0)));
        assert_eq!(origin.distance(&key(0, 1)).leading_zeros(), 255);
        assert_eq!(origin.common_prefix(&key(0x10, 0)), 3);
        assert_eq!(origin.common_prefix(&origin), 256);
        assert!(key(0x80, 0).bit(0) && !key(0x80, 0).bit(1) && key(0, 1).bit(255));
    }

    #[test]
    fn a_key_survives_text_and_any_other_text_is_refused() {
        let some = key(7, 9);
        assert_eq!(some.to_string().parse::<Key>(), Ok(some));
        for wrong in ["", "00", &"g".repeat(64), &"0".repeat(63), &"0".repeat(65)] {
            assert_eq!(wrong.parse::<Key>(), Err(InvalidHex), "{wrong}");
        }
    }
}
