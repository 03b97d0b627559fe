//! What users and their programs write: control lines, the configuration file, variables, flags, sizes, durations, addresses, HTTP
//! requests. The first byte chooses which. Whatever is read is carried out by a node without a disk, and every answer reads back.
#![no_main]

use clap::{Args, FromArgMatches};
use elver::config::{Settings, load, units, values};
use elver::identity::Identity;
use elver::io::Recovered;
use elver::limits::Limits;
use elver::node::command::{Command, CommandId, Response, parse_line};
use elver::node::{Node, Output};
use elver::time::Instant;
use elver_fuzz::host::config;
use libfuzzer_sys::fuzz_target;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The most lines of one input.
const LINES_MAX: usize = 32;

fuzz_target!(|data: &[u8]| {
    let Some((&first, rest)) = data.split_first() else { return };
    match first % 6 {
        0 => lines(rest),
        1 => file(rest),
        2 => variables(rest),
        3 => flags(rest),
        4 => words(rest),
        _ => {
            elver::net::try_requests(rest);
        }
    }
});

/// Lines of a control client.
fn lines(bytes: &[u8]) {
    let mut node = node();
    for (number, line) in bytes.split(|byte| *byte == b'\n').take(LINES_MAX).enumerate() {
        let Ok((_, command)) = parse_line(line) else { continue };
        let written = serde_json::to_vec(&command).expect("every command is JSON");
        let again: Command = serde_json::from_slice(&written).expect("a command reads back");
        assert_eq!(again, command);
        node.handle_command(Instant::from_secs(1), CommandId(number as u64), command);
        while node.poll_datagram().is_some() {}
        while node.poll_stream().is_some() {}
        while let Some(output) = node.poll_output() {
            let Output::Respond { response, .. } = output else { continue };
            let written = serde_json::to_string(&response).expect("every answer is JSON");
            assert!(!written.contains('\n'), "an answer is one line");
            let again: Response = serde_json::from_str(&written).expect("an answer reads back");
            assert_eq!(again, response);
        }
    }
}

fn node() -> Node {
    let limits = Limits { datagrams_queued_max: 32, shares_max: 16, ..Limits::default() };
    let config = config(limits, "/cache".into());
    let identity = Identity::stand_in(&[1; 32]);
    Node::new(config, identity, &Recovered::default(), [7; 32], Instant::from_secs(1)).expect("valid limits")
}

/// The configuration of a directory with this file in it.
fn file(content: &[u8]) {
    let scratch = Path::new("/dev/shm");
    let made = if scratch.is_dir() { tempfile::tempdir_in(scratch) } else { tempfile::tempdir() };
    let dir = made.expect("a directory");
    let path = dir.path().join("elver.toml");
    std::fs::write(&path, content).expect("room for a file");
    check(load(dir.path().to_owned(), Settings::default(), Some(&path), &|_| None));
}

/// The configuration with these variables: a name and a value on each line.
fn variables(bytes: &[u8]) {
    let pairs: Vec<(&[u8], &[u8])> = bytes
        .split(|byte| *byte == b'\n')
        .take(LINES_MAX)
        .filter_map(|line| {
            let at = line.iter().position(|byte| *byte == b'=')?;
            Some((&line[..at], &line[at + 1..]))
        })
        .collect();
    let environment = |name: &str| {
        let (_, value) = pairs.iter().find(|(given, _)| *given == name.as_bytes())?;
        Some(OsString::from(std::ffi::OsStr::from_bytes(value)))
    };
    let _ = elver::config::directory(None, &environment);
    check(load("/nowhere".into(), Settings::default(), None, &environment));
}

/// The configuration with these flags, one on each line.
fn flags(bytes: &[u8]) {
    let command = Settings::augment_args(clap::Command::new("node").no_binary_name(true));
    let flags = bytes.split(|byte| *byte == b'\n').take(LINES_MAX).map(std::ffi::OsStr::from_bytes);
    let Ok(matches) = command.try_get_matches_from(flags) else { return };
    let Ok(settings) = Settings::from_arg_matches(&matches) else { return };
    check(load("/nowhere".into(), settings, None, &|_| None));
}

/// What is a configuration can start a node; what is none says why.
fn check(config: Result<elver::net::Config, elver::config::ConfigError>) {
    match config {
        Ok(config) => config.limits.validate().expect("a configuration is valid"),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Sizes, durations, rates and the rest. What is read and written again reads as the same or as less exact.
fn words(bytes: &[u8]) {
    let Ok(text) = core::str::from_utf8(bytes) else { return };
    if let Ok(size) = units::parse_size(text) {
        match units::parse_size(&units::format_size(size)) {
            Ok(again) => assert!(again.abs_diff(size) <= size / 8 + 1, "{size} is written as {again}"),
            // It was rounded up past the largest number.
            Err(_) => assert!(size > 15 << 60, "{size} is written so that it does not read back"),
        }
    }
    if let Ok(seconds) = units::parse_duration(text) {
        assert!(!units::format_duration(u64::from(seconds)).is_empty());
    }
    let _ = units::parse_time(text);
    let _ = units::parse_lifetime(text);
    let _ = values::parse_rate(text);
    let _ = values::parse_streams(text);
    let _ = values::parse_uploads(text);
    let _ = values::parse_network(text);
    let _ = text.parse::<elver::id::Key>();
    let _ = text.parse::<elver::id::NodeId>();
    let _ = text.parse::<elver::id::PublicKey>();
}
