//! The common part of downloads and reads: both fetch a file's content from the network.
//!
//! A [`Fetch`] owns the search for the file and the time. Lookups come at growing intervals while nothing arrives, and rarely while
//! content flows. Without progress, the operation fails when the time that its command allows is over. The time that the disk or the
//! client takes does not count. The operation says what it [awaits](Awaited), and carries out what is [`Due`].

use super::seek::Seek;
use super::seek::sources::{LOOK_AGAIN_MIN, Search};
use super::seek::verdict::{self, Sought};
use crate::id::Key;
use crate::io::DiskError;
use crate::node::command::FailureReason;
use crate::node::machines::Machines;
use crate::node::status;
use crate::time::{Duration, Instant, earliest};

/// The time without progress after which an operation fails, unless the command says otherwise.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);
/// The time without content after which the client is told.
const SILENT: Duration = Duration::from_secs(4);

/// What an operation waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Awaited {
    /// The root.
    Root,
    /// Chunks, and nothing goes on without them.
    Chunks,
    /// Chunks for later: the client or the disk is busy with others.
    LaterChunks,
    /// Nothing from the network.
    Nothing,
}

impl Awaited {
    /// What a source can give.
    pub(super) fn sought(self) -> Option<Sought> {
        match self {
            Awaited::Root => Some(Sought::Root),
            Awaited::Chunks | Awaited::LaterChunks => Some(Sought::Chunks),
            Awaited::Nothing => None,
        }
    }
}

/// What the operation does when a deadline has come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Due {
    /// Nothing.
    Nothing,
    /// It tells its clients that no content arrives.
    Tell,
    /// It fails for this reason.
    Fail(FailureReason, String),
}

/// The fetch of one file.
pub(super) struct Fetch {
    pub(super) search: Search,
    /// The allowed time without progress; `None` is no limit.
    timeout: Option<Duration>,
    progress_at: Instant,
    /// The number of nodes that sent content.
    sources: u32,
}

impl Fetch {
    /// A new fetch. `timeout` is the command's value in seconds: `None` is the node's default, 0 is no limit.
    pub(super) fn new(now: Instant, search: Search, timeout: Option<u32>) -> Self {
        let timeout = match timeout {
            None => Some(TIMEOUT_DEFAULT),
            Some(0) => None,
            Some(seconds) => Some(Duration::from_secs(u64::from(seconds))),
        };
        Fetch { search, timeout, progress_at: now, sources: 0 }
    }

    // Getters.

    /// The number of nodes that sent content.
    pub(super) fn sources(&self) -> u32 {
        self.sources
    }

    /// When [`handle_timeout`](Fetch::handle_timeout) is due.
    pub(super) fn next_deadline(&self, awaited: Awaited) -> Option<Instant> {
        earliest(self.search.next_deadline(), self.fails_at(awaited))
    }

    fn fails_at(&self, awaited: Awaited) -> Option<Instant> {
        let counts = matches!(awaited, Awaited::Root | Awaited::Chunks);
        self.timeout.filter(|_| counts).map(|timeout| self.progress_at + timeout)
    }

    // Inputs.

    /// There is progress: the time until the operation fails begins anew.
    pub(super) fn note_progress(&mut self, now: Instant) {
        self.progress_at = now;
    }

    /// Chunks arrive, or may from now on. If they stop, lookups come at short intervals again.
    pub(super) fn note_flow(&mut self, now: Instant) {
        self.note_progress(now);
        self.search.begin_afresh();
    }

    /// A source can be reached again after an outage. The time until the operation fails begins anew, and a lookup comes soon.
    pub(super) fn handle_reached(&mut self, now: Instant) {
        self.note_progress(now);
        self.search.hurry(now);
    }

    /// All requested chunks have arrived, from this many nodes.
    pub(super) fn handle_complete(&mut self, sources: u32) {
        self.sources = self.sources.max(sources);
    }

    /// Chunks are requested from now on. There has been no lookup if the root was here, and none while the disk was working.
    pub(super) fn ensure_lookup(&mut self, now: Instant, machines: &mut Machines) {
        if self.search.next_deadline().is_none() {
            self.search.look_up(now, machines);
        }
    }

