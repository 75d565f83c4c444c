//! Futures on fibers: what a waker may do, and when; cancellation.

mod common;

use common::{eventually, runtime, watch};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, RefCell};
use std::future::{pending, poll_fn, ready};
use std::io::{self, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// Counts what its thread allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: what the system's allocator does; the counter allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Pending `polls` times; each poll is given the waker.
fn after(mut polls: usize, mut each: impl FnMut(&Waker)) -> impl Future<Output = ()> {
    poll_fn(move |context| {
        if polls == 0 {
            return Poll::Ready(());
        }
        polls -= 1;
        each(context.waker());
        Poll::Pending
    })
}

/// Ready once somebody else says so; `open` says so.
#[derive(Clone, Default)]
struct Gate(Arc<(AtomicBool, Mutex<Option<Waker>>)>);

impl Gate {
    fn open(&self) {
        self.0.0.store(true, Ordering::Release);
        let waker = self.0.1.lock().unwrap().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn has_waker(&self) -> bool {
        self.0.1.lock().unwrap().is_some()
    }
}

impl Future for Gate {
    type Output = ();
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        *self.0.1.lock().unwrap() = Some(context.waker().clone());
        if self.0.0.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

contract! {
    fn a_ready_future_is_polled_once() {
        let borrowed = Rc::new(5);
        let polls = Cell::new(0);
        let output = ramie::block_on(async {
            polls.set(polls.get() + 1);
            Rc::clone(&borrowed)
        });
        assert_eq!((*output, polls.get()), (5, 1));
        assert_eq!(ramie::try_block_on(ready("x")).unwrap(), "x");
    }

    /// What can be turned into a future will do.
    fn into_future() {
        struct Into(u32);
        impl IntoFuture for Into {
            type Output = u32;
            type IntoFuture = std::future::Ready<u32>;
            fn into_future(self) -> Self::IntoFuture {
                ready(self.0)
            }
        }
        assert_eq!(ramie::block_on(Into(6)), 6);
        assert_eq!(ramie::try_block_on(Into(7)).unwrap(), 7);
    }

    fn woken_before_poll_returns() {
        let polls = Cell::new(0);
        ramie::block_on(after(100, |waker| {
            polls.set(polls.get() + 1);
            match polls.get() % 3 {
                0 => waker.wake_by_ref(),
                1 => std::convert::identity(waker.clone()).wake(),
                _ => (0..5).for_each(|_| waker.wake_by_ref()),
            }
        }));
        assert_eq!(polls.get(), 100, "polled for each wake-up, and not more");
    }

    fn woken_by_a_thread() {
        for n in 0..50_u64 {
            let mut threads = Vec::new();
            ramie::block_on(after(3, |waker| {
                let waker = waker.clone();
                threads.push(std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_micros(n * 7 % 200));
                    waker.wake();
                }));
            }));
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        }
    }

    /// Not polled before somebody wakes it, though others unpark the fiber; and the fiber's park
    /// token is still there afterwards.
    fn the_park_token_is_the_users() {
        ramie::current().unpark();
        let polls = Cell::new(0);
        let me = ramie::current();
        let mut thread = None;
        ramie::block_on(after(1, |waker| {
            polls.set(polls.get() + 1);
            let (me, waker) = (me.clone(), waker.clone());
            thread = Some(std::thread::spawn(move || {
                me.unpark();
                std::thread::sleep(2 * MS);
                waker.wake();
            }));
        }));
        thread.unwrap().join().unwrap();
        assert_eq!(polls.get(), 1);
        ramie::park();
    }

    fn woken_after_the_end() {
        let kept = RefCell::new(Vec::new());
        for _ in 0..10 {
            ramie::block_on(after(2, |waker| {
                waker.wake_by_ref();
                kept.borrow_mut().push(waker.clone());
            }));
            kept.borrow().iter().for_each(Waker::wake_by_ref);
            // They are another call's: this one is not woken by them.
            let polls = Cell::new(0);
            ramie::block_on(after(1, |waker| {
                polls.set(polls.get() + 1);
                kept.borrow().iter().for_each(Waker::wake_by_ref);
                let waker = waker.clone();
                std::thread::spawn(move || {
                    std::thread::sleep(MS);
                    waker.wake();
                });
            }));
            assert_eq!(polls.get(), 1);
        }
        let waker = kept.borrow()[0].clone();
        assert!(waker.will_wake(&kept.borrow()[1]) && !waker.will_wake(&kept.borrow()[3]));
        std::thread::spawn(move || kept.into_inner().into_iter().for_each(Waker::wake));
        drop(waker);
    }

    /// Wake-ups that come in masses, from several threads: none is lost.
    fn storms() {
        const ROUNDS: usize = 2_000;
        let count = Arc::new(AtomicUsize::new(0));
        let slot = Arc::new(Mutex::new(None::<Waker>));
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (count, slot) = (Arc::clone(&count), Arc::clone(&slot));
                std::thread::spawn(move || {
                    for n in 0..ROUNDS {
                        count.fetch_add(1, Ordering::Relaxed);
                        let waker = slot.lock().unwrap().clone();
                        if let Some(waker) = waker {
                            (0..n % 4).for_each(|_| waker.wake_by_ref());
                            waker.wake();
                        }
                    }
                })
            })
            .collect();
        ramie::block_on(poll_fn(|context| {
            *slot.lock().unwrap() = Some(context.waker().clone());
            match count.load(Ordering::Relaxed) {
                n if n == 3 * ROUNDS => Poll::Ready(()),
                _ => Poll::Pending,
            }
        }));
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    /// A future that wakes its waker when it is dropped, and calls all sorts of things.
    fn woken_by_a_destructor() {
        struct Wakes(Option<Waker>);
        impl Future for Wakes {
            type Output = ();
            fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
                let first = self.0.is_none();
                self.0 = Some(context.waker().clone());
                context.waker().wake_by_ref();
                if first { Poll::Pending } else { Poll::Ready(()) }
            }
        }
        impl Drop for Wakes {
            fn drop(&mut self) {
                self.0.take().unwrap().wake();
                ramie::block_on(after(1, Waker::wake_by_ref));
                ramie::yield_now();
            }
        }
        ramie::block_on(Wakes(None));
        let panic = catch_unwind(AssertUnwindSafe(|| {
            let wakes = Wakes(Some(Waker::noop().clone()));
            ramie::block_on(async move {
                let _wakes = wakes;
                panic!("deliberate");
            });
        }));
        assert!(panic.is_err());
    }

    fn a_panic_goes_on_in_the_caller() {
        struct Counts<'a>(&'a Cell<u32>);
        impl Drop for Counts<'_> {
            fn drop(&mut self) {
                self.0.set(self.0.get() + 1);
            }
        }
        let drops = Cell::new(0);
        let counts = Counts(&drops);
        let panic = catch_unwind(AssertUnwindSafe(|| {
            ramie::block_on(async {
                let _counts = counts;
                after(2, Waker::wake_by_ref).await;
                panic!("in poll");
            });
        }));
        assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"in poll"));
        assert_eq!(drops.get(), 1);
        ramie::block_on(after(1, Waker::wake_by_ref));
    }

    fn nested_calls_and_io_inside() {
        let text = ramie::block_on(async {
            after(1, Waker::wake_by_ref).await;
            let inner = ramie::block_on(async {
                after(2, Waker::wake_by_ref).await;
                ramie::sleep(MS);
                ramie::fs::read_to_string("Cargo.toml").unwrap()
            });
            after(1, Waker::wake_by_ref).await;
            inner
        });
        assert!(text.contains("ramie"));
    }

    fn no_call_allocates_more_than_once() {
        let allocated = |polls| {
            let before = ALLOCATIONS.get();
            ramie::block_on(after(polls, Waker::wake_by_ref));
            ALLOCATIONS.get() - before
        };
        allocated(1);
        for polls in [0, 1, 1000] {
            assert!(allocated(polls) <= 1, "{polls} polls");
        }
    }
}

