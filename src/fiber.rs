//! Spawning fibers and talking about them: what `std::thread` is for threads.

use crate::coro::{FiberPtr, OnCancel, Signal, entry};
use crate::sched::remote::{Cancelled, Remote};
use crate::sched::{self, Shared, current};
use crate::stack::{self, Stack};
use crate::sys::clock;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

/// Starts a new fiber on the running runtime and returns a handle to it.
///
/// The fiber may start on any worker, and stays on the one that starts it. Dropping the handle
/// detaches the fiber: it goes on, and its result is dropped when it ends.
///
/// Differs from [`std::thread::spawn`] in that it costs tens of nanoseconds, and in that a fiber
/// shares its thread with others: it has to suspend now and then (any I/O, sleep or yield of this
/// crate does) for them to run.
///
/// # Panics
/// When called outside of a runtime, and when there is no memory for another stack. See
/// [`Builder::spawn`] for the latter as an error.
///
/// # Examples
/// ```
/// let sum = ramie::Runtime::new()?.run(|| {
///     let fibers: Vec<_> = (0..10).map(|n| ramie::spawn(move || n * n)).collect();
///     fibers.into_iter().map(|fiber| fiber.join().unwrap()).sum::<u32>()
/// });
/// assert_eq!(sum, 285);
/// # std::io::Result::Ok(())
/// ```
#[inline]
#[track_caller]
pub fn spawn<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    let Some(worker) = current::worker() else { no_runtime("spawn") };
    match worker.create(None, f) {
        Ok(fiber) => {
            worker.push_fresh(fiber);
            JoinHandle::new(fiber)
        }
        Err(error) => no_stack(&error),
    }
}

/// Starts a new fiber on the calling worker, where it stays. Neither the closure nor its result has
/// to be [`Send`].
///
/// # Panics
/// As [`spawn`].
///
/// # Examples
/// ```
/// use std::rc::Rc;
///
/// ramie::Runtime::new()?.run(|| {
///     let shared = Rc::new(5);
///     let theirs = Rc::clone(&shared);
///     let fiber = ramie::spawn_local(move || *theirs + 1);
///     assert_eq!(fiber.join().unwrap(), *shared + 1);
/// });
/// # std::io::Result::Ok(())
/// ```
#[track_caller]
pub fn spawn_local<F, T>(f: F) -> JoinHandle<T>
where
    F: FnOnce() -> T + 'static,
    T: 'static,
{
    let Some(worker) = current::worker() else { no_runtime("spawn_local") };
    match worker.create(None, f) {
        Ok(fiber) => {
            worker.push_ready(fiber);
            JoinHandle::new(fiber)
        }
        Err(error) => no_stack(&error),
    }
}

#[cold]
#[track_caller]
fn no_runtime(what: &str) -> ! {
    panic!(
        "ramie::{what} was called outside of a runtime: call it inside Runtime::run (or under \
         #[ramie::main]), or use Handle::spawn"
    )
}

#[cold]
#[track_caller]
fn no_stack(error: &io::Error) -> ! {
    panic!("failed to spawn a fiber: {error}")
}

/// Configures a fiber before it is spawned, as [`std::thread::Builder`] does for a thread.
///
/// # Examples
/// ```
/// ramie::Runtime::new()?.run(|| {
///     let fiber = ramie::Builder::new()
///         .name("parser".into())
///         .stack_size(1 << 20)
///         .spawn(|| ramie::current().name().map(String::from))
///         .unwrap();
///     assert_eq!(fiber.join().unwrap().as_deref(), Some("parser"));
/// });
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until it spawns"]
pub struct Builder {
    name: Option<Arc<str>>,
    stack_bytes: Option<usize>,
    worker: Option<usize>,
}

