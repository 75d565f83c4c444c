//! Channels with one receiver: [`std::sync::mpsc`] whose waits suspend.
//!
//! Names, signatures, errors and semantics are std's; the errors *are* std's. Senders and receivers
//! may be on fibers of any runtime and on plain threads, mixed freely: a fiber that waits suspends,
//! a thread blocks.
//!
//! # Cancellation
//! A cancel request ends a wait as if the other side had gone: `recv` fails with [`RecvError`],
//! `send` gives the message back in [`SendError`]. Such a call does not begin to wait while a
//! request is unreported, but it still takes what is there, and sends what there is room for. No
//! message is lost: a wait that has been given one, or has given its own, succeeds.
//!
//! # Differs from std
//! [`SyncSender::send_timeout`] and [`Receiver::recv_deadline`] are stable here. While its thread
//! unwinds a fiber does not suspend, so a wait in a destructor blocks the worker: if what it waits
//! for is a fiber of the same worker, it waits for ever. Use the `try_` functions there.
//!
//! # Examples
//! ```
//! use ramie::sync::mpsc;
//!
//! ramie::Runtime::new()?.run(|| {
//!     let (sender, receiver) = mpsc::channel();
//!     for n in 0..3 {
//!         let sender = sender.clone();
//!         ramie::spawn(move || sender.send(n));
//!     }
//!     drop(sender);
//!     assert_eq!(receiver.iter().sum::<i32>(), 3);
//! });
//! # std::io::Result::Ok(())
//! ```
#![forbid(unsafe_code)]

use super::chan::{self, NotReceived, NotSent, Receiving, Sending, Until};
use crate::sys::clock;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};
pub use std::sync::mpsc::{RecvError, RecvTimeoutError, SendError, TryRecvError, TrySendError};
use std::time::{Duration, Instant};

/// Why [`SyncSender::send_timeout`] did not send. The message comes back.
///
/// As the unstable `std::sync::mpsc::SendTimeoutError`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum SendTimeoutError<T> {
    /// There was no room before the time was over.
    Timeout(T),
    /// The receiver has gone.
    Disconnected(T),
}

impl<T> fmt::Debug for SendTimeoutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout(_) => "Timeout(..)",
            Self::Disconnected(_) => "Disconnected(..)",
        })
    }
}

impl<T> fmt::Display for SendTimeoutError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Timeout(_) => "timed out waiting on send operation",
            Self::Disconnected(_) => "sending on a disconnected channel",
        })
    }
}

impl<T> std::error::Error for SendTimeoutError<T> {}

impl<T> From<SendError<T>> for SendTimeoutError<T> {
    fn from(error: SendError<T>) -> Self {
        Self::Disconnected(error.0)
    }
}

/// Makes a channel without a limit: its senders never wait.
///
/// Messages arrive in the order in which each sender sent them. As [`std::sync::mpsc::channel`].
///
/// # Examples
/// ```
/// let (sender, receiver) = ramie::sync::mpsc::channel();
/// std::thread::spawn(move || sender.send("from a thread").unwrap());
/// assert_eq!(receiver.recv(), Ok("from a thread"));
/// assert!(receiver.recv().is_err()); // the sender has gone
/// ```
#[must_use]
pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
    let (sending, receiving) = chan::pair(usize::MAX);
    (Sender(sending), Receiver(receiving, PhantomData))
}

/// Makes a channel that keeps at most `bound` messages: senders wait for room.
///
/// With a bound of 0, each `send` waits until its message is received. As
/// [`std::sync::mpsc::sync_channel`]. Memory is allocated as messages come, not in advance.
///
/// # Examples
/// ```
/// ramie::Runtime::new()?.run(|| {
///     let (sender, receiver) = ramie::sync::mpsc::sync_channel(1);
///     let fiber = ramie::spawn(move || {
///         sender.send(1).unwrap();
///         sender.send(2).unwrap(); // waits until the 1 is received
///     });
///     assert_eq!(receiver.recv(), Ok(1));
///     assert_eq!(receiver.recv(), Ok(2));
///     fiber.join().unwrap();
/// });
/// # std::io::Result::Ok(())
/// ```
#[must_use]
pub fn sync_channel<T>(bound: usize) -> (SyncSender<T>, Receiver<T>) {
    let (sending, receiving) = chan::pair(bound);
    (SyncSender(sending), Receiver(receiving, PhantomData))
}

