//! Making directories and removing whole trees of them.

use std::ffi::{CStr, CString};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use super::cstr::with_cstr;
use super::dir::{Records, open_dir};
use super::metadata::FileType;
use super::{metadata, symlink_metadata};
use crate::op::{Op, decode::decode};
use crate::sched::{blocking, submit};
use crate::sys::path::unlinkat;

/// Creates a new, empty directory.
///
/// # Errors
/// [`AlreadyExists`](ErrorKind::AlreadyExists), [`NotFound`](ErrorKind::NotFound) for the parent,
/// [`PermissionDenied`](ErrorKind::PermissionDenied) and others of `mkdir`.
pub fn create_dir<P: AsRef<Path>>(path: P) -> io::Result<()> {
    DirBuilder::new().create(path)
}

/// Creates a directory and all of its parents that are missing. It is no error if it exists.
///
/// # Errors
/// As [`create_dir`], except for a directory that exists. Some parents may have been made.
///
/// # Examples
/// ```
/// # let root = std::env::temp_dir().join(format!("ramie-tree-{}", std::process::id()));
/// ramie::fs::create_dir_all(root.join("a/b/c"))?;
/// ramie::fs::write(root.join("a/b/file"), "x")?;
/// ramie::fs::remove_dir_all(&root)?;
/// assert!(!ramie::fs::exists(&root)?);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn create_dir_all<P: AsRef<Path>>(path: P) -> io::Result<()> {
    DirBuilder::new().recursive(true).create(path)
}

/// A builder used to create directories in various manners.
///
/// The mode is set through [`std::os::unix::fs::DirBuilderExt`], which this type implements.
///
/// # Examples
/// ```
/// use ramie::fs::DirBuilder;
/// use std::os::unix::fs::DirBuilderExt;
///
/// # let path = std::env::temp_dir().join(format!("ramie-builder-{}", std::process::id()));
/// DirBuilder::new().mode(0o700).create(&path)?;
/// # ramie::fs::remove_dir(&path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct DirBuilder {
    mode: u32,
    recursive: bool,
}

impl DirBuilder {
    /// A builder with the default mode and without `recursive`.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "as std's, which has no Default either")]
    pub fn new() -> Self {
        DirBuilder { mode: 0o777, recursive: false }
    }

    /// Whether missing parents are created too, and a directory that exists is no error.
    pub fn recursive(&mut self, recursive: bool) -> &mut Self {
        self.recursive = recursive;
        self
    }

    /// Creates the directory with the options of this builder.
    ///
    /// # Errors
    /// As [`create_dir`] or [`create_dir_all`].
    pub fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        let path = path.as_ref();
        if self.recursive { self.create_all(path) } else { self.mkdir(path) }
    }

    fn mkdir(&self, path: &Path) -> io::Result<()> {
        let mode = self.mode;
        with_cstr(path, |path| submit(Op::MkdirAt { dir: None, path, mode }).map(drop))
    }

    /// Goes up until a directory can be made, then down again.
    fn create_all(&self, path: &Path) -> io::Result<()> {
        let mut missing = Vec::new();
        for dir in path.ancestors() {
            if dir.as_os_str().is_empty() {
                break; // the current directory
            }
            match self.make_or_find(dir) {
                Err(e) if e.kind() == ErrorKind::NotFound => missing.push(dir),
                result => {
                    result?;
                    break;
                }
            }
        }
        missing.iter().rev().try_for_each(|dir| self.make_or_find(dir))
    }

    fn make_or_find(&self, dir: &Path) -> io::Result<()> {
        match self.mkdir(dir) {
            // Not only for "exists already": on a read-only file system mkdir says something else.
            Err(e) if e.kind() != ErrorKind::NotFound => match metadata(dir) {
                Ok(found) if found.is_dir() => Ok(()),
                _ => Err(e),
            },
            result => result,
        }
    }
}

impl DirBuilderExt for DirBuilder {
    /// The permission bits of new directories, from which the umask is taken away; 0o777 at first.
    fn mode(&mut self, mode: u32) -> &mut Self {
        self.mode = mode;
        self
    }
}

/// Removes a directory after removing all its contents; a symbolic link is removed itself.
///
/// Somebody who at the same time replaces a directory by a link cannot lead the removal out of the
/// tree: every directory is opened without following links, and its entries are removed relative to
/// the open directory. What others remove in the meantime is no error.
///
/// # Errors
/// [`NotFound`](ErrorKind::NotFound), [`NotADirectory`](ErrorKind::NotADirectory) and others of
/// opening and removing. A part of the contents may be gone.
///
/// # Cancellation
/// Between some hundreds of entries; a part of the contents is then gone.
pub fn remove_dir_all<P: AsRef<Path>>(path: P) -> io::Result<()> {
    let path = path.as_ref();
    if symlink_metadata(path)?.is_symlink() {
        return super::remove_file(path);
    }
    with_cstr(path, |path| remove_tree(None, path))
}

/// A directory that is being emptied.
struct Level {
    fd: OwnedFd,
    name: CString,
    records: Records,
}

/// What emptying a directory needs next.
enum Step {
    /// More of the same.
    Again,
    /// This entry is, or may be, a directory: to be emptied first.
    Enter(CString),
    /// No entry is left.
    Empty,
}

/// Removes the directory `root`, which is relative to `dir` if there is one, and what is below it.
/// The stack of open directories is on the heap: a fiber's own stack is small and trees can be
/// deep.
pub(super) fn remove_tree(dir: Option<BorrowedFd<'_>>, root: &CStr) -> io::Result<()> {
    let mut levels = vec![Level::open(dir, root)?];
    while let Some(level) = levels.last_mut() {
        let name = match blocking(|| level.remove_files())? {
            Step::Again => continue,
            Step::Enter(name) => name,
            Step::Empty => {
                let done = levels.pop().expect("the loop looked at the last level");
                let parent = levels.last().map(|level| level.fd.as_fd()).or(dir);
                remove_at(parent, &done.name, libc::AT_REMOVEDIR)?;
                continue;
            }
        };
        match Level::open(Some(level.fd.as_fd()), &name) {
            Ok(below) => levels.push(below),
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            // No directory, whatever the record said, or one that somebody replaced by a link.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTDIR | libc::ELOOP)) => {
                remove_at(Some(level.fd.as_fd()), &name, 0)?;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn remove_at(dir: Option<BorrowedFd<'_>>, path: &CStr, flags: i32) -> io::Result<()> {
    unless_gone(submit(Op::UnlinkAt { dir, path, flags }))
}

fn unless_gone(result: io::Result<u32>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

impl Level {
    fn open(dir: Option<BorrowedFd<'_>>, name: &CStr) -> io::Result<Self> {
        let fd = open_dir(dir, name, false)?;
        Ok(Level { fd, name: name.to_owned(), records: Records::new() })
    }

    /// Removes files, some hundreds at most, with system calls that may block.
    fn remove_files(&mut self) -> io::Result<Step> {
        while let Some(entry) = self.records.next() {
            match FileType::from_dirent(entry.d_type) {
                Some(kind) if !kind.is_dir() => {
                    unless_gone(decode(unlinkat(Some(self.fd.as_fd()), entry.name, 0)))?;
                }
                _ => return Ok(Step::Enter(entry.name.to_owned())),
            }
        }
        Ok(if self.records.fill(&self.fd)? { Step::Again } else { Step::Empty })
    }
}
