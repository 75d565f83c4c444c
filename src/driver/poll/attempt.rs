//! One op, without waiting: the only place of this driver that performs any.
//!
//! | op                    | the call that does not wait             | where there is none              |
//! |-----------------------|-----------------------------------------|----------------------------------|
//! | `Recv`, `Send`, ..    | with `MSG_DONTWAIT`                     | -                                |
//! | `Read`, `Write`, ..   | `preadv2`, `pwritev2` with `RWF_NOWAIT`; `recv`, `send` of a socket; the plain call in non-blocking mode | named pipes and terminals, and pipes before Linux 6.4 |
//! | `Accept`              | `accept4` in non-blocking mode          | a listener in blocking mode      |
//! | `Connect`             | `connect` in non-blocking mode          | a socket in blocking mode        |
//! | `Poll`                | `poll` with no time                     | -                                |
//!
//! The mode is the open file's, shared with other processes, so it is asked for and never changed.
//! In the last column the op waits for readiness all the same, and is then handed back: a thread
//! performs it ([`perform_ready`]), because readiness is no promise. Somebody else may take the
//! bytes or the connection in between.
#![forbid(unsafe_code)]

use crate::op::perform::{at, perform};
use crate::op::{Op, SlicesMut};
use crate::sys::{file, socket};
use std::cell::Cell;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// What has become of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is done, with this result.
    Done(i32),
    /// Nothing has happened; to be tried again when the descriptor is ready for this (`EPOLLIN`,
    /// ..).
    Wait(u32),
    /// Nothing has happened, and no event will tell when it might.
    Later,
    /// It is ready, but only a call that may wait can do it.
    Thread,
}
use Outcome::{Done, Later, Thread, Wait};

const IN: u32 = libc::EPOLLIN as u32;
const OUT: u32 = libc::EPOLLOUT as u32;
/// So many bytes a pipe takes at once, or none.
const PIPE_BUF: usize = libc::PIPE_BUF;

/// Tries `op`. `started` is the op's own: a connection is being made.
#[inline]
pub(super) fn attempt(op: &mut Op<'_>, started: &Cell<bool>) -> Outcome {
    match op {
        Op::Recv { fd, buf, flags, .. } => {
            message(socket::recv(*fd, buf, *flags | libc::MSG_DONTWAIT), *flags, IN)
        }
        Op::Send { fd, buf, flags, .. } => {
            message(socket::send(*fd, buf, *flags | libc::MSG_DONTWAIT), *flags, OUT)
        }
        Op::RecvMsg { fd, message: m, flags, .. } => {
            message(socket::recvmsg(*fd, m, *flags | libc::MSG_DONTWAIT), *flags, IN)
        }
        Op::SendMsg { fd, message: m, flags, .. } => {
            message(socket::sendmsg(*fd, m, *flags | libc::MSG_DONTWAIT), *flags, OUT)
        }
        op => attempt_other(op, started),
    }
}

/// As [`attempt`], where an event has said that there is something.
#[inline]
pub(super) fn attempt_ready(op: &mut Op<'_>, started: &Cell<bool>) -> Outcome {
    match attempt(op, started) {
        Wait(_) if is_shut_down(op) => match attempt(op, started) {
            Wait(_) => Done(at_end(op)),
            outcome => outcome, // what came before the end
        },
        outcome => outcome,
    }
}

/// Whether `op` receives from a socket whose receiving side is shut down. Of a datagram socket,
/// only calls that wait are told so.
#[cold]
fn is_shut_down(op: &Op<'_>) -> bool {
    let fd = match op {
        Op::Recv { fd, flags, .. } | Op::RecvMsg { fd, flags, .. }
            if *flags & (libc::MSG_OOB | libc::MSG_ERRQUEUE) == 0 =>
        {
            *fd
        }
        Op::Read { fd, .. } | Op::ReadUninit { fd, .. } | Op::ReadVectored { fd, .. } => *fd,
        _ => return false,
    };
    let events = socket::poll_now(fd, libc::POLLRDHUP);
    events > 0 && events & i32::from(libc::POLLRDHUP) != 0
}

/// What a call that waits returns then.
#[cold]
fn at_end(op: &mut Op<'_>) -> i32 {
    if let Op::RecvMsg { message, .. } = op {
        message.set_empty();
    }
    0
}

