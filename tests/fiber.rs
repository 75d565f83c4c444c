//! Spawning, joining, parking, sleeping: what `ramie` shares with `std::thread`, and its extras.
//! Join handles
//! are in `join.rs`, panics in `panics.rs`, cancellation in `cancel.rs`.

mod common;

use common::{eventually, runtime, watch};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);

contract! {
    fn unpark_before_park_is_kept_once() {
        let me = ramie::current();
        me.unpark();
        me.unpark();
        let start = Instant::now();
        ramie::park(); // the token: returns at once
        ramie::park_timeout(30 * MS); // two unparks are one token: this one waits
        assert!(start.elapsed() >= 30 * MS);
    }

    fn park_timeout_takes_the_token_early() {
        let me = ramie::current();
        let other = std::thread::spawn(move || {
            std::thread::sleep(5 * MS);
            me.unpark();
        });
        ramie::park_timeout(Duration::from_secs(3600));
        other.join().unwrap();
        ramie::park_timeout(Duration::ZERO);
        ramie::current().unpark();
        ramie::park_timeout(Duration::MAX);
    }

    fn a_late_unpark_after_a_timeout_is_a_token() {
        let me = ramie::current();
        ramie::park_timeout(MS);
        me.unpark();
        ramie::park();
    }

    fn sleep_sleeps_long_enough() {
        for micros in [0, 1, 50, 1_000, 20_000] {
            let duration = Duration::from_micros(micros);
            let start = Instant::now();
            ramie::sleep(duration);
            assert!(start.elapsed() >= duration, "{duration:?}");
        }
    }

    fn yielding_is_allowed_everywhere() {
        for _ in 0..1_000 {
            ramie::yield_now();
        }
    }

    fn current_is_the_same_one_each_time() {
        let (a, b) = (ramie::current(), ramie::current().clone());
        assert_eq!(a.id(), b.id());
        assert_eq!(format!("{:?}", a.id()), format!("{:?}", b.id()));
        assert_eq!(a.name(), b.name());
        assert!(format!("{a:?}").contains("Fiber"));
    }

    fn unblock_borrows_and_returns() {
        let text = String::from("borrowed");
        let mut seen = 0;
        let length = ramie::unblock(|| {
            seen += 1;
            assert!(!ramie::is_fiber());
            text.len()
        });
        assert_eq!((length, seen), (8, 1));
    }

    fn no_suspend_returns_its_value() {
        assert_eq!(ramie::no_suspend(|| ramie::no_suspend(|| 5)), 5);
        ramie::yield_now(); // and is over
    }

    fn the_stack_is_as_large_as_it_says() {
        fn eat(bytes: usize) -> usize {
            let block = [1_u8; 1024];
            let left = std::hint::black_box(&block).len();
            if bytes <= 1024 { left } else { eat(bytes - 1024) + left }
        }
        match ramie::stack_remaining() {
            None => assert!(!ramie::is_fiber()),
            Some(left) => {
                assert!(ramie::is_fiber());
                assert!(left < 256 << 10 && left > 100 << 10, "{left}");
                // What is said to be left can be used.
                eat(left / 4);
            }
        }
    }
}

#[test]
fn names_and_ids() {
    let _watchdog = watch::dog();
    runtime(2).run(|| {
        let mut ids = HashSet::new();
        ids.insert(ramie::current().id());
        for n in 0..3_000 {
            let fiber = match n % 3 {
                0 => ramie::spawn(|| ramie::current().id()),
                1 => ramie::spawn_local(|| ramie::current().id()),
                _ => ramie::Builder::new()
                    .name(format!("fiber {n}"))
                    .spawn(move || {
                        assert_eq!(ramie::current().name(), Some(&*format!("fiber {n}")));
                        ramie::current().id()
                    })
                    .unwrap(),
            };
            let id = fiber.fiber().id();
            assert_eq!(fiber.join().unwrap(), id);
            assert!(ids.insert(id), "{id:?} twice");
        }
        let unnamed = ramie::spawn(|| ramie::current().name().map(String::from));
        assert_eq!(unnamed.join().unwrap(), None);
    });
}

