//! Values of which every fiber has its own: what `thread_local!` is for threads.

use crate::coro::FiberPtr;
use crate::coro::local::{CopyFn, Found, Locals, destroy_all};
use crate::sched::current;
use std::any::Any;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

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
///
/// A value that is marked `#[inherit]` is passed on: a new fiber starts with a clone of what its
/// spawner's fiber (or thread) has at that moment, if that has a value; else it makes its own. The
/// type has to be [`Clone`] and [`Send`]. A panic in `clone` goes on in the caller of `spawn`.
/// ```
/// use std::cell::RefCell;
///
/// ramie::fiber_local! {
///     /// Who asked for what is being done.
///     #[inherit]
///     static USER: RefCell<String> = RefCell::new("nobody".into());
/// }
///
/// ramie::Runtime::new()?.run(|| {
///     USER.set("ada".into());
///     let fiber = ramie::spawn(|| USER.with_borrow(|user| assert_eq!(user, "ada")));
///     USER.set("grace".into());
///     fiber.join().unwrap();
/// });
/// # std::io::Result::Ok(())
/// ```
/// What is not `Send` or not `Clone` cannot be inherited:
/// ```compile_fail
/// ramie::fiber_local! {
///     #[inherit]
///     static SHARED: std::rc::Rc<u32> = std::rc::Rc::new(1);
/// }
/// ```
/// ```compile_fail
/// ramie::fiber_local! {
///     #[inherit]
///     static FLAG: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(true);
/// }
/// ```
#[macro_export]
macro_rules! fiber_local {
    () => {};
    // One static, whose attributes are looked through for `#[inherit]`: those left, those to keep.
    (@key [[inherit] $($left:tt)*] [$($kept:tt)*] $new:ident $($item:tt)*) => {
        $crate::fiber_local!(@key [$($left)*] [$($kept)*] __inherited $($item)*);
    };
    (@key [[$($attr:tt)*] $($left:tt)*] [$($kept:tt)*] $new:ident $($item:tt)*) => {
        $crate::fiber_local!(@key [$($left)*] [$($kept)* [$($attr)*]] $new $($item)*);
    };
    (@key [] [$([$($attr:tt)*])*] $new:ident $vis:vis $name:ident: $t:ty = $init:expr) => {
        $(#[$($attr)*])*
        $vis static $name: $crate::LocalKey<$t> = $crate::LocalKey::$new(|| $init);
    };
    ($(#[$($attr:tt)*])* $vis:vis static $name:ident: $t:ty = const $init:block
        $(; $($rest:tt)*)?) => {
        $crate::fiber_local!(@key [$([$($attr)*])*] [] __new $vis $name: $t = const $init);
        $($crate::fiber_local!($($rest)*);)?
    };
    ($(#[$($attr:tt)*])* $vis:vis static $name:ident: $t:ty = $init:expr $(; $($rest:tt)*)?) => {
        $crate::fiber_local!(@key [$([$($attr)*])*] [] __new $vis $name: $t = $init);
        $($crate::fiber_local!($($rest)*);)?
    };
}

/// A key declared by [`fiber_local!`]. As [`std::thread::LocalKey`].
pub struct LocalKey<T: 'static> {
    init: fn() -> T,
    /// How new fibers inherit the value, if they do.
    copy: Option<CopyFn>,
    // Values are found by the key's address and nothing else, so two keys must never have the same.
    // Statics have their own; but a reference to a constant is one to a static that the compiler
    // makes, and may share with another constant of the same bytes. A field that may change rules
    // that out.
    _own_address: AtomicU8,
}

/// Whether there has ever been a value that new fibers inherit.
static INHERITED: AtomicBool = AtomicBool::new(false);

/// Whether a new fiber may have anything to inherit: one load.
#[inline(always)]
pub(crate) fn is_inherited() -> bool {
    // The calling fiber or thread has set it itself if it has such a value, or its spawner has.
    INHERITED.load(Ordering::Relaxed)
}

/// What a fiber that is spawned here starts with.
pub(crate) struct Inheritance(Locals);

/// Clones what the calling fiber passes on. This is foreign code: it may panic, suspend, and come
/// back to the table.
pub(crate) fn inheritance() -> Inheritance {
    let mut copies = Locals::new();
    if is_inherited() {
        let table = table();
        let mut last = 0;
        // SAFETY: the calling fiber's own table, for one operation.
        while let Some(next) = unsafe { (*table).next_inherited(last) } {
            // SAFETY: as in `LocalKey::try_with`: values do not move, and stay while code of their
            // fiber runs.
            let copy = (next.copy)(unsafe { next.value.as_ref() });
            copies.inherit(next.key, copy, next.copy);
            last = next.key;
        }
    }
    Inheritance(copies)
}

impl Inheritance {
    /// Gives it to a fresh fiber that nobody else has seen yet.
    ///
    /// # Safety
    /// As said; and the fiber has no values yet.
    pub(crate) unsafe fn give(self, fiber: FiberPtr) {
        if self.0.is_empty() {
            return; // so is the fiber's table, and stays untouched
        }
        // SAFETY: the caller's promise. The values may go to another thread with the fiber:
        // `copy` requires them to be `Send`, and there are no others. An empty table owns nothing,
        // so that nothing is lost by overwriting it.
        unsafe { fiber.header().locals().write(self.0) };
    }
}

impl Inheritance {
    /// Takes it out of a fiber that is never to run.
    ///
    /// # Safety
    /// The fiber is fresh, and nobody else has it.
    pub(crate) unsafe fn take_back(fiber: FiberPtr) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { fiber.header().locals().replace(Locals::new()) })
    }
}

