//! Deadlines in order: a wheel for those that are not near, a 4-ary heap for those that are.
//!
//! A heap of a hundred thousand is larger than a core's second cache, and each removal of its
//! first walks through all of it. So a deadline waits in a *bucket*, with others of about the same
//! time and in no order, until that time has come; then the bucket goes into the heap, which stays
//! small. Times are counted in *ticks* of a millisecond. A tick is a number of six-bit digits; the
//! highest digit in which a deadline's tick differs from the current one says on which *level* it
//! waits, and the value of that digit in which bucket. A bucket of a higher level is distributed
//! over the lower ones when its time has come: a deadline moves once per level, at most.
//!
//! Order is exact, also among equal deadlines: those that were put in first come first. What is not
//! near is not in the heap, but a bucket knows its earliest deadline, so nobody has to look into
//! it, or to wake up, before anything in it is due. Once that one has been taken out of many, it
//! may say a time that is too early, never one that is too late.
//!
//! A deadline is named by its *slot*, a small number that the caller chooses.
//!
//! Invariants.
//! 1. What is in the wheel has a later tick than `now`, and what is in the heap has not.
//! 2. On each level, buckets up to the one of `now` itself are empty. So the first deadline of the
//!    lowest level that has any is earlier than everything else in the wheel.
#![forbid(unsafe_code)]

use crate::arch::prefetch;

const ARITY: usize = 4;

/// A tick is 2^20 ns.
const TICK_BITS: u32 = 20;
const DIGIT_BITS: u32 = 6;
const BUCKETS: usize = 1 << DIGIT_BITS;
/// Enough for the ticks of 64 bits of nanoseconds.
const LEVELS: usize = (u64::BITS - TICK_BITS).div_ceil(DIGIT_BITS) as usize;
/// So much memory, in entries, an empty bucket may keep.
const KEPT: usize = 256;

/// Among so many entries the next earliest is looked for when the earliest is taken out.
const FEW: usize = 8;

/// `Place::bucket` of what is in the heap.
const HEAP: u32 = u32::MAX;

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

    #[inline]
    fn tick(&self) -> u64 {
        self.deadline_ns >> TICK_BITS
    }
}

/// Where the entry of a slot is.
#[derive(Clone, Copy)]
struct Place {
    bucket: u32,
    at: u32,
}

struct Bucket {
    entries: Vec<Entry>,
    /// None of them is earlier.
    earliest_ns: u64,
}

/// See the module's head.
pub(super) struct Deadlines {
    heap: Vec<Entry>,
    buckets: Box<[Bucket]>,
    /// For each level, which of its buckets are in use; and which levels have any such.
    used: [u64; LEVELS],
    used_levels: u32,
    /// The current tick, as far as anybody has needed to know.
    now: u64,
    /// Of each slot. A table by itself, as it is written all the time: that of a hundred thousand
    /// stays in a core's cache.
    places: Vec<Place>,
    len: usize,
    sequence: u32,
    /// An empty one, for the next bucket that is taken.
    spare: Vec<Entry>,
}

