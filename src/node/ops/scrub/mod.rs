//! Scrub: everything on disk is read again within a configured time, so that rotten content is found before it is needed.
//!
//! A round visits the stored pieces in the order of their keys, then the files that are shared in place. Its pace follows from the
//! node's age: after half of the configured time half of the bytes have been read. Its position is saved from time to time, so that
//! restarts do not begin it anew. A round that a command asked for runs as fast as the disk's idle time allows.
//!
//! The node acts on the findings: a rotten piece is dropped, so that repair copies it from another holder. When many pieces in a row
//! cannot be read at all, the medium is failing or gone. Then nothing more is dropped, and the round waits: content that returns with
//! the medium is still good.

use crate::id::Key;
use crate::io::{DiskError, DiskErrorKind, DiskOp, DiskReply, Place, Soundness};
use crate::node::Waiting;
use crate::node::command::{CommandId, FailureReason, Progress, Reply, ScrubReport, ScrubStatus, Stage};
use crate::node::machines::Machines;
use crate::time::{Duration, Instant};
use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The cost of opening and reading a file besides its bytes, in bytes. It paces small pieces.
const FILE_WEIGHT: u64 = 64 << 10;
/// The pause after a piece that could not be checked, or when the medium fails.
const TROUBLE_PAUSE: Duration = Duration::from_secs(60);
/// After this many unreadable pieces in a row the medium counts as failing.
const UNREADABLE_MAX: u32 = 4;
/// Attempts to check one piece before the round goes on without it.
const TRIES_MAX: u32 = 3;
/// Bytes between two reports of progress.
const REPORT_BYTES: u64 = 16 << 20;
/// Pieces between two reports of progress.
const REPORT_PIECES: u64 = 64;

/// A finding: content that does not verify.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::node) enum Rotten {
    /// A stored piece.
    Piece(Key),
    /// A file that is shared in place: it is handled like a changed one.
    File(Place, DiskError),
}

/// The position of a round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Position {
    /// Next is the stored piece after this key, or the first.
    Pieces(Option<Key>),
    /// Next is the shared file after this hash, or the first.
    Files(Option<Key>),
}

/// A round: one pass over everything.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Round {
    /// The node's age in seconds when the round began.
    began: u64,
    /// Whether a command asked for it: then it does not wait.
    asked: bool,
    position: Position,
    /// What has been read so far, and how much was rotten.
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

    /// The node's age at which the next piece is due, if all of `total` takes `every` seconds.
    fn due(&self, total: u64, every: u64) -> u64 {
        let done = self.done();
        // At most the whole: pieces may have come and gone since the round began.
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
    /// Whether the piece was removed meanwhile. It may have been written anew, so the result says nothing about it.
    outdated: bool,
}

/// The scrub of one node.
pub(in crate::node) struct Scrub {
    /// Seconds that a round takes; 0 means that rounds run only on command.
    every: u64,
    round: Option<Round>,
    /// The last complete round, and the node's age at its end.
    last: Option<(ScrubReport, u64)>,
    reading: Option<Reading>,
    /// Commands that wait for the end of the round.
    waiters: Vec<CommandId>,
    /// After trouble: when reading resumes.
    not_before: Instant,
    /// Unreadable pieces in a row.
    unreadable: u32,
    /// Failed attempts to check the next piece.
    tries: u32,
    /// The progress that the waiting commands were last told.
    reported: u64,
    /// Bytes of shared files when the round began.
    files_bytes: u64,
}

impl Scrub {
    /// Continues from the note of the last run: see [`encode`](Scrub::encode). A damaged note is ignored.
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

    /// The node's age at which the next regular round begins.
    fn begins(&self) -> u64 {
        // A round that ended early does not make the next one earlier.
        self.last.map_or(0, |(report, ended)| ended.saturating_sub(report.seconds).saturating_add(self.every))
    }

    /// The status of the scrub.
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

    /// The cost of a round in bytes.
    fn total(&self, machines: &Machines) -> u64 {
        let (bytes, count) = (machines.store.content_bytes(), machines.store.count() as u64);
        bytes + self.files_bytes + count * FILE_WEIGHT
    }

    /// The note for the next run, kept in the node's directory. Empty before anything was read.
    pub(in crate::node) fn encode(&self) -> Vec<u8> {
        match (self.round, self.last) {
            (None, None) => Vec::new(),
            (round, last) => Note::of(round, last).as_bytes().to_vec(),
        }
    }

    // Inputs.

    /// A command: starts a round that runs as fast as the disk is idle. `id` is answered at the end of the round, or at once if the
    /// command does not wait.
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

    /// The client no longer waits for this command. The round goes on.
    pub(in crate::node) fn cancel(&mut self, id: CommandId) {
        self.waiters.retain(|waiter| *waiter != id);
    }

    /// A stored piece was removed.
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

    /// A piece or a file has been read. The caller drops rotten content.
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

    /// A piece or a file verifies, or does not.
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

    /// Many pieces in a row cannot be read: nothing more is dropped, and waiting commands fail.
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

    /// A piece or a file could not be checked.
    fn untold(&mut self, now: Instant, reading: Reading, error: DiskError) -> Option<Rotten> {
        let round = self.round.as_mut()?;
        if matches!(reading.what, Position::Files(_)) {
            // The path holds another file now, or cannot be reached. The watch of its share handles that.
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

    /// Continues a round that does not wait. One that waits continues at its deadline.
    fn go_on(&mut self, now: Instant, machines: &mut Machines) {
        if self.round.is_some_and(|round| round.asked) {
            self.read_next(now, machines);
        }
    }

    /// Reads the next piece or file, or ends the round.
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
        let Position::Files(after) = round.position else {
            return debug_assert!(false, "files come after pieces");
        };
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
        let Some(round) = self.round.take() else { return debug_assert!(false, "a round is under way") };
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

    /// Tells the waiting commands the progress, from time to time.
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

/// The note of the present and the last round, which is kept over restarts.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct Note {
    version: u8,
    /// 0: no round is under way. 1: the round is at the pieces. 2: it is at the files.
    phase: u8,
    /// Whether `key` was read last; otherwise the phase has just begun.
    has_key: u8,
    asked: u8,
    has_last: u8,
    reserved: [u8; 3],
    key: Key,
    began: U64,
    /// Of the present round: pieces, files, bytes, and how many were rotten.
    so_far: [U64; 4],
    /// Of the last round: the same, and its seconds.
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
