//! Named values: publishing them and finding them.

use super::command::{CommandId, FailureReason, OwnValue, Reply};
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

/// Seconds that other nodes keep a value without hearing from its publisher, who publishes it again every hour.
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
            None => {
                self.machines.fail(id, FailureReason::Busy, "too much is being published at once; try later")
            }
        }
    }

    /// A value is published: it is remembered over restarts before it is said to be done.
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

    /// Publishes a value no more. That is remembered over restarts before it is said to be done.
    pub(super) fn unset(&mut self, id: CommandId, name: &str) {
        let record = self.machines.dht.unpublish(name, &self.machines.outbox);
        match record.as_deref().and_then(|bytes| Record::parse(bytes).ok()) {
            Some(record) => {
                let (publisher, lifetime) = (record.publisher(), record.lifetime());
                let reply = Reply::Unset { publisher, name: name.to_owned(), lifetime };
                let records = encode(self.machines.dht.own_records());
                self.machines.disk(DiskOp::SaveRecords(records), Waiting::Record(id, reply));
            }
            None => {
                let message = format!("this node publishes no value of the name {name}: see `elver values`");
                self.machines.fail(id, FailureReason::NotFound, message);
            }
        }
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
        let cached = if fresh { None } else { self.machines.dht.cached_value(now, &key).map(<[u8]>::to_vec) };
        if let Some(record) = cached {
            return self.value_looked_up(id, key, Some(&record), 0);
        }
        match self.machines.dht.find(now, key, Want::Value, &mut self.machines.outbox) {
            Some(lookup) => {
                self.machines.lookups.insert(lookup, Purpose::Value(id, key));
            }
            None => self.machines.fail(id, FailureReason::Busy, "too many lookups are under way; try later"),
        }
    }

    pub(super) fn value_looked_up(
        &mut self,
        command: CommandId,
        key: Key,
        record: Option<&[u8]>,
        asked: u32,
    ) {
        match record.and_then(|bytes| Record::parse(bytes).ok()).filter(|record| record.key() == key) {
            Some(record) => {
                let reply = Reply::Lookup {
                    publisher: record.publisher(),
                    name: record.name().to_owned(),
                    value: record.value().to_vec(),
                    sequence: record.sequence(),
                    asked,
                };
                self.machines.done(command, reply);
            }
            None if asked == 0 => self.machines.fail(
                command,
                FailureReason::Unreachable,
                "the value is not here, and this node knows no other node to ask: see `elver peers`",
            ),
            None => {
                let message = format!("nobody has a value of that name; {}", super::status::asked(asked));
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
