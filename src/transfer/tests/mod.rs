//! Several machines, connected in memory.

mod blame;
mod download;
mod getters;
pub(super) mod hostile;
mod inspect;
mod push;
mod random;
mod swarm;
mod world;
