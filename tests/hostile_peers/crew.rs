//! A small network of real nodes, and a crew of authenticated strangers at one address that attack it.

use crate::puppets::*;
use crate::support::{Node, Scratch};
use elver::id::{Key, NodeId, PublicKey};
use elver::identity::Identity;
use elver::node::command::{Command, Reply, Response};
use elver::wire::contact::{Contact, WireContact};
use elver::wire::datagram::{DATAGRAM_BYTES_MAX, Envelope, Epoch, Unverified, write};
use elver::wire::gossip::{GossipBody, Hops};
use elver::wire::message::{Message, NotStored, Want};
use elver::wire::state::{About, NodeState};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// The address of the crew.
pub(crate) const CREW: [u8; 4] = [127, 0, 9, 1];
/// The states in one gossip.
pub(crate) const STATES: usize = 6;

/// Nodes at addresses of their own that know each other. Their users publish and fetch.
pub(crate) struct Town {
    pub(crate) nodes: Vec<Node>,
    scratch: Scratch,
    extra: Vec<String>,
}

impl Town {
    pub(crate) fn new(count: usize, extra: &[&str]) -> Town {
        let extra = [&["-v", "--network", "elver test"], extra].concat();
        let extra = extra.into_iter().map(str::to_owned).collect();
        let mut town = Town { nodes: Vec::new(), scratch: Scratch::new(), extra };
        (0..count).for_each(|_| town.join());
        town.nodes.iter().for_each(|node| node.wait_for_peers(count as u32 - 1));
        town
    }

    /// Starts another node.
    pub(crate) fn join(&mut self) {
        let number = self.nodes.len() as u8;
        let listen = SocketAddr::from(([127, 0, 10 + number, 1], 0));
        let bootstrap: Vec<SocketAddr> = self.nodes.first().map(|node| node.addr).into_iter().collect();
        let extra: Vec<&str> = self.extra.iter().map(String::as_str).collect();
        let dir = self.scratch.path().join(format!("n{number}"));
        self.nodes.push(Node::start_at(dir, listen, &bootstrap, &extra));
    }

    /// Publishes a value at a node, and returns its address.
    pub(crate) fn set(&self, node: usize, name: &str, value: &str) -> String {
        self.nodes[node].elver(["set", name, value]).expect(0).text().trim().to_owned()
    }

    /// Looks a value up at a node.
    pub(crate) fn looks_up(&self, node: usize, address: &str, value: &str) {
        let found = self.nodes[node].elver(["lookup", "--fresh", address]).expect(0);
        assert_eq!(found.text().trim(), value);
    }

    /// Puts a file at a node, and returns its hash.
    pub(crate) fn put(&self, node: usize, bytes: &[u8], replicas: &str) -> String {
        let path = self.scratch.file(&blake3::hash(bytes).to_hex(), bytes);
        self.nodes[node].put(&path, &["--replicas", replicas])
    }

    /// Fetches a file at a node.
    pub(crate) fn gets(&self, node: usize, hash: &str, bytes: &[u8]) {
        let target = self.scratch.path().join(format!("{hash} at {node}"));
        let (code, said) = self.nodes[node].get(hash, &target, &["--force"]);
        assert_eq!(code, Some(0), "{said}\n{}", self.nodes[node].status_json());
        assert!(std::fs::read(&target).unwrap() == bytes);
    }

    /// What users do: publish a value and a file at one node, and find both at another.
    pub(crate) fn is_used(&self, round: u8) {
        let (one, other) = (0, self.nodes.len() - 1);
        let value = format!("value {round}");
        let address = self.set(one, &format!("name {round}"), &value);
        self.looks_up(other, &address, &value);
        let bytes = content(9000 + u64::from(round), 300_000);
        let hash = self.put(other, &bytes, "2");
        self.gets(one, &hash, &bytes);
    }

    /// The strangers' ends, one for each node.
    pub(crate) fn strangers(&self) -> Vec<Datagrams> {
        self.nodes.iter().map(|node| Datagrams::new(CREW, Arc::new(new_identity()), node)).collect()
    }
}

/// The id of a node.
pub(crate) fn id_of(node: &Node) -> NodeId {
    NodeId(node.status_json()["id"].as_str().unwrap().parse::<Key>().unwrap().0)
}

/// Whether a node has a signed state of another: only that says its version.
pub(crate) fn has_state_of(node: &Node, other: &NodeId) -> bool {
    match node.request(&Command::Peers) {
        Some(Response::Done(Reply::Peers { peers })) => {
            peers.iter().any(|peer| peer.id == *other && peer.version.is_some())
        }
        other => panic!("peers answered {other:?}"),
    }
}

