//! Waiting for descriptors of others.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::ops::BitOr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use crate::op::{AT_POSITION, MAX_TRANSFER, Op};
use crate::sched::{blocks_thread, submit};

/// A descriptor of any kind, made by anybody, that a fiber can wait for.
///
/// For what this crate has no type of its own for: a socket of a C library, an eventfd, a timerfd,
/// a terminal, a device. Whoever does the reading and writing by calls of its own asks here when
/// these are worth while ([`readable`](AsyncFd::readable), [`try_io`](AsyncFd::try_io)). And bytes
/// can be read from the bare descriptor and written to it, by [`Read`] and [`Write`] of `AsyncFd`
/// and `&AsyncFd`.
///
/// Any number of fibers and threads may wait at the same time, for the same or for different
/// things. On a plain thread, waiting blocks it.
///
/// # Cancellation
/// Waiting fails with an error that [`is_cancelled`](crate::is_cancelled) recognises, and can be
/// limited by [`timeout`](crate::time::timeout).
///
/// # Examples
/// ```
/// use ramie::io::{self, AsyncFd, Interest};
/// use std::net::UdpSocket; // not ours: it would block
///
/// ramie::Runtime::new()?.run(|| {
///     let socket = UdpSocket::bind("127.0.0.1:0")?;
///     socket.set_nonblocking(true)?;
///     let addr = socket.local_addr()?;
///     let socket = AsyncFd::new(socket);
///
///     let sender = ramie::spawn(move || ramie::net::UdpSocket::bind("127.0.0.1:0")?
///         .send_to(b"hello", addr));
///     let mut buf = [0; 16];
///     let n = socket.try_io(Interest::READABLE, |socket| socket.recv(&mut buf))?;
///     assert_eq!(&buf[..n], b"hello");
///     sender.join().unwrap()
/// })?;
/// # io::Result::Ok(())
/// ```
pub struct AsyncFd<T: AsFd> {
    inner: T,
}

/// What [`AsyncFd::ready`] is to wait for; may be combined with `|`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest(i16);

impl Interest {
    /// Reading finds something: data, the end, or an error.
    pub const READABLE: Interest = Interest(libc::POLLIN);
    /// Writing finds room, or an error.
    pub const WRITABLE: Interest = Interest(libc::POLLOUT);
    /// Something unusual (`POLLPRI`): out-of-band data of a socket, a changed attribute in sysfs.
    pub const PRIORITY: Interest = Interest(libc::POLLPRI);

    pub(crate) fn bits(self) -> i16 {
        self.0
    }
}

impl BitOr for Interest {
    type Output = Interest;

    fn bitor(self, other: Interest) -> Interest {
        Interest(self.0 | other.0)
    }
}

/// What a descriptor was found to be ready for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready(i16);

impl Ready {
    /// Of the bits of `poll`.
    pub(crate) fn new(events: i16) -> Self {
        Self(events)
    }

    fn has(self, events: i16) -> bool {
        self.0 & events != 0
    }

    /// Whether reading will not wait: there is data, or the end, or an error.
    #[must_use]
    pub fn is_readable(self) -> bool {
        self.has(libc::POLLIN | libc::POLLHUP | libc::POLLERR)
    }

    /// Whether writing will not wait: there is room, or an error.
    #[must_use]
    pub fn is_writable(self) -> bool {
        self.has(libc::POLLOUT | libc::POLLERR)
    }

    /// Whether there is what [`Interest::PRIORITY`] waits for.
    #[must_use]
    pub fn is_priority(self) -> bool {
        self.has(libc::POLLPRI)
    }

    /// Whether the other end is gone.
    #[must_use]
    pub fn is_closed(self) -> bool {
        self.has(libc::POLLHUP)
    }

    /// Whether there is an error to be fetched. The other end of a pipe that is gone counts as one
    /// for the writing end.
    #[must_use]
    pub fn is_error(self) -> bool {
        self.has(libc::POLLERR)
    }
}

impl<T: AsFd> AsyncFd<T> {
    /// Takes over something that has a descriptor. Its mode is left alone.
    pub fn new(inner: T) -> AsyncFd<T> {
        AsyncFd { inner }
    }

