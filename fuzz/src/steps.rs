//! The steps of the target `node`.
//!
//! The first byte of an input chooses the node ([`Host::new`]). Then follow steps: a byte with the number of the step, and its fields.
//! Peers, keys and files are one byte each; byte strings have a length of two bytes, little-endian.
//!
//! | number | step | fields |
//! |---|---|---|
//! | 0 | request | peer, attempt, flip, kind of message, payload |
//! | 1 | answer | peer, which request, kind of message, payload |
//! | 2 | answer as an honest peer | peer, which request, whether it claims to provide files |
//! | 3 | gossip of fuzzed states | peer, states, for each: peer, flags |
//! | 4 | value record | peer, name number, value, sequence |
//! | 5 | announcement | peer, file, flags |
//! | 6 | bytes from anyone | peer, bytes |
//! | 7 | a peer connects | peer |
//! | 8 | a dial ends | whether it succeeds |
//! | 9 | frame | stream, kind of frame, body |
//! | 10 | frame about known pieces | stream, kind, piece, number |
//! | 11 | answer to a frame as an honest peer | stream, twist |
//! | 12 | raw bytes on a stream | stream, bytes |
//! | 13 | an event of a stream | stream, event |
//! | 14 | the disk ends an operation | which, error or 0 |
//! | 15 | command | see [`command`] |
//! | 16 | time | milliseconds by powers of two, or to the next deadline |
//! | 17 | other inputs | which, number |
//! | 18 | all peers answer honestly, and the disk works | rounds |

use crate::fixture::Fixture;
use crate::host::{DISK_ERRORS, Host, PEERS, disk_error};
use crate::peer::gossip;
use crate::stream::offer;
use crate::tape::Tape;
use elver::io::{DiskErrorKind, DiskLook, Space, StreamId};
use elver::node::command::{Command, Part};
use elver::time::Duration;
use elver::wire::contact::{Contact, WireContact};
use elver::wire::frame::{FRAME_HEAD_BYTES, Frame, Parsed, Refusal};
use elver::wire::header::Kind;
use elver::wire::message::{Announcement, Message};
use elver::wire::provider::ProviderRecord;
use elver::wire::record::{Record, sign_record};
use elver::wire::state::About;
use zerocopy::little_endian::U32;

/// The most steps of one input.
const STEPS_MAX: usize = 256;
/// The number of steps between two checks of the tables.
const CHECK_EVERY: usize = 16;

/// Plays an input.
pub fn play(bytes: &[u8]) {
    let mut tape = Tape::new(bytes);
    let mut host = Host::new(tape.byte());
    for count in 1..=STEPS_MAX {
        if tape.is_over() || host.is_stopped() {
            break;
        }
        step(&mut host, &mut tape);
        if count % CHECK_EVERY == 0 {
            host.check_tables();
        }
    }
    host.finish();
}

fn step(host: &mut Host, tape: &mut Tape<'_>) {
    match tape.choice(19) {
        0 => request(host, tape),
        1 => answer(host, tape),
        2 => {
            let (peer, which, provides) = (tape.choice(PEERS), tape.choice(16), tape.byte() & 1 != 0);
            answer_honestly(host, peer, which, provides);
        }
        3 => gossip_states(host, tape),
        4 => value(host, tape),
        5 => announce(host, tape),
        6 => {
            let from = host.peers[tape.choice(PEERS)].addr;
            host.datagram(from, tape.bytes());
        }
        7 => host.accept(tape.choice(PEERS)),
        8 => host.dial(tape.byte() & 1 != 0),
        9 => frame(host, tape),
        10 => known_frame(host, tape),
        11 => {
            let (stream, twist) = (stream(host, tape), tape.byte());
            on(host, stream, |host, id| {
                let (node, fixture) = (host.node.id(), host.fixture.clone());
                host.streams.get_mut(&id).expect("it is there").answer(&node, &fixture, twist);
            });
        }
        12 => {
            let (stream, bytes) = (stream(host, tape), tape.bytes());
            on(host, stream, |host, id| {
                host.streams.get_mut(&id).expect("it is there").pipe.extend_from_slice(bytes);
            });
        }
        13 => stream_event(host, tape),
        14 => {
            let (which, error) = (tape.choice(256), tape.byte());
            let error = error.checked_sub(1).map(|error| DISK_ERRORS[usize::from(error) % DISK_ERRORS.len()]);
            host.disk(which, error);
        }
        15 => {
            let command = command(tape);
            host.command(command);
        }
        16 => match tape.byte() {
            255 => host.pass_to_deadline(),
            power => host.pass(Duration::from_millis(1 << (power % 24))),
        },
        17 => other(host, tape),
        _ => all_honest(host, tape.choice(8) + 1),
    }
}

