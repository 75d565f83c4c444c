//! The poll driver: for systems that refuse io_uring.
//!
//! | file         | what                                                                       |
//! |--------------|----------------------------------------------------------------------------|
//! | `attempt.rs` | an op without waiting, or on a thread once it is ready                     |
//! | `table.rs`   | who waits for which descriptor, and what epoll has been told               |
//! | `close.rs`   | closing without waiting for file systems that have to ask somebody         |
//!
//! An op is tried as soon as it is taken over. What would have to wait is tried again when epoll
//! says that its descriptor is ready. The kernel never holds on to an op: it writes during a call
//! of ours or not at all. So an op that waits is cancelled at once, and there is nothing to leak.
//!
//! | the op                                      | what happens                                  |
//! |---------------------------------------------|-----------------------------------------------|
//! | waits for somebody else (sockets, pipes)    | tried, then epoll                             |
//! | has no call that does not wait              | epoll, then handed back for a thread          |
//! | on what epoll refuses (files, `/dev/null`)  | handed back for the blocking pool             |
//! | nothing tells when it can go on             | tried again every `RETRY`                     |
//!
//! A worker sleeps in `epoll_pwait2`, and is woken by an eventfd in the set. That is watched for
//! edges (`EPOLLET`), so nobody has to read it.

use super::{Caps, LAST_CLOSES, TO_POOL, TO_WAITERS, Wait, Waker};
use crate::coro::pending::PendingList;
use crate::coro::{FiberList, PendingPtr};
use crate::op::Op;
use crate::sys::epoll::{Epoll, Event};
use crate::sys::{clock, ring};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

mod attempt;
mod close;
mod table;

pub(crate) use attempt::perform_ready;
use attempt::{Outcome, attempt, attempt_ready};
use table::{Armed, Table, Waiter};

/// Events taken at once: what they complete runs before the next look.
const EVENTS: usize = 128;
/// What the eventfd is registered with; no descriptor has this number.
const WAKE: u64 = u64::MAX;
/// How long to wait where no event will tell.
const RETRY: Duration = Duration::from_millis(1);
/// So many events in vain, one after the other, and an op is tried every `RETRY` instead.
const VAIN: u8 = 8;
/// Every so many looks for events, without being asked to wait, epoll is really asked.
const LOOKS: u8 = 8;

/// See the module's head.
pub(crate) struct Poll {
    epoll: Epoll,
    wake: OwnedFd,
    caps: Arc<Caps>,
    table: Table,
    /// Ops that are done, whose fibers the next turn makes ready.
    done: PendingList,
    /// Ops to be tried again at `retry_at_ns`.
    later: Vec<PendingPtr>,
    retry_at_ns: u64,
    /// Ops taken over and not completed.
    in_flight: usize,
    /// Everything is to end: no op waits any more.
    ending: bool,
    /// A thread was left to close a descriptor.
    closes_late: bool,
    /// The last turn did not ask epoll.
    skipped: bool,
    looks: u8,
    /// What epoll has said and nobody has looked at yet.
    seen: usize,
    events: Box<[Event; EVENTS]>,
}

