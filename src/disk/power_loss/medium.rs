//! The content of a medium, the changes that are only in memory, and the states that a power cut may leave.
//!
//! The rules are those that POSIX leaves a file system, in the manner of ALICE (Pillai et al., "All File Systems Are Not
//! Created Equal", OSDI 2014): a sync makes what it covers durable, and between syncs nothing is promised. A write may
//! be lost, be there in some sectors only, or have grown the file without its bytes; a name may be there or not, one
//! directory earlier than another, and later changes without earlier ones. After a sync that failed, what it covered may
//! be lost for good even if a later one succeeds (Rebello et al., 2020).

use super::record::{Kind, Operation};
use crate::rng::Rng;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use xxhash_rust::xxh3::Xxh3;

/// An inode number: the system's for a file, the model's for a directory.
pub(super) type Inode = u64;

/// The store's directory.
const ROOT: Inode = 1 << 63;

/// Which syncs take effect. The check is itself tested on a medium where some do not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Honesty {
    /// Of files.
    pub(super) data: bool,
    /// Of directories.
    pub(super) names: bool,
}

/// The manner of a power cut: which unsynced changes survive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Manner {
    /// No unsynced change survives.
    Nothing,
    /// Every change survives.
    Everything,
    /// The names survive, the data does not.
    Names,
    /// The data survives, the names do not.
    Data,
    /// Names and lengths survive, and the data is zeros.
    Blank,
    /// The earlier changes survive, the later ones do not; the last write that survives is torn.
    Ordered,
    /// Any mixture of changes survives.
    Mixed,
}

impl Manner {
    /// All manners.
    pub(super) const ALL: [Manner; 7] = [
        Manner::Nothing,
        Manner::Everything,
        Manner::Names,
        Manner::Data,
        Manner::Blank,
        Manner::Ordered,
        Manner::Mixed,
    ];
}

/// Whether a change has reached the medium.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// A later sync may bring it to the medium.
    Pending,
    /// A sync failed: whether the change is on the medium is unknown, and no later sync helps.
    Distrusted,
    /// It is on the medium, but an earlier change of the same file or directory is not. Otherwise the change would be
    /// part of the base state.
    Durable,
}

#[derive(Clone, Debug)]
struct Change<T> {
    what: T,
    state: State,
    /// Its place among all changes.
    number: u64,
}

#[derive(Clone, Debug)]
enum Edit {
    Write { offset: u64, bytes: Arc<[u8]> },
    Length(u64),
}

/// A change of a directory; a rename within one is a single change.
#[derive(Clone, Debug)]
struct Naming {
    removed: Option<String>,
    added: Option<(String, Inode)>,
}

#[derive(Clone, Debug, Default)]
struct FileState {
    /// The content on the medium, before `edits`.
    content: Arc<Vec<u8>>,
    /// The time of modification on the medium, and in memory.
    modified: u64,
    modified_now: u64,
    edits: Vec<Change<Edit>>,
}

#[derive(Clone, Debug, Default)]
struct Directory {
    /// The names on the medium, and those in memory.
    names: BTreeMap<String, Inode>,
    names_now: BTreeMap<String, Inode>,
    edits: Vec<Change<Naming>>,
}

/// A medium, and the system's unsynced changes to it.
#[derive(Clone, Debug)]
pub(super) struct Medium {
    files: BTreeMap<Inode, FileState>,
    directories: BTreeMap<Inode, Directory>,
    next_directory: Inode,
    next_change: u64,
    honesty: Honesty,
}

/// An entry of a directory.
pub(super) enum Entry<'a> {
    /// A file: its number, content and time of modification.
    File(Inode, &'a [u8], u64),
    /// A directory.
    Directory(Inode),
}

impl Medium {
    /// An empty medium.
    pub(super) fn new(honesty: Honesty) -> Self {
        let directories = BTreeMap::from([(ROOT, Directory::default())]);
        Medium { files: BTreeMap::new(), directories, next_directory: ROOT + 1, next_change: 0, honesty }
    }

