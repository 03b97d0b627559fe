//! Replication: who must hold which stored piece, and making copies when too few do.

mod config;

pub use config::{InvalidTiming, ReplicationConfig};
