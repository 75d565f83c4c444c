//! Standard input, output and error.
//!
//! As std's there is one of each for the whole process. The descriptors are 0, 1 and 2, whatever
//! these are at the moment. A lock of an output is two: one that is re-entrant and held by a guard,
//! and below it one of the buffer that is held for the time of one call.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, BufRead, ErrorKind, IsTerminal, LineWriter, Lines, Read, Write};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use crate::cancel;
use crate::fs::fifo_has_data;
use crate::op::{AT_POSITION, MAX_TRANSFER, Op, decode, perform};
use crate::sched::{blocks_thread, current, submit};
use crate::sync::{Mutex, MutexGuard, PoisonError, Semaphore, TryLockError};
use crate::sys::{fifo, process};

/// How much of the input is asked for at once.
const CHUNK: usize = 8 * 1024;

/// Set when the process ends: nothing suspends any more, and nothing is held back.
static EXITING: AtomicBool = AtomicBool::new(false);

/// One of the three descriptors.
#[derive(Clone, Copy)]
enum Raw {
    In,
    Out,
    Err,
}

static IN: LazyLock<io::Stdin> = LazyLock::new(io::stdin);
static OUT: LazyLock<io::Stdout> = LazyLock::new(io::stdout);
static ERR: LazyLock<io::Stderr> = LazyLock::new(io::stderr);

impl Raw {
    fn fd(self) -> BorrowedFd<'static> {
        match self {
            Raw::In => IN.as_fd(),
            Raw::Out => OUT.as_fd(),
            Raw::Err => ERR.as_fd(),
        }
    }
}

impl Raw {
    /// The descriptor, unless [`copy`](super::copy()) is to read or write through the stream: a
    /// ring must not see the end of a FIFO.
    fn fd_to_copy(self) -> Option<BorrowedFd<'static>> {
        let fd = self.fd();
        let named = || fifo::is_pipe(fd) && fifo::has_name(fd).is_ok_and(|named| named);
        let refused = EXITING.load(Relaxed) || (matches!(self, Raw::In) && named());
        (!refused).then_some(fd)
    }
}

fn run(mut op: Op<'_>) -> io::Result<u32> {
    if EXITING.load(Relaxed) {
        return decode::decode(perform::perform(&mut op));
    }
    submit(op)
}

/// Repeats an op until the descriptor is ready for it: others may have made it non-blocking. One
/// that is closed gives `closed`.
fn until_ready(
    fd: BorrowedFd<'_>,
    events: i16,
    closed: usize,
    mut f: impl FnMut() -> io::Result<u32>,
) -> io::Result<usize> {
    loop {
        match f() {
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                run(Op::Poll { fd, events })?;
            }
            Err(e) if e.raw_os_error() == Some(libc::EBADF) => return Ok(closed),
            result => return result.map(|n| n as usize),
        }
    }
}

impl Read for Raw {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = buf.len().min(MAX_TRANSFER);
        let (fd, buf, offset) = (self.fd(), &mut buf[..len], AT_POSITION);
        // A ring must not see the end of a FIFO; see `File::has_ended`.
        let named = fifo::is_pipe(fd) && fifo::has_name(fd).is_ok_and(|named| named);
        until_ready(fd, libc::POLLIN, 0, || {
            if named && !blocks_thread() && !fifo_has_data(fd)? {
                return Ok(0);
            }
            run(Op::Read { fd, buf: &mut *buf, offset, habit: None, nowait: false })
        })
    }
}

