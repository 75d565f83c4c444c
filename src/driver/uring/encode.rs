//! An op to a submission entry: one match, and nothing else in the crate fills an entry.

use crate::op::{IOV_MAX, MAX_TRANSFER, Op};
use io_uring::{opcode, squeue, types};
use std::io::IsTerminal;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// `IORING_RECVSEND_POLL_FIRST`, which the crate has no name for.
const POLL_FIRST: u16 = 1;

fn fd(fd: &BorrowedFd<'_>) -> types::Fd {
    types::Fd(fd.as_raw_fd())
}

fn dir(dir: &Option<BorrowedFd<'_>>) -> types::Fd {
    types::Fd(dir.as_ref().map_or(libc::AT_FDCWD, AsRawFd::as_raw_fd))
}

fn len(bytes: usize) -> u32 {
    bytes.min(MAX_TRANSFER) as u32
}

fn rw_flags(nowait: bool) -> i32 {
    if nowait { libc::RWF_NOWAIT } else { 0 }
}

/// The entry of a read into `len` bytes at `buf`.
#[inline(always)]
pub(super) fn read(
    f: &BorrowedFd<'_>,
    buf: *mut u8,
    length: usize,
    offset: u64,
    nowait: bool,
) -> squeue::Entry {
    opcode::Read::new(fd(f), buf, len(length)).offset(offset).rw_flags(rw_flags(nowait)).build()
}

/// The entry that performs `op`. It points into what the op borrows.
#[inline]
pub(super) fn encode(op: &mut Op<'_>) -> squeue::Entry {
    match op {
        Op::Nop => opcode::Nop::new().build(),
        Op::Read { fd, buf, offset, nowait, .. } => {
            read(fd, buf.as_mut_ptr(), buf.len(), *offset, *nowait)
        }
        Op::Write { fd: f, buf, offset, habit } => {
            let entry =
                opcode::Write::new(fd(f), buf.as_ptr(), len(buf.len())).offset(*offset).build();
            // A terminal with room for a part of it waits in the middle, whatever it is told: not
            // on this thread.
            let waits = habit.is_none() && f.is_terminal();
            if waits { entry.flags(squeue::Flags::ASYNC) } else { entry }
        }
        Op::ReadUninit { fd: f, buf, offset, .. } => {
            opcode::Read::new(fd(f), buf.as_mut_ptr().cast(), len(buf.len()))
                .offset(*offset)
                .build()
        }
        Op::ReadVectored { fd: f, bufs, offset } => {
            opcode::Readv::new(fd(f), bufs.as_ptr(), bufs.len() as u32).offset(*offset).build()
        }
        Op::WriteVectored { fd: f, bufs, offset } => opcode::Writev::new(
            fd(f),
            // std guarantees that an IoSlice is an iovec.
            bufs.as_ptr().cast::<libc::iovec>(),
            bufs.len().min(IOV_MAX) as u32,
        )
        .offset(*offset)
        .build(),
        Op::OpenAt { dir: d, path, flags, mode } => {
            opcode::OpenAt::new(dir(d), path.as_ptr()).flags(*flags).mode(*mode).build()
        }
        Op::Close { fd } => opcode::Close::new(types::Fd(fd.as_raw_fd())).build(),
        Op::Poll { fd: f, events } => {
            opcode::PollAdd::new(fd(f), u32::from(events.cast_unsigned())).build()
        }
        Op::Accept { fd: f, addr, flags } => {
            let (name, len) = addr.as_mut_ptrs();
            opcode::Accept::new(fd(f), name, len).flags(*flags).build()
        }
        Op::AcceptLine { fd: f, flags, .. } => {
            opcode::AcceptMulti::new(fd(f)).flags(*flags).build()
        }
        Op::Connect { fd: f, addr } => {
            opcode::Connect::new(fd(f), addr.as_ptr(), addr.len()).build()
        }
        Op::Send { fd: f, buf, flags, .. } => {
            opcode::Send::new(fd(f), buf.as_ptr(), len(buf.len()))
                .flags(*flags | libc::MSG_NOSIGNAL)
                .build()
        }
        Op::Recv { fd: f, buf, flags, poll_first, .. } => {
            opcode::Recv::new(fd(f), buf.as_mut_ptr(), len(buf.len()))
                .ioprio(if *poll_first { POLL_FIRST } else { 0 })
                .flags(*flags)
                .build()
        }
        Op::SendMsg { fd: f, message, flags, .. } => opcode::SendMsg::new(fd(f), message.as_ptr())
            .flags((*flags | libc::MSG_NOSIGNAL) as u32)
            .build(),
        Op::RecvMsg { fd: f, message, flags, .. } => {
            opcode::RecvMsg::new(fd(f), message.as_ptr()).flags(*flags as u32).build()
        }
        Op::Splice { from, to, len, flags } => {
            opcode::Splice::new(fd(from), -1, fd(to), -1, *len).flags(*flags).build()
        }
        Op::Fsync { fd: f, data_only } => {
            let flags =
                if *data_only { types::FsyncFlags::DATASYNC } else { types::FsyncFlags::empty() };
            opcode::Fsync::new(fd(f)).flags(flags).build()
        }
        Op::Ftruncate { fd: f, len } => opcode::Ftruncate::new(fd(f), *len).build(),
        Op::Statx { dir: d, path, flags, mask, out } => opcode::Statx::new(
            dir(d),
            path.as_ptr(),
            ptr::from_mut::<libc::statx>(*out).cast::<types::statx>(),
        )
        .flags(*flags)
        .mask(*mask)
        .build(),
        Op::UnlinkAt { dir: d, path, flags } => {
            opcode::UnlinkAt::new(dir(d), path.as_ptr()).flags(*flags).build()
        }
        Op::MkdirAt { dir: d, path, mode } => {
            opcode::MkDirAt::new(dir(d), path.as_ptr()).mode(*mode).build()
        }
        Op::RenameAt { old_dir, old, new_dir, new, flags } => {
            opcode::RenameAt::new(dir(old_dir), old.as_ptr(), dir(new_dir), new.as_ptr())
                .flags(*flags)
                .build()
        }
        Op::LinkAt { old_dir, old, new_dir, new, flags } => {
            opcode::LinkAt::new(dir(old_dir), old.as_ptr(), dir(new_dir), new.as_ptr())
                .flags(*flags)
                .build()
        }
        Op::SymlinkAt { target, dir: d, path } => {
            opcode::SymlinkAt::new(dir(d), target.as_ptr(), path.as_ptr()).build()
        }
    }
}

