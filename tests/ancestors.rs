//! Bugs that runtimes like this one have had, each with a test that would show it here.
//!
//! | the bug                                                            | the test                  |
//! |--------------------------------------------------------------------|---------------------------|
//! | the first thread's futex wake is lost when a second thread starts  | `the_lost_futex_wake_...` |
//! | started operations stay unsubmitted while fibers keep each other busy | `operations_reach_...` |
//! | a full submission queue loses operations or splits what belongs together | `a_full_submission_...` |
//! | a full completion queue loses completions, or ends the process     | `a_full_completion_...`   |
//! | a cancel request goes to the wrong worker's ring                   | `a_cancel_request_...`    |
//! | a sleep swallows its cancellation                                  | in `cancel.rs`            |
//! | stacks without guards                                              | in `panics.rs`, and `stacks_have_guards` |
//! | stacks of which every page stays in memory                         | `stacks_are_trimmed`      |
//! | a read of a non-blocking descriptor fails instead of waiting       | `a_read_of_a_non_...`     |
//! | calls without a ring operation block the worker                    | `calls_without_an_...`    |
//! | a lock is waited for by trying again and again                     | `a_file_lock_is_...`      |
//! | a watch cannot be removed, and deletions are never reported        | in `watch.rs`             |
//! | `write_mode` drops its mode, `read_limited` its limit, `readv` is missing | in `fs_*_contract.rs` |

mod common;

use common::process::resident;
use common::{TempDir, eventually, isolated, runtime, watch};
use ramie::Runtime;
use std::cell::Cell;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);

fn pipe() -> (ramie::fs::File, ramie::fs::File) {
    let (reader, writer) = io::pipe().unwrap();
    (OwnedFd::from(reader).into(), OwnedFd::from(writer).into())
}

/// Since Linux 6.16 a process gets a futex table of its own when its second thread starts. A wait
/// that was armed before is in the old table, and a wake from the new thread does not find it.
#[test]
fn the_lost_futex_wake_of_the_first_thread() {
    isolated("the_lost_futex_wake_of_the_first_thread", || {
        for _ in 0..20 {
            let rt = runtime(2);
            rt.run(|| {
                ramie::sleep(MS); // sleeps in the ring: whatever has to be armed, is
                let me = ramie::current();
                // Perhaps the first other thread that this process ever has.
                let thread = std::thread::spawn(move || {
                    std::thread::sleep(2 * MS);
                    me.unpark();
                });
                ramie::park();
                thread.join().unwrap();
            });
        }
    });
}

/// One fiber reads a pipe while others never let the worker become idle.
#[test]
fn operations_reach_the_kernel_while_fibers_keep_each_other_busy() {
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let (mut reader, mut writer) = pipe();
        let done = Rc::new(Cell::new(false));
        let theirs = Rc::clone(&done);
        let reading = ramie::spawn_local(move || {
            reader.read_exact(&mut [0; 3]).unwrap();
            theirs.set(true);
        });
        let theirs = Rc::clone(&done);
        let writing = ramie::spawn_local(move || {
            for _ in 0..3 {
                writer.write_all(b"x").unwrap();
            }
            while !theirs.get() {
                ramie::yield_now();
            }
        });
        // Two that wake each other and do nothing else.
        let (me, theirs) = (ramie::current(), Rc::clone(&done));
        let pong = ramie::spawn_local(move || {
            while !theirs.get() {
                me.unpark();
                ramie::park();
            }
            me.unpark();
        });
        while !done.get() {
            pong.fiber().unpark();
            ramie::park();
        }
        pong.fiber().unpark();
        for fiber in [reading, writing, pong] {
            fiber.join().unwrap();
        }
    });
}

/// Thousands of fibers with an operation each, on rings of one to four entries.
#[test]
fn a_full_submission_queue_loses_nothing() {
    let _watchdog = watch::dog();
    let dir = TempDir::new();
    let path = dir.path().join("f");
    for entries in [1, 2, 3, 4] {
        let rt = Runtime::builder().workers(2).ring_entries(entries).build().unwrap();
        rt.run(|| {
            let file = Arc::new(
                ramie::fs::File::options()
                    .read(true)
                    .write(true)
                    .create(true)
                    .truncate(true)
                    .open(&path)
                    .unwrap(),
            );
            let fibers: Vec<_> = (0..2_000_u64)
                .map(|n| {
                    let file = Arc::clone(&file);
                    ramie::spawn(move || {
                        use std::os::unix::fs::FileExt;
                        file.write_all_at(&n.to_le_bytes(), n * 8).unwrap();
                        let mut bytes = [0; 8];
                        file.read_exact_at(&mut bytes, n * 8).unwrap();
                        u64::from_le_bytes(bytes)
                    })
                })
                .collect();
            for (n, fiber) in fibers.into_iter().enumerate() {
                assert_eq!(fiber.join().unwrap(), n as u64);
            }
        });
        let bytes = std::fs::read(&path).unwrap();
        let right = (0..2_000_u64).flat_map(u64::to_le_bytes).collect::<Vec<_>>();
        assert!(bytes == right, "{entries} entries");
    }
}

