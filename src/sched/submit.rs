//! How a call suspends. On a fiber each of these gives the thread to other fibers meanwhile; on a
//! plain thread, and while the thread unwinds, it blocks the thread.

use super::{Remote, Worker, cancel, current};
use crate::coro::header::Waiting;
use crate::coro::{
    AfterSwitch, FiberPtr, OnCancel, Pending, PendingPtr, Signal, Timer, TimerPtr, Wait, Waiter,
    park, spans, task, thread,
};
use crate::driver;
use crate::driver::lower::{self, Attempt, Reading, Route};
use crate::op::{Habit, Op, Way, decode, perform};
use crate::sys::clock;
use std::ffi::CStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Switches from the running fiber to the idle context; the fiber leaves its tracing spans for as
/// long. Does not unwind.
///
/// # Safety
/// As for [`park::suspend`].
#[inline(always)]
unsafe fn suspend(fiber: FiberPtr, after: &AfterSwitch<'_>) {
    // SAFETY: the caller's promise.
    unsafe { suspend_as_told(fiber, after, spans::followed()) };
}

/// As `suspend`; `followed` says whether the fiber leaves its spans.
///
/// # Safety
/// As for [`park::suspend`].
#[inline(always)]
unsafe fn suspend_as_told(fiber: FiberPtr, after: &AfterSwitch<'_>, followed: bool) {
    if followed {
        // SAFETY: the caller's promise.
        unsafe { suspend_in_spans(fiber, after) };
    } else {
        // SAFETY: the caller's promise.
        unsafe { park::suspend(fiber, after) };
    }
}

/// # Safety
/// As for [`park::suspend`].
#[cold]
#[inline(never)]
unsafe fn suspend_in_spans(fiber: FiberPtr, after: &AfterSwitch<'_>) {
    let spans = spans::leave(Some(fiber));
    // SAFETY: the caller's promise.
    unsafe { park::suspend(fiber, after) };
    spans.enter_for_good(fiber);
}

/// Performs one op and returns its result.
#[inline(never)]
pub(crate) fn submit(op: Op<'_>) -> io::Result<u32> {
    submit_here(move || op)
}

/// As [`submit`], compiled into its caller, where it is known which op it is: for calls that may
/// come by the million in a second. The op is made where it stays: a copy would have to wait for
/// the stores that made it.
#[inline(always)]
pub(crate) fn submit_here<'a>(op: impl FnOnce() -> Op<'a>) -> io::Result<u32> {
    let Some((worker, fiber)) = current::suspendable() else {
        return submit_on_thread(op());
    };
    let mut pending = Pending::new(op(), fiber);
    let route = match lower::route(pending.op(), worker.caps()) {
        Route::Now => return submit_now(pending.into_op()),
        Route::Pool => return submit_to_pool(pending.into_op()),
        route => route,
    };
    // Now: the worker may not be kept over a suspension.
    let polls_first = worker.caps().polls_first();
    let mut done = 0;
    let reading = Reading::of(pending.op());
    if lower::may_attempt(pending.op(), reading, worker.inline()) {
        match attempt(worker, fiber, &mut pending, reading) {
            Attempt::Done(result) => return decode::decode(result),
            Attempt::Part(count) => done = count,
            Attempt::Refused => {}
        }
    }
    if let Some(habit) = pending.op().habit() {
        habit.set_ringed();
    }
    lower::prepare(pending.op(), polls_first);
    let result = match route {
        Route::Readiness => with_threads(fiber, &mut pending),
        _ => through_driver(fiber, &pending),
    };
    if done != 0 {
        // What has been read is the answer. An error, or the report of a cancel request, is for the
        // next op.
        return Ok(done + u32::try_from(result).unwrap_or(0));
    }
    if result == -libc::ECANCELED {
        cancel::report(fiber);
    }
    decode::decode(result)
}

#[inline(never)]
fn submit_on_thread(op: Op<'_>) -> io::Result<u32> {
    if op.can_be_refused() && cancel::refuses_on_thread() {
        return Err(cancel::error());
    }
    submit_now(op)
}

#[inline(never)]
fn submit_now(mut op: Op<'_>) -> io::Result<u32> {
    decode::decode(perform::perform(&mut op))
}