fn attempt_other(op: &mut Op<'_>, started: &Cell<bool>) -> Outcome {
    match op {
        Op::Nop => Done(0),
        // The caller takes any answer.
        Op::Read { fd, buf, offset, nowait: true, .. } => {
            Done(file::read_nowait(*fd, buf, at(*offset)))
        }
        Op::Read { fd, buf, offset, .. } => stream(*fd, IN, |call| match call {
            Call::NoWait => file::read_nowait(*fd, buf, at(*offset)),
            Call::Socket(flags) if at(*offset).is_none() => socket::recv(*fd, buf, flags),
            _ => file::read(*fd, buf, at(*offset)),
        }),
        Op::ReadUninit { fd, buf, offset, .. } => stream(*fd, IN, |call| match call {
            Call::NoWait => file::read_uninit_nowait(*fd, buf, at(*offset)),
            Call::Socket(flags) if at(*offset).is_none() => socket::recv_uninit(*fd, buf, flags),
            _ => file::read_uninit(*fd, buf, at(*offset)),
        }),
        Op::ReadVectored { fd, bufs, offset } => stream(*fd, IN, |call| match call {
            Call::NoWait => file::read_vectored_nowait(*fd, bufs, at(*offset)),
            Call::Socket(flags) if at(*offset).is_none() => recv_vectored(*fd, bufs, flags),
            _ => file::read_vectored(*fd, bufs, at(*offset)),
        }),
        Op::Write { fd, buf, offset, .. } => stream(*fd, OUT, |call| match call {
            Call::NoWait => file::write_nowait(*fd, buf, at(*offset)),
            Call::Socket(flags) if at(*offset).is_none() => socket::send(*fd, buf, flags),
            _ => file::write(*fd, buf, at(*offset)),
        }),
        Op::WriteVectored { fd, bufs, offset } => stream(*fd, OUT, |call| match call {
            Call::NoWait => file::write_vectored_nowait(*fd, bufs, at(*offset)),
            Call::Socket(flags) if at(*offset).is_none() => send_vectored(*fd, bufs, flags),
            _ => file::write_vectored(*fd, bufs, at(*offset)),
        }),
        Op::Poll { fd, events } => match socket::poll_now(*fd, *events) {
            0 => Wait(u32::from(events.cast_unsigned())),
            result => Done(result),
        },
        Op::Accept { fd, addr, flags } => {
            if file::is_nonblocking(*fd) {
                again(socket::accept(*fd, addr, *flags), IN)
            } else {
                if_ready(*fd, IN)
            }
        }
        Op::AcceptLine { .. } => Done(perform(op)),
        Op::Connect { fd, addr } => {
            if started.get() {
                return connected(*fd);
            }
            if !file::is_nonblocking(*fd) {
                return Thread;
            }
            match socket::connect(*fd, addr) {
                result if result == -libc::EINPROGRESS || result == -libc::EALREADY => {
                    started.set(true);
                    Wait(OUT)
                }
                // Of the Unix family: the listener's queue is full.
                result if result == -libc::EAGAIN => Later,
                result => Done(result),
            }
        }
        // Not for this driver (`Caps::of_poll`): a thread can do anything.
        _ => Thread,
    }
}

/// Whether a result says that the op would have to wait.
fn again(result: i32, events: u32) -> Outcome {
    if result == -libc::EAGAIN { Wait(events) } else { Done(result) }
}

#[inline]
fn message(result: i32, flags: i32, events: u32) -> Outcome {
    // Whoever passes the flag wants to hear that it would wait.
    if result != -libc::EAGAIN || flags & libc::MSG_DONTWAIT != 0 {
        return Done(result);
    }
    Wait(if flags & libc::MSG_OOB != 0 { libc::EPOLLPRI as u32 } else { events })
}

/// The calls that may do without waiting, in the order in which they are tried.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    NoWait,
    /// `recv` or `send` with these flags.
    Socket(i32),
    Plain,
}

/// Reads from or writes to something that has no contents of its own.
fn stream(fd: BorrowedFd<'_>, events: u32, mut call: impl FnMut(Call) -> i32) -> Outcome {
    let result = call(Call::NoWait);
    if !is_unknown(result) {
        return again(result, events);
    }
    if socket::is_socket(fd) {
        return again(call(Call::Socket(libc::MSG_DONTWAIT)), events);
    }
    if file::is_nonblocking(fd) {
        return again(call(Call::Plain), events);
    }
    if_ready(fd, events)
}

/// Whether a result may mean that the file, the kernel or a filter does not know `RWF_NOWAIT`.
fn is_unknown(result: i32) -> bool {
    matches!(-result, libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL | libc::EPERM)
}

fn recv_vectored(fd: BorrowedFd<'_>, bufs: &mut SlicesMut<'_>, flags: i32) -> i32 {
    socket::recv_vectored(fd, bufs, flags)
}

fn send_vectored(fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>], flags: i32) -> i32 {
    socket::sendmsg(fd, &socket::Outgoing::new(bufs, None, None), flags)
}

/// For what has no call that does not wait.
fn if_ready(fd: BorrowedFd<'_>, events: u32) -> Outcome {
    match socket::poll_now(fd, events as i16) {
        0 => Wait(events),
        _ => Thread,
    }
}

