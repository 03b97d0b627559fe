//! The node's end of the control socket: a socket file in its directory, or where it was asked for, bound again when the file
//! vanishes.

use super::address::{abstract_address, socket_in};
use crate::net::ControlSocket;
use mio::net::UnixListener;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The listening control socket.
pub(super) struct Place {
    dir: PathBuf,
    /// The path of its socket file, absolute.
    path: PathBuf,
    socket: ControlSocket,
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

/// Why there is no socket file.
enum NoFile {
    /// The place takes no socket file.
    Place(io::Error),
    /// The file cannot have the mode or the group that was asked for.
    Access(io::Error),
}

impl Place {
    /// Binds the socket: in the directory, or at the path that was asked for, to which the directory then has a link.
    pub(super) fn bind(dir: &Path, socket: ControlSocket) -> io::Result<Place> {
        let dir = std::path::absolute(dir)?;
        let inside = socket_in(&dir);
        let path = match &socket.path {
            Some(path) => std::path::absolute(path)?,
            None => inside.clone(),
        };
        let elsewhere = path != inside;
        match elsewhere {
            true => vacate(&path)?,
            // This process holds the directory's lock, so a socket file or a link that exists is a leftover.
            false => drop(fs::remove_file(&path)),
        }
        let (listener, bound) = match bind_file(&path, &socket) {
            Ok(bound) => bound,
            // A path that is too long for a socket address the user can change, as one that was asked for.
            Err(NoFile::Place(error)) if elsewhere || error.kind() == ErrorKind::InvalidInput => {
                return Err(error);
            }
            Err(NoFile::Access(error)) => return Err(error),
            Err(NoFile::Place(error)) => {
                let Ok(listener) = bind_abstract(&dir) else { return Err(error) };
                log::warn!(
                    "cannot create the control socket {}: {error}; clients on this machine reach the node by an abstract socket",
                    path.display()
                );
                (listener, Bound::Abstract)
            }
        };
        let place = Place { dir, path, socket, listener, bound };
        place.link();
        Ok(place)
    }

    /// Whether it is bound to the abstract address, where the node has to check each client's user.
    pub(super) fn is_abstract(&self) -> bool {
        self.bound == Bound::Abstract
    }

    /// Binds the socket again when its file, or its directory, was deleted. Returns `true` when there is a new listener.
    pub(super) fn tend(&mut self) -> bool {
        match (self.bound, identity_of(&self.path)) {
            (Bound::File(device, inode), Some(found)) if found == (device, inode) => {
                self.link();
                return false;
            }
            // Another process bound the socket file that is there.
            (Bound::Abstract, Some(_)) => return false,
            _ => {}
        }
        let moved = match bind_file(&self.path, &self.socket) {
            Ok(moved) => Ok(moved),
            Err(_) if self.is_abstract() => return false,
            Err(_) => bind_abstract(&self.dir).map(|listener| (listener, Bound::Abstract)),
        };
        match moved {
            Ok((listener, bound)) => {
                match bound {
                    Bound::File(..) => log::info!("the control socket is {} again", self.path.display()),
                    Bound::Abstract => log::warn!(
                        "the control socket {} is gone; clients on this machine reach the node by an abstract socket",
                        self.path.display()
                    ),
                }
                (self.listener, self.bound) = (listener, bound);
                self.link();
                true
            }
            Err(error) => {
                log::debug!("binding the control socket again: {error}");
                false
            }
        }
    }

    /// Has the node's directory lead to a socket file that lies elsewhere, so that a client finds it by the directory alone.
    fn link(&self) {
        let link = socket_in(&self.dir);
        if self.is_abstract() || link == self.path || self.is_linked() || identity_of(&link).is_some() {
            return;
        }
        let _ = fs::remove_file(&link);
        if let Err(error) = std::os::unix::fs::symlink(&self.path, &link) {
            log::debug!("linking {} to the control socket: {error}", link.display());
        }
    }

