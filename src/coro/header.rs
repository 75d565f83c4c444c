//! The fiber header: one fiber's control block, at the top of its own stack.
//!
//! ```text
//!   slot top ──► ┌───────────────────────┐
//!                │ colour (0..15 x 64 B) │  spreads the headers over the cache's sets
//!                ├───────────────────────┤ ◄── FiberPtr
//!                │ Header                │
//!                ├───────────────────────┤
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
//! | `context`, `next`, `started`, `waiting`, `no_suspend`, `bounds` | the holder                 |
//! | `locals`, `owns`                             | the fiber itself                              |
//! | `awaited`                                    | the join handle                               |
//! | closure and result (the memory)              | the holder; the join handle once `ended` is set |
//! | `token`, `ended`, `refs`, `cancel`, `home`   | any thread that keeps the fiber alive         |
//! | `name`, `id`, `kept`, `stack_class`          | written before the fiber is published         |
//! | `inbox_next`, `cancel_next`                  | `sched/inbox`, while the fiber is in that list |
//!
//! Lifetime. `refs` starts at 1: that one reference belongs to the fiber and its `JoinHandle`
//! together, and `ended` arbitrates which of the two is last and drops it. Clones of `Fiber` add to
//! it. Whoever takes it to zero gives the stack back, and the header with it.

use std::cell::{Cell, UnsafeCell};
use std::fmt;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use super::local::Locals;
use super::pending::PendingPtr;
use super::{Bounds, Cancel, OnCancel, Signal};
use crate::arch::{self, Context};
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
///
/// The first cache line is written anew for each fiber, and is all that one which never waits for
/// anything touches. The others are written when the stack is used for the first time, and each
/// fiber leaves them as it found them: a fiber's creation and its end cost a few cache misses, if
/// many fibers are alive, and each line is one more.
#[repr(C, align(64))]
pub(crate) struct Header {
    /// The suspended execution; `Context::init` fills it.
    pub(crate) context: UnsafeCell<MaybeUninit<Context>>,
    /// The link of the run queue the fiber is in.
    pub(crate) next: Cell<Option<FiberPtr>>,
    /// The home worker's `sched::Remote`; while it is open which worker will start the fiber, the
    /// runtime. Opaque to this layer.
    pub(crate) home: AtomicPtr<()>,
    /// The park token: `unpark` sets it.
    pub(crate) token: Signal,
    /// Set when the fiber has ended; `join` waits on it.
    pub(crate) ended: Signal,
    pub(crate) id: u64,
    /// Owners of this header.
    pub(crate) refs: AtomicU32,
    /// How many `no_suspend` sections the fiber is in; and [`BLOCKS`].
    pub(crate) no_suspend: Cell<u32>,
    /// Requests to end early.
    pub(crate) cancel: Cancel,
    /// Whether the closure panicked; for statistics.
    pub(crate) panicked: Cell<bool>,
    /// Whether it has been resumed.
    pub(crate) started: Cell<bool>,
    /// Whether its join handle is in the list of `sched/lost`.
    pub(crate) awaited: Cell<bool>,
    /// Whether `name` or `locals` may own something.
    owns: Cell<bool>,
    /// `KEPT` if what follows has been written: a page that was never used reads as zeroes.
    kept: u8,
    /// The pool of the stack that the header lies on.
    stack_class: u8,

    /// What it waits for; `Nothing` before its start and after its end.
    pub(crate) waiting: Cell<Waiting>,
    /// The calls of `timeout` and `shield` that it is in; none before its start and after its end.
    pub(crate) bounds: Bounds,
    /// The link of its home's inbox (`sched/inbox`).
    pub(crate) inbox_next: Cell<*mut Header>,
    /// The link of its home's list of cancel requests.
    pub(crate) cancel_next: Cell<*mut Header>,
    /// The thread pointer of a fiber that owns its thread-locals; 0 for every other kind. Reserved.
    pub(crate) thread_pointer: Cell<usize>,
    pub(crate) name: Option<Arc<str>>,
    locals: UnsafeCell<Locals>,
    pub(crate) sanitize: UnsafeCell<sanitize::FiberState>,
}

const KEPT: u8 = 1;

/// Cache lines of frames below the header, of a fiber that called `park` or `read` and little else.
const SHALLOW_LINES: usize = 6;

/// Cache lines below the header that a fiber has written to when it waits for the first time.
const NEW_LINES: usize = 10;

/// A header lies within so many bytes of the top of its stack, which is aligned to a page.
pub(super) const HIGHEST: usize = 4096;

const _: () =
    assert!(size_of::<(Context, Cancel)>() != 16 || std::mem::offset_of!(Header, waiting) == 64);

