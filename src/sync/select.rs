//! What [`select!`](crate::select) is made of: waiting for the first of several things.
//!
//! An *arm* is one of those things: receiving from a channel, sending to one, a fiber's end, a
//! point in time. [`run`] looks at all of them, from a place that moves on with each call; if none
//! can be had at once, it puts a node for each into the queue where that one waits, all with the
//! same waiter (`wait.rs`), and waits. The waker that claims the waiter by one of its nodes decides
//! which arm it is.
//!
//! Nothing is lost, by this rule: **an arm either commits at the moment it is chosen, or only
//! watches.** A message passes, in either direction, by the claim itself; in an arm that is not
//! chosen it has not been taken, or has not left. A fiber's result stays with its handle until the
//! arm is chosen. And `select!` *starts nothing*, so there is nothing that it would have to break
//! off, and no outcome that would come too late: an operation that takes part is a fiber that was
//! spawned before, and goes on when another arm is chosen, to be selected again.
//!
//! Invariants.
//! 1. While nodes are queued, no code of the user runs: no destructor, no `Clone`, no `poll`.
//! 2. `run` returns, or starts anew, only after all nodes are out of their queues, and a waker that
//!    has claimed the waiter is done.
//! 3. An arm's `slot` is what wakers expect in the queue that its `enter` uses, and is touched by
//!    nobody else between `enter` and `leave`.

use super::block;
use super::chan::{Channel, NotReceived, NotSent, Until};
use super::lock::Locked;
use super::wait::{Node, Queue, Waiter};
use super::{broadcast, mpmc, mpsc, oneshot, watch};
use crate::coro::OnCancel;
use crate::sys::clock;
use crate::time::Interval;
use std::array;
use std::cell::{Cell, UnsafeCell};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::mpsc::{RecvError, SendError};
use std::task::{Context, Poll, Wake};
use std::time::{Duration, Instant};

mod sealed {
    pub trait Sealed {}
}

/// An arm's place in a queue.
pub struct Place<'a> {
    pub(super) node: Pin<&'a Node<'a>>,
    pub(super) waiter: Pin<&'a Waiter>,
}

