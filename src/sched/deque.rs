//! A queue with an owner, who pushes items and takes the newest, and thieves, who take the oldest.
//! The owner has neither fences nor locked instructions to pay for.
//!
//! ```text
//!          top                limit                                 bottom
//!           ▼                   ▼                                     ▼
//!   ────────┬────────────────────┬────────────────────────────────────┬─────────
//!    taken  │ a thief takes them │ what is left to the owner          │ ◄── push, pop
//!   ────────┴────────────────────┴────────────────────────────────────┴─────────
//! ```
//!
//! A thief moves `limit` up and then looks where `bottom` is; the owner moves `bottom` down and
//! then looks where `limit` is. With a fence in between on both sides, at least one sees what the
//! other has stored: either the thief leaves alone what the owner takes, or the owner leaves alone
//! what the thief takes. The owner's fence is
//!
//! - not needed, if the owner *answers*: at its next push or pop it finds that a thief has `asked`,
//!   and says so in `answered`. What it did before, the thief sees then; what it does afterwards
//!   comes after its look at `asked`, which was stored after `limit`;
//! - else executed by the kernel (`sys/membarrier.rs`), if the owner has not answered in time: it
//!   computes, sleeps, or is off its core. That interrupts it, which on some machines costs either
//!   side more than ten microseconds; an owner that is at work on its queue is spared this;
//! - its own, where the kernel has no such call.
//!
//! Invariants.
//! 1. `top <= limit`. Thieves, one at a time (`taking`), change both, and so does the owner when it
//!    takes the oldest. `bottom` is the owner's.
//! 2. Items below `limit` are the thief's, those from there on the owner's. Who finds that an item
//!    is not his leaves it; the thief then puts `limit` back to what it has taken. So an item that
//!    the owner was refused may still be left to it: `is_empty` goes by `top`.
//! 3. A slot is written again when `top` has passed it: thieves move `top` after they have read.
//!    Slots that were outgrown stay as they are while a thief reads them.
#![forbid(unsafe_code)]

use crate::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering, fence};
#[cfg(all(test, loom))]
pub(crate) use crate::sys::membarrier::model::{NO_HEAVY, heavy, is_on, light};
#[cfg(not(all(test, loom)))]
use crate::sys::membarrier::{heavy, is_on, light};
use std::cell::{Cell, RefCell};
use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Slots at first.
const SLOTS: usize = if cfg!(all(test, loom)) { 4 } else { 64 };

/// As many as a power of two.
type Slots<T> = Arc<[AtomicPtr<T>]>;

/// What thieves see of it; see the module's head.
pub(crate) struct Deque<T> {
    of_owner: OfOwner,
    of_thieves: OfThieves,
    slots: Mutex<Slots<T>>,
}

#[repr(align(128))]
struct OfOwner {
    /// Where the next item goes.
    bottom: AtomicUsize,
    /// What was `asked` when the owner last looked.
    answered: AtomicUsize,
}

#[repr(align(128))]
struct OfThieves {
    /// The oldest item that nobody has taken.
    top: AtomicUsize,
    limit: AtomicUsize,
    /// Moves when a thief wants to know that the owner has seen `limit`.
    asked: AtomicUsize,
    /// A thief is at work.
    taking: AtomicBool,
}

/// The owner's end.
pub(crate) struct Owner<T> {
    deque: Arc<Deque<T>>,
    slots: RefCell<Slots<T>>,
    /// Items have been pushed that nobody has been told of.
    untold: Cell<bool>,
}

/// How far position `a` is ahead of `b`: they wrap.
#[inline(always)]
fn ahead(a: usize, b: usize) -> isize {
    a.wrapping_sub(b).cast_signed()
}

fn new_slots<T>(count: usize) -> Slots<T> {
    (0..count).map(|_| AtomicPtr::new(ptr::null_mut())).collect()
}

#[inline(always)]
fn slot<T>(slots: &[AtomicPtr<T>], position: usize) -> &AtomicPtr<T> {
    &slots[position & (slots.len() - 1)]
}

/// Between the owner's store to `bottom` and its look at `limit`.
#[inline(always)]
fn fence_of_owner(is_on: bool) {
    if is_on {
        light();
    } else {
        fence(Ordering::SeqCst);
    }
}

