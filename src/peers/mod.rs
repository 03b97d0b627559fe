//! What every machine needs when it deals with peers, each rule in one place.
//!
//! - [`rate`]: how often something may happen (the token bucket).
//! - [`reply`]: how much an address may be sent that is not validated (the rule against amplification).
//! - [`party`]: who owns an address.
//! - [`rtt`]: round-trip times, and the timeouts that follow from them.
//! - [`requests`]: outstanding requests.
//! - [`standing`]: whether a datagram is fresh, and its address validated.

pub mod party;
pub mod rate;
pub mod reply;
pub mod requests;
pub mod rtt;
pub mod standing;
