//! The machines, and the outputs of the node: everything that an operation may use.
//!
//! An operation (a download, an upload, an audit) owns its own state. It gets `&mut Machines` with each event, so the
//! compiler shows that it touches no other operation.

use super::command::{CommandId, Failure, FailureReason, Progress, Reply, Response};
use super::ops::share::ShareEvent;
use super::{Copying, Looker, Output, Purpose, Waiting, status};
use crate::dht::{Dht, LookupId};
use crate::gossip::Gossip;
use crate::id::NodeId;
use crate::io::{DiskError, DiskId, DiskOp, Extent, FileStamp, Place};
use crate::peers::outbox::Outbox;
use crate::replication::Replication;
use crate::store::Store;
use crate::time::Instant;
use crate::transfer::{DownloadId, PushId, Transfer};
use crate::wire::claim::sign_claim;
use crate::wire::contact::Contact;
use crate::wire::frame::Offer;
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

/// Copies under way to one node: a silent node must not occupy all places.
pub(super) const COPIES_PER_NODE_MAX: usize = 8;

/// The machines of one node, its outputs, and its outstanding disk operations, lookups and copies.
pub(super) struct Machines {
    pub(super) dht: Dht,
    pub(super) gossip: Gossip,
    pub(super) replication: Replication,
    pub(super) transfer: Transfer,
    pub(super) store: Store,
    /// Datagrams to be sent.
    pub(super) outbox: Outbox,
    /// All other outputs for the driver.
    pub(super) outputs: VecDeque<Output>,
    /// The operation that each disk operation under way belongs to.
    pub(super) disk_waiting: BTreeMap<DiskId, Waiting>,
    /// The operation that each lookup under way belongs to.
    pub(super) lookups: BTreeMap<LookupId, Purpose>,
    /// The operation that each copy under way to another node belongs to, and that node.
    pub(super) pushes: BTreeMap<PushId, (Copying, NodeId)>,
    /// Events of shared files.
    pub(super) share_events: VecDeque<ShareEvent>,
    /// The last number given to a disk operation or to an operation.
    pub(super) last_id: u64,
    /// The directory of the node's cache, for the paths in answers.
    pub(super) cache_dir: PathBuf,
    /// Seconds that copies are kept when a command does not say.
    pub(super) lifetime: u32,
}

impl Machines {
    /// A number that this node has not used in this run.
    pub(super) fn fresh_id(&mut self) -> u64 {
        self.last_id += 1;
        self.last_id
    }

    /// Starts a disk operation on behalf of `waiting`. Deletions that the store decided earlier come first: a piece that
    /// was deleted may be written anew.
    pub(super) fn disk(&mut self, op: DiskOp, waiting: Waiting) {
        self.tidy();
        let id = DiskId(self.fresh_id());
        self.disk_waiting.insert(id, waiting);
        self.outputs.push_back(Output::Disk { id, op });
    }

    /// Has the disk check whether a shared file still has this stamp.
    pub(super) fn look_at(&mut self, place: Place, stamp: FileStamp, looker: Looker) {
        let nothing = Extent::nothing_of(place.clone(), stamp);
        self.disk(DiskOp::Read(nothing), Waiting::Stamp(place, looker));
    }

    /// Stops the lookups of an operation that has ended.
    pub(super) fn stop_lookups(&mut self, operation: DownloadId) {
        let theirs = |purpose: &Purpose| match purpose {
            Purpose::Providers(id) | Purpose::Holders(id, _) => *id == operation,
            _ => false,
        };
        let open = self.lookups.iter().filter(|(_, purpose)| theirs(purpose));
        let open: Vec<LookupId> = open.map(|(lookup, _)| *lookup).collect();
        for lookup in open {
            self.lookups.remove(&lookup);
            self.dht.stop(lookup);
        }
    }

    /// Passes on the deletions that the store has decided.
    pub(super) fn tidy(&mut self) {
        while let Some(op) = self.store.poll_op() {
            let id = DiskId(self.fresh_id());
            self.disk_waiting.insert(id, Waiting::Nothing);
            self.outputs.push_back(Output::Disk { id, op });
        }
    }

    /// This node's id.
    pub(super) fn id(&self) -> NodeId {
        self.outbox.identity().id()
    }

    /// Sets whether this node is a leaf.
    pub(super) fn set_leaf(&mut self, leaf: bool) {
        self.outbox.set_leaf(leaf);
        self.dht.set_leaf(leaf);
        self.transfer.set_leaf(leaf);
    }

