//! Open, read and close small files that are cached, and create, write and close small files in
//! memory, in thousands of files per second.
//!
//! The limits of reading: one ring per thread with 64 linked chains in flight (open into a direct
//! descriptor, read into a registered buffer, close), the same with descriptors of the process
//! (open, and then read and close, linked), and one system call after the other. Ours is
//! 64 fibers on each worker that say `File::open`, `read` and drop the file: the close is included.
//! `fs::read` of a whole file, with memory for it, is beside std's, and beside chains with a link
//! that lets only files with pages pass ("checked"), whose contents are copied out of a buffer
//! that stays. Those are what whole files could come to if they were read by direct descriptors;
//! decision D13 says why they are not. (Chains that read into memory made for each file are slower:
//! the allocator gives pages back when 64 such pieces come and go, and faults them in again.)
//!
//! Of what a `File` is behind the chains, 0.1 us per file is the question whether it is a pipe,
//! whose opening would have to wait; the calls for reading and closing cost a bare loop as much as
//! the chain's links do; the rest is fibers, two suspensions per file.
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
use std::cell::Cell;
use std::ffi::{CString, OsStr};
use std::hint::black_box;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
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
            bench.run(metric, OURS, || ours(&paths, threads));
            bench.run(metric, "io_uring, linked", || uring(&paths, threads));
            bench.run(metric, "io_uring, descriptors", || uring_descriptors(&paths, threads));
            bench.run(metric, "system calls", || syscalls(&paths, threads));
            bench.run(metric, "calls, own tables", || {
                std::thread::scope(|scope| {
                    let run = || own_table().then(|| syscalls_with(&paths, threads, own_table));
                    scope.spawn(run).join().expect("no bench thread panicked")
                })
            });
        }
        for (threads, metric) in (1..).zip(WHOLE) {
            bench.run(metric, OURS, || {
                on_fibers(&paths, threads, |_, path, _| {
                    assert!(!ramie::fs::read(path).expect("it is there").is_empty());
                })
            });
            bench.run(metric, "std::fs::read", || whole(&paths, threads));
            bench.run(metric, "linked, checked", || uring_whole(&paths, threads));
        }
        for (threads, metric) in (1..).zip(CREATED) {
            bench.run(metric, OURS, || in_memory(count, |paths| our_writes(paths, threads)));
            bench.run(metric, "system calls", || {
                in_memory(count, |paths| syscall_writes(paths, threads))
            });
        }
    }
    bench.print();
}

fn ours(paths: &Arc<Vec<CString>>, workers: usize) -> Option<f64> {
    on_fibers(paths, workers, |_, path, buffer| {
        let mut file = ramie::fs::File::open(path).expect("it is there");
        assert!(file.read(buffer).expect("it can be read") > 0);
    })
}

fn our_writes(paths: &Arc<Vec<CString>>, workers: usize) -> Option<f64> {
    on_fibers(paths, workers, |i, path, _| {
        let mut file = ramie::fs::File::create(path).expect("a new file");
        file.write_all(contents(i)).expect("room for the file");
    })
}

/// How many of a worker's files have been taken, in a cache line that no other worker uses.
#[repr(align(128))]
struct Taken(AtomicUsize);

