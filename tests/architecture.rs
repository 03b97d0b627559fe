//! Modules have floors (layers). Imports go downward only, and no module below the drivers touches the world.
//!
//! The test parses the sources with `syn`, drops the items under `#[cfg(test)]`, spells out every path and every `use`, and
//! judges the paths. Macros have their own syntax, so the test searches their tokens for paths.

#[path = "common/paths.rs"]
mod paths;

use paths::{Mention, declared, mentions};
use std::fs;
use std::path::{Path, PathBuf};

/// Every top-level module with its floor. The test fails for a module that is not in this table.
const FLOORS: &[(&str, u8)] = &[
    // Plain values.
    ("id", 0),
    ("time", 0),
    ("rng", 0),
    ("identity", 0),
    ("limits", 0),
    ("claim", 0),
    ("counters", 0),
    ("manifest", 0),
    ("set", 0),
    ("io", 0),
    // Layouts.
    ("wire", 1),
    // State that the machines share.
    ("peers", 2),
    // Machines: no machine imports another.
    ("dht", MACHINES),
    ("transfer", MACHINES),
    ("store", MACHINES),
    ("gossip", MACHINES),
    ("replication", MACHINES),
    // The composition of the machines.
    ("node", COMPOSITION),
    // Drivers.
    ("disk", DRIVERS),
    ("net", DRIVERS),
    ("sim", DRIVERS),
    // The user interface.
    ("config", TOP),
    ("cli", TOP),
    ("main", TOP),
];

const MACHINES: u8 = 3;
const COMPOSITION: u8 = 4;
const DRIVERS: u8 = 5;
const TOP: u8 = 6;

/// Pairs of modules on one floor. The first must not import the second: the loop and the simulator drive the disk.
const BELOW: &[(&str, &str)] = &[("disk", "net"), ("disk", "sim"), ("net", "sim"), ("config", "cli")];

/// Paths that no module up to the composition may name: clocks, sockets, files, entropy, threads and the process.
/// A longer path that begins with one of these is forbidden too.
const WORLD: &[&str] = &[
    "std::time::Instant",
    "std::time::SystemTime",
    "std::time::UNIX_EPOCH",
    "std::fs",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::UdpSocket",
    "std::net::ToSocketAddrs",
    "std::os",
    "std::thread",
    "std::sync::mpsc",
    "std::env",
    "std::process",
    "std::io::stdin",
    "std::io::stdout",
    "std::io::stderr",
    "std::collections::hash_map::RandomState",
    "std::hash::RandomState",
    "getrandom",
    "rand",
    "rand_core",
    "fastrand",
    "mio",
    "rustix",
    "libc",
    "nix",
    "socket2",
    "signal_hook",
    "signal_hook_mio",
    "tempfile",
];

/// Macros that reach the world without a path.
const WORLD_MACROS: &[&str] = &["print", "println", "eprint", "eprintln", "dbg"];

/// Methods that reach the file system from a plain path.
const WORLD_METHODS: &[&str] = &[
    "canonicalize",
    "exists",
    "is_dir",
    "is_file",
    "metadata",
    "read_dir",
    "symlink_metadata",
    "to_socket_addrs",
    "try_exists",
];

fn floor(module: &str) -> Option<u8> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

/// The faults of `source`, a file of the module whose path inside the crate is `module` (`wire::frame`).
fn faults(module: &[&str], source: &str) -> Vec<String> {
    let top = module[0];
    let Some(own) = floor(top) else {
        return vec![format!("the module `{top}` has no floor yet: add it to the table in this test")];
    };
    let file = match syn::parse_file(source) {
        Ok(file) => file,
        Err(error) => return vec![format!("line {}: {error}", error.span().start().line)],
    };
    let mut faults = Vec::new();
    for Mention { line, path } in mentions(module, &file) {
        let fault = match path.split_once("::").unwrap_or((&path, "")) {
            ("crate", rest) => misplaced_import(top, own, rest),
            _ if own <= COMPOSITION => world(&path),
            _ => None,
        };
        faults.extend(fault.map(|fault| format!("line {line}: {fault}")));
    }
    faults
}