    /// Applies a change under `root`. Changes elsewhere are ignored.
    pub(super) fn apply(&mut self, operation: &Operation, root: &Path) {
        self.next_change += 1;
        match operation {
            Operation::Create { file, path, modified } => {
                let state =
                    FileState { modified: *modified, modified_now: *modified, ..FileState::default() };
                self.files.insert(*file, state);
                self.name(root, path, Some(*file));
            }
            Operation::Write { file, offset, bytes, modified } => {
                self.edit(*file, Edit::Write { offset: *offset, bytes: bytes.as_slice().into() }, *modified);
            }
            Operation::SetLength { file, length, modified } => {
                self.edit(*file, Edit::Length(*length), *modified);
            }
            Operation::Rename { from, to } => self.rename(root, from, to),
            Operation::Remove { path } | Operation::RemoveDirectory { path } => self.name(root, path, None),
            Operation::MakeDirectory { path } => {
                let inode = self.next_directory;
                self.next_directory += 1;
                self.directories.insert(inode, Directory::default());
                self.name(root, path, Some(inode));
            }
            Operation::Sync { file, path, kind, succeeded } => {
                self.sync(root, *file, path, *kind, *succeeded)
            }
        }
    }

    fn edit(&mut self, file: Inode, what: Edit, modified: u64) {
        let number = self.next_change;
        if let Some(file) = self.files.get_mut(&file) {
            file.edits.push(Change { what, state: State::Pending, number });
            file.modified_now = modified;
        }
    }

    /// Gives an inode a name, or removes the name.
    fn name(&mut self, root: &Path, path: &Path, inode: Option<Inode>) {
        let Some((parent, name)) = self.locate(root, path) else { return };
        let what = match inode {
            Some(inode) => Naming { removed: None, added: Some((name, inode)) },
            None => Naming { removed: Some(name), added: None },
        };
        self.change_names(parent, what);
    }

    fn rename(&mut self, root: &Path, from: &Path, to: &Path) {
        let (Some((source, old)), Some((target, new))) = (self.locate(root, from), self.locate(root, to))
        else {
            return;
        };
        let inode = self.directories[&source].names_now.get(&old).copied();
        let added = Some((new, inode.expect("what is renamed has been seen")));
        if source == target {
            return self.change_names(source, Naming { removed: Some(old), added });
        }
        self.change_names(source, Naming { removed: Some(old), added: None });
        self.change_names(target, Naming { removed: None, added });
    }

    fn change_names(&mut self, directory: Inode, what: Naming) {
        let number = self.next_change;
        let directory = self.directories.get_mut(&directory).expect("it was located");
        what.apply(&mut directory.names_now);
        directory.edits.push(Change { what, state: State::Pending, number });
    }

    fn sync(&mut self, root: &Path, file: Inode, path: &Path, kind: Kind, succeeded: bool) {
        let honest = if kind == Kind::SyncDirectory { self.honesty.names } else { self.honesty.data };
        if succeeded && !honest {
            return;
        }
        if kind == Kind::SyncDirectory {
            let directory = self.directory_at(root, path).and_then(|inode| self.directories.get_mut(&inode));
            if let Some(Directory { names, edits, .. }) = directory {
                settle(edits, succeeded, |edit| edit.apply(names));
            }
        } else if let Some(file) = self.files.get_mut(&file) {
            if succeeded && kind == Kind::SyncAll {
                file.modified = file.modified_now;
            }
            let FileState { content, edits, .. } = file;
            settle(edits, succeeded, |edit| edit.apply(Arc::make_mut(content)));
        }
    }

    /// The directory that a path lies in, and its name there.
    fn locate(&self, root: &Path, path: &Path) -> Option<(Inode, String)> {
        let name = path.file_name().and_then(OsStr::to_str)?.to_owned();
        Some((self.directory_at(root, path.parent()?)?, name))
    }

    fn directory_at(&self, root: &Path, path: &Path) -> Option<Inode> {
        path.strip_prefix(root).ok()?.components().try_fold(ROOT, |at, component| {
            let name = component.as_os_str().to_str()?;
            self.directories.get(&at)?.names_now.get(name).copied()
        })
    }

