//! Who is awake, who sleeps, who looks for work: the counters behind every decision to wake a
//! worker for fresh fibers, and their transitions. No I/O and no queues, so that a model checker
//! can run exactly this code. The protocol and its proof are in `README.md`.
//!
//! Invariants.
//! 1. `searching` counts those who have promised to look around once more: searchers, the holder of
//!    a claim (`claim`), and those summoned. Whoever takes one away does it with `end_search` and
//!    then looks, or passes the promise on with a summons.
//! 2. A summons carries one count of `searching`. It is taken out of its seat exactly once, by the
//!    summoned worker or by a caller of `summon` that found the worker awake.
//! 3. `lie_down` and `get_up` come in pairs, on the worker's own thread; the second look is
//!    between.
//!
//! May be called from any thread, except as said; no locks, no allocation.
#![forbid(unsafe_code)]

use crate::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
use crate::driver::SleepWord;

/// After so many summons in a row that came to nothing, fibers are left to the sentry.
pub(crate) const PATIENCE: usize = 4;

/// Who is awake; on cache lines of their own, since every spawn reads them.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Idle {
    /// Workers in their loops that do not sleep.
    awake: AtomicUsize,
    /// Workers that have announced that they sleep.
    sleeping: AtomicUsize,
    /// Workers that look for work, those just woken to do so included.
    searching: AtomicUsize,
    /// Whether some sleeper will look around by itself within a millisecond.
    sentry: AtomicBool,
    /// Summons in a row that came to nothing. A hint; not counted beyond `PATIENCE`.
    in_vain: AtomicUsize,
}

/// Who has to be told of fresh fibers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tell {
    Nobody,
    /// One more worker, unless one looks for work already (`wake_one`).
    Somebody,
    /// Nobody, since there is a sentry, and nothing came of telling others lately.
    Sentry,
}

/// A worker's letter box for the message "you have been woken to search, and are counted already".
#[derive(Debug)]
pub(crate) struct Summons(AtomicBool);

impl Summons {
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    pub(crate) fn put(&self) {
        // A swap where a store would do: read-modify-writes alone are in an order that the model
        // checker sees too, and whoever wakes a worker can afford it.
        self.0.swap(true, Ordering::SeqCst);
    }

    /// Takes the summons out, and with it the count.
    pub(crate) fn take(&self) -> bool {
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::SeqCst)
    }
}

/// What waking a worker needs of its seat.
pub(crate) trait Sleeper {
    fn is_asleep(&self) -> bool;
    fn summons(&self) -> &Summons;
    /// Wakes it if it sleeps; returns whether it did.
    fn notify(&self) -> bool;
}

impl Idle {
    pub(crate) fn new() -> Self {
        Self {
            awake: AtomicUsize::new(0),
            sleeping: AtomicUsize::new(0),
            searching: AtomicUsize::new(0),
            sentry: AtomicBool::new(false),
            in_vain: AtomicUsize::new(0),
        }
    }

    // ---- The giver's side -----------------------------------------------------------------------

    /// The caller has queued a fresh fiber in a queue that holds `queued` of them now. Whether
    /// somebody may have to be woken for it. A single one its owner runs itself as soon as it
    /// suspends; it is worth a wake-up only if nobody looks around anyway.
    #[inline]
    pub(crate) fn offered(&self, queued: usize) -> Tell {
        if queued < 2 {
            // No fence: a stale answer makes a lone fiber wait for its owner.
            return if self.has_sentry() { Tell::Nobody } else { Tell::Somebody };
        }
        self.giver_fence();
        if self.is_left_to_sentry() { Tell::Sentry } else { Tell::Somebody }
    }

    /// To be asked after the fence of the giver: whether the sentry is enough for two fresh fibers,
    /// since nothing came of waking others. It looks around within a millisecond, or leaves its
    /// post, and looks then.
    #[inline]
    pub(crate) fn is_left_to_sentry(&self) -> bool {
        self.is_patient() && self.sentry.load(Ordering::SeqCst)
    }

    /// Whether the last few that were woken found nothing that was worth it.
    #[inline]
    fn is_patient(&self) -> bool {
        self.in_vain.load(Ordering::Relaxed) >= PATIENCE
    }

    /// The fence of the giver: between its push and its look at who searches and who sleeps.
    #[inline]
    pub(crate) fn giver_fence(&self) {
        fence(Ordering::SeqCst);
    }

    #[inline]
    pub(crate) fn somebody_searches(&self) -> bool {
        self.searching.load(Ordering::SeqCst) != 0
    }

    #[inline]
    pub(crate) fn somebody_sleeps(&self) -> bool {
        self.sleeping.load(Ordering::SeqCst) != 0
    }

    /// Whether any of so many workers has nothing to do, or has never been started. A hint, which
    /// costs two loads.
    #[inline(always)]
    pub(crate) fn somebody_idle(&self, workers: usize) -> bool {
        self.awake.load(Ordering::Relaxed) != workers || self.searching.load(Ordering::Relaxed) != 0
    }

