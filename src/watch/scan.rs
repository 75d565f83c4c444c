//! Watching directories, and listing them: on the blocking pool.
//!
//! Names may mean something else from one call to the next. So each directory is opened, in the one
//! that it was found in and following no link, and the open directory is what is watched and then
//! listed (`/proc/self/fd`; where that is missing, the name has to do). Who moves a directory away
//! meanwhile has it watched where it was found, which the record of the move then corrects.

use std::ffi::{CString, OsStr, OsString};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::places::{Wd, join};
use crate::fs::{FileType, Records, with_cstr};
use crate::op::Op;
use crate::sched::{blocking, perform_fd};
use crate::sys::file::what;
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

/// As [`watch`], of the directory `root/below`, on the way to which `root` alone may be a link.
pub(super) fn watch_below(fd: BorrowedFd<'_>, root: &Path, below: &Path) -> io::Result<Wd> {
    blocking(|| add_open(fd, open(root, below)?.as_fd(), root, below))
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
        let mut walk = Walk { fd, root, with_names, levels: Vec::new(), done: Vec::new() };
        let result = walk.run(top);
        (walk.done, result)
    })
}

/// How many directories that lie within each other are kept open: few, since each is a descriptor,
/// and trees that are deeper cost no more than their upper directories being opened again.
const KEPT: usize = 16;

struct Walk<'a> {
    fd: BorrowedFd<'a>,
    root: &'a Path,
    with_names: bool,
    /// Within each other.
    levels: Vec<Level>,
    done: Vec<Scanned>,
}

/// A directory that is watched and listed.
struct Level {
    dir: Dir,
    below: PathBuf,
    /// Directories in it whose turn is to come.
    left: Vec<OsString>,
}

enum Dir {
    Open(OwnedFd),
    /// Too many are. It is told by its device and number.
    Closed(Option<(u64, u64)>),
}

