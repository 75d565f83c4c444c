//! Cancellation: an error of the next wait, once, and never the loss of data.

mod common;

use common::{TempDir, eventually, runtime, watch};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

fn pipe() -> (ramie::fs::File, ramie::fs::File) {
    let (reader, writer) = io::pipe().unwrap();
    (OwnedFd::from(reader).into(), OwnedFd::from(writer).into())
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
enum From {
    SameWorker,
    OtherWorker,
    Thread,
}

const EVERYWHERE: [From; 3] = [From::SameWorker, From::OtherWorker, From::Thread];

/// Runs `body` as a fiber of worker 0, lets it get into its wait, cancels it, and returns its
/// result.
fn cancelled<T: Send + 'static>(from: From, body: impl FnOnce() -> T + Send + 'static) -> T {
    runtime(2).run(|| {
        let fiber = ramie::Builder::new().worker(0).spawn(body).unwrap();
        ramie::sleep(5 * MS);
        match from {
            From::SameWorker => {
                fiber.cancel();
                fiber.join().unwrap()
            }
            From::OtherWorker => {
                let other = ramie::Builder::new().worker(1).spawn(move || {
                    fiber.cancel();
                    fiber.join().unwrap()
                });
                other.unwrap().join().unwrap()
            }
            From::Thread => {
                let thread = std::thread::spawn(move || {
                    fiber.cancel();
                    fiber
                });
                eventually("the thread ends", || thread.is_finished());
                thread.join().unwrap().join().unwrap()
            }
        }
    })
}

#[test]
fn a_read_fails_once() {
    let _watchdog = watch::dog();
    for from in EVERYWHERE {
        let (mut reader, mut writer) = pipe();
        cancelled(from, move || {
            let mut bytes = [0; 10];
            let error = reader.read(&mut bytes).unwrap_err();
            assert!(ramie::is_cancelled(&error), "{from:?}: {error}");
            assert_ne!(error.kind(), io::ErrorKind::Interrupted);
            // Reported, and over: everything works again.
            writer.write_all(b"works").unwrap();
            assert_eq!(reader.read(&mut bytes).unwrap(), 5);
            let start = Instant::now();
            ramie::sleep(5 * MS);
            assert!(start.elapsed() >= 5 * MS);
        });
    }
}

#[test]
fn a_read_of_a_non_blocking_pipe_is_cancelled() {
    let _watchdog = watch::dog();
    for from in EVERYWHERE {
        let (mut reader, _writer) = pipe();
        set_nonblocking(&reader);
        cancelled(from, move || {
            let error = reader.read(&mut [0; 10]).unwrap_err();
            assert!(ramie::is_cancelled(&error), "{from:?}: {error}");
        });
    }
}

#[test]
fn a_write_to_a_full_pipe_is_cancelled() {
    let _watchdog = watch::dog();
    for from in EVERYWHERE {
        let (mut reader, mut writer) = pipe();
        let (wrote, error) = cancelled(from, move || {
            let mut wrote = 0;
            loop {
                match writer.write(&[7; 4096]) {
                    Ok(n) => wrote += n,
                    Err(error) => return (wrote, error),
                }
            }
        });
        assert!(ramie::is_cancelled(&error), "{from:?}: {error}");
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), wrote, "what was written is what was reported");
    }
}

/// Opening a FIFO waits until somebody opens the other end, and that wait can be cancelled.
#[test]
fn the_open_of_a_fifo_waits_and_is_cancelled() {
    let _watchdog = watch::dog();
    for from in EVERYWHERE {
        let dir = TempDir::new();
        let path = dir.path().join("fifo");
        let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: reads the string.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        let error = cancelled(from, move || ramie::fs::File::open(path).unwrap_err());
        assert!(ramie::is_cancelled(&error), "{from:?}: {error}");
    }
}

/// A sleep ends early, and does not swallow the request: the next operation reports it.
#[test]
fn a_sleep_ends_early_and_keeps_the_request() {
    let _watchdog = watch::dog();
    for from in EVERYWHERE {
        let (mut reader, _writer) = pipe();
        cancelled(from, move || {
            ramie::sleep(HOUR);
            ramie::sleep(Duration::MAX); // still unreported
            let error = reader.read(&mut [0]).unwrap_err();
            assert!(ramie::is_cancelled(&error), "{from:?}: {error}");
        });
    }
}

