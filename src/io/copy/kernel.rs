//! The ways of copying that leave the bytes in the kernel.
//!
//! | from            | to                   | by                                                     |
//! |-----------------|----------------------|--------------------------------------------------------|
//! | a file          | a file               | `copy_file_range`, on the blocking pool                |
//! | a file          | a socket             | `splice` to a pipe of our own, and from there          |
//! | a file          | a pipe               | `splice`                                               |
//! | a pipe          | a file, socket, pipe | `splice`                                               |
//! | a socket        | a pipe               | `splice`, unless it is an output that is not locked    |
//! | a file          | a socket, a pipe     | on a plain thread: `sendfile`                          |
//! | everything else |                      | a buffer                                               |
//!
//! A ring performs `splice` on a kernel thread of its own, always. That thread must not wait for
//! somebody else, since the next copy would need another one. So the fiber asks by `poll` first,
//! which costs no thread, and then moves no more than there is room for.
//!
//! Whatever a way cannot do (other file systems, files opened for appending, sealed files), it says
//! before it has done anything, and the rest is copied through a buffer.
#![forbid(unsafe_code)]

use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};

use super::ends::Step;
use super::{Sink, Source, write_all};
use crate::op::{Op, decode::decode};
use crate::sched::{blocking, blocks_thread, cancel, splices, submit};
use crate::sys::file::position;
use crate::sys::socket::send_room;
use crate::sys::transfer::{self, Kind};

/// How much is copied between two files in one go.
const STEP: u64 = 16 << 20;
/// Shorter files are read and written: that is faster than making a pipe, or waiting for a thread.
const FEW: u64 = 64 << 10;
/// The room asked for in a pipe.
const ROOM: usize = 1 << 20;

/// What has become of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copied {
    /// All is copied.
    All,
    /// Something is left, perhaps, and is to be copied in another way.
    Part,
    /// Likewise, and it seems to be so many bytes.
    Few(u64),
}

/// Copies without looking at the bytes, as far as that is possible.
pub(super) fn copy(
    source: &mut dyn Source,
    sink: &mut dyn Sink,
    copied: &mut u64,
) -> io::Result<Copied> {
    loop {
        let bytes = source.buffered();
        if bytes.is_empty() {
            break;
        }
        let before = *copied;
        let result = write_all(bytes, sink, copied);
        source.consume_buffered((*copied - before) as usize);
        result?;
    }
    let (Some(from), Some(to)) = (source.fd(), sink.fd()) else { return Ok(Copied::Part) };
    if source.is_shared() && sink.is_shared() {
        // Two locks, which others may take in the other order.
        return Ok(Copied::Part);
    }
    let shared = source.is_shared() || sink.is_shared();
    let way = match Way::of(from, to, source.is_shared(), shared)? {
        Ok(way) => way,
        Err(left) => return Ok(Copied::Few(left.min(source.limit()))),
    };
    sink.empty()?;
    let mut any = false;
    loop {
        let limit = source.limit();
        if limit == 0 {
            return Ok(Copied::All);
        }
        let before = *copied;
        let step = way.step(source, sink, limit, copied);
        if *copied != before {
            any = true;
            source.copied(*copied - before);
            sink.copied();
        }
        match step {
            Ok(Step::Bytes(_)) => {}
            // Files of the kernel's own claim to be empty to calls that do not read them.
            Ok(Step::End) if !any => return Ok(Copied::Part),
            Ok(Step::End) => return Ok(Copied::All),
            Ok(Step::Refused) => return Ok(Copied::Part),
            Err(e) if e.kind() == ErrorKind::Interrupted || is_late(&e) => {}
            Err(e) => return Err(e),
        }
    }
}

/// Whether somebody else was faster, at a descriptor in non-blocking mode: it is to be waited for
/// again.
fn is_late(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock && !blocks_thread()
}

/// How the bytes go.
enum Way {
    /// `copy_file_range`.
    Files,
    /// `sendfile`.
    Send,
    /// `splice`, where one end is a pipe. Says what the two ends are.
    Pipe(Kind, Kind),
    /// `splice` by way of a pipe with so much room.
    Through(io::PipeReader, io::PipeWriter, u64),
}

impl Way {
    /// Or, if a buffer is better, how many bytes there seem to be; 0 if nothing is known. `locks`:
    /// a lock is held for each step, for `locks_source` that of the source.
    fn of(
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        locks_source: bool,
        locks: bool,
    ) -> io::Result<Result<Way, u64>> {
        let (source, target) = (transfer::kind(from), transfer::kind(to));
        let left = match source {
            Kind::File(size) => size.saturating_sub(position(from).unwrap_or(0)),
            Kind::Pipe | Kind::Socket => u64::MAX,
            Kind::Other => 0,
        };
        if left <= FEW {
            return Ok(Err(left));
        }
        let way = match (source, target) {
            (Kind::File(_), Kind::File(_)) => Some(Way::Files),
            (Kind::File(_), Kind::Socket | Kind::Pipe) if blocks_thread() => {
                Some(Way::Send).filter(|_| !locks_source && !transfer::heeds_sigpipe())
            }
            // Without a driver that waits first, the call would wait with the lock.
            _ if locks && blocks_thread() => None,
            // So would who comes too late at a TCP stream, which heeds no flag of a splice.
            (Kind::Socket, _) if locks && !locks_source => None,
            (Kind::Other, _) | (_, Kind::Other) => None,
            _ if !splices() || (blocks_thread() && transfer::heeds_sigpipe()) => None,
            (Kind::Pipe, _) | (_, Kind::Pipe) => Some(Way::Pipe(source, target)),
            (Kind::File(_), Kind::Socket) => {
                // Without descriptors to spare, a buffer will do.
                let Ok((reader, writer)) = io::pipe() else { return Ok(Err(0)) };
                let room = transfer::set_room(writer.as_fd(), ROOM);
                Some(Way::Through(reader, writer, room as u64))
            }
            _ => None,
        };
        Ok(way.ok_or(0))
    }

