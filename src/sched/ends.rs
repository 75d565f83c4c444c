//! What a worker does for a fiber that has ended.

use super::Worker;
use super::remote::bump;
use super::submit::wake_waiter;
use crate::coro::{FiberPtr, Waiter};
use crate::stack::sanitize;

impl Worker {
    /// `false` if the fiber is resumed once more.
    #[inline]
    pub(super) fn ended(&self, fiber: FiberPtr) -> bool {
        let panicked = fiber.header().panicked.get();
        let mut books = self.close_books(fiber);
        if self.main.get() == Some(fiber) {
            self.stop.set(true);
        }
        match fiber.header().ended.set() {
            // The handle went away a moment ago: the fiber is resumed to drop its result.
            Waiter::Detached => {
                self.push_woken(fiber);
                return false;
            }
            waiter => wake_waiter(waiter),
        }
        // The fiber may be gone by now.
        // SAFETY: it has ended, and this copy of its state is the one that is destroyed.
        unsafe { sanitize::destroy(self.sanitize.get(), &raw mut books) };
        self.count_end(panicked);
        true
    }

    #[inline]
    fn count_end(&self, panicked: bool) {
        if panicked {
            bump(&self.remote.panicked);
        }
        bump(&self.remote.ended);
    }

    /// Tells a sanitizer that the fiber's stack is about to become others'. Returns the fiber's
    /// state: the caller destroys it, unless the fiber is resumed once more.
    #[inline]
    fn close_books(&self, fiber: FiberPtr) -> sanitize::FiberState {
        let header = fiber.header();
        // SAFETY: the fiber is off its stack, and we are its holder.
        unsafe {
            if let Some(stack) = &*header.stack.get() {
                sanitize::clear(stack);
            }
            header.sanitize.get().read()
        }
    }

    #[inline]
    pub(super) fn free(&self, fiber: FiberPtr) {
        let mut books = self.close_books(fiber);
        // SAFETY: the fiber has ended and is never resumed.
        unsafe { sanitize::destroy(self.sanitize.get(), &raw mut books) };
        self.count_end(fiber.header().panicked.get());
        // SAFETY: ended, result dropped, off its stack; the reference was the fiber's own.
        if let Some(stack) = unsafe { fiber.release() } {
            self.free_stack(stack);
        }
    }
}
