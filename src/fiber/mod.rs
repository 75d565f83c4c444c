//! Fibers as their users see them: what `std::thread` is for threads.
//!
//! | file        | what                                                          |
//! |-------------|---------------------------------------------------------------|
//! | `spawn.rs`  | [`spawn`], [`spawn_local`], [`Builder`]                       |
//! | `join.rs`   | [`JoinHandle`]: joining, and requests to end                  |
//! | `handle.rs` | [`Fiber`], [`FiberId`]                                        |
//! | `mod.rs`    | what a fiber does with itself: yield, park, ...               |

mod handle;
mod join;
mod spawn;

pub use handle::{Fiber, FiberId};
pub use join::JoinHandle;
pub use spawn::{Builder, spawn, spawn_local};
pub(crate) use spawn::{create, heir, no_runtime, no_stack, spawn_external};

use crate::arch;
use crate::coro::{FiberPtr, OnCancel};
use crate::sched::{self, cancel, current};
use crate::sys::clock;
use handle::Inner;
use std::thread;
use std::time::{Duration, Instant};

/// The fiber that the calling code runs on; on a plain thread, a handle to that thread.
///
/// # Examples
/// ```
/// ramie::Runtime::new()?.run(|| {
///     let me = ramie::current();
///     let fiber = ramie::spawn(move || me.unpark());
///     ramie::park();
///     fiber.join().unwrap();
/// });
/// # std::io::Result::Ok(())
/// ```
pub fn current() -> Fiber {
    match current::fiber() {
        Some((_, fiber)) => {
            fiber.retain();
            Fiber(Inner::Fiber(fiber))
        }
        None => Fiber(Inner::Thread(thread::current())),
    }
}

/// Whether the calling code runs on a fiber, where waiting suspends rather than blocks.
#[inline]
pub fn is_fiber() -> bool {
    current::fiber().is_some()
}

/// Lets the other ready fibers of this worker run first. On a plain thread,
/// [`std::thread::yield_now`].
#[inline]
pub fn yield_now() {
    sched::submit::yield_now();
}

/// Waits until the fiber's token is set by [`Fiber::unpark`], and takes the token. As
/// [`std::thread::park`]: may return for no reason, so it belongs in a loop that checks a
/// condition.
///
/// # Cancellation
/// A cancel request sets the token: it wakes a parked fiber, or lets its next call of `park` return
/// at once. So does the deadline of a [`timeout`](crate::time::timeout) inside of which it parks,
/// once.
#[inline]
pub fn park() {
    match current::suspendable() {
        Some((_, fiber)) => {
            park_fiber(fiber, None);
        }
        None => park_thread(None),
    }
}

/// As [`park`], for `timeout` at most.
pub fn park_timeout(timeout: Duration) {
    match current::suspendable() {
        Some((_, fiber)) => {
            park_fiber(fiber, Some(clock::deadline_ns(timeout)));
        }
        None => park_thread(Some(clock::deadline_ns(timeout))),
    }
}

#[inline]
fn park_fiber(fiber: FiberPtr, deadline_ns: Option<u64>) {
    let header = fiber.header();
    if !header.token.take() && !header.bounds.take_wakes() {
        sched::wait(&header.token, deadline_ns, OnCancel::Wake);
        header.token.take();
        header.bounds.take_wakes();
    }
}

/// Parks where suspending is not possible: on a plain thread by its own token, on a fiber that
/// unwinds by the fiber's, for which the thread is blocked.
fn park_thread(deadline_ns: Option<u64>) {
    if let Some((_, fiber)) = current::fiber() {
        let token = &fiber.header().token;
        if !token.take() {
            sched::wait(token, deadline_ns, OnCancel::Wake);
            token.take();
        }
    } else {
        match cancel::end_of_park(deadline_ns).and_then(clock::instant) {
            Some(deadline) => {
                thread::park_timeout(deadline.saturating_duration_since(Instant::now()));
            }
            None => thread::park(),
        }
    }
    cancel::parked_on_thread();
}

/// Runs `f` on the runtime's pool of blocking threads while the fiber waits; on a plain thread,
/// runs it right there. `f` may borrow from the caller.
///
/// For calls that block and that this crate does not know: a C library's, a long computation's, a
/// device's.
///
/// # Panics
/// If `f` panics, the panic goes on in the caller.
///
/// # Cancellation
/// Cannot be cancelled: the fiber waits until `f` is done.
///
/// # Examples
/// ```
/// ramie::Runtime::new()?.run(|| {
///     let text = String::from("borrowed");
///     let length = ramie::unblock(|| text.len());
///     assert_eq!(length, 8);
/// });
/// # std::io::Result::Ok(())
/// ```
pub fn unblock<T, F>(f: F) -> T
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    sched::blocking(f)
}

/// Runs `f`, and panics if anything in it would suspend the fiber.
///
/// For code that relies on nothing else running on its thread meanwhile: a reference taken inside a
/// scoped thread-local, a C library's thread-bound state.
///
/// # Panics
/// If `f` calls anything that would suspend the fiber.
///
/// # Examples
/// ```
/// ramie::Runtime::new()?.run(|| {
///     let sum = ramie::no_suspend(|| 1 + 1);
///     assert_eq!(sum, 2);
///     let caught = std::panic::catch_unwind(|| ramie::no_suspend(ramie::yield_now));
///     assert!(caught.is_err());
/// });
/// # std::io::Result::Ok(())
/// ```
pub fn no_suspend<T>(f: impl FnOnce() -> T) -> T {
    struct Section(Option<FiberPtr>);
    impl Drop for Section {
        fn drop(&mut self) {
            if let Some(fiber) = self.0 {
                let depth = &fiber.header().no_suspend;
                depth.set(depth.get() - 1);
            }
        }
    }
    let fiber = current::fiber().map(|(_, fiber)| fiber);
    if let Some(fiber) = fiber {
        let depth = &fiber.header().no_suspend;
        depth.set(depth.get() + 1);
    }
    let _section = Section(fiber);
    f()
}

/// The bytes left on the calling fiber's stack; `None` on a plain thread.
#[inline(never)]
pub fn stack_remaining() -> Option<usize> {
    let (_, fiber) = current::fiber()?;
    // SAFETY: only looked at.
    let limit = unsafe { fiber.stack() }.limit();
    Some(arch::stack_pointer().saturating_sub(limit.addr()))
}
