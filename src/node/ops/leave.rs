//! Leaving for good: handing over the pieces that have too few other known copies, and then the end.
//!
//! A [`Departure`] decides which piece is next and when the node goes. The node offers the piece to the nodes closest to its key, and says
//! goodbye.

use crate::id::Key;
use crate::node::Output;
use crate::node::command::{CommandId, Progress, Reply, Stage};
use crate::node::machines::Machines;
use crate::time::{Duration, Instant};
use std::collections::BTreeSet;

/// Pieces that are handed over at a time.
const AT_A_TIME: usize = 8;
/// A piece with fewer known copies elsewhere than this is handed over. More than one, because another holder may leave at the same
/// moment.
const COPIES_ELSEWHERE: u8 = 2;
/// The time limit in seconds, unless the command says otherwise.
const LEAVE_SECONDS: u32 = 60;

/// The departure of this node, if a command asked for it.
#[derive(Default)]
pub(in crate::node) struct Departure {
    leaving: Option<Leaving>,
}

/// A node that is about to leave.
struct Leaving {
    waiters: Vec<CommandId>,
    until: Instant,
    /// Pieces still to be handed over.
    todo: Vec<Key>,
    under_way: BTreeSet<Key>,
    total: u64,
    handed_over: u64,
}

impl Departure {
    // Getters.

    /// Whether the node is about to leave. Then it takes no new pieces of others.
    pub(in crate::node) fn is_under_way(&self) -> bool {
        self.leaving.is_some()
    }

    /// Whether it is time to go: every piece has been offered, or the time is up.
    pub(in crate::node) fn is_due(&self, now: Instant) -> bool {
        self.leaving.as_ref().is_some_and(|leaving| {
            now >= leaving.until || leaving.todo.is_empty() && leaving.under_way.is_empty()
        })
    }

    /// When [`is_due`](Departure::is_due) becomes true without an event.
    pub(in crate::node) fn next_deadline(&self) -> Option<Instant> {
        self.leaving.as_ref().map(|leaving| leaving.until)
    }

    // Inputs.

    /// A command to leave. `timeout` is the time limit in seconds. A further command waits for the departure under way.
    pub(in crate::node) fn start(
        &mut self,
        now: Instant,
        command: CommandId,
        timeout: Option<u32>,
        machines: &Machines,
    ) {
        if let Some(leaving) = &mut self.leaving {
            return leaving.waiters.push(command);
        }
        let todo: Vec<Key> = machines.replication.short_of(COPIES_ELSEWHERE).collect();
        self.leaving = Some(Leaving {
            waiters: vec![command],
            until: now + Duration::from_secs(u64::from(timeout.unwrap_or(LEAVE_SECONDS))),
            total: todo.len() as u64,
            todo,
            under_way: BTreeSet::new(),
            handed_over: 0,
        });
    }

    /// The next piece to offer to the nodes closest to it. [`placed`](Departure::placed) tells how it ended.
    pub(in crate::node) fn next(&mut self) -> Option<Key> {
        let leaving = self.leaving.as_mut().filter(|leaving| leaving.under_way.len() < AT_A_TIME)?;
        let key = leaving.todo.pop()?;
        leaving.under_way.insert(key);
        Some(key)
    }

    /// A piece was offered, and `copies` other nodes have it now.
    pub(in crate::node) fn placed(&mut self, key: &Key, copies: u8, machines: &mut Machines) {
        let Some(leaving) = &mut self.leaving else { return };
        if !leaving.under_way.remove(key) {
            return;
        }
        leaving.handed_over += u64::from(copies > 0);
        let (done, total) = (leaving.handed_over, leaving.total);
        for waiter in &leaving.waiters {
            let progress = Progress { stage: Stage::HandingOver, done, total, prefix: 0, path: None };
            machines.progress(*waiter, progress);
        }
    }

