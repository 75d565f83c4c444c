//! What once went wrong in the scheduler, or could have.

use ramie::Runtime;
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// Runs `body` on a thread of its own and fails if it takes longer than ten seconds.
fn in_time(body: impl FnOnce() + Send + 'static) {
    let (done, wait) = mpsc::channel();
    let thread = thread::spawn(move || {
        body();
        _ = done.send(());
    });
    match wait.recv_timeout(Duration::from_secs(10)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
        _ => thread.join().unwrap(),
    }
}

/// A runtime's only worker is woken for every fiber from outside, not just for the first.
#[test]
fn one_worker_is_woken_again_and_again() {
    in_time(|| {
        let rt = Runtime::builder().workers(1).build().unwrap();
        let handle = rt.handle();
        let stop = Arc::new(AtomicBool::new(false));
        let (tell, main) = mpsc::channel::<ramie::Fiber>();
        let stopped = Arc::clone(&stop);
        let giver = thread::spawn(move || {
            let main = main.recv().unwrap();
            for n in 0..5 {
                thread::sleep(Duration::from_millis(5)); // the worker sleeps by now
                let fiber = handle.spawn(move || n).unwrap();
                assert_eq!(fiber.join().unwrap(), n);
            }
            stopped.store(true, Ordering::SeqCst);
            main.unpark();
        });
        rt.run(|| {
            tell.send(ramie::current()).unwrap();
            while !stop.load(Ordering::SeqCst) {
                ramie::park();
            }
        });
        giver.join().unwrap();
    });
}

/// A runtime may move between two calls of `run` while fibers wait.
#[test]
fn a_runtime_moves_while_fibers_wait() {
    in_time(|| {
        let mut rt = Runtime::builder().workers(1).build().unwrap();
        let fiber = rt.run(|| {
            let fiber = ramie::spawn(|| ramie::park_timeout(Duration::from_secs(3600)));
            ramie::yield_now();
            ramie::yield_now();
            fiber
        });
        // Another runtime now lies where this one was.
        let mut other = Runtime::builder().workers(1).build().unwrap();
        std::mem::swap(&mut rt, &mut other);
        let rt = other;
        rt.run(|| {
            fiber.fiber().unpark();
            fiber.join().unwrap();
        });
    });
}

/// Fibers from outside run although the worker is never idle.
#[test]
fn outside_fibers_run_on_a_busy_worker() {
    in_time(|| {
        let rt = Runtime::builder().workers(1).build().unwrap();
        let handle = rt.handle();
        let stop = Arc::new(AtomicBool::new(false));
        rt.run(|| {
            let theirs = Arc::clone(&stop);
            thread::spawn(move || {
                handle.spawn(move || theirs.store(true, Ordering::SeqCst)).unwrap();
            });
            while !stop.load(Ordering::SeqCst) {
                ramie::yield_now();
            }
        });
    });
}

struct Here(ThreadId, Arc<AtomicU32>);

impl Drop for Here {
    fn drop(&mut self) {
        // 1: dropped where it was made; 2: somewhere else.
        let place = if thread::current().id() == self.0 { 1 } else { 2 };
        self.1.fetch_max(place, Ordering::SeqCst);
    }
}

ramie::fiber_local! {
    static LATE: RefCell<Option<Here>> = RefCell::new(None);
}

/// A fiber-local value that is made while the fiber's unwanted result is dropped never leaves the
/// fiber's thread.
#[test]
fn late_fiber_locals_stay_at_home() {
    struct Result(Arc<AtomicU32>);
    impl Drop for Result {
        fn drop(&mut self) {
            LATE.set(Some(Here(thread::current().id(), Arc::clone(&self.0))));
        }
    }
    let dropped = Arc::new(AtomicU32::new(0));
    let rt = Runtime::builder().workers(1).build().unwrap();
    let handle = rt.run(|| {
        let theirs = Arc::clone(&dropped);
        let fiber = ramie::spawn(move || {
            let result = Result(theirs);
            ramie::yield_now();
            ramie::yield_now();
            (result, ramie::current())
        });
        let copy = fiber.fiber().clone();
        drop(fiber); // detached: the fiber drops its result itself
        for _ in 0..10 {
            ramie::yield_now();
        }
        copy
    });
    thread::spawn(move || drop(handle)).join().unwrap();
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
}

