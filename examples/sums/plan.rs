//! The files found, in the order in which their sums are printed.
//!
//! A name is kept once: a directory has its path, ending in a slash, and the names of its entries
//! in one piece of memory; a file is a pair of numbers. Complete paths are put together only when a
//! file is opened and when its line is printed.
//!
//! # The order
//!
//! The pipeline sorts complete paths by their bytes. Sorting the entries of each directory by name
//! and walking the tree gives the same order, if a directory's name is sorted with its slash: below
//! `d` every path starts with `d/`, so `d!` stands before all of them and `d0` after. Hence an
//! entry that is a directory is stored as `d/`. Each directory sorts its short names itself, on
//! whatever worker read it. Only the lists of several PATH arguments must be merged afterwards;
//! they are sorted runs already, which std's stable sort recognises.

use std::cmp::Ordering;

/// A directory that was read. `path` is empty or ends in a slash.
pub(crate) struct Dir {
    pub(crate) path: Box<[u8]>,
    pub(crate) names: Vec<u8>,
    /// Sorted by name.
    pub(crate) entries: Vec<Entry>,
}

/// A regular file or a subdirectory; a subdirectory's name ends in a slash.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) start: usize,
    pub(crate) len: u32,
    /// `FILE`, or the subdirectory's number.
    pub(crate) child: u32,
}

/// In `Entry::child`: not a directory.
pub(crate) const FILE: u32 = u32::MAX;

impl Dir {
    pub(crate) fn new(path: Box<[u8]>) -> Dir {
        Dir { path, names: Vec::new(), entries: Vec::new() }
    }

    pub(crate) fn name(&self, entry: &Entry) -> &[u8] {
        &self.names[entry.start..][..entry.len as usize]
    }

    pub(crate) fn push(&mut self, name: &[u8], child: u32) {
        let len = name.len().try_into().expect("a file name is shorter than 4 GiB");
        self.entries.push(Entry { start: self.names.len(), len, child });
        self.names.extend_from_slice(name);
    }

    pub(crate) fn sort(&mut self) {
        let Dir { names, entries, .. } = self;
        let name = |entry: &Entry| &names[entry.start..][..entry.len as usize];
        entries.sort_unstable_by(|a, b| name(a).cmp(name(b)));
    }
}

/// All files, numbered from 0 in the order of printing.
pub(crate) struct Plan {
    dirs: Vec<Dir>,
    /// Directory, entry.
    files: Vec<(u32, u32)>,
}

impl Plan {
    /// `roots` are the numbers of the directories that stand for the PATH arguments.
    pub(crate) fn new(roots: Vec<u32>, dirs: Vec<Dir>) -> Plan {
        let mut plan = Plan { dirs, files: Vec::new() };
        for &root in &roots {
            plan.add(root);
        }
        if roots.len() > 1 {
            let mut files = std::mem::take(&mut plan.files);
            files.sort_by(|&a, &b| plan.compare(a, b));
            plan.files = files;
        }
        plan
    }

    /// Appends the files at and below `root`, in order.
    fn add(&mut self, root: u32) {
        let mut open = vec![(root, 0u32)];
        while let Some((number, next)) = open.pop() {
            let dir = &self.dirs[number as usize];
            let Some(entry) = dir.entries.get(next as usize) else { continue };
            open.push((number, next + 1));
            if entry.child == FILE {
                self.files.push((number, next));
            } else {
                open.push((entry.child, 0));
            }
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.files.len()
    }

    /// Replaces `path` by the path of one file.
    pub(crate) fn path(&self, file: usize, path: &mut Vec<u8>) {
        let (dir, name) = self.parts(self.files[file]);
        path.clear();
        path.extend_from_slice(dir);
        path.extend_from_slice(name);
    }

    fn parts(&self, (dir, entry): (u32, u32)) -> (&[u8], &[u8]) {
        let dir = &self.dirs[dir as usize];
        (&dir.path, dir.name(&dir.entries[entry as usize]))
    }

    fn compare(&self, a: (u32, u32), b: (u32, u32)) -> Ordering {
        compare(self.parts(a), self.parts(b))
    }
}

/// Compares `a.0 + a.1` with `b.0 + b.1`, bytewise.
fn compare(a: (&[u8], &[u8]), b: (&[u8], &[u8])) -> Ordering {
    if a.0.len() > b.0.len() {
        return compare(b, a).reverse();
    }
    let (head, rest) = b.0.split_at(a.0.len());
    let middle = rest.len().min(a.1.len());
    let (ours, tail) = a.1.split_at(middle);
    // If `a` ends within `rest`, what follows in `rest` decides, and `tail` is empty.
    a.0.cmp(head).then_with(|| ours.cmp(&rest[..middle])).then_with(|| match middle < rest.len() {
        true => Ordering::Less,
        false => tail.cmp(b.1),
    })
}
