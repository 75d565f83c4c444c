//! What `mpsc` and `mpmc` are made of: a queue of messages, with a queue of senders and one of
//! receivers that wait, under one tiny lock.
//!
//! A receiver waits only while there is no message, and a sender only while there is no room. So a
//! message is handed over in one of two ways: through the queue, or from stack to stack to a side
//! that waits already, which then owns it when it wakes, or to a receiver that lingers
//! (`landing.rs`). Nobody is woken for nothing, and once one that waits has been claimed, others
//! see no waiter, and wake nobody.
//!
//! Invariants.
//! 1. Who waits for a message can be claimed only while there is none, no sender waits, and there
//!    are senders. Who waits for room, only while there is none, no receiver waits, and there are
//!    receivers.
//! 2. A message is in one place: with its sender, in the queue, or with its receiver. It leaves a
//!    sender that waits only by a claim, and a sender that nobody has claimed takes it back.
//! 3. Messages are dropped, and waiters woken, without the lock.
//!
//! The order is first in, first out, also between messages in the queue and those of senders that
//! wait: who takes a message out puts the next waiting sender's in, under the same lock.
//!
//! A cancel request ends a wait as if the other side had gone. What was handed over before is
//! kept: the claim decides (`sync/wait.rs`).

mod landing;
mod messages;

use super::bias::Biased;
use super::block;
use super::lock::Guard;
use super::select::Place;
use super::wait::{Claimed, Node, Queue, Waiter};
use crate::atomic::{AtomicUsize, Ordering};
use crate::coro::OnCancel;
use crate::sys::clock;
use landing::{Landing, Landings};
use messages::{FreeBlock, Messages};
use std::cell::UnsafeCell;
use std::ops::Deref;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// The token of the one node of a waiter.
const ONLY: usize = 1;
/// The place of nobody (`block::place`).
const NOWHERE: usize = usize::MAX;
/// No more rounds of lingering.
const DONE: u32 = u32::MAX;

/// How long a call may wait.
#[derive(Clone, Copy)]
pub(crate) enum Until {
    /// Not at all.
    Now,
    /// Until this time of the monotonic clock.
    Deadline(u64),
    Forever,
}

impl Until {
    fn waits(self) -> bool {
        !matches!(self, Self::Now)
    }
}

/// Whether somebody at `place` runs while the caller does.
#[inline]
fn elsewhere(place: usize) -> bool {
    place != NOWHERE && place != block::place()
}

/// Why a message was not sent. It comes back.
pub(crate) enum NotSent<T> {
    /// There is no room: now, or before the deadline.
    Full(T),
    /// No receiver is left, or a cancel request ended the wait.
    Disconnected(T),
}

/// Why no message was received.
pub(crate) enum NotReceived {
    /// There is none: now, or before the deadline.
    Empty,
    /// No sender is left, or a cancel request ended the wait.
    Disconnected,
}

/// Where a message is handed over to or by one that waits.
type Slot<T> = UnsafeCell<Option<T>>;

/// See the module's head. The handles count themselves (`add_sender` and so on).
///
/// Between two workers the cost of a message is the number of cache lines that go from one to the
/// other: here the first, with the lock and what each message changes, and the last; what is only
/// looked at stays with both.
#[repr(C, align(64))]
pub(crate) struct Channel<T> {
    state: Biased<State<T>>,
    length: Length,
}

/// Messages in the queue, as of the last change: to be looked at without the lock, again and again,
/// and so in a line of its own.
#[repr(align(64))]
struct Length(AtomicUsize);

#[repr(C)]
struct State<T> {
    /// Where the last sender, and the last receiver, ran.
    sender_at: usize,
    receiver_at: usize,
    /// Used only while there is no message.
    lingering: Landings<T>,
    messages: Messages<T>,
    /// Messages that wait in the queue, at most.
    capacity: usize,
    senders: usize,
    receivers: usize,
    sending: Queue,
    receiving: Queue,
}

impl<T> Channel<T> {
    /// A channel with one sender and one receiver.
    pub(crate) fn new(capacity: usize) -> Self {
        let state = State {
            sender_at: NOWHERE,
            receiver_at: NOWHERE,
            lingering: Landings::new(),
            messages: Messages::new(capacity),
            capacity,
            senders: 1,
            receivers: 1,
            sending: Queue::new(),
            receiving: Queue::new(),
        };
        Self { state: Biased::new(state), length: Length(AtomicUsize::new(0)) }
    }

