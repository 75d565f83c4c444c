//! The lock inside [`Mutex`](super::Mutex), without data and poison.
//!
//! | word                | meaning                                                            |
//! |---------------------|--------------------------------------------------------------------|
//! | `state`             | 0, or `LOCKED` and the place of the holder (`block::place`)        |
//! | `flags`: `QUEUED`   | somebody is in the queue                                           |
//! | `flags`: `WOKEN`    | a waiter was woken and has not tried yet: there is no use in waking another |
//! | `flags`: `HANDOVER` | the first waiter has been overtaken too often: the holder hands it the lock |
//!
//! Who finds it locked spins for a moment, if the holder may be running (a fiber of the same worker
//! is not), and waits in the queue. `unlock` lets go of the lock and wakes the first waiter, which
//! tries again: meanwhile others may have been faster. That is not fair but quick, since the lock
//! is never idle while a sleeping worker wakes up. A waiter that was overtaken [`PATIENCE`] times
//! sets `HANDOVER`: whoever looks at the flags before letting go does not, but hands over. It may
//! be overtaken once more, by who comes after an `unlock` that had looked before.
//!
//! The flags have a word of their own so that a free lock is always 0, and taken by one exchange,
//! while others wait. They change under the queue's lock only.
//!
//! Who unlocks writes `state` and then reads `flags`, who begins to wait writes `flags` and then
//! reads `state`: one of the two sees the other. For this the waiter pays (`sys/membarrier.rs`), so
//! that `unlock` is a plain store, and the pair of `lock` and `unlock` one locked instruction. A
//! waiter that has seen the flags missed calls what `unlock` would have called. It need not look
//! again, nor pay, if the holder is a fiber of its own worker: that one cannot run before the
//! waiter is off its stack, and then this thread's own stores are seen.

use super::block;
use super::wait::{Locked, Node, Queue, Waiter};
use crate::atomic::{AtomicU32, AtomicUsize, Ordering, const_fn};
use crate::coro::OnCancel;
use crate::sys::clock;
use std::cell::Cell;
use std::pin::pin;
use std::time::Duration;

/// Places are even.
const LOCKED: usize = 1;
const QUEUED: u32 = 1;
const WOKEN: u32 = 2;
const HANDOVER: u32 = 4;

/// How often a waiter may be woken in vain before the lock is handed to it.
const PATIENCE: u32 = if cfg!(loom) { 1 } else { 4 };
/// Rounds of spinning, each twice as long as the one before.
const ROUNDS: u32 = if cfg!(loom) { 0 } else { 5 };

/// See the module's head.
pub(super) struct RawMutex {
    state: AtomicUsize,
    flags: AtomicU32,
    queue: Locked<Queue>,
}

/// What a waiter shows to the holder.
struct Slot {
    /// Set when it is woken with the lock in its hands.
    handed: Cell<bool>,
    /// `state` when the waiter holds the lock.
    mine: usize,
}