    /// What was taken over.
    pub fn get_ref(&self) -> &T {
        &self.inner
    }

    /// What was taken over.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.inner
    }

    /// Gives back what was taken over.
    pub fn into_inner(self) -> T {
        self.inner
    }

    /// Waits until the descriptor is ready for one of the things in `interest`, and says which. The
    /// end of the other side and errors end the wait in any case.
    ///
    /// Somebody else may be faster and take what there was.
    ///
    /// # Errors
    /// Those of `poll`.
    pub fn ready(&self, interest: Interest) -> io::Result<Ready> {
        loop {
            match submit(Op::Poll { fd: self.inner.as_fd(), events: interest.0 }) {
                // The bits of `poll` fit into an i16.
                Ok(events) => return Ok(Ready(events as i16)),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Waits until there is something to read, or the end, or an error.
    ///
    /// # Errors
    /// As [`ready`](AsyncFd::ready).
    pub fn readable(&self) -> io::Result<Ready> {
        self.ready(Interest::READABLE)
    }

    /// Waits until there is room to write, or an error.
    ///
    /// # Errors
    /// As [`ready`](AsyncFd::ready).
    pub fn writable(&self) -> io::Result<Ready> {
        self.ready(Interest::WRITABLE)
    }

    /// Calls `f` until it gives anything but [`WouldBlock`](ErrorKind::WouldBlock), and waits
    /// before each further call.
    ///
    /// `f` must not wait by itself, as it would block the worker: the descriptor is in non-blocking
    /// mode, or `f` uses calls that refuse to wait.
    ///
    /// # Errors
    /// Those of `f`, and those of [`ready`](AsyncFd::ready).
    pub fn try_io<R>(
        &self,
        interest: Interest,
        mut f: impl FnMut(&T) -> io::Result<R>,
    ) -> io::Result<R> {
        loop {
            match f(&self.inner) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => self.ready(interest)?,
                result => return result,
            };
        }
    }

    /// Whether to try again after a call that gave `result`: a system call obeys the descriptor's
    /// mode, where a driver waits.
    fn again<R>(&self, interest: Interest, result: &io::Result<R>) -> io::Result<bool> {
        match result {
            Err(e) if e.kind() == ErrorKind::WouldBlock && blocks_thread() => {
                self.ready(interest).map(|_| true)
            }
            _ => Ok(false),
        }
    }
}

impl<T: AsFd> Read for &AsyncFd<T> {
    /// `read` of the bare descriptor, waiting for data if its mode is non-blocking, too.
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len().min(MAX_TRANSFER);
        loop {
            let (fd, buf, offset) = (self.as_fd(), &mut buf[..len], AT_POSITION);
            let result = submit(Op::Read { fd, buf, offset, habit: None, nowait: false });
            if !self.again(Interest::READABLE, &result)? {
                return result.map(|n| n as usize);
            }
        }
    }
}

impl<T: AsFd> Write for &AsyncFd<T> {
    /// `write` to the bare descriptor, waiting for room if its mode is non-blocking, too.
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let buf = &buf[..buf.len().min(MAX_TRANSFER)];
        loop {
            let (fd, offset) = (self.as_fd(), AT_POSITION);
            let result = submit(Op::Write { fd, buf, offset, habit: None });
            if !self.again(Interest::WRITABLE, &result)? {
                return result.map(|n| n as usize);
            }
        }
    }

    /// Does nothing: nothing is held back.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<T: AsFd> Read for AsyncFd<T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }
}

impl<T: AsFd> Write for AsyncFd<T> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    /// Does nothing: nothing is held back.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<T: AsFd> AsFd for AsyncFd<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl<T: AsFd> AsRawFd for AsyncFd<T> {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl<T: AsFd> From<T> for AsyncFd<T> {
    fn from(inner: T) -> AsyncFd<T> {
        AsyncFd::new(inner)
    }
}

impl<T: AsFd + fmt::Debug> fmt::Debug for AsyncFd<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AsyncFd").field(&self.inner).finish()
    }
}
