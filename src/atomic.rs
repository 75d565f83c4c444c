//! The atomics of the lock-free protocols (`coro/signal`, `sched/inbox`, `sched/sleep`): std's, or
//! loom's under `--cfg loom`, so that a model checker can try every interleaving of exactly the
//! code that ships.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering, fence};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering, fence};
