//! Sources of wrong content: bans, reports, and the pieces that are still requested from them.

use super::hostile::{NOW, OnePiece, Puppet, machine};
use super::world::{World, content, target};
use crate::id::Key;
use crate::io::{Extent, Place};
use crate::manifest::{CHUNK_BYTES_MIN, Content};
use crate::time::Duration;
use crate::transfer::*;
use crate::wire::frame::Frame;

const CHUNK: usize = CHUNK_BYTES_MIN as usize;

/// Flips one bit of a file that a node shares.
fn rot(world: &mut World, node: usize, file: &Key, at: usize) {
    let place = Place::File(std::path::Path::new(&format!("/{file}")).into());
    world.nodes[node].files.get_mut(&place).expect("it is shared")[at] ^= 1;
}

fn blamed(world: &World, node: usize) -> Vec<Ban> {
    let bad = |event: &TransferEvent| match event {
        TransferEvent::SourceBad { ban, .. } => Some(*ban),
        _ => None,
    };
    world.nodes[node].events.iter().filter_map(bad).collect()
}

#[test]
fn a_source_with_one_rotten_chunk_is_banned_from_that_file_only() {
    let mut world = World::new(3);
    let (rotten, sound) = (content(12 * CHUNK, 4), content(5 * CHUNK, 5));
    let file = world.nodes[1].share(&rotten);
    world.nodes[2].share(&rotten);
    let other = world.nodes[1].share(&sound);
    rot(&mut world, 1, &file.hash(), 3 * CHUNK + 7);
    world.fetch(0, 1, file.hash(), &[1]);
    assert!(world.run(60, |world| !blamed(world, 0).is_empty()));
    let (now, sound_one) = (world.now, world.contacts(&[2]));
    world.nodes[0].transfer.add_sources(now, DownloadId(1), &sound_one);
    assert!(world.run(60, |world| world.is_complete(0, 1)));
    assert!(world.nodes[0].files[&target()] == rotten);
    let bad = world.nodes[1].contact.id;
    let ban = blamed(&world, 0)[0];
    assert_eq!(ban.peer.id, bad);
    assert_eq!(ban.file, Some(file.hash()));
    assert_eq!(ban.times, 1);
    assert!(world.nodes[0].transfer.is_banned(world.now, &bad, &file.hash()));
    assert!(!world.nodes[0].transfer.is_shunned(world.now, &bad));
    let told = TransferEvent::Reported { peer: world.nodes[0].contact.id, key: file.keys()[3] };
    assert!(world.has_event(1, |event| *event == told), "{:?}", world.nodes[1].events);
    world.nodes[0].files.remove(&target());
    // The stream is still open, and the other file arrives over it at once.
    let connected = world.counters(0).stream_connected;
    world.fetch(0, 2, other.hash(), &[1]);
    world.settle();
    assert!(world.is_complete(0, 2) && world.nodes[0].files[&target()] == sound);
    assert_eq!(world.counters(0).stream_connected, connected);
}

#[test]
fn the_only_source_is_asked_again_when_its_ban_ends() {
    let mut world = World::new(2);
    let bytes = content(6 * CHUNK, 6);
    let file = world.nodes[1].share(&bytes);
    rot(&mut world, 1, &file.hash(), 5 * CHUNK);
    world.fetch(0, 1, file.hash(), &[1]);
    world.settle();
    let state = world.nodes[0].transfer.download_state(DownloadId(1)).unwrap();
    assert_eq!(state.banned, 1);
    assert_eq!(state.connected, 0);
    assert!(state.idle);
    assert_eq!(world.nodes[0].transfer.download_banned(DownloadId(1)), [world.nodes[1].contact.id]);
    rot(&mut world, 1, &file.hash(), 5 * CHUNK);
    let until = blamed(&world, 0)[0].until;
    assert!(
        !world.run(119, |world| world.is_complete(0, 1)),
        "the download must wait for the end of the ban"
    );
    assert!(world.run(30, |world| world.is_complete(0, 1)));
    assert!(world.now >= until && world.nodes[0].files[&target()] == bytes);
}

