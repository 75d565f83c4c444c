//! L6, scheduling. For now every op is performed at once on the calling thread.

use std::io;
use std::os::fd::OwnedFd;

use crate::op::{Op, decode::decode, perform::perform};

#[expect(unsafe_code, reason = "the kernel's answer makes descriptors and memory")]
mod answer;
mod detach;

pub(crate) use answer::{perform_fd, read_spare, submit_fd};
pub(crate) use detach::Detach;

/// Submits `op` and returns when the kernel is done with it.
pub(crate) fn submit(mut op: Op<'_>) -> io::Result<u32> {
    decode(perform(&mut op))
}

/// Runs `f`, which may block the thread it runs on, where it holds up no other fiber.
pub(crate) fn blocking<T: Send, F: FnOnce() -> T + Send>(f: F) -> T {
    f()
}

/// As [`blocking`], for what may wait for ever for somebody else: a lock, the other end of a FIFO.
/// It must not use up the threads of `blocking`, on which that somebody may depend.
pub(crate) fn waiting<T: Send, F: FnOnce() -> T + Send>(f: F) -> T {
    f()
}

/// Whether an `OpenAt` submitted here may be tried without waiting, as io_uring does it, so that
/// opening a FIFO has to be completed by the caller.
pub(crate) fn opens_in_haste() -> bool {
    false
}

/// Closes `fd` without waiting for it and without reporting an error.
pub(crate) fn close_detached(fd: OwnedFd) {
    drop(fd);
}
