//! L0, safe wrappers over libc: the only place where raw system calls are made.

pub(crate) mod fifo;
pub(crate) mod file;
pub(crate) mod path;
pub(crate) mod slices;
