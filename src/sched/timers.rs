//! A worker's timers: whose they are, and when to wake up for them. Their order is in
//! `deadlines.rs`.
//!
//! Arming and disarming cost no system call: the earliest deadline becomes the timeout of the one
//! wait that the idle worker makes. Equal deadlines fire in the order they were armed.
//!
//! A wake-up costs a worker ten to thirty microseconds, a timer one. So a worker that has
//! many timers does not sleep until the earliest, but a little longer: as many microseconds after
//! those it has fired last as it has timers, and at most [`PAUSE_MAX_NS`]. What comes due meanwhile
//! fires together.
//!
//! Timers lie on as many stacks, where each costs a miss or two to get at, that of its page's
//! translation first. So nothing is written there when entries move: a timer knows its *slot*, and
//! a table of slots says whose it is. And those that fire together are asked for together, since a
//! core looks up several translations at a time.
//!
//! A timer without a deadline ([`NEVER`]) is in another table and has no place in the order: that
//! is how the end of a runtime finds a fiber that waits for as long as it takes. Coming and going
//! costs it a few stores, and no system call is bounded because of it.
#![forbid(unsafe_code)]

use super::deadlines::Deadlines;
use crate::arch::prefetch;
use crate::coro::{FiberPtr, TimerPtr};
use crate::sys::clock::NEVER;

/// Timers fired at once.
pub(super) const FIRE_BATCH: usize = 32;
/// Set in the slot of a timer without a deadline.
const ENDLESS: u32 = 1 << 31;
/// No slot.
const NONE: u32 = u32::MAX;
/// Between two wake-ups for timers alone, for each timer and at most.
const PAUSE_EACH_NS: u64 = 1_000;
const PAUSE_MAX_NS: u64 = 350_000;

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
    deadlines: Deadlines,
    slots: Vec<Slot>,
    /// The slot freed last.
    free: Option<u32>,
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
            deadlines: Deadlines::new(),
            slots: Vec::new(),
            free: None,
            endless: Vec::new(),
            endless_free: NONE,
            endless_count: 0,
            fired_ns: 0,
        }
    }

    /// How many there are, with those without a deadline.
    pub(crate) fn len(&self) -> usize {
        self.deadlines.len() + self.endless_count
    }

    /// The earliest deadline; when that was disarmed, perhaps a time that is a little before the
    /// next.
    #[inline]
    pub(crate) fn next_deadline_ns(&self) -> Option<u64> {
        self.deadlines.earliest_ns()
    }

    /// Until when a worker may sleep that has nothing else to do.
    pub(crate) fn next_wake_ns(&self) -> Option<u64> {
        let pause_ns = (self.deadlines.len() as u64 * PAUSE_EACH_NS).min(PAUSE_MAX_NS);
        self.next_deadline_ns().map(|next_ns| next_ns.max(self.fired_ns.saturating_add(pause_ns)))
    }

    #[inline]
    pub(crate) fn insert(&mut self, timer: TimerPtr) {
        if timer.deadline_ns() != NEVER {
            let slot = self.take_slot(timer);
            timer.set_slot(slot);
            return self.deadlines.insert(slot, timer.deadline_ns());
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

    /// Takes out a timer that is in here.
    #[inline]
    pub(crate) fn remove(&mut self, timer: TimerPtr) {
        let slot = timer.slot();
        if slot & ENDLESS == 0 {
            self.deadlines.remove(slot);
            self.free_slot(slot);
        } else {
            let slot = slot & !ENDLESS;
            self.endless[slot as usize] = Endless::Free(self.endless_free);
            self.endless_free = slot;
            self.endless_count -= 1;
        }
        timer.set_removed();
    }

    /// Takes out the earliest timers whose deadline has come, as many as `due` has room for, and
    /// says how many; with `NEVER`, also those without a deadline. The caller tells the timers so
    /// (`set_removed`), before anybody else uses them.
    pub(crate) fn pop_due(
        &mut self,
        now_ns: u64,
        due: &mut [Option<TimerPtr>; FIRE_BATCH],
    ) -> usize {
        let mut slots = [0; FIRE_BATCH];
        let mut count = 0;
        while count < FIRE_BATCH
            && let Some(slot) = self.deadlines.pop_due(now_ns)
        {
            prefetch((&raw const self.slots[slot as usize]).cast());
            slots[count] = slot;
            count += 1;
        }
        for (due, &slot) in due.iter_mut().zip(&slots[..count]) {
            let (timer, fiber) = self.free_slot(slot);
            timer.prefetch(fiber);
            *due = Some(timer);
        }
        if now_ns != NEVER {
            if count != 0 {
                self.fired_ns = now_ns;
            }
            return count;
        }
        while count < FIRE_BATCH
            && let Some(timer) = self.pop_endless()
        {
            due[count] = Some(timer);
            count += 1;
        }
        count
    }

    /// Takes out any timer without a deadline. The table of slots goes with them.
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

    #[inline]
    fn free_slot(&mut self, slot: u32) -> (TimerPtr, FiberPtr) {
        let freed = std::mem::replace(&mut self.slots[slot as usize], Slot::Free(self.free));
        let Slot::Timer(timer, fiber) = freed else { panic!("a timer that is not armed") };
        self.free = Some(slot);
        (timer, fiber)
    }

    fn take_slot(&mut self, timer: TimerPtr) -> u32 {
        let taken = Slot::Timer(timer, timer.fiber());
        if let Some(slot) = self.free {
            let Slot::Free(next) = std::mem::replace(&mut self.slots[slot as usize], taken) else {
                panic!("a free slot that holds a timer")
            };
            self.free = next;
            if let Some(next) = next {
                // For the timer after this one: slots become free in no order.
                prefetch((&raw const self.slots[next as usize]).cast());
                self.deadlines.prefetch(next);
            }
            return slot;
        }
        let slot = few(self.slots.len());
        self.slots.push(taken);
        slot
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{FIRE_BATCH, NEVER, Timers};
    use crate::coro::fake::{FakeFiber, timer_ptr};
    use crate::coro::{Timer, TimerPtr};

    fn fire(timers: &mut Timers, now_ns: u64, mut fired: impl FnMut(TimerPtr)) {
        loop {
            let mut due = [None; FIRE_BATCH];
            let count = timers.pop_due(now_ns, &mut due);
            due.into_iter().flatten().for_each(&mut fired);
            if count < FIRE_BATCH {
                return;
            }
        }
    }

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
                fire(&mut heap, now_ns, |due| {
                    due.set_removed();
                    // `min_by_key` returns the first of several.
                    let earliest = armed.iter().min_by_key(|timer| timer.deadline_ns).unwrap();
                    let fired = armed.iter().position(|timer| !timer.in_heap()).unwrap();
                    assert!(
                        std::ptr::eq(armed[fired], *earliest) && earliest.deadline_ns <= now_ns
                    );
                    armed.remove(fired);
                });
                assert!(armed.iter().all(|timer| timer.deadline_ns > now_ns), "one is late");
            }
            fire(&mut heap, NEVER, |due| due.set_removed());
            assert!(heap.len() == 0 && timers.iter().all(|timer| !timer.in_heap()));
        }
    }
}
