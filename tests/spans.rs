//! Tracing spans follow fibers: an event belongs to the spans of its fiber, whatever other fibers
//! of the thread are in.

mod common;

use common::{child, eventually, runtime, watch};
use std::cell::RefCell;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Poll;
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Span, Subscriber, info, info_span};
use tracing_core::span::Current;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

const MS: Duration = Duration::from_millis(1);

// ---- A layer that checks every event ------------------------------------------------------------

static COMPLAINTS: Mutex<Vec<String>> = Mutex::new(Vec::new());
static EVENTS: AtomicUsize = AtomicUsize::new(0);
/// What the fmt layer wrote.
static OUTPUT: Mutex<Vec<u8>> = Mutex::new(Vec::new());

fn complain(text: String) {
    COMPLAINTS.lock().unwrap().push(text);
}

/// The number in a span's or event's field `n`, and in an event's field `depth`.
#[derive(Clone, Copy, Default)]
struct Numbers {
    n: Option<u64>,
    depth: Option<u64>,
}

impl Visit for Numbers {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "n" => self.n = Some(value),
            "depth" => self.depth = Some(value),
            _ => {}
        }
    }
    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

/// An event says whose it is and how many spans it is in. All these spans must be the same one's.
/// Spans with certain names make entering and leaving an adventure.
struct Checks;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Checks {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut numbers = Numbers::default();
        attributes.record(&mut numbers);
        context.span(id).unwrap().extensions_mut().insert(numbers);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut numbers = Numbers::default();
        event.record(&mut numbers);
        let Some(depth) = numbers.depth else { return };
        EVENTS.fetch_add(1, Ordering::Relaxed);
        let mut owners = Vec::new();
        for span in context.event_scope(event).into_iter().flatten() {
            owners.push(span.extensions().get::<Numbers>().and_then(|numbers| numbers.n));
        }
        if owners.len() as u64 != depth || owners.iter().any(|owner| *owner != numbers.n) {
            complain(format!("{:?} at depth {depth} is in {owners:?}", numbers.n));
        }
    }

    fn on_enter(&self, id: &Id, context: Context<'_, S>) {
        adventure(context.metadata(id));
    }

    fn on_exit(&self, id: &Id, context: Context<'_, S>) {
        adventure(context.metadata(id));
    }
}

fn adventure(metadata: Option<&Metadata<'_>>) {
    match metadata.map(Metadata::name) {
        // Whatever suspends.
        Some("busy") => {
            ramie::yield_now();
            ramie::sleep(Duration::from_micros(20));
            ramie::fs::metadata("Cargo.toml").expect("not cancelled");
            ramie::unblock(|| ());
            ramie::park_timeout(Duration::from_micros(20));
            ramie::block_on(std::future::ready(()));
            if ramie::is_fiber() {
                drop(ramie::spawn(|| ()));
            }
        }
        Some("panics") => panic!("deliberate"),
        _ => {}
    }
}

/// The fmt layer's writer.
struct Output;

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        OUTPUT.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn install() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        let fmt = tracing_subscriber::fmt::layer()
            .without_time()
            .with_ansi(false)
            .with_level(false)
            .with_target(false)
            .with_writer(|| Output);
        let subscriber = tracing_subscriber::registry().with(Checks).with(fmt);
        tracing::subscriber::set_global_default(subscriber).expect("the first one");
    });
}

#[track_caller]
fn all_is_well() {
    let complaints = COMPLAINTS.lock().unwrap();
    assert!(complaints.is_empty(), "{complaints:#?}");
}

/// An event of `n`, in `depth` spans.
fn event(n: u64, depth: u64) {
    info!(n, depth, "event");
}

/// A test body in a process of its own, since a subscriber is for ever.
fn alone(name: &str, body: impl FnOnce()) {
    let output = child(name, || {
        body();
        all_is_well();
    });
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}\n{text}", output.status);
}

// ---- Tests --------------------------------------------------------------------------------------

