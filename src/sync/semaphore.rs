//! [`Semaphore`].

use super::block;
use super::wait::{ClaimedList, Locked, Node, Queue, Waiter};
use crate::atomic::const_fn;
use crate::coro::OnCancel;
use crate::sys::clock;
use std::cell::Cell;
use std::fmt;
use std::io;
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// A number of permits, of which each user takes one or several and gives them back. Who has to
/// wait is served in the order of arrival, so one who wants many is not passed by those who want
/// few.
///
/// # Examples
/// ```
/// use ramie::sync::{Arc, Semaphore};
///
/// ramie::Runtime::new()?.run(|| {
///     let two = Arc::new(Semaphore::new(2)); // at most two at a time
///     let fibers: Vec<_> = (0..10)
///         .map(|_| {
///             let two = Arc::clone(&two);
///             ramie::spawn(move || {
///                 let _permit = two.acquire()?;
///                 ramie::fs::metadata("Cargo.toml").map(drop)
///             })
///         })
///         .collect();
///     for fiber in fibers {
///         fiber.join().unwrap()?;
///     }
///     assert_eq!(two.available_permits(), 2);
///     std::io::Result::Ok(())
/// })?;
/// # std::io::Result::Ok(())
/// ```
pub struct Semaphore {
    state: Locked<State>,
}

struct State {
    permits: usize,
    closed: bool,
    queue: Queue,
}

/// What a waiter shows to those who have permits.
struct Need {
    permits: usize,
    /// Set if it was woken because it has them.
    granted: Cell<bool>,
}

impl std::panic::UnwindSafe for Semaphore {}
impl std::panic::RefUnwindSafe for Semaphore {}

impl State {
    /// Takes permits if there are so many and nobody waits.
    fn try_take(&mut self, permits: usize) -> Result<(), TryAcquireError> {
        if self.closed {
            return Err(TryAcquireError::Closed);
        }
        if permits > self.permits || !self.queue.is_empty() {
            return Err(TryAcquireError::NoPermits);
        }
        self.permits -= permits;
        Ok(())
    }

    /// Gives the permits that there are to those who wait. To be woken after the lock.
    fn grant(&mut self) -> ClaimedList {
        let mut granted = ClaimedList::new();
        loop {
            let permits = self.permits;
            // SAFETY: the slot of a waiter in our queue is its `Need`, alive while it is there, of
            // which nobody changes `permits`.
            let enough = |_, slot: *mut ()| unsafe { (*slot.cast::<Need>()).permits } <= permits;
            let Some(claimed) = self.queue.claim_first_if(enough) else { return granted };
            // SAFETY: claimed and not woken: its frame is there, and it does not look at its `Need`
            // before it is woken.
            let need = unsafe { &*claimed.slot().cast::<Need>() };
            need.granted.set(true);
            self.permits -= need.permits;
            granted.push(claimed);
        }
    }
}

impl Semaphore {
    /// The most permits there can be.
    pub const MAX_PERMITS: usize = usize::MAX >> 3;

    const_fn! {
        /// A semaphore with so many permits.
        ///
        /// # Panics
        /// If there are more than [`MAX_PERMITS`](Self::MAX_PERMITS).
        pub fn new(permits: usize) -> Self {
            assert!(permits <= Self::MAX_PERMITS, "too many permits");
            Self { state: Locked::new(State { permits, closed: false, queue: Queue::new() }) }
        }
    }

    /// The permits that nobody has.
    pub fn available_permits(&self) -> usize {
        self.state.lock().permits
    }

    /// Adds permits, for instance some that were [forgotten](SemaphorePermit::forget). Never waits.
    ///
    /// # Panics
    /// If there are more than [`MAX_PERMITS`](Self::MAX_PERMITS) then.
    pub fn add_permits(&self, permits: usize) {
        let mut state = self.state.lock();
        let sum = state.permits.saturating_add(permits);
        if sum > Self::MAX_PERMITS {
            drop(state);
            panic!("too many permits");
        }
        state.permits = sum;
        let granted = state.grant();
        drop(state);
        granted.wake();
    }

