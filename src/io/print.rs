//! `print!` and its like, to the outputs that suspend.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::Write;

use super::{stderr, stdout};
use crate::cancel;

/// For the macros, which a request to end does not reach: it would make them panic.
#[doc(hidden)]
pub fn _print(args: fmt::Arguments<'_>) {
    if let Err(error) = cancel::shield(|| stdout().lock().write_fmt(args)) {
        panic!("failed printing to stdout: {error}");
    }
}

#[doc(hidden)]
pub fn _eprint(args: fmt::Arguments<'_>) {
    if let Err(error) = cancel::shield(|| stderr().lock().write_fmt(args)) {
        panic!("failed printing to stderr: {error}");
    }
}

/// As [`std::print!`], to [`stdout`], and suspends where it has to wait. The output of a test is
/// not captured.
///
/// # Panics
/// If writing fails.
///
/// # Cancellation
/// Cannot be cancelled.
#[macro_export]
macro_rules! print {
    ($($arg:tt)*) => { $crate::io::_print(::std::format_args!($($arg)*)) };
}

/// As [`print!`](crate::print), with a newline, and in one piece.
///
/// # Panics
/// If writing fails.
///
/// # Cancellation
/// Cannot be cancelled.
///
/// # Examples
/// ```
/// ramie::Runtime::new()?.run(|| ramie::println!("{} fibers", 2));
/// # std::io::Result::Ok(())
/// ```
#[macro_export]
macro_rules! println {
    () => { $crate::io::_print(::std::format_args!("\n")) };
    ($($arg:tt)*) => {
        $crate::io::_print(::std::format_args!("{}\n", ::std::format_args!($($arg)*)))
    };
}

/// As [`print!`](crate::print), to [`stderr`].
///
/// # Panics
/// If writing fails.
///
/// # Cancellation
/// Cannot be cancelled.
#[macro_export]
macro_rules! eprint {
    ($($arg:tt)*) => { $crate::io::_eprint(::std::format_args!($($arg)*)) };
}

/// As [`println!`](crate::println), to [`stderr`].
///
/// # Panics
/// If writing fails.
///
/// # Cancellation
/// Cannot be cancelled.
#[macro_export]
macro_rules! eprintln {
    () => { $crate::io::_eprint(::std::format_args!("\n")) };
    ($($arg:tt)*) => {
        $crate::io::_eprint(::std::format_args!("{}\n", ::std::format_args!($($arg)*)))
    };
}
