use super::put::Puts;
use super::removal::Removals;
use super::watch::Watch;
use super::*;
use crate::io::{DiskError, DiskErrorKind, DiskId, DiskReply, PassedId, Recovered};
use crate::limits::Limits;
use crate::manifest::ManifestBuilder;
use crate::node::Output;
use crate::node::command::{Failure, FailureReason, Response};
use crate::store::Store;
use crate::time::{Duration, Instant};

const START: Instant = Instant::from_secs(1000);
const LIFETIME: u32 = 1000;

/// The claims of a node that knows no other, and the time.
struct Bench {
    now: Instant,
    machines: Machines,
    puts: Puts,
    removals: Removals,
    watch: Watch,
}

fn content(text: &str) -> Arc<Manifest> {
    let mut builder = ManifestBuilder::new(text.len() as u64).unwrap();
    builder.update(text.as_bytes());
    Arc::new(builder.finish().unwrap())
}

/// The stamp of a file with this number.
fn stamp(number: i64) -> FileStamp {
    FileStamp { length: 3, modified: number, changed: number, ..FileStamp::default() }
}

fn at(path: &str) -> Place {
    Place::File(Path::new(path).into())
}

fn error(kind: DiskErrorKind) -> DiskError {
    DiskError { kind, message: "it cannot be read".to_owned() }
}

impl Bench {
    fn new() -> Self {
        Bench::with(&Limits::default())
    }

    fn with(limits: &Limits) -> Self {
        let mut machines = Machines::alone(START);
        machines.store = Store::new(limits, &Recovered::default(), 1, START);
        let puts = Puts::new(0, LIFETIME, limits.commands_max);
        let mut watch = Watch::new(START);
        watch.handle_timeout(START, &mut machines);
        Bench { now: START, machines, puts, removals: Removals::default(), watch }
    }

    fn put(&mut self, command: u64, path: &str, replicas: Option<u8>) {
        self.puts.start(CommandId(command), path.into(), replicas, None, &mut self.machines);
    }

    fn remove(&mut self, command: u64, hash: Key) {
        self.removals.start(CommandId(command), hash, &mut self.machines);
    }

    /// The disk operations that were asked for, in order.
    fn asked(&mut self) -> Vec<(DiskId, DiskOp)> {
        let outputs = core::mem::take(&mut self.machines.outputs);
        let mut asked = Vec::new();
        for output in outputs {
            match output {
                Output::Disk { id, op } => asked.push((id, op)),
                other => self.machines.outputs.push_back(other),
            }
        }
        asked
    }

    /// Answers the only disk operation that was requested, and returns it.
    fn answer(&mut self, result: Result<DiskReply, DiskError>) -> DiskOp {
        let mut asked = self.asked();
        assert_eq!(asked.len(), 1, "{asked:?}");
        let (id, op) = asked.remove(0);
        self.hand_in(id, result);
        op
    }

    fn hand_in(&mut self, id: DiskId, result: Result<DiskReply, DiskError>) {
        match self.machines.disk_waiting.remove(&id) {
            Some(Waiting::Put(command)) => self.puts.handle_disk(command, result, &mut self.machines),
            Some(Waiting::Examine) => self.watch.handle_disk(self.now, result, &mut self.machines),
            Some(Waiting::Unshare(command)) => self.removals.handle_disk(command, result, &mut self.machines),
            Some(Waiting::Nothing) => {}
            _ => panic!("nothing of shares waits for it"),
        }
    }

    fn hashed(&mut self, text: &str, number: i64) -> DiskOp {
        let (manifest, stamp) = (content(text), stamp(number));
        self.answer(Ok(DiskReply::Hashed { manifest, stamp, kept_open: false }))
    }

    /// Puts a file from its command to its claim on disk.
    fn share(&mut self, path: &str, text: &str, number: i64) -> Key {
        self.put(1, path, None);
        assert!(matches!(self.hashed(text, number), DiskOp::Hash { background: false, .. }));
        assert!(matches!(self.answer(Ok(DiskReply::Done)), DiskOp::SaveShare { .. }));
        self.events();
        content(text).hash()
    }

