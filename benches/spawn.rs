//! Starting something small and waiting for its end, in nanoseconds per task.
//!
//! "one by one" spawns a task and joins it, again and again; "batch" spawns a thousand and then
//! joins them all. The limit is corosensei on a stack that is kept: prepare a fiber, run it to its
//! end, nothing scheduled, nothing shared. The peer in std is a thread. Other runtimes are in
//! `benches/peers`.

mod common;

use common::{Bench, Metric, OURS, ns_per};
use std::hint::black_box;

const ONE: Metric = Metric::time("spawn+join, one by one, 1 worker", "ns");
const BATCH: Metric = Metric::time("spawn+join, batch of 1000, 1 worker", "ns");
const ONE_2: Metric = Metric::time("spawn+join, one by one, 2 workers", "ns");
const BATCH_2: Metric = Metric::time("spawn+join, batch of 1000, 2 workers", "ns");

const IN_BATCH: usize = 1000;

fn main() {
    let mut bench = Bench::from_args();
    let n = bench.amount(2_000_000, 10_000);
    let threads = bench.amount(4000, 1000);
    for _ in bench.rounds(5) {
        common::pin(0);
        bench.run(ONE, OURS, || ours_one_by_one(1, n));
        bench.run(ONE, "bare, kept stack", || bare(n));
        bench.run(ONE, "std::thread", || threads_one_by_one(threads));
        bench.run(BATCH, OURS, || ours_batches(1, n));
        bench.run(BATCH, "std::thread", || threads_batches(threads));
        common::unpin();
        bench.run(ONE_2, OURS, || ours_one_by_one(2, n));
        bench.run(ONE_2, "std::thread", || threads_one_by_one(threads));
        bench.run(BATCH_2, OURS, || ours_batches(2, n));
        bench.run(BATCH_2, "std::thread", || threads_batches(threads));
    }
    bench.print();
}

fn ours_one_by_one(workers: usize, tasks: usize) -> Option<f64> {
    let task = |_| _ = ramie::spawn(|| black_box(1)).join();
    let runtime = common::runtime(workers)?;
    Some(runtime.run(|| ns_per(tasks, || (0..tasks).for_each(task))))
}

fn ours_batches(workers: usize, tasks: usize) -> Option<f64> {
    let batch = |_| {
        let started: Vec<_> = (0..IN_BATCH).map(|_| ramie::spawn(|| black_box(1))).collect();
        started.into_iter().for_each(|job| _ = job.join());
    };
    let runtime = common::runtime(workers)?;
    Some(runtime.run(|| ns_per(tasks, || (0..tasks / IN_BATCH).for_each(batch))))
}

fn bare(tasks: usize) -> Option<f64> {
    use corosensei::{Coroutine, CoroutineResult, stack::DefaultStack};
    let mut stack = Some(DefaultStack::new(64 * 1024).expect("a stack"));
    let ns = ns_per(tasks, || {
        for i in 0..tasks {
            let kept = stack.take().expect("it was put back");
            let mut fiber = Coroutine::<(), (), usize, _>::with_stack(kept, move |_, ()| i);
            match fiber.resume(()) {
                CoroutineResult::Return(value) => black_box(value),
                CoroutineResult::Yield(()) => unreachable!("it never yields"),
            };
            stack = Some(fiber.into_stack());
        }
    });
    Some(ns)
}

fn threads_one_by_one(tasks: usize) -> Option<f64> {
    let task = |_| _ = std::thread::spawn(|| black_box(1)).join();
    Some(ns_per(tasks, || (0..tasks).for_each(task)))
}

fn threads_batches(tasks: usize) -> Option<f64> {
    let batch = |_| {
        let started: Vec<_> = (0..IN_BATCH).map(|_| std::thread::spawn(|| black_box(1))).collect();
        started.into_iter().for_each(|job| _ = job.join());
    };
    Some(ns_per(tasks, || (0..tasks / IN_BATCH).for_each(batch)))
}
