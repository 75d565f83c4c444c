//! The lock inside [`RwLock`](super::RwLock), without data and poison.
//!
//! The state counts readers in steps of `READER`, beside two bits: `WRITER`, somebody writes, and
//! `QUEUED`, somebody is in the queue (changed under the queue's lock, like all that follows).
//! While somebody is, nobody passes him: whoever comes joins the queue, and who lets go of the lock
//! last hands it to the first in the queue, and if that one reads, to all readers behind him up to
//! the first writer. Those find the state changed for them when they are woken.

use super::block;
use super::wait::{ClaimedList, Locked, Node, Queue, Waiter};
use crate::atomic::{AtomicU32, Ordering, const_fn};
use crate::coro::OnCancel;
use std::pin::pin;

const WRITER: u32 = 1;
const QUEUED: u32 = 2;
const READER: u32 = 4;
/// Readers beyond this could overflow the count.
const MAX: u32 = u32::MAX - 2 * READER;
/// Rounds of spinning, each twice as long as the one before.
const ROUNDS: u32 = if cfg!(loom) { 0 } else { 5 };

/// See the module's head.
pub(super) struct RawRwLock {
    state: AtomicU32,
    queue: Locked<Queue>,
}

impl RawRwLock {
    const_fn! {
        pub(super) fn new() -> Self {
            Self { state: AtomicU32::new(0), queue: Locked::new(Queue::new()) }
        }
    }

    #[inline]
    pub(super) fn read(&self) {
        if !self.try_read() {
            self.wait(READER);
        }
    }

    #[inline]
    pub(super) fn write(&self) {
        if !self.try_write() {
            self.wait(WRITER);
        }
    }

    #[inline]
    pub(super) fn try_read(&self) -> bool {
        let mut state = self.state.load(Ordering::Relaxed);
        while state & (WRITER | QUEUED) == 0 {
            if state >= MAX {
                too_many_readers();
            }
            match self.state.compare_exchange_weak(
                state,
                state + READER,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => state = now,
            }
        }
        false
    }

    #[inline]
    pub(super) fn try_write(&self) -> bool {
        self.state.compare_exchange(0, WRITER, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Never waits, like all that unlocks.
    #[inline]
    pub(super) fn unlock_read(&self) {
        if block::is_torn_down() {
            return;
        }
        let state = self.state.fetch_sub(READER, Ordering::Release) - READER;
        if state == QUEUED {
            self.hand_over();
        }
    }

    #[inline]
    pub(super) fn unlock_write(&self) {
        if block::is_torn_down() {
            return;
        }
        if self.state.fetch_sub(WRITER, Ordering::Release) != WRITER {
            self.hand_over();
        }
    }

    /// From writing to reading.
    pub(super) fn downgrade(&self) {
        let state = self.state.fetch_add(READER - WRITER, Ordering::Release);
        if state & QUEUED != 0 {
            self.admit();
        }
    }

    /// `add` is `READER` or `WRITER`.
    #[cold]
    #[inline(never)]
    fn wait(&self, add: u32) {
        let taken = || if add == READER { self.try_read() } else { self.try_write() };
        // A holder in another thread may be done in a moment. Not so if others wait already.
        for round in 0..ROUNDS {
            if self.state.load(Ordering::Relaxed) & QUEUED != 0 {
                break;
            }
            if taken() {
                return;
            }
            for _ in 0..1 << round {
                std::hint::spin_loop();
            }
        }
        let waiter = pin!(Waiter::new());
        let node = pin!(Node::new(waiter.as_ref(), add as usize, std::ptr::null_mut()));
        let mut queue = self.queue.lock();
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            let blocked = match add {
                WRITER => state != 0,
                _ => state & (WRITER | QUEUED) != 0,
            };
            let new = if blocked { state | QUEUED } else { state + add };
            match self.state.compare_exchange_weak(state, new, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) if blocked => break,
                Ok(_) => return,
                Err(now) => state = now,
            }
        }
        queue.push(node.as_ref());
        drop(queue);
        waiter.as_ref().wait(None, OnCancel::Ignore);
    }

    /// The lock was let go of while somebody is queued.
    #[cold]
    #[inline(never)]
    fn hand_over(&self) {
        let mut queue = self.queue.lock();
        // While somebody is queued nobody outside takes the lock. But it may have been handed over
        // since, let go of again by those, and so on: then it is free for us to hand over now, or
        // somebody else has it.
        // Acquire: what the holders did comes before what the next ones do.
        if self.state.load(Ordering::Acquire) != QUEUED {
            return;
        }
        if let Some(first) = queue.claim_first_if(|token, _| token == WRITER as usize) {
            let queued = if queue.is_empty() { 0 } else { QUEUED };
            self.state.store(WRITER | queued, Ordering::Relaxed);
            drop(queue);
            first.wake();
        } else {
            let readers = self.admit_readers(&mut queue);
            drop(queue);
            readers.wake();
        }
    }

    /// The lock is read: lets in the readers at the head of the queue.
    #[cold]
    fn admit(&self) {
        let mut queue = self.queue.lock();
        let state = self.state.load(Ordering::Acquire);
        if state & QUEUED != 0 && state & WRITER == 0 {
            let readers = self.admit_readers(&mut queue);
            drop(queue);
            readers.wake();
        }
    }

    /// Under the queue's lock, with `QUEUED` set and no writer. The readers are to be woken after
    /// it.
    fn admit_readers(&self, queue: &mut Queue) -> ClaimedList {
        let readers = queue.claim_while(|token, _| token == READER as usize);
        let count = u32::try_from(readers.len()).ok().and_then(|count| count.checked_mul(READER));
        let Some(count) = count.filter(|count| *count < MAX) else { too_many_readers() };
        let clear = if queue.is_empty() { QUEUED } else { 0 };
        // Others may leave meanwhile.
        let before = self.state.fetch_add(count.wrapping_sub(clear), Ordering::Relaxed);
        if before >= MAX - count {
            too_many_readers();
        }
        readers
    }
}

/// As std panics; but here some of them have been let in already.
#[cold]
fn too_many_readers() -> ! {
    block::die("more than 2^30 readers of one `RwLock`")
}
