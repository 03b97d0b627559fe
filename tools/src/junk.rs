//! The latency of established peers while a stranger floods one of them with junk.

use crate::Outcome;
use crate::node::{Node, WorkDir};
use elver::id::{NodeId, PublicKey};
use elver::identity::Identity;
use elver::node::command::{Command, Reply};
use elver::wire::datagram::{DATAGRAM_BYTES_MAX, Envelope, Epoch, MacKey, Unverified, write, write_mac};
use elver::wire::message::Message;
use elver::wire::network::Network;
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};
use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const NETWORK: &str = "elver junk";
/// The address of the stranger.
const STRANGER: [u8; 4] = [127, 0, 9, 1];
/// Different datagrams of the flood, which are sent again and again.
const DATAGRAMS: usize = 1024;
/// Datagrams of one system call.
const BATCH: usize = 32;
const PING: Message<'static> = Message::Ping { padding: 0 };

/// Flood a node with junk, and measure the lookups of another node that has to ask it: before, during and after.
///
/// A quarter of the junk each: wrong signatures of unknown nodes, wrong signatures from an address that has validated itself, wrong
/// MACs, and noise.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Datagrams a second that the sender aims at.
    #[arg(long, default_value_t = 100_000)]
    rate: u32,
    /// Seconds of the flood. Before and after it, half of this is measured.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

/// What was measured in one phase.
#[derive(serde::Serialize)]
struct Phase {
    name: &'static str,
    /// Lookups that found the value, and those that did not.
    lookups: usize,
    failed: usize,
    p50_ms: f64,
    p99_ms: f64,
    most_ms: f64,
    /// Datagrams a second that the flooded node received.
    received_per_second: f64,
    /// Its processor seconds in a second, and its resident memory at the end.
    processor: f64,
    resident_kib: u64,
}

pub(crate) fn run(binary: &Path, arguments: &Arguments) -> Outcome<()> {
    let work = WorkDir::new(None)?;
    let extra = ["--network", NETWORK];
    let flooded = Node::start(binary, work.join("flooded"), None, &extra)?;
    let others: Vec<Node> = (0..2)
        .map(|index| Node::start(binary, work.join(format!("other{index}")), Some(flooded.addr), &extra))
        .collect::<Outcome<_>>()?;
    for node in others.iter().chain([&flooded]) {
        node.wait_for_peers(2)?;
    }
    flooded.request(&Command::Set { name: "name".into(), value: b"value".to_vec(), lifetime: None })?;
    let publisher = flooded.public()?;
    // The peers exchange MACs after their third exchange.
    std::thread::sleep(Duration::from_secs(3));
    let (whole, half) =
        (Duration::from_secs(arguments.seconds), Duration::from_millis(arguments.seconds * 500));
    let mut phases = vec![measure("before", half, &flooded, &others[0], publisher)?];
    let flood = Flood::begin(flooded.addr, publisher.node_id(), arguments.rate)?;
    phases.push(measure("during", whole, &flooded, &others[0], publisher)?);
    let rate = flood.end();
    phases.push(measure("after", half, &flooded, &others[0], publisher)?);
    if arguments.json {
        println!("{}", serde_json::json!({ "sent_per_second": rate, "phases": phases }));
        return Ok(());
    }
    println!("{rate:.0} junk datagrams a second were sent\n");
    println!(
        "| lookups of a peer | found | failed | p50 | p99 | most | datagrams received | processor | resident |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---:|");
    for phase in phases {
        println!(
            "| {} | {} | {} | {:.2} ms | {:.2} ms | {:.2} ms | {:.0}/s | {:.0} % | {} KiB |",
            phase.name,
            phase.lookups,
            phase.failed,
            phase.p50_ms,
            phase.p99_ms,
            phase.most_ms,
            phase.received_per_second,
            phase.processor * 100.0,
            phase.resident_kib
        );
    }
    Ok(())
}

