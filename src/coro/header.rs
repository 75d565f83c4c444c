//! The fiber header: one fiber's control block, at the top of its own stack.
//!
//! ```text
//!   slot top ──► ┌───────────────────────┐
//!                │ colour (0..15 x 64 B) │  spreads the headers over the cache's sets
//!                ├───────────────────────┤ ◄── FiberPtr
//!                │ Header                │
//!                ├───────────────────────┤ ◄── Header::payload
//!                │ closure, later result │
//!                ├───────────────────────┤ ◄── first stack pointer
//!                │ frames, growing down  │
//!                ├───────────────────────┤ ◄── Stack::limit
//!                │ guard                 │
//!                └───────────────────────┘
//! ```
//!
//! A parked fiber whose frames are shallow therefore costs one page.
//!
//! Who may touch what. *Holder* is whoever holds the fiber according to `coro/mod.rs`: the spawner,
//! a run queue's consumer, the worker that runs it. There is one at a time, and the hand-over
//! synchronises.
//!
//! | field                                        | by whom                                       |
//! |----------------------------------------------|-----------------------------------------------|
//! | `context`, `next`, `waiting`, `no_suspend`, `bounds` | the holder                            |
//! | `locals`                                     | the fiber itself                              |
//! | `payload` (the memory)                       | the holder; the join handle once `ended` is set |
//! | `token`, `ended`, `refs`, `cancel`, `home`   | any thread that keeps the fiber alive         |
//! | `name`, `id`, `stack`                        | written before the fiber is published         |
//! | `inbox_next`, `cancel_next`                  | `sched/inbox`, while the fiber is in that list |
//!
//! Lifetime. `refs` starts at 1: that one reference belongs to the fiber and its `JoinHandle`
//! together, and `ended` arbitrates which of the two is last and drops it. Clones of `Fiber` add to
//! it. Whoever takes it to zero gives the stack back, and the header with it.

use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use super::local::Locals;
use super::pending::PendingPtr;
use super::{Bounds, Cancel, OnCancel, Signal};
use crate::arch::Context;
use crate::stack::Stack;
use crate::stack::sanitize;

/// What a fiber that is off its stack waits for, so that a cancel request can find it.
#[derive(Clone, Copy)]
pub(crate) enum Waiting {
    /// It is ready, running or fresh.
    Nothing,
    /// Its op is with the driver.
    Op(PendingPtr),
    /// It is registered on this signal.
    Signal(NonNull<Signal>, OnCancel),
}

/// A bit of `Header::no_suspend`: what would suspend the fiber blocks the thread instead.
pub(crate) const BLOCKS: u32 = 1 << 31;

/// One fiber's control block; see the module's head.
#[repr(C, align(64))]
pub(crate) struct Header {
    /// The suspended execution; `Context::init` fills it.
    pub(crate) context: UnsafeCell<MaybeUninit<Context>>,
    /// The link of the run queue the fiber is in.
    pub(crate) next: Cell<Option<FiberPtr>>,
    /// The link of its home's inbox (`sched/inbox`).
    pub(crate) inbox_next: Cell<*mut Header>,
    /// What it waits for.
    pub(crate) waiting: Cell<Waiting>,
    /// The closure before the first resume, the result after the last.
    pub(crate) payload: *mut (),
    /// The home worker's `sched::Remote`, null while the fiber is fresh. Opaque to this layer.
    pub(crate) home: AtomicPtr<()>,
    /// The park token: `unpark` sets it.
    pub(crate) token: Signal,
    /// Set when the fiber has ended; `join` waits on it.
    pub(crate) ended: Signal,
    /// Owners of this header.
    pub(crate) refs: AtomicU32,
    /// How many `no_suspend` sections the fiber is in; and [`BLOCKS`].
    pub(crate) no_suspend: Cell<u32>,
    /// Requests to end early.
    pub(crate) cancel: Cancel,
    /// The calls of `timeout` and `shield` that it is in.
    pub(crate) bounds: Bounds,
    /// Whether the closure panicked; for statistics.
    pub(crate) panicked: Cell<bool>,
    /// The thread pointer of a fiber that owns its thread-locals; 0 for every other kind. Reserved.
    pub(crate) thread_pointer: Cell<usize>,
    /// The sanitizer's state of the thread that resumed it last.
    pub(crate) thread: Cell<*mut sanitize::ThreadState>,
    /// The link of its home's list of cancel requests.
    pub(crate) cancel_next: Cell<*mut Header>,
    pub(crate) id: u64,
    pub(crate) stack: UnsafeCell<Option<Stack>>,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) locals: UnsafeCell<Locals>,
    pub(crate) sanitize: UnsafeCell<sanitize::FiberState>,
}

