//! `/metrics`: the node's status in Prometheus' text format, version 0.0.4.
//!
//! Base units (bytes, seconds), `_total` for what only grows, and no address, id or hash as a label: those would make a new series for
//! each value that ever occurred.

use super::answer::{Answer, Status as Code};
use crate::node::command::{DiskHealth, GossipStatus, RepairStatus, Status};
use core::fmt::Display;
use core::fmt::Write;
use std::collections::BTreeSet;

/// The type of the answer.
const MEDIA: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The counters of the loop's turns, which are shown as a summary.
const TURNS: [&str; 4] = ["turns", "turn_micros_p50", "turn_micros_p99", "turn_micros_max"];

/// The answer with a node's metrics.
pub(super) fn answer(status: &Status) -> Answer {
    Answer::new(Code::OK, MEDIA, render(status).into_bytes()).with("Cache-Control", "no-store")
}

/// The metrics as text.
fn render(status: &Status) -> String {
    let mut page = Page::default();
    node(status, &mut page);
    store(status, &mut page);
    if let Some(gossip) = &status.gossip {
        membership(gossip, &mut page);
    }
    if let Some(repair) = &status.repair {
        replication(repair, &mut page);
    }
    turns(status, &mut page);
    for (name, value) in &status.counters {
        // Some are fields of the status, too.
        let family = format!("elver_{name}_total");
        if !TURNS.contains(&name.as_str()) && !page.families.contains(&family) {
            page.total(&family, &format!("The counter {name} of `elver status`."), value);
        }
    }
    page.text
}

fn node(status: &Status, page: &mut Page) {
    page.family("elver_build_info", "gauge", "The version of the program, as a label; always 1.");
    page.sample("elver_build_info", &[("version", &status.version)], 1);
    page.gauge("elver_up_seconds", "Seconds since the node started.", status.uptime_seconds);
    page.total("elver_starts_total", "Starts of the node.", status.boots);
    page.gauge("elver_troubles", "Problems of the node; 0 when it is well.", status.troubles.len());
    page.gauge("elver_leaf", "Whether the node is a leaf.", u8::from(status.leaf));
    let reachable = u8::from(status.unreachable.is_none());
    page.gauge(
        "elver_reachable",
        "Whether other nodes can connect to the node, as far as it knows.",
        reachable,
    );
    let twice = u8::from(status.identity_twice.is_some());
    page.gauge("elver_identity_twice", "Whether another process has the node's key.", twice);
    let alone = status.alone_seconds.unwrap_or(0);
    page.gauge("elver_alone_seconds", "Seconds since any other node was last there; 0 while one is.", alone);
    page.gauge("elver_peers", "Contacts in the routing table.", status.peers);
    page.gauge("elver_streams", "Open streams to peers.", status.streams);
    page.gauge("elver_streams_max", "The limit of open streams.", status.streams_max);
    page.gauge("elver_lookups", "Lookups under way.", status.lookups);
    page.gauge("elver_downloads", "Downloads under way.", status.downloads);
    page.gauge("elver_reads", "Files that are being streamed to clients.", status.reads);
    page.gauge("elver_queued", "Downloads and reads that wait for their turn.", status.queued);
    page.total(
        "elver_received_bytes_total",
        "Bytes of content received from peers.",
        status.downloaded_bytes,
    );
    page.total("elver_sent_bytes_total", "Bytes of content sent to peers.", status.uploaded_bytes);
}

fn store(status: &Status, page: &mut Page) {
    page.gauge("elver_files", "Shared files.", status.shares);
    page.gauge("elver_pieces", "Pieces stored for others.", status.pieces);
    page.gauge("elver_records", "Value records kept for others.", status.records);
    page.gauge("elver_providers", "Provider records kept for others.", status.providers);
    page.gauge(
        "elver_stored_bytes",
        "The space of stored pieces and the cache on disk.",
        status.stored_bytes,
    );
    page.gauge("elver_quota_bytes", "The quota for them.", status.quota_bytes);
    if let Some(free) = status.free_bytes {
        page.gauge("elver_disk_free_bytes", "Free bytes of the file system.", free);
    }
    let keep = status.keep_free_bytes;
    page.gauge("elver_disk_keep_free_bytes", "The part of the free bytes that is left to the host.", keep);
    page.family("elver_disk_health", "gauge", "The health of the disk: 1 for the present one.");
    let all =
        [DiskHealth::Well, DiskHealth::Full, DiskHealth::ReadOnly, DiskHealth::Failing, DiskHealth::Gone];
    for health in all {
        let present = u8::from(status.disk.health == health);
        page.sample("elver_disk_health", &[("health", health.name())], present);
    }
    let every = status.scrub.every_seconds;
    page.gauge("elver_scrub_interval_seconds", "The time within which everything is read once.", every);
    if let Some(age) = status.scrub.last_age_seconds {
        page.gauge("elver_scrub_age_seconds", "Seconds of running time since the last complete scrub.", age);
    }
    if let Some(last) = &status.scrub.last {
        page.gauge("elver_scrub_bad", "Pieces and files that did not verify in the last scrub.", last.bad);
    }
}

