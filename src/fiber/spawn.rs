//! Starting fibers.

use super::JoinHandle;
use crate::coro::{FiberPtr, entry};
use crate::local;
use crate::sched::{Remote, Shared, Worker, current};
use crate::scope::{Scope, ScopedJoinHandle};
use crate::stack::{self, Stack};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

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
    match create(worker, None, f) {
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
    match create(worker, None, f) {
        Ok(fiber) => {
            worker.push_ready(fiber);
            JoinHandle::new(fiber)
        }
        Err(error) => no_stack(&error),
    }
}

/// Makes a fresh fiber, with the fiber-local values that it inherits; the caller publishes it.
#[inline]
pub(crate) fn create<F, T>(worker: &Worker, name: Option<Arc<str>>, f: F) -> io::Result<FiberPtr>
where
    F: FnOnce() -> T,
{
    if local::is_inherited() { heir(|| worker.create(name, f)) } else { worker.create(name, f) }
}

/// Gives the fresh fiber that `make` makes, and that nobody else sees yet, what it inherits.
#[cold]
#[inline(never)]
pub(crate) fn heir(make: impl FnOnce() -> io::Result<FiberPtr>) -> io::Result<FiberPtr> {
    // Foreign code, which may panic: before there is anything to clean up.
    let inheritance = local::inheritance();
    let fiber = make()?;
    // SAFETY: just made.
    unsafe { inheritance.give(fiber) };
    Ok(fiber)
}

#[cold]
#[track_caller]
pub(crate) fn no_runtime(what: &str) -> ! {
    panic!(
        "ramie::{what} was called outside of a runtime: call it inside Runtime::run (or under \
         #[ramie::main]), or use Handle::spawn"
    )
}

#[cold]
#[track_caller]
pub(crate) fn no_stack(error: &io::Error) -> ! {
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

    /// Names the fiber. The name shows in stack overflow reports and in
    /// [`Fiber::name`](crate::Fiber::name).
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
        let index = self.worker;
        let fiber = heir(|| self.create(worker, f))?;
        let handle = JoinHandle::new(fiber);
        publish(worker, index, fiber);
        Ok(handle)
    }

    /// Spawns the fiber in a scope, as [`Scope::spawn`] does.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn); also if the scope was opened outside of a runtime.
    ///
    /// # Examples
    /// ```
    /// ramie::Runtime::new()?.run(|| {
    ///     let text = String::from("borrowed");
    ///     ramie::scope(|s| {
    ///         let builder = ramie::Builder::new().name("child".into());
    ///         let fiber = builder.spawn_scoped(s, || text.len()).unwrap();
    ///         assert_eq!(fiber.fiber().name(), Some("child"));
    ///         assert_eq!(fiber.join().unwrap(), 8);
    ///     });
    /// });
    /// # std::io::Result::Ok(())
    /// ```
    pub fn spawn_scoped<'scope, 'env, F, T>(
        self,
        scope: &'scope Scope<'scope, 'env>,
        f: F,
    ) -> io::Result<ScopedJoinHandle<'scope, T>>
    where
        F: FnOnce() -> T + Send + 'scope,
        T: Send + 'scope,
    {
        let Some(worker) = current::worker() else {
            return Err(io::Error::other("Builder::spawn_scoped was called outside of a runtime"));
        };
        if let Some(index) = self.worker {
            self.check_worker(worker.shared())?;
            worker.shared().ensure_started(index)?;
        }
        let Self { name, stack_bytes, worker: index } = self;
        let stack = || stack_of(stack_bytes);
        scope.start(worker, stack, name, f, |worker, fiber| publish(worker, index, fiber))
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
        let fiber = heir(|| self.create(worker, f))?;
        worker.push_ready(fiber);
        Ok(JoinHandle::new(fiber))
    }

    /// A stack of the size asked for, if one was.
    fn create<F, T>(self, worker: &Worker, f: F) -> io::Result<FiberPtr>
    where
        F: FnOnce() -> T,
    {
        match stack_of(self.stack_bytes)? {
            Some(stack) => Ok(worker.create_on(stack, self.name, f)),
            None => worker.create(self.name, f),
        }
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

/// Publishes a fresh fiber: to any worker, or to the one asked for, which has been started.
fn publish(worker: &Worker, index: Option<usize>, fiber: FiberPtr) {
    match index {
        None => worker.push_fresh(fiber),
        Some(index) if index == worker.index() => worker.push_ready(fiber),
        Some(index) => worker.shared().give(index, fiber),
    }
}

/// A stack of a certain size, if one was asked for.
fn stack_of(bytes: Option<usize>) -> io::Result<Option<Stack>> {
    bytes.map(|bytes| stack::Pool::get(bytes)?.alloc()).transpose()
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
    let inheritance = local::inheritance();
    let stack = shared.stacks().alloc()?;
    let id = NEXT.fetch_sub(1, Ordering::Relaxed);
    let fiber = entry::create(stack, id, Remote::none_yet(shared), None, f);
    // SAFETY: just made.
    unsafe { inheritance.give(fiber) };
    match shared.spawn_external(fiber) {
        Ok(()) => Ok(JoinHandle::new(fiber)),
        Err(fiber) => {
            // SAFETY: nobody else has seen the fiber. Its closure is dropped unrun, and what it was
            // to inherit, last.
            unsafe {
                let _inheritance = local::Inheritance::take_back(fiber);
                entry::discard::<F>(fiber);
                if let Some(stack) = fiber.release() {
                    stack.pool().free(stack);
                }
            }
            Err(io::Error::other("the runtime has been shut down"))
        }
    }
}