    /// Offers a piece to another node on behalf of `copying`. `None` when too many copies are under way.
    pub(super) fn push(
        &mut self,
        now: Instant,
        copying: Copying,
        target: Contact,
        offer: Offer,
        extent: Extent,
    ) -> Option<PushId> {
        let push = PushId(self.fresh_id());
        let queued = self.transfer.push(now, push, target, offer, extent);
        if queued {
            self.pushes.insert(push, (copying, target.id));
        }
        queued.then_some(push)
    }

    /// Whether another copy may go to this node. Few copies are under way, so counting them is cheap.
    pub(super) fn takes_copy(&self, target: &NodeId) -> bool {
        self.pushes.values().filter(|(_, to)| to == target).count() < COPIES_PER_NODE_MAX
    }

    /// The same nodes, with silent ones last.
    pub(super) fn likeliest_first(&self, contacts: &[Contact]) -> Vec<Contact> {
        let mut sorted = contacts.to_vec();
        sorted.sort_by_key(|contact| self.is_silent(&contact.id));
        sorted
    }

    fn is_silent(&self, id: &NodeId) -> bool {
        self.gossip.member(id).is_some_and(|member| member.liveness.is_away())
    }

    /// The offer of a piece of a file that was put here, with a new claim.
    pub(super) fn claimed(&mut self, offer: Offer) -> Offer {
        let (sequence, asked) = (self.dht.next_sequence(), (offer.replicas, offer.lifetime));
        let claim = sign_claim(self.outbox.network(), self.outbox.identity(), &offer.key, asked, sequence);
        Offer { claim: Some(claim), ..offer }
    }

    /// The path of a file, for messages.
    pub(super) fn path_of(&self, place: &Place) -> PathBuf {
        status::path_of(&self.cache_dir, place)
    }

    /// Answers a command.
    pub(super) fn respond(&mut self, command: CommandId, response: Response) {
        self.outputs.push_back(Output::Respond { command, response });
    }

    /// Reports a command's progress.
    pub(super) fn progress(&mut self, command: CommandId, progress: Progress) {
        self.respond(command, Response::Progress(progress));
    }

    /// Ends a command with its result.
    pub(super) fn done(&mut self, command: CommandId, reply: Reply) {
        self.respond(command, Response::Done(reply));
    }

    /// Ends a command with a failure.
    pub(super) fn fail(&mut self, command: CommandId, reason: FailureReason, message: impl Into<String>) {
        self.respond(command, Response::Failed(Failure { reason, message: message.into() }));
    }

    /// Ends a command with the failure of a disk operation.
    pub(super) fn disk_failed(&mut self, command: CommandId, error: &DiskError) {
        self.fail(command, status::failure_of(error), error.to_string());
    }
}

#[cfg(test)]
impl Machines {
    /// The machines of a node that knows no other, for tests of operations.
    pub(super) fn alone(now: Instant) -> Machines {
        use crate::dht::DhtConfig;
        use crate::gossip::GossipConfig;
        use crate::identity::Identity;
        use crate::io::Recovered;
        use crate::limits::Limits;
        use crate::replication::ReplicationConfig;
        use crate::transfer::TransferConfig;
        use crate::wire::datagram::Epoch;
        use crate::wire::network::Network;
        let (limits, identity) = (Limits::default(), Identity::from_secret(&[7; 32]));
        let network = Network::of("test", &identity);
        let (public, id) = (identity.public(), identity.id());
        let transfer = TransferConfig::new(limits.clone(), false, 4949);
        Machines {
            dht: Dht::new(DhtConfig::default(), id, [1; 32], now),
            gossip: Gossip::new(GossipConfig::default(), public, false, 1, [2; 32], now),
            replication: Replication::new(ReplicationConfig::default(), id, [3; 32], now),
            transfer: Transfer::new(transfer, network.clone(), [4; 32]),
            store: Store::new(&limits, &Recovered::default(), 5, now),
            outbox: Outbox::new(network, identity, false, Epoch::new(1), &limits, [6; 32]),
            outputs: VecDeque::new(),
            disk_waiting: BTreeMap::new(),
            lookups: BTreeMap::new(),
            pushes: BTreeMap::new(),
            share_events: VecDeque::new(),
            last_id: 0,
            cache_dir: PathBuf::from("/cache"),
            lifetime: 3600,
        }
    }
}
