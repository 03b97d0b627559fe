use super::*;
use crate::id::PublicKey;
use crate::io::{DiskErrorKind, FileStamp, Place, Share, ShareState};
use crate::manifest::ManifestBuilder;
use crate::node::Copying;
use crate::node::Output;
use crate::node::Purpose;
use crate::node::command::{Failure, Response};
use crate::node::ops::place_piece::PlaceFor;
use std::path::Path;

const START: Instant = Instant::from_secs(1000);
const LIFETIME: u32 = 1000;
const STORED: Result<PushOutcome, PushError> = Ok(PushOutcome::Stored);
const LOST: Result<PushOutcome, PushError> = Err(PushError::Lost);

fn node(number: u8) -> Contact {
    Contact::new(PublicKey([number; 32]), ([127, 0, 0, number], 3583).into())
}

/// A file of this many bytes; different numbers give different files.
fn file(number: u8, length: usize) -> Arc<Manifest> {
    let mut builder = ManifestBuilder::new(length as u64).unwrap();
    builder.update(&vec![number; length]);
    Arc::new(builder.finish().unwrap())
}

/// A file of one chunk.
fn small(number: u8) -> Arc<Manifest> {
    file(number, 100)
}

/// A file of three chunks and a manifest.
fn large(number: u8) -> Arc<Manifest> {
    file(number, 600_000)
}

/// The result of a `put`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// The file has a quorum of copies.
    Stored(u32),
    /// It has fewer.
    Short(u32),
    Failed,
}

struct Bench {
    now: Instant,
    machines: Machines,
    uploads: Uploads,
}

impl Bench {
    fn new() -> Bench {
        Bench { now: START, machines: Machines::alone(START), uploads: Uploads::default() }
    }

    /// Shares a file, and lets a command wait for its copies.
    fn put(&mut self, command: u64, manifest: &Arc<Manifest>, replicas: u8) {
        let hash = manifest.hash();
        let share = Share {
            hash,
            length: manifest.length(),
            place: Place::File(Path::new(&format!("/u/{hash}")).into()),
            stamp: FileStamp::default(),
            state: ShareState::Present,
            replicas,
            lifetime: LIFETIME,
            replicated: replicas == 0,
            synced: true,
        };
        let fresh = self.machines.store.source(&hash).is_none();
        self.machines.store.claim(&share, Some(manifest)).expect("there is room");
        let shared = self.machines.store.shared(&hash).expect("it is shared");
        let shared = Shared { replicas, lifetime: LIFETIME, ..shared };
        self.machines.store.set_shared(shared);
        let manifest = Some(Arc::clone(manifest));
        let machines = &mut self.machines;
        self.uploads.served(self.now, &shared, manifest, Some(CommandId(command)), fresh, machines);
    }

    fn announce(&mut self, manifest: &Manifest) {
        self.uploads.handle_announced(self.now, &manifest.hash(), &mut self.machines);
    }

    /// Ends the lookups under way: they find the nodes 1 to `nodes`. Returns how many there were.
    fn find(&mut self, nodes: u8) -> usize {
        let closest: Vec<Contact> = (1..=nodes).map(node).collect();
        let lookups = core::mem::take(&mut self.machines.lookups);
        let count = lookups.len();
        for purpose in lookups.into_values() {
            let Purpose::Place(PlaceFor::Upload { file, piece }) = purpose else { panic!("another lookup") };
            self.uploads.handle_looked_up(self.now, (file, piece), &closest, &mut self.machines);
        }
        count
    }

    /// Ends all lookups, also those that follow from others.
    fn find_all(&mut self, nodes: u8) {
        while self.find(nodes) > 0 {}
    }

    /// The nodes to which copies are under way.
    fn targets(&self) -> Vec<u8> {
        let number = |id: &NodeId| (1..=20).find(|number| node(*number).id == *id).expect("a known node");
        self.machines.pushes.values().map(|(_, target)| number(target)).collect()
    }

    /// Ends the first copy under way to this node, or to any. False when there is none.
    fn copied(&mut self, target: Option<u8>, result: &Result<PushOutcome, PushError>) -> bool {
        let wanted = target.map(|target| node(target).id);
        let mut pushes = self.machines.pushes.iter();
        let first = pushes.find(|(_, (_, to))| wanted.is_none_or(|wanted| wanted == *to));
        let Some((&push, &(copying, to))) = first else { return false };
        let Copying::Place(PlaceFor::Upload { file, piece }) = copying else { panic!("another copy") };
        self.machines.pushes.remove(&push);
        self.uploads.handle_copied(self.now, (file, piece, push), &to, result, &mut self.machines);
        true
    }

