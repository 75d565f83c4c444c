//! What the benchmark programs share: options, samples by round, the table, cores, seeds.
//!
//! A program runs all contenders of a metric once per round, one after the other, so that whatever
//! slows the machine down for a while slows all of them down. It records what each of them reached
//! and prints medians at the end:
//!
//! ```text
//! metric | ours | limit or peer | ratio
//! ```
//!
//! The ratio says how many times as fast as that limit or peer ours is, whether the metric counts
//! time (less is better) or rate (more is better): 1.00 is level, above is better.
//!
//! Options of every program: `--quick` (one short round: does it still run?), `--rounds N`,
//! `--filter TEXT` (only metrics whose name contains it).

#![allow(dead_code, reason = "each program uses some of it")]

use std::path::{Path, PathBuf};
use std::sync::{Barrier, Mutex, PoisonError};
use std::time::Instant;

/// What is measured.
#[derive(Clone, Copy, PartialEq)]
pub struct Metric {
    pub name: &'static str,
    pub unit: &'static str,
    pub better: Better,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Better {
    Less,
    More,
}

impl Metric {
    pub const fn time(name: &'static str, unit: &'static str) -> Metric {
        Metric { name, unit, better: Better::Less }
    }

    pub const fn rate(name: &'static str, unit: &'static str) -> Metric {
        Metric { name, unit, better: Better::More }
    }
}

/// The contender that everybody else is compared with.
pub const OURS: &str = "ramie";

struct Samples {
    metric: Metric,
    who: &'static str,
    values: Vec<f64>,
}

/// One benchmark program's run.
pub struct Bench {
    pub quick: bool,
    /// Arguments that are not options of ours.
    pub args: Vec<String>,
    rounds: Option<usize>,
    filter: Option<String>,
    samples: Vec<Samples>,
}

impl Bench {
    pub fn from_args() -> Bench {
        // A debug build, as in `cargo test --all-targets`, can only show that it runs.
        let quick = cfg!(debug_assertions);
        let mut bench = Bench { quick, args: vec![], rounds: None, filter: None, samples: vec![] };
        let mut args = std::env::args().skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--bench" | "--test" => {} // cargo says this
                "--quick" => bench.quick = true,
                "--rounds" => bench.rounds = args.next().and_then(|text| text.parse().ok()),
                "--filter" => bench.filter = args.next(),
                _ => bench.args.push(arg),
            }
        }
        bench
    }

    /// The rounds to run.
    pub fn rounds(&self, usual: usize) -> std::ops::Range<usize> {
        0..self.rounds.unwrap_or(if self.quick { 1 } else { usual })
    }

    /// The usual amount of work, or a little of it.
    pub fn amount(&self, usual: usize, quick: usize) -> usize {
        if self.quick { quick } else { usual }
    }

    pub fn wants(&self, metric: Metric) -> bool {
        self.filter.as_ref().is_none_or(|text| metric.name.contains(text))
    }

    /// Runs one contender of one metric, if it is wanted; `None` prints as "-".
    pub fn run(&mut self, metric: Metric, who: &'static str, f: impl FnOnce() -> Option<f64>) {
        if self.wants(metric) {
            let value = f();
            self.record(metric, who, value);
        }
    }

    /// Records what one contender reached in this round.
    pub fn record(&mut self, metric: Metric, who: &'static str, value: Option<f64>) {
        if !self.wants(metric) {
            return;
        }
        let same = |samples: &&mut Samples| samples.metric == metric && samples.who == who;
        let samples = match self.samples.iter_mut().find(same) {
            Some(samples) => samples,
            None => {
                self.samples.push(Samples { metric, who, values: vec![] });
                self.samples.last_mut().expect("just pushed")
            }
        };
        samples.values.extend(value);
    }

    /// Prints the table.
    pub fn print(&self) {
        println!("{:<38} | {:>26} | {:>46} | ratio", "metric", OURS, "limit or peer");
        let has_peer = |metric: Metric| {
            self.samples.iter().any(|other| other.metric == metric && other.who != OURS)
        };
        for samples in &self.samples {
            let metric = samples.metric;
            if samples.who == OURS {
                if !has_peer(metric) {
                    let name = format!("{}, {}", metric.name, metric.unit);
                    println!("{name:<38} | {:>26} | {:>46} | -", spread(&samples.values), "-");
                }
                continue;
            }
            let ours = |other: &&Samples| other.metric == metric && other.who == OURS;
            let ours = self.samples.iter().find(ours);
            let ratio = match (ours.and_then(|ours| median(&ours.values)), median(&samples.values))
            {
                (Some(ours), Some(theirs)) if metric.better == Better::More => {
                    format!("{:.2}", ours / theirs)
                }
                (Some(ours), Some(theirs)) => format!("{:.2}", theirs / ours),
                _ => "-".to_owned(),
            };
            println!(
                "{:<38} | {:>26} | {:>19} {:>26} | {ratio}",
                format!("{}, {}", metric.name, metric.unit),
                ours.map_or("-".to_owned(), |ours| spread(&ours.values)),
                samples.who,
                spread(&samples.values),
            );
        }
    }
}

pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len();
    match n {
        0 => None,
        _ if n % 2 == 1 => Some(sorted[n / 2]),
        _ => Some((sorted[n / 2 - 1] + sorted[n / 2]) / 2.0),
    }
}