/// Looks the value up at `asker`, again and again, for a duration.
fn measure(
    name: &'static str,
    duration: Duration,
    flooded: &Node,
    asker: &Node,
    publisher: PublicKey,
) -> Outcome<Phase> {
    let received = |node: &Node| -> Outcome<u64> {
        Ok(node.status()?.counters.get("datagrams_in").copied().unwrap_or_default())
    };
    let (usage, datagrams, began) = (flooded.usage()?, received(flooded)?, Instant::now());
    let (mut millis, mut failed) = (Vec::new(), 0);
    while began.elapsed() < duration {
        let asked = Instant::now();
        match asker.request(&Command::Lookup { publisher, name: "name".into(), fresh: true }) {
            Ok(Reply::Lookup { .. }) => millis.push(asked.elapsed().as_secs_f64() * 1e3),
            _ => failed += 1,
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let (after, more) = (flooded.usage()?, received(flooded)?);
    millis.sort_by(f64::total_cmp);
    let at = |part: f64| millis.get((millis.len() as f64 * part) as usize).copied().unwrap_or_default();
    Ok(Phase {
        name,
        lookups: millis.len(),
        failed,
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        most_ms: millis.last().copied().unwrap_or_default(),
        received_per_second: (more - datagrams) as f64 / seconds,
        processor: (after.cpu - usage.cpu) / seconds,
        resident_kib: after.resident,
    })
}

/// A thread that sends junk until it is ended.
struct Flood {
    over: Arc<AtomicBool>,
    thread: JoinHandle<f64>,
}

impl Flood {
    fn begin(to: SocketAddr, id: NodeId, rate: u32) -> Outcome<Flood> {
        let socket = UdpSocket::bind(SocketAddr::from((STRANGER, 0)))?;
        let junk = junk(&socket, to, id)?;
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        let thread = std::thread::spawn(move || send(&socket, to, &junk, f64::from(rate), &until));
        Ok(Flood { over, thread })
    }

    /// Ends the flood, and returns the datagrams a second that were sent.
    fn end(self) -> f64 {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

fn send(socket: &UdpSocket, to: SocketAddr, junk: &[Vec<u8>], rate: f64, over: &AtomicBool) -> f64 {
    let (to, began, mut sent) = (SocketAddrAny::from(to), Instant::now(), 0_usize);
    while !over.load(Ordering::Relaxed) {
        if sent as f64 >= began.elapsed().as_secs_f64() * rate {
            std::thread::sleep(Duration::from_micros(100));
            continue;
        }
        let parts: [[IoSlice<'_>; 1]; BATCH] =
            core::array::from_fn(|index| [IoSlice::new(&junk[(sent + index) % junk.len()])]);
        let mut controls: [SendAncillaryBuffer<'_, '_, '_>; BATCH] =
            core::array::from_fn(|_| SendAncillaryBuffer::default());
        let mut parts = parts.iter();
        let mut messages = controls.each_mut().map(|control| match parts.next() {
            Some(part) => MMsgHdr::new_with_addr(&to, part, control),
            None => MMsgHdr::new(&[], control),
        });
        sent += sendmmsg(socket, &mut messages, SendFlags::empty()).unwrap_or(0);
    }
    sent as f64 / began.elapsed().as_secs_f64()
}

/// The datagrams of the flood.
fn junk(socket: &UdpSocket, to: SocketAddr, id: NodeId) -> Outcome<Vec<Vec<u8>>> {
    let network = Network::new(NETWORK);
    let stranger = |number: usize| Identity::from_secret(blake3::hash(&number.to_le_bytes()).as_bytes());
    let validated = stranger(DATAGRAMS);
    let token = token(socket, to, id, &network, &validated)?;
    let envelope = |number: usize, token: u64| Envelope {
        recipient: Some(id),
        leaf: true,
        epoch: Epoch::new(9),
        sequence: number as u64 + 2,
        transaction: number as u64,
        token,
    };
    let datagram = |number: usize| -> Option<Vec<u8>> {
        let mut out = [0; DATAGRAM_BYTES_MAX];
        let length = match number % 4 {
            0 => write(&mut out, &network, &stranger(number), &envelope(number, 0), &PING)?,
            1 => write(&mut out, &network, &validated, &envelope(number, token), &PING)?,
            2 => {
                let key = MacKey([number as u8; 32]);
                write_mac(&mut out, &network, &stranger(number), &key, &envelope(number, 0), &PING)?
            }
            _ => {
                blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut out[..200]);
                200
            }
        };
        // The last byte belongs to the signature or the MAC.
        out[length - 1] ^= 1;
        Some(out[..length].to_vec())
    };
    Ok((0..DATAGRAMS).filter_map(datagram).collect())
}

/// The token by which the node knows the stranger's address.
fn token(
    socket: &UdpSocket,
    to: SocketAddr,
    id: NodeId,
    network: &Network,
    identity: &Identity,
) -> Outcome<u64> {
    let (recipient, leaf, epoch) = (Some(id), true, Epoch::new(9));
    let envelope = Envelope { recipient, leaf, epoch, sequence: 1, transaction: 1, token: 0 };
    let mut out = [0; DATAGRAM_BYTES_MAX];
    let length = write(&mut out, network, identity, &envelope, &PING).ok_or("a ping does not fit")?;
    socket.send_to(&out[..length], to)?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    loop {
        let length = socket.recv(&mut out)?;
        match Unverified::parse(&out[..length], network) {
            Ok(pong) if pong.kind().is_answer() => return Ok(pong.token()),
            _ => {}
        }
    }
}
