//! Inodes, names, and what of them is durable. Pure: no faults, no handles; the caller says when the power goes.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::content::Content;
use super::{Rng, SECTOR};

type Id = u64;
const ROOT: Id = 0;

/// A change of a file that no sync has covered yet.
#[derive(Clone)]
pub(super) enum Pending {
    Write { offset: u64, bytes: Arc<[u8]> },
    Length(u64),
}

#[derive(Clone, Default)]
pub(super) struct FileNode {
    pub(super) durable: Content,
    pub(super) current: Content,
    pending: Vec<Pending>,
    /// A write or sync failed in the process that is running.
    pub(super) failed: bool,
    pub(super) unreadable: Vec<(u64, u64)>,
}

/// How much of the unsynced survives.
#[derive(Clone, Copy)]
pub(super) enum Unlucky {
    Nothing,
    Everything,
    /// Everything up to some point, in the order it was written.
    Prefix,
    /// Each sector with this chance in percent.
    Sectors(u64),
}

impl Unlucky {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        match rng.below(10) {
            0 | 1 => Self::Nothing,
            2 => Self::Everything,
            3 | 4 => Self::Prefix,
            5 => Self::Sectors(10),
            6 => Self::Sectors(90),
            _ => Self::Sectors(50),
        }
    }
}

impl FileNode {
    fn new(len: u64) -> Self {
        Self { current: Content::zeroes(len), pending: vec![Pending::Length(len)], ..Self::default() }
    }

    pub(super) fn change(&mut self, change: Pending) {
        apply(&mut self.current, &change);
        self.pending.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            apply(&mut self.durable, &change);
        }
    }

    /// Back to the empty file of a creation that failed.
    pub(super) fn cut_unsynced(&mut self) {
        self.current = Content::default();
        self.pending.clear();
    }

    /// The kernel wrote some of the dirty pages and calls the others clean.
    pub(super) fn drop_dirty(&mut self, rng: &mut Rng, luck: Unlucky) {
        let mut left: u64 = match luck {
            Unlucky::Prefix => rng.below(self.pending.iter().map(sectors).sum::<u64>() + 1),
            _ => u64::MAX,
        };
        let mut survives = |rng: &mut Rng| match luck {
            Unlucky::Nothing => false,
            Unlucky::Everything => true,
            Unlucky::Sectors(percent) => rng.percent(percent),
            Unlucky::Prefix => {
                let lucky = left > 0;
                left = left.saturating_sub(1);
                lucky
            }
        };
        for change in std::mem::take(&mut self.pending) {
            match change {
                Pending::Length(len) => {
                    if survives(rng) {
                        self.durable.set_len(len);
                    }
                }
                Pending::Write { offset, bytes } => {
                    let mut from = 0;
                    while from < bytes.len() {
                        let at = offset + from as u64;
                        let n = ((SECTOR - at % SECTOR) as usize).min(bytes.len() - from);
                        if survives(rng) {
                            self.durable.write(at, &bytes[from..from + n]);
                        }
                        from += n;
                    }
                }
            }
        }
    }
}

fn apply(content: &mut Content, change: &Pending) {
    match change {
        Pending::Write { offset, bytes } => content.write(*offset, bytes),
        Pending::Length(len) => content.set_len(*len),
    }
}

fn sectors(change: &Pending) -> u64 {
    match change {
        Pending::Length(_) => 1,
        Pending::Write { offset, bytes } => (offset + bytes.len() as u64).div_ceil(SECTOR) - offset / SECTOR,
    }
}

type Names = BTreeMap<String, Id>;

#[derive(Clone, Default)]
struct DirNode {
    durable: Names,
    current: Names,
}

#[derive(Clone)]
enum Node {
    File(FileNode),
    Dir(DirNode),
}

/// A change of names that no `sync_dir` has covered yet.
#[derive(Clone)]
enum Naming {
    Link { dir: Id, name: String, id: Id },
    Unlink { dir: Id, name: String },
    Rename { from: (Id, String), to: (Id, String), id: Id },
}

impl Naming {
    fn touches(&self, of: Id) -> bool {
        match self {
            Self::Link { dir, .. } | Self::Unlink { dir, .. } => *dir == of,
            Self::Rename { from, to, .. } => from.0 == of || to.0 == of,
        }
    }
}

#[derive(Clone)]
pub(super) struct Tree {
    nodes: BTreeMap<Id, Node>,
    next: Id,
    unsynced: Vec<Naming>,
}

