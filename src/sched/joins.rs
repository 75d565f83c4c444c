//! Joins whose second half nobody has begun: the running fiber's, newest last.
//!
//! `join(a, b)` puts a [`Link`] for `b` into this list, on its own frame, and runs `a`. Usually it
//! finds the link still there when `a` returns, and runs `b` itself: a few plain stores are all
//! that the join has cost. A link leaves the list earlier when its `b` can run beside `a`. Then it
//! is *promoted*: a fresh fiber is made that will run it, which goes the way of all fresh fibers.
//!
//! - **When a fiber suspends**, all its links are promoted: nothing else runs its `b`s meanwhile,
//!   and `a` may wait for what `b` does.
//! - **When other workers are idle**, the oldest links are: as a rule they have the most work
//!   behind them. The owner looks at each join whether anybody is idle, and keeps as many fresh
//!   fibers in its queue as there are idle workers.
//! - **When its queue is empty**, the oldest link is, though nobody is idle: somebody may be in a
//!   moment, and what runs next may neither join nor suspend for long. Each time such a fiber is
//!   taken back unstarted, twice as many joins are let pass before the next attempt, so that joins
//!   that are too small to be stolen cost little.
//!
//! Invariants.
//! 1. The list holds links of the running fiber only: when a fiber has left its stack, its links
//!    are promoted before anything else is done (`Worker::step`).
//! 2. A link in the list is on a frame that is not left before it is out of the list. A promoted
//!    link is on one that is not left before the fiber has ended, or has been reclaimed unstarted.
//! 3. So nothing is promoted that could not be waited for: never while the thread unwinds, and
//!    never in `no_suspend`. A link that was pushed there is popped there.

use super::Worker;
use super::current;
use super::remote::bump;
use crate::coro::FiberPtr;
use std::cell::Cell;
use std::ptr;

/// The second half of a join, as the scheduler knows it.
pub(crate) struct Link {
    older: Cell<*const Link>,
    /// Good while a newer one is in the list.
    newer: Cell<*const Link>,
    /// The fiber that runs it, once it is out of the list; `None` if there was no stack for one.
    promoted: Cell<Option<FiberPtr>>,
    run: unsafe fn(*const Link),
}

impl Link {
    /// `run` is called with the address of the link, on a fiber that may be any worker's, once.
    #[inline(always)]
    pub(crate) fn new(run: unsafe fn(*const Link)) -> Self {
        Self {
            older: Cell::new(ptr::null()),
            newer: Cell::new(ptr::null()),
            promoted: Cell::new(None),
            run,
        }
    }

    /// See the field.
    pub(crate) fn promoted(&self) -> Option<FiberPtr> {
        self.promoted.get()
    }
}

/// A link on its way to the thread that runs it.
struct Promoted(*const Link);

// SAFETY: the link is used by one thread at a time: by its owner until the fiber is published, then
// by the fiber. What `run` touches beside it is `Send`, as `Worker::push_join` demands.
unsafe impl Send for Promoted {}

impl Promoted {
    fn run(self) {
        // SAFETY: a promoted link is alive until its fiber has ended (invariant 2), and is run by
        // that fiber only.
        unsafe { ((*self.0).run)(self.0) }
    }
}

/// See the module's head.
pub(super) struct Joins {
    newest: Cell<*const Link>,
    /// Good while the list is not empty.
    oldest: Cell<*const Link>,
    /// Joins to let pass before the queue is filled for nobody in particular.
    pass: Cell<u32>,
    /// How many that were the last time.
    passed: Cell<u32>,
}

/// The most joins to let pass.
const PASS_MOST: u32 = 1023;

