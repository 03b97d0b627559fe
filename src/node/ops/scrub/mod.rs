//! Scrub: everything on disk is read again within a configured time, and what has rotted is found before it is needed.
//!
//! A round goes through the stored pieces in the order of their keys, then through the files that are shared where they
//! lie. Its pace follows from the node's age: after half of the configured time half of the bytes have been read. It is
//! written down now and then where a round is, so restarts do not begin anew for ever. A round that a command asked for
//! goes as fast as the disk's idle time allows.
//!
//! What is found is the node's to act upon: a rotten piece is dropped, so that repair copies it anew from another holder.
//! When one piece after the other cannot be read at all, the medium is failing or gone. Then nothing more is dropped,
//! and the round waits: what comes back with the medium is still good.

use crate::id::Key;
use crate::io::{DiskError, DiskErrorKind, DiskOp, DiskReply, Place, Soundness};
use crate::node::Waiting;
use crate::node::command::{CommandId, FailureReason, Progress, Reply, ScrubReport, ScrubStatus, Stage};
use crate::node::machines::Machines;
use crate::time::{Duration, Instant};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// What opening and reading a file costs besides its bytes, in bytes: it paces small pieces.
const FILE_WEIGHT: u64 = 64 << 10;
/// How long a round waits when it cannot tell whether a piece is sound, or when the medium fails.
const TROUBLE_PAUSE: Duration = Duration::from_secs(60);
/// Pieces in a row that cannot be read, after which the medium is taken to be failing.
const UNREADABLE_MAX: u32 = 4;
/// How often it is tried to tell whether a piece is sound before the round goes on without.
const TRIES_MAX: u32 = 3;
/// Bytes between two reports of progress.
const REPORT_BYTES: u64 = 16 << 20;
/// Pieces between two reports of progress.
const REPORT_PIECES: u64 = 64;

/// Something that did not stand its test.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::node) enum Rotten {
    /// A stored piece.
    Piece(Key),
    /// A file that is shared where it lies: it is to be treated like one that has changed.
    File(Place, DiskError),
}

/// Where a round is: what comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Position {
    /// The stored piece after this key, or the first.
    Pieces(Option<Key>),
    /// The shared file after this hash, or the first.
    Files(Option<Key>),
}

/// A pass over everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Round {
    /// The node's age in seconds when it began.
    began: u64,
    /// Whether a command asked for it: then it does not wait.
    asked: bool,
    position: Position,
    /// What has been read so far, and found rotten.
    pieces: u64,
    files: u64,
    bytes: u64,
    bad: u64,
}

impl Round {
    fn new(began: u64, asked: bool) -> Self {
        Round { began, asked, position: Position::Pieces(None), pieces: 0, files: 0, bytes: 0, bad: 0 }
    }

    fn done(&self) -> u64 {
        self.bytes + (self.pieces + self.files) * FILE_WEIGHT
    }

    /// The node's age at which the next piece is due, when all of `total` is to take `every` seconds.
    fn due(&self, total: u64, every: u64) -> u64 {
        let done = self.done();
        // Never more than the whole: what has come meanwhile takes part, and what has gone does not.
        let total = u128::from(total.max(done + FILE_WEIGHT));
        let elapsed = u128::from(every) * u128::from(done) / total;
        self.began.saturating_add(elapsed as u64)
    }

    fn report(&self, seconds: u64) -> ScrubReport {
        let Round { pieces, files, bytes, bad, .. } = *self;
        ScrubReport { pieces, files, bytes, bad, seconds }
    }
}

/// A piece or a file that is being read.
struct Reading {
    what: Position,
    length: u64,
    place: Place,
    /// The piece went away meanwhile, and may have come back as another file: what is found says nothing about that.
    outdated: bool,
}

/// The rounds of one node.
pub(in crate::node) struct Scrub {
    /// Seconds that a round takes; 0 when there is one only on command.
    every: u64,
    round: Option<Round>,
    /// The last round that was finished, and the node's age then.
    last: Option<(ScrubReport, u64)>,
    reading: Option<Reading>,
    /// Commands that wait for the end of the round.
    waiters: Vec<CommandId>,
    /// After trouble, nothing is read before this.
    not_before: Instant,
    /// Pieces in a row that could not be read.
    unreadable: u32,
    /// How often it could not be told whether the piece that is next is sound.
    tries: u32,
    /// What the waiting commands were told last.
    reported: u64,
    /// Bytes of shared files when the round began.
    files_bytes: u64,
}

