//! From the end of a disk operation, a lookup, or a copy to the operation that it was for.

use super::place_piece::PlaceFor;
use super::{Ops, stock};
use crate::dht::{LookupId, Turnout};
use crate::id::NodeId;
use crate::io::{DiskError, DiskReply};
use crate::node::machines::Machines;
use crate::node::{Copying, Purpose, Waiting};
use crate::time::Instant;
use crate::transfer::{PushError, PushId, PushOutcome};
use crate::wire::contact::Contact;

impl Ops {
    /// A disk operation ended, or made progress.
    pub(in crate::node) fn handle_disk(
        &mut self,
        now: Instant,
        waiting: Waiting,
        result: Result<DiskReply, DiskError>,
        machines: &mut Machines,
    ) {
        match waiting {
            Waiting::UsersFile => {
                if let Err(error) = result {
                    log::warn!("{error}");
                    self.health.errors += 1;
                }
            }
            Waiting::Nothing => {
                if let Err(error) = result {
                    self.health.own_file_failed(now, &error);
                }
            }
            Waiting::Put(command) => self.puts.handle_disk(command, result, machines),
            Waiting::Unshare(command) => {
                if let Err(error) = &result {
                    self.health.note_error(now, error);
                }
                self.removals.handle_disk(command, result, machines);
            }
            Waiting::Examine => self.watch.handle_disk(now, result, machines),
            Waiting::Upload(hash) => {
                if !self.uploads.handle_manifest(now, &hash, result, machines) {
                    // The manifest is written again when the file has been hashed again.
                    self.watch.distrust(now, &hash, machines);
                }
            }
            Waiting::Stock(hash) => {
                if !stock::handle_manifest(now, &hash, result, machines) {
                    self.watch.distrust(now, &hash, machines);
                }
            }
            Waiting::Forget(shared) => {
                stock::handle_ended_manifest(now, &shared, result, machines);
            }
            Waiting::Stamp(place, looker) => self.looked_at(now, &place, looker, result, machines),
            Waiting::Root(id) => self.seekers.hand(now, id, machines, |seeker, machines| {
                seeker.handle_root_read(now, result, machines);
            }),
            Waiting::Download(id, step) => {
                self.seekers.downloads.hand(now, id, machines, |download, machines| {
                    download.handle_disk(now, step, result, machines);
                });
            }
            Waiting::Read(id, step) => self.read_disk(now, id, step, result, machines),
            Waiting::Inbound(step) => {
                if let Some(error) = self.inbound.handle_disk(now, step, result, machines) {
                    self.health.own_file_failed(now, &error);
                }
            }
            Waiting::Sample(sample, place) => self.sampled(now, sample, &place, result, machines),
            Waiting::Scrub => self.scrubbed(now, result, machines),
            Waiting::Recheck => self.rechecked(now, result, machines),
            Waiting::Record(command, reply) => match result {
                Ok(_) => machines.done(command, reply),
                Err(error) => {
                    self.health.note_error(now, &error);
                    machines.disk_failed(command, &error);
                }
            },
        }
    }

    /// A lookup ended with these nodes closest, and perhaps a record.
    pub(in crate::node) fn handle_looked_up(
        &mut self,
        now: Instant,
        lookup: LookupId,
        closest: &[Contact],
        record: Option<&[u8]>,
        turnout: Turnout,
        machines: &mut Machines,
    ) {
        match machines.lookups.remove(&lookup) {
            Some(Purpose::Providers(id)) => {
                self.seekers.hand(now, id, machines, |seeker, machines| {
                    seeker.handle_providers_looked_up(now, closest, turnout.answered, machines);
                });
            }
            Some(Purpose::Holders(id, key)) => {
                self.seekers.hand(now, id, machines, |seeker, machines| {
                    seeker.handle_holders_looked_up(now, key, closest, turnout.answered, machines);
                });
            }
            Some(Purpose::Place(PlaceFor::Relocation { key })) => {
                self.repair.handle_looked_up(now, key, closest, machines);
            }
            Some(Purpose::Place(PlaceFor::Upload { file, piece })) => {
                self.uploads.handle_looked_up(now, (file, piece), closest, machines);
            }
            Some(Purpose::Value(question)) => {
                question.answer(now, record, turnout, machines);
            }
            None => {}
        }
    }

    /// A copy to another node ended. Its operation may have been cancelled.
    pub(in crate::node) fn handle_pushed(
        &mut self,
        now: Instant,
        push: PushId,
        target: &NodeId,
        result: &Result<PushOutcome, PushError>,
        machines: &mut Machines,
    ) {
        match machines.pushes.remove(&push).map(|(copying, _)| copying) {
            Some(Copying::Place(PlaceFor::Upload { file, piece })) => {
                self.uploads.handle_copied(now, (file, piece, push), target, result, machines);
            }
            Some(Copying::Place(PlaceFor::Relocation { key })) => {
                self.repair.handle_placed(now, (key, push), result, machines);
            }
            Some(Copying::Repair(key)) => self.repair.handle_copied(now, &key, target, result, machines),
            None => {}
        }
    }
}
