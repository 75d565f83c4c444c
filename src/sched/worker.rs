//! A worker: one OS thread that runs fibers.
//!
//! The loop: run ready fibers, at most [`BUDGET`] of them; then, however many are left, take what
//! other threads sent, run due timers, and give the driver a turn without waiting. So ready fibers
//! never keep I/O waiting, and the driver is entered once per pass rather than once per op. With
//! nothing left to run, look for work elsewhere (`search.rs`), and sleep.
//!
//! All fields are used by the worker's own thread only: by its idle context, or by the fiber that
//! it has resumed, never by both at once. No borrow of a `RefCell` is held across a switch.

use super::fresh::Fresh;
use super::joins::Joins;
use super::remote::bump;
use super::shared::{Phase, Shared};
use super::submit::wake_waiter;
use super::timers::Timers;
use super::{Remote, current};
use crate::coro::header::Waiting;
use crate::coro::{
    AfterSwitch, FiberList, FiberPtr, OnCancel, PendingPtr, TimerPtr, Wait, Waiter, entry, park,
};
use crate::driver::{self, Caps, Driver};
use crate::stack::{Cache, Stack, sanitize};
use crate::sys::clock;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Resumes between two looks at everything else.
const BUDGET: u32 = 64;
/// How many fresh fibers a pass starts while another worker looks for some.
const FRESH_SHARED: u32 = 4;
/// How often in a row a just-woken fiber may pass those that have waited longer.
const MAX_NEXT: u32 = 3;
/// Identifiers are handed to workers in blocks, so that a spawn touches no shared counter.
const ID_BLOCK: u64 = 1024;

/// See the module's head.
pub(crate) struct Worker {
    running: Cell<Option<FiberPtr>>,
    /// The fiber woken last, which runs next: its data is still in the cache.
    next: Cell<Option<FiberPtr>>,
    next_in_a_row: Cell<u32>,
    /// Started fibers that are ready.
    pub(super) ready: FiberList,
    pub(super) fresh: Fresh,
    pub(super) joins: Joins,
    /// There are other workers to share work with.
    pub(super) shares: bool,
    /// Cleared when `fresh` is found empty, so that yielding fibers need not ask it.
    fresh_hint: Cell<bool>,
    /// Fresh fibers started in this pass.
    fresh_started: Cell<u32>,
    /// Which of the two queues is asked first; they take turns.
    fresh_first: Cell<bool>,
    /// Set to leave the loop.
    stop: Cell<bool>,
    /// The fiber at whose end the loop is left.
    main: Cell<Option<FiberPtr>>,
    /// The runtime shuts down: every op fails at once.
    draining: Cell<bool>,
    pub(super) remote: &'static Remote,
    pub(super) shared: Arc<Shared>,
    caps: Arc<Caps>,
    index: usize,
    next_id: Cell<u64>,
    ids_end: Cell<u64>,
    pub(super) driver: RefCell<Driver>,
    pub(super) timers: RefCell<Timers>,
    pub(super) stacks: RefCell<Cache>,
    sanitize: UnsafeCell<sanitize::ThreadState>,
    pub(super) search: super::search::State,
}

impl Worker {
    /// Makes worker `index` of a runtime, for the calling thread.
    pub(crate) fn new(shared: Arc<Shared>, index: usize) -> io::Result<Self> {
        let remote = shared.seat(index).remote();
        let config = driver::Config {
            ring_entries: shared.config().ring_entries,
            wake: shared.wake_method(),
        };
        let driver = Driver::new(&config, &remote.sleep)?;
        remote.set_waker(driver.waker());
        let fresh = Fresh::new(shared.workers() > 1);
        shared.seat(index).take(fresh.stealer());
        Ok(Self {
            running: Cell::new(None),
            next: Cell::new(None),
            next_in_a_row: Cell::new(0),
            ready: FiberList::default(),
            fresh,
            joins: Joins::new(),
            shares: shared.workers() > 1,
            fresh_hint: Cell::new(false),
            fresh_started: Cell::new(0),
            fresh_first: Cell::new(false),
            stop: Cell::new(false),
            main: Cell::new(None),
            draining: Cell::new(false),
            remote,
            caps: Arc::clone(driver.caps()),
            index,
            next_id: Cell::new(0),
            ids_end: Cell::new(0),
            driver: RefCell::new(driver),
            timers: RefCell::default(),
            stacks: RefCell::new(Cache::new(shared.stacks())),
            sanitize: UnsafeCell::new(sanitize::ThreadState::new()),
            search: super::search::State::new(shared.workers()),
            shared,
        })
    }

