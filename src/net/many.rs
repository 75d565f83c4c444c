//! Several datagrams at once.
//!
//! The ring has no operation for it. So the call is made on the spot, where it does not wait, and
//! the ring says when it is worth another try.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use super::socket::{Socket, Way, in_time};
use crate::op::Op;
use crate::op::decode::decode;
use crate::sched;
use crate::sys::datagrams::{recvmmsg, sendmmsg};
use crate::sys::socket::SockAddr;

/// How long what cannot be waited for is left alone.
const LOOK: Duration = Duration::from_millis(1);

impl<S: Into<OwnedFd> + AsFd> Socket<S> {
    /// As `UdpSocket::recv_many`.
    pub(super) fn recv_many(
        &self,
        bufs: &mut [IoSliceMut<'_>],
    ) -> io::Result<Vec<(usize, SocketAddr)>> {
        let mut received = Vec::new();
        if !bufs.is_empty() {
            self.when_ready(Way::Read, |flags| recvmmsg(self.as_fd(), bufs, flags, &mut received))?;
        }
        received.into_iter().map(|(len, addr)| Ok((len, addr.to_inet()?))).collect()
    }

    /// As `UdpSocket::send_many`, or as `send_many_to` if there are addresses.
    pub(super) fn send_many(
        &self,
        bufs: &[IoSlice<'_>],
        addrs: Option<&[SockAddr]>,
    ) -> io::Result<usize> {
        if bufs.is_empty() {
            return Ok(0);
        }
        self.when_ready(Way::Write, |flags| sendmmsg(self.as_fd(), bufs, addrs, flags))
    }

    /// Makes a call that takes flags, again whenever the socket is ready, until it has not failed
    /// for having nothing to do.
    fn when_ready(&self, way: Way, mut call: impl FnMut(i32) -> i32) -> io::Result<usize> {
        crate::cancel::check()?;
        if sched::blocks_thread() {
            // The socket has the mode and the timeouts, and the kernel heeds them.
            return decode(call(0)).map(|count| count as usize);
        }
        let events = match way {
            Way::Read => libc::POLLIN,
            Way::Write => libc::POLLOUT,
        };
        let end = self.timeout(way).map(|timeout| (Instant::now(), timeout));
        // Who always finds something to do would never let others run.
        sched::submit::yield_now();
        loop {
            let result = call(libc::MSG_DONTWAIT);
            if result != -libc::EAGAIN || self.is_nonblocking() {
                return decode(result).map(|count| count as usize);
            }
            let ready = Op::Poll { fd: self.as_fd(), events };
            let left = end.map(|(start, timeout)| timeout.saturating_sub(start.elapsed()));
            let found = in_time(sched::submit_within(ready, left))?;
            if found & u32::from(events.cast_unsigned()) == 0 {
                // Something else is pending for good, such as a queue of errors that nobody reads:
                // `poll` says so at once, each time.
                crate::time::sleep(LOOK.min(left.unwrap_or(LOOK)));
                crate::cancel::check()?;
            }
        }
    }
}
