//! `peers`.

use super::Context;
use super::exit::{CommandError, Exit};
use super::output::counted;
use crate::config::units::format_duration;
use crate::id::NodeId;
use crate::node::command::{Command, MemberState, Peer, PeerBan, Reply, Role};
use crate::wire::contact::scope_of;
use core::net::SocketAddr;
use nix::net::if_::if_indextoname;
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
            true => context.output.object(peer)?,
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
        shown(peer.addr),
        state_of(peer),
    );
    if let Some(learned) = peer.learned {
        line += &format!("  {:<10}", learned.name());
    }
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

/// An address as people write it: the interface of a link-local one by its name.
fn shown(addr: SocketAddr) -> String {
    let name = scope_of(addr).and_then(|scope| if_indextoname(scope).ok());
    match name.and_then(|name| name.into_string().ok()) {
        Some(name) => format!("[{}%{name}]:{}", addr.ip(), addr.port()),
        None => addr.to_string(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::{FakeDaemon, answer};
    use crate::id::{Key, NodeId, PublicKey};
    use crate::node::command::{Learned, Response};

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
            learned: None,
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
    fn a_line_tells_how_the_peer_was_found_and_names_the_interface_of_its_link() {
        let addr = "[fe80::7%1]:3583".parse().unwrap();
        let found = Peer { learned: Some(Learned::Lan), addr, ..peer() };
        let text = answer(all_peers, false, Reply::Peers { peers: vec![found.clone()] }).unwrap();
        assert!(text.contains("  [fe80::7%lo]:3583 ") && text.trim_end().ends_with("  lan"), "{text}");
        let text = answer(all_peers, true, Reply::Peers { peers: vec![found] }).unwrap();
        assert!(text.contains(r#""learned":"lan""#) && text.contains("[fe80::7%1]:3583"), "{text}");
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
    fn a_reply_to_another_command_is_a_failure() {
        let reply = Reply::Leave { handed_over: 0, left_behind: 0 };
        assert_eq!(answer(all_peers, false, reply), Err(Exit::Failed));
    }
}
