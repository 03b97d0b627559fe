//! Admission: which of the pieces that peers offer are taken, and which stored pieces give way to them.
//!
//! A piece that is here already is kept as its publisher claims. When another publisher raises it, it counts for that one's party until
//! that has to give way (`raised`).
//!
//! An admitted offer is a promise (`incoming`), which takes no space. Room is made when its first bytes are here: the cache is
//! evicted, and in a full store pieces of the party that brought most give way (`parties`). What is arriving from one party at a time
//! has a share of the free space, so that no party keeps the others out by arriving slowly.

use super::heard::Heard;
use super::holdings::Holdings;
use super::incoming::{Incoming, Promise};
use super::parties::{Newcomer, holder_of};
use crate::claim::{PieceClaim, UNCLAIMED_SECONDS_MAX};
use crate::id::Key;
use crate::io::{Brought, PieceMeta};
use crate::limits::Limits;
use crate::peers::contest::Holder;
use crate::peers::party::Party;
use crate::time::Instant;
use crate::wire::frame::{Offer, Refusal};

/// The part of the free space that what is arriving from one party takes at most, while others offer pieces.
const ARRIVING_SHARE: u64 = 4;
/// The part of it that one party leaves to others while none of them offers anything.
const ARRIVING_LEFT: u64 = 8;

/// The answer to an offer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// The piece is on disk already.
    Have,
    /// The piece is on disk, and the offer raises its number of copies or its lifetime. It counts as accepted once the raise is
    /// durable. See [`Store::not_raised`](super::Store::not_raised).
    Raise {
        /// The new number of copies.
        replicas: u8,
        /// When it expires, in seconds of the node's age.
        expires: u64,
    },
    /// The piece is admitted: it goes to [`Place::Incoming`](crate::io::Place::Incoming) with this number. See
    /// [`Store::arrives`](super::Store::arrives).
    Send {
        /// The number, unique in this run.
        incoming: u64,
    },
    /// The offer is refused.
    Refuse(Refusal),
}

/// The node that brings a piece, and the party that the piece counts for.
#[derive(Clone, Copy, Debug)]
pub struct Bringer {
    /// The node.
    pub node: Holder,
    /// The party: that of the piece's publisher, if that is known, else that of the node.
    pub payer: Party,
}

/// A node that brings a piece of its own, or of a publisher that is not known.
impl From<Holder> for Bringer {
    fn from(node: Holder) -> Bringer {
        Bringer { node, payer: node.party }
    }
}

impl Bringer {
    fn brought(&self) -> Brought {
        Brought(*self.payer.as_bytes())
    }

    /// A piece that it brings as it contests a place.
    fn newcomer(&self, claim: Option<&PieceClaim>) -> Newcomer {
        Newcomer { holder: holder_of(&self.brought(), claim), from: self.node.party }
    }
}

/// When something happens: the instant, and the node's age in seconds, in which lifetimes are counted.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: Instant,
    pub(super) age: u64,
}

/// The pieces that are promised or arriving, and the claims that were heard of.
pub(super) struct Admissions {
    incoming: Incoming,
    heard: Heard,
    incoming_max: usize,
    /// Pieces that gave way so far.
    pub(super) displaced: u64,
    /// Offers refused so far because too much of their party was arriving.
    pub(super) refused_share: u64,
}

impl Admissions {
    /// No promises. `seed` must be a secret random number.
    pub(super) fn new(limits: &Limits, seed: u64) -> Self {
        Admissions {
            incoming: Incoming::default(),
            heard: Heard::new(seed),
            incoming_max: limits.streams_max,
            displaced: 0,
            refused_share: 0,
        }
    }

    /// The bytes of all promises.
    pub(super) fn promised_bytes(&self) -> u64 {
        self.incoming.promised_bytes()
    }

    /// The metadata of an admitted piece.
    pub(super) fn meta_of(&self, incoming: u64) -> Option<PieceMeta> {
        self.incoming.get(incoming).map(|promise| promise.meta)
    }

