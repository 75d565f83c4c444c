//! Other runtimes at what tasks coordinate with: channels, a lock, joins, sleeps.
//!
//! One process has one number of workers, the first argument that is a number: `ci/peers.sh` runs
//! it twice.

#[path = "../../../common/mod.rs"]
mod common;
#[path = "../go.rs"]
mod go;

use common::{Bench, Metric, OURS, ns_per};
use std::hint::black_box;
use std::time::{Duration, Instant};

const PING: Metric = Metric::time("channel, round trip of two tasks", "ns");
const CHANNEL: Metric = Metric::rate("channel of 128, 2 to 2", "M/s");
const MUTEX: Metric = Metric::time("lock, 100 tasks, each increment", "ns");
const FIB: Metric = Metric::time("fib by join, each call", "ns");
const SKYNET: Metric = Metric::time("skynet, a million leaves", "ms");
const CPU: Metric = Metric::time("100,000 sleeps of 1-1000 ms: CPU", "ms");
const LATE_50: Metric = Metric::time("100,000 sleeps: late, median", "ms");
const LATE_99: Metric = Metric::time("100,000 sleeps: late, 99 %", "ms");

const LOCKERS: usize = 100;
const CAPACITY: usize = 128;

fn main() {
    let mut bench = Bench::from_args();
    let workers = bench.args.iter().find_map(|arg| arg.parse().ok()).unwrap_or(1);
    if workers == 1 {
        common::pin(0);
    }
    may::config().set_workers(workers).set_stack_size(0x1000);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(workers).build().expect("a pool");
    let mut tokio = match workers {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let tokio = tokio.worker_threads(workers).enable_time().build().expect("a runtime");

    let pings = bench.amount(200_000, 2000);
    let messages = bench.amount(4_000_000, 20_000);
    let locks = bench.amount(10_000, 100);
    let n = bench.amount(32, 16);
    let leaves = bench.amount(1_000_000, 1000);
    let sleeps = bench.amount(100_000, 1000);
    for _ in bench.rounds(5) {
        bench.run(PING, OURS, || ours::ping(workers, pings));
        bench.run(PING, "Go", || go::one("ping", workers, pings));
        bench.run(PING, "tokio", || Some(on_tokio::ping(&tokio, pings)));
        bench.run(PING, "may", || Some(on_may::ping(pings)));
        bench.run(PING, "crossbeam, threads", || Some(on_threads::ping(pings / 10)));
        bench.run(CHANNEL, OURS, || ours::channel(workers, messages));
        bench.run(CHANNEL, "Go", || go::one("channel", workers, messages));
        bench.run(CHANNEL, "tokio, 2 to 1", || Some(on_tokio::channel(&tokio, messages / 4)));
        bench.run(CHANNEL, "crossbeam, threads", || Some(on_threads::channel(messages)));
        bench.run(MUTEX, OURS, || ours::mutex(workers, locks));
        bench.run(MUTEX, "Go", || go::one("mutex", workers, locks));
        bench.run(MUTEX, "tokio", || Some(on_tokio::mutex(&tokio, locks)));
        bench.run(MUTEX, "may", || Some(on_may::mutex(locks)));
        bench.run(MUTEX, "parking_lot, threads", || Some(on_threads::mutex(locks)));
        bench.run(FIB, OURS, || ours::fib_by_join(workers, n));
        bench.run(FIB, "rayon", || Some(on_rayon::fib_by_join(&pool, n)));
        bench.run(FIB, "Go, spawn", || go::one("fib", workers, n.min(27)));
        bench.run(SKYNET, OURS, || ours::skynet(workers, leaves));
        bench.run(SKYNET, "rayon, scope", || Some(on_rayon::skynet(&pool, leaves)));
        bench.run(SKYNET, "Go", || go::one("skynet", workers, leaves));
        bench.run(SKYNET, "tokio", || Some(on_tokio::skynet(&tokio, leaves)));
        if bench.wants(CPU) || bench.wants(LATE_50) {
            record(&mut bench, OURS, ours::sleeps(workers, sleeps));
            record(
                &mut bench,
                "Go",
                go::all("sleeps", workers, sleeps).and_then(|n| n.try_into().ok()),
            );
            record(&mut bench, "tokio", Some(on_tokio::sleeps(&tokio, sleeps)));
        }
    }
    println!("{workers} worker(s)");
    bench.print();
}

fn record(bench: &mut Bench, who: &'static str, values: Option<[f64; 3]>) {
    for (at, metric) in [CPU, LATE_50, LATE_99].into_iter().enumerate() {
        bench.record(metric, who, values.map(|values| values[at]));
    }
}

/// How long the `i`-th task sleeps.
fn length(i: usize) -> Duration {
    Duration::from_millis(1 + (i * 7919 % 1000) as u64)
}

/// CPU time since `before` and lateness at 50 and 99 %, in milliseconds.
fn summary(before: Duration, mut late: Vec<Duration>) -> [f64; 3] {
    late.sort();
    let at = |percent: usize| late[(late.len() - 1) * percent / 100];
    [cpu() - before, at(50), at(99)].map(|length| length.as_secs_f64() * 1e3)
}

fn cpu() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes into `now`.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut now) };
    assert_eq!(result, 0, "the process's clock can be read");
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

