//! The one word on which a fiber (or a thread) waits for something to happen.
//!
//! | word            | meaning                                                      | left by |
//! |-----------------|--------------------------------------------------------------|---------|
//! | `EMPTY`         | has not happened, nobody waits                               | anybody |
//! | `SET`           | has happened                                                 | `take`  |
//! | a waiter        | has not happened; this fiber or thread is off its stack      | `set`, `unregister` |
//! | a task          | has not happened; this waker is to be told                   | `set`, `unregister_task`, `detach` |
//! | `DETACHED`      | nobody will ask (again), whether it has happened or not      | `set`   |
//! | `LOST`          | will never happen                                            | `detach` |
//!
//! Invariants.
//! 1. At most one waiter is registered at a time.
//! 2. A fiber is registered only by the idle context of its worker, after the fiber has left its
//!    stack: whoever takes the waiter out may resume it at once.
//! 3. A waiter is taken out exactly once, by `set`, `lose` or `unregister`, and whoever took it
//!    out, and nobody else, makes it ready again. So no wake-up is lost and none is doubled.
//!    A task is taken out exactly once, too, and with its waker: who took it out owns that.
//! 4. `set` is final until the waiting side calls `take`: a later `register` fails and the waiter
//!    does not wait.
//!
//! The same word serves as a fiber's park token, as the "it has ended" flag that `join` waits for,
//! and as the completion of a job on the blocking pool.
//!
//! A waiter that nothing but `set` takes out (no deadline, no cancel request) is marked as one that
//! stays. Whoever finds the mark, and is the only one ever to set this signal, needs no locked
//! instruction: nobody else writes the word (`set_once`). Nor does whoever registers on the only
//! setter's thread (`register_here`). So joining a fiber of the same worker takes loads and stores.
//! The same holds for `register_first`, where a lock keeps the setter away meanwhile, and for the
//! only setter on the home of the fiber that waits (`set_here`): there alone it is taken out again.
//!
//! May be called from any thread; no locks, no allocation.
#![forbid(unsafe_code)]

use crate::atomic::{AtomicUsize, Ordering};

const EMPTY: usize = 0;
const SET: usize = 1;
const DETACHED: usize = 2;
const LOST: usize = 3;
/// Set in the word of a task, beside its waker's address. All waiters are at 8-aligned addresses.
const TASK: usize = 2;
/// Set in the word of a thread's waiter. A fiber's has no flag.
const THREAD: usize = 4;
const FLAGS: usize = 7;
/// Set in the word of a fiber that stays registered until `set`; headers are aligned to 64.
const STAYS: usize = 8;

/// Who waits on a [`Signal`], as found by the one who sets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waiter {
    /// Nobody is registered.
    None,
    /// The fiber whose header is at this address.
    Fiber(usize),
    /// The thread whose [`super::thread::ThreadWaiter`] is at this address.
    Thread(usize),
    /// The waker that [`super::task`] keeps at this address.
    Task(usize),
    /// Nobody will ever ask.
    Detached,
}

impl Waiter {
    fn from_word(word: usize) -> Self {
        match word {
            EMPTY | SET | LOST => Self::None,
            DETACHED => Self::Detached,
            word if word & THREAD != 0 => Self::Thread(word & !FLAGS),
            word if word & TASK != 0 => Self::Task(word & !FLAGS),
            word => Self::Fiber(word & !STAYS),
        }
    }

    fn to_word(self) -> usize {
        match self {
            Self::None => EMPTY,
            Self::Detached => DETACHED,
            Self::Fiber(address) => {
                debug_assert!(address & (FLAGS | STAYS) == 0 && address != 0);
                address
            }
            Self::Thread(address) => {
                debug_assert!(address & FLAGS == 0 && address != 0);
                address | THREAD
            }
            Self::Task(address) => {
                debug_assert!(address & FLAGS == 0 && address != 0);
                address | TASK
            }
        }
    }
}

/// What [`Signal::detach`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Before {
    /// It has not happened, and perhaps never will; nobody was registered.
    Nothing,
    /// It has not happened; this task, now the caller's, was registered.
    Task(usize),
    /// It has happened.
    Set,
    /// It was detached already.
    Detached,
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Signal(AtomicUsize);

impl Signal {
    #[cfg(not(all(test, loom)))]
    pub(crate) const fn new() -> Self {
        Self(AtomicUsize::new(EMPTY))
    }

    #[cfg(all(test, loom))]
    pub(crate) fn new() -> Self {
        Self(AtomicUsize::new(EMPTY))
    }

