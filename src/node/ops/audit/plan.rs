//! The plan of an audit: which nodes to ask about which pieces, and what they answered, as bounded data.

use super::report::{Findings, Piece};
use crate::id::{Key, NodeId};
use crate::manifest::Manifest;
use crate::node::command::{ExplainedNode, Explanation};
use crate::transfer::InspectError;
use crate::wire::contact::Contact;
use crate::wire::inspect::{INSPECT_KEYS_MAX, InspectEntry};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Nodes closest to each piece that are asked about it, unless the file should have more copies.
const CLOSEST_ASKED: usize = 8;
/// The most nodes closest to each piece that are asked about it.
const CLOSEST_ASKED_MAX: usize = 17;
/// Nodes that are asked beyond those that should hold a piece: nodes may disagree about which ones are closest.
const SPARE_NODES: usize = 3;
/// Outstanding questions to one node.
const QUESTIONS_PER_NODE_MAX: usize = 2;
/// Attempts to ask one node the same question.
const TRIES_MAX: u8 = 2;
/// Nodes that are asked about one file.
const NODES_MAX: usize = 2048;

/// The number of this node in the plan.
const OWN: u16 = 0;

/// The pieces of one file, and the nodes that are asked about them.
pub(super) struct Plan {
    layout: Arc<Manifest>,
    /// The keys of the chunks, then of the manifest if there is one; and what is known of each piece.
    keys: Vec<Key>,
    pieces: Vec<Piece>,
    /// Pieces whose closest nodes are to be determined, and the number of closest nodes to ask.
    unplaced: VecDeque<u16>,
    closest: usize,
    nodes: Vec<Asked>,
    numbers: BTreeMap<NodeId, u16>,
    /// Nodes with questions to be sent.
    ready: VecDeque<u16>,
    /// Answers about pieces so far, and the expected number.
    answers: u64,
    answers_due: u64,
    /// For each number of copies, how many answers of holders name it.
    votes: BTreeMap<u8, u32>,
    /// Whether a node could not be asked because the table was full.
    skipped: bool,
}

/// A node that is asked.
struct Asked {
    contact: Contact,
    /// Pieces to ask it about, and one bit for each piece that was ever entered.
    todo: VecDeque<u16>,
    seen: Vec<u64>,
    in_flight: usize,
    queued: bool,
    answered: bool,
    tries: u8,
    error: Option<InspectError>,
}

/// A question: which node is asked about which pieces.
pub(super) struct Question {
    node: u16,
    pieces: Vec<u16>,
}

impl Asked {
    fn new(contact: Contact, pieces: usize) -> Self {
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
    fn enter(&mut self, piece: u16) -> bool {
        let (word, bit) = (&mut self.seen[usize::from(piece) / 64], 1 << (piece % 64));
        let new = *word & bit == 0;
        *word |= bit;
        new
    }

    /// Whether it has answered every question.
    fn has_answered(&self) -> bool {
        self.answered && self.error.is_none() && self.in_flight == 0 && self.todo.is_empty()
    }
}

impl Plan {
    /// The plan for a file with this layout. `own` is this node, the first that is asked.
    pub(super) fn new(layout: Arc<Manifest>, own: Contact) -> Self {
        let mut keys = layout.keys().to_vec();
        keys.extend((!layout.is_single()).then(|| layout.hash()));
        let own_entry = Asked { answered: true, ..Asked::new(own, keys.len()) };
        Plan {
            layout,
            pieces: vec![Piece::default(); keys.len()],
            unplaced: (0..keys.len() as u16).collect(),
            keys,
            closest: CLOSEST_ASKED,
            nodes: vec![own_entry],
            numbers: BTreeMap::from([(own.id, OWN)]),
            ready: VecDeque::new(),
            answers: 0,
            answers_due: 0,
            votes: BTreeMap::new(),
            skipped: false,
        }
    }

    // Getters.

    /// The number of closest nodes that are asked about each piece.
    pub(super) fn closest(&self) -> usize {
        self.closest
    }

    /// The node that a question is for.
    pub(super) fn contact(&self, question: &Question) -> Contact {
        self.nodes[usize::from(question.node)].contact
    }

