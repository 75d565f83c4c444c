//! Copying from a reader to a writer.
//!
//! | file          | what                                                                  |
//! |---------------|-----------------------------------------------------------------------|
//! | `mod.rs`      | [`copy`], and the way through a buffer, which always works            |
//! | `ends.rs`     | what a reader and a writer have to tell so that the kernel can copy   |
//! | `standard.rs` | the standard streams as such                                          |
//! | `dispatch.rs` | which types those are                                                 |
//! | `kernel.rs`   | the ways that leave the bytes in the kernel                           |

#![deny(unsafe_code)]

use std::io::{self, ErrorKind, Read, Write};

#[expect(unsafe_code, reason = "one type at two names")]
mod dispatch;
mod ends;
mod kernel;
mod standard;

pub(crate) use ends::{Sink, Source};

/// The buffer of a short copy, on the stack.
const SHORT: usize = 8 << 10;
/// The buffer of a long one: from here on a larger one makes no difference.
const LONG: usize = 256 << 10;

/// Copies the entire contents of a reader into a writer, and returns the number of bytes.
///
/// As in std, bytes that need not come into the process stay in the kernel where both ends allow
/// it: between files, from a file to a socket or a pipe, and from or to a pipe. That goes for
/// [`File`](crate::fs::File), [`TcpStream`](crate::net::TcpStream),
/// [`UnixStream`](crate::os::unix::net::UnixStream), the halves of these, the ends of a
/// [`pipe`](super::pipe), a child's standard streams, the process's own
/// ([`stdin`](super::stdin) and its like, locked or not), for references to them, in a
/// [`Take`](io::Take), a [`BufReader`](io::BufReader) or a [`BufWriter`](io::BufWriter), and in a
/// `Take` and a `BufReader` together. What a `BufReader` or the standard input holds is copied
/// first, and what an output holds written before.
/// Everything else is read and written; so is what goes from the standard input to a standard
/// output, unless one of them is locked.
///
/// Files are copied from and to their positions, which then are behind what was copied.
///
/// # Errors
/// Those of reading and of writing; [`Interrupted`](ErrorKind::Interrupted) is tried again.
/// What was copied before is lost to the caller; [`copy_counted`] tells.
///
/// # Cancellation
/// Fails at once, except between two files, where up to 16 MiB more are copied. What has been taken
/// out of a socket, a pipe or any other reader and not been written yet is lost, as in any error of
/// the writer.
///
/// # Examples
/// ```
/// use ramie::{fs::File, io, net::{TcpListener, TcpStream}};
///
/// ramie::Runtime::new()?.run(|| {
///     let listener = TcpListener::bind("127.0.0.1:0")?;
///     let addr = listener.local_addr()?;
///     let client = ramie::spawn(move || {
///         let mut text = Vec::new();
///         io::copy(&mut TcpStream::connect(addr)?, &mut text)?;
///         io::Result::Ok(text)
///     });
///     let n = io::copy(&mut File::open("Cargo.toml")?, &mut listener.accept()?.0)?;
///     assert_eq!(n, client.join().unwrap()?.len() as u64);
///     io::Result::Ok(())
/// })?;
/// # io::Result::Ok(())
/// ```
pub fn copy<R, W>(reader: &mut R, writer: &mut W) -> io::Result<u64>
where
    R: ?Sized + Read,
    W: ?Sized + Write,
{
    let mut copied = 0;
    copy_counted(reader, writer, &mut copied)?;
    Ok(copied)
}

/// As [`copy`], and adds to `copied` whatever has been written, also if it then fails. Not in std.
///
/// # Errors
/// As [`copy`].
///
/// # Examples
/// ```
/// use ramie::io::{self, Read};
///
/// struct Breaks;
/// impl Read for Breaks {
///     fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
///         Err(io::Error::other("no more"))
///     }
/// }
/// let mut copied = 0;
/// let error = io::copy_counted(&mut b"abc".chain(Breaks), &mut io::sink(), &mut copied);
/// assert!(error.is_err());
/// assert_eq!(copied, 3);
/// ```
pub fn copy_counted<R, W>(reader: &mut R, writer: &mut W, copied: &mut u64) -> io::Result<()>
where
    R: ?Sized + Read,
    W: ?Sized + Write,
{
    if let (Some(source), Some(sink)) = (dispatch::source(reader), dispatch::sink(writer)) {
        match kernel::copy(source, sink, copied)? {
            kernel::Copied::All => return Ok(()),
            kernel::Copied::Few(left) if left > SHORT as u64 => {
                // All in one go, and the end is seen by the room that is left over.
                let mut all = vec![0; left as usize + 1];
                if copy_through(&mut all, reader, writer, copied)? {
                    return Ok(());
                }
            }
            kernel::Copied::Few(_) | kernel::Copied::Part => {}
        }
    }
    let mut short = [0; SHORT];
    if copy_through(&mut short, reader, writer, copied)? {
        return Ok(());
    }
    copy_through(&mut vec![0; LONG], reader, writer, copied).map(drop)
}

/// Reads and writes by way of `buf`. `true` at the end; `false` if there seems to be more than a
/// short buffer is good for.
fn copy_through<R, W>(
    buf: &mut [u8],
    reader: &mut R,
    writer: &mut W,
    copied: &mut u64,
) -> io::Result<bool>
where
    R: ?Sized + Read,
    W: ?Sized + Write,
{
    loop {
        let n = match reader.read(buf) {
            Ok(0) => return Ok(true),
            Ok(n) => n,
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        write_all(&buf[..n], writer, copied)?;
        if n == buf.len() && n < LONG {
            return Ok(false);
        }
    }
}

/// `write_all`, and counts what has been written in any case.
fn write_all<W: ?Sized + Write>(
    mut bytes: &[u8],
    writer: &mut W,
    copied: &mut u64,
) -> io::Result<()> {
    while !bytes.is_empty() {
        match writer.write(bytes) {
            Ok(0) => {
                return Err(io::Error::new(ErrorKind::WriteZero, "failed to write whole buffer"));
            }
            Ok(n) => {
                *copied += n as u64;
                bytes = &bytes[n..];
            }
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}
