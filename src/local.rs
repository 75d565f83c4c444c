//! Values of which every fiber has its own: what `thread_local!` is for threads.

use crate::coro::local::{Found, Locals, destroy_all};
use crate::sched::current;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::fmt;
use std::mem::ManuallyDrop;
use std::sync::atomic::AtomicU8;

/// Declares values of which every fiber has its own. On a plain thread, the thread has its own.
///
/// A value is made when its fiber uses it for the first time, and dropped when the fiber ends.
/// Because a started fiber stays on its thread, values need not be `Send`.
///
/// # Examples
/// ```
/// use std::cell::Cell;
///
/// ramie::fiber_local! {
///     static DEPTH: Cell<u32> = Cell::new(0);
///     static NAME: String = String::from("nobody");
/// }
///
/// ramie::Runtime::new()?.run(|| {
///     DEPTH.set(7);
///     let theirs = ramie::spawn_local(|| DEPTH.get()).join().unwrap();
///     assert_eq!((DEPTH.get(), theirs), (7, 0));
///     NAME.with(|name| assert_eq!(name, "nobody"));
/// });
/// # std::io::Result::Ok(())
/// ```
#[macro_export]
macro_rules! fiber_local {
    () => {};
    ($(#[$attr:meta])* $vis:vis static $name:ident: $t:ty = const $init:block
        $(; $($rest:tt)*)?) => {
        $(#[$attr])*
        $vis static $name: $crate::LocalKey<$t> = $crate::LocalKey::__new(|| const $init);
        $($crate::fiber_local!($($rest)*);)?
    };
    ($(#[$attr:meta])* $vis:vis static $name:ident: $t:ty = $init:expr $(; $($rest:tt)*)?) => {
        $(#[$attr])*
        $vis static $name: $crate::LocalKey<$t> = $crate::LocalKey::__new(|| $init);
        $($crate::fiber_local!($($rest)*);)?
    };
}

/// A key declared by [`fiber_local!`]. As [`std::thread::LocalKey`].
pub struct LocalKey<T: 'static> {
    init: fn() -> T,
    // Values are found by the key's address and nothing else, so two keys must never have the same.
    // Statics have their own; but a reference to a constant is one to a static that the compiler
    // makes, and may share with another constant of the same bytes. A field that may change rules
    // that out.
    _own_address: AtomicU8,
}

/// The value has been destroyed already: its fiber is ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct AccessError;

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the fiber-local value has been destroyed already")
    }
}

impl std::error::Error for AccessError {}

/// Destroys a plain thread's values when the thread ends.
struct AtThreadEnd;

impl Drop for AtThreadEnd {
    fn drop(&mut self) {
        THREAD.with(|locals| {
            // SAFETY: the table is ours; operations on it do not overlap (see `table`).
            unsafe { destroy_all(locals.get()) };
            // SAFETY: as above. The empty table is replaced by one that owns no memory.
            drop(unsafe { locals.get().replace(Locals::new()) });
        });
    }
}

thread_local! {
    // Never dropped itself, so that the destructors of its values, and whatever else runs at the
    // thread's end, can still look things up.
    static THREAD: ManuallyDrop<UnsafeCell<Locals>> =
        const { ManuallyDrop::new(UnsafeCell::new(Locals::new())) };
    static AT_THREAD_END: AtThreadEnd = const { AtThreadEnd };
}

/// The calling fiber's or thread's table. Every use of it is one operation that runs no foreign
/// code, so that uses never overlap.
fn table() -> *mut Locals {
    match current::fiber() {
        Some((_, fiber)) => fiber.header().locals(),
        None => THREAD.with(|locals| locals.get()),
    }
}

/// Whether a value that is made now will be dropped; it would not after the thread's other values.
fn will_be_dropped() -> bool {
    // Asking is what makes the thread call it at its end.
    current::fiber().is_some() || AT_THREAD_END.try_with(|_| ()).is_ok()
}

impl<T: 'static> LocalKey<T> {
    #[doc(hidden)]
    pub const fn __new(init: fn() -> T) -> Self {
        Self { init, _own_address: AtomicU8::new(0) }
    }

    /// The key's own for ever, and so for values of this type: the memory is `'static`, the key is
    /// not empty, and no other key shares it (see `LocalKey`).
    fn key(&'static self) -> usize {
        (self as *const Self).addr()
    }

    /// Passes a reference to the calling fiber's value to `f`, making the value first if need be.
    ///
    /// The reference must not leave `f`, but `f` may suspend.
    ///
    /// # Panics
    /// In a destructor that runs after the value's own.
    pub fn with<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        self.try_with(f).expect("cannot access a fiber-local value during or after its destruction")
    }

    /// As [`with`](Self::with).
    ///
    /// # Errors
    /// In a destructor that runs after the value's own.
    pub fn try_with<R>(&'static self, f: impl FnOnce(&T) -> R) -> Result<R, AccessError> {
        let table = table();
        // SAFETY: the calling fiber's own table, for one operation.
        let value = match unsafe { (*table).find::<T>(self.key()) } {
            Found::Value(value) => value,
            Found::Destroyed => return Err(AccessError),
            Found::Missing if !will_be_dropped() => return Err(AccessError),
            Found::Missing => {
                // May come back to this table, even to this key.
                let value = (self.init)();
                // SAFETY: as above.
                let inserted = unsafe { (*table).insert(self.key(), value) };
                match inserted {
                    Ok(value) => value,
                    // The initialiser made the value itself; that one stays.
                    Err(second) => {
                        drop(second);
                        return self.try_with(f);
                    }
                }
            }
        };
        // SAFETY: it is a `T`, since only this key has this address (see `key`). Values do not
        // move, and are dropped only when their fiber has left its closure (or, in a destructor, by
        // `destroy_all`, which takes the value out of the table first). `destroy_all` runs at the
        // base of the fiber, or of the thread, hence never below `f`.
        Ok(f(unsafe { value.as_ref() }))
    }
}

