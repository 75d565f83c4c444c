//! Watching a descriptor while the code that wants to know goes on, or waits for other things, too.
//!
//! On a fiber the driver watches. Where there is no driver to be called back by, a thread does: the
//! descriptor's other handle and a pipe by which it is told to end are its own, so it borrows
//! nothing.
#![forbid(unsafe_code)]

use super::batch::Watch;
use super::current;
use crate::sys::socket::poll_many;
use std::io::{self, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::thread::{self, JoinHandle};

/// See the module's head. When it is dropped, it waits for the watch to end.
pub(crate) enum Readiness<'fd> {
    Driver(Watch<'fd>),
    Thread(Option<Watcher>),
}

/// A thread that watches.
pub(crate) struct Watcher {
    thread: JoinHandle<()>,
    /// Closed to have it end.
    stop: PipeWriter,
    ready: Arc<AtomicBool>,
}

impl<'fd> Readiness<'fd> {
    /// Watches until `fd` is ready for `events`, and wakes `waker` then.
    pub(crate) fn watch(fd: BorrowedFd<'fd>, events: i16, waker: Waker) -> io::Result<Self> {
        if current::can_suspend() {
            return Ok(Self::Driver(Watch::new(fd, events, waker)));
        }
        let fd = fd.try_clone_to_owned()?;
        let (end, stop) = io::pipe()?;
        let ready = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ready);
        let thread = thread::Builder::new().name("ramie-watch".into()).spawn(move || {
            let fds = [(fd.as_fd(), events), (end.as_fd(), libc::POLLIN)];
            let first = std::iter::repeat_with(|| poll_many(&fds, None)).find_map(|first| first);
            if first == Some(0) {
                told.store(true, Ordering::Release);
                waker.wake();
            }
        })?;
        Ok(Self::Thread(Some(Watcher { thread, stop, ready })))
    }

    /// Whether, or why, the watch has ended.
    pub(crate) fn answer(&mut self) -> Option<io::Result<()>> {
        match self {
            Self::Driver(watch) => watch.answer().map(|result| result.map(|_| ())),
            Self::Thread(watcher) => {
                watcher.as_ref().filter(|w| w.ready.load(Ordering::Acquire)).map(|_| Ok(()))
            }
        }
    }
}

impl Drop for Readiness<'_> {
    fn drop(&mut self) {
        if let Self::Thread(watcher) = self
            && let Some(Watcher { thread, stop, .. }) = watcher.take()
        {
            drop(stop);
            thread.join().expect("a watcher does not panic");
        }
    }
}
