//! All operations of one kind, and the orders for more: which of them begin, and when.
//!
//! An [`Order`](Operation::Order) begins at once; or joins an operation that does the same; or waits, for one operation that is
//! in its way, or in a queue until there is room. When an operation ends, the orders that waited for it begin.

use super::queue::{Queue, Waits};
use crate::node::command::{CommandId, FailureReason};
use crate::node::machines::Machines;
use crate::time::{Instant, earliest};
use std::collections::{BTreeMap, VecDeque};

/// The admission of an order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::node) enum Entry<Id> {
    /// It begins as soon as there is room.
    Begin,
    /// This operation does what it asks for.
    Join(Id),
    /// It begins after this operation has ended.
    After(Id),
    /// It fails.
    Refuse(FailureReason, String),
}

/// An operation: work over several events on behalf of commands.
pub(in crate::node) trait Operation: Sized {
    /// The operation's id.
    type Id: Copy + Ord;
    /// The request of a command.
    type Order: Waits;
    /// The settings that all operations of the kind share.
    type Settings;

    /// The id with a number that this node has not used in this run.
    fn id(number: u64) -> Self::Id;

    /// Decides about an order, given the operations under way.
    fn admit<'a>(
        order: &Self::Order,
        settings: &Self::Settings,
        others: impl Iterator<Item = &'a Self>,
    ) -> Entry<Self::Id>
    where
        Self: 'a;

    /// Begins an operation. It may end at once.
    fn begin(
        now: Instant,
        id: Self::Id,
        order: Self::Order,
        settings: &Self::Settings,
        machines: &mut Machines,
    ) -> Self;

    /// An order joins this operation: see [`Entry::Join`]. Operations that admit none are for one command each.
    fn join(&mut self, order: Self::Order) {
        debug_assert!(false, "the operation is not for {:?}, too", order.command());
    }

    /// Whether a command waits for this operation.
    fn awaits(&self, command: CommandId) -> bool;

    /// Whether the operation has ended: its commands have been answered, and nothing is left to do.
    fn is_over(&self) -> bool;

    /// When [`handle_timeout`](Operation::handle_timeout) is due.
    fn next_deadline(&self) -> Option<Instant>;

    /// The deadline of [`next_deadline`](Operation::next_deadline) has come.
    fn handle_timeout(&mut self, now: Instant, machines: &mut Machines);

    /// A client no longer waits for a command of this operation.
    fn cancel(&mut self, now: Instant, command: CommandId, machines: &mut Machines);
}

/// All operations of one kind.
pub(in crate::node) struct Table<O: Operation> {
    max: usize,
    settings: O::Settings,
    under_way: BTreeMap<O::Id, O>,
    /// Orders that wait for one operation to end.
    after: BTreeMap<O::Id, Vec<O::Order>>,
    /// Orders that wait for room.
    queue: Queue<O::Order>,
}

impl<O: Operation> Table<O> {
    /// An empty table for at most `max` operations, with at most `queued_max` orders that wait for room.
    pub(in crate::node) fn with(max: usize, queued_max: usize, settings: O::Settings) -> Self {
        let (under_way, after) = (BTreeMap::new(), BTreeMap::new());
        Table { max, settings, under_way, after, queue: Queue::new(queued_max) }
    }

    // Getters.

    /// The number of operations under way.
    pub(in crate::node) fn len(&self) -> usize {
        self.under_way.len()
    }

    /// The number of orders that wait for room.
    pub(in crate::node) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// The operation with this id, if it is under way.
    pub(in crate::node) fn get(&self, id: O::Id) -> Option<&O> {
        self.under_way.get(&id)
    }

    /// Whether an operation with this id is under way.
    pub(in crate::node) fn contains(&self, id: O::Id) -> bool {
        self.under_way.contains_key(&id)
    }

    /// The operations under way, in the order in which they began.
    pub(in crate::node) fn iter(&self) -> impl Iterator<Item = &O> {
        self.under_way.values()
    }

    /// The orders that wait for room, in order.
    pub(in crate::node) fn orders(&self) -> impl Iterator<Item = &O::Order> {
        self.queue.iter()
    }

