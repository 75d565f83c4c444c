//! A deadline among its worker's timers (`sched/timers.rs`); lies on the waiting fiber's stack.

use super::bounds::Bound;
use super::header::FiberPtr;
use crate::arch::prefetch;
use std::cell::Cell;
use std::ptr::NonNull;

/// A cache line.
const LINE: usize = 64;
/// The lines below a timer that belong to the frame it lies in, and to the switch.
const BELOW: usize = 2;
/// The most lines below a header that are asked for, all of them.
const LINES: usize = 12;

/// `Timer::slot` of a timer that is in no heap.
const OUT: u32 = u32::MAX;

/// See the module's head.
pub(crate) struct Timer {
    /// When, in nanoseconds of the monotonic clock.
    pub(crate) deadline_ns: u64,
    /// Whose wait it ends.
    pub(crate) fiber: FiberPtr,
    /// The bound whose deadline it is; without one, it is that of the wait itself.
    bound: Option<NonNull<Bound>>,
    /// Where the heap keeps it, so that it can be removed.
    slot: Cell<u32>,
}

impl Timer {
    pub(crate) fn new(deadline_ns: u64, fiber: FiberPtr) -> Self {
        Self { deadline_ns, fiber, bound: None, slot: Cell::new(OUT) }
    }

    /// The timer of a bound's deadline. The bound has to stay where it is while this is armed.
    pub(crate) fn of_bound(deadline_ns: u64, fiber: FiberPtr, bound: &Bound) -> Self {
        Self { deadline_ns, fiber, bound: Some(NonNull::from(bound)), slot: Cell::new(OUT) }
    }

    pub(crate) fn in_heap(&self) -> bool {
        self.slot.get() != OUT
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // The heap would be left with a dangling pointer; `sched` removes timers before it returns.
        assert!(!self.in_heap(), "a timer was dropped while it was armed");
    }
}

/// A pointer to an armed timer: valid from its insertion into the heap to its removal, since the
/// fiber that owns it does not leave the frame before.
#[derive(Clone, Copy)]
pub(crate) struct TimerPtr(NonNull<Timer>);

impl TimerPtr {
    /// # Safety
    /// The timer must stay where it is until it is in no heap and no TimerPtr to it is used.
    pub(crate) unsafe fn new(timer: &Timer) -> Self {
        Self(NonNull::from(timer))
    }

    fn timer(&self) -> &Timer {
        // SAFETY: by `new`.
        unsafe { self.0.as_ref() }
    }

    pub(crate) fn deadline_ns(&self) -> u64 {
        self.timer().deadline_ns
    }

    pub(crate) fn fiber(&self) -> FiberPtr {
        self.timer().fiber
    }

    /// Expires the bound whose timer this is; `false` if it is that of a wait.
    ///
    /// # Safety
    /// The bound is where it was when the timer was made, as it is while the timer is armed.
    pub(crate) unsafe fn expire_bound(&self) -> bool {
        // SAFETY: the caller's promise.
        self.timer().bound.map(|bound| unsafe { bound.as_ref() }.expire()).is_some()
    }

    pub(crate) fn is_of_bound(&self) -> bool {
        self.timer().bound.is_some()
    }

    /// Asks for the memory that firing it and resuming its fiber will need. It has been long out of
    /// every cache, perhaps, and several such requests take no longer than one.
    #[inline]
    pub(crate) fn prefetch(&self, fiber: FiberPtr) {
        let header: *const u8 = fiber.as_ptr().cast();
        prefetch(header.cast());
        prefetch(header.wrapping_add(LINE).cast());
        // Between the two lie the result and the frames that the fiber returns through. Where that
        // is much, the fiber does not go far in one turn.
        let distance = header.addr().saturating_sub(self.0.as_ptr().addr());
        let lines = distance / LINE + 1 + BELOW;
        if lines <= LINES {
            (0..lines).for_each(|line| prefetch(header.wrapping_sub((line + 1) * LINE).cast()));
        } else {
            let above: *const u8 = self.0.as_ptr().wrapping_byte_add(LINE).cast();
            (0..BELOW + 2).for_each(|line| prefetch(above.wrapping_sub(line * LINE).cast()));
        }
    }

    pub(crate) fn slot(&self) -> u32 {
        self.timer().slot.get()
    }

    pub(crate) fn set_slot(&self, slot: u32) {
        self.timer().slot.set(slot);
    }

    pub(crate) fn set_removed(&self) {
        self.timer().slot.set(OUT);
    }
}
