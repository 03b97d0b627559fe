//! The report of an audit: how many copies there are of which pieces, and what would be lost with which nodes.

use crate::limits::quorum;
use crate::manifest::Manifest;
use crate::node::command::{CopiesOf, ExplainedNode, Explanation, Loss, Run, UnderRepair};
use crate::wire::inspect::{InspectEntry, RepairPhase};
use std::collections::{BTreeMap, BTreeSet};

/// Sets of nodes whose loss is computed.
const SETS_WEIGHED_MAX: usize = 64;
/// Sets of nodes that are reported.
const LOSSES_MAX: usize = 8;

/// What is known of one piece.
#[derive(Clone, Default)]
pub(super) struct Piece {
    /// The nodes, by number, that hold it.
    pub(super) holders: Vec<u16>,
    /// The nodes that have it only in a cache.
    pub(super) cached: Vec<u16>,
    /// The most advanced repair of it: the phase, the node, and for how many seconds.
    pub(super) repair: Option<(RepairPhase, u16, u32)>,
}

impl Piece {
    /// Takes a node's answer.
    pub(super) fn note(&mut self, node: u16, entry: &InspectEntry) {
        if !entry.held.is_durable() {
            if entry != &InspectEntry::default() {
                self.cached.push(node);
            }
            return;
        }
        self.holders.push(node);
        let repair = (entry.phase, node, entry.since);
        if entry.phase != RepairPhase::Whole
            && self.repair.is_none_or(|known| (known.0, known.2) < (repair.0, repair.2))
        {
            self.repair = Some(repair);
        }
    }
}

/// All findings of an audit.
pub(super) struct Findings<'a> {
    pub(super) manifest: &'a Manifest,
    /// Copies requested; 0 when the file is only shared.
    pub(super) replicas: u8,
    /// The chunks in order, then the manifest if there is one.
    pub(super) pieces: &'a [Piece],
    /// The nodes that were asked, by number.
    pub(super) nodes: Vec<ExplainedNode>,
    /// Whether every node could be asked in time.
    pub(super) complete: bool,
}

/// Pieces with the same holders.
#[derive(Default)]
struct Group {
    chunks: Vec<u32>,
    manifest: bool,
    bytes: u64,
    since: u32,
}

/// The attributes by which pieces are grouped: holders, caches, and the repair.
type Alike = (Vec<u32>, Vec<u32>, Option<(RepairPhase, u32)>);

