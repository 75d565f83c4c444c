//! Unix's own part of [`ramie::process`](crate::process), as [`std::os::unix::process`].
//!
//! [`CommandExt`] is a trait of this crate, since std's may be implemented by std only.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt as _;

#[doc(no_inline)]
pub use std::os::unix::process::{ExitStatusExt, parent_id};

use crate::process::Command;

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::process::Command {}
}

/// Unix's extensions to [`process::Command`](crate::process::Command); those of
/// [`std::os::unix::process::CommandExt`].
pub trait CommandExt: sealed::Sealed {
    /// Sets the child's user ID, and with it drops the groups of this process.
    ///
    /// # Examples
    /// ```
    /// use ramie::os::unix::process::CommandExt;
    ///
    /// let mut command = ramie::process::Command::new("id");
    /// command.uid(65534).gid(65534);
    /// ```
    fn uid(&mut self, id: u32) -> &mut Command;

    /// Sets the child's group ID.
    fn gid(&mut self, id: u32) -> &mut Command;

    /// Schedules a closure to be run in the child just before `exec`. May be called several times;
    /// the closures are run in the order of the calls. An error that one returns is the error of
    /// `spawn`, and nothing is executed.
    ///
    /// # Safety
    /// The closure runs in a process that `fork` has made of one with several threads, so it may
    /// call nothing but what is async-signal-safe: no locks, no allocation, nothing of this crate.
    /// See [`std::os::unix::process::CommandExt::pre_exec`]. On a fiber, it runs in a copy not of
    /// the thread that calls `spawn`, but of one of the blocking pool.
    unsafe fn pre_exec<F>(&mut self, f: F) -> &mut Command
    where
        F: FnMut() -> io::Result<()> + Send + Sync + 'static;

    /// Replaces this process, with all its threads and fibers, by the command. Returns only if that
    /// fails. Nothing is cleaned up, as with [`exit`](crate::process::exit).
    ///
    /// # Errors
    /// As [`spawn`](Command::spawn); this process may then have other standard streams, and
    /// another working directory.
    fn exec(&mut self) -> io::Error;

    /// Sets the first argument, by which the program is told its own name.
    fn arg0<S: AsRef<OsStr>>(&mut self, arg: S) -> &mut Command;

    /// Sets the child's process group; 0 is a new one, of the child's own number.
    fn process_group(&mut self, pgroup: i32) -> &mut Command;
}

impl CommandExt for Command {
    fn uid(&mut self, id: u32) -> &mut Command {
        self.std_mut().uid(id);
        self
    }

    fn gid(&mut self, id: u32) -> &mut Command {
        self.std_mut().gid(id);
        self
    }

    unsafe fn pre_exec<F>(&mut self, f: F) -> &mut Command
    where
        F: FnMut() -> io::Result<()> + Send + Sync + 'static,
    {
        // SAFETY: the caller's promise is the same.
        unsafe { self.std_mut().pre_exec(f) };
        self
    }

    fn exec(&mut self) -> io::Error {
        self.std_mut().exec()
    }

    fn arg0<S: AsRef<OsStr>>(&mut self, arg: S) -> &mut Command {
        self.std_mut().arg0(arg);
        self
    }

    fn process_group(&mut self, pgroup: i32) -> &mut Command {
        self.std_mut().process_group(pgroup);
        self
    }
}
