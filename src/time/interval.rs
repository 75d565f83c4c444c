//! Ticks.

use super::sleep_until;
use std::time::{Duration, Instant};

/// How late a tick may be before it counts as missed.
const TOLERANCE: Duration = Duration::from_millis(5);

/// What an [`Interval`] does about ticks that were missed because nobody called
/// [`tick`](Interval::tick) in time.
///
/// A period of 50 ms, a tick that is taken 120 ms late, and the times of those that follow:
///
/// | policy | | | | | |
/// |---|---|---|---|---|---|
/// | none missed | 0 | 50 | 100 | 150 | 200 |
/// | `Burst` | 0 | 170 | 170 | 170 | 200 |
/// | `Delay` | 0 | 170 | 220 | 270 | 320 |
/// | `Skip` | 0 | 170 | 200 | 250 | 300 |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MissedTick {
    /// Makes up for them: ticks come at once until there are as many as there should be.
    #[default]
    Burst,
    /// Forgets them: the next tick comes a period after the late one, and so on.
    Delay,
    /// Leaves them out: the next tick comes at the next multiple of the period after the start.
    Skip,
}

/// Ticks at a fixed rate; made by [`interval`] and [`interval_at`].
#[derive(Clone, Debug)]
pub struct Interval {
    next: Instant,
    period: Duration,
    missed: MissedTick,
}

/// Ticks every `period`, for the first time at once.
///
/// Unlike a loop that [sleeps](super::sleep) for a period, this makes up for the time that the loop
/// itself takes.
///
/// # Panics
/// If `period` is zero.
///
/// # Examples
/// ```
/// use ramie::time::{self, Duration, Instant};
///
/// ramie::Runtime::new()?.run(|| {
///     let start = Instant::now();
///     let mut ticks = time::interval(Duration::from_millis(2));
///     for _ in 0..5 {
///         ticks.tick();
///     }
///     assert!(start.elapsed() >= Duration::from_millis(8));
/// });
/// # std::io::Result::Ok(())
/// ```
#[track_caller]
pub fn interval(period: Duration) -> Interval {
    interval_at(Instant::now(), period)
}

/// Ticks every `period`, for the first time at `start`.
///
/// # Panics
/// If `period` is zero.
#[track_caller]
pub fn interval_at(start: Instant, period: Duration) -> Interval {
    assert!(!period.is_zero(), "an interval's period must not be zero");
    Interval { next: start, period, missed: MissedTick::default() }
}

impl Interval {
    /// When `tick` will return, if it is called before.
    pub(crate) fn next_tick(&self) -> Instant {
        self.next
    }

    /// Waits for the next tick and returns the time it was due at.
    ///
    /// # Cancellation
    /// Returns early while a cancel request of the fiber is unreported, or a deadline that it is
    /// under, with the time of a tick that is still to come: the next call waits for the same one.
    pub fn tick(&mut self) -> Instant {
        let due = self.next;
        let mut now = Instant::now();
        if now < due {
            sleep_until(due);
            now = Instant::now();
        }
        if now >= due {
            self.next = self.after(due, now);
        }
        due
    }

    /// The tick that follows the one which was due at `due` and is taken `now`.
    fn after(&self, due: Instant, now: Instant) -> Instant {
        let late = now.saturating_duration_since(due);
        let next = if late <= TOLERANCE {
            due.checked_add(self.period)
        } else {
            match self.missed {
                MissedTick::Burst => due.checked_add(self.period),
                MissedTick::Delay => now.checked_add(self.period),
                MissedTick::Skip => {
                    let into = late.as_nanos() % self.period.as_nanos();
                    let into = Duration::from_nanos(u64::try_from(into).unwrap_or(u64::MAX));
                    now.checked_add(self.period.saturating_sub(into))
                }
            }
        };
        next.unwrap_or_else(|| far_ahead(now))
    }

    /// The next tick comes a period from now.
    pub fn reset(&mut self) {
        self.reset_after(self.period);
    }

    /// The next tick comes at once.
    pub fn reset_immediately(&mut self) {
        self.next = Instant::now();
    }

    /// The next tick comes after `delay`.
    pub fn reset_after(&mut self, delay: Duration) {
        let now = Instant::now();
        self.next = now.checked_add(delay).unwrap_or_else(|| far_ahead(now));
    }

    /// The next tick comes at `instant`.
    pub fn reset_at(&mut self, instant: Instant) {
        self.next = instant;
    }

    /// What happens about missed ticks.
    pub fn missed_tick(&self) -> MissedTick {
        self.missed
    }

    /// Says what is to happen about missed ticks; [`MissedTick::Burst`] by default.
    pub fn set_missed_tick(&mut self, missed: MissedTick) {
        self.missed = missed;
    }

    /// The time between two ticks.
    pub fn period(&self) -> Duration {
        self.period
    }
}

/// An instant that nobody will live to see.
fn far_ahead(now: Instant) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    now + CENTURY
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// The times of the ticks, in milliseconds after the start, when each is taken at the time
    /// given, or when it is due if that is later.
    fn ticks(missed: MissedTick, taken: &[u32]) -> Vec<u128> {
        let start = Instant::now();
        let mut interval = interval_at(start, 50 * MS);
        interval.set_missed_tick(missed);
        let mut times = Vec::new();
        for &at in taken {
            let now = (start + at * MS).max(interval.next);
            times.push((now - start).as_millis());
            interval.next = interval.after(interval.next, now);
        }
        times
    }

    #[test]
    fn the_table_is_right() {
        let taken = [0, 170, 170, 170, 170];
        assert_eq!(ticks(MissedTick::Burst, &[0; 5]), [0, 50, 100, 150, 200]);
        assert_eq!(ticks(MissedTick::Burst, &taken), [0, 170, 170, 170, 200]);
        assert_eq!(ticks(MissedTick::Delay, &taken), [0, 170, 220, 270, 320]);
        assert_eq!(ticks(MissedTick::Skip, &taken), [0, 170, 200, 250, 300]);
    }

    /// A tick that is a little late does not shift those that follow.
    #[test]
    fn a_little_late_is_not_missed() {
        for missed in [MissedTick::Burst, MissedTick::Delay, MissedTick::Skip] {
            assert_eq!(ticks(missed, &[0, 54, 0]), [0, 54, 100], "{missed:?}");
        }
    }

    #[test]
    fn periods_beyond_the_clock() {
        for missed in [MissedTick::Burst, MissedTick::Delay, MissedTick::Skip] {
            let now = Instant::now();
            let mut interval = interval_at(now, Duration::MAX);
            interval.set_missed_tick(missed);
            assert!(interval.after(now, now) > now + 1000 * MS);
            assert!(interval.after(now, now + 10 * MS) > now + 1000 * MS);
            interval.reset();
            assert!(interval.next > now + 1000 * MS);
        }
    }

    #[test]
    #[should_panic(expected = "must not be zero")]
    fn no_period() {
        interval(Duration::ZERO);
    }
}
