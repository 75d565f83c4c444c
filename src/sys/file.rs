//! System calls on open files.
//!
//! Each function is one call and returns what the kernel returned: `>= 0`, or `-errno`. Nothing is
//! repeated and nothing is translated. `offset` is `None` for the file's own position, which the
//! call then moves.

use std::ffi::CStr;
use std::io::{Error, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};

use super::slices::{IOV_MAX, SlicesMut};

/// From libc's "-1 and errno" to "-errno". A count fits: Linux transfers at most 0x7ffff000 bytes.
pub(crate) fn answer(ret: isize) -> i32 {
    if ret == -1 { -Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) } else { ret as i32 }
}

/// The directory argument of the `*at` calls: `None` is the current directory.
pub(crate) fn dir_fd(dir: Option<BorrowedFd<'_>>) -> i32 {
    dir.map_or(libc::AT_FDCWD, |fd| fd.as_raw_fd())
}

/// `read`, or `pread` at an offset.
pub(crate) fn read(fd: BorrowedFd<'_>, buf: &mut [u8], offset: Option<u64>) -> i32 {
    // SAFETY: `buf` is ours to write for the whole call, and initialised memory stays so.
    unsafe { read_raw(fd, buf.as_mut_ptr(), buf.len(), offset) }
}

/// As [`read`], into memory that need not be initialised; the first `result` bytes are afterwards.
pub(crate) fn read_uninit(
    fd: BorrowedFd<'_>,
    buf: &mut [MaybeUninit<u8>],
    offset: Option<u64>,
) -> i32 {
    // SAFETY: `buf` is ours to write for the whole call, and the kernel does not read it.
    unsafe { read_raw(fd, buf.as_mut_ptr().cast(), buf.len(), offset) }
}

/// # Safety
/// `ptr..ptr + len` is writable for the whole call.
unsafe fn read_raw(fd: BorrowedFd<'_>, ptr: *mut u8, len: usize, offset: Option<u64>) -> i32 {
    let (fd, ptr) = (fd.as_raw_fd(), ptr.cast());
    // SAFETY: the caller vouches for the buffer; the descriptor is borrowed, hence open.
    answer(unsafe {
        match offset {
            None => libc::read(fd, ptr, len),
            Some(offset) => libc::pread(fd, ptr, len, offset as libc::off_t),
        }
    })
}

/// As [`read`], or `-EAGAIN` if the call would have to wait for a disk, and `-EOPNOTSUPP` if the
/// file does not know this: `preadv2` with `RWF_NOWAIT`. Shorter where only a part is at hand. Of a
/// file open for direct I/O it waits all the same.
pub(crate) fn read_nowait(fd: BorrowedFd<'_>, buf: &mut [u8], offset: Option<u64>) -> i32 {
    // SAFETY: `buf` is ours to write for the whole call, and initialised memory stays so.
    unsafe { read_raw_nowait(fd, buf.as_mut_ptr(), buf.len(), offset) }
}

/// As [`read_nowait`], into memory that need not be initialised.
pub(crate) fn read_uninit_nowait(
    fd: BorrowedFd<'_>,
    buf: &mut [MaybeUninit<u8>],
    offset: Option<u64>,
) -> i32 {
    // SAFETY: `buf` is ours to write for the whole call, and the kernel does not read it.
    unsafe { read_raw_nowait(fd, buf.as_mut_ptr().cast(), buf.len(), offset) }
}

/// # Safety
/// `ptr..ptr + len` is writable for the whole call.
unsafe fn read_raw_nowait(
    fd: BorrowedFd<'_>,
    ptr: *mut u8,
    len: usize,
    offset: Option<u64>,
) -> i32 {
    let buf = libc::iovec { iov_base: ptr.cast(), iov_len: len };
    let offset = offset.map_or(-1, |offset| offset as libc::off_t); // -1: the file's own position
    // SAFETY: the caller vouches for the one buffer; the descriptor is borrowed, hence open.
    answer(unsafe { libc::preadv2(fd.as_raw_fd(), &buf, 1, offset, libc::RWF_NOWAIT) })
}

