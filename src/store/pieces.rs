//! The table of stored pieces, in the order of their keys and of their expiry.

use super::parties::{Newcomer, Parties, Yielding, holder_of};
use super::raised::{Base, Raised};
use super::room::Costs;
use crate::claim::PieceClaim;
use crate::id::Key;
use crate::io::{Brought, Mode, PieceMeta};
use crate::manifest::Content;
use crate::peers::contest::Holder;
use crate::time::Instant;
use core::cmp::Reverse;
use core::ops::Bound;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes that a stored piece takes on disk besides its content: its trailer.
pub const PIECE_OVERHEAD_BYTES: u64 = 256;

/// A raise of the lifetime by less than this, or by less than a sixteenth of the rest of the lifetime, is not saved.
const RAISE_SECONDS_MIN: u64 = 3600;

/// The most groups that give way to one piece, each after the raised pieces of the one before have fallen back.
const YIELDS_MAX: usize = 4;
/// The most pieces of one group that fall back at a time.
const FALLS_MAX: usize = 64;

/// A stored piece.
#[derive(Clone, Copy)]
struct Piece {
    input_offset: u64,
    expires: u64,
    /// The expiry that is saved on disk.
    written: u64,
    length: u32,
    content: Content,
    replicas: u8,
    mode: Mode,
    claim: Option<PieceClaim>,
    brought: Brought,
}

impl Piece {
    /// Which party, and which publisher in it, the piece counts for.
    fn holder(&self) -> Holder {
        holder_of(&self.brought, self.claim.as_ref())
    }

    fn base(&self) -> Base {
        let Piece { replicas, expires, claim, brought, .. } = *self;
        Base { replicas, expires, claim, brought }
    }
}

type Short = [u8; 8];

fn short(key: &Key) -> Short {
    core::array::from_fn(|index| key.0[index])
}

/// The first and the last key that begin so.
fn range(short: Short) -> core::ops::RangeInclusive<Key> {
    let filled = |rest| core::array::from_fn(|index| short.get(index).copied().unwrap_or(rest));
    Key(filled(0))..=Key(filled(0xff))
}

/// The stored pieces.
pub(super) struct Pieces {
    costs: Costs,
    /// The number of pieces in each directory. There is one directory for each first byte of a key.
    directories: Box<[u32; 256]>,
    table: BTreeMap<Key, Piece>,
    /// When pieces expire, by the first bytes of their keys: pieces that share those and the time share an entry.
    expiries: BTreeSet<(u64, Short)>,
    /// The pieces of each holder in the order in which they give way: those first that are to be kept longest. Like `expiries`, an entry
    /// may be of several pieces.
    yields: BTreeSet<(Holder, Reverse<u64>, Short)>,
    bytes: u64,
    content_bytes: u64,
    pub(super) parties: Parties,
    raised: Raised,
}

/// What gives way to a piece that arrives in a full store.
#[derive(PartialEq, Eq, Debug, Default)]
pub(super) struct GivenWay {
    /// Pieces to be dropped.
    pub(super) dropped: Vec<Key>,
    /// Pieces that have fallen back to what they were before they were raised, as they were until now.
    pub(super) fallen: Vec<PieceMeta>,
}

/// What became of a claim.
#[derive(Default)]
pub(super) struct Claimed {
    /// Whether it is the one that its piece is kept for now, and was not before.
    pub(super) newer: bool,
    /// Another piece that has fallen back for this one to be raised, as it was until now.
    pub(super) fallen: Option<PieceMeta>,
}

impl Pieces {
    /// No pieces. `secret` is a random number.
    pub(super) fn new(costs: Costs, secret: u64) -> Self {
        Pieces {
            costs,
            directories: Box::new([0; 256]),
            table: BTreeMap::new(),
            expiries: BTreeSet::new(),
            yields: BTreeSet::new(),
            bytes: 0,
            content_bytes: 0,
            parties: Parties::new(secret),
            raised: Raised::default(),
        }
    }

