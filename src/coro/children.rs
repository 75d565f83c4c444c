//! The fibers of one scope: how many have not ended, and who waits for the last of them.
//!
//! Most children are spawned by their scope's owner and end on its worker, and then they are
//! counted without a locked instruction (which, after the many stores that make a fiber, costs as
//! much as all the rest): there are two counts, `at_home`, which only the owner's worker uses, and
//! `away`. Their sum says how many children have not ended. When the owner comes to wait, it adds
//! the first to the second, and from then on that one alone counts.
//!
//! Invariants.
//! 1. Until the owner comes to wait, `away` is off by `NOT_LEFT`, and so never 0 or near it. So it
//!    comes to 0 once, when all children have ended and the owner adds none any more. Who adds a
//!    child is a child that has not ended, or the owner.
//! 2. Whoever brings it to 0 is the last to touch this. If that is a child, it sets `all_ended`,
//!    and the owner believes nothing else: with the count alone it might leave, and free this,
//!    between the two steps.
//! 3. A child counts itself out when nothing of it uses what it borrows any more: its closure has
//!    returned, and its result belongs to its join handle, which is a borrower itself, or is gone.
//!
//! May be called from any thread; no locks, no allocation.
#![forbid(unsafe_code)]

use super::signal::{Signal, Waiter};
use crate::atomic::{AtomicBool, AtomicUsize, Ordering};

const NOT_LEFT: usize = 1 << (usize::BITS - 2);

/// A worker, as far as this cares: a number of its own, or 0 for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place(pub(crate) usize);

/// See the module's head. Lies in the frame of the scope's owner.
#[derive(Debug)]
pub(crate) struct Children {
    /// The owner's worker.
    home: Place,
    /// Spawned at home, less those that ended at home. Used at home only; wraps.
    at_home: AtomicUsize,
    /// The owner has come to wait. Used at home only.
    left: AtomicBool,
    /// Spawned elsewhere, less those that ended elsewhere; wraps.
    away: AtomicUsize,
    /// Panics that no join handle has taken.
    panics: AtomicUsize,
    all_ended: Signal,
}

impl Children {
    pub(crate) fn new(home: Place) -> Self {
        Self {
            home,
            at_home: AtomicUsize::new(0),
            left: AtomicBool::new(false),
            away: AtomicUsize::new(NOT_LEFT),
            panics: AtomicUsize::new(0),
            all_ended: Signal::new(),
        }
    }

    /// Whether the caller may use `at_home`.
    #[inline]
    fn is_home(&self, here: Place) -> bool {
        here == self.home && here.0 != 0 && !self.left.load(Ordering::Relaxed)
    }

    /// Counts one more child, which is spawned `here`, before it can end.
    #[inline]
    pub(crate) fn add(&self, here: Place) {
        if self.is_home(here) {
            let at_home = self.at_home.load(Ordering::Relaxed);
            self.at_home.store(at_home.wrapping_add(1), Ordering::Relaxed);
        } else {
            self.away.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Counts a child out that has ended `here`. The owner may be gone on return; the waiter is the
    /// caller's to wake.
    #[inline]
    pub(crate) fn ended(&self, here: Place) -> Waiter {
        if self.is_home(here) {
            let at_home = self.at_home.load(Ordering::Relaxed);
            self.at_home.store(at_home.wrapping_sub(1), Ordering::Relaxed);
        } else if self.away.fetch_sub(1, Ordering::AcqRel) == 1 {
            return self.all_ended.set();
        }
        Waiter::None
    }

    /// The owner adds no more. What comes back is set when all children have ended; `None` if they
    /// have.
    #[inline]
    pub(crate) fn leave(&self) -> Option<&Signal> {
        let at_home = self.at_home.load(Ordering::Relaxed);
        let counted = at_home.wrapping_sub(NOT_LEFT);
        if self.away.load(Ordering::Acquire).wrapping_add(counted) == 0 {
            // No child is left that could change it.
            return None;
        }
        self.left.store(true, Ordering::Relaxed);
        let away = self.away.fetch_add(counted, Ordering::AcqRel);
        (away.wrapping_add(counted) != 0).then_some(&self.all_ended)
    }

    /// A child has panicked.
    pub(crate) fn panicked(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
    }

    /// A join handle has got the panic of its child.
    pub(crate) fn panic_taken(&self) {
        self.panics.fetch_sub(1, Ordering::Relaxed);
    }

    #[cfg(all(test, loom))]
    pub(crate) fn away(&self) -> usize {
        self.away.load(Ordering::Relaxed)
    }

    /// Whether a child has panicked and nobody has taken it.
    pub(crate) fn any_panicked(&self) -> bool {
        self.panics.load(Ordering::Relaxed) != 0
    }
}
