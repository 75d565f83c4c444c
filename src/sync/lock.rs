//! The tiny lock under everything in `sync`: it guards a queue of waiters and a few words beside
//! it, for a few instructions at a time.
//!
//! A holder neither suspends, nor waits, nor runs code of the user (no `Drop`, no `Clone`, no panic
//! hook): so a fiber that runs never finds it held by a fiber of the same worker, and who finds it
//! held by another thread spins for as long as that takes. Should the holder have been preempted,
//! the spinning thread soon offers its core to the kernel.

use crate::atomic::{AtomicBool, Ordering, yield_now};
use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};

/// Pauses before the first look at a lock that was held, and between two looks at most. A pause is
/// some 15 ns.
const PAUSES: u32 = 16;
const MOST_PAUSES: u32 = 128;
/// Pauses before the core is offered to others.
const YIELD_AFTER: u32 = 1500;

/// A value behind a tiny lock; see the module's head.
pub(crate) struct Locked<T> {
    locked: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached by the holder of the lock alone, which any thread may be.
unsafe impl<T: Send> Sync for Locked<T> {}

impl<T> Locked<T> {
    #[cfg(not(all(test, loom)))]
    pub(crate) const fn new(value: T) -> Self {
        Self { locked: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    #[cfg(all(test, loom))]
    pub(crate) fn new(value: T) -> Self {
        Self { locked: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    /// Takes the lock.
    #[inline]
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        if !self.try_take() {
            self.spin();
        }
        Guard(self)
    }

    #[inline]
    fn try_take(&self) -> bool {
        self.locked.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[cold]
    fn spin(&self) {
        let mut pauses = PAUSES;
        let mut paused = 0;
        loop {
            // A while before each look: two threads that use the lock all the time are fastest if
            // each keeps it, and what it guards, in its cache for a few dozen turns.
            if cfg!(loom) {
                yield_now();
            }
            for _ in 0..pauses {
                std::hint::spin_loop();
            }
            if !self.locked.load(Ordering::Relaxed) && self.try_take() {
                return;
            }
            paused += pauses;
            pauses = (pauses * 2).min(MOST_PAUSES);
            if paused > YIELD_AFTER {
                yield_now();
                paused = 0;
            }
        }
    }
}

/// The lock, held. It is held by this thread, so the guard stays on it.
pub(crate) struct Guard<'a, T>(&'a Locked<T>);

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: we hold the lock.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: we hold the lock, and the guard is borrowed exclusively.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Guard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.0.locked.store(false, Ordering::Release);
    }
}
