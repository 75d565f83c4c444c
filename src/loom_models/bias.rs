//! `sync/bias.rs`: the owner, which takes no lock, and those who do are never inside together.

use super::{check, must_fail};
use crate::sync::bias::{Bias, NO_HEAVY};
use loom::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use loom::sync::{Arc, Mutex};
use loom::thread;

/// Places of workers.
const HERE: usize = 8;
const THERE: usize = 16;
const FURTHER: usize = 24;

struct Shared {
    bias: Bias,
    lock: Mutex<()>,
    /// Without order and exclusion an addition is lost.
    number: AtomicUsize,
}

impl Shared {
    /// Adds one; whether it took the lock.
    fn add(&self, place: usize) -> bool {
        let add = || self.number.store(self.number.load(Relaxed) + 1, Relaxed);
        if self.bias.enter(place) {
            add();
            self.bias.leave();
            return false;
        }
        let guard = self.lock.lock().unwrap();
        self.bias.locked(place);
        add();
        drop(guard);
        true
    }
}

/// One place becomes the owner and goes on, while the others come.
fn owner_and_others(others: &[usize], times: usize) {
    let shared =
        Arc::new(Shared { bias: Bias::new(), lock: Mutex::new(()), number: AtomicUsize::new(0) });
    assert!(shared.add(HERE), "nobody is the owner at first");
    let threads: Vec<_> = others
        .iter()
        .map(|&place| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || assert!(shared.add(place)))
        })
        .collect();
    let locked = (0..times).filter(|_| shared.add(HERE)).count();
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(shared.number.load(Relaxed), 1 + times + others.len(), "an addition is lost");
    assert!(!others.is_empty() || locked == 0, "the owner took the lock");
}

#[test]
fn the_owner_takes_no_lock() {
    check(2, || owner_and_others(&[], 2));
}

#[test]
fn the_owner_ends() {
    check(3, || owner_and_others(&[THERE], 2));
}

#[test]
fn two_end_the_owner() {
    check(2, || owner_and_others(&[THERE, FURTHER], 1));
}

/// Who ends it looks whether the owner is inside, and may miss it.
#[test]
fn canary_no_barrier() {
    NO_HEAVY.set(true);
    must_fail(3, "an addition is lost", || owner_and_others(&[THERE], 1));
    NO_HEAVY.set(false);
}