    /// The pieces that a question is about.
    pub(super) fn keys(&self, question: &Question) -> Vec<Key> {
        question.pieces.iter().map(|&piece| self.keys[usize::from(piece)]).collect()
    }

    /// The number of answers so far, and the expected number.
    pub(super) fn progress(&self) -> (u64, u64) {
        (self.answers, self.answers_due)
    }

    /// Whether no node is left to be determined or asked. Lookups and questions under way do not count.
    pub(super) fn is_done(&self) -> bool {
        self.unplaced.is_empty() && self.ready.is_empty()
    }

    /// The number of copies that most holders name. One liar does not change it.
    fn replicas(&self) -> u8 {
        let most = self.votes.iter().max_by_key(|(replicas, votes)| (**votes, **replicas));
        most.map_or(0, |(replicas, _)| *replicas)
    }

    /// The report on what is known. `replicas` is the number of copies that this node asks for, if it shares the file; else the holders'
    /// answers tell. `in_time` is false when answers are missing at the deadline.
    pub(super) fn explain(&self, replicas: Option<u8>, in_time: bool) -> Explanation {
        let nodes = (0..).zip(&self.nodes).map(|(number, node)| ExplainedNode {
            addr: node.contact.addr,
            own: number == OWN,
            answered: node.has_answered(),
            unreachable: node.error == Some(InspectError::Unreachable),
            ..ExplainedNode::new(node.contact.id)
        });
        let findings = Findings {
            manifest: &self.layout,
            replicas: replicas.unwrap_or_else(|| self.replicas()),
            pieces: &self.pieces,
            nodes: nodes.collect(),
            complete: in_time && !self.skipped,
        };
        findings.explain()
    }

    // The closest nodes of each piece.

    /// The next piece whose closest nodes are to be determined.
    pub(super) fn next_unplaced(&mut self) -> Option<(u16, Key)> {
        let piece = self.unplaced.pop_front()?;
        Some((piece, self.keys[usize::from(piece)]))
    }

    /// The closest nodes of this piece cannot be determined now: it is the next again.
    pub(super) fn put_back(&mut self, piece: u16) {
        self.unplaced.push_front(piece);
    }

    /// There are no other nodes, so the other pieces have no closest nodes either.
    pub(super) fn no_other_nodes(&mut self) {
        self.unplaced.clear();
    }

    /// Asks more nodes, if the file has more copies than nodes were asked for. False when enough were asked.
    pub(super) fn widen(&mut self) -> bool {
        let closest = (usize::from(self.replicas()) + SPARE_NODES).min(CLOSEST_ASKED_MAX);
        let widens = closest > self.closest;
        if widens {
            self.closest = closest;
            self.unplaced = (0..self.keys.len() as u16).collect();
        }
        widens
    }

    // Questions.

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

    /// Enters a node that should be asked about every piece.
    pub(super) fn enter_everywhere(&mut self, contact: Contact) {
        (0..self.keys.len() as u16).for_each(|piece| self.enter(contact, piece));
    }

    fn make_ready(&mut self, number: u16) {
        let node = &mut self.nodes[usize::from(number)];
        let free = !node.queued && node.in_flight < QUESTIONS_PER_NODE_MAX;
        if free && !node.todo.is_empty() && node.error.is_none() {
            node.queued = true;
            self.ready.push_back(number);
        }
    }

    /// The next question. It is either [`sent`](Plan::sent) or [`withdrawn`](Plan::withdraw).
    pub(super) fn next_question(&mut self) -> Option<Question> {
        while let Some(number) = self.ready.pop_front() {
            let node = &mut self.nodes[usize::from(number)];
            node.queued = false;
            // A node that was given up meanwhile has nothing to be asked.
            if !node.todo.is_empty() {
                let pieces = node.todo.drain(..node.todo.len().min(INSPECT_KEYS_MAX)).collect();
                return Some(Question { node: number, pieces });
            }
        }
        None
    }

    /// A question was sent.
    pub(super) fn sent(&mut self, question: &Question) {
        self.nodes[usize::from(question.node)].in_flight += 1;
        self.make_ready(question.node);
    }

