//! What the tests of structured concurrency share.

use super::{eventually, runtime, watch};
use std::any::Any;
use std::os::fd::OwnedFd;

/// Runs a body as the main fiber of one worker and of two, and sees that nothing is left.
pub fn on_one_and_two(body: impl Fn(usize)) {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        let rt = runtime(workers);
        rt.run(|| body(workers));
        eventually("no fiber is left", || rt.tick() == 0 && rt.metrics().live_fibers == 0);
    }
}

/// The text of a panic.
pub fn text(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<&str>() {
        Ok(text) => text.to_string(),
        Err(panic) => *panic.downcast::<String>().expect("a text"),
    }
}

/// A pipe, read end first.
pub fn pipe() -> (ramie::fs::File, ramie::fs::File) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    (OwnedFd::from(reader).into(), OwnedFd::from(writer).into())
}
