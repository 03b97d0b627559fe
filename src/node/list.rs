//! `ls`: the shares and downloads in the order of addresses and paths, one page an answer.
//!
//! A node with a hundred thousand shares must neither hold the whole list in memory nor block for it.

use super::command::{FileState, Listed, Reply, SharedFile};
use super::machines::Machines;
use super::ops::Ops;
use crate::id::Key;
use crate::io::ShareState;
use crate::store::{Claim, Shared};
use std::path::Path;

/// A page ends with the file that reaches one of these limits: a number of files, or of bytes of their paths.
const PAGE_FILES: usize = 1024;
const PAGE_PATH_BYTES: usize = 256 << 10;

impl Ops {
    /// The page after `after`, or the first.
    pub(super) fn list(&self, after: Option<&Listed>, machines: &Machines) -> Reply {
        let is_ahead = |file: &SharedFile| after.is_none_or(|after| place(file) > (after.hash, &after.path));
        let mut page = Page::default();
        let from = after.map_or(Key([0; 32]), |after| after.hash);
        for (shared, claims) in machines.store.files_from(&from) {
            let files = claims.iter().map(|claim| self.describe(shared, claim, machines));
            let mut files: Vec<SharedFile> = files.filter(is_ahead).collect();
            files.sort_by(|one, other| one.path.cmp(&other.path));
            if !files.into_iter().all(|file| page.take(file)) {
                break;
            }
        }
        let Page { mut files, is_full, .. } = page;
        let end = files.last().filter(|_| is_full).map(|file| (file.hash, file.path.clone()));
        let in_page =
            |file: &SharedFile| end.as_ref().is_none_or(|(hash, path)| place(file) <= (*hash, path));
        files.extend(self.seekers.downloads.describe(machines).filter(is_ahead).filter(in_page));
        files.sort_by(|one, other| place(one).cmp(&place(other)));
        Reply::List { files, more: is_full }
    }

    fn describe(&self, shared: &Shared, claim: &Claim, machines: &Machines) -> SharedFile {
        let (hash, length) = (shared.hash, shared.layout.length());
        let copies = match self.uploads.copies(&hash) {
            Some(copies) => copies,
            None if shared.replicated => shared.replicas.max(1),
            None => 1,
        };
        SharedFile {
            hash,
            length,
            path: machines.path_of(&claim.place(&hash)),
            copies: u32::from(copies),
            replicas: shared.replicas,
            have: length,
            cached: claim.is_cached(),
            kept_open: false,
            state: match claim.state {
                ShareState::Present => FileState::Shared,
                ShareState::Doubtful => FileState::Checking,
                ShareState::Changed => FileState::Changed,
                ShareState::Absent => FileState::Absent,
            },
        }
    }
}

fn place(file: &SharedFile) -> (Key, &Path) {
    (file.hash, &file.path)
}

/// The files of one answer.
#[derive(Default)]
struct Page {
    files: Vec<SharedFile>,
    path_bytes: usize,
    is_full: bool,
}

impl Page {
    /// Adds a file. False when it belongs to the next page.
    fn take(&mut self, file: SharedFile) -> bool {
        self.is_full = self.files.len() >= PAGE_FILES || self.path_bytes >= PAGE_PATH_BYTES;
        if !self.is_full {
            self.path_bytes += file.path.as_os_str().len();
            self.files.push(file);
        }
        !self.is_full
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use crate::io::{FileStamp, Place, Recovered, Share};
    use crate::node::{Node, NodeConfig};
    use crate::time::Instant;

    fn share(hash: Key, path: &str) -> Share {
        Share {
            hash,
            length: 1,
            place: Place::File(Path::new(path).into()),
            stamp: FileStamp::default(),
            state: ShareState::Present,
            replicas: 0,
            lifetime: 1,
            replicated: true,
            synced: true,
        }
    }

    fn node(shares: Vec<Share>) -> Node {
        let config = NodeConfig::of_a_test(([127, 0, 0, 1], 1).into(), &[]);
        let recovered = Recovered { shares, ..Recovered::default() };
        Node::new(config, Identity::from_secret(&[1; 32]), &recovered, [1; 32], Instant::from_secs(1))
            .unwrap()
    }

    fn pages(node: &Node) -> Vec<Vec<SharedFile>> {
        let (mut pages, mut after) = (Vec::new(), None);
        loop {
            let Reply::List { files, more } = node.ops.list(after.as_ref(), &node.machines) else {
                panic!("a list")
            };
            after = files.last().map(|file| Listed { hash: file.hash, path: file.path.clone() });
            pages.push(files);
            assert!(pages.len() < 1000);
            if !more {
                return pages;
            }
        }
    }

    #[test]
    fn the_pages_together_name_every_path_once_and_in_order() {
        let hash = |number: u32| Key(*blake3::hash(&number.to_le_bytes()).as_bytes());
        let mut shares: Vec<Share> = (0..2500).map(|n| share(hash(n), &format!("/{n}"))).collect();
        // One content at more paths than fit in a page.
        shares.extend((0..1500).map(|n| share(hash(0), &format!("/same/{n:04}"))));
        let pages = pages(&node(shares.clone()));
        assert!(pages.iter().all(|page| page.len() <= PAGE_FILES));
        let listed: Vec<(Key, String)> =
            pages.concat().iter().map(|file| (file.hash, file.path.display().to_string())).collect();
        let mut expected: Vec<(Key, String)> = shares
            .iter()
            .map(|share| match &share.place {
                Place::File(path) => (share.hash, path.display().to_string()),
                _ => unreachable!(),
            })
            .collect();
        expected.sort();
        assert_eq!(listed, expected);
    }

    #[test]
    fn long_paths_make_short_pages_and_an_empty_list_is_one_page() {
        assert_eq!(pages(&node(Vec::new())), [Vec::new()]);
        let long = "x".repeat(4000);
        let shares = (0..200u8).map(|n| share(Key([n; 32]), &format!("/{long}{n}"))).collect();
        let pages = pages(&node(shares));
        assert_eq!(pages.concat().len(), 200);
        assert!(pages[0].len() < 80, "{}", pages[0].len());
    }
}