/// A [`CopyFn`] for values of one type.
fn copy<T: Clone + Send + 'static>(value: &dyn Any) -> Box<dyn Any> {
    Box::new(value.downcast_ref::<T>().expect("a key stands for one type").clone())
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
        Self { init, copy: None, _own_address: AtomicU8::new(0) }
    }

    #[doc(hidden)]
    pub const fn __inherited(init: fn() -> T) -> Self
    where
        T: Clone + Send,
    {
        Self { init, copy: Some(copy::<T>), _own_address: AtomicU8::new(0) }
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
    pub fn with<F, R>(&'static self, f: F) -> R
    where
        F: FnOnce(&T) -> R,
    {
        self.try_with(f).expect("cannot access a fiber-local value during or after its destruction")
    }

    /// As [`with`](Self::with).
    ///
    /// # Errors
    /// In a destructor that runs after the value's own.
    pub fn try_with<F, R>(&'static self, f: F) -> Result<R, AccessError>
    where
        F: FnOnce(&T) -> R,
    {
        let value = match self.find()? {
            Some(value) => value,
            // The initialiser may come back to the table, even to this key.
            None => match self.insert((self.init)()) {
                Ok(value) => value,
                // The initialiser made the value itself; that one stays.
                Err(second) => {
                    drop(second);
                    return self.try_with(f);
                }
            },
        };
        // Values do not move, and only `destroy_all` drops them: at the base of the fiber, or of
        // the thread, hence never below `f`; and it takes each out of the table first.
        // SAFETY: it is a `T`, since only this key has this address (see `key`), and it is alive
        // for as long as `f` runs (above).
        Ok(f(unsafe { value.as_ref() }))
    }

    /// The calling fiber's value, if it has been made; an error if it must not be made any more.
    fn find(&'static self) -> Result<Option<NonNull<T>>, AccessError> {
        // SAFETY: the calling fiber's own table, for one operation.
        match unsafe { (*table()).find::<T>(self.key()) } {
            Found::Value(value) => Ok(Some(value)),
            Found::Missing if will_be_dropped() => Ok(None),
            Found::Missing | Found::Destroyed => Err(AccessError),
        }
    }

    /// Makes `value` the calling fiber's, or gives it back if that has got one meanwhile.
    fn insert(&'static self, value: T) -> Result<NonNull<T>, T> {
        if self.copy.is_some() {
            INHERITED.store(true, Ordering::Relaxed);
        }
        // SAFETY: the calling fiber's own table, for one operation.
        unsafe { (*table()).insert(self.key(), value, self.copy) }
    }

    /// Makes `value` the calling fiber's if that has none, without asking the initialiser; else
    /// gives it to `replace`.
    fn set_or(&'static self, value: T, replace: impl FnOnce(&T, T)) {
        let late = match self.find() {
            Ok(None) => match self.insert(value) {
                Ok(_) => return,
                Err(value) => value,
            },
            _ => value,
        };
        self.with(|present| replace(present, late));
    }
}

impl<T: 'static> LocalKey<Cell<T>> {
    /// Sets the value. If there is none yet, the initialiser is not run.
    ///
    /// # Panics
    /// As [`with`](Self::with), and so do all these.
    pub fn set(&'static self, value: T) {
        self.set_or(Cell::new(value), |cell, value| cell.set(value.into_inner()));
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

    /// Replaces the value by what `f` makes of it.
    pub fn update(&'static self, f: impl FnOnce(T) -> T)
    where
        T: Copy,
    {
        self.with(|cell| cell.set(f(cell.get())));
    }
}

impl<T: 'static> LocalKey<RefCell<T>> {
    /// Passes a shared borrow to `f`.
    ///
    /// # Panics
    /// If the value is mutably borrowed.
    pub fn with_borrow<F, R>(&'static self, f: F) -> R
    where
        F: FnOnce(&T) -> R,
    {
        self.with(|cell| f(&cell.borrow()))
    }

    /// Passes a mutable borrow to `f`.
    ///
    /// # Panics
    /// If the value is borrowed.
    pub fn with_borrow_mut<F, R>(&'static self, f: F) -> R
    where
        F: FnOnce(&mut T) -> R,
    {
        self.with(|cell| f(&mut cell.borrow_mut()))
    }

    /// Sets the value. If there is none yet, the initialiser is not run.
    ///
    /// # Panics
    /// If the value is borrowed.
    pub fn set(&'static self, value: T) {
        self.set_or(RefCell::new(value), |cell, value| *cell.borrow_mut() = value.into_inner());
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