impl Findings<'_> {
    /// Computes the report.
    pub(super) fn explain(self) -> Explanation {
        let quorum = quorum(self.replicas);
        let needed = usize::from(quorum).max(1);
        let mut copies: Vec<u32> = self.pieces.iter().map(|piece| piece.holders.len() as u32).collect();
        copies.sort_unstable();
        let asked = self.nodes.iter().filter(|node| !node.own).count() as u32;
        let answered = self.nodes.iter().filter(|node| !node.own && node.answered).count() as u32;
        let (nodes, numbers) = self.listed();
        let groups = self.groups(&numbers);
        let losses = losses(&groups);
        Explanation {
            hash: self.manifest.hash(),
            length: self.manifest.length(),
            chunks: self.manifest.chunk_count(),
            chunk_bytes: self.manifest.chunk_bytes(),
            pieces: self.pieces.len() as u32,
            replicas: self.replicas,
            quorum,
            copies_min: copies.first().copied().unwrap_or_default(),
            copies_median: copies.get(copies.len() / 2).copied().unwrap_or_default(),
            copies_max: copies.last().copied().unwrap_or_default(),
            below_quorum: count(self.pieces, |piece| piece.holders.len() < needed),
            missing: count(self.pieces, |piece| piece.holders.is_empty()),
            under_repair: count(self.pieces, |piece| piece.repair.is_some()),
            nodes_asked: asked,
            nodes_answered: answered,
            complete: self.complete,
            groups: groups.into_iter().map(|(alike, group)| copies_of(alike, group)).collect(),
            nodes,
            losses,
        }
    }

    /// The nodes in the report: those that have pieces and those that did not answer; this node first, then those with most pieces.
    /// Also returns the new number of each node.
    fn listed(&self) -> (Vec<ExplainedNode>, Vec<u32>) {
        let mut nodes = self.nodes.clone();
        for (index, piece) in self.pieces.iter().enumerate() {
            for &holder in &piece.holders {
                nodes[usize::from(holder)].pieces += 1;
                nodes[usize::from(holder)].bytes += self.bytes_of(index);
            }
            piece.cached.iter().for_each(|&node| nodes[usize::from(node)].cached += 1);
        }
        let matters = |node: &ExplainedNode| node.pieces + node.cached > 0 || !node.own && !node.answered;
        let mut order: Vec<usize> = (0..nodes.len()).filter(|&index| matters(&nodes[index])).collect();
        order.sort_by_key(|&index| {
            let node = &nodes[index];
            (!node.own, core::cmp::Reverse((node.pieces, node.cached)), node.id)
        });
        let mut numbers = vec![u32::MAX; nodes.len()];
        order.iter().zip(0..).for_each(|(&index, number)| numbers[index] = number);
        (order.into_iter().map(|index| nodes[index].clone()).collect(), numbers)
    }

    fn bytes_of(&self, piece: usize) -> u64 {
        match piece < self.manifest.keys().len() {
            true => u64::from(self.manifest.chunk_length(piece as u32)),
            false => self.manifest.encoded_bytes(),
        }
    }

    /// The pieces grouped by holders, those with the fewest copies first.
    fn groups(&self, numbers: &[u32]) -> Vec<(Alike, Group)> {
        let named = |nodes: &[u16]| {
            let mut nodes: Vec<u32> = nodes.iter().map(|&node| numbers[usize::from(node)]).collect();
            nodes.sort_unstable();
            nodes
        };
        let mut groups: BTreeMap<Alike, Group> = BTreeMap::new();
        for (index, piece) in self.pieces.iter().enumerate() {
            let repair = piece.repair.map(|(phase, node, _)| (phase, numbers[usize::from(node)]));
            let group = groups.entry((named(&piece.holders), named(&piece.cached), repair)).or_default();
            match index < self.manifest.keys().len() {
                true => group.chunks.push(index as u32),
                false => group.manifest = true,
            }
            group.bytes += self.bytes_of(index);
            group.since = group.since.max(piece.repair.map_or(0, |(_, _, since)| since));
        }
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort_by_key(|((holders, ..), group)| (holders.len(), group.chunks.first().copied()));
        groups
    }
}

fn count(pieces: &[Piece], test: impl Fn(&Piece) -> bool) -> u32 {
    pieces.iter().filter(|piece| test(piece)).count() as u32
}

fn copies_of((holders, cached, repair): Alike, group: Group) -> CopiesOf {
    CopiesOf {
        pieces: group.chunks.len() as u32 + u32::from(group.manifest),
        chunks: runs(&group.chunks),
        manifest: group.manifest,
        bytes: group.bytes,
        copies: holders.len() as u32,
        holders,
        cached,
        repair: repair.map(|(phase, node)| UnderRepair {
            phase: phase.into(),
            node,
            since_seconds: group.since,
        }),
    }
}

/// Ascending numbers as runs without gaps.
fn runs(numbers: &[u32]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for &number in numbers {
        match runs.last_mut() {
            Some(run) if run.last + 1 == number => run.last = number,
            _ => runs.push(Run { first: number, last: number }),
        }
    }
    runs
}

