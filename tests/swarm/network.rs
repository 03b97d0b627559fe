//! Several nodes on loopback that know each other.

use crate::support::{self, Scratch};
use std::path::PathBuf;

pub(crate) use crate::support::Node;

pub(crate) const MIB: usize = 1 << 20;

/// Nodes that know each other.
pub(crate) struct Swarm {
    pub(crate) nodes: Vec<Node>,
    pub(crate) dir: Scratch,
}

impl Swarm {
    pub(crate) fn start(count: usize) -> Swarm {
        Swarm::start_with(count, &[])
    }

    pub(crate) fn start_with(count: usize, extra: &[&str]) -> Swarm {
        let dir = Scratch::new();
        let first = Node::start(dir.path().join("n0"), &[], extra);
        let bootstrap = [first.addr];
        let mut nodes = vec![first];
        for index in 1..count {
            nodes.push(Node::start(dir.path().join(format!("n{index}")), &bootstrap, extra));
        }
        let swarm = Swarm { nodes, dir };
        wait_for("every node to know every other", || {
            swarm.nodes.iter().all(|node| node.status().peers as usize >= count - 1)
        });
        swarm
    }

    /// Waits until every piece of a file has as many copies as its put requested.
    pub(crate) fn wait_for_copies(&self, publisher: usize, hash: &str) {
        wait_for("the copies", || {
            let files = self.nodes[publisher].files();
            files.iter().any(|file| file.hash.to_string() == hash && file.copies >= u32::from(file.replicas))
        });
    }
}

/// Waits for a condition, with a limit.
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    support::wait_for(what, || condition().then_some(()));
}

/// Content that depends only on the seed and differs between seeds.
pub(crate) fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Writes a file with that content and returns its path.
pub(crate) fn file(dir: &Scratch, name: &str, seed: u64, length: usize) -> PathBuf {
    dir.file(name, &content(seed, length))
}
