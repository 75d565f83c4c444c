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
