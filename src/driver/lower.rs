//! Which way an op takes: the only place that knows.
//!
//! The driver is the path: with io_uring, the ring. What can be done at once is done on the spot
//! where that is cheaper, by a system call that cannot wait for a disk or for somebody else:
//!
//! | op                        | the call                  | otherwise                             |
//! |---------------------------|---------------------------|---------------------------------------|
//! | read of a cached file     | `preadv2(RWF_NOWAIT)`     | `EAGAIN`: the ring, for what is left  |
//! | read or write in memory   | `pread`, `pwrite`         | -                                     |
//! | close                     | `close`                   | see `Habit::closes_at_once`           |
//! | create in memory          | `openat2`, see `dirs.rs`  | a refusal: as any open                |
//! | receive, send; if alone   | `recv(MSG_DONTWAIT)`, ..  | `EAGAIN`: the ring                    |
//!
//! What a [`Habit`] says decides what is tried. A refusal of any kind sends the op to the ring,
//! whose answer counts, so errors are the ring's. Only [`Attempt::Part`] needs care: a blocking
//! read of a file is short at its end alone, so what the cache lacks is read through the ring.
//!
//! A fiber that finds all it wants in the cache would never suspend. So calls on the spot have a
//! budget, in units of some 0.4 us: who finds it spent yields first, and the worker's pass counts
//! that as [`YIELD_COST`] resumes (D5).
//!
//! What remains that may hold up a worker: a plain thread that reads the *same open file* at its
//! position holds a lock on the position meanwhile; a writer holds a lock on its file in memory
//! while it copies; memory that is touched may have to be made free first, as anywhere; and a
//! terminal that was opened as a `File`, with room for a part of a write, waits in the middle of
//! it, in the ring too (`uring/encode.rs` sees to those in an `AsyncFd`).
#![forbid(unsafe_code)]

use super::Caps;
use super::dirs::{Dirs, Place};
use crate::op::perform::{at, perform};
use crate::op::{Habit, Op, Way};
use crate::sys::{file, socket};
use std::cell::Cell;
use std::ffi::CStr;
use std::mem::take;
use std::os::fd::BorrowedFd;

/// The ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Through the driver.
    Driver,
    /// Through the driver, which waits for readiness only: what [`is_stored`] goes to the blocking
    /// pool instead, and the driver may hand the op back.
    Readiness,
    /// As a system call on the spot: it cannot wait, and the ring would answer differently.
    Now,
    /// As a system call on the blocking pool: this kernel's ring cannot do it.
    Pool,
}

/// Decides for one op that was not done by an [`attempt`].
#[inline(always)]
pub(crate) fn route(op: &Op<'_>, caps: &Caps) -> Route {
    match op {
        // A system call looks at what the descriptor is first: reading nothing from a directory,
        // say, is an error.
        Op::Read { buf: [], .. } => Route::Now,
        _ if !caps.supports(op) => Route::Pool,
        _ if caps.readiness_only() => Route::Readiness,
        _ => Route::Driver,
    }
}

/// Whether the driver must not see an op that it could route: it waits for readiness only, and the
/// op is on a file, which is always ready and makes its callers wait all the same.
#[inline]
pub(crate) fn is_stored(op: &Op<'_>) -> bool {
    let (fd, habit) = match op {
        Op::Read { fd, habit, .. }
        | Op::ReadUninit { fd, habit, .. }
        | Op::Write { fd, habit, .. } => (fd, *habit),
        Op::ReadVectored { fd, .. } | Op::WriteVectored { fd, .. } => (fd, None),
        _ => return false,
    };
    if let Some(known) = habit.and_then(Habit::is_stored) {
        return known;
    }
    let stored = file::what(*fd).is_some_and(|what| what.stored);
    if let Some(habit) = habit {
        habit.set_stored(stored);
    }
    stored
}

