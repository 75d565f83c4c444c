//! No switch at all: for Miri, which interprets, and so has no stack that could be left. What the
//! crate does on plain threads runs there (`ci/miri.sh`); a test that makes a fiber fails at once.

use super::Entry;
use core::cell::Cell;

const WHY: &str = "Miri cannot switch stacks: run what needs a fiber without it";

/// One fiber's execution, which never begins.
pub(crate) struct Context(());

impl Context {
    /// See the contract in `arch/mod.rs`.
    pub(crate) unsafe fn init<E: Entry>(
        _this: *mut Self,
        _top: *mut u8,
        _limit: impl FnOnce() -> *mut u8,
        _arg: *mut (),
    ) {
        // Named, so that what a fiber would run is compiled.
        let _: unsafe fn(*mut (), usize) -> usize = E::enter;
        panic!("{WHY}");
    }

    /// See the contract in `arch/mod.rs`.
    pub(crate) unsafe fn resume(_this: *mut Self, _word: usize) -> usize {
        panic!("{WHY}");
    }

    /// See the contract in `arch/mod.rs`.
    pub(crate) unsafe fn suspend(_this: *mut Self, _word: usize) -> usize {
        panic!("{WHY}");
    }
}

thread_local! {
    static CURRENT: Cell<usize> = const { Cell::new(0) };
}

/// The word last stored by `set_current` on this thread; 0 at first.
pub(crate) fn get_current() -> usize {
    CURRENT.with(Cell::get)
}

/// Stores this thread's word.
pub(crate) fn set_current(word: usize) {
    CURRENT.with(|slot| slot.set(word));
}

/// Asks for the cache line at an address, which may be any: a hint that is not taken.
pub(crate) fn prefetch(_address: *const ()) {}

/// An address in the caller's frame, or near it.
pub(crate) fn stack_pointer() -> usize {
    let here = 0_u8;
    (&raw const here).addr()
}

/// Whether a shadow stack is in the way.
pub(crate) fn has_shadow_stack() -> bool {
    false
}
