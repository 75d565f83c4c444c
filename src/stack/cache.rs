//! One worker's cache of free stacks, in front of the shared pool.
//!
//! A stack freed last is used first: its pages are in the CPU's caches and never have to be touched
//! for the first time. What overflows goes to the pool half a cache at a time, the coldest half, so
//! a worker that only frees (or only creates) takes the pool's lock once for [`MAGAZINE`] stacks.
//! What the pool hands out when it has handed out a lot has likely left the CPU's caches; there the
//! cache says which stack comes next ([`Cache::next_cold`]).
//!
//! May be called from: the one thread that owns it.

use super::pool::MAGAZINE;
use super::{Pool, Stack, Top};
use std::io;

/// A full cache: two magazines.
const BOUND: usize = 2 * MAGAZINE;

/// So many stacks before its turn, [`Cache::next_cold`] names a stack.
const AHEAD: usize = 3;

/// After so many stacks from the pool, the next ones have been unused for long: since then, more
/// have been used than a core's second cache has room for.
const COLD: usize = 8 * MAGAZINE;

/// How many stacks [`Cache::release`] keeps.
const KEPT: usize = 32;

/// Free stacks of one worker.
#[derive(Debug)]
pub(crate) struct Cache {
    /// At most `BOUND`, the one freed last at the end.
    free: Vec<Top>,
    /// The first so many of `free` have been unused for long, and `next_cold` has not named them.
    cold: usize,
    /// Stacks taken from the pool and not yet given back.
    taken: usize,
    pool: &'static Pool,
}

impl Cache {
    /// An empty cache of `pool`.
    pub(crate) fn new(pool: &'static Pool) -> Cache {
        Cache { free: Vec::with_capacity(BOUND), cold: 0, taken: 0, pool }
    }

    /// Takes the stack freed last, or one from the pool.
    ///
    /// # Errors
    /// As [`Pool::alloc`].
    #[inline]
    pub(crate) fn alloc(&mut self) -> io::Result<Stack> {
        match self.free.pop() {
            Some(top) => Ok(Stack::new(top, self.pool)),
            None => self.alloc_slow(),
        }
    }

    /// The top of a stack that will be taken soon and whose memory is in no near cache. To be asked
    /// after each `alloc`; names each such stack once.
    #[inline]
    pub(crate) fn next_cold(&mut self) -> Option<*mut u8> {
        let next = self.free.len().wrapping_sub(AHEAD);
        if next >= self.cold {
            return None;
        }
        self.cold = next;
        self.free.get(next).map(|top| top.0.as_ptr())
    }

    /// Gives a stack back. It must be of this cache's pool.
    #[inline]
    pub(crate) fn free(&mut self, stack: Stack) {
        debug_assert!(std::ptr::eq(stack.pool(), self.pool));
        if self.free.len() == BOUND {
            self.spill();
        }
        self.free.push(stack.into_top());
    }

    /// Gives the pool all but a few: for a worker that will be idle for long, so that
    /// [`Pool::trim`] can take their pages.
    pub(crate) fn release(&mut self) {
        while self.free.len() > KEPT {
            let count = (self.free.len() - KEPT).min(MAGAZINE);
            self.give_oldest(count);
        }
    }

    /// Whether `release` would give anything.
    pub(crate) fn keeps(&self) -> bool {
        self.free.len() > KEPT
    }

    #[cold]
    fn alloc_slow(&mut self) -> io::Result<Stack> {
        self.pool.take(&mut self.free)?;
        self.taken += self.free.len();
        let top = self.free.pop().expect("the pool gives one at least");
        if self.taken > COLD {
            self.cold = self.free.len();
        }
        Ok(Stack::new(top, self.pool))
    }

    #[cold]
    fn spill(&mut self) {
        self.give_oldest(MAGAZINE);
    }

    fn give_oldest(&mut self, count: usize) {
        self.pool.put(&self.free[..count]);
        self.free.drain(..count);
        self.cold = self.cold.saturating_sub(count);
        self.taken = self.taken.saturating_sub(count);
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        while !self.free.is_empty() {
            self.give_oldest(self.free.len().min(MAGAZINE));
        }
    }
}
