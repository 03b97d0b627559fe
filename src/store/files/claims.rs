//! The claims on one address: the places from which its file is shared. Nearly every address has only one, which is stored inline.

use crate::id::Key;
use crate::io::{FileStamp, Place, Share, ShareState};
use crate::manifest::Layout;
use std::path::Path;
use std::sync::Arc;

/// The properties that all claims on an address have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shared {
    /// The file's address.
    pub hash: Key,
    /// The layout of its chunks.
    pub layout: Layout,
    /// The number of copies that the network keeps; 0 when the file is only shared.
    pub replicas: u8,
    /// The seconds that copies are kept.
    pub lifetime: u32,
    /// Whether every chunk has `replicas` copies.
    pub replicated: bool,
}

/// A place from which a file is shared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// `None` when the file is in the cache.
    path: Option<Arc<Path>>,
    /// The file's stamp when it was last hashed.
    pub stamp: FileStamp,
    /// Whether the file has the claimed content.
    pub state: ShareState,
    /// Whether its content is known to be on disk.
    pub synced: bool,
}

impl Claim {
    pub(super) fn of(share: &Share) -> Claim {
        let path = match &share.place {
            Place::File(path) => Some(Arc::clone(path)),
            _ => None,
        };
        Claim { path, stamp: share.stamp, state: share.state, synced: share.synced }
    }

    /// Whether the file is in the node's cache and counts against the quota.
    pub fn is_cached(&self) -> bool {
        self.path.is_none()
    }

    /// The place of the file; `hash` is its address.
    pub fn place(&self, hash: &Key) -> Place {
        match &self.path {
            Some(path) => Place::File(Arc::clone(path)),
            None => Place::Cache(*hash),
        }
    }

    pub(super) fn is_at(&self, place: &Place) -> bool {
        match (place, &self.path) {
            (Place::File(path), Some(own)) => path == own,
            (Place::Cache(_), None) => true,
            _ => false,
        }
    }
}

/// A claim that has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// The claim.
    pub share: Share,
    /// Whether the address has no other.
    pub last: bool,
}

/// Claims in the order in which they were made.
pub(super) enum Claims {
    One(Claim),
    /// Several; or none, between two calls of a change.
    Several(Vec<Claim>),
}

impl Default for Claims {
    fn default() -> Self {
        Claims::Several(Vec::new())
    }
}

impl Claims {
    pub(super) fn as_slice(&self) -> &[Claim] {
        match self {
            Claims::One(claim) => core::slice::from_ref(claim),
            Claims::Several(claims) => claims,
        }
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Claim> {
        match self {
            Claims::One(claim) => core::slice::from_mut(claim),
            Claims::Several(claims) => &mut claims[..],
        }
        .iter_mut()
    }

    pub(super) fn push(&mut self, claim: Claim) {
        *self = match core::mem::take(self) {
            Claims::Several(claims) if claims.is_empty() => Claims::One(claim),
            Claims::One(first) => Claims::Several(vec![first, claim]),
            Claims::Several(mut claims) => {
                claims.push(claim);
                Claims::Several(claims)
            }
        };
    }

    /// Removes the claim at a position, and returns it.
    pub(super) fn remove(&mut self, position: usize) -> Option<Claim> {
        let mut claims = match core::mem::take(self) {
            Claims::One(claim) => vec![claim],
            Claims::Several(claims) => claims,
        };
        let removed = (position < claims.len()).then(|| claims.remove(position));
        *self = match claims.len() {
            1 => claims.pop().map_or_else(Claims::default, Claims::One),
            _ => Claims::Several(claims),
        };
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(length: u64) -> Claim {
        let stamp = FileStamp { length, ..FileStamp::default() };
        Claim { path: None, stamp, state: ShareState::Present, synced: true }
    }

    #[test]
    fn claims_keep_their_order_while_others_come_and_go() {
        let mut claims = Claims::default();
        let lengths =
            |claims: &Claims| claims.as_slice().iter().map(|claim| claim.stamp.length).collect::<Vec<_>>();
        for length in 1..=3 {
            claims.push(claim(length));
            assert_eq!(lengths(&claims), (1..=length).collect::<Vec<_>>());
        }
        assert_eq!(claims.remove(1), Some(claim(2)));
        assert_eq!(claims.remove(2), None);
        assert_eq!(lengths(&claims), [1, 3]);
        assert_eq!(claims.remove(0), Some(claim(1)));
        assert!(matches!(claims, Claims::One(_)), "a single claim is stored inline");
        claims.iter_mut().for_each(|claim| claim.stamp.length = 9);
        assert_eq!(lengths(&claims), [9]);
        assert_eq!(claims.remove(0), Some(claim(9)));
        assert!(claims.as_slice().is_empty());
    }
}
