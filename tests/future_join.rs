//! Awaiting fibers: a join handle is a future, for async code on whatever runs it.

mod common;

use common::{eventually, isolated, runtime, watch};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// Counts how often it is woken.
#[derive(Default)]
struct Tally(AtomicUsize);

impl Wake for Tally {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn tally() -> (Arc<Tally>, Waker) {
    let tally = Arc::new(Tally::default());
    (Arc::clone(&tally), Waker::from(tally))
}

fn poll_once<F: Future + Unpin>(future: &mut F, waker: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

#[test]
fn fibers_are_awaited() {
    let _watchdog = watch::dog();
    let rt = runtime(2);
    rt.run(|| {
        let sum = ramie::block_on(async {
            let fibers: Vec<_> = (0..100)
                .map(|n| {
                    ramie::spawn(move || {
                        if n % 3 == 0 {
                            ramie::sleep(Duration::from_micros(n * 10));
                        }
                        n
                    })
                })
                .collect();
            let mut sum = 0;
            for fiber in fibers {
                sum += fiber.await.unwrap();
            }
            sum
        });
        assert_eq!(sum, 4950);
        let panic = ramie::block_on(ramie::spawn(|| panic!("deliberate"))).unwrap_err();
        assert_eq!(panic.downcast_ref(), Some(&"deliberate"));
    });
    // On a thread that has nothing to do with the runtime.
    let handle = rt.handle();
    let thread = std::thread::spawn(move || {
        let fiber = handle
            .spawn_future(async {
                ramie::sleep(MS);
                assert!(ramie::is_fiber());
                5
            })
            .unwrap();
        ramie::block_on(fiber).unwrap()
    });
    rt.run(|| eventually("the thread ends", || thread.is_finished()));
    assert_eq!(thread.join().unwrap(), 5);
}

/// A handle that was polled is joined, dropped, polled with another waker, asked.
#[test]
fn a_polled_handle_is_still_a_handle() {
    #[derive(Debug)]
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let drops = Arc::new(AtomicUsize::new(0));
        let spawn = || {
            let theirs = Arc::clone(&drops);
            ramie::spawn(move || {
                ramie::sleep(MS);
                Counted(theirs)
            })
        };
        let (first, waker) = tally();
        let (second, other) = tally();

        let mut fiber = spawn();
        assert!(poll_once(&mut fiber, &waker).is_pending());
        assert!(!fiber.is_finished());
        drop(fiber.join().unwrap());
        assert_eq!((first.0.load(Ordering::SeqCst), drops.load(Ordering::SeqCst)), (0, 1));

        let mut fiber = spawn();
        assert!(poll_once(&mut fiber, &waker).is_pending());
        assert!(poll_once(&mut fiber, &other).is_pending());
        drop(fiber.join_timeout(Duration::ZERO).unwrap_err());
        eventually("a detached one ends", || drops.load(Ordering::SeqCst) == 2);

        let mut fiber = spawn();
        assert!(poll_once(&mut fiber, &waker).is_pending());
        drop(fiber);
        eventually("a detached one ends", || drops.load(Ordering::SeqCst) == 3);
        assert_eq!((Arc::strong_count(&first), Arc::strong_count(&second)), (2, 2));

        let mut fiber = spawn();
        assert!(poll_once(&mut fiber, &waker).is_pending());
        assert!(poll_once(&mut fiber, &other).is_pending());
        eventually("the second is told", || second.0.load(Ordering::SeqCst) == 1);
        assert_eq!(first.0.load(Ordering::SeqCst), 0);
        let Poll::Ready(result) = poll_once(&mut fiber, &other) else { panic!("it has ended") };
        assert_eq!(drops.load(Ordering::SeqCst), 3);
        drop(result);
        assert!(fiber.is_finished());
        assert_eq!(fiber.fiber().name(), None);
        fiber.cancel();
        let again = catch_unwind(AssertUnwindSafe(|| drop(poll_once(&mut fiber, &other))));
        assert!(again.is_err());
        let again = catch_unwind(AssertUnwindSafe(move || drop(fiber.join())));
        assert!(again.is_err());
        assert_eq!(drops.load(Ordering::SeqCst), 4);

        // The box with the waker goes with the signal that it was told by.
        let mut fiber = spawn();
        assert!(poll_once(&mut fiber, &waker).is_pending());
        std::mem::forget(fiber);
        eventually("it is told", || first.0.load(Ordering::SeqCst) == 1);
        assert_eq!((Arc::strong_count(&first), Arc::strong_count(&second)), (2, 2));
    });
}