    /// A question cannot be sent now: it is the next again.
    pub(super) fn withdraw(&mut self, question: Question) {
        let node = &mut self.nodes[usize::from(question.node)];
        question.pieces.into_iter().rev().for_each(|piece| node.todo.push_front(piece));
        node.queued = true;
        self.ready.push_front(question.node);
    }

    // Answers.

    /// This node answers for all pieces, and first.
    pub(super) fn answer_for_itself(&mut self, copy_of: impl Fn(&Key) -> InspectEntry) {
        for piece in 0..self.keys.len() as u16 {
            self.nodes[usize::from(OWN)].enter(piece);
            let entry = copy_of(&self.keys[usize::from(piece)]);
            self.note(OWN, piece, &entry);
        }
    }

    /// A node answered a question.
    pub(super) fn answered(&mut self, question: &Question, entries: &[InspectEntry]) {
        let node = &mut self.nodes[usize::from(question.node)];
        node.in_flight -= 1;
        node.answered = true;
        self.answers += entries.len() as u64;
        for (piece, entry) in question.pieces.iter().zip(entries) {
            self.note(question.node, *piece, entry);
        }
        self.make_ready(question.node);
    }

    /// A node did not answer a question. It is asked again, or given up.
    pub(super) fn failed(&mut self, question: Question, error: InspectError) {
        let Question { node: number, pieces } = question;
        let node = &mut self.nodes[usize::from(number)];
        node.in_flight -= 1;
        node.tries += 1;
        pieces.into_iter().rev().for_each(|piece| node.todo.push_front(piece));
        if node.tries >= TRIES_MAX || error == InspectError::Unreachable {
            self.give_up(number, error);
        }
        self.make_ready(number);
    }

    /// Takes a node's answer about a piece.
    fn note(&mut self, number: u16, piece: u16, entry: &InspectEntry) {
        if entry.held.is_durable() && entry.replicas > 0 {
            *self.votes.entry(entry.replicas).or_default() += 1;
        }
        self.pieces[usize::from(piece)].note(number, entry);
    }

