//! Answers to the requests of other nodes.
//!
//! The answer to a ping or a find of a known node allocates nothing.

use super::address::may_announce;
use super::providers::PROVIDERS_ANSWERED_MAX;
use super::questions::{Purpose, Request as Check};
use super::routing_table::K;
use super::{Dht, Origin};
use crate::id::Key;
use crate::peers::contest::Holder;
use crate::peers::outbox::{Asker, Outbox};
use crate::peers::party::may_tell;
use crate::peers::reply::ReplyBudget;
use crate::peers::standing::Standing;
use crate::peers::table::Peers;
use crate::time::Instant;
use crate::wire::contact::{Contact, WireContact, scope_of, with_scope};
use crate::wire::datagram::{PAYLOAD_BYTES_MAX, Verified};
use crate::wire::header::OVERHEAD_BYTES;
use crate::wire::message::{Announcement, FoundHead, Message, NotStored, Want};
use crate::wire::provider::ProviderRecord;
use crate::wire::record::Record;
use core::net::SocketAddr;
use zerocopy::FromZeros;

impl Dht {
    pub(super) fn serve(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &Verified<'_>,
        standing: Standing,
        outbox: &mut Outbox,
    ) {
        let sender = Contact { id: datagram.id(), public: datagram.public(), addr: from };
        let validated = standing.is_validated();
        let newcomer = !self.table.is_at(&sender.id, from)
            && !datagram.is_leaf()
            && self.is_worth_a_ping(now, &sender, outbox.peers());
        let request = Request { now, sender, asker: Asker::of(from, datagram), validated };
        let mut budget = ReplyBudget::new(datagram, validated);
        let spent = match datagram.message() {
            Message::Ping { .. } => self.reply(&request, &Message::Pong { observed: from }, outbox),
            Message::Find { target, want, .. } => {
                // A newcomer is sent a ping, too.
                let besides = if newcomer { OVERHEAD_BYTES } else { 0 };
                self.serve_find(&request, &target, want, (budget.room(), besides), outbox)
            }
            Message::StoreRecord { record } => self.serve_store(&request, &record, outbox),
            Message::Announce { announcements } => self.serve_announce(&request, announcements, outbox),
            _ => return,
        };
        self.counters.answered += 1;
        if newcomer && budget.take(spent) && budget.take(OVERHEAD_BYTES) {
            let check = Check::ask(now, from, Some(sender), Purpose::Check).of(Origin::Called).once();
            self.ask_again(now, check, outbox);
        }
    }

    pub(super) fn is_worth_a_ping(&self, now: Instant, sender: &Contact, peers: &Peers) -> bool {
        const NEWCOMERS_MAX: usize = 16;
        self.reach.contains(sender.addr)
            && self.table.wants(now, &sender.id, sender.addr, peers)
            && self.transactions.checks() < NEWCOMERS_MAX
            && !self.transactions.is_asking(&sender.id, sender.addr)
    }

    /// Sends an answer. Returns its length in bytes; 0 when it was dropped.
    fn reply(&self, request: &Request, message: &Message<'_>, outbox: &mut Outbox) -> usize {
        outbox.answer(request.now, request.asker, message).unwrap_or_default()
    }

    fn serve_find(
        &mut self,
        request: &Request,
        target: &Key,
        want: Want,
        (room, besides): (usize, usize),
        outbox: &mut Outbox,
    ) -> usize {
        let now = request.now;
        let room = room.saturating_sub(size_of::<FoundHead>());
        let mut providers: [ProviderRecord; PROVIDERS_ANSWERED_MAX] =
            core::array::from_fn(|_| ProviderRecord::new_zeroed());
        let mut named = 0;
        if want == Want::Providers {
            let most = PROVIDERS_ANSWERED_MAX.min(room / size_of::<ProviderRecord>());
            named = self.providers.sample(now, target, &mut self.rng, &mut providers[..most]);
            if let Some(own) = self.own_provider(target, outbox) {
                // One of several that are named has no better place than the others.
                let place = if named < most { named } else { self.rng.below(most as u64 + 1) as usize };
                if let Some(place) = providers[..most].get_mut(place) {
                    *place = own;
                }
                named = most.min(named + 1);
            }
        }
        named = keep_tellable(&mut providers[..named], request.sender.addr);
        let record = match want {
            Want::Value => self.best_record(now, target),
            _ => None,
        };
        let record = record.filter(|record| record.bytes().len() <= room);
        let taken = named * size_of::<ProviderRecord>() + record.map_or(0, |record| record.bytes().len());

        // One more than k, because the requester may be among them.
        let mut slots = [None; K + 1];
        let peers = outbox.peers();
        let nearest = self.table.nearest(target, &mut slots, |entry| entry.owes_nothing(peers));
        let most = K.min(room.saturating_sub(taken + besides) / size_of::<WireContact>());
        let mut contacts = [WireContact::new_zeroed(); K];
        let mut count = 0;
        let others = nearest.iter().filter(|entry| {
            entry.contact.id != request.sender.id && may_tell(entry.contact.addr, request.sender.addr)
        });
        for (place, entry) in contacts[..most].iter_mut().zip(others) {
            *place = WireContact::new(&entry.contact, now.since(entry.heard(peers)).as_secs() as u32);
            count += 1;
        }
        let found = Message::Found { contacts: &contacts[..count], providers: &providers[..named], record };
        let spent = self.reply(request, &found, outbox);
        if !request.validated && room < PAYLOAD_BYTES_MAX - size_of::<FoundHead>() {
            self.counters.shortened += 1;
        }
        spent
    }

