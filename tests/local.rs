//! `fiber_local!`: a value of its own for every fiber, and for every plain thread.

mod common;

use common::{eventually, runtime, watch};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;
use std::time::Duration;

ramie::fiber_local! {
    /// Documented, public, constant.
    pub static COUNT: Cell<u32> = const { Cell::new(3) };
    static NAME: RefCell<String> = RefCell::new(String::from("nobody"));
    static LAZY: u32 = {
        COUNT.set(COUNT.get() + 1);
        COUNT.get()
    };
}

contract! {
    fn values_are_made_on_first_use_and_kept() {
        assert_eq!(COUNT.get(), 3);
        COUNT.set(5);
        assert_eq!(LAZY.with(|value| *value), 6);
        assert_eq!(LAZY.with(|value| *value), 6);
        assert_eq!(COUNT.replace(9), 6);
        assert_eq!(COUNT.take(), 9);
        assert_eq!(COUNT.get(), 0);
    }

    fn cells_have_shortcuts() {
        NAME.with_borrow(|name| assert_eq!(name, "nobody"));
        NAME.with_borrow_mut(|name| name.push('!'));
        assert_eq!(NAME.replace("me".into()), "nobody!");
        assert_eq!(NAME.take(), "me");
        NAME.set("you".into());
        NAME.with_borrow(|name| assert_eq!(name, "you"));
        assert!(NAME.try_with(|_| ()).is_ok());
        assert!(format!("{NAME:?}").contains("LocalKey"));
    }

    fn addresses_do_not_change() {
        let address = NAME.with(|name| (name as *const RefCell<String>).addr());
        COUNT.set(1);
        LAZY.with(|_| ());
        ramie::yield_now();
        NAME.with(|name| {
            assert_eq!((name as *const RefCell<String>).addr(), address);
            ramie::sleep(Duration::from_millis(1));
            assert_eq!(*name.borrow(), "nobody");
        });
    }

    fn an_initialiser_may_use_its_own_key() {
        ramie::fiber_local! {
            static FIRST: Cell<bool> = Cell::new(true);
            static SELF: String = if FIRST.replace(false) {
                SELF.with(|inner| format!("<{inner}>"))
            } else {
                "inner".into()
            };
        }
        // The one that was made first stays.
        SELF.with(|value| assert_eq!(value, "inner"));
    }

    /// In which order is not said; but the first to go sees the other one, and itself no more.
    fn destructors_run_at_the_end_and_see_what_is_left() {
        type Log = Arc<Mutex<Vec<(bool, bool)>>>;
        struct Left(Log);
        struct Right(Log);
        impl Drop for Left {
            fn drop(&mut self) {
                ramie::yield_now();
                let seen = (LEFT.try_with(|_| ()).is_ok(), RIGHT.try_with(|_| ()).is_ok());
                self.0.lock().unwrap().push(seen);
            }
        }
        impl Drop for Right {
            fn drop(&mut self) {
                ramie::yield_now();
                let seen = (RIGHT.try_with(|_| ()).is_ok(), LEFT.try_with(|_| ()).is_ok());
                self.0.lock().unwrap().push(seen);
            }
        }
        ramie::fiber_local! {
            static LOG: Cell<Option<Log>> = Cell::new(None);
            static LEFT: Left = Left(log());
            static RIGHT: Right = Right(log());
        }
        fn log() -> Log {
            let log = LOG.take().unwrap_or_default();
            LOG.set(Some(Arc::clone(&log)));
            log
        }
        let body = || {
            LEFT.with(|_| ());
            RIGHT.with(|_| log())
        };
        let log = if ramie::is_fiber() {
            ramie::spawn(body).join().unwrap()
        } else {
            std::thread::spawn(body).join().unwrap()
        };
        assert_eq!(*log.lock().unwrap(), [(false, true), (false, false)]);
    }
}

#[test]
fn every_fiber_has_its_own() {
    let _watchdog = watch::dog();
    runtime(2).run(|| {
        COUNT.set(100);
        let fibers: Vec<_> = (0..100)
            .map(|n| {
                ramie::spawn(move || {
                    assert_eq!(COUNT.get(), 3);
                    COUNT.set(n);
                    NAME.with_borrow_mut(|name| *name = n.to_string());
                    for _ in 0..5 {
                        ramie::yield_now();
                        assert_eq!(COUNT.get(), n);
                        NAME.with_borrow(|name| assert_eq!(name, &n.to_string()));
                    }
                })
            })
            .collect();
        for fiber in fibers {
            fiber.join().unwrap();
        }
        assert_eq!(COUNT.get(), 100);
    });
    assert_eq!(COUNT.get(), 3, "the thread's own");
}

