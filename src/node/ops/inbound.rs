//! Inbound copies: pieces that other nodes offer and send to this one.
//!
//! The shelf answers offers. A piece that has arrived is acknowledged when it is durable, and so is a raised promise for a piece that is
//! here. After a write that found the disk full, this node takes no further pieces for a while, because they would be sent in vain.

use crate::id::Key;
use crate::io::{DiskError, DiskErrorKind, DiskOp, DiskReply, StreamId};
use crate::node::Waiting;
use crate::node::machines::Machines;
use crate::time::{Duration, Instant};
use crate::transfer::Verdict;
use crate::wire::frame::Refusal;

/// How long this node takes no pieces after the disk was full. Then it tries one.
const FULL_PAUSE: Duration = Duration::from_secs(60);
/// A disk operation for an offer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::node) enum Step {
    /// A piece that has arrived is made durable.
    Commit {
        stream: StreamId,
        request: u32,
        /// The number of its admission.
        incoming: u64,
    },
    /// The lifetime or the number of copies of a stored piece rises.
    Raise { stream: StreamId, request: u32, key: Key },
}

/// The pieces that other nodes send.
#[derive(Default)]
pub(in crate::node) struct Inbound {
    /// The disk was full: until then no pieces are taken.
    full_until: Option<Instant>,
}

impl Inbound {
    /// Why no pieces are taken; `None` when they are.
    pub(in crate::node) fn closed(&self, now: Instant) -> Option<Refusal> {
        self.full_until.filter(|until| now < *until).map(|_| Refusal::NoSpace)
    }

    /// A piece has arrived and verifies: it is made durable. `bytes` are its content, unless that is in a file.
    pub(in crate::node) fn handle_arrived(
        &mut self,
        (stream, request): (StreamId, u32),
        incoming: u64,
        bytes: Option<Vec<u8>>,
        machines: &mut Machines,
    ) {
        let Some(meta) = machines.store.meta_of(incoming) else { return };
        let op = match bytes {
            Some(bytes) => DiskOp::WritePiece { meta, bytes },
            None => DiskOp::Commit { incoming, meta },
        };
        machines.disk(op, Waiting::Inbound(Step::Commit { stream, request, incoming }));
    }

    /// A piece will not arrive, or does not verify.
    pub(in crate::node) fn handle_arrival_failed(&mut self, incoming: u64, machines: &mut Machines) {
        machines.store.discarded(incoming);
    }

    /// A piece could not be written while it arrived. Returns the error if it says something about the disk.
    pub(in crate::node) fn handle_unwritten(&mut self, now: Instant, error: DiskError) -> Option<DiskError> {
        self.unwritten(now, &error);
        of_the_disk(error)
    }

    /// A disk operation ended: the peer gets its answer. Returns the error if it says something about the disk.
    pub(in crate::node) fn handle_disk(
        &mut self,
        now: Instant,
        step: Step,
        result: Result<DiskReply, DiskError>,
        machines: &mut Machines,
    ) -> Option<DiskError> {
        match step {
            Step::Commit { stream, request, incoming } => {
                let outcome = match &result {
                    Ok(_) => {
                        machines.store.committed(incoming);
                        Ok(())
                    }
                    Err(error) => {
                        machines.store.discarded(incoming);
                        Err(self.unwritten(now, error))
                    }
                };
                machines.transfer.stored(now, stream, request, outcome);
            }
            Step::Raise { stream, request, key } => {
                let verdict = match &result {
                    Ok(_) if machines.store.piece(&key).is_some() => Verdict::Have,
                    // The piece was removed meanwhile.
                    Ok(_) => Verdict::Refuse(Refusal::Busy),
                    Err(error) => {
                        machines.store.not_raised(&key);
                        Verdict::Refuse(self.unwritten(now, error))
                    }
                };
                machines.transfer.admit(now, stream, request, verdict);
            }
        }
        result.err().and_then(of_the_disk)
    }

    /// The refusal of a piece that could not be written.
    fn unwritten(&mut self, now: Instant, error: &DiskError) -> Refusal {
        match error.kind {
            DiskErrorKind::Busy => Refusal::Busy,
            DiskErrorKind::NoSpace => {
                self.full_until = Some(now + FULL_PAUSE);
                Refusal::NoSpace
            }
            _ => Refusal::Disk,
        }
    }
}

