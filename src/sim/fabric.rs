//! The parts of a world that connect its nodes while one event is handled: the hosts, the links, the event queue.
//!
//! [`Fabric::poll`] carries out a node's outputs. It returns stream outputs to its caller,
//! [`Streams`](super::streams::Streams), which gets the fabric as an argument. So the fabric does not depend on the streams,
//! and the streams do not depend on the world.

use super::blob::joined;
use super::chance::Chance;
use super::event::{Event, WorldEvent};
use super::host::{Host, Life};
use super::link::Links;
use super::packets::Packets;
use super::queue::Queue;
use super::trace::Trace;
use super::watch::Watch;
use crate::node::command::Response;
use crate::node::{Node, Output, StreamOutput};
use crate::time::Instant;
use core::net::SocketAddr;
use std::collections::VecDeque;

/// The parts of the world that one event may touch, without its streams.
pub(super) struct Fabric<'a> {
    pub(super) now: Instant,
    pub(super) hosts: &'a mut [Host],
    pub(super) links: &'a mut Links,
    pub(super) chance: &'a mut Chance,
    pub(super) queue: &'a mut Queue<Event>,
    pub(super) packets: &'a mut Packets,
    pub(super) trace: &'a mut Trace,
    pub(super) watch: &'a mut Watch,
    pub(super) world_events: &'a mut VecDeque<WorldEvent>,
}

impl Fabric<'_> {
    /// Carries out the outputs of a host's node up to the next stream output, which is returned. `None` when the node has no more
    /// outputs.
    pub(super) fn poll(&mut self, host: usize) -> Option<StreamOutput> {
        loop {
            self.send_datagrams(host);
            if let Some(output) = self.hosts[host].node.as_mut().and_then(Node::poll_stream) {
                return Some(output);
            }
            let Some(output) = self.hosts[host].node.as_mut().and_then(Node::poll_output) else {
                self.rearm(host);
                return None;
            };
            match output {
                Output::Disk { id, op } => {
                    let it = &mut self.hosts[host];
                    let at = it.disk.submit(self.now, id, op);
                    self.queue.push(at, Event::Disk { host: host as u32, run: it.run });
                }
                Output::Respond { response: Response::Progress(_), .. } | Output::Opened { .. } => {}
                Output::Respond { command, response } => {
                    self.world_events.push_back(WorldEvent::Answer(host, command, response));
                }
                Output::Content { command, content, extent } => {
                    // The simulated client reads the content at once.
                    let it = &mut self.hosts[host];
                    let now = it.clock(self.now);
                    let read = it.disk.read(&extent).map(|parts| joined(parts).bytes().to_vec());
                    if let Some(node) = &mut it.node {
                        node.handle_content_sent(now, command, u64::from(content.length));
                    }
                    self.world_events.push_back(WorldEvent::Content(host, command, content, read.ok()));
                }
                Output::Here { bytes } => self.tell_lan(host, &bytes),
                Output::Resolve { name } => {
                    let found = self.links.names.get(name.name()).cloned();
                    let it = &mut self.hosts[host];
                    let now = it.clock(self.now);
                    if let Some(node) = &mut it.node {
                        node.handle_resolved(now, &name, found.ok_or_else(|| "no such name".to_owned()));
                    }
                }
                Output::Stop => self.world_events.push_back(WorldEvent::Stopped(host)),
            }
        }
    }

    fn send_datagrams(&mut self, host: usize) {
        let it = &mut self.hosts[host];
        let Some(node) = &mut it.node else { return };
        if let Some(mut adversary) = it.adversary.take() {
            let mut sent = Vec::new();
            while let Some(datagram) = node.poll_datagram() {
                let (to, mut bytes) = (datagram.to(), datagram.bytes().to_vec());
                if adversary.outgoing(self.now, to, &mut bytes) {
                    sent.push((to, bytes));
                }
            }
            self.hosts[host].adversary = Some(adversary);
            for (to, bytes) in sent {
                self.transmit(host, to, &bytes);
            }
            return;
        }
        while let Some(datagram) = self.hosts[host].node.as_mut().and_then(Node::poll_datagram) {
            let (to, bytes) = (datagram.to(), datagram.bytes());
            self.watch.sent(host, to, bytes);
            let way =
                Way { links: self.links, chance: self.chance, queue: self.queue, packets: self.packets };
            way.send(self.now, host, to, bytes);
            let length = bytes.len() as u64;
            self.hosts[host].traffic.sent_datagram(length);
        }
    }

    /// Sends a datagram from a host.
    pub(super) fn transmit(&mut self, host: usize, to: SocketAddr, bytes: &[u8]) {
        let way = Way { links: self.links, chance: self.chance, queue: self.queue, packets: self.packets };
        way.send(self.now, host, to, bytes);
        self.hosts[host].traffic.sent_datagram(bytes.len() as u64);
    }

    /// Sends a datagram to all other hosts of a host's LAN, through its group.
    fn tell_lan(&mut self, host: usize, bytes: &[u8]) {
        let Some(lan) = self.links.lans.get(&host).copied() else { return };
        let others = self.links.lans.iter().filter(|(other, its)| **other != host && **its == lan);
        let others: Vec<usize> = others.map(|(other, _)| *other).collect();
        self.hosts[host].traffic.sent_datagram(bytes.len() as u64);
        for other in others {
            let (from, to) = (self.links.port(host).addr, self.links.port(other).addr);
            let (target, arrivals) = self.links.send(self.now, host, to, bytes.len(), self.chance);
            for at in arrivals.into_iter().flatten() {
                let slot = self.packets.put(from, target, bytes);
                self.queue.push(at, Event::Here(slot));
            }
        }
    }

    /// Queues a wake event for the node's next deadline, unless an earlier or equal one is armed.
    pub(super) fn rearm(&mut self, host: usize) {
        let it = &mut self.hosts[host];
        if it.life != Life::Up {
            return;
        }
        let Some(deadline) = it.node.as_ref().and_then(Node::next_deadline) else { return };
        let at = (deadline + it.lag).max(self.now);
        if it.armed.is_none_or(|armed| at < armed) {
            it.armed = Some(at);
            self.queue.push(at, Event::Wake(host as u32));
        }
    }

    /// Whether packets pass between two hosts in both directions.
    pub(super) fn is_way_open(&self, a: usize, b: usize) -> bool {
        self.links.is_open(a, b) && self.links.is_open(b, a)
    }

    pub(super) fn note(&mut self, host: usize, kind: u8, length: usize, detail: u64) {
        self.trace.note(self.now, host, kind, length, detail);
    }
}

/// The parts of the fabric that sending a datagram needs. They are borrowed apart from the hosts, because the node still owns
/// the bytes.
struct Way<'a> {
    links: &'a mut Links,
    chance: &'a mut Chance,
    queue: &'a mut Queue<Event>,
    packets: &'a mut Packets,
}

impl Way<'_> {
    fn send(self, now: Instant, host: usize, to: SocketAddr, bytes: &[u8]) {
        let from = self.links.port(host).addr;
        let (target, arrivals) = self.links.send(now, host, to, bytes.len(), self.chance);
        for at in arrivals.into_iter().flatten() {
            let slot = self.packets.put(from, target, bytes);
            self.queue.push(at, Event::Datagram(slot));
        }
    }
}