    /// The deadline of [`next_deadline`](Fetch::next_deadline) has come. `missing` is the number of missing chunks and of all chunks,
    /// once they are known.
    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        awaited: Awaited,
        missing: Option<(usize, usize)>,
        machines: &mut Machines,
    ) -> Due {
        // A chunk of 16 MiB takes long on a slow line: its bytes count as progress, too.
        let state = machines.transfer.download_state(self.search.download());
        let (requests, state) = (state.is_some(), state.unwrap_or_default());
        self.progress_at = self.progress_at.max(state.last_progress);
        if self.fails_at(awaited).is_some_and(|at| at <= now) {
            let unreached = self.search.unreached(machines);
            let (reason, why) = verdict::timed_out(missing, &self.search, &state, unreached);
            return Due::Fail(reason, why);
        }
        if !self.search.is_due(now) {
            return Due::Nothing;
        }
        let quiet = now.since(self.progress_at);
        match awaited {
            Awaited::Nothing => self.search.rest(),
            // Every chunk is here, or comes from this node's disk.
            Awaited::Chunks | Awaited::LaterChunks if !requests => self.search.rest(),
            Awaited::LaterChunks => self.search.postpone(now),
            Awaited::Chunks if quiet < LOOK_AGAIN_MIN => self.search.postpone(now),
            Awaited::Root | Awaited::Chunks => self.search.look_up(now, machines),
        }
        match awaited {
            Awaited::Chunks if requests && quiet >= SILENT => Due::Tell,
            _ => Due::Nothing,
        }
    }
}

/// An operation that fetches a file's content.
pub(in crate::node) trait Fetcher: Seek {
    /// A chunk is verified and in its file.
    fn handle_chunk(&mut self, now: Instant, index: u32, machines: &mut Machines);

    /// All requested chunks have arrived, from this many nodes.
    fn handle_complete(&mut self, sources: u32, machines: &mut Machines);

    /// What arrived could not be written.
    fn handle_failed(&mut self, now: Instant, error: &DiskError, machines: &mut Machines) {
        self.give_up(now, status::failure_of(error), &error.to_string(), machines);
    }

