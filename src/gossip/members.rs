//! The view: the members that this node knows. All of its memory is allocated at the start.
//!
//! Members are sorted by XOR distance to this node. So the neighbourhood is the start of the table, a member is found by
//! bisection, and the members near any other node are a contiguous run. The nearest always stay. The others are a slowly changing
//! sample, in which uncontacted members give way to contacted ones, and then those of the party that has most. While there is room no
//! member is refused.

use super::config::GossipConfig;
use super::relay::RelaysWord;
use super::watch::{Watch, Watched};
use crate::id::{NodeId, PublicKey, ShortId};
use crate::peers::contest::{Holder, gives_way};
use crate::peers::liveness::Liveness;
use crate::peers::party::{Level, Parties};
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::contact::{Contact, KeptAddr, WireAddr};
use crate::wire::datagram::Epoch;
use crate::wire::state::NodeState;
use core::net::SocketAddr;

/// One in this many places is for evicted members: after a partition they are how this node finds the other side.
const EVICTED_SHARE: usize = 8;

/// A member's place in the order. It holds the fields that scans of the table read, close together in memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The first eight bytes of the distance to this node.
    pub(super) distance: u64,
    slot: u16,
    /// The member's liveness.
    pub(super) liveness: Liveness,
    /// How closely it is watched: see [`Members::refresh_watch`].
    pub(super) watched: Watched,
}

/// What is known about a member.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Its newest known state; sequence zero when none is known.
    pub(super) state: NodeState,
    id: NodeId,
    addr: KeptAddr,
    /// When the member itself was last heard from. Of an unproven member: when it was first named.
    pub(super) heard: Instant,
    /// Since when it has had its liveness.
    pub(super) since: Instant,
    /// When this node last sent it a request.
    pub(super) asked: Instant,
    /// When the relays of a probe last said that the member answers.
    pub(super) vouched: Instant,
    /// The epoch in which the member itself said goodbye. It may still answer while it shuts down, and returns in another one.
    pub(super) left_in: Option<Epoch>,
    /// Requests in a row without an answer.
    pub(super) tries: u8,
    /// Whether a probe is under way.
    pub(super) probing: bool,
    /// What the relays of this probe said.
    pub(super) relays: RelaysWord,
    /// The hops over which its state came as news, until the member answers and the news is passed on.
    pub(super) news: Option<u8>,
}

impl Entry {
    /// The address where it answers, or is said to.
    pub(super) fn addr(&self) -> SocketAddr {
        self.addr.get().unwrap_or(NOWHERE)
    }

    /// Whether the address where it answers is one of those in its state.
    pub(super) fn is_where_it_says(&self) -> bool {
        let here = WireAddr::new(self.addr()).get();
        self.state.addrs().any(|addr| Some(addr) == here)
    }

    /// Its id, key and address.
    pub(super) fn contact(&self) -> Contact {
        Contact { id: self.id, public: self.state.public(), addr: self.addr() }
    }
}

/// The address of no member: unusable addresses are not entered.
const NOWHERE: SocketAddr = SocketAddr::new(core::net::IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED), 0);

/// Why a member was not entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NoPlace {
    /// The view is full of members that are worth more.
    View,
    /// It is this node, or another member has its short id, or its address is unusable.
    Impossible,
}

/// A node to be entered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Newcomer {
    /// Its id.
    pub(super) id: NodeId,
    /// Its state, or [`NodeState::unknown`].
    pub(super) state: NodeState,
    /// Its address.
    pub(super) addr: SocketAddr,
    /// Whether it answered there. A contacted node is worth more than one that others named.
    pub(super) met: bool,
    /// Whether it may displace a member of the sample that answers.
    pub(super) displaces: bool,
}

/// The view of one node.
pub(super) struct Members {
    own: u64,
    parties: Parties,
    capacity: usize,
    near_max: usize,
    places: Vec<Place>,
    entries: Vec<Entry>,
    free: Vec<u16>,
    generation: u64,
    suspects: usize,
    away: usize,
    watch: Watch,
    /// Whether the choice of the members that are watched may have changed.
    is_watch_stale: bool,
}

impl Members {
    /// The empty view of the node `own`.
    pub(super) fn new(own: &NodeId, config: &GossipConfig) -> Self {
        let capacity = config.view_max.min(usize::from(u16::MAX));
        Members {
            own: u64::from_be_bytes(own.short()),
            parties: config.parties,
            capacity,
            near_max: config.neighbours * 3 / 2,
            places: Vec::with_capacity(capacity),
            entries: Vec::with_capacity(capacity),
            free: Vec::with_capacity(capacity),
            generation: 0,
            suspects: 0,
            away: 0,
            watch: Watch::new(config.neighbours, config.monitored),
            is_watch_stale: false,
        }
    }

    /// The number of members.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Grows with every change among the near members, of their addresses, and of their liveness.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// The number of suspects.
    pub(super) fn suspects(&self) -> usize {
        self.suspects
    }

