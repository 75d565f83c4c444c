//! The poll driver: for systems that refuse io_uring.
//!
//! | file         | what                                                                       |
//! |--------------|----------------------------------------------------------------------------|
//! | `attempt.rs` | an op without waiting, or on a thread once it is ready                     |
//! | `table.rs`   | who waits for which descriptor, and what epoll has been told               |
//! | `doubts.rs`  | who waits for what a look would find, if it is there                       |
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
use crate::op::{Kept, Op};
use crate::sys::epoll::{Epoll, Event};
use crate::sys::{clock, ring, socket};
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

mod attempt;
mod close;
mod doubts;
mod table;

pub(crate) use attempt::perform_ready;
use attempt::{Outcome, attempt, attempt_ready};
use doubts::Doubts;
use table::{Armed, ERRORS, Promise, Table, Waiter, meaning};

/// Events taken at once.
const EVENTS: usize = 256;
/// So many of them at least are looked at per turn. What they complete runs before the next ones:
/// what a receive has brought is still near then, and the first answers do not wait for the last
/// requests.
const SLICE: usize = 16;
/// What the eventfd is registered with; no descriptor has the number in its lower half.
const WAKE: u64 = u64::MAX;
/// How long to wait where no event will tell.
const RETRY: Duration = Duration::from_millis(1);
/// So many events in vain, one after the other, and an op is tried every `RETRY` instead.
const VAIN: u8 = 8;
/// So many events that mean nothing, besides one for each op that waits, and the set is made anew.
const STRAYS: usize = 64;
/// Every so many looks for events, without being asked to wait, epoll is really asked.
const LOOKS: u8 = 8;

/// See the module's head.
pub(crate) struct Poll {
    epoll: Epoll,
    wake: OwnedFd,
    caps: Arc<Caps>,
    table: Table,
    doubts: Doubts,
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
    /// Events that mean nothing any more, since the set was made.
    strays: usize,
    /// What epoll has said and nobody has looked at yet, of `events`.
    seen: Range<usize>,
    events: Box<[Event; EVENTS]>,
}