/// The publisher in the address of a value.
pub(crate) fn publisher_of(address: &str) -> PublicKey {
    let key = address.split('/').next().expect("a publisher");
    PublicKey(key.parse::<Key>().expect("a key").0)
}

/// A background thread of the crew. It ends with this.
pub(crate) struct Flood {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Calls `send` again and again, about a thousand times a second at the most.
    pub(crate) fn begin(mut send: impl FnMut() + Send + 'static) -> Flood {
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                send();
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Flood { over, thread: Some(thread) }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The state that an identity signs of itself.
pub(crate) fn state(identity: &Identity, addr: SocketAddr) -> NodeState {
    NodeState::new(&network(), identity, &About { addrs: [Some(addr), None], ..About::default() }, 1 << 33)
}

/// Has a stranger tell its node of these states, as news.
pub(crate) fn gossip(stranger: &mut Datagrams, states: &[NodeState]) -> Vec<u8> {
    let mut hops = Hops::NO_NEWS;
    (0..states.len()).for_each(|index| hops.set(index, 0));
    let body = GossipBody { states, digest: &[], nearest: 0, whole: true, hops, suspicions: &[] };
    stranger.compose(&Message::Gossip(body))
}

/// Strangers with ids near a key that enter routing tables, name each other as the nearest, and acknowledge records that they drop.
/// They answer until the test program ends.
pub(crate) fn sybils(town: &Town, key: &Key, count: usize) {
    /// The leading bits that an id shares with the key: more than any of a handful of honest nodes does.
    const BITS: u32 = 6;
    let near = std::iter::repeat_with(new_identity).filter(|it| it.id().key().common_prefix(key) >= BITS);
    let crew: Vec<(Identity, UdpSocket)> = near
        .take(count)
        .map(|identity| (identity, UdpSocket::bind(SocketAddr::from((CREW, 0))).unwrap()))
        .collect();
    let contacts: Arc<Vec<WireContact>> = Arc::new(
        crew.iter()
            .map(|(identity, socket)| {
                WireContact::new(&Contact::new(identity.public(), socket.local_addr().unwrap()), 1)
            })
            .collect(),
    );
    let targets: Vec<(SocketAddr, NodeId)> = town.nodes.iter().map(|node| (node.addr, id_of(node))).collect();
    for (identity, socket) in crew {
        let (contacts, targets) = (Arc::clone(&contacts), targets.clone());
        std::thread::spawn(move || lie(&identity, &socket, &contacts, &targets));
    }
}

fn lie(
    identity: &Identity,
    socket: &UdpSocket,
    accomplices: &[WireContact],
    targets: &[(SocketAddr, NodeId)],
) -> Option<()> {
    let mut sequence = 0;
    let mut say = |to: SocketAddr, recipient: NodeId, transaction: u64, message: &Message<'_>| {
        sequence += 1;
        let (recipient, token) = (Some(recipient), 7);
        let epoch = Epoch::new(1);
        let envelope = Envelope { recipient, leaf: false, epoch, sequence, transaction, token };
        let mut out = [0; DATAGRAM_BYTES_MAX];
        let length = write(&mut out, &network(), identity, &envelope, message).expect("it fits");
        let _ = socket.send_to(&out[..length], to);
    };
    let find = Message::Find { target: Key([1; 32]), want: Want::Nodes, padding: 240 };
    for (addr, id) in targets {
        say(*addr, *id, 1, &find);
    }
    loop {
        let mut buffer = [0; 2048];
        let (length, from) = socket.recv_from(&mut buffer).ok()?;
        let Ok(parsed) = Unverified::parse(&buffer[..length], &network()) else { continue };
        let Ok(request) = parsed.verify(&network(), &identity.id()) else { continue };
        let answer = match request.message() {
            Message::Ping { .. } => Message::Pong { observed: from },
            Message::Find { .. } => {
                let contacts = &accomplices[..accomplices.len().min(16)];
                Message::Found { contacts, providers: &[], record: None }
            }
            Message::StoreRecord { .. } => Message::Stored { accepted: 1, reason: NotStored::Nothing },
            Message::Announce { announcements } => {
                Message::Stored { accepted: announcements.len() as u8, reason: NotStored::Nothing }
            }
            _ => continue,
        };
        say(from, request.id(), request.transaction(), &answer);
    }
}
