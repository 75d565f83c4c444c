//! A worker's timers: a 4-ary heap of deadlines.
//!
//! Arming and disarming cost no system call: the earliest deadline becomes the timeout of the one
//! wait that the idle worker makes. Equal deadlines fire in the order they were armed.
//!
//! Four children per node rather than two: half the levels, and the children of a node share a
//! cache line.
#![forbid(unsafe_code)]

use crate::coro::TimerPtr;

const ARITY: usize = 4;

#[derive(Clone, Copy)]
struct Entry {
    deadline_ns: u64,
    sequence: u64,
    timer: TimerPtr,
}

impl Entry {
    fn key(&self) -> (u64, u64) {
        (self.deadline_ns, self.sequence)
    }
}

/// See the module's head.
#[derive(Default)]
pub(crate) struct Timers {
    heap: Vec<Entry>,
    sequence: u64,
}

impl Timers {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    /// The earliest deadline.
    #[inline]
    pub(crate) fn next_deadline_ns(&self) -> Option<u64> {
        self.heap.first().map(|entry| entry.deadline_ns)
    }

    pub(crate) fn insert(&mut self, timer: TimerPtr) {
        self.sequence += 1;
        let entry = Entry { deadline_ns: timer.deadline_ns(), sequence: self.sequence, timer };
        self.heap.push(entry);
        self.sift_up(self.heap.len() - 1, entry);
    }

    /// Takes out a timer that is in the heap.
    pub(crate) fn remove(&mut self, timer: TimerPtr) {
        let at = timer.index();
        timer.set_removed();
        let last = self.heap.pop().expect("the timer is in the heap");
        if at < self.heap.len() {
            // The last entry takes its place and finds its own from there.
            if at > 0 && last.key() < self.heap[(at - 1) / ARITY].key() {
                self.sift_up(at, last);
            } else {
                self.sift_down(at, last);
            }
        }
    }

    /// Takes out the earliest timer if its deadline has come.
    pub(crate) fn pop_due(&mut self, now_ns: u64) -> Option<TimerPtr> {
        let first = *self.heap.first()?;
        if first.deadline_ns > now_ns {
            return None;
        }
        self.remove(first.timer);
        Some(first.timer)
    }

    fn place(&mut self, at: usize, entry: Entry) {
        self.heap[at] = entry;
        entry.timer.set_index(at);
    }

    fn sift_up(&mut self, mut at: usize, entry: Entry) {
        while at > 0 {
            let parent = (at - 1) / ARITY;
            if self.heap[parent].key() <= entry.key() {
                break;
            }
            self.place(at, self.heap[parent]);
            at = parent;
        }
        self.place(at, entry);
    }

    fn sift_down(&mut self, mut at: usize, entry: Entry) {
        loop {
            let first = at * ARITY + 1;
            let children = first..(first + ARITY).min(self.heap.len());
            let Some(least) = children.min_by_key(|&child| self.heap[child].key()) else { break };
            if self.heap[least].key() >= entry.key() {
                break;
            }
            self.place(at, self.heap[least]);
            at = least;
        }
        self.place(at, entry);
    }
}
