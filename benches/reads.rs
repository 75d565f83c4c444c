//! Random 4 KiB reads of one file, in thousands per second.
//!
//! "cached": the file is read through before every round, so that the page cache has it. What is
//! compared is then the cost of asking: a ring with 64 reads in flight (each with its own buffer,
//! once plainly and once with file and buffers registered), and a loop of `pread`, on one thread
//! and on two. "alone" is one read at a time, which ours makes on the spot. "direct" is O_DIRECT:
//! what is compared is how deep the disk's queue is kept, and the limit is the disk.
//!
//! Ours is 64 fibers on each worker, each reading into a block of its own by
//! `FileExt::read_exact_at`. The blocks begin at pages, for O_DIRECT, and are on the heap, as the
//! limit's are: on a stack, a block that begins at a page takes all that the fiber has there apart,
//! over four pages and to the same place in each fiber's, which costs a hundredth more. Of what is
//! left to the limit, a half is instructions (400 for a read; the bare loop has 80), the rest
//! waiting for memory that the copies have driven out of the first cache meanwhile.

mod common;
#[path = "common/ring.rs"]
mod ring;

use common::{Bench, Metric, OURS, Rng, TempDir};
use io_uring::{opcode, squeue::Entry, types};
use ring::{Aligned, Ring};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

const CACHED: [Metric; 2] =
    [Metric::rate("cached reads, 1 thread", "k/s"), Metric::rate("cached reads, 2 threads", "k/s")];
const ALONE: Metric = Metric::rate("cached reads, alone", "k/s");
const DIRECT: Metric = Metric::rate("direct reads, 1 thread", "k/s");

const BLOCK: usize = 4096;
const DEPTH: usize = 64;

struct Job<'a> {
    path: &'a Path,
    blocks: usize,
    /// Reads per thread.
    reads: usize,
    direct: bool,
}

fn main() {
    let mut bench = Bench::from_args();
    let blocks = bench.amount(256 * 1024, 16 * 1024); // 1 GiB or 64 MiB
    // Even the short form is long enough for the fibers' stacks, which are new, not to count.
    let reads = bench.amount(1_000_000, 200_000);
    let dir = TempDir::new("reads");
    let path = dir.path().join("file");
    write_file(&path, blocks);
    let cached = Job { path: &path, blocks, reads, direct: false };
    let direct = Job { path: &path, blocks, reads: bench.amount(100_000, 2000), direct: true };
    for round in bench.rounds(5) {
        for (threads, metric) in (1..).zip(CACHED) {
            let run_ours = |bench: &mut Bench| {
                if threads == 1 {
                    common::pin(0);
                }
                bench.run(metric, OURS, || ours(&cached, threads, DEPTH));
                common::unpin();
            };
            read_through(&path);
            // By turns the first and the last.
            if round % 2 == 0 {
                run_ours(&mut bench);
            }
            bench.run(metric, "io_uring", || uring(&cached, threads, DEPTH, false, 16));
            bench.run(metric, "io_uring, registered", || uring(&cached, threads, DEPTH, true, 16));
            bench.run(metric, "pread", || pread(&cached, threads));
            if round % 2 != 0 {
                run_ours(&mut bench);
            }
        }
        common::pin(0);
        bench.run(ALONE, OURS, || ours(&cached, 1, 1));
        common::unpin();
        bench.run(ALONE, "io_uring", || uring(&cached, 1, 1, false, 1));
        bench.run(ALONE, "pread", || pread(&cached, 1));
        common::pin(0);
        bench.run(DIRECT, OURS, || ours(&direct, 1, DEPTH));
        common::unpin();
        bench.run(DIRECT, "io_uring", || uring(&direct, 1, DEPTH, false, 1));
        bench.run(DIRECT, "registered, wait for 8", || uring(&direct, 1, DEPTH, true, 8));
        bench.run(DIRECT, "pread", || pread(&direct, 1));
        bench.run(DIRECT, "pread, 64 threads", || {
            let each = Job { reads: direct.reads / DEPTH, ..direct };
            pread(&each, DEPTH)
        });
    }
    bench.print();
}