/// What would be lost with which nodes: the smallest sets of nodes that hold the only copies of a piece; among sets of one size, those
/// with the most bytes first. Pieces without a copy are lost already and not included.
fn losses(groups: &[(Alike, Group)]) -> Vec<Loss> {
    let mut sets: BTreeMap<&[u32], u64> = BTreeMap::new();
    for ((holders, ..), group) in groups.iter().filter(|((holders, ..), _)| !holders.is_empty()) {
        *sets.entry(holders).or_default() += group.bytes;
    }
    let mut sets: Vec<(&[u32], u64)> = sets.into_iter().collect();
    sets.sort_by_key(|&(nodes, bytes)| (nodes.len(), core::cmp::Reverse(bytes)));
    sets.truncate(SETS_WEIGHED_MAX);
    let mut losses: Vec<Loss> = sets.into_iter().map(|(nodes, _)| loss(nodes, groups)).collect();
    losses.sort_by_key(|loss| (loss.nodes.len(), core::cmp::Reverse(loss.bytes)));
    losses.truncate(LOSSES_MAX);
    losses
}

/// All pieces whose holders are all among these nodes.
fn loss(nodes: &[u32], groups: &[(Alike, Group)]) -> Loss {
    let gone: BTreeSet<u32> = nodes.iter().copied().collect();
    let lost = groups.iter().filter(|((holders, ..), _)| {
        !holders.is_empty() && holders.len() <= gone.len() && holders.iter().all(|node| gone.contains(node))
    });
    let mut loss = Loss { nodes: nodes.to_vec(), ..Loss::default() };
    for (_, group) in lost {
        loss.chunks += group.chunks.len() as u32;
        loss.manifest |= group.manifest;
        loss.bytes += group.bytes;
    }
    loss
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Key, NodeId};
    use crate::manifest::{CHUNK_BYTES_MIN, ManifestBuilder};
    use crate::wire::inspect::Held;

    fn manifest(chunks: u64) -> Manifest {
        let length = chunks * CHUNK_BYTES_MIN - 5;
        let mut builder = ManifestBuilder::new(length).unwrap();
        builder.update(&vec![7; length as usize]);
        builder.finish().unwrap()
    }

    fn node(number: u8, answered: bool) -> ExplainedNode {
        ExplainedNode { own: number == 0, answered, ..ExplainedNode::new(NodeId([number; 32])) }
    }

    fn piece(holders: &[u16]) -> Piece {
        Piece { holders: holders.to_vec(), ..Piece::default() }
    }

    fn findings<'a>(manifest: &'a Manifest, pieces: &'a [Piece], nodes: u8) -> Findings<'a> {
        let nodes = (0..nodes).map(|number| node(number, true)).collect();
        Findings { manifest, replicas: 3, pieces, nodes, complete: true }
    }

    #[test]
    fn copies_are_counted_and_pieces_with_equal_holders_are_grouped() {
        let manifest = manifest(5);
        let pieces =
            [piece(&[1, 2, 3]), piece(&[2]), piece(&[3, 2, 1]), piece(&[]), piece(&[2]), piece(&[1, 2])];
        let mut findings = findings(&manifest, &pieces, 6);
        findings.nodes[5].answered = false;
        let told = findings.explain();
        assert_eq!(told.pieces, 6);
        assert_eq!(told.chunks, 5);
        assert_eq!(told.replicas, 3);
        assert_eq!(told.quorum, 2);
        assert_eq!(told.copies_min, 0);
        assert_eq!(told.copies_median, 2);
        assert_eq!(told.copies_max, 3);
        assert_eq!(told.below_quorum, 3);
        assert_eq!(told.missing, 1);
        assert_eq!(told.under_repair, 0);
        assert_eq!(told.nodes_asked, 5);
        assert_eq!(told.nodes_answered, 4);
        // This node holds nothing and is not listed. A node that did not answer comes last.
        let listed: Vec<(u8, u32)> = told.nodes.iter().map(|node| (node.id.0[0], node.pieces)).collect();
        assert_eq!(listed, [(2, 5), (1, 3), (3, 2), (5, 0)]);
        let groups = told.groups.iter().map(|group| {
            let runs: Vec<u32> = group.chunks.iter().flat_map(|run| [run.first, run.last]).collect();
            (group.copies, runs, group.manifest)
        });
        let expected = [
            (0, vec![3, 3], false),
            (1, vec![1, 1, 4, 4], false),
            (2, vec![], true),
            (3, vec![0, 0, 2, 2], false),
        ];
        assert!(groups.eq(expected));
        let bytes: u64 = told.groups.iter().map(|group| group.bytes).sum();
        assert_eq!(bytes, manifest.length() + manifest.encode().len() as u64);
    }

    #[test]
    fn losses_list_the_smallest_sets_of_nodes_first() {
        let manifest = manifest(5);
        let pieces =
            [piece(&[1, 2]), piece(&[2]), piece(&[1, 3]), piece(&[3]), piece(&[3]), piece(&[1, 2, 3])];
        let told = findings(&manifest, &pieces, 4).explain();
        let sets: Vec<(Vec<u8>, u32, bool)> = told
            .losses
            .iter()
            .map(|loss| {
                let nodes = loss.nodes.iter().map(|&node| told.nodes[node as usize].id.0[0]).collect();
                (nodes, loss.chunks, loss.manifest)
            })
            .collect();
        assert_eq!(sets[0], (vec![3], 2, false));
        assert_eq!(sets[1], (vec![2], 1, false));
        assert_eq!(sets[2].1, 3);
        assert_eq!(sets[3].1, 2);
        assert_eq!(sets[4].1, 5);
        assert!(sets[4].2);
        assert_eq!(told.losses.len(), 5);
    }

    #[test]
    fn the_number_of_weighed_sets_is_bounded() {
        let manifest = manifest(300);
        let pieces: Vec<Piece> = (0..301).map(|i| piece(&[i % 97, 97 + i % 31, 128 + i % 71])).collect();
        let told = findings(&manifest, &pieces, 200).explain();
        assert_eq!(told.copies_min, 3);
        assert_eq!(told.below_quorum, 0);
        assert_eq!(told.losses.len(), LOSSES_MAX);
        assert!(told.losses.iter().all(|loss| loss.nodes.len() == 3 && loss.chunks >= 1));
    }

    #[test]
    fn cached_pieces_are_listed_but_not_counted_and_the_furthest_repair_is_shown() {
        let hash = Key(*blake3::hash(b"x").as_bytes());
        let manifest = Manifest::single(hash, 1).unwrap();
        let mut one = Piece::default();
        let entry = |held, phase, since| InspectEntry { held, replicas: 3, live: 1, phase, since };
        one.note(1, &entry(Held::Cached, RepairPhase::Whole, 0));
        one.note(2, &InspectEntry::default());
        assert_eq!(findings(&manifest, &[one.clone()], 3).explain().missing, 1);
        one.note(0, &entry(Held::Shared, RepairPhase::Waiting, 90));
        one.note(2, &entry(Held::Stored, RepairPhase::Copying, 7));
        let told = findings(&manifest, &[one], 3).explain();
        assert_eq!(told.copies_min, 2);
        assert_eq!(told.under_repair, 1);
        assert_eq!(told.groups[0].cached.len(), 1);
        let repair = told.groups[0].repair.clone().unwrap();
        assert_eq!(repair.since_seconds, 7);
        assert_eq!(told.nodes[repair.node as usize].id.0[0], 2);
    }

    #[test]
    fn a_file_that_is_only_shared_needs_one_copy() {
        let manifest = manifest(2);
        let pieces = [piece(&[0]), piece(&[0]), piece(&[])];
        let told = Findings { replicas: 0, ..findings(&manifest, &pieces, 1) }.explain();
        assert_eq!(told.quorum, 0);
        assert_eq!(told.below_quorum, 1);
        assert_eq!(told.missing, 1);
    }
}
