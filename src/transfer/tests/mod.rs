//! Several machines, connected in memory.

mod blame;
mod download;
mod getters;
mod hostile;
mod inspect;
mod push;
mod random;
mod swarm;
mod world;
