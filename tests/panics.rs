//! Panics of fibers: they reach `join`, they harm nobody else, and nothing suspends while a thread
//! unwinds.

mod common;

use common::process::child_with;
use common::{child, eventually, runtime, watch};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

#[test]
fn payloads_reach_join() {
    #[derive(Debug, PartialEq)]
    struct Custom([u64; 100]);

    let _watchdog = watch::dog();
    for workers in [1, 2] {
        let rt = runtime(workers);
        rt.run(|| {
            let text = ramie::spawn(|| panic!("plain")).join().unwrap_err();
            assert_eq!(text.downcast_ref::<&str>(), Some(&"plain"));
            let text =
                ramie::spawn(|| panic!("number {}", std::hint::black_box(5))).join().unwrap_err();
            assert_eq!(text.downcast_ref::<String>().unwrap(), "number 5");
            let custom = ramie::spawn(|| panic_any(Custom([3; 100]))).join().unwrap_err();
            assert_eq!(*custom.downcast::<Custom>().unwrap(), Custom([3; 100]));
            let local = ramie::spawn_local(|| panic!("local")).join().unwrap_err();
            assert_eq!(local.downcast_ref::<&str>(), Some(&"local"));
            let late = ramie::spawn(|| {
                ramie::sleep(MS);
                panic!("late")
            });
            assert!(late.join().is_err());
        });
        eventually("all are counted", || rt.metrics().panicked_fibers == 5);
    }
}

#[test]
fn a_panic_of_the_main_fiber_goes_on_in_the_caller() {
    let _watchdog = watch::dog();
    let rt = runtime(2);
    for _ in 0..3 {
        let panic = catch_unwind(AssertUnwindSafe(|| {
            rt.run(|| {
                ramie::yield_now();
                panic!("main")
            })
        }));
        assert_eq!(panic.unwrap_err().downcast_ref::<&str>(), Some(&"main"));
    }
    assert_eq!(rt.run(|| 5), 5, "and the runtime is as good as before");
}

struct PanicsInDrop;

impl Drop for PanicsInDrop {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("in drop");
        }
    }
}

/// A payload whose drop panics does so where the payload is dropped: at the joiner.
#[test]
fn a_payload_that_panics_in_drop() {
    let _watchdog = watch::dog();
    runtime(2).run(|| {
        let payload = ramie::spawn(|| panic_any(PanicsInDrop)).join().unwrap_err();
        let panic = catch_unwind(AssertUnwindSafe(|| drop(payload))).unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"in drop"));
        ramie::spawn(|| ()).join().unwrap();
    });
}

/// If nobody takes such a payload (or such a result), the process ends, as std's does for a thread.
#[test]
fn a_detached_result_that_panics_in_drop_aborts() {
    let name = "a_detached_result_that_panics_in_drop_aborts";
    let output = child(name, || {
        runtime(1).run(|| {
            drop(ramie::spawn(|| PanicsInDrop));
            ramie::sleep(100 * MS);
        });
        println!("survived");
    });
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("fiber result panicked on drop"), "{error}");
}

/// Other fibers of the thread neither see the panic nor lose their locks to it.
#[test]
fn other_fibers_are_not_poisoned() {
    let _watchdog = watch::dog();
    let rt = runtime(1);
    rt.run(|| {
        let mutexes: Arc<Vec<Mutex<u32>>> = Arc::new((0..50).map(Mutex::new).collect());
        let holders: Vec<_> = (0..50)
            .map(|n| {
                let mutexes = Arc::clone(&mutexes);
                ramie::spawn_local(move || {
                    let mut guard = mutexes[n].lock().unwrap();
                    for _ in 0..20 {
                        assert!(!std::thread::panicking());
                        *guard += 1;
                        ramie::yield_now();
                        ramie::sleep(Duration::from_micros(100));
                    }
                })
            })
            .collect();
        let panickers: Vec<_> = (0..200)
            .map(|n| {
                ramie::spawn_local(move || {
                    /// Suspends, or would like to, while its fiber unwinds.
                    struct Guard;
                    impl Drop for Guard {
                        fn drop(&mut self) {
                            assert!(std::thread::panicking());
                            ramie::yield_now();
                            ramie::sleep(Duration::from_micros(50));
                            ramie::park_timeout(Duration::from_micros(50));
                            ramie::fs::read("Cargo.toml").unwrap();
                            assert_eq!(ramie::unblock(|| 5), 5);
                        }
                    }
                    let _guard = Guard;
                    if n % 2 == 0 {
                        ramie::yield_now();
                    }
                    panic!("{n}");
                })
            })
            .collect();
        for (n, fiber) in panickers.into_iter().enumerate() {
            let text = fiber.join().unwrap_err();
            assert_eq!(text.downcast_ref::<String>().unwrap(), &n.to_string());
        }
        for fiber in holders {
            fiber.join().expect("no holder panics");
        }
        for (n, mutex) in mutexes.iter().enumerate() {
            assert_eq!(*mutex.lock().expect("not poisoned"), n as u32 + 20);
        }
    });
}

