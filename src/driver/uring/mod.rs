//! The io_uring driver: one ring per worker.
//!
//! | file        | what                                                                        |
//! |-------------|-----------------------------------------------------------------------------|
//! | `ring.rs`   | the mapped queues and `io_uring_enter`, with every error it can give        |
//! | `setup.rs`  | creating a ring: flags, and what each refusal means                         |
//! | `encode.rs` | an op to a submission entry: the only place that fills one                  |
//! | `wait.rs`   | what is armed in the ring so that a sleeping worker can be woken            |
//!
//! `user_data` is the address of the [`Pending`](crate::coro::Pending), with one of the `TAG_`s in
//! its low three bits.

use super::{Caps, Config, SleepWord, Wait, Waker};
use crate::coro::header::Waiting;
use crate::coro::pending::PendingList;
use crate::coro::{FiberList, PendingPtr};
use io_uring::{opcode, squeue, types};
use std::io;
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;

mod encode;
mod ring;
mod setup;
mod wait;

use ring::Ring;
use wait::Arm;

pub(crate) use wait::self_test;

/// The op's own completion.
const TAG_OP: u64 = 0;
/// The completion of the request to cancel the op.
const TAG_CANCEL: u64 = 1;
/// A descriptor closed by nobody in particular.
const TAG_DETACHED: u64 = 2;
/// Somebody has woken this worker.
pub(crate) const TAG_WAKE: u64 = 3;
/// A completion that nobody waits for.
const TAG_IGNORE: u64 = 4;
const TAGS: u64 = 7;

/// Rounds of running deferred completions in one turn; more would starve the ready fibers.
const MAX_DRAINS: usize = 64;

/// See the module's head.
pub(crate) struct Uring {
    ring: Ring,
    arm: Arm,
    caps: Arc<Caps>,
    /// Ops taken over and not completed.
    in_flight: usize,
    /// Detached closes in flight.
    closing: usize,
    /// Ops that found no room in the submission queue, oldest first.
    backlog: PendingList,
    /// Ops in flight whose cancel request found no room.
    cancels: PendingList,
}

impl Uring {
    pub(super) fn new(config: &Config, word: &'static SleepWord) -> io::Result<Self> {
        let (ring, caps) = setup::create(config.ring_entries)?;
        let arm = Arm::new(config.wake, word)?;
        Ok(Self {
            ring,
            arm,
            caps,
            in_flight: 0,
            closing: 0,
            backlog: PendingList::new(),
            cancels: PendingList::new(),
        })
    }

    pub(super) fn caps(&self) -> &Arc<Caps> {
        &self.caps
    }

