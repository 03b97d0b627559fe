//! Tests of what follows from one operation for another, and of damaged content.

use super::*;
use crate::dht::Turnout;
use crate::id::{Key, NodeId};
use crate::io::{
    DiskError, DiskErrorKind, DiskReply, FileStamp, PieceMeta, Place, Recovered, Share, ShareState, Soundness,
};
use crate::limits::Limits;
use crate::node::command::{Reply, Response};
use crate::node::{Output, Waiting};
use crate::store::Store;
use crate::time::Duration;
use crate::wire::frame::Refusal;
use std::path::Path;

const START: Instant = Instant::from_secs(1000);
const PIECE: Key = Key([7; 32]);
const FILE: Key = Key([8; 32]);

/// The operations of a node that knows no other. It stores a piece for the network and shares a file.
struct Bench {
    machines: Machines,
    ops: Ops,
}

impl Bench {
    fn new() -> Bench {
        let piece = PieceMeta::file(PIECE, 3);
        let share = Share {
            hash: FILE,
            length: 1,
            place: file(),
            stamp: FileStamp::default(),
            state: ShareState::Present,
            replicas: 0,
            lifetime: 1,
            replicated: true,
            synced: true,
        };
        let recovered = Recovered { pieces: vec![piece], shares: vec![share], ..Recovered::default() };
        let config = NodeConfig::of_a_test(([127, 0, 0, 1], 1).into(), &[]);
        let mut machines = Machines::alone(START);
        machines.store = Store::new(&Limits::default(), &recovered, 1, START);
        let mut ops = Ops::new(&config, &[], &machines, 7, START);
        ops.resume(START, &recovered, &mut machines);
        Bench { machines, ops }
    }

    /// Carries out all work that follows.
    fn settle(&mut self) {
        for _ in 0..100 {
            if !self.ops.go_on(START, &mut self.machines) {
                return;
            }
        }
        panic!("the work does not end");
    }

    fn disk(&mut self, waiting: Waiting, result: Result<DiskReply, DiskError>) {
        self.ops.handle_disk(START, waiting, result, &mut self.machines);
        self.settle();
    }

    fn has_piece(&self) -> bool {
        self.machines.store.piece(&PIECE).is_some()
    }

    fn is_served(&self) -> bool {
        self.machines.store.source(&FILE).is_some()
    }
}

fn file() -> Place {
    Place::File(Path::new("/u/file").into())
}

fn error(kind: DiskErrorKind) -> DiskError {
    DiskError { kind, message: "the disk says so".to_owned() }
}

fn verified(soundness: Soundness) -> Result<DiskReply, DiskError> {
    Ok(DiskReply::Verified { soundness })
}

#[test]
fn replication_keeps_the_pieces_that_were_on_disk_at_the_start_until_they_are_dropped() {
    let mut bench = Bench::new();
    assert_eq!(bench.machines.replication.statistics().pieces, 1);
    bench.machines.store.remove_piece(&PIECE);
    bench.settle();
    assert_eq!(bench.machines.replication.statistics().pieces, 0);
}

#[test]
fn a_leaving_node_without_neighbours_leaves_its_pieces_behind() {
    let mut bench = Bench::new();
    bench.ops.departure.start(START, CommandId(1), None, &bench.machines);
    assert!(!bench.ops.departure.is_due(START));
    for _ in 0..100 {
        bench.settle();
        // The lookups for the nodes closest to the piece find none.
        while bench.machines.dht.poll_event().is_some() {}
        for lookup in bench.machines.lookups.keys().copied().collect::<Vec<_>>() {
            bench.ops.handle_looked_up(START, lookup, &[], None, Turnout::default(), &mut bench.machines);
        }
        if bench.ops.departure.is_due(START) {
            break;
        }
    }
    assert!(bench.ops.departure.is_due(START));
    bench.ops.departure.finish(&mut bench.machines);
    let left_behind = bench.machines.outputs.iter().find_map(|output| match output {
        Output::Respond { response: Response::Done(Reply::Leave { left_behind, .. }), .. } => {
            Some(*left_behind)
        }
        _ => None,
    });
    assert_eq!(left_behind, Some(1));
    assert!(bench.has_piece());
}

