//! Fibers that a shutdown leaks: who joins one is told, and the other workers' threads end.

mod common;

use common::process::threads;
use common::{eventually, isolated, runtime, watch};
use ramie::{Fiber, JoinHandle, Runtime};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// A fiber that never ends, on worker `index`; it has started when this returns.
fn endless(index: usize) -> JoinHandle<u32> {
    let started = Arc::new(AtomicBool::new(false));
    let theirs = Arc::clone(&started);
    let builder = ramie::Builder::new().worker(index);
    let fiber = builder.spawn(move || {
        loop {
            theirs.store(true, Ordering::SeqCst);
            ramie::park();
        }
    });
    eventually("it starts", || started.load(Ordering::SeqCst));
    fiber.unwrap()
}

#[track_caller]
fn assert_lost<T>(result: thread::Result<T>) {
    let panic = result.err().expect("it has not ended");
    let text = panic.downcast_ref::<&str>().expect("a message");
    assert!(text.contains("was shut down before"), "{text}");
}

/// Drops a runtime as a thread does that unwinds.
fn drop_unwinding(rt: Runtime) {
    let unwind = AssertUnwindSafe(|| {
        let _rt = rt;
        std::panic::resume_unwind(Box::new(()));
    });
    assert!(catch_unwind(unwind).is_err());
}

/// Threads that wait before the end and ask after it, in every way.
#[test]
fn plain_threads_are_told() {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        for unwinding in [false, true] {
            let rt = runtime(workers);
            let mut fibers: Vec<_> = rt.run(|| (0..12).map(|n| endless(n % workers)).collect());
            let waiting: Vec<_> = fibers
                .drain(..6)
                .enumerate()
                .map(|(n, fiber)| {
                    thread::spawn(move || match fiber.join_timeout(MS) {
                        Err(fiber) if n < 2 => ramie::block_on(fiber),
                        Err(fiber) => fiber.join(),
                        Ok(result) => result,
                    })
                })
                .collect();
            thread::sleep(5 * MS);
            if unwinding {
                drop_unwinding(rt);
            } else {
                assert_eq!(rt.shutdown_timeout(Duration::from_secs(10)), 12);
            }
            waiting.into_iter().for_each(|thread| assert_lost(thread.join().unwrap()));
            // With an unwinding thread, the other worker's go on for a moment.
            eventually("all are lost", || fibers.iter().all(JoinHandle::is_finished));
            let mut fibers = fibers.into_iter();
            let mut next = || fibers.next().unwrap();
            assert_lost(next().join());
            assert_lost(next().try_join().unwrap());
            assert_lost(next().join_timeout(MS).unwrap());
            assert_lost(ramie::block_on(next()));
            let (one, two) = (next(), next());
            one.cancel();
            let fiber: Fiber = two.fiber().clone();
            fiber.unpark();
            assert_lost(one.join());
            drop(two);
            fiber.unpark();
        }
    }
}

/// Those who wait are fibers of a runtime that goes on.
#[test]
fn fibers_of_other_runtimes_are_told() {
    let _watchdog = watch::dog();
    let rt = runtime(2);
    let fibers: Vec<_> = rt.run(|| (0..10).map(|n| endless(n % 2)).collect());
    let other = thread::spawn(move || {
        runtime(2).run(|| {
            let joins: Vec<_> =
                fibers.into_iter().map(|fiber| ramie::spawn(move || fiber.join())).collect();
            joins.into_iter().for_each(|join| assert_lost(join.join().unwrap()));
        });
    });
    thread::sleep(5 * MS);
    drop(rt);
    other.join().unwrap();
}

/// Nobody has started them: from outside, from inside, bound to a worker.
#[test]
fn fresh_fibers_are_lost_too() {
    let _watchdog = watch::dog();
    let ran = Arc::new(AtomicUsize::new(0));
    let body = || {
        let ran = Arc::clone(&ran);
        move || ran.fetch_add(1, Ordering::SeqCst)
    };
    let rt = runtime(1);
    let mut fibers = rt.run(|| {
        let bound = ramie::Builder::new().worker(0).spawn(body()).unwrap();
        vec![ramie::spawn(body()), ramie::spawn_local(body()), bound]
    });
    fibers.push(rt.handle().spawn(body()).unwrap());
    let waiting = rt.handle().spawn(body()).unwrap();
    let waiting = thread::spawn(move || waiting.join());
    thread::sleep(5 * MS);
    drop_unwinding(rt);
    assert_lost(waiting.join().unwrap());
    let results: Vec<_> = fibers.into_iter().map(JoinHandle::join).collect();
    // Of the first three some may have run before the main fiber's end was noticed.
    let ended = results.iter().filter(|result| result.is_ok()).count();
    assert_eq!(ended, ran.load(Ordering::SeqCst));
    results.into_iter().filter(Result::is_err).for_each(assert_lost);
}

