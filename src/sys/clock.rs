//! The monotonic clock, in nanoseconds.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A deadline that never comes.
pub(crate) const NEVER: u64 = u64::MAX;

fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

/// Nanoseconds since some fixed instant in this process's life.
pub(crate) fn now_ns() -> u64 {
    saturate(start().elapsed())
}

/// `timeout` from now; [`NEVER`] when that is more than five hundred years ahead.
pub(crate) fn deadline_ns(timeout: Duration) -> u64 {
    after(now_ns(), timeout)
}

/// `timeout` from `now_ns`; [`NEVER`] when that is out of range.
pub(crate) fn after(now_ns: u64, timeout: Duration) -> u64 {
    now_ns.saturating_add(saturate(timeout))
}

/// The instant of a deadline on std's clock, `None` for [`NEVER`].
pub(crate) fn instant(deadline_ns: u64) -> Option<Instant> {
    if deadline_ns == NEVER { None } else { start().checked_add(Duration::from_nanos(deadline_ns)) }
}

/// The deadline of an instant on std's clock; 0 if it lies before the fixed instant.
pub(crate) fn of_instant(instant: Instant) -> u64 {
    saturate(instant.saturating_duration_since(start()))
}

fn saturate(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(NEVER)
}