#[cold]
fn submit_to_pool(op: Op<'_>) -> io::Result<u32> {
    if op.can_be_refused() {
        cancel::check()?;
    }
    blocking(|| submit_now(op))
}

/// As [`submit`], for `timeout` at most on a fiber; `None` if it took longer and has done nothing.
/// A plain thread waits for as long as the kernel lets it.
pub(crate) fn submit_within(op: Op<'_>, timeout: Option<Duration>) -> Option<io::Result<u32>> {
    let Some(timeout) = timeout.filter(|_| !blocks_thread()) else { return Some(submit(op)) };
    let now_ns = clock::now_ns();
    let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
    let ended = cancel::timed(now_ns, now_ns.saturating_add(timeout_ns), || submit(op));
    match ended.value {
        Err(error) if ended.owns_error && error.raw_os_error() == Some(libc::ECANCELED) => None,
        result => Some(result),
    }
}

/// Whether what waits here blocks the thread.
pub(crate) fn blocks_thread() -> bool {
    current::suspendable().is_none()
}

/// Whether what waits here keeps a worker from its other fibers, and from its driver.
pub(crate) fn blocks_worker() -> bool {
    current::worker().is_some() && blocks_thread()
}

/// Suspends `fiber`, the one that runs here, until the driver has performed its op.
#[inline]
fn through_driver(fiber: FiberPtr, pending: &Pending<'_>) -> i32 {
    // SAFETY: the fiber leaves its stack in the next statement, and only `complete` makes it ready
    // again (the invariant of `coro/pending.rs`); `pending` is not moved.
    let op = unsafe { PendingPtr::new(pending) };
    // SAFETY: `fiber` is the one that runs here.
    unsafe { suspend(fiber, &AfterSwitch::Submit(op)) };
    outcome(pending)
}

/// The result of an op that the driver is done with.
#[inline]
pub(super) fn outcome(pending: &Pending<'_>) -> i32 {
    let result = pending.outcome();
    if result < 0 && pending.cancel_sent() && decode::is_interrupted(result) {
        // How some operations end that were broken off inside the kernel.
        return -libc::ECANCELED;
    }
    result
}

/// As [`through_driver`], where the driver cannot do everything: files go to the blocking pool, and
/// so does what the driver hands back.
fn with_threads(fiber: FiberPtr, pending: &mut Pending<'_>) -> i32 {
    if lower::is_stored(pending.op()) {
        let worker = current::worker().expect("a fiber runs on a worker");
        if worker.refuses(fiber) {
            return -libc::ECANCELED;
        }
        let op = pending.op();
        return blocking(|| perform::perform(op));
    }
    loop {
        let result = through_driver(fiber, pending);
        let op = pending.op();
        match result {
            driver::TO_POOL => return blocking(|| perform::perform(op)),
            driver::TO_WAITERS => {
                if let Some(result) = waiting(|| driver::perform_ready(op)) {
                    return result;
                }
            }
            result => return result,
        }
    }
}

/// Tries an op without waiting, after letting others run if it is their turn.
#[inline(always)]
fn attempt(
    mut worker: &Worker,
    fiber: FiberPtr,
    pending: &mut Pending<'_>,
    reading: Option<Reading<'_>>,
) -> Attempt {
    if worker.inline().is_spent() {
        // SAFETY: `fiber` is the one that runs here.
        unsafe { suspend(fiber, &AfterSwitch::Breathe) };
        worker = current::worker().expect("a fiber runs on a worker");
    }
    if worker.refuses(fiber) {
        return Attempt::Refused; // the worker says so to the op
    }
    if let Some(attempt) = lower::attempt(pending.op(), reading, worker.inline(), worker.crowd()) {
        return attempt;
    }
    let result = through_driver(fiber, pending);
    if result == -libc::ECANCELED {
        cancel::report(fiber);
    }
    let worker = current::worker().expect("a fiber runs on a worker");
    lower::judge(pending.op(), reading, result, worker.inline())
}