    /// Lets every copy succeed, with lookups that find `nodes`.
    fn place_all(&mut self, nodes: u8) {
        self.find_all(nodes);
        while self.copied(None, &STORED) {
            self.find_all(nodes);
        }
    }

    /// Advances the time to the next deadline. Returns the seconds that passed.
    fn wait(&mut self) -> u64 {
        let at = self.uploads.next_deadline().expect("there is a deadline");
        let seconds = at.since(self.now).as_secs();
        self.now = at;
        self.uploads.handle_timeout(at, &mut self.machines);
        seconds
    }

    /// The commands that ended since the last call.
    fn ended(&mut self) -> Vec<(u64, End)> {
        let mut ended = Vec::new();
        self.machines.outputs.retain(|output| {
            let Output::Respond { command, response } = output else { return true };
            match response {
                Response::Done(Reply::Put { copies, quorum: true, .. }) => {
                    ended.push((command.0, End::Stored(*copies)));
                }
                Response::Done(Reply::Put { copies, .. }) => ended.push((command.0, End::Short(*copies))),
                Response::Failed(Failure { reason: FailureReason::Failed, .. }) => {
                    ended.push((command.0, End::Failed));
                }
                Response::Progress(_) => {}
                other => panic!("{other:?}"),
            }
            false
        });
        ended
    }

    /// The disk operations since the last call.
    fn disk(&mut self) -> Vec<DiskOp> {
        let operation = |output| match output {
            Output::Disk { op, .. } => Some(op),
            _ => None,
        };
        self.machines.outputs.drain(..).filter_map(operation).collect()
    }

    fn is_replicated(&self, manifest: &Manifest) -> bool {
        self.machines.store.shared(&manifest.hash()).is_some_and(|shared| shared.replicated)
    }
}

#[test]
fn a_put_is_answered_with_a_quorum_before_all_copies_are_made() {
    let (mut bench, file) = (Bench::new(), small(1));
    bench.put(1, &file, 3);
    bench.announce(&file);
    bench.find(5);
    assert_eq!(bench.ended(), []);
    bench.copied(None, &STORED);
    assert_eq!(bench.ended(), [(1, End::Stored(2))]);
    assert!(!bench.is_replicated(&file));
    while bench.copied(None, &STORED) {}
    assert!(bench.is_replicated(&file));
    assert!(bench.disk().iter().any(|op| matches!(op, DiskOp::SaveShare { share, .. } if share.replicated)));
    assert_eq!(bench.uploads.copies(&file.hash()), None);
    assert_eq!(bench.uploads.next_deadline(), None);
}

#[test]
fn a_file_of_several_chunks_is_stored_when_its_last_piece_is() {
    let (mut bench, file) = (Bench::new(), large(1));
    bench.put(1, &file, 1);
    bench.announce(&file);
    bench.find_all(20);
    let mut copies = 0;
    while bench.copied(None, &STORED) {
        copies += 1;
        bench.find_all(20);
    }
    assert!((1..=4).contains(&copies), "three chunks and a manifest, some of which belong here: {copies}");
    assert!(bench.is_replicated(&file));
    assert!(matches!(bench.ended()[..], [(1, End::Stored(_))]));
}

#[test]
fn a_file_that_is_not_announced_is_answered_two_seconds_after_its_last_copy() {
    let (mut bench, file) = (Bench::new(), small(1));
    bench.put(1, &file, 3);
    bench.place_all(5);
    assert_eq!(bench.ended(), []);
    assert_eq!(bench.wait(), 2);
    assert!(matches!(bench.ended()[..], [(1, End::Stored(_))]));
    assert!(bench.is_replicated(&file));
}

#[test]
fn a_file_that_only_its_announcement_lets_others_find_waits_longer_for_it() {
    let (mut bench, file) = (Bench::new(), small(1));
    bench.put(1, &file, 0);
    assert_eq!(bench.ended(), []);
    assert_eq!(bench.wait(), 10);
    assert_eq!(bench.ended(), [(1, End::Stored(1))]);
}

