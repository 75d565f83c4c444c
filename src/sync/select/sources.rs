//! Arms that are told that something has changed, and then look: futures, and the channels that
//! hand nothing over.
#![forbid(unsafe_code)]

use super::super::lock::Locked;
use super::super::wait::Queue;
use super::super::{broadcast, mpsc, oneshot, watch};
use super::{Arm, CHOSEN, Place, Receive, sealed};
use crate::signal::Signals;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::RecvError;
use std::task::{Context, Poll, Wake};

/// A source of something that is not handed over by its waker.
pub trait Source: sealed::Sealed {
    /// What it gives.
    type Output;
    /// Takes it if it is there.
    fn attempt(&mut self) -> Option<Self::Output>;
    /// As [`Arm::enter`].
    fn enter(&self, place: &Place<'_>) -> bool;
    /// As [`Arm::leave`].
    fn leave(&self, place: &Place<'_>);
    /// What it gives for a cancel request, if it can.
    fn ended(&self) -> Option<Self::Output>;
    /// As `ended`, when it is chosen for that.
    fn end(&mut self) -> Option<Self::Output> {
        self.ended()
    }
}

/// The arm of a [`Source`].
pub struct SourceArm<S: Source> {
    source: S,
    result: Option<S::Output>,
}

impl<S: Source> SourceArm<S> {
    pub(super) fn new(source: S) -> Self {
        Self { source, result: None }
    }
}

impl<S: Source> sealed::Sealed for SourceArm<S> {}

impl<S: Source> Arm for SourceArm<S> {
    fn look(&mut self) -> bool {
        self.result = self.source.attempt();
        self.result.is_some()
    }

    fn slot(&self) -> *mut () {
        std::ptr::null_mut()
    }

    fn enter(&self, place: &Place<'_>) -> bool {
        self.source.enter(place)
    }

    fn leave(&self, place: &Place<'_>) {
        self.source.leave(place);
    }

    fn claimed(&mut self) -> bool {
        self.look()
    }

    fn can_end(&self) -> bool {
        self.source.ended().is_some()
    }

    fn end(&mut self) {
        self.result = self.source.end();
    }
}

macro_rules! source {
    ($receiver:ident<$t:ident $(: $bound:path)?>, $output:ty,
     $attempt:expr, $ended:expr) => {
        impl<$t $(: $bound)?> sealed::Sealed for &mut $receiver::Receiver<$t> {}
        impl<$t $(: $bound)?> Source for &mut $receiver::Receiver<$t> {
            type Output = $output;
            fn attempt(&mut self) -> Option<$output> {
                let attempt: fn(&mut $receiver::Receiver<$t>) -> Option<$output> = $attempt;
                attempt(self)
            }
            fn enter(&self, place: &Place<'_>) -> bool {
                let mut state = self.state().lock();
                if state.is_ready(self.seen()) {
                    return false;
                }
                state.waiting.push(place.node);
                true
            }
            fn leave(&self, place: &Place<'_>) {
                self.state().lock().waiting.remove(place.node);
            }
            fn ended(&self) -> Option<$output> {
                Some($ended)
            }
        }
        impl<'a, $t $(: $bound)?> Receive for &'a mut $receiver::Receiver<$t> {
            type Arm = SourceArm<Self>;
            fn arm(self) -> SourceArm<Self> {
                SourceArm::new(self)
            }
        }
    };
}

source!(oneshot<T>, Result<T, RecvError>, |receiver| {
    match receiver.try_recv() {
        Ok(message) => Some(Ok(message)),
        Err(mpsc::TryRecvError::Disconnected) => Some(Err(RecvError)),
        Err(mpsc::TryRecvError::Empty) => None,
    }
}, Err(RecvError));

source!(broadcast<T: Clone>, Result<T, broadcast::RecvError>, |receiver| {
    match receiver.try_recv() {
        Ok(message) => Some(Ok(message)),
        Err(broadcast::TryRecvError::Closed) => Some(Err(broadcast::RecvError::Closed)),
        Err(broadcast::TryRecvError::Lagged(n)) => Some(Err(broadcast::RecvError::Lagged(n))),
        Err(broadcast::TryRecvError::Empty) => None,
    }
}, Err(broadcast::RecvError::Closed));

source!(
    watch<T>,
    Result<watch::Ref<T>, RecvError>,
    |receiver| {
        match receiver.has_changed() {
            Ok(true) => Some(Ok(receiver.borrow_and_update())),
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    },
    Err(RecvError)
);

impl sealed::Sealed for &Signals {}

impl Source for &Signals {
    type Output = Result<i32, RecvError>;

    fn attempt(&mut self) -> Option<Self::Output> {
        self.try_recv().map(Ok)
    }

    fn enter(&self, place: &Place<'_>) -> bool {
        let mut state = self.state().lock();
        if !state.is_empty() {
            return false;
        }
        state.waiting.push(place.node);
        true
    }

    fn leave(&self, place: &Place<'_>) {
        self.state().lock().waiting.remove(place.node);
    }

    fn ended(&self) -> Option<Self::Output> {
        Some(Err(RecvError))
    }
}

impl Receive for &Signals {
    type Arm = SourceArm<Self>;
    fn arm(self) -> SourceArm<Self> {
        SourceArm::new(self)
    }
}

/// What a waker rings, that of a future or of a watch: it wakes the `select!` that waits.
pub(super) struct Bell(Locked<Rung>);

struct Rung {
    rung: bool,
    waiting: Queue,
}

impl Bell {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Locked::new(Rung { rung: false, waiting: Queue::new() })))
    }

    pub(super) fn ring(&self) {
        let mut state = self.0.lock();
        state.rung = true;
        let waiting = state.waiting.claim_all();
        drop(state);
        drop(waiting);
    }

    /// Forgets that it was rung: before a look at what it is rung for.
    pub(super) fn silence(&self) {
        self.0.lock().rung = false;
    }

    /// As [`Arm::enter`].
    pub(super) fn enter(&self, place: &Place<'_>) -> bool {
        let mut state = self.0.lock();
        if state.rung {
            return false;
        }
        state.waiting.push(place.node);
        true
    }

    /// As [`Arm::leave`].
    pub(super) fn leave(&self, place: &Place<'_>) {
        self.0.lock().waiting.remove(place.node);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

/// A future that is polled in place, and stays with its owner.
pub struct Joining<'a, F> {
    future: Pin<&'a mut F>,
    bell: Arc<Bell>,
}

impl<F> sealed::Sealed for Joining<'_, F> {}

impl<F: Future> Source for Joining<'_, F> {
    type Output = F::Output;

    fn attempt(&mut self) -> Option<F::Output> {
        self.bell.silence();
        let waker = Arc::clone(&self.bell).into();
        match self.future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    fn enter(&self, place: &Place<'_>) -> bool {
        self.bell.enter(place)
    }

    fn leave(&self, place: &Place<'_>) {
        self.bell.leave(place);
    }

    fn ended(&self) -> Option<F::Output> {
        None
    }
}

/// The arm `join(..)`.
pub fn join<F: Future + Unpin>(future: &mut F) -> SourceArm<Joining<'_, F>> {
    SourceArm::new(Joining { future: Pin::new(future), bell: Bell::new() })
}

impl<S: Source> SourceArm<S> {
    /// The result of the chosen arm.
    pub fn result(&mut self) -> S::Output {
        self.result.take().expect(CHOSEN)
    }
}
