//! System calls on names: what a directory holds and what a path means.
//!
//! As in `file.rs`, each function is one call and returns `>= 0` or `-errno`.

use std::ffi::{CStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::file::{answer, dir_fd, what};

/// `statx`.
pub(crate) fn statx(
    dir: Option<BorrowedFd<'_>>,
    path: &CStr,
    flags: i32,
    mask: u32,
    out: &mut libc::statx,
) -> i32 {
    // SAFETY: the path and `out` live for the whole call, and any bit pattern is a `libc::statx`.
    answer(unsafe { libc::statx(dir_fd(dir), path.as_ptr(), flags, mask, out) } as isize)
}

/// Creates a file that nothing has the name of, on a path without symbolic links.
pub(crate) fn create_new(path: &CStr, flags: i32, mode: u32) -> i32 {
    let flags = flags | libc::O_CREAT | libc::O_EXCL | libc::O_LARGEFILE;
    openat2(path, flags, mode, libc::RESOLVE_NO_SYMLINKS)
}

/// The device that a directory is on, as in `file::What::identity`; `None` if to tell might take
/// its time, or there is a symbolic link on the way.
pub(crate) fn device(dir: &CStr) -> Option<u64> {
    let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
    let fd = openat2(dir, flags, 0, libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_CACHED);
    // SAFETY: the descriptor is new, and nobody else's.
    let fd = (fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) })?;
    what(fd.as_fd()).map(|what| what.identity.0)
}

/// `openat2`.
fn openat2(path: &CStr, flags: i32, mode: u32, resolve: u64) -> i32 {
    // SAFETY: the record consists of integers, for which zero is a value.
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = u64::from(flags as u32);
    how.mode = u64::from(mode);
    how.resolve = resolve;
    // SAFETY: the path and the record live for the whole call, and the size is the record's.
    answer(unsafe {
        libc::syscall(
            libc::SYS_openat2,
            libc::AT_FDCWD,
            path.as_ptr(),
            &raw const how,
            size_of_val(&how),
        )
    } as isize)
}

/// A `statx` record with nothing in it, to be filled.
pub(crate) fn empty_statx() -> libc::statx {
    // SAFETY: the record consists of integers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

/// A record of `stat` with nothing in it, to be filled.
#[cfg(raw_stat)]
#[allow(deprecated, reason = "a method that std has still needs it")]
pub(crate) fn empty_raw_stat() -> std::os::linux::raw::stat {
    // SAFETY: the record consists of integers, for which zero is a value.
    unsafe { std::mem::zeroed() }
}

/// `unlinkat`.
pub(crate) fn unlinkat(dir: Option<BorrowedFd<'_>>, path: &CStr, flags: i32) -> i32 {
    // SAFETY: the path lives for the whole call.
    answer(unsafe { libc::unlinkat(dir_fd(dir), path.as_ptr(), flags) } as isize)
}

/// `mkdirat`.
pub(crate) fn mkdirat(dir: Option<BorrowedFd<'_>>, path: &CStr, mode: u32) -> i32 {
    // SAFETY: the path lives for the whole call.
    answer(unsafe { libc::mkdirat(dir_fd(dir), path.as_ptr(), mode as libc::mode_t) } as isize)
}

/// `renameat2`, as a raw call because not every C library has the function.
pub(crate) fn renameat(
    old_dir: Option<BorrowedFd<'_>>,
    old: &CStr,
    new_dir: Option<BorrowedFd<'_>>,
    new: &CStr,
    flags: u32,
) -> i32 {
    let (old_dir, new_dir) = (dir_fd(old_dir), dir_fd(new_dir));
    // SAFETY: both paths live for the whole call, and the arguments are those of renameat2.
    answer(unsafe {
        libc::syscall(libc::SYS_renameat2, old_dir, old.as_ptr(), new_dir, new.as_ptr(), flags)
    } as isize)
}

/// `linkat`.
pub(crate) fn linkat(
    old_dir: Option<BorrowedFd<'_>>,
    old: &CStr,
    new_dir: Option<BorrowedFd<'_>>,
    new: &CStr,
    flags: i32,
) -> i32 {
    let (old_dir, new_dir) = (dir_fd(old_dir), dir_fd(new_dir));
    // SAFETY: both paths live for the whole call.
    answer(unsafe { libc::linkat(old_dir, old.as_ptr(), new_dir, new.as_ptr(), flags) } as isize)
}

/// `mkfifo`.
pub(crate) fn mkfifo(path: &CStr, mode: u32) -> i32 {
    // SAFETY: the string lives for the whole call.
    answer(unsafe { libc::mkfifo(path.as_ptr(), mode as libc::mode_t) } as isize)
}

/// `symlinkat`.
pub(crate) fn symlinkat(target: &CStr, dir: Option<BorrowedFd<'_>>, path: &CStr) -> i32 {
    // SAFETY: both strings live for the whole call.
    answer(unsafe { libc::symlinkat(target.as_ptr(), dir_fd(dir), path.as_ptr()) } as isize)
}

/// What a symbolic link says: `readlinkat`, with as much room as it needs.
pub(crate) fn readlinkat(dir: Option<BorrowedFd<'_>>, path: &CStr) -> io::Result<PathBuf> {
    let mut target = Vec::with_capacity(256);
    loop {
        let room = target.spare_capacity_mut();
        let (ptr, len) = (room.as_mut_ptr().cast(), room.len());
        // SAFETY: the path lives for the whole call, and the memory is ours to write.
        let n = unsafe { libc::readlinkat(dir_fd(dir), path.as_ptr(), ptr, len) };
        let n = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
        if n < len {
            // SAFETY: the kernel has written so many bytes.
            unsafe { target.set_len(n) };
            target.shrink_to_fit();
            return Ok(OsString::from_vec(target).into());
        }
        // There may be more.
        target.reserve(2 * len);
    }
}

/// `fchmodat`, following symbolic links.
pub(crate) fn fchmodat(dir: Option<BorrowedFd<'_>>, path: &CStr, mode: u32) -> i32 {
    // SAFETY: the path lives for the whole call.
    answer(unsafe { libc::fchmodat(dir_fd(dir), path.as_ptr(), mode as libc::mode_t, 0) } as isize)
}

/// `getdents64`: fills `buf` with directory records and returns their total length, 0 at the end.
pub(crate) fn getdents64(dir: BorrowedFd<'_>, buf: &mut [u8]) -> i32 {
    // SAFETY: `buf` is ours to write for the whole call, and the arguments are those of getdents64.
    answer(unsafe {
        libc::syscall(libc::SYS_getdents64, dir.as_raw_fd(), buf.as_mut_ptr(), buf.len())
    } as isize)
}
