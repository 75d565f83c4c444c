//! A worker's fresh fibers: spawned, not started, and therefore free to start anywhere.
//!
//! The owner takes the newest (so that a tree of spawns is walked depth first, with few fibers
//! alive), other workers the oldest, and now and then the owner too, so that none waits for ever.
#![forbid(unsafe_code)]

use crate::coro::FiberPtr;
use crossbeam_deque::{Steal, Stealer, Worker as Deque};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// Every so many takes, the owner takes its oldest fiber. A prime, so that it falls into step with
/// nothing.
const OLDEST_EVERY: u32 = 61;

/// See the module's head.
pub(crate) struct Fresh {
    queue: Queue,
    takes: Cell<u32>,
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
        Self { queue, takes: Cell::new(0) }
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

    #[inline]
    pub(crate) fn pop(&self) -> Option<FiberPtr> {
        if self.is_empty() {
            return None;
        }
        let takes = self.takes.get() + 1;
        self.takes.set(takes);
        let oldest = takes.is_multiple_of(OLDEST_EVERY);
        match &self.queue {
            Queue::Private(queue) if oldest => queue.borrow_mut().pop_front(),
            Queue::Private(queue) => queue.borrow_mut().pop_back(),
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
