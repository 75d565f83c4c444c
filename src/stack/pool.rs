//! The shared pool of one size class: free lists, growing, trimming.
//!
//! The lists hold slots in magazines (vectors of up to [`MAGAZINE`]); a worker's cache is filled or
//! emptied by copying one under the lock. Room for every slot in the lists is allocated, and
//! touched, when the slot is carved: giving a stack back allocates nothing. What takes long
//! (mapping a slab, installing guards, giving pages back) is done outside the lock by whoever needs
//! it, on slots that it has taken off the lists (invariant 4).
//!
//! **Trimming.** First touch of a page costs 2 to 11 us against 20 ns for a page touched before, so
//! only stacks that nobody misses are trimmed: those beyond [`HOT_RESERVE`], the coldest first, and
//! only when the pool has seen no traffic for [`TRIM_QUIET`].
//!
//! May be called from: any thread, but not from a signal handler (it locks).

use super::guard::{GUARDS, Guards};
use super::slab::{self, Shape};
use super::{Stack, Top, valgrind};
use crate::sys::mem::{self, Range};
use std::collections::VecDeque;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The most stacks that move between a cache and the pool at once.
pub(super) const MAGAZINE: usize = 256;

/// How many guards are installed at once. More would save nothing and hold a worker up for longer.
const CARVE: usize = 64;

/// This many free stacks keep their pages for ever.
const HOT_RESERVE: usize = 256;

/// The most stacks one call of [`Pool::trim`] gives back, about 1 ms of work.
const TRIM_MAX: usize = 1024;

/// A pool must have been without traffic for this long before it is trimmed.
pub(crate) const TRIM_QUIET: Duration = Duration::from_millis(100);

const FIRST_SLAB: usize = 64 << 20;
const LARGEST_SLAB: usize = 16 << 30;

const SMALLEST_LOG2: usize = 14;
const LARGEST_LOG2: usize = 30;

/// All stacks of one size in this process.
#[derive(Debug)]
pub(crate) struct Pool {
    stack_bytes: usize,
    guards: &'static Guards,
    lists: Mutex<Lists>,
    /// Held while a slab is mapped, so that two workers do not map one each.
    growing: Mutex<()>,
    /// Set when the kernel refused to take pages back (they are locked in memory).
    untrimmable: AtomicBool,
}

static POOLS: [Pool; LARGEST_LOG2 - SMALLEST_LOG2 + 1] = {
    let mut pools = [const { Pool::new(0, &GUARDS) }; LARGEST_LOG2 - SMALLEST_LOG2 + 1];
    let mut class = 0;
    while class < pools.len() {
        pools[class].stack_bytes = 1 << (class + SMALLEST_LOG2);
        class += 1;
    }
    pools
};