/// Has each path handled by one of `DEPTH` fibers of its worker, with a buffer of the fiber's. Each
/// worker stays on its core, as each of the limits' threads does.
fn on_fibers(
    paths: &Arc<Vec<CString>>,
    workers: usize,
    handle: fn(usize, &OsStr, &mut [u8]),
) -> Option<f64> {
    let taken: Arc<Vec<_>> = Arc::new((0..workers).map(|_| Taken(AtomicUsize::new(0))).collect());
    let fiber = |worker: usize| {
        let (paths, taken) = (paths.clone(), taken.clone());
        move || {
            let mut buffer = vec![0; BUFFER];
            let share = share(&paths, workers, worker);
            loop {
                let i = taken[worker].0.fetch_add(1, Ordering::Relaxed);
                let Some(path) = share.get(i) else { break };
                handle(i, OsStr::from_bytes(path.as_bytes()), &mut buffer);
            }
        }
    };
    let runtime = common::runtime(workers)?;
    let rate = runtime.run(|| {
        for worker in 0..workers {
            common::spawn_on(worker, move || common::pin(worker)).join().expect("a core");
        }
        common::k_per_s(paths.len() / workers * workers, || {
            let started: Vec<_> = (0..workers * DEPTH)
                .map(|i| common::spawn_on(i % workers, fiber(i % workers)))
                .collect();
            started.into_iter().for_each(|fiber| fiber.join().expect("no fiber panicked"));
        })
    });
    common::unpin();
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
const CHECK: u64 = 3;

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

/// As `uring`, with descriptors of the process, which a link cannot hand on: so an open is one
/// submission, and the linked read and close of the file are the next.
fn uring_descriptors(paths: &[CString], threads: usize) -> Option<f64> {
    drop(Ring::new(8).ok()?);
    let rate = common::k_per_s_on(threads, paths.len() / threads, |thread, watch| {
        let mut ring = Ring::new(2 * DEPTH as u32).expect("a ring");
        let memory = Aligned::new(DEPTH * BUFFER);
        // What each slot has opened and not read yet; and how many such there are or will be.
        let open: [Cell<Option<i32>>; DEPTH] = [const { Cell::new(None) }; DEPTH];
        let opens = Cell::new(0);
        let mut paths = share(paths, threads, thread).iter();
        let _running = watch.start();
        // SAFETY: as in `uring`.
        unsafe {
            ring.run(
                DEPTH,
                1, // completion at least
                DEPTH,
                |slot, push| {
                    if let Some(fd) = open[slot as usize].take() {
                        let buffer = memory.at(slot as usize * BUFFER);
                        let read = opcode::Read::new(types::Fd(fd), buffer, BUFFER as u32).build();
                        let hard = squeue::Flags::IO_HARDLINK;
                        push(read.flags(hard).user_data(slot | READ << 32));
                        let close = opcode::Close::new(types::Fd(fd)).build();
                        push(close.user_data(slot | CLOSE << 32));
                        opens.set(opens.get() - 1);
                    } else if let Some(path) = paths.next() {
                        let open = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr())
                            .flags(libc::O_RDONLY);
                        push(open.build().user_data(slot | OPEN << 32));
                        opens.set(opens.get() + 1);
                    } else if opens.get() > 0 {
                        // The end: the other slots go on only if this one does.
                        push(opcode::Nop::new().build().user_data(slot | CLOSE << 32));
                    } else {
                        return false;
                    }
                    true
                },
                |completion| {
                    let step = completion.user_data() >> 32;
                    let least = if step == READ { 1 } else { 0 };
                    assert!(completion.result() >= least, "step {step}: {completion:?}");
                    if step == OPEN {
                        let slot = completion.user_data() as usize % DEPTH;
                        open[slot].set(Some(completion.result()));
                    }
                    step != READ
                },
            );
        }
    });
    Some(rate)
}

/// As `uring`, with a link that lets only files with pages pass, and a copy of the contents.
fn uring_whole(paths: &[CString], threads: usize) -> Option<f64> {
    drop(Ring::new(8).ok()?);
    has_pages(paths.first()?)?;
    let rate = common::k_per_s_on(threads, paths.len() / threads, |thread, watch| {
        let mut ring = Ring::new(4 * DEPTH as u32).expect("a ring");
        let memory = Aligned::new(DEPTH * BUFFER);
        ring.registered().register_files_sparse(DEPTH as u32).expect("a table of files");
        let mut sizes = [0; DEPTH];
        let mut paths = share(paths, threads, thread).iter();
        let _running = watch.start();
        // SAFETY: as in `uring`; a buffer is copied from when its chain has ended, up to the size
        // that was read.
        unsafe {
            ring.run(
                DEPTH,
                4,
                DEPTH,
                |slot, push| {
                    let Some(path) = paths.next() else { return false };
                    let place = types::DestinationSlot::try_from_slot_target(slot as u32);
                    let open = opcode::OpenAt::new(types::Fd(libc::AT_FDCWD), path.as_ptr())
                        .flags(libc::O_RDONLY)
                        .file_index(Some(place.expect("a small number")));
                    let (file, buffer) =
                        (types::Fixed(slot as u32), memory.at(slot as usize * BUFFER));
                    let nowait = libc::RWF_NOWAIT;
                    let check =
                        opcode::Read::new(file, buffer, 0).rw_flags(nowait | libc::RWF_DONTCACHE);
                    let read = opcode::Read::new(file, buffer, BUFFER as u32).rw_flags(nowait);
                    let quiet = squeue::Flags::IO_LINK | squeue::Flags::SKIP_SUCCESS;
                    push(open.build().flags(quiet).user_data(slot | OPEN << 32));
                    push(check.build().flags(quiet).user_data(slot | CHECK << 32));
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
                    let slot = completion.user_data() as usize % DEPTH;
                    if step == READ {
                        sizes[slot] = completion.result() as usize;
                    } else if step == CLOSE {
                        let buffer = memory.at(slot * BUFFER);
                        let contents = std::slice::from_raw_parts(buffer, sizes[slot]).to_vec();
                        assert!(!black_box(contents).is_empty());
                    }
                    step == CLOSE
                },
            );
        }
    });
    Some(rate)
}

/// Whether the kernel answers that a file is one with pages.
fn has_pages(path: &CString) -> Option<()> {
    let file = std::fs::File::open(OsStr::from_bytes(path.as_bytes())).ok()?;
    let nothing = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
    // SAFETY: there is no buffer to write to; the descriptor is open.
    let answer = unsafe { libc::preadv2(file.as_raw_fd(), &nothing, 1, 0, libc::RWF_DONTCACHE) };
    (answer == 0).then_some(())
}