#[test]
fn ids_are_unique_among_runtimes_and_outside_spawns() {
    let _watchdog = watch::dog();
    let ids = Mutex::new(HashSet::new());
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let rt = runtime(2);
                let outside: Vec<_> =
                    (0..50).map(|_| rt.handle().spawn(|| ramie::current().id()).unwrap()).collect();
                rt.run(|| {
                    for fiber in outside
                        .into_iter()
                        .chain((0..50).map(|_| ramie::spawn(|| ramie::current().id())))
                    {
                        let id = fiber.join().unwrap();
                        assert!(ids.lock().unwrap().insert(id), "{id:?} twice");
                    }
                });
            });
        }
    });
    assert_eq!(ids.into_inner().unwrap().len(), 300);
}

/// Fibers of one worker take turns when they yield: none gets far ahead.
#[test]
fn yields_are_fair() {
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let turns: Rc<[Cell<u32>; 10]> = Rc::default();
        let most_ahead = Rc::new(Cell::new(0));
        let started = Rc::new(Cell::new(0));
        let fibers: Vec<_> = (0..10)
            .map(|me| {
                let (turns, ahead) = (Rc::clone(&turns), Rc::clone(&most_ahead));
                let started = Rc::clone(&started);
                ramie::spawn_local(move || {
                    started.set(started.get() + 1);
                    while started.get() < 10 {
                        ramie::yield_now();
                    }
                    for _ in 0..200 {
                        turns[me].set(turns[me].get() + 1);
                        let least = turns.iter().map(Cell::get).min().unwrap();
                        ahead.set(ahead.get().max(turns[me].get() - least));
                        ramie::yield_now();
                    }
                })
            })
            .collect();
        for fiber in fibers {
            fiber.join().unwrap();
        }
        assert!(most_ahead.get() <= 3, "one was {} turns ahead", most_ahead.get());
    });
}

/// Two fibers that wake each other all the time do not keep a third from running.
#[test]
fn a_pair_that_wakes_each_other_starves_nobody() {
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let done = Rc::new(Cell::new(false));
        let other: Rc<RefCell<Option<ramie::JoinHandle<()>>>> = Rc::default();
        let me = ramie::current();
        let ping_done = Rc::clone(&done);
        let ping = ramie::spawn_local(move || {
            while !ping_done.get() {
                me.unpark();
                ramie::park();
            }
            me.unpark();
        });
        let ping_fiber = ping.fiber().clone();
        *other.borrow_mut() = Some(ping);
        let third_done = Rc::clone(&done);
        let third = ramie::spawn_local(move || {
            for _ in 0..10 {
                ramie::yield_now();
            }
            third_done.set(true);
        });
        while !done.get() {
            ping_fiber.unpark();
            ramie::park();
        }
        ping_fiber.unpark();
        third.join().unwrap();
        other.take().unwrap().join().unwrap();
    });
}

#[test]
fn spawn_local_stays_here_and_needs_no_send() {
    let _watchdog = watch::dog();
    runtime(4).run(|| {
        let here = std::thread::current().id();
        let shared = Rc::new(Cell::new(0));
        let fibers: Vec<_> = (0..100)
            .map(|_| {
                let shared = Rc::clone(&shared);
                ramie::spawn_local(move || {
                    for _ in 0..10 {
                        assert_eq!(std::thread::current().id(), here);
                        shared.set(shared.get() + 1);
                        ramie::yield_now();
                    }
                    Rc::clone(&shared) // a result that is not Send, either
                })
            })
            .collect();
        for fiber in fibers {
            assert!(Rc::ptr_eq(&fiber.join().unwrap(), &shared));
        }
        assert_eq!(shared.get(), 1_000);
        assert_eq!(Rc::strong_count(&shared), 1);
        let builder = ramie::Builder::new().name("local".into());
        let local = builder.spawn_local(|| std::thread::current().id()).unwrap();
        assert_eq!(local.join().unwrap(), here);
    });
}

