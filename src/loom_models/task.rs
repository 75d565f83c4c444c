//! `coro/task.rs`: a future's waker is told once or comes back, whatever the future does meanwhile.

use super::{check, must_fail};
use crate::coro::signal::Before;
use crate::coro::{Signal, Waiter};
use loom::sync::Arc;
use loom::sync::atomic::{
    AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed},
};
use loom::thread;

/// The addresses of two wakers.
const WAKERS: [usize; 2] = [64, 128];

trait Watched: Send + Sync + 'static {
    fn new() -> Self;
    fn register(&self, address: usize) -> bool;
    fn unregister(&self) -> Option<usize>;
    /// The waker that was taken out, and whether it has happened.
    fn detach(&self) -> (Option<usize>, bool);
    /// The waker that is to be told.
    fn set(&self) -> Option<usize>;
}

impl Watched for Signal {
    fn new() -> Self {
        Signal::new()
    }
    fn register(&self, address: usize) -> bool {
        self.register(Waiter::Task(address))
    }
    fn unregister(&self) -> Option<usize> {
        self.unregister_task()
    }
    fn detach(&self) -> (Option<usize>, bool) {
        match self.detach() {
            Before::Nothing => (None, false),
            Before::Task(address) => (Some(address), false),
            Before::Set => (None, true),
            Before::Detached => panic!("detached twice"),
        }
    }
    fn set(&self) -> Option<usize> {
        match self.set() {
            Waiter::None | Waiter::Detached => None,
            Waiter::Task(address) => Some(address),
            other => panic!("{other:?} was never registered"),
        }
    }
}

struct Scene<T> {
    signal: T,
    /// What was written into each waker's box before it was registered.
    boxes: [AtomicUsize; 2],
    /// How often each box was freed.
    freed: [AtomicUsize; 2],
    told: AtomicUsize,
    result: AtomicUsize,
}

impl<T: Watched> Scene<T> {
    fn free(&self, address: usize) {
        let index = address / 64 - 1;
        assert_eq!(self.boxes[index].load(Relaxed), address, "the box is not visible");
        assert_eq!(self.freed[index].fetch_add(1, Relaxed), 0, "a box is freed twice");
    }

    /// As `task::watch`, with one box for each waker.
    fn watch(&self, address: usize) -> bool {
        if let Some(earlier) = self.signal.unregister() {
            self.free(earlier);
        }
        self.boxes[address / 64 - 1].store(address, Relaxed);
        let registered = self.signal.register(address);
        if !registered {
            self.free(address);
        }
        registered
    }
}

/// One side sets; the other is polled with one waker and then another, and gives up or waits.
fn poll_poll_end<T: Watched>(gives_up: bool) {
    let scene = Arc::new(Scene {
        signal: T::new(),
        boxes: [AtomicUsize::new(0), AtomicUsize::new(0)],
        freed: [AtomicUsize::new(0), AtomicUsize::new(0)],
        told: AtomicUsize::new(0),
        result: AtomicUsize::new(0),
    });
    let setter = {
        let scene = Arc::clone(&scene);
        thread::spawn(move || {
            scene.result.store(1, Relaxed);
            if let Some(address) = scene.signal.set() {
                scene.free(address);
                scene.told.store(address, Relaxed);
            }
        })
    };
    let mut made = 0;
    let mut pending = true;
    for address in WAKERS {
        if pending {
            made += 1;
            pending = scene.watch(address);
        }
    }
    if !pending {
        assert_eq!(scene.result.load(Relaxed), 1, "the result is not visible");
    } else if gives_up {
        let (taken, happened) = scene.signal.detach();
        if let Some(address) = taken {
            scene.free(address);
        }
        if happened {
            assert_eq!(scene.result.load(Relaxed), 1, "the result is not visible");
        }
    }
    setter.join().unwrap();
    if pending && !gives_up {
        assert_eq!(scene.told.load(Relaxed), WAKERS[1], "the last waker is not told");
    }
    for (index, freed) in scene.freed.iter().enumerate() {
        assert_eq!(freed.load(Relaxed), usize::from(index < made), "a box leaks");
    }
}

#[test]
fn the_last_waker_is_told() {
    check(3, || poll_poll_end::<Signal>(false));
}

#[test]
fn a_future_may_be_dropped_at_any_time() {
    check(3, || poll_poll_end::<Signal>(true));
}

/// A signal out of which a waker is taken by looking first.
struct LookThenTake(AtomicUsize);

impl Watched for LookThenTake {
    fn new() -> Self {
        Self(AtomicUsize::new(0))
    }
    fn register(&self, address: usize) -> bool {
        self.0.compare_exchange(0, address, AcqRel, Acquire).is_ok()
    }
    fn unregister(&self) -> Option<usize> {
        let found = self.0.load(Acquire);
        if found <= 1 {
            return None;
        }
        self.0.store(0, Relaxed);
        Some(found)
    }
    fn detach(&self) -> (Option<usize>, bool) {
        match self.0.swap(2, AcqRel) {
            word @ 0..=1 => (None, word == 1),
            address => (Some(address), false),
        }
    }
    fn set(&self) -> Option<usize> {
        Some(self.0.swap(1, AcqRel)).filter(|word| *word > 2)
    }
}

#[test]
fn canary_look_then_take() {
    must_fail(3, "a box is freed twice", || poll_poll_end::<LookThenTake>(false));
}
