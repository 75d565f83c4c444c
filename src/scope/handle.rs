//! Waiting for a scope's fibers, one by one.
#![forbid(unsafe_code)]

use crate::coro::Children;
use crate::fiber::{Fiber, JoinHandle};
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

/// An owned permission to join on a fiber of a scope. As [`std::thread::ScopedJoinHandle`].
///
/// See [`Scope::spawn`](super::Scope::spawn). Dropping it is fine: the scope waits for the fiber in
/// any case.
pub struct ScopedJoinHandle<'scope, T> {
    fiber: JoinHandle<T>,
    children: &'scope Children,
}

impl<'scope, T> ScopedJoinHandle<'scope, T> {
    #[inline]
    pub(super) fn new(fiber: JoinHandle<T>, children: &'scope Children) -> Self {
        Self { fiber, children }
    }

    /// Waits for the fiber to end and returns its result. The scope does not panic for a panic that
    /// was returned here.
    ///
    /// # Errors
    /// The payload of the panic, if the fiber panicked.
    ///
    /// # Cancellation
    /// Cannot be cancelled: cancel the fiber that is waited for instead.
    ///
    /// # Examples
    /// ```
    /// ramie::Runtime::new()?.run(|| {
    ///     ramie::scope(|s| {
    ///         let fiber = s.spawn(|| panic!("oh no"));
    ///         assert!(fiber.join().is_err());
    ///     });
    /// });
    /// # std::io::Result::Ok(())
    /// ```
    #[inline]
    pub fn join(self) -> thread::Result<T> {
        taken(self.fiber.join(), self.children)
    }

    /// Takes the result if the fiber has ended, and gives the handle back if not.
    ///
    /// # Errors
    /// The handle, while the fiber has not ended.
    pub fn try_join(self) -> Result<thread::Result<T>, Self> {
        let Self { fiber, children } = self;
        match fiber.try_join() {
            Ok(result) => Ok(taken(result, children)),
            Err(fiber) => Err(Self { fiber, children }),
        }
    }

    /// Waits for the fiber to end, for `timeout` at most.
    ///
    /// # Errors
    /// The handle, if the fiber has not ended by then.
    pub fn join_timeout(self, timeout: Duration) -> Result<thread::Result<T>, Self> {
        let Self { fiber, children } = self;
        match fiber.join_timeout(timeout) {
            Ok(result) => Ok(taken(result, children)),
            Err(fiber) => Err(Self { fiber, children }),
        }
    }

    /// Whether the fiber has ended, so that `join` would not wait.
    #[inline]
    pub fn is_finished(&self) -> bool {
        self.fiber.is_finished()
    }

    /// The fiber, to name it or to unpark it.
    #[inline]
    pub fn fiber(&self) -> &Fiber {
        self.fiber.fiber()
    }

    /// The fiber, under the name that the method has in std; see [`fiber`](Self::fiber).
    #[inline]
    pub fn thread(&self) -> &Fiber {
        self.fiber()
    }

    /// Asks the fiber to end early, as [`JoinHandle::cancel`].
    pub fn cancel(&self) {
        self.fiber.cancel();
    }

    /// Asks the fiber to end early, waits until it has, and returns its result: what it returned in
    /// spite of the request, or because of it.
    ///
    /// # Errors
    /// The payload of the panic, if the fiber panicked.
    ///
    /// # Cancellation
    /// Cannot be cancelled itself.
    pub fn cancel_join(self) -> thread::Result<T> {
        self.cancel();
        self.join()
    }
}

/// Waits for the fiber, as [`join`](ScopedJoinHandle::join) does: in a
/// [`select!`](crate::select!), or in async code. When it is ready, the handle is spent.
impl<T> Future for ScopedJoinHandle<'_, T> {
    type Output = thread::Result<T>;

    /// # Panics
    /// If the result has been taken already.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<thread::Result<T>> {
        let Self { fiber, children } = self.get_mut();
        Pin::new(fiber).poll(context).map(|result| taken(result, children))
    }
}

/// A panic that is the caller's now is not the scope's any more. (A child that a shutdown has
/// leaked has not panicked; but then the scope does not return, and nobody asks for the count.)
#[inline]
fn taken<T>(result: thread::Result<T>, children: &Children) -> thread::Result<T> {
    if result.is_err() {
        children.panic_taken();
    }
    result
}

impl<T> fmt::Debug for ScopedJoinHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScopedJoinHandle").field("fiber", self.fiber()).finish_non_exhaustive()
    }
}
