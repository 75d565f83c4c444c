//! System calls on sockets, and the records they take: addresses and messages.
//!
//! As in `file.rs`, each function is one call and returns what the kernel returned, `>= 0` or
//! `-errno`; nothing is repeated. Nothing here raises `SIGPIPE`.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::mem::{self, MaybeUninit};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr as UnixAddr;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::time::Duration;

use super::file::answer;
use super::slices::{IOV_MAX, SlicesMut};

const ADDR_BYTES: usize = size_of::<libc::sockaddr_storage>();
/// Where the path of a `sockaddr_un` begins.
const PATH_AT: usize = mem::offset_of!(libc::sockaddr_un, sun_path);

/// A socket's address, as the kernel reads and writes it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(crate) struct SockAddr {
    bytes: [u8; ADDR_BYTES],
    len: libc::socklen_t,
}

const _: () = assert!(align_of::<SockAddr>() >= align_of::<libc::sockaddr_storage>());
const _: () = assert!(mem::offset_of!(SockAddr, bytes) == 0);

impl SockAddr {
    /// One that the kernel is to write.
    pub(crate) fn unknown() -> Self {
        Self { bytes: [0; ADDR_BYTES], len: ADDR_BYTES as libc::socklen_t }
    }

    fn of_family(family: i32, len: usize) -> Self {
        let mut addr = Self { bytes: [0; ADDR_BYTES], len: len as libc::socklen_t };
        addr.put(0, &(family as libc::sa_family_t).to_ne_bytes());
        addr
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        self.bytes[at..at + N].try_into().expect("N bytes")
    }

    /// That of the other end of a connection.
    pub(crate) fn of_peer(fd: BorrowedFd<'_>) -> io::Result<Self> {
        let mut addr = Self::unknown();
        let (name, len) = addr.as_mut_ptrs();
        // SAFETY: both are ours to write for the whole call, and `len` says how long the name is.
        match unsafe { libc::getpeername(fd.as_raw_fd(), name, len) } {
            0 => Ok(addr),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The address family, `AF_...`; 0 if the kernel wrote none, as for a connected stream.
    pub(crate) fn family(&self) -> i32 {
        i32::from(libc::sa_family_t::from_ne_bytes(self.get(0)))
    }

    pub(crate) fn inet(addr: &SocketAddr) -> Self {
        match addr {
            SocketAddr::V4(v4) => {
                let mut addr = Self::of_family(libc::AF_INET, size_of::<libc::sockaddr_in>());
                addr.put(2, &v4.port().to_be_bytes());
                addr.put(4, &v4.ip().octets());
                addr
            }
            SocketAddr::V6(v6) => {
                let mut addr = Self::of_family(libc::AF_INET6, size_of::<libc::sockaddr_in6>());
                addr.put(2, &v6.port().to_be_bytes());
                addr.put(4, &v6.flowinfo().to_ne_bytes());
                addr.put(8, &v6.ip().octets());
                addr.put(24, &v6.scope_id().to_ne_bytes());
                addr
            }
        }
    }

    pub(crate) fn unix(unix: &UnixAddr) -> Self {
        let mut addr = Self::of_family(libc::AF_UNIX, PATH_AT);
        let (start, name) = if let Some(path) = unix.as_pathname() {
            (PATH_AT, path.as_os_str().as_bytes())
        } else if let Some(name) = unix.as_abstract_name() {
            (PATH_AT + 1, name)
        } else {
            return addr;
        };
        // std has refused what does not fit into a `sockaddr_un`.
        addr.put(start, name);
        let end = usize::from(start == PATH_AT); // the byte that ends a path
        addr.len = (start + name.len() + end) as libc::socklen_t;
        addr
    }

    /// # Errors
    /// If this is no Internet address.
    pub(crate) fn to_inet(self) -> io::Result<SocketAddr> {
        let port = u16::from_be_bytes(self.get(2));
        match self.family() {
            libc::AF_INET => {
                let ip = Ipv4Addr::from(self.get::<4>(4));
                Ok(SocketAddrV4::new(ip, port).into())
            }
            libc::AF_INET6 => {
                let flowinfo = u32::from_ne_bytes(self.get(4));
                let ip = Ipv6Addr::from(self.get::<16>(8));
                let scope = u32::from_ne_bytes(self.get(24));
                Ok(SocketAddrV6::new(ip, port, flowinfo, scope).into())
            }
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "no Internet address")),
        }
    }

