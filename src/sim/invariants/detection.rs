//! Invariant 5.

use crate::sim::observe::{Observer, View};
use crate::sim::report::{Check, quantile, sorted};
use crate::sim::world::World;
use crate::time::{Duration, Instant};

/// How many of the nearest live nodes must know.
pub const NEAREST: usize = 20;
const WITHIN: f64 = 60.0;
/// Evictions of live nodes that are allowed in a node-day.
const FALSE_EVICTIONS: f64 = 1e-4;

/// Crashed hosts, and who has yet to notice.
#[derive(Default)]
pub struct Detection {
    waiting: Vec<(usize, Instant, Vec<usize>)>,
    seconds: Vec<f64>,
    never: u64,
    told: bool,
}

impl Detection {
    /// A host has crashed just now.
    pub fn crashed(&mut self, world: &World, host: usize) {
        let key = world.id(host).key();
        let mut near: Vec<usize> = world.up().filter(|other| *other != host).collect();
        near.sort_by_key(|other| world.id(*other).distance(&key));
        near.truncate(NEAREST);
        self.waiting.push((host, world.now(), near));
    }

    /// Sees who knows by now. To be called every second or so.
    pub fn look(&mut self, world: &World, observer: &Observer) {
        let now = world.now();
        let (told, seconds, never) = (&mut self.told, &mut self.seconds, &mut self.never);
        self.waiting.retain_mut(|(host, since, near)| {
            let id = world.id(*host);
            near.retain(|other| {
                let Some(node) = world.hosts[*other].node() else { return false };
                let view = (observer.view)(node, &id);
                *told |= view.is_some();
                let knows = matches!(view, Some(View::Unresponsive | View::Evicted | View::Left));
                if knows {
                    seconds.push(now.since(*since).as_secs_f64());
                }
                !knows
            });
            let late = now.since(*since) > Duration::from_secs(300);
            *never += if late { near.len() as u64 } else { 0 };
            !near.is_empty() && !late
        });
    }

    /// Seconds: the median, the 99th percentile, and how many observations there were.
    pub fn quantiles(&self) -> (f64, f64, usize) {
        let seconds = sorted(self.seconds.clone());
        (quantile(&seconds, 0.5), quantile(&seconds, 0.99), seconds.len())
    }

    /// The check of the time that it takes.
    pub fn check(&self) -> Check {
        let (p50, p99, count) = self.quantiles();
        let never = if self.told { self.never } else { 0 };
        let found = format!("p50 {p50:.0} s, p99 {p99:.0} s, never {never}");
        let share = never as f64 <= 0.01 * (count as u64 + never) as f64;
        Check::new(5, "crashes are known within 60 s", count as u64, p99 <= WITHIN && share, found)
    }
}

/// Live nodes that another holds for gone, over the whole run.
#[derive(Default)]
pub struct FalseEvictions {
    seen: std::collections::BTreeSet<(usize, usize)>,
    looks: u64,
}

impl FalseEvictions {
    /// Looks at what every fiftieth host thinks of those next to it. `steady` are hosts that were never down.
    pub fn look(&mut self, world: &World, observer: &Observer, steady: &[usize]) {
        for &host in steady.iter().step_by(steady.len().div_ceil(50).max(1)) {
            let Some(node) = world.hosts[host].node() else { continue };
            for &other in steady {
                let view = (observer.view)(node, &world.id(other));
                self.looks += u64::from(view.is_some());
                if view == Some(View::Evicted) {
                    self.seen.insert((host, other));
                }
            }
        }
    }

    /// The check. `node_days` is how long all nodes together lived.
    pub fn check(&self, node_days: f64) -> Check {
        let rate = self.seen.len() as f64 / node_days.max(f64::MIN_POSITIVE);
        let found = format!("{} in {node_days:.1} node-days", self.seen.len());
        // One is not held against a run that was too short to tell.
        let holds = rate < FALSE_EVICTIONS || self.seen.is_empty();
        Check::new(5, "live nodes are not evicted", self.looks, holds, found)
    }
}
