//! Whether other nodes can connect to this one.
//!
//! A node behind a NAT or a firewall reaches others, and its datagrams open a way back for those that it has asked. So it seems to be
//! there, but no node can open a stream to it, and content that only it has cannot be fetched. The node finds that out with rounds of
//! questions: it asks some contacts to dial it back, each from a fresh port, for which no way is open. They dial only the address that
//! the question came from, and only if that is validated (see `dial_backs`).
//!
//! What counts:
//!
//! - A connection that comes in proves that this node can be reached, whoever made it. It need not come from a round. No peer can
//!   feign it. A connection from a local address proves nothing to a node with a public one: both may be behind the same NAT.
//! - A round fails when no connection came in, and at least as many parties say that they could not connect as say that they could.
//!   The answers of one party are one vote, so that many identities at one address weigh no more than one node.
//! - [`FAILING`] rounds in a row that fail make the node unreachable. Contacts that lie must have *all* votes of these rounds for
//!   that: one honest contact connects. [`CONNECTING`] rounds in a row with a connection make it reachable again.
//!
//! A node that cannot be reached takes part as a leaf until it can: no table names it, and no piece depends on it.

use crate::dht::Dht;
use crate::id::Key;
use crate::node::bridge;
use crate::node::command::Unreachable;
use crate::node::machines::Machines;
use crate::peers::outbox::{Attempt, Outbox};
use crate::peers::party::{Party, is_local};
use crate::peers::requests::{Challenge, Question, Request, Requests};
use crate::rng::Rng;
use crate::time::{Duration, Instant, earliest};
use crate::wire::contact::Contact;
use crate::wire::datagram::Verified;
use crate::wire::header::Kind;
use crate::wire::message::{Message, ProbeOutcome};
use core::net::SocketAddr;

/// Contacts that are asked in a round.
const ASKED: usize = 4;
/// Contacts that are asked in a round after one that contradicts the verdict.
const ASKED_AGAIN: usize = 8;
/// Contacts of which those to be asked are chosen, as many parties as possible.
const CANDIDATES: usize = 64;
/// The time that a contact has to dial and to answer: a dial takes up to five seconds.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);
/// The pause before the first round after the node knows others, and before a round that is to confirm the one before.
const SOON: Duration = Duration::from_secs(5);
/// The pause after a round in which no contact tried. It doubles each time, up to [`REACHABLE`].
const AGAIN: Duration = Duration::from_secs(15);
/// The pause between rounds, and after a connection came in, while the node can be reached.
const REACHABLE: Duration = Duration::from_secs(600);
/// The pause between rounds while it cannot.
const UNREACHABLE: Duration = Duration::from_secs(30);
/// Rounds in a row that must fail before the node is unreachable.
const FAILING: u32 = 3;
/// Rounds in a row that must bring a connection before it is reachable again.
const CONNECTING: u32 = 2;

/// A request to be dialled back.
struct DialMe(Party);

impl Question for DialMe {
    fn answer(&self) -> Kind {
        Kind::ProbeReply
    }

    fn is_answered_at_once(&self) -> bool {
        false
    }
}

/// A round of questions that is under way.
#[derive(Default)]
struct Round {
    /// Whether a connection came in.
    connected: bool,
    /// For each party, its contacts that say that they connected, less those that say that they could not.
    votes: Vec<(Party, i32)>,
}

impl Round {
    fn vote(&mut self, party: Party, connected: bool) {
        let vote = if connected { 1 } else { -1 };
        match self.votes.iter_mut().find(|(voter, _)| *voter == party) {
            Some((_, sum)) => *sum += vote,
            None => self.votes.push((party, vote)),
        }
    }

    /// Whether this node can be reached; `None` if the round does not tell.
    fn finding(&self) -> Option<bool> {
        let connected = self.votes.iter().filter(|(_, sum)| *sum > 0).count();
        let failed = self.votes.iter().filter(|(_, sum)| *sum < 0).count();
        match self.connected {
            true => Some(true),
            false if failed > 0 && failed >= connected => Some(false),
            // The contacts have too much to do, do not know this question, or lie.
            false => None,
        }
    }
}

