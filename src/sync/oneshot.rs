//! A channel for a single message: the answer to a question.
//!
//! The halves may be on fibers of any runtime and on plain threads. One allocation serves both.
//!
//! # Cancellation
//! A cancel request ends a wait as if the sender had gone. No message is lost: what has been sent
//! can be received afterwards.
//!
//! # Examples
//! ```
//! use ramie::sync::oneshot;
//!
//! ramie::Runtime::new()?.run(|| {
//!     let (answer, receiver) = oneshot::channel();
//!     ramie::spawn(move || answer.send(6 * 7));
//!     assert_eq!(receiver.recv(), Ok(42));
//! });
//! # std::io::Result::Ok(())
//! ```
#![forbid(unsafe_code)]

use super::lock::Locked;
use super::mpsc::{RecvError, RecvTimeoutError, TryRecvError};
use super::wait::{Queue, wait_in};
use crate::coro::OnCancel;
use crate::sys::clock;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub(super) struct State<T> {
    message: Option<T>,
    /// The message may still come.
    sender: bool,
    /// The message may still be received.
    receiver: bool,
    pub(super) waiting: Queue,
}

impl<T> State<T> {
    /// Whether a receiver would not wait.
    pub(super) fn is_ready(&self, _: ()) -> bool {
        self.message.is_some() || !self.sender
    }
}

/// The sending half; made by [`channel`]. Dropping it tells the receiver that nothing will come.
pub struct Sender<T>(Arc<Locked<State<T>>>);

/// The receiving half; made by [`channel`].
pub struct Receiver<T>(Arc<Locked<State<T>>>);

/// Makes a channel for one message.
#[must_use]
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let state = State { message: None, sender: true, receiver: true, waiting: Queue::new() };
    let state = Arc::new(Locked::new(state));
    (Sender(Arc::clone(&state)), Receiver(state))
}

impl<T> Sender<T> {
    /// Sends the message, without waiting.
    ///
    /// # Errors
    /// The message, if the receiver has gone or was closed.
    ///
    /// # Examples
    /// ```
    /// let (sender, receiver) = ramie::sync::oneshot::channel();
    /// drop(receiver);
    /// assert_eq!(sender.send(1), Err(1));
    /// ```
    pub fn send(self, message: T) -> Result<(), T> {
        let mut state = self.0.lock();
        if !state.receiver {
            drop(state);
            return Err(message);
        }
        state.message = Some(message);
        let waiting = state.waiting.claim_all();
        drop(state);
        drop(waiting);
        Ok(())
    }

    /// Whether nobody would receive a message.
    pub fn is_closed(&self) -> bool {
        !self.0.lock().receiver
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.sender = false;
        let waiting = state.waiting.claim_all();
        drop(state);
        drop(waiting);
    }
}

impl<T> Receiver<T> {
    /// Waits for the message.
    ///
    /// # Errors
    /// [`RecvError`], if the sender has gone without sending.
    ///
    /// # Panics
    /// Inside [`no_suspend`](crate::no_suspend), if it has to wait.
    ///
    /// # Cancellation
    /// A cancel request ends the wait with [`RecvError`]; use `&mut` methods such as
    /// [`recv_timeout`](Self::recv_timeout) where the message is to be received later.
    pub fn recv(mut self) -> Result<T, RecvError> {
        self.recv_until(None).map_err(|_| RecvError)
    }

    /// Waits for the message, for `timeout` at most.
    ///
    /// # Errors
    /// [`RecvTimeoutError`]: `Timeout` if it has not come by then, `Disconnected` if it will not
    /// come, or has been received before.
    ///
    /// # Panics
    /// Inside [`no_suspend`](crate::no_suspend), if it has to wait.
    ///
    /// # Cancellation
    /// A cancel request ends the wait with `Disconnected`; the message can be received later.
    ///
    /// # Examples
    /// ```
    /// use ramie::sync::{mpsc::RecvTimeoutError, oneshot};
    /// use std::time::Duration;
    ///
    /// let (sender, mut receiver) = oneshot::channel();
    /// let received = receiver.recv_timeout(Duration::from_millis(1));
    /// assert_eq!(received, Err(RecvTimeoutError::Timeout));
    /// sender.send(1).unwrap();
    /// assert_eq!(receiver.recv_timeout(Duration::from_millis(1)), Ok(1));
    /// ```
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.recv_until(Some(clock::deadline_ns(timeout)))
    }

    fn recv_until(&mut self, deadline_ns: Option<u64>) -> Result<T, RecvTimeoutError> {
        let enter = |state: &mut State<T>| !state.is_ready(());
        wait_in(&self.0, |state| &mut state.waiting, deadline_ns, OnCancel::End, enter);
        self.try_recv().map_err(|error| match (error, deadline_ns) {
            (TryRecvError::Empty, Some(deadline_ns)) if clock::now_ns() >= deadline_ns => {
                RecvTimeoutError::Timeout
            }
            _ => RecvTimeoutError::Disconnected,
        })
    }

    /// Takes the message if it has come.
    ///
    /// # Errors
    /// [`TryRecvError`]: `Empty` if it may still come, `Disconnected` if it will not, or has been
    /// received before.
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        let mut state = self.0.lock();
        match state.message.take() {
            Some(message) => Ok(message),
            None if state.sender => Err(TryRecvError::Empty),
            None => Err(TryRecvError::Disconnected),
        }
    }

    /// Has the sender know that nobody waits any more: its `send` fails from now on. What has been
    /// sent before can still be received.
    pub fn close(&mut self) {
        self.0.lock().receiver = false;
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.receiver = false;
        let message = state.message.take();
        drop(state);
        drop(message);
    }
}

impl<T> Receiver<T> {
    pub(super) fn state(&self) -> &Locked<State<T>> {
        &self.0
    }

    /// For `State::is_ready`, as the other receivers.
    pub(super) fn seen(&self) {}
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
