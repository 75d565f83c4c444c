//! [`Child`].

use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{self as std_process, ExitStatus, Output};
use std::time::Duration;

use super::{ChildStderr, ChildStdin, ChildStdout, orphans};
use crate::cancel;
use crate::coro::OnCancel;
use crate::fs::File;
use crate::op::Op;
use crate::sched::{self, Detach, submit, submit_within};
use crate::sys::clock;
use crate::sys::process::{self, ReadySet};
use crate::sys::socket::poll_many;
use crate::time::sleep;

/// How often a child is asked whether it has ended, where nothing tells.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// A running or exited child process, as [`std::process::Child`].
///
/// Dropped, it leaves the child alone, unless [`Command::kill_on_drop`] was set; see the
/// [module](crate::process) about zombies.
///
/// [`Command::kill_on_drop`]: super::Command::kill_on_drop
pub struct Child {
    /// The handle for writing to the child's standard input, if it is a pipe.
    pub stdin: Option<ChildStdin>,
    /// The handle for reading from the child's standard output, if it is a pipe.
    pub stdout: Option<ChildStdout>,
    /// The handle for reading from the child's standard error, if it is a pipe.
    pub stderr: Option<ChildStderr>,
    // What has a destructor is in here, so that the pipes can be moved out, as of std's.
    process: Process,
}

struct Process {
    /// Without its pipes. `None` only in `drop`.
    inner: Option<std_process::Child>,
    /// Readable once the process has ended; opened when that is first waited for.
    pidfd: Option<Detach<OwnedFd>>,
    kill_on_drop: bool,
}

impl Child {
    pub(super) fn new(mut inner: std_process::Child, kill_on_drop: bool) -> Child {
        Child {
            stdin: inner.stdin.take().map(Into::into),
            stdout: inner.stdout.take().map(Into::into),
            stderr: inner.stderr.take().map(Into::into),
            process: Process { inner: Some(inner), pidfd: None, kill_on_drop },
        }
    }

