//! Plain blocking code that suspends instead of blocking.
#![deny(unsafe_code, unsafe_op_in_unsafe_fn)]
#![warn(missing_docs, unreachable_pub)]
#![warn(clippy::undocumented_unsafe_blocks)]

#[expect(unsafe_code, reason = "L1: the context switch")]
mod arch;
mod atomic;
#[expect(unsafe_code, reason = "L4: fibers are raw stacks and words that several threads touch")]
mod coro;
mod driver;
pub mod fs;
mod op;
pub mod os;
#[expect(unsafe_code, reason = "L6: resuming fibers and borrowing from their stacks")]
mod sched;
#[expect(unsafe_code, reason = "L2: it owns the memory that fibers run on")]
mod stack;
#[expect(unsafe_code, reason = "L0: system calls")]
mod sys;

#[expect(unsafe_code, reason = "L8: handles own references to fibers")]
mod fiber;
#[expect(unsafe_code, reason = "L8: values that live as long as their fiber")]
mod local;
#[cfg(all(test, loom))]
mod loom_models;
mod runtime;

pub use driver::WakeMethod;
pub use fiber::{
    Builder, Fiber, JoinHandle, current, is_fiber, no_suspend, park, park_timeout, sleep, spawn,
    spawn_local, stack_remaining, unblock, yield_now,
};
pub use local::{AccessError, LocalKey};
pub use ramie_macros::{main, test};
pub use runtime::{Handle, Metrics, Runtime, RuntimeBuilder};

/// Whether an operation failed because its fiber was asked to end, or its runtime shut down.
///
/// # Examples
/// ```
/// let error = std::io::Error::from_raw_os_error(125); // ECANCELED
/// assert!(ramie::is_cancelled(&error));
/// ```
pub fn is_cancelled(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(libc::ECANCELED)
}