/// What this node knows about its reachability.
pub(super) struct Reachability {
    listen: SocketAddr,
    /// Whether the node is configured as a leaf: then it asks nothing.
    leaf: bool,
    /// Since when no node can connect to this one.
    unreachable: Option<Instant>,
    round: Option<Round>,
    /// When the next round begins.
    round_at: Instant,
    /// Contacts that were asked in the round under way, as long as they may answer.
    asked: Requests<DialMe>,
    /// Rounds in a row that contradict the verdict.
    contradicting: u32,
    pause: Duration,
    rng: Rng,
}

impl Reachability {
    /// A node that counts as reachable until rounds fail. `leaf`: it is configured as a leaf.
    pub(super) fn new(now: Instant, listen: SocketAddr, leaf: bool, seed: [u8; 32]) -> Self {
        Reachability {
            listen,
            leaf,
            unreachable: None,
            round: None,
            round_at: now + SOON,
            asked: Requests::new(ASKED_AGAIN),
            contradicting: 0,
            pause: AGAIN,
            rng: Rng::new(seed),
        }
    }

    // Getters.

    /// Whether no node can connect to this one, although it is not configured as a leaf.
    pub(super) fn is_unreachable(&self) -> bool {
        self.unreachable.is_some()
    }

    /// For the node's status. `address` is the one at which others see it.
    pub(super) fn status(&self, now: Instant, address: Option<SocketAddr>) -> Option<Unreachable> {
        let seconds = now.since(self.unreachable?).as_secs();
        Some(Unreachable { address, seconds })
    }