/// The longest transfer that is made on the spot: 45 us of copying.
const MAX_BYTES: usize = 1 << 20;
/// Units of work between two yields.
const BUDGET: u32 = 16;
/// A call is one unit, and each of these bytes one more.
const UNIT_BYTES: usize = 8 << 10;
/// To create a file in memory is so many.
const CREATE_UNITS: u32 = 12;
/// What a yield for want of budget counts for in a pass.
pub(crate) const YIELD_COST: u32 = 8;
/// Attempts left out after refusals in a row: 1, 3, 7, and so on, to 2 to the power of this less 1.
const MAX_REFUSALS: u32 = 5;
/// From so many other fibers and ops in line on, reads are made in one go by the ring.
const CROWD: usize = 16;
/// The cache has files by pages of at least this size.
const PAGE: u64 = 4096;

/// What one worker knows and counts about calls on the spot.
#[derive(Debug)]
pub(crate) struct Inline {
    enabled: bool,
    /// With so many others in line a read is left to the driver.
    crowd: usize,
    /// Units until the next yield.
    left: Cell<u32>,
    /// Refusals in a row, and attempts to leave out because of them.
    refusals: Cell<u32>,
    skip: Cell<u32>,
    dirs: Dirs,
}

impl Inline {
    pub(crate) fn new(enabled: bool, caps: &Caps) -> Self {
        Self {
            enabled,
            // A driver that makes the same call gains nothing.
            crowd: if caps.readiness_only() { usize::MAX } else { CROWD },
            left: Cell::new(BUDGET),
            refusals: Cell::new(0),
            skip: Cell::new(0),
            dirs: Dirs::new(enabled),
        }
    }

    #[inline]
    pub(crate) fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Whether the caller must yield before the next attempt, for which it then has a new budget.
    #[inline]
    pub(crate) fn is_spent(&self) -> bool {
        self.left.get() == 0 && {
            self.left.set(BUDGET);
            true
        }
    }

    /// As [`Self::is_spent`], before a create: who yields after it would write a file that the
    /// caches have lost again.
    #[inline]
    pub(crate) fn is_spent_for_create(&self) -> bool {
        self.left.get() < CREATE_UNITS && {
            self.left.set(BUDGET);
            true
        }
    }

    fn spend(&self, bytes: usize) {
        let units = 1 + (bytes / UNIT_BYTES) as u32; // no transfer is longer than 2 GiB
        self.left.set(self.left.get().saturating_sub(units));
    }

    /// Where a file would be created on the spot; `None` if it would not.
    #[inline]
    pub(crate) fn place(&self, path: &CStr, flags: i32) -> Option<Place> {
        self.dirs.place(path, flags)
    }

    /// Creates a file on the spot, as [`Dirs::create`].
    pub(crate) fn create(&self, place: Place, path: &CStr, flags: i32, mode: u32) -> i32 {
        self.left.set(self.left.get().saturating_sub(CREATE_UNITS));
        self.dirs.create(place, path, flags, mode)
    }

    /// What is known now of a file that was created at `path`: it is in memory, or it is written
    /// through the driver.
    pub(crate) fn created(&self, path: &CStr, fd: BorrowedFd<'_>) -> Way {
        if self.dirs.learn(path, fd) { Way::Memory } else { Way::Ring }
    }

    /// A call found nothing, or nobody who can do it without waiting: likely the next one will not
    /// either.
    fn refused(&self) {
        let refusals = (self.refusals.get() + 1).min(MAX_REFUSALS);
        self.refusals.set(refusals);
        self.skip.set((1 << refusals) - 1);
        self.spend(0);
    }

    fn skips(&self) -> bool {
        let skip = self.skip.get();
        self.skip.set(skip.saturating_sub(1));
        skip != 0
    }
}

/// What became of an op that was tried on the spot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// It is done, with this result.
    Done(i32),
    /// So many bytes are done, and the op is now what is left of it.
    Part(u32),
    /// Nothing has happened.
    Refused,
}

