//! A picture of what Elver does: a simulated run, drawn at four moments.
//!
//! The picture shows the run as it happened: which node holds which chunk, which nodes sent content to which, and when.

use crate::Outcome;
use core::fmt::Write;
use elver::id::Key;
use elver::sim::disk::{Change, Crash};
use elver::sim::ledger::REPAIR_WINDOW;
use elver::sim::population::{self, Joining};
use elver::sim::workload::Workload;
use elver::sim::{Plan, World};
use std::collections::{BTreeMap, BTreeSet};
use std::f64::consts::TAU;
use std::path::PathBuf;
use std::time::Duration;

/// Draw a simulated run as an SVG file: a file is put in, fetched elsewhere, loses two nodes that hold it, and is repaired.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The picture to write.
    #[arg(long, default_value = "tools/pictures/story.svg")]
    out: PathBuf,
    /// The number of nodes.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u8).range(6..=24))]
    nodes: u8,
    /// The seed of the run.
    #[arg(long, default_value_t = 6)]
    seed: u64,
}

/// The length of the file: four chunks.
const FILE_BYTES: usize = 1 << 20;
const REPLICAS: u8 = 3;
/// A home's uplink, in bytes a second. At this rate a download uses more than one source.
const UPLINK: u64 = 500_000;
/// Time for the network to finish one step.
const STEP_LIMIT: Duration = Duration::from_secs(10 * 60);
const COLOURS: [&str; 4] = ["#d1495b", "#edae49", "#00798c", "#6a4c93"];

pub(crate) fn run(arguments: &Arguments) -> Outcome<()> {
    let mut story = Story::begin(arguments.seed, usize::from(arguments.nodes));
    let panels = [story.put()?, story.get()?, story.lose()?, story.repair()?];
    std::fs::write(&arguments.out, draw(&panels, story.world.hosts.len()))?;
    for panel in &panels {
        println!("{}: {}", panel.title, panel.caption);
    }
    println!("{} written", arguments.out.display());
    Ok(())
}

/// One moment of the run.
struct Panel {
    title: &'static str,
    caption: String,
    /// Chunks of the file, by the nodes that hold them.
    held: BTreeMap<usize, BTreeSet<Key>>,
    /// Chunks that arrived since the previous panel.
    new: BTreeSet<(usize, Key)>,
    /// Nodes that have the whole file.
    whole: BTreeSet<usize>,
    dead: BTreeSet<usize>,
    /// Content sent, from node to node.
    flows: Vec<(usize, usize)>,
    chunks: Vec<Key>,
}

/// The run so far.
struct Story {
    world: World,
    work: Workload,
    chunks: Vec<Key>,
    held: BTreeMap<usize, BTreeSet<Key>>,
    whole: BTreeSet<usize>,
    dead: BTreeSet<usize>,
}

impl Story {
    fn begin(seed: u64, nodes: usize) -> Story {
        let mut plan = Plan::new(seed);
        plan.links.up = UPLINK;
        let mut world = World::new(plan);
        population::build(&mut world, nodes, Joining::Remembered);
        Story {
            world,
            work: Workload::default(),
            chunks: Vec::new(),
            held: BTreeMap::new(),
            whole: BTreeSet::new(),
            dead: BTreeSet::new(),
        }
    }

    /// The first node puts the file in.
    fn put(&mut self) -> Outcome<Panel> {
        self.work.put(&mut self.world, 0, FILE_BYTES, REPLICAS);
        let seconds = self.until("the file to be stored", |story| story.work.pending() == 0)?;
        let file = self.work.files.first().ok_or("the file was not stored")?;
        self.chunks = file.content.manifest().keys().to_vec();
        self.whole.insert(0);
        self.until("all copies", |story| story.copies_min() >= usize::from(REPLICAS))?;
        let caption = format!("synced on a quorum after {seconds:.1} s");
        let mut panel = self.panel("put", caption, &self.held);
        panel.flows = self.held.keys().map(|holder| (0, *holder)).collect();
        Ok(panel)
    }

