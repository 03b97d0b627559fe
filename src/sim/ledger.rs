//! Every acknowledged piece: its holders, the holders that went down, the copies made, and the copies that were necessary.

use super::disk::Change;
use super::world::World;
use crate::id::Key;
use crate::limits::quorum;
use crate::manifest::Manifest;
use crate::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The time that the network has to replace a holder: 15 minutes until the departed holder is evicted, and five minutes for
/// repairers that wait their turn and for the copy itself.
pub const REPAIR_WINDOW: Duration = Duration::from_secs(20 * 60);
/// For the count of necessary copies, a host is present from this long after its start until this long after it goes down.
pub const URGENT_AFTER: Duration = Duration::from_secs(60);

/// The state of one piece.
#[derive(Default)]
pub struct Piece {
    length: u32,
    replicas: u8,
    /// The host of the `put`, which holds the piece in the file itself.
    origin: Option<usize>,
    acknowledged: bool,
    /// Whether there have ever been as many live copies as requested.
    complete: bool,
    holders: BTreeSet<usize>,
    live: BTreeSet<usize>,
    losses: VecDeque<(Instant, usize)>,
    lost: bool,
    ideal: BTreeSet<usize>,
    /// Since when it has had one live copy, the file that was put included, although it once had all.
    lonely_since: Option<Instant>,
    /// Whether that one was at some time the file that was put: no holder was left.
    lost_holders: bool,
}

/// The ledger.
#[derive(Default)]
pub struct Ledger {
    pieces: BTreeMap<Key, Piece>,
    /// Pieces checked, summed over all samples.
    pub looks: u64,
    /// Pieces without a live holder although too few holders were lost to excuse it.
    pub broken: Vec<Key>,
    /// Pieces without a live holder, excused or not, summed over all samples.
    pub unreadable: u64,
    repairing: bool,
    /// For the count of necessary copies, a host that is down for less than this is present all the time.
    pub overlooked: Duration,
    /// Bytes of pieces stored since [`begin_repair`](Ledger::begin_repair).
    pub copied: u64,
    /// The fewest bytes of copies that would have been enough.
    pub least: u64,
    /// Copies made since [`begin_repair`](Ledger::begin_repair).
    pub copies: u64,
    /// When the last of these copies was made.
    pub last_copy: Instant,
    /// The longest time that a piece had one live copy, as far as it could be seen.
    pub loneliest: Duration,
}

/// The live copies of the acknowledged pieces at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Seconds since the world began.
    pub second: u64,
    /// Running nodes.
    pub up: usize,
    /// Live copies of the piece with the fewest live copies.
    pub min: usize,
    /// The median of live copies over all pieces.
    pub median: usize,
    /// Live copies of the piece with the most live copies.
    pub max: usize,
}

impl Ledger {
    /// Enters the pieces of a file that was acknowledged as stored: its chunks, and its manifest if it has several chunks.
    pub fn acknowledge(&mut self, manifest: &Manifest, origin: usize, replicas: u8) {
        let root = (!manifest.is_single()).then(|| (manifest.hash(), manifest.encode().len() as u32));
        let chunks = (0..).zip(manifest.keys()).map(|(index, key)| (*key, manifest.chunk_length(index)));
        for (key, length) in chunks.chain(root) {
            let piece = self.pieces.entry(key).or_default();
            (piece.length, piece.replicas, piece.acknowledged) = (length, replicas, true);
            piece.origin = Some(origin);
        }
    }

    /// The number of acknowledged pieces.
    pub fn acknowledged(&self) -> usize {
        self.pieces.values().filter(|piece| piece.acknowledged).count()
    }

    /// The bytes of one copy of every acknowledged piece.
    pub fn bytes(&self) -> u64 {
        self.pieces.values().filter(|piece| piece.acknowledged).map(|piece| u64::from(piece.length)).sum()
    }

    /// Counts copies as repairs from now on. The present holders are the baseline.
    pub fn begin_repair(&mut self) {
        self.repairing = true;
        (self.copied, self.least, self.copies) = (0, 0, 0);
        for piece in self.pieces.values_mut() {
            piece.ideal = piece.holders.clone();
            piece.ideal.extend(piece.origin);
        }
    }

    /// Enters what was stored on and deleted from the disks.
    ///
    /// Copies on hostile hosts count as copies, because their holders proved that they have them, but not as repairs that the promise
    /// of economy is about: there is no least number of copies that hosts can ask for which lose them.
    pub fn take(&mut self, world: &mut World) {
        let now = world.now();
        for (host, change) in world.take_changes() {
            match change {
                Change::Stored(meta) => {
                    let piece = self.pieces.entry(meta.key).or_default();
                    let new = piece.holders.insert(host);
                    if self.repairing && new && world.hosts[host].is_honest() {
                        self.copied += u64::from(meta.length);
                        self.copies += 1;
                        self.last_copy = now;
                    }
                }
                Change::Gone(key) => {
                    if let Some(piece) = self.pieces.get_mut(&key) {
                        piece.holders.remove(&host);
                    }
                }
            }
        }
    }

