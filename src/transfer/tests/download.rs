//! Downloads deliver the shared file under every behaviour of the sources.

use super::world::{World, content, disk_error, manifest, target};
use crate::id::Key;
use crate::io::DiskErrorKind;
use crate::manifest::{CHUNK_BYTES_MIN, Manifest};
use crate::transfer::*;
use std::sync::Arc;

const CHUNK: usize = CHUNK_BYTES_MIN as usize;

/// Shares `bytes` at these nodes.
fn share(world: &mut World, nodes: &[usize], bytes: &[u8]) -> Arc<Manifest> {
    nodes.iter().map(|&node| world.nodes[node].share(bytes)).last().unwrap()
}

#[test]
fn a_file_of_one_chunk_comes_whole_and_an_empty_one_too() {
    for length in [0, 1, 5000, CHUNK] {
        let mut world = World::new(2);
        let bytes = content(length, 1);
        let hash = share(&mut world, &[1], &bytes).hash();
        world.fetch(0, 1, hash, &[1]);
        world.settle();
        let root = Root::File(bytes);
        let arrived = world
            .has_event(0, |event| matches!(event, TransferEvent::Root { root: file, mode, .. } if *file == root && mode.bits() == Some(0o755)));
        assert!(arrived, "{length} bytes");
        assert_eq!(world.nodes[0].transfer.downloads(), 0);
        assert_eq!(world.nodes[0].transfer.downloaded_bytes(), length as u64);
        assert_eq!(world.nodes[1].transfer.uploaded_bytes(), length as u64);
    }
}

#[test]
fn many_chunks_come_from_three_sources_and_none_twice() {
    let mut world = World::new(4);
    world.step = 30_000;
    let bytes = content(40 * CHUNK + 777, 2);
    let hash = share(&mut world, &[1, 2, 3], &bytes).hash();
    world.fetch(0, 1, hash, &[1, 2, 3]);
    world.settle();
    assert!(world.is_complete(0, 1));
    assert!(world.nodes[0].files[&target()] == bytes);
    let blocks: Vec<u32> = (1..4).map(|node| world.nodes[node].blocks_sent).collect();
    assert_eq!(blocks.iter().sum::<u32>(), 42, "{blocks:?}");
    assert!(blocks.iter().all(|&blocks| blocks >= 5), "{blocks:?}");
    let sources = |event: &TransferEvent| matches!(event, TransferEvent::Complete { sources: 3, .. });
    assert!(world.has_event(0, sources));
}

#[test]
fn bytes_may_come_one_at_a_time_or_be_split_anywhere() {
    let bytes = content(CHUNK + 100, 3);
    for step in [1, 7, 41, 1021, 65_537] {
        let mut world = World::new(2);
        world.step = step;
        let hash = share(&mut world, &[1], &bytes).hash();
        world.fetch(0, 1, hash, &[1]);
        world.settle();
        assert!(world.is_complete(0, 1), "{step} bytes at a time");
        assert!(world.nodes[0].files[&target()] == bytes);
    }
}

#[test]
fn a_root_that_does_not_verify_is_never_delivered() {
    for length in [3000, 3 * CHUNK] {
        let mut world = World::new(2);
        let hash = share(&mut world, &[1], &content(length, 5)).hash();
        world.nodes[1].corrupt = true;
        world.fetch(0, 1, hash, &[1]);
        world.settle();
        assert!(!world.has_event(0, |event| matches!(event, TransferEvent::Root { .. })));
        let state = world.nodes[0].transfer.download_state(DownloadId(1)).unwrap();
        assert_eq!(state.banned, 1);
        assert!(state.idle);
        assert!(world.has_event(0, |event| matches!(event, TransferEvent::SourcesNeeded { .. })));
    }
}

