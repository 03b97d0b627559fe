//! Copies to other nodes.

use super::world::{World, content, manifest};
use crate::io::Mode;
use crate::io::{Extent, Place};
use crate::limits::Limits;
use crate::manifest::{CHUNK_BYTES_MIN, Content};
use crate::transfer::*;
use crate::wire::frame::{Offer, Refusal};

const CHUNK: usize = CHUNK_BYTES_MIN as usize;

/// Node 0 shares a file of three chunks. Returns the offers of the chunks and of the manifest.
fn offers(world: &mut World) -> Vec<(Offer, Extent)> {
    let bytes = content(2 * CHUNK + 99, 1);
    let manifest = manifest(&bytes);
    world.nodes[0].share(&bytes);
    let keys = manifest.keys().iter().copied().zip(0..).chain([(manifest.hash(), 0)]);
    keys.map(|(key, index)| {
        let (content, extent) = world.nodes[0].pieces[&key].clone();
        let input_offset = if content == Content::Chunk { manifest.chunk_offset(index) } else { 0 };
        let offer = Offer {
            key,
            content,
            length: extent.length,
            input_offset,
            replicas: 3,
            mode: Mode::UNKNOWN,
            lifetime: 3600,
            claim: None,
        };
        (offer, extent)
    })
    .collect()
}

fn push(world: &mut World, id: u64, (offer, extent): &(Offer, Extent)) {
    let (now, target) = (world.now, world.nodes[1].contact);
    assert!(world.nodes[0].transfer.push(now, PushId(id), target, *offer, extent.clone()));
}

/// Node 1 has the file, too, and answers so.
fn has_all(world: &mut World) {
    world.nodes[1].share(&content(2 * CHUNK + 99, 1));
    world.nodes[1].verdict = Verdict::Have;
}

fn result(world: &World, id: u64) -> Option<Result<PushOutcome, PushError>> {
    world.nodes[0].events.iter().find_map(|event| match event {
        TransferEvent::PushDone { push, result, .. } if push.0 == id => Some(result.clone()),
        _ => None,
    })
}

#[test]
fn a_chunk_and_a_manifest_are_copied_and_acknowledged_when_durable() {
    let mut world = World::new(2);
    world.step = 4099;
    let offers = offers(&mut world);
    push(&mut world, 1, &offers[2]);
    world.settle();
    assert_eq!(result(&world, 1), Some(Ok(PushOutcome::Stored)));
    assert_eq!(world.nodes[1].files[&Place::Incoming(1)].len(), 99);
    world.nodes[1].verdict = Verdict::Send { incoming: 2 };
    push(&mut world, 2, &offers[3]);
    world.settle();
    assert_eq!(result(&world, 2), Some(Ok(PushOutcome::Stored)));
    let in_memory =
        |event: &TransferEvent| matches!(event, TransferEvent::Arrived { bytes: Some(_), incoming: 2, .. });
    assert!(world.has_event(1, in_memory));
}

#[test]
fn a_piece_that_the_target_has_is_not_sent_and_a_refusal_is_reported() {
    let mut world = World::new(2);
    let offers = offers(&mut world);
    has_all(&mut world);
    push(&mut world, 1, &offers[0]);
    world.settle();
    assert_eq!(result(&world, 1), Some(Ok(PushOutcome::Had)));
    world.nodes[1].verdict = Verdict::Refuse(Refusal::NoSpace);
    push(&mut world, 2, &offers[0]);
    world.settle();
    assert_eq!(result(&world, 2), Some(Err(PushError::Refused(Refusal::NoSpace))));
    assert_eq!(world.nodes[0].blocks_sent, 0);
}

#[test]
fn an_impossible_offer_does_not_reach_the_node() {
    let mut world = World::new(2);
    let (offer, extent) = offers(&mut world).remove(0);
    push(&mut world, 1, &(Offer { input_offset: 5, ..offer }, extent));
    world.settle();
    assert_eq!(result(&world, 1), Some(Err(PushError::Refused(Refusal::Invalid))));
    assert_eq!(world.nodes[1].offered, 0);
}