    /// The ids of the operations for which a test holds.
    pub(in crate::node) fn ids(&self, which: impl Fn(&O) -> bool) -> Vec<O::Id> {
        self.under_way.iter().filter(|(_, operation)| which(operation)).map(|(id, _)| *id).collect()
    }

    /// When [`handle_timeout`](Table::handle_timeout) is due.
    pub(in crate::node) fn next_deadline(&self) -> Option<Instant> {
        self.under_way.values().map(O::next_deadline).fold(None, earliest)
    }

    // Inputs.

    /// Enters a command's order.
    pub(in crate::node) fn start(&mut self, now: Instant, order: O::Order, machines: &mut Machines) {
        self.go_on(now, [order].into(), machines);
    }

    /// A client no longer waits for a command.
    pub(in crate::node) fn cancel(&mut self, now: Instant, command: CommandId, machines: &mut Machines) {
        if self.queue.cancel(command) {
            return;
        }
        self.after.values_mut().for_each(|orders| orders.retain(|order| order.command() != command));
        self.after.retain(|_, orders| !orders.is_empty());
        self.hand_to(now, command, machines, |operation, machines| operation.cancel(now, command, machines));
    }

    /// The deadline of [`next_deadline`](Table::next_deadline) has come.
    pub(in crate::node) fn handle_timeout(&mut self, now: Instant, machines: &mut Machines) {
        for id in self.ids(|operation| operation.next_deadline().is_some_and(|at| at <= now)) {
            self.hand(now, id, machines, |operation, machines| operation.handle_timeout(now, machines));
        }
    }

    /// Passes an event to an operation. An event for an operation that has ended is dropped.
    pub(in crate::node) fn hand(
        &mut self,
        now: Instant,
        id: O::Id,
        machines: &mut Machines,
        event: impl FnOnce(&mut O, &mut Machines),
    ) {
        let Some(operation) = self.under_way.get_mut(&id) else { return };
        event(operation, machines);
        if operation.is_over() {
            self.under_way.remove(&id);
            let waiting = self.after.remove(&id).unwrap_or_default();
            self.go_on(now, waiting.into(), machines);
        }
    }

    /// Passes an event to the operation that a command waits for.
    pub(in crate::node) fn hand_to(
        &mut self,
        now: Instant,
        command: CommandId,
        machines: &mut Machines,
        event: impl FnOnce(&mut O, &mut Machines),
    ) {
        if let Some(id) = self.ids(|operation| operation.awaits(command)).first() {
            self.hand(now, *id, machines, event);
        }
    }

    /// Enters these orders, and then those for which there is room.
    fn go_on(&mut self, now: Instant, mut orders: VecDeque<O::Order>, machines: &mut Machines) {
        loop {
            let has_room = self.under_way.len() < self.max;
            let next = orders.pop_front().or_else(|| if has_room { self.queue.pop(machines) } else { None });
            let Some(order) = next else { return };
            if let Some(over) = self.enter(now, order, machines) {
                orders.extend(self.after.remove(&over).unwrap_or_default());
            }
        }
    }

