//! Descriptors: what [`std::os::fd`] has, which the types of this crate implement.
// `FromRawFd` is here for all of them: its method is unsafe, which their own modules forbid.

#[doc(no_inline)]
pub use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

macro_rules! from_raw_fd {
    ($($owner:ty),* $(,)?) => { $(
        impl FromRawFd for $owner {
            unsafe fn from_raw_fd(fd: RawFd) -> Self {
                // SAFETY: the caller gives us an open descriptor that nobody else owns.
                unsafe { OwnedFd::from_raw_fd(fd) }.into()
            }
        }
    )* };
}

from_raw_fd!(
    crate::fs::Dir,
    crate::fs::File,
    crate::io::PipeReader,
    crate::io::PipeWriter,
    crate::net::TcpListener,
    crate::net::TcpStream,
    crate::net::UdpSocket,
    crate::net::unix::UnixDatagram,
    crate::net::unix::UnixListener,
    crate::net::unix::UnixStream,
);