#[test]
fn content_for_which_there_is_no_room_any_more_is_discarded_and_refused_and_the_stream_goes_on() {
    let mut world = World::new(2);
    let offers = offers(&mut world);
    world.nodes[1].has_room = false;
    // A chunk, which would go to a file, and a manifest, which would be collected in memory.
    for (id, offer) in [(1, &offers[0]), (2, &offers[3])] {
        push(&mut world, id, offer);
        world.settle();
        assert_eq!(result(&world, id), Some(Err(PushError::Refused(Refusal::NoSpace))), "{id}");
    }
    assert!(!world.has_event(1, |event| matches!(event, TransferEvent::Arrived { .. })));
    assert!(world.nodes[1].files.is_empty(), "nothing was written");
    world.nodes[1].has_room = true;
    push(&mut world, 3, &offers[1]);
    world.settle();
    assert_eq!(result(&world, 3), Some(Ok(PushOutcome::Stored)));
    assert_eq!(world.nodes[1].transfer.streams(), 1);
}

#[test]
fn repeated_copies_that_do_not_verify_end_the_stream() {
    let mut world = World::new(2);
    let offers = offers(&mut world);
    world.nodes[0].corrupt = true;
    let (from, to) = (world.nodes[0].contact.id, world.nodes[1].contact.id);
    for (id, (offer, extent)) in (1..).zip(&offers[..3]) {
        assert!(!world.nodes[1].transfer.is_shunned(world.now, &from));
        world.nodes[1].verdict = Verdict::Send { incoming: id };
        push(&mut world, id, &(*offer, extent.clone()));
        world.settle();
        let failed = |event: &TransferEvent| *event == TransferEvent::ArrivalFailed { incoming: id };
        assert!(world.has_event(1, failed));
        assert_eq!(result(&world, id), Some(Err(PushError::Refused(Refusal::Mismatch))));
        // The peer that offered it learns that its copy is suspect.
        let told = TransferEvent::Reported { peer: to, key: offer.key };
        assert!(world.has_event(0, |event| *event == told));
        if id == 1 {
            // The same copy is not sent again until its holder has checked it.
            push(&mut world, 99, &offers[0]);
            world.settle();
            assert_eq!(result(&world, 99), Some(Err(PushError::Refused(Refusal::Mismatch))));
            assert_eq!(world.counters(1).offer_banned, 1);
        }
    }
    assert_eq!(world.counters(1).offer_mismatch, 3);
    assert_eq!(world.counters(0).report_received, 3);
    assert!(!world.has_event(1, |event| matches!(event, TransferEvent::Arrived { .. })));
    assert!(world.nodes[1].transfer.is_shunned(world.now, &from));
    assert_eq!(world.nodes[1].transfer.streams(), 0, "closed, but not before it was told");
}

#[test]
fn an_unreachable_target_a_broken_stream_and_an_unreadable_file_are_distinguished() {
    let mut world = World::new(2);
    let offers = offers(&mut world);
    world.nodes[1].reachable = false;
    push(&mut world, 1, &offers[0]);
    world.settle();
    assert_eq!(result(&world, 1), Some(Err(PushError::Unreachable)));
    world.nodes[1].reachable = true;
    world.nodes[0].unreadable = true;
    push(&mut world, 2, &offers[0]);
    world.settle();
    assert!(matches!(result(&world, 2), Some(Err(PushError::Source(_)))));
    world.nodes[0].unreadable = false;
    world.nodes[0].blocks_before_mute = Some(0);
    world.nodes[1].verdict = Verdict::Send { incoming: 7 };
    push(&mut world, 3, &offers[0]);
    assert!(world.run(120, |world| result(world, 3).is_some()));
    assert_eq!(result(&world, 3), Some(Err(PushError::Lost)));
    assert!(world.has_event(1, |event| *event == TransferEvent::ArrivalFailed { incoming: 7 }));
}

#[test]
fn more_copies_than_the_peer_takes_at_a_time_follow_one_another() {
    let mut world = World::with(2, Limits { pushes_max: 16, ..Limits::default() });
    let offers = offers(&mut world);
    has_all(&mut world);
    (0..16).for_each(|id| push(&mut world, id, &offers[0]));
    let (now, target) = (world.now, world.nodes[1].contact);
    let (offer, extent) = offers[0].clone();
    assert!(!world.nodes[0].transfer.push(now, PushId(99), target, offer, extent));
    world.settle();
    assert!((0..16).all(|id| result(&world, id) == Some(Ok(PushOutcome::Had))));
    assert_eq!(world.nodes[0].transfer.pushes(), 0);
}

