//! Where clients reach a node: a socket in its directory; where there can be none, an abstract one named after the directory.
//!
//! A directory need not be able to hold a socket: vfat knows none, a full disk takes none, and one that was deleted or
//! unmounted while the node runs has none any more. Linux's abstract sockets (unix(7)) need no file, but have no owner and
//! no mode either, so each end asks the kernel for the other's user: the node serves its own user and root, and a client
//! talks to its own user's node, root's, or that of the directory's owner.

use crate::net::CONTROL_SOCKET;
use rustix::fd::AsFd;
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};

/// The socket's path in the node's directory.
pub(super) fn socket_in(dir: &Path) -> PathBuf {
    dir.join(CONTROL_SOCKET)
}

/// Connects to the node whose directory this is. The error is the one that the socket in the directory gave.
pub fn connect(dir: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(socket_in(dir)).or_else(|error| {
        let stream = abstract_address(dir).and_then(|address| UnixStream::connect_addr(&address));
        stream.ok().filter(|stream| is_of_node(stream, dir)).ok_or(error)
    })
}

/// Whether the other end is a process of the user that may run a node there.
fn is_of_node(stream: &UnixStream, dir: &Path) -> bool {
    let owner = dir.metadata().ok().map(|metadata| metadata.uid());
    peer_of(stream).is_some_and(|user| is_trusted(user) || Some(user) == owner)
}

/// Whether the client at the other end of an abstract socket is to be served.
pub(super) fn is_served(stream: impl AsFd) -> bool {
    peer_of(stream).is_some_and(is_trusted)
}

fn is_trusted(user: u32) -> bool {
    user == 0 || user == geteuid().as_raw()
}

fn peer_of(stream: impl AsFd) -> Option<u32> {
    socket_peercred(stream).ok().map(|peer| peer.uid.as_raw())
}

/// The abstract address that stands for the socket in a directory.
pub(super) fn abstract_address(dir: &Path) -> io::Result<SocketAddr> {
    let name = blake3::hash(resolved(dir).as_os_str().as_encoded_bytes());
    SocketAddr::from_abstract_name(format!("elver/{}", name.to_hex()))
}

/// The one path of a directory, which need not be there any more: then that of what it lay in.
fn resolved(dir: &Path) -> PathBuf {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    absolute.canonicalize().unwrap_or_else(|_| match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => resolved(parent).join(name),
        _ => absolute,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::testing::TestDir;
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_directory_that_is_gone_has_the_name_that_it_had() {
        let dir = TestDir::new();
        std::fs::create_dir(dir.path("node")).unwrap();
        std::os::unix::fs::symlink(dir.path("node"), dir.path("link")).unwrap();
        let before = resolved(&dir.path("node"));
        assert_eq!(resolved(&dir.path("link")), before);
        std::fs::remove_dir(dir.path("node")).unwrap();
        assert_eq!(resolved(&dir.path("node")), before);
    }

    #[test]
    fn a_client_finds_the_socket_in_the_directory_first_and_then_the_abstract_one() {
        let dir = TestDir::new();
        assert_eq!(connect(&dir.path("")).unwrap_err().kind(), io::ErrorKind::NotFound);
        let unnamed = UnixListener::bind_addr(&abstract_address(&dir.path("")).unwrap()).unwrap();
        let stream = connect(&dir.path("")).unwrap();
        assert!(is_served(&unnamed.accept().unwrap().0));
        drop(stream);
        let named = UnixListener::bind(socket_in(&dir.path(""))).unwrap();
        let _stream = connect(&dir.path("")).unwrap();
        named.set_nonblocking(true).unwrap();
        assert!(named.accept().is_ok());
    }
}
