//! Commands that wait for their turn, first come first served.

use crate::node::command::{CommandId, FailureReason, Progress, Stage};
use crate::node::machines::Machines;
use std::collections::VecDeque;

/// The commands that are told whenever their place changes. Those further behind are told their place once.
const TOLD: usize = 16;

/// An order that waits in a [`Queue`].
pub(in crate::node) trait Waits {
    /// The command.
    fn command(&self) -> CommandId;
}

/// Orders that wait for their turn.
pub(in crate::node) struct Queue<T> {
    max: usize,
    waiting: VecDeque<T>,
}

impl<T: Waits> Queue<T> {
    /// An empty queue for at most `max` orders.
    pub(in crate::node) fn new(max: usize) -> Self {
        Queue { max, waiting: VecDeque::new() }
    }

    /// The number of waiting orders.
    pub(in crate::node) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The waiting orders, first in line first.
    pub(in crate::node) fn iter(&self) -> impl Iterator<Item = &T> {
        self.waiting.iter()
    }

    /// Queues an order, and tells its client how many are before it. If the queue is full, the command fails.
    pub(in crate::node) fn push(&mut self, order: T, machines: &mut Machines) {
        let (command, ahead) = (order.command(), self.waiting.len());
        if ahead >= self.max {
            let message = format!(
                "{ahead} downloads wait for their turn, and no more are allowed (`--queue`): try later"
            );
            return machines.fail(command, FailureReason::Busy, message);
        }
        self.waiting.push_back(order);
        tell(command, ahead, machines);
    }

    /// Removes the first order, whose turn it is.
    pub(in crate::node) fn pop(&mut self, machines: &mut Machines) -> Option<T> {
        let order = self.waiting.pop_front()?;
        for (ahead, order) in self.waiting.iter().take(TOLD).enumerate() {
            tell(order.command(), ahead, machines);
        }
        Some(order)
    }

    /// The client no longer waits for a command. False when the command is not in this queue.
    pub(in crate::node) fn cancel(&mut self, command: CommandId) -> bool {
        let waiting = self.waiting.len();
        self.waiting.retain(|order| order.command() != command);
        self.waiting.len() < waiting
    }
}

fn tell(command: CommandId, ahead: usize, machines: &mut Machines) {
    let done = ahead as u64;
    machines.progress(command, Progress { stage: Stage::Queued, done, total: 0, prefix: 0, path: None });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Output;
    use crate::node::command::Response;
    use crate::time::Instant;

    impl Waits for u64 {
        fn command(&self) -> CommandId {
            CommandId(*self)
        }
    }

    /// The place that each command was told: the number of orders before it, or `None` for a failure.
    fn told(machines: &mut Machines) -> Vec<(u64, Option<u64>)> {
        let told = machines.outputs.drain(..).filter_map(|output| match output {
            Output::Respond { command, response: Response::Progress(progress) } => {
                Some((command.0, Some(progress.done)))
            }
            Output::Respond { command, response: Response::Failed(failure) } => {
                assert_eq!(failure.reason, FailureReason::Busy);
                Some((command.0, None))
            }
            _ => None,
        });
        told.collect()
    }

    #[test]
    fn the_first_that_came_is_the_first_whose_turn_comes_and_the_others_hear_of_it() {
        let (mut queue, mut machines) = (Queue::new(3), Machines::alone(Instant::from_secs(1)));
        (1..=4).for_each(|order: u64| queue.push(order, &mut machines));
        assert_eq!(told(&mut machines), [(1, Some(0)), (2, Some(1)), (3, Some(2)), (4, None)]);
        assert!(queue.cancel(CommandId(2)) && !queue.cancel(CommandId(2)));
        assert_eq!(queue.pop(&mut machines), Some(1));
        assert_eq!(told(&mut machines), [(3, Some(0))]);
        assert_eq!(queue.len(), 1);
        assert_eq!(queue.pop(&mut machines), Some(3));
        assert_eq!(queue.pop(&mut machines), None);
    }
}