fn misplaced_import(top: &str, own: u8, path: &str) -> Option<String> {
    let target = path.split("::").next().unwrap_or_default();
    if target == top || target.is_empty() {
        return None;
    }
    match floor(target) {
        None if target == "*" => Some("a glob import of the whole crate hides where it reaches".to_owned()),
        // A name of the crate's root is a macro or a re-export. The top floor may import everything, so the name hides nothing.
        None if own == TOP => None,
        None => Some(format!("`{target}` is no module with a floor: import it from where it is defined")),
        Some(other) if other > own => {
            Some(format!("`{top}` (floor {own}) imports upward: `{target}` (floor {other})"))
        }
        Some(other) if other == own && own == MACHINES => {
            Some(format!("the machines `{top}` and `{target}` must not know each other"))
        }
        Some(_) if BELOW.contains(&(top, target)) => {
            Some(format!("`{top}` must not know `{target}`, which is built on it"))
        }
        Some(_) => None,
    }
}

fn world(path: &str) -> Option<String> {
    let path = path.strip_prefix("core::").map_or_else(|| path.to_owned(), |rest| format!("std::{rest}"));
    let under =
        |prefix: &str| path == prefix || path.strip_prefix(prefix).is_some_and(|rest| rest.starts_with("::"));
    let method = path.strip_prefix('.').is_some_and(|name| WORLD_METHODS.contains(&name));
    let named_macro = path.strip_suffix('!').is_some_and(|path| {
        let name = path.rsplit("::").next().unwrap_or_default();
        WORLD_MACROS.contains(&name)
    });
    // A glob over a module that contains a forbidden path imports that path.
    let glob = path.strip_suffix("::*").is_some_and(|base| {
        WORLD.iter().any(|entry| entry.strip_prefix(base).is_some_and(|rest| rest.starts_with("::")))
    });
    let forbidden = method || named_macro || glob || WORLD.iter().any(|entry| under(entry));
    forbidden.then(|| format!("`{path}` is of the world: only drivers may touch it"))
}

/// Every source file that is compiled outside tests, with its module's path. The crate's root is not in it: the root only
/// lists modules and re-exports.
fn sources() -> Vec<(PathBuf, Vec<String>)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut open = ["lib.rs", "main.rs"].map(|file| (root.join(file), root.clone(), Vec::new())).to_vec();
    while let Some((path, folder, module)) = open.pop() {
        let source = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = syn::parse_file(&source).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for name in declared(&file) {
            let below = folder.join(&name);
            let file = folder.join(format!("{name}.rs"));
            let file = if file.exists() { file } else { below.join("mod.rs") };
            open.push((file, below, [&module[..], &[name]].concat()));
        }
        if !module.is_empty() {
            found.push((path, module));
        } else if path.ends_with("main.rs") {
            found.push((path, vec!["main".to_owned()]));
        }
    }
    found.sort();
    found
}

#[test]
fn imports_go_downward_and_nothing_under_the_drivers_touches_the_world() {
    let mut report = Vec::new();
    for (path, module) in sources() {
        let module: Vec<&str> = module.iter().map(String::as_str).collect();
        let source = fs::read_to_string(&path).expect("a readable source");
        report
            .extend(faults(&module, &source).into_iter().map(|fault| format!("{}: {fault}", path.display())));
    }
    assert!(report.is_empty(), "{} faults:\n{}", report.len(), report.join("\n"));
}

#[test]
fn the_tour_tells_the_same_floors() {
    let source =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).expect("a crate");
    let mut told = Vec::new();
    for line in source.lines() {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let Some(Ok(floor)) = cells.next().map(str::parse::<u8>) else { continue };
        let modules = cells.next().unwrap_or_default();
        told.extend(modules.split('`').skip(1).step_by(2).map(|module| (module, floor)));
    }
    let mut floors = FLOORS.to_vec();
    told.sort_unstable();
    floors.sort_unstable();
    assert_eq!(told, floors);
}

