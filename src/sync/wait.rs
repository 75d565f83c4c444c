//! Queues of waiters: what every blocking thing in `sync` is made of.
//!
//! A *waiter* is a fiber or a thread that waits for one of several things: it has one [`Waiter`]
//! and a [`Node`] in the [`Queue`] of each of them, all on its own stack. Nothing is allocated. Who
//! makes one of those things happen takes the first waiter out of the queue, *claims* it, hands it
//! something if need be, and wakes it.
//!
//! ```text
//!   the waiter                                      a waker
//!   ----------                                      -------
//!   Waiter::new, before any lock is taken
//!   under each queue's lock: push a node            under the queue's lock: claim_first
//!   Waiter::wait                                      pops nodes until one claim succeeds
//!     woken: the token of the node that was          without the lock: fill the slot, and
//!       claimed                                         Claimed::wake
//!     gave up (deadline, cancel request):
//!       claims itself; if a waker was faster,
//!       waits for it, and is woken
//!   under each queue's lock: remove the node
//! ```
//!
//! Invariants.
//! 1. `selected` leaves 0 once, and whoever changed it decides how the wait ends. So nothing is
//!    handed to a waiter that went away, and no waiter is handed two things.
//! 2. A node in a queue, and its waiter, are alive: [`Node`] and [`Waiter`] are pinned, so their
//!    memory is theirs until they are dropped, and a node that is dropped while it is in a queue
//!    ends the process. A fiber that is never resumed keeps its stack for ever.
//! 3. A node is changed under its queue's lock only, and a claim is tried with the node in the
//!    queue. A waker that has lost one takes the node out, and that is the last it touches.
//! 4. A waiter that a waker has claimed, and the node by which it has, live until the waker has set
//!    the signal: [`Waiter::wait`] does not return before, and dropping one of them before ends the
//!    process. After `Signal::set` the waker touches neither.
//!
//! By 2 to 4 no caller can make these dangle, so the functions are safe.

use super::block;
use super::lock::Guard;
use crate::atomic::{AtomicUsize, Ordering};
use crate::coro::{OnCancel, Signal};
use crate::sys::clock;
use std::cell::Cell;
use std::marker::PhantomPinned;
use std::pin::{Pin, pin};
use std::ptr;
use std::sync::atomic::{self, AtomicPtr};

pub(crate) use super::lock::Locked;

/// `Waiter::selected`: nobody has claimed it yet.
const WAITING: usize = 0;
/// `Waiter::selected`: it has given up.
const WITHDRAWN: usize = usize::MAX;
/// `Node::queue`: a waker has claimed the waiter by this node, and taken it out.
const CLAIMED: *mut Queue = ptr::without_provenance_mut(1);

/// A fiber or thread that waits, once. See the module's head.
pub(crate) struct Waiter {
    signal: Signal,
    /// `WAITING`, `WITHDRAWN`, or the token of the node by which it was claimed.
    selected: AtomicUsize,
    /// See `Waiter::only`.
    only: bool,
    _pinned: PhantomPinned,
}

impl Waiter {
    /// To be called before the lock of a queue is taken.
    ///
    /// # Panics
    /// Inside a `no_suspend` section, where the fiber must not wait.
    #[inline]
    pub(crate) fn new() -> Self {
        block::may_wait();
        Self::unchecked()
    }

    /// As `new`, for a caller who knows that [`block::must_not_wait`] does not hold.
    #[inline]
    pub(crate) fn unchecked() -> Self {
        Self {
            signal: Signal::new(),
            selected: AtomicUsize::new(WAITING),
            only: false,
            _pinned: PhantomPinned,
        }
    }

    /// As `unchecked`, for a waiter in a single queue: whoever takes its node out of that queue has
    /// claimed it, so that a claim costs no atomic operation.
    ///
    /// # Safety
    /// It gets one node, which is put into one queue, once; and it waits by `wait_only`.
    #[inline]
    pub(crate) unsafe fn only() -> Self {
        let mut waiter = Self::unchecked();
        waiter.only = true;
        waiter
    }

