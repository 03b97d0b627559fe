//! Log lines on standard error, without ever waiting for their reader.
//!
//! A pipe whose reader has stopped takes 64 KiB and then blocks who writes; a terminal that was stopped (Ctrl-S) does so at
//! once. The loop writes its lines itself, so it must not be held up by either: lines that are not taken wait here, as
//! many as fit into [`WAITING_BYTES_MAX`]; those that come on top are counted, and their number is told in their place.
//!
//! The flag `O_NONBLOCK` belongs to the open file, which other processes share: it is not set on standard error itself. A pipe
//! or a terminal is opened anew through `/proc/self/fd`; where that is not possible, `poll` says whether there is room for
//! a line, which is never longer than what a pipe takes as a whole.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};

/// What waits for a reader, in bytes.
const WAITING_BYTES_MAX: usize = 64 << 10;
/// The longest line: what is longer is cut off. A pipe takes as much as a whole (PIPE_BUF, POSIX.1-2008: at least 512; Linux:
/// 4096).
const LINE_BYTES_MAX: usize = 4096;
/// How long the end of the program waits for the reader of its last lines.
const LAST_MILLIS: i64 = 200;

/// Where the log goes. Clones write to the same place.
#[derive(Clone)]
pub(super) struct Log(Arc<Mutex<Lines>>);

impl Log {
    /// The log on standard error.
    pub(super) fn standard() -> Self {
        Log::to(io::stderr().as_fd().try_clone_to_owned().ok())
    }

    fn to(file: Option<OwnedFd>) -> Self {
        Log(Arc::new(Mutex::new(Lines::new(file.map(Taker::new)))))
    }

    /// Writes what waits, as far as it is taken now; whether anything still waits.
    pub(super) fn flush_waiting(&self) -> bool {
        self.lines().flush();
        self.lines().is_waiting()
    }

