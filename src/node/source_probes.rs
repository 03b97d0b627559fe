//! Probes of sources that fell silent, so that a download goes on as soon as a link is back.
//!
//! TCP finds out late that a path works again, and a download that has given a source up dials it rarely. A ping costs one small
//! datagram. So every second this node pings the sources from which its downloads hear nothing. The first authenticated datagram of
//! such a source, an answer or any other, has the source dialled at once.

use crate::counters::counters;
use crate::id::NodeId;
use crate::peers::outbox::{Ask, Attempt, Outbox};
use crate::peers::requests::{Challenge, Question, Request, Requests};
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::transfer::{DownloadId, SilentSource, Transfer};
use crate::wire::contact::Contact;
use crate::wire::datagram::Verified;
use crate::wire::header::Kind;
use crate::wire::message::Message;
use core::net::SocketAddr;
use std::collections::BTreeMap;

/// Sources that are probed at a time.
const SOURCES_MAX: usize = 16;
/// The time between two probes of a source.
const PROBE_EVERY: Duration = Duration::from_secs(1);
/// The same for a source that has been silent for [`LONG`]: a download without a timeout waits for ever.
const PROBE_RARELY: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_secs(600);
/// A probe counts as unanswered after this time.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Unanswered probes after which a stalled stream is replaced when the source returns. A slow source answers probes.
const UNANSWERED_MIN: u32 = 2;
/// The first pause between two dials of a source that answers probes but cannot be dialled. It doubles each time.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Outstanding probes.
const OUTSTANDING_MAX: usize = 3 * SOURCES_MAX;

counters! {
    /// The counters of the probes.
    pub(super) struct ProbeCounters {
        /// Pings to sources of downloads that fell silent.
        sent = "source_probes",
        /// Signs of life of such sources, after which they were dialled at once.
        returned = "sources_returned",
    }
}

/// A ping to a silent source.
struct Probe;

impl Question for Probe {
    fn answer(&self) -> Kind {
        Kind::Pong
    }
}

/// What a sign of life of a silent source means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Return {
    /// The source did not answer before: the time in which it could not be reached is over.
    AfterOutage,
    /// It answered all the time, but has no stream.
    Reachable,
}

/// The probes of silent sources.
pub(super) struct SourceProbes {
    watched: BTreeMap<NodeId, Watched>,
    outstanding: Requests<Probe>,
    look_at: Instant,
    rng: Rng,
    pub(super) counters: ProbeCounters,
}

struct Watched {
    contact: Contact,
    connected: bool,
    since: Instant,
    probe_at: Instant,
    /// Probes in a row that were not answered.
    unanswered: u32,
    /// When a sign of life counts again, and the pause after that.
    heed_at: Instant,
    pause: Duration,
}

impl Watched {
    fn new(now: Instant, source: &SilentSource) -> Watched {
        Watched {
            contact: source.contact,
            connected: source.connected,
            since: now,
            probe_at: now,
            unanswered: 0,
            heed_at: now,
            pause: PAUSE_MIN,
        }
    }
}

impl SourceProbes {
    /// No source is silent. `seed` is entropy, or fixed in a simulation.
    pub(super) fn new(now: Instant, seed: [u8; 32]) -> Self {
        SourceProbes {
            watched: BTreeMap::new(),
            outstanding: Requests::new(OUTSTANDING_MAX),
            look_at: now,
            rng: Rng::new(seed),
            counters: ProbeCounters::default(),
        }
    }

    // Getters.

    /// When [`handle_timeout`](SourceProbes::handle_timeout) is due.
    pub(super) fn next_deadline(&self, transfer: &Transfer) -> Option<Instant> {
        transfer.is_downloading().then_some(self.look_at)
    }

    /// Whether an answer matches an outstanding probe.
    pub(super) fn is_expected(&self, kind: Kind, transaction: u64, from: SocketAddr) -> bool {
        self.outstanding.is_expected(kind, transaction, from)
    }

    // Inputs.

    /// Probes the silent sources, if that is due.
    pub(super) fn handle_timeout(&mut self, now: Instant, transfer: &Transfer, outbox: &mut Outbox) {
        if now < self.look_at {
            return;
        }
        self.look_at = now + PROBE_EVERY;
        self.look(now, &transfer.silent_sources(now, SOURCES_MAX));
        for (id, watched) in &mut self.watched {
            if now < watched.probe_at || self.outstanding.room() == 0 {
                continue;
            }
            let rarely = now.since(watched.since) >= LONG;
            watched.probe_at = now + if rarely { PROBE_RARELY } else { PROBE_EVERY };
            let to = watched.contact.addr;
            let request = Request::new(now, to, Some(*id), Probe, ANSWER_WITHIN);
            let transaction = self.outstanding.insert(&mut self.rng, request);
            let ask = Ask { to, recipient: Some(*id), transaction, attempt: Attempt::First };
            outbox.request(now, ask, &Message::Ping { padding: 0 });
            self.counters.sent += 1;
        }
    }

    /// These sources are silent now.
    fn look(&mut self, now: Instant, silent: &[SilentSource]) {
        for (transaction, _) in self.outstanding.overdue(now) {
            let id = self.outstanding.remove(transaction).and_then(|request| request.recipient);
            if let Some(watched) = id.and_then(|id| self.watched.get_mut(&id)) {
                watched.unanswered = watched.unanswered.saturating_add(1);
            }
        }
        // A source that was dialled a moment ago is remembered, so that the pauses grow.
        let is_silent = |id: &NodeId| silent.iter().any(|source| source.contact.id == *id);
        self.watched.retain(|id, watched| is_silent(id) || now < watched.heed_at);
        for source in silent {
            let new = || Watched::new(now, source);
            let watched = self.watched.entry(source.contact.id).or_insert_with(new);
            (watched.contact, watched.connected) = (source.contact, source.connected);
        }
    }

