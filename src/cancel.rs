//! Being asked to end early: what each call does then, and how to put it off.
//!
//! [`JoinHandle::cancel`](crate::JoinHandle::cancel) asks a fiber to end, and so does the deadline
//! of a [`timeout`](crate::time::timeout) that it is in. Nothing is unwound. The operation that the
//! fiber waits in fails, or else the next one: with an error that [`is_cancelled`] recognises and
//! that `?` carries to where it is known what to do. `timeout` makes
//! [`TimedOut`](std::io::ErrorKind::TimedOut) of it, if it was its own deadline.
//!
//! A request is *pending* from the moment it is made until an operation has failed for it, which
//! *reports* it. Each is reported once: whoever gets the error may still do I/O, to put things in
//! order. A second request while one is pending changes nothing.
//!
//! An operation that has done something keeps its result, even if a request came in the meantime,
//! and the next one fails instead. So a request never costs data: a read that fails with
//! `is_cancelled` has taken nothing, a write has written nothing.
//!
//! # What a request does
//! | the fiber is in, or comes to | while a request is pending |
//! |---|---|
//! | an operation of [`fs`](crate::fs), or any that returns an [`io::Result`] | fails and reports, unless it has completed or the kernel does not let go of it (an `fsync`); one that comes later is not begun |
//! | an operation that this kernel's io_uring does not know | is not begun, and reports; once it has begun, it is waited for |
//! | a call of [`fs`](crate::fs) that no io_uring knows (listings, permissions, times, owners, `read_link`, `canonicalize`, the bulk of `copy`) | nothing: it is begun, and waited for |
//! | starting a process | is not begun, and reports; once it has begun, it is waited for |
//! | waiting for a process, or for its output | fails and reports; the process goes on |
//! | closing a descriptor, by `close` or by a drop | is done all the same, and does not report |
//! | [`sleep`](crate::sleep), [`sleep_until`](crate::time::sleep_until), [`Interval::tick`](crate::time::Interval::tick) | returns early, every time, until the request has been reported |
//! | [`park`](crate::park), [`park_timeout`](crate::park_timeout) | wakes once |
//! | [`yield_now`](crate::yield_now) | nothing |
//! | [`join`](crate::JoinHandle::join), `join_timeout`, `cancel_join` | nothing: the result would be lost. Cancel the fiber that is waited for |
//! | the end of a [`scope`](crate::scope()), the next of a [`FiberSet`](crate::FiberSet) | nothing: cancel the fibers that are waited for |
//! | the end of a [`try_scope`](crate::try_scope()), [`race`](crate::race()), [`join`](crate::join()) | is passed on to the fibers that are waited for, once, and stays pending |
//! | [`unblock`](crate::unblock) | nothing: the closure borrows, and runs to its end |
//! | locking a mutex or a read-write lock | nothing |
//! | waiting on a condition variable | returns early, as spurious wake-ups do |
//! | waiting for an event, a permit or a turn, or in a `select!` | returns early where that says nothing false; else nothing. Each says so under "Cancellation" |
//! | sending to a channel, receiving from it | fails as if the other side were gone; the value comes back |
//! | [`check`] | fails and reports |
//! | a [`shield`] | nothing, until it has been left |
//! | [`no_suspend`](crate::no_suspend), computing | nothing |
//! | a destructor while its thread unwinds | nothing: operations are performed |
//!
//! Only what fails with an [`io::Error`] that [`is_cancelled`] recognises reports.
//! A fiber that has not started yet starts, and its first operation fails. One that has ended keeps
//! its result.
//!
//! When several reasons are pending, an operation reports one: a handle's request first, then the
//! outermost deadline. What lies inside is about to be left anyway.
//!
//! # On a plain thread
//! There are no requests, only deadlines. The waits of this crate end at them (sleeping, parking,
//! and what the table says about the others), and no operation begins after one; but a system call
//! that blocks is not broken off.
//!
//! # Shutdown
//! When a [`Runtime`](crate::Runtime) is dropped, all operations fail with an error that
//! [`is_cancelled`] recognises, every time and also inside a shield: there is no driver any more
//! that could perform them.
//!
//! # Examples
//! A fiber that tidies up when it is cancelled:
//! ```
//! use std::io::{self, Read};
//! use std::os::fd::OwnedFd;
//!
//! ramie::Runtime::new()?.run(|| {
//!     let (reader, _writer) = io::pipe()?;
//!     let mut reader = ramie::fs::File::from(OwnedFd::from(reader));
//!     let fiber = ramie::spawn(move || {
//!         match reader.read(&mut [0; 16]) {
//!             Err(error) if ramie::is_cancelled(&error) => {
//!                 // Reported, so this works again.
//!                 ramie::fs::metadata("Cargo.toml")?;
//!                 Err(error)
//!             }
//!             result => result,
//!         }
//!     });
//!     assert!(ramie::is_cancelled(&fiber.cancel_join().unwrap().unwrap_err()));
//!     io::Result::Ok(())
//! })?;
//! # io::Result::Ok(())
//! ```
#![forbid(unsafe_code)]

