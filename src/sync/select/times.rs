//! Arms that are points in time.
#![forbid(unsafe_code)]

use super::{Arm, Place, sealed};
use crate::sys::clock;
use crate::time::Interval;
use std::time::{Duration, Instant};

/// A point in time.
pub struct TimeArm {
    deadline_ns: u64,
}

/// The arm `after(..)`.
pub fn after(duration: Duration) -> TimeArm {
    TimeArm { deadline_ns: clock::deadline_ns(duration) }
}

/// The arm `at(..)`.
pub fn at(instant: Instant) -> TimeArm {
    TimeArm { deadline_ns: clock::of_instant(instant) }
}

impl sealed::Sealed for TimeArm {}

impl Arm for TimeArm {
    fn look(&mut self) -> bool {
        clock::now_ns() >= self.deadline_ns
    }

    fn slot(&self) -> *mut () {
        std::ptr::null_mut()
    }

    fn enter(&self, _: &Place<'_>) -> bool {
        true
    }

    fn leave(&self, _: &Place<'_>) {}

    fn claimed(&mut self) -> bool {
        false
    }

    fn deadline_ns(&self) -> Option<u64> {
        Some(self.deadline_ns)
    }
}

/// The next tick of an [`Interval`].
pub struct TickArm<'a> {
    interval: &'a mut Interval,
    time: TimeArm,
}

/// The arm `tick(..)`.
pub fn tick(interval: &mut Interval) -> TickArm<'_> {
    let time = at(interval.next_tick());
    TickArm { interval, time }
}

impl sealed::Sealed for TickArm<'_> {}

impl Arm for TickArm<'_> {
    fn look(&mut self) -> bool {
        self.time.look()
    }

    fn slot(&self) -> *mut () {
        std::ptr::null_mut()
    }

    fn enter(&self, _: &Place<'_>) -> bool {
        true
    }

    fn leave(&self, _: &Place<'_>) {}

    fn claimed(&mut self) -> bool {
        false
    }

    fn deadline_ns(&self) -> Option<u64> {
        self.time.deadline_ns()
    }
}

impl TimeArm {
    /// The result of the chosen arm.
    pub fn result(&mut self) {}
}

impl TickArm<'_> {
    /// The result of the chosen arm.
    pub fn result(&mut self) -> Instant {
        self.interval.tick()
    }
}