// Datagrams.

fn request(host: &mut Host, tape: &mut Tape<'_>) {
    let (peer, attempt, flip) = (tape.choice(PEERS), tape.byte(), tape.byte());
    let (kind, payload) = (Kind::from_number(tape.byte() % 16), tape.bytes());
    let Some(message) = kind.and_then(|kind| Message::parse(kind, payload).ok()) else { return };
    let (now, node) = (host.now, host.contact());
    match message.kind() {
        Kind::Leave => host.peers[peer].leave(now, node, &message),
        _ => host.peers[peer].request(now, node, attempt, &message),
    }
    host.deliver(peer, flip);
}

fn answer(host: &mut Host, tape: &mut Tape<'_>) {
    let (peer, which) = (tape.choice(PEERS), tape.choice(16));
    let (kind, payload) = (Kind::from_number(tape.byte() % 16), tape.bytes());
    let Some(message) = kind.and_then(|kind| Message::parse(kind, payload).ok()) else { return };
    host.peers[peer].answer(host.now, which, &message);
    host.deliver(peer, 0);
}

fn answer_honestly(host: &mut Host, peer: usize, which: usize, provides: bool) {
    let contacts: Vec<Contact> =
        host.peers.iter().filter(|other| other.index != peer).map(|other| other.contact()).collect();
    host.peers[peer].answer_honestly(host.now, which, &contacts, provides);
    host.deliver(peer, 0);
}

fn gossip_states(host: &mut Host, tape: &mut Tape<'_>) {
    let (peer, count) = (tape.choice(PEERS), tape.choice(5) + 1);
    let states: Vec<_> = (0..count)
        .map(|_| {
            let (about, flags) = (tape.choice(PEERS), tape.byte());
            let about_it = About {
                leaf: flags & 1 != 0,
                away: flags & 2 != 0,
                gone: flags & 4 != 0,
                load: u16::from(flags) * 4,
                free_bytes: 1 << (flags & 63),
                addrs: [(flags & 64 != 0).then(|| host.peers[peer].addr), None],
                ..About::default()
            };
            host.peers[about].state(&about_it)
        })
        .collect();
    let (now, node) = (host.now, host.contact());
    host.peers[peer].request(now, node, 0, &Message::Gossip(gossip(&states)));
    host.deliver(peer, 0);
}

fn value(host: &mut Host, tape: &mut Tape<'_>) {
    let (peer, name, value, sequence) = (tape.choice(PEERS), tape.byte(), tape.bytes(), tape.word());
    let (network, identity) = (host.peers[peer].network().clone(), crate::peer::identity(peer));
    let signed = sign_record(&network, &identity, &name.to_string(), value, 3600, u64::from(sequence));
    let Some(bytes) = signed else { return };
    let Ok(record) = Record::parse(&bytes) else { return };
    let (now, node) = (host.now, host.contact());
    host.peers[peer].request(now, node, 0, &Message::StoreRecord { record });
    host.deliver(peer, 0);
}

