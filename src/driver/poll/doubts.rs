//! Streams of which it is not known whether they have been read empty, and which are not looked
//! into yet.
//!
//! A read that gets all that it has room for may have left something, of which no edge will tell.
//! The call that finds out costs a tenth of what a small request does. Where it has found nothing
//! again and again (`Habit::filled`), the next read waits for an edge in doubt: a client that has
//! been answered sends its next request, and the doubt is gone. If no edge comes, the stream is
//! looked into after all: when the worker has nothing else to do; when epoll has told of twice as
//! many events as there are waiters, or has answered [`ANSWERS`] times; when it has told nothing
//! twice; or when the op is to end, because its time is over, say. What was left has waited as long
//! as that.
//!
//! Invariant: while an op waits for bytes that may be there, its entry's `doubt` is that of a
//! record in the list; and the driver sleeps only if the list has no such records.
#![forbid(unsafe_code)]

use super::table::Waiter;
use super::{EVENTS, Origin, Poll};
use crate::coro::{FiberList, PendingPtr};
use crate::op::Op;
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::time::Duration;

/// So few are looked into at once: to ask epoll first costs as much.
const FEW: usize = 4;
/// So many answers of epoll's make a stream due, however few events they tell of.
const ANSWERS: usize = 16;

/// See the module's head.
#[derive(Default)]
pub(super) struct Doubts {
    /// In order of `due`, nearly. Those that are no doubts any more may still be here.
    list: VecDeque<Doubt>,
    /// Events that epoll has told of, at least some for each answer, and for none as many as there
    /// might have been.
    told: u64,
}

/// An op on `fd` waits in doubt.
#[derive(Clone, Copy)]
pub(super) struct Doubt {
    pub(super) fd: RawFd,
    /// It is looked into when so many events have been told.
    pub(super) due: u64,
}

impl Doubts {
    pub(super) fn clear(&mut self) {
        self.list.clear();
    }

    /// Epoll has told of so many events, of those that wait for `most`.
    #[inline]
    pub(super) fn told(&mut self, events: usize, most: usize) {
        self.told += match events {
            0 => most as u64,
            _ => events.max(2 * most / ANSWERS) as u64,
        };
    }

    /// An op on `fd` begins to wait; at `most` so many wait for events. Returns when it is due.
    #[inline]
    pub(super) fn add(&mut self, fd: RawFd, most: usize) -> u64 {
        let due = self.told + 2 * most as u64;
        self.list.push_back(Doubt { fd, due });
        due
    }

    /// Forgets the first ones that are none any more.
    pub(super) fn prune(&mut self, is_doubt: impl Fn(Doubt) -> bool) {
        while self.list.front().is_some_and(|doubt| !is_doubt(*doubt)) {
            self.list.pop_front();
        }
    }

    /// Takes out the next one that is due, or just the next one.
    pub(super) fn next(&mut self, due_only: bool) -> Option<Doubt> {
        self.list.pop_front_if(|doubt| !due_only || doubt.due <= self.told)
    }
}

impl Poll {
    /// Has an op wait for what there may be already.
    #[inline]
    pub(super) fn wait_in_doubt(
        &mut self,
        op: PendingPtr,
        from: Origin,
        events: u32,
        ready: &FiberList,
    ) {
        if !self.table.entry(from.fd).is_in_doubt() {
            let due = self.doubts.add(from.fd, self.all_events());
            self.table.entry(from.fd).doubt(due);
        }
        self.wait_for_next(Waiter { op, events, vain: 0 }, from, ready);
    }

    /// Whether an op waits in doubt.
    #[inline]
    pub(super) fn has_doubts(&mut self) -> bool {
        let Self { doubts, table, .. } = self;
        doubts.prune(|doubt| table.is_in_doubt(doubt.fd, doubt.due));
        !doubts.list.is_empty()
    }

    /// How many events there might be.
    #[inline]
    pub(super) fn all_events(&self) -> usize {
        self.table.waiting.max(2 * EVENTS)
    }

    /// Looks into streams in doubt: those that are due, and while there is nothing else to do one
    /// after the other. A worker without anything to run is left with no doubts.
    pub(super) fn ask_in_doubt(&mut self, ready: &FiberList) {
        while self.look(true, ready) {}
        while ready.is_empty() && self.has_doubts() {
            if self.doubts.list.len() > FEW {
                self.ask(Some(Duration::ZERO));
                if !self.seen.is_empty() {
                    return;
                }
            }
            for _ in 0..FEW {
                if !ready.is_empty() || !self.look(false, ready) {
                    break;
                }
            }
        }
    }

    /// Looks into the next one; `false` if there is none.
    fn look(&mut self, due_only: bool, ready: &FiberList) -> bool {
        let Some(doubt) = self.doubts.next(due_only) else { return false };
        if self.table.is_in_doubt(doubt.fd, doubt.due) {
            self.table.entry(doubt.fd).doubt(0);
            self.serve(doubt.fd, libc::EPOLLIN as u32, false, ready);
        }
        true
    }

    /// A receive of an owner's, from what is kept, has waited and is done; `told` if an event said
    /// that it would be.
    #[inline]
    pub(super) fn learn(&mut self, fd: RawFd, op: &Op<'_>, result: i32, told: bool) {
        let Op::Recv { buf, habit: Some(habit), .. } = op else { return };
        if !told {
            habit.had_more();
        }
        if result > 0 && result as usize == buf.len() {
            self.table.entry(fd).fill();
            if told {
                habit.filled();
            }
        }
    }
}
