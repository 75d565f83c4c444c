//! `scope` at its edges: outside of a runtime, while unwinding, at a shutdown; what must not leak;
//! and under stress.

mod common;

use common::rng::Rng;
use common::scopes::{on_one_and_two, pipe, text};
use common::{child, eventually, fds, isolated, runtime, watch};
use std::io::{Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::rc::Rc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// On a plain thread a scope is there, but nothing to spawn on, as with `ramie::spawn`.
#[test]
fn outside_of_a_runtime() {
    let _watchdog = watch::dog();
    assert_eq!(ramie::scope(|_| 5), 5);
    let panic = catch_unwind(|| ramie::scope(|s| _ = s.spawn(|| 1))).unwrap_err();
    assert!(text(panic).contains("Scope::spawn was called outside of a runtime"));
    let error = ramie::scope(|s| ramie::Builder::new().spawn_scoped(s, || 1).unwrap_err());
    assert!(error.to_string().contains("outside of a runtime"));
    // Opened outside, used inside: nobody could wait.
    let rt = runtime(1);
    let panic = catch_unwind(AssertUnwindSafe(|| {
        ramie::scope(|s| rt.run(|| _ = s.spawn(|| 1)));
    }));
    assert!(text(panic.unwrap_err()).contains("opened outside of the runtime"));
    let error = ramie::scope(|s| rt.run(|| ramie::Builder::new().spawn_scoped(s, || 1).is_err()));
    assert!(error);
    // A thread beside the fiber whose scope it is.
    rt.run(|| {
        ramie::scope(|s| {
            ramie::unblock(|| {
                let panic = catch_unwind(AssertUnwindSafe(|| _ = s.spawn(|| 1))).unwrap_err();
                assert!(text(panic).contains("outside of a runtime"));
            });
        });
    });
}

/// In a destructor that runs because of a panic nothing suspends; the children run all the same.
#[test]
fn a_scope_while_unwinding() {
    struct AtDrop<'a>(&'a Mutex<Vec<u32>>);
    impl Drop for AtDrop<'_> {
        fn drop(&mut self) {
            assert!(std::thread::panicking());
            let log = self.0;
            let sum = ramie::scope(|s| {
                let fiber = s.spawn(|| {
                    ramie::sleep(MS);
                    log.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(1);
                    // From a child, and in a scope of its own.
                    s.spawn(|| log.lock().unwrap_or_else(|p| p.into_inner()).push(2));
                    ramie::scope(|inner| inner.spawn(|| 20).join().unwrap())
                });
                assert!(fiber.is_finished());
                assert!(s.spawn(|| panic_any(1)).join().is_err());
                let builder = ramie::Builder::new().name("inline".into());
                let named = builder.spawn_scoped(s, || ()).unwrap();
                assert_eq!(named.fiber().name(), Some("inline"));
                let local = s.spawn_local(|| Rc::new(3));
                fiber.join().unwrap() + *local.join().unwrap()
            });
            log.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(sum);
        }
    }
    on_one_and_two(|_| {
        let log = Mutex::new(Vec::new());
        let panic = catch_unwind(AssertUnwindSafe(|| {
            let _at_drop = AtDrop(&log);
            panic!("outer");
        }));
        assert_eq!(text(panic.unwrap_err()), "outer");
        assert_eq!(log.into_inner().unwrap_or_else(|p| p.into_inner()), [1, 2, 23]);
        // And the scope was opened before: its children run when the unwinding is over.
        let ran = AtomicBool::new(false);
        let panic = catch_unwind(AssertUnwindSafe(|| {
            ramie::scope(|s| {
                struct Spawns<F: FnMut()>(F);
                impl<F: FnMut()> Drop for Spawns<F> {
                    fn drop(&mut self) {
                        self.0();
                    }
                }
                let ran = &ran;
                let _spawns = Spawns(|| {
                    s.spawn(move || {
                        ramie::yield_now();
                        assert!(!std::thread::panicking());
                        ran.store(true, SeqCst);
                    });
                });
                panic!("inner");
            })
        }));
        assert_eq!(text(panic.unwrap_err()), "inner");
        assert!(ran.load(SeqCst));
    });
}