fn announce(host: &mut Host, tape: &mut Tape<'_>) {
    let (peer, file, flags) = (tape.choice(PEERS), tape.choice(6), tape.byte());
    let (network, identity) = (host.peers[peer].network().clone(), crate::peer::identity(peer));
    let file = host.fixture.hash(file);
    let lifetime = if flags & 2 != 0 { 0 } else { 3600 };
    let (addr, partial) = (host.peers[peer].addr, flags & 1 != 0);
    let provider =
        ProviderRecord::new(&network, &identity, &file, addr, partial, lifetime, u64::from(flags >> 2));
    let (now, node) = (host.now, host.contact());
    let announcements = [Announcement { file, provider }];
    host.peers[peer].request(now, node, 0, &Message::Announce { announcements: &announcements });
    host.deliver(peer, 0);
}

// Streams.

/// A stream by a byte, counted from the newest.
fn stream(host: &Host, tape: &mut Tape<'_>) -> Option<StreamId> {
    let which = tape.choice(host.streams.len());
    host.streams.keys().rev().nth(which).copied()
}

fn on(host: &mut Host, stream: Option<StreamId>, act: impl FnOnce(&mut Host, StreamId)) {
    if let Some(id) = stream {
        act(host, id);
        host.settle();
    }
}

fn frame(host: &mut Host, tape: &mut Tape<'_>) {
    let (stream, kind, body) = (stream(host, tape), tape.byte(), tape.bytes());
    let mut bytes = vec![0; FRAME_HEAD_BYTES];
    bytes[..4].copy_from_slice(&(body.len() as u32).to_le_bytes());
    bytes[4] = kind % 24;
    bytes.extend_from_slice(body);
    let Ok(Parsed::Frame(frame, _)) = Frame::parse(&bytes) else { return };
    on(host, stream, |host, id| host.streams.get_mut(&id).expect("it is there").say(&frame));
}

fn known_frame(host: &mut Host, tape: &mut Tape<'_>) {
    let (stream, kind, piece, number) = (stream(host, tape), tape.choice(12), tape.choice(8), tape.byte());
    let fixture = host.fixture.clone();
    let key = fixture.key(piece);
    let (request, question) = (u32::from(number % 8), u32::from(number % 8));
    let contacts: Vec<WireContact> =
        host.peers.iter().map(|peer| WireContact::new(&peer.contact(), 0)).collect();
    let file = fixture.hash(piece);
    let chunks = [U32::new(u32::from(number % 4))];
    let offered = offer(&fixture, key, number % 5, u32::from(number) * 100);
    let frame = match kind {
        0 | 1 => Frame::Request { request, key },
        2 => Frame::Which { question, keys: &fixture.keys },
        3 | 4 => Frame::Store { request, offer: offered },
        5 => Frame::Follow { file, over: number & 1 != 0 },
        6 => Frame::Gained { file, chunks: &chunks },
        7 => Frame::Sources { file, contacts: &contacts },
        8 => Frame::Inspect { question, keys: &fixture.keys },
        9 => Frame::Unverified { key },
        10 => Frame::Challenge { question, key, nonce: [number; 32] },
        _ => match number & 1 {
            0 => Frame::Cancel { request },
            _ => Frame::Refuse { request, reason: Refusal::Busy },
        },
    };
    on(host, stream, |host, id| host.streams.get_mut(&id).expect("it is there").say(&frame));
}

fn stream_event(host: &mut Host, tape: &mut Tape<'_>) {
    let (stream, event) = (stream(host, tape), tape.byte());
    on(host, stream, |host, id| match event % 5 {
        0 => host.close(id),
        1 => host.fail_sink(id, DISK_ERRORS[usize::from(event) % DISK_ERRORS.len()]),
        2 => host.node.handle_send_failed(host.now, id, &disk_error(DiskErrorKind::Failed)),
        3 => host.streams.get_mut(&id).expect("it is there").stalled ^= true,
        _ => {
            // A byte of what is on its way changes.
            let stream = host.streams.get_mut(&id).expect("it is there");
            if let Some(byte) = stream.pipe.last_mut() {
                *byte ^= event | 1;
            }
        }
    });
}

// Commands.

