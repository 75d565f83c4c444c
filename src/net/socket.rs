//! What all sockets have in common: receiving, sending, accepting, modes.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::line::{Entered, Expecting, Line, Pace};
use crate::op::decode::decode;
use crate::op::perform::perform;
use crate::op::{self, Habit, IOV_MAX, MAX_TRANSFER, Op};
use crate::sched::batch::at_once;
use crate::sched::{Detach, accepting_pass, blocks_thread, connects_in_haste, current, perform_fd};
use crate::sched::{submit_fd_within, submit_within};
use crate::sys::file;
use crate::sys::socket::{Incoming, Outgoing, SockAddr, poll_many, take_error};

/// What std keeps in the kernel's socket, for all its descriptors, and a ring does not look at.
#[derive(Debug, Default)]
pub(super) struct Modes {
    /// `set_nonblocking(true)` was called here.
    nonblocking: AtomicBool,
    /// In nanoseconds; 0 is none.
    read_timeout: AtomicU64,
    write_timeout: AtomicU64,
    /// Of a listener.
    line: Line,
}

/// Which of the two timeouts.
#[derive(Clone, Copy)]
pub(super) enum Way {
    Read,
    Write,
}

/// A socket: std's, whose options are used, and what it takes to wait by suspending.
pub(super) struct Socket<S: Into<OwnedFd>> {
    inner: Detach<S>,
    /// Made when a mode is set for the first time, or the socket is cloned; shared by clones.
    modes: OnceLock<Arc<Modes>>,
}

impl<S: Into<OwnedFd> + AsFd> Socket<S> {
    /// A socket that nobody has set a mode of.
    pub(super) fn new(inner: S) -> Self {
        Self { inner: detach(inner), modes: OnceLock::new() }
    }

    /// One that comes from elsewhere, with the timeouts that it has; `ask` is std's way to ask.
    pub(super) fn adopt(inner: S, ask: fn(&S) -> [io::Result<Option<Duration>>; 2]) -> Self {
        let timeouts = ask(&inner).map(|timeout| timeout.ok().flatten());
        let socket = Self::new(inner);
        for (way, timeout) in [Way::Read, Way::Write].into_iter().zip(timeouts) {
            if timeout.is_some() {
                socket.keep_timeout(way, timeout);
            }
        }
        socket
    }

    pub(super) fn std(&self) -> &S {
        &self.inner
    }

    pub(super) fn into_std(self) -> S {
        self.inner.into_inner()
    }

    fn modes(&self) -> &Arc<Modes> {
        self.modes.get_or_init(Arc::default)
    }

    /// The same socket through another descriptor, which std has made.
    pub(super) fn clone_as(&self, inner: S) -> Self {
        let modes = OnceLock::from(Arc::clone(self.modes()));
        Self { inner: detach(inner), modes }
    }

