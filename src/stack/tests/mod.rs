//! Tests of the stacks. What must die, or would use up a limit of the process, runs in a child.
//!
//! Each test has a pool of its own, so that counts are exact.

mod measure;
mod overflow;
mod pool;
mod sanitize;

use super::guard::{Guards, Method};
use super::slab::Shape;
use super::{Pool, Stack};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};
use std::sync::Mutex;

fn pool_with(stack_bytes: usize, method: Method) -> &'static Pool {
    // Pools live for ever; reachable, so that leak checkers know it.
    static ALL: Mutex<Vec<&'static Pool>> = Mutex::new(Vec::new());
    let guards = Box::leak(Box::new(Guards::starting_with(method)));
    let pool = Box::leak(Box::new(Pool::new(stack_bytes, guards)));
    ALL.lock().unwrap().push(pool);
    pool
}

fn pool(stack_bytes: usize) -> &'static Pool {
    pool_with(stack_bytes, Method::Batched)
}

/// Writes one byte at the top of a stack, as a fiber's first frame would.
fn touch(stack: &Stack) {
    // SAFETY: the stack is ours and the byte lies below its top.
    unsafe { stack.top().sub(1).write(1) };
}

/// How many pages of a stack are resident.
fn resident(stack: &Stack) -> usize {
    let len = stack.top().addr() - stack.limit().addr();
    let mut pages = vec![0u8; len / crate::sys::mem::page_size()];
    // SAFETY: the range is mapped, and the vector has a byte for each of its pages.
    let result = unsafe { libc::mincore(stack.limit().cast(), len, pages.as_mut_ptr()) };
    assert_eq!(result, 0);
    pages.iter().filter(|&&page| page & 1 == 1).count()
}

/// Runs an ignored test of this binary in a process of its own.
fn child(test: &str) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"]);
    // Under a sanitizer: faults are ours to handle, alternate stacks ours to make; and a standard
    // library that is not instrumented has "races" of its own.
    let ours = "handle_segv=0:handle_sigbus=0:handle_abort=0:use_sigaltstack=0";
    command.env("ASAN_OPTIONS", format!("{ours}:detect_leaks=0"));
    command.env("TSAN_OPTIONS", format!("{ours}:report_bugs=0"));
    command.env("RUST_BACKTRACE", "0").output().unwrap()
}

#[track_caller]
fn assert_passed(output: &Output) {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
}

#[track_caller]
fn assert_killed(output: &Output, signal: i32) {
    assert_eq!(output.status.signal(), Some(signal), "{output:?}");
}

#[test]
fn guards_are_a_quarter_up_to_64_kib() {
    for (stack_kib, guard_kib) in [(16, 4), (32, 8), (64, 16), (256, 64), (1024, 64)] {
        assert_eq!(Shape::of(stack_kib << 10).guard_bytes, guard_kib << 10);
    }
}
