//! [`RwLock`].

use super::poison::{Flag, Taken};
use super::raw_rw::RawRwLock;
use super::{LockResult, PoisonError, TryLockError, TryLockResult};
use crate::atomic::const_fn;
use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::ops::{Deref, DerefMut};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr::NonNull;

/// A value that many read at a time, or one writes. As [`std::sync::RwLock`], and a fiber that has
/// to wait suspends.
///
/// The guards may be held while the fiber waits for something else. Who waits is served in the
/// order of arrival: a reader that comes after a waiting writer waits for it. So one that reads
/// already and locks again may wait for ever, as with std's.
///
/// # Poisoning
/// As in std: a panic while the lock is held for writing poisons it.
///
/// # While the thread unwinds
/// Nothing suspends while a thread unwinds, so a destructor that has to wait for the lock blocks
/// the worker: for ever, if a fiber of the same worker holds it. Use [`try_read`](Self::try_read)
/// and [`try_write`](Self::try_write) in destructors.
///
/// # Examples
/// ```
/// use ramie::sync::RwLock;
///
/// let lock = RwLock::new(5);
/// {
///     let one = lock.read().unwrap();
///     let two = lock.read().unwrap();
///     assert_eq!(*one + *two, 10);
/// }
/// *lock.write().unwrap() += 1;
/// assert_eq!(*lock.read().unwrap(), 6);
/// ```
pub struct RwLock<T: ?Sized> {
    raw: RawRwLock,
    poison: Flag,
    value: UnsafeCell<T>,
}

// SAFETY: the value goes with the lock.
unsafe impl<T: ?Sized + Send> Send for RwLock<T> {}
// SAFETY: readers share the value, and one writer at a time reaches it alone.
unsafe impl<T: ?Sized + Send + Sync> Sync for RwLock<T> {}
impl<T: ?Sized> UnwindSafe for RwLock<T> {}
impl<T: ?Sized> RefUnwindSafe for RwLock<T> {}

impl<T> RwLock<T> {
    const_fn! {
        /// An unlocked lock with `value` in it.
        #[inline]
        pub fn new(value: T) -> Self {
            Self { raw: RawRwLock::new(), poison: Flag::new(), value: UnsafeCell::new(value) }
        }
    }

    /// The value.
    ///
    /// # Errors
    /// If the lock is poisoned; the error has the value too.
    pub fn into_inner(self) -> LockResult<T> {
        let poisoned = self.poison.get();
        let value = self.value.into_inner();
        if poisoned { Err(PoisonError::new(value)) } else { Ok(value) }
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Waits until nobody writes and nobody waits to, and locks for reading.
    ///
    /// # Errors
    /// If the lock is poisoned; the error has the guard too.
    ///
    /// # Panics
    /// Inside [`no_suspend`](crate::no_suspend), if it would have to wait.
    ///
    /// # Cancellation
    /// Cannot be cancelled.
    #[inline]
    pub fn read(&self) -> LockResult<RwLockReadGuard<'_, T>> {
        self.raw.read();
        self.poison.wrap(RwLockReadGuard::new(self))
    }

    /// Locks for reading if that needs no wait.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] if somebody writes or waits to, [`TryLockError::Poisoned`],
    /// with the guard, if the lock is poisoned.
    #[inline]
    pub fn try_read(&self) -> TryLockResult<RwLockReadGuard<'_, T>> {
        if !self.raw.try_read() {
            return Err(TryLockError::WouldBlock);
        }
        Ok(self.poison.wrap(RwLockReadGuard::new(self))?)
    }

    /// Waits until nobody else has the lock, and locks for writing.
    ///
    /// # Errors
    /// If the lock is poisoned; the error has the guard too.
    ///
    /// # Panics
    /// Inside [`no_suspend`](crate::no_suspend), if it would have to wait.
    ///
    /// # Cancellation
    /// Cannot be cancelled.
    #[inline]
    pub fn write(&self) -> LockResult<RwLockWriteGuard<'_, T>> {
        self.raw.write();
        self.poison.wrap(RwLockWriteGuard::new(self))
    }

    /// Locks for writing if nobody has the lock.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] if somebody has the lock or waits for it,
    /// [`TryLockError::Poisoned`], with the guard, if the lock is poisoned.
    #[inline]
    pub fn try_write(&self) -> TryLockResult<RwLockWriteGuard<'_, T>> {
        if !self.raw.try_write() {
            return Err(TryLockError::WouldBlock);
        }
        Ok(self.poison.wrap(RwLockWriteGuard::new(self))?)
    }

    /// Whether a panic has poisoned the lock.
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
    /// If the lock is poisoned; the error has the reference too.
    pub fn get_mut(&mut self) -> LockResult<&mut T> {
        let poisoned = self.poison.get();
        let value = self.value.get_mut();
        if poisoned { Err(PoisonError::new(value)) } else { Ok(value) }
    }
}

