//! Locks, in nanoseconds per pair of lock and unlock.
//!
//! *alone*: one thread or fiber, nobody else. *contended*: 100 fibers add 10,000 times each to one
//! number behind a mutex, on one worker and on two; the figure is the whole time over the number of
//! additions. The peer is std's lock: alone, and under two threads that do the same.

mod common;

use common::{Bench, Metric, OURS, ns_per};
use std::hint::black_box;
use std::sync::Arc;

const ALONE: Metric = Metric::time("mutex alone", "ns");
const ALONE_READ: Metric = Metric::time("rwlock read alone", "ns");
const ALONE_WRITE: Metric = Metric::time("rwlock write alone", "ns");
const ONE: Metric = Metric::time("mutex 100 fibers, 1 worker", "ns");
const TWO: Metric = Metric::time("mutex 100 fibers, 2 workers", "ns");

const FIBERS: usize = 100;

fn main() {
    let mut bench = Bench::from_args();
    let n = bench.amount(20_000_000, 10_000);
    let each = bench.amount(10_000, 100);
    for _ in bench.rounds(7) {
        bench.run(ALONE, OURS, || {
            let mutex = ramie::sync::Mutex::new(0);
            Some(ns_per(n, || (0..n).for_each(|_| *mutex.lock().unwrap() += 1)))
        });
        bench.run(ALONE, "std", || {
            let mutex = std::sync::Mutex::new(0);
            Some(ns_per(n, || (0..n).for_each(|_| *mutex.lock().unwrap() += 1)))
        });
        bench.run(ALONE_READ, OURS, || {
            let lock = ramie::sync::RwLock::new(1);
            Some(ns_per(n, || (0..n).for_each(|_| _ = black_box(*lock.read().unwrap()))))
        });
        bench.run(ALONE_READ, "std", || {
            let lock = std::sync::RwLock::new(1);
            Some(ns_per(n, || (0..n).for_each(|_| _ = black_box(*lock.read().unwrap()))))
        });
        bench.run(ALONE_WRITE, OURS, || {
            let lock = ramie::sync::RwLock::new(0);
            Some(ns_per(n, || (0..n).for_each(|_| *lock.write().unwrap() += 1)))
        });
        bench.run(ALONE_WRITE, "std", || {
            let lock = std::sync::RwLock::new(0);
            Some(ns_per(n, || (0..n).for_each(|_| *lock.write().unwrap() += 1)))
        });
        bench.run(ONE, OURS, || fibers(1, each));
        bench.run(ONE, "std, 2 threads", || threads(2, each));
        bench.run(TWO, OURS, || fibers(2, each));
        bench.run(TWO, "std, 2 threads", || threads(2, each));
    }
    bench.print();
}

fn fibers(workers: usize, each: usize) -> Option<f64> {
    let runtime = common::runtime(workers)?;
    let ns = runtime.run(|| {
        let sum = Arc::new(ramie::sync::Mutex::new(0_usize));
        let ns = ns_per(FIBERS * each, || {
            let add = || {
                let sum = Arc::clone(&sum);
                ramie::spawn(move || (0..each).for_each(|_| *sum.lock().unwrap() += 1))
            };
            let fibers: Vec<_> = (0..FIBERS).map(|_| add()).collect();
            fibers.into_iter().for_each(|fiber| fiber.join().expect("no fiber panicked"));
        });
        assert_eq!(*sum.lock().unwrap(), FIBERS * each);
        ns
    });
    Some(ns)
}

fn threads(threads: usize, each: usize) -> Option<f64> {
    let sum = std::sync::Mutex::new(0_usize);
    let ns = ns_per(FIBERS * each, || {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    (0..FIBERS * each / threads).for_each(|_| *sum.lock().unwrap() += 1);
                });
            }
        });
    });
    assert_eq!(sum.into_inner().unwrap(), FIBERS * each);
    Some(ns)
}