/// Whether the file has a position and its reads go through the kernel's cache. Never waits.
pub(crate) fn is_buffered(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: no memory is passed; the descriptor is borrowed, hence open.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    flags >= 0 && flags & libc::O_DIRECT == 0 && position(fd).is_some()
}

/// Whether the descriptor is in non-blocking mode. Never waits.
pub(crate) fn is_nonblocking(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: no memory is passed; the descriptor is borrowed, hence open.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    flags >= 0 && flags & libc::O_NONBLOCK != 0
}

/// Whether the descriptor may be read (`POLLIN`), or written to (`POLLOUT`). Never waits.
pub(crate) fn is_open_for(fd: BorrowedFd<'_>, events: i16) -> bool {
    // SAFETY: no memory is passed; the descriptor is borrowed, hence open.
    let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) };
    let other_way = if events & libc::POLLIN != 0 { libc::O_WRONLY } else { libc::O_RDONLY };
    flags >= 0 && flags & libc::O_ACCMODE != other_way
}

/// Sets whether the descriptor is in non-blocking mode, for all who use the same open file.
pub(crate) fn set_nonblocking(fd: BorrowedFd<'_>, nonblocking: bool) -> i32 {
    let on = libc::c_int::from(nonblocking);
    // SAFETY: the number is alive during the call; the descriptor is borrowed, hence open.
    answer(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONBIO, &raw const on) } as isize)
}

/// Whether this is a plain file in memory (tmpfs, `memfd_create`), which is what can have seals.
/// Never waits: unlike `fstatfs`, the question does not go to a file system.
pub(crate) fn is_memory(fd: BorrowedFd<'_>) -> bool {
    // SAFETY: no memory is passed; the descriptor is borrowed, hence open.
    unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) >= 0 }
}

/// The file's own position, if it has one.
pub(crate) fn position(fd: BorrowedFd<'_>) -> Option<u64> {
    // SAFETY: no memory is passed; the descriptor is borrowed, hence open.
    let position = unsafe { libc::lseek(fd.as_raw_fd(), 0, libc::SEEK_CUR) };
    u64::try_from(position).ok()
}

/// The size of a regular file; `None` for anything else.
pub(crate) fn size(fd: BorrowedFd<'_>) -> Option<u64> {
    // SAFETY: the record consists of integers, for which zero is a value.
    let mut stat: libc::stat = unsafe { std::mem::zeroed() };
    // SAFETY: `stat` is ours to write for the whole call; the descriptor is borrowed, hence open.
    let ret = unsafe { libc::fstat(fd.as_raw_fd(), &mut stat) };
    let regular = ret == 0 && stat.st_mode & libc::S_IFMT == libc::S_IFREG;
    if regular { u64::try_from(stat.st_size).ok() } else { None }
}

/// What a file is believed to be: what a server has said last, say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Believed {
    /// A plain file; this much is certain.
    pub(crate) plain: bool,
    pub(crate) size: u64,
}

/// Asks what a file is believed to be. Never waits.
pub(crate) fn believed(fd: BorrowedFd<'_>) -> Option<Believed> {
    // SAFETY: the record consists of integers, for which zero is a value.
    let mut statx: libc::statx = unsafe { std::mem::zeroed() };
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    let (fd, mask) = (fd.as_raw_fd(), libc::STATX_TYPE | libc::STATX_SIZE);
    // SAFETY: the path is a C string, and the record is ours to write for the whole call.
    let ret = unsafe { libc::statx(fd, c"".as_ptr(), flags, mask, &raw mut statx) };
    let plain = u32::from(statx.stx_mode) & libc::S_IFMT == libc::S_IFREG;
    (ret == 0 && statx.stx_mask & mask == mask).then_some(Believed { plain, size: statx.stx_size })
}

