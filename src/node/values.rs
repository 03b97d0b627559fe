//! Named values: publishing and looking them up.

use super::command::{Command, CommandId, FailureReason, OwnValue, Reply};
use super::{Node, Purpose, Waiting};
use crate::dht::{Dht, PublishId};
use crate::id::{Key, PublicKey};
use crate::io::DiskOp;
use crate::time::Instant;
use crate::wire::message::Want;
use crate::wire::network::Network;
use crate::wire::record::{
    LIFETIME_MAX, NAME_BYTES_MAX, RECORD_BYTES_MAX, Record, VALUE_BYTES_MAX, is_name, record_key,
};

/// Seconds that other nodes keep a value without hearing from its publisher. The publisher renews it every hour.
const LIFETIME_DEFAULT: u32 = 24 * 3600;

impl Node {
    pub(super) fn set(
        &mut self,
        now: Instant,
        id: CommandId,
        name: &str,
        value: &[u8],
        lifetime: Option<u32>,
    ) {
        let lifetime = lifetime.unwrap_or(LIFETIME_DEFAULT);
        let wrong = if !is_name(name) {
            Some(format!(
                "a name has 1 to {NAME_BYTES_MAX} bytes, none of them a control character or a slash"
            ))
        } else if value.len() > VALUE_BYTES_MAX {
            Some(format!("the value has {} bytes, and at most {VALUE_BYTES_MAX} are allowed", value.len()))
        } else if lifetime == 0 || lifetime > LIFETIME_MAX {
            Some(format!("a value lives for 1 to {LIFETIME_MAX} seconds"))
        } else {
            None
        };
        if let Some(message) = wrong {
            return self.machines.fail(id, FailureReason::Usage, message);
        }
        if !self.machines.dht.has_room_to_publish(name, &self.machines.outbox) {
            let most = self.config.limits.values_max;
            let message =
                format!("{most} values are published already (`--values`): end some with `elver unset NAME`");
            return self.machines.fail(id, FailureReason::NoSpace, message);
        }
        match self.machines.dht.publish(now, name, value, lifetime, &mut self.machines.outbox) {
            Some(publish) => {
                self.publishing.insert(publish, id);
            }
            None => self.too_many_lookups(id),
        }
    }

    /// A value is published: it is saved to disk before the command is answered.
    pub(super) fn published(&mut self, publish: PublishId, copies: u32, record: &[u8]) {
        let Some(command) = self.publishing.remove(&publish) else { return };
        let Ok(record) = Record::parse(record) else { return };
        let reply = Reply::Set {
            publisher: record.publisher(),
            name: record.name().to_owned(),
            copies,
            sequence: record.sequence(),
        };
        let records = encode(self.machines.dht.own_records());
        self.machines.disk(DiskOp::SaveRecords(records), Waiting::Record(command, reply));
    }

    /// Stops publishing a value. That is saved to disk before the command is answered.
    pub(super) fn unset(&mut self, id: CommandId, name: &str) {
        let unpublished = self.machines.dht.unpublish(name, &self.machines.outbox);
        let lifetime = unpublished.as_ref().map(|unpublished| unpublished.lifetime);
        let cancelled = unpublished.map(|unpublished| unpublished.cancelled).unwrap_or_default();
        let mut ended: Vec<CommandId> =
            cancelled.iter().filter_map(|publish| self.publishing.remove(publish)).collect();
        self.early.retain(|(early, command)| {
            let same = matches!(command, Command::Set { name: its, .. } if its == name);
            ended.extend(same.then_some(*early));
            !same
        });
        if lifetime.is_none() && ended.is_empty() {
            let message = format!("this node publishes no value of the name {name}: see `elver values`");
            return self.machines.fail(id, FailureReason::NotFound, message);
        }
        for set in ended {
            let message = format!("{name} was unset before it was published");
            self.machines.fail(set, FailureReason::Failed, message);
        }
        let reply =
            Reply::Unset { publisher: self.public, name: name.to_owned(), lifetime: lifetime.unwrap_or(0) };
        let records = encode(self.machines.dht.own_records());
        self.machines.disk(DiskOp::SaveRecords(records), Waiting::Record(id, reply));
    }