impl Walk<'_> {
    fn run(&mut self, top: PathBuf) -> io::Result<()> {
        match open(self.root, &top) {
            Ok(dir) => self.enter(dir, top)?,
            Err(e) if !is_root(&top) && is_gone(&e) => {}
            Err(e) => return Err(e),
        }
        while let Some(mut level) = self.levels.pop() {
            let Some(name) = level.left.pop() else { continue };
            let Some(dir) = self.reopen(level.dir, &level.below)? else { continue };
            let below = level.below.join(&name);
            let found = open_in(Some(dir.as_fd()), Path::new(&name), libc::O_NOFOLLOW);
            if !level.left.is_empty() {
                level.dir = Dir::Open(dir);
                self.levels.push(level);
            }
            match found {
                Ok(dir) => self.enter(dir, below)?,
                Err(e) if is_gone(&e) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Watches a directory, then lists it.
    fn enter(&mut self, dir: OwnedFd, below: PathBuf) -> io::Result<()> {
        let wd = match add_open(self.fd, dir.as_fd(), self.root, &below) {
            Ok(wd) => wd,
            Err(e) if !is_root(&below) && is_gone(&e) => return Ok(()),
            Err(e) => return Err(e),
        };
        let (mut names, mut left) = (Vec::new(), Vec::new());
        let listing = self.list(&dir, &mut names, &mut left);
        self.done.push(Scanned { wd, below: below.clone(), names });
        listing?;
        if let Some(far) = self.levels.len().checked_sub(KEPT)
            && let Dir::Open(dir) = &self.levels[far].dir
        {
            self.levels[far].dir = Dir::Closed(identity(dir));
        }
        self.levels.push(Level { dir: Dir::Open(dir), below, left });
        Ok(())
    }

    fn list(
        &self,
        dir: &OwnedFd,
        names: &mut Vec<OsString>,
        left: &mut Vec<OsString>,
    ) -> io::Result<()> {
        let mut records = Records::new();
        while records.fill(dir)? {
            while let Some(entry) = records.next() {
                let name = OsStr::from_bytes(entry.name.to_bytes());
                // Some file systems do not say; it is found out when it is opened.
                if FileType::from_dirent(entry.d_type).is_none_or(|kind| kind.is_dir()) {
                    left.push(name.to_owned());
                }
                if self.with_names {
                    names.push(name.to_owned());
                }
            }
        }
        Ok(())
    }

    /// `None` if another directory is there now: the record of that leads to what is left out.
    fn reopen(&self, dir: Dir, below: &Path) -> io::Result<Option<OwnedFd>> {
        let was = match dir {
            Dir::Open(dir) => return Ok(Some(dir)),
            Dir::Closed(was) => was,
        };
        match open(self.root, below) {
            Ok(dir) => Ok(Some(dir).filter(|dir| was.is_some() && identity(dir) == was)),
            Err(e) if is_gone(&e) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

fn identity(dir: &OwnedFd) -> Option<(u64, u64)> {
    what(dir.as_fd()).map(|what| what.identity)
}

fn is_root(below: &Path) -> bool {
    below.as_os_str().is_empty()
}

/// Opens the directory `root/below`, on the way to which `root` alone may be a link.
fn open(root: &Path, below: &Path) -> io::Result<OwnedFd> {
    let root = open_in(None, root, 0)?;
    below
        .iter()
        .try_fold(root, |dir, name| open_in(Some(dir.as_fd()), Path::new(name), libc::O_NOFOLLOW))
}

fn open_in(dir: Option<BorrowedFd<'_>>, path: &Path, flags: i32) -> io::Result<OwnedFd> {
    let flags = flags | libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    with_cstr(path, |path| {
        loop {
            match perform_fd(Op::OpenAt { dir, path, flags, mode: 0 }) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    })
}

/// Watches an open directory, which was found at `root/below`.
fn add_open(fd: BorrowedFd<'_>, dir: BorrowedFd<'_>, root: &Path, below: &Path) -> io::Result<Wd> {
    let link = CString::new(format!("/proc/self/fd/{}", dir.as_raw_fd()))?;
    match inotify::add_watch(fd, &link, MASK) {
        // There is no `/proc`: what is open is found there otherwise, even if it has been removed.
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let follow = if is_root(below) { 0 } else { libc::IN_DONT_FOLLOW };
            add(fd, &join(root, below), MASK | follow)
        }
        result => result.map_err(explained),
    }
}

fn is_gone(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP))
}

fn add(fd: BorrowedFd<'_>, path: &Path, mask: u32) -> io::Result<Wd> {
    with_cstr(path, |path| inotify::add_watch(fd, path, mask)).map_err(explained)
}

fn explained(e: io::Error) -> io::Error {
    match e.raw_os_error() {
        Some(libc::ENOSPC) => io::Error::new(
            e.kind(),
            "the system's limit of watches is reached: raise fs.inotify.max_user_watches",
        ),
        _ => e,
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};
    use std::fs;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn temporary(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("ramie-scan-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    /// Two directories and a link take turns in having one name. Each directory has one watch.
    #[test]
    fn what_is_listed_is_what_is_watched() {
        let base = temporary("swap");
        let at = |name: &str| base.join(name);
        for (dir, file) in [("tree/a/in-a", "file-a"), ("b/in-b", "file-b"), ("c/in-c", "file-c")] {
            fs::create_dir_all(at(dir)).unwrap();
            fs::write(at(dir).join(file), "").unwrap();
        }
        std::os::unix::fs::symlink(at("c"), at("link")).unwrap();
        let inotify = inotify::init().unwrap();
        let mut seen: HashMap<Vec<OsString>, HashSet<Wd>> = HashMap::new();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let swapping = scope.spawn(|| {
                let mut next = ["b", "link", "a"].into_iter().cycle();
                let mut last = "a";
                while !stop.load(Ordering::Relaxed) {
                    fs::rename(at("tree/a"), at(last)).unwrap();
                    last = next.next().unwrap();
                    fs::rename(at(last), at("tree/a")).unwrap();
                }
            });
            let tree = at("tree");
            let all = (0..1000).map(|_| watch_tree(inotify.as_fd(), &tree, PathBuf::new(), true).0);
            // The one that is watched all the time has the name or has it not.
            for Scanned { wd, names, .. } in all.flatten().filter(|found| !is_root(&found.below)) {
                seen.entry(names).or_default().insert(wd);
            }
            stop.store(true, Ordering::Relaxed);
            swapping.join().unwrap();
        });
        for link in ["in-c", "file-c"] {
            assert!(!seen.contains_key(&vec![OsString::from(link)]), "a link was followed");
        }
        assert!(seen.values().all(|wds| wds.len() == 1), "{seen:?}");
        let all: HashSet<_> = seen.values().flatten().collect();
        assert_eq!(all.len(), seen.len(), "{seen:?}");
        fs::remove_dir_all(&base).unwrap();
    }

    /// More directories within each other than are kept open, each with another one beside it.
    #[test]
    fn deep_trees() {
        let base = temporary("deep");
        let mut dir = base.clone();
        for _ in 0..KEPT * 2 {
            fs::create_dir(dir.join("0")).unwrap();
            fs::create_dir(dir.join("2")).unwrap();
            dir.push("1");
            fs::create_dir(&dir).unwrap();
        }
        let inotify = inotify::init().unwrap();
        let (all, result) = watch_tree(inotify.as_fd(), &base, PathBuf::new(), false);
        result.unwrap();
        assert_eq!(all.len(), 1 + 3 * 2 * KEPT);
        let below = PathBuf::from_iter(["1"; KEPT]);
        let (all, result) = watch_tree(inotify.as_fd(), &base, below.clone(), true);
        result.unwrap();
        assert_eq!(all.len(), 1 + 3 * KEPT);
        assert!(all.iter().all(|found| found.below.starts_with(&below)));
        // What is gone is left out, but for the root.
        let (all, result) = watch_tree(inotify.as_fd(), &base, "1/3".into(), true);
        assert!(all.is_empty() && result.is_ok());
        let (all, result) = watch_tree(inotify.as_fd(), &base.join("3"), PathBuf::new(), true);
        assert!(all.is_empty() && result.is_err());
        fs::remove_dir_all(&base).unwrap();
    }
}
