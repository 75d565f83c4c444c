//! [`LazyLock`].

use super::OnceLock;
use crate::atomic::const_fn;
use std::cell::Cell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::{RefUnwindSafe, UnwindSafe};

/// A value that is computed when it is first used. As [`std::sync::LazyLock`]; what computes it may
/// suspend, and a fiber that waits for another one to be through with it suspends too.
///
/// If the computation panics, all later uses panic.
///
/// # Examples
/// ```
/// use ramie::sync::LazyLock;
///
/// static ANSWER: LazyLock<u32> = LazyLock::new(|| 6 * 7);
/// assert_eq!(*ANSWER, 42);
/// ```
pub struct LazyLock<T, F = fn() -> T> {
    value: OnceLock<T>,
    /// Taken when the computation begins.
    f: Cell<Option<F>>,
}

// SAFETY: `f` is used by the one who is inside `value`'s initialisation, which happens once, or
// with exclusive access. So it is never shared, but it may be called, or dropped, by another thread
// than the one that made it.
unsafe impl<T: Sync + Send, F: Send> Sync for LazyLock<T, F> {}
impl<T: RefUnwindSafe + UnwindSafe, F: UnwindSafe> RefUnwindSafe for LazyLock<T, F> {}
impl<T: UnwindSafe, F: UnwindSafe> UnwindSafe for LazyLock<T, F> {}

impl<T, F: FnOnce() -> T> LazyLock<T, F> {
    const_fn! {
        /// A value that `f` is to compute.
        #[inline]
        pub fn new(f: F) -> Self {
            Self { value: OnceLock::new(), f: Cell::new(Some(f)) }
        }
    }

    /// Computes the value if that has not been done, and returns it. The same as dereferencing.
    ///
    /// # Panics
    /// If the computation panics, or has panicked. Inside [`no_suspend`](crate::no_suspend), if it
    /// would have to wait.
    ///
    /// # Cancellation
    /// Cannot be cancelled.
    #[inline]
    pub fn force(this: &Self) -> &T {
        this.value.get_or_init(|| match this.f.take() {
            Some(f) => f(),
            None => poisoned(),
        })
    }

    /// As [`force`](Self::force), for whoever has the lock to himself: the value may be changed.
    ///
    /// # Panics
    /// If the computation panics, or has panicked.
    ///
    /// # Examples
    /// ```
    /// use ramie::sync::LazyLock;
    ///
    /// let mut lazy = LazyLock::new(|| 92);
    /// *LazyLock::force_mut(&mut lazy) = 44;
    /// assert_eq!(*lazy, 44);
    /// ```
    #[inline]
    pub fn force_mut(this: &mut Self) -> &mut T {
        if this.value.get_mut().is_none() {
            Self::force(this);
        }
        this.value.get_mut().expect("it has just been computed")
    }
}

impl<T, F> LazyLock<T, F> {
    /// The value, if it has been computed. Never waits.
    ///
    /// # Examples
    /// ```
    /// use ramie::sync::LazyLock;
    ///
    /// let lazy = LazyLock::new(|| 92);
    /// assert_eq!(LazyLock::get(&lazy), None);
    /// let _ = LazyLock::force(&lazy);
    /// assert_eq!(LazyLock::get(&lazy), Some(&92));
    /// ```
    #[inline]
    pub fn get(this: &Self) -> Option<&T> {
        this.value.get()
    }

    /// The value, to be changed, if it has been computed.
    ///
    /// # Examples
    /// ```
    /// use ramie::sync::LazyLock;
    ///
    /// let mut lazy = LazyLock::new(|| 92);
    /// assert_eq!(LazyLock::get_mut(&mut lazy), None);
    /// let _ = LazyLock::force(&lazy);
    /// *LazyLock::get_mut(&mut lazy).unwrap() = 44;
    /// assert_eq!(*lazy, 44);
    /// ```
    #[inline]
    pub fn get_mut(this: &mut Self) -> Option<&mut T> {
        this.value.get_mut()
    }
}

#[cold]
fn poisoned() -> ! {
    panic!("the computation of this `LazyLock` has panicked before")
}

impl<T, F: FnOnce() -> T> Deref for LazyLock<T, F> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        Self::force(self)
    }
}

impl<T, F: FnOnce() -> T> DerefMut for LazyLock<T, F> {
    /// # Panics
    /// As [`force_mut`](LazyLock::force_mut).
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        Self::force_mut(self)
    }
}

impl<T: Default> Default for LazyLock<T> {
    fn default() -> Self {
        Self::new(T::default)
    }
}

impl<T: fmt::Debug, F> fmt::Debug for LazyLock<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_tuple("LazyLock");
        match self.value.get() {
            Some(value) => out.field(value),
            None => out.field(&format_args!("<uninit>")),
        };
        out.finish()
    }
}