    /// The values that this node publishes, by their names.
    pub(super) fn own_values(&self) -> Vec<OwnValue> {
        let records = self.machines.dht.own_records().filter_map(|bytes| Record::parse(bytes).ok());
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

    pub(super) fn lookup(
        &mut self,
        now: Instant,
        id: CommandId,
        publisher: PublicKey,
        name: &str,
        fresh: bool,
    ) {
        if !is_name(name) {
            return self.machines.fail(id, FailureReason::Usage, "no value can have this name");
        }
        let key = record_key(&publisher, name);
        // Nothing newer exists than what this node itself publishes.
        let own = if fresh { None } else { self.machines.dht.published_value(&key).map(<[u8]>::to_vec) };
        if let Some(record) = own {
            return self.value_looked_up(now, id, key, fresh, Some(&record), 0);
        }
        match self.machines.dht.find(now, key, Want::Value, &mut self.machines.outbox) {
            Some(lookup) => {
                self.machines.lookups.insert(lookup, Purpose::Value { command: id, key, fresh });
            }
            None => self.too_many_lookups(id),
        }
    }

    fn too_many_lookups(&mut self, id: CommandId) {
        let most = self.config.limits.lookups_max;
        let message =
            format!("{most} lookups are under way, and no more are allowed (`--lookups`): try later");
        self.machines.fail(id, FailureReason::Busy, message);
    }

    pub(super) fn value_looked_up(
        &mut self,
        now: Instant,
        command: CommandId,
        key: Key,
        fresh: bool,
        record: Option<&[u8]>,
        asked: u32,
    ) {
        // The network forgets a value whose keepers all left, and a node without a link asks in vain. A value that was seen once is
        // not taken back for an older one.
        let parse = |bytes| Record::parse(bytes).ok().filter(|record| record.key() == key);
        let remembered = self.machines.dht.remembered_value(now, &key).filter(|_| !fresh);
        let (found, remembered) = (record.and_then(parse), remembered.and_then(parse));
        let from_memory = remembered.map(|record| record.sequence()) > found.map(|record| record.sequence());
        match if from_memory { remembered } else { found } {
            Some(record) => {
                let reply = Reply::Lookup {
                    publisher: record.publisher(),
                    name: record.name().to_owned(),
                    value: record.value().to_vec(),
                    sequence: record.sequence(),
                    asked,
                    from_memory,
                };
                self.machines.done(command, reply);
            }
            None if asked == 0 => self.machines.fail(
                command,
                FailureReason::Unreachable,
                "the value is not here, and this node knows no other node to ask: see `elver peers`",
            ),
            None => {
                let message = format!(
                    "no node that was asked has a value of that name; {}",
                    super::status::asked(asked)
                );
                self.machines.fail(command, FailureReason::NotFound, message);
            }
        }
    }
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

/// Takes up own records from the last run. What is damaged is left out.
pub(super) fn restore(dht: &mut Dht, mut bytes: &[u8], network: &Network, now: Instant) {
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
    use crate::gossip::GossipConfig;
    use crate::identity::Identity;
    use crate::io::Recovered;
    use crate::limits::Limits;
    use crate::node::command::Response;
    use crate::node::{NodeConfig, Output};
    use crate::replication::ReplicationConfig;
    use crate::time::Duration;

    #[test]
    fn a_name_that_is_unset_before_the_node_has_joined_is_not_published() {
        let config = NodeConfig {
            limits: Limits::default(),
            leaf: false,
            network: "values".to_owned(),
            network_secret: None,
            listen: ([127, 0, 0, 1], 1).into(),
            bootstrap: vec![([127, 0, 0, 1], 2).into()],
            replicas: 0,
            lifetime: 1,
            cache_dir: "/cache".into(),
            gossip: GossipConfig::default(),
            replication: ReplicationConfig::default(),
        };
        let mut now = Instant::from_secs(1);
        let identity = Identity::from_secret(&[1; 32]);
        let mut node = Node::new(config, identity, &Recovered::default(), [1; 32], now).unwrap();
        node.handle_timeout(now);
        assert!(node.machines.dht.is_joining());
        let set = |name: &str| Command::Set { name: name.to_owned(), value: vec![1], lifetime: None };
        node.handle_command(now, CommandId(1), set("gone"));
        node.handle_command(now, CommandId(2), set("kept"));
        node.handle_command(now, CommandId(3), Command::Unset { name: "gone".to_owned() });
        let failed = core::iter::from_fn(|| node.poll_output()).find_map(|output| match output {
            Output::Respond { command, response: Response::Failed(failure) } => {
                Some((command, failure.message))
            }
            _ => None,
        });
        assert_eq!(failed, Some((CommandId(1), "gone was unset before it was published".to_owned())));
        for _ in 0..100 {
            now = node.next_deadline().map_or(now, |due| due.max(now)) + Duration::from_millis(1);
            node.handle_timeout(now);
        }
        let names: Vec<String> = node.own_values().into_iter().map(|value| value.name).collect();
        assert_eq!(names, ["kept"]);
    }
}