/// Whatever a fiber does, it wakes up on the thread it started on.
#[test]
fn started_fibers_never_change_threads() {
    let _watchdog = watch::dog();
    let path = common::TempDir::new();
    let file = path.path().join("f");
    std::fs::write(&file, vec![1; 10_000]).unwrap();
    runtime(4).run(|| {
        let fibers: Vec<_> = (0..200)
            .map(|n: u64| {
                let file = file.clone();
                ramie::spawn(move || {
                    let home = std::thread::current().id();
                    let step = |what: &str| {
                        assert_eq!(std::thread::current().id(), home, "after {what}");
                    };
                    for round in 0..5 {
                        ramie::yield_now();
                        step("a yield");
                        ramie::sleep(Duration::from_micros(n * 10));
                        step("a sleep");
                        assert_eq!(ramie::fs::read(&file).unwrap().len(), 10_000);
                        step("reading a file");
                        let me = ramie::current();
                        let child = ramie::spawn(move || me.unpark());
                        ramie::park();
                        step("a park");
                        child.join().unwrap();
                        step("a join");
                        ramie::unblock(|| assert_ne!(std::thread::current().id(), home));
                        step("a job on the pool");
                        assert!(round < 5);
                    }
                    home
                })
            })
            .collect();
        for fiber in fibers {
            fiber.join().unwrap();
        }
    });
}

#[test]
fn a_fiber_of_a_worker_runs_there() {
    let _watchdog = watch::dog();
    let rt = ramie::Runtime::builder().workers(3).thread_name("pinned").build().unwrap();
    rt.run(|| {
        let main = std::thread::current().id();
        let threads: Vec<_> = (0..3)
            .map(|worker| {
                let ids: HashSet<_> = (0..50)
                    .map(|_| {
                        let builder = ramie::Builder::new().worker(worker);
                        builder.spawn(|| {
                            let before = std::thread::current().id();
                            ramie::sleep(Duration::from_micros(100));
                            assert_eq!(std::thread::current().id(), before);
                            before
                        })
                    })
                    .collect::<Vec<_>>()
                    .into_iter()
                    .map(|fiber| fiber.unwrap().join().unwrap())
                    .collect();
                assert_eq!(ids.len(), 1, "worker {worker} is one thread");
                ids.into_iter().next().unwrap()
            })
            .collect();
        assert_eq!(threads[0], main);
        assert_eq!(threads.iter().collect::<HashSet<_>>().len(), 3);
        // From another worker back to this one.
        let back = ramie::Builder::new().worker(2).spawn(move || {
            let builder = ramie::Builder::new().worker(0);
            builder.spawn(|| std::thread::current().id()).unwrap().join().unwrap()
        });
        assert_eq!(back.unwrap().join().unwrap(), main);
    });
}

#[repr(align(4096))]
struct Aligned<const N: usize>([u8; N]);

/// Closures and results of all sizes and alignments arrive unharmed.
#[test]
fn closures_and_results_of_any_size() {
    fn check<const N: usize>() {
        let bytes: [u8; N] = std::array::from_fn(|n| (n * 31 + N) as u8);
        let on_stack = Aligned(bytes);
        let fiber = ramie::spawn(move || {
            assert_eq!((&raw const on_stack).addr() % 4096, 0);
            ramie::yield_now();
            (on_stack, bytes)
        });
        let (aligned, plain) = fiber.join().unwrap();
        assert_eq!((&raw const aligned).addr() % 4096, 0);
        assert_eq!((aligned.0, plain), (bytes, bytes));
        // A large result of a small closure, dropped unseen.
        drop(ramie::spawn(|| Aligned([7; N])));
        // A large closure that is spawned by another thread.
        let fiber = ramie::spawn_local(move || bytes.iter().map(|&b| u32::from(b)).sum::<u32>());
        assert_eq!(fiber.join().unwrap(), bytes.iter().map(|&b| u32::from(b)).sum());
    }
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        let rt = ramie::Runtime::builder().workers(workers).stack_size(1 << 20).build().unwrap();
        rt.run(|| {
            check::<0>();
            check::<1>();
            check::<63>();
            check::<511>();
            check::<512>();
            check::<513>();
            check::<4095>();
            check::<20_000>();
        });
    }
}

#[test]
fn zero_sized_and_empty() {
    let _watchdog = watch::dog();
    runtime(2).run(|| {
        ramie::spawn(|| ()).join().unwrap();
        let fibers: Vec<_> = (0..1000).map(|_| ramie::spawn(|| ())).collect();
        assert!(fibers.into_iter().all(|fiber| fiber.join().is_ok()));
    });
}