impl Write for Raw {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let (fd, buf) = (self.fd(), &buf[..buf.len().min(MAX_TRANSFER)]);
        until_ready(fd, libc::POLLOUT, buf.len(), || {
            run(Op::Write { fd, buf, offset: AT_POSITION, habit: None })
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// An output and its locks.
struct Shared<W> {
    /// Who has the lock, as `me` names them, and how often. The holder's alone but for the look
    /// whether it is oneself.
    owner: AtomicUsize,
    depth: AtomicUsize,
    free: Semaphore,
    sink: Mutex<W>,
    raw: Raw,
}

/// A number that no other fiber or plain thread has meanwhile.
fn me() -> usize {
    thread_local!(static HERE: u8 = const { 0 });
    match current::fiber() {
        Some((_, fiber)) => fiber.address(),
        None => HERE.with(|here| std::ptr::from_ref(here).addr()),
    }
}

/// Whether waiting would block a worker, for what may be one of its own fibers.
fn blocks_worker() -> bool {
    EXITING.load(Relaxed) || (blocks_thread() && current::worker().is_some())
}

impl<W: Write> Shared<W> {
    fn new(sink: W, raw: Raw) -> Self {
        let (owner, depth) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { owner, depth, free: Semaphore::new(1), sink: Mutex::new(sink), raw }
    }

    fn lock(&'static self) -> Held<W> {
        let me = me();
        let held = self.owner.load(Relaxed) == me || self.take();
        if held {
            self.owner.store(me, Relaxed);
            self.depth.fetch_add(1, Relaxed);
        }
        Held { shared: self, held, _not_send: PhantomData }
    }

    /// Takes the lock, or gives up where waiting might never end.
    fn take(&self) -> bool {
        let permit = match self.free.try_acquire() {
            Ok(permit) => permit,
            Err(_) if blocks_worker() => return false,
            Err(_) => cancel::shield(|| self.free.acquire()).expect("it is never closed"),
        };
        permit.forget();
        true
    }
}

/// The re-entrant lock, or (if not `held`) the permission to write past it.
struct Held<W: Write + 'static> {
    shared: &'static Shared<W>,
    held: bool,
    /// It belongs to a fiber, which does not change its thread.
    _not_send: PhantomData<*const ()>,
}

impl<W: Write> Held<W> {
    fn sink(&self) -> Option<MutexGuard<'static, W>> {
        if !self.held {
            return None;
        }
        match self.shared.sink.try_lock() {
            Ok(sink) => Some(sink),
            Err(TryLockError::Poisoned(error)) => Some(error.into_inner()),
            Err(TryLockError::WouldBlock) if blocks_worker() => None,
            // The guard was given to another fiber of this worker, which writes.
            Err(TryLockError::WouldBlock) => {
                Some(self.shared.sink.lock().unwrap_or_else(PoisonError::into_inner))
            }
        }
    }
}

impl<W: Write> Write for Held<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let mut past = self.shared.raw;
        let Some(mut sink) = self.sink() else { return past.write(buf) };
        let count = sink.write(buf)?;
        if EXITING.load(Relaxed) {
            sink.flush()?;
        }
        Ok(count)
    }

    fn write_all(&mut self, buf: &[u8]) -> io::Result<()> {
        let mut past = self.shared.raw;
        let Some(mut sink) = self.sink() else { return past.write_all(buf) };
        sink.write_all(buf)?;
        if EXITING.load(Relaxed) { sink.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink().map_or(Ok(()), |mut sink| sink.flush())
    }
}

impl<W: Write> Drop for Held<W> {
    fn drop(&mut self) {
        if self.held && self.shared.depth.fetch_sub(1, Relaxed) == 1 {
            self.shared.owner.store(0, Relaxed);
            self.shared.free.add_permits(1);
        }
    }
}

static STDOUT: LazyLock<Shared<LineWriter<Raw>>> = LazyLock::new(|| {
    process::at_exit(flush_at_exit);
    Shared::new(LineWriter::new(Raw::Out), Raw::Out)
});
static STDERR: LazyLock<Shared<Raw>> = LazyLock::new(|| Shared::new(Raw::Err, Raw::Err));
static STDIN: LazyLock<Mutex<Input>> =
    LazyLock::new(|| Mutex::new(Input { buf: Vec::new(), taken: 0 }));

/// Writes what the buffer holds, unless somebody else has the lock. As std's.
extern "C" fn flush_at_exit() {
    EXITING.store(true, Relaxed);
    let _ = STDOUT.lock().flush();
}

/// What has been read of the input, of which the first `taken` bytes have been handed out.
struct Input {
    buf: Vec<u8>,
    taken: usize,
}

impl Input {
    fn left(&self) -> &[u8] {
        &self.buf[self.taken..]
    }

