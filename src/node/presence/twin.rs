//! An identity in use twice: another process runs with this node's key, from a restored backup or a copied directory or image.
//!
//! Peers cannot tell the two processes apart: answers reach one or the other, and each takes the place of the other in tables. So
//! both must report the conflict. A datagram that is signed with this node's key but is not of this run may be a recording of an
//! earlier run. Therefore this node asks the sender for a sign of life. An answer with the question's transaction number is a
//! proof, and the question makes the other process ask, too. If the two do not reach each other (NAT), states under the shared
//! key are the proof: each process issues a higher number than the other's, again and again.

use crate::node::command::IdentityTwice;
use crate::peers::inbox::{self, Rejected};
use crate::peers::outbox::{Ask, Asker, Attempt, Outbox};
use crate::peers::rate::{Limiter, Rate};
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::wire::datagram::Unverified;
use crate::wire::header::Kind;
use crate::wire::message::Message;
use core::net::SocketAddr;

/// Outstanding questions.
const ASKED_MAX: usize = 8;
/// An answer counts for this long after the question.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// The time between two questions to a process that was found.
const ASK_EVERY: Duration = Duration::from_secs(60);
/// A process that has given no sign of life for this long has ended.
const ENDED_AFTER: Duration = Duration::from_secs(10 * 60);
/// The time between two warnings.
const WARN_EVERY: Duration = Duration::from_secs(60 * 60);
/// States of another run with ever higher numbers that prove another process, if none is older than [`ENDED_AFTER`]. A single one may
/// be of an earlier run whose number is lost.
const STATES_MIN: u32 = 5;

/// The evidence of another process with this node's key.
pub(super) struct Twin {
    asked: Vec<Asked>,
    waiting: Vec<(SocketAddr, u64)>,
    questions: Limiter,
    rng: Rng,
    found: Option<Found>,
    /// The states of other runs that arrived one after another, and when the last one did.
    states: (u32, Instant),
}

#[derive(Clone, Copy)]
struct Asked {
    transaction: u64,
    to: SocketAddr,
    at: Instant,
}

/// Another process with this node's key.
#[derive(Clone, Copy)]
struct Found {
    addr: SocketAddr,
    since: Instant,
    /// When it last gave a sign of life.
    seen: Instant,
    warned: Instant,
    ask_at: Instant,
}

impl Twin {
    /// No other process is known. `seed` is entropy, or fixed in a simulation.
    pub(super) fn new(seed: [u8; 32]) -> Self {
        Twin {
            asked: Vec::with_capacity(ASKED_MAX),
            waiting: Vec::with_capacity(ASKED_MAX),
            questions: Limiter::new(Rate::every(Duration::from_secs(1), 4)),
            rng: Rng::new(seed),
            found: None,
            states: (0, Instant::ZERO),
        }
    }

    /// The process that was found, for the node's status.
    pub(super) fn status(&self, now: Instant) -> Option<IdentityTwice> {
        let found = self.found?;
        Some(IdentityTwice { address: found.addr, seconds: now.since(found.since).as_secs() })
    }

