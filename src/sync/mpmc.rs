//! Channels whose both ends can be cloned: each message goes to one receiver.
//!
//! As [`mpsc`](super::mpsc), with the same errors, and with what several receivers need besides.
//! Senders and receivers may be on fibers of any runtime and on plain threads, mixed freely: a
//! fiber that waits suspends, a thread blocks. Those who wait are served in the order in which they
//! came.
//!
//! # Cancellation
//! A cancel request ends a wait as if the other side had gone: `recv` fails with [`RecvError`],
//! `send` gives the message back in [`SendError`]. Such a call does not begin to wait while a
//! request is unreported, but it still takes what is there, and sends what there is room for. No
//! message is lost: a wait that has been given one, or has given its own, succeeds.
//!
//! # Differs from std
//! `std::sync::mpmc` is not stable yet. While its thread unwinds a fiber does not suspend, so a
//! wait in a destructor blocks the worker: if what it waits for is a fiber of the same worker, it
//! waits for ever. Use the `try_` functions there.
//!
//! # Examples
//! ```
//! use ramie::sync::mpmc;
//!
//! ramie::Runtime::new()?.run(|| {
//!     let (jobs, queue) = mpmc::bounded(16);
//!     let workers = [(); 4].map(|()| {
//!         let queue = queue.clone();
//!         ramie::spawn(move || queue.iter().map(|n: u64| n * n).sum::<u64>())
//!     });
//!     (1..=10).for_each(|n| jobs.send(n).unwrap());
//!     drop(jobs);
//!     let sum: u64 = workers.into_iter().map(|worker| worker.join().unwrap()).sum();
//!     assert_eq!(sum, 385);
//! });
//! # std::io::Result::Ok(())
//! ```
#![forbid(unsafe_code)]

use super::chan::{self, NotReceived, NotSent, Receiving, Sending, Until};
pub use super::mpsc::{
    RecvError, RecvTimeoutError, SendError, SendTimeoutError, TryRecvError, TrySendError,
};
use crate::sys::clock;
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::time::{Duration, Instant};

/// Makes a channel without a limit: its senders never wait.
///
/// # Examples
/// ```
/// let (sender, receiver) = ramie::sync::mpmc::unbounded();
/// let other = receiver.clone();
/// sender.send(1).unwrap();
/// sender.send(2).unwrap();
/// assert_eq!((receiver.recv(), other.recv()), (Ok(1), Ok(2)));
/// ```
#[must_use]
pub fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
    let (sending, receiving) = chan::pair(usize::MAX);
    (Sender(sending), Receiver(receiving))
}

/// Makes a channel that keeps at most `capacity` messages: senders wait for room.
///
/// With a capacity of 0, each `send` waits until its message is received. Memory is allocated as
/// messages come, not in advance.
///
/// # Examples
/// ```
/// let (sender, receiver) = ramie::sync::mpmc::bounded(1);
/// sender.send(1).unwrap();
/// assert!(sender.is_full());
/// assert_eq!(receiver.recv(), Ok(1));
/// assert!(receiver.is_empty());
/// ```
#[must_use]
pub fn bounded<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let (sending, receiving) = chan::pair(capacity);
    (Sender(sending), Receiver(receiving))
}

/// The sending side of a channel. Cloning it makes another sender of the same channel.
pub struct Sender<T>(Sending<T>);

/// The receiving side of a channel. Cloning it makes another receiver of the same channel.
pub struct Receiver<T>(Receiving<T>);

impl<T> Sender<T> {
    /// Sends a message; waits for room, or on a channel without any for a receiver.
    ///
    /// # Errors
    /// [`SendError`] with the message, if no receiver is left.
    ///
    /// # Panics
    /// Inside [`no_suspend`](crate::no_suspend), if it has to wait.
    ///
    /// # Cancellation
    /// A cancel request that comes before there is room ends the wait with [`SendError`].
    ///
    /// # Examples
    /// ```
    /// let (sender, receiver) = ramie::sync::mpmc::bounded(1);
    /// sender.send(1).unwrap();
    /// assert_eq!(receiver.recv(), Ok(1));
    /// ```
    #[inline]
    pub fn send(&self, t: T) -> Result<(), SendError<T>> {
        match self.0.send(t, Until::Forever) {
            Ok(()) => Ok(()),
            Err(NotSent::Full(t) | NotSent::Disconnected(t)) => Err(SendError(t)),
        }
    }

