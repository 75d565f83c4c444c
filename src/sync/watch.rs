//! A value that others watch: receivers see its latest version, and learn that there is a new one.
//!
//! Versions in between may go unseen. Reading takes a snapshot, so neither side ever waits for the
//! other. The ends may be on fibers of any runtime and on plain threads.
//!
//! # Cancellation
//! A cancel request ends a wait as if the senders had gone.
//!
//! # Examples
//! ```
//! use ramie::sync::watch;
//!
//! ramie::Runtime::new()?.run(|| {
//!     let (sender, mut receiver) = watch::channel(1);
//!     let fiber = ramie::spawn(move || {
//!         receiver.changed().unwrap();
//!         *receiver.borrow_and_update()
//!     });
//!     sender.send(2).unwrap();
//!     assert_eq!(fiber.join().unwrap(), 2);
//! });
//! # std::io::Result::Ok(())
//! ```
#![forbid(unsafe_code)]

use super::lock::Locked;
pub use super::mpsc::{RecvError, SendError};
use super::wait::{Queue, Waited, wait_in};
use crate::coro::OnCancel;
use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

pub(super) struct State<T> {
    value: Arc<T>,
    /// How often it has been replaced.
    version: u64,
    senders: usize,
    receivers: usize,
    /// Somebody makes a new value of the old one.
    changing: bool,
    /// Those who want to do so, too.
    changers: Queue,
    pub(super) waiting: Queue,
}

impl<T> State<T> {
    /// Whether a receiver that has seen `version` would not wait.
    pub(super) fn is_ready(&self, version: u64) -> bool {
        self.version != version || self.senders == 0
    }
}

type Shared<T> = Arc<Locked<State<T>>>;

/// The sending side; made by [`channel`]. Cloning it makes another sender of the same channel.
pub struct Sender<T>(Shared<T>);

/// The receiving side; made by [`channel`] and [`Sender::subscribe`]. A clone has seen what this
/// one has.
pub struct Receiver<T> {
    state: Shared<T>,
    /// The version that was seen last.
    version: u64,
}

/// A version of the value, which stays as it is while this is kept.
pub struct Ref<T>(Arc<T>);

impl<T> Deref for Ref<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: fmt::Debug> fmt::Debug for Ref<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Makes a channel that holds `value`, which its receiver has seen.
#[must_use]
pub fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let state = State {
        value: Arc::new(value),
        version: 0,
        senders: 1,
        receivers: 1,
        changing: false,
        changers: Queue::new(),
        waiting: Queue::new(),
    };
    let state = Arc::new(Locked::new(state));
    (Sender(Arc::clone(&state)), Receiver { state, version: 0 })
}

/// The right to replace the value.
struct Turn<'a, T>(&'a Sender<T>);

impl<'a, T> Turn<'a, T> {
    fn take(sender: &'a Sender<T>) -> Self {
        let enter = |state: &mut State<T>| std::mem::replace(&mut state.changing, true);
        let mut turn = Waited::GaveUp;
        while turn == Waited::GaveUp {
            // One that is woken has been given the turn.
            turn = wait_in(&sender.0, |state| &mut state.changers, None, OnCancel::Ignore, enter);
        }
        Self(sender)
    }

    /// Puts in a new value, and returns the old one.
    fn replace(&self, value: T) -> Arc<T> {
        let mut state = self.0.0.lock();
        let old = std::mem::replace(&mut state.value, Arc::new(value));
        state.version += 1;
        let waiting = state.waiting.claim_all();
        drop(state);
        drop(waiting);
        old
    }
}

impl<T> Drop for Turn<'_, T> {
    fn drop(&mut self) {
        let mut state = self.0.0.lock();
        let next = state.changers.claim_first();
        state.changing = next.is_some();
        drop(state);
        drop(next);
    }
}

impl<T> Sender<T> {
    /// Replaces the value, and wakes all who wait for a change. Waits only while another sender is
    /// inside [`send_modify`](Self::send_modify).
    ///
    /// # Errors
    /// [`SendError`] with the value, if there is no receiver; then nothing changes.
    pub fn send(&self, value: T) -> Result<(), SendError<T>> {
        if self.is_closed() {
            return Err(SendError(value));
        }
        drop(self.send_replace(value));
        Ok(())
    }

