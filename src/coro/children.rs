//! The fibers of one scope: how many have not ended, and who waits for the last of them.
//!
//! Invariants.
//! 1. The count is that of the children that have not ended, and one more until the owner comes to
//!    wait. So who adds a child is counted, and the count comes to 0 once.
//! 2. Whoever brings the count to 0 is the last to touch this. If that is a child, it sets
//!    `all_ended`, and the owner believes nothing else: with the count alone it might leave, and
//!    free this, between the two steps.
//! 3. A child counts itself out when nothing of it uses what it borrows any more: its closure has
//!    returned, and its result belongs to its join handle, which is a borrower itself, or is gone.
//!
//! May be called from any thread; no locks, no allocation.
#![forbid(unsafe_code)]

use super::signal::{Signal, Waiter};
use crate::atomic::{AtomicUsize, Ordering};

/// See the module's head. Lies in the frame of the scope's owner.
#[derive(Debug)]
pub(crate) struct Children {
    alive: AtomicUsize,
    /// Panics that no join handle has taken.
    panics: AtomicUsize,
    all_ended: Signal,
}

impl Children {
    pub(crate) fn new() -> Self {
        Self { alive: AtomicUsize::new(1), panics: AtomicUsize::new(0), all_ended: Signal::new() }
    }

    /// Counts one more child. By somebody who is counted, before the child can end.
    #[inline]
    pub(crate) fn add(&self) {
        self.alive.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a child out. The owner may be gone on return; the waiter is the caller's to wake.
    #[inline]
    pub(crate) fn ended(&self) -> Waiter {
        if self.alive.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.all_ended.set()
        } else {
            Waiter::None
        }
    }

    /// Counts the owner out, which adds none any more. What comes back is set when all children
    /// have ended; `None` if they have.
    #[inline]
    pub(crate) fn leave(&self) -> Option<&Signal> {
        (self.alive.fetch_sub(1, Ordering::AcqRel) != 1).then_some(&self.all_ended)
    }

    /// A child has panicked.
    pub(crate) fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// A join handle has got the panic of its child.
    pub(crate) fn panic_taken(&self) {
        self.panics.fetch_sub(1, Ordering::Relaxed);
    }

    /// Children that have not ended, for people to read.
    pub(crate) fn alive(&self) -> usize {
        self.alive.load(Ordering::Relaxed)
    }

    /// Whether a child has panicked and nobody has taken it.
    pub(crate) fn any_panicked(&self) -> bool {
        self.panics.load(Ordering::Relaxed) != 0
    }
}
