//! The Linux part of networking, as [`std::os::linux::net`].
#![forbid(unsafe_code)]

use std::io;
use std::os::linux::net::TcpStreamExt as StdExt;

use crate::net::TcpStream;

#[doc(no_inline)]
pub use std::os::linux::net::SocketAddrExt;

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::net::TcpStream {}
}

/// What only Linux offers on a [`TcpStream`].
///
/// # Examples
/// ```
/// use ramie::net::{TcpListener, TcpStream};
/// use ramie::os::linux::net::TcpStreamExt;
///
/// let listener = TcpListener::bind("127.0.0.1:0")?;
/// let stream = TcpStream::connect(listener.local_addr()?)?;
/// stream.set_quickack(true)?;
/// assert!(stream.quickack()?);
/// # std::io::Result::Ok(())
/// ```
pub trait TcpStreamExt: sealed::Sealed {
    /// Sets whether what is received is acknowledged at once (`TCP_QUICKACK`). The system may
    /// change it back.
    ///
    /// # Errors
    /// Those of `setsockopt`.
    fn set_quickack(&self, quickack: bool) -> io::Result<()>;

    /// Whether what is received is acknowledged at once.
    ///
    /// # Errors
    /// Those of `getsockopt`.
    fn quickack(&self) -> io::Result<bool>;
}

impl TcpStreamExt for TcpStream {
    fn set_quickack(&self, quickack: bool) -> io::Result<()> {
        self.as_std().set_quickack(quickack)
    }

    fn quickack(&self) -> io::Result<bool> {
        self.as_std().quickack()
    }
}
