//! Named values: publishing and looking them up.

use crate::dht::{Dht, PublishId, Turnout};
use crate::gossip::Liveness;
use crate::id::{Key, PublicKey};
use crate::io::DiskOp;
use crate::limits::Limits;
use crate::node::command::{CommandId, FailureReason, OwnValue, Reply};
use crate::node::machines::Machines;
use crate::node::{Purpose, Waiting, status};
use crate::time::Instant;
use crate::wire::message::Want;
use crate::wire::network::Network;
use crate::wire::record::{
    LIFETIME_MAX, NAME_BYTES_MAX, RECORD_BYTES_MAX, Record, VALUE_BYTES_MAX, is_name, record_key,
};
use std::collections::BTreeMap;

/// Seconds that other nodes keep a value without hearing from its publisher. The publisher renews it every hour.
const LIFETIME_DEFAULT: u32 = 24 * 3600;

/// With this many answers, or as many as there are members, a lookup can say that no node has a value.
const ANSWERS_ENOUGH: usize = 4;

/// The commands about values that are under way.
pub(in crate::node) struct Values {
    /// The publications, and the command that waits for each.
    publishing: BTreeMap<PublishId, CommandId>,
    /// The bounds that messages name.
    values_max: usize,
    lookups_max: usize,
}

impl Values {
    /// No command is under way.
    pub(in crate::node) fn new(limits: &Limits) -> Self {
        let (values_max, lookups_max) = (limits.values_max, limits.lookups_max);
        Values { publishing: BTreeMap::new(), values_max, lookups_max }
    }

    // Publishing.

    /// A command to publish a value for `lifetime` seconds. It is answered when the value is published and saved.
    pub(in crate::node) fn set(
        &mut self,
        now: Instant,
        id: CommandId,
        name: &str,
        value: &[u8],
        lifetime: Option<u32>,
        machines: &mut Machines,
    ) {
        let lifetime = lifetime.unwrap_or(LIFETIME_DEFAULT);
        if let Err(message) = check(name, value, lifetime) {
            return machines.fail(id, FailureReason::Usage, message);
        }
        if !machines.dht.has_room_to_publish(name, &machines.outbox) {
            let most = self.values_max;
            let message =
                format!("{most} values are published already (`--values`): end some with `elver unset NAME`");
            return machines.fail(id, FailureReason::NoSpace, message);
        }
        match machines.dht.publish(now, name, value, lifetime, &mut machines.outbox) {
            Some(publish) => _ = self.publishing.insert(publish, id),
            None => self.too_many_lookups(id, machines),
        }
    }

    /// A value is published: it is saved to disk before the command is answered.
    pub(in crate::node) fn handle_published(
        &mut self,
        publish: PublishId,
        copies: u32,
        record: &[u8],
        machines: &mut Machines,
    ) {
        let Some(command) = self.publishing.remove(&publish) else { return };
        let Ok(record) = Record::parse(record) else {
            return debug_assert!(false, "a record of this node can be read");
        };
        let reply = Reply::Set {
            publisher: record.publisher(),
            name: record.name().to_owned(),
            copies,
            sequence: record.sequence(),
        };
        save(Waiting::Record(command, reply), machines);
    }

    /// A command to stop publishing a value. That is saved to disk before the command is answered. `early` are commands to publish it
    /// that have not begun: they fail, and so do those under way.
    pub(in crate::node) fn unset(
        &mut self,
        id: CommandId,
        name: &str,
        early: Vec<CommandId>,
        machines: &mut Machines,
    ) {
        let unpublished = machines.dht.unpublish(name, &machines.outbox);
        let lifetime = unpublished.as_ref().map(|unpublished| unpublished.lifetime);
        let cancelled = unpublished.map(|unpublished| unpublished.cancelled).unwrap_or_default();
        let mut ended: Vec<CommandId> =
            cancelled.iter().filter_map(|publish| self.publishing.remove(publish)).collect();
        ended.extend(early);
        if lifetime.is_none() && ended.is_empty() {
            let message = format!("this node publishes no value of the name {name}: see `elver values`");
            return machines.fail(id, FailureReason::NotFound, message);
        }
        for set in ended {
            machines.fail(set, FailureReason::Failed, format!("{name} was unset before it was published"));
        }
        let publisher = machines.outbox.identity().public();
        let reply = Reply::Unset { publisher, name: name.to_owned(), lifetime: lifetime.unwrap_or(0) };
        save(Waiting::Record(id, reply), machines);
    }

