//! Waking a worker that waits in its driver.
//!
//! The protocol around the [`SleepWord`] is the scheduler's (`sched/README.md`); here is only how
//! the sleeping side makes the kernel watch the word and how the waking side pokes the kernel.
#![forbid(unsafe_code)]

use crate::atomic::{AtomicU32, Ordering, fence, yield_now};
use crate::sys::ring;
use std::os::fd::RawFd;

/// How a sleeping worker is woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WakeMethod {
    /// Waits on a futex word through the ring. Linux 6.7.
    Futex,
    /// Posts a completion into the ring from outside. Linux 6.13.
    MsgRing,
    /// Reads an eventfd through the ring. Every Linux with io_uring.
    EventFd,
}

impl WakeMethod {
    /// For people.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Futex => "a futex in the ring",
            Self::MsgRing => "messages to the ring",
            Self::EventFd => "an eventfd",
        }
    }
}

/// The worker runs, or has been woken and not yet noticed.
pub(crate) const RUN: u32 = 0;
/// The worker has announced that it will wait; whoever turns this into `NOTIFIED` must poke it.
pub(crate) const SLEEP: u32 = 1;
/// Somebody has poked it or is about to.
pub(crate) const NOTIFIED: u32 = 2;

/// One worker's word: does it sleep, and has somebody woken it?
///
/// Invariants.
/// 1. Only the worker itself stores `SLEEP`, after which it looks at all its queues once more
///    before it waits.
/// 2. Whoever queues work for the worker calls `notify` afterwards. Either the worker's second look
///    sees the work, or `notify` sees `SLEEP` (both sides have a sequentially consistent fence
///    between their write and their read).
/// 3. Exactly one caller of `notify` turns `SLEEP` into `NOTIFIED`, and that one pokes the kernel.
#[derive(Debug)]
pub(crate) struct SleepWord {
    word: AtomicU32,
    /// Callers of `notify` between their decision and their poke; see `retire`.
    poking: AtomicU32,
}

impl SleepWord {
    pub(crate) fn new() -> Self {
        Self { word: AtomicU32::new(RUN), poking: AtomicU32::new(0) }
    }

    /// Announces that the worker is about to wait. It must look at its queues again before it does.
    #[inline]
    pub(crate) fn announce(&self) {
        self.word.store(SLEEP, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// The worker runs again.
    #[inline]
    pub(crate) fn awake(&self) {
        self.word.swap(RUN, Ordering::SeqCst);
    }

    /// To be called after queueing work for the worker: pokes it if it sleeps and nobody else has.
    /// Returns whether it did.
    #[inline]
    pub(crate) fn notify(&self, poke: impl FnOnce(&Self)) -> bool {
        fence(Ordering::SeqCst);
        if self.word.load(Ordering::SeqCst) != SLEEP {
            return false;
        }
        self.notify_slow(poke)
    }

    #[cold]
    fn notify_slow(&self, poke: impl FnOnce(&Self)) -> bool {
        self.poking.fetch_add(1, Ordering::SeqCst);
        let won =
            self.word.compare_exchange(SLEEP, NOTIFIED, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        if won {
            poke(self);
        }
        self.poking.fetch_sub(1, Ordering::SeqCst);
        won
    }

    /// Whether the worker has announced that it waits.
    pub(crate) fn is_asleep(&self) -> bool {
        self.word.load(Ordering::SeqCst) == SLEEP
    }

    /// Called by a worker that will never sleep again, before what `poke` needs goes away: waits
    /// for those who are poking it right now.
    pub(crate) fn retire(&self) {
        self.awake();
        while self.poking.load(Ordering::SeqCst) != 0 {
            yield_now();
        }
    }

    /// The word, for the kernel to compare.
    #[cfg(not(all(test, loom)))]
    pub(crate) fn word(&self) -> &std::sync::atomic::AtomicU32 {
        &self.word
    }

    #[cfg(all(test, loom))]
    pub(crate) fn word(&self) -> &std::sync::atomic::AtomicU32 {
        unreachable!("a model does not enter the kernel")
    }
}

/// What another thread needs to end a worker's wait.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Waker {
    Futex,
    MsgRing(RawFd),
    EventFd(RawFd),
}

impl Waker {
    /// Ends the wait of the worker that owns `word`. A system call; about 10 us if its core sleeps.
    /// Returns whether the kernel took it.
    pub(crate) fn poke(self, word: &SleepWord) -> bool {
        match self {
            // All who wait there: the kernel takes its time to end a ring that was dropped, and
            // until then that ring's wait is on the word, which a new worker may have got
            // meanwhile. A single wake could go to the dead.
            Self::Futex => {
                crate::sys::futex::wake(word.word(), i32::MAX);
                true
            }
            Self::MsgRing(fd) => ring::post(fd, super::uring::TAG_WAKE),
            Self::EventFd(fd) => ring::signal_eventfd(fd),
        }
    }

    /// As `poke`, of a worker that will sleep for ever otherwise.
    pub(crate) fn poke_surely(self, word: &SleepWord) {
        if !self.poke(word) {
            // It worked in the self-test, and what it needs is there until the worker has retired.
            let error = std::io::Error::last_os_error();
            eprintln!("ramie: a sleeping worker cannot be woken any more: {error}");
            std::process::abort();
        }
    }
}
