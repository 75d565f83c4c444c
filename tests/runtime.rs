//! Building runtimes, running fibers in them, reaching them from outside. How they end is in
//! `shutdown.rs`.

mod common;

use common::{eventually, isolated, runtime, threads, watch};
use ramie::{DriverKind, Runtime, WakeMethod};
use std::cell::Cell;
use std::collections::HashSet;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);

#[test]
fn run_borrows_and_needs_no_send() {
    let _watchdog = watch::dog();
    let rt = runtime(2);
    let mut log = Vec::new();
    let shared = Rc::new(5);
    let result = rt.run(|| {
        log.push(*shared);
        ramie::sleep(MS);
        log.push(6);
        Rc::clone(&shared)
    });
    assert!(Rc::ptr_eq(&result, &shared));
    assert_eq!(log, [5, 6]);
}

#[test]
fn run_again_and_again() {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        let rt = runtime(workers);
        for n in 0..2_000 {
            assert_eq!(rt.run(move || ramie::spawn(move || n).join().unwrap()), n);
        }
        eventually("all fibers have ended", || rt.metrics().live_fibers == 0);
        assert_eq!(rt.metrics().ended_fibers, 4_000);
    }
}

/// Fibers of worker 0 that are left over go on in the next run.
#[test]
fn what_is_left_goes_on_in_the_next_run() {
    let _watchdog = watch::dog();
    let rt = runtime(1);
    let count = Rc::new(Cell::new(0));
    let theirs = Rc::clone(&count);
    rt.run(|| {
        drop(ramie::spawn_local(move || {
            for _ in 0..10 {
                theirs.set(theirs.get() + 1);
                ramie::yield_now();
                ramie::sleep(MS);
            }
        }));
    });
    let before = count.get();
    std::thread::sleep(20 * MS);
    assert_eq!(count.get(), before, "worker 0 does not run outside of run");
    rt.run(|| eventually("it ends", || count.get() == 10));
}

/// A runtime may be moved while fibers of it are suspended.
#[test]
fn a_runtime_may_be_moved() {
    let _watchdog = watch::dog();
    let start = |rt: &Runtime| {
        rt.run(|| {
            let fibers: Vec<_> = (0..50)
                .map(|n| {
                    ramie::spawn_local(move || {
                        for _ in 0..5 {
                            let me = ramie::current();
                            drop(ramie::spawn_local(move || me.unpark()));
                            ramie::park_timeout(Duration::from_secs(3600));
                            ramie::sleep(Duration::from_micros(n));
                        }
                        n
                    })
                })
                .collect();
            ramie::yield_now();
            fibers
        })
    };
    let rt = runtime(1);
    let fibers = start(&rt);
    // Moved, with something else where it was.
    let mut place = [Some(rt), None];
    place[1] = place[0].take();
    place[0] = Some(runtime(1));
    let others = start(place[0].as_ref().unwrap());
    for (rt, fibers) in place.iter().zip([others, fibers]) {
        let sum = rt
            .as_ref()
            .unwrap()
            .run(|| fibers.into_iter().map(|fiber| fiber.join().unwrap()).sum::<u64>());
        assert_eq!(sum, 50 * 49 / 2);
    }
}

/// `run` returns when the main fiber has ended, even if that takes longer than its closure: its
/// fiber-local values have destructors, which may suspend.
#[test]
fn run_ends_with_slow_fiber_locals() {
    struct Slow;
    impl Drop for Slow {
        fn drop(&mut self) {
            ramie::sleep(5 * MS);
            ramie::yield_now();
        }
    }
    ramie::fiber_local! {
        static SLOW: Slow = Slow;
    }
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        let rt = runtime(workers);
        let start = Instant::now();
        for n in 0..3 {
            assert_eq!(rt.run(|| SLOW.with(|_| n)), n);
        }
        assert!(start.elapsed() >= 15 * MS);
    }
}