impl Joins {
    pub(super) fn new() -> Self {
        Self {
            newest: Cell::new(ptr::null()),
            oldest: Cell::new(ptr::null()),
            pass: Cell::new(0),
            passed: Cell::new(0),
        }
    }

    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.newest.get().is_null()
    }

    /// # Safety
    /// `link` stays where it is while it is in the list.
    #[inline(always)]
    unsafe fn push(&self, link: *const Link) {
        let older = self.newest.get();
        // SAFETY: the caller's promise, for `link` now and for `older` when it was pushed.
        unsafe {
            (*link).older.set(older);
            match older.as_ref() {
                Some(older) => older.newer.set(link),
                None => self.oldest.set(link),
            }
        }
        self.newest.set(link);
    }

    /// Takes `link` out, if it is there, and then it is the newest.
    #[inline(always)]
    fn pop(&self, link: &Link) -> bool {
        let is_there = ptr::eq(self.newest.get(), link);
        if is_there {
            self.newest.set(link.older.get());
        }
        is_there
    }

    fn oldest(&self) -> Option<*const Link> {
        (!self.is_empty()).then(|| self.oldest.get())
    }

    /// Takes the oldest out.
    fn pop_oldest(&self) {
        let oldest = self.oldest.get();
        if ptr::eq(oldest, self.newest.get()) {
            return self.newest.set(ptr::null());
        }
        // SAFETY: both are in the list, so they are alive (`push`).
        unsafe {
            let next = (*oldest).newer.get();
            (*next).older.set(ptr::null());
            self.oldest.set(next);
        }
    }
}

impl Worker {
    /// Puts a link into the list.
    ///
    /// # Safety
    /// `link` is good for as long as invariant 2 says. What its `run` touches may be sent to
    /// another thread.
    #[inline(always)]
    pub(crate) unsafe fn push_join(&self, link: *const Link) {
        // SAFETY: the caller's promise.
        unsafe { self.joins.push(link) };
    }

    /// Takes the link out that this fiber has pushed last and not popped. `false` if it has been
    /// promoted.
    #[inline(always)]
    pub(crate) fn pop_join(&self, link: &Link) -> bool {
        self.joins.pop(link)
    }

    /// Lets idle workers have some, if there are any.
    #[inline(always)]
    pub(crate) fn share_joins(&self) {
        if self.shares {
            if self.shared.idle().somebody_idle(self.shared.workers()) {
                self.share_joins_slow();
            } else if self.fresh.is_empty() {
                match self.joins.pass.get() {
                    0 => self.share_joins_slow(),
                    pass => self.joins.pass.set(pass - 1),
                }
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn share_joins_slow(&self) {
        self.fresh.answer();
        let wanted = self.shared.idle().idle_of(self.shared.workers()).max(1);
        let mut queued = self.fresh.len();
        if queued >= wanted || !current::can_suspend() {
            return;
        }
        while queued < wanted
            && let Some(link) = self.joins.oldest()
            && let Some(fiber) = self.promote(link)
        {
            self.joins.pop_oldest();
            self.queue_fresh(fiber);
            queued = self.fresh.len();
            self.offer(queued);
        }
    }

    /// The fiber whose links these are has left its stack.
    #[cold]
    #[inline(never)]
    pub(super) fn promote_joins(&self) {
        // The oldest first: the newest is then the first to be run here.
        while let Some(link) = self.joins.oldest() {
            let fiber = self.promote(link);
            self.joins.pop_oldest();
            if let Some(fiber) = fiber {
                self.queue_fresh(fiber);
            }
        }
        if self.shares && !self.fresh.is_empty() {
            self.offer(self.fresh.len());
        }
    }

    /// Makes a fiber for a link; the caller takes that out of the list and publishes the fiber.
    fn promote(&self, link: *const Link) -> Option<FiberPtr> {
        let promoted = Promoted(link);
        // Without memory for a stack the fiber that joins runs it itself, later.
        let fiber = self.create(None, move || promoted.run()).ok();
        // SAFETY: it is in the list, so it is alive.
        unsafe { (*link).promoted.set(fiber) };
        fiber
    }

    /// Takes a promoted fiber back, if nobody has started it and it is the next that this worker
    /// would: it is gone then, and its link not run.
    pub(crate) fn reclaim_join(&self, fiber: FiberPtr) -> bool {
        if !self.fresh.pop_if(fiber) {
            self.joins.passed.set(0);
            return false;
        }
        let pass = (2 * self.joins.passed.get() + 1).min(PASS_MOST);
        self.joins.passed.set(pass);
        self.joins.pass.set(pass);
        bump(&self.remote.taken);
        self.count_start(); // of those that have ended here, each has started here
        // Its closure, a `Promoted`, has nothing to drop.
        self.free(fiber);
        true
    }
}
