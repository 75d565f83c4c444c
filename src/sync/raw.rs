//! The lock inside [`Mutex`](super::Mutex), without data and poison.
//!
//! | bit        | meaning                                                                    |
//! |------------|----------------------------------------------------------------------------|
//! | `LOCKED`   | somebody holds it                                                          |
//! | `QUEUED`   | somebody is in the queue; changed under the queue's lock                   |
//! | `WOKEN`    | a waiter was woken and has not tried yet: there is no use in waking another |
//! | `HANDOVER` | the first waiter has been overtaken too often: the holder hands it the lock, and nobody else may take it meanwhile |
//!
//! Who finds it locked spins for a moment, if the holder may be running (a fiber of the same worker
//! is not), and waits in the queue. `unlock` lets go of the lock and wakes the first waiter, which
//! tries again: meanwhile others may have been faster. That is not fair but quick, since the lock
//! is never idle while a sleeping worker wakes up. A waiter that was overtaken [`PATIENCE`] times
//! sets `HANDOVER`.

use super::block;
use super::wait::{Locked, Node, Queue, Waiter};
use crate::atomic::{AtomicU32, AtomicUsize, Ordering, const_fn};
use crate::coro::OnCancel;
use crate::sys::clock;
use std::cell::Cell;
use std::pin::pin;
use std::time::Duration;

const LOCKED: u32 = 1;
const QUEUED: u32 = 2;
const WOKEN: u32 = 4;
const HANDOVER: u32 = 8;

/// How often a waiter may be woken in vain before the lock is handed to it.
const PATIENCE: u32 = if cfg!(loom) { 1 } else { 4 };
/// Rounds of spinning, each twice as long as the one before.
const ROUNDS: u32 = if cfg!(loom) { 0 } else { 5 };

/// See the module's head.
pub(super) struct RawMutex {
    state: AtomicU32,
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
        // Looking first would cost a third more: a load right after a locked store waits for it.
        if self.state.compare_exchange(0, LOCKED, Ordering::Acquire, Ordering::Relaxed).is_err() {
            self.lock_slow();
        }
        self.owner.store(block::worker_token(), Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn try_lock(&self) -> bool {
        let locked = self.try_take(0);
        if locked {
            self.owner.store(block::worker_token(), Ordering::Relaxed);
        }
        locked
    }

    /// Takes the lock unless somebody has it, and removes the bits in `clear`.
    #[inline]
    fn try_take(&self, clear: u32) -> bool {
        let mut state = self.state.load(Ordering::Relaxed);
        while state & (LOCKED | HANDOVER) == 0 {
            match self.state.compare_exchange_weak(
                state,
                (state | LOCKED) & !clear,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }

    /// By the holder. Never waits.
    #[inline]
    pub(super) fn unlock(&self) {
        if block::is_torn_down() {
            return;
        }
        let state = self.state.fetch_sub(LOCKED, Ordering::Release);
        if state & (QUEUED | WOKEN) == QUEUED {
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
            let slot = Slot { handed: Cell::new(false), worker: block::worker_token() };
            let waiter = pin!(Waiter::new());
            let node = Node::new(waiter.as_ref(), 1, (&raw const slot).cast_mut().cast());
            let node = pin!(node);
            let mut queue = self.queue.lock();
            let mut state = self.state.load(Ordering::Relaxed);
            loop {
                let free = state & (LOCKED | HANDOVER) == 0;
                let add = match free {
                    true => LOCKED,
                    false if overtaken >= PATIENCE => QUEUED | HANDOVER,
                    false => QUEUED,
                };
                match self.state.compare_exchange_weak(
                    state,
                    (state | add) & !woken,
                    Ordering::Acquire,
                    Ordering::Relaxed,
                ) {
                    Ok(_) if free => return,
                    Ok(_) => break,
                    Err(now) => state = now,
                }
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

    /// Tries for a moment. Returns whether it has taken the lock.
    fn spin(&self, woken: u32) -> bool {
        let me = block::worker_token();
        for round in 0..ROUNDS {
            if self.try_take(woken) {
                return true;
            }
            // The holder is a suspended fiber of this worker, or others wait already.
            if (me != 0 && self.owner.load(Ordering::Relaxed) == me)
                || (woken == 0 && self.state.load(Ordering::Relaxed) & QUEUED != 0)
            {
                return false;
            }
            for _ in 0..1 << round {
                std::hint::spin_loop();
            }
        }
        self.try_take(woken)
    }

    /// As `lock_slow` on a worker whose thread unwinds: nothing suspends, so the worker is blocked.
    /// Its own fibers make no progress: neither those that were woken for the lock nor one that
    /// holds it. So this looks for itself, and gives up what can never end.
    #[cold]
    fn lock_unwinding(&self) {
        const PAUSE: Duration = Duration::from_micros(50);
        /// Far longer than it takes from taking the lock to saying who has it.
        const CERTAIN: Duration = Duration::from_secs(2);
        let me = block::worker_token();
        let mut certain_ns = clock::deadline_ns(CERTAIN);
        while !self.try_take(0) {
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
        // Acquire: if it is handed over, the last holder may be another than the caller.
        let state = self.state.load(Ordering::Acquire);
        if state & (LOCKED | WOKEN) != 0 {
            // Whoever has it now, or was woken, sees to the others.
            return;
        }
        let first = queue.claim_first();
        let queued = if queue.is_empty() { 0 } else { QUEUED };
        match first {
            Some(first) if state & HANDOVER != 0 => {
                // SAFETY: in the frame of a waiter that is claimed and not woken, and does not look
                // at it before it is.
                let slot = unsafe { &*first.slot().cast::<Slot>() };
                slot.handed.set(true);
                self.owner.store(slot.worker, Ordering::Relaxed);
                // Nobody else changes the state now: the lock may not be taken, and the queue is
                // ours.
                self.state.store(LOCKED | queued, Ordering::Relaxed);
                drop(queue);
                first.wake();
            }
            Some(first) => {
                self.change(WOKEN | queued, QUEUED | WOKEN);
                drop(queue);
                first.wake();
            }
            None => self.change(0, QUEUED | HANDOVER),
        }
    }

    /// Makes those bits of the state that are in `mask` those of `bits`.
    fn change(&self, bits: u32, mask: u32) {
        let mut state = self.state.load(Ordering::Relaxed);
        while let Err(now) = self.state.compare_exchange_weak(
            state,
            state & !mask | bits,
            Ordering::Relaxed,
            Ordering::Relaxed,
        ) {
            state = now;
        }
    }
}