#[test]
fn handles_spawn_before_during_and_after_run() {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        let rt = runtime(workers);
        let handle = rt.handle();
        let before: Vec<_> = (0..100).map(|n| handle.spawn(move || n).unwrap()).collect();
        let during = handle.clone();
        let (sum, late) = rt.run(move || {
            let thread = std::thread::spawn(move || {
                (0..100)
                    .map(|n| {
                        std::thread::sleep(Duration::from_micros(50));
                        during.spawn(move || n).unwrap()
                    })
                    .collect::<Vec<_>>()
            });
            eventually("the thread has spawned", || thread.is_finished());
            let fibers = before.into_iter().chain(thread.join().unwrap());
            (fibers.map(|fiber| fiber.join().unwrap()).sum::<u32>(), handle)
        });
        assert_eq!(sum, 2 * 4950);
        let between = late.spawn(|| 7).unwrap();
        assert_eq!(rt.run(|| between.join().unwrap()), 7);
        drop(rt);
        let error = late.spawn(|| 8).unwrap_err();
        assert!(error.to_string().contains("shut down"), "{error}");
    }
}

/// A worker that sleeps is woken for each fiber that comes from outside, not just for the first.
#[test]
fn every_spawn_from_outside_wakes_a_sleeper() {
    let _watchdog = watch::dog();
    for workers in [1, 2, 4] {
        let rt = runtime(workers);
        let handle = rt.handle();
        rt.run(|| {
            let thread = std::thread::spawn(move || {
                for n in 0..50 {
                    std::thread::sleep(MS);
                    // Joined by this thread: nothing else happens that could wake the worker.
                    assert_eq!(handle.spawn(move || n).unwrap().join().unwrap(), n);
                }
            });
            let me = ramie::current();
            let end = std::thread::spawn(move || {
                thread.join().unwrap();
                me.unpark();
            });
            ramie::park();
            eventually("the helper has ended", || end.is_finished());
            end.join().unwrap();
        });
    }
}

/// Fibers from outside get their turn although the workers always have something to run.
#[test]
fn busy_workers_take_fibers_from_outside() {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        let rt = runtime(workers);
        let handle = rt.handle();
        rt.run(|| {
            let came = Arc::new(AtomicBool::new(false));
            let busy: Vec<_> = (0..4)
                .map(|_| {
                    let came = Arc::clone(&came);
                    ramie::spawn(move || {
                        while !came.load(Ordering::SeqCst) {
                            ramie::yield_now();
                        }
                    })
                })
                .collect();
            let thread = std::thread::spawn(move || {
                std::thread::sleep(5 * MS);
                drop(handle.spawn(move || came.store(true, Ordering::SeqCst)).unwrap());
            });
            for fiber in busy {
                fiber.join().unwrap();
            }
            thread.join().unwrap();
        });
    }
}

/// I/O and timers get their turn although there is always something to run.
#[test]
fn busy_fibers_starve_neither_io_nor_timers() {
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let stop = Rc::new(Cell::new(false));
        let busy: Vec<_> = (0..100)
            .map(|_| {
                let stop = Rc::clone(&stop);
                ramie::spawn_local(move || {
                    while !stop.get() {
                        ramie::yield_now();
                    }
                })
            })
            .collect();
        let (mut near, mut far) = ramie::os::unix::net::UnixStream::pair().unwrap();
        let answers = ramie::spawn(move || std::io::copy(&mut far.try_clone().unwrap(), &mut far));
        for _ in 0..20 {
            assert!(ramie::fs::read_to_string("Cargo.toml").unwrap().contains("ramie"));
            ramie::sleep(Duration::from_micros(100));
            near.write_all(b"?").unwrap();
            near.read_exact(&mut [0]).unwrap();
            ramie::unblock(|| ());
        }
        drop(near);
        assert_eq!(answers.join().unwrap().unwrap(), 20);
        stop.set(true);
        for fiber in busy {
            fiber.join().unwrap();
        }
    });
}

