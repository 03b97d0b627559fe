//! Runs simulated networks.
use crate::Outcome;
use elver::sim::*;
use elver::time::Duration;
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[arg(long, default_value_t = 1000)]
    nodes: usize,
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[arg(long)]
    warm: bool,
}
pub(crate) fn run(a: &Arguments) -> Outcome<()> {
    let t = std::time::Instant::now();
    let mut w = World::new(Plan::new(a.seed));
    population::build(
        &mut w,
        a.nodes,
        if a.warm {
            population::Joining::Remembered
        } else {
            population::Joining::OneByOne(Duration::from_secs(600))
        },
    );
    let (d, e) = w.counts();
    println!(
        "built {:?} {d} datagrams {e} events {:.0}/s",
        t.elapsed(),
        e as f64 / t.elapsed().as_secs_f64()
    );
    let t = std::time::Instant::now();
    w.run_for(Duration::from_secs(60 * a.minutes));
    let (d2, e2) = w.counts();
    println!(
        "ran {:?} {} datagrams {:.0}/s, {} events, trace {:x}",
        t.elapsed(),
        d2 - d,
        (d2 - d) as f64 / t.elapsed().as_secs_f64(),
        e2 - e,
        w.trace()
    );
    let rss = std::fs::read_to_string("/proc/self/statm")?.split(' ').nth(1).unwrap().parse::<u64>()? * 4096;
    println!("rss {} MB, {} KB/node; {:?}", rss >> 20, (rss >> 10) / a.nodes as u64, w.watch.violations);
    let s = w.status(5).unwrap();
    println!("peers {} counters {:?}", s.peers, s.counters);
    Ok(())
}
