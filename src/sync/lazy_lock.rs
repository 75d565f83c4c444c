//! [`LazyLock`].

use super::OnceLock;
use crate::atomic::const_fn;
use std::cell::Cell;
use std::fmt;
use std::ops::Deref;
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