    /// Writes what waits before the program ends: for a moment it waits for the reader.
    pub(super) fn flush_last(&self) {
        self.lines().flush_last();
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Write for Log {
    /// Takes lines whole.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lines().push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lines on their way.
struct Lines {
    to: Option<Taker>,
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    /// How much of the first has been written.
    written: usize,
    /// Lines that found no room since the last that did.
    lost: u64,
}

impl Lines {
    fn new(to: Option<Taker>) -> Self {
        Lines { to, waiting: VecDeque::new(), waiting_bytes: 0, written: 0, lost: 0 }
    }

    fn is_waiting(&self) -> bool {
        !self.waiting.is_empty() || self.lost > 0
    }

    fn push(&mut self, line: &[u8]) {
        self.flush();
        if self.lost > 0 || self.waiting_bytes + line.len() > WAITING_BYTES_MAX {
            self.lost += 1;
            return;
        }
        self.enqueue(line);
        self.flush();
    }

    fn enqueue(&mut self, line: &[u8]) {
        let mut line = line.to_vec();
        if line.len() > LINE_BYTES_MAX {
            line.truncate(LINE_BYTES_MAX - 1);
            line.push(b'\n');
        }
        self.waiting_bytes += line.len();
        self.waiting.push_back(line);
    }

    fn flush(&mut self) {
        if self.to.is_none() {
            *self = Lines::new(None);
        }
        loop {
            if self.waiting.is_empty() && self.lost > 0 {
                let lost = core::mem::take(&mut self.lost);
                let line = format!("elver: warning: {lost} lines lost here: they were not read\n");
                self.enqueue(line.as_bytes());
            }
            let (Some(to), Some(line)) = (&self.to, self.waiting.front()) else { return };
            match to.take(&line[self.written..]) {
                Ok(taken) if self.written + taken < line.len() => self.written += taken,
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                // The line is written, or can never be: the reader is gone, the disk is full.
                Ok(_) | Err(_) => {
                    self.waiting_bytes -= line.len();
                    self.written = 0;
                    self.waiting.pop_front();
                }
            }
        }
    }

    fn flush_last(&mut self) {
        self.flush();
        for _ in 0..WAITING_BYTES_MAX / LINE_BYTES_MAX {
            if !self.is_waiting() || !self.to.as_ref().is_some_and(|to| to.is_ready(LAST_MILLIS)) {
                return;
            }
            self.flush();
        }
    }
}

/// A file that takes what there is room for, or says that there is none.
enum Taker {
    /// Its open file is this process's alone and does not block.
    Own(File),
    /// Others share it: it is asked for room first.
    Shared(OwnedFd),
}

impl Taker {
    fn new(file: OwnedFd) -> Self {
        match open_anew(&file) {
            Some(own) => Taker::Own(own),
            None => Taker::Shared(file),
        }
    }

    fn take(&self, bytes: &[u8]) -> Result<usize, Errno> {
        match self {
            Taker::Own(file) => rustix::io::write(file, bytes),
            Taker::Shared(file) if self.is_ready(0) => rustix::io::write(file, bytes),
            Taker::Shared(_) => Err(Errno::AGAIN),
        }
    }

    /// Whether there is room for a line within so many milliseconds.
    fn is_ready(&self, millis: i64) -> bool {
        let file = match self {
            Taker::Own(file) => file.as_fd(),
            Taker::Shared(file) => file.as_fd(),
        };
        let limit = Timespec { tv_sec: millis / 1000, tv_nsec: millis % 1000 * 1_000_000 };
        let mut files = [PollFd::from_borrowed_fd(file, PollFlags::OUT)];
        poll(&mut files, Some(&limit)).is_ok_and(|ready| ready > 0)
    }
}

/// A pipe or a terminal, opened once more. A file keeps its one position in it; a socket cannot be opened.
fn open_anew(file: &OwnedFd) -> Option<File> {
    use std::os::fd::AsRawFd;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(file).ok()?.st_mode);
    if !matches!(kind, FileType::Fifo | FileType::CharacterDevice) {
        return None;
    }
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).ok().map(File::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn line(number: usize) -> Vec<u8> {
        format!("elver: warning: {number:0>100}\n").into_bytes()
    }

    /// A log into a pipe, and the pipe's other end.
    fn piped(shared: bool) -> (Log, File) {
        let (reader, writer) = rustix::pipe::pipe().unwrap();
        let taker = if shared { Taker::Shared(writer) } else { Taker::new(writer) };
        (Log(Arc::new(Mutex::new(Lines::new(Some(taker))))), File::from(reader))
    }

    #[test]
    fn a_reader_that_stops_costs_lines_and_is_told_how_many() {
        for shared in [false, true] {
            let (mut log, mut reader) = piped(shared);
            let count = 5000;
            for number in 0..count {
                log.write_all(&line(number)).unwrap();
            }
            assert!(log.flush_waiting(), "more than a pipe holds has been said");
            let mut text = Vec::new();
            let mut buffer = vec![0; 8192];
            while log.flush_waiting() {
                let read = reader.read(&mut buffer).unwrap();
                text.extend_from_slice(&buffer[..read]);
            }
            log.write_all(&line(count)).unwrap();
            drop(log);
            reader.read_to_end(&mut text).unwrap();
            let text = String::from_utf8(text).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            let (last, said) = lines.split_last().unwrap();
            let (lost, kept) = said.split_last().unwrap();
            assert_eq!(format!("{last}\n").into_bytes(), line(count));
            for (number, kept) in kept.iter().enumerate() {
                assert_eq!(format!("{kept}\n").into_bytes(), line(number));
            }
            assert!(lost.contains(&format!("{} lines lost", count - kept.len())), "{lost}");
        }
    }

    #[test]
    fn a_reader_that_is_gone_costs_everything_and_holds_nothing_up() {
        let (mut log, reader) = piped(false);
        drop(reader);
        for number in 0..1000 {
            log.write_all(&line(number)).unwrap();
        }
        assert!(!log.flush_waiting());
        log.flush_last();
    }

    #[test]
    fn a_line_is_cut_off_where_a_pipe_would_tear_it() {
        let (mut log, mut reader) = piped(false);
        log.write_all(&[b'x'; 10_000]).unwrap();
        drop(log);
        let mut text = Vec::new();
        reader.read_to_end(&mut text).unwrap();
        assert_eq!((text.len(), text.last()), (LINE_BYTES_MAX, Some(&b'\n')));
    }
}