    /// Decides on an offer, whose claim verifies.
    pub(super) fn admit(
        &mut self,
        moment: Moment,
        from: Bringer,
        offer: &Offer,
        holdings: &mut Holdings,
    ) -> Admission {
        if !offer.is_possible() {
            return Admission::Refuse(Refusal::Invalid);
        }
        let (offer, expires) = self.as_heard(moment.age, offer);
        if let Some(before) = holdings.pieces.get(&offer.key) {
            return self.raise(moment, &from, &before, (&offer, expires), holdings);
        }
        if holdings.is_published(&offer.key) {
            return Admission::Have;
        }
        if self.incoming.contains(&offer.key) {
            return Admission::Refuse(Refusal::Busy);
        }
        let cost = holdings.pieces.cost(&offer.key, offer.length);
        if let Some(refusal) = self.refuses(moment.now, &from, offer.claim.as_ref(), cost, holdings) {
            return Admission::Refuse(refusal);
        }
        if self.incoming.len() >= self.incoming_max && !self.incoming.make_room(from.node) {
            return Admission::Refuse(Refusal::Busy);
        }
        let meta = offer.stored(from.brought(), expires);
        Admission::Send { incoming: self.incoming.promise(meta, cost, from.node) }
    }

    /// The offer as it counts here, and when its piece would expire: a claim whose lifetime is over, or that is older than one that
    /// was heard of before, counts as none.
    fn as_heard(&self, age: u64, offer: &Offer) -> (Offer, u64) {
        let expires = age.saturating_add(u64::from(offer.lifetime));
        let limit = |claim: PieceClaim| self.heard.limit(&offer.key, &claim, expires, age);
        match offer.claim.map_or(Some(expires), limit) {
            Some(expires) => (*offer, expires),
            None => {
                let lifetime = offer.lifetime.min(UNCLAIMED_SECONDS_MAX);
                let unclaimed = Offer { claim: None, replicas: 1, lifetime, ..*offer };
                (unclaimed, age.saturating_add(u64::from(lifetime)))
            }
        }
    }

    /// An offer of a piece that is here: it is kept as its publisher claims. An offer without a new claim raises nothing.
    fn raise(
        &mut self,
        moment: Moment,
        from: &Bringer,
        before: &PieceMeta,
        (offer, expires): (&Offer, u64),
        holdings: &mut Holdings,
    ) -> Admission {
        let renewed = |claim: PieceClaim| holdings.pieces.renew(&offer.key, &claim, offer.replicas, expires);
        let renewed = offer.claim.is_some_and(renewed);
        let allowed = |claim: &PieceClaim| renewed || may_raise(moment.now, from, before, claim, holdings);
        let Some(claim) = offer.claim.filter(allowed) else { return Admission::Have };
        let claimed = holdings.pieces.claim(&offer.key, &claim, from.brought(), moment.age);
        claimed.fallen.iter().for_each(|meta| self.fell(meta, holdings));
        if !claimed.newer {
            return Admission::Have;
        }
        self.leaves(before);
        let write = holdings.pieces.raise(&offer.key, offer.replicas, expires, moment.age);
        let raised = holdings.pieces.get(&offer.key);
        if let Some(piece) = raised.filter(|piece| piece.replicas > before.replicas) {
            holdings.changed(piece);
        }
        match raised.filter(|_| write == Some(true)) {
            Some(PieceMeta { replicas, expires, .. }) => Admission::Raise { replicas, expires },
            None => Admission::Have,
        }
    }

    /// Why there is no room for a piece of `cost` bytes that the node `from` offers, and that would count for `holder`.
    fn refuses(
        &mut self,
        now: Instant,
        from: &Bringer,
        claim: Option<&PieceClaim>,
        cost: u64,
        holdings: &mut Holdings,
    ) -> Option<Refusal> {
        let (count, bytes, others) = self.incoming.load_of(&from.node);
        // All promised pieces of a party may arrive, so they count; those of others must not keep it out. The cache does not count: it is
        // evicted when bytes arrive.
        let (promises, promised) = self.incoming.promised_to(&from.node);
        if !holdings.has_room(self.incoming.len(), cost + promised, 1 + promises) {
            // Everything of its party that is promised or arriving may take room of another's.
            let (over, parties) = (holdings.is_over(), &mut holdings.pieces.parties);
            let yields = !over
                && parties.may_contest(now, from.node.party)
                && (parties.yielding(now, &from.newcomer(claim), bytes.saturating_add(cost)))
                    .is_some_and(|yielding| yielding.surplus >= cost);
            return (!yields).then_some(Refusal::NoSpace);
        }
        let free = holdings.free_for_pieces();
        let share = if others { free / ARRIVING_SHARE } else { free - free / ARRIVING_LEFT };
        // One piece at a time always fits.
        let crowds = count > 0 && bytes.saturating_add(cost) > share;
        self.refused_share += u64::from(crowds);
        crowds.then_some(Refusal::Busy)
    }

