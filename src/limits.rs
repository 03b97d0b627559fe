//! The bounds of a node, in one place.
//!
//! No table, queue or buffer grows past its bound here. The node refuses what does not fit and counts the refusal by reason.

use core::fmt;
use serde::{Deserialize, Serialize};

/// The longest lifetime of a piece that one offer may ask for, in seconds: a year.
pub const LIFETIME_SECONDS_MAX: u32 = 365 * 24 * 3600;

/// The number of copies that make a piece stored: ⌊`replicas`/2⌋+1, or 0 when `replicas` is 0.
pub const fn quorum(replicas: u8) -> u8 {
    match replicas {
        0 => 0,
        replicas => replicas / 2 + 1,
    }
}

/// The bounds of one node. With the default, an empty node takes 6 MiB of memory, and [`Limits::memory_bytes`] more when all
/// that it keeps is full: each of that has a bound of its own for hosts with less.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Datagrams that wait to be sent, each 1,232 bytes of memory.
    pub datagrams_queued_max: usize,
    /// Outstanding requests to other nodes.
    pub transactions_max: usize,
    /// Concurrent lookups.
    pub lookups_max: usize,
    /// Value records kept for others, up to 1,072 bytes each.
    pub records_max: usize,
    /// Provider records kept for others, about 280 bytes of memory each.
    pub providers_max: usize,
    /// Provider records kept for one file.
    pub providers_per_file_max: usize,
    /// Signatures of strangers that are checked in one second, at most. The node gives half of its processor, whose speed it
    /// measures when it starts, to signature checks, and strangers at most a quarter of that.
    pub signature_checks_per_second_max: u32,
    /// TCP streams, both directions.
    pub streams_max: usize,
    /// Streams whose other end is not authenticated yet.
    pub streams_unauthenticated_max: usize,
    /// Outstanding requests that this node accepts from one peer.
    pub requests_per_stream_max: usize,
    /// Outstanding requests to one peer. With small pieces, many are needed to fill a link with a long round trip.
    pub requests_in_flight_max: usize,
    /// Concurrent downloads.
    pub downloads_max: usize,
    /// Files that are streamed to clients at a time.
    pub reads_max: usize,
    /// Downloads and streamed files in the queue.
    pub downloads_queued_max: usize,
    /// The window of one streamed file: its bytes on disk; at least three of its chunks, whose size is at most 16 MiB. Windows
    /// count against `keep_free_bytes`, which may make them smaller, and not towards the quota.
    pub read_window_bytes: u64,
    /// Sources of one download.
    pub sources_per_download_max: usize,
    /// Peers that receive content at a time.
    pub uploads_max: usize,
    /// Peers remembered for wrong content that they sent, about 1 KiB of memory each.
    pub blamed_peers_max: usize,
    /// Concurrent copies to other nodes.
    pub pushes_max: usize,
    /// Pieces stored for the network, [`Limits::PIECE_BYTES`] of memory each: see [`Limits::pieces_for`].
    pub pieces_max: usize,
    /// Paths that files are served from where they lie: [`Limits::SHARE_BYTES`] of memory each, and [`Limits::CARE_BYTES`] for
    /// each piece of a file whose copies are looked after.
    pub shares_max: usize,
    /// Values that this node publishes, up to 2 KB of memory each.
    pub values_max: usize,
    /// Bytes on disk of stored pieces and the cache together.
    pub quota_bytes: u64,
    /// The interval of scrub: seconds within which everything on disk is read; 0 is only on command.
    pub scrub_seconds: u32,
    /// Bytes of the file system that stay free, whatever the quota; `None` is a twentieth of it and at least 64 MiB.
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
    /// Connections of the HTTP gateway, about 17 KiB of memory each; 0 when there is no gateway. More are turned away.
    pub http_clients_max: usize,
    /// The rate limits of content.
    pub rates: Rates,
}

/// Rate limits of content, in bytes per second; 0 is unlimited. Frames and datagrams count against a limit but never wait for
/// it. The limit of a peer is that of a connection: a peer has at most two, of which it uses one.
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

/// The highest [`Limits::clients_max`]: a client's number has 12 bits for its place in the table.
pub const CLIENTS_MAX: usize = 4096;

const READ_WINDOW_BYTES_MAX: u64 = 1 << 30;

/// The lowest rate limit, in bytes per second. Other nodes time out on a chunk that comes much more slowly.
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
            streams_unauthenticated_max: 16,
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
            http_clients_max: 0,
            rates: Rates::default(),
        }
    }
}

/// A bound that is out of range or contradicts another: which, and why.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct InvalidLimits(pub &'static str);

impl fmt::Display for InvalidLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid limits: {}", self.0)
    }
}

impl std::error::Error for InvalidLimits {}

/// The smallest default of [`Limits::pieces_max`].
const PIECES_MIN: usize = 106_496;
/// The bytes of quota for each piece of the default of [`Limits::pieces_max`]: a tenth of the smallest chunk, because small files
/// are smaller than a chunk.
const BYTES_A_PIECE: u64 = 26_000;

impl Limits {
    /// Bytes of memory that a shared file of one chunk takes, to serve and to announce it, when its path has 24 bytes; a file
    /// of several chunks takes 16 more for each.
    pub const SHARE_BYTES: u64 = 420;
    /// Bytes of memory for each piece whose copies the node looks after.
    pub const CARE_BYTES: u64 = 180;
    /// Bytes of memory that a piece takes which is kept for others.
    pub const PIECE_BYTES: u64 = 620;
    /// Bytes of memory that an announcement takes which is kept for others.
    pub const PROVIDER_BYTES: u64 = 280;
    /// Bytes of memory that a value takes, the own ones and those kept for others.
    pub const VALUE_BYTES: u64 = 2048;

