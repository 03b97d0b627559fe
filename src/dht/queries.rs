//! This node's requests: sending them, their answers, their failures, and the lookups that they serve.

use super::agreement::Compared;
use super::lookup::{End, Lookup, Reason};
use super::placement::{COPIES, is_crowded};
use super::questions::{Purpose, Request, TIMEOUT_FIRST};
use super::routing_table::{Answered, Failed, K};
use super::{Dht, DhtEvent, LookupId, Origin, Turnout, Want};
use crate::id::{Key, NodeId};
use crate::peers::outbox::{Ask, Attempt, Outbox};
use crate::peers::party::as_told;
use crate::peers::requests::Overdue;
use crate::peers::table::Peers;
use crate::time::{Duration, Instant};
use crate::wire::contact::{Contact, WireContact};
use crate::wire::datagram::Verified;
use crate::wire::message::{Message, NotStored, PADDING_BYTES};
use crate::wire::network::Network;
use crate::wire::provider::ProviderRecord;
use crate::wire::record::Record;
use core::net::SocketAddr;

/// Transactions that lookups leave free for other requests.
const TRANSACTIONS_RESERVED: usize = 8;

impl Dht {
    // Sending.

    /// Sends a request with the contact's timeout. False when it cannot be sent now.
    pub(super) fn ask(
        &mut self,
        now: Instant,
        to: SocketAddr,
        contact: Option<Contact>,
        purpose: Purpose,
        outbox: &mut Outbox,
    ) -> bool {
        self.ask_again(now, Request::ask(now, to, contact, purpose), outbox)
    }

    /// Sends a request, a new one or a repetition. False when it cannot be sent now.
    pub(super) fn ask_again(&mut self, now: Instant, mut request: Request, outbox: &mut Outbox) -> bool {
        if self.transactions.room() == 0 || !self.reach.contains(request.to) {
            return false;
        }
        if let Some(contact) = request.question.contact {
            request.expect_within(outbox.peers().timeout(&contact.id, TIMEOUT_FIRST));
        }
        let ask = self.transactions.ask(&mut self.rng, request, Attempt::First);
        self.counters.asked += 1;
        self.transmit(now, ask, outbox);
        true
    }

    /// Writes the request's datagram into the outbox. If the outbox is full the datagram is dropped, like a lost packet.
    pub(super) fn transmit(&self, now: Instant, ask: Ask, outbox: &mut Outbox) {
        let Some(request) = self.transactions.get(ask.transaction) else { return };
        // Padding allows a full answer even if the token turns out to be invalid: the answer to an unvalidated address is limited by
        // the size of the request.
        let has_valid_token = matches!(ask.attempt, Attempt::Challenged(_))
            || ask.recipient.is_some_and(|id| outbox.peers().has_fresh_token(now, &id));
        let mut send = |message: &Message<'_>| outbox.request(now, ask, message);
        match &request.question.purpose {
            Purpose::Bootstrap => {
                let (target, want) = (self.own.key(), Want::Nodes);
                send(&Message::Find { target, want, padding: PADDING_BYTES });
            }
            Purpose::Check => _ = send(&Message::Ping { padding: 0 }),
            &Purpose::Lookup(_, target, want) => {
                let padding = if has_valid_token && want == Want::Nodes { 0 } else { PADDING_BYTES };
                send(&Message::Find { target, want, padding });
            }
            Purpose::Announce(files) => {
                let announcements = self.announcements.records(files);
                if !announcements.is_empty() {
                    send(&Message::Announce { announcements: &announcements });
                }
            }
            Purpose::Store(key, _) => {
                if let Some(record) = self.publications.record(key).and_then(|b| Record::parse(b).ok()) {
                    send(&Message::StoreRecord { record });
                }
            }
        }
    }

    /// Pings a contact to check whether it is alive, unless a request to it is outstanding.
    pub(super) fn check(&mut self, now: Instant, contact: Contact, outbox: &mut Outbox) {
        self.check_of(now, contact, Origin::Told, outbox);
    }

