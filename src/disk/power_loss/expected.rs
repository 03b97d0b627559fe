//! What recovery must find after a power cut, and what it may find.

use crate::disk::Disk;
use crate::id::Key;
use crate::io::{FileStamp, PieceMeta, Place, Recovered, Share, ShareState};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

/// Every content that the run ever stored, by its hash.
pub(super) type Contents = BTreeMap<Key, Vec<u8>>;

/// The identity of a claim: its path, or the address of a file in the cache.
pub(super) type Claimed = (Option<PathBuf>, Option<Key>);

/// The identity of this claim.
pub(super) fn claimed(share: &Share) -> Claimed {
    match &share.place {
        Place::File(path) => (Some(path.to_path_buf()), None),
        _ => (None, Some(share.hash)),
    }
}

/// A change that the core requests.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Piece(Key, Option<PieceMeta>),
    Share(Claimed, Option<Share>),
    Peers(Vec<u8>),
    Records(Vec<u8>),
    Seconds(u64),
    Clean(bool),
}

/// An event that changes the expectation.
#[derive(Clone, Debug)]
pub(super) enum Event {
    /// The core requested the change, which may have begun.
    Asked(Change),
    /// The store acknowledged the change.
    Answered(Change),
    /// The store was opened and found this.
    Opened(Box<Found>),
}

/// What a start found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) secret: [u8; 32],
    pub(super) recovered: Recovered,
}

/// The permitted values. Recovery must find one of them.
#[derive(Clone, Debug)]
struct Values<T>(Vec<T>);

impl<T: Clone + PartialEq> Values<T> {
    fn only(value: T) -> Self {
        Values(vec![value])
    }

    fn or(&mut self, value: T) {
        if !self.0.contains(&value) {
            self.0.push(value);
        }
    }
}

/// The number of pieces and shares that were checked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Seen {
    pub(super) pieces: u64,
    pub(super) shares: u64,
}

/// The permitted state at one point in time.
#[derive(Clone, Debug)]
pub(super) struct Expected {
    secret: Option<[u8; 32]>,
    boots: u64,
    clean: Values<bool>,
    seconds: Values<u64>,
    records: Values<Vec<u8>>,
    peers: Values<Vec<u8>>,
    pieces: BTreeMap<Key, Values<Option<PieceMeta>>>,
    shares: BTreeMap<Claimed, Values<Option<Share>>>,
}

impl Expected {
    /// The state before any write.
    pub(super) fn new() -> Self {
        Expected {
            secret: None,
            boots: 0,
            clean: Values::only(false),
            seconds: Values::only(0),
            records: Values::only(Vec::new()),
            peers: Values::only(Vec::new()),
            pieces: BTreeMap::new(),
            shares: BTreeMap::new(),
        }
    }

    /// The pieces that recovery must find.
    pub(super) fn sure_pieces(&self) -> Vec<PieceMeta> {
        self.pieces.values().filter_map(|values| only(values).and_then(|meta| *meta)).collect()
    }

    /// The pieces that were removed, or not acknowledged.
    pub(super) fn unsure_pieces(&self) -> Vec<Key> {
        let unsure = self.pieces.iter().filter(|(_, values)| values.0.contains(&None));
        unsure.map(|(key, _)| *key).collect()
    }

    /// Whether the store was ever asked to keep this piece.
    pub(super) fn may_have_piece(&self, key: &Key) -> bool {
        self.pieces.contains_key(key)
    }

    /// The shares that exist while the power stays on.
    pub(super) fn live_shares(&self) -> Vec<Share> {
        self.shares.values().filter_map(|values| values.0.iter().flatten().last().cloned()).collect()
    }

    pub(super) fn apply(&mut self, event: &Event) {
        match event {
            Event::Asked(change) => self.asked(change.clone()),
            Event::Answered(change) => self.answered(change.clone()),
            Event::Opened(found) => self.opened(found),
        }
    }

    fn asked(&mut self, change: Change) {
        let (nothing, no_share) = (Values::only(None), Values::only(None));
        match change {
            Change::Piece(key, meta) => self.pieces.entry(key).or_insert(nothing).or(meta),
            Change::Share(place, share) => self.shares.entry(place).or_insert(no_share).or(share),
            Change::Peers(bytes) => self.peers.or(bytes),
            Change::Records(bytes) => self.records.or(bytes),
            Change::Seconds(seconds) => self.seconds.or(seconds),
            Change::Clean(clean) => self.clean.or(clean),
        }
    }

    fn answered(&mut self, change: Change) {
        match change {
            // The removal of a piece is not synced, because a piece that comes back does no harm.
            Change::Piece(_, None) => {}
            Change::Piece(key, meta) => drop(self.pieces.insert(key, Values::only(meta))),
            Change::Share(place, share) => drop(self.shares.insert(place, shared(share))),
            // Contacts are not synced.
            Change::Peers(_) => {}
            Change::Records(bytes) => self.records = Values::only(bytes),
            Change::Seconds(seconds) => self.seconds = Values::only(seconds),
            Change::Clean(clean) => self.clean = Values::only(clean),
        }
    }