    /// How many of so many workers have nothing to do, or have never been started. A hint.
    pub(crate) fn idle_of(&self, workers: usize) -> usize {
        let awake = self.awake.load(Ordering::Relaxed).min(workers);
        (workers - awake + self.searching.load(Ordering::Relaxed)).min(workers)
    }

    /// Only a hint: no fence orders it.
    #[inline]
    fn has_sentry(&self) -> bool {
        self.sentry.load(Ordering::Relaxed)
    }

    /// Gets one more worker to look for work, unless one does already or nobody sleeps: a sleeper,
    /// or else what `start_another` starts (it says whether it has taken the claim over, with a
    /// summons). `work` says whether there is anything to find.
    #[cold]
    pub(crate) fn wake_one<S: Sleeper>(
        &self,
        sleepers: &[S],
        mut start_another: impl FnMut() -> bool,
        work: impl Fn() -> bool,
    ) {
        loop {
            if !self.claim() || self.summon(sleepers) || start_another() {
                return;
            }
            self.end_search();
            // Who fell asleep behind our back did not see what others queued meanwhile; and those
            // saw the claim and woke nobody.
            if !self.last_look(sleepers, &work) {
                return;
            }
        }
    }

    /// After `end_search` by somebody who is no worker: whether somebody sleeps who should not.
    pub(crate) fn last_look<S: Sleeper>(&self, sleepers: &[S], work: impl Fn() -> bool) -> bool {
        sleepers.iter().any(S::is_asleep) && work()
    }

    /// Whoever will be woken counts as searching from now on, so that the next spawn wakes nobody
    /// else. `false` if somebody searches already.
    fn claim(&self) -> bool {
        self.searching.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Hands the claim to the first sleeper that can be woken. `false` when there is none, and then
    /// the claim is still the caller's.
    fn summon<S: Sleeper>(&self, sleepers: &[S]) -> bool {
        for sleeper in sleepers {
            if sleeper.is_asleep() {
                sleeper.summons().put();
                if sleeper.notify() {
                    return true;
                }
                // It woke by itself. If it has found the summons it searches now.
                if !sleeper.summons().take() {
                    return true;
                }
            }
        }
        false
    }

    // ---- The searcher's side --------------------------------------------------------------------

    /// Counts the caller as searching, if fewer than `most` are.
    pub(crate) fn start_search(&self, most: usize) -> bool {
        let mut searching = self.searching.load(Ordering::Relaxed);
        loop {
            if searching >= most {
                return false;
            }
            match self.searching.compare_exchange_weak(
                searching,
                searching + 1,
                Ordering::SeqCst,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(seen) => searching = seen,
            }
        }
    }

    /// Takes one count away. The caller looks at the queues once more afterwards: givers that saw
    /// it counted have woken nobody.
    pub(crate) fn end_search(&self) {
        self.searching.fetch_sub(1, Ordering::SeqCst);
        // The fence of the searcher: between the count and the last look.
        fence(Ordering::SeqCst);
    }

    /// Whether it was worth while to have an idle worker look: what came of it last.
    pub(crate) fn learn(&self, was_worth_it: bool) {
        let in_vain = self.in_vain.load(Ordering::Relaxed);
        let now = if was_worth_it { 0 } else { (in_vain + 1).min(PATIENCE) };
        if now != in_vain {
            self.in_vain.store(now, Ordering::Relaxed);
        }
    }

    /// The caller is about to sleep while others run. `false` if there is a sentry already.
    pub(crate) fn become_sentry(&self) -> bool {
        self.sentry.compare_exchange(false, true, Ordering::SeqCst, Ordering::Relaxed).is_ok()
    }

    /// The caller looks at the queues once more afterwards.
    pub(crate) fn sentry_leaves(&self) {
        self.sentry.store(false, Ordering::SeqCst);
        // Between this and the leaver's last look.
        fence(Ordering::SeqCst);
    }

    // ---- The sleeper's side ---------------------------------------------------------------------

    pub(crate) fn enter(&self) {
        self.awake.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn leave(&self) {
        self.awake.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether any worker but the caller, which is one, is awake.
    pub(crate) fn others_awake(&self) -> bool {
        self.awake.load(Ordering::SeqCst) > 1
    }

    pub(crate) fn anybody_awake(&self) -> bool {
        self.awake.load(Ordering::SeqCst) > 0
    }

    /// The caller is about to sleep. The second look comes next: what was queued before this, its
    /// giver told nobody about.
    pub(crate) fn lie_down(&self, word: &SleepWord) {
        word.announce();
        self.sleeping.fetch_add(1, Ordering::SeqCst);
        self.awake.fetch_sub(1, Ordering::SeqCst);
        // The fence of the sleeper: between the announcement and the second look.
        fence(Ordering::SeqCst);
    }

    /// The caller has slept, or decided not to.
    pub(crate) fn get_up(&self, word: &SleepWord) {
        word.awake();
        self.awake.fetch_add(1, Ordering::SeqCst);
        self.sleeping.fetch_sub(1, Ordering::SeqCst);
    }

    /// How many search, for assertions.
    #[cfg(all(test, loom))]
    pub(crate) fn searching(&self) -> usize {
        self.searching.load(Ordering::SeqCst)
    }
}
