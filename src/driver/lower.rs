//! Which way an op takes: the only place that knows.
#![forbid(unsafe_code)]

use super::Caps;
use crate::op::Op;

/// The ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Through the driver.
    Driver,
    /// As a system call on the blocking pool: this kernel's ring cannot do it.
    Pool,
}

/// Decides for one op.
#[inline]
pub(crate) fn route(op: &Op<'_>, caps: &Caps) -> Route {
    if caps.supports(op) { Route::Driver } else { Route::Pool }
}
