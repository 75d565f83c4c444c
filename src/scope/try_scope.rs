//! A scope that ends with the first failure.
#![forbid(unsafe_code)]

use super::members::{Birth, Members};
use super::{Owner, Scope, ScopedJoinHandle, wait_for};
use crate::fiber::Fiber;
use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A scope whose fibers may fail, and then all are asked to end. See [`try_scope`].
pub struct TryScope<'scope, 'env: 'scope, E> {
    scope: Scope<'scope, 'env>,
    members: Members,
    failure: Mutex<Failure<E>>,
}

/// What has gone wrong so far.
struct Failure<E> {
    /// Anything has.
    failed: bool,
    /// The first failure, if it is an error that no join handle has taken.
    error: Option<E>,
    /// The first panic that no join handle has taken.
    panic: Option<Panic>,
}

type Panic = Box<dyn Any + Send>;

/// How a child has failed, as its join handle finds it.
enum Failed<E> {
    Error(E),
    Panic(Panic),
    /// The scope has its error, respectively panic.
    ErrorInScope,
    PanicInScope,
}

/// As [`scope`](crate::scope()), for fibers that may fail: the first that returns an error, or
/// panics, has all others asked to end.
///
/// All children have ended when this returns. It returns what `f` does, unless a child has failed
/// and nobody has [joined](TryScopedJoinHandle::join) it: then it returns the first such error.
/// What the others return because of the request is dropped.
///
/// The request is that of [`JoinHandle::cancel`](crate::JoinHandle::cancel): nothing is unwound,
/// and a child that does no more I/O goes on to its end (it may ask
/// [`is_cancelled`](TryScope::is_cancelled)). Children that have not started yet start all the
/// same, and find the request at their first wait. `f` itself is not asked to end: what takes long
/// belongs in a child.
///
/// # Errors
/// The first error of `f` or a child. An error that a join handle has returned is the business of
/// who called it.
///
/// # Panics
/// With the panic of `f`, or else with the first panic of a child that nobody has joined. Panics
/// are not lost for an error that came first.
///
/// # Cancellation
/// A request to the calling fiber that comes while it waits for the children at the end is passed
/// on to them.
///
/// # Examples
/// ```
/// use std::io::{self, Read};
/// use std::os::fd::OwnedFd;
///
/// ramie::Runtime::new()?.run(|| {
///     let lines = ramie::try_scope(|s| {
///         let one = s.spawn(|| ramie::fs::read_to_string("Cargo.toml"));
///         let other = s.spawn(|| ramie::fs::read_to_string("README.md"));
///         Ok((one.join()?.lines().count(), other.join()?.lines().count()))
///     })?;
///     assert!(lines.0 > 1 && lines.1 > 1);
///
///     let (reader, _writer) = io::pipe()?;
///     let mut endless = ramie::fs::File::from(OwnedFd::from(reader));
///     let result = ramie::try_scope(|s| {
///         s.spawn(|| endless.read(&mut [0])); // nobody writes: ends because it is asked to
///         s.spawn(|| Err::<(), _>(io::Error::other("the reason")));
///         Ok(())
///     });
///     assert_eq!(result.unwrap_err().to_string(), "the reason");
///     io::Result::Ok(())
/// })?;
/// # io::Result::Ok(())
/// ```
#[track_caller]
pub fn try_scope<'env, F, T, E>(f: F) -> Result<T, E>
where
    F: for<'scope> FnOnce(&'scope TryScope<'scope, 'env, E>) -> Result<T, E>,
{
    let scope = TryScope {
        scope: Scope::new(),
        members: Members::default(),
        failure: Mutex::new(Failure { failed: false, error: None, panic: None }),
    };
    let result = catch_unwind(AssertUnwindSafe(|| f(&scope)));
    if !matches!(result, Ok(Ok(_))) {
        scope.lock().failed = true;
        scope.cancel();
    }
    wait_for(&scope.scope.children, Some(&scope.members));
    let broken = scope.scope.children.any_panicked();
    let (panic, error) = {
        let mut failure = scope.lock();
        (failure.panic.take(), failure.error.take())
    };
    match (result, panic, error) {
        (Err(panic), ..) | (_, Some(panic), _) => resume_unwind(panic),
        _ if broken => panic!("a scoped fiber panicked"),
        (_, None, Some(error)) => Err(error),
        (Ok(result), None, None) => result,
    }
}

