//! L1, the context switch: moving one OS thread from a worker's idle context to a fiber and back.
//!
//! # The contract, which every file beside this one keeps
//!
//! A [`Context`] is one fiber's execution. It lies at a fixed address (in the fiber's header) from
//! `init` until the fiber has ended, and it is used by one thread at a time.
//!
//! - `Context::init(this, top, limit, entry, arg)` prepares a fiber on the stack `limit..top` (top is
//!   the high end, aligned to 16). Nothing runs yet. The memory at `this` need not be initialised.
//! - `Context::resume(this, word)` is called off the fiber, by the idle context. It switches to the
//!   fiber and returns the word that the fiber gives back when it next suspends or ends.
//! - `Context::suspend(this, word)` is called on the fiber. It switches back to whoever resumed it,
//!   handing over `word`, and returns the word of the next `resume`.
//! - `entry(arg, word)` is the fiber's body: `word` comes from the first `resume`. It must not unwind.
//!   The word it returns is handed over by the last switch; after that the context may only be
//!   `init`ialised again or forgotten, and the stack below it holds nothing that is still needed.
//!
//! The switch is asymmetric: `resume` from the idle context, `suspend` back to it, and never from
//! fiber to fiber. It keeps the callee-saved registers and nothing else: not the floating point
//! control words, not the signal mask (see `asm/README.md`).
//!
//! `cfg(switch)` is read here and nowhere else.

#[cfg(switch = "x86_64")]
mod x86_64;

#[cfg(switch = "x86_64")]
pub(crate) use x86_64::{Context, get_current, set_current};

/// A fiber's body: `entry(arg, first_word) -> last_word`.
pub(crate) type Entry = unsafe extern "C" fn(arg: *mut (), word: usize) -> usize;
