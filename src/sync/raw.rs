//! The lock inside [`Mutex`](super::Mutex), without data and poison.
//!
//! | bit                 | meaning                                                            |
//! |---------------------|--------------------------------------------------------------------|
//! | `state`: `LOCKED`   | somebody holds it                                                  |
//! | `state`: `HANDOVER` | the first waiter has been overtaken too often: the holder hands it the lock, and nobody else may take it meanwhile |
//! | `flags`: `QUEUED`   | somebody is in the queue                                           |
//! | `flags`: `WOKEN`    | a waiter was woken and has not tried yet: there is no use in waking another |
//!
//! Who finds it locked spins for a moment, if the holder may be running (a fiber of the same worker
//! is not), and waits in the queue. `unlock` lets go of the lock and wakes the first waiter, which
//! tries again: meanwhile others may have been faster. That is not fair but quick, since the lock
//! is never idle while a sleeping worker wakes up. A waiter that was overtaken [`PATIENCE`] times
//! sets `HANDOVER`.
//!
//! The flags have a word of their own so that a free lock is always 0, and taken by one exchange,
//! while others wait. Who unlocks writes `state` and reads `flags`, who begins to wait writes
//! `flags` and reads `state`. These accesses are sequentially consistent, so one of the two sees
//! the other. `QUEUED`, `HANDOVER` and the setting of `WOKEN` change under the queue's lock.

use super::block;
use super::wait::{Locked, Node, Queue, Waiter};
use crate::atomic::{AtomicU32, AtomicUsize, Ordering, const_fn};
use crate::coro::OnCancel;
use crate::sys::clock;
use std::cell::Cell;
use std::pin::pin;
use std::time::Duration;

const LOCKED: u32 = 1;
const HANDOVER: u32 = 2;
const QUEUED: u32 = 1;
const WOKEN: u32 = 2;

/// How often a waiter may be woken in vain before the lock is handed to it.
const PATIENCE: u32 = if cfg!(loom) { 1 } else { 4 };
/// Rounds of spinning, each twice as long as the one before.
const ROUNDS: u32 = if cfg!(loom) { 0 } else { 5 };

/// See the module's head.
pub(super) struct RawMutex {
    state: AtomicU32,
    flags: AtomicU32,
    /// The worker whose fiber holds it, 0 for a plain thread; a moment out of date at times.
    owner: AtomicUsize,
    queue: Locked<Queue>,
}

/// What a waiter shows to the holder.
struct Slot {
    /// Set when it is woken with the lock in its hands.
    handed: Cell<bool>,
    worker: usize,
}

impl RawMutex {
    const_fn! {
        pub(super) fn new() -> Self {
            Self {
                state: AtomicU32::new(0),
                flags: AtomicU32::new(0),
                owner: AtomicUsize::new(0),
                queue: Locked::new(Queue::new()),
            }
        }
    }

