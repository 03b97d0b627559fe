//! As sources of a file that somebody fetches.

use crate::puppets::*;
use crate::support::Node;
use std::sync::Arc;

/// Fetches a file from an honest node and so many hostile ones, of which the reader hears first.
fn fetch_among(habit: Habit, count: usize) {
    let honest = Node::start(&[]);
    let bytes = Arc::new(content(habit as u64 + 100, 2 * MIB + 5));
    let file = honest.dir().join("shared");
    std::fs::write(&file, &*bytes).unwrap();
    honest.elver(["put", "--replicas", "0", file.to_str().unwrap()]).expect(0);
    let hash = manifest(&bytes).hash();
    let reader = Node::join(&honest, &[]);
    for _ in 0..count {
        let (identity, address) = source(somebody(), habit, &bytes);
        Datagrams::new([127, 0, 0, 1], identity, &reader).announce(hash, address);
    }
    let before = reader.peak_bytes();
    let target = reader.dir().join("target");
    let ended = reader.elver(["get", &hash.to_string(), "-o", target.to_str().unwrap()]);
    assert_eq!(ended.code, Some(0), "{habit:?}: {}\n{}", ended.stderr, reader.status());
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
        let reader = Node::start(&[]);
        let bytes = Arc::new(content(habit as u64 + 200, 2 * MIB + 5));
        let hash = manifest(&bytes).hash();
        for _ in 0..3 {
            let (identity, address) = source(somebody(), habit, &bytes);
            Datagrams::new([127, 0, 0, 1], identity, &reader).announce(hash, address);
        }
        let target = reader.dir().join("target");
        let ended =
            reader.elver(["get", "--timeout", "15s", &hash.to_string(), "-o", target.to_str().unwrap()]);
        assert_eq!(ended.code, Some(6), "{habit:?}: {}\n{}", ended.stderr, reader.status());
        assert!(!target.exists(), "{habit:?}");
        assert!(counter(&reader, "sources_bad") >= 3, "{habit:?}");
    }
}

// Datagrams.
