//! Many nodes fetch one file: the bytes that its only source sends, and the times at which the first and the last node have it.

use super::hostile::{NOW, OnePiece, Puppet, machine, machine_with};
use super::world::{World, content, manifest, target};
use crate::id::{Key, PublicKey};
use crate::identity::Identity;
use crate::io::{Extent, Place};
use crate::limits::Limits;
use crate::manifest::{CHUNK_BYTES_MIN, Content};
use crate::time::Duration;
use crate::transfer::*;
use crate::wire::contact::Contact;
use crate::wire::contact::WireContact;
use crate::wire::frame::{Frame, Parsed, Refusal, SOURCES_MAX};
use core::net::SocketAddr;
use zerocopy::little_endian::U32;

const CHUNK: usize = CHUNK_BYTES_MIN as usize;
const TICK: Duration = Duration::from_millis(10);

/// The time at which each of the nodes from 1 on had the whole file; `None` for a node that did not get it in time. Every node
/// sends at most the rate of its uplink, in bytes per second.
fn finish(world: &mut World, uplinks: &[u64], seconds: u64) -> Vec<Option<Duration>> {
    let start = world.now;
    let mut done = vec![None; world.nodes.len() - 1];
    while world.now < start + Duration::from_secs(seconds) && done.contains(&None) {
        world.tick(TICK, uplinks);
        for (node, at) in done.iter_mut().enumerate() {
            if at.is_none() && world.is_complete(node + 1, 1) {
                *at = Some(world.now.since(start));
            }
        }
    }
    done
}

/// One node has a file of `chunks` chunks. Seven others fetch it at the same time and know only that node. Returns how much of
/// the file the source sends, in percent, and when the first and the last of the seven have it.
fn one_to_seven(chunks: usize, uplinks: [u64; 8], slots: usize) -> (u64, Duration, Duration) {
    let limits = Limits { uploads_max: slots, ..Limits::default() };
    let mut world = World::with(8, limits);
    let bytes = content(chunks * CHUNK, 1);
    let hash = world.nodes[0].share(&bytes).hash();
    (1..8).for_each(|node| world.fetch(node, 1, hash, &[0]));
    let done = finish(&mut world, &uplinks, 600);
    for node in 1..8 {
        assert!(world.is_complete(node, 1), "node {node}: {:?}", world.nodes[node].transfer.counters());
        assert!(world.nodes[node].files[&target()] == bytes);
    }
    let sent = world.nodes[0].transfer.uploaded_bytes();
    let times = done.into_iter().flatten();
    let (first, last) = (times.clone().min().unwrap(), times.max().unwrap());
    (sent * 100 / bytes.len() as u64, first, last)
}

#[test]
fn one_source_sends_hardly_more_than_one_copy_to_seven() {
    for (slots, uplink) in [(8, 16 << 20), (3, 32 << 20)] {
        let (copies, first, last) = one_to_seven(160, [uplink; 8], slots);
        let said = format!("{slots} slots: {copies} % of the file, {first:?} to {last:?}");
        assert!(copies <= 130, "{said}");
        assert!(last <= first + first / 4, "{said}");
        // No node can have it before its only source has sent all of it.
        let once = Duration::from_micros((160 * CHUNK) as u64 * 1_000_000 / uplink);
        assert!(last < once + once / 2, "{said}, {once:?} to send it once");
    }
}

#[test]
fn one_slow_fetcher_does_not_hold_up_the_others() {
    let mut uplinks = [16 << 20; 8];
    uplinks[3] = 64 << 10;
    let (copies, _, last) = one_to_seven(96, uplinks, 8);
    let once = Duration::from_millis(96 * 1000 / 64);
    assert!(last < once * 3, "{last:?}, {once:?} to send it once");
    assert!(copies <= 250, "{copies} % of the file");
}

/// Takes the frames that a puppet has received, as text.
fn heard(puppet: &mut Puppet) -> Vec<String> {
    let bytes = core::mem::take(&mut puppet.heard);
    let (mut at, mut frames) = (0, Vec::new());
    while let Ok(Parsed::Frame(frame, used)) = Frame::parse(&bytes[at..]) {
        frames.push(format!("{frame:?}"));
        at += used;
    }
    frames
}