    /// The same for a node that was learned of in this way.
    pub(super) fn check_of(&mut self, now: Instant, contact: Contact, origin: Origin, outbox: &mut Outbox) {
        const CHECKS_MAX: usize = 16;
        let asking = self.transactions.is_asking(&contact.id, contact.addr);
        if !asking && self.transactions.checks() < CHECKS_MAX {
            let check = Request::ask(now, contact.addr, Some(contact), Purpose::Check).of(origin);
            self.ask_again(now, check, outbox);
        }
    }

    // Answers.

    pub(super) fn handle_answer(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &Verified<'_>,
        outbox: &mut Outbox,
    ) {
        let Some(request) = self.transactions.answered_by(now, from, datagram, outbox) else {
            self.counters.unexpected += 1;
            return;
        };
        let lookup = match request.question.purpose {
            Purpose::Lookup(lookup, ..) => Some(lookup),
            _ => None,
        };
        if lookup.is_some() && !request.repeated {
            self.hedge.in_time();
        }
        self.handle_expected(now, from, datagram, request, outbox);
        // Only this lookup has learned something, unless others wait for room.
        match lookup.filter(|_| !self.starved) {
            Some(lookup) if !self.drive_lookup(now, lookup, outbox) => {}
            _ => self.drive(now, outbox),
        }
    }

    /// A node tells where it sees this one.
    fn observe(&mut self, now: Instant, observer: &Contact, addr: SocketAddr) {
        let contradicts = self.observed.contradicts(addr);
        self.counters.contradicted += u64::from(contradicts);
        if !self.contradictions.note(observer.id, contradicts) {
            return self.observed.retract(observer.id, observer.addr, addr);
        }
        if self.observed.vote(observer.id, observer.addr, addr) {
            self.contradictions.forget();
            self.announcements.address_changed(now);
        }
    }

    fn handle_expected(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &Verified<'_>,
        request: Request,
        outbox: &mut Outbox,
    ) {
        let message = datagram.message();
        let contact = Contact { id: datagram.id(), public: datagram.public(), addr: from };
        if datagram.is_leaf() {
            self.gone(now, &contact.id);
        } else {
            for check in self.alive(now, contact, request.question.origin, outbox.peers()) {
                self.check(now, check, outbox);
            }
        }
        match (message, request.question.purpose.clone()) {
            (Message::Pong { observed }, _) => self.observe(now, &contact, observed),
            (Message::Found { contacts, providers, record }, Purpose::Lookup(lookup, ..)) => {
                if let Some(lookup) = self.lookups.get_mut(&lookup) {
                    lookup.answer(&contact.id, datagram.is_leaf());
                }
                self.handle_found(now, lookup, &contact, (contacts, providers, record), outbox);
            }
            (Message::Found { contacts, .. }, _) => self.handle_bootstrap(now, from, contacts, outbox),
            (Message::Stored { accepted, reason }, purpose) => {
                if reason == NotStored::Token && !request.question.token_retried {
                    // The refusal carries a new token.
                    let mut retry = Request::ask(now, from, Some(contact), purpose.clone());
                    retry.question.token_retried = true;
                    if self.ask_again(now, retry, outbox) {
                        return;
                    }
                }
                self.settle(&contact, &purpose, usize::from(accepted));
            }
            _ => {}
        }
    }