/// Dropping a runtime while the thread unwinds does not run fibers, which could only block there.
#[test]
fn a_panic_drops_the_runtime_without_blocking() {
    in_time(|| {
        let (reader, _writer) = std::io::pipe().unwrap();
        let caught = std::panic::catch_unwind(|| {
            let rt = Runtime::builder().workers(1).build().unwrap();
            rt.run(|| {
                ramie::spawn(move || {
                    use std::io::Read;
                    let mut file = ramie::fs::File::from(std::os::fd::OwnedFd::from(reader));
                    let mut byte = [0];
                    while file.read(&mut byte).is_err() {}
                });
                ramie::sleep(Duration::from_millis(1));
                panic!("on purpose");
            });
        });
        assert!(caught.is_err());
    });
}

/// A worker that was woken to search, or was to look around now and then, but has got work of its
/// own, passes that duty on: the others are not left asleep.
#[test]
fn a_busy_worker_does_not_count_as_looking() {
    fn spin(until: impl Fn() -> bool) {
        while !until() {
            std::hint::spin_loop();
        }
    }
    in_time(|| {
        let rt = Runtime::builder().workers(4).build().unwrap();
        rt.run(|| {
            for round in 0..20 {
                // A fiber on worker 1 that computes as soon as it is unparked.
                let stop = Arc::new(AtomicBool::new(false));
                let running = Arc::new(AtomicBool::new(false));
                let theirs = (Arc::clone(&stop), Arc::clone(&running));
                let cruncher = ramie::Builder::new()
                    .worker(1)
                    .spawn(move || {
                        ramie::park();
                        theirs.1.store(true, Ordering::SeqCst);
                        spin(|| theirs.0.load(Ordering::SeqCst));
                    })
                    .unwrap();
                // Worker 1 goes to sleep while this one runs: as sentry, if there is none.
                let start = Instant::now();
                spin(|| start.elapsed() > Duration::from_millis(3));
                cruncher.fiber().unpark();
                spin(|| running.load(Ordering::SeqCst));
                // A lone fiber: its spawner computes too. Somebody must come for it.
                let done = Arc::new(AtomicBool::new(false));
                let lone = Arc::clone(&done);
                let lone = ramie::spawn(move || lone.store(true, Ordering::SeqCst));
                let start = Instant::now();
                spin(|| done.load(Ordering::SeqCst) || start.elapsed() > Duration::from_secs(2));
                assert!(done.load(Ordering::SeqCst), "forgotten in round {round}");
                stop.store(true, Ordering::SeqCst);
                lone.join().unwrap();
                cruncher.join().unwrap();
            }
        });
    });
}

/// Runtimes that follow each other closely use the same words to sleep on; a wait that the former
/// one left in the kernel must not swallow the wake-up of the next.
#[test]
fn runtimes_in_quick_succession_lose_no_wake_up() {
    in_time(|| {
        for _ in 0..100 {
            let rt = Runtime::builder().workers(1).build().unwrap();
            rt.run(|| {
                ramie::sleep(Duration::from_micros(10));
                let me = ramie::current();
                let flag = Arc::new(AtomicBool::new(false));
                let theirs = Arc::clone(&flag);
                let waker = thread::spawn(move || {
                    thread::sleep(Duration::from_micros(100));
                    theirs.store(true, Ordering::SeqCst);
                    me.unpark();
                });
                while !flag.load(Ordering::SeqCst) {
                    ramie::park();
                }
                waker.join().unwrap();
            });
        }
    });
}

