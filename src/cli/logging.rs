//! A log on standard error that never blocks.
//!
//! A pipe whose reader has stopped takes 64 KiB and then blocks its writer; a stopped terminal (Ctrl-S) blocks at once. The
//! loop writes its log lines itself, so neither may block it. Lines that cannot be written wait here, up to
//! [`WAITING_BYTES_MAX`]; further lines are dropped and counted, and a line with their number takes their place.
//!
//! The flag `O_NONBLOCK` belongs to the open file, which other processes share, so it must not be set on standard error itself.
//! A pipe or a terminal is opened again through `/proc/self/fd`. Where that is impossible, poll(2) tells whether there is room
//! for a line, and no line is longer than a pipe takes atomically.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};

/// The most bytes of lines that wait for the reader.
const WAITING_BYTES_MAX: usize = 64 << 10;
/// The longest line; a longer one is cut. A pipe takes this many bytes atomically (PIPE_BUF, POSIX.1-2008: at least 512; Linux:
/// 4096).
const LINE_BYTES_MAX: usize = 4096;
/// How long the end of the program waits for the reader, for each of its last lines.
const LAST_MILLIS: i64 = 200;

/// The log. Clones write to the same file.
#[derive(Clone)]
pub(super) struct Log(Arc<Mutex<Lines>>);

impl Log {
    /// The log on standard error.
    pub(super) fn standard() -> Self {
        Log::to(io::stderr().as_fd().try_clone_to_owned().ok())
    }

    fn to(file: Option<OwnedFd>) -> Self {
        Log(Arc::new(Mutex::new(Lines::new(file.map(Target::new)))))
    }

    /// Writes waiting lines without blocking. `true` when some still wait.
    pub(super) fn flush_waiting(&self) -> bool {
        self.lines().flush();
        self.lines().is_waiting()
    }

    /// Writes waiting lines before the program ends. It gives the reader a moment to make room.
    pub(super) fn flush_last(&self) {
        self.lines().flush_last();
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Write for Log {
    /// Takes one whole line.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.lines().push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The lines that wait to be written.
struct Lines {
    to: Option<Target>,
    waiting: VecDeque<Vec<u8>>,
    waiting_bytes: usize,
    /// The number of bytes of the first line that are written.
    written: usize,
    /// The number of lines dropped since the last line that found room.
    lost: u64,
}

impl Lines {
    fn new(to: Option<Target>) -> Self {
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
                // The line is written, or never can be, as when the reader is gone or the disk is full.
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

/// The file that the log writes to, without blocking.
enum Target {
    /// This process's own open file, with `O_NONBLOCK`.
    Own(File),
    /// An open file that other processes share: poll(2) has to report room first.
    Shared(OwnedFd),
}

impl Target {
    fn new(file: OwnedFd) -> Self {
        match reopen(&file) {
            Some(own) => Target::Own(own),
            None => Target::Shared(file),
        }
    }

    fn take(&self, bytes: &[u8]) -> Result<usize, Errno> {
        match self {
            Target::Own(file) => rustix::io::write(file, bytes),
            Target::Shared(file) if self.is_ready(0) => rustix::io::write(file, bytes),
            Target::Shared(_) => Err(Errno::AGAIN),
        }
    }

    /// Whether there is room for a line, now or within this many milliseconds.
    fn is_ready(&self, millis: i64) -> bool {
        let file = match self {
            Target::Own(file) => file.as_fd(),
            Target::Shared(file) => file.as_fd(),
        };
        let limit = Timespec { tv_sec: millis / 1000, tv_nsec: millis % 1000 * 1_000_000 };
        let mut files = [PollFd::from_borrowed_fd(file, PollFlags::OUT)];
        poll(&mut files, Some(&limit)).is_ok_and(|ready| ready > 0)
    }
}

/// Opens a pipe or a terminal again. `None` for a regular file, whose position a second open file would not share, and for a
/// socket, which cannot be opened.
fn reopen(file: &OwnedFd) -> Option<File> {
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
        let taker = if shared { Target::Shared(writer) } else { Target::new(writer) };
        (Log(Arc::new(Mutex::new(Lines::new(Some(taker))))), File::from(reader))
    }

    #[test]
    fn a_stopped_reader_loses_lines_and_learns_their_number() {
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
    fn without_a_reader_lines_are_dropped_and_nothing_blocks() {
        let (mut log, reader) = piped(false);
        drop(reader);
        for number in 0..1000 {
            log.write_all(&line(number)).unwrap();
        }
        assert!(!log.flush_waiting());
        log.flush_last();
    }

    #[test]
    fn a_line_longer_than_a_pipe_takes_atomically_is_cut() {
        let (mut log, mut reader) = piped(false);
        log.write_all(&[b'x'; 10_000]).unwrap();
        drop(log);
        let mut text = Vec::new();
        reader.read_to_end(&mut text).unwrap();
        assert_eq!(text.len(), LINE_BYTES_MAX);
        assert_eq!(text.last(), Some(&b'\n'));
    }
}
