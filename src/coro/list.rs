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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::FiberList;
    use crate::coro::fake::FakeFiber;
    use std::collections::VecDeque;

    /// Against a queue of std's: pushed and taken out in turns, to and fro over the length from
    /// which on the next ones are fetched ahead.
    #[test]
    fn first_in_first_out() {
        let fibers: Vec<_> = (0..100).map(FakeFiber::new).collect();
        let mut out: VecDeque<_> = fibers.iter().map(FakeFiber::ptr).collect();
        let (list, mut expected) = (FiberList::default(), VecDeque::new());
        for (pushed, popped) in [(3, 4), (100, 60), (50, 20), (30, 100), (1, 1), (70, 71)] {
            for _ in 0..pushed {
                let Some(fiber) = out.pop_front() else { break };
                list.push(fiber);
                expected.push_back(fiber);
            }
            assert_eq!(list.len(), expected.len());
            for _ in 0..popped {
                let fiber = list.pop();
                assert_eq!(fiber, expected.pop_front());
                out.extend(fiber);
            }
            assert_eq!(list.is_empty(), expected.is_empty());
        }
    }
}
