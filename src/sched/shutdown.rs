//! Ending a runtime: cancel, drain, and leak what will not end.
//!
//! 1. The phase becomes `Draining`: every worker cancels what it has in flight and fires its
//!    timers; ops submitted from now on fail with `ECANCELED`. Fibers see errors and come to their
//!    ends. Threads outside can spawn no more.
//! 2. The thread that drops the runtime is worker 0 and goes on running its fibers, until no fiber
//!    is alive; or nothing moves and nothing can move any more (the fibers left wait for each
//!    other); or its patience is at an end. If that thread unwinds, it only waits for the other
//!    workers: its own fibers could not suspend, and would take the panic for theirs.
//! 3. The phase becomes `Stopped`: the workers leave their loops and drop their rings. A fiber that
//!    is still alive keeps its stack, and a ring with an op in flight keeps its memory, for ever:
//!    nothing that the kernel or a frame still points to is freed.

use super::shared::{Phase, Shared};
use super::{Remote, Worker};
use crate::sys::clock;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long worker 0 runs its own fibers between two looks at the whole.
const SLICE: Duration = Duration::from_millis(1);
/// How long nothing must have moved before the rest is given up.
const STILL: Duration = Duration::from_millis(50);

/// What was left of a runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Leftovers {
    /// Fibers that had not ended.
    pub(crate) fibers: u64,
    /// Worker threads that were still running one.
    pub(crate) threads: bool,
}

/// Ends the runtime of which `worker` is worker 0.
pub(crate) fn shut_down(worker: &Worker, patience: Duration) -> Leftovers {
    let shared = Arc::clone(worker.shared());
    if shared.phase() == Phase::Stopped {
        return Leftovers { fibers: 0, threads: false };
    }
    let deadline_ns = clock::deadline_ns(patience);
    shared.set_phase(Phase::Draining);

    // From here on nothing comes in: a thread that goes on spawning could hold up the end for ever.
    // What is in, runs.
    for fiber in shared.close_external() {
        worker.queue_fresh(fiber);
    }
    run_down(worker, deadline_ns);
    let fibers = shared.live();
    shared.set_phase(Phase::Stopped);
    shared.pool().close();
    shared.waiters().close();
    let left = Duration::from_nanos(deadline_ns.saturating_sub(clock::now_ns()));
    let threads = !shared.wait_for_threads(left.max(Duration::from_millis(100)));
    worker.retire();
    if fibers != 0 || threads {
        tracing::warn!(
            fibers,
            threads,
            "a runtime was shut down while fibers had not ended; their stacks are leaked"
        );
    }
    Leftovers { fibers, threads }
}

/// Runs worker 0 until no fiber is alive, or that will not happen any more, or not in time.
fn run_down(worker: &Worker, deadline_ns: u64) {
    let shared = worker.shared();
    let mut snapshot = (0, 0);
    let mut still_since_ns = clock::now_ns();
    while shared.live() != 0 {
        worker.run(Some(clock::deadline_ns(SLICE)));
        let now_ns = clock::now_ns();
        let moved = (resumes(shared), shared.live());
        if moved != snapshot || busy(shared) {
            snapshot = moved;
            still_since_ns = now_ns;
        }
        let still = Duration::from_nanos(now_ns - still_since_ns);
        if still >= STILL || now_ns >= deadline_ns {
            return;
        }
    }
}

/// Fibers resumed so far.
fn resumes(shared: &Shared) -> u64 {
    shared.seats().iter().map(|seat| seat.remote().resumes.load(Ordering::SeqCst)).sum()
}

/// Whether anything may still move by itself: an op, a timer, a job, something in an inbox.
fn busy(shared: &Shared) -> bool {
    let remote_busy =
        |remote: &Remote| remote.busy.load(Ordering::SeqCst) != 0 || remote.has_mail();
    shared.has_external()
        || shared.pool().busy() != 0
        || shared.idle().anybody_awake()
        || shared.seats().iter().any(|seat| remote_busy(seat.remote()))
}

impl Worker {
    /// The worker has left its loop for good.
    pub(crate) fn retire(&self) {
        self.remote.sleep.retire();
    }
}

/// Ends a runtime whose worker 0 cannot run any more, because the runtime is dropped on a fiber of
/// another one, or on a thread that unwinds (where every call that should suspend would block), or
/// on one that destroys its thread-local values: its fibers are cancelled where other workers run
/// them, and nobody is waited for. Returns the number of fibers that have not ended.
pub(crate) fn abandon(worker: &Worker) -> u64 {
    let shared = worker.shared();
    if shared.phase() != Phase::Running {
        return shared.live();
    }
    shared.set_phase(Phase::Draining);
    _ = shared.close_external();
    if shared.live() == 0 {
        shared.set_phase(Phase::Stopped);
    }
    shared.pool().close();
    shared.waiters().close();
    worker.retire();
    shared.live()
}
