//! The view: whom this node knows. All of its memory is there from the start.
//!
//! Members are in order of their distance to this node, so that the neighbourhood is the start of the table, a member is
//! found by bisection, and those near any other node are a run. The nearest stay for sure; the others are a sample that
//! changes slowly, in which whoever was never met gives way to whoever was. Members that share an IP prefix are limited.

use super::rtt::Rtt;
use crate::id::{NodeId, PublicKey, ShortId};
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::address::Prefix;
use crate::wire::contact::{Contact, WireAddr};
use crate::wire::state::NodeState;
use core::net::SocketAddr;

/// Members of one IP prefix among the nearest.
pub(super) const PREFIX_NEAR_MAX: usize = 8;
/// Members of one IP prefix in the view.
pub(super) const PREFIX_VIEW_MAX: usize = 32;
/// One of so many places is for those that were evicted: after a partition they are how the other side is found.
const EVICTED_SHARE: usize = 8;

/// Whether a member is there, as far as this node has found out itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Liveness {
    /// Others told of it, or it asked something; it has not answered this node yet.
    Unproven,
    /// It answers.
    Live,
    /// It is silent and did not answer, neither this node nor those that were asked to try.
    Suspect,
    /// It has been silent for long.
    Unresponsive,
    /// It has been silent for so long that it counts as gone.
    Evicted,
    /// It said goodbye.
    Left {
        /// Whether it does not mean to come back.
        for_good: bool,
    },
}

impl Liveness {
    /// Whether it has a place in the neighbourhood: it was met, and has neither been evicted nor left for good.
    pub fn is_neighbour(self) -> bool {
        use Liveness::*;
        matches!(self, Live | Suspect | Unresponsive | Left { for_good: false })
    }

    /// Whether others are told of it.
    pub(super) fn is_told(self) -> bool {
        matches!(self, Liveness::Live | Liveness::Suspect)
    }

    /// Whether a digest names it, so that what this node knows of it is brought up to date.
    pub(super) fn is_named(self) -> bool {
        self.is_told() || self == Liveness::Unproven
    }

    /// Whether it is asked only now and then.
    pub(super) fn is_away(self) -> bool {
        !matches!(self, Liveness::Unproven | Liveness::Live | Liveness::Suspect)
    }

    fn is_over(self) -> bool {
        matches!(self, Liveness::Evicted | Liveness::Left { for_good: true })
    }
}

/// A member's place in the order. What is looked at most is here, close together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The first eight bytes of the distance to this node.
    pub(super) distance: u64,
    slot: u16,
    /// Whether the member is there.
    pub(super) liveness: Liveness,
    /// Who owns its address.
    prefix: Option<Prefix>,
}

/// What is known about a member.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Its newest state; sequence zero when none was heard.
    pub(super) state: NodeState,
    id: NodeId,
    addr: WireAddr,
    /// When the member itself was last heard from; of one that is unproven, when it was first heard of.
    pub(super) heard: Instant,
    /// Since when its liveness is what it is.
    pub(super) since: Instant,
    /// When it was last asked something.
    pub(super) asked: Instant,
    /// When somebody else last said that it answers.
    pub(super) vouched: Instant,
    /// The highest number among its datagrams: what is not above it may be a replay.
    pub(super) sequence: u64,
    /// How far away it is.
    pub(super) rtt: Rtt,
    /// Requests in a row without an answer.
    pub(super) tries: u8,
    /// Whether a probe is under way.
    pub(super) probing: bool,
    /// Of the relays of this probe: how many got no answer either.
    pub(super) silent_relays: u8,
}

impl Entry {
    /// Where it answers, or is said to.
    pub(super) fn addr(&self) -> SocketAddr {
        self.addr.get().unwrap_or(NOWHERE)
    }

    /// Who and where it is.
    pub(super) fn contact(&self) -> Contact {
        Contact { id: self.id, public: self.state.public(), addr: self.addr() }
    }
}

/// No member has this address: what cannot be sent to is not entered.
const NOWHERE: SocketAddr = SocketAddr::new(core::net::IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED), 0);

/// Why a member was not entered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NoPlace {
    /// The view is full of members that are worth more.
    View,
    /// Too many members share its IP prefix.
    Prefix,
    /// It is this node, somebody else has its short id, or nobody can be reached at its address.
    Impossible,
}

/// A newcomer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Newcomer {
    /// Its id.
    pub(super) id: NodeId,
    /// Its state, or [`NodeState::unknown`].
    pub(super) state: NodeState,
    /// Where to reach it.
    pub(super) addr: SocketAddr,
    /// Whether it answered there: it is worth more than one that others told of.
    pub(super) met: bool,
    /// Whether it may displace a member of the sample that answers.
    pub(super) displaces: bool,
}

/// The view of one node.
pub(super) struct Members {
    own: u64,
    capacity: usize,
    near_max: usize,
    places: Vec<Place>,
    entries: Vec<Entry>,
    free: Vec<u16>,
    generation: u64,
    suspects: usize,
    away: usize,
}

impl Members {
    /// The empty view of the node `own`, with room for `capacity`. The `near_max` nearest stay whatever comes.
    pub(super) fn new(own: &NodeId, capacity: usize, near_max: usize) -> Self {
        let capacity = capacity.min(usize::from(u16::MAX));
        Members {
            own: u64::from_be_bytes(own.short()),
            capacity,
            near_max,
            places: Vec::with_capacity(capacity),
            entries: Vec::with_capacity(capacity),
            free: Vec::with_capacity(capacity),
            generation: 0,
            suspects: 0,
            away: 0,
        }
    }

