//! Ending a runtime: cancel, drain, and leak what will not end.
//!
//! 1. The phase becomes `Draining`: every worker cancels what it has in flight and fires its
//!    timers; ops submitted from now on fail with `ECANCELED`. Fibers see errors and come to their
//!    ends. Threads outside can spawn no more.
//! 2. The thread that drops the runtime is worker 0 and goes on running its fibers, until no fiber
//!    is alive; or nothing moves and nothing can move any more (the fibers left wait for each
//!    other); or its patience is at an end. Where worker 0 cannot run its fibers (`abandon`), they
//!    are lost, and another thread waits for those of the other workers.
//! 3. The phase becomes `Stopped`: the workers leave their loops and drop their rings. A fiber that
//!    is still alive keeps its stack, and a ring with an op in flight keeps its memory, for ever:
//!    nothing that the kernel or a frame still points to is freed. Whoever joins it is told so
//!    (`lost.rs`).

use super::shared::{Phase, Shared};
use super::{Remote, Worker};
use crate::sys::clock;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long worker 0 runs its own fibers between two looks at the whole.
const SLICE: Duration = Duration::from_millis(1);
/// How long nothing must have moved before the rest is given up, and at how many looks: a process
/// that was stopped meanwhile finds that time has passed, and nothing else, since nobody ran.
const STILL: Duration = Duration::from_millis(50);
const STILL_LOOKS: u32 = 20;

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
    run_down(&shared, deadline_ns, || worker.run(Some(clock::deadline_ns(SLICE))));
    let fibers = shared.live();
    stop(&shared);
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

/// Lets slices of time pass until no fiber is alive, or that will not happen any more, or not in
/// time.
fn run_down(shared: &Shared, deadline_ns: u64, slice: impl Fn()) {
    let mut snapshot = (0, 0);
    let (mut still_since_ns, mut looks) = (clock::now_ns(), 0);
    while shared.any_may_end() {
        slice();
        // In this order: what was in none of the places where `busy` looks had been resumed.
        let busy = busy(shared);
        let moved = (resumes(shared), shared.live());
        let now_ns = clock::now_ns();
        if busy || moved != snapshot {
            snapshot = moved;
            (still_since_ns, looks) = (now_ns, 0);
        }
        looks += 1;
        let still = Duration::from_nanos(now_ns - still_since_ns);
        if (still >= STILL && looks > STILL_LOOKS) || now_ns >= deadline_ns {
            return;
        }
    }
}

/// Fibers resumed so far.
fn resumes(shared: &Shared) -> u64 {
    shared.seats().iter().map(|seat| seat.remote().resumes.load(Ordering::SeqCst)).sum()
}

/// Whether anything may still move by itself: an op, a timer, a job, something in an inbox. Looks
/// at these in the order in which a wake-up passes through them, so that none slips by: it is in
/// the next place before it leaves the last, and then a worker is awake until it has resumed the
/// fiber.
fn busy(shared: &Shared) -> bool {
    let remote_busy = |remote: &Remote| {
        !remote.is_gone() && (remote.busy.load(Ordering::SeqCst) != 0 || remote.has_mail())
    };
    shared.has_external()
        || shared.pool().busy() != 0
        || shared.seats().iter().any(|seat| remote_busy(seat.remote()))
        || shared.idle().anybody_awake()
}

/// Ends a runtime whose worker 0 cannot run any more, because the runtime is dropped on a fiber of
/// another one, or on a thread that unwinds (where every call that should suspend would block), or
/// on one that destroys its thread-local values. Nobody is waited for here: if there are other
/// workers, a thread sees to it that their fibers end and that they do. Returns the number of
/// fibers that have not ended.
pub(crate) fn abandon(worker: &Worker, patience: Duration) -> u64 {
    let shared = Arc::clone(worker.shared());
    if shared.phase() != Phase::Running {
        return shared.live();
    }
    shared.set_phase(Phase::Draining);
    for fiber in shared.close_external() {
        worker.queue_fresh(fiber);
    }
    if !shared.has_threads() {
        stop(&shared);
        worker.retire();
        return shared.live();
    }
    worker.retire();
    shared.worker_leaves_fresh();
    let deadline_ns = clock::deadline_ns(patience);
    let theirs = Arc::clone(&shared);
    let see_to_it = move || {
        run_down(&theirs, deadline_ns, || std::thread::sleep(SLICE));
        stop(&theirs);
    };
    let name = format!("{}-shutdown", shared.config().thread_name);
    if std::thread::Builder::new().name(name).spawn(see_to_it).is_err() {
        stop(&shared);
    }
    shared.live()
}

/// Makes the workers leave their loops.
fn stop(shared: &Shared) {
    shared.set_phase(Phase::Stopped);
    shared.pool().close();
    shared.waiters().close();
    // Those of a worker 0 that is gone. Other workers see to their own when they go.
    if shared.seat(0).remote().is_gone() {
        shared.lose_fresh(0);
    }
}