#[test]
fn a_scope_in_no_suspend() {
    on_one_and_two(|_| {
        let mut sum = 0;
        ramie::no_suspend(|| {
            ramie::scope(|s| {
                s.spawn(|| sum += 1);
            });
        });
        assert_eq!(sum, 1);
        let panic = catch_unwind(|| {
            ramie::no_suspend(|| ramie::scope(|s| _ = s.spawn(ramie::yield_now)));
        });
        assert_eq!(text(panic.unwrap_err()), "a scoped fiber panicked");
    });
}

/// What a shutdown leaks keeps its parent, and the frame that it borrows from, for ever.
#[test]
fn a_leaked_child_keeps_its_parent() {
    struct Frame(&'static AtomicBool);
    impl Drop for Frame {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
        }
    }
    static LEFT: AtomicBool = AtomicBool::new(false);
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        for fresh in [false, true] {
            let rt = runtime(workers);
            let parent = rt.handle().spawn(move || {
                let _frame = Frame(&LEFT);
                ramie::scope(|s| {
                    let builder = ramie::Builder::new().worker(workers - 1);
                    let child = builder.spawn_scoped(s, || {
                        loop {
                            ramie::park();
                        }
                    });
                    if fresh {
                        std::mem::forget(child);
                        panic!("a panic waits as well");
                    }
                });
            });
            rt.run(|| ramie::sleep(5 * MS));
            assert_eq!(rt.shutdown_timeout(Duration::from_secs(20)), 2);
            let parent = parent.unwrap();
            assert!(parent.join().is_err(), "it will never end");
            assert!(!LEFT.load(SeqCst));
        }
    }
}

/// Operations of children fail at the shutdown, and then parent and children end.
#[test]
fn a_shutdown_ends_scopes() {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        let rt = runtime(workers);
        let parent = rt.handle().spawn(|| {
            let (mut reader, _writer) = pipe();
            ramie::scope(|s| {
                s.spawn(|| assert!(ramie::is_cancelled(&reader.read(&mut [0]).unwrap_err())));
                s.spawn(|| ramie::sleep(Duration::MAX));
            });
            6
        });
        rt.run(|| ramie::sleep(5 * MS));
        assert_eq!(rt.shutdown_timeout(Duration::from_secs(20)), 0);
        assert_eq!(parent.unwrap().join().unwrap(), 6);
    }
}

/// A cancel request does not end a scope's wait, and is reported by the next operation.
#[test]
fn a_scope_cannot_be_cancelled() {
    on_one_and_two(|_| {
        let (mut reader, mut writer) = pipe();
        let parent = ramie::spawn(move || {
            let mut byte = [0];
            ramie::scope(|s| _ = s.spawn(|| reader.read_exact(&mut byte).unwrap()));
            let error = ramie::fs::metadata("Cargo.toml").unwrap_err();
            (byte[0], ramie::is_cancelled(&error))
        });
        ramie::sleep(MS);
        parent.cancel();
        ramie::sleep(MS);
        assert!(!parent.is_finished());
        writer.write_all(&[9]).unwrap();
        assert_eq!(parent.join().unwrap(), (9, true));
    });
}

#[test]
fn a_result_that_panics_when_dropped_aborts() {
    struct Bad;
    impl Drop for Bad {
        fn drop(&mut self) {
            panic!("in drop");
        }
    }
    let name = "a_result_that_panics_when_dropped_aborts";
    let output = child(name, || {
        runtime(1).run(|| ramie::scope(|s| drop(s.spawn(|| Bad))));
    });
    assert!(!output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("fiber result panicked on drop"), "{stderr}");
}