/// Median and range.
fn spread(values: &[f64]) -> String {
    let Some(median) = median(values) else { return "-".to_owned() };
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    format!("{} [{}..{}]", short(median), short(least), short(most))
}

/// Three significant digits or all that stand before the point.
fn short(value: f64) -> String {
    let digits = if value.abs() < 10.0 { 2 } else { usize::from(value.abs() < 100.0) };
    format!("{value:.digits$}")
}

/// Nanoseconds per step of what `f` does in `steps` steps.
pub fn ns_per(steps: usize, f: impl FnOnce()) -> f64 {
    let start = Instant::now();
    f();
    start.elapsed().as_nanos() as f64 / steps as f64
}

/// Thousands of steps per second.
pub fn k_per_s(steps: usize, f: impl FnOnce()) -> f64 {
    1e6 / ns_per(steps, f)
}

/// A runtime of ours, or a message and `None` if there can be none here. With `RAMIE_BENCH_RING` in
/// the environment everything goes through the ring, also what could be done on the spot.
pub fn runtime(workers: usize) -> Option<ramie::Runtime> {
    let inline = std::env::var_os("RAMIE_BENCH_RING").is_none();
    match ramie::Runtime::builder().workers(workers).inline(inline).build() {
        Ok(runtime) => Some(runtime),
        Err(error) => {
            eprintln!("no runtime: {error}");
            None
        }
    }
}

/// Starts a fiber on a given worker: those that soon wait would otherwise all have started on the
/// worker that made them before another one woke up.
pub fn spawn_on<T: Send + 'static>(
    worker: usize,
    f: impl FnOnce() -> T + Send + 'static,
) -> ramie::JoinHandle<T> {
    ramie::Builder::new().worker(worker).spawn(f).expect("there is such a worker")
}

/// Has every worker start, as the threads of the limits have when the time begins.
pub fn start_workers(workers: usize) {
    for worker in 0..workers {
        spawn_on(worker, || ()).join().expect("it does nothing");
    }
}

/// The cores that this process may use.
pub fn cores() -> Vec<usize> {
    // SAFETY: an all-zero set is valid, and it is the set that the call writes.
    let set = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::sched_getaffinity(0, size_of_val(&set), &mut set);
        set
    };
    // SAFETY: `set` is initialised and the index in range.
    (0..libc::CPU_SETSIZE as usize).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) }).collect()
}

/// Keeps the calling thread, and those that it starts, on one core (counted modulo their number).
pub fn pin(index: usize) {
    let cores = original_cores();
    set_cores(&[cores[index % cores.len()]]);
}

/// Undoes `pin`.
pub fn unpin() {
    set_cores(original_cores());
}

fn original_cores() -> &'static [usize] {
    static CORES: std::sync::OnceLock<Vec<usize>> = std::sync::OnceLock::new();
    CORES.get_or_init(cores)
}

fn set_cores(cores: &[usize]) {
    // SAFETY: an all-zero set is valid, and the indexes came from such a set.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        cores.iter().for_each(|&core| libc::CPU_SET(core, &mut set));
        libc::sched_setaffinity(0, size_of_val(&set), &set);
    }
}

/// Runs `f(0, watch)`, `f(1, watch)`, ... on as many threads, each on its core. Each prepares what
/// it needs and then calls `watch.start()`, which waits for the others; the time ends when the last
/// of the values which that returned has been dropped. Gives the thousands of steps per second
/// which they reached all together.
pub fn k_per_s_on(threads: usize, steps_each: usize, f: impl Fn(usize, &Watch) + Sync) -> f64 {
    let watch = Watch { barrier: Barrier::new(threads), span: Mutex::new(None) };
    std::thread::scope(|scope| {
        for index in 0..threads {
            let (watch, f) = (&watch, &f);
            scope.spawn(move || {
                pin(index);
                f(index, watch);
            });
        }
    });
    let span = watch.span.into_inner().expect("no bench thread panicked");
    let (first, last) = span.expect("every thread called start");
    (threads * steps_each) as f64 / (last - first).as_secs_f64() / 1e3
}

/// Takes the time of several threads.
pub struct Watch {
    barrier: Barrier,
    /// The first start and the last end.
    span: Mutex<Option<(Instant, Instant)>>,
}

/// One thread's part of it: ends when dropped.
pub struct Running<'a>(&'a Watch, Instant);

impl Watch {
    pub fn start(&self) -> Running<'_> {
        self.barrier.wait();
        Running(self, Instant::now())
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let (start, end) = (self.1, Instant::now());
        let mut span = self.0.span.lock().unwrap_or_else(PoisonError::into_inner);
        let (first, last) = span.unwrap_or((start, end));
        *span = Some((first.min(start), last.max(end)));
    }
}

/// A small generator of numbers that differ enough (splitmix64); the seed says which.
pub struct Rng(pub u64);

impl Rng {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}

/// A directory that goes away with its contents; in `RAMIE_BENCH_DIR`, or the usual place.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new(name: &str) -> TempDir {
        let base = std::env::var_os("RAMIE_BENCH_DIR").map(PathBuf::from);
        let base = base.unwrap_or_else(std::env::temp_dir);
        std::fs::create_dir_all(&base).expect("a directory for the benches");
        TempDir::new_in(&base, name).expect("a directory for the bench")
    }

    /// One in this directory; `None` if none can be made there.
    pub fn new_in(base: &Path, name: &str) -> Option<TempDir> {
        let path = base.join(format!("ramie-bench-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).ok()?;
        Some(TempDir(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