    /// # Errors
    /// If this is no address of a Unix socket, or one whose path has full length: std makes none of
    /// these.
    pub(crate) fn to_unix(self) -> io::Result<UnixAddr> {
        let len = (self.len as usize).min(ADDR_BYTES);
        // The kernel writes no address at all for the unnamed end of a stream.
        if len > 0 && self.family() != libc::AF_UNIX && self.family() != 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no address of a Unix socket"));
        }
        match self.bytes.get(PATH_AT..len).unwrap_or_default() {
            [0, name @ ..] if !name.is_empty() => UnixAddr::from_abstract_name(name),
            [0] | [] => UnixAddr::from_pathname(""),
            path => {
                // A path of full length has no end.
                let path = path.split(|&byte| byte == 0).next().unwrap_or_default();
                UnixAddr::from_pathname(Path::new(std::ffi::OsStr::from_bytes(path)))
            }
        }
    }

    /// The record, for the kernel to read.
    pub(crate) fn as_ptr(&self) -> *const libc::sockaddr {
        self.bytes.as_ptr().cast()
    }

    pub(crate) fn len(&self) -> libc::socklen_t {
        self.len
    }

    /// The record and its length, for the kernel to write both.
    pub(crate) fn as_mut_ptrs(&mut self) -> (*mut libc::sockaddr, *mut libc::socklen_t) {
        self.len = ADDR_BYTES as libc::socklen_t;
        (self.bytes.as_mut_ptr().cast(), &raw mut self.len)
    }
}

impl fmt::Debug for SockAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SockAddr").field("family", &self.family()).finish_non_exhaustive()
    }
}

/// Everything that one `sendmsg` sends, borrowed.
pub(crate) struct Outgoing<'a> {
    header: libc::msghdr,
    _borrowed: PhantomData<&'a [u8]>,
}

/// What one `recvmsg` fills, borrowed.
pub(crate) struct Incoming<'a> {
    header: libc::msghdr,
    /// Of the address, whose bytes the header has.
    addr_len: Option<&'a mut libc::socklen_t>,
    _borrowed: PhantomData<&'a mut [u8]>,
}

/// `&'a mut Incoming<'_>` with one lifetime instead of two, which is what an op has.
pub(crate) struct IncomingMut<'a> {
    header: NonNull<libc::msghdr>,
    _borrowed: PhantomData<&'a mut libc::msghdr>,
}

impl IncomingMut<'_> {
    /// The record, for the kernel to read and write.
    pub(crate) fn as_ptr(&mut self) -> *mut libc::msghdr {
        self.header.as_ptr()
    }

    /// Makes it what the kernel makes of it when there is no message any more.
    pub(crate) fn set_empty(&mut self) {
        // SAFETY: this is the only way to the record, borrowed mutably.
        let header = unsafe { self.header.as_mut() };
        (header.msg_namelen, header.msg_controllen, header.msg_flags) = (0, 0, 0);
    }
}

// SAFETY: it is the only way to the message while it lives; for the rest as below.
unsafe impl Send for IncomingMut<'_> {}
// SAFETY: a shared one gives access to nothing.
unsafe impl Sync for IncomingMut<'_> {}

// SAFETY: a message is a set of borrows of plain bytes, which may be lent to another thread.
unsafe impl Send for Outgoing<'_> {}
// SAFETY: as above; a shared message is only read.
unsafe impl Sync for Outgoing<'_> {}
// SAFETY: as above.
unsafe impl Send for Incoming<'_> {}
// SAFETY: as above; a shared message gives access to nothing.
unsafe impl Sync for Incoming<'_> {}

fn empty_header() -> libc::msghdr {
    // SAFETY: numbers and pointers, for all of which zero is a value.
    unsafe { mem::zeroed() }
}

