//! Watching directories, and listing them: on the blocking pool.

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use super::places::{Wd, join};
use crate::fs::with_cstr;
use crate::sched::blocking;
use crate::sys::inotify;

/// What is asked of every directory. It is the same for all, since one directory may be watched for
/// several reasons. `IN_EXCL_UNLINK`: what is done to a file that has been removed is nobody's
/// concern, least of all that of a new file of the same name.
const MASK: u32 = libc::IN_CREATE
    | libc::IN_DELETE
    | libc::IN_MODIFY
    | libc::IN_CLOSE_WRITE
    | libc::IN_MOVED_FROM
    | libc::IN_MOVED_TO
    | libc::IN_DELETE_SELF
    | libc::IN_MOVE_SELF
    | libc::IN_ONLYDIR
    | libc::IN_EXCL_UNLINK;

/// A directory that is watched now.
pub(super) struct Scanned {
    pub(super) wd: Wd,
    /// Where it is, below the root.
    pub(super) below: PathBuf,
    /// What was in it; only if that was asked for.
    pub(super) names: Vec<OsString>,
}

/// Watches one directory, which may be reached by a symbolic link.
pub(super) fn watch(fd: BorrowedFd<'_>, path: &Path) -> io::Result<Wd> {
    blocking(|| add(fd, path, MASK))
}

/// As [`watch`], of a directory that must be one itself.
pub(super) fn watch_itself(fd: BorrowedFd<'_>, path: &Path) -> io::Result<Wd> {
    blocking(|| add(fd, path, MASK | libc::IN_DONT_FOLLOW))
}

/// Ends watches.
pub(super) fn unwatch(fd: BorrowedFd<'_>, wds: &[Wd]) {
    if !wds.is_empty() {
        blocking(|| wds.iter().for_each(|wd| inotify::remove_watch(fd, *wd)));
    }
}

/// Watches `root/top` and all directories below it, each before it is listed. What is gone when its
/// turn comes is left out, except for the root. After an error, the rest is left out, and the first
/// error returned beside what is watched.
pub(super) fn watch_tree(
    fd: BorrowedFd<'_>,
    root: &Path,
    top: PathBuf,
    with_names: bool,
) -> (Vec<Scanned>, io::Result<()>) {
    blocking(|| {
        let (mut done, mut left) = (Vec::new(), vec![top]);
        while let Some(below) = left.pop() {
            if let Err(e) = watch_and_list(fd, root, below, with_names, &mut done, &mut left) {
                return (done, Err(e));
            }
        }
        (done, Ok(()))
    })
}

fn watch_and_list(
    fd: BorrowedFd<'_>,
    root: &Path,
    below: PathBuf,
    with_names: bool,
    done: &mut Vec<Scanned>,
    left: &mut Vec<PathBuf>,
) -> io::Result<()> {
    let path = join(root, &below);
    let is_root = below.as_os_str().is_empty();
    let follow = if is_root { 0 } else { libc::IN_DONT_FOLLOW };
    let wd = match add(fd, &path, MASK | follow) {
        Ok(wd) => wd,
        Err(e) if !is_root && is_gone(&e) => return Ok(()),
        Err(e) => return Err(e),
    };
    let mut names = Vec::new();
    let listing = (|| {
        for entry in std::fs::read_dir(&path)? {
            let entry = entry?;
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => left.push(below.join(entry.file_name())),
                Err(e) if !is_gone(&e) => return Err(e),
                _ => {}
            }
            if with_names {
                names.push(entry.file_name());
            }
        }
        Ok(())
    })();
    done.push(Scanned { wd, below, names });
    match listing {
        Err(e) if !is_gone(&e) => Err(e),
        _ => Ok(()),
    }
}

fn is_gone(e: &io::Error) -> bool {
    matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

fn add(fd: BorrowedFd<'_>, path: &Path, mask: u32) -> io::Result<Wd> {
    with_cstr(path, |path| inotify::add_watch(fd, path, mask)).map_err(|e| match e.raw_os_error() {
        Some(libc::ENOSPC) => io::Error::new(
            e.kind(),
            "the system's limit of watches is reached: raise fs.inotify.max_user_watches",
        ),
        _ => e,
    })
}
