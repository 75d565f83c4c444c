//! System calls about processes, and waiting for several descriptors at once.

use std::io::{self, Error};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Instant;

fn checked(ret: libc::c_long) -> io::Result<i32> {
    i32::try_from(ret).ok().filter(|ret| *ret >= 0).ok_or_else(Error::last_os_error)
}

/// A descriptor that is readable when the process `pid` has ended. Closed in children.
pub(crate) fn open_pidfd(pid: u32) -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = checked(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Sends a signal to the process `pid`.
pub(crate) fn kill(pid: u32, signal: i32) -> io::Result<()> {
    let pid = libc::pid_t::try_from(pid).map_err(|_| Error::from_raw_os_error(libc::ESRCH))?;
    // SAFETY: no memory is passed.
    checked(libc::c_long::from(unsafe { libc::kill(pid, signal) })).map(drop)
}

/// Blocks the thread until `fd` is readable, or until `deadline`, if there is one. May return early
/// for no reason.
pub(crate) fn wait_readable(fd: BorrowedFd<'_>, deadline: Option<Instant>) -> io::Result<()> {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    // Rounded up: who comes back too early comes again.
    let timeout = left
        .map_or(-1, |left| i32::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX));
    // SAFETY: `poll` is the one record announced, ours to write for the whole call.
    match checked(libc::c_long::from(unsafe { libc::poll(&mut poll, 1, timeout) })) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

/// A set of descriptors, each with a number, of which some are readable; itself readable as soon as
/// there is one.
pub(crate) struct ReadySet(OwnedFd);

impl ReadySet {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        let fd = checked(libc::c_long::from(fd))?;
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Adds one; it is in the set for as long as it is open. Fails with `EPERM` for what is always
    /// readable, such as plain files.
    pub(crate) fn add(&self, fd: BorrowedFd<'_>, number: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: number };
        let (set, fd) = (self.0.as_raw_fd(), fd.as_raw_fd());
        // SAFETY: both descriptors are open, and `event` lives for the whole call.
        let ret = unsafe { libc::epoll_ctl(set, libc::EPOLL_CTL_ADD, fd, &mut event) };
        checked(libc::c_long::from(ret)).map(drop)
    }

    /// The number of one that is readable, or at its end; each in its turn. Does not wait.
    pub(crate) fn first(&self) -> io::Result<Option<u64>> {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: `event` is the one record announced, ours to write for the whole call.
        let ret = unsafe { libc::epoll_wait(self.0.as_raw_fd(), &mut event, 1, 0) };
        Ok((checked(libc::c_long::from(ret))? == 1).then_some(event.u64))
    }
}

impl AsFd for ReadySet {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Has `f` called when the process ends by `exit`. If there is no memory for that, it is not.
pub(crate) fn at_exit(f: extern "C" fn()) {
    // SAFETY: a function without arguments that lives as long as the process; a panic in it aborts.
    let _ = unsafe { libc::atexit(f) };
}