/// A fiber that awaits something lets others run, and so does one that wakes itself all the time.
#[test]
fn others_run_meanwhile() {
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let gate = Gate::default();
        let opened = Arc::new(AtomicBool::new(false));
        let (theirs, flag) = (gate.clone(), Arc::clone(&opened));
        let other = ramie::spawn(move || {
            theirs.open();
            ramie::yield_now();
            flag.store(true, Ordering::Relaxed);
        });
        ramie::block_on(gate);
        ramie::block_on(poll_fn(|context| {
            context.waker().wake_by_ref();
            if opened.load(Ordering::Relaxed) { Poll::Ready(()) } else { Poll::Pending }
        }));
        other.join().unwrap();
    });
}

#[test]
fn no_suspend_sees_it() {
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        assert_eq!(ramie::no_suspend(|| ramie::block_on(ready(1))), 1);
        assert_eq!(ramie::no_suspend(|| ramie::try_block_on(ready(1))).unwrap(), 1);
        let caught = catch_unwind(|| ramie::no_suspend(|| ramie::block_on(pending::<()>())));
        assert!(caught.is_err());
    });
}

/// Wakers outlive their fibers and their runtime, also those of fibers that are suspended for ever.
#[test]
fn wakers_outlive_everything() {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        let wakers = Arc::new(Mutex::new(Vec::new()));
        let rt = ramie::Runtime::builder().workers(workers).build().unwrap();
        rt.run(|| {
            for n in 0..8 {
                let wakers = Arc::clone(&wakers);
                let fiber = ramie::Builder::new().worker(n % workers).spawn(move || {
                    ramie::block_on(after(1 + n % 2, move |waker| {
                        wakers.lock().unwrap().push(waker.clone());
                        if n % 4 < 2 {
                            waker.wake_by_ref();
                        }
                    }));
                });
                drop(fiber.unwrap());
            }
            eventually("all are polled", || wakers.lock().unwrap().len() >= 8);
        });
        let left = rt.shutdown_timeout(200 * MS);
        assert_eq!(left, 4, "{workers} workers");
        for waker in wakers.lock().unwrap().drain(..) {
            waker.wake_by_ref();
            std::thread::spawn(move || waker.wake()).join().unwrap();
        }
    }
}