impl Builder {
    /// A builder that changes nothing: unnamed, the runtime's stack size, any worker.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the fiber. The name shows in stack overflow reports and in [`Fiber::name`].
    pub fn name(mut self, name: String) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the size of the fiber's stack in bytes, its guard included. Rounded up to a power of
    /// two of at least 16 KiB. Memory is used as it is touched, not in advance.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_bytes = Some(bytes);
        self
    }

    /// Makes the fiber start, and so stay, on this worker of the runtime, counted from 0: the
    /// thread that called `run`.
    pub fn worker(mut self, index: usize) -> Self {
        self.worker = Some(index);
        self
    }

    /// Spawns the fiber.
    ///
    /// # Errors
    /// If there is no memory for its stack, if the requested worker does not exist or cannot be
    /// started, or outside of a runtime.
    pub fn spawn<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let Some(worker) = current::worker() else {
            return Err(io::Error::other("Builder::spawn was called outside of a runtime"));
        };
        let shared = worker.shared();
        if let Some(index) = self.worker {
            self.check_worker(shared)?;
            shared.ensure_started(index)?;
        }
        let fiber = match self.stack_bytes {
            Some(bytes) => {
                let stack = stack::Pool::get(bytes)?.alloc()?;
                worker.create_on(stack, self.name, f)
            }
            None => worker.create(self.name, f)?,
        };
        let handle = JoinHandle::new(fiber);
        match self.worker {
            None => worker.push_fresh(fiber),
            Some(index) if index == worker.index() => worker.push_ready(fiber),
            Some(index) => shared.give(index, fiber),
        }
        Ok(handle)
    }

    /// Spawns the fiber on the calling worker; nothing has to be [`Send`].
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn); also if another worker was asked for.
    pub fn spawn_local<F, T>(self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + 'static,
        T: 'static,
    {
        let Some(worker) = current::worker() else {
            return Err(io::Error::other("Builder::spawn_local was called outside of a runtime"));
        };
        if self.worker.is_some_and(|index| index != worker.index()) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "spawn_local starts a fiber on the calling worker and on no other",
            ));
        }
        let fiber = match self.stack_bytes {
            Some(bytes) => {
                let stack = stack::Pool::get(bytes)?.alloc()?;
                worker.create_on(stack, self.name, f)
            }
            None => worker.create(self.name, f)?,
        };
        worker.push_ready(fiber);
        Ok(JoinHandle::new(fiber))
    }

    fn check_worker(&self, shared: &Shared) -> io::Result<()> {
        match self.worker {
            Some(index) if index >= shared.workers() => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("there is no worker {index}: the runtime has {}", shared.workers()),
            )),
            _ => Ok(()),
        }
    }
}

/// Makes a fiber for a thread that is not a worker of the runtime it goes to.
pub(crate) fn spawn_external<F, T>(shared: &Arc<Shared>, f: F) -> io::Result<JoinHandle<T>>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    use std::sync::atomic::AtomicU64;
    // Below the first block that workers take from (`Worker::next_id`) and counting down from the
    // top: never the same as one of theirs.
    static NEXT: AtomicU64 = AtomicU64::new(u64::MAX);
    let stack = shared.stacks().alloc()?;
    let fiber = entry::create(stack, NEXT.fetch_sub(1, Ordering::Relaxed), None, f);
    match shared.spawn_external(fiber) {
        Ok(()) => Ok(JoinHandle::new(fiber)),
        Err(fiber) => {
            // SAFETY: nobody else has seen the fiber. Its closure is dropped unrun.
            unsafe {
                entry::discard::<F>(fiber);
                if let Some(stack) = fiber.release() {
                    stack.pool().free(stack);
                }
            }
            Err(io::Error::other("the runtime has been shut down"))
        }
    }
}

/// An owned permission to join on a fiber: wait for its end and take its result.
///
/// Dropping it detaches the fiber.
///
/// Differs from [`std::thread::JoinHandle`] in that a fiber that waits in [`join`](Self::join)
/// suspends, and in the extras `try_join`, `join_timeout` and `cancel`.
pub struct JoinHandle<T> {
    /// The reference that the fiber and the handle own together.
    fiber: ManuallyDrop<Fiber>,
    _result: PhantomData<T>,
}

// SAFETY: the handle lets its holder take the `T`, which came from another thread perhaps.
unsafe impl<T: Send> Send for JoinHandle<T> {}
// SAFETY: through a shared handle only the Fiber is reachable.
unsafe impl<T> Sync for JoinHandle<T> {}

impl<T> JoinHandle<T> {
    #[inline]
    pub(crate) fn new(fiber: FiberPtr) -> Self {
        Self { fiber: ManuallyDrop::new(Fiber(Inner::Fiber(fiber))), _result: PhantomData }
    }

