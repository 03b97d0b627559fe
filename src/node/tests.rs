//! Tests of the composition: the effect of a command, a datagram or the passing of time on the whole node.

use super::*;
use crate::io::{DiskErrorKind, PieceMeta, Place};
use crate::peers::testing::Air;
use crate::rng::Rng;
use crate::wire::contact::Contact;
use crate::wire::datagram::{DATAGRAM_BYTES_MAX, write_challenge};
use crate::wire::header::Auth;
use crate::wire::network::NetworkSecret;
use command::{Failure, FailureReason, MemberState, Peer, Reply, Response};

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
        Bench { now: START, node: node(1, bootstrap, &Recovered::default()) }
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

#[test]
fn a_node_whose_identity_shows_too_little_work_does_not_start_and_says_what_to_do() {
    let identity = || Identity::from_secret(&[1; 32]);
    let shown = IdWork::shown(&identity().public()) as u8;
    let start = |bits| {
        let id_work = IdWork::new(bits).unwrap();
        let config = NodeConfig { id_work, ..NodeConfig::of_a_test(([127, 0, 0, 1], 1).into(), &[]) };
        Node::new(config, identity(), &Recovered::default(), [1; 32], START)
    };
    assert!(start(shown).is_ok());
    let refused = start(shown + 9).err().expect("its own network would refuse it");
    let remedy = format!("elver id --new --id-work {}", shown + 9);
    assert!(refused.to_string().contains(&remedy), "{refused}");
}

/// A node at [`address`] `number`.
fn node(number: u8, bootstrap: &[SocketAddr], recovered: &Recovered) -> Node {
    start(number, bootstrap, recovered, [number; 32], START)
}

/// One run of that node.
fn start(number: u8, bootstrap: &[SocketAddr], recovered: &Recovered, seed: [u8; 32], now: Instant) -> Node {
    let config = NodeConfig::of_a_test(address(number), bootstrap);
    let identity = Identity::from_secret(&[number; 32]);
    let mut node = Node::new(config, identity, recovered, seed, now).unwrap();
    node.handle_timeout(now);
    node
}

