//! Functions that act on a name: what it means, and what it shall mean.

use std::fs::Permissions;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use super::cstr::with_cstr;
use super::metadata::{Metadata, statx};
use crate::op::Op;
use crate::sched::{blocking, submit};

/// Queries the metadata of what `path` leads to, following symbolic links.
///
/// # Errors
/// [`NotFound`](io::ErrorKind::NotFound), [`PermissionDenied`](io::ErrorKind::PermissionDenied) for
/// a directory on the way, and others of `stat`.
///
/// # Examples
/// ```
/// assert!(ramie::fs::metadata("src")?.is_dir());
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn metadata<P: AsRef<Path>>(path: P) -> io::Result<Metadata> {
    with_cstr(path.as_ref(), |path| statx(None, path, 0))
}

/// As [`metadata`], of a symbolic link itself.
///
/// # Errors
/// As [`metadata`].
pub fn symlink_metadata<P: AsRef<Path>>(path: P) -> io::Result<Metadata> {
    with_cstr(path.as_ref(), |path| statx(None, path, libc::AT_SYMLINK_NOFOLLOW))
}

/// Whether `path` leads to something, following symbolic links.
///
/// # Errors
/// When that could not be found out; a broken link and a missing file are `Ok(false)`.
///
/// # Examples
/// ```
/// assert!(ramie::fs::exists("Cargo.toml")?);
/// assert!(!ramie::fs::exists("no such file")?);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn exists<P: AsRef<Path>>(path: P) -> io::Result<bool> {
    match metadata(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// Removes a file, or a symbolic link, from its directory. Who has it open keeps it.
///
/// # Errors
/// [`NotFound`](io::ErrorKind::NotFound), [`IsADirectory`](io::ErrorKind::IsADirectory),
/// [`PermissionDenied`](io::ErrorKind::PermissionDenied) and others of `unlink`.
///
/// # Examples
/// ```
/// let path = std::env::temp_dir().join(format!("ramie-remove-{}", std::process::id()));
/// ramie::fs::write(&path, "x")?;
/// ramie::fs::remove_file(&path)?;
/// assert!(!ramie::fs::exists(&path)?);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn remove_file<P: AsRef<Path>>(path: P) -> io::Result<()> {
    unlink_at(None, path.as_ref(), 0)
}

/// Removes an empty directory.
///
/// # Errors
/// [`DirectoryNotEmpty`](io::ErrorKind::DirectoryNotEmpty),
/// [`NotADirectory`](io::ErrorKind::NotADirectory), [`NotFound`](io::ErrorKind::NotFound) and
/// others of `rmdir`.
pub fn remove_dir<P: AsRef<Path>>(path: P) -> io::Result<()> {
    unlink_at(None, path.as_ref(), libc::AT_REMOVEDIR)
}

/// What both of these are, relative to a directory.
pub(super) fn unlink_at(dir: Option<BorrowedFd<'_>>, path: &Path, flags: i32) -> io::Result<()> {
    with_cstr(path, |path| submit(Op::UnlinkAt { dir, path, flags }).map(drop))
}

/// Renames a file or directory, in one step, replacing what `to` names.
///
/// # Errors
/// [`NotFound`](io::ErrorKind::NotFound),
/// [`CrossesDevices`](io::ErrorKind::CrossesDevices) and others of `rename`.
///
/// # Examples
/// ```
/// # let from = std::env::temp_dir().join(format!("ramie-rename-a-{}", std::process::id()));
/// # let to = std::env::temp_dir().join(format!("ramie-rename-b-{}", std::process::id()));
/// ramie::fs::write(&from, "x")?;
/// ramie::fs::rename(&from, &to)?;
/// assert_eq!(ramie::fs::read(&to)?, b"x");
/// # ramie::fs::remove_file(&to)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn rename<P: AsRef<Path>, Q: AsRef<Path>>(from: P, to: Q) -> io::Result<()> {
    rename_at(None, from.as_ref(), None, to.as_ref())
}

/// As [`rename`], each name relative to a directory.
pub(super) fn rename_at(
    old_dir: Option<BorrowedFd<'_>>,
    old: &Path,
    new_dir: Option<BorrowedFd<'_>>,
    new: &Path,
) -> io::Result<()> {
    with_cstr(old, |old| {
        with_cstr(new, |new| {
            submit(Op::RenameAt { old_dir, old, new_dir, new, flags: 0 }).map(drop)
        })
    })
}

/// Gives the file at `original` a second name, `link`. Links are not followed.
///
/// # Errors
/// [`AlreadyExists`](io::ErrorKind::AlreadyExists),
/// [`CrossesDevices`](io::ErrorKind::CrossesDevices) and others of `link`.
pub fn hard_link<P: AsRef<Path>, Q: AsRef<Path>>(original: P, link: Q) -> io::Result<()> {
    hard_link_at(None, original.as_ref(), None, link.as_ref())
}

/// As [`hard_link`], each name relative to a directory.
pub(super) fn hard_link_at(
    old_dir: Option<BorrowedFd<'_>>,
    old: &Path,
    new_dir: Option<BorrowedFd<'_>>,
    new: &Path,
) -> io::Result<()> {
    with_cstr(old, |old| {
        with_cstr(new, |new| submit(Op::LinkAt { old_dir, old, new_dir, new, flags: 0 }).map(drop))
    })
}

/// Creates a symbolic link, as [`symlink`](crate::os::unix::fs::symlink) does.
///
/// # Errors
/// As [`symlink`](crate::os::unix::fs::symlink).
#[deprecated(note = "replaced with ramie::os::unix::fs::symlink")]
pub fn soft_link<P: AsRef<Path>, Q: AsRef<Path>>(original: P, link: Q) -> io::Result<()> {
    symlink_at(original.as_ref(), None, link.as_ref())
}

/// See [`crate::os::unix::fs::symlink`]; `link` is relative to a directory.
pub(crate) fn symlink_at(
    original: &Path,
    dir: Option<BorrowedFd<'_>>,
    link: &Path,
) -> io::Result<()> {
    with_cstr(original, |target| {
        with_cstr(link, |path| submit(Op::SymlinkAt { target, dir, path }).map(drop))
    })
}

/// What a symbolic link says.
///
/// # Errors
/// [`InvalidInput`](io::ErrorKind::InvalidInput) if `path` is no link, and others of `readlink`.
pub fn read_link<P: AsRef<Path>>(path: P) -> io::Result<PathBuf> {
    let path = path.as_ref();
    blocking(|| std::fs::read_link(path))
}

/// The absolute path of `path`, free of symbolic links and of `.` and `..`.
///
/// # Errors
/// [`NotFound`](io::ErrorKind::NotFound), [`NotADirectory`](io::ErrorKind::NotADirectory) and
/// others of `realpath`.
///
/// # Examples
/// ```
/// assert_eq!(ramie::fs::canonicalize("./src/..")?, std::env::current_dir()?.canonicalize()?);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn canonicalize<P: AsRef<Path>>(path: P) -> io::Result<PathBuf> {
    let path = path.as_ref();
    blocking(|| std::fs::canonicalize(path))
}

/// Changes the permissions of what `path` leads to, following symbolic links.
///
/// # Errors
/// [`NotFound`](io::ErrorKind::NotFound), [`PermissionDenied`](io::ErrorKind::PermissionDenied) and
/// others of `chmod`.
pub fn set_permissions<P: AsRef<Path>>(path: P, perm: Permissions) -> io::Result<()> {
    let path = path.as_ref();
    blocking(|| std::fs::set_permissions(path, perm))
}
