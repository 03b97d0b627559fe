//! Real nodes against hostile peers that speak the protocol, over real sockets. A node refuses and counts what they send,
//! spends a bounded amount of memory on it, and still serves and fetches what honest peers have.

mod attacks;
mod crew;
mod datagrams;
mod puppets;
mod relay;
mod sources;
mod streams;
#[path = "../support/mod.rs"]
mod support;
