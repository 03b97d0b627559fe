//! Invariant 5.

use crate::node::Node;
use crate::sim::observe::{Observer, View};
use crate::sim::report::{Check, quantile, sorted};
use crate::sim::world::World;
use crate::time::{Duration, Instant};
use std::collections::BTreeSet;

/// The number of nearest live nodes that must know of a crash.
pub const NEAREST: usize = 20;
const WITHIN: f64 = 60.0;
/// The allowed evictions of live nodes per node-day.
const FALSE_EVICTIONS: f64 = 1e-4;

/// The hosts that others can connect to, and that take themselves for unreachable now.
pub fn mistaken(world: &World) -> impl Iterator<Item = usize> {
    let is_public = |host: &usize| world.links.was_always_public(*host);
    let mistaken = |host: &usize| world.hosts[*host].node().is_some_and(Node::is_unreachable);
    world.honest().into_iter().filter(is_public).filter(mistaken)
}

/// No host that others can connect to took itself for unreachable. `mistaken`: the hosts that did.
pub fn reachability(world: &World, mistaken: &BTreeSet<usize>) -> Check {
    let public = (0..world.hosts.len()).filter(|host| world.links.was_always_public(*host)).count();
    let found = format!("{} of {public}: {:?}", mistaken.len(), mistaken.iter().take(8).collect::<Vec<_>>());
    let claim = "no node that others can connect to takes itself for unreachable";
    Check::new(5, claim, public as u64, mistaken.is_empty(), found)
}

/// Crashed hosts, and the nearest nodes that have yet to notice each crash.
#[derive(Default)]
pub struct Detection {
    waiting: Vec<(usize, Instant, Vec<usize>)>,
    seconds: Vec<f64>,
    never: u64,
    told: bool,
}

impl Detection {
    /// To be called when a host has just crashed.
    pub fn crashed(&mut self, world: &World, host: usize) {
        let key = world.id(host).key();
        let mut near = world.honest();
        near.retain(|other| *other != host);
        near.sort_by_key(|other| world.id(*other).distance(&key));
        near.truncate(NEAREST);
        self.waiting.push((host, world.now(), near));
    }

    /// Notes which nodes know of each crash by now. To be called about once a second. A node that was stopped meanwhile has heard
    /// nothing: its time begins when it goes on. Of a host that has returned nobody has to learn that it was away.
    pub fn look(&mut self, world: &World, observer: &Observer) {
        let now = world.now();
        let (told, seconds, never) = (&mut self.told, &mut self.seconds, &mut self.never);
        self.waiting.retain_mut(|(host, since, near)| {
            let id = world.id(*host);
            let waited = |other: usize| now.since(world.hosts[other].active_since.max(*since)).as_secs_f64();
            if world.hosts[*host].node().is_some() {
                seconds.extend(near.iter().map(|other| waited(*other)).filter(|waited| *waited > WITHIN));
                return false;
            }
            near.retain(|other| {
                let it = &world.hosts[*other];
                let Some(node) = it.node().filter(|_| it.is_up()) else { return it.is_awake() };
                let view = (observer.view)(node, &id);
                *told |= view.is_some();
                let knows = matches!(view, Some(View::Unresponsive | View::Evicted | View::Left));
                if knows {
                    seconds.push(waited(*other));
                }
                !knows
            });
            let late = now.since(*since) > Duration::from_secs(300);
            *never += if late { near.len() as u64 } else { 0 };
            !near.is_empty() && !late
        });
    }

    /// The median and the 99th percentile in seconds, and the number of observations.
    pub fn quantiles(&self) -> (f64, f64, usize) {
        let seconds = sorted(self.seconds.clone());
        (quantile(&seconds, 0.5), quantile(&seconds, 0.99), seconds.len())
    }

    /// The check of the time until a crash is known.
    pub fn check(&self) -> Check {
        let (p50, p99, count) = self.quantiles();
        let never = if self.told { self.never } else { 0 };
        let found = format!("p50 {p50:.0} s, p99 {p99:.0} s, never {never}");
        let share = never as f64 <= 0.01 * (count as u64 + never) as f64;
        Check::new(5, "crashes are known within 60 s", count as u64, p99 <= WITHIN && share, found)
    }
}

/// Live nodes that another node evicted, over the whole run.
#[derive(Default)]
pub struct FalseEvictions {
    seen: std::collections::BTreeSet<(usize, usize)>,
    looks: u64,
}

impl FalseEvictions {
    /// Looks at how up to fifty hosts see all `steady` hosts. `steady` are hosts that were never down.
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

    /// The check. `node_days` is the lifetime of all nodes together.
    pub fn check(&self, node_days: f64) -> Check {
        let rate = self.seen.len() as f64 / node_days.max(f64::MIN_POSITIVE);
        let found = format!("{} in {node_days:.1} node-days", self.seen.len());
        Check::new(5, "live nodes are not evicted", self.looks, rate < FALSE_EVICTIONS, found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::disk::Crash;
    use crate::sim::population::{Joining, build};
    use crate::sim::report::Verdict;
    use crate::sim::world::Plan;

    /// Watches a crash of host 3 for some seconds. `act` is called every second.
    fn watch(seconds: u64, mut act: impl FnMut(&mut World, u64)) -> Detection {
        let mut world = World::new(Plan::new(4));
        build(&mut world, 10, Joining::Remembered);
        let mut detection = Detection::default();
        detection.crashed(&world, 3);
        world.crash(3, Crash::Power);
        for second in 0..seconds {
            act(&mut world, second);
            world.run_for(Duration::from_secs(1));
            detection.look(&world, &Observer::present());
        }
        detection
    }

    #[test]
    fn a_crash_is_seen_by_all_and_one_that_is_not_breaks_the_promise() {
        let check = watch(90, |_, _| ()).check();
        assert_eq!(check.verdict, Verdict::Holds, "{}", check.found);
        assert_eq!(check.count, 9);
        let cut_off = watch(320, |world, second| {
            if second == 0 {
                (0..5).filter(|host| *host != 3).for_each(|host| world.pause(host));
            }
        });
        assert_eq!(cut_off.check().verdict, Verdict::Broken, "four never saw it");
    }

    #[test]
    fn a_host_that_returns_before_it_is_missed_needs_not_be_noticed() {
        let detection = watch(320, |world, second| {
            if second == 10 {
                world.start(3, &[]);
            }
        });
        assert_eq!(detection.check().verdict, Verdict::Unseen);
    }

    #[test]
    fn a_node_that_was_stopped_meanwhile_counts_from_when_it_goes_on() {
        let detection = watch(150, |world, second| match second {
            5 => world.pause(6),
            40 => world.resume(6),
            _ => {}
        });
        let (_, p99, count) = detection.quantiles();
        assert_eq!(count, 9);
        assert!(p99 < WITHIN, "{p99} s");
    }
}