// ---- Cancellation -------------------------------------------------------------------------------

/// A future whose destructor does I/O.
struct Cleans(Gate, Arc<AtomicUsize>);

impl Future for Cleans {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(context)
    }
}

impl Drop for Cleans {
    fn drop(&mut self) {
        ramie::fs::metadata("Cargo.toml").expect("the request has been reported");
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_request_ends_try_block_on() {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        runtime(workers).run(|| {
            for n in 0..200_u32 {
                let gate = Gate::default();
                let cleaned = Arc::new(AtomicUsize::new(0));
                let future = Cleans(gate.clone(), Arc::clone(&cleaned));
                let fiber = ramie::Builder::new()
                    .worker(workers - 1)
                    .spawn(move || {
                        let error = ramie::try_block_on(future).unwrap_err();
                        assert!(ramie::is_cancelled(&error));
                        ramie::fs::metadata("Cargo.toml").expect("reported once");
                    })
                    .unwrap();
                if n % 2 == 0 {
                    eventually("it waits", || gate.has_waker());
                }
                if n % 3 == 0 {
                    std::thread::scope(|scope| drop(scope.spawn(|| fiber.cancel())));
                } else {
                    fiber.cancel();
                }
                fiber.join().unwrap();
                assert_eq!(cleaned.load(Ordering::SeqCst), 1);
                gate.open();
            }
        });
    }
}

/// Neither `block_on` nor a plain thread knows requests.
#[test]
fn block_on_ignores_requests() {
    let _watchdog = watch::dog();
    runtime(2).run(|| {
        let gate = Gate::default();
        let theirs = gate.clone();
        let fiber = ramie::spawn(move || {
            ramie::block_on(theirs);
            ramie::fs::metadata("Cargo.toml").map(drop)
        });
        eventually("it waits", || gate.has_waker());
        fiber.cancel();
        ramie::sleep(2 * MS);
        assert!(!fiber.is_finished());
        gate.open();
        assert!(ramie::is_cancelled(&fiber.join().unwrap().unwrap_err()), "what comes next");
    });
}

#[test]
fn a_future_that_wakes_itself_can_be_cancelled() {
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let fiber = ramie::spawn(|| ramie::try_block_on(after(usize::MAX, Waker::wake_by_ref)));
        ramie::sleep(MS);
        fiber.cancel();
        assert!(ramie::is_cancelled(&fiber.join().unwrap().unwrap_err()));
    });
}

