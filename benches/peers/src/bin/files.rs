//! Random 4 KiB reads of a cached file, by 64 fibers or tasks, beside tokio's ways of making them.
//!
//! tokio hands each call on a file to a thread: `tokio::fs` for the seek and for the read, and
//! `spawn_blocking` once for a `pread`, which is the best that a user can do. Ours are on both
//! drivers; on that without io_uring, too, what is in the cache is read on the spot.
//!
//! One process has one number of workers, the first argument that is a number: `ci/peers.sh` runs
//! it twice.

#[path = "../../../common/mod.rs"]
mod common;

use common::{Bench, Metric, OURS, Rng, TempDir};
use ramie::DriverKind;
use std::fs::File;
use std::io::SeekFrom;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

const URING: Metric = Metric::rate("cached reads, io_uring", "k/s");
const POLL: Metric = Metric::rate("cached reads, poll", "k/s");

const BLOCK: usize = 4096;
const TASKS: usize = 64;

fn main() {
    let mut bench = Bench::from_args();
    let workers = bench.args.iter().find_map(|arg| arg.parse().ok()).unwrap_or(1);
    if workers == 1 {
        common::pin(0); // tokio's other threads, too
    }
    let blocks = bench.amount(256 * 1024, 16 * 1024); // 1 GiB or 64 MiB
    let ours_each = bench.amount(20_000, 4000);
    let theirs_each = bench.amount(2000, 400);
    let dir = TempDir::new("peer-files");
    let path = dir.path().join("file");
    std::fs::write(&path, vec![7; blocks * BLOCK]).expect("room for the file");
    let mut tokio = match workers {
        1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let tokio = tokio.worker_threads(workers).build().expect("a runtime");
    for _ in bench.rounds(5) {
        std::fs::read(&path).expect("it is there"); // so that all of it is cached
        for (metric, driver) in [(URING, DriverKind::Uring), (POLL, DriverKind::Poll)] {
            bench.run(metric, OURS, || ours(&path, blocks, driver, workers, ours_each));
            bench.run(metric, "tokio::fs", || Some(on_tokio(&tokio, &path, blocks, theirs_each)));
            bench.run(metric, "tokio, spawn_blocking", || {
                Some(on_its_threads(&tokio, &path, blocks, theirs_each))
            });
        }
    }
    bench.print();
}

fn offset(rng: &mut Rng, blocks: usize) -> u64 {
    (rng.below(blocks) * BLOCK) as u64
}

fn ours(
    path: &Path,
    blocks: usize,
    driver: DriverKind,
    workers: usize,
    each: usize,
) -> Option<f64> {
    let runtime = ramie::Runtime::builder().workers(workers).driver(driver).build().ok()?;
    runtime.run(|| {
        let file = Arc::new(ramie::fs::File::open(path).expect("it is there"));
        let reader = |seed| {
            let file = file.clone();
            move || {
                let (mut rng, mut block) = (Rng(seed), [0; BLOCK]);
                for _ in 0..each {
                    let offset = offset(&mut rng, blocks);
                    file.read_exact_at(&mut block, offset).expect("a whole block");
                }
            }
        };
        common::start_workers(workers);
        Some(common::k_per_s(TASKS * each, || {
            let started: Vec<_> =
                (0..TASKS).map(|i| common::spawn_on(i % workers, reader(i as u64))).collect();
            started.into_iter().for_each(|fiber| fiber.join().expect("no fiber panicked"));
        }))
    })
}

/// Runs a task per seed.
fn tasks<F: Future<Output = ()> + Send + 'static>(
    tokio: &tokio::runtime::Runtime,
    each: usize,
    task: impl Fn(u64) -> F,
) -> f64 {
    common::k_per_s(TASKS * each, || {
        tokio.block_on(async {
            let started: Vec<_> = (0..TASKS as u64).map(|seed| tokio::spawn(task(seed))).collect();
            for task in started {
                task.await.expect("no task panicked");
            }
        });
    })
}

fn on_tokio(tokio: &tokio::runtime::Runtime, path: &Path, blocks: usize, each: usize) -> f64 {
    tasks(tokio, each, |seed| {
        let path = path.to_owned();
        async move {
            let mut file = tokio::fs::File::open(path).await.expect("it is there");
            let (mut rng, mut block) = (Rng(seed), vec![0; BLOCK]);
            for _ in 0..each {
                let offset = offset(&mut rng, blocks);
                file.seek(SeekFrom::Start(offset)).await.expect("within the file");
                file.read_exact(&mut block).await.expect("a whole block");
            }
        }
    })
}

fn on_its_threads(tokio: &tokio::runtime::Runtime, path: &Path, blocks: usize, each: usize) -> f64 {
    let file = Arc::new(File::open(path).expect("it is there"));
    tasks(tokio, each, |seed| {
        let file = file.clone();
        async move {
            let (mut rng, mut block) = (Rng(seed), vec![0; BLOCK]);
            for _ in 0..each {
                let (file, offset) = (file.clone(), offset(&mut rng, blocks));
                let read = move || file.read_exact_at(&mut block, offset).map(|()| block);
                let read = tokio::task::spawn_blocking(read).await.expect("it did not panic");
                block = read.expect("a whole block");
            }
        }
    })
}
