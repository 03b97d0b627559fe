use super::*;
use crate::claim::PieceClaim;
use crate::id::PublicKey;
use crate::io::{Ages, DiskId, PieceMeta, Recovered};
use crate::limits::Limits;
use crate::node::Output;
use crate::node::command::Response;
use crate::store::Store;
use std::collections::BTreeSet;

const START: Instant = Instant::from_secs(1000);
const DAY: u32 = 24 * 3600;
/// Pieces on disk.
const PIECES: u64 = 20;

/// A scrub of some pieces, and the time.
struct Bench {
    now: Instant,
    machines: Machines,
    scrub: Scrub,
}

fn piece(number: u64) -> PieceMeta {
    let mut key = Key([0; 32]);
    key.0[..8].copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    let claim = PieceClaim::unsigned(PublicKey([5; 32]), 3, 2000, 1);
    PieceMeta { claim: Some(claim), ..PieceMeta::file(key, 100_000) }
}

impl Bench {
    /// A node of this age that starts with this note of its scrub.
    fn new(every: u32, age: u64, note: &[u8]) -> Self {
        let mut machines = Machines::alone(START);
        let ages = Ages { seconds: age, ..Ages::default() };
        let pieces = (0..PIECES).map(piece).collect();
        let recovered = Recovered { ages, pieces, ..Recovered::default() };
        machines.store = Store::new(&Limits::default(), &recovered, 1, START);
        let scrub = Scrub::new(every, note, &machines, START);
        Bench { now: START, machines, scrub }
    }

    /// The piece that the scrub asks the disk to read.
    fn asked(&mut self) -> Option<(DiskId, Key)> {
        let mut asked = None;
        for output in core::mem::take(&mut self.machines.outputs) {
            match output {
                Output::Disk { id, op: DiskOp::Verify { piece, idle: true } } => {
                    assert!(asked.replace((id, piece.key)).is_none(), "one at a time");
                }
                Output::Disk { op: DiskOp::SaveScrub(_), .. } => {}
                other => self.machines.outputs.push_back(other),
            }
        }
        asked
    }

    fn answer(&mut self, soundness: Soundness) -> Option<Rotten> {
        let result = Ok(DiskReply::Verified { soundness });
        self.scrub.handle_disk(self.now, result, &mut self.machines)
    }

    /// Advances the time to `seconds` after the start, and answers each read as sound. Returns the pieces that were read.
    fn pass(&mut self, seconds: u64) -> Vec<Key> {
        let until = START + Duration::from_secs(seconds);
        let mut read = Vec::new();
        while let Some(due) = self.scrub.next_deadline(&self.machines).filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.scrub.handle_timeout(self.now, &mut self.machines);
            while let Some((_, key)) = self.asked() {
                read.push(key);
                assert_eq!(self.answer(Soundness::Sound), None);
            }
            assert!(read.len() < 1000, "it reads without end");
        }
        self.now = until;
        read
    }

    fn responses(&mut self) -> Vec<Response> {
        let outputs = core::mem::take(&mut self.machines.outputs);
        let response = |output| match output {
            Output::Respond { response, .. } => Some(response),
            _ => None,
        };
        outputs.into_iter().filter_map(response).collect()
    }
}

#[test]
fn everything_is_read_once_within_the_time_evenly() {
    let mut bench = Bench::new(DAY, 0, &[]);
    let half = bench.pass(u64::from(DAY) / 2);
    assert!((9..=11).contains(&half.len()), "{}", half.len());
    let rest = bench.pass(u64::from(DAY) - 1);
    let all: BTreeSet<Key> = half.iter().chain(&rest).copied().collect();
    assert_eq!(half.len() + rest.len(), PIECES as usize);
    assert_eq!(all.len(), PIECES as usize);
    // The next round is as long.
    let next = bench.pass(u64::from(DAY) * 2 - 1);
    assert_eq!(next.iter().copied().collect::<BTreeSet<Key>>(), all);
    let status = bench.scrub.status(bench.now, &bench.machines);
    assert_eq!(status.last.map(|last| (last.pieces, last.bad)), Some((PIECES, 0)));
}

#[test]
fn a_restart_goes_on_where_it_was_and_a_damaged_note_begins_anew() {
    let mut bench = Bench::new(DAY, 500, &[]);
    let mut read = bench.pass(u64::from(DAY) / 4);
    let note = bench.scrub.encode();
    let age = 500 + u64::from(DAY) / 4;
    let mut bench = Bench::new(DAY, age, &note);
    read.extend(bench.pass(u64::from(DAY) * 3 / 4 - 1));
    assert_eq!(read.len(), PIECES as usize);
    assert_eq!(read.into_iter().collect::<BTreeSet<Key>>().len(), PIECES as usize);
    for damaged in [&note[1..], &[9; 128], &[]] {
        assert!(Bench::new(DAY, age, damaged).scrub.round.is_none());
    }
}