impl<'a> Outgoing<'a> {
    /// `bufs` (at most `IOV_MAX` of them), to `addr` or to where the socket is connected, with the
    /// control messages in `control`.
    pub(crate) fn new(
        bufs: &'a [IoSlice<'a>],
        addr: Option<&'a SockAddr>,
        control: Option<&'a Control>,
    ) -> Self {
        let mut header = empty_header();
        // The kernel reads only, whatever the types say. An IoSlice is an iovec, says std.
        header.msg_iov = bufs.as_ptr().cast_mut().cast();
        header.msg_iovlen = bufs.len().min(IOV_MAX) as _;
        if let Some(addr) = addr {
            header.msg_name = addr.as_ptr().cast_mut().cast();
            header.msg_namelen = addr.len();
        }
        if let Some(control) = control {
            header.msg_control = control.bytes.as_ptr().cast_mut().cast();
            header.msg_controllen = control.len as _;
        }
        Self { header, _borrowed: PhantomData }
    }

    pub(crate) fn as_ptr(&self) -> *const libc::msghdr {
        &raw const self.header
    }
}

impl<'a> Incoming<'a> {
    /// Into `bufs` (at most `IOV_MAX` of them); the sender's address goes into `addr` and control
    /// messages go into `control`, as far as there is room.
    pub(crate) fn new(
        bufs: &'a mut [IoSliceMut<'_>],
        addr: Option<&'a mut SockAddr>,
        control: Option<&'a mut Control>,
    ) -> Self {
        let mut header = empty_header();
        header.msg_iov = bufs.as_mut_ptr().cast();
        header.msg_iovlen = bufs.len().min(IOV_MAX) as _;
        let addr_len = addr.map(|SockAddr { bytes, len }| {
            header.msg_name = bytes.as_mut_ptr().cast();
            header.msg_namelen = ADDR_BYTES as libc::socklen_t;
            len
        });
        if let Some(control) = control {
            header.msg_control = control.bytes.as_mut_ptr().cast();
            header.msg_controllen = control.bytes.len() as _;
        }
        Self { header, addr_len, _borrowed: PhantomData }
    }

    /// The message for one call, borrowed with a single lifetime.
    pub(crate) fn lend(&mut self) -> IncomingMut<'_> {
        IncomingMut { header: NonNull::from(&mut self.header), _borrowed: PhantomData }
    }

    /// After the call: completes the address, and says how many bytes of control messages there are
    /// and whether something was cut off (`MSG_TRUNC`, `MSG_CTRUNC`).
    pub(crate) fn finish(self) -> (usize, i32) {
        if let Some(len) = self.addr_len {
            *len = self.header.msg_namelen;
        }
        (self.header.msg_controllen, self.header.msg_flags)
    }
}

impl fmt::Debug for Outgoing<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing").field("bufs", &self.header.msg_iovlen).finish_non_exhaustive()
    }
}

impl fmt::Debug for IncomingMut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingMut").finish_non_exhaustive()
    }
}

/// How many descriptors fit into one message (the kernel's `SCM_MAX_FD`).
pub(crate) const FDS_MAX: usize = 253;

/// A control message with a descriptor of the sending process, for sockets with `SO_PASSPIDFD`.
const SCM_PIDFD: i32 = 4;

/// Room for one control message that carries descriptors, and for what a socket may be set up to
/// get with each message: the sender's credentials, and a descriptor of its process.
#[repr(C, align(8))]
pub(crate) struct Control {
    bytes: [u8; 16 + 4 * (FDS_MAX + 1) + 64],
    len: usize,
}

const _: () = assert!(align_of::<Control>() >= align_of::<libc::cmsghdr>());
const _: () = assert!(size_of::<libc::cmsghdr>() <= 16);

impl Control {
    /// Empty, to be filled by the kernel.
    pub(crate) fn empty() -> Self {
        Self { bytes: [0; _], len: 0 }
    }

