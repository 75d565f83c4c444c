//! The blocking pool: a bounded number of threads for calls that have no asynchronous form.
//!
//! The closure and its result lie on the stack of the fiber that waits, so borrowed data may be
//! used and only a queue entry is allocated. A job is never cancelled: its fiber waits until it is
//! done. Threads start on demand and end after ten idle seconds.

use super::submit;
use crate::coro::{OnCancel, Signal};
use std::cell::UnsafeCell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

const IDLE: Duration = Duration::from_secs(10);

/// See the module's head.
pub(crate) struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    work: Condvar,
    most: usize,
    thread_name: String,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    threads: usize,
    idle: usize,
    running: usize,
    closed: bool,
}

/// A job whose parts lie on the stack of the fiber that waits for it.
struct Job {
    run: unsafe fn(*const ()),
    task: *const (),
}

// SAFETY: `Pool::run`, which makes all jobs, requires the closure and the result to be Send; the
// signal may be set from any thread, and the job touches nothing else. The fiber touches the
// closure and the result only before it queues the job and after `done` is set, which synchronises.
unsafe impl Send for Job {}

struct Task<F, T> {
    f: UnsafeCell<Option<F>>,
    result: UnsafeCell<Option<thread::Result<T>>>,
    done: Signal,
}

/// Dropped only by a panic between the queueing of a job and its end (`Inner::submit` queues last).
/// None is known: the caller may suspend, so waiting does not panic.
struct Stays;

impl Drop for Stays {
    fn drop(&mut self) {
        eprintln!("ramie: a panic on a fiber whose job may still run on another thread, aborting");
        std::process::abort();
    }
}

impl Pool {
    pub(crate) fn new(most: usize, thread_name: &str) -> Self {
        Self {
            inner: Arc::new(Inner {
                state: Mutex::default(),
                work: Condvar::new(),
                most: most.max(1),
                thread_name: format!("{thread_name}-blocking"),
            }),
        }
    }

    /// Jobs queued or running.
    pub(crate) fn busy(&self) -> usize {
        let state = self.inner.lock();
        state.queue.len() + state.running
    }

    /// Runs `f` on a thread of the pool while the calling fiber waits. A panic of `f` goes on in
    /// the caller.
    pub(crate) fn run<T, F>(&self, f: F) -> T
    where
        F: FnOnce() -> T + Send,
        T: Send,
    {
        /// # Safety
        /// `task` is a live `Task<F, T>`, run once.
        unsafe fn run<T, F: FnOnce() -> T>(task: *const ()) {
            // SAFETY: the caller's promise. The fiber that owns the task waits for `done`, and
            // touches the other fields only afterwards.
            let task = unsafe { &*task.cast::<Task<F, T>>() };
            // SAFETY: as above.
            let f = unsafe { (*task.f.get()).take() }.expect("a job runs once");
            let result = catch_unwind(AssertUnwindSafe(f));
            // SAFETY: as above.
            unsafe { *task.result.get() = Some(result) };
            let waiter = task.done.set();
            // The task may be gone from here on.
            submit::wake_waiter(waiter);
        }

        let task = Task {
            f: UnsafeCell::new(Some(f)),
            result: UnsafeCell::new(None),
            done: Signal::new(),
        };
        let job = Job { run: run::<T, F>, task: (&raw const task).cast() };
        if let Err(jobs) = self.inner.submit(job) {
            // No thread is to be had, and none exists that could take them: better slowly than
            // never.
            for job in jobs {
                // SAFETY: the task is alive, as its fiber waits, and the job is in no queue any
                // more.
                unsafe { (job.run)(job.task) };
            }
        }
        // Until the job is done this frame must not be left.
        let stays = Stays;
        // Suspends even if the job is done already: the other fibers get their turn.
        while !submit::wait(&task.done, None, OnCancel::Ignore) {}
        std::mem::forget(stays);
        match task.result.into_inner().expect("a job that is done has a result") {
            Ok(value) => value,
            Err(panic) => resume_unwind(panic),
        }
    }

    /// Lets the idle threads go. Jobs that are queued are still run.
    pub(super) fn close(&self) {
        self.inner.lock().closed = true;
        self.inner.work.notify_all();
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a job. Gives it back if there is no thread, together with those that others queued in
    /// the belief that there would be one.
    fn submit(self: &Arc<Self>, job: Job) -> Result<(), VecDeque<Job>> {
        let mut state = self.lock();
        if state.idle <= state.queue.len() && state.threads < self.most {
            state.threads += 1;
            drop(state);
            let inner = Arc::clone(self);
            let thread =
                thread::Builder::new().name(self.thread_name.clone()).spawn(move || inner.work());
            state = self.lock();
            if let Err(error) = thread {
                state.threads -= 1;
                // Without the lock: a subscriber may suspend, or come back here. And before the job
                // is queued: one that panics leaves the frame on which the job lies.
                drop(state);
                tracing::warn!(%error, "cannot start a thread of the blocking pool");
                state = self.lock();
                if state.threads == 0 {
                    state.queue.push_back(job);
                    return Err(std::mem::take(&mut state.queue));
                }
            }
        }
        state.queue.push_back(job);
        drop(state);
        self.work.notify_one();
        Ok(())
    }

    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                state.running += 1;
                drop(state);
                // SAFETY: in the queue once, and taken out of it: it runs once. The fiber that
                // queued it waits for `done` (`Stays`), or is leaked together with its stack: the
                // task is alive.
                unsafe { (job.run)(job.task) };
                state = self.lock();
                state.running -= 1;
                continue;
            }
            if state.closed {
                break;
            }
            state.idle += 1;
            let (guard, timeout) =
                self.work.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = guard;
            state.idle -= 1;
            if timeout.timed_out() && state.queue.is_empty() {
                break;
            }
        }
        state.threads -= 1;
    }
}
