//! `join`: both halves run, in one place or in two, whatever else happens.

mod common;

use common::rng::Rng;
use common::scopes::{on_one_and_two, pipe, text};
use common::{eventually, isolated, runtime, watch};
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

fn fib(n: u32) -> u64 {
    if n < 2 {
        return u64::from(n);
    }
    let (a, b) = ramie::join(|| fib(n - 1), || fib(n - 2));
    a + b
}

contract! {
    fn results_and_borrows() {
        let words = [String::from("one"), String::from("three")];
        let (one, three) = ramie::join(|| words[0].len(), || words[1].as_str());
        assert_eq!((one, three), (3, "three"));
        let (mut x, mut y) = (1, [0_u64; 200]);
        ramie::join(|| x += 1, || y = [7; 200]);
        assert_eq!((x, y), (2, [7; 200]));
        let moved = words;
        let ((), moved) = ramie::join(|| (), move || moved);
        assert_eq!(moved.len(), 2);
    }

    fn recursion() {
        assert_eq!(fib(20), 6765);
    }

    /// Every half runs and is dropped exactly once; the panic of `a` goes before that of `b`.
    fn panics() {
        struct Once<'a>(&'a AtomicUsize, &'a AtomicUsize);
        impl Once<'_> {
            fn run(self, suspends: bool, panics: Option<u32>) {
                if suspends {
                    ramie::yield_now();
                }
                self.0.fetch_add(1, SeqCst);
                if let Some(number) = panics {
                    panic_any(number);
                }
            }
        }
        impl Drop for Once<'_> {
            fn drop(&mut self) {
                self.1.fetch_add(1, SeqCst);
            }
        }
        for case in 0..16 {
            let (ran, dropped) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let (a, b) = (Once(&ran, &dropped), Once(&ran, &dropped));
            let panic = |bit: u32| (case & bit != 0).then_some(bit);
            let result = catch_unwind(AssertUnwindSafe(|| {
                ramie::join(
                    || a.run(case & 4 != 0, panic(1)),
                    || b.run(case & 8 != 0, panic(2)),
                )
            }));
            assert_eq!((ran.into_inner(), dropped.into_inner()), (2, 2), "case {case}");
            let number = result.err().map(|panic| *panic.downcast::<u32>().unwrap());
            let expected = [None, Some(1), Some(2), Some(1)][case as usize & 3];
            assert_eq!(number, expected, "case {case}");
        }
    }

    /// Joins and scopes, inside of each other.
    fn nested_results_are_dropped_when_the_other_half_panics() {
        struct Result<'a>(&'a AtomicUsize);
        impl Drop for Result<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, SeqCst);
            }
        }
        let drops = AtomicUsize::new(0);
        for suspends in [false, true] {
            let half = |panics: bool| {
                let drops = &drops;
                move || {
                    let result = Result(drops);
                    if suspends {
                        ramie::yield_now();
                    }
                    assert!(!panics, "deliberate");
                    result
                }
            };
            assert!(catch_unwind(|| ramie::join(half(true), half(false))).is_err());
            assert!(catch_unwind(|| ramie::join(half(false), half(true))).is_err());
            drop(ramie::join(half(false), half(false)));
        }
        assert_eq!(drops.into_inner(), 12);
    }
}

/// Operations of both halves are under way at the same time: each needs what the other writes.
#[test]
fn both_halves_wait_at_the_same_time() {
    fn talk(depth: u32) -> u64 {
        let ((mut from_b, mut to_a), (mut from_a, mut to_b)) = (pipe(), pipe());
        let (a, b) = ramie::join(
            || {
                let mut byte = [0];
                from_b.read_exact(&mut byte).unwrap();
                to_b.write_all(&[byte[0] + 1]).unwrap();
                let more = if depth == 0 { 0 } else { talk(depth - 1) };
                u64::from(byte[0]) + more
            },
            || {
                let mut byte = [0];
                to_a.write_all(&[5]).unwrap();
                from_a.read_exact(&mut byte).unwrap();
                let more = if depth == 0 { 0 } else { talk(depth - 1) };
                u64::from(byte[0]) + more
            },
        );
        a + b
    }
    on_one_and_two(|_| {
        assert_eq!(talk(0), 11);
        assert_eq!(talk(5), 11 * 63);
        // Deep in joins that were begun before.
        fn deep(n: u32) -> u64 {
            if n == 0 { talk(1) } else { ramie::join(|| deep(n - 1), || 1).0 }
        }
        assert_eq!(deep(30), 33);
        // Wide: all the sleeps at once.
        fn naps(n: u32) -> u32 {
            if n == 0 {
                ramie::sleep(20 * MS);
                return 1;
            }
            let (a, b) = ramie::join(|| naps(n - 1), || naps(n - 1));
            a + b
        }
        let start = std::time::Instant::now();
        assert_eq!(naps(9), 512);
        assert!(start.elapsed() < 512 * 20 * MS, "{:?}", start.elapsed());
    });
}