    /// The newest record under `key` that is kept here, for others or as this node's own.
    pub(super) fn best_record(&self, now: Instant, key: &Key) -> Option<Record<'_>> {
        let own = self.publications.record(key).and_then(|bytes| Record::parse(bytes).ok());
        let kept = self.values.get(now, key).and_then(|bytes| Record::parse(bytes).ok());
        own.into_iter().chain(kept).max_by_key(Record::sequence)
    }

    fn serve_store(&mut self, request: &Request, record: &Record<'_>, outbox: &mut Outbox) -> usize {
        let reason = if self.config.leaf {
            NotStored::Unwilling
        } else if !request.validated {
            NotStored::Token
        } else {
            self.store_value(request, record, outbox)
        };
        self.reply_stored(request, u8::from(reason == NotStored::Nothing), reason, outbox)
    }

    /// Stores a record of a node at a validated address. Its signature is checked when nothing else speaks against it.
    fn store_value(&mut self, request: &Request, record: &Record<'_>, outbox: &mut Outbox) -> NotStored {
        let (now, sender) = (request.now, &request.sender);
        let (from, first_hand) = (self.holder(sender), record.publisher() == sender.public);
        if let Some(outcome) = self.values.outcome_unchecked(now, record, from, first_hand) {
            return outcome;
        }
        if !outbox.may_check(now, &sender.id, sender.addr) {
            return NotStored::Full;
        }
        match record.verify(outbox.network()) {
            Ok(()) => self.values.store(now, record, from, first_hand),
            Err(_) => NotStored::Signature,
        }
    }

    /// Stores the records that a node announces about itself. Records about others are refused: this node could not tell whether
    /// they have been withdrawn.
    fn serve_announce(
        &mut self,
        request: &Request,
        announcements: &[Announcement],
        outbox: &mut Outbox,
    ) -> usize {
        if self.config.leaf || !request.validated {
            let reason = if self.config.leaf { NotStored::Unwilling } else { NotStored::Token };
            return self.reply_stored(request, 0, reason, outbox);
        }
        let (mut accepted, mut reason) = (0, NotStored::Nothing);
        let holder = self.holder(&request.sender);
        for Announcement { file, provider } in announcements {
            let outcome = if !provider.contact().is_some_and(|at| may_announce(at.addr, request.sender.addr))
            {
                NotStored::Unwilling
            } else if provider.provider() != request.sender.public {
                NotStored::Signature
            } else if let Some(outcome) =
                self.providers.outcome_unchecked(request.now, file, provider, holder)
            {
                outcome
            } else if !outbox.may_check(request.now, &request.sender.id, request.sender.addr) {
                NotStored::Full
            } else if provider.verify(outbox.network(), file).is_err() {
                // A sender of one wrong signature gets no further signature of this message checked.
                reason = NotStored::Signature;
                break;
            } else {
                self.providers.store(request.now, file, provider, holder)
            };
            match outcome {
                NotStored::Nothing => accepted += 1,
                refused => reason = refused,
            }
        }
        self.reply_stored(request, accepted, reason, outbox)
    }

    /// A node as the holder of what it stores here. Its address is validated.
    fn holder(&self, sender: &Contact) -> Holder {
        Holder::node(self.config.parties, &sender.id, sender.addr)
    }

    fn reply_stored(
        &mut self,
        request: &Request,
        accepted: u8,
        reason: NotStored,
        outbox: &mut Outbox,
    ) -> usize {
        match reason {
            NotStored::Token => self.counters.token_refused += 1,
            NotStored::Full => self.counters.store_full += 1,
            NotStored::Signature => self.counters.bad_signature += 1,
            NotStored::Nothing | NotStored::Older | NotStored::Unwilling => {}
        }
        self.reply(request, &Message::Stored { accepted, reason }, outbox)
    }
}

/// Moves the records of providers that may be told to a node at `listener` to the front, and returns their number. A link-local
/// address of a record is taken to be on the listener's link: the record names none.
fn keep_tellable(providers: &mut [ProviderRecord], listener: SocketAddr) -> usize {
    let mut kept = 0;
    for index in 0..providers.len() {
        let near = scope_of(listener).unwrap_or_default();
        let addr = providers[index].contact().map(|contact| with_scope(contact.addr, near));
        if addr.is_some_and(|addr| may_tell(addr, listener)) {
            providers.swap(kept, index);
            kept += 1;
        }
    }
    kept
}

/// A request of another node.
struct Request {
    now: Instant,
    sender: Contact,
    asker: Asker,
    /// Whether its address is validated.
    validated: bool,
}
