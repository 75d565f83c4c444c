//! Other runtimes at what `spawn` and `switch` measure: spawn and join, and yielding.
//!
//! One process has one number of workers (the first argument that is a number; 1 if there is none),
//! because may's cannot be changed: `ci/peers.sh` runs it twice. With one worker everything is
//! pinned to one core.

#[path = "../../common/mod.rs"]
mod common;
mod go;

use common::{Bench, Metric, OURS, ns_per};
use std::hint::black_box;

const ONE: Metric = Metric::time("spawn+join, one by one", "ns");
const BATCH: Metric = Metric::time("spawn+join, batch of 1000", "ns");
const YIELD: Metric = Metric::time("yield, 100 tasks", "ns");

const IN_BATCH: usize = 1000;
const YIELDERS: usize = 100;

fn main() {
    let mut bench = Bench::from_args();
    let workers = bench.args.iter().find_map(|arg| arg.parse().ok()).unwrap_or(1);
    if workers == 1 {
        common::pin(0);
    }
    may::config().set_workers(workers).set_stack_size(0x1000);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(workers).build().expect("a pool");
    let tokio = match workers {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let mut tokio = tokio;
    let tokio = tokio.worker_threads(workers).build().expect("a runtime");
    let n = bench.amount(500_000, 20_000);
    for _ in bench.rounds(5) {
        bench.run(ONE, OURS, || ours::one_by_one(workers, n));
        bench.run(ONE, "Go", || go::one("one", workers, n));
        bench.run(ONE, "tokio", || Some(on_tokio::one_by_one(&tokio, n)));
        bench.run(ONE, "rayon", || Some(on_rayon::one_by_one(&pool, n)));
        bench.run(ONE, "may", || Some(on_may::one_by_one(n / 10)));
        bench.run(BATCH, OURS, || ours::batches(workers, n));
        bench.run(BATCH, "Go", || go::one("batch", workers, n));
        bench.run(BATCH, "tokio", || Some(on_tokio::batches(&tokio, n)));
        bench.run(BATCH, "rayon", || Some(on_rayon::batches(&pool, n)));
        bench.run(BATCH, "may", || Some(on_may::batches(n / 10)));
        bench.run(YIELD, OURS, || ours::yields(workers, n));
        bench.run(YIELD, "Go", || go::one("yield", workers, n));
        bench.run(YIELD, "tokio", || Some(on_tokio::yields(&tokio, n)));
        bench.run(YIELD, "may", || Some(on_may::yields(n)));
    }
    println!("{workers} worker(s)");
    bench.print();
}

mod ours {
    use super::*;

    pub fn one_by_one(workers: usize, tasks: usize) -> Option<f64> {
        let task = |_| _ = ramie::spawn(|| black_box(1)).join();
        let runtime = common::runtime(workers)?;
        Some(runtime.run(|| ns_per(tasks, || (0..tasks).for_each(task))))
    }

    fn join_all<T>(started: Vec<ramie::JoinHandle<T>>) {
        started.into_iter().for_each(|fiber| _ = fiber.join().expect("no fiber panicked"));
    }

    pub fn batches(workers: usize, tasks: usize) -> Option<f64> {
        let start = |_| ramie::spawn(|| black_box(1));
        let batch = |_| join_all((0..IN_BATCH).map(start).collect());
        let runtime = common::runtime(workers)?;
        Some(runtime.run(|| ns_per(tasks, || (0..tasks / IN_BATCH).for_each(batch))))
    }

    pub fn yields(workers: usize, yields: usize) -> Option<f64> {
        let each = yields / YIELDERS;
        let yielder = move || (0..each).for_each(|_| ramie::yield_now());
        let main = || join_all((0..YIELDERS).map(|_| ramie::spawn(yielder)).collect());
        let runtime = common::runtime(workers)?;
        Some(runtime.run(|| ns_per(yields, main)))
    }
}

mod on_tokio {
    use super::*;
    use tokio::runtime::Runtime;
    use tokio::task::{JoinHandle, yield_now};

    /// As a task of its own: the thread that calls `block_on` is not a worker.
    fn inside(tokio: &Runtime, task: impl Future<Output = ()> + Send + 'static) {
        let main = tokio.spawn(task);
        tokio.block_on(main).expect("no task panicked");
    }

    async fn join_all(started: Vec<JoinHandle<i32>>) {
        for task in started {
            task.await.expect("no task panicked");
        }
    }

    pub fn one_by_one(tokio: &Runtime, tasks: usize) -> f64 {
        let main = async move {
            for _ in 0..tasks {
                tokio::spawn(async { black_box(1) }).await.expect("no task panicked");
            }
        };
        ns_per(tasks, || inside(tokio, main))
    }

    pub fn batches(tokio: &Runtime, tasks: usize) -> f64 {
        let main = async move {
            for _ in 0..tasks / IN_BATCH {
                let start = |_| tokio::spawn(async { black_box(1) });
                join_all((0..IN_BATCH).map(start).collect()).await;
            }
        };
        ns_per(tasks, || inside(tokio, main))
    }

    pub fn yields(tokio: &Runtime, yields: usize) -> f64 {
        let each = yields / YIELDERS;
        let yielder = move || async move {
            for _ in 0..each {
                yield_now().await;
            }
            1
        };
        let main = async move {
            join_all((0..YIELDERS).map(|_| tokio::spawn(yielder())).collect()).await;
        };
        ns_per(yields, || inside(tokio, main))
    }
}

mod on_rayon {
    use super::*;
    use rayon::ThreadPool;

    pub fn one_by_one(pool: &ThreadPool, tasks: usize) -> f64 {
        let task = |_| rayon::scope(|scope| scope.spawn(|_| _ = black_box(1)));
        ns_per(tasks, || pool.install(|| (0..tasks).for_each(task)))
    }

    pub fn batches(pool: &ThreadPool, tasks: usize) -> f64 {
        let batch = |_| {
            rayon::scope(|scope| {
                (0..IN_BATCH).for_each(|_| scope.spawn(|_| _ = black_box(1)));
            });
        };
        ns_per(tasks, || pool.install(|| (0..tasks / IN_BATCH).for_each(batch)))
    }
}

mod on_may {
    use super::*;
    use may::coroutine::{self, JoinHandle};

    fn start<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        // SAFETY: nothing here uses thread-locals or much stack.
        unsafe { coroutine::spawn(f) }
    }

    fn join<T>(task: JoinHandle<T>) {
        assert!(task.join().is_ok(), "no coroutine panicked");
    }

    pub fn one_by_one(tasks: usize) -> f64 {
        let task = |_| join(start(|| black_box(1)));
        ns_per(tasks, || join(start(move || (0..tasks).for_each(task))))
    }

    pub fn batches(tasks: usize) -> f64 {
        let batch = |_| {
            let started: Vec<_> = (0..IN_BATCH).map(|_| start(|| black_box(1))).collect();
            started.into_iter().for_each(join);
        };
        ns_per(tasks, || join(start(move || (0..tasks / IN_BATCH).for_each(batch))))
    }

    pub fn yields(yields: usize) -> f64 {
        let each = yields / YIELDERS;
        let yielder = move || (0..each).for_each(|_| coroutine::yield_now());
        let main = move || {
            let started: Vec<_> = (0..YIELDERS).map(|_| start(yielder)).collect();
            started.into_iter().for_each(join);
        };
        ns_per(yields, || join(start(main)))
    }
}
