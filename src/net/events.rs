//! The events of this node: the last of them, and the clients that wait for the next.
//!
//! A client asks for the events after the last one that it knows, and asks again when it has them. So no client that reads slowly
//! holds anything here, and each learns how many events it missed. Answers to commands are events at once. The node's state and
//! its members are looked at while a client watches.

use super::Driver;
use super::embedded::Embedded;
use super::http::Http;
use crate::id::NodeId;
use crate::node::command::{
    Command, CommandId, Event, MemberState, Numbered, Reply, Response, Status, TroubleKind,
};
use crate::time::{Duration, Instant};
use core::net::SocketAddr;
use std::collections::{BTreeMap, VecDeque};

/// The number of the command by which the node's state is looked at.
pub(super) const LOOK: CommandId = CommandId(u64::MAX);

/// Events that are kept, each up to some KiB when it names a long path.
const KEPT_MAX: usize = 256;
/// Events in one answer.
const ANSWERED_MAX: usize = 64;
/// The time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// The time after a client's question in which looks go on.
const WATCHED_FOR: Duration = Duration::from_secs(60);

/// The events of a node.
pub(super) struct Feed {
    kept: VecDeque<Numbered>,
    /// The number of the next event.
    next: u64,
    /// The clients that wait, and the last event that each knows.
    waiting: BTreeMap<CommandId, u64>,
    /// When a client asked last.
    asked_at: Option<Instant>,
    looked_at: Instant,
    /// What the last look found.
    known: Option<Known>,
}

/// What a look finds.
struct Known {
    troubles: BTreeMap<TroubleKind, String>,
    members: BTreeMap<NodeId, Presence>,
    rotten: u64,
}

type Presence = (SocketAddr, MemberState);

impl Feed {
    pub(super) fn new() -> Self {
        Feed {
            kept: VecDeque::new(),
            next: 1,
            waiting: BTreeMap::new(),
            asked_at: None,
            looked_at: Instant::ZERO,
            known: None,
        }
    }

    /// A client asks for the events after this one; `None` for those from now on.
    pub(super) fn ask(&mut self, now: Instant, command: CommandId, after: Option<u64>) {
        let last = self.next - 1;
        // A number that is still to come was given by the node's last run.
        let after = after.map_or(last, |after| if after > last { 0 } else { after });
        self.waiting.insert(command, after);
        self.asked_at = Some(now);
    }

    /// A client waits no more. `false` when it did not wait here.
    pub(super) fn cancel(&mut self, command: CommandId) -> bool {
        self.waiting.remove(&command).is_some()
    }

    /// Something happened.
    pub(super) fn add(&mut self, event: Event) {
        if self.kept.len() == KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(Numbered { number: self.next, event });
        self.next += 1;
    }

    /// The answers to the clients for which there are events.
    pub(super) fn answers(&mut self) -> Vec<(CommandId, Reply)> {
        let last = self.next - 1;
        let ready: Vec<(CommandId, u64)> = self
            .waiting
            .iter()
            .filter(|(_, after)| **after < last)
            .map(|(id, after)| (*id, *after))
            .collect();
        let answer = |(id, after): (CommandId, u64)| {
            self.waiting.remove(&id);
            let new = self.kept.iter().filter(|event| event.number > after);
            let events: Vec<Numbered> = new.take(ANSWERED_MAX).cloned().collect();
            let missed = events.first().map_or(0, |first| first.number - 1 - after);
            (id, Reply::Events { events, missed })
        };
        ready.into_iter().map(answer).collect()
    }

    /// When the node's state is looked at next.
    pub(super) fn next_look(&self, now: Instant) -> Option<Instant> {
        let asked = self.asked_at.is_some_and(|at| now < at + WATCHED_FOR);
        (asked || !self.waiting.is_empty()).then_some(self.looked_at + LOOK_EVERY)
    }

    /// Compares the node's state and members with those of the last look.
    pub(super) fn look(
        &mut self,
        now: Instant,
        status: &Status,
        members: impl Iterator<Item = (NodeId, SocketAddr, MemberState)>,
    ) {
        self.looked_at = now;
        let found = Known {
            troubles: status.troubles.iter().map(|trouble| (trouble.kind, trouble.message.clone())).collect(),
            members: members.map(|(id, address, state)| (id, (address, state))).collect(),
            rotten: status.counters.get("pieces_rotten").copied().unwrap_or(0),
        };
        let known = self.known.take();
        let were = known.as_ref().map(|known| &known.troubles);
        for (kind, message) in &found.troubles {
            if !were.is_some_and(|troubles| troubles.contains_key(kind)) {
                self.add(Event::Alarm { kind: *kind, message: message.clone() });
            }
        }
        if let Some(known) = &known {
            for kind in known.troubles.keys().filter(|kind| !found.troubles.contains_key(kind)) {
                self.add(Event::AlarmOver { kind: *kind });
            }
            for (&id, &(address, state)) in &found.members {
                let was_there = known.members.get(&id).is_some_and(|(_, state)| is_there(*state));
                match (was_there, is_there(state)) {
                    (false, true) => self.add(Event::Joined { id, address }),
                    (true, false) => self.add(Event::Departed { id, address, state }),
                    _ => {}
                }
            }
            if found.rotten > known.rotten {
                self.add(Event::Lost { pieces: found.rotten - known.rotten });
            }
        }
        self.known = Some(found);
    }
}

impl Driver {
    /// Gives the node a command, but for the one about events, which are kept here.
    pub(super) fn obey(&mut self, now: Instant, id: CommandId, command: Command) {
        match command {
            Command::Events { after } => self.feed.ask(now, id, after),
            command => self.node.handle_command(now, id, command),
        }
    }

