//! Stealing fresh fibers: from whom, and when it is worth while.
//!
//! A fiber that ends within microseconds costs the one who takes it away, and the one who joins it,
//! more than it costs its owner to run it: the cache lines of its stack and its queue travel twice.
//! Nobody knows how large a fresh fiber is. But its owner's counters tell how those before it went:
//!
//! | the owner                                           | its fresh fibers are taken              |
//! |-----------------------------------------------------|-----------------------------------------|
//! | has started none for 2 us, nor spawned more         | at once: they are left alone            |
//! | starts some that go on after their first suspension | at once: they would stay there for good |
//! | goes through them as fast as they end               | when they have been waiting for long    |
//!
//! In a tree of spawns the oldest fibers wait while their owner goes through thousands of leaves;
//! they are the large ones. In a flat crowd of small fibers the oldest may have been waiting for
//! long, too. So a thief looks back when it is idle again: what was done with in no time was not
//! worth it, and it does so less often from then on.
//!
//! Looking costs the owner as well, which has to get its cache lines back. So a thief looks less
//! often at a worker that is making progress.
//!
//! None of this is needed for the proof in `README.md`: a worker that finds fibers not worth taking
//! does not lie down while there are two of them.
#![forbid(unsafe_code)]

use super::Worker;
use super::remote::bump;
use super::shared::Config;
use crate::sys::clock;
use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU64, Ordering};

/// An owner that has made no move for this long has left its fresh fibers alone.
const LEAVE_ALONE_NS: u64 = 2_000;
/// Long, for a fresh fiber, in searches (`Config::spin`).
const LONG_SPINS: u32 = 3;
/// Fibers stolen at once: half of what there is, and not more than this.
const STEAL_MOST: usize = 8;
/// How long an owner may take to answer before it is interrupted.
const ANSWER_NS: u64 = 3_000;
/// Stolen fibers that took less than this each were not worth it.
pub(super) const SMALL_NS: u64 = 1_000;
/// For how long to keep away from what has been waiting for long, after such fibers.
const SHUN_MIN_NS: u64 = 20_000;
const SHUN_MAX_NS: u64 = 1_000_000;
/// Between two looks at the queue of a worker that makes progress.
const LOOK_MIN_NS: u64 = 1_000;
const LOOK_MAX_NS: u64 = 16_000;

/// What a worker remembers of the others' fresh fibers.
pub(super) struct Thief {
    seen: RefCell<Vec<Seen>>,
    /// From when on a fresh fiber has been waiting for long.
    long_ns: u64,
    /// Where the next round starts.
    start: Cell<usize>,
    /// From whom the last ones were taken for their age, how many, and when.
    stolen: Cell<Option<(usize, u64, u64)>>,
}

/// Why to steal, or not to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    Not,
    /// They are left alone.
    Left,
    /// Such fibers go on after they were started.
    Lasting,
    /// They have been waiting for long.
    Old,
}

/// One owner, as seen by one thief.
#[derive(Clone, Copy, Default)]
struct Seen {
    spawned: u64,
    taken: u64,
    ended: u64,
    /// When it was first seen that far.
    moved_ns: u64,
    /// How often its queue had been filled after it was empty, and when that was first seen.
    refills: u64,
    filled_ns: u64,
    /// When to look again, and how long the pause was.
    look_ns: u64,
    pause_ns: u64,
    /// Until when to keep away from the old ones, and how long the pause was.
    shun_ns: u64,
    shun_pause_ns: u64,
}

impl Thief {
    pub(super) fn new(config: &Config) -> Self {
        let long_ns = (config.spin * LONG_SPINS).as_nanos();
        Self {
            seen: RefCell::new(vec![Seen::default(); config.workers]),
            long_ns: u64::try_from(long_ns).unwrap_or(u64::MAX),
            start: Cell::new(0),
            stolen: Cell::new(None),
        }
    }
}

