//! The cost of choosing the nearest contacts (the 20 of 10,000 closest to a key, as a search of a full table would), and the
//! time that a node takes from a find with a MAC to its answer.

use criterion::{BatchSize, Criterion, Throughput};
use elver::dht::closest::closest;
use elver::gossip::GossipConfig;
use elver::id::{IdWork, Key, NodeId, PublicKey};
use elver::identity::Identity;
use elver::io::Recovered;
use elver::limits::Limits;
use elver::node::{Node, NodeConfig};
use elver::peers::inbox;
use elver::peers::outbox::{Ask, Asker, Attempt, Outbox};
use elver::peers::table::Hold;
use elver::replication::ReplicationConfig;
use elver::rng::Rng;
use elver::time::{Duration, Instant};
use elver::wire::contact::Contact;
use elver::wire::datagram::{Epoch, Unverified};
use elver::wire::message::{Message, Want};
use elver::wire::network::Network;
use std::hint::black_box;
use std::net::SocketAddr;

const CONTACTS: usize = 10_000;
const WANTED: usize = 20;

/// Contacts all over the key space. Their public keys are no points of the curve: no code here checks.
fn contacts(rng: &mut Rng) -> Vec<Contact> {
    let contact = |id: [u8; 32]| Contact {
        id: NodeId(id),
        public: PublicKey(id),
        addr: SocketAddr::from(([192, 0, 2, 7], 3583)),
    };
    (0..CONTACTS).map(|_| contact(rng.bytes())).collect()
}

/// A node, and the peers in its routing table.
struct Neighbourhood {
    now: Instant,
    network: Network,
    node: Node,
    peers: Vec<Outbox>,
}

const NODE: ([u8; 4], u16) = ([192, 0, 2, 1], 3583);

fn address(peer: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1 + peer as u8], 3583))
}

impl Neighbourhood {
    fn new(count: usize) -> Self {
        let now = Instant::from_secs(1);
        let config = NodeConfig {
            limits: Limits::default(),
            leaf: false,
            network: "bench".to_owned(),
            network_secret: None,
            id_work: IdWork::NONE,
            listen: NODE.into(),
            bootstrap: Vec::new(),
            bootstrap_names: Vec::new(),
            lan: false,
            replicas: NodeConfig::REPLICAS,
            lifetime: NodeConfig::LIFETIME,
            cache_dir: "/cache".into(),
            gossip: GossipConfig::default(),
            replication: ReplicationConfig::default(),
        };
        let identity = Identity::from_secret(&[1; 32]);
        let node = Node::new(config, identity, &Recovered::default(), [1; 32], now).expect("valid limits");
        let network = Network::new("bench");
        let peer = |index: usize| {
            let identity = Identity::from_secret(&[100 + index as u8; 32]);
            Outbox::new(
                network.clone(),
                identity,
                false,
                Epoch::new(7),
                &Limits::default(),
                [index as u8; 32],
            )
        };
        let peers = (0..count).map(peer).collect();
        let mut all = Neighbourhood { now, network, node, peers };
        for peer in 0..count {
            (0..3).for_each(|_| all.meet(peer));
        }
        all
    }

    fn find(&mut self, peer: usize, target: Key) -> Vec<u8> {
        let (to, recipient) = (NODE.into(), Some(self.node.id()));
        let ask = Ask { to, recipient, transaction: 5, attempt: Attempt::First };
        let find = Message::Find { target, want: Want::Nodes, padding: 0 };
        self.peers[peer].request(self.now, ask, &find).expect("it fits");
        self.peers[peer].poll().expect("a find").bytes().to_vec()
    }

    /// The peer sends the node a request, and answers the node's own requests.
    fn meet(&mut self, peer: usize) {
        self.now = self.now + Duration::from_millis(100);
        let find = self.find(peer, Key([3; 32]));
        self.node.handle_datagram(self.now, address(peer), &find);
        while let Some(bytes) = self.node.poll_datagram().map(|datagram| datagram.bytes().to_vec()) {
            let datagram = Unverified::parse(&bytes, &self.network).expect("sound");
            let (now, answers) = (self.now, datagram.kind().is_answer());
            let outbox = &mut self.peers[peer];
            let received = inbox::receive(outbox, now, NODE.into(), datagram, answers, |_| Hold::Contact);
            let Ok(received) = received.map(|received| received.datagram) else { continue };
            if let Message::Ping { .. } = received.message() {
                let pong = Message::Pong { observed: NODE.into() };
                outbox.answer(now, Asker::of(NODE.into(), &received), &pong).expect("it fits");
                let pong = outbox.poll().expect("a pong").bytes().to_vec();
                self.node.handle_datagram(now, address(peer), &pong);
            }
        }
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut rng = Rng::new([1; 32]);
    let contacts = contacts(&mut rng);
    let targets: Vec<Key> = (0..64).map(|_| Key(rng.bytes())).collect();
    let mut targets = targets.iter().cycle();

    let mut group = criterion.benchmark_group("closest 20 of 10,000 contacts");
    group.throughput(Throughput::Elements(CONTACTS as u64));
    group.bench_function("closest", |bencher| {
        bencher.iter(|| {
            let target = targets.next().expect("a cycle has no end");
            closest(black_box(&contacts).iter(), black_box(target), WANTED)
        })
    });
    // For comparison: the cost of sorting all contacts instead of keeping the 20 closest.
    group.bench_function("sort all", |bencher| {
        bencher.iter(|| {
            let target = targets.next().expect("a cycle has no end");
            let mut all: Vec<_> = black_box(&contacts).iter().collect();
            all.sort_unstable_by_key(|contact| contact.id.distance(target));
            all.truncate(WANTED);
            all
        })
    });
    group.finish();

    let mut all = Neighbourhood::new(40);
    assert!(all.node.dht().statistics().contacts >= 30, "{:?}", all.node.dht().statistics());
    let find = all.find(0, Key([3; 32]));
    let with_mac = Unverified::parse(&find, &all.network).is_ok_and(|find| find.datagram_bytes() < 120);
    assert!(with_mac, "the peers know each other");
    let (now, finds) = (all.now, core::cell::RefCell::new(all));
    let mut group = criterion.benchmark_group("from a find to its answer");
    group.throughput(Throughput::Elements(1));
    group.bench_function("with a MAC", |bencher| {
        bencher.iter_batched(
            || {
                let target = *targets.next().expect("a cycle has no end");
                finds.borrow_mut().find(0, target)
            },
            |find| {
                let node = &mut finds.borrow_mut().node;
                node.handle_datagram(now, address(0), black_box(&find));
                let answer = node.poll_datagram().map(|answer| answer.bytes().len());
                assert!(answer.is_some_and(|bytes| bytes > 500));
            },
            BatchSize::SmallInput,
        )
    });
    group.finish();
    criterion.final_summary();
}