    /// # Errors
    /// If there are more than [`FDS_MAX`].
    pub(crate) fn with_fds(fds: &[BorrowedFd<'_>]) -> io::Result<Self> {
        let mut control = Self::empty();
        if fds.len() > FDS_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} descriptors in one message; Linux takes {FDS_MAX}", fds.len()),
            ));
        }
        if fds.is_empty() {
            return Ok(control);
        }
        let data = size_of_val(fds) as u32;
        // SAFETY: arithmetic only.
        let (space, len) = unsafe { (libc::CMSG_SPACE(data), libc::CMSG_LEN(data)) };
        control.len = space as usize;
        // SAFETY: a header is plain numbers.
        let mut header: libc::cmsghdr = unsafe { mem::zeroed() };
        header.cmsg_len = len as _;
        header.cmsg_level = libc::SOL_SOCKET;
        header.cmsg_type = libc::SCM_RIGHTS;
        // SAFETY: the buffer is aligned for a header and has room for it, by the assertions above.
        unsafe { control.bytes.as_mut_ptr().cast::<libc::cmsghdr>().write(header) };
        // SAFETY: arithmetic only.
        let at = unsafe { libc::CMSG_LEN(0) } as usize;
        for (i, fd) in fds.iter().enumerate() {
            let at = at + i * size_of::<RawFd>();
            control.bytes[at..at + size_of::<RawFd>()]
                .copy_from_slice(&fd.as_raw_fd().to_ne_bytes());
        }
        Ok(control)
    }

    /// Takes out the descriptors that a `recvmsg` has put in; `len` is what [`Incoming::finish`]
    /// returned.
    ///
    /// # Safety
    /// A successful `recvmsg` has filled this and returned `len`, and nobody has taken the
    /// descriptors.
    pub(crate) unsafe fn take_fds(&mut self, len: usize) -> Vec<OwnedFd> {
        let mut fds = Vec::new();
        let mut at = 0;
        // SAFETY: arithmetic only.
        let data_at = unsafe { libc::CMSG_LEN(0) } as usize;
        let end = len.min(self.bytes.len());
        while at + data_at <= end {
            // SAFETY: in bounds by the line above; read wherever it lies.
            let header: libc::cmsghdr =
                unsafe { self.bytes.as_ptr().add(at).cast::<libc::cmsghdr>().read_unaligned() };
            let message = header.cmsg_len;
            if message < data_at {
                break;
            }
            let stop = (at + message).min(end);
            let has_fds = matches!(header.cmsg_type, libc::SCM_RIGHTS | SCM_PIDFD);
            if header.cmsg_level == libc::SOL_SOCKET && has_fds {
                for number in self.bytes[at + data_at..stop].chunks_exact(size_of::<RawFd>()) {
                    let fd = RawFd::from_ne_bytes(number.try_into().expect("four bytes"));
                    if fd < 0 {
                        continue; // there was no descriptor for the sender
                    }
                    // SAFETY: the kernel has installed it for us (the caller's promise).
                    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                    if header.cmsg_type == libc::SCM_RIGHTS {
                        fds.push(fd);
                    }
                }
            }
            at += message.next_multiple_of(size_of::<usize>());
        }
        self.bytes.fill(0);
        fds
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Control").field("len", &self.len).finish_non_exhaustive()
    }
}

/// `accept4`; the result is a descriptor.
pub(crate) fn accept(fd: BorrowedFd<'_>, addr: &mut SockAddr, flags: i32) -> i32 {
    let (name, len) = addr.as_mut_ptrs();
    // SAFETY: both are ours to write for the whole call, and `len` says how much room there is.
    answer(unsafe { libc::accept4(fd.as_raw_fd(), name, len, flags) } as isize)
}

/// `connect`.
pub(crate) fn connect(fd: BorrowedFd<'_>, addr: &SockAddr) -> i32 {
    // SAFETY: the record is readable for the whole call, to the length given.
    answer(unsafe { libc::connect(fd.as_raw_fd(), addr.as_ptr(), addr.len()) } as isize)
}

/// `send`.
pub(crate) fn send(fd: BorrowedFd<'_>, buf: &[u8], flags: i32) -> i32 {
    let flags = flags | libc::MSG_NOSIGNAL;
    // SAFETY: `buf` is readable for the whole call; the descriptor is borrowed, hence open.
    unsafe { bare(libc::SYS_sendto, fd, buf.as_ptr().cast_mut(), buf.len(), flags) }
}

