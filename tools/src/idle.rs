//! The cost of an idle node.

use crate::Outcome;
use crate::node::{Node, WorkDir};
use std::path::Path;
use std::time::Duration;

/// Measure an idle node with an empty store among a few others: memory and wake-ups per second.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Seconds to measure.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The number of other nodes.
    #[arg(long, default_value_t = 3)]
    others: u32,
}

pub(crate) fn run(binary: &Path, arguments: &Arguments) -> Outcome<()> {
    let work = WorkDir::new(None)?;
    let measured = Node::start(binary, work.join("measured"), None, &[])?;
    let others: Vec<Node> = (0..arguments.others)
        .map(|index| Node::start(binary, work.join(format!("other{index}")), Some(measured.addr), &[]))
        .collect::<Outcome<_>>()?;
    measured.wait_for_peers(arguments.others)?;
    std::thread::sleep(Duration::from_secs(5));
    let before = measured.usage()?;
    std::thread::sleep(Duration::from_secs(arguments.seconds));
    let after = measured.usage()?;
    println!(
        "idle for {} s among {} others: resident {} KiB ({} KiB of it anonymous), {:.2} wake-ups/s, {:.1} ms of processor time per second",
        arguments.seconds,
        others.len(),
        after.resident,
        after.anonymous,
        (after.wakeups - before.wakeups) as f64 / arguments.seconds as f64,
        (after.cpu - before.cpu) * 1000.0 / arguments.seconds as f64,
    );
    Ok(())
}
