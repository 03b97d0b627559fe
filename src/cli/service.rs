//! What the node tells the service manager that started it: sd_notify(3) of systemd, which others speak too.
//!
//! A message is a datagram of lines `NAME=value` to the socket that `NOTIFY_SOCKET` names. The crates for it know no abstract
//! sockets, or block on a manager that has stopped reading, which the loop must not: so the socket here never blocks. Lines that
//! cannot leave wait for the next turn, the last of each name.

use crate::config::Environment;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// The time between two looks at the node's state, and so between two lines about it.
const STATUS_EVERY: Duration = Duration::from_secs(5);
/// The time after which lines are sent again that did not leave.
const RETRY: Duration = Duration::from_millis(250);
/// The longest line about the node's state, in bytes.
const STATUS_BYTES_MAX: usize = 512;

/// The connection to the service manager. Without one every call does nothing.
pub(super) struct Service {
    manager: Option<UnixDatagram>,
    /// The time between two signs of life: half of what the manager waits. `None` when it does not wait for any.
    alive_every: Option<Duration>,
    alive_at: Instant,
    /// When the node's state was last looked at.
    looked_at: Option<Instant>,
    /// The last line about the node's state.
    status: String,
    /// The lines that have not left.
    unsent: BTreeMap<&'static str, String>,
}

impl Service {
    /// The manager that the environment names, for the process with this id.
    pub(super) fn of(environment: Environment<'_>, process: u32, now: Instant) -> Self {
        let manager = environment("NOTIFY_SOCKET").filter(|name| !name.is_empty()).and_then(|name| {
            connect(&name)
                .inspect_err(|error| {
                    log::warn!(
                        "the service manager's socket {} cannot be used: {error}; it is told nothing",
                        name.to_string_lossy()
                    );
                })
                .ok()
        });
        let number = |name: &str| environment(name)?.to_str()?.parse::<u64>().ok();
        let for_another = number("WATCHDOG_PID").is_some_and(|id| id != u64::from(process));
        let waits = number("WATCHDOG_USEC").filter(|&micros| micros > 0 && !for_another && manager.is_some());
        Service {
            manager,
            alive_every: waits.map(|micros| Duration::from_micros(micros / 2)),
            alive_at: now,
            looked_at: None,
            status: String::new(),
            unsent: BTreeMap::new(),
        }
    }

    /// The node works: its directory is recovered and its sockets are bound.
    pub(super) fn ready(&mut self) {
        self.unsent.remove("RELOADING");
        self.unsent.remove("MONOTONIC_USEC");
        self.say("READY", "1");
    }

    /// The node reads its configuration again. [`ready`](Service::ready) ends it.
    pub(super) fn reloading(&mut self) {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = time.tv_sec as u64 * 1_000_000 + time.tv_nsec as u64 / 1000;
        self.unsent.remove("READY");
        // Systemd from 253 on wants the time in the same message.
        self.unsent.insert("MONOTONIC_USEC", micros.to_string());
        self.say("RELOADING", "1");
    }

    /// The node is stopping.
    pub(super) fn stopping(&mut self) {
        self.say("STOPPING", "1");
    }

    /// A turn of the loop has ended: sends the sign of life that is due, and what has not left.
    pub(super) fn turned(&mut self, now: Instant) {
        let Some(every) = self.alive_every.filter(|&every| now.duration_since(self.alive_at) >= every) else {
            return self.flush();
        };
        self.alive_at = now;
        log::trace!("sign of life to the service manager, one every {every:?}");
        self.say("WATCHDOG", "1");
    }

    /// Whether the manager should hear the node's state again. A `true` counts as a look.
    pub(super) fn wants_status(&mut self, now: Instant) -> bool {
        let due = self.looked_at.is_none_or(|at| now.duration_since(at) >= STATUS_EVERY);
        if self.manager.is_none() || !due {
            return false;
        }
        self.looked_at = Some(now);
        true
    }

    /// Tells the node's state in one line, if it has changed.
    pub(super) fn status(&mut self, line: &str) {
        let line: String = line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let end = (0..=STATUS_BYTES_MAX.min(line.len())).rev().find(|&end| line.is_char_boundary(end));
        let line = &line[..end.unwrap_or(0)];
        if self.status != line {
            line.clone_into(&mut self.status);
            self.say("STATUS", line);
        }
    }