    /// What a start reported becomes the permitted state.
    fn opened(&mut self, found: &Found) {
        let Recovered { ages, pieces, shares, records, .. } = &found.recovered;
        self.secret = Some(found.secret);
        self.boots = self.boots.max(ages.boots);
        (self.clean, self.seconds) = (Values::only(false), Values::only(ages.seconds));
        self.records = Values::only(records.clone());
        for values in self.pieces.values_mut() {
            values.or(None);
        }
        // What is deleted for good stays so; whatever else was not found was dropped.
        for values in self.shares.values_mut() {
            values.or(None);
        }
        self.pieces.extend(pieces.iter().map(|meta| (meta.key, Values::only(Some(*meta)))));
        self.shares.extend(shares.iter().map(|share| (claimed(share), shared(Some(share.clone())))));
    }

    /// Compares what recovery found with the permitted state. The error says how they differ.
    pub(super) fn check(&self, found: &Found, disk: &Disk, contents: &Contents) -> Result<Seen, String> {
        let Recovered { ages, pieces, shares, peers, records, .. } = &found.recovered;
        if self.secret.is_some_and(|secret| secret != found.secret) {
            return Err("the node is another one: its secret changed".to_owned());
        }
        if ages.boots <= self.boots {
            return Err(format!("this is start {}, and there was a start {}", ages.boots, self.boots));
        }
        one_of("the age in seconds", &ages.seconds, &self.seconds)?;
        one_of("whether the end was clean", &ages.clean, &self.clean)?;
        one_of("the records", records, &self.records)?;
        if !peers.is_empty() {
            one_of("the contacts", peers, &self.peers)?;
        }
        self.check_pieces(pieces, disk, contents)?;
        self.check_shares(shares, disk, contents)?;
        Ok(Seen { pieces: pieces.len() as u64, shares: shares.len() as u64 })
    }

    fn check_pieces(&self, pieces: &[PieceMeta], disk: &Disk, contents: &Contents) -> Result<(), String> {
        let mut found = BTreeSet::new();
        for meta in pieces {
            let key = meta.key;
            let values = self.pieces.get(&key).ok_or_else(|| format!("the piece {key} never was"))?;
            one_of(&format!("the piece {key}"), &Some(*meta), values)?;
            let bytes = fs::read(disk.path_of(&Place::Piece(key))).map_err(|error| error.to_string())?;
            if bytes.get(..meta.length as usize) != contents.get(&key).map(Vec::as_slice) {
                return Err(format!("the piece {key} was recovered with wrong content"));
            }
            if !found.insert(key) {
                return Err(format!("the piece {key} was recovered twice"));
            }
        }
        let lost =
            self.pieces.iter().find(|(key, values)| !values.0.contains(&None) && !found.contains(*key));
        lost.map_or(Ok(()), |(key, _)| Err(format!("the piece {key} was acknowledged and is lost")))
    }

    fn check_shares(&self, shares: &[Share], disk: &Disk, contents: &Contents) -> Result<(), String> {
        let mut found = BTreeSet::new();
        for share in shares {
            let (place, hash) = (claimed(share), share.hash);
            let values = self.shares.get(&place).ok_or_else(|| format!("the claim {place:?} never was"))?;
            let known = values.0.iter().any(|value| value.as_ref().is_some_and(|value| fits(share, value)));
            if !known {
                return Err(format!("the share {hash} is {share:?}, expected {:?}", values.0));
            }
            let bytes = fs::read(disk.path_of(&share.place)).ok();
            // A file that is hashed again before it is served may have any content.
            if share.state == ShareState::Present && bytes.as_ref() != contents.get(&hash) {
                return Err(format!("the share {hash} was recovered, and its file has wrong content"));
            }
            let sure = only(values).is_some_and(|value| value.as_ref().is_some_and(|value| value.synced));
            if sure && share.state != ShareState::Present {
                return Err(format!("the share {hash} was acknowledged, and its file is {:?}", share.state));
            }
            found.insert(place);
        }
        let lost =
            self.shares.iter().find(|(place, values)| !values.0.contains(&None) && !found.contains(*place));
        lost.map_or(Ok(()), |(place, _)| Err(format!("the share at {place:?} was acknowledged and is lost")))
    }
}

/// Whether a share that recovery found is one that was written. Its stamp counts only if the file need not be hashed
/// again.
fn fits(found: &Share, written: &Share) -> bool {
    let sure = found.state == ShareState::Present;
    let (stamp, state) = (if sure { written.stamp } else { FileStamp::default() }, written.state);
    let found =
        Share { stamp: if sure { found.stamp } else { FileStamp::default() }, state, ..found.clone() };
    found == Share { stamp, ..written.clone() }
}

/// The permitted values of a share. A share whose content is not synced need not survive a power cut.
fn shared(share: Option<Share>) -> Values<Option<Share>> {
    let sure = share.as_ref().is_none_or(|share| share.synced);
    let mut values = Values::only(share);
    if !sure {
        values.or(None);
    }
    values
}

fn only<T>(values: &Values<T>) -> Option<&T> {
    if let [value] = values.0.as_slice() { Some(value) } else { None }
}

fn one_of<T: PartialEq + core::fmt::Debug>(what: &str, found: &T, values: &Values<T>) -> Result<(), String> {
    match values.0.contains(found) {
        true => Ok(()),
        false => Err(format!("{what} is {found:?}, expected {:?}", values.0)),
    }
}