#[test]
fn a_driver_that_knows_what_drives_it_is_caught() {
    assert!(complains("disk::sink", "use crate::net::Driver;", "must not know `net`"));
    silent("net", "use crate::disk::Disk;");
}

#[test]
fn the_source_that_the_test_walks_is_really_there() {
    let modules: Vec<_> = sources().into_iter().map(|(_, module)| module.join("::")).collect();
    for expected in ["id", "wire", "wire::frame", "node::command", "main"] {
        assert!(modules.iter().any(|module| module == expected), "{expected} is not among {modules:?}");
    }
}

/// Whether a fault of `source` contains `about`.
fn complains(module: &str, source: &str, about: &str) -> bool {
    let module: Vec<&str> = module.split("::").collect();
    faults(&module, source).iter().any(|fault| fault.contains(about))
}

fn silent(module: &str, source: &str) {
    let module: Vec<&str> = module.split("::").collect();
    assert_eq!(faults(&module, source), Vec::<String>::new(), "{source}");
}

#[test]
fn an_upward_import_is_caught_however_it_is_spelled() {
    for source in [
        "use crate::net::Loop;",
        "pub(crate) use crate::net;",
        "use crate::{id::Key, net};",
        "use crate::{\n    id::{Key, NodeId},\n    net::{Loop, poll::Poll},\n};",
        "use crate::{self as elver, net as n};",
        "fn f() { crate::net::run() }",
        "fn f() -> crate :: net :: Loop { todo!() }",
        "use super::super::net;",
        "fn f() { super::super::net::run() }",
        "mod inner { use super::super::super::net; }",
        "use crate as elver;\nfn f() { elver::net::run() }",
        "use crate::{self as elver};\nuse elver::net::Loop;",
        "extern crate self as elver;\nuse elver::net::Loop;",
        "use elver::net::Loop;",
        "use ::elver::net::Loop;",
        "macro_rules! m { () => { $crate::net::run() } }",
        "#[cfg(unix)]\nuse crate::net::Loop;",
        "#[cfg(not(test))]\nuse crate::net::Loop;",
        "use crate::r#net::Loop;",
    ] {
        assert!(complains("wire::frame", source, "imports upward: `net`"), "{source}");
    }
}

#[test]
fn machines_that_know_each_other_are_caught() {
    assert!(complains("dht::lookup", "use crate::transfer::Transfer;", "must not know each other"));
    assert!(complains("store", "fn f(x: &crate::dht::Dht) {}", "must not know each other"));
    silent(
        "dht::lookup",
        "use super::table::Table; use crate::dht::record; use crate::wire::contact::Contact;",
    );
    silent("node", "use crate::{dht::Dht, store::Store, transfer::Transfer, io};");
}

#[test]
fn the_world_is_caught_however_it_is_spelled() {
    for source in [
        "use std::time::Instant;",
        "use std::time::{Duration, Instant as Clock};",
        "use std::{time::{self, Duration}};\nfn f() { time::Instant::now(); }",
        "use std::time;\nfn f() { time::SystemTime::now(); }",
        "use std as s;\nfn f() { s::fs::read(p); }",
        "fn f() { std::fs::read(\"x\"); }",
        "use std::fs::{File};",
        "use std::{collections::BTreeMap, fs};",
        "use std::net::{SocketAddr, UdpSocket};",
        "use std::os::unix::net::UnixStream;",
        "use ::std::thread;",
        "fn f() { std::env::var(\"HOME\"); }",
        "use std::process::Command;",
        "use mio::Token;",
        "fn f() { ::getrandom::fill(b); }",
        "extern crate rustix;",
        "use socket2::Socket as S;",
        "use rand::Rng;",
        "use std::time::*;",
        "use std::*;",
        "use std::collections::hash_map::RandomState;",
        "fn f() { println!(\"x\"); }",
        "fn f() { std::eprintln!(\"x\"); }",
        "fn f(p: &Path) { p.exists(); }",
        "fn f(p: &Path) { p\n    .metadata(); }",
        "#[cfg(not(test))]\nfn f() { std::fs::read(p); }",
        "fn f() -> &'static str { let c = '\"'; std::fs::read(p); \"\" }",
        "/* a /* nested */ comment */ use std::fs;",
        "fn f() { assert!(std::fs::read(p).is_ok()); }",
        "fn f(p: &Path) { assert!(p.exists(), \"{}\", p.len()); }",
        "fn f() { log::info!(\"{}\", std::env::var(\"HOME\")); }",
        "fn f() { vec![::mio::Token(0)]; }",
        "macro_rules! m { () => { use std::{collections::BTreeMap, fs}; } }",
        "macro_rules! m { () => { println!(\"x\") } }",
        "fn f() { <std::fs::File as Open>::open(p); }",
        "impl From<std::net::TcpStream> for X {}",
        "#[serde(with = m, default = std::time::SystemTime::now)] struct X;",
    ] {
        assert!(complains("dht", source, "is of the world"), "{source}");
    }
}

