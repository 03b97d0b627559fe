//! The plan of an audit: which nodes to ask about which pieces, as bounded data.

use super::command::CommandId;
use super::explanation::Piece;
use crate::dht::LookupId;
use crate::id::{Key, NodeId};
use crate::manifest::Manifest;
use crate::time::Instant;
use crate::transfer::{DownloadId, InspectError};
use crate::wire::contact::Contact;
use crate::wire::inspect::InspectEntry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Nodes closest to each piece that are asked about it, unless the file should have more copies.
const CLOSEST_ASKED: usize = 8;
/// Outstanding questions to one node.
const QUESTIONS_PER_NODE_MAX: usize = 2;
/// Nodes that are asked about one file.
const NODES_MAX: usize = 2048;

/// The audit of one file.
pub(super) struct Explain {
    pub(super) hash: Key,
    pub(super) until: Instant,
    pub(super) stage: Looking,
    pub(super) manifest: Option<Arc<Manifest>>,
    /// The lookup for providers, while it is under way.
    pub(super) lookup: Option<LookupId>,
    pub(super) looked_up: bool,
    /// The number of nodes that the lookup asked, and of provider records that it found.
    pub(super) asked: u32,
    pub(super) found: u32,
    /// The providers, and the nodes nearest to the hash, that are known before the manifest is.
    pub(super) providers: Vec<Contact>,
    pub(super) near: Vec<Contact>,
    /// The keys of the chunks, then of the manifest if there is one; and what is known of each piece.
    pub(super) keys: Vec<Key>,
    pub(super) pieces: Vec<Piece>,
    /// Pieces whose closest nodes are to be determined, and how many nodes each is asked of.
    pub(super) todo: VecDeque<u16>,
    pub(super) closest: usize,
    pub(super) lookups: usize,
    pub(super) nodes: Vec<Asked>,
    pub(super) numbers: BTreeMap<NodeId, u16>,
    /// Nodes with questions to be sent.
    pub(super) ready: VecDeque<u16>,
    /// Outstanding questions.
    pub(super) questions: usize,
    /// Answers about pieces so far, and the expected number.
    pub(super) answers: u64,
    pub(super) answers_due: u64,
    /// For each number of copies, how many answers of holders name it.
    pub(super) votes: BTreeMap<u8, u32>,
    /// Whether a node could not be asked because the table was full.
    pub(super) skipped: bool,
    /// When to go on without an event.
    pub(super) step_at: Option<Instant>,
}

/// The stage of an audit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Looking {
    /// Checking whether the file that is shared here is unchanged.
    OwnFile,
    /// Reading the manifest that is stored here.
    OwnManifest,
    /// Fetching the manifest.
    Root(DownloadId),
    /// Asking nodes about the pieces.
    Pieces,
}

/// A node that is asked.
pub(super) struct Asked {
    pub(super) contact: Contact,
    /// Pieces to ask it about, and one bit for each piece that was ever entered.
    pub(super) todo: VecDeque<u16>,
    pub(super) seen: Vec<u64>,
    pub(super) in_flight: usize,
    pub(super) queued: bool,
    pub(super) answered: bool,
    pub(super) tries: u8,
    pub(super) error: Option<InspectError>,
}

impl Asked {
    pub(super) fn new(contact: Contact, pieces: usize) -> Self {
        Asked {
            contact,
            todo: VecDeque::new(),
            seen: vec![0; pieces.div_ceil(64)],
            in_flight: 0,
            queued: false,
            answered: false,
            tries: 0,
            error: None,
        }
    }

    /// Enters a piece. False when it was entered before.
    pub(super) fn enter(&mut self, piece: u16) -> bool {
        let (word, bit) = (&mut self.seen[usize::from(piece) / 64], 1 << (piece % 64));
        let new = *word & bit == 0;
        *word |= bit;
        new
    }
}

/// An outstanding question: its command, its node, and its pieces.
pub(super) struct Asking {
    pub(super) command: CommandId,
    pub(super) node: u16,
    pub(super) pieces: Vec<u16>,
}