    /// The first bytes of an admitted piece are here: makes room for it. `false` when there is none, or the promise has ended.
    pub(super) fn arrives(&mut self, moment: Moment, incoming: u64, holdings: &mut Holdings) -> bool {
        let Some(Promise { cost, arrives, .. }) = self.incoming.get(incoming).copied() else { return false };
        if arrives {
            return true;
        }
        let room = !holdings.is_crowded() && holdings.make_room(cost).is_ok()
            || self.displace(moment, incoming, holdings) && holdings.make_room(cost).is_ok();
        if room {
            self.incoming.arrive(incoming);
            holdings.reserve(cost);
        }
        room
    }

    /// Drops stored pieces of the party that brought most, to make room for an admitted piece. `false` when none gives way.
    fn displace(&mut self, moment: Moment, incoming: u64, holdings: &mut Holdings) -> bool {
        let Some(promise) = self.incoming.get(incoming).filter(|_| !holdings.is_over()) else { return false };
        let (newcomer, cost) = (promise.newcomer(), promise.cost);
        let (Moment { now, age }, lacking) = (moment, holdings.lacking(cost));
        let given = holdings.pieces.give_way((now, age), &newcomer, (cost, lacking));
        given.fallen.iter().for_each(|meta| self.fell(meta, holdings));
        if given.dropped.is_empty() {
            return false;
        }
        for key in given.dropped {
            self.drop_piece(&key, holdings);
            self.displaced += 1;
        }
        holdings.pieces.parties.displaces(now, newcomer.from, cost);
        self.incoming.displaces(incoming);
        true
    }

    /// Adds an admitted piece that is on disk now. `None` when there is no such admission.
    pub(super) fn committed(&mut self, incoming: u64, holdings: &mut Holdings) -> Option<PieceMeta> {
        let promise = self.end(incoming, holdings)?;
        let meta = promise.meta;
        if promise.displaces {
            let cost = holdings.pieces.cost(&meta.key, meta.length);
            holdings.pieces.parties.settled(promise.from.party, cost);
        }
        holdings.keep(&meta);
        Some(meta)
    }

    /// Ends the admission of a piece that will not come, or that did not match its offer.
    pub(super) fn discarded(&mut self, incoming: u64, holdings: &mut Holdings) {
        if self.end(incoming, holdings).is_some() {
            holdings.drop_incoming(incoming);
        }
    }

    fn end(&mut self, incoming: u64, holdings: &mut Holdings) -> Option<Promise> {
        let promise = self.incoming.end(incoming)?;
        if promise.arrives {
            holdings.release(promise.cost);
        }
        Some(promise)
    }

    /// Drops a stored piece. `false` when there is none.
    pub(super) fn drop_piece(&mut self, key: &Key, holdings: &mut Holdings) -> bool {
        let dropped = holdings.drop_piece(key);
        dropped.iter().for_each(|meta| self.leaves(meta));
        dropped.is_some()
    }

    /// The lifetime of a piece is over. Returns whether it stays, because only a raise is over: its own publisher wants it for longer.
    pub(super) fn outlives_raises(&mut self, key: &Key, age: u64, holdings: &mut Holdings) -> bool {
        let before = holdings.pieces.fall_back(key, age);
        before.iter().for_each(|meta| self.fell(meta, holdings));
        before.is_some()
    }

    /// A raised piece, as it was until now, has fallen back.
    fn fell(&mut self, before: &PieceMeta, holdings: &mut Holdings) {
        self.leaves(before);
        if let Some(meta) = holdings.pieces.get(&before.key) {
            holdings.changed(meta);
        }
    }

    /// The claim on this piece counts here no more.
    fn leaves(&mut self, meta: &PieceMeta) {
        if let Some(claim) = meta.claim {
            self.heard.note(&meta.key, &claim, meta.expires);
        }
    }
}

/// Whether a node may claim a kept piece. In a full store a party raises no piece of another, unless what it would hold then is less than
/// half of what another holds.
fn may_raise(
    now: Instant,
    from: &Bringer,
    kept: &PieceMeta,
    claim: &PieceClaim,
    holdings: &mut Holdings,
) -> bool {
    let is_own = from.brought() == kept.brought
        || kept.claim.is_some_and(|kept| kept.publisher() == claim.publisher());
    let cost = holdings.pieces.cost(&kept.key, kept.length);
    if is_own || !holdings.pieces.parties.contested || holdings.lacking(cost) == 0 {
        return true;
    }
    let parties = &mut holdings.pieces.parties;
    let newcomer = from.newcomer(Some(claim));
    let yielding =
        parties.may_contest(now, from.node.party).then(|| parties.yielding(now, &newcomer, cost)).flatten();
    yielding.is_some_and(|yielding| yielding.group.one.party != newcomer.holder.party)
}
