use super::*;
use crate::io::{DiskErrorKind, DiskId, Extent, Space};
use crate::limits::Limits;
use crate::manifest::{CHUNK_BYTES_MIN, ManifestBuilder};
use crate::node::command::{Content, Response};
use crate::time::Duration;
use crate::transfer::Root;

const START: Instant = Instant::from_secs(1000);
const CHUNK: u64 = CHUNK_BYTES_MIN;

/// A table of reads on machines that know no other node, and the time.
struct Bench {
    now: Instant,
    machines: Machines,
    reads: Reads,
}

/// The outputs of the table: results for clients, and operations for the disk.
type Out = (Vec<(u64, Got)>, Vec<(DiskId, DiskOp)>);

/// A result that a client of the bench received.
#[derive(Debug, PartialEq)]
enum Got {
    Content(u64, u32),
    Done(u64),
    Failed(FailureReason),
    Queued(u64),
}

impl Bench {
    fn new(reads_max: usize) -> Self {
        let limits = Limits { reads_max, read_window_bytes: 3 * CHUNK, ..Limits::default() };
        Bench { now: START, machines: Machines::alone(START), reads: Reads::new(&limits) }
    }

    fn read(&mut self, command: u64, hash: Key, part: Option<Part>) {
        let order = Order { id: CommandId(command), hash, part, timeout: None };
        self.reads.start(self.now, order, &mut self.machines);
    }

    fn first(&self) -> DownloadId {
        *self.reads.ids(|_| true).first().expect("a read is under way")
    }

    fn root(&mut self, manifest: &Arc<Manifest>) {
        self.arrived(Root::Manifest(Arc::clone(manifest), manifest.encode()));
    }

    fn arrived(&mut self, root: Root) {
        let (now, id) = (self.now, self.first());
        self.reads.hand(now, id, &mut self.machines, |read, machines| {
            read.handle_root(now, root, Mode::UNKNOWN, machines);
        });
    }

    fn chunk(&mut self, index: u32) {
        let (now, id) = (self.now, self.first());
        self.reads.hand(now, id, &mut self.machines, |read, machines| {
            read.handle_chunk(now, index, machines);
        });
    }

    fn sent(&mut self, command: u64, bytes: u64) {
        self.reads.handle_sent(self.now, CommandId(command), bytes, &mut self.machines);
    }

    /// The outputs since the last call, to clients and to the disk.
    fn out(&mut self) -> Out {
        let (mut got, mut ops) = (Vec::new(), Vec::new());
        for output in self.machines.outputs.drain(..) {
            match output {
                Output::Disk { id, op } => ops.push((id, op)),
                Output::Content { command, content: Content { offset, length, .. }, extent } => {
                    assert!(matches!(extent.place, Place::Window { .. }));
                    got.push((command.0, Got::Content(offset, length)));
                }
                Output::Respond { command, response } => match response {
                    Response::Done(Reply::Read { bytes, .. }) => got.push((command.0, Got::Done(bytes))),
                    Response::Failed(failure) => got.push((command.0, Got::Failed(failure.reason))),
                    Response::Progress(Progress { stage: Stage::Queued, done, .. }) => {
                        got.push((command.0, Got::Queued(done)));
                    }
                    Response::Progress(_) => {}
                    other => panic!("{other:?}"),
                },
                _ => {}
            }
        }
        (got, ops)
    }

    fn got(&mut self) -> Vec<(u64, Got)> {
        self.out().0
    }

    /// Answers a disk operation.
    fn answer(&mut self, id: DiskId, result: Result<DiskReply, DiskError>) {
        match self.machines.disk_waiting.remove(&id) {
            Some(Waiting::Read(read, step)) => {
                let now = self.now;
                self.reads.hand(now, read, &mut self.machines, |read, machines| {
                    read.handle_disk(now, step, result, machines);
                });
            }
            Some(Waiting::Root(id)) => {
                let now = self.now;
                self.reads.hand(now, id, &mut self.machines, |read, machines| {
                    read.handle_root_read(now, result, machines);
                });
            }
            _ => panic!("it is no read's"),
        }
    }