#[test]
fn a_ban_that_is_lifted_lets_the_download_go_on_at_once() {
    let mut world = World::new(2);
    let bytes = content(3 * CHUNK, 7);
    let file = world.nodes[1].share(&bytes);
    rot(&mut world, 1, &file.hash(), 9);
    world.fetch(0, 1, file.hash(), &[1]);
    world.settle();
    rot(&mut world, 1, &file.hash(), 9);
    let (now, bad) = (world.now, world.nodes[1].contact.id);
    assert_eq!(world.nodes[0].transfer.bans(now).len(), 1);
    assert_eq!(world.nodes[0].transfer.forgive(now, Some(&bad)), 1);
    world.settle();
    assert!(world.is_complete(0, 1) && world.nodes[0].files[&target()] == bytes);
    assert!(world.nodes[0].transfer.bans(now).is_empty());
}

#[test]
fn a_source_of_wrong_bytes_in_three_files_is_shunned_and_let_in_again_after_minutes() {
    let mut world = World::new(3);
    world.nodes[1].corrupt = true;
    for number in 1..=3 {
        let bytes = content(4 * CHUNK, 10 + number as u8);
        let file = world.nodes[1].share(&bytes);
        world.nodes[2].share(&bytes);
        world.fetch(0, number, file.hash(), &[1]);
        world.settle();
        let (now, honest) = (world.now, world.contacts(&[2]));
        world.nodes[0].transfer.add_sources(now, DownloadId(number), &honest);
        assert!(world.run(60, |world| world.is_complete(0, number)));
        world.nodes[0].files.remove(&target());
    }
    let (bad, now) = (world.nodes[1].contact.id, world.now);
    assert!(world.nodes[0].transfer.is_shunned(now, &bad));
    let before = world.counters(0).stream_connected;
    world.fetch(0, 4, Key([9; 32]), &[1]);
    world.settle();
    assert_eq!(world.counters(0).stream_connected, before, "a shunned peer must not be dialled");
    let contact = world.contacts(&[0]);
    assert!(world.nodes[1].transfer.fetch(now, DownloadId(5), Key([9; 32]), &contact));
    world.settle();
    assert!(world.counters(0).peer_shunned > 1, "nor accepted");
    world.nodes[1].transfer.abort(now, DownloadId(5));
    world.now = world.now + Duration::from_secs(121);
    assert!(!world.nodes[0].transfer.is_shunned(world.now, &bad));
}

#[test]
fn reports_about_pieces_not_sent_recently_and_reports_over_the_bound_are_ignored() {
    let mut machine = machine();
    let mut puppet = Puppet::authenticated(1, &mut machine);
    let key = |number: u8| Key([number; 32]);
    puppet.say(&mut machine, &Frame::Unverified { key: key(0) });
    assert_eq!(machine.0.counters().report_unfounded, 1);
    for number in 1..=20 {
        let extent = Extent { place: Place::Piece(key(number)), offset: 0, length: 5, stamp: None };
        puppet.pieces = OnePiece(Some((Content::File, extent)));
        puppet.say(&mut machine, &Frame::Request { request: u32::from(number), key: key(number) });
        machine.0.handle_drained(NOW, puppet.stream, &mut OnePiece(None));
        puppet.say(&mut machine, &Frame::Unverified { key: key(number) });
        puppet.say(&mut machine, &Frame::Unverified { key: key(number) });
    }
    assert!(!puppet.closed, "a late report must not end the stream");
    assert_eq!(machine.0.counters().report_received, 16);
    assert_eq!(machine.0.counters().report_over_budget, 4);
    assert_eq!(machine.0.counters().report_unfounded, 21);
    let reported = |event: &TransferEvent| matches!(event, TransferEvent::Reported { .. });
    assert_eq!(core::iter::from_fn(|| machine.0.poll_event()).filter(reported).count(), 16);
}
