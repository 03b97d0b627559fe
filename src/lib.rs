//! Elver.
pub mod dht;
pub mod disk;
pub mod id;
pub mod identity;
pub mod io;
pub mod limits;
pub mod manifest;
pub mod rng;
pub mod store;
pub mod time;
pub mod wire;

pub mod transfer;

pub mod node;
