//! Leaving a stack and coming back to it.
//!
//! A fiber suspends with an [`AfterSwitch`] value that lies on its own stack; the worker that
//! resumed it reads the value after the switch and acts on it. Whatever the value refers to is on
//! the suspended stack too, and stays there until the fiber is resumed.

use super::children::Children;
use super::header::FiberPtr;
use super::pending::PendingPtr;
use super::signal::Signal;
use super::timer::Timer;
use crate::arch::Context;
use crate::stack::sanitize;
use std::sync::atomic::AtomicBool;

/// What the idle context does for a fiber that has just left its stack.
#[derive(Clone, Copy)]
pub(crate) enum AfterSwitch<'a> {
    /// Put me at the end of the run queue.
    Yield,
    /// As `Yield`, after a while of work that was no resume's.
    Breathe,
    /// Give this op to the driver; resume me when it is done.
    Submit(PendingPtr),
    /// Register me on this signal; resume me when it is set (or at once, if it is).
    Wait(&'a Wait<'a>),
    /// Resume me when this fiber has ended, and not sooner.
    Join(FiberPtr),
    /// My closure has returned and its result is in the payload. I am only resumed if nobody wants
    /// the result, to drop it.
    Ended,
    /// My result is gone too. I am never resumed.
    Free,
    /// As `Ended`, of a child: it is counted out, unless it is resumed.
    ChildEnded(&'a Children),
    /// As `Free`, of a child: it is counted out.
    FreeChild(&'a Children),
}

/// One wait on a signal.
pub(crate) struct Wait<'a> {
    pub(crate) signal: &'a Signal,
    /// When to give up.
    pub(crate) timer: Option<&'a Timer>,
    /// What a cancel request does to it.
    pub(crate) on_cancel: OnCancel,
    /// A lock that the fiber holds, and without which nobody sets the signal: to be let go of once
    /// the fiber is registered.
    pub(crate) held: Option<&'a AtomicBool>,
}

/// What a cancel request does to a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnCancel {
    /// Nothing.
    Ignore,
    /// It ends the wait, and does not let one begin while it has not been reported.
    End,
    /// A deadline ends the wait if it expires meanwhile. (Requests end it by the token: this is the
    /// wait of `park`.)
    Wake,
}

/// Switches from the running fiber `fiber` to the context that resumed it. Returns the word of the
/// next resume: the worker's address.
///
/// # Safety
/// `fiber` is the fiber that runs on this thread.
#[inline(always)]
pub(crate) unsafe fn suspend(fiber: FiberPtr, after: &AfterSwitch<'_>) -> usize {
    let header = fiber.header();
    // SAFETY: the caller's promise; `after` is on this stack, which the idle context reads before
    // it lets anybody resume us.
    unsafe {
        sanitize::before_suspend(header.sanitize.get());
        let word = Context::suspend(fiber.context(), after as *const _ as usize);
        sanitize::after_suspend(header.sanitize.get());
        word
    }
}

/// Runs `fiber` until it suspends, and returns what it wants done.
///
/// # Safety
/// `fiber` is fresh or suspended, and the caller is its holder; `worker` is the calling worker,
/// and `thread` the calling thread's sanitizer state.
#[inline(always)]
pub(crate) unsafe fn resume<'a>(
    fiber: FiberPtr,
    worker: usize,
    thread: *mut sanitize::ThreadState,
) -> AfterSwitch<'a> {
    let header = fiber.header();
    // SAFETY: the caller's promise.
    let word = unsafe {
        sanitize::before_resume(thread, header.sanitize.get());
        let word = Context::resume(fiber.context(), worker);
        sanitize::after_resume(thread, header.sanitize.get());
        word
    };
    // SAFETY: the word is the address of an `AfterSwitch` that `suspend` or `entry` handed over: in
    // a frame that stays until we resume the fiber, or a constant. It is copied out. What it refers
    // to is good for as long: the caller must be done with it before somebody may resume the fiber.
    unsafe { *(word as *const AfterSwitch<'a>) }
}
