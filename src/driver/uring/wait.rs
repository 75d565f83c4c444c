//! What is armed in a ring so that its sleeping worker can be woken, and the proof that it works.

use super::ring::Ring;
use super::{TAG_WAKE, setup};
use crate::driver::SleepWord;
use crate::driver::wake::{SLEEP, WakeMethod, Waker};
use crate::sys::ring as sys_ring;
use io_uring::{opcode, squeue, types};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// `FUTEX2_SIZE_U32 | FUTEX2_PRIVATE`: the only size there is, and private to this process.
const FUTEX_FLAGS: u32 = 2 | 128;
const FUTEX_ANY: u64 = 0xffff_ffff;

/// The armed wait of one ring. What the kernel may touch is never freed: the sleep word is
/// `'static`, and the counter is leaked.
pub(super) struct Arm {
    kind: Kind,
    armed: bool,
}

enum Kind {
    Futex(&'static SleepWord),
    MsgRing,
    EventFd { fd: OwnedFd, count: &'static std::sync::atomic::AtomicU64 },
}

impl Arm {
    pub(super) fn new(method: WakeMethod, word: &'static SleepWord) -> io::Result<Self> {
        let kind = match method {
            WakeMethod::Futex => Kind::Futex(word),
            WakeMethod::MsgRing => Kind::MsgRing,
            WakeMethod::EventFd => {
                Kind::EventFd { fd: sys_ring::eventfd()?, count: Box::leak(Box::default()) }
            }
        };
        Ok(Self { kind, armed: false })
    }

    pub(super) fn waker(&self, ring: RawFd) -> Waker {
        match &self.kind {
            Kind::Futex(_) => Waker::Futex,
            Kind::MsgRing => Waker::MsgRing(ring),
            Kind::EventFd { fd, .. } => Waker::EventFd(fd.as_raw_fd()),
        }
    }

    /// The entry to submit before waiting; `None` when nothing has to be armed.
    pub(super) fn entry(&self) -> Option<squeue::Entry> {
        if self.armed {
            return None;
        }
        let entry = match &self.kind {
            Kind::Futex(word) => opcode::FutexWait::new(
                word.word().as_ptr(),
                u64::from(SLEEP),
                FUTEX_ANY,
                FUTEX_FLAGS,
            )
            .build(),
            Kind::MsgRing => return None,
            Kind::EventFd { fd, count } => {
                opcode::Read::new(types::Fd(fd.as_raw_fd()), count.as_ptr().cast(), 8).build()
            }
        };
        Some(entry.user_data(TAG_WAKE))
    }

    pub(super) fn set_armed(&mut self) {
        self.armed = true;
    }

    /// The ring is about to be closed, which the kernel does in its own time. Until then the wait
    /// of a dead ring would stay in line for the word, in front of that of the word's next user,
    /// and swallow a wake-up that is meant for the other. So it is woken here.
    pub(super) fn disarm(&mut self) {
        if let Kind::Futex(word) = &self.kind
            && self.armed
        {
            crate::sys::futex::wake(word.word(), i32::MAX);
        }
        self.armed = false;
    }

    /// The armed wait has completed, for whatever reason.
    pub(super) fn woken(&mut self) {
        self.armed = false;
    }
}

/// Whether a ring of this kernel really is woken by `method`: arms it, pokes it from another
/// thread, and looks whether that arrives.
///
/// A futex wait that is armed while the process has a single thread can miss its wake on Linux 6.16
/// and later, because the process moves to a futex table of its own when its second thread starts.
/// Therefore the other thread exists before anything is armed, which also settles the matter for
/// the rest of the process's life.
pub(crate) fn self_test(method: WakeMethod) -> io::Result<bool> {
    // After a poke: one that the kernel passes on arrives in microseconds.
    const PATIENCE: Duration = Duration::from_millis(500);
    // For the other thread to come to its poke, which a busy machine may keep from running.
    const STARTING: Duration = Duration::from_secs(10);
    // Some tools run one thread at a time, and none while one waits in the kernel: short waits, and
    // a yield after each, let the other thread come to its poke.
    const SLICE: Duration = Duration::from_millis(5);
    // The kernel may keep looking at the word for as long as the ring lives.
    let word: &'static SleepWord = Box::leak(Box::new(SleepWord::new()));
    let (go, wait_for_go) = mpsc::channel::<Waker>();
    let (poked, first_poke) = mpsc::channel::<()>();
    let poker = thread::Builder::new().name("ramie-self-test".into()).spawn(move || {
        if let Ok(waker) = wait_for_go.recv() {
            word.notify(|word| _ = waker.poke(word));
            _ = poked.send(());
        }
    })?;
    let woken = (|| -> io::Result<bool> {
        let (ring, _) = setup::create(8)?;
        let mut ring: Ring = ring;
        let arm = Arm::new(method, word)?;
        word.announce();
        if let Some(entry) = arm.entry() {
            // SAFETY: the word and the counter are leaked.
            if !unsafe { ring.push(&entry) } {
                return Ok(false);
            }
        }
        ring.submit();
        if ring.next_completion().is_some() {
            return Ok(false); // refused at once: the kernel does not know the operation
        }
        _ = go.send(arm.waker(ring.fd()));
        let mut deadline = Instant::now() + STARTING;
        while Instant::now() < deadline {
            ring.submit_and_wait(Some(SLICE));
            if let Some((_, result)) = ring.next_completion() {
                return Ok(result >= 0);
            }
            if first_poke.try_recv().is_ok() {
                deadline = Instant::now() + PATIENCE;
            }
            thread::yield_now();
        }
        Ok(false)
    })();
    drop(go);
    _ = poker.join();
    woken
}
