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
use crate::atomic::{AtomicUsize, Ordering};
use crate::coro::{OnCancel, Signal};
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
        if !block::wait(&self.signal, deadline_ns, on_cancel) {
            return self.withdraw();
        }
        Some(self.selected.load(Ordering::Relaxed))
    }

    /// As `wait`, for a waiter made by `only`. `leave` takes its node out of the queue, under the
    /// lock, and says whether it was there. Returns whether it was claimed and woken.
    #[inline]
    pub(crate) fn wait_only(
        self: Pin<&Self>,
        deadline_ns: Option<u64>,
        on_cancel: OnCancel,
        leave: impl FnOnce() -> bool,
    ) -> bool {
        debug_assert!(self.only);
        if block::wait(&self.signal, deadline_ns, on_cancel) {
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

impl Drop for Waiter {
    fn drop(&mut self) {
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
    fn drop(&mut self) {
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
        // SAFETY: nodes in the queue are alive (invariant 2).
        while let Some(node) = unsafe { self.head.as_ref() } {
            // First the claim, while the node is in the queue and so cannot go (invariant 3).
            let waiter = node.waiter;
            if waiter.only {
                // Nobody but those who hold the lock decides (`Waiter::only`).
                waiter.selected.store(node.token, Ordering::Relaxed);
                self.unlink(node, CLAIMED);
                return Some(Claimed(node));
            }
            if waiter.claim(node.token) {
                self.unlink(node, CLAIMED);
                return Some(Claimed(node));
            }
            self.unlink(node, ptr::null_mut());
        }
        None
    }

    /// Claims the first `count` waiters that can be claimed.
    pub(crate) fn claim(&mut self, count: usize) -> ClaimedList {
        let mut list = ClaimedList { head: ptr::null(), count: 0 };
        let mut last: *const Node<'static> = ptr::null();
        while list.count < count {
            let Some(claimed) = self.claim_first() else { break };
            let node = claimed.0;
            std::mem::forget(claimed);
            // SAFETY: claimed and not woken, so alive (invariant 4); out of the queue, so its links
            // are the claimer's.
            unsafe { (*node).next.set(ptr::null()) };
            // SAFETY: as above.
            match unsafe { last.as_ref() } {
                Some(last) => last.next.set(node),
                None => list.head = node,
            }
            last = node;
            list.count += 1;
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
    #[inline]
    pub(crate) fn token(&self) -> usize {
        // SAFETY: as in `slot`.
        unsafe { (*self.0).token }
    }

    /// Wakes it.
    #[inline]
    pub(crate) fn wake(self) {
        drop(self);
    }
}

impl Drop for Claimed {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: claimed and not woken (invariant 4). The reference to the waiter is used for
        // `set` only, after whose swap the waiter may be gone.
        let waiter = unsafe { (*self.0).waiter };
        block::wake(waiter.signal.set());
    }
}

/// Waiters that the owner of this has claimed, woken when it is dropped.
#[must_use = "the waiters are woken when this is dropped: first let go of the queue's lock"]
pub(crate) struct ClaimedList {
    head: *const Node<'static>,
    count: usize,
}

impl ClaimedList {
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
mod tests {
    use super::*;
    use crate::sys::clock;
    use std::cell::Cell;
    use std::sync::Arc;
    use std::time::Duration;

    /// What is handed over goes to the one who waits longest, and arrives.
    #[test]
    fn first_come_first_served() {
        let queue = Arc::new(Locked::new(Queue::new()));
        let mut threads = Vec::new();
        for index in 0..3 {
            let shared = Arc::clone(&queue);
            threads.push(std::thread::spawn(move || {
                let slot = Cell::new(0_usize);
                let waiter = pin!(Waiter::new());
                let node = pin!(Node::new(waiter.as_ref(), 7, (&raw const slot).cast_mut().cast()));
                shared.lock().push(node.as_ref());
                assert_eq!(waiter.as_ref().wait(None, OnCancel::Ignore), Some(7));
                assert_eq!(slot.get(), index);
            }));
            while length(&queue) != index + 1 {
                std::thread::yield_now();
            }
        }
        for index in 0..3 {
            let claimed = queue.lock().claim_first().unwrap();
            assert_eq!(claimed.token(), 7);
            // SAFETY: the waiter's `slot`, until it is woken.
            unsafe { (*claimed.slot().cast::<Cell<usize>>()).set(index) };
            claimed.wake();
        }
        assert!(queue.lock().claim_first().is_none());
        for thread in threads {
            thread.join().unwrap();
        }
    }

    fn length(queue: &Locked<Queue>) -> usize {
        let queue = queue.lock();
        let mut length = 0;
        let mut at = queue.head;
        // SAFETY: nodes in a locked queue are alive.
        while let Some(node) = unsafe { at.as_ref() } {
            length += 1;
            at = node.next.get();
        }
        length
    }

    /// One waiter in two queues: the first claim wins, in the other queue it is passed over.
    #[test]
    fn claimed_once() {
        let (one, two) = (Locked::new(Queue::new()), Locked::new(Queue::new()));
        let waiter = pin!(Waiter::new());
        let first = pin!(Node::new(waiter.as_ref(), 1, ptr::null_mut()));
        let second = pin!(Node::new(waiter.as_ref(), 2, ptr::null_mut()));
        one.lock().push(first.as_ref());
        two.lock().push(second.as_ref());
        assert!(!one.lock().remove(second.as_ref()), "it is in the other one");
        two.lock().claim_first().unwrap().wake();
        assert!(one.lock().claim_first().is_none());
        assert_eq!(waiter.as_ref().wait(None, OnCancel::Ignore), Some(2));
        assert!(!one.lock().remove(first.as_ref()) && !two.lock().remove(second.as_ref()));
    }

    /// One that gives up is not handed anything, from whichever place it leaves.
    #[test]
    fn withdrawn_is_passed_over() {
        let queue = Locked::new(Queue::new());
        for leaves in 0..3 {
            let waiters = [pin!(Waiter::new()), pin!(Waiter::new()), pin!(Waiter::new())];
            let [a, b, c] = &waiters;
            let a_node = pin!(Node::new(a.as_ref(), 1, ptr::null_mut()));
            let b_node = pin!(Node::new(b.as_ref(), 2, ptr::null_mut()));
            let c_node = pin!(Node::new(c.as_ref(), 3, ptr::null_mut()));
            let nodes = [a_node.as_ref(), b_node.as_ref(), c_node.as_ref()];
            for node in nodes {
                queue.lock().push(node);
            }
            let soon = clock::deadline_ns(Duration::from_millis(1));
            assert_eq!(waiters[leaves].as_ref().wait(Some(soon), OnCancel::Ignore), None);
            assert!(queue.lock().remove(nodes[leaves]));
            assert!(!queue.lock().remove(nodes[leaves]));
            let all = queue.lock().claim_all();
            assert_eq!(all.len(), 2);
            let tokens: Vec<_> = all.map(|claimed| claimed.token()).collect();
            let expected: Vec<_> = (0..3).filter(|at| *at != leaves).map(|at| at + 1).collect();
            assert_eq!(tokens, expected);
            assert!(queue.lock().is_empty());
        }
    }

    #[test]
    fn a_wait_that_is_not_begun() {
        let queue = Locked::new(Queue::new());
        assert_eq!(wait_in(&queue, |q| q, None, OnCancel::Ignore, |_| false), Waited::Not);
        let soon = Some(clock::deadline_ns(Duration::from_millis(1)));
        assert_eq!(wait_in(&queue, |q| q, soon, OnCancel::Ignore, |_| true), Waited::GaveUp);
        assert!(queue.lock().is_empty());
    }
}
