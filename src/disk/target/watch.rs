//! Watches whether other programs open the targets of downloads, by one inotify(7) instance for all.
//!
//! The node opens each file before the watch on it begins, and never again by name, so every event comes from another program.

use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init, remove_watch};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The size of the read buffer. An event of a watch on a file has 16 bytes.
const EVENT_BYTES: usize = 1024;

/// The access of other programs to a file, as far as the kernel reports it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Disturbance {
    /// No access.
    None,
    /// A program has opened the file, to read or to write.
    Opened,
    /// A program has written into the file, or has closed it after it was open for writing.
    Written,
}

/// The watches of one disk driver.
pub(super) struct Watch {
    inotify: OwnedFd,
    /// The access to each watched file, by watch descriptor.
    disturbed: Mutex<BTreeMap<i32, Disturbance>>,
}

impl Watch {
    /// `None` where the system does not support inotify(7), or a limit is reached.
    pub(super) fn new() -> Option<Arc<Watch>> {
        let inotify = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()?;
        Some(Arc::new(Watch { inotify, disturbed: Mutex::default() }))
    }

    /// Watches an open file: whether another program opens it, or has opened it to write and closes it.
    pub(super) fn add(self: &Arc<Self>, file: &File) -> Option<Watched> {
        let number = self.ask(file, WatchFlags::OPEN | WatchFlags::CLOSE_WRITE).ok()?;
        self.table().insert(number, Disturbance::None);
        Some(Watched { watch: Arc::clone(self), number })
    }

    fn ask(&self, file: &File, events: WatchFlags) -> Result<i32, Errno> {
        // By descriptor: the file may have been renamed.
        add_watch(&self.inotify, format!("/proc/self/fd/{}", file.as_raw_fd()), events)
    }

    /// Reads the events since the last call.
    fn read(&self) {
        let mut disturbed = self.table();
        let mut buffer = [MaybeUninit::uninit(); EVENT_BYTES];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => {
                    disturbed.values_mut().for_each(|disturbed| *disturbed = Disturbance::Written);
                }
                Ok(event) => {
                    let only_opened = event.events() == ReadFlags::OPEN;
                    let seen = if only_opened { Disturbance::Opened } else { Disturbance::Written };
                    if let Some(disturbed) = disturbed.get_mut(&event.wd()) {
                        *disturbed = seen.max(*disturbed);
                    }
                }
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<i32, Disturbance>> {
        self.disturbed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The watch on one file, which ends when this is dropped.
pub(super) struct Watched {
    watch: Arc<Watch>,
    number: i32,
}

impl Watched {
    /// The access of other programs since the watch began, or since the last call.
    pub(super) fn take_disturbance(&self) -> Disturbance {
        self.watch.read();
        self.watch.table().insert(self.number, Disturbance::None).unwrap_or(Disturbance::Written)
    }

    /// Notes that this node does not write into the file from now on (or, with `false`, that it does again), so that every write comes
    /// from another program. Times of change are too coarse to detect it: they have the kernel's tick.
    pub(super) fn expect_no_writes(&self, file: &File, none: bool) {
        let writes = if none { WatchFlags::MODIFY } else { WatchFlags::empty() };
        if self.watch.ask(file, WatchFlags::OPEN | WatchFlags::CLOSE_WRITE | writes).is_err() {
            self.watch.table().insert(self.number, Disturbance::Written);
        }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.watch.table().remove(&self.number);
        let _ = remove_watch(&self.watch.inotify, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn another_open_is_seen_and_the_nodes_own_reading_is_not() {
        let path = std::env::temp_dir().join(format!("elver-watch-{}", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        let watch = Watch::new().unwrap();
        let watched = watch.add(&file).unwrap();
        file.set_len(100).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"own", 5).unwrap();
        assert_eq!(watched.take_disturbance(), Disturbance::None);
        watched.expect_no_writes(&file, true);
        std::os::unix::fs::FileExt::write_all_at(&file, b"other", 5).unwrap();
        assert_eq!(watched.take_disturbance(), Disturbance::Written);
        watched.expect_no_writes(&file, false);
        std::os::unix::fs::FileExt::write_all_at(&file, b"own", 5).unwrap();
        assert_eq!(watched.take_disturbance(), Disturbance::None);
        drop(File::open(&path).unwrap());
        assert_eq!(watched.take_disturbance(), Disturbance::Opened);
        assert_eq!(watched.take_disturbance(), Disturbance::None);
        // A program that could have written, and a reader after it.
        drop(File::options().write(true).open(&path).unwrap());
        drop(File::open(&path).unwrap());
        assert_eq!(watched.take_disturbance(), Disturbance::Written);
        fs::remove_file(&path).unwrap();
    }
}