    /// When [`handle_timeout`](Reachability::handle_timeout) is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let round = (self.round.is_none() && !self.leaf).then_some(self.round_at);
        earliest(round, self.asked.next_deadline())
    }

    /// Whether an answer matches an outstanding question.
    pub(super) fn is_expected(&self, kind: Kind, transaction: u64, from: SocketAddr) -> bool {
        self.asked.is_expected(kind, transaction, from)
    }

    // Inputs.

    /// The node's address may have changed: the next round comes soon.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.round_at = self.round_at.min(now + SOON);
    }

    /// A connection came in.
    pub(super) fn handle_accepted(&mut self, now: Instant, remote: SocketAddr, dht: &Dht) {
        if !tells(remote, dht.own_addr()) {
            return;
        }
        if let Some(round) = &mut self.round {
            round.connected = true;
        }
        if self.is_unreachable() {
            self.hurry(now);
        } else {
            self.contradicting = 0;
            self.round_at = self.round_at.max(now + REACHABLE);
        }
    }

    /// Begins a round if one is due, or ends the one under way when its time is over.
    pub(super) fn handle_timeout(&mut self, now: Instant, machines: &mut Machines) {
        for (transaction, _) in self.asked.overdue(now) {
            self.asked.remove(transaction);
        }
        if self.round.is_some() {
            self.conclude(now, machines);
        } else if now >= self.round_at && !self.leaf {
            self.begin(now, machines);
        }
    }

    fn begin(&mut self, now: Instant, machines: &mut Machines) {
        let own = machines.id();
        let Machines { dht, outbox, .. } = machines;
        let contacts = self.chosen(dht, outbox);
        if contacts.is_empty() {
            self.round_at = now + SOON;
            return;
        }
        self.round = Some(Round::default());
        for (party, contact) in contacts {
            let request = Request::new(now, contact.addr, Some(contact.id), DialMe(party), ANSWER_WITHIN);
            let ask = self.asked.ask(&mut self.rng, request, Attempt::First);
            outbox.request(now, ask, &Message::Probe { target: own });
        }
    }

    /// The contacts to be asked: of as many parties as possible, from a random region of the key space.
    fn chosen(&mut self, dht: &Dht, outbox: &Outbox) -> Vec<(Party, Contact)> {
        let most = if self.contradicting > 0 { ASKED_AGAIN } else { ASKED };
        let (own, parties) = (dht.own_addr(), dht.parties());
        let near = dht.closest_known(outbox.peers(), &Key(self.rng.bytes()), CANDIDATES);
        let near = near.into_iter().filter(|contact| tells(contact.addr, own));
        let near = near.map(|contact| (parties.of(&contact.id, contact.addr), contact));
        spread(near, most)
    }

    /// A challenge arrived. If it is to a question, the question is sent again, with a signature.
    pub(super) fn handle_challenge(&mut self, now: Instant, challenge: &Challenge, outbox: &mut Outbox) {
        let target = outbox.identity().id();
        self.asked.sign_again(now, challenge, &Message::Probe { target }, outbox);
    }

    /// A contact answered a question.
    pub(super) fn handle_answer(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &Verified<'_>,
        machines: &mut Machines,
    ) {
        let Message::ProbeReply { outcome, .. } = datagram.message() else { return };
        if let Some(request) = self.asked.answered_by(now, from, datagram, &mut machines.outbox) {
            self.note(request.question.0, outcome);
            self.conclude(now, machines);
        }
    }

    /// A contact of a party says what came of its dial.
    fn note(&mut self, party: Party, outcome: ProbeOutcome) {
        let Some(round) = &mut self.round else { return };
        match outcome {
            ProbeOutcome::Answered => round.vote(party, true),
            ProbeOutcome::Silent => round.vote(party, false),
            ProbeOutcome::Unknown => {}
        }
    }

    /// Ends the round when no further answer can come.
    fn conclude(&mut self, now: Instant, machines: &mut Machines) {
        if !self.asked.is_empty() {
            return;
        }
        let Some(round) = self.round.take() else { return };
        let pause = match round.finding() {
            Some(reachable) => self.found(now, reachable, machines),
            None => {
                let pause = self.pause;
                self.pause = (pause * 2).min(REACHABLE);
                pause
            }
        };
        self.round_at = now + self.rng.duration(pause * 9 / 10, pause * 11 / 10);
    }

    /// A round found whether this node can be reached. Returns the pause before the next one.
    fn found(&mut self, now: Instant, reachable: bool, machines: &mut Machines) -> Duration {
        self.pause = AGAIN;
        let contradicts = reachable == self.is_unreachable();
        self.contradicting = if contradicts { self.contradicting + 1 } else { 0 };
        if self.contradicting >= if reachable { CONNECTING } else { FAILING } {
            self.contradicting = 0;
            self.unreachable = (!reachable).then_some(now);
            self.follow(now, machines);
        }
        match self.contradicting {
            0 if self.is_unreachable() => UNREACHABLE,
            0 => REACHABLE,
            _ => SOON,
        }
    }

    /// The verdict has changed: the node becomes a leaf, or ceases to be one.
    fn follow(&self, now: Instant, machines: &mut Machines) {
        let (address, port) = (machines.dht.own_addr().unwrap_or(self.listen), self.listen.port());
        if self.is_unreachable() {
            log::warn!(
                "other nodes cannot connect to this one at {address}: it is behind a NAT or a firewall. It takes part as a leaf: it \
                 fetches and shares, but keeps nothing for others, and what only it has cannot be fetched. Let TCP and UDP in on \
                 port {port}, or start it with --leaf"
            );
        } else {
            log::warn!("other nodes can connect to this one again, at {address}: it is no leaf any more");
        }
        machines.set_leaf(self.is_unreachable());
        bridge::update_own_state(now, machines);
    }
}

/// Of some contacts `most`, the first of each party before any further one.
fn spread(near: impl Iterator<Item = (Party, Contact)>, most: usize) -> Vec<(Party, Contact)> {
    let (mut chosen, mut others): (Vec<(Party, Contact)>, Vec<_>) = (Vec::new(), Vec::new());
    for (party, contact) in near {
        let is_new = chosen.iter().all(|(other, _)| *other != party);
        if is_new { &mut chosen } else { &mut others }.push((party, contact));
    }
    chosen.extend(others);
    chosen.truncate(most);
    chosen
}

