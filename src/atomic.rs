//! The atomics of the lock-free protocols (`coro/signal`, `coro/cancel`, `coro/children`,
//! `sched/deque`, `sched/inbox`, `sched/idle`, `driver/wake`, `sync`): std's, or loom's in this
//! crate's own tests under `--cfg loom`, so that a model checker can try every interleaving of
//! exactly the code that ships.

#[cfg(not(all(test, loom)))]
pub(crate) use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicUsize, Ordering, fence,
};
#[cfg(not(all(test, loom)))]
pub(crate) use std::thread::yield_now;

#[cfg(all(test, loom))]
pub(crate) use loom::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicUsize, Ordering, fence,
};
#[cfg(all(test, loom))]
pub(crate) use loom::thread::yield_now;

/// Makes a function `const`, except with loom's atomics, which cannot be made at compile time.
macro_rules! const_fn {
    (
        $(#[$meta:meta])*
        $vis:vis fn $name:ident($($arg:ident: $type:ty),*) -> $out:ty $body:block
    ) => {
        #[cfg(not(all(test, loom)))]
        $(#[$meta])*
        $vis const fn $name($($arg: $type),*) -> $out $body

        #[cfg(all(test, loom))]
        $(#[$meta])*
        $vis fn $name($($arg: $type),*) -> $out $body
    };
}
pub(crate) use const_fn;
