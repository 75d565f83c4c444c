//! A first-in-first-out list of fibers, linked through their headers: the started fibers of one
//! worker that are ready to run.

use super::header::FiberPtr;
use std::cell::Cell;

/// In a list longer than this, fibers have likely left the core's first cache.
const FAR: usize = 64;

/// See the module's head. A fiber is in at most one list at a time.
#[derive(Default)]
pub(crate) struct FiberList {
    head: Cell<Option<FiberPtr>>,
    tail: Cell<Option<FiberPtr>>,
    len: Cell<usize>,
}

impl FiberList {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.head.get().is_none()
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.len.get()
    }

    #[inline]
    pub(crate) fn push(&self, fiber: FiberPtr) {
        fiber.header().next.set(None);
        self.len.set(self.len.get() + 1);
        match self.tail.replace(Some(fiber)) {
            Some(last) => last.header().next.set(Some(fiber)),
            None => self.head.set(Some(fiber)),
        }
    }

    #[inline]
    pub(crate) fn pop(&self) -> Option<FiberPtr> {
        let first = self.head.get()?;
        let rest = first.header().next.get();
        self.head.set(rest);
        match rest {
            Some(second) if self.len.get() > FAR => {
                second.prefetch_frames();
                if let Some(third) = second.header().next.get() {
                    third.prefetch_header();
                }
            }
            Some(_) => {}
            None => self.tail.set(None),
        }
        self.len.set(self.len.get() - 1);
        Some(first)
    }
}