    /// Remembers what has been set in the kernel.
    pub(super) fn keep_timeout(&self, way: Way, timeout: Option<Duration>) {
        let nanos = timeout
            .map_or(0, |timeout| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX).max(1));
        self.timeout_of(way).store(nanos, Relaxed);
    }

    fn timeout_of(&self, way: Way) -> &AtomicU64 {
        let modes = self.modes();
        match way {
            Way::Read => &modes.read_timeout,
            Way::Write => &modes.write_timeout,
        }
    }

    /// Remembers what has been set in the kernel.
    pub(super) fn keep_nonblocking(&self, nonblocking: bool) {
        self.modes().nonblocking.store(nonblocking, Relaxed);
    }

    #[inline]
    pub(super) fn is_nonblocking(&self) -> bool {
        self.modes.get().is_some_and(|modes| modes.nonblocking.load(Relaxed))
    }

    /// Whether a mode is set.
    pub(super) fn has_modes(&self) -> bool {
        self.modes.get().is_some_and(|modes| {
            let timeouts = [&modes.read_timeout, &modes.write_timeout];
            modes.nonblocking.load(Relaxed) || timeouts.iter().any(|way| way.load(Relaxed) != 0)
        })
    }

    #[inline]
    pub(super) fn timeout(&self, way: Way) -> Option<Duration> {
        self.modes.get()?;
        match self.timeout_of(way).load(Relaxed) {
            0 => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    #[inline]
    fn owner(&self) -> Option<&Habit> {
        Some(self.inner.habit())
    }

    #[inline]
    fn flags(&self, flags: i32) -> i32 {
        if self.is_nonblocking() { flags | libc::MSG_DONTWAIT } else { flags }
    }

    /// `recv`.
    #[inline]
    pub(super) fn recv(&self, buf: &mut [u8], flags: i32) -> io::Result<usize> {
        self.receive(buf, flags, None, false)
    }

    /// `recv` from a stream; of TCP, if it `tells`.
    #[inline]
    pub(super) fn read(&self, buf: &mut [u8], tells: bool) -> io::Result<usize> {
        let (habit, len) = (self.inner.habit(), buf.len());
        let n = self.receive(buf, 0, Some(habit), tells)?;
        // Who did not get all that he had room for has read it empty. The driver may know more.
        if n < len && habit.reads() != op::Way::Quick {
            habit.set_reads(op::Way::Ring);
        }
        Ok(n)
    }

    #[inline]
    fn receive(
        &self,
        buf: &mut [u8],
        flags: i32,
        habit: Option<&Habit>,
        tells: bool,
    ) -> io::Result<usize> {
        let (fd, flags, len) = (self.as_fd(), self.flags(flags), buf.len().min(MAX_TRANSFER));
        let buf = &mut buf[..len];
        let op =
            Op::Recv { fd, buf, flags, habit, tells, poll_first: false, turn: 0, tried: false };
        self.receive_by(op, flags)
    }

    /// `send`.
    #[inline]
    pub(super) fn send(&self, buf: &[u8]) -> io::Result<usize> {
        let (fd, flags, len) = (self.as_fd(), self.flags(0), buf.len().min(MAX_TRANSFER));
        let op = Op::Send { fd, buf: &buf[..len], flags, owner: self.owner(), tried: false };
        in_time(submit_within(op, self.timeout(Way::Write))).map(count)
    }

    /// `readv`, for streams.
    pub(super) fn recv_vectored(&self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        if bufs.iter().all(|buf| buf.is_empty()) {
            return Ok(0); // `recvmsg` would wait, which `readv` does not
        }
        self.recv_message(&mut Incoming::new(bufs, None, None), 0)
    }

    /// `recvmsg`; the caller completes the message.
    pub(super) fn recv_message(&self, message: &mut Incoming<'_>, flags: i32) -> io::Result<usize> {
        let (fd, flags) = (self.as_fd(), self.flags(flags));
        let op = Op::RecvMsg { fd, message: message.lend(), flags, owner: self.owner() };
        self.receive_by(op, flags)
    }

    #[inline]
    fn receive_by(&self, mut op: Op<'_>, flags: i32) -> io::Result<usize> {
        if flags & libc::MSG_DONTWAIT != 0 && current::must_not_suspend() {
            return decode(perform(&mut op)).map(count); // which does not wait
        }
        in_time(submit_within(op, self.timeout(Way::Read))).map(count)
    }

    /// `recvfrom`, with the sender's address.
    pub(super) fn recv_from(&self, buf: &mut [u8], flags: i32) -> io::Result<(usize, SockAddr)> {
        let mut addr = SockAddr::unknown();
        let bufs = &mut [IoSliceMut::new(buf)];
        let mut message = Incoming::new(bufs, Some(&mut addr), None);
        let n = self.recv_message(&mut message, flags)?;
        message.finish();
        Ok((n, addr))
    }

    /// `sendmsg` of several buffers.
    pub(super) fn send_vectored(&self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.send_message(&Outgoing::new(&bufs[..bufs.len().min(IOV_MAX)], None, None))
    }

    /// `sendto`.
    pub(super) fn send_to(&self, buf: &[u8], addr: &SockAddr) -> io::Result<usize> {
        self.send_message(&Outgoing::new(&[IoSlice::new(buf)], Some(addr), None))
    }

    /// `sendmsg`.
    pub(super) fn send_message(&self, message: &Outgoing<'_>) -> io::Result<usize> {
        let (fd, flags) = (self.as_fd(), self.flags(0));
        let op = Op::SendMsg { fd, message, flags, owner: self.owner() };
        in_time(submit_within(op, self.timeout(Way::Write))).map(count)
    }

    /// What keeps connections in the kernel, for one who waits there.
    pub(super) fn expect_connection(&self) -> Expecting<'_> {
        self.modes().line.expect(self.as_fd())
    }

    /// One of the connections that were accepted ahead.
    pub(super) fn accept_ahead(&self) -> Option<io::Result<(OwnedFd, SockAddr)>> {
        self.modes().line.pop(self.as_fd()).map(with_peer)
    }

    /// `accept4` of what is there, for a caller whom `poll` has told that there is something.
    pub(super) fn try_accept(&self) -> io::Result<(OwnedFd, SockAddr)> {
        let mut addr = SockAddr::unknown();
        let op = Op::Accept { fd: self.as_fd(), addr: &mut addr, flags: libc::SOCK_CLOEXEC };
        let done = at_once(op);
        let fd = done.result.map(|_| done.fd)?;
        Ok((fd.expect("an accept gives a descriptor"), addr))
    }

    /// `accept4`, unless one of the connections that were accepted ahead is left.
    pub(super) fn accept(&self) -> io::Result<(OwnedFd, SockAddr)> {
        let until = self.patience();
        match self.modes().line.enter(self.as_fd(), None, until)? {
            Entered::Taken(fd) => with_peer(fd),
            Entered::Waits(_waits) => self.accept_one(until),
        }
    }

    /// The next connection for an iterator over them.
    pub(super) fn accept_next(&self, pace: &mut Pace) -> io::Result<OwnedFd> {
        let until = self.patience();
        let takes = pace.is_prompt(accepting_pass()) && !self.is_nonblocking();
        let line = &self.modes().line;
        let fd = match line.enter(self.as_fd(), takes.then_some(&mut *pace), until)? {
            Entered::Taken(fd) => fd,
            Entered::Waits(_waits) => self.accept_one(until)?.0,
        };
        pace.returned(fd.as_raw_fd(), accepting_pass());
        Ok(fd)
    }

    /// Until when a connection may be waited for; in non-blocking mode, not at all.
    fn patience(&self) -> Option<Instant> {
        let time =
            if self.is_nonblocking() { Some(Duration::ZERO) } else { self.timeout(Way::Read) };
        time.and_then(|time| Instant::now().checked_add(time))
    }

    /// `accept4`, repeated while signals interrupt it, as std does.
    fn accept_one(&self, until: Option<Instant>) -> io::Result<(OwnedFd, SockAddr)> {
        let mut addr = SockAddr::unknown();
        loop {
            let op = Op::Accept { fd: self.as_fd(), addr: &mut addr, flags: libc::SOCK_CLOEXEC };
            // The mode is the socket's: another owner may have changed it back, and then the call
            // would hold up the worker.
            let accepted = if self.is_nonblocking() && file::is_nonblocking(self.as_fd()) {
                perform_fd(op) // which then does not wait
            } else {
                let left = until.filter(|_| self.timeout(Way::Read).is_some());
                let left = left.map(|until| until.saturating_duration_since(Instant::now()));
                // The kernel gives a thread all of the listener's timeout, of which some is over.
                let late = left.filter(|_| blocks_thread());
                if late.is_some() && poll_many(&[(self.as_fd(), libc::POLLIN)], late).is_none() {
                    if late == Some(Duration::ZERO) {
                        return in_time(None);
                    }
                    continue;
                }
                in_time(submit_fd_within(op, left))
            };
            match accepted {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                accepted => return Ok((accepted?, addr)),
            }
        }
    }
}

