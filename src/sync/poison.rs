//! Poisoning, as std has it: who panics while holding a lock leaves a mark.
#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LockResult, PoisonError};
use std::thread;

/// The mark of one lock.
pub(super) struct Flag(AtomicBool);

/// Whether the thread was unwinding already when the lock was taken. Nothing suspends while it
/// does, so what the thread says is true of the fiber.
#[derive(Clone, Copy)]
pub(super) struct Taken(bool);

impl Flag {
    pub(super) const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// When the lock has been taken.
    #[inline]
    pub(super) fn taken() -> Taken {
        Taken(thread::panicking())
    }

    /// Before the lock is let go.
    #[inline]
    pub(super) fn leave(&self, taken: Taken) {
        if !taken.0 && thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    #[inline]
    pub(super) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    #[inline]
    pub(super) fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// `value`, in an error if the mark is there.
    #[inline]
    pub(super) fn wrap<T>(&self, value: T) -> LockResult<T> {
        if self.get() { Err(PoisonError::new(value)) } else { Ok(value) }
    }
}