    /// The child's process identifier.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.inner.as_ref().map_or(0, std_process::Child::id)
    }

    /// Forces the child process to exit: `SIGKILL`. Does not wait for that, and does nothing if the
    /// child has been waited for.
    ///
    /// # Errors
    /// [`PermissionDenied`](ErrorKind::PermissionDenied) if the child has become another user's.
    ///
    /// # Examples
    /// ```
    /// use ramie::process::Command;
    /// use std::os::unix::process::ExitStatusExt;
    ///
    /// ramie::Runtime::new()?.run(|| {
    ///     let mut child = Command::new("sleep").arg("1000").spawn()?;
    ///     child.kill()?;
    ///     assert_eq!(child.wait()?.signal(), Some(9));
    ///     std::io::Result::Ok(())
    /// })?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn kill(&mut self) -> io::Result<()> {
        self.process.std().kill()
    }

    /// Sends a signal to the child process, for instance `SIGTERM`, which asks it to end. Does
    /// nothing if the child has ended. Unstable in std.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) if there is no such signal, and as
    /// [`kill`](Self::kill).
    pub fn send_signal(&mut self, signal: i32) -> io::Result<()> {
        // A child that has not been waited for keeps its number, also when it has ended.
        match self.try_wait()? {
            Some(_) => Ok(()),
            None => process::kill(self.id(), signal),
        }
    }

    /// Waits for the child to exit completely, returning the status that it exited with; the same
    /// again when it is called again.
    ///
    /// The handle to the child's standard input, if there is one in [`stdin`](Self::stdin), is
    /// closed before. A child whose other pipes are full waits for somebody to read them; see
    /// [`wait_with_output`](Self::wait_with_output).
    ///
    /// # Errors
    /// What `waitpid` reports, for instance if somebody else has waited for the child.
    ///
    /// # Cancellation
    /// A request ends the wait. The child goes on, and can be waited for again.
    ///
    /// # Examples
    /// ```
    /// use ramie::process::Command;
    ///
    /// ramie::Runtime::new()?.run(|| {
    ///     let mut child = Command::new("false").spawn()?;
    ///     assert_eq!(child.wait()?.code(), Some(1));
    ///     std::io::Result::Ok(())
    /// })?;
    /// # std::io::Result::Ok(())
    /// ```
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        drop(self.stdin.take());
        cancel::check()?;
        if sched::blocks_thread() {
            return self.process.std().wait();
        }
        match self.process.wait_until(None)? {
            Some(status) => Ok(status),
            None => unreachable!("a wait without a deadline ends with the child"),
        }
    }

    /// As [`wait`](Self::wait), for `timeout` at most: `None` if the child has not ended by then.
    /// Not in std.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    ///
    /// # Cancellation
    /// As [`wait`](Self::wait).
    ///
    /// # Examples
    /// A child is asked to end, and made to if it does not:
    /// ```
    /// use ramie::process::{Child, Command, ExitStatus};
    /// use ramie::signal::SIGTERM;
    /// use std::io;
    /// use std::time::Duration;
    ///
    /// fn end(child: &mut Child) -> io::Result<ExitStatus> {
    ///     child.send_signal(SIGTERM)?;
    ///     if let Some(status) = child.wait_timeout(Duration::from_secs(5))? {
    ///         return Ok(status);
    ///     }
    ///     child.kill()?;
    ///     child.wait()
    /// }
    ///
    /// ramie::Runtime::new()?.run(|| {
    ///     let mut child = Command::new("sleep").arg("1000").spawn()?;
    ///     assert!(!end(&mut child)?.success());
    ///     io::Result::Ok(())
    /// })?;
    /// # io::Result::Ok(())
    /// ```
    pub fn wait_timeout(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        drop(self.stdin.take());
        cancel::check()?;
        self.process.wait_until(Some(clock::deadline_ns(timeout)))
    }

    /// Attempts to collect the exit status of the child if it has already exited. Never waits, and
    /// does not close the child's standard input.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.process.std().try_wait()
    }

    /// Simultaneously waits for the child to exit and collects all that is left of its standard
    /// output and standard error, if these are pipes.
    ///
    /// The handle to the child's standard input is closed before. This also waits for whoever else
    /// has the other ends of the pipes, such as a process that the child has left behind.
    ///
    /// # Errors
    /// As [`wait`](Self::wait), and those of reading.
    ///
    /// # Cancellation
    /// A request ends the wait. What was collected is lost, and the child is dropped.
    pub fn wait_with_output(mut self) -> io::Result<Output> {
        drop(self.stdin.take());
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        match (self.stdout.take(), self.stderr.take()) {
            (Some(out), Some(err)) => {
                read_both([(out.file(), &mut stdout), (err.file(), &mut stderr)])?;
            }
            (Some(mut out), None) => drop(out.read_to_end(&mut stdout)?),
            (None, Some(mut err)) => drop(err.read_to_end(&mut stderr)?),
            (None, None) => {}
        }
        let status = self.wait()?;
        Ok(Output { status, stdout, stderr })
    }
}

/// Reads two streams to their ends, whichever has something first.
fn read_both(streams: [(&File, &mut Vec<u8>); 2]) -> io::Result<()> {
    // Without a descriptor to spare, it is asked again and again.
    let ready = ReadySet::new().ok();
    for (number, (file, _)) in (0..).zip(&streams) {
        match ready.as_ref().map_or(Ok(()), |ready| ready.add(file.as_fd(), number)) {
            // Put there by the user: a plain file, which keeps nobody waiting.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                return streams
                    .into_iter()
                    .try_for_each(|(mut file, buf)| file.read_to_end(buf).map(drop));
            }
            result => result?,
        }
    }
    let [mut one, mut other] = streams;
    let mut pause = FIRST_PAUSE;
    loop {
        let number = match &ready {
            Some(ready) => ready.first()?,
            None => {
                let fds = [&one, &other].map(|(file, _)| (file.as_fd(), libc::POLLIN));
                poll_many(&fds, Some(Duration::ZERO)).map(|number| number as u64)
            }
        };
        let Some(number) = number else {
            if let Some(ready) = &ready {
                retry(|| submit(Op::Poll { fd: ready.as_fd(), events: libc::POLLIN }))?;
            } else {
                sleep(pause);
                cancel::check()?;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            continue;
        };
        pause = FIRST_PAUSE;
        let (file, buf) = if number == 0 { &mut one } else { &mut other };
        if retry(|| file.read_more(buf))? == 0 {
            let (mut file, buf) = if number == 0 { other } else { one };
            return file.read_to_end(buf).map(drop);
        }
    }
}