#[test]
fn a_park_wakes_once_and_keeps_the_request() {
    let _watchdog = watch::dog();
    for from in EVERYWHERE {
        let (mut reader, _writer) = pipe();
        cancelled(from, move || {
            ramie::park();
            let start = Instant::now();
            ramie::park_timeout(10 * MS); // once
            assert!(start.elapsed() >= 10 * MS, "{from:?}");
            let error = reader.read(&mut [0]).unwrap_err();
            assert!(ramie::is_cancelled(&error), "{from:?}: {error}");
        });
        cancelled(from, move || ramie::park_timeout(HOUR));
    }
}

/// A request that comes just before the fiber parks wakes it all the same: otherwise whoever
/// cancels a fiber could not know whether it will ever end.
#[test]
fn a_park_after_the_request_wakes_once() {
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        // Cancelled while fresh.
        let fiber = ramie::spawn(ramie::park);
        fiber.cancel();
        fiber.join().unwrap();
        // Cancelled while ready.
        let fiber = ramie::spawn(|| {
            ramie::yield_now();
            ramie::park();
        });
        ramie::yield_now();
        fiber.cancel();
        fiber.join().unwrap();
        // Cancelled by itself, as it were.
        let slot = Arc::new(Mutex::new(None::<ramie::JoinHandle<()>>));
        let theirs = Arc::clone(&slot);
        let fiber = ramie::spawn(move || {
            theirs.lock().unwrap().as_ref().unwrap().cancel();
            ramie::park();
        });
        *slot.lock().unwrap() = Some(fiber);
        let done = || slot.lock().unwrap().as_ref().unwrap().is_finished();
        eventually("it wakes", done);
    });
}

/// A fresh fiber runs, and its first operation fails.
#[test]
fn a_fresh_fiber_is_told_by_its_first_operation() {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        runtime(workers).run(|| {
            let ran = Arc::new(AtomicBool::new(false));
            let theirs = Arc::clone(&ran);
            let fiber = ramie::spawn_local(move || {
                theirs.store(true, Ordering::SeqCst);
                let error = ramie::fs::read("Cargo.toml").unwrap_err();
                assert!(ramie::is_cancelled(&error));
                ramie::fs::read("Cargo.toml").unwrap();
            });
            fiber.cancel();
            fiber.cancel();
            assert!(!ran.load(Ordering::SeqCst));
            fiber.join().unwrap();
        });
    }
}

#[test]
fn an_ended_fiber_keeps_its_result() {
    let _watchdog = watch::dog();
    let rt = runtime(2);
    let late = rt.run(|| {
        let fibers: Vec<_> = (0..4).map(|n| ramie::spawn(move || n)).collect();
        eventually("all end", || fibers.iter().all(ramie::JoinHandle::is_finished));
        for fiber in &fibers {
            fiber.cancel();
        }
        let other = ramie::Builder::new().worker(1);
        other.spawn(move || {
            fibers.iter().for_each(ramie::JoinHandle::cancel);
            fibers
        })
    });
    let fibers = rt.run(|| late.unwrap().join().unwrap());
    drop(rt);
    for (n, fiber) in fibers.into_iter().enumerate() {
        fiber.cancel();
        assert_eq!(fiber.join().unwrap(), n);
    }
}

/// A job on the pool and a join are waited for; the request is reported by what comes next.
#[test]
fn jobs_and_joins_are_not_cancelled() {
    let _watchdog = watch::dog();
    for from in EVERYWHERE {
        let (mut reader, _writer) = pipe();
        cancelled(from, move || {
            let start = Instant::now();
            let seven = ramie::unblock(|| {
                std::thread::sleep(30 * MS);
                7
            });
            assert_eq!(seven, 7);
            assert!(start.elapsed() >= 30 * MS);
            let child = ramie::spawn(|| {
                ramie::sleep(5 * MS);
                8
            });
            assert_eq!(child.join().unwrap(), 8, "nor is a child cancelled with it");
            let error = reader.read(&mut [0]).unwrap_err();
            assert!(ramie::is_cancelled(&error), "{from:?}: {error}");
        });
    }
}

