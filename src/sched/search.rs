//! An idle worker: looking for work elsewhere, and sleeping when there is none. The protocol and
//! its proof are in `README.md`.

use super::Worker;
use super::shared::{Config, Phase};
use super::steal::Thief;
use crate::driver;
use crate::stack::TRIM_QUIET;
use crate::sys::clock;
use std::cell::Cell;
use std::time::Duration;

/// How long a sentry sleeps, at first and at most.
const SENTRY_MIN: Duration = Duration::from_micros(100);
const SENTRY_MAX: Duration = Duration::from_millis(1);
/// Fibers taken from outside at once.
const EXTERNAL_BATCH: usize = 32;
/// A sleep that others ended this soon was a mistake: most of it was the wake-up itself.
const SHORT_SLEEP_NS: u64 = 100_000;
/// After a short sleep, how often to wait for mail in vain before sleeping at once again.
const MAIL_WAITS: u32 = 3;
/// How long to wait for mail, as a multiple of `Config::spin`: longer than a wake-up takes, so that
/// two workers that had to wake each other once stay awake.
const MAIL_SPINS: u32 = 3;
/// How much longer a search may be while others have fresh fibers that are not worth taking.
const LINGER_NS: u64 = 100_000;
/// Looks around between two looks at the clock.
const LOOKS_PER_CLOCK: u32 = 16;

/// What a worker remembers between its searches.
pub(crate) struct State {
    /// Counted in `searching`, by a summons.
    summoned: Cell<bool>,
    sentry: Cell<bool>,
    sentry_sleep: Cell<Duration>,
    /// The last sleep was as long as the pool of stacks wants it, and nothing ended it.
    slept_long: Cell<bool>,
    /// How often to wait for mail in vain before a sleep.
    mail_waits: Cell<u32>,
    /// Nothing but the time of a timer ended the last sleep, and no search has been since.
    woke_for_timer: Cell<bool>,
    pub(super) thief: Thief,
}

/// What ended a look around.
#[derive(PartialEq)]
enum Found {
    Nothing,
    Work,
    /// A timer of this worker's.
    Timer,
}

impl State {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            summoned: Cell::new(false),
            sentry: Cell::new(false),
            sentry_sleep: Cell::new(SENTRY_MIN),
            slept_long: Cell::new(false),
            mail_waits: Cell::new(0),
            woke_for_timer: Cell::new(false),
            thief: Thief::new(config),
        }
    }
}

impl Worker {
    /// Looks for work everywhere, for a while. Returns whether there is something to do.
    pub(super) fn look_for_work(&self) -> bool {
        self.search() || self.wait_for_mail()
    }

    fn search(&self) -> bool {
        let shared = &self.shared;
        let summoned = self.search.summoned.take() || shared.seat(self.index()).take_summons();
        if shared.workers() == 1 {
            // Whoever summoned us counted us as searching, and nobody else is summoned meanwhile:
            // the search ends before the look, so that what comes after the look summons again.
            if summoned {
                shared.idle().end_search();
            }
            return self.take_external();
        }
        let counted = summoned || shared.start_search();
        if counted {
            let alone = (self.search.sentry.get() && !summoned) || !shared.idle().others_awake();
            // A worker that only got up for its timers has no reason to expect more; and if there
            // are many of them it does so all the time.
            let for_timer = self.search.woke_for_timer.take() && !summoned;
            let spin = if (alone || for_timer) && !self.work_elsewhere(2) {
                Duration::ZERO
            } else {
                shared.config().spin
            };
            let found = self.look_around(spin) != Found::Nothing;
            shared.idle().end_search();
            if summoned && !found {
                shared.idle().learn(false);
            }
            // Whoever was skipped because we searched must not be forgotten.
            if found && self.work_elsewhere(1) {
                shared.wake_one();
            }
            found
        } else {
            self.take_external() || self.steal()
        }
    }

    /// A worker that was summoned to look around has got work of its own: it does not search, and
    /// must not be counted as if it did, or nobody else would be summoned while it is busy.
    #[inline]
    pub(super) fn decline_summons(&self) {
        if self.search.summoned.take() || self.shared.seat(self.index()).take_summons() {
            self.shared.idle().end_search();
            if self.work_elsewhere(1) {
                self.shared.wake_one();
            }
        }
    }

    /// Stays awake a little longer if the last sleeps were short: who sleeps 40 us at a time is
    /// waited for by somebody who then sleeps as long, and so on. Others do not count on it, as
    /// they do on a search; the worker is awake, and takes its second look when it lies down.
    fn wait_for_mail(&self) -> bool {
        let left = self.search.mail_waits.get();
        if left == 0 {
            return false;
        }
        let found = self.look_around(self.shared.config().spin * MAIL_SPINS);
        let in_vain = found != Found::Work;
        self.search.mail_waits.set(if in_vain { left - 1 } else { MAIL_WAITS });
        found != Found::Nothing
    }

    fn look_around(&self, spin: Duration) -> Found {
        let end_ns = if spin.is_zero() { 0 } else { clock::deadline_ns(spin) };
        loop {
            for _ in 0..LOOKS_PER_CLOCK {
                if self.take_external() || self.steal() {
                    return Found::Work;
                }
                if self.remote.has_mail() || self.driver.borrow_mut().has_events() {
                    return Found::Work;
                }
                if end_ns == 0 {
                    return Found::Nothing;
                }
                for _ in 0..8 {
                    std::hint::spin_loop();
                }
            }
            let now_ns = clock::now_ns();
            let due = self.timers.borrow().next_deadline_ns().is_some_and(|due| due <= now_ns);
            if due {
                return Found::Timer;
            }
            if self.must_heed(self.shared.phase()) {
                return Found::Nothing;
            }
            // What is not worth taking yet may be soon, and lying down is refused meanwhile. The
            // loop has other things to look at, but not often.
            if now_ns >= end_ns && (now_ns >= end_ns + LINGER_NS || !self.work_elsewhere(2)) {
                return Found::Nothing;
            }
        }
    }

