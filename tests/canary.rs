//! Faults on purpose, on fibers, one for each thing that a tool is trusted to find there. The lanes
//! `ci/asan.sh`, `ci/tsan.sh` and `ci/valgrind.sh` run them one by one, with `RAMIE_CANARY` set; a
//! fault that is *not* reported fails the lane. Nobody else should run them. The last ones are on
//! plain threads, for `ci/miri.sh`.

use ramie::Runtime;
use std::cell::UnsafeCell;
use std::hint::black_box;

fn only_in_a_lane() {
    assert!(std::env::var_os("RAMIE_CANARY").is_some(), "not sound: for the lanes only");
}

fn on_a_fiber(body: impl FnOnce() + Send + 'static) {
    only_in_a_lane();
    let workers = std::env::var("RAMIE_TEST_WORKERS").map_or(2, |n| n.parse().unwrap());
    let runtime = Runtime::builder().workers(workers).build().unwrap();
    runtime.run(|| ramie::spawn(body).join().unwrap());
}

#[test]
#[ignore = "must fail, with: stack-buffer-overflow"]
fn reads_past_a_frame() {
    on_a_fiber(|| {
        let mut frame = [0_u8; 40];
        let first = black_box(frame.as_mut_ptr());
        ramie::yield_now();
        // SAFETY: not sound, on purpose: one past the end of `frame`.
        black_box(unsafe { first.add(black_box(40)).read() });
    });
}

#[inline(never)]
fn address_of_a_local() -> *const u64 {
    let local = black_box(7);
    black_box(&raw const local)
}

#[test]
#[ignore = "must fail, with: stack-use-after-return"]
fn reads_a_frame_that_is_gone() {
    on_a_fiber(|| {
        let gone = address_of_a_local();
        ramie::yield_now();
        // SAFETY: not sound, on purpose: the local's function has returned.
        black_box(unsafe { gone.read() });
    });
}

#[test]
#[ignore = "must fail, with: heap-use-after-free"]
fn reads_what_another_fiber_freed() {
    on_a_fiber(|| {
        let value = Box::new(7_u64);
        let address = (&raw const *value).expose_provenance();
        ramie::spawn(move || drop(value)).join().unwrap();
        // SAFETY: not sound, on purpose: the other fiber has dropped the box.
        black_box(unsafe { std::ptr::with_exposed_provenance::<u64>(address).read() });
    });
}

struct Shared(UnsafeCell<u64>);

// SAFETY: not sound, on purpose: nothing orders the accesses.
unsafe impl Sync for Shared {}

#[test]
#[ignore = "must fail, with: data race"]
fn races_with_a_thread() {
    static SHARED: Shared = Shared(UnsafeCell::new(0));
    fn touch() {
        ramie::yield_now();
        // SAFETY: not sound, on purpose: a fiber and a thread do this, and nothing orders them.
        unsafe { *SHARED.0.get() += 1 };
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    on_a_fiber(|| {
        let thread = std::thread::spawn(touch);
        touch();
        thread.join().unwrap();
    });
}

#[test]
#[ignore = "must fail, with: data race"]
fn races_with_a_fiber_of_another_worker() {
    static SHARED: Shared = Shared(UnsafeCell::new(0));
    fn touch() {
        // SAFETY: not sound, on purpose: two fibers do this, and nothing orders them.
        unsafe { *SHARED.0.get() += 1 };
        // Keeps its worker busy, so that the other fiber is started elsewhere.
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    on_a_fiber(|| {
        let fibers = [ramie::spawn(touch), ramie::spawn(touch)];
        fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
    });
}

#[test]
#[ignore = "must fail, with: detected memory leaks"]
fn leaks() {
    on_a_fiber(|| {
        black_box(Box::leak(Box::new([7_u64; 100])));
    });
}

#[test]
#[ignore = "must fail, with: Undefined Behavior"]
fn writes_behind_a_reference() {
    fn write(exclusive: &mut u64, other: *mut u64) {
        // SAFETY: not sound, on purpose: `exclusive` is the only way to the value meanwhile.
        unsafe { other.write(8) };
        *exclusive += 1;
    }
    only_in_a_lane();
    let mut value = black_box(7_u64);
    let pointer = &raw mut value;
    // SAFETY: not sound, on purpose: see above.
    write(unsafe { &mut *pointer }, pointer);
    black_box(value);
}

#[test]
#[ignore = "must fail, with: Data race"]
fn two_threads_race() {
    static SHARED: Shared = Shared(UnsafeCell::new(0));
    only_in_a_lane();
    let other = std::thread::spawn(|| {
        // SAFETY: not sound, on purpose: nothing orders the two.
        unsafe { *SHARED.0.get() += 1 };
    });
    // SAFETY: as above.
    unsafe { *SHARED.0.get() += 1 };
    other.join().unwrap();
}

#[test]
#[ignore = "must fail, with: deadlock"]
fn waits_for_ever() {
    only_in_a_lane();
    let (mutex, condvar) = (ramie::sync::Mutex::new(()), ramie::sync::Condvar::new());
    drop(condvar.wait(mutex.lock().unwrap()));
}
