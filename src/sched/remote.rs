//! The part of a worker that other threads may touch.
//!
//! A `Remote` is never freed: whoever has just woken a fiber may still poke its home worker while
//! that fiber, and then the whole runtime, comes to its end. A finished runtime's remotes serve the
//! next runtime, for which a late poke is a spurious wake-up and no more.

use super::Shared;
use super::inbox::{Inbox, Node};
use crate::coro::{FiberPtr, Header};
use crate::driver::{SleepWord, Waker};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// See the module's head. One cache line group per worker, so that workers do not disturb each
/// other.
#[repr(align(128))]
pub(crate) struct Remote {
    /// Fibers made ready by other threads.
    pub(crate) woken: Inbox<Woken>,
    /// Fibers that other threads want cancelled; each holds a reference.
    pub(crate) cancels: Inbox<Cancelled>,
    pub(crate) sleep: SleepWord,
    /// Fibers created by, respectively ended on this worker. Written by the owner.
    pub(crate) spawned: AtomicU64,
    pub(crate) ended: AtomicU64,
    pub(crate) panicked: AtomicU64,
    /// Resumes so far, in steps: whether it moves tells whether the worker does. Written by the
    /// owner.
    pub(crate) resumes: AtomicU64,
    /// Fresh fibers the owner has taken from its own queue. Written by the owner.
    pub(crate) taken: AtomicU64,
    /// How often a fresh fiber came into the owner's empty queue. Written by the owner.
    pub(crate) refills: AtomicU64,
    /// Fresh fibers taken from others. Written by the owner.
    pub(crate) stolen: AtomicU64,
    /// Ops in flight and armed timers, as of the owner's last turn. Written by the owner.
    pub(crate) busy: AtomicUsize,
    /// The owner has left its loop for good: no fiber with this home is ever resumed again.
    gone: AtomicBool,
    waker: Mutex<Waker>,
}

/// Marks a home that is none yet, but the address of a runtime.
const NONE_YET: usize = 1;

static IDLE: Mutex<Vec<&'static Remote>> = Mutex::new(Vec::new());

impl Remote {
    /// A remote for a new worker.
    pub(crate) fn acquire() -> &'static Self {
        let recycled = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        recycled.unwrap_or_else(|| {
            Box::leak(Box::new(Self {
                woken: Inbox::new(),
                cancels: Inbox::new(),
                sleep: SleepWord::new(),
                spawned: AtomicU64::new(0),
                ended: AtomicU64::new(0),
                panicked: AtomicU64::new(0),
                resumes: AtomicU64::new(0),
                taken: AtomicU64::new(0),
                refills: AtomicU64::new(0),
                stolen: AtomicU64::new(0),
                busy: AtomicUsize::new(0),
                gone: AtomicBool::new(false),
                waker: Mutex::new(Waker::Futex),
            }))
        })
    }

    /// Gives it back. Not to be called while a fiber with this home is alive.
    pub(crate) fn recycle(&'static self) {
        for counter in [
            &self.spawned,
            &self.ended,
            &self.panicked,
            &self.resumes,
            &self.taken,
            &self.refills,
            &self.stolen,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
        self.busy.store(0, Ordering::Relaxed);
        self.gone.store(false, Ordering::Relaxed);
        IDLE.lock().unwrap_or_else(PoisonError::into_inner).push(self);
    }

    /// Called by an owner that has left its loop for good.
    pub(crate) fn retire(&self) {
        self.sleep.retire();
        self.gone.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    pub(crate) fn set_waker(&self, waker: Waker) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = waker;
    }

    /// To be called after queueing anything for this worker, from any thread. Returns whether it
    /// slept and had to be poked.
    #[inline]
    pub(crate) fn notify(&self) -> bool {
        self.sleep.notify(|word| {
            let waker = *self.waker.lock().unwrap_or_else(PoisonError::into_inner);
            waker.poke_surely(word);
        })
    }

    /// Whether other threads have put something in.
    #[inline]
    pub(crate) fn has_mail(&self) -> bool {
        !self.woken.is_empty() || !self.cancels.is_empty()
    }

    /// The remote of a fiber's home worker; `None` while any worker may start it.
    #[inline]
    pub(crate) fn of(fiber: FiberPtr) -> Option<&'static Self> {
        let home = fiber.header().home.load(Ordering::Acquire).cast::<Self>();
        if home.addr() & NONE_YET != 0 {
            return None;
        }
        // SAFETY: no mark, so `set_home` has written it; remotes are never freed.
        Some(unsafe { &*home })
    }

    /// What a fiber has for a home until a worker of this runtime starts it.
    #[inline]
    pub(crate) fn none_yet(runtime: &Arc<Shared>) -> *mut () {
        std::ptr::without_provenance_mut(Arc::as_ptr(runtime).addr() | NONE_YET)
    }

    /// Makes this worker the fiber's home: before its first resume, and always the same one.
    #[inline]
    pub(crate) fn set_home(&'static self, fiber: FiberPtr) {
        let me: *const Self = self;
        fiber.header().home.store(me.cast_mut().cast(), Ordering::Release);
    }
}

