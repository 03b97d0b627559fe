//! A copy rots on a holder's disk: the reader gets the right bytes, the reader tells the holder, and the copy is restored.

use crate::network::{MIB, Node, file, wait_for};
use crate::repair::{explained, signal, start};
use elver::store::PIECE_OVERHEAD_BYTES;
use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::FileExt;

/// The number of pieces of a file that `holder` reports to `asker` now.
fn pieces_of(asker: &Node, hash: &str, holder: &str) -> Option<u32> {
    let told = explained(asker, hash);
    told.nodes.iter().find(|node| node.id.to_string() == holder && node.answered).map(|node| node.pieces)
}

#[test]
fn a_reader_that_meets_a_rotten_copy_makes_its_holder_replace_it() {
    let swarm = start(3);
    let source = file(&swarm.dir, "source", 60, 2 * MIB + 77);
    let hash = swarm.nodes[0].put(&source, &["--replicas", "3"]);
    swarm.wait_for_copies(0, &hash);
    let reader = Node::start(swarm.dir.path().join("reader"), &[swarm.nodes[1].addr], &["--leaf"]);
    let holder = &swarm.nodes[1];
    let id = holder.status().id;
    wait_for("the reader to know the holders", || reader.status().peers >= 3);
    let pieces = explained(&reader, &hash).pieces;
    assert_eq!(pieces_of(&reader, &hash, &id), Some(pieces), "it holds all of it");

    // Flip one bit of one chunk on disk, without the node's knowledge.
    let chunk = holder.piece_files().into_iter().find(|path| fs::metadata(path).unwrap().len() > 100_000);
    let chunk = chunk.expect("it holds a chunk");
    let good = fs::read(&chunk).unwrap();
    let open = fs::File::options().write(true).open(&chunk).unwrap();
    open.write_all_at(&[good[70_000] ^ 4], 70_000).unwrap();

    // Stop the other holders, so that the reader asks this one.
    let target = swarm.dir.path().join("target");
    for other in [&swarm.nodes[0], &swarm.nodes[2]] {
        signal(other, Signal::STOP);
    }
    std::thread::scope(|scope| {
        let got = scope.spawn(|| reader.get(&hash, &target, &[]));
        wait_for("the holder to find that its copy is rotten", || holder.counter("rechecks_rotten") == 1);
        assert_eq!(holder.piece_files().len() as u32, pieces - 1);
        assert!(!chunk.exists());
        for other in [&swarm.nodes[0], &swarm.nodes[2]] {
            signal(other, Signal::CONT);
        }
        let (code, said) = got.join().unwrap();
        assert_eq!(code, Some(0), "{said}\n{}", reader.log());
    });
    assert!(fs::read(&target).unwrap() == fs::read(&source).unwrap());
    assert!(holder.log().contains("does not verify here, as "), "{}", holder.log());
    assert!(reader.log().contains(&format!("{id} at ")), "{}", reader.log());

    wait_for("the copy to be made anew", || chunk.exists());
    // The publisher signs a new claim for it, so only the content is the same.
    let length = good.len() - PIECE_OVERHEAD_BYTES as usize;
    assert!(fs::read(&chunk).unwrap()[..length] == good[..length]);
    wait_for("it to be counted again", || pieces_of(&reader, &hash, &id) == Some(pieces));
}