    /// Waits for a permit and takes it. It is given back when the result is dropped.
    ///
    /// # Errors
    /// If the semaphore is [closed](Self::close), or the fiber is asked to end.
    ///
    /// # Panics
    /// Inside [`no_suspend`](crate::no_suspend), if it would have to wait.
    ///
    /// # Cancellation
    /// A cancel request ends the wait, and is reported by the error.
    pub fn acquire(&self) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.acquire_many(1)
    }

    /// As [`acquire`](Self::acquire), for several permits at once.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    ///
    /// # Panics
    /// As [`acquire`](Self::acquire).
    ///
    /// # Cancellation
    /// As [`acquire`](Self::acquire).
    pub fn acquire_many(&self, permits: usize) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.take(permits, None)?;
        Ok(SemaphorePermit { semaphore: self, permits })
    }

    /// As [`acquire`](Self::acquire), and waits for `timeout` at most.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire), or if there was no permit in time.
    ///
    /// # Panics
    /// As [`acquire`](Self::acquire).
    ///
    /// # Cancellation
    /// As [`acquire`](Self::acquire).
    pub fn acquire_timeout(&self, timeout: Duration) -> Result<SemaphorePermit<'_>, AcquireError> {
        self.take(1, Some(timeout))?;
        Ok(SemaphorePermit { semaphore: self, permits: 1 })
    }

    /// Takes a permit if there is one and nobody waits for it. Never waits.
    ///
    /// # Errors
    /// If there is none, or the semaphore is [closed](Self::close).
    pub fn try_acquire(&self) -> Result<SemaphorePermit<'_>, TryAcquireError> {
        self.try_acquire_many(1)
    }

    /// As [`try_acquire`](Self::try_acquire), for several permits at once.
    ///
    /// # Errors
    /// As [`try_acquire`](Self::try_acquire).
    pub fn try_acquire_many(&self, permits: usize) -> Result<SemaphorePermit<'_>, TryAcquireError> {
        self.state.lock().try_take(permits)?;
        Ok(SemaphorePermit { semaphore: self, permits })
    }

    /// As [`acquire`](Self::acquire), with a result that keeps the semaphore alive, and so may be
    /// kept and sent anywhere.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    ///
    /// # Panics
    /// As [`acquire`](Self::acquire).
    ///
    /// # Cancellation
    /// As [`acquire`](Self::acquire).
    pub fn acquire_owned(self: Arc<Self>) -> Result<OwnedSemaphorePermit, AcquireError> {
        self.acquire_many_owned(1)
    }

    /// As [`acquire_owned`](Self::acquire_owned), for several permits at once.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    ///
    /// # Panics
    /// As [`acquire`](Self::acquire).
    ///
    /// # Cancellation
    /// As [`acquire`](Self::acquire).
    pub fn acquire_many_owned(
        self: Arc<Self>,
        permits: usize,
    ) -> Result<OwnedSemaphorePermit, AcquireError> {
        self.take(permits, None)?;
        Ok(OwnedSemaphorePermit { semaphore: self, permits })
    }

    /// As [`try_acquire`](Self::try_acquire), with a result that keeps the semaphore alive.
    ///
    /// # Errors
    /// As [`try_acquire`](Self::try_acquire).
    pub fn try_acquire_owned(self: Arc<Self>) -> Result<OwnedSemaphorePermit, TryAcquireError> {
        self.try_acquire_many_owned(1)
    }

    /// As [`try_acquire_owned`](Self::try_acquire_owned), for several permits at once.
    ///
    /// # Errors
    /// As [`try_acquire`](Self::try_acquire).
    pub fn try_acquire_many_owned(
        self: Arc<Self>,
        permits: usize,
    ) -> Result<OwnedSemaphorePermit, TryAcquireError> {
        self.state.lock().try_take(permits)?;
        Ok(OwnedSemaphorePermit { semaphore: self, permits })
    }

    /// Lets nobody acquire a permit any more: those who wait get an error, as do those who come
    /// later. Permits that are in use may still be given back.
    pub fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let waiters = state.queue.claim_all();
        drop(state);
        waiters.wake();
    }

    /// Whether [`close`](Self::close) has been called.
    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    fn take(&self, permits: usize, timeout: Option<Duration>) -> Result<(), AcquireError> {
        let tried = self.state.lock().try_take(permits);
        match tried {
            Ok(()) => Ok(()),
            Err(TryAcquireError::Closed) => Err(AcquireError(Why::Closed)),
            Err(TryAcquireError::NoPermits) => self.wait(permits, timeout),
        }
    }

    #[cold]
    fn wait(&self, permits: usize, timeout: Option<Duration>) -> Result<(), AcquireError> {
        let deadline_ns = timeout.map(clock::deadline_ns);
        let need = Need { permits, granted: Cell::new(false) };
        let waiter = pin!(Waiter::new());
        let node = pin!(Node::new(waiter.as_ref(), 1, (&raw const need).cast_mut().cast()));
        let mut state = self.state.lock();
        match state.try_take(permits) {
            Ok(()) => return Ok(()),
            Err(TryAcquireError::Closed) => return Err(AcquireError(Why::Closed)),
            Err(TryAcquireError::NoPermits) => state.queue.push(node.as_ref()),
        }
        drop(state);
        if waiter.as_ref().wait(deadline_ns, OnCancel::End).is_some() {
            let granted = need.granted.get();
            return if granted { Ok(()) } else { Err(AcquireError(Why::Closed)) };
        }
        let mut state = self.state.lock();
        state.queue.remove(node.as_ref());
        // There may be enough for those who waited behind this one.
        let granted = state.grant();
        drop(state);
        granted.wake();
        if deadline_ns.is_some_and(|deadline_ns| clock::now_ns() >= deadline_ns) {
            return Err(AcquireError(Why::TimedOut));
        }
        block::report();
        Err(AcquireError(Why::Cancelled))
    }
}

