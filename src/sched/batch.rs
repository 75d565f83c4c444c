//! Many ops of one fiber, in flight at the same time.
//!
//! An op of a batch lies on the heap, where it stays until the driver is done with it; the driver
//! then lists it in the batch's [`Group`] instead of making a fiber ready.
//!
//! Invariants.
//! 1. A batch is used by the fiber that made it, or by the thread: its ops are in one driver.
//! 2. What a batch's ops borrow lives for `'env`, and whoever makes a batch calls
//!    [`Batch::finish`] before that ends: [`with_batch`] sees to that. The op of a [`Watch`], whose
//!    drop does it, borrows nothing but a descriptor's number, so that one may be forgotten.
//! 3. An op that is in flight is not touched by the batch. It is in flight from `enqueue` until it
//!    is in the group's list.
//!
//! On a plain thread there is no driver: ops are performed by `next`, when `poll` says so.

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr::NonNull;
use std::task::Waker;
use std::time::Duration;

use super::{Worker, blocking, cancel, current, submit, waiting};
use crate::coro::pending::Group;
use crate::coro::{OnCancel, Pending, PendingPtr};
use crate::driver::lower::{self, Route};
use crate::driver::{self, TO_POOL, TO_WAITERS, Wait};
use crate::op::{Op, decode, perform};
use crate::sys::socket::{SockAddr, poll_many};
use crate::sys::{clock, file};

/// See the module's head.
pub(crate) struct Batch<'env> {
    /// Where the driver lists what it is done with: from `Box::leak`, freed at the end.
    group: NonNull<Group>,
    /// The ops that are not done, by their keys.
    armed: Vec<Armed<'env>>,
    /// What was done without a driver.
    done: VecDeque<Done<'env>>,
    /// The fiber whose batch it is.
    owner: Option<u64>,
    /// Nobody asks for results any more.
    ends: bool,
    next_key: u64,
    _invariant: PhantomData<&'env mut &'env ()>,
}

struct Armed<'env> {
    key: u64,
    pending: State<'env>,
    /// What an `Accept` writes to, to be freed with it.
    addr: Option<NonNull<SockAddr>>,
}

enum State<'env> {
    /// With the driver.
    InFlight(NonNull<Pending<'env>>),
    /// To be performed by a thread, after a `poll` if so told.
    Listed(Op<'env>, bool),
}

/// One op that is done, with what it borrowed.
pub(crate) struct Done<'env> {
    pub(crate) key: u64,
    pub(crate) result: io::Result<u32>,
    pub(crate) op: Op<'env>,
    /// The new descriptor that the op gave.
    pub(crate) fd: Option<OwnedFd>,
}

/// Why [`Batch::next`] has nothing.
pub(crate) enum Nothing {
    /// There is nothing armed.
    Empty,
    /// The deadline has come.
    Late,
    /// The fiber is asked to end; this is reported.
    Cancelled(io::Error),
}

/// Dropped only by a panic while a batch ends: what its ops borrow must not be left to them.
struct Stays;

impl Drop for Stays {
    fn drop(&mut self) {
        eprintln!("ramie: a panic while operations of a batch may be in flight, aborting");
        std::process::abort();
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        // Nothing is in flight after `finish`, and `armed` is empty.
        // SAFETY: from `Box::leak`, and no op of the group is left.
        drop(unsafe { Box::from_raw(self.group.as_ptr()) });
    }
}

fn owner() -> Option<u64> {
    current::fiber().map(|(_, fiber)| fiber.header().id)
}