    /// Jumps from deadline to deadline, at most until `limit` after the start.
    fn wait(&mut self, limit: Duration) {
        while let Some(at) = self.reads.next_deadline().filter(|at| *at <= START + limit) {
            self.now = self.now.max(at);
            self.reads.handle_timeout(self.now, &mut self.machines);
        }
        self.now = START + limit;
    }
}

fn manifest(chunks: u64) -> Arc<Manifest> {
    let bytes: Vec<u8> = (0..chunks).flat_map(|chunk| vec![chunk as u8; CHUNK as usize]).collect();
    let mut builder = ManifestBuilder::new(bytes.len() as u64).unwrap();
    builder.update(&bytes);
    Arc::new(builder.finish().unwrap())
}

fn removed(ops: &[(DiskId, DiskOp)]) -> Vec<u32> {
    let chunk = |op: &DiskOp| match op {
        DiskOp::Remove(Place::Window { chunk, .. }) => Some(*chunk),
        _ => None,
    };
    ops.iter().filter_map(|(_, op)| chunk(op)).collect()
}

#[test]
fn chunks_that_have_reached_the_client_in_order_leave_the_disk() {
    let (mut bench, manifest) = (Bench::new(1), manifest(5));
    bench.read(1, manifest.hash(), None);
    bench.root(&manifest);
    bench.chunk(1);
    assert_eq!(bench.got(), []);
    bench.chunk(0);
    let length = CHUNK as u32;
    assert_eq!(bench.got(), [(1, Got::Content(0, length)), (1, Got::Content(CHUNK, length))]);
    bench.chunk(4);
    bench.sent(1, CHUNK + 7);
    let (got, ops) = bench.out();
    assert_eq!(got, vec![], "chunk 4 is beyond the window");
    assert_eq!(removed(&ops), vec![0], "chunk 4 is beyond the window");
    bench.sent(1, CHUNK - 7);
    assert_eq!(removed(&bench.out().1), [1]);
    for chunk in 2..5_u32 {
        bench.chunk(chunk);
        bench.sent(1, CHUNK);
        let (got, ops) = bench.out();
        assert_eq!(got[0], (1, Got::Content(u64::from(chunk) * CHUNK, length)));
        assert_eq!(got.get(1), (chunk == 4).then_some(&(1, Got::Done(5 * CHUNK))));
        assert_eq!(removed(&ops), vec![chunk]);
    }
    assert_eq!(bench.reads.len(), 0);
    assert_eq!(bench.reads.next_deadline(), None);
}

#[test]
fn a_client_that_does_not_read_has_all_the_time_and_a_network_that_does_not_give_has_not() {
    let (mut bench, manifest) = (Bench::new(1), manifest(5));
    bench.read(1, manifest.hash(), None);
    bench.root(&manifest);
    (0..3).for_each(|chunk| bench.chunk(chunk));
    bench.wait(Duration::from_secs(5000));
    assert!(bench.got().iter().all(|(_, got)| matches!(got, Got::Content(..))));
    bench.sent(1, 3 * CHUNK);
    bench.wait(Duration::from_secs(5059));
    assert_eq!(bench.got(), []);
    bench.wait(Duration::from_secs(5060));
    assert_eq!(bench.got(), [(1, Got::Failed(FailureReason::Unreachable))]);
}

#[test]
fn handed_out_bytes_leave_before_a_failure_is_reported() {
    let (mut bench, manifest) = (Bench::new(1), manifest(5));
    bench.read(1, manifest.hash(), None);
    bench.root(&manifest);
    bench.chunk(0);
    bench.chunk(2);
    bench.out();
    let error = DiskError { kind: DiskErrorKind::NoSpace, message: "full".to_owned() };
    let (now, id) = (bench.now, bench.first());
    bench.reads.hand(now, id, &mut bench.machines, |read, machines| {
        read.handle_failed(now, &error, machines);
    });
    let (got, ops) = bench.out();
    assert_eq!(got, vec![]);
    assert_eq!(removed(&ops), vec![1, 2]);
    bench.sent(1, CHUNK);
    let (got, ops) = bench.out();
    assert_eq!(got, vec![(1, Got::Failed(FailureReason::NoSpace))]);
    assert_eq!(removed(&ops), vec![0]);
    assert_eq!(bench.reads.len(), 0);
}

