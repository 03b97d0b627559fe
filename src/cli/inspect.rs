//! `peers`, `status` and `id`.

use super::Context;
use super::exit::{CommandError, Exit};
use super::output::counted;
use crate::config::units::{format_duration, format_size};
use crate::gossip::LOCAL_HEALTH_WORST;
use crate::id::NodeId;
use crate::limits::Rates;
use crate::node::command::{
    Command, DiskHealth, DiskStatus, GossipStatus, IdentityTwice, MemberState, PartitionStatus, Peer,
    PeerBan, RepairStatus, Reply, Role, ScrubStatus, Status, Trouble,
};
use serde::Serialize;
use serde_json::json;

#[derive(clap::Args, Debug, Default)]
pub(super) struct PeersArguments {
    /// Lift the bans of a peer (the start of its id is enough), or of all
    #[arg(long, value_name = "ID|all", value_parser = parse_peer)]
    forgive: Option<Forgiven>,
}

/// The peers whose bans are lifted.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Forgiven {
    All,
    /// The peer whose id starts with these hexadecimal digits.
    Starting(String),
}

/// The fewest digits of an id that are accepted as its start.
const PEER_DIGITS_MIN: usize = 4;

fn parse_peer(text: &str) -> Result<Forgiven, String> {
    let text = text.to_ascii_lowercase();
    let digits = (PEER_DIGITS_MIN..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
    match text.as_str() {
        "all" => Ok(Forgiven::All),
        _ if digits => Ok(Forgiven::Starting(text)),
        _ => Err(format!("expected `all`, or at least the first {PEER_DIGITS_MIN} digits of a peer's id")),
    }
}

/// Lists the routing table, or lifts bans.
pub(super) fn peers(context: &mut Context, arguments: &PeersArguments) -> Result<Exit, CommandError> {
    if let Some(forgiven) = &arguments.forgive {
        return forgive(context, forgiven);
    }
    let reply = context.request(&Command::Peers, "")?;
    let Reply::Peers { peers } = reply else {
        return Err(context.unexpected(&reply));
    };
    for peer in &peers {
        match context.output.json {
            true => object(context, peer)?,
            false => {
                context.output.line(&peer_line(peer))?;
                for ban in &peer.bans {
                    context.output.line(&ban_line(ban))?;
                }
            }
        }
    }
    if peers.is_empty() {
        context.output.remark("no peers yet; give the node an address to join through with --bootstrap");
    }
    Ok(Exit::Done)
}

fn forgive(context: &mut Context, forgiven: &Forgiven) -> Result<Exit, CommandError> {
    let peer = match forgiven {
        Forgiven::All => None,
        Forgiven::Starting(digits) => Some(banned_peer(context, digits)?),
    };
    let reply = context.request(&Command::Forgive { peer }, "")?;
    let Reply::Forgive { bans } = reply else {
        return Err(context.unexpected(&reply));
    };
    match context.output.json {
        true => context.output.object(&json!({ "bans": bans }))?,
        false => context.output.remark(&format!("{} lifted", counted(bans, "ban"))),
    }
    Ok(Exit::Done)
}

/// The banned peer whose id starts with these digits.
fn banned_peer(context: &mut Context, digits: &str) -> Result<NodeId, CommandError> {
    let reply = context.request(&Command::Peers, "")?;
    let Reply::Peers { peers } = reply else {
        return Err(context.unexpected(&reply));
    };
    let named = |peer: &&Peer| !peer.bans.is_empty() && peer.id.to_string().starts_with(digits);
    let named: Vec<NodeId> = peers.iter().filter(named).map(|peer| peer.id).collect();
    match named[..] {
        [peer] => Ok(peer),
        [] => Err(CommandError::new(
            Exit::NotFound,
            format!("no banned peer has an id that starts with {digits}: `elver peers` lists the bans"),
        )),
        _ => Err(CommandError::new(
            Exit::Usage,
            format!("{} banned peers have an id that starts with {digits}: give more digits", named.len()),
        )),
    }
}

fn ban_line(ban: &PeerBan) -> String {
    let times = match ban.times {
        1 => String::new(),
        times => format!(" (offence {times} in a row)"),
    };
    let what = match ban.file {
        Some(file) => format!("file {file}, of which it sent wrong content"),
        None => "all files: it sent wrong content of several".to_owned(),
    };
    format!("    banned for {}: {what}{times}", format_duration(ban.seconds))
}

fn peer_line(peer: &Peer) -> String {
    let id = peer.id.to_string();
    let rtt = match peer.rtt_micros {
        Some(micros) => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        None => "-".to_owned(),
    };
    let seen = format_duration(peer.last_seen_seconds);
    let mut line = format!(
        "{}  {:<24}  {:<12}  {seen:>9} ago  {rtt:>9}",
        id.get(..16).unwrap_or(&id),
        peer.addr.to_string(),
        state_of(peer),
    );
    if let Some(load) = peer.load {
        line += &format!("  load {:>3} %", load / 10);
    }
    if let Some(chunks) = peer.chunks {
        line += &format!("  {chunks:>6} chunks");
    }
    if peer.role == Some(Role::Leaf) {
        line += "  leaf";
    }
    line
}

/// A peer's state: in membership if it is a member, else in the routing table.
fn state_of(peer: &Peer) -> &'static str {
    match (peer.state, peer.good) {
        (Some(MemberState::Live), _) => "live",
        (Some(MemberState::Suspect), _) => "suspect",
        (Some(MemberState::Unresponsive), _) => "unresponsive",
        (Some(MemberState::Evicted), _) => "evicted",
        (Some(MemberState::Left), _) => "left",
        (Some(MemberState::Unproven), _) => "unproven",
        (None, true) => "good",
        (None, false) => "questionable",
    }
}

