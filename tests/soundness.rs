//! What safe code might do to break memory safety, and must not be able to.

mod common;

use common::{isolated, runtime, watch};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// Closures and results of every odd size and alignment, on small stacks.
#[test]
fn odd_layouts() {
    #[derive(Clone, Copy)]
    struct Nothing;
    #[derive(Clone, Copy)]
    #[repr(align(64))]
    struct Line(u8);
    #[derive(Clone, Copy)]
    #[repr(align(128))]
    struct TwoLines;
    #[derive(Clone, Copy)]
    #[repr(align(1024))]
    struct Kilo(u8);
    #[derive(Clone, Copy)]
    #[repr(align(64))]
    struct NoLine;

    const SMALL: usize = 64 << 10;
    fn both<V: Copy + Send + 'static>(value: V, same: fn(&V, &V) -> bool) {
        let aligned = |v: &V| (v as *const V).addr().is_multiple_of(align_of::<V>());
        let builder = ramie::Builder::new().stack_size(SMALL);
        let back = builder
            .spawn(move || {
                assert!(aligned(&value));
                ramie::yield_now();
                assert!(aligned(&value));
                value
            })
            .unwrap();
        ramie::yield_now();
        assert!(same(&back.join().unwrap(), &value));
        // Detached: the result is dropped by the fiber.
        drop(ramie::Builder::new().stack_size(SMALL).spawn_local(move || value).unwrap());
    }

    let _watchdog = watch::dog();
    runtime(1).run(|| {
        for _ in 0..40 {
            both((), |_, _| true);
            both(Nothing, |_, _| true);
            both(NoLine, |_, _| true);
            both(TwoLines, |_, _| true);
            both(Line(3), |a, b| a.0 == b.0);
            both(Kilo(4), |a, b| a.0 == b.0);
            both([5_u8; 511], |a, b| a == b);
            both([6_u8; 512], |a, b| a == b);
            both([7_u8; 513], |a, b| a == b);
            both([8_u64; 200], |a, b| a == b);
            both([Line(9); 7], |a, b| a[6].0 == b[6].0);
            both(u128::MAX, |a, b| a == b);
        }
    });
}

/// Join handles leaked, dropped at home and abroad, before and after the end.
#[test]
fn handles_everywhere() {
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            ramie::yield_now(); // on a fiber this suspends
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    let _watchdog = watch::dog();
    let dropped = Arc::new(AtomicUsize::new(0));
    let rt = runtime(2);
    let late = rt.run(|| {
        let mut late = Vec::new();
        for round in 0..200 {
            let value = Counted(Arc::clone(&dropped));
            let handle = ramie::spawn(move || {
                if round % 3 == 0 {
                    ramie::yield_now();
                }
                value
            });
            match round % 5 {
                0 => drop(handle),
                1 => std::thread::spawn(move || drop(handle)).join().unwrap(),
                2 => drop(handle.join().unwrap()),
                3 => late.push(handle),
                _ => {
                    handle.cancel();
                    let fiber = handle.fiber().clone();
                    drop(handle);
                    drop(fiber);
                }
            }
        }
        late
    });
    drop(rt);
    // After the end of the runtime: on a plain thread, to which the results go.
    for (at, handle) in late.into_iter().enumerate() {
        handle.cancel();
        handle.fiber().unpark();
        match at % 2 {
            0 => drop(handle),
            _ => drop(handle.join().unwrap()),
        }
    }
    assert_eq!(dropped.load(Ordering::SeqCst), 200);
}

/// A fiber that owns its own handle, in a fiber-local value and in its result.
#[test]
fn a_fiber_owns_itself() {
    type Any_ = Box<dyn Any>;
    ramie::fiber_local! {
        static ME: RefCell<Vec<Rc<dyn Any>>> = RefCell::default();
    }

    let _watchdog = watch::dog();
    runtime(1).run(|| {
        for in_result in [false, true] {
            let slot: Rc<Cell<Option<ramie::JoinHandle<Any_>>>> = Rc::default();
            let theirs = Rc::clone(&slot);
            let handle = ramie::spawn_local(move || {
                let me = theirs.take().expect("put there before we run");
                let name = ramie::current();
                if in_result {
                    return Box::new((me, name)) as Any_;
                }
                ME.with(|locals| locals.borrow_mut().push(Rc::new((me, name))));
                Box::new(())
            });
            slot.set(Some(handle));
            ramie::sleep(MS);
        }
    });
}

/// A runtime in a runtime's fiber, on the same thread: dropped there, with fibers suspended.
#[test]
fn a_runtime_dropped_on_a_fiber_of_another() {
    let _watchdog = watch::dog();
    let inner = runtime(1);
    let handle = inner.run(|| {
        let handle = ramie::spawn_local(|| ramie::sleep(Duration::from_secs(100)));
        ramie::yield_now();
        handle
    });
    runtime(1).run(move || {
        assert!(catch_unwind(AssertUnwindSafe(|| inner.run(|| ()))).is_err());
        assert!(catch_unwind(AssertUnwindSafe(|| inner.tick())).is_err());
        drop(inner);
        ramie::yield_now();
        handle.cancel();
        drop(handle);
        ramie::sleep(MS);
    });
}

/// A value's destructor, its initialiser, and what runs in both, come back to the table.
#[test]
fn fiber_locals_in_knots() {
    struct Knot(u32);
    impl Drop for Knot {
        fn drop(&mut self) {
            ramie::yield_now();
            if self.0 > 0 {
                _ = SECOND.try_with(|second| second.borrow_mut().push(Knot(self.0 - 1)));
            }
            assert!(FIRST.try_with(|_| ()).is_err());
        }
    }
    ramie::fiber_local! {
        static FIRST: Knot = { ramie::yield_now(); SECOND.with(|_| ramie::yield_now()); Knot(3) };
        static SECOND: RefCell<Vec<Knot>> = RefCell::default();
    }

    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let fibers: Vec<_> = (0..10)
            .map(|_| {
                ramie::spawn_local(|| {
                    FIRST.with(|first| {
                        ramie::yield_now();
                        assert_eq!(first.0, 3);
                    })
                })
            })
            .collect();
        fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
    });
}

/// Scoped threads borrow from a fiber's stack, also while the fiber is suspended.
#[test]
fn scoped_threads_on_a_fiber() {
    let _watchdog = watch::dog();
    runtime(2).run(|| {
        let fibers: Vec<_> = (0..8)
            .map(|_| {
                ramie::spawn(|| {
                    let numbers = [1, 2, 3];
                    std::thread::scope(|scope| {
                        let sum = scope.spawn(|| numbers.iter().sum::<i32>());
                        ramie::yield_now();
                        sum.join().unwrap()
                    })
                })
            })
            .collect();
        assert!(fibers.into_iter().all(|fiber| fiber.join().unwrap() == 6));
    });
}

/// The process exits on a fiber while others are suspended, on this thread and elsewhere.
#[test]
fn exit_on_a_fiber() {
    isolated("exit_on_a_fiber", || {
        runtime(2).run(|| {
            for _ in 0..10 {
                drop(ramie::spawn(|| ramie::sleep(Duration::from_secs(100))));
            }
            ramie::yield_now();
            let exit = ramie::spawn_local(|| std::process::exit(0));
            _ = exit.join();
        })
    });
}