/// Whatever is left over: no descriptor, and no memory that grows.
#[test]
fn scopes_leave_nothing() {
    isolated("scopes_leave_nothing", || {
        let rt = runtime(2);
        let round = || {
            rt.run(|| {
                let payload = vec![1_u8; 1 << 12];
                ramie::scope(|s| {
                    for n in 0..2000 {
                        let payload = &payload;
                        let fiber = s.spawn(move || {
                            assert!(n % 100 != 7);
                            payload.clone()
                        });
                        match n % 3 {
                            _ if n % 100 == 7 => assert!(fiber.join().is_err()),
                            0 => assert_eq!(fiber.join().unwrap().len(), 1 << 12),
                            _ => drop(fiber),
                        }
                    }
                });
            });
            eventually("no fiber is left", || rt.metrics().live_fibers == 0);
        };
        std::panic::set_hook(Box::new(|_| {}));
        (0..5).for_each(|_| round());
        let (before, open) = (common::process::resident(), fds());
        (0..20).for_each(|_| round());
        assert_eq!(fds(), open);
        let grown = common::process::resident().saturating_sub(before);
        assert!(grown < 32 << 20, "grown by {grown} bytes");
    });
}

// ---- Stress ------------------------------------------------------------------------------------

struct Deliberate;

/// A tree of scopes. Returns how many fibers it has; some of them panic, at any point.
fn tree(seed: u64, depth: u32, started: &AtomicUsize, ended: &AtomicUsize) -> u64 {
    struct Count<'a>(&'a AtomicUsize);
    impl Drop for Count<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    started.fetch_add(1, SeqCst);
    let _count = Count(ended);
    let mut rng = Rng(seed);
    let local = rng.below(1000);
    let borrowed = [local; 8];
    let (mine, here) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let result = catch_unwind(AssertUnwindSafe(|| {
        ramie::scope(|s| {
            let mut handles = Vec::new();
            for _ in 0..if depth == 0 { 0 } else { rng.below(5) } {
                let (seed, borrowed) = (rng.below(u64::MAX), &borrowed);
                let (mine, here) = (&mine, &here);
                let fiber = s.spawn(move || {
                    mine.fetch_add(1, SeqCst);
                    let _count = Count(here);
                    let all = tree(seed, depth - 1, started, ended);
                    assert!(borrowed.iter().all(|value| *value == local));
                    if seed % 31 == 0 {
                        panic_any(Deliberate);
                    }
                    all
                });
                match rng.below(4) {
                    0 => drop(fiber),
                    1 => std::mem::forget(fiber),
                    2 => _ = fiber.join(),
                    _ => handles.push(fiber),
                }
                match rng.below(5) {
                    0 => ramie::yield_now(),
                    1 => ramie::sleep(Duration::from_micros(rng.below(200))),
                    _ => {}
                }
            }
            if rng.below(29) == 0 {
                panic_any(Deliberate);
            }
            handles.into_iter().filter_map(|fiber| fiber.join().ok()).sum::<u64>()
        })
    }));
    assert_eq!(mine.load(SeqCst), here.load(SeqCst), "a child has outlived its scope");
    assert!(borrowed.iter().all(|value| *value == local));
    result.map_or(1, |all| all + 1)
}

#[test]
fn stress() {
    isolated("stress", || {
        std::panic::set_hook(Box::new(|panic| {
            if panic.payload().is::<&str>() || panic.payload().is::<String>() {
                let text = panic.to_string();
                if !text.contains("a scoped fiber panicked") {
                    eprintln!("{text}");
                }
            }
        }));
        let mut rng = Rng::from_env();
        for _ in 0..30 {
            let rt = runtime(1 + rng.below(3) as usize);
            let (started, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
            for _ in 0..10 {
                rt.run(|| tree(rng.below(u64::MAX), 6, &started, &ended));
                assert_eq!(started.load(SeqCst), ended.load(SeqCst));
            }
            eventually("no fiber is left", || rt.metrics().live_fibers == 0);
        }
    });
}
