//! The memory of the table of peers: sets of four places, as in a processor's cache. Which set a node belongs to follows from its
//! short id under a secret seed, so an attacker cannot choose ids that fill the set of a certain node.

use super::peer::Peer;
use crate::id::{NodeId, ShortId};

/// Places in the table.
pub const PEERS_MAX: usize = 1024;
/// Places in a set.
const WAYS: usize = 4;

/// How firmly a peer keeps its place.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Hold {
    /// Any other peer may take it.
    Loose,
    /// A live member: only a routing contact may.
    Member,
    /// A contact of the routing table: none may. Contacts are few, and what the routing table must know of them is in the table.
    Contact,
}

/// The places, of which each takes memory when it is first used and keeps it.
pub(super) struct Sets {
    seed: u64,
    places: Vec<Option<Box<Peer>>>,
}

impl Sets {
    /// No peers.
    pub(super) fn new(seed: u64) -> Self {
        Sets { seed, places: core::iter::repeat_with(|| None).take(PEERS_MAX).collect() }
    }

    /// The peers whose ids begin with `short`: one, or several whose short ids collide.
    pub(super) fn with_short(&mut self, short: ShortId) -> impl Iterator<Item = &mut Peer> {
        let set = self.set(short);
        let peers = self.places[set..set + WAYS].iter_mut().filter_map(Option::as_deref_mut);
        peers.filter(move |peer| peer.id().short() == short)
    }

    /// A peer.
    pub(super) fn get(&self, id: &NodeId) -> Option<&Peer> {
        let set = self.set(id.short());
        self.places[set..set + WAYS].iter().filter_map(Option::as_deref).find(|peer| peer.id() == *id)
    }

    /// A peer.
    pub(super) fn get_mut(&mut self, id: &NodeId) -> Option<&mut Peer> {
        self.with_short(id.short()).find(|peer| peer.id() == *id)
    }

    /// Enters a peer that is not in the table. In a full set the peer with the loosest hold gives way, and of several the one heard
    /// from least recently. `None` when all four hold their places against the newcomer.
    pub(super) fn enter(&mut self, peer: Peer, hold: impl Fn(&NodeId) -> Hold) -> Option<&mut Peer> {
        let set = self.set(peer.id().short());
        let places = &mut self.places[set..set + WAYS];
        let free = places.iter().position(Option::is_none);
        let place = free.or_else(|| {
            let peers = places.iter().enumerate().filter_map(|(place, peer)| Some((place, peer.as_deref()?)));
            let (hold_of_loosest, _, place) =
                peers.map(|(place, peer)| (hold(&peer.id()), peer.heard(), place)).min()?;
            let gives_way = hold_of_loosest == Hold::Loose || hold_of_loosest < hold(&peer.id());
            gives_way.then_some(place)
        })?;
        match &mut places[place] {
            Some(old) => **old = peer,
            empty => *empty = Some(Box::new(peer)),
        }
        places[place].as_deref_mut()
    }

    /// The number of peers.
    pub(super) fn len(&self) -> usize {
        self.places.iter().flatten().count()
    }

    /// The first place of the set that a node belongs to.
    fn set(&self, short: ShortId) -> usize {
        let hash = xxhash_rust::xxh3::xxh3_64_with_seed(&short, self.seed);
        hash as usize % (PEERS_MAX / WAYS) * WAYS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PublicKey;
    use crate::peers::silence::{STRANGERS_MAX, Silence};
    use crate::time::Instant;
    use crate::wire::datagram::Epoch;

    fn peer(number: u32, heard: u64) -> Peer {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_le_bytes());
        let public = PublicKey(key);
        let addr = ([10, 0, 0, 1], 3583).into();
        Peer::new(Instant::from_secs(heard), public, public.node_id(), Epoch::new(1), 1, addr)
    }

    #[test]
    fn a_full_table_takes_at_most_half_a_megabyte() {
        // The silent strangers are in a tree, whose nodes may be half empty.
        let strangers = STRANGERS_MAX * 2 * size_of::<(NodeId, Silence)>();
        let bytes = PEERS_MAX * (size_of::<Peer>() + size_of::<Option<Box<Peer>>>()) + strangers;
        assert!(bytes <= 512 << 10, "{bytes} bytes, {} a peer", size_of::<Peer>());
    }

    #[test]
    fn the_peer_heard_from_least_recently_gives_way_and_pinned_ones_stay() {
        let mut sets = Sets::new(7);
        // Far more peers than places: every set overflows.
        let pinned: Vec<NodeId> = (0..100).map(|number| peer(number, 0).id()).collect();
        for number in 0..5000 {
            let hold = |id: &NodeId| if pinned.contains(id) { Hold::Member } else { Hold::Loose };
            sets.enter(peer(number, u64::from(number)), hold);
        }
        assert_eq!(sets.len(), PEERS_MAX);
        let kept = pinned.iter().filter(|id| sets.get(id).is_some()).count();
        assert!(kept >= 98, "{kept} of 100 pinned peers; the others found only pinned ones in their sets");
        assert!(sets.get(&peer(4999, 0).id()).is_some(), "the newest");
        assert!(sets.get(&peer(200, 0).id()).is_none(), "an old one that is not pinned");
    }

    #[test]
    fn a_set_of_pinned_peers_takes_no_other() {
        let mut sets = Sets::new(7);
        let enter = |number: &u32| sets.enter(peer(*number, 1), |_| Hold::Member).is_some();
        let entered = (0..5000).filter(enter).count();
        assert_eq!(entered, sets.len());
        assert!(entered <= PEERS_MAX);
    }

    #[test]
    fn a_routing_contact_takes_the_place_of_a_member_and_no_peer_takes_that_of_a_contact() {
        let mut sets = Sets::new(7);
        let contacts: Vec<NodeId> = (10_000..10_100).map(|number| peer(number, 0).id()).collect();
        let hold = |id: &NodeId| if contacts.contains(id) { Hold::Contact } else { Hold::Member };
        (0..5000).for_each(|number| _ = sets.enter(peer(number, 9), hold));
        let entered = (10_000..10_100).filter(|number| sets.enter(peer(*number, 0), hold).is_some()).count();
        assert!(entered >= 98, "{entered} of 100 contacts; the others found only contacts in their sets");
        assert_eq!((5000..9000).filter(|number| sets.enter(peer(*number, 10), hold).is_some()).count(), 0);
    }
}
