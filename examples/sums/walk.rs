//! Finding the files: one level of the tree after the other, each level in parallel.
//!
//! The directories of a level are numbered; some jobs pull numbers from a counter, read the
//! directories and bring back what they found; what they found is the next level. A level ends when
//! all of its jobs have been joined, so nothing is shared but the counter, and nobody waits for a
//! queue. What this costs, some jobs per level, is little: trees are wide rather than deep.

use crate::plan::{Dir, FILE};
use crate::report::Report;
use crate::seam::{Engine, fs};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Jobs that read directories at the same time, on fibers: each has one of the runtime's blocking
/// threads while the level lasts. More of them than cores, for directories that must be read from
/// the disk.
const READERS: usize = 4;

/// In `Entry::child` while a level is being read: a directory that has no number yet.
const UNNUMBERED: u32 = FILE - 1;

/// Finds all regular files at and below `paths`; gives the roots' numbers and all directories.
pub(crate) fn walk(
    engine: Engine,
    paths: &[PathBuf],
    report: &Arc<Report>,
) -> (Vec<u32>, Vec<Dir>) {
    let mut dirs = Vec::new();
    let mut roots = Vec::new();
    for path in paths {
        if let Some(root) = root(path, report) {
            roots.push(number(dirs.len()));
            dirs.push(root);
        }
    }
    let mut done = 0;
    while done < dirs.len() {
        let level: Vec<Box<[u8]>> = number_children(&mut dirs, done);
        done = dirs.len();
        dirs.extend(read_level(engine, level, report));
    }
    (roots, dirs)
}

/// A PATH argument, as a nameless directory that holds one entry.
fn root(path: &Path, report: &Report) -> Option<Dir> {
    let bytes = path.as_os_str().as_bytes();
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) => {
            report.not_found(bytes, &error);
            return None;
        }
    };
    let mut root = Dir::new(Box::default());
    if kind.is_file() {
        root.push(bytes, FILE);
    } else if kind.is_dir() {
        let slash: &[u8] = if bytes.ends_with(b"/") { b"" } else { b"/" };
        root.push(&[bytes, slash].concat(), UNNUMBERED);
    } else {
        return None;
    }
    Some(root)
}

/// Numbers the subdirectories found in `dirs[from..]`, after all of `dirs`; gives their paths.
fn number_children(dirs: &mut [Dir], from: usize) -> Vec<Box<[u8]>> {
    let mut next = dirs.len();
    let mut paths = Vec::new();
    for dir in &mut dirs[from..] {
        let Dir { path, names, entries } = dir;
        for entry in entries.iter_mut().filter(|entry| entry.child == UNNUMBERED) {
            entry.child = number(next);
            next += 1;
            let name = &names[entry.start..][..entry.len as usize];
            paths.push([path, name].concat().into());
        }
    }
    paths
}

fn number(index: usize) -> u32 {
    match u32::try_from(index) {
        Ok(number) if number < UNNUMBERED => number,
        _ => panic!("more than four thousand million directories"),
    }
}

struct Level {
    paths: Vec<Box<[u8]>>,
    next: AtomicUsize,
    report: Arc<Report>,
}

/// Reads the directories of one level, given and returned in the same order.
fn read_level(engine: Engine, paths: Vec<Box<[u8]>>, report: &Arc<Report>) -> Vec<Dir> {
    let jobs = match engine {
        Engine::Fibers { .. } => READERS,
        Engine::Threads(threads) => threads,
    };
    let jobs = jobs.min(paths.len());
    let mut dirs: Vec<Dir> = paths.iter().map(|path| Dir::new(path.clone())).collect();
    let level = Arc::new(Level { paths, next: AtomicUsize::new(0), report: report.clone() });
    let results = if jobs < 2 {
        vec![engine.blocking(|| read_some(&level))]
    } else {
        let start = |index| {
            let level = level.clone();
            engine.spawn(index, move || engine.blocking(|| read_some(&level)))
        };
        let started: Vec<_> = (0..jobs).map(start).collect();
        started.into_iter().map(|job| job.join()).collect()
    };
    for (index, dir) in results.into_iter().flatten() {
        dirs[index] = dir;
    }
    dirs
}

/// One job: reads directories until none is left.
fn read_some(level: &Level) -> Vec<(usize, Dir)> {
    let mut found = Vec::new();
    loop {
        let index = level.next.fetch_add(1, Ordering::Relaxed);
        let Some(path) = level.paths.get(index) else { return found };
        let mut dir = Dir::new(path.clone());
        if let Err(error) = read(&mut dir, &level.report) {
            level.report.not_found(trimmed(path), &error);
        }
        dir.names.shrink_to_fit();
        dir.entries.shrink_to_fit();
        dir.sort();
        level.report.found(&dir);
        found.push((index, dir));
    }
}

/// Reads one directory; after an error, `dir` holds what was read before it.
fn read(dir: &mut Dir, report: &Report) -> io::Result<()> {
    for entry in fs::read_dir(OsStr::from_bytes(&dir.path))? {
        let entry = entry?;
        match entry.file_type() {
            Ok(kind) if kind.is_file() => dir.push(entry.file_name().as_bytes(), FILE),
            Ok(kind) if kind.is_dir() => {
                let mut name = entry.file_name().into_vec();
                name.push(b'/');
                dir.push(&name, UNNUMBERED);
            }
            Ok(_) => {}
            Err(error) => report.not_found(entry.path().as_os_str().as_bytes(), &error),
        }
    }
    Ok(())
}

/// A directory's path as find names it: without the slash that we keep at its end.
fn trimmed(path: &[u8]) -> &[u8] {
    match path {
        [rest @ .., b'/'] if !rest.is_empty() => rest,
        _ => path,
    }
}
