//! What many sleeps cost, and how late they end.
//!
//! A hundred thousand fibers sleep at the same time, each for a random time of up to a second. What
//! is counted is the CPU time of the whole process, from the first spawn to the last join, and how
//! late each sleep ended. Stacks are warm: as many fibers have run before, since the first touch of
//! a page costs more than a sleep. The part until the last fiber has been spawned, and nearly all
//! have started, has a row of its own. Peers are in `benches/peers`.
//!
//! The limit is a bare loop that waits for the same deadlines in the same way, by timeouts of a
//! ring, at most every 0.35 ms, and has no fibers: so late are the kernel and the machine, and so
//! much do the wake-ups cost, 10 to 30 us each, by whatever system call. A busy machine shows there
//! first. What else there is to pay is mostly memory: a fiber that slept has to be fetched from
//! outside of the core's caches, and its page's translation first. Two workers wake up twice as
//! often, each for its own timers.
//!
//! "one by one" is a single sleep at a time on an idle worker. Its limit is `std::thread::sleep`.
//!
//! An argument is the number of sleeps.

mod common;
#[path = "common/ring.rs"]
mod ring;

use common::{Bench, Metric, OURS, Rng, median};
use std::time::{Duration, Instant};

const CPU: [Metric; 2] = [
    Metric::time("many sleeps, CPU time, 1 worker", "ms"),
    Metric::time("many sleeps, CPU time, 2 workers", "ms"),
];
const SPAWN_CPU: [Metric; 2] = [
    Metric::time("of that until all were spawned, 1 worker", "ms"),
    Metric::time("of that until all were spawned, 2 workers", "ms"),
];
const P50: [Metric; 2] = [
    Metric::time("many sleeps, late (p50), 1 worker", "us"),
    Metric::time("many sleeps, late (p50), 2 workers", "us"),
];
const P99: [Metric; 2] = [
    Metric::time("many sleeps, late (p99), 1 worker", "us"),
    Metric::time("many sleeps, late (p99), 2 workers", "us"),
];
const ALONE: Metric = Metric::time("sleeps of 1 ms one by one, late (p50)", "us");
const TIMEOUT: Metric = Metric::time("a timeout that does not expire", "ns");

/// Small, as whoever has so many fibers would choose: page tables are less spread then, too.
const STACK: usize = 64 << 10;
const LONGEST_MS: usize = 1000;
const BARE: &str = "bare ring";
/// Between two waits of the bare ring, as a worker with many timers does it.
const PAUSE: Duration = Duration::from_micros(350);

fn main() {
    let mut bench = Bench::from_args();
    let given = bench.args.first().and_then(|text| text.parse().ok());
    let n = given.unwrap_or(bench.amount(100_000, 1_000));
    for _ in bench.rounds(3) {
        let rows = |workers: usize| [CPU, SPAWN_CPU, P50, P99].map(|metric| metric[workers - 1]);
        let wanted = |workers: &usize| rows(*workers).iter().any(|&metric| bench.wants(metric));
        let wanted: Vec<_> = [1, 2].into_iter().filter(wanted).collect();
        let limit = if wanted.is_empty() { None } else { bare(n).ok() };
        for workers in wanted {
            let ours = many(workers, n);
            for (at, metric) in rows(workers).into_iter().enumerate() {
                bench.record(metric, OURS, ours.map(|values| values[at]));
                bench.record(metric, BARE, limit.and_then(|values| values[at]));
            }
        }
        let sleeps = bench.amount(200, 10);
        bench.run(ALONE, OURS, || common::runtime(1)?.run(|| alone(sleeps, ramie::sleep)));
        bench.run(ALONE, "std::thread::sleep", || alone(sleeps, std::thread::sleep));
        let calls = bench.amount(1_000_000, 1_000);
        let hour = Duration::from_secs(3600);
        let call = |_| _ = ramie::time::timeout(hour, || Ok(()));
        bench.run(TIMEOUT, OURS, || {
            let all = || common::ns_per(calls, || (0..calls).for_each(call));
            Some(common::runtime(1)?.run(all))
        });
        bench.record(TIMEOUT, "-", None);
    }
    println!("{n} sleeps of up to {LONGEST_MS} ms");
    bench.print();
}

