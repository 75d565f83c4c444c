//! How `sync` waits and wakes: by the scheduler; in the models, by loom.

use crate::coro;
#[cfg(not(all(test, loom)))]
pub(super) use real::*;

#[cfg(all(test, loom))]
pub(crate) use model::*;

#[cfg(not(all(test, loom)))]
mod real {
    use super::super::lock::Guard;
    use super::coro::{OnCancel, Signal};
    use crate::atomic::{AtomicUsize, Ordering};
    use crate::sched::{self, current};
    use crate::sys::membarrier;

    /// Panics where a fiber must not wait: better now than in a queue.
    #[inline]
    pub(in crate::sync) fn may_wait() {
        _ = current::suspendable();
    }

    /// Stores what somebody who begins to wait looks at; then the caller looks at what that one has
    /// stored.
    #[inline(always)]
    pub(in crate::sync) fn publish(word: &AtomicUsize, value: usize) {
        if membarrier::is_on() {
            word.store(value, Ordering::Release);
            membarrier::light();
        } else {
            word.swap(value, Ordering::SeqCst);
        }
    }

    /// The other side of `publish`, between the store and the look.
    #[inline]
    pub(in crate::sync) fn order_before_wait() {
        membarrier::heavy();
    }

    /// Whether waiting blocks a worker with all its fibers: its thread unwinds.
    #[inline]
    pub(in crate::sync) fn blocks_worker() -> bool {
        std::thread::panicking() && current::place() != 0
    }

    /// Whether the runtime of the calling fiber shuts down: no deadline is waited for any more.
    pub(in crate::sync) fn draining() -> bool {
        current::worker().is_some_and(|worker| worker.is_draining())
    }

    /// What a cancel request does to a wait that cannot report it: it ends the first of them.
    pub(in crate::sync) fn once_per_request() -> OnCancel {
        match current::fiber() {
            Some((_, fiber)) if !fiber.header().cancel.is_noticed() => OnCancel::End,
            _ => OnCancel::Ignore,
        }
    }

    /// Such a wait has ended early.
    pub(in crate::sync) fn ended_early() {
        if let Some((worker, fiber)) = current::fiber() {
            let cancel = &fiber.header().cancel;
            if cancel.is_requested() || worker.is_draining() {
                cancel.notice();
            }
        }
    }

    /// What has ended a wait early is reported to the caller.
    pub(in crate::sync) fn report() {
        match current::fiber() {
            Some((_, fiber)) => sched::cancel::report(fiber),
            None => _ = sched::cancel::refuses_on_thread(),
        }
    }

    /// Whether `may_wait` would panic; for callers who hold a lock.
    #[inline]
    pub(in crate::sync) fn must_not_wait() -> bool {
        current::must_not_suspend()
    }

    /// Where the caller runs: differs between workers. All plain threads are one place, 0.
    #[inline]
    pub(in crate::sync) fn place() -> usize {
        current::place()
    }

    /// Called by what may wait but does not have to: now and then has the other fibers of this
    /// worker run first, since nothing else would interrupt a fiber that always finds something.
    #[inline]
    pub(in crate::sync) fn take_turns() {
        if let Some((worker, _)) = current::fiber()
            && worker.spend_turn()
            && current::can_suspend()
        {
            sched::submit::yield_now();
        }
    }

    /// Whether another fiber of this worker could run now, if the caller may suspend.
    #[inline]
    pub(in crate::sync) fn has_others() -> bool {
        current::worker().is_some_and(|worker| worker.has_others() && current::can_suspend())
    }

    /// Gives others a moment, on this worker or elsewhere. Returns whether to look again: a few
    /// times, some microseconds all together.
    pub(in crate::sync) fn linger(round: u32) -> bool {
        if has_others() {
            if round >= 2 {
                return false;
            }
            sched::submit::yield_now();
            return true;
        }
        pause(round)
    }

    /// Of a canary.
    #[inline(always)]
    pub(in crate::sync) fn goes_blindly() -> bool {
        false
    }

    /// As `linger`, for those elsewhere.
    #[inline]
    pub(in crate::sync) fn pause(round: u32) -> bool {
        // Closely at first, when an answer may be on its way; then ever more rarely.
        let pauses = match round {
            0..128 => 1,
            128..136 => 8,
            136..140 => 1 << (round - 131),
            _ => return false,
        };
        for _ in 0..pauses {
            std::hint::spin_loop();
        }
        true
    }

    /// As [`sched::wait`].
    #[inline]
    pub(in crate::sync) fn wait(
        signal: &Signal,
        deadline_ns: Option<u64>,
        on_cancel: OnCancel,
    ) -> bool {
        sched::wait(signal, deadline_ns, on_cancel)
    }

    /// As [`sched::wait_and_let_go`]; not in a `no_suspend` section.
    #[inline]
    pub(in crate::sync) fn wait_and_let_go<T>(
        guard: Guard<'_, T>,
        signal: &Signal,
        deadline_ns: Option<u64>,
        on_cancel: OnCancel,
    ) -> bool {
        sched::submit::wait_and_let_go(signal, Some(guard.keep()), deadline_ns, on_cancel)
    }

    /// Sets a signal that nobody else ever sets, and makes ready who waits for it.
    #[inline]
    pub(in crate::sync) fn set(signal: &Signal) {
        sched::submit::set_and_wake(signal);
    }
}

/// Whether a model has failed, as a canary should: then its threads are unwound wherever they are,
/// and may not touch loom's atomics.
#[inline(always)]
pub(super) fn is_torn_down() -> bool {
    cfg!(loom) && std::thread::panicking()
}

