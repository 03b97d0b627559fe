//! Inspections: questions about copies of pieces.

use super::hostile::{NOW, Puppet, machine};
use super::world::{World, content};
use crate::id::Key;
use crate::transfer::*;
use crate::wire::frame::{Frame, Parsed};
use crate::wire::inspect::{Held, INSPECT_KEYS_MAX, InspectEntry, RepairPhase, WireInspectEntry};

fn inspect(world: &mut World, id: u64, keys: &[Key]) {
    let (now, target) = (world.now, world.nodes[1].contact);
    assert!(world.nodes[0].transfer.inspect(now, InspectId(id), target, keys.to_vec()));
}

fn result(world: &World, id: u64) -> Option<Result<Vec<InspectEntry>, InspectError>> {
    world.nodes[0].events.iter().find_map(|event| match event {
        TransferEvent::Inspected { inspection, result, .. } if inspection.0 == id => Some(result.clone()),
        _ => None,
    })
}

#[test]
fn an_inspection_returns_one_entry_for_each_piece_in_order() {
    let mut world = World::new(2);
    world.step = 13;
    let manifest = world.nodes[1].share(&content(700_000, 1));
    let keys = [manifest.keys()[1], Key([9; 32]), manifest.hash()];
    inspect(&mut world, 1, &keys);
    world.settle();
    let here = InspectEntry { held: Held::Shared, ..InspectEntry::default() };
    assert_eq!(result(&world, 1), Some(Ok(vec![here, InspectEntry::default(), here])));
    assert_eq!(world.nodes[0].transfer.inspections(), 0);
}

#[test]
fn more_inspections_than_the_peer_answers_at_a_time_follow_one_another_and_too_many_are_refused() {
    let mut world = World::new(2);
    (0..INSPECTIONS_MAX as u64).for_each(|id| inspect(&mut world, id, &[Key([1; 32]); INSPECT_KEYS_MAX]));
    let (now, target) = (world.now, world.nodes[1].contact);
    assert!(!world.nodes[0].transfer.inspect(now, InspectId(99), target, vec![Key([1; 32])]));
    world.settle();
    assert!((0..INSPECTIONS_MAX as u64).all(|id| result(&world, id).is_some_and(|result| result.is_ok())));
}

#[test]
fn an_inspection_reports_an_unreachable_a_silent_and_a_broken_peer() {
    let mut world = World::new(2);
    world.nodes[1].reachable = false;
    inspect(&mut world, 1, &[Key([1; 32])]);
    world.settle();
    assert_eq!(result(&world, 1), Some(Err(InspectError::Unreachable)));
    world.nodes[1].reachable = true;
    inspect(&mut world, 2, &[Key([1; 32])]);
    world.settle();
    assert_eq!(result(&world, 2), Some(Ok(vec![InspectEntry::default()])));
    world.nodes[1].mute = true;
    inspect(&mut world, 3, &[Key([1; 32])]);
    assert!(world.run(120, |world| result(world, 3).is_some()));
    assert_eq!(result(&world, 3), Some(Err(InspectError::Lost)));
    // A late answer is ignored.
    world.nodes[1].mute = false;
    world.settle();
    assert_eq!(world.counters(0).frame_unexpected, 0);
    world.nodes[1].mute = true;
    inspect(&mut world, 4, &[Key([1; 32])]);
    world.settle();
    world.vanish(1);
    world.settle();
    assert_eq!(result(&world, 4), Some(Err(InspectError::Lost)));
    inspect(&mut world, 5, &[Key([1; 32])]);
    world.nodes[0].transfer.forget_inspection(InspectId(5));
    assert!(!world.run(1000, |world| result(world, 5).is_some()));
    assert_eq!(world.nodes[0].transfer.streams(), 0);
    assert_eq!(world.nodes[0].transfer.next_deadline(), None);
}

#[test]
fn a_peer_that_inspects_nothing_or_too_much_at_once_or_answers_wrongly_is_dropped() {
    let entry = WireInspectEntry::new(&InspectEntry {
        held: Held::Stored,
        replicas: 3,
        live: 3,
        phase: RepairPhase::Whole,
        since: 0,
    });
    let key = [Key([1; 32])];
    let asks = |questions: &[(u32, &[Key])]| {
        let mut machine = machine();
        let mut puppet = Puppet::authenticated(1, &mut machine);
        for (question, keys) in questions {
            puppet.say(&mut machine, &Frame::Inspect { question: *question, keys });
        }
        puppet.listen(&mut machine);
        puppet.closed
    };
    assert!(asks(&[(1, &[])]));
    assert!(asks(&[(1, &key), (1, &key)]));
    let many: Vec<(u32, &[Key])> = (0..17).map(|question| (question, &key[..])).collect();
    assert!(asks(&many) && !asks(&many[..16]));
    for (shift, entries) in [(0, &[entry; 2][..]), (0, &[]), (1, &[entry])] {
        let mut machine = machine();
        let mut puppet = Puppet::authenticated(1, &mut machine);
        puppet.heard.clear();
        assert!(machine.0.inspect(NOW, InspectId(1), puppet.contact(), key.to_vec()));
        puppet.listen(&mut machine);
        let heard = core::mem::take(&mut puppet.heard);
        let Ok(Parsed::Frame(Frame::Inspect { question, keys: asked }, _)) = Frame::parse(&heard) else {
            panic!("no question in {heard:?}")
        };
        assert_eq!(asked, key);
        puppet.say(&mut machine, &Frame::Inspected { question: question + shift, entries });
        puppet.listen(&mut machine);
        assert!(puppet.closed, "{entries:?}");
        let mut events = core::iter::from_fn(|| machine.0.poll_event());
        assert!(events.any(|event| matches!(
            event,
            TransferEvent::Inspected { inspection: InspectId(1), result: Err(InspectError::Lost), .. }
        )));
    }
}
