//! The mapped queues and `io_uring_enter`.
//!
//! One `Submitter` is kept for the ring's life, because that is where the io-uring crate keeps the
//! index of the registered ring descriptor.

use crate::sys::mask::{self, Cap};
use io_uring::{CompletionQueue, EnterFlags, IoUring, SubmissionQueue, Submitter};
use io_uring::{cqueue, squeue, types};
use std::io;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{AsRawFd, RawFd};
use std::ptr::NonNull;
use std::time::Duration;

/// See the module's head. Used by one thread only.
pub(super) struct Ring {
    // The three parts borrow from `whole`, which is on the heap and dropped after them.
    submitter: ManuallyDrop<Submitter<'static>>,
    sq: ManuallyDrop<SubmissionQueue<'static>>,
    cq: ManuallyDrop<CompletionQueue<'static>>,
    whole: NonNull<IoUring>,
    no_iowait: bool,
    leaked: bool,
    /// Looks at the flag for deferred completions still to be skipped; see `distrust_flag`.
    skip_flag: u32,
}

/// How many looks at a flag that has proved stale are skipped.
const SKIPS: u32 = 32;

impl Ring {
    pub(super) fn new(ring: IoUring) -> Self {
        let whole = NonNull::from(Box::leak(Box::new(ring)));
        // SAFETY: the ring stays at this address until `drop`, which drops the parts first.
        let (mut submitter, sq, cq) = unsafe { (*whole.as_ptr()).split() };
        // A registered ring descriptor saves a look-up per call; one task has 16 places for them.
        if !mask::hides(Cap::RingFds) {
            _ = submitter.register_ring_fd();
        }
        // SAFETY: as above.
        let params = unsafe { whole.as_ref() }.params();
        let no_iowait = params.is_feature_no_iowait() && !mask::hides(Cap::NoIowait);
        Self {
            submitter: ManuallyDrop::new(submitter),
            sq: ManuallyDrop::new(sq),
            cq: ManuallyDrop::new(cq),
            whole,
            no_iowait,
            leaked: false,
            skip_flag: 0,
        }
    }

    pub(super) fn fd(&self) -> RawFd {
        // SAFETY: `whole` lives as long as self.
        unsafe { self.whole.as_ref() }.as_raw_fd()
    }

    /// Whether it can wait without counting as waiting for a disk.
    pub(super) fn no_iowait(&self) -> bool {
        self.no_iowait
    }

