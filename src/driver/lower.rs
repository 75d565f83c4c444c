//! Which way an op takes: the only place that knows.
#![forbid(unsafe_code)]

use super::Caps;
use crate::op::Op;

/// The ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Through the driver.
    Driver,
    /// As a system call on the spot: it cannot wait, and the ring would answer differently.
    Now,
    /// As a system call on the blocking pool: this kernel's ring cannot do it.
    Pool,
}

/// Decides for one op.
#[inline]
pub(crate) fn route(op: &Op<'_>, caps: &Caps) -> Route {
    match op {
        // A system call looks at what the descriptor is first: reading nothing from a directory,
        // say, is an error.
        Op::Read { buf: [], .. } => Route::Now,
        _ if caps.supports(op) => Route::Driver,
        _ => Route::Pool,
    }
}