#[test]
fn builder_errors() {
    let _watchdog = watch::dog();
    let outside = ramie::Builder::new().spawn(|| ()).unwrap_err();
    assert!(outside.to_string().contains("outside of a runtime"), "{outside}");
    let outside = ramie::Builder::new().spawn_local(|| ()).unwrap_err();
    assert!(outside.to_string().contains("outside of a runtime"), "{outside}");
    runtime(2).run(|| {
        let kind = |result: std::io::Result<ramie::JoinHandle<()>>| result.unwrap_err().kind();
        let wrong = std::io::ErrorKind::InvalidInput;
        assert_eq!(kind(ramie::Builder::new().worker(2).spawn(|| ())), wrong);
        assert_eq!(kind(ramie::Builder::new().worker(usize::MAX).spawn(|| ())), wrong);
        assert_eq!(kind(ramie::Builder::new().worker(1).spawn_local(|| ())), wrong);
        assert!(ramie::Builder::new().stack_size(usize::MAX).spawn(|| ()).is_err());
        assert!(ramie::Builder::new().stack_size(1 << 40).spawn_local(|| ()).is_err());
        for bytes in [0, 1, 16 << 10, 100_000, 8 << 20] {
            let builder = ramie::Builder::new().stack_size(bytes);
            let left = builder.spawn(ramie::stack_remaining).unwrap().join().unwrap().unwrap();
            assert!(left > 4096 && left < bytes.next_power_of_two().max(16 << 10), "{left}");
        }
    });
}

#[test]
fn spawning_outside_of_a_runtime_panics() {
    for spawn in [|| drop(ramie::spawn(|| ())), || drop(ramie::spawn_local(|| ()))] {
        let panic = std::panic::catch_unwind(spawn).unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.contains("outside of a runtime"), "{text}");
    }
}

#[test]
fn no_suspend_panics_on_every_suspension() {
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let other = ramie::spawn(|| ());
        type Call = (&'static str, Box<dyn FnOnce()>);
        let calls: [Call; 7] = [
            ("yield", Box::new(ramie::yield_now)),
            ("sleep", Box::new(|| ramie::sleep(MS))),
            ("park", Box::new(ramie::park)),
            ("park_timeout", Box::new(|| ramie::park_timeout(MS))),
            ("file", Box::new(|| drop(ramie::fs::read("Cargo.toml")))),
            ("unblock", Box::new(|| ramie::unblock(|| ()))),
            ("join", Box::new(move || other.join().unwrap())),
        ];
        for (name, call) in calls {
            let call = std::panic::AssertUnwindSafe(|| ramie::no_suspend(call));
            let panic = std::panic::catch_unwind(call);
            let panic = panic.expect_err(name);
            let text = panic.downcast_ref::<&str>().unwrap();
            assert!(text.contains("no_suspend"), "{name}: {text}");
        }
        // What does not suspend is allowed.
        ramie::no_suspend(|| {
            ramie::current().unpark();
            drop(ramie::spawn(|| ()));
        });
        ramie::sleep(MS);
    });
}

/// Unparks from plain threads, other workers and the same worker; as many as arrive, none is lost.
#[test]
fn unparks_from_everywhere() {
    let _watchdog = watch::dog();
    for workers in [1, 2, 3] {
        let rt = runtime(workers);
        rt.run(|| {
            let rounds = 2_000;
            let turn = Arc::new(AtomicU32::new(0));
            let (me, theirs) = (ramie::current(), Arc::clone(&turn));
            let thread = std::thread::spawn(move || {
                for round in 0..rounds {
                    while theirs.load(Ordering::SeqCst) != 2 * round {
                        std::thread::park_timeout(MS);
                    }
                    theirs.store(2 * round + 1, Ordering::SeqCst);
                    me.unpark();
                }
            });
            for round in 0..rounds {
                while turn.load(Ordering::SeqCst) != 2 * round + 1 {
                    ramie::park();
                }
                turn.store(2 * round + 2, Ordering::SeqCst);
                thread.thread().unpark();
            }
            eventually("the thread ends", || thread.is_finished());
            thread.join().unwrap();
        });
    }
}

/// A handle outlives its fiber, and may be used.
#[test]
fn handles_to_ended_fibers() {
    let _watchdog = watch::dog();
    let rt = runtime(2);
    let kept = rt.run(|| {
        let fiber = ramie::Builder::new().name("kept".into()).spawn(ramie::current).unwrap();
        fiber.join().unwrap()
    });
    kept.unpark();
    assert_eq!(kept.name(), Some("kept"));
    drop(rt);
    kept.unpark();
    assert_eq!(kept.clone().name(), Some("kept"));
    std::thread::spawn(move || drop(kept)).join().unwrap();
}
