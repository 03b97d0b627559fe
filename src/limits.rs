//! Every bound that a node keeps, in one place.
//!
//! What does not fit is refused with a counted reason. Nothing grows past what is written here.

use core::fmt;
use serde::{Deserialize, Serialize};

/// The longest that a piece may be kept on one offer, in seconds: a year.
pub const LIFETIME_SECONDS_MAX: u32 = 365 * 24 * 3600;

/// The number of copies from which on a piece counts as stored: more than half of the `replicas` that were asked for, and none
/// when none were.
pub const fn quorum(replicas: u8) -> u8 {
    match replicas {
        0 => 0,
        replicas => replicas / 2 + 1,
    }
}

/// The bounds of one node. The default fits a router with 64 MiB of memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Datagrams that wait to be sent, each 1,232 bytes of memory.
    pub datagrams_queued_max: usize,
    /// Requests that wait for an answer.
    pub transactions_max: usize,
    /// Lookups under way.
    pub lookups_max: usize,
    /// Value records kept for others, up to 1,072 bytes each.
    pub records_max: usize,
    /// Provider records kept for others, about 250 bytes of memory each.
    pub providers_max: usize,
    /// Provider records kept for one file.
    pub providers_per_file_max: usize,
    /// Signatures of unknown senders that are checked in one second.
    pub signature_checks_per_second_max: u32,
    /// TCP streams, both directions.
    pub streams_max: usize,
    /// Streams whose other end has not proven who it is.
    pub streams_unproven_max: usize,
    /// Requests that one peer may have waiting here.
    pub requests_per_stream_max: usize,
    /// Pieces asked of one peer and not yet here: what fills a long line, when the pieces are small.
    pub requests_in_flight_max: usize,
    /// Downloads under way.
    pub downloads_max: usize,
    /// Files that are streamed to clients at a time.
    pub reads_max: usize,
    /// Downloads, and files to be streamed, that wait for their turn.
    pub downloads_queued_max: usize,
    /// Bytes on disk of one file that is being streamed; at least three of its chunks, whose size is at most 16 MiB. They
    /// do not count towards the quota, but against `keep_free_bytes`: where little is free, a window is smaller.
    pub read_window_bytes: u64,
    /// Peers that one download takes from.
    pub sources_per_download_max: usize,
    /// Peers that are sent content at a time.
    pub uploads_max: usize,
    /// Peers that are remembered for having sent content that does not verify, about 1 KiB of memory each.
    pub blamed_peers_max: usize,
    /// Copies under way to other nodes.
    pub pushes_max: usize,
    /// Pieces stored for the network, about 300 bytes of memory each: see [`Limits::pieces_for`].
    pub pieces_max: usize,
    /// Paths that files are served from where they lie: 300 bytes of memory each and 16 a chunk to serve them, and some
    /// kilobytes to announce them.
    pub shares_max: usize,
    /// Values that this node publishes, up to 2 KB of memory each.
    pub values_max: usize,
    /// Bytes on disk that stored pieces and the cache may take together.
    pub quota_bytes: u64,
    /// Seconds within which everything on disk is read again to find what has rotted; 0 is only on command.
    pub scrub_seconds: u32,
    /// Bytes that are left free on the file system, whatever the quota says; `None` is a twentieth of it and at least 64 MiB.
    pub keep_free_bytes: Option<u64>,
    /// Commands under way. What clients ask beyond it waits in their connections.
    pub commands_max: usize,
    /// Commands that one client of the control socket may have under way on its connection.
    pub commands_per_client_max: usize,
    /// Descriptors of users' files that clients passed and that wait for their files to be hashed.
    pub descriptors_passed_max: usize,
    /// Files that are served from passed descriptors because the node may not open them itself.
    pub descriptors_shared_max: usize,
    /// Files that are explained at a time.
    pub explains_max: usize,
    /// Clients connected to the control socket. More wait, in order, until one leaves.
    pub clients_max: usize,
    /// What content may take of the line.
    pub rates: Rates,
}

/// How many bytes a second content may take; 0 is any number. What nodes say to each other beside content is counted but
/// never held up. A peer is a connection: no peer has more than two, of which it uses one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Rates {
    /// To all peers together.
    pub upload: u64,
    /// From all peers together.
    pub download: u64,
    /// To one peer.
    pub peer_upload: u64,
    /// From one peer.
    pub peer_download: u64,
}

/// The most clients of the control socket that can be told apart.
pub const CLIENTS_MAX: usize = 4096;

const READ_WINDOW_BYTES_MAX: u64 = 1 << 30;

/// The least rate, in bytes per second: a chunk that comes slower than this looks to other nodes as if it did not come.
pub const RATE_MIN: u64 = 16 << 10;