/// Values are dropped once, before `join` returns, on the fiber, where they may suspend.
#[test]
fn destructors_run_on_the_fiber() {
    struct Counted(Arc<AtomicUsize>, #[expect(dead_code, reason = "not Send")] Rc<()>);
    impl Drop for Counted {
        fn drop(&mut self) {
            assert!(ramie::is_fiber());
            ramie::sleep(Duration::from_micros(200));
            ramie::fs::metadata("Cargo.toml").unwrap();
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    ramie::fiber_local! {
        static KEPT: RefCell<Option<Counted>> = RefCell::new(None);
    }
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        let drops = Arc::new(AtomicUsize::new(0));
        let rt = runtime(workers);
        rt.run(|| {
            for n in 1..=20 {
                let theirs = Arc::clone(&drops);
                let fiber = ramie::spawn(move || {
                    KEPT.set(Some(Counted(theirs, Rc::new(()))));
                    assert!(n % 2 == 0, "every other one panics");
                });
                assert_eq!(fiber.join().is_ok(), n % 2 == 0);
                assert_eq!(drops.load(Ordering::SeqCst), n);
            }
            for _ in 0..20 {
                let theirs = Arc::clone(&drops);
                drop(ramie::spawn(move || KEPT.set(Some(Counted(theirs, Rc::new(()))))));
            }
            eventually("detached ones, too", || drops.load(Ordering::SeqCst) == 40);
        });
    }
}

/// A value made by another's destructor is dropped, too; one whose destructor has begun stays away.
#[test]
fn values_made_by_destructors() {
    static LOG: Mutex<Vec<&str>> = Mutex::new(Vec::new());
    struct First;
    impl Drop for First {
        fn drop(&mut self) {
            LOG.lock().unwrap().push("first");
            assert!(FIRST.try_with(|_| ()).is_err());
            let error = FIRST.try_with(|_| ()).unwrap_err();
            assert!(error.to_string().contains("destroyed"));
            SECOND.with(|_| ());
        }
    }
    struct Second;
    impl Drop for Second {
        fn drop(&mut self) {
            LOG.lock().unwrap().push("second");
        }
    }
    ramie::fiber_local! {
        static FIRST: First = First;
        static SECOND: Second = Second;
    }
    let _watchdog = watch::dog();
    runtime(1).run(|| ramie::spawn(|| FIRST.with(|_| ())).join().unwrap());
    assert_eq!(*LOG.lock().unwrap(), ["first", "second"]);
}

/// `with` in a destructor that comes too late is a panic, which reaches `join`.
#[test]
fn with_after_destruction_panics() {
    struct Late;
    impl Drop for Late {
        fn drop(&mut self) {
            LATE.with(|_| ());
        }
    }
    ramie::fiber_local! {
        static LATE: Late = Late;
    }
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let panic = ramie::spawn(|| LATE.with(|_| ())).join().unwrap_err();
        let text = panic.downcast_ref::<String>().unwrap();
        assert!(text.contains("destruction"), "{text}");
    });
}