fn membership(gossip: &GossipStatus, page: &mut Page) {
    page.family("elver_members", "gauge", "Members of the network that the node knows, by their liveness.");
    for (state, count) in [
        ("live", gossip.live),
        ("suspect", gossip.suspect),
        ("unresponsive", gossip.unresponsive),
        ("evicted", gossip.evicted),
        ("left", gossip.left),
        ("unproven", gossip.unproven),
    ] {
        page.sample("elver_members", &[("state", state)], count);
    }
    let health = gossip.local_health;
    page.gauge("elver_local_health", "How slow the node itself is to answer: 0 is best, 8 worst.", health);
    page.total("elver_gossip_rounds_total", "Rounds of gossip.", gossip.rounds);
    page.total("elver_gossip_learned_total", "States of members that were new.", gossip.states_learned);
    page.total("elver_gossip_refused_total", "States of members that were refused.", gossip.states_refused);
    page.total("elver_gossip_probes_total", "Members probed.", gossip.probes);
    page.total("elver_gossip_suspicions_total", "Members that became suspect.", gossip.suspicions);
    page.total("elver_gossip_refuted_total", "Suspicions of the node that it refuted.", gossip.refuted);
}

fn replication(repair: &RepairStatus, page: &mut Page) {
    page.family("elver_pieces_cared", "gauge", "Pieces whose copies the node looks after, by their state.");
    for (state, count) in [("healthy", repair.whole), ("short", repair.short), ("surplus", repair.surplus)] {
        page.sample("elver_pieces_cared", &[("state", state)], count);
    }
    page.gauge("elver_pieces_urgent", "Pieces with no more copies than a quorum.", repair.urgent);
    page.gauge("elver_pieces_copying", "Pieces that are being copied by the node.", repair.copying);
    page.total("elver_repair_copies_total", "Copies made by repair.", repair.copies_made);
    page.total("elver_repair_bytes_total", "Bytes sent for them.", repair.bytes);
    page.total("elver_repair_abandoned_total", "Repairs whose cause was gone.", repair.abandoned);
    let suspected = u8::from(repair.partition.is_some());
    page.gauge("elver_partition_suspected", "Whether the node suspects that it is partitioned.", suspected);
}

fn turns(status: &Status, page: &mut Page) {
    let [count, median, late, most] = TURNS.map(|name| status.counters.get(name).copied().unwrap_or(0));
    let name = "elver_loop_turn_seconds";
    page.family(name, "summary", "The time that turns of the loop take.");
    for (quantile, micros) in [("0.5", median), ("0.99", late), ("1", most)] {
        page.sample(name, &[("quantile", quantile)], micros as f64 / 1e6);
    }
    page.sample("elver_loop_turn_seconds_count", &[], count);
}

/// The text so far, and the families in it: each may be there once.
#[derive(Default)]
struct Page {
    text: String,
    families: BTreeSet<String>,
}

impl Page {
    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn total(&mut self, name: &str, help: &str, value: impl Display) {
        debug_assert!(name.ends_with("_total"), "{name}");
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let is_new = self.families.insert(name.to_owned());
        debug_assert!(is_new, "{name} is there twice");
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    /// A sample. The values of labels are the program's own words, without quotes and line breaks.
    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.text += name;
        for (at, (label, text)) in labels.iter().enumerate() {
            let _ = write!(self.text, "{}{label}=\"{text}\"", if at == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_follows_its_family_and_names_have_units() {
        let counters = [
            ("turns", 7),
            ("turn_micros_p50", 31),
            ("turn_micros_max", 2_000_000),
            ("http_requests", 3),
            ("gossip_rounds", 8),
        ];
        let status = Status {
            id: "0f".repeat(32),
            version: "0.1.0".to_owned(),
            peers: 5,
            counters: counters.map(|(name, value)| (name.to_owned(), value)).into(),
            gossip: Some(GossipStatus { live: 4, ..GossipStatus::default() }),
            repair: Some(RepairStatus::default()),
            ..Status::default()
        };
        let text = render(&status);
        for line in [
            "elver_build_info{version=\"0.1.0\"} 1",
            "elver_peers 5",
            "elver_members{state=\"live\"} 4",
            "elver_disk_health{health=\"well\"} 1",
            "elver_disk_health{health=\"gone\"} 0",
            "# TYPE elver_loop_turn_seconds summary",
            "elver_loop_turn_seconds{quantile=\"0.5\"} 0.000031",
            "elver_loop_turn_seconds{quantile=\"1\"} 2",
            "elver_loop_turn_seconds_count 7",
            "# TYPE elver_http_requests_total counter",
            "elver_http_requests_total 3",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("micros") && !text.contains(&status.id));
        let (mut families, mut family) = (BTreeSet::new(), "");
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                family = rest.split(' ').next().unwrap();
                assert!(families.insert(family), "{family} is there twice");
            } else if !line.starts_with('#') {
                assert!(line.starts_with(family), "{line} is of another family than {family}");
            }
        }
    }
}