#[test]
fn tick_never_waits() {
    let _watchdog = watch::dog();
    let rt = runtime(1);
    assert_eq!(rt.tick(), 0);
    let (reader, mut writer) = std::io::pipe().unwrap();
    let fiber = rt
        .handle()
        .spawn(move || {
            let mut byte = [0];
            let read = ramie::fs::File::from(OwnedFd::from(reader)).read(&mut byte).unwrap();
            ramie::sleep(MS);
            (read, byte[0])
        })
        .unwrap();
    for _ in 0..100 {
        rt.tick();
        assert!(!fiber.is_finished());
    }
    writer.write_all(b"!").unwrap();
    while !fiber.is_finished() {
        rt.tick();
    }
    assert_eq!(fiber.join().unwrap(), (1, b'!'));
    assert_eq!(rt.tick(), 0);
    // Bounded: a fiber that never stops does not keep it.
    let stop = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&stop);
    let endless = rt
        .handle()
        .spawn(move || {
            while !theirs.load(Ordering::SeqCst) {
                ramie::yield_now();
            }
        })
        .unwrap();
    let resumed: usize = (0..10).map(|_| rt.tick()).sum();
    assert!(resumed > 0 && resumed < 10_000, "{resumed}");
    stop.store(true, Ordering::SeqCst);
    rt.run(|| endless.join().unwrap());
}

#[test]
fn run_for_runs_for_that_long() {
    let _watchdog = watch::dog();
    let rt = runtime(1);
    let start = Instant::now();
    rt.run_for(20 * MS);
    assert!(start.elapsed() >= 20 * MS);
    let count = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&count);
    let fiber = rt.handle().spawn(move || {
        loop {
            theirs.fetch_add(1, Ordering::SeqCst);
            ramie::sleep(MS);
        }
    });
    let start = Instant::now();
    rt.run_for(20 * MS);
    assert!(start.elapsed() >= 20 * MS);
    // On a machine that stands still meanwhile, a fiber does not get far.
    while count.load(Ordering::SeqCst) <= 1 {
        rt.run_for(20 * MS);
    }
    rt.run_for(Duration::ZERO);
    drop(fiber);
    rt.shutdown_timeout(20 * MS);
}

#[test]
fn misuse_is_refused() {
    let _watchdog = watch::dog();
    let kind = |builder: ramie::RuntimeBuilder| builder.build().unwrap_err().kind();
    let wrong = std::io::ErrorKind::InvalidInput;
    assert_eq!(kind(Runtime::builder().workers(0)), wrong);
    assert_eq!(kind(Runtime::builder().workers(usize::MAX)), wrong);
    assert_eq!(kind(Runtime::builder().ring_entries(0)), wrong);
    assert_eq!(kind(Runtime::builder().ring_entries(u32::MAX)), wrong);
    assert_eq!(kind(Runtime::builder().stack_size(usize::MAX)), wrong);
    assert_eq!(kind(Runtime::builder().thread_name("a\0b")), wrong);
    assert_eq!(Runtime::builder().stack_size(0).build().unwrap().run(|| 5), 5);

    let rt = runtime(1);
    let text = |panic: Box<dyn std::any::Any + Send>| match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast_ref::<&str>().unwrap().to_string(),
    };
    let outer = std::panic::AssertUnwindSafe(&rt);
    rt.run(move || {
        let error = Runtime::new().unwrap_err();
        assert!(error.to_string().contains("inside another"), "{error}");
        let caught = std::panic::catch_unwind(|| outer.run(|| ())).unwrap_err();
        assert!(text(caught).contains("Runtime::run was called inside a runtime"));
        let caught = std::panic::catch_unwind(|| outer.tick()).unwrap_err();
        assert!(text(caught).contains("Runtime::tick was called inside a runtime"));
        let caught = std::panic::catch_unwind(|| outer.run_for(MS)).unwrap_err();
        assert!(text(caught).contains("Runtime::run_for was called inside a runtime"));
    });
    assert_eq!(rt.run(|| 5), 5);
}