    /// As [`send`](Self::send), also if there is no receiver. Returns the old value.
    pub fn send_replace(&self, value: T) -> Ref<T> {
        Ref(Turn::take(self).replace(value))
    }

    /// The current value.
    pub fn borrow(&self) -> Ref<T> {
        Ref(Arc::clone(&self.0.lock().value))
    }

    /// Makes a receiver that has seen the current value.
    pub fn subscribe(&self) -> Receiver<T> {
        let mut state = self.0.lock();
        state.receivers += 1;
        Receiver { version: state.version, state: Arc::clone(&self.0) }
    }

    /// The number of receivers.
    pub fn receiver_count(&self) -> usize {
        self.0.lock().receivers
    }

    /// Whether there is no receiver.
    pub fn is_closed(&self) -> bool {
        self.receiver_count() == 0
    }
}

impl<T: Clone> Sender<T> {
    /// Changes a copy of the value, and has it take the value's place. Changes come one after the
    /// other; if `f` panics, nothing changes.
    ///
    /// # Examples
    /// ```
    /// let (sender, receiver) = ramie::sync::watch::channel(vec![1]);
    /// sender.send_modify(|list| list.push(2));
    /// assert_eq!(*receiver.borrow(), [1, 2]);
    /// ```
    pub fn send_modify(&self, f: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            f(value);
            true
        });
    }

    /// As [`send_modify`](Self::send_modify), but only if `f` returns `true`; otherwise nothing
    /// changes. Returns what `f` returned.
    pub fn send_if_modified(&self, f: impl FnOnce(&mut T) -> bool) -> bool {
        let turn = Turn::take(self);
        let mut value = T::clone(&self.borrow());
        let changed = f(&mut value);
        if changed {
            drop(turn.replace(value));
        }
        changed
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
    /// The current value, which does not count as seen by this.
    pub fn borrow(&self) -> Ref<T> {
        Ref(Arc::clone(&self.state.lock().value))
    }

    /// The current value, which counts as seen.
    pub fn borrow_and_update(&mut self) -> Ref<T> {
        let state = self.state.lock();
        self.version = state.version;
        Ref(Arc::clone(&state.value))
    }

    /// Whether there is a version that has not been seen.
    ///
    /// # Errors
    /// [`RecvError`], if all have been seen and no sender is left.
    pub fn has_changed(&self) -> Result<bool, RecvError> {
        let state = self.state.lock();
        let changed = state.version != self.version;
        if !changed && state.senders == 0 { Err(RecvError) } else { Ok(changed) }
    }

    /// Waits for a version that has not been seen, which counts as seen from then on.
    ///
    /// # Errors
    /// [`RecvError`], if all have been seen and no sender is left.
    ///
    /// # Panics
    /// Inside [`no_suspend`](crate::no_suspend), if it has to wait.
    ///
    /// # Cancellation
    /// A cancel request ends the wait with [`RecvError`].
    pub fn changed(&mut self) -> Result<(), RecvError> {
        let version = self.version;
        let enter = |state: &mut State<T>| !state.is_ready(version);
        wait_in(&self.state, |state| &mut state.waiting, None, OnCancel::End, enter);
        match self.has_changed() {
            Ok(true) => {
                self.borrow_and_update();
                Ok(())
            }
            _ => Err(RecvError),
        }
    }

    /// Waits until the value is as `wanted` says, which may be at once, and returns it. It counts
    /// as seen.
    ///
    /// # Errors
    /// [`RecvError`], if it is not and no sender is left.
    ///
    /// # Panics
    /// As [`changed`](Self::changed).
    ///
    /// # Cancellation
    /// As [`changed`](Self::changed).
    pub fn wait_for(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Result<Ref<T>, RecvError> {
        loop {
            let value = self.borrow_and_update();
            if wanted(&value) {
                return Ok(value);
            }
            self.changed()?;
        }
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.state.lock().receivers += 1;
        Self { state: Arc::clone(&self.state), version: self.version }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.state.lock().receivers -= 1;
    }
}

impl<T> Receiver<T> {
    pub(super) fn state(&self) -> &Locked<State<T>> {
        &self.state
    }

    /// What it has seen, for `State::is_ready`.
    pub(super) fn seen(&self) -> u64 {
        self.version
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
