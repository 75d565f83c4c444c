//! Connections of a listener that have been accepted before anybody asked for them.
//!
//! An iterator that comes back at once has the kernel accept the whole line (`Op::AcceptLine`),
//! which ends by itself: nothing stays armed. It returns the first, and keeps the others here, with
//! the listener and its clones.
//!
//! Invariant.  1. While somebody waits in the kernel for a connection of this listener, none is
//! kept here: who waits is counted under the lock, after a look at what is kept, and the line is
//! taken under the same lock, by nobody while others are counted.
//!
//! A line is taken only if it is sure to leave half of the descriptors that are free: the kernel
//! takes all there is, and cannot be stopped on its way.
//! How long a line gets is asked once: whoever calls `listen` again, with more room, breaks that
//! promise, and at worst runs out of descriptors with all connections kept here. Listeners of the
//! Unix family do not say; theirs is the system's limit, so with few descriptors they take no line.
//!
//! The lock is held across the taking, for a turn of the worker. Others wait that long, without
//! standing in line for the lock: if they went past it into the kernel, they would wait there while
//! connections are kept here. But if the holder has been left behind by the end of its runtime, it
//! keeps the lock, and nothing else: others then go past it, and no line is taken any more. Nobody
//! waits for ever in any case, since the holder's worker may be one that nobody runs for the time
//! being (worker 0, outside of `Runtime::run`); and a worker's thread that cannot suspend does not
//! wait at all, as the holder may be a fiber of its own. Nor does who has no time to wait: a
//! listener's timeout counts here, too, and in non-blocking mode it is none.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{self, OnceLock};
use std::time::{Duration, Instant};

use crate::cancel::{is_cancelled, is_requested, shield};
use crate::op::Op;
use crate::sched::lost::Home;
use crate::sched::{blocks_thread, blocks_worker, current, submit};
use crate::sync::{Mutex, MutexGuard, PoisonError, TryLockError};
use crate::sys::file;
use crate::sys::socket::{longest_line, poll_many, poll_now};
use crate::time::sleep;
use crate::yield_now;

/// How long to look at the listener before the next look at the lock.
const LOOK: Duration = Duration::from_millis(1);
/// How often a fiber lets others run before it sleeps between its looks at the lock.
const YIELDS: u32 = 8;
/// For how long nobody looks at the listener at all, and how often: a second together.
const PAUSE: Duration = Duration::from_micros(100);
const PAUSES: u32 = 10_000;
/// Attempts left out after lines that were empty in a row: 1, 3, 7 at most.
const MAX_EMPTY: u32 = 3;

/// See the module's head.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// Oldest first.
    ahead: Mutex<VecDeque<OwnedFd>>,
    /// Whose fiber takes the line, with the lock.
    taker: sync::Mutex<Option<Home>>,
    /// Somebody has waited that second in vain for the one who takes it: no need to do so again.
    overdue: AtomicBool,
    /// How many connections it may have at most, once somebody has asked.
    longest: OnceLock<u64>,
    /// Those who wait in the kernel.
    waiting: AtomicUsize,
}

/// What there is for one who asks for a connection.
pub(super) enum Entered<'a> {
    /// One that had been accepted.
    Taken(OwnedFd),
    /// Nothing. He is to wait in the kernel, and is counted until this is dropped.
    Waits(Waits<'a>),
}

#[derive(Debug)]
pub(super) struct Waits<'a>(&'a AtomicUsize);

/// As long as this is there, nothing more is accepted ahead.
#[derive(Debug)]
pub struct Expecting<'a>(#[expect(dead_code, reason = "dropped at the end")] Waits<'a>);

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed); // seen late, it costs a line that is not taken
    }
}

/// What an iterator knows about when to take the line.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The worker's pass in which it returned the last connection, and the number of that.
    returned: Option<(usize, u64)>,
    last: RawFd,
    /// Lines in a row that were empty, and attempts to leave out because of them.
    empty: u32,
    skip: u32,
}

impl Pace {
    /// `pass` is the current one, and `fd` is returned in it.
    pub(super) fn returned(&mut self, fd: RawFd, pass: Option<(usize, u64)>) {
        (self.last, self.returned) = (fd, pass);
    }

    /// Whether the iterator is asked again in the pass that it has returned the last one in. Who
    /// does something else first would keep what was accepted ahead from others.
    pub(super) fn is_prompt(&self, pass: Option<(usize, u64)>) -> bool {
        pass.is_some() && pass == self.returned
    }

    /// Whether to try now, as far as earlier attempts tell, and the number of descriptors: the
    /// lowest one that is free is given out first. Half of them may be in use, and a line may take
    /// half of the rest.
    fn is_worth_it(&mut self, longest: impl FnOnce() -> u64) -> bool {
        let skips = self.skip != 0;
        self.skip = self.skip.saturating_sub(1);
        let (used, limit) = (u64::from(self.last.unsigned_abs()), file::descriptor_limit());
        !skips && used < limit / 2 && longest() <= (limit - used) / 2
    }

