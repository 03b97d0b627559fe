//! Membership: who is there, and who is not any more.

mod config;

pub use config::{GossipConfig, InvalidTiming};
