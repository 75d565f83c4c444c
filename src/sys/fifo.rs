//! System calls about FIFOs; none of them waits.

use std::io::{self, Error};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The file system of pipes without a name.
const PIPEFS_MAGIC: i64 = 0x5049_5045;

fn checked(ret: isize) -> io::Result<usize> {
    usize::try_from(ret).map_err(|_| Error::last_os_error())
}

/// Whether this is a pipe, with or without a name. The cheapest question there is about a
/// descriptor: everything else refuses to say how large its pipe is.
pub(crate) fn is_pipe(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: no memory is passed; the descriptor is borrowed, hence open.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETPIPE_SZ) >= 0 }
}

/// Whether this pipe has a name in a file system, so that opening it waits for the other end.
pub(crate) fn has_name(fd: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: the record consists of integers, for which zero is a value.
    let mut stat: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is ours to write for the whole call.
    checked(unsafe { libc::fstatfs(fd.as_raw_fd(), &mut stat) } as isize)?;
    #[allow(clippy::unnecessary_cast, reason = "the field's type differs between C libraries")]
    Ok(stat.f_type as i64 != PIPEFS_MAGIC)
}

/// Whether the pipe has a writer, or has had one since this reading end was opened.
///
/// Asked of `poll` twice: a writer that is silent at the first look and gone at the look that `tee`
/// takes has left a hang-up for the second.
pub(crate) fn writer_seen(reader: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(polled(reader)? != 0 || has_data_or_writer(reader)? || polled(reader)? != 0)
}

/// Whether there is something to read in the pipe.
pub(crate) fn has_data(reader: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(polled(reader)? & libc::POLLIN != 0)
}

/// `POLLIN` for data, `POLLHUP` for a hang-up.
fn polled(reader: BorrowedFd<'_>) -> io::Result<i16> {
    let mut poll = libc::pollfd { fd: reader.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: `poll` is the one record announced, ours to write for the whole call.
    checked(unsafe { libc::poll(&mut poll, 1, 0) } as isize)?;
    Ok(poll.revents & (libc::POLLIN | libc::POLLHUP))
}

/// Whether a read of the pipe would not find its end at once.
///
/// An empty pipe with a silent writer looks like one without any, except to a call that would wait
/// for data: `tee`, because it takes none.
pub(crate) fn has_data_or_writer(reader: BorrowedFd<'_>) -> io::Result<bool> {
    let (_end, sink) = io::pipe()?;
    // SAFETY: no memory is passed; both descriptors are open.
    let n = unsafe { libc::tee(reader.as_raw_fd(), sink.as_raw_fd(), 1, libc::SPLICE_F_NONBLOCK) };
    match checked(n) {
        Ok(n) => Ok(n > 0),
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(true),
        Err(e) => Err(e),
    }
}

/// An inotify descriptor that becomes readable when somebody opens the same file.
pub(crate) fn watch_opens(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let watch = checked(unsafe { libc::inotify_init1(libc::IN_CLOEXEC) } as isize)?;
    // SAFETY: the descriptor is new and nobody else's.
    let watch = unsafe { OwnedFd::from_raw_fd(watch as i32) };
    let path = std::ffi::CString::new(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    // SAFETY: the path lives for the whole call.
    checked(unsafe { libc::inotify_add_watch(watch.as_raw_fd(), path.as_ptr(), libc::IN_OPEN) }
        as isize)?;
    Ok(watch)
}

/// Makes a descriptor that was opened with `flags` and `O_NONBLOCK` one that waits.
pub(crate) fn make_waiting(fd: BorrowedFd<'_>, flags: i32) -> io::Result<()> {
    let flags = flags & !libc::O_NONBLOCK;
    // SAFETY: no memory is passed; the descriptor is borrowed, hence open.
    checked(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags) } as isize).map(drop)
}
