//! The node's end of the control socket: a socket file in its directory where possible, bound again when the file vanishes.

use super::address::{abstract_address, socket_in};
use mio::net::UnixListener;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The listening control socket.
pub(super) struct Place {
    dir: PathBuf,
    pub(super) listener: UnixListener,
    bound: Bound,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bound {
    /// Bound to the socket file with this device and inode.
    File(u64, u64),
    /// Bound to the abstract address.
    Abstract,
}

impl Place {
    /// Binds the socket. This process holds the directory's lock, so a socket file that exists is a leftover.
    pub(super) fn bind(dir: &Path) -> io::Result<Place> {
        let path = socket_in(dir);
        let named = match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => bind_file(&path),
        };
        let dir = dir.to_owned();
        let error = match named {
            Ok((listener, bound)) => return Ok(Place { dir, listener, bound }),
            Err(error) => error,
        };
        // The path is too long for a socket address, which the user can change.
        if error.kind() == ErrorKind::InvalidInput {
            return Err(error);
        }
        let Ok(listener) = bind_abstract(&dir) else { return Err(error) };
        log::warn!(
            "cannot create the control socket {}: {error}; clients on this machine reach the node by an abstract socket",
            path.display()
        );
        Ok(Place { dir, listener, bound: Bound::Abstract })
    }

    /// Whether it is bound to the abstract address, where the node has to check each client's user.
    pub(super) fn is_abstract(&self) -> bool {
        self.bound == Bound::Abstract
    }

    /// Binds the socket again when its file, or its directory, was deleted. Returns `true` when there is a new listener.
    pub(super) fn tend(&mut self) -> bool {
        let path = socket_in(&self.dir);
        match (self.bound, identity_of(&path)) {
            (Bound::File(device, inode), Some(found)) if found == (device, inode) => return false,
            // Another process bound the socket file that is there.
            (Bound::Abstract, Some(_)) => return false,
            _ => {}
        }
        let moved = match bind_file(&path) {
            Ok(moved) => Ok(moved),
            Err(_) if self.is_abstract() => return false,
            Err(_) => bind_abstract(&self.dir).map(|listener| (listener, Bound::Abstract)),
        };
        match moved {
            Ok((listener, bound)) => {
                match bound {
                    Bound::File(..) => log::info!("the control socket is {} again", path.display()),
                    Bound::Abstract => log::warn!(
                        "the control socket {} is gone; clients on this machine reach the node by an abstract socket",
                        path.display()
                    ),
                }
                (self.listener, self.bound) = (listener, bound);
                true
            }
            Err(error) => {
                log::debug!("binding the control socket again: {error}");
                false
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let path = socket_in(&self.dir);
        if let (Bound::File(device, inode), Some(found)) = (self.bound, identity_of(&path)) {
            if found == (device, inode) {
                let _ = fs::remove_file(&path);
            }
        }
    }
}

fn bind_file(path: &Path) -> io::Result<(UnixListener, Bound)> {
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, PermissionsExt::from_mode(0o600))?;
    let (device, inode) = identity_of(path).ok_or(ErrorKind::NotFound)?;
    Ok((listener, Bound::File(device, inode)))
}

fn bind_abstract(dir: &Path) -> io::Result<UnixListener> {
    let listener = std::os::unix::net::UnixListener::bind_addr(&abstract_address(dir)?)?;
    listener.set_nonblocking(true)?;
    Ok(UnixListener::from_std(listener))
}

/// The device and inode of the socket at a path; `None` when there is none.
fn identity_of(path: &Path) -> Option<(u64, u64)> {
    let metadata = path.symlink_metadata().ok()?;
    metadata.file_type().is_socket().then(|| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::super::address::connect;
    use super::*;
    use crate::net::testing::TestDir;

    #[test]
    fn clients_find_the_node_after_its_socket_or_its_directory_was_deleted() {
        let dir = TestDir::new();
        let node = dir.path("node");
        fs::create_dir(&node).unwrap();
        let mut place = Place::bind(&node).unwrap();
        assert!(!place.is_abstract() && connect(&node).is_ok() && !place.tend());
        fs::remove_file(socket_in(&node)).unwrap();
        assert!(place.tend() && !place.is_abstract() && connect(&node).is_ok());
        fs::remove_dir_all(&node).unwrap();
        assert!(connect(&node).is_err());
        assert!(place.tend() && place.is_abstract() && connect(&node).is_ok());
        assert!(!place.tend(), "there is nothing better to be had");
        fs::create_dir(&node).unwrap();
        assert!(place.tend() && !place.is_abstract());
        drop(place);
        assert!(!socket_in(&node).exists());
    }

    #[test]
    fn the_node_uses_the_abstract_address_when_it_cannot_create_the_socket_file() {
        let dir = TestDir::new();
        let node = dir.path("node");
        fs::create_dir(&node).unwrap();
        // A directory in its place: it can be neither deleted nor bound to.
        fs::create_dir(socket_in(&node)).unwrap();
        let place = Place::bind(&node).unwrap();
        assert!(place.is_abstract() && connect(&node).is_ok());
        drop(place);
        assert!(socket_in(&node).is_dir());
    }
}
