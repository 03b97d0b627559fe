//! Tests of the whole world: runs are reproducible, and commands succeed.

use super::blob::Blob;
use super::disk::Crash;
use super::hostile::{Hostility, Rotten, corrupt};
use super::population::{Joining, build};
use super::scenario::named;
use super::seeds::REGRESSIONS;
use super::stage::Options;
use super::workload::Workload;
use super::world::{Plan, World};
use crate::id::Key;
use crate::node::command::Command;
use crate::time::Duration;
use crate::wire::inspect::Held;
use std::path::PathBuf;
use std::rc::Rc;

fn network(plan: Plan, count: usize) -> World {
    let mut world = World::new(plan);
    build(&mut world, count, Joining::Remembered);
    world
}

/// Runs the world for some seconds and hands every answer to the workload.
fn work_for(world: &mut World, work: &mut Workload, seconds: u64) {
    let until = world.now() + Duration::from_secs(seconds);
    while let Some(event) = world.next(until) {
        work.take(world, &event);
    }
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_gives_another() {
    let trace = |seed: u64| {
        let mut plan = Plan::new(seed);
        (plan.links.loss, plan.links.reorder, plan.links.duplicate) = (0.05, 0.05, 0.01);
        let mut world = network(plan, 12);
        let mut work = Workload::default();
        work.put(&mut world, 1, 600_000, 3);
        work_for(&mut world, &mut work, 60);
        world.crash(2, Crash::Power);
        work_for(&mut world, &mut work, 120);
        (world.trace(), world.counts())
    };
    let first = trace(1);
    assert_eq!(first, trace(1));
    assert_ne!(first.0, trace(2).0);
}

#[test]
fn hosts_that_join_one_by_one_find_each_other() {
    let mut world = World::new(Plan::new(3));
    build(&mut world, 16, Joining::OneByOne(Duration::from_secs(60)));
    for host in 0..16 {
        assert!(world.status(host).unwrap().peers >= 12, "host {host} knows too few");
    }
}

#[test]
fn a_host_joins_through_a_name_once_it_resolves_and_follows_it_to_another_address() {
    let mut world = network(Plan::new(9), 4);
    let host = world.add_host(false);
    world.hosts[host].config_mut().bootstrap_names = vec!["seed.example".parse().unwrap()];
    let run = |world: &mut World, seconds| {
        let until = world.now() + Duration::from_secs(seconds);
        while world.next(until).is_some() {}
        world.status(host).unwrap()
    };
    world.start(host, &[]);
    let status = run(&mut world, 20);
    assert_eq!(status.peers, 0);
    assert!(status.bootstrap_names[0].error.is_some(), "{:?}", status.bootstrap_names);
    // The name leads to a machine where no node runs, and then to another.
    let nowhere = world.add_host(false);
    let at = |world: &World, host: usize| vec![world.links.port(host).addr];
    world.links.names.insert("seed.example".to_owned(), at(&world, nowhere));
    let status = run(&mut world, 20);
    assert_eq!(status.peers, 0);
    assert_eq!(status.bootstrap_names[0].addresses, at(&world, nowhere));
    world.links.names.insert("seed.example".to_owned(), at(&world, 0));
    let status = run(&mut world, 120);
    assert_eq!(status.bootstrap_names[0].addresses, at(&world, 0));
    assert_eq!(status.peers, 4);
}

#[test]
fn files_are_put_and_fetched_and_real_signatures_do_the_same() {
    for real_signatures in [false, true] {
        let mut world = network(Plan { real_signatures, ..Plan::new(5) }, 10);
        let mut work = Workload::default();
        work.put(&mut world, 1, 700_000, 3);
        work_for(&mut world, &mut work, 60);
        assert_eq!(work.puts.done, 1, "{:?}", work.puts.messages);
        assert_eq!(work.puts.partial, 0, "{:?}", work.puts.messages);
        let file = work.files[0].clone();
        work.get(&mut world, 7, &file);
        work_for(&mut world, &mut work, 60);
        assert_eq!(work.gets.done, 1, "{:?}", work.gets.messages);
        let cached = world.hosts[7].disk.cached(&file.hash).expect("the file is in the cache");
        assert_eq!(cached.bytes(), file.content.bytes());
        assert_eq!(world.watch.violations, Vec::<String>::new());
    }
}

#[test]
fn what_is_streamed_passes_through_a_window_and_leaves_nothing_behind() {
    let mut plan = Plan::new(7);
    (plan.links.loss, plan.links.reorder) = (0.02, 0.02);
    let mut world = network(plan, 10);
    let mut work = Workload::default();
    work.put(&mut world, 1, 12 << 20, 3);
    work_for(&mut world, &mut work, 120);
    let file = work.files[0].clone();
    for (host, crash) in [(7, None), (1, None), (8, Some(1))] {
        work.read(&mut world, host, &file);
        work_for(&mut world, &mut work, 1);
        if let Some(source) = crash {
            world.crash(source, Crash::Power);
        }
        work_for(&mut world, &mut work, 120);
    }
    assert_eq!(work.gets.done, 3, "{:?}", work.gets.messages);
    assert_eq!(work.gets.wrong, 0, "{:?}", work.gets.messages);
    for host in [7, 8] {
        assert_eq!(world.hosts[host].disk.in_windows(), 0);
        assert!(world.hosts[host].disk.cached(&file.hash).is_none());
    }
    assert_eq!(world.watch.violations, Vec::<String>::new());
}

#[test]
fn content_that_is_not_what_it_should_be_reaches_nobody() {
    let mut world = network(Plan::new(6), 10);
    let mut work = Workload::default();
    work.put(&mut world, 1, 700_000, 0);
    work_for(&mut world, &mut work, 60);
    corrupt(&mut world, &[1], &[Hostility::Corrupter]);
    let file = work.files[0].clone();
    work.get(&mut world, 7, &file);
    work_for(&mut world, &mut work, 300);
    assert_eq!(work.gets.done, 0);
    assert_eq!(work.gets.wrong, 0);
    assert_eq!(work.gets.failed, 1);
}

fn counter(world: &mut World, host: usize, name: &str) -> u64 {
    world.status(host).expect("it is up").counters.get(name).copied().unwrap_or_default()
}

#[test]
fn complaints_of_good_pieces_drop_nothing_and_make_nobody_read_for_ever() {
    const COMPLAINERS: [usize; 3] = [7, 8, 9];
    let mut world = network(Plan::new(21), 10);
    let mut work = Workload::default();
    for host in 0..6 {
        work.put(&mut world, host, 700_000, 2);
        work.put(&mut world, host, 90_000, 2);
    }
    work_for(&mut world, &mut work, 120);
    let files = work.files.clone();
    assert_eq!(files.len(), 12, "{:?}", work.puts.messages);
    let stored = |world: &World| (0..7).map(|host| world.hosts[host].disk.pieces().count()).sum::<usize>();
    let before = stored(&world);
    corrupt(&mut world, &COMPLAINERS, &[Hostility::Complainer]);
    for _ in 0..4 {
        for host in COMPLAINERS {
            for file in &files {
                work.get(&mut world, host, file);
                work_for(&mut world, &mut work, 5);
                world.command(host, Command::Remove { hash: file.hash });
                work_for(&mut world, &mut work, 1);
            }
        }
    }
    // A complainer still gets the files that it requests: its complaints change nothing.
    assert_eq!(work.gets.failed + work.gets.wrong, 0, "{:?}", work.gets.messages);
    assert_eq!(stored(&world), before);
    let mut looks = 0;
    for host in 0..7 {
        assert_eq!(counter(&mut world, host, "rechecks_rotten"), 0);
        assert_eq!(counter(&mut world, host, "files_withdrawn"), 0);
        let good = counter(&mut world, host, "rechecks_good");
        // Three complainers, for fourteen minutes: each can cause eight checks at once, and each piece is checked at most once in
        // ten minutes.
        assert!(good <= 3 * (8 + 16), "host {host} looked at {good} pieces");
        looks += good;
    }
    assert!(looks > 0, "somebody complained");
    assert_eq!(world.watch.violations, Vec::<String>::new());
}

#[test]
fn copies_that_relays_acknowledge_do_not_count() {
    let mut world = network(Plan::new(23), 6);
    corrupt(&mut world, &[1, 2, 3, 4, 5], &[Hostility::Relay]);
    let mut work = Workload::default();
    work.put(&mut world, 0, 90_000, 3);
    work_for(&mut world, &mut work, 120);
    assert_eq!(work.puts.done, 1, "{:?}", work.puts.messages);
    assert_eq!(work.puts.partial, 1, "{:?}", work.puts.messages);
    assert!(counter(&mut world, 0, "frame_mac") > 0, "an offer was answered by a relay");
    assert_eq!(counter(&mut world, 0, "push_done"), 0);
}

#[test]
fn a_host_that_sends_rotten_content_of_one_file_is_still_asked_for_others() {
    let mut world = network(Plan::new(22), 8);
    let mut work = Workload::default();
    work.put(&mut world, 1, 700_000, 0);
    work.put(&mut world, 1, 800_000, 0);
    work_for(&mut world, &mut work, 60);
    let (bad, good) = (work.files[0].clone(), work.files[1].clone());
    world.set_adversary(1, Box::new(Rotten { file: Rc::clone(&bad.content) }));
    work.get(&mut world, 5, &bad);
    work_for(&mut world, &mut work, 20);
    assert!(counter(&mut world, 5, "sources_bad") > 0 && work.gets.done == 0);
    work.get(&mut world, 5, &good);
    work_for(&mut world, &mut work, 20);
    assert_eq!(work.gets.done, 1, "{:?}", work.gets.messages);
    assert_eq!(work.gets.wrong, 0, "{:?}", work.gets.messages);
    // The host's disk holds the right content, so the host still shares the file. After the ban, host 5 asks it again.
    assert!(counter(&mut world, 1, "rechecks_good") > 0);
    assert_eq!(counter(&mut world, 1, "files_withdrawn"), 0);
    world.clear_adversary(1);
    work_for(&mut world, &mut work, 120);
    work.get(&mut world, 5, &bad);
    work_for(&mut world, &mut work, 60);
    assert_eq!(work.gets.done, 2, "{:?}", work.gets.messages);
    assert_eq!(work.gets.wrong, 0, "{:?}", work.gets.messages);
}

#[test]
fn a_publisher_whose_file_rots_unseen_is_told_and_shares_its_other_files_on() {
    let mut world = network(Plan::new(23), 8);
    let mut work = Workload::default();
    work.put(&mut world, 1, 700_000, 0);
    work.put(&mut world, 1, 800_000, 0);
    work_for(&mut world, &mut work, 60);
    let (bad, good) = (work.files[0].clone(), work.files[1].clone());
    world.hosts[1].disk.rot_file(std::path::Path::new("/data/1"));
    work.get(&mut world, 5, &bad);
    work_for(&mut world, &mut work, 200);
    assert_eq!(work.gets.done, 0);
    assert_eq!(work.gets.failed, 1);
    assert_eq!(counter(&mut world, 1, "rechecks_rotten"), 1);
    let shares = |world: &World, hash| world.hosts[1].node().expect("it runs").store().has(hash);
    assert!(!shares(&world, &bad.hash) && shares(&world, &good.hash));
    work.get(&mut world, 5, &good);
    work_for(&mut world, &mut work, 60);
    assert_eq!(work.gets.done, 1, "{:?}", work.gets.messages);
    assert_eq!(work.gets.wrong, 0, "{:?}", work.gets.messages);
}

#[test]
fn a_rotten_copy_is_found_by_those_who_fetch_it_and_repair_makes_it_anew() {
    let mut world = network(Plan::new(24), 10);
    let mut work = Workload::default();
    work.put(&mut world, 1, 700_000, 3);
    work_for(&mut world, &mut work, 120);
    let file = work.files[0].clone();
    let chunk = file.content.manifest().keys()[1];
    let holders: Vec<usize> = (0..10).filter(|&host| world.hosts[host].disk.rot_piece(&chunk)).collect();
    assert!(!holders.is_empty());
    // The publisher is paused, so a node can fetch the chunk only from a holder, and every holder's copy is rotten.
    let rotten =
        |world: &World| -> u64 { holders.iter().map(|&h| world.hosts[h].disk.verify_pieces().1).sum() };
    assert_eq!(rotten(&world), holders.len() as u64);
    let stranger = (0..10).find(|host| *host != 1 && !holders.contains(host)).expect("there are more hosts");
    world.pause(1);
    work.get(&mut world, stranger, &file);
    work_for(&mut world, &mut work, 30);
    assert_eq!(rotten(&world), 0, "each was told and dropped its copy");
    assert_eq!(work.gets.done, 0, "each was told and dropped its copy");
    world.resume(1);
    work_for(&mut world, &mut work, 1800);
    let copies = (0..10).filter(|&host| world.hosts[host].disk.holds(&chunk)).count();
    assert!(copies >= 3, "{copies} copies");
    assert_eq!((0..10).map(|host| world.hosts[host].disk.verify_pieces().1).sum::<u64>(), 0);
    assert_eq!(work.gets.wrong, 0);
}

#[test]
fn a_download_survives_a_cut_and_a_pause_of_its_source() {
    let mut world = network(Plan::new(7), 6);
    let mut work = Workload::default();
    work.put(&mut world, 1, 4 << 20, 0);
    work_for(&mut world, &mut work, 60);
    let file = work.files[0].clone();
    work.get(&mut world, 4, &file);
    work_for(&mut world, &mut work, 1);
    world.links.port_mut(1).side = 1;
    world.links.block(1, 0, true);
    work_for(&mut world, &mut work, 5);
    world.links.block(1, 0, false);
    world.pause(1);
    work_for(&mut world, &mut work, 5);
    world.resume(1);
    work_for(&mut world, &mut work, 120);
    assert_eq!(work.gets.done, 1, "{:?}", work.gets.messages);
}

#[test]
fn a_host_that_slept_goes_on_and_one_that_crashed_has_what_it_acknowledged() {
    let mut world = network(Plan::new(8), 8);
    let mut work = Workload::default();
    work.put(&mut world, 1, 300_000, 3);
    work_for(&mut world, &mut work, 60);
    let holder = (0..8).find(|host| *host != 1 && world.hosts[*host].disk.pieces().count() > 0).unwrap();
    let pieces = world.status(holder).unwrap().pieces;
    world.crash(holder, Crash::Power);
    work_for(&mut world, &mut work, 30);
    world.start(holder, &[]);
    assert_eq!(world.status(holder).unwrap().pieces, pieces);
    world.suspend(3);
    work_for(&mut world, &mut work, 600);
    world.resume(3);
    work_for(&mut world, &mut work, 120);
    let status = world.status(3).unwrap();
    assert!(status.peers > 4 && status.uptime_seconds < 400, "its clock stood still: {status:?}");
}

#[test]
fn small_runs_that_once_showed_a_defect_show_none() {
    let small: Vec<_> = REGRESSIONS.iter().filter(|regression| regression.is_small()).collect();
    assert!(!small.is_empty());
    for regression in small {
        let outcome = (regression.scenario().unwrap().play)(&regression.options());
        assert!(outcome.report.holds(), "{regression:?}: {:#?}", outcome.report.checks);
    }
}

#[test]
fn a_shared_file_is_looked_after_when_pieces_of_it_that_were_stored_here_expire() {
    let mut world = network(Plan::new(11), 10);
    let content = Blob::random(700_000, 5);
    let keys = content.manifest().keys().to_vec();
    let put = |world: &mut World, host: usize, lifetime: u32| {
        let path = PathBuf::from(format!("/data/{host}"));
        world.hosts[host].disk.write_file(&path, Rc::clone(&content));
        world.command(host, Command::Put { path, replicas: Some(3), lifetime: Some(lifetime) });
        world.run_for(Duration::from_secs(120));
    };
    put(&mut world, 1, 900);
    let stored = |world: &World, host: usize| {
        let node = world.hosts[host].node.as_ref().expect("it runs");
        keys.iter().filter(|key| node.inspect_piece(world.now(), key).held == Held::Stored).count()
    };
    let second = (2..10).max_by_key(|host| stored(&world, *host)).expect("there are hosts");
    assert!(stored(&world, second) > 0);
    put(&mut world, second, 1_000_000);
    world.run_for(Duration::from_secs(1200));
    assert_eq!(stored(&world, second), 0, "they have expired");
    let node = world.hosts[second].node.as_ref().expect("it runs");
    for key in &keys {
        let entry = node.inspect_piece(world.now(), key);
        assert!(entry.held == Held::Shared && entry.live >= 1, "{entry:?}");
    }
}

#[test]
fn copies_that_rot_unread_are_found_by_the_scrub_and_made_anew_while_it_goes_on() {
    let mut plan = Plan::new(31);
    plan.limits.scrub_seconds = 600;
    let mut world = network(plan, 10);
    let mut work = Workload::default();
    for host in 0..4 {
        work.put(&mut world, host, 700_000, 3);
    }
    work_for(&mut world, &mut work, 120);
    assert_eq!(work.files.len(), 4, "{:?}", work.puts.messages);
    let mut rotted = 0;
    for round in 0..16_usize {
        // Every five minutes one piece on one host rots. No node fetches anything.
        let host = round * 7 % 10;
        let keys: Vec<Key> = world.hosts[host].disk.pieces().map(|piece| piece.key).collect();
        if let Some(key) = keys.get(round % keys.len().max(1)) {
            rotted += u64::from(world.hosts[host].disk.rot_piece(key));
        }
        work_for(&mut world, &mut work, 300);
    }
    work_for(&mut world, &mut work, 7200);
    let wrong: u64 = (0..10).map(|host| world.hosts[host].disk.verify_pieces().1).sum();
    assert_eq!(wrong, 0, "of {rotted} that rotted");
    let found: u64 = (0..10).map(|host| counter(&mut world, host, "pieces_rotten")).sum();
    assert!(rotted > 8 && found > 0 && found <= rotted, "{found} of {rotted} were found");
    for file in work.files.clone() {
        for key in file.content.manifest().keys() {
            let copies = (0..10).filter(|&host| world.hosts[host].disk.holds(key)).count();
            assert!(copies >= 3, "{copies} copies of {key}");
        }
        work.get(&mut world, 9, &file);
    }
    work_for(&mut world, &mut work, 120);
    assert_eq!(work.gets.done, 4, "{:?}", work.gets.messages);
    assert_eq!(work.gets.wrong, 0, "{:?}", work.gets.messages);
    assert_eq!(work.gets.failed, 0, "{:?}", work.gets.messages);
    assert_eq!(world.watch.violations, Vec::<String>::new());
}

/// Runs scenarios with few nodes and checks that every invariant holds.
fn play(names: &[&str], nodes: usize, minutes: u64) {
    for name in names {
        let outcome =
            (named(name).expect("a scenario that there is").play)(&Options::small(nodes, minutes, 3));
        assert!(outcome.report.holds(), "{name}: {:#?}", outcome.report.checks);
    }
}

#[test]
fn one_address_that_floods_all_tables_erases_nothing_of_others() {
    play(&["erase"], 12, 2);
}

#[test]
fn an_address_that_was_merely_named_is_sent_no_more_than_three_bytes_for_one() {
    play(&["reflect"], 16, 2);
}

#[test]
fn an_adversary_on_the_path_costs_time_and_nothing_else() {
    play(&["swallow", "downgrade"], 12, 3);
}
