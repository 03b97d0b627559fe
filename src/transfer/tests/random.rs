//! In any order of events: downloads are correct, every wait ends, and nothing panics.

use super::hostile::{NOW, OnePiece, Puppet, machine};
use super::world::{World, content, disk_error, manifest, target};
use crate::id::Key;
use crate::identity::Identity;
use crate::io::Mode;
use crate::io::{DiskError, DiskErrorKind, Extent, Place, Sink, StreamId};
use crate::manifest::{CHUNK_BYTES_MIN, Content};
use crate::rng::Rng;
use crate::time::Duration;
use crate::transfer::*;
use crate::wire::frame::{Frame, Offer, Parsed, Refusal};
use crate::wire::inspect::{InspectEntry, WireInspectEntry};
use zerocopy::little_endian::U32;

#[test]
fn a_download_from_faulty_sources_and_one_good_one_always_completes() {
    for seed in 0..25 {
        let mut rng = Rng::new([seed; 32]);
        let mut world = World::new(5);
        let chunks = 2 + rng.below(9) as usize;
        let bytes = content(chunks * CHUNK_BYTES_MIN as usize - rng.below(1000) as usize, seed);
        let hash = manifest(&bytes).hash();
        (1..5).for_each(|node| _ = world.nodes[node].share(&bytes));
        world.step = 20_000 + rng.below(400_000) as usize;
        world.fetch(0, 1, hash, &[1, 2, 3, 4]);
        let (now, target_of_push) = (world.now, world.nodes[0].contact);
        for (id, (&key, (content, extent))) in world.nodes[1].pieces.clone().iter().enumerate() {
            let input_offset = if *content == Content::Chunk { extent.offset } else { 0 };
            let (content, length) = (*content, extent.length);
            let offer = Offer {
                key,
                content,
                length,
                input_offset,
                replicas: 1,
                mode: Mode::UNKNOWN,
                lifetime: 9,
                claim: None,
            };
            let push = PushId(id as u64);
            world.nodes[1].transfer.push(now, push, target_of_push, offer, extent.clone());
        }
        let mut rounds = 0;
        loop {
            // Node 4 has no faults.
            let node = 1 + rng.below(3) as usize;
            match rng.below(8) {
                0 => world.vanish(node),
                1 => world.nodes[node].reachable = true,
                2 => world.nodes[node].mute = true,
                3 => world.nodes[node].mute = false,
                4 => world.nodes[node].blocks_before_mute = Some(rng.below(4) as u32),
                5 => world.nodes[node].corrupt = rng.below(3) == 0,
                6 => world.nodes[node].unreadable = rng.below(2) == 0,
                _ => {}
            }
            (0..rng.below(60)).for_each(|_| _ = world.turn());
            if rng.below(3) == 0 {
                let pause = 1 + rng.below(8);
                world.run(pause, |world| world.is_complete(0, 1));
                world.now = world.now + Duration::from_millis(1);
            }
            rounds += 1;
            if world.is_complete(0, 1) {
                break;
            }
            assert!(rounds < 400, "seed {seed}: {:?}", world.nodes[0].transfer.counters());
        }
        assert!(world.nodes[0].files[&target()] == bytes, "seed {seed}");
        assert!(!world.has_event(
            0,
            |event| matches!(event, TransferEvent::SourceBad { ban, .. } if ban.peer.id == world.nodes[4].contact.id)
        ));
        // Every wait ends.
        world.run(1000, |_| false);
        for node in &world.nodes {
            let left = (node.transfer.streams(), node.transfer.pushes(), node.transfer.next_deadline());
            assert_eq!(left, (0, 0, None), "seed {seed}");
        }
    }
}

const CHUNKS: [U32; 3] = [U32::new(1), U32::new(127), U32::new(5)];

