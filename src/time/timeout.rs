//! Limits on how long something may take.

use crate::cancel::is_cancelled;
use crate::sched::cancel::{Ended, timed};
use crate::sys::clock;
use std::error::Error;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

/// Runs `f`, whose operations fail once `limit` has passed.
///
/// When the time has come, the operation that `f` waits in, or else its next one, fails with an
/// error that [`is_cancelled`](crate::is_cancelled) recognises, and the calls that
/// [`cancel`](crate::cancel) lists return early: as if the fiber had been asked to end. `f` is
/// expected to return that error, and `timeout` makes [`TimedOut`](io::ErrorKind::TimedOut) of it.
///
/// - An operation that has completed keeps its result. If `f` succeeds, so does `timeout`, however
///   long that took.
/// - Nothing is left behind: when `f` has returned, its deadline is over, reported or not.
/// - It is reported once. What `f` does to put things in order after that is not disturbed, and not
///   limited either.
/// - Timeouts nest, and the shorter one wins. The deadline of an outer one passes through an inner
///   one as a cancelled error, and becomes `TimedOut` where it belongs. So does a request by
///   [`JoinHandle::cancel`](crate::JoinHandle::cancel), and stays what it is.
/// - Fibers that `f` spawns are not under its deadline.
///
/// If `limit` is zero, `f` runs until its first operation.
///
/// On a plain thread, no operation begins after the deadline, and waits of this crate end at it,
/// but a system call that blocks is not broken off.
///
/// # Errors
/// `TimedOut` if `f` returned an error that its deadline has caused; else what `f` returned. An
/// error in which `f` has wrapped that of an operation counts as its own: see [`within`].
///
/// # Examples
/// ```
/// use ramie::time::{self, Duration};
/// use std::io::{self, Read};
/// use std::os::fd::OwnedFd;
///
/// ramie::Runtime::new()?.run(|| {
///     let (reader, _writer) = io::pipe()?;
///     let mut reader = ramie::fs::File::from(OwnedFd::from(reader));
///     let limit = Duration::from_millis(5);
///     let error = time::timeout(limit, || reader.read(&mut [0; 16])).unwrap_err();
///     assert_eq!(error.kind(), io::ErrorKind::TimedOut);
///     io::Result::Ok(())
/// })?;
/// # io::Result::Ok(())
/// ```
/// A sleep returns early and says nothing, so ask:
/// ```
/// use ramie::{cancel, time::{self, Duration}};
///
/// ramie::Runtime::new()?.run(|| {
///     let result = time::timeout(Duration::from_millis(5), || {
///         ramie::sleep(Duration::from_secs(3600));
///         cancel::check()
///     });
///     assert!(result.is_err());
/// });
/// # std::io::Result::Ok(())
/// ```
pub fn timeout<T>(limit: Duration, f: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let now_ns = clock::now_ns();
    own(timed(now_ns, clock::after(now_ns, limit), f))
}

/// As [`timeout`], until a point in time.
///
/// # Errors
/// As [`timeout`].
///
/// # Examples
/// ```
/// use ramie::time::{self, Duration, Instant};
///
/// ramie::Runtime::new()?.run(|| {
///     let end = Instant::now() + Duration::from_secs(60);
///     // Both together may take a minute.
///     let a = time::deadline(end, || ramie::fs::read("Cargo.toml"))?;
///     let b = time::deadline(end, || ramie::fs::read("README.md"))?;
///     assert!(!a.is_empty() && !b.is_empty());
///     std::io::Result::Ok(())
/// })?;
/// # std::io::Result::Ok(())
/// ```
pub fn deadline<T>(instant: Instant, f: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    own(timed(clock::now_ns(), clock::of_instant(instant), f))
}

fn own<T>(ended: Ended<io::Result<T>>) -> io::Result<T> {
    match ended.value {
        Err(error) if ended.owns_error && is_cancelled(&error) => {
            Err(io::ErrorKind::TimedOut.into())
        }
        result => result,
    }
}

/// As [`timeout`], for an `f` that may return anything. What it returns is never lost.
///
/// # Errors
/// [`Elapsed`], with what `f` returned, if it did so after the time was over.
///
/// # Examples
/// ```
/// use ramie::time::{self, Duration};
///
/// ramie::Runtime::new()?.run(|| {
///     let hour = Duration::from_secs(3600);
///     let late = time::within(Duration::from_millis(5), || {
///         ramie::sleep(hour); // returns early
///         "what there is"
///     });
///     assert_eq!(late.unwrap_err().into_inner(), "what there is");
///     assert_eq!(time::within(hour, || 7), Ok(7));
/// });
/// # std::io::Result::Ok(())
/// ```
pub fn within<T>(limit: Duration, f: impl FnOnce() -> T) -> Result<T, Elapsed<T>> {
    let now_ns = clock::now_ns();
    let deadline_ns = clock::after(now_ns, limit);
    let value = timed(now_ns, deadline_ns, f).value;
    if clock::now_ns() < deadline_ns { Ok(value) } else { Err(Elapsed(value)) }
}

/// The time of a [`within`] was over before its closure returned.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Elapsed<T>(T);

impl<T> Elapsed<T> {
    /// What the closure returned.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> fmt::Debug for Elapsed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Elapsed").finish_non_exhaustive()
    }
}

impl<T> fmt::Display for Elapsed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the time was over before the closure returned")
    }
}

impl<T> Error for Elapsed<T> {}

impl<T> From<Elapsed<T>> for io::Error {
    /// `TimedOut`; what the closure returned is dropped.
    fn from(_: Elapsed<T>) -> Self {
        io::ErrorKind::TimedOut.into()
    }
}
