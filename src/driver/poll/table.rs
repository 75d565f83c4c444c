//! Who waits for which descriptor, and what epoll has been told.
//!
//! Descriptors are registered by number, once, and armed for one event at a time (`EPOLLONESHOT`).
//! A number may come to mean another file between two waits, and nobody tells us: therefore each
//! wait on a number that nobody waits on arms it anew, which also finds out that the number is not
//! in the set any more. While an op waits on it, the number is borrowed and means what it meant.
//!
//! What may be left behind is the registration of a number that was closed while another descriptor
//! keeps its file open. It is good for one event more, which the ops that then wait on the number
//! take for theirs: they are tried once in vain.
#![forbid(unsafe_code)]

use crate::coro::PendingPtr;
use crate::sys::epoll::Epoll;
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
    /// What epoll has been asked for; 0 after an event. Of no meaning without waiters.
    armed: u32,
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

    /// All that wait, out of their lists.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Waiter> {
        self.waiting = 0;
        self.entries.iter_mut().flat_map(|entry| entry.waiters.drain(..))
    }
}

impl Entry {
    /// Has epoll watch for everything that is waited for, `events` included.
    #[inline]
    pub(super) fn arm(&mut self, epoll: &Epoll, fd: RawFd, events: u32) -> Armed {
        if self.waiters.is_empty() {
            self.armed = 0;
        }
        let once = events | libc::EPOLLONESHOT as u32;
        if self.armed & once == once {
            return Armed::Yes;
        }
        let (mask, data) = (self.waiters.iter().fold(once, |all, w| all | w.events), fd as u64);
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

    /// An event has come: nothing is watched for any more.
    #[inline]
    pub(super) fn disarmed(&mut self) {
        self.armed = 0;
    }

    /// The number is closed.
    pub(super) fn forget(&mut self) {
        self.known = false;
    }
}