    // Looking up.

    /// A command to look up the value of a publisher. `fresh` asks the network even if the value is here.
    pub(in crate::node) fn look_up(
        &self,
        now: Instant,
        id: CommandId,
        publisher: PublicKey,
        name: &str,
        fresh: bool,
        machines: &mut Machines,
    ) {
        if !is_name(name) {
            return machines.fail(id, FailureReason::Usage, "no value can have this name");
        }
        let key = record_key(&publisher, name);
        // Nothing newer exists than what this node itself publishes.
        let own = machines.dht.published_value(&key).filter(|_| !fresh);
        if let Some(own) =
            own.and_then(|bytes| Record::parse(bytes).ok()).map(|record| reply(&record, 0, false))
        {
            return machines.done(id, own);
        }
        let question = Question { command: id, key, fresh };
        match machines.dht.find(now, key, Want::Value, &mut machines.outbox) {
            Some(lookup) => _ = machines.lookups.insert(lookup, Purpose::Value(question)),
            None => self.too_many_lookups(id, machines),
        }
    }

    fn too_many_lookups(&self, id: CommandId, machines: &mut Machines) {
        let most = self.lookups_max;
        let message =
            format!("{most} lookups are under way, and no more are allowed (`--lookups`): try later");
        machines.fail(id, FailureReason::Busy, message);
    }
}

/// Whether a value can be published, or why it cannot.
fn check(name: &str, value: &[u8], lifetime: u32) -> Result<(), String> {
    if !is_name(name) {
        return Err(format!(
            "a name has 1 to {NAME_BYTES_MAX} bytes, none of them a control character or a slash"
        ));
    }
    if value.len() > VALUE_BYTES_MAX {
        return Err(format!(
            "the value has {} bytes, and at most {VALUE_BYTES_MAX} are allowed",
            value.len()
        ));
    }
    match (1..=LIFETIME_MAX).contains(&lifetime) {
        true => Ok(()),
        false => Err(format!("a value lives for 1 to {LIFETIME_MAX} seconds")),
    }
}

/// A command that looks up a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::node) struct Question {
    command: CommandId,
    key: Key,
    /// Whether only the network's answer counts.
    fresh: bool,
}

impl Question {
    /// The lookup has ended with this record: answers the command.
    pub(in crate::node) fn answer(
        &self,
        now: Instant,
        record: Option<&[u8]>,
        turnout: Turnout,
        machines: &mut Machines,
    ) {
        // The network forgets a value whose keepers all left, and a node without a link asks in vain. A value that was seen once is
        // not taken back for an older one.
        let parse = |bytes| Record::parse(bytes).ok().filter(|record| record.key() == self.key);
        let remembered = machines.dht.remembered_value(now, &self.key).filter(|_| !self.fresh);
        let (found, remembered) = (record.and_then(parse), remembered.and_then(parse));
        let is_older = remembered.map(|record| record.sequence()) > found.map(|record| record.sequence());
        // What this node itself keeps may be old: only the network can tell.
        let found = found.filter(|_| !self.fresh || turnout.answered > 0);
        match if is_older { remembered } else { found } {
            Some(record) => {
                let from_memory = is_older || turnout.is_poor();
                machines.done(self.command, reply(&record, turnout.asked, from_memory));
            }
            None => self.fail(turnout, machines),
        }
    }

