//! What this kernel offers. Every probe is made or kept here; its version is not asked for.
#![forbid(unsafe_code)]

use super::wake::WakeMethod;
use crate::coro::spans::foreign;
use crate::op::Op;
pub(crate) use crate::sys::mask::Version;
use crate::sys::mask::{self, Cap};
use io_uring::{Probe, Submitter, opcode};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

/// The opcodes that a driver supports, one bit each.
#[derive(Debug, Default)]
pub(crate) struct Caps {
    opcodes: [u64; 4],
    /// An accept can be told to go on by itself.
    accepts_many: bool,
    /// The driver waits for readiness, which files do not have.
    readiness_only: bool,
}

/// What waits for somebody else: all that epoll can help with.
const READINESS: [u8; 12] = [
    opcode::Nop::CODE,
    opcode::Read::CODE,
    opcode::Write::CODE,
    opcode::Readv::CODE,
    opcode::Writev::CODE,
    opcode::PollAdd::CODE,
    opcode::Accept::CODE,
    opcode::Connect::CODE,
    opcode::Send::CODE,
    opcode::Recv::CODE,
    opcode::SendMsg::CODE,
    opcode::RecvMsg::CODE,
];

impl Caps {
    /// Asks the kernel.
    pub(crate) fn of_ring(submitter: &Submitter<'_>) -> Arc<Self> {
        let mut probe = Probe::new();
        let mut caps = Self::default();
        if submitter.register_probe(&mut probe).is_ok() {
            for code in 0..=u8::MAX {
                if probe.is_supported(code) && !mask::hides_opcode(code) {
                    caps.opcodes[usize::from(code) / 64] |= 1 << (code % 64);
                }
            }
        }
        // It came with what every ring of ours must be able to do (`missing`).
        caps.accepts_many = !mask::hides(Cap::AcceptMultishot);
        Arc::new(caps)
    }

    /// Those of a driver that waits for readiness.
    pub(crate) fn of_poll() -> Arc<Self> {
        let mut caps = Self { readiness_only: true, ..Self::default() };
        for code in READINESS {
            caps.opcodes[usize::from(code) / 64] |= 1 << (code % 64);
        }
        Arc::new(caps)
    }

    /// Whether what cannot be waited for, such as a file, has to go to the blocking pool; and the
    /// driver may hand other ops back, too.
    #[inline(always)]
    pub(super) fn readiness_only(&self) -> bool {
        self.readiness_only
    }

    /// What a ring must be able to do: whatever may have to wait for somebody else, which on the
    /// blocking pool would use up its threads and could not be cancelled. The names of what it
    /// lacks.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let needed = [
            ("nop", opcode::Nop::CODE),
            ("read", opcode::Read::CODE),
            ("write", opcode::Write::CODE),
            ("readv", opcode::Readv::CODE),
            ("writev", opcode::Writev::CODE),
            ("poll_add", opcode::PollAdd::CODE),
            ("accept", opcode::Accept::CODE),
            ("connect", opcode::Connect::CODE),
            ("send", opcode::Send::CODE),
            ("recv", opcode::Recv::CODE),
            ("sendmsg", opcode::SendMsg::CODE),
            ("recvmsg", opcode::RecvMsg::CODE),
            ("close", opcode::Close::CODE),
            ("async_cancel", opcode::AsyncCancel::CODE),
        ];
        needed.into_iter().filter(|(_, code)| !self.has(*code)).map(|(name, _)| name).collect()
    }

    /// Whether the ring tries an open without waiting first, so that a FIFO opens at once.
    pub(crate) fn opens_in_haste(&self) -> bool {
        self.has(opcode::OpenAt::CODE)
    }

    /// Whether [`Op::AcceptLine`] takes anything.
    pub(crate) fn accepts_many(&self) -> bool {
        self.accepts_many
    }

    /// Whether pages are moved between descriptors without a thread of ours.
    pub(crate) fn splices(&self) -> bool {
        self.has(opcode::Splice::CODE)
    }

    /// Whether a receive can be told to wait before its first attempt. To rings this came with
    /// `socket`.
    #[inline]
    pub(crate) fn polls_first(&self) -> bool {
        self.readiness_only || self.has(opcode::Socket::CODE)
    }

    /// Whether a `Connect` only suspends with a socket that is in non-blocking mode.
    pub(crate) fn connects_in_haste(&self) -> bool {
        self.readiness_only
    }

    #[inline]
    fn has(&self, code: u8) -> bool {
        self.opcodes[usize::from(code) / 64] >> (code % 64) & 1 == 1
    }

    /// Whether the ring can perform `op`.
    #[inline(always)]
    pub(crate) fn supports(&self, op: &Op<'_>) -> bool {
        self.has(match op {
            Op::Nop => opcode::Nop::CODE,
            Op::Read { .. } | Op::ReadUninit { .. } => opcode::Read::CODE,
            Op::Write { .. } => opcode::Write::CODE,
            Op::ReadVectored { .. } => opcode::Readv::CODE,
            Op::WriteVectored { .. } => opcode::Writev::CODE,
            Op::OpenAt { .. } => opcode::OpenAt::CODE,
            Op::Close { .. } => opcode::Close::CODE,
            Op::Poll { .. } => opcode::PollAdd::CODE,
            Op::Accept { .. } | Op::AcceptLine { .. } => opcode::Accept::CODE,
            Op::Connect { .. } => opcode::Connect::CODE,
            Op::Send { .. } => opcode::Send::CODE,
            Op::Recv { .. } => opcode::Recv::CODE,
            Op::SendMsg { .. } => opcode::SendMsg::CODE,
            Op::RecvMsg { .. } => opcode::RecvMsg::CODE,
            Op::Splice { .. } => opcode::Splice::CODE,
            Op::Fsync { .. } => opcode::Fsync::CODE,
            Op::Ftruncate { .. } => opcode::Ftruncate::CODE,
            Op::Statx { .. } => opcode::Statx::CODE,
            Op::UnlinkAt { .. } => opcode::UnlinkAt::CODE,
            Op::MkdirAt { .. } => opcode::MkDirAt::CODE,
            Op::RenameAt { .. } => opcode::RenameAt::CODE,
            Op::LinkAt { .. } => opcode::LinkAt::CODE,
            Op::SymlinkAt { .. } => opcode::SymlinkAt::CODE,
        })
    }
}