/// The error, unless it means only that the disk has too much to do.
fn of_the_disk(error: DiskError) -> Option<DiskError> {
    if error.kind == DiskErrorKind::Busy {
        log::info!("{error}");
        return None;
    }
    Some(error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::{Brought, Mode, PieceMeta, Recovered};
    use crate::limits::Limits;
    use crate::manifest::Content;
    use crate::peers::contest::Holder;
    use crate::store::{Admission, Store};
    use crate::wire::frame::Offer;

    const START: Instant = Instant::from_secs(1000);
    const HERE: Key = Key([9; 32]);
    const NEW: Key = Key([8; 32]);
    const STREAM: (StreamId, u32) = (StreamId(1), 7);

    fn offer(key: Key) -> Offer {
        let (content, mode) = (Content::File, Mode::UNKNOWN);
        Offer { key, content, length: 100, input_offset: 0, replicas: 3, mode, lifetime: 60, claim: None }
    }

    fn error(kind: DiskErrorKind) -> DiskError {
        DiskError { kind, message: String::new() }
    }

    struct Bench {
        machines: Machines,
        inbound: Inbound,
    }

    impl Bench {
        /// A node that holds the piece `HERE`.
        fn new(limits: &Limits) -> Bench {
            let mut machines = Machines::alone(START);
            let piece = offer(HERE).stored(Brought::default(), u64::MAX >> 32);
            let piece = PieceMeta { replicas: 2, ..piece };
            let recovered = Recovered { pieces: vec![piece], ..Recovered::default() };
            machines.store = Store::new(limits, &recovered, 1, START);
            Bench { machines, inbound: Inbound::default() }
        }

        /// Admits a piece, and returns the number of its admission.
        fn admit(&mut self, key: Key) -> u64 {
            match self.machines.store.admit(START, Holder::host([9, 9, 9, 9].into()), &offer(key)) {
                Admission::Send { incoming } => incoming,
                other => panic!("{other:?}"),
            }
        }

        fn arrive(&mut self, incoming: u64) -> Step {
            self.inbound.handle_arrived(STREAM, incoming, None, &mut self.machines);
            self.step()
        }

        fn step(&mut self) -> Step {
            match self.machines.disk_waiting.pop_last() {
                Some((_, Waiting::Inbound(step))) => step,
                _ => panic!("no disk operation is under way"),
            }
        }

        fn disk(&mut self, step: Step, result: Result<DiskReply, DiskError>) -> Option<DiskErrorKind> {
            self.inbound.handle_disk(START, step, result, &mut self.machines).map(|error| error.kind)
        }
    }

    #[test]
    fn a_piece_that_has_arrived_is_here_when_it_is_durable() {
        let mut bench = Bench::new(&Limits::default());
        let incoming = bench.admit(NEW);
        let step = bench.arrive(incoming);
        assert!(bench.machines.store.piece(&NEW).is_none());
        assert_eq!(bench.disk(step, Ok(DiskReply::Done)), None);
        assert!(bench.machines.store.piece(&NEW).is_some());
    }

    #[test]
    fn after_a_full_disk_no_pieces_are_taken_for_a_minute() {
        let mut bench = Bench::new(&Limits::default());
        let incoming = bench.admit(NEW);
        let step = bench.arrive(incoming);
        assert_eq!(bench.disk(step, Err(error(DiskErrorKind::NoSpace))), Some(DiskErrorKind::NoSpace));
        assert!(bench.machines.store.meta_of(incoming).is_none(), "the admission has ended");
        let later = START + Duration::from_secs(59);
        assert_eq!(bench.inbound.closed(later), Some(Refusal::NoSpace));
        assert_eq!(bench.inbound.closed(START + FULL_PAUSE), None);
    }

    #[test]
    fn a_busy_disk_closes_nothing() {
        let mut bench = Bench::new(&Limits::default());
        let incoming = bench.admit(NEW);
        let step = bench.arrive(incoming);
        assert_eq!(bench.disk(step, Err(error(DiskErrorKind::Busy))), None);
        assert_eq!(bench.inbound.closed(START), None);
    }

    #[test]
    fn a_piece_that_could_not_be_written_while_it_arrived_closes_a_full_disk_too() {
        let mut bench = Bench::new(&Limits::default());
        let noted = bench.inbound.handle_unwritten(START, error(DiskErrorKind::NoSpace));
        assert_eq!(noted.map(|error| error.kind), Some(DiskErrorKind::NoSpace));
        assert_eq!(bench.inbound.closed(START), Some(Refusal::NoSpace));
    }

    #[test]
    fn a_raised_promise_is_kept_when_it_is_durable_and_taken_back_when_it_is_not() {
        let mut bench = Bench::new(&Limits::default());
        let raise = Step::Raise { stream: STREAM.0, request: STREAM.1, key: HERE };
        assert_eq!(bench.disk(raise, Ok(DiskReply::Done)), None);
        assert_eq!(bench.disk(raise, Err(error(DiskErrorKind::Failed))), Some(DiskErrorKind::Failed));
        assert_eq!(bench.disk(raise, Err(error(DiskErrorKind::NoSpace))), Some(DiskErrorKind::NoSpace));
        assert_eq!(bench.inbound.closed(START), Some(Refusal::NoSpace));
    }

    #[test]
    fn a_piece_that_will_not_arrive_gives_its_room_back() {
        let mut bench = Bench::new(&Limits::default());
        let incoming = bench.admit(NEW);
        bench.inbound.handle_arrival_failed(incoming, &mut bench.machines);
        assert!(bench.machines.store.meta_of(incoming).is_none());
    }

    #[test]
    fn an_arrival_without_an_admission_is_not_written() {
        let mut bench = Bench::new(&Limits::default());
        bench.inbound.handle_arrived(STREAM, 12_345, None, &mut bench.machines);
        assert!(bench.machines.disk_waiting.is_empty());
    }
}
