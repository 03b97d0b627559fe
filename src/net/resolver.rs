//! Resolves host names with getaddrinfo(3), as every program on the machine does: `/etc/hosts`, DNS, and what else the system knows.
//!
//! getaddrinfo(3) blocks for up to half a minute when no name server answers, so it runs on a thread of its own, which lives for one
//! name and touches nothing of the node. Only one runs at a time; further names wait. A thread that was started when the node ends is
//! left behind: the end of the process ends it.

use crate::node::HostName;
use core::net::SocketAddr;
use mio::{Registry, Token, Waker};
use std::collections::VecDeque;
use std::io;
use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;

/// Addresses that are taken from one answer. The node uses fewer, and tells how many there were.
const ADDRESSES_MAX: usize = 1024;
/// The stack of the thread in bytes. getaddrinfo(3) of glibc keeps whole answers on it, of up to 64 KiB.
const STACK_BYTES: usize = 512 << 10;

type Resolved = Result<Vec<SocketAddr>, String>;

/// The names that are being resolved.
pub(super) struct Resolver {
    /// Made with the first name: most nodes never resolve one.
    waker: Option<Arc<Waker>>,
    waiting: VecDeque<HostName>,
    running: Option<(HostName, Receiver<Resolved>)>,
    /// Names for which no thread could be started, and why.
    failed: VecDeque<(HostName, String)>,
}

impl Resolver {
    /// A resolver without a thread.
    pub(super) fn new() -> Self {
        Resolver { waker: None, waiting: VecDeque::new(), running: None, failed: VecDeque::new() }
    }

    /// Resolves a name. An event with this token announces the result.
    pub(super) fn submit(&mut self, name: HostName, registry: &Registry, token: Token) {
        self.waiting.push_back(name);
        self.go_on(registry, token);
    }

    /// The next result.
    pub(super) fn poll_resolved(
        &mut self,
        registry: &Registry,
        token: Token,
    ) -> Option<(HostName, Resolved)> {
        if let Some((name, reason)) = self.failed.pop_front() {
            return Some((name, Err(reason)));
        }
        let result = match self.running.as_ref()?.1.try_recv() {
            Ok(result) => result,
            Err(TryRecvError::Empty) => return None,
            Err(TryRecvError::Disconnected) => Err("the resolver of this system crashed".to_owned()),
        };
        let (name, _) = self.running.take()?;
        self.go_on(registry, token);
        Some((name, result))
    }

    /// Starts a thread for the next name, if none runs.
    fn go_on(&mut self, registry: &Registry, token: Token) {
        while self.running.is_none() {
            let Some(name) = self.waiting.pop_front() else { return };
            match self.start(&name, registry, token) {
                Ok(receiver) => self.running = Some((name, receiver)),
                Err(error) => {
                    self.failed.push_back((name, format!("no thread can be started for it: {error}")))
                }
            }
        }
    }

    fn start(
        &mut self,
        name: &HostName,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Receiver<Resolved>> {
        let waker = match &self.waker {
            Some(waker) => Arc::clone(waker),
            None => Arc::clone(self.waker.insert(Arc::new(Waker::new(registry, token)?))),
        };
        let (sender, receiver) = sync_channel(1);
        let (host, port) = (name.name().to_owned(), name.port());
        let resolve = move || {
            let found = (host.as_str(), port).to_socket_addrs();
            let found = found.map(|addresses| addresses.take(ADDRESSES_MAX).collect());
            // The node may have ended meanwhile.
            let _ = sender.send(found.map_err(|error| error.to_string()));
            let _ = waker.wake();
        };
        thread::Builder::new().name("resolver".to_owned()).stack_size(STACK_BYTES).spawn(resolve)?;
        Ok(receiver)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};
    use std::time::{Duration, Instant};

    /// The results for these names, in the order in which they came.
    fn resolved(names: &[&str]) -> Vec<(String, Resolved)> {
        let (mut poll, mut events, mut resolver) =
            (Poll::new().unwrap(), Events::with_capacity(8), Resolver::new());
        for name in names {
            resolver.submit(name.parse().unwrap(), poll.registry(), Token(1));
        }
        let (start, mut came) = (Instant::now(), Vec::new());
        while came.len() < names.len() && start.elapsed() < Duration::from_secs(60) {
            poll.poll(&mut events, Some(Duration::from_secs(60))).unwrap();
            while let Some((name, result)) = resolver.poll_resolved(poll.registry(), Token(1)) {
                came.push((name.to_string(), result));
            }
        }
        came
    }

    #[test]
    fn names_are_resolved_one_after_the_other_and_the_waker_announces_each() {
        let came = resolved(&["localhost:7", "localhost:8"]);
        let names: Vec<&str> = came.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["localhost:7", "localhost:8"]);
        for ((_, found), port) in came.iter().zip([7, 8]) {
            let found = found.as_ref().unwrap();
            assert!(found.iter().all(|addr| addr.ip().is_loopback() && addr.port() == port), "{found:?}");
        }
    }

    #[test]
    fn a_link_local_address_gets_the_number_of_its_interface() {
        let came = resolved(&["[fe80::1%lo]:7", "[fe80::1%absent0]:7"]);
        let Ok(found) = &came[0].1 else { panic!("{came:?}") };
        assert!(matches!(found[..], [SocketAddr::V6(addr)] if addr.scope_id() > 0), "{found:?}");
        assert!(came[1].1.is_err(), "no such interface yet");
    }
}
