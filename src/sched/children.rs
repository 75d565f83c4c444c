//! Fibers with a parent: what a worker does for a scope.

use super::remote::bump;
use super::submit::wake_waiter;
use super::{Remote, Worker};
use crate::coro::entry::{self, ChildOf};
use crate::coro::{Children, FiberPtr, Place};
use crate::stack::Stack;
use std::io;
use std::sync::Arc;

impl Worker {
    /// Where children are counted that this worker spawns, or that end here. As a remote serves one
    /// worker at a time for as long as a fiber of it has not ended, so does the number.
    #[inline]
    pub(crate) fn place(&self) -> Place {
        Place(std::ptr::from_ref(self.remote).addr())
    }

    /// Makes a fresh fiber with a parent, on a stack of the caller's or one of the usual kind; the
    /// caller publishes it.
    #[inline]
    pub(crate) fn create_child<F, T>(
        &self,
        stack: Option<Stack>,
        name: Option<Arc<str>>,
        f: F,
        parent: ChildOf,
    ) -> io::Result<FiberPtr>
    where
        F: FnOnce() -> T,
    {
        let stack = match stack {
            Some(stack) => stack,
            None => self.alloc_stack()?,
        };
        bump(&self.remote.spawned);
        let home = Remote::none_yet(&self.shared);
        Ok(entry::create_child(stack, self.next_id(), home, name, f, parent))
    }

    /// A fresh child of this worker's has come to its end without having been started
    /// (`entry::run_here`), and nobody else knows it yet.
    pub(crate) fn ended_here(&self, fiber: FiberPtr, children: &Children) {
        self.count_start(); // of those that have ended here, each has started here
        self.ended(fiber);
        wake_waiter(children.ended(self.place()));
    }
}