#[test]
fn a_put_whose_target_is_silent_is_answered_with_the_copy_of_another_node() {
    let (mut bench, file) = (Bench::new(), small(1));
    bench.put(1, &file, 2);
    bench.announce(&file);
    bench.find(4);
    let silent = bench.targets();
    let begun = bench.now;
    while bench.targets() == silent {
        assert_eq!(bench.wait(), 1, "it looks once a second");
    }
    assert!(bench.now.since(begun).as_secs() <= 3);
    let other = *bench.targets().last().unwrap();
    assert!(!silent.contains(&other));
    bench.copied(Some(other), &STORED);
    assert_eq!(bench.ended(), [(1, End::Stored(2))]);
    while bench.copied(None, &LOST) {}
    assert!(bench.ended().is_empty());
}

#[test]
fn a_file_for_which_there_is_no_node_is_answered_as_short_and_tried_again_ever_more_rarely() {
    let (mut bench, file) = (Bench::new(), small(1));
    bench.put(1, &file, 3);
    bench.announce(&file);
    bench.find(0);
    assert_eq!(bench.ended(), [(1, End::Short(1))]);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        pauses.push(bench.wait());
        assert_eq!(bench.find(0), 1, "it is looked up again");
    }
    assert_eq!(pauses, [60, 120, 240, 480, 960, 1920, 3600, 3600]);
    bench.wait();
    bench.place_all(5);
    assert!(bench.is_replicated(&file));
}

#[test]
fn files_that_lack_copies_are_tried_again_when_the_node_has_joined() {
    let mut bench = Bench::new();
    let files = [small(1), large(2)];
    for (command, file) in (1..).zip(&files) {
        bench.put(command, file, 3);
        bench.announce(file);
    }
    bench.find_all(0);
    bench.ended();
    bench.uploads.handle_joined(bench.now, &mut bench.machines);
    assert_eq!(bench.wait(), 0, "the round of the file in memory is due");
    bench.place_all(5);
    assert!(files.iter().all(|file| bench.is_replicated(file)));
}

#[test]
fn without_contacts_a_resting_file_that_is_put_again_is_answered_at_once() {
    let (mut bench, file) = (Bench::new(), small(1));
    bench.put(1, &file, 3);
    bench.announce(&file);
    bench.find(0);
    bench.put(2, &file, 3);
    assert_eq!(bench.ended(), [(1, End::Short(1)), (2, End::Short(1))]);
    assert_eq!(bench.machines.lookups.len(), 0);
}

#[test]
fn a_node_that_falls_silent_is_avoided_for_the_rest_of_the_round() {
    let (mut bench, file) = (Bench::new(), large(1));
    bench.put(1, &file, 3);
    bench.find_all(1);
    assert!(bench.targets().iter().all(|target| *target == 1));
    while bench.copied(Some(1), &LOST) {
        bench.find_all(1);
    }
    bench.wait();
    assert_eq!(bench.ended(), [(1, End::Short(1))]);
    assert_eq!(bench.machines.pushes.len(), 0);
    bench.wait();
    bench.find_all(1);
    assert!(!bench.targets().is_empty(), "the next round tries it again");
}

#[test]
fn a_file_that_is_not_served_any_more_ends_its_upload_and_fails_its_commands() {
    let (mut bench, file) = (Bench::new(), large(1));
    bench.put(1, &file, 3);
    bench.find(5);
    assert!(!bench.machines.pushes.is_empty() && !bench.machines.lookups.is_empty());
    bench.uploads.stop(bench.now, &file.hash(), "it was removed", &mut bench.machines);
    assert_eq!(bench.ended(), [(1, End::Failed)]);
    assert!(bench.machines.pushes.is_empty() && bench.machines.lookups.is_empty());
    assert_eq!(bench.uploads.next_deadline(), None);
}

#[test]
fn a_file_that_this_node_has_lost_fails_when_its_next_piece_is_due() {
    let (mut bench, file) = (Bench::new(), large(1));
    bench.put(1, &file, 3);
    let place = bench.machines.store.claims(&file.hash())[0].place(&file.hash());
    bench.machines.store.end_claim(&file.hash(), &place);
    bench.find(5);
    assert_eq!(bench.ended(), [(1, End::Failed)]);
    assert_eq!(bench.uploads.copies(&file.hash()), None);
}