/// Far more operations in flight than a ring has room for completions, all completing at once.
#[test]
fn a_full_completion_queue_loses_nothing() {
    let _watchdog = watch::dog();
    for entries in [1, 4] {
        let rt = Runtime::builder().workers(1).ring_entries(entries).build().unwrap();
        rt.run(|| {
            let (reader, mut writer) = pipe();
            let reader = Arc::new(reader);
            let sum = Rc::new(Cell::new(0_u64));
            let fibers: Vec<_> = (0..3_000)
                .map(|_| {
                    let (reader, sum) = (Arc::clone(&reader), Rc::clone(&sum));
                    ramie::spawn_local(move || {
                        let mut byte = [0];
                        assert_eq!((&*reader).read(&mut byte).unwrap(), 1);
                        sum.set(sum.get() + u64::from(byte[0]));
                    })
                })
                .collect();
            ramie::sleep(5 * MS);
            writer.write_all(&[3; 3_000]).unwrap();
            for fiber in fibers {
                fiber.join().unwrap();
            }
            assert_eq!(sum.get(), 9_000);
        });
    }
}

/// Fibers are taken by whichever worker is free before they start; a request must follow them.
#[test]
fn a_cancel_request_reaches_the_ring_that_has_the_operation() {
    let _watchdog = watch::dog();
    runtime(4).run(|| {
        let mut threads = std::collections::HashSet::new();
        for round in 0..30 {
            let waiting = Arc::new(AtomicUsize::new(0));
            let fibers: Vec<_> = (0..16)
                .map(|n| {
                    let waiting = Arc::clone(&waiting);
                    let body = move || {
                        let (mut reader, _writer) = pipe();
                        waiting.fetch_add(1, Ordering::SeqCst);
                        let error = reader.read(&mut [0]).unwrap_err();
                        assert!(ramie::is_cancelled(&error));
                        std::thread::current().id()
                    };
                    match n % 2 {
                        0 => ramie::spawn(body),
                        _ => ramie::Builder::new().worker(n / 2 % 4).spawn(body).unwrap(),
                    }
                })
                .collect();
            if round % 2 == 0 {
                eventually("all wait", || waiting.load(Ordering::SeqCst) == 16);
            }
            fibers.iter().for_each(ramie::JoinHandle::cancel);
            threads.extend(fibers.into_iter().map(|fiber| fiber.join().unwrap()));
        }
        assert_eq!(threads.len(), 4, "this was to try all workers");
    });
}

/// A fiber that runs out of stack does not write into its neighbour's.
#[test]
fn stacks_have_guards() {
    use std::os::unix::process::ExitStatusExt;
    fn recurse(depth: u64) -> u64 {
        let frame = std::hint::black_box([depth; 64]);
        if depth == u64::MAX { 0 } else { recurse(depth + 1) + frame[depth as usize % 64] }
    }
    let output = common::child("stacks_have_guards", || {
        runtime(1).run(|| {
            // Neighbours all around, with something on their stacks to lose.
            let fibers: Vec<_> = (0..200)
                .map(|n| {
                    ramie::spawn_local(move || {
                        let mine = std::hint::black_box([n; 1000]);
                        ramie::sleep(20 * MS);
                        if mine.iter().any(|&number| number != n) {
                            println!("overwritten");
                        }
                    })
                })
                .collect();
            ramie::sleep(5 * MS);
            println!("{}", ramie::spawn_local(|| recurse(0)).join().unwrap());
            drop(fibers);
        });
    });
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("has overflowed its stack"));
    assert!(!String::from_utf8_lossy(&output.stdout).contains("overwritten"));
}