    /// When [`handle_timeout`](Twin::handle_timeout) is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.found.map(|found| found.ask_at)
    }

    /// Whether an answer under this node's own key matches an outstanding question.
    pub(super) fn is_expected(&self, now: Instant, from: SocketAddr, transaction: u64) -> bool {
        self.asked.iter().any(|asked| {
            asked.transaction == transaction && asked.to == from && now.since(asked.at) < ANSWER_WITHIN
        })
    }

    /// A datagram arrived that claims to be of this node: of this run, an earlier one, or another process that has this node's key. If
    /// it is an answer, it is [expected](Twin::is_expected).
    pub(super) fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: Unverified<'_>,
        outbox: &mut Outbox,
    ) -> Result<(), Rejected> {
        let (kind, transaction) = (datagram.kind(), datagram.transaction());
        let verified = inbox::receive_own(outbox, now, from, datagram, kind.is_answer())?;
        if kind.is_answer() {
            self.answered(now, from, transaction);
            return Ok(());
        }
        if kind == Kind::Ping {
            outbox.answer(now, Asker::of(from, &verified), &Message::Pong { observed: from });
        }
        self.suspect(now, from);
        Ok(())
    }

    /// A request arrived from this address, signed with this node's key in another run: the node there is asked.
    fn suspect(&mut self, now: Instant, addr: SocketAddr) {
        let asked = self.asked.iter().any(|asked| asked.to == addr && now.since(asked.at) < ANSWER_WITHIN);
        let known = self.found.is_some_and(|found| found.addr == addr && now < found.ask_at);
        if !asked && !known {
            self.ask(now, addr);
        }
    }

    /// An expected answer arrived, signed with this node's key.
    fn answered(&mut self, now: Instant, from: SocketAddr, transaction: u64) {
        self.asked.retain(|asked| asked.transaction != transaction);
        self.found_at(now, from);
    }

    /// A state of another run arrived that has a higher number than the present one, and names these addresses. `own` is the address
    /// that this node has.
    pub(super) fn told(&mut self, now: Instant, addrs: [Option<SocketAddr>; 2], own: Option<SocketAddr>) {
        let elsewhere = || addrs.into_iter().flatten().filter(|addr| Some(*addr) != own);
        let Some(addr) = elsewhere().next() else { return };
        let (count, last) = self.states;
        let in_a_row = if now.since(last) < ENDED_AFTER { count } else { 0 };
        self.states = (in_a_row.saturating_add(1), now);
        if self.states.0 >= STATES_MIN {
            self.found_at(now, addr);
        }
        elsewhere().for_each(|addr| self.suspect(now, addr));
    }

    /// Asks the process that was found again, or forgets it when it has been silent for long.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let Some(found) = self.found.as_mut().filter(|found| found.ask_at <= now) else { return };
        found.ask_at = now + ASK_EVERY;
        let Found { addr, seen, .. } = *found;
        if now.since(seen) < ENDED_AFTER {
            return self.ask(now, addr);
        }
        log::warn!("this node's identity is in use once again: the node at {addr} no longer answers");
        self.found = None;
    }

    /// Sends the questions that are due: pings to this node's own id.
    pub(super) fn send_questions(&mut self, now: Instant, outbox: &mut Outbox) {
        while let Some((to, transaction)) = self.poll_question() {
            let recipient = Some(outbox.identity().id());
            let ask = Ask { to, recipient, transaction, attempt: Attempt::First };
            outbox.request(now, ask, &Message::Ping { padding: 0 });
        }
    }

    /// The next question to be sent, with its transaction number.
    fn poll_question(&mut self) -> Option<(SocketAddr, u64)> {
        self.waiting.pop()
    }

    fn ask(&mut self, now: Instant, to: SocketAddr) {
        self.asked.retain(|asked| now.since(asked.at) < ANSWER_WITHIN);
        if self.asked.len() == ASKED_MAX || self.waiting.len() == ASKED_MAX || !self.questions.take(now) {
            return;
        }
        let transaction = self.rng.u64();
        self.asked.push(Asked { transaction, to, at: now });
        self.waiting.push((to, transaction));
    }

    fn found_at(&mut self, now: Instant, addr: SocketAddr) {
        let before = self.found;
        let since = before.map_or(now, |found| found.since);
        let ask_at = now + ASK_EVERY;
        let warn = before.is_none_or(|found| found.addr != addr || now.since(found.warned) >= WARN_EVERY);
        let warned = before.map_or(now, |found| if warn { now } else { found.warned });
        self.found = Some(Found { addr, since, seen: now, warned, ask_at });
        if warn {
            log::warn!(
                "this node's identity is in use twice: another node with the same key is at {addr}. A copied directory, \
                 a copied image or a restored backup does this, and other nodes lose sight of one of the two. Stop one \
                 of them, or give it an identity of its own: stop it and run `elver id --new`"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::from_secs(1000);

    fn addr(last: u8) -> SocketAddr {
        ([192, 0, 2, last], 3583).into()
    }

    fn twin() -> Twin {
        Twin::new([1; 32])
    }

    /// The next question, if one is to be sent.
    fn question(twin: &mut Twin) -> Option<(SocketAddr, u64)> {
        let question = twin.poll_question();
        assert_eq!(twin.poll_question(), None);
        question
    }

    fn found(twin: &Twin, now: Instant) -> Option<SocketAddr> {
        twin.status(now).map(|status| status.address)
    }

    #[test]
    fn a_request_under_the_own_key_is_a_suspicion_and_only_an_answer_is_a_proof() {
        let mut twin = twin();
        twin.suspect(NOW, addr(2));
        assert_eq!(found(&twin, NOW), None);
        let (to, transaction) = question(&mut twin).expect("a question");
        assert_eq!(to, addr(2));
        assert!(!twin.is_expected(NOW, addr(3), transaction), "another address");
        assert!(!twin.is_expected(NOW, addr(2), transaction ^ 1), "another transaction");
        assert!(!twin.is_expected(NOW + ANSWER_WITHIN, addr(2), transaction), "too late");
        assert!(twin.is_expected(NOW, addr(2), transaction));
        twin.answered(NOW, addr(2), transaction);
        assert_eq!(found(&twin, NOW), Some(addr(2)));
        assert!(!twin.is_expected(NOW, addr(2), transaction), "an answer counts once");
    }

    #[test]
    fn recordings_from_many_addresses_lead_to_few_questions() {
        let mut twin = twin();
        let mut sent = 0;
        for number in 0..200 {
            twin.suspect(NOW, addr(number));
            twin.suspect(NOW, addr(number));
            sent += core::iter::from_fn(|| twin.poll_question()).count();
        }
        assert!(sent <= 8, "{sent}");
    }

    #[test]
    fn a_process_that_was_found_is_asked_again_and_forgotten_when_it_is_silent() {
        let mut twin = twin();
        twin.suspect(NOW, addr(2));
        let (_, transaction) = question(&mut twin).expect("a question");
        twin.answered(NOW, addr(2), transaction);
        let mut now = NOW;
        for _ in 0..3 {
            now = twin.next_deadline().expect("it is asked again");
            twin.handle_timeout(now);
            let (_, transaction) = question(&mut twin).expect("a question");
            twin.answered(now, addr(2), transaction);
        }
        let silent_since = now;
        while let Some(due) = twin.next_deadline() {
            assert!(due > now, "a deadline that fired is disarmed");
            now = due;
            twin.handle_timeout(now);
            question(&mut twin);
        }
        assert_eq!(now.since(silent_since), ENDED_AFTER);
        assert_eq!(found(&twin, now), None);
    }

    #[test]
    fn states_that_come_again_and_again_prove_a_process_that_cannot_be_reached() {
        let mut twin = twin();
        let told = [Some(addr(2)), None];
        for round in 1..STATES_MIN {
            twin.told(NOW, told, Some(addr(1)));
            assert_eq!(found(&twin, NOW), None, "state {round}");
        }
        twin.told(NOW, told, Some(addr(1)));
        assert_eq!(found(&twin, NOW), Some(addr(2)));
    }

    #[test]
    fn states_of_earlier_runs_prove_nothing() {
        let mut twin = twin();
        for round in 0..20 {
            // The address has not changed since, or the state is one of few.
            twin.told(NOW, [Some(addr(1)), None], Some(addr(1)));
            twin.told(NOW, [None, None], Some(addr(1)));
            twin.told(NOW + ENDED_AFTER * round, [Some(addr(2)), None], Some(addr(1)));
        }
        assert_eq!(found(&twin, NOW), None);
    }
}