    #[inline]
    fn ptr(&self) -> FiberPtr {
        match self.fiber.0 {
            Inner::Fiber(fiber) => fiber,
            Inner::Thread(_) => unreachable!("a join handle is made of a fiber"),
        }
    }

    /// Waits for the fiber to end and returns what its closure returned, or the payload of its
    /// panic.
    ///
    /// # Errors
    /// The payload of the panic, if the fiber panicked.
    ///
    /// # Cancellation
    /// Cannot be cancelled: cancel the fiber that is waited for instead.
    #[inline]
    pub fn join(self) -> thread::Result<T> {
        let fiber = self.ptr();
        let ended = &fiber.header().ended;
        while !ended.is_set() {
            sched::wait(ended, None, OnCancel::Ignore);
        }
        self.take()
    }

    /// Takes the result if the fiber has ended, and gives the handle back if not.
    ///
    /// # Errors
    /// The handle, while the fiber has not ended.
    #[inline]
    pub fn try_join(self) -> Result<thread::Result<T>, Self> {
        if self.is_finished() { Ok(self.take()) } else { Err(self) }
    }

    /// Waits for the fiber to end, for `timeout` at most.
    ///
    /// # Errors
    /// The handle, if the fiber has not ended by then.
    pub fn join_timeout(self, timeout: Duration) -> Result<thread::Result<T>, Self> {
        let deadline_ns = clock::deadline_ns(timeout);
        let fiber = self.ptr();
        let ended = &fiber.header().ended;
        while !ended.is_set() && clock::now_ns() < deadline_ns {
            sched::wait(ended, Some(deadline_ns), OnCancel::Ignore);
            if current::worker().is_some_and(|worker| worker.is_draining()) {
                break;
            }
        }
        self.try_join()
    }

    /// Whether the fiber has ended, so that `join` would not wait.
    #[inline]
    pub fn is_finished(&self) -> bool {
        self.ptr().header().ended.is_set()
    }

    /// The fiber, to name it or to unpark it.
    #[inline]
    pub fn fiber(&self) -> &Fiber {
        &self.fiber
    }

    /// Asks the fiber to end early: the I/O operation it waits in, or else its next one, fails with
    /// an error that [`is_cancelled`](crate::is_cancelled) recognises.
    ///
    /// A request is reported once. An operation that has completed before the request reached it
    /// keeps its result, and the next one fails instead. [`sleep`] ends early while a request is
    /// unreported; [`park`] wakes once; `join` ignores it. A fiber that performs no I/O any more
    /// ends as if nothing had been asked.
    pub fn cancel(&self) {
        request_cancel(self.ptr());
    }

    /// Takes the result; the fiber has ended.
    #[inline]
    fn take(self) -> thread::Result<T> {
        let fiber = ManuallyDrop::new(self).ptr();
        // SAFETY: it has ended, `T` is its result type, and the handle, which is gone, was the only
        // one that may take it.
        let result = unsafe { entry::take_result::<T>(fiber) };
        // SAFETY: the reference was the fiber's, which has ended, and the handle's.
        unsafe { release(fiber) };
        result
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        let fiber = self.ptr();
        if fiber.header().ended.detach() {
            // SAFETY: as in `take`.
            unsafe {
                entry::drop_result::<T>(fiber);
                release(fiber);
            }
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinHandle").field("fiber", &*self.fiber).finish_non_exhaustive()
    }
}

fn request_cancel(fiber: FiberPtr) {
    let header = fiber.header();
    if !header.cancel.request() {
        return;
    }
    // `park` is woken by its token, wherever the fiber is: one that is about to park must not miss
    // it.
    sched::wake_waiter(header.token.set());
    // A fiber without a home is fresh: it finds the request when it has started (`coro/cancel.rs`).
    let Some(home) = Remote::of(fiber) else { return };
    match current::worker() {
        Some(worker) if std::ptr::eq(worker.remote(), home) => worker.cancel_wait(fiber),
        _ => {
            if header.cancel.list() {
                fiber.retain();
                home.cancels.push(Cancelled(fiber));
                home.notify();
            }
        }
    }
}

/// # Safety
/// As for [`FiberPtr::release`].
#[inline]
unsafe fn release(fiber: FiberPtr) {
    // SAFETY: the caller's promise.
    if let Some(stack) = unsafe { fiber.release() } {
        free(stack);
    }
}

#[inline]
fn free(stack: Stack) {
    match current::worker() {
        Some(worker) => worker.free_stack(stack),
        None => stack.pool().free(stack),
    }
}

/// A handle to a fiber, or, when obtained on a plain thread, to that thread. As
/// [`std::thread::Thread`].
///
/// A handle keeps the fiber's stack from being used again, even after the fiber's end: its control
/// block lies there. That is one page of memory, and what else the fiber touched.
pub struct Fiber(Inner);

enum Inner {
    Fiber(FiberPtr),
    Thread(thread::Thread),
}

impl Fiber {
    /// Wakes the fiber from [`park`], or lets its next call of `park` return at once.
    #[inline]
    pub fn unpark(&self) {
        match &self.0 {
            Inner::Fiber(fiber) => sched::wake_waiter(fiber.header().token.set()),
            Inner::Thread(thread) => thread.unpark(),
        }
    }

