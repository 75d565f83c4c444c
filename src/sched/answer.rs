//! Answers that are more than a number: a new descriptor, memory that the kernel has initialised.
//!
//! Invariant.  1. What `submit` returns is the kernel's answer to the very op that was passed to
//! it.

use std::ffi::CStr;
use std::io::{self, IoSliceMut};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use super::submit::{self, submit, submit_within};
use crate::op::{Habit, MAX_TRANSFER, Op, decode::decode, perform::perform};
use crate::sys::socket::{Control, Incoming};

/// Submits an op whose result is a new descriptor.
///
/// # Panics
/// If the op's result is something else.
pub(crate) fn submit_fd(op: Op<'_>) -> io::Result<OwnedFd> {
    assert!(op.gives_descriptor(), "the op gives no descriptor: {op:?}");
    let fd = submit(op)?;
    // SAFETY: by invariant 1 this is the kernel's answer to an op that opens a descriptor for its
    // caller, and nobody else has seen it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// As [`submit_fd`], with a timeout as in [`submit_within`].
pub(crate) fn submit_fd_within(
    op: Op<'_>,
    timeout: Option<Duration>,
) -> Option<io::Result<OwnedFd>> {
    assert!(op.gives_descriptor(), "the op gives no descriptor: {op:?}");
    let answer = submit_within(op, timeout)?;
    // SAFETY: as in `submit_fd`.
    Some(answer.map(|fd| unsafe { OwnedFd::from_raw_fd(fd as i32) }))
}

/// As [`submit_fd`], by a system call on the thread that it is called on.
pub(crate) fn perform_fd(mut op: Op<'_>) -> io::Result<OwnedFd> {
    assert!(op.gives_descriptor(), "the op gives no descriptor: {op:?}");
    let fd = decode(perform(&mut op))?;
    // SAFETY: `perform` returns the kernel's answer to this op; for the rest as above.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// A new file, created on the spot; `None` if it has to be opened in the usual way.
pub(crate) fn create_here(path: &CStr, flags: i32, mode: u32) -> Option<OwnedFd> {
    let fd = submit::create_here(path, flags, mode)?;
    // SAFETY: the kernel's answer to a call that opens a descriptor for its caller, and nobody else
    // has seen it.
    Some(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Reads at most `max` bytes into the spare capacity of `vec`, which grows by the count returned.
/// The capacity stays as it is; with none to spare, the count is 0.
pub(crate) fn read_spare(
    fd: BorrowedFd<'_>,
    vec: &mut Vec<u8>,
    max: usize,
    offset: u64,
    habit: &Habit,
) -> io::Result<usize> {
    let spare = vec.spare_capacity_mut();
    let len = spare.len().min(max).min(MAX_TRANSFER);
    let (buf, habit) = (&mut spare[..len], Some(habit));
    let n = submit(Op::ReadUninit { fd, buf, offset, habit })? as usize;
    assert!(n <= len, "the kernel read {n} bytes into a buffer of {len}");
    // SAFETY: by invariant 1 the kernel has initialised the first `n` bytes of the spare capacity.
    unsafe { vec.set_len(vec.len() + n) };
    Ok(n)
}

/// Receives bytes and descriptors by `recv`, which is to submit a `RecvMsg` of the message it gets.
pub(crate) fn recv_fds(
    buf: &mut [u8],
    recv: impl FnOnce(&mut Incoming<'_>) -> io::Result<usize>,
) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut control = Control::empty();
    let bufs = &mut [IoSliceMut::new(buf)];
    let mut message = Incoming::new(bufs, None, Some(&mut control));
    let n = recv(&mut message)?;
    let (len, flags) = message.finish();
    // SAFETY: by invariant 1 the kernel has filled the message, and this is what it holds.
    let fds = unsafe { control.take_fds(len) };
    if flags & libc::MSG_CTRUNC != 0 {
        // There was room for all that can be sent, so they could not be installed.
        return Err(io::Error::from_raw_os_error(libc::EMFILE));
    }
    Ok((n, fds))
}
