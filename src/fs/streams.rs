//! [`ReadStream`] and [`WriteStream`]: a file from an offset on, whatever others do with it.

use std::borrow::Borrow;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use super::File;

/// Reads a file from an offset on. Not in std.
///
/// The offset is the stream's own: it neither uses nor moves the file's position. So any number of
/// streams can read one file at the same time, each at its own place. The file may be a [`File`], a
/// reference to one or an [`Arc`](std::sync::Arc).
///
/// # Examples
/// ```
/// use ramie::fs::{File, ReadStream};
/// use std::io::Read;
///
/// let file = File::open("Cargo.toml")?;
/// let (mut one, mut other) = (ReadStream::new(&file, 0), ReadStream::new(&file, 1));
/// let (mut a, mut b) = ([0; 4], [0; 4]);
/// one.read_exact(&mut a)?;
/// other.read_exact(&mut b)?;
/// assert_eq!(a[1..], b[..3]);
/// assert_eq!(one.offset(), 4);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ReadStream<F = File> {
    file: F,
    offset: u64,
}

/// Writes a file from an offset on. Not in std.
///
/// The offset is the stream's own, as that of a [`ReadStream`]. It is of no use for a file that is
/// open for appending: Linux then writes at the end wherever it is told to.
///
/// # Examples
/// ```
/// use ramie::fs::{File, WriteStream};
/// use std::io::Write;
///
/// # let path = std::env::temp_dir().join(format!("ramie-streams-{}", std::process::id()));
/// let file = File::create(&path)?;
/// ramie::Runtime::new()?.run(|| {
///     // Two fibers write two halves of one file.
///     ramie::scope(|s| {
///         for (n, text) in [(0, "hello "), (1, "world!")] {
///             let mut half = WriteStream::new(&file, n * 6);
///             s.spawn(move || half.write_all(text.as_bytes()).unwrap());
///         }
///     });
/// });
/// assert_eq!(ramie::fs::read_to_string(&path)?, "hello world!");
/// # ramie::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct WriteStream<F = File> {
    file: F,
    offset: u64,
}

macro_rules! stream {
    ($stream:ident) => {
        impl<F: Borrow<File>> $stream<F> {
            /// A stream over `file` that begins at `offset`.
            pub const fn new(file: F, offset: u64) -> Self {
                $stream { file, offset }
            }

            /// The offset of the next byte.
            pub const fn offset(&self) -> u64 {
                self.offset
            }

            /// The file.
            pub const fn get_ref(&self) -> &F {
                &self.file
            }

            /// Gives the file back.
            pub fn into_inner(self) -> F {
                self.file
            }
        }

        impl<F: Borrow<File>> Seek for $stream<F> {
            /// Moves the stream's own offset. Only [`SeekFrom::End`] asks the kernel.
            fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
                let target = match to {
                    SeekFrom::Start(offset) => Some(offset),
                    SeekFrom::Current(by) => self.offset.checked_add_signed(by),
                    SeekFrom::End(by) => {
                        self.file.borrow().metadata()?.len().checked_add_signed(by)
                    }
                };
                let valid = target.filter(|offset| i64::try_from(*offset).is_ok());
                self.offset = valid.ok_or_else(|| {
                    let text = "invalid seek to a negative or overflowing offset";
                    io::Error::new(ErrorKind::InvalidInput, text)
                })?;
                Ok(self.offset)
            }
        }
    };
}

stream!(ReadStream);
stream!(WriteStream);

impl<F: Borrow<File>> Read for ReadStream<F> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.file.borrow().read_at(buf, self.offset)?;
        self.offset += n as u64;
        Ok(n)
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let n = self.file.borrow().read_vectored_at(bufs, self.offset)?;
        self.offset += n as u64;
        Ok(n)
    }
}

impl<F: Borrow<File>> Write for WriteStream<F> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.file.borrow().write_at(buf, self.offset)?;
        self.offset += n as u64;
        Ok(n)
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let n = self.file.borrow().write_vectored_at(bufs, self.offset)?;
        self.offset += n as u64;
        Ok(n)
    }

    /// Does nothing: there is no buffer in this process.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