impl Poll {
    pub(super) fn new() -> io::Result<Self> {
        let wake = ring::eventfd()?;
        let epoll = new_set(&wake)?;
        Ok(Self {
            epoll,
            wake,
            caps: Caps::of_poll(),
            table: Table::default(),
            doubts: Doubts::default(),
            done: PendingList::new(),
            later: Vec::new(),
            retry_at_ns: 0,
            in_flight: 0,
            ending: false,
            closes_late: false,
            skipped: false,
            looks: 0,
            strays: 0,
            seen: 0..0,
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
        if !self.done.is_empty() || !self.seen.is_empty() {
            return true;
        }
        if self.table.waiting == 0 {
            return false;
        }
        // A system call, where the caller looks again and again.
        self.looks = (self.looks + 1) % LOOKS;
        self.looks == 0 && {
            self.ask(Some(Duration::ZERO));
            !self.seen.is_empty()
        }
    }

    #[inline]
    pub(super) fn enqueue(&mut self, op: PendingPtr, ready: &FiberList) {
        self.in_flight += 1;
        op.polling().set(false);
        // SAFETY: the op is ours since `enqueue`, and the reference does not leave this line.
        let (from, first) = first_step(unsafe { op.op() });
        match first {
            First::Wait(events) => match self.promise(from, events) {
                Promise::Nothing => return self.settle(op, from, Outcome::Wait(events), ready),
                Promise::Doubt if !self.ending => {
                    return self.wait_in_doubt(op, from, events, ready);
                }
                _ => {}
            },
            First::Tried(events) => return self.settle(op, from, Outcome::Wait(events), ready),
            First::Try => {}
        }
        self.try_now(op, from, ready);
    }

    /// What an op would find that had better wait first.
    #[inline]
    fn promise(&mut self, from: Origin, events: u32) -> Promise {
        let entry = from.kept.map(|kept| self.table.entry(from.fd).promise(kept, events));
        entry.unwrap_or(Promise::Nothing)
    }

    #[inline]
    fn try_now(&mut self, op: PendingPtr, from: Origin, ready: &FiberList) {
        let outcome = self.perform(op);
        self.settle(op, from, outcome, ready);
    }

    #[inline]
    fn perform(&self, op: PendingPtr) -> Outcome {
        // SAFETY: the op is ours until it is completed, and the reference does not leave this line.
        attempt(unsafe { op.op() }, op.polling())
    }

    /// Does with an op what an attempt has come to.
    #[inline]
    fn settle(&mut self, op: PendingPtr, from: Origin, outcome: Outcome, ready: &FiberList) {
        match outcome {
            Outcome::Done(result) => {
                if let Some(kept) = from.kept.filter(|kept| kept.drains)
                    // SAFETY: the op is ours, and the reference does not leave this line.
                    && is_drained(unsafe { op.op() }, result)
                {
                    self.table.entry(from.fd).used_up(kept, libc::EPOLLIN as u32);
                }
                self.complete(op, result, ready);
            }
            Outcome::Wait(_) | Outcome::Later if self.ending => {
                self.complete(op, -libc::ECANCELED, ready);
            }
            Outcome::Wait(events) => self.wait_for(Waiter { op, events, vain: 0 }, from, ready),
            Outcome::Later => self.try_later(op),
            // Who may have to wait in the middle of it takes a little at a time, the others all.
            Outcome::Thread if self.epoll.refuses(from.fd) => self.complete(op, TO_POOL, ready),
            Outcome::Thread => self.complete(op, TO_WAITERS, ready),
        }
    }

    #[inline]
    fn wait_for(&mut self, waiter: Waiter, from: Origin, ready: &FiberList) {
        if let Some(kept) = from.kept {
            self.table.entry(from.fd).used_up(kept, waiter.events);
        }
        self.wait_for_next(waiter, from, ready);
    }

    #[inline]
    fn wait_for_next(&mut self, waiter: Waiter, from: Origin, ready: &FiberList) {
        let entry = self.table.entry(from.fd);
        match entry.arm(&self.epoll, from.fd, waiter.events, from.kept) {
            Armed::Yes => {
                entry.push(waiter);
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
        if self.seen.is_empty() {
            if self.has_doubts() {
                self.ask_in_doubt(ready);
            }
            if self.seen.is_empty() {
                let Some(timeout) = self.patience(ready, wait) else { return };
                self.ask(timeout);
            }
        }
        // With others in line there is a fair share for what comes.
        let most = SLICE.max(ready.len());
        let slice = self.seen.start..self.seen.end.min(self.seen.start + most);
        self.seen.start = slice.end;
        self.fetch_ahead(slice.clone());
        for index in slice {
            self.happened(self.events[index], ready);
        }
        if !self.later.is_empty() && clock::now_ns() >= self.retry_at_ns {
            self.retry(ready);
        }
    }

    /// How long a turn is to ask epoll for; `None` if not at all.
    #[inline]
    fn patience(&mut self, ready: &FiberList, wait: Wait) -> Option<Option<Duration>> {
        let timeout = match wait {
            Wait::No => {
                // A worker that has nothing to run comes back at once, and waits.
                let idle = self.table.waiting == 0 && self.later.is_empty();
                if idle || (ready.is_empty() && !std::mem::replace(&mut self.skipped, true)) {
                    return None;
                }
                Some(Duration::ZERO)
            }
            Wait::Until(_) if !ready.is_empty() => Some(Duration::ZERO),
            Wait::Until(timeout) => self.until_retry(timeout),
        };
        Some(timeout)
    }

    #[inline]
    fn ask(&mut self, timeout: Option<Duration>) {
        self.skipped = false;
        let count = self.epoll.wait(&mut self.events[..], timeout);
        self.seen = 0..count;
        self.doubts.told(count, self.all_events());
    }

    /// With many fibers in flight their stacks are out of the nearer caches. What these events will
    /// touch is fetched for all of them at once.
    #[inline]
    fn fetch_ahead(&self, slice: Range<usize>) {
        if slice.len() < 2 {
            return;
        }
        let (events, table) = (&self.events[slice], &self.table);
        let ops = || events.iter().filter_map(|event| table.first_op(meaning(*event).0));
        ops().for_each(PendingPtr::prefetch);
        ops().for_each(|op| op.fiber().prefetch());
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
        let (fd, _) = meaning(event);
        let Some(entry) = self.table.get(fd) else { return };
        let nobody = entry.waiters.is_empty();
        if !entry.came(event)
            || (entry.is_kept() && nobody && entry.is_unwanted() && !entry.forget(&self.epoll, fd))
        {
            return self.stray();
        }
        self.serve(fd, event.events(), true, ready);
    }

    /// Tries those that wait for `happened` on `fd`; `told` unless that is not certain.
    #[inline]
    fn serve(&mut self, fd: RawFd, happened: u32, told: bool, ready: &FiberList) {
        let Some(entry) = self.table.get(fd) else { return };
        let is_kept = entry.is_kept();
        let mut left = entry.waiters.len();
        // What has been tried in vain.
        let mut exhausted = 0;
        while left > 0 {
            left -= 1;
            let Some(entry) = self.table.get(fd) else { return };
            let Some(mut waiter) = entry.waiters.pop_front() else { return };
            // SAFETY: the op is ours, and the reference does not leave this line.
            let shares = !matches!(unsafe { waiter.op.op() }, Op::Poll { .. });
            let in_vain = shares && exhausted & waiter.events != 0;
            if happened & (waiter.events | ERRORS) == 0 || in_vain {
                entry.waiters.push_back(waiter);
                continue;
            }
            self.table.waiting -= 1;
            // SAFETY: as above.
            let op = unsafe { waiter.op.op() };
            let kept = if is_kept { kept_by(op) } else { None };
            let from = Origin { fd, kept };
            let outcome = match is_kept {
                true => attempt(op, waiter.op.polling()),
                false => attempt_ready(op, waiter.op.polling()),
            };
            match outcome {
                Outcome::Wait(events) if !self.ending && (is_kept || waiter.vain < VAIN) => {
                    // Who is no owner may want something else than the others.
                    if shares && is_kept == kept.is_some() {
                        exhausted |= events;
                    }
                    waiter.events = events;
                    waiter.vain += u8::from(!is_kept);
                    self.table.waiting += 1;
                    let entry = self.table.entry(fd);
                    if let Some(kept) = kept {
                        entry.used_up(kept, events);
                    }
                    entry.push(waiter);
                }
                // The event says that it is ready, the call that it is not: they mean different
                // things, and epoll would say so for ever.
                Outcome::Wait(_) if !self.ending => self.try_later(waiter.op),
                outcome => {
                    if let (Some(_), Outcome::Done(result)) = (kept, outcome) {
                        self.learn(fd, op, result, told);
                    }
                    self.settle(waiter.op, from, outcome, ready);
                }
            }
        }
        self.arm_again(fd);
    }

    /// Sees to it that those who wait on `fd` hear of it.
    #[inline]
    fn arm_again(&mut self, fd: RawFd) {
        let Some(entry) = self.table.get(fd) else { return };
        if let Some(first) = entry.waiters.front()
            && entry.arm(&self.epoll, fd, first.events, None) != Armed::Yes
        {
            self.unarmed(fd);
        }
    }

    /// An event means nothing any more. There is no end to those of an open file that was closed
    /// here and is kept open elsewhere, by a child process, say: they cost more than a new set.
    #[cold]
    fn stray(&mut self) {
        self.strays += 1;
        if self.strays > STRAYS + self.table.waiting {
            self.renew();
        }
    }

    /// Makes a new set; whatever is known in it is told anew.
    fn renew(&mut self) {
        self.strays = 0;
        let Ok(epoll) = new_set(&self.wake) else { return };
        self.epoll = epoll;
        self.seen = 0..0;
        for fd in self.table.numbers() {
            self.table.entry(fd).lost();
            self.arm_again(fd);
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
            let (from, _) = first_step(unsafe { op.op() });
            self.try_now(op, from, ready);
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
            if self.table.entry(fd).is_in_doubt() {
                return self.end_in_doubt(fd, op);
            }
        } else if let Some(index) = self.later.iter().position(|later| *later == op) {
            self.later.remove(index);
        } else {
            return; // done already
        }
        self.end(op);
    }

    /// As `end`; but what an op would have found at once, if it had looked, it finds now.
    #[cold]
    fn end_in_doubt(&mut self, fd: RawFd, pending: PendingPtr) {
        // SAFETY: the op is ours, and the reference does not leave this function.
        let op = unsafe { pending.op() };
        if let Op::Recv { .. } = op
            && let Outcome::Done(result) = attempt(op, pending.polling())
        {
            self.learn(fd, op, result, false);
            pending.set_outcome(result);
            return self.done.push(pending);
        }
        self.end(pending);
    }

    /// Ends an op that is in no list any more.
    fn end(&self, op: PendingPtr) {
        op.set_outcome(-libc::ECANCELED);
        self.done.push(op);
    }

    pub(super) fn cancel_all(&mut self) {
        self.ending = true;
        self.doubts.clear();
        let waiting: Vec<_> = self.table.drain().map(|waiter| waiter.op).collect();
        for op in waiting.into_iter().chain(std::mem::take(&mut self.later)) {
            self.end(op);
        }
    }

    pub(super) fn close(&mut self, fd: OwnedFd) {
        if let Some(entry) = self.table.get(fd.as_raw_fd()) {
            entry.forget(&self.epoll, fd.as_raw_fd());
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

/// A set of epoll's with the eventfd in it.
fn new_set(wake: &OwnedFd) -> io::Result<Epoll> {
    let epoll = Epoll::new()?;
    let edge = (libc::EPOLLIN | libc::EPOLLET) as u32;
    match epoll.add(wake.as_raw_fd(), edge, WAKE) {
        0 => Ok(epoll),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

/// What an op waits on.
#[derive(Clone, Copy)]
struct Origin {
    fd: RawFd,
    /// If its owner is one whose number may be watched for good.
    kept: Option<Kept>,
}

/// What to do first with an op.
enum First {
    Try,
    /// Better wait for this.
    Wait(u32),
    /// It was tried by its fiber, and has to wait for this.
    Tried(u32),
}

#[inline]
fn first_step(op: &mut Op<'_>) -> (Origin, First) {
    let kept = kept_by(op);
    let (fd, first) = match op {
        Op::Recv { fd, tried: tried @ true, .. } => {
            *tried = false;
            (fd.as_raw_fd(), First::Tried(libc::EPOLLIN as u32))
        }
        Op::Send { fd, tried: tried @ true, .. } => {
            *tried = false;
            (fd.as_raw_fd(), First::Tried(libc::EPOLLOUT as u32))
        }
        Op::Recv { fd, poll_first: true, .. } => {
            (fd.as_raw_fd(), First::Wait(libc::EPOLLIN as u32))
        }
        op => (descriptor(op), First::Try),
    };
    (Origin { fd, kept }, first)
}

/// Whether the number that an op names is an owner's that may be watched for good.
#[inline]
fn kept_by(op: &Op<'_>) -> Option<Kept> {
    let owner = op.owner()?;
    owner.kept().unwrap_or_else(|| learn_kept(op))
}

#[cold]
fn learn_kept(op: &Op<'_>) -> Option<Kept> {
    let (owner, (fd, _)) = (op.owner()?, op.readiness()?);
    owner.set_kept(socket::stream(fd));
    owner.kept()?
}

/// Whether a receive that is done has taken all there was.
#[inline]
fn is_drained(op: &Op<'_>, result: i32) -> bool {
    match op {
        Op::Recv { buf, .. } => usize::try_from(result).is_ok_and(|n| 0 < n && n < buf.len()),
        _ => false,
    }
}
