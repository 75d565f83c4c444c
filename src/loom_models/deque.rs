//! `sched/deque.rs`: each item is taken once, by its owner or by a thief; and who falls asleep
//! meanwhile is told when the items have come to two.

use super::{check, must_fail};
use crate::sched::deque::{Deque, NO_HEAVY, NO_LIMIT, Owner};
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed, fence};
use loom::thread;

/// Items are addresses that nobody follows.
fn item(number: usize) -> *mut u8 {
    std::ptr::without_provenance_mut(number + 1)
}

/// How often each item has been taken.
struct Takes(Vec<AtomicUsize>);

impl Takes {
    fn new(items: usize) -> Arc<Self> {
        Arc::new(Self((0..items).map(|_| AtomicUsize::new(0)).collect()))
    }

    fn add(&self, item: *mut u8) {
        assert!(!item.is_null(), "an item that was not pushed");
        self.0[item.addr() - 1].fetch_add(1, Relaxed);
    }
}

/// A look or two for an answer, then the owner is interrupted.
fn steal(deque: &Deque<u8>, looks: usize, takes: &Takes) -> usize {
    let mut left = looks;
    let waits = || {
        let waits = left > 0;
        left = left.saturating_sub(1);
        waits
    };
    deque.steal(usize::MAX, waits, |item| takes.add(item))
}

/// The owner starts with `items`, pushes one more in between, and takes `pops` of them, while the
/// others steal.
fn owner_and_thieves(items: usize, pops: usize, pushes: bool, thieves: usize, looks: usize) {
    let owner = Owner::new();
    (0..items).for_each(|number| _ = owner.push(item(number)));
    let takes = Takes::new(items + usize::from(pushes));
    let threads: Vec<_> = (0..thieves)
        .map(|_| {
            let (deque, takes) = (std::sync::Arc::clone(owner.deque()), Arc::clone(&takes));
            thread::spawn(move || _ = steal(&deque, looks, &takes))
        })
        .collect();
    for nth in 0..pops {
        if pushes && nth == 1 {
            owner.push(item(items));
        }
        if let Some(item) = owner.pop() {
            takes.add(item);
        }
    }
    for thread in threads {
        thread.join().unwrap();
    }
    // What nobody has taken is still there.
    while let Some(item) = owner.pop() {
        takes.add(item);
    }
    assert!(owner.deque().is_empty());
    for taken in &takes.0 {
        assert_eq!(taken.load(Relaxed), 1, "an item is taken twice, or lost");
    }
}

#[test]
fn the_last_item() {
    check(4, || owner_and_thieves(1, 2, false, 1, 0));
}

#[test]
fn the_owner_answers_or_not() {
    check(3, || owner_and_thieves(2, 3, true, 1, 1));
}

#[test]
fn half_of_them() {
    check(3, || owner_and_thieves(4, 4, false, 1, 0));
}

#[test]
fn two_thieves() {
    check(2, || owner_and_thieves(2, 2, false, 2, 0));
}

#[test]
fn the_owner_takes_the_oldest() {
    check(3, || {
        let owner = Owner::new();
        (0..2).for_each(|number| _ = owner.push(item(number)));
        let takes = Takes::new(2);
        let (deque, theirs) = (std::sync::Arc::clone(owner.deque()), Arc::clone(&takes));
        let thief = thread::spawn(move || _ = steal(&deque, 0, &theirs));
        for item in [owner.pop_oldest(), owner.pop()].into_iter().flatten() {
            takes.add(item);
        }
        thief.join().unwrap();
        while let Some(item) = owner.pop() {
            takes.add(item);
        }
        assert!(takes.0.iter().all(|taken| taken.load(Relaxed) == 1), "taken twice, or lost");
    });
}

/// The thief does not see to it that the owner sees the limit.
#[test]
fn canary_no_barrier() {
    NO_HEAVY.set(true);
    must_fail(4, "an item is taken twice", || owner_and_thieves(1, 2, false, 1, 0));
    NO_HEAVY.set(false);
}

/// Two items are there, and known. A thief takes some, tells the sleeper of what it has left, and
/// is busy for good; the owner pushes one more, and is busy for good; the sleeper lies down.
fn told_or_seen(looks: usize) {
    let owner = Owner::new();
    (0..2).for_each(|number| _ = owner.push(item(number)));
    let asleep = Arc::new(AtomicBool::new(false));
    let tell = |asleep: &AtomicBool| {
        fence(loom::sync::atomic::Ordering::SeqCst);
        if asleep.load(Relaxed) {
            asleep.store(false, Relaxed);
        }
    };
    let thief = {
        let (deque, asleep) = (std::sync::Arc::clone(owner.deque()), Arc::clone(&asleep));
        thread::spawn(move || {
            let takes = Takes::new(3);
            if steal(&deque, looks, &takes) != 0 && !deque.is_empty() {
                tell(&asleep);
            }
        })
    };
    let sleeper = {
        let (deque, asleep) = (std::sync::Arc::clone(owner.deque()), Arc::clone(&asleep));
        thread::spawn(move || {
            asleep.store(true, Relaxed);
            fence(loom::sync::atomic::Ordering::SeqCst);
            if deque.len() >= 2 {
                asleep.store(false, Relaxed);
            }
        })
    };
    let items = owner.push(item(2));
    if owner.is_news(items) && items >= 2 {
        tell(&asleep);
    }
    thief.join().unwrap();
    sleeper.join().unwrap();
    assert!(!asleep.load(Relaxed) || owner.deque().len() < 2, "nobody is told");
}

#[test]
fn who_falls_asleep_is_told_or_sees_two() {
    check(3, || told_or_seen(0));
    check(2, || told_or_seen(1));
}

#[test]
fn canary_no_look_at_the_limit() {
    NO_LIMIT.set(true);
    must_fail(3, "nobody is told", || told_or_seen(0));
    NO_LIMIT.set(false);
}
