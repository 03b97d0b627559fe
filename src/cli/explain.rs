//! `explain`.

use super::Context;
use super::exit::{CommandError, Exit};
use super::output::counted;
use crate::config::units::{format_duration, format_size, parse_duration};
use crate::id::Key;
use crate::node::command::{
    Command, CopiesOf, ExplainedNode, Explanation, Loss, Repair, Reply, Run, UnderRepair,
};

pub(super) const AFTER_HELP: &str = "\
Asks every node that should hold a piece of the file, and every node that provides it, which pieces are on its disk now. A copy counts
when its holder confirms it. Cached pieces are shown and do not count.

Examples:
  elver explain HASH                    the verdict, the holders, and what would be lost with which nodes
  elver explain HASH --chunks           each chunk on a line of its own
  elver explain HASH --json | jq .copies_min

Exit code 5: some pieces have fewer copies than a quorum (more than half of those asked for). Exit code 4: the same, but no other node
answered.";

/// The most groups of pieces shown without `--chunks`.
const GROUPS_SHOWN: usize = 24;
/// The most nodes shown.
const NODES_SHOWN: usize = 64;

#[derive(clap::Args, Debug)]
pub(super) struct ExplainArguments {
    /// The file's address: its BLAKE3 hash, as `elver put` and b3sum print it
    hash: Key,
    /// Count a node as silent that has not answered after this time, such as 10s or 2m [default: 30s]
    #[arg(long, value_name = "T", value_parser = parse_duration)]
    timeout: Option<u32>,
    /// List each chunk on a line of its own
    #[arg(long)]
    chunks: bool,
}

/// Shows how safe a file is.
pub(super) fn explain(context: &mut Context, arguments: &ExplainArguments) -> Result<Exit, CommandError> {
    let command = Command::Explain { hash: arguments.hash, timeout: arguments.timeout };
    let reply = context.request(&command, &short(&arguments.hash.to_string()))?;
    let Reply::Explain(explanation) = reply else {
        return Err(context.unexpected(&reply));
    };
    if context.output.json {
        let value = serde_json::to_value(&explanation)
            .map_err(|error| CommandError::failed(format!("cannot write the result as JSON: {error}")))?;
        context.output.object(&value)?;
    } else {
        let pieces = if arguments.chunks { chunk_lines(&explanation) } else { group_lines(&explanation) };
        let parts = [
            summary(&explanation),
            pieces,
            node_lines(&explanation),
            repair_lines(&explanation),
            loss_lines(&explanation),
        ];
        for (index, part) in parts.iter().filter(|part| !part.is_empty()).enumerate() {
            if index > 0 {
                context.output.line("")?;
            }
            for line in part {
                context.output.line(line)?;
            }
        }
    }
    Ok(exit_of(&explanation))
}

fn exit_of(explanation: &Explanation) -> Exit {
    match explanation.below_quorum {
        0 => Exit::Done,
        _ if explanation.nodes_answered == 0 => Exit::Unreachable,
        _ => Exit::BelowQuorum,
    }
}

/// The first digits of an address or an id.
fn short(id: &str) -> String {
    id.get(..8).unwrap_or(id).to_owned()
}

fn have(count: u32) -> &'static str {
    if count == 1 { "has" } else { "have" }
}

fn summary(explanation: &Explanation) -> Vec<String> {
    let manifest = if explanation.pieces > explanation.chunks { " and a manifest" } else { "" };
    let asked_for = match explanation.replicas {
        0 => "number asked for unknown".to_owned(),
        replicas => format!("{replicas} asked for, quorum {}", explanation.quorum),
    };
    let silent: Vec<String> = explanation
        .nodes
        .iter()
        .filter(|node| !node.own && !node.answered)
        .map(|node| short(&node.id.to_string()))
        .collect();
    let mut asked =
        format!("{}, {} answered", counted(explanation.nodes_asked, "node"), explanation.nodes_answered);
    if !silent.is_empty() {
        let more = silent.len().saturating_sub(NODES_SHOWN);
        asked += &format!("; no answer from {}", silent[..silent.len() - more].join(" "));
        if more > 0 {
            asked += &format!(" and {more} more");
        }
    }
    if !explanation.complete {
        asked += "; the timeout passed before every node was asked";
    }
    let lines = [
        ("file", explanation.hash.to_string()),
        (
            "size",
            format!(
                "{} in {}{manifest}",
                format_size(explanation.length),
                counted(explanation.chunks, "chunk")
            ),
        ),
        (
            "copies",
            format!(
                "min {}, median {}, max {}; {asked_for}",
                explanation.copies_min, explanation.copies_median, explanation.copies_max
            ),
        ),
        ("asked", asked),
        ("verdict", verdict(explanation)),
    ];
    lines.map(|(name, value)| format!("{name:<8}  {value}")).into()
}

