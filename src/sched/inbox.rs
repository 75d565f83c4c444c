//! A worker's inbox: fibers that other threads have made ready, or want cancelled.
//!
//! A lock-free stack, linked through the fibers themselves, that any thread pushes to and the owner
//! takes whole. Nothing is allocated.
//!
//! Invariants.
//! 1. A node is in at most one inbox, at most once: for wake-ups because a wake-up is handed out
//!    once (invariant 3 of `coro/signal.rs`), for cancel requests because of `LISTED`
//!    (`coro/cancel.rs`).
//! 2. A node stays alive while it is in an inbox.
//! 3. A node's link is written by the thread that pushes it and read by the owner after taking it;
//!    the head's release and acquire order the two.
//!
//! May be pushed to from any thread. Only the owner takes.
#![forbid(unsafe_code)]

use crate::atomic::{AtomicPtr, Ordering};
use std::ptr;

/// What an inbox links.
pub(crate) trait Node: Copy {
    type Target;
    fn to_ptr(self) -> *mut Self::Target;
    /// `ptr` comes from `to_ptr`, and is not null.
    fn from_ptr(ptr: *mut Self::Target) -> Self;
    fn set_next(self, next: *mut Self::Target);
    fn next(self) -> *mut Self::Target;
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Inbox<N: Node> {
    head: AtomicPtr<N::Target>,
}

impl<N: Node> Inbox<N> {
    pub(crate) fn new() -> Self {
        Self { head: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Puts a node in. The owner has to be told (`SleepWord::notify`).
    pub(crate) fn push(&self, node: N) {
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            node.set_next(head);
            match self.head.compare_exchange_weak(
                head,
                node.to_ptr(),
                Ordering::Release,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(seen) => head = seen,
            }
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed).is_null()
    }

    /// Takes all nodes, oldest first.
    #[inline]
    pub(crate) fn take(&self) -> Taken<N> {
        if self.is_empty() {
            return Taken { head: ptr::null_mut() };
        }
        let mut newest = self.head.swap(ptr::null_mut(), Ordering::Acquire);
        let mut oldest = ptr::null_mut();
        while !newest.is_null() {
            let node = N::from_ptr(newest);
            newest = node.next();
            node.set_next(oldest);
            oldest = node.to_ptr();
        }
        Taken { head: oldest }
    }
}

/// The nodes taken out of an inbox, oldest first.
pub(crate) struct Taken<N: Node> {
    head: *mut N::Target,
}

impl<N: Node> Iterator for Taken<N> {
    type Item = N;

    #[inline]
    fn next(&mut self) -> Option<N> {
        if self.head.is_null() {
            return None;
        }
        let node = N::from_ptr(self.head);
        self.head = node.next();
        Some(node)
    }
}
