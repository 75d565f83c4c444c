//! [`OnceLock`].

use super::Once;
use crate::atomic::const_fn;
use std::cell::UnsafeCell;
use std::fmt;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::panic::{RefUnwindSafe, UnwindSafe};

/// A value that is set once. As [`std::sync::OnceLock`]; what computes it may suspend, and a fiber
/// that waits for another one to be through with it suspends too.
///
/// # Examples
/// ```
/// use ramie::sync::OnceLock;
///
/// static CONFIG: OnceLock<String> = OnceLock::new();
///
/// ramie::Runtime::new()?.run(|| {
///     let load = || ramie::fs::read_to_string("Cargo.toml").unwrap();
///     let fiber = ramie::spawn(move || CONFIG.get_or_init(load).len());
///     assert_eq!(CONFIG.get_or_init(load).len(), fiber.join().unwrap()); // read once
/// });
/// # std::io::Result::Ok(())
/// ```
pub struct OnceLock<T> {
    once: Once,
    /// Initialised when `once` is completed.
    value: UnsafeCell<MaybeUninit<T>>,
    _owns: PhantomData<T>,
}

// SAFETY: the value goes with the cell.
unsafe impl<T: Send> Send for OnceLock<T> {}
// SAFETY: it is shared once it is set, and may be set by one thread and dropped by another.
unsafe impl<T: Sync + Send> Sync for OnceLock<T> {}
impl<T: RefUnwindSafe + UnwindSafe> RefUnwindSafe for OnceLock<T> {}
impl<T: UnwindSafe> UnwindSafe for OnceLock<T> {}

impl<T> OnceLock<T> {
    const_fn! {
        /// A cell without a value.
        #[inline]
        pub fn new() -> Self {
            Self {
                once: Once::new(),
                value: UnsafeCell::new(MaybeUninit::uninit()),
                _owns: PhantomData,
            }
        }
    }

    /// The value, if it is set. Never waits.
    #[inline]
    pub fn get(&self) -> Option<&T> {
        if self.once.is_completed() {
            // SAFETY: completed, so initialised, and not changed any more while it is borrowed.
            Some(unsafe { (*self.value.get()).assume_init_ref() })
        } else {
            None
        }
    }

    /// The value, if it is set.
    #[inline]
    pub fn get_mut(&mut self) -> Option<&mut T> {
        if self.once.is_completed_mut() {
            // SAFETY: completed, so initialised.
            Some(unsafe { self.value.get_mut().assume_init_mut() })
        } else {
            None
        }
    }

    /// Waits until the value is set.
    ///
    /// # Panics
    /// Inside [`no_suspend`](crate::no_suspend), if it would have to wait.
    ///
    /// # Cancellation
    /// Cannot be cancelled.
    #[inline]
    pub fn wait(&self) -> &T {
        self.once.wait_force();
        self.get().expect("waited until it is set")
    }

    /// Sets the value. If another fiber or thread is just computing one, waits for that.
    ///
    /// # Errors
    /// Gives `value` back if there is one already.
    #[inline]
    pub fn set(&self, value: T) -> Result<(), T> {
        let mut value = Some(value);
        self.get_or_init(|| value.take().expect("called once"));
        value.map_or(Ok(()), Err)
    }

    /// The value; if there is none, that which `f` returns. Only one call's `f` runs at a time; the
    /// others wait for it.
    ///
    /// # Panics
    /// If `f` panics; then there is still no value. Inside [`no_suspend`](crate::no_suspend), if it
    /// would have to wait.
    ///
    /// # Cancellation
    /// Cannot be cancelled.
    #[inline]
    pub fn get_or_init<F>(&self, f: F) -> &T
    where
        F: FnOnce() -> T,
    {
        if let Some(value) = self.get() {
            return value;
        }
        self.once.call_once_force(|_| {
            let value = f();
            // SAFETY: nobody reads the value before the `Once` is completed, and nobody else is
            // inside it.
            unsafe { (*self.value.get()).write(value) };
        });
        self.get().expect("just set")
    }

    /// The value, if it was set.
    #[inline]
    pub fn into_inner(mut self) -> Option<T> {
        self.take()
    }

    /// Takes the value out; the cell is as new.
    #[inline]
    pub fn take(&mut self) -> Option<T> {
        if !self.once.is_completed_mut() {
            return None;
        }
        self.once = Once::new();
        // SAFETY: it was completed, so initialised; and is not any more, so it is read once.
        Some(unsafe { self.value.get_mut().assume_init_read() })
    }
}

impl<T> Drop for OnceLock<T> {
    fn drop(&mut self) {
        drop(self.take());
    }
}

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: fmt::Debug> fmt::Debug for OnceLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_tuple("OnceLock");
        match self.get() {
            Some(value) => out.field(value),
            None => out.field(&format_args!("<uninit>")),
        };
        out.finish()
    }
}

impl<T: Clone> Clone for OnceLock<T> {
    fn clone(&self) -> Self {
        self.get().map_or_else(Self::new, |value| Self::from(value.clone()))
    }
}

impl<T> From<T> for OnceLock<T> {
    fn from(value: T) -> Self {
        let cell = Self::new();
        _ = cell.set(value);
        cell
    }
}

impl<T: PartialEq> PartialEq for OnceLock<T> {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl<T: Eq> Eq for OnceLock<T> {}