    pub(super) fn waker(&self) -> Waker {
        self.arm.waker(self.ring.fd())
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    #[inline]
    pub(super) fn has_events(&mut self) -> bool {
        self.ring.has_completions() || !self.ring.is_idle()
    }

    #[inline]
    pub(super) fn enqueue(&mut self, op: PendingPtr, ready: &FiberList) {
        self.in_flight += 1;
        if !self.backlog.is_empty() || !self.start(op, ready) {
            self.backlog.push(op);
        }
    }

    /// Hands one op over; `false` if there is no room.
    #[inline]
    fn start(&mut self, op: PendingPtr, ready: &FiberList) -> bool {
        // SAFETY: the op is ours since `enqueue`, and this is the only reference to it.
        let entry = encode::encode(unsafe { op.op() }).user_data(op.to_user_data() | TAG_OP);
        // SAFETY: what the entry points to outlives the op's completion: the op's fiber is suspended
        // until then (the invariant of `coro/pending.rs`).
        if unsafe { self.push(&entry, ready) } {
            op.owe();
            true
        } else {
            false
        }
    }

    /// Puts one entry into the submission queue, flushing a full one: here and nowhere else.
    ///
    /// # Safety
    /// Everything the entry points to stays valid until its completion.
    #[inline]
    unsafe fn push(&mut self, entry: &squeue::Entry, ready: &FiberList) -> bool {
        // SAFETY: the caller's promise.
        if unsafe { self.ring.push(entry) } {
            return true;
        }
        if !self.ring.submit() {
            // The kernel wants its completions taken, or is out of memory.
            self.reap(ready);
            self.ring.submit();
        }
        // SAFETY: the caller's promise.
        unsafe { self.ring.push(entry) }
    }

    pub(super) fn turn(&mut self, ready: &FiberList, wait: Wait) {
        self.work_off_lists(ready);
        let listed = !self.backlog.is_empty() || !self.cancels.is_empty();
        match wait {
            Wait::Until(timeout) if !listed => {
                let armed = match self.arm.entry() {
                    // SAFETY: what the entry points to is never freed (`Arm`).
                    Some(entry) => unsafe { self.push(&entry, ready) },
                    None => true,
                };
                if armed {
                    self.arm.set_armed();
                    self.ring.submit_and_wait(timeout);
                } else {
                    self.ring.submit();
                }
            }
            _ => {
                if !self.ring.is_idle() {
                    self.ring.submit();
                }
            }
        }
        self.reap(ready);
        for _ in 0..MAX_DRAINS {
            if !self.ring.has_deferred() {
                break;
            }
            self.ring.run_deferred();
            self.reap(ready);
        }
    }

    /// Tries again what found no room earlier.
    #[inline]
    fn work_off_lists(&mut self, ready: &FiberList) {
        while let Some(op) = self.cancels.pop() {
            if op.owes_only_one() {
                // The op itself is done meanwhile; nothing is left to cancel.
                _ = op.pay();
                self.complete(op, ready);
            } else if !self.send_cancel(op) {
                self.cancels.push_front(op);
                return;
            }
        }
        while let Some(op) = self.backlog.pop() {
            if op.cancel_sent() {
                op.set_outcome(-libc::ECANCELED);
                self.complete(op, ready);
            } else if !self.start(op, ready) {
                self.backlog.push_front(op);
                return;
            }
        }
    }

    /// Takes all completions that are there.
    #[inline]
    fn reap(&mut self, ready: &FiberList) {
        while let Some((user_data, result)) = self.ring.next_completion() {
            match user_data & TAGS {
                TAG_OP => {
                    // SAFETY: we sent it, and the op is not complete before all that is owed to it
                    // has come: this completion is one of them.
                    let op = unsafe { PendingPtr::from_user_data(user_data & !TAGS) };
                    self.op_completed(op, result, ready);
                }
                TAG_CANCEL => {
                    // SAFETY: as above.
                    let op = unsafe { PendingPtr::from_user_data(user_data & !TAGS) };
                    if op.pay() {
                        self.complete(op, ready);
                    }
                }
                TAG_DETACHED => self.closing -= 1,
                TAG_WAKE => self.arm.woken(),
                _ => {}
            }
        }
        self.ring.release_completions();
    }

    #[inline]
    fn op_completed(&mut self, op: PendingPtr, result: i32, ready: &FiberList) {
        let done = op.pay();
        if result == -libc::EAGAIN || op.polling().get() {
            return self.not_ready(op, result, done, ready);
        }
        op.set_outcome(result);
        if done {
            self.complete(op, ready);
        }
    }

    /// The descriptor is in non-blocking mode and was not ready: asks the kernel to say when it is,
    /// then tries again.
    #[cold]
    fn not_ready(&mut self, op: PendingPtr, result: i32, done: bool, ready: &FiberList) {
        let was_poll = op.polling().replace(false);
        op.set_outcome(if op.cancel_sent() { -libc::ECANCELED } else { result });
        if !done {
            return; // a cancel request is under way; its completion ends the op
        }
        // SAFETY: the op is still ours.
        let poll = encode::poll(unsafe { op.op() });
        let entry = match (was_poll, poll) {
            _ if op.cancel_sent() => None,
            // SAFETY: as above.
            (true, _) if result >= 0 => Some(encode::encode(unsafe { op.op() })),
            (true, _) => None,
            (false, poll) => {
                op.polling().set(poll.is_some());
                poll
            }
        };
        match entry {
            Some(entry) => {
                let entry = entry.user_data(op.to_user_data() | TAG_OP);
                // SAFETY: as in `start`.
                if unsafe { self.ring.push(&entry) } {
                    op.owe();
                } else {
                    // No room. The op starts afresh from the backlog.
                    op.polling().set(false);
                    self.backlog.push(op);
                }
            }
            None => self.complete(op, ready),
        }
    }

    #[inline]
    fn complete(&mut self, op: PendingPtr, ready: &FiberList) {
        self.in_flight -= 1;
        let fiber = op.fiber();
        fiber.header().waiting.set(Waiting::Nothing);
        ready.push(fiber);
    }

    pub(super) fn cancel(&mut self, op: PendingPtr) {
        // An op in the backlog owes nothing yet: it is dropped when its turn comes.
        if op.start_cancel() && op.is_owed() {
            // Owed from now on, so that the op does not complete while its request is listed.
            op.owe();
            if !self.send_cancel(op) {
                self.cancels.push(op);
            }
        }
    }

    fn send_cancel(&mut self, op: PendingPtr) -> bool {
        let entry = opcode::AsyncCancel::new(op.to_user_data() | TAG_OP)
            .build()
            .user_data(op.to_user_data() | TAG_CANCEL);
        self.push_plain(&entry)
    }

    /// Puts in an entry that points to nothing.
    fn push_plain(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: the entry points to nothing.
        if unsafe { self.ring.push(entry) } {
            return true;
        }
        // SAFETY: as above.
        self.ring.submit() && unsafe { self.ring.push(entry) }
    }

    /// Asks for everything to end, the waits for wake-ups included. Ops that are merely listed are
    /// cancelled by their fibers' flags.
    pub(super) fn cancel_all(&mut self) {
        let entry = opcode::AsyncCancel2::new(types::CancelBuilder::any().all())
            .build()
            .user_data(TAG_IGNORE);
        self.push_plain(&entry);
    }

    pub(super) fn close(&mut self, fd: OwnedFd) {
        let entry = opcode::Close::new(types::Fd(fd.as_raw_fd())).build().user_data(TAG_DETACHED);
        if self.push_plain(&entry) {
            self.closing += 1;
            _ = fd.into_raw_fd(); // the entry owns it now
        }
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // Closes that have not reached the kernel must not be lost.
        self.ring.submit();
        self.arm.disarm();
        if self.in_flight != 0 {
            // The kernel may still write through the ring's and the ops' memory.
            self.ring.leak();
        }
    }
}

#[cfg(test)]
mod tests;