    /// The files that are served or withdrawn since the last call.
    fn events(&mut self) -> Vec<(bool, Key)> {
        let events = core::mem::take(&mut self.machines.share_events);
        let event = |event| match event {
            ShareEvent::Served { hash, .. } => (true, hash),
            ShareEvent::Withdrawn { shared, .. } => (false, shared.hash),
        };
        events.into_iter().map(event).collect()
    }

    fn failures(&mut self) -> Vec<(u64, FailureReason, String)> {
        let outputs = core::mem::take(&mut self.machines.outputs);
        let failure = |output| match output {
            Output::Respond { command, response: Response::Failed(Failure { reason, message }) } => {
                Some((command.0, reason, message))
            }
            _ => None,
        };
        outputs.into_iter().filter_map(failure).collect()
    }

    fn state(&self, hash: &Key, path: &str) -> Option<ShareState> {
        self.machines.store.record(hash, &at(path)).map(|share| share.state)
    }

    /// The check of a claimed file failed.
    fn look_fails(&mut self, path: &str, kind: DiskErrorKind) {
        self.watch.look_failed(self.now, &at(path), &error(kind), &mut self.machines);
    }

    /// Advances the time to the next deadline of the watch.
    fn next(&mut self) -> Duration {
        let due = self.watch.next_deadline().expect("something is due");
        let waited = due.since(self.now);
        self.now = due.max(self.now);
        self.watch.handle_timeout(self.now, &mut self.machines);
        waited
    }
}

// Putting.

