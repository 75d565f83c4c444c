//! The tiny lock under everything in `sync`: it guards a queue of waiters and a few words beside
//! it, for a few instructions at a time.
//!
//! A holder neither waits nor runs code of the user (no `Drop`, no `Clone`, no panic hook). A fiber
//! may suspend with it ([`Guard::keep`]) if the idle context lets go of it at once. So a fiber that
//! runs never finds it held by a fiber of the same worker, and who finds it held by another thread
//! spins for as long as that takes. Should the holder have been preempted, the spinning thread soon
//! offers its core to the kernel.

use crate::atomic::const_fn;
use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
#[cfg(not(all(test, loom)))]
use std::sync::atomic::AtomicBool;

#[cfg(all(test, loom))]
use model::{Held, Lock};
#[cfg(not(all(test, loom)))]
use spin::{Held, Lock};

/// A value behind a tiny lock, which comes first; see the module's head.
#[repr(C)]
pub(crate) struct Locked<T> {
    lock: Lock,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached by the holder of the lock alone, which any thread may be.
unsafe impl<T: Send> Sync for Locked<T> {}

impl<T> Locked<T> {
    const_fn! {
        pub(crate) fn new(value: T) -> Self {
            Self { lock: Lock::new(), value: UnsafeCell::new(value) }
        }
    }

    /// Takes the lock.
    #[inline]
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        let held = self.lock.take();
        Guard { locked: self, _held: held }
    }

    /// As `lock`. If another thread has it, `in_a_run` says whether that one is likely to take it
    /// many times in a row: then it is left in peace for longer.
    #[inline]
    #[cfg(not(all(test, loom)))]
    pub(crate) fn lock_between_runs(&self, in_a_run: impl FnOnce() -> bool) -> Guard<'_, T> {
        let held = self.lock.take_between_runs(in_a_run);
        Guard { locked: self, _held: held }
    }

    /// The lock as taken, until `kept` is cleared.
    ///
    /// # Safety
    /// Nobody else has the lock, or gets it, before that.
    #[inline]
    #[cfg(not(all(test, loom)))]
    pub(super) unsafe fn guarded_by<'a>(&'a self, kept: &'a AtomicBool) -> Guard<'a, T> {
        Guard { locked: self, _held: Held(kept) }
    }
}

/// The lock, held.
pub(crate) struct Guard<'a, T> {
    locked: &'a Locked<T>,
    _held: Held<'a>,
}

#[cfg(not(all(test, loom)))]
impl<'a, T> Guard<'a, T> {
    /// Keeps the lock, until somebody clears what is returned.
    #[inline]
    pub(crate) fn keep(self) -> &'a AtomicBool {
        self._held.keep()
    }
}

impl<T> Deref for Guard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: we hold the lock.
        unsafe { &*self.locked.value.get() }
    }
}

impl<T> DerefMut for Guard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: we hold the lock, and the guard is borrowed exclusively.
        unsafe { &mut *self.locked.value.get() }
    }
}

#[cfg(not(all(test, loom)))]
mod spin {
    use std::hint;
    use std::ops::Range;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    /// Pauses before the first look at a lock that was held, and between two looks at most. A
    /// pause is some 15 ns.
    const PAUSES: Range<u32> = 4..128;
    /// The same where another thread takes the lock many times in a row.
    const RUN_PAUSES: Range<u32> = 32..256;
    /// Pauses before the core is offered to others.
    const YIELD_AFTER: u32 = 1500;

    pub(super) struct Lock(AtomicBool);

    impl Lock {
        pub(super) const fn new() -> Self {
            Self(AtomicBool::new(false))
        }

        #[inline]
        pub(super) fn take(&self) -> Held<'_> {
            if self.0.swap(true, Ordering::Acquire) {
                self.spin(PAUSES);
            }
            Held(&self.0)
        }

        #[inline]
        pub(super) fn take_between_runs(&self, in_a_run: impl FnOnce() -> bool) -> Held<'_> {
            if self.0.swap(true, Ordering::Acquire) {
                self.spin_between_runs(in_a_run);
            }
            Held(&self.0)
        }

        #[cold]
        fn spin_between_runs(&self, in_a_run: impl FnOnce() -> bool) {
            self.spin(if in_a_run() { RUN_PAUSES } else { PAUSES });
        }

        /// Pauses before each look, and longer each time: two threads that use the lock all the
        /// time are fastest if each keeps it, and what it guards, in its cache for a few dozen
        /// turns.
        #[cold]
        fn spin(&self, pauses: Range<u32>) {
            let (most, mut pauses, mut paused) = (pauses.end, pauses.start, 0);
            loop {
                for _ in 0..pauses {
                    hint::spin_loop();
                }
                if !self.0.load(Ordering::Relaxed) && !self.0.swap(true, Ordering::Acquire) {
                    return;
                }
                paused += pauses;
                pauses = (pauses * 2).min(most);
                if paused > YIELD_AFTER {
                    thread::yield_now();
                    paused = 0;
                }
            }
        }
    }

    pub(super) struct Held<'a>(pub(super) &'a AtomicBool);

    impl<'a> Held<'a> {
        #[inline]
        pub(super) fn keep(self) -> &'a AtomicBool {
            let lock = self.0;
            std::mem::forget(self);
            lock
        }
    }

    impl Drop for Held<'_> {
        #[inline]
        fn drop(&mut self) {
            self.0.store(false, Ordering::Release);
        }
    }
}

/// In the models, loom's own: it would try how long one may spin.
#[cfg(all(test, loom))]
mod model {
    use super::super::block;
    use loom::sync::{Mutex, MutexGuard};

    pub(super) struct Lock(Mutex<()>);

    impl Lock {
        pub(super) fn new() -> Self {
            Self(Mutex::new(()))
        }

        pub(super) fn take(&self) -> Held<'_> {
            Held(Some(self.0.lock().unwrap()))
        }
    }

    pub(super) struct Held<'a>(Option<MutexGuard<'a, ()>>);

    impl Drop for Held<'_> {
        fn drop(&mut self) {
            if block::is_torn_down() {
                std::mem::forget(self.0.take());
            }
        }
    }
}
