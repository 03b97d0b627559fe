//! The shelf: transfer's view of this node's pieces, and of the pieces that peers offer.
//!
//! Transfer asks the shelf in the middle of an input, so the shelf can neither start a disk operation nor call transfer. It leaves
//! such work as an [`Errand`], which [`Ops::run_errands`] does when the input is over.

use super::Waiting;
use super::command::DiskHealth;
use super::machines::Machines;
use super::ops::Ops;
use super::ops::audit::answer::{Question, copy_of};
use super::ops::inbound::Step;
use crate::dht::Dht;
use crate::id::Key;
use crate::io::{DiskOp, Extent, StreamId};
use crate::manifest::Content;
use crate::peers::contest::Holder;
use crate::peers::outbox::Outbox;
use crate::peers::party::Party;
use crate::replication::{REPLICAS_MAX, Replication};
use crate::store::{Admission, Bringer, Store};
use crate::time::Instant;
use crate::transfer::{Bytes, Located, Pieces, Verdict};
use crate::wire::contact::Contact;
use crate::wire::frame::{Offer, Refusal};
use crate::wire::inspect::InspectEntry;

/// This node keeps a piece only if it knows fewer than this many nodes closer to the piece's key. It is the size of a bucket: within
/// it, nodes may disagree about which ones are closest.
const CLOSER_NODES_MAX: usize = REPLICAS_MAX as usize;

/// The pieces that this node serves, and those that it takes. It serves those that the store has, and the manifests of downloads.
pub(super) struct Shelf<'a> {
    pub(super) now: Instant,
    pub(super) store: &'a mut Store,
    pub(super) dht: &'a Dht,
    pub(super) replication: &'a Replication,
    pub(super) outbox: &'a Outbox,
    pub(super) ops: &'a mut Ops,
}

/// Work that an answer at the shelf leaves for the end of the input.
pub(super) enum Errand {
    /// A promise about a stored piece is made durable. Then the offer that raised it is answered.
    Raise { op: DiskOp, step: Step },
    /// The files that a peer's question is about are checked. Then the question is answered.
    Check(Question),
    /// A piece was requested that is not here: its file may have come back.
    Missed(Key),
}

impl Pieces for Shelf<'_> {
    fn locate(&mut self, key: &Key) -> Result<Located, Refusal> {
        if self.ops.rechecks.is_running(key) {
            return Err(Refusal::Busy);
        }
        let found = self.store.locate(key);
        match self.store.partial(key) {
            // No file holds the manifest of a download until that is complete.
            Some(manifest) if found.is_none() && !manifest.is_single() => {
                let bytes = Bytes::Memory(manifest.encode());
                Ok(Located { content: Content::Manifest, mode: self.ops.seekers.downloads.mode(key), bytes })
            }
            _ => {
                let Some((content, extent)) = found else {
                    self.ops.errands.push(Errand::Missed(*key));
                    return Err(Refusal::NotFound);
                };
                self.store.touch(key);
                Ok(Located { content, mode: self.store.mode(key), bytes: Bytes::File(extent) })
            }
        }
    }

    fn has(&self, key: &Key) -> bool {
        is_served(self.store, key)
    }

    fn admit(&mut self, stream: StreamId, request: u32, offer: &Offer, from: &Contact) -> Option<Verdict> {
        let key = offer.key;
        if self.outbox.is_leaf() || self.dht.closer_than_self(self.outbox.peers(), &key) >= CLOSER_NODES_MAX {
            return Some(Verdict::Refuse(Refusal::NotClose));
        }
        if let Some(reason) = self.ops.closed_to_copies(self.now).filter(|_| !self.store.has(&key)) {
            return Some(Verdict::Refuse(reason));
        }
        let from = Holder::node(self.dht.parties(), &from.id, from.addr);
        let network = self.outbox.network();
        let offer = match self.ops.claims.judge(self.now, (offer, from.party), self.store, network) {
            Ok(offer) => offer,
            Err(reason) => return Some(Verdict::Refuse(reason)),
        };
        let bringer = Bringer { node: from, payer: self.payer(&offer).unwrap_or(from.party) };
        match self.store.admit(self.now, bringer, &offer) {
            Admission::Have => Some(Verdict::Have),
            Admission::Send { incoming } => Some(Verdict::Send { incoming }),
            Admission::Refuse(reason) => Some(Verdict::Refuse(reason)),
            Admission::Raise { replicas, expires } => {
                let op = DiskOp::Raise { key, replicas, expires, claim: offer.claim };
                self.ops.errands.push(Errand::Raise { op, step: Step::Raise { stream, request, key } });
                None
            }
        }
    }

    fn make_room(&mut self, incoming: u64) -> bool {
        let room = self.store.arrives(self.now, incoming);
        if !room {
            self.store.discarded(incoming);
        }
        room
    }

    fn kept(&self, key: &Key) -> Option<Extent> {
        self.store.kept(key).filter(|_| !self.ops.rechecks.is_running(key))
    }

    fn inspect(&mut self, stream: StreamId, question: u32, keys: &[Key]) -> Option<Vec<InspectEntry>> {
        let asked = Question::new(stream, question, keys, self.store);
        if asked.needs_the_disk() {
            self.ops.errands.push(Errand::Check(asked));
            return None;
        }
        Some(keys.iter().map(|key| copy_of(self.now, key, self.store, self.replication)).collect())
    }
}

