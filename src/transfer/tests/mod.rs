//! Several machines, connected in memory.

mod download;
mod hostile;
mod push;
mod random;
mod world;