    /// Gives up a node: its answers are no longer expected.
    fn give_up(&mut self, number: u16, error: InspectError) {
        let node = &mut self.nodes[usize::from(number)];
        node.error = Some(error);
        self.answers_due -= node.todo.len() as u64;
        node.todo.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PublicKey;
    use crate::manifest::{CHUNK_BYTES_MIN, ManifestBuilder};
    use crate::wire::inspect::Held;

    fn contact(number: u16) -> Contact {
        let mut public = [0; 32];
        public[..2].copy_from_slice(&number.to_le_bytes());
        Contact::new(PublicKey(public), ([127, 0, 0, 1], 1).into())
    }

    const OWN_CONTACT: u16 = u16::MAX - 1;

    /// A plan for a file of `pieces` pieces, one of which is the manifest.
    fn plan(pieces: u64) -> Plan {
        let length = (pieces - 1) * CHUNK_BYTES_MIN;
        let mut builder = ManifestBuilder::new(length).unwrap();
        builder.update(&vec![7; length as usize]);
        Plan::new(Arc::new(builder.finish().unwrap()), contact(OWN_CONTACT))
    }

    fn holds(replicas: u8) -> InspectEntry {
        InspectEntry { held: Held::Stored, replicas, ..InspectEntry::default() }
    }

    /// Takes the next question, as if it had been sent.
    fn ask(plan: &mut Plan) -> Option<Question> {
        let question = plan.next_question()?;
        plan.sent(&question);
        Some(question)
    }

    #[test]
    fn one_liar_does_not_change_the_expected_number_of_copies() {
        let mut plan = plan(9);
        let entry = |held, replicas| InspectEntry { held, replicas, ..InspectEntry::default() };
        (0..8).for_each(|piece| plan.note(1, piece, &entry(Held::Stored, 3)));
        (0..8).for_each(|piece| plan.note(2, piece, &entry(Held::Shared, 3)));
        (0..9).for_each(|piece| plan.note(3, piece, &entry(Held::Stored, 255)));
        (0..9).for_each(|piece| plan.note(4, piece, &entry(Held::Cached, 200)));
        assert_eq!(plan.replicas(), 3);
    }

    #[test]
    fn a_node_is_asked_about_a_piece_once_and_the_number_of_nodes_is_bounded() {
        let mut plan = plan(70);
        plan.enter_everywhere(contact(0));
        plan.enter_everywhere(contact(0));
        assert_eq!(plan.progress(), (0, 70));
        assert_eq!(plan.ready.len(), 1);
        (0..NODES_MAX as u16 - 2).for_each(|number| plan.enter(contact(1 + number), 69));
        assert!(!plan.skipped);
        plan.enter(contact(u16::MAX), 0);
        assert!(plan.skipped);
        assert_eq!(plan.nodes.len(), NODES_MAX);
        assert!(!plan.explain(None, true).complete);
    }

    #[test]
    fn a_plan_does_not_wait_for_a_node_that_was_given_up() {
        let mut plan = plan(10);
        plan.enter_everywhere(contact(0));
        let question = ask(&mut plan).unwrap();
        plan.failed(question, InspectError::Unreachable);
        plan.enter(contact(0), 3);
        assert_eq!(plan.progress(), (0, 0));
        assert!(ask(&mut plan).is_none());
        let told = plan.explain(None, true);
        assert!(told.nodes[0].unreachable);
        assert!(!told.nodes[0].answered);
    }

    #[test]
    fn a_node_that_breaks_off_is_asked_once_more() {
        let mut plan = plan(3);
        plan.enter_everywhere(contact(0));
        for _ in 0..TRIES_MAX {
            let question = ask(&mut plan).unwrap();
            assert_eq!(question.pieces, [0, 1, 2]);
            plan.failed(question, InspectError::Lost);
        }
        assert!(ask(&mut plan).is_none());
        assert!(!plan.explain(None, true).nodes[0].unreachable);
    }

    #[test]
    fn one_node_gets_few_questions_at_a_time_and_each_of_bounded_length() {
        let mut plan = plan(3 * INSPECT_KEYS_MAX as u64);
        plan.enter_everywhere(contact(0));
        let first = ask(&mut plan).unwrap();
        assert_eq!(first.pieces.len(), INSPECT_KEYS_MAX);
        ask(&mut plan).unwrap();
        assert!(plan.next_question().is_none());
        plan.answered(&first, &vec![holds(3); INSPECT_KEYS_MAX]);
        assert!(plan.next_question().is_some());
    }

    #[test]
    fn a_question_that_was_withdrawn_comes_next_again() {
        let mut plan = plan(3);
        plan.enter(contact(0), 1);
        plan.enter(contact(1), 2);
        let question = plan.next_question().unwrap();
        plan.withdraw(question);
        let question = plan.next_question().unwrap();
        assert_eq!(plan.contact(&question), contact(0));
        assert_eq!(plan.keys(&question), [plan.keys[1]]);
    }

    #[test]
    fn more_nodes_are_asked_about_a_file_with_more_copies() {
        let mut plan = plan(3);
        while plan.next_unplaced().is_some() {}
        assert!(plan.is_done());
        plan.note(1, 0, &holds(3));
        assert!(!plan.widen());
        (0..3).for_each(|piece| plan.note(2, piece, &holds(9)));
        assert!(plan.widen());
        assert_eq!(plan.closest(), 9 + SPARE_NODES);
        assert!(!plan.is_done());
        assert!(!plan.widen());
    }

    #[test]
    fn this_node_is_part_of_the_report_without_being_asked() {
        let mut plan = plan(3);
        plan.answer_for_itself(|_| holds(2));
        plan.enter_everywhere(contact(OWN_CONTACT));
        assert!(plan.next_question().is_none());
        let told = plan.explain(None, true);
        assert_eq!(told.nodes.len(), 1);
        assert!(told.nodes[0].own);
        assert_eq!(told.nodes_asked, 0);
        assert_eq!(told.copies_min, 1);
        assert_eq!(told.replicas, 2);
        assert_eq!(plan.explain(Some(5), true).replicas, 5);
    }
}
