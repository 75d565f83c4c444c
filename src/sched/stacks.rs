//! A worker's stacks: where its fibers get theirs, and where they go afterwards.
#![forbid(unsafe_code)]

use super::Worker;
use crate::coro::entry;
use crate::stack::Stack;
use std::io;

impl Worker {
    /// Takes a stack for a new fiber. The memory of those that come next is on its way meanwhile:
    /// a spawn and a first wait have it written to, in a dozen places, each of them a cache miss.
    #[inline]
    pub(super) fn alloc_stack(&self) -> io::Result<Stack> {
        let mut stacks = self.stacks.borrow_mut();
        let stack = stacks.alloc()?;
        if let Some(top) = stacks.next_cold() {
            entry::prefetch(top);
        }
        Ok(stack)
    }

    /// Gives back the stack of a fiber that is gone.
    #[inline]
    pub(crate) fn free_stack(&self, stack: Stack) {
        if std::ptr::eq(stack.pool(), self.shared.stacks()) {
            self.stacks.borrow_mut().free(stack);
        } else {
            stack.pool().free(stack);
        }
    }

    /// Whether `release_stacks` would let go of any.
    pub(super) fn keeps_stacks(&self) -> bool {
        self.stacks.borrow().keeps()
    }

    /// Lets go of most of the stacks kept for the next spawns.
    pub(super) fn release_stacks(&self) {
        self.stacks.borrow_mut().release();
    }
}
