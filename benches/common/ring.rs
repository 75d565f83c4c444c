//! A bare io_uring for the limits: set up as well as the kernel allows, no scheduler around it.

#![allow(dead_code, reason = "each program uses some of it")]

use io_uring::{IoUring, cqueue, squeue, types};
use std::io;
use std::time::Duration;

/// A ring for one thread. Operations are numbered by the caller; `turn` gives back what is done.
pub struct Ring {
    ring: IoUring,
    entries: usize,
}

impl Ring {
    /// May be called from the thread that will use the ring, and only there.
    pub fn new(entries: u32) -> io::Result<Ring> {
        let mut builder = IoUring::builder();
        builder
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_no_sqarray();
        let ring = builder.build(entries)?;
        Ok(Ring { ring, entries: entries as usize })
    }

    pub fn registered(&self) -> io_uring::Submitter<'_> {
        self.ring.submitter()
    }

    /// Waits for so long, while nothing is in flight.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        let timeout = types::Timespec::from(timeout);
        let args = types::SubmitArgs::new().timespec(&timeout);
        match self.ring.submitter().submit_with_args(1, &args) {
            Err(error) if ![libc::ETIME, libc::EINTR].map(Some).contains(&error.raw_os_error()) => {
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// Runs a whole job: `next` fills in operations until it has no more of them or `depth` chains
    /// are in flight; `done` sees each completion and says whether its chain has ended.
    ///
    /// `next(slot, push)` pushes one chain for a free slot (0..depth), or returns false at the end
    /// of the job. The slot must be the `user_data`'s low 16 bits. `want` is how many completions
    /// each call waits for.
    ///
    /// # Safety
    ///
    /// What the operations point to must stay valid until this returns; it returns, or aborts, when
    /// nothing is in flight.
    pub unsafe fn run(
        &mut self,
        depth: usize,
        chain: usize,
        want: usize,
        mut next: impl FnMut(u64, &mut dyn FnMut(squeue::Entry)) -> bool,
        mut done: impl FnMut(&cqueue::Entry) -> bool,
    ) {
        assert!(depth * chain <= self.entries);
        let (submitter, mut sq, mut cq) = self.ring.split();
        // One `Submitter` for the whole run: it is what remembers the registered index.
        let mut submitter = submitter;
        let registered = submitter.register_ring_fd().is_ok();
        let mut free: Vec<u64> = (0..depth as u64).rev().collect();
        let mut more = true;
        while more || free.len() < depth {
            while more && let Some(slot) = free.pop() {
                let mut push = |entry: squeue::Entry| {
                    // SAFETY: the caller's promise; and the queue holds `depth` chains.
                    unsafe { sq.push(&entry) }.expect("room for every chain");
                };
                more = next(slot, &mut push);
                if !more {
                    free.push(slot);
                }
            }
            sq.sync();
            let in_flight = (depth - free.len()) * chain;
            if in_flight > 0 {
                match submitter.submit_and_wait(want.min(in_flight)) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => {
                        // Operations in flight point into the caller's memory: do not unwind.
                        eprintln!("io_uring_enter: {error}");
                        std::process::abort();
                    }
                }
            }
            cq.sync();
            for completion in &mut cq {
                if done(&completion) {
                    free.push(completion.user_data() & 0xffff);
                }
            }
            sq.sync();
        }
        if registered {
            submitter.unregister_ring_fd().expect("it was registered");
        }
    }
}

/// Memory aligned for O_DIRECT, zeroed.
pub struct Aligned {
    base: *mut u8,
    layout: std::alloc::Layout,
}

// SAFETY: it owns its memory, as a Box<[u8]> does.
unsafe impl Send for Aligned {}

impl Aligned {
    pub fn new(bytes: usize) -> Aligned {
        let layout = std::alloc::Layout::from_size_align(bytes, 4096).expect("a sane size");
        // SAFETY: the size is not zero.
        let base = unsafe { std::alloc::alloc_zeroed(layout) };
        assert!(!base.is_null());
        Aligned { base, layout }
    }

    pub fn at(&self, offset: usize) -> *mut u8 {
        assert!(offset < self.layout.size());
        self.base.wrapping_add(offset)
    }

    pub fn iovec(&self) -> libc::iovec {
        libc::iovec { iov_base: self.base.cast(), iov_len: self.layout.size() }
    }
}

impl Drop for Aligned {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { std::alloc::dealloc(self.base, self.layout) };
    }
}