impl Shelf<'_> {
    /// The party of the piece's publisher, if that is a peer of this node: its address is validated. A neighbour that repairs the pieces
    /// of others must not seem to fill the store with them.
    fn payer(&self, offer: &Offer) -> Option<Party> {
        let publisher = offer.claim?.publisher().node_id();
        let addr = self.outbox.peers().addr(&publisher)?;
        Some(self.dht.parties().of(&publisher, addr))
    }
}

/// Whether a piece can be served: it is on disk, or it is the manifest of a download.
pub(super) fn is_served(store: &Store, key: &Key) -> bool {
    store.has(key) || store.partial(key).is_some_and(|manifest| !manifest.is_single())
}

impl Ops {
    /// Does the work that the answers of the last input left.
    pub(super) fn run_errands(&mut self, now: Instant, machines: &mut Machines) {
        for errand in core::mem::take(&mut self.errands) {
            match errand {
                Errand::Raise { op, step } => machines.disk(op, Waiting::Inbound(step)),
                Errand::Check(question) => question.go_on(now, machines),
                Errand::Missed(key) => self.watch.asked_for(now, &key, machines),
            }
        }
    }

    /// Why this node accepts no piece that it does not have already; `None` when it does.
    pub(super) fn closed_to_copies(&self, now: Instant) -> Option<Refusal> {
        match self.health.health() {
            _ if self.departure.is_under_way() => Some(Refusal::Busy),
            DiskHealth::Well => self.inbound.closed(now),
            DiskHealth::Full => Some(Refusal::NoSpace),
            _ => Some(Refusal::Disk),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{NodeId, PublicKey};
    use crate::identity::Identity;
    use crate::io::{Brought, DiskError, DiskErrorKind, Mode, Place, Space};
    use crate::manifest::{CHUNK_BYTES_MIN, Manifest, ManifestBuilder};
    use crate::node::NodeConfig;
    use crate::peers::testing::outbox;
    use crate::wire::inspect::Held;
    use crate::wire::network::Network;
    use std::sync::Arc;

    const NOW: Instant = Instant::from_secs(100);
    const KEY: Key = Key([3; 32]);
    const STREAM: StreamId = StreamId(9);

    /// A node that stores pieces for others, with the parts of it that the shelf looks at.
    struct Parts {
        machines: Machines,
        ops: Ops,
    }

    impl Parts {
        fn new() -> Parts {
            Parts::of(Machines::alone(NOW))
        }

        fn of(machines: Machines) -> Parts {
            let config = NodeConfig::of_a_test(([127, 0, 0, 1], 1).into(), &[]);
            Parts { ops: Ops::new(&config, &[], &machines, 7, NOW), machines }
        }

        fn shelf(&mut self) -> Shelf<'_> {
            let Machines { store, dht, replication, outbox, .. } = &mut self.machines;
            Shelf { now: NOW, store, dht, replication, outbox, ops: &mut self.ops }
        }

        /// The pieces that were requested and are not here.
        fn missed(&self) -> Vec<Key> {
            let missed = |errand: &Errand| if let Errand::Missed(key) = errand { Some(*key) } else { None };
            self.ops.errands.iter().filter_map(missed).collect()
        }

        fn answer(&mut self, offer: &Offer) -> Option<Verdict> {
            self.shelf().admit(STREAM, 1, offer, &peer())
        }

        /// Stores the piece of an offer.
        fn keep(&mut self, offer: &Offer) {
            let Some(Verdict::Send { incoming }) = self.answer(offer) else { panic!("not admitted") };
            assert!(self.shelf().make_room(incoming));
            assert!(self.machines.store.committed(incoming).is_some());
        }
    }

    fn peer() -> Contact {
        Contact::new(PublicKey([8; 32]), ([9, 9, 9, 9], 1).into())
    }

    fn offer() -> Offer {
        let (content, mode) = (Content::File, Mode::UNKNOWN);
        Offer {
            key: KEY,
            content,
            length: 500,
            input_offset: 0,
            replicas: 3,
            mode,
            lifetime: 3600,
            claim: None,
        }
    }

    fn manifest() -> Arc<Manifest> {
        let bytes = vec![1; 3 * CHUNK_BYTES_MIN as usize];
        let mut builder = ManifestBuilder::new(bytes.len() as u64).unwrap();
        builder.update(&bytes);
        Arc::new(builder.finish().unwrap())
    }

    #[test]
    fn a_stored_piece_is_served_from_its_file() {
        let mut parts = Parts::new();
        parts.keep(&offer());
        let mut shelf = parts.shelf();
        assert!(shelf.has(&KEY));
        let located = shelf.locate(&KEY).unwrap();
        assert_eq!(located.content, Content::File);
        let Bytes::File(extent) = located.bytes else { panic!("{:?}", located.bytes) };
        assert_eq!(extent.place, Place::Piece(KEY));
        assert_eq!(extent.length, 500);
    }

    #[test]
    fn a_piece_that_is_refused_is_noted_because_its_file_may_have_come_back() {
        let mut parts = Parts::new();
        let mut shelf = parts.shelf();
        assert!(!shelf.has(&KEY));
        assert_eq!(shelf.locate(&KEY), Err(Refusal::NotFound));
        assert_eq!(parts.missed(), [KEY]);
    }

    #[test]
    fn a_piece_is_not_served_while_it_is_checked() {
        let mut parts = Parts::new();
        parts.keep(&offer());
        parts.ops.rechecks.report(NOW, KEY, NodeId([1; 32]), &mut parts.machines);
        let mut shelf = parts.shelf();
        assert_eq!(shelf.locate(&KEY), Err(Refusal::Busy));
        assert_eq!(parts.missed(), []);
    }

    #[test]
    fn the_manifest_of_a_download_is_served_from_memory() {
        let (mut parts, manifest) = (Parts::new(), manifest());
        let hash = manifest.hash();
        let place = Place::Partial(std::path::Path::new("/target").into());
        parts.machines.store.begin_partial(hash, manifest.clone(), place).unwrap();
        let mut shelf = parts.shelf();
        assert!(shelf.has(&hash));
        assert_eq!(shelf.locate(&hash).unwrap().bytes, Bytes::Memory(manifest.encode()));
        assert!(!shelf.has(&manifest.keys()[0]), "its first chunk has not come");
    }

    #[test]
    fn a_leaf_takes_no_piece_even_if_it_has_it() {
        let mut parts = Parts::new();
        parts.keep(&offer());
        let identity = Identity::from_secret(&[7; 32]);
        parts.machines.outbox = outbox(&Network::of("test", &identity), identity, true, 1);
        assert_eq!(parts.answer(&offer()), Some(Verdict::Refuse(Refusal::NotClose)));
    }

    #[test]
    fn a_node_that_takes_no_new_pieces_still_says_which_it_has() {
        let mut parts = Parts::new();
        parts.keep(&offer());
        let full = DiskError { kind: DiskErrorKind::NoSpace, message: String::new() };
        parts.ops.inbound.handle_unwritten(NOW, full);
        assert_eq!(parts.answer(&offer()), Some(Verdict::Have));
        let other = Offer { key: Key([4; 32]), ..offer() };
        assert_eq!(parts.answer(&other), Some(Verdict::Refuse(Refusal::NoSpace)));
    }

    #[test]
    fn an_offer_without_a_claim_raises_no_promise() {
        let mut parts = Parts::new();
        parts.keep(&offer());
        let longer = Offer { replicas: 9, lifetime: 50_000, ..offer() };
        assert_eq!(parts.answer(&longer), Some(Verdict::Have));
        assert_eq!(parts.machines.store.piece(&KEY).unwrap().replicas, 1);
    }

    /// The party that a piece counts for which the [`peer`] brings, with a claim of this node's identity.
    fn payer(parts: &mut Parts) -> Brought {
        let claimed = parts.machines.claimed(offer());
        parts.keep(&claimed);
        parts.machines.store.piece(&KEY).expect("it is kept").brought
    }

    #[test]
    fn a_piece_counts_for_the_party_of_its_publisher_if_that_is_a_peer() {
        let mut parts = Parts::new();
        let publisher = parts.machines.outbox.identity().public();
        let contact = Contact::new(publisher, ([7, 7, 7, 7], 1).into());
        parts.machines.outbox.peers_mut().meet(NOW, &contact);
        assert_eq!(payer(&mut parts), Brought(*Party::of(contact.addr.ip()).as_bytes()));
    }

    #[test]
    fn a_piece_of_an_unknown_publisher_counts_for_the_party_that_brings_it() {
        assert_eq!(payer(&mut Parts::new()), Brought(*Party::of(peer().addr.ip()).as_bytes()));
    }

    #[test]
    fn an_offer_that_raises_a_promise_is_answered_when_the_promise_is_durable() {
        let mut parts = Parts::new();
        parts.keep(&offer());
        let longer = parts.machines.claimed(Offer { lifetime: 100_000, ..offer() });
        assert_eq!(parts.shelf().admit(STREAM, 7, &longer, &peer()), None);
        let Some(Errand::Raise { op, step }) = parts.ops.errands.pop() else { panic!("nothing is raised") };
        assert!(matches!(op, DiskOp::Raise { key: KEY, .. }), "{op:?}");
        assert_eq!(step, Step::Raise { stream: STREAM, request: 7, key: KEY });
    }

    #[test]
    fn a_question_about_stored_pieces_is_answered_at_once() {
        let mut parts = Parts::new();
        parts.keep(&offer());
        let entries = parts.shelf().inspect(STREAM, 1, &[KEY, Key([4; 32])]).expect("an answer");
        assert_eq!(entries.iter().map(|entry| entry.held).collect::<Vec<_>>(), [Held::Stored, Held::Nothing]);
        assert!(parts.ops.errands.is_empty());
    }

    #[test]
    fn a_promise_for_which_there_is_no_room_any_more_is_forgotten() {
        let mut parts = Parts::new();
        let Some(Verdict::Send { incoming }) = parts.answer(&offer()) else { panic!("not admitted") };
        let full = Space { block_bytes: 4096, total_bytes: 1 << 30, free_bytes: 0, ..Space::default() };
        parts.machines.store.set_space(full);
        assert!(!parts.shelf().make_room(incoming));
        assert_eq!(parts.machines.store.meta_of(incoming), None);
    }
}