mod ours {
    use super::*;
    use ramie::sync::{Mutex, mpmc, mpsc};
    use std::sync::Arc;

    fn join_all<T>(started: Vec<ramie::JoinHandle<T>>) -> Vec<T> {
        started.into_iter().map(|fiber| fiber.join().expect("no fiber panicked")).collect()
    }

    pub fn ping(workers: usize, rounds: usize) -> Option<f64> {
        let runtime = common::runtime(workers)?;
        Some(runtime.run(|| {
            let (there, echo) = mpsc::sync_channel(0);
            let (back, answer) = mpsc::sync_channel(0);
            let other = ramie::spawn(move || echo.iter().try_for_each(|value| back.send(value)));
            let ns = ns_per(rounds, || {
                for i in 0..rounds {
                    there.send(i).expect("the other side lives");
                    assert_eq!(answer.recv(), Ok(i));
                }
            });
            drop(there);
            other.join().expect("no fiber panicked").expect("all answers were taken");
            ns
        }))
    }

    pub fn channel(workers: usize, messages: usize) -> Option<f64> {
        let runtime = common::runtime(workers)?;
        let main = || {
            let (sender, receiver) = mpmc::bounded(CAPACITY);
            let mut fibers = Vec::new();
            for side in 0..2 {
                let sender = sender.clone();
                fibers.push(common::spawn_on(side % workers, move || {
                    (0..messages / 2).for_each(|i| sender.send(i).expect("receivers live"));
                }));
                let receiver = receiver.clone();
                fibers.push(common::spawn_on((side + 1) % workers, move || {
                    receiver.iter().for_each(|i| _ = black_box(i));
                }));
            }
            drop((sender, receiver));
            join_all(fibers);
        };
        Some(runtime.run(|| 1e3 / ns_per(messages, main)))
    }

    pub fn mutex(workers: usize, each: usize) -> Option<f64> {
        let runtime = common::runtime(workers)?;
        let main = || {
            let count = Arc::new(Mutex::new(0));
            let start = |i| {
                let count = Arc::clone(&count);
                let increment = move |_| *count.lock().expect("nobody panicked") += 1;
                common::spawn_on(i % workers, move || (0..each).for_each(increment))
            };
            join_all((0..LOCKERS).map(start).collect());
            assert_eq!(*count.lock().expect("nobody panicked"), each * LOCKERS);
        };
        Some(runtime.run(|| ns_per(LOCKERS * each, main)))
    }

    fn fib(n: usize) -> u64 {
        if n < 2 {
            return n as u64;
        }
        let (a, b) = ramie::join(|| fib(n - 1), || fib(n - 2));
        a + b
    }

    pub fn fib_by_join(workers: usize, n: usize) -> Option<f64> {
        let runtime = common::runtime(workers)?;
        Some(runtime.run(|| ns_per(calls(n), || _ = black_box(fib(n)))))
    }

    fn node(number: usize, leaves: usize) -> usize {
        if leaves == 1 {
            return number;
        }
        let child = |i| ramie::spawn(move || node(number + i * leaves / 10, leaves / 10));
        let children: [_; 10] = std::array::from_fn(child);
        children.into_iter().map(|child| child.join().expect("no fiber panicked")).sum()
    }

