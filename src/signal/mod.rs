//! Signals of the operating system: waiting for those that ask this process for something.
//!
//! ```no_run
//! use ramie::signal::{SIGHUP, SIGINT, SIGTERM, Signals};
//!
//! #[ramie::main]
//! fn main() -> std::io::Result<()> {
//!     let signals = Signals::new(&[SIGHUP, SIGINT, SIGTERM])?;
//!     ramie::spawn(|| { /* the work */ });
//!     loop {
//!         match signals.recv()? {
//!             SIGHUP => println!("reading the configuration again"),
//!             _ => break,
//!         }
//!     }
//!     println!("ending in good order");
//!     Ok(())
//! }
//! ```
//! [`ctrl_c`] is the short form for one of them. In a [`select!`](crate::select) there is
//! `recv(&signals)`.
//!
//! # What is promised
//! - A signal that arrives after [`Signals::new`] has returned is received from every [`Signals`]
//!   that was made for it.
//! - Signals that arrive faster than they are received are merged, each kind with its own: none is
//!   lost for good, and none of a kind keeps back those of another. (That is also what the kernel
//!   does, except that it counts real-time signals.)
//! - **Once a signal has been asked for, its default action does not come back**, also when every
//!   [`Signals`] has been dropped: a signal that comes between two of them must not end the
//!   process. A program that ends on the first Ctrl-C and waits for a second one should say so.
//! - A handler that the process had for the signal before is still called. One that is installed
//!   later takes the place of ours, unless it calls on what it has found.
//!
//! # How
//! A handler notes that the signal has come, and wakes a thread named `ramie-signals`, which is
//! started with the first [`Signals`] and passes it on. The handler runs on the thread's alternate
//! stack, so a fiber's stack needs no room for it. It has interrupted system calls repeated.
//!
//! A process that `fork` has made, and that does not call `exec`, has the handler and not the
//! thread: there signals are caught, and nobody hears of them.
#![forbid(unsafe_code)]

mod hub;

use crate::cancel;
use crate::coro::OnCancel;
use crate::sync::lock::Locked;
use crate::sync::wait::{Waited, wait_in};
use crate::sys::clock;
use hub::{Listener, State};
use std::fmt;
use std::io;
use std::iter::FusedIterator;
use std::sync::Arc;
use std::time::Duration;

