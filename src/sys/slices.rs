//! The buffers of a vectored read.

use std::fmt;
use std::io::IoSliceMut;

/// How many buffers Linux takes in one vectored call.
pub(crate) const IOV_MAX: usize = 1024;

/// Borrowed `&'a mut [IoSliceMut<'_>]` with one lifetime instead of two.
///
/// A mutable reference fixes the lifetime inside the slices, so an op with a single lifetime could
/// not hold one. This holds a shared reference, whose inner lifetime may be shortened, and keeps
/// the promise of the mutable one: it is built from that only, and it gives no access to the
/// buffers but the address of the array. So for `'a` nobody else can reach the memory.
pub(crate) struct SlicesMut<'a> {
    bufs: &'a [IoSliceMut<'a>],
}

impl<'a> SlicesMut<'a> {
    /// Borrows the first [`IOV_MAX`] of `bufs`, which is what one call takes.
    pub(crate) fn new(bufs: &'a mut [IoSliceMut<'_>]) -> Self {
        let len = bufs.len().min(IOV_MAX);
        SlicesMut { bufs: &bufs[..len] }
    }

    /// The array for the kernel: `IoSliceMut` is defined to have the layout of `iovec`.
    pub(crate) fn as_ptr(&self) -> *const libc::iovec {
        self.bufs.as_ptr().cast()
    }

    /// How many buffers there are; at most [`IOV_MAX`].
    pub(crate) fn len(&self) -> usize {
        self.bufs.len()
    }
}

impl fmt::Debug for SlicesMut<'_> {
    /// The lengths, never the contents: nobody may look at the buffers while they are lent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlicesMut").field("len", &self.len()).finish()
    }
}
