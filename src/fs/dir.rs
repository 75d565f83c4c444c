//! [`read_dir`]: a directory's entries, fetched by the hundred.
//!
//! `getdents64` has no ring operation, so it runs on the blocking pool. One trip there fills a
//! buffer of [`CHUNK`] bytes, which is some 900 entries with short names, and sees the end of a
//! directory that has fewer; the iterator then yields them without any call.

use std::ffi::{CStr, OsStr, OsString};
use std::fmt;
use std::io;
use std::iter::FusedIterator;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::DirEntryExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::cstr::with_cstr;
use super::metadata::{FileType, Metadata, statx};
use super::retry;
use crate::op::{Op, decode::decode};
use crate::sched::{Detach, blocking, submit_fd};
use crate::sys::path::getdents64;

const CHUNK: usize = 32 * 1024;
/// More than the longest record has.
const RECORD_MAX: usize = 512;

/// Where a record of `getdents64` has what.
const RECORD_LEN: usize = 16;
const D_TYPE: usize = 18;
const NAME: usize = 19;

/// Directory records as the kernel writes them, and how far they have been taken.
pub(crate) struct Records {
    buf: Vec<u8>,
    at: usize,
    end: usize,
}

/// One record: an entry's inode number, type and name.
pub(crate) struct Record<'a> {
    pub(crate) ino: u64,
    pub(crate) d_type: u8,
    pub(crate) name: &'a CStr,
}

impl Records {
    pub(crate) fn new() -> Self {
        Records { buf: Vec::new(), at: 0, end: 0 }
    }

    /// Fetches the next records with a system call that may block; `false` at the end.
    pub(crate) fn fill(&mut self, dir: &OwnedFd) -> io::Result<bool> {
        self.buf.resize(CHUNK, 0);
        (self.at, self.end) = (0, 0);
        match retry(|| decode(getdents64(dir.as_fd(), &mut self.buf))) {
            Ok(n) => self.end = n as usize,
            // The directory has been removed: it has no entries any more.
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => {}
            Err(e) => return Err(e),
        }
        Ok(self.end > 0)
    }

    /// As `fill`, and then fetches more as long as there is room; `false` if the end was seen.
    fn fill_up(&mut self, dir: &OwnedFd) -> io::Result<bool> {
        let mut more = self.fill(dir)?;
        while more && self.buf.len() - self.end >= RECORD_MAX {
            match getdents64(dir.as_fd(), &mut self.buf[self.end..]) {
                n if n < 0 => break, // the next call meets the error again
                n => {
                    self.end += n.unsigned_abs() as usize;
                    more = n > 0;
                }
            }
        }
        Ok(more)
    }

    /// The next record that is neither `.` nor `..`; `None` when new ones must be fetched.
    pub(crate) fn next(&mut self) -> Option<Record<'_>> {
        loop {
            let record = &self.buf[self.at..self.end];
            let len = usize::from(u16::from_ne_bytes(array(record, RECORD_LEN)?));
            let (ino, start) = (u64::from_ne_bytes(array(record, 0)?), self.at);
            self.at = if len <= NAME { self.end } else { (self.at + len).min(self.end) };
            let name = self.buf[start..self.at].get(NAME..)?;
            if !matches!(name, [b'.', 0, ..] | [b'.', b'.', 0, ..]) {
                let record = &self.buf[start..self.at];
                let name = CStr::from_bytes_until_nul(&record[NAME..]).ok()?;
                return Some(Record { ino, d_type: record[D_TYPE], name });
            }
        }
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// Opens a directory for its records. `dir` and `follow` say where to look and whether the last
/// part may be a symbolic link.
pub(super) fn open_dir(
    dir: Option<BorrowedFd<'_>>,
    path: &CStr,
    follow: bool,
) -> io::Result<OwnedFd> {
    let follow = if follow { 0 } else { libc::O_NOFOLLOW };
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC | follow;
    retry(|| submit_fd(Op::OpenAt { dir, path, flags, mode: 0 }))
}

/// Returns an iterator over the entries of a directory, in no particular order and without `.` and
/// `..`.
///
/// # Errors
/// [`NotFound`](io::ErrorKind::NotFound), [`NotADirectory`](io::ErrorKind::NotADirectory) and
/// others of opening. Each step of the iterator may fail too, which ends it.
///
/// # Examples
/// ```
/// let mut names = Vec::new();
/// for entry in ramie::fs::read_dir(".")? {
///     names.push(entry?.file_name());
/// }
/// assert!(names.iter().any(|name| name == "Cargo.toml"));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn read_dir<P: AsRef<Path>>(path: P) -> io::Result<ReadDir> {
    read_dir_at(None, path.as_ref(), path.as_ref().to_path_buf())
}

