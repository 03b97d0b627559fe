//! Accepts connections from a listener, also when descriptors run out.
//!
//! epoll reports once that connections wait. When accept(2) then fails because the process or the system has no descriptor or
//! memory left, the connections still wait and epoll stays silent, so a timer tries again. One descriptor is kept in reserve:
//! with it the acceptor takes waiting connections and closes them, so that the other ends learn of the shortage at once.

use crate::time::{Duration, Instant};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, ErrorKind};

/// The first pause after descriptors ran out. Each further pause is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The pause before content or a dial is tried again when descriptors have run out.
pub(super) const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);
/// The longest wait of content for a descriptor: after that it fails.
pub(super) const SHORTAGE_MAX: Duration = Duration::from_secs(10);

/// The result of one attempt to accept.
#[derive(Debug)]
pub(super) enum Accepted<T> {
    /// A connection.
    New(T),
    /// A connection for which there is no room. The caller sends a refusal if the socket takes one at once, and closes it.
    Surplus(T),
    /// No connection now.
    None,
}

/// The readiness of one listener.
#[derive(Debug)]
pub(super) struct Acceptor {
    ready: bool,
    /// When to try again after a failure.
    retry_at: Option<Instant>,
    pause: Duration,
    /// Whether the last attempt met a shortage, which is logged once.
    short: bool,
    /// The number of connections turned away so far.
    turned_away: u64,
    /// The descriptor that is given up to take a connection and close it.
    reserve: Option<File>,
}

impl Acceptor {
    /// A new listener counts as ready until accept(2) returns `WouldBlock`.
    pub(super) fn new() -> Self {
        Acceptor {
            ready: true,
            retry_at: None,
            pause: PAUSE_MIN,
            short: false,
            turned_away: 0,
            reserve: open_reserve(),
        }
    }

    /// Notes that connections wait, as the poll reported.
    pub(super) fn note_ready(&mut self) {
        self.ready = true;
    }

    /// Whether [`accept`](Acceptor::accept) has something to do now.
    pub(super) fn is_ready(&self) -> bool {
        self.ready && self.retry_at.is_none()
    }

    /// When to try again after a failure.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.retry_at
    }

    /// The number of connections turned away so far.
    pub(super) fn turned_away(&self) -> u64 {
        self.turned_away
    }

    /// Takes the next connection with `accept`; `what` names it in the log. The listener stays ready until it is drained, so a
    /// caller may stop at its budget.
    pub(super) fn accept<T>(
        &mut self,
        now: Instant,
        what: &str,
        mut accept: impl FnMut() -> io::Result<T>,
    ) -> Accepted<T> {
        if self.retry_at.is_some_and(|at| now < at) || !self.ready {
            return Accepted::None;
        }
        self.retry_at = None;
        if self.reserve.is_none() {
            // The caller has closed the surplus connection, so its descriptor is free again.
            self.reserve = open_reserve();
        }
        let error = match accept() {
            Ok(connection) => {
                (self.pause, self.short) = (PAUSE_MIN, false);
                return Accepted::New(connection);
            }
            Err(error) => error,
        };
        if error.kind() == ErrorKind::WouldBlock {
            self.ready = false;
            return Accepted::None;
        }
        if !is_shortage(&error) {
            // The connection was aborted, or the network failed for a moment. A later attempt may succeed. An immediate one
            // could make the loop spin.
            log::debug!("accepting {what}: {error}");
            self.retry_at = Some(now + PAUSE_MIN);
            return Accepted::None;
        }
        if !core::mem::replace(&mut self.short, true) {
            log::warn!(
                "accepting {what}: {error}; new connections are turned away until descriptors are free"
            );
        }
        // The first waiting connection gets the reserve's descriptor.
        let turned_away = self.reserve.take().and_then(|reserve| {
            drop(reserve);
            accept().ok()
        });
        match turned_away {
            Some(connection) => {
                self.turned_away += 1;
                Accepted::Surplus(connection)
            }
            None => {
                self.retry_at = Some(now + self.pause);
                self.pause = (self.pause * 2).min(PAUSE_MAX);
                Accepted::None
            }
        }
    }
}

/// Whether the system lacked a descriptor, or memory, for the connection.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

fn open_reserve() -> Option<File> {
    File::open("/dev/null").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    fn failing(errno: Errno) -> impl FnMut() -> io::Result<u32> {
        move || Err(errno.into())
    }

    #[test]
    fn a_listener_that_met_a_shortage_is_tried_again_by_a_timer() {
        let mut acceptor = Acceptor::new();
        acceptor.reserve = None;
        let mut now = at(0);
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let mut calls = 0;
            let full = acceptor.accept(now, "a connection", || -> io::Result<u32> {
                calls += 1;
                Err(Errno::NFILE.into())
            });
            assert!(matches!(full, Accepted::None) && calls > 0);
            assert!(!acceptor.is_ready(), "nothing is to be done before the timer");
            let until = acceptor.next_deadline().unwrap();
            pauses.push(until.since(now).as_millis());
            assert!(matches!(acceptor.accept(now, "x", failing(Errno::IO)), Accepted::None));
            now = until;
        }
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000]);
        assert!(matches!(acceptor.accept(now, "x", || Ok(7)), Accepted::New(7)));
        assert!(acceptor.is_ready() && acceptor.next_deadline().is_none(), "there may be more");
        assert!(matches!(acceptor.accept(now, "x", failing(Errno::AGAIN)), Accepted::None));
        assert!(!acceptor.is_ready(), "the poll tells of the next");
    }

    #[test]
    fn the_reserve_descriptor_turns_connections_away_and_is_reopened() {
        let mut acceptor = Acceptor::new();
        for _ in 0..3 {
            let mut calls = 0;
            let turned_away = acceptor.accept(at(1), "x", || {
                calls += 1;
                if calls == 1 { Err(Errno::MFILE.into()) } else { Ok(calls) }
            });
            assert!(matches!(turned_away, Accepted::Surplus(2)));
            assert!(acceptor.reserve.is_none() && acceptor.is_ready());
        }
        assert!(matches!(acceptor.accept(at(1), "x", failing(Errno::AGAIN)), Accepted::None));
        assert!(acceptor.reserve.is_some());
    }

    #[test]
    fn an_aborted_connection_stops_accepting_only_until_the_timer() {
        for errno in [Errno::CONNABORTED, Errno::PERM, Errno::PROTO, Errno::NETDOWN] {
            let mut acceptor = Acceptor::new();
            assert!(matches!(acceptor.accept(at(0), "x", failing(errno)), Accepted::None));
            assert!(!acceptor.is_ready());
            let later = acceptor.next_deadline().unwrap();
            assert!(matches!(acceptor.accept(later, "x", || Ok(1)), Accepted::New(1)));
        }
    }
}