impl Deadlines {
    pub(super) fn new() -> Self {
        let empty = || Bucket { entries: Vec::new(), earliest_ns: u64::MAX };
        Self {
            heap: Vec::new(),
            buckets: (0..LEVELS * BUCKETS).map(|_| empty()).collect(),
            used: [0; LEVELS],
            used_levels: 0,
            now: 0,
            places: Vec::new(),
            len: 0,
            sequence: 0,
            spare: Vec::new(),
        }
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The earliest deadline, or an earlier time if that was taken out.
    #[inline]
    pub(super) fn earliest_ns(&self) -> Option<u64> {
        match self.heap.first() {
            Some(first) => Some(first.deadline_ns),
            None => self.first_bucket().map(|index| self.buckets[index].earliest_ns),
        }
    }

    /// Asks for the memory of a slot that will be put in.
    #[inline]
    pub(super) fn prefetch(&self, slot: u32) {
        if let Some(place) = self.places.get(slot as usize) {
            prefetch(std::ptr::from_ref(place).cast());
        }
    }

    /// Puts in a slot that is not in here.
    #[inline]
    pub(super) fn insert(&mut self, slot: u32, deadline_ns: u64) {
        if slot as usize >= self.places.len() {
            self.places.resize(slot as usize + 1, Place { bucket: HEAP, at: 0 });
        }
        self.sequence = self.sequence.wrapping_add(1);
        self.len += 1;
        self.put(Entry { deadline_ns, sequence: self.sequence, slot });
    }

    /// Takes out a slot that is in here.
    #[inline]
    pub(super) fn remove(&mut self, slot: u32) {
        self.len -= 1;
        let Place { bucket, at } = self.places[slot as usize];
        if bucket == HEAP {
            self.remove_from_heap(at as usize);
        } else {
            self.remove_from_bucket(bucket as usize, at as usize);
        }
    }

    /// Takes out the earliest one, if it has come by `now_ns`, and says its slot.
    #[inline]
    pub(super) fn pop_due(&mut self, now_ns: u64) -> Option<u32> {
        if self.heap.is_empty() {
            self.fill_heap(now_ns);
        }
        let first = *self.heap.first()?;
        if first.deadline_ns > now_ns {
            return None;
        }
        self.len -= 1;
        self.remove_from_heap(0);
        Some(first.slot)
    }

    // ---- The wheel ------------------------------------------------------------------------------

    /// The bucket that has the earliest deadline of all buckets.
    #[inline]
    fn first_bucket(&self) -> Option<usize> {
        if self.used_levels == 0 {
            return None;
        }
        let level = self.used_levels.trailing_zeros() as usize;
        Some(level * BUCKETS + self.used[level].trailing_zeros() as usize)
    }

    /// Moves what may be due into the empty heap.
    fn fill_heap(&mut self, now_ns: u64) {
        while self.heap.is_empty()
            && let Some(index) = self.first_bucket()
            && self.buckets[index].earliest_ns <= now_ns
        {
            let (level, digit) = (index / BUCKETS, index % BUCKETS);
            // The bucket's last tick: nothing outside of it is before that.
            let below = level as u32 * DIGIT_BITS;
            let above = below + DIGIT_BITS;
            let last = (self.now >> above << above) + ((digit as u64 + 1) << below) - 1;
            self.now = last.min(now_ns >> TICK_BITS);
            self.set_used(index, false);
            let bucket = &mut self.buckets[index];
            bucket.earliest_ns = u64::MAX;
            let mut entries =
                std::mem::replace(&mut bucket.entries, std::mem::take(&mut self.spare));
            entries.iter().for_each(|&entry| self.put(entry));
            if entries.capacity() <= KEPT {
                entries.clear();
                self.spare = entries;
            }
        }
    }

    /// Puts an entry where it belongs.
    #[inline]
    fn put(&mut self, entry: Entry) {
        let tick = entry.tick();
        if tick <= self.now {
            let at = self.heap.len();
            self.heap.push(entry);
            self.sift_up(at, entry);
            return;
        }
        let level = (u64::BITS - 1 - (tick ^ self.now).leading_zeros()) / DIGIT_BITS;
        let digit = (tick >> (level * DIGIT_BITS)) as usize % BUCKETS;
        let index = level as usize * BUCKETS + digit;
        let bucket = &mut self.buckets[index];
        self.places[entry.slot as usize] =
            Place { bucket: index as u32, at: bucket.entries.len() as u32 };
        bucket.entries.push(entry);
        bucket.earliest_ns = bucket.earliest_ns.min(entry.deadline_ns);
        self.set_used(index, true);
    }

    fn remove_from_bucket(&mut self, index: usize, at: usize) {
        let bucket = &mut self.buckets[index];
        let entries = &mut bucket.entries;
        let removed = entries.swap_remove(at);
        if let Some(moved) = entries.get(at) {
            self.places[moved.slot as usize].at = at as u32;
        }
        if entries.capacity() > KEPT && entries.len() < entries.capacity() / 8 {
            entries.shrink_to((entries.len() * 2).max(KEPT));
        }
        if removed.deadline_ns == bucket.earliest_ns && entries.len() <= FEW {
            let deadlines = entries.iter().map(|entry| entry.deadline_ns);
            bucket.earliest_ns = deadlines.min().unwrap_or(u64::MAX);
        }
        if entries.is_empty() {
            // What it may have been told too early says nothing of those that come next.
            bucket.earliest_ns = u64::MAX;
            self.set_used(index, false);
        }
    }

    #[inline]
    fn set_used(&mut self, index: usize, used: bool) {
        let level = index / BUCKETS;
        let (bucket, all) = (1 << (index % BUCKETS), 1 << level);
        if used {
            self.used[level] |= bucket;
            self.used_levels |= all;
        } else {
            self.used[level] &= !bucket;
            if self.used[level] == 0 {
                self.used_levels &= !all;
            }
        }
    }

    // ---- The heap -------------------------------------------------------------------------------

    fn remove_from_heap(&mut self, at: usize) {
        let last = self.heap.pop().expect("the entry is in the heap");
        if at < self.heap.len() {
            // The last entry takes its place and finds its own from there.
            if at > 0 && last.is_before(&self.heap[(at - 1) / ARITY]) {
                self.sift_up(at, last);
            } else {
                self.sift_down(at, last);
            }
        }
    }

    #[inline]
    fn place(&mut self, at: usize, entry: Entry) {
        self.heap[at] = entry;
        self.places[entry.slot as usize] = Place { bucket: HEAP, at: at as u32 };
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
    use super::*;
    use std::collections::BTreeSet;

    const TICK_NS: u64 = 1 << TICK_BITS;

    fn all_due(deadlines: &mut Deadlines, now_ns: u64) -> Vec<u32> {
        std::iter::from_fn(|| deadlines.pop_due(now_ns)).collect()
    }

    #[test]
    fn equal_deadlines_come_in_the_order_they_were_put_in() {
        for deadline_ns in [1, TICK_NS, 100 * TICK_NS, u64::MAX - 1] {
            let mut deadlines = Deadlines::new();
            (0..100).for_each(|slot| deadlines.insert(slot, deadline_ns));
            assert_eq!(all_due(&mut deadlines, deadline_ns - 1), []);
            assert_eq!(all_due(&mut deadlines, deadline_ns), Vec::from_iter(0..100));
            assert_eq!(deadlines.earliest_ns(), None);
        }
    }

    #[test]
    fn years_ahead() {
        const YEAR_NS: u64 = 365 * 24 * 3600 * 1_000_000_000;
        let mut deadlines = Deadlines::new();
        for (slot, years) in [500, 1, 2, 100].into_iter().enumerate() {
            deadlines.insert(slot as u32, years * YEAR_NS + 1);
        }
        assert_eq!(deadlines.earliest_ns(), Some(YEAR_NS + 1));
        assert_eq!(all_due(&mut deadlines, YEAR_NS), []);
        assert_eq!(all_due(&mut deadlines, YEAR_NS + 1), [1]);
        assert_eq!(deadlines.earliest_ns(), Some(2 * YEAR_NS + 1));
        assert_eq!(all_due(&mut deadlines, 3 * YEAR_NS), [2]);
        assert_eq!(all_due(&mut deadlines, u64::MAX), [3, 0]);
        assert_eq!(deadlines.len(), 0);
    }

    /// A bucket that was large once, and whose deadlines never came, does not stay large.
    #[test]
    fn what_was_taken_out_leaves_no_memory_behind() {
        let mut deadlines = Deadlines::new();
        (0..10_000).for_each(|slot| deadlines.insert(slot, 30_000 * TICK_NS));
        (0..10_000).for_each(|slot| deadlines.remove(slot));
        assert_eq!(deadlines.earliest_ns(), None);
        let kept = |bucket: &Bucket| bucket.entries.capacity() <= 8 * KEPT;
        assert!(deadlines.buckets.iter().all(kept));
    }

    /// Of many that were taken out, the first of them first, nothing is left: not even their time.
    #[test]
    fn an_emptied_bucket_starts_afresh() {
        const MANY: u32 = 100;
        let mut deadlines = Deadlines::new();
        (0..MANY).for_each(|slot| deadlines.insert(slot, 100 * TICK_NS + u64::from(slot)));
        (0..MANY - 1).for_each(|slot| deadlines.remove(slot));
        assert!(deadlines.earliest_ns() <= Some(100 * TICK_NS + u64::from(MANY - 1)));
        deadlines.remove(MANY - 1);
        deadlines.insert(0, 100 * TICK_NS + 1000);
        assert_eq!(deadlines.earliest_ns(), Some(100 * TICK_NS + 1000));
    }

    /// Random puts, removals and steps of time, of all sizes, beside a sorted set.
    #[test]
    fn like_a_sorted_set() {
        let seed = std::env::var("RAMIE_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed: u64 = seed.unwrap_or_else(|| std::process::id().into());
        println!("RAMIE_SEED={seed}");
        let mut state = seed;
        let mut random = move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        for _ in 0..200 {
            let mut deadlines = Deadlines::new();
            let mut set: BTreeSet<(u64, u64, usize)> = BTreeSet::new();
            let mut slots: Vec<Option<(u64, u64)>> = vec![None; 64];
            let (mut now_ns, mut count) = (random() >> (random() % 64), 0);
            for _ in 0..500 {
                let slot = (random() % 64) as usize;
                match (random() % 8, slots[slot].take()) {
                    (0, held) => {
                        slots[slot] = held;
                        now_ns = now_ns.saturating_add(random() >> (20 + random() % 44));
                        loop {
                            let first = set.first().copied();
                            let due = first.filter(|&(deadline_ns, ..)| deadline_ns <= now_ns);
                            let popped = deadlines.pop_due(now_ns);
                            assert_eq!(popped, due.map(|(.., slot)| slot as u32));
                            let Some(due) = due else { break };
                            set.remove(&due);
                            slots[due.2] = None;
                        }
                    }
                    (_, Some((deadline_ns, number))) => {
                        deadlines.remove(slot as u32);
                        assert!(set.remove(&(deadline_ns, number, slot)));
                    }
                    (_, None) => {
                        let ahead_ns = random() >> (random() % 64);
                        // Not seldom one that is there already, or in the past.
                        let deadline_ns = match set.first() {
                            Some(&(deadline_ns, ..)) if ahead_ns % 4 == 0 => deadline_ns,
                            _ => now_ns.saturating_sub(1000).saturating_add(ahead_ns),
                        };
                        count += 1;
                        deadlines.insert(slot as u32, deadline_ns);
                        set.insert((deadline_ns, count, slot));
                        slots[slot] = Some((deadline_ns, count));
                    }
                }
                assert_eq!(deadlines.len(), set.len());
                let first_ns = set.first().map(|&(deadline_ns, ..)| deadline_ns);
                assert_eq!(deadlines.earliest_ns().is_some(), first_ns.is_some());
                assert!(deadlines.earliest_ns() <= first_ns);
            }
        }
    }
}
