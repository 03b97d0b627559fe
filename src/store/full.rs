//! Why there is no room.

use core::fmt;

/// Why there is no room: the bound that is reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Full {
    /// The highest number of shared paths.
    Shares(usize),
    /// The highest number of downloads.
    Downloads(usize),
    /// The quota, after eviction of the whole cache.
    Quota {
        /// The bytes that were needed.
        needed: u64,
        /// The quota in bytes.
        quota: u64,
    },
    /// The free space that is left to the host.
    Floor {
        /// The bytes that were needed.
        needed: u64,
        /// The bytes that are available.
        room: u64,
        /// The bytes that are left to the host.
        floor: u64,
    },
    /// The inodes that are left to the host.
    Inodes,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Full::Shares(most) => write!(
                f,
                "{most} paths are shared already (--shares): stop sharing some with `elver rm`, or allow more"
            ),
            Full::Downloads(most) => write!(f, "{most} downloads are under way already (--downloads)"),
            Full::Quota { needed, quota } => {
                write!(f, "{needed} more bytes do not fit into the node's quota of {quota} bytes (--quota)")
            }
            Full::Floor { needed, room, floor } => write!(
                f,
                "{needed} more bytes do not fit on the node's disk: {floor} bytes are kept free for the host (--keep-free), \
                 and {room} are free beyond them"
            ),
            Full::Inodes => f.write_str(
                "the node's disk has too few free inodes for another file: some are kept free for the host (--keep-free)",
            ),
        }
    }
}

impl std::error::Error for Full {}