#[test]
fn a_client_that_goes_away_leaves_nothing_behind_and_the_next_has_its_turn() {
    let (mut bench, manifest) = (Bench::new(1), manifest(5));
    bench.read(1, manifest.hash(), None);
    bench.read(2, manifest.hash(), None);
    bench.read(3, manifest.hash(), None);
    assert_eq!(bench.got(), [(2, Got::Queued(0)), (3, Got::Queued(1))]);
    bench.root(&manifest);
    bench.chunk(0);
    bench.reads.cancel(bench.now, CommandId(2), &mut bench.machines);
    assert_eq!(bench.reads.len(), 1);
    assert_eq!(bench.reads.queued(), 1);
    bench.out();
    bench.reads.cancel(bench.now, CommandId(1), &mut bench.machines);
    assert_eq!(removed(&bench.out().1), [0, 1, 2]);
    assert_eq!(bench.reads.len(), 1);
    assert_eq!(bench.reads.queued(), 0);
    bench.root(&manifest);
    bench.chunk(0);
    assert_eq!(bench.got(), [(3, Got::Content(0, CHUNK as u32))]);
}

#[test]
fn a_part_of_no_bytes_is_done_at_once_and_one_past_the_end_is_refused() {
    let (mut bench, manifest) = (Bench::new(1), manifest(2));
    let between = |start, end| Some(Part::Between { start, end: Some(end) });
    bench.read(1, manifest.hash(), between(7, 7));
    bench.root(&manifest);
    assert_eq!(bench.got(), [(1, Got::Done(0))]);
    bench.read(2, manifest.hash(), between(2 * CHUNK, 2 * CHUNK + 1));
    bench.root(&manifest);
    assert_eq!(bench.got(), [(2, Got::Failed(FailureReason::Usage))]);
    bench.read(3, Key(*blake3::hash(&[]).as_bytes()), None);
    assert_eq!(bench.got(), [(3, Got::Done(0))], "a file of no bytes needs no network");
}

#[test]
fn a_file_of_one_chunk_comes_from_memory() {
    let mut bench = Bench::new(1);
    bench.read(1, Key(*blake3::hash(b"content").as_bytes()), Some(Part::Last(3)));
    bench.arrived(Root::File(b"content".to_vec()));
    let (got, mut ops) = bench.out();
    assert!(got.is_empty() && matches!(&ops[..], [(_, DiskOp::WriteTarget { .. })]), "{got:?} {ops:?}");
    bench.answer(ops.remove(0).0, Ok(DiskReply::Done));
    assert_eq!(bench.got(), [(1, Got::Content(4, 3))]);
    bench.sent(1, 3);
    assert_eq!(bench.got(), [(1, Got::Done(3))]);
}