macro_rules! numbers {
    ($($(#[$doc:meta])* $name:ident)*) => { $(
        $(#[$doc])*
        pub const $name: i32 = libc::$name;
    )* };
}

numbers! {
    /// The terminal has gone; to servers: read the configuration again.
    SIGHUP
    /// Ctrl-C.
    SIGINT
    /// Ctrl-\.
    SIGQUIT
    /// Whatever the program makes of it.
    SIGUSR1
    /// Whatever the program makes of it.
    SIGUSR2
    /// A write to a pipe or connection without a reader. Rust programs ignore it by default.
    SIGPIPE
    /// The end of an alarm's time.
    SIGALRM
    /// A request to end.
    SIGTERM
    /// A child has ended, or stopped. For waiting for a child see [`process`](crate::process).
    SIGCHLD
    /// The process goes on after a stop.
    SIGCONT
    /// Ctrl-Z.
    SIGTSTP
    /// A read from the terminal in the background.
    SIGTTIN
    /// A write to the terminal in the background.
    SIGTTOU
    /// Urgent data at a socket.
    SIGURG
    /// The terminal has another size.
    SIGWINCH
    /// I/O is possible.
    SIGIO
    /// The power fails.
    SIGPWR
}

/// Receives signals of certain kinds; see the [module](self).
///
/// Several fibers and threads may receive from one at the same time: each signal is received by one
/// of them. With a `Signals` of its own, each gets every signal.
///
/// # Examples
/// ```
/// use ramie::signal::{SIGUSR1, Signals};
///
/// ramie::Runtime::new()?.run(|| {
///     let signals = Signals::new(&[SIGUSR1])?;
///     let sender = format!("kill -USR1 {}", std::process::id());
///     assert!(ramie::process::Command::new("sh").arg("-c").arg(sender).status()?.success());
///     assert_eq!(signals.recv()?, SIGUSR1);
///     std::io::Result::Ok(())
/// })?;
/// # std::io::Result::Ok(())
/// ```
pub struct Signals {
    listener: Arc<Listener>,
}

impl Signals {
    /// Receives the signals with these numbers from now on. See the [module](self) about their
    /// default actions.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if one cannot be received: if there is no such
    /// number, or it is that of `SIGKILL` or `SIGSTOP`, which nobody can, or of a signal that the
    /// kernel sends for what a thread has just done (`SIGSEGV` and its like: the thread cannot go
    /// on, so there is nobody to receive it). Also if there is none in the list. Others if no
    /// thread can be started.
    pub fn new(signals: &[i32]) -> io::Result<Signals> {
        hub::listen(signals).map(|listener| Signals { listener })
    }

    /// Waits for the next signal, and returns its number.
    ///
    /// # Errors
    /// Only those of cancellation.
    ///
    /// # Panics
    /// Inside [`no_suspend`](crate::no_suspend), if it has to wait.
    ///
    /// # Cancellation
    /// A request ends the wait, and is reported. No signal is lost.
    pub fn recv(&self) -> io::Result<i32> {
        loop {
            if let Some(signal) = self.recv_until(None)? {
                return Ok(signal);
            }
        }
    }

    /// As [`recv`](Self::recv), for `timeout` at most: `None` if nothing has come by then.
    ///
    /// # Errors
    /// As [`recv`](Self::recv).
    ///
    /// # Panics
    /// As [`recv`](Self::recv).
    ///
    /// # Cancellation
    /// As [`recv`](Self::recv).
    pub fn recv_timeout(&self, timeout: Duration) -> io::Result<Option<i32>> {
        self.recv_until(Some(clock::deadline_ns(timeout)))
    }

    /// The number of a signal that has come, if there is one. Does not wait.
    #[must_use = "the signal has been received"]
    pub fn try_recv(&self) -> Option<i32> {
        self.state().lock().take()
    }

    /// An endless iterator: each step is a [`recv`](Self::recv).
    pub fn iter(&self) -> Iter<'_> {
        Iter { signals: self }
    }

    fn recv_until(&self, deadline_ns: Option<u64>) -> io::Result<Option<i32>> {
        cancel::check()?;
        loop {
            if let Some(signal) = self.try_recv() {
                return Ok(Some(signal));
            }
            let waited = wait_in(
                self.state(),
                |state| &mut state.waiting,
                deadline_ns,
                OnCancel::End,
                |state| state.is_empty(),
            );
            if waited == Waited::GaveUp && self.state().lock().is_empty() {
                if deadline_ns.is_some_and(|deadline_ns| deadline_ns <= clock::now_ns()) {
                    return Ok(None);
                }
                cancel::check()?;
            }
        }
    }

    pub(crate) fn state(&self) -> &Locked<State> {
        &self.listener.state
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        hub::forget(&self.listener);
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signals").field(&self.listener.numbers().collect::<Vec<_>>()).finish()
    }
}

impl<'a> IntoIterator for &'a Signals {
    type Item = io::Result<i32>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// What [`Signals::iter`] returns: an endless iterator over signals.
#[derive(Debug)]
pub struct Iter<'a> {
    signals: &'a Signals,
}

impl Iterator for Iter<'_> {
    type Item = io::Result<i32>;

    fn next(&mut self) -> Option<io::Result<i32>> {
        Some(self.signals.recv())
    }
}

impl FusedIterator for Iter<'_> {}

/// Waits for the next Ctrl-C, which is `SIGINT`.
///
/// From the first call on, Ctrl-C does not end the process any more, and one that comes while
/// nobody waits does nothing. A program that wants to miss none keeps a [`Signals`].
///
/// # Errors
/// As [`Signals::new`] and [`Signals::recv`].
///
/// # Cancellation
/// A request ends the wait.
///
/// # Examples
/// ```no_run
/// #[ramie::main]
/// fn main() -> std::io::Result<()> {
///     let server = ramie::spawn(|| ramie::park());
///     ramie::signal::ctrl_c()?;
///     server.cancel();
///     Ok(())
/// }
/// ```
pub fn ctrl_c() -> io::Result<()> {
    Signals::new(&[SIGINT])?.recv().map(drop)
}
