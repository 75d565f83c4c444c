//! Waiting on a [`Signal`] from a plain thread: a futex word on the thread's stack.

use super::signal::{Signal, Waiter};
use crate::sys::futex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

/// A thread that waits on a [`Signal`]; lives on that thread's stack.
#[repr(align(8))]
pub(crate) struct ThreadWaiter {
    woken: AtomicU32,
}

/// Blocks the calling thread until `signal` is set, or until `deadline`. Returns whether it is set.
pub(crate) fn wait(signal: &Signal, mut deadline: Option<Instant>) -> bool {
    let me = ThreadWaiter { woken: AtomicU32::new(0) };
    let waiter = Waiter::Thread((&raw const me).expose_provenance());
    if !signal.register(waiter) {
        return true;
    }
    while me.woken.load(Ordering::Acquire) == 0 {
        if !futex::wait(&me.woken, 0, deadline) {
            if signal.unregister(waiter) {
                return false;
            }
            // Timed out, but the setter has us already: it is about to wake us (invariant 3).
            deadline = None;
        }
    }
    true
}

/// Wakes the thread whose waiter `Signal::set` returned.
///
/// # Safety
/// `address` must come from `Waiter::Thread`, taken out of a signal by the caller, once.
pub(crate) unsafe fn wake(address: usize) {
    let waiter = std::ptr::with_exposed_provenance::<ThreadWaiter>(address);
    // SAFETY: taken out of the signal by us alone (invariant 3 of `signal.rs`), and the thread does
    // not leave `wait` before this store, so the waiter is alive until then.
    let word: *const AtomicU32 = unsafe { &raw const (*waiter).woken };
    // SAFETY: as above.
    unsafe { (*word).store(1, Ordering::Release) };
    // From here on the waiter may be gone; its address is all that is used.
    futex::wake_address(word, 1);
}