/// Whether an [`attempt`] is worth while. The caller sees to cancel requests and to the budget.
#[inline(always)]
pub(crate) fn may_attempt(op: &Op<'_>, reading: Option<Reading<'_>>, inline: &Inline) -> bool {
    let (way, len) = match (reading, op) {
        (Some(reading), _) => (reading.way, reading.len),
        (_, Op::Write { habit: Some(habit), buf, .. }) => (habit.writes(), buf.len()),
        // Which takes what it can.
        (_, Op::Send { buf, .. }) => (Way::Try, buf.len().min(MAX_BYTES)),
        (_, Op::Recv { habit: Some(habit), buf, .. }) => (habit.reads(), buf.len().min(MAX_BYTES)),
        _ => return false,
    };
    way != Way::Ring && (1..=MAX_BYTES).contains(&len) && inline.enabled
}

/// Tries an op without waiting. With a `crowd` of others in line this is better done by the driver,
/// together with theirs: `None` says so; the op is now one that does not wait, and its outcome is
/// for [`judge`]. Not so for a file that is read to its end: each of them would keep its memory
/// while it is in line, and what one of them gives back to the allocator serves the next best while
/// it is in the near caches (a tenth for small files).
#[inline(always)]
pub(crate) fn attempt(
    op: &mut Op<'_>,
    reading: Option<Reading<'_>>,
    inline: &Inline,
    crowd: usize,
) -> Option<Attempt> {
    let Some(reading) = reading else {
        if let Op::Send { .. } | Op::Recv { .. } = op {
            // Others in line enter the ring anyway, and all have their ops done by that.
            let alone = crowd == 0 || inline.crowd == usize::MAX;
            return Some(if alone { transfer(op, inline) } else { Attempt::Refused });
        }
        return Some(write(op, inline));
    };
    let way = match reading.way {
        Way::Unknown => learn(reading.fd, reading.habit),
        way => way,
    };
    match way {
        Way::Memory => {
            inline.spend(reading.len);
            Some(Attempt::Done(perform(op)))
        }
        Way::Try | Way::Cached if !inline.skips() => {
            let result = match op {
                Op::Read { nowait, .. } if crowd >= inline.crowd => {
                    *nowait = true;
                    return None;
                }
                Op::Read { fd, buf, offset, .. } => file::read_nowait(*fd, buf, at(*offset)),
                Op::ReadUninit { fd, buf, offset, .. } => {
                    file::read_uninit_nowait(*fd, buf, at(*offset))
                }
                _ => unreachable!("the op is a read"),
            };
            inline.spend(usize::try_from(result).unwrap_or(0));
            Some(judge(op, Some(reading), result, inline))
        }
        _ => Some(Attempt::Refused),
    }
}

/// Receives or sends without waiting.
fn transfer(op: &mut Op<'_>, inline: &Inline) -> Attempt {
    let (result, flags) = match op {
        Op::Send { fd, buf, flags, .. } => {
            (socket::send(*fd, buf, *flags | libc::MSG_DONTWAIT), *flags)
        }
        Op::Recv { fd, buf, flags, .. } => {
            (socket::recv(*fd, buf, *flags | libc::MSG_DONTWAIT), *flags)
        }
        _ => return Attempt::Refused,
    };
    inline.spend(usize::try_from(result).unwrap_or(0));
    if let Op::Recv { habit: Some(habit), .. } = op {
        habit.followed(result != -libc::EAGAIN);
    }
    if result != -libc::EAGAIN || flags & libc::MSG_DONTWAIT != 0 {
        return Attempt::Done(result);
    }
    match op {
        Op::Recv { habit, tried, .. } => {
            *tried = true;
            habit.inspect(|habit| habit.set_reads(Way::Ring));
        }
        Op::Send { tried, .. } => *tried = true,
        _ => {}
    }
    Attempt::Refused
}

/// Makes ready for the driver what was not done by an [`attempt`]. A stream that was read empty is
/// waited for at once, instead of finding it empty again: that saves the kernel a tenth of what a
/// small request costs it. But not where the other end is quick, and the next message likely there
/// by now: then to wait for it is what costs.
#[inline(always)]
pub(crate) fn prepare(op: &mut Op<'_>, polls_first: bool) {
    if let Op::Recv { buf, flags, habit: Some(habit), poll_first, .. } = op
        && *flags & libc::MSG_DONTWAIT == 0
        && !buf.is_empty()
        && polls_first
    {
        *poll_first = habit.reads() == Way::Ring;
        if *poll_first {
            habit.set_reads(Way::Try); // unless the answer says otherwise
        }
    }
}