/// Every kind of suspension, inside nested spans, while another fiber does the same.
#[test]
fn two_fibers_interleave() {
    let _watchdog = watch::dog();
    install();
    let start = EVENTS.load(Ordering::Relaxed);
    runtime(1).run(|| {
        let fibers = [1, 2].map(|n| {
            ramie::spawn(move || {
                let (reader, writer) = io::pipe().unwrap();
                let mut reader = ramie::fs::File::from(OwnedFd::from(reader));
                let mut writer = ramie::fs::File::from(OwnedFd::from(writer));
                let _outer = info_span!("outer", n).entered_here();
                let waits: [&mut dyn FnMut(); 7] = [
                    &mut ramie::yield_now,
                    &mut || ramie::sleep(MS),
                    &mut || ramie::park_timeout(MS),
                    &mut || ramie::fs::metadata("Cargo.toml").map(|_| ()).unwrap(),
                    &mut || {
                        writer.write_all(b"x").unwrap();
                        reader.read_exact(&mut [0]).unwrap();
                    },
                    &mut || ramie::unblock(|| std::thread::sleep(MS)),
                    &mut || ramie::block_on(ramie::spawn(move || event(n, 0))).unwrap(),
                ];
                for wait in waits {
                    event(n, 1);
                    let inner = info_span!("inner", n).entered_here();
                    wait();
                    event(n, 2);
                    drop(inner);
                    wait();
                    event(n, 1);
                    // One span twice.
                    let span = Span::current();
                    span.in_scope(|| {
                        wait();
                        info_span!("innermost", n).in_scope(|| {
                            wait();
                            event(n, 2);
                        });
                    });
                    wait();
                }
                event(n, 1);
                drop(_outer);
                event(n, 0);
            })
        });
        event(0, 0);
        fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
    });
    assert!(EVENTS.load(Ordering::Relaxed) > start + 2 * (7 * 4 + 2));
    let output = String::from_utf8(OUTPUT.lock().unwrap().clone()).unwrap();
    for n in [1, 2] {
        assert!(output.contains(&format!("outer{{n={n}}}:inner{{n={n}}}: event n={n} depth=2")));
    }
    all_is_well();
}

/// `Span::entered` under a name that says that it is done on purpose.
trait EnteredHere {
    fn entered_here(self) -> tracing::span::EnteredSpan;
}

impl EnteredHere for Span {
    fn entered_here(self) -> tracing::span::EnteredSpan {
        Span::entered(self)
    }
}

/// Fibers nest spans, suspend, spawn and end as a seed says, on one worker and on two.
#[test]
fn any_number_of_fibers() {
    let _watchdog = watch::dog();
    install();
    let seed = std::env::var("RAMIE_SEED").map_or(11, |text| text.parse().expect("a number"));
    println!("RAMIE_SEED={seed}");
    fn random(state: &mut u64, below: u64) -> u64 {
        *state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (*state >> 33) % below
    }
    fn nest(n: u64, depth: u64, state: &mut u64) {
        for _ in 0..random(state, 4) {
            event(n, depth);
            match random(state, 6) {
                0 => ramie::yield_now(),
                1 => ramie::sleep(Duration::from_micros(random(state, 100))),
                2 => ramie::fs::metadata("Cargo.toml").map(|_| ()).unwrap(),
                3 => ramie::spawn(|| event(0, 0)).join().unwrap(),
                _ if depth < 8 => {
                    let unwound = random(state, 8) == 0;
                    let inside = || {
                        nest(n, depth + 1, state);
                        assert!(!unwound, "deliberate");
                    };
                    let span = info_span!("random", n);
                    let result = catch_unwind(AssertUnwindSafe(|| span.in_scope(inside)));
                    assert_eq!(result.is_err(), unwound);
                }
                _ => {}
            }
            event(n, depth);
        }
    }
    for workers in [1, 2] {
        runtime(workers).run(|| {
            let fibers: Vec<_> = (1..=200)
                .map(|n| {
                    ramie::spawn(move || {
                        let mut state = seed ^ (n << 20);
                        (0..10).for_each(|_| nest(n, 0, &mut state));
                        if n % 5 == 0 {
                            // Leaked: the span stays, but not on the thread.
                            std::mem::forget(info_span!("leaked", n).entered_here());
                            ramie::yield_now();
                            event(n, 1);
                        }
                    })
                })
                .collect();
            fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
            event(0, 0);
        });
    }
    all_is_well();
}

