//! L1, the context switch: moving one OS thread from a worker's idle context to a fiber and back.
//!
//! # The contract, which every file beside this one keeps
//!
//! A [`Context`] is one fiber's execution. It lies at a fixed address (in the fiber's header) from
//! `init` until the `resume` in which the fiber ends has returned. One thread at a time uses it.
//!
//! - `Context::init::<E>(this, top, limit, arg)` prepares a fiber on the stack `limit()..top` (top
//!   is the high end, aligned to 16). Nothing runs yet. The memory at `this` need not be
//!   initialised.
//! - `Context::resume(this, word)` is called off the fiber, by the idle context. It switches to the
//!   fiber and returns the word that the fiber gives back when it next suspends or ends.
//! - `Context::suspend(this, word)` is called on the fiber. It switches back to whoever resumed it,
//!   handing over `word`, and returns the word of the next `resume`.
//! - `E::enter(arg, word)` is the fiber's body: `word` comes from the first `resume`. It must not
//!   unwind. The word it returns is handed over by the last switch; after that the context may only
//!   be `init`ialised again or forgotten, and the stack below it holds nothing that is still
//!   needed.
//!
//! The switch is asymmetric: `resume` from the idle context, `suspend` back to it, and never from
//! fiber to fiber. It keeps the callee-saved registers and nothing else: not the floating point
//! control words, not the signal mask (see `asm/README.md`).
//!
//! Beside the context: `get_current()` and `set_current(word)`, one word per thread, 0 at first,
//! whose address the compiler cannot keep across a switch; `has_shadow_stack()`, by which the
//! runtime can refuse to start on a thread where the switch would fault; and `prefetch(address)`,
//! for fibers that are about to be resumed after a long time.
//!
//! # Who chooses
//!
//! `build.rs` emits two cfgs, read here and nowhere else: `native`, the architecture whose own
//! switch is compiled (absent where we have none), and `switch`, the one that the crate uses.
//! `portable` is compiled everywhere: it is the fallback, and the oracle to which `tests/oracle.rs`
//! holds the native one. What is compiled and not used is expected to be dead code, in builds
//! without the tests.

#[cfg(native = "aarch64")]
#[cfg_attr(all(switch = "portable", not(test)), expect(dead_code, reason = "not the chosen one"))]
mod aarch64;
#[cfg(switch = "none")]
mod interpreted;
#[cfg_attr(
    any(switch = "none", all(not(switch = "portable"), not(test))),
    expect(dead_code, reason = "the fallback")
)]
mod portable;
#[cfg(native = "riscv64")]
#[cfg_attr(all(switch = "portable", not(test)), expect(dead_code, reason = "not the chosen one"))]
mod riscv64;
#[cfg(native = "x86_64")]
#[cfg_attr(all(switch = "portable", not(test)), expect(dead_code, reason = "not the chosen one"))]
mod x86_64;

#[cfg(all(test, not(switch = "none")))]
mod tests;

#[cfg(switch = "aarch64")]
use aarch64 as chosen;
#[cfg(switch = "none")]
use interpreted as chosen;
#[cfg(switch = "portable")]
use portable as chosen;
#[cfg(switch = "riscv64")]
use riscv64 as chosen;
#[cfg(switch = "x86_64")]
use x86_64 as chosen;

pub(crate) use chosen::{Context, get_current, prefetch, set_current};

/// A fiber's body. A type, not the address of a function, so that it is inlined into the fiber's
/// start.
pub(crate) trait Entry {
    /// Takes the `arg` of `init` and the first word, returns the last word. Must not unwind.
    ///
    /// # Safety
    /// Called once, by the switch, on the fiber.
    unsafe fn enter(arg: *mut (), word: usize) -> usize;
}

/// The stack pointer of the caller, or an address near it.
#[inline(always)]
pub(crate) fn stack_pointer() -> usize {
    chosen::stack_pointer()
}

/// Whether this thread has a shadow stack, so that a return after a switch would fault.
#[inline]
pub(crate) fn has_shadow_stack() -> bool {
    chosen::has_shadow_stack()
}
