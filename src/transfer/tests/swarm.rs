//! Many nodes fetch one file: how much its only source sends, and when the first and the last have it.

use super::world::{World, content, target};
use crate::manifest::CHUNK_BYTES_MIN;
use crate::time::Duration;

const CHUNK: usize = CHUNK_BYTES_MIN as usize;
const TICK: Duration = Duration::from_millis(10);

/// When each of the nodes from 1 on had the whole file, while every node sends no more than its uplink takes, in
/// bytes per second.
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

/// One node has a file of so many chunks, seven others fetch it at the same time knowing of nobody else. How many copies
/// the first sends, in percent, and when the first and the last of the seven have it.
fn one_to_seven(chunks: usize, uplinks: [u64; 8], slots: usize) -> (u64, Duration, Duration) {
    let limits = crate::limits::Limits { uploads_max: slots, ..Default::default() };
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
        // Nobody can have it before its only source has sent all of it.
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