impl Poll {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let wake = ring::eventfd()?;
        let edge = (libc::EPOLLIN | libc::EPOLLET) as u32;
        let result = epoll.add(wake.as_raw_fd(), edge, WAKE);
        if result != 0 {
            return Err(io::Error::from_raw_os_error(-result));
        }
        Ok(Self {
            epoll,
            wake,
            caps: Caps::of_poll(),
            table: Table::default(),
            done: PendingList::new(),
            later: Vec::new(),
            retry_at_ns: 0,
            in_flight: 0,
            ending: false,
            closes_late: false,
            skipped: false,
            looks: 0,
            seen: 0,
            events: Box::new([Event::NONE; EVENTS]),
        })
    }

    pub(super) fn caps(&self) -> &Arc<Caps> {
        &self.caps
    }

    pub(super) fn waker(&self) -> Waker {
        Waker::EventFd(self.wake.as_raw_fd())
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    #[inline]
    pub(super) fn has_events(&mut self) -> bool {
        if !self.done.is_empty() || self.seen != 0 {
            return true;
        }
        if self.table.waiting == 0 {
            return false;
        }
        // A system call, where the caller looks again and again.
        self.looks = (self.looks + 1) % LOOKS;
        self.looks == 0 && {
            self.seen = self.epoll.wait(&mut self.events[..], Some(Duration::ZERO));
            self.seen != 0
        }
    }

    #[inline]
    pub(super) fn enqueue(&mut self, op: PendingPtr, ready: &FiberList) {
        self.in_flight += 1;
        op.polling().set(false);
        // SAFETY: the op is ours since `enqueue`, and the reference does not leave this line.
        let (fd, waits) = first_step(unsafe { op.op() });
        if waits {
            return self.settle(op, fd, Outcome::Wait(libc::EPOLLIN as u32), ready);
        }
        let outcome = self.perform(op);
        self.settle(op, fd, outcome, ready);
    }

    #[inline]
    fn perform(&self, op: PendingPtr) -> Outcome {
        // SAFETY: the op is ours until it is completed, and the reference does not leave this line.
        attempt(unsafe { op.op() }, op.polling())
    }

    /// Does with an op what an attempt has come to.
    #[inline]
    fn settle(&mut self, op: PendingPtr, fd: RawFd, outcome: Outcome, ready: &FiberList) {
        match outcome {
            Outcome::Done(result) => self.complete(op, result, ready),
            Outcome::Wait(_) | Outcome::Later if self.ending => {
                self.complete(op, -libc::ECANCELED, ready);
            }
            Outcome::Wait(events) => self.wait_for(Waiter { op, events, vain: 0 }, fd, ready),
            Outcome::Later => self.try_later(op),
            Outcome::Thread => self.complete(op, TO_WAITERS, ready),
        }
    }

    #[inline]
    fn wait_for(&mut self, waiter: Waiter, fd: RawFd, ready: &FiberList) {
        let entry = self.table.entry(fd);
        match entry.arm(&self.epoll, fd, waiter.events) {
            Armed::Yes => {
                entry.waiters.push_back(waiter);
                self.table.waiting += 1;
            }
            Armed::Unpollable => self.complete(waiter.op, TO_POOL, ready),
            Armed::No => self.try_later(waiter.op),
        }
    }

    #[cold]
    fn try_later(&mut self, op: PendingPtr) {
        if self.later.is_empty() {
            self.retry_at_ns = clock::deadline_ns(RETRY);
        }
        self.later.push(op);
    }

    #[inline]
    fn complete(&mut self, op: PendingPtr, result: i32, ready: &FiberList) {
        op.set_outcome(result);
        self.in_flight -= 1;
        op.complete(ready);
    }

    pub(super) fn turn(&mut self, ready: &FiberList, wait: Wait) {
        while let Some(op) = self.done.pop() {
            self.in_flight -= 1;
            op.complete(ready);
        }
        let timeout = match wait {
            Wait::No => {
                // A worker that has nothing to run comes back at once, and waits.
                let idle = self.table.waiting == 0 && self.later.is_empty();
                if idle || (ready.is_empty() && !std::mem::replace(&mut self.skipped, true)) {
                    return;
                }
                Some(Duration::ZERO)
            }
            Wait::Until(_) if !ready.is_empty() => Some(Duration::ZERO),
            Wait::Until(timeout) => self.until_retry(timeout),
        };
        self.skipped = false;
        if self.seen == 0 {
            self.seen = self.epoll.wait(&mut self.events[..], timeout);
        }
        for index in 0..std::mem::take(&mut self.seen) {
            self.happened(self.events[index], ready);
        }
        if !self.later.is_empty() && clock::now_ns() >= self.retry_at_ns {
            self.retry(ready);
        }
    }

    /// No longer than until the next retry.
    fn until_retry(&self, timeout: Option<Duration>) -> Option<Duration> {
        if self.later.is_empty() {
            return timeout;
        }
        let left = Duration::from_nanos(self.retry_at_ns.saturating_sub(clock::now_ns()));
        Some(timeout.map_or(left, |timeout| timeout.min(left)))
    }

    /// Tries those that wait for what has happened.
    #[inline]
    fn happened(&mut self, event: Event, ready: &FiberList) {
        if event.data() == WAKE {
            return;
        }
        let fd = event.data() as RawFd; // what `Entry::arm` made of it
        let Some(entry) = self.table.get(fd) else { return };
        entry.disarmed();
        let mut left = entry.waiters.len();
        let always = (libc::EPOLLERR | libc::EPOLLHUP) as u32;
        // What has been tried in vain.
        let mut exhausted = 0;
        while left > 0 {
            left -= 1;
            let Some(entry) = self.table.get(fd) else { return };
            let Some(mut waiter) = entry.waiters.pop_front() else { return };
            // SAFETY: the op is ours, and the reference does not leave this line.
            let shares = !matches!(unsafe { waiter.op.op() }, Op::Poll { .. });
            let in_vain = shares && exhausted & waiter.events != 0;
            if event.events() & (waiter.events | always) == 0 || in_vain {
                entry.waiters.push_back(waiter);
                continue;
            }
            self.table.waiting -= 1;
            // SAFETY: as above.
            let outcome = attempt_ready(unsafe { waiter.op.op() }, waiter.op.polling());
            match outcome {
                Outcome::Wait(events) if !self.ending && waiter.vain < VAIN => {
                    if shares {
                        exhausted |= events;
                    }
                    waiter.events = events;
                    waiter.vain += 1;
                    self.table.waiting += 1;
                    self.table.entry(fd).waiters.push_back(waiter);
                }
                // The event says that it is ready, the call that it is not: they mean different
                // things, and epoll would say so for ever.
                Outcome::Wait(_) if !self.ending => self.try_later(waiter.op),
                outcome => self.settle(waiter.op, fd, outcome, ready),
            }
        }
        let Some(entry) = self.table.get(fd) else { return };
        if let Some(first) = entry.waiters.front()
            && entry.arm(&self.epoll, fd, first.events) != Armed::Yes
        {
            self.unarmed(fd);
        }
    }

    /// The ops that wait on `fd` cannot wait for an event any more.
    #[cold]
    fn unarmed(&mut self, fd: RawFd) {
        while let Some(waiter) = self.table.get(fd).and_then(|entry| entry.waiters.pop_front()) {
            self.table.waiting -= 1;
            self.try_later(waiter.op);
        }
    }

    /// Tries those for which there was no event to wait for.
    #[cold]
    fn retry(&mut self, ready: &FiberList) {
        for op in std::mem::take(&mut self.later) {
            // SAFETY: the op is ours, and the reference does not leave this line.
            let fd = descriptor(unsafe { op.op() });
            let outcome = self.perform(op);
            self.settle(op, fd, outcome, ready);
        }
    }

    pub(super) fn cancel(&mut self, op: PendingPtr) {
        if !op.start_cancel() {
            return;
        }
        // SAFETY: the op is ours, and the reference does not leave this line.
        let fd = descriptor(unsafe { op.op() });
        // What epoll watches for may be more than anybody wants then: an event in vain.
        if self.table.get(fd).is_some_and(|entry| entry.remove(op)) {
            self.table.waiting -= 1;
        } else if let Some(index) = self.later.iter().position(|later| *later == op) {
            self.later.remove(index);
        } else {
            return; // done already
        }
        self.end(op);
    }

    /// Ends an op that is in no list any more.
    fn end(&self, op: PendingPtr) {
        op.set_outcome(-libc::ECANCELED);
        self.done.push(op);
    }

    pub(super) fn cancel_all(&mut self) {
        self.ending = true;
        let waiting: Vec<_> = self.table.drain().map(|waiter| waiter.op).collect();
        for op in waiting.into_iter().chain(std::mem::take(&mut self.later)) {
            self.end(op);
        }
    }

    pub(super) fn close(&mut self, fd: OwnedFd) {
        if let Some(entry) = self.table.get(fd.as_raw_fd()) {
            entry.forget();
        }
        self.closes_late |= !close::close(fd);
    }
}

impl Drop for Poll {
    fn drop(&mut self) {
        if self.closes_late {
            close::finish(LAST_CLOSES);
        }
    }
}

/// What an op waits on; -1 if on nothing.
fn descriptor(op: &Op<'_>) -> RawFd {
    match op {
        Op::Read { fd, .. }
        | Op::ReadUninit { fd, .. }
        | Op::Write { fd, .. }
        | Op::ReadVectored { fd, .. }
        | Op::WriteVectored { fd, .. }
        | Op::Poll { fd, .. }
        | Op::Accept { fd, .. }
        | Op::Connect { fd, .. }
        | Op::Send { fd, .. }
        | Op::Recv { fd, .. }
        | Op::SendMsg { fd, .. }
        | Op::RecvMsg { fd, .. } => fd.as_raw_fd(),
        _ => -1,
    }
}

/// What an op waits on, and whether to wait before the first attempt.
#[inline]
fn first_step(op: &Op<'_>) -> (RawFd, bool) {
    match op {
        Op::Recv { fd, poll_first, .. } => (fd.as_raw_fd(), *poll_first),
        op => (descriptor(op), false),
    }
}