fn address(number: u8) -> SocketAddr {
    ([127, 0, 0, number], 1).into()
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
fn a_node_without_pieces_leaves_at_once() {
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
fn a_damaged_datagram_is_only_counted_by_its_reason() {
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

#[test]
fn limits_that_contradict_each_other_change_nothing() {
    let mut bench = Bench::alone();
    let limit = |streams| Command::Limit {
        upload: Some(70_000),
        download: None,
        peer_upload: None,
        peer_download: None,
        streams: Some(streams),
        uploads: None,
    };
    bench.command(1, limit(1));
    assert_eq!(bench.failed()[0].1.reason, FailureReason::Usage);
    assert_eq!(bench.node.status(bench.now).rates.upload, Limits::default().rates.upload);
    bench.command(2, limit(50));
    assert_eq!(bench.failed(), []);
    let status = bench.node.status(bench.now);
    assert_eq!(status.rates.upload, 70_000);
    assert_eq!(status.streams_max, 50);
}

#[test]
fn a_stored_piece_that_is_gone_from_the_disk_is_no_longer_offered() {
    let node = node_that_cannot_send(Key([9; 32]), DiskErrorKind::NotFound);
    assert!(!node.store().has(&Key([9; 32])));
}

#[test]
fn a_stored_piece_that_cannot_be_read_now_is_kept() {
    let node = node_that_cannot_send(Key([9; 32]), DiskErrorKind::Failed);
    assert!(node.store().has(&Key([9; 32])));
    assert!(!node.disk_is_well(), "an error on a file of the node's own says something about its disk");
}

/// A node that stores a piece, and cannot read it when it is to be sent.
fn node_that_cannot_send(key: Key, kind: DiskErrorKind) -> Node {
    let recovered = Recovered { pieces: vec![PieceMeta::file(key, 3)], ..Recovered::default() };
    let mut node = node(1, &[], &recovered);
    let error = DiskError { kind, message: "the disk says so".to_owned() };
    node.ops.send_failed(START, &Place::Piece(key), &error, &mut node.machines);
    node
}

/// Nodes that send each other datagrams.
struct Net {
    now: Instant,
    nodes: Vec<Option<Node>>,
    air: Air,
    rng: Rng,
}

impl Net {
    /// A network of this many nodes, after enough time for them to find each other. All join through the first.
    fn settled(count: u8) -> Net {
        let nodes = (1..=count).map(|number| Some(node(number, &[address(1)], &Recovered::default())));
        let (air, rng) = (Air::new(Duration::from_millis(40)), Rng::new([1; 32]));
        let mut net = Net { now: START, nodes: nodes.collect(), air, rng };
        net.run(60);
        net
    }

    fn node(&mut self, number: u8) -> &mut Node {
        self.nodes[usize::from(number) - 1].as_mut().expect("the node is up")
    }

    fn contact(&mut self, number: u8) -> Contact {
        Contact::new(self.node(number).public(), address(number))
    }

    /// The node crashes.
    fn crash(&mut self, number: u8) {
        self.nodes[usize::from(number) - 1] = None;
    }

    fn send(&mut self) {
        for (number, node) in (1..).zip(&mut self.nodes) {
            let Some(node) = node else { continue };
            self.air.send(self.now, &mut self.rng, address(number), &mut node.machines.outbox);
        }
    }

    fn run(&mut self, seconds: u64) {
        let until = self.now + Duration::from_secs(seconds);
        self.send();
        loop {
            let alarms = self.nodes.iter().flatten().filter_map(Node::next_deadline);
            let next = alarms.chain(self.air.next()).min();
            let Some(at) = next.filter(|at| *at <= until) else { break };
            self.now = self.now.max(at);
            let arrived = if self.air.next() == Some(at) { self.air.pop() } else { None };
            match arrived {
                Some(flight) => {
                    let to = (1..).zip(&mut self.nodes).find(|(number, _)| address(*number) == flight.to);
                    if let Some((_, Some(node))) = to {
                        node.handle_datagram(self.now, flight.from, &flight.bytes);
                    }
                }
                None => {
                    for node in self.nodes.iter_mut().flatten() {
                        if node.next_deadline().is_some_and(|due| due <= self.now) {
                            node.handle_timeout(self.now);
                        }
                    }
                }
            }
            self.send();
        }
        self.now = until;
    }

    /// Lets time pass for one node alone until it sends a request with a MAC. Returns the destination and the request.
    fn next_request(&mut self, number: u8) -> (SocketAddr, Vec<u8>) {
        let mut found = None;
        while found.is_none() {
            let due = self.node(number).next_deadline().expect("it has members");
            self.now = self.now.max(due);
            let now = self.now;
            self.node(number).handle_timeout(now);
            while let Some(sent) = self.node(number).poll_datagram() {
                let request = Unverified::parse(sent.bytes(), &Network::new("test")).unwrap();
                if request.auth() == Auth::Mac && !request.kind().is_answer() {
                    found = Some((sent.to(), sent.bytes().to_vec()));
                }
            }
        }
        found.unwrap()
    }

    /// Whether two nodes send each other requests with MACs.
    fn are_keyed(&mut self, one: u8, other: u8) -> bool {
        let (first, second) = (self.node(one).id(), self.node(other).id());
        let keyed = |node: &Node, id: &NodeId| node.machines.outbox.peers().is_keyed(id);
        keyed(self.node(one), &second) && keyed(self.node(other), &first)
    }

    /// The entry of another node in the node's list.
    fn peer(&mut self, number: u8, other: NodeId) -> Option<Peer> {
        let now = self.now;
        status::peers(now, &self.node(number).machines).into_iter().find(|peer| peer.id == other)
    }

    fn counted(&mut self, number: u8, name: &str) -> u64 {
        let now = self.now;
        self.node(number).status(now).counters[name]
    }
}

#[test]
fn nodes_that_join_through_one_become_members_and_contacts_of_each_other() {
    let mut net = Net::settled(3);
    for (number, other) in [(1, 2), (2, 3), (3, 2)] {
        let id = net.node(other).id();
        let peer = net.peer(number, id).expect("the other is listed");
        assert_eq!(peer.state, Some(MemberState::Live));
        assert!(peer.good);
        assert_eq!(peer.addr, address(other));
    }
}

#[test]
fn a_member_that_falls_silent_is_counted_and_is_the_last_to_be_given_copies() {
    let mut net = Net::settled(3);
    let (second, third) = (net.contact(2), net.contact(3));
    assert_eq!(net.node(1).machines.likeliest_first(&[second, third]), [second, third]);
    net.crash(2);
    net.run(120);
    assert_eq!(net.peer(1, second.id).unwrap().state, Some(MemberState::Unresponsive));
    assert_eq!(net.counted(1, "members_unresponsive"), 1);
    assert_eq!(net.node(1).machines.likeliest_first(&[second, third]), [third, second]);
}

#[test]
fn a_node_that_says_goodbye_is_forgotten_as_a_contact_at_once() {
    let mut net = Net::settled(3);
    let second = net.contact(2);
    let now = net.now;
    net.node(2).shut_down(now);
    net.send();
    net.crash(2);
    net.run(5);
    assert_eq!(net.counted(1, "members_left"), 1);
    assert_eq!(net.counted(1, "members_suspected"), 0);
    let peer = net.peer(1, second.id).unwrap();
    assert_eq!(peer.state, Some(MemberState::Left));
    assert!(!peer.good);
}

#[test]
fn a_value_that_one_node_sets_is_found_by_another() {
    let mut net = Net::settled(3);
    let (now, publisher) = (net.now, net.node(2).public());
    net.node(2).handle_command(now, CommandId(1), set("menu"));
    net.run(10);
    let now = net.now;
    let look_up = Command::Lookup { publisher, name: "menu".to_owned(), fresh: true };
    net.node(3).handle_command(now, CommandId(2), look_up);
    net.run(10);
    let found = core::iter::from_fn(|| net.node(3).poll_output()).find_map(|output| match output {
        Output::Respond { response: Response::Done(Reply::Lookup { value, .. }), .. } => Some(value),
        _ => None,
    });
    assert_eq!(found, Some(vec![1]));
}

#[test]
fn nodes_that_know_each_other_sign_nothing() {
    let mut net = Net::settled(3);
    let counts = |net: &mut Net| (net.counted(2, "datagrams_in"), net.counted(2, "macs_verified"));
    let before = counts(&mut net);
    net.run(60);
    let after = counts(&mut net);
    assert!(after.0 > before.0 + 20, "{after:?} after {before:?}");
    assert_eq!(after.0 - before.0, after.1 - before.1, "all that came had a MAC");
}

#[test]
fn a_node_that_restarts_without_its_state_is_known_again_at_once() {
    let mut net = Net::settled(3);
    assert!(net.are_keyed(1, 2));
    let id = net.node(2).id();
    net.nodes[1] = Some(start(2, &[address(1)], &Recovered::default(), [77; 32], net.now));
    net.run(10);
    assert!(net.are_keyed(1, 2));
    assert_eq!(net.peer(1, id).map(|peer| peer.state), Some(Some(MemberState::Live)));
    assert!(net.counted(1, "peers_restarted") >= 1);
    assert_eq!(net.counted(1, "members_suspected"), 0);
}

#[test]
fn a_forged_challenge_makes_a_node_sign_one_request_once_and_costs_no_key() {
    let mut net = Net::settled(3);
    let (to, request) = net.next_request(1);
    let (network, forger) = (Network::new("test"), Identity::from_secret(&[99; 32]));
    let request = Unverified::parse(&request, &network).unwrap();
    let mut out = [0; DATAGRAM_BYTES_MAX];
    let length = write_challenge(&mut out, &network, &forger, Epoch::new(9), 5, &request).unwrap();
    let signed = |net: &mut Net, from: SocketAddr| {
        let now = net.now;
        net.node(1).handle_datagram(now, from, &out[..length]);
        let mut count = 0;
        while let Some(sent) = net.node(1).poll_datagram() {
            let sent = Unverified::parse(sent.bytes(), &network).unwrap();
            let again = sent.auth() == Auth::Signed && sent.transaction() == request.transaction();
            count += usize::from(again);
        }
        count
    };
    assert_eq!(signed(&mut net, address(77)), 0, "it comes from elsewhere");
    assert_eq!(signed(&mut net, to), 1);
    assert_eq!(signed(&mut net, to), 0, "the request was challenged before");
    assert!(net.are_keyed(1, 2) && net.are_keyed(1, 3));
}

/// A node with discovery, in the network with this secret.
fn on_a_lan(number: u8, secret: Option<NetworkSecret>) -> Node {
    let config =
        NodeConfig { lan: true, network_secret: secret, ..NodeConfig::of_a_test(address(number), &[]) };
    Node::new(config, Identity::from_secret(&[number; 32]), &Recovered::default(), [number; 32], START)
        .unwrap()
}

/// What a node tells its link when it starts.
fn here(node: &mut Node) -> Vec<u8> {
    let at = START + Duration::from_millis(300);
    node.handle_timeout(at);
    let told = core::iter::from_fn(|| node.poll_output()).find_map(|output| match output {
        Output::Here { bytes } => Some(bytes),
        _ => None,
    });
    told.expect("a node with discovery tells its link")
}

/// The recipients of what a node sends within the next second.
fn sent_to(node: &mut Node, now: Instant) -> Vec<SocketAddr> {
    node.handle_timeout(now + Duration::from_millis(500));
    core::iter::from_fn(|| node.poll_datagram().map(Datagram::to)).collect()
}

#[test]
fn a_node_pings_a_newcomer_on_its_link_once_and_ignores_itself() {
    let (mut node, mut newcomer) = (on_a_lan(1, None), on_a_lan(2, None));
    let (now, own, bytes) = (START + Duration::from_secs(1), here(&mut node), here(&mut newcomer));
    node.handle_here(now, address(1), &own);
    assert_eq!(sent_to(&mut node, now), []);
    for _ in 0..3 {
        node.handle_here(now, address(2), &bytes);
    }
    assert_eq!(sent_to(&mut node, now), [address(2)]);
    assert_eq!((node.lan.counters.heard, node.lan.counters.over_budget), (1, 2));
    // Not through a group, it is no discovery. Through a group, nothing else is.
    let third = here(&mut on_a_lan(3, None));
    node.handle_datagram(now, address(3), &third);
    assert_eq!((sent_to(&mut node, now).len(), node.counters.refused_kind), (0, 1));
}

#[test]
fn a_here_from_outside_the_closed_network_costs_no_signature_check() {
    let secret = |byte| Some(NetworkSecret([byte; 16]));
    let (mut node, now) = (on_a_lan(1, secret(1)), START + Duration::from_secs(1));
    let mut forged = here(&mut on_a_lan(2, secret(1)));
    forged[48] ^= 1;
    node.handle_here(now, address(2), &forged);
    assert_eq!((node.lan.counters.unmarked, node.counters.refused_signature), (1, 0));
    node.handle_here(now, address(3), &here(&mut on_a_lan(3, secret(2))));
    assert_eq!(node.counters.refused_network, 1);
    assert_eq!(sent_to(&mut node, now), []);
    node.handle_here(now, address(2), &here(&mut on_a_lan(2, secret(1))));
    assert_eq!(sent_to(&mut node, now), [address(2)]);
}

#[test]
fn a_flood_of_forged_heres_causes_a_bounded_number_of_pings() {
    let (mut node, now) = (on_a_lan(1, None), START + Duration::from_secs(1));
    let network = Network::with_secret("test", None, &Identity::from_secret(&[1; 32]));
    for number in 0..2000u16 {
        let mut secret = [9; 32];
        secret[..2].copy_from_slice(&number.to_le_bytes());
        let (limits, identity) = (Limits::default(), Identity::from_secret(&secret));
        let mut outbox = Outbox::new(network.clone(), identity, false, Epoch::new(7), &limits, [3; 32]);
        let [low, high] = number.to_le_bytes();
        node.handle_here(now, ([10, 0, high, low], 1).into(), &outbox.here().unwrap());
    }
    let pings = sent_to(&mut node, now).len();
    assert!((1..=64).contains(&pings), "{pings} pings");
}