/// A frame that any peer could send: numbers are small, so that some of them hit.
fn any_frame<'a>(rng: &mut Rng, keys: &'a [Key]) -> Frame<'a> {
    let request = rng.below(12) as u32;
    let content = Content::from_number(rng.below(3) as u8).unwrap();
    let length = [0, 1, 99, 1000, CHUNK_BYTES_MIN as u32, u32::MAX][rng.below(6) as usize];
    let key = keys[rng.below(keys.len() as u64) as usize];
    let input_offset = rng.below(3) * CHUNK_BYTES_MIN;
    let offer = Offer {
        key,
        content,
        length,
        input_offset,
        replicas: 1,
        mode: Mode::UNKNOWN,
        lifetime: 9,
        claim: None,
    };
    match rng.below(19) {
        0 => Frame::Request { request, key },
        1 => Frame::Cancel { request },
        2 => Frame::Block { request, content, length, mode: Mode::UNKNOWN },
        3 => Frame::Refuse { request, reason: [Refusal::Busy, Refusal::NotFound][rng.below(2) as usize] },
        4 => Frame::Which { question: request, keys },
        5 | 6 => Frame::Have { question: request, bitmap: [[255; 16], [0; 16]][rng.below(2) as usize] },
        7 => Frame::Store { request, offer },
        8 => Frame::Accept { request, have: rng.below(4) == 0 },
        9 => Frame::StoreData { request, length },
        10 => Frame::Inspect { question: request, keys: &keys[..rng.below(3) as usize] },
        11 => Frame::Inspected { question: request, entries: &[] },
        12 => Frame::Follow { file: [key, Key([3; 32])][rng.below(2) as usize], over: rng.below(3) == 0 },
        13 => Frame::Gained { file: Key([3; 32]), chunks: &CHUNKS },
        14 => Frame::Sources { file: Key([3; 32]), contacts: &[] },
        15 => Frame::Unverified { key },
        16 => Frame::Challenge { question: request, key, nonce: [9; 32] },
        17 => Frame::Possession { question: request, proof: Some([9; 32]) },
        _ => Frame::Stored { request },
    }
}

/// Says the next frame that the protocol allows the peer, and sometimes a slightly different one.
fn say_fitting(rng: &mut Rng, puppet: &mut Puppet, machine: &mut (Transfer, Identity), keys: &[Key]) {
    let heard = core::mem::take(&mut puppet.heard);
    let Ok(Parsed::Frame(frame, used)) = Frame::parse(&heard) else { return };
    puppet.heard = heard[used..].to_vec();
    let chunk = CHUNK_BYTES_MIN as u32;
    let mut say = |frame: Frame<'_>| puppet.say(machine, &frame);
    match frame {
        Frame::Request { request, key } => {
            let length = if keys.last() == Some(&key) { 99 } else { chunk };
            let length = if rng.below(40) == 0 { length - 1 } else { length };
            say(match (rng.below(40), keys.contains(&key)) {
                (0..4, _) | (4..39, false) => Frame::Refuse { request, reason: Refusal::NotFound },
                (4, _) => Frame::Refuse { request, reason: Refusal::Busy },
                (_, true) => Frame::Block { request, content: Content::Chunk, length, mode: Mode::UNKNOWN },
                (_, false) => {
                    Frame::Block { request, content: Content::File, length: 9, mode: Mode::UNKNOWN }
                }
            });
        }
        Frame::Which { question, .. } => {
            say(Frame::Have { question, bitmap: [rng.below(256) as u8; 16] });
        }
        Frame::Store { request, .. } => {
            say(Frame::Accept { request, have: rng.below(5) == 0 });
        }
        Frame::StoreData { request, .. } => say(Frame::Stored { request }),
        Frame::Inspect { question, keys } => {
            let entries = vec![WireInspectEntry::new(&InspectEntry::default()); keys.len()];
            say(Frame::Inspected { question, entries: &entries });
        }
        Frame::Challenge { question, .. } => {
            say(Frame::Possession { question, proof: [None, Some([1; 32])][rng.below(2) as usize] });
        }
        Frame::Accept { request, have: false } => {
            say(Frame::StoreData { request, length: 99 });
        }
        Frame::Cancel { request } => say(Frame::Refuse { request, reason: Refusal::Busy }),
        _ => {}
    }
}

/// The driver's result for a sink: usually success.
fn sunk(rng: &mut Rng, sink: &Sink, keys: &[Key]) -> Result<Key, DiskError> {
    match (rng.below(50), &sink.place) {
        (0, _) => Ok(Key([0; 32])),
        (1, _) => Err(disk_error(DiskErrorKind::Failed)),
        (_, Place::Incoming(_)) => Ok(keys[127]),
        _ => Ok(keys[(sink.offset / CHUNK_BYTES_MIN) as usize]),
    }
}