    /// The name given to [`Builder::name`].
    pub fn name(&self) -> Option<&str> {
        match &self.0 {
            Inner::Fiber(fiber) => fiber.header().name.as_deref(),
            Inner::Thread(thread) => thread.name(),
        }
    }

    /// The fiber's identifier, which no other fiber of this process has had or will have.
    pub fn id(&self) -> FiberId {
        match &self.0 {
            Inner::Fiber(fiber) => FiberId(IdInner::Fiber(fiber.header().id)),
            Inner::Thread(thread) => FiberId(IdInner::Thread(thread.id())),
        }
    }
}

impl Clone for Fiber {
    fn clone(&self) -> Self {
        match &self.0 {
            Inner::Fiber(fiber) => {
                fiber.retain();
                Self(Inner::Fiber(*fiber))
            }
            Inner::Thread(thread) => Self(Inner::Thread(thread.clone())),
        }
    }
}

impl Drop for Fiber {
    fn drop(&mut self) {
        if let Inner::Fiber(fiber) = self.0 {
            // SAFETY: the reference is ours. If it is the last one, the fiber has ended and its
            // result is gone: until then the reference of fiber and join handle exists.
            unsafe { release(fiber) };
        }
    }
}

impl fmt::Debug for Fiber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fiber")
            .field("id", &self.id())
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

/// Identifies a fiber (or a plain thread) for the life of the process. As
/// [`std::thread::ThreadId`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FiberId(IdInner);

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum IdInner {
    Fiber(u64),
    Thread(thread::ThreadId),
}

impl fmt::Debug for FiberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IdInner::Fiber(id) => write!(f, "FiberId({id})"),
            IdInner::Thread(id) => id.fmt(f),
        }
    }
}

/// The fiber that the calling code runs on; on a plain thread, a handle to that thread.
///
/// # Examples
/// ```
/// ramie::Runtime::new()?.run(|| {
///     let me = ramie::current();
///     let fiber = ramie::spawn(move || me.unpark());
///     ramie::park();
///     fiber.join().unwrap();
/// });
/// # std::io::Result::Ok(())
/// ```
pub fn current() -> Fiber {
    match current::fiber() {
        Some((_, fiber)) => {
            fiber.retain();
            Fiber(Inner::Fiber(fiber))
        }
        None => Fiber(Inner::Thread(thread::current())),
    }
}

/// Whether the calling code runs on a fiber, where waiting suspends rather than blocks.
#[inline]
pub fn is_fiber() -> bool {
    current::fiber().is_some()
}

/// Lets the other ready fibers of this worker run first. On a plain thread,
/// [`std::thread::yield_now`].
#[inline]
pub fn yield_now() {
    sched::submit::yield_now();
}

/// Waits until the fiber's token is set by [`Fiber::unpark`], and takes the token. As
/// [`std::thread::park`]: may return for no reason, so it belongs in a loop that checks a
/// condition.
///
/// # Cancellation
/// A cancel request sets the token: it wakes a parked fiber, or lets its next call of `park` return
/// at once.
#[inline]
pub fn park() {
    match current::suspendable() {
        Some((_, fiber)) => {
            let token = &fiber.header().token;
            if !token.take() {
                sched::wait(token, None, OnCancel::Ignore);
                token.take();
            }
        }
        None => park_thread(None),
    }
}

