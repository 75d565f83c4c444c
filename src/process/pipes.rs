//! Our ends of a child's standard streams.

use std::fmt;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::process::Stdio;

use crate::fs::File;

/// A handle to a child's standard input.
///
/// Dropping it closes it: the child finds the end of its input once it has read the rest. Writes
/// after the child has closed its end fail with [`BrokenPipe`](io::ErrorKind::BrokenPipe).
pub struct ChildStdin(File);

/// A handle to a child's standard output.
///
/// Dropping it closes it: what the child writes then fails, or ends it with `SIGPIPE`.
pub struct ChildStdout(File);

/// A handle to a child's standard error.
///
/// Dropping it closes it, as it does a [`ChildStdout`].
pub struct ChildStderr(File);

impl Write for &ChildStdin {
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

impl Write for ChildStdin {
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

macro_rules! reads {
    ($($name:ident)*) => { $(
        impl Read for $name {
            fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
                self.0.read(buf)
            }

            fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
                self.0.read_vectored(bufs)
            }

            fn read_to_end(&mut self, buf: &mut Vec<u8>) -> io::Result<usize> {
                self.0.read_to_end(buf)
            }

            fn read_to_string(&mut self, buf: &mut String) -> io::Result<usize> {
                self.0.read_to_string(buf)
            }
        }

        impl $name {
            pub(super) fn file(&self) -> &File {
                &self.0
            }
        }
    )* };
}

reads!(ChildStdout ChildStderr);

macro_rules! descriptor {
    ($($name:ident)*) => { $(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
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
            fn from(pipe: $name) -> OwnedFd {
                pipe.0.into()
            }
        }

        impl From<OwnedFd> for $name {
            fn from(fd: OwnedFd) -> $name {
                $name(fd.into())
            }
        }

        impl From<std::process::$name> for $name {
            fn from(pipe: std::process::$name) -> $name {
                OwnedFd::from(pipe).into()
            }
        }

        impl From<$name> for std::process::$name {
            fn from(pipe: $name) -> std::process::$name {
                OwnedFd::from(pipe).into()
            }
        }

        impl From<$name> for Stdio {
            /// For another child, as in a shell's pipeline.
            fn from(pipe: $name) -> Stdio {
                OwnedFd::from(pipe).into()
            }
        }
    )* };
}

descriptor!(ChildStdin ChildStdout ChildStderr);

macro_rules! outputs {
    ($($name:ident $std:ident),+) => { $(
        impl From<crate::io::$name> for Stdio {
            /// The child writes to what this process writes to. What is buffered here is written
            /// when it is flushed, as in std.
            fn from(_: crate::io::$name) -> Stdio {
                std::io::$std().into()
            }
        }
    )+ };
}

outputs!(Stdout stdout, Stderr stderr);
