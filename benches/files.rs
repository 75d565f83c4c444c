//! Open, read and close small files that are cached, and create, write and close small files in
//! memory, in thousands of files per second.
//!
//! The limits of reading: one ring per thread with 64 linked chains in flight (open into a direct
//! descriptor, read into a registered buffer, close), and one system call after the other. Ours is
//! 64 fibers on each worker that say `File::open`, `read` and drop the file: the close is included.
//! `fs::read` of a whole file, with memory for it, is beside std's, and beside chains that read
//! into memory made for each file. Those are what whole files could come to if they were read by
//! direct descriptors: they take every file for a plain one that fits. To see whether it is one
//! costs such a chain another link, 0.2 us, and then it is where `fs::read` is.
//!
//! Whoever opens a file takes a number from the table of descriptors that all threads of the
//! process share, under its lock. The chain takes none, which a `File` cannot do without. What that
//! costs is shown by system calls of threads that have tables of their own.
//!
//! Writing, on tmpfs, has the system calls for a limit; ours are as many fibers that say
//! `File::create`, `write_all` and drop the file. Each thread, and each worker, has its own part of
//! the files.
//!
//! An argument is the number of files.

mod common;
#[path = "common/ring.rs"]
mod ring;

use common::{Bench, Metric, OURS, TempDir};
use io_uring::{opcode, squeue, types};
use ring::{Aligned, Ring};
use std::cell::RefCell;
use std::ffi::{CString, OsStr};
use std::hint::black_box;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

const FILES: [Metric; 2] = [
    Metric::rate("open+read+close, 1 thread", "k/s"),
    Metric::rate("open+read+close, 2 threads", "k/s"),
];
const WHOLE: [Metric; 2] =
    [Metric::rate("fs::read, 1 thread", "k/s"), Metric::rate("fs::read, 2 threads", "k/s")];
const CREATED: [Metric; 2] = [
    Metric::rate("create+write+close, 1 thread", "k/s"),
    Metric::rate("create+write+close, 2 threads", "k/s"),
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
            bench.run(metric, "calls, own tables", || {
                std::thread::scope(|scope| {
                    let run = || own_table().then(|| syscalls_with(&paths, threads, own_table));
                    scope.spawn(run).join().expect("no bench thread panicked")
                })
            });
        }
        for (threads, metric) in (1..).zip(WHOLE) {
            if threads == 1 {
                common::pin(0);
            }
            bench.run(metric, OURS, || {
                on_fibers(&paths, threads, |_, path| {
                    assert!(!ramie::fs::read(path).expect("it is there").is_empty());
                })
            });
            common::unpin();
            bench.run(metric, "std::fs::read", || whole(&paths, threads));
            bench.run(metric, "linked, into Vecs", || uring_whole(&paths, threads));
        }
        for (threads, metric) in (1..).zip(CREATED) {
            if threads == 1 {
                common::pin(0);
            }
            bench.run(metric, OURS, || in_memory(count, |paths| our_writes(paths, threads)));
            common::unpin();
            bench.run(metric, "system calls", || {
                in_memory(count, |paths| syscall_writes(paths, threads))
            });
        }
    }
    bench.print();
}

fn ours(paths: &Arc<Vec<CString>>, workers: usize) -> Option<f64> {
    on_fibers(paths, workers, |_, path| {
        let mut buffer = [0; BUFFER];
        let mut file = ramie::fs::File::open(path).expect("it is there");
        assert!(file.read(&mut buffer).expect("it can be read") > 0);
    })
}

fn our_writes(paths: &Arc<Vec<CString>>, workers: usize) -> Option<f64> {
    on_fibers(paths, workers, |i, path| {
        let mut file = ramie::fs::File::create(path).expect("a new file");
        file.write_all(contents(i)).expect("room for the file");
    })
}

/// Has each path handled by one of `DEPTH` fibers of its worker.
fn on_fibers(paths: &Arc<Vec<CString>>, workers: usize, handle: fn(usize, &OsStr)) -> Option<f64> {
    let next: Arc<Vec<_>> = Arc::new((0..workers).map(|_| AtomicUsize::new(0)).collect());
    let fiber = |worker: usize| {
        let (paths, next) = (paths.clone(), next.clone());
        move || {
            let share = share(&paths, workers, worker);
            loop {
                let i = next[worker].fetch_add(1, Ordering::Relaxed);
                let Some(path) = share.get(i) else { break };
                handle(i, OsStr::from_bytes(path.as_bytes()));
            }
        }
    };
    let runtime = common::runtime(workers)?;
    let rate = runtime.run(|| {
        common::start_workers(workers);
        common::k_per_s(paths.len() / workers * workers, || {
            let started: Vec<_> = (0..workers * DEPTH)
                .map(|i| common::spawn_on(i % workers, fiber(i % workers)))
                .collect();
            started.into_iter().for_each(|fiber| fiber.join().expect("no fiber panicked"));
        })
    });
    Some(rate)
}

fn make_files(dir: &TempDir, count: usize) -> Vec<CString> {
    let paths = make_dirs(dir.path(), count);
    for (i, path) in paths.iter().enumerate() {
        std::fs::write(OsStr::from_bytes(path.as_bytes()), contents(i)).expect("a new file");
    }
    paths
}

