//! The io_uring driver: one ring per worker.
//!
//! | file        | what                                                                        |
//! |-------------|-----------------------------------------------------------------------------|
//! | `ring.rs`   | the mapped queues and `io_uring_enter`, with every error it can give        |
//! | `setup.rs`  | creating a ring: flags, and what each refusal means                         |
//! | `encode.rs` | an op to a submission entry: the only place that fills one                  |
//! | `wait.rs`   | what is armed in the ring so that a sleeping worker can be woken            |
//!
//! `user_data` is the address of the [`Pending`](crate::coro::Pending), or the number of a
//! descriptor that is being closed, with one of the `TAG_`s in its low three bits.

use super::{Caps, LAST_CLOSES, MAX_ENTRIES, SleepWord, Wait, WakeMethod, Waker, lower};
use crate::arch::prefetch;
use crate::coro::pending::PendingList;
use crate::coro::{FiberList, PendingPtr};
use crate::op::{Op, perform};
use io_uring::{cqueue, opcode, squeue, types};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

mod encode;
mod ring;
mod setup;
mod wait;

use ring::Ring;
use wait::Arm;

pub(crate) use setup::look;
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
/// A completion of an op that may have many ([`Op::AcceptLine`]).
const TAG_MANY: u64 = 5;
const TAGS: u64 = 7;
const TAG_BITS: u32 = TAGS.count_ones();

/// Completions taken at a time.
const BATCH: usize = 16;

/// With so many fibers ready, deferred completions wait for the next turn: as many as the kernel
/// runs at a time.
const ENOUGH: usize = 20;

/// The same if thousands are under way; see `Uring::hand_over`.
const ENOUGH_OF_MANY: usize = 64;

/// So many ops in flight and fibers ready are many.
const MANY: usize = 1024;

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
    /// Everything is to end: no op is started any more.
    ending: bool,
    /// The request to end everything found no room.
    cancel_all_due: bool,
    /// The last turn left deferred completions for this one.
    put_off: bool,
    /// Counts turns; one that waits counts as a second one from there on.
    turns: u32,
}

