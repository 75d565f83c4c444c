//! `coro/signal.rs`: every waiter is woken once, and sees what was written before.

use super::{check, must_fail};
use crate::coro::signal::Before;
use crate::coro::{Signal, Waiter};
use loom::sync::Arc;
use loom::sync::atomic::{
    AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use loom::thread;

const FIBER: Waiter = Waiter::Fiber(64);

/// One wait: the frame of the suspended fiber, what the setter writes, how often it was made ready.
struct Scene {
    signal: Signal,
    frame: AtomicUsize,
    data: AtomicUsize,
    woken: AtomicUsize,
}

impl Scene {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            signal: Signal::new(),
            frame: AtomicUsize::new(0),
            data: AtomicUsize::new(0),
            woken: AtomicUsize::new(0),
        })
    }

    fn wake(&self) {
        assert_eq!(self.frame.load(Relaxed), 1, "resumed before it has left its stack");
        self.woken.fetch_add(1, Relaxed);
    }

    fn set(&self) {
        self.data.store(1, Relaxed);
        match self.signal.set() {
            FIBER => self.wake(),
            other => assert_eq!(other, Waiter::None),
        }
    }
}

/// Two threads set; the fiber registers, and its timer or a cancel request takes it out again.
fn wait_with_timer(timer: bool) {
    let scene = Scene::new();
    let setters: Vec<_> = (0..2)
        .map(|_| {
            let scene = Arc::clone(&scene);
            thread::spawn(move || scene.set())
        })
        .collect();
    scene.frame.store(1, Relaxed);
    let registered = scene.signal.register(FIBER);
    if !registered {
        assert_eq!(scene.data.load(Relaxed), 1, "what came before `set` is not visible");
    } else if timer && scene.signal.unregister(FIBER) {
        scene.wake();
    }
    if scene.signal.is_set() {
        assert_eq!(scene.data.load(Relaxed), 1, "what came before `set` is not visible");
    }
    for setter in setters {
        setter.join().unwrap();
    }
    assert_eq!(scene.woken.load(Relaxed), usize::from(registered), "woken once if it waited");
}

#[test]
fn every_waiter_is_woken_once() {
    check(3, || wait_with_timer(false));
}

#[test]
fn set_and_timer_do_not_both_wake() {
    check(3, || wait_with_timer(true));
}

/// Handle and fiber part: exactly one of them disposes of the result.
#[test]
fn ended_or_detached() {
    check(3, || {
        let scene = Scene::new();
        let fiber = {
            let scene = Arc::clone(&scene);
            thread::spawn(move || {
                scene.data.store(1, Relaxed); // the result
                if scene.signal.set() == Waiter::Detached {
                    scene.woken.fetch_add(1, Relaxed);
                }
            })
        };
        if scene.signal.detach() == Before::Set {
            assert_eq!(scene.data.load(Relaxed), 1, "the result is not visible");
            scene.woken.fetch_add(1, Relaxed);
        }
        fiber.join().unwrap();
        assert_eq!(scene.woken.load(Relaxed), 1);
    });
}

/// A waiter that stays until the only setter comes, which another thread is, or the same.
fn wait_to_the_end(elsewhere: bool, register: fn(&Signal) -> bool) {
    let scene = Scene::new();
    let other = {
        let scene = Arc::clone(&scene);
        thread::spawn(move || {
            if elsewhere {
                set_once(&scene);
            } else if scene.signal.is_set() {
                assert_eq!(scene.data.load(Relaxed), 1, "what came before `set` is not visible");
            }
        })
    };
    scene.frame.store(1, Relaxed);
    let registered = register(&scene.signal);
    if !elsewhere {
        set_once(&scene);
    } else if !registered {
        assert_eq!(scene.data.load(Relaxed), 1, "what came before `set` is not visible");
    }
    other.join().unwrap();
    assert!(scene.signal.is_set(), "a wake-up is lost");
    let woken = scene.woken.load(Relaxed);
    assert_eq!(woken, usize::from(registered), "a wake-up is lost");
}

fn set_once(scene: &Scene) {
    scene.data.store(1, Relaxed);
    match scene.signal.set_once() {
        FIBER => scene.wake(),
        other => assert_eq!(other, Waiter::None),
    }
}

#[test]
fn a_waiter_that_stays_is_woken_once() {
    check(3, || wait_to_the_end(true, |signal| signal.register_to_stay(64)));
}

#[test]
fn one_thread_needs_no_lock() {
    check(3, || wait_to_the_end(false, |signal| signal.register_here(64)));
}

/// The promise of `register_here` broken: another thread sets.
#[test]
fn canary_here_is_elsewhere() {
    must_fail(3, "", || wait_to_the_end(true, |signal| signal.register_here(64)));
}

/// The only setter looks, then sets without a locked instruction, while a timer takes the waiter
/// out: fine on one thread, as in `set_here`, and not on two.
#[test]
fn canary_set_here_elsewhere() {
    must_fail(2, "woken once", || {
        let scene = Scene::new();
        scene.signal.register_first(FIBER);
        let other = Arc::clone(&scene);
        let setter = thread::spawn(move || {
            if other.signal.set_here(|_| true).is_some() {
                other.woken.fetch_add(1, Relaxed);
            }
        });
        if scene.signal.unregister(FIBER) {
            scene.woken.fetch_add(1, Relaxed);
        }
        setter.join().unwrap();
        assert_eq!(scene.woken.load(Relaxed), 1, "woken once");
    });
}