    /// The most live copies of an acknowledged piece, beyond the number that was asked for and the file that was put. A copy that took
    /// the place of lost holders, when only the file was left, does not count.
    pub fn overshoot(&self, world: &World) -> usize {
        let asked = |piece: &Piece| usize::from(piece.replicas) + usize::from(piece.lost_holders);
        let over = |piece: &Piece| piece.copies(world).saturating_sub(asked(piece));
        self.pieces.values().filter(|piece| piece.acknowledged).map(over).max().unwrap_or_default()
    }

    /// Checks every acknowledged piece.
    pub fn sample(&mut self, world: &mut World) -> Sample {
        let now = world.now();
        self.take(world);
        let overlooked = self.overlooked;
        let present: Vec<usize> = (0..world.hosts.len())
            .filter(|host| {
                let it = &world.hosts[*host];
                let settled =
                    now.since(it.since) >= URGENT_AFTER || it.since.since(it.down_since) < overlooked;
                it.is_honest()
                    && if it.is_awake() {
                        settled
                    } else {
                        it.run > 0 && now.since(it.down_since) < URGENT_AFTER.max(overlooked)
                    }
            })
            .collect();
        let mut counts = Vec::with_capacity(self.pieces.len());
        for (key, piece) in self.pieces.iter_mut().filter(|(_, piece)| piece.acknowledged) {
            self.looks += 1;
            piece.look(world, now);
            counts.push(piece.live.len());
            if piece.live.is_empty() {
                self.unreadable += 1;
                if !piece.lost && !piece.is_excused() {
                    piece.lost = true;
                    self.broken.push(*key);
                }
            }
            if self.repairing {
                for host in nearest(world, &present, key, usize::from(piece.replicas)) {
                    if piece.ideal.insert(host) {
                        self.least += u64::from(piece.length);
                    }
                }
            }
        }
        let lonely = self.pieces.values().filter_map(|piece| piece.lonely_since);
        let longest = lonely.map(|since| now.since(since)).max().unwrap_or_default();
        self.loneliest = self.loneliest.max(longest);
        counts.sort_unstable();
        let at = |share: usize| {
            counts.get((counts.len().saturating_sub(1)) * share / 2).copied().unwrap_or_default()
        };
        Sample { second: now.as_secs(), up: world.up().count(), min: at(0), median: at(1), max: at(2) }
    }
}

impl Piece {
    fn look(&mut self, world: &World, now: Instant) {
        let on = self.origin.into_iter().chain(self.holders.iter().copied());
        let live: BTreeSet<usize> = on.filter(|host| world.hosts[*host].is_awake()).collect();
        self.losses.extend(self.live.difference(&live).map(|host| (now, *host)));
        while self.losses.front().is_some_and(|(at, _)| now.since(*at) > REPAIR_WINDOW) {
            self.losses.pop_front();
        }
        self.live = live;
        let lonely = self.live.len() == 1 && self.replicas > 1 && self.complete;
        self.lonely_since = lonely.then(|| self.lonely_since.unwrap_or(now));
        self.lost_holders |= lonely && self.live.is_disjoint(&self.holders);
        self.complete |= self.live.len() >= usize::from(self.replicas);
        self.lost &= self.live.is_empty();
    }

    /// The live copies, without the file that was put.
    fn copies(&self, world: &World) -> usize {
        self.holders.iter().filter(|host| world.hosts[**host].is_awake()).count()
    }

    /// Whether as many holders went down within [`REPAIR_WINDOW`] as the piece had promised copies. The loss is then no defect.
    fn is_excused(&self) -> bool {
        let hosts: BTreeSet<usize> = self.losses.iter().map(|(_, host)| *host).collect();
        let promised = match self.complete {
            true => usize::from(self.replicas),
            false => usize::from(quorum(self.replicas)),
        };
        hosts.len() >= promised
    }
}

/// The `count` hosts of `among` that are nearest to a key.
fn nearest(world: &World, among: &[usize], key: &Key, count: usize) -> Vec<usize> {
    let mut best: Vec<(crate::id::Distance, usize)> = Vec::with_capacity(count + 1);
    for &host in among {
        let distance = world.id(host).distance(key);
        if best.len() < count || best.last().is_some_and(|(worst, _)| distance < *worst) {
            let at = best.partition_point(|(other, _)| *other < distance);
            best.insert(at, (distance, host));
            best.truncate(count);
        }
    }
    best.into_iter().map(|(_, host)| host).collect()
}
