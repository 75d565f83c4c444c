//! System calls that move bytes from one descriptor to another inside the kernel.
//!
//! As in `file.rs`, each function is one call and returns what the kernel returned, `>= 0` or
//! `-errno`; nothing is repeated. Files are read and written at their own positions.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use super::file::answer;
use super::signal::{Action, Disposition};

/// What a descriptor is of, as far as it matters for how to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A regular file of this size.
    File(u64),
    Pipe,
    Socket,
    Other,
}

/// Asks what a descriptor is of.
pub(crate) fn kind(fd: BorrowedFd<'_>) -> Kind {
    // SAFETY: the record consists of integers, for which zero is a value.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is ours to write for the whole call; the descriptor is borrowed, hence open.
    if unsafe { libc::fstat(fd.as_raw_fd(), &mut stat) } != 0 {
        return Kind::Other;
    }
    match stat.st_mode & libc::S_IFMT {
        libc::S_IFREG => Kind::File(u64::try_from(stat.st_size).unwrap_or(0)),
        libc::S_IFIFO => Kind::Pipe,
        libc::S_IFSOCK => Kind::Socket,
        _ => Kind::Other,
    }
}

/// `copy_file_range`.
pub(crate) fn copy_file_range(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: usize) -> i32 {
    let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
    // SAFETY: no memory is passed; the descriptors are borrowed, hence open.
    answer(unsafe { libc::copy_file_range(from, ptr::null_mut(), to, ptr::null_mut(), len, 0) })
}

/// `sendfile`. Of what is no file to read from, or no place to write to, it says `EINVAL`.
pub(crate) fn sendfile(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: usize) -> i32 {
    // SAFETY: no memory is passed; the descriptors are borrowed, hence open.
    answer(unsafe { libc::sendfile(to.as_raw_fd(), from.as_raw_fd(), ptr::null_mut(), len) })
}

/// `splice`; one of the two is a pipe.
pub(crate) fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: u32, flags: u32) -> i32 {
    let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
    let nowhere = ptr::null_mut();
    // SAFETY: no memory is passed; the descriptors are borrowed, hence open.
    answer(unsafe { libc::splice(from, nowhere, to, nowhere, len as usize, flags) })
}

/// Moves the file's own position back.
pub(crate) fn seek_back(fd: BorrowedFd<'_>, bytes: u64) {
    // SAFETY: no memory is passed; the descriptor is borrowed, hence open.
    unsafe { libc::lseek(fd.as_raw_fd(), -(bytes as libc::off_t), libc::SEEK_CUR) };
}

/// Asks for room in a pipe, and returns how much there is; less if the user has too many pages in
/// pipes already.
pub(crate) fn set_room(pipe: BorrowedFd<'_>, bytes: usize) -> usize {
    // SAFETY: no memory is passed; the descriptor is borrowed, hence open.
    let room = unsafe {
        libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, bytes as libc::c_int);
        libc::fcntl(pipe.as_raw_fd(), libc::F_GETPIPE_SZ)
    };
    usize::try_from(room).unwrap_or(64 << 10)
}

/// Whether a write to a closed connection or pipe raises a signal that does something.
pub(crate) fn heeds_sigpipe() -> bool {
    let action = Action::get(libc::SIGPIPE);
    !action.is_ok_and(|action| matches!(action.disposition(), Disposition::Ignore))
}
