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
use super::offer::Left;
use super::remote::bump;
use super::shared::{Phase, Shared};
use super::submit::wake_waiter;
use super::timers::Timers;
use super::{Remote, current};
use crate::coro::header::Waiting;
use crate::coro::{
    AfterSwitch, FiberList, FiberPtr, OnCancel, PendingPtr, TimerPtr, Wait, Waiter, entry, park,
    spans,
};
use crate::driver::lower::{self, Inline};
use crate::driver::{self, Caps, Driver};
use crate::stack::{Cache, Stack, sanitize};
use crate::sys::clock;
use crate::sys::thread_end::Marker;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Resumes between two looks at everything else.
const BUDGET: u32 = 64;
/// How many fresh fibers a pass starts while another worker looks for some.
const FRESH_SHARED: u32 = 4;
/// How often in a row a just-woken fiber may pass those that have waited longer.
pub(super) const MAX_NEXT: u32 = 3;
/// After so many operations that did not have to wait, the worker's fibers take turns.
const TURN: u32 = 256;
/// Identifiers are handed to workers in blocks, so that a spawn touches no shared counter.
const ID_BLOCK: u64 = 1024;

static NEXT_SERIAL: AtomicUsize = AtomicUsize::new(2);

/// See the module's head.
pub(crate) struct Worker {
    running: Cell<Option<FiberPtr>>,
    /// Even, and of no other worker there ever was; see `current::place`.
    pub(super) serial: usize,
    /// The fiber woken last, which runs next: its data is still in the cache.
    pub(super) next: Cell<Option<FiberPtr>>,
    pub(super) next_in_a_row: Cell<u32>,
    /// Started fibers that are ready.
    pub(super) ready: FiberList,
    pub(super) fresh: Fresh,
    pub(super) joins: Joins,
    /// There are other workers to share work with.
    pub(super) shares: bool,
    /// Cleared when `fresh` is found empty, so that yielding fibers need not ask it.
    pub(super) fresh_hint: Cell<bool>,
    pub(super) left: Left,
    /// Fresh fibers started in this pass.
    fresh_started: Cell<u32>,
    /// Which of the two queues is asked first; they take turns.
    fresh_first: Cell<bool>,
    /// Operations left in this turn; see `spend_turn`.
    turn: Cell<u32>,
    /// Set to leave the loop.
    pub(super) stop: Cell<bool>,
    /// The fiber at whose end the loop is left.
    pub(super) main: Cell<Option<FiberPtr>>,
    /// The runtime shuts down: every op fails at once.
    draining: Cell<bool>,
    /// Goes before any thread-local value that a suspended fiber may have borrowed.
    pub(super) marker: Marker,
    /// Fibers started here.
    pub(super) started: Cell<u64>,
    /// No fiber may be resumed any more.
    pub(super) lost: Cell<bool>,
    pub(super) remote: &'static Remote,
    pub(super) shared: Arc<Shared>,
    caps: Arc<Caps>,
    inline: Inline,
    /// Ops handed to the driver since its last turn.
    queued: Cell<usize>,
    index: usize,
    next_id: Cell<u64>,
    ids_end: Cell<u64>,
    pub(super) driver: RefCell<Driver>,
    pub(super) timers: RefCell<Timers>,
    pub(super) stacks: RefCell<Cache>,
    pub(super) sanitize: UnsafeCell<sanitize::ThreadState>,
    pub(super) search: super::search::State,
}