/// Halves that never suspend run on all workers there are: each waits for all others to be there,
/// and joins meanwhile, as what computes for long does. (A half is shared at a join, or at the
/// owner's next one.)
///
/// It hung once, with two workers computing and the third asleep: the sentry had left its post to
/// sleep while another worker got up and left it a fiber.
#[test]
fn idle_workers_take_part() {
    fn meet(n: u32, arrived: &AtomicUsize, all: usize) {
        if n > 1 {
            let half = n / 2;
            ramie::join(|| meet(half, arrived, all), || meet(n - half, arrived, all));
            return;
        }
        arrived.fetch_add(1, SeqCst);
        while arrived.load(SeqCst) < all {
            ramie::join(|| (), || ());
            std::thread::yield_now();
        }
    }
    fn one_by_one(n: u32, arrived: &AtomicUsize, all: usize) {
        if n > 1 {
            // The short half is the one that is left for others.
            ramie::join(|| one_by_one(n - 1, arrived, all), || meet(1, arrived, all));
        } else {
            meet(1, arrived, all);
        }
    }
    let _watchdog = watch::dog();
    for workers in [2_u32, 3, 4] {
        let rt = runtime(workers as usize);
        for _ in 0..20 {
            let arrived = AtomicUsize::new(0);
            // Until the others have nothing to do.
            rt.run(|| ramie::sleep(2 * MS));
            rt.run(|| meet(workers, &arrived, workers as usize));
            let arrived = AtomicUsize::new(0);
            rt.run(|| ramie::sleep(2 * MS));
            rt.run(|| one_by_one(workers, &arrived, workers as usize));
        }
        eventually("no fiber is left", || rt.tick() == 0 && rt.metrics().live_fibers == 0);
    }
}

/// Where nothing may suspend, the second half comes after the first.
#[test]
fn where_nothing_suspends() {
    struct AtDrop<'a>(&'a AtomicUsize);
    impl Drop for AtDrop<'_> {
        fn drop(&mut self) {
            assert_eq!(fib(12), 144);
            let (a, b) = ramie::join(|| ramie::sleep(MS), || 5);
            let panic = catch_unwind(|| ramie::join(|| panic_any(1), || ()));
            assert!(panic.is_err());
            self.0.store(b, SeqCst);
            a
        }
    }
    on_one_and_two(|_| {
        let seen = AtomicUsize::new(0);
        let panic = catch_unwind(AssertUnwindSafe(|| {
            ramie::join(
                || {
                    let _at_drop = AtDrop(&seen);
                    panic!("outer");
                },
                || fib(10),
            )
        }));
        assert_eq!(text(panic.unwrap_err()), "outer");
        assert_eq!(seen.load(SeqCst), 5);
        let (a, b) = ramie::join(|| ramie::no_suspend(|| fib(15)), || fib(15));
        assert_eq!((a, b), (610, 610));
        let panic = catch_unwind(|| ramie::no_suspend(|| ramie::join(ramie::yield_now, || ())));
        assert!(panic.is_err());
    });
}

/// The fiber leaves for all kinds of reasons while joins are open, and others join meanwhile.
#[test]
fn fibers_take_turns() {
    fn turns(n: u32) -> u64 {
        if n < 2 {
            match n {
                0 => ramie::yield_now(),
                _ => ramie::sleep(Duration::from_micros(10)),
            }
            return u64::from(n);
        }
        let (a, b) = ramie::join(|| turns(n - 1), || turns(n - 2));
        a + b
    }
    on_one_and_two(|_| {
        ramie::scope(|s| {
            let fibers: Vec<_> = (0..20).map(|n| s.spawn(move || turns(n % 12))).collect();
            for (n, fiber) in fibers.into_iter().enumerate() {
                let expected = [0, 1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89][n % 12];
                assert_eq!(fiber.join().unwrap(), expected);
            }
        });
    });
}

#[test]
fn a_cancel_request_is_passed_on() {
    on_one_and_two(|_| {
        let parent = ramie::spawn(|| {
            let ((mut one, _to_one), (mut other, _to_other)) = (pipe(), pipe());
            let read = |from: &mut ramie::fs::File| -> io::Result<()> { from.read_exact(&mut [0]) };
            // The request comes when the fiber waits for the second half, which is asked as well.
            let begun = AtomicBool::new(false);
            let (a, b) = ramie::join(
                || {
                    eventually("the other half has begun", || begun.load(SeqCst));
                    5
                },
                || {
                    begun.store(true, SeqCst);
                    read(&mut other).unwrap_err()
                },
            );
            assert!(ramie::is_cancelled(&b));
            (a, read(&mut one).unwrap_err())
        });
        ramie::sleep(20 * MS);
        parent.cancel();
        let (a, b) = parent.join().unwrap();
        assert!(a == 5 && ramie::is_cancelled(&b));
    });
}