/// Repeats a call while signals interrupt it.
fn retry<T>(mut f: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match f() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

impl Process {
    fn std(&mut self) -> &mut std_process::Child {
        self.inner.as_mut().expect("a child is there until it is dropped")
    }

    /// Waits for the end of the process; `None` if that has not come by the deadline.
    fn wait_until(&mut self, deadline_ns: Option<u64>) -> io::Result<Option<ExitStatus>> {
        loop {
            if let Some(status) = self.std().try_wait()? {
                return Ok(Some(status));
            }
            let now_ns = clock::now_ns();
            if deadline_ns.is_some_and(|deadline_ns| deadline_ns <= now_ns) {
                return Ok(None);
            }
            // Without a descriptor to spare, or one of this kind, there are other ways.
            let Some(pidfd) = self.pidfd() else { return self.ask_until(deadline_ns) };
            if sched::blocks_thread() {
                let end_ns = sched::cancel::end_of_wait(deadline_ns, OnCancel::End);
                process::wait_readable(pidfd.as_fd(), end_ns.and_then(clock::instant))?;
                cancel::check()?;
                continue;
            }
            let left = deadline_ns.map(|end_ns| Duration::from_nanos(end_ns - now_ns));
            let ended = Op::Poll { fd: pidfd.as_fd(), events: libc::POLLIN };
            match submit_within(ended, left) {
                // It may be somebody else's to be told first, who traces it.
                Some(Ok(_)) => match self.std().try_wait()? {
                    None => return self.ask_until(deadline_ns),
                    status => return Ok(status),
                },
                Some(Err(error)) if error.kind() != ErrorKind::Interrupted => return Err(error),
                Some(Err(_)) | None => {}
            }
        }
    }

    /// As `wait_until`, by asking again and again.
    fn ask_until(&mut self, deadline_ns: Option<u64>) -> io::Result<Option<ExitStatus>> {
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(status) = self.std().try_wait()? {
                return Ok(Some(status));
            }
            let left = deadline_ns.map(|end_ns| end_ns.saturating_sub(clock::now_ns()));
            if left == Some(0) {
                return Ok(None);
            }
            sleep(left.map_or(pause, |left| pause.min(Duration::from_nanos(left))));
            cancel::check()?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn pidfd(&mut self) -> Option<&Detach<OwnedFd>> {
        if self.pidfd.is_none() {
            // The process has not been waited for, so the number is its own.
            let fd = process::open_pidfd(self.std().id()).ok()?;
            let fd = Detach::new(fd);
            fd.habit().set_ringed();
            self.pidfd = Some(fd);
        }
        self.pidfd.as_ref()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.kill_on_drop {
            return;
        }
        if let Some(mut child) = self.inner.take()
            && matches!(child.try_wait(), Ok(None))
        {
            let _ = child.kill();
            orphans::adopt(child);
        }
    }
}

impl From<std_process::Child> for Child {
    /// Takes over a child that std has started.
    fn from(child: std_process::Child) -> Child {
        Child::new(child, false)
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("id", &self.id())
            .field("stdin", &self.stdin)
            .field("stdout", &self.stdout)
            .field("stderr", &self.stderr)
            .finish_non_exhaustive()
    }
}
