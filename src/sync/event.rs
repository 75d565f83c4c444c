//! [`Event`].
#![forbid(unsafe_code)]

use super::block;
use super::wait::{Locked, Queue, Waited, wait_in};
use crate::atomic::{AtomicBool, Ordering, const_fn};
use crate::coro::OnCancel;
use crate::sys::clock;
use std::fmt;
use std::time::Duration;

/// Something that happens and, once it has, stays so until it is [reset](Self::reset): all who
/// wait for it go on, and who comes later does not wait.
///
/// # Examples
/// ```
/// use ramie::sync::{Arc, Event};
///
/// ramie::Runtime::new()?.run(|| {
///     let ready = Arc::new(Event::new());
///     let setter = Arc::clone(&ready);
///     let fiber = ramie::spawn(move || setter.set());
///     assert!(ready.wait());
///     fiber.join().unwrap();
/// });
/// # std::io::Result::Ok(())
/// ```
pub struct Event {
    /// Changed under the queue's lock.
    is_set: AtomicBool,
    queue: Locked<Queue>,
}

impl std::panic::UnwindSafe for Event {}
impl std::panic::RefUnwindSafe for Event {}

impl Event {
    const_fn! {
        /// One that has not happened.
        #[inline]
        pub fn new() -> Self {
            Self { is_set: AtomicBool::new(false), queue: Locked::new(Queue::new()) }
        }
    }

    /// It has happened. Never waits.
    pub fn set(&self) {
        let mut queue = self.queue.lock();
        self.is_set.store(true, Ordering::Release);
        let waiters = queue.claim_all();
        drop(queue);
        waiters.wake();
    }

    /// It has not happened any more. Returns whether it had. Those whom `set` has woken before go
    /// on. Never waits.
    pub fn reset(&self) -> bool {
        let _queue = self.queue.lock();
        let was_set = self.is_set.load(Ordering::Acquire);
        self.is_set.store(false, Ordering::Release);
        was_set
    }

    /// Whether it has happened. If so, what was done before is visible.
    #[inline]
    pub fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Acquire)
    }

    /// Waits until it has happened. Returns whether it has: `false` only if the fiber was asked to
    /// end, or its runtime shuts down.
    ///
    /// # Panics
    /// Inside [`no_suspend`](crate::no_suspend), if it would have to wait.
    ///
    /// # Cancellation
    /// A cancel request ends the wait, and is reported by the result.
    #[inline]
    pub fn wait(&self) -> bool {
        self.is_set() || self.wait_slow(None)
    }

    /// As [`wait`](Self::wait), for `timeout` at most.
    ///
    /// # Panics
    /// As [`wait`](Self::wait).
    ///
    /// # Cancellation
    /// A cancel request ends the wait, and is reported by the result.
    #[inline]
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.is_set() || self.wait_slow(Some(clock::deadline_ns(timeout)))
    }

    #[cold]
    fn wait_slow(&self, deadline_ns: Option<u64>) -> bool {
        let waited =
            wait_in(&self.queue, |queue| queue, deadline_ns, OnCancel::End, |_| !self.is_set());
        if waited != Waited::GaveUp {
            return true;
        }
        if deadline_ns.is_none_or(|deadline_ns| clock::now_ns() < deadline_ns) {
            block::report();
        }
        false
    }
}

impl Default for Event {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event").field("is_set", &self.is_set()).finish_non_exhaustive()
    }
}
