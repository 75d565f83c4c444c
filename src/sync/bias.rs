//! The lock of `lock.rs` for what is often used by the fibers of one worker alone: a channel
//! between them. After a while they need no locked instruction any more.
//!
//! | `owner` | meaning                                              | becomes               |
//! |---------|------------------------------------------------------|-----------------------|
//! | `OPEN`  | everybody takes the lock                             | a place, after [`RUN`] uses of that place in a row; `ENDED`, after [`CHANGES`] of place |
//! | a place | the fibers of that worker set `kept` and look again  | `ENDED`, by the first use elsewhere |
//! | `ENDED` | everybody takes the lock                             | for good              |
//!
//! `owner` changes under the lock only. A fiber of the owner stores `kept` and then looks at
//! `owner`; who ends it stores `owner`, has the other side execute a fence (`sys/membarrier.rs`),
//! and looks at `kept`. One of the two sees the other: either the fiber goes for the lock like
//! everybody else, or who ends it waits until `kept` is clear. Then no fiber of the owner is
//! inside, nor will be.
//!
//! The owner was told under the lock that it is, so it has seen all that was done before. Whoever
//! ends that sees `kept` as it was cleared last. A place is never another worker's later on.

#[cfg(not(all(test, loom)))]
use super::block;
use super::lock::{Guard, Locked};
use crate::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, yield_now};
#[cfg(all(test, loom))]
pub(crate) use crate::sys::membarrier::model::{NO_HEAVY, heavy, is_on, light};
#[cfg(not(all(test, loom)))]
use crate::sys::membarrier::{heavy_for_good as heavy, is_on, light};

const OPEN: usize = 0;
/// Places are even.
const ENDED: usize = 1;
/// Uses of one place in a row that make it the owner: what its end costs is little then.
const RUN: u32 = if cfg!(all(test, loom)) { 1 } else { 64 };
/// Changes of place after which there will be no owner.
const CHANGES: u32 = 64;
/// Looks at `kept` before the core is offered to others.
const LOOKS: u32 = if cfg!(all(test, loom)) { 0 } else { 1000 };

/// A value behind a tiny lock; see the module's head. The lock comes first, then the value.
#[repr(C)]
pub(crate) struct Biased<T> {
    locked: Locked<T>,
    bias: Bias,
}

impl<T> Biased<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { locked: Locked::new(value), bias: Bias::new() }
    }

    /// Takes the lock, as [`Locked::lock_between_runs`].
    #[inline]
    #[cfg(not(all(test, loom)))]
    pub(crate) fn lock(&self, in_a_run: impl FnOnce() -> bool) -> Guard<'_, T> {
        let me = block::place();
        if self.bias.enter(me) {
            // SAFETY: no fiber of another worker is inside, by the module's head; nor is one of
            // this worker, which would not have been left meanwhile (`lock.rs`).
            return unsafe { self.locked.guarded_by(&self.bias.kept) };
        }
        let guard = self.locked.lock_between_runs(in_a_run);
        self.bias.locked(me);
        guard
    }

    #[cfg(all(test, loom))]
    pub(crate) fn lock(&self, _: impl FnOnce() -> bool) -> Guard<'_, T> {
        self.locked.lock()
    }
}

/// Who need not take the lock.
pub(crate) struct Bias {
    owner: AtomicUsize,
    /// A fiber of the owner is inside.
    kept: AtomicBool,
    /// The place that has used it last, and how often in a row; changes of place. Under the lock.
    last: AtomicUsize,
    run: AtomicU32,
    changes: AtomicU32,
}

impl Bias {
    pub(crate) fn new() -> Self {
        Self {
            owner: AtomicUsize::new(OPEN),
            kept: AtomicBool::new(false),
            last: AtomicUsize::new(OPEN),
            run: AtomicU32::new(0),
            changes: AtomicU32::new(0),
        }
    }

    /// Goes inside without the lock, if `me` is the owner.
    #[inline]
    pub(crate) fn enter(&self, me: usize) -> bool {
        if me == OPEN || self.owner.load(Ordering::Relaxed) != me {
            return false;
        }
        self.kept.store(true, Ordering::Relaxed);
        light();
        if self.owner.load(Ordering::Relaxed) == me {
            return true;
        }
        self.kept.store(false, Ordering::Release);
        false
    }

    /// After `enter`.
    #[cfg(all(test, loom))]
    pub(crate) fn leave(&self) {
        self.kept.store(false, Ordering::Release);
    }

    /// `me` has taken the lock. Afterwards no owner is inside.
    #[inline]
    pub(crate) fn locked(&self, me: usize) {
        if self.owner.load(Ordering::Relaxed) != ENDED {
            self.count(me);
        }
    }

    #[inline(never)]
    fn count(&self, me: usize) {
        if self.owner.load(Ordering::Relaxed) != OPEN {
            return self.end();
        }
        let (run, changes) = (&self.run, &self.changes);
        if self.last.load(Ordering::Relaxed) != me {
            self.last.store(me, Ordering::Relaxed);
            run.store(0, Ordering::Relaxed);
            changes.store(changes.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
        run.store(run.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        if changes.load(Ordering::Relaxed) == CHANGES {
            self.owner.store(ENDED, Ordering::Relaxed);
        } else if run.load(Ordering::Relaxed) >= RUN {
            // Plain threads are all at one place, which is none.
            let owner = if me != OPEN && is_on() { me } else { ENDED };
            self.owner.store(owner, Ordering::Relaxed);
        }
    }

    #[cold]
    fn end(&self) {
        self.owner.store(ENDED, Ordering::SeqCst);
        heavy();
        let mut looks = 0;
        while self.kept.load(Ordering::Acquire) {
            looks += 1;
            if looks > LOOKS {
                yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }
}
