//! The addresses of this machine, and when they change.
//!
//! rtnetlink(7) announces each change; then all addresses are read again. Nothing is done while nothing changes. Where the kernel or
//! a sandbox refuses the socket, the addresses are read every few seconds.

use crate::time::{Duration, Instant};
use core::net::{IpAddr, Ipv6Addr};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::socket::SockaddrStorage;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, netlink};
use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// The pause between the first announcement of a change and the look: a new address comes right after the old one has gone.
const SETTLE: Duration = Duration::from_millis(250);
/// The time between two looks without announcements.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Messages that are drained at a time. The socket reports when there are more.
const DRAINED_MAX: usize = 64;
/// The multicast groups of rtnetlink that announce addresses: RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR.
const GROUPS: u32 = 0x10 | 0x100;

/// The watch for changes.
pub(super) struct Addresses {
    /// `None` where the kernel announces nothing to this process.
    announcements: Option<OwnedFd>,
    look_at: Option<Instant>,
    known: BTreeSet<IpAddr>,
}

impl Addresses {
    /// Begins to watch. The first look is due at once.
    pub(super) fn watch(now: Instant, registry: &Registry, token: Token) -> Self {
        let announcements = match announcements(registry, token) {
            Ok(socket) => Some(socket),
            Err(error) => {
                log::debug!("changes of addresses are not announced ({error}): they are looked for");
                None
            }
        };
        Addresses { announcements, look_at: Some(now), known: BTreeSet::new() }
    }

    /// When [`look`](Addresses::look) is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.look_at
    }

    /// The kernel announced a change.
    pub(super) fn note_announced(&mut self, now: Instant) {
        self.look_at.get_or_insert(now + SETTLE);
    }

    /// Reads the addresses if that is due. Returns them if they have changed.
    pub(super) fn look(&mut self, now: Instant) -> Option<&BTreeSet<IpAddr>> {
        self.look_at.take_if(|at| *at <= now)?;
        match &self.announcements {
            Some(socket) => {
                // What is announced from now on concerns the time after this look.
                if !drain(socket) {
                    self.look_at = Some(now);
                }
            }
            None => self.look_at = Some(now + LOOK_EVERY),
        }
        let found = match read() {
            Ok(found) => found,
            Err(error) => {
                log::debug!("cannot read the addresses of this machine: {error}");
                return None;
            }
        };
        let changed = found != self.known;
        self.known = found;
        changed.then_some(&self.known)
    }
}

/// A socket on which the kernel announces changes of addresses.
fn announcements(registry: &Registry, token: Token) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    // NETLINK_ROUTE is protocol 0, the default.
    let socket = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    rustix::net::bind(&socket, &netlink::SocketAddrNetlink::new(0, GROUPS))?;
    registry.register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE)?;
    Ok(socket)
}

/// Takes the announcements. False when some may be left.
fn drain(socket: &OwnedFd) -> bool {
    let mut buffer = [0; 4096];
    for _ in 0..DRAINED_MAX {
        match rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty()) {
            Ok(_) => {}
            Err(rustix::io::Errno::AGAIN) => return true,
            // Announcements were lost, which is the same as any announcement; or the call was interrupted.
            Err(_) => {}
        }
    }
    false
}

/// All addresses of this machine.
fn read() -> io::Result<BTreeSet<IpAddr>> {
    let addresses = nix::ifaddrs::getifaddrs()?;
    Ok(addresses.filter_map(|interface| ip_of(interface.address.as_ref()?)).collect())
}

fn ip_of(address: &SockaddrStorage) -> Option<IpAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(v4.ip().into());
    }
    address.as_sockaddr_in6().map(|v6| Ipv6Addr::from(v6.ip().octets()).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};

    const NOW: Instant = Instant::from_secs(100);

    fn watching(poll: &Poll) -> Addresses {
        Addresses::watch(NOW, poll.registry(), Token(1))
    }

    #[test]
    fn the_first_look_finds_the_addresses_and_the_next_no_change() {
        let poll = Poll::new().unwrap();
        let mut addresses = watching(&poll);
        assert!(addresses.look(NOW).is_some_and(|found| found.contains(&IpAddr::from([127, 0, 0, 1]))));
        addresses.note_announced(NOW);
        assert_eq!(addresses.look(NOW), None, "the change is not complete yet");
        assert_eq!(addresses.next_deadline(), Some(NOW + SETTLE));
        assert_eq!(addresses.look(NOW + SETTLE), None, "nothing changed");
        assert_eq!(addresses.next_deadline(), None, "the kernel announces the next one");
    }

    #[test]
    fn a_change_is_told() {
        let poll = Poll::new().unwrap();
        let mut addresses = watching(&poll);
        assert!(addresses.look(NOW).is_some());
        addresses.known.insert([192, 0, 2, 1].into());
        addresses.note_announced(NOW);
        assert!(addresses.look(NOW + SETTLE).is_some_and(|found| !found.contains(&[192, 0, 2, 1].into())));
    }

    #[test]
    fn without_announcements_it_looks_every_two_seconds() {
        let mut addresses = Addresses { announcements: None, look_at: Some(NOW), known: BTreeSet::new() };
        assert!(addresses.look(NOW).is_some());
        assert_eq!(addresses.next_deadline(), Some(NOW + LOOK_EVERY));
    }

    #[test]
    fn the_kernel_announces_nothing_while_nothing_changes() {
        let mut poll = Poll::new().unwrap();
        let addresses = watching(&poll);
        assert!(addresses.announcements.is_some(), "a machine with rtnetlink");
        let mut events = Events::with_capacity(8);
        poll.poll(&mut events, Some(Duration::from_millis(1))).unwrap();
        assert!(events.is_empty());
    }
}