/// Every way of waking a sleeping worker, with wake-ups from a thread, another worker and the pool.
#[test]
fn every_wake_method() {
    let _watchdog = watch::dog();
    // Where no ring is to be had at all, by a mask or a filter, there is none to wake.
    if let Err(error) = Runtime::builder().driver(DriverKind::Uring).build() {
        let kinds = [std::io::ErrorKind::Unsupported, std::io::ErrorKind::PermissionDenied];
        assert!(kinds.contains(&error.kind()), "{error}");
        println!("skipped: {error}");
        return;
    }
    let mut skipped = 0;
    for method in [WakeMethod::Futex, WakeMethod::MsgRing, WakeMethod::EventFd] {
        for workers in [1, 2] {
            let builder = Runtime::builder().driver(DriverKind::Uring);
            let rt = match builder.workers(workers).wake(method).build() {
                Ok(rt) => rt,
                Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {
                    println!("{method:?}: {error}");
                    skipped += 1;
                    continue;
                }
                Err(error) => panic!("{method:?}: {error}"),
            };
            rt.run(|| {
                for n in 0..100 {
                    let me = ramie::current();
                    let thread = std::thread::spawn(move || {
                        std::thread::sleep(Duration::from_micros(200));
                        me.unpark();
                    });
                    ramie::park();
                    thread.join().unwrap();
                    let builder = ramie::Builder::new().worker(workers - 1);
                    let fiber = builder.spawn(move || {
                        ramie::sleep(Duration::from_micros(50));
                        n
                    });
                    assert_eq!(fiber.unwrap().join().unwrap(), n);
                    assert_eq!(ramie::unblock(|| n), n);
                }
            });
        }
    }
    println!("skipped: {skipped} of 6");
    assert!(skipped <= 4, "the last of the ways works wherever io_uring does");
}

#[test]
fn several_runtimes_at_once() {
    let _watchdog = watch::dog();
    let barrier = Barrier::new(4);
    std::thread::scope(|scope| {
        for n in 0..4_u64 {
            let barrier = &barrier;
            scope.spawn(move || {
                let rt = runtime(1 + n as usize % 2);
                barrier.wait();
                let sum = rt.run(|| {
                    let fibers: Vec<_> = (0..200)
                        .map(|k| {
                            ramie::spawn(move || {
                                ramie::sleep(Duration::from_micros(k));
                                ramie::fs::metadata("Cargo.toml").unwrap();
                                n * k
                            })
                        })
                        .collect();
                    fibers.into_iter().map(|fiber| fiber.join().unwrap()).sum::<u64>()
                });
                assert_eq!(sum, n * 199 * 100);
            });
        }
    });
}

/// Two runtimes of one thread take turns, and fibers of one wait for fibers of the other.
#[test]
fn two_runtimes_of_one_thread() {
    let _watchdog = watch::dog();
    let (a, b) = (runtime(1), runtime(2));
    for n in 0..100 {
        let fiber = a.handle().spawn(move || n).unwrap();
        assert_eq!(b.run(|| n + 1), n + 1);
        assert_eq!(a.run(|| fiber.join().unwrap()), n);
    }
    // Worker 1 of `b` runs while this thread is in `a`.
    let parked = b.run(|| {
        ramie::Builder::new().worker(1).spawn(|| {
            ramie::park();
            std::thread::current().id()
        })
    });
    let parked = parked.unwrap();
    a.run(|| {
        parked.fiber().unpark();
        assert_ne!(parked.join().unwrap(), std::thread::current().id());
    });
    for _ in 0..50 {
        assert_eq!(runtime(2).run(|| ramie::spawn(|| 5).join().unwrap()), 5);
    }
}

/// Many runtimes, one after the other, while others of the same threads' workers come and go.
#[test]
fn runtimes_come_and_go() {
    let _watchdog = watch::dog();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for n in 0..60 {
                    let rt = runtime(1 + n % 3);
                    let fibers: Vec<_> = rt
                        .run(|| (0..20).map(|_| ramie::spawn(|| ramie::sleep(MS / 10))).collect());
                    if n % 2 == 0 {
                        rt.run(|| fibers.into_iter().for_each(|fiber| fiber.join().unwrap()));
                    }
                }
            });
        }
    });
}