impl<T> Deque<T> {
    fn lock_slots(&self) -> MutexGuard<'_, Slots<T>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many items there are, those included that a thief is about to take. A hint, to others
    /// than the owner.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        let bottom = self.of_owner.bottom.load(Ordering::Relaxed);
        ahead(bottom, self.of_thieves.top.load(Ordering::Relaxed)).max(0).cast_unsigned()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes half of the items, the oldest, and at most `most`; or none, if another thief is at
    /// work. Has the owner interrupted if it has not answered while `waits` returned true. Returns
    /// how many it has given to `each`.
    pub(crate) fn steal(
        &self,
        most: usize,
        mut waits: impl FnMut() -> bool,
        mut each: impl FnMut(*mut T),
    ) -> usize {
        let thieves = &self.of_thieves;
        if self.is_empty() || thieves.taking.swap(true, Ordering::Acquire) {
            return 0;
        }
        let top = thieves.top.load(Ordering::Relaxed);
        let wanted = (self.len() / 2).clamp(1, most);
        thieves.limit.store(top.wrapping_add(wanted), Ordering::Relaxed);
        let asked = thieves.asked.load(Ordering::Relaxed).wrapping_add(1);
        thieves.asked.store(asked, Ordering::Release);
        // Where the owner has fences of its own, `heavy` is this side's.
        let mut answered = false;
        while is_on() && !answered && waits() {
            answered = self.of_owner.answered.load(Ordering::Acquire) == asked;
        }
        if !answered {
            heavy();
        }

        let bottom = self.of_owner.bottom.load(Ordering::Acquire);
        let taken = ahead(bottom, top).clamp(0, wanted.cast_signed()).cast_unsigned();
        // After the look at `bottom`: these slots have the items.
        let slots = Arc::clone(&self.lock_slots());
        for offset in 0..taken {
            each(slot(&slots, top.wrapping_add(offset)).load(Ordering::Relaxed));
        }
        thieves.top.store(top.wrapping_add(taken), Ordering::Release);
        thieves.limit.store(top.wrapping_add(taken), Ordering::Release);
        thieves.taking.store(false, Ordering::Release);
        taken
    }
}

impl<T> Owner<T> {
    pub(crate) fn new() -> Self {
        let slots = new_slots(SLOTS);
        let deque = Deque {
            of_owner: OfOwner { bottom: AtomicUsize::new(0), answered: AtomicUsize::new(0) },
            of_thieves: OfThieves {
                top: AtomicUsize::new(0),
                limit: AtomicUsize::new(0),
                asked: AtomicUsize::new(0),
                taking: AtomicBool::new(false),
            },
            slots: Mutex::new(Arc::clone(&slots)),
        };
        Self { deque: Arc::new(deque), slots: RefCell::new(slots), untold: Cell::new(false) }
    }

    pub(crate) fn deque(&self) -> &Arc<Deque<T>> {
        &self.deque
    }

