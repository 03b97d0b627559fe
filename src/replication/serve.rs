//! Comparing pieces with a neighbour: the answering side. It keeps no state between two requests.

use super::Replication;
use super::compare::{Comparison, Select};
use super::reconcile::{PART_KEYS_MIN, PARTS};
use crate::peers::outbox::{Asker, Outbox};
use crate::peers::rate::Rate;
use crate::peers::reply::ReplyBudget;
use crate::time::{Duration, Instant};
use crate::wire::contact::Contact;
use crate::wire::datagram::Verified;
use crate::wire::header::Auth;
use crate::wire::message::Message;
use crate::wire::reconcile::{Answer, AnswerWriter, KEYS_MAX, KeyPrefix, Scope, WirePart, WireRange, prefix};

/// A range with at most this many keys is listed instead of divided.
const LISTED_MAX: u32 = 12;
/// Pieces that one neighbour may have looked at, twice as many at once as in a second.
const WORK: Rate = Rate::flow(131_072, Duration::from_secs(2));
/// The cost of a range besides its pieces, in visited pieces.
const RANGE_COST: u64 = 16;

impl Replication {
    /// Answers a neighbour's request about the pieces held here.
    pub(super) fn answer(
        &mut self,
        now: Instant,
        sender: Contact,
        datagram: &Verified<'_>,
        (salt, ranges): (u64, &[WireRange]),
        validated: bool,
        outbox: &mut Outbox,
    ) {
        let mut out = [0; Auth::Mac.payload_bytes_max()];
        let room = ReplyBudget::new(datagram, validated).room();
        let mut writer = AnswerWriter::new(&mut out[..room]);
        match self.neighbours.find(&sender.id) {
            None => {
                self.counters.not_neighbour += 1;
                writer.put(&Answer::Refused);
            }
            Some(slot) => {
                for range in ranges {
                    if !self.neighbours.has_credit(now, slot, &WORK) {
                        self.counters.answer_later += 1;
                        writer.put(&Answer::Later);
                        break;
                    }
                    if !self.answer_range(now, slot, (salt, range), &mut writer) {
                        break;
                    }
                }
                self.counters.answered += 1;
            }
        }
        if writer.is_empty() {
            writer.put(&Answer::Later);
        }
        let Some(answers) = writer.finish() else { return };
        let message = Message::Reconciled { answers };
        if let Some(bytes) = outbox.answer(now, Asker::of(sender.addr, datagram), &message) {
            self.counters.datagrams += 1;
            self.counters.datagram_bytes += bytes as u64;
        }
    }

    /// Answers one range. False when there is no room for the answer.
    fn answer_range(
        &mut self,
        now: Instant,
        slot: usize,
        (salt, range): (u64, &WireRange),
        writer: &mut AnswerWriter<'_>,
    ) -> bool {
        let select = match range.scope() {
            Scope::Shared => Select::Shared(1 << slot),
            Scope::Kept => Select::Kept,
        };
        let (first, last) = (range.first(), range.last());
        let mut comparison = Comparison::new(&self.pieces, select, salt);
        let ours = comparison.summary(first, last);
        let fits = if ours == range.summary() {
            writer.put(&Answer::Equal)
        } else if ours.count <= LISTED_MAX || first == last {
            put_keys(&mut comparison, first, last, writer)
        } else {
            put_parts(&mut comparison, first, last, ours.count, writer)
        };
        let visits = comparison.visits;
        self.work += visits;
        self.neighbours.charge(now, slot, &WORK, visits + RANGE_COST);
        fits
    }
}

fn put_keys(comparison: &mut Comparison<'_>, first: u64, last: u64, writer: &mut AnswerWriter<'_>) -> bool {
    let found = comparison.keys(first, last, KEYS_MAX + 1);
    let mut keys: [KeyPrefix; KEYS_MAX] = [[0; 16]; KEYS_MAX];
    // Keys with the same first sixteen bytes are listed once.
    let mut count = 0;
    for key in &found {
        if count == 0 || keys[count - 1] != prefix(key) {
            let Some(place) = keys.get_mut(count) else { return writer.put(&Answer::Later) };
            *place = prefix(key);
            count += 1;
        }
    }
    writer.put(&Answer::Keys(&keys[..count]))
}

fn put_parts(
    comparison: &mut Comparison<'_>,
    first: u64,
    last: u64,
    count: u32,
    writer: &mut AnswerWriter<'_>,
) -> bool {
    let head = Answer::Equal.bytes();
    let most = (writer.room().saturating_sub(head) / size_of::<WirePart>()) as u32;
    let wanted = (count / PART_KEYS_MIN).clamp(2, PARTS);
    // A few parts of many keys each would only be divided again: with little room left, the range waits for the next datagram.
    if most < wanted.min(4) {
        return false;
    }
    let parts = comparison.split(first, last, count, wanted.min(most));
    if parts.len() < 2 {
        // All keys have the same first eight bytes and cannot be divided.
        return put_keys(comparison, first, last, writer);
    }
    let parts: Vec<WirePart> =
        parts.into_iter().map(|(last, summary)| WirePart::new(last, summary)).collect();
    writer.put(&Answer::Split(&parts))
}