    #[inline(always)]
    pub(crate) fn running(&self) -> Option<FiberPtr> {
        self.running.get()
    }

    #[inline(always)]
    pub(crate) fn remote(&self) -> &'static Remote {
        self.remote
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    #[inline(always)]
    pub(crate) fn caps(&self) -> &Caps {
        &self.caps
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    pub(crate) fn index(&self) -> usize {
        self.index
    }

    /// An identifier that no other fiber of this process has or will have.
    #[inline]
    pub(super) fn next_id(&self) -> u64 {
        static BLOCKS: AtomicU64 = AtomicU64::new(1);
        if self.next_id.get() == self.ids_end.get() {
            let block = BLOCKS.fetch_add(1, Ordering::Relaxed);
            self.next_id.set(block * ID_BLOCK);
            self.ids_end.set((block + 1) * ID_BLOCK);
        }
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        id
    }

    // ---- Called by fibers of this worker --------------------------------------------------------

    /// Makes a fresh fiber; the caller publishes it.
    #[inline]
    pub(crate) fn create<F, T>(&self, name: Option<Arc<str>>, f: F) -> io::Result<FiberPtr>
    where
        F: FnOnce() -> T,
    {
        let stack = self.stacks.borrow_mut().alloc()?;
        Ok(self.create_on(stack, name, f))
    }

    /// As `create`, on a stack of the caller's.
    #[inline]
    pub(crate) fn create_on<F, T>(&self, stack: Stack, name: Option<Arc<str>>, f: F) -> FiberPtr
    where
        F: FnOnce() -> T,
    {
        bump(&self.remote.spawned);
        entry::create(stack, self.next_id(), name, f)
    }

    /// Queues a fresh fiber and tells nobody.
    #[inline]
    pub(super) fn queue_fresh(&self, fiber: FiberPtr) {
        self.fresh.push(fiber);
        self.fresh_hint.set(true);
    }

    /// Publishes a fresh fiber that any worker may start.
    #[inline]
    pub(crate) fn push_fresh(&self, fiber: FiberPtr) {
        self.queue_fresh(fiber);
        if self.shared.workers() > 1 {
            self.shared.offered(self.fresh.len());
        }
    }

    /// Publishes a fresh fiber that only this worker may start, or a started one of this worker.
    #[inline]
    pub(crate) fn push_ready(&self, fiber: FiberPtr) {
        self.ready.push(fiber);
    }

    /// Publishes a fiber of this worker that somebody has just woken: it runs next.
    #[inline]
    pub(crate) fn push_woken(&self, fiber: FiberPtr) {
        if let Some(earlier) = self.next.replace(Some(fiber)) {
            self.ready.push(earlier);
        }
    }

    /// Takes a timer out that has not fired.
    pub(crate) fn disarm(&self, timer: TimerPtr) {
        self.timers.borrow_mut().remove(timer);
    }

    pub(crate) fn close(&self, fd: OwnedFd) {
        self.driver.borrow_mut().close(fd);
    }

    /// Gives back the stack of a fiber that is gone.
    #[inline]
    pub(crate) fn free_stack(&self, stack: Stack) {
        if std::ptr::eq(stack.pool(), self.shared.stacks()) {
            self.stacks.borrow_mut().free(stack);
        } else {
            stack.pool().free(stack);
        }
    }

    /// Whether `release_stacks` would let go of any.
    pub(super) fn keeps_stacks(&self) -> bool {
        self.stacks.borrow().keeps()
    }

    /// Lets go of most of the stacks kept for the next spawns.
    pub(super) fn release_stacks(&self) {
        self.stacks.borrow_mut().release();
    }

    /// Runs fibers until `main`, a fiber of this worker that is ready, has ended.
    pub(crate) fn run_main(&self, main: FiberPtr) {
        self.main.set(Some(main));
        self.push_ready(main);
        self.run(None);
        self.main.set(None);
    }

    // ---- The loop -------------------------------------------------------------------------------

    /// Runs fibers until `stop`, or until the runtime has stopped, or until `deadline_ns`.
    pub(crate) fn run(&self, deadline_ns: Option<u64>) {
        let entered = current::enter(self);
        self.shared.idle().enter();
        self.stop.set(false);
        loop {
            if self.has_ready() {
                self.stop_looking();
            }
            self.pass();
            if self.stop.get() || self.shared.phase() == Phase::Stopped {
                break;
            }
            if deadline_ns.is_some_and(|deadline_ns| clock::now_ns() >= deadline_ns) {
                break;
            }
            if self.has_ready() {
                self.decline_summons();
            } else if !self.look_for_work() && !self.has_ready() {
                self.sleep(deadline_ns);
            }
        }
        self.leave_search();
        self.shared.worker_gone(!self.fresh.is_empty());
        entered.leave();
    }

    /// Runs one pass without ever waiting. Returns the number of resumes.
    pub(crate) fn tick(&self) -> u64 {
        let entered = current::enter(self);
        let before = self.remote.resumes.load(Ordering::Relaxed);
        self.shared.idle().enter();
        self.stop.set(false);
        self.events();
        self.pass();
        self.shared.worker_gone(!self.fresh.is_empty());
        entered.leave();
        self.remote.resumes.load(Ordering::Relaxed) - before
    }

    /// Ready fibers up to the budget, then everything else once.
    fn pass(&self) {
        let mut left = BUDGET;
        self.fresh_started.set(0);
        while left > 0 && !self.stop.get() {
            let Some(fiber) = self.pick() else { break };
            self.step(fiber);
            left -= 1;
            if self.fresh_started.get() >= FRESH_SHARED && self.shared.idle().somebody_searches() {
                // Somebody is on the way to share these. Handing over what the started ones asked
                // for costs time only if they asked for something, and then they may live long.
                break;
            }
        }
        let resumes = &self.remote.resumes;
        resumes
            .store(resumes.load(Ordering::Relaxed) + u64::from(BUDGET - left), Ordering::Relaxed);
        self.events();
        // An idle worker looks there anyway; but perhaps no worker is ever idle.
        if left < BUDGET && self.take_external() && self.shared.workers() > 1 {
            self.shared.offered(self.fresh.len());
        }
    }

    #[inline]
    pub(super) fn has_ready(&self) -> bool {
        self.next.get().is_some() || !self.ready.is_empty() || !self.fresh.is_empty()
    }

    /// The fiber to run next: the one woken last, a few times in a row; else from the ready and the
    /// fresh ones by turns.
    #[inline]
    fn pick(&self) -> Option<FiberPtr> {
        if let Some(fiber) = self.next.take() {
            let in_a_row = self.next_in_a_row.get();
            if in_a_row < MAX_NEXT {
                self.next_in_a_row.set(in_a_row + 1);
                return Some(fiber);
            }
            self.ready.push(fiber);
        }
        self.next_in_a_row.set(0);
        if !self.fresh_hint.get() {
            return self.ready.pop();
        }
        let fresh_first = !self.fresh_first.get();
        self.fresh_first.set(fresh_first);
        if fresh_first {
            self.pop_fresh().or_else(|| self.ready.pop())
        } else {
            self.ready.pop().or_else(|| self.pop_fresh())
        }
    }

    #[inline]
    fn pop_fresh(&self) -> Option<FiberPtr> {
        let fiber = self.fresh.pop();
        if fiber.is_none() {
            self.fresh_hint.set(false);
            return None;
        }
        bump(&self.remote.taken);
        self.fresh_started.set(self.fresh_started.get() + 1);
        fiber
    }

    /// Runs one fiber until it leaves its stack, and does what it asked for.
    #[inline]
    fn step(&self, fiber: FiberPtr) {
        if fiber.header().home.load(Ordering::Relaxed).is_null() {
            self.remote.set_home(fiber);
        }
        self.running.set(Some(fiber));
        // SAFETY: it was in one of our queues, so we are its holder (`coro/mod.rs`), and it is
        // fresh or suspended: a running fiber is in no queue. `self` and its sanitizer state are
        // this thread's.
        let after = unsafe {
            park::resume(fiber, (self as *const Self).expose_provenance(), self.sanitize.get())
        };
        self.running.set(None);
        if !self.joins.is_empty() {
            self.promote_joins();
        }
        match after {
            AfterSwitch::Yield => self.ready.push(fiber),
            AfterSwitch::Submit(op) => self.submit(fiber, op),
            AfterSwitch::Wait(wait) => self.register(fiber, wait),
            AfterSwitch::Ended => _ = self.ended(fiber),
            AfterSwitch::Free => self.free(fiber),
            AfterSwitch::ChildEnded(children) => {
                if self.ended(fiber) {
                    wake_waiter(children.ended(self.place()));
                }
            }
            AfterSwitch::FreeChild(children) => {
                self.free(fiber);
                wake_waiter(children.ended(self.place()));
            }
        }
    }

    #[inline]
    fn submit(&self, fiber: FiberPtr, op: PendingPtr) {
        let refused = fiber.header().cancel.is_requested_before_wait() || self.draining.get();
        // SAFETY: the op is ours now, and the reference does not leave this line.
        if refused && unsafe { op.op() }.can_be_refused() {
            op.set_outcome(-libc::ECANCELED);
            self.ready.push(fiber);
            return;
        }
        fiber.header().waiting.set(Waiting::Op(op));
        self.driver.borrow_mut().enqueue(op, &self.ready);
    }

    #[inline]
    fn register(&self, fiber: FiberPtr, wait: &Wait<'_>) {
        let header = fiber.header();
        let ends = wait.on_cancel == OnCancel::End;
        if (ends && header.cancel.is_requested_before_wait())
            // No deadline is waited for any more.
            || (self.draining.get() && (ends || wait.timer.is_some()))
        {
            self.ready.push(fiber);
            return;
        }
        header.waiting.set(Waiting::Signal(wait.signal.into(), wait.on_cancel));
        if let Some(timer) = wait.timer {
            // SAFETY: the timer is on the stack the fiber has just left. Only this thread resumes
            // the fiber, and then `submit::wait` takes the timer out of the heap before it does
            // anything that could unwind. A fiber that is never resumed keeps its stack for ever,
            // and a heap that is dropped looks at none of its timers.
            self.timers.borrow_mut().insert(unsafe { TimerPtr::new(timer) });
        }
        if !wait.signal.register(Waiter::Fiber(fiber.address())) {
            self.push_woken(fiber);
        }
    }

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

    /// Everything that is not a ready fiber: what others sent, due timers, the driver.
    #[inline]
    pub(super) fn events(&self) {
        self.take_inbox();
        self.take_external();
        self.fire_timers();
        if self.shared.phase() != Phase::Running && !self.draining.replace(true) {
            self.drain();
        }
        self.driver.borrow_mut().turn(&self.ready, driver::Wait::No);
    }

    #[inline]
    fn take_inbox(&self) {
        for woken in self.remote.woken.take() {
            self.ready.push(woken.0);
        }
        for cancelled in self.remote.cancels.take() {
            let fiber = cancelled.0;
            fiber.header().cancel.unlist();
            self.cancel_wait(fiber);
            // SAFETY: the list's own reference.
            if let Some(stack) = unsafe { fiber.release() } {
                self.free_stack(stack);
            }
        }
    }

    /// Ends the wait of a fiber of this worker for which a cancel request has come.
    pub(crate) fn cancel_wait(&self, fiber: FiberPtr) {
        if !fiber.header().cancel.is_requested() {
            return;
        }
        match fiber.header().waiting.get() {
            // SAFETY: the op is ours, and the reference does not leave this line.
            Waiting::Op(op) if unsafe { op.op() }.can_be_refused() => {
                self.driver.borrow_mut().cancel(op);
            }
            Waiting::Signal(signal, OnCancel::End) => {
                // SAFETY: `waiting` names a signal only from the moment the fiber has left its
                // stack until it is back on it (`submit::wait` clears it first thing), and only
                // this thread resumes it. So the fiber is suspended, and what it borrows for its
                // wait is alive.
                let signal = unsafe { signal.as_ref() };
                if signal.unregister(Waiter::Fiber(fiber.address())) {
                    self.ready.push(fiber);
                }
            }
            Waiting::Op(_) | Waiting::Signal(_, OnCancel::Ignore) | Waiting::Nothing => {}
        }
    }

    #[inline]
    fn fire_timers(&self) {
        if !self.timers.borrow().is_empty() {
            self.fire_timers_until(clock::now_ns());
        }
    }

    fn fire_timers_until(&self, now_ns: u64) {
        loop {
            let Some(timer) = self.timers.borrow_mut().pop_due(now_ns) else { return };
            let fiber = timer.fiber();
            if let Waiting::Signal(signal, _) = fiber.header().waiting.get() {
                // SAFETY: as in `cancel_wait`.
                if unsafe { signal.as_ref() }.unregister(Waiter::Fiber(fiber.address())) {
                    self.ready.push(fiber);
                }
            }
        }
    }

    /// The runtime shuts down: ends every wait that can be ended.
    fn drain(&self) {
        self.driver.borrow_mut().cancel_all();
        self.fire_timers_until(u64::MAX);
    }

    /// Publishes how much this worker still waits for.
    pub(super) fn publish_busy(&self) {
        let busy = self.driver.borrow().in_flight() + self.timers.borrow().len();
        self.remote.busy.store(busy, Ordering::Relaxed);
    }
}