/// While one fiber unwinds, and waits in a destructor, no other fiber of the thread runs.
#[test]
fn nothing_runs_while_the_thread_unwinds() {
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let unwinding = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(AtomicUsize::new(0));
        let (theirs, counter) = (Arc::clone(&unwinding), Arc::clone(&seen));
        let watcher = ramie::spawn_local(move || {
            for _ in 0..200 {
                counter.fetch_add(usize::from(theirs.load(Ordering::SeqCst)), Ordering::SeqCst);
                assert!(!std::thread::panicking());
                ramie::yield_now();
            }
        });
        struct Slow(Arc<AtomicBool>);
        impl Drop for Slow {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
                ramie::sleep(10 * MS);
                ramie::yield_now();
                self.0.store(false, Ordering::SeqCst);
            }
        }
        let slow = Slow(unwinding);
        let panicker = ramie::spawn_local(move || {
            let _slow = slow;
            ramie::yield_now();
            panic!("unwinds slowly");
        });
        assert!(panicker.join().is_err());
        watcher.join().unwrap();
        assert_eq!(seen.load(Ordering::SeqCst), 0);
    });
}

/// A token that arrives while the fiber unwinds ends its park.
#[test]
fn parking_while_unwinding() {
    let _watchdog = watch::dog();
    runtime(2).run(|| {
        struct Parks;
        impl Drop for Parks {
            fn drop(&mut self) {
                ramie::park();
            }
        }
        let fiber = ramie::Builder::new()
            .worker(1)
            .spawn(|| {
                let _parks = Parks;
                panic!("parks");
            })
            .unwrap();
        ramie::sleep(10 * MS);
        assert!(!fiber.is_finished());
        fiber.fiber().unpark();
        assert!(fiber.join().is_err());
    });
}

/// A panic that is caught within the fiber is the fiber's own business, whatever it does between.
#[test]
fn caught_panics() {
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let fibers: Vec<_> = (0..100)
            .map(|n| {
                ramie::spawn_local(move || {
                    for round in 0..5 {
                        let caught = catch_unwind(|| {
                            ramie::yield_now();
                            panic_any((n, round));
                        });
                        ramie::yield_now();
                        assert_eq!(
                            *caught.unwrap_err().downcast::<(i32, i32)>().unwrap(),
                            (n, round)
                        );
                        assert!(!std::thread::panicking());
                    }
                })
            })
            .collect();
        for fiber in fibers {
            fiber.join().unwrap();
        }
    });
}

/// A panic on the blocking pool goes on in the fiber that waits for it.
#[test]
fn panics_on_the_pool() {
    let _watchdog = watch::dog();
    runtime(2).run(|| {
        for n in 0..10 {
            let panic = catch_unwind(|| ramie::unblock(|| panic_any(n))).unwrap_err();
            assert_eq!(*panic.downcast::<i32>().unwrap(), n);
        }
        assert_eq!(ramie::unblock(|| 5), 5);
    });
}

/// A runtime that is dropped by a panic of its thread must not run fibers there: the thread
/// unwinds, so they could not suspend, and would poison what they hold.
#[test]
fn a_runtime_dropped_by_a_panic() {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        let saw_panic = Arc::new(AtomicBool::new(false));
        let (reader, _writer) = std::io::pipe().unwrap();
        let (theirs, others) = (Arc::clone(&saw_panic), Arc::clone(&saw_panic));
        let caught = catch_unwind(AssertUnwindSafe(move || {
            let rt = runtime(workers);
            rt.run(|| {
                drop(ramie::spawn_local(move || {
                    use std::io::Read;
                    let mut file = ramie::fs::File::from(std::os::fd::OwnedFd::from(reader));
                    // The first read is cancelled; a second one would block a thread that unwinds.
                    while file.read(&mut [0]).is_err() {
                        theirs.fetch_or(std::thread::panicking(), Ordering::SeqCst);
                    }
                }));
                drop(ramie::spawn_local(move || {
                    ramie::sleep(Duration::from_secs(3600));
                    others.fetch_or(std::thread::panicking(), Ordering::SeqCst);
                }));
                ramie::sleep(5 * MS);
                panic!("the main fiber");
            })
        }));
        assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"the main fiber"));
        assert!(!saw_panic.load(Ordering::SeqCst));
    }
}

#[inline(never)]
fn recurse(depth: usize) -> usize {
    let mut frame = [depth as u8; 512];
    std::hint::black_box(&mut frame);
    if depth == usize::MAX { 0 } else { recurse(depth + 1) + frame[depth % 512] as usize }
}

/// An overflow ends the process and names the fiber, on every worker.
#[test]
fn a_stack_overflow_names_the_fiber() {
    use std::os::unix::process::ExitStatusExt;
    for worker in [0, 1] {
        let name = "a_stack_overflow_names_the_fiber";
        let variable = ("RAMIE_TEST_WORKER", &*worker.to_string());
        let output = child_with(name, &[variable], || {
            let worker = std::env::var("RAMIE_TEST_WORKER").unwrap().parse().unwrap();
            runtime(2).run(|| {
                let builder = ramie::Builder::new().name("deep thought".into()).worker(worker);
                let fiber = builder.spawn(|| recurse(0)).unwrap();
                println!("survived {:?}", fiber.join());
            });
        });
        assert_eq!(output.status.signal(), Some(libc::SIGABRT), "{output:?}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains("\nfiber 'deep thought' has overflowed its stack\n"), "{error}");
        assert!(!String::from_utf8_lossy(&output.stdout).contains("survived"), "{output:?}");
    }
}
