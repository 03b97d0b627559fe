//! The audit of a file (`explain`): every node that should hold a piece of it is asked now whether it does.
//!
//! First the root is needed, and nothing else of the file. Then the nodes closest to each piece, and the file's providers, are asked
//! over authenticated streams ([`run`]). Which node to ask what, and what it answered, is plain data ([`plan`]). Only what a node says
//! about its own disk counts. The evaluation of the answers is the [`report`]. Nodes that have not answered by the deadline are reported.
//!
//! [`answer`] is the other side: this node's answers to the questions of others.

pub(in crate::node) mod answer;
mod plan;
mod report;
mod run;
#[cfg(test)]
mod tests;

pub(in crate::node) use run::{Audit, Order};

use super::table::Table;
use crate::limits::Limits;
use crate::node::machines::Machines;
use crate::time::Instant;
use crate::transfer::{InspectError, InspectId};
use crate::wire::inspect::InspectEntry;
use core::net::SocketAddr;

/// The settings of all audits.
pub(in crate::node) struct Settings {
    /// Audits under way at a time. Further ones are refused.
    most: usize,
    /// The address of this node until it knows how others see it.
    listen: SocketAddr,
}

/// All audits of a node.
pub(in crate::node) type Audits = Table<Audit>;

impl Audits {
    /// None is under way.
    pub(in crate::node) fn new(limits: &Limits, listen: SocketAddr) -> Self {
        Table::with(limits.explains_max, 0, Settings { most: limits.explains_max, listen })
    }

    /// A node answered a question, or failed to.
    pub(in crate::node) fn handle_answer(
        &mut self,
        now: Instant,
        question: InspectId,
        result: Result<Vec<InspectEntry>, InspectError>,
        machines: &mut Machines,
    ) {
        // There are few audits, so looking through them is cheap.
        if let Some(id) = self.ids(|audit| audit.has_asked(question)).first() {
            self.hand(now, *id, machines, |audit, machines| {
                audit.handle_answer(now, question, result, machines);
            });
        }
    }
}
