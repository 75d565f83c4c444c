//! What has been learnt about one open file: which way its reads and writes are best made.
//!
//! All of it is hints that any thread may read and write at any time. A wrong one costs time, or
//! makes a read shorter than it had to be; it never makes an answer wrong.
#![forbid(unsafe_code)]

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64};

/// How an open file is read, or written, without waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Way {
    /// Nobody has asked yet.
    Unknown,
    /// It has offsets and is not open for direct I/O: a call that refuses to wait is worth trying.
    Try,
    /// Such calls work.
    Cached,
    /// A plain file in memory, of tmpfs or made by `memfd_create`: no call has anything to wait
    /// for.
    Memory,
    /// A stream whose other end is quick: the last read took something as soon as it began.
    Quick,
    /// Not at all: through the ring.
    Ring,
}

impl Way {
    fn of(bits: u8) -> Self {
        [Self::Unknown, Self::Try, Self::Cached, Self::Memory, Self::Quick]
            .into_iter()
            .find(|way| *way as u8 == bits)
            .unwrap_or(Self::Ring)
    }
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Habit {
    reads: AtomicU8,
    writes: AtomicU8,
    /// An op on this file went to the ring, which may hold on to the file for a moment longer.
    ringed: AtomicBool,
    /// Whether it has contents, as files have, rather than somebody at its other end; 0 if nobody
    /// has asked.
    stored: AtomicU8,
    /// Where the file's own position is believed to be; `UNKNOWN` if somebody else may move it.
    position: AtomicU64,
    /// See [`Kept`]; 0 if nobody has asked, `NOT_KEPT`.
    kept: AtomicU64,
    /// How often in a row nothing was left by a read that had waited and was filled. `FILLED` if
    /// the last read was one.
    fills: AtomicU8,
}

/// A stream socket for which epoll may be told once what to watch, as long as its owner lives:
/// whoever has the owner's number means the same open file by its descriptor as the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kept {
    /// No two owners have the same, and none has 0.
    pub(crate) owner: u64,
    /// A read that gets less than it has room for has read it empty.
    pub(crate) drains: bool,
}

const NOT_KEPT: u64 = 1;
/// In `kept`, beside the owner's number.
const DRAINS: u64 = 1;
/// The next owner's.
static OWNERS: AtomicU64 = AtomicU64::new(1);

/// In `fills`, beside the count.
const FILLED: u8 = 1 << 7;
/// So often makes it a habit.
const OFTEN: u8 = 4;

const UNKNOWN: u64 = u64::MAX;
const STORED: u8 = 1;
const STREAM: u8 = 2;

impl Habit {
    /// A file of which nothing is known.
    pub(crate) fn new() -> Self {
        Self {
            reads: AtomicU8::new(Way::Unknown as u8),
            writes: AtomicU8::new(Way::Unknown as u8),
            ringed: AtomicBool::new(false),
            stored: AtomicU8::new(0),
            position: AtomicU64::new(UNKNOWN),
            kept: AtomicU64::new(0),
            fills: AtomicU8::new(0),
        }
    }

    /// Whether its descriptor may be watched for good, if that is known.
    #[inline]
    pub(crate) fn kept(&self) -> Option<Option<Kept>> {
        match self.kept.load(Relaxed) {
            0 => None,
            NOT_KEPT => Some(None),
            bits => Some(Some(Kept { owner: bits >> 1, drains: bits & DRAINS != 0 })),
        }
    }

    /// Keeps the answer for [`Self::kept`], unless somebody else has given one; `drains` is `None`
    /// if it may not be watched for good.
    pub(crate) fn set_kept(&self, drains: Option<bool>) {
        let bits = match drains {
            None => NOT_KEPT,
            Some(drains) => OWNERS.fetch_add(1, Relaxed) << 1 | u64::from(drains),
        };
        _ = self.kept.compare_exchange(0, bits, Relaxed, Relaxed);
    }

    /// A read that had waited was filled. If that has left nothing each time, the next one had
    /// better wait as well.
    #[inline]
    pub(crate) fn filled(&self) {
        let count = self.fills.load(Relaxed) & !FILLED;
        if count >= OFTEN {
            self.set_reads(Way::Ring);
        } else {
            self.fills.store(count | FILLED, Relaxed);
        }
    }

    /// A read has found something at once, or nothing: what the last one has left.
    #[inline]
    pub(crate) fn followed(&self, something: bool) {
        let fills = self.fills.load(Relaxed);
        if fills & FILLED != 0 {
            let count = if something { 0 } else { (fills & !FILLED) + 1 };
            self.fills.store(count, Relaxed);
        }
    }

    /// What was believed to be empty was not, or is not any more: the next time it is not believed.
    #[cold]
    pub(crate) fn had_more(&self) {
        self.fills.store(OFTEN - 1, Relaxed);
        self.set_reads(Way::Try);
    }

    /// A file that has just been opened with these flags, and is known to be no pipe if
    /// `has_offsets`.
    pub(crate) fn opened(flags: i32, has_offsets: bool) -> Self {
        let habit = Self::new();
        if flags & libc::O_DIRECT != 0 {
            habit.set_reads(Way::Ring);
        } else if has_offsets {
            habit.set_reads(Way::Try);
        }
        habit.moved_to(0);
        habit
    }

    #[inline]
    pub(crate) fn reads(&self) -> Way {
        Way::of(self.reads.load(Relaxed))
    }

    pub(crate) fn set_reads(&self, way: Way) {
        self.reads.store(way as u8, Relaxed);
    }

    #[inline]
    pub(crate) fn writes(&self) -> Way {
        Way::of(self.writes.load(Relaxed))
    }

    pub(crate) fn set_writes(&self, way: Way) {
        self.writes.store(way as u8, Relaxed);
    }

    /// An op on the file goes to the ring.
    #[inline]
    pub(crate) fn set_ringed(&self) {
        if !self.ringed.load(Relaxed) {
            self.ringed.store(true, Relaxed);
        }
    }

    /// Whether it has contents, which are always "ready", if that is known.
    #[inline]
    pub(crate) fn is_stored(&self) -> Option<bool> {
        match self.stored.load(Relaxed) {
            0 => None,
            answer => Some(answer == STORED),
        }
    }

    pub(crate) fn set_stored(&self, stored: bool) {
        self.stored.store(if stored { STORED } else { STREAM }, Relaxed);
    }

    /// Whether `close` has nobody to ask and lets go of the file at once. The file systems that
    /// have to ask somebody at a close (NFS, FUSE, overlays) refuse calls that may not wait.
    #[inline]
    pub(crate) fn closes_at_once(&self) -> bool {
        let known = |way| matches!(way, Way::Cached | Way::Memory);
        !self.ringed.load(Relaxed) && (known(self.reads()) || known(self.writes()))
    }

    /// Where the file's own position is, as far as known.
    #[inline]
    pub(crate) fn position(&self) -> Option<u64> {
        Some(self.position.load(Relaxed)).filter(|position| *position != UNKNOWN)
    }

    /// The position is this now.
    #[inline]
    pub(crate) fn moved_to(&self, position: u64) {
        self.position.store(position, Relaxed);
    }

    /// The position has moved by this much.
    #[inline]
    pub(crate) fn moved_by(&self, bytes: usize) {
        if let Some(position) = self.position() {
            self.moved_to(position.saturating_add(bytes as u64));
        }
    }

    /// Somebody else may move the position from now on, or has moved it.
    pub(crate) fn forget_position(&self) {
        self.moved_to(UNKNOWN);
    }
}
