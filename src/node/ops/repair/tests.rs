use super::*;
use crate::claim::PieceClaim;
use crate::id::PublicKey;
use crate::io::{DiskError, DiskErrorKind, PieceMeta, Recovered};
use crate::limits::Limits;
use crate::node::Purpose;
use crate::store::Store;

const START: Instant = Instant::from_secs(1000);
const KEY: Key = Key([9; 32]);
const ABSENT: Key = Key([8; 32]);

fn node(number: u8) -> Contact {
    Contact::new(PublicKey([number; 32]), ([127, 0, 0, number], 3583).into())
}

/// A node with one stored piece that should have two copies.
struct Bench {
    machines: Machines,
    repair: Repair,
}

impl Bench {
    fn new() -> Bench {
        let mut machines = Machines::alone(START);
        let piece = PieceMeta {
            replicas: 2,
            expires: u64::MAX >> 32,
            claim: Some(PieceClaim::unsigned(PublicKey([5; 32]), 2, 3600, 1)),
            ..PieceMeta::file(KEY, 100)
        };
        let recovered = Recovered { pieces: vec![piece], ..Recovered::default() };
        machines.store = Store::new(&Limits::default(), &recovered, 1, START);
        Bench { machines, repair: Repair::new(START) }
    }

    fn relocate(&mut self, key: Key) {
        self.repair.relocate(START, key, &mut self.machines);
    }

    /// The lookup ends with the nodes 1 to `nodes`.
    fn find(&mut self, nodes: u8) {
        let closest: Vec<Contact> = (1..=nodes).map(node).collect();
        for purpose in core::mem::take(&mut self.machines.lookups).into_values() {
            let Purpose::Place(PlaceFor::Relocation { key }) = purpose else { panic!("another lookup") };
            self.repair.handle_looked_up(START, key, &closest, &mut self.machines);
        }
    }

    /// The first copy under way ends.
    fn copied(&mut self, result: &Result<PushOutcome, PushError>) {
        let (push, (copying, target)) = self.machines.pushes.pop_first().expect("a copy is under way");
        match copying {
            Copying::Place(PlaceFor::Relocation { key }) => {
                self.repair.handle_placed(START, (key, push), result, &mut self.machines);
            }
            Copying::Repair(key) => {
                self.repair.handle_copied(START, &key, &target, result, &mut self.machines);
            }
            Copying::Place(PlaceFor::Upload { .. }) => panic!("there is no upload"),
        }
    }
}

const STORED: Result<PushOutcome, PushError> = Ok(PushOutcome::Stored);
const REFUSED: Result<PushOutcome, PushError> = Err(PushError::Refused(Refusal::NoSpace));

#[test]
fn a_relocation_ends_with_the_number_of_nodes_that_took_the_piece() {
    let mut bench = Bench::new();
    bench.relocate(KEY);
    bench.find(3);
    bench.copied(&REFUSED);
    bench.copied(&STORED);
    assert_eq!(bench.repair.poll_relocated(), None, "one copy is under way");
    bench.copied(&STORED);
    assert_eq!(bench.repair.poll_relocated(), Some(Relocated { key: KEY, copies: 2 }));
    assert_eq!(bench.repair.poll_relocated(), None);
}

#[test]
fn a_relocation_that_finds_no_node_ends_without_copies() {
    let mut bench = Bench::new();
    bench.relocate(KEY);
    bench.find(0);
    assert_eq!(bench.repair.poll_relocated(), Some(Relocated { key: KEY, copies: 0 }));
}

#[test]
fn a_piece_that_is_not_here_is_not_relocated() {
    let mut bench = Bench::new();
    bench.relocate(ABSENT);
    assert_eq!(bench.machines.lookups.len(), 0);
    assert_eq!(bench.repair.poll_relocated(), Some(Relocated { key: ABSENT, copies: 0 }));
}

#[test]
fn a_piece_that_is_being_relocated_is_not_relocated_a_second_time() {
    let mut bench = Bench::new();
    bench.relocate(KEY);
    bench.relocate(KEY);
    assert_eq!(bench.machines.lookups.len(), 1);
    bench.find(0);
    assert!(bench.repair.poll_relocated().is_some());
    assert_eq!(bench.repair.poll_relocated(), None);
}

#[test]
fn a_relocation_that_has_no_room_goes_on_when_there_is_some() {
    let mut bench = Bench::new();
    bench.relocate(KEY);
    for number in 0..8 {
        bench.machines.pushes.insert(PushId(9000 + number), (Copying::Repair(ABSENT), node(1).id));
    }
    bench.find(1);
    let due = bench.repair.next_deadline(&bench.machines).expect("it waits for room");
    bench.machines.pushes.clear();
    bench.repair.handle_timeout(due, &mut bench.machines);
    assert_eq!(bench.repair.next_deadline(&bench.machines), None);
    bench.copied(&STORED);
    assert_eq!(bench.repair.poll_relocated(), Some(Relocated { key: KEY, copies: 1 }));
}

#[test]
fn a_copy_goes_to_the_neighbour_that_replication_names() {
    let mut bench = Bench::new();
    bench.repair.act(START, Action::Copy { key: KEY, target: node(1) }, &mut bench.machines);
    let targets: Vec<NodeId> = bench.machines.pushes.values().map(|(_, target)| *target).collect();
    assert_eq!(targets, [node(1).id]);
    bench.repair.act(START, Action::Copy { key: ABSENT, target: node(1) }, &mut bench.machines);
    assert_eq!(bench.machines.pushes.len(), 1, "a piece that is not here is not offered");
}

#[test]
fn surplus_is_deleted() {
    let mut bench = Bench::new();
    bench.repair.act(START, Action::Drop { key: KEY }, &mut bench.machines);
    assert!(bench.machines.store.piece(&KEY).is_none());
}

#[test]
fn a_refusal_for_lack_of_time_is_told_apart_from_one_for_good_and_from_a_failure() {
    let unreadable = DiskError { kind: DiskErrorKind::Failed, message: String::new() };
    for (result, outcome) in [
        (Ok(PushOutcome::Stored), CopyOutcome::Stored),
        (Ok(PushOutcome::Had), CopyOutcome::Had),
        (Err(PushError::Refused(Refusal::Busy)), CopyOutcome::Busy),
        (Err(PushError::Refused(Refusal::NoSpace)), CopyOutcome::Refused),
        (Err(PushError::Refused(Refusal::NotClose)), CopyOutcome::Refused),
        (Err(PushError::Unreachable), CopyOutcome::Failed),
        (Err(PushError::Lost), CopyOutcome::Failed),
        (Err(PushError::Unproven), CopyOutcome::Failed),
        (Err(PushError::Source(unreadable)), CopyOutcome::Failed),
    ] {
        assert_eq!(outcome_of(&result), outcome, "{result:?}");
    }
}