impl Worker {
    /// Takes fresh fibers from another worker, if they are better off here.
    pub(super) fn steal(&self) -> bool {
        let thief = &self.search.thief;
        let seats = self.shared.seats();
        let now_ns = clock::now_ns();
        self.look_back(now_ns);
        let start = thief.start.get();
        thief.start.set((start + 1) % seats.len());
        (0..seats.len()).map(|offset| (start + offset) % seats.len()).any(|index| {
            let Some(stealer) = seats[index].stealer().filter(|_| index != self.index()) else {
                return false;
            };
            let alone = !self.shared.idle().others_awake();
            if !alone && now_ns < thief.seen.borrow()[index].look_ns {
                return false;
            }
            let queued = stealer.len();
            let why = match queued {
                0 => Why::Not,
                _ if alone => Why::Left,
                _ => self.is_worth_while(index, queued, now_ns),
            };
            if why == Why::Not {
                return false;
            }
            // An owner that sleeps, or has left its loop, answers nobody.
            let end_ns = if alone { 0 } else { now_ns + ANSWER_NS };
            let waits = || {
                std::hint::spin_loop();
                clock::now_ns() < end_ns
            };
            let found = stealer.steal(STEAL_MOST, waits, |fiber| {
                bump(&self.remote.stolen);
                self.queue_fresh(fiber);
            });
            if found != 0 && why != Why::Old {
                self.shared.idle().learn(true);
            }
            thief.stolen.set((why == Why::Old).then_some((index, found as u64, now_ns)));
            found != 0
        })
    }

    /// Whether to steal from worker `index`, which has `queued` fresh fibers: the module's head.
    fn is_worth_while(&self, index: usize, queued: usize, now_ns: u64) -> Why {
        let thief = &self.search.thief;
        let remote = self.shared.seat(index).remote();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (spawned, taken) = (count(&remote.spawned), count(&remote.taken));
        let (ended, refills) = (count(&remote.ended), count(&remote.refills));
        let seen = &mut thief.seen.borrow_mut()[index];
        if seen.refills != refills {
            (seen.refills, seen.filled_ns) = (refills, now_ns);
        }
        // A single one may have been made for us (`joins.rs`): to spawn it was no progress.
        if seen.taken == taken && (seen.spawned == spawned || queued == 1) {
            (seen.spawned, seen.pause_ns) = (spawned, 0);
            return if now_ns - seen.moved_ns >= LEAVE_ALONE_NS { Why::Left } else { Why::Not };
        }
        let started = taken.wrapping_sub(seen.taken);
        let done = ended.wrapping_sub(seen.ended);
        (seen.spawned, seen.taken, seen.ended, seen.moved_ns) = (spawned, taken, ended, now_ns);
        let why = if queued < 2 {
            Why::Not
        } else if started > done.saturating_add(started / 4 + 1) {
            Why::Lasting
        } else if now_ns - seen.filled_ns >= thief.long_ns && now_ns >= seen.shun_ns {
            Why::Old
        } else {
            Why::Not
        };
        seen.pause_ns = match why {
            Why::Not => (seen.pause_ns * 2).clamp(LOOK_MIN_NS, LOOK_MAX_NS),
            _ => 0,
        };
        seen.look_ns = now_ns + seen.pause_ns;
        why
    }

    /// The worker is idle again: was it worth while to take the last ones?
    #[inline]
    fn look_back(&self, now_ns: u64) {
        let thief = &self.search.thief;
        let Some((index, count, stolen_ns)) = thief.stolen.take() else { return };
        let seen = &mut thief.seen.borrow_mut()[index];
        let were_small = now_ns - stolen_ns < count * SMALL_NS;
        if count != 0 {
            self.shared.idle().learn(!were_small);
        }
        seen.shun_pause_ns =
            if were_small { (seen.shun_pause_ns * 2).clamp(SHUN_MIN_NS, SHUN_MAX_NS) } else { 0 };
        seen.shun_ns = now_ns + seen.shun_pause_ns;
    }
}
