//! `status`.

use super::Context;
use super::exit::{CommandError, Exit};
use super::output::counted;
use crate::config::units::{format_duration, format_size};
use crate::gossip::LOCAL_HEALTH_WORST;
use crate::limits::Rates;
use crate::node::command::{
    BootstrapName, Command, DiskHealth, DiskStatus, GossipStatus, IdentityTwice, PartitionStatus,
    RepairStatus, Reply, ScrubStatus, Status, Trouble,
};

/// Shows the node's state and statistics.
pub(super) fn status(context: &mut Context) -> Result<Exit, CommandError> {
    let reply = context.request(&Command::Status, "")?;
    let Reply::Status(status) = reply else {
        return Err(context.unexpected(&reply));
    };
    let exit = if status.troubles.is_empty() { Exit::Done } else { Exit::Unwell };
    if context.output.json {
        context.output.object(&status)?;
        return Ok(exit);
    }
    for (name, value) in status_lines(&status) {
        context.output.line(&format!("{name:<12}  {value}"))?;
    }
    Ok(exit)
}

/// Whether the node is well, or what is wrong, in one line.
fn state_line(troubles: &[Trouble]) -> String {
    if troubles.is_empty() {
        return "well".to_owned();
    }
    let words = |trouble: &Trouble| format!("{} (for {})", trouble.message, format_duration(trouble.seconds));
    format!("NOT WELL: {}", troubles.iter().map(words).collect::<Vec<_>>().join("; "))
}

/// The node's state in one line, for the service manager. It has no times, so that it changes only when the state does.
pub(super) fn summary(status: &Status) -> String {
    let state = match &status.troubles[..] {
        [] => "well".to_owned(),
        troubles => troubles.iter().map(|trouble| trouble.message.as_str()).collect::<Vec<_>>().join("; "),
    };
    format!(
        "{state}; {}, {} shared, {} stored for others",
        counted(status.peers, "peer"),
        counted(status.shares, "file"),
        counted(status.pieces, "piece")
    )
}

fn network_line(status: &Status) -> String {
    let access = if status.network_closed { "closed: only nodes with its key join" } else { "open" };
    format!("{:08x}, {access}", status.network)
}

fn identity_line(IdentityTwice { address, seconds }: &IdentityTwice) -> String {
    let seconds = format_duration(*seconds);
    format!(
        "IN USE TWICE: another node with the same key is at {address}, for {seconds}; see `elver id --help`"
    )
}

