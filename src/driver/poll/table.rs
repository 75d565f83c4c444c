//! Who waits for which descriptor, and what epoll has been told.
//!
//! Descriptors are registered by number, in one of two ways.
//!
//! *Armed* for one event at a time (`EPOLLONESHOT`). A number may come to mean another file between
//! two waits, and nobody tells us: therefore each wait on a number that nobody waits on arms it
//! anew, which also finds out that the number is not in the set any more. While an op waits on it,
//! the number is borrowed and means what it meant.
//!
//! *Kept*, with edges (`EPOLLET`), for an owner of ours that says who it is ([`Kept`]). As long as
//! the same owner comes, the number means the same file, and a wait needs no call. Invariant: if
//! the socket may be ready for something that is watched, then `ready` says so or an event is under
//! way. Events set it, in the worker's turn; it is cleared only when a call of the same thread has
//! found nothing since, after which whatever comes is a new edge. Only streams are kept, of which
//! `poll` says what a call would find. An op waits although `ready` says that it need not only in
//! doubt: see `doubts.rs`. What comes without an owner waits along with an owner's op
//! that waits already; otherwise it arms the number.
//!
//! What may be left behind is the registration of a number that was closed while another descriptor
//! keeps its file open. Its events tell an older `generation` than the entry's, and are dropped.
//! Nothing but an end of the whole set ends it: see `Poll::renew`.
#![forbid(unsafe_code)]

use crate::coro::PendingPtr;
use crate::op::Kept;
use crate::sys::epoll::{Epoll, Event};
use std::collections::VecDeque;
use std::os::fd::RawFd;

/// An op that waits for readiness.
#[derive(Clone, Copy)]
pub(super) struct Waiter {
    pub(super) op: PendingPtr,
    /// What it waits for: `EPOLLIN`, ..
    pub(super) events: u32,
    /// Events that were of no use to it, in a row.
    pub(super) vain: u8,
}

/// One descriptor.
#[derive(Default)]
pub(super) struct Entry {
    /// First come, first served.
    pub(super) waiters: VecDeque<Waiter>,
    /// It has been in the set under this number.
    known: bool,
    /// What epoll has been asked for. If not kept: 0 after an event, of no meaning without waiters.
    armed: u32,
    /// Whose number is kept; 0 if nobody's.
    owner: u64,
    /// What events of a kept number have said, and no call has found used up since.
    ready: u32,
    /// A read was filled since: whether `ready` is still right about `EPOLLIN` is not known.
    filled: bool,
    /// When to look into it, if an op waits in doubt; else 0. See `doubts.rs`.
    doubt: u64,
    /// Events of a kept number in a row for which nobody waited.
    unwanted: u8,
    /// Events that were asked for before this became what it is mean something else.
    generation: u32,
}

const IN: u32 = libc::EPOLLIN as u32;
const OUT: u32 = libc::EPOLLOUT as u32;
/// What is told of whatever was asked for.
pub(super) const ERRORS: u32 = (libc::EPOLLERR | libc::EPOLLHUP) as u32;
const ONCE: u32 = libc::EPOLLONESHOT as u32;
/// What is worth another call whatever the last one has found: ends, errors, and urgent bytes, in
/// front of which a read stops.
const ALWAYS: u32 = ERRORS | (libc::EPOLLRDHUP | libc::EPOLLPRI) as u32;
/// So many events that nobody waited for, and a number is not kept any more.
const UNWANTED: u8 = 16;

/// What to watch for good, for those who wait for `events`. What a read has to know of is left out
/// for those who do not read: each arrival is an event then.
fn edges(events: u32) -> u32 {
    let reads = if events & IN != 0 { (libc::EPOLLRDHUP | libc::EPOLLPRI) as u32 } else { 0 };
    events | reads | libc::EPOLLET as u32
}

/// The number that an event is about, and the generation it was asked for in.
#[inline]
pub(super) fn meaning(event: Event) -> (RawFd, u32) {
    (event.data() as RawFd, (event.data() >> 32) as u32) // what `Entry::tell` made of them
}

/// What came of arming.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Armed {
    Yes,
    /// It cannot be waited for: a file, or a device that is always ready.
    Unpollable,
    /// The kernel lacks memory or room, or wants no such thing; not the op's fault.
    No,
}

/// What is known of what a call would find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Promise {
    /// It would have to wait, or epoll will be asked and tell what there is.
    Nothing,
    /// What has come may have been taken.
    Doubt,
    /// Something has come.
    Something,
}

/// See the module's head.
#[derive(Default)]
pub(super) struct Table {
    entries: Vec<Entry>,
    /// Ops in all of them.
    pub(super) waiting: usize,
}

impl Table {
    #[inline]
    pub(super) fn entry(&mut self, fd: RawFd) -> &mut Entry {
        let index = fd as usize; // an open descriptor's number
        if index >= self.entries.len() {
            self.entries.resize_with((index + 1).next_power_of_two(), Entry::default);
        }
        &mut self.entries[index]
    }

    /// As `entry`, of a number that need not be a descriptor.
    pub(super) fn get(&mut self, fd: RawFd) -> Option<&mut Entry> {
        self.entries.get_mut(usize::try_from(fd).ok()?)
    }

    /// Of the ops that wait on `fd`, the first.
    #[inline]
    pub(super) fn first_op(&self, fd: RawFd) -> Option<PendingPtr> {
        let entry = self.entries.get(usize::try_from(fd).ok()?)?;
        entry.waiters.front().map(|waiter| waiter.op)
    }

    /// Whether an op on `fd` still waits in doubt until `due`.
    pub(super) fn is_in_doubt(&self, fd: RawFd, due: u64) -> bool {
        let entry = usize::try_from(fd).ok().and_then(|index| self.entries.get(index));
        entry.is_some_and(|entry| entry.doubt == due)
    }

