//! Why a node could not be started.

use crate::disk::OpenError;
use crate::node::InvalidConfig;
use core::fmt;
use core::net::SocketAddr;
use std::io;
use std::path::PathBuf;

/// Why a node could not be started.
#[derive(Debug)]
pub enum StartError {
    /// The node's directory cannot be used.
    Directory(OpenError),
    /// The node cannot listen on its address.
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The system's error.
        error: io::Error,
    },
    /// The control socket cannot be created.
    Control {
        /// The socket's path.
        path: PathBuf,
        /// The system's error.
        error: io::Error,
    },
    /// The HTTP gateway cannot listen on its address.
    Http {
        /// The address.
        addr: SocketAddr,
        /// The system's error.
        error: io::Error,
    },
    /// The HTTP gateway would be open to other machines: its address is not loopback, and it has no token.
    HttpExposed(SocketAddr),
    /// Values of the configuration contradict each other.
    Config(InvalidConfig),
    /// The system refused a resource without which no node can run, such as the poll.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Directory(error) => error.fmt(f),
            StartError::Listen { addr, error } if error.kind() == io::ErrorKind::AddrInUse => {
                write!(
                    f,
                    "port {} is taken: {error} ({addr}); choose another with --listen IP:PORT",
                    addr.port()
                )
            }
            StartError::Listen { addr, error } => write!(f, "cannot listen on {addr}: {error}"),
            // bind(2) returns EINVAL only when the path does not fit into a socket address.
            StartError::Control { path, error } if error.kind() == io::ErrorKind::InvalidInput => write!(
                f,
                "the control socket's path {} is too long for a socket address; choose a directory with a shorter path, or a \
                 shorter path with --socket",
                path.display()
            ),
            StartError::Control { path, error } => {
                write!(f, "cannot create the control socket {}: {error}", path.display())
            }
            StartError::Http { addr, error } => {
                write!(
                    f,
                    "the HTTP gateway cannot listen on {addr}: {error}; choose another with --http IP:PORT"
                )
            }
            StartError::HttpExposed(addr) => write!(
                f,
                "the HTTP gateway at {addr} would be open to other machines: give a secret with --http-token-file, or listen \
                 on 127.0.0.1"
            ),
            StartError::Config(error) => error.fmt(f),
            StartError::System(error) => {
                write!(f, "the system refused a resource that the node needs: {error}")
            }
        }
    }
}

impl std::error::Error for StartError {}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        StartError::System(error)
    }
}
