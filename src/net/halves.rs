//! The two directions of a stream as values of their own.
//!
//! `&TcpStream` reads and writes already, so these are for code that wants to own its half: a
//! library that takes a reader and a writer, a fiber that outlives its caller, an end of file for
//! the peer when the writer goes away.

use std::error::Error;
use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use super::TcpStream;
use super::unix::UnixStream;
use crate::io::{CopySink, CopySource};

mod sealed {
    /// A stream that can be split.
    pub trait Stream {
        /// The other end is to see the end of what is written.
        fn end_writing(&self);
    }
}

/// The reading half of a stream that [`split`](TcpStream::split) has borrowed. Not in std.
///
/// [`AsRef`] gives the stream itself, with its addresses and options.
#[derive(Debug)]
pub struct ReadHalf<'a, S = TcpStream>(&'a S);

/// The writing half of a stream that [`split`](TcpStream::split) has borrowed. Not in std.
///
/// Dropping it shuts nothing down. [`AsRef`] gives the stream itself.
#[derive(Debug)]
pub struct WriteHalf<'a, S = TcpStream>(&'a S);

/// The reading half of a stream, from [`into_split`](TcpStream::into_split). Not in std.
///
/// [`AsRef`] gives the stream itself, with its addresses and options. The connection is closed when
/// both halves have been dropped.
#[derive(Debug)]
pub struct OwnedReadHalf<S = TcpStream>(Arc<S>);

/// The writing half of a stream, from [`into_split`](TcpStream::into_split). Not in std.
///
/// When it is dropped, writing is shut down: the other end reads the end. [`forget`](Self::forget)
/// drops it without that.
#[derive(Debug)]
pub struct OwnedWriteHalf<S: sealed::Stream = TcpStream> {
    stream: Arc<S>,
    ends: bool,
}

/// Two halves that are not of one stream: what [`OwnedReadHalf::reunite`] returns then.
#[derive(Debug)]
pub struct ReuniteError<S: sealed::Stream = TcpStream>(pub OwnedReadHalf<S>, pub OwnedWriteHalf<S>);

impl<S: sealed::Stream> fmt::Display for ReuniteError<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the two halves are not of the same stream")
    }
}

impl<S: sealed::Stream + fmt::Debug> Error for ReuniteError<S> {}

impl<S: sealed::Stream> OwnedReadHalf<S> {
    /// The stream again.
    ///
    /// # Errors
    /// If the halves come from different streams. The error has both.
    pub fn reunite(self, other: OwnedWriteHalf<S>) -> Result<S, ReuniteError<S>> {
        if !Arc::ptr_eq(&self.0, &other.stream) {
            return Err(ReuniteError(self, other));
        }
        other.forget();
        Ok(Arc::into_inner(self.0).expect("there were two halves"))
    }
}

impl<S: sealed::Stream> OwnedWriteHalf<S> {
    /// As [`OwnedReadHalf::reunite`].
    ///
    /// # Errors
    /// If the halves come from different streams. The error has both.
    pub fn reunite(self, other: OwnedReadHalf<S>) -> Result<S, ReuniteError<S>> {
        other.reunite(self)
    }

    /// Drops it and leaves the direction open.
    pub fn forget(mut self) {
        self.ends = false;
    }
}

impl<S: sealed::Stream> Drop for OwnedWriteHalf<S> {
    fn drop(&mut self) {
        if self.ends {
            self.stream.end_writing();
        }
    }
}

macro_rules! reads {
    ($half:ty, $($limits:tt)*) => {
        impl<$($limits)*> AsRef<S> for $half {
            fn as_ref(&self) -> &S {
                &self.0
            }
        }

        impl<$($limits)*> Read for $half
        where
            for<'b> &'b S: Read,
        {
            #[inline]
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                (&*self.0).read(buf)
            }

            fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
                (&*self.0).read_vectored(bufs)
            }
        }

        impl<$($limits)*> CopySource for $half
        where
            S: CopySource,
            for<'b> &'b S: Read,
        {
            fn fd(&self) -> Option<BorrowedFd<'_>> {
                S::fd(&self.0)
            }
        }
    };
}