/// The promise of `set_once` broken: two threads set.
#[test]
fn canary_set_once_is_done_twice() {
    must_fail(3, "", || {
        let scene = Scene::new();
        scene.frame.store(1, Relaxed);
        assert!(scene.signal.register_to_stay(64));
        let other = {
            let scene = Arc::clone(&scene);
            thread::spawn(move || set_once(&scene))
        };
        set_once(&scene);
        other.join().unwrap();
        assert_eq!(scene.woken.load(Relaxed), 1, "woken twice");
    });
}

/// What a parked fiber and those who unpark it share.
struct Park<T> {
    token: T,
    run: AtomicUsize,
    flags: [AtomicUsize; 2],
}

trait Token: Send + Sync + 'static {
    fn new() -> Self;
    fn take(&self) -> bool;
    fn register(&self) -> bool;
    fn set(&self) -> bool;
}

impl Token for Signal {
    fn new() -> Self {
        Signal::new()
    }
    fn take(&self) -> bool {
        self.take()
    }
    fn register(&self) -> bool {
        self.register(FIBER)
    }
    fn set(&self) -> bool {
        self.set() == FIBER
    }
}

/// The loop that `park` is made for: two conditions, each announced by an `unpark`.
fn park_until_all_is_done<T: Token>() {
    let park = Arc::new(Park {
        token: T::new(),
        run: AtomicUsize::new(0),
        flags: [AtomicUsize::new(0), AtomicUsize::new(0)],
    });
    let spawn = |index: usize| {
        let park = Arc::clone(&park);
        thread::spawn(move || {
            park.flags[index].store(1, Relaxed);
            if park.token.set() {
                park.run.fetch_add(1, Release);
            }
        })
    };
    let mut setters = vec![spawn(0), spawn(1)];
    while park.flags.iter().any(|flag| flag.load(Relaxed) == 0) {
        // As `fiber::park`.
        if !park.token.take() {
            if park.token.register() {
                // Off its stack until it is made ready, once for this wait.
                while park.run.load(Acquire) == 0 {
                    match setters.pop() {
                        Some(setter) => setter.join().unwrap(),
                        None => panic!("a wake-up is lost"),
                    }
                }
                assert_eq!(park.run.swap(0, AcqRel), 1, "woken twice");
            }
            park.token.take();
        }
    }
}

#[test]
fn no_unpark_is_lost() {
    check(3, park_until_all_is_done::<Signal>);
}

/// A signal that looks and then registers, instead of both at once.
struct LookThenRegister(AtomicUsize);

impl Token for LookThenRegister {
    fn new() -> Self {
        Self(AtomicUsize::new(0))
    }
    fn take(&self) -> bool {
        self.0.swap(0, AcqRel) == 1
    }
    fn register(&self) -> bool {
        if self.0.load(Acquire) == 1 {
            return false;
        }
        self.0.store(64, Release);
        true
    }
    fn set(&self) -> bool {
        self.0.swap(1, AcqRel) == 64
    }
}

#[test]
fn canary_look_then_register() {
    must_fail(3, "a wake-up is lost", park_until_all_is_done::<LookThenRegister>);
}

/// A signal whose `take` publishes nothing and sees nothing.
struct Unordered(AtomicUsize);

impl Token for Unordered {
    fn new() -> Self {
        Self(AtomicUsize::new(0))
    }
    fn take(&self) -> bool {
        self.0.swap(0, Relaxed) == 1
    }
    fn register(&self) -> bool {
        self.0.compare_exchange(0, 64, Relaxed, Relaxed).is_ok()
    }
    fn set(&self) -> bool {
        self.0.swap(1, Relaxed) == 64
    }
}

#[test]
fn canary_relaxed_token() {
    must_fail(3, "", park_until_all_is_done::<Unordered>);
}

/// `sched/lost.rs`: a thread lists what it waits for, looks whether the home is gone, and waits;
/// the home says that it goes, and then looks at the list. `looks`: whether the thread does.
fn wait_for_what_is_lost(looks: bool) {
    struct Lost {
        ended: Signal,
        gone: AtomicUsize,
        listed: loom::sync::Mutex<bool>,
        woken: AtomicUsize,
    }
    let lost = Arc::new(Lost {
        ended: Signal::new(),
        gone: AtomicUsize::new(0),
        listed: loom::sync::Mutex::new(false),
        woken: AtomicUsize::new(0),
    });
    let home = {
        let lost = Arc::clone(&lost);
        thread::spawn(move || {
            lost.gone.store(1, Release);
            let waiter = match *lost.listed.lock().unwrap() {
                true => lost.ended.lose(),
                false => Waiter::None,
            };
            if waiter == FIBER {
                lost.woken.fetch_add(1, Relaxed);
            }
        })
    };
    *lost.listed.lock().unwrap() = true;
    let waits = !(looks && lost.gone.load(Acquire) == 1) && lost.ended.register(FIBER);
    home.join().unwrap();
    assert_eq!(lost.woken.load(Relaxed), usize::from(waits), "it waits for ever");
    assert!(!lost.ended.is_set());
    assert!(lost.ended.is_lost() || lost.gone.load(Relaxed) == 1);
    lost.ended.unregister(FIBER);
    assert_eq!(lost.ended.detach(), Before::Nothing, "the result of a lost fiber is nobody's");
}

#[test]
fn who_waits_for_a_lost_fiber_is_told() {
    check(3, || wait_for_what_is_lost(true));
}

#[test]
fn canary_list_and_wait() {
    must_fail(3, "it waits for ever", || wait_for_what_is_lost(false));
}