    /// Admits an order. Returns the operation that it began, if that has ended already.
    fn enter(&mut self, now: Instant, order: O::Order, machines: &mut Machines) -> Option<O::Id> {
        match O::admit(&order, &self.settings, self.under_way.values()) {
            Entry::Begin if self.under_way.len() < self.max => {
                let id = O::id(machines.fresh_id());
                let operation = O::begin(now, id, order, &self.settings, machines);
                if operation.is_over() {
                    return Some(id);
                }
                self.under_way.insert(id, operation);
            }
            Entry::Begin => self.queue.push(order, machines),
            Entry::Join(id) => match self.under_way.get_mut(&id) {
                Some(operation) => operation.join(order),
                None => debug_assert!(false, "only what is under way can be joined"),
            },
            Entry::After(id) => self.after.entry(id).or_default().push(order),
            Entry::Refuse(reason, message) => machines.fail(order.command(), reason, message),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::Output;
    use crate::node::command::{Progress, Reply, Response, Stage};
    use crate::time::Duration;

    const START: Instant = Instant::from_secs(100);

    /// An order of a test: an operation that takes `seconds`.
    #[derive(Clone, Copy)]
    struct Order {
        command: u64,
        what: char,
        seconds: u64,
    }

    impl Waits for Order {
        fn command(&self) -> CommandId {
            CommandId(self.command)
        }
    }

    /// Makes a thing until a certain time. An order for the same thing joins; an order for a capital letter waits for the small
    /// one, and the reverse.
    struct Making {
        id: u64,
        what: char,
        until: Instant,
        commands: Vec<CommandId>,
    }

    impl Operation for Making {
        type Id = u64;
        type Order = Order;
        /// A thing that cannot be made.
        type Settings = char;

        fn id(number: u64) -> u64 {
            number
        }

        fn admit<'a>(order: &Order, _: &char, mut others: impl Iterator<Item = &'a Self>) -> Entry<u64> {
            let Some(other) = others.find(|other| other.what.eq_ignore_ascii_case(&order.what)) else {
                let bad = order.what == '!';
                return if bad { Entry::Refuse(FailureReason::Usage, String::new()) } else { Entry::Begin };
            };
            if other.what == order.what { Entry::Join(other.id) } else { Entry::After(other.id) }
        }

        fn begin(now: Instant, id: u64, order: Order, unmade: &char, machines: &mut Machines) -> Self {
            let until = now + Duration::from_secs(order.seconds);
            let mut making = Making { id, what: order.what, until, commands: vec![order.command()] };
            if order.what == *unmade {
                making.end(machines);
            }
            making
        }

        fn join(&mut self, order: Order) {
            self.commands.push(order.command());
        }

        fn awaits(&self, command: CommandId) -> bool {
            self.commands.contains(&command)
        }

        fn is_over(&self) -> bool {
            self.commands.is_empty()
        }

        fn next_deadline(&self) -> Option<Instant> {
            Some(self.until)
        }

        fn handle_timeout(&mut self, _: Instant, machines: &mut Machines) {
            self.end(machines);
        }

        fn cancel(&mut self, _: Instant, command: CommandId, _: &mut Machines) {
            self.commands.retain(|other| *other != command);
        }
    }

    impl Making {
        fn end(&mut self, machines: &mut Machines) {
            for command in self.commands.drain(..) {
                machines.done(command, Reply::Remove { hash: crate::id::Key([0; 32]) });
            }
        }
    }

    struct Bench {
        table: Table<Making>,
        machines: Machines,
    }

    impl Bench {
        fn new(max: usize) -> Bench {
            Bench { table: Table::with(max, 3, '0'), machines: Machines::alone(START) }
        }

        fn order(&mut self, command: u64, what: char, seconds: u64) {
            self.table.start(START, Order { command, what, seconds }, &mut self.machines);
        }

        fn cancel(&mut self, command: u64) {
            self.table.cancel(START, CommandId(command), &mut self.machines);
        }

        /// Advances the time to `seconds` after the start.
        fn pass(&mut self, seconds: u64) {
            let now = START + Duration::from_secs(seconds);
            while self.table.next_deadline().is_some_and(|at| at <= now) {
                self.table.handle_timeout(now, &mut self.machines);
            }
        }

        fn under_way(&self) -> String {
            self.table.iter().map(|making| making.what).collect()
        }

        /// The commands that ended, with the reasons of those that failed.
        fn ended(&mut self) -> Vec<(u64, Option<FailureReason>)> {
            let ended = self.machines.outputs.drain(..).filter_map(|output| match output {
                Output::Respond { command, response: Response::Done(_) } => Some((command.0, None)),
                Output::Respond { command, response: Response::Failed(failure) } => {
                    Some((command.0, Some(failure.reason)))
                }
                Output::Respond {
                    response: Response::Progress(Progress { stage: Stage::Queued, .. }),
                    ..
                } => None,
                other => panic!("{other:?}"),
            });
            ended.collect()
        }
    }

    #[test]
    fn each_order_ends_when_its_time_has_come() {
        let mut bench = Bench::new(2);
        assert_eq!(bench.table.len(), 0);
        assert_eq!(bench.table.next_deadline(), None);
        bench.order(1, 'a', 9);
        bench.order(2, 'b', 5);
        assert_eq!(bench.table.next_deadline(), Some(START + Duration::from_secs(5)));
        bench.pass(5);
        assert_eq!(bench.ended(), vec![(2, None)]);
        assert_eq!(bench.under_way(), "a".to_owned());
        bench.pass(9);
        assert_eq!(bench.ended(), vec![(1, None)]);
        assert_eq!(bench.table.len(), 0);
    }

    #[test]
    fn orders_without_room_begin_in_order_and_too_many_are_refused() {
        let mut bench = Bench::new(1);
        ('a'..='e').zip(1..).for_each(|(what, command)| bench.order(command, what, 5));
        assert_eq!(bench.ended(), [(5, Some(FailureReason::Busy))]);
        assert_eq!(bench.under_way(), "a".to_owned());
        assert_eq!(bench.table.queued(), 3);
        assert_eq!(bench.table.orders().map(|order| order.what).collect::<String>(), "bcd");
        bench.cancel(2);
        bench.cancel(1);
        assert_eq!(bench.under_way(), "c".to_owned());
        assert_eq!(bench.table.queued(), 1);
    }

    #[test]
    fn an_order_for_an_operation_under_way_joins_it_and_both_are_answered() {
        let mut bench = Bench::new(1);
        bench.order(1, 'a', 5);
        bench.order(2, 'a', 50);
        bench.order(3, 'a', 50);
        bench.cancel(1);
        assert_eq!(bench.under_way(), "a", "two commands wait for it still");
        bench.pass(5);
        assert_eq!(bench.ended(), vec![(2, None), (3, None)]);
        assert_eq!(bench.table.len(), 0);
    }

    #[test]
    fn an_order_waits_for_an_operation_in_its_way_and_can_be_cancelled() {
        let mut bench = Bench::new(2);
        bench.order(1, 'a', 5);
        bench.order(2, 'A', 5);
        bench.order(3, 'A', 5);
        bench.cancel(2);
        assert_eq!(bench.under_way(), "a".to_owned());
        assert_eq!(bench.table.queued(), 0);
        bench.cancel(1);
        assert_eq!(bench.under_way(), "A");
        bench.cancel(3);
        assert_eq!(bench.under_way(), String::new());
        assert_eq!(bench.ended(), vec![]);
    }

    #[test]
    fn orders_that_waited_for_an_operation_come_before_those_that_wait_for_room() {
        let mut bench = Bench::new(1);
        bench.order(1, 'a', 5);
        bench.order(2, 'b', 5);
        bench.order(3, 'A', 5);
        bench.cancel(1);
        assert_eq!(bench.under_way(), "A".to_owned());
        assert_eq!(bench.table.queued(), 1);
        bench.cancel(3);
        assert_eq!(bench.under_way(), "b");
    }

    #[test]
    fn an_order_that_is_refused_or_over_at_once_takes_no_room() {
        let mut bench = Bench::new(1);
        bench.order(1, '!', 5);
        bench.order(2, '0', 5);
        bench.order(3, 'a', 5);
        for (command, what) in [(4, '0'), (5, '!'), (6, 'b')] {
            bench.order(command, what, 5);
        }
        let expected = [(1, Some(FailureReason::Usage)), (2, None), (5, Some(FailureReason::Usage))];
        assert_eq!(bench.ended(), expected);
        bench.cancel(3);
        assert_eq!(bench.ended(), vec![(4, None)]);
        assert_eq!(bench.under_way(), "b".to_owned());
    }

    #[test]
    fn an_event_for_an_operation_that_has_ended_is_dropped() {
        let mut bench = Bench::new(1);
        bench.order(1, 'a', 5);
        let id = bench.table.ids(|_| true)[0];
        assert!(bench.table.contains(id) && bench.table.get(id).is_some());
        bench.cancel(1);
        bench.table.hand(START, id, &mut bench.machines, |_, _| panic!("it is over"));
        bench.table.hand_to(START, CommandId(1), &mut bench.machines, |_, _| panic!("it is over"));
        bench.cancel(1);
        assert!(!bench.table.contains(id));
        assert_eq!(bench.ended(), vec![]);
    }
}
