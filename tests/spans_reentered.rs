//! A subscriber that calls this crate in the middle of a switch.

mod common;

use common::{runtime, watch};
use ramie::Runtime;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Once;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tracing_core::span::Current;

thread_local! {
    static RUNTIME: RefCell<Option<Rc<Runtime>>> = const { RefCell::new(None) };
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    static TICKS: Cell<u32> = const { Cell::new(0) };
}

struct Ticks;

impl Subscriber for Ticks {
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
    /// Asked before the spans of a thread or fiber are left.
    fn current_span(&self) -> Current {
        if ramie::is_fiber() {
            // While the fiber leaves its stack: whatever it says, nobody hears it.
            _ = ramie::cancel::check();
        } else if let Some(runtime) = RUNTIME.with_borrow(Clone::clone)
            && !INSIDE.replace(true)
        {
            runtime.tick();
            TICKS.set(TICKS.get() + 1);
            INSIDE.set(false);
        }
        Current::none()
    }
}

fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing::subscriber::set_global_default(Ticks).unwrap());
}

/// A request is for the fiber, not for a subscriber that asks while the fiber suspends.
#[test]
fn a_subscriber_that_checks() {
    let _watchdog = watch::dog();
    install();
    runtime(1).run(|| {
        let fiber = ramie::spawn(|| {
            for _ in 0..10 {
                ramie::yield_now();
            }
            ramie::fs::metadata("Cargo.toml").map(drop)
        });
        ramie::yield_now();
        assert!(ramie::is_cancelled(&fiber.cancel_join().unwrap().unwrap_err()));
    });
}

/// The main fiber must not end before there is somebody to notice.
#[test]
fn a_subscriber_that_ticks() {
    let _watchdog = watch::dog();
    install();
    let runtime = Rc::new(runtime(1));
    RUNTIME.set(Some(Rc::clone(&runtime)));
    assert_eq!(runtime.run(|| 7), 7);
    assert_ne!(TICKS.get(), 0);
    RUNTIME.set(None);
}
