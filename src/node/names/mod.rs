//! Names of bootstrap nodes: when they are resolved, and what they resolved to.
//!
//! The node asks its driver to resolve a name ([`Output::Resolve`]), and the driver hands the addresses back. A name is resolved at
//! the start, again after each round of bootstrapping without an answer, and once an hour, because a machine may have moved. The
//! pauses between two resolutions grow.

mod host;

pub use host::{BootstrapNode, DEFAULT_PORT, HostName, InvalidHost};

use super::Output;
use super::command::BootstrapName;
use super::machines::Machines;
use crate::time::{Duration, Instant, earliest};
use crate::wire::contact::canonical;
use core::net::SocketAddr;

/// Addresses of one name that are used; further ones are left out. Answers come from outside, so they have a bound.
pub const ADDRESSES_PER_NAME_MAX: usize = 16;

/// The pause after the first resolution that led to no answer. Each further pause is twice as long.
const PAUSE_MIN: Duration = Duration::from_secs(2);
/// The longest pause while no bootstrap node answers.
const PAUSE_MAX: Duration = Duration::from_secs(300);
/// The time after which a name is resolved again while the node has contacts.
const REFRESH: Duration = Duration::from_secs(3600);
/// The time for which commands wait for the first resolutions, as they wait for the first answers.
const FIRST_WAIT: Duration = Duration::from_secs(5);

/// The names of the bootstrap nodes.
pub(super) struct Names {
    names: Vec<Name>,
    /// Addresses that need no resolution.
    fixed: Vec<SocketAddr>,
    /// Until when the first resolutions are waited for; `None` when they have ended.
    first_until: Option<Instant>,
}

/// One name.
struct Name {
    host: HostName,
    /// When it is resolved next; `None` while the driver resolves it.
    due: Option<Instant>,
    pause: Duration,
    addresses: Vec<SocketAddr>,
    /// Addresses of the last answer that were left out.
    left_out: usize,
    /// The reason why the last resolution failed.
    error: Option<String>,
    resolved_at: Option<Instant>,
}

impl Names {
    /// These names, none of which is resolved yet. `fixed` are bootstrap addresses that need no resolution.
    pub(super) fn new(now: Instant, names: &[HostName], fixed: Vec<SocketAddr>) -> Self {
        let name = |host: &HostName| Name {
            host: host.clone(),
            due: Some(now),
            pause: PAUSE_MIN,
            addresses: Vec::new(),
            left_out: 0,
            error: None,
            resolved_at: None,
        };
        let mut distinct: Vec<Name> = Vec::new();
        for host in names {
            if distinct.iter().all(|known| known.host != *host) {
                distinct.push(name(host));
            }
        }
        let first_until = (!distinct.is_empty()).then_some(now + FIRST_WAIT);
        Names { names: distinct, fixed, first_until }
    }

    // Getters.

    /// Whether a first resolution is under way, so that the node may still join.
    pub(super) fn are_awaited(&self) -> bool {
        self.first_until.is_some()
    }

    /// The names, for `status`.
    pub(super) fn status(&self, now: Instant) -> Vec<BootstrapName> {
        let shown = |name: &Name| BootstrapName {
            name: name.host.to_string(),
            addresses: name.addresses.clone(),
            left_out: name.left_out as u32,
            error: name.error.clone(),
            seconds: name.resolved_at.map(|at| now.since(at).as_secs()),
        };
        self.names.iter().map(shown).collect()
    }

    /// When [`handle_timeout`](Names::handle_timeout) is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.names.iter().map(|name| name.due).fold(self.first_until, earliest)
    }

    // Inputs.

    /// Asks for the resolution of each name that is due.
    pub(super) fn handle_timeout(&mut self, now: Instant, machines: &mut Machines) {
        self.first_until = self.first_until.filter(|until| now < *until);
        for name in &mut self.names {
            if name.due.is_some_and(|due| due <= now) {
                name.due = None;
                machines.outputs.push_back(Output::Resolve { name: name.host.clone() });
            }
        }
    }

    /// The driver resolved a name, or failed to. The DHT learns the addresses.
    pub(super) fn handle_resolved(
        &mut self,
        now: Instant,
        host: &HostName,
        result: Result<Vec<SocketAddr>, String>,
        machines: &mut Machines,
    ) {
        let Some(name) = self.names.iter_mut().find(|name| name.host == *host && name.due.is_none()) else {
            return;
        };
        name.take(now, result);
        if self.names.iter().all(|name| name.error.is_some() || name.resolved_at.is_some()) {
            self.first_until = None;
        }
        let resolved = self.names.iter().flat_map(|name| &name.addresses);
        let addresses = self.fixed.iter().chain(resolved).copied();
        machines.dht.set_bootstrap(now, addresses);
    }

    /// No bootstrap node answered: what the names resolved to may be out of date.
    pub(super) fn note_unanswered(&mut self, now: Instant) {
        for name in &mut self.names {
            let soon = now + name.pause;
            if name.due.is_some_and(|due| soon < due) {
                name.due = Some(soon);
                name.lengthen();
            }
        }
    }

    /// The addresses of this machine changed: names that led nowhere may lead somewhere now. `lonely`: no other node is known.
    pub(super) fn hurry(&mut self, now: Instant, lonely: bool) {
        for name in self.names.iter_mut().filter(|name| lonely || name.error.is_some()) {
            name.pause = PAUSE_MIN;
            name.due = name.due.map(|due| due.min(now));
        }
    }

    /// The node has joined.
    pub(super) fn note_joined(&mut self) {
        self.names.iter_mut().for_each(|name| name.pause = PAUSE_MIN);
    }
}