/// Calls `f` with a batch, and waits for all its ops before it returns or unwinds.
pub(crate) fn with_batch<'env, T>(f: impl FnOnce(&mut Batch<'env>) -> T) -> T {
    let mut batch = Batch::new(None);
    let result = catch_unwind(AssertUnwindSafe(|| f(&mut batch)));
    batch.finish();
    result.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Performs an op that waits for readiness, for a caller whom `poll` has just told that there is no
/// need to. It fails with `WouldBlock`, having done nothing, if somebody else was faster; a thread,
/// which nothing can call back, waits then.
pub(crate) fn at_once(mut op: Op<'_>) -> Done<'_> {
    // In a `no_suspend` section a ring can be entered, too, and nothing else comes back at once.
    let route = |worker: &Worker| lower::route(&op, worker.caps());
    let found = current::fiber().map(|(worker, _)| route(worker)).filter(|route| {
        current::can_suspend() || (current::must_not_suspend() && *route == Route::Driver)
    });
    let mut done = with_batch(|batch| {
        let key = batch.new_key();
        match found {
            None => {
                let result = perform::perform(&mut op);
                batch.finished(key, result, op, None);
            }
            Some(Route::Readiness) => {
                let result = waiting(|| driver::perform_ready(&mut op));
                batch.finished(key, result.unwrap_or(-libc::EAGAIN), op, None);
            }
            Some(_) => {
                // The kernel tries it before it comes to the request to end it.
                batch.arm(op);
                batch.finish();
            }
        }
        batch.done.pop_front().expect("it has ended")
    });
    if matches!(&done.result, Err(error) if error.raw_os_error() == Some(libc::ECANCELED)) {
        done.result = Err(io::ErrorKind::WouldBlock.into());
    }
    done
}

/// A descriptor that is watched while its fiber goes on; whoever waits for it is told by a waker.
///
/// When it is dropped, it waits for the driver to let go.
pub(crate) struct Watch<'fd>(Batch<'fd>);

impl<'fd> Watch<'fd> {
    /// To be called on a fiber that may suspend.
    pub(crate) fn new(fd: BorrowedFd<'fd>, events: i16, waker: Waker) -> Self {
        let mut batch = Batch::new(Some(waker.clone()));
        batch.arm(Op::Poll { fd, events });
        if !batch.done.is_empty() {
            waker.wake(); // the driver was not needed
        }
        Self(batch)
    }

    /// Why the waker was woken: the descriptor is ready, or an error. `None` if it was not.
    pub(crate) fn answer(&mut self) -> Option<io::Result<u32>> {
        self.0.check_owner();
        self.0.collect();
        self.0.done.pop_front().map(|done| done.result)
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.0.finish();
    }
}

impl<'env> Batch<'env> {
    fn new(waker: Option<Waker>) -> Self {
        Self {
            group: NonNull::from(Box::leak(Box::new(Group::new(waker)))),
            armed: Vec::new(),
            done: VecDeque::new(),
            owner: owner(),
            ends: false,
            next_key: 0,
            _invariant: PhantomData,
        }
    }

    /// Starts an op, and returns the key that tells it from the batch's others.
    ///
    /// # Panics
    /// If the batch is somebody else's.
    pub(crate) fn arm(&mut self, op: Op<'env>) -> u64 {
        self.start(op, None)
    }

    /// Starts an `Accept` that keeps the address to itself.
    pub(crate) fn arm_accept(&mut self, fd: BorrowedFd<'env>, flags: i32) -> u64 {
        let addr = NonNull::from(Box::leak(Box::new(SockAddr::unknown())));
        // SAFETY: it is freed after the op is done and dropped (`finished`), and nobody else uses
        // it.
        let borrowed = unsafe { &mut *addr.as_ptr() };
        self.start(Op::Accept { fd, addr: borrowed, flags }, Some(addr))
    }

    fn start(&mut self, mut op: Op<'env>, addr: Option<NonNull<SockAddr>>) -> u64 {
        self.check_owner();
        let key = self.new_key();
        let Some((worker, _)) = current::fiber() else {
            let polls = may_wait(&op);
            self.armed.push(Armed { key, pending: State::Listed(op, polls), addr });
            return key;
        };
        let result = match lower::route(&op, worker.caps()) {
            _ if worker.is_draining() => -libc::ECANCELED,
            Route::Readiness if lower::is_stored(&op) => blocking(|| perform::perform(&mut op)),
            // It fails at once, but nothing would ever call it ready.
            Route::Readiness if !may_wait(&op) => perform::perform(&mut op),
            Route::Driver | Route::Readiness => {
                self.hand_over(key, op, addr);
                return key;
            }
            Route::Now => perform::perform(&mut op),
            Route::Pool => blocking(|| perform::perform(&mut op)),
        };
        self.finished(key, result, op, addr);
        key
    }

    /// Gives an op to the driver.
    fn hand_over(&mut self, key: u64, op: Op<'env>, addr: Option<NonNull<SockAddr>>) {
        let (worker, fiber) = current::fiber().expect("the batch is a fiber's");
        let pending = Box::leak(Box::new(Pending::of_group(op, fiber, self.group, key)));
        let pending = NonNull::from(pending);
        // SAFETY: it stays where it is, untouched, until it is done (invariant 3), and what it
        // borrows does until then (invariant 2).
        worker.enqueue(unsafe { PendingPtr::of_group(pending) });
        self.armed.push(Armed { key, pending: State::InFlight(pending), addr });
    }

    /// A key that no op has.
    pub(crate) fn new_key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key
    }

    /// How many ops are armed, or done and not taken.
    pub(crate) fn len(&self) -> usize {
        self.armed.len() + self.done.len()
    }

    fn check_owner(&self) {
        assert!(
            self.owner == owner(),
            "a batch of I/O is for the fiber (or plain thread) that called `io::batch`"
        );
    }

    /// Takes what is done first; waits for it, until `deadline_ns` at most.
    pub(crate) fn next(&mut self, deadline_ns: Option<u64>) -> Result<Done<'env>, Nothing> {
        self.check_owner();
        loop {
            self.collect();
            if let Some(done) = self.done.pop_front() {
                return Ok(done);
            }
            if self.armed.is_empty() && deadline_ns.is_none() {
                return Err(Nothing::Empty);
            }
            cancel::check().map_err(Nothing::Cancelled)?;
            if deadline_ns.is_some_and(|deadline_ns| deadline_ns <= clock::now_ns()) {
                return Err(Nothing::Late);
            }
            _ = current::suspendable(); // panics where the fiber must not wait
            self.wait(deadline_ns, OnCancel::End);
        }
    }

    /// Asks for an op to end; whether there is one with that key that was not done.
    pub(crate) fn cancel(&mut self, key: u64) -> bool {
        self.check_owner();
        self.collect();
        let Some(at) = self.armed.iter().position(|armed| armed.key == key) else { return false };
        self.cancel_at(at);
        true
    }

    pub(crate) fn cancel_all(&mut self) {
        self.check_owner();
        self.collect();
        for at in (0..self.armed.len()).rev() {
            self.cancel_at(at);
        }
    }

    fn cancel_at(&mut self, at: usize) {
        match &self.armed[at].pending {
            State::InFlight(pending) => {
                let (worker, _) = current::fiber().expect("the batch is a fiber's");
                // SAFETY: in flight, as `collect` has found; the rest as in `start`.
                worker.cancel_op(unsafe { PendingPtr::of_group(*pending) });
            }
            State::Listed(..) => {
                let Armed { key, pending: State::Listed(op, _), addr } = self.armed.swap_remove(at)
                else {
                    unreachable!("it was listed a line above");
                };
                self.finished(key, -libc::ECANCELED, op, addr);
            }
        }
    }

    fn group(&self) -> &Group {
        // SAFETY: there until the batch is dropped.
        unsafe { self.group.as_ref() }
    }

    /// Ends everything and waits until it has ended.
    fn finish(&mut self) {
        let stays = Stays;
        self.ends = true;
        self.cancel_all();
        while !self.armed.is_empty() {
            self.wait(None, OnCancel::Ignore);
            self.collect();
        }
        std::mem::forget(stays);
    }

    /// Takes what the driver is done with.
    fn collect(&mut self) {
        while let Some(op) = self.group().done().pop() {
            let key = op.key();
            let at = self.armed.iter().position(|armed| armed.key == key).expect("it was armed");
            let Armed { pending: State::InFlight(pending), addr, .. } = self.armed.swap_remove(at)
            else {
                unreachable!("the driver has only what is in flight");
            };
            // SAFETY: from `Box::leak`, and the driver is done with it (invariant 3).
            let pending = *unsafe { Box::from_raw(pending.as_ptr()) };
            let (result, cancelled) = (submit::outcome(&pending), pending.cancel_sent());
            let mut op = pending.into_op();
            let result = match result {
                // Nothing has happened, and nothing is to happen any more.
                TO_POOL | TO_WAITERS if cancelled || self.ends => -libc::ECANCELED,
                TO_POOL => blocking(|| perform::perform(&mut op)),
                TO_WAITERS => match waiting(|| driver::perform_ready(&mut op)) {
                    Some(result) => result,
                    // Somebody else was faster.
                    None => {
                        self.hand_over(key, op, addr);
                        continue;
                    }
                },
                result => result,
            };
            self.finished(key, result, op, addr);
        }
    }

    fn finished(
        &mut self,
        key: u64,
        result: i32,
        mut op: Op<'env>,
        addr: Option<NonNull<SockAddr>>,
    ) {
        let mut fd = None;
        if result >= 0 && op.gives_descriptor() {
            // SAFETY: the kernel's answer to this very op, seen by nobody else.
            fd = Some(unsafe { OwnedFd::from_raw_fd(result) });
        }
        if let Some(addr) = addr {
            op = Op::Nop;
            // SAFETY: from `Box::leak` in `arm_accept`; the op that borrowed it is gone.
            drop(unsafe { Box::from_raw(addr.as_ptr()) });
        }
        self.done.push_back(Done { key, result: decode::decode(result), op, fd });
    }

    /// Waits until something may be done.
    fn wait(&mut self, deadline_ns: Option<u64>, on_cancel: OnCancel) {
        let Some((worker, _)) = current::fiber() else {
            return self.wait_on_thread(deadline_ns);
        };
        if current::can_suspend() {
            self.group().signal().take();
            if self.group().done().is_empty() {
                submit::wait(self.group().signal(), deadline_ns, on_cancel);
            }
        } else {
            self.wait_unwinding(worker, deadline_ns);
        }
    }

    /// The fiber must not be left, even if that is forbidden only by `no_suspend` and the batch
    /// ends there, and nobody else would look at the driver.
    #[cold]
    fn wait_unwinding(&self, worker: &Worker, deadline_ns: Option<u64>) {
        while self.group().done().is_empty() {
            let left = deadline_ns.map(|end| end.saturating_sub(clock::now_ns()));
            if left == Some(0) {
                return;
            }
            // What needs no waiting first.
            worker.turn(Wait::No);
            if self.group().done().is_empty() {
                worker.turn(Wait::Until(left.map(Duration::from_nanos)));
            }
        }
    }

    /// Performs one op that `poll` says is ready.
    fn wait_on_thread(&mut self, deadline_ns: Option<u64>) {
        let end_ns = cancel::end_of_wait(deadline_ns, OnCancel::End);
        let at_once = self.armed.iter().position(|armed| ready_when(armed).is_none());
        let at = at_once.or_else(|| {
            let left = end_ns.map(|end| end.saturating_sub(clock::now_ns()));
            let fds: Vec<_> = self.armed.iter().filter_map(ready_when).collect();
            poll_many(&fds, left.map(Duration::from_nanos))
        });
        let Some(at) = at else { return };
        let Armed { key, pending: State::Listed(mut op, polls), addr } = self.armed.swap_remove(at)
        else {
            unreachable!("a thread's ops are listed");
        };
        let result = perform::perform(&mut op);
        if result == -libc::EAGAIN && polls {
            // In non-blocking mode, and somebody else was faster.
            self.armed.push(Armed { key, pending: State::Listed(op, polls), addr });
        } else {
            self.finished(key, result, op, addr);
        }
    }
}

