//! [`Dir`]: an open directory, and what is done relative to it.

use std::fmt;
use std::fs::Permissions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::cstr::with_cstr;
use super::dir::{ReadDir, open_dir, read_dir_at};
use super::metadata::{self, Metadata, statx};
use super::names::{hard_link_at, rename_at, symlink_at, unlink_at};
use super::tree::remove_tree;
use super::{File, OpenOptions, retry};
use crate::op::{Op, decode::decode};
use crate::sched::{Detach, blocking, submit};
use crate::sys::path;

/// An open directory. Not yet stable in std.
///
/// The names given to its methods are looked up in the directory that was opened, whatever has
/// become of its path since: nobody who renames a directory, or puts a link in its place, can lead
/// a sequence of such operations elsewhere. The directory lives for as long as it is open, even
/// when it has been removed.
///
/// This is no jail. A name may have several parts, among them `..` and symbolic links, and an
/// absolute path goes its own way.
///
/// # Examples
/// ```
/// use ramie::fs::{self, Dir};
/// use std::io::Write;
///
/// # let path = std::env::temp_dir().join(format!("ramie-dir-{}", std::process::id()));
/// # let elsewhere = std::env::temp_dir().join(format!("ramie-dir-{}-b", std::process::id()));
/// fs::create_dir(&path)?;
/// let dir = Dir::open(&path)?;
/// fs::rename(&path, &elsewhere)?; // it stays open
/// dir.create_file("draft")?.write_all(b"text")?;
/// dir.rename("draft", &dir, "final")?;
/// assert_eq!(fs::read_to_string(elsewhere.join("final"))?, "text");
/// assert_eq!(dir.entries()?.count(), 1);
/// # fs::remove_dir_all(&elsewhere)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Dir {
    fd: Detach<OwnedFd>,
}

impl Dir {
    /// Opens the directory at `path`, following symbolic links.
    ///
    /// # Errors
    /// [`NotADirectory`](io::ErrorKind::NotADirectory), and those of [`OpenOptions::open`].
    pub fn open<P: AsRef<Path>>(path: P) -> io::Result<Dir> {
        with_cstr(path.as_ref(), |path| open_dir(None, path, true)).map(Dir::from)
    }

    /// Opens a directory in this one.
    ///
    /// # Errors
    /// As [`open`](Dir::open).
    pub fn open_dir<P: AsRef<Path>>(&self, path: P) -> io::Result<Dir> {
        with_cstr(path.as_ref(), |path| open_dir(self.at(), path, true)).map(Dir::from)
    }

    /// As [`open_dir`](Dir::open_dir), and fails if the last part of `path` is a symbolic link: for
    /// walks that must not leave a tree.
    ///
    /// # Errors
    /// As [`open`](Dir::open).
    pub fn open_dir_nofollow<P: AsRef<Path>>(&self, path: P) -> io::Result<Dir> {
        with_cstr(path.as_ref(), |path| open_dir(self.at(), path, false)).map(Dir::from)
    }

    /// Opens a file in this directory in read-only mode.
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    pub fn open_file<P: AsRef<Path>>(&self, path: P) -> io::Result<File> {
        self.open_file_with(path, OpenOptions::new().read(true))
    }

    /// Opens a file in this directory in write-only mode: creates it if it does not exist,
    /// truncates it if it does.
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    pub fn create_file<P: AsRef<Path>>(&self, path: P) -> io::Result<File> {
        self.open_file_with(path, OpenOptions::new().write(true).create(true).truncate(true))
    }

    /// Opens a file in this directory.
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    pub fn open_file_with<P: AsRef<Path>>(
        &self,
        path: P,
        options: &OpenOptions,
    ) -> io::Result<File> {
        options.open_at(self.at(), path.as_ref())
    }

