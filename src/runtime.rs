//! Runtimes: the workers, and the way into and out of them.
#![forbid(unsafe_code)]

use crate::arch;
use crate::coro::spans::{self, Spans};
use crate::driver::{self, DriverKind, WakeMethod, caps};
use crate::fiber::{JoinHandle, create, spawn_external};
use crate::future::block_on;
use crate::sched::{Config, Shared, Worker, current, shutdown};
use crate::stack::overflow;
use crate::sys::membarrier;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

const MAX_WORKERS: usize = 4096;
const DEFAULT_STACK_BYTES: usize = 256 << 10;
const DEFAULT_RING_ENTRIES: u32 = 256;
const DEFAULT_BLOCKING_THREADS: usize = 256;
const DEFAULT_SPIN: Duration = Duration::from_micros(20);
/// What is asked for beyond that is for ever, but shutdowns have to be noticed.
const MOST_SPIN: Duration = Duration::from_secs(1);
const DEFAULT_PATIENCE: Duration = Duration::from_secs(10);

/// Configures a [`Runtime`].
///
/// # Examples
/// ```
/// let runtime = ramie::Runtime::builder().workers(2).stack_size(64 << 10).build()?;
/// assert_eq!(runtime.run(|| 6 * 7), 42);
/// # std::io::Result::Ok(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it builds"]
pub struct RuntimeBuilder {
    workers: Option<usize>,
    stack_bytes: usize,
    ring_entries: u32,
    blocking_threads: usize,
    spin: Duration,
    patience: Duration,
    driver: DriverKind,
    wake: Option<WakeMethod>,
    thread_name: String,
    inline: bool,
}

impl RuntimeBuilder {
    fn new() -> Self {
        Self {
            workers: None,
            stack_bytes: DEFAULT_STACK_BYTES,
            ring_entries: DEFAULT_RING_ENTRIES,
            blocking_threads: DEFAULT_BLOCKING_THREADS,
            spin: DEFAULT_SPIN,
            patience: DEFAULT_PATIENCE,
            driver: DriverKind::Auto,
            wake: None,
            thread_name: "ramie".into(),
            inline: true,
        }
    }