    #[inline(always)]
    fn bottom(&self) -> usize {
        self.deque.of_owner.bottom.load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn set_bottom(&self, bottom: usize) {
        self.deque.of_owner.bottom.store(bottom, Ordering::Release);
    }

    /// Saves a thief who waits for it a system call, and the owner an interruption.
    #[inline(always)]
    pub(crate) fn answer(&self) {
        let asked = self.deque.of_thieves.asked.load(Ordering::Acquire);
        if asked != self.deque.of_owner.answered.load(Ordering::Relaxed) {
            self.deque.of_owner.answered.store(asked, Ordering::Release);
        }
    }

    /// Returns how many there are now, those included that a thief is about to take.
    #[inline]
    pub(crate) fn push(&self, item: *mut T) -> usize {
        self.answer();
        let bottom = self.bottom();
        let top = self.deque.of_thieves.top.load(Ordering::Acquire);
        let len = bottom.wrapping_sub(top);
        if len >= self.slots.borrow().len() {
            self.grow(top, bottom);
        }
        slot(&self.slots.borrow(), bottom).store(item, Ordering::Relaxed);
        self.set_bottom(bottom.wrapping_add(1));
        len + 1
    }

    #[cold]
    #[inline(never)]
    fn grow(&self, top: usize, bottom: usize) {
        let old = self.slots.borrow();
        let new = new_slots(old.len() * 2);
        for offset in 0..bottom.wrapping_sub(top) {
            let position = top.wrapping_add(offset);
            let item = slot(&old, position).load(Ordering::Relaxed);
            slot(&new, position).store(item, Ordering::Relaxed);
        }
        drop(old);
        *self.deque.lock_slots() = Arc::clone(&new);
        self.slots.replace(new);
    }

    /// Takes the newest item. There may be some and none to be had: a thief has them in hand.
    #[inline]
    pub(crate) fn pop(&self) -> Option<*mut T> {
        self.answer();
        if self.deque.is_empty() {
            return None;
        }
        let bottom = self.bottom();
        let newest = bottom.wrapping_sub(1);
        let is_on = is_on();
        self.set_bottom(newest);
        fence_of_owner(is_on);
        // Acquire: what a thief had in hand is ours when it has done with it.
        if ahead(newest, self.deque.of_thieves.limit.load(Ordering::Acquire)) < 0 {
            self.set_bottom(bottom);
            return None;
        }
        Some(slot(&self.slots.borrow(), newest).load(Ordering::Relaxed))
    }

    /// Takes the newest item if it is this one.
    #[inline]
    pub(crate) fn pop_if(&self, item: *mut T) -> bool {
        let newest = self.bottom().wrapping_sub(1);
        let is_it = slot(&self.slots.borrow(), newest).load(Ordering::Relaxed) == item;
        is_it && self.pop().is_some()
    }

    /// Takes the oldest item, unless a thief is at work.
    pub(crate) fn pop_oldest(&self) -> Option<*mut T> {
        let thieves = &self.deque.of_thieves;
        if self.deque.is_empty() || thieves.taking.swap(true, Ordering::Acquire) {
            return None;
        }
        // The owner is here: no fence.
        let top = thieves.top.load(Ordering::Relaxed);
        let is_there = ahead(self.bottom(), top) > 0;
        let item = is_there.then(|| slot(&self.slots.borrow(), top).load(Ordering::Relaxed));
        let taken = top.wrapping_add(usize::from(is_there));
        thieves.limit.store(taken, Ordering::Release);
        thieves.top.store(taken, Ordering::Release);
        thieves.taking.store(false, Ordering::Release);
        item
    }

    /// After a push of one item, which made them `len`: whether anybody has to be told. When it has
    /// come to two, others are, and then not again until there are fewer (`README.md`, claim 4).
    #[inline]
    pub(crate) fn is_news(&self, len: usize) -> bool {
        if len >= 2 {
            // `top` may be seen late: then a thief has left fewer. It sees to it that `limit` is
            // not, and by that there are too few at worst.
            fence_of_owner(is_on());
            let limit = self.deque.of_thieves.limit.load(Ordering::Relaxed);
            let left = ahead(self.bottom(), limit);
            #[cfg(all(test, loom))]
            let left = if NO_LIMIT.get() { len.cast_signed() } else { left };
            if left > 2 {
                return self.untold.get() && self.untold.take();
            }
        }
        true
    }

    /// Items have been pushed and `is_news` has not been asked.
    #[inline]
    pub(crate) fn keep_quiet(&self) {
        self.untold.set(true);
    }
}

#[cfg(all(test, loom))]
std::thread_local! {
    /// Whether `is_news` goes by `top` alone, which has to be noticed.
    pub(crate) static NO_LIMIT: Cell<bool> = const { Cell::new(false) };
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{Owner, SLOTS};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    fn item(number: usize) -> *mut u8 {
        std::ptr::without_provenance_mut(number + 1)
    }

    fn number(item: *mut u8) -> usize {
        item.addr() - 1
    }

    #[test]
    fn the_owner_takes_the_newest_and_thieves_the_oldest() {
        let owner = Owner::new();
        (0..5).for_each(|nth| _ = owner.push(item(nth)));
        let mut stolen = vec![];
        assert_eq!(owner.deque().steal(8, || false, |item| stolen.push(number(item))), 2);
        assert_eq!(stolen, [0, 1]);
        assert_eq!(owner.pop_oldest().map(number), Some(2));
        assert!(!owner.pop_if(item(3)));
        assert!(owner.pop_if(item(4)));
        assert_eq!(owner.pop().map(number), Some(3));
        assert!(!owner.pop_if(item(3)), "it is still in its slot");
        assert!(owner.pop().is_none() && owner.pop_oldest().is_none() && owner.deque().is_empty());
    }

    #[test]
    fn two_are_told_of_once() {
        let owner = Owner::new();
        let push = |nth| {
            let len = owner.push(item(nth));
            owner.is_news(len).then_some(len)
        };
        assert_eq!([push(0), push(1), push(2), push(3)], [Some(1), Some(2), None, None]);
        owner.keep_quiet();
        assert_eq!([push(4), push(5)], [Some(5), None]);
        while owner.deque().len() > 1 {
            owner.pop();
        }
        assert_eq!([push(6), push(7)], [Some(2), None]);
    }

    /// The slots grow, and wrap around, while three steal.
    #[test]
    fn each_item_is_taken_once() {
        let items = 200_000;
        let owner = Owner::new();
        let takes: Vec<_> = (0..items).map(|_| AtomicUsize::new(0)).collect();
        let left = AtomicUsize::new(items);
        let take = |item| {
            takes[number(item)].fetch_add(1, Relaxed);
            left.fetch_sub(1, Relaxed);
        };
        std::thread::scope(|scope| {
            for looks in [0_i32, 10, 1_000] {
                let (deque, left, take) = (Arc::clone(owner.deque()), &left, &take);
                scope.spawn(move || {
                    while left.load(Relaxed) != 0 {
                        let mut looks = looks;
                        let waits = || {
                            looks -= 1;
                            looks >= 0
                        };
                        deque.steal(8, waits, take);
                        std::thread::yield_now();
                    }
                });
            }
            for nth in 0..items {
                owner.push(item(nth));
                // Longer and longer runs of either.
                if nth % (2 * SLOTS) < nth % 7 * SLOTS / 4 {
                    owner.pop().or_else(|| owner.pop_oldest()).into_iter().for_each(&take);
                }
            }
            while left.load(Relaxed) != 0 {
                owner.pop().into_iter().for_each(&take);
            }
        });
        assert!(takes.iter().all(|taken| taken.load(Relaxed) == 1), "taken twice, or lost");
    }
}
