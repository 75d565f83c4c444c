//! Reads and writes that are done on the spot: nobody can tell, except by the time they take.
//!
//! What is in the cache or in memory is read without waiting, by a system call or, where many
//! fibers are in line, by the ring; what is not goes on through the ring. These tests mix both.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use common::{TempDir, eventually, runtime, seen, watch};
use ramie::sync::Event;

const MS: Duration = Duration::from_millis(1);
/// More than the number from which reads are made by the ring in one go.
const CROWD: usize = 40;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: all is left to the system's allocator; the counter is a plain thread-local number.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 + i / 4096) as u8).collect()
}

/// A plain file without a name, in memory.
fn memory(contents: &[u8]) -> OwnedFd {
    // SAFETY: a C string.
    let fd = unsafe { libc::memfd_create(c"test".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0, "{}", io::Error::last_os_error());
    // SAFETY: the descriptor is new.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    std::fs::File::from(fd.try_clone().unwrap()).write_all_at(contents, 0).unwrap();
    fd
}

fn file(dir: &Path, contents: &[u8]) -> PathBuf {
    let path = dir.join("file");
    std::fs::write(&path, contents).unwrap();
    path
}

/// Leaves of a file in the cache what is outside of these pages, as far as the system likes to.
fn evict(path: &Path, pages: std::ops::Range<usize>) {
    let file = std::fs::File::open(path).unwrap();
    file.sync_all().unwrap();
    let (start, len) = (pages.start * 4096, pages.len() * 4096);
    // SAFETY: no memory is passed.
    unsafe {
        libc::posix_fadvise(file.as_raw_fd(), start as i64, len as i64, libc::POSIX_FADV_DONTNEED);
    }
}

/// Whether the file system knows reads that refuse to wait.
fn knows_nowait(path: &Path) -> bool {
    let file = std::fs::File::open(path).unwrap();
    let mut byte = 0u8;
    let buf = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: one buffer of one byte, ours.
    unsafe { libc::preadv2(file.as_raw_fd(), &buf, 1, 0, libc::RWF_NOWAIT) == 1 }
}

/// What reads at the position return, one after the other.
fn counts(mut file: impl Read, len: usize) -> (Vec<usize>, Vec<u8>) {
    let (mut counts, mut all, mut buf) = (vec![], vec![], vec![0; len]);
    loop {
        let n = file.read(&mut buf).unwrap();
        counts.push(n);
        all.extend_from_slice(&buf[..n]);
        if n == 0 {
            return (counts, all);
        }
    }
}

contract! {
    fn files_of_all_sizes() {
        for size in [0, 1, 4095, 4096, 4097, 8192, 70_000, 131_072] {
            for len in [100, 4096, 5000, 8192, 200_000] {
                same!(|dir| counts(fs::File::open(file(dir, &bytes(size))).unwrap(), len));
                let shared = memory(&bytes(size));
                same!(|_dir| {
                    let mut file = fs::File::from(shared.try_clone().unwrap());
                    file.rewind().unwrap();
                    counts(file, len)
                });
            }
        }
    }

    fn reads_at_offsets_leave_the_position() {
        same!(|dir| {
            let mut file = fs::File::open(file(dir, &bytes(10_000))).unwrap();
            let mut seen_all = vec![];
            for at in [0, 1, 4096, 8191, 8192, 9999, 10_000, 1 << 40, i64::MAX as u64] {
                let mut buf = [0; 6000];
                seen_all.push((seen(file.read_at(&mut buf, at)), buf.to_vec()));
            }
            (seen_all, file.stream_position().unwrap(), counts(file, 3000))
        });
    }

    /// Seeks, clones and writes in between.
    fn the_position_moves_as_it_should() {
        for in_memory in [false, true] {
            same!(|dir| {
                let mut file: fs::File = if in_memory {
                    memory(&bytes(20_000)).into()
                } else {
                    let path = file(dir, &bytes(20_000));
                    fs::OpenOptions::new().read(true).write(true).open(path).unwrap()
                };
                let mut buf = [0; 4096];
                let mut counts = vec![file.read(&mut buf[..10]).unwrap()];
                counts.push(file.read(&mut buf).unwrap());
                file.seek(SeekFrom::End(-5000)).unwrap();
                counts.push(file.read(&mut buf).unwrap());
                let mut clone = file.try_clone().unwrap();
                counts.push(clone.read(&mut buf[..96]).unwrap());
                counts.push(file.read(&mut buf).unwrap());
                counts.push(file.write(b"more").unwrap());
                counts.push(clone.read(&mut buf).unwrap());
                file.rewind().unwrap();
                counts.push(file.write(&[9; 4096]).unwrap());
                counts.push(clone.read(&mut buf).unwrap());
                let mut all = vec![];
                file.rewind().unwrap();
                file.read_to_end(&mut all).unwrap();
                (counts, buf.to_vec(), all)
            });
        }
    }

    fn appending_goes_to_the_end() {
        same!(|dir| {
            let path = file(dir, b"begin");
            let mut file = fs::OpenOptions::new().append(true).read(true).open(path).unwrap();
            let mut text = String::new();
            file.write_all(b", more").unwrap();
            file.rewind().unwrap();
            file.write_all(b", end").unwrap();
            let at = seen(file.write_at(b"!", 0));
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            (at, text)
        });
        // The same of a file in memory, through its name.
        same!(|_dir| {
            let whole = memory(b"begin");
            let path = format!("/proc/self/fd/{}", whole.as_raw_fd());
            let mut file = fs::OpenOptions::new().append(true).read(true).open(path).unwrap();
            let mut text = String::new();
            file.write_all(b", end").unwrap();
            let at = seen(file.write_at(b"!", 0));
            file.rewind().unwrap();
            file.read_to_string(&mut text).unwrap();
            (at, text)
        });
    }

    /// A read that finds a part in the cache goes on with the rest.
    fn a_hole_in_the_cache_ends_no_read() {
        const LEN: usize = 64 * 4096 + 100;
        let dir = TempDir::new();
        let path = file(dir.path(), &bytes(LEN));
        for skip in [0, 10, 4096] {
            for pages in [0..64, 1..64, 5..6, 40..64, 63..64, 60..65] {
                evict(&path, pages.clone());
                let file = ramie::fs::File::open(&path).unwrap();
                let mut buf = vec![0; LEN + 4096];
                let n = file.read_at(&mut buf, skip as u64).unwrap();
                assert_eq!(n, LEN - skip, "at {skip} without {pages:?}");
                assert_eq!(buf[..n], bytes(LEN)[skip..]);
                evict(&path, pages.clone());
                let mut file = ramie::fs::File::open(&path).unwrap();
                file.read_exact(&mut buf[..skip]).unwrap();
                evict(&path, pages.clone());
                assert_eq!(file.read(&mut buf).unwrap(), LEN - skip, "from {skip}, {pages:?}");
                assert_eq!(file.read(&mut buf).unwrap(), 0);
                evict(&path, pages.clone());
                // Nobody knows the position of this one.
                let mut file = ramie::fs::File::from(std::fs::File::open(&path).unwrap());
                file.seek(SeekFrom::Start(skip as u64)).unwrap();
                let mut clone = file.try_clone().unwrap();
                assert_eq!(clone.read(&mut buf).unwrap(), LEN - skip);
                evict(&path, pages.clone());
                assert_eq!(ramie::fs::read(&path).unwrap(), bytes(LEN));
            }
        }
    }

    fn what_is_no_plain_file() {
        same!(|dir| {
            let mut buf = [0; 100];
            let directory = seen(fs::File::open(dir).unwrap().read(&mut buf));
            let path = file(dir, b"text");
            let write_only = fs::OpenOptions::new().write(true).open(&path).unwrap();
            let read_only = fs::File::open(&path).unwrap();
            (
                directory,
                seen((&write_only).read(&mut buf)),
                seen(write_only.read_at(&mut buf, 0)),
                seen((&read_only).write(b"x")),
                seen(fs::File::open("/dev/null").unwrap().read(&mut buf)),
                seen(fs::File::open("/dev/zero").unwrap().read(&mut buf)),
                fs::read_to_string("/proc/sys/kernel/ostype").unwrap(),
                seen(fs::File::open("/proc/self/cmdline").unwrap().read_at(&mut buf, 1 << 30)),
            )
        });
    }

    fn pipes_give_what_they_have() {
        for flags in [0, libc::O_NONBLOCK] {
            let (reader, mut writer) = io::pipe().unwrap();
            // SAFETY: no memory is passed.
            unsafe { libc::fcntl(reader.as_raw_fd(), libc::F_SETFL, flags) };
            let mut reader = ramie::fs::File::from(OwnedFd::from(reader));
            let mut buf = [0; 8192];
            for size in [1, 4096, 5] {
                writer.write_all(&bytes(size)).unwrap();
                assert_eq!(reader.read(&mut buf).unwrap(), size);
            }
            let late = std::thread::spawn(move || {
                std::thread::sleep(5 * MS);
                writer.write_all(b"late").unwrap();
            });
            // (A thread is told by a descriptor in non-blocking mode that there is nothing.)
            if flags == 0 || ramie::is_fiber() {
                assert_eq!(reader.read(&mut buf).unwrap(), 4);
                assert_eq!(reader.read(&mut buf).unwrap(), 0);
            }
            late.join().unwrap();
        }
    }

    fn direct_reads_stay_whole() {
        let dir = TempDir::new();
        let path = file(dir.path(), &bytes(16_384));
        let mut options = ramie::fs::OpenOptions::new();
        let direct = options.read(true).custom_flags(libc::O_DIRECT).open(path);
        let Ok(file) = direct else { return }; // this file system knows none
        #[repr(align(4096))]
        struct Block([u8; 8192]);
        let mut block = Block([0; 8192]);
        assert_eq!(file.read_at(&mut block.0, 4096).unwrap(), 8192);
        assert_eq!(block.0[..], bytes(16_384)[4096..][..8192]);
    }

    /// A lock goes with the file, whichever way the file was read or written and is closed: at
    /// once, but where a kernel thread that has just done an op of it is held up (D9).
    fn a_drop_lets_go_of_the_file() {
        let dir = TempDir::new();
        let path = file(dir.path(), &bytes(10_000));
        let rounds: [fn(&ramie::fs::File); 4] = [
            |_| {},
            |file| assert_eq!(file.read_at(&mut [0; 100], 0).unwrap(), 100),
            |file| assert_eq!(file.write_at(&[0; 100], 0).unwrap(), 100),
            |file| {
                assert_eq!(file.read_at(&mut [0; 100], 0).unwrap(), 100);
                assert_eq!(file.write_at(&[0; 100], 0).unwrap(), 100);
                file.sync_all().unwrap();
            },
        ];
        for round in rounds {
            for _ in 0..20 {
                let mut options = ramie::fs::OpenOptions::new();
                let file = options.read(true).write(true).open(&path).unwrap();
                file.lock().unwrap();
                round(&file);
                drop(file);
                let other = OpenOptions::new().read(true).open(&path).unwrap();
                eventually("nobody holds the lock", || other.try_lock().is_ok());
            }
        }
    }

    /// Many fibers at once, most of which read by the ring.
    fn a_crowd_reads_the_same() {
        const LEN: usize = 64 * 4096 + 100;
        if !ramie::is_fiber() {
            return;
        }
        let dir = TempDir::new();
        let path = Rc::new(file(dir.path(), &bytes(LEN)));
        let memory = Rc::new(memory(&bytes(LEN)));
        let read = |i: usize| {
            let (path, memory) = (path.clone(), memory.clone());
            move || {
                let mut buf = vec![0; LEN];
                for round in 0..10 {
                    let file = match i % 8 {
                        0 => memory.try_clone().unwrap().into(),
                        _ => ramie::fs::File::open(&*path).unwrap(),
                    };
                    let skip = (i * 1000 + round * 4096) % LEN;
                    let n = file.read_at(&mut buf, skip as u64).unwrap();
                    assert_eq!(n, LEN - skip);
                    assert_eq!(buf[..n], bytes(LEN)[skip..]);
                    let mut file = ramie::fs::File::open(&*path).unwrap();
                    let n = file.read(&mut buf[..9000]).unwrap() + file.read(&mut buf).unwrap();
                    assert_eq!(n, LEN);
                    if i == 1 {
                        evict(&path, round..40);
                    }
                }
            }
        };
        let fibers: Vec<_> = (0..CROWD).map(|i| ramie::spawn_local(read(i))).collect();
        fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
    }
}

/// A file for endless reading: in memory, or on the disk and in the cache.
fn endless(dir: &TempDir, in_memory: bool) -> ramie::fs::File {
    match in_memory {
        true => memory(&bytes(10_000)).into(),
        false => ramie::fs::File::open(file(dir.path(), &bytes(10_000))).unwrap(),
    }
}

/// Reads until it fails, and returns the error.
fn read_for_ever(file: &ramie::fs::File) -> io::Error {
    loop {
        if let Err(e) = file.read_at(&mut [0; 4096], 0) {
            return e;
        }
    }
}

#[test]
fn a_fiber_that_never_waits_keeps_nobody_waiting() {
    let _watchdog = watch::dog();
    for in_memory in [false, true] {
        let dir = TempDir::new();
        runtime(1).run(|| {
            let reads = Rc::new(Cell::new(0u64));
            let greedy = {
                let (file, reads) = (endless(&dir, in_memory), reads.clone());
                ramie::spawn_local(move || {
                    while let Ok(n) = file.read_at(&mut [0; 4096], 0) {
                        assert_eq!(n, 4096);
                        reads.set(reads.get() + 1);
                    }
                })
            };
            // Timers, other ready fibers, other threads, and ops that go through the ring.
            for _ in 0..20 {
                ramie::sleep(MS);
                ramie::yield_now();
                ramie::unblock(|| ());
                let (reader, mut writer) = io::pipe().unwrap();
                let thread = std::thread::spawn(move || writer.write_all(b"x"));
                let mut reader = ramie::fs::File::from(OwnedFd::from(reader));
                assert_eq!(reader.read(&mut [0; 9]).unwrap(), 1);
                thread.join().unwrap().unwrap();
            }
            assert!(reads.get() > 0);
            greedy.cancel();
            greedy.join().unwrap();
        });
    }
}

#[test]
fn a_cancel_request_is_reported_once() {
    let _watchdog = watch::dog();
    for in_memory in [false, true] {
        for other_worker in [false, true] {
            let dir = TempDir::new();
            let file = endless(&dir, in_memory);
            let once = Arc::new(Event::new());
            let done = Arc::clone(&once);
            runtime(2).run(|| {
                let reader = ramie::Builder::new().worker(0).spawn(move || {
                    assert!(ramie::is_cancelled(&read_for_ever(&file)));
                    for _ in 0..100 {
                        assert_eq!(file.read_at(&mut [0; 100], 0).unwrap(), 100);
                    }
                    done.set();
                    assert!(ramie::is_cancelled(&read_for_ever(&file)));
                });
                let reader = reader.unwrap();
                let cancel = move || {
                    ramie::sleep(5 * MS);
                    reader.cancel();
                    once.wait();
                    ramie::sleep(5 * MS);
                    reader.cancel();
                    reader.join().unwrap();
                };
                match other_worker {
                    true => ramie::Builder::new().worker(1).spawn(cancel).unwrap().join().unwrap(),
                    false => cancel(),
                }
            });
        }
    }
}

#[test]
fn a_runtime_that_ends_ends_endless_reading() {
    let _watchdog = watch::dog();
    for in_memory in [false, true] {
        let dir = TempDir::new();
        let runtime = runtime(2);
        let fibers: Vec<_> = (0..4)
            .map(|i| {
                let file = endless(&dir, in_memory);
                let builder = ramie::Builder::new().worker(i % 2);
                runtime.run(|| builder.spawn(move || read_for_ever(&file)).unwrap())
            })
            .collect();
        runtime.run(|| ramie::sleep(2 * MS));
        drop(runtime);
        for fiber in fibers {
            assert!(ramie::is_cancelled(&fiber.join().unwrap()));
        }
    }
}

#[test]
fn nothing_is_allocated() {
    let by_pool = std::env::var("RAMIE_CAPS").is_ok_and(|mask| mask.contains("-openat"));
    if by_pool || ramie::probe().driver() == Some(ramie::DriverKind::Poll) {
        return; // what needs the blocking pool takes an entry in its queue
    }
    let dir = TempDir::new();
    let path = file(dir.path(), &bytes(10_000));
    let each = |path: &Path| {
        let file = ramie::fs::File::open(path).unwrap();
        let mut buf = [0; 4096];
        for i in 0..20 {
            assert_eq!(file.read_at(&mut buf, 100 * i).unwrap(), 4096);
            assert_eq!((&file).read(&mut buf[..100]).unwrap(), 100);
        }
    };
    for fibers in [1, CROWD] {
        for inline in [true, false] {
            let runtime = ramie::Runtime::builder().workers(1).inline(inline).build().unwrap();
            let all_have = Arc::new(ramie::sync::Barrier::new(fibers));
            runtime.run(|| {
                let counts: Vec<_> = (0..fibers)
                    .map(|_| {
                        let (path, all_have) = (path.clone(), Arc::clone(&all_have));
                        ramie::spawn_local(move || {
                            each(&path);
                            // Who comes late allocates, and the count is the thread's.
                            all_have.wait();
                            let before = ALLOCATIONS.get();
                            each(&path);
                            ALLOCATIONS.get() - before
                        })
                    })
                    .collect();
                // Joining allocates nothing either.
                for count in counts {
                    assert_eq!(count.join().unwrap(), 0, "{fibers} fibers, inline: {inline}");
                }
            });
        }
    }
}

/// One fiber that finds all in the cache rarely leaves its stack; with the switch off it always
/// does.
#[test]
fn it_is_done_on_the_spot() {
    let dir = TempDir::new();
    for in_memory in [false, true] {
        let there = in_memory || knows_nowait(&file(dir.path(), &bytes(10_000)));
        for inline in [true, false] {
            let runtime = ramie::Runtime::builder().workers(1).inline(inline).build().unwrap();
            runtime.run(|| {
                let file = endless(&dir, in_memory);
                for _ in 0..1000 {
                    assert_eq!(file.read_at(&mut [0; 100], 0).unwrap(), 100);
                }
            });
            let resumes = runtime.metrics().resumes;
            if inline && there {
                assert!(resumes < 200, "{resumes} resumes");
            } else {
                assert!(resumes >= 1000, "{resumes} resumes");
            }
        }
    }
    // Writes, of what is in memory.
    let runtime = runtime(1);
    runtime.run(|| {
        let file = ramie::fs::File::from(memory(b""));
        for _ in 0..1000 {
            assert_eq!((&file).write(&[1; 10]).unwrap(), 10);
        }
        assert_eq!(file.metadata().unwrap().len(), 10_000);
    });
    assert!(runtime.metrics().resumes < 200);
}

#[test]
fn a_drop_lets_go_at_once_of_what_others_wait_for() {
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let (reader, writer) = io::pipe().unwrap();
        let thread = std::thread::spawn(move || OwnedFd::from(reader));
        let reader = thread.join().unwrap();
        let writer = ramie::fs::File::from(OwnedFd::from(writer));
        (&writer).write_all(b"text").unwrap();
        drop(writer);
        let thread = std::thread::spawn(move || {
            let mut text = String::new();
            std::fs::File::from(reader).read_to_string(&mut text).unwrap();
            text
        });
        // The worker is busy and enters no ring meanwhile.
        eventually("the reader sees the end", || thread.is_finished());
        assert_eq!(thread.join().unwrap(), "text");
    });
}