    /// A challenge arrived. If it is to a probe, the probe is sent again, with a signature.
    pub(super) fn handle_challenge(&mut self, now: Instant, challenge: &Challenge, outbox: &mut Outbox) {
        self.outstanding.sign_again(now, challenge, &Message::Ping { padding: 0 }, outbox);
    }

    /// A node answered a probe.
    pub(super) fn handle_answer(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &Verified<'_>,
        outbox: &mut Outbox,
    ) {
        self.outstanding.answered_by(now, from, datagram, outbox);
    }

    /// An authenticated datagram came from a node. If the node is a silent source, it is dialled. Returns the downloads for which an
    /// outage is over.
    pub(super) fn sender_is_there(
        &mut self,
        now: Instant,
        sender: &Contact,
        transfer: &mut Transfer,
    ) -> Vec<DownloadId> {
        let Some(returns) = self.heard(now, &sender.id) else { return Vec::new() };
        self.counters.returned += 1;
        let downloads = transfer.source_returned(now, sender);
        match returns {
            Return::AfterOutage => downloads,
            Return::Reachable => Vec::new(),
        }
    }

    /// What it means that a node is heard; `None` when nothing follows.
    fn heard(&mut self, now: Instant, id: &NodeId) -> Option<Return> {
        let watched = self.watched.get_mut(id)?;
        let unanswered = core::mem::take(&mut watched.unanswered);
        let returns = match unanswered {
            0 if watched.connected || now < watched.heed_at => return None,
            0 => Return::Reachable,
            few if watched.connected && few < UNANSWERED_MIN => return None,
            _ => Return::AfterOutage,
        };
        watched.heed_at = now + watched.pause;
        watched.pause = (watched.pause * 2).min(PAUSE_MAX);
        Some(returns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Key, PublicKey};
    use crate::node::machines::Machines;

    const START: Instant = Instant::from_secs(100);

    fn source(connected: bool) -> SilentSource {
        let contact = Contact::new(PublicKey([7; 32]), ([127, 0, 0, 7], 3583).into());
        SilentSource { contact, connected }
    }

    fn id() -> NodeId {
        source(false).contact.id
    }

    /// Probes that have watched a source for some seconds, in which it answered none of `unanswered` probes.
    fn watching(connected: bool, unanswered: u32) -> SourceProbes {
        let mut probes = SourceProbes::new(START, [1; 32]);
        probes.look(START, &[source(connected)]);
        for _ in 0..unanswered {
            let request =
                Request::new(START, source(connected).contact.addr, Some(id()), Probe, ANSWER_WITHIN);
            probes.outstanding.insert(&mut probes.rng, request);
        }
        probes.look(START + ANSWER_WITHIN, &[source(connected)]);
        probes
    }

    #[test]
    fn a_source_that_did_not_answer_returns_with_its_first_datagram() {
        let mut probes = watching(false, 1);
        assert_eq!(probes.heard(START, &id()), Some(Return::AfterOutage));
        assert_eq!(probes.heard(START, &id()), None, "once");
        assert_eq!(probes.heard(START, &NodeId([9; 32])), None, "no source");
    }

    #[test]
    fn a_download_learns_that_its_source_is_back_only_after_an_outage() {
        for (unanswered, expected) in [(1, vec![DownloadId(5)]), (0, vec![])] {
            let (mut probes, mut machines) = (watching(false, unanswered), Machines::alone(START));
            let contact = source(false).contact;
            assert!(machines.transfer.fetch(START, DownloadId(5), Key([1; 32]), &[contact]));
            let now = START + ANSWER_WITHIN;
            let downloads = probes.sender_is_there(now, &contact, &mut machines.transfer);
            assert_eq!(downloads, expected, "{unanswered} unanswered");
            assert_eq!(probes.counters.returned, 1, "it is dialled");
            assert_eq!(probes.sender_is_there(now, &contact, &mut machines.transfer), []);
            assert_eq!(probes.counters.returned, 1);
        }
    }

    #[test]
    fn a_stalled_stream_is_replaced_only_after_several_unanswered_probes() {
        assert_eq!(watching(true, 0).heard(START, &id()), None, "a slow source");
        assert_eq!(watching(true, 1).heard(START, &id()), None, "one datagram was lost");
        assert_eq!(watching(true, 2).heard(START, &id()), Some(Return::AfterOutage));
    }

    #[test]
    fn a_source_that_answers_but_cannot_be_dialled_is_dialled_with_growing_pauses() {
        let mut probes = watching(false, 0);
        let mut now = START + ANSWER_WITHIN;
        let mut pauses = Vec::new();
        for _ in 0..8 {
            assert_eq!(probes.heard(now, &id()), Some(Return::Reachable));
            let again = probes.watched[&id()].heed_at;
            assert_eq!(probes.heard(again - Duration::from_millis(1), &id()), None);
            pauses.push(again.since(now).as_secs());
            now = again;
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn a_source_that_sends_again_is_forgotten_after_its_pause() {
        let mut probes = watching(false, 1);
        let now = START + ANSWER_WITHIN;
        assert_eq!(probes.heard(now, &id()), Some(Return::AfterOutage));
        probes.look(now, &[]);
        assert!(probes.watched.contains_key(&id()), "it may fall silent at once");
        probes.look(now + PAUSE_MIN, &[]);
        assert!(probes.watched.is_empty());
    }
}