    /// The node has said goodbye: answers the commands, and stops the program. Pieces that were not handed over stay behind.
    pub(in crate::node) fn finish(&mut self, machines: &mut Machines) {
        let Some(leaving) = self.leaving.take() else { return debug_assert!(false, "no departure is due") };
        let handed_over = leaving.handed_over as u32;
        let left_behind = leaving.total as u32 - handed_over;
        for waiter in leaving.waiters {
            machines.done(waiter, Reply::Leave { handed_over, left_behind });
        }
        machines.outputs.push_back(Output::Stop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::command::Response;
    use crate::replication::Held;

    const START: Instant = Instant::from_secs(100);

    struct Bench {
        machines: Machines,
        departure: Departure,
    }

    impl Bench {
        /// A node with this many pieces, of which it knows no other copy.
        fn new(pieces: u8) -> Bench {
            let mut machines = Machines::alone(START);
            for number in 0..pieces {
                let piece = Held { key: Key([number; 32]), replicas: 3, length: 1, keep: false };
                machines.replication.piece_added(START, piece);
            }
            Bench { machines, departure: Departure::default() }
        }

        fn leave(&mut self, command: u64, timeout: Option<u32>) {
            self.departure.start(START, CommandId(command), timeout, &self.machines);
        }

        /// Takes all pieces that are to be offered now.
        fn offered(&mut self) -> Vec<Key> {
            core::iter::from_fn(|| self.departure.next()).collect()
        }

        fn placed(&mut self, key: &Key, copies: u8) {
            self.departure.placed(key, copies, &mut self.machines);
        }

        fn is_due(&self, seconds: u64) -> bool {
            self.departure.is_due(START + Duration::from_secs(seconds))
        }

        /// The commands that were answered: how many pieces were handed over and left behind.
        fn finish(&mut self) -> Vec<(u64, u32, u32)> {
            self.departure.finish(&mut self.machines);
            assert!(matches!(self.machines.outputs.back(), Some(Output::Stop)), "the answers come first");
            let answers = self.machines.outputs.drain(..).filter_map(|output| match output {
                Output::Respond {
                    command,
                    response: Response::Done(Reply::Leave { handed_over, left_behind }),
                } => Some((command.0, handed_over, left_behind)),
                _ => None,
            });
            answers.collect()
        }
    }

    #[test]
    fn a_node_without_pieces_may_go_at_once() {
        let mut bench = Bench::new(0);
        assert!(!bench.is_due(1000), "no command asked for it");
        bench.leave(1, None);
        assert!(bench.is_due(0));
        assert_eq!(bench.finish(), [(1, 0, 0)]);
        assert!(!bench.departure.is_under_way());
        assert_eq!(bench.departure.next_deadline(), None);
    }

    #[test]
    fn a_node_may_go_when_its_pieces_were_handed_over_a_few_at_a_time() {
        let mut bench = Bench::new(10);
        bench.leave(1, None);
        let first = bench.offered();
        assert_eq!(first.len(), AT_A_TIME);
        first.iter().for_each(|key| bench.placed(key, 2));
        let rest = bench.offered();
        assert_eq!(rest.len(), 2);
        bench.placed(&rest[0], 1);
        assert!(!bench.is_due(59), "one piece is under way");
        bench.placed(&rest[1], 0);
        assert!(bench.is_due(59));
        assert_eq!(bench.finish(), [(1, 9, 1)]);
    }

    #[test]
    fn the_pieces_that_are_not_handed_over_in_time_are_left_behind() {
        let mut bench = Bench::new(3);
        bench.leave(1, Some(20));
        let offered = bench.offered();
        bench.placed(&offered[0], 1);
        assert_eq!(bench.departure.next_deadline(), Some(START + Duration::from_secs(20)));
        assert!(!bench.is_due(19));
        assert!(bench.is_due(20));
        assert_eq!(bench.finish(), [(1, 1, 2)]);
    }

    #[test]
    fn a_second_command_waits_for_the_same_departure() {
        let mut bench = Bench::new(1);
        bench.leave(1, Some(20));
        bench.leave(2, Some(1));
        assert!(!bench.is_due(19));
        assert_eq!(bench.finish(), [(1, 0, 1), (2, 0, 1)]);
    }

    #[test]
    fn a_piece_that_was_not_offered_for_the_departure_does_not_count() {
        let mut bench = Bench::new(1);
        bench.placed(&Key([0; 32]), 3);
        bench.leave(1, None);
        bench.placed(&Key([9; 32]), 3);
        assert_eq!(bench.offered(), [Key([0; 32])]);
        assert_eq!(bench.finish(), [(1, 0, 1)]);
    }
}