impl Default for Limits {
    fn default() -> Self {
        Limits {
            datagrams_queued_max: 128,
            transactions_max: 256,
            lookups_max: 32,
            records_max: 1024,
            providers_max: 131_072,
            providers_per_file_max: 64,
            signature_checks_per_second_max: 1000,
            streams_max: 64,
            streams_unproven_max: 16,
            requests_per_stream_max: 64,
            requests_in_flight_max: 64,
            downloads_max: 8,
            reads_max: 8,
            downloads_queued_max: 1024,
            read_window_bytes: 8 << 20,
            sources_per_download_max: 32,
            uploads_max: 8,
            blamed_peers_max: 256,
            pushes_max: 64,
            pieces_max: Limits::pieces_for(1 << 30),
            shares_max: 100_000,
            values_max: 4096,
            quota_bytes: 1 << 30,
            scrub_seconds: 30 * 24 * 3600,
            keep_free_bytes: None,
            commands_max: 1024,
            commands_per_client_max: 256,
            descriptors_passed_max: 64,
            descriptors_shared_max: 64,
            explains_max: 4,
            clients_max: 256,
            rates: Rates::default(),
        }
    }
}

/// A bound that contradicts another, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvalidLimits(pub &'static str);

impl fmt::Display for InvalidLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "limits contradict each other: {}", self.0)
    }
}

impl std::error::Error for InvalidLimits {}

/// The least number of pieces that a node can keep by default.
const PIECES_MIN: usize = 131_072;
/// How many bytes of the quota stand for one more piece: a tenth of the smallest chunk, for some files are small.
const BYTES_A_PIECE: u64 = 26_000;

impl Limits {
    /// The number of pieces that goes with a quota: as many as fill it when they have 26,000 bytes on average, and at least
    /// 131,072, which take about 40 MB of memory.
    pub fn pieces_for(quota_bytes: u64) -> usize {
        usize::try_from(quota_bytes / BYTES_A_PIECE).unwrap_or(usize::MAX).max(PIECES_MIN)
    }

    /// Checks the bounds against each other.
    pub fn validate(&self) -> Result<(), InvalidLimits> {
        let rules = [
            (
                self.datagrams_queued_max >= 32,
                "one turn of a lookup and its answers need 32 queued datagrams",
            ),
            (self.transactions_max >= 32, "one lookup needs up to 6 transactions at a time, five lookups 30"),
            (self.lookups_max >= 4, "joining, refreshing and one user's lookup need 4"),
            (self.values_max >= 1 && self.shares_max >= 1, "a node shares and publishes something"),
            (self.records_max >= 1, "a table of no records cannot keep any"),
            (self.providers_per_file_max >= 1, "a file needs room for one provider"),
            (self.providers_max >= self.providers_per_file_max, "providers of one file must fit the table"),
            (self.streams_unproven_max >= 2, "an honest peer needs a place beside a silent one"),
            (
                self.streams_max > self.streams_unproven_max,
                "unproven streams must leave room for proven ones",
            ),
            (self.requests_in_flight_max >= 1, "a download needs one request in flight"),
            (
                self.requests_in_flight_max <= self.requests_per_stream_max,
                "peers of the same make must not refuse each other",
            ),
            (self.sources_per_download_max >= 1, "a download needs a source"),
            (self.sources_per_download_max < self.streams_max, "one download must not use up every stream"),
            (self.blamed_peers_max >= 1, "a peer that sends wrong content must not be asked again at once"),
            (self.reads_max >= 1, "what is streamed must have its turn"),
            (
                self.read_window_bytes <= READ_WINDOW_BYTES_MAX,
                "a window of more than 1 GiB is no window, but a download",
            ),
            (
                self.clients_max >= 1 && self.clients_max <= CLIENTS_MAX,
                "1 to 4,096 clients can be told apart",
            ),
            (self.uploads_max >= 1, "whoever takes must be able to give"),
            (
                self.downloads_max >= 1 && self.pushes_max >= 1 && self.commands_max >= 1,
                "a node that does nothing is no node",
            ),
            (self.commands_per_client_max >= 1, "a client needs one command"),
            (self.explains_max >= 1, "a user asks how safe a file is"),
            (self.descriptors_passed_max >= 2, "one message of a client brings up to 2 descriptors"),
        ];
        let Rates { upload, download, peer_upload, peer_download } = self.rates;
        if [upload, download, peer_upload, peer_download].iter().any(|rate| (1..RATE_MIN).contains(rate)) {
            return Err(InvalidLimits("a rate is at least 16 KiB a second, or 0 for any"));
        }
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, why)) => Err(InvalidLimits(why)),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_a_contradiction_is_named() {
        assert_eq!(Limits::default().validate(), Ok(()));
        let wrong = Limits { streams_unproven_max: 64, ..Limits::default() };
        assert!(wrong.validate().unwrap_err().to_string().contains("unproven streams"));
    }
}