fn verdict(explanation: &Explanation) -> String {
    if explanation.missing > 0 {
        let cached = explanation.groups.iter().filter(|group| group.copies == 0 && !group.cached.is_empty());
        let cached: u32 = cached.map(|group| group.pieces).sum();
        let rescue = match cached {
            0 => String::new(),
            cached => format!("; {cached} of them can still be fetched from a cache"),
        };
        let (missing, pieces) = (explanation.missing, counted(explanation.pieces, "piece"));
        return format!("NOT SAFE: {missing} of {pieces} {} no copy{rescue}", have(missing));
    }
    match (explanation.below_quorum, explanation.quorum) {
        (0, 0) => "every piece has a copy; the number of copies asked for is unknown".to_owned(),
        (0, _) if explanation.copies_min < u32::from(explanation.replicas) => {
            "every piece has a quorum of copies, some have fewer than asked for".to_owned()
        }
        (0, _) => "safe: every piece has as many copies as asked for".to_owned(),
        (below, quorum) => {
            format!(
                "AT RISK: {below} of {} {} fewer copies than the quorum of {quorum}",
                counted(explanation.pieces, "piece"),
                have(below)
            )
        }
    }
}

fn names(explanation: &Explanation, numbers: &[u32]) -> String {
    let name = |&number: &u32| match explanation.nodes.get(number as usize) {
        Some(node) => short(&node.id.to_string()),
        None => "?".to_owned(),
    };
    match numbers {
        [] => "-".to_owned(),
        numbers => numbers.iter().map(name).collect::<Vec<_>>().join(" "),
    }
}

fn runs(runs: &[Run], manifest: bool) -> String {
    /// Limits the length of the line.
    const RUNS_SHOWN: usize = 8;
    let mut texts: Vec<String> = runs
        .iter()
        .take(RUNS_SHOWN)
        .map(|run| match run.first == run.last {
            true => run.first.to_string(),
            false => format!("{}-{}", run.first, run.last),
        })
        .collect();
    if runs.len() > RUNS_SHOWN {
        texts.push("...".to_owned());
    }
    if manifest {
        texts.push("manifest".to_owned());
    }
    texts.join(",")
}

fn piece_line(explanation: &Explanation, group: &CopiesOf, pieces: &str, count: u32) -> String {
    let cached = match group.cached.as_slice() {
        [] => String::new(),
        cached => format!("  (cached: {})", names(explanation, cached)),
    };
    format!("{:>6}  {count:>6}  {pieces:<24}  {}{cached}", group.copies, names(explanation, &group.holders))
}

const PIECES_HEAD: &str = "copies  pieces  which                     on";

fn group_lines(explanation: &Explanation) -> Vec<String> {
    let shown = explanation.groups.iter().take(GROUPS_SHOWN);
    let lines =
        shown.map(|group| piece_line(explanation, group, &runs(&group.chunks, group.manifest), group.pieces));
    let mut lines: Vec<String> = [PIECES_HEAD.to_owned()].into_iter().chain(lines).collect();
    if explanation.groups.len() > GROUPS_SHOWN {
        let more: u32 = explanation.groups.iter().skip(GROUPS_SHOWN).map(|group| group.pieces).sum();
        lines.push(format!(
            "and {} more, with as many copies or more; --chunks lists each",
            counted(more, "piece")
        ));
    }
    lines
}

fn chunk_lines(explanation: &Explanation) -> Vec<String> {
    let mut pieces: Vec<(u32, &CopiesOf)> = Vec::new();
    for group in &explanation.groups {
        let chunks = group.chunks.iter().flat_map(|run| run.first..=run.last);
        // The manifest sorts after the last chunk.
        pieces.extend(chunks.chain(group.manifest.then_some(u32::MAX)).map(|chunk| (chunk, group)));
    }
    pieces.sort_by_key(|(chunk, _)| *chunk);
    let name = |chunk: u32| if chunk == u32::MAX { "manifest".to_owned() } else { chunk.to_string() };
    let lines = pieces.into_iter().map(|(chunk, group)| piece_line(explanation, group, &name(chunk), 1));
    [PIECES_HEAD.to_owned()].into_iter().chain(lines).collect()
}

