//! Many operations at a time, without a fiber for each.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use super::Interest;
use crate::op::{AT_POSITION, MAX_TRANSFER, Op};
use crate::sched::batch::{self, Nothing, with_batch};
use crate::sys::clock;

/// Calls `f` with a [`Batch`]: operations that are started one after the other, are all in flight
/// at the same time, and are taken as they complete. Not in std.
///
/// When `f` returns or panics, what is still in flight is cancelled and waited for. So the
/// operations may borrow buffers and descriptors from whatever lives longer than this call.
///
/// A fiber for each operation does the same, for some hundred nanoseconds and a stack more. A batch
/// is for those who have their own state machine, or need the first of several answers.
///
/// On a plain thread, operations are performed one by one when `poll` calls them ready; what does
/// not wait for anybody is performed first.
///
/// # Cancellation
/// [`next`](Batch::next) fails and reports; the operations go on until `f` returns.
///
/// # Panics
/// Those of `f`. If the batch is used by another fiber than the one that made it. Inside
/// [`no_suspend`](crate::no_suspend), if `next` would wait; the end of the batch blocks the worker
/// there.
///
/// # Examples
/// The first answer counts:
/// ```
/// use ramie::io::{self, Write};
/// use std::time::Duration;
///
/// ramie::Runtime::new()?.run(|| {
///     let (fast, mut to_fast) = io::pipe()?;
///     let (slow, _to_slow) = io::pipe()?;
///     let (mut a, mut b) = ([0; 8], [0; 8]);
///     to_fast.write_all(b"hi")?;
///     io::batch(|batch| {
///         let first = batch.read(&fast, &mut a);
///         batch.read(&slow, &mut b);
///         batch.timeout(Duration::from_secs(10));
///         let done = batch.next()?.expect("three are in flight");
///         assert_eq!(done.key, first);
///         assert_eq!(done.result?, 2);
///         io::Result::Ok(()) // the other two are cancelled
///     })?;
///     assert_eq!(&a[..2], b"hi");
///     io::Result::Ok(())
/// })?;
/// # io::Result::Ok(())
/// ```
pub fn batch<'env, T>(f: impl FnOnce(&mut Batch<'_, 'env>) -> T) -> T {
    with_batch(|inner| f(&mut Batch { inner, timeouts: BTreeSet::new() }))
}

/// Operations in flight; see [`batch`].
pub struct Batch<'b, 'env> {
    inner: &'b mut batch::Batch<'env>,
    /// Deadlines in nanoseconds, with the keys of their timeouts.
    timeouts: BTreeSet<(u64, u64)>,
}

/// Tells an operation from the others of its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(u64);

/// An operation that has completed.
#[derive(Debug)]
pub struct Done<'env> {
    /// Which one.
    pub key: Key,
    /// Its result: a number of bytes, what [`poll`](Batch::poll) has found (as in `poll(2)`), or 0.
    /// One that was cancelled fails with an error that [`is_cancelled`](crate::is_cancelled)
    /// recognises, and has done nothing.
    pub result: io::Result<usize>,
    /// The buffer that was read into, to be used again.
    pub buf: Option<&'env mut [u8]>,
    /// The connection that was accepted.
    pub fd: Option<OwnedFd>,
}