    /// The number of members that are probed only rarely.
    pub(super) fn away(&self) -> usize {
        self.away
    }

    /// The places, nearest first.
    pub(super) fn places(&self) -> &[Place] {
        &self.places
    }

    /// The distance of a node with this short id to this node: the first eight bytes.
    pub(super) fn distance(&self, short: ShortId) -> u64 {
        u64::from_be_bytes(short) ^ self.own
    }

    /// The short id of the member at `position`.
    pub(super) fn short(&self, position: usize) -> ShortId {
        (self.places[position].distance ^ self.own).to_be_bytes()
    }

    /// The position of the member with this short id.
    pub(super) fn find(&self, short: ShortId) -> Option<usize> {
        let distance = self.distance(short);
        self.places.binary_search_by_key(&distance, |place| place.distance).ok()
    }

    /// The position of the member with this key.
    pub(super) fn find_key(&self, short: ShortId, public: &PublicKey) -> Option<usize> {
        self.find(short).filter(|&position| self.entry(position).state.public() == *public)
    }

    /// The member at `position`.
    pub(super) fn entry(&self, position: usize) -> &Entry {
        &self.entries[usize::from(self.places[position].slot)]
    }

    /// The member at `position`.
    pub(super) fn entry_mut(&mut self, position: usize) -> &mut Entry {
        &mut self.entries[usize::from(self.places[position].slot)]
    }

