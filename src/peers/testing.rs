//! Helpers for the tests of the machines: a network in memory, in which datagrams take time and are lost.

use super::hop::End;
use super::inbox;
use super::outbox::Outbox;
use super::table::{Hold, Peers, Received};
use crate::id::NodeId;
use crate::identity::Identity;
use crate::limits::Limits;
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::wire::contact::Contact;
use crate::wire::datagram::{Epoch, Unverified};
use crate::wire::network::Network;
use core::net::SocketAddr;
use std::collections::BTreeMap;

/// The outbox of a node with the signature checks of a very fast processor, for datagrams that are not polled at once, too.
pub(crate) fn outbox(network: &Network, identity: Identity, leaf: bool, epoch: u64) -> Outbox {
    const FAST: u32 = 1 << 30;
    let limits =
        Limits { datagrams_queued_max: 256, signature_checks_per_second_max: FAST, ..Limits::default() };
    let mut outbox =
        Outbox::new(network.clone(), identity, leaf, Epoch::new(epoch), &limits, [epoch as u8; 32]);
    outbox.calibrate(FAST);
    outbox
}

/// Receives a datagram as a node does before a machine handles it. Any peer may lose its place.
pub(crate) fn receive<'a>(
    outbox: &mut Outbox,
    now: Instant,
    from: SocketAddr,
    datagram: Unverified<'a>,
) -> Option<Received<'a>> {
    let answers = datagram.kind().is_answer();
    inbox::receive(outbox, now, from, datagram, answers, |_| Hold::Loose).ok()
}

/// The table of a node that knows no peer.
pub(crate) fn peers() -> Peers {
    let end = End { id: NodeId([0; 32]), epoch: Epoch::new(1) };
    Peers::new(Network::new("test"), end, [1; 32])
}

/// Enters a peer that was heard from now.
pub(crate) fn meet(peers: &mut Peers, now: Instant, contact: &Contact) {
    peers.meet(now, contact);
}

/// A datagram on its way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Flight {
    pub(crate) to: SocketAddr,
    pub(crate) from: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

/// The datagrams in flight. The test chooses the time and the seed.
pub(crate) struct Air {
    flying: BTreeMap<(Instant, u64), Flight>,
    delay_max: Duration,
    pub(crate) loss_percent: u64,
    /// The datagrams that were sent, lost ones included, and their bytes.
    pub(crate) sent: u64,
    pub(crate) sent_bytes: u64,
}

impl Air {
    /// A network without datagrams. Each datagram takes 5 ms to `delay_max`.
    pub(crate) fn new(delay_max: Duration) -> Self {
        Air { flying: BTreeMap::new(), delay_max, loss_percent: 0, sent: 0, sent_bytes: 0 }
    }

    /// Sends the datagrams in a node's outbox. Returns their number and their bytes.
    pub(crate) fn send(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        from: SocketAddr,
        outbox: &mut Outbox,
    ) -> (u64, u64) {
        let before = (self.sent, self.sent_bytes);
        while let Some(datagram) = outbox.poll() {
            let delay = rng.duration(Duration::from_millis(5), self.delay_max);
            self.sent += 1;
            self.sent_bytes += datagram.bytes().len() as u64;
            if rng.below(100) >= self.loss_percent {
                let flight = Flight { to: datagram.to(), from, bytes: datagram.bytes().to_vec() };
                self.flying.insert((now + delay, self.sent), flight);
            }
        }
        (self.sent - before.0, self.sent_bytes - before.1)
    }

    /// When the next datagram arrives.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.flying.keys().next().map(|(at, _)| *at)
    }

    /// The next datagram to arrive.
    pub(crate) fn pop(&mut self) -> Option<Flight> {
        self.flying.pop_first().map(|(_, flight)| flight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::outbox::{Ask, Attempt};
    use crate::wire::message::Message;

    const NOW: Instant = Instant::from_secs(100);

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 3583))
    }

    fn outbox(pings: u8) -> Outbox {
        let mut outbox = super::outbox(&Network::new("test"), Identity::from_secret(&[1; 32]), false, 1);
        for number in 1..=pings {
            let ask = Ask { to: address(number), recipient: None, transaction: 1, attempt: Attempt::First };
            assert!(outbox.request(NOW, ask, &Message::Ping { padding: 0 }).is_some());
        }
        outbox
    }

    #[test]
    fn what_is_sent_arrives_within_the_delay_in_the_order_of_the_arrivals() {
        let mut air = Air::new(Duration::from_millis(40));
        let (count, bytes) = air.send(NOW, &mut Rng::new([1; 32]), address(9), &mut outbox(16));
        assert_eq!(count, 16);
        assert_eq!(bytes, air.sent_bytes);
        let (mut arrived, mut last) = (0, NOW + Duration::from_millis(5));
        while let Some(at) = air.next() {
            assert!(at >= last && at < NOW + Duration::from_millis(40), "{at:?} after {last:?}");
            last = at;
            assert_eq!(air.pop().unwrap().from, address(9));
            arrived += 1;
        }
        assert_eq!(arrived, 16);
    }

    #[test]
    fn what_is_lost_is_counted_and_does_not_arrive() {
        let mut air = Air::new(Duration::from_millis(40));
        air.loss_percent = 100;
        let (count, _) = air.send(NOW, &mut Rng::new([1; 32]), address(9), &mut outbox(3));
        assert_eq!(count, 3);
        assert_eq!(air.next(), None);
    }

    #[test]
    fn equal_seeds_lose_the_same_datagrams() {
        let arrivals = |seed| {
            let mut air = Air::new(Duration::from_millis(40));
            air.loss_percent = 50;
            air.send(NOW, &mut Rng::new([seed; 32]), address(9), &mut outbox(16));
            core::iter::from_fn(|| Some((air.next()?, air.pop()?.to))).collect::<Vec<_>>()
        };
        assert_eq!(arrivals(1), arrivals(1));
        assert_ne!(arrivals(1), arrivals(2));
    }
}