impl fmt::Debug for Semaphore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (permits, closed) = {
            let state = self.state.lock();
            (state.permits, state.closed)
        };
        f.debug_struct("Semaphore")
            .field("permits", &permits)
            .field("closed", &closed)
            .finish_non_exhaustive()
    }
}

/// Permits of a [`Semaphore`], given back when this is dropped.
#[must_use = "the permits are given back when this is dropped"]
#[derive(Debug)]
pub struct SemaphorePermit<'a> {
    semaphore: &'a Semaphore,
    permits: usize,
}

/// As [`SemaphorePermit`], and keeps the semaphore alive.
#[must_use = "the permits are given back when this is dropped"]
#[derive(Debug)]
pub struct OwnedSemaphorePermit {
    semaphore: Arc<Semaphore>,
    permits: usize,
}

impl SemaphorePermit<'_> {
    /// Does not give the permits back: there are fewer from now on.
    pub fn forget(self) {
        mem::forget(self);
    }

    /// How many there are.
    pub fn num_permits(&self) -> usize {
        self.permits
    }
}

impl OwnedSemaphorePermit {
    /// Does not give the permits back: there are fewer from now on.
    pub fn forget(mut self) {
        self.permits = 0;
    }

    /// How many there are.
    pub fn num_permits(&self) -> usize {
        self.permits
    }

    /// Whose permits these are.
    pub fn semaphore(&self) -> &Arc<Semaphore> {
        &self.semaphore
    }
}

impl Drop for SemaphorePermit<'_> {
    fn drop(&mut self) {
        self.semaphore.add_permits(self.permits);
    }
}

impl Drop for OwnedSemaphorePermit {
    fn drop(&mut self) {
        self.semaphore.add_permits(self.permits);
    }
}

/// Why a [`Semaphore`] gave no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcquireError(Why);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Why {
    Closed,
    Cancelled,
    TimedOut,
}

impl AcquireError {
    /// Whether the semaphore is closed.
    pub fn is_closed(&self) -> bool {
        self.0 == Why::Closed
    }

    /// Whether the fiber was asked to end, or its runtime shut down.
    pub fn is_cancelled(&self) -> bool {
        self.0 == Why::Cancelled
    }

    /// Whether the time was up.
    pub fn is_timed_out(&self) -> bool {
        self.0 == Why::TimedOut
    }
}

impl fmt::Display for AcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Why::Closed => "the semaphore is closed",
            Why::Cancelled => "the fiber that waits for a permit was asked to end",
            Why::TimedOut => "no permit in time",
        })
    }
}

impl std::error::Error for AcquireError {}

/// A cancel request is one that [`is_cancelled`](crate::is_cancelled) recognises.
impl From<AcquireError> for io::Error {
    fn from(error: AcquireError) -> Self {
        match error.0 {
            Why::Closed => io::Error::other(error),
            Why::Cancelled => io::Error::from_raw_os_error(libc::ECANCELED),
            Why::TimedOut => io::Error::new(io::ErrorKind::TimedOut, error),
        }
    }
}

/// Why a [`Semaphore`] gave no permit at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryAcquireError {
    /// The semaphore is closed.
    Closed,
    /// There were too few, or others wait for them.
    NoPermits,
}

impl fmt::Display for TryAcquireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Closed => "the semaphore is closed",
            Self::NoPermits => "no permits are free",
        })
    }
}

impl std::error::Error for TryAcquireError {}