/// As [`park`], for `timeout` at most.
pub fn park_timeout(timeout: Duration) {
    match current::suspendable() {
        Some((_, fiber)) => {
            let token = &fiber.header().token;
            if !token.take() {
                sched::wait(token, Some(clock::deadline_ns(timeout)), OnCancel::Ignore);
                token.take();
            }
        }
        None => park_thread(Some(timeout)),
    }
}

/// Parks where suspending is not possible: on a plain thread by its own token, on a fiber that
/// unwinds by the fiber's, for which the thread is blocked.
fn park_thread(timeout: Option<Duration>) {
    if let Some((_, fiber)) = current::fiber() {
        let token = &fiber.header().token;
        if !token.take() {
            let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
            crate::coro::thread::wait(token, deadline);
            token.take();
        }
        return;
    }
    match timeout {
        Some(timeout) => thread::park_timeout(timeout),
        None => thread::park(),
    }
}

/// Lets the fiber sleep for at least `duration`; on a plain thread, as [`std::thread::sleep`].
///
/// # Cancellation
/// Returns early while a cancel request of the fiber is unreported.
///
/// # Examples
/// ```
/// use std::time::{Duration, Instant};
///
/// ramie::Runtime::new()?.run(|| {
///     let start = Instant::now();
///     ramie::sleep(Duration::from_millis(5));
///     assert!(start.elapsed() >= Duration::from_millis(5));
/// });
/// # std::io::Result::Ok(())
/// ```
pub fn sleep(duration: Duration) {
    if current::suspendable().is_none() {
        return thread::sleep(duration);
    }
    if duration.is_zero() {
        return yield_now();
    }
    let never = Signal::new();
    sched::wait(&never, Some(clock::deadline_ns(duration)), OnCancel::End);
}

/// Runs `f` on the runtime's pool of blocking threads while the fiber waits; on a plain thread,
/// runs it right there. `f` may borrow from the caller.
///
/// For calls that block and that this crate does not know: a C library's, a long computation's, a
/// device's.
///
/// # Panics
/// If `f` panics, the panic goes on in the caller.
///
/// # Cancellation
/// Cannot be cancelled: the fiber waits until `f` is done.
///
/// # Examples
/// ```
/// ramie::Runtime::new()?.run(|| {
///     let text = String::from("borrowed");
///     let length = ramie::unblock(|| text.len());
///     assert_eq!(length, 8);
/// });
/// # std::io::Result::Ok(())
/// ```
pub fn unblock<T, F>(f: F) -> T
where
    F: FnOnce() -> T + Send,
    T: Send,
{
    sched::blocking(f)
}

/// Runs `f`, and panics if anything in it would suspend the fiber.
///
/// For code that relies on nothing else running on its thread meanwhile: a reference taken inside a
/// scoped thread-local, a C library's thread-bound state.
///
/// # Panics
/// If `f` calls anything that would suspend the fiber.
///
/// # Examples
/// ```
/// ramie::Runtime::new()?.run(|| {
///     let sum = ramie::no_suspend(|| 1 + 1);
///     assert_eq!(sum, 2);
///     let caught = std::panic::catch_unwind(|| ramie::no_suspend(ramie::yield_now));
///     assert!(caught.is_err());
/// });
/// # std::io::Result::Ok(())
/// ```
pub fn no_suspend<T>(f: impl FnOnce() -> T) -> T {
    struct Section(Option<FiberPtr>);
    impl Drop for Section {
        fn drop(&mut self) {
            if let Some(fiber) = self.0 {
                let depth = &fiber.header().no_suspend;
                depth.set(depth.get() - 1);
            }
        }
    }
    let fiber = current::fiber().map(|(_, fiber)| fiber);
    if let Some(fiber) = fiber {
        let depth = &fiber.header().no_suspend;
        depth.set(depth.get() + 1);
    }
    let _section = Section(fiber);
    f()
}

/// The bytes left on the calling fiber's stack; `None` on a plain thread.
#[inline(never)]
pub fn stack_remaining() -> Option<usize> {
    let (_, fiber) = current::fiber()?;
    let here = 0_u8;
    // SAFETY: written before the fiber was published, and taken only after its end.
    let stack = unsafe { (*fiber.header().stack.get()).as_ref() }?;
    Some((&raw const here).addr().saturating_sub(stack.limit().addr()))
}
