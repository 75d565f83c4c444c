//! Mapped memory: reserving address space, and advice about ranges of it.
//!
//! Everything here is one system call with its errno as an `io::Error`; policy (which advice, what
//! to do when it is refused) belongs to `stack/`. May be called from any thread.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Turns pages into guards without splitting the mapping (Linux 6.13; absent from older headers).
pub(crate) const MADV_GUARD_INSTALL: i32 = 102;

/// `process_madvise` takes this for "the calling thread's process" where a pidfd is expected.
const PIDFD_SELF_THREAD: i32 = -10000;

/// The most ranges one `process_madvise` accepts (`UIO_MAXIOV`).
const MAX_RANGES: usize = 1024;

/// A range of mapped memory, laid out as the kernel's `struct iovec`.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Range(libc::iovec);

impl Range {
    pub(crate) fn new(base: NonNull<u8>, len: usize) -> Range {
        Range(libc::iovec { iov_base: base.as_ptr().cast(), iov_len: len })
    }

    pub(crate) fn base(&self) -> *mut u8 {
        self.0.iov_base.cast()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.iov_len
    }
}

/// The size of a page, asked for once.
#[inline]
pub(crate) fn page_size() -> usize {
    static PAGE: AtomicUsize = AtomicUsize::new(0);
    match PAGE.load(Ordering::Relaxed) {
        0 => {
            // SAFETY: sysconf reads no memory of ours.
            let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
            PAGE.store(page, Ordering::Relaxed);
            page
        }
        page => page,
    }
}

/// Maps `len` bytes of private, zeroed, readable and writable memory that is not accounted until it
/// is touched. `align` is a power of two.
pub(crate) fn reserve(len: usize, align: usize) -> io::Result<NonNull<u8>> {
    let first = map(len)?;
    let skew = first.addr().get() % align;
    if skew == 0 {
        return Ok(first);
    }
    // SAFETY: `first` is the mapping just made, and nobody else knows it.
    unsafe { unmap(first, len) };
    let wide = map(len.checked_add(align).ok_or(io::ErrorKind::InvalidInput)?)?;
    let before = wide.addr().get().next_multiple_of(align) - wide.addr().get();
    // SAFETY: `before <= align`, so both cut-off pieces and the rest lie in the mapping of
    // `len + align` bytes just made, and nobody else knows it.
    unsafe {
        let base = wide.add(before);
        unmap(wide, before);
        unmap(base.add(len), align - before);
        Ok(base)
    }
}

fn map(len: usize) -> io::Result<NonNull<u8>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_STACK;
    // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
    let base = unsafe {
        libc::mmap(ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
    };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(base.cast()).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))
}

/// Gives a mapping back; an empty one is none.
///
/// # Safety
/// `base..base + len` is page-aligned memory from [`reserve`] that nothing uses any more.
pub(crate) unsafe fn unmap(base: NonNull<u8>, len: usize) {
    if len > 0 {
        // SAFETY: the caller's promise. It can only fail by running out of mappings (a hole splits
        // one), and then the memory stays: a leak of address space.
        unsafe { libc::munmap(base.as_ptr().cast(), len) };
    }
}

/// Names a mapping in `/proc/self/maps` (`[anon:NAME]`), where the kernel can.
pub(crate) fn name(base: NonNull<u8>, len: usize, name: &'static core::ffi::CStr) {
    const PR_SET_VMA: i32 = 0x5356_4d41;
    const PR_SET_VMA_ANON_NAME: usize = 0;
    // SAFETY: changes a label only; the kernel copies the name.
    unsafe {
        libc::prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, base.as_ptr(), len, name.as_ptr());
    }
}

/// `madvise` on one range.
///
/// # Safety
/// The range is mapped and page-aligned, and what the advice does to its contents (zero them, make
/// them fault) is what every user of that memory expects.
pub(crate) unsafe fn advise(range: Range, advice: i32) -> io::Result<()> {
    // SAFETY: the caller's promise.
    match unsafe { libc::madvise(range.0.iov_base, range.0.iov_len, advice) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// `madvise` on many ranges in few calls. Returns how many ranges, from the front, were advised in
/// full, and the error that stopped it there.
///
/// # Safety
/// As for [`advise`], for each range; advice on a range may be given twice.
pub(crate) unsafe fn advise_many(ranges: &[Range], advice: i32) -> (usize, io::Result<()>) {
    let mut done = 0;
    let mut pidfd = SelfPidfd::Magic;
    while done < ranges.len() {
        let rest = &ranges[done..ranges.len().min(done + MAX_RANGES)];
        // SAFETY: `Range` is a transparent `iovec`; for their contents, the caller's promise.
        let advised = unsafe {
            libc::syscall(
                libc::SYS_process_madvise,
                pidfd.raw(),
                rest.as_ptr(),
                rest.len(),
                advice,
                0,
            )
        };
        if advised < 0 {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                Some(libc::EINTR) => continue,
                Some(libc::EBADF) if matches!(pidfd, SelfPidfd::Magic) => match SelfPidfd::open() {
                    Ok(opened) => pidfd = opened,
                    Err(error) => return (done, Err(error)),
                },
                _ => return (done, Err(error)),
            }
            continue;
        }
        let mut advised = advised as usize;
        let whole = rest.iter().take_while(|range| {
            let fits = range.len() <= advised;
            advised -= if fits { range.len() } else { 0 };
            fits
        });
        match whole.count() {
            0 => return (done, Err(io::ErrorKind::WriteZero.into())),
            count => done += count,
        }
    }
    (done, Ok(()))
}

/// How `process_madvise` names the calling process: a constant where the kernel knows it (6.14), or
/// a pidfd that lives for one batch. None is kept: after a fork it would name the parent.
enum SelfPidfd {
    Magic,
    Opened(std::os::fd::OwnedFd),
}

impl SelfPidfd {
    fn open() -> io::Result<SelfPidfd> {
        use std::os::fd::FromRawFd;
        // SAFETY: reads no memory of ours.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::getpid(), 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a descriptor just made, owned by nobody else.
        Ok(SelfPidfd::Opened(unsafe { std::os::fd::OwnedFd::from_raw_fd(fd as i32) }))
    }

    fn raw(&self) -> i32 {
        use std::os::fd::AsRawFd;
        match self {
            SelfPidfd::Magic => PIDFD_SELF_THREAD,
            SelfPidfd::Opened(fd) => fd.as_raw_fd(),
        }
    }
}

/// Makes every access to a range fault, by splitting the mapping (`mprotect(PROT_NONE)`).
///
/// # Safety
/// The range is mapped and page-aligned, and every user of that memory expects it to fault.
pub(crate) unsafe fn protect_none(range: Range) -> io::Result<()> {
    // SAFETY: the caller's promise.
    match unsafe { libc::mprotect(range.0.iov_base, range.0.iov_len, libc::PROT_NONE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
