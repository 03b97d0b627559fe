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

/// What other programs have done to a file, as far as the kernel tells.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Disturbance {
    /// Nothing.
    None,
    /// One has opened it, to read or to write.
    Opened,
    /// One has written into it, or has closed it that could have.
    Written,
}

/// The watches of one disk driver.
pub(super) struct Watch {
    inotify: OwnedFd,
    /// The files that are watched, by their watch descriptors, and what happened to each.
    disturbed: Mutex<BTreeMap<i32, Disturbance>>,
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
        self.table().insert(number, Disturbance::None);
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

/// A file that is watched, until this is dropped.
pub(super) struct Watched {
    watch: Arc<Watch>,
    number: i32,
}

impl Watched {
    /// What other programs have done since the watch began, or since the last call.
    pub(super) fn take_disturbance(&self) -> Disturbance {
        self.watch.read();
        self.watch.table().insert(self.number, Disturbance::None).unwrap_or(Disturbance::Written)
    }

    /// From now on this node does not write into the file (or does again): every write is another program's. Times of change
    /// do not tell: they are as coarse as a tick of the kernel.
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
        // One that could have written, and a reader after it.
        drop(File::options().write(true).open(&path).unwrap());
        drop(File::open(&path).unwrap());
        assert_eq!(watched.take_disturbance(), Disturbance::Written);
        fs::remove_file(&path).unwrap();
    }
}
