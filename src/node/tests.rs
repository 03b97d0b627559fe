//! Tests of the composition: what a command, a datagram or the passing of time comes to in the whole node.

use super::*;
use command::{Failure, FailureReason, Response};

const START: Instant = Instant::from_secs(1000);

/// A node that no other answers, and the time.
struct Bench {
    now: Instant,
    node: Node,
}

impl Bench {
    /// A node without bootstrap addresses: it does not wait for others.
    fn alone() -> Bench {
        Bench::new(&[])
    }

    /// A node that tries to join through these addresses.
    fn new(bootstrap: &[SocketAddr]) -> Bench {
        let config = NodeConfig {
            limits: Limits::default(),
            leaf: false,
            network: "test".to_owned(),
            listen: ([127, 0, 0, 1], 1).into(),
            bootstrap: bootstrap.to_vec(),
            replicas: 3,
            lifetime: 3600,
            cache_dir: "/cache".into(),
            gossip: GossipConfig::default(),
            replication: ReplicationConfig::default(),
        };
        let identity = Identity::from_secret(&[1; 32]);
        let mut node = Node::new(config, identity, &Recovered::default(), [1; 32], START).unwrap();
        node.handle_timeout(START);
        Bench { now: START, node }
    }

    fn command(&mut self, id: u64, command: Command) {
        self.node.handle_command(self.now, CommandId(id), command);
    }

    /// Jumps from deadline to deadline, this many times.
    fn jump(&mut self, times: usize) {
        for _ in 0..times {
            let due = self.node.next_deadline().map_or(self.now, |due| due.max(self.now));
            self.now = due + Duration::from_millis(1);
            self.node.handle_timeout(self.now);
        }
    }

    fn outputs(&mut self) -> Vec<Output> {
        core::iter::from_fn(|| self.node.poll_output()).collect()
    }

    /// The commands that failed, and why.
    fn failed(&mut self) -> Vec<(u64, Failure)> {
        let failed = self.outputs().into_iter().filter_map(|output| match output {
            Output::Respond { command, response: Response::Failed(failure) } => Some((command.0, failure)),
            _ => None,
        });
        failed.collect()
    }
}

fn set(name: &str) -> Command {
    Command::Set { name: name.to_owned(), value: vec![1], lifetime: None }
}

fn unset(name: &str) -> Command {
    Command::Unset { name: name.to_owned() }
}

#[test]
fn a_name_that_is_unset_before_the_node_has_joined_is_not_published() {
    let mut bench = Bench::new(&[([127, 0, 0, 1], 2).into()]);
    assert!(bench.node.machines.dht.is_joining());
    bench.command(1, set("gone"));
    bench.command(2, set("kept"));
    bench.command(3, unset("gone"));
    let message = "gone was unset before it was published".to_owned();
    assert_eq!(bench.failed(), [(1, Failure { reason: FailureReason::Failed, message })]);
    bench.jump(100);
    let names: Vec<String> = values::own(&bench.node.machines).into_iter().map(|value| value.name).collect();
    assert_eq!(names, ["kept"]);
}

#[test]
fn a_command_that_needs_the_network_waits_while_the_node_joins_and_others_do_not() {
    let mut bench = Bench::new(&[([127, 0, 0, 1], 2).into()]);
    bench.command(
        1,
        Command::Get { hash: Key([9; 32]), target: None, force: false, mode: None, timeout: None },
    );
    bench.command(2, Command::Id);
    let ended = |outputs: &[Output], id| {
        outputs.iter().any(|output| matches!(output, Output::Respond { command, .. } if command.0 == id))
    };
    let outputs = bench.outputs();
    assert!(!ended(&outputs, 1));
    assert!(ended(&outputs, 2));
    // No bootstrap address answers, so the download begins without a node to ask.
    bench.jump(100);
    assert!(!bench.node.machines.dht.is_joining());
    assert!(ended(&bench.outputs(), 1));
}

#[test]
fn a_command_that_is_cancelled_while_the_node_joins_does_not_begin() {
    let mut bench = Bench::new(&[([127, 0, 0, 1], 2).into()]);
    bench.command(1, set("gone"));
    bench.node.handle_cancel(bench.now, CommandId(1));
    bench.jump(100);
    assert!(values::own(&bench.node.machines).is_empty());
    assert!(bench.failed().is_empty());
}

#[test]
fn a_node_without_pieces_leaves_at_once_and_saves_what_the_next_run_needs() {
    let mut bench = Bench::alone();
    bench.command(1, Command::Leave { timeout: None });
    let outputs = bench.outputs();
    assert!(matches!(outputs.last(), Some(Output::Stop)), "{outputs:?}");
    let answered = |output: &Output| {
        matches!(
            output,
            Output::Respond { command: CommandId(1), response: Response::Done(Reply::Leave { .. }) }
        )
    };
    assert!(outputs.iter().any(answered));
}

#[test]
fn a_damaged_datagram_is_counted_by_its_reason_and_not_answered() {
    let mut bench = Bench::alone();
    bench.node.handle_datagram(bench.now, ([127, 0, 0, 1], 9).into(), &[1, 2, 3]);
    let status = bench.node.status(bench.now);
    assert_eq!(status.counters["datagrams_refused_length"], 1);
    assert_eq!(status.counters["datagrams_in"], 1);
    assert!(bench.node.poll_datagram().is_none());
}

#[test]
fn the_disk_operation_of_no_operation_is_ignored() {
    let mut bench = Bench::alone();
    bench.outputs();
    bench
        .node
        .handle_disk(bench.now, DiskDone { id: crate::io::DiskId(u64::MAX), result: Ok(DiskReply::Done) });
    assert!(bench.outputs().is_empty());
}