use crate::sched;
use std::io;

/// Whether an operation failed because its fiber was asked to end, or a deadline expired that it
/// was under, or its runtime shut down.
///
/// # Examples
/// ```
/// let error = std::io::Error::from_raw_os_error(125); // ECANCELED
/// assert!(ramie::is_cancelled(&error));
/// ```
pub fn is_cancelled(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ECANCELED)
}

/// Fails if an operation would fail now for a request or a deadline, and reports it.
///
/// For code that computes for long, or that waits in calls which return early and say nothing, such
/// as [`sleep`](crate::sleep). It never waits, and may be called in
/// [`no_suspend`](crate::no_suspend).
///
/// # Errors
/// One that [`is_cancelled`] recognises.
///
/// # Examples
/// ```
/// use std::io;
/// use std::time::Duration;
/// use ramie::time;
///
/// fn count_up() -> io::Result<u64> {
///     let mut n = 0;
///     loop {
///         ramie::cancel::check()?;
///         n += 1;
///     }
/// }
///
/// ramie::Runtime::new()?.run(|| {
///     let error = time::timeout(Duration::from_millis(5), count_up).unwrap_err();
///     assert_eq!(error.kind(), io::ErrorKind::TimedOut);
/// });
/// # io::Result::Ok(())
/// ```
pub fn check() -> io::Result<()> {
    sched::cancel::check()
}

/// Whether [`check`] would fail. Reports nothing.
pub fn is_requested() -> bool {
    sched::cancel::is_requested()
}

/// Makes the request pending again that was reported last, so that the next operation fails too.
///
/// For a function that gets the error, has to return something else than that error, and wants its
/// callers' next operation to fail all the same. Does nothing if nothing was reported, or if that
/// was a deadline whose [`timeout`](crate::time::timeout) has been left.
///
/// # Examples
/// ```
/// use ramie::cancel;
/// use std::time::Duration;
///
/// /// Naps, and never fails.
/// fn nap() {
///     ramie::sleep(Duration::from_secs(3600));
///     if cancel::check().is_err() {
///         cancel::recancel();
///     }
/// }
///
/// ramie::Runtime::new()?.run(|| {
///     let fiber = ramie::spawn(|| {
///         nap();
///         ramie::fs::read("Cargo.toml")
///     });
///     assert!(ramie::is_cancelled(&fiber.cancel_join().unwrap().unwrap_err()));
/// });
/// # std::io::Result::Ok(())
/// ```
pub fn recancel() {
    sched::cancel::recancel();
}

/// Runs `f` as if nobody had asked the fiber to end: requests, and the deadlines of the
/// [`timeout`](crate::time::timeout)s around it, stay pending until it returns.
///
/// For what must be done in full, or not at all. Timeouts inside `f` work as everywhere. Shields
/// may be nested; the outermost counts.
///
/// A request still wakes a [`park`](crate::park) inside, which may always return for no reason.
///
/// # Examples
/// ```
/// use ramie::cancel;
///
/// ramie::Runtime::new()?.run(|| {
///     let fiber = ramie::spawn_local(|| { // starts when this one waits
///         let text = cancel::shield(|| ramie::fs::read_to_string("Cargo.toml"))?;
///         assert!(text.contains("ramie"));
///         ramie::fs::read("Cargo.toml") // outside again
///     });
///     assert!(ramie::is_cancelled(&fiber.cancel_join().unwrap().unwrap_err()));
/// });
/// # std::io::Result::Ok(())
/// ```
pub fn shield<T>(f: impl FnOnce() -> T) -> T {
    sched::cancel::shielded(f)
}
