//! The end of a thread, and of the process: thread-local values are destroyed one by one, and no
//! fiber may go on that stands inside the `with` of one that is gone.

mod common;

use common::process::resident;
use common::{child, isolated, runtime, watch};
use ramie::Runtime;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// A value that says whether it is still there, even to those who should not ask any more.
struct Lent(Arc<AtomicBool>);

impl Lent {
    fn new() -> Self {
        Self(Arc::new(AtomicBool::new(true)))
    }

    /// Stays inside `key`'s `with` for ever, suspending now and then; ends the process if the value
    /// is not there any more.
    fn borrow_for_ever(key: &'static std::thread::LocalKey<Lent>, suspend: fn()) {
        key.with(|lent| {
            let there = Arc::clone(&lent.0);
            for _ in 0..1_000_000 {
                suspend();
                if !there.load(Ordering::SeqCst) {
                    eprintln!("a fiber went on inside a value that is gone");
                    std::process::abort();
                }
            }
        });
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// Does something when its thread ends.
struct AtEnd(RefCell<Option<Box<dyn FnOnce()>>>);

impl AtEnd {
    const fn nothing() -> Self {
        Self(RefCell::new(None))
    }

    fn set(&self, what: impl FnOnce() + 'static) {
        *self.0.borrow_mut() = Some(Box::new(what));
    }
}

impl Drop for AtEnd {
    fn drop(&mut self) {
        if let Some(what) = self.0.take() {
            what();
        }
    }
}

// In the order in which each test uses them first; the last is destroyed first.
thread_local! {
    static FIRST: AtEnd = const { AtEnd::nothing() };
    static LENT: Lent = Lent::new();
    static SECOND: AtEnd = const { AtEnd::nothing() };
    static LENT_LATER: Lent = Lent::new();
    static THIRD: AtEnd = const { AtEnd::nothing() };
}

fn pause() {
    ramie::sleep(MS / 10);
}

/// Leaves two fibers suspended, each of which has borrowed a thread-local value.
fn leave_suspended(rt: &Runtime) {
    rt.run(|| {
        drop(ramie::spawn_local(|| Lent::borrow_for_ever(&LENT, pause)));
        drop(ramie::spawn_local(|| Lent::borrow_for_ever(&LENT_LATER, ramie::yield_now)));
        ramie::yield_now();
    });
}

/// Runs `body` on a thread of its own, until all its thread-local values are gone.
fn on_a_thread(body: impl FnOnce() + Send) {
    let _watchdog = watch::dog();
    std::thread::scope(|scope| {
        let thread = scope.spawn(body);
        let id = thread.thread().id();
        thread.join().unwrap_or_else(|_| panic!("{id:?} panicked"));
    });
}

/// The runtime is a thread-local value itself, destroyed before, between or after those borrowed.
#[test]
fn a_runtime_in_a_thread_local() {
    for place in [&FIRST, &SECOND, &THIRD] {
        for workers in [1, 2] {
            on_a_thread(move || {
                FIRST.with(|_| ());
                LENT.with(|_| ());
                SECOND.with(|_| ());
                LENT_LATER.with(|_| ());
                THIRD.with(|_| ());
                let rt = runtime(workers);
                leave_suspended(&rt);
                place.with(|place| place.set(move || drop(rt)));
            });
        }
    }
}

/// The values are made by the fibers, after everything else; so they are the first to go.
#[test]
fn values_newer_than_the_runtime() {
    on_a_thread(|| {
        let (one, two) = (runtime(1), runtime(1));
        FIRST.with(|first| {
            leave_suspended(&one);
            first.set(move || drop((one, two)));
        });
    });
    // Two runtimes by turns, and one that comes in between.
    on_a_thread(|| {
        FIRST.with(|_| ());
        let (one, two) = (runtime(1), runtime(1));
        one.run(|| drop(ramie::spawn_local(|| Lent::borrow_for_ever(&LENT, pause))));
        two.run(|| drop(ramie::spawn_local(|| Lent::borrow_for_ever(&LENT_LATER, pause))));
        for _ in 0..100 {
            one.tick();
            two.tick();
        }
        FIRST.with(|first| first.set(move || drop((one, two))));
    });
}

/// What runs fibers says why it cannot; new runtimes are not affected.
#[test]
fn destructors_run_fibers() {
    static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());
    on_a_thread(|| {
        FIRST.with(|_| ());
        let rt: &'static Runtime = Box::leak(Box::new(runtime(1)));
        leave_suspended(rt);
        FIRST.with(|first| {
            first.set(move || {
                let told = |what: &dyn Fn()| {
                    let panic = catch_unwind(AssertUnwindSafe(what)).expect_err("it panics");
                    TOLD.lock().unwrap().push(*panic.downcast::<String>().unwrap());
                };
                told(&|| rt.run(|| ()));
                told(&|| _ = rt.tick());
                told(&|| rt.run_for(MS));
                assert_eq!(runtime(2).run(|| ramie::spawn(|| 42).join().unwrap()), 42);
            });
        });
    });
    let told = TOLD.lock().unwrap();
    assert_eq!(told.len(), 3);
    assert!(told.iter().all(|text| text.contains("destroys its thread-local values")), "{told:?}");
}

/// A runtime that a destructor has built is no better off once the next value goes.
#[test]
fn a_runtime_built_by_a_destructor() {
    static RAN: AtomicUsize = AtomicUsize::new(0);
    on_a_thread(|| {
        FIRST.with(|_| ());
        LENT.with(|_| ());
        LENT_LATER.with(|_| ());
        THIRD.with(|third| {
            third.set(|| {
                let rt = runtime(1);
                leave_suspended(&rt);
                rt.tick();
                RAN.fetch_add(1, Ordering::SeqCst);
                FIRST.with(|first| first.set(move || drop(rt)));
            });
        });
    });
    assert_eq!(RAN.load(Ordering::SeqCst), 1);
}

/// A destructor that comes before all that is borrowed may still run the fibers.
#[test]
fn a_destructor_in_time() {
    static RAN: AtomicUsize = AtomicUsize::new(0);
    on_a_thread(|| {
        FIRST.with(|_| ());
        let rt = runtime(1);
        leave_suspended(&rt);
        THIRD.with(|third| {
            third.set(move || {
                // It is newer than any marker, if those are laid no more often than needed.
                if catch_unwind(AssertUnwindSafe(|| rt.run(pause))).is_ok() {
                    RAN.fetch_add(1, Ordering::SeqCst);
                }
                FIRST.with(|first| first.set(move || drop(rt)));
            });
        });
    });
    assert!(RAN.load(Ordering::SeqCst) <= 1);
}

/// Nothing is suspended on the thread that ends: the runtime ends as always, and its fibers run.
#[test]
fn without_suspended_fibers() {
    let ran = Arc::new(AtomicUsize::new(0));
    for workers in [1, 2] {
        let theirs = Arc::clone(&ran);
        on_a_thread(move || {
            FIRST.with(|_| ());
            let rt = runtime(workers);
            rt.run(|| drop(ramie::spawn_local(|| LENT.with(|_| pause())).join()));
            for _ in 0..10 {
                let theirs = Arc::clone(&theirs);
                let count = move || theirs.fetch_add(1, Ordering::SeqCst);
                drop(rt.handle().spawn(count).unwrap());
            }
            FIRST.with(|first| first.set(move || drop(rt)));
        });
    }
    assert_eq!(ran.load(Ordering::SeqCst), 20);
}

/// What destructors do that should suspend.
fn suspend_in_many_ways() {
    for _ in 0..5 {
        ramie::yield_now();
        ramie::sleep(MS);
        ramie::park_timeout(MS);
        ramie::fs::metadata("Cargo.toml").unwrap();
        ramie::unblock(|| ());
    }
    if let Ok(rt) = Runtime::builder().workers(1).build() {
        rt.run(|| ramie::spawn_local(pause).join().unwrap());
    }
}

/// `exit` on a fiber destroys the thread's values on the fiber's stack, inside the worker's loop:
/// the others must not go on.
#[test]
fn exit_on_a_fiber_whose_values_suspend() {
    isolated("exit_on_a_fiber_whose_values_suspend", || {
        runtime(1).run(|| {
            for at_end in [&FIRST, &SECOND, &THIRD] {
                // Between them others come and go, and borrow what is newer.
                at_end.with(|at_end| at_end.set(suspend_in_many_ways));
                let lent = if at_end.with(|end| std::ptr::eq(end, FIRST.with(|f| f as *const _))) {
                    &LENT
                } else {
                    &LENT_LATER
                };
                drop(ramie::spawn_local(|| Lent::borrow_for_ever(lent, pause)));
                drop(ramie::spawn_local(|| Lent::borrow_for_ever(lent, ramie::yield_now)));
                ramie::yield_now();
            }
            std::process::exit(0)
        })
    });
}

/// As above, by a fiber of another worker than that of the thread that built the runtime.
#[test]
fn exit_on_a_fiber_of_another_worker() {
    isolated("exit_on_a_fiber_of_another_worker", || {
        runtime(2).run(|| {
            let there = || ramie::Builder::new().worker(1);
            let exit = there().spawn(|| {
                FIRST.with(|first| first.set(suspend_in_many_ways));
                drop(ramie::spawn_local(|| Lent::borrow_for_ever(&LENT, ramie::yield_now)));
                ramie::yield_now();
                std::process::exit(0)
            });
            _ = exit.unwrap().join();
        })
    });
}

/// Two fibers of one thread are in `exit`, the second because the first suspended there. std ends
/// the process at that; what matters is that nothing worse happens before.
#[test]
fn exit_in_an_exit() {
    thread_local! {
        static ENDING: Cell<bool> = const { Cell::new(false) };
    }
    let output = child("exit_in_an_exit", || {
        runtime(1).run(|| {
            FIRST.with(|first| first.set(suspend_in_many_ways));
            drop(ramie::spawn_local(|| Lent::borrow_for_ever(&LENT, ramie::yield_now)));
            drop(ramie::spawn_local(|| {
                while !ENDING.get() {
                    ramie::yield_now();
                }
                std::process::exit(0)
            }));
            ramie::yield_now();
            THIRD.with(|third| {
                third.set(|| {
                    ENDING.set(true);
                    suspend_in_many_ways();
                });
            });
            std::process::exit(0)
        })
    });
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() || text.contains("exit called re-entrantly"), "{text}");
    assert!(!text.contains("went on inside"), "{text}");
}

