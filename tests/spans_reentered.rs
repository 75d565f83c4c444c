//! A subscriber that runs the runtime whose loop is about to be entered.

mod common;

use common::{runtime, watch};
use ramie::Runtime;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
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
        if let Some(runtime) = RUNTIME.with_borrow(Clone::clone)
            && !ramie::is_fiber()
            && !INSIDE.replace(true)
        {
            runtime.tick();
            TICKS.set(TICKS.get() + 1);
            INSIDE.set(false);
        }
        Current::none()
    }
}

/// The main fiber must not end before there is somebody to notice.
#[test]
fn a_subscriber_that_ticks() {
    let _watchdog = watch::dog();
    tracing::subscriber::set_global_default(Ticks).unwrap();
    let runtime = Rc::new(runtime(1));
    RUNTIME.set(Some(Rc::clone(&runtime)));
    assert_eq!(runtime.run(|| 7), 7);
    assert_ne!(TICKS.get(), 0);
    RUNTIME.set(None);
}