    /// The positions of the `count` nearest members with a liveness for which `is` holds, nearest first.
    pub(super) fn nearest<'a>(
        &'a self,
        count: usize,
        is: impl Fn(Liveness) -> bool + 'a,
    ) -> impl Iterator<Item = usize> + 'a {
        let places = self.places.iter().enumerate();
        places.filter(move |(_, place)| is(place.liveness)).map(|(position, _)| position).take(count)
    }

    /// Chooses the members that are watched anew, if that may change anything. Returns how many there are.
    pub(super) fn refresh_watch(&mut self) -> usize {
        if !core::mem::take(&mut self.is_watch_stale) {
            return self.watch.len();
        }
        self.watch.begin();
        for place in &mut self.places {
            place.watched = match place.liveness.is_neighbour() {
                true => {
                    let contact = self.entries[usize::from(place.slot)].contact();
                    self.watch.admit(self.parties.of(&contact.id, contact.addr).at(Level::Site))
                }
                false => Watched::No,
            };
        }
        if self.watch.has_room() {
            for place in self.places.iter_mut().filter(|place| place.liveness.is_neighbour()) {
                place.watched = self.watch.fill(place.watched);
            }
        }
        self.watch.len()
    }

    /// Whether the member at `position` is watched.
    pub(super) fn is_watched(&mut self, position: usize) -> bool {
        self.refresh_watch();
        self.places[position].watched != Watched::No
    }

    /// The positions of the live members that were watched at the last [refresh](Members::refresh_watch), nearest first.
    pub(super) fn live_neighbours(&self) -> impl Iterator<Item = usize> + '_ {
        let is_one = |place: &Place| place.watched != Watched::No && place.liveness == Liveness::Live;
        self.places.iter().enumerate().filter(move |(_, place)| is_one(place)).map(|(position, _)| position)
    }

    /// Whether a node at this distance is, or would be, among the `count` nearest.
    pub(super) fn is_among(&self, count: usize, distance: u64) -> bool {
        let nearer = self.places.iter().take_while(|place| place.distance < distance);
        nearer.filter(|place| place.liveness.is_neighbour()).take(count).count() < count
    }

    /// The positions of all members that share the first `bits` bits of their id with `short`.
    pub(super) fn run(&self, short: ShortId, bits: u32) -> core::ops::Range<usize> {
        let mask = u64::MAX.checked_shr(bits).unwrap_or(0);
        let first = self.distance(short) & !mask;
        let start = self.places.partition_point(|place| place.distance < first);
        let end = self.places.partition_point(|place| place.distance <= first | mask);
        start..end
    }

    /// The number of nodes in the network, estimated from the density of the neighbourhood.
    pub(super) fn network_size(&self) -> u64 {
        const SAMPLE: usize = 20;
        let farthest = self.nearest(SAMPLE, Liveness::is_neighbour).last();
        let here = self.places.len() as u64 + 1;
        let guess = farthest.map(|position| {
            let distance = u128::from(self.places[position].distance.max(1));
            ((SAMPLE as u128) << 64) / distance
        });
        match guess {
            Some(guess) if here > SAMPLE as u64 => here.max(guess.min(1 << 32) as u64),
            _ => here,
        }
    }

    /// Changes a member's liveness.
    pub(super) fn set_liveness(&mut self, position: usize, liveness: Liveness, now: Instant) {
        let old = self.places[position].liveness;
        if old != liveness {
            self.count(old, -1);
            self.count(liveness, 1);
            self.places[position].liveness = liveness;
            self.entry_mut(position).since = now;
            self.changed(self.places[position].distance, old.is_neighbour() || liveness.is_neighbour());
        }
    }

    /// A member at this distance changed. If it is a near one, the generation advances.
    fn changed(&mut self, distance: u64, is_neighbour: bool) {
        self.is_watch_stale |= is_neighbour;
        if is_neighbour && self.is_among(self.near_max, distance) {
            self.generation += 1;
        }
    }

    /// Changes a member's address.
    pub(super) fn set_addr(&mut self, position: usize, addr: SocketAddr) {
        self.entry_mut(position).addr = KeptAddr::new(addr);
        let Place { distance, liveness, .. } = self.places[position];
        self.changed(distance, liveness.is_neighbour());
    }

    /// Enters an unknown member as unproven, and returns its position. Positions found before are invalid afterwards.
    pub(super) fn insert(
        &mut self,
        now: Instant,
        newcomer: &Newcomer,
        rng: &mut Rng,
    ) -> Result<usize, NoPlace> {
        let addr = KeptAddr::new(newcomer.addr);
        let distance = self.distance(newcomer.id.short());
        if distance == 0 || addr.get().is_none() || self.find(newcomer.id.short()).is_some() {
            return Err(NoPlace::Impossible);
        }
        let near = self.is_near(distance);
        let full = self.places.len() >= self.capacity;
        // In a large network most that are told of are of this kind: they must not cost a walk over the view.
        if full && !(near || newcomer.met || newcomer.displaces) {
            return Err(NoPlace::View);
        }
        if full {
            let victim = self.victim(newcomer, near, rng).ok_or(NoPlace::View)?;
            self.remove(victim);
        }
        let entry = Entry {
            state: newcomer.state,
            id: newcomer.id,
            addr,
            heard: now,
            since: now,
            asked: Instant::ZERO,
            vouched: Instant::ZERO,
            left_in: None,
            tries: 0,
            probing: false,
            relays: RelaysWord::default(),
            news: None,
        };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.entries[usize::from(slot)] = entry;
                slot
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as u16
            }
        };
        let position = self.places.partition_point(|place| place.distance < distance);
        self.places
            .insert(position, Place { distance, slot, liveness: Liveness::Unproven, watched: Watched::No });
        Ok(position)
    }

    /// Forgets the member at `position`. Positions found before do not hold any more.
    pub(super) fn remove(&mut self, position: usize) {
        let place = self.places.remove(position);
        self.count(place.liveness, -1);
        self.free.push(place.slot);
        self.changed(place.distance, place.liveness.is_neighbour());
    }

    /// Whether a node at this distance is near enough to stay in any case.
    pub(super) fn is_near(&self, distance: u64) -> bool {
        let nearer = self.places.iter().take_while(|place| place.distance < distance);
        nearer.filter(|place| !place.liveness.is_over()).take(self.near_max).count() < self.near_max
    }

    /// Whether there is room without displacing a member.
    pub(super) fn has_room(&self) -> bool {
        self.places.len() < self.capacity
    }

    fn count(&mut self, liveness: Liveness, change: isize) {
        let counter = match liveness {
            Liveness::Suspect => &mut self.suspects,
            liveness if liveness.is_away() => &mut self.away,
            _ => return,
        };
        *counter = counter.saturating_add_signed(change);
    }

    /// The member that gives way to a newcomer when the view is full; `None`: the newcomer does. Departed members come first, if they
    /// exceed their share; then uncontacted ones; then any that is far away, of which the newcomer is one. Of each kind, one of the
    /// party that has most gives way, at random.
    fn victim(&self, newcomer: &Newcomer, near: bool, rng: &mut Rng) -> Option<usize> {
        let over = self.places.iter().filter(|place| place.liveness.is_over()).count();
        let mut rank = 0;
        let far = self.places.iter().position(|place| {
            rank += usize::from(!place.liveness.is_over());
            rank > self.near_max
        });
        let first_far = far.unwrap_or(self.places.len());
        let worth = |position: usize| match self.places[position].liveness {
            liveness if liveness.is_over() => (over > self.capacity / EVICTED_SHARE).then_some(0),
            _ if position < first_far => None,
            Liveness::Unproven if self.entry(position).tries > 0 => Some(1),
            Liveness::Unproven => Some(2),
            _ => (near || newcomer.displaces).then_some(MET),
        };
        let least = (0..self.places.len()).filter_map(worth).min()?;
        let (length, start) = (self.places.len(), rng.below(self.places.len() as u64) as usize);
        let all = (0..length).map(|step| (start + step) % length);
        let kind: Vec<usize> = all.filter(|&position| worth(position) == Some(least)).collect();
        let holder = |contact: Contact| Holder::node(self.parties, &contact.id, contact.addr);
        let mut contest: Vec<(Holder, bool)> =
            kind.iter().map(|&position| (holder(self.entry(position).contact()), false)).collect();
        if least == MET {
            contest.push((Holder::node(self.parties, &newcomer.id, newcomer.addr), true));
        }
        gives_way(&contest).and_then(|loser| kind.get(loser).copied())
    }
}

/// The worth of a member that was contacted and is far away.
const MET: u8 = 3;
