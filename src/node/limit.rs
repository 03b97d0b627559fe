//! Changing limits while the node runs.

use super::command::{CommandId, FailureReason, Reply};
use super::machines::Machines;
use crate::limits::Limits;
use crate::time::Instant;

/// New limits; those that are `None` stay as they are.
pub(super) struct Change {
    pub(super) upload: Option<u64>,
    pub(super) download: Option<u64>,
    pub(super) peer_upload: Option<u64>,
    pub(super) peer_download: Option<u64>,
    pub(super) streams: Option<usize>,
    pub(super) uploads: Option<usize>,
}

impl Change {
    /// Applies the change to the limits in force, unless the result contradicts itself. Answers the command with the limits that are in
    /// force then.
    pub(super) fn apply(
        self,
        now: Instant,
        command: CommandId,
        in_force: &mut Limits,
        machines: &mut Machines,
    ) {
        let mut limits = in_force.clone();
        let rates = &mut limits.rates;
        rates.upload = self.upload.unwrap_or(rates.upload);
        rates.download = self.download.unwrap_or(rates.download);
        rates.peer_upload = self.peer_upload.unwrap_or(rates.peer_upload);
        rates.peer_download = self.peer_download.unwrap_or(rates.peer_download);
        limits.streams_max = self.streams.unwrap_or(limits.streams_max);
        limits.uploads_max = self.uploads.unwrap_or(limits.uploads_max);
        if let Err(error) = limits.validate() {
            return machines.fail(command, FailureReason::Usage, error.to_string());
        }
        machines.transfer.set_limits(now, &limits);
        let reply =
            Reply::Limit { rates: limits.rates, streams: limits.streams_max, uploads: limits.uploads_max };
        *in_force = limits;
        machines.done(command, reply);
    }
}
