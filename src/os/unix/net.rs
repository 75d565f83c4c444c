//! Sockets of the Unix family, as [`std::os::unix::net`].
#![forbid(unsafe_code)]

pub use crate::net::unix::{Incoming, UnixDatagram, UnixListener, UnixStream};
#[doc(no_inline)]
pub use std::os::unix::net::SocketAddr;