    pub(super) fn take_external(&self) -> bool {
        if !self.shared.has_external() {
            return false;
        }
        let mut found = false;
        self.shared.take_external(EXTERNAL_BATCH, |fiber| {
            found = true;
            self.queue_fresh(fiber);
        });
        found
    }

    /// Whether some other worker has at least `least` fresh fibers, or some came from outside.
    fn work_elsewhere(&self, least: usize) -> bool {
        self.shared.has_external()
            || self.shared.seats().iter().enumerate().any(|(index, seat)| {
                index != self.index()
                    && seat.stealer().is_some_and(|stealer| stealer.len() >= least)
            })
    }

    /// Waits in the driver until there is something to do, or until `deadline_ns`.
    pub(super) fn sleep(&self, deadline_ns: Option<u64>) {
        let shared = &self.shared;
        self.publish_busy();
        let sentry = shared.workers() > 1
            && shared.idle().others_awake()
            && (self.search.sentry.get() || shared.idle().become_sentry());
        let leaves_post = self.search.sentry.replace(sentry) && !sentry;
        if leaves_post {
            shared.idle().sentry_leaves();
        }
        let longest = if sentry {
            let nap = self.search.sentry_sleep.get();
            self.search.sentry_sleep.set((nap * 2).min(SENTRY_MAX));
            // If a timer ends the sleep soon enough, it need not end twice.
            Some(if self.has_timer_within(SENTRY_MAX) { SENTRY_MAX } else { nap })
        } else if leaves_post {
            // Somebody may have got up since we found nobody awake, and have left a lone fiber to
            // the sentry that it took us for.
            Some(SENTRY_MIN)
        } else {
            self.search.sentry_sleep.set(SENTRY_MIN);
            self.give_back_memory()
        };

        shared.idle().lie_down(&self.remote.sleep);
        // The second look: what was queued before the announcement, its giver told nobody about.
        if !self.must_not_sleep() {
            let next = [self.timers.borrow().next_wake_ns(), deadline_ns];
            let next = next.into_iter().flatten().min();
            let next = next.map(|ns| Duration::from_nanos(ns.saturating_sub(clock::now_ns())));
            let timeout = [next, longest].into_iter().flatten().min();
            let start_ns = clock::now_ns();
            self.turn(driver::Wait::Until(timeout));
            let (end_ns, mail) = (clock::now_ns(), self.remote.has_mail());
            if mail && end_ns - start_ns < SHORT_SLEEP_NS {
                self.search.mail_waits.set(MAIL_WAITS);
            }
            let due = self.timers.borrow().next_deadline_ns().is_some_and(|due| due <= end_ns);
            self.search.woke_for_timer.set(due && !mail && !self.has_ready());
        }
        shared.idle().get_up(&self.remote.sleep);
        self.search.slept_long.set(longest == Some(TRIM_QUIET) && !self.has_ready());

        if shared.seat(self.index()).take_summons() {
            self.search.summoned.set(true);
        }
    }

    fn has_timer_within(&self, duration: Duration) -> bool {
        let next_ns = self.timers.borrow().next_wake_ns();
        next_ns.is_some_and(|next_ns| next_ns <= clock::deadline_ns(duration))
    }

    /// The worker has fibers to run: it looks around no more, whatever it is counted as, and passes
    /// that duty on if there is anything to find.
    #[inline]
    pub(super) fn stop_looking(&self) {
        if self.search.summoned.get() || self.search.sentry.get() {
            self.stop_looking_slow();
        }
    }

    #[cold]
    fn stop_looking_slow(&self) {
        let idle = self.shared.idle();
        if self.search.summoned.take() {
            idle.end_search();
        }
        if self.search.sentry.take() {
            self.search.sentry_sleep.set(SENTRY_MIN);
            idle.sentry_leaves();
        }
        if self.work_elsewhere(1) {
            self.shared.wake_one();
        }
    }

    /// Gives memory of free stacks back to the kernel, once this worker has had nothing to do for a
    /// while. Returns how long to sleep at most, if there is more to give back.
    fn give_back_memory(&self) -> Option<Duration> {
        let stacks = self.shared.stacks();
        if self.search.slept_long.get() {
            self.release_stacks();
            while stacks.trim() != 0 && !self.remote.has_mail() {}
            stacks.wants_trim().then_some(TRIM_QUIET)
        } else {
            (self.keeps_stacks() || stacks.wants_trim()).then_some(TRIM_QUIET)
        }
    }

    /// Whether the loop has to do something about the runtime's phase.
    fn must_heed(&self, phase: Phase) -> bool {
        phase == Phase::Stopped || (phase == Phase::Draining && !self.is_draining())
    }

    fn must_not_sleep(&self) -> bool {
        let phase = self.shared.phase();
        self.has_ready()
            || self.remote.has_mail()
            || self.shared.has_external()
            || self.must_heed(phase)
            // Lone fibers are left to their owners, if those run, and to the sentry.
            || self.work_elsewhere(if self.shared.idle().anybody_awake() { 2 } else { 1 })
    }

    /// The worker leaves its loop.
    pub(super) fn leave_search(&self) {
        if self.shared.seat(self.index()).take_summons() {
            self.search.summoned.set(true);
        }
        self.stop_looking();
    }
}
