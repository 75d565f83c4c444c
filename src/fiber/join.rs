//! Waiting for fibers, and asking them to end.

use super::handle::{Fiber, Inner, release};
use crate::coro::signal::Before;
use crate::coro::{FiberPtr, entry, task};
use crate::sched::remote::{Cancelled, Remote};
use crate::sched::{self, current, lost};
use crate::sys::clock;
use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

/// An owned permission to join on a fiber: wait for its end and take its result.
///
/// Dropping it detaches the fiber.
///
/// It is a [`Future`], too: async code, on whatever runs it, can await a fiber. Dropping the future
/// detaches the fiber, as always; polling it by reference and then calling [`join`](Self::join) is
/// fine. Once it has returned the result, it must not be polled or joined again. The waker of who
/// awaits it is called by the worker on which the fiber ends, between two fibers: one that waits
/// there for another fiber of that worker blocks it for good.
///
/// Differs from [`std::thread::JoinHandle`] in that a fiber that waits in [`join`](Self::join)
/// suspends, and in the extras `try_join`, `join_timeout`, `cancel` and `cancel_join`.
///
/// # Examples
/// ```
/// ramie::Runtime::new()?.run(|| {
///     let fiber = ramie::spawn(|| ramie::fs::read_to_string("Cargo.toml"));
///     let text = ramie::block_on(async { fiber.await.unwrap() })?;
///     assert!(text.contains("ramie"));
///     std::io::Result::Ok(())
/// })?;
/// # std::io::Result::Ok(())
/// ```
pub struct JoinHandle<T> {
    /// The reference that the fiber and the handle own together.
    fiber: ManuallyDrop<Fiber>,
    _result: PhantomData<T>,
}

// SAFETY: the handle lets its holder take the `T`, which came from another thread perhaps.
unsafe impl<T: Send> Send for JoinHandle<T> {}
// SAFETY: through a shared handle only the Fiber is reachable.
unsafe impl<T> Sync for JoinHandle<T> {}
// There is no `T` in it.
impl<T> Unpin for JoinHandle<T> {}

impl<T> JoinHandle<T> {
    #[inline]
    pub(crate) fn new(fiber: FiberPtr) -> Self {
        Self { fiber: ManuallyDrop::new(Fiber(Inner::Fiber(fiber))), _result: PhantomData }
    }

    #[inline]
    fn ptr(&self) -> FiberPtr {
        match self.fiber.0 {
            Inner::Fiber(fiber) => fiber,
            // SAFETY: `new`, the only constructor, makes it of a fiber.
            Inner::Thread(_) => unsafe { std::hint::unreachable_unchecked() },
        }
    }

    /// Waits for the fiber to end and returns what its closure returned, or the payload of its
    /// panic.
    ///
    /// # Errors
    /// The payload of the panic, if the fiber panicked. If it will never end, because its runtime
    /// was shut down and has leaked it: a `&'static str` that says so.
    ///
    /// # Panics
    /// If the handle was awaited before, and has returned the result.
    ///
    /// # Cancellation
    /// Cannot be cancelled: cancel the fiber that is waited for instead.
    #[inline]
    pub fn join(self) -> thread::Result<T> {
        let fiber = self.ptr();
        entry::prefetch_result::<T>(fiber);
        let ended = &fiber.header().ended;
        if !ended.is_set() {
            self.forget_task();
            while !ended.is_set() {
                if !lost::join(fiber) {
                    return Err(lost_message());
                }
            }
        }
        self.take()
    }

    /// Takes the result if the fiber has ended, and gives the handle back if not.
    ///
    /// # Errors
    /// The handle, while the fiber has not ended.
    ///
    /// # Panics
    /// As [`join`](Self::join).
    #[inline]
    pub fn try_join(self) -> Result<thread::Result<T>, Self> {
        if self.ptr().header().ended.is_set() {
            Ok(self.take())
        } else {
            self.check_result();
            if lost::is_lost(self.ptr()) { Ok(Err(lost_message())) } else { Err(self) }
        }
    }

    /// Waits for the fiber to end, for `timeout` at most.
    ///
    /// # Errors
    /// The handle, if the fiber has not ended by then.
    ///
    /// # Panics
    /// As [`join`](Self::join).
    pub fn join_timeout(self, timeout: Duration) -> Result<thread::Result<T>, Self> {
        let deadline_ns = clock::deadline_ns(timeout);
        let fiber = self.ptr();
        let ended = &fiber.header().ended;
        self.forget_task();
        while !ended.is_set() && clock::now_ns() < deadline_ns {
            if !lost::wait_for_end(fiber, Some(deadline_ns)) {
                break;
            }
            if current::worker().is_some_and(|worker| worker.is_draining()) {
                break;
            }
        }
        self.try_join()
    }

    /// Whether the fiber has ended, or never will, so that `join` would not wait.
    #[inline]
    pub fn is_finished(&self) -> bool {
        let fiber = self.ptr();
        let ended = &fiber.header().ended;
        ended.is_set() || ended.is_detached() || lost::is_lost(fiber)
    }