    /// Sends a message if that can be done without waiting: on a channel with room, or to a
    /// receiver that waits.
    ///
    /// # Errors
    /// [`TrySendError`] with the message: `Full` if there is no room, `Disconnected` if no
    /// receiver is left.
    ///
    /// # Examples
    /// ```
    /// use ramie::sync::mpmc::{TrySendError, bounded};
    ///
    /// let (sender, _receiver) = bounded(1);
    /// assert_eq!(sender.try_send(1), Ok(()));
    /// assert_eq!(sender.try_send(2), Err(TrySendError::Full(2)));
    /// ```
    #[inline]
    pub fn try_send(&self, t: T) -> Result<(), TrySendError<T>> {
        match self.0.send(t, Until::Now) {
            Ok(()) => Ok(()),
            Err(NotSent::Full(t)) => Err(TrySendError::Full(t)),
            Err(NotSent::Disconnected(t)) => Err(TrySendError::Disconnected(t)),
        }
    }

    /// As [`send`](Self::send), but waits for `timeout` at most.
    ///
    /// # Errors
    /// [`SendTimeoutError`] with the message: `Timeout` if there was no room by then,
    /// `Disconnected` if no receiver is left.
    ///
    /// # Panics
    /// Inside [`no_suspend`](crate::no_suspend), if it has to wait.
    ///
    /// # Cancellation
    /// A cancel request that comes before there is room ends the wait with `Disconnected`.
    ///
    /// # Examples
    /// ```
    /// use ramie::sync::mpmc::{SendTimeoutError, bounded};
    /// use std::time::Duration;
    ///
    /// let (sender, _receiver) = bounded(0);
    /// let sent = sender.send_timeout(1, Duration::from_millis(1));
    /// assert_eq!(sent, Err(SendTimeoutError::Timeout(1)));
    /// ```
    pub fn send_timeout(&self, t: T, timeout: Duration) -> Result<(), SendTimeoutError<T>> {
        match self.0.send_timeout(t, timeout) {
            Ok(()) => Ok(()),
            Err(NotSent::Full(t)) => Err(SendTimeoutError::Timeout(t)),
            Err(NotSent::Disconnected(t)) => Err(SendTimeoutError::Disconnected(t)),
        }
    }

    /// The number of messages in the channel.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no message in the channel; one without room is always empty.
    pub fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// Whether there is no room in the channel; one without any is always full.
    pub fn is_full(&self) -> bool {
        self.0.is_full()
    }

    /// How many messages the channel keeps; `None` if there is no limit.
    pub fn capacity(&self) -> Option<usize> {
        self.0.capacity()
    }

    /// Whether both belong to one channel.
    pub fn same_channel(&self, other: &Self) -> bool {
        self.0.same_channel(&other.0)
    }
}

impl<T> Receiver<T> {
    /// Receives the next message; waits for it while there is a sender.
    ///
    /// # Errors
    /// [`RecvError`], if there is no message and no sender is left. What was sent before the last
    /// one went is received first.
    ///
    /// # Panics
    /// Inside [`no_suspend`](crate::no_suspend), if it has to wait.
    ///
    /// # Cancellation
    /// A cancel request ends the wait with [`RecvError`].
    ///
    /// # Examples
    /// ```
    /// let (sender, receiver) = ramie::sync::mpmc::unbounded();
    /// sender.send(1).unwrap();
    /// drop(sender);
    /// assert_eq!(receiver.recv(), Ok(1));
    /// assert!(receiver.recv().is_err());
    /// ```
    #[inline]
    pub fn recv(&self) -> Result<T, RecvError> {
        self.0.recv(Until::Forever).map_err(|_| RecvError)
    }

    /// Takes the next message if there is one.
    ///
    /// # Errors
    /// [`TryRecvError`]: `Empty` if there is none, `Disconnected` if there will be none.
    ///
    /// # Examples
    /// ```
    /// use ramie::sync::mpmc::{TryRecvError, unbounded};
    ///
    /// let (sender, receiver) = unbounded::<i32>();
    /// assert_eq!(receiver.try_recv(), Err(TryRecvError::Empty));
    /// drop(sender);
    /// assert_eq!(receiver.try_recv(), Err(TryRecvError::Disconnected));
    /// ```
    #[inline]
    pub fn try_recv(&self) -> Result<T, TryRecvError> {
        self.0.recv(Until::Now).map_err(|error| match error {
            NotReceived::Empty => TryRecvError::Empty,
            NotReceived::Disconnected => TryRecvError::Disconnected,
        })
    }