    fn handle_found(
        &mut self,
        now: Instant,
        lookup: LookupId,
        from: &Contact,
        (contacts, providers, record): (&[WireContact], &[ProviderRecord], Option<Record<'_>>),
        outbox: &mut Outbox,
    ) {
        let Some(lookup) = self.lookups.get_mut(&lookup) else { return };
        lookup.crowded |= !providers.is_empty() || record.is_some();
        // A requester needs k contacts at most; a datagram without records has room for more.
        for contact in contacts.iter().take(K).filter_map(WireContact::get) {
            let addr = as_told(contact.addr, from.addr).filter(|addr| self.reach.contains(*addr));
            let contact = Contact { addr: addr.unwrap_or(contact.addr), ..contact };
            if !outbox.network().admits(&contact.public) {
                self.counters.without_work += 1;
            } else if addr.is_some() && !outbox.peers().is_silent(now, &contact.id) {
                lookup.told(contact, &from.id);
            }
        }
        if let Some(record) = record {
            let fits = lookup.want == Want::Value && record.key() == lookup.target;
            match lookup.found.compare(&record) {
                Compared::Newer if fits => {
                    match outbox.check_told(now, &from.id, |network| record.verify(network).is_ok()) {
                        Some(true) => lookup.found.supersede(from.id, &record),
                        Some(false) => self.counters.bad_signature += 1,
                        None => self.counters.found_over_budget += 1,
                    }
                }
                Compared::Same => lookup.found.agree(from.id),
                Compared::Newer | Compared::Other => {}
            }
        }
        let mut found = Vec::new();
        let providers = if lookup.want == Want::Providers { providers } else { &[] };
        for record in providers {
            let Some(contact) = record.contact().filter(|contact| contact.id != self.own) else { continue };
            let addr = as_told(contact.addr, from.addr).filter(|addr| self.reach.contains(*addr));
            let contact = Contact { addr: addr.unwrap_or(contact.addr), ..contact };
            if record.lifetime() == 0
                || addr.is_none()
                || !lookup.is_new_provider(&record.provider(), record.sequence())
            {
                continue;
            }
            if !outbox.network().admits(&contact.public) {
                self.counters.without_work += 1;
                continue;
            }
            let verify = |network: &Network| record.verify(network, &lookup.target).is_ok();
            match outbox.check_told(now, &from.id, verify) {
                Some(true) => {}
                Some(false) => {
                    // The teller handed on what nobody signed: its other records are not worth a check.
                    self.counters.bad_signature += 1;
                    break;
                }
                None => {
                    self.counters.found_over_budget += 1;
                    break;
                }
            }
            lookup.note_provider(record.provider(), record.sequence());
            found.push((contact, record.is_partial()));
        }
        if !found.is_empty() {
            self.events.push_back(DhtEvent::Providers { lookup: lookup.id, contacts: found });
        }
    }

    /// A request to store records succeeded or failed: the node keeps the first `accepted` of them.
    fn settle(&mut self, contact: &Contact, purpose: &Purpose, accepted: usize) {
        match purpose {
            Purpose::Announce(files) => self.announcements.settle(&contact.id, files, accepted),
            Purpose::Store(key, sequence) => {
                self.publications.settle(&contact.id, key, *sequence, accepted > 0)
            }
            _ => {}
        }
    }

    // Liveness of nodes.

    /// A node that is not a leaf answered. Returns contacts that should be checked.
    pub(super) fn alive(
        &mut self,
        now: Instant,
        contact: Contact,
        origin: Origin,
        peers: &Peers,
    ) -> impl Iterator<Item = Contact> + use<> {
        let mut checks = [None; 2];
        if contact.id == self.own || !self.reach.contains(contact.addr) {
            return checks.into_iter().flatten();
        }
        let was_empty = self.table.is_empty();
        let answered = self.table.answered(now, contact, peers);
        match answered {
            Answered::Added => {
                if was_empty {
                    self.bootstrap.succeeded(now);
                    self.maintenance.begin(now);
                }
                let returned = self.bootstrap.former.remove(&contact.id);
                if returned {
                    self.maintenance.reunite(now);
                }
                let origin = if returned { Origin::Remembered } else { origin };
                self.table.set_origin(&contact.id, origin);
                if self.observed.wants_votes() {
                    checks[0] = Some(contact);
                }
            }
            Answered::Waits(questionable) => checks[1] = questionable,
            Answered::Moved(old) => {
                checks[1] = Some(old);
                return checks.into_iter().flatten();
            }
            Answered::Refreshed | Answered::Refused => {}
        }
        self.lookup_cache.add(contact);
        if matches!(answered, Answered::Added | Answered::Waits(_)) {
            let soon = self.soon(now);
            self.announcements.consider(now, contact.id, soon);
            self.publications.consider(&contact.id, soon);
        }
        checks.into_iter().flatten()
    }

    /// The nodes that are to keep a record under `key`, nearest first, as far as earlier lookups tell.
    pub(super) fn known_keepers(&self, now: Instant, key: &Key) -> Option<Vec<Contact>> {
        let nearest = self.lookup_cache.closest(now, key, COPIES)?;
        let contacts = self.table.iter().map(|entry| entry.contact);
        (!is_crowded(&nearest, contacts, self.config.parties)).then_some(nearest)
    }

    /// Of the `closest` nodes to a key, nearest first, those that are to keep a record under it, and whether this node is, too.
    pub(super) fn keepers<'c>(&self, key: &Key, closest: &'c [Contact]) -> (&'c [Contact], bool) {
        let own = self.own.distance(key);
        let nearer = closest.iter().filter(|contact| contact.id.distance(key) < own).count();
        let here = !self.config.leaf && nearer < COPIES;
        (&closest[..closest.len().min(COPIES - usize::from(here))], here)
    }

