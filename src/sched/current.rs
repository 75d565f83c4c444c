//! Which worker and which fiber the calling code runs on.
//!
//! The thread's slot (`arch::get_current`) holds the address of its worker while that worker's loop
//! is on the thread's stack, and 0 otherwise.

use super::Worker;
use crate::arch;
use crate::coro::FiberPtr;

/// The worker of the calling thread. To be used by the caller and its callees only: the reference
/// is valid until the thread leaves the worker's loop, which is below the caller on its stack, or
/// below the fiber that the loop has resumed. Not to be used across a suspension: a runtime, and
/// worker 0 with it, may move between two calls of `run`, while the fiber is off its stack.
#[inline(always)]
pub(crate) fn worker<'a>() -> Option<&'a Worker> {
    let worker: *const Worker = std::ptr::with_exposed_provenance(arch::get_current());
    // SAFETY: null or set by `enter`, whose worker outlives the calling code, as said above.
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
/// count of panics is the thread's: another fiber would see it, and poison what it holds.
///
/// # Panics
/// Inside a `no_suspend` section.
#[inline(always)]
pub(crate) fn suspendable<'a>() -> Option<(&'a Worker, FiberPtr)> {
    let found = fiber()?;
    if std::thread::panicking() {
        return None;
    }
    if found.1.header().no_suspend.get() != 0 {
        suspended_in_no_suspend();
    }
    Some(found)
}

#[cold]
#[inline(never)]
fn suspended_in_no_suspend() -> ! {
    panic!(
        "a call inside `ramie::no_suspend` would suspend the fiber: move the I/O, sleep, yield, \
         park or join out of the section"
    );
}

/// Makes `worker` the calling thread's for as long as the guard lives.
pub(super) fn enter(worker: &Worker) -> Entered {
    assert!(arch::get_current() == 0, "a worker's loop was entered inside another one");
    arch::set_current((worker as *const Worker).expose_provenance());
    Entered { panicking: std::thread::panicking() }
}

/// See [`enter`].
pub(super) struct Entered {
    panicking: bool,
}

impl Drop for Entered {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.panicking {
            // Fibers borrow from the frames below this one, which must not be left before they are
            // done. No panic of a fiber comes here: it ends in the fiber.
            eprintln!("ramie: a panic inside the scheduler, aborting");
            std::process::abort();
        }
        arch::set_current(0);
    }
}