    pub(super) fn submitter(&self) -> &Submitter<'static> {
        &self.submitter
    }

    /// Puts an entry into the submission queue; `false` if that is full.
    ///
    /// # Safety
    /// Everything the entry points to stays valid until its completion.
    #[inline]
    pub(super) unsafe fn push(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: the caller's promise.
        unsafe { self.sq.push(entry) }.is_ok()
    }

    /// Whether there is nothing to submit and nothing that the kernel wants to run.
    #[inline]
    pub(super) fn is_idle(&mut self) -> bool {
        self.sq.is_empty() && !self.has_deferred()
    }

    /// Whether completions wait for us to enter the kernel.
    #[inline]
    pub(super) fn has_deferred(&mut self) -> bool {
        if self.sq.cq_overflow() {
            return true;
        }
        let flag = self.sq.taskrun();
        if flag && self.skip_flag != 0 {
            self.skip_flag -= 1;
            return false;
        }
        flag
    }

    /// The flag for deferred completions was up for nothing: it is not believed for a while. What
    /// it may announce meanwhile is found by the next wait at the latest.
    #[cold]
    pub(super) fn distrust_flag(&mut self) {
        self.skip_flag = SKIPS;
    }

    #[inline]
    pub(super) fn has_completions(&mut self) -> bool {
        self.cq.sync();
        !self.cq.is_empty()
    }

    #[inline]
    fn next_entry(&mut self) -> Option<cqueue::Entry> {
        if self.cq.is_empty() {
            self.cq.sync();
        }
        let entry = self.cq.next()?;
        self.skip_flag = 0;
        Some(entry)
    }

    pub(super) fn next_completion(&mut self) -> Option<(u64, i32)> {
        self.next_entry().map(|entry| (entry.user_data(), entry.result()))
    }

    /// As many completions as there are and as fit in, perhaps fewer; none if there are none.
    #[inline]
    pub(super) fn next_completions<'a>(
        &mut self,
        batch: &'a mut [MaybeUninit<cqueue::Entry>],
    ) -> &'a [cqueue::Entry] {
        if self.cq.is_empty() {
            self.cq.sync();
        }
        let taken = self.cq.fill(batch);
        if !taken.is_empty() {
            self.skip_flag = 0;
        }
        taken
    }

    /// Tells the kernel that what `next_completion` returned may be overwritten.
    #[inline]
    pub(super) fn release_completions(&mut self) {
        self.cq.sync();
    }

    /// Hands all entries over, without waiting. `false` if the kernel took none of them because it
    /// first wants its completions taken, or lacks memory.
    #[inline]
    pub(super) fn submit(&mut self) -> bool {
        self.sq.sync();
        let count = self.sq.len() as u32;
        self.enter(count, 0, EnterFlags::GETEVENTS, None)
    }

    /// How many entries there are to hand over.
    #[inline]
    pub(super) fn queued(&self) -> usize {
        self.sq.len()
    }

    /// Hands all entries over and leaves deferred work alone. `false` as for `submit`.
    #[inline]
    pub(super) fn submit_only(&mut self) -> bool {
        self.sq.sync();
        let count = self.sq.len() as u32;
        count == 0 || self.enter(count, 0, EnterFlags::empty(), None)
    }

    /// Hands all entries over, and looks at deferred work only if there is some, without regard to
    /// whether it completes anything.
    pub(super) fn hand_over(&mut self) {
        self.sq.sync();
        let count = self.sq.len() as u32;
        let flags = if self.sq.taskrun() { EnterFlags::GETEVENTS } else { EnterFlags::empty() };
        self.enter(count, 0, flags, None);
    }

    /// Lets the kernel finish the completions it has deferred.
    pub(super) fn run_deferred(&mut self) {
        self.enter(0, 0, EnterFlags::GETEVENTS, None);
    }

    /// Hands all entries over and waits until something completes, or for `timeout`.
    pub(super) fn submit_and_wait(&mut self, timeout: Option<Duration>) {
        self.sq.sync();
        let count = self.sq.len() as u32;
        // Never a zero timeout: arming a timer costs a hundred times a look without waiting.
        let want = if self.has_completions() || timeout == Some(Duration::ZERO) { 0 } else { 1 };
        let mut flags = EnterFlags::GETEVENTS;
        if self.no_iowait {
            flags |= EnterFlags::NO_IOWAIT;
        }
        self.enter(count, want, flags, if want == 0 { None } else { timeout });
    }

    /// One `io_uring_enter`. `false` if it took nothing for want of room or memory.
    #[inline]
    fn enter(
        &mut self,
        count: u32,
        want: u32,
        mut flags: EnterFlags,
        timeout: Option<Duration>,
    ) -> bool {
        let result = match timeout {
            // SAFETY: every entry was pushed under `push`'s contract.
            None => unsafe {
                self.submitter.enter::<libc::sigset_t>(count, want, flags.bits(), None)
            },
            Some(timeout) => {
                let timespec = types::Timespec::from(timeout);
                let args = types::SubmitArgs::new().timespec(&timespec);
                flags |= EnterFlags::EXT_ARG;
                // SAFETY: as above; the arguments are alive during the call.
                unsafe { self.submitter.enter(count, want, flags.bits(), Some(&args)) }
            }
        };
        self.sq.sync();
        match result {
            Ok(_) => true,
            Err(error) => match error.raw_os_error() {
                // A signal, or the end of the wait: the entries have been taken.
                Some(libc::EINTR | libc::ETIME) => true,
                // No memory now; or completions have to be taken first. Tried again next turn.
                Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM) => {
                    std::thread::yield_now();
                    false
                }
                _ => broken(&error),
            },
        }
    }

    /// Never unmaps or closes the ring.
    pub(super) fn leak(&mut self) {
        self.leaked = true;
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.leaked {
            return;
        }
        // SAFETY: dropped once, here, and before what they borrow from.
        unsafe {
            ManuallyDrop::drop(&mut self.cq);
            ManuallyDrop::drop(&mut self.sq);
            let mut submitter = ManuallyDrop::take(&mut self.submitter);
            _ = submitter.unregister_ring_fd();
            drop(Box::from_raw(self.whole.as_ptr()));
        }
    }
}

/// The kernel has lost a completion or refuses the ring altogether. The fibers that wait can never
/// be resumed, and their buffers never be freed: nothing can go on.
#[cold]
fn broken(error: &io::Error) -> ! {
    eprintln!("ramie: io_uring_enter failed in a way that no program can handle: {error}");
    std::process::abort();
}