/// `recv`.
pub(crate) fn recv(fd: BorrowedFd<'_>, buf: &mut [u8], flags: i32) -> i32 {
    // SAFETY: `buf` is ours to write for the whole call, and initialised memory stays so.
    unsafe { bare(libc::SYS_recvfrom, fd, buf.as_mut_ptr(), buf.len(), flags) }
}

/// `sendmsg`.
pub(crate) fn sendmsg(fd: BorrowedFd<'_>, message: &Outgoing<'_>, flags: i32) -> i32 {
    let flags = flags | libc::MSG_NOSIGNAL;
    // SAFETY: all that the message points to is borrowed by it, and the call only reads it.
    answer(unsafe { libc::sendmsg(fd.as_raw_fd(), message.as_ptr(), flags) })
}

/// `recvmsg`.
pub(crate) fn recvmsg(fd: BorrowedFd<'_>, message: &mut IncomingMut<'_>, flags: i32) -> i32 {
    // SAFETY: the message and all that it points to are borrowed mutably.
    answer(unsafe { libc::recvmsg(fd.as_raw_fd(), message.as_ptr(), flags) })
}

/// As [`recv`], into memory that need not be initialised; the first `result` bytes are afterwards.
pub(crate) fn recv_uninit(fd: BorrowedFd<'_>, buf: &mut [MaybeUninit<u8>], flags: i32) -> i32 {
    // SAFETY: `buf` is ours to write for the whole call, and the kernel does not read it.
    unsafe { bare(libc::SYS_recvfrom, fd, buf.as_mut_ptr().cast(), buf.len(), flags) }
}

/// `sendto` and `recvfrom` without an address, past the C library's functions of that name. Once a
/// process has had a second thread, those let a thread be cancelled (`pthread_cancel`) in the
/// middle, at two locked instructions per call; nobody cancels a thread of Rust.
///
/// # Safety
/// `buf` is valid for what the call does with it, to the length given.
#[inline]
unsafe fn bare(
    call: libc::c_long,
    fd: BorrowedFd<'_>,
    buf: *mut u8,
    len: usize,
    flags: i32,
) -> i32 {
    let (no_address, no_len) = (std::ptr::null::<libc::c_void>(), 0_usize);
    // SAFETY: the caller's promise; the descriptor is borrowed, hence open.
    answer(unsafe { libc::syscall(call, fd.as_raw_fd(), buf, len, flags, no_address, no_len) }
        as isize)
}

/// Whether this is a socket. Never waits.
pub(crate) fn is_socket(fd: BorrowedFd<'_>) -> bool {
    option::<libc::c_int>(fd, libc::SOL_SOCKET, libc::SO_TYPE).is_ok()
}

/// Whether this is a socket of a stream, and if so, whether of TCP. Never waits.
pub(crate) fn stream(fd: BorrowedFd<'_>) -> Option<bool> {
    let ask = |name| option::<libc::c_int>(fd, libc::SOL_SOCKET, name).ok();
    (ask(libc::SO_TYPE)? == libc::SOCK_STREAM)
        .then(|| ask(libc::SO_PROTOCOL) == Some(libc::IPPROTO_TCP))
}

/// `recvmsg` of bytes alone, into an array of buffers.
pub(crate) fn recv_vectored(fd: BorrowedFd<'_>, bufs: &mut SlicesMut<'_>, flags: i32) -> i32 {
    let mut header = empty_header();
    header.msg_iov = bufs.as_ptr().cast_mut();
    header.msg_iovlen = bufs.len() as _;
    // SAFETY: a `SlicesMut` is the only way to its buffers while it lives, and it is borrowed
    // mutably for the whole call.
    answer(unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, flags) })
}

/// What the descriptor is ready for right now, of `events`, and errors and hang-ups: 0 if nothing;
/// or `-errno`. Never waits.
pub(crate) fn poll_now(fd: BorrowedFd<'_>, events: i16) -> i32 {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: `poll` is the one record announced, ours to write for the whole call.
    match answer(unsafe { libc::poll(&raw mut poll, 1, 0) } as isize) {
        n if n < 0 => n,
        _ => i32::from(poll.revents),
    }
}

