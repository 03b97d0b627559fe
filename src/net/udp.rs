//! The UDP socket: edge-triggered, drained within a budget.

use crate::wire::contact::canonical;
use crate::wire::datagram::DATAGRAM_BYTES_MAX;
use core::net::{IpAddr, SocketAddr};
use mio::net::UdpSocket;
use std::io::{self, ErrorKind};

/// A bound UDP socket and its readiness.
pub(super) struct Udp {
    pub(super) socket: UdpSocket,
    pub(super) readable: bool,
    writable: bool,
    ipv6: bool,
    /// A datagram that the kernel had no room for.
    pending: Option<(SocketAddr, Vec<u8>)>,
}

/// One byte longer than the longest datagram, so that a datagram that is too long is detected instead of cut.
pub(super) type Buffer = [u8; DATAGRAM_BYTES_MAX + 1];

impl Udp {
    pub(super) fn new(socket: UdpSocket, ipv6: bool) -> Self {
        Udp { socket, readable: true, writable: true, ipv6, pending: None }
    }

    /// The next datagram's length and sender; `None` when the socket has none.
    pub(super) fn receive(&mut self, buffer: &mut Buffer) -> Option<(usize, SocketAddr)> {
        while self.readable {
            match self.socket.recv_from(buffer) {
                Ok((length, from)) => return Some((length, canonical(from))),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                // The kernel reports an ICMP error of an earlier send here. The sender's timeout notices that loss.
                Err(error) if is_transient(&error) => {}
                Err(error) => {
                    log::warn!("receiving a datagram: {error}");
                    self.readable = false;
                }
            }
        }
        None
    }

    /// Whether the kernel takes datagrams. The pending one is sent first.
    pub(super) fn is_writable(&mut self) -> bool {
        if let Some((to, bytes)) = self.pending.take_if(|_| self.writable) {
            self.send(to, &bytes);
        }
        self.writable
    }

    pub(super) fn set_writable(&mut self) {
        self.writable = true;
    }

    /// Sends a datagram, or keeps it until the socket is writable. One that the kernel refuses is dropped, as if the network
    /// had lost it.
    pub(super) fn send(&mut self, to: SocketAddr, bytes: &[u8]) {
        let mapped = match (self.ipv6, to.ip()) {
            (true, IpAddr::V4(ip)) => SocketAddr::new(ip.to_ipv6_mapped().into(), to.port()),
            _ => to,
        };
        match self.socket.send_to(bytes, mapped) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.writable = false;
                self.pending = Some((to, bytes.to_vec()));
            }
            Err(error) => log::debug!("sending a datagram to {to}: {error}"),
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted, NetworkUnreachable};
    matches!(
        error.kind(),
        ConnectionRefused | ConnectionReset | HostUnreachable | Interrupted | NetworkUnreachable
    )
}
