//! Sleeping, ticking, and limits on how long something may take.
//!
//! | file          | what                                              |
//! |---------------|---------------------------------------------------|
//! | `mod.rs`      | [`sleep`], [`sleep_until`]                        |
//! | `interval.rs` | [`Interval`]: ticks                               |
//! | `timeout.rs`  | [`timeout`], [`deadline`], [`within`]             |
//!
//! A timer is an entry in its worker's heap, and costs no system call. It fires at its time or a
//! little later, never earlier. A worker that has many timers fires those that lie close together
//! at one go, up to 0.35 ms late, rather than wake up for each.
#![forbid(unsafe_code)]

mod interval;
mod timeout;

pub use interval::{Interval, MissedTick, interval, interval_at};
pub use std::time::{
    Duration, Instant, SystemTime, SystemTimeError, TryFromFloatSecsError, UNIX_EPOCH,
};
pub use timeout::{Elapsed, deadline, timeout, within};

use crate::coro::{OnCancel, Signal};
use crate::sched::{self, cancel, current};
use crate::sys::clock;
use std::thread;

/// Lets the fiber sleep for at least `duration`; on a plain thread, as [`std::thread::sleep`].
///
/// # Cancellation
/// Returns early while a cancel request of the fiber is unreported, or a deadline that it is under.
/// [`cancel::check`](crate::cancel::check) says so, and reports it.
///
/// # Examples
/// ```
/// use std::time::{Duration, Instant};
///
/// ramie::Runtime::new()?.run(|| {
///     let start = Instant::now();
///     ramie::sleep(Duration::from_millis(5));
///     assert!(start.elapsed() >= Duration::from_millis(5));
/// });
/// # std::io::Result::Ok(())
/// ```
pub fn sleep(duration: Duration) {
    if duration.is_zero() {
        sched::submit::yield_now();
    } else {
        sleep_until_ns(clock::deadline_ns(duration));
    }
}

/// Lets the fiber sleep until `instant` has come; on a plain thread, blocks it.
///
/// # Cancellation
/// As [`sleep`].
///
/// # Examples
/// ```
/// use ramie::time::{self, Duration, Instant};
///
/// ramie::Runtime::new()?.run(|| {
///     let end = Instant::now() + Duration::from_millis(5);
///     time::sleep_until(end);
///     assert!(Instant::now() >= end);
/// });
/// # std::io::Result::Ok(())
/// ```
pub fn sleep_until(instant: Instant) {
    let deadline_ns = clock::of_instant(instant);
    if deadline_ns <= clock::now_ns() {
        sched::submit::yield_now();
    } else {
        sleep_until_ns(deadline_ns);
    }
}

fn sleep_until_ns(deadline_ns: u64) {
    if current::suspendable().is_some() {
        let never = Signal::new();
        sched::wait(&never, Some(deadline_ns), OnCancel::End);
        return;
    }
    let end_ns = cancel::end_of_wait(Some(deadline_ns), OnCancel::End).unwrap_or(deadline_ns);
    loop {
        // Once more if the deadline is centuries away, as that of `Duration::MAX` is.
        thread::sleep(Duration::from_nanos(end_ns.saturating_sub(clock::now_ns())));
        if end_ns <= clock::now_ns() {
            return;
        }
    }
}
