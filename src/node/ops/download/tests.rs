use super::*;
use crate::io::DiskId;
use crate::manifest::ManifestBuilder;
use crate::node::Output;
use crate::node::command::Response;
use crate::time::Duration;
use crate::transfer::Root;

const START: Instant = Instant::from_secs(1000);

/// A table of downloads on machines that know no other node, and the time.
struct Bench {
    now: Instant,
    machines: Machines,
    downloads: Downloads,
}

impl Bench {
    fn new(max: usize) -> Self {
        Bench {
            now: START,
            machines: Machines::alone(START),
            downloads: Downloads::new(&crate::limits::Limits { downloads_max: max, ..Default::default() }),
        }
    }

    fn get(&mut self, command: u64, hash: Key, target: Option<&str>) {
        self.get_with_mode(command, hash, target, None);
    }

    fn get_with_mode(&mut self, command: u64, hash: Key, target: Option<&str>, mode: Option<u32>) {
        let target = target.map(PathBuf::from);
        let order =
            Order { id: CommandId(command), hash, target, force: false, mode, tree: None, timeout: None };
        self.downloads.start(self.now, order, &mut self.machines);
    }

    fn cancel(&mut self, command: u64) {
        self.downloads.cancel(self.now, CommandId(command), &mut self.machines);
    }

    fn ids(&self) -> Vec<DownloadId> {
        self.downloads.ids(|_| true)
    }

    fn root(&mut self, manifest: &Arc<Manifest>) {
        let root = Root::Manifest(Arc::clone(manifest), manifest.encode());
        let id = self.ids()[0];
        self.arrived(id, root, Mode::UNKNOWN);
    }

    fn arrived(&mut self, id: DownloadId, root: Root, mode: Mode) {
        let now = self.now;
        self.downloads.hand(now, id, &mut self.machines, |download, machines| {
            download.handle_root(now, root, mode, machines);
        });
    }

    fn chunk(&mut self, index: u32) {
        let (now, id) = (self.now, self.ids()[0]);
        self.downloads.hand(now, id, &mut self.machines, |download, machines| {
            download.handle_chunk(now, index, machines);
        });
    }

    /// The disk operations that were asked for and not answered.
    fn disk(&mut self) -> Vec<(DiskId, DiskOp)> {
        let outputs = core::mem::take(&mut self.machines.outputs);
        let (mut ops, mut others) = (Vec::new(), std::collections::VecDeque::new());
        for output in outputs {
            match output {
                Output::Disk { id, op } => ops.push((id, op)),
                other => others.push_back(other),
            }
        }
        self.machines.outputs = others;
        ops
    }

    /// Answers the only disk operation under way, and returns it.
    fn answer(&mut self, result: Result<DiskReply, DiskError>) -> DiskOp {
        let mut ops = self.disk();
        assert_eq!(ops.len(), 1, "{ops:?}");
        let (id, op) = ops.remove(0);
        match self.machines.disk_waiting.remove(&id) {
            Some(Waiting::Download(download, step)) => {
                let now = self.now;
                self.downloads.hand(now, download, &mut self.machines, |download, machines| {
                    download.handle_disk(now, step, result, machines);
                });
            }
            _ => panic!("{op:?} is no download's"),
        }
        op
    }

    /// The commands with a final answer, and whether they succeeded.
    fn answered(&mut self) -> Vec<(u64, Result<(), FailureReason>)> {
        let outputs = core::mem::take(&mut self.machines.outputs);
        let answers = outputs.into_iter().filter_map(|output| match output {
            Output::Respond { command, response: Response::Done(_) } => Some((command.0, Ok(()))),
            Output::Respond { command, response: Response::Failed(failure) } => {
                Some((command.0, Err(failure.reason)))
            }
            _ => None,
        });
        answers.collect()
    }

    /// The messages of the commands that failed.
    fn failures(&mut self) -> Vec<String> {
        let outputs = core::mem::take(&mut self.machines.outputs);
        let failures = outputs.into_iter().filter_map(|output| match output {
            Output::Respond { response: Response::Failed(failure), .. } => Some(failure.message),
            _ => None,
        });
        failures.collect()
    }

    /// Jumps to the next deadline, as often as the table has one, at most until `limit` after the start.
    fn wait(&mut self, limit: Duration) {
        while let Some(at) = self.downloads.next_deadline().filter(|at| *at <= START + limit) {
            self.now = self.now.max(at);
            self.downloads.handle_timeout(self.now, &mut self.machines);
        }
    }
}

fn manifest(chunks: usize) -> Arc<Manifest> {
    let bytes = vec![7; chunks * crate::manifest::CHUNK_BYTES_MIN as usize];
    let mut builder = ManifestBuilder::new(bytes.len() as u64).unwrap();
    builder.update(&bytes);
    Arc::new(builder.finish().unwrap())
}

