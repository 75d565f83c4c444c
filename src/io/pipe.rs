//! Pipes without a name.
#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::process::Stdio;

use crate::fs::File;

/// Makes a pipe: what is written to the second can be read from the first.
///
/// A read waits until there is something, and finds the end when all writers are closed. A write
/// waits while the pipe is full (it has room for 64 KiB, as a rule).
///
/// # Errors
/// If there are too many open files.
///
/// # Examples
/// ```
/// use ramie::io::{self, Read, Write};
///
/// ramie::Runtime::new()?.run(|| {
///     let (mut reader, mut writer) = io::pipe()?;
///     let fiber = ramie::spawn(move || writer.write_all(b"hello")); // and closes it
///     let mut text = String::new();
///     reader.read_to_string(&mut text)?;
///     assert_eq!(text, "hello");
///     fiber.join().unwrap()
/// })?;
/// # io::Result::Ok(())
/// ```
pub fn pipe() -> io::Result<(PipeReader, PipeWriter)> {
    let (reader, writer) = io::pipe()?; // never waits
    Ok((PipeReader(File::of_pipe(reader.into())), PipeWriter(File::of_pipe(writer.into()))))
}

/// The reading end of a [`pipe`].
///
/// It is closed when it goes out of scope.
///
/// # Cancellation
/// A read that is cancelled has taken nothing.
pub struct PipeReader(File);

/// The writing end of a [`pipe`].
///
/// It is closed when it goes out of scope. Writing to a pipe that nobody can read from any more
/// fails with [`BrokenPipe`](io::ErrorKind::BrokenPipe), as long as the process ignores `SIGPIPE`,
/// which Rust programs do unless they undo it.
///
/// # Cancellation
/// A write that is cancelled has written nothing.
pub struct PipeWriter(File);

impl Read for &PipeReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&self.0).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&self.0).read_vectored(bufs)
    }

    fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        (&self.0).read_to_end(buf)
    }
}

impl Read for PipeReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        (&*self).read(buf)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        (&*self).read_vectored(bufs)
    }

    fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
        (&*self).read_to_end(buf)
    }
}

impl Write for &PipeWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&self.0).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&self.0).write_vectored(bufs)
    }

    /// Does nothing: nothing is held back.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for PipeWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        (&*self).write(buf)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        (&*self).write_vectored(bufs)
    }

    /// Does nothing: nothing is held back.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

macro_rules! end {
    ($name:ident, $std:ty) => {
        impl $name {
            /// A second handle of the same end. The end is closed when all its handles are.
            ///
            /// # Errors
            /// If there are too many open files.
            pub fn try_clone(&self) -> io::Result<$name> {
                Ok($name(File::of_pipe(self.as_fd().try_clone_to_owned()?)))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.as_raw_fd()).finish()
            }
        }

        impl AsFd for $name {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.0.as_fd()
            }
        }

        impl AsRawFd for $name {
            fn as_raw_fd(&self) -> RawFd {
                self.0.as_raw_fd()
            }
        }

        impl IntoRawFd for $name {
            fn into_raw_fd(self) -> RawFd {
                self.0.into_raw_fd()
            }
        }

        impl From<$name> for OwnedFd {
            fn from(end: $name) -> OwnedFd {
                end.0.into()
            }
        }

        impl From<OwnedFd> for $name {
            fn from(fd: OwnedFd) -> $name {
                $name(fd.into())
            }
        }

        impl From<$std> for $name {
            fn from(end: $std) -> $name {
                OwnedFd::from(end).into()
            }
        }

        impl From<$name> for $std {
            fn from(end: $name) -> $std {
                OwnedFd::from(end).into()
            }
        }

        impl From<$name> for Stdio {
            fn from(end: $name) -> Stdio {
                end.0.into()
            }
        }
    };
}

end!(PipeReader, io::PipeReader);
end!(PipeWriter, io::PipeWriter);