    /// Takes the lock. A queue with several messages is one that the other side fills or empties.
    #[inline]
    fn lock(&self) -> Guard<'_, State<T>> {
        self.state.lock(|| self.length.0.load(Ordering::Relaxed) > 1)
    }

    /// The capacity, if there is a limit.
    pub(crate) fn capacity(&self) -> Option<usize> {
        let capacity = self.lock().capacity;
        (capacity != usize::MAX).then_some(capacity)
    }

    pub(crate) fn is_full(&self) -> bool {
        let state = self.lock();
        state.messages.len() >= state.capacity
    }

    /// The messages in the queue.
    pub(crate) fn len(&self) -> usize {
        self.lock().messages.len()
    }

    pub(crate) fn add_sender(&self) {
        let mut state = self.lock();
        state.senders = state.senders.checked_add(1).unwrap_or_else(|| std::process::abort());
    }

    pub(crate) fn add_receiver(&self) {
        let mut state = self.lock();
        state.receivers = state.receivers.checked_add(1).unwrap_or_else(|| std::process::abort());
    }

    /// A sender has gone. With the last one, all that wait for a message learn it.
    pub(crate) fn drop_sender(&self) {
        let mut state = self.lock();
        state.senders -= 1;
        if state.senders == 0 {
            let waiting = state.receiving.claim_all();
            drop(state);
            drop(waiting);
        }
    }

    /// A receiver has gone. With the last one, all that wait for room get their messages back, and
    /// the messages in the queue are dropped.
    pub(crate) fn drop_receiver(&self) {
        let mut state = self.lock();
        state.receivers -= 1;
        if state.receivers == 0 {
            let waiting = state.sending.claim_all();
            let messages = state.messages.take();
            drop(state);
            drop(waiting);
            drop(messages);
        }
    }

    #[inline]
    pub(crate) fn send(&self, message: T, until: Until) -> Result<(), NotSent<T>> {
        if until.waits() {
            block::take_turns();
        }
        let here = block::place();
        let mut round = 0;
        loop {
            let mut state = self.lock();
            state.sender_at = here;
            if state.receivers == 0 {
                drop(state);
                return Err(NotSent::Disconnected(message));
            }
            if let Some(receiver) = state.receiving.claim_first() {
                drop(state);
                give(receiver, message);
                return Ok(());
            }
            if !state.lingering.is_empty() {
                state.lingering.fill(message);
                return Ok(());
            }
            let length = state.messages.len();
            if length >= state.capacity {
                if round == DONE || !until.waits() || length == 0 || !elsewhere(state.receiver_at) {
                    return self.wait_for_room(state, message, until);
                }
                drop(state);
                self.linger(length, &mut round);
            } else if state.messages.wants_block() {
                self.add_block(state);
            } else {
                state.messages.push(message);
                self.length.0.store(length + 1, Ordering::Relaxed);
                return Ok(());
            }
        }
    }

    #[inline]
    pub(crate) fn recv(&self, until: Until) -> Result<T, NotReceived> {
        if until.waits() {
            block::take_turns();
        }
        let here = block::place();
        let mut round = 0;
        loop {
            let mut state = self.lock();
            state.receiver_at = here;
            let length = state.messages.len();
            if length == 0 {
                if round == DONE
                    || !until.waits()
                    || state.capacity == 0
                    || state.senders == 0
                    || !elsewhere(state.sender_at)
                {
                    return self.recv_from_sender(state, until);
                }
                if let Some(message) = self.linger_for_message(state, &mut round) {
                    return Ok(message);
                }
            } else if state.sending.is_empty() {
                let (message, block) = state.messages.pop().expect("there is a message");
                self.length.0.store(length - 1, Ordering::Relaxed);
                drop(state);
                drop(block);
                return Ok(message);
            } else if state.messages.wants_block() {
                self.add_block(state);
            } else {
                return Ok(self.recv_and_refill(state));
            }
        }
    }

    /// Gives the other side, which is elsewhere, a moment to change the length of the queue, a few
    /// rounds in all. One that suspends has to be woken, for every single message if the other side
    /// is a little slower.
    #[cold]
    fn linger(&self, length: usize, round: &mut u32) {
        while block::linger(*round) {
            *round += 1;
            if self.length.0.load(Ordering::Relaxed) != length {
                // Who has changed it is about to let go of the lock.
                std::hint::spin_loop();
                return;
            }
        }
        *round = DONE;
    }

    /// As `linger`, while there is no message. One may be handed over meanwhile, if nobody else
    /// runs on this worker: who yields had better find more than one.
    #[cold]
    fn linger_for_message(&self, mut state: Guard<'_, State<T>>, round: &mut u32) -> Option<T> {
        if !state.lingering.is_empty() || block::has_others() {
            drop(state);
            self.linger(0, round);
            return None;
        }
        let place = Landing::new();
        // SAFETY: it stays where it is until it is full, or has left, which are the ways out of
        // here; nothing in between panics or suspends.
        unsafe { state.lingering.enter(&place) };
        drop(state);
        while !block::has_others() && block::pause(*round) {
            *round += 1;
            if place.is_full() {
                return place.into_message();
            }
        }
        if !block::has_others() {
            *round = DONE;
        }
        let has_left = self.lock().lingering.leave(&place);
        if has_left || block::goes_blindly() { None } else { place.into_message() }
    }

    /// Queues a place of `select!` for a message, unless it need not wait.
    pub(crate) fn enter_receiving(&self, place: &Place<'_>) -> bool {
        let mut state = self.lock();
        let ready =
            state.messages.len() > 0 || state.senders == 0 || state.sending.has_other(place.waiter);
        if !ready {
            state.receiving.push(place.node);
        }
        !ready
    }

    pub(crate) fn leave_receiving(&self, place: &Place<'_>) {
        self.lock().receiving.remove(place.node);
    }

    /// Queues a place of `select!` for room, unless it need not wait.
    pub(crate) fn enter_sending(&self, place: &Place<'_>) -> bool {
        let mut state = self.lock();
        let ready = state.messages.len() < state.capacity
            || state.receivers == 0
            || state.receiving.has_other(place.waiter);
        if !ready {
            state.sending.push(place.node);
        }
        !ready
    }

    pub(crate) fn leave_sending(&self, place: &Place<'_>) {
        self.lock().sending.remove(place.node);
    }

    pub(crate) fn send_timeout(&self, message: T, timeout: Duration) -> Result<(), NotSent<T>> {
        match self.send(message, Until::Now) {
            Err(NotSent::Full(message)) if !timeout.is_zero() => {
                self.send(message, Until::Deadline(clock::deadline_ns(timeout)))
            }
            result => result,
        }
    }

    pub(crate) fn recv_timeout(&self, timeout: Duration) -> Result<T, NotReceived> {
        match self.recv(Until::Now) {
            Err(NotReceived::Empty) if !timeout.is_zero() => {
                self.recv(Until::Deadline(clock::deadline_ns(timeout)))
            }
            result => result,
        }
    }

    /// Takes the oldest message, and puts that of a sender that waits into its place.
    fn recv_and_refill(&self, mut state: Guard<'_, State<T>>) -> T {
        let (message, block) = state.messages.pop().expect("there is a message");
        let sender = state.sending.claim_first();
        if let Some(sender) = &sender {
            // SAFETY: the slot of a sender that this thread has claimed and not woken.
            let next = unsafe { take(sender) };
            state.messages.push(next);
        }
        self.length.0.store(state.messages.len(), Ordering::Relaxed);
        drop(state);
        drop(sender);
        drop(block);
        message
    }

    /// Receives while the queue is empty.
    fn recv_from_sender(
        &self,
        mut state: Guard<'_, State<T>>,
        until: Until,
    ) -> Result<T, NotReceived> {
        if let Some(sender) = state.sending.claim_first() {
            drop(state);
            // SAFETY: the slot of a sender that this thread has claimed and not woken.
            let message = unsafe { take(&sender) };
            sender.wake();
            return Ok(message);
        }
        if state.senders == 0 {
            return Err(NotReceived::Disconnected);
        }
        let deadline_ns = match until {
            Until::Now => return Err(NotReceived::Empty),
            Until::Deadline(deadline_ns) => Some(deadline_ns),
            Until::Forever => None,
        };
        self.wait_for_message(state, deadline_ns)
    }

    fn wait_for_message(
        &self,
        mut state: Guard<'_, State<T>>,
        deadline_ns: Option<u64>,
    ) -> Result<T, NotReceived> {
        if block::must_not_wait() {
            drop(state);
            block::may_wait();
            return Err(NotReceived::Disconnected);
        }
        let slot = Slot::new(None);
        // SAFETY: its one node is put into one queue, and it waits by `wait_only`.
        let waiter = pin!(unsafe { Waiter::only() });
        let node = pin!(Node::new(waiter.as_ref(), ONLY, slot.get().cast()));
        state.receiving.push(node.as_ref());
        let leave = || self.lock().receiving.remove(node.as_ref());
        if waiter.as_ref().wait_only(state, deadline_ns, OnCancel::End, leave) {
            return slot.into_inner().ok_or(NotReceived::Disconnected);
        }
        match deadline_ns {
            Some(deadline_ns) if clock::now_ns() >= deadline_ns => Err(NotReceived::Empty),
            _ => Err(NotReceived::Disconnected),
        }
    }

    #[cold]
    fn wait_for_room(
        &self,
        mut state: Guard<'_, State<T>>,
        message: T,
        until: Until,
    ) -> Result<(), NotSent<T>> {
        let deadline_ns = match until {
            Until::Now => {
                drop(state);
                return Err(NotSent::Full(message));
            }
            Until::Deadline(deadline_ns) => Some(deadline_ns),
            Until::Forever => None,
        };
        if block::must_not_wait() {
            drop(state);
            block::may_wait();
            return Err(NotSent::Disconnected(message));
        }
        let slot = Slot::new(Some(message));
        // SAFETY: its one node is put into one queue, and it waits by `wait_only`.
        let waiter = pin!(unsafe { Waiter::only() });
        let node = pin!(Node::new(waiter.as_ref(), ONLY, slot.get().cast()));
        state.sending.push(node.as_ref());
        let leave = || self.lock().sending.remove(node.as_ref());
        let claimed = waiter.as_ref().wait_only(state, deadline_ns, OnCancel::End, leave);
        match (slot.into_inner(), deadline_ns) {
            (None, _) => Ok(()),
            (Some(message), Some(deadline_ns)) if !claimed && clock::now_ns() >= deadline_ns => {
                Err(NotSent::Full(message))
            }
            (Some(message), _) => Err(NotSent::Disconnected(message)),
        }
    }

    /// Adds a block to the queue, for which the lock is let go for a moment.
    #[cold]
    fn add_block(&self, state: Guard<'_, State<T>>) {
        let slots = state.messages.slots();
        drop(state);
        let block = FreeBlock::new(slots);
        self.lock().messages.add_block(block);
    }
}

