//! The orders of downloads: what a command asks for, and whether it begins, joins another or waits.

use super::Download;
use crate::id::Key;
use crate::io::Tree;
use crate::node::command::{CommandId, FailureReason};
use crate::node::ops::queue::Waits;
use crate::node::ops::table::Entry;
use crate::transfer::DownloadId;
use std::path::{Component, PathBuf};

/// A command to download a file.
pub(in crate::node) struct Order {
    pub(in crate::node) id: CommandId,
    pub(in crate::node) hash: Key,
    /// The target; `None` is the node's cache.
    pub(in crate::node) target: Option<PathBuf>,
    /// Whether a file at the target is replaced.
    pub(in crate::node) force: bool,
    /// The permission bits of the file, if the command gives them.
    pub(in crate::node) mode: Option<u32>,
    /// The tree that the target belongs to, if it is a file of a set.
    pub(in crate::node) tree: Option<Tree>,
    /// Seconds without progress after which it fails; `None` is the node's default, 0 is never.
    pub(in crate::node) timeout: Option<u32>,
}

impl Waits for Order {
    fn command(&self) -> CommandId {
        self.id
    }
}

impl Order {
    /// Decides about an order. A file is downloaded once at a time: an order for the same target joins the download. One for another
    /// target waits for it, because the file is here then.
    pub(super) fn admit<'a>(&self, mut others: impl Iterator<Item = &'a Download>) -> Entry<DownloadId> {
        if self.target.as_ref().is_some_and(|path| !path.is_absolute()) {
            let why = "a path must be absolute: the node has a directory of its own";
            return Entry::Refuse(FailureReason::Usage, why.to_owned());
        }
        if !self.is_below_its_root() {
            let why = "the place in a set's directory consists of names: no `..`, and no path from the root";
            return Entry::Refuse(FailureReason::Usage, why.to_owned());
        }
        if self.mode.is_some_and(|mode| mode > 0o777) {
            let why = "a mode has nine permission bits: give an octal number from 0 to 777";
            return Entry::Refuse(FailureReason::Usage, why.to_owned());
        }
        let mut path_taken = None;
        let same = others.find(|other| {
            if self.target.is_some() && other.target == self.target && other.hash != self.hash {
                path_taken = Some(other.hash);
            }
            other.hash == self.hash
        });
        match (same, path_taken) {
            (Some(same), _) if self.asks_for(same) => Entry::Join(same.id),
            (Some(same), _) => Entry::After(same.id),
            (None, Some(other)) => {
                let why = format!("{other} is being fetched into the same file: choose another");
                Entry::Refuse(FailureReason::Failed, why)
            }
            (None, None) => Entry::Begin,
        }
    }

    /// Whether the target, if it is in a tree, is below the root of the tree by its names.
    fn is_below_its_root(&self) -> bool {
        let (Some(target), Some(tree)) = (&self.target, &self.tree) else { return true };
        target.strip_prefix(&tree.root).is_ok_and(|place| {
            let mut names = place.components().peekable();
            names.peek().is_some() && names.all(|name| matches!(name, Component::Normal(_)))
        })
    }

    /// Whether a download of the same file does what this order asks for.
    fn asks_for(&self, download: &Download) -> bool {
        (&self.target, self.force, self.mode, &self.tree)
            == (&download.target, download.force, download.asked, &download.tree)
    }
}