impl Scrub {
    /// What the last run wrote down goes on: see [`encode`](Scrub::encode). A damaged note is as good as none.
    pub(in crate::node) fn new(every: u32, note: &[u8], machines: &Machines, now: Instant) -> Self {
        let (round, last) = Note::read(note).unwrap_or_default();
        let files_bytes = machines.store.files_bytes();
        Scrub {
            every: u64::from(every),
            round,
            last,
            reading: None,
            waiters: Vec::new(),
            not_before: now,
            unreadable: 0,
            tries: 0,
            reported: 0,
            files_bytes,
        }
    }

    // Getters.

    /// When [`handle_timeout`](Scrub::handle_timeout) is due.
    pub(in crate::node) fn next_deadline(&self, machines: &Machines) -> Option<Instant> {
        if self.reading.is_some() || (self.every == 0 && self.round.is_none_or(|round| !round.asked)) {
            return None;
        }
        let due = match self.round {
            Some(round) if !round.asked => round.due(self.total(machines), self.every),
            Some(_) => 0,
            None => self.begins(),
        };
        Some(self.not_before.max(machines.store.at_age(due)))
    }

    /// The node's age at which the next round begins by itself.
    fn begins(&self) -> u64 {
        // A round that was quicker than it had to be does not make the next one earlier.
        self.last.map_or(0, |(report, ended)| ended.saturating_sub(report.seconds).saturating_add(self.every))
    }

    /// What `status` says.
    pub(in crate::node) fn status(&self, now: Instant, machines: &Machines) -> ScrubStatus {
        let age = machines.store.age(now);
        let of = |round: &Round| round.report(age.saturating_sub(round.began));
        let percent = |round: &Round| {
            let total = u128::from(self.total(machines).max(round.done()).max(1));
            (u128::from(round.done()) * 100 / total) as u8
        };
        ScrubStatus {
            every_seconds: self.every,
            running: self.round.as_ref().map(of),
            percent: self.round.as_ref().map_or(0, percent),
            asked: self.round.is_some_and(|round| round.asked),
            last: self.last.map(|(report, _)| report),
            last_age_seconds: self.last.map(|(_, ended)| age.saturating_sub(ended)),
            failing: self.unreadable >= UNREADABLE_MAX,
        }
    }

    /// What a round costs, in bytes.
    fn total(&self, machines: &Machines) -> u64 {
        let (bytes, count) = (machines.store.content_bytes(), machines.store.count() as u64);
        bytes + self.files_bytes + count * FILE_WEIGHT
    }

    /// What the next run is to know, to be kept in the node's directory. Empty before anything was read.
    pub(in crate::node) fn encode(&self) -> Vec<u8> {
        match (self.round, self.last) {
            (None, None) => Vec::new(),
            (round, last) => Note::of(round, last).as_bytes().to_vec(),
        }
    }

    // Inputs.

    /// A command: a round from the start, as fast as the disk is idle. `id` is answered when it is over, or at once when it
    /// does not want to wait.
    pub(in crate::node) fn start(
        &mut self,
        now: Instant,
        id: CommandId,
        background: bool,
        machines: &mut Machines,
    ) {
        if self.round.is_none_or(|round| !round.asked) {
            self.begin(now, true, machines);
            (self.not_before, self.unreadable) = (now, 0);
            if let Some(reading) = &mut self.reading {
                reading.outdated = true;
            }
        }
        match background {
            true => machines.done(id, Reply::Scrub { running: true, report: ScrubReport::default() }),
            false => self.waiters.push(id),
        }
        self.read_next(now, machines);
    }

    /// Nobody waits for this command any more. The round goes on.
    pub(in crate::node) fn cancel(&mut self, id: CommandId) {
        self.waiters.retain(|waiter| *waiter != id);
    }

    /// A stored piece went away.
    pub(in crate::node) fn piece_dropped(&mut self, key: &Key) {
        if let Some(reading) = self.reading.as_mut().filter(|reading| reading.place == Place::Piece(*key)) {
            reading.outdated = true;
        }
    }

    /// Reads the next piece when it is due.
    pub(in crate::node) fn handle_timeout(&mut self, now: Instant, machines: &mut Machines) {
        if self.next_deadline(machines).is_some_and(|due| due <= now) {
            if self.round.is_none() {
                self.begin(now, false, machines);
            }
            self.read_next(now, machines);
        }
    }