#[test]
fn workers_start_on_demand() {
    isolated("workers_start_on_demand", || {
        let before = threads();
        let rt = runtime(4);
        rt.run(|| ());
        rt.run(|| ramie::sleep(MS));
        assert_eq!(threads(), before, "nothing to do for another worker");
        rt.run(|| {
            let at_work = Arc::new(AtomicUsize::new(0));
            let fibers: Vec<_> = (0..4)
                .map(|_| {
                    let at_work = Arc::clone(&at_work);
                    ramie::spawn(move || {
                        // All four at once, without suspending: each needs a thread of its own.
                        at_work.fetch_add(1, Ordering::SeqCst);
                        let start = Instant::now();
                        while at_work.load(Ordering::SeqCst) < 4 {
                            assert!(start.elapsed() < Duration::from_secs(20));
                            std::hint::spin_loop();
                        }
                        std::thread::current().id()
                    })
                })
                .collect();
            let ids: HashSet<_> = fibers.into_iter().map(|fiber| fiber.join().unwrap()).collect();
            assert_eq!(ids.len(), 4);
        });
        assert_eq!(threads(), before + 3, "and no more than asked for");
        drop(rt);
        eventually("they end with the runtime", || threads() == before);
    });
}

#[test]
fn threads_are_named() {
    let _watchdog = watch::dog();
    let rt = Runtime::builder().workers(2).thread_name("weaver").build().unwrap();
    rt.run(|| {
        let name = || std::thread::current().name().map(String::from);
        let worker = ramie::Builder::new().worker(1).spawn(name).unwrap().join().unwrap();
        assert_eq!(worker.as_deref(), Some("weaver-1"));
        assert_eq!(ramie::unblock(name).as_deref(), Some("weaver-blocking"));
        assert_eq!(name().as_deref(), Some("threads_are_named"));
        assert_eq!(ramie::current().name(), Some("threads_are_named"));
    });
}

#[test]
fn the_blocking_pool_is_bounded() {
    let _watchdog = watch::dog();
    let rt = Runtime::builder().workers(2).blocking_threads(3).build().unwrap();
    let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let (now, most): (&'static _, &'static _) =
        (Box::leak(Box::new(now)), Box::leak(Box::new(most)));
    // Each job waits for two others: there are three at a time, however slow the machine.
    let three: &'static _ = Box::leak(Box::new(std::sync::Barrier::new(3)));
    rt.run(|| {
        let fibers: Vec<_> = (0..60)
            .map(|n| {
                ramie::spawn(move || {
                    ramie::unblock(|| {
                        let running = now.fetch_add(1, Ordering::SeqCst) + 1;
                        most.fetch_max(running, Ordering::SeqCst);
                        three.wait();
                        std::thread::sleep(MS);
                        now.fetch_sub(1, Ordering::SeqCst);
                        n
                    })
                })
            })
            .collect();
        for (n, fiber) in fibers.into_iter().enumerate() {
            assert_eq!(fiber.join().unwrap(), n);
        }
    });
    assert_eq!(most.load(Ordering::SeqCst), 3);
}

/// Workers that cannot have a ring, for want of descriptors, are done without.
#[test]
fn workers_that_cannot_start_are_done_without() {
    isolated("workers_that_cannot_start_are_done_without", || {
        let rt = runtime(3);
        // Those below are open, and whatever else the runtime needs already is.
        let limit = libc::rlimit { rlim_cur: common::fds() as u64 + 3, rlim_max: 1 << 10 };
        // SAFETY: reads the structure.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
        let _fill: Vec<_> = std::iter::from_fn(|| std::fs::File::open("Cargo.toml").ok()).collect();
        let sum = rt.run(|| {
            let fibers: Vec<_> = (0..2_000_u32)
                .map(|n| {
                    ramie::spawn(move || {
                        ramie::yield_now();
                        n
                    })
                })
                .collect();
            fibers.into_iter().map(|fiber| fiber.join().unwrap()).sum::<u32>()
        });
        assert_eq!(sum, 1_999_000);
        // A fiber for such a worker is refused, or runs where it can; it is not forgotten.
        for _ in 0..3 {
            if let Ok(fiber) = rt.run(|| ramie::Builder::new().worker(1).spawn(|| 5)) {
                assert_eq!(rt.run(|| fiber.join().unwrap()), 5);
            }
        }
    });
}

/// `run` leaves nothing behind that keeps `tick` from running fibers.
#[test]
fn tick_after_run() {
    let _watchdog = watch::dog();
    let rt = runtime(1);
    let fiber = rt.run(|| ramie::spawn(|| ramie::sleep(Duration::from_millis(1))));
    eventually("it ends", || {
        rt.tick();
        fiber.is_finished()
    });
}
