//! The sockets that a node listens on: UDP and TCP at one port.
//!
//! The address need not be on this machine yet (ip(7), IP_FREEBIND): at boot, DHCP may be slower than the node. Until it comes, nothing
//! is received, and what is sent is lost.

use super::udp::{BUFFER_BYTES, Udp};
use super::{DEFAULT_PORT, StartError};
use core::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;

/// Attempts to find a port that is free for UDP and TCP, when port 0 is asked for.
const FREE_PORT_TRIES: usize = 32;

/// Binds UDP and TCP to one port; without an address, on every address of the system.
pub(super) fn listen(
    addr: Option<SocketAddr>,
) -> Result<(Udp, std::net::TcpListener, SocketAddr), StartError> {
    let bind = |addr: SocketAddr| bind_both(addr).map_err(|error| StartError::Listen { addr, error });
    match addr {
        Some(addr) => bind(addr),
        None => {
            let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, DEFAULT_PORT));
            match bind(any) {
                // This Linux has no IPv6.
                Err(StartError::Listen { error, .. }) if error.kind() != io::ErrorKind::AddrInUse => {
                    bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, DEFAULT_PORT)))
                }
                bound => bound,
            }
        }
    }
}

/// Binds UDP and TCP to one port. With port 0 it tries again: the system picks a port that is free for UDP, which may be taken
/// for TCP.
fn bind_both(addr: SocketAddr) -> io::Result<(Udp, std::net::TcpListener, SocketAddr)> {
    let tries = if addr.port() == 0 { FREE_PORT_TRIES } else { 1 };
    for _ in 1..tries {
        match bind_once(addr) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            bound => return bound,
        }
    }
    bind_once(addr)
}

fn bind_once(mut addr: SocketAddr) -> io::Result<(Udp, std::net::TcpListener, SocketAddr)> {
    let open = |addr: SocketAddr, kind: Type, protocol: Protocol| -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(addr), kind, Some(protocol))?;
        if addr.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        // Where the system refuses it, the bind fails for an address that is not there.
        let _ = match addr.is_ipv6() {
            true => rustix::net::sockopt::set_ipv6_freebind(&socket, true),
            false => rustix::net::sockopt::set_ip_freebind(&socket, true),
        };
        if kind == Type::STREAM {
            // A node that was killed can restart at once on its port.
            socket.set_reuse_address(true)?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&addr.into())?;
        Ok(socket)
    };
    let udp = open(addr, Type::DGRAM, Protocol::UDP)?;
    // The system grants what it allows, which is enough for a small network.
    let _ = udp.set_recv_buffer_size(BUFFER_BYTES);
    let _ = udp.set_send_buffer_size(BUFFER_BYTES);
    let udp = std::net::UdpSocket::from(udp);
    addr.set_port(udp.local_addr()?.port());
    let tcp = open(addr, Type::STREAM, Protocol::TCP)?;
    tcp.listen(128)?;
    let udp = Udp::new(mio::net::UdpSocket::from_std(udp), addr.is_ipv6());
    Ok((udp, tcp.into(), addr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn udp_and_tcp_share_one_port_when_any_will_do() {
        let (udp, listener, addr) = listen(Some(SocketAddr::from(([127, 0, 0, 1], 0)))).unwrap();
        assert_ne!(addr.port(), 0);
        assert_eq!(listener.local_addr().unwrap(), addr);
        assert_eq!(udp.socket.local_addr().unwrap(), addr);
    }

    #[test]
    fn an_address_that_is_not_there_yet_is_bound_all_the_same() {
        // Addresses for documentation (RFC 5737, RFC 3849) are on no machine.
        for text in ["192.0.2.77:0", "[2001:db8::77]:0"] {
            let addr: SocketAddr = text.parse().unwrap();
            let (_udp, listener, bound) = listen(Some(addr)).unwrap();
            assert_eq!((bound.ip(), listener.local_addr().unwrap()), (addr.ip(), bound));
        }
    }

    #[test]
    fn a_port_that_is_taken_for_tcp_alone_is_refused_with_advice() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let _listener = std::net::TcpListener::bind(taken).unwrap();
        let Err(error) = listen(Some(taken)) else { panic!("it listens twice") };
        let message = error.to_string();
        assert!(message.starts_with(&format!("port {} is taken", taken.port())), "{message}");
        assert!(message.contains("--listen"), "{message}");
    }
}