fn opened(good: &[bool]) -> Result<DiskReply, DiskError> {
    Ok(DiskReply::Opened { path: "/u/a.part".into(), good: good.to_vec(), old: Vec::new() })
}

fn error(kind: DiskErrorKind) -> Result<DiskReply, DiskError> {
    Err(DiskError { kind, message: "the disk says so".to_owned() })
}

#[test]
fn a_file_that_no_node_answers_for_is_given_up_after_the_timeout() {
    let mut bench = Bench::new(8);
    bench.get(1, Key([1; 32]), Some("/u/a"));
    bench.wait(Duration::from_secs(59));
    assert_eq!(bench.answered(), []);
    bench.wait(Duration::from_secs(60));
    assert_eq!(bench.answered(), [(1, Err(FailureReason::Unreachable))]);
    assert_eq!(bench.downloads.len(), 0);
    assert_eq!(bench.downloads.next_deadline(), None);
}

#[test]
fn chunks_that_come_put_the_end_off() {
    let (mut bench, manifest) = (Bench::new(8), manifest(3));
    bench.get(1, manifest.hash(), Some("/u/a"));
    bench.root(&manifest);
    assert!(matches!(bench.answer(opened(&[])), DiskOp::OpenTarget { .. }));
    for index in 0..2 {
        bench.wait(Duration::from_secs(50 * (u64::from(index) + 1)));
        bench.now = START + Duration::from_secs(50 * (u64::from(index) + 1));
        bench.chunk(index);
    }
    bench.wait(Duration::from_secs(159));
    assert_eq!(bench.answered(), []);
    bench.wait(Duration::from_secs(160));
    assert_eq!(bench.answered(), [(1, Err(FailureReason::Unreachable))]);
}

#[test]
fn commands_for_the_same_target_share_a_download_and_another_target_waits_for_it() {
    let mut bench = Bench::new(8);
    let hash = Key([1; 32]);
    bench.get(1, hash, Some("/u/a"));
    bench.get(2, hash, Some("/u/a"));
    bench.get(3, hash, Some("/u/b"));
    bench.get(4, hash, Some("/u/c"));
    assert_eq!(bench.downloads.len(), 1);
    bench.cancel(4);
    bench.cancel(1);
    assert_eq!(bench.answered().len(), 0, "another command waits for it still");
    bench.cancel(2);
    assert_eq!(bench.downloads.len(), 1, "the one that waited has begun");
    bench.wait(Duration::from_secs(60));
    assert_eq!(bench.answered(), [(3, Err(FailureReason::Unreachable))]);
}

#[test]
fn two_files_are_not_fetched_into_one_path_nor_into_a_relative_one() {
    let mut bench = Bench::new(8);
    bench.get(1, Key([1; 32]), Some("/u/a"));
    bench.get(2, Key([2; 32]), Some("/u/a"));
    bench.get(3, Key([3; 32]), Some("a"));
    assert_eq!(bench.answered(), [(2, Err(FailureReason::Failed)), (3, Err(FailureReason::Usage))]);
}

#[test]
fn downloads_without_room_begin_in_order_when_there_is_some() {
    let mut bench = Bench::new(2);
    (1..=5).for_each(|command| bench.get(command, Key([command as u8; 32]), None));
    assert_eq!(bench.downloads.len(), 2);
    assert_eq!(bench.downloads.queued(), 3);
    bench.cancel(4);
    bench.cancel(1);
    let fetched: Vec<_> = bench.ids().into_iter().map(|id| bench.downloads.get(id).unwrap().hash).collect();
    assert_eq!(fetched, [Key([2; 32]), Key([3; 32])]);
    // A download's time begins when it does.
    bench.now = START + Duration::from_secs(50);
    bench.cancel(2);
    bench.wait(Duration::from_secs(60));
    assert_eq!(bench.answered(), [(3, Err(FailureReason::Unreachable))]);
    bench.wait(Duration::from_secs(110));
    assert_eq!(bench.answered(), [(5, Err(FailureReason::Unreachable))]);
}

/// A download of a file of three chunks that are all there already, up to the point at which it gets its name.
fn complete(bench: &mut Bench) -> Arc<Manifest> {
    let manifest = manifest(3);
    bench.get(1, manifest.hash(), Some("/u/a"));
    bench.root(&manifest);
    assert!(matches!(bench.answer(opened(&[true; 3])), DiskOp::OpenTarget { .. }));
    manifest
}