impl Tree {
    pub(super) fn new() -> Self {
        Self { nodes: BTreeMap::from([(ROOT, Node::Dir(DirNode::default()))]), next: ROOT + 1, unsynced: Vec::new() }
    }

    fn dir(&self, id: Id) -> io::Result<&DirNode> {
        match self.nodes.get(&id) {
            Some(Node::Dir(dir)) => Ok(dir),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn dir_mut(&mut self, id: Id) -> Option<&mut DirNode> {
        match self.nodes.get_mut(&id) {
            Some(Node::Dir(dir)) => Some(dir),
            _ => None,
        }
    }

    pub(super) fn is_dir(&self, id: Id) -> bool {
        self.dir(id).is_ok()
    }

    pub(super) fn file(&self, id: Id) -> &FileNode {
        match self.nodes.get(&id) {
            Some(Node::File(file)) => file,
            _ => panic!("inode {id} is not a file"),
        }
    }

    pub(super) fn file_mut(&mut self, id: Id) -> &mut FileNode {
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => file,
            _ => panic!("inode {id} is not a file"),
        }
    }

    pub(super) fn lookup(&self, dir: Id, name: &str) -> Option<Id> {
        self.dir(dir).ok()?.current.get(name).copied()
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<Id> {
        let mut at = ROOT;
        for part in parts(path) {
            at = *self.dir(at)?.current.get(&part).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(at)
    }

    /// The directory a path is in, and its name there.
    pub(super) fn place(&self, path: &Path) -> io::Result<(Id, String)> {
        let mut parts = parts(path);
        let name = parts.pop().ok_or(io::ErrorKind::InvalidInput)?;
        let mut at = ROOT;
        for part in parts {
            at = *self.dir(at)?.current.get(&part).ok_or(io::ErrorKind::NotFound)?;
        }
        self.dir(at)?;
        Ok((at, name))
    }

    pub(super) fn names(&self, dir: Id) -> io::Result<Vec<String>> {
        Ok(self.dir(dir)?.current.keys().cloned().collect())
    }

    fn add(&mut self, node: Node) -> Id {
        let id = self.next;
        self.next += 1;
        self.nodes.insert(id, node);
        id
    }

    fn do_now(&mut self, naming: Naming) {
        self.name(&naming, |dir| &mut dir.current);
        self.unsynced.push(naming);
    }

    fn name(&mut self, naming: &Naming, names: impl Fn(&mut DirNode) -> &mut Names) {
        match naming {
            Naming::Link { dir, name, id } => {
                if let Some(dir) = self.dir_mut(*dir) {
                    names(dir).insert(name.clone(), *id);
                }
            }
            Naming::Unlink { dir, name } => {
                if let Some(dir) = self.dir_mut(*dir) {
                    names(dir).remove(name);
                }
            }
            Naming::Rename { from, to, id } => {
                if let Some(dir) = self.dir_mut(from.0) {
                    names(dir).remove(&from.1);
                }
                if let Some(dir) = self.dir_mut(to.0) {
                    names(dir).insert(to.1.clone(), *id);
                }
            }
        }
    }

    pub(super) fn add_file(&mut self, dir: Id, name: &str, len: u64) -> Id {
        let id = self.add(Node::File(FileNode::new(len)));
        self.do_now(Naming::Link { dir, name: name.to_owned(), id });
        id
    }

    pub(super) fn unlink(&mut self, dir: Id, name: &str) {
        self.do_now(Naming::Unlink { dir, name: name.to_owned() });
    }

    pub(super) fn rename(&mut self, from: (Id, String), to: (Id, String)) {
        if let Some(id) = self.lookup(from.0, &from.1) {
            self.do_now(Naming::Rename { from, to, id });
        }
    }

    pub(super) fn make_dirs(&mut self, path: &Path) -> io::Result<()> {
        let mut at = ROOT;
        for part in parts(path) {
            at = if let Some(id) = self.dir(at)?.current.get(&part) {
                *id
            } else {
                let id = self.add(Node::Dir(DirNode::default()));
                self.do_now(Naming::Link { dir: at, name: part, id });
                id
            };
        }
        self.dir(at).map(|_| ())
    }

    pub(super) fn make_durable_dir(&mut self, path: &Path) {
        self.make_dirs(path).expect("the root of an empty tree");
        self.settle_all();
    }

    pub(super) fn sync_dir(&mut self, dir: Id) {
        let (synced, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.unsynced).into_iter().partition(|n| n.touches(dir));
        self.unsynced = rest;
        for naming in &synced {
            self.name(naming, |dir| &mut dir.durable);
        }
    }

    // ---- ends ----

    /// A new process starts on the same page cache.
    pub(super) fn forget_process(&mut self) {
        for node in self.nodes.values_mut() {
            if let Node::File(file) = node {
                file.failed = false;
            }
        }
        self.collect();
    }

    /// Everything visible becomes durable.
    pub(super) fn settle_all(&mut self) {
        self.unsynced.clear();
        for node in self.nodes.values_mut() {
            match node {
                Node::File(file) => {
                    file.pending.clear();
                    file.failed = false;
                    file.durable = file.current.clone();
                }
                Node::Dir(dir) => dir.durable = dir.current.clone(),
            }
        }
        self.collect();
    }

    pub(super) fn lose_unsynced(&mut self, rng: &mut Rng) {
        let unsynced = std::mem::take(&mut self.unsynced);
        let kept = match rng.below(4) {
            0 => 0,
            1 => unsynced.len(),
            2 => rng.below(unsynced.len() as u64 + 1) as usize,
            _ => usize::MAX,
        };
        for (index, naming) in unsynced.iter().enumerate() {
            if index < kept && (kept != usize::MAX || rng.percent(50)) {
                self.name(naming, |dir| &mut dir.durable);
            }
        }
        for node in self.nodes.values_mut() {
            match node {
                Node::File(file) => {
                    let luck = Unlucky::draw(rng);
                    file.drop_dirty(rng, luck);
                    file.failed = false;
                    file.current = file.durable.clone();
                }
                Node::Dir(dir) => dir.current = dir.durable.clone(),
            }
        }
        self.collect();
    }

    /// Drops inodes that nothing names any more.
    fn collect(&mut self) {
        let mut reached = BTreeSet::new();
        let mut todo = vec![ROOT];
        for naming in &self.unsynced {
            match naming {
                Naming::Link { dir, id, .. } => todo.extend([*dir, *id]),
                Naming::Unlink { dir, .. } => todo.push(*dir),
                Naming::Rename { from, to, id } => todo.extend([from.0, to.0, *id]),
            }
        }
        while let Some(id) = todo.pop() {
            if reached.insert(id)
                && let Some(Node::Dir(dir)) = self.nodes.get(&id)
            {
                todo.extend(dir.durable.values().chain(dir.current.values()));
            }
        }
        self.nodes.retain(|id, _| reached.contains(id));
    }

    pub(super) fn delete_for_good(&mut self, path: &Path) {
        if let Ok((dir, name)) = self.place(path)
            && let Some(dir) = self.dir_mut(dir)
        {
            dir.current.remove(&name);
            dir.durable.remove(&name);
        }
    }

    // ---- what is there ----

    pub(super) fn files(&self) -> Vec<(PathBuf, u64)> {
        let mut found = Vec::new();
        let mut todo = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, id)) = todo.pop() {
            match self.nodes.get(&id) {
                Some(Node::Dir(dir)) => todo.extend(dir.current.iter().map(|(name, id)| (path.join(name), *id))),
                Some(Node::File(file)) => found.push((path, file.current.len())),
                None => {}
            }
        }
        found.sort();
        found
    }

    /// Everything on the way to, and under, `path` that is visible and not durable.
    pub(super) fn not_durable(&self, path: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let (mut at, mut so_far) = (ROOT, PathBuf::from("/"));
        for part in parts(path) {
            let Ok(dir) = self.dir(at) else { return found };
            let Some(id) = dir.current.get(&part) else { return found };
            so_far.push(&part);
            if dir.durable.get(&part) != Some(id) {
                found.push(so_far.display().to_string());
            }
            at = *id;
        }
        let mut todo = vec![(so_far, at)];
        while let Some((path, id)) = todo.pop() {
            match self.nodes.get(&id) {
                Some(Node::Dir(dir)) => {
                    for (name, id) in &dir.current {
                        let path = path.join(name);
                        if dir.durable.get(name) != Some(id) {
                            found.push(path.display().to_string());
                        }
                        todo.push((path, *id));
                    }
                }
                Some(Node::File(file)) if !file.pending.is_empty() => found.push(format!("content of {}", path.display())),
                _ => {}
            }
        }
        found
    }

    pub(super) fn used(&self) -> u64 {
        self.files().iter().map(|(_, len)| len).sum()
    }
}

fn parts(path: &Path) -> Vec<String> {
    path.components()
        .filter_map(|part| match part {
            std::path::Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
            _ => None,
        })
        .collect()
}
