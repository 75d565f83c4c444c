//! Arms that receive from a channel or send to one: a message passes by the claim itself.

use super::super::chan::{Channel, NotReceived, NotSent, Until};
use super::super::{mpmc, mpsc};
use super::{Arm, CHOSEN, Place, sealed};
use std::cell::{Cell, UnsafeCell};
use std::sync::mpsc::{RecvError, SendError};

/// Receives from `mpsc` or `mpmc`.
pub struct RecvArm<'a, T> {
    channel: &'a Channel<T>,
    slot: UnsafeCell<Option<T>>,
    result: Option<Result<T, RecvError>>,
}

impl<'a, T> RecvArm<'a, T> {
    fn new(channel: &'a Channel<T>) -> Self {
        Self { channel, slot: UnsafeCell::new(None), result: None }
    }
}

impl<T> sealed::Sealed for RecvArm<'_, T> {}

impl<T> Arm for RecvArm<'_, T> {
    fn look(&mut self) -> bool {
        self.result = match self.channel.recv(Until::Now) {
            Ok(message) => Some(Ok(message)),
            Err(NotReceived::Disconnected) => Some(Err(RecvError)),
            Err(NotReceived::Empty) => return false,
        };
        true
    }

    fn slot(&self) -> *mut () {
        self.slot.get().cast()
    }

    fn enter(&self, place: &Place<'_>) -> bool {
        self.channel.enter_receiving(place)
    }

    fn leave(&self, place: &Place<'_>) {
        self.channel.leave_receiving(place);
    }

    fn claimed(&mut self) -> bool {
        self.result = Some(self.slot.get_mut().take().ok_or(RecvError));
        true
    }

    fn can_end(&self) -> bool {
        true
    }

    fn end(&mut self) {
        self.result = Some(Err(RecvError));
    }
}

/// What an arm can receive from: a reference to a receiver.
pub trait Receive {
    /// Its arm.
    type Arm;
    /// Makes the arm.
    fn arm(self) -> Self::Arm;
}

impl<'a, T> Receive for &'a mpsc::Receiver<T> {
    type Arm = RecvArm<'a, T>;
    fn arm(self) -> RecvArm<'a, T> {
        RecvArm::new(self.channel())
    }
}

impl<'a, T> Receive for &'a mpmc::Receiver<T> {
    type Arm = RecvArm<'a, T>;
    fn arm(self) -> RecvArm<'a, T> {
        RecvArm::new(self.channel())
    }
}

/// The arm `recv(..)`.
pub fn recv<R: Receive>(receiver: R) -> R::Arm {
    receiver.arm()
}

/// Sends to `mpsc` or `mpmc`.
pub struct SendArm<'a, T, S> {
    channel: &'a Channel<T>,
    slot: S,
    result: Option<Result<(), SendError<T>>>,
}

/// Where an arm's message lies.
pub trait Slot<T>: sealed::Sealed {
    /// For the arm alone, or for the waker that has claimed it.
    fn place(&self) -> *mut Option<T>;
}

/// A message of the arm's own.
pub struct Own<T>(UnsafeCell<Option<T>>);

impl<T> sealed::Sealed for Own<T> {}
impl<T> Slot<T> for Own<T> {
    fn place(&self) -> *mut Option<T> {
        self.0.get()
    }
}

impl<T> sealed::Sealed for &Cell<Option<T>> {}
impl<T> Slot<T> for &Cell<Option<T>> {
    fn place(&self) -> *mut Option<T> {
        self.as_ptr()
    }
}

/// What an arm can send: a message, or a mutable reference to an `Option` of one.
pub trait Outgoing<T> {
    /// Where it lies.
    type Slot: Slot<T>;
    /// Puts it there.
    fn into_slot(self) -> Self::Slot;
}

impl<T> Outgoing<T> for T {
    type Slot = Own<T>;
    fn into_slot(self) -> Own<T> {
        Own(UnsafeCell::new(Some(self)))
    }
}

impl<'a, T> Outgoing<T> for &'a mut Option<T> {
    type Slot = &'a Cell<Option<T>>;
    fn into_slot(self) -> &'a Cell<Option<T>> {
        assert!(self.is_some(), "`select!` was to send what is in an `Option`, but it is `None`");
        Cell::from_mut(self)
    }
}

/// What an arm can send to.
pub trait Outlet<T> {
    /// The channel behind it.
    #[doc(hidden)]
    fn send_arm<S: Slot<T>>(&self, slot: S) -> SendArm<'_, T, S>;
}

macro_rules! outlet {
    ($($sender:path),*) => {$(
        impl<T> Outlet<T> for $sender {
            fn send_arm<S: Slot<T>>(&self, slot: S) -> SendArm<'_, T, S> {
                SendArm { channel: self.channel(), slot, result: None }
            }
        }
    )*};
}
outlet!(mpsc::Sender<T>, mpsc::SyncSender<T>, mpmc::Sender<T>);

/// The arm `send(..)`.
pub fn send<T, C: Outlet<T>, O: Outgoing<T>>(sender: &C, message: O) -> SendArm<'_, T, O::Slot> {
    sender.send_arm(message.into_slot())
}

impl<T, S> sealed::Sealed for SendArm<'_, T, S> {}

impl<T, S: Slot<T>> SendArm<'_, T, S> {
    fn take(&mut self) -> Option<T> {
        // SAFETY: `place` is valid while the slot is, and the arm is in no queue (invariant 3).
        unsafe { (*self.slot.place()).take() }
    }
}

impl<T, S: Slot<T>> Arm for SendArm<'_, T, S> {
    fn look(&mut self) -> bool {
        let message = self.take().expect("an arm that is not chosen keeps its message");
        match self.channel.send(message, Until::Now) {
            Ok(()) => self.result = Some(Ok(())),
            Err(NotSent::Disconnected(back)) => self.result = Some(Err(SendError(back))),
            Err(NotSent::Full(back)) => {
                // SAFETY: as in `take`.
                unsafe { *self.slot.place() = Some(back) };
                return false;
            }
        }
        true
    }

    fn slot(&self) -> *mut () {
        self.slot.place().cast()
    }

    fn enter(&self, place: &Place<'_>) -> bool {
        self.channel.enter_sending(place)
    }

    fn leave(&self, place: &Place<'_>) {
        self.channel.leave_sending(place);
    }

    fn claimed(&mut self) -> bool {
        self.result = Some(match self.take() {
            None => Ok(()),
            Some(back) => Err(SendError(back)),
        });
        true
    }

    fn can_end(&self) -> bool {
        true
    }

    fn end(&mut self) {
        let back = self.take().expect("an arm that is not chosen keeps its message");
        self.result = Some(Err(SendError(back)));
    }
}

impl<T> RecvArm<'_, T> {
    /// The result of the chosen arm.
    pub fn result(&mut self) -> Result<T, RecvError> {
        self.result.take().expect(CHOSEN)
    }
}

impl<T, S> SendArm<'_, T, S> {
    /// The result of the chosen arm.
    pub fn result(&mut self) -> Result<(), SendError<T>> {
        self.result.take().expect(CHOSEN)
    }
}