    /// How many are known.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Grows with every change of who is near, where, and whether it is there.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// How many are suspects.
    pub(super) fn suspects(&self) -> usize {
        self.suspects
    }

    /// How many are asked only now and then.
    pub(super) fn away(&self) -> usize {
        self.away
    }

    /// The places, nearest first.
    pub(super) fn places(&self) -> &[Place] {
        &self.places
    }

    /// How far the node with this short id is.
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

    /// The positions of the `count` nearest of which `is` holds, nearest first.
    pub(super) fn nearest<'a>(
        &'a self,
        count: usize,
        is: impl Fn(Liveness) -> bool + 'a,
    ) -> impl Iterator<Item = usize> + 'a {
        let places = self.places.iter().enumerate();
        places.filter(move |(_, place)| is(place.liveness)).map(|(position, _)| position).take(count)
    }

    /// Whether a node at this distance is, or would be, among the `count` nearest.
    pub(super) fn is_among(&self, count: usize, distance: u64) -> bool {
        let nearer = self.places.iter().take_while(|place| place.distance < distance);
        nearer.filter(|place| place.liveness.is_neighbour()).take(count).count() < count
    }

    /// The positions of all that share the first `bits` bits of their id with `short`.
    pub(super) fn run(&self, short: ShortId, bits: u32) -> core::ops::Range<usize> {
        let mask = u64::MAX.checked_shr(bits).unwrap_or(0);
        let first = self.distance(short) & !mask;
        let start = self.places.partition_point(|place| place.distance < first);
        let end = self.places.partition_point(|place| place.distance <= first | mask);
        start..end
    }

    /// About how many nodes the network has: a guess from how dense the neighbourhood is.
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

    /// Changes whether a member is there.
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

    /// Something about a member at this distance is no longer as it was. Nobody depends on who is far away.
    fn changed(&mut self, distance: u64, is_neighbour: bool) {
        if is_neighbour && self.is_among(self.near_max, distance) {
            self.generation += 1;
        }
    }

    /// A member is elsewhere.
    pub(super) fn set_addr(&mut self, position: usize, addr: SocketAddr) {
        self.entry_mut(position).addr = WireAddr::new(addr);
        let place = &mut self.places[position];
        place.prefix = Prefix::of(addr);
        let (distance, liveness) = (place.distance, place.liveness);
        self.changed(distance, liveness.is_neighbour());
    }

    /// Enters a member that is not known, as unproven, and says where it is now. Positions found before do not hold any
    /// more.
    pub(super) fn insert(
        &mut self,
        now: Instant,
        newcomer: &Newcomer,
        rng: &mut Rng,
    ) -> Result<usize, NoPlace> {
        let addr = WireAddr::new(newcomer.addr);
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
        if !self.has_prefix_room(newcomer.addr, newcomer.met, near) {
            return Err(NoPlace::Prefix);
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
            sequence: 0,
            rtt: Rtt::default(),
            tries: 0,
            probing: false,
            silent_relays: 0,
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
        let prefix = Prefix::of(newcomer.addr);
        self.places.insert(position, Place { distance, slot, liveness: Liveness::Unproven, prefix });
        Ok(position)
    }

    /// Forgets the member at `position`. Positions found before do not hold any more.
    pub(super) fn remove(&mut self, position: usize) {
        let place = self.places.remove(position);
        self.count(place.liveness, -1);
        self.free.push(place.slot);
        self.changed(place.distance, place.liveness.is_neighbour());
    }

    /// Whether a node at this distance is near enough to stay whatever comes.
    pub(super) fn is_near(&self, distance: u64) -> bool {
        let nearer = self.places.iter().take_while(|place| place.distance < distance);
        nearer.filter(|place| !place.liveness.is_over()).take(self.near_max).count() < self.near_max
    }

    /// Whether there is room without displacing anybody.
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

    /// Whether an unproven member that answers at `addr` would have been entered there.
    pub(super) fn may_prove(&self, position: usize, addr: SocketAddr) -> bool {
        self.has_prefix_room(addr, true, self.is_near(self.places[position].distance))
    }

    /// Whoever was never met does not count against whoever was: its address is only what somebody said.
    fn has_prefix_room(&self, addr: SocketAddr, met: bool, near: bool) -> bool {
        let Some(prefix) = Prefix::of(addr) else { return true };
        let (mut of_view, mut of_near, mut rank) = (0, 0, 0);
        for place in &self.places {
            let is_near = rank < self.near_max;
            rank += usize::from(!place.liveness.is_over());
            let counts = !(met && place.liveness == Liveness::Unproven);
            if counts && place.prefix == Some(prefix) {
                of_view += 1;
                of_near += usize::from(is_near);
            }
        }
        of_view < PREFIX_VIEW_MAX && (!near || of_near < PREFIX_NEAR_MAX)
    }

    /// Who gives way to a newcomer when the view is full: those that are over and of which there are many, then those
    /// that were never met, then any that is far away.
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
            _ => (near || newcomer.displaces).then_some(3),
        };
        let (length, start) = (self.places.len(), rng.below(self.places.len() as u64) as usize);
        let all = (0..length).map(|step| (start + step) % length);
        all.filter_map(|position| Some((worth(position)?, position)))
            .min_by_key(|(worth, _)| *worth)
            .map(|(_, position)| position)
    }
}
