//! Where a receiver that lingers can be handed a message: a place on its stack that the channel
//! knows, in one cache line with the word that tells of it.
//!
//! Between two workers such a message crosses three times: the channel's first line to the sender,
//! which finds the place's address in it, and the place's line there and back. The receiver need
//! not take the channel's lock once more.
//!
//! Invariants.
//! 1. `Landings` is used under the channel's lock. It names a place only while its receiver is in
//!    `Channel::land`, which does not return before the place is out again: taken out by the
//!    receiver, or filled.
//! 2. A sender takes a place out and fills it under one lock, and touches it no more after `full`.

use crate::atomic::{AtomicBool, Ordering};
use std::cell::UnsafeCell;
use std::ptr;

/// See the module's head.
#[repr(C, align(64))]
pub(super) struct Landing<T> {
    full: AtomicBool,
    slot: UnsafeCell<Option<T>>,
}

impl<T> Landing<T> {
    pub(super) fn new() -> Self {
        Self { full: AtomicBool::new(false), slot: UnsafeCell::new(None) }
    }

    /// Whether the message is here; then nobody else looks at this place any more.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.full.load(Ordering::Acquire)
    }

    /// The message, of a place that is out.
    pub(super) fn into_message(self) -> Option<T> {
        self.slot.into_inner()
    }
}

/// The place of the one receiver that can be handed a message while it lingers, if there is one.
pub(super) struct Landings<T>(*const Landing<T>);

// SAFETY: it stands for a place that a message may be put into, from any thread (invariant 2).
unsafe impl<T: Send> Send for Landings<T> {}

impl<T> Landings<T> {
    pub(super) fn new() -> Self {
        Self(ptr::null())
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_null()
    }

    /// Puts a place in.
    ///
    /// # Safety
    /// It neither moves nor goes before it is out again: `leave`, under the lock, has said so, or
    /// it is full.
    pub(super) unsafe fn enter(&mut self, place: &Landing<T>) {
        debug_assert!(self.is_empty());
        self.0 = place;
    }

    /// Takes this place out, unless it has been filled: whether it was there.
    pub(super) fn leave(&mut self, place: &Landing<T>) -> bool {
        let is_there = ptr::eq(self.0, place);
        if is_there {
            self.0 = ptr::null();
        }
        is_there
    }

    /// Takes the place out and fills it. There is one.
    #[inline]
    pub(super) fn fill(&mut self, message: T) {
        let place = std::mem::replace(&mut self.0, ptr::null());
        assert!(!place.is_null(), "a receiver lingers");
        // SAFETY: a place that is in is alive, and ours to fill, as we hold the lock (invariant 1).
        // Its receiver looks at the slot after `full` only, so nobody else does now.
        unsafe { *(*place).slot.get() = Some(message) };
        // SAFETY: as above. It may be gone afterwards.
        unsafe { (*place).full.store(true, Ordering::Release) };
    }
}