    /// No value was found: the command fails.
    fn fail(&self, turnout: Turnout, machines: &mut Machines) {
        let Turnout { asked, answered } = turnout;
        let (reason, message) = if asked == 0 {
            let why = "the value is not here, and this node knows no other node to ask: see `elver peers`";
            (FailureReason::Unreachable, why.to_owned())
        } else if turnout.is_poor() || answered < members_up_to(ANSWERS_ENOUGH, machines) {
            let why =
                "too few to say whether the value exists: this node's link may be down (`elver status`)";
            (FailureReason::Unreachable, format!("{answered} of {asked} nodes answered, {why}"))
        } else {
            let answered = status::answered(answered);
            let why = format!("no node that was asked has a value of that name; {answered}");
            (FailureReason::NotFound, why)
        };
        machines.fail(self.command, reason, message);
    }
}

/// The number of members that have not departed, counted up to `most`. A node that has just got its link back knows members, but
/// its routing table is almost empty.
fn members_up_to(most: usize, machines: &Machines) -> u32 {
    let is_there = |liveness| matches!(liveness, Liveness::Live | Liveness::Suspect | Liveness::Unresponsive);
    machines.gossip.members().filter(|member| is_there(member.liveness)).take(most).count() as u32
}

/// The answer to a lookup that asked this many nodes.
fn reply(record: &Record<'_>, asked: u32, from_memory: bool) -> Reply {
    Reply::Lookup {
        publisher: record.publisher(),
        name: record.name().to_owned(),
        value: record.value().to_vec(),
        sequence: record.sequence(),
        asked,
        from_memory,
    }
}

/// The values that this node publishes, in the order of their names.
pub(in crate::node) fn own(machines: &Machines) -> Vec<OwnValue> {
    let records = machines.dht.own_records().filter_map(|bytes| Record::parse(bytes).ok());
    let mut values: Vec<OwnValue> = records
        .map(|record| OwnValue {
            name: record.name().to_owned(),
            value: record.value().to_vec(),
            sequence: record.sequence(),
            lifetime: record.lifetime(),
        })
        .collect();
    values.sort_by(|one, other| one.name.cmp(&other.name));
    values
}

/// Saves all own records.
fn save(waiting: Waiting, machines: &mut Machines) {
    let records = encode(machines.dht.own_records());
    machines.disk(DiskOp::SaveRecords(records), waiting);
}

/// Own records as they are kept on disk: each with its length in two bytes.
fn encode<'a>(records: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        bytes.extend_from_slice(&(record.len() as u16).to_le_bytes());
        bytes.extend_from_slice(record);
    }
    bytes
}