/// `write`, or `pwrite` at an offset.
pub(crate) fn write(fd: BorrowedFd<'_>, buf: &[u8], offset: Option<u64>) -> i32 {
    let (fd, ptr) = (fd.as_raw_fd(), buf.as_ptr().cast());
    // SAFETY: `buf` is readable for the whole call; the descriptor is borrowed, hence open.
    answer(unsafe {
        match offset {
            None => libc::write(fd, ptr, buf.len()),
            Some(offset) => libc::pwrite(fd, ptr, buf.len(), offset as libc::off_t),
        }
    })
}

/// Whether the file has offsets to read and write at, which a pipe, a socket and a terminal have
/// not. Reads nothing.
pub(crate) fn has_offsets(fd: BorrowedFd<'_>) -> bool {
    read(fd, &mut [], Some(0)) != -libc::ESPIPE
}

/// As [`write`], or `-EAGAIN` if the call would have to wait, and `-EOPNOTSUPP` if the file does
/// not know this: `pwritev2` with `RWF_NOWAIT`.
pub(crate) fn write_nowait(fd: BorrowedFd<'_>, buf: &[u8], offset: Option<u64>) -> i32 {
    write_vectored_nowait(fd, &[IoSlice::new(buf)], offset)
}

/// `readv`, or `preadv` at an offset.
pub(crate) fn read_vectored(
    fd: BorrowedFd<'_>,
    bufs: &mut SlicesMut<'_>,
    offset: Option<u64>,
) -> i32 {
    let (fd, ptr, len) = (fd.as_raw_fd(), bufs.as_ptr(), bufs.len() as i32);
    // SAFETY: a `SlicesMut` is the only way to its buffers while it lives, and it is borrowed
    // mutably for the whole call; the descriptor is borrowed, hence open.
    answer(unsafe {
        match offset {
            None => libc::readv(fd, ptr, len),
            Some(offset) => libc::preadv(fd, ptr, len, offset as libc::off_t),
        }
    })
}

/// `writev`, or `pwritev` at an offset, of the first [`IOV_MAX`] buffers.
pub(crate) fn write_vectored(fd: BorrowedFd<'_>, bufs: &[IoSlice<'_>], offset: Option<u64>) -> i32 {
    let (fd, len) = (fd.as_raw_fd(), bufs.len().min(IOV_MAX) as i32);
    let ptr = bufs.as_ptr().cast::<libc::iovec>();
    // SAFETY: an `IoSlice` is defined to have the layout of `iovec`, and the buffers are readable
    // for the whole call; the descriptor is borrowed, hence open.
    answer(unsafe {
        match offset {
            None => libc::writev(fd, ptr, len),
            Some(offset) => libc::pwritev(fd, ptr, len, offset as libc::off_t),
        }
    })
}

/// As [`read_vectored`], without waiting, as [`read_nowait`].
pub(crate) fn read_vectored_nowait(
    fd: BorrowedFd<'_>,
    bufs: &mut SlicesMut<'_>,
    offset: Option<u64>,
) -> i32 {
    let (fd, ptr, len) = (fd.as_raw_fd(), bufs.as_ptr(), bufs.len() as i32);
    let offset = offset.map_or(-1, |offset| offset as libc::off_t); // -1: the file's own position
    // SAFETY: as in `read_vectored`.
    answer(unsafe { libc::preadv2(fd, ptr, len, offset, libc::RWF_NOWAIT) })
}