impl RawMutex {
    const_fn! {
        pub(super) fn new() -> Self {
            Self {
                state: AtomicUsize::new(0),
                flags: AtomicU32::new(0),
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
    }

    #[inline]
    pub(super) fn try_lock(&self) -> bool {
        self.take()
    }

    /// Takes the lock unless somebody has it. Looking first would cost a third more: a load right
    /// after a locked store waits for it.
    #[inline]
    fn take(&self) -> bool {
        self.take_as(block::place() | LOCKED)
    }

    #[inline]
    fn take_as(&self, mine: usize) -> bool {
        self.state.compare_exchange(0, mine, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// By the holder. Never waits.
    #[inline]
    pub(super) fn unlock(&self) {
        if block::is_torn_down() {
            return;
        }
        if self.flags.load(Ordering::Relaxed) & HANDOVER != 0 {
            return self.hand_over();
        }
        block::publish(&self.state, 0);
        if self.flags.load(Ordering::SeqCst) & (QUEUED | WOKEN) == QUEUED {
            self.wake_first();
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
            let me = block::place();
            let slot = Slot { handed: Cell::new(false), mine: me | LOCKED };
            let waiter = pin!(Waiter::new());
            let node = Node::new(waiter.as_ref(), 1, (&raw const slot).cast_mut().cast());
            let node = pin!(node);
            let mut queue = self.queue.lock();
            let ask = if overtaken >= PATIENCE { HANDOVER } else { 0 };
            let flags = self.flags.load(Ordering::Relaxed);
            self.flags.store(flags & !woken | QUEUED | ask, Ordering::SeqCst);
            match woken {
                0 => queue.push(node.as_ref()),
                // It was the first before. Only one waiter is woken at a time.
                _ => queue.push_front(node.as_ref()),
            }
            drop(queue);
            if me == 0 || self.state.load(Ordering::Relaxed) != me | LOCKED {
                block::order_before_wait();
                if self.state.load(Ordering::SeqCst) == 0 {
                    self.wake_first();
                }
            }
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
        let me = block::place();
        let mut rounds = 0;
        loop {
            if self.state.load(Ordering::Relaxed) == 0 && self.take() {
                if woken != 0 {
                    self.clear_woken();
                }
                return true;
            }
            if rounds == ROUNDS
                // The holder is a suspended fiber of this worker, or others wait already.
                || (me != 0 && self.state.load(Ordering::Relaxed) == me | LOCKED)
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
        /// Far longer than a waiter needs to take what it was handed.
        const CERTAIN: Duration = Duration::from_secs(2);
        let me = block::place();
        let mut certain_ns = clock::deadline_ns(CERTAIN);
        while !self.take() {
            if self.state.load(Ordering::Relaxed) != me | LOCKED {
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

    /// A waiter that was woken has the lock.
    fn clear_woken(&self) {
        let queue = self.queue.lock();
        let flags = self.flags.load(Ordering::Relaxed);
        self.flags.store(flags & !WOKEN, Ordering::SeqCst);
        drop(queue);
    }

    /// The lock was let go of while somebody waited.
    #[cold]
    #[inline(never)]
    fn wake_first(&self) {
        let mut queue = self.queue.lock();
        let flags = self.flags.load(Ordering::Relaxed);
        if flags & WOKEN != 0 || self.state.load(Ordering::SeqCst) != 0 {
            // Whoever was woken, or has it now, sees to the others.
            return;
        }
        let asked = flags & HANDOVER != 0;
        // SAFETY: in the frame of a waiter in the queue, which only looks at it meanwhile.
        let slot = |slot: *mut ()| unsafe { &*slot.cast::<Slot>() };
        // Nobody withdraws, so what was taken for the first waiter becomes its.
        let first = queue.claim_first_if(|_, of| !asked || self.take_as(slot(of).mine));
        let left = if queue.is_empty() { 0 } else { QUEUED };
        match &first {
            Some(first) if asked => {
                slot(first.slot()).handed.set(true);
                self.flags.store(left, Ordering::SeqCst);
            }
            Some(_) => self.flags.store(left | WOKEN, Ordering::SeqCst),
            // Somebody was faster, who has been asked to hand it over.
            None if left != 0 => {}
            None => self.flags.store(0, Ordering::SeqCst),
        }
        drop(queue);
        drop(first);
    }

    /// By the holder, who was asked to.
    #[cold]
    #[inline(never)]
    fn hand_over(&self) {
        let mut queue = self.queue.lock();
        let first = queue.claim_first();
        let left = if queue.is_empty() { 0 } else { QUEUED };
        self.flags.store(left, Ordering::SeqCst);
        let mut next = 0;
        if let Some(first) = &first {
            // SAFETY: in the frame of a waiter that is claimed and not woken, and does not look at
            // it before it is.
            let slot = unsafe { &*first.slot().cast::<Slot>() };
            slot.handed.set(true);
            next = slot.mine;
        }
        self.state.store(next, Ordering::Release);
        drop(queue);
        drop(first);
    }
}
