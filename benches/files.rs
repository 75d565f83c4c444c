//! Open, read and close small files that are cached, in thousands of files per second.
//!
//! The limits: one ring per thread with 64 linked chains in flight (open into a direct descriptor,
//! read into a registered buffer, close), and one system call after the other. Ours is 64 fibers on
//! each worker that say `File::open`, `read` and drop the file: the close is included.
//!
//! An argument is the number of files.

mod common;
#[path = "common/ring.rs"]
mod ring;

use common::{Bench, Metric, OURS, TempDir};
use io_uring::{opcode, squeue, types};
use ring::{Aligned, Ring};
use std::ffi::{CString, OsStr};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const FILES: [Metric; 2] = [
    Metric::rate("open+read+close, 1 thread", "k/s"),
    Metric::rate("open+read+close, 2 threads", "k/s"),
];

const DEPTH: usize = 64;
const BUFFER: usize = 8192;
const PER_DIR: usize = 500;

fn main() {
    let mut bench = Bench::from_args();
    let given = bench.args.first().and_then(|text| text.parse().ok());
    let count = given.unwrap_or(bench.amount(20_000, 1000));
    let dir = TempDir::new("files");
    let paths = Arc::new(make_files(&dir, count));
    for _ in bench.rounds(7) {
        syscalls(&paths, 1); // so that all of it is cached
        for (threads, metric) in (1..).zip(FILES) {
            if threads == 1 {
                common::pin(0);
            }
            bench.run(metric, OURS, || ours(&paths, threads));
            common::unpin();
            bench.run(metric, "io_uring, linked", || uring(&paths, threads));
            bench.run(metric, "system calls", || syscalls(&paths, threads));
        }
    }
    bench.print();
}

fn ours(paths: &Arc<Vec<CString>>, workers: usize) -> Option<f64> {
    let next = Arc::new(AtomicUsize::new(0));
    let reader = || {
        let (paths, next) = (paths.clone(), next.clone());
        move || {
            let mut buffer = [0; BUFFER];
            while let Some(path) = paths.get(next.fetch_add(1, Ordering::Relaxed)) {
                let path = OsStr::from_bytes(path.as_bytes());
                let mut file = ramie::fs::File::open(path).expect("it is there");
                assert!(file.read(&mut buffer).expect("it can be read") > 0);
            }
        }
    };
    let runtime = common::runtime(workers)?;
    let rate = runtime.run(|| {
        common::k_per_s(paths.len(), || {
            let started: Vec<_> =
                (0..workers * DEPTH).map(|i| common::spawn_on(i % workers, reader())).collect();
            started.into_iter().for_each(|fiber| fiber.join().expect("no fiber panicked"));
        })
    });
    Some(rate)
}

fn make_files(dir: &TempDir, count: usize) -> Vec<CString> {
    let file = |i: usize| {
        let parent = dir.path().join(format!("{}", i / PER_DIR));
        if i.is_multiple_of(PER_DIR) {
            std::fs::create_dir(&parent).expect("a new directory");
        }
        let path = parent.join(format!("{i}"));
        std::fs::write(&path, vec![i as u8; 1 + i * 37 % BUFFER]).expect("a new file");
        CString::new(path.as_os_str().as_bytes()).expect("no NUL in a path")
    };
    (0..count).map(file).collect()
}

/// The part of the paths that one of `threads` handles.
fn share(paths: &[CString], threads: usize, thread: usize) -> &[CString] {
    let each = paths.len() / threads;
    &paths[thread * each..][..each]
}

fn syscalls(paths: &[CString], threads: usize) -> Option<f64> {
    let rate = common::k_per_s_on(threads, paths.len() / threads, |thread, watch| {
        let mut buffer = vec![0u8; BUFFER];
        let _running = watch.start();
        for path in share(paths, threads, thread) {
            // SAFETY: a C string, a buffer of that length, and a descriptor that we own.
            unsafe {
                let fd = libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
                let n = libc::read(fd, buffer.as_mut_ptr().cast(), BUFFER);
                assert!(n > 0, "{}", std::io::Error::last_os_error());
                libc::close(fd);
            }
        }
    });
    Some(rate)
}

const OPEN: u64 = 0;
const READ: u64 = 1;
const CLOSE: u64 = 2;

fn uring(paths: &[CString], threads: usize) -> Option<f64> {
    drop(Ring::new(8).ok()?);
    let rate = common::k_per_s_on(threads, paths.len() / threads, |thread, watch| {
        let mut ring = Ring::new(4 * DEPTH as u32).expect("a ring");
        let memory = Aligned::new(DEPTH * BUFFER);
        let registration = ring.registered();
        registration.register_files_sparse(DEPTH as u32).expect("a table of files");
        // SAFETY: the memory outlives the ring's use of it: nothing is in flight after `run`.
        unsafe { registration.register_buffers(&[memory.iovec()]) }.expect("registered");
        let mut paths = share(paths, threads, thread).iter();
        let _running = watch.start();
        // SAFETY: each slot has its own buffer and descriptor; they and the paths outlive the run.
        unsafe {
            ring.run(
                DEPTH,
                3,
                DEPTH,
                |slot, push| {
                    let Some(path) = paths.next() else { return false };
                    let place = types::DestinationSlot::try_from_slot_target(slot as u32);
                    let open = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr())
                        .flags(libc::O_RDONLY)
                        .file_index(Some(place.expect("a small number")));
                    let buffer = memory.at(slot as usize * BUFFER);
                    let file = types::Fixed(slot as u32);
                    let read = opcode::ReadFixed::new(file, buffer, BUFFER as u32, 0);
                    let close = opcode::Close::new(file);
                    let link = squeue::Flags::IO_LINK;
                    push(open.build().flags(link).user_data(slot | OPEN << 32));
                    // A short read would break a plain link, and all of ours are short.
                    let hard = squeue::Flags::IO_HARDLINK;
                    push(read.build().flags(hard).user_data(slot | READ << 32));
                    push(close.build().user_data(slot | CLOSE << 32));
                    true
                },
                |completion| {
                    let step = completion.user_data() >> 32;
                    let least = if step == READ { 1 } else { 0 };
                    assert!(completion.result() >= least, "step {step}: {completion:?}");
                    step == CLOSE
                },
            );
        }
    });
    Some(rate)
}