    /// No known node has these chunks.
    fn handle_sources_needed(&mut self, now: Instant, keys: &[Key], machines: &mut Machines) {
        if self.sought() == Some(Sought::Chunks) {
            self.search_mut().sources_needed(now, keys, machines);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::DownloadId;

    const START: Instant = Instant::from_secs(1000);
    const ID: DownloadId = DownloadId(1);
    const HASH: Key = Key([1; 32]);

    struct Bench {
        machines: Machines,
        fetch: Fetch,
    }

    impl Bench {
        /// A fetch whose lookups all end at once and find nothing. `timeout` is that of its command.
        fn new(timeout: Option<u32>) -> Bench {
            let fetch = Fetch::new(START, Search::new(ID, HASH), timeout);
            Bench { machines: Machines::alone(START), fetch }
        }

        /// The transfer machine requests content for it.
        fn requesting(mut self) -> Bench {
            assert!(self.machines.transfer.fetch(START, ID, HASH, &[]));
            self.looked_up(START);
            self
        }

        fn looked_up(&mut self, now: Instant) {
            self.fetch.search.providers_looked_up(now, &[], 1, &mut self.machines);
        }

        /// Jumps from deadline to deadline until something is due, or there is no deadline within an hour.
        fn wait(&mut self, awaited: Awaited) -> Option<(u64, Due)> {
            loop {
                let now = self.fetch.next_deadline(awaited).filter(|at| at.since(START).as_secs() < 3600)?;
                match self.fetch.handle_timeout(now, awaited, Some((2, 5)), &mut self.machines) {
                    Due::Nothing if self.fetch.search.is_looking() => self.looked_up(now),
                    Due::Nothing => {}
                    due => return Some((now.since(START).as_secs(), due)),
                }
            }
        }

        /// The seconds after which it fails while it waits for the root.
        fn fails_after(&mut self) -> Option<u64> {
            self.wait(Awaited::Root).map(|(seconds, due)| {
                assert!(matches!(due, Due::Fail(FailureReason::Unreachable, _)), "{due:?}");
                seconds
            })
        }
    }

    #[test]
    fn a_fetch_without_progress_fails_when_the_time_of_its_command_is_over() {
        for (timeout, expected) in [(None, Some(60)), (Some(7), Some(7)), (Some(0), None)] {
            assert_eq!(Bench::new(timeout).fails_after(), expected, "{timeout:?}");
            assert_eq!(Bench::new(timeout).requesting().fails_after(), expected, "{timeout:?}");
        }
    }

    #[test]
    fn progress_puts_the_failure_off() {
        let later = START + Duration::from_secs(50);
        let mut bench = Bench::new(None);
        bench.fetch.note_progress(later);
        assert_eq!(bench.fails_after(), Some(110));
        let mut bench = Bench::new(None);
        bench.fetch.handle_reached(later);
        assert_eq!(bench.fails_after(), Some(110));
    }

    #[test]
    fn bytes_of_a_chunk_that_is_still_arriving_are_progress() {
        let mut bench = Bench::new(None);
        let later = START + Duration::from_secs(50);
        assert!(bench.machines.transfer.fetch(later, ID, HASH, &[]));
        assert_eq!(bench.machines.transfer.download_state(ID).unwrap().last_progress, later);
        assert_eq!(bench.fails_after(), Some(110));
    }

    #[test]
    fn the_time_that_the_disk_or_the_client_takes_does_not_count() {
        for awaited in [Awaited::LaterChunks, Awaited::Nothing] {
            let mut bench = Bench::new(None).requesting();
            assert_eq!(bench.wait(awaited), None, "{awaited:?}");
        }
    }

    #[test]
    fn a_failure_says_which_chunks_are_missing() {
        let (seconds, due) = Bench::new(Some(3)).wait(Awaited::Chunks).expect("it fails");
        assert_eq!(seconds, 3);
        let Due::Fail(FailureReason::Unreachable, why) = due else { panic!("{due:?}") };
        assert!(why.starts_with("2 of 5 chunks are missing"), "{why}");
    }

    #[test]
    fn the_clients_are_told_when_no_chunk_arrives_for_some_seconds() {
        let mut bench = Bench::new(None).requesting();
        let (seconds, due) = bench.wait(Awaited::Chunks).expect("they are told");
        assert_eq!(due, Due::Tell);
        assert!((4..=20).contains(&seconds), "{seconds}");
        assert!(bench.fetch.search.is_looking());
    }

    #[test]
    fn a_lookup_is_put_off_while_content_flows_or_is_not_urgent() {
        for awaited in [Awaited::Chunks, Awaited::LaterChunks] {
            let mut bench = Bench::new(None).requesting();
            let due = bench.fetch.search.next_deadline().expect("a lookup is to come");
            bench.fetch.note_flow(due);
            assert_eq!(bench.fetch.handle_timeout(due, awaited, None, &mut bench.machines), Due::Nothing);
            assert!(!bench.fetch.search.is_looking(), "{awaited:?}");
            assert!(bench.fetch.search.next_deadline() > Some(due + LOOK_AGAIN_MIN), "{awaited:?}");
        }
    }

    #[test]
    fn an_operation_that_needs_nothing_from_the_network_looks_for_no_source() {
        // The second awaits chunks, of which none is requested: they come from the disk.
        for (mut bench, awaited) in
            [(Bench::new(None).requesting(), Awaited::Nothing), (Bench::new(None), Awaited::LaterChunks)]
        {
            bench.looked_up(START);
            assert_eq!(bench.wait(awaited), None);
            assert!(!bench.fetch.search.is_looking());
            assert_eq!(bench.fetch.search.next_deadline(), None);
        }
    }

    #[test]
    fn the_first_request_for_chunks_begins_a_lookup_unless_one_is_to_come() {
        let mut bench = Bench::new(None);
        bench.fetch.ensure_lookup(START, &mut bench.machines);
        assert!(bench.fetch.search.is_looking());
        let mut bench = Bench::new(None).requesting();
        bench.fetch.ensure_lookup(START, &mut bench.machines);
        assert!(!bench.fetch.search.is_looking());
    }

    #[test]
    fn the_largest_number_of_sources_is_kept() {
        let mut fetch = Bench::new(None).fetch;
        [2, 5, 1].into_iter().for_each(|sources| fetch.handle_complete(sources));
        assert_eq!(fetch.sources(), 5);
    }
}
