//! The end of a fiber, and who waits for it: what its worker's idle context does.

use super::remote::bump;
use super::submit::{wake_elsewhere, wake_waiter};
use super::worker::MAX_NEXT;
use super::{Remote, Worker};
use crate::coro::{Children, FiberPtr, Waiter};
use crate::stack::sanitize;

impl Worker {
    /// Has `fiber`, which has left its stack, wait for the end of `other`.
    #[inline]
    pub(super) fn join(&self, fiber: FiberPtr, other: FiberPtr) {
        let ended = &other.header().ended;
        // It would be started next anyway. When nobody else can, its end needs no locked
        // instruction.
        if self.next_in_a_row.get() < MAX_NEXT && self.fresh.pop_if(other) {
            bump(&self.remote.taken);
            self.remote.set_home(other);
            let registered = ended.register_here(fiber.address());
            debug_assert!(registered, "a fresh fiber has ended");
            return self.push_woken(other);
        }
        // Its end is set by its home worker, and waited for by who owns its join handle: `fiber`.
        let registered = if self.is_home_of(other) {
            ended.register_here(fiber.address())
        } else {
            ended.register_to_stay(fiber.address())
        };
        if !registered {
            self.push_woken(fiber);
        }
    }

    #[inline]
    pub(super) fn is_home_of(&self, fiber: FiberPtr) -> bool {
        Remote::of(fiber).is_some_and(|home| std::ptr::eq(home, self.remote))
    }

    #[inline(never)]
    pub(super) fn child_ended(&self, fiber: FiberPtr, children: &Children) {
        if self.ended(fiber) {
            wake_waiter(children.ended(self.place()));
        }
    }

    /// `false` if the fiber is resumed once more.
    #[inline(always)]
    pub(super) fn ended(&self, fiber: FiberPtr) -> bool {
        let panicked = fiber.header().panicked.get();
        let mut books = self.close_books(fiber);
        if self.main.get() == Some(fiber) {
            self.stop.set(true);
        }
        match fiber.header().ended.set_once() {
            // SAFETY: taken out of a signal by us, and so alive until we have woken it.
            Waiter::Fiber(address) => self.wake(unsafe { FiberPtr::from_address(address) }),
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

    /// As `submit::wake`, by this worker's idle context or fiber.
    #[inline]
    pub(super) fn wake(&self, fiber: FiberPtr) {
        if self.is_home_of(fiber) { self.push_woken(fiber) } else { wake_elsewhere(fiber) }
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
            sanitize::clear(&fiber.stack());
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