#[test]
fn a_second_put_with_the_same_aim_joins_the_upload_and_one_with_another_begins_anew() {
    let (mut bench, file) = (Bench::new(), small(1));
    bench.put(1, &file, 3);
    bench.put(2, &file, 3);
    bench.announce(&file);
    bench.find(5);
    bench.copied(None, &STORED);
    assert_eq!(bench.ended(), [(1, End::Stored(2)), (2, End::Stored(2))]);
    bench.put(3, &file, 5);
    assert_eq!(bench.machines.pushes.len(), 0, "the copies of the old aim are forgotten");
    assert_eq!(bench.find(8), 1);
    assert!(bench.targets().len() >= 4, "{:?}", bench.targets());
}

#[test]
fn a_put_of_a_file_with_all_its_copies_is_answered_at_once() {
    let (mut bench, file) = (Bench::new(), small(1));
    bench.put(1, &file, 3);
    bench.announce(&file);
    bench.place_all(5);
    bench.ended();
    let shared = bench.machines.store.shared(&file.hash()).unwrap();
    bench.uploads.served(bench.now, &shared, None, Some(CommandId(2)), false, &mut bench.machines);
    assert_eq!(bench.ended(), [(2, End::Stored(3))]);
    assert_eq!(bench.machines.lookups.len(), 0);
}

#[test]
fn files_beyond_the_limit_begin_in_the_order_of_their_line() {
    let mut bench = Bench::new();
    let files: Vec<Arc<Manifest>> = (0..).map(small).take(UPLOADS_MAX + 2).collect();
    for (command, file) in (0..).zip(&files) {
        bench.put(command, file, 3);
    }
    let begun = |bench: &Bench, index: usize| bench.uploads.copies(&files[index].hash()).is_some();
    assert!(begun(&bench, UPLOADS_MAX - 1) && !begun(&bench, UPLOADS_MAX));
    bench.uploads.stop(bench.now, &files[0].hash(), "it was removed", &mut bench.machines);
    assert!(begun(&bench, UPLOADS_MAX) && !begun(&bench, UPLOADS_MAX + 1));
    bench.uploads.stop(bench.now, &files[UPLOADS_MAX + 1].hash(), "it was removed", &mut bench.machines);
    let last = (UPLOADS_MAX + 1) as u64;
    assert_eq!(bench.ended(), [(0, End::Failed), (last, End::Failed)]);
}

#[test]
fn a_file_in_line_that_asks_for_no_copies_is_answered_when_its_turn_comes() {
    let mut bench = Bench::new();
    for number in 0..UPLOADS_MAX as u8 {
        bench.put(number.into(), &small(number), 3);
    }
    let shared_only = small(200);
    bench.put(200, &shared_only, 0);
    assert_eq!(bench.ended(), []);
    bench.uploads.stop(bench.now, &small(0).hash(), "it was removed", &mut bench.machines);
    bench.announce(&shared_only);
    assert_eq!(bench.ended(), [(0, End::Failed), (200, End::Stored(1))]);
}

#[test]
fn the_manifest_of_a_file_in_line_is_read_when_its_turn_comes() {
    let mut bench = Bench::new();
    for number in 0..UPLOADS_MAX as u8 {
        bench.put(number.into(), &small(number), 3);
    }
    let waiting = large(200);
    let hash = waiting.hash();
    bench.put(200, &waiting, 3);
    bench.disk();
    bench.uploads.stop(bench.now, &small(0).hash(), "it was removed", &mut bench.machines);
    assert!(
        bench
            .disk()
            .iter()
            .any(|op| matches!(op, DiskOp::Read(extent) if extent.place == Place::ShareManifest(hash)))
    );
    let read = Ok(DiskReply::Bytes(waiting.encode()));
    assert!(bench.uploads.handle_manifest(bench.now, &hash, read, &mut bench.machines));
    assert_eq!(bench.uploads.copies(&hash), Some(1));
}

#[test]
fn the_commands_fail_when_the_manifest_cannot_be_read() {
    let (mut bench, file) = (Bench::new(), large(1));
    bench.put(1, &file, 3);
    let wrong = [
        Ok(DiskReply::Bytes(vec![0; 40])),
        Err(DiskError { kind: DiskErrorKind::NotFound, message: String::new() }),
    ];
    for result in wrong {
        assert!(!bench.uploads.handle_manifest(bench.now, &file.hash(), result, &mut bench.machines));
    }
    assert_eq!(bench.ended(), [(1, End::Failed)]);
}
