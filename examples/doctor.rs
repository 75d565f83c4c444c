//! What this machine offers to ramie, what a runtime makes of it, and what would give more:
//!
//! ```text
//! cargo run --example doctor
//! RAMIE_CAPS=linux-6.1 cargo run --example doctor     as if on that kernel
//! ```
//!
//! Ends with 0 if runtimes can be built here, whichever way they reach the kernel; else with 1.

use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    // Who reads only the first lines, as `head` does, has seen what it wants.
    let say = |line: std::fmt::Arguments<'_>| _ = writeln!(io::stdout(), "{line}");
    say(format_args!("{}", ramie::probe()));
    match ramie::Runtime::builder().workers(1).build() {
        Ok(runtime) => {
            let this = std::env::args_os().next().unwrap_or_default();
            let size = runtime.run(|| ramie::fs::metadata(this).map(|file| file.len()));
            match size {
                Ok(_) => {
                    say(format_args!("\nA runtime was built and has done its first operation."))
                }
                Err(error) => {
                    say(format_args!("\nA runtime was built. Its first operation: {error}"))
                }
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(format_args!("\nNo runtime can be built: {error}"));
            ExitCode::FAILURE
        }
    }
}
