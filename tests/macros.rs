//! `#[ramie::test]` in all its forms, and `#[ramie::main]` on functions that are not the program's.
//! What must not compile is among the examples of the two macros' documentation.

mod common;

use std::process::{ExitCode, Termination};
use std::time::Duration;

#[ramie::test]
fn runs_on_a_fiber() {
    assert!(ramie::is_fiber());
}

#[ramie::test]
#[should_panic(expected = "on purpose")]
fn keeps_should_panic() {
    ramie::yield_now();
    panic!("on purpose");
}

#[ramie::test]
#[should_panic]
fn a_failed_assertion_fails_the_test() {
    assert_eq!(ramie::spawn(|| 1).join().unwrap(), 2);
}

#[ramie::test]
#[ignore = "it would fail: the attribute must keep it from running"]
fn keeps_ignore() {
    panic!("ran although it is to be ignored");
}

#[ramie::test]
fn returns_a_result() -> Result<(), Box<dyn std::error::Error>> {
    let number: u32 = "17".parse()?;
    assert_eq!(number, 17);
    Ok(())
}

#[ramie::test(
    workers = 2,
    stack_size = 64 << 10,
    ring_entries = 16,
    blocking_threads = 1,
    spin = Duration::from_micros(5),
    shutdown_timeout = Duration::from_secs(1),
    thread_name = format!("{}-test", "macro"),
)]
fn takes_arguments() {
    let thread = ramie::Builder::new()
        .worker(1)
        .spawn(|| std::thread::current().name().map(String::from))
        .unwrap()
        .join()
        .unwrap();
    assert_eq!(thread.as_deref(), Some("macro-test-1"));
    assert!(ramie::stack_remaining().unwrap() < 64 << 10);
    assert!(ramie::Builder::new().worker(2).spawn(|| ()).is_err());
}

#[ramie::test(workers = 0)]
#[should_panic(expected = "cannot start the runtime: a runtime needs at least one worker")]
fn a_runtime_that_cannot_be_built_fails_the_test() {}

#[ramie::test]
fn inner_attributes_stay_in_force() {
    #![allow(unused_variables)]
    #![deny(clippy::all)]
    let unused = 1;
}

/// The macro's own names must not be seen by the block.
#[ramie::test]
fn is_hygienic() {
    let runtime = "mine";
    let error = 5;
    assert_eq!((runtime, error), ("mine", 5));
}

mod shadows {
    #![allow(dead_code)]
    pub enum Result {}
    pub struct Ok;
    pub struct Err;

    #[ramie::test]
    fn names_of_the_prelude_may_be_shadowed() {
        assert!(ramie::is_fiber());
    }
}

/// `#[ramie::main]` takes any function.
#[ramie::main(workers = 1)]
fn returns_early() -> Result<u32, std::num::ParseIntError> {
    if ramie::is_fiber() {
        return Ok("5".parse::<u32>()? + 1);
    }
    "not a number".parse()
}

#[ramie::main]
pub(crate) fn returns_impl_trait() -> impl Termination {
    ExitCode::from(3)
}

#[ramie::main]
#[allow(clippy::needless_return, reason = "attributes after ours stay")]
fn returns_nothing() {
    return;
}

#[ramie::main]
fn never_returns() -> ! {
    panic!("never")
}

#[test]
fn main_on_other_functions() {
    assert_eq!(returns_early(), Ok(6));
    assert_eq!(returns_impl_trait().report(), ExitCode::from(3));
    returns_nothing();
    let caught = std::panic::catch_unwind(|| never_returns());
    assert_eq!(caught.unwrap_err().downcast_ref::<&str>(), Some(&"never"));
}

#[ramie::main(ring_entries = 0)]
fn cannot_start() {
    println!("ran");
}

/// The process says why it cannot start, and exits with code 1.
#[test]
fn main_reports_what_is_wrong_and_exits() {
    let output = common::child("main_reports_what_is_wrong_and_exits", cannot_start);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("cannot start the runtime: ring_entries must be"), "{error}");
    assert!(!String::from_utf8_lossy(&output.stdout).contains("\nran"), "{output:?}");
}