#[test]
fn an_acknowledged_copy_that_is_not_kept_does_not_count() {
    let mut world = World::new(2);
    let offers = offers(&mut world);
    world.nodes[1].keeps = false;
    for (id, offer) in (1..).zip(&offers) {
        world.nodes[1].verdict = Verdict::Send { incoming: id };
        push(&mut world, id, offer);
        world.settle();
        assert_eq!(result(&world, id), Some(Err(PushError::Unproven)));
    }
    assert_eq!(world.counters(1).offer_arrived, 4, "all of them were acknowledged");
    assert_eq!(world.nodes[0].transfer.pushes(), 0);
}

#[test]
fn a_piece_that_the_target_claims_to_have_counts_only_with_a_proof() {
    let mut world = World::new(2);
    let offers = offers(&mut world);
    world.nodes[1].verdict = Verdict::Have;
    push(&mut world, 1, &offers[0]);
    world.settle();
    assert_eq!(result(&world, 1), Some(Err(PushError::Unproven)));
    assert_eq!(world.counters(0).proof_wrong, 1);
}

#[test]
fn a_copy_with_other_bytes_than_were_sent_does_not_count() {
    let mut world = World::new(2);
    let offers = offers(&mut world);
    has_all(&mut world);
    world.nodes[1].files.values_mut().for_each(|file| file.iter_mut().for_each(|byte| *byte ^= 1));
    push(&mut world, 1, &offers[0]);
    world.settle();
    assert_eq!(result(&world, 1), Some(Err(PushError::Unproven)));
}

#[test]
fn a_target_that_falls_silent_before_its_proof_has_not_proven_the_copy() {
    let mut world = World::new(2);
    let offers = offers(&mut world);
    has_all(&mut world);
    world.nodes[1].reads_nothing = true;
    push(&mut world, 1, &offers[0]);
    assert!(world.run(200, |world| result(world, 1).is_some()));
    assert_eq!(result(&world, 1), Some(Err(PushError::Lost)));
    assert!(!world.run(1000, |_| false));
    assert_eq!(world.nodes[0].transfer.proofs(), 0);
    assert_eq!(world.nodes[1].transfer.proofs(), 0);
}

#[test]
fn a_node_proves_on_request_only_what_it_has() {
    let mut world = World::new(3);
    let offers = offers(&mut world);
    world.nodes[1].share(&content(2 * CHUNK + 99, 1));
    for (number, target, expected) in [(1, 1, true), (2, 2, false)] {
        let (now, contact) = (world.now, world.nodes[target].contact);
        let (offer, extent) = offers[1].clone();
        assert!(world.nodes[0].transfer.prove(now, ProofId(number), contact, offer.key, extent));
        world.settle();
        let proven = |event: &TransferEvent| {
            matches!(event, TransferEvent::Proven { proof, target, proven }
                if proof.0 == number && *target == contact.id && *proven == expected)
        };
        assert!(world.has_event(0, proven), "node {target}");
    }
    world.nodes[2].reachable = false;
    world.vanish(2);
    let (now, contact) = (world.now, world.nodes[2].contact);
    let (offer, extent) = offers[1].clone();
    assert!(world.nodes[0].transfer.prove(now, ProofId(3), contact, offer.key, extent));
    world.settle();
    assert!(world.has_event(
        0,
        |event| matches!(event, TransferEvent::Proven { proof, proven: false, .. } if proof.0 == 3)
    ));
}

#[test]
fn a_peer_that_challenges_too_much_at_once_is_dropped() {
    use super::hostile::{NOW, OnePiece, Puppet, machine};
    use crate::id::Key;
    use crate::wire::frame::Frame;
    let challenge = |count: u32| {
        let mut machine = machine();
        let mut puppet = Puppet::authenticated(1, &mut machine);
        let extent = Extent { place: Place::Piece(Key([1; 32])), offset: 0, length: 5000, stamp: None };
        puppet.pieces = OnePiece(Some((Content::File, extent)));
        for question in 0..count {
            puppet.say(&mut machine, &Frame::Challenge { question, key: Key([1; 32]), nonce: [1; 32] });
        }
        // A sample that is read late has no effect on a stream that is closed.
        let mut samples = Vec::new();
        while let Some(event) = machine.0.poll_event() {
            samples.extend(match event {
                TransferEvent::SampleNeeded { sample, .. } => Some(sample),
                _ => None,
            });
        }
        assert!(samples.len() <= 16);
        samples.into_iter().for_each(|sample| machine.0.sampled(NOW, sample, Ok(vec![0; 5000])));
        puppet.listen(&mut machine);
        puppet.closed
    };
    assert!(!challenge(16));
    assert!(challenge(17));
}
