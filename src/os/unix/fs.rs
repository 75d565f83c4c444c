//! Unix's own part of [`ramie::fs`](crate::fs), as [`std::os::unix::fs`].
//!
//! The extension traits are std's own, implemented for the types of this crate, so that code which
//! imports them from either place works.
#![forbid(unsafe_code)]

use std::io;
use std::path::Path;

#[doc(no_inline)]
pub use std::os::unix::fs::{
    DirBuilderExt, DirEntryExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt,
    chroot,
};

use crate::fs::{symlink_at, with_cstr};
use crate::op::decode::decode;
use crate::sched::blocking;
use crate::sys::path::mkfifo as mkfifo_at;

/// Creates a symbolic link at `link` that says `original`.
///
/// # Errors
/// [`AlreadyExists`](io::ErrorKind::AlreadyExists) if there is something at `link`, and others of
/// `symlink`. What the link points to need not exist.
///
/// # Examples
/// ```
/// let link = std::env::temp_dir().join(format!("ramie-symlink-{}", std::process::id()));
/// ramie::os::unix::fs::symlink("nowhere", &link)?;
/// assert_eq!(ramie::fs::read_link(&link)?.as_os_str(), "nowhere");
/// # ramie::fs::remove_file(&link)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn symlink<P: AsRef<Path>, Q: AsRef<Path>>(original: P, link: Q) -> io::Result<()> {
    symlink_at(original.as_ref(), None, link.as_ref())
}

/// Creates a FIFO at `path`, with `mode` less the umask. std has it only on nightly, with a
/// `Permissions` in place of the mode.
///
/// # Errors
/// [`AlreadyExists`](io::ErrorKind::AlreadyExists) if there is something at `path`, and others of
/// `mkfifo`.
///
/// # Examples
/// ```
/// use ramie::os::unix::fs::FileTypeExt;
///
/// let path = std::env::temp_dir().join(format!("ramie-mkfifo-{}", std::process::id()));
/// ramie::os::unix::fs::mkfifo(&path, 0o600)?;
/// assert!(ramie::fs::metadata(&path)?.file_type().is_fifo());
/// # ramie::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn mkfifo<P: AsRef<Path>>(path: P, mode: u32) -> io::Result<()> {
    with_cstr(path.as_ref(), |path| blocking(|| decode(mkfifo_at(path, mode)))).map(drop)
}

/// Changes the owner and the group of `dir`, following links; `None` leaves one as it is.
///
/// # Errors
/// As [`std::os::unix::fs::chown`].
pub fn chown<P: AsRef<Path>>(dir: P, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    let dir = dir.as_ref();
    blocking(|| std::os::unix::fs::chown(dir, uid, gid))
}

/// As [`chown`], of a link itself.
///
/// # Errors
/// As [`std::os::unix::fs::lchown`].
pub fn lchown<P: AsRef<Path>>(dir: P, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    let dir = dir.as_ref();
    blocking(|| std::os::unix::fs::lchown(dir, uid, gid))
}

/// As [`chown`], of an open file.
///
/// # Errors
/// As [`std::os::unix::fs::fchown`].
pub fn fchown<F: std::os::fd::AsFd>(fd: F, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
    let fd = fd.as_fd();
    blocking(|| std::os::unix::fs::fchown(fd, uid, gid))
}