/// Creates a file on the spot if its directory is known to be in memory and nothing there has its
/// name. The answer is a descriptor that is the caller's.
pub(super) fn create_here(path: &CStr, flags: i32, mode: u32) -> Option<i32> {
    let (mut worker, fiber) = current::suspendable()?;
    let place = worker.inline().place(path, flags)?;
    if worker.inline().is_spent_for_create() {
        // SAFETY: `fiber` is the one that runs here.
        unsafe { suspend(fiber, &AfterSwitch::Breathe) };
        worker = current::worker().expect("a fiber runs on a worker");
    }
    if worker.refuses(fiber) {
        return None; // the op to come is told so
    }
    Some(worker.inline().create(place, path, flags, mode)).filter(|fd| *fd >= 0)
}

/// How the file that was created at `path` is written, as far as that is known now; the next one
/// beside it may then be created on the spot.
pub(crate) fn created(path: &CStr, fd: BorrowedFd<'_>) -> Way {
    match current::suspendable() {
        Some((worker, _)) => worker.inline().created(path, fd),
        None => Way::Unknown,
    }
}

/// Closes a descriptor without reporting errors, and without waiting for file systems that take
/// their time over it.
pub(crate) fn close_detached(fd: OwnedFd, habit: &Habit) {
    match current::fiber() {
        Some((worker, _)) if !(habit.closes_at_once() && worker.inline().is_enabled()) => {
            worker.close(fd);
        }
        _ => drop(fd),
    }
}

/// Waits until `signal` is set, or `deadline_ns` has come, or a cancel request or the deadline of a
/// `timeout` ends the wait (as `on_cancel` says). Returns whether the signal is set. The caller is
/// the signal's only waiter.
pub(crate) fn wait(signal: &Signal, deadline_ns: Option<u64>, on_cancel: OnCancel) -> bool {
    wait_and_let_go(signal, None, deadline_ns, on_cancel)
}

/// As [`wait`], by the holder of a lock without which nobody sets the signal: `held` is cleared
/// soon, on a fiber when it has left its stack and is registered, which costs less than to let go
/// of the lock first. The caller knows that it is not in a `no_suspend` section.
#[inline]
pub(crate) fn wait_and_let_go(
    signal: &Signal,
    mut held: Option<&AtomicBool>,
    deadline_ns: Option<u64>,
    on_cancel: OnCancel,
) -> bool {
    let found = current::suspendable();
    // Asked once: a subscriber may come at any time, and is foreign code, which must not run with
    // a lock held.
    let followed = spans::followed();
    if let Some(lock) = held
        // What comes before the fiber is registered may take its time.
        && found.is_none_or(|(worker, _)| followed || worker.has_joins())
    {
        lock.store(false, Ordering::Release);
        held = None;
    }
    let Some((_, fiber)) = found else {
        let deadline_ns = cancel::end_of_wait(deadline_ns, on_cancel);
        return thread::wait(signal, deadline_ns.and_then(clock::instant));
    };
    let timer = deadline_ns.map(|deadline_ns| Timer::new(deadline_ns, fiber));
    let wait = Wait { signal, timer: timer.as_ref(), on_cancel, held };
    // SAFETY: `fiber` is the one that runs here.
    unsafe { suspend_as_told(fiber, &AfterSwitch::Wait(&wait), followed) };
    fiber.header().waiting.set(Waiting::Nothing);
    if let Some(timer) = timer.as_ref().filter(|timer| timer.in_heap()) {
        let worker = current::worker().expect("a fiber runs on a worker");
        // SAFETY: the timer is on this frame, and in the heap only until `remove` returns.
        worker.disarm(unsafe { TimerPtr::new(timer) });
    }
    signal.is_set()
}

/// Waits until `fiber` has ended; nothing ends the wait sooner. The caller owns its join handle.
#[inline]
pub(crate) fn join(fiber: FiberPtr) {
    match current::suspendable() {
        // SAFETY: `me` is the one that runs here.
        Some((_, me)) => unsafe { suspend(me, &AfterSwitch::Join(fiber)) },
        None => join_on_thread(fiber),
    }
}

#[cold]
fn join_on_thread(fiber: FiberPtr) {
    thread::wait(&fiber.header().ended, None);
}