/// Whether a connection from an address, or a failed one, tells whether the node can be reached from everywhere. `own` is the
/// address at which others see the node.
fn tells(remote: SocketAddr, own: Option<SocketAddr>) -> bool {
    !is_local(remote.ip()) || own.is_none_or(|own| is_local(own.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PublicKey;

    const START: Instant = Instant::from_secs(100);

    fn listen() -> SocketAddr {
        ([0, 0, 0, 0], 3583).into()
    }

    /// A contact in a /24 of its own.
    fn contact(number: u8) -> Contact {
        Contact::new(PublicKey([number; 32]), ([31, number, 1, 1], 3583).into())
    }

    fn party(number: u8) -> Party {
        Party::of(contact(number).addr.ip())
    }

    struct Bench {
        now: Instant,
        machines: Machines,
        reachability: Reachability,
    }

    impl Bench {
        fn new() -> Bench {
            let machines = Machines::alone(START);
            Bench { now: START, machines, reachability: Reachability::new(START, listen(), false, [1; 32]) }
        }

        /// One round in which contacts of parties answer so, and a connection comes in. Returns the seconds before it.
        fn round_of(&mut self, answers: &[(Party, ProbeOutcome)], connected: bool) -> u64 {
            let at = self.reachability.round_at;
            let waited = at.since(self.now).as_secs();
            self.now = at;
            self.reachability.round = Some(Round::default());
            if connected {
                self.reachability.handle_accepted(at, contact(9).addr, &self.machines.dht);
            }
            for (party, outcome) in answers {
                self.reachability.note(*party, *outcome);
            }
            self.reachability.conclude(at, &mut self.machines);
            waited
        }

        /// One round in which contacts of different parties answer so, without a connection.
        fn round(&mut self, outcomes: &[ProbeOutcome]) -> u64 {
            let answers: Vec<_> = (1..).map(party).zip(outcomes.iter().copied()).collect();
            self.round_of(&answers, false)
        }

        fn is_leaf(&self) -> bool {
            assert_eq!(self.machines.outbox.is_leaf(), self.reachability.is_unreachable());
            self.reachability.is_unreachable()
        }
    }

    use ProbeOutcome::{Answered, Silent, Unknown};

    #[test]
    fn a_node_that_three_rounds_of_dials_do_not_reach_is_a_leaf_until_two_rounds_reach_it() {
        let mut bench = Bench::new();
        bench.round(&[Silent, Silent, Unknown]);
        assert!(bench.round(&[Silent]) <= 6, "a round that contradicts the verdict is repeated soon");
        assert!(!bench.is_leaf());
        bench.round(&[Silent, Silent]);
        assert!(bench.is_leaf());
        let waited = bench.round_of(&[(party(1), Answered)], true);
        assert!((25..35).contains(&waited), "{waited}");
        assert!(bench.is_leaf());
        bench.round_of(&[], true);
        assert!(!bench.is_leaf());
        assert_eq!(bench.reachability.status(bench.now, None), None);
    }

    #[test]
    fn one_connection_outweighs_every_answer() {
        let mut bench = Bench::new();
        for _ in 0..9 {
            bench.round(&[Silent; 4]);
            bench.round(&[Silent; 8]);
            bench.round_of(&(1..=8).map(|number| (party(number), Silent)).collect::<Vec<_>>(), true);
            assert!(!bench.is_leaf());
        }
    }

    #[test]
    fn a_connection_between_two_rounds_begins_the_count_anew_and_puts_the_next_round_off() {
        let mut bench = Bench::new();
        bench.round(&[Silent; 4]);
        bench.round(&[Silent; 8]);
        bench.reachability.handle_accepted(bench.now, contact(1).addr, &bench.machines.dht);
        assert!(bench.round(&[Silent; 4]) >= 600);
        assert!(!bench.is_leaf());
    }

    #[test]
    fn contacts_that_claim_a_connection_that_did_not_come_convince_only_as_a_majority() {
        let mut bench = Bench::new();
        for _ in 0..3 {
            bench.round(&[Silent, Silent, Answered, Answered]);
        }
        assert!(bench.is_leaf());
        let mut bench = Bench::new();
        for _ in 0..9 {
            bench.round(&[Silent, Answered, Answered]);
        }
        assert!(!bench.is_leaf());
    }

    #[test]
    fn a_party_has_one_vote_however_many_identities_it_has() {
        let mut bench = Bench::new();
        for _ in 0..3 {
            let answers = [(party(1), Silent), (party(2), Silent), (party(3), Answered)];
            bench.round_of(&[&answers[..], &[(party(3), Answered); 5]].concat(), false);
        }
        assert!(bench.is_leaf(), "one party cannot keep the node from finding out");
        let mut bench = Bench::new();
        for _ in 0..9 {
            let answers = [(party(1), Answered), (party(2), Answered), (party(3), Silent)];
            bench.round_of(&[&answers[..], &[(party(3), Silent); 5]].concat(), false);
        }
        assert!(!bench.is_leaf(), "one party cannot make the node a leaf");
    }

    #[test]
    fn contacts_that_do_not_try_are_asked_ever_more_rarely() {
        let mut bench = Bench::new();
        bench.round(&[Unknown]);
        let pauses: Vec<u64> = (0..7).map(|_| bench.round(&[Unknown])).collect();
        let expected = [15, 30, 60, 120, 240, 480, 600];
        for (pause, expected) in pauses.iter().zip(expected) {
            assert!((expected * 9 / 10 - 1..=expected * 11 / 10).contains(pause), "{pauses:?}");
        }
        assert!(!bench.is_leaf());
    }

    #[test]
    fn a_round_ends_when_the_time_for_answers_is_over() {
        let mut bench = Bench::new();
        let reachability = &mut bench.reachability;
        let contact = contact(1);
        let request = Request::new(START, contact.addr, Some(contact.id), DialMe(party(1)), ANSWER_WITHIN);
        reachability.asked.insert(&mut reachability.rng, request);
        reachability.round = Some(Round { connected: false, votes: vec![(party(2), -1)] });
        assert_eq!(reachability.next_deadline(), Some(START + ANSWER_WITHIN));
        reachability.handle_timeout(START + ANSWER_WITHIN, &mut bench.machines);
        assert!(reachability.round.is_none());
        assert_eq!(reachability.contradicting, 1);
    }

    #[test]
    fn a_round_asks_as_many_parties_as_possible() {
        let crowd = (10..30).map(|last| Contact::new(PublicKey([last; 32]), ([31, 1, 1, last], 3583).into()));
        let contacts =
            crowd.chain((2..4).map(contact)).map(|contact| (Party::of(contact.addr.ip()), contact));
        let chosen = spread(contacts, ASKED);
        let of: Vec<Party> = chosen.iter().map(|(party, _)| *party).collect();
        assert_eq!(of, [party(1), party(2), party(3), party(1)]);
    }

    #[test]
    fn a_node_without_contacts_asks_none_and_tries_again_soon() {
        let mut bench = Bench::new();
        let at = bench.reachability.round_at;
        bench.reachability.handle_timeout(at, &mut bench.machines);
        assert!(bench.machines.outbox.is_empty());
        assert_eq!(bench.reachability.next_deadline(), Some(at + SOON));
    }

    #[test]
    fn a_node_that_is_configured_as_a_leaf_asks_nothing() {
        let reachability = Reachability::new(START, listen(), true, [1; 32]);
        assert_eq!(reachability.next_deadline(), None);
    }

    #[test]
    fn a_connection_from_behind_the_same_nat_tells_nothing() {
        let (near, far) = (([192, 168, 0, 2], 40_000).into(), contact(1).addr);
        assert!(tells(far, Some(contact(2).addr)) && tells(far, None));
        assert!(!tells(near, Some(contact(2).addr)));
        assert!(tells(near, Some(([192, 168, 0, 1], 3583).into())) && tells(near, None));
    }
}
