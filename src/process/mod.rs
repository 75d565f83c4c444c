//! Processes: what [`std::process`] has, with the same names, signatures and errors.
//!
//! On a fiber, starting a program, reading from it, writing to it and waiting for its end suspend
//! that fiber; on a plain thread they block it. [`Stdio`], [`Output`], [`ExitStatus`] and
//! everything about the own process are std's. What only Unix has is in
//! [`os::unix::process`](crate::os::unix::process).
//!
//! ```
//! use ramie::process::{Command, Stdio};
//! use std::io::{Read, Write};
//!
//! ramie::Runtime::new()?.run(|| {
//!     let mut sort = Command::new("sort").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
//!     let mut input = sort.stdin.take().expect("asked for");
//!     input.write_all(b"pear\napple\n")?;
//!     drop(input); // the end of what it reads
//!     assert_eq!(sort.wait_with_output()?.stdout, b"apple\npear\n");
//!     std::io::Result::Ok(())
//! })?;
//! # std::io::Result::Ok(())
//! ```
//!
//! # Zombies
//! As in std, a child that nobody waits for goes on when its [`Child`] is dropped, and is a zombie
//! from its end to that of this process. With [`kill_on_drop`](Command::kill_on_drop) it is killed,
//! and waited for in the background.
//!
//! # Where it differs from std
//! - There is [`wait_timeout`](Child::wait_timeout), [`send_signal`](Child::send_signal) and
//!   [`kill_on_drop`](Command::kill_on_drop).
//! - On a fiber, a program is started by a thread of the blocking pool, since that takes as long as
//!   loading it does. So the child inherits what is a thread's own (its niceness, the cores it may
//!   run on, what it has unshared) from that thread, and it is that thread whose end
//!   `PR_SET_PDEATHSIG` is about. Where that matters, start it on a plain thread, or by std's
//!   `Command`, and make a [`Child`] of std's.
//! - [`wait_with_output`](Child::wait_with_output) returns the error of a failed read, where std
//!   panics.
//!
//! | file         | what                                                      |
//! |--------------|-----------------------------------------------------------|
//! | `command.rs` | [`Command`]                                               |
//! | `child.rs`   | [`Child`]: waiting, killing, collecting what it writes    |
//! | `pipes.rs`   | [`ChildStdin`], [`ChildStdout`], [`ChildStderr`]          |
//! | `orphans.rs` | children that were killed by a drop                       |
#![forbid(unsafe_code)]

mod child;
mod command;
mod orphans;
mod pipes;

pub use child::Child;
pub use command::Command;
pub use pipes::{ChildStderr, ChildStdin, ChildStdout};
#[doc(no_inline)]
pub use std::process::{
    CommandArgs, CommandEnvs, ExitCode, ExitStatus, Output, Stdio, Termination, abort, exit, id,
};