    /// A node did not answer a request.
    pub(super) fn failed(&mut self, now: Instant, contact: &Contact, peers: &mut Peers) {
        self.lookup_cache.remove(&contact.id);
        if let Some(moved) = self.table.moved(now, &contact.id, contact.addr) {
            return self.lookup_cache.add(moved);
        }
        let unanswered = peers.note_unanswered(now, &contact.id);
        match self.table.failed(&contact.id, contact.addr, unanswered) {
            // It is checked once more soon, so that dead contacts leave the table even when no lookup needs them.
            Failed::Kept => {
                let at = now + self.rng.duration(Duration::from_secs(5), Duration::from_secs(15));
                self.maintenance.check_at(at, *contact);
            }
            Failed::Dropped(contact) => {
                self.counters.contact_lost += 1;
                self.bootstrap.former.add(contact);
                self.gone(now, &contact.id);
            }
            Failed::Unknown => {}
        }
    }

    /// A node departed, or must not be in tables.
    pub(super) fn gone(&mut self, now: Instant, id: &NodeId) {
        let was_empty = self.table.is_empty();
        self.table.remove(id);
        self.lookup_cache.remove(id);
        let soon = self.soon(now);
        self.announcements.lost(now, *id, soon);
        self.publications.lost(id, soon);
        if self.table.is_empty() && !was_empty {
            self.bootstrap.start_over(now);
            self.maintenance.stop();
        }
    }

    fn soon(&mut self, now: Instant) -> Instant {
        now + self.rng.duration(Duration::from_secs(2), Duration::from_secs(6))
    }

    pub(super) fn expire_requests(&mut self, now: Instant, outbox: &mut Outbox) {
        for (transaction, overdue) in self.transactions.overdue(now) {
            let Some(request) = self.transactions.get(transaction) else { continue };
            let lookup = match request.question.purpose {
                Purpose::Lookup(lookup, ..) => self.lookups.get_mut(&lookup),
                _ => None,
            };
            let step = lookup.zip(request.question.contact);
            match overdue {
                Overdue::Late => {
                    if let Some((lookup, contact)) = step {
                        lookup.late(&contact.id);
                    }
                    if matches!(request.question.purpose, Purpose::Lookup(..)) {
                        self.hedge.late();
                    }
                    self.counters.repeated += 1;
                    if let Some(ask) = self.transactions.ask_again(transaction, Attempt::Again) {
                        self.transmit(now, ask, outbox);
                    }
                }
                Overdue::GivenUp => {
                    if let Some((lookup, contact)) = step {
                        lookup.silent(&contact.id);
                    }
                }
                Overdue::Failed => {
                    if let Some((lookup, contact)) = step {
                        lookup.silent(&contact.id);
                    }
                    self.counters.unanswered += 1;
                    let asked = self.transactions.remove(transaction).map(|request| request.question);
                    if let Some((purpose, contact)) =
                        asked.and_then(|asked| Some((asked.purpose, asked.contact?)))
                    {
                        self.events.push_back(DhtEvent::Unanswered { id: contact.id });
                        self.failed(now, &contact, outbox.peers_mut());
                        self.settle(&contact, &purpose, 0);
                    }
                }
            }
        }
    }

    // Lookups.

