//! The statistics of the store.

/// The statistics of the store.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StoreStats {
    /// Stored pieces.
    pub pieces: u32,
    /// Shared files, cached ones included.
    pub shares: u32,
    /// Claims on them: one for each path, and one for each file in the cache.
    pub claims: u32,
    /// Bytes on disk of stored pieces.
    pub piece_bytes: u64,
    /// Bytes of their content.
    pub content_bytes: u64,
    /// Bytes on disk of shares in the cache.
    pub cached_bytes: u64,
    /// Bytes reserved for arriving pieces and cached files.
    pub reserved_bytes: u64,
    /// Bytes reserved for the windows of streams, which do not count against the quota.
    pub window_bytes: u64,
    /// Bytes of admitted pieces that have not begun to arrive.
    pub promised_bytes: u64,
    /// Free bytes of the file system.
    pub free_bytes: u64,
    /// Bytes of the file system that are kept free for the host.
    pub keep_free_bytes: u64,
    /// Bytes that the node can still take from the file system.
    pub room_bytes: u64,
    /// Whether the stored pieces exceed the limits, so that the node hands pieces over to other nodes.
    pub over: bool,
    /// The quota in bytes, for stored, cached and reserved bytes together.
    pub quota_bytes: u64,
    /// Cached files evicted so far.
    pub evicted: u64,
    /// Pieces expired so far.
    pub expired: u64,
    /// Pieces that gave way so far to those of parties that brought less.
    pub displaced: u64,
    /// Offers refused so far because too much of their party was arriving.
    pub refused_share: u64,
    /// Pieces and files refused so far because the quota or the number of pieces was used up.
    pub refused_quota: u64,
    /// Pieces and files refused so far because the file system had not enough free space or inodes.
    pub refused_free: u64,
}
