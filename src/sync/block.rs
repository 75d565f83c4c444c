//! How `sync` waits and wakes: by the scheduler; in the models, by loom.

use crate::coro;
#[cfg(not(all(test, loom)))]
pub(super) use real::*;

#[cfg(all(test, loom))]
pub(super) use model::*;

#[cfg(not(all(test, loom)))]
mod real {
    use super::coro::{OnCancel, Signal, Waiter};
    use crate::sched::{self, current};

    /// Panics where a fiber must not wait: better now than in a queue.
    #[inline]
    pub(in crate::sync) fn may_wait() {
        _ = current::suspendable();
    }

    /// Whether `may_wait` would panic; for callers who hold a lock.
    #[inline]
    pub(in crate::sync) fn must_not_wait() -> bool {
        current::must_not_suspend()
    }

    /// Where the caller runs: differs between workers. All plain threads are one place.
    #[inline]
    pub(in crate::sync) fn place() -> usize {
        current::place()
    }

    /// Gives others a moment, on this worker or elsewhere. Returns whether to look again: a few
    /// times, some microseconds all together.
    pub(in crate::sync) fn linger(round: u32) -> bool {
        if let Some((worker, _)) = current::suspendable()
            && worker.has_others()
        {
            if round >= 2 {
                return false;
            }
            sched::submit::yield_now();
            return true;
        }
        if round > 8 {
            return false;
        }
        for _ in 0..1 << round {
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

    /// Makes ready whoever `Signal::set` returned.
    #[inline]
    pub(in crate::sync) fn wake(waiter: Waiter) {
        sched::wake_waiter(waiter);
    }
}

/// The frame of a waiter was left while others may still reach into it: nothing short of ending the
/// process is safe. No call in this crate does so.
#[cold]
pub(super) fn left_too_early() -> ! {
    eprintln!("ramie: a waiter left its stack frame before it was out of its queue, aborting");
    std::process::abort();
}

#[cfg(all(test, loom))]
mod model {
    use super::coro::{OnCancel, Signal, Waiter};
    use loom::sync::Notify;

    /// As the models' threads wait; they are where a waiter's address leads.
    #[repr(align(8))]
    struct Thread(Notify);

    pub(in crate::sync) fn may_wait() {}

    /// Everybody is in one place: nobody lingers.
    pub(in crate::sync) fn place() -> usize {
        0
    }

    pub(in crate::sync) fn linger(_: u32) -> bool {
        false
    }

    pub(in crate::sync) fn must_not_wait() -> bool {
        false
    }

    /// A deadline may come at any time: the model takes it to come at once.
    pub(in crate::sync) fn wait(signal: &Signal, deadline_ns: Option<u64>, _: OnCancel) -> bool {
        let thread = Thread(Notify::new());
        let waiter = Waiter::Thread((&raw const thread).expose_provenance());
        if !signal.register(waiter) {
            return true;
        }
        if deadline_ns.is_some() {
            loom::thread::yield_now();
            if signal.unregister(waiter) {
                return false;
            }
        }
        thread.0.wait();
        signal.is_set()
    }

    pub(in crate::sync) fn wake(waiter: Waiter) {
        if let Waiter::Thread(address) = waiter {
            let thread = std::ptr::with_exposed_provenance::<Thread>(address);
            // SAFETY: taken out of the signal by the caller, so its thread waits until this.
            unsafe { (*thread).0.notify() };
        }
    }
}