    /// Creates a new, empty directory in this one.
    ///
    /// # Errors
    /// As [`create_dir`](super::create_dir).
    pub fn create_dir<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        let (dir, mode) = (self.at(), 0o777);
        with_cstr(path.as_ref(), |path| submit(Op::MkdirAt { dir, path, mode }).map(drop))
    }

    /// Removes a file, or a symbolic link, from this directory.
    ///
    /// # Errors
    /// As [`remove_file`](super::remove_file).
    pub fn remove_file<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        unlink_at(self.at(), path.as_ref(), 0)
    }

    /// Removes an empty directory from this one.
    ///
    /// # Errors
    /// As [`remove_dir`](super::remove_dir).
    pub fn remove_dir<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        unlink_at(self.at(), path.as_ref(), libc::AT_REMOVEDIR)
    }

    /// Removes a directory from this one after removing all its contents; a symbolic link is
    /// removed itself.
    ///
    /// # Errors
    /// As [`remove_dir_all`](super::remove_dir_all).
    ///
    /// # Cancellation
    /// As [`remove_dir_all`](super::remove_dir_all).
    pub fn remove_dir_all<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        let path = path.as_ref();
        if self.symlink_metadata(path)?.is_symlink() {
            return self.remove_file(path);
        }
        with_cstr(path, |path| remove_tree(self.at(), path))
    }

    /// Renames what `from` names in this directory to `to` in `to_dir`, in one step, replacing what
    /// is there.
    ///
    /// # Errors
    /// As [`rename`](super::rename()).
    pub fn rename<P: AsRef<Path>, Q: AsRef<Path>>(
        &self,
        from: P,
        to_dir: &Dir,
        to: Q,
    ) -> io::Result<()> {
        rename_at(self.at(), from.as_ref(), to_dir.at(), to.as_ref())
    }

    /// Gives the file `original` of this directory a second name, `link` in `link_dir`. Links are
    /// not followed.
    ///
    /// # Errors
    /// As [`hard_link`](super::hard_link).
    pub fn hard_link<P: AsRef<Path>, Q: AsRef<Path>>(
        &self,
        original: P,
        link_dir: &Dir,
        link: Q,
    ) -> io::Result<()> {
        hard_link_at(self.at(), original.as_ref(), link_dir.at(), link.as_ref())
    }

    /// Creates a symbolic link in this directory that says `original`.
    ///
    /// # Errors
    /// As [`symlink`](crate::os::unix::fs::symlink).
    pub fn symlink<P: AsRef<Path>, Q: AsRef<Path>>(&self, original: P, link: Q) -> io::Result<()> {
        symlink_at(original.as_ref(), self.at(), link.as_ref())
    }

    /// What a symbolic link in this directory says.
    ///
    /// # Errors
    /// As [`read_link`](super::read_link).
    pub fn read_link<P: AsRef<Path>>(&self, link: P) -> io::Result<PathBuf> {
        with_cstr(link.as_ref(), |link| blocking(|| path::readlinkat(self.at(), link)))
    }

    /// The metadata of what `path` leads to, following symbolic links.
    ///
    /// # Errors
    /// As [`metadata`](super::metadata()).
    pub fn metadata<P: AsRef<Path>>(&self, path: P) -> io::Result<Metadata> {
        with_cstr(path.as_ref(), |path| statx(self.at(), path, 0))
    }

    /// As [`metadata`](Dir::metadata), of a symbolic link itself.
    ///
    /// # Errors
    /// As [`metadata`](super::metadata()).
    pub fn symlink_metadata<P: AsRef<Path>>(&self, path: P) -> io::Result<Metadata> {
        with_cstr(path.as_ref(), |path| statx(self.at(), path, libc::AT_SYMLINK_NOFOLLOW))
    }

    /// The metadata of this directory itself.
    ///
    /// # Errors
    /// What `statx` reports; rare for a directory that is open.
    pub fn dir_metadata(&self) -> io::Result<Metadata> {
        metadata::of_fd(self.as_fd())
    }

    /// Whether `path` leads to something, following symbolic links.
    ///
    /// # Errors
    /// As [`exists`](super::exists).
    pub fn exists<P: AsRef<Path>>(&self, path: P) -> io::Result<bool> {
        match self.metadata(path) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Changes the permissions of what `path` leads to, following symbolic links.
    ///
    /// # Errors
    /// As [`set_permissions`](super::set_permissions).
    pub fn set_permissions<P: AsRef<Path>>(&self, path: P, perm: Permissions) -> io::Result<()> {
        let mode = perm.mode();
        with_cstr(path.as_ref(), |path| {
            blocking(|| retry(|| decode(path::fchmodat(self.at(), path, mode)))).map(drop)
        })
    }

    /// Returns an iterator over the entries of a directory in this one, as
    /// [`read_dir`](super::read_dir) does; their paths begin with `path`.
    ///
    /// # Errors
    /// As [`read_dir`](super::read_dir).
    pub fn read_dir<P: AsRef<Path>>(&self, path: P) -> io::Result<ReadDir> {
        let path = path.as_ref();
        read_dir_at(self.at(), path, path.to_path_buf())
    }

    /// Returns an iterator over the entries of this directory; their paths are their names.
    ///
    /// # Errors
    /// As [`read_dir`](super::read_dir).
    pub fn entries(&self) -> io::Result<ReadDir> {
        read_dir_at(self.at(), Path::new("."), PathBuf::new())
    }

    /// Brings the directory's entries to the disk, so that files that were created, renamed and
    /// removed in it stay so after a crash.
    ///
    /// # Errors
    /// As [`File::sync_all`].
    pub fn sync_all(&self) -> io::Result<()> {
        retry(|| submit(Op::Fsync { fd: self.ring_fd(), data_only: false })).map(drop)
    }

    /// A second handle to the same open directory.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn try_clone(&self) -> io::Result<Dir> {
        self.fd.try_clone().map(Dir::from) // duplicating a descriptor never waits
    }

    /// What names are relative to.
    fn at(&self) -> Option<BorrowedFd<'_>> {
        Some(self.ring_fd())
    }

    fn ring_fd(&self) -> BorrowedFd<'_> {
        self.fd.habit().set_ringed();
        self.as_fd()
    }
}

impl fmt::Debug for Dir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dir").field("fd", &self.as_raw_fd()).finish_non_exhaustive()
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Dir {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl IntoRawFd for Dir {
    fn into_raw_fd(self) -> RawFd {
        self.fd.into_inner().into_raw_fd()
    }
}

impl From<OwnedFd> for Dir {
    /// The descriptor should be that of a directory; if it is not, operations fail.
    fn from(fd: OwnedFd) -> Self {
        Dir { fd: Detach::new(fd) }
    }
}

impl From<Dir> for OwnedFd {
    fn from(dir: Dir) -> Self {
        dir.fd.into_inner()
    }
}
