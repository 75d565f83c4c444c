//! L3, operations: what a fiber asks of the kernel, as plain data, and how the answer is read.
//!
//! A caller in L7 builds an [`Op`] from borrowed parts and passes it to `sched::submit`, which
//! returns when the kernel is done with it. Because a suspended fiber cannot be dropped, the
//! borrows in the op are live for exactly as long as the kernel may use them; that is why plain
//! `&mut [u8]` can go into io_uring here.
//!
//! | file         | what                                                            |
//! |--------------|-----------------------------------------------------------------|
//! | `mod.rs`     | [`Op`], the catalogue of operations                             |
//! | `decode.rs`  | a kernel result (`>= 0` or `-errno`) to `io::Result`            |
//! | `perform.rs` | the same op as a plain system call, for plain threads           |
//! | `habit.rs`   | what has been learnt about one open file                        |
//!
//! An op's result is what the system call of the same name would return: a count, a descriptor or
//! 0.

use std::ffi::CStr;
use std::io::IoSlice;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{BorrowedFd, OwnedFd};

pub(crate) mod decode;
mod habit;
pub(crate) mod perform;

pub(crate) use habit::{Habit, Kept, Way};

pub(crate) use crate::sys::slices::{IOV_MAX, SlicesMut};
use crate::sys::socket::{IncomingMut, Outgoing, SockAddr};

/// `offset` of a read or write at the file's own position, which it then moves.
pub(crate) const AT_POSITION: u64 = u64::MAX;

/// What Linux transfers at most in one call; a longer buffer may be passed and is not filled.
pub(crate) const MAX_TRANSFER: usize = 0x7fff_f000;