impl<'env> Batch<'_, 'env> {
    fn arm(&mut self, op: Op<'env>) -> Key {
        Key(self.inner.arm(op))
    }

    /// Reads at the position, as `read` does; also for whatever has none.
    pub fn read(&mut self, fd: &'env impl AsFd, buf: &'env mut [u8]) -> Key {
        self.read_from(fd, buf, AT_POSITION)
    }

    /// Reads at an offset, as `pread` does.
    pub fn read_at(&mut self, fd: &'env impl AsFd, buf: &'env mut [u8], offset: u64) -> Key {
        self.read_from(fd, buf, valid(offset))
    }

    fn read_from(&mut self, fd: &'env impl AsFd, buf: &'env mut [u8], offset: u64) -> Key {
        self.arm(Op::Read { fd: fd.as_fd(), buf: cut(buf), offset, habit: None, nowait: false })
    }

    /// Writes at the position, as `write` does; also for whatever has none.
    pub fn write(&mut self, fd: &'env impl AsFd, buf: &'env [u8]) -> Key {
        self.write_to(fd, buf, AT_POSITION)
    }

    /// Writes at an offset, as `pwrite` does.
    pub fn write_at(&mut self, fd: &'env impl AsFd, buf: &'env [u8], offset: u64) -> Key {
        self.write_to(fd, buf, valid(offset))
    }

    fn write_to(&mut self, fd: &'env impl AsFd, buf: &'env [u8], offset: u64) -> Key {
        let buf = &buf[..buf.len().min(MAX_TRANSFER)];
        self.arm(Op::Write { fd: fd.as_fd(), buf, offset, habit: None })
    }

    /// Receives from a socket.
    pub fn recv(&mut self, socket: &'env impl AsFd, buf: &'env mut [u8]) -> Key {
        let (fd, buf) = (socket.as_fd(), cut(buf));
        self.arm(Op::Recv {
            fd,
            buf,
            flags: 0,
            habit: None,
            tells: false,
            poll_first: false,
            turn: 0,
            tried: false,
        })
    }

    /// Sends to a connected socket. Raises no signal.
    pub fn send(&mut self, socket: &'env impl AsFd, buf: &'env [u8]) -> Key {
        let buf = &buf[..buf.len().min(MAX_TRANSFER)];
        self.arm(Op::Send { fd: socket.as_fd(), buf, flags: 0, owner: None, tried: false })
    }

    /// Accepts a connection, which comes as [`Done::fd`]. One that was accepted and is not taken
    /// from the batch is closed.
    pub fn accept(&mut self, listener: &'env impl AsFd) -> Key {
        Key(self.inner.arm_accept(listener.as_fd(), libc::SOCK_CLOEXEC))
    }

    /// Waits until a descriptor is ready.
    pub fn poll(&mut self, fd: &'env impl AsFd, interest: Interest) -> Key {
        self.arm(Op::Poll { fd: fd.as_fd(), events: interest.bits() })
    }

    /// Brings a file's data and metadata to the disk, as
    /// [`sync_all`](crate::fs::File::sync_all) does. Does not wait for writes in the same batch.
    pub fn sync_all(&mut self, file: &'env impl AsFd) -> Key {
        self.arm(Op::Fsync { fd: file.as_fd(), data_only: false })
    }

    /// Completes after `duration`, with 0.
    pub fn timeout(&mut self, duration: Duration) -> Key {
        let key = self.inner.new_key();
        self.timeouts.insert((end_of(duration), key));
        Key(key)
    }

    /// Takes an operation that has completed, and waits for one if need be; `None` if there are
    /// none left.
    ///
    /// # Errors
    /// If the calling fiber is asked to end, or a deadline has come that it is under. The errors of
    /// operations are in their results.
    #[expect(clippy::should_implement_trait, reason = "the wait itself may fail, and go on")]
    pub fn next(&mut self) -> io::Result<Option<Done<'env>>> {
        self.next_until(None)
    }

    /// As [`next`](Batch::next), for `timeout` at most.
    ///
    /// # Errors
    /// [`TimedOut`](io::ErrorKind::TimedOut), after which everything goes on; and as `next`.
    pub fn next_timeout(&mut self, timeout: Duration) -> io::Result<Option<Done<'env>>> {
        self.next_until(Some(end_of(timeout)))
    }

    fn next_until(&mut self, end_ns: Option<u64>) -> io::Result<Option<Done<'env>>> {
        if self.is_empty() {
            return Ok(None);
        }
        let first = self.timeouts.first().copied();
        let deadline_ns = [first.map(|first| first.0), end_ns].into_iter().flatten().min();
        match self.inner.next(deadline_ns) {
            Ok(done) => Ok(Some(taken(done))),
            Err(Nothing::Empty) => Ok(None),
            Err(Nothing::Cancelled(error)) => Err(error),
            Err(Nothing::Late) => match first.filter(|first| Some(first.0) == deadline_ns) {
                Some(first) => {
                    self.timeouts.remove(&first);
                    Ok(Some(Done { key: Key(first.1), result: Ok(0), buf: None, fd: None }))
                }
                None => Err(io::ErrorKind::TimedOut.into()),
            },
        }
    }

    /// Asks for one operation to end, and says whether it was still in flight. It completes all the
    /// same, with its result if that was faster. A timeout does not complete any more.
    pub fn cancel(&mut self, key: Key) -> bool {
        let before = self.timeouts.len();
        self.timeouts.retain(|timeout| timeout.1 != key.0);
        before != self.timeouts.len() || self.inner.cancel(key.0)
    }

    /// Asks for all of them to end; see [`cancel`](Batch::cancel).
    pub fn cancel_all(&mut self) {
        self.timeouts.clear();
        self.inner.cancel_all();
    }

    /// How many are in flight, or have completed and not been taken.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.len() + self.timeouts.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for Batch<'_, '_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("len", &self.len()).finish_non_exhaustive()
    }
}

fn taken(done: batch::Done<'_>) -> Done<'_> {
    let buf = match done.op {
        Op::Read { buf, .. } | Op::Recv { buf, .. } => Some(buf),
        _ => None,
    };
    let is_fd = done.fd.is_some();
    let result = done.result.map(|n| if is_fd { 0 } else { n as usize });
    Done { key: Key(done.key), result, buf, fd: done.fd }
}

fn cut(buf: &mut [u8]) -> &mut [u8] {
    let len = buf.len().min(MAX_TRANSFER);
    &mut buf[..len]
}

/// The value that stands for the position, and is no offset, becomes one that is refused.
fn valid(offset: u64) -> u64 {
    offset.min(AT_POSITION - 1)
}

fn end_of(duration: Duration) -> u64 {
    let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    clock::now_ns().saturating_add(nanos)
}
