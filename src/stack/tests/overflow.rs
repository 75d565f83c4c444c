//! Faults: the report of an overflow, and everybody else's faults reaching everybody else.

use super::super::{Stack, overflow};
use super::{assert_killed, assert_passed, child, pool};
use crate::arch::{Context, Entry};
use crate::sys::signal;
use std::hint::black_box;
use std::mem::MaybeUninit;
use std::process::Output;

#[inline(never)]
fn recurse(depth: usize) -> usize {
    let mut frame = [depth as u8; 512];
    black_box(&mut frame);
    if depth == usize::MAX { 0 } else { recurse(depth + 1) + frame[depth % 512] as usize }
}

/// Runs a body on `stack`, once, to its end.
fn run_on<E: Entry>(stack: &Stack, arg: *mut ()) -> usize {
    let mut context = MaybeUninit::<Context>::uninit();
    let this = context.as_mut_ptr();
    // SAFETY: nothing else runs on `stack`, the context stays here until its body has ended, and
    // `resume` is called once because these bodies do not suspend.
    unsafe {
        Context::init::<E>(this, stack.top(), || stack.limit(), arg);
        Context::resume(this, 0)
    }
}

struct Overflowing;

impl Entry for Overflowing {
    unsafe fn enter(_arg: *mut (), _word: usize) -> usize {
        recurse(0)
    }
}

fn overflow_a_fiber() {
    overflow::install().unwrap();
    let stack = pool(64 << 10).alloc().unwrap();
    run_on::<Overflowing>(&stack, std::ptr::null_mut());
    println!("survived");
}

#[test]
#[ignore = "run by the test of the same name"]
fn child_overflow() {
    overflow_a_fiber();
}

#[test]
#[ignore = "run by the test of the same name"]
fn child_overflow_named() {
    overflow::set_describe(|write| {
        write(b"worker of ");
        write(b"bees");
    });
    overflow_a_fiber();
}

#[test]
#[ignore = "run by the test of the same name"]
fn child_overflow_long_name() {
    overflow::set_describe(|write| (0..100).for_each(|_| write(b"0123456789")));
    overflow_a_fiber();
}

#[track_caller]
fn assert_overflow_of(output: &Output, name: &str) {
    assert_killed(output, libc::SIGABRT);
    let text = String::from_utf8_lossy(&output.stderr);
    let report = format!(
        "\nfiber '{name}' has overflowed its stack\n\
         its stack has 48 KiB and a guard of 16 KiB: spawn it with a larger stack_size\n\
         fatal runtime error: stack overflow, aborting\n"
    );
    assert!(text.ends_with(&report), "{text}");
}

#[test]
fn an_overflow_is_reported_as_std_does() {
    assert_overflow_of(&child("stack::tests::overflow::child_overflow"), "<unknown>");
}

#[test]
fn an_overflow_names_the_fiber() {
    let output = child("stack::tests::overflow::child_overflow_named");
    assert_overflow_of(&output, "worker of bees");
    let output = child("stack::tests::overflow::child_overflow_long_name");
    assert_overflow_of(&output, &"0123456789".repeat(52)[..512]);
}

/// A fault of the program's own: no guard is near.
fn fault_at(address: usize) {
    // SAFETY: not sound: it must fault.
    unsafe { std::ptr::without_provenance_mut::<u8>(black_box(address)).write_volatile(1) };
    println!("survived");
}

#[test]
#[ignore = "run by the test of the same name"]
fn child_null() {
    overflow::install().unwrap();
    fault_at(0x10);
}

#[test]
fn another_fault_kills_as_ever() {
    let output = child("stack::tests::overflow::child_null");
    assert_killed(&output, libc::SIGSEGV);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("overflowed"), "{output:?}");
}

#[test]
#[ignore = "run by the test of the same name"]
fn child_thread_overflow() {
    overflow::install().unwrap();
    let thread = std::thread::Builder::new().name("plain".into());
    thread.spawn(|| recurse(0)).unwrap().join().unwrap();
}

#[test]
fn a_thread_that_overflows_is_reported_by_std() {
    let output = child("stack::tests::overflow::child_thread_overflow");
    assert_killed(&output, libc::SIGABRT);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("thread 'plain'") && text.contains("has overflowed its stack"), "{text}");
}

/// A program's own handler: leaves with what it was told about the fault.
extern "C" fn leave(signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel's siginfo; `_exit` returns to nobody.
    unsafe { libc::_exit(((*info).si_addr().addr() & 0x7f) as i32 + (signal - libc::SIGSEGV)) }
}

extern "C" fn leave_plainly(signal: i32) {
    // SAFETY: returns to nobody.
    unsafe { libc::_exit(60 + signal) }
}

fn install_own(handler: usize, flags: i32) {
    // SAFETY: all zeroes is a valid `sigaction`; the handlers above only leave.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        assert_eq!(libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut()), 0);
    }
}

