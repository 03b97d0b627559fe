//! Who else opens the files of downloads: one inotify instance for all of them.
//!
//! The node opens each file before the watch on it begins, and never again by name, so every event is another program's.

use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init, remove_watch};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Room for what is read at a time: an event of a watch on a file has 16 bytes.
const EVENT_BYTES: usize = 1024;

/// The watches of one disk driver.
pub(super) struct Watch {
    inotify: OwnedFd,
    /// The files that are watched, by their watch descriptors, and whether something happened to each.
    disturbed: Mutex<BTreeMap<i32, bool>>,
}

impl Watch {
    /// `None` where the system has no more of them to give, or none at all.
    pub(super) fn new() -> Option<Arc<Watch>> {
        let inotify = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).ok()?;
        Some(Arc::new(Watch { inotify, disturbed: Mutex::default() }))
    }

    /// Watches an open file: whether another program opens it, or has opened it to write and closes it.
    pub(super) fn add(self: &Arc<Self>, file: &File) -> Option<Watched> {
        let number = self.ask(file, WatchFlags::OPEN | WatchFlags::CLOSE_WRITE).ok()?;
        self.table().insert(number, false);
        Some(Watched { watch: Arc::clone(self), number })
    }

    fn ask(&self, file: &File, events: WatchFlags) -> Result<i32, Errno> {
        // The file itself, whatever its name has become.
        add_watch(&self.inotify, format!("/proc/self/fd/{}", file.as_raw_fd()), events)
    }

    /// Takes what has happened since the last call.
    fn read(&self) {
        let mut disturbed = self.table();
        let mut buffer = [MaybeUninit::uninit(); EVENT_BYTES];
        let mut reader = Reader::new(&self.inotify, &mut buffer);
        loop {
            match reader.next() {
                Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => {
                    disturbed.values_mut().for_each(|disturbed| *disturbed = true);
                }
                Ok(event) => {
                    if let Some(disturbed) = disturbed.get_mut(&event.wd()) {
                        *disturbed = true;
                    }
                }
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<i32, bool>> {
        self.disturbed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A file that is watched, until this is dropped.
pub(super) struct Watched {
    watch: Arc<Watch>,
    number: i32,
}

impl Watched {
    /// Whether another program has opened the file since the watch began, or since the last call.
    pub(super) fn take_disturbed(&self) -> bool {
        self.watch.read();
        self.watch.table().insert(self.number, false).unwrap_or(true)
    }
}

impl Watched {
    /// From now on this node does not write into the file (or does again), and whoever does is another program. Times of change
    /// do not tell: they are as coarse as a tick of the kernel.
    pub(super) fn expect_no_writes(&self, file: &File, none: bool) {
        let writes = if none { WatchFlags::MODIFY } else { WatchFlags::empty() };
        if self.watch.ask(file, WatchFlags::OPEN | WatchFlags::CLOSE_WRITE | writes).is_err() {
            self.watch.table().insert(self.number, true);
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
        assert!(!watched.take_disturbed());
        watched.expect_no_writes(&file, true);
        std::os::unix::fs::FileExt::write_all_at(&file, b"other", 5).unwrap();
        assert!(watched.take_disturbed());
        watched.expect_no_writes(&file, false);
        std::os::unix::fs::FileExt::write_all_at(&file, b"own", 5).unwrap();
        assert!(!watched.take_disturbed());
        drop(File::open(&path).unwrap());
        assert!(watched.take_disturbed());
        assert!(!watched.take_disturbed());
        fs::remove_file(&path).unwrap();
    }
}
