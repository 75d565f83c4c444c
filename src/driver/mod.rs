//! L5, drivers: how a worker's operations reach the kernel and how their results come back.
//!
//! # The contract
//!
//! Each worker owns one driver and uses it from its own thread: in its idle context, and to
//! `cancel`, to `close`, and for the ops of a batch also on the fiber that it runs.
//!
//! - `enqueue(op)` takes over an op that stays where it is, with all that it borrows, until it is
//!   completed: its fiber is suspended, or it is of a batch (`coro/pending.rs`). It never blocks
//!   and never fails: what cannot be handed to the kernel now is kept and tried again in the next
//!   turn. Nothing needs to reach the kernel before the next turn.
//! - `turn(ready, wait)` hands everything over, waits as told, and appends the fiber of each op
//!   that the kernel is done with to `ready`, after storing the op's outcome; an op of a batch goes
//!   into the batch's list instead. It calls nobody. With many fibers ready it may leave what the
//!   kernel has done since the last turn to the next one, which then leaves nothing.
//! - `cancel(op)` asks for an op in flight to end early. The op still completes in some later turn:
//!   with its result if that came first, else with `-ECANCELED`.
//! - `close(fd)` closes a descriptor without anybody waiting for it: it is closed on return, unless
//!   its file system has to be asked first (as NFS does), which then goes on in the background.
//! - `waker()` gives what another thread needs to end this worker's wait.
//! - `in_flight()` is the number of ops taken over and not completed.
//!
//! A driver that would have to block may hand an op back: the op completes with [`TO_POOL`] or
//! [`TO_WAITERS`], nothing has happened, and a thread of that pool is to perform it. Only drivers
//! whose `Caps` say `readiness_only` do.
//!
//! An op that a driver has completed is never touched by it again. A driver that is dropped while
//! ops are in flight leaks what the kernel may still write to.
//!
//! | file         | what                                                                  |
//! |--------------|-----------------------------------------------------------------------|
//! | `caps.rs`    | what this kernel offers: every probe                                  |
//! | `refusal.rs` | why there is no ring, and what would bring one                        |
//! | `lower.rs`   | which ops go to the driver and which to the blocking pool             |
//! | `dirs.rs`    | directories in memory, in which workers create files themselves       |
//! | `wake.rs`    | the ways of waking a worker that waits                                |
//! | `choose.rs`  | which driver a runtime gets                                           |
//! | `uring/`     | io_uring                                                              |
//! | `poll/`      | system calls that do not wait, and epoll                              |

use crate::coro::{FiberList, PendingPtr};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

pub(crate) mod caps;
mod choose;
mod dirs;
pub(crate) mod lower;
pub(crate) mod refusal;
pub(crate) mod wake;

#[expect(unsafe_code, reason = "L5: submission entries and completions are raw memory")]
mod uring;

#[expect(unsafe_code, reason = "L5: ops in flight are reached by pointers")]
mod poll;

pub(crate) use caps::Caps;
pub use choose::DriverKind;
pub(crate) use choose::{Choice, choose, environment};
pub(crate) use poll::perform_ready;
pub use wake::WakeMethod;
pub(crate) use wake::{SleepWord, Waker};

/// How long a turn may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Not at all.
    No,
    /// Until something completes, the worker is woken, or this much time has passed.
    Until(Option<Duration>),
}

/// The outcome of an op that is to be performed on the blocking pool.
pub(crate) const TO_POOL: i32 = i32::MIN;
/// The outcome of an op that is to go through [`perform_ready`] on a thread for calls that may wait
/// for ever.
pub(crate) const TO_WAITERS: i32 = i32::MIN + 1;

/// What a driver is made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    /// Submission queue entries.
    pub(crate) ring_entries: u32,
    pub(crate) choice: Choice,
}

const MAX_ENTRIES: u32 = 32_768;

/// How long a driver's end waits for the descriptors that are being closed.
const LAST_CLOSES: Duration = Duration::from_secs(1);

/// A worker's driver; see the module's head.
pub(crate) enum Driver {
    Uring(Box<uring::Uring>),
    Poll(Box<poll::Poll>),
}

impl Driver {
    /// Makes a driver for the calling thread, woken through `word`.
    pub(crate) fn new(config: &Config, word: &'static SleepWord) -> io::Result<Self> {
        let entries = config.ring_entries;
        if entries == 0 || entries > MAX_ENTRIES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("ring_entries must be between 1 and {MAX_ENTRIES}, not {entries}"),
            ));
        }
        match config.choice {
            Choice::Poll => Ok(Self::Poll(Box::new(poll::Poll::new()?))),
            Choice::Uring { wake, or_poll } => match uring::Uring::new(entries, wake, word) {
                Err(error) if or_poll && choose::is_refusal(&error) => {
                    choose::warn(&error);
                    Ok(Self::Poll(Box::new(poll::Poll::new()?)))
                }
                uring => Ok(Self::Uring(Box::new(uring?))),
            },
        }
    }

    #[inline]
    pub(crate) fn enqueue(&mut self, op: PendingPtr, ready: &FiberList) {
        match self {
            Self::Uring(uring) => uring.enqueue(op, ready),
            Self::Poll(poll) => poll.enqueue(op, ready),
        }
    }

    #[inline]
    pub(crate) fn turn(&mut self, ready: &FiberList, wait: Wait) {
        match self {
            Self::Uring(uring) => uring.turn(ready, wait),
            Self::Poll(poll) => poll.turn(ready, wait),
        }
    }

    /// Whether a turn without waiting would find something to do. Costs a few loads.
    #[inline]
    pub(crate) fn has_events(&mut self) -> bool {
        match self {
            Self::Uring(uring) => uring.has_events(),
            Self::Poll(poll) => poll.has_events(),
        }
    }

    pub(crate) fn cancel(&mut self, op: PendingPtr) {
        match self {
            Self::Uring(uring) => uring.cancel(op),
            Self::Poll(poll) => poll.cancel(op),
        }
    }

    /// Cancels everything in flight.
    pub(crate) fn cancel_all(&mut self) {
        match self {
            Self::Uring(uring) => uring.cancel_all(),
            Self::Poll(poll) => poll.cancel_all(),
        }
    }

    pub(crate) fn close(&mut self, fd: OwnedFd) {
        match self {
            Self::Uring(uring) => uring.close(fd),
            Self::Poll(poll) => poll.close(fd),
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        match self {
            Self::Uring(uring) => uring.in_flight(),
            Self::Poll(poll) => poll.in_flight(),
        }
    }

    pub(crate) fn waker(&self) -> Waker {
        match self {
            Self::Uring(uring) => uring.waker(),
            Self::Poll(poll) => poll.waker(),
        }
    }

    pub(crate) fn caps(&self) -> &Arc<Caps> {
        match self {
            Self::Uring(uring) => uring.caps(),
            Self::Poll(poll) => poll.caps(),
        }
    }
}