/// The sending side of [`channel`]. Cloning it makes another sender of the same channel.
pub struct Sender<T>(Sending<T>);

/// The sending side of [`sync_channel`]. Cloning it makes another sender of the same channel.
pub struct SyncSender<T>(Sending<T>);

/// The receiving side of [`channel`] and [`sync_channel`]. For one thread or fiber at a time.
pub struct Receiver<T>(Receiving<T>, PhantomData<Cell<()>>);

impl<T> Sender<T> {
    /// Sends a message, without waiting.
    ///
    /// `Ok` does not mean that it will be received: the receiver may go before.
    ///
    /// # Errors
    /// [`SendError`] with the message, if the receiver has gone.
    ///
    /// # Examples
    /// ```
    /// let (sender, receiver) = ramie::sync::mpsc::channel();
    /// sender.send(1).unwrap();
    /// drop(receiver);
    /// assert_eq!(sender.send(2).unwrap_err().0, 2);
    /// ```
    #[inline]
    pub fn send(&self, t: T) -> Result<(), SendError<T>> {
        match self.0.send(t, Until::Now) {
            Ok(()) => Ok(()),
            Err(NotSent::Full(t) | NotSent::Disconnected(t)) => Err(SendError(t)),
        }
    }
}

impl<T> SyncSender<T> {
    /// Sends a message; waits for room, or on a channel without any for the receiver.
    ///
    /// # Errors
    /// [`SendError`] with the message, if the receiver has gone, or goes meanwhile.
    ///
    /// # Panics
    /// Inside [`no_suspend`](crate::no_suspend), if it has to wait.
    ///
    /// # Cancellation
    /// A cancel request that comes before there is room ends the wait with [`SendError`].
    ///
    /// # Examples
    /// ```
    /// let (sender, receiver) = ramie::sync::mpsc::sync_channel(1);
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
    /// [`TrySendError`] with the message: `Full` if there is no room, `Disconnected` if the
    /// receiver has gone.
    ///
    /// # Examples
    /// ```
    /// use ramie::sync::mpsc::{TrySendError, sync_channel};
    ///
    /// let (sender, _receiver) = sync_channel(1);
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
    /// `Disconnected` if the receiver has gone.
    ///
    /// # Panics
    /// Inside [`no_suspend`](crate::no_suspend), if it has to wait.
    ///
    /// # Cancellation
    /// A cancel request that comes before there is room ends the wait with `Disconnected`.
    ///
    /// # Examples
    /// ```
    /// use ramie::sync::mpsc::{SendTimeoutError, sync_channel};
    /// use std::time::Duration;
    ///
    /// let (sender, _receiver) = sync_channel(0);
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
    /// let (sender, receiver) = ramie::sync::mpsc::channel();
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
    /// use ramie::sync::mpsc::{TryRecvError, channel};
    ///
    /// let (sender, receiver) = channel::<i32>();
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
    /// use ramie::sync::mpsc::{RecvTimeoutError, channel};
    /// use std::time::Duration;
    ///
    /// let (_sender, receiver) = channel::<i32>();
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
    /// let (sender, receiver) = ramie::sync::mpsc::channel();
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
    /// let (sender, receiver) = ramie::sync::mpsc::channel();
    /// sender.send(1).unwrap();
    /// assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [1]);
    /// ```
    pub fn try_iter(&self) -> TryIter<'_, T> {
        TryIter { rx: self }
    }
}

impl<T> Sender<T> {
    /// For `select!`.
    pub(super) fn channel(&self) -> &chan::Channel<T> {
        &self.0
    }
}

impl<T> SyncSender<T> {
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

fn timed_out(error: NotReceived) -> RecvTimeoutError {
    match error {
        NotReceived::Empty => RecvTimeoutError::Timeout,
        NotReceived::Disconnected => RecvTimeoutError::Disconnected,
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

impl<T> Clone for SyncSender<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for SyncSender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncSender").finish_non_exhaustive()
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
impl<T> UnwindSafe for SyncSender<T> {}
impl<T> RefUnwindSafe for SyncSender<T> {}
impl<T> UnwindSafe for Receiver<T> {}
impl<T> RefUnwindSafe for Receiver<T> {}
