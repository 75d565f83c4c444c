//! What fibers do to their stacks: deep frames that live across suspensions, panics caught inside
//! and at the base, recycling, results dropped on the fiber. Every build runs this; the lanes in
//! `ci/asan.sh`, `ci/tsan.sh` and `ci/valgrind.sh` run it to see that their tools follow the
//! switches.

use ramie::Runtime;
use std::hint::{black_box, spin_loop};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};

/// With two workers, or as many as the environment asks for.
fn runtime() -> Runtime {
    let workers = std::env::var("RAMIE_TEST_WORKERS").map_or(2, |n| n.parse().unwrap());
    Runtime::builder().workers(workers).build().unwrap()
}

/// Frames with their addresses taken, `depth` of them, each suspended in and checked afterwards.
#[inline(never)]
fn descend(depth: usize, bottom: &mut dyn FnMut()) -> usize {
    let mut frame = [depth; 64];
    black_box(&mut frame);
    if depth == 0 {
        bottom();
    } else {
        descend(depth - 1, bottom);
    }
    if depth.is_multiple_of(16) {
        ramie::yield_now();
    }
    assert!(frame.iter().all(|&word| word == depth));
    frame[depth % 64]
}

#[test]
fn deep_frames_survive_suspensions() {
    runtime().run(|| {
        let fibers: Vec<_> = (0..40)
            .map(|_| ramie::spawn(|| descend(100, &mut || (0..3).for_each(|_| ramie::yield_now()))))
            .collect();
        for fiber in fibers {
            assert_eq!(fiber.join().unwrap(), 100);
        }
    });
}

#[test]
fn panics_unwind_deep_stacks_that_were_suspended() {
    runtime().run(|| {
        let fibers: Vec<_> = (0..40)
            .map(|_| {
                ramie::spawn(|| {
                    let mut bottom = || {
                        ramie::yield_now();
                        resume_unwind(Box::new(7_usize));
                    };
                    let caught = catch_unwind(AssertUnwindSafe(|| descend(60, &mut bottom)));
                    assert_eq!(*caught.unwrap_err().downcast::<usize>().unwrap(), 7);
                    ramie::yield_now();
                    // And once more, out of the closure.
                    descend(60, &mut bottom)
                })
            })
            .collect();
        for fiber in fibers {
            assert_eq!(*fiber.join().unwrap_err().downcast::<usize>().unwrap(), 7);
        }
    });
}

#[test]
fn stacks_are_recycled_clean() {
    let runtime = runtime();
    for _ in 0..20 {
        runtime.run(|| {
            let fibers: Vec<_> =
                (0..100).map(|depth| ramie::spawn(move || descend(depth, &mut || ()))).collect();
            for (depth, fiber) in fibers.into_iter().enumerate() {
                assert_eq!(fiber.join().unwrap(), depth);
            }
        });
    }
}

/// Counts itself when it is dropped, wherever that is, after a suspension.
struct Answer(&'static AtomicUsize);

impl Drop for Answer {
    fn drop(&mut self) {
        ramie::yield_now();
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A handle dropped before, during or after the fiber's last step: one side drops the result.
#[test]
fn results_nobody_wants_are_dropped_once() {
    static DROPPED: AtomicUsize = AtomicUsize::new(0);
    const FIBERS: usize = 1000;
    let runtime = runtime();
    let handle = runtime.handle();
    let thread = std::thread::spawn(move || {
        for i in 0..FIBERS {
            let fiber = handle.spawn(|| Answer(&DROPPED)).unwrap();
            (0..i * 37 % 2000).for_each(|_| spin_loop());
            drop(fiber);
        }
    });
    runtime.run(|| {
        while DROPPED.load(Ordering::Relaxed) < FIBERS {
            ramie::yield_now();
        }
    });
    thread.join().unwrap();
    drop(runtime);
    assert_eq!(DROPPED.load(Ordering::Relaxed), FIBERS);
}