/// The main fiber is in its caller's spans; other fibers are not; the caller still is, afterwards.
#[test]
fn in_and_out_of_the_runtime() {
    let _watchdog = watch::dog();
    install();
    let rt = runtime(1);
    let outer = info_span!("outer", n = 7_u64);
    outer.in_scope(|| {
        rt.run(|| {
            event(7, 1);
            let fiber = ramie::spawn(|| event(7, 0));
            ramie::yield_now();
            event(7, 1);
            fiber.join().unwrap();
            // How a fiber is given its parent's span.
            let span = Span::current();
            ramie::spawn(move || span.in_scope(|| event(7, 1))).join().unwrap();
            drop(ramie::spawn(|| {
                ramie::yield_now();
                event(7, 0);
                ramie::sleep(MS);
                event(7, 0);
            }));
            info_span!("inner", n = 7_u64).in_scope(|| {
                ramie::yield_now();
                event(7, 2);
            });
        });
        event(7, 1);
        rt.run_for(5 * MS);
        event(7, 1);
        rt.tick();
        event(7, 1);
        assert!(catch_unwind(AssertUnwindSafe(|| rt.run(|| panic!("deliberate")))).is_err());
        event(7, 1);
        drop(rt);
        event(7, 1);
    });
    event(7, 0);
    all_is_well();
}

/// A subscriber that would suspend in the middle blocks instead; one that panics is survived, and
/// no operation loses its result.
#[test]
fn subscribers_that_misbehave() {
    let _watchdog = watch::dog();
    alone("subscribers_that_misbehave", || {
        install();
        for workers in [1, 2] {
            runtime(workers).run(|| {
                let fibers: Vec<_> = (1..=8)
                    .map(|n: u64| {
                        ramie::spawn(move || {
                            let busy = info_span!("busy", n).entered_here();
                            for _ in 0..10 {
                                ramie::yield_now();
                                ramie::fs::metadata("Cargo.toml").unwrap();
                                ramie::sleep(Duration::from_micros(50));
                                ramie::unblock(|| ());
                                event(n, 1);
                            }
                            drop(busy);
                            event(n, 0);
                        })
                    })
                    .collect();
                fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
            });
        }
        runtime(1).run(|| {
            let fiber = ramie::spawn(|| {
                // Entering panics, so the guard is not there to leave it again.
                let span = info_span!("panics");
                let entered = catch_unwind(AssertUnwindSafe(|| std::mem::forget(span.enter())));
                assert!(entered.is_err());
                let text = ramie::fs::read_to_string("Cargo.toml").unwrap();
                assert!(text.contains("ramie"));
                ramie::unblock(|| ());
                ramie::yield_now();
                ramie::sleep(MS);
            });
            fiber.join().unwrap();
        });
    });
}

/// A cancel request that arrives while a subscriber blocks is for the fiber, not for the
/// subscriber.
#[test]
fn requests_pass_by_the_subscriber() {
    let _watchdog = watch::dog();
    install();
    runtime(1).run(|| {
        let polled = Arc::new(AtomicBool::new(false));
        let theirs = Arc::clone(&polled);
        let fiber = ramie::spawn(move || {
            let _busy = info_span!("busy", n = 3_u64).entered_here();
            ramie::try_block_on(std::future::poll_fn(|_| {
                theirs.store(true, Ordering::Relaxed);
                Poll::<()>::Pending
            }))
        });
        eventually("it waits", || polled.load(Ordering::Relaxed));
        fiber.cancel();
        assert!(ramie::is_cancelled(&fiber.join().unwrap().unwrap_err()));
    });
}