/// An arm without its type.
pub trait Arm: sealed::Sealed {
    /// Commits if that can be done without waiting. Returns whether it has.
    fn look(&mut self) -> bool;
    /// What a node's `slot` is to be.
    fn slot(&self) -> *mut ();
    /// Queues, unless `look` might succeed now. Returns whether it has queued.
    fn enter(&self, place: &Place<'_>) -> bool;
    /// Takes the node out if it is still in the queue.
    fn leave(&self, place: &Place<'_>);
    /// Commits after a waker has claimed the waiter by this arm's node. `false` if it turns out
    /// that there is nothing after all, which only arms that are not handed anything may say.
    fn claimed(&mut self) -> bool;
    /// When to look again.
    fn deadline_ns(&self) -> Option<u64> {
        None
    }
    /// Whether a cancel request can be answered by `end`.
    fn can_end(&self) -> bool {
        false
    }
    /// Commits because of a cancel request, or of the runtime's end.
    fn end(&mut self) {}
}

/// Where the next call of `run` begins to look.
fn turn() -> usize {
    std::thread_local! {
        static TURN: Cell<usize> = const { Cell::new(0) };
    }
    TURN.with(|turn| turn.replace(turn.get().wrapping_add(1)))
}

/// Waits for the first arm that can be had, and returns its index; with a default, does not wait,
/// and returns `None` if there is none.
pub fn run<const N: usize>(mut arms: [&mut dyn Arm; N], default: bool) -> Option<usize> {
    if !default {
        block::take_turns();
    }
    let start = turn();
    let in_turn = |offset: usize| (start % N.max(1) + offset) % N.max(1);
    loop {
        for offset in 0..N {
            let index = in_turn(offset);
            if arms[index].look() {
                return Some(index);
            }
        }
        if default {
            return None;
        }
        if let Some(index) = wait(&mut arms, in_turn) {
            return Some(index);
        }
    }
}

/// The arm that was claimed, or ended; `None` if it is time to look again.
fn wait<const N: usize>(
    arms: &mut [&mut dyn Arm; N],
    in_turn: impl Fn(usize) -> usize,
) -> Option<usize> {
    let deadline_ns = arms.iter().filter_map(|arm| arm.deadline_ns()).min();
    let can_end = arms.iter().any(|arm| arm.can_end());
    let on_cancel = if can_end { OnCancel::End } else { OnCancel::Ignore };

    let waiter = pin!(Waiter::new());
    let waiter = waiter.as_ref();
    let nodes: [Node<'_>; N] =
        array::from_fn(|index| Node::new(waiter, index + 1, arms[index].slot()));
    let nodes = pin!(nodes);
    let nodes = nodes.as_ref();
    let place = |index: usize| {
        // SAFETY: an element of a pinned array stays where the array is.
        let node = unsafe { nodes.map_unchecked(|nodes| &nodes[index]) };
        Place { node, waiter }
    };

    let mut entered = 0;
    while entered < N && arms[in_turn(entered)].enter(&place(in_turn(entered))) {
        entered += 1;
    }
    let waited = entered == N;
    let token =
        if waited { waiter.wait(deadline_ns, on_cancel) } else { waiter.withdraw() };
    for offset in 0..entered {
        arms[in_turn(offset)].leave(&place(in_turn(offset)));
    }
    if let Some(token) = token {
        return arms[token - 1].claimed().then_some(token - 1);
    }
    if !waited || deadline_ns.is_some_and(|deadline_ns| clock::now_ns() >= deadline_ns) {
        return None;
    }
    // Cancelled; or the runtime ends, and no deadline is waited for any more.
    for offset in 0..N {
        let index = in_turn(offset);
        if arms[index].look() {
            return Some(index);
        }
    }
    let index = (0..N).map(in_turn).find(|index| arms[*index].can_end());
    let index = index.or_else(|| (0..N).find(|index| arms[*index].deadline_ns() == deadline_ns));
    let index = index.filter(|index| can_end || arms[*index].deadline_ns().is_some())?;
    arms[index].end();
    Some(index)
}

// ---- Receiving and sending ----------------------------------------------------------------------

/// Receives from `mpsc` or `mpmc`.
pub struct RecvArm<'a, T> {
    channel: &'a Channel<T>,
    slot: UnsafeCell<Option<T>>,
    result: Option<Result<T, RecvError>>,
}

impl<'a, T> RecvArm<'a, T> {
    pub(super) fn new(channel: &'a Channel<T>) -> Self {
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
pub fn send<T, C: Outlet<T>, O: Outgoing<T>>(
    sender: &C,
    message: O,
) -> SendArm<'_, T, O::Slot> {
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

// ---- What is told that something has changed, and then looks ------------------------------------

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
}

/// The arm of a [`Source`].
pub struct SourceArm<S: Source> {
    source: S,
    result: Option<S::Output>,
}

impl<S: Source> SourceArm<S> {
    fn new(source: S) -> Self {
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
        self.result = self.source.ended();
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

source!(watch<T>, Result<watch::Ref<T>, RecvError>, |receiver| {
    match receiver.has_changed() {
        Ok(true) => Some(Ok(receiver.borrow_and_update())),
        Ok(false) => None,
        Err(error) => Some(Err(error)),
    }
}, Err(RecvError));

/// What a future's waker rings: it wakes the `select!` that waits for the future.
struct Bell(Locked<Rung>);

struct Rung {
    rung: bool,
    waiting: Queue,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut state = self.0.lock();
        state.rung = true;
        let waiting = state.waiting.claim_all();
        drop(state);
        drop(waiting);
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
        self.bell.0.lock().rung = false;
        let waker = Arc::clone(&self.bell).into();
        match self.future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    fn enter(&self, place: &Place<'_>) -> bool {
        let mut state = self.bell.0.lock();
        if state.rung {
            return false;
        }
        state.waiting.push(place.node);
        true
    }

    fn leave(&self, place: &Place<'_>) {
        self.bell.0.lock().waiting.remove(place.node);
    }

    fn ended(&self) -> Option<F::Output> {
        None
    }
}

/// The arm `join(..)`.
pub fn join<F: Future + Unpin>(future: &mut F) -> SourceArm<Joining<'_, F>> {
    let bell = Arc::new(Bell(Locked::new(Rung { rung: false, waiting: Queue::new() })));
    SourceArm::new(Joining { future: Pin::new(future), bell })
}

// ---- Time ---------------------------------------------------------------------------------------

/// A point in time.
pub struct TimeArm {
    deadline_ns: u64,
}

/// The arm `after(..)`.
pub fn after(duration: Duration) -> TimeArm {
    TimeArm { deadline_ns: clock::deadline_ns(duration) }
}

/// The arm `at(..)`.
pub fn at(instant: Instant) -> TimeArm {
    TimeArm { deadline_ns: clock::of_instant(instant) }
}

impl sealed::Sealed for TimeArm {}

impl Arm for TimeArm {
    fn look(&mut self) -> bool {
        clock::now_ns() >= self.deadline_ns
    }

    fn slot(&self) -> *mut () {
        std::ptr::null_mut()
    }

    fn enter(&self, _: &Place<'_>) -> bool {
        true
    }

    fn leave(&self, _: &Place<'_>) {}

    fn claimed(&mut self) -> bool {
        false
    }

    fn deadline_ns(&self) -> Option<u64> {
        Some(self.deadline_ns)
    }
}

/// The next tick of an [`Interval`].
pub struct TickArm<'a> {
    interval: &'a mut Interval,
    time: TimeArm,
}

/// The arm `tick(..)`.
pub fn tick(interval: &mut Interval) -> TickArm<'_> {
    let time = at(interval.next_tick());
    TickArm { interval, time }
}

impl sealed::Sealed for TickArm<'_> {}

impl Arm for TickArm<'_> {
    fn look(&mut self) -> bool {
        self.time.look()
    }

    fn slot(&self) -> *mut () {
        std::ptr::null_mut()
    }

    fn enter(&self, _: &Place<'_>) -> bool {
        true
    }

    fn leave(&self, _: &Place<'_>) {}

    fn claimed(&mut self) -> bool {
        false
    }

    fn deadline_ns(&self) -> Option<u64> {
        self.time.deadline_ns()
    }
}

// ---- Results ------------------------------------------------------------------------------------

const CHOSEN: &str = "the arm that was chosen has its result";

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

impl<S: Source> SourceArm<S> {
    /// The result of the chosen arm.
    pub fn result(&mut self) -> S::Output {
        self.result.take().expect(CHOSEN)
    }
}

impl TimeArm {
    /// The result of the chosen arm.
    pub fn result(&mut self) {}
}

impl TickArm<'_> {
    /// The result of the chosen arm.
    pub fn result(&mut self) -> Instant {
        self.interval.tick()
    }
}