    /// Decides how the wait ends, if nobody has done so.
    #[inline]
    pub(crate) fn claim(&self, token: usize) -> bool {
        // AcqRel: a waiter that withdraws sees what the waker of a lost race has done, and the
        // other way round. What is handed over is ordered by the signal.
        self.selected.compare_exchange(WAITING, token, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// As `claim`, by somebody who holds the lock of a queue in which the waiter is.
    #[inline]
    fn claim_in_queue(&self, token: usize) -> bool {
        if self.only {
            // Nobody but those who hold that lock decides (`Waiter::only`).
            self.selected.store(token, Ordering::Relaxed);
            return true;
        }
        self.claim(token)
    }

    /// Waits until it is claimed and woken, and returns the token of the node by which it was; or
    /// until the deadline, or until a cancel request (as `on_cancel` says), and returns `None`:
    /// then it cannot be claimed any more.
    ///
    /// Afterwards the caller takes its nodes out of their queues, but for the one that was claimed,
    /// which is out.
    #[inline]
    pub(crate) fn wait(
        self: Pin<&Self>,
        deadline_ns: Option<u64>,
        on_cancel: OnCancel,
    ) -> Option<usize> {
        if !block::wait(&self.signal, with_an_end(deadline_ns, on_cancel), on_cancel) {
            return self.withdraw();
        }
        Some(self.selected.load(Ordering::Relaxed))
    }

    /// As `wait`, for a waiter made by `only`, with the lock of its queue held since its node was
    /// put into that; not in a `no_suspend` section. `leave` takes the node out of the queue, under
    /// the lock, and says whether it was there. Returns whether it was claimed and woken.
    #[inline]
    pub(crate) fn wait_only<T>(
        self: Pin<&Self>,
        guard: Guard<'_, T>,
        deadline_ns: Option<u64>,
        on_cancel: OnCancel,
        leave: impl FnOnce() -> bool,
    ) -> bool {
        debug_assert!(self.only);
        let deadline_ns = with_an_end(deadline_ns, on_cancel);
        if block::wait_and_let_go(guard, &self.signal, deadline_ns, on_cancel) {
            return true;
        }
        if leave() {
            return false;
        }
        // The waker is about to set the signal.
        while !block::wait(&self.signal, None, OnCancel::Ignore) {}
        true
    }

    /// Ends a wait that has not begun, or has ended without a wake: afterwards it cannot be claimed
    /// any more. If a waker was faster, waits for it, and returns the token as `wait` does.
    pub(crate) fn withdraw(self: Pin<&Self>) -> Option<usize> {
        if self.claim(WITHDRAWN) {
            return None;
        }
        // The waker is about to set the signal.
        while !block::wait(&self.signal, None, OnCancel::Ignore) {}
        Some(self.selected.load(Ordering::Relaxed))
    }
}

/// The end of a runtime ends the waits that have a deadline, so those that it is to end get one.
#[inline]
fn with_an_end(deadline_ns: Option<u64>, on_cancel: OnCancel) -> Option<u64> {
    match (deadline_ns, on_cancel) {
        (None, OnCancel::End) => Some(clock::NEVER),
        _ => deadline_ns,
    }
}

impl Drop for Waiter {
    #[inline]
    fn drop(&mut self) {
        if block::is_torn_down() {
            return;
        }
        let selected = self.selected.load(Ordering::Relaxed);
        if selected != WAITING && selected != WITHDRAWN && !self.signal.is_set() {
            block::left_too_early();
        }
    }
}

/// A waiter's place in one queue. See the module's head.
pub(crate) struct Node<'a> {
    waiter: Pin<&'a Waiter>,
    token: usize,
    slot: *mut (),
    prev: Cell<*const Node<'static>>,
    next: Cell<*const Node<'static>>,
    /// The queue it is in; null before and after; `CLAIMED` once a waker has taken it out by a
    /// claim. Written under the queue's lock, and compared by `remove` under the lock of what may
    /// be another queue.
    queue: AtomicPtr<Queue>,
    _pinned: PhantomPinned,
}

impl<'a> Node<'a> {
    /// A place for `waiter`, for which `token` stands (neither 0 nor `usize::MAX`). `slot` is where
    /// a waker may put, or find, what is handed over; what it points to is between those two.
    #[inline]
    pub(crate) fn new(waiter: Pin<&'a Waiter>, token: usize, slot: *mut ()) -> Self {
        debug_assert!(token != WAITING && token != WITHDRAWN);
        Self {
            waiter,
            token,
            slot,
            prev: Cell::new(ptr::null()),
            next: Cell::new(ptr::null()),
            queue: AtomicPtr::new(ptr::null_mut()),
            _pinned: PhantomPinned,
        }
    }

