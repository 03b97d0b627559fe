//! The UDP socket: edge-triggered, received and sent in batches.
//!
//! recvmmsg(2) and sendmmsg(2) move up to [`BATCH`] datagrams with one system call. A call that receives less than it asked for
//! has emptied the socket, which saves the call that would say so. GSO and GRO are of no use here: they join datagrams of one
//! size to one address, and those of a DHT go to many.

use crate::peers::outbox::Datagram;
use crate::wire::contact::canonical;
use crate::wire::datagram::DATAGRAM_BYTES_MAX;
use core::net::{IpAddr, SocketAddr};
use mio::net::UdpSocket;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg};
use rustix::net::{MMsgHdr, SendAncillaryBuffer, SendFlags, SocketAddrAny, sendmmsg};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::os::fd::AsRawFd;

/// Datagrams that one system call receives or sends at most.
pub(super) const BATCH: usize = 32;

/// The room that the kernel is asked for in each direction, in bytes. A burst of answers to several lookups fits; Linux grants at
/// most `net.core.rmem_max` and `net.core.wmem_max`.
pub(super) const BUFFER_BYTES: usize = 1 << 20;

/// One byte longer than the longest datagram, so that a datagram that is too long is detected instead of cut.
type Buffer = [u8; DATAGRAM_BYTES_MAX + 1];

/// A bound UDP socket and its readiness.
pub(super) struct Udp {
    pub(super) socket: UdpSocket,
    pub(super) readable: bool,
    writable: bool,
    ipv6: bool,
}

/// The datagrams of one call of [`Udp::receive`]. A batch serves one socket: the room for an address is that of the last one received.
pub(super) struct Batch {
    buffers: Box<[Buffer; BATCH]>,
    headers: MultiHeaders<SockaddrStorage>,
    /// The length and the sender of each datagram that has come.
    came: Vec<(usize, SocketAddr)>,
}

impl Batch {
    pub(super) fn new() -> Self {
        let buffers = Box::new([[0; DATAGRAM_BYTES_MAX + 1]; BATCH]);
        Batch { buffers, headers: MultiHeaders::preallocate(BATCH, None), came: Vec::with_capacity(BATCH) }
    }

    /// The number of datagrams.
    pub(super) fn len(&self) -> usize {
        self.came.len()
    }

    /// The sender and the bytes of a datagram.
    pub(super) fn get(&self, index: usize) -> Option<(SocketAddr, &[u8])> {
        let (length, from) = *self.came.get(index)?;
        Some((from, self.buffers.get(index)?.get(..length)?))
    }
}

impl Udp {
    pub(super) fn new(socket: UdpSocket, ipv6: bool) -> Self {
        Udp { socket, readable: true, writable: true, ipv6 }
    }

    /// Receives datagrams into `batch`, replacing those in it. None has come when the batch is empty afterwards.
    pub(super) fn receive(&mut self, batch: &mut Batch) {
        batch.came.clear();
        let Batch { buffers, headers, came } = batch;
        while self.readable && came.is_empty() {
            let mut parts = buffers.each_mut().map(|buffer| [IoSliceMut::new(buffer)]);
            let descriptor = self.socket.as_raw_fd();
            match recvmmsg(descriptor, headers, parts.iter_mut(), MsgFlags::MSG_DONTWAIT, None) {
                Ok(received) => {
                    let mut count = 0;
                    for message in received {
                        count += 1;
                        // A datagram without a readable address is dropped: its length of 0 is refused.
                        let from = message.address.as_ref().and_then(address_of);
                        let length = if from.is_some() { message.bytes } else { 0 };
                        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
                        came.push((length, canonical(from.unwrap_or(nowhere))));
                    }
                    self.readable = count == BATCH;
                    break;
                }
                Err(Errno::EAGAIN) => self.readable = false,
                // The kernel reports an ICMP error of an earlier send here. The sender's timeout notices that loss.
                Err(error) if is_transient(error) => {}
                Err(error) => {
                    log::warn!("receiving datagrams: {error}");
                    self.readable = false;
                }
            }
        }
    }

