//! Taking connections from a listener, also when descriptors run out.
//!
//! epoll tells once that connections wait. When accept(2) then fails because the process or the system has no descriptor or
//! memory left, they still wait, and nothing tells again: a timer has to. One descriptor is kept in reserve: with it the
//! connections that wait are taken and turned away, so that the other ends learn of it instead of waiting for nothing.

use crate::time::{Duration, Instant};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, ErrorKind};

/// The first pause after descriptors ran out. Each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What there is to accept.
#[derive(Debug)]
pub(super) enum Accepted<T> {
    /// A connection.
    New(T),
    /// A connection for which there is no room: to be told so, if it can be told at once, and closed.
    Surplus(T),
    /// None now.
    None,
}

/// The readiness of one listener.
#[derive(Debug)]
pub(super) struct Acceptor {
    ready: bool,
    /// Descriptors ran out: when to try again.
    retry_at: Option<Instant>,
    pause: Duration,
    /// Whether the last attempt met a shortage: it is said once.
    short: bool,
    /// Connections that were turned away so far.
    turned_away: u64,
    /// A descriptor to turn connections away with.
    reserve: Option<File>,
}

impl Acceptor {
    /// The readiness of a listener of which nothing is known yet.
    pub(super) fn new() -> Self {
        Acceptor {
            ready: true,
            retry_at: None,
            pause: PAUSE_MIN,
            short: false,
            turned_away: 0,
            reserve: spare(),
        }
    }

    /// The poll said that connections wait.
    pub(super) fn note_ready(&mut self) {
        self.ready = true;
    }

    /// Whether [`accept`](Acceptor::accept) has something to do now.
    pub(super) fn is_ready(&self) -> bool {
        self.ready && self.retry_at.is_none()
    }

    /// When it is to be tried again after descriptors ran out.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.retry_at
    }

    /// How many connections were turned away so far.
    pub(super) fn turned_away(&self) -> u64 {
        self.turned_away
    }

    /// The next connection, by `accept`. A caller that is at its budget just comes again: it stays ready.
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
            // The one that was turned away last has been closed by now.
            self.reserve = spare();
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
            // This connection is gone already, or the network was for a moment. The next may fare better, but not in this turn:
            // whatever it is, it must not make the loop spin.
            log::debug!("accepting {what}: {error}");
            self.retry_at = Some(now + PAUSE_MIN);
            return Accepted::None;
        }
        if !core::mem::replace(&mut self.short, true) {
            log::warn!("accepting {what}: {error}; connections are turned away until there is room");
        }
        // The reserve is given up for the one that waits first.
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

/// Whether it was not for want of a connection, but of a descriptor or of memory for one.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

fn spare() -> Option<File> {
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
    fn the_reserve_turns_connections_away_and_comes_back() {
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
    fn a_connection_that_is_gone_ends_neither_accepting_nor_the_turn() {
        for errno in [Errno::CONNABORTED, Errno::PERM, Errno::PROTO, Errno::NETDOWN] {
            let mut acceptor = Acceptor::new();
            assert!(matches!(acceptor.accept(at(0), "x", failing(errno)), Accepted::None));
            assert!(!acceptor.is_ready());
            let later = acceptor.next_deadline().unwrap();
            assert!(matches!(acceptor.accept(later, "x", || Ok(1)), Accepted::New(1)));
        }
    }
}
