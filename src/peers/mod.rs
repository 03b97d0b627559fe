//! Rules for peers that every machine needs, each in one place.
//!
//! - [`table`]: the peers themselves (`peer`, `sets`), whose datagrams are authenticated by [hop keys](hop) and [tokens], and received
//!   once ([`replay`]), and which answer after a [round-trip time](rtt) or stay silent (`silence`).
//! - [`inbox`]: how a datagram is received; [`checks`]: the budget of signature checks.
//! - [`outbox`]: the queue of outgoing datagrams.
//! - [`liveness`]: whether a node is alive.
//! - [`blame`]: the peers that sent wrong content.
//! - [`rate`]: the rate of an event (the token bucket).
//! - [`reply`]: the number of bytes that an unvalidated address may be sent (the rule against amplification).
//! - [`party`]: the owners of addresses.
//! - [`contest`]: which entry of a full table gives way.
//! - [`rtt`]: round-trip times, and the timeouts that follow from them.
//! - [`requests`]: outstanding requests.
//! - [`standing`]: whether a datagram is fresh, and its address validated.

pub mod blame;
pub mod checks;
pub mod contest;
pub mod hop;
pub mod inbox;
pub mod liveness;
pub mod outbox;
pub mod party;
mod peer;
pub mod rate;
pub mod replay;
pub mod reply;
pub mod requests;
pub mod rtt;
mod sets;
mod silence;
pub mod standing;
pub mod table;
#[cfg(test)]
pub(crate) mod testing;
pub mod tokens;