macro_rules! writes {
    ($half:ty, $field:tt, $($limits:tt)*) => {
        impl<$($limits)*> AsRef<S> for $half {
            fn as_ref(&self) -> &S {
                &self.$field
            }
        }

        impl<$($limits)*> Write for $half
        where
            for<'b> &'b S: Write,
        {
            #[inline]
            fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
                (&*self.$field).write(buf)
            }

            fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
                (&*self.$field).write_vectored(bufs)
            }

            /// Does nothing: nothing is held back.
            #[inline]
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        impl<$($limits)*> CopySink for $half
        where
            S: CopySink,
            for<'b> &'b S: Write,
        {
            fn fd(&self) -> Option<BorrowedFd<'_>> {
                S::fd(&self.$field)
            }
        }
    };
}

reads!(ReadHalf<'_, S>, S);
reads!(OwnedReadHalf<S>, S);
writes!(WriteHalf<'_, S>, 0, S);
writes!(OwnedWriteHalf<S>, stream, S: sealed::Stream);

macro_rules! splits {
    ($name:ident, $example:literal) => {
        impl sealed::Stream for $name {
            fn end_writing(&self) {
                let _ = self.shutdown(Shutdown::Write); // the other end may have gone
            }
        }

        impl $name {
            /// Two halves that borrow the stream, one that reads and one that writes. Not in std.
            ///
            #[doc = concat!("`&", stringify!($name), "` does both, too, and can be given to ")]
            /// two fibers of a [`scope`](crate::scope()) as it is. This is for code that asks for
            /// a reader and a writer.
            ///
            /// # Examples
            /// ```
            #[doc = $example]
            /// let (mut reader, mut writer) = stream.split();
            /// ramie::scope(|scope| {
            ///     scope.spawn(move || writer.write_all(b"hello"));
            ///     let mut buf = [0; 5];
            ///     reader.read_exact(&mut buf)?;
            ///     assert_eq!(&buf, b"HELLO");
            ///     io::Result::Ok(())
            /// })
            /// # })?;
            /// # io::Result::Ok(())
            /// ```
            pub fn split(&mut self) -> (ReadHalf<'_, $name>, WriteHalf<'_, $name>) {
                (ReadHalf(self), WriteHalf(self))
            }

            /// Two halves that own the stream together, one that reads and one that writes. Not in
            /// std.
            ///
            /// They may go to different fibers and threads. When the writing half is dropped,
            /// writing is shut down; when both are, the connection is closed.
            /// [`reunite`](OwnedReadHalf::reunite) makes the stream of them again.
            ///
            /// # Examples
            /// ```
            #[doc = $example]
            /// let (mut reader, mut writer) = stream.into_split();
            /// ramie::spawn(move || writer.write_all(b"all there is"));
            /// let mut text = String::new();
            /// reader.read_to_string(&mut text)?;
            /// assert_eq!(text, "ALL THERE IS");
            /// # io::Result::Ok(())
            /// # })?;
            /// # io::Result::Ok(())
            /// ```
            pub fn into_split(self) -> (OwnedReadHalf<$name>, OwnedWriteHalf<$name>) {
                let stream = Arc::new(self);
                let reader = OwnedReadHalf(Arc::clone(&stream));
                (reader, OwnedWriteHalf { stream, ends: true })
            }
        }
    };
}

splits!(
    TcpStream,
    "# use ramie::{io::{self, Read, Write}, net::{TcpListener, TcpStream}};
# ramie::Runtime::new()?.run(|| {
# let listener = TcpListener::bind(\"127.0.0.1:0\")?;
# let mut stream = TcpStream::connect(listener.local_addr()?)?;
# let mut peer = listener.accept()?.0;
# ramie::spawn(move || {
#     let mut buf = [0; 5];
#     while let Ok(n @ 1..) = peer.read(&mut buf) {
#         peer.write_all(&buf[..n].to_ascii_uppercase()).unwrap();
#     }
# });"
);
splits!(
    UnixStream,
    "# use ramie::{io::{self, Read, Write}, os::unix::net::UnixStream};
# ramie::Runtime::new()?.run(|| {
# let (mut stream, mut peer) = UnixStream::pair()?;
# ramie::spawn(move || {
#     let mut buf = [0; 5];
#     while let Ok(n @ 1..) = peer.read(&mut buf) {
#         peer.write_all(&buf[..n].to_ascii_uppercase()).unwrap();
#     }
# });"
);
