//! Plain blocking code that suspends instead of blocking.
#![deny(unsafe_code, unsafe_op_in_unsafe_fn)]
#![warn(missing_docs, unreachable_pub)]
#![warn(clippy::undocumented_unsafe_blocks)]

#[expect(unsafe_code, reason = "L1: the context switch")]
mod arch;
pub mod fs;
mod op;
pub mod os;
mod sched;
#[expect(unsafe_code, reason = "L0: system calls")]
mod sys;