impl Name {
    /// Takes the result of a resolution.
    fn take(&mut self, now: Instant, result: Result<Vec<SocketAddr>, String>) {
        let found = result.and_then(|found| {
            let (addresses, left_out) = usable(found);
            if addresses.is_empty() {
                Err("it has no usable address".to_owned())
            } else {
                Ok((addresses, left_out))
            }
        });
        match found {
            Ok((addresses, left_out)) => {
                if addresses != self.addresses {
                    let words: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
                    log::info!("the bootstrap node {} is at {}", self.host, words.join(", "));
                }
                if left_out > 0 && left_out != self.left_out {
                    log::warn!(
                        "the bootstrap node {} has {} addresses: {left_out} of them are left out",
                        self.host,
                        addresses.len() + left_out
                    );
                }
                (self.addresses, self.left_out, self.error) = (addresses, left_out, None);
                (self.resolved_at, self.due) = (Some(now), Some(now + REFRESH));
            }
            // Addresses of an earlier answer stay: they are better than none.
            Err(reason) => {
                let seconds = self.pause.as_secs();
                log::warn!(
                    "the bootstrap name {} does not resolve: {reason}; trying again in {seconds} s",
                    self.host.name()
                );
                (self.error, self.due) = (Some(reason), Some(now + self.pause));
                self.lengthen();
            }
        }
    }