    /// The largest number of workers, the thread that calls [`Runtime::run`] included. The others
    /// are started when there is work for them. By default, as many as the process may use CPUs;
    /// 4096 at most.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// The size of a fiber's stack in bytes, its guard included; rounded up to a power of two of at
    /// least 16 KiB. 256 KiB by default. This is address space: memory is used as it is touched.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_bytes = bytes;
        self
    }

    /// The number of operations that a worker can hand to the kernel at once, 256 by default. More
    /// may be in flight. Rounded up to a power of two.
    pub fn ring_entries(mut self, entries: u32) -> Self {
        self.ring_entries = entries;
        self
    }

    /// The largest number of threads for calls that have no asynchronous form. 256 by default; they
    /// are started when there is work for them, and end when there has been none for ten seconds.
    pub fn blocking_threads(mut self, threads: usize) -> Self {
        self.blocking_threads = threads;
        self
    }

    /// How long a worker that has nothing to do looks around before it sleeps, while other workers
    /// run. 20 microseconds by default: waking a sleeping CPU costs about as much. More than a
    /// second is taken as one.
    pub fn spin(mut self, duration: Duration) -> Self {
        self.spin = duration;
        self
    }

    /// How long dropping the runtime waits for its fibers to end; see [`Runtime`]. Ten seconds by
    /// default.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.patience = timeout;
        self
    }

    /// How operations reach the kernel. By default as [`DriverKind::Auto`] says: by io_uring, or in
    /// another way where that is refused, or as the environment variable `RAMIE_DRIVER` wants it.
    ///
    /// # Examples
    /// ```
    /// use ramie::{DriverKind, Runtime};
    ///
    /// let runtime = Runtime::builder().driver(DriverKind::Poll).build()?;
    /// let text = runtime.run(|| ramie::fs::read_to_string("Cargo.toml"))?;
    /// assert!(text.contains("ramie"));
    /// # std::io::Result::Ok(())
    /// ```
    pub fn driver(mut self, kind: DriverKind) -> Self {
        self.driver = kind;
        self
    }

    /// How sleeping workers are woken that use io_uring. By default, the first of the
    /// [`WakeMethod`]s, in the order of their declaration, that proves to work here.
    ///
    /// Where there is io_uring, a method that does not work makes [`build`](Self::build) fail.
    /// Workers without io_uring have one way only, and take no notice.
    pub fn wake(mut self, method: WakeMethod) -> Self {
        self.wake = Some(method);
        self
    }

    /// What the names of the worker threads begin with; `ramie` by default.
    pub fn thread_name(mut self, name: impl Into<String>) -> Self {
        self.thread_name = name.into();
        self
    }

    /// Whether what needs no waiting is done by system calls on the spot, as it is by default; or
    /// everything through the ring. For tests and benchmarks.
    #[doc(hidden)]
    pub fn inline(mut self, inline: bool) -> Self {
        self.inline = inline;
        self
    }

    /// Builds the runtime. The calling thread becomes its worker 0.
    ///
    /// # Errors
    /// If the kernel refuses io_uring and nothing else is allowed (the error says why and what to
    /// do), if `RAMIE_DRIVER` holds no driver's name, if there is no memory or no descriptor left,
    /// if a number is out of range, if the thread has a shadow stack (which does not follow a
    /// switch), and on a fiber.
    pub fn build(self) -> io::Result<Runtime> {
        if current::worker().is_some() {
            return Err(io::Error::other(
                "a runtime was built inside another one: build it on a plain thread",
            ));
        }
        if arch::has_shadow_stack() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this thread has a shadow stack, which fibers cannot switch: start the program \
                 without, for instance with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off",
            ));
        }
        let workers = match self.workers {
            Some(0) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    "a runtime needs at least one worker",
                ));
            }
            Some(workers) if workers > MAX_WORKERS => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidInput,
                    format!("a runtime has at most {MAX_WORKERS} workers, not {workers}"),
                ));
            }
            Some(workers) => workers,
            None => std::thread::available_parallelism().map_or(1, usize::from),
        };
        if self.thread_name.contains('\0') {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a thread's name cannot contain a zero byte",
            ));
        }
        caps::check_mask()?;
        overflow::set_describe(describe);
        overflow::install()?;
        membarrier::set_up();
        let altstack = overflow::ensure_altstack()?;
        let choice = driver::choose(self.driver, self.wake)?;
        let config = Config {
            workers,
            stack_bytes: self.stack_bytes,
            driver: driver::Config { ring_entries: self.ring_entries, choice },
            blocking_threads: self.blocking_threads,
            spin: self.spin.min(MOST_SPIN),
            thread_name: self.thread_name,
            inline: self.inline,
        };
        let shared = Shared::new(config)?;
        let worker = Rc::new(Worker::new(Arc::clone(&shared), 0)?);
        Ok(Runtime {
            worker,
            shared,
            patience: self.patience,
            _altstack: altstack,
            _thread: PhantomData,
        })
    }
}

/// Writes the running fiber's name, for the report of a stack overflow.
fn describe(write: &mut dyn FnMut(&[u8])) {
    if let Some((_, fiber)) = current::fiber()
        && let Some(name) = fiber.header().name.as_deref()
    {
        write(name.as_bytes());
    }
}

