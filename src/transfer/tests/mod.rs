//! Several machines, connected in memory.

mod blame;
mod download;
mod hostile;
mod inspect;
mod push;
mod random;
mod swarm;
mod world;