/// Takes the socket's pending error: 0, `-errno` of what went wrong, or of the question.
pub(crate) fn pending_error(fd: BorrowedFd<'_>) -> i32 {
    match option::<libc::c_int>(fd, libc::SOL_SOCKET, libc::SO_ERROR) {
        Ok(error) => -error,
        Err(error) => -error.raw_os_error().unwrap_or(libc::EIO),
    }
}

/// `socket`, closed on exec. Never waits.
pub(crate) fn socket(family: i32, kind: i32) -> io::Result<OwnedFd> {
    // SAFETY: numbers only.
    let fd = answer(unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, 0) } as isize);
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: the kernel has just given it to us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `getsockopt` of a number or of a record of numbers.
fn option<T: Copy>(fd: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is ours to write, and `len` says how much room there is.
    let result = answer(unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut len)
    } as isize);
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    // SAFETY: zeroed, then written by the kernel; both are values of the plain types used below.
    Ok(unsafe { value.assume_init() })
}

/// Waits until the descriptor is ready for one of `events` (`POLLIN`, ..), without end; the result
/// is what it is ready for.
pub(crate) fn poll(fd: BorrowedFd<'_>, events: i16) -> i32 {
    let mut poll = libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 };
    // SAFETY: `poll` is the one record announced, ours to write for the whole call.
    match answer(unsafe { libc::poll(&raw mut poll, 1, -1) } as isize) {
        n if n < 0 => n,
        _ => i32::from(poll.revents),
    }
}

/// How many connections a listener's line has room for, at most.
pub(crate) fn longest_line(listener: BorrowedFd<'_>) -> u64 {
    const LISTEN: u8 = 10; // TCP_LISTEN of the kernel
    let info = option::<libc::tcp_info>(listener, libc::IPPROTO_TCP, libc::TCP_INFO);
    match info {
        // In this state the field has the `backlog` of `listen`, which is exceeded by one.
        Ok(info) if info.tcpi_state == LISTEN => u64::from(info.tcpi_sacked) + 1,
        _ => longest_backlog() + 1,
    }
}

/// What `listen` cuts its `backlog` down to.
fn longest_backlog() -> u64 {
    static LONGEST: OnceLock<u64> = OnceLock::new();
    const USUAL: u64 = 4096;
    let ask = || std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?.trim().parse().ok();
    *LONGEST.get_or_init(|| ask().unwrap_or(USUAL))
}

/// How many bytes a socket that `poll` calls writable has room for, at least: that is a third of
/// its buffer.
pub(crate) fn send_room(fd: BorrowedFd<'_>) -> u64 {
    let size: libc::c_int = option(fd, libc::SOL_SOCKET, libc::SO_SNDBUF).unwrap_or(0);
    u64::try_from(size / 4).unwrap_or(0).max(4096)
}

/// Waits until one of `fds` is ready for its events, and says which; `None` after `timeout`, or if
/// a signal came.
pub(crate) fn poll_many(fds: &[(BorrowedFd<'_>, i16)], timeout: Option<Duration>) -> Option<usize> {
    let record = |&(fd, events): &(BorrowedFd<'_>, i16)| libc::pollfd {
        fd: fd.as_raw_fd(),
        events,
        revents: 0,
    };
    let mut polls: Vec<libc::pollfd> = fds.iter().map(record).collect();
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let timeout = timeout.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    let len = polls.len() as libc::nfds_t;
    // SAFETY: as many records as announced, ours to write for the whole call, and a time to read.
    let ready = unsafe { libc::ppoll(polls.as_mut_ptr(), len, timeout, std::ptr::null()) };
    polls.iter().position(|poll| poll.revents != 0).filter(|_| ready > 0)
}

/// Takes the socket's pending error, as `TcpStream::take_error` does.
pub(crate) fn take_error(fd: BorrowedFd<'_>) -> io::Result<Option<io::Error>> {
    let error: libc::c_int = option(fd, libc::SOL_SOCKET, libc::SO_ERROR)?;
    Ok((error != 0).then(|| io::Error::from_raw_os_error(error)))
}