#[test]
fn without_a_time_nothing_is_read_until_a_command_asks_and_then_at_once() {
    let mut bench = Bench::new(0, 0, &[]);
    assert_eq!(bench.scrub.next_deadline(&bench.machines), None);
    bench.scrub.start(bench.now, CommandId(1), false, &mut bench.machines);
    bench.scrub.start(bench.now, CommandId(2), true, &mut bench.machines);
    assert_eq!(bench.responses().len(), 1, "the one in the background is answered");
    bench.scrub.start(bench.now, CommandId(3), false, &mut bench.machines);
    bench.scrub.cancel(CommandId(3));
    // The first was asked for before the outputs were looked through.
    let mut read = 1;
    assert_eq!(bench.answer(Soundness::Sound), None);
    while let Some((_, key)) = bench.asked() {
        read += 1;
        let rotten = read == 5;
        let found = bench.answer(if rotten { Soundness::Rotten } else { Soundness::Sound });
        assert_eq!(found, rotten.then_some(Rotten::Piece(key)));
    }
    assert_eq!(read, PIECES);
    let done = bench.responses();
    let Some(Response::Done(Reply::Scrub { running: false, report })) = done.last() else {
        panic!("{done:?}");
    };
    assert_eq!(report.pieces, PIECES);
    assert_eq!(report.bad, 1);
    assert_eq!(report.bytes, PIECES * 100_000);
    assert_eq!(bench.scrub.next_deadline(&bench.machines), None);
}

#[test]
fn a_medium_that_is_gone_costs_few_pieces_and_the_round_goes_on_when_it_is_back() {
    let mut bench = Bench::new(0, 0, &[]);
    bench.scrub.start(bench.now, CommandId(1), false, &mut bench.machines);
    let mut dropped = 0;
    while bench.asked().is_some() {
        dropped += u32::from(bench.answer(Soundness::Unreadable).is_some());
    }
    assert_eq!(dropped, UNREADABLE_MAX - 1);
    assert!(bench.scrub.status(bench.now, &bench.machines).failing);
    assert!(matches!(bench.responses()[..], [Response::Failed(_)]));
    // The scrub tries again from time to time, and drops nothing meanwhile.
    for _ in 0..3 {
        bench.now = bench.scrub.next_deadline(&bench.machines).expect("it looks again");
        bench.scrub.handle_timeout(bench.now, &mut bench.machines);
        assert!(bench.asked().is_some());
        assert_eq!(bench.answer(Soundness::Unreadable), None);
    }
    bench.now = bench.scrub.next_deadline(&bench.machines).expect("it looks again");
    bench.scrub.handle_timeout(bench.now, &mut bench.machines);
    while bench.asked().is_some() {
        assert_eq!(bench.answer(Soundness::Sound), None);
    }
    let status = bench.scrub.status(bench.now, &bench.machines);
    assert!(!status.failing && status.last.is_some_and(|last| last.pieces == PIECES));
}

#[test]
fn a_piece_that_cannot_be_checked_is_tried_again_and_does_not_stop_the_round() {
    let mut bench = Bench::new(DAY, 0, &[]);
    let mut tried = Vec::new();
    for _ in 0..=TRIES_MAX {
        bench.now = bench.scrub.next_deadline(&bench.machines).unwrap();
        bench.scrub.handle_timeout(bench.now, &mut bench.machines);
        tried.push(bench.asked().unwrap().1);
        let busy = DiskError { kind: DiskErrorKind::Failed, message: "too many open files".to_owned() };
        assert_eq!(bench.scrub.handle_disk(bench.now, Err(busy), &mut bench.machines), None);
    }
    tried.dedup();
    assert_eq!(tried.len(), 2);
}

#[test]
fn a_piece_that_was_written_anew_is_not_dropped_for_its_old_file() {
    let mut bench = Bench::new(DAY, 0, &[]);
    bench.scrub.handle_timeout(bench.now, &mut bench.machines);
    let (_, key) = bench.asked().unwrap();
    bench.scrub.piece_dropped(&key);
    assert_eq!(bench.answer(Soundness::Rotten), None);
    assert_eq!(bench.scrub.status(bench.now, &bench.machines).running.unwrap().bad, 0);
}