/// Makes directories for `count` files; the files' paths.
fn make_dirs(dir: &Path, count: usize) -> Vec<CString> {
    let file = |i: usize| {
        let parent = dir.join(format!("{}", i / PER_DIR));
        if i.is_multiple_of(PER_DIR) {
            std::fs::create_dir(&parent).expect("a new directory");
        }
        let path = parent.join(format!("{i}"));
        CString::new(path.as_os_str().as_bytes()).expect("no NUL in a path")
    };
    (0..count).map(file).collect()
}

/// What the `i`th file holds.
fn contents(i: usize) -> &'static [u8] {
    static CONTENTS: [u8; BUFFER] = [7; BUFFER];
    &CONTENTS[..1 + i * 37 % BUFFER]
}

/// Calls `f` with paths in empty directories on tmpfs, if there is any.
fn in_memory(count: usize, f: impl FnOnce(&Arc<Vec<CString>>) -> Option<f64>) -> Option<f64> {
    let dir = TempDir::new_in(Path::new("/dev/shm"), "files")?;
    f(&Arc::new(make_dirs(dir.path(), count)))
}

/// The part of the paths that one of `threads` handles.
fn share(paths: &[CString], threads: usize, thread: usize) -> &[CString] {
    let each = paths.len() / threads;
    &paths[thread * each..][..each]
}

/// Gives the calling thread a table of descriptors that it shares with nobody.
fn own_table() -> bool {
    // SAFETY: no memory is passed; the thread's descriptors stay open under their numbers.
    unsafe { libc::unshare(libc::CLONE_FILES) == 0 }
}

fn syscalls(paths: &[CString], threads: usize) -> Option<f64> {
    Some(syscalls_with(paths, threads, || true))
}

/// As `syscalls`; each thread says `prepare` first.
fn syscalls_with(paths: &[CString], threads: usize, prepare: fn() -> bool) -> f64 {
    common::k_per_s_on(threads, paths.len() / threads, |thread, watch| {
        assert!(prepare(), "{}", std::io::Error::last_os_error());
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
    })
}

fn whole(paths: &[CString], threads: usize) -> Option<f64> {
    let rate = common::k_per_s_on(threads, paths.len() / threads, |thread, watch| {
        let _running = watch.start();
        for path in share(paths, threads, thread) {
            let path = OsStr::from_bytes(path.as_bytes());
            assert!(!std::fs::read(path).expect("it is there").is_empty());
        }
    });
    Some(rate)
}

fn syscall_writes(paths: &[CString], threads: usize) -> Option<f64> {
    let rate = common::k_per_s_on(threads, paths.len() / threads, |thread, watch| {
        let _running = watch.start();
        for (i, path) in share(paths, threads, thread).iter().enumerate() {
            let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC;
            let contents = contents(i);
            // SAFETY: a C string, memory of that length, and a descriptor that we own.
            unsafe {
                let fd = libc::open(path.as_ptr(), flags, 0o666);
                let n = libc::write(fd, contents.as_ptr().cast(), contents.len());
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

/// As `uring`, into memory that is made for each file, and then cut to its size.
fn uring_whole(paths: &[CString], threads: usize) -> Option<f64> {
    drop(Ring::new(8).ok()?);
    let rate = common::k_per_s_on(threads, paths.len() / threads, |thread, watch| {
        let mut ring = Ring::new(4 * DEPTH as u32).expect("a ring");
        ring.registered().register_files_sparse(DEPTH as u32).expect("a table of files");
        let memory = [const { RefCell::new(Vec::<u8>::new()) }; DEPTH];
        let mut paths = share(paths, threads, thread).iter();
        let _running = watch.start();
        // SAFETY: each slot has its own memory and descriptor; they and the paths outlive the run,
        // and a slot's memory is given up when its chain has ended.
        unsafe {
            ring.run(
                DEPTH,
                3,
                DEPTH,
                |slot, push| {
                    let Some(path) = paths.next() else { return false };
                    let mut vec = memory[slot as usize].borrow_mut();
                    *vec = Vec::with_capacity(BUFFER);
                    let place = types::DestinationSlot::try_from_slot_target(slot as u32);
                    let open = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr())
                        .flags(libc::O_RDONLY)
                        .file_index(Some(place.expect("a small number")));
                    let file = types::Fixed(slot as u32);
                    let read = opcode::Read::new(file, vec.as_mut_ptr(), BUFFER as u32);
                    let link = squeue::Flags::IO_LINK;
                    push(open.build().flags(link).user_data(slot | OPEN << 32));
                    let hard = squeue::Flags::IO_HARDLINK;
                    push(read.build().flags(hard).user_data(slot | READ << 32));
                    let close = opcode::Close::new(file).build();
                    push(close.user_data(slot | CLOSE << 32));
                    true
                },
                |completion| {
                    let step = completion.user_data() >> 32;
                    let least = if step == READ { 1 } else { 0 };
                    assert!(completion.result() >= least, "step {step}: {completion:?}");
                    let mut vec = memory[completion.user_data() as usize % DEPTH].borrow_mut();
                    if step == READ {
                        vec.set_len(completion.result() as usize);
                    } else if step == CLOSE {
                        let mut contents = std::mem::take(&mut *vec);
                        contents.shrink_to_fit();
                        assert!(!black_box(contents).is_empty());
                    }
                    step == CLOSE
                },
            );
        }
    });
    Some(rate)
}
