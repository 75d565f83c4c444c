//! Two closures that may run side by side. How the second of them gets to another fiber is told in
//! `sched/joins.rs`.

use super::Stays;
use crate::coro::{FiberPtr, OnCancel};
use crate::fiber::JoinHandle;
use crate::sched::joins::Link;
use crate::sched::{self, current};
use std::cell::UnsafeCell;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::thread;

/// Runs both closures, at the same time if that is of use, and returns both results. As rayon's
/// `join`.
///
/// `a` runs right here, and then `b`, which costs next to nothing: no fiber is made and nothing is
/// shared. But if `a` suspends, or if another worker has nothing to do, then `b` gets a fiber of
/// its own, and the two run side by side. So `join` serves to divide a computation, down to small
/// pieces, and to do I/O at two places at once, on one worker as well.
///
/// Which of them runs where is not to be relied upon: `b` may see another
/// [`current`](crate::current) fiber, other [fiber-local](crate::fiber_local) values, another
/// thread. Outside of a runtime, while the thread unwinds, and in
/// [`no_suspend`](crate::no_suspend), `b` runs after `a`.
///
/// # Panics
/// If one of them panics, the panic goes on in the caller; if both do, that of `a`. Whatever
/// happens, both are run to their ends before that.
///
/// # Cancellation
/// A request to the calling fiber that comes while it waits for `b` is passed on to the fiber of
/// `b`.
///
/// # Examples
/// ```
/// fn sum(numbers: &[u64]) -> u64 {
///     if numbers.len() <= 100 {
///         return numbers.iter().sum();
///     }
///     let (low, high) = numbers.split_at(numbers.len() / 2);
///     let (low, high) = ramie::join(|| sum(low), || sum(high));
///     low + high
/// }
///
/// ramie::Runtime::new()?.run(|| {
///     let numbers: Vec<u64> = (1..=10_000).collect();
///     assert_eq!(sum(&numbers), 50_005_000);
///
///     // Both files are read at the same time.
///     let (one, other) =
///         ramie::join(|| ramie::fs::read("Cargo.toml"), || ramie::fs::read("README.md"));
///     assert!(one?.len() > 100 && other?.len() > 100);
///     std::io::Result::Ok(())
/// })?;
/// # std::io::Result::Ok(())
/// ```
/// What one of them changes, the other does not see:
/// ```compile_fail,E0499
/// let mut x = 0;
/// ramie::join(|| x += 1, || x += 1);
/// ```
/// and both, with their results, may be sent to another worker:
/// ```compile_fail,E0277
/// let rc = std::rc::Rc::new(1);
/// ramie::join(|| 1, || *rc);
/// ```
#[inline]
pub fn join<A, B, RA, RB>(a: A, b: B) -> (RA, RB)
where
    A: FnOnce() -> RA + Send,
    B: FnOnce() -> RB + Send,
    RA: Send,
    RB: Send,
{
    let Some(worker) = current::worker() else {
        return after(catch_unwind(AssertUnwindSafe(a)), b);
    };
    let job = Job::<B, RB> {
        link: Link::new(Job::<B, RB>::run),
        b: UnsafeCell::new(ManuallyDrop::new(b)),
        result: UnsafeCell::new(MaybeUninit::uninit()),
    };
    // SAFETY: this frame is not left before the job is out of the list, and its fiber has ended if
    // it got one: `a` and what else may panic is inside `catch_unwind`, and `elsewhere` waits. `B`
    // and `RB` are `Send`.
    unsafe { worker.push_join((&raw const job).cast()) };
    let ra = catch_unwind(AssertUnwindSafe(|| {
        worker.share_joins();
        a()
    }));
    let worker = current::worker().expect("a fiber stays on its worker");
    if worker.pop_join(&job.link) {
        // SAFETY: nobody else has it any more, and it has not been run.
        let b = unsafe { job.take() };
        worker.share_joins();
        return after(ra, b);
    }
    job.elsewhere(ra)
}

/// The second half of a join.
#[repr(C)]
struct Job<B, RB> {
    link: Link,
    b: UnsafeCell<ManuallyDrop<B>>,
    result: UnsafeCell<MaybeUninit<RB>>,
}

impl<B, RB> Job<B, RB>
where
    B: FnOnce() -> RB,
{
    /// Runs `b`, on a fiber of its own.
    ///
    /// # Safety
    /// `link` is that of a live `Job<B, RB>`, whose `b` has not been taken, and of which nobody
    /// uses `b` and `result` meanwhile.
    unsafe fn run(link: *const Link) {
        // SAFETY: the link is the first field, and the pointer was made from one to the whole.
        let job = unsafe { &*link.cast::<Self>() };
        // SAFETY: the caller's promise.
        let b = unsafe { job.take() };
        let result = b();
        // SAFETY: as above.
        unsafe { (*job.result.get()).write(result) };
    }

    /// # Safety
    /// Called once, by whom `b` belongs to.
    #[inline(always)]
    unsafe fn take(&self) -> B {
        // SAFETY: the caller's promise.
        unsafe { ManuallyDrop::take(&mut *self.b.get()) }
    }

    /// `a` has ended, and the job was promoted meanwhile.
    #[cold]
    #[inline(never)]
    fn elsewhere<RA>(&self, ra: thread::Result<RA>) -> (RA, RB) {
        let worker = current::worker().expect("a fiber stays on its worker");
        let fiber = match self.link.promoted() {
            // Nobody has begun, and now nobody else will.
            Some(fiber) if !worker.reclaim_join(fiber) => fiber,
            // SAFETY: nobody else has it any more, or ever had, and it has not been run.
            _ => return after(ra, unsafe { self.take() }),
        };
        let rb = wait_for(fiber).map(|()| {
            // SAFETY: `run` has returned, and the end of its fiber synchronises.
            unsafe { (*self.result.get()).assume_init_read() }
        });
        both(ra, rb)
    }
}

/// Waits until the fiber of a `b` has ended, which must be before this frame is left.
fn wait_for(fiber: FiberPtr) -> thread::Result<()> {
    let stays = Stays;
    let handle = JoinHandle::<()>::new(fiber);
    let ended = &fiber.header().ended;
    if !ended.is_set() && !sched::wait(ended, None, OnCancel::End) {
        handle.cancel();
    }
    let result = handle.join();
    std::mem::forget(stays);
    result
}

/// Runs `b` after `a`.
#[inline(always)]
fn after<B, RA, RB>(ra: thread::Result<RA>, b: B) -> (RA, RB)
where
    B: FnOnce() -> RB,
{
    match ra {
        Ok(ra) => (ra, b()),
        Err(panic) => both(Err(panic), catch_unwind(AssertUnwindSafe(b))),
    }
}

/// Both have ended.
#[cold]
fn both<RA, RB>(ra: thread::Result<RA>, rb: thread::Result<RB>) -> (RA, RB) {
    match (ra, rb) {
        (Ok(ra), Ok(rb)) => (ra, rb),
        (Err(panic), _) | (Ok(_), Err(panic)) => resume_unwind(panic),
    }
}