    /// Bytes of memory that a connection of the HTTP gateway takes: a head and a body of 8 KiB each.
    pub const HTTP_CLIENT_BYTES: u64 = 17 << 10;
    /// Bytes of answers of the HTTP gateway in memory, content aside: it makes no further one when this would not be enough.
    pub const HTTP_ANSWER_BYTES: usize = 16 << 20;
    /// Bytes that one of them has at most: a page of files whose names have to be escaped.
    pub const HTTP_REPLY_BYTES: usize = 2 << 20;

    /// Bytes of memory that everything takes which the node keeps, when there is as much of it as the bounds allow.
    pub fn memory_bytes(&self) -> u64 {
        let values = self.values_max as u64 + self.records_max as u64;
        let http = match self.http_clients_max as u64 {
            0 => 0,
            clients => clients * Self::HTTP_CLIENT_BYTES + Self::HTTP_ANSWER_BYTES as u64,
        };
        self.shares_max as u64 * (Self::SHARE_BYTES + Self::CARE_BYTES)
            + self.pieces_max as u64 * Self::PIECE_BYTES
            + self.providers_max as u64 * Self::PROVIDER_BYTES
            + values * Self::VALUE_BYTES
            + self.blamed_peers_max as u64 * 1024
            + http
    }

    /// The default of [`Limits::pieces_max`] for a quota: the number of pieces of 26,000 bytes that fill it, and at least 106,496,
    /// which take about 66 MB of memory.
    pub fn pieces_for(quota_bytes: u64) -> usize {
        usize::try_from(quota_bytes / BYTES_A_PIECE).unwrap_or(usize::MAX).max(PIECES_MIN)
    }

    /// Checks the bounds against each other.
    pub fn validate(&self) -> Result<(), InvalidLimits> {
        let rules = [
            (
                self.datagrams_queued_max >= 32,
                "datagrams_queued must be at least 32, for one turn of a lookup and its answers",
            ),
            (
                self.transactions_max >= 32,
                "transactions must be at least 32: a lookup has up to 6 outstanding requests, five lookups 30",
            ),
            (
                self.lookups_max >= 4,
                "lookups must be at least 4, for joining, refreshing and a user's lookup",
            ),
            (self.values_max >= 1 && self.shares_max >= 1, "values and shares must be at least 1"),
            (self.records_max >= 1, "records must be at least 1"),
            (self.providers_per_file_max >= 1, "providers_per_file must be at least 1"),
            (
                self.providers_max >= self.providers_per_file_max,
                "providers must be at least providers_per_file: the providers of one file must fit the table",
            ),
            (
                self.streams_unauthenticated_max >= 2,
                "unauthenticated streams must be at least 2: a silent peer must leave room for an honest one",
            ),
            (
                self.streams_max > self.streams_unauthenticated_max,
                "streams must be more than the unauthenticated streams, to leave room for authenticated ones",
            ),
            (self.requests_in_flight_max >= 1, "requests_in_flight must be at least 1"),
            (
                self.requests_in_flight_max <= self.requests_per_stream_max,
                "requests_in_flight must not exceed requests_per_stream, or equal nodes would refuse each other's requests",
            ),
            (self.sources_per_download_max >= 1, "sources_per_download must be at least 1"),
            (
                self.sources_per_download_max < self.streams_max,
                "streams must be more than sources_per_download, so that one download leaves some for others",
            ),
            (
                self.blamed_peers_max >= 1,
                "blamed_peers must be at least 1, or a peer that sends wrong content would be asked again at once",
            ),
            (self.reads_max >= 1, "reads must be at least 1"),
            (self.read_window_bytes <= READ_WINDOW_BYTES_MAX, "read_window must be at most 1 GiB"),
            (self.clients_max >= 1 && self.clients_max <= CLIENTS_MAX, "clients must be 1 to 4,096"),
            (self.http_clients_max <= CLIENTS_MAX - 8, "http_clients must be at most 4,088"),
            (self.uploads_max >= 1, "uploads must be at least 1: a node that downloads also uploads"),
            (
                self.downloads_max >= 1 && self.pushes_max >= 1 && self.commands_max >= 1,
                "downloads, pushes and commands must be at least 1",
            ),
            (self.commands_per_client_max >= 1, "commands_per_client must be at least 1"),
            (self.explains_max >= 1, "explains must be at least 1"),
            (
                self.descriptors_passed_max >= 2,
                "descriptors_passed must be at least 2: one message of a client brings up to 2",
            ),
        ];
        let Rates { upload, download, peer_upload, peer_download } = self.rates;
        if [upload, download, peer_upload, peer_download].iter().any(|rate| (1..RATE_MIN).contains(rate)) {
            return Err(InvalidLimits("a rate must be at least 16 KiB a second, or 0 for unlimited"));
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
    fn everything_that_the_default_allows_fits_a_host_with_256_mib() {
        let mib = Limits::default().memory_bytes() >> 20;
        assert!(mib <= 168, "{mib} MiB");
    }

    #[test]
    fn the_default_is_valid_and_a_contradiction_is_named() {
        assert_eq!(Limits::default().validate(), Ok(()));
        let wrong = Limits { streams_unauthenticated_max: 64, ..Limits::default() };
        assert!(wrong.validate().unwrap_err().to_string().contains("unauthenticated streams"));
    }
}
