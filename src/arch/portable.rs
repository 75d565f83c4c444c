//! The switch on corosensei: for architectures without one of ours, and the oracle of our tests.
//!
//! corosensei unwinds a suspended coroutine when it is dropped, and panics without its `unwind`
//! feature. Our contract has no such step, so the coroutine is never dropped: a context is done, or
//! forgotten together with what lies on its stack.
//!
//! Invariants, cited below.
//! 1. `Context::coroutine` is initialised by `init`, and used by the resuming side only.
//! 2. `Context::yielder` is written when the fiber starts, and used by the fiber only. It points
//!    into the fiber's stack and is good until the fiber ends.

use super::Entry;
use core::cell::Cell;
use core::hint::black_box;
use core::mem::{ManuallyDrop, MaybeUninit};
use core::num::NonZeroUsize;
use corosensei::stack::{Stack, StackPointer};
use corosensei::{Coroutine, CoroutineResult, Yielder};

/// One fiber's execution.
pub(crate) struct Context {
    coroutine: ManuallyDrop<Coroutine<usize, usize, usize, Borrowed>>,
    yielder: MaybeUninit<*const Yielder<usize, usize>>,
}

/// A stack that somebody else owns.
struct Borrowed {
    top: NonZeroUsize,
    limit: NonZeroUsize,
}

// SAFETY: `init`'s caller promises an unused stack `limit..top`, with whatever guard it has below.
unsafe impl Stack for Borrowed {
    fn base(&self) -> StackPointer {
        self.top
    }

    fn limit(&self) -> StackPointer {
        self.limit
    }
}

impl Context {
    /// See the contract in `arch/mod.rs`.
    #[inline]
    pub(crate) unsafe fn init<E: Entry>(
        this: *mut Self,
        top: *mut u8,
        limit: impl FnOnce() -> *mut u8,
        arg: *mut (),
    ) {
        let limit = limit();
        debug_assert!(top.addr().is_multiple_of(16) && top.addr() > limit.addr());
        // corosensei takes addresses as integers, and makes pointers of them.
        let address = |end: *mut u8| {
            NonZeroUsize::new(end.expose_provenance()).expect("a stack is not at address 0")
        };
        let stack = Borrowed { top: address(top), limit: address(limit) };
        let body = move |yielder: &Yielder<usize, usize>, word: usize| {
            // SAFETY: `this` stays where it is until the fiber has ended.
            let slot = unsafe { &raw mut (*this).yielder };
            // SAFETY: only the fiber, which is us, uses this field (invariant 2).
            unsafe { slot.write(MaybeUninit::new(yielder)) };
            // SAFETY: the caller of `init` gave them to be called once, here.
            unsafe { E::enter(arg, word) }
        };
        let coroutine = ManuallyDrop::new(Coroutine::with_stack(stack, body));
        // SAFETY: the memory at `this` is the caller's to fill; what it held is done or forgotten.
        unsafe { this.write(Context { coroutine, yielder: MaybeUninit::uninit() }) }
    }

    /// See the contract in `arch/mod.rs`.
    #[inline]
    pub(crate) unsafe fn resume(this: *mut Self, word: usize) -> usize {
        // SAFETY: the fiber is suspended and nobody else resumes it, so this is the only reference
        // to the coroutine (invariant 1); the fiber touches the other field only.
        let coroutine = unsafe { &mut (*this).coroutine };
        match coroutine.resume(word) {
            CoroutineResult::Yield(word) | CoroutineResult::Return(word) => word,
        }
    }

    /// See the contract in `arch/mod.rs`.
    #[inline]
    pub(crate) unsafe fn suspend(this: *mut Self, word: usize) -> usize {
        // SAFETY: we run on the fiber of `this`: only the fiber uses this field (invariant 2).
        let slot = unsafe { (*this).yielder };
        // SAFETY: its start has written it.
        let yielder = unsafe { slot.assume_init() };
        // SAFETY: it lies on the fiber's stack until the fiber ends.
        unsafe { &*yielder }.suspend(word)
    }
}

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// Calls `f` with this thread's slot, whose address the optimiser is not to guess or to keep: the
/// callers are not inlined and hold it only while they run.
#[inline(always)]
fn with_slot<R>(f: impl FnOnce(&Cell<usize>) -> R) -> R {
    CURRENT.with(|slot| f(black_box(slot)))
}

/// The word last stored by `set_current` on this thread; 0 at first.
#[inline(never)]
pub(crate) fn get_current() -> usize {
    black_box(with_slot(Cell::get))
}

/// Stores this thread's word.
#[inline(never)]
pub(crate) fn set_current(word: usize) {
    with_slot(|slot| slot.set(black_box(word)));
}

/// Asks for the cache line at an address, which may be any: a hint that is not taken.
#[allow(dead_code, reason = "no part of what the tests compare")]
#[inline(always)]
pub(crate) fn prefetch(_address: *const ()) {}

/// An address in the caller's frame, or near it; under AddressSanitizer, locals may lie elsewhere.
#[allow(dead_code, reason = "no part of what the tests compare")]
#[inline(always)]
pub(crate) fn stack_pointer() -> usize {
    let here = 0_u8;
    std::hint::black_box(&raw const here).addr()
}

/// Whether a shadow stack is in the way; nobody asks corosensei.
#[inline]
pub(crate) fn has_shadow_stack() -> bool {
    false
}