/// Takes the numbers of the requests that a puppet has received.
fn requests(puppet: &mut Puppet) -> Vec<u32> {
    let bytes = core::mem::take(&mut puppet.heard);
    let (mut at, mut numbers) = (0, Vec::new());
    while let Ok(Parsed::Frame(frame, used)) = Frame::parse(&bytes[at..]) {
        if let Frame::Request { request, .. } = frame {
            numbers.push(request);
        }
        at += used;
    }
    numbers
}

/// A machine that fetches a file of `chunks` chunks from a puppet.
fn fetching(chunks: usize) -> ((Transfer, Identity), Puppet, Key) {
    let file = manifest(&content(chunks * CHUNK, 3));
    let mut machine = machine();
    let mut puppet = Puppet::authenticated(1, &mut machine);
    machine.0.begin(NOW, DownloadId(1), file.clone(), target(), vec![false; chunks]);
    machine.0.add_sources(NOW, DownloadId(1), &[puppet.contact()]);
    puppet.listen(&mut machine);
    (machine, puppet, file.hash())
}

#[test]
fn sources_known_by_hearsay_get_only_a_few_places_until_they_are_reached() {
    let (mut machine, mut puppet, file) = fetching(40);
    for round in 0..4 {
        let contact = |seed: u8| {
            let addr = SocketAddr::from(([10, 9, round, seed], 9));
            WireContact::new(&Contact::new(PublicKey([seed ^ (round << 5); 32]), addr), 0)
        };
        let contacts: Vec<WireContact> = (1..=SOURCES_MAX as u8).map(contact).collect();
        puppet.say(&mut machine, &Frame::Sources { file, contacts: &contacts });
        puppet.say(&mut machine, &Frame::Sources { file: Key([8; 32]), contacts: &contacts });
    }
    let sources = |machine: &Transfer| machine.download_state(DownloadId(1)).unwrap().sources;
    assert_eq!(sources(&machine.0), 1 + 8);
    assert_eq!(machine.0.counters().sources_unasked, 4);
    assert!(!puppet.closed);
    // The bound holds for each peer: sources that another peer names are still added.
    let mut honest = Puppet::authenticated(2, &mut machine);
    machine.0.add_sources(NOW, DownloadId(1), &[honest.contact()]);
    let other = Contact::new(PublicKey([99; 32]), SocketAddr::from(([10, 9, 9, 9], 9)));
    honest.say(&mut machine, &Frame::Sources { file, contacts: &[WireContact::new(&other, 0)] });
    assert_eq!(sources(&machine.0), 1 + 8 + 2);
}

#[test]
fn announcements_of_a_source_that_refuses_the_announced_chunks_are_soon_ignored() {
    let (mut machine, mut puppet, file) = fetching(40);
    let all: Vec<U32> = (0..40).map(U32::new).collect();
    let mut asked = 0;
    for _ in 0..100 {
        puppet.say(&mut machine, &Frame::Gained { file, chunks: &all });
        for request in requests(&mut puppet) {
            asked += 1;
            puppet.say(&mut machine, &Frame::Refuse { request, reason: Refusal::NotFound });
        }
    }
    // Each chunk that it announced before it was ignored is requested once.
    assert!((8..=48).contains(&asked), "{asked} requests");
    puppet.say(&mut machine, &Frame::Gained { file: Key([7; 32]), chunks: &[U32::new(u32::MAX)] });
    assert!(!puppet.closed, "a file that is not being fetched");
}

#[test]
fn announcing_a_chunk_that_the_file_does_not_have_ends_the_stream() {
    let (mut machine, mut puppet, file) = fetching(40);
    puppet.say(&mut machine, &Frame::Gained { file, chunks: &[U32::new(40)] });
    assert!(puppet.closed);
}