    fn queue(&self) -> *mut Queue {
        self.queue.load(atomic::Ordering::Acquire)
    }
}

impl Drop for Node<'_> {
    #[inline]
    fn drop(&mut self) {
        if block::is_torn_down() {
            return;
        }
        let queue = self.queue();
        if !queue.is_null() && (queue != CLAIMED || !self.waiter.signal.is_set()) {
            block::left_too_early();
        }
    }
}

/// Waiters, first come first. Whoever owns it guards it by a lock ([`Locked`]).
pub(crate) struct Queue {
    head: *const Node<'static>,
    tail: *const Node<'static>,
}

// SAFETY: nodes are reached through it under its lock only (invariant 3), and they are made to be
// touched by other threads.
unsafe impl Send for Queue {}

impl Queue {
    pub(crate) const fn new() -> Self {
        Self { head: ptr::null(), tail: ptr::null() }
    }

    /// Whether nobody is in it. Those who have withdrawn count until they have taken themselves
    /// out.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.head.is_null()
    }

    /// Whether somebody else than `me` is in it who can be claimed at this moment.
    pub(crate) fn has_other(&self, me: Pin<&Waiter>) -> bool {
        let mut at = self.head;
        // SAFETY: nodes in the queue are alive (invariant 2).
        while let Some(node) = unsafe { at.as_ref() } {
            if node.waiter.selected.load(Ordering::Relaxed) == WAITING
                && !ptr::eq(node.waiter.get_ref(), me.get_ref())
            {
                return true;
            }
            at = node.next.get();
        }
        false
    }

    /// Puts a node at the end. Once woken or withdrawn, its waiter must not wait again.
    #[inline]
    pub(crate) fn push(&mut self, node: Pin<&Node<'_>>) {
        assert!(node.queue().is_null(), "a node is in one queue at a time");
        node.queue.store(self, atomic::Ordering::Relaxed);
        // Only the pointer forgets how long the node lives (invariant 2).
        let node: *const Node<'static> = ptr::from_ref(node.get_ref()).cast();
        let tail = std::mem::replace(&mut self.tail, node);
        // SAFETY: alive, as `node` was a reference a moment ago.
        let entry = unsafe { &*node };
        entry.prev.set(tail);
        entry.next.set(ptr::null());
        // SAFETY: a node in the queue is alive (invariant 2), and shared.
        match unsafe { tail.as_ref() } {
            Some(tail) => tail.next.set(node),
            None => self.head = node,
        }
    }

    /// Puts a node in front of all others.
    pub(crate) fn push_front(&mut self, node: Pin<&Node<'_>>) {
        assert!(node.queue().is_null(), "a node is in one queue at a time");
        node.queue.store(self, atomic::Ordering::Relaxed);
        let node: *const Node<'static> = ptr::from_ref(node.get_ref()).cast();
        let head = std::mem::replace(&mut self.head, node);
        // SAFETY: alive, as `node` was a reference a moment ago.
        let entry = unsafe { &*node };
        entry.prev.set(ptr::null());
        entry.next.set(head);
        // SAFETY: a node in the queue is alive (invariant 2), and shared.
        match unsafe { head.as_ref() } {
            Some(head) => head.prev.set(node),
            None => self.tail = node,
        }
    }

    /// Takes a node out if it is in this queue, and says whether it was.
    #[inline]
    pub(crate) fn remove(&mut self, node: Pin<&Node<'_>>) -> bool {
        // A node of another queue is told apart without touching what that one's lock guards.
        if !ptr::eq(node.queue(), self) {
            return false;
        }
        self.unlink(node.get_ref(), ptr::null_mut());
        true
    }

    /// Takes out a node that is in this queue. `state` becomes its `queue`: unless that is
    /// `CLAIMED`, the node may be gone when this returns.
    #[inline]
    fn unlink(&mut self, node: &Node<'_>, state: *mut Queue) {
        let (prev, next) = (node.prev.get(), node.next.get());
        // SAFETY: nodes in the queue are alive (invariant 2).
        match unsafe { prev.as_ref() } {
            Some(prev) => prev.next.set(next),
            None => self.head = next,
        }
        // SAFETY: as above.
        match unsafe { next.as_ref() } {
            Some(next) => next.prev.set(prev),
            None => self.tail = prev,
        }
        node.queue.store(state, atomic::Ordering::Release);
    }

    /// Claims the first waiter that can be claimed, and takes it out (with those in front of it,
    /// whose wait is over). To be woken, or dropped, when the lock has been let go.
    #[inline]
    pub(crate) fn claim_first(&mut self) -> Option<Claimed> {
        self.claim_first_if(|_, _| true)
    }

    /// As `claim_first`, if `wanted` says so of that waiter's token and slot.
    #[inline]
    pub(crate) fn claim_first_if(
        &mut self,
        wanted: impl Fn(usize, *mut ()) -> bool,
    ) -> Option<Claimed> {
        // SAFETY: nodes in the queue are alive (invariant 2).
        while let Some(node) = unsafe { self.head.as_ref() } {
            let waits = node.waiter.selected.load(Ordering::Relaxed) == WAITING;
            if waits && !wanted(node.token, node.slot) {
                return None;
            }
            // First the claim, while the node is in the queue and so cannot go (invariant 3).
            if waits && node.waiter.claim_in_queue(node.token) {
                self.unlink(node, CLAIMED);
                return Some(Claimed(node));
            }
            self.unlink(node, ptr::null_mut());
        }
        None
    }

    /// Claims the first waiter that can be claimed among those of which `wanted` says so, and takes
    /// it out. The others stay.
    #[allow(dead_code, reason = "for `futex`, which the models leave out")]
    pub(crate) fn claim_among(
        &mut self,
        wanted: impl Fn(usize, *mut ()) -> bool,
    ) -> Option<Claimed> {
        let mut at = self.head;
        // SAFETY: nodes in the queue are alive (invariant 2).
        while let Some(node) = unsafe { at.as_ref() } {
            at = node.next.get();
            if wanted(node.token, node.slot) && node.waiter.claim_in_queue(node.token) {
                self.unlink(node, CLAIMED);
                return Some(Claimed(node));
            }
        }
        None
    }

    /// Claims the first `count` waiters that can be claimed.
    pub(crate) fn claim(&mut self, count: usize) -> ClaimedList {
        let mut list = ClaimedList::new();
        while list.count < count
            && let Some(claimed) = self.claim_first()
        {
            list.push(claimed);
        }
        list
    }

    /// Claims waiters for as long as `wanted` says so of the first one's token and slot.
    pub(crate) fn claim_while(&mut self, wanted: impl Fn(usize, *mut ()) -> bool) -> ClaimedList {
        let mut list = ClaimedList::new();
        while let Some(claimed) = self.claim_first_if(&wanted) {
            list.push(claimed);
        }
        list
    }

    /// Claims all waiters there are.
    pub(crate) fn claim_all(&mut self) -> ClaimedList {
        self.claim(usize::MAX)
    }
}