/// What is learnt from a receive that the ring has completed in this turn of its: whether the next
/// one should wait first. Who gets all that he has room for does not know whether that was all
/// there was, but the kernel says of some sockets that something is left.
#[inline]
pub(crate) fn received(op: &Op<'_>, result: i32, nonempty: bool, turn: u32) {
    if let Op::Recv { habit: Some(habit), tells, buf, turn: begun, .. } = op {
        let filled = usize::try_from(result).is_ok_and(|count| count == buf.len());
        let emptied = !filled || (*tells && !nonempty);
        habit.set_reads(match (*begun == turn, emptied) {
            (true, _) => Way::Quick,
            (false, true) => Way::Ring,
            (false, false) => Way::Try,
        });
    }
}

/// What a read that did not wait has come to, and what is learnt from it.
#[inline(always)]
pub(crate) fn judge(
    op: &mut Op<'_>,
    reading: Option<Reading<'_>>,
    result: i32,
    inline: &Inline,
) -> Attempt {
    match reading {
        // All of it, as usual: there is nothing to learn, and the op is not used again.
        Some(Reading { len, way: Way::Cached, .. }) if usize::try_from(result) == Ok(len) => {
            inline.refusals.set(0);
            Attempt::Done(result)
        }
        _ => judge_in_full(op, result, inline),
    }
}

#[inline(never)]
fn judge_in_full(op: &mut Op<'_>, result: i32, inline: &Inline) -> Attempt {
    if let Op::Read { nowait, .. } = op {
        *nowait = false;
    }
    let Some(Reading { fd, at, len, habit, .. }) = Reading::of(op) else {
        return Attempt::Done(result);
    };
    let Ok(count) = u32::try_from(result) else {
        return refused(op, result, inline);
    };
    if habit.reads() == Way::Try {
        habit.set_reads(Way::Cached);
    }
    inline.refusals.set(0);
    if count as usize == len || count == 0 {
        return Attempt::Done(result);
    }
    let end = at.or(habit.position()).map(|start| start + u64::from(count));
    // The cache has whole pages: what stops within one, stops at the end of the file.
    if end.is_some_and(|end| !end.is_multiple_of(PAGE)) || is_end(fd, habit, end) {
        return Attempt::Done(result);
    }
    advance(op, count);
    Attempt::Part(count)
}

/// A read that did not wait has failed.
#[cold]
fn refused(op: &mut Op<'_>, result: i32, inline: &Inline) -> Attempt {
    let Some(Reading { fd, len, habit, .. }) = Reading::of(op) else {
        return Attempt::Done(result);
    };
    match -result {
        libc::ECANCELED | libc::EINTR => return Attempt::Done(result),
        libc::EAGAIN => {}
        libc::EOPNOTSUPP if learn_memory(fd, habit) => {
            inline.spend(len);
            return Attempt::Done(perform(op));
        }
        _ => habit.set_reads(Way::Ring),
    }
    inline.refused();
    Attempt::Refused
}

fn write(op: &mut Op<'_>, inline: &Inline) -> Attempt {
    match op {
        Op::Write { fd, buf, habit: Some(habit), .. } => {
            if habit.writes() != Way::Memory && !learn_memory(*fd, habit) {
                habit.set_writes(Way::Ring);
                return Attempt::Refused;
            }
            inline.spend(buf.len());
            Attempt::Done(perform(op))
        }
        _ => Attempt::Refused,
    }
}

/// A read of a file, whatever the type of its buffer. Asked for once, where the op is made: there
/// the compiler knows the answers, and need not look into the op after each step.
#[derive(Clone, Copy)]
pub(crate) struct Reading<'a> {
    fd: BorrowedFd<'a>,
    at: Option<u64>,
    len: usize,
    habit: &'a Habit,
    /// What the habit said then.
    way: Way,
}