/// A node that accepts everything, plausible or not.
fn react(machine: &mut Transfer, event: TransferEvent) {
    match event {
        TransferEvent::Arrived { stream, request, .. } => machine.stored(NOW, stream, request, Ok(())),
        TransferEvent::SampleNeeded { sample, .. } => machine.sampled(NOW, sample, Ok(vec![7; 99])),
        _ => {}
    }
}

#[test]
fn no_sequence_of_frames_makes_a_machine_panic_or_grow() {
    let file = manifest(&content(127 * CHUNK_BYTES_MIN as usize + 99, 1));
    let keys: Vec<Key> = file.keys().to_vec();
    let mut reached = std::collections::BTreeSet::new();
    for seed in 0..400_u32 {
        let mut seed_bytes = [7; 32];
        seed_bytes[..4].copy_from_slice(&seed.to_le_bytes());
        let mut rng = Rng::new(seed_bytes);
        let mut machine = machine();
        let mut puppet = Puppet::authenticated(1, &mut machine);
        let extent = Extent { place: target(), offset: 0, length: 99, stamp: None };
        puppet.pieces = OnePiece(Some((Content::File, extent)));
        let contact = puppet.contact();
        let have = vec![false; keys.len()];
        machine.0.begin(NOW, DownloadId(1), file.clone(), target(), have);
        machine.0.add_sources(NOW, DownloadId(1), &[contact]);
        machine.0.fetch(NOW, DownloadId(2), Key([3; 32]), &[contact]);
        let extent = Extent { place: target(), offset: 0, length: 99, stamp: None };
        let offer = Offer {
            key: keys[0],
            content: Content::File,
            length: 99,
            input_offset: 0,
            replicas: 1,
            mode: Mode::UNKNOWN,
            lifetime: 9,
            claim: None,
        };
        machine.0.push(NOW, PushId(1), contact, offer, extent);
        machine.0.inspect(NOW, InspectId(1), contact, keys[..64].to_vec());
        for _ in 0..200 {
            match rng.below(12) {
                0 => machine.0.handle_drained(NOW, puppet.stream, &mut puppet.pieces),
                1 => machine.0.handle_progress(NOW, puppet.stream, rng.below(5000)),
                2 if rng.below(4) == 0 => puppet.say_bytes(&mut machine, &[0; 300]),
                3 if rng.below(4) == 0 => puppet.say(&mut machine, &any_frame(&mut rng, &keys)),
                4 if rng.below(20) == 0 => machine.0.abort(NOW, DownloadId(1)),
                5 => {
                    let request = 1000 + rng.below(1000) as u32;
                    let key = keys[127];
                    let offer = Offer {
                        key,
                        content: Content::Chunk,
                        length: 99,
                        input_offset: CHUNK_BYTES_MIN,
                        ..offer
                    };
                    puppet.say(&mut machine, &Frame::Store { request, offer });
                }
                _ => say_fitting(&mut rng, &mut puppet, &mut machine, &keys),
            }
            if let (Some(sink), true) = (puppet.sink.take(), rng.below(10) > 0) {
                let result = sunk(&mut rng, &sink, &keys);
                machine.0.handle_sunk(NOW, puppet.stream, result);
            }
            while let Some(event) = machine.0.poll_event() {
                react(&mut machine.0, event);
            }
            puppet.listen(&mut machine);
            if puppet.closed {
                break;
            }
        }
        reached.extend(machine.0.counters().named().filter(|(_, count)| *count > 0).map(|(name, _)| name));
        machine.0.handle_closed(NOW, StreamId(1));
        assert_eq!(machine.0.streams(), 0);
        let mut now = NOW;
        while let Some(due) = machine.0.next_deadline().filter(|due| due.since(NOW).as_secs() < 100) {
            assert!(due > now);
            now = due;
            machine.0.handle_timeout(now);
            while machine.0.poll_output().is_some() {}
        }
    }
    for counter in [
        "inspect_asked",
        "inspect_done",
        "proof_asked",
        "proof_wrong",
        "chunk_received",
        "block_unneeded",
        "source_bad",
        "frame_unexpected",
        "offer_arrived",
    ] {
        assert!(reached.contains(counter), "{counter} is not among {reached:?}");
    }
}