#[test]
fn what_only_looks_like_a_fault_is_let_pass() {
    silent(
        "dht",
        "// use crate::net::Loop;\n/* std::fs */\n//! [`crate::net`]\n/// std::fs::read\nfn f() {}",
    );
    silent("dht", "const TEXT: &str = \"use crate::net; std::fs::read\";");
    silent("dht", "const TEXT: &str = r#\"crate::net \" std::fs\"#; const B: &[u8] = b\"std::fs\";");
    silent("dht", "use std::net::{IpAddr, SocketAddr}; use std::time::Duration; use core::net::Ipv6Addr;");
    silent("dht", "use crate::time::Instant; fn f(now: Instant) { Instant::from_secs(1); }");
    silent("dht", "fn f() { <fs>::read(p); <T as Net>::fs(); x.0.fs::<u8>(); }");
    silent("dht", "struct Net { fs: u8 } fn f(net: Net) { net.fs; }");
    silent("dht", "fn f<'a>(x: &'a str) -> Option<&'a str> { Some(x) }");
    silent("dht", "use crate::wire::message::{Message, Want}; use super::dht::Table;");
    silent("net", "use std::fs; use crate::disk::Disk; use crate::node::Node; fn f() { println!(\"x\"); }");
    silent("node", "mod metadata; use metadata::exists; fn f() { exists(); }");
}

#[test]
fn what_is_only_there_for_tests_is_let_pass() {
    silent(
        "dht",
        "#[cfg(test)]\nmod tests {\n    use crate::sim::World;\n    fn f() { std::fs::read(\"}\"); }\n}",
    );
    silent("dht", "#[cfg(test)]\nuse std::fs;\n#[cfg(test)]\nfn f() { std::fs::read(p); }\nfn g() {}");
    silent("dht", "#[cfg(all(test, unix))] mod tests { use std::fs; }");
    silent("dht", "struct X { #[cfg(test)] file: std::fs::File }");
    silent("dht", "impl X { #[cfg(test)] fn f() { std::fs::read(p); } }");
    silent("dht", "trait X { #[cfg(test)] fn f() -> std::fs::File; }");
    silent("dht", "fn f() { X { #[cfg(test)] file: std::fs::File::open(p) }; }");
    assert!(complains("dht", "#[cfg(test)]\nmod tests { fn f() {} }\nuse std::fs;", "is of the world"));
    assert!(complains("dht", "#[cfg(any(test, unix))]\nuse std::fs;", "is of the world"));
}

#[test]
fn a_source_that_does_not_parse_is_a_fault() {
    assert!(complains("dht", "fn f( {", "line 1: "));
}

#[test]
fn a_fault_names_its_line() {
    assert!(complains("dht", "\n\nfn f() {\n    std::fs::read(p);\n}", "line 4: "));
}

#[test]
fn a_module_without_a_floor_is_caught() {
    assert!(complains("cellar", "", "has no floor yet"));
    assert!(complains("dht", "use crate::cellar::Wine;", "no module with a floor"));
    assert!(complains("dht", "use crate::*;", "glob import"));
}