/// Values need not be `Send`: each is dropped on the thread that made it, even if the destructor of
/// another one panics, and even if the fiber's result makes it when it is dropped.
#[test]
fn values_are_dropped_on_their_thread() {
    static WRONG: AtomicUsize = AtomicUsize::new(0);
    static RIGHT: AtomicUsize = AtomicUsize::new(0);
    struct Bound(ThreadId);
    impl Bound {
        fn new() -> Self {
            Self(std::thread::current().id())
        }
    }
    impl Drop for Bound {
        fn drop(&mut self) {
            let right = std::thread::current().id() == self.0 && ramie::is_fiber();
            if right { &RIGHT } else { &WRONG }.fetch_add(1, Ordering::SeqCst);
        }
    }
    struct Panics;
    impl Drop for Panics {
        fn drop(&mut self) {
            panic!("in a fiber-local's destructor");
        }
    }
    ramie::fiber_local! {
        static BOUND_1: Bound = Bound::new();
        static PANICS: Panics = Panics;
        static BOUND_2: Bound = Bound::new();
        static BOUND_3: Bound = Bound::new();
    }
    /// A result that uses a fiber-local value when it is dropped.
    struct Uses;
    impl Drop for Uses {
        fn drop(&mut self) {
            BOUND_3.with(|_| ());
        }
    }
    let _watchdog = watch::dog();
    let rt = runtime(2);
    rt.run(|| {
        for _ in 0..10 {
            let builder = ramie::Builder::new().worker(1);
            let fiber = builder.spawn(|| {
                BOUND_1.with(|_| ());
                PANICS.with(|_| ());
                BOUND_2.with(|_| ());
            });
            assert!(fiber.unwrap().join().is_err(), "the destructor's panic reaches join");
        }
        assert_eq!((RIGHT.load(Ordering::SeqCst), WRONG.load(Ordering::SeqCst)), (20, 0));
        for _ in 0..10 {
            // The handle keeps the fiber's header beyond its end, and is dropped here. It must be
            // detached before it ends: else its result is dropped here, too.
            let detached = Arc::new(AtomicBool::new(false));
            let theirs = Arc::clone(&detached);
            let builder = ramie::Builder::new().worker(1);
            let fiber = builder.spawn(move || {
                while !theirs.load(Ordering::SeqCst) {
                    ramie::sleep(Duration::from_millis(1));
                }
                Uses
            });
            let fiber = fiber.unwrap();
            let kept = fiber.fiber().clone();
            drop(fiber);
            detached.store(true, Ordering::SeqCst);
            ramie::sleep(Duration::from_millis(4));
            drop(kept);
        }
        eventually("all are dropped", || {
            RIGHT.load(Ordering::SeqCst) + WRONG.load(Ordering::SeqCst) == 30
        });
        assert_eq!((RIGHT.load(Ordering::SeqCst), WRONG.load(Ordering::SeqCst)), (30, 0));
    });
}

/// A destructor on a plain thread that comes after the thread's values are gone.
#[test]
fn thread_locals_that_use_fiber_locals() {
    static SEEN: AtomicUsize = AtomicUsize::new(0);
    struct Uses;
    impl Drop for Uses {
        fn drop(&mut self) {
            // Whichever goes first: an answer, and no crash.
            let answer = NAME.try_with(|name| name.borrow().len());
            SEEN.fetch_add(answer.map_or(100, |_| 1), Ordering::SeqCst);
        }
    }
    thread_local! {
        static EARLY: Uses = const { Uses };
        static LATE: Uses = const { Uses };
    }
    let thread = std::thread::spawn(|| {
        EARLY.with(|_| ());
        NAME.set("x".into());
        LATE.with(|_| ());
    });
    thread.join().unwrap();
    assert!(SEEN.load(Ordering::SeqCst) >= 2);
}

// ---- Inheritance --------------------------------------------------------------------------------

ramie::fiber_local! {
    /// Documented, marked, private.
    #[inherit]
    static GIVEN: Cell<u32> = const { Cell::new(1) };
    #[inherit]
    /// The other way round.
    #[allow(unused, reason = "to have another attribute")]
    pub(crate) static TITLE: RefCell<String> = RefCell::new("none".into());
    static OWN: Cell<u32> = Cell::new(2);
}

/// Every way of making a fiber passes on what its maker has, and what it has not made is not there.
#[test]
fn new_fibers_inherit() {
    let _watchdog = watch::dog();
    std::thread::spawn(|| {
        let rt = runtime(2);
        GIVEN.set(10);
        let external = rt.handle().spawn(|| GIVEN.get()).unwrap();
        GIVEN.set(11);
        rt.run(|| {
            assert_eq!(GIVEN.get(), 11, "the main fiber's is a copy of its thread's");
            assert_eq!(external.join().unwrap(), 10, "as it was then");
            GIVEN.set(20);
            OWN.set(20);
            let seen = || (GIVEN.get(), OWN.get(), TITLE.with_borrow(String::clone));
            let expected = (20, 2, String::from("none"));
            let builder = || ramie::Builder::new();
            let fibers = [
                ramie::spawn(seen),
                ramie::spawn_local(seen),
                builder().spawn(seen).unwrap(),
                builder().worker(1).spawn(seen).unwrap(),
                builder().stack_size(1 << 20).spawn(seen).unwrap(),
                builder().spawn_local(seen).unwrap(),
                builder().stack_size(1 << 20).spawn_local(seen).unwrap(),
                ramie::spawn_future(async move { seen() }),
            ];
            // Not even one that has not started yet sees this.
            GIVEN.set(30);
            TITLE.set("late".into());
            for fiber in fibers {
                assert_eq!(fiber.join().unwrap(), expected);
            }
            ramie::scope(|s| {
                let seen = || GIVEN.get();
                assert_eq!(s.spawn(seen).join().unwrap(), 30);
                let child = builder().stack_size(1 << 20).spawn_scoped(s, seen).unwrap();
                assert_eq!(child.join().unwrap(), 30);
            });
            // On its parent's stack, a child is its parent.
            ramie::no_suspend(|| ramie::scope(|s| drop(s.spawn(|| GIVEN.set(GIVEN.get())))));
            let grandchild = ramie::spawn(|| {
                GIVEN.update(|given| given + 1);
                ramie::spawn(|| {
                    TITLE.with_borrow_mut(|title| title.push('!'));
                    (GIVEN.get(), TITLE.take())
                })
                .join()
                .unwrap()
            });
            assert_eq!(grandchild.join().unwrap(), (31, "late!".into()));
            assert_eq!((GIVEN.get(), TITLE.take()), (30, "late".into()));
        });
        assert_eq!(GIVEN.get(), 11);
    })
    .join()
    .unwrap();
}