/// The frame of a waiter was left while others may still reach into it: nothing short of ending the
/// process is safe. No call in this crate does so.
#[cold]
pub(super) fn left_too_early() -> ! {
    die("a waiter left its stack frame before it was out of its queue")
}

/// Ends the process.
#[cold]
pub(super) fn die(why: &str) -> ! {
    eprintln!("ramie: {why}, aborting");
    std::process::abort();
}

#[cfg(all(test, loom))]
mod model {
    use super::super::lock::Guard;
    use super::coro::{OnCancel, Signal, Waiter};
    use crate::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
    use crate::sys::clock;
    use loom::thread;
    use std::cell::Cell;

    /// As the models' threads wait; they are where a waiter's address leads.
    #[repr(align(8))]
    struct Thread {
        woken: AtomicBool,
        thread: thread::Thread,
    }

    std::thread_local! {
        /// Whether a wait that never ends is expected; of a model, whose threads are all on one.
        pub(crate) static IS_CANARY: Cell<bool> = const { Cell::new(false) };
        /// Whether the fences are left out, which has to be noticed.
        pub(crate) static NO_FENCES: Cell<bool> = const { Cell::new(false) };
        /// Whether a lock is let go of too early, which has to be noticed.
        pub(crate) static LETS_GO_EARLY: Cell<bool> = const { Cell::new(false) };
        /// Whether each call finds the other side elsewhere, and lingers.
        pub(crate) static LINGERS: Cell<bool> = const { Cell::new(false) };
        /// The last caller's place.
        static PLACES: Cell<usize> = const { Cell::new(0) };
        /// Whether who has lingered goes without looking, which has to be noticed.
        pub(crate) static GOES_BLINDLY: Cell<bool> = const { Cell::new(false) };
    }

    fn fence_for_loom() {
        if !NO_FENCES.get() {
            fence(Ordering::SeqCst);
        }
    }

    /// A fence that one side has executed by the other is more than loom knows: both have one.
    pub(in crate::sync) fn publish(word: &AtomicUsize, value: usize) {
        word.store(value, Ordering::Release);
        fence_for_loom();
    }

    pub(in crate::sync) fn order_before_wait() {
        fence_for_loom();
    }

    pub(in crate::sync) fn may_wait() {}

    pub(in crate::sync) fn take_turns() {}

    pub(in crate::sync) fn blocks_worker() -> bool {
        false
    }

    pub(in crate::sync) fn draining() -> bool {
        false
    }

    pub(in crate::sync) fn once_per_request() -> OnCancel {
        OnCancel::Ignore
    }

    pub(in crate::sync) fn ended_early() {}

    pub(in crate::sync) fn report() {}

    /// Everybody is in one place, and nobody lingers, unless `LINGERS`.
    pub(in crate::sync) fn place() -> usize {
        if LINGERS.get() {
            PLACES.set(PLACES.get() + 2);
        }
        PLACES.get()
    }

    pub(in crate::sync) fn has_others() -> bool {
        false
    }

    pub(in crate::sync) fn linger(round: u32) -> bool {
        pause(round)
    }

    pub(in crate::sync) fn goes_blindly() -> bool {
        GOES_BLINDLY.get()
    }

    pub(in crate::sync) fn pause(round: u32) -> bool {
        LINGERS.get() && round == 0
    }

    pub(in crate::sync) fn must_not_wait() -> bool {
        false
    }

    pub(in crate::sync) fn wait(signal: &Signal, deadline_ns: Option<u64>, _: OnCancel) -> bool {
        wait_registered(signal, deadline_ns, |waiter| signal.register(waiter))
    }

    pub(in crate::sync) fn wait_and_let_go<T>(
        guard: Guard<'_, T>,
        signal: &Signal,
        deadline_ns: Option<u64>,
        _: OnCancel,
    ) -> bool {
        wait_registered(signal, deadline_ns, |waiter| {
            let guard = (!LETS_GO_EARLY.get()).then_some(guard);
            signal.register_first(waiter);
            drop(guard);
            true
        })
    }

    /// A deadline may come at any time: the model takes it to come at once.
    fn wait_registered(
        signal: &Signal,
        deadline_ns: Option<u64>,
        register: impl FnOnce(Waiter) -> bool,
    ) -> bool {
        let me = Thread { woken: AtomicBool::new(false), thread: thread::current() };
        let waiter = Waiter::Thread((&raw const me).expose_provenance());
        if !register(waiter) {
            return true;
        }
        if deadline_ns.is_some_and(|deadline_ns| deadline_ns != clock::NEVER) {
            thread::yield_now();
            if signal.unregister(waiter) {
                return false;
            }
        }
        if IS_CANARY.get() {
            // After a deadlock that loom itself has found, its objects cannot be dropped.
            let mut yields = 0;
            while !me.woken.load(Ordering::Acquire) {
                // Lets all others go on until they wait or end.
                yields += 1;
                assert!(yields < 20, "a wake-up is lost");
                thread::yield_now();
            }
        }
        while !me.woken.load(Ordering::Acquire) {
            thread::park();
        }
        assert!(signal.is_set());
        true
    }

    pub(in crate::sync) fn set(signal: &Signal) {
        if let Waiter::Thread(address) = signal.set() {
            let waiter = std::ptr::with_exposed_provenance::<Thread>(address);
            // SAFETY: taken out of the signal by the caller, so its thread waits until the store.
            let thread = unsafe { (*waiter).thread.clone() };
            // SAFETY: as above.
            unsafe { (*waiter).woken.store(true, Ordering::Release) };
            thread.unpark();
        }
    }
}