/// What a waker does is foreign code in the middle of the scheduler.
#[test]
fn wakers_that_misbehave() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("deliberate");
        }
    }
    struct Busy(Arc<AtomicUsize>);
    impl Wake for Busy {
        fn wake(self: Arc<Self>) {
            ramie::yield_now();
            ramie::sleep(Duration::from_micros(10));
            ramie::fs::metadata("Cargo.toml").unwrap();
            let theirs = Arc::clone(&self.0);
            drop(ramie::spawn(move || theirs.fetch_add(1, Ordering::SeqCst)));
        }
    }
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let mut fiber = ramie::spawn(|| ramie::sleep(MS));
        assert!(poll_once(&mut fiber, &Waker::from(Arc::new(Panics))).is_pending());
        fiber.join().unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        for waker in [Waker::from(Arc::new(Panics)), Arc::new(Busy(Arc::clone(&count))).into()] {
            let mut fiber = ramie::spawn(|| ramie::sleep(MS));
            assert!(poll_once(&mut fiber, &waker).is_pending());
            eventually("it ends", || fiber.is_finished());
        }
        eventually("it was spawned", || count.load(Ordering::SeqCst) == 1);
    });
}

/// Handles are polled with changing wakers, joined or dropped while their fibers end elsewhere.
#[test]
fn polls_race_with_ends() {
    let _watchdog = watch::dog();
    let seed = std::env::var("RAMIE_SEED").map_or(7, |text| text.parse().expect("a number"));
    println!("RAMIE_SEED={seed}");
    let mut state: u64 = seed;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % below
    };
    let (tally, waker) = tally();
    runtime(2).run(|| {
        for n in 0..5_000_u64 {
            let spins = random(600);
            let fiber = ramie::Builder::new().worker(1);
            let mut fiber = fiber
                .spawn(move || {
                    (0..spins).for_each(|_| std::hint::spin_loop());
                    Box::new(n)
                })
                .unwrap();
            let mut done = false;
            for _ in 0..random(4) {
                let other = Waker::from(Arc::new(Tally::default()));
                let waker = if random(2) == 0 { &waker } else { &other };
                (0..random(300)).for_each(|_| std::hint::spin_loop());
                if let Poll::Ready(value) = poll_once(&mut fiber, waker) {
                    assert_eq!(*value.unwrap(), n);
                    done = true;
                    break;
                }
            }
            match random(3) {
                _ if done => {}
                0 => assert_eq!(*fiber.join().unwrap(), n),
                1 => assert_eq!(*ramie::block_on(fiber).unwrap(), n),
                _ => drop(fiber),
            }
        }
        eventually("every box is freed", || Arc::strong_count(&tally) == 2);
    });
}

/// Wakers are told by the scheduler, which a panic would end together with the process. A waker's
/// is caught and logged, and then there is the subscriber.
#[test]
fn a_waker_and_a_subscriber_that_panic() {
    use tracing::span::{Attributes, Id, Record};

    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("deliberate");
        }
    }
    impl tracing::Subscriber for Panics {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }
        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }
        fn record(&self, _: &Id, _: &Record<'_>) {}
        fn record_follows_from(&self, _: &Id, _: &Id) {}
        fn event(&self, _: &tracing::Event<'_>) {
            panic!("deliberate, too");
        }
        fn enter(&self, _: &Id) {}
        fn exit(&self, _: &Id) {}
    }

    isolated("a_waker_and_a_subscriber_that_panic", || {
        tracing::subscriber::set_global_default(Panics).unwrap();
        runtime(1).run(|| {
            let mut fiber = ramie::spawn(|| 7);
            assert!(poll_once(&mut fiber, &Waker::from(Arc::new(Panics))).is_pending());
            while !fiber.is_finished() {
                ramie::yield_now();
            }
            assert_eq!(fiber.join().unwrap(), 7);
        });
    });
}