    /// Whether it has happened; if so, what was written before `set` is visible.
    #[inline]
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire) == SET
    }

    /// Whether `detach` came last.
    #[inline]
    pub(crate) fn is_detached(&self) -> bool {
        self.0.load(Ordering::Acquire) == DETACHED
    }

    /// Whether it will never happen.
    #[inline]
    pub(crate) fn is_lost(&self) -> bool {
        self.0.load(Ordering::Acquire) == LOST
    }

    /// Registers the one waiter; `false` when it has happened already, or never will (and `waiter`
    /// stays out).
    #[inline]
    pub(crate) fn register(&self, waiter: Waiter) -> bool {
        match self.0.compare_exchange(EMPTY, waiter.to_word(), Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => true,
            Err(word) => {
                assert!(word == SET || word == LOST, "two waiters on one signal (invariant 1)");
                false
            }
        }
    }

    /// As `register`, for a fiber that is not taken out again but by `set`.
    #[inline]
    pub(crate) fn register_to_stay(&self, fiber: usize) -> bool {
        let stays = fiber | STAYS;
        match self.0.compare_exchange(EMPTY, stays, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => true,
            Err(word) => {
                assert!(word == SET || word == LOST, "two waiters on one signal (invariant 1)");
                false
            }
        }
    }

    /// As `register_to_stay`, on the thread that is the only one ever to set the signal.
    #[inline]
    pub(crate) fn register_here(&self, fiber: usize) -> bool {
        let word = self.0.load(Ordering::Acquire);
        if word == EMPTY {
            self.0.store(fiber | STAYS, Ordering::Relaxed);
            return true;
        }
        assert!(word == SET || word == LOST, "two waiters on one signal (invariant 1)");
        false
    }

    /// As `register`, while nobody can set the signal: the caller holds a lock that this takes.
    #[inline]
    pub(crate) fn register_first(&self, waiter: Waiter) {
        debug_assert_eq!(self.0.load(Ordering::Relaxed), EMPTY);
        self.0.store(waiter.to_word(), Ordering::Release);
    }

    /// As `set`, where nobody else ever sets the signal, and only if a fiber is registered of which
    /// `is_ours` says that this thread alone may `unregister` it: then that fiber's address.
    #[inline]
    pub(crate) fn set_here(&self, is_ours: impl FnOnce(usize) -> bool) -> Option<usize> {
        let word = self.0.load(Ordering::Acquire);
        let fiber = word & !STAYS;
        if word & FLAGS != 0 || word == EMPTY || !is_ours(fiber) {
            return None;
        }
        self.0.store(SET, Ordering::Release);
        Some(fiber)
    }

    /// As `set`, where nobody else ever sets the signal.
    #[inline]
    pub(crate) fn set_once(&self) -> Waiter {
        let word = self.0.load(Ordering::Acquire);
        if word & (STAYS | FLAGS) == STAYS {
            self.0.store(SET, Ordering::Release);
            return Waiter::Fiber(word & !STAYS);
        }
        self.set()
    }

    /// Takes `waiter` out again; `false` when `set` took it out first, and then it is being woken.
    #[inline]
    pub(crate) fn unregister(&self, waiter: Waiter) -> bool {
        self.0
            .compare_exchange(waiter.to_word(), EMPTY, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }

    /// It has happened. The waiter that comes back is the caller's to make ready (invariant 3).
    #[inline]
    pub(crate) fn set(&self) -> Waiter {
        Waiter::from_word(self.0.swap(SET, Ordering::AcqRel))
    }

    /// It will never happen: whoever would have called `set` is gone. The waiter that comes back is
    /// the caller's to make ready (invariant 3).
    pub(crate) fn lose(&self) -> Waiter {
        let mut word = self.0.load(Ordering::Acquire);
        loop {
            if matches!(word, SET | DETACHED | LOST) {
                return Waiter::None;
            }
            match self.0.compare_exchange(word, LOST, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Waiter::from_word(word),
                Err(seen) => word = seen,
            }
        }
    }

    /// Forgets that it has happened, and says whether it had. Only for the waiting side, while it
    /// is not registered.
    #[inline]
    pub(crate) fn take(&self) -> bool {
        // The load keeps the common "nothing there" case free of a locked instruction.
        self.0.load(Ordering::Relaxed) == SET && self.0.swap(EMPTY, Ordering::Acquire) == SET
    }

    /// Takes out the task that is registered, if one is. Only for the waiting side.
    #[inline]
    pub(crate) fn unregister_task(&self) -> Option<usize> {
        match Waiter::from_word(self.0.load(Ordering::Relaxed)) {
            Waiter::Task(address) if self.unregister(Waiter::Task(address)) => Some(address),
            _ => None,
        }
    }

    /// Says that nobody will ask (again). Only for the waiting side.
    #[inline]
    pub(crate) fn detach(&self) -> Before {
        match self.0.swap(DETACHED, Ordering::AcqRel) {
            EMPTY | LOST => Before::Nothing,
            SET => Before::Set,
            DETACHED => Before::Detached,
            word => match Waiter::from_word(word) {
                Waiter::Task(address) => Before::Task(address),
                _ => panic!("detached while a waiter is registered (invariant 1)"),
            },
        }
    }
}