    /// How long a turn may wait until something is due here.
    pub(super) fn time_left(&self, now: Instant) -> Option<Duration> {
        self.manager.as_ref()?;
        let left = |at: Instant, every: Duration| (at + every).saturating_duration_since(now);
        [
            self.alive_every.map(|every| left(self.alive_at, every)),
            Some(self.looked_at.map_or(Duration::ZERO, |at| left(at, STATUS_EVERY))),
            (!self.unsent.is_empty()).then_some(RETRY),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn say(&mut self, name: &'static str, value: &str) {
        if self.manager.is_some() {
            self.unsent.insert(name, value.to_owned());
            self.flush();
        }
    }

    fn flush(&mut self) {
        let Some(manager) = self.manager.as_ref().filter(|_| !self.unsent.is_empty()) else { return };
        let lines: Vec<String> =
            self.unsent.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        match manager.send(lines.concat().as_bytes()) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => {
                log::warn!("the service manager cannot be told {}: {error}", lines.concat().trim_end());
                self.unsent.clear();
            }
            Ok(_) => self.unsent.clear(),
        }
    }
}

/// A socket to a manager: a path, or the name of an abstract socket after an `@`.
fn connect(name: &OsStr) -> io::Result<UnixDatagram> {
    let address = match name.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => return Err(io::Error::other("it is neither a path nor the name of an abstract socket")),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.connect_addr(&address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::Scratch;
    use std::ffi::OsString;

    /// A manager at this address and a service that tells it, with a watchdog of 20 s.
    fn managed(name: &OsStr, socket: UnixDatagram, pid: &str) -> (Service, UnixDatagram, Instant) {
        socket.set_nonblocking(true).unwrap();
        let now = Instant::now();
        let environment = |variable: &str| match variable {
            "NOTIFY_SOCKET" => Some(name.to_owned()),
            "WATCHDOG_USEC" => Some(OsString::from("20000000")),
            "WATCHDOG_PID" => Some(OsString::from(pid)),
            _ => None,
        };
        (Service::of(&environment, 7, now), socket, now)
    }

    fn at_path(pid: &str) -> (Scratch, Service, UnixDatagram, Instant) {
        let scratch = Scratch::new();
        let path = scratch.path().join("notify");
        let (service, socket, now) = managed(path.as_os_str(), UnixDatagram::bind(&path).unwrap(), pid);
        (scratch, service, socket, now)
    }

    /// The messages since the last call.
    fn heard(socket: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 4096];
        let next = || {
            socket
                .recv(&mut buffer)
                .ok()
                .map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned())
        };
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn the_manager_hears_that_the_node_is_ready_and_that_it_stops() {
        let (_scratch, mut service, socket, _) = at_path("7");
        service.ready();
        assert_eq!(heard(&socket), ["READY=1\n"]);
        service.stopping();
        assert_eq!(heard(&socket), ["STOPPING=1\n"]);
    }

    #[test]
    fn an_abstract_socket_is_reached_too() {
        let name = format!("elver-test/{}", std::process::id());
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let (mut service, socket, _) = managed(OsStr::new(&format!("@{name}")), socket, "7");
        service.ready();
        assert_eq!(heard(&socket), ["READY=1\n"]);
    }

    #[test]
    fn signs_of_life_come_twice_in_the_time_of_the_watchdog_and_only_from_turns() {
        let (_scratch, mut service, socket, start) = at_path("7");
        assert!(service.wants_status(start));
        assert_eq!(service.time_left(start + Duration::from_secs(4)), Some(Duration::from_secs(1)));
        for (seconds, signs) in [(9, 0), (10, 1), (19, 0), (20, 1), (100, 1), (101, 0)] {
            service.turned(start + Duration::from_secs(seconds));
            assert_eq!(heard(&socket).len(), signs, "after {seconds} s");
        }
        let now = start + Duration::from_secs(109);
        assert!(service.wants_status(now));
        assert_eq!(service.time_left(now), Some(Duration::from_secs(1)));
    }

    #[test]
    fn a_watchdog_of_another_process_is_left_alone() {
        let (_scratch, mut service, socket, start) = at_path("8");
        service.turned(start + Duration::from_secs(60));
        assert_eq!(heard(&socket), Vec::<String>::new());
    }

    #[test]
    fn the_state_is_told_when_it_changes_on_one_line_and_looked_at_every_5_s() {
        let (_scratch, mut service, socket, start) = at_path("7");
        assert!(service.wants_status(start) && !service.wants_status(start + Duration::from_secs(4)));
        assert!(service.wants_status(start + Duration::from_secs(5)));
        service.status("well\nREADY=0");
        service.status("well\nREADY=0");
        assert_eq!(heard(&socket), ["STATUS=well READY=0\n"]);
        service.status(&"ä".repeat(1000));
        assert_eq!(heard(&socket), [format!("STATUS={}\n", "ä".repeat(STATUS_BYTES_MAX / 2))]);
    }

    #[test]
    fn a_manager_that_does_not_read_blocks_nothing_and_hears_the_last_of_each_line() {
        let (_scratch, mut service, socket, start) = at_path("7");
        for number in 0..10_000 {
            service.status(&format!("state {number}"));
        }
        service.ready();
        assert_eq!(service.unsent.len(), 2, "no more than a line of each name waits");
        assert_eq!(service.time_left(start), Some(Duration::ZERO));
        assert!(service.wants_status(start));
        assert_eq!(service.time_left(start), Some(RETRY));
        assert!(!heard(&socket).is_empty());
        service.turned(start);
        assert_eq!(heard(&socket), ["READY=1\nSTATUS=state 9999\n"]);
    }

    #[test]
    fn a_reload_is_told_with_its_time_and_ends_with_ready() {
        let (_scratch, mut service, socket, _) = at_path("7");
        service.reloading();
        service.ready();
        let heard = heard(&socket);
        assert_eq!(heard.len(), 2);
        assert!(
            heard[0].starts_with("MONOTONIC_USEC=") && heard[0].ends_with("\nRELOADING=1\n"),
            "{heard:?}"
        );
        assert_eq!(heard[1], "READY=1\n");
    }

    #[test]
    fn without_a_manager_nothing_is_due() {
        let now = Instant::now();
        let mut service = Service::of(&|_| None, 7, now);
        service.ready();
        service.turned(now + Duration::from_secs(60));
        assert!(!service.wants_status(now));
        assert_eq!(service.time_left(now), None);
    }
}
