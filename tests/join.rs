//! Join handles: waiting for a fiber's end with and without patience, and not waiting for it.

mod common;

use common::{eventually, runtime, watch};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);

#[test]
fn try_join_and_is_finished() {
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let go = Rc::new(Cell::new(false));
        let theirs = Rc::clone(&go);
        let fiber = ramie::spawn_local(move || {
            while !theirs.get() {
                ramie::yield_now();
            }
            7
        });
        ramie::yield_now();
        assert!(!fiber.is_finished());
        let fiber = fiber.try_join().expect_err("it has not ended");
        go.set(true);
        while !fiber.is_finished() {
            ramie::yield_now();
        }
        assert_eq!(fiber.try_join().expect("it has ended").unwrap(), 7);
    });
}

#[test]
fn join_timeout_gives_the_handle_back() {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        runtime(workers).run(|| {
            let fiber = ramie::spawn(|| {
                ramie::park();
                8
            });
            let start = Instant::now();
            let fiber = fiber.join_timeout(20 * MS).expect_err("it is parked");
            assert!(start.elapsed() >= 20 * MS);
            let fiber = fiber.join_timeout(Duration::ZERO).expect_err("it is parked");
            fiber.fiber().unpark();
            let joined = fiber.join_timeout(Duration::MAX).expect("it ends");
            assert_eq!(joined.unwrap(), 8);
        });
    }
}

/// Join handles may be joined wherever they get to.
#[test]
fn handles_are_joined_from_everywhere() {
    let _watchdog = watch::dog();
    let rt = runtime(2);
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let mut sum = 0;
        for fiber in receiver {
            let fiber: ramie::JoinHandle<u32> = fiber;
            sum += match fiber.join_timeout(Duration::from_micros(200)) {
                Ok(result) => result.unwrap(),
                Err(fiber) => fiber.join().unwrap(),
            };
        }
        sum
    });
    rt.run(|| {
        for n in 0..300 {
            let fiber = ramie::spawn(move || {
                ramie::sleep(Duration::from_micros(u64::from(n)));
                n
            });
            sender.send(fiber).unwrap();
        }
        // And by a fiber of another worker.
        let fiber = ramie::spawn(|| 5);
        let other = ramie::Builder::new().worker(1).spawn(move || fiber.join().unwrap()).unwrap();
        assert_eq!(other.join().unwrap(), 5);
        drop(sender);
        // Fibers of this worker only run while it is in `run`.
        eventually("the thread has joined all", || thread.is_finished());
    });
    assert_eq!(thread.join().unwrap(), 300 * 299 / 2);
}

/// Counts its drops, and suspends in each.
struct SlowDrop(Arc<AtomicUsize>);

impl Drop for SlowDrop {
    fn drop(&mut self) {
        ramie::yield_now();
        ramie::sleep(MS);
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

/// A detached fiber runs to its end, and its result is dropped, by a destructor that may suspend.
#[test]
fn detached_fibers_run_and_drop_their_results() {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        let drops = Arc::new(AtomicUsize::new(0));
        let rt = runtime(workers);
        rt.run(|| {
            for n in 0..150 {
                let result = SlowDrop(Arc::clone(&drops));
                let fiber = ramie::spawn(move || {
                    if n % 2 == 0 {
                        ramie::yield_now();
                    }
                    result
                });
                match n % 3 {
                    0 => {}                                         // detached while fresh
                    1 => ramie::yield_now(),                        // while it runs, or after
                    _ => eventually("end", || fiber.is_finished()), // after its end: dropped here
                }
                drop(fiber);
            }
            eventually("all results are dropped", || drops.load(Ordering::SeqCst) == 150);
        });
        eventually("no fiber is left", || rt.metrics().live_fibers == 0);
    }
}

/// The end of a fiber and the loss of its handle, at about the same time, many times.
#[test]
fn detaching_races_with_the_end() {
    let _watchdog = watch::dog();
    let drops = Arc::new(AtomicUsize::new(0));
    let rt = runtime(2);
    let rounds = 3_000;
    rt.run(|| {
        for n in 0..rounds {
            struct Count(Arc<AtomicUsize>);
            impl Drop for Count {
                fn drop(&mut self) {
                    self.0.fetch_add(1, Ordering::SeqCst);
                }
            }
            let running = Arc::new(AtomicBool::new(false));
            let (count, theirs) = (Count(Arc::clone(&drops)), Arc::clone(&running));
            let fiber = ramie::Builder::new()
                .worker(1)
                .spawn(move || {
                    theirs.store(true, Ordering::SeqCst);
                    count
                })
                .unwrap();
            while !running.load(Ordering::SeqCst) {
                std::hint::spin_loop();
            }
            for _ in 0..n % 100 {
                std::hint::spin_loop();
            }
            drop(fiber);
        }
        eventually("all results are dropped", || drops.load(Ordering::SeqCst) == rounds);
    });
    eventually("no fiber is left", || rt.metrics().live_fibers == 0);
}

/// Deep recursion of spawns, each joined by its parent.
#[test]
fn a_deep_chain_of_joins() {
    fn descend(depth: u32) -> u32 {
        if depth == 0 { 0 } else { ramie::spawn(move || descend(depth - 1)).join().unwrap() + 1 }
    }
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        assert_eq!(runtime(workers).run(|| descend(5_000)), 5_000);
    }
}