impl Worker {
    /// Makes worker `index` of a runtime, for the calling thread.
    pub(crate) fn new(shared: Arc<Shared>, index: usize) -> io::Result<Self> {
        let remote = shared.seat(index).remote();
        let driver = Driver::new(&shared.config().driver, &remote.sleep)?;
        remote.set_waker(driver.waker());
        let fresh = Fresh::new(shared.workers() > 1);
        shared.seat(index).take(fresh.stealer());
        Ok(Self {
            running: Cell::new(None),
            serial: NEXT_SERIAL.fetch_add(2, Ordering::Relaxed),
            next: Cell::new(None),
            next_in_a_row: Cell::new(0),
            ready: FiberList::default(),
            fresh,
            joins: Joins::new(),
            shares: shared.workers() > 1,
            fresh_hint: Cell::new(false),
            left: Left::default(),
            fresh_started: Cell::new(0),
            fresh_first: Cell::new(false),
            turn: Cell::new(TURN),
            stop: Cell::new(false),
            main: Cell::new(None),
            draining: Cell::new(false),
            marker: Marker::new(current::forget),
            started: Cell::new(0),
            lost: Cell::new(false),
            remote,
            caps: Arc::clone(driver.caps()),
            queued: Cell::new(0),
            inline: Inline::new(shared.config().inline, driver.caps()),
            index,
            next_id: Cell::new(0),
            ids_end: Cell::new(0),
            driver: RefCell::new(driver),
            timers: RefCell::new(Timers::new()),
            stacks: RefCell::new(Cache::new(shared.stacks())),
            sanitize: UnsafeCell::new(sanitize::ThreadState::new()),
            search: super::search::State::new(shared.config()),
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

    #[inline(always)]
    pub(crate) fn inline(&self) -> &Inline {
        &self.inline
    }

    /// How many fibers and ops are in line here.
    #[inline]
    pub(crate) fn crowd(&self) -> usize {
        self.ready.len() + self.queued.get()
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
        Ok(self.create_on(self.alloc_stack()?, name, f))
    }

    /// As `create`, on a stack of the caller's.
    #[inline]
    pub(crate) fn create_on<F, T>(&self, stack: Stack, name: Option<Arc<str>>, f: F) -> FiberPtr
    where
        F: FnOnce() -> T,
    {
        bump(&self.remote.spawned);
        entry::create(stack, self.next_id(), Remote::none_yet(&self.shared), name, f)
    }

    /// Publishes a fresh fiber that only this worker may start.
    #[inline]
    pub(crate) fn push_ready(&self, fiber: FiberPtr) {
        self.remote.set_home(fiber);
        self.ready.push(fiber);
    }

    /// Publishes a fiber of this worker that somebody has just woken: it runs next.
    #[inline]
    pub(crate) fn push_woken(&self, fiber: FiberPtr) {
        if let Some(earlier) = self.next.replace(Some(fiber)) {
            self.ready.push(earlier);
        }
    }

    /// Whether its fiber will leave more than its stack behind when it suspends.
    #[inline]
    pub(super) fn has_joins(&self) -> bool {
        !self.joins.is_empty()
    }

    /// Arms the timer of a bound, unless no deadline is waited for any more.
    pub(crate) fn arm(&self, timer: TimerPtr) {
        if !self.draining.get() {
            self.timers.borrow_mut().insert(timer);
        }
    }

    /// Takes a timer out that has not fired.
    pub(crate) fn disarm(&self, timer: TimerPtr) {
        self.timers.borrow_mut().remove(timer);
    }

    /// Hands over an op of a batch; its fiber runs on.
    pub(super) fn enqueue(&self, op: PendingPtr) {
        self.queued.set(self.queued.get() + 1);
        self.driver.borrow_mut().enqueue(op, &self.ready);
    }

    /// Asks for an op in flight to end.
    pub(super) fn cancel_op(&self, op: PendingPtr) {
        self.driver.borrow_mut().cancel(op);
    }

    pub(crate) fn close(&self, fd: OwnedFd) {
        self.driver.borrow_mut().close(fd);
    }

    /// Runs fibers until `main`, a fresh fiber of this worker, has ended. The thread has left its
    /// spans.
    pub(crate) fn run_main(&self, main: FiberPtr) {
        self.main.set(Some(main));
        self.push_ready(main);
        // No foreign code in between: it might run fibers, and this one to its end.
        self.run_loop(None);
        self.main.set(None);
    }

    // ---- The loop -------------------------------------------------------------------------------

    /// Runs fibers until `stop`, or until the runtime has stopped, or until `deadline_ns`. The
    /// thread leaves its tracing spans for as long: they are not its fibers'.
    pub(crate) fn run(&self, deadline_ns: Option<u64>) {
        let spans = spans::leave(None);
        self.run_loop(deadline_ns);
        spans.enter(None);
    }

    fn run_loop(&self, deadline_ns: Option<u64>) {
        let entered = self.enter();
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
        self.leave(entered);
    }

    /// Runs one pass without ever waiting. Returns the number of resumes.
    pub(crate) fn tick(&self) -> u64 {
        let spans = spans::leave(None);
        let entered = self.enter();
        let before = self.remote.resumes.load(Ordering::Relaxed);
        self.shared.idle().enter();
        self.stop.set(false); // set since the last main fiber has ended
        self.events();
        self.pass();
        self.shared.worker_gone(!self.fresh.is_empty());
        self.leave(entered);
        spans.enter(None);
        self.remote.resumes.load(Ordering::Relaxed) - before
    }

    /// Ready fibers up to the budget, then everything else once.
    fn pass(&self) {
        let (mut left, mut resumes) = (BUDGET, 0);
        self.fresh_started.set(0);
        if self.fresh.len() > 1 {
            let now_ns = clock::now_ns();
            self.fresh.age(now_ns);
            self.look_at_left_each_pass(now_ns);
        }
        while left > 0 {
            let Some(fiber) = self.pick() else { break };
            left = left.saturating_sub(self.step(fiber));
            resumes += 1;
        }
        let counter = &self.remote.resumes;
        counter.store(counter.load(Ordering::Relaxed) + resumes, Ordering::Relaxed);
        self.events();
        // An idle worker looks there anyway; but perhaps no worker is ever idle.
        if resumes != 0 && self.take_external() && self.shared.workers() > 1 {
            self.offer(self.fresh.len());
        }
    }

    #[inline]
    pub(super) fn has_ready(&self) -> bool {
        self.next.get().is_some() || !self.ready.is_empty() || !self.fresh.is_empty()
    }

    /// Counts an operation that might wait; whether the fiber ought to yield.
    #[inline]
    pub(crate) fn spend_turn(&self) -> bool {
        let left = self.turn.get() - 1;
        self.turn.set(if left == 0 { TURN } else { left });
        left == 0
    }

    /// Whether a fiber of this worker could run now besides the one that does.
    #[inline]
    pub(crate) fn has_others(&self) -> bool {
        self.has_ready() || self.remote.has_mail()
    }

    /// The fiber to run next: the one woken last, a few times in a row; else from the ready and the
    /// fresh ones by turns.
    #[inline]
    fn pick(&self) -> Option<FiberPtr> {
        if let Some(fiber) = self.next.get() {
            self.next.set(None);
            let in_a_row = self.next_in_a_row.get();
            if in_a_row < MAX_NEXT {
                self.next_in_a_row.set(in_a_row + 1);
                return Some(fiber);
            }
            self.ready.push(fiber);
        }
        self.next_in_a_row.set(0);
        if self.fresh_hint.get() {
            if !self.ready.is_empty() {
                let fresh_first = !self.fresh_first.get();
                self.fresh_first.set(fresh_first);
                if !fresh_first {
                    return self.ready.pop();
                }
            }
            let started = self.fresh_started.get();
            if started >= FRESH_SHARED
                && self.queued.get() != 0
                && self.shared.idle().somebody_searches()
            {
                // Somebody is on the way to share these. What the started ones asked for is handed
                // over meanwhile: fibers that ask for something may live long.
                return None;
            }
            self.look_at_first();
            if let Some(fiber) = self.fresh.pop() {
                bump(&self.remote.taken);
                self.fresh_started.set(started + 1);
                return Some(fiber);
            }
            self.fresh_hint.set(!self.fresh.is_empty());
        }
        self.ready.pop()
    }

    /// Runs one fiber until it leaves its stack, and does what it asked for. Returns what that
    /// counts for in the pass: all of it, if the loop is to be left.
    #[inline]
    fn step(&self, fiber: FiberPtr) -> u32 {
        if !fiber.header().started.get() {
            fiber.header().started.set(true);
            self.remote.set_home(fiber);
            self.count_start();
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
        self.marker.renew();
        match after {
            AfterSwitch::Yield => self.ready.push(fiber),
            AfterSwitch::Breathe => {
                self.ready.push(fiber);
                return lower::YIELD_COST;
            }
            AfterSwitch::Submit(op) => self.submit(fiber, op),
            AfterSwitch::Wait(wait) => self.register(fiber, wait),
            AfterSwitch::Join(other) => self.join(fiber, other),
            AfterSwitch::Ended => {
                self.ended(fiber);
                if self.stop.get() {
                    return BUDGET;
                }
            }
            AfterSwitch::Free => self.free(fiber),
            AfterSwitch::ChildEnded(children) => self.child_ended(fiber, children),
            AfterSwitch::FreeChild(children) => {
                self.free(fiber);
                wake_waiter(children.ended(self.place()));
            }
        }
        1
    }

    /// Whether no op of this fiber may begin now: it was cancelled, or the runtime shuts down.
    #[inline]
    pub(crate) fn refuses(&self, fiber: FiberPtr) -> bool {
        fiber.header().cancel.is_requested_before_wait() || self.draining.get()
    }

    #[inline]
    fn submit(&self, fiber: FiberPtr, op: PendingPtr) {
        // SAFETY: the op is ours now, and the reference does not leave this line.
        if self.refuses(fiber) && unsafe { op.op() }.can_be_refused() {
            op.set_outcome(-libc::ECANCELED);
            self.ready.push(fiber);
            return;
        }
        fiber.header().waiting.set(Waiting::Op(op));
        self.queued.set(self.queued.get() + 1);
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
            wait.held.inspect(|lock| lock.store(false, Ordering::Release));
            return;
        }
        header.waiting.set(Waiting::Signal(wait.signal.into(), wait.on_cancel));
        let waiter = Waiter::Fiber(fiber.address());
        if let Some(lock) = wait.held {
            wait.signal.register_first(waiter);
            lock.store(false, Ordering::Release);
        } else if !wait.signal.register(waiter) {
            self.push_woken(fiber);
        }
        if let Some(timer) = wait.timer {
            // A fiber that is never resumed keeps its stack for ever, and a heap that is dropped
            // looks at none of its timers.
            // SAFETY: the timer is on the stack the fiber has just left; `submit::wait` takes it
            // out of the heap before it leaves that frame, and nothing unwinds before.
            self.timers.borrow_mut().insert(unsafe { TimerPtr::new(timer) });
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
        self.turn(driver::Wait::No);
    }

    #[inline]
    pub(super) fn turn(&self, wait: driver::Wait) {
        self.queued.set(0);
        self.driver.borrow_mut().turn(&self.ready, wait);
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

    #[inline]
    fn fire_timers(&self) {
        if self.timers.borrow().next_deadline_ns().is_some() {
            self.fire_timers_until(clock::now_ns());
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