/// An accepted connection with its address, which one that was reset has not any more.
fn with_peer(fd: OwnedFd) -> io::Result<(OwnedFd, SockAddr)> {
    let gone = |_| io::Error::from_raw_os_error(libc::ECONNABORTED);
    let addr = SockAddr::of_peer(fd.as_fd()).map_err(gone)?;
    Ok((fd, addr))
}

/// Its ops go through the ring, which then may hold on to the socket for a moment.
fn detach<S: Into<OwnedFd>>(inner: S) -> Detach<S> {
    let socket = Detach::new(inner);
    socket.habit().set_ringed();
    socket
}

/// What std reports when a timeout of the socket has run out.
pub(super) fn in_time<T>(result: Option<io::Result<T>>) -> io::Result<T> {
    result.unwrap_or_else(|| Err(io::Error::from_raw_os_error(libc::EAGAIN)))
}

fn count(n: u32) -> usize {
    n as usize // a u32 fits into every usize Linux has
}

/// `connect` of a socket that nobody else has; the caller drops it if that fails.
pub(super) fn connect(
    fd: BorrowedFd<'_>,
    addr: &SockAddr,
    timeout: Option<Duration>,
) -> io::Result<()> {
    let hasty = connects_in_haste();
    if hasty {
        decode(file::set_nonblocking(fd, true))?;
    }
    connect_within(fd, addr, timeout)?;
    if hasty {
        decode(file::set_nonblocking(fd, false))?;
    }
    Ok(())
}