/// The entry that performs `op` after its descriptor has been waited for.
pub(super) fn encode_again(op: &mut Op<'_>) -> squeue::Entry {
    if let Op::Recv { poll_first, .. } = op {
        // A kernel that does not wait on descriptors in non-blocking mode would refuse for ever.
        *poll_first = false;
    }
    encode(op)
}

/// The entry that waits until `op`'s descriptor is ready; `None` for ops that have nothing to wait
/// for.
pub(super) fn poll(op: &Op<'_>) -> Option<squeue::Entry> {
    let (f, events) = match op {
        Op::Read { nowait: true, .. } => return None,
        Op::Read { fd, .. } | Op::ReadUninit { fd, .. } | Op::ReadVectored { fd, .. } => {
            (fd, libc::POLLIN)
        }
        Op::Write { fd, .. } | Op::WriteVectored { fd, .. } => (fd, libc::POLLOUT),
        // Whoever says so wants to hear that it would wait.
        Op::Send { flags, .. }
        | Op::SendMsg { flags, .. }
        | Op::Recv { flags, .. }
        | Op::RecvMsg { flags, .. }
            if *flags & libc::MSG_DONTWAIT != 0 =>
        {
            return None;
        }
        Op::Send { fd, .. } | Op::SendMsg { fd, .. } => (fd, libc::POLLOUT),
        Op::Recv { fd, .. } | Op::RecvMsg { fd, .. } | Op::Accept { fd, .. } => (fd, libc::POLLIN),
        _ => return None,
    };
    Some(opcode::PollAdd::new(fd(f), events as u32).build())
}
