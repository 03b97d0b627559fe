//! The files that clients passed as descriptors with their commands. Only the driver holds descriptors, so it fills in the
//! fields of the core's responses that depend on them.

use crate::disk::Disk;
use crate::io::PassedId;
use crate::node::command::{Command, CommandId, Reply, Response};
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// The running commands that came with a file, with the file's path.
#[derive(Default)]
pub(super) struct Passed {
    paths: BTreeMap<CommandId, PathBuf>,
}

impl Passed {
    /// Takes the descriptor that came with a command. It is closed at once when the command does not use it.
    pub(super) fn take(&mut self, id: CommandId, command: &Command, descriptor: OwnedFd, disk: &mut Disk) {
        if let Command::Put { path, .. } = command {
            self.paths.insert(id, path.clone());
            disk.pass(PassedId(id.0), descriptor);
        }
    }

    /// Fills in a command's response. The last response releases the command's descriptor.
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
