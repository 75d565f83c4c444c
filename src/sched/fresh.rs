//! A worker's fresh fibers: spawned, not started, and therefore free to start anywhere.
//!
//! The owner takes the newest (so that a tree of spawns is walked depth first, with few fibers
//! alive), other workers the oldest, and now and then the owner too, so that none waits for ever.
#![forbid(unsafe_code)]

use crate::coro::FiberPtr;
use crossbeam_deque::{Steal, Stealer, Worker as Deque};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// How often the owner takes its oldest fiber. By the clock, since each such fiber begins another
/// branch of the tree: once in 61 takes, a tree of a million fibers had 25,000 stacks alive.
const OLDEST_EVERY_NS: u64 = 1_000_000;

/// See the module's head.
pub(crate) struct Fresh {
    queue: Queue,
    /// Whether the next take is of the oldest fiber, and when that is due again.
    oldest_next: Cell<bool>,
    oldest_due_ns: Cell<u64>,
}

enum Queue {
    /// The runtime has one worker: nobody steals, so nothing needs to be atomic.
    Private(RefCell<VecDeque<FiberPtr>>),
    Shared(Deque<FiberPtr>, Stealer<FiberPtr>),
}

impl Fresh {
    pub(crate) fn new(shared: bool) -> Self {
        let queue = if shared {
            let deque = Deque::new_lifo();
            let stealer = deque.stealer();
            Queue::Shared(deque, stealer)
        } else {
            Queue::Private(RefCell::default())
        };
        Self { queue, oldest_next: Cell::new(false), oldest_due_ns: Cell::new(0) }
    }

    /// Whether nobody steals.
    #[inline]
    pub(crate) fn is_private(&self) -> bool {
        matches!(self.queue, Queue::Private(_))
    }

    /// What other workers steal through.
    pub(crate) fn stealer(&self) -> Option<Stealer<FiberPtr>> {
        match &self.queue {
            Queue::Private(_) => None,
            Queue::Shared(_, stealer) => Some(stealer.clone()),
        }
    }

    #[inline]
    pub(crate) fn push(&self, fiber: FiberPtr) {
        match &self.queue {
            Queue::Private(queue) => queue.borrow_mut().push_back(fiber),
            Queue::Shared(deque, _) => deque.push(fiber),
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        match &self.queue {
            Queue::Private(queue) => queue.borrow().is_empty(),
            Queue::Shared(deque, _) => deque.is_empty(),
        }
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        match &self.queue {
            Queue::Private(queue) => queue.borrow().len(),
            Queue::Shared(deque, _) => deque.len(),
        }
    }

    /// To be called now and then while several fibers wait here, so that none does so for ever.
    pub(crate) fn age(&self, now_ns: u64) {
        if now_ns >= self.oldest_due_ns.get() {
            self.oldest_due_ns.set(now_ns + OLDEST_EVERY_NS);
            self.oldest_next.set(true);
        }
    }

    #[inline]
    pub(crate) fn pop(&self) -> Option<FiberPtr> {
        let oldest = self.oldest_next.take();
        match &self.queue {
            Queue::Private(queue) if oldest => queue.borrow_mut().pop_front(),
            Queue::Private(queue) => queue.borrow_mut().pop_back(),
            Queue::Shared(deque, _) if deque.is_empty() => None, // without the fence of `pop`
            Queue::Shared(deque, stealer) if oldest => steal(stealer).or_else(|| deque.pop()),
            Queue::Shared(deque, _) => deque.pop(),
        }
    }

    /// Takes the fiber that was pushed last.
    #[inline]
    pub(crate) fn pop_newest(&self) -> Option<FiberPtr> {
        match &self.queue {
            Queue::Private(queue) => queue.borrow_mut().pop_back(),
            Queue::Shared(deque, _) => deque.pop(),
        }
    }
}

/// Takes the oldest fiber of another worker.
pub(crate) fn steal(stealer: &Stealer<FiberPtr>) -> Option<FiberPtr> {
    loop {
        match stealer.steal() {
            Steal::Success(fiber) => return Some(fiber),
            Steal::Empty => return None,
            Steal::Retry => std::hint::spin_loop(),
        }
    }
}