    /// The bytes that one more piece takes on disk, including its directory if that is new.
    pub(super) fn cost(&self, key: &Key, length: u32) -> u64 {
        let new = self.directories[usize::from(key.0[0])] == 0;
        self.costs.piece(length) + if new { self.costs.directory() } else { 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// The bytes that all pieces take on disk.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The bytes of their content.
    pub(super) fn content_bytes(&self) -> u64 {
        self.content_bytes
    }

    /// The first piece, or the first after this key.
    pub(super) fn after(&self, key: Option<&Key>) -> Option<PieceMeta> {
        let from = key.map_or(Bound::Unbounded, Bound::Excluded);
        self.table.range((from, Bound::Unbounded)).next().map(|(key, piece)| meta(*key, piece))
    }

    pub(super) fn get(&self, key: &Key) -> Option<PieceMeta> {
        self.table.get(key).map(|piece| meta(*key, piece))
    }

    /// All pieces in the order of their keys.
    pub(super) fn iter(&self) -> impl Iterator<Item = PieceMeta> + '_ {
        self.table.iter().map(|(key, piece)| meta(*key, piece))
    }

    /// Adds a piece. It replaces one with the same key.
    pub(super) fn insert(&mut self, meta: &PieceMeta) {
        self.remove(&meta.key);
        let PieceMeta { key, content, length, input_offset, replicas, mode, expires, claim, brought } = *meta;
        let written = expires;
        let piece = Piece { written, input_offset, expires, length, content, replicas, mode, claim, brought };
        self.count(&key, &piece);
        self.table.insert(key, piece);
        self.expiries.insert((expires, short(&key)));
        self.bytes += self.cost(&key, length);
        self.directories[usize::from(key.0[0])] += 1;
        self.content_bytes += u64::from(length);
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<PieceMeta> {
        let piece = self.table.remove(key)?;
        self.expires_no_more(key, piece.expires);
        self.discount(key, &piece);
        self.raised.forget(key);
        self.directories[usize::from(key.0[0])] -= 1;
        self.bytes -= self.cost(key, piece.length);
        self.content_bytes -= u64::from(piece.length);
        Some(meta(*key, &piece))
    }

    /// A piece counts for its holder.
    fn count(&mut self, key: &Key, piece: &Piece) {
        self.parties.accounts.add(piece.holder(), self.costs.piece(piece.length));
        self.yields.insert((piece.holder(), Reverse(piece.expires), short(key)));
    }

    /// A piece counts for its holder no more.
    fn discount(&mut self, key: &Key, piece: &Piece) {
        let (holder, expires) = (piece.holder(), piece.expires);
        self.parties.accounts.remove(&holder, self.costs.piece(piece.length));
        let mut others = self.table.range(range(short(key))).filter(|(other, _)| *other != key);
        if !others.any(|(_, other)| other.expires == expires && other.holder() == holder) {
            self.yields.remove(&(holder, Reverse(expires), short(key)));
        }
    }

    /// A piece changes. Its length stays.
    fn change(&mut self, key: &Key, before: &Piece, piece: Piece) {
        self.discount(key, before);
        self.count(key, &piece);
        self.table.insert(*key, piece);
        if piece.expires != before.expires {
            self.expiries.insert((piece.expires, short(key)));
            self.expires_no_more(key, before.expires);
        }
    }

    /// Takes over a claim whose signature verifies, and which counts for the party `by`, at this age of the node. It is not newer when the
    /// piece is not here, or has a claim that this one does not replace, or when that party has raised more pieces than others.
    pub(super) fn claim(&mut self, key: &Key, claim: &PieceClaim, by: Brought, age: u64) -> Claimed {
        let mut claimed = Claimed::default();
        let Some(piece) = self.table.get(key).copied() else { return claimed };
        if piece.claim.is_some_and(|kept| !claim.supersedes(&kept)) {
            return claimed;
        }
        let mut brought = piece.brought;
        if self.parties.contested {
            if self.raised.is_raise(key, &piece.base(), claim, by) {
                match self.raised.makes_room(&holder_of(&by, Some(claim))) {
                    Ok(falls) => claimed.fallen = falls.and_then(|other| self.fall_back(&other, age)),
                    Err(()) => return claimed,
                }
            }
            brought = self.raised.claimed(key, piece.base(), claim, by);
        }
        self.change(key, &piece, Piece { claim: Some(*claim), brought, ..piece });
        claimed.newer = true;
        claimed
    }

    /// The publisher of a piece that others raised renews its claim: see [`Raised::renew`].
    pub(super) fn renew(&mut self, key: &Key, claim: &PieceClaim, replicas: u8, expires: u64) -> bool {
        self.raised.renew(key, claim, replicas, expires)
    }

    /// What gives way so that `needed` bytes of a newcomer that is going to take `cost` fit in: one piece at least is dropped. At this age
    /// of the node, pieces of the same party that it merely raised fall back first. Nothing when the newcomer's party has a larger part
    /// of the store than it may have.
    pub(super) fn give_way(
        &mut self,
        (now, age): (Instant, u64),
        newcomer: &Newcomer,
        (cost, needed): (u64, u64),
    ) -> GivenWay {
        let mut given = GivenWay::default();
        if !self.parties.may_contest(now, newcomer.from) {
            return given;
        }
        for _ in 0..YIELDS_MAX {
            let yielding = self.parties.yielding(now, newcomer, cost);
            let Some(yielding) = yielding.filter(|yielding| yielding.surplus >= needed) else { break };
            let falling: Vec<Key> = self.raised.of(yielding.group).take(FALLS_MAX).collect();
            if falling.is_empty() {
                given.dropped = self.dropped_by(&yielding, needed);
                break;
            }
            given.fallen.extend(falling.iter().filter_map(|key| self.fall_back(key, age)));
        }
        given
    }

    /// Ends the raises of a piece, and returns the piece as it was until now. When it would be over without them, at this age of the node,
    /// it is the raiser's from now on, and `None` is returned.
    pub(super) fn fall_back(&mut self, key: &Key, age: u64) -> Option<PieceMeta> {
        let Base { replicas, expires, claim, brought } = self.raised.forget(key)?;
        let before = self.table.get(key).copied().filter(|_| expires > age)?;
        // The disk has the raised values. Whatever raises the piece next is saved.
        self.change(key, &before, Piece { replicas, expires, claim, brought, written: 0, ..before });
        Some(meta(*key, &before))
    }

    /// The pieces of these holders that give way for `needed` bytes, one at least. Unclaimed pieces, which are kept for a day at most, come
    /// first. Of the others, those of the publisher with most, and of these those that were to be kept longest.
    fn dropped_by(&self, yielding: &Yielding, needed: u64) -> Vec<Key> {
        let (mut freed, mut dropped) = (0, Vec::new());
        for holder in self.parties.accounts.yielding(yielding.group) {
            let first = (holder, Reverse(u64::MAX), [0; 8]);
            for (_, Reverse(expires), short) in
                self.yields.range(first..).take_while(|(of, ..)| *of == holder)
            {
                let same = self.table.range(range(*short));
                for (key, piece) in
                    same.filter(|(_, piece)| piece.expires == *expires && piece.holder() == holder)
                {
                    if freed >= needed && !dropped.is_empty() {
                        return dropped;
                    }
                    freed += self.costs.piece(piece.length);
                    dropped.push(*key);
                }
            }
        }
        if freed >= needed { dropped } else { Vec::new() }
    }

    /// Raises the number of copies or the expiry of a piece, and never lowers them; `age` is the node's age. `None` when the piece
    /// is not here; else whether the raise is large enough to be saved.
    pub(super) fn raise(&mut self, key: &Key, replicas: u8, expires: u64, age: u64) -> Option<bool> {
        let before = *self.table.get(key)?;
        if expires > before.expires {
            self.change(key, &before, Piece { expires, ..before });
        }
        let piece = self.table.get_mut(key)?;
        let more = replicas > piece.replicas;
        piece.replicas = piece.replicas.max(replicas);
        // Repeated offers of a piece extend its lifetime by little each. Saving each would wear out flash.
        let slack = (piece.written.saturating_sub(age) / 16).min(RAISE_SECONDS_MIN);
        let longer = piece.expires > piece.written.saturating_add(slack);
        let write = more || longer;
        if write {
            piece.written = piece.expires;
        }
        Some(write)
    }

    /// Notes that a raise could not be saved. The next offer tries again.
    pub(super) fn not_written(&mut self, key: &Key) {
        if let Some(piece) = self.table.get_mut(key) {
            piece.written = 0;
        }
    }

    /// The age at which the next piece expires, and its key.
    pub(super) fn next_expiry(&self) -> Option<(u64, Key)> {
        let (expires, short) = *self.expiries.first()?;
        let mut same = self.table.range(range(short));
        same.find(|(_, piece)| piece.expires == expires).map(|(key, _)| (expires, *key))
    }

    /// A piece does not expire then any more.
    fn expires_no_more(&mut self, key: &Key, expires: u64) {
        let mut same = self.table.range(range(short(key)));
        if !same.any(|(_, piece)| piece.expires == expires) {
            self.expiries.remove(&(expires, short(key)));
        }
    }
}

fn meta(key: Key, piece: &Piece) -> PieceMeta {
    let Piece { input_offset, expires, length, content, replicas, mode, claim, brought, .. } = *piece;
    PieceMeta { key, content, length, input_offset, replicas, mode, expires, claim, brought }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inserting_raising_and_removing_update_the_bytes_and_the_expiries() {
        let mut pieces = Pieces::new(Costs::new(0), 7);
        let piece = |key: u8, length, expires| PieceMeta {
            key: Key([key; 32]),
            content: Content::File,
            length,
            input_offset: 0,
            replicas: 2,
            mode: Mode::of(0o755),
            expires,
            claim: None,
            brought: Brought::default(),
        };
        pieces.insert(&piece(1, 100, 50));
        pieces.insert(&piece(2, 200, 40));
        pieces.insert(&piece(1, 150, 30));
        assert_eq!(pieces.len(), 2);
        assert_eq!(pieces.bytes(), 350 + 2 * PIECE_OVERHEAD_BYTES);
        assert_eq!(pieces.next_expiry(), Some((30, Key([1; 32]))));
        assert_eq!(pieces.raise(&Key([1; 32]), 1, 60, 0), Some(true));
        assert_eq!(pieces.get(&Key([1; 32])), Some(piece(1, 150, 60)));
        assert_eq!(pieces.next_expiry(), Some((40, Key([2; 32]))));
        assert_eq!(pieces.raise(&Key([2; 32]), 5, 10, 0), Some(true));
        assert_eq!(pieces.raise(&Key([2; 32]), 5, 10, 0), Some(false), "it is saved already");
        assert_eq!(pieces.raise(&Key([3; 32]), 5, 10, 0), None);
        assert_eq!(pieces.remove(&Key([2; 32])), Some(PieceMeta { replicas: 5, ..piece(2, 200, 40) }));
        assert_eq!(pieces.remove(&Key([2; 32])), None);
        pieces.remove(&Key([1; 32]));
        assert_eq!(pieces.len(), 0);
        assert_eq!(pieces.bytes(), 0);
        assert_eq!(pieces.next_expiry(), None);
    }

    #[test]
    fn pieces_whose_keys_begin_alike_expire_each_at_its_time() {
        let mut pieces = Pieces::new(Costs::new(0), 7);
        let piece = |last: u8, expires| {
            let mut key = Key([7; 32]);
            key.0[31] = last;
            PieceMeta {
                key,
                content: Content::File,
                length: 1,
                input_offset: 0,
                replicas: 2,
                mode: Mode::UNKNOWN,
                expires,
                claim: None,
                brought: Brought::default(),
            }
        };
        for (last, expires) in [(1, 10), (2, 10), (3, 20)] {
            pieces.insert(&piece(last, expires));
        }
        pieces.raise(&piece(1, 0).key, 2, 30, 0);
        let mut order = Vec::new();
        while let Some((expires, key)) = pieces.next_expiry() {
            order.push((expires, key.0[31]));
            pieces.remove(&key);
        }
        assert_eq!(order, [(10, 2), (20, 3), (30, 1)]);
        assert!(pieces.expiries.is_empty() && pieces.yields.is_empty());
    }

    #[test]
    fn a_small_raise_is_saved_only_when_raises_add_up_or_after_a_failed_save() {
        let mut pieces = Pieces::new(Costs::new(0), 7);
        let year = 365 * 24 * 3600;
        let piece = PieceMeta {
            key: Key([1; 32]),
            content: Content::File,
            length: 1,
            input_offset: 0,
            replicas: 2,
            mode: crate::io::Mode::UNKNOWN,
            expires: year,
            claim: None,
            brought: Brought::default(),
        };
        pieces.insert(&piece);
        let mut raise = |expires| pieces.raise(&piece.key, 2, expires, 0);
        assert_eq!(raise(year + 3000), Some(false));
        assert_eq!(raise(year + 3601), Some(true));
        assert_eq!(raise(year + 7000), Some(false));
        assert_eq!(pieces.get(&piece.key).unwrap().expires, year + 7000);
        pieces.not_written(&piece.key);
        assert_eq!(pieces.raise(&piece.key, 1, 1, 0), Some(true), "the failed save is repeated");
        assert_eq!(pieces.raise(&piece.key, 3, 1, 0), Some(true));
    }
}