/// Each of many requests is reported once; none is lost, none doubled.
#[test]
fn one_report_for_each_request() {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        runtime(workers).run(|| {
            let (mut reader, writer) = pipe();
            let reports = Arc::new(AtomicUsize::new(0));
            let theirs = Arc::clone(&reports);
            let fiber = ramie::Builder::new()
                .worker(workers - 1)
                .spawn(move || {
                    loop {
                        match reader.read(&mut [0]) {
                            Ok(0) => return,
                            Ok(_) => unreachable!("nothing is written"),
                            Err(error) => assert!(ramie::is_cancelled(&error)),
                        }
                        theirs.fetch_add(1, Ordering::SeqCst);
                    }
                })
                .unwrap();
            for n in 1..=1_000 {
                fiber.cancel();
                eventually("the request is reported", || reports.load(Ordering::SeqCst) >= n);
                assert_eq!(reports.load(Ordering::SeqCst), n);
            }
            drop(writer);
            fiber.join().unwrap();
        });
    }
}

/// Numbered bytes go through a pipe whose reader is cancelled at random times. A read that was
/// reported as cancelled has taken nothing, and every byte arrives once and in order.
#[test]
fn no_byte_is_lost_to_a_cancellation() {
    let _watchdog = watch::dog();
    for (nonblocking, entries) in [(false, 256), (true, 256), (false, 1), (true, 1)] {
        let rt = ramie::Runtime::builder().workers(2).ring_entries(entries).build().unwrap();
        rt.run(|| {
            let total = 20_000_u64;
            let (mut reader, mut writer) = pipe();
            if nonblocking {
                set_nonblocking(&reader);
                set_nonblocking(&writer);
            }
            let arrived = Arc::new(AtomicU64::new(0));
            let theirs = Arc::clone(&arrived);
            let counted = Arc::new(AtomicU64::new(0)); // reads that were cancelled
            let seen = Arc::clone(&counted);
            let reading = ramie::spawn(move || {
                let mut expected = 0_u64;
                let mut bytes = [0; 7];
                while expected < total {
                    match reader.read(&mut bytes) {
                        Ok(0) => panic!("ended after {expected} bytes"),
                        Ok(n) => {
                            for &byte in &bytes[..n] {
                                assert_eq!(byte, expected as u8, "byte {expected}");
                                expected += 1;
                            }
                            theirs.store(expected, Ordering::SeqCst);
                        }
                        Err(error) => {
                            assert!(ramie::is_cancelled(&error), "{error}");
                            counted.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                }
            });
            let writing = ramie::spawn(move || {
                let mut n = 0_u64;
                while n < total {
                    let few: Vec<u8> = (n..(n + n % 5 + 1).min(total)).map(|n| n as u8).collect();
                    n += few.len() as u64;
                    // However little the canceller runs: the reader waits for the last bytes, and
                    // is asked to end while it does.
                    while n == total && seen.load(Ordering::SeqCst) == 0 {
                        ramie::yield_now();
                    }
                    writer.write_all(&few).unwrap();
                    if n.is_multiple_of(3) {
                        ramie::yield_now();
                    }
                }
            });
            let canceller = std::thread::spawn(move || {
                let mut n = 0_u64;
                while !reading.is_finished() {
                    reading.cancel();
                    n = n.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    for _ in 0..n >> 54 {
                        std::hint::spin_loop();
                    }
                    if n.is_multiple_of(7) {
                        std::thread::yield_now();
                    }
                }
                reading
            });
            writing.join().unwrap();
            eventually("all bytes have arrived", || canceller.is_finished());
            canceller.join().unwrap().join().unwrap();
            assert_eq!(arrived.load(Ordering::SeqCst), total);
        });
    }
}

/// Cancels fibers at the moment they start or end, from another worker and from a thread.
#[test]
fn cancelling_races_with_start_and_end() {
    let _watchdog = watch::dog();
    let rt = runtime(2);
    rt.run(|| {
        for n in 0..2_000_u32 {
            let fiber = ramie::Builder::new()
                .worker(1)
                .spawn(move || {
                    if n.is_multiple_of(3) {
                        ramie::yield_now();
                    }
                    n
                })
                .unwrap();
            for _ in 0..n % 512 {
                std::hint::spin_loop();
            }
            fiber.cancel();
            if n % 2 == 0 {
                assert_eq!(fiber.join().unwrap(), n);
            }
        }
    });
    eventually("no fiber is left", || rt.metrics().live_fibers == 0);
}

/// Requests that nobody has reported yet are one, whoever makes them.
#[test]
fn requests_at_the_same_time_are_one() {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        runtime(workers).run(|| {
            for _ in 0..200 {
                let ready = Arc::new(std::sync::Barrier::new(3));
                let go = Arc::new(AtomicBool::new(false));
                let asked = Arc::clone(&go);
                let fiber = ramie::spawn(move || {
                    ramie::cancel::shield(|| {
                        while !asked.load(Ordering::SeqCst) {
                            ramie::sleep(Duration::from_micros(10));
                        }
                    });
                    ramie::cancel::check().unwrap_err();
                    ramie::cancel::check().unwrap();
                    ramie::fs::metadata("Cargo.toml").unwrap();
                });
                let fiber = Arc::new(fiber);
                let askers: Vec<_> = (0..2)
                    .map(|_| {
                        let (fiber, ready) = (Arc::clone(&fiber), Arc::clone(&ready));
                        std::thread::spawn(move || {
                            ready.wait();
                            fiber.cancel();
                            fiber.cancel();
                        })
                    })
                    .collect();
                ready.wait();
                for asker in askers {
                    asker.join().unwrap();
                }
                go.store(true, Ordering::SeqCst);
                Arc::into_inner(fiber).unwrap().join().unwrap();
            }
        });
    }
}

#[test]
fn a_request_in_no_suspend_is_found_by_the_next_wait() {
    let _watchdog = watch::dog();
    runtime(2).run(|| {
        let inside = Arc::new(AtomicUsize::new(0));
        let theirs = Arc::clone(&inside);
        let fiber = ramie::Builder::new().worker(1).spawn(move || {
            ramie::no_suspend(|| {
                theirs.store(1, Ordering::SeqCst);
                while theirs.load(Ordering::SeqCst) != 2 {
                    std::hint::spin_loop();
                }
                assert!(ramie::cancel::is_requested());
            });
            ramie::fs::metadata("Cargo.toml").unwrap_err();
            ramie::fs::metadata("Cargo.toml").unwrap();
        });
        let fiber = fiber.unwrap();
        eventually("it is inside", || inside.load(Ordering::SeqCst) == 1);
        fiber.cancel();
        inside.store(2, Ordering::SeqCst);
        fiber.join().unwrap();
    });
}

/// The one that joins is asked: the other one goes on, and its result arrives.
#[test]
fn cancelling_a_fiber_that_joins_another() {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        runtime(workers).run(|| {
            let (mut reader, writer) = pipe();
            let inner = ramie::spawn(move || reader.read(&mut [0]));
            let outer = ramie::spawn(move || {
                assert_eq!(inner.join().unwrap().unwrap(), 0);
                ramie::cancel::check().unwrap_err();
            });
            ramie::sleep(2 * MS);
            outer.cancel();
            ramie::sleep(2 * MS);
            assert!(!outer.is_finished());
            drop(writer);
            outer.join().unwrap();
        });
    }
}

#[test]
fn cancel_join_returns_what_there_is() {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        runtime(workers).run(|| {
            // Fresh, waiting, ended, panicked.
            assert_eq!(ramie::spawn(|| 1).cancel_join().unwrap(), 1);
            let fiber = ramie::spawn(|| ramie::sleep(HOUR));
            ramie::sleep(MS);
            fiber.cancel_join().unwrap();
            let fiber = ramie::spawn(|| 2);
            eventually("it ends", || fiber.is_finished());
            assert_eq!(fiber.cancel_join().unwrap(), 2);
            let fiber = ramie::spawn(|| std::panic::resume_unwind(Box::new(3)));
            let fiber: ramie::JoinHandle<()> = fiber;
            assert_eq!(*fiber.cancel_join().unwrap_err().downcast::<i32>().unwrap(), 3);
        });
    }
}

fn set_nonblocking(file: &ramie::fs::File) {
    use std::os::fd::AsRawFd;
    // SAFETY: only changes the flags of an open descriptor.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
    assert_eq!(result, 0);
}
