use super::*;
use crate::id::{Key, PublicKey};
use crate::io::{Mode, PieceMeta, Place, Recovered};
use crate::manifest::{CHUNK_BYTES_MIN, Manifest, ManifestBuilder};
use crate::node::command::{CommandId, Explanation, FailureReason, Reply, Response};
use crate::node::ops::seek::Seekers;
use crate::node::{Output, Purpose};
use crate::store::Store;
use crate::time::Duration;
use crate::transfer::{DownloadId, Root};
use crate::wire::contact::Contact;
use crate::wire::inspect::Held;
use std::path::Path;
use std::sync::Arc;

const START: Instant = Instant::from_secs(1000);

/// The audits of a node that knows no other, and the time.
struct Bench {
    now: Instant,
    machines: Machines,
    seekers: Seekers,
}

impl Bench {
    fn new() -> Bench {
        let limits = Limits { explains_max: 2, ..Limits::default() };
        let seekers = Seekers::new(&limits, ([127, 0, 0, 1], 1).into());
        Bench { now: START, machines: Machines::alone(START), seekers }
    }

    fn explain(&mut self, command: u64, hash: Key) {
        let order = Order { id: CommandId(command), hash, timeout: None };
        self.seekers.audits.start(self.now, order, &mut self.machines);
        self.seekers.review(self.now, &mut self.machines);
    }

    fn cancel(&mut self, command: u64) {
        self.seekers.cancel(self.now, CommandId(command), &mut self.machines);
    }

    fn id(&self) -> DownloadId {
        *self.seekers.audits.ids(|_| true).first().expect("an audit is under way")
    }

    /// The root arrives from the network.
    fn root(&mut self, manifest: &Arc<Manifest>) {
        let root = Root::Manifest(Arc::clone(manifest), manifest.encode());
        let now = self.now;
        self.seekers.hand(now, self.id(), &mut self.machines, |audit, machines| {
            audit.handle_root(now, root, Mode::UNKNOWN, machines);
        });
        self.seekers.review(self.now, &mut self.machines);
    }

    fn providers(&mut self, numbers: &[u8]) {
        let found: Vec<(Contact, bool)> = numbers.iter().map(|number| (contact(*number), false)).collect();
        let lookups: Vec<_> = self.machines.lookups.keys().copied().collect();
        let own = self.machines.outbox.identity().id();
        for lookup in lookups {
            self.seekers.handle_providers(self.now, lookup, own, &found, &mut self.machines);
        }
    }

    /// All lookups end with these nodes closest.
    fn lookups_end(&mut self, numbers: &[u8]) {
        let closest: Vec<Contact> = numbers.iter().map(|number| contact(*number)).collect();
        let (now, asked) = (self.now, closest.len() as u32);
        while let Some((_, purpose)) = self.machines.lookups.pop_first() {
            let machines = &mut self.machines;
            match purpose {
                Purpose::Providers(id) => {
                    self.seekers.hand(now, id, machines, |audit, machines| {
                        audit.handle_providers_looked_up(now, &closest, asked, machines);
                    });
                }
                Purpose::Holders(id, key) => {
                    self.seekers.hand(now, id, machines, |audit, machines| {
                        audit.handle_holders_looked_up(now, key, &closest, asked, machines);
                    });
                }
                _ => panic!("no audit looks this up"),
            }
            self.seekers.review(now, &mut self.machines);
        }
    }

    /// The outstanding questions of all audits: which node is asked about how many pieces.
    fn questions(&self) -> Vec<(InspectId, Contact, usize)> {
        self.seekers.audits.iter().flat_map(Audit::outstanding).collect()
    }

    /// Every question to a node is answered in the same way, until there is none.
    fn answers(&mut self, number: u8, answer: Result<InspectEntry, InspectError>) {
        while let Some((id, _, pieces)) =
            self.questions().into_iter().find(|(_, asked, _)| *asked == contact(number))
        {
            let result = answer.map(|entry| vec![entry; pieces]);
            self.seekers.audits.handle_answer(self.now, id, result, &mut self.machines);
            self.seekers.review(self.now, &mut self.machines);
        }
    }

