//! An op in flight: the op, its outcome, and the fiber that waits for it.
//!
//! **The invariant on the wall:** a `Pending`, and everything its op borrows, outlives its last
//! CQE. It lies on the stack of the fiber that submitted it, and that fiber is resumed only by
//! [`PendingPtr::complete`], which the driver calls when the kernel is done with it: after the op's
//! own completion, and after that of a cancel request that names it, if one was sent.
//!
//! The ops of a batch (`sched/batch.rs`) are on the heap instead, and in a [`Group`]: their fiber
//! may run, but does not touch them before they are listed there.

use super::FiberList;
use super::header::{FiberPtr, Waiting};
use super::signal::{Signal, Waiter};
use crate::arch::prefetch;
use crate::op::Op;
use std::cell::{Cell, UnsafeCell};
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::task::Waker;

/// See the module's head.
#[repr(align(8))]
pub(crate) struct Pending<'a> {
    op: UnsafeCell<Op<'a>>,
    fiber: FiberPtr,
    /// The kernel's result, once it is known.
    outcome: Cell<i32>,
    /// Completions that the kernel still owes for this op: its own and a cancel request's.
    owed: Cell<u8>,
    /// Whether a cancel request has been sent (one is enough).
    cancel_sent: Cell<bool>,
    /// Whether the kernel was asked to say when the descriptor is ready, before the op is tried
    /// again.
    polling: Cell<bool>,
    /// The link of the driver's list of ops that have to wait for room, or of a group's.
    next: Cell<Option<PendingPtr>>,
    /// Who is told that it is done, instead of the fiber; and what tells it from others there.
    group: Option<NonNull<Group>>,
    key: u64,
}

/// Where ops that are in flight together are listed when they are done.
pub(crate) struct Group {
    done: PendingList,
    /// Set whenever something is listed.
    signal: Signal,
    /// Woken whenever something is listed.
    waker: Option<Waker>,
}

impl Group {
    pub(crate) fn new(waker: Option<Waker>) -> Self {
        Self { done: PendingList::new(), signal: Signal::new(), waker }
    }

    pub(crate) fn done(&self) -> &PendingList {
        &self.done
    }

    pub(crate) fn signal(&self) -> &Signal {
        &self.signal
    }
}

impl<'a> Pending<'a> {
    pub(crate) fn new(op: Op<'a>, fiber: FiberPtr) -> Self {
        Self {
            op: UnsafeCell::new(op),
            fiber,
            outcome: Cell::new(0),
            owed: Cell::new(0),
            cancel_sent: Cell::new(false),
            polling: Cell::new(false),
            next: Cell::new(None),
            group: None,
            key: 0,
        }
    }

    /// An op that is listed in `group` when it is done; `fiber` is the group's.
    pub(crate) fn of_group(op: Op<'a>, fiber: FiberPtr, group: NonNull<Group>, key: u64) -> Self {
        let mut pending = Self::new(op, fiber);
        (pending.group, pending.key) = (Some(group), key);
        pending
    }

    /// Takes the op out.
    pub(crate) fn into_op(mut self) -> Op<'a> {
        std::mem::replace(self.op(), Op::Nop)
    }

    /// The op, while it is not in flight.
    #[inline]
    pub(crate) fn op(&mut self) -> &mut Op<'a> {
        debug_assert!(self.owed.get() == 0);
        self.op.get_mut()
    }

    /// The kernel's result: a count, a descriptor, or `-errno`.
    pub(crate) fn outcome(&self) -> i32 {
        debug_assert!(self.owed.get() == 0);
        self.outcome.get()
    }

    /// Whether a cancel request was sent for it.
    pub(crate) fn cancel_sent(&self) -> bool {
        self.cancel_sent.get()
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if self.owed.get() != 0 {
            // The kernel would write into a dead frame. Nothing short of ending the process is
            // safe.
            eprintln!(
                "ramie: an operation left its stack frame before the kernel was done with it"
            );
            std::process::abort();
        }
    }
}

/// A pointer to an op in flight, as the kernel's `user_data` carries it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PendingPtr(NonNull<Pending<'static>>);

impl PendingPtr {
    /// # Safety
    /// The fiber that owns `pending` must be suspended and stay so until `complete`.
    #[inline]
    pub(crate) unsafe fn new(pending: &Pending<'_>) -> Self {
        Self(NonNull::from(pending).cast())
    }

    /// # Safety
    /// `pending` is of a group, and stays where it is, untouched, until it is in the group's list;
    /// so does the group. All of that happens on one thread.
    #[inline]
    pub(crate) unsafe fn of_group(pending: NonNull<Pending<'_>>) -> Self {
        Self(pending.cast())
    }

    #[inline]
    pub(crate) fn to_user_data(self) -> u64 {
        self.0.as_ptr().expose_provenance() as u64
    }