    /// Whether the kernel takes datagrams.
    pub(super) fn is_writable(&self) -> bool {
        self.writable
    }

    pub(super) fn set_writable(&mut self) {
        self.writable = true;
    }

    /// Sends the first datagrams, up to [`BATCH`], and returns the number of those that are done with: sent, or refused by the
    /// kernel, as if the network had lost them. 0 when the socket takes none now.
    pub(super) fn send<'a>(&mut self, mut datagrams: impl Iterator<Item = &'a Datagram>) -> usize {
        let batch: [Option<&Datagram>; BATCH] = core::array::from_fn(|_| datagrams.next());
        let count = batch.iter().flatten().count();
        let sent = match batch[0] {
            Some(first) if self.writable => match count {
                1 => self.socket.send_to(first.bytes(), self.as_sent(first.to())).map(|_| 1),
                _ => self.send_batch(&batch, count),
            },
            _ => return 0,
        };
        match sent {
            Ok(sent) => sent,
            Err(error) if error.kind() == ErrorKind::Interrupted => self.send(batch.into_iter().flatten()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.writable = false;
                0
            }
            // The error is that of the first one: the call ends there.
            Err(error) => {
                log::debug!("sending a datagram: {error}");
                1
            }
        }
    }

    fn send_batch(&self, batch: &[Option<&Datagram>; BATCH], count: usize) -> io::Result<usize> {
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let to = batch.map(|datagram| datagram.map_or(nowhere, |datagram| self.as_sent(datagram.to())));
        let to = to.map(SocketAddrAny::from);
        let parts = batch.map(|datagram| [IoSlice::new(datagram.map_or(&[], Datagram::bytes))]);
        let mut controls: [SendAncillaryBuffer<'_, '_, '_>; BATCH] =
            core::array::from_fn(|_| Default::default());
        let mut messages = to.iter().zip(&parts);
        let mut messages = controls.each_mut().map(|control| match messages.next() {
            Some((to, part)) => MMsgHdr::new_with_addr(to, part, control),
            None => MMsgHdr::new(&[], control),
        });
        Ok(sendmmsg(&self.socket, &mut messages[..count], SendFlags::DONTWAIT)?)
    }

    /// An IPv4 address as a socket of IPv6 takes it.
    fn as_sent(&self, to: SocketAddr) -> SocketAddr {
        match (self.ipv6, to.ip()) {
            (true, IpAddr::V4(ip)) => SocketAddr::new(ip.to_ipv6_mapped().into(), to.port()),
            _ => to,
        }
    }
}

fn address_of(address: &SockaddrStorage) -> Option<SocketAddr> {
    let four = address.as_sockaddr_in().map(|&address| SocketAddr::V4(address.into()));
    four.or_else(|| address.as_sockaddr_in6().map(|&address| SocketAddr::V6(address.into())))
}

