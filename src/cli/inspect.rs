//! `peers`, `status` and `id`.

use super::Context;
use super::exit::{CommandError, Exit};
use crate::config::units::{format_duration, format_size};
use crate::node::command::{Command, Peer, Reply, Status};
use serde::Serialize;
use serde_json::json;

/// Lists the routing table.
pub(super) fn peers(context: &mut Context) -> Result<Exit, CommandError> {
    let reply = context.request(&Command::Peers, "")?;
    let Reply::Peers { peers } = reply else {
        return Err(context.unexpected(&reply));
    };
    for peer in &peers {
        match context.output.json {
            true => object(context, peer)?,
            false => context.output.line(&peer_line(peer))?,
        }
    }
    if peers.is_empty() {
        context.output.remark("no peers yet; give the node an address to join through with --bootstrap");
    }
    Ok(Exit::Done)
}

fn peer_line(peer: &Peer) -> String {
    let id = peer.id.to_string();
    let rtt = match peer.rtt_micros {
        Some(micros) => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
        None => "-".to_owned(),
    };
    let state = if peer.good { "good" } else { "questionable" };
    let seen = format_duration(peer.last_seen_seconds);
    format!(
        "{}  {:<24}  {rtt:>9}  {seen:>9} ago  {state}",
        id.get(..16).unwrap_or(&id),
        peer.addr.to_string()
    )
}

/// Shows how the node is doing.
pub(super) fn status(context: &mut Context) -> Result<Exit, CommandError> {
    let reply = context.request(&Command::Status, "")?;
    let Reply::Status(status) = reply else {
        return Err(context.unexpected(&reply));
    };
    if context.output.json {
        object(context, &status)?;
        return Ok(Exit::Done);
    }
    for (name, value) in status_lines(&status) {
        context.output.line(&format!("{name:<12}  {value}"))?;
    }
    Ok(Exit::Done)
}

fn status_lines(status: &Status) -> Vec<(String, String)> {
    let address = status.address.map_or("not known yet".to_owned(), |address| address.to_string());
    let role = if status.leaf { "leaf" } else { "full" };
    let mut lines: Vec<(String, String)> = [
        ("node", status.id.clone()),
        ("version", status.version.clone()),
        ("network", format!("{:08x}", status.network)),
        ("role", role.to_owned()),
        ("listens on", status.listen.clone()),
        ("seen as", address),
        ("up for", format!("{}, start {}", format_duration(status.uptime_seconds), status.boots)),
        ("peers", status.peers.to_string()),
        ("lookups", format!("{} under way", status.lookups)),
        ("streams", format!("{} open, {} downloads under way", status.streams, status.downloads)),
        ("records", format!("{} values, {} providers", status.records, status.providers)),
        ("files", format!("{} shared", status.shares)),
        ("pieces", format!("{} stored for others", status.pieces)),
        ("disk", format!("{} of {}", format_size(status.stored_bytes), format_size(status.quota_bytes))),
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
    let counters = status.counters.iter().filter(|&(_, &count)| count > 0);
    lines.extend(counters.map(|(name, count)| (name.clone(), count.to_string())));
    lines
}

/// Prints who the node is.
pub(super) fn id(context: &mut Context) -> Result<Exit, CommandError> {
    let reply = context.request(&Command::Id, "")?;
    let Reply::Id { id, public } = reply else {
        return Err(context.unexpected(&reply));
    };
    match context.output.json {
        true => context.output.object(&json!({ "id": id, "public": public }))?,
        false => context.output.line(&public.to_string())?,
    }
    Ok(Exit::Done)
}

fn object(context: &mut Context, value: &impl Serialize) -> Result<(), CommandError> {
    let value = serde_json::to_value(value)
        .map_err(|error| CommandError::failed(format!("cannot write the answer as JSON: {error}")))?;
    context.output.object(&value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::tests::kept;
    use crate::cli::testing::FakeDaemon;
    use crate::id::{NodeId, PublicKey};
    use crate::node::command::Response;

    type Inspect = fn(&mut Context) -> Result<Exit, CommandError>;

    fn answer(inspect: Inspect, json: bool, reply: Reply) -> Result<String, Exit> {
        let daemon = FakeDaemon::answering(&[Response::Done(reply)]);
        let (output, results, _) = kept(json);
        let mut context = Context { dir: daemon.dir().to_owned(), output };
        inspect(&mut context).map(|_| results.text()).map_err(|error| error.exit)
    }

    fn peer() -> Peer {
        Peer {
            id: NodeId([0xab; 32]),
            public: PublicKey([1; 32]),
            addr: "[2001:db8::7]:3583".parse().unwrap(),
            good: true,
            last_seen_seconds: 61,
            rtt_micros: Some(12_345),
        }
    }

    #[test]
    fn a_peer_is_a_line() {
        let text = answer(peers, false, Reply::Peers { peers: vec![peer(), peer()] }).unwrap();
        assert_eq!(text.lines().count(), 2);
        for part in ["abababababababab  [2001:db8::7]:3583 ", " 12.3 ms ", " 1 m 1 s ago  good"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_peer_in_json_is_an_object() {
        let text = answer(peers, true, Reply::Peers { peers: vec![peer()] }).unwrap();
        assert_eq!(serde_json::from_str::<Peer>(&text).unwrap(), peer());
    }

    #[test]
    fn the_status_shows_what_was_counted() {
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
    fn id_is_the_public_key_alone() {
        let reply = Reply::Id { id: NodeId([2; 32]), public: PublicKey([1; 32]) };
        assert_eq!(answer(id, false, reply).unwrap(), format!("{}\n", PublicKey([1; 32])));
    }

    #[test]
    fn a_reply_to_another_command_is_a_failure() {
        for inspect in [peers, status, id] {
            assert_eq!(answer(inspect, false, Reply::Leave), Err(Exit::Failed));
        }
    }
}
