//! L0, safe wrappers over libc: the only place where raw system calls are made.

pub(crate) mod caught;
pub(crate) mod clock;
pub(crate) mod datagrams;
pub(crate) mod epoll;
pub(crate) mod fifo;
pub(crate) mod file;
pub(crate) mod futex;
pub(crate) mod inotify;
pub(crate) mod mask;
pub(crate) mod mem;
pub(crate) mod membarrier;
pub(crate) mod path;
pub(crate) mod process;
pub(crate) mod ring;
pub(crate) mod signal;
pub(crate) mod slices;
pub(crate) mod socket;
pub(crate) mod system;
pub(crate) mod thread_end;
pub(crate) mod transfer;
