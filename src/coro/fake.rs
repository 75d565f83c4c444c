//! Headers of fibers that never run, for the tests of what links, heaps and hands over fibers. They
//! lie where a header lies, at the top of a page, so the accesses are those of real ones.

use super::{FiberPtr, Header, Timer, TimerPtr};
use crate::stack::Stack;
use std::alloc::{self, Layout};
use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};

const PAGE: Layout = match Layout::from_size_align(4096, 4096) {
    Ok(layout) => layout,
    Err(_) => unreachable!(),
};

/// Owns the page of one.
pub(crate) struct FakeFiber {
    page: NonNull<u8>,
    fiber: FiberPtr,
}

// SAFETY: owns its memory, as a box would; the header's own rules hold for what is done with it.
unsafe impl Send for FakeFiber {}
// SAFETY: as above.
unsafe impl Sync for FakeFiber {}

impl FakeFiber {
    pub(crate) fn new(id: u64) -> Self {
        // SAFETY: not of size 0.
        let page = NonNull::new(unsafe { alloc::alloc_zeroed(PAGE) }).expect("memory");
        let header = page.as_ptr().wrapping_add(PAGE.size() - size_of::<Header>());
        let header = NonNull::new(header.cast::<Header>()).expect("not at address 0");
        let top = NonNull::new(page.as_ptr().wrapping_add(PAGE.size())).expect("as above");
        // SAFETY: there is a smallest pool. No slot of it, so the stack is neither given back nor
        // dropped.
        let stack = ManuallyDrop::new(unsafe { Stack::from_top(top, 0) });
        // SAFETY: in the highest bytes of the page, which is ours and zero.
        unsafe { Header::init(header.as_ptr(), &stack, id, ptr::null_mut(), None) };
        // SAFETY: written just now, and there until the drop.
        Self { page, fiber: unsafe { FiberPtr::new(header) } }
    }

    /// Not to be used after the drop.
    pub(crate) fn ptr(&self) -> FiberPtr {
        self.fiber
    }
}

impl Drop for FakeFiber {
    fn drop(&mut self) {
        // SAFETY: from the same layout; the header owns nothing, as nobody gave it anything.
        unsafe { alloc::dealloc(self.page.as_ptr(), PAGE) };
    }
}

/// Not to be used after the timer's drop, or move.
pub(crate) fn timer_ptr(timer: &Timer) -> TimerPtr {
    // SAFETY: as said.
    unsafe { TimerPtr::new(timer) }
}

mod tests {
    use super::{FakeFiber, FiberPtr};
    use crate::coro::{Signal, Waiter};
    use std::sync::Arc;
    use std::thread;

    /// The word carries a pointer as a number: what comes out is as good as what went in, on
    /// another thread too.
    #[test]
    fn the_waiter_that_comes_out_can_be_used() {
        for waits_first in [true, false] {
            let fiber = FakeFiber::new(7);
            let signal = Arc::new(Signal::new());
            let waiter = Waiter::Fiber(fiber.ptr().address());
            if waits_first {
                assert!(signal.register(waiter));
            }
            let setter = {
                let signal = Arc::clone(&signal);
                thread::spawn(move || match signal.set() {
                    Waiter::Fiber(address) => {
                        // SAFETY: of the fake one above, which is dropped after the join.
                        let woken = unsafe { FiberPtr::from_address(address) };
                        woken.header().next.set(Some(woken));
                        Some(woken.header().id)
                    }
                    _ => None,
                })
            };
            let waits = waits_first || signal.register(waiter);
            let woken = setter.join().unwrap();
            assert_eq!(woken, waits.then_some(7));
            assert_eq!(fiber.ptr().header().next.get(), waits.then_some(fiber.ptr()));
        }
    }

    /// A thread whose deadline comes, one that is woken, one that comes too late to wait.
    #[test]
    fn threads_wait() {
        let signal = Arc::new(Signal::new());
        let soon = std::time::Instant::now() + std::time::Duration::from_millis(1);
        assert!(!crate::coro::thread::wait(&signal, Some(soon)));
        let setter = {
            let signal = Arc::clone(&signal);
            thread::spawn(move || {
                if let Waiter::Thread(address) = signal.set() {
                    // SAFETY: taken out just now, by us alone.
                    unsafe { crate::coro::thread::wake(address) };
                }
            })
        };
        assert!(crate::coro::thread::wait(&signal, None));
        setter.join().unwrap();
        assert!(crate::coro::thread::wait(&signal, None), "it stays set");
    }
}
