//! A simulated world of real nodes: deterministic, in virtual time, from one seed.
//!
//! Every host of a [`World`] runs a real [`Node`](crate::node::Node) that speaks the real wire format. The world simulates
//! what a driver offers a node: datagrams ([`link`]), streams, disks ([`disk`]), clocks, and the failures of all of them.
//! By default, checksums replace signatures ([`Identity::stand_in`](crate::identity::Identity::stand_in)). This changes only
//! the time that a run takes. `Plan::real_signatures` keeps the signatures.
//!
//! The same seed gives the same run, event for event. [`World::trace`] is a hash over all events.
//!
//! - The world: [`world`] handles one event after the other. `streams` and `fabric` carry out the outputs of nodes. The
//!   rest is data: `event`, `queue`, `packets`, [`host`], [`link`], [`disk`], [`blob`], [`chance`], [`trace`].
//! - Hosts that break the protocol: [`adversary`], [`hostile`], [`on_path`], [`reserve`], [`puppet`]; `reseal` lets them write their
//!   own frames. [`attack`] adds any of them to a scenario.
//! - Checks: [`watch`] with every event, [`ledger`] for stored pieces, [`invariants`] for the numbers that the design
//!   promises. The invariants read nodes through [`observe`].
//! - Runs and their output: [`scenario`], [`tables`], [`picture`].
//!
//! `cargo run --release -p elver-tools -- sim --help` runs them.

pub mod adversary;
pub mod attack;
pub mod blob;
pub mod chance;
pub mod disk;
mod event;
mod fabric;
pub mod faults;
pub mod host;
pub mod hostile;
pub mod invariants;
pub mod junk;
pub mod ledger;
pub mod link;
pub mod observe;
pub mod on_path;
mod packets;
mod peek;
pub mod picture;
pub mod population;
pub mod puppet;
mod queue;
pub mod report;
mod reseal;
pub mod reserve;
pub mod scenario;
pub mod seeds;
pub mod stage;
mod streams;
pub mod tables;
#[cfg(test)]
mod tests;
pub mod trace;
pub mod watch;
pub mod workload;
pub mod world;

pub use event::WorldEvent;
pub use peek::Peeked;
pub use world::{Plan, World};