#[test]
fn not_found_and_unreachable_are_distinguished() {
    let mut world = World::new(3);
    world.nodes[2].reachable = false;
    world.fetch(0, 1, Key([7; 32]), &[1, 2]);
    assert!(world.run(30, |world| world.nodes[0].transfer.download_state(DownloadId(1)).unwrap().idle));
    let state = world.nodes[0].transfer.download_state(DownloadId(1)).unwrap();
    assert_eq!(state.failed, 1);
    assert_eq!(state.connected, 1);
    assert_eq!(state.not_found, 1);
    assert_eq!(state.banned, 0);
    assert_eq!(world.counters(0).dial_failed, 3, "the first attempt and two more");
    let gone = world.nodes[2].contact;
    let said = |event: &TransferEvent| matches!(event, TransferEvent::Peer { contact, alive: false, .. } if *contact == gone);
    assert!(world.has_event(0, said));
}

#[test]
fn chunks_that_are_here_already_are_not_requested() {
    let mut world = World::new(2);
    let bytes = content(10 * CHUNK, 6);
    let manifest = share(&mut world, &[1], &bytes);
    let mut have = vec![false; 10];
    [0, 1, 2, 7, 8].into_iter().for_each(|index| have[index] = true);
    let (now, sources) = (world.now, world.contacts(&[1]));
    let transfer = &mut world.nodes[0].transfer;
    assert!(transfer.begin(now, DownloadId(1), manifest.clone(), target(), have));
    assert_eq!(transfer.download_have(DownloadId(1)), 5);
    assert!(transfer.download_has(DownloadId(1), 8) && !transfer.download_has(DownloadId(1), 9));
    assert_eq!(transfer.download_missing(DownloadId(1), 2), manifest.keys()[3..5]);
    transfer.add_sources(now, DownloadId(1), &sources);
    world.settle();
    assert!(world.is_complete(0, 1));
    assert_eq!(world.nodes[1].blocks_sent, 5);
}

#[test]
fn a_download_that_has_everything_is_complete_at_once() {
    let mut world = World::new(1);
    let manifest = manifest(&content(2 * CHUNK, 6));
    let now = world.now;
    world.nodes[0].transfer.begin(now, DownloadId(1), manifest, target(), vec![true; 2]);
    world.settle();
    assert!(world.is_complete(0, 1));
}

#[test]
fn a_file_of_one_chunk_can_go_straight_to_its_target() {
    for length in [0, 900] {
        let mut world = World::new(2);
        let bytes = content(length, 16);
        let manifest = share(&mut world, &[1], &bytes);
        let (now, sources) = (world.now, world.contacts(&[1]));
        world.nodes[0].transfer.begin(now, DownloadId(1), manifest, target(), vec![false]);
        world.nodes[0].transfer.add_sources(now, DownloadId(1), &sources);
        world.settle();
        assert!(world.is_complete(0, 1));
        assert_eq!(world.nodes[0].files.get(&target()).cloned().unwrap_or_default(), bytes);
    }
}

#[test]
fn a_source_that_vanishes_in_the_middle_of_a_block_is_replaced() {
    let mut world = World::new(3);
    let bytes = content(20 * CHUNK, 7);
    let hash = share(&mut world, &[1, 2], &bytes).hash();
    world.nodes[1].blocks_before_mute = Some(3);
    world.fetch(0, 1, hash, &[1, 2]);
    world.settle();
    assert!(world.nodes[1].mute && !world.is_complete(0, 1));
    world.vanish(1);
    world.settle();
    assert!(world.is_complete(0, 1));
    assert!(world.nodes[0].files[&target()] == bytes);
}

#[test]
fn a_source_that_stalls_in_the_middle_of_a_block_is_abandoned() {
    let mut world = World::new(3);
    let bytes = content(12 * CHUNK, 8);
    let hash = share(&mut world, &[1, 2], &bytes).hash();
    world.nodes[1].blocks_before_mute = Some(3);
    world.fetch(0, 1, hash, &[1, 2]);
    let start = world.now;
    assert!(world.run(60, |world| world.is_complete(0, 1)));
    assert!(world.nodes[0].files[&target()] == bytes);
    assert_eq!(world.now.since(start).as_secs(), 3, "it waits for `Timing::patience`");
    assert_eq!(world.counters(0).stream_overtaken, 1);
}