#[test]
fn chunks_that_another_program_changed_are_fetched_again_a_few_times_at_most() {
    let mut bench = Bench::new(8);
    complete(&mut bench);
    let id = bench.ids()[0];
    for round in 0..=SPOILED_MAX {
        assert_eq!(bench.downloads.len(), 1, "round {round}");
        let finish = bench.answer(Ok(DiskReply::Spoiled { good: vec![true, false, true] }));
        assert!(matches!(finish, DiskOp::FinishTarget { .. }));
        if round < SPOILED_MAX {
            assert_eq!(bench.machines.transfer.download_missing(id, 9).len(), 1);
            bench.chunk(1);
            bench.downloads.hand(bench.now, id, &mut bench.machines, |download, machines| {
                download.handle_complete(1, machines);
            });
        }
    }
    assert!(matches!(bench.disk()[..], [(_, DiskOp::CloseTarget { delete: false, .. })]));
    let failures = bench.failures();
    assert!(failures[0].contains("keeps writing into /u/a.part"), "{failures:?}");
}

#[test]
fn a_target_that_has_the_content_already_is_the_answer() {
    let (mut bench, manifest) = (Bench::new(8), manifest(3));
    bench.get(1, manifest.hash(), Some("/u/a"));
    bench.root(&manifest);
    let stamp = FileStamp::default();
    bench.answer(Ok(DiskReply::Finished { stamp, path: "/u/a".into() }));
    assert!(matches!(bench.answer(Ok(DiskReply::Done)), DiskOp::SaveShare { .. }));
    assert_eq!(bench.answered(), [(1, Ok(()))]);
}

#[test]
fn a_target_that_is_lost_is_not_said_to_be_kept() {
    for (kind, kept) in [(DiskErrorKind::Lost, false), (DiskErrorKind::Exists, true)] {
        let mut bench = Bench::new(8);
        complete(&mut bench);
        bench.answer(error(kind));
        let failures = bench.failures();
        assert_eq!(failures[0].contains("are kept in /u/a.part"), kept, "{failures:?}");
    }
}

#[test]
fn a_download_that_fails_while_its_target_is_opened_closes_it() {
    let (mut bench, manifest) = (Bench::new(8), manifest(3));
    bench.get(1, manifest.hash(), Some("/u/a"));
    bench.root(&manifest);
    bench.cancel(1);
    let ops: Vec<DiskOp> = bench.disk().into_iter().map(|(_, op)| op).collect();
    assert!(
        matches!(ops[..], [DiskOp::OpenTarget { .. }, DiskOp::CloseTarget { delete: true, .. }]),
        "{ops:?}"
    );
}

#[test]
fn a_file_gets_the_mode_of_its_command_or_else_of_its_source() {
    for (asked, expected) in
        [(Some(0o640), Permissions::Exact(Mode::of(0o640))), (None, Permissions::Usual(Mode::of(0o755)))]
    {
        let (mut bench, manifest) = (Bench::new(8), manifest(3));
        bench.get_with_mode(1, manifest.hash(), Some("/u/a"), asked);
        let root = Root::Manifest(Arc::clone(&manifest), manifest.encode());
        let id = bench.ids()[0];
        bench.arrived(id, root, Mode::of(0o755));
        match &bench.disk()[..] {
            [(_, DiskOp::OpenTarget { permissions, .. })] => assert_eq!(*permissions, expected),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_mode_with_other_bits_than_permissions_is_refused() {
    let mut bench = Bench::new(8);
    bench.get_with_mode(1, Key([1; 32]), Some("/u/a"), Some(0o4755));
    assert_eq!(bench.answered(), [(1, Err(FailureReason::Usage))]);
    // An order with another mode waits for the first download to end.
    bench.get_with_mode(2, Key([1; 32]), Some("/u/a"), Some(0o600));
    bench.get_with_mode(3, Key([1; 32]), Some("/u/a"), Some(0o644));
    bench.cancel(2);
    assert_eq!(bench.downloads.len(), 1, "the third has begun");
    assert_eq!(bench.answered(), []);
}

#[test]
fn a_file_of_a_set_goes_below_its_root_and_nowhere_else() {
    let order = |command, target: &str| {
        let tree = Some(crate::io::Tree { root: std::path::Path::new("/u/set").into(), modified: Some(3) });
        let (id, target) = (CommandId(command), Some(PathBuf::from(target)));
        Order { id, hash: Key([1; 32]), target, force: true, mode: Some(0o600), tree, timeout: None }
    };
    let mut bench = Bench::new(8);
    for target in ["/u/set", "/u/settle", "/u/set/../x", "/u/set/a/../x", "/etc/passwd", "/u/set/a/../../x"] {
        bench.downloads.start(bench.now, order(1, target), &mut bench.machines);
        assert_eq!(bench.answered(), [(1, Err(FailureReason::Usage))], "{target}");
    }
    bench.downloads.start(bench.now, order(2, "/u/set/a/x"), &mut bench.machines);
    assert_eq!((bench.downloads.len(), bench.answered()), (1, vec![]));
}
