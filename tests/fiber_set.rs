//! `FiberSet`: results in the order in which the fibers end, requests, and what a drop does.

mod common;

use common::rng::Rng;
use common::scopes::{on_one_and_two, pipe, text};
use common::{eventually, isolated, runtime, watch};
use ramie::FiberSet;
use ramie::sync::Event;
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

fn endless() -> io::Result<()> {
    let (mut reader, _writer) = pipe();
    reader.read_exact(&mut [0])
}

#[test]
fn results_in_order_of_the_ends() {
    on_one_and_two(|workers| {
        let mut set = FiberSet::new();
        assert!(set.is_empty() && set.next().is_none() && set.try_next().is_none());
        // Each ends when its turn comes, which is not the order of the spawns.
        let turns: [Arc<Event>; 3] = Default::default();
        for n in [30, 10, 20] {
            let turn = Arc::clone(&turns[n as usize / 10 - 1]);
            set.spawn(move || {
                turn.wait();
                n
            });
        }
        assert!(set.try_next().is_none());
        turns[0].set();
        assert_eq!((set.len(), set.size_hint()), (3, (3, Some(3))));
        assert_eq!(set.next().unwrap().unwrap(), 10);
        let builder = ramie::Builder::new().name("built".into()).worker(workers - 1);
        let built = || ramie::current().name().map_or(0, str::len) as u32;
        set.spawn_with(builder, built).unwrap();
        set.spawn_local(|| *Rc::new(6));
        assert!(set.spawn_with(ramie::Builder::new().worker(workers), || 1).is_err());
        assert_eq!(set.len(), 4);
        let mut first = [set.next().unwrap().unwrap(), set.next().unwrap().unwrap()];
        first.sort_unstable();
        assert_eq!(first, [5, 6]);
        turns[1].set();
        assert_eq!(set.next().unwrap().unwrap(), 20);
        turns[2].set();
        assert_eq!(set.join_all(), [30]);
    });
}

/// Those that have ended before are there at once, and wait for nobody.
#[test]
fn results_wait_for_their_taker() {
    on_one_and_two(|_| {
        let mut set = FiberSet::default();
        (0..100).for_each(|n| set.spawn(move || n));
        ramie::sleep(5 * MS);
        set.spawn(|| {
            ramie::park();
            100
        });
        let mut early: Vec<i32> = Vec::new();
        eventually("all but the last have ended", || {
            early.extend(std::iter::from_fn(|| set.try_next()).map(Result::unwrap));
            early.len() == 100
        });
        early.sort_unstable();
        assert_eq!(early, (0..100).collect::<Vec<_>>());
        assert_eq!(set.len(), 1);
        set.cancel_all();
        assert_eq!(set.next().unwrap().unwrap(), 100);
        assert!(set.next().is_none());
    });
}

#[test]
fn panics() {
    on_one_and_two(|_| {
        let mut set = FiberSet::new();
        set.spawn(|| panic_any(1));
        assert_eq!(*set.next().unwrap().unwrap_err().downcast::<i32>().unwrap(), 1);
        set.spawn(|| panic_any(2));
        set.spawn(|| endless().unwrap_err());
        let panic = catch_unwind(AssertUnwindSafe(|| set.join_all()));
        assert_eq!(*panic.unwrap_err().downcast::<i32>().unwrap(), 2);
    });
    let _watchdog = watch::dog();
    let panic = catch_unwind(|| FiberSet::new().spawn(|| ())).unwrap_err();
    assert!(text(panic).contains("outside of a runtime"));
}

/// A request is for those that are there, fresh ones too, and not for later ones.
#[test]
fn requests() {
    on_one_and_two(|_| {
        for starts in [false, true] {
            let mut set = FiberSet::new();
            for _ in 0..20 {
                set.spawn(|| ramie::is_cancelled(&endless().unwrap_err()));
            }
            if starts {
                ramie::sleep(2 * MS);
            }
            set.cancel_all();
            set.spawn(|| ramie::fs::metadata("Cargo.toml").is_ok());
            assert_eq!(set.join_all(), [true; 21]);
        }
    });
}

/// A drop asks all to end and waits for nobody; the results are dropped where they are made.
#[test]
fn dropping() {
    struct Result(Arc<AtomicUsize>);
    impl Drop for Result {
        fn drop(&mut self) {
            ramie::yield_now();
            self.0.fetch_add(1, SeqCst);
        }
    }
    on_one_and_two(|_| {
        let drops = Arc::new(AtomicUsize::new(0));
        for starts in [false, true] {
            let mut set = FiberSet::new();
            for n in 0..30 {
                let result = Result(Arc::clone(&drops));
                set.spawn(move || {
                    match n % 3 {
                        0 => ramie::sleep(HOUR),
                        1 => _ = endless(),
                        _ => {}
                    }
                    result
                });
            }
            if starts {
                ramie::sleep(2 * MS);
            }
            drop(set);
        }
        eventually("all have ended", || drops.load(SeqCst) == 60);
    });
}

/// The set is moved to where the results are wanted: another fiber, or a plain thread.
#[test]
fn sets_move() {
    let _watchdog = watch::dog();
    let rt = runtime(2);
    let set = rt.run(|| {
        let mut set = FiberSet::new();
        for n in 1..=100_u64 {
            let builder = ramie::Builder::new().worker(1);
            set.spawn_with(builder, move || {
                ramie::sleep(Duration::from_micros(n * 37 % 100 * 50));
                n
            })
            .unwrap();
        }
        let other = ramie::spawn(move || {
            let sum: u64 = set.by_ref().take(50).map(Result::unwrap).sum();
            (sum, set)
        });
        other.join().unwrap()
    });
    let (sum, rest) = set;
    let rest: u64 = std::thread::spawn(|| rest.join_all()).join().unwrap().iter().sum();
    assert_eq!(sum + rest, 5050);
}

#[test]
fn stress() {
    isolated("stress", || {
        std::panic::set_hook(Box::new(|_| {}));
        let mut rng = Rng::from_env();
        for _ in 0..60 {
            let rt = runtime(1 + rng.below(3) as usize);
            rt.run(|| {
                let mut set = FiberSet::new();
                let (mut sum, mut expected) = (0, 0);
                for _ in 0..rng.below(1000) {
                    match rng.below(8) {
                        0..4 => {
                            let n = rng.below(1000);
                            expected += n;
                            set.spawn(move || {
                                match n % 7 {
                                    0 => ramie::yield_now(),
                                    1 => ramie::sleep(Duration::from_micros(n)),
                                    2 => panic_any(n),
                                    _ => {}
                                }
                                n
                            });
                        }
                        4 => set.cancel_all(),
                        5 => sum += set.try_next().map_or(0, value),
                        _ => sum += set.next().map_or(0, value),
                    }
                }
                fn value(result: std::thread::Result<u64>) -> u64 {
                    result.unwrap_or_else(|panic| *panic.downcast().unwrap())
                }
                sum += set.by_ref().map(value).sum::<u64>();
                assert_eq!((sum, set.len()), (expected, 0));
            });
            eventually("no fiber is left", || rt.tick() == 0 && rt.metrics().live_fibers == 0);
        }
    });
}