#[test]
fn the_content_of_a_source_that_resumes_too_late_is_discarded() {
    let mut world = World::new(3);
    let bytes = content(6 * CHUNK, 19);
    let manifest = share(&mut world, &[1, 2], &bytes);
    world.fetch(0, 1, manifest.hash(), &[1]);
    // Node 1 gets the first window of requests, and falls silent before its first block.
    for _ in 0..200 {
        let asked = world.nodes[0].transfer.download_in_flight(DownloadId(1));
        world.nodes[1].mute = asked == 2;
        world.turn();
    }
    let (now, second) = (world.now, world.contacts(&[2]));
    world.nodes[0].transfer.add_sources(now, DownloadId(1), &second);
    assert!(world.run(5, |world| world.is_complete(0, 1)));
    assert!(world.nodes[0].files[&target()] == bytes);
    assert_eq!(world.nodes[2].blocks_sent, 6);
    // The blocks that it had under way arrive, and the stream stays open.
    world.nodes[1].mute = false;
    world.settle();
    assert_eq!(world.nodes[0].transfer.streams(), 2);
    assert!(world.counters(0).block_unneeded >= 1);
    assert_eq!(world.counters(0).frame_unexpected + world.counters(1).frame_unexpected, 0);
}

#[test]
fn a_lone_source_that_stalls_is_dialled_again() {
    let mut world = World::new(2);
    let bytes = content(4 * CHUNK, 9);
    let hash = share(&mut world, &[1], &bytes).hash();
    world.nodes[1].blocks_before_mute = Some(2);
    world.fetch(0, 1, hash, &[1]);
    assert!(world.run(15, |world| world.counters(0).stream_stalled == 1));
    world.nodes[1].mute = false;
    assert!(world.run(30, |world| world.is_complete(0, 1)));
    assert!(world.nodes[0].files[&target()] == bytes);
}

#[test]
fn two_downloads_from_one_source_advance_together() {
    let mut world = World::new(2);
    world.step = 10_000;
    let (one, two) = (content(30 * CHUNK, 10), content(30 * CHUNK, 11));
    let (a, b) = (share(&mut world, &[1], &one), share(&mut world, &[1], &two));
    world.fetch(0, 1, a.hash(), &[1]);
    world.fetch(0, 2, b.hash(), &[1]);
    world.settle();
    assert!(world.is_complete(0, 1) && world.is_complete(0, 2));
    assert_eq!(world.counters(0).stream_proven, 1, "one stream is enough");
    let done: Vec<u64> = world.nodes[0]
        .events
        .iter()
        .filter_map(|event| match event {
            TransferEvent::ChunkDone { download, .. } => Some(download.0),
            _ => None,
        })
        .collect();
    let first_half = done[..30].iter().filter(|&&download| download == 1).count();
    assert!((10..=20).contains(&first_half), "{first_half} of the first 30 chunks were the first file's");
}

#[test]
fn peers_that_download_the_same_file_give_each_other_what_they_have() {
    let mut world = World::new(3);
    let bytes = content(8 * CHUNK, 12);
    let manifest = manifest(&bytes);
    // Each has one half, and no node has all of it.
    for (node, half) in [(0, 0..4), (1, 4..8)] {
        let have: Vec<bool> = (0..8).map(|index| half.contains(&index)).collect();
        world.nodes[node].share_manifest(&manifest);
        let mut partial = bytes.clone();
        for index in (0..8).filter(|index| !half.contains(index)) {
            partial[index * CHUNK..(index + 1) * CHUNK].fill(0);
        }
        world.nodes[node].files.insert(target(), partial);
        half.for_each(|index| world.nodes[node].share_chunk(&manifest, index as u32, target()));
        let (now, sources) = (world.now, world.contacts(&[1 - node]));
        world.nodes[node].transfer.begin(now, DownloadId(1), manifest.clone(), target(), have);
        world.nodes[node].transfer.add_sources(now, DownloadId(1), &sources);
    }
    world.settle();
    for node in [0, 1] {
        assert!(world.is_complete(node, 1));
        assert!(world.nodes[node].files[&target()] == bytes);
        assert!(world.counters(node).stream_proven <= 2);
    }
}