    /// A state that the next start may find after a power cut now.
    pub(super) fn cut(&self, manner: Manner, rng: &mut Rng) -> Medium {
        let mut cut = Medium { files: BTreeMap::new(), directories: BTreeMap::new(), ..*self };
        let oldest = self.oldest_change();
        let until = oldest + rng.below(self.next_change + 1 - oldest);
        let mut open = vec![ROOT];
        while let Some(inode) = open.pop() {
            let names = self.directories[&inode].after(manner, until, rng);
            for &child in names.values() {
                if child > ROOT {
                    open.push(child);
                } else {
                    // A renamed file may be in two directories, when only one of the two changes is on the medium.
                    let after = || self.files[&child].after(manner, until, rng);
                    cut.files.entry(child).or_insert_with(after);
                }
            }
            let directory = Directory { names_now: names.clone(), names, edits: Vec::new() };
            cut.directories.insert(inode, directory);
        }
        cut
    }

    fn oldest_change(&self) -> u64 {
        let files = self.files.values().filter_map(|file| file.edits.first().map(|edit| edit.number));
        let names = self.directories.values().filter_map(|names| names.edits.first().map(|edit| edit.number));
        files.chain(names).min().unwrap_or(self.next_change)
    }

    /// The store's directory.
    pub(super) fn root(&self) -> Inode {
        ROOT
    }

    /// The entries of a directory on a medium without unsynced changes.
    pub(super) fn entries(&self, directory: Inode) -> impl Iterator<Item = (&str, Entry<'_>)> {
        self.directories[&directory].names.iter().map(|(name, &inode)| {
            let entry = match self.files.get(&inode) {
                Some(file) => Entry::File(inode, &file.content, file.modified),
                None => Entry::Directory(inode),
            };
            (name.as_str(), entry)
        })
    }

    /// A hash of a medium without unsynced changes. It tells such media apart.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = Xxh3::new();
        for (inode, directory) in &self.directories {
            hasher.update(&inode.to_le_bytes());
            for (name, child) in &directory.names {
                hasher.update(name.as_bytes());
                hasher.update(&child.to_le_bytes());
            }
        }
        for (inode, file) in &self.files {
            for number in [*inode, file.modified, file.content.len() as u64] {
                hasher.update(&number.to_le_bytes());
            }
            hasher.update(&file.content);
        }
        hasher.digest()
    }
}

/// Applies a sync to changes. The leading durable ones become part of the base state.
fn settle<T>(edits: &mut Vec<Change<T>>, succeeded: bool, mut apply: impl FnMut(&T)) {
    for edit in edits.iter_mut().filter(|edit| edit.state == State::Pending) {
        edit.state = if succeeded { State::Durable } else { State::Distrusted };
    }
    let durable = edits.iter().take_while(|edit| edit.state == State::Durable).count();
    edits.drain(..durable).for_each(|edit| apply(&edit.what));
}

/// The changes of one file or directory that survive.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Survival {
    None,
    All,
    /// Those with a lower number.
    Before(u64),
    Some,
}

impl Survival {
    fn draw(until: u64, rng: &mut Rng) -> Self {
        match rng.below(4) {
            0 => Survival::None,
            1 => Survival::All,
            2 => Survival::Before(until),
            _ => Survival::Some,
        }
    }

    fn keeps<T>(self, change: &Change<T>, rng: &mut Rng) -> bool {
        match (self, change.state) {
            (_, State::Durable) | (Survival::All, _) => true,
            (Survival::None, _) => false,
            (Survival::Before(until), State::Pending) => change.number < until,
            (Survival::Some, _) | (_, State::Distrusted) => rng.below(2) == 0,
        }
    }
}