    /// The fiber, to name it or to unpark it.
    #[inline]
    pub fn fiber(&self) -> &Fiber {
        &self.fiber
    }

    /// The fiber, under the name that the method has in std; see [`fiber`](Self::fiber).
    #[inline]
    pub fn thread(&self) -> &Fiber {
        self.fiber()
    }

    /// Asks the fiber to end early: the I/O operation it waits in, or else its next one, fails with
    /// an error that [`is_cancelled`](crate::is_cancelled) recognises.
    ///
    /// A request is reported once. An operation that has completed before the request reached it
    /// keeps its result, and the next one fails instead. [`sleep`](crate::sleep) ends early while a
    /// request is unreported; [`park`](crate::park) wakes once; `join` ignores it. A fiber that
    /// performs no I/O any more ends as if nothing had been asked. The whole table, and what the
    /// fiber can do about it, is in [`cancel`](crate::cancel).
    pub fn cancel(&self) {
        request_cancel(self.ptr());
    }

    /// Asks the fiber to end early, as [`cancel`](Self::cancel), waits for its end, and returns
    /// what its closure returned, as [`join`](Self::join).
    ///
    /// # Errors
    /// The payload of the panic, if the fiber panicked.
    ///
    /// # Cancellation
    /// Cannot be cancelled itself.
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// ramie::Runtime::new()?.run(|| {
    ///     let fiber = ramie::spawn(|| {
    ///         ramie::sleep(Duration::from_secs(3600)); // ends early
    ///         ramie::cancel::check().is_err()
    ///     });
    ///     assert!(fiber.cancel_join().unwrap());
    /// });
    /// # std::io::Result::Ok(())
    /// ```
    pub fn cancel_join(self) -> thread::Result<T> {
        self.cancel();
        self.join()
    }

    /// The handle is about to wait itself, rather than the task that has polled it before.
    fn forget_task(&self) {
        self.check_result();
        task::forget(&self.ptr().header().ended);
        lost::unlist(self.ptr());
    }

    /// The handle is the only one that detaches the signal; while there is a handle, that means
    /// that it has returned the result.
    #[inline]
    fn check_result(&self) {
        assert!(
            !self.ptr().header().ended.is_detached(),
            "a JoinHandle was polled or joined after it had returned the fiber's result"
        );
    }

    /// Takes the result; the fiber has ended.
    #[inline]
    fn take(self) -> thread::Result<T> {
        let fiber = ManuallyDrop::new(self).ptr();
        lost::unlist(fiber);
        // SAFETY: it has ended, `T` is its result type, and the handle, which is gone, was the only
        // one that may take it.
        let result = unsafe { entry::take_result::<T>(fiber) };
        // SAFETY: the reference was the fiber's, which has ended, and the handle's.
        unsafe { release(fiber) };
        result
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        let fiber = self.ptr();
        lost::unlist(fiber);
        match fiber.header().ended.detach() {
            Before::Nothing => {}
            // SAFETY: as in `take`.
            Before::Set => unsafe {
                entry::drop_result::<T>(fiber);
                release(fiber);
            },
            // SAFETY: as in `take`; the result has been taken by `poll`.
            Before::Detached => unsafe { release(fiber) },
            // SAFETY: taken out by us.
            Before::Task(address) => drop(unsafe { task::from_address(address) }),
        }
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = thread::Result<T>;

    /// # Panics
    /// If it has returned the result before.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let fiber = self.ptr();
        let ended = &fiber.header().ended;
        if !ended.is_set() {
            self.check_result();
            lost::list(fiber);
            if !lost::is_lost(fiber) && task::watch(ended, context.waker()) {
                return Poll::Pending;
            }
            if !ended.is_set() {
                return Poll::Ready(Err(lost_message()));
            }
        }
        // SAFETY: it has ended, `T` is its result type, and the handle is the only one that may
        // take it; the next line says that it has.
        let result = unsafe { entry::take_result::<T>(fiber) };
        ended.detach();
        Poll::Ready(result)
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("fiber", &*self.fiber).finish_non_exhaustive()
    }
}

/// What joining a fiber returns that will never end. The handle is dropped as always: the reference
/// that it shares with the fiber stays.
#[cold]
fn lost_message() -> Box<dyn Any + Send> {
    Box::new("the runtime was shut down before the fiber ended")
}

pub(super) fn request_cancel(fiber: FiberPtr) {
    let header = fiber.header();
    if !header.cancel.request() {
        return;
    }
    // `park` is woken by its token, wherever the fiber is: one that is about to park must not miss
    // it.
    sched::wake_waiter(header.token.set());
    // A fiber without a home is fresh: it finds the request when it has started (`coro/cancel.rs`).
    let Some(home) = Remote::of(fiber) else { return };
    match current::worker() {
        Some(worker) if std::ptr::eq(worker.remote(), home) => worker.cancel_wait(fiber),
        _ => {
            if header.cancel.list() {
                fiber.retain();
                home.cancels.push(Cancelled(fiber));
                home.notify();
            }
        }
    }
}