/// After a crowd has gone, the memory of its stacks goes back, without anybody asking for it.
#[test]
fn stacks_are_trimmed() {
    isolated("stacks_are_trimmed", || {
        let rt = runtime(1);
        rt.run(|| {
            let before = resident();
            let crowd: Vec<_> = (0..4_000)
                .map(|_| {
                    ramie::spawn_local(|| {
                        let mut deep = [0_u8; 40 << 10];
                        std::hint::black_box(&mut deep).fill(1);
                        ramie::sleep(100 * MS);
                    })
                })
                .collect();
            ramie::sleep(50 * MS);
            let crowded = resident();
            assert!(crowded > before + (100 << 20), "{} MiB", (crowded - before) >> 20);
            for fiber in crowd {
                fiber.join().unwrap();
            }
            // An idle worker looks after it now and then.
            let start = Instant::now();
            while resident() > before + (64 << 20) {
                assert!(start.elapsed() < Duration::from_secs(30), "{} MiB", resident() >> 20);
                ramie::sleep(20 * MS);
            }
        });
    });
}

/// `O_NONBLOCK` is the descriptor's business; the fiber waits all the same.
#[test]
fn a_read_of_a_non_blocking_pipe_waits() {
    let _watchdog = watch::dog();
    for entries in [1, 256] {
        let rt = Runtime::builder().workers(2).ring_entries(entries).build().unwrap();
        rt.run(|| {
            let (mut reader, mut writer) = pipe();
            for file in [&reader, &writer] {
                // SAFETY: only changes the flags of an open descriptor.
                let result =
                    unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
                assert_eq!(result, 0);
            }
            // More than a pipe holds, so that the writer waits, too.
            let bytes: Vec<u8> = (0..300_000_u32).map(|n| (n * 7) as u8).collect();
            let copy = bytes.clone();
            let reading = ramie::spawn(move || {
                let mut all = Vec::new();
                reader.read_to_end(&mut all).unwrap();
                all
            });
            ramie::sleep(5 * MS);
            writer.write_all(&copy).unwrap();
            drop(writer);
            assert!(reading.join().unwrap() == bytes);
        });
    }
}

/// Directory listings, permissions and links go to the pool: the worker runs on meanwhile.
#[test]
fn calls_without_an_operation_do_not_hold_up_the_worker() {
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let stop = Rc::new(Cell::new(false));
        let turns = Rc::new(Cell::new(0_u64));
        let (theirs, counter) = (Rc::clone(&stop), Rc::clone(&turns));
        let other = ramie::spawn_local(move || {
            while !theirs.get() {
                counter.set(counter.get() + 1);
                ramie::yield_now();
            }
        });
        let dir = TempDir::new();
        let path = dir.path().join("f");
        ramie::fs::write(&path, "x").unwrap();
        std::os::unix::fs::symlink("f", dir.path().join("link")).unwrap();
        let calls: [&dyn Fn(); 4] = [
            &|| assert_eq!(ramie::fs::read_dir(dir.path()).unwrap().count(), 2),
            &|| {
                assert_eq!(
                    ramie::fs::read_link(dir.path().join("link")).unwrap().to_str(),
                    Some("f")
                )
            },
            &|| drop(ramie::fs::canonicalize(&path).unwrap()),
            &|| {
                let permissions = ramie::fs::metadata(&path).unwrap().permissions();
                ramie::fs::set_permissions(&path, permissions).unwrap();
            },
        ];
        for (n, call) in calls.iter().enumerate() {
            // The pool may be done before the worker looks; not every time, though.
            let before = turns.get();
            let let_run = (0..1_000).any(|_| {
                call();
                turns.get() > before
            });
            assert!(let_run, "call {n} did not let the other fiber run");
        }
        stop.set(true);
        other.join().unwrap();
    });
}

/// A lock that somebody else holds is waited for without spinning, and without blocking the worker.
#[test]
fn a_file_lock_is_waited_for() {
    let _watchdog = watch::dog();
    let rt = runtime(1);
    rt.run(|| {
        let dir = TempDir::new();
        let path = dir.path().join("lock");
        let holder = ramie::fs::File::create(&path).unwrap();
        holder.lock().unwrap();
        let got = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&got);
        let waiting = ramie::spawn(move || {
            let file = ramie::fs::File::open(path).unwrap();
            file.lock().unwrap();
            theirs.store(true, Ordering::SeqCst);
        });
        ramie::sleep(5 * MS);
        let before = rt.metrics().resumes;
        ramie::sleep(100 * MS);
        let spun = rt.metrics().resumes - before;
        assert!(spun < 20, "{spun} resumes while a fiber waited for a lock");
        assert!(!got.load(Ordering::SeqCst));
        holder.unlock().unwrap();
        waiting.join().unwrap();
        assert!(got.load(Ordering::SeqCst));
    });
}