impl<T> From<T> for RwLock<T> {
    fn from(value: T) -> Self {
        Self::new(value)
    }
}

impl<T: Default> Default for RwLock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for RwLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("RwLock");
        match self.try_read() {
            Ok(guard) => out.field("data", &&*guard),
            Err(TryLockError::Poisoned(error)) => out.field("data", &&**error.get_ref()),
            Err(TryLockError::WouldBlock) => out.field("data", &format_args!("<locked>")),
        };
        out.field("poisoned", &self.poison.get()).finish_non_exhaustive()
    }
}

/// The right to read what is in a [`RwLock`], until this is dropped.
#[must_use = "the lock is unlocked when the guard is dropped"]
pub struct RwLockReadGuard<'a, T: ?Sized> {
    /// The value: a pointer, since the lock may be gone while this is still an argument of the
    /// function that drops it.
    value: NonNull<T>,
    raw: &'a RawRwLock,
    _not_send: PhantomData<*const ()>,
}

// SAFETY: a shared guard gives out shared references to the value only.
unsafe impl<T: ?Sized + Sync> Sync for RwLockReadGuard<'_, T> {}
impl<T: ?Sized> UnwindSafe for RwLockReadGuard<'_, T> {}
impl<T: ?Sized> RefUnwindSafe for RwLockReadGuard<'_, T> {}

impl<'a, T: ?Sized> RwLockReadGuard<'a, T> {
    /// The caller has locked for reading.
    #[inline]
    fn new(lock: &'a RwLock<T>) -> Self {
        // SAFETY: the address of a value is not null.
        let value = unsafe { NonNull::new_unchecked(lock.value.get()) };
        Self { value, raw: &lock.raw, _not_send: PhantomData }
    }
}

impl<T: ?Sized> Deref for RwLockReadGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: locked for reading.
        unsafe { self.value.as_ref() }
    }
}

impl<T: ?Sized> Drop for RwLockReadGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.raw.unlock_read();
    }
}

/// The right to write what is in a [`RwLock`], until this is dropped.
#[must_use = "the lock is unlocked when the guard is dropped"]
pub struct RwLockWriteGuard<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
    taken: Taken,
    _not_send: PhantomData<*const ()>,
}

// SAFETY: a shared guard gives out shared references to the value only.
unsafe impl<T: ?Sized + Sync> Sync for RwLockWriteGuard<'_, T> {}
impl<T: ?Sized> UnwindSafe for RwLockWriteGuard<'_, T> {}
impl<T: ?Sized> RefUnwindSafe for RwLockWriteGuard<'_, T> {}

impl<'a, T: ?Sized> RwLockWriteGuard<'a, T> {
    /// The caller has locked for writing.
    #[inline]
    fn new(lock: &'a RwLock<T>) -> Self {
        Self { lock, taken: Flag::taken(), _not_send: PhantomData }
    }

    /// Makes it a right to read, with no writer in between.
    pub fn downgrade(self) -> RwLockReadGuard<'a, T> {
        let lock = self.lock;
        lock.poison.leave(self.taken);
        mem::forget(self);
        lock.raw.downgrade();
        RwLockReadGuard::new(lock)
    }
}

impl<T: ?Sized> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: locked for writing.
        unsafe { &*self.lock.value.get() }
    }
}

impl<T: ?Sized> DerefMut for RwLockWriteGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: locked for writing, and the guard is borrowed exclusively.
        unsafe { &mut *self.lock.value.get() }
    }
}

impl<T: ?Sized> Drop for RwLockWriteGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.poison.leave(self.taken);
        self.lock.raw.unlock_write();
    }
}

macro_rules! shown_as_its_value {
    ($($guard:ident)*) => {$(
        impl<T: ?Sized + fmt::Debug> fmt::Debug for $guard<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                (**self).fmt(f)
            }
        }

        impl<T: ?Sized + fmt::Display> fmt::Display for $guard<'_, T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                (**self).fmt(f)
            }
        }
    )*};
}
shown_as_its_value!(RwLockReadGuard RwLockWriteGuard);