    /// As [`recv`](Self::recv), but waits for `timeout` at most.
    ///
    /// # Errors
    /// [`RecvTimeoutError`]: `Timeout` if there was no message by then, `Disconnected` if there
    /// will be none.
    ///
    /// # Panics
    /// Inside [`no_suspend`](crate::no_suspend), if it has to wait.
    ///
    /// # Cancellation
    /// A cancel request ends the wait with `Disconnected`.
    ///
    /// # Examples
    /// ```
    /// use ramie::sync::mpmc::{RecvTimeoutError, unbounded};
    /// use std::time::Duration;
    ///
    /// let (_sender, receiver) = unbounded::<i32>();
    /// let received = receiver.recv_timeout(Duration::from_millis(1));
    /// assert_eq!(received, Err(RecvTimeoutError::Timeout));
    /// ```
    pub fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
        self.0.recv_timeout(timeout).map_err(timed_out)
    }

    /// As [`recv`](Self::recv), but waits until `deadline` at most.
    ///
    /// # Errors
    /// As [`recv_timeout`](Self::recv_timeout).
    ///
    /// # Panics
    /// Inside [`no_suspend`](crate::no_suspend), if it has to wait.
    ///
    /// # Cancellation
    /// As [`recv_timeout`](Self::recv_timeout).
    pub fn recv_deadline(&self, deadline: Instant) -> Result<T, RecvTimeoutError> {
        self.0.recv(Until::Deadline(clock::of_instant(deadline))).map_err(timed_out)
    }

    /// An iterator that waits for each message, and ends when no sender is left.
    ///
    /// # Examples
    /// ```
    /// let (sender, receiver) = ramie::sync::mpmc::unbounded();
    /// std::thread::spawn(move || (1..=3).for_each(|n| sender.send(n).unwrap()));
    /// assert_eq!(receiver.iter().collect::<Vec<_>>(), [1, 2, 3]);
    /// ```
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { rx: self }
    }

    /// An iterator over the messages that are there; it never waits.
    ///
    /// # Examples
    /// ```
    /// let (sender, receiver) = ramie::sync::mpmc::unbounded();
    /// sender.send(1).unwrap();
    /// assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [1]);
    /// ```
    pub fn try_iter(&self) -> TryIter<'_, T> {
        TryIter { rx: self }
    }

    /// The number of messages in the channel.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no message in the channel; one without room is always empty.
    pub fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// Whether there is no room in the channel; one without any is always full.
    pub fn is_full(&self) -> bool {
        self.0.is_full()
    }

    /// How many messages the channel keeps; `None` if there is no limit.
    pub fn capacity(&self) -> Option<usize> {
        self.0.capacity()
    }

    /// Whether both belong to one channel.
    pub fn same_channel(&self, other: &Self) -> bool {
        self.0.same_channel(&other.0)
    }
}

fn timed_out(error: NotReceived) -> RecvTimeoutError {
    match error {
        NotReceived::Empty => RecvTimeoutError::Timeout,
        NotReceived::Disconnected => RecvTimeoutError::Disconnected,
    }
}

impl<T> Sender<T> {
    /// For `select!`.
    pub(super) fn channel(&self) -> &chan::Channel<T> {
        &self.0
    }
}

impl<T> Receiver<T> {
    /// For `select!`.
    pub(super) fn channel(&self) -> &chan::Channel<T> {
        &self.0
    }
}

/// An iterator that waits for each message; made by [`Receiver::iter`].
#[derive(Debug)]
pub struct Iter<'a, T: 'a> {
    rx: &'a Receiver<T>,
}

/// An iterator over the messages that are there; made by [`Receiver::try_iter`].
#[derive(Debug)]
pub struct TryIter<'a, T: 'a> {
    rx: &'a Receiver<T>,
}

/// An iterator that owns the receiver and waits for each message.
#[derive(Debug)]
pub struct IntoIter<T> {
    rx: Receiver<T>,
}

impl<T> Iterator for Iter<'_, T> {
    type Item = T;
    #[inline]
    fn next(&mut self) -> Option<T> {
        self.rx.recv().ok()
    }
}

impl<T> Iterator for TryIter<'_, T> {
    type Item = T;
    #[inline]
    fn next(&mut self) -> Option<T> {
        self.rx.try_recv().ok()
    }
}

impl<T> Iterator for IntoIter<T> {
    type Item = T;
    #[inline]
    fn next(&mut self) -> Option<T> {
        self.rx.recv().ok()
    }
}

impl<'a, T> IntoIterator for &'a Receiver<T> {
    type Item = T;
    type IntoIter = Iter<'a, T>;
    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

impl<T> IntoIterator for Receiver<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;
    fn into_iter(self) -> IntoIter<T> {
        IntoIter { rx: self }
    }
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
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

// No code of the user runs inside an operation, so no panic leaves a channel half changed.
impl<T> UnwindSafe for Sender<T> {}
impl<T> RefUnwindSafe for Sender<T> {}
impl<T> UnwindSafe for Receiver<T> {}
impl<T> RefUnwindSafe for Receiver<T> {}