    pub fn skynet(workers: usize, leaves: usize) -> Option<f64> {
        let runtime = common::runtime(workers)?;
        Some(
            runtime
                .run(|| ns_per(1, || assert_eq!(node(0, leaves), leaves * (leaves - 1) / 2)) / 1e6),
        )
    }

    pub fn sleeps(workers: usize, count: usize) -> Option<[f64; 3]> {
        let runtime = common::runtime(workers)?;
        Some(runtime.run(|| {
            let before = cpu();
            let start = |i| {
                ramie::spawn(move || {
                    let start = Instant::now();
                    ramie::sleep(length(i));
                    start.elapsed() - length(i)
                })
            };
            summary(before, join_all((0..count).map(start).collect()))
        }))
    }
}

/// How often `fib(n)` joins.
fn calls(n: usize) -> usize {
    let (mut a, mut b) = (0, 0);
    for _ in 1..n {
        (a, b) = (b, a + b + 1);
    }
    b
}

mod on_tokio {
    use super::*;
    use std::sync::Arc;
    use tokio::runtime::Runtime;
    use tokio::sync::{Mutex, mpsc};
    use tokio::task::JoinHandle;

    /// As a task of its own: the thread that calls `block_on` is not a worker.
    fn inside<T: Send + 'static>(
        tokio: &Runtime,
        task: impl Future<Output = T> + Send + 'static,
    ) -> T {
        let main = tokio.spawn(task);
        tokio.block_on(main).expect("no task panicked")
    }

    async fn join_all<T>(started: Vec<JoinHandle<T>>) -> Vec<T> {
        let mut results = Vec::with_capacity(started.len());
        for task in started {
            results.push(task.await.expect("no task panicked"));
        }
        results
    }

    pub fn ping(tokio: &Runtime, rounds: usize) -> f64 {
        let main = async move {
            let (there, mut echo) = mpsc::channel(1);
            let (back, mut answer) = mpsc::channel(1);
            tokio::spawn(async move {
                while let Some(value) = echo.recv().await {
                    back.send(value).await.expect("all answers are taken");
                }
            });
            for i in 0..rounds {
                there.send(i).await.expect("the other side lives");
                assert_eq!(answer.recv().await, Some(i));
            }
        };
        ns_per(rounds, || inside(tokio, main))
    }

    pub fn channel(tokio: &Runtime, messages: usize) -> f64 {
        let main = async move {
            let (sender, mut receiver) = mpsc::channel(CAPACITY);
            for _ in 0..2 {
                let sender = sender.clone();
                tokio::spawn(async move {
                    for i in 0..messages / 2 {
                        sender.send(i).await.expect("the receiver lives");
                    }
                });
            }
            drop(sender);
            while let Some(i) = receiver.recv().await {
                black_box(i);
            }
        };
        1e3 / ns_per(messages, || inside(tokio, main))
    }

    pub fn mutex(tokio: &Runtime, each: usize) -> f64 {
        let main = async move {
            let count = Arc::new(Mutex::new(0));
            let start = |_| {
                let count = Arc::clone(&count);
                tokio::spawn(async move {
                    for _ in 0..each {
                        *count.lock().await += 1;
                    }
                })
            };
            join_all((0..LOCKERS).map(start).collect()).await;
        };
        ns_per(LOCKERS * each, || inside(tokio, main))
    }

    fn node(number: usize, leaves: usize) -> std::pin::Pin<Box<dyn Future<Output = usize> + Send>> {
        Box::pin(async move {
            if leaves == 1 {
                return number;
            }
            let child = |i| tokio::spawn(node(number + i * leaves / 10, leaves / 10));
            join_all((0..10).map(child).collect()).await.into_iter().sum()
        })
    }

    pub fn skynet(tokio: &Runtime, leaves: usize) -> f64 {
        ns_per(1, || _ = inside(tokio, node(0, leaves))) / 1e6
    }

    pub fn sleeps(tokio: &Runtime, count: usize) -> [f64; 3] {
        let main = async move {
            let before = cpu();
            let start = |i| {
                tokio::spawn(async move {
                    let start = Instant::now();
                    tokio::time::sleep(length(i)).await;
                    start.elapsed() - length(i)
                })
            };
            summary(before, join_all((0..count).map(start).collect()).await)
        };
        inside(tokio, main)
    }
}