    fn begin(&mut self, now: Instant, asked: bool, machines: &Machines) {
        self.round = Some(Round::new(machines.store.age(now), asked));
        (self.reported, self.tries) = (0, 0);
        self.files_bytes = machines.store.files_bytes();
    }

    /// A piece or a file has been read. What is rotten is the caller's to drop.
    pub(in crate::node) fn handle_disk(
        &mut self,
        now: Instant,
        result: Result<DiskReply, DiskError>,
        machines: &mut Machines,
    ) -> Option<Rotten> {
        let reading = self.reading.take()?;
        if reading.outdated {
            self.go_on(now, machines);
            return None;
        }
        let found = match result {
            Ok(DiskReply::Verified { soundness }) => self.judge(now, reading, soundness, machines),
            Ok(_) => None,
            Err(error) => self.untold(now, reading, error),
        };
        self.tell(machines);
        self.go_on(now, machines);
        found
    }

    /// A piece or a file is what it should be, or not.
    fn judge(
        &mut self,
        now: Instant,
        reading: Reading,
        soundness: Soundness,
        machines: &mut Machines,
    ) -> Option<Rotten> {
        let Reading { what, length, place, .. } = reading;
        let round = self.round.as_mut()?;
        (round.position, self.tries) = (what, 0);
        round.bytes += length;
        let key = match what {
            Position::Files(_) => {
                round.files += 1;
                None
            }
            Position::Pieces(key) => {
                round.pieces += 1;
                key
            }
        };
        self.unreadable = match (soundness, key) {
            (Soundness::Unreadable, Some(_)) => self.unreadable.saturating_add(1),
            _ => 0,
        };
        if self.unreadable >= UNREADABLE_MAX {
            self.medium_fails(now, machines);
            return None;
        }
        if soundness == Soundness::Sound {
            return None;
        }
        round.bad += 1;
        let message = format!("{place:?} is shared, and its content is not what it was");
        let changed = DiskError { kind: DiskErrorKind::Changed, message };
        Some(key.map_or_else(|| Rotten::File(place, changed), Rotten::Piece))
    }

    /// One piece after the other cannot be read: nothing more is dropped for that, and nobody waits any longer.
    fn medium_fails(&mut self, now: Instant, machines: &mut Machines) {
        self.not_before = now + TROUBLE_PAUSE;
        if self.unreadable == UNREADABLE_MAX {
            log::error!("one stored piece after the other cannot be read: the medium fails, or is gone");
        }
        for waiter in core::mem::take(&mut self.waiters) {
            let why = "one stored piece after the other cannot be read: check the medium";
            machines.fail(waiter, FailureReason::Failed, why);
        }
    }

    /// It cannot be told whether a piece or a file is sound.
    fn untold(&mut self, now: Instant, reading: Reading, error: DiskError) -> Option<Rotten> {
        let round = self.round.as_mut()?;
        if matches!(reading.what, Position::Files(_)) {
            // It is another file by now, or out of reach. That is for its share to find out.
            round.position = reading.what;
            return Some(Rotten::File(reading.place, error));
        }
        log::warn!("{error}; it is read again later");
        self.not_before = now + TROUBLE_PAUSE;
        self.tries += 1;
        if self.tries >= TRIES_MAX {
            (round.position, self.tries) = (reading.what, 0);
        }
        None
    }

    /// Goes on with a round that does not wait. One that waits goes on when its deadline has come.
    fn go_on(&mut self, now: Instant, machines: &mut Machines) {
        if self.round.is_some_and(|round| round.asked) {
            self.read_next(now, machines);
        }
    }

    /// Reads what comes next, or ends the round.
    fn read_next(&mut self, now: Instant, machines: &mut Machines) {
        if self.reading.is_some() || now < self.not_before {
            return;
        }
        let Some(round) = &mut self.round else { return };
        if let Position::Pieces(after) = round.position {
            if let Some(piece) = machines.store.piece_after(after.as_ref()) {
                let (what, length) = (Position::Pieces(Some(piece.key)), u64::from(piece.extent.length));
                let place = piece.extent.place.clone();
                self.reading = Some(Reading { what, length, place, outdated: false });
                return machines.disk(DiskOp::Verify { piece, idle: true }, Waiting::Scrub);
            }
            round.position = Position::Files(None);
        }
        let Position::Files(after) = round.position else { return };
        match machines.store.file_after(after.as_ref()) {
            Some(file) => {
                let what = Position::Files(Some(file.hash));
                let (length, place) = (file.length, file.place.clone());
                self.reading = Some(Reading { what, length, place, outdated: false });
                machines.disk(DiskOp::VerifyFile(file), Waiting::Scrub);
            }
            None => self.end(now, machines),
        }
    }