    /// Reads once, and keeps it. Returns whether there was something.
    fn more(&mut self) -> io::Result<bool> {
        self.buf.drain(..self.taken);
        self.taken = 0;
        let old = self.buf.len();
        self.buf.resize(old + CHUNK, 0);
        let result = loop {
            match Raw::In.read(&mut self.buf[old..]) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        self.buf.truncate(old + result.as_ref().map_or(0, |n| *n));
        result.map(|n| n > 0)
    }

    /// The length of what is left up to and with `byte`, or to the end. Takes nothing.
    fn until(&mut self, byte: u8) -> io::Result<usize> {
        let mut seen = 0;
        loop {
            if let Some(at) = self.left()[seen..].iter().position(|b| *b == byte) {
                return Ok(seen + at + 1);
            }
            seen = self.left().len();
            if !self.more()? {
                return Ok(seen);
            }
        }
    }
}

/// The standard input of the process. As [`std::io::stdin`], with a buffer of its own: what one of
/// the two has read ahead the other does not see.
///
/// # Examples
/// ```no_run
/// #[ramie::main]
/// fn main() -> std::io::Result<()> {
///     for line in ramie::io::stdin().lines() {
///         ramie::println!("{}", line?.to_uppercase());
///     }
///     Ok(())
/// }
/// ```
pub fn stdin() -> Stdin {
    Stdin(())
}

/// The standard output of the process, which writes line by line. As [`std::io::stdout`], with a
/// buffer of its own.
///
/// What it holds at the end of the process (a return from `main`, or [`std::process::exit`]) is
/// written then, unless a lock is held elsewhere.
///
/// # Examples
/// ```
/// use ramie::io::{self, Write};
///
/// ramie::Runtime::new()?.run(|| {
///     let mut out = io::stdout().lock();
///     writeln!(out, "together")?;
///     writeln!(out, "with this")
/// })?;
/// # io::Result::Ok(())
/// ```
pub fn stdout() -> Stdout {
    Stdout(())
}

/// The standard error output of the process, without a buffer. As [`std::io::stderr`].
///
/// # Examples
/// ```
/// use ramie::io::Write;
///
/// writeln!(ramie::io::stderr(), "warning: this is an example")?;
/// # std::io::Result::Ok(())
/// ```
pub fn stderr() -> Stderr {
    Stderr(())
}

/// A handle of the standard input, see [`stdin`]. A fiber that waits for it suspends.
///
/// # Cancellation
/// A read that is cancelled has taken nothing. Nor has [`read_line`](Self::read_line), or a step of
/// [`lines`](Self::lines): the part of a line that had come is there for the next call. Waiting for
/// the lock cannot be cancelled.
pub struct Stdin(());

/// A handle of the standard input, locked. As in std the lock is not re-entrant.
pub struct StdinLock<'a>(MutexGuard<'static, Input>, PhantomData<&'a ()>);

impl Stdin {
    /// Waits until nobody else reads, and keeps others from it until the result is dropped.
    pub fn lock(&self) -> StdinLock<'static> {
        StdinLock(STDIN.lock().unwrap_or_else(PoisonError::into_inner), PhantomData)
    }

    /// Appends a line and its newline. Returns how many bytes that are; 0 is the end.
    ///
    /// # Errors
    /// If reading fails, or the line is not UTF-8.
    pub fn read_line(&self, line: &mut String) -> io::Result<usize> {
        self.lock().read_line(line)
    }

    /// The lines, without their newlines. Holds the lock.
    pub fn lines(self) -> Lines<StdinLock<'static>> {
        self.lock().lines()
    }

    pub(super) fn fd_to_copy(&self) -> Option<BorrowedFd<'static>> {
        Raw::In.fd_to_copy()
    }
}

impl StdinLock<'_> {
    /// What has been read ahead.
    pub(super) fn left(&self) -> &[u8] {
        self.0.left()
    }

    pub(super) fn fd_to_copy(&self) -> Option<BorrowedFd<'static>> {
        Raw::In.fd_to_copy()
    }
}

impl Read for StdinLock<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.0.left().is_empty() && buf.len() >= CHUNK {
            return Raw::In.read(buf);
        }
        let count = self.fill_buf()?.read(buf)?;
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for StdinLock<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.0.left().is_empty() {
            self.0.more()?;
        }
        Ok(self.0.left())
    }

    fn consume(&mut self, count: usize) {
        self.0.taken = (self.0.taken + count).min(self.0.buf.len());
    }

    fn read_until(&mut self, byte: u8, buf: &mut Vec<u8>) -> io::Result<usize> {
        let count = self.0.until(byte)?;
        buf.extend_from_slice(&self.0.left()[..count]);
        self.consume(count);
        Ok(count)
    }

    fn read_line(&mut self, line: &mut String) -> io::Result<usize> {
        let mut bytes = Vec::new();
        let count = self.read_until(b'\n', &mut bytes)?;
        let text = String::from_utf8(bytes)
            .map_err(|_| io::Error::new(ErrorKind::InvalidData, "the line is not valid UTF-8"))?;
        line.push_str(&text);
        Ok(count)
    }
}