#[test]
fn a_partial_source_is_asked_again_as_it_grows() {
    let mut world = World::new(3);
    let bytes = content(6 * CHUNK, 13);
    let manifest = manifest(&bytes);
    let place = crate::io::Place::Cache(manifest.hash());
    world.nodes[1].share_manifest(&manifest);
    world.nodes[1].files.insert(place.clone(), bytes.clone());
    world.nodes[1].share_chunk(&manifest, 2, place.clone());
    world.fetch(0, 1, manifest.hash(), &[1]);
    world.settle();
    assert_eq!(world.nodes[0].transfer.download_have(DownloadId(1)), 1);
    let needed =
        |event: &TransferEvent| matches!(event, TransferEvent::SourcesNeeded { keys, .. } if keys.len() == 5);
    assert!(world.has_event(0, needed));
    assert!(world.nodes[0].transfer.download_state(DownloadId(1)).unwrap().idle);
    (0..6).for_each(|index| world.nodes[1].share_chunk(&manifest, index, place.clone()));
    assert!(world.run(6, |world| world.is_complete(0, 1)));
    assert!(world.nodes[0].files[&target()] == bytes);
}

#[test]
fn a_full_disk_fails_the_download_with_no_space() {
    let mut world = World::new(2);
    let hash = share(&mut world, &[1], &content(3 * CHUNK, 14)).hash();
    world.nodes[0].disk_full = true;
    world.fetch(0, 1, hash, &[1]);
    world.settle();
    let error = DownloadError::NoSpace(disk_error(DiskErrorKind::NoSpace));
    assert!(world.has_event(
        0,
        |event| matches!(event, TransferEvent::DownloadFailed { error: said, .. } if *said == error)
    ));
    assert_eq!(world.nodes[0].transfer.downloads(), 0);
}

#[test]
fn an_aborted_download_leaves_the_stream_to_others_or_closes_it() {
    let mut world = World::new(2);
    let bytes = content(6 * CHUNK, 15);
    let hash = share(&mut world, &[1], &bytes).hash();
    world.nodes[1].blocks_before_mute = Some(2);
    world.fetch(0, 1, hash, &[1]);
    world.settle();
    let now = world.now;
    world.nodes[0].transfer.abort(now, DownloadId(1));
    assert_eq!(world.nodes[0].transfer.downloads(), 0);
    assert_eq!(world.nodes[0].transfer.streams(), 0, "it was writing into the target");
    world.nodes[1].mute = false;
    world.fetch(0, 2, hash, &[1]);
    world.settle();
    assert!(world.is_complete(0, 2));
}

#[test]
fn a_source_that_cannot_read_its_file_reports_which_one() {
    let mut world = World::new(3);
    let bytes = content(3 * CHUNK, 17);
    let hash = share(&mut world, &[1, 2], &bytes).hash();
    world.nodes[1].unreadable = true;
    world.fetch(0, 1, hash, &[1, 2]);
    assert!(world.run(60, |world| world.is_complete(0, 1)));
    assert!(world.has_event(1, |event| matches!(event, TransferEvent::SendFailed { .. })));
}

#[test]
fn no_deadline_stays_armed_after_an_idle_stream_was_closed() {
    let mut world = World::new(2);
    let hash = share(&mut world, &[1], &content(10, 18)).hash();
    world.fetch(0, 1, hash, &[1]);
    world.settle();
    assert_eq!(world.nodes[0].transfer.streams(), 1);
    assert!(!world.run(100, |_| false));
    for node in &world.nodes {
        assert_eq!(node.transfer.streams(), 0);
        assert_eq!(node.transfer.next_deadline(), None);
    }
}

#[test]
fn a_chunk_that_another_program_may_have_changed_is_requested_again_without_blame() {
    let mut world = World::new(2);
    let bytes = content(4 * CHUNK_BYTES_MIN as usize, 9);
    let hash = world.nodes[1].share(&bytes).hash();
    world.nodes[0].sink_error = Some(disk_error(DiskErrorKind::Changed));
    world.fetch(0, 1, hash, &[1]);
    assert!(world.run(60, |world| world.is_complete(0, 1)));
    assert_eq!(world.counters(0).chunk_doubtful, 1);
    assert!(!world.has_event(0, |event| matches!(event, TransferEvent::SourceBad { .. })));
    assert!(world.nodes[0].files[&target()] == bytes);
}
