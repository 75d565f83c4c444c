//! `sched/inbox.rs`: nothing lost, nothing doubled, first in first out for each giver.

use super::{check, must_fail};
use crate::sched::inbox::{Inbox, Node};
use loom::sync::Arc;
use loom::sync::atomic::{
    AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed, Release},
};
use loom::thread;
use std::ptr;

const NODES: usize = 4;

loom::lazy_static! {
    /// The links of the nodes, and what their givers wrote into them.
    static ref LINKS: [AtomicUsize; NODES] = [zero(), zero(), zero(), zero()];
    static ref DATA: [AtomicUsize; NODES] = [zero(), zero(), zero(), zero()];
}

fn zero() -> AtomicUsize {
    AtomicUsize::new(0)
}

/// The node with this number; its address is the number plus one.
#[derive(Clone, Copy)]
struct Numbered(usize);

impl Node for Numbered {
    type Target = u8;
    fn to_ptr(self) -> *mut u8 {
        ptr::without_provenance_mut(self.0 + 1)
    }
    fn from_ptr(ptr: *mut u8) -> Self {
        Self(ptr.addr() - 1)
    }
    fn set_next(self, next: *mut u8) {
        LINKS[self.0].store(next.addr(), Relaxed);
    }
    fn next(self) -> *mut u8 {
        ptr::without_provenance_mut(LINKS[self.0].load(Relaxed))
    }
}

trait Queue: Send + Sync + 'static {
    fn new() -> Self;
    fn push(&self, node: usize);
    fn take(&self) -> Vec<usize>;
}

impl Queue for Inbox<Numbered> {
    fn new() -> Self {
        Inbox::new()
    }
    fn push(&self, node: usize) {
        self.push(Numbered(node));
    }
    fn take(&self) -> Vec<usize> {
        self.take().map(|node| node.0).collect()
    }
}

/// Two givers, two nodes each; the owner takes meanwhile, and once more when all is in.
fn givers_and_owner<B: Queue>() {
    let inbox = Arc::new(B::new());
    let givers: Vec<_> = (0..2)
        .map(|giver| {
            let inbox = Arc::clone(&inbox);
            thread::spawn(move || {
                for node in [2 * giver, 2 * giver + 1] {
                    DATA[node].store(1, Relaxed);
                    inbox.push(node);
                }
            })
        })
        .collect();
    let mut taken = inbox.take();
    for &node in &taken {
        assert_eq!(DATA[node].load(Relaxed), 1, "what was written before the push is not visible");
    }
    for giver in givers {
        giver.join().unwrap();
    }
    taken.extend(inbox.take());
    for giver in 0..2 {
        let of_giver: Vec<_> = taken.iter().filter(|&&node| node / 2 == giver).copied().collect();
        assert_eq!(of_giver, [2 * giver, 2 * giver + 1], "lost, doubled or out of order");
    }
}

#[test]
fn inbox_loses_and_doubles_nothing() {
    check(3, givers_and_owner::<Inbox<Numbered>>);
}

/// An inbox that looks and then clears, instead of both at once.
struct LookThenClear(AtomicUsize);

impl LookThenClear {
    fn all(&self, mut head: usize) -> Vec<usize> {
        let mut all = Vec::new();
        while head != 0 {
            all.insert(0, head - 1);
            head = LINKS[head - 1].load(Relaxed);
        }
        all
    }
}

impl Queue for LookThenClear {
    fn new() -> Self {
        Self(AtomicUsize::new(0))
    }
    fn push(&self, node: usize) {
        let mut head = self.0.load(Relaxed);
        loop {
            LINKS[node].store(head, Relaxed);
            match self.0.compare_exchange(head, node + 1, Release, Relaxed) {
                Ok(_) => return,
                Err(seen) => head = seen,
            }
        }
    }
    fn take(&self) -> Vec<usize> {
        let head = self.0.load(Acquire);
        self.0.store(0, Relaxed);
        self.all(head)
    }
}

#[test]
fn canary_look_then_clear() {
    must_fail(3, "lost, doubled", givers_and_owner::<LookThenClear>);
}

/// An inbox that does not release what it links.
struct Unordered(LookThenClear);

impl Queue for Unordered {
    fn new() -> Self {
        Self(LookThenClear::new())
    }
    fn push(&self, node: usize) {
        let mut head = self.0.0.load(Relaxed);
        loop {
            LINKS[node].store(head, Relaxed);
            match self.0.0.compare_exchange(head, node + 1, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(seen) => head = seen,
            }
        }
    }
    fn take(&self) -> Vec<usize> {
        self.0.all(self.0.0.swap(0, AcqRel))
    }
}

#[test]
fn canary_relaxed_push() {
    must_fail(3, "not visible", givers_and_owner::<Unordered>);
}
