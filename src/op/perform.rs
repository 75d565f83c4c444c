//! The same op as a plain system call, which blocks the OS thread until it is done.
//!
//! This is how ops run on plain threads, while a thread panics, and on the blocking pool. It is
//! also the definition of what each op means: a driver must give the same answer.
#![forbid(unsafe_code)]

use std::mem::{ManuallyDrop, replace};

use super::{AT_POSITION, Op};
use crate::sys::{file, path, socket, transfer};

/// Performs `op` and returns what the kernel answered: `>= 0`, or `-errno`. Interrupted calls are
/// not repeated. A performed `Close` becomes a `Nop`, so that its descriptor is closed once.
pub(crate) fn perform(op: &mut Op<'_>) -> i32 {
    match op {
        Op::Nop => 0,
        Op::Read { fd, buf, offset, .. } => file::read(*fd, buf, at(*offset)),
        Op::ReadUninit { fd, buf, offset, .. } => file::read_uninit(*fd, buf, at(*offset)),
        Op::Write { fd, buf, offset, .. } => file::write(*fd, buf, at(*offset)),
        Op::ReadVectored { fd, bufs, offset } => file::read_vectored(*fd, bufs, at(*offset)),
        Op::WriteVectored { fd, bufs, offset } => file::write_vectored(*fd, bufs, at(*offset)),
        Op::OpenAt { dir, path, flags, mode } => file::openat(*dir, path, *flags, *mode),
        Op::Close { .. } => match replace(op, Op::Nop) {
            Op::Close { fd } => file::close(ManuallyDrop::into_inner(fd)),
            _ => unreachable!("the op was a Close a line above"),
        },
        Op::Poll { fd, events } => socket::poll(*fd, *events),
        Op::Accept { fd, addr, flags } => socket::accept(*fd, addr, *flags),
        // A call might wait, since others may be faster. What is not taken stays in line.
        Op::AcceptLine { .. } => 0,
        Op::Connect { fd, addr } => socket::connect(*fd, addr),
        Op::Send { fd, buf, flags, .. } => socket::send(*fd, buf, *flags),
        Op::Recv { fd, buf, flags, .. } => socket::recv(*fd, buf, *flags),
        Op::SendMsg { fd, message, flags, .. } => socket::sendmsg(*fd, message, *flags),
        Op::RecvMsg { fd, message, flags, .. } => socket::recvmsg(*fd, message, *flags),
        Op::Splice { from, to, len, flags } => transfer::splice(*from, *to, *len, *flags),
        Op::Fsync { fd, data_only } => file::fsync(*fd, *data_only),
        Op::Ftruncate { fd, len } => file::ftruncate(*fd, *len),
        Op::Statx { dir, path, flags, mask, out } => path::statx(*dir, path, *flags, *mask, out),
        Op::UnlinkAt { dir, path, flags } => path::unlinkat(*dir, path, *flags),
        Op::MkdirAt { dir, path, mode } => path::mkdirat(*dir, path, *mode),
        Op::RenameAt { old_dir, old, new_dir, new, flags } => {
            path::renameat(*old_dir, old, *new_dir, new, *flags)
        }
        Op::LinkAt { old_dir, old, new_dir, new, flags } => {
            path::linkat(*old_dir, old, *new_dir, new, *flags)
        }
        Op::SymlinkAt { target, dir, path } => path::symlinkat(target, *dir, path),
    }
}

/// An offset as the system calls take it.
pub(crate) fn at(offset: u64) -> Option<u64> {
    (offset != AT_POSITION).then_some(offset)
}
