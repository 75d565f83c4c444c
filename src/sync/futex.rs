//! Waiting for a word of memory to change: what the system call of that name does for threads, for
//! fibers and threads mixed, and within this process. For locks and queues of one's own.
//!
//! ```
//! use ramie::sync::atomic::{AtomicU32, Ordering};
//! use ramie::sync::{Arc, futex};
//!
//! ramie::Runtime::new()?.run(|| {
//!     let word = Arc::new(AtomicU32::new(0));
//!     let other = Arc::clone(&word);
//!     let fiber = ramie::spawn(move || {
//!         other.store(1, Ordering::Release);
//!         futex::wake_one(&*other);
//!     });
//!     while word.load(Ordering::Acquire) == 0 {
//!         futex::wait(&word, 0);
//!     }
//!     fiber.join().unwrap();
//! });
//! # std::io::Result::Ok(())
//! ```
//!
//! The waiters are in a table of queues by the hash of the word's address.
#![forbid(unsafe_code)]

use super::block;
use super::wait::{ClaimedList, Locked, Node, Queue, Waiter};
use crate::coro::OnCancel;
use crate::sys::clock;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const BUCKETS: usize = 256;

/// Words whose addresses have the same hash. On a cache line of its own.
#[repr(align(64))]
struct Bucket(Locked<Queue>);

static TABLE: [Bucket; BUCKETS] = [const { Bucket(Locked::new(Queue::new())) }; BUCKETS];

fn bucket(word: *const AtomicU32) -> &'static Locked<Queue> {
    // Fibonacci hashing: the high bits of the product depend on all bits of the address.
    let hash = (word.addr() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    &TABLE[(hash >> (u64::BITS - BUCKETS.ilog2())) as usize].0
}

/// Waits until a wake for `word`, if it holds `expected`; otherwise returns at once. May return for
/// no reason, so it belongs in a loop.
///
/// Who changes the word and wakes afterwards is not missed.
///
/// # Panics
/// Inside [`no_suspend`](crate::no_suspend).
///
/// # Cancellation
/// A cancel request ends the wait early, once, and is not reported thereby.
pub fn wait(word: &AtomicU32, expected: u32) {
    wait_until(word, expected, None);
}

/// As [`wait`], for `timeout` at most. Returns `false` if the time was up.
///
/// # Panics
/// Inside [`no_suspend`](crate::no_suspend).
///
/// # Cancellation
/// A cancel request ends the wait early, once, and is not reported thereby. While the runtime shuts
/// down no deadline is waited for: the time is up at once.
pub fn wait_timeout(word: &AtomicU32, expected: u32, timeout: Duration) -> bool {
    wait_until(word, expected, Some(clock::deadline_ns(timeout)))
}

fn wait_until(word: &AtomicU32, expected: u32, deadline_ns: Option<u64>) -> bool {
    let queue = bucket(word);
    let waiter = pin!(Waiter::new());
    let node = pin!(Node::new(waiter.as_ref(), 1, key(word)));
    let mut guard = queue.lock();
    if word.load(Ordering::SeqCst) != expected {
        return true;
    }
    guard.push(node.as_ref());
    drop(guard);
    let on_cancel = block::once_per_request();
    if waiter.as_ref().wait(deadline_ns, on_cancel).is_some() {
        return true;
    }
    queue.lock().remove(node.as_ref());
    if on_cancel == OnCancel::End {
        block::ended_early();
    }
    !deadline_ns.is_some_and(|deadline_ns| block::draining() || clock::now_ns() >= deadline_ns)
}

/// Wakes the one that has waited for `word` longest. Returns whether anybody did. Only the address
/// counts: the word may be gone. Never waits.
pub fn wake_one(word: *const AtomicU32) -> bool {
    let claimed = bucket(word).lock().claim_among(|_, slot| slot == key(word));
    // Woken here, without the lock.
    claimed.is_some()
}

/// Wakes all who wait for `word`, and returns how many did. Only the address counts: the word may
/// be gone. Never waits.
pub fn wake_all(word: *const AtomicU32) -> usize {
    let mut queue = bucket(word).lock();
    let mut list = ClaimedList::new();
    while let Some(claimed) = queue.claim_among(|_, slot| slot == key(word)) {
        list.push(claimed);
    }
    drop(queue);
    list.wake()
}

/// What tells the waiters for one word from others in the same queue.
fn key(word: *const AtomicU32) -> *mut () {
    word.cast_mut().cast()
}
