//! Dividing work: `join` all the way down, `join` with a cut-off, and a tree of scopes.

mod common;

use common::{Bench, Metric, OURS, ns_per};
use std::hint::black_box;
use std::time::Instant;

const FIB: Metric = Metric::time("fib(32) by join, per call, 1 worker", "ns");
const FIB_2: Metric = Metric::time("fib(32) by join, per call, 2 workers", "ns");
const CUT: Metric = Metric::time("fib(32) by join above 20, 1 worker", "ms");
const CUT_2: Metric = Metric::time("fib(32) by join above 20, 2 workers", "ms");
const TREE: Metric = Metric::time("a million leaves by scopes, 1 worker", "ms");
const TREE_2: Metric = Metric::time("a million leaves by scopes, 2 workers", "ms");

fn main() {
    let mut bench = Bench::from_args();
    let n = bench.amount(32, 20) as u32;
    let leaves = bench.amount(1_000_000, 1_000);
    for _ in bench.rounds(5) {
        for workers in [1, 2] {
            let (fib, cut, tree) =
                if workers == 1 { (FIB, CUT, TREE) } else { (FIB_2, CUT_2, TREE_2) };
            if workers == 1 {
                common::pin(0);
            }
            bench.run(fib, OURS, || {
                ours(workers, || ns_per(calls(n), || _ = black_box(fib_ours(n, 1))))
            });
            bench.run(fib, "rayon", || {
                Some(rayon(workers, || ns_per(calls(n), || _ = black_box(fib_rayon(n, 1)))))
            });
            bench.run(cut, OURS, || ours(workers, || ms(|| fib_ours(n, 20))));
            bench.run(cut, "rayon", || Some(rayon(workers, || ms(|| fib_rayon(n, 20)))));
            bench.run(cut, "a loop", || Some(ms(|| fib_alone(n))));
            bench.run(tree, OURS, || ours(workers, || ms(|| tree_ours(0, leaves))));
            bench.run(tree, "rayon", || Some(rayon(workers, || ms(|| tree_rayon(0, leaves)))));
            common::unpin();
        }
    }
    bench.print();
}

fn ours<T: Send>(workers: usize, f: impl FnOnce() -> T) -> Option<T> {
    Some(common::runtime(workers)?.run(f))
}

fn rayon<T: Send>(workers: usize, f: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(workers).build().expect("a pool").install(f)
}

fn ms<T>(f: impl FnOnce() -> T) -> f64 {
    let start = Instant::now();
    black_box(f());
    start.elapsed().as_secs_f64() * 1e3
}

/// How often `fib(n)` calls itself.
fn calls(n: u32) -> usize {
    if n < 2 { 1 } else { calls(n - 1) + calls(n - 2) + 1 }
}

fn fib_alone(n: u32) -> u64 {
    if n < 2 { u64::from(n) } else { fib_alone(black_box(n - 1)) + fib_alone(black_box(n - 2)) }
}

fn fib_ours(n: u32, cut_off: u32) -> u64 {
    if n < 2 {
        return u64::from(n);
    }
    if n < cut_off {
        return fib_alone(n);
    }
    let (a, b) = ramie::join(|| fib_ours(n - 1, cut_off), || fib_ours(n - 2, cut_off));
    a + b
}

fn fib_rayon(n: u32, cut_off: u32) -> u64 {
    if n < 2 {
        return u64::from(n);
    }
    if n < cut_off {
        return fib_alone(n);
    }
    let (a, b) = rayon::join(|| fib_rayon(n - 1, cut_off), || fib_rayon(n - 2, cut_off));
    a + b
}

/// Ten children each, down to the leaves, which are summed.
fn tree_ours(first: usize, size: usize) -> usize {
    if size == 1 {
        return first;
    }
    let tenth = size / 10;
    ramie::scope(|s| {
        let child = |n| s.spawn(move || tree_ours(first + n * tenth, tenth));
        let children = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(child);
        children.into_iter().map(|child| child.join().expect("no panic")).sum()
    })
}

fn tree_rayon(first: usize, size: usize) -> usize {
    if size == 1 {
        return first;
    }
    let tenth = size / 10;
    let mut sums = [0; 10];
    rayon::scope(|s| {
        for (n, sum) in sums.iter_mut().enumerate() {
            s.spawn(move |_| *sum = tree_rayon(first + n * tenth, tenth));
        }
    });
    sums.iter().sum()
}