/// What a ring here is like.
#[derive(Debug)]
pub(crate) struct Ring {
    /// The setup flags that it has.
    pub(crate) flags: Vec<&'static str>,
    pub(crate) lacks: Vec<Lack>,
}

/// Something that it has not, and what takes its place.
#[derive(Debug)]
pub(crate) struct Lack {
    pub(crate) what: &'static str,
    pub(crate) since: Version,
    pub(crate) instead: &'static str,
}

/// Makes a ring and looks at it.
pub(crate) fn ring() -> io::Result<Ring> {
    let (caps, setup) = on_a_thread_of_its_own(super::uring::look)?;
    let mut ring = Ring { flags: setup.flags, lacks: Vec::new() };
    for (cap, what, instead) in [
        (Cap::IowqMaxWorkers, "a limit for the kernel's own I/O threads", "the kernel's limit"),
        (Cap::SubmitAll, "batches that go on behind a bad entry", "more system calls"),
        (Cap::DeferTaskrun, "completions when the worker asks for them", "interrupted workers"),
        (Cap::NoSqArray, "a submission queue without an index", "a little more memory traffic"),
        (
            Cap::NoIowait,
            "idle workers that do not count as waiting for a disk",
            "they show as iowait",
        ),
    ] {
        if setup.lacks.contains(&cap) {
            ring.lacks.push(Lack { what, since: mask::since(cap), instead });
        }
    }
    for (code, what) in [
        (opcode::OpenAt::CODE, "opening files"),
        (opcode::Statx::CODE, "metadata of files"),
        (opcode::Fsync::CODE, "syncing files"),
        (opcode::UnlinkAt::CODE, "removing files"),
        (opcode::RenameAt::CODE, "renaming files"),
        (opcode::MkDirAt::CODE, "making directories"),
        (opcode::LinkAt::CODE, "making links"),
        (opcode::SymlinkAt::CODE, "making symbolic links"),
        (opcode::Ftruncate::CODE, "truncating files"),
    ] {
        if !caps.has(code) {
            let (since, instead) = (mask::since_opcode(code), "a thread of the blocking pool");
            ring.lacks.push(Lack { what, since, instead });
        }
    }
    if wake_method(&[WakeMethod::Futex]).is_err() {
        let offered = !is_hidden(WakeMethod::Futex) && caps.has(opcode::FutexWait::CODE);
        let what = match offered {
            false => "sleeping on a futex in the ring",
            true => "sleeping on a futex in the ring, which is there but does not wake",
        };
        let instead = match wake_method(&[WakeMethod::MsgRing, WakeMethod::EventFd]) {
            Ok(method) => method.words(),
            Err(_) => "nothing",
        };
        ring.lacks.push(Lack { what, since: mask::since(Cap::Futex), instead });
    }
    ring.lacks.sort_by_key(|lack| lack.since);
    Ok(ring)
}

/// Whether the variable that hides capabilities can be understood.
pub(crate) fn check_mask() -> io::Result<()> {
    mask::check()
}

/// The first of `candidates` that wakes a ring of this kernel, tried once per process.
pub(crate) fn wake_method(candidates: &[WakeMethod]) -> io::Result<WakeMethod> {
    let mut failed = Vec::new();
    let found = test_wake_methods(candidates, &mut failed);
    // Without the lock: a subscriber may build a runtime.
    for method in failed {
        foreign(|| tracing::info!(?method, "a sleeping worker cannot be woken this way here"));
    }
    found
}

/// Whether the process is to do without this way.
fn is_hidden(method: WakeMethod) -> bool {
    match method {
        WakeMethod::Futex => mask::hides(Cap::Futex) || mask::hides_opcode(opcode::FutexWait::CODE),
        WakeMethod::MsgRing => mask::hides(Cap::SendMsgRing),
        WakeMethod::EventFd => false,
    }
}

/// Makes an experiment with a ring. Some time after a ring has gone, the kernel takes its traces
/// off the thread that used it, and for that interrupts what the thread waits in: a `recv` with a
/// timeout, say, then fails with `EINTR`. So the thread goes first.
fn on_a_thread_of_its_own<T: Send>(f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("ramie-probe".into());
        match thread.spawn_scoped(scope, f)?.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn test_wake_methods(
    candidates: &[WakeMethod],
    failed: &mut Vec<WakeMethod>,
) -> io::Result<WakeMethod> {
    static TESTED: Mutex<Vec<(WakeMethod, bool)>> = Mutex::new(Vec::new());
    let mut tested = TESTED.lock().unwrap_or_else(PoisonError::into_inner);
    for &method in candidates {
        let known = tested.iter().find(|(tested, _)| *tested == method).map(|(_, works)| *works);
        let works = match known {
            Some(works) => works,
            None => {
                let works = !is_hidden(method)
                    && on_a_thread_of_its_own(|| super::uring::self_test(method))?;
                tested.push((method, works));
                if !works && !is_hidden(method) {
                    failed.push(method);
                }
                works
            }
        };
        if works {
            return Ok(method);
        }
    }
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        format!("io_uring: a waiting ring cannot be woken by any of {candidates:?} here"),
    ))
}