fn is_transient(error: Errno) -> bool {
    use Errno::{ECONNREFUSED, ECONNRESET, EHOSTUNREACH, EINTR, ENETUNREACH};
    matches!(error, ECONNREFUSED | ECONNRESET | EHOSTUNREACH | EINTR | ENETUNREACH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::limits::Limits;
    use crate::peers::outbox::{Ask, Attempt, Outbox};
    use crate::time::Instant;
    use crate::wire::header::Epoch;
    use crate::wire::message::Message;
    use crate::wire::network::Network;

    fn bound(addr: &str) -> (Udp, SocketAddr) {
        let socket = UdpSocket::bind(addr.parse().unwrap()).unwrap();
        let at = socket.local_addr().unwrap();
        (Udp::new(socket, at.is_ipv6()), at)
    }

    /// An outbox with `count` pings to this address.
    fn pings(to: SocketAddr, count: usize) -> Outbox {
        let identity = Identity::from_secret(&[1; 32]);
        let limits = Limits { datagrams_queued_max: 2 * count, ..Limits::default() };
        let mut outbox = Outbox::new(Network::new("test"), identity, false, Epoch::new(1), &limits, [3; 32]);
        for transaction in 0..count as u64 {
            let ask = Ask { to, recipient: None, transaction, attempt: Attempt::First };
            assert!(outbox.request(Instant::ZERO, ask, &Message::Ping { padding: 0 }).is_some());
        }
        outbox
    }

    fn flush(udp: &mut Udp, outbox: &mut Outbox) {
        while !outbox.is_empty() {
            let sent = udp.send(outbox.queued());
            assert!(sent > 0);
            outbox.remove(sent);
        }
    }

    #[test]
    fn more_datagrams_than_a_batch_arrive_in_order() {
        let ((mut near, from), (mut far, to)) = (bound("127.0.0.1:0"), bound("127.0.0.1:0"));
        let mut outbox = pings(to, 2 * BATCH + 1);
        let expected: Vec<Vec<u8>> = outbox.queued().map(|datagram| datagram.bytes().to_vec()).collect();
        flush(&mut near, &mut outbox);
        let (mut batch, mut came) = (Batch::new(), Vec::new());
        loop {
            far.receive(&mut batch);
            if batch.len() == 0 {
                break;
            }
            came.extend((0..batch.len()).filter_map(|index| batch.get(index)).map(|(sender, bytes)| {
                assert_eq!(sender, from);
                bytes.to_vec()
            }));
        }
        assert_eq!(came, expected);
        assert!(!far.readable);
    }

    #[test]
    fn a_batch_that_is_not_full_has_emptied_the_socket() {
        let ((mut near, _), (mut far, to)) = (bound("127.0.0.1:0"), bound("127.0.0.1:0"));
        flush(&mut near, &mut pings(to, 3));
        let mut batch = Batch::new();
        far.receive(&mut batch);
        assert_eq!(batch.len(), 3);
        assert!(!far.readable);
    }

    #[test]
    fn a_datagram_that_is_too_long_is_longer_than_any_valid_one() {
        let ((near, _), (mut far, to)) = (bound("127.0.0.1:0"), bound("127.0.0.1:0"));
        near.socket.send_to(&[7; 3000], to).unwrap();
        let mut batch = Batch::new();
        far.receive(&mut batch);
        assert_eq!(batch.get(0).unwrap().1.len(), DATAGRAM_BYTES_MAX + 1);
    }

    #[test]
    fn a_socket_of_ipv6_sends_to_ipv4_and_names_the_sender_by_its_ipv4_address() {
        let socket = std::net::UdpSocket::bind("[::]:0").expect("this machine has IPv6");
        socket.set_nonblocking(true).unwrap();
        let port = socket.local_addr().unwrap().port();
        let mut both = Udp::new(UdpSocket::from_std(socket), true);
        let (mut four, to) = bound("127.0.0.1:0");
        flush(&mut both, &mut pings(to, 1));
        let mut batch = Batch::new();
        four.receive(&mut batch);
        assert_eq!(batch.get(0).unwrap().0, SocketAddr::from(([127, 0, 0, 1], port)));
        flush(&mut four, &mut pings(SocketAddr::from(([127, 0, 0, 1], port)), 1));
        let mut batch = Batch::new();
        both.receive(&mut batch);
        assert_eq!(batch.get(0).unwrap().0, to);
    }

    #[test]
    fn a_datagram_that_the_kernel_refuses_does_not_hold_up_the_next() {
        let ((mut near, _), (mut far, to)) = (bound("127.0.0.1:0"), bound("127.0.0.1:0"));
        // Port 0 is no destination.
        let mut refused = pings(SocketAddr::from(([127, 0, 0, 1], 0)), 1);
        flush(&mut near, &mut refused);
        flush(&mut near, &mut pings(to, 1));
        let mut batch = Batch::new();
        far.receive(&mut batch);
        assert_eq!(batch.len(), 1);
    }
}