#[test]
fn a_local_chunk_that_does_not_verify_comes_from_the_network() {
    let (mut bench, manifest) = (Bench::new(1), manifest(5));
    let place = Place::File(std::path::Path::new("/u/file").into());
    bench.machines.store.begin_partial(manifest.hash(), Arc::clone(&manifest), place).unwrap();
    [0, 1, 2, 4].into_iter().for_each(|chunk| bench.machines.store.chunk_done(&manifest.hash(), chunk));
    bench.read(1, manifest.hash(), None);
    if bench.reads.len() == 1 && matches!(bench.reads.get(bench.first()).unwrap().phase, Phase::Root) {
        bench.root(&manifest);
    }
    let copies = |ops: &[(DiskId, DiskOp)]| -> Vec<u32> {
        let chunk = |op: &DiskOp| match op {
            DiskOp::Copy { from: Extent { offset, .. }, .. } => Some((*offset / CHUNK) as u32),
            _ => None,
        };
        ops.iter().filter_map(|(_, op)| chunk(op)).collect()
    };
    let (_, ops) = bench.out();
    assert_eq!(copies(&ops), [0, 1], "two at a time");
    bench.answer(ops[0].0, Ok(DiskReply::Copied { key: manifest.keys()[0] }));
    bench.answer(ops[1].0, Ok(DiskReply::Copied { key: Key([9; 32]) }));
    let (got, ops) = bench.out();
    assert_eq!(got, vec![(1, Got::Content(0, CHUNK as u32))]);
    assert_eq!(copies(&ops), vec![2]);
    bench.answer(ops[0].0, Ok(DiskReply::Copied { key: manifest.keys()[2] }));
    bench.sent(1, CHUNK);
    bench.chunk(1);
    let length = CHUNK as u32;
    assert_eq!(bench.got(), [(1, Got::Content(CHUNK, length)), (1, Got::Content(2 * CHUNK, length))]);
    bench.sent(1, CHUNK);
    assert_eq!(copies(&bench.out().1), [4], "chunk 3 is the network's");
}

/// A disk of 1 GiB with this many bytes free beyond those that are left to the host.
fn room(bytes: u64) -> Space {
    Space { total_bytes: 1 << 30, free_bytes: (64 << 20) + bytes, ..Space::default() }
}

#[test]
fn a_window_is_counted_until_its_read_ends_in_whatever_way() {
    for end in ["done", "cancelled", "failed"] {
        let (mut bench, manifest) = (Bench::new(8), manifest(4));
        bench.machines.store.set_space(room(1 << 30));
        bench.read(1, manifest.hash(), None);
        bench.root(&manifest);
        assert_eq!(bench.machines.store.stats().window_bytes, 3 * CHUNK, "{end}");
        match end {
            "done" => (0..4).for_each(|index| {
                bench.chunk(index);
                bench.sent(1, CHUNK);
            }),
            "cancelled" => bench.reads.cancel(bench.now, CommandId(1), &mut bench.machines),
            _ => {
                // The chunk that was handed out stays in its file until its bytes have left.
                bench.chunk(0);
                bench.wait(Duration::from_secs(300));
                assert_eq!(bench.machines.store.stats().window_bytes, 3 * CHUNK);
                bench.sent(1, CHUNK);
                bench.wait(Duration::from_secs(900));
            }
        }
        assert_eq!(bench.reads.len(), 0, "{end}");
        assert_eq!(bench.machines.store.stats().window_bytes, 0, "{end}");
    }
}

#[test]
fn a_disk_with_little_left_gets_a_smaller_window_and_one_with_too_little_none() {
    let part = Some(Part::Between { start: 0, end: Some(1) });
    for (free, part, expected) in [
        (3 * CHUNK, None, Some(3 * CHUNK)),
        (3 * CHUNK - 1, None, None),
        (CHUNK, part, Some(CHUNK)),
        (CHUNK - 1, part, None),
    ] {
        let (mut bench, manifest) = (Bench::new(8), manifest(9));
        bench.machines.store.set_space(room(free));
        bench.read(1, manifest.hash(), part);
        bench.root(&manifest);
        match expected {
            Some(bytes) => assert_eq!(bench.machines.store.stats().window_bytes, bytes, "{free}"),
            None => assert_eq!(bench.got(), [(1, Got::Failed(FailureReason::NoSpace))], "{free}"),
        }
    }
    // An empty part needs no space.
    let (mut bench, manifest) = (Bench::new(8), manifest(9));
    bench.machines.store.set_space(room(0));
    bench.read(1, manifest.hash(), Some(Part::Between { start: 5, end: Some(5) }));
    bench.root(&manifest);
    assert_eq!(bench.got(), [(1, Got::Done(0))]);
}
