//! Leaving: the goodbye; and, for good, handing over the pieces that have too few other known copies.

use super::command::{CommandId, Progress, Reply, Stage};
use super::{Node, Output};
use crate::id::Key;
use crate::time::{Duration, Instant};
use std::collections::BTreeSet;

/// Pieces that are handed over at a time.
const AT_A_TIME: usize = 8;
/// A piece with fewer known copies elsewhere than this is handed over. More than one, because another holder may leave at the same
/// moment.
const COPIES_ELSEWHERE: u8 = 2;
/// The time limit in seconds, unless the command says otherwise.
pub(super) const LEAVE_SECONDS: u32 = 60;

/// A node that is about to leave.
pub(super) struct Leaving {
    waiters: Vec<CommandId>,
    until: Instant,
    /// Pieces still to be handed over.
    todo: Vec<Key>,
    under_way: BTreeSet<Key>,
    total: u64,
    handed_over: u64,
    left_behind: u64,
}

impl Leaving {
    pub(super) fn next_deadline(&self) -> Instant {
        self.until
    }
}

impl Node {
    pub(super) fn leave(&mut self, now: Instant, id: CommandId, timeout: Option<u32>) {
        if let Some(leaving) = &mut self.leaving {
            return leaving.waiters.push(id);
        }
        let seconds = timeout.unwrap_or(LEAVE_SECONDS);
        let todo: Vec<Key> = self.machines.replication.short_of(COPIES_ELSEWHERE).collect();
        let total = todo.len() as u64;
        let until = now + Duration::from_secs(u64::from(seconds));
        self.leaving = Some(Leaving {
            waiters: vec![id],
            until,
            todo,
            under_way: BTreeSet::new(),
            total,
            handed_over: 0,
            left_behind: 0,
        });
    }

    /// Whether the node refuses pieces of others because it is leaving.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// Hands over the next pieces, and leaves when none is left. Returns whether there was anything to do.
    pub(super) fn hand_over(&mut self, now: Instant) -> bool {
        let mut acted = false;
        while let Some(leaving) = self.leaving.as_mut().filter(|leaving| leaving.under_way.len() < AT_A_TIME)
        {
            let Some(key) = leaving.todo.pop() else { break };
            leaving.under_way.insert(key);
            self.relocate(now, key);
            acted = true;
        }
        let over = |leaving: &Leaving| leaving.todo.is_empty() && leaving.under_way.is_empty();
        if self.leaving.as_ref().is_some_and(over) {
            self.go(now);
        }
        acted
    }

    /// A piece was offered to the nodes closest to it.
    pub(super) fn handed_over(&mut self, key: &Key, copies: u8) {
        let Some(leaving) = &mut self.leaving else { return };
        if !leaving.under_way.remove(key) {
            return;
        }
        match copies {
            0 => leaving.left_behind += 1,
            _ => leaving.handed_over += 1,
        }
        let (done, total) = (leaving.handed_over, leaving.total);
        for waiter in leaving.waiters.clone() {
            self.machines
                .progress(waiter, Progress { stage: Stage::HandingOver, done, total, prefix: 0, path: None });
        }
    }

    pub(super) fn leave_timeout(&mut self, now: Instant) {
        if self.leaving.as_ref().is_some_and(|leaving| leaving.until <= now) {
            self.go(now);
        }
    }

    /// Says goodbye to the neighbours, and saves what the next run needs.
    pub(super) fn say_goodbye(&mut self, now: Instant, for_good: bool) {
        // Contacts are saved first, because the goodbye may drop them.
        self.remember_peers();
        self.remember_scrub();
        self.machines.gossip.leave(now, for_good, &mut self.machines.outbox);
        let sequence = self.machines.gossip.sequence();
        self.machines.dht.leave(for_good, sequence, &mut self.machines.outbox);
    }

    fn go(&mut self, now: Instant) {
        let Some(leaving) = self.leaving.take() else { return };
        self.say_goodbye(now, true);
        let handed_over = leaving.handed_over as u32;
        let left_behind = leaving.total as u32 - handed_over;
        for waiter in leaving.waiters {
            self.machines.done(waiter, Reply::Leave { handed_over, left_behind });
        }
        self.machines.outputs.push_back(Output::Stop);
    }
}
