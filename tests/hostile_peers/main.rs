//! Real nodes against peers that speak the protocol and mean harm, over real sockets: what they send is refused and
//! counted, costs a bounded amount of memory, and keeps nobody from getting what others have.

mod datagrams;
mod puppets;
mod relay;
mod sources;
mod streams;
#[path = "../support/mod.rs"]
mod support;