impl<T: 'static> LocalKey<Cell<T>> {
    /// Sets the value.
    pub fn set(&'static self, value: T) {
        self.with(|cell| cell.set(value));
    }

    /// A copy of the value.
    pub fn get(&'static self) -> T
    where
        T: Copy,
    {
        self.with(Cell::get)
    }

    /// Takes the value, leaving the default.
    pub fn take(&'static self) -> T
    where
        T: Default,
    {
        self.with(Cell::take)
    }

    /// Replaces the value, and returns the old one.
    pub fn replace(&'static self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}

impl<T: 'static> LocalKey<RefCell<T>> {
    /// Passes a shared borrow to `f`.
    ///
    /// # Panics
    /// If the value is mutably borrowed.
    pub fn with_borrow<R>(&'static self, f: impl FnOnce(&T) -> R) -> R {
        self.with(|cell| f(&cell.borrow()))
    }

    /// Passes a mutable borrow to `f`.
    ///
    /// # Panics
    /// If the value is borrowed.
    pub fn with_borrow_mut<R>(&'static self, f: impl FnOnce(&mut T) -> R) -> R {
        self.with(|cell| f(&mut cell.borrow_mut()))
    }

    /// Sets the value.
    ///
    /// # Panics
    /// If the value is borrowed.
    pub fn set(&'static self, value: T) {
        self.with(|cell| *cell.borrow_mut() = value);
    }

    /// Takes the value, leaving the default.
    ///
    /// # Panics
    /// If the value is borrowed.
    pub fn take(&'static self) -> T
    where
        T: Default,
    {
        self.with(RefCell::take)
    }

    /// Replaces the value, and returns the old one.
    ///
    /// # Panics
    /// If the value is borrowed.
    pub fn replace(&'static self, value: T) -> T {
        self.with(|cell| cell.replace(value))
    }
}

impl<T: 'static> fmt::Debug for LocalKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalKey").finish_non_exhaustive()
    }
}
