//! A runtime, as its workers share it: their seats, who sleeps, what came from outside.
//!
//! Which worker is woken for fresh fibers, and when none is, is decided here; the reasons and the
//! proof that no fiber is forgotten are in `README.md`.

use super::blocking;
use super::fresh::Stealer;
use super::idle::{Idle, Sleeper, Summons, Tell};
use super::remote::Woken;
use super::{Remote, Worker};
use crate::coro::FiberPtr;
use crate::coro::spans::foreign;
use crate::driver;
use crate::stack::Pool;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// What a runtime is built with.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) workers: usize,
    pub(crate) stack_bytes: usize,
    pub(crate) driver: driver::Config,
    pub(crate) blocking_threads: usize,
    pub(crate) spin: Duration,
    pub(crate) thread_name: String,
    /// Whether what needs no waiting is done by system calls on the spot.
    pub(crate) inline: bool,
}

/// A runtime's age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Running = 0,
    /// Every op fails, so that the fibers come to their ends.
    Draining = 1,
    /// Workers leave their loops.
    Stopped = 2,
}

/// One worker's place.
pub(crate) struct Seat {
    remote: &'static Remote,
    /// Whether its worker has been started, or is being started.
    reserved: AtomicBool,
    /// Its worker could not be started, and will not be.
    failed: AtomicBool,
    /// Set with the worker's first breath.
    stealer: OnceLock<Option<Stealer>>,
    /// It was woken to search, and is counted in `searching` already.
    summons: Summons,
}

impl Seat {
    pub(crate) fn remote(&self) -> &'static Remote {
        self.remote
    }

    pub(super) fn take(&self, stealer: Option<Stealer>) {
        self.reserved.store(true, Ordering::Relaxed);
        assert!(self.stealer.set(stealer).is_ok(), "two workers on one seat");
    }

    pub(super) fn stealer(&self) -> Option<&Stealer> {
        self.stealer.get()?.as_ref()
    }

    pub(super) fn take_summons(&self) -> bool {
        self.summons.take()
    }
}

impl Sleeper for Seat {
    fn is_asleep(&self) -> bool {
        self.remote.sleep.is_asleep()
    }

    fn summons(&self) -> &Summons {
        &self.summons
    }

    fn notify(&self) -> bool {
        self.remote.notify()
    }
}

/// Fibers spawned by threads that are not workers of this runtime.
struct External {
    queue: VecDeque<FiberPtr>,
    /// The runtime has ended.
    closed: bool,
}

/// See the module's head.
pub(crate) struct Shared {
    config: Config,
    stacks: &'static Pool,
    seats: Box<[Seat]>,
    idle: Idle,
    phase: AtomicU8,
    /// No more worker threads can be started: the system refused one.
    cannot_start: AtomicBool,
    external: Mutex<External>,
    external_len: AtomicUsize,
    external_spawned: AtomicUsize,
    /// Fibers that will never end (`lost.rs`).
    lost: AtomicU64,
    pool: blocking::Pool,
    /// For calls that may wait for ever: as many threads as there are such calls.
    waiters: blocking::Pool,
    /// Worker threads that have not ended.
    threads: Mutex<usize>,
    thread_ended: Condvar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn warn_not_started(worker: usize, error: &io::Error) {
    // By a worker's loop, among others, which a panic would end together with the process.
    foreign(|| tracing::warn!(worker, %error, "cannot start another worker; going on with fewer"));
}

impl Shared {
    pub(crate) fn new(config: Config) -> io::Result<Arc<Self>> {
        let stacks = Pool::get(config.stack_bytes)?;
        let seats = (0..config.workers)
            .map(|_| Seat {
                remote: Remote::acquire(),
                reserved: AtomicBool::new(false),
                failed: AtomicBool::new(false),
                stealer: OnceLock::new(),
                summons: Summons::new(),
            })
            .collect();
        Ok(Arc::new(Self {
            stacks,
            seats,
            idle: Idle::new(),
            phase: AtomicU8::new(Phase::Running as u8),
            cannot_start: AtomicBool::new(false),
            external: Mutex::new(External { queue: VecDeque::new(), closed: false }),
            external_len: AtomicUsize::new(0),
            external_spawned: AtomicUsize::new(0),
            lost: AtomicU64::new(0),
            pool: blocking::Pool::new(config.blocking_threads, &config.thread_name),
            waiters: blocking::Pool::new(usize::MAX, &config.thread_name),
            threads: Mutex::new(0),
            thread_ended: Condvar::new(),
            config,
        }))
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn workers(&self) -> usize {
        self.seats.len()
    }

    pub(crate) fn seat(&self, index: usize) -> &Seat {
        &self.seats[index]
    }

    /// Whether this is the remote of one of its workers.
    pub(crate) fn has_seat_of(&self, remote: &Remote) -> bool {
        self.seats.iter().any(|seat| std::ptr::eq(seat.remote(), remote))
    }

    pub(crate) fn seats(&self) -> &[Seat] {
        &self.seats
    }

    pub(crate) fn stacks(&self) -> &'static Pool {
        self.stacks
    }