/// A set of workers that run fibers.
///
/// The thread that builds the runtime is its worker 0 and runs fibers while it is in
/// [`run`](Self::run); the other workers are threads of the runtime, which run fibers all the time.
/// A program may have several runtimes.
///
/// # Dropping
/// Dropping the runtime ends it: all I/O in flight is cancelled and all further I/O fails (with an
/// error that [`is_cancelled`](crate::is_cancelled) recognises), sleeps end early, and the fibers
/// run until they have ended. If some have not ended when nothing moves any more, or after the
/// [`shutdown_timeout`](RuntimeBuilder::shutdown_timeout), their stacks are leaked: nothing on them
/// is ever dropped, and nothing they borrow is freed. [`join`](JoinHandle::join) on one of them
/// returns an error.
///
/// Dropped while its thread unwinds, or on a fiber of another runtime, a runtime asks its fibers to
/// end and waits for nobody: those of worker 0, which cannot run there, are leaked at once.
///
/// # Thread-local values
/// A fiber may suspend inside the closure of `LocalKey::with` of a `thread_local!`, and relies on
/// the value being there when it goes on. A thread that ends destroys its values one by one. So
/// from then on no fiber that was suspended on it is ever resumed: their stacks are leaked, a
/// runtime that is dropped then (because it is such a value itself) waits for nobody, and
/// [`run`](Self::run) and its like panic. The same happens in `std::process::exit`, to the fibers
/// of the calling thread; if that is called on a fiber, what destructors do there blocks the thread
/// as it does outside of a runtime.
///
/// A runtime without suspended fibers is not affected.
///
/// # Examples
/// ```
/// use std::io::{Read, Write};
///
/// let runtime = ramie::Runtime::new()?;
/// let text = runtime.run(|| {
///     let path = std::env::temp_dir().join("ramie-runtime-example");
///     ramie::fs::write(&path, "suspends instead of blocking")?;
///     let text = ramie::fs::read_to_string(&path)?;
///     ramie::fs::remove_file(&path)?;
///     std::io::Result::Ok(text)
/// })?;
/// assert_eq!(text, "suspends instead of blocking");
/// # std::io::Result::Ok(())
/// ```
pub struct Runtime {
    /// On the heap, as suspended fibers hold references to their worker and a runtime may be moved;
    /// and not in a `Box`, whose move says that nobody holds any.
    worker: Rc<Worker>,
    shared: Arc<Shared>,
    patience: Duration,
    _altstack: overflow::AltStack,
    /// Worker 0's ring and fibers belong to the thread that built it.
    _thread: PhantomData<*mut ()>,
}

/// The spans that a thread has left while it runs a runtime. What it inherits to the main fiber may
/// panic when it is cloned.
struct Left(Spans);

impl Drop for Left {
    fn drop(&mut self) {
        self.0.enter(None);
    }
}

impl Runtime {
    /// A runtime with the defaults: as many workers as the process may use CPUs.
    ///
    /// # Errors
    /// As [`RuntimeBuilder::build`].
    pub fn new() -> io::Result<Self> {
        Self::builder().build()
    }

    /// Configures a runtime.
    pub fn builder() -> RuntimeBuilder {
        RuntimeBuilder::new()
    }