    /// Jumps from deadline to deadline until `seconds` after the start.
    fn pass(&mut self, seconds: u64) {
        let until = START + Duration::from_secs(seconds);
        for _ in 0..1000 {
            let Some(at) = self.seekers.next_deadline().filter(|at| *at <= until) else {
                return self.now = until;
            };
            self.now = self.now.max(at);
            self.seekers.handle_timeout(self.now, &mut self.machines);
            self.seekers.review(self.now, &mut self.machines);
        }
        panic!("a deadline that has passed is still armed");
    }

    /// The result of each command.
    fn ended(&mut self) -> Vec<(u64, Result<Explanation, FailureReason>)> {
        let ended = self.machines.outputs.drain(..).filter_map(|output| match output {
            Output::Respond { command, response: Response::Done(Reply::Explain(told)) } => {
                Some((command.0, Ok(*told)))
            }
            Output::Respond { command, response: Response::Failed(failure) } => {
                Some((command.0, Err(failure.reason)))
            }
            _ => None,
        });
        ended.collect()
    }

    fn told(&mut self) -> Explanation {
        let mut ended = self.ended();
        assert_eq!(ended.len(), 1, "{ended:?}");
        ended.remove(0).1.expect("a report")
    }
}

fn contact(number: u8) -> Contact {
    Contact::new(PublicKey([number; 32]), ([127, 0, 0, number], 1).into())
}

fn holds() -> InspectEntry {
    InspectEntry { held: Held::Stored, replicas: 3, ..InspectEntry::default() }
}

/// A file of two chunks: with the manifest it has three pieces.
fn manifest() -> Arc<Manifest> {
    let bytes = vec![7; 2 * CHUNK_BYTES_MIN as usize];
    let mut builder = ManifestBuilder::new(bytes.len() as u64).unwrap();
    builder.update(&bytes);
    Arc::new(builder.finish().unwrap())
}

/// An audit whose root has arrived, and which has asked nodes 1, 2 and 3.
fn asking() -> Bench {
    let (mut bench, manifest) = (Bench::new(), manifest());
    bench.explain(1, manifest.hash());
    bench.lookups_end(&[1, 2, 3]);
    bench.root(&manifest);
    bench.lookups_end(&[1, 2, 3]);
    assert!(bench.ended().is_empty());
    bench
}

#[test]
fn an_audit_ends_with_the_last_answer() {
    let mut bench = asking();
    bench.answers(1, Ok(holds()));
    bench.answers(2, Ok(holds()));
    assert!(bench.ended().is_empty());
    bench.answers(3, Ok(InspectEntry::default()));
    let told = bench.told();
    assert!(told.complete);
    assert_eq!(told.pieces, 3);
    assert_eq!(told.copies_min, 2);
    assert_eq!(told.replicas, 3);
    assert_eq!(told.nodes_asked, 3);
    assert_eq!(told.nodes_answered, 3);
    assert_eq!(bench.seekers.next_deadline(), None);
}

#[test]
fn a_silent_node_is_reported_at_the_deadline() {
    let mut bench = asking();
    bench.answers(1, Ok(holds()));
    bench.answers(2, Ok(holds()));
    bench.pass(29);
    assert!(bench.ended().is_empty());
    bench.pass(30);
    let told = bench.told();
    assert!(!told.complete);
    assert_eq!(told.nodes_answered, 2);
    let silent = told.nodes.iter().find(|node| node.id == contact(3).id).expect("the silent node is listed");
    assert!(!silent.answered);
    assert!(!silent.unreachable);
}

#[test]
fn an_unreachable_node_is_not_waited_for() {
    let mut bench = asking();
    bench.answers(1, Ok(holds()));
    bench.answers(2, Err(InspectError::Unreachable));
    bench.answers(3, Err(InspectError::Lost));
    let told = bench.told();
    assert!(told.complete, "each node had its chance");
    assert_eq!(told.nodes_answered, 1);
    assert_eq!(told.nodes.iter().filter(|node| node.unreachable).count(), 1);
}

