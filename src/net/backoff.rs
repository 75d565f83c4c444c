//! What an iterator over connections does when there is no room for another one.

use std::io;
use std::time::Duration;

const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(100);

/// How long the next accept is put off. A connection that could not be accepted for want of
/// descriptors or memory stays in line, so the next attempt fails at once as well: a server that
/// goes on after errors, as it should, would keep its core busy with that.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    pause: Duration,
}

impl Backoff {
    /// Accepts, after a pause if the last call found no room.
    pub(super) fn next<T>(&mut self, accept: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        if !self.pause.is_zero() {
            crate::time::sleep(self.pause);
        }
        let accepted = accept();
        self.pause = match &accepted {
            Err(error) if is_exhaustion(error) => (self.pause * 2).clamp(SHORTEST, LONGEST),
            _ => Duration::ZERO,
        };
        accepted
    }
}

fn is_exhaustion(error: &io::Error) -> bool {
    let wants = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    error.raw_os_error().is_some_and(|errno| wants.contains(&errno))
}
