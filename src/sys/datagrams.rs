//! Several datagrams in one system call.

use std::io::{IoSlice, IoSliceMut};
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::file::answer;
use super::slices::IOV_MAX;
use super::socket::SockAddr;

/// How many the system takes at once.
pub(crate) const MAX: usize = IOV_MAX;

fn empty() -> libc::mmsghdr {
    // SAFETY: numbers and pointers, for all of which zero is a value.
    unsafe { mem::zeroed() }
}

/// `recvmmsg`, one datagram into each buffer: waits for the first, as `flags` and the socket's mode
/// say, and takes those that are there. Puts the length and the sender of each into `received`; the
/// result is their number, or `-errno`.
pub(crate) fn recvmmsg(
    fd: BorrowedFd<'_>,
    bufs: &mut [IoSliceMut<'_>],
    flags: i32,
    received: &mut Vec<(usize, SockAddr)>,
) -> i32 {
    let count = bufs.len().min(MAX);
    let mut addrs = vec![SockAddr::unknown(); count];
    let mut messages: Vec<_> = bufs[..count]
        .iter_mut()
        .zip(&mut addrs)
        .map(|(buf, addr)| {
            let mut message = empty();
            let (name, len) = addr.as_mut_ptrs();
            message.msg_hdr.msg_name = name.cast();
            // SAFETY: it points to a field of `addr`, which nobody else uses now.
            message.msg_hdr.msg_namelen = unsafe { *len };
            // An IoSliceMut is an iovec, says std.
            message.msg_hdr.msg_iov = (&raw mut *buf).cast();
            message.msg_hdr.msg_iovlen = 1;
            message
        })
        .collect();
    let flags = flags | libc::MSG_WAITFORONE;
    // SAFETY: each message points to one buffer and one address, all borrowed for the whole call
    // and ours to write; there are `count` messages.
    let result = answer(unsafe {
        libc::recvmmsg(
            fd.as_raw_fd(),
            messages.as_mut_ptr(),
            count as libc::c_uint,
            flags as _,
            std::ptr::null_mut(),
        )
    } as isize);
    received.clear();
    let lengths: Vec<_> = messages.iter().map(|message| message.msg_len as usize).collect();
    let filled = usize::try_from(result).unwrap_or(0);
    received.extend(lengths.into_iter().zip(addrs).take(filled));
    result
}

/// `sendmmsg`, each buffer one datagram: to the address of the same index, or with no addresses to
/// where the socket is connected. The result is how many were sent, or `-errno` if the first was
/// not.
pub(crate) fn sendmmsg(
    fd: BorrowedFd<'_>,
    bufs: &[IoSlice<'_>],
    addrs: Option<&[SockAddr]>,
    flags: i32,
) -> i32 {
    let message = |(index, buf): (usize, &IoSlice<'_>)| {
        let mut message = empty();
        if let Some(addr) = addrs.map(|addrs| &addrs[index]) {
            message.msg_hdr.msg_name = addr.as_ptr().cast_mut().cast();
            message.msg_hdr.msg_namelen = addr.len();
        }
        // The kernel reads only, whatever the types say. An IoSlice is an iovec, says std.
        message.msg_hdr.msg_iov = (&raw const *buf).cast_mut().cast();
        message.msg_hdr.msg_iovlen = 1;
        message
    };
    let mut messages: Vec<_> = bufs.iter().take(MAX).enumerate().map(message).collect();
    let (count, flags) = (messages.len() as libc::c_uint, flags | libc::MSG_NOSIGNAL);
    // SAFETY: each message points to one buffer and at most one address, all borrowed for the whole
    // call, which only reads them; there are `count` messages, which are ours to write.
    answer(unsafe { libc::sendmmsg(fd.as_raw_fd(), messages.as_mut_ptr(), count, flags as _) }
        as isize)
}