    pub(crate) fn pool(&self) -> &blocking::Pool {
        &self.pool
    }

    pub(crate) fn waiters(&self) -> &blocking::Pool {
        &self.waiters
    }

    #[inline]
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Running,
            1 => Phase::Draining,
            _ => Phase::Stopped,
        }
    }

    pub(super) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::SeqCst);
        for seat in &self.seats {
            seat.remote.notify();
        }
    }

    // ---- Waking for fresh fibers ----------------------------------------------------------------

    /// A worker has queued a fresh fiber and has `queued` of them now.
    #[inline]
    pub(super) fn offered(self: &Arc<Self>, queued: usize) -> bool {
        // See README.md, "The fence of the giver".
        let tell = self.idle.offered(queued);
        if tell == Tell::Somebody {
            self.wake_one();
        }
        tell == Tell::Sentry
    }

    /// Gets one more worker to look for work, unless one does already or all run.
    #[inline]
    pub(super) fn wake_one(self: &Arc<Self>) {
        if self.idle.somebody_searches() {
            return;
        }
        if self.idle.somebody_sleeps() || self.can_start() {
            self.wake_one_slow();
        }
    }

    #[inline]
    fn can_start(&self) -> bool {
        self.seats.last().is_some_and(|seat| !seat.reserved.load(Ordering::Relaxed))
            && !self.cannot_start.load(Ordering::Relaxed)
    }

    #[cold]
    fn wake_one_slow(self: &Arc<Self>) {
        let mut failed = None;
        let start_another = || match self.summon_new() {
            Ok(summoned) => summoned,
            Err((index, error)) => {
                failed = Some((index, error));
                !self.seats[index].take_summons()
            }
        };
        self.idle.wake_one(&self.seats, start_another, || self.any_fresh());
        if let Some((index, error)) = failed {
            warn_not_started(index, &error);
        }
    }

    /// Starts one more worker, summoned; `false` if there is none to start. An error leaves the
    /// summons where it is.
    fn summon_new(self: &Arc<Self>) -> Result<bool, (usize, io::Error)> {
        let Some(index) = self.reserve() else { return Ok(false) };
        self.seats[index].summons.put();
        self.start(index).map(|()| true).map_err(|error| (index, error))
    }

    /// Whether there is any fresh fiber to be had.
    fn any_fresh(&self) -> bool {
        self.has_external()
            || self
                .seats
                .iter()
                .any(|seat| seat.stealer().is_some_and(|stealer| !stealer.is_empty()))
    }

    fn reserve(&self) -> Option<usize> {
        if self.cannot_start.load(Ordering::Relaxed) {
            return None;
        }
        self.seats.iter().position(|seat| !seat.reserved.swap(true, Ordering::AcqRel))
    }

    /// Starts worker `index` if it is not running yet.
    pub(crate) fn ensure_started(self: &Arc<Self>, index: usize) -> io::Result<()> {
        if !self.seats[index].reserved.swap(true, Ordering::AcqRel) {
            return self.start(index).inspect_err(|error| warn_not_started(index, error));
        }
        if self.seats[index].failed.load(Ordering::SeqCst) {
            return Err(io::Error::other(format!("worker {index} could not be started")));
        }
        Ok(())
    }

    /// Gives a fresh fiber to worker `index`, for which `ensure_started` was called.
    pub(crate) fn give(self: &Arc<Self>, index: usize, fiber: FiberPtr) {
        let seat = &self.seats[index];
        seat.remote.woken.push(Woken(fiber));
        seat.remote.notify();
        // Either this sees that the worker has failed meanwhile, or its `reroute` sees the fiber.
        fence(Ordering::SeqCst);
        if seat.failed.load(Ordering::SeqCst) {
            self.reroute(index);
        } else if seat.remote.is_gone() {
            self.lose_mail(seat.remote);
        }
    }

    /// Starts the thread of worker `index`, which has been reserved. The caller tells of an error,
    /// last of all: a subscriber may panic.
    fn start(self: &Arc<Self>, index: usize) -> io::Result<()> {
        let shared = Arc::clone(self);
        *lock(&self.threads) += 1;
        let thread = std::thread::Builder::new()
            .name(format!("{}-{index}", self.config.thread_name))
            .spawn(move || shared.worker_thread(index));
        let error = match thread {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        self.thread_has_ended();
        self.start_failed(index);
        self.reroute(index);
        Err(error)
    }

    fn start_failed(&self, index: usize) {
        self.seats[index].failed.store(true, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.cannot_start.store(true, Ordering::Relaxed);
    }

    fn worker_thread(self: Arc<Self>, index: usize) {
        let worker = Worker::new(Arc::clone(&self), index);
        let error = match worker {
            Ok(worker) => {
                let _altstack = crate::stack::overflow::ensure_altstack();
                worker.run(None);
                worker.retire();
                None
            }
            Err(error) => {
                self.start_failed(index);
                if self.seats[index].take_summons() {
                    self.idle.end_search();
                    if self.idle.last_look(&self.seats, || self.any_fresh()) {
                        self.wake_one();
                    }
                }
                self.reroute(index);
                Some(error)
            }
        };
        self.thread_has_ended();
        if let Some(error) = error {
            warn_not_started(index, &error);
        }
    }

    /// Fibers that were meant for a worker that could not start run wherever they can, if the
    /// runtime takes any more.
    fn reroute(self: &Arc<Self>, index: usize) {
        fence(Ordering::SeqCst);
        for woken in self.seats[index].remote.woken.take() {
            if let Err(fiber) = self.push_external(woken.0, 0) {
                self.lose(fiber);
            }
        }
    }

    fn thread_has_ended(&self) {
        *lock(&self.threads) -= 1;
        self.thread_ended.notify_all();
    }

    /// Waits until all worker threads have ended; `false` if some have not after `patience`.
    pub(super) fn wait_for_threads(&self, patience: Duration) -> bool {
        let threads = lock(&self.threads);
        let (threads, _) = self
            .thread_ended
            .wait_timeout_while(threads, patience, |threads| *threads != 0)
            .unwrap_or_else(PoisonError::into_inner);
        *threads == 0
    }

    /// Whether any worker thread has been started that has not ended.
    pub(super) fn has_threads(&self) -> bool {
        *lock(&self.threads) != 0
    }

    // ---- Who is awake ---------------------------------------------------------------------------

    pub(super) fn idle(&self) -> &Idle {
        &self.idle
    }

    /// A worker leaves its loop, with fresh fibers in its queue or without.
    pub(super) fn worker_gone(self: &Arc<Self>, leaves_fresh: bool) {
        self.idle.leave();
        if leaves_fresh && self.workers() > 1 {
            self.idle.giver_fence();
            self.wake_one();
        }
    }

    /// Worker 0, which is not in its loop, may have queued fresh fibers for others.
    pub(super) fn worker_leaves_fresh(self: &Arc<Self>) {
        self.idle.giver_fence();
        if self.any_fresh() {
            self.wake_one();
        }
    }

    /// The fresh fibers of a worker that is gone; nobody else steals any more, or it does no harm.
    pub(super) fn lose_fresh(&self, index: usize) {
        let Some(stealer) = self.seats[index].stealer() else { return };
        while !stealer.is_empty() {
            stealer.steal(usize::MAX, || false, |fiber| self.lose(fiber));
        }
    }

    /// Counts the caller as searching, if few enough are.
    pub(super) fn start_search(&self) -> bool {
        let most = if self.workers() <= 4 { 1 } else { self.workers() / 2 };
        self.idle.start_search(most)
    }

    // ---- From outside ---------------------------------------------------------------------------

    /// Queues a fresh fiber spawned by a thread that is no worker. Gives it back if the runtime has
    /// ended.
    pub(crate) fn spawn_external(self: &Arc<Self>, fiber: FiberPtr) -> Result<(), FiberPtr> {
        self.push_external(fiber, 1)
    }

    /// Queues a fresh fiber that any worker may take, and counts it if it is new.
    fn push_external(self: &Arc<Self>, fiber: FiberPtr, new: usize) -> Result<(), FiberPtr> {
        if self.phase() != Phase::Running {
            // Asked before the lock: who closes must get it, however many spawn.
            return Err(fiber);
        }
        {
            let mut external = lock(&self.external);
            if external.closed {
                return Err(fiber);
            }
            // Counted before anybody can take it, and not at all if it is refused.
            self.external_spawned.fetch_add(new, Ordering::SeqCst);
            external.queue.push_back(fiber);
            self.external_len.store(external.queue.len(), Ordering::SeqCst);
        }
        self.idle.giver_fence();
        self.wake_one();
        Ok(())
    }

    #[inline]
    pub(super) fn has_external(&self) -> bool {
        self.external_len.load(Ordering::SeqCst) != 0
    }

    /// Takes a fair share of what came from outside, at most `most`.
    pub(super) fn take_external(&self, most: usize, mut each: impl FnMut(FiberPtr)) {
        let mut external = lock(&self.external);
        let share = external.queue.len().div_ceil(self.workers()).min(most);
        for fiber in external.queue.drain(..share) {
            each(fiber);
        }
        self.external_len.store(external.queue.len(), Ordering::SeqCst);
    }

    /// Refuses fibers from outside from now on, and gives back those that nobody has taken.
    pub(super) fn close_external(&self) -> VecDeque<FiberPtr> {
        let mut external = lock(&self.external);
        external.closed = true;
        self.external_len.store(0, Ordering::SeqCst);
        std::mem::take(&mut external.queue)
    }

    pub(super) fn count_lost(&self, more: u64) {
        self.lost.fetch_add(more, Ordering::SeqCst);
    }

    /// Whether a fiber is alive that may still end.
    pub(super) fn any_may_end(&self) -> bool {
        // First the lost ones: they are among those alive already.
        let lost = self.lost.load(Ordering::SeqCst);
        self.live() > lost
    }

    /// Fibers spawned and not ended. Exact only when it returns 0: then there was an instant in the
    /// call at which none was alive.
    pub(crate) fn live(&self) -> u64 {
        let sum = |counter: fn(&Remote) -> &std::sync::atomic::AtomicU64| -> u64 {
            self.seats.iter().map(|seat| counter(seat.remote).load(Ordering::SeqCst)).sum()
        };
        // The ended ones first: both counts only grow, so equality cannot be an artefact.
        let ended = sum(|remote| &remote.ended);
        fence(Ordering::SeqCst);
        let spawned =
            sum(|remote| &remote.spawned) + self.external_spawned.load(Ordering::SeqCst) as u64;
        spawned.saturating_sub(ended)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.live() == 0 {
            for seat in &self.seats {
                seat.remote.recycle();
            }
        }
    }
}