/// As [`write_vectored`], without waiting, as [`write_nowait`].
pub(crate) fn write_vectored_nowait(
    fd: BorrowedFd<'_>,
    bufs: &[IoSlice<'_>],
    offset: Option<u64>,
) -> i32 {
    let (fd, len) = (fd.as_raw_fd(), bufs.len().min(IOV_MAX) as i32);
    let ptr = bufs.as_ptr().cast::<libc::iovec>();
    let offset = offset.map_or(-1, |offset| offset as libc::off_t); // -1: the file's own position
    // SAFETY: as in `write_vectored`.
    answer(unsafe { libc::pwritev2(fd, ptr, len, offset, libc::RWF_NOWAIT) })
}

/// The device through which masters of terminals are opened.
const PTMX: (u32, u32) = (5, 2);

/// What a descriptor is, by what is known without asking a file system's server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct What {
    /// A file, a directory or a block device: it has contents, which are always "ready".
    pub(crate) stored: bool,
    /// What distinguishes it from all others that are open: device and number.
    pub(crate) identity: (u64, u64),
    /// Others have this identity that have nothing to do with it: it is an eventfd or the like, or
    /// the master of a terminal.
    pub(crate) ambiguous: bool,
    /// The mount that it was opened in, where the kernel tells.
    pub(crate) mount: Option<u64>,
}

/// Asks what a descriptor is; `None` if it is none, or nobody may ask. Never waits.
pub(crate) fn what(fd: BorrowedFd<'_>) -> Option<What> {
    // SAFETY: the record consists of integers, for which zero is a value.
    let mut statx: libc::statx = unsafe { std::mem::zeroed() };
    let flags = libc::AT_EMPTY_PATH | libc::AT_STATX_DONT_SYNC;
    let mask = libc::STATX_TYPE | libc::STATX_INO | libc::STATX_MNT_ID;
    // SAFETY: the path is a C string, and the record is ours to write for the whole call.
    let ret = unsafe { libc::statx(fd.as_raw_fd(), c"".as_ptr(), flags, mask, &raw mut statx) };
    if ret != 0 {
        return None;
    }
    let kind = u32::from(statx.stx_mode) & libc::S_IFMT;
    Some(What {
        stored: matches!(kind, libc::S_IFREG | libc::S_IFDIR | libc::S_IFBLK),
        identity: (
            u64::from(statx.stx_dev_major) << 32 | u64::from(statx.stx_dev_minor),
            statx.stx_ino,
        ),
        ambiguous: kind == 0
            || (kind == libc::S_IFCHR && (statx.stx_rdev_major, statx.stx_rdev_minor) == PTMX),
        mount: (statx.stx_mask & libc::STATX_MNT_ID != 0).then_some(statx.stx_mnt_id),
    })
}

/// `openat`; the result is a new descriptor that the caller owns.
pub(crate) fn openat(dir: Option<BorrowedFd<'_>>, path: &CStr, flags: i32, mode: u32) -> i32 {
    // SAFETY: `path` is a C string that lives for the whole call; the directory is borrowed.
    answer(unsafe { libc::openat(dir_fd(dir), path.as_ptr(), flags, mode) } as isize)
}

/// The first number that no new descriptor of this process gets.
pub(crate) fn descriptor_limit() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is ours to write for the whole call.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } {
        0 => limit.rlim_cur,
        _ => 0,
    }
}

/// `close`. The descriptor is gone whatever the result.
pub(crate) fn close(fd: OwnedFd) -> i32 {
    // SAFETY: the descriptor was owned by the argument, which is forgotten here.
    answer(unsafe { libc::close(fd.into_raw_fd()) } as isize)
}

/// `fsync`, or `fdatasync`.
pub(crate) fn fsync(fd: BorrowedFd<'_>, data_only: bool) -> i32 {
    let fd = fd.as_raw_fd();
    // SAFETY: no memory is passed; the descriptor is borrowed, hence open.
    answer(unsafe { if data_only { libc::fdatasync(fd) } else { libc::fsync(fd) } } as isize)
}

/// `ftruncate`.
pub(crate) fn ftruncate(fd: BorrowedFd<'_>, len: u64) -> i32 {
    // SAFETY: no memory is passed; the descriptor is borrowed, hence open.
    answer(unsafe { libc::ftruncate(fd.as_raw_fd(), len as libc::off_t) } as isize)
}
