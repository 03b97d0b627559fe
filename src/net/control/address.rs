//! The addresses of the control socket: a socket file in the node's directory, or an abstract address derived from the
//! directory's path.
//!
//! Not every directory can hold a socket file: vfat has none, a full disk takes none, and a directory that was deleted or
//! unmounted while the node runs has lost its own. Linux's abstract sockets (unix(7)) need no file. They have no owner and no
//! mode either, so each end asks the kernel for the other's user: the node serves its own user and root; a client trusts a
//! node of its own user, of root, or of the directory's owner.

use crate::net::CONTROL_SOCKET;
use rustix::fd::AsFd;
use rustix::net::sockopt::socket_peercred;
use rustix::process::geteuid;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};

/// The path of the socket file in the node's directory.
pub(super) fn socket_in(dir: &Path) -> PathBuf {
    dir.join(CONTROL_SOCKET)
}

/// Connects to the node of this directory, by the socket file first and then by the abstract address. When both fail, the
/// error is the one of the socket file.
pub fn connect(dir: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(socket_in(dir)).or_else(|error| {
        let stream = abstract_address(dir).and_then(|address| UnixStream::connect_addr(&address));
        stream.ok().filter(|stream| is_of_node(stream, dir)).ok_or(error)
    })
}

/// Whether the node at the other end runs as another user than this process: then it opens no files in this user's name.
pub fn is_of_other_user(stream: impl AsFd) -> bool {
    peer_of(stream).is_some_and(|user| user != geteuid().as_raw())
}

/// Whether the other end belongs to a user that may run a node in this directory.
fn is_of_node(stream: &UnixStream, dir: &Path) -> bool {
    let owner = dir.metadata().ok().map(|metadata| metadata.uid());
    peer_of(stream).is_some_and(|user| is_trusted(user) || Some(user) == owner)
}

/// Whether the node may serve the client at the other end of an abstract socket.
pub(super) fn is_served(stream: impl AsFd) -> bool {
    peer_of(stream).is_some_and(is_trusted)
}

fn is_trusted(user: u32) -> bool {
    user == 0 || user == geteuid().as_raw()
}

fn peer_of(stream: impl AsFd) -> Option<u32> {
    socket_peercred(stream).ok().map(|peer| peer.uid.as_raw())
}

/// The abstract address of the node in a directory.
pub(super) fn abstract_address(dir: &Path) -> io::Result<SocketAddr> {
    let name = blake3::hash(resolved(dir).as_os_str().as_encoded_bytes());
    SocketAddr::from_abstract_name(format!("elver/{}", name.to_hex()))
}

/// The canonical path of a directory. When the directory is gone: the canonical path of its nearest ancestor that exists,
/// joined with the rest.
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
    fn a_deleted_directory_keeps_its_canonical_path() {
        let dir = TestDir::new();
        std::fs::create_dir(dir.path("node")).unwrap();
        std::os::unix::fs::symlink(dir.path("node"), dir.path("link")).unwrap();
        let before = resolved(&dir.path("node"));
        assert_eq!(resolved(&dir.path("link")), before);
        std::fs::remove_dir(dir.path("node")).unwrap();
        assert_eq!(resolved(&dir.path("node")), before);
    }

    #[test]
    fn a_client_prefers_the_socket_file_to_the_abstract_address() {
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
