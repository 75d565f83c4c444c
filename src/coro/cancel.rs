//! A request to end early: any thread asks, the fiber's home worker delivers.
//!
//! The asker sets `REQUESTED`, then looks for the fiber's home; the worker that starts the fiber
//! sets the home, then, at the fiber's first wait and each later one, looks for a request. Between
//! its write and its read each side has a sequentially consistent fence. So either the asker sees
//! the home, and tells it, or the worker sees the request.
//!
//! The worker's fence is paid at the first wait only, and not by a fiber that never waits.
#![forbid(unsafe_code)]

use crate::atomic::{AtomicBool, AtomicU8, Ordering, fence};

/// Set by a request, cleared when an op has reported it.
const REQUESTED: u8 = 1;
/// Set while the fiber is in its home's list of cancel requests.
const LISTED: u8 = 2;
/// Set by the fiber when a wait has ended early because of the request without reporting it;
/// cleared when it is reported.
const NOTICED: u8 = 4;

/// One fiber's cancel requests; see the module's head.
#[derive(Debug)]
pub(crate) struct Cancel {
    bits: AtomicU8,
    /// The fiber has waited before: its home was visible to all who asked since. Used by the home
    /// worker only.
    waited: AtomicBool,
}

impl Cancel {
    pub(crate) fn new() -> Self {
        Self { bits: AtomicU8::new(0), waited: AtomicBool::new(false) }
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

    /// Whether a request is to be reported. By the home worker, for a fiber that is in no wait that
    /// begins.
    #[inline]
    pub(crate) fn is_requested(&self) -> bool {
        self.bits.load(Ordering::Acquire) & REQUESTED != 0
    }

    /// As `is_requested`, for a fiber that is about to wait.
    #[inline]
    pub(crate) fn is_requested_before_wait(&self) -> bool {
        if !self.waited.load(Ordering::Relaxed) {
            self.waited.store(true, Ordering::Relaxed);
            // Between the store of the home and the look.
            fence(Ordering::SeqCst);
        }
        self.is_requested()
    }

    /// The request has been reported.
    pub(crate) fn reported(&self) {
        self.bits.fetch_and(!(REQUESTED | NOTICED), Ordering::AcqRel);
    }

    /// Whether `notice` was called for the request. By the fiber.
    pub(crate) fn is_noticed(&self) -> bool {
        self.bits.load(Ordering::Relaxed) & NOTICED != 0
    }

    /// A wait of a kind that reports nothing has ended early: the next ones need not.
    pub(crate) fn notice(&self) {
        self.bits.fetch_or(NOTICED, Ordering::AcqRel);
    }
}