impl<'scope, E> TryScope<'scope, '_, E> {
    fn lock(&self) -> MutexGuard<'_, Failure<E>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Spawns a fiber in the scope, as [`Scope::spawn`] does.
    ///
    /// # Panics
    /// As [`Scope::spawn`].
    #[track_caller]
    pub fn spawn<F, T>(&'scope self, f: F) -> TryScopedJoinHandle<'scope, T, E>
    where
        F: FnOnce() -> Result<T, E> + Send + 'scope,
        T: Send + 'scope,
        E: Send + 'scope,
    {
        let fiber = self.scope.spawn(move || self.run(f));
        TryScopedJoinHandle { fiber, failure: &self.failure }
    }

    /// As [`spawn`](Self::spawn), but the fiber starts on the calling worker, where it stays. The
    /// error has to be [`Send`] nevertheless: the scope may be another worker's.
    ///
    /// # Panics
    /// As [`Scope::spawn`].
    #[track_caller]
    pub fn spawn_local<F, T>(&'scope self, f: F) -> TryScopedJoinHandle<'scope, T, E>
    where
        F: FnOnce() -> Result<T, E> + 'scope,
        T: 'scope,
        E: Send + 'scope,
    {
        let fiber = self.scope.spawn_local(move || self.run(f));
        TryScopedJoinHandle { fiber, failure: &self.failure }
    }

    /// Asks all children that have not ended to end, those too that are spawned later.
    pub fn cancel(&self) {
        self.members.cancel_all();
    }

    /// Whether the children have been asked to end, because of a failure or by
    /// [`cancel`](Self::cancel). For children that compute for long.
    pub fn is_cancelled(&self) -> bool {
        self.members.cancelled_since(Birth::default())
    }

    pub(super) fn has_failed(&self) -> bool {
        self.lock().failed
    }

    /// A child's life.
    fn run<F, T>(&self, f: F) -> Result<T, Failed<E>>
    where
        F: FnOnce() -> Result<T, E>,
    {
        // Where children run on their parent's fiber, nobody but the parent could be asked.
        let registers = self.scope.owner == Owner::Suspends;
        let member = registers.then(|| self.members.enter(Birth::default()));
        let result = catch_unwind(AssertUnwindSafe(f));
        drop(member);
        let failed = match result {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => self.failed_with(error),
            Err(panic) => self.panicked_with(panic),
        };
        self.cancel();
        Err(failed)
    }

    fn failed_with(&self, error: E) -> Failed<E> {
        let mut failure = self.lock();
        if std::mem::replace(&mut failure.failed, true) {
            return Failed::Error(error);
        }
        failure.error = Some(error);
        Failed::ErrorInScope
    }

    fn panicked_with(&self, panic: Panic) -> Failed<E> {
        let mut failure = self.lock();
        failure.failed = true;
        if failure.panic.is_some() {
            return Failed::Panic(panic);
        }
        failure.panic = Some(panic);
        Failed::PanicInScope
    }
}

impl<E> fmt::Debug for TryScope<'_, '_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TryScope")
            .field("scope", &self.scope)
            .field("is_cancelled", &self.is_cancelled())
            .finish_non_exhaustive()
    }
}

/// An owned permission to join on a fiber of a [`try_scope`].
///
/// Dropping it is fine: the scope waits for the fiber in any case, and looks after its error.
pub struct TryScopedJoinHandle<'scope, T, E> {
    fiber: ScopedJoinHandle<'scope, Result<T, Failed<E>>>,
    failure: &'scope Mutex<Failure<E>>,
}

impl<T, E> TryScopedJoinHandle<'_, T, E> {
    /// Waits for the fiber to end and returns what its closure returned.
    ///
    /// # Errors
    /// What the closure returned. The error is the caller's then: `try_scope` does not return it by
    /// itself, only an earlier one that nobody has joined.
    ///
    /// # Panics
    /// If the fiber panicked, the panic goes on in the caller.
    ///
    /// # Cancellation
    /// Cannot be cancelled.
    pub fn join(self) -> Result<T, E> {
        let failed = match self.fiber.join() {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(failed)) => failed,
            // Of a fiber-local value, when the closure had returned.
            Err(panic) => resume_unwind(panic),
        };
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let error = failure.error.take_if(|_| matches!(failed, Failed::ErrorInScope));
        let panic = failure.panic.take_if(|_| matches!(failed, Failed::PanicInScope));
        drop(failure);
        match (failed, error, panic) {
            (Failed::Error(error), ..) | (_, Some(error), _) => Err(error),
            (Failed::Panic(panic), ..) | (_, _, Some(panic)) => resume_unwind(panic),
            _ => unreachable!("a failure is in the scope until its one handle takes it"),
        }
    }

    /// Whether the fiber has ended, so that `join` would not wait.
    pub fn is_finished(&self) -> bool {
        self.fiber.is_finished()
    }

    /// The fiber, to name it or to unpark it.
    pub fn fiber(&self) -> &Fiber {
        self.fiber.fiber()
    }

    /// Asks this fiber to end early, as [`JoinHandle::cancel`](crate::JoinHandle::cancel). Should
    /// it fail because of that, the others are asked too.
    pub fn cancel(&self) {
        self.fiber.cancel();
    }
}

impl<T, E> fmt::Debug for TryScopedJoinHandle<'_, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TryScopedJoinHandle").field("fiber", self.fiber()).finish_non_exhaustive()
    }
}
