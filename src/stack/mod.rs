//! L2, fiber stacks.
//!
//! # Contract
//!
//! - [`Stack`] is an owned, guarded stack: `limit()..top()` is readable and writable memory, what
//!   lies below `limit()` is a guard that faults. Nothing runs on it while it is owned as a
//!   `Stack`. Its contents are what its last user left, or zeroes, page by page.
//! - [`Pool::get(stack_bytes)`](Pool::get) finds the process-wide pool of that size class (rounded
//!   up to a power of two, four pages at least, guard included). Slabs are never unmapped: a
//!   stack's address stays readable for the life of the process, though after a trim it reads as
//!   zeroes.
//! - [`Cache`] is one worker's LIFO cache in front of a pool: no lock, no atomic, no syscall on a
//!   hit.
//!
//! # Words
//!
//! ```text
//!  slab ──┬─ slot ─┬─ slot ─┬─ slot ─┬─ ...      one mapping, a power of two of bytes
//!         │        │        └────────┴─ not yet carved: no guard, never touched
//!         │ guard │ limit .. stack grows down ..  top │
//!         └───────┴───────────────────────────────────┘
//! ```
//!
//! | a slot is … | kept in                | its pages                                    |
//! |-------------|------------------------|----------------------------------------------|
//! | uncarved    | the slab's cursor      | none, no guard                               |
//! | raw         | `raw`                  | none; installing its guard failed, try again |
//! | cold        | `cold`                 | guard; never touched, or trimmed             |
//! | out         | a [`Stack`] or [`Cache`] | guard; whatever was touched                |
//! | hot         | `hot`, newest last     | guard; what its last user touched            |
//!
//! uncarved → out or cold (batch of guards) → out → hot → out …; hot → cold by trimming.
//!
//! | file          | what                                                                  |
//! |---------------|-----------------------------------------------------------------------|
//! | `mod.rs`      | [`Stack`], the owned slot                                             |
//! | `pool.rs`     | [`Pool`], shared, one per size class; growing and trimming            |
//! | `cache.rs`    | [`Cache`], one worker's                                               |
//! | `slab.rs`     | the mappings, and the table that finds a slot by address              |
//! | `guard.rs`    | how guards are installed, and what is tried when that is refused      |
//! | `overflow.rs` | the report of a fault in a guard; alternate signal stacks             |
//! | `sanitize.rs` | what the sanitizers must be told about fibers (nothing when off)      |
//! | `valgrind.rs` | what valgrind must be told about stacks                               |
//!
//! # Invariants
//!
//! 1. Every slot is in exactly one of the rows above, so whoever holds it owns its memory.
//! 2. A slot in any row but "uncarved" and "raw" has its guard, for ever.
//! 3. A slab is never unmapped, moved or given back.
//! 4. Under a pool's lock nothing is mapped, guarded or trimmed, and no page of a stack is touched.
//!
//! Pools may be used from any thread, a cache by one at a time, the slab table also from signal
//! handlers. Nothing here suspends.

mod cache;
mod guard;
pub(crate) mod overflow;
mod pool;
pub(crate) mod sanitize;
mod slab;
#[cfg(test)]
mod tests;
mod valgrind;

pub(crate) use cache::Cache;
pub(crate) use pool::{Pool, TRIM_QUIET};

/// How stacks are guarded here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guarding {
    /// By markers in the page table, for many stacks at once.
    Batches,
    /// By the same markers, one by one.
    Markers,
    /// By mappings, whose number is limited.
    Mappings,
}

/// Makes a stack to find out how it is guarded.
pub(crate) fn guarding() -> io::Result<Guarding> {
    let pool = Pool::get(0)?;
    pool.free(pool.alloc()?);
    Ok(match guard::GUARDS.method() {
        guard::Method::Batched => Guarding::Batches,
        guard::Method::Single => Guarding::Markers,
        guard::Method::Protect => Guarding::Mappings,
    })
}

use std::io;
use std::ptr::NonNull;

/// The high end of a slot: how the free lists name a stack they own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
struct Top(NonNull<u8>);

// SAFETY: a plain address; the slot's owner (invariant 1) may be any thread.
unsafe impl Send for Top {}

/// An owned, guarded stack. Give it back to a [`Cache`] or its [`Pool`]: dropping it leaks the
/// slot, which a debug build reports as a bug.
#[derive(Debug)]
pub(crate) struct Stack {
    top: Top,
    pool: &'static Pool,
}

const _: () = assert!(size_of::<Stack>() == 2 * size_of::<usize>());

impl Stack {
    /// Takes over a slot that has left the free lists.
    #[inline(always)]
    fn new(top: Top, pool: &'static Pool) -> Stack {
        Stack { top, pool }
    }

    /// Hands the slot over to a free list.
    #[inline(always)]
    fn into_top(self) -> Top {
        let top = self.top;
        std::mem::forget(self);
        top
    }

    /// The high end, aligned to a page.
    #[inline(always)]
    pub(crate) fn top(&self) -> *mut u8 {
        self.top.0.as_ptr()
    }

    /// The lowest usable byte, just above the guard; aligned to a page.
    #[inline]
    pub(crate) fn limit(&self) -> *mut u8 {
        self.pool.shape().limit(self.top).as_ptr()
    }

    /// A number no other stack of the pool has; neighbours in memory have neighbouring numbers.
    #[cfg(test)]
    pub(crate) fn slot(&self) -> usize {
        // Slots of one size never overlap, so no two tops share a multiple of that size.
        self.top.0.addr().get() / self.pool.stack_bytes()
    }

    /// The number of its pool, for `from_top`.
    #[inline]
    pub(crate) fn class(&self) -> u8 {
        self.pool.class()
    }

    /// The stack that was taken apart into its `top` and `class`.
    ///
    /// # Safety
    /// Its owner has not used or given it back since, and does so through this `Stack` only.
    #[inline]
    pub(crate) unsafe fn from_top(top: NonNull<u8>, class: u8) -> Stack {
        // SAFETY: `class` is that of a pool, by the caller's promise.
        Stack { top: Top(top), pool: unsafe { Pool::of_class(class) } }
    }

    /// The pool it comes from.
    #[inline(always)]
    pub(crate) fn pool(&self) -> &'static Pool {
        self.pool
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        debug_assert!(
            std::thread::panicking(),
            "a Stack was dropped: it must be given back to a Cache or its Pool"
        );
    }
}