    #[inline]
    pub(super) fn lock(&self) {
        if block::is_torn_down() {
            return;
        }
        if !self.take() {
            self.lock_slow();
        }
        self.owner.store(block::place(), Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn try_lock(&self) -> bool {
        let locked = self.take();
        if locked {
            self.owner.store(block::place(), Ordering::Relaxed);
        }
        locked
    }

    /// Takes the lock unless somebody has it. Looking first would cost a third more: a load right
    /// after a locked store waits for it.
    #[inline]
    fn take(&self) -> bool {
        self.state.compare_exchange(0, LOCKED, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// By the holder. Never waits.
    #[inline]
    pub(super) fn unlock(&self) {
        if block::is_torn_down() {
            return;
        }
        self.state.fetch_sub(LOCKED, Ordering::SeqCst);
        block::fence_for_loom();
        if self.flags.load(Ordering::SeqCst) == QUEUED {
            self.unlock_slow();
        }
    }

    #[cold]
    #[inline(never)]
    fn lock_slow(&self) {
        if block::blocks_worker() {
            return self.lock_unwinding();
        }
        // The bit that this waiter has to clear, once it has been woken.
        let mut woken = 0;
        let mut overtaken = 0;
        while !self.spin(woken) {
            let slot = Slot { handed: Cell::new(false), worker: block::place() };
            let waiter = pin!(Waiter::new());
            let node = Node::new(waiter.as_ref(), 1, (&raw const slot).cast_mut().cast());
            let node = pin!(node);
            let mut queue = self.queue.lock();
            self.flags.fetch_and(!woken, Ordering::SeqCst);
            self.flags.fetch_or(QUEUED, Ordering::SeqCst);
            block::fence_for_loom();
            if self.take_or_ask(overtaken >= PATIENCE) {
                if queue.is_empty() {
                    self.flags.fetch_and(!QUEUED, Ordering::SeqCst);
                }
                return;
            }
            match woken {
                0 => queue.push(node.as_ref()),
                // It was the first before. Only one waiter is woken at a time.
                _ => queue.push_front(node.as_ref()),
            }
            drop(queue);
            waiter.as_ref().wait(None, OnCancel::Ignore);
            if slot.handed.get() {
                return;
            }
            woken = WOKEN;
            overtaken += 1;
        }
    }

    /// Under the queue's lock: takes the lock if nobody has it, and otherwise asks the holder to
    /// hand it over, if `ask`. Returns whether it has taken the lock.
    fn take_or_ask(&self, ask: bool) -> bool {
        loop {
            let state = self.state.load(Ordering::SeqCst);
            let new = match state {
                0 => LOCKED,
                LOCKED if ask => LOCKED | HANDOVER,
                _ => return false,
            };
            let changed =
                self.state.compare_exchange(state, new, Ordering::SeqCst, Ordering::Relaxed);
            if changed.is_ok() {
                return state == 0;
            }
        }
    }

    /// Tries for a moment. Returns whether it has taken the lock.
    fn spin(&self, woken: u32) -> bool {
        let me = block::place();
        let mut rounds = 0;
        loop {
            if self.state.load(Ordering::Relaxed) == 0 && self.take() {
                if woken != 0 {
                    self.flags.fetch_and(!woken, Ordering::SeqCst);
                }
                return true;
            }
            if rounds == ROUNDS
                // The holder is a suspended fiber of this worker, or others wait already.
                || (me != 0 && self.owner.load(Ordering::Relaxed) == me)
                || (woken == 0 && self.flags.load(Ordering::Relaxed) & QUEUED != 0)
            {
                return false;
            }
            (0..1 << rounds).for_each(|_| std::hint::spin_loop());
            rounds += 1;
        }
    }

    /// As `lock_slow` on a worker whose thread unwinds: nothing suspends, so the worker is blocked.
    /// Its own fibers make no progress: neither those that were woken for the lock nor one that
    /// holds it. So this looks for itself, and gives up what can never end.
    #[cold]
    fn lock_unwinding(&self) {
        const PAUSE: Duration = Duration::from_micros(50);
        /// Far longer than it takes from taking the lock to saying who has it.
        const CERTAIN: Duration = Duration::from_secs(2);
        let me = block::place();
        let mut certain_ns = clock::deadline_ns(CERTAIN);
        while !self.take() {
            if self.owner.load(Ordering::Relaxed) != me {
                certain_ns = clock::deadline_ns(CERTAIN);
            } else if clock::now_ns() >= certain_ns {
                eprintln!(
                    "ramie: a destructor that runs because of a panic locks a `Mutex` that a \
                     suspended fiber of the same worker holds. Nothing suspends while a thread \
                     unwinds, so that fiber can never let go of it: a deadlock, aborting. Use \
                     `try_lock` in destructors."
                );
                std::process::abort();
            }
            std::thread::sleep(PAUSE);
        }
    }

    #[cold]
    #[inline(never)]
    fn unlock_slow(&self) {
        let mut queue = self.queue.lock();
        // This also acquires what the last holder did, who may be another than the caller.
        let state = self.state.load(Ordering::SeqCst);
        if state & LOCKED != 0 || self.flags.load(Ordering::SeqCst) & WOKEN != 0 {
            // Whoever has it now, or was woken, sees to the others.
            return;
        }
        let first = queue.claim_first();
        if queue.is_empty() {
            self.flags.fetch_and(!QUEUED, Ordering::SeqCst);
        }
        let Some(first) = first else { return };
        if state == HANDOVER {
            // SAFETY: in the frame of a waiter that is claimed and not woken, and does not look at
            // it before it is.
            let slot = unsafe { &*first.slot().cast::<Slot>() };
            slot.handed.set(true);
            self.owner.store(slot.worker, Ordering::Relaxed);
            // Nobody else changes it now: it may not be taken, and the queue is ours.
            self.state.store(LOCKED, Ordering::SeqCst);
        } else {
            self.flags.fetch_or(WOKEN, Ordering::SeqCst);
        }
        drop(queue);
        first.wake();
    }
}