    /// Runs `f` as a fiber, and other fibers with it, until `f` returns. Fibers that have not ended
    /// by then go on: those of worker 0 in the next call, those of other workers right away.
    ///
    /// `f` runs on the calling thread, and may borrow and be not `Send`.
    ///
    /// # Panics
    /// If `f` panics, the panic goes on in the caller. On a fiber. When the thread destroys its
    /// thread-local values while fibers are suspended, see [`Runtime`].
    pub fn run<F, T>(&self, f: F) -> T
    where
        F: FnOnce() -> T,
    {
        self.check_thread("Runtime::run");
        let worker = &self.worker;
        let name = std::thread::current().name().map(Arc::from);
        // `f` is in the same tracing spans as the caller, but other fibers are not.
        let left = Left(spans::leave(None));
        let f = || {
            left.0.enter(current::fiber().map(|(_, fiber)| fiber));
            f()
        };
        let fiber = match create(worker, name, f) {
            Ok(fiber) => fiber,
            Err(error) => panic!("failed to make the main fiber: {error}"),
        };
        let main = JoinHandle::<T>::new(fiber);
        worker.run_main(fiber);
        drop(left);
        match main.join() {
            Ok(value) => value,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Lets worker 0 run the fibers that are ready, a bounded number of them, without ever waiting;
    /// returns how many it resumed. For programs that have a loop of their own.
    ///
    /// # Panics
    /// On a fiber, and when the thread destroys its thread-local values, as [`run`](Self::run).
    pub fn tick(&self) -> usize {
        self.check_thread("Runtime::tick");
        self.worker.tick() as usize
    }

    /// Lets worker 0 run fibers for `duration`.
    ///
    /// # Panics
    /// On a fiber, and when the thread destroys its thread-local values, as [`run`](Self::run).
    ///
    /// # Examples
    /// ```
    /// use std::time::Duration;
    ///
    /// let runtime = ramie::Runtime::builder().workers(1).build()?;
    /// let fiber = runtime.handle().spawn(|| ramie::sleep(Duration::from_millis(1)))?;
    /// while !fiber.is_finished() {
    ///     runtime.run_for(Duration::from_millis(1));
    /// }
    /// # std::io::Result::Ok(())
    /// ```
    pub fn run_for(&self, duration: Duration) {
        self.check_thread("Runtime::run_for");
        self.worker.run(Some(crate::sys::clock::deadline_ns(duration)));
    }

    fn check_thread(&self, what: &str) {
        assert!(
            current::worker().is_none(),
            "{what} was called inside a runtime: call it on the thread that built the runtime, \
             outside of all fibers"
        );
        assert!(
            !self.worker.is_lost(),
            "{what} was called while the thread destroys its thread-local values: its suspended \
             fibers may have borrowed them and cannot go on; drop the runtime earlier"
        );
    }

    /// A handle for spawning fibers from other threads.
    pub fn handle(&self) -> Handle {
        Handle { shared: Arc::clone(&self.shared) }
    }

    /// What the runtime has done and holds.
    pub fn metrics(&self) -> Metrics {
        Metrics::of(&self.shared)
    }

    /// Ends the runtime as dropping it does, but waits for `timeout` at most. Returns the number of
    /// fibers that had not ended.
    ///
    /// Where dropping it would wait for nobody, this does not either.
    pub fn shutdown_timeout(self, timeout: Duration) -> u64 {
        self.end(timeout)
    }

    /// Ends the runtime; again, does nothing.
    fn end(&self, patience: Duration) -> u64 {
        if current::worker().is_some() || std::thread::panicking() || self.worker.is_lost() {
            // The loop cannot be entered here; or fibers that ran on an unwinding thread could only
            // block it. What can be told to end, is.
            shutdown::abandon(&self.worker, patience)
        } else {
            shutdown::shut_down(&self.worker, patience).fibers
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.end(self.patience);
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("metrics", &self.metrics()).finish_non_exhaustive()
    }
}

/// Spawns fibers on a runtime from any thread.
#[derive(Clone)]
pub struct Handle {
    shared: Arc<Shared>,
}

impl Handle {
    /// Starts a new fiber on any worker of the runtime.
    ///
    /// If the runtime has one worker only, the fiber runs while the thread that built the runtime
    /// is in [`Runtime::run`] (or `tick`, or `run_for`).
    ///
    /// # Errors
    /// If the runtime has been shut down, or there is no memory for another stack.
    pub fn spawn<F, T>(&self, f: F) -> io::Result<JoinHandle<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        spawn_external(&self.shared, f)
    }

    /// As [`spawn`](Self::spawn), for a future: the fiber runs it with
    /// [`block_on`](crate::block_on). See [`spawn_future`](crate::spawn_future).
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    pub fn spawn_future<F>(&self, future: F) -> io::Result<JoinHandle<F::Output>>
    where
        F: IntoFuture + Send + 'static,
        F::Output: Send + 'static,
    {
        self.spawn(move || block_on(future))
    }

    /// What the runtime has done and holds.
    pub fn metrics(&self) -> Metrics {
        Metrics::of(&self.shared)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").finish_non_exhaustive()
    }
}

/// Counts of a runtime at one moment; see [`Runtime::metrics`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Fibers spawned and not ended.
    pub live_fibers: u64,
    /// Fibers that have ended.
    pub ended_fibers: u64,
    /// Of those, fibers that ended with a panic.
    pub panicked_fibers: u64,
    /// Resumes of fibers, as of each worker's last pass.
    pub resumes: u64,
    /// Fresh fibers that a worker took from another.
    pub stolen_fibers: u64,
}

impl Metrics {
    fn of(shared: &Shared) -> Self {
        let mut metrics = Self { live_fibers: shared.live(), ..Self::default() };
        for seat in shared.seats() {
            let remote = seat.remote();
            metrics.ended_fibers += remote.ended.load(Ordering::Relaxed);
            metrics.panicked_fibers += remote.panicked.load(Ordering::Relaxed);
            metrics.resumes += remote.resumes.load(Ordering::Relaxed);
            metrics.stolen_fibers += remote.stolen.load(Ordering::Relaxed);
        }
        metrics
    }
}