/// Restores own records from the last run. Damaged ones are left out.
pub(in crate::node) fn restore(dht: &mut Dht, mut bytes: &[u8], network: &Network, now: Instant) {
    while let Some((length, rest)) = bytes.split_first_chunk::<2>() {
        let length = usize::from(u16::from_le_bytes(*length));
        let Some((record, rest)) = rest.split_at_checked(length) else { break };
        if length <= RECORD_BYTES_MAX {
            dht.restore_record(now, record, network);
        }
        bytes = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dht::DhtEvent;
    use crate::node::Output;
    use crate::node::command::Response;
    use crate::time::Duration;
    use crate::wire::contact::Contact;

    const START: Instant = Instant::from_secs(100);

    struct Bench {
        now: Instant,
        machines: Machines,
        values: Values,
    }

    impl Bench {
        fn new() -> Bench {
            Bench { now: START, machines: Machines::alone(START), values: Values::new(&Limits::default()) }
        }

        fn set(&mut self, command: u64, name: &str) {
            self.values.set(self.now, CommandId(command), name, b"v", None, &mut self.machines);
        }

        fn unset(&mut self, command: u64, name: &str, early: &[u64]) {
            let early = early.iter().copied().map(CommandId).collect();
            self.values.unset(CommandId(command), name, early, &mut self.machines);
        }

        fn look_up(&mut self, command: u64, name: &str) {
            let publisher = self.machines.outbox.identity().public();
            self.values.look_up(self.now, CommandId(command), publisher, name, false, &mut self.machines);
        }

        /// Passes the events of the DHT on. Lookups end as if this many of three nodes had answered.
        fn settle(&mut self, answered: u32) {
            let turnout = Turnout { asked: answered.max(3), answered };
            self.settle_with(turnout);
        }

        fn settle_with(&mut self, turnout: Turnout) {
            for _ in 0..100 {
                while let Some(event) = self.machines.dht.poll_event() {
                    match event {
                        DhtEvent::Published { publish, copies, record, .. } => {
                            self.values.handle_published(publish, copies, &record, &mut self.machines);
                        }
                        DhtEvent::Finished { lookup, record, .. } => {
                            if let Some(Purpose::Value(question)) = self.machines.lookups.remove(&lookup) {
                                question.answer(self.now, record.as_deref(), turnout, &mut self.machines);
                            }
                        }
                        _ => {}
                    }
                }
                self.now = self.now + Duration::from_millis(100);
                self.machines.dht.handle_timeout(self.now, &mut self.machines.outbox);
            }
        }

        /// The replies that wait until the records are saved.
        fn saving(&mut self) -> Vec<(u64, Reply)> {
            let waiting = core::mem::take(&mut self.machines.disk_waiting).into_values();
            let waiting = waiting.map(|waiting| match waiting {
                Waiting::Record(command, reply) => (command.0, reply),
                _ => panic!("it is no record's"),
            });
            waiting.collect()
        }

        /// Why each command failed; `None` is success.
        fn ended(&mut self) -> Vec<(u64, Option<FailureReason>)> {
            let ended = self.machines.outputs.drain(..).filter_map(|output| match output {
                Output::Respond { command, response: Response::Done(_) } => Some((command.0, None)),
                Output::Respond { command, response: Response::Failed(failure) } => {
                    Some((command.0, Some(failure.reason)))
                }
                _ => None,
            });
            ended.collect()
        }
    }

    #[test]
    fn a_value_is_saved_before_its_command_is_answered() {
        let mut bench = Bench::new();
        bench.set(1, "menu");
        bench.settle(0);
        assert_eq!(bench.ended(), []);
        match &bench.saving()[..] {
            [(1, Reply::Set { name, sequence, .. })] => {
                assert_eq!(name, "menu");
                assert!(*sequence > 0);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(own(&bench.machines).len(), 1);
    }

    #[test]
    fn a_value_with_an_impossible_name_length_or_lifetime_is_refused() {
        assert_eq!(check("menu", &[0; VALUE_BYTES_MAX], LIFETIME_MAX), Ok(()));
        for (name, bytes, lifetime) in [
            ("", 1, 1),
            ("a/b", 1, 1),
            ("menu", VALUE_BYTES_MAX + 1, 1),
            ("menu", 1, 0),
            ("menu", 1, LIFETIME_MAX + 1),
        ] {
            assert!(check(name, &vec![0; bytes], lifetime).is_err(), "{name:?} {bytes} {lifetime}");
        }
        let mut bench = Bench::new();
        bench.set(1, "a/b");
        bench.look_up(2, "a/b");
        assert_eq!(bench.ended(), [(1, Some(FailureReason::Usage)), (2, Some(FailureReason::Usage))]);
    }

    #[test]
    fn a_value_is_unset_before_the_command_is_answered_and_commands_that_wait_to_set_it_fail() {
        let mut bench = Bench::new();
        bench.set(1, "menu");
        bench.settle(0);
        bench.saving();
        bench.unset(2, "menu", &[3]);
        assert_eq!(bench.ended(), [(3, Some(FailureReason::Failed))]);
        assert!(own(&bench.machines).is_empty());
        match &bench.saving()[..] {
            [(2, Reply::Unset { lifetime, .. })] => assert_eq!(*lifetime, LIFETIME_DEFAULT),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_name_that_is_not_published_cannot_be_unset() {
        let mut bench = Bench::new();
        bench.unset(1, "menu", &[]);
        assert_eq!(bench.ended(), [(1, Some(FailureReason::NotFound))]);
        assert!(bench.saving().is_empty());
    }

    #[test]
    fn an_own_value_is_found_without_the_network() {
        let mut bench = Bench::new();
        bench.set(1, "menu");
        bench.settle(0);
        bench.look_up(2, "menu");
        assert_eq!(bench.ended(), [(2, None)]);
    }

    #[test]
    fn a_value_that_no_node_has_is_not_found_and_if_few_nodes_answered_it_is_unreachable() {
        let unreachable = FailureReason::Unreachable;
        for (asked, answered, expected) in [
            (0, 0, unreachable),
            (39, 0, unreachable),
            (39, 19, unreachable),
            (40, 20, FailureReason::NotFound),
        ] {
            let mut bench = Bench::new();
            bench.look_up(1, "menu");
            assert_eq!(bench.ended(), []);
            bench.settle_with(Turnout { asked, answered });
            assert_eq!(bench.ended(), [(1, Some(expected))]);
        }
    }

    #[test]
    fn a_node_that_knows_more_members_than_answered_does_not_say_that_no_node_has_the_value() {
        for (members, expected) in [(1, FailureReason::NotFound), (3, FailureReason::Unreachable)] {
            let mut bench = Bench::new();
            for number in 1..=members {
                let member = Contact::new(PublicKey([number; 32]), ([16, 0, number, 1], 3583).into());
                bench.machines.gossip.note_alive(START, member);
            }
            assert_eq!(members_up_to(9, &bench.machines), u32::from(members));
            let question = Question { command: CommandId(1), key: Key([9; 32]), fresh: false };
            question.answer(START, None, Turnout { asked: 1, answered: 1 }, &mut bench.machines);
            assert_eq!(bench.ended(), [(1, Some(expected))]);
        }
    }

    #[test]
    fn a_value_that_only_this_node_keeps_is_not_shown_as_the_networks_answer() {
        let mut bench = Bench::new();
        bench.set(1, "menu");
        bench.settle(0);
        bench.saving();
        let record = bench.machines.dht.own_records().next().unwrap().to_vec();
        let key = Record::parse(&record).unwrap().key();
        let mut answers = |fresh, asked, answered| {
            let question = Question { command: CommandId(2), key, fresh };
            question.answer(bench.now, Some(&record), Turnout { asked, answered }, &mut bench.machines);
            match bench.machines.outputs.pop_back() {
                Some(Output::Respond {
                    response: Response::Done(Reply::Lookup { from_memory, .. }), ..
                }) => Some(from_memory),
                _ => None,
            }
        };
        assert_eq!(answers(false, 20, 20), Some(false));
        assert_eq!(answers(false, 20, 0), Some(true));
        assert_eq!(answers(false, 0, 0), Some(true));
        assert_eq!(answers(true, 20, 20), Some(false));
        assert_eq!(answers(true, 20, 9), Some(true));
        assert_eq!(answers(true, 20, 0), None, "the network has not answered");
    }

    #[test]
    fn a_record_of_another_key_is_no_answer() {
        let mut bench = Bench::new();
        bench.set(1, "menu");
        bench.settle(0);
        let record = bench.machines.dht.own_records().next().unwrap().to_vec();
        let question = Question { command: CommandId(2), key: Key([9; 32]), fresh: false };
        question.answer(bench.now, Some(&record), Turnout { asked: 4, answered: 4 }, &mut bench.machines);
        assert_eq!(bench.ended(), [(2, Some(FailureReason::NotFound))]);
    }

    #[test]
    fn saved_records_are_taken_up_and_a_damaged_end_costs_only_the_last() {
        let mut bench = Bench::new();
        bench.set(1, "one");
        bench.set(2, "two");
        bench.settle(0);
        let bytes = encode(bench.machines.dht.own_records());
        let network = Network::of("test", bench.machines.outbox.identity());
        for (length, expected) in [(bytes.len(), 2), (bytes.len() - 1, 1), (1, 0)] {
            let mut machines = Machines::alone(START);
            restore(&mut machines.dht, &bytes[..length], &network, START);
            assert_eq!(own(&machines).len(), expected, "{length} bytes");
        }
    }
}