    fn is_linked(&self) -> bool {
        fs::read_link(socket_in(&self.dir)).is_ok_and(|to| to == self.path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let (Bound::File(device, inode), Some(found)) = (self.bound, identity_of(&self.path)) {
            if found == (device, inode) {
                let _ = fs::remove_file(&self.path);
            }
        }
        if self.is_linked() {
            let _ = fs::remove_file(socket_in(&self.dir));
        }
    }
}

/// Removes what an earlier node left at a path outside of its directory, which no lock guards: a socket that nobody listens on.
fn vacate(path: &Path) -> io::Result<()> {
    let in_the_way = |kind, reason| Err(io::Error::new(kind, reason));
    match path.symlink_metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => in_the_way(
            ErrorKind::AlreadyExists,
            "a file that is no socket is there; remove it, or choose another path",
        ),
        // It does not wait where a listener has no room.
        Ok(_) => match mio::net::UnixStream::connect(path) {
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => in_the_way(ErrorKind::AddrInUse, "another node listens there; choose another path"),
        },
    }
}

fn bind_file(path: &Path, socket: &ControlSocket) -> Result<(UnixListener, Bound), NoFile> {
    let listener = UnixListener::bind(path).map_err(NoFile::Place)?;
    let (device, inode) = identity_of(path).ok_or_else(|| NoFile::Place(ErrorKind::NotFound.into()))?;
    let group = socket.group.map(rustix::fs::Gid::from_raw);
    let has_it = path.symlink_metadata().is_ok_and(|metadata| Some(metadata.gid()) == socket.group);
    let owned = match group {
        // A service may be forbidden even to ask for the group that it has.
        Some(_) if !has_it => rustix::fs::chown(path, None, group).map_err(io::Error::from),
        _ => Ok(()),
    };
    let limited = owned.and_then(|()| fs::set_permissions(path, PermissionsExt::from_mode(socket.mode)));
    match limited {
        Ok(()) => Ok((listener, Bound::File(device, inode))),
        Err(error) => {
            let _ = fs::remove_file(path);
            let group = socket.group.map_or(String::new(), |group| format!(" and group {group}"));
            let reason = format!("it cannot have mode {:o}{group}: {error}", socket.mode);
            Err(NoFile::Access(io::Error::new(error.kind(), reason)))
        }
    }
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
        let mut place = Place::bind(&node, ControlSocket::default()).unwrap();
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
        let place = Place::bind(&node, ControlSocket::default()).unwrap();
        assert!(place.is_abstract() && connect(&node).is_ok());
        drop(place);
        assert!(socket_in(&node).is_dir());
    }

    /// A node's directory and a socket elsewhere with this mode.
    fn elsewhere(dir: &TestDir, mode: u32) -> (PathBuf, PathBuf, ControlSocket) {
        let (node, run) = (dir.path("node"), dir.path("run"));
        let _ = (fs::create_dir(&node), fs::create_dir(&run));
        let path = run.join("socket");
        let socket = ControlSocket { path: Some(path.clone()), mode, ..ControlSocket::default() };
        (node, path, socket)
    }

    #[test]
    fn a_socket_elsewhere_has_the_mode_asked_for_and_is_found_by_the_directory_too() {
        let dir = TestDir::new();
        let (node, path, mut socket) = elsewhere(&dir, 0o660);
        socket.group = Some(rustix::process::getegid().as_raw());
        // What a node left there that was killed.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let mut place = Place::bind(&node, socket).unwrap();
        assert!(!place.is_abstract() && connect(&node).is_ok());
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o660);
        assert_eq!(path.metadata().unwrap().gid(), rustix::process::getegid().as_raw());
        fs::remove_file(socket_in(&node)).unwrap();
        assert!(!place.tend() && connect(&node).is_ok(), "the link is made again");
        fs::remove_file(&path).unwrap();
        assert!(place.tend() && connect(&node).is_ok());
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, 0o660);
        drop(place);
        assert!(!path.exists() && socket_in(&node).symlink_metadata().is_err());
    }

    #[test]
    fn a_socket_elsewhere_takes_the_place_of_no_other_node_and_of_no_file() {
        let dir = TestDir::new();
        let (node, path, socket) = elsewhere(&dir, 0o600);
        let place = Place::bind(&node, socket.clone()).unwrap();
        fs::create_dir(dir.path("second")).unwrap();
        let kind = |result: io::Result<Place>| result.err().map(|error| error.kind());
        assert_eq!(kind(Place::bind(&dir.path("second"), socket.clone())), Some(ErrorKind::AddrInUse));
        assert!(connect(&node).is_ok());
        drop(place);
        fs::write(&path, "mine").unwrap();
        assert_eq!(kind(Place::bind(&node, socket.clone())), Some(ErrorKind::AlreadyExists));
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        fs::remove_dir_all(dir.path("run")).unwrap();
        assert_eq!(kind(Place::bind(&node, socket)), Some(ErrorKind::NotFound), "not at an abstract address");
    }
}
