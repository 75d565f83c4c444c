//! What many sleeps cost, and how late they end.
//!
//! A hundred thousand fibers sleep at the same time, each for a random time of up to a second. What
//! is counted is the CPU time of the whole process, from the first spawn to the last join, and how
//! late each sleep ended. Stacks are warm: as many fibers have run before, since the first touch of
//! a page costs more than a sleep. "one by one" is a single sleep at a time on an idle worker. Its
//! limit is `std::thread::sleep`. tokio is in `benches/peers`.
//!
//! An argument is the number of sleeps.

mod common;

use common::{Bench, Metric, OURS, Rng, median};
use std::time::{Duration, Instant};

const CPU: [Metric; 2] = [
    Metric::time("many sleeps, CPU time, 1 worker", "ms"),
    Metric::time("many sleeps, CPU time, 2 workers", "ms"),
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

fn main() {
    let mut bench = Bench::from_args();
    let given = bench.args.first().and_then(|text| text.parse().ok());
    let n = given.unwrap_or(bench.amount(100_000, 1_000));
    for _ in bench.rounds(3) {
        for workers in [1, 2] {
            let index = workers - 1;
            if [CPU, P50, P99].iter().any(|metric| bench.wants(metric[index])) {
                let Some((cpu, mut late)) = many(workers, n) else { continue };
                late.sort_by(f64::total_cmp);
                bench.record(CPU[index], OURS, Some(cpu));
                bench.record(P50[index], OURS, Some(late[n / 2]));
                bench.record(P99[index], OURS, Some(late[n * 99 / 100]));
                for metric in [CPU, P50, P99] {
                    bench.record(metric[index], "see peers", None);
                }
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

/// CPU time in milliseconds, and how late each sleep ended, in microseconds.
fn many(workers: usize, n: usize) -> Option<(f64, Vec<f64>)> {
    let runtime = ramie::Runtime::builder().workers(workers).stack_size(STACK).build().ok()?;
    Some(runtime.run(|| {
        // As many stacks at a time, touched as deep as by a sleep.
        join_all(start(n, |_| Duration::from_millis(50)));
        let mut rng = Rng(1);
        let before = cpu_ms();
        let fibers = start(n, |_| Duration::from_micros(rng.below(LONGEST_MS * 1000) as u64));
        let late = join_all(fibers);
        (cpu_ms() - before, late)
    }))
}

fn start(
    n: usize,
    mut duration: impl FnMut(usize) -> Duration,
) -> Vec<ramie::JoinHandle<Duration>> {
    let fiber = |index| {
        let duration = duration(index);
        if index % 64 == 63 {
            ramie::yield_now(); // they start while what was written for them is in the cache
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
