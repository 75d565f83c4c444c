//! What this program asks of its runtime: files, jobs, and parking.
//!
//! Everything that differs between fibers and threads is in this file. A job's calls are the same
//! on both: on a plain thread each performs its system call and blocks.

use std::io;
use std::thread;

/// The file calls of the program, with std's names and signatures.
pub(crate) mod fs {
    pub(crate) use ramie::fs::{File, read_dir, symlink_metadata};
}

/// Who runs the jobs.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Engine {
    /// Fibers on this many workers.
    Fibers { workers: usize },
    /// This many plain threads.
    Threads(usize),
}

/// A job that has been started.
pub(crate) enum Job<T> {
    Fiber(ramie::JoinHandle<T>),
    Thread(thread::JoinHandle<T>),
}

/// A job that has parked, or is about to: `unpark` makes its `park` return.
pub(crate) use ramie::Fiber as Parked;

/// The calling job, for somebody else to `unpark`; and waiting for that.
pub(crate) use ramie::{current, park};

impl Engine {
    /// Runs `main` where jobs can be started: on the runtime's main fiber, or just here.
    pub(crate) fn enter<T>(self, main: impl FnOnce() -> T) -> io::Result<T> {
        match self {
            Engine::Fibers { workers } => {
                Ok(ramie::Runtime::builder().workers(workers).build()?.run(main))
            }
            Engine::Threads(_) => Ok(main()),
        }
    }

    /// How many jobs to begin with.
    pub(crate) fn first_jobs(self) -> usize {
        match self {
            Engine::Fibers { workers } => 4 * workers,
            Engine::Threads(threads) => threads,
        }
    }

    /// Starts a job, the `index`th of several. Fibers are dealt out to the workers: left to
    /// themselves, all that soon wait for a file would have started on the worker that made them,
    /// before another one woke up, and a fiber stays where it has started.
    pub(crate) fn spawn<T: Send + 'static>(
        self,
        index: usize,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Job<T> {
        match self {
            Engine::Fibers { workers } => {
                let builder = ramie::Builder::new().worker(index % workers);
                Job::Fiber(builder.spawn(job).expect("room for some dozens of fibers"))
            }
            Engine::Threads(_) => Job::Thread(thread::spawn(job)),
        }
    }

    /// Runs `f`, which makes many calls that have no io_uring operation, such as reading
    /// directories. On a fiber each of them would go to the blocking threads and back; so `f` goes
    /// there, once.
    pub(crate) fn blocking<T: Send>(self, f: impl FnOnce() -> T + Send) -> T {
        match self {
            Engine::Fibers { .. } => ramie::unblock(f),
            Engine::Threads(_) => f(),
        }
    }

    /// Lets the other jobs of this worker run; a long calculation says this now and then.
    pub(crate) fn breathe(self) {
        match self {
            Engine::Fibers { .. } => ramie::yield_now(),
            Engine::Threads(_) => {} // the kernel takes the core away by itself
        }
    }
}

impl<T> Job<T> {
    /// Waits for the job's result. A job that panicked makes the caller panic.
    pub(crate) fn join(self) -> T {
        let result = match self {
            Job::Fiber(fiber) => fiber.join(),
            Job::Thread(thread) => thread.join(),
        };
        result.unwrap_or_else(|payload| std::panic::resume_unwind(payload))
    }
}

impl std::fmt::Display for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Engine::Fibers { workers } => write!(f, "{workers} workers"),
            Engine::Threads(threads) => write!(f, "{threads} threads"),
        }
    }
}