    /// A node that holds no chunk fetches the file.
    fn get(&mut self) -> Outcome<Panel> {
        let nodes = 1..self.world.hosts.len();
        let getter =
            nodes.rev().min_by_key(|node| self.held.get(node).map_or(0, BTreeSet::len)).ok_or("no node")?;
        let file = self.work.files[0].clone();
        let sent: Vec<u64> = self.world.hosts.iter().map(|host| host.traffic.stream_bytes_out).collect();
        self.work.get(&mut self.world, getter, &file);
        let seconds = self.until("the download", |story| story.work.pending() == 0)?;
        if self.work.gets.done != 1 {
            return Err(format!("the download failed: {:?}", self.work.gets.messages).into());
        }
        self.whole.insert(getter);
        let before = self.held.clone();
        let sources: Vec<usize> = (0..sent.len())
            .filter(|node| {
                *node != getter && self.world.hosts[*node].traffic.stream_bytes_out - sent[*node] > 1 << 16
            })
            .collect();
        let caption =
            format!("from {} nodes, every chunk verified, done after {seconds:.1} s", sources.len());
        let mut panel = self.panel("get", caption, &before);
        panel.flows = sources.into_iter().map(|source| (source, getter)).collect();
        Ok(panel)
    }

    /// The publisher and the fullest holder lose power and never come back.
    fn lose(&mut self) -> Outcome<Panel> {
        let holder = (1..self.world.hosts.len())
            .filter(|node| !self.whole.contains(node))
            .max_by_key(|node| self.held.get(node).map_or(0, BTreeSet::len))
            .ok_or("no holder")?;
        let before = self.held.clone();
        for node in [0, holder] {
            self.world.crash(node, Crash::Power);
            self.dead.insert(node);
        }
        let caption = format!("nodes 1 and {} lose power, for good", holder + 1);
        Ok(self.panel("two nodes die", caption, &before))
    }

    /// The other nodes make the missing copies, within the time that repair may take.
    fn repair(&mut self) -> Outcome<Panel> {
        let before = self.held.clone();
        let began = self.world.now();
        let mut last = began;
        while self.world.now().since(began) < REPAIR_WINDOW {
            let count = self.held.values().map(BTreeSet::len).sum::<usize>();
            self.pass();
            if self.held.values().map(BTreeSet::len).sum::<usize>() > count {
                last = self.world.now();
            }
        }
        let mut panel = self.panel("repair", String::new(), &before);
        let minutes = last.since(began).as_secs_f64() / 60.0;
        panel.caption = format!("{} new copies, the last after {minutes:.0} min", panel.new.len());
        Ok(panel)
    }

    /// Live copies of the chunk that has the fewest. A node that has the whole file stores no second copy of its chunks.
    fn copies_min(&self) -> usize {
        let holds = |node: &usize, chunk: &Key| {
            self.whole.contains(node) || self.held.get(node).is_some_and(|held| held.contains(chunk))
        };
        let nodes = 0..self.world.hosts.len();
        let live = |chunk: &Key| {
            nodes.clone().filter(|node| !self.dead.contains(node) && holds(node, chunk)).count()
        };
        self.chunks.iter().map(live).min().unwrap_or(0)
    }

    /// Runs the world until `done`. Returns the seconds that it took.
    fn until(&mut self, awaited: &str, done: impl Fn(&Story) -> bool) -> Outcome<f64> {
        let began = self.world.now();
        while !done(self) {
            if self.world.now().since(began) > STEP_LIMIT {
                return Err(format!("waited in vain for {awaited}").into());
            }
            self.pass();
        }
        Ok(self.world.now().since(began).as_secs_f64())
    }

    /// Runs the world for a moment, and notes what the nodes stored and dropped.
    fn pass(&mut self) {
        if let Some(happening) = self.world.next(self.world.now() + Duration::from_millis(100)) {
            let _ = self.work.take(&self.world, &happening);
        }
        for (node, change) in self.world.take_changes() {
            match change {
                Change::Stored(meta) => self.held.entry(node).or_default().insert(meta.key),
                Change::Gone(key) => self.held.entry(node).or_default().remove(&key),
            };
        }
    }

    fn panel(&self, title: &'static str, caption: String, before: &BTreeMap<usize, BTreeSet<Key>>) -> Panel {
        let new = self.held.iter().flat_map(|(node, held)| held.iter().map(|key| (*node, *key)));
        let known = |(node, key): &(usize, Key)| before.get(node).is_some_and(|held| held.contains(key));
        let of_the_file = |(_, key): &(usize, Key)| self.chunks.contains(key);
        Panel {
            title,
            caption,
            held: self.held.clone(),
            new: new.filter(|place| of_the_file(place) && !known(place)).collect(),
            whole: self.whole.clone(),
            dead: self.dead.clone(),
            flows: Vec::new(),
            chunks: self.chunks.clone(),
        }
    }
}

const PANEL_WIDTH: f64 = 300.0;
const PANEL_HEIGHT: f64 = 330.0;
const RING: f64 = 105.0;