#[test]
fn a_cancelled_audit_leaves_neither_lookups_nor_questions() {
    let (mut bench, manifest) = (Bench::new(), manifest());
    bench.explain(1, manifest.hash());
    bench.cancel(1);
    assert!(bench.machines.lookups.is_empty());
    assert_eq!(bench.machines.transfer.download_state(DownloadId(1)), None);

    let mut bench = asking();
    let (question, ..) = bench.questions()[0];
    bench.cancel(1);
    assert_eq!(bench.seekers.audits.len(), 0);
    bench.seekers.audits.handle_answer(bench.now, question, Ok(vec![holds()]), &mut bench.machines);
    bench.pass(60);
    assert!(bench.ended().is_empty());
}

#[test]
fn without_another_node_an_audit_fails_at_once() {
    let mut bench = Bench::new();
    bench.explain(1, Key([9; 32]));
    bench.lookups_end(&[]);
    assert_eq!(bench.ended(), [(1, Err(FailureReason::Unreachable))]);
}

#[test]
fn an_audit_fails_at_the_deadline_when_no_node_gives_the_root() {
    let mut bench = Bench::new();
    bench.explain(1, Key([9; 32]));
    bench.lookups_end(&[1, 2]);
    bench.pass(29);
    assert!(bench.ended().is_empty());
    bench.pass(30);
    assert_eq!(bench.ended(), [(1, Err(FailureReason::Unreachable))]);
}

#[test]
fn an_audit_fails_at_the_deadline_when_the_lookup_does_not_end() {
    let mut bench = Bench::new();
    bench.explain(1, Key([9; 32]));
    bench.pass(29);
    assert!(bench.ended().is_empty());
    bench.pass(30);
    assert_eq!(bench.ended(), [(1, Err(FailureReason::Unreachable))]);
    assert!(bench.machines.lookups.is_empty());
}

#[test]
fn too_many_audits_are_refused() {
    let mut bench = Bench::new();
    (1..=3).for_each(|command| bench.explain(command, Key([9; 32])));
    assert_eq!(bench.ended(), [(3, Err(FailureReason::Busy))]);
    bench.cancel(1);
    bench.explain(4, Key([9; 32]));
    assert!(bench.ended().is_empty());
}

#[test]
fn providers_are_asked_about_every_piece_whenever_they_are_found() {
    let (mut bench, manifest) = (Bench::new(), manifest());
    bench.explain(1, manifest.hash());
    bench.providers(&[1]);
    bench.root(&manifest);
    bench.providers(&[2]);
    let asked: Vec<(Contact, usize)> =
        bench.questions().into_iter().map(|(_, node, pieces)| (node, pieces)).collect();
    assert_eq!(asked, [(contact(1), 3), (contact(2), 3)]);
}

#[test]
fn a_one_chunk_file_that_is_stored_here_is_audited_without_reading_it() {
    let mut bench = Bench::new();
    let hash = Key(*blake3::hash(b"one").as_bytes());
    let piece = PieceMeta::file(hash, 3);
    let recovered = Recovered { pieces: vec![piece], ..Recovered::default() };
    bench.machines.store = Store::new(&Limits::default(), &recovered, 1, START);
    bench.explain(1, hash);
    bench.lookups_end(&[]);
    assert!(!bench.machines.outputs.iter().any(|output| matches!(output, Output::Disk { .. })));
    let told = bench.told();
    assert_eq!(told.length, 3);
    assert_eq!(told.copies_min, 1);
    assert!(told.nodes[0].own);
}

#[test]
fn the_manifest_of_a_file_that_is_being_downloaded_is_known() {
    let (mut bench, manifest) = (Bench::new(), manifest());
    let place = Place::File(Path::new("/u/file").into());
    bench.machines.store.begin_partial(manifest.hash(), Arc::clone(&manifest), place).unwrap();
    bench.explain(1, manifest.hash());
    bench.lookups_end(&[]);
    let told = bench.told();
    assert_eq!(told.pieces, 3);
    assert_eq!(told.nodes[0].cached, 1, "the manifest may go with the download");
    assert_eq!(told.missing, 3);
}
