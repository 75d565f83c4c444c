//! inotify: being told what happens in directories.

use std::ffi::CStr;
use std::io::{self, Error};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// Where a record has what; the name follows, filled up with NUL bytes.
const WD: usize = 0;
const MASK: usize = 4;
const COOKIE: usize = 8;
const LEN: usize = 12;
const NAME: usize = 16;

/// Room for at least one record: an event with the longest name there is.
pub(crate) const MIN_BUFFER: usize = NAME + 256;

/// One record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) wd: i32,
    pub(crate) mask: u32,
    pub(crate) cookie: u32,
    /// Which entry of the directory; empty for the directory itself.
    pub(crate) name: &'a [u8],
}

/// The records that a read has filled `buf` with.
pub(crate) fn records(mut buf: &[u8]) -> impl Iterator<Item = Record<'_>> {
    fn word(buf: &[u8], at: usize) -> Option<[u8; 4]> {
        buf.get(at..at + 4)?.try_into().ok()
    }
    std::iter::from_fn(move || {
        let len = u32::from_ne_bytes(word(buf, LEN)?) as usize;
        let name = buf.get(NAME..NAME + len)?;
        let record = Record {
            wd: i32::from_ne_bytes(word(buf, WD)?),
            mask: u32::from_ne_bytes(word(buf, MASK)?),
            cookie: u32::from_ne_bytes(word(buf, COOKIE)?),
            name: name.split(|byte| *byte == 0).next().unwrap_or_default(),
        };
        buf = &buf[NAME + len..];
        Some(record)
    })
}

fn checked(ret: i32) -> io::Result<i32> {
    if ret < 0 { Err(Error::last_os_error()) } else { Ok(ret) }
}

/// A descriptor to add watches to and to read records from.
pub(crate) fn init() -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = checked(unsafe { libc::inotify_init1(libc::IN_CLOEXEC) })?;
    // SAFETY: the descriptor is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Watches what `path` leads to, and returns the watch's number: that of the watch that there is
/// already, if it is watched. May wait for a disk.
pub(crate) fn add_watch(fd: BorrowedFd<'_>, path: &CStr, mask: u32) -> io::Result<i32> {
    // SAFETY: the path lives for the whole call; the descriptor is borrowed, hence open.
    checked(unsafe { libc::inotify_add_watch(fd.as_raw_fd(), path.as_ptr(), mask) })
}

/// Ends a watch. It may have ended by itself.
pub(crate) fn remove_watch(fd: BorrowedFd<'_>, wd: i32) {
    // SAFETY: no memory is passed; the descriptor is borrowed, hence open.
    unsafe { libc::inotify_rm_watch(fd.as_raw_fd(), wd) };
}

/// Blocks the thread until there is something to read, for `timeout` at most. Returns whether there
/// is.
pub(crate) fn readable_within(fd: BorrowedFd<'_>, timeout: Duration) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let up = timeout.as_nanos().div_ceil(1_000_000);
    let ms = i32::try_from(up).unwrap_or(i32::MAX);
    // SAFETY: `poll` is the one record announced, ours to write for the whole call.
    checked(unsafe { libc::poll(&mut poll, 1, ms) }).map(|n| n > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;
    use std::os::fd::AsFd;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn one_record_after_another() {
        let dir = std::env::temp_dir().join(format!("ramie-inotify-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let watch = init().unwrap();
        let path = CString::new(dir.as_os_str().as_bytes()).unwrap();
        let wd = add_watch(watch.as_fd(), &path, libc::IN_CREATE | libc::IN_DELETE_SELF).unwrap();
        let long = "n".repeat(255);
        for name in ["a", "exactly_16_bytes", &long] {
            std::fs::write(dir.join(name), "").unwrap();
        }
        std::fs::remove_dir_all(&dir).unwrap();
        assert!(readable_within(watch.as_fd(), Duration::from_secs(9)).unwrap());
        let mut buf = [0; 4096];
        let n = super::super::file::read(watch.as_fd(), &mut buf, None);
        let buf = &buf[..n as usize];
        let all: Vec<_> = records(buf).map(|r| (r.wd, r.mask, r.name.to_vec())).collect();
        let create = |name: &str| (wd, libc::IN_CREATE, name.as_bytes().to_vec());
        assert_eq!(all[..3], [create("a"), create("exactly_16_bytes"), create(&long)]);
        assert_eq!(all[3..], [(wd, libc::IN_DELETE_SELF, vec![]), (wd, libc::IN_IGNORED, vec![])]);
        assert!(!readable_within(watch.as_fd(), Duration::ZERO).unwrap());
        remove_watch(watch.as_fd(), wd);
        // What is cut short is left out.
        for end in 0..NAME {
            assert_eq!(records(&buf[..end]).count(), 0);
        }
        assert_eq!(records(&buf[..buf.len() - 1]).count(), 4);
    }
}
