//! [`Mutex`].

use super::poison::{Flag, Taken};
use super::raw::RawMutex;
use super::{LockResult, PoisonError, TryLockError, TryLockResult};
use crate::atomic::const_fn;
use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::panic::{RefUnwindSafe, UnwindSafe};

/// A value that one fiber or thread has at a time. As [`std::sync::Mutex`], and a fiber that has to
/// wait suspends.
///
/// Unlike with std's, the guard may be held while the fiber waits for something else: those who
/// want the lock suspend too. Uncontended, locking and unlocking are one atomic operation each.
/// Under contention a newcomer may overtake those who wait, but each of them a few times only.
///
/// # Poisoning
/// As in std: a panic while the guard is held poisons the mutex.
///
/// # While the thread unwinds
/// Nothing suspends while a thread unwinds, so a destructor that finds the mutex locked then blocks
/// the worker. If a suspended fiber of the same worker holds it, that could never end: the process
/// is aborted with a message. [`try_lock`](Self::try_lock) is safe to use there.
///
/// # Examples
/// ```
/// use ramie::sync::{Arc, Mutex};
///
/// ramie::Runtime::new()?.run(|| {
///     let sum = Arc::new(Mutex::new(0));
///     let fibers: Vec<_> = (0..10)
///         .map(|_| {
///             let sum = Arc::clone(&sum);
///             ramie::spawn(move || {
///                 let mut sum = sum.lock().unwrap();
///                 ramie::yield_now(); // others find it locked, and wait
///                 *sum += 1;
///             })
///         })
///         .collect();
///     for fiber in fibers {
///         fiber.join().unwrap();
///     }
///     assert_eq!(*sum.lock().unwrap(), 10);
/// });
/// # std::io::Result::Ok(())
/// ```
pub struct Mutex<T: ?Sized> {
    raw: RawMutex,
    poison: Flag,
    value: UnsafeCell<T>,
}

// SAFETY: the value goes with the mutex.
unsafe impl<T: ?Sized + Send> Send for Mutex<T> {}
// SAFETY: the value is reached by the holder of the lock alone.
unsafe impl<T: ?Sized + Send> Sync for Mutex<T> {}
impl<T: ?Sized> UnwindSafe for Mutex<T> {}
impl<T: ?Sized> RefUnwindSafe for Mutex<T> {}

impl<T> Mutex<T> {
    const_fn! {
        /// An unlocked mutex with `value` in it.
        #[inline]
        pub fn new(value: T) -> Self {
            Self { raw: RawMutex::new(), poison: Flag::new(), value: UnsafeCell::new(value) }
        }
    }

    /// The value.
    ///
    /// # Errors
    /// If the mutex is poisoned; the error has the value too.
    pub fn into_inner(self) -> LockResult<T> {
        let poisoned = self.poison.get();
        let value = self.value.into_inner();
        if poisoned { Err(PoisonError::new(value)) } else { Ok(value) }
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Waits until nobody else has the lock, and takes it.
    ///
    /// # Errors
    /// If the mutex is poisoned; the error has the guard too.
    ///
    /// # Panics
    /// Inside [`no_suspend`](crate::no_suspend), if it would have to wait.
    ///
    /// # Cancellation
    /// Cannot be cancelled.
    #[inline]
    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        self.raw.lock();
        self.poison.wrap(MutexGuard::new(self))
    }

    /// Takes the lock if nobody has it. Never waits.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] if somebody has the lock, [`TryLockError::Poisoned`], with the
    /// guard, if the mutex is poisoned.
    #[inline]
    pub fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        if !self.raw.try_lock() {
            return Err(TryLockError::WouldBlock);
        }
        Ok(self.poison.wrap(MutexGuard::new(self))?)
    }

    /// Whether a panic has poisoned the mutex.
    #[inline]
    pub fn is_poisoned(&self) -> bool {
        self.poison.get()
    }

    /// Says that the value is in order again.
    #[inline]
    pub fn clear_poison(&self) {
        self.poison.clear();
    }

    /// The value, without locking: nobody else can have the lock.
    ///
    /// # Errors
    /// If the mutex is poisoned; the error has the reference too.
    pub fn get_mut(&mut self) -> LockResult<&mut T> {
        let poisoned = self.poison.get();
        let value = self.value.get_mut();
        if poisoned { Err(PoisonError::new(value)) } else { Ok(value) }
    }
}

impl<T> From<T> for Mutex<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Mutex");
        match self.try_lock() {
            Ok(guard) => out.field("data", &&*guard),
            Err(TryLockError::Poisoned(error)) => out.field("data", &&**error.get_ref()),
            Err(TryLockError::WouldBlock) => out.field("data", &"<locked>"),
        };
        out.field("poisoned", &self.poison.get()).finish_non_exhaustive()
    }
}

/// The lock of a [`Mutex`], held until this is dropped.
#[must_use = "the mutex is unlocked when the guard is dropped"]
pub struct MutexGuard<'a, T: ?Sized> {
    mutex: &'a Mutex<T>,
    taken: Taken,
    /// Which worker the holder belongs to is known by the mutex, so the guard stays there.
    _not_send: PhantomData<*const ()>,
}

// SAFETY: a shared guard gives out shared references to the value only.
unsafe impl<T: ?Sized + Sync> Sync for MutexGuard<'_, T> {}
impl<T: ?Sized> UnwindSafe for MutexGuard<'_, T> {}
impl<T: ?Sized> RefUnwindSafe for MutexGuard<'_, T> {}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    /// The caller holds the lock.
    #[inline]
    fn new(mutex: &'a Mutex<T>) -> Self {
        Self { mutex, taken: Flag::taken(), _not_send: PhantomData }
    }

    /// Lets go of the lock, runs `f`, and takes the lock again.
    pub(super) fn unlocked<R>(&mut self, f: impl FnOnce() -> R) -> R {
        /// Locks again even if `f` panics: the guard will unlock.
        struct Again<'a>(&'a RawMutex);
        impl Drop for Again<'_> {
            fn drop(&mut self) {
                self.0.lock();
            }
        }
        self.mutex.raw.unlock();
        let _again = Again(&self.mutex.raw);
        f()
    }

    /// Whether the mutex is poisoned.
    pub(super) fn is_poisoned(&self) -> bool {
        self.mutex.poison.get()
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the lock is held.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the lock is held, and the guard is borrowed exclusively.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.mutex.poison.leave(self.taken);
        self.mutex.raw.unlock();
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
