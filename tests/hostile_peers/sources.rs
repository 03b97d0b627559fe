//! Hostile peers as sources of a file that a node fetches.

use crate::puppets::*;
use crate::support::{Node, Scratch};
use elver::id::Key;
use std::sync::Arc;

/// Fetches a file from an honest node and `count` hostile ones. The reader hears of the hostile ones first.
fn fetch_among(habit: Habit, count: usize) {
    let honest = Node::alone(&[]);
    let bytes = Arc::new(content(habit as u64 + 100, 2 * MIB + 5));
    let scratch = Scratch::new();
    let file = scratch.path().join("shared");
    std::fs::write(&file, &*bytes).unwrap();
    honest.elver(["put", "--replicas", "0", file.to_str().unwrap()]).expect(0);
    let hash = manifest(&bytes).hash();
    let reader = Node::join(&honest, &[]);
    for _ in 0..count {
        let (identity, address) = source(new_identity(), habit, &bytes);
        Datagrams::new([127, 0, 0, 1], identity, &reader).announce(hash, address);
    }
    let before = reader.peak_bytes();
    let target = scratch.path().join("target");
    let ended = reader.elver(["get", &hash.to_string(), "-o", target.to_str().unwrap()]);
    assert_eq!(ended.code, Some(0), "{habit:?}: {}\n{}", ended.stderr, reader.status_json());
    assert!(std::fs::read(&target).unwrap() == *bytes, "{habit:?}");
    let growth = reader.peak_bytes().saturating_sub(before);
    assert!(growth < GROWTH_BYTES_MAX, "{habit:?}: grew by {growth} bytes");
}

#[test]
fn sources_that_say_nothing_do_not_keep_a_file_from_its_reader() {
    fetch_among(Habit::Mute, 6);
    fetch_among(Habit::Silent, 6);
}

#[test]
fn sources_with_wrong_roots_do_not_keep_a_file_from_its_reader() {
    fetch_among(Habit::WrongManifest, 6);
    fetch_among(Habit::OtherLength, 6);
}

#[test]
fn sources_with_wrong_chunks_do_not_keep_a_file_from_its_reader() {
    fetch_among(Habit::WrongChunks, 6);
    fetch_among(Habit::TooLong, 6);
}

#[test]
fn sources_that_break_off_do_not_keep_a_file_from_its_reader() {
    fetch_among(Habit::Breaks, 6);
}

#[test]
fn sources_that_stall_do_not_keep_a_file_from_its_reader() {
    fetch_among(Habit::Stalls, 6);
}

#[test]
fn sources_that_drip_do_not_keep_a_file_from_its_reader() {
    fetch_among(Habit::Drips, 6);
}

#[test]
fn sources_that_refuse_do_not_keep_a_file_from_its_reader() {
    fetch_among(Habit::Busy, 6);
    fetch_among(Habit::Denies, 6);
}

#[test]
fn sources_that_boast_do_not_keep_a_file_from_its_reader() {
    fetch_among(Habit::Boasts, 6);
}

#[test]
fn more_liars_than_a_download_has_places_do_not_keep_a_file_from_its_reader() {
    fetch_among(Habit::WrongManifest, 40);
}

#[test]
fn wrong_content_from_everybody_ends_with_6_and_without_a_file() {
    for habit in [Habit::WrongManifest, Habit::OtherLength, Habit::WrongChunks] {
        let reader = Node::alone(&[]);
        let bytes = Arc::new(content(habit as u64 + 200, 2 * MIB + 5));
        let hash = manifest(&bytes).hash();
        for _ in 0..3 {
            let (identity, address) = source(new_identity(), habit, &bytes);
            Datagrams::new([127, 0, 0, 1], identity, &reader).announce(hash, address);
        }
        let scratch = Scratch::new();
        let target = scratch.path().join("target");
        let ended =
            reader.elver(["get", "--timeout", "15s", &hash.to_string(), "-o", target.to_str().unwrap()]);
        assert_eq!(ended.code, Some(6), "{habit:?}: {}\n{}", ended.stderr, reader.status_json());
        assert!(!target.exists(), "{habit:?}");
        assert!(counter(&reader, "sources_bad") >= 3, "{habit:?}");
    }
}

/// The bans that the node lists.
fn bans(node: &Node) -> Vec<serde_json::Value> {
    let peers = node.elver(["peers", "--json"]).expect(0).objects();
    let theirs = |peer: &serde_json::Value| peer["bans"].as_array().cloned().unwrap_or_default();
    peers.iter().flat_map(theirs).collect()
}

#[test]
fn a_source_that_is_wrong_about_one_file_is_told_and_still_gives_others() {
    let reader = Node::alone(&[]);
    let (wrong, right) = (Arc::new(content(300, 2 * MIB)), Arc::new(content(301, 2 * MIB + 9)));
    let (bad, good) = (manifest(&wrong).hash(), manifest(&right).hash());
    let (told, heard) = std::sync::mpsc::channel();
    let (identity, address) = source_of_two(new_identity(), &wrong, &right, told);
    let id = identity.id().to_string();
    let mut datagrams = Datagrams::new([127, 0, 0, 1], identity, &reader);
    datagrams.announce(bad, address);
    datagrams.announce(good, address);
    let scratch = Scratch::new();
    let get = |hash: &Key, name: &str| {
        let target = scratch.path().join(name);
        let ended =
            reader.elver(["get", "--timeout", "9s", &hash.to_string(), "-o", target.to_str().unwrap()]);
        (ended, target)
    };
    let (ended, target) = get(&bad, "bad");
    assert_eq!(ended.code, Some(6), "{}", ended.stderr);
    assert!(!target.exists());
    // The reader reports the bad piece to the source, over the same stream.
    let reported = heard.recv_timeout(crate::support::LIMIT).expect("a report");
    assert!(manifest(&wrong).keys().contains(&reported));
    // The same source still gives the other file at once.
    let (ended, target) = get(&good, "good");
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(std::fs::read(target).unwrap() == *right);

    let shown = bans(&reader);
    assert_eq!(shown.len(), 1, "{shown:?}");
    assert_eq!(shown[0]["file"].as_str(), Some(&*bad.to_string()));
    assert_eq!(shown[0]["times"].as_u64(), Some(1));
    assert!((1..=120).contains(&shown[0]["seconds"].as_u64().unwrap()), "{shown:?}");
    let text = reader.elver(["peers"]).expect(0).text();
    assert!(
        text.contains(&id[..16]) && text.contains(&format!("file {bad}, of which it sent wrong content")),
        "{text}"
    );
    assert!(reader.log().contains(&format!("sent content of {bad} (piece {reported})")), "{}", reader.log());

    reader.elver(["peers", "--forgive", "0123456789abcdef"]).expect(3);
    reader.elver(["peers", "--forgive", &id[..8]]).expect(0);
    assert_eq!(bans(&reader), Vec::<serde_json::Value>::new());
    // The reader asks the source again, gets the same bad content, and bans it again.
    let (ended, _) = get(&bad, "bad");
    assert_eq!(ended.code, Some(6), "{}", ended.stderr);
    assert_eq!(bans(&reader).len(), 1, "{}", ended.stderr);
    let lifted = reader.elver(["peers", "--forgive", "all", "--json"]).expect(0).text();
    assert_eq!(lifted.trim(), r#"{"bans":1}"#);
}

// Datagrams.