fn status_lines(status: &Status) -> Vec<(String, String)> {
    let address = status.address.map_or("not known yet".to_owned(), |address| address.to_string());
    let role = if status.leaf { "leaf" } else { "full" };
    let mut lines: Vec<(String, String)> = [
        ("state", state_line(&status.troubles)),
        ("node", status.id.clone()),
        ("version", status.version.clone()),
        ("network", network_line(status)),
        ("role", role.to_owned()),
        ("listens on", status.listen.clone()),
        ("seen as", address),
        ("up for", format!("{}, start {}", format_duration(status.uptime_seconds), status.boots)),
        ("peers", status.peers.to_string()),
        ("lookups", format!("{} under way", status.lookups)),
        ("streams", format!("{} open", status.streams)),
        ("downloads", downloads_line(status)),
        ("records", format!("{} values, {} providers", status.records, status.providers)),
        ("files", format!("{} shared", status.shares)),
        ("pieces", format!("{} stored for others", status.pieces)),
        ("disk", room_line(status)),
        ("disk is", disk_line(&status.disk)),
        ("scrub", scrub_line(&status.scrub)),
        ("limits", limits_line(&status.rates, status.streams_max, status.uploads_max)),
        (
            "content",
            format!(
                "{} in, {} out",
                format_size(status.downloaded_bytes),
                format_size(status.uploaded_bytes)
            ),
        ),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    if let Some(http) = status.http {
        lines.push(("HTTP".to_owned(), format!("http://{http}/")));
    }
    if status.id_work > 0 {
        let line = format!(
            "{} bits of work asked for; nodes with less kept out {} times",
            status.id_work, status.without_work
        );
        lines.insert(1, ("identities".to_owned(), line));
    }
    if let Some(twice) = &status.identity_twice {
        lines.insert(1, ("identity".to_owned(), identity_line(twice)));
    }
    lines.extend(status.bootstrap_names.iter().map(|name| ("bootstrap".to_owned(), name_line(name))));
    lines.extend(status.gossip.iter().flat_map(gossip_lines));
    lines.extend(status.repair.iter().flat_map(repair_lines));
    let counters = status.counters.iter().filter(|&(_, &count)| count > 0);
    lines.extend(counters.map(|(name, count)| (name.clone(), count.to_string())));
    lines
}

/// A bootstrap name and its addresses, in one line.
fn name_line(name: &BootstrapName) -> String {
    let addresses: Vec<String> = name.addresses.iter().map(ToString::to_string).collect();
    let mut line = match addresses.is_empty() {
        true => format!("{} is at no known address", name.name),
        false => format!("{} is at {}", name.name, addresses.join(", ")),
    };
    if name.left_out > 0 {
        line += &format!(" and {} more, which are not used", name.left_out);
    }
    if let Some(error) = &name.error {
        line += &format!("; it does not resolve: {error}");
    }
    line
}

/// The disk's health in one line.
fn disk_line(disk: &DiskStatus) -> String {
    match disk.health {
        DiskHealth::Well => DiskHealth::Well.name().to_owned(),
        health => format!("{} for {}: {}", health.name(), format_duration(disk.seconds), disk.message),
    }
}

fn gossip_lines(gossip: &GossipStatus) -> Vec<(String, String)> {
    let states = [
        (gossip.live, "live"),
        (gossip.suspect, "suspect"),
        (gossip.unresponsive, "unresponsive"),
        (gossip.evicted, "evicted"),
        (gossip.left, "left"),
        (gossip.unproven, "unproven"),
    ];
    let members = states.iter().enumerate().filter(|(index, (count, _))| *index == 0 || *count > 0);
    let members: Vec<String> = members.map(|(_, (count, state))| format!("{count} {state}")).collect();
    let health = match gossip.local_health {
        0 => "answers in time".to_owned(),
        score => format!("local health {score} of {LOCAL_HEALTH_WORST} (slow to answer): probes wait longer"),
    };
    let GossipStatus { rounds, states_learned, states_refused, .. } = gossip;
    let GossipStatus { probes, suspicions, refuted, .. } = gossip;
    [
        ("members", members.join(", ")),
        ("gossip", format!("{rounds} rounds, {states_learned} states learned, {states_refused} refused")),
        ("probes", format!("{probes} sent, {suspicions} suspicions, {refuted} of them refuted")),
        ("timing", health),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn repair_lines(repair: &RepairStatus) -> Vec<(String, String)> {
    let RepairStatus { whole, short, urgent, copying, surplus, .. } = repair;
    let mut lines = vec![
        (
            "copies",
            format!("{whole} pieces healthy, {short} under-replicated ({urgent} urgent), {surplus} surplus"),
        ),
        (
            "repair",
            format!(
                "{copying} under way, {} made ({}), {} abandoned",
                repair.copies_made,
                format_size(repair.bytes),
                repair.abandoned
            ),
        ),
    ];
    if let Some(partition) = &repair.partition {
        lines.push(("partition", partition_line(partition)));
    }
    lines.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The suspicion of a partition, and what repair waits for, in one line.
fn partition_line(partition: &PartitionStatus) -> String {
    let PartitionStatus { seconds, silent, neighbours, tolerated, seconds_left } = *partition;
    let missing = silent.saturating_sub(tolerated).max(1);
    let answer = if missing == 1 { "answers" } else { "answer" };
    format!(
        "suspects for {} that it is partitioned: {silent} of {neighbours} neighbours fell silent at once; \
         repair waits until {missing} of them {answer}, or at most {}",
        format_duration(seconds),
        format_duration(seconds_left)
    )
}

/// The bytes stored, the quota and the free space, in one line.
fn room_line(status: &Status) -> String {
    let over = if status.over_quota { ", over quota: the node hands pieces over to other nodes" } else { "" };
    let free = status.free_bytes.map_or(String::new(), |free| {
        let (left, floor) = (format_size(free), format_size(status.keep_free_bytes));
        match free <= status.keep_free_bytes {
            true => {
                format!(
                    "; {left} free, not above --keep-free {floor}: the node stores no more for other nodes"
                )
            }
            false => format!("; {left} free, {floor} of it kept free"),
        }
    });
    format!("{} of {}{over}{free}", format_size(status.stored_bytes), format_size(status.quota_bytes))
}

/// The progress and the last result of scrub, in one line.
fn scrub_line(scrub: &ScrubStatus) -> String {
    let every = match scrub.every_seconds {
        0 => "only on command".to_owned(),
        seconds => format!("within {}", format_duration(seconds)),
    };
    let running = match (&scrub.running, scrub.failing) {
        (_, true) => ", the medium cannot be read: check it; nothing is dropped".to_owned(),
        (Some(report), _) => format!(", {}% of a round done, {} bad", scrub.percent, report.bad),
        (None, _) => String::new(),
    };
    let last = match (&scrub.last, scrub.last_age_seconds) {
        (Some(report), Some(age)) => {
            let (read, ago) = (format_size(report.bytes), format_duration(age));
            format!(
                "; last round {ago} ago: {} pieces and files, {read}, {} bad",
                report.pieces + report.files,
                report.bad
            )
        }
        _ => String::new(),
    };
    format!("{every}{running}{last}")
}

/// The limits of rates, streams and uploads, in one line.
pub(super) fn limits_line(rates: &Rates, streams: u32, uploads: u32) -> String {
    let rate = |rate: u64| match rate {
        0 => "unlimited".to_owned(),
        rate => format!("{}/s", format_size(rate)),
    };
    format!(
        "{} out, {} in; {} to a peer, {} from a peer; {streams} streams, {uploads} uploads at a time",
        rate(rates.upload),
        rate(rates.download),
        rate(rates.peer_upload),
        rate(rates.peer_download)
    )
}

fn downloads_line(status: &Status) -> String {
    let (downloads, reads, queued) = (status.downloads, status.reads, status.queued);
    format!("{downloads} under way, {} being streamed, {queued} queued", counted(reads, "file"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::{FakeDaemon, answer};
    use crate::node::command::{Response, TroubleKind};

    #[test]
    fn the_summary_is_one_line_without_times() {
        let status = Status { peers: 1, shares: 2, ..Status::default() };
        assert_eq!(summary(&status), "well; 1 peer, 2 files shared, 0 pieces stored for others");
        let trouble = Trouble {
            kind: TroubleKind::DiskFull,
            seconds: 90,
            message: "its disk is full: no room".to_owned(),
        };
        let status = Status { troubles: vec![trouble], ..status };
        assert!(summary(&status).starts_with("its disk is full: no room; 1 peer, "), "{}", summary(&status));
    }

    #[test]
    fn the_status_shows_membership_and_repair() {
        let gossip = GossipStatus {
            live: 12,
            suspect: 1,
            left: 2,
            rounds: 90,
            states_learned: 70,
            states_refused: 3,
            local_health: 2,
            probes: 8,
            suspicions: 4,
            refuted: 3,
            ..GossipStatus::default()
        };
        let repair = RepairStatus {
            whole: 100,
            short: 5,
            urgent: 2,
            copying: 1,
            surplus: 4,
            copies_made: 9,
            bytes: 3 << 20,
            abandoned: 6,
            partition: Some(PartitionStatus {
                seconds: 61,
                silent: 6,
                neighbours: 20,
                tolerated: 3,
                seconds_left: 3539,
            }),
        };
        let full = Status { gossip: Some(gossip), repair: Some(repair), ..Status::default() };
        let text = answer(status, false, Reply::Status(Box::new(full.clone()))).unwrap();
        for part in [
            "members       12 live, 1 suspect, 2 left\n",
            "gossip        90 rounds, 70 states learned, 3 refused\n",
            "probes        8 sent, 4 suspicions, 3 of them refuted\n",
            "timing        local health 2 of 8 (slow to answer)",
            "copies        100 pieces healthy, 5 under-replicated (2 urgent), 4 surplus\n",
            "repair        1 under way, 9 made (3.0 MiB), 6 abandoned\n",
            "partition     suspects for 1 m 1 s that it is partitioned: 6 of 20 neighbours fell silent at once; \
             repair waits until 3 of them answer, or at most 58 m 59 s\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        let text = answer(status, true, Reply::Status(Box::new(full.clone()))).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), full);
        let text = answer(status, false, Reply::Status(Box::default())).unwrap();
        assert!(!text.contains("members") && !text.contains("partition"), "{text}");
    }

    #[test]
    fn the_first_line_of_the_status_and_its_exit_code_tell_whether_the_node_is_well() {
        let run = |troubles: &[Trouble], json: bool| {
            let reply = Status { troubles: troubles.to_vec(), ..Status::default() };
            let daemon = FakeDaemon::answering(&[Response::Done(Reply::Status(Box::new(reply)))]);
            let (mut context, results, _) = daemon.context(json);
            (status(&mut context).unwrap(), results.text())
        };
        let (exit, text) = run(&[], false);
        assert_eq!(exit, Exit::Done);
        assert!(text.starts_with("state         well\n"), "{text}");
        let trouble = |kind, seconds, message: &str| Trouble { kind, seconds, message: message.to_owned() };
        let troubles = [
            trouble(TroubleKind::DiskFull, 90, "its disk is full: no room"),
            trouble(TroubleKind::NoMembers, 61, "no other node can be reached"),
        ];
        let (exit, text) = run(&troubles, false);
        assert_eq!(exit, Exit::Unwell);
        let line = "state         NOT WELL: its disk is full: no room (for 1 m 30 s); no other node can be reached (for 1 m 1 s)\n";
        assert!(text.starts_with(line), "{text}");
        let (exit, text) = run(&troubles, true);
        assert_eq!(exit, Exit::Unwell);
        assert!(
            text.contains(
                r#""troubles":[{"kind":"disk_full","message":"its disk is full: no room","seconds":90},"#
            ),
            "{text}"
        );
    }

    #[test]
    fn the_status_shows_the_counters_that_are_not_zero() {
        let mut full = Status { id: "ab".to_owned(), quota_bytes: 1 << 30, ..Status::default() };
        full.counters.insert("refused_signature".to_owned(), 7);
        full.counters.insert("refused_length".to_owned(), 0);
        let text = answer(status, false, Reply::Status(Box::new(full.clone()))).unwrap();
        assert!(text.contains("0 B of 1.0 GiB") && text.contains("refused_signature  7\n"), "{text}");
        assert!(!text.contains("refused_length"), "{text}");
        let text = answer(status, true, Reply::Status(Box::new(full.clone()))).unwrap();
        assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), full);
    }

    #[test]
    fn a_reply_to_another_command_is_a_failure() {
        let reply = Reply::Leave { handed_over: 0, left_behind: 0 };
        assert_eq!(answer(status, false, reply), Err(Exit::Failed));
    }
}