impl<'a> Reading<'a> {
    #[inline(always)]
    pub(crate) fn of(op: &Op<'a>) -> Option<Self> {
        let (fd, offset, len, habit) = match op {
            Op::Read { fd, buf, offset, habit: Some(habit), .. } => (fd, offset, buf.len(), habit),
            Op::ReadUninit { fd, buf, offset, habit: Some(habit), .. } => {
                (fd, offset, buf.len(), habit)
            }
            _ => return None,
        };
        Some(Self { fd: *fd, at: at(*offset), len, habit, way: habit.reads() })
    }
}

/// Leaves of a read what comes after its first `bytes`.
#[cold]
fn advance(op: &mut Op<'_>, bytes: u32) {
    let count = bytes as usize;
    let offset = match op {
        Op::Read { buf, offset, .. } => {
            *buf = &mut take(buf)[count..];
            offset
        }
        Op::ReadUninit { buf, offset, .. } => {
            *buf = &mut take(buf)[count..];
            offset
        }
        _ => return,
    };
    if at(*offset).is_some() {
        *offset += u64::from(bytes);
    }
}

/// Finds out how a file is read of which nothing is known.
#[cold]
fn learn(fd: BorrowedFd<'_>, habit: &Habit) -> Way {
    let way = if file::is_buffered(fd) { Way::Try } else { Way::Ring };
    habit.set_reads(way);
    way
}

/// Finds out whether a file is in memory.
#[cold]
fn learn_memory(fd: BorrowedFd<'_>, habit: &Habit) -> bool {
    let memory = file::is_memory(fd);
    if memory {
        habit.set_reads(Way::Memory);
        habit.set_writes(Way::Memory);
    }
    memory
}

/// Whether a read that was short had nothing more to read. Of what is no plain file, a device say,
/// short reads are whole.
#[cold]
fn is_end(fd: BorrowedFd<'_>, habit: &Habit, end: Option<u64>) -> bool {
    let Some(size) = file::size(fd) else {
        habit.set_reads(Way::Ring);
        return true;
    };
    end.or_else(|| file::position(fd)).is_none_or(|end| end >= size)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    /// Whether a receive waits first that follows one with this much room, so much received, in
    /// the turn in which it began or later.
    fn next(room: usize, got: i32, tells: bool, nonempty: bool, at_once: bool) -> bool {
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let habit = Habit::new();
        let mut buf = vec![0; room];
        let mut op = Op::Recv {
            fd: socket.as_fd(),
            buf: &mut buf,
            flags: 0,
            habit: Some(&habit),
            tells,
            poll_first: false,
            turn: 7,
            tried: false,
        };
        prepare(&mut op, true);
        assert!(matches!(op, Op::Recv { poll_first: false, .. }), "nothing is known yet");
        received(&op, got, nonempty, if at_once { 7 } else { 8 });
        prepare(&mut op, true);
        let Op::Recv { poll_first, .. } = op else { unreachable!() };
        poll_first
    }

    #[test]
    fn a_stream_that_was_read_empty_is_waited_for() {
        assert!(next(64, 10, false, false, false));
        assert!(next(64, 10, true, false, false));
        assert!(next(64, 64, true, false, false));
    }

    #[test]
    fn what_may_have_more_is_read_at_once() {
        assert!(!next(64, 64, true, true, false));
        assert!(!next(64, 64, false, false, false), "of a Unix socket");
    }

    #[test]
    fn a_quick_other_end_is_not_waited_for() {
        assert!(!next(64, 10, true, false, true));
        assert!(!next(64, 64, true, false, true));
    }

    #[test]
    fn who_may_not_wait_does_not() {
        let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        let habit = Habit::new();
        for (room, flags) in [(0, 0), (64, libc::MSG_DONTWAIT)] {
            habit.set_reads(Way::Ring);
            let mut op = Op::Recv {
                fd: socket.as_fd(),
                buf: &mut vec![0; room],
                flags,
                habit: Some(&habit),
                tells: true,
                poll_first: false,
                turn: 0,
                tried: false,
            };
            prepare(&mut op, true);
            assert!(matches!(op, Op::Recv { poll_first: false, .. }));
        }
    }
}