    fn took(&mut self, count: usize) {
        self.empty = if count == 0 { (self.empty + 1).min(MAX_EMPTY) } else { 0 };
        self.skip = (1 << self.empty) - 1;
    }
}

impl Line {
    /// Takes what was accepted first. If there is nothing, and a pace is given, takes the line. Who
    /// has to wait for somebody else to do that waits no longer than `until`.
    ///
    /// # Errors
    /// The fiber's end is asked for, and this is reported. What else goes wrong does so again when
    /// the caller accepts.
    pub(super) fn enter(
        &self,
        listener: BorrowedFd<'_>,
        pace: Option<&mut Pace>,
        until: Option<Instant>,
    ) -> io::Result<Entered<'_>> {
        let Some(mut ahead) = self.lock(listener, until) else { return Ok(self.waits()) };
        if let Some(fd) = ahead.pop_front() {
            return Ok(Entered::Taken(fd));
        }
        if self.waiting.load(Relaxed) == 0
            && let Some(pace) = pace
            && let Some(home) = Home::here()
            && pace.is_worth_it(|| *self.longest.get_or_init(|| longest_line(listener)))
        {
            let mut taken = Vec::new();
            let flags = libc::SOCK_CLOEXEC;
            self.set_taker(Some(home));
            let result = submit(Op::AcceptLine { fd: listener, flags, taken: &mut taken });
            self.set_taker(None);
            pace.took(taken.len());
            ahead.extend(taken);
            match (ahead.pop_front(), result) {
                (Some(fd), _) => return Ok(Entered::Taken(fd)),
                (None, Err(error)) if is_cancelled(&error) => return Err(error),
                (None, _) => {}
            }
        }
        Ok(self.waits())
    }

    /// Takes what was accepted first.
    pub(super) fn pop(&self, listener: BorrowedFd<'_>) -> Option<OwnedFd> {
        self.lock(listener, None)?.pop_front()
    }

    /// For one who is going to wait for the listener to be ready, and may not wait in the end.
    pub(super) fn expect(&self, listener: BorrowedFd<'_>) -> Expecting<'_> {
        let _ahead = self.lock(listener, None);
        self.waiting.fetch_add(1, Relaxed);
        Expecting(Waits(&self.waiting))
    }

    /// Counts the caller.
    fn waits(&self) -> Entered<'_> {
        self.waiting.fetch_add(1, Relaxed);
        Entered::Waits(Waits(&self.waiting))
    }

    fn set_taker(&self, home: Option<Home>) {
        *self.taker.lock().unwrap_or_else(PoisonError::into_inner) = home;
        self.overdue.store(false, Relaxed);
    }

    /// Whether the lock is held for ever. The holder cannot give it up while it is asked about.
    fn is_abandoned(&self) -> bool {
        let taker = self.taker.lock().unwrap_or_else(PoisonError::into_inner);
        taker.is_some_and(Home::is_gone)
    }

    /// `None` for who is to accept without regard to the lock: its holder is lost; or is long in
    /// taking the line, and there is a connection; or the caller's end is asked for, or its time is
    /// over. And in a `no_suspend` section, where nobody is waited for: who has the lock takes what
    /// there is.
    fn lock(
        &self,
        listener: BorrowedFd<'_>,
        until: Option<Instant>,
    ) -> Option<MutexGuard<'_, VecDeque<OwnedFd>>> {
        let no_longer_than = |pause| match until {
            Some(until) => until.saturating_duration_since(Instant::now()).min(pause),
            None => pause,
        };
        let mut yields = 0..YIELDS;
        let mut pauses = 0..if self.overdue.load(Relaxed) { 0 } else { PAUSES };
        let mut is_over = || {
            let over = pauses.next().is_none();
            if over {
                self.overdue.store(true, Relaxed);
            }
            over
        };
        loop {
            match self.ahead.try_lock() {
                Ok(ahead) => return Some(ahead),
                Err(TryLockError::Poisoned(error)) => return Some(error.into_inner()),
                Err(TryLockError::WouldBlock) => {}
            }
            if current::must_not_suspend()
                || self.is_abandoned()
                || until.is_some_and(|until| until <= Instant::now())
            {
                return None;
            } else if !blocks_thread() {
                if is_requested() {
                    return None; // which the op to come reports
                }
                yield_now();
                if yields.next().is_none() {
                    let over = is_over();
                    shield(|| sleep(no_longer_than(if over { LOOK } else { PAUSE })));
                    if over && poll_now(listener, libc::POLLIN) != 0 {
                        return None;
                    }
                }
            } else if !blocks_worker() && !is_over() {
                std::thread::sleep(no_longer_than(PAUSE));
            } else if poll_many(&[(listener, libc::POLLIN)], Some(no_longer_than(LOOK))).is_some() {
                return None;
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::sync::mpsc;

    /// A thread that comes while a line is being taken gets what was taken, instead of waiting in
    /// the kernel for what is not there any more.
    #[test]
    fn a_thread_waits_for_the_line_to_be_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let clients = [(); 2].map(|()| TcpStream::connect(listener.local_addr().unwrap()).unwrap());
        let line = Line::default();
        let mut ahead = line.ahead.lock().unwrap();
        std::thread::scope(|scope| {
            let (started, has_started) = mpsc::channel();
            let (line, listener) = (&line, &listener);
            let thread = scope.spawn(move || {
                started.send(()).unwrap();
                matches!(line.enter(listener.as_fd(), None, None).unwrap(), Entered::Taken(_))
            });
            has_started.recv().unwrap();
            // That it finds the lock taken is likely, not needed.
            std::thread::sleep(Duration::from_millis(20));
            ahead.extend(clients.iter().map(|_| OwnedFd::from(listener.accept().unwrap().0)));
            drop(ahead);
            assert!(thread.join().unwrap());
        });
        assert_eq!(line.ahead.lock().unwrap().len(), 1);
        assert_eq!(line.waiting.load(Relaxed), 0);
    }

    /// A listener's timeout counts while somebody else takes the line; in non-blocking mode there
    /// is nothing to count. Nobody lets go of the lock here before all have given up.
    #[test]
    fn nobody_waits_longer_than_he_may() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let line = Line::default();
        let ahead = line.ahead.lock().unwrap();
        let gives_up = || {
            for time in [0, 1, 20].map(Duration::from_millis) {
                let until = Some(Instant::now() + time);
                let entered = line.enter(listener.as_fd(), None, until).unwrap();
                assert!(matches!(entered, Entered::Waits(_)));
                assert!(until <= Some(Instant::now()));
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(gives_up);
            scope.spawn(|| crate::Runtime::builder().workers(1).build().unwrap().run(gives_up));
        });
        drop(ahead);
        assert_eq!(line.waiting.load(Relaxed), 0);
    }

    /// The end of a runtime leaks the fiber that takes the line, and with it the lock. Others of
    /// all kinds go on without.
    #[test]
    fn who_is_lost_does_not_keep_the_line() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let line = std::sync::Arc::new(Line::default());
        let builder = || crate::Runtime::builder().workers(1);
        let runtime = builder().shutdown_timeout(Duration::ZERO).build().unwrap();
        let theirs = std::sync::Arc::clone(&line);
        runtime.run(move || {
            crate::spawn(move || {
                let _ahead = theirs.ahead.lock().unwrap();
                theirs.set_taker(Home::here());
                loop {
                    crate::park();
                }
            });
            crate::yield_now();
        });
        assert!(line.ahead.try_lock().is_err() && !line.is_abandoned());
        drop(runtime);
        let waits = || {
            let entered = line.enter(listener.as_fd(), Some(&mut Pace::default()), None).unwrap();
            assert!(matches!(entered, Entered::Waits(_)));
            assert!(line.pop(listener.as_fd()).is_none());
        };
        waits();
        builder().build().unwrap().run(waits);
        assert_eq!(line.waiting.load(Relaxed), 0);
    }

    /// Worker 0 runs its fibers inside `Runtime::run` only. One that takes the line when that
    /// returns goes on much later, if ever; a fiber elsewhere accepts all the same.
    #[test]
    fn who_is_not_run_does_not_keep_the_line() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let line = std::sync::Arc::new(Line::default());
        let builder = || crate::Runtime::builder().workers(1);
        let runtime = builder().build().unwrap();
        let theirs = std::sync::Arc::clone(&line);
        let taker = runtime.run(move || {
            let taker = crate::spawn(move || {
                let _ahead = theirs.ahead.lock().unwrap();
                theirs.set_taker(Home::here());
                crate::park();
                theirs.set_taker(None);
            });
            crate::yield_now();
            taker
        });
        let (done, is_done) = mpsc::channel();
        std::thread::spawn(move || {
            builder().build().unwrap().run(|| {
                for _ in 0..3 {
                    let entered = line.enter(listener.as_fd(), None, None).unwrap();
                    assert!(matches!(entered, Entered::Waits(_)));
                }
                // Where there is no connection, whoever is asked to end does.
                let ends = crate::spawn(move || {
                    let idle = TcpListener::bind("127.0.0.1:0").unwrap();
                    matches!(line.enter(idle.as_fd(), None, None), Ok(Entered::Waits(_)))
                });
                crate::yield_now();
                ends.cancel();
                assert!(ends.join().unwrap());
            });
            done.send(()).unwrap();
        });
        is_done.recv_timeout(Duration::from_secs(60)).expect("nobody waits for the holder");
        taker.fiber().unpark();
        runtime.run(|| taker.join()).unwrap();
    }
}