#[test]
fn a_file_is_served_once_its_claim_is_on_disk() {
    let mut bench = Bench::new();
    bench.put(7, "/a", None);
    match bench.hashed("abc", 1) {
        DiskOp::Hash { place, passed, background: false } => {
            assert_eq!(place, at("/a"));
            assert_eq!(passed, Some(PassedId(7)));
        }
        other => panic!("{other:?}"),
    }
    let hash = content("abc").hash();
    assert_eq!(bench.state(&hash, "/a"), None);
    assert_eq!(bench.events(), Vec::new());
    match bench.answer(Ok(DiskReply::Done)) {
        DiskOp::SaveShare { share, manifest } => {
            assert_eq!(share.hash, hash);
            assert_eq!(share.place, at("/a"));
            assert!(share.synced);
            assert!(manifest.is_some(), "it is not on disk yet");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.state(&hash, "/a"), Some(ShareState::Present));
    assert_eq!(bench.events(), vec![(true, hash)]);
}

#[test]
fn an_unchanged_file_that_is_put_again_is_not_read() {
    let mut bench = Bench::new();
    let hash = bench.share("/a", "abc", 1);
    bench.put(2, "/a", None);
    match bench.answer(Ok(DiskReply::Bytes(Vec::new()))) {
        DiskOp::Read(extent) => assert_eq!(extent, Extent::nothing_of(extent.place.clone(), stamp(1))),
        other => panic!("{other:?}"),
    }
    assert_eq!(bench.events(), vec![(true, hash)]);
    assert_eq!(bench.asked(), Vec::new());
    bench.put(3, "/a", None);
    bench.answer(Err(error(DiskErrorKind::Changed)));
    assert!(matches!(bench.hashed("abc", 2), DiskOp::Hash { .. }), "it looks different, so it is read");
}

#[test]
fn more_copies_of_a_shared_file_are_written_down_for_each_of_its_paths() {
    let mut bench = Bench::new();
    let hash = bench.share("/a", "abc", 1);
    bench.share("/b", "abc", 2);
    bench.put(3, "/a", Some(5));
    bench.answer(Ok(DiskReply::Bytes(Vec::new())));
    let saved = bench.asked();
    let places: Vec<_> = saved
        .iter()
        .map(|(_, op)| match op {
            DiskOp::SaveShare { share, .. } => (share.place.clone(), share.replicas, share.replicated),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(places, [(at("/a"), 5, false), (at("/b"), 5, false)]);
    for (id, _) in saved {
        bench.hand_in(id, Ok(DiskReply::Done));
    }
    assert_eq!(bench.events(), [(true, hash)]);
}

#[test]
fn putting_a_path_with_other_content_withdraws_the_old_content() {
    let mut bench = Bench::new();
    let (old, new) = (bench.share("/a", "abc", 1), content("xyz").hash());
    bench.put(2, "/a", None);
    bench.answer(Err(error(DiskErrorKind::Changed)));
    bench.hashed("xyz", 2);
    bench.answer(Ok(DiskReply::Done));
    assert_eq!(bench.events(), [(false, old), (true, new)]);
    assert_eq!(bench.state(&old, "/a"), None);
    assert_eq!(bench.state(&new, "/a"), Some(ShareState::Present));
}

#[test]
fn a_put_that_cannot_succeed_is_refused_before_its_file_is_read() {
    let limits = Limits { shares_max: 1, commands_max: 2, ..Limits::default() };
    let mut bench = Bench::with(&limits);
    bench.share("/a", "abc", 1);
    bench.put(2, "relative", None);
    bench.put(3, "/b", None);
    let failures = bench.failures();
    let reasons: Vec<_> = failures.iter().map(|(command, reason, _)| (*command, *reason)).collect();
    assert_eq!(reasons, [(2, FailureReason::Usage), (3, FailureReason::NoSpace)]);
    assert!(failures[1].2.starts_with("1 paths are shared") && failures[1].2.contains("--shares"));
    // A file that is shared already may be put again, up to the limit of commands.
    (4..=6).for_each(|command| bench.put(command, "/a", None));
    assert_eq!(bench.asked().len(), 2);
    let failures = bench.failures();
    assert_eq!(failures.len(), 1);
    assert_eq!(failures[0].0, 6);
    assert_eq!(failures[0].1, FailureReason::Busy);
    assert!(failures[0].2.contains("`--commands`"), "{}", failures[0].2);
}

#[test]
fn a_claim_for_which_no_room_was_left_meanwhile_is_taken_from_the_disk_again() {
    let mut bench = Bench::with(&Limits { shares_max: 1, ..Limits::default() });
    bench.put(1, "/a", None);
    bench.hashed("abc", 1);
    let (save, _) = bench.asked().remove(0);
    bench.put(2, "/b", None);
    bench.hashed("xyz", 1);
    bench.answer(Ok(DiskReply::Done));
    bench.hand_in(save, Ok(DiskReply::Done));
    assert!(matches!(&bench.asked()[..], [(_, DiskOp::RemoveShare { last: true, .. })]));
    assert_eq!(bench.failures()[0].1, FailureReason::NoSpace);
    assert_eq!(bench.state(&content("abc").hash(), "/a"), None);
}

#[test]
fn a_file_that_cannot_be_hashed_or_written_down_is_not_shared() {
    let mut bench = Bench::new();
    bench.put(1, "/a", None);
    bench.answer(Err(error(DiskErrorKind::NotFound)));
    bench.put(2, "/a", None);
    bench.hashed("abc", 1);
    bench.answer(Err(error(DiskErrorKind::NoSpace)));
    let failures = bench.failures();
    let reasons: Vec<_> = failures.iter().map(|(command, reason, _)| (*command, *reason)).collect();
    assert_eq!(reasons, [(1, FailureReason::Failed), (2, FailureReason::NoSpace)]);
    assert_eq!(bench.events(), Vec::new());
    assert_eq!(bench.machines.store.stats().claims, 0);
}

// Ending.

#[test]
fn rm_is_answered_when_the_claims_of_every_path_have_ended() {
    let mut bench = Bench::new();
    let hash = bench.share("/a", "abc", 1);
    bench.share("/b", "abc", 2);
    bench.remove(9, hash);
    for (expected, events) in [(false, Vec::new()), (true, vec![(false, hash)])] {
        match bench.answer(Ok(DiskReply::Done)) {
            DiskOp::RemoveShare { last, .. } => assert_eq!(last, expected),
            other => panic!("{other:?}"),
        }
        assert_eq!(bench.events(), events);
    }
    bench.remove(10, hash);
    assert_eq!(bench.failures()[0].1, FailureReason::NotFound);
}

// Looking again.

#[test]
fn a_file_that_is_gone_is_looked_for_ever_more_rarely_and_served_when_it_is_back() {
    let mut bench = Bench::new();
    let hash = bench.share("/a", "abc", 1);
    bench.look_fails("/a", DiskErrorKind::NotFound);
    assert_eq!(bench.state(&hash, "/a"), Some(ShareState::Absent));
    assert_eq!(bench.events(), vec![(false, hash)]);
    let mut pauses = Vec::new();
    for _ in 0..9 {
        pauses.push(bench.next().as_secs());
        bench.answer(Err(error(DiskErrorKind::NotFound)));
    }
    assert_eq!(pauses, [10, 10, 20, 40, 80, 160, 320, 640, 900]);
    assert_eq!(bench.watch.lost, 1, "it was lost once");
    bench.next();
    bench.answer(Ok(DiskReply::Bytes(Vec::new())));
    assert_eq!(bench.state(&hash, "/a"), Some(ShareState::Present));
    assert_eq!(bench.events(), vec![(true, hash)]);
    while bench.watch.next_deadline().is_some() {
        bench.next();
        assert_eq!(bench.asked(), [], "nothing is left to be looked for");
    }
}

#[test]
fn another_path_with_the_content_serves_on_when_one_is_gone() {
    let mut bench = Bench::new();
    let hash = bench.share("/a", "abc", 1);
    bench.share("/b", "abc", 2);
    bench.look_fails("/a", DiskErrorKind::NotFound);
    assert_eq!(bench.state(&hash, "/a"), Some(ShareState::Absent));
    assert_eq!(bench.events(), Vec::new());
}

#[test]
fn a_file_that_looks_different_is_hashed_and_served_again_or_changed() {
    for (text, state) in [("abc", ShareState::Present), ("xyz", ShareState::Changed)] {
        let mut bench = Bench::new();
        let hash = bench.share("/a", "abc", 1);
        bench.look_fails("/a", DiskErrorKind::Changed);
        assert_eq!(bench.state(&hash, "/a"), Some(ShareState::Doubtful));
        assert_eq!(bench.events(), vec![(false, hash)]);
        assert!(matches!(bench.hashed(text, 2), DiskOp::Hash { background: true, .. }));
        assert_eq!(bench.state(&hash, "/a"), Some(state));
        let served = state == ShareState::Present;
        assert_eq!(bench.events(), if served { vec![(true, hash)] } else { Vec::new() });
        assert_eq!(bench.watch.changed, u64::from(!served));
        match &bench.asked()[..] {
            [(_, DiskOp::SaveShare { share, .. })] => {
                assert_eq!(share.state, state);
                assert_eq!(share.stamp, stamp(2));
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_check_of_a_claim_that_ended_meanwhile_changes_nothing() {
    let mut bench = Bench::new();
    let hash = bench.share("/a", "abc", 1);
    bench.look_fails("/a", DiskErrorKind::Changed);
    let (look, _) = bench.asked().remove(0);
    bench.remove(9, hash);
    bench.answer(Ok(DiskReply::Done));
    bench.events();
    bench
        .hand_in(look, Ok(DiskReply::Hashed { manifest: content("abc"), stamp: stamp(2), kept_open: false }));
    assert_eq!(bench.asked(), Vec::new());
    assert_eq!(bench.events(), Vec::new());
    assert_eq!(bench.state(&hash, "/a"), None);
}

#[test]
fn a_distrusted_file_keeps_a_stamp_that_nothing_has_until_it_is_hashed() {
    let mut bench = Bench::new();
    let hash = bench.share("/a", "abc", 1);
    bench.watch.distrust(bench.now, &hash, &mut bench.machines);
    let asked = bench.asked();
    let saved = asked
        .iter()
        .any(|(_, op)| matches!(op, DiskOp::SaveShare { share, .. } if share.stamp == FileStamp::default()));
    let hashed = asked.iter().any(|(_, op)| matches!(op, DiskOp::Hash { background: true, .. }));
    assert!(saved && hashed, "{asked:?}");
    assert_eq!(bench.state(&hash, "/a"), Some(ShareState::Doubtful));
    assert_eq!(bench.events(), vec![(false, hash)]);
}

#[test]
fn peers_that_ask_for_a_missing_file_have_it_looked_for_once_a_second() {
    let mut bench = Bench::new();
    let hash = bench.share("/a", "abc", 1);
    bench.look_fails("/a", DiskErrorKind::NotFound);
    let mut looks = 0;
    for tenth in 0..30 {
        bench.now = START + Duration::from_millis(tenth * 100);
        bench.watch.asked_for(bench.now, &hash, &mut bench.machines);
        for (id, _) in bench.asked() {
            looks += 1;
            bench.hand_in(id, Err(error(DiskErrorKind::NotFound)));
        }
    }
    assert_eq!(looks, 3);
}

#[test]
fn a_medium_with_many_files_that_is_gone_is_looked_at_a_part_a_second() {
    const FILES: usize = 1000;
    let mut bench = Bench::new();
    for number in 0..FILES {
        bench.share(&format!("/{number}"), &format!("content {number}"), 1);
    }
    for number in 0..FILES {
        bench.look_fails(&format!("/{number}"), DiskErrorKind::NotFound);
    }
    bench.events();
    bench.asked();
    let (mut looks, mut bursts) = (0, Vec::new());
    while looks < FILES {
        bench.next();
        let before = looks;
        while let Some((id, _)) = bench.asked().pop() {
            looks += 1;
            bench.hand_in(id, Err(error(DiskErrorKind::NotFound)));
        }
        bursts.push((bench.now.since(START).as_secs(), looks - before));
        assert!(bursts.len() < 10, "{bursts:?}");
    }
    assert_eq!(bursts, [(10, 256), (11, 256), (12, 256), (13, 232)]);
}

// Fetching.

#[test]
fn a_fetched_file_is_shared_from_where_it_is_unless_no_room_is_left() {
    let mut bench = Bench::with(&Limits { shares_max: 1, ..Limits::default() });
    let manifest = content("abc");
    let op = fetched(&manifest, at("/a"), stamp(1), &mut bench.machines);
    assert!(matches!(op, Some(DiskOp::SaveShare { share, .. }) if !share.synced));
    assert_eq!(bench.events(), [(true, manifest.hash())]);
    assert_eq!(fetched(&manifest, at("/a"), stamp(1), &mut bench.machines), None, "it is known");
    assert_eq!(fetched(&content("xyz"), at("/b"), stamp(1), &mut bench.machines), None, "the table is full");
}

#[test]
fn files_that_are_missing_from_the_cache_are_forgotten() {
    let mut bench = Bench::new();
    let manifest = content("abc");
    let hash = manifest.hash();
    fetched(&manifest, Place::Cache(hash), stamp(1), &mut bench.machines);
    bench.events();
    bench.watch.look_failed(
        bench.now,
        &Place::Cache(hash),
        &error(DiskErrorKind::NotFound),
        &mut bench.machines,
    );
    assert_eq!(bench.events(), vec![(false, hash)]);
    assert_eq!(bench.machines.store.stats().claims, 0);
    assert!(matches!(&bench.asked()[..], [(_, DiskOp::RemoveShare { last: true, .. })]));
}

#[test]
fn a_file_whose_share_ends_while_it_is_put_again_is_hashed() {
    let mut bench = Bench::new();
    let hash = bench.share("/a", "abc", 1);
    bench.put(2, "/a", None);
    let (look, _) = bench.asked().remove(0);
    bench.remove(3, hash);
    bench.answer(Ok(DiskReply::Done));
    bench.hand_in(look, Ok(DiskReply::Bytes(Vec::new())));
    assert!(matches!(bench.hashed("abc", 1), DiskOp::Hash { .. }));
    bench.answer(Ok(DiskReply::Done));
    assert_eq!(bench.state(&hash, "/a"), Some(ShareState::Present));
}