/// Hands a message to a receiver that waits.
#[inline]
fn give<T>(receiver: Claimed, message: T) {
    // SAFETY: the slot of a receiver that this thread has claimed and not woken, which nobody else
    // looks at until then; all nodes in `receiving` have a `Slot<T>`.
    unsafe { *receiver.slot().cast::<Option<T>>() = Some(message) };
    receiver.wake();
}

/// Takes the message of a sender that waits.
///
/// # Safety
/// The sender is one of a `Channel<T>`.
#[inline]
unsafe fn take<T>(sender: &Claimed) -> T {
    // SAFETY: the slot of a sender that this thread has claimed and not woken, which nobody else
    // looks at until then; all nodes in `sending` have a `Slot<T>`.
    let message = unsafe { (*sender.slot().cast::<Option<T>>()).take() };
    message.expect("a sender that waits has its message")
}

/// A sender's share of a channel; made by [`pair`].
pub(crate) struct Sending<T>(Arc<Channel<T>>);

/// A receiver's share of a channel; made by [`pair`].
pub(crate) struct Receiving<T>(Arc<Channel<T>>);

/// A channel for that many messages.
pub(crate) fn pair<T>(capacity: usize) -> (Sending<T>, Receiving<T>) {
    let channel = Arc::new(Channel::new(capacity));
    (Sending(Arc::clone(&channel)), Receiving(channel))
}

impl<T> Clone for Sending<T> {
    fn clone(&self) -> Self {
        self.0.add_sender();
        Self(Arc::clone(&self.0))
    }
}

impl<T> Clone for Receiving<T> {
    fn clone(&self) -> Self {
        self.0.add_receiver();
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sending<T> {
    fn drop(&mut self) {
        self.0.drop_sender();
    }
}

impl<T> Drop for Receiving<T> {
    fn drop(&mut self) {
        self.0.drop_receiver();
    }
}

impl<T> Deref for Sending<T> {
    type Target = Channel<T>;
    #[inline]
    fn deref(&self) -> &Channel<T> {
        &self.0
    }
}

impl<T> Deref for Receiving<T> {
    type Target = Channel<T>;
    #[inline]
    fn deref(&self) -> &Channel<T> {
        &self.0
    }
}

impl<T> Sending<T> {
    pub(crate) fn same_channel(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Receiving<T> {
    pub(crate) fn same_channel(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