fn ours(job: &Job, workers: usize, depth: usize) -> Option<f64> {
    let mut options = ramie::fs::OpenOptions::new();
    options.read(true).custom_flags(if job.direct { libc::O_DIRECT } else { 0 });
    let (path, blocks) = (job.path.to_owned(), job.blocks);
    let each = job.reads / depth;
    let runtime = common::runtime(workers)?;
    runtime.run(|| {
        let file = Arc::new(options.open(path).ok()?); // tmpfs may know no O_DIRECT
        let reader = |seed| {
            let file = file.clone();
            move || {
                let memory = Aligned::new(BLOCK);
                // SAFETY: the memory is ours, initialised and of that length.
                let block = unsafe { std::slice::from_raw_parts_mut(memory.at(0), BLOCK) };
                let mut rng = Rng(seed);
                for _ in 0..each {
                    let offset = rng.below(blocks) * BLOCK;
                    file.read_exact_at(block, offset as u64).expect("a whole block");
                }
            }
        };
        let reads = workers * depth * each;
        common::start_workers(workers);
        Some(common::k_per_s(reads, || {
            let started: Vec<_> = (0..(workers * depth) as u64)
                .map(|seed| common::spawn_on(seed as usize % workers, reader(seed)))
                .collect();
            started.into_iter().for_each(|fiber| fiber.join().expect("no fiber panicked"));
        }))
    })
}

fn write_file(path: &Path, blocks: usize) {
    let mut file = File::create(path).expect("a new file");
    let mut rng = Rng(1);
    let mut chunk = vec![0u8; 256 * BLOCK];
    for _ in 0..blocks / 256 {
        chunk.iter_mut().step_by(64).for_each(|byte| *byte = rng.below(256) as u8);
        file.write_all(&chunk).expect("room for the file");
    }
    file.sync_all().expect("the file is on disk");
}

/// Makes sure that the page cache has it all: it may have shrunk since the last round.
fn read_through(path: &Path) {
    let mut file = File::open(path).expect("it is there");
    let mut chunk = vec![0u8; 1 << 20];
    while file.read(&mut chunk).expect("it can be read") > 0 {}
}

fn open(job: &Job) -> std::io::Result<File> {
    let flags = if job.direct { libc::O_DIRECT } else { 0 };
    OpenOptions::new().read(true).custom_flags(flags).open(job.path)
}

fn pread(job: &Job, threads: usize) -> Option<f64> {
    let file = open(job).ok()?; // tmpfs may know no O_DIRECT
    let rate = common::k_per_s_on(threads, job.reads, |thread, watch| {
        let memory = Aligned::new(BLOCK);
        // SAFETY: the memory is ours, initialised and of that length.
        let block = unsafe { std::slice::from_raw_parts_mut(memory.at(0), BLOCK) };
        let mut rng = Rng(thread as u64);
        let _running = watch.start();
        for _ in 0..job.reads {
            let offset = rng.below(job.blocks) * BLOCK;
            file.read_exact_at(block, offset as u64).expect("a whole block");
        }
    });
    Some(rate)
}

fn uring(job: &Job, threads: usize, depth: usize, registered: bool, want: usize) -> Option<f64> {
    let file = open(job).ok()?;
    drop(Ring::new(8).ok()?);
    let fd = file.as_raw_fd();
    let rate = common::k_per_s_on(threads, job.reads, |thread, watch| {
        let mut ring = Ring::new(depth as u32).expect("a ring");
        let memory = Aligned::new(depth * BLOCK);
        if registered {
            let registration = ring.registered();
            registration.register_files(&[fd]).expect("a registered file");
            // SAFETY: the memory outlives the ring's use of it: nothing is in flight after `run`.
            unsafe { registration.register_buffers(&[memory.iovec()]) }.expect("registered");
        }
        let mut rng = Rng(thread as u64);
        let mut left = job.reads;
        let read = |slot: u64, offset: u64| -> Entry {
            let block = memory.at(slot as usize * BLOCK);
            let entry = if registered {
                opcode::ReadFixed::new(types::Fixed(0), block, BLOCK as u32, 0)
                    .offset(offset)
                    .build()
            } else {
                opcode::Read::new(types::Fd(fd), block, BLOCK as u32).offset(offset).build()
            };
            entry.user_data(slot)
        };
        let _running = watch.start();
        // SAFETY: each slot has its own block of `memory`, which outlives the run, as `file` does.
        unsafe {
            ring.run(
                depth,
                1,
                want,
                |slot, push| {
                    let more = left > 0;
                    if more {
                        left -= 1;
                        push(read(slot, (rng.below(job.blocks) * BLOCK) as u64));
                    }
                    more
                },
                |completion| {
                    assert_eq!(completion.result(), BLOCK as i32, "a whole block");
                    true
                },
            );
        }
    });
    Some(rate)
}
