//! L6, scheduling. For now every op is performed at once on the calling thread.

use std::io;
use std::os::fd::OwnedFd;

use crate::op::{Op, decode::decode, perform::perform};

#[expect(unsafe_code, reason = "the kernel's answer makes descriptors and memory")]
mod answer;
mod detach;

pub(crate) use answer::{read_spare, submit_fd};
pub(crate) use detach::Detach;

/// Submits `op` and returns when the kernel is done with it.
pub(crate) fn submit(mut op: Op<'_>) -> io::Result<u32> {
    decode(perform(&mut op))
}

/// Runs `f`, which may block the thread it runs on, where it holds up no other fiber.
pub(crate) fn blocking<T: Send, F: FnOnce() -> T + Send>(f: F) -> T {
    f()
}

/// Closes `fd` without waiting for it and without reporting an error.
pub(crate) fn close_detached(fd: OwnedFd) {
    drop(fd);
}