/// A second half that never ends keeps the frame it lies in.
#[test]
fn a_leaked_half_keeps_the_frame() {
    static LEFT: AtomicBool = AtomicBool::new(false);
    struct Frame;
    impl Drop for Frame {
        fn drop(&mut self) {
            LEFT.store(true, SeqCst);
        }
    }
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        for panics in [false, true] {
            let rt = runtime(workers);
            let parent = rt.handle().spawn(move || {
                let _frame = Frame;
                let begun = AtomicBool::new(false);
                ramie::join(
                    || {
                        eventually("the other half has begun", || begun.load(SeqCst));
                        assert!(!panics, "waits as well");
                    },
                    || {
                        begun.store(true, SeqCst);
                        loop {
                            ramie::park();
                        }
                    },
                )
            });
            rt.run(|| ramie::sleep(5 * MS));
            assert_eq!(rt.shutdown_timeout(Duration::from_secs(20)), 2);
            assert!(parent.unwrap().join().is_err(), "it will never end");
            assert!(!LEFT.load(SeqCst), "the frame is still borrowed");
        }
    }
}

/// Small joins beside fibers that are spawned: what is taken back is one's own.
#[test]
fn spawns_in_between() {
    on_one_and_two(|_| {
        for round in 0..300_u64 {
            let (a, b) = ramie::join(
                || {
                    let fiber = ramie::spawn(move || round);
                    let other = ramie::spawn(move || round + 1);
                    if round % 3 == 0 {
                        ramie::yield_now();
                    }
                    drop(other);
                    let detached = ramie::spawn(|| ());
                    drop(detached);
                    fiber
                },
                || round * 2,
            );
            assert_eq!((a.join().unwrap(), b), (round, round * 2));
        }
    });
}

struct Deliberate;

/// A tree of joins in which anything happens. Returns its size.
fn tree(seed: u64, depth: u32, count: &AtomicUsize) -> u64 {
    let mut rng = Rng(seed);
    let borrowed = [seed; 4];
    count.fetch_add(1, SeqCst);
    let act = |rng: &mut Rng| match rng.below(12) {
        0 => ramie::yield_now(),
        1 => ramie::sleep(Duration::from_micros(rng.below(100))),
        2 => _ = ramie::fs::metadata("Cargo.toml").unwrap(),
        3 => _ = ramie::spawn(ramie::yield_now),
        4 => ramie::scope(|s| _ = s.spawn(ramie::yield_now)),
        5 if rng.below(6) == 0 => panic_any(Deliberate),
        _ => {}
    };
    act(&mut rng);
    if depth == 0 {
        return 1;
    }
    let (left, right) = (rng.below(u64::MAX), rng.below(u64::MAX));
    let mut join = || {
        ramie::join(
            || {
                let size = tree(left, depth - 1, count);
                assert_eq!(borrowed, [seed; 4]);
                size
            },
            || {
                let size = tree(right, depth - 1, count);
                assert_eq!(borrowed, [seed; 4]);
                size
            },
        )
    };
    let size = if rng.below(4) == 0 {
        // Caught half way up, or not.
        match catch_unwind(AssertUnwindSafe(&mut join)) {
            Ok((a, b)) => a + b,
            Err(panic) => {
                assert!(panic.is::<Deliberate>());
                0
            }
        }
    } else {
        let (a, b) = join();
        a + b
    };
    act(&mut rng);
    size + 1
}

#[test]
fn stress() {
    isolated("stress", || {
        std::panic::set_hook(Box::new(|panic| {
            if !panic.payload().is::<Deliberate>() {
                eprintln!("{panic}");
            }
        }));
        let mut rng = Rng::from_env();
        for _ in 0..40 {
            let rt = runtime(1 + rng.below(3) as usize);
            for _ in 0..10 {
                let count = AtomicUsize::new(0);
                let (seed, depth) = (rng.below(u64::MAX), 1 + rng.below(9) as u32);
                let result = catch_unwind(AssertUnwindSafe(|| {
                    rt.run(|| {
                        ramie::scope(|s| {
                            let beside =
                                s.spawn(|| catch_unwind(|| tree(!seed, depth / 2, &count)));
                            let size = catch_unwind(|| tree(seed, depth, &count));
                            (size.is_ok(), beside.join().unwrap().is_ok())
                        })
                    })
                }));
                assert!(result.is_ok());
                assert!(count.load(SeqCst) >= 2);
            }
            eventually("no fiber is left", || rt.tick() == 0 && rt.metrics().live_fibers == 0);
        }
    });
}
