//! The files that clients passed with their commands: only the driver has descriptors, so it adds to the core's answers what
//! follows from them.

use crate::disk::Disk;
use crate::io::PassedId;
use crate::node::command::{Command, CommandId, Reply, Response};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// The commands under way that a file was passed with, and its path.
#[derive(Default)]
pub(super) struct Passed {
    paths: BTreeMap<CommandId, PathBuf>,
}

impl Passed {
    /// A command came with a descriptor. One that has no use for it closes it.
    pub(super) fn take(&mut self, id: CommandId, command: &Command, descriptor: OwnedFd, disk: &mut Disk) {
        if let Command::Put { path, .. } = command {
            self.paths.insert(id, path.clone());
            disk.pass(PassedId(id.0), descriptor);
        }
    }

    /// A command is answered. After the last answer nobody has a use for its descriptor any more.
    pub(super) fn answered(&mut self, id: CommandId, response: &mut Response, disk: &mut Disk) {
        match response {
            Response::Done(Reply::List { files, .. }) => {
                for file in files {
                    file.kept_open = disk.keeps_open(&file.path);
                }
            }
            Response::Progress(_) => {}
            response => {
                let Some(path) = self.paths.remove(&id) else { return };
                disk.drop_passed(PassedId(id.0));
                if let Response::Done(Reply::Put { kept_open, .. }) = response {
                    *kept_open = disk.keeps_open(&path);
                }
            }
        }
    }
}