/// A command: its number, and its fields. Files and keys are one byte each.
pub fn command(tape: &mut Tape<'_>) -> Command {
    let fixture = Fixture::get();
    let kind = tape.choice(18);
    let (file, number) = (tape.choice(6), tape.byte());
    let hash = fixture.hash(file);
    let timeout = (number & 1 != 0).then_some(u32::from(number >> 1));
    match kind {
        0 => Command::Put {
            path: Fixture::path(file),
            replicas: (number & 1 != 0).then_some(number >> 1 & 7),
            lifetime: (number & 16 != 0).then_some(u32::from(number) * 60),
        },
        1 => Command::Get {
            hash,
            target: (number & 2 != 0).then(|| format!("/got/{}", number >> 4).into()),
            force: number & 4 != 0,
            mode: (number & 8 != 0).then_some(0o755),
            timeout,
        },
        2 => Command::Explain { hash, timeout },
        3 => Command::Remove { hash },
        4 => Command::List { after: None },
        5 => Command::Set { name: (number & 3).to_string(), value: tape.bytes().to_vec(), lifetime: None },
        6 => Command::Unset { name: (number & 3).to_string() },
        7 => Command::Values,
        8 => Command::Lookup {
            publisher: crate::peer::identity(file % PEERS).public(),
            name: (number & 3).to_string(),
            fresh: number & 4 != 0,
        },
        9 => Command::Peers,
        10 => Command::Forgive { peer: None },
        11 => Command::Status,
        12 => Command::Scrub { background: number & 1 != 0 },
        13 => Command::Id,
        14 => Command::Leave { timeout },
        15 => Command::Limit {
            upload: timeout.map(|rate| u64::from(rate) << 12),
            download: None,
            peer_upload: None,
            peer_download: (number & 2 != 0).then_some(u64::from(number) << 12),
            streams: (number & 4 != 0).then_some(usize::from(number)),
            uploads: (number & 8 != 0).then_some(usize::from(number & 7)),
        },
        _ => Command::Read {
            hash,
            part: match number >> 1 & 3 {
                0 => None,
                1 => Some(Part::Last(u64::from(number) << 4)),
                _ => Some(Part::Between { start: u64::from(tape.word()), end: None }),
            },
            timeout,
        },
    }
}

fn other(host: &mut Host, tape: &mut Tape<'_>) {
    let (which, number) = (tape.choice(6), tape.number());
    match which {
        0 => host.cancel(number % 8),
        1 => host.take_content(number % (1 << 20)),
        2 => {
            let space = Space {
                block_bytes: 4096,
                total_bytes: 1 << 30,
                free_bytes: number,
                total_files: 1000,
                free_files: number >> 32,
            };
            host.node.handle_space(host.now, space);
            host.settle();
        }
        3 => {
            let look =
                DiskLook { tried: number & 1 != 0, free_bytes: number >> 8, free_inodes: number >> 40 };
            let kind = DISK_ERRORS[(number >> 1) as usize % DISK_ERRORS.len()];
            let look = if number & 128 != 0 { Err(disk_error(kind)) } else { Ok(look) };
            host.node.handle_disk_look(host.now, look);
            host.settle();
        }
        4 => host.node.calibrate(number as u32),
        _ => host.peers[number as usize % PEERS].restart(number >> 8),
    }
}

/// Peers answer whatever the node asks, and the disk works, for some rounds.
fn all_honest(host: &mut Host, rounds: usize) {
    for _ in 0..rounds {
        for peer in 0..PEERS {
            for _ in 0..host.peers[peer].asked() {
                answer_honestly(host, peer, 0, true);
            }
        }
        for _ in 0..host.disk_ops().min(64) {
            host.disk(0, None);
        }
        host.dial(true);
        for id in host.streams.keys().copied().collect::<Vec<_>>() {
            let (node, fixture) = (host.node.id(), host.fixture.clone());
            if let Some(stream) = host.streams.get_mut(&id) {
                stream.answer(&node, &fixture, 0);
            }
            host.settle();
        }
        host.pass(Duration::from_millis(200));
    }
}