    /// All numbers.
    pub(super) fn numbers(&self) -> std::ops::Range<RawFd> {
        0..self.entries.len() as RawFd // a number's power of two at most
    }

    /// All that wait, out of their lists.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Waiter> {
        self.waiting = 0;
        self.entries.iter_mut().flat_map(|entry| entry.waiters.drain(..))
    }
}

impl Entry {
    /// Has epoll watch for everything that is waited for, `events` included, which somebody waits
    /// for who has found nothing.
    #[inline]
    pub(super) fn arm(
        &mut self,
        epoll: &Epoll,
        fd: RawFd,
        events: u32,
        kept: Option<Kept>,
    ) -> Armed {
        let alone = self.waiters.is_empty();
        let owner = kept.map_or(0, |kept| kept.owner);
        if self.owner != 0 && (owner == self.owner || !alone) {
            let edges = edges(events);
            if self.armed & edges == edges {
                return Armed::Yes;
            }
            return self.tell(epoll, fd, self.armed | edges);
        }
        let wanted = if owner != 0 { edges(events) } else { events | ONCE };
        if self.owner == 0 && owner == 0 && !alone && self.armed & wanted == wanted {
            return Armed::Yes;
        }
        let all = self.waiters.iter().fold(events, |all, w| all | w.events);
        self.become_another();
        self.owner = owner;
        self.tell(epoll, fd, wanted | if owner != 0 { edges(all) } else { all })
    }

    /// Whoever asked for events so far did not ask for those that come from now on.
    fn become_another(&mut self) {
        (self.owner, self.ready, self.unwanted) = (0, 0, 0);
        (self.filled, self.doubt) = (false, 0);
        self.generation = self.generation.wrapping_add(1);
    }

    fn tell(&mut self, epoll: &Epoll, fd: RawFd, mask: u32) -> Armed {
        let data = u64::from(self.generation) << 32 | fd as u64; // not negative
        let mut result = -libc::ENOENT;
        if self.known {
            result = epoll.modify(fd, mask, data);
        }
        if result == -libc::ENOENT {
            result = epoll.add(fd, mask, data);
            if result == -libc::EEXIST {
                result = epoll.modify(fd, mask, data);
            }
        }
        self.known = result == 0;
        self.armed = if self.known { mask } else { 0 };
        if !self.known {
            self.become_another();
        }
        match -result {
            0 => Armed::Yes,
            libc::EPERM => Armed::Unpollable,
            _ => Armed::No,
        }
    }

    /// Takes an op out; `false` if it is not here.
    pub(super) fn remove(&mut self, op: PendingPtr) -> bool {
        let index = self.waiters.iter().position(|waiter| waiter.op == op);
        index.is_some_and(|index| self.waiters.remove(index).is_some())
    }

    /// An event has come. Returns whether it is about what the number means.
    #[inline]
    pub(super) fn came(&mut self, event: Event) -> bool {
        if meaning(event).1 != self.generation {
            return false;
        }
        if self.owner != 0 {
            self.ready |= event.events();
            if event.events() & (IN | ERRORS) != 0 {
                (self.filled, self.doubt) = (false, 0);
            }
        } else {
            self.armed = 0;
        }
        true
    }

    /// Whether epoll tells of changes only: not again what a call has left as it is.
    #[inline]
    pub(super) fn is_kept(&self) -> bool {
        self.owner != 0
    }

    /// What an op of this owner would find that had better wait for `events` first.
    #[inline]
    pub(super) fn promise(&self, kept: Kept, events: u32) -> Promise {
        if kept.owner != self.owner
            || self.armed & events != events
            || self.ready & (events | ALWAYS) == 0
        {
            Promise::Nothing
        } else if self.filled && events == IN && self.ready & ALWAYS == 0 {
            Promise::Doubt
        } else {
            Promise::Something
        }
    }

    /// A read of the owner's that had waited was filled.
    #[inline]
    pub(super) fn fill(&mut self) {
        self.filled = true;
    }

    /// Whether an op waits in doubt, or has done so.
    #[inline]
    pub(super) fn is_in_doubt(&self) -> bool {
        self.doubt != 0
    }

    /// An op waits in doubt until `due`.
    #[inline]
    pub(super) fn doubt(&mut self, due: u64) {
        self.doubt = due;
    }

    /// A call of the owner's, on this thread, has just found nothing.
    #[inline]
    pub(super) fn used_up(&mut self, kept: Kept, events: u32) {
        if kept.owner == self.owner {
            self.ready &= !(events & (IN | OUT));
            if events & IN != 0 {
                (self.filled, self.doubt) = (false, 0);
            }
        }
    }

    /// Somebody waits.
    #[inline]
    pub(super) fn push(&mut self, waiter: Waiter) {
        self.unwanted = 0;
        self.waiters.push_back(waiter);
    }

    /// Nobody waits for what has happened. Returns whether that is so for the last time: the caller
    /// forgets the number.
    #[inline]
    pub(super) fn is_unwanted(&mut self) -> bool {
        self.unwanted += 1;
        self.unwanted > UNWANTED
    }

    /// The number is to be closed, or nobody waits for its events any more. Returns whether epoll
    /// still knew it.
    pub(super) fn forget(&mut self, epoll: &Epoll, fd: RawFd) -> bool {
        // If another descriptor keeps the file open, the close leaves it in the set.
        let was_known = self.owner == 0 || epoll.remove(fd) == 0;
        self.lost();
        was_known
    }

    /// Epoll has lost it.
    pub(super) fn lost(&mut self) {
        self.become_another();
        (self.known, self.armed) = (false, 0);
    }
}