/// CPU time in milliseconds, the part of it for spawning, and how late in microseconds the sleeps
/// ended, half and 99 % of them at most.
fn many(workers: usize, n: usize) -> Option<[f64; 4]> {
    let runtime = ramie::Runtime::builder().workers(workers).stack_size(STACK).build().ok()?;
    Some(runtime.run(|| {
        // As many stacks at a time, touched as deep as by a sleep.
        join_all(start(n, |_| Duration::from_millis(50)));
        let mut durations = durations();
        let before = cpu_ms();
        let fibers = start(n, |_| durations());
        let spawned = cpu_ms();
        let late = join_all(fibers);
        let after = cpu_ms();
        let [p50, p99] = percentiles(late);
        [after - before, spawned - before, p50, p99]
    }))
}

/// How long to sleep: the same for each contender.
fn durations() -> impl FnMut() -> Duration {
    let mut rng = Rng(1);
    move || Duration::from_micros(rng.below(LONGEST_MS * 1000) as u64)
}

fn percentiles(mut late: Vec<f64>) -> [f64; 2] {
    late.sort_by(f64::total_cmp);
    [late[late.len() / 2], late[late.len() * 99 / 100]]
}

/// The limit: as `many`, by a loop without fibers.
fn bare(n: usize) -> std::io::Result<[Option<f64>; 4]> {
    let mut ring = ring::Ring::new(8)?;
    let mut durations = durations();
    let mut deadlines: Vec<Duration> = (0..n).map(|_| durations()).collect();
    deadlines.sort_unstable();
    let mut late = Vec::with_capacity(n);
    let (start, before) = (Instant::now(), cpu_ms());
    while late.len() < n {
        let now = start.elapsed();
        while let Some(deadline) = deadlines.get(late.len()).filter(|&&deadline| deadline <= now) {
            late.push((now - *deadline).as_nanos() as f64 / 1e3);
        }
        if let Some(deadline) = deadlines.get(late.len()) {
            ring.wait((*deadline).max(now + PAUSE).saturating_sub(start.elapsed()))?;
        }
    }
    let cpu = cpu_ms() - before;
    let [p50, p99] = percentiles(late);
    Ok([Some(cpu), None, Some(p50), Some(p99)])
}

fn start(
    n: usize,
    mut duration: impl FnMut(usize) -> Duration,
) -> Vec<ramie::JoinHandle<Duration>> {
    let fiber = |index| {
        let duration = duration(index);
        if index % 64 == 63 {
            // They start while what was written for them is in the cache.
            (0..64).for_each(|_| ramie::yield_now());
        }
        ramie::spawn(move || late_by(duration, ramie::sleep))
    };
    (0..n).map(fiber).collect()
}

fn join_all(fibers: Vec<ramie::JoinHandle<Duration>>) -> Vec<f64> {
    let us = |late: Duration| late.as_nanos() as f64 / 1e3;
    fibers.into_iter().map(|fiber| us(fiber.join().expect("no fiber panicked"))).collect()
}

fn late_by(duration: Duration, sleep: impl FnOnce(Duration)) -> Duration {
    let start = Instant::now();
    sleep(duration);
    start.elapsed().saturating_sub(duration)
}

fn alone(sleeps: usize, sleep: fn(Duration)) -> Option<f64> {
    let late = |_| late_by(Duration::from_millis(1), sleep).as_nanos() as f64 / 1e3;
    median(&(0..sleeps).map(late).collect::<Vec<_>>())
}

/// What this process has used so far, in user space and in the kernel.
fn cpu_ms() -> f64 {
    // SAFETY: an all-zero structure is valid, and it is what the call fills.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, &mut usage), 0);
        usage
    };
    let ms = |time: libc::timeval| time.tv_sec as f64 * 1e3 + time.tv_usec as f64 / 1e3;
    ms(usage.ru_utime) + ms(usage.ru_stime)
}
