//! Checking pieces of this node that a peer reports as not verifying.
//!
//! A report alone drops nothing: the piece is read and hashed on this disk, and only the result counts. Reading costs, so liars must
//! not be able to make a node read all the time. One piece is read at a time, each at most once in [`AGAIN_AFTER`]; there is a rate
//! limit for each peer, and one for all. A report over a limit is dropped, not queued: a copy that is rotten will be reported again.

use super::super::Waiting;
use super::super::machines::Machines;
use crate::counters::counters;
use crate::id::{Key, NodeId};
use crate::io::{DiskError, DiskOp, DiskReply, PieceAt, Place, Soundness};
use crate::manifest::Content;
use crate::peers::rate::{Bucket, Rate};
use crate::time::{Duration, Instant};
use std::collections::{BTreeMap, VecDeque};

/// The least time between two checks of the same piece.
const AGAIN_AFTER: Duration = Duration::from_secs(600);
/// Checked pieces that are remembered: more than all peers together can have checked within [`AGAIN_AFTER`].
const LOOKED_AT_MAX: usize = 256;
/// Pieces that are queued for a check.
const QUEUE_MAX: usize = 32;
/// The time for one more check, for all peers together. A piece has at most 16 MiB.
const PERIOD: Duration = Duration::from_secs(5);
/// The burst of checks for all peers together.
const BURST: u32 = 32;
/// The rate of checks for all peers together.
const ALL: Rate = Rate::every(PERIOD, BURST);
/// The burst of checks for one peer.
const PEER_BURST: u32 = 8;
/// The rate of checks for one peer.
const ONE_PEER: Rate = Rate::every(Duration::from_secs(60), PEER_BURST);
/// Peers whose reports are counted.
const PEERS_MAX: usize = 256;

const _: () = assert!(
    LOOKED_AT_MAX as u64 > AGAIN_AFTER.as_secs() / PERIOD.as_secs() + BURST as u64,
    "what was looked at is remembered until it may be looked at again"
);

/// The result of a check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::node) struct Finding {
    /// The piece.
    pub(in crate::node) key: Key,
    /// The node that reported it.
    pub(in crate::node) reporter: NodeId,
    /// The file that holds it.
    pub(in crate::node) place: Place,
    /// The verdict.
    pub(in crate::node) verdict: Verdict,
}

/// The verdict of a check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::node) enum Verdict {
    /// The piece verifies.
    Good,
    /// It does not verify, or the medium cannot read it.
    Rotten(&'static str),
    /// It could not be checked, for another reason.
    Unknown(DiskError),
}

/// The checks that run and wait, and their rate limits.
#[derive(Default)]
pub(in crate::node) struct Rechecks {
    running: Option<(Key, NodeId, Place)>,
    queue: VecDeque<(Key, NodeId)>,
    looked_at: BTreeMap<Key, Instant>,
    all: Bucket,
    peers: BTreeMap<NodeId, Bucket>,
    pub(in crate::node) counters: RecheckCounters,
}

counters! {
    /// The counters of checks.
    pub(in crate::node) struct RecheckCounters {
        /// Reports that were ignored: the piece was checked recently, or peers report too much.
        refused = "rechecks_refused",
        /// Pieces that verify.
        good = "rechecks_good",
        /// Pieces that do not verify, or that the medium cannot read.
        rotten = "rechecks_rotten",
    }
}

impl Rechecks {
    /// Whether a piece is being checked. It is not served until the check ends.
    pub(in crate::node) fn is_running(&self, key: &Key) -> bool {
        self.running.as_ref().is_some_and(|(running, ..)| running == key)
    }

    /// A peer reports that a piece which it was sent does not verify.
    pub(in crate::node) fn report(
        &mut self,
        now: Instant,
        key: Key,
        reporter: NodeId,
        machines: &mut Machines,
    ) {
        log::info!("{reporter} reports that piece {key} of this node does not verify");
        if !self.may_look(now, &key, reporter) {
            self.counters.refused += 1;
            return;
        }
        self.looked_at.insert(key, now);
        self.queue.push_back((key, reporter));
        self.advance(machines);
    }

    fn may_look(&mut self, now: Instant, key: &Key, reporter: NodeId) -> bool {
        self.looked_at.retain(|_, at| now < *at + AGAIN_AFTER);
        self.peers.retain(|_, bucket| !bucket.is_full(now));
        let room = self.queue.len() < QUEUE_MAX
            && self.looked_at.len() < LOOKED_AT_MAX
            && (self.peers.len() < PEERS_MAX || self.peers.contains_key(&reporter));
        room && !self.looked_at.contains_key(key)
            && self.peers.entry(reporter).or_default().take(now, &ONE_PEER)
            && self.all.take(now, &ALL)
    }