/// One operation, borrowing its buffers, paths and descriptors from the fiber that submits it.
#[derive(Debug)]
pub(crate) enum Op<'a> {
    /// Does nothing, through the whole path: for tests and benchmarks.
    Nop,
    /// `pread`, or `read` when `offset` is [`AT_POSITION`].
    Read {
        fd: BorrowedFd<'a>,
        buf: &'a mut [u8],
        offset: u64,
        habit: Option<&'a Habit>,
        /// Fails with `EAGAIN` rather than wait: `RWF_NOWAIT`. For drivers; [`perform`] waits.
        nowait: bool,
    },
    /// As `Read`, into memory that need not be initialised, which was made for a file that is read
    /// to its end: the first `result` bytes are initialised afterwards.
    ReadUninit {
        fd: BorrowedFd<'a>,
        buf: &'a mut [MaybeUninit<u8>],
        offset: u64,
        habit: Option<&'a Habit>,
    },
    /// `pwrite`, or `write` when `offset` is [`AT_POSITION`].
    Write { fd: BorrowedFd<'a>, buf: &'a [u8], offset: u64, habit: Option<&'a Habit> },
    /// `preadv`; at most `IOV_MAX` buffers are passed on.
    ReadVectored { fd: BorrowedFd<'a>, bufs: SlicesMut<'a>, offset: u64 },
    /// `pwritev`; at most `IOV_MAX` buffers are passed on.
    WriteVectored { fd: BorrowedFd<'a>, bufs: &'a [IoSlice<'a>], offset: u64 },
    /// `openat(dir, path, flags, mode)`; `None` is the current directory. The result is a
    /// descriptor the caller owns. `O_CLOEXEC` is not implied.
    OpenAt { dir: Option<BorrowedFd<'a>>, path: &'a CStr, flags: i32, mode: u32 },
    /// `close`. The descriptor is gone whatever the result; an op that is dropped instead of being
    /// submitted leaks it.
    Close { fd: ManuallyDrop<OwnedFd> },
    /// `poll`, without end: waits until `fd` is ready for one of `events`; the result is what it is
    /// ready for.
    Poll { fd: BorrowedFd<'a>, events: i16 },
    /// `accept4`. The result is a descriptor the caller owns.
    Accept { fd: BorrowedFd<'a>, addr: &'a mut SockAddr, flags: i32 },
    /// Accepts whatever is in line now, adds it to `taken`, and does not wait: multishot. The
    /// result is 0, also if nothing was there; an error only if nothing was taken before it.
    AcceptLine { fd: BorrowedFd<'a>, flags: i32, taken: &'a mut Vec<OwnedFd> },
    /// `connect`.
    Connect { fd: BorrowedFd<'a>, addr: &'a SockAddr },
    /// `send`, which raises no signal.
    Send {
        fd: BorrowedFd<'a>,
        buf: &'a [u8],
        flags: i32,
        /// Of the descriptor's owner, as in the ops below.
        owner: Option<&'a Habit>,
        /// For drivers: this thread has tried it a moment ago, and it would have had to wait.
        tried: bool,
    },
    /// `recv`.
    Recv {
        fd: BorrowedFd<'a>,
        buf: &'a mut [u8],
        flags: i32,
        /// Of a stream: its reads are [`Way::Ring`] if it is likely to be empty.
        habit: Option<&'a Habit>,
        /// The kernel says with each answer whether that was all there was. (Of TCP.)
        tells: bool,
        /// For drivers: likely to be empty; wait for it before the first attempt.
        poll_first: bool,
        /// The ring's: in which of its turns that was.
        turn: u32,
        /// As for `Send`.
        tried: bool,
    },
    /// `sendmsg`, which raises no signal.
    SendMsg { fd: BorrowedFd<'a>, message: &'a Outgoing<'a>, flags: i32, owner: Option<&'a Habit> },
    /// `recvmsg`.
    RecvMsg { fd: BorrowedFd<'a>, message: IncomingMut<'a>, flags: i32, owner: Option<&'a Habit> },
    /// `splice`: moves bytes between a pipe and something else, at its own position if it has one.
    Splice { from: BorrowedFd<'a>, to: BorrowedFd<'a>, len: u32, flags: u32 },
    /// `fsync`, or `fdatasync` when `data_only`.
    Fsync { fd: BorrowedFd<'a>, data_only: bool },
    /// `ftruncate`.
    Ftruncate { fd: BorrowedFd<'a>, len: u64 },
    /// `statx`, of the path, or of `dir` itself with an empty path and `AT_EMPTY_PATH`.
    Statx {
        dir: Option<BorrowedFd<'a>>,
        path: &'a CStr,
        flags: i32,
        mask: u32,
        out: &'a mut libc::statx,
    },
    /// `unlinkat`; `flags` is 0 or `AT_REMOVEDIR`.
    UnlinkAt { dir: Option<BorrowedFd<'a>>, path: &'a CStr, flags: i32 },
    /// `mkdirat`.
    MkdirAt { dir: Option<BorrowedFd<'a>>, path: &'a CStr, mode: u32 },
    /// `renameat2`.
    RenameAt {
        old_dir: Option<BorrowedFd<'a>>,
        old: &'a CStr,
        new_dir: Option<BorrowedFd<'a>>,
        new: &'a CStr,
        flags: u32,
    },
    /// `linkat`; `flags` is 0 or `AT_SYMLINK_FOLLOW`.
    LinkAt {
        old_dir: Option<BorrowedFd<'a>>,
        old: &'a CStr,
        new_dir: Option<BorrowedFd<'a>>,
        new: &'a CStr,
        flags: i32,
    },
    /// `symlinkat`: makes `path` a symbolic link that says `target`.
    SymlinkAt { target: &'a CStr, dir: Option<BorrowedFd<'a>>, path: &'a CStr },
}

impl Op<'_> {
    /// Whether a cancel request may keep the op from being performed. A close always is: the
    /// descriptor would be lost.
    #[inline]
    pub(crate) fn can_be_refused(&self) -> bool {
        !matches!(self, Op::Close { .. })
    }

    /// What is known of the file that the op reads or writes.
    #[inline]
    pub(crate) fn habit(&self) -> Option<&Habit> {
        match self {
            Op::Read { habit, .. } | Op::ReadUninit { habit, .. } | Op::Write { habit, .. } => {
                *habit
            }
            _ => None,
        }
    }

    /// What is known of the socket that the op sends to or receives from, by who owns it; `None`
    /// also if the op asks for something special, of which plain readiness says nothing.
    #[inline]
    pub(crate) fn owner(&self) -> Option<&Habit> {
        let (owner, flags) = match self {
            Op::Recv { habit, flags, .. } => (*habit, *flags),
            Op::Send { owner, flags, .. }
            | Op::SendMsg { owner, flags, .. }
            | Op::RecvMsg { owner, flags, .. } => (*owner, *flags),
            _ => return None,
        };
        owner.filter(|_| flags & !libc::MSG_DONTWAIT == 0)
    }

    /// What `poll` is to say before an op of a batch can be performed without waiting; `None` for
    /// those that wait for nobody else.
    pub(crate) fn readiness(&self) -> Option<(BorrowedFd<'_>, i16)> {
        match self {
            // What has offsets waits for nobody, and all else refuses them.
            Op::Read { offset, .. } | Op::Write { offset, .. } if *offset != AT_POSITION => None,
            Op::Read { fd, .. } => Some((*fd, libc::POLLIN)),
            Op::Recv { fd, .. } | Op::RecvMsg { fd, .. } | Op::Accept { fd, .. } => {
                Some((*fd, libc::POLLIN))
            }
            Op::Write { fd, .. } => Some((*fd, libc::POLLOUT)),
            Op::Send { fd, .. } | Op::SendMsg { fd, .. } => Some((*fd, libc::POLLOUT)),
            Op::Poll { fd, events } => Some((*fd, *events)),
            _ => None,
        }
    }

    /// Whether a result that is not an error is a new descriptor, owned by whoever gets the result.
    pub(crate) fn gives_descriptor(&self) -> bool {
        matches!(self, Op::OpenAt { .. } | Op::Accept { .. })
    }
}