/// `clone` is foreign code: it may panic, suspend, spawn, and use other values. Nothing is lost.
#[test]
fn adventures_in_clone() {
    static LIVE: AtomicUsize = AtomicUsize::new(0);
    struct Wild(u32);
    impl Wild {
        fn new(depth: u32) -> Self {
            LIVE.fetch_add(1, Ordering::SeqCst);
            Self(depth)
        }
    }
    impl Clone for Wild {
        fn clone(&self) -> Self {
            ramie::yield_now();
            MADE_BY_CLONE.set(self.0);
            assert!(self.0 != 13, "deliberate");
            // A fiber that would inherit the same, and so on.
            if self.0 > 0 && DEPTH.get() < 3 {
                DEPTH.set(DEPTH.get() + 1);
                ramie::spawn(|| ()).join().unwrap();
                DEPTH.set(0);
            }
            Self::new(self.0)
        }
    }
    impl Drop for Wild {
        fn drop(&mut self) {
            LIVE.fetch_sub(1, Ordering::SeqCst);
        }
    }
    ramie::fiber_local! {
        #[inherit]
        static WILD: RefCell<Wild> = RefCell::new(Wild::new(0));
        #[inherit]
        static MADE_BY_CLONE: Cell<u32> = Cell::new(0);
        static DEPTH: Cell<u32> = Cell::new(0);
    }
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        let rt = runtime(workers);
        let handle = rt.handle();
        rt.run(|| {
            WILD.set(Wild::new(1));
            for _ in 0..100 {
                let fiber = ramie::spawn(|| WILD.with_borrow(|wild| wild.0));
                assert_eq!(fiber.join().unwrap(), 1);
            }
            // Never started: refused, since there is no such worker.
            assert!(ramie::Builder::new().worker(9).spawn(|| ()).is_err());
            // Borrowed, so it cannot be cloned; and one whose clone panics.
            let spawn = || drop(ramie::spawn(|| unreachable!()));
            let borrowed = || WILD.with_borrow_mut(|_| spawn());
            assert!(std::panic::catch_unwind(borrowed).is_err());
            WILD.set(Wild::new(13));
            assert!(std::panic::catch_unwind(spawn).is_err());
            WILD.set(Wild::new(0));
            drop(ramie::spawn(|| ramie::sleep(Duration::from_millis(1))));
        });
        eventually("all fibers end", || {
            rt.tick();
            rt.metrics().live_fibers == 0
        });
        drop(rt);
        assert_eq!(LIVE.load(Ordering::SeqCst), 0);
        // Refused by a runtime that is gone.
        std::thread::spawn(move || {
            WILD.set(Wild::new(0));
            assert!(handle.spawn(|| ()).is_err());
            assert_eq!(LIVE.load(Ordering::SeqCst), 1);
        })
        .join()
        .unwrap();
        eventually("the thread's is dropped", || LIVE.load(Ordering::SeqCst) == 0);
    }
}

/// As in std, setting a value that has not been made does not make it first.
#[test]
fn set_runs_no_initialiser() {
    ramie::fiber_local! {
        static CELL: Cell<u32> = panic!("not to be run");
        static REF_CELL: RefCell<u32> = panic!("not to be run");
    }
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        CELL.set(1);
        CELL.update(|value| value + 1);
        CELL.set(CELL.get() + 1);
        REF_CELL.set(4);
        REF_CELL.set(5);
        assert_eq!((CELL.get(), REF_CELL.take()), (3, 5));
        let caught = ramie::spawn(|| CELL.get()).join();
        assert!(caught.is_err());
    });
}