    pub(super) fn start_lookup(
        &mut self,
        now: Instant,
        target: Key,
        want: Want,
        reason: Reason,
        outbox: &Outbox,
    ) -> LookupId {
        let id = LookupId(self.number());
        let mut lookup = Lookup::new(now, (self.own, self.config.parties), id, target, want, reason);
        // More than k, because some will turn out to be dead.
        let mut slots = [None; 2 * K];
        for entry in self.table.nearest(&target, &mut slots, |_| true).iter() {
            lookup.seed(entry.contact);
        }
        self.table.touch(now, &target);
        match want {
            Want::Nodes => {}
            Want::Value => {
                // What this node publishes or keeps was verified when it came.
                if let Some(record) = self.best_record(now, &target) {
                    lookup.found.supersede(self.own, &record);
                }
            }
            Want::Providers => {
                let own = outbox.identity().public();
                let mut contacts = Vec::new();
                for record in self.providers.of(now, &target).filter(|record| record.provider() != own) {
                    if let Some(contact) = record.contact().filter(|c| self.reach.contains(c.addr)) {
                        lookup.note_provider(record.provider(), record.sequence());
                        contacts.push((contact, record.is_partial()));
                    }
                }
                if !contacts.is_empty() {
                    self.events.push_back(DhtEvent::Providers { lookup: id, contacts });
                }
            }
        }
        self.lookups.insert(id, lookup);
        id
    }

    /// The number of lookups that this node may start for itself now. Some are always left to its caller.
    pub(super) fn own_lookups_room(&self) -> usize {
        let own = self.lookups.values().filter(|lookup| lookup.reason != Reason::Caller).count();
        let limits = &self.config.limits;
        let share = (limits.lookups_max / 4).max(2).saturating_sub(own);
        share.min(limits.lookups_max.saturating_sub(self.lookups.len()))
    }

    /// Lets every lookup send the requests that it can. Returns whether a lookup ended.
    pub(super) fn drive_lookups(&mut self, now: Instant, outbox: &mut Outbox) -> bool {
        self.starved = false;
        let ids: Vec<LookupId> = self.lookups.keys().copied().collect();
        ids.into_iter().filter(|id| self.drive_lookup(now, *id, outbox)).count() > 0
    }

    /// Lets a lookup send the requests that it can. Returns whether it ended.
    pub(super) fn drive_lookup(&mut self, now: Instant, id: LookupId, outbox: &mut Outbox) -> bool {
        let Some(lookup) = self.lookups.get_mut(&id) else { return false };
        if let Some(end) = lookup.end(now) {
            if let Some(lookup) = self.lookups.remove(&id) {
                self.finish_lookup(now, lookup, end, outbox);
            }
            return true;
        }
        while let Some(lookup) = self.lookups.get_mut(&id) {
            if self.transactions.room() <= TRANSACTIONS_RESERVED {
                self.starved = true;
                break;
            }
            let Some(contact) = lookup.next(self.hedge.spare()) else { break };
            let purpose = Purpose::Lookup(id, lookup.target, lookup.want);
            self.ask(now, contact.addr, Some(contact), purpose, outbox);
        }
        false
    }

    fn finish_lookup(&mut self, now: Instant, lookup: Lookup, end: End, outbox: &mut Outbox) {
        let closest = lookup.closest();
        match (end, lookup.neighbourhood()) {
            (End::TimedOut, _) => self.counters.lookup_timed_out += 1,
            (End::Converged, Some((members, whole))) => {
                self.lookup_cache.insert(now, lookup.target, &members, whole);
                if whole {
                    self.table.touch_all(now);
                }
            }
            (End::Converged, None) | (End::Agreed, _) => {}
        }
        match lookup.reason {
            Reason::Caller => {
                let record = lookup.found.into_record();
                if let Some(record) = record.as_deref().and_then(|bytes| Record::parse(bytes).ok()) {
                    let (sequence, lifetime) = (record.sequence(), record.lifetime());
                    self.cache.insert(now, lookup.target, record.bytes(), sequence, lifetime);
                }
                self.events.push_back(DhtEvent::Finished {
                    lookup: lookup.id,
                    target: lookup.target,
                    closest,
                    record,
                    turnout: Turnout { asked: lookup.asked, answered: lookup.answered },
                });
            }
            Reason::Neighbourhood => self.found_neighbourhood(),
            Reason::Refresh => {}
            Reason::Announce => self.place_file(&lookup.target, &lookup.keepers(), outbox),
            Reason::Publish => self.publish_found(now, lookup, outbox),
            Reason::Republish => self.place_record(now, &lookup.target, &lookup.keepers()),
        }
    }
}