/// Makes ready whoever `Signal::set` returned.
#[inline]
pub(crate) fn wake_waiter(waiter: Waiter) {
    match waiter {
        Waiter::None | Waiter::Detached => {}
        // SAFETY: the caller has taken it out of a signal (invariant 3 of `coro/signal.rs`), and a
        // waiter is alive until whoever took it out has woken it.
        Waiter::Fiber(address) => wake(unsafe { FiberPtr::from_address(address) }),
        // SAFETY: as above.
        Waiter::Thread(address) => unsafe { thread::wake(address) },
        // SAFETY: as above; what is taken out is the taker's.
        Waiter::Task(address) => unsafe { task::wake(address) },
    }
}

/// Sets a signal that nobody else ever sets, and makes ready who waits for it.
#[inline]
pub(crate) fn set_and_wake(signal: &Signal) {
    let Some(worker) = current::worker() else { return wake_waiter(signal.set()) };
    // SAFETY: who is registered on a signal is alive until whoever sets it has woken it, and only
    // the caller sets this one.
    let fiber = |address| unsafe { FiberPtr::from_address(address) };
    match signal.set_here(|address| worker.is_home_of(fiber(address))) {
        Some(address) => worker.push_woken(fiber(address)),
        None => wake_waiter(signal.set()),
    }
}

/// Makes a suspended fiber ready, from any thread. The caller has taken it out of what it waited
/// on.
#[inline]
pub(crate) fn wake(fiber: FiberPtr) {
    match current::worker() {
        Some(worker) => worker.wake(fiber),
        None => wake_elsewhere(fiber),
    }
}

/// As `wake`, where the caller does not run on the fiber's home.
pub(super) fn wake_elsewhere(fiber: FiberPtr) {
    let home = Remote::of(fiber).expect("a fiber that waits has started");
    home.woken.push(super::remote::Woken(fiber));
    // The fiber may be running, or gone, from here on. The remote stays.
    home.notify();
}

/// Runs `f` on the blocking pool while the fiber waits; at once on a plain thread.
pub(crate) fn blocking<T, F>(f: F) -> T
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    match current::suspendable() {
        Some((worker, _)) => worker.shared().pool().run(f),
        None => f(),
    }
}

/// As [`blocking`], for what may wait for ever for somebody else: a lock, the other end of a FIFO.
/// It does not use up the threads of `blocking`, on which that somebody may depend.
pub(crate) fn waiting<T, F>(f: F) -> T
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    match current::suspendable() {
        Some((worker, _)) => worker.shared().waiters().run(f),
        None => f(),
    }
}

/// What an `OpenAt` submitted here does where `open` waits for somebody else, as for the other end
/// of a FIFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Haste {
    /// It waits.
    No,
    /// It may not wait, as io_uring does it: the caller has to complete the open.
    Implied,
    /// It waits, and would keep a thread of the pool from others meanwhile: it should be asked not
    /// to.
    Needed,
}

/// How opens behave here.
pub(crate) fn haste() -> Haste {
    match current::suspendable() {
        None => Haste::No,
        Some((worker, _)) if worker.caps().opens_in_haste() => Haste::Implied,
        Some(_) => Haste::Needed,
    }
}

/// Whether a `Connect` submitted here only suspends with a socket that is in non-blocking mode.
pub(crate) fn connects_in_haste() -> bool {
    current::suspendable().is_some_and(|(worker, _)| worker.caps().connects_in_haste())
}

/// The current pass of the worker that the calling fiber runs on, if an `AcceptLine` submitted here
/// takes anything: another one after the fiber has been off its stack for long.
pub(crate) fn accepting_pass() -> Option<(usize, u64)> {
    let (worker, _) = current::suspendable().filter(|(worker, _)| worker.caps().accepts_many())?;
    let remote = worker.remote;
    Some((std::ptr::from_ref(remote).addr(), remote.resumes.load(Ordering::Relaxed)))
}

/// Whether a `Splice` submitted here takes none of our threads, or only the caller's own.
pub(crate) fn splices() -> bool {
    current::suspendable().is_none_or(|(worker, _)| worker.caps().splices())
}

/// Lets the other ready fibers of this worker run first.
#[inline]
pub(crate) fn yield_now() {
    match current::suspendable() {
        Some((_, fiber)) => {
            // SAFETY: `fiber` is the one that runs here.
            unsafe { suspend(fiber, &AfterSwitch::Yield) };
        }
        None => std::thread::yield_now(),
    }
}
