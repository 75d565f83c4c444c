//! Channels that send each message to all receivers.
//!
//! The channel keeps the last messages, as many as its capacity. Senders never wait: a receiver
//! that falls behind loses the oldest messages, and is told how many. The ends may be on fibers of
//! any runtime and on plain threads.
//!
//! # Cancellation
//! A cancel request ends a wait as if the senders had gone. No message is lost by it.
//!
//! # Examples
//! ```
//! use ramie::sync::broadcast::{self, RecvError};
//!
//! let (sender, mut one) = broadcast::channel(2);
//! let mut two = sender.subscribe();
//! sender.send("a").unwrap();
//! assert_eq!(one.recv(), Ok("a"));
//! sender.send("b").unwrap();
//! sender.send("c").unwrap();
//! assert_eq!(one.recv(), Ok("b"));
//! assert_eq!(two.recv(), Err(RecvError::Lagged(1)));
//! assert_eq!(two.recv(), Ok("b"));
//! drop(sender);
//! assert_eq!((two.recv(), two.recv()), (Ok("c"), Err(RecvError::Closed)));
//! ```
#![forbid(unsafe_code)]

use super::lock::{Guard, Locked};
pub use super::mpsc::SendError;
use super::wait::{Queue, wait_in};
use crate::coro::OnCancel;
use crate::sys::clock;
use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Why [`Receiver::recv`] received nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvError {
    /// All messages have been received, and no sender is left.
    Closed,
    /// This many messages have been lost to this receiver; the next call returns the oldest one
    /// that is left.
    Lagged(u64),
}

/// Why [`Receiver::try_recv`] received nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TryRecvError {
    /// There is no message now.
    Empty,
    /// All messages have been received, and no sender is left.
    Closed,
    /// As [`RecvError::Lagged`].
    Lagged(u64),
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("receiving on a closed channel"),
            Self::Lagged(count) => write!(f, "the receiver fell behind by {count} messages"),
        }
    }
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("receiving on an empty channel"),
            Self::Closed => RecvError::Closed.fmt(f),
            Self::Lagged(count) => RecvError::Lagged(*count).fmt(f),
        }
    }
}

impl Error for RecvError {}
impl Error for TryRecvError {}

struct Slot<T> {
    /// `None` once all receivers have had it.
    message: Option<Arc<T>>,
    /// Receivers that have not had it.
    left: usize,
}

pub(super) struct State<T> {
    /// The last messages, oldest first.
    slots: VecDeque<Slot<T>>,
    capacity: usize,
    /// The number of the next message; the slots hold those before it.
    next: u64,
    senders: usize,
    receivers: usize,
    pub(super) waiting: Queue,
}

impl<T> State<T> {
    fn oldest(&self) -> u64 {
        self.next - self.slots.len() as u64
    }

    /// Whether a receiver that has come to `position` would not wait.
    pub(super) fn is_ready(&self, position: u64) -> bool {
        position < self.next || self.senders == 0
    }

    /// One receiver less for the message of that number. What comes back is to be dropped without
    /// the lock.
    fn had(&mut self, number: u64) -> Option<Arc<T>> {
        let index = number - self.oldest();
        let slot = &mut self.slots[index as usize];
        slot.left -= 1;
        if slot.left == 0 { slot.message.take() } else { slot.message.clone() }
    }

    fn subscribe(&mut self) -> u64 {
        self.receivers += 1;
        self.next
    }
}

/// The sending side; made by [`channel`]. Cloning it makes another sender of the same channel.
pub struct Sender<T>(Arc<Locked<State<T>>>);

/// A receiver; made by [`channel`] and [`Sender::subscribe`].
pub struct Receiver<T> {
    state: Arc<Locked<State<T>>>,
    /// The number of the message to receive next.
    position: u64,
}

/// Makes a channel that keeps the last `capacity` messages, with memory for their addresses.
///
/// # Panics
/// If `capacity` is 0.
#[must_use]
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0, "a broadcast channel keeps at least one message");
    let state = State {
        slots: VecDeque::with_capacity(capacity),
        capacity,
        next: 0,
        senders: 1,
        receivers: 1,
        waiting: Queue::new(),
    };
    let state = Arc::new(Locked::new(state));
    (Sender(Arc::clone(&state)), Receiver { state, position: 0 })
}

impl<T> Sender<T> {
    /// Sends a message to all receivers there are, without waiting. Returns how many there are.
    ///
    /// # Errors
    /// [`SendError`] with the message, if there is none. Later there may be one again.
    pub fn send(&self, message: T) -> Result<usize, SendError<T>> {
        let message = Arc::new(message);
        let mut state = self.0.lock();
        let receivers = state.receivers;
        if receivers == 0 {
            drop(state);
            let message = Arc::into_inner(message).expect("it has been shown to nobody");
            return Err(SendError(message));
        }
        let full = state.slots.len() == state.capacity;
        let lost = if full { state.slots.pop_front() } else { None };
        state.slots.push_back(Slot { message: Some(message), left: receivers });
        state.next += 1;
        let waiting = state.waiting.claim_all();
        drop(state);
        drop(waiting);
        drop(lost);
        Ok(receivers)
    }