mod on_rayon {
    use super::*;
    use rayon::ThreadPool;

    fn fib(n: usize) -> u64 {
        if n < 2 {
            return n as u64;
        }
        let (a, b) = rayon::join(|| fib(n - 1), || fib(n - 2));
        a + b
    }

    pub fn fib_by_join(pool: &ThreadPool, n: usize) -> f64 {
        pool.install(|| ns_per(calls(n), || _ = black_box(fib(n))))
    }

    fn node(number: usize, leaves: usize) -> usize {
        if leaves == 1 {
            return number;
        }
        let mut sums = [0; 10];
        rayon::scope(|scope| {
            for (i, sum) in sums.iter_mut().enumerate() {
                scope.spawn(move |_| *sum = node(number + i * leaves / 10, leaves / 10));
            }
        });
        sums.iter().sum()
    }

    pub fn skynet(pool: &ThreadPool, leaves: usize) -> f64 {
        pool.install(|| ns_per(1, || _ = black_box(node(0, leaves))) / 1e6)
    }
}

mod on_may {
    use super::*;
    use may::coroutine::{self, JoinHandle};
    use may::sync::{Mutex, mpsc};
    use std::sync::Arc;

    fn start<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        // SAFETY: nothing here uses thread-locals or much stack.
        unsafe { coroutine::spawn(f) }
    }

    fn join<T>(task: JoinHandle<T>) {
        assert!(task.join().is_ok(), "no coroutine panicked");
    }

    pub fn ping(rounds: usize) -> f64 {
        let main = move || {
            let (there, echo) = mpsc::channel();
            let (back, answer) = mpsc::channel();
            let other = start(move || echo.iter().try_for_each(|value| back.send(value)));
            for i in 0..rounds {
                there.send(i).expect("the other side lives");
                assert_eq!(answer.recv(), Ok(i));
            }
            drop(there);
            join(other);
        };
        ns_per(rounds, || join(start(main)))
    }

    pub fn mutex(each: usize) -> f64 {
        let main = move || {
            let count = Arc::new(Mutex::new(0));
            let start = |_| {
                let count = Arc::clone(&count);
                let increment = move |_| *count.lock().expect("nobody panicked") += 1;
                start(move || (0..each).for_each(increment))
            };
            let started: Vec<_> = (0..LOCKERS).map(start).collect();
            started.into_iter().for_each(join);
        };
        ns_per(LOCKERS * each, || join(start(main)))
    }
}

mod on_threads {
    use super::*;
    use crossbeam_channel::bounded;
    use parking_lot::Mutex;
    use std::thread;

    pub fn ping(rounds: usize) -> f64 {
        let (there, echo) = bounded(0);
        let (back, answer) = bounded(0);
        thread::scope(|scope| {
            scope.spawn(move || echo.iter().try_for_each(|value| back.send(value)));
            let ns = ns_per(rounds, || {
                for i in 0..rounds {
                    there.send(i).expect("the other side lives");
                    assert_eq!(answer.recv(), Ok(i));
                }
            });
            drop(there);
            ns
        })
    }

    pub fn channel(messages: usize) -> f64 {
        let (sender, receiver) = bounded(CAPACITY);
        let main = || {
            thread::scope(|scope| {
                for _ in 0..2 {
                    let sender = sender.clone();
                    scope.spawn(move || {
                        (0..messages / 2).for_each(|i| sender.send(i).expect("receivers live"));
                    });
                    let receiver = receiver.clone();
                    scope.spawn(move || receiver.iter().for_each(|i| _ = black_box(i)));
                }
                drop((sender, receiver));
            });
        };
        1e3 / ns_per(messages, main)
    }

    pub fn mutex(each: usize) -> f64 {
        let count = Mutex::new(0);
        let increment = |_| *count.lock() += 1;
        ns_per(LOCKERS * each, || {
            thread::scope(|scope| {
                for _ in 0..LOCKERS {
                    scope.spawn(|| (0..each).for_each(increment));
                }
            });
        })
    }
}
