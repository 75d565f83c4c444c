//! [`Condvar`].

use super::mutex::MutexGuard;
use super::wait::{Locked, Node, Queue, Waiter};
use super::{LockResult, PoisonError, block};
use crate::atomic::const_fn;
use crate::coro::OnCancel;
use crate::sys::clock;
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::pin;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Whether a wait of a [`Condvar`] ended because its time was up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    /// Whether the time was up.
    #[must_use]
    pub fn timed_out(&self) -> bool {
        self.0
    }
}

/// Waits until somebody says that something has changed. As [`std::sync::Condvar`], for a
/// [`Mutex`](super::Mutex) of this crate, and a fiber that waits suspends.
///
/// # Cancellation
/// A cancel request of the fiber wakes it once, which looks like a wake-up for no reason; it is not
/// reported thereby, and further waits are ordinary ones. So is the end of its runtime.
///
/// # Examples
/// ```
/// use ramie::sync::{Arc, Condvar, Mutex};
///
/// ramie::Runtime::new()?.run(|| {
///     let pair = Arc::new((Mutex::new(false), Condvar::new()));
///     let other = Arc::clone(&pair);
///     let fiber = ramie::spawn(move || {
///         *other.0.lock().unwrap() = true;
///         other.1.notify_one();
///     });
///     let (ready, changed) = &*pair;
///     let ready = changed.wait_while(ready.lock().unwrap(), |ready| !*ready).unwrap();
///     assert!(*ready);
///     drop(ready);
///     fiber.join().unwrap();
/// });
/// # std::io::Result::Ok(())
/// ```
pub struct Condvar {
    /// Those in the queue. Changed under its lock, and read without it: who waits has said so
    /// before it let go of the mutex, and who has changed something has locked the mutex since.
    waiting: AtomicUsize,
    queue: Locked<Queue>,
}

impl UnwindSafe for Condvar {}
impl RefUnwindSafe for Condvar {}

impl Condvar {
    const_fn! {
        /// A condition that nobody waits for.
        #[inline]
        pub fn new() -> Self {
            Self { waiting: AtomicUsize::new(0), queue: Locked::new(Queue::new()) }
        }
    }

    /// Unlocks the mutex, waits to be notified, and locks it again. May return for no reason, so it
    /// belongs in a loop that checks a condition; [`wait_while`](Self::wait_while) is one.
    ///
    /// # Errors
    /// If the mutex is poisoned when it is locked again; the error has the guard too.
    ///
    /// # Panics
    /// Inside [`no_suspend`](crate::no_suspend).
    ///
    /// # Cancellation
    /// A cancel request ends the wait early, once.
    pub fn wait<'a, T>(&self, mut guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        self.wait_until(&mut guard, None);
        checked(guard, |guard| guard)
    }

    /// Waits for as long as `condition` is true of the value.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    ///
    /// # Panics
    /// As [`wait`](Self::wait).
    ///
    /// # Cancellation
    /// A cancel request has the condition checked once more, and does not end the loop.
    pub fn wait_while<'a, T, F>(
        &self,
        mut guard: MutexGuard<'a, T>,
        mut condition: F,
    ) -> LockResult<MutexGuard<'a, T>>
    where
        F: FnMut(&mut T) -> bool,
    {
        while condition(&mut *guard) {
            guard = self.wait(guard)?;
        }
        Ok(guard)
    }

    /// As [`wait`](Self::wait), for `timeout` at most.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    ///
    /// # Panics
    /// As [`wait`](Self::wait).
    ///
    /// # Cancellation
    /// A cancel request ends the wait early, once. While the runtime shuts down no deadline is
    /// waited for: the time is up at once.
    pub fn wait_timeout<'a, T>(
        &self,
        mut guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)> {
        let timed_out = self.wait_until(&mut guard, Some(clock::deadline_ns(timeout)));
        checked(guard, |guard| (guard, WaitTimeoutResult(timed_out)))
    }

    /// Waits for as long as `condition` is true of the value, and for `timeout` at most.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    ///
    /// # Panics
    /// As [`wait`](Self::wait).
    ///
    /// # Cancellation
    /// A cancel request has the condition checked once more, and does not end the loop. While the
    /// runtime shuts down no deadline is waited for: the time is up at once.
    pub fn wait_timeout_while<'a, T, F>(
        &self,
        mut guard: MutexGuard<'a, T>,
        timeout: Duration,
        mut condition: F,
    ) -> LockResult<(MutexGuard<'a, T>, WaitTimeoutResult)>
    where
        F: FnMut(&mut T) -> bool,
    {
        let start = Instant::now();
        loop {
            if !condition(&mut *guard) {
                return Ok((guard, WaitTimeoutResult(false)));
            }
            let left = match timeout.checked_sub(start.elapsed()) {
                Some(left) if !left.is_zero() && !block::draining() => left,
                _ => return Ok((guard, WaitTimeoutResult(true))),
            };
            guard = self.wait_timeout(guard, left)?.0;
        }
    }

    /// Wakes the one that has waited longest, if anybody waits.
    ///
    /// May be called with or without the mutex locked, by threads and fibers, and never waits.
    #[inline]
    pub fn notify_one(&self) {
        if self.waiting.load(Ordering::Relaxed) != 0 {
            self.notify(1);
        }
    }

    /// Wakes everybody who waits.
    ///
    /// May be called with or without the mutex locked, by threads and fibers, and never waits.
    #[inline]
    pub fn notify_all(&self) {
        if self.waiting.load(Ordering::Relaxed) != 0 {
            self.notify(usize::MAX);
        }
    }

    #[cold]
    fn notify(&self, count: usize) {
        let mut queue = self.queue.lock();
        let claimed = queue.claim(count);
        self.add_waiting(claimed.len().wrapping_neg());
        drop(queue);
        claimed.wake();
    }

    /// Under the queue's lock.
    fn add_waiting(&self, count: usize) {
        let waiting = self.waiting.load(Ordering::Relaxed);
        self.waiting.store(waiting.wrapping_add(count), Ordering::Relaxed);
    }

    /// Returns whether the deadline has come.
    fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, deadline_ns: Option<u64>) -> bool {
        let waiter = pin!(Waiter::new());
        let node = pin!(Node::new(waiter.as_ref(), 1, ptr::null_mut()));
        let mut queue = self.queue.lock();
        queue.push(node.as_ref());
        self.add_waiting(1);
        drop(queue);
        guard.unlocked(|| {
            let on_cancel = block::once_per_request();
            if waiter.as_ref().wait(deadline_ns, on_cancel).is_some() {
                return false;
            }
            let mut queue = self.queue.lock();
            if queue.remove(node.as_ref()) {
                self.add_waiting(1_usize.wrapping_neg());
            }
            drop(queue);
            if on_cancel == OnCancel::End {
                block::ended_early();
            }
            deadline_ns
                .is_some_and(|deadline_ns| block::draining() || clock::now_ns() >= deadline_ns)
        })
    }
}

/// Whether the mutex was poisoned meanwhile.
fn checked<'a, T, R>(
    guard: MutexGuard<'a, T>,
    result: impl FnOnce(MutexGuard<'a, T>) -> R,
) -> LockResult<R> {
    let poisoned = guard.is_poisoned();
    let result = result(guard);
    if poisoned { Err(PoisonError::new(result)) } else { Ok(result) }
}

impl Default for Condvar {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Condvar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Condvar").finish_non_exhaustive()
    }
}