impl Read for &Stdin {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.lock().read(buf)
    }

    fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        self.lock().read_to_end(buf)
    }

    fn read_to_string(&mut self, buf: &mut String) -> io::Result<usize> {
        self.lock().read_to_string(buf)
    }

    fn read_exact(&mut self, buf: &mut [u8]) -> io::Result<()> {
        self.lock().read_exact(buf)
    }
}

impl Read for Stdin {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        (&*self).read_to_end(buf)
    }

    fn read_to_string(&mut self, buf: &mut String) -> io::Result<usize> {
        (&*self).read_to_string(buf)
    }

    fn read_exact(&mut self, buf: &mut [u8]) -> io::Result<()> {
        (&*self).read_exact(buf)
    }
}

macro_rules! output {
    ($name:ident, $lock:ident, $sink:ty, $shared:ident, $fn:ident) => {
        #[doc = concat!("A handle of an output, see [`", stringify!($fn), "`]. ")]
        /// A fiber that waits for it suspends.
        ///
        /// While a thread unwinds nothing suspends: a write then blocks. If another fiber holds the
        /// lock it is not waited for, and what is written may get into the middle of its line.
        ///
        /// # Cancellation
        /// A write that is cancelled has written nothing. Waiting for the lock cannot be cancelled.
        pub struct $name(());

        #[doc = concat!("A handle of an output, locked, see [`", stringify!($fn), "`].")]
        pub struct $lock<'a>(Held<$sink>, PhantomData<&'a ()>);

        impl $name {
            /// Waits until no other fiber or thread has the lock, and takes it. Who has it may take
            /// it again.
            pub fn lock(&self) -> $lock<'static> {
                $lock($shared.lock(), PhantomData)
            }

            pub(super) fn fd_to_copy(&self) -> Option<BorrowedFd<'static>> {
                $shared.raw.fd_to_copy()
            }
        }

        impl $lock<'_> {
            /// `None` too if others may write meanwhile.
            pub(super) fn fd_to_copy(&self) -> Option<BorrowedFd<'static>> {
                self.0.shared.raw.fd_to_copy().filter(|_| self.0.held)
            }
        }

        output!(write $lock<'_>, self => self.0);
        output!(write &$name, self => self.lock());
        output!(write $name, self => self.lock());
    };
    (write $type:ty, $self:ident => $to:expr) => {
        impl Write for $type {
            fn write(&mut $self, buf: &[u8]) -> io::Result<usize> {
                $to.write(buf)
            }

            fn write_all(&mut $self, buf: &[u8]) -> io::Result<()> {
                $to.write_all(buf)
            }

            fn write_fmt(&mut $self, args: fmt::Arguments<'_>) -> io::Result<()> {
                $to.write_fmt(args)
            }

            fn flush(&mut $self) -> io::Result<()> {
                $to.flush()
            }
        }
    };
}

output!(Stdout, StdoutLock, LineWriter<Raw>, STDOUT, stdout);
output!(Stderr, StderrLock, Raw, STDERR, stderr);

macro_rules! handle {
    ($name:ty, $raw:ident) => {
        impl $name {
            /// Whether this is a terminal; also a method of [`IsTerminal`](super::IsTerminal).
            pub fn is_terminal(&self) -> bool {
                Raw::$raw.fd().is_terminal()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }

        impl AsRawFd for $name {
            fn as_raw_fd(&self) -> RawFd {
                self.as_fd().as_raw_fd()
            }
        }

        impl AsFd for $name {
            fn as_fd(&self) -> BorrowedFd<'_> {
                Raw::$raw.fd()
            }
        }
    };
}

handle!(Stdin, In);
handle!(StdinLock<'_>, In);
handle!(Stdout, Out);
handle!(StdoutLock<'_>, Out);
handle!(Stderr, Err);
handle!(StderrLock<'_>, Err);