    /// Looks for events in the node's state when a client watches, and answers the clients for which there are events.
    pub(super) fn tell_events(&mut self, now: Instant) {
        if self.feed.next_look(now).is_some_and(|at| at <= now) {
            self.node.handle_command(now, LOOK, Command::Status);
            self.carry_out(now);
        }
        for (command, reply) in self.feed.answers() {
            self.respond(now, command, Response::Done(reply));
        }
    }

    /// Takes a response to the one that gave the command.
    pub(super) fn respond(&mut self, now: Instant, command: CommandId, response: Response) {
        match (response, &mut self.http) {
            (Response::Done(Reply::Status(status)), _) if command == LOOK => {
                let members = self.node.membership().members();
                let members =
                    members.map(|member| (member.contact.id, member.contact.addr, member.liveness.into()));
                self.feed.look(now, &status, members);
            }
            (response, _) if Embedded::is_own(command) => self.embedded.respond(command, response),
            (response, Some(http)) if Http::is_own(command) => http.respond(now, command, &response),
            (response, _) => self.control.respond(now, command, response),
        }
    }
}

/// Whether a member counts as present.
fn is_there(state: MemberState) -> bool {
    matches!(state, MemberState::Live | MemberState::Suspect)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Key;
    use crate::node::command::Trouble;

    const CLIENT: CommandId = CommandId(7);

    fn removed(number: u64) -> Event {
        let mut hash = Key([0; 32]);
        hash.0[..8].copy_from_slice(&number.to_le_bytes());
        Event::Removed { hash }
    }

    fn numbers(reply: &Reply) -> (Vec<u64>, u64) {
        let Reply::Events { events, missed } = reply else { panic!("{reply:?}") };
        (events.iter().map(|event| event.number).collect(), *missed)
    }

    fn ask(feed: &mut Feed, after: Option<u64>) -> Option<(Vec<u64>, u64)> {
        feed.ask(Instant::ZERO, CLIENT, after);
        feed.answers().first().map(|(_, reply)| numbers(reply))
    }

    #[test]
    fn a_client_gets_the_events_after_the_last_that_it_knows_and_waits_for_the_next() {
        let mut feed = Feed::new();
        (1..=3).for_each(|number| feed.add(removed(number)));
        assert_eq!(ask(&mut feed, Some(1)), Some((vec![2, 3], 0)));
        assert_eq!(ask(&mut feed, Some(3)), None);
        feed.add(removed(4));
        assert_eq!(
            feed.answers().iter().map(|(_, reply)| numbers(reply)).collect::<Vec<_>>(),
            [(vec![4], 0)]
        );
        assert!(feed.answers().is_empty(), "one answer to one question");
        assert_eq!(ask(&mut feed, None), None);
        assert!(feed.cancel(CLIENT) && !feed.cancel(CLIENT));
        feed.add(removed(5));
        assert!(feed.answers().is_empty());
    }

    #[test]
    fn a_client_that_is_slow_learns_how_many_events_it_missed() {
        let mut feed = Feed::new();
        let all = KEPT_MAX as u64 + 10;
        (1..=all).for_each(|number| feed.add(removed(number)));
        assert_eq!(feed.kept.len(), KEPT_MAX);
        let (events, missed) = ask(&mut feed, Some(3)).unwrap();
        assert_eq!((events.len(), events[0], missed), (ANSWERED_MAX, 11, 7));
        // The number of the last run of the node says nothing of this one.
        let (events, _) = ask(&mut feed, Some(all + 1)).unwrap();
        assert_eq!(events[0], 11);
    }

    #[test]
    fn alarms_members_and_losses_are_events_when_they_change() {
        let (mut feed, start) = (Feed::new(), Instant::ZERO);
        let address: SocketAddr = "192.0.2.7:1".parse().unwrap();
        let (a, b) = (NodeId([1; 32]), NodeId([2; 32]));
        let message = "its disk is full".to_owned();
        let kind = TroubleKind::DiskFull;
        let full = |seconds| vec![Trouble { kind, seconds, message: message.clone() }];
        let mut look = |troubles, members: &[(NodeId, MemberState)], rotten| {
            let counters = [("pieces_rotten".to_owned(), rotten)].into_iter().collect();
            let status = Status { troubles, counters, ..Status::default() };
            feed.look(start, &status, members.iter().map(|&(id, state)| (id, address, state)));
            std::mem::take(&mut feed.kept).into_iter().map(|event| event.event).collect::<Vec<_>>()
        };
        let live = MemberState::Live;
        let first = look(full(5), &[(a, live), (b, MemberState::Unproven)], 1);
        assert_eq!(first, [Event::Alarm { kind, message: message.clone() }], "who was there is no news");
        assert_eq!(
            look(full(9), &[(a, MemberState::Suspect), (b, live)], 1),
            [Event::Joined { id: b, address }]
        );
        let state = MemberState::Unresponsive;
        let events = look(vec![], &[(a, state), (b, live)], 3);
        let departed = Event::Departed { id: a, address, state };
        assert_eq!(events, [Event::AlarmOver { kind }, departed, Event::Lost { pieces: 2 }]);
        assert_eq!(look(vec![], &[(a, MemberState::Evicted), (b, live)], 3), []);
        assert_eq!(look(vec![], &[(a, live)], 3), [Event::Joined { id: a, address }]);
    }

    #[test]
    fn a_node_that_no_client_watches_is_not_looked_at() {
        let mut feed = Feed::new();
        assert_eq!(feed.next_look(Instant::ZERO), None);
        feed.ask(Instant::ZERO, CLIENT, None);
        let later = Instant::ZERO + WATCHED_FOR;
        assert_eq!(feed.next_look(later), Some(Instant::ZERO + LOOK_EVERY), "it waits");
        feed.cancel(CLIENT);
        assert_eq!(feed.next_look(later), None);
    }
}