/// A pointer to the header of a fiber that is alive: whoever holds one keeps it so.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct FiberPtr(NonNull<Header>);

// SAFETY: a FiberPtr is an address; every access through it follows the table above, in which the
// fields that several threads touch are atomic.
unsafe impl Send for FiberPtr {}
// SAFETY: as above.
unsafe impl Sync for FiberPtr {}

impl FiberPtr {
    /// # Safety
    /// `header` must stay a valid, initialised header for as long as the FiberPtr is used.
    #[inline]
    pub(crate) unsafe fn new(header: NonNull<Header>) -> Self {
        Self(header)
    }

    /// The header.
    #[inline]
    pub(crate) fn header(&self) -> &Header {
        // SAFETY: by `new`, the header outlives the pointer's use; shared access only.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    pub(crate) fn as_ptr(self) -> *mut Header {
        self.0.as_ptr()
    }

    /// The address as a `Waiter::Fiber` carries it.
    #[inline]
    pub(crate) fn address(self) -> usize {
        self.0.as_ptr().expose_provenance()
    }

    /// # Safety
    /// `address` must come from [`FiberPtr::address`] of a fiber that is still alive.
    #[inline]
    pub(crate) unsafe fn from_address(address: usize) -> Self {
        // SAFETY: not null, as it comes from a NonNull.
        Self(unsafe { NonNull::new_unchecked(std::ptr::with_exposed_provenance_mut(address)) })
    }

    /// The context, for `arch`.
    #[inline]
    pub(crate) fn context(self) -> *mut Context {
        self.header().context.get().cast()
    }

    /// Adds an owner.
    #[inline]
    pub(crate) fn retain(self) {
        let old = self.header().refs.fetch_add(1, Ordering::Relaxed);
        if old >= u32::MAX / 2 {
            too_many_handles();
        }
    }

    /// Drops an owner; the stack comes back when that was the last one.
    ///
    /// # Safety
    /// The caller owned a reference and does not use it any more. If it is the last, the fiber has
    /// ended, its result has been taken or dropped, and nothing runs on its stack.
    #[inline]
    #[must_use]
    pub(crate) unsafe fn release(self) -> Option<Stack> {
        let header = self.header();
        // A sole owner needs no locked instruction: the one reference is the caller's, and only who
        // owns one adds one (the running fiber does so through the one it shares with its handle,
        // and that one is released after its end only). The acquire pairs with the release in the
        // `fetch_sub` of those who were owners before.
        if header.refs.load(Ordering::Acquire) != 1
            && header.refs.fetch_sub(1, Ordering::AcqRel) != 1
        {
            return None;
        }
        // SAFETY: we were the last owner: nobody else can reach the header. `header` is not used
        // any more. What is dropped runs no foreign code: the fiber destroyed its local values
        // itself.
        unsafe {
            let stack = (*header.stack.get()).take();
            debug_assert!(stack.is_some());
            // The only other fields that own something; most fibers have neither.
            if header.name.is_some() || !(*header.locals.get()).is_empty() {
                std::ptr::drop_in_place(self.as_ptr());
            }
            stack
        }
    }
}

/// Handles may be leaked, so safe code can come here. A panic could be caught and the attempt
/// repeated, until the count, which has grown already, comes round to 0.
#[cold]
fn too_many_handles() -> ! {
    eprintln!("ramie: more than 2^31 handles to one fiber, aborting");
    std::process::abort();
}

impl fmt::Debug for FiberPtr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "fiber {}", self.header().id)
    }
}

const _: () = assert!(align_of::<Header>() == 64);
