//! L2, fiber stacks.
//!
//! # Contract
//!
//! - [`Stack`] is an owned, guarded stack: `limit()..top()` is readable and writable memory, what lies
//!   below `limit()` is a guard that faults. Nothing runs on it while it is owned as a `Stack`. Its
//!   contents are unspecified (recycled stacks are not cleared).
//! - [`Pool::get(stack_bytes)`] finds or makes the process-wide pool of that size class (rounded up to a power
//!   of two, 16 KiB at least, guard included). Slabs are never unmapped: a stack's address stays
//!   readable for the life of the process.
//! - [`Cache`] is one worker's LIFO cache in front of a pool: no lock, no atomic, no syscall on a hit.