/// A subscriber that has nothing to do with the registry, and is strict: spans are left in the
/// order opposite to that in which they were entered, on the same thread, and used only while
/// alive.
#[test]
fn a_subscriber_of_ones_own() {
    #[derive(Default)]
    struct Strict {
        next: AtomicU64,
        spans: Mutex<std::collections::HashMap<u64, (usize, &'static Metadata<'static>)>>,
    }
    thread_local! {
        static STACK: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
    }
    static ENTERED: AtomicUsize = AtomicUsize::new(0);
    static LIVE: AtomicUsize = AtomicUsize::new(0);

    impl Subscriber for Strict {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, attributes: &Attributes<'_>) -> Id {
            let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
            self.spans.lock().unwrap().insert(id, (1, attributes.metadata()));
            LIVE.fetch_add(1, Ordering::Relaxed);
            Id::from_u64(id)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, event: &Event<'_>) {
            let mut numbers = Numbers::default();
            event.record(&mut numbers);
            let depth = STACK.with_borrow(Vec::len) as u64;
            if numbers.depth.is_some_and(|expected| expected != depth) {
                complain(format!("{:?} is in {depth} spans", numbers.n));
            }
        }
        fn enter(&self, id: &Id) {
            ENTERED.fetch_add(1, Ordering::Relaxed);
            if !self.spans.lock().unwrap().contains_key(&id.into_u64()) {
                complain(format!("{id:?} is dead"));
            }
            STACK.with_borrow_mut(|stack| stack.push(id.into_u64()));
        }
        fn exit(&self, id: &Id) {
            let top = STACK.with_borrow_mut(Vec::pop);
            if top != Some(id.into_u64()) {
                complain(format!("{id:?} is left, but {top:?} is current"));
            }
        }
        fn clone_span(&self, id: &Id) -> Id {
            match self.spans.lock().unwrap().get_mut(&id.into_u64()) {
                Some((count, _)) => *count += 1,
                None => complain(format!("{id:?} is dead")),
            }
            id.clone()
        }
        fn try_close(&self, id: Id) -> bool {
            let mut spans = self.spans.lock().unwrap();
            let Some((count, _)) = spans.get_mut(&id.into_u64()) else { return false };
            *count -= 1;
            let last = *count == 0;
            if last {
                spans.remove(&id.into_u64());
                LIVE.fetch_sub(1, Ordering::Relaxed);
            }
            last
        }
        fn current_span(&self) -> Current {
            let Some(id) = STACK.with_borrow(|stack| stack.last().copied()) else {
                return Current::none();
            };
            Current::new(Id::from_u64(id), self.spans.lock().unwrap()[&id].1)
        }
    }

    let _watchdog = watch::dog();
    alone("a_subscriber_of_ones_own", || {
        tracing::subscriber::set_global_default(Strict::default()).unwrap();
        /// In deeper spans than need no allocation, some of them the same.
        fn dive(n: u64, depth: u64) {
            if depth == 20 {
                (0..5).for_each(|_| ramie::yield_now());
                return ramie::sleep(Duration::from_micros(n * 10));
            }
            let span = if depth.is_multiple_of(3) { info_span!("dive") } else { Span::current() };
            span.in_scope(|| {
                event(n, depth + 1);
                dive(n, depth + 1);
                ramie::yield_now();
                event(n, depth + 1);
            });
        }
        for workers in [1, 2] {
            info_span!("outside").in_scope(|| {
                runtime(workers).run(|| {
                    event(0, 1);
                    let fibers: Vec<_> =
                        (0..50).map(|n| ramie::spawn(move || dive(n, 0))).collect();
                    fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
                    event(0, 1);
                });
                event(0, 1);
            });
        }
        event(0, 0);
        assert!(ENTERED.load(Ordering::Relaxed) > 10_000);
        eventually("no span leaks", || LIVE.load(Ordering::Relaxed) == 0);
    });
}

/// A thread is back in its spans also if the main fiber could not be made.
#[test]
fn a_main_fiber_that_is_never_made() {
    struct Stays;
    impl Clone for Stays {
        fn clone(&self) -> Self {
            panic!("deliberate");
        }
    }
    ramie::fiber_local! {
        #[inherit]
        static STAYS: Stays = Stays;
    }
    alone("a_main_fiber_that_is_never_made", || {
        install();
        let runtime = runtime(1);
        STAYS.with(|_| ());
        let outer = info_span!("outer", n = 1_u64);
        let _outer = outer.enter();
        assert!(catch_unwind(AssertUnwindSafe(|| runtime.run(|| ()))).is_err());
        event(1, 1);
    });
}

/// A result that nobody wants is dropped by its fiber; a span that the destructor enters for good
/// is no other fiber's.
#[test]
fn a_result_that_leaks_its_guard() {
    struct Leaks;
    impl Drop for Leaks {
        fn drop(&mut self) {
            std::mem::forget(info_span!("leaked", n = 9_u64).entered_here());
        }
    }
    alone("a_result_that_leaks_its_guard", || {
        install();
        runtime(1).run(|| {
            drop(ramie::spawn_local(|| Leaks));
            let other = ramie::spawn_local(|| event(1, 0));
            other.join().unwrap();
            event(2, 0);
        });
    });
}
