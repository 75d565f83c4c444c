//! A worker's timers: a 4-ary heap of deadlines.
//!
//! Arming and disarming cost no system call: the earliest deadline becomes the timeout of the one
//! wait that the idle worker makes. Equal deadlines fire in the order they were armed.
//!
//! A wake-up costs a worker some ten microseconds, a timer a tenth of that. So a worker that has
//! many timers does not sleep until the earliest, but a little longer: as many microseconds after
//! those it has fired last as it has timers, and at most [`PAUSE_MAX_NS`]. What comes due meanwhile
//! fires together.
//!
//! Four children per node rather than two: half the levels, and the children of a node, of 16 bytes
//! each, share a cache line or two. Timers lie on as many stacks, where each costs a miss or two to
//! get at, so nothing is written there when entries move: a timer knows its *slot*, and a table of
//! slots says where in the heap it is.
//!
//! A timer without a deadline ([`NEVER`]) is in another table and has no place in the heap: that is
//! how the end of a runtime finds a fiber that waits for as long as it takes. Coming and going
//! costs it a few stores, and no system call is bounded because of it.
#![forbid(unsafe_code)]

use crate::arch::prefetch;
use crate::coro::{FiberPtr, TimerPtr};
use crate::sys::clock::NEVER;

const ARITY: usize = 4;
/// Set in the slot of a timer without a deadline.
const ENDLESS: u32 = 1 << 31;
/// No slot.
const NONE: u32 = u32::MAX;
/// Between two wake-ups for timers alone, for each timer and at most.
const PAUSE_EACH_NS: u64 = 1_000;
const PAUSE_MAX_NS: u64 = 200_000;

#[derive(Clone, Copy)]
struct Entry {
    deadline_ns: u64,
    /// Counts up and comes round.
    sequence: u32,
    slot: u32,
}

impl Entry {
    #[inline]
    fn is_before(&self, other: &Self) -> bool {
        if self.deadline_ns == other.deadline_ns {
            (self.sequence.wrapping_sub(other.sequence) as i32) < 0
        } else {
            self.deadline_ns < other.deadline_ns
        }
    }
}

/// A number of timers that are on as many stacks.
fn few(count: usize) -> u32 {
    assert!(count < NONE as usize & !(ENDLESS as usize), "fewer timers than 2^31");
    count as u32
}

enum Slot {
    Timer(TimerPtr, FiberPtr),
    /// With the next free one.
    Free(Option<u32>),
}

enum Endless {
    Timer(TimerPtr),
    /// With the next free one, or `NONE`.
    Free(u32),
}

/// See the module's head.
pub(crate) struct Timers {
    heap: Vec<Entry>,
    slots: Vec<Slot>,
    /// For each slot, the place of its timer in the heap. By itself, as it is written all the time:
    /// that of a hundred thousand timers stays in a core's cache.
    places: Vec<u32>,
    /// The slot freed last.
    free: Option<u32>,
    sequence: u32,
    /// Timers without a deadline, the slot freed last, and how many there are.
    endless: Vec<Endless>,
    endless_free: u32,
    endless_count: usize,
    /// When a timer fired last.
    fired_ns: u64,
}

impl Timers {
    pub(crate) fn new() -> Self {
        Self {
            heap: Vec::new(),
            slots: Vec::new(),
            places: Vec::new(),
            free: None,
            sequence: 0,
            endless: Vec::new(),
            endless_free: NONE,
            endless_count: 0,
            fired_ns: 0,
        }
    }

    /// How many there are, with those without a deadline.
    pub(crate) fn len(&self) -> usize {
        self.heap.len() + self.endless_count
    }

    /// The earliest deadline.
    #[inline]
    pub(crate) fn next_deadline_ns(&self) -> Option<u64> {
        self.heap.first().map(|entry| entry.deadline_ns)
    }

    /// Until when a worker may sleep that has nothing else to do.
    pub(crate) fn next_wake_ns(&self) -> Option<u64> {
        let pause_ns = (self.heap.len() as u64 * PAUSE_EACH_NS).min(PAUSE_MAX_NS);
        self.next_deadline_ns().map(|next_ns| next_ns.max(self.fired_ns.saturating_add(pause_ns)))
    }

    #[inline]
    pub(crate) fn insert(&mut self, timer: TimerPtr) {
        if timer.deadline_ns() != NEVER {
            return self.insert_in_heap(timer);
        }
        let slot = self.endless_free;
        match self.endless.get_mut(slot as usize) {
            Some(place) => {
                let Endless::Free(next) = std::mem::replace(place, Endless::Timer(timer)) else {
                    panic!("a free slot that holds a timer")
                };
                self.endless_free = next;
                timer.set_slot(slot | ENDLESS);
            }
            None => self.insert_at_end(timer),
        }
        self.endless_count += 1;
    }

    #[cold]
    fn insert_at_end(&mut self, timer: TimerPtr) {
        timer.set_slot(few(self.endless.len()) | ENDLESS);
        self.endless.push(Endless::Timer(timer));
    }

    fn insert_in_heap(&mut self, timer: TimerPtr) {
        let at = self.heap.len();
        let slot = self.take_slot(timer);
        timer.set_slot(slot);
        self.sequence = self.sequence.wrapping_add(1);
        let entry = Entry { deadline_ns: timer.deadline_ns(), sequence: self.sequence, slot };
        self.heap.push(entry);
        self.sift_up(at, entry);
    }