/// As [`read_dir`], of `path` relative to a directory; the entries' paths begin with `root`.
pub(super) fn read_dir_at(
    dir: Option<BorrowedFd<'_>>,
    path: &Path,
    root: PathBuf,
) -> io::Result<ReadDir> {
    let fd = Detach::new(with_cstr(path, |path| open_dir(dir, path, true))?);
    Ok(ReadDir { dir: Arc::new(Listed { root, fd }), records: Records::new(), ended: false })
}

/// The directory that an iterator reads and its entries come from.
struct Listed {
    root: PathBuf,
    fd: Detach<OwnedFd>,
}

/// Iterator over the entries in a directory; see [`read_dir`].
pub struct ReadDir {
    dir: Arc<Listed>,
    records: Records,
    ended: bool,
}

impl Iterator for ReadDir {
    type Item = io::Result<DirEntry>;

    fn next(&mut self) -> Option<io::Result<DirEntry>> {
        loop {
            if let Some(Record { ino, d_type, name }) = self.records.next() {
                let name = OsString::from_vec(name.to_bytes().to_vec());
                return Some(Ok(DirEntry { dir: self.dir.clone(), name, ino, d_type }));
            }
            if self.ended {
                return None;
            }
            let (records, fd) = (&mut self.records, &*self.dir.fd);
            match blocking(|| records.fill_up(fd)) {
                Ok(more) => self.ended = !more,
                Err(e) => {
                    self.ended = true;
                    return Some(Err(e));
                }
            }
        }
    }
}

impl FusedIterator for ReadDir {}

impl fmt::Debug for ReadDir {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReadDir").field(&self.dir.root).finish()
    }
}

/// An entry of a directory, as [`ReadDir`] yields it.
///
/// The inode number is reached through [`std::os::unix::fs::DirEntryExt`]. An entry keeps the
/// directory open.
pub struct DirEntry {
    dir: Arc<Listed>,
    name: OsString,
    ino: u64,
    d_type: u8,
}

impl DirEntry {
    /// The full path: what was given to [`read_dir`], joined with the file name.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.dir.root.join(&self.name)
    }

    /// The file name without any directory.
    #[must_use]
    pub fn file_name(&self) -> OsString {
        self.name.clone()
    }

    /// The metadata of the entry; links are not followed.
    ///
    /// # Errors
    /// As [`symlink_metadata`](super::symlink_metadata), in the directory that was opened, whatever
    /// has become of its path.
    pub fn metadata(&self) -> io::Result<Metadata> {
        let dir = Some(self.dir.fd.as_fd());
        with_cstr(self.name(), |name| statx(dir, name, libc::AT_SYMLINK_NOFOLLOW))
    }

    /// The type of the entry; links are not followed. Most file systems say it with the name, so
    /// that this makes no call.
    ///
    /// # Errors
    /// As [`metadata`](DirEntry::metadata) where the file system does not say it.
    pub fn file_type(&self) -> io::Result<FileType> {
        match FileType::from_dirent(self.d_type) {
            Some(kind) => Ok(kind),
            None => self.metadata().map(|m| m.file_type()),
        }
    }

    fn name(&self) -> &Path {
        Path::new(OsStr::from_bytes(self.name.as_bytes()))
    }
}

impl DirEntryExt for DirEntry {
    fn ino(&self) -> u64 {
        self.ino
    }
}

impl fmt::Debug for DirEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DirEntry").field(&self.path()).finish()
    }
}
