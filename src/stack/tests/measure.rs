//! Costs, printed. Run one at a time:
//! `cargo test --release --lib measure_ -- --ignored --nocapture --test-threads=1`

use super::super::{Cache, Stack};
use super::{pool, touch};
use crate::sys::mem::{self, MADV_GUARD_INSTALL, Range};
use std::time::Instant;

const COUNT: usize = 1_000_000;
const STACK: usize = 64 << 10;
const GUARD: usize = 16 << 10;

fn status_kib(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn mappings() -> usize {
    std::fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

fn per(start: Instant, count: usize) -> f64 {
    start.elapsed().as_nanos() as f64 / count as f64
}

/// The floor: guards in batches of `batch`, one page touched in each stack.
fn bare(batch: usize) -> f64 {
    let len = COUNT * STACK;
    let base = mem::reserve(len, 2 << 20).unwrap();
    let start = Instant::now();
    // SAFETY: the mapping just made.
    unsafe {
        let _ = mem::advise(Range::new(base, len), libc::MADV_NOHUGEPAGE);
        for first in (0..COUNT).step_by(batch) {
            let count = batch.min(COUNT - first);
            let guards: Vec<Range> =
                (0..count).map(|at| Range::new(base.add((first + at) * STACK), GUARD)).collect();
            mem::advise_many(&guards, MADV_GUARD_INSTALL).1.unwrap();
            for at in 0..count {
                base.add((first + at + 1) * STACK - 1).write(1);
            }
        }
    }
    let each = per(start, COUNT);
    // SAFETY: nothing uses it any more.
    unsafe { mem::unmap(base, len) };
    each
}

fn pooled() -> f64 {
    let pool = pool(STACK);
    let mut cache = Cache::new(pool);
    let mut stacks: Vec<Stack> = Vec::with_capacity(COUNT);
    let maps = mappings();
    let (rss, tables) = (status_kib("VmRSS"), status_kib("VmPTE"));
    let start = Instant::now();
    for _ in 0..COUNT {
        let stack = cache.alloc().unwrap();
        touch(&stack);
        stacks.push(stack);
    }
    let create = per(start, COUNT);
    let rss = (status_kib("VmRSS") - rss) * 1024 - COUNT * size_of::<Stack>();
    let tables = (status_kib("VmPTE") - tables) * 1024;
    println!("  {:?}", pool.stats());
    let maps = mappings() - maps;
    println!(
        "  RSS {} B, page tables {} B each; {maps} more mappings",
        rss / COUNT,
        tables / COUNT
    );

    let start = Instant::now();
    stacks.drain(..).for_each(|stack| cache.free(stack));
    println!("  free {:.1} ns each", per(start, COUNT));
    let start = Instant::now();
    for _ in 0..COUNT {
        stacks.push(cache.alloc().unwrap());
    }
    println!("  alloc again {:.1} ns each", per(start, COUNT));
    stacks.drain(..).for_each(|stack| cache.free(stack));
    drop(cache);

    let start = Instant::now();
    let quiet = start + super::super::TRIM_QUIET;
    pool.trim_at(start);
    let mut longest = 0;
    let mut trimmed = 0;
    loop {
        let call = Instant::now();
        let count = pool.trim_at(quiet);
        longest = longest.max(call.elapsed().as_micros());
        trimmed += count;
        if count == 0 {
            break;
        }
    }
    println!("  trim {:.0} ns each, {longest} us the longest call", per(start, trimmed));
    println!("  RSS after it: {} MiB in all", status_kib("VmRSS") >> 10);
    create
}

#[test]
#[ignore = "a measurement"]
fn measure_a_million() {
    bare(1024); // the host's memory is cold the first time
    let mut rounds: Vec<[f64; 3]> = Vec::new();
    for _ in 0..5 {
        let round = [bare(64), bare(1024), pooled()];
        println!(
            "bare by 64: {:.0} ns, by 1024: {:.0} ns, pooled: {:.0} ns",
            round[0], round[1], round[2]
        );
        rounds.push(round);
    }
    let median = |at: usize| {
        let mut column: Vec<f64> = rounds.iter().map(|round| round[at]).collect();
        column.sort_by(f64::total_cmp);
        column[column.len() / 2]
    };
    println!("medians: pooled / bare by 1024 = {:.3}", median(2) / median(1));
}

#[test]
#[ignore = "a measurement"]
fn measure_recycling() {
    let mut cache = Cache::new(pool(STACK));
    const ROUNDS: usize = 100_000_000;
    let start = Instant::now();
    for _ in 0..ROUNDS {
        let stack = cache.alloc().unwrap();
        cache.free(std::hint::black_box(stack));
    }
    println!("alloc + free of one stack: {:.2} ns", per(start, ROUNDS));

    let mut stacks = Vec::with_capacity(1000);
    let start = Instant::now();
    for _ in 0..ROUNDS / 1000 {
        stacks.extend((0..1000).map(|_| cache.alloc().unwrap()));
        stacks.drain(..).for_each(|stack| cache.free(stack));
    }
    println!("alloc + free in batches of 1000: {:.2} ns", per(start, ROUNDS));
}
