//! The fiber-local values of one fiber (or, for code that runs on none, of one thread).

use std::any::Any;
use std::ptr::NonNull;

/// Makes a copy of a value that new fibers inherit.
pub(crate) type CopyFn = fn(&dyn Any) -> Box<dyn Any>;

/// One value, or the trace of one that has been destroyed.
struct Slot {
    /// The address of the key.
    key: usize,
    /// Owned, as if by a Box; `None` from the moment its destructor starts.
    value: Option<NonNull<dyn Any>>,
    /// How new fibers inherit it, if they do.
    copy: Option<CopyFn>,
}

/// A value that new fibers inherit, as [`Locals::next_inherited`] finds it.
pub(crate) struct Inherited {
    pub(crate) key: usize,
    pub(crate) value: NonNull<dyn Any>,
    pub(crate) copy: CopyFn,
}

/// All values of one fiber, sorted by key. Values never move, so that references into them survive
/// the initialisation of other keys.
#[derive(Default)]
pub(crate) struct Locals {
    slots: Vec<Slot>,
}

/// What a key finds.
pub(crate) enum Found<T> {
    Value(NonNull<T>),
    Missing,
    Destroyed,
}

impl Locals {
    pub(crate) const fn new() -> Self {
        Self { slots: Vec::new() }
    }

    /// Whether no key was ever used.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The value under `key`, which is a `T` if it was inserted as one: a key stands for one type.
    #[inline]
    pub(crate) fn find<T: 'static>(&self, key: usize) -> Found<T> {
        match self.slots.binary_search_by_key(&key, |slot| slot.key) {
            Ok(at) => match self.slots[at].value {
                Some(value) => Found::Value(value.cast()),
                None => Found::Destroyed,
            },
            Err(_) => Found::Missing,
        }
    }

    /// Adds a value for a key that has none; gives it back if the key has got one meanwhile.
    pub(crate) fn insert<T: 'static>(
        &mut self,
        key: usize,
        value: T,
        copy: Option<CopyFn>,
    ) -> Result<NonNull<T>, T> {
        match self.slots.binary_search_by_key(&key, |slot| slot.key) {
            Ok(_) => Err(value),
            Err(at) => {
                let value: NonNull<T> = NonNull::from(Box::leak(Box::new(value)));
                self.slots.insert(at, Slot { key, value: Some(value), copy });
                Ok(value)
            }
        }
    }

    /// Adds the copy of another fiber's value. In the order of the keys, each once.
    pub(crate) fn inherit(&mut self, key: usize, value: Box<dyn Any>, copy: CopyFn) {
        debug_assert!(self.slots.last().is_none_or(|slot| slot.key < key));
        let value = NonNull::from(Box::leak(value));
        self.slots.push(Slot { key, value: Some(value), copy: Some(copy) });
    }

    /// The first value under a key greater than `after` that new fibers inherit.
    pub(crate) fn next_inherited(&self, after: usize) -> Option<Inherited> {
        let from = self.slots.partition_point(|slot| slot.key <= after);
        self.slots[from..].iter().find_map(|slot| {
            Some(Inherited { key: slot.key, value: slot.value?, copy: slot.copy? })
        })
    }

    /// Takes out one value, for its destructor to run outside of any borrow of the table.
    fn take_one(&mut self) -> Option<Box<dyn Any>> {
        let slot = self.slots.iter_mut().rev().find(|slot| slot.value.is_some())?;
        let value = slot.value.take()?;
        // SAFETY: it was leaked from a Box by `insert`, and taken out exactly once.
        Some(unsafe { Box::from_raw(value.as_ptr()) })
    }
}

impl Drop for Locals {
    #[inline]
    fn drop(&mut self) {
        if self.slots.is_empty() {
            return;
        }
        while let Some(value) = self.take_one() {
            drop(value);
        }
    }
}

/// Runs the destructors of all values, those that destructors create included.
///
/// # Safety
/// `locals` is valid, and nobody else holds a reference into it during the call except through the
/// same pointer and for the duration of a single operation.
pub(crate) unsafe fn destroy_all(locals: *mut Locals) {
    // SAFETY: the caller's promise; the borrow ends before the destructor runs, which may come back
    // to this table.
    while let Some(value) = unsafe { (*locals).take_one() } {
        drop(value);
    }
}