/// What has become of a connection that was being made.
fn connected(fd: BorrowedFd<'_>) -> Outcome {
    match socket::poll_now(fd, libc::POLLOUT) {
        0 => Wait(OUT),
        result if result < 0 => Done(result),
        _ => Done(socket::pending_error(fd)),
    }
}

// ---- On a thread --------------------------------------------------------------------------------

/// A descriptor's file, and its number if that says more; and the direction.
type Key = ((u64, u64), Option<RawFd>, u32);
/// Those on which a thread performs an op right now.
static CLAIMED: Mutex<Vec<Key>> = Mutex::new(Vec::new());
/// One of them is free again.
static RELEASED: Condvar = Condvar::new();
/// How long to wait for that, before the descriptor is asked again whether it is ready at all: who
/// has it may have been surprised, and wait for ever.
const CLAIM_WAIT: Duration = Duration::from_millis(1);

/// The right to be the only one in this process that may be surprised by a descriptor that was
/// ready and is not.
struct Claim(Option<Key>);

impl Claim {
    /// `None` if another thread has it, after waiting a moment: whoever is told so tries again.
    fn of(fd: BorrowedFd<'_>, events: u32) -> Option<Self> {
        let Some(what) = file::what(fd) else { return Some(Self(None)) };
        let number = what.ambiguous.then(|| fd.as_raw_fd());
        let key = (what.identity, number, events);
        let mut claimed = CLAIMED.lock().unwrap_or_else(PoisonError::into_inner);
        if claimed.contains(&key) {
            drop(RELEASED.wait_timeout(claimed, CLAIM_WAIT));
            return None;
        }
        claimed.push(key);
        Some(Self(Some(key)))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claimed = CLAIMED.lock().unwrap_or_else(PoisonError::into_inner);
        claimed.retain(|key| Some(*key) != self.0);
        RELEASED.notify_all();
    }
}

/// Performs an op that was handed back as ready, on a thread that may wait. `None` if it is not
/// ready any more: the driver is to wait again.
///
/// It does wait, and is not cancelled then, if another process or a plain thread is faster.
pub(crate) fn perform_ready(op: &mut Op<'_>) -> Option<i32> {
    let (fd, events) = match op {
        Op::Read { fd, .. } | Op::ReadUninit { fd, .. } | Op::ReadVectored { fd, .. } => (*fd, IN),
        Op::Accept { fd, .. } => (*fd, IN),
        Op::Write { fd, buf, .. } => {
            // More might have to wait in the middle of it.
            *buf = &buf[..buf.len().min(PIPE_BUF)];
            (*fd, OUT)
        }
        Op::WriteVectored { fd, bufs, .. } => {
            let fd = *fd;
            *bufs = at_most(bufs, PIPE_BUF);
            if let [only, ..] = *bufs
                && only.len() > PIPE_BUF
            {
                let Op::WriteVectored { offset, .. } = *op else { unreachable!("a line above") };
                let (buf, habit) = (&only[..PIPE_BUF], None);
                *op = Op::Write { fd, buf, offset, habit };
            }
            (fd, OUT)
        }
        op => return Some(perform(op)),
    };
    let _claim = Claim::of(fd, events)?;
    if socket::poll_now(fd, events as i16) == 0 {
        return None;
    }
    // It may have got into non-blocking mode.
    Some(perform(op)).filter(|result| *result != -libc::EAGAIN)
}

/// The first of `bufs`, with `most` bytes together, but one that is not empty at least.
fn at_most<'a>(bufs: &'a [IoSlice<'a>], most: usize) -> &'a [IoSlice<'a>] {
    let empty = bufs.iter().take_while(|buf| buf.is_empty()).count();
    let bufs = &bufs[empty..];
    let mut bytes = 0;
    let fit = bufs.iter().take_while(|buf| {
        bytes += buf.len();
        bytes <= most
    });
    let count = fit.count().max(1).min(bufs.len());
    &bufs[..count]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_buffers() {
        let bytes = [0; 9000];
        let bufs = |lens: &[usize]| -> Vec<usize> {
            let bufs: Vec<_> = lens.iter().map(|len| IoSlice::new(&bytes[..*len])).collect();
            at_most(&bufs, 4096).iter().map(|buf| buf.len()).collect()
        };
        assert_eq!(bufs(&[]), [0; 0]);
        assert_eq!(bufs(&[0, 0]), [0; 0]);
        assert_eq!(bufs(&[0, 5000, 1]), [5000]);
        assert_eq!(bufs(&[4000, 96, 1]), [4000, 96]);
        assert_eq!(bufs(&[1, 4096]), [1]);
    }
}