/// Shows the node's state and statistics.
pub(super) fn status(context: &mut Context) -> Result<Exit, CommandError> {
    let reply = context.request(&Command::Status, "")?;
    let Reply::Status(status) = reply else {
        return Err(context.unexpected(&reply));
    };
    let exit = if status.troubles.is_empty() { Exit::Done } else { Exit::Unwell };
    if context.output.json {
        object(context, &status)?;
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
    lines.extend(status.gossip.iter().flat_map(gossip_lines));
    lines.extend(status.repair.iter().flat_map(repair_lines));
    let counters = status.counters.iter().filter(|&(_, &count)| count > 0);
    lines.extend(counters.map(|(name, count)| (name.clone(), count.to_string())));
    lines
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

fn object(context: &mut Context, value: &impl Serialize) -> Result<(), CommandError> {
    let value = serde_json::to_value(value)
        .map_err(|error| CommandError::failed(format!("cannot write the result as JSON: {error}")))?;
    context.output.object(&value)
}

fn downloads_line(status: &Status) -> String {
    let (downloads, reads, queued) = (status.downloads, status.reads, status.queued);
    format!("{downloads} under way, {} being streamed, {queued} queued", counted(reads, "file"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::FakeDaemon;
    use crate::id::{Key, NodeId, PublicKey};
    use crate::node::command::{Response, TroubleKind};

    type Inspect = fn(&mut Context) -> Result<Exit, CommandError>;

    fn answer(inspect: Inspect, json: bool, reply: Reply) -> Result<String, Exit> {
        let daemon = FakeDaemon::answering(&[Response::Done(reply)]);
        let (mut context, results, _) = daemon.context(json);
        inspect(&mut context).map(|_| results.text()).map_err(|error| error.exit)
    }

    fn all_peers(context: &mut Context) -> Result<Exit, CommandError> {
        peers(context, &PeersArguments::default())
    }

    fn peer() -> Peer {
        Peer {
            id: NodeId([0xab; 32]),
            public: PublicKey([1; 32]),
            addr: "[2001:db8::7]:3583".parse().unwrap(),
            good: true,
            last_seen_seconds: 61,
            rtt_micros: Some(12_345),
            state: None,
            load: None,
            chunks: None,
            free_bytes: None,
            version: None,
            role: None,
            sequence: None,
            bans: Vec::new(),
        }
    }

    fn member(state: MemberState) -> Peer {
        Peer {
            state: Some(state),
            load: Some(125),
            chunks: Some(17),
            free_bytes: Some(1 << 30),
            version: Some("0.1.0".to_owned()),
            role: Some(Role::Leaf),
            sequence: Some(1 << 32),
            ..peer()
        }
    }

    #[test]
    fn a_peer_is_a_line() {
        let text = answer(all_peers, false, Reply::Peers { peers: vec![peer(), peer()] }).unwrap();
        assert_eq!(text.lines().count(), 2);
        for part in ["abababababababab  [2001:db8::7]:3583 ", " good ", " 1 m 1 s ago    12.3 ms"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn the_line_of_a_member_shows_its_published_state() {
        use MemberState::*;
        let states = [
            (Live, "live"),
            (Suspect, "suspect"),
            (Unresponsive, "unresponsive"),
            (Evicted, "evicted"),
            (Left, "left"),
            (Unproven, "unproven"),
        ];
        for (state, name) in states {
            let text = answer(all_peers, false, Reply::Peers { peers: vec![member(state)] }).unwrap();
            assert!(text.contains(&format!("  {name} ")), "{text}");
            assert!(text.ends_with(" 12.3 ms  load  12 %      17 chunks  leaf\n"), "{text}");
        }
    }

    #[test]
    fn the_bans_of_a_peer_are_below_its_line() {
        let bans = vec![
            PeerBan { file: None, seconds: 240, times: 2 },
            PeerBan { file: Some(Key([7; 32])), seconds: 61, times: 1 },
        ];
        let banned = Peer { bans, ..peer() };
        let text = answer(all_peers, false, Reply::Peers { peers: vec![banned.clone(), peer()] }).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("    banned for 4 m 0 s: all files: "), "{text}");
        assert!(lines[1].ends_with(" (offence 2 in a row)"), "{text}");
        assert!(lines[2].starts_with(&format!("    banned for 1 m 1 s: file {}, ", Key([7; 32]))), "{text}");
        assert_eq!(lines.len(), 4);
        let text = answer(all_peers, true, Reply::Peers { peers: vec![banned.clone()] }).unwrap();
        assert_eq!(serde_json::from_str::<Peer>(&text).unwrap(), banned);
        assert!(text.contains(r#""bans":[{"file":null,"seconds":240,"times":2},"#), "{text}");
    }

    #[test]
    fn forgive_lifts_the_bans_of_all_peers_or_of_one() {
        assert_eq!(parse_peer("all"), Ok(Forgiven::All));
        assert_eq!(parse_peer("AbCd"), Ok(Forgiven::Starting("abcd".to_owned())));
        for wrong in ["", "abc", "xyzw", &"a".repeat(65)] {
            assert!(parse_peer(wrong).is_err(), "{wrong}");
        }
        let run = |forgive: Forgiven, reply: Reply| {
            let daemon = FakeDaemon::answering(&[Response::Done(reply)]);
            let (mut context, results, _) = daemon.context(true);
            let exit = peers(&mut context, &PeersArguments { forgive: Some(forgive) });
            (exit.map_err(|error| error.exit), results.text(), daemon.heard())
        };
        let (exit, text, heard) = run(Forgiven::All, Reply::Forgive { bans: 3 });
        assert_eq!(exit, Ok(Exit::Done));
        assert_eq!(text.trim(), r#"{"bans":3}"#);
        assert_eq!(heard, vec![Command::Forgive { peer: None }]);
        let starting = |digits: &str| Forgiven::Starting(digits.to_owned());
        let banned = Peer { bans: vec![PeerBan { file: None, seconds: 1, times: 1 }], ..peer() };
        let two = vec![banned.clone(), banned];
        assert_eq!(run(starting("abab"), Reply::Peers { peers: two }).0, Err(Exit::Usage));
        assert_eq!(run(starting("abab"), Reply::Peers { peers: vec![peer()] }).0, Err(Exit::NotFound));
    }

    #[test]
    fn a_peer_in_json_is_an_object() {
        for peer in [peer(), member(MemberState::Left)] {
            let text = answer(all_peers, true, Reply::Peers { peers: vec![peer.clone()] }).unwrap();
            assert_eq!(serde_json::from_str::<Peer>(&text).unwrap(), peer);
        }
        assert!(
            answer(all_peers, true, Reply::Peers { peers: vec![member(MemberState::Left)] })
                .unwrap()
                .contains(r#""state":"left""#)
        );
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
        for inspect in [all_peers, status] {
            assert_eq!(
                answer(inspect, false, Reply::Leave { handed_over: 0, left_behind: 0 }),
                Err(Exit::Failed)
            );
        }
    }
}