#[test]
#[ignore = "run by the test of the same name"]
fn child_handler_before() {
    install_own(leave as *const () as usize, libc::SA_SIGINFO);
    overflow::install().unwrap();
    fault_at(0x33);
}

#[test]
#[ignore = "run by the test of the same name"]
fn child_handler_before_plain() {
    install_own(leave_plainly as *const () as usize, 0);
    overflow::install().unwrap();
    fault_at(0x33);
}

#[test]
#[ignore = "run by the test of the same name"]
fn child_handler_before_overflow() {
    install_own(leave as *const () as usize, libc::SA_SIGINFO);
    overflow_a_fiber();
}

#[test]
#[ignore = "run by the test of the same name"]
fn child_handler_after() {
    overflow::install().unwrap();
    install_own(leave as *const () as usize, libc::SA_SIGINFO);
    fault_at(0x34);
}

#[test]
fn handlers_of_the_program_are_reached() {
    let code = |test: &str| child(&format!("stack::tests::overflow::{test}")).status.code();
    assert_eq!(code("child_handler_before"), Some(0x33));
    assert_eq!(code("child_handler_before_plain"), Some(60 + libc::SIGSEGV));
    assert_eq!(code("child_handler_after"), Some(0x34));
    let output = child("stack::tests::overflow::child_handler_before_overflow");
    assert_overflow_of(&output, "<unknown>");
}

extern "C" fn count(_signal: i32) {
    signal::write_stderr(b"once;");
}

#[test]
#[ignore = "run by the test of the same name"]
fn child_sent_one_shot() {
    install_own(count as *const () as usize, libc::SA_RESETHAND);
    overflow::install().unwrap();
    signal::raise(libc::SIGSEGV);
    signal::write_stderr(b"still here;");
    signal::raise(libc::SIGSEGV);
    println!("survived");
}

#[test]
#[ignore = "run by the test of the same name"]
fn child_sent_ignored() {
    install_own(libc::SIG_IGN, 0);
    overflow::install().unwrap();
    signal::raise(libc::SIGSEGV);
    signal::write_stderr(b"still here;");
    fault_at(0x10);
}

#[test]
#[ignore = "run by the test of the same name"]
fn child_sent_default() {
    install_own(libc::SIG_DFL, 0);
    overflow::install().unwrap();
    signal::raise(libc::SIGSEGV);
    println!("survived");
}

#[test]
fn signals_that_were_sent_do_what_the_earlier_action_says() {
    let cases = [("one_shot", "once;still here;"), ("ignored", "still here;"), ("default", "")];
    for (test, stderr) in cases {
        let output = child(&format!("stack::tests::overflow::child_sent_{test}"));
        assert_killed(&output, libc::SIGSEGV);
        assert!(String::from_utf8_lossy(&output.stderr).ends_with(stderr), "{output:?}");
        assert!(!String::from_utf8_lossy(&output.stdout).contains("survived"), "{output:?}");
    }
}

/// Runs `body` on a thread made by C code, which has no alternate stack.
fn on_c_thread(body: fn()) {
    extern "C" fn start(body: *mut libc::c_void) -> *mut libc::c_void {
        // SAFETY: `on_c_thread` passes a pointer to a `fn()` that outlives the thread.
        unsafe { (*body.cast::<fn()>())() };
        std::ptr::null_mut()
    }
    let mut body = body;
    let mut thread = MaybeUninit::uninit();
    // SAFETY: `body` lives until the thread is joined.
    unsafe {
        let arg = (&raw mut body).cast();
        assert_eq!(libc::pthread_create(thread.as_mut_ptr(), std::ptr::null(), start, arg), 0);
        assert_eq!(libc::pthread_join(thread.assume_init(), std::ptr::null_mut()), 0);
    }
}

#[test]
#[ignore = "run by the test of the same name"]
fn child_c_thread() {
    on_c_thread(|| {
        assert_eq!(signal::alternate_stack(), None);
        let _altstack = overflow::ensure_altstack().unwrap();
        overflow_a_fiber();
    });
}

#[test]
#[ignore = "run by the test of the same name"]
fn child_altstack_is_scoped() {
    on_c_thread(|| {
        let altstack = overflow::ensure_altstack().unwrap();
        let ours = signal::alternate_stack().unwrap();
        assert!(ours.1 >= 16 << 10);
        let second = overflow::ensure_altstack().unwrap();
        drop(second);
        assert_eq!(signal::alternate_stack(), Some(ours), "it has one: it is left alone");
        drop(altstack);
        assert_eq!(signal::alternate_stack(), None);
    });
}

#[test]
fn threads_of_c_code_get_an_alternate_stack() {
    assert_overflow_of(&child("stack::tests::overflow::child_c_thread"), "<unknown>");
    assert_passed(&child("stack::tests::overflow::child_altstack_is_scoped"));
}
