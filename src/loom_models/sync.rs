//! `sync`: queues of waiters (`sync/wait.rs`), and the locks that are made of them. A wait that
//! never ends is found by the model of waiting in `sync/block.rs`.

use super::{check, must_fail};
use crate::coro::OnCancel;
use crate::sync::wait::{Locked, Node, Queue, Waited, Waiter, wait_in};
use crate::sync::{Condvar, Event, Mutex, RwLock};
use crate::sync::{IS_CANARY, NO_FENCES};
use loom::sync::Arc;
use loom::sync::atomic::{
    AtomicBool, AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
use loom::thread;
use std::pin::pin;
use std::ptr;

fn must_lose_a_wake_up(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    IS_CANARY.set(true);
    must_fail(preemptions, "a wake-up is lost", model);
    IS_CANARY.set(false);
}

/// A deadline that comes at any time.
const ANY_TIME: Option<u64> = Some(0);

/// Two queues, and what their wakers hand over.
struct Arms {
    queues: [Locked<Queue>; 2],
    data: [AtomicUsize; 2],
    claims: AtomicUsize,
}

/// One waiter in two queues, each with a waker, and perhaps a deadline: one of them decides.
fn select(deadline_ns: Option<u64>) {
    let arms = Arc::new(Arms {
        queues: [Locked::new(Queue::new()), Locked::new(Queue::new())],
        data: [AtomicUsize::new(0), AtomicUsize::new(0)],
        claims: AtomicUsize::new(0),
    });
    let wakers: Vec<_> = (0..2)
        .map(|arm| {
            let arms = Arc::clone(&arms);
            thread::spawn(move || {
                let claimed = arms.queues[arm].lock().claim_first();
                if let Some(claimed) = claimed {
                    assert_eq!(claimed.token(), arm + 1);
                    arms.claims.fetch_add(1, Relaxed);
                    arms.data[arm].store(1, Relaxed);
                    claimed.wake();
                }
            })
        })
        .collect();
    let waiter = pin!(Waiter::new());
    let one = pin!(Node::new(waiter.as_ref(), 1, ptr::null_mut()));
    let two = pin!(Node::new(waiter.as_ref(), 2, ptr::null_mut()));
    arms.queues[0].lock().push(one.as_ref());
    arms.queues[1].lock().push(two.as_ref());
    // A waker may have come before there was anybody to wake.
    let woken = waiter.as_ref().wait(deadline_ns, OnCancel::Ignore);
    arms.queues[0].lock().remove(one.as_ref());
    arms.queues[1].lock().remove(two.as_ref());
    if let Some(token) = woken {
        assert_eq!(arms.data[token - 1].load(Relaxed), 1, "what was handed over is not visible");
    }
    for waker in wakers {
        waker.join().unwrap();
    }
    assert_eq!(arms.claims.load(Relaxed), usize::from(woken.is_some()), "woken by one or none");
}

#[test]
fn one_waker_or_the_deadline_decides() {
    check(2, || select(ANY_TIME));
}

/// Without a deadline the wakers have to come late enough, which they do not always.
#[test]
fn canary_nobody_to_wake() {
    must_lose_a_wake_up(2, || select(None));
}

/// A number that only the holder of a lock touches: without order or exclusion from the lock a read
/// is out of date, and an addition lost.
struct Number(AtomicUsize);

impl Number {
    fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    fn add(&self) {
        self.0.store(self.get() + 1, Relaxed);
    }

    fn get(&self) -> usize {
        self.0.load(Relaxed)
    }
}

/// Threads that add under a mutex, each so many times.
fn mutex(threads: usize, times: usize) {
    let shared = Arc::new((Mutex::new(()), Number::new()));
    let work = move |shared: &(Mutex<()>, Number)| {
        for _ in 0..times {
            let guard = shared.0.lock().unwrap();
            shared.1.add();
            drop(guard);
        }
    };
    let others: Vec<_> = (1..threads)
        .map(|_| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || work(&shared))
        })
        .collect();
    work(&shared);
    for other in others {
        other.join().unwrap();
    }
    let _guard = shared.0.try_lock().unwrap();
    assert_eq!(shared.1.get(), threads * times);
}

#[test]
fn mutex_of_three() {
    check(2, || mutex(3, 1));
}

/// Often enough for a waiter to be overtaken, and the lock to be handed over.
#[test]
fn mutex_handed_over() {
    check(3, || mutex(2, 3));
}

