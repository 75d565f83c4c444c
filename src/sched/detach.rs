//! An owner of a descriptor whose drop does not wait for the close.
#![forbid(unsafe_code)]

use std::fmt;
use std::ops::Deref;
use std::os::fd::OwnedFd;

use super::close_detached;
use crate::op::Habit;

/// Owns a `T` that owns a descriptor, and keeps what is learnt about it. Dropped, it hands the
/// descriptor to [`close_detached`].
pub(crate) struct Detach<T: Into<OwnedFd>> {
    inner: Option<T>, // None only between `into_inner` and `drop`
    habit: Habit,
}

impl<T: Into<OwnedFd>> Detach<T> {
    pub(crate) fn new(inner: T) -> Self {
        Self::with_habit(inner, Habit::new())
    }

    pub(crate) fn with_habit(inner: T, habit: Habit) -> Self {
        Detach { inner: Some(inner), habit }
    }

    #[inline]
    pub(crate) fn habit(&self) -> &Habit {
        &self.habit
    }

    /// Takes the inner value out; nothing is closed.
    pub(crate) fn into_inner(mut self) -> T {
        self.inner.take().expect("an owner holds its value until it is dropped")
    }
}

impl<T: Into<OwnedFd>> Deref for Detach<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.inner.as_ref().expect("an owner holds its value until it is dropped")
    }
}

impl<T: Into<OwnedFd>> Drop for Detach<T> {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take() {
            close_detached(inner.into(), &self.habit);
        }
    }
}

impl<T: Into<OwnedFd> + fmt::Debug> fmt::Debug for Detach<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