fn node_lines(explanation: &Explanation) -> Vec<String> {
    let line = |node: &ExplainedNode| {
        let state = match node {
            ExplainedNode { own: true, .. } => "this node",
            ExplainedNode { answered: true, .. } => "answered",
            ExplainedNode { unreachable: true, .. } => "unreachable",
            _ => "silent",
        };
        let cached = if node.cached > 0 { format!(", {} cached", node.cached) } else { String::new() };
        format!(
            "{}  {:<24}  {:>6}  {:>10}  {state}{cached}",
            short(&node.id.to_string()),
            node.addr.to_string(),
            node.pieces,
            format_size(node.bytes)
        )
    };
    if explanation.nodes.is_empty() {
        return Vec::new();
    }
    let head = "node      address                   pieces        size  state".to_owned();
    let mut lines: Vec<String> =
        [head].into_iter().chain(explanation.nodes.iter().take(NODES_SHOWN).map(line)).collect();
    if explanation.nodes.len() > NODES_SHOWN {
        lines.push(format!("and {} more", explanation.nodes.len() - NODES_SHOWN));
    }
    lines
}

fn repair_lines(explanation: &Explanation) -> Vec<String> {
    let under: Vec<(&CopiesOf, &UnderRepair)> =
        explanation.groups.iter().filter_map(|group| Some((group, group.repair.as_ref()?))).collect();
    if under.is_empty() {
        return Vec::new();
    }
    let line = |(group, repair): &(&CopiesOf, &UnderRepair)| {
        let what = match repair.phase {
            Repair::Whole => "counts enough copies of",
            Repair::Waiting => "waits before it copies",
            Repair::Copying => "is copying",
            Repair::CutOff => "suspects that it is partitioned and does not copy",
        };
        let since = match repair.since_seconds {
            0 => String::new(),
            seconds => format!(", for {}", format_duration(seconds.into())),
        };
        let by = names(explanation, &[repair.node]);
        format!(
            "  {by} {what} {}: {}{since}",
            counted(group.pieces, "piece"),
            runs(&group.chunks, group.manifest)
        )
    };
    let mut lines = vec!["under repair".to_owned()];
    lines.extend(under.iter().take(GROUPS_SHOWN).map(line));
    if under.len() > GROUPS_SHOWN {
        lines.push(format!("  {} under repair in all", counted(explanation.under_repair, "piece")));
    }
    lines
}