/// Who unlocks and who begins to wait may miss each other.
#[test]
fn canary_mutex_without_order() {
    NO_FENCES.set(true);
    must_lose_a_wake_up(3, || mutex(2, 1));
    NO_FENCES.set(false);
}

#[test]
fn canary_no_lock() {
    must_fail(2, "left == right", || {
        let number = Arc::new(Number::new());
        let other = Arc::clone(&number);
        let thread = thread::spawn(move || other.add());
        number.add();
        thread.join().unwrap();
        assert_eq!(number.get(), 2);
    });
}

/// `writers` that write, one more thread that reads or writes and then reads.
fn rwlock(readers: usize, writers: usize, downgrade: bool) {
    let shared = Arc::new((RwLock::new(()), Number::new()));
    let mut others = Vec::new();
    for index in 0..readers + writers {
        let shared = Arc::clone(&shared);
        others.push(thread::spawn(move || {
            if index < readers {
                let _guard = shared.0.read().unwrap();
                assert!(shared.1.get() <= writers + 1);
            } else {
                let _guard = shared.0.write().unwrap();
                shared.1.add();
            }
        }));
    }
    let guard = shared.0.write().unwrap();
    shared.1.add();
    if downgrade {
        let before = shared.1.get();
        let guard = guard.downgrade();
        assert_eq!(shared.1.get(), before, "somebody wrote while this one reads");
        drop(guard);
    } else {
        drop(guard);
    }
    for other in others {
        other.join().unwrap();
    }
    let _guard = shared.0.try_write().unwrap();
    assert_eq!(shared.1.get(), writers + 1);
}

#[test]
fn rwlock_two_readers() {
    check(2, || rwlock(2, 0, false));
}

#[test]
fn rwlock_reader_and_writer() {
    check(2, || rwlock(1, 1, false));
}

#[test]
fn rwlock_downgraded() {
    check(2, || rwlock(1, 1, true));
}

/// One waits for a flag, another sets it, with the mutex or (a mistake) without.
fn condvar(with_mutex: bool, timeout: bool) {
    let shared = Arc::new((Mutex::new(()), Condvar::new(), AtomicBool::new(false)));
    let other = Arc::clone(&shared);
    let setter = thread::spawn(move || {
        let guard = with_mutex.then(|| other.0.lock().unwrap());
        other.2.store(true, Relaxed);
        drop(guard);
        other.1.notify_one();
    });
    let mut guard = shared.0.lock().unwrap();
    if timeout {
        let wait = shared.1.wait_timeout(guard, std::time::Duration::ZERO);
        guard = wait.unwrap().0;
    }
    while !shared.2.load(Relaxed) {
        guard = shared.1.wait(guard).unwrap();
    }
    drop(guard);
    setter.join().unwrap();
}

#[test]
fn condvar_wakes() {
    check(3, || condvar(true, false));
}

#[test]
fn condvar_after_a_timeout() {
    check(2, || condvar(true, true));
}

#[test]
fn canary_condvar_without_the_mutex() {
    must_lose_a_wake_up(3, || condvar(false, false));
}

#[test]
fn event_wakes_all() {
    check(2, || {
        let shared = Arc::new((Event::new(), AtomicUsize::new(0)));
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let shared = Arc::clone(&shared);
                thread::spawn(move || {
                    assert!(shared.0.wait());
                    assert_eq!(shared.1.load(Relaxed), 1, "what came before is not visible");
                })
            })
            .collect();
        shared.1.store(1, Relaxed);
        shared.0.set();
        for waiter in waiters {
            waiter.join().unwrap();
        }
    });
}

/// An event that is looked at under the queue's lock, or (a mistake) only before.
fn look(under_the_lock: bool) {
    let shared = Arc::new((AtomicBool::new(false), Locked::new(Queue::new())));
    let other = Arc::clone(&shared);
    let setter = thread::spawn(move || {
        other.0.store(true, Release);
        let waiters = other.1.lock().claim_all();
        waiters.wake();
    });
    if !shared.0.load(Acquire) {
        let waited = wait_in(
            &shared.1,
            |queue| queue,
            None,
            OnCancel::Ignore,
            |_| !under_the_lock || !shared.0.load(Acquire),
        );
        assert!(waited != Waited::GaveUp);
    }
    setter.join().unwrap();
}

#[test]
fn nothing_is_missed_by_who_looks_under_the_lock() {
    check(3, || look(true));
}

#[test]
fn canary_look_before_the_lock() {
    must_lose_a_wake_up(3, || look(false));
}
