//! epoll, and the wait that workers without a ring sleep in.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::file::answer;

/// `epoll_pwait2`, which takes nanoseconds. Linux 5.11. The number is the same everywhere.
const SYS_EPOLL_PWAIT2: libc::c_long = 441;
/// The longest wait that is asked for at once: a week.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// What has happened to one descriptor.
#[repr(transparent)]
#[derive(Clone, Copy)]
pub(crate) struct Event(libc::epoll_event);

impl Event {
    pub(crate) const NONE: Self = Self(libc::epoll_event { events: 0, u64: 0 });

    /// `EPOLLIN`, ..
    #[inline]
    pub(crate) fn events(self) -> u32 {
        self.0.events
    }

    /// What the descriptor was registered with.
    #[inline]
    pub(crate) fn data(self) -> u64 {
        self.0.u64
    }
}

/// A set of descriptors whose readiness can be waited for.
#[derive(Debug)]
pub(crate) struct Epoll(OwnedFd);

impl Epoll {
    /// # Errors
    /// If there is no descriptor or no memory left.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: numbers only.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given it to us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    fn control(&self, what: i32, fd: RawFd, events: u32, data: u64) -> i32 {
        let mut event = libc::epoll_event { events, u64: data };
        // SAFETY: reads one record from a live local. A number that is no descriptor is an error.
        answer(unsafe { libc::epoll_ctl(self.0.as_raw_fd(), what, fd, &raw mut event) } as isize)
    }

    /// Puts a descriptor into the set: 0, or `-errno`.
    pub(crate) fn add(&self, fd: RawFd, events: u32, data: u64) -> i32 {
        self.control(libc::EPOLL_CTL_ADD, fd, events, data)
    }

    /// Changes what is waited for: 0, or `-errno`.
    #[inline]
    pub(crate) fn modify(&self, fd: RawFd, events: u32, data: u64) -> i32 {
        self.control(libc::EPOLL_CTL_MOD, fd, events, data)
    }

    /// Takes a descriptor out of the set: 0, or `-errno`.
    pub(crate) fn remove(&self, fd: RawFd) -> i32 {
        self.control(libc::EPOLL_CTL_DEL, fd, 0, 0)
    }

    /// Whether this cannot be in a set: a file, or a device like `/dev/null`. It is in the set
    /// afterwards if it was before.
    #[cold]
    pub(crate) fn refuses(&self, fd: RawFd) -> bool {
        match self.add(fd, 0, 0) {
            0 => self.remove(fd) == -libc::EPERM,
            error => error == -libc::EPERM,
        }
    }

    /// Waits until something happens, at most for `timeout`, and returns how many records were
    /// filled: none also when a signal came.
    #[inline]
    pub(crate) fn wait(&self, events: &mut [Event], timeout: Option<Duration>) -> usize {
        let count = match timeout {
            Some(timeout) if timeout.is_zero() => self.wait_ms(events, 0),
            None => self.wait_ms(events, -1),
            Some(timeout) => self.wait_exactly(events, timeout.min(LONGEST)),
        };
        usize::try_from(count).unwrap_or(0)
    }

    #[inline]
    fn wait_ms(&self, events: &mut [Event], ms: i32) -> i32 {
        let (ptr, len) = (events.as_mut_ptr().cast(), events.len() as i32);
        // SAFETY: `events` is ours to write for the whole call, and an `Event` is the kernel's
        // record.
        answer(unsafe { libc::epoll_wait(self.0.as_raw_fd(), ptr, len, ms) } as isize)
    }

    fn wait_exactly(&self, events: &mut [Event], timeout: Duration) -> i32 {
        static MISSING: AtomicBool = AtomicBool::new(false);
        if !MISSING.load(Ordering::Relaxed) {
            let time = libc::timespec {
                tv_sec: timeout.as_secs() as libc::time_t, // a week at most
                tv_nsec: timeout.subsec_nanos().into(),
            };
            // SAFETY: `events` is ours to write for the whole call, and an `Event` is the kernel's
            // record; the time is a live local; there is no signal mask.
            let result = answer(unsafe {
                libc::syscall(
                    SYS_EPOLL_PWAIT2,
                    self.0.as_raw_fd(),
                    events.as_mut_ptr(),
                    events.len(),
                    &raw const time,
                    std::ptr::null::<libc::sigset_t>(),
                    0_usize,
                )
            } as isize);
            match -result {
                // Older kernels; sandboxes answer EPERM to what they do not know.
                libc::ENOSYS | libc::EPERM => MISSING.store(true, Ordering::Relaxed),
                _ => return result,
            }
        }
        let ms = timeout.as_nanos().div_ceil(1_000_000);
        self.wait_ms(events, i32::try_from(ms).unwrap_or(i32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::ring;
    use std::time::Instant;

    #[test]
    fn what_never_waits_is_refused() {
        let epoll = Epoll::new().unwrap();
        let null = std::fs::File::open("/dev/null").unwrap();
        let (reader, _writer) = std::io::pipe().unwrap();
        assert!(epoll.refuses(null.as_raw_fd()));
        for _ in 0..2 {
            assert!(!epoll.refuses(reader.as_raw_fd()), "and it is not left there");
        }
        assert_eq!(epoll.add(reader.as_raw_fd(), 0, 1), 0);
        assert!(!epoll.refuses(reader.as_raw_fd()));
        assert_eq!(epoll.remove(reader.as_raw_fd()), 0, "it is left where it was");
    }

    #[test]
    fn waits_no_shorter_than_told() {
        let epoll = Epoll::new().unwrap();
        let events = &mut [Event::NONE; 4];
        for timeout in [Duration::from_micros(300), Duration::from_millis(3)] {
            let start = Instant::now();
            assert_eq!(epoll.wait(events, Some(timeout)), 0);
            assert!(start.elapsed() >= timeout);
            let start = Instant::now();
            let ms = timeout.as_nanos().div_ceil(1_000_000) as i32;
            assert_eq!(epoll.wait_ms(events, ms), 0);
            assert!(start.elapsed() >= timeout);
        }
    }

    #[test]
    fn an_edge_comes_once_per_signal() {
        let epoll = Epoll::new().unwrap();
        let fd = ring::eventfd().unwrap();
        let fd = fd.as_raw_fd();
        assert_eq!(epoll.add(fd, (libc::EPOLLIN | libc::EPOLLET) as u32, 7), 0);
        let events = &mut [Event::NONE; 4];
        for _ in 0..3 {
            assert_eq!(epoll.wait(events, Some(Duration::ZERO)), 0);
            assert!(ring::signal_eventfd(fd));
            assert_eq!(epoll.wait(events, None), 1);
            assert_eq!((events[0].data(), events[0].events()), (7, libc::EPOLLIN as u32));
        }
    }

    #[test]
    fn refusals() {
        let epoll = Epoll::new().unwrap();
        let file = std::fs::File::open("Cargo.toml").unwrap();
        assert_eq!(epoll.add(file.as_raw_fd(), libc::EPOLLIN as u32, 0), -libc::EPERM);
        assert_eq!(epoll.add(-1, libc::EPOLLIN as u32, 0), -libc::EBADF);
        let (reader, _writer) = io::pipe().unwrap();
        assert_eq!(epoll.modify(reader.as_raw_fd(), 0, 0), -libc::ENOENT);
    }
}