    /// Copies some bytes, `limit` at most, and counts them.
    fn step(
        &self,
        source: &dyn Source,
        sink: &dyn Sink,
        limit: u64,
        copied: &mut u64,
    ) -> io::Result<Step> {
        let (Some(from), Some(to)) = (source.fd(), sink.fd()) else { return Ok(Step::Refused) };
        let by_pool = |call: &(dyn Fn(usize) -> i32 + Sync)| {
            source.alone(&mut || sink.alone(&mut || by_pool(limit, call)))
        };
        let step = match self {
            Way::Files => by_pool(&|len| transfer::copy_file_range(from, to, len)),
            Way::Send => by_pool(&|len| transfer::sendfile(from, to, len)),
            Way::Pipe(kind, target) => {
                // What others may take first is waited for under its lock, as in a read; so last.
                let last = source.is_shared();
                if !last {
                    wait(from, *kind, libc::POLLIN)?;
                }
                wait(to, *target, libc::POLLOUT)?;
                source.alone(&mut || {
                    if last {
                        wait(from, *kind, libc::POLLIN)?;
                    }
                    // Who comes too late must not wait with the lock of a sink, which those who
                    // feed the source may need.
                    let late = if sink.is_shared() { libc::SPLICE_F_NONBLOCK } else { 0 };
                    sink.alone(&mut || splice(from, to, limit.min(room(to, *target)), late))
                })
            }
            Way::Through(reader, writer, room) => {
                let len = limit.min(*room);
                let mut behind = None;
                let splice = || splice(from, writer.as_fd(), len, 0);
                let taken = source.alone(&mut || {
                    let taken = splice();
                    behind = position(from);
                    taken
                })?;
                let Step::Bytes(taken) = taken else { return Ok(taken) };
                let (left, result) = pour(reader.as_fd(), to, sink, taken, copied);
                if left != 0 {
                    // Others may have read on meanwhile: then it is lost.
                    let _ = source.alone(&mut || {
                        if position(from) == behind {
                            transfer::seek_back(from, left);
                        }
                        Ok(Step::End)
                    });
                }
                return result;
            }
        }?;
        if let Step::Bytes(n) = step {
            *copied += n;
        }
        Ok(step)
    }
}

/// A call that may wait for a disk.
fn by_pool(limit: u64, call: &(dyn Fn(usize) -> i32 + Sync)) -> io::Result<Step> {
    cancel::check()?;
    let len = limit.min(STEP) as usize;
    judge(blocking(|| decode(call(len))))
}

/// Waits until a pipe or a socket is ready.
fn wait(fd: BorrowedFd<'_>, kind: Kind, events: i16) -> io::Result<()> {
    match kind {
        Kind::Pipe | Kind::Socket if !blocks_thread() => submit(Op::Poll { fd, events }).map(drop),
        _ => Ok(()),
    }
}

/// How much can be moved to where there is room, without waiting for more.
fn room(to: BorrowedFd<'_>, kind: Kind) -> u64 {
    match kind {
        Kind::Socket if !blocks_thread() => send_room(to),
        _ => ROOM as u64,
    }
}

fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: u64, flags: u32) -> io::Result<Step> {
    let flags = libc::SPLICE_F_MOVE | flags;
    judge(submit(Op::Splice { from, to, len: len as u32, flags }))
}

/// Moves `left` bytes out of a pipe into a socket. Says how many remain, which is none if it works.
fn pour(
    pipe: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    sink: &dyn Sink,
    mut left: u64,
    copied: &mut u64,
) -> (u64, io::Result<Step>) {
    let all = left;
    while left != 0 {
        let step = wait(to, Kind::Socket, libc::POLLOUT).and_then(|()| {
            sink.alone(&mut || splice(pipe, to, left.min(room(to, Kind::Socket)), 0))
        });
        match step {
            Ok(Step::Bytes(n)) => {
                left -= n;
                *copied += n;
            }
            Ok(Step::End | Step::Refused) => return (left, Ok(Step::Refused)),
            Err(e) if e.kind() == ErrorKind::Interrupted || is_late(&e) => {}
            Err(e) => return (left, Err(e)),
        }
    }
    (0, Ok(Step::Bytes(all)))
}

/// Reads a result: which errors say that this way is none?
fn judge(result: io::Result<u32>) -> io::Result<Step> {
    match result {
        Ok(0) => Ok(Step::End),
        Ok(n) => Ok(Step::Bytes(u64::from(n))),
        Err(e) => match e.raw_os_error() {
            Some(
                libc::EINVAL
                | libc::ENOSYS
                | libc::EOPNOTSUPP
                | libc::EPERM
                | libc::EXDEV
                | libc::EBADF
                | libc::EOVERFLOW
                | libc::ETXTBSY,
            ) => Ok(Step::Refused),
            _ => Err(e),
        },
    }
}
