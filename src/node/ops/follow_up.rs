//! What follows from one operation for another: a file that is served is uploaded and kept by replication, a piece that is dropped leaves
//! the scrub, and the end of a relocation is for the operation that hands the piece over.

use super::repair::Relocated;
use super::share::ShareEvent;
use super::{Ops, share, stock};
use crate::id::Key;
use crate::io::Recovered;
use crate::node::machines::Machines;
use crate::store::PieceChange;
use crate::time::Instant;

impl Ops {
    /// Carries out the work that follows from the last input. Returns whether there was any: then more may follow.
    pub(in crate::node) fn go_on(&mut self, now: Instant, machines: &mut Machines) -> bool {
        self.carry_out(now, machines) || self.hand_over(now, machines) || self.hand_on(now, machines)
    }

    /// After a start: announces shared files again, adds them to replication, and continues unfinished uploads.
    pub(in crate::node) fn resume(&mut self, now: Instant, recovered: &Recovered, machines: &mut Machines) {
        stock::take(now, machines);
        for shared in share::served(machines) {
            let manifest = recovered.manifests.get(&shared.hash).cloned();
            machines.dht.provide_again(now, shared.hash);
            stock::file_served(now, &shared, manifest.clone(), machines);
            self.uploads.served(now, &shared, manifest, None, true, machines);
        }
    }

    /// Handles an event of a share: a file is served from now on, or no longer.
    pub(in crate::node) fn handle_share_event(
        &mut self,
        now: Instant,
        event: ShareEvent,
        machines: &mut Machines,
    ) {
        match event {
            ShareEvent::Served { hash, manifest, waiter, fresh } => {
                let Some(shared) = machines.store.shared(&hash) else { return };
                machines.dht.provide(now, hash, false, &mut machines.outbox);
                if fresh {
                    stock::file_served(now, &shared, manifest.clone(), machines);
                }
                self.uploads.served(now, &shared, manifest, waiter, fresh, machines);
            }
            ShareEvent::Withdrawn { shared, why, manifest } => {
                // It may be served again, from another path.
                if machines.store.source(&shared.hash).is_none() {
                    stock::file_withdrawn(now, &shared, manifest.as_deref(), machines);
                    self.unserved(now, &shared.hash, &why, machines);
                }
            }
        }
    }

    /// A file is no longer served: ends its announcement and its upload.
    fn unserved(&mut self, now: Instant, hash: &Key, why: &str, machines: &mut Machines) {
        machines.dht.unprovide(now, hash, &mut machines.outbox);
        self.uploads.stop(now, hash, why, machines);
    }

    /// Tells replication about changes of the store, carries out its decisions, and reports relocations that ended. Returns whether
    /// there was a decision or an end.
    fn carry_out(&mut self, now: Instant, machines: &mut Machines) -> bool {
        while let Some(change) = machines.store.poll_change() {
            match change {
                PieceChange::Kept(meta) => stock::piece_changed(now, &meta.key, machines),
                PieceChange::Evicted(hash) => {
                    self.unserved(now, &hash, "its file was in the cache, and made room", machines);
                }
                PieceChange::Dropped(key) => {
                    self.scrub.piece_dropped(&key);
                    stock::piece_removed(now, &key, machines);
                }
            }
        }
        let mut acted = false;
        while let Some(action) = machines.replication.poll_action() {
            self.repair.act(now, action, machines);
            acted = true;
        }
        while let Some(Relocated { key, copies }) = self.repair.poll_relocated() {
            self.shrink.placed(now, &key, copies, machines);
            self.departure.placed(&key, copies, machines);
            acted = true;
        }
        acted
    }

    /// Hands on pieces that exceed the limits. Returns whether there was anything to do.
    fn hand_on(&mut self, now: Instant, machines: &mut Machines) -> bool {
        let own = machines.outbox.identity().id();
        let next = self.shrink.next(now, &own, machines).filter(|_| !self.departure.is_under_way());
        if let Some(key) = next {
            self.repair.relocate(now, key, machines);
        }
        next.is_some()
    }

    /// Offers the pieces that are handed over before this node leaves. Returns whether there was anything to do.
    fn hand_over(&mut self, now: Instant, machines: &mut Machines) -> bool {
        let mut acted = false;
        while let Some(key) = self.departure.next() {
            self.repair.relocate(now, key, machines);
            acted = true;
        }
        acted
    }
}