    fn end(&mut self, now: Instant, machines: &mut Machines) {
        let Some(round) = self.round.take() else { return };
        let age = machines.store.age(now);
        let report = round.report(age.saturating_sub(round.began));
        self.last = Some((report, age));
        if report.bad > 0 {
            log::warn!("{} of {} pieces and files had rotted", report.bad, report.pieces + report.files);
        }
        for waiter in core::mem::take(&mut self.waiters) {
            machines.done(waiter, Reply::Scrub { running: false, report });
        }
        machines.disk(DiskOp::SaveScrub(self.encode()), Waiting::Nothing);
    }

    /// Tells the waiting commands how far the round is, now and then.
    fn tell(&mut self, machines: &mut Machines) {
        let Some(round) = self.round.filter(|_| !self.waiters.is_empty()) else { return };
        let next = self.reported + REPORT_BYTES.min(REPORT_PIECES * FILE_WEIGHT);
        if round.done() < next {
            return;
        }
        self.reported = round.done();
        let total = (machines.store.content_bytes() + self.files_bytes).max(round.bytes);
        for waiter in self.waiters.clone() {
            let (stage, done) = (Stage::Scrubbing, round.bytes);
            machines.progress(waiter, Progress { stage, done, total, prefix: 0, path: None });
        }
    }
}

/// What is kept of a round and of the last one over a restart.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Note {
    version: u8,
    /// 0: no round is under way. 1: it is among the pieces. 2: it is among the files.
    phase: u8,
    /// Whether `key` is the one that was read last: else the phase has just begun.
    has_key: u8,
    asked: u8,
    has_last: u8,
    reserved: [u8; 3],
    key: Key,
    began: U64,
    /// Pieces, files, bytes and bad ones of the round that is under way.
    so_far: [U64; 4],
    /// The same of the last one, and its seconds.
    last: [U64; 5],
    last_ended: U64,
}

const NOTE_VERSION: u8 = 1;
const _: () = assert!(size_of::<Note>() == 128);

impl Note {
    fn of(round: Option<Round>, last: Option<(ScrubReport, u64)>) -> Note {
        let blank = Round::new(0, false);
        let at = round.as_ref().unwrap_or(&blank);
        let (phase, key) = match (round.is_some(), at.position) {
            (false, _) => (0, None),
            (true, Position::Pieces(key)) => (1, key),
            (true, Position::Files(key)) => (2, key),
        };
        let (report, ended) = last.unwrap_or_default();
        Note {
            version: NOTE_VERSION,
            phase,
            has_key: u8::from(key.is_some()),
            asked: u8::from(at.asked),
            has_last: u8::from(last.is_some()),
            reserved: [0; 3],
            key: key.unwrap_or(Key([0; 32])),
            began: U64::new(at.began),
            so_far: [at.pieces, at.files, at.bytes, at.bad].map(U64::new),
            last: [report.pieces, report.files, report.bytes, report.bad, report.seconds].map(U64::new),
            last_ended: U64::new(ended),
        }
    }

    #[expect(clippy::type_complexity, reason = "it is what `of` takes")]
    fn read(bytes: &[u8]) -> Option<(Option<Round>, Option<(ScrubReport, u64)>)> {
        let note = Note::ref_from_bytes(bytes).ok().filter(|note| note.version == NOTE_VERSION)?;
        let key = (note.has_key == 1).then_some(note.key);
        let position = match note.phase {
            1 => Some(Position::Pieces(key)),
            2 => Some(Position::Files(key)),
            _ => None,
        };
        let [pieces, files, bytes, bad] = note.so_far.map(U64::get);
        let (began, asked) = (note.began.get(), note.asked == 1);
        let round = position.map(|position| Round { began, asked, position, pieces, files, bytes, bad });
        let [pieces, files, bytes, bad, seconds] = note.last.map(U64::get);
        let report = ScrubReport { pieces, files, bytes, bad, seconds };
        Some((round, (note.has_last == 1).then_some((report, note.last_ended.get()))))
    }
}

#[cfg(test)]
mod tests;
