//! A network of nodes on loopback, to try commands on.

use crate::Outcome;
use crate::node::{Node, WorkDir};
use std::io::Read;
use std::path::{Path, PathBuf};

/// Run a network of nodes on loopback until standard input ends (Ctrl-D).
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The number of nodes.
    #[arg(long, default_value_t = 8)]
    nodes: usize,
    /// The directory for the nodes' directories, which are removed at the end.
    #[arg(long)]
    work: Option<PathBuf>,
}

pub(crate) fn run(binary: &Path, arguments: &Arguments) -> Outcome<()> {
    let work = WorkDir::new(arguments.work.as_deref())?;
    let mut nodes: Vec<Node> = Vec::with_capacity(arguments.nodes);
    for index in 0..arguments.nodes {
        let bootstrap = nodes.first().map(|first| first.addr);
        nodes.push(Node::start(binary, work.join(format!("n{index}")), bootstrap, &[])?);
    }
    for node in &nodes {
        println!("{}  elver --dir {}", node.addr, node.dir.display());
    }
    println!("Ctrl-D ends all of them.");
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