#[test]
fn a_full_disk_and_a_departure_each_close_the_node_to_new_copies() {
    let mut bench = Bench::new();
    assert_eq!(bench.ops.closed_to_copies(START), None);
    bench.disk(Waiting::Nothing, Err(error(DiskErrorKind::NoSpace)));
    assert_eq!(bench.ops.closed_to_copies(START), Some(Refusal::NoSpace));
    bench.ops.departure.start(START, CommandId(1), None, &bench.machines);
    assert_eq!(bench.ops.closed_to_copies(START), Some(Refusal::Busy));
}

#[test]
fn the_scrub_counts_each_rotten_piece_that_it_drops() {
    let mut bench = Bench::new();
    bench.ops.scrub.start(START, CommandId(1), true, &mut bench.machines);
    bench.disk(Waiting::Scrub, verified(Soundness::Rotten));
    assert!(!bench.has_piece());
    assert_eq!(bench.ops.damage.pieces_rotten, 1);
    assert_eq!(bench.machines.replication.statistics().pieces, 0);
}

#[test]
fn a_piece_that_a_peer_reports_stays_only_if_it_verifies() {
    for (soundness, stays) in [(Soundness::Sound, true), (Soundness::Rotten, false)] {
        let mut bench = Bench::new();
        bench.ops.rechecks.report(START, PIECE, NodeId([1; 32]), &mut bench.machines);
        bench.disk(Waiting::Recheck, verified(soundness));
        assert_eq!(bench.has_piece(), stays, "{soundness:?}");
    }
}

#[test]
fn a_shared_file_that_looks_different_is_withdrawn_before_its_download_goes_on() {
    let mut bench = Bench::new();
    let order = download::Order {
        id: CommandId(1),
        hash: FILE,
        target: None,
        force: false,
        mode: None,
        tree: None,
        timeout: None,
    };
    bench.ops.seekers.downloads.start(START, order, &mut bench.machines);
    let look = bench.machines.disk_waiting.iter().find(|(_, waiting)| matches!(waiting, Waiting::Stamp(..)));
    let look = *look.expect("the stamp is checked first").0;
    let waiting = bench.machines.disk_waiting.remove(&look).unwrap();
    assert!(bench.is_served());
    bench.disk(waiting, Err(error(DiskErrorKind::Changed)));
    assert!(!bench.is_served());
    assert!(bench.ops.seekers.downloads.next_deadline().is_some(), "the network is asked");
}

#[test]
fn an_error_on_a_users_file_says_nothing_about_the_nodes_disk() {
    let mut bench = Bench::new();
    bench.disk(Waiting::UsersFile, Err(error(DiskErrorKind::Failed)));
    assert!(bench.ops.health.is_well());
    bench.disk(Waiting::Nothing, Err(error(DiskErrorKind::Failed)));
    assert!(!bench.ops.health.is_well());
    assert_eq!(bench.ops.health.errors, 2);
}

#[test]
fn a_record_that_cannot_be_saved_fails_its_command() {
    let mut bench = Bench::new();
    let reply = Reply::Remove { hash: FILE };
    bench.disk(Waiting::Record(CommandId(1), reply), Err(error(DiskErrorKind::NoSpace)));
    let failed = bench.machines.outputs.iter().any(|output| {
        matches!(output, Output::Respond { command: CommandId(1), response: Response::Failed(_) })
    });
    assert!(failed);
    assert!(!bench.ops.health.is_well());
}

#[test]
fn no_operation_wakes_an_idle_node_at_once() {
    let mut bench = Bench::new();
    bench.settle();
    bench.ops.handle_timeout(START, &mut bench.machines);
    bench.settle();
    let next = bench.ops.next_deadline(&bench.machines);
    assert!(next.is_none_or(|at| at > START + Duration::from_millis(100)), "{next:?}");
}