impl Uring {
    pub(super) fn new(
        entries: u32,
        wake: WakeMethod,
        word: &'static SleepWord,
    ) -> io::Result<Self> {
        let (ring, caps) = setup::create(entries)?;
        let arm = Arm::new(wake, word)?;
        Ok(Self {
            ring,
            arm,
            caps,
            in_flight: 0,
            closing: 0,
            backlog: PendingList::new(),
            cancels: PendingList::new(),
            ending: false,
            cancel_all_due: false,
            put_off: false,
            turns: 0,
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
    #[inline(always)]
    fn start(&mut self, op: PendingPtr, ready: &FiberList) -> bool {
        // The commonest of those that come in crowds: written straight into the queue. The others
        // are copied there, which has to wait for the stores that made them. (So would this one, if
        // the way around a full queue were handed the entry.)
        // SAFETY: the op is ours since `enqueue`, and this is the only reference to it.
        if let Op::Read { fd, buf, offset, nowait, .. } = unsafe { op.op() } {
            let entry = encode::read(fd, buf.as_mut_ptr(), buf.len(), *offset, *nowait)
                .user_data(op.to_user_data() | TAG_OP);
            // SAFETY: what the entry points to outlives the op's completion: the invariant of
            // `coro/pending.rs`.
            if unsafe { self.ring.push(&entry) } {
                op.owe();
                return true;
            }
        }
        self.start_other(op, ready)
    }

    /// As `start`, for what is no plain read, or finds the queue full.
    #[inline(never)]
    fn start_other(&mut self, op: PendingPtr, ready: &FiberList) -> bool {
        let user_data = to_user_data(op);
        // SAFETY: as in `start`.
        let filled = unsafe { op.op() };
        if let Op::Recv { turn, .. } = filled {
            *turn = self.turns;
        }
        let entry = encode::encode(filled);
        // SAFETY: as in `start`.
        if !unsafe { self.push(entry.user_data(user_data), ready) } {
            return false;
        }
        op.owe();
        if user_data & TAGS == TAG_MANY {
            // Behind it in the queue: it takes what is there, then is told to stop.
            self.cancel(op);
        }
        true
    }

    /// Puts one entry into the submission queue, flushing a full one: here and nowhere else.
    ///
    /// # Safety
    /// Everything the entry points to stays valid until its completion.
    #[inline]
    unsafe fn push(&mut self, entry: squeue::Entry, ready: &FiberList) -> bool {
        // SAFETY: the caller's promise.
        if unsafe { self.ring.push(&entry) } {
            return true;
        }
        // SAFETY: the caller's promise.
        unsafe { self.push_after_flush(entry, ready) }
    }

    /// # Safety
    /// As for `push`.
    #[cold]
    unsafe fn push_after_flush(&mut self, entry: squeue::Entry, ready: &FiberList) -> bool {
        if !self.ring.submit() {
            // The kernel wants its completions taken, or is out of memory.
            self.reap(ready);
            self.ring.submit();
        }
        // SAFETY: the caller's promise.
        unsafe { self.ring.push(&entry) }
    }

    pub(super) fn turn(&mut self, ready: &FiberList, wait: Wait) {
        self.work_off_lists(ready);
        let mut looked = true;
        let listed = !self.backlog.is_empty() || !self.cancels.is_empty() || self.cancel_all_due;
        match wait {
            Wait::Until(timeout) if !listed => {
                let armed = match self.arm.entry() {
                    // SAFETY: what the entry points to is never freed (`Arm`).
                    Some(entry) => unsafe { self.push(entry, ready) },
                    None => true,
                };
                // What comes after the wait was not there at once.
                self.turns = self.turns.wrapping_add(1);
                if armed {
                    self.arm.set_armed();
                    self.ring.submit_and_wait(timeout);
                } else {
                    self.ring.submit();
                }
            }
            _ => looked = self.hand_over(ready),
        }
        self.reap(ready);
        let enough = if self.has_many(ready) { ENOUGH_OF_MANY } else { ENOUGH };
        for _ in 0..MAX_DRAINS {
            if ready.len() >= enough || !self.ring.has_deferred() {
                break;
            }
            looked = true;
            self.ring.run_deferred();
            if self.reap(ready) == 0 {
                // Nothing came, and the flag may stay up: a waker on another CPU raises it after we
                // have run what it queued. It says nothing until something completes.
                self.ring.distrust_flag();
                break;
            }
        }
        self.put_off = !looked;
        self.turns = self.turns.wrapping_add(1);
    }

    /// Hands over what is queued, without waiting. Returns whether deferred completions were run,
    /// too.
    ///
    /// Where thousands of fibers are under way, what each of them needs is in the near caches only
    /// for a while: those that are ready are served first, with their sends, before the kernel is
    /// let loose on what others have received. But never twice in a row, so that every other turn
    /// looks. With fewer that costs more than it saves: the sooner all that have something to
    /// read are in line here, the more of their next messages are there when they ask for them,
    /// and then the kernel need not arm anything.
    #[inline]
    fn hand_over(&mut self, ready: &FiberList) -> bool {
        let enough = ready.len() + self.ring.queued() >= ENOUGH_OF_MANY;
        if enough && !self.put_off && self.has_many(ready) && self.ring.submit_only() {
            return false;
        }
        if !self.ring.is_idle() {
            self.ring.submit();
        }
        true
    }

    #[inline]
    fn has_many(&self, ready: &FiberList) -> bool {
        self.in_flight + ready.len() >= MANY
    }

    /// Tries again what found no room earlier.
    #[inline]
    fn work_off_lists(&mut self, ready: &FiberList) {
        if self.cancel_all_due {
            self.cancel_all();
        }
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
            // SAFETY: the op is ours, and the reference does not leave this line.
            let may_end = unsafe { op.op() }.can_be_refused();
            if may_end && (op.cancel_sent() || self.ending) {
                op.set_outcome(-libc::ECANCELED);
                self.complete(op, ready);
            } else if !self.start(op, ready) {
                self.backlog.push_front(op);
                return;
            }
        }
    }

    /// Takes all completions that are there, and says how many there were.
    #[inline]
    fn reap(&mut self, ready: &FiberList) -> usize {
        let mut count = 0;
        let mut batch = [const { MaybeUninit::uninit() }; BATCH];
        loop {
            let taken = self.ring.next_completions(&mut batch);
            if taken.is_empty() {
                break;
            }
            count += taken.len();
            fetch_ahead(taken);
            for entry in taken {
                self.completed(entry, ready);
            }
        }
        if count != 0 {
            self.ring.release_completions();
        }
        count
    }

    #[inline]
    fn completed(&mut self, entry: &cqueue::Entry, ready: &FiberList) {
        let (user_data, result, flags) = (entry.user_data(), entry.result(), entry.flags());
        if user_data & TAGS != TAG_OP {
            return self.other_completed(user_data, result, flags, ready);
        }
        // SAFETY: we sent it, and the op is not complete before all that is owed to it has come:
        // this completion is one of them.
        let op = unsafe { PendingPtr::from_user_data(user_data) };
        self.op_completed(op, result, flags, ready);
    }

    /// A completion of anything but a plain op.
    #[inline(never)]
    fn other_completed(&mut self, user_data: u64, result: i32, flags: u32, ready: &FiberList) {
        match user_data & TAGS {
            TAG_CANCEL => {
                // SAFETY: as in `completed`.
                let op = unsafe { PendingPtr::from_user_data(user_data & !TAGS) };
                if op.pay() {
                    self.complete(op, ready);
                }
            }
            TAG_DETACHED => self.close_completed(user_data >> TAG_BITS, result),
            TAG_WAKE => self.arm.woken(),
            TAG_MANY => {
                // SAFETY: as in `completed`.
                let op = unsafe { PendingPtr::from_user_data(user_data & !TAGS) };
                self.one_of_many(op, result, cqueue::more(flags), ready);
            }
            _ => {}
        }
    }

    #[inline]
    fn op_completed(&mut self, op: PendingPtr, result: i32, flags: u32, ready: &FiberList) {
        let done = op.pay();
        if result == -libc::EAGAIN || op.polling().get() {
            return self.not_ready(op, result, done, ready);
        }
        let result = if result == -libc::ECANCELED { self.taken_back(op) } else { result };
        op.set_outcome(result);
        if result > 0 {
            // SAFETY: the op is still ours, and the reference does not leave this line.
            let op = unsafe { op.op() };
            lower::received(op, result, cqueue::sock_nonempty(flags), self.turns);
        }
        if done {
            self.complete(op, ready);
        }
    }

    /// One completion of an op that accepts many connections; `more` if it is not the last.
    #[cold]
    fn one_of_many(&mut self, op: PendingPtr, result: i32, more: bool, ready: &FiberList) {
        // SAFETY: the op is still ours, and the reference does not leave this function.
        let Op::AcceptLine { taken, .. } = (unsafe { op.op() }) else {
            unreachable!("only such ops have this tag");
        };
        if result >= 0 {
            // SAFETY: the kernel's answer to this very op, seen by nobody else.
            taken.push(unsafe { OwnedFd::from_raw_fd(result) });
        }
        if more {
            return;
        }
        // That it was told to stop is no error, and one that comes after connections will come
        // again.
        let stopped = matches!(-result, libc::ECANCELED | libc::EAGAIN | libc::EINTR);
        op.set_outcome(if stopped || !taken.is_empty() { 0 } else { result });
        if op.pay() {
            self.complete(op, ready);
        }
    }

    /// The op was cancelled. If that was a close, which nobody asks to be, then by `cancel_all`: it
    /// is performed here, as in `close_completed`.
    #[cold]
    fn taken_back(&self, op: PendingPtr) -> i32 {
        // SAFETY: the op is still ours, and the reference does not leave this function.
        let op = unsafe { op.op() };
        if self.ending && !op.can_be_refused() { perform::perform(op) } else { -libc::ECANCELED }
    }

    /// The descriptor is in non-blocking mode and was not ready: asks the kernel to say when it is,
    /// then tries again.
    #[cold]
    fn not_ready(&mut self, op: PendingPtr, result: i32, done: bool, ready: &FiberList) {
        let was_poll = op.polling().replace(false);
        let cancelled = op.cancel_sent() || self.ending;
        op.set_outcome(if cancelled { -libc::ECANCELED } else { result });
        if !done {
            return; // a cancel request is under way; its completion ends the op
        }
        // SAFETY: the op is still ours.
        let poll = encode::poll(unsafe { op.op() });
        let entry = match (was_poll, poll) {
            _ if cancelled => None,
            // SAFETY: as above.
            (true, _) if result >= 0 => Some(encode::encode_again(unsafe { op.op() })),
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
        op.complete(ready);
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
        let entry = opcode::AsyncCancel::new(to_user_data(op))
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

    /// Asks for everything to end, the waits for wake-ups included. Ops that are merely listed, or
    /// that would be tried again, end without being started.
    pub(super) fn cancel_all(&mut self) {
        let entry = opcode::AsyncCancel2::new(types::CancelBuilder::any().all())
            .build()
            .user_data(TAG_IGNORE);
        self.ending = true;
        self.cancel_all_due = !self.push_plain(&entry);
    }

    pub(super) fn close(&mut self, fd: OwnedFd) {
        let number = fd.as_raw_fd();
        let user_data = u64::from(number.unsigned_abs()) << TAG_BITS | TAG_DETACHED;
        let entry = opcode::Close::new(types::Fd(number)).build().user_data(user_data);
        if self.push_plain(&entry) {
            self.closing += 1;
            _ = fd.into_raw_fd(); // the entry owns it now
            // At once: the other end of a pipe, or whoever wants the address, must not depend on
            // when this worker comes to its next turn. Deferred work too: an op that ran on a
            // kernel worker (every fsync, for one) leaves some behind after its completion, which
            // completes nothing and lets go of the file. `close(2)` alone would leave the file
            // held.
            self.ring.hand_over();
        }
    }

    fn close_completed(&mut self, number: u64, result: i32) {
        self.closing -= 1;
        if result == -libc::ECANCELED && self.ending {
            // The kernel had put it off (as it does where closing flushes), and `cancel_all` came
            // first: the descriptor is still open, and still ours. Without `cancel_all` the answer
            // is the file system's (a FUSE server may flush with any error), after the close; by
            // now the number may be somebody else's.
            // SAFETY: its owner gave it to `close`, and nobody has closed it since.
            drop(unsafe { OwnedFd::from_raw_fd(number as i32) });
        }
    }

    /// Waits for the closes under way: the end of the ring would cancel those that were put off,
    /// and nobody would see that. Fibers that complete meanwhile are not resumed any more.
    fn finish_closes(&mut self) {
        let start = Instant::now();
        let nobody = FiberList::default();
        self.ring.submit();
        self.reap(&nobody);
        while self.closing != 0 && start.elapsed() < LAST_CLOSES {
            self.ring.submit_and_wait(Some(LAST_CLOSES));
            self.reap(&nobody);
        }
    }
}

/// What the op's own completions carry.
#[inline]
fn to_user_data(op: PendingPtr) -> u64 {
    // SAFETY: the op is ours since `enqueue`, and the reference does not leave this line.
    let many = matches!(unsafe { op.op() }, Op::AcceptLine { .. });
    op.to_user_data() | if many { TAG_MANY } else { TAG_OP }
}

/// With many fibers in flight their stacks are out of the nearer caches. What the completions and
/// the resumes to come will touch is fetched for all of a batch at once: the op, the frames above
/// it, and those below, which the switch was left from, first; then the fiber's header, of which
/// the op knows where it is.
#[inline]
fn fetch_ahead(batch: &[cqueue::Entry]) {
    const LINE: usize = 64;
    const FRAMES: usize = 5;
    /// What `suspend` and its callers keep below the op.
    const BELOW: usize = 96;
    if batch.len() < 2 {
        return;
    }
    let ops = || batch.iter().map(cqueue::Entry::user_data).filter(|data| data & TAGS == TAG_OP);
    for user_data in ops() {
        let frames = std::ptr::without_provenance::<u8>(user_data as usize).wrapping_sub(BELOW);
        (0..FRAMES).for_each(|line| prefetch(frames.wrapping_add(line * LINE).cast()));
    }
    for user_data in ops() {
        // SAFETY: as in `completed`; the op is not complete yet.
        let op = unsafe { PendingPtr::from_user_data(user_data) };
        op.fiber().prefetch();
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        self.finish_closes();
        self.arm.disarm();
        if self.in_flight != 0 || self.closing != 0 {
            // The kernel may still write through the ring's and the ops' memory, and is to go on
            // closing.
            self.ring.leak();
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