impl Directory {
    fn after(&self, manner: Manner, until: u64, rng: &mut Rng) -> BTreeMap<String, Inode> {
        let survival = match manner {
            Manner::Nothing | Manner::Data => Survival::None,
            Manner::Everything | Manner::Names | Manner::Blank => Survival::All,
            Manner::Ordered => Survival::Before(until),
            Manner::Mixed => Survival::draw(until, rng),
        };
        let mut names = self.names.clone();
        for edit in &self.edits {
            if survival.keeps(edit, rng) {
                edit.what.apply(&mut names);
            }
        }
        names
    }
}

impl Naming {
    fn apply(&self, names: &mut BTreeMap<String, Inode>) {
        if let Some(name) = &self.removed {
            names.remove(name);
        }
        if let Some((name, inode)) = &self.added {
            names.insert(name.clone(), *inode);
        }
    }
}

impl FileState {
    fn after(&self, manner: Manner, until: u64, rng: &mut Rng) -> FileState {
        let blank = manner == Manner::Blank || manner == Manner::Mixed && rng.below(6) == 0;
        let survival = match manner {
            _ if blank => Survival::All,
            Manner::Nothing | Manner::Names => Survival::None,
            Manner::Everything | Manner::Data => Survival::All,
            Manner::Ordered => Survival::Before(until),
            _ => Survival::draw(until, rng),
        };
        let mut content = Arc::clone(&self.content);
        for edit in &self.edits {
            let torn = match survival {
                Survival::Before(until) => edit.number + 1 == until,
                Survival::Some => rng.below(2) == 0,
                _ => false,
            };
            match edit.state {
                State::Durable => edit.what.apply(Arc::make_mut(&mut content)),
                _ if !survival.keeps(edit, rng) => {}
                _ if blank => edit.what.apply_filler(0, Arc::make_mut(&mut content)),
                _ if torn => edit.what.tear(Arc::make_mut(&mut content), rng),
                _ => edit.what.apply(Arc::make_mut(&mut content)),
            }
        }
        let newest = survival == Survival::All || survival != Survival::None && rng.below(2) == 0;
        let modified = if newest { self.modified_now } else { self.modified };
        FileState { content, modified, modified_now: modified, edits: Vec::new() }
    }
}

impl Edit {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Edit::Length(length) => content.resize(*length as usize, 0),
            Edit::Write { offset, bytes } => put(content, *offset as usize, bytes),
        }
    }

    /// The file reaches its new length, but the new bytes are filler.
    fn apply_filler(&self, filler: u8, content: &mut Vec<u8>) {
        match self {
            Edit::Length(length) => content.resize(*length as usize, 0),
            Edit::Write { offset, bytes } => {
                let end = *offset as usize + bytes.len();
                if content.len() < end {
                    content.resize(end.min(content.len().max(*offset as usize)), 0);
                    content.resize(end, filler);
                }
            }
        }
    }

    /// Some sectors arrive and others do not; or the file grows by zeros, or by bytes that lay on the medium before.
    fn tear(&self, content: &mut Vec<u8>, rng: &mut Rng) {
        let Edit::Write { offset, bytes } = self else {
            return self.apply(content);
        };
        let sector = if rng.below(2) == 0 { 512 } else { 4096 };
        // Sectors are aligned to the medium, not to the write.
        let first = (sector - *offset as usize % sector).min(bytes.len());
        let ends = (first..bytes.len()).step_by(sector).chain([bytes.len()]);
        match rng.below(4) {
            0 => self.apply_filler(0, content),
            1 => self.apply_filler(0xa5, content),
            2 => {
                let ends: Vec<usize> = ends.collect();
                let end = ends[rng.below(ends.len() as u64) as usize];
                let end = if rng.below(2) == 0 { end } else { 0 };
                put(content, *offset as usize, &bytes[..end]);
            }
            _ => {
                let mut start = 0;
                for end in ends {
                    if rng.below(2) == 0 {
                        put(content, *offset as usize + start, &bytes[start..end]);
                    }
                    start = end;
                }
            }
        }
    }
}

fn put(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let end = offset + bytes.len();
    content.resize(content.len().max(end), 0);
    content[offset..end].copy_from_slice(bytes);
}