/// A fiber that is handed to a runtime as it shuts down either is refused or runs.
#[test]
fn what_comes_in_during_the_shutdown_is_refused_or_runs() {
    in_time(|| {
        for _ in 0..50 {
            let rt = Runtime::builder().workers(1).build().unwrap();
            let handle = rt.handle();
            let (tell, wait) = mpsc::channel();
            let giver = thread::spawn(move || {
                tell.send(()).unwrap();
                let mut fibers = Vec::new();
                while let Ok(fiber) = handle.spawn(|| ()) {
                    fibers.push(fiber);
                }
                for fiber in fibers {
                    fiber.join().unwrap();
                }
            });
            wait.recv().unwrap();
            drop(rt);
            giver.join().unwrap();
        }
    });
}

/// A cancel request is not lost on a fiber that is just about to start.
#[test]
fn a_cancel_request_meets_the_start() {
    let rt = Runtime::builder().workers(2).build().unwrap();
    rt.run(|| {
        for n in 0..2000_u32 {
            let started = Arc::new(AtomicBool::new(false));
            let theirs = Arc::clone(&started);
            let fiber = ramie::spawn(move || {
                theirs.store(true, Ordering::SeqCst);
                let start = Instant::now();
                ramie::sleep(Duration::from_secs(5));
                start.elapsed()
            });
            let rounds = Cell::new(n % 64);
            while rounds.replace(rounds.get().saturating_sub(1)) != 0 {
                std::hint::spin_loop();
            }
            fiber.cancel();
            assert!(fiber.join().unwrap() < Duration::from_secs(1), "round {n}");
        }
    });
}

/// Small fibers are left to their owner for as long as it gets through them, and no longer: here it
/// computes until others have run them.
#[test]
fn what_a_busy_owner_leaves_is_taken() {
    in_time(|| {
        for spin_us in [0, 20] {
            let spin = Duration::from_micros(spin_us);
            let rt = Runtime::builder().workers(2).spin(spin).build().unwrap();
            rt.run(|| {
                for _ in 0..100 {
                    let small: Vec<_> = (0..100).map(|n| ramie::spawn(move || n)).collect();
                    small.into_iter().for_each(|fiber| _ = fiber.join().unwrap());
                    let ran = Arc::new(AtomicUsize::new(0));
                    let left: Vec<_> = (0..20)
                        .map(|_| {
                            let ran = Arc::clone(&ran);
                            ramie::spawn(move || ran.fetch_add(1, Ordering::SeqCst))
                        })
                        .collect();
                    while ran.load(Ordering::SeqCst) < 20 {
                        std::hint::spin_loop();
                    }
                    left.into_iter().for_each(|fiber| _ = fiber.join().unwrap());
                }
            });
        }
    });
}

/// The longest search there is neither overflows nor holds up the end of the runtime.
#[test]
fn a_worker_may_look_around_for_ever() {
    in_time(|| {
        let rt = Runtime::builder().workers(3).spin(Duration::MAX).build().unwrap();
        let sum: u32 = rt.run(|| {
            let fibers: Vec<_> = (0..100).map(|n| ramie::spawn(move || n)).collect();
            fibers.into_iter().map(|fiber| fiber.join().unwrap()).sum()
        });
        assert_eq!(sum, 4950);
    });
}

/// After many batches of small fibers, for which nobody need be woken, two fibers whose spawner
/// computes are still taken by the other worker.
#[test]
fn what_follows_small_batches_is_taken() {
    in_time(|| {
        let rt = Runtime::builder().workers(2).build().unwrap();
        for round in 0..5 {
            rt.run(|| {
                for _ in 0..200 {
                    let small: Vec<_> = (0..10).map(|nth| ramie::spawn(move || nth)).collect();
                    assert_eq!(small.into_iter().map(|job| job.join().unwrap()).sum::<i32>(), 45);
                }
                let here = thread::current().id();
                let started = Arc::new(AtomicUsize::new(0));
                let spawn = |_| {
                    let started = Arc::clone(&started);
                    ramie::spawn(move || {
                        started.fetch_add(1, Ordering::SeqCst);
                        thread::current().id()
                    })
                };
                let both = [0, 1].map(spawn);
                while started.load(Ordering::SeqCst) != 2 {
                    std::hint::spin_loop();
                }
                for job in both {
                    assert_ne!(job.join().unwrap(), here, "round {round}: the spawner ran on");
                }
            });
        }
    });
}
