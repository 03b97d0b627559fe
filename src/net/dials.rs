//! Dials: opening connections, also when descriptors run out.
//!
//! A shortage of descriptors is this node's own, so a dial that meets one waits and is repeated: the peer must not count as
//! unreachable. After its deadline it fails like any other.

use super::acceptor::{SHORTAGE_PAUSE, is_shortage};
use crate::io::DialId;
use crate::time::Instant;
use core::net::SocketAddr;
use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::VecDeque;
use std::io;

/// A dial that has not begun.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Dial {
    pub(super) id: DialId,
    pub(super) to: SocketAddr,
    pub(super) until: Instant,
}

/// The dials that wait for a descriptor. The core bounds the number of its dials.
pub(super) struct Dials {
    /// The source address of dials: the address that the node listens on, so that peers see that address.
    local: SocketAddr,
    /// Each with the time of the next attempt, the earliest first.
    waiting: VecDeque<(Instant, Dial)>,
}

impl Dials {
    pub(super) fn new(local: SocketAddr) -> Self {
        Dials { local, waiting: VecDeque::new() }
    }

    /// Begins to connect. The socket is not connected yet.
    pub(super) fn open(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let to = match (self.local, to) {
            (SocketAddr::V6(_), SocketAddr::V4(v4)) => {
                SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port())
            }
            _ => to,
        };
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        if !self.local.ip().is_unspecified() {
            let mut local = self.local;
            local.set_port(0);
            socket.bind(&local.into())?;
        }
        match socket.connect(&to.into()) {
            Err(error) if error.raw_os_error() != Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                Err(error)
            }
            _ => Ok(TcpStream::from_std(socket.into())),
        }
    }

    /// A dial could not begin. True when it is repeated later, false when it has failed.
    pub(super) fn put_off(&mut self, now: Instant, dial: Dial, error: &io::Error) -> bool {
        let repeats = is_shortage(error) && now < dial.until;
        if repeats {
            self.waiting.push_back((now + SHORTAGE_PAUSE, dial));
        }
        repeats
    }

    /// When to repeat the next dial.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        self.waiting.front().map(|(at, _)| *at)
    }

    /// Takes the next dial that is to be repeated by now.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Dial> {
        self.next_retry().filter(|at| *at <= now)?;
        self.waiting.pop_front().map(|(_, dial)| dial)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;
    use rustix::io::Errno;
    use std::net::TcpListener;

    const NOW: Instant = Instant::from_secs(100);

    fn dial(number: u64) -> Dial {
        let to = SocketAddr::from(([127, 0, 0, 1], 9));
        Dial { id: DialId(number), to, until: NOW + Duration::from_secs(5) }
    }

    fn dials() -> Dials {
        Dials::new(SocketAddr::from(([127, 0, 0, 1], 3583)))
    }

    #[test]
    fn a_dial_that_found_no_descriptor_is_repeated_by_a_timer() {
        let mut dials = dials();
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM] {
            assert!(dials.put_off(NOW, dial(1), &errno.into()));
            let due = dials.next_retry().unwrap();
            assert!(due > NOW, "an immediate attempt would make the loop spin");
            assert_eq!(dials.take_due(NOW), None);
            assert_eq!(dials.take_due(due), Some(dial(1)));
            assert_eq!(dials.next_retry(), None);
        }
    }

    #[test]
    fn dials_are_repeated_in_their_order() {
        let mut dials = dials();
        assert!(dials.put_off(NOW, dial(1), &Errno::MFILE.into()));
        let later = NOW + Duration::from_millis(1);
        assert!(dials.put_off(later, dial(2), &Errno::MFILE.into()));
        let due = dials.next_retry().unwrap();
        assert_eq!(dials.take_due(due), Some(dial(1)));
        assert_eq!(dials.take_due(due), None, "the second has waited less");
        assert_eq!(dials.take_due(later + SHORTAGE_PAUSE), Some(dial(2)));
    }

    #[test]
    fn a_shortage_that_lasts_until_the_deadline_fails_the_dial() {
        let mut dials = dials();
        assert!(!dials.put_off(dial(1).until, dial(1), &Errno::MFILE.into()));
        assert_eq!(dials.next_retry(), None);
    }

    #[test]
    fn a_peer_that_refuses_or_cannot_be_reached_fails_the_dial_at_once() {
        let mut dials = dials();
        for errno in [Errno::CONNREFUSED, Errno::NETUNREACH, Errno::HOSTUNREACH] {
            assert!(!dials.put_off(NOW, dial(1), &errno.into()));
        }
    }

    #[test]
    fn a_dial_comes_from_the_address_that_the_node_listens_on() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dials = Dials::new(SocketAddr::from(([127, 0, 0, 2], 3583)));
        let _socket = dials.open(listener.local_addr().unwrap()).unwrap();
        let (_, from) = listener.accept().unwrap();
        assert_eq!(from.ip(), core::net::Ipv4Addr::new(127, 0, 0, 2));
    }

    #[test]
    fn a_node_that_listens_on_every_address_dials_with_whatever_address_leads_to_the_peer() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let dials = Dials::new(SocketAddr::from(([0, 0, 0, 0], 3583)));
        let _socket = dials.open(listener.local_addr().unwrap()).unwrap();
        assert!(listener.accept().unwrap().1.ip().is_loopback());
    }
}
