//! SHA-256 sums of every regular file below some paths, hashed by many fibers, printed in order.
//!
//! `sums PATH...` prints, byte for byte, what this pipeline prints on its standard output:
//!
//! ```text
//! find PATH... -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
//! ```
//!
//! The program is ordinary blocking code: `read_dir`, `open`, `read`, `write`. It has three steps,
//! one file each.
//!
//! 1. `walk` reads the directories, one level of the tree after the other, each level in parallel.
//! 2. `plan` puts the files found into the order of their complete names.
//! 3. `hash` starts a few jobs, and more while the disk is waited for. Each pulls the next file's
//!    number from a counter, hashes the file and hands the digest to `print`, which writes the
//!    lines in order.
//!
//! What holds a job's call up (the disk, a full pipe) is the runtime's concern: on a fiber the call
//! suspends, on a thread it blocks. `seam` is the only file that knows the difference.
//!
//! Where the pipeline has corner cases, this program follows it:
//! no PATH at all means `.`, as for GNU find; when no file is found, the line is that of empty
//! input, `e3b0...  -`, because GNU xargs then runs sha256sum once on nothing; a symbolic link is
//! never followed; a file found twice is printed twice; a name with a backslash, a line feed or a
//! carriage return is escaped and its line starts with a backslash.
//!
//! Where it differs: messages go to standard error under this program's name; the exit status is 1
//! if anything could not be read (xargs says 123), 2 for wrong usage, and 141, without a message,
//! when the reader of our output has gone (what a shell reports for SIGPIPE). A PATH may start with
//! a dash if it follows `--`. A directory whose path is longer than PATH_MAX is reported, not
//! entered (sha256sum could not open what lies below it either).

#![forbid(unsafe_code)]

mod args;
mod hash;
mod plan;
mod print;
mod report;
mod seam;
mod walk;

use args::{Command, Options};
use report::Report;
use std::process::ExitCode;
use std::sync::Arc;

const READER_GONE: u8 = 141;

fn main() -> ExitCode {
    let options = match args::parse(std::env::args_os().skip(1)) {
        Ok(Command::Sum(options)) => options,
        Ok(Command::Help) => {
            // A reader that has gone has read enough of the help.
            let _ = std::io::Write::write_all(&mut std::io::stdout(), args::HELP.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("sums: {message}\nTry 'sums --help'.");
            return ExitCode::from(2);
        }
    };
    let engine = options.engine;
    match engine.enter(move || sum(options)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("sums: cannot start: {}", report::message(&error));
            ExitCode::FAILURE
        }
    }
}

/// The whole program, on the main fiber (or thread).
fn sum(options: Options) -> ExitCode {
    let report = Arc::new(Report::new());
    let (roots, dirs) = walk::walk(options.engine, &options.paths, &report);
    report.walked();
    let plan = Arc::new(plan::Plan::new(roots, dirs));
    let written = hash::hash_all(options.engine, options.jobs, &plan, &report);
    report.clear();
    if options.stats {
        report.stats(options.engine);
    }
    match written {
        Ok(()) if report.errors() == 0 => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::from(READER_GONE),
        Err(error) => {
            eprintln!("sums: write error: {}", report::message(&error));
            ExitCode::FAILURE
        }
    }
}
