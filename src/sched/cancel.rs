//! Cancel requests and deadlines where they meet the code that is to end: what a worker does for a
//! fiber that waits, and what the calls of `cancel` and `time` do to their own fiber.
//!
//! On a plain thread there are no requests, only deadlines. Nothing can wake the thread for them,
//! so the waits of this crate end at the earliest of them by themselves, and an op that would begin
//! after one fails.
//!
//! While a thread unwinds its ops are performed whatever was asked, as if no report could be made:
//! it would get lost in a destructor.

use super::timers::FIRE_BATCH;
use super::{Worker, current, wake_waiter};
use crate::coro::header::{BLOCKS, Waiting};
use crate::coro::{Bound, Bounds, FiberPtr, OnCancel, Timer, TimerPtr, Waiter};
use crate::sys::clock::{self, NEVER};
use std::io;

thread_local! {
    /// The bounds of code that is on no fiber.
    static THREAD: Bounds = const { Bounds::new() };
}

/// The error of an op that a request or a deadline has ended.
#[cold]
pub(crate) fn error() -> io::Error {
    io::Error::from_raw_os_error(libc::ECANCELED)
}

/// Calls `f` with the bounds of the calling code.
fn with_bounds<T>(f: impl FnOnce(&Bounds) -> T) -> T {
    match current::fiber() {
        Some((_, fiber)) => f(&fiber.header().bounds),
        None => THREAD.with(f),
    }
}

// ---- What a worker does ------------------------------------------------------------------------

impl Worker {
    /// Ends the wait of a fiber of this worker for which a cancel request has come, or a deadline.
    pub(crate) fn cancel_wait(&self, fiber: FiberPtr) {
        if !fiber.header().cancel.is_requested() {
            return;
        }
        match fiber.header().waiting.get() {
            // SAFETY: the op is ours, and the reference does not leave this line.
            Waiting::Op(op) if unsafe { op.op() }.can_be_refused() => {
                self.driver.borrow_mut().cancel(op);
            }
            Waiting::Signal(signal, on_cancel)
                if on_cancel == OnCancel::End
                    || (on_cancel == OnCancel::Wake && fiber.header().bounds.wakes()) =>
            {
                // `submit::wait` clears `waiting` before it leaves the frame with the signal.
                // SAFETY: so the signal named there is alive, whether the fiber is suspended or, on
                // its way back, enters its spans again; only this thread resumes it.
                let signal = unsafe { signal.as_ref() };
                if signal.unregister(Waiter::Fiber(fiber.address())) {
                    self.ready.push(fiber);
                }
            }
            Waiting::Op(_) | Waiting::Signal(..) | Waiting::Nothing => {}
        }
    }

    /// Ends the waits whose time has come by `now_ns`.
    pub(super) fn fire_timers_until(&self, now_ns: u64) {
        loop {
            // Several at a time: while the memory of one is on its way, so is that of the next.
            let mut due = [None; FIRE_BATCH];
            let count = self.timers.borrow_mut().pop_due(now_ns, &mut due);
            for timer in due.into_iter().flatten() {
                timer.set_removed();
                self.fire(timer);
            }
            if count < FIRE_BATCH {
                return;
            }
        }
    }

    fn fire(&self, timer: TimerPtr) {
        let fiber = timer.fiber();
        if timer.is_of_bound() {
            self.fire_bound(timer);
        } else if let Waiting::Signal(signal, _) = fiber.header().waiting.get() {
            // SAFETY: as in `cancel_wait`.
            if unsafe { signal.as_ref() }.unregister(Waiter::Fiber(fiber.address())) {
                self.ready.push(fiber);
            }
        }
    }

    /// The deadline of a bound has come: `timer` is out of the heap.
    #[cold]
    fn fire_bound(&self, timer: TimerPtr) {
        // A runtime that shuts down ends everything anyway, and for another reason.
        if self.is_draining() {
            return;
        }
        // SAFETY: the timer was armed until now, and no fiber has run since.
        _ = unsafe { timer.expire_bound() };
        let fiber = timer.fiber();
        fiber.bounds_changed();
        self.cancel_wait(fiber);
    }
}

/// An op of the calling fiber has ended with `ECANCELED`: which of the reasons there are is the one
/// that it reports? The strongest; none if the kernel or the end of the runtime said so.
#[cold]
pub(crate) fn report(fiber: FiberPtr) {
    let header = fiber.header();
    if header.cancel.has_visible_request() {
        header.cancel.reported();
        header.bounds.report_request();
    } else if header.bounds.report_deadline() {
        header.cancel.reported_other();
        fiber.bounds_changed();
    }
}

/// Whether an op must not begin on the calling plain thread; if so, it has been reported.
#[inline]
pub(crate) fn refuses_on_thread() -> bool {
    current::fiber().is_none() && THREAD.with(|bounds| !bounds.is_empty() && refuses(bounds))
}

#[cold]
fn refuses(bounds: &Bounds) -> bool {
    if std::thread::panicking() {
        return false;
    }
    bounds.expire(clock::now_ns());
    bounds.report_deadline()
}