impl Pool {
    /// The process-wide pool of slots of `stack_bytes`, rounded up to a power of two that is at
    /// least 16 KiB and four pages. A quarter of a slot, up to 64 KiB, is its guard.
    ///
    /// # Errors
    /// More than 1 GiB is taken for a mistake.
    pub(crate) fn get(stack_bytes: usize) -> io::Result<&'static Pool> {
        let smallest = (1 << SMALLEST_LOG2).max(4 * mem::page_size());
        let class =
            stack_bytes.max(smallest).checked_next_power_of_two().map(usize::trailing_zeros);
        class.and_then(|log2| POOLS.get(log2 as usize - SMALLEST_LOG2)).ok_or_else(|| {
            let text = format!("a fiber stack of {stack_bytes} bytes: at most 1 GiB is possible");
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })
    }

    /// Its number among the process-wide pools.
    #[inline]
    pub(super) fn class(&self) -> u8 {
        (self.stack_bytes.trailing_zeros() as usize - SMALLEST_LOG2) as u8
    }

    /// The pool with this number.
    ///
    /// # Safety
    /// The number came from `class`, of a process-wide pool.
    #[inline]
    pub(super) unsafe fn of_class(class: u8) -> &'static Pool {
        debug_assert!(usize::from(class) < POOLS.len());
        // SAFETY: the caller's promise.
        unsafe { POOLS.get_unchecked(usize::from(class)) }
    }

    /// A pool of its own, for tests that count or that force a guard method. `stack_bytes` is a
    /// power of two of at least four pages.
    pub(super) const fn new(stack_bytes: usize, guards: &'static Guards) -> Pool {
        Pool {
            stack_bytes,
            guards,
            lists: Mutex::new(Lists::EMPTY),
            growing: Mutex::new(()),
            untrimmable: AtomicBool::new(false),
        }
    }

    /// The size of a slot: a stack and its guard.
    #[cfg(test)]
    pub(crate) fn stack_bytes(&self) -> usize {
        self.stack_bytes
    }

    /// How its guards are made.
    #[cfg(test)]
    pub(crate) fn guards(&self) -> &'static Guards {
        self.guards
    }

    #[inline]
    pub(super) fn shape(&self) -> Shape {
        Shape::of(self.stack_bytes)
    }

    /// Takes one stack: the one freed last, or a fresh one.
    ///
    /// # Errors
    /// No address space, no memory for page tables, or (where guards are made by `mprotect`) no
    /// mappings left.
    pub(crate) fn alloc(&'static self) -> io::Result<Stack> {
        let free = self.lock().take_one();
        if let Some(top) = free {
            return Ok(Stack::new(top, self));
        }
        let mut fresh = self.carve()?;
        let top = fresh.pop().expect("carve returns one at least");
        self.lock().keep_cold(&fresh);
        Ok(Stack::new(top, self))
    }

    /// Gives one stack back.
    pub(crate) fn free(&self, stack: Stack) {
        debug_assert!(std::ptr::eq(stack.pool(), self));
        self.lock().put(&[stack.into_top()]);
    }

    /// Adds up to [`MAGAZINE`] stacks, at least one; the last is the one to use first.
    pub(super) fn take(&self, into: &mut Vec<Top>) -> io::Result<()> {
        let taken = self.lock().take(into);
        if !taken {
            into.append(&mut self.carve()?);
        }
        Ok(())
    }

    /// Gives up to [`MAGAZINE`] stacks back, of which the last was used last.
    pub(super) fn put(&self, tops: &[Top]) {
        debug_assert!(tops.len() <= MAGAZINE);
        if !tops.is_empty() {
            self.lock().put(tops);
        }
    }

    /// Cuts new slots from a slab, counts them as taken and gives them their guards.
    fn carve(&self) -> io::Result<Vec<Top>> {
        let mut tops = loop {
            let cut = self.lock().cut(self.stack_bytes); // unlocked before `grow`
            match cut {
                Some(tops) => break tops,
                None => self.grow()?,
            }
        };
        let (done, result) = self.guards.install(self.shape(), &tops);
        let raw = tops.split_off(done);
        tops.iter().for_each(|&top| valgrind::register(self.shape(), top));
        if !raw.is_empty() {
            self.lock().keep_raw(raw);
        }
        let owes_room = self.lock().owes_room();
        if owes_room && let Some(&top) = tops.first() {
            let mut magazine = vec![top; MAGAZINE]; // written to, so that its page is there
            magazine.clear();
            self.lock().spares.push(magazine);
        }
        match result {
            Err(error) if tops.is_empty() => Err(error),
            _ => {
                // Lowest slot last, so that it is used first.
                tops.reverse();
                Ok(tops)
            }
        }
    }

    #[cold]
    fn grow(&self) -> io::Result<()> {
        let _growing = self.growing.lock().unwrap_or_else(PoisonError::into_inner);
        let total = {
            let lists = self.lock();
            if lists.can_cut() {
                return Ok(()); // another thread grew it while this one waited
            }
            lists.slots * self.stack_bytes
        };
        // Guards by mprotect end at some 30,000 stacks, and slabs of locked memory are resident at
        // once: no use in doubling then.
        let most = match self.guards.method() {
            super::guard::Method::Protect => FIRST_SLAB,
            _ => LARGEST_SLAB,
        };
        let (base, len) = slab::map(self.shape(), total.clamp(FIRST_SLAB, most))?;
        self.lock().add_slab(base, len / self.stack_bytes);
        Ok(())
    }

    /// Gives memory of free stacks back to the kernel, if this pool has been quiet; returns how
    /// many stacks were trimmed. Bounded work: call it again while it returns something.
    ///
    /// For a worker about to sleep for long: while [`Pool::wants_trim`], sleep for
    /// [`TRIM_QUIET`] at most and call this before each sleep.
    pub(crate) fn trim(&self) -> usize {
        self.trim_at(Instant::now())
    }

    /// Whether there is something that `trim` would take if the pool stayed quiet.
    pub(crate) fn wants_trim(&self) -> bool {
        !self.untrimmable.load(Ordering::Relaxed) && self.lock().next_to_trim().is_some()
    }

    pub(super) fn trim_at(&self, now: Instant) -> usize {
        if self.untrimmable.load(Ordering::Relaxed) {
            return 0;
        }
        let tops = self.lock().take_for_trim(now);
        if tops.is_empty() {
            return 0;
        }
        let shape = self.shape();
        let ranges: Vec<Range> = tops.iter().map(|&top| shape.usable(top)).collect();
        // SAFETY: invariant 1: the slots are ours, and a free stack's contents are unspecified.
        let (mut done, _) = unsafe { mem::advise_many(&ranges, libc::MADV_DONTNEED) };
        // What the batched call could not do (on an older kernel) is done one by one.
        for &range in &ranges[done..] {
            // SAFETY: as above.
            if unsafe { mem::advise(range, libc::MADV_DONTNEED) }.is_err() {
                break;
            }
            done += 1;
        }
        if done < ranges.len() {
            self.untrimmable.store(true, Ordering::Relaxed);
        }
        self.lock().put_trimmed(&tops, done);
        done
    }

    /// Counts for tests.
    #[cfg(test)]
    pub(crate) fn stats(&self) -> Stats {
        let lists = self.lock();
        Stats {
            slabs: lists.slabs,
            slots: lists.slots,
            live: lists.out,
            hot: lists.hot.len,
            cold: lists.cold.len,
            raw: lists.raw.len(),
            uncarved: lists.slots - lists.carved,
            trimmed: lists.trimmed,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Lists> {
        // A panic under the lock (out of memory for a list) leaves the lists whole.
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a pool holds. `slots == live + hot + cold + raw + uncarved`, but for slots that are being
/// carved or trimmed at the moment, which count as live.
#[cfg(test)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stats {
    /// Mappings made.
    pub(crate) slabs: usize,
    /// Slots in them.
    pub(crate) slots: usize,
    /// Taken and not given back: stacks in use, and those in workers' caches.
    pub(crate) live: usize,
    /// Free, with whatever pages their last user touched.
    pub(crate) hot: usize,
    /// Free, with a guard and without pages.
    pub(crate) cold: usize,
    /// Free, but their guard could not be installed yet.
    pub(crate) raw: usize,
    /// Never used.
    pub(crate) uncarved: usize,
    /// Stacks trimmed so far (a running total).
    pub(crate) trimmed: u64,
}

/// Free slots in magazines, newest last.
#[derive(Debug)]
struct Shelf {
    magazines: VecDeque<Vec<Top>>,
    len: usize,
}

impl Shelf {
    const EMPTY: Shelf = Shelf { magazines: VecDeque::new(), len: 0 };

    /// Adds `tops`, the newest last, to the last magazine if they fit, else as one of their own.
    fn put(&mut self, tops: &[Top], spares: &mut Vec<Vec<Top>>) {
        self.len += tops.len();
        match self.magazines.back_mut() {
            Some(last) if last.len() + tops.len() <= MAGAZINE => last.extend_from_slice(tops),
            _ => self.magazines.push_back(fill(spares, tops)),
        }
    }

    /// Adds `tops` as the oldest.
    fn put_oldest(&mut self, tops: &[Top], spares: &mut Vec<Vec<Top>>) {
        self.len += tops.len();
        self.magazines.push_front(fill(spares, tops));
    }

    fn take(&mut self) -> Option<Vec<Top>> {
        let magazine = self.magazines.pop_back()?;
        self.len -= magazine.len();
        Some(magazine)
    }

    fn take_one(&mut self, spares: &mut Vec<Vec<Top>>) -> Option<Top> {
        let last = self.magazines.back_mut()?;
        let top = last.pop();
        if last.is_empty() {
            spares.extend(self.magazines.pop_back());
        }
        self.len -= top.is_some() as usize;
        top
    }

    fn take_oldest(&mut self) -> Option<Vec<Top>> {
        let magazine = self.magazines.pop_front()?;
        self.len -= magazine.len();
        Some(magazine)
    }
}

/// Puts `tops` in a spare magazine.
fn fill(spares: &mut Vec<Vec<Top>>, tops: &[Top]) -> Vec<Top> {
    let mut magazine = spares.pop().unwrap_or_else(|| Vec::with_capacity(MAGAZINE));
    magazine.extend_from_slice(tops);
    magazine
}

/// Everything under a pool's lock.
#[derive(Debug)]
struct Lists {
    hot: Shelf,
    cold: Shelf,
    raw: Vec<Top>,
    /// Empty magazines, and how many were made when slots were carved.
    spares: Vec<Vec<Top>>,
    spares_made: usize,
    /// The slab being carved: where its next slot begins, and how many are left.
    next: Option<Top>,
    left: usize,
    slabs: usize,
    slots: usize,
    carved: usize,
    out: usize,
    trimmed: u64,
    /// Counts traffic, and what it was at the last call of `trim` that saw it change, and when.
    generation: u64,
    quiet: Option<(u64, Instant)>,
}

impl Lists {
    const EMPTY: Lists = Lists {
        hot: Shelf::EMPTY,
        cold: Shelf::EMPTY,
        raw: Vec::new(),
        spares: Vec::new(),
        spares_made: 0,
        next: None,
        left: 0,
        slabs: 0,
        slots: 0,
        carved: 0,
        out: 0,
        trimmed: 0,
        generation: 0,
        quiet: None,
    };

    fn take(&mut self, into: &mut Vec<Top>) -> bool {
        let Some(mut magazine) = self.hot.take().or_else(|| self.cold.take()) else {
            return false;
        };
        self.generation += 1;
        self.out += magazine.len();
        into.append(&mut magazine);
        self.spares.push(magazine);
        true
    }

    fn take_one(&mut self) -> Option<Top> {
        let spares = &mut self.spares;
        let top = self.hot.take_one(spares).or_else(|| self.cold.take_one(spares))?;
        self.generation += 1;
        self.out += 1;
        Some(top)
    }

    fn put(&mut self, tops: &[Top]) {
        self.generation += 1;
        self.out -= tops.len();
        self.hot.put(tops, &mut self.spares);
    }

    /// Whether the lists need another magazine to have room for all carved slots; counts it.
    fn owes_room(&mut self) -> bool {
        let owes = self.spares_made * MAGAZINE < self.carved;
        self.spares_made += owes as usize;
        owes
    }

    fn can_cut(&self) -> bool {
        self.left > 0 || !self.raw.is_empty()
    }

    /// Takes slots without guards.
    fn cut(&mut self, stack_bytes: usize) -> Option<Vec<Top>> {
        self.generation += 1;
        let tops = if !self.raw.is_empty() {
            self.raw.split_off(self.raw.len().saturating_sub(CARVE))
        } else {
            let base = self.next.filter(|_| self.left > 0)?.0;
            let count = self.left.min(CARVE);
            self.left -= count;
            self.carved += count;
            // SAFETY: `left` slots lie between `next` and the end of the slab, and `count <= left`.
            let at = |slot: usize| unsafe { base.add(slot * stack_bytes) };
            self.next = Some(Top(at(count)));
            (1..=count).map(|slot| Top(at(slot))).collect()
        };
        self.out += tops.len();
        Some(tops)
    }

    /// Takes back what `carve` made too many.
    fn keep_cold(&mut self, tops: &[Top]) {
        if !tops.is_empty() {
            self.out -= tops.len();
            self.cold.put(tops, &mut self.spares);
        }
    }

    /// Takes back what `carve` could not give a guard.
    fn keep_raw(&mut self, raw: Vec<Top>) {
        self.out -= raw.len();
        self.raw.extend(raw);
    }

    /// `grow` found the cursor at its end, under the lock that only it takes.
    fn add_slab(&mut self, base: NonNull<u8>, slots: usize) {
        debug_assert_eq!(self.left, 0);
        self.next = Some(Top(base));
        self.left = slots;
        self.slots += slots;
        self.slabs += 1;
    }

    /// The size of the oldest magazine, if the reserve is full without it.
    fn next_to_trim(&self) -> Option<usize> {
        let oldest = self.hot.magazines.front()?.len();
        (self.hot.len - oldest >= HOT_RESERVE).then_some(oldest)
    }

    /// Takes the oldest hot stacks beyond the reserve, if there was no traffic for long enough.
    fn take_for_trim(&mut self, now: Instant) -> Vec<Top> {
        match self.quiet {
            Some((generation, since)) if generation == self.generation => {
                if now.saturating_duration_since(since) < TRIM_QUIET {
                    return Vec::new();
                }
            }
            _ => {
                self.quiet = Some((self.generation, now));
                return Vec::new();
            }
        }
        let mut tops = Vec::new();
        while let Some(len) = self.next_to_trim()
            && tops.len() + len <= TRIM_MAX
            && let Some(mut oldest) = self.hot.take_oldest()
        {
            tops.append(&mut oldest);
            self.spares.push(oldest);
        }
        self.out += tops.len();
        tops
    }

    /// Takes back what `take_for_trim` gave: the first `done` have lost their pages.
    fn put_trimmed(&mut self, tops: &[Top], done: usize) {
        self.out -= tops.len();
        self.trimmed += done as u64;
        let (trimmed, kept) = tops.split_at(done);
        for tops in trimmed.chunks(MAGAZINE) {
            self.cold.put(tops, &mut self.spares);
        }
        for tops in kept.chunks(MAGAZINE) {
            self.hot.put_oldest(tops, &mut self.spares);
        }
    }
}
