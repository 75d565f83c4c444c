//! Starting something small and waiting for its end, in nanoseconds per task.
//!
//! "one by one" spawns a task and joins it, again and again; "batch" spawns a thousand and then
//! joins them all; "skynet" is a tree of tasks, each of which spawns ten and joins them, with a
//! million leaves (the time is per leaf, so that nanoseconds are milliseconds for the whole tree).
//! The limit is corosensei on a stack that is kept: prepare a fiber, run it to its end, nothing
//! scheduled, nothing shared; for the tree, on a kept stack per level. The peer in std is a thread.
//! Two workers are compared with one, too: a second worker should not slow small work down, and the
//! ratio of these rows says whether it does.
//! Other runtimes are in `benches/peers`.

mod common;

use common::{Bench, Metric, OURS, ns_per};
use std::hint::black_box;
use std::ptr::NonNull;

const ONE: Metric = Metric::time("spawn+join, one by one, 1 worker", "ns");
const BATCH: Metric = Metric::time("spawn+join, batch of 1000, 1 worker", "ns");
const ONE_2: Metric = Metric::time("spawn+join, one by one, 2 workers", "ns");
const BATCH_2: Metric = Metric::time("spawn+join, batch of 1000, 2 workers", "ns");

const SKYNET: Metric = Metric::time("skynet, per leaf, 1 worker", "ns");
const SKYNET_2: Metric = Metric::time("skynet, per leaf, 2 workers", "ns");

const IN_BATCH: usize = 1000;

fn main() {
    let mut bench = Bench::from_args();
    let n = bench.amount(2_000_000, 10_000);
    let threads = bench.amount(4000, 1000);
    let leaves = bench.amount(1_000_000, 10_000);
    for _ in bench.rounds(5) {
        common::pin(0);
        bench.run(ONE, OURS, || ours_one_by_one(1, n));
        bench.run(ONE, "bare, kept stack", || bare(n));
        bench.run(ONE, "std::thread", || threads_one_by_one(threads));
        bench.run(BATCH, OURS, || ours_batches(1, n));
        bench.run(BATCH, "std::thread", || threads_batches(threads));
        bench.run(SKYNET, OURS, || ours_skynet(1, leaves));
        bench.run(SKYNET, "bare, kept stacks", || bare_skynet(leaves));
        common::unpin();
        bench.run(ONE_2, OURS, || ours_one_by_one(2, n));
        bench.run(ONE_2, "std::thread", || threads_one_by_one(threads));
        bench.run(ONE_2, "ramie on 1 worker", || ours_one_by_one(1, n));
        bench.run(BATCH_2, OURS, || ours_batches(2, n));
        bench.run(BATCH_2, "ramie on 1 worker", || ours_batches(1, n));
        bench.run(BATCH_2, "std::thread", || threads_batches(threads));
        bench.run(SKYNET_2, OURS, || ours_skynet(2, leaves));
        bench.run(SKYNET_2, "ramie on 1 worker", || ours_skynet(1, leaves));
        bench.run(SKYNET_2, "bare, kept stacks", || bare_skynet(leaves));
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

fn ours_skynet(workers: usize, leaves: usize) -> Option<f64> {
    fn sum(first: usize, leaves: usize) -> usize {
        if leaves == 1 {
            return first;
        }
        let each = leaves / 10;
        let child = |nth| ramie::spawn(move || sum(first + nth * each, each));
        let children: [_; 10] = std::array::from_fn(child);
        children.into_iter().map(|child| child.join().expect("no fiber panicked")).sum()
    }
    let runtime = common::runtime(workers)?;
    runtime.run(|| sum(0, leaves)); // the stacks are there
    let ns = runtime.run(|| ns_per(leaves, || assert_eq!(sum(0, leaves), sum_of(leaves))));
    Some(ns)
}

fn sum_of(leaves: usize) -> usize {
    leaves * (leaves - 1) / 2
}

fn bare_skynet(leaves: usize) -> Option<f64> {
    use corosensei::{Coroutine, CoroutineResult, stack::DefaultStack};
    /// Runs the ten children one after the other on the first of `stacks`, theirs on the others.
    fn sum(first: usize, leaves: usize, stacks: &mut [Option<DefaultStack>]) -> usize {
        let Some((stack, rest)) = stacks.split_first_mut() else { return first };
        let each = leaves / 10;
        let child = |nth| {
            let kept = stack.take().expect("it was put back");
            let rest = &mut *rest;
            // SAFETY: the fiber has ended before `rest` is used again, and does not outlive it.
            let rest = unsafe { NonNull::from(rest).as_mut() };
            let body = move |_: &_, ()| sum(first + nth * each, each, rest);
            let mut fiber = Coroutine::<(), (), usize, _>::with_stack(kept, body);
            let CoroutineResult::Return(sum) = fiber.resume(()) else {
                unreachable!("it never yields")
            };
            *stack = Some(fiber.into_stack());
            sum
        };
        (0..10).map(child).sum()
    }
    let new = || Some(DefaultStack::new(64 * 1024).expect("a stack"));
    let mut stacks: Vec<_> = (0..leaves.ilog10()).map(|_| new()).collect();
    let ns = ns_per(leaves, || assert_eq!(sum(0, leaves, &mut stacks), sum_of(leaves)));
    Some(ns)
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
