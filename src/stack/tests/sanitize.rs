//! The sanitizer hooks around real switches. They run in every build and say most in these:
//!
//! ```text
//! export RUSTFLAGS="-Zsanitizer=address -Cunsafe-allow-abi-mismatch=sanitizer"   # or thread
//! cargo +nightly test --lib stack:: --target x86_64-unknown-linux-gnu
//! ```
//!
//! The second flag is for a standard library that is not instrumented. ThreadSanitizer then does
//! not see std's locks and reports them (and libtest's channel) as races: look for reports of these
//! tests only, or build std too (`-Zbuild-std`, without that flag).

use super::super::sanitize::{self, FiberState, ThreadState};
use super::super::{Cache, Stack};
use super::{assert_passed, child, pool};
use crate::arch::{Context, Entry};
use std::cell::UnsafeCell;
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::panic;

/// A fiber as the layer above would make it, cut down to the hooks.
struct Fiber {
    context: MaybeUninit<Context>,
    state: FiberState,
    body: fn(&mut dyn FnMut()),
}

impl Entry for Fiber {
    unsafe fn enter(fiber: *mut (), _word: usize) -> usize {
        let fiber: *mut Fiber = fiber.cast();
        // SAFETY: `run` passes a fiber that outlives this; it touches it through raw pointers only.
        // After the last suspension it is not resumed.
        unsafe {
            sanitize::after_suspend(&raw mut (*fiber).state);
            ((*fiber).body)(&mut || {
                sanitize::before_suspend(&raw mut (*fiber).state);
                Context::suspend((*fiber).context.as_mut_ptr(), 1);
                sanitize::after_suspend(&raw mut (*fiber).state);
            });
            sanitize::before_suspend(&raw mut (*fiber).state);
            Context::suspend((*fiber).context.as_mut_ptr(), 0)
        }
    }
}

/// Runs `count` fibers in turn on this thread until all have ended.
fn run(cache: &mut Cache, count: usize, body: fn(&mut dyn FnMut())) {
    let mut thread = ThreadState::new();
    let thread = &raw mut thread;
    let mut fibers: Vec<(Stack, Box<Fiber>)> = Vec::new();
    for _ in 0..count {
        let stack = cache.alloc().unwrap();
        let state = FiberState::new(&stack);
        let context = MaybeUninit::uninit();
        fibers.push((stack, Box::new(Fiber { context, state, body })));
        let (stack, fiber) = fibers.last_mut().unwrap();
        let fiber: *mut Fiber = &raw mut **fiber;
        // SAFETY: the stack is ours and unused, the fiber stays in its box until it has ended.
        unsafe {
            let context = (*fiber).context.as_mut_ptr();
            Context::init::<Fiber>(context, stack.top(), || stack.limit(), fiber.cast());
        }
    }
    while !fibers.is_empty() {
        let mut still = Vec::new();
        for (stack, mut fiber) in fibers.drain(..) {
            let this: *mut Fiber = &raw mut *fiber;
            // SAFETY: it was initialised and has not ended; nothing else runs on its stack.
            let word = unsafe {
                sanitize::before_resume(thread, &raw mut (*this).state);
                let word = Context::resume((*this).context.as_mut_ptr(), 0);
                sanitize::after_resume(thread, &raw mut (*this).state);
                word
            };
            if word == 1 {
                still.push((stack, fiber));
            } else {
                // SAFETY: it has ended.
                unsafe { sanitize::clear(&stack) };
                // SAFETY: as above, and it is not resumed.
                unsafe { sanitize::destroy(thread, &raw mut (*this).state) };
                cache.free(stack);
            }
        }
        fibers = still;
    }
}

/// Frames with addresses taken, kept across suspensions, and unwound.
fn busy(suspend: &mut dyn FnMut()) {
    fn descend(depth: usize, suspend: &mut dyn FnMut()) -> usize {
        let mut frame = [depth; 32];
        black_box(&mut frame);
        if depth == 20 {
            suspend();
            panic::resume_unwind(Box::new(7usize));
        }
        suspend();
        descend(depth + 1, suspend) + frame[depth]
    }
    for _ in 0..3 {
        let payload = panic::catch_unwind(panic::AssertUnwindSafe(|| descend(0, suspend)));
        assert_eq!(*payload.unwrap_err().downcast::<usize>().unwrap(), 7);
    }
}

#[test]
fn fibers_interleave_unwind_and_recycle() {
    let mut cache = Cache::new(pool(64 << 10));
    run(&mut cache, 20, busy);
    // More than a sanitizer has room for, unless ended ones are forgotten.
    for _ in 0..500 {
        run(&mut cache, 40, |suspend| suspend());
    }
}

#[test]
#[ignore = "run by the test of the same name"]
fn child_unwinds() {
    run(&mut Cache::new(pool(64 << 10)), 20, busy);
}

/// Without the hooks, AddressSanitizer warns of a panic on a stack that it does not know.
#[test]
fn sanitizers_know_the_stacks() {
    let output = child("stack::tests::sanitize::child_unwinds");
    assert_passed(&output);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("WARNING"), "{output:?}");
}

/// Unsynchronised, from fibers of one thread: no race, and none must be reported.
#[test]
fn fibers_of_one_thread_do_not_race() {
    struct Shared(UnsafeCell<usize>);
    // SAFETY: one thread uses it.
    unsafe impl Sync for Shared {}
    static SHARED: Shared = Shared(UnsafeCell::new(0));
    let mut cache = Cache::new(pool(64 << 10));
    run(&mut cache, 10, |suspend| {
        for _ in 0..100 {
            // SAFETY: one thread; no reference is made.
            unsafe { *SHARED.0.get() += 1 };
            suspend();
        }
    });
    // SAFETY: as above.
    assert_eq!(unsafe { *SHARED.0.get() }, 1000);
}

#[test]
#[ignore = "run by the test of the same name"]
fn child_writes_past_a_frame() {
    let mut cache = Cache::new(pool(64 << 10));
    run(&mut cache, 2, |suspend| {
        suspend();
        let mut frame = [0u8; 40];
        let first = black_box(frame.as_mut_ptr());
        // SAFETY: not sound: one past the end, where a sanitizer has its red zone, is read.
        black_box(unsafe { first.add(black_box(40)).read() });
    });
    println!("unnoticed");
}

/// The net catches: a bad read on a fiber, after a switch, is a report about that stack variable.
#[test]
fn address_sanitizer_watches_fibers() {
    let output = child("stack::tests::sanitize::child_writes_past_a_frame");
    let noticed = String::from_utf8_lossy(&output.stderr).contains("stack-buffer-overflow");
    assert_eq!(noticed, cfg!(sanitizer = "address"), "{output:?}");
    assert!(!String::from_utf8_lossy(&output.stderr).contains("WARNING"), "{output:?}");
}