fn connect_within(
    fd: BorrowedFd<'_>,
    addr: &SockAddr,
    timeout: Option<Duration>,
) -> io::Result<()> {
    let late = || Err(io::Error::new(io::ErrorKind::TimedOut, "connection timed out"));
    match submit_within(Op::Connect { fd, addr }, timeout).unwrap_or_else(late) {
        // A signal does not end the attempt: it goes on, and the socket is writable at its end.
        Err(error) if error.kind() == io::ErrorKind::Interrupted => {
            let written = Op::Poll { fd, events: libc::POLLOUT };
            submit_within(written, timeout).unwrap_or_else(late)?;
            take_error(fd)?.map_or(Ok(()), Err)
        }
        result => result.map(drop),
    }
}

impl<S: Into<OwnedFd> + AsFd> AsFd for Socket<S> {
    #[inline]
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl<S: Into<OwnedFd> + AsFd> AsRawFd for Socket<S> {
    #[inline]
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl<S: Into<OwnedFd> + fmt::Debug> fmt::Debug for Socket<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// Reading from and writing to a stream.
macro_rules! stream {
    ($name:ident, tells: $tells:literal) => {
        super::socket::copies!(CopySource, $name);
        super::socket::copies!(CopySource, &$name);
        super::socket::copies!(CopySink, $name);
        super::socket::copies!(CopySink, &$name);

        impl Read for &$name {
            #[inline]
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                self.0.read(buf, $tells)
            }

            fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
                self.0.recv_vectored(bufs)
            }
        }

        impl Write for &$name {
            #[inline]
            fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
                self.0.send(buf)
            }

            fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
                self.0.send_vectored(bufs)
            }

            /// Does nothing: nothing is held back.
            #[inline]
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        impl Read for $name {
            #[inline]
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                (&*self).read(buf)
            }

            fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
                (&*self).read_vectored(bufs)
            }
        }

        impl Write for $name {
            #[inline]
            fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
                (&*self).write(buf)
            }

            fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
                (&*self).write_vectored(bufs)
            }

            /// Does nothing: nothing is held back.
            #[inline]
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
    };
}

/// The kernel may copy from and to a stream, unless timeouts are to be obeyed.
macro_rules! copies {
    ($way:ident, $name:ty) => {
        impl crate::io::$way for $name {
            fn fd(&self) -> Option<BorrowedFd<'_>> {
                Some(self.as_fd()).filter(|_| !self.0.has_modes())
            }
        }
    };
}

/// Timeouts, as in std.
macro_rules! timeouts {
    ($name:ident) => {
        impl $name {
            /// Sets how long a read may take; `None` is for ever.
            ///
            /// # Errors
            /// [`InvalidInput`](io::ErrorKind::InvalidInput) if it is zero.
            pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
                self.0.std().set_read_timeout(timeout)?;
                self.0.keep_timeout(Way::Read, timeout);
                Ok(())
            }

            /// Sets how long a write may take; `None` is for ever.
            ///
            /// # Errors
            /// [`InvalidInput`](io::ErrorKind::InvalidInput) if it is zero.
            pub fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
                self.0.std().set_write_timeout(timeout)?;
                self.0.keep_timeout(Way::Write, timeout);
                Ok(())
            }

            /// How long a read may take.
            ///
            /// # Errors
            /// Those of `getsockopt`.
            pub fn read_timeout(&self) -> io::Result<Option<Duration>> {
                self.0.std().read_timeout()
            }

            /// How long a write may take.
            ///
            /// # Errors
            /// Those of `getsockopt`.
            pub fn write_timeout(&self) -> io::Result<Option<Duration>> {
                self.0.std().write_timeout()
            }
        }
    };
}

/// Conversions to and from descriptors and std's types.
macro_rules! descriptor {
    ($name:ident, $std:ty, $ask:expr) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl AsFd for $name {
            #[inline]
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.0.as_fd()
            }
        }

        impl AsRawFd for $name {
            #[inline]
            fn as_raw_fd(&self) -> RawFd {
                self.0.as_raw_fd()
            }
        }

        impl IntoRawFd for $name {
            fn into_raw_fd(self) -> RawFd {
                self.0.into_std().into_raw_fd()
            }
        }

        impl From<$name> for OwnedFd {
            fn from(socket: $name) -> OwnedFd {
                socket.0.into_std().into()
            }
        }

        impl From<OwnedFd> for $name {
            fn from(fd: OwnedFd) -> $name {
                <$std>::from(fd).into()
            }
        }

        impl From<$std> for $name {
            /// Takes over std's socket, with the timeouts that it has.
            fn from(socket: $std) -> $name {
                $name(Socket::adopt(socket, $ask))
            }
        }

        impl From<$name> for $std {
            fn from(socket: $name) -> $std {
                socket.0.into_std()
            }
        }
    };
}

pub(super) use {copies, descriptor, stream, timeouts};