fn draw(panels: &[Panel], nodes: usize) -> String {
    let width = PANEL_WIDTH * panels.len() as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {PANEL_HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"8\" refY=\"4\" markerWidth=\"7\" markerHeight=\"7\" \
         orient=\"auto\"><path d=\"M0,0 L8,4 L0,8 z\" fill=\"#888\"/></marker></defs>\n"
    );
    for (index, panel) in panels.iter().enumerate() {
        // Writing into a string cannot fail.
        let _ = writeln!(svg, "<g transform=\"translate({},0)\">", PANEL_WIDTH * index as f64);
        draw_panel(&mut svg, index + 1, panel, nodes);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

fn draw_panel(svg: &mut String, number: usize, panel: &Panel, nodes: usize) {
    let centre = (PANEL_WIDTH / 2.0, 175.0);
    let place = |node: usize| {
        let angle = TAU * (node as f64 / nodes as f64 - 0.25);
        (centre.0 + RING * angle.cos(), centre.1 + RING * angle.sin())
    };
    let middle = PANEL_WIDTH / 2.0;
    let _ = writeln!(
        svg,
        "<text x=\"{middle}\" y=\"22\" font-size=\"15\" text-anchor=\"middle\">{number}. {}</text>\n\
         <text x=\"{middle}\" y=\"318\" fill=\"#555\" text-anchor=\"middle\">{}</text>",
        panel.title, panel.caption
    );
    for &(from, to) in &panel.flows {
        let ((x1, y1), (x2, y2)) = (place(from), place(to));
        let length = (x2 - x1).hypot(y2 - y1).max(1.0);
        let (dx, dy) = ((x2 - x1) / length * 24.0, (y2 - y1) / length * 24.0);
        let _ = writeln!(
            svg,
            "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"#888\" marker-end=\"url(#tip)\"/>",
            x1 + dx,
            y1 + dy,
            x2 - dx,
            y2 - dy
        );
    }
    for node in 0..nodes {
        draw_node(svg, panel, node, place(node));
    }
}

fn draw_node(svg: &mut String, panel: &Panel, node: usize, (x, y): (f64, f64)) {
    let (dead, whole) = (panel.dead.contains(&node), panel.whole.contains(&node));
    let (fill, stroke, width) = match (dead, whole) {
        (true, _) => ("#eee", "#bbb", 1.0),
        (false, true) => ("#e3f2e1", "#2e7d32", 2.0),
        (false, false) => ("#f4f6f8", "#5c6770", 1.0),
    };
    let opacity = if dead { 0.25 } else { 1.0 };
    let _ = writeln!(
        svg,
        "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"22\" fill=\"{fill}\" stroke=\"{stroke}\" stroke-width=\"{width}\"/>\n\
         <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\" fill=\"{stroke}\">{}</text>",
        y - 3.0,
        node + 1
    );
    let nothing = BTreeSet::new();
    let held = panel.held.get(&node).unwrap_or(&nothing);
    let squares: Vec<(&Key, &str)> =
        panel.chunks.iter().zip(COLOURS).filter(|(chunk, _)| whole || held.contains(chunk)).collect();
    let left = x - 5.0 * squares.len() as f64;
    for (index, (chunk, colour)) in squares.iter().enumerate() {
        let at = left + 10.0 * index as f64;
        let ring = if panel.new.contains(&(node, **chunk)) { " stroke=\"black\"" } else { "" };
        let _ = writeln!(
            svg,
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"8\" height=\"8\" fill=\"{colour}\" opacity=\"{opacity}\"{ring}/>",
            at + 1.0,
            y + 4.0
        );
    }
    if dead {
        let (a, b, c, d) = (x - 13.0, y - 13.0, x + 13.0, y + 13.0);
        let _ = writeln!(
            svg,
            "<path d=\"M{a:.1},{b:.1} L{c:.1},{d:.1} M{a:.1},{d:.1} L{c:.1},{b:.1}\" stroke=\"#b00020\" stroke-width=\"2\"/>"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_shows_three_copies_of_each_chunk_again_after_two_nodes_died() {
        let mut story = Story::begin(1, 10);
        let put = story.put().unwrap();
        assert_eq!(put.chunks.len(), 4);
        assert!(!put.held.is_empty());
        let get = story.get().unwrap();
        assert_eq!(get.whole.len(), 2);
        assert!(!get.flows.is_empty());
        assert_eq!(story.lose().unwrap().dead.len(), 2);
        let repair = story.repair().unwrap();
        assert!(story.copies_min() >= 3);
        assert!(!repair.new.is_empty());
        let svg = draw(&[put, get, repair], 10);
        assert_eq!(svg.matches("<circle").count(), 30);
        assert!(svg.ends_with("</svg>\n"));
    }
}