    fn advance(&mut self, machines: &mut Machines) {
        while self.running.is_none() {
            let Some((key, reporter)) = self.queue.pop_front() else { return };
            // The piece was removed meanwhile.
            let Some((content, extent)) = machines.store.locate(&key) else { continue };
            // A download verifies its own file, through the descriptor that it holds.
            if matches!(extent.place, Place::Partial(_) | Place::Window { .. }) {
                continue;
            }
            let input_offset = match (&extent.place, content) {
                (Place::Piece(key), _) => machines.store.piece(key).map_or(0, |meta| meta.input_offset),
                (_, Content::Chunk) => extent.offset,
                _ => 0,
            };
            self.running = Some((key, reporter, extent.place.clone()));
            let piece = PieceAt { key, content, input_offset, extent };
            machines.disk(DiskOp::Verify { piece, idle: false }, Waiting::Recheck);
        }
    }

    /// The disk has checked the piece.
    pub(in crate::node) fn disk(
        &mut self,
        result: Result<DiskReply, DiskError>,
        machines: &mut Machines,
    ) -> Option<Finding> {
        let running = self.running.take();
        debug_assert!(running.is_some(), "one look at a time is answered once");
        let (key, reporter, place) = running?;
        let verdict = match result {
            Ok(DiskReply::Verified { soundness: Soundness::Rotten }) => {
                Verdict::Rotten("it is something else")
            }
            Ok(DiskReply::Verified { soundness: Soundness::Unreadable }) => {
                Verdict::Rotten("the medium does not give it back")
            }
            Ok(DiskReply::Verified { soundness: Soundness::Missing }) => Verdict::Rotten("its file is gone"),
            Ok(_) => Verdict::Good,
            Err(error) => Verdict::Unknown(error),
        };
        match verdict {
            Verdict::Good => self.counters.good += 1,
            Verdict::Rotten(_) => self.counters.rotten += 1,
            Verdict::Unknown(_) => {}
        }
        self.advance(machines);
        Some(Finding { key, reporter, place, verdict })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::ManifestBuilder;
    use crate::node::Output;
    use std::path::Path;
    use std::sync::Arc;

    const START: Instant = Instant::from_secs(1000);

    fn key(number: u32) -> Key {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_le_bytes());
        Key(key)
    }

    /// The number of checks that follow from this many reports, one a second and each about another piece.
    fn looks(complaints: u32, reporter: impl Fn(u32) -> NodeId) -> usize {
        let mut rechecks = Rechecks::default();
        let look = |number: &u32| {
            let now = START + Duration::from_secs(u64::from(*number));
            let may = rechecks.may_look(now, &key(*number), reporter(*number));
            if may {
                rechecks.looked_at.insert(key(*number), now);
            }
            assert!(rechecks.looked_at.len() <= LOOKED_AT_MAX && rechecks.peers.len() <= PEERS_MAX);
            may
        };
        (0..complaints).filter(look).count()
    }

    #[test]
    fn durable_pieces_are_checked_and_files_of_downloads_are_left_alone() {
        let mut builder = ManifestBuilder::new(600_000).unwrap();
        builder.update(&[7; 600_000]);
        let manifest = Arc::new(builder.finish().unwrap());
        for (place, looks) in
            [(Place::Partial(Path::new("/u/a").into()), 0), (Place::Cache(manifest.hash()), 1)]
        {
            let mut machines = Machines::alone(START);
            machines.store.begin_partial(manifest.hash(), Arc::clone(&manifest), place).unwrap();
            machines.store.chunk_done(&manifest.hash(), 2);
            let mut rechecks = Rechecks::default();
            rechecks.report(START, manifest.keys()[2], NodeId([1; 32]), &mut machines);
            let verify = |output: &Output| matches!(output, Output::Disk { op: DiskOp::Verify { .. }, .. });
            assert_eq!(machines.outputs.iter().filter(|output| verify(output)).count(), looks);
            assert_eq!(rechecks.is_running(&manifest.keys()[2]), looks == 1);
        }
    }

    #[test]
    fn a_piece_is_checked_once_in_ten_minutes_whichever_peer_reports_it() {
        let mut rechecks = Rechecks::default();
        assert!(rechecks.may_look(START, &key(1), NodeId([1; 32])));
        rechecks.looked_at.insert(key(1), START);
        let again = START + AGAIN_AFTER;
        assert!(!rechecks.may_look(START + Duration::from_secs(599), &key(1), NodeId([2; 32])));
        assert!(rechecks.may_look(again, &key(1), NodeId([2; 32])));
    }

    #[test]
    fn one_liar_makes_a_node_read_a_piece_a_minute_and_many_one_in_five_seconds() {
        let one = looks(3600, |_| NodeId([1; 32]));
        assert!((60..=60 + PEER_BURST as usize).contains(&one), "{one}");
        let many = looks(3600, |number| NodeId(key(number % 200).0));
        assert!((720..=720 + BURST as usize).contains(&many), "{many}");
        let strangers = looks(3600, |number| NodeId(key(number).0));
        assert!(strangers <= 720 + BURST as usize, "{strangers}");
    }
}