impl Explain {
    pub(super) fn new(hash: Key, until: Instant) -> Self {
        Explain {
            hash,
            until,
            stage: Looking::OwnFile,
            manifest: None,
            lookup: None,
            looked_up: false,
            asked: 0,
            found: 0,
            providers: Vec::new(),
            near: Vec::new(),
            keys: Vec::new(),
            pieces: Vec::new(),
            todo: VecDeque::new(),
            closest: CLOSEST_ASKED,
            lookups: 0,
            nodes: Vec::new(),
            numbers: BTreeMap::new(),
            ready: VecDeque::new(),
            questions: 0,
            answers: 0,
            answers_due: 0,
            votes: BTreeMap::new(),
            skipped: false,
            step_at: None,
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        Some(self.step_at.map_or(self.until, |at| at.min(self.until)))
    }

    /// Whether every node has answered or been given up.
    pub(super) fn is_over(&self) -> bool {
        let asking = self.stage == Looking::Pieces && self.looked_up;
        asking && self.todo.is_empty() && self.ready.is_empty() && self.lookups + self.questions == 0
    }

    /// Enters a node that should be asked about a piece.
    pub(super) fn enter(&mut self, contact: Contact, piece: u16) {
        let count = self.pieces.len();
        let number = match self.numbers.get(&contact.id) {
            Some(&number) => number,
            None if self.nodes.len() >= NODES_MAX => return self.skipped = true,
            None => {
                let number = self.nodes.len() as u16;
                self.nodes.push(Asked::new(contact, count));
                self.numbers.insert(contact.id, number);
                number
            }
        };
        let node = &mut self.nodes[usize::from(number)];
        if node.enter(piece) && node.error.is_none() {
            node.todo.push_back(piece);
            self.answers_due += 1;
            self.make_ready(number);
        }
    }

    pub(super) fn make_ready(&mut self, number: u16) {
        let node = &mut self.nodes[usize::from(number)];
        let free = !node.queued && node.in_flight < QUESTIONS_PER_NODE_MAX;
        if free && !node.todo.is_empty() && node.error.is_none() {
            node.queued = true;
            self.ready.push_back(number);
        }
    }

    /// Takes a node's answer about a piece.
    pub(super) fn note(&mut self, number: u16, piece: u16, entry: &InspectEntry) {
        if entry.held.is_durable() && entry.replicas > 0 {
            *self.votes.entry(entry.replicas).or_default() += 1;
        }
        self.pieces[usize::from(piece)].note(number, entry);
    }

    /// Gives up a node: its answers are no longer expected.
    pub(super) fn give_up(&mut self, number: u16, error: InspectError) {
        let node = &mut self.nodes[usize::from(number)];
        node.error = Some(error);
        self.answers_due -= node.todo.len() as u64;
        node.todo.clear();
    }

    /// The number of copies that most holders name. One liar does not change it.
    pub(super) fn replicas(&self) -> u8 {
        let most = self.votes.iter().max_by_key(|(replicas, votes)| (**votes, **replicas));
        most.map_or(0, |(replicas, _)| *replicas)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PublicKey;
    use crate::wire::inspect::Held;

    fn contact(number: u16) -> Contact {
        let mut public = [0; 32];
        public[..2].copy_from_slice(&number.to_le_bytes());
        Contact::new(PublicKey(public), ([127, 0, 0, 1], 1).into())
    }

    fn explain(pieces: usize) -> Explain {
        let mut explain = Explain::new(Key([1; 32]), Instant::from_secs(30));
        explain.keys = vec![Key([2; 32]); pieces];
        explain.pieces = vec![Piece::default(); pieces];
        explain
    }

    #[test]
    fn one_liar_does_not_change_the_expected_number_of_copies() {
        let mut explain = explain(9);
        let entry = |held, replicas| InspectEntry { held, replicas, ..InspectEntry::default() };
        (0..8).for_each(|piece| explain.note(1, piece, &entry(Held::Stored, 3)));
        (0..8).for_each(|piece| explain.note(2, piece, &entry(Held::Shared, 3)));
        (0..9).for_each(|piece| explain.note(3, piece, &entry(Held::Stored, 255)));
        (0..9).for_each(|piece| explain.note(4, piece, &entry(Held::Cached, 200)));
        assert_eq!(explain.replicas(), 3);
    }

    #[test]
    fn a_node_is_asked_about_a_piece_once_and_the_number_of_nodes_is_bounded() {
        let mut explain = explain(70);
        for _ in 0..2 {
            (0..70).for_each(|piece| explain.enter(contact(0), piece));
        }
        assert_eq!(explain.answers_due, 70);
        assert_eq!(explain.ready.len(), 1);
        assert_eq!(explain.nodes.len(), 1);
        (0..NODES_MAX as u16 - 1).for_each(|number| explain.enter(contact(1 + number), 69));
        assert!(!explain.skipped);
        explain.enter(contact(u16::MAX), 0);
        assert!(explain.skipped);
        assert_eq!(explain.nodes.len(), NODES_MAX);
    }

    #[test]
    fn an_audit_does_not_wait_for_a_node_that_was_given_up() {
        let mut explain = explain(10);
        (0..10).for_each(|piece| explain.enter(contact(0), piece));
        explain.give_up(0, InspectError::Lost);
        explain.enter(contact(0), 3);
        assert_eq!(explain.answers_due, 0);
        assert_eq!(explain.nodes[0].todo.len(), 0);
    }
}