impl Header {
    /// Writes the header of a fresh fiber on `stack`.
    ///
    /// # Safety
    /// `this` is the place of every header on this stack, in its highest `HIGHEST` bytes; the stack
    /// is unused, and what lies there has been left by another header, or is zero.
    #[inline]
    pub(super) unsafe fn init(
        this: *mut Self,
        stack: &Stack,
        id: u64,
        home: *mut (),
        name: Option<Arc<str>>,
    ) {
        // SAFETY: the caller's promise. A header that was left is one of a fiber that has ended;
        // then `release` has emptied what it owned.
        unsafe {
            // Volatile, so that it comes before the look: a page that is read first takes two
            // faults.
            (&raw mut (*this).id).write_volatile(id);
            if (&raw const (*this).kept).read_volatile() != KEPT {
                Self::init_kept(this, stack);
            }
            (&raw mut (*this).home).write(AtomicPtr::new(home));
            (&raw mut (*this).token).write(Signal::new());
            (&raw mut (*this).ended).write(Signal::new());
            (&raw mut (*this).refs).write(AtomicU32::new(1));
            (&raw mut (*this).no_suspend).write(Cell::new(0));
            (&raw mut (*this).cancel).write(Cancel::new());
            (&raw mut (*this).panicked).write(Cell::new(false));
            (&raw mut (*this).started).write(Cell::new(false));
            (&raw mut (*this).awaited).write(Cell::new(false));
            (&raw mut (*this).owns).write(Cell::new(name.is_some()));
            (&raw mut (*this).sanitize).write(UnsafeCell::new(sanitize::FiberState::new(stack)));
            if name.is_some() {
                (&raw mut (*this).name).write(name);
            }
        }
    }

    /// # Safety
    /// As for `init`.
    #[cold]
    unsafe fn init_kept(this: *mut Self, stack: &Stack) {
        // SAFETY: the caller's promise.
        unsafe {
            (&raw mut (*this).next).write(Cell::new(None));
            (&raw mut (*this).waiting).write(Cell::new(Waiting::Nothing));
            (&raw mut (*this).bounds).write(Bounds::new());
            (&raw mut (*this).inbox_next).write(Cell::new(ptr::null_mut()));
            (&raw mut (*this).cancel_next).write(Cell::new(ptr::null_mut()));
            (&raw mut (*this).thread_pointer).write(Cell::new(0));
            (&raw mut (*this).name).write(None);
            (&raw mut (*this).locals).write(UnsafeCell::new(Locals::new()));
            (&raw mut (*this).stack_class).write(stack.class());
            (&raw mut (*this).kept).write(KEPT);
        }
    }

    /// The table of local values: for the fiber itself, and for whoever drops the header.
    #[inline]
    pub(crate) fn locals(&self) -> *mut Locals {
        self.owns.set(true);
        self.locals.get()
    }

    /// Whether there may be any local values.
    #[inline]
    pub(super) fn has_locals(&self) -> bool {
        self.owns.get()
    }
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

    /// Asks for the memory of the header that a resume touches.
    #[inline]
    pub(crate) fn prefetch(self) {
        let header: *const u8 = self.0.as_ptr().cast();
        arch::prefetch(header.cast());
        arch::prefetch(header.wrapping_add(64).cast());
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

    /// Asks for the header's first cache line, and for its page's translation.
    #[inline]
    pub(super) fn prefetch_header(self) {
        arch::prefetch(self.as_ptr().cast_const().cast());
    }

    /// Asks for what else resuming it will need: the header's second line, and the frames of a
    /// shallow fiber.
    #[inline]
    pub(super) fn prefetch_frames(self) {
        prefetch_rest(self.as_ptr(), SHALLOW_LINES);
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
        if header.owns.get() {
            // SAFETY: we were the last owner: nobody else can reach the header.
            unsafe { self.disown() };
        }
        // SAFETY: as above; `header` is not used any more.
        Some(ManuallyDrop::into_inner(unsafe { self.stack() }))
    }

    /// Drops what the header owns, which runs no foreign code: the fiber destroyed its local values
    /// itself.
    ///
    /// # Safety
    /// The caller is the last owner.
    #[cold]
    unsafe fn disown(self) {
        let header = self.as_ptr();
        // SAFETY: the caller's promise.
        unsafe {
            (&raw mut (*header).name).replace(None);
            (&raw mut (*header).locals).replace(UnsafeCell::new(Locals::new()));
        }
    }

    /// The stack that the header lies on.
    ///
    /// # Safety
    /// The `Stack` is taken out by the last owner, and only looked at by others.
    #[inline]
    pub(crate) unsafe fn stack(self) -> ManuallyDrop<Stack> {
        let top = self.as_ptr().cast::<u8>().map_addr(|address| (address | (HIGHEST - 1)) + 1);
        // SAFETY: the stack's parts, as `init` had them; the caller's promise.
        ManuallyDrop::new(unsafe {
            Stack::from_top(NonNull::new_unchecked(top), self.header().stack_class)
        })
    }
}

/// Asks for what a fiber of shallow frames needs whose header is there, or will be: its memory need
/// not be a header yet.
#[inline]
pub(super) fn prefetch(header: *const Header) {
    arch::prefetch(header.cast());
    prefetch_rest(header, NEW_LINES);
}

/// As `prefetch`, without the header's first line.
#[inline]
fn prefetch_rest(header: *const Header, lines: usize) {
    let header: *const u8 = header.cast();
    arch::prefetch(header.wrapping_add(64).cast());
    for line in 0..lines {
        arch::prefetch(header.wrapping_sub(64 * (line + 1)).cast());
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
