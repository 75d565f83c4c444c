//! Who is told of fresh fibers, and when.
//!
//! To wake a worker takes its waker some 10 us, and help comes after 20 to 35. What is done by then
//! was not worth it, and nobody knows how large a fresh fiber is. So a spawn that makes two has
//! somebody woken, as long as those that were woken found something to do. When the last few did
//! not (`Idle::is_patient`), the fibers are *left to the sentry*, who looks around within a
//! millisecond in any case, and the owner waits until it knows better: it takes the time that the
//! first ones run, and has somebody woken when what is left will take long; or next time, if that
//! is but one fiber.
#![forbid(unsafe_code)]

use super::Worker;
use super::remote::bump;
use super::steal::SMALL_NS;
use crate::coro::FiberPtr;
use crate::sys::clock;
use std::cell::Cell;
use std::sync::atomic::Ordering;

/// Fibers that will take this long all together are worth a wake-up.
const LONG_NS: u64 = 50_000;

/// An owner's fresh fibers that are left to the sentry.
#[derive(Default)]
pub(super) struct Left {
    are: Cell<bool>,
    /// Nothing is known of them: the first has not been started yet, or still runs.
    are_new: Cell<bool>,
    /// When the owner looked last, if it has; and how many it had taken by then.
    seen_ns: Cell<Option<u64>>,
    taken: Cell<u64>,
}

impl Worker {
    /// Queues a fresh fiber and tells nobody.
    #[inline]
    pub(super) fn queue_fresh(&self, fiber: FiberPtr) {
        if self.shares && self.fresh.is_empty() {
            bump(&self.remote.refills);
        }
        self.fresh.push_quietly(fiber);
        self.fresh_hint.set(true);
    }

    /// Publishes a fresh fiber that any worker may start.
    #[inline]
    pub(crate) fn push_fresh(&self, fiber: FiberPtr) {
        if self.fresh.is_private() {
            // Nobody else can, and then its end can be waited for without locked instructions.
            self.remote.set_home(fiber);
            self.queue_fresh(fiber);
        } else {
            let queued = self.fresh.push(fiber);
            if queued == 1 {
                bump(&self.remote.refills);
            }
            self.fresh_hint.set(true);
            if self.fresh.is_news(queued) {
                self.offer(queued);
            }
        }
    }

    /// Fresh fibers have come into this worker's queue, which holds so many now: has somebody woken
    /// for them, or leaves them to the sentry for now.
    #[inline]
    pub(super) fn offer(&self, queued: usize) {
        if self.shared.offered(queued) {
            self.left.seen_ns.set(None);
            self.left.are_new.set(true);
            self.left.are.set(true);
        }
    }

    /// Called before a fresh fiber is started: looks before the first one and after it.
    #[inline(always)]
    pub(super) fn look_at_first(&self) {
        if self.left.are_new.get() {
            self.left.are_new.set(self.left.seen_ns.get().is_none());
            self.look_at_left(clock::now_ns());
        }
    }

    /// As `look_at_left`, once a pass.
    #[inline(always)]
    pub(super) fn look_at_left_each_pass(&self, now_ns: u64) {
        if self.left.are.get() {
            self.look_at_left(now_ns);
        }
    }

    /// How long did those take that have been started since the last look?
    #[cold]
    fn look_at_left(&self, now_ns: u64) {
        let (left, taken) = (&self.left, self.taken());
        let queued = self.fresh.len() as u64;
        let seen_ns = left.seen_ns.replace(Some(now_ns));
        let since = taken.wrapping_sub(left.taken.replace(taken));
        if let Some(seen_ns) = seen_ns
            && let Some(each_ns) = (now_ns - seen_ns).checked_div(since)
            && each_ns >= SMALL_NS
            && each_ns.saturating_mul(queued) >= LONG_NS
        {
            left.are.set(false);
            self.shared.idle().learn(true);
            if queued >= 2 {
                self.shared.wake_one();
            }
        } else if queued < 2 {
            left.are.set(false);
        }
    }

    fn taken(&self) -> u64 {
        self.remote.taken.load(Ordering::Relaxed)
    }
}