/// Adds to a counter that only the calling thread writes: no locked instruction. Whoever sees the
/// new count sees what the thread did before, so that an end is never seen before its spawn.
#[inline]
pub(crate) fn bump(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Release);
}

/// A fiber in `Remote::woken`.
#[derive(Clone, Copy)]
pub(crate) struct Woken(pub(crate) FiberPtr);

/// A fiber in `Remote::cancels`.
#[derive(Clone, Copy)]
pub(crate) struct Cancelled(pub(crate) FiberPtr);

macro_rules! link {
    ($node:ident, $field:ident) => {
        impl Node for $node {
            type Target = Header;
            #[inline]
            fn to_ptr(self) -> *mut Header {
                self.0.as_ptr()
            }
            #[inline]
            fn from_ptr(ptr: *mut Header) -> Self {
                let ptr = NonNull::new(ptr).expect("not null, by the contract of `from_ptr`");
                // SAFETY: a fiber in an inbox is alive (invariant 2 of `inbox.rs`).
                Self(unsafe { FiberPtr::new(ptr) })
            }
            #[inline]
            fn set_next(self, next: *mut Header) {
                self.0.header().$field.set(next);
            }
            #[inline]
            fn next(self) -> *mut Header {
                self.0.header().$field.get()
            }
        }
    };
}
link!(Woken, inbox_next);
link!(Cancelled, cancel_next);

#[cfg(all(test, not(loom)))]
mod tests {
    use super::super::inbox::Inbox;
    use super::{Cancelled, Woken};
    use crate::coro::fake::FakeFiber;
    use std::sync::Arc;
    use std::thread;

    /// Through both inboxes at the same time, from several threads: all arrive, and each giver's in
    /// their order.
    #[test]
    fn fibers_pass_through_both_inboxes() {
        const GIVERS: usize = 3;
        const EACH: usize = 20;
        let fibers: Arc<[FakeFiber]> =
            (0..GIVERS * EACH).map(|n| FakeFiber::new(n as u64)).collect();
        let inboxes = Arc::new((Inbox::<Woken>::new(), Inbox::<Cancelled>::new()));
        let givers: Vec<_> = (0..GIVERS)
            .map(|giver| {
                let (fibers, inboxes) = (Arc::clone(&fibers), Arc::clone(&inboxes));
                thread::spawn(move || {
                    for fiber in &fibers[giver * EACH..(giver + 1) * EACH] {
                        inboxes.1.push(Cancelled(fiber.ptr()));
                        inboxes.0.push(Woken(fiber.ptr()));
                    }
                })
            })
            .collect();
        let (mut woken, mut cancelled) = (Vec::new(), Vec::new());
        while woken.len() + cancelled.len() < 2 * fibers.len() {
            let old = (woken.len(), cancelled.len());
            woken.extend(inboxes.0.take().map(|woken| woken.0.header().id));
            cancelled.extend(inboxes.1.take().map(|cancelled| cancelled.0.header().id));
            if (woken.len(), cancelled.len()) == old {
                thread::yield_now();
            }
        }
        givers.into_iter().for_each(|giver| giver.join().unwrap());
        for mut taken in [woken, cancelled] {
            // Stable: of each giver's, the order in which they came.
            taken.sort_by_key(|id| *id as usize / EACH);
            assert!(taken.into_iter().eq(0..fibers.len() as u64));
        }
    }
}