/// A waiter that the owner of this has claimed: it waits until it is woken, which is when this is
/// dropped.
#[must_use = "the waiter is woken when this is dropped: first let go of the queue's lock"]
pub(crate) struct Claimed(*const Node<'static>);

impl Claimed {
    /// Where to put, or find, what is handed over: the waiter's own pointer, valid until it is
    /// woken.
    #[inline]
    pub(crate) fn slot(&self) -> *mut () {
        // SAFETY: claimed and not woken, so the waiter has not left its frame (invariant 4).
        unsafe { (*self.0).slot }
    }

    /// Which of its waiter's nodes was claimed.
    #[allow(dead_code, reason = "`select` is to ask this")]
    #[inline]
    pub(crate) fn token(&self) -> usize {
        // SAFETY: as in `slot`.
        unsafe { (*self.0).token }
    }

    /// Wakes it.
    #[inline(always)]
    pub(crate) fn wake(self) {
        // SAFETY: `self` is gone with this.
        unsafe { self.wake_once() };
        std::mem::forget(self);
    }

    /// # Safety
    /// Once.
    #[inline(always)]
    unsafe fn wake_once(&self) {
        // SAFETY: claimed and not woken (invariant 4). The reference to the waiter is used for
        // `set` only, after which the waiter may be gone. Nobody else sets its signal, as there is
        // one claim.
        let waiter = unsafe { (*self.0).waiter };
        block::set(&waiter.signal);
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        // SAFETY: `wake` forgets it.
        unsafe { self.wake_once() };
    }
}

/// Waiters that the owner of this has claimed, woken when it is dropped.
#[must_use = "the waiters are woken when this is dropped: first let go of the queue's lock"]
pub(crate) struct ClaimedList {
    head: *const Node<'static>,
    tail: *const Node<'static>,
    count: usize,
}

impl ClaimedList {
    /// Nobody.
    pub(crate) fn new() -> Self {
        Self { head: ptr::null(), tail: ptr::null(), count: 0 }
    }

    /// Adds one at the end.
    pub(crate) fn push(&mut self, claimed: Claimed) {
        let node = claimed.0;
        std::mem::forget(claimed);
        // SAFETY: claimed and not woken, so alive (invariant 4); out of the queue, so its links are
        // the claimer's.
        unsafe { (*node).next.set(ptr::null()) };
        // SAFETY: as above.
        match unsafe { self.tail.as_ref() } {
            Some(tail) => tail.next.set(node),
            None => self.head = node,
        }
        self.tail = node;
        self.count += 1;
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Wakes them, first come first, and says how many there were.
    pub(crate) fn wake(self) -> usize {
        self.count
    }
}

impl Iterator for ClaimedList {
    type Item = Claimed;

    fn next(&mut self) -> Option<Claimed> {
        // SAFETY: claimed and not woken, so alive (invariant 4).
        let node = unsafe { self.head.as_ref() }?;
        self.head = node.next.get();
        self.count -= 1;
        Some(Claimed(node))
    }
}

impl Drop for ClaimedList {
    fn drop(&mut self) {
        self.for_each(Claimed::wake);
    }
}

/// How a call of [`wait_in`] ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// There was nothing to wait for.
    Not,
    /// Somebody has claimed and woken the caller.
    Woken,
    /// The deadline, or a cancel request.
    GaveUp,
}

/// The wait in a single queue: locks, asks `enter` whether to wait at all, and waits in the queue
/// that `queue` finds.
pub(crate) fn wait_in<T>(
    lock: &Locked<T>,
    queue: fn(&mut T) -> &mut Queue,
    deadline_ns: Option<u64>,
    on_cancel: OnCancel,
    enter: impl FnOnce(&mut T) -> bool,
) -> Waited {
    let waiter = pin!(Waiter::new());
    let node = pin!(Node::new(waiter.as_ref(), 1, ptr::null_mut()));
    let mut guard = lock.lock();
    if !enter(&mut guard) {
        return Waited::Not;
    }
    queue(&mut guard).push(node.as_ref());
    drop(guard);
    if waiter.as_ref().wait(deadline_ns, on_cancel).is_some() {
        return Waited::Woken;
    }
    queue(&mut lock.lock()).remove(node.as_ref());
    Waited::GaveUp
}

#[cfg(all(test, not(loom)))]
mod tests;