    /// Makes a receiver of the messages that are sent from now on.
    pub fn subscribe(&self) -> Receiver<T> {
        let position = self.0.lock().subscribe();
        Receiver { state: Arc::clone(&self.0), position }
    }

    /// The number of receivers.
    pub fn receiver_count(&self) -> usize {
        self.0.lock().receivers
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.0.lock().senders += 1;
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.senders -= 1;
        if state.senders == 0 {
            let waiting = state.waiting.claim_all();
            drop(state);
            drop(waiting);
        }
    }
}

impl<T> Receiver<T> {
    /// The number of messages that this receiver has not received, those it has lost included.
    pub fn len(&self) -> usize {
        usize::try_from(self.state.lock().next - self.position).unwrap_or(usize::MAX)
    }

    /// Whether there is nothing to receive now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes another receiver of the messages that are sent from now on.
    #[must_use]
    pub fn resubscribe(&self) -> Self {
        let position = self.state.lock().subscribe();
        Self { state: Arc::clone(&self.state), position }
    }
}

impl<T: Clone> Receiver<T> {
    /// Receives the next message; waits for it while there is a sender.
    ///
    /// # Errors
    /// [`RecvError`]: `Lagged` if messages have been lost, `Closed` if there will be none.
    ///
    /// # Panics
    /// Inside [`no_suspend`](crate::no_suspend), if it has to wait.
    ///
    /// # Cancellation
    /// A cancel request ends the wait with `Closed`.
    pub fn recv(&mut self) -> Result<T, RecvError> {
        self.recv_until(None).map_err(|error| match error {
            TryRecvError::Lagged(count) => RecvError::Lagged(count),
            TryRecvError::Empty | TryRecvError::Closed => RecvError::Closed,
        })
    }

    /// As [`recv`](Self::recv), but waits for `timeout` at most.
    ///
    /// # Errors
    /// [`TryRecvError`]: `Empty` if there was no message by then, otherwise as `recv`.
    ///
    /// # Panics
    /// Inside [`no_suspend`](crate::no_suspend), if it has to wait.
    ///
    /// # Cancellation
    /// A cancel request ends the wait with `Closed`.
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<T, TryRecvError> {
        self.recv_until(Some(clock::deadline_ns(timeout)))
    }

    fn recv_until(&mut self, deadline_ns: Option<u64>) -> Result<T, TryRecvError> {
        let position = self.position;
        let enter = |state: &mut State<T>| !state.is_ready(position);
        wait_in(&self.state, |state| &mut state.waiting, deadline_ns, OnCancel::End, enter);
        self.try_recv().map_err(|error| match (error, deadline_ns) {
            (TryRecvError::Empty, Some(deadline_ns)) if clock::now_ns() >= deadline_ns => error,
            (TryRecvError::Empty, _) => TryRecvError::Closed,
            _ => error,
        })
    }

    /// Takes the next message if there is one.
    ///
    /// # Errors
    /// [`TryRecvError`]: `Empty` if there is none, otherwise as [`recv`](Self::recv).
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        let mut state = self.state.lock();
        if self.position == state.next {
            let closed = state.senders == 0;
            return Err(if closed { TryRecvError::Closed } else { TryRecvError::Empty });
        }
        let lost = state.oldest().saturating_sub(self.position);
        if lost > 0 {
            self.position += lost;
            return Err(TryRecvError::Lagged(lost));
        }
        let message = state.had(self.position);
        self.position += 1;
        drop(state);
        let message = message.expect("a message stays until all have had it");
        Ok(Arc::try_unwrap(message).unwrap_or_else(|shared| T::clone(&shared)))
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state: Guard<'_, State<T>> = self.state.lock();
        state.receivers -= 1;
        // Messages that are sent from now on do not count this receiver.
        let end = state.next;
        // One at a time, since messages are dropped without the lock.
        loop {
            let number = self.position.max(state.oldest());
            if number >= end {
                return;
            }
            self.position = number + 1;
            let message = state.had(number);
            drop(state);
            drop(message);
            state = self.state.lock();
        }
    }
}

impl<T> Receiver<T> {
    pub(super) fn state(&self) -> &Locked<State<T>> {
        &self.state
    }

    /// What it has seen, for `State::is_ready`.
    pub(super) fn seen(&self) -> u64 {
        self.position
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}
