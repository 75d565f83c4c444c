//! Naming fibers.

use crate::coro::FiberPtr;
use crate::sched::{self, current};
use crate::stack::Stack;
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::thread;

/// A handle to a fiber, or, when obtained on a plain thread, to that thread. As
/// [`std::thread::Thread`].
///
/// A handle keeps the fiber's stack from being used again, even after the fiber's end: its control
/// block lies there. That is one page of memory, and what else the fiber touched.
pub struct Fiber(pub(super) Inner);

pub(super) enum Inner {
    Fiber(FiberPtr),
    Thread(thread::Thread),
}

// Nothing that a panic could leave half done can be seen through a handle.
impl UnwindSafe for Fiber {}
impl RefUnwindSafe for Fiber {}

impl Fiber {
    /// Wakes the fiber from [`park`](crate::park), or lets its next call of `park` return at once.
    #[inline]
    pub fn unpark(&self) {
        match &self.0 {
            Inner::Fiber(fiber) => sched::wake_waiter(fiber.header().token.set()),
            Inner::Thread(thread) => thread.unpark(),
        }
    }

    /// What `JoinHandle::cancel` does; nothing to a thread.
    pub(crate) fn request_cancel(&self) {
        if let Inner::Fiber(fiber) = self.0 {
            super::join::request_cancel(fiber);
        }
    }

    /// The name given to [`Builder::name`](crate::Builder::name).
    pub fn name(&self) -> Option<&str> {
        match &self.0 {
            Inner::Fiber(fiber) => fiber.header().name.as_deref(),
            Inner::Thread(thread) => thread.name(),
        }
    }

    /// The fiber's identifier, which no other fiber of this process has had or will have.
    pub fn id(&self) -> FiberId {
        match &self.0 {
            Inner::Fiber(fiber) => FiberId(IdInner::Fiber(fiber.header().id)),
            Inner::Thread(thread) => FiberId(IdInner::Thread(thread.id())),
        }
    }
}

impl Clone for Fiber {
    fn clone(&self) -> Self {
        match &self.0 {
            Inner::Fiber(fiber) => {
                fiber.retain();
                Self(Inner::Fiber(*fiber))
            }
            Inner::Thread(thread) => Self(Inner::Thread(thread.clone())),
        }
    }
}

impl Drop for Fiber {
    fn drop(&mut self) {
        if let Inner::Fiber(fiber) = self.0 {
            // SAFETY: the reference is ours. If it is the last one, the fiber has ended and its
            // result is gone: until then the reference of fiber and join handle exists.
            unsafe { release(fiber) };
        }
    }
}

impl fmt::Debug for Fiber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fiber")
            .field("id", &self.id())
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

/// Identifies a fiber (or a plain thread) for the life of the process. As
/// [`std::thread::ThreadId`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FiberId(IdInner);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum IdInner {
    Fiber(u64),
    Thread(thread::ThreadId),
}

impl fmt::Debug for FiberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IdInner::Fiber(id) => write!(f, "FiberId({id})"),
            IdInner::Thread(id) => id.fmt(f),
        }
    }
}

/// # Safety
/// As for [`FiberPtr::release`].
#[inline]
pub(super) unsafe fn release(fiber: FiberPtr) {
    // SAFETY: the caller's promise.
    if let Some(stack) = unsafe { fiber.release() } {
        free(stack);
    }
}

#[inline]
fn free(stack: Stack) {
    match current::worker() {
        Some(worker) => worker.free_stack(stack),
        None => stack.pool().free(stack),
    }
}
