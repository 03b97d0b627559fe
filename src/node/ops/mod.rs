//! Operations: work over several events, on behalf of commands, of peers, or of the node itself.
//!
//! Each owns its state and gets [`Machines`] with every event, so it reaches no other operation. [`Ops`] are all of them.
//!
//! | file | what it does |
//! |---|---|
//! | [`seek`] | what downloads, reads and audits begin with: the root of a file, and its sources |
//! | [`download`] | from an address to a file |
//! | [`read`] | from an address to a client's connection |
//! | [`fetch`] | the common part of downloads and reads |
//! | [`audit`] | which node holds which piece of a file (`explain`), and the answers to such questions |
//! | [`share`] | putting files, watching them, and ending shares |
//! | [`upload`] | the pieces of a shared file to their holders |
//! | [`repair`] | the copies that replication decides on |
//! | [`place_piece`] | one piece to the nodes closest to it, for uploads and repair |
//! | [`stock`] | the pieces of this node as replication sees them |
//! | [`inbound`] [`claims`] | pieces that other nodes send; what their offers are worth |
//! | [`values`] | publishing values and looking them up |
//! | [`scrub`] [`recheck`] | reading everything on disk again; reading a piece that a peer reported |
//! | [`damage`] | what follows when content does not verify or cannot be read |
//! | [`shrink`] [`leave`] | handing over pieces that exceed the limits; handing them over before the node leaves |
//! | `dispatch` | from the end of a disk operation, a lookup, or a copy to its operation |
//! | `follow_up` | what follows from one operation for another |
//! | [`table`] [`queue`] | all operations of one kind, and the orders that wait |

pub(super) mod audit;
pub(super) mod claims;
pub(super) mod damage;
mod dispatch;
pub(super) mod download;
pub(super) mod fetch;
mod follow_up;
pub(super) mod inbound;
pub(super) mod leave;
pub(super) mod place_piece;
pub(super) mod queue;
pub(super) mod read;
pub(super) mod recheck;
pub(super) mod repair;
pub(super) mod scrub;
pub(super) mod seek;
pub(super) mod share;
pub(super) mod shrink;
pub(super) mod stock;
pub(super) mod table;
#[cfg(test)]
mod tests;
pub(super) mod upload;
pub(super) mod values;

use super::NodeConfig;
use super::command::CommandId;
use super::health::Health;
use super::machines::Machines;
use super::shelf::Errand;
use crate::time::{Instant, earliest};
use claims::Claims;
use damage::DamageCounters;
use inbound::Inbound;
use leave::Departure;
use recheck::Rechecks;
use repair::Repair;
use scrub::Scrub;
use seek::Seekers;
use share::put::Puts;
use share::removal::Removals;
use share::watch::Watch;
use shrink::Shrink;
use upload::Uploads;
use values::Values;

/// All operations of a node, and the health of the disk that they use.
pub(super) struct Ops {
    /// Downloads, reads and audits.
    pub(super) seekers: Seekers,
    pub(super) puts: Puts,
    pub(super) watch: Watch,
    pub(super) removals: Removals,
    pub(super) uploads: Uploads,
    pub(super) repair: Repair,
    /// The judge of other nodes' offers.
    pub(super) claims: Claims,
    pub(super) inbound: Inbound,
    pub(super) values: Values,
    pub(super) scrub: Scrub,
    pub(super) rechecks: Rechecks,
    pub(super) damage: DamageCounters,
    pub(super) shrink: Shrink,
    pub(super) departure: Departure,
    pub(super) health: Health,
    /// Work that answers at the shelf have left.
    pub(super) errands: Vec<Errand>,
}

impl Ops {
    /// Those of a node that starts. `scrub` is the note of the last run: see [`Scrub::encode`].
    /// `secret` is a random number.
    pub(super) fn new(
        config: &NodeConfig,
        scrub: &[u8],
        machines: &Machines,
        secret: u64,
        now: Instant,
    ) -> Self {
        let limits = &config.limits;
        Ops {
            seekers: Seekers::new(limits, config.listen),
            puts: Puts::new(config.replicas, config.lifetime, limits.commands_max),
            watch: Watch::new(now),
            removals: Removals::default(),
            uploads: Uploads::default(),
            repair: Repair::new(now),
            claims: Claims::new(secret),
            inbound: Inbound::default(),
            values: Values::new(limits),
            scrub: Scrub::new(limits.scrub_seconds, scrub, machines, now),
            rechecks: Rechecks::default(),
            damage: DamageCounters::default(),
            shrink: Shrink::new(now),
            departure: Departure::default(),
            health: Health::new(now),
            errands: Vec::new(),
        }
    }

    /// When [`handle_timeout`](Ops::handle_timeout), that of [`Repair`], or [`go_on`](Ops::go_on) is due.
    pub(super) fn next_deadline(&self, machines: &Machines) -> Option<Instant> {
        let deadlines = [
            self.seekers.next_deadline(),
            self.uploads.next_deadline(),
            self.repair.next_deadline(machines),
            self.watch.next_deadline(),
            self.scrub.next_deadline(machines),
            self.shrink.next_deadline(machines),
            self.departure.next_deadline(),
        ];
        deadlines.into_iter().fold(None, earliest)
    }

    /// The deadline of [`next_deadline`](Ops::next_deadline) has come.
    pub(super) fn handle_timeout(&mut self, now: Instant, machines: &mut Machines) {
        self.seekers.handle_timeout(now, machines);
        self.uploads.handle_timeout(now, machines);
        self.watch.handle_timeout(now, machines);
        self.scrub.handle_timeout(now, machines);
    }

    /// A client no longer waits for a command. Downloads, reads and audits end; all else goes on.
    pub(super) fn cancel(&mut self, now: Instant, command: CommandId, machines: &mut Machines) {
        self.seekers.cancel(now, command, machines);
        self.scrub.cancel(command);
    }
}