/// Until when a wait that blocks the thread may last.
pub(crate) fn end_of_wait(own: Option<u64>, on_cancel: OnCancel) -> Option<u64> {
    let bound = with_bounds(|bounds| match on_cancel {
        _ if bounds.is_empty() => None,
        OnCancel::Ignore => None,
        OnCancel::End => bounds.end_of_waits_ns(),
        OnCancel::Wake => bounds.end_of_park_ns(),
    });
    [own, bound].into_iter().flatten().min()
}

/// Until when a `park` that blocks the thread may last.
pub(crate) fn end_of_park(own: Option<u64>) -> Option<u64> {
    end_of_wait(own, OnCancel::Wake)
}

/// A `park` that blocked the thread has ended. A deadline that did so does it once.
pub(crate) fn parked_on_thread() {
    expire();
    with_bounds(Bounds::take_wakes);
}

/// Expires the deadlines that have come, though nobody waits. `false` if there are no bounds.
fn expire() -> bool {
    let any = with_bounds(|bounds| {
        if !bounds.is_empty() {
            bounds.expire(clock::now_ns());
        }
        !bounds.is_empty()
    });
    if let Some((_, fiber)) = current::fiber().filter(|_| any) {
        fiber.bounds_changed();
    }
    any
}

// ---- What a fiber or thread does to itself ------------------------------------------------------

/// How a call under a deadline has ended.
pub(crate) struct Ended<T> {
    pub(crate) value: T,
    /// A cancelled error that came out of it is the deadline's.
    pub(crate) owns_error: bool,
}

/// Runs `f` with all its waits bounded by a deadline. It is `now_ns`.
pub(crate) fn timed<T>(now_ns: u64, deadline_ns: u64, f: impl FnOnce() -> T) -> Ended<T> {
    if deadline_ns == NEVER {
        return Ended { value: f(), owns_error: false };
    }
    let bound = Bound::deadline(deadline_ns);
    if deadline_ns <= now_ns {
        bound.expire();
    }
    let value = inside(&bound, f);
    Ended { value, owns_error: bound.owns_error() }
}

/// Runs `f` with requests and outer deadlines put off.
pub(crate) fn shielded<T>(f: impl FnOnce() -> T) -> T {
    inside(&Bound::shield(), f)
}

fn inside<T>(bound: &Bound, f: impl FnOnce() -> T) -> T {
    let on = current::fiber();
    let timer = match (on, bound.deadline_ns()) {
        (Some((_, fiber)), Some(deadline_ns)) if !bound.has_expired() => {
            Some(Timer::of_bound(deadline_ns, fiber, bound))
        }
        _ => None,
    };
    // SAFETY: the guard pops it again, and is gone before this frame, which borrows the bound.
    with_bounds(|bounds| unsafe { bounds.push(bound) });
    let _inside = Inside { timer: timer.as_ref(), is_shield: bound.is_shield() };
    if let Some((worker, fiber)) = on {
        if let Some(timer) = &timer {
            // SAFETY: the guard disarms the timer before it leaves this frame. A fiber that is
            // never resumed keeps its stack.
            worker.arm(unsafe { TimerPtr::new(timer) });
        }
        fiber.bounds_changed();
    }
    f()
}

/// The calling code is inside the innermost bound until this is dropped.
struct Inside<'a> {
    timer: Option<&'a Timer>,
    is_shield: bool,
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let Some((worker, fiber)) = current::fiber() else {
            return THREAD.with(Bounds::pop);
        };
        if let Some(timer) = self.timer.filter(|timer| timer.in_heap()) {
            // SAFETY: the timer is in the frame that this guard lies in.
            worker.disarm(unsafe { TimerPtr::new(timer) });
        }
        let header = fiber.header();
        header.bounds.pop();
        fiber.bounds_changed();
        if self.is_shield && header.cancel.has_visible_request() {
            // The token that came with the request may have been taken inside.
            wake_waiter(header.token.set());
        }
    }
}

/// Whether an op that began now would fail because somebody wants the caller to end.
pub(crate) fn is_requested() -> bool {
    // A subscriber's code in the middle of a switch must not use up a request: it suspends nothing.
    let blocks = |fiber: FiberPtr| fiber.header().no_suspend.get() & BLOCKS != 0;
    if std::thread::panicking() || current::fiber().is_some_and(|(_, fiber)| blocks(fiber)) {
        return false;
    }
    let has_bounds = expire();
    match current::fiber() {
        Some((worker, fiber)) => {
            fiber.header().cancel.is_requested_before_wait() || worker.is_draining()
        }
        None => has_bounds && THREAD.with(Bounds::is_due),
    }
}

/// Reports what is pending, as an op would.
pub(crate) fn check() -> io::Result<()> {
    if !is_requested() {
        return Ok(());
    }
    match current::fiber() {
        Some((_, fiber)) => report(fiber),
        None => _ = THREAD.with(Bounds::report_deadline),
    }
    Err(error())
}

/// Makes pending again what was reported last.
pub(crate) fn recancel() {
    let Some((_, fiber)) = current::fiber() else {
        return THREAD.with(Bounds::unreport);
    };
    let header = fiber.header();
    if header.cancel.take_reported_last() {
        // The fiber runs, so nobody has to be told.
        header.cancel.request();
        wake_waiter(header.token.set());
    } else {
        header.bounds.unreport();
        fiber.bounds_changed();
    }
}