    /// Takes out a timer that is in here.
    #[inline]
    pub(crate) fn remove(&mut self, timer: TimerPtr) {
        let slot = timer.slot();
        if slot & ENDLESS == 0 {
            self.remove_slot(slot);
        } else {
            let slot = slot & !ENDLESS;
            self.endless[slot as usize] = Endless::Free(self.endless_free);
            self.endless_free = slot;
            self.endless_count -= 1;
        }
        timer.set_removed();
    }

    /// Takes out the earliest timer if its deadline has come; any, if it is `NEVER`. The caller
    /// tells the timer so (`set_removed`), before anybody else uses it.
    pub(crate) fn pop_due(&mut self, now_ns: u64) -> Option<TimerPtr> {
        let Some(&first) = self.heap.first() else {
            return if now_ns == NEVER { self.pop_endless() } else { None };
        };
        if first.deadline_ns > now_ns {
            return None;
        }
        if now_ns != NEVER {
            self.fired_ns = now_ns;
        }
        let (timer, fiber) = self.remove_slot(first.slot);
        timer.prefetch(fiber);
        if let Some(next) = self.heap.first() {
            prefetch((&raw const self.slots[next.slot as usize]).cast());
        }
        Some(timer)
    }

    /// Takes out any timer, while the heap is empty. The table of slots goes with them.
    #[cold]
    fn pop_endless(&mut self) -> Option<TimerPtr> {
        self.endless_free = NONE;
        while let Some(slot) = self.endless.pop() {
            if let Endless::Timer(timer) = slot {
                self.endless_count -= 1;
                return Some(timer);
            }
        }
        None
    }

    fn remove_slot(&mut self, slot: u32) -> (TimerPtr, FiberPtr) {
        let freed = std::mem::replace(&mut self.slots[slot as usize], Slot::Free(self.free));
        let Slot::Timer(timer, fiber) = freed else { panic!("a timer that is in no heap") };
        self.free = Some(slot);
        let at = self.places[slot as usize] as usize;
        let last = self.heap.pop().expect("the timer is in the heap");
        if at < self.heap.len() {
            // The last entry takes its place and finds its own from there.
            if at > 0 && last.is_before(&self.heap[(at - 1) / ARITY]) {
                self.sift_up(at, last);
            } else {
                self.sift_down(at, last);
            }
        }
        (timer, fiber)
    }

    fn take_slot(&mut self, timer: TimerPtr) -> u32 {
        let taken = Slot::Timer(timer, timer.fiber());
        if let Some(slot) = self.free {
            let Slot::Free(next) = std::mem::replace(&mut self.slots[slot as usize], taken) else {
                panic!("a free slot that holds a timer")
            };
            self.free = next;
            return slot;
        }
        let slot = few(self.slots.len());
        self.slots.push(taken);
        self.places.push(0);
        slot
    }

    #[inline]
    fn place(&mut self, at: usize, entry: Entry) {
        self.heap[at] = entry;
        self.places[entry.slot as usize] = at as u32;
    }

    fn sift_up(&mut self, mut at: usize, entry: Entry) {
        while at > 0 {
            let parent = (at - 1) / ARITY;
            if !entry.is_before(&self.heap[parent]) {
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
            let end = (first + ARITY).min(self.heap.len());
            if first >= end {
                break;
            }
            let mut least = first;
            for child in first + 1..end {
                if self.heap[child].is_before(&self.heap[least]) {
                    least = child;
                }
            }
            if !self.heap[least].is_before(&entry) {
                break;
            }
            self.place(at, self.heap[least]);
            at = least;
        }
        self.place(at, entry);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{NEVER, Timers};
    use crate::coro::Timer;
    use crate::coro::fake::{FakeFiber, timer_ptr};

    /// Armed, disarmed and fired in any order, against a list that is searched. With those without
    /// a deadline, and at last as at the end of a runtime, when all fire.
    #[test]
    fn the_earliest_fires_first() {
        let fiber = FakeFiber::new(1);
        let mut random = 1_u64;
        let mut below = |end: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % end
        };
        for _ in 0..2 {
            let timers: Vec<_> = (0..60)
                .map(|n| {
                    let deadline_ns = if n % 7 == 0 { NEVER } else { 100 + below(40) };
                    Timer::new(deadline_ns, fiber.ptr())
                })
                .collect();
            let mut heap = Timers::new();
            // The armed ones, in the order in which they were armed.
            let mut armed: Vec<&Timer> = Vec::new();
            for now_ns in 0..140 {
                let timer = &timers[below(60) as usize];
                if timer.in_heap() {
                    armed.retain(|other| !std::ptr::eq(*other, timer));
                    heap.remove(timer_ptr(timer));
                } else {
                    armed.push(timer);
                    heap.insert(timer_ptr(timer));
                }
                assert_eq!(heap.len(), armed.len());
                let first = armed.iter().map(|timer| timer.deadline_ns).min();
                assert_eq!(heap.next_deadline_ns(), first.filter(|first| *first != NEVER));
                while let Some(due) = heap.pop_due(now_ns) {
                    due.set_removed();
                    // `min_by_key` returns the first of several.
                    let earliest = armed.iter().min_by_key(|timer| timer.deadline_ns).unwrap();
                    let fired = armed.iter().position(|timer| !timer.in_heap()).unwrap();
                    assert!(
                        std::ptr::eq(armed[fired], *earliest) && earliest.deadline_ns <= now_ns
                    );
                    armed.remove(fired);
                }
            }
            while let Some(due) = heap.pop_due(NEVER) {
                due.set_removed();
            }
            assert!(heap.len() == 0 && timers.iter().all(|timer| !timer.in_heap()));
        }
    }
}
