//! A worker's fresh fibers: spawned, not started, and therefore free to start anywhere.
//!
//! The owner takes the newest (so that a tree of spawns is walked depth first, with few fibers
//! alive), other workers the oldest, and now and then the owner too, so that none waits for ever.

use super::deque::{Deque, Owner};
use crate::coro::{FiberPtr, Header};
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Arc;

/// How often the owner takes its oldest fiber. By the clock, since each such fiber begins another
/// branch of the tree: once in 61 takes, a tree of a million fibers had 25,000 stacks alive.
const OLDEST_EVERY_NS: u64 = 1_000_000;

/// See the module's head.
pub(crate) struct Fresh {
    queue: Owner<Header>,
    /// The runtime has one worker: nobody steals.
    is_private: bool,
    /// Whether the next take is of the oldest fiber, and when that is due again.
    oldest_next: Cell<bool>,
    oldest_due_ns: Cell<u64>,
}

impl Fresh {
    pub(crate) fn new(shared: bool) -> Self {
        Self {
            queue: Owner::new(),
            is_private: !shared,
            oldest_next: Cell::new(false),
            oldest_due_ns: Cell::new(0),
        }
    }

    /// Whether nobody steals.
    #[inline]
    pub(crate) fn is_private(&self) -> bool {
        self.is_private
    }

    /// What other workers steal through.
    pub(crate) fn stealer(&self) -> Option<Stealer> {
        (!self.is_private).then(|| Stealer(Arc::clone(self.queue.deque())))
    }

    /// Returns how many there are now.
    #[inline]
    pub(crate) fn push(&self, fiber: FiberPtr) -> usize {
        self.queue.push(fiber.as_ptr())
    }

    /// As `push`, and `is_news` is not asked.
    #[inline]
    pub(crate) fn push_quietly(&self, fiber: FiberPtr) {
        self.push(fiber);
        self.queue.keep_quiet();
    }

    /// After a `push`, and what it returned: whether anybody has to be told.
    #[inline]
    pub(crate) fn is_news(&self, len: usize) -> bool {
        self.queue.is_news(len)
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.deque().is_empty()
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.queue.deque().len()
    }

    /// Called now and then by an owner that neither pushes nor pops: `Owner::answer`.
    #[inline]
    pub(crate) fn answer(&self) {
        self.queue.answer();
    }

    /// To be called now and then while several fibers wait here, so that none does so for ever.
    pub(crate) fn age(&self, now_ns: u64) {
        if now_ns >= self.oldest_due_ns.get() {
            self.oldest_due_ns.set(now_ns + OLDEST_EVERY_NS);
            self.oldest_next.set(true);
        }
    }

    /// Takes a fiber. There may be some and none to be had: somebody is about to steal them.
    #[inline]
    pub(crate) fn pop(&self) -> Option<FiberPtr> {
        let oldest = if self.oldest_next.take() { self.queue.pop_oldest() } else { None };
        oldest.or_else(|| self.queue.pop()).map(fiber)
    }

    /// Takes this fiber, if it was pushed last.
    #[inline]
    pub(crate) fn pop_if(&self, fiber: FiberPtr) -> bool {
        self.queue.pop_if(fiber.as_ptr())
    }
}

/// A fiber that was in a queue.
#[inline]
fn fiber(header: *mut Header) -> FiberPtr {
    let header = NonNull::new(header).expect("only fibers are pushed");
    // SAFETY: it was pushed as a `FiberPtr`, and a fiber that waits to be started is alive.
    unsafe { FiberPtr::new(header) }
}

/// Through which others take a worker's fresh fibers.
pub(crate) struct Stealer(Arc<Deque<Header>>);

impl Stealer {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Takes some of the oldest fibers: `Deque::steal`.
    pub(crate) fn steal(
        &self,
        most: usize,
        waits: impl FnMut() -> bool,
        mut each: impl FnMut(FiberPtr),
    ) -> usize {
        self.0.steal(most, waits, |header| each(fiber(header)))
    }
}