    fn lengthen(&mut self) {
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

/// The distinct addresses at which a node can be, up to [`ADDRESSES_PER_NAME_MAX`], and the number of those left out.
fn usable(found: Vec<SocketAddr>) -> (Vec<SocketAddr>, usize) {
    let mut addresses: Vec<SocketAddr> = Vec::new();
    let mut left_out = 0;
    for addr in found.into_iter().map(canonical) {
        let nowhere = addr.ip().is_unspecified() || addr.ip().is_multicast() || addr.port() == 0;
        if nowhere || addresses.contains(&addr) {
            continue;
        }
        match addresses.len() < ADDRESSES_PER_NAME_MAX {
            true => addresses.push(addr),
            false => left_out += 1,
        }
    }
    (addresses, left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Instant = Instant::from_secs(100);

    fn names(names: &[&str]) -> Names {
        let hosts: Vec<HostName> = names.iter().map(|name| name.parse().unwrap()).collect();
        Names::new(START, &hosts, vec![([10, 0, 0, 9], 9).into()])
    }

    fn addresses(count: u8) -> Vec<SocketAddr> {
        (1..=count).map(|last| ([10, 0, 1, last], 3583).into()).collect()
    }

    /// The names that the driver is asked to resolve at this time.
    fn asked(names: &mut Names, now: Instant, machines: &mut Machines) -> Vec<String> {
        names.handle_timeout(now, machines);
        let asked = machines.outputs.drain(..).map(|output| match output {
            Output::Resolve { name } => name.to_string(),
            other => panic!("{other:?}"),
        });
        asked.collect()
    }

    #[test]
    fn each_name_is_resolved_once_at_the_start_and_again_after_an_hour() {
        let (mut names, mut machines) =
            (names(&["a.example", "b.example:5", "A.example"]), Machines::alone(START));
        assert!(names.are_awaited());
        assert_eq!(names.next_deadline(), Some(START));
        assert_eq!(asked(&mut names, START, &mut machines), ["a.example:3583", "b.example:5"]);
        assert_eq!(asked(&mut names, START, &mut machines), [""; 0], "they are under way");
        for name in ["a.example", "b.example:5"] {
            names.handle_resolved(START, &name.parse().unwrap(), Ok(addresses(2)), &mut machines);
        }
        assert!(!names.are_awaited());
        assert_eq!(names.next_deadline(), Some(START + REFRESH));
        assert_eq!(asked(&mut names, START + REFRESH, &mut machines).len(), 2);
    }

    #[test]
    fn a_name_that_does_not_resolve_is_tried_again_with_growing_pauses() {
        let (mut names, mut machines) = (names(&["a.example"]), Machines::alone(START));
        let (host, mut now, mut pauses) = ("a.example".parse().unwrap(), START, Vec::new());
        for _ in 0..10 {
            assert_eq!(asked(&mut names, now, &mut machines).len(), 1);
            names.handle_resolved(now, &host, Err("no such name".into()), &mut machines);
            let next = names.next_deadline().unwrap();
            pauses.push(next.since(now).as_secs());
            now = next;
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(names.status(now)[0].error.as_deref(), Some("no such name"));
        names.handle_timeout(now, &mut machines);
        names.handle_resolved(now, &host, Ok(addresses(1)), &mut machines);
        assert_eq!(names.status(now)[0].error, None);
    }

    #[test]
    fn names_are_resolved_again_soon_when_no_node_answers_and_ever_more_rarely() {
        let (mut names, mut machines) = (names(&["a.example"]), Machines::alone(START));
        let (host, mut now, mut pauses) = ("a.example".parse().unwrap(), START, Vec::new());
        for _ in 0..4 {
            names.handle_timeout(now, &mut machines);
            names.handle_resolved(now, &host, Ok(addresses(1)), &mut machines);
            names.note_unanswered(now);
            names.note_unanswered(now);
            let next = names.next_deadline().unwrap();
            pauses.push(next.since(now).as_secs());
            now = next;
        }
        assert_eq!(pauses, [2, 4, 8, 16], "a second failed round changes nothing");
        names.handle_timeout(now, &mut machines);
        names.handle_resolved(now, &host, Ok(addresses(1)), &mut machines);
        names.note_joined();
        names.note_unanswered(now);
        assert_eq!(names.next_deadline(), Some(now + PAUSE_MIN));
    }

    #[test]
    fn a_name_with_hundreds_of_addresses_gives_a_bounded_number() {
        let (mut names, mut machines) = (names(&["a.example"]), Machines::alone(START));
        asked(&mut names, START, &mut machines);
        let mut found = addresses(200);
        found.extend([([0, 0, 0, 0], 3583).into(), ([224, 0, 0, 1], 3583).into(), found[0]]);
        names.handle_resolved(START, &"a.example".parse().unwrap(), Ok(found), &mut machines);
        let status = &names.status(START)[0];
        assert_eq!((status.addresses.len(), status.left_out), (ADDRESSES_PER_NAME_MAX, 184));
    }

    #[test]
    fn a_name_without_a_usable_address_is_an_error_and_keeps_earlier_addresses() {
        let (mut names, mut machines) = (names(&["a.example"]), Machines::alone(START));
        let host = "a.example".parse().unwrap();
        asked(&mut names, START, &mut machines);
        names.handle_resolved(START, &host, Ok(addresses(1)), &mut machines);
        let later = START + REFRESH;
        asked(&mut names, later, &mut machines);
        names.handle_resolved(later, &host, Ok(vec![([0, 0, 0, 0], 1).into()]), &mut machines);
        let status = &names.status(later)[0];
        assert_eq!(status.addresses, addresses(1));
        assert!(status.error.is_some());
    }

    #[test]
    fn an_answer_that_was_not_asked_for_changes_nothing() {
        let (mut names, mut machines) = (names(&["a.example"]), Machines::alone(START));
        names.handle_resolved(START, &"a.example".parse().unwrap(), Ok(addresses(1)), &mut machines);
        names.handle_resolved(START, &"other.example".parse().unwrap(), Ok(addresses(1)), &mut machines);
        assert_eq!(names.status(START)[0].addresses, []);
    }

    #[test]
    fn commands_wait_for_a_first_resolution_but_not_for_long() {
        let (mut names, mut machines) = (names(&["a.example"]), Machines::alone(START));
        asked(&mut names, START, &mut machines);
        assert_eq!(names.next_deadline(), Some(START + FIRST_WAIT));
        names.handle_timeout(START + FIRST_WAIT, &mut machines);
        assert!(!names.are_awaited());
        assert_eq!(names.next_deadline(), None, "the driver answers at some time");
    }
}