fn loss_lines(explanation: &Explanation) -> Vec<String> {
    let line = |loss: &Loss| {
        let what = match (loss.chunks, loss.manifest) {
            (0, _) => "the manifest, without which the file cannot be fetched".to_owned(),
            (chunks, true) => format!("{} and the manifest", counted(chunks, "chunk")),
            (chunks, false) => counted(chunks, "chunk"),
        };
        format!("  {}: {what}, {}", names(explanation, &loss.nodes), format_size(loss.bytes))
    };
    if explanation.losses.is_empty() {
        return Vec::new();
    }
    let mut lines = vec!["lost if all nodes of a line failed at once".to_owned()];
    lines.extend(explanation.losses.iter().map(line));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::FakeDaemon;
    use crate::id::NodeId;
    use crate::node::command::Response;

    fn explanation() -> Explanation {
        let node = |number: u8, pieces| ExplainedNode {
            addr: ([127, 0, 0, number], 3583).into(),
            answered: true,
            pieces,
            bytes: u64::from(pieces) << 18,
            ..ExplainedNode::new(NodeId([number; 32]))
        };
        let mut silent = node(0xcc, 0);
        (silent.answered, silent.unreachable) = (false, true);
        let group = |copies: u32, chunks: &[(u32, u32)], manifest, holders: &[u32]| CopiesOf {
            pieces: chunks.iter().map(|(first, last)| last - first + 1).sum::<u32>() + u32::from(manifest),
            chunks: chunks.iter().map(|&(first, last)| Run { first, last }).collect(),
            manifest,
            bytes: 1 << 20,
            copies,
            holders: holders.to_vec(),
            cached: Vec::new(),
            repair: None,
        };
        let mut short = group(1, &[(2, 2)], false, &[1]);
        short.cached = vec![0];
        short.repair = Some(UnderRepair { phase: Repair::Waiting, node: 1, since_seconds: 75 });
        Explanation {
            hash: Key([7; 32]),
            length: 5 << 20,
            chunks: 4,
            chunk_bytes: 1 << 18,
            pieces: 5,
            replicas: 3,
            quorum: 2,
            copies_min: 1,
            copies_median: 2,
            copies_max: 2,
            below_quorum: 1,
            missing: 0,
            under_repair: 1,
            nodes_asked: 3,
            nodes_answered: 2,
            complete: true,
            groups: vec![short, group(2, &[(0, 1), (3, 3)], true, &[0, 1])],
            nodes: vec![node(0xaa, 4), node(0xbb, 5), silent],
            losses: vec![Loss { nodes: vec![1], chunks: 1, manifest: false, bytes: 1 << 18 }],
        }
    }

    fn shown(explanation: Explanation, chunks: bool, json: bool) -> (Exit, String) {
        let daemon = FakeDaemon::answering(&[Response::Done(Reply::Explain(Box::new(explanation)))]);
        let (mut context, results, _) = daemon.context(json);
        let arguments = ExplainArguments { hash: Key([7; 32]), timeout: Some(9), chunks };
        let exit = explain(&mut context, &arguments).unwrap();
        assert_eq!(daemon.heard(), vec![Command::Explain { hash: Key([7; 32]), timeout: Some(9) }]);
        (exit, results.text())
    }

    #[test]
    fn the_text_shows_the_verdict_the_holders_the_repairs_and_the_possible_losses() {
        let (exit, text) = shown(explanation(), false, false);
        assert_eq!(exit, Exit::BelowQuorum);
        for part in [
            "size      5.0 MiB in 4 chunks and a manifest\n",
            "copies    min 1, median 2, max 2; 3 asked for, quorum 2\n",
            "asked     3 nodes, 2 answered; no answer from cccccccc\n",
            "verdict   AT RISK: 1 of 5 pieces has fewer copies than the quorum of 2\n",
            "     1       1  2                         bbbbbbbb  (cached: aaaaaaaa)\n",
            "     2       4  0-1,3,manifest            aaaaaaaa bbbbbbbb\n",
            "cccccccc  127.0.0.204:3583               0         0 B  unreachable\n",
            "  bbbbbbbb waits before it copies 1 piece: 2, for 1 m 15 s\n",
            "  bbbbbbbb: 1 chunk, 256.0 KiB\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }

    #[test]
    fn with_chunks_each_chunk_has_a_line() {
        let (_, text) = shown(explanation(), true, false);
        let lines: Vec<&str> = text.lines().skip_while(|line| *line != PIECES_HEAD).skip(1).take(5).collect();
        let which: Vec<&str> = lines.iter().filter_map(|line| line.split_whitespace().nth(2)).collect();
        assert_eq!(which, ["0", "1", "2", "3", "manifest"]);
    }

    #[test]
    fn json_is_the_whole_explanation() {
        let (_, text) = shown(explanation(), false, true);
        assert_eq!(serde_json::from_str::<Explanation>(&text).unwrap(), explanation());
    }

    #[test]
    fn the_exit_code_follows_the_verdict() {
        let whole = Explanation { below_quorum: 0, copies_min: 3, ..explanation() };
        assert!(verdict(&whole).starts_with("safe"));
        assert_eq!(exit_of(&whole), Exit::Done);
        let thin = Explanation { copies_min: 2, ..whole.clone() };
        assert!(verdict(&thin).contains("some have fewer than asked for"));
        let shared = Explanation { replicas: 0, quorum: 0, copies_min: 1, ..whole };
        assert!(verdict(&shared).starts_with("every piece has a copy"));
        assert_eq!(exit_of(&Explanation { nodes_answered: 0, ..explanation() }), Exit::Unreachable);
        let gone = Explanation { missing: 2, ..explanation() };
        assert!(verdict(&gone).starts_with("NOT SAFE: 2 of 5 pieces have no copy"));
        assert_eq!(exit_of(&gone), Exit::BelowQuorum);
    }

    #[test]
    fn the_number_of_lines_is_bounded_however_many_holder_sets_there_are() {
        let mut many = explanation();
        let group = many.groups[1].clone();
        many.groups = (0..4096)
            .map(|chunk| CopiesOf {
                chunks: vec![Run { first: chunk, last: chunk }],
                pieces: 1,
                ..group.clone()
            })
            .collect();
        assert_eq!(group_lines(&many).len(), GROUPS_SHOWN + 2);
        assert!(group_lines(&many).last().unwrap().contains("4072 pieces"));
        assert!(runs(&[Run { first: 1, last: 2 }; 100], true).ends_with("1-2,...,manifest"));
    }
}