#[test]
fn a_follower_is_told_what_is_gained_as_fast_as_it_reads() {
    let file = manifest(&content(2000, 3));
    let chunks = 4000;
    let mut machine = machine();
    let mut puppet = Puppet::authenticated(1, &mut machine);
    puppet.say(&mut machine, &Frame::Follow { file: file.hash(), over: false });
    for number in 0..16 {
        puppet.say(&mut machine, &Frame::Follow { file: Key([number; 32]), over: false });
    }
    assert_eq!(machine.0.counters().follow_refused, 1, "16 files and no more");
    machine.0.handle_drained(NOW, puppet.stream, &mut OnePiece(None));
    heard(&mut puppet);
    (0..chunks).for_each(|chunk| machine.0.tell_gained(&file.hash(), chunk));
    puppet.listen(&mut machine);
    assert!(puppet.heard.len() < 8 << 10, "{} bytes to a peer that does not read", puppet.heard.len());
    let mut told = 0;
    for _ in 0..chunks {
        let bytes = core::mem::take(&mut puppet.heard);
        let mut at = 0;
        while let Ok(Parsed::Frame(Frame::Gained { chunks, .. }, used)) = Frame::parse(&bytes[at..]) {
            told += chunks.len();
            at += used;
        }
        machine.0.handle_drained(NOW, puppet.stream, &mut OnePiece(None));
        puppet.listen(&mut machine);
    }
    assert_eq!(told, chunks as usize);
    puppet.say(&mut machine, &Frame::Follow { file: file.hash(), over: true });
    machine.0.tell_gained(&file.hash(), 1);
    puppet.listen(&mut machine);
    assert_eq!(heard(&mut puppet), [""; 0]);
}

#[test]
fn a_peer_may_follow_one_file_after_the_other_but_not_change_all_the_time() {
    let ((mut machine, identity), mut puppet, file) = fetching(40);
    let mut now = NOW;
    let mut say = |machine: &mut Transfer, now, file, over| {
        let bytes = puppet.written(&Frame::Follow { file, over });
        machine.handle_bytes(now, puppet.stream, &bytes, &identity, &mut OnePiece(None));
        machine.counters().follow_refused
    };
    for number in 0..100 {
        for over in [false, true] {
            now = now + Duration::from_secs(1);
            assert_eq!(say(&mut machine, now, Key([number; 32]), over), 0, "file {number}");
        }
    }
    for change in 0..1000 {
        say(&mut machine, now, file, change % 2 == 1);
    }
    // A refused change has no effect, so the opposite change after it is a repetition, not a refusal: half are refused.
    assert!(say(&mut machine, now, file, false) >= 450);
    puppet.listen(&mut (machine, identity));
    assert!(!puppet.closed);
}

#[test]
fn a_peer_that_waits_for_a_slot_is_served_in_turn_told_when_busy_and_not_held_up_by_one_that_does_not_read() {
    let mut machine = machine_with(Limits { uploads_max: 1, ..Limits::default() });
    let mut puppets: Vec<Puppet> = (1..=3).map(|seed| Puppet::authenticated(seed, &mut machine)).collect();
    let extent = Extent { place: Place::Cache(Key([1; 32])), offset: 0, length: 1 << 20, stamp: None };
    let mut pieces = OnePiece(Some((Content::Chunk, extent)));
    for puppet in &mut puppets {
        puppet.pieces = pieces.clone();
        for request in 1..=4 {
            puppet.say(&mut machine, &Frame::Request { request, key: Key([1; 32]) });
            puppet.listen(&mut machine);
        }
    }
    let blocks = |puppet: &mut Puppet| heard(puppet).iter().filter(|it| it.starts_with("Block")).count();
    assert_eq!(puppets.iter_mut().map(blocks).collect::<Vec<_>>(), [2, 0, 0]);
    // The first has taken its content: the slot goes to the next.
    machine.0.handle_drained(NOW, puppets[0].stream, &mut pieces);
    puppets[1].listen(&mut machine);
    assert_eq!(puppets.iter_mut().map(blocks).collect::<Vec<_>>(), [0, 2, 0]);
    // The second takes nothing: after a second its slot goes to another.
    let at = machine.0.next_deadline().unwrap();
    assert_eq!(at.since(NOW).as_secs(), 1);
    machine.0.handle_timeout(at);
    puppets[2].listen(&mut machine);
    assert_eq!(puppets.iter_mut().map(blocks).collect::<Vec<_>>(), [0, 0, 2]);
    // The first waits again, and is told after two seconds that this node is busy.
    machine.0.handle_timeout(NOW + Duration::from_millis(1900));
    puppets[0].listen(&mut machine);
    assert!(heard(&mut puppets[0]).is_empty());
    machine.0.handle_timeout(NOW + Duration::from_secs(2));
    puppets[0].listen(&mut machine);
    let busy = |request| format!("{:?}", Frame::Refuse { request, reason: Refusal::Busy });
    assert_eq!(heard(&mut puppets[0]), [busy(3), busy(4)]);
}
