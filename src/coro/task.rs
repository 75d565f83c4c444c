//! Waiting on a [`Signal`] from a future: a waker that is told once, on the heap.
//!
//! The box belongs to whoever takes its address out of the signal (invariant 3 of `signal.rs`), so
//! a future may be dropped, or leaked, at any time.

use super::signal::{Signal, Waiter};
use super::spans::foreign;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

/// Has `waker` told when `signal` is set, in place of any earlier one. `false` if it is set
/// already. Only for the waiting side, while no fiber or thread is registered.
pub(crate) fn watch(signal: &Signal, waker: &Waker) -> bool {
    let boxed = match signal.unregister_task() {
        Some(address) => {
            // SAFETY: just taken out.
            let mut boxed = unsafe { from_address(address) };
            Waker::clone_from(&mut boxed, waker);
            boxed
        }
        None => Box::new(waker.clone()),
    };
    let address = Box::into_raw(boxed).expose_provenance();
    let registered = signal.register(Waiter::Task(address));
    if !registered {
        // SAFETY: it was not let in.
        drop(unsafe { from_address(address) });
    }
    registered
}

/// Has nobody told any more. Only for the waiting side.
#[inline]
pub(crate) fn forget(signal: &Signal) {
    if let Some(address) = signal.unregister_task() {
        // SAFETY: just taken out.
        drop(unsafe { from_address(address) });
    }
}

/// Tells the waker that `Signal::set` returned.
///
/// A panic of the waker ends here: this is called by the scheduler, on no fiber.
///
/// # Safety
/// As for [`from_address`].
pub(crate) unsafe fn wake(address: usize) {
    // SAFETY: the caller's promise.
    let waker = unsafe { from_address(address) };
    let told = catch_unwind(AssertUnwindSafe(|| waker.wake()));
    if let Err(panic) = told {
        // Its destructor might panic, too, and so might the subscriber.
        std::mem::forget(panic);
        foreign(|| tracing::error!("the waker of a task that awaits a fiber panicked"));
    }
}

/// # Safety
/// `address` must come from `Waiter::Task`, taken out of a signal by the caller, once.
pub(crate) unsafe fn from_address(address: usize) -> Box<Waker> {
    // SAFETY: `watch` made a box of it, and whoever takes it out owns it.
    unsafe { Box::from_raw(std::ptr::with_exposed_provenance_mut(address)) }
}

const _: () = assert!(align_of::<Waker>() == 8);