/// The thread that has the runtime unwinds: the other workers' fibers come to their ends, what was
/// queued runs there, and then the threads end.
#[test]
fn other_workers_end_by_themselves() {
    isolated("other_workers_end_by_themselves", || {
        let before = threads();
        let ran = Arc::new(AtomicUsize::new(0));
        for round in 0..5 {
            let rt = runtime(3);
            rt.run(|| {
                drop(endless(0));
                for n in 0..10 {
                    let ran = Arc::clone(&ran);
                    let builder = ramie::Builder::new().worker(1 + n % 2);
                    let body = move || {
                        ramie::sleep(Duration::from_secs(1000));
                        ran.fetch_add(1, Ordering::SeqCst)
                    };
                    drop(builder.spawn(body).unwrap());
                }
                if round % 2 == 0 {
                    drop(endless(2));
                }
            });
            drop_unwinding(rt);
            eventually("the fibers end", || ran.load(Ordering::SeqCst) == 10 * (round + 1));
            eventually("the threads end", || threads() == before);
        }
    });
}

/// As for dropping it.
#[test]
fn shutdown_timeout_on_an_unwinding_thread() {
    struct EndsIt(Option<Runtime>, Arc<AtomicUsize>);
    impl Drop for EndsIt {
        fn drop(&mut self) {
            let rt = self.0.take().unwrap();
            let left = rt.shutdown_timeout(Duration::from_secs(1000));
            self.1.store(left as usize, Ordering::SeqCst);
        }
    }
    let _watchdog = watch::dog();
    let rt = runtime(1);
    let fiber = rt.run(|| endless(0));
    let left = Arc::new(AtomicUsize::new(9));
    let ends_it = EndsIt(Some(rt), Arc::clone(&left));
    let unwind = AssertUnwindSafe(|| {
        let _ends_it = ends_it;
        std::panic::resume_unwind(Box::new(()));
    });
    assert!(catch_unwind(unwind).is_err());
    assert_eq!(left.load(Ordering::SeqCst), 1);
    assert_lost(fiber.join());
}

/// What is told of a worker that could not start is told last of all: a subscriber that panics does
/// no harm.
#[test]
fn a_subscriber_panics() {
    struct Panics;
    impl tracing::Subscriber for Panics {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            metadata.is_event() && metadata.target().starts_with("ramie")
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::Id {
            unreachable!("no spans")
        }
        fn record(&self, _: &tracing::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::Id, _: &tracing::Id) {}
        fn event(&self, _: &tracing::Event<'_>) {
            TOLD.fetch_add(1, Ordering::SeqCst);
            panic!("a subscriber's");
        }
        fn enter(&self, _: &tracing::Id) {}
        fn exit(&self, _: &tracing::Id) {}
    }
    static TOLD: AtomicUsize = AtomicUsize::new(0);

    isolated("a_subscriber_panics", || {
        tracing::subscriber::set_global_default(Panics).unwrap();
        let before = threads();
        let rt = runtime(3);
        // Their threads can start, but not get a ring.
        let limit = libc::rlimit { rlim_cur: common::fds() as u64 + 3, rlim_max: 1 << 10 };
        // SAFETY: reads the structure.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
        let fill: Vec<_> = std::iter::from_fn(|| std::fs::File::open("Cargo.toml").ok()).collect();
        rt.run(|| {
            let fibers: Vec<_> = (0..100).map(|_| ramie::spawn(ramie::yield_now)).collect();
            let bound = ramie::Builder::new().worker(1).spawn(|| ());
            fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
            bound.map(|bound| bound.join().unwrap()).unwrap_or_default();
            eventually("the workers have failed", || TOLD.load(Ordering::SeqCst) > 0);
        });
        drop(fill);
        eventually("their threads end", || threads() == before);
        assert_eq!(rt.shutdown_timeout(Duration::from_secs(1000)), 0);
    });
}
