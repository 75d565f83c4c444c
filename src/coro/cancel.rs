//! A request to end early: any thread asks, the fiber's home worker delivers.
//!
//! The asker sets `REQUESTED`, then looks for the fiber's home; the worker that starts the fiber
//! sets the home, then, at the fiber's first wait and each later one, looks for a request. Between
//! its write and its read each side has a sequentially consistent fence. So either the asker sees
//! the home, and tells it, or the worker sees the request.
//!
//! The worker's fence is paid at the first wait only, and not by a fiber that never waits.
//!
//! What the fiber's own calls of `timeout` and `shield` have to do with it (`bounds.rs`) is kept in
//! a byte of the home's own beside the shared one: `DUE` is a reason of the same kind that no other
//! thread can give, `SHIELDED` hides a request without taking it away. A report clears one of the
//! two reasons, never both.
#![forbid(unsafe_code)]

use crate::atomic::{AtomicU8, Ordering, fence};

/// Set by a request, cleared when an op has reported it.
const REQUESTED: u8 = 1;
/// Set while the fiber is in its home's list of cancel requests.
const LISTED: u8 = 2;

/// The fiber has waited before: its home was visible to all who asked since.
const WAITED: u8 = 1;
/// The fiber is inside a shield: requests stay where they are.
const SHIELDED: u8 = 2;
/// A deadline inside all shields has expired and has not been reported.
const DUE: u8 = 4;
/// What was reported last was a request.
const REPORTED_LAST: u8 = 8;
/// A wait that reports nothing has ended early because of what there is to report.
const NOTICED: u8 = 16;

/// One fiber's cancel requests; see the module's head.
#[derive(Debug)]
pub(crate) struct Cancel {
    bits: AtomicU8,
    /// Used by the home worker only, or by the fiber that it runs.
    own: AtomicU8,
}

impl Cancel {
    pub(crate) fn new() -> Self {
        Self { bits: AtomicU8::new(0), own: AtomicU8::new(0) }
    }

    /// Asks. `true` if nobody has asked before: then the caller looks for the fiber's home next.
    pub(crate) fn request(&self) -> bool {
        let first = self.bits.fetch_or(REQUESTED, Ordering::AcqRel) & REQUESTED == 0;
        if first {
            fence(Ordering::SeqCst);
        }
        first
    }

    /// `true` if the fiber was not listed: then the caller lists it.
    pub(crate) fn list(&self) -> bool {
        self.bits.fetch_or(LISTED, Ordering::AcqRel) & LISTED == 0
    }

    /// The fiber has been taken out of the list. By its home worker, before it looks for a request.
    pub(crate) fn unlist(&self) {
        self.bits.fetch_and(!LISTED, Ordering::AcqRel);
    }

    /// Whether an op is to fail: for a request that no shield hides, or for a deadline. By the home
    /// worker, for a fiber that is in no wait that begins.
    #[inline]
    pub(crate) fn is_requested(&self) -> bool {
        self.own.load(Ordering::Relaxed) & DUE != 0 || self.has_visible_request()
    }

    /// As `is_requested`, for a fiber that is about to wait.
    #[inline]
    pub(crate) fn is_requested_before_wait(&self) -> bool {
        let own = self.own.load(Ordering::Relaxed);
        if own & (WAITED | SHIELDED | DUE) != WAITED {
            return self.is_requested_in_full(own);
        }
        self.bits.load(Ordering::Acquire) & REQUESTED != 0
    }

    #[cold]
    fn is_requested_in_full(&self, own: u8) -> bool {
        if own & WAITED == 0 {
            self.own.store(own | WAITED, Ordering::Relaxed);
            // Between the store of the home and the look.
            fence(Ordering::SeqCst);
        }
        self.is_requested()
    }

    /// Whether there is a request that no shield hides. As `is_requested`.
    #[inline]
    pub(crate) fn has_visible_request(&self) -> bool {
        self.own.load(Ordering::Relaxed) & SHIELDED == 0
            && self.bits.load(Ordering::Acquire) & REQUESTED != 0
    }

    /// The request has been reported.
    pub(crate) fn reported(&self) {
        self.set_own(NOTICED, false);
        self.set_own(REPORTED_LAST, true);
        self.bits.fetch_and(!REQUESTED, Ordering::AcqRel);
    }

    /// Something else has been reported.
    pub(crate) fn reported_other(&self) {
        self.set_own(NOTICED, false);
        self.set_own(REPORTED_LAST, false);
    }

    /// Whether what was reported last was a request; says so once.
    pub(crate) fn take_reported_last(&self) -> bool {
        let was = self.own.load(Ordering::Relaxed) & REPORTED_LAST != 0;
        self.set_own(REPORTED_LAST, false);
        was
    }

    /// What the fiber's bounds come to.
    pub(crate) fn set_bounds(&self, shielded: bool, due: bool) {
        self.set_own(SHIELDED, shielded);
        if due && self.own.load(Ordering::Relaxed) & DUE == 0 {
            self.set_own(NOTICED, false);
        }
        self.set_own(DUE, due);
    }

    /// Whether `notice` was called for what there is to report.
    pub(crate) fn is_noticed(&self) -> bool {
        self.own.load(Ordering::Relaxed) & NOTICED != 0
    }

    /// A wait of a kind that reports nothing has ended early: the next ones need not.
    pub(crate) fn notice(&self) {
        self.set_own(NOTICED, true);
    }

    fn set_own(&self, bit: u8, on: bool) {
        let own = self.own.load(Ordering::Relaxed);
        self.own.store(if on { own | bit } else { own & !bit }, Ordering::Relaxed);
    }
}