/// The runtime is a value of the thread that calls `exit` on one of its fibers.
#[test]
fn exit_on_a_fiber_of_a_runtime_in_a_thread_local() {
    thread_local! {
        static HELD: RefCell<Option<Runtime>> = const { RefCell::new(None) };
    }
    isolated("exit_on_a_fiber_of_a_runtime_in_a_thread_local", || {
        FIRST.with(|first| first.set(suspend_in_many_ways));
        HELD.with(|held| {
            *held.borrow_mut() = Some(runtime(1));
            let held = held.borrow();
            held.as_ref().unwrap().run(|| {
                // Nobody has suspended yet.
                std::process::exit(0)
            })
        })
    });
}

/// A loop of one's own around `tick` may go on for ever.
#[test]
fn ticks_cost_no_memory() {
    isolated("ticks_cost_no_memory", || {
        let (one, two) = (runtime(1), runtime(1));
        for rt in [&one, &two] {
            rt.run(|| drop(ramie::spawn_local(|| Lent::borrow_for_ever(&LENT, ramie::yield_now))));
        }
        let mut before = 0;
        for n in 0..200_000 {
            if n == 10_000 {
                before = resident();
            }
            one.tick();
            two.tick();
        }
        let grown = resident().saturating_sub(before);
        assert!(grown < 4 << 20, "memory has grown by {} KiB", grown >> 10);
        std::process::exit(0); // the fibers go on for longer than anybody waits
    });
}
