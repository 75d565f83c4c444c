//! What this program asks of its runtime: files, jobs, and parking.
//!
//! Everything that differs between fibers and threads is in this file. A job's calls are the same
//! on both: on a plain thread each performs its system call and blocks.

use std::io;
use std::thread;

/// The file calls of the program, with std's names and signatures.
pub(crate) mod fs {
    pub(crate) use std::fs::{File, read_dir, symlink_metadata};
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
pub(crate) struct Job<T>(thread::JoinHandle<T>);

/// A job that has parked, or is about to: `unpark` makes its `park` return.
pub(crate) struct Parked(thread::Thread);

impl Engine {
    /// Runs `main` where jobs can be started: on the runtime's main fiber, or just here.
    pub(crate) fn enter<T>(self, main: impl FnOnce() -> T) -> io::Result<T> {
        Ok(main())
    }

    /// Starts a job.
    pub(crate) fn spawn<T: Send + 'static>(
        self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Job<T> {
        Job(thread::spawn(job))
    }

    /// The calling job, for somebody else to `unpark`.
    pub(crate) fn current(self) -> Parked {
        Parked(thread::current())
    }

    /// Waits for an `unpark` of the calling job, past or future. May also return without one.
    pub(crate) fn park(self) {
        thread::park();
    }

    /// Lets the other jobs of this worker run; a long calculation says this now and then.
    pub(crate) fn breathe(self) {
        match self {
            Engine::Fibers { .. } | Engine::Threads(_) => {}
        }
    }
}

impl<T> Job<T> {
    /// Waits for the job's result. A job that panicked makes the caller panic.
    pub(crate) fn join(self) -> T {
        match self.0.join() {
            Ok(value) => value,
            Err(payload) => std::panic::resume_unwind(payload),
        }
    }
}

impl Parked {
    pub(crate) fn unpark(&self) {
        self.0.unpark();
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
