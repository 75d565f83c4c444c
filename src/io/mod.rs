//! Traits, helpers and descriptors for input and output: [`std::io`], suspending.
//!
//! The traits and types of std are here under their own names, so `use ramie::io` takes the place
//! of `use std::io`. What waits in std suspends here: [`stdin`], [`pipe`], [`copy`]. Additional is
//! [`AsyncFd`], which waits for descriptors that somebody else made, and [`batch`], which has many
//! operations in flight for one fiber.
//!
//! Descriptors may be in non-blocking mode or not. A fiber that reads from or writes to one waits
//! in either case, since that costs nobody a thread; only
//! [`set_nonblocking`](crate::net::TcpStream::set_nonblocking) of the sockets here asks for
//! [`WouldBlock`](ErrorKind::WouldBlock). On a plain thread the mode is obeyed, as in std.
//!
//! | file          | what                                                                  |
//! |---------------|-----------------------------------------------------------------------|
//! | `pipe.rs`     | [`pipe`], [`PipeReader`], [`PipeWriter`]                              |
//! | `async_fd.rs` | [`AsyncFd`]                                                           |
//! | `batch.rs`    | [`batch`]                                                             |
//! | `copy/`       | [`copy`]                                                              |
//! | `print.rs`    | [`print!`](crate::print), [`println!`](crate::println), ...              |
//! | `stdio.rs`    | [`stdin`], [`stdout`], [`stderr`]                                     |
//! | `terminal.rs` | [`IsTerminal`]                                                        |

mod async_fd;
mod batch;
mod copy;
mod pipe;
mod print;
mod stdio;
mod terminal;

pub use async_fd::{AsyncFd, Interest, Ready};
pub use batch::{Batch, Done, Key, batch};
pub(crate) use copy::{Sink as CopySink, Source as CopySource};
pub use copy::{copy, copy_counted};
pub use pipe::{PipeReader, PipeWriter, pipe};
#[doc(hidden)]
pub use print::{_eprint, _print};
pub use stdio::{Stderr, StderrLock, Stdin, StdinLock, Stdout, StdoutLock, stderr, stdin, stdout};
pub use terminal::IsTerminal;

#[doc(no_inline)]
pub use std::io::{
    BufRead, BufReader, BufWriter, Bytes, Chain, Cursor, Empty, Error, ErrorKind, IntoInnerError,
    IoSlice, IoSliceMut, LineWriter, Lines, Read, Repeat, Result, Seek, SeekFrom, Sink, Split,
    Take, Write, WriterPanicked, empty, prelude, read_to_string, repeat, sink,
};