    /// # Safety
    /// `user_data` must come from `to_user_data` of an op that is not completed yet.
    #[inline]
    pub(crate) unsafe fn from_user_data(user_data: u64) -> Self {
        let address = std::ptr::with_exposed_provenance_mut(user_data as usize);
        // SAFETY: it was a NonNull.
        Self(unsafe { NonNull::new_unchecked(address) })
    }

    #[inline]
    fn pending(&self) -> &Pending<'static> {
        // SAFETY: by `new`, `of_group` and `from_user_data` the op is not completed: its owner is
        // suspended, so the frame is alive, or it is of a group, which keeps it.
        unsafe { self.0.as_ref() }
    }

    /// The op, for the driver to read or to encode. The fiber that owns it is suspended, or has it
    /// in a group and does not touch it, and the driver runs on one thread: so nobody else looks at
    /// it.
    ///
    /// # Safety
    /// The reference must not live longer than the call that uses it, and only one may exist.
    #[expect(clippy::mut_from_ref, reason = "the cell is the driver's while the op is in flight")]
    #[inline]
    pub(crate) unsafe fn op(&self) -> &mut Op<'static> {
        // SAFETY: the caller's promise.
        unsafe { &mut *self.pending().op.get() }
    }

    /// Asks for its memory, and for the frames above it, which its fiber goes on with.
    #[inline]
    pub(crate) fn prefetch(self) {
        const LINE: usize = 64;
        const LINES: usize = 4;
        let op: *const u8 = self.0.as_ptr().cast_const().cast();
        (0..LINES).for_each(|line| prefetch(op.wrapping_add(line * LINE).cast()));
    }

    #[inline]
    pub(crate) fn fiber(self) -> FiberPtr {
        self.pending().fiber
    }

    pub(crate) fn key(self) -> u64 {
        self.pending().key
    }

    /// The driver is done with it: makes the fiber that waits for it ready.
    #[inline]
    pub(crate) fn complete(self, ready: &FiberList) {
        let Pending { fiber, group, .. } = *self.pending();
        let Some(group) = group else {
            fiber.header().waiting.set(Waiting::Nothing);
            return ready.push(fiber);
        };
        // SAFETY: the group is there as long as it has ops (`of_group`).
        let group = unsafe { group.as_ref() };
        group.done.push(self);
        if let Waiter::Fiber(address) = group.signal.set() {
            // SAFETY: it was registered until a line above, so it is suspended.
            ready.push(unsafe { FiberPtr::from_address(address) });
        }
        if let Some(waker) = &group.waker {
            waker.wake_by_ref();
        }
    }

    /// One more completion to come.
    #[inline]
    pub(crate) fn owe(&self) {
        let owed = &self.pending().owed;
        owed.set(owed.get() + 1);
    }

    /// One completion has come; `true` when none is owed any more.
    #[inline]
    #[must_use]
    pub(crate) fn pay(&self) -> bool {
        let owed = &self.pending().owed;
        debug_assert!(owed.get() > 0, "a completion that nobody asked for");
        owed.set(owed.get() - 1);
        owed.get() == 0
    }

    /// Whether any completion is still to come.
    pub(crate) fn is_owed(&self) -> bool {
        self.pending().owed.get() != 0
    }

    pub(crate) fn owes_only_one(&self) -> bool {
        self.pending().owed.get() == 1
    }

    /// The op's own result.
    #[inline]
    pub(crate) fn set_outcome(&self, result: i32) {
        self.pending().outcome.set(result);
    }

    /// `true` the first time: the caller sends the one cancel request.
    pub(crate) fn start_cancel(&self) -> bool {
        !self.pending().cancel_sent.replace(true)
    }

    pub(crate) fn cancel_sent(&self) -> bool {
        self.pending().cancel_sent.get()
    }

    pub(crate) fn polling(&self) -> &Cell<bool> {
        &self.pending().polling
    }

    pub(crate) fn next(&self) -> &Cell<Option<PendingPtr>> {
        &self.pending().next
    }
}

/// A first-in-first-out list of ops, linked through the ops themselves.
pub(crate) struct PendingList {
    head: Cell<Option<PendingPtr>>,
    tail: Cell<Option<PendingPtr>>,
    _owner_thread: PhantomData<*mut ()>,
}

impl PendingList {
    pub(crate) fn new() -> Self {
        Self { head: Cell::new(None), tail: Cell::new(None), _owner_thread: PhantomData }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.head.get().is_none()
    }

    pub(crate) fn push(&self, pending: PendingPtr) {
        pending.next().set(None);
        match self.tail.replace(Some(pending)) {
            Some(last) => last.next().set(Some(pending)),
            None => self.head.set(Some(pending)),
        }
    }

    pub(crate) fn push_front(&self, pending: PendingPtr) {
        pending.next().set(self.head.get());
        if self.head.replace(Some(pending)).is_none() {
            self.tail.set(Some(pending));
        }
    }

    pub(crate) fn pop(&self) -> Option<PendingPtr> {
        let first = self.head.get()?;
        self.head.set(first.next().get());
        if self.head.get().is_none() {
            self.tail.set(None);
        }
        Some(first)
    }
}