#[test]
fn a_cancelled_future_can_be_gone_on_with() {
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let gate = Gate::default();
        let theirs = gate.clone();
        let fiber = ramie::spawn(move || {
            let mut future = pin!(async {
                theirs.await;
                7
            });
            let error = ramie::try_block_on(future.as_mut()).unwrap_err();
            assert!(ramie::is_cancelled(&error));
            ramie::try_block_on(future)
        });
        eventually("it waits", || gate.has_waker());
        fiber.cancel();
        ramie::sleep(MS);
        gate.open();
        assert_eq!(fiber.join().unwrap().unwrap(), 7);
    });
}

/// A request and the wake-up race; whichever comes first, nothing is lost or doubled.
#[test]
fn requests_race_with_wakers() {
    let _watchdog = watch::dog();
    let (mut ends, mut outputs, mut late) = (0, 0, 0);
    runtime(2).run(|| {
        for n in 0..2_000_u32 {
            let gate = Gate::default();
            let theirs = gate.clone();
            let fiber = ramie::Builder::new().worker(1);
            let fiber = fiber
                .spawn(move || {
                    let output = ramie::try_block_on(theirs);
                    let next = ramie::fs::metadata("Cargo.toml").map(drop);
                    (output, next)
                })
                .unwrap();
            if n % 2 == 0 {
                eventually("it waits", || gate.has_waker());
            }
            let thread = std::thread::spawn(move || {
                (0..n % 64 * 16).for_each(|_| std::hint::spin_loop());
                gate.open();
            });
            (0..n % 61 * 16).for_each(|_| std::hint::spin_loop());
            fiber.cancel();
            match fiber.join().unwrap() {
                (Err(error), Ok(())) => {
                    assert!(ramie::is_cancelled(&error));
                    ends += 1;
                }
                (Ok(()), Err(error)) => {
                    assert!(ramie::is_cancelled(&error));
                    outputs += 1;
                }
                (Ok(()), Ok(())) => late += 1,
                (Err(_), Err(_)) => panic!("reported twice"),
            }
            eventually("the thread ends", || thread.is_finished());
        }
    });
    println!("{ends} ended, {outputs} kept their output, {late} requests came too late");
}

#[test]
fn the_end_of_the_runtime_ends_try_block_on() {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        let rt = runtime(workers);
        let fibers: Vec<_> = rt.run(|| {
            let spawn = |n| ramie::Builder::new().worker(n % workers);
            let fibers = (0..4)
                .map(|n| spawn(n).spawn(|| ramie::try_block_on(pending::<()>())).unwrap())
                .collect();
            ramie::sleep(2 * MS);
            fibers
        });
        assert_eq!(rt.shutdown_timeout(Duration::from_secs(20)), 0);
        for fiber in fibers {
            assert!(ramie::is_cancelled(&fiber.join().unwrap().unwrap_err()));
        }
    }
}

#[test]
fn spawned_futures() {
    let _watchdog = watch::dog();
    runtime(2).run(|| {
        let gate = Gate::default();
        let (theirs, shared) = (gate.clone(), Rc::new(3));
        let there = ramie::spawn_future(async move {
            after(3, Waker::wake_by_ref).await;
            theirs.open();
            4
        });
        let local = Rc::clone(&shared);
        let here = ramie::spawn_future_local(async move {
            gate.await;
            *local
        });
        assert_eq!(ramie::block_on(async { here.await.unwrap() + there.await.unwrap() }), 7);
    });
}

/// I/O in `poll` suspends the fiber, and a request reaches it there.
#[test]
fn io_in_poll() {
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let (reader, writer) = io::pipe().unwrap();
        let mut reader = ramie::fs::File::from(std::os::fd::OwnedFd::from(reader));
        let mut writer = ramie::fs::File::from(std::os::fd::OwnedFd::from(writer));
        let fiber = ramie::spawn_future(async move {
            let mut bytes = [0; 4];
            reader.read_exact(&mut bytes)?;
            after(1, Waker::wake_by_ref).await;
            let next = reader.read(&mut bytes).unwrap_err();
            assert!(ramie::is_cancelled(&next));
            io::Result::Ok(bytes)
        });
        writer.write_all(b"poll").unwrap();
        ramie::sleep(MS);
        fiber.cancel();
        assert_eq!(fiber.join().unwrap().unwrap(), *b"poll");
    });
}