/// Whether there is something that `poll` can say of an op.
fn may_wait(op: &Op<'_>) -> bool {
    op.readiness()
        .is_some_and(|(fd, events)| matches!(op, Op::Poll { .. }) || file::is_open_for(fd, events))
}

fn ready_when<'a>(armed: &'a Armed<'_>) -> Option<(BorrowedFd<'a>, i16)> {
    match &armed.pending {
        State::Listed(op, true) => op.readiness(),
        State::Listed(_, false) | State::InFlight(_) => None,
    }
}

#[cfg(all(test, not(miri), not(loom)))]
mod tests {
    use super::*;
    use crate::op::AT_POSITION;
    use std::io::{ErrorKind, Write, pipe};
    use std::os::fd::AsFd;

    /// Neither where the fiber could suspend nor where it must not.
    #[test]
    fn at_once_does_not_wait() {
        let Ok(rt) = crate::Runtime::builder().driver(crate::DriverKind::Uring).build() else {
            return;
        };
        rt.run(|| {
            let (reader, mut writer) = pipe().unwrap();
            let read = || {
                let mut buf = [0; 4];
                let (fd, offset) = (reader.as_fd(), AT_POSITION);
                let op = Op::Read { fd, buf: &mut buf, offset, habit: None, nowait: false };
                let (worker, _) = current::fiber().unwrap();
                if lower::route(&op, worker.caps()) == Route::Driver {
                    at_once(op).result
                } else {
                    Err(ErrorKind::WouldBlock.into())
                }
            };
            for _ in 0..2 {
                assert_eq!(read().unwrap_err().kind(), ErrorKind::WouldBlock);
                let refused = crate::no_suspend(read).unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::WouldBlock);
            }
            writer.write_all(b"1234").unwrap();
            // An older kernel may leave it to a thread of its own, and then it may be taken back.
            if let Ok(n) = crate::no_suspend(read) {
                assert_eq!(n, 4);
            }
        });
    }
}
