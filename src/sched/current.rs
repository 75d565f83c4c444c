//! Which worker and which fiber the calling code runs on.
//!
//! Invariants.
//! 1. The thread's slot (`arch::get_current`) holds the address of its worker while that worker's
//!    loop is on the thread's stack, and 0 otherwise: `enter` sets it, and the loop is left by
//!    `Entered::leave` or not at all. A thread that destroys its thread-local values inside the
//!    loop (`exit` was called there) does not come back to the loop: `forget` empties the slot, and
//!    what still runs on the fiber's stack counts as a plain thread's.
//! 2. A worker has one address from its first loop until it is dropped, and is not dropped while
//!    its loop runs, since the loop borrows it. Worker 0 lies in an `Rc`, the others on their
//!    threads' stacks. (`exit` inside the loop may drop worker 0, if its runtime is a thread-local
//!    value; `enter` lays a marker that goes before that one, so the slot is empty by then.)
//! 3. A fiber runs only inside its home worker's loop. A fiber that is suspended when that worker
//!    is dropped is never resumed.

use super::Worker;
use crate::arch;
use crate::coro::FiberPtr;
use crate::coro::header::BLOCKS;

/// The worker of the calling thread. For the caller and its callees only, who must not store the
/// reference: it is valid until the thread leaves the worker's loop, which is below the caller on
/// its stack, or below the fiber that the loop has resumed. By invariants 2 and 3 it is the same
/// worker, at the same place, after a suspension.
#[inline(always)]
pub(crate) fn worker<'a>() -> Option<&'a Worker> {
    let worker: *const Worker = std::ptr::with_exposed_provenance(arch::get_current());
    // SAFETY: null, or exposed by `enter`; then its loop is on this stack (invariant 1), so the
    // worker is alive for as long as the calling code runs (invariants 2 and 3). It is only ever
    // shared.
    unsafe { worker.as_ref() }
}

/// The fiber that the calling code runs on, with its worker; `None` on a plain thread and inside
/// the scheduler itself.
#[inline(always)]
pub(crate) fn fiber<'a>() -> Option<(&'a Worker, FiberPtr)> {
    let worker = worker()?;
    worker.running().map(|fiber| (worker, fiber))
}

/// As [`fiber`], but also `None` where suspending is not allowed: while the thread unwinds. The
/// count of panics is the thread's: another fiber would see it, and poison what it holds. And while
/// the fiber leaves or enters its spans (`coro/spans.rs`).
///
/// # Panics
/// Inside a `no_suspend` section.
#[inline(always)]
pub(crate) fn suspendable<'a>() -> Option<(&'a Worker, FiberPtr)> {
    let found = fiber()?;
    if std::thread::panicking() {
        return None;
    }
    match found.1.header().no_suspend.get() {
        0 => Some(found),
        word => not_suspendable(word),
    }
}

/// An even number that tells the thread's worker from all others, also from those of the past, 0 if
/// it has none. Of a fiber it is the same for ever. (Not the worker's address: a lock may be held
/// for longer than its worker lives, by a guard that was carried out of `run`.)
#[inline(always)]
pub(crate) fn place() -> usize {
    worker().map_or(0, |worker| worker.serial)
}

/// Whether [`suspendable`] would panic.
#[inline(always)]
pub(crate) fn must_not_suspend() -> bool {
    fiber().is_some_and(|(_, fiber)| {
        let no_suspend = fiber.header().no_suspend.get();
        no_suspend != 0 && no_suspend & BLOCKS == 0 && !std::thread::panicking()
    })
}

/// Whether the calling code runs on a fiber that may suspend, as [`suspendable`] finds out, which
/// panics where this says no for a `no_suspend` section.
pub(crate) fn can_suspend() -> bool {
    fiber()
        .is_some_and(|(_, fiber)| !std::thread::panicking() && fiber.header().no_suspend.get() == 0)
}

/// Blocks the thread, or panics.
#[cold]
#[inline(never)]
fn not_suspendable<'a>(no_suspend: u32) -> Option<(&'a Worker, FiberPtr)> {
    if no_suspend & BLOCKS != 0 {
        return None;
    }
    panic!(
        "a call inside `ramie::no_suspend` would suspend the fiber: move the I/O, sleep, yield, \
         park or join out of the section"
    );
}

/// Makes `worker` the calling thread's until the guard's `leave`.
pub(super) fn enter(worker: &Worker) -> Entered {
    assert!(arch::get_current() == 0, "a worker's loop was entered inside another one");
    arch::set_current((worker as *const Worker).expose_provenance());
    Entered(())
}

/// The thread has begun to destroy its thread-local values; see invariant 1. Another fiber may have
/// borrowed one of them, so nothing suspends here any more.
pub(super) fn forget() {
    arch::set_current(0);
}

/// See [`enter`]. Ended by `leave`; nothing but a panic drops it.
#[must_use = "the loop is left with `leave`"]
pub(super) struct Entered(());

impl Entered {
    pub(super) fn leave(self) {
        arch::set_current(0);
        std::mem::forget(self);
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        // Fibers borrow from the frames below this one, which must not be left before they are
        // done. No panic of a fiber comes here: it ends in the fiber. Whether the thread was
        // unwinding already when the loop was entered makes no difference, so that is not asked.
        eprintln!("ramie: a panic inside the scheduler, aborting");
        std::process::abort();
    }
}
