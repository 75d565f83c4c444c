//! [`Command`].

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::Path;
use std::process::{self as std_process, CommandArgs, CommandEnvs, ExitStatus, Output, Stdio};

use super::Child;
use crate::cancel;
use crate::sched::blocking;

/// A process builder, as [`std::process::Command`]; see there for what the methods that are not
/// explained here do.
///
/// # Examples
/// ```
/// use ramie::process::Command;
///
/// ramie::Runtime::new()?.run(|| {
///     let output = Command::new("echo").arg("hello").output()?;
///     assert_eq!(output.stdout, b"hello\n");
///     std::io::Result::Ok(())
/// })?;
/// # std::io::Result::Ok(())
/// ```
pub struct Command {
    inner: std_process::Command,
    /// Which of the three standard streams the user has said something about.
    given: [bool; 3],
    kill_on_drop: bool,
}

impl Command {
    /// Constructs a new `Command` for launching `program`, with no arguments, in this process's
    /// environment and working directory.
    pub fn new<S: AsRef<OsStr>>(program: S) -> Command {
        Command {
            inner: std_process::Command::new(program),
            given: [false; 3],
            kill_on_drop: false,
        }
    }

    /// Adds an argument to pass to the program.
    pub fn arg<S: AsRef<OsStr>>(&mut self, arg: S) -> &mut Command {
        self.inner.arg(arg);
        self
    }

    /// Adds multiple arguments to pass to the program.
    pub fn args<I, S>(&mut self, args: I) -> &mut Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        self.inner.args(args);
        self
    }

    /// Inserts or updates an explicit environment variable.
    pub fn env<K: AsRef<OsStr>, V: AsRef<OsStr>>(&mut self, key: K, val: V) -> &mut Command {
        self.inner.env(key, val);
        self
    }

    /// Inserts or updates multiple explicit environment variables.
    pub fn envs<I, K, V>(&mut self, vars: I) -> &mut Command
    where
        I: IntoIterator<Item = (K, V)>,
        K: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        self.inner.envs(vars);
        self
    }

    /// Removes an environment variable, and keeps it from being inherited.
    pub fn env_remove<K: AsRef<OsStr>>(&mut self, key: K) -> &mut Command {
        self.inner.env_remove(key);
        self
    }

    /// Clears all environment variables, and keeps them from being inherited.
    pub fn env_clear(&mut self) -> &mut Command {
        self.inner.env_clear();
        self
    }

    /// Sets the working directory for the child process.
    pub fn current_dir<P: AsRef<Path>>(&mut self, dir: P) -> &mut Command {
        self.inner.current_dir(dir);
        self
    }

    /// What the child's standard input is: by default this process's, for
    /// [`output`](Self::output) nothing.
    pub fn stdin<T: Into<Stdio>>(&mut self, cfg: T) -> &mut Command {
        self.inner.stdin(cfg);
        self.given[0] = true;
        self
    }

    /// What the child's standard output is: by default this process's, for
    /// [`output`](Self::output) a pipe.
    pub fn stdout<T: Into<Stdio>>(&mut self, cfg: T) -> &mut Command {
        self.inner.stdout(cfg);
        self.given[1] = true;
        self
    }

    /// What the child's standard error is: by default this process's, for
    /// [`output`](Self::output) a pipe.
    pub fn stderr<T: Into<Stdio>>(&mut self, cfg: T) -> &mut Command {
        self.inner.stderr(cfg);
        self.given[2] = true;
        self
    }

    /// Whether a child is killed when its [`Child`] is dropped before it has been waited for; by
    /// default it is not. Not in std.
    ///
    /// The drop does not wait: the child's end is awaited in the background, so it leaves no
    /// zombie. What the child has started itself is not killed.
    ///
    /// # Examples
    /// ```
    /// use ramie::process::Command;
    /// use ramie::time;
    /// use std::time::Duration;
    ///
    /// ramie::Runtime::new()?.run(|| {
    ///     let limit = Duration::from_millis(20);
    ///     let late = time::timeout(limit, || {
    ///         Command::new("sleep").arg("1000").kill_on_drop(true).status()
    ///     });
    ///     // The sleeper is gone, or about to go.
    ///     assert_eq!(late.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
    /// });
    /// # std::io::Result::Ok(())
    /// ```
    pub fn kill_on_drop(&mut self, kill_on_drop: bool) -> &mut Command {
        self.kill_on_drop = kill_on_drop;
        self
    }

    /// Executes the command as a child process, returning a handle to it. Waits until the program
    /// has been loaded.
    ///
    /// # Errors
    /// [`NotFound`](io::ErrorKind::NotFound) if there is no such program,
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if a string has a zero byte inside, an error
    /// of a `pre_exec` closure, and others of `fork` and `exec`.
    ///
    /// # Cancellation
    /// After a request nothing is started. What has begun is waited for.
    pub fn spawn(&mut self) -> io::Result<Child> {
        cancel::check()?;
        let inner = &mut self.inner;
        let child = blocking(|| inner.spawn())?;
        Ok(Child::new(child, self.kill_on_drop))
    }

    /// Executes the command as a child process, waits for it to finish and collects all of its
    /// output. Unless something else was said, its standard output and error are captured, and its
    /// standard input is empty.
    ///
    /// # Errors
    /// Those of [`spawn`](Self::spawn) and [`Child::wait_with_output`].
    ///
    /// # Cancellation
    /// As [`Child::wait_with_output`].
    pub fn output(&mut self) -> io::Result<Output> {
        self.set_absent([Stdio::null, Stdio::piped, Stdio::piped]);
        let child = self.spawn();
        self.set_absent([Stdio::inherit; 3]);
        child?.wait_with_output()
    }

    /// Says what the streams are that the user has said nothing about.
    fn set_absent(&mut self, streams: [fn() -> Stdio; 3]) {
        let setters = [
            std_process::Command::stdin::<Stdio>,
            std_process::Command::stdout::<Stdio>,
            std_process::Command::stderr::<Stdio>,
        ];
        for (at, set) in setters.into_iter().enumerate() {
            if !self.given[at] {
                set(&mut self.inner, streams[at]());
            }
        }
    }

    /// Executes the command as a child process, waits for it to finish and returns its status.
    ///
    /// # Errors
    /// Those of [`spawn`](Self::spawn) and [`Child::wait`].
    ///
    /// # Cancellation
    /// The wait is ended, and the child goes on, unless [`kill_on_drop`](Self::kill_on_drop) is
    /// set.
    pub fn status(&mut self) -> io::Result<ExitStatus> {
        self.spawn()?.wait()
    }

    /// The program, as it was given to [`new`](Self::new).
    #[must_use]
    pub fn get_program(&self) -> &OsStr {
        self.inner.get_program()
    }

    /// The arguments that will be passed to the program, without the first, which names it.
    pub fn get_args(&self) -> CommandArgs<'_> {
        self.inner.get_args()
    }

    /// The environment variables explicitly set for the child process.
    pub fn get_envs(&self) -> CommandEnvs<'_> {
        self.inner.get_envs()
    }

    /// The working directory for the child process, if it was set.
    #[must_use]
    pub fn get_current_dir(&self) -> Option<&Path> {
        self.inner.get_current_dir()
    }

    pub(crate) fn std_mut(&mut self) -> &mut std_process::Command {
        &mut self.inner
    }
}

impl fmt::Debug for Command {
    /// As std: the command line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}
