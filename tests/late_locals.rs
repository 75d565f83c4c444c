//! Fiber-local values that are made late, after the closure of their fiber has returned, are
//! destroyed on the fiber as well: they need not be `Send`, and whoever joins may be elsewhere.

mod common;

use common::{runtime, watch};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ThreadId};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tracing_core::span::Current;

static MADE: AtomicUsize = AtomicUsize::new(0);
static DROPPED: AtomicUsize = AtomicUsize::new(0);
static ELSEWHERE: AtomicUsize = AtomicUsize::new(0);

/// Belongs to its thread, as an `Rc` does.
struct Pinned(ThreadId);

impl Pinned {
    fn new() -> Self {
        MADE.fetch_add(1, Ordering::Relaxed);
        Self(thread::current().id())
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        DROPPED.fetch_add(1, Ordering::Relaxed);
        if self.0 != thread::current().id() {
            ELSEWHERE.fetch_add(1, Ordering::Relaxed);
        }
    }
}

struct Panics;

impl Drop for Panics {
    fn drop(&mut self) {
        panic!("deliberate");
    }
}

ramie::fiber_local! {
    static BY_SUBSCRIBER: Pinned = Pinned::new();
    static BY_RESULT: Pinned = Pinned::new();
    static PANICS: Panics = Panics;
}

/// A subscriber that keeps something per fiber.
struct Keeps;

impl Subscriber for Keeps {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
    fn current_span(&self) -> Current {
        if ramie::is_fiber() {
            BY_SUBSCRIBER.with(|_| ());
        }
        Current::none()
    }
}

/// Runs `f` on a fiber to its end, and joins it from another thread. Returns how many values were
/// made, dropped, and dropped on the wrong thread.
fn joined_elsewhere<T: Send + 'static>(f: fn() -> T) -> [usize; 3] {
    let counts = || [&MADE, &DROPPED, &ELSEWHERE].map(|count| count.load(Ordering::Relaxed));
    let before = counts();
    let runtime = runtime(1);
    let handle = runtime.run(|| {
        let handle = ramie::spawn(f);
        while !handle.is_finished() {
            ramie::yield_now();
        }
        handle
    });
    _ = thread::spawn(move || handle.join().is_ok()).join().unwrap();
    drop(runtime);
    let after = counts();
    std::array::from_fn(|at| after[at] - before[at])
}

#[test]
fn values_made_late_are_destroyed_on_the_fiber() {
    struct Makes;
    impl Drop for Makes {
        fn drop(&mut self) {
            BY_RESULT.with(|_| ());
        }
    }

    let _watchdog = watch::dog();
    // The panic of a destructor takes the place of the result, whose own destructor comes after
    // those of the values.
    let made = joined_elsewhere(|| {
        PANICS.with(|_| ());
        Makes
    });
    assert_eq!(made, [1, 1, 0]);

    // The subscriber is asked for the spans of a fiber that is about to end.
    tracing::subscriber::set_global_default(Keeps).unwrap();
    let [made, dropped, elsewhere] = joined_elsewhere(|| ());
    assert!(made != 0 && made == dropped && elsewhere == 0, "{made} {dropped} {elsewhere}");
}
