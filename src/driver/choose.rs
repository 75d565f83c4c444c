//! Which driver a runtime gets, and what is said about it.
#![forbid(unsafe_code)]

use super::caps;
use super::wake::WakeMethod;
use crate::coro::spans::foreign;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// How a runtime's operations reach the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DriverKind {
    /// What the environment variable `RAMIE_DRIVER` says: `uring`, `poll` or `auto`. Without it, as
    /// for `auto`: io_uring, or [`Poll`](Self::Poll) where the system refuses that.
    #[default]
    Auto,
    /// io_uring. Building a runtime fails where the system refuses it.
    Uring,
    /// System calls that do not wait, epoll, and threads for what cannot do without waiting, such
    /// as cold files. It works on every Linux and in every sandbox.
    Poll,
}

/// What was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Uring {
        wake: WakeMethod,
        /// A worker that cannot get a ring does without.
        or_poll: bool,
    },
    Poll,
}

const VARIABLE: &str = "RAMIE_DRIVER";

/// What the environment wants; an error if it wants something else.
fn wanted(value: Option<&str>) -> io::Result<DriverKind> {
    match value {
        None | Some("" | "auto") => Ok(DriverKind::Auto),
        Some("uring") => Ok(DriverKind::Uring),
        Some("poll") => Ok(DriverKind::Poll),
        Some(other) => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{VARIABLE}={other}: expected \"auto\", \"uring\" or \"poll\""),
        )),
    }
}

/// As [`wanted`], of this process's environment.
pub(crate) fn environment() -> io::Result<DriverKind> {
    let value = std::env::var_os(VARIABLE);
    wanted(value.map(|value| value.to_string_lossy().into_owned()).as_deref())
}

/// Decides for a new runtime, whose builder has asked for `kind`, and perhaps for a way of waking.
///
/// # Errors
/// If the variable holds something else, or the ring that was asked for is refused.
pub(crate) fn choose(kind: DriverKind, wake: Option<WakeMethod>) -> io::Result<Choice> {
    let kind = match kind {
        DriverKind::Auto => environment()?,
        kind => kind,
    };
    if kind == DriverKind::Poll {
        return Ok(Choice::Poll);
    }
    let or_poll = kind == DriverKind::Auto;
    let all = [WakeMethod::Futex, WakeMethod::MsgRing, WakeMethod::EventFd];
    match caps::wake_method(&all) {
        Ok(first) => {
            let wake = wake.map_or(Ok(first), |method| caps::wake_method(&[method]))?;
            Ok(Choice::Uring { wake, or_poll })
        }
        Err(error) if or_poll && is_refusal(&error) => {
            warn(&error);
            Ok(Choice::Poll)
        }
        Err(error) => Err(error),
    }
}

/// Whether an error of a ring's creation says that there is no ring to be had here, rather than no
/// descriptor.
pub(super) fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::PermissionDenied
            | io::ErrorKind::Unsupported
            | io::ErrorKind::OutOfMemory
            | io::ErrorKind::InvalidInput
    )
}

/// Says once what has been lost, and what brings it back.
pub(super) fn warn(error: &io::Error) {
    static WARNED: AtomicBool = AtomicBool::new(false);
    if !WARNED.swap(true, Ordering::Relaxed) {
        foreign(|| {
            tracing::warn!(
                %error,
                "going on without io_uring, by epoll and threads: everything works, files are \
                 slower; RAMIE_DRIVER=poll asks for this and is silent"
            );
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_the_variable() {
        for (value, kind) in [
            (None, DriverKind::Auto),
            (Some(""), DriverKind::Auto),
            (Some("auto"), DriverKind::Auto),
            (Some("uring"), DriverKind::Uring),
            (Some("poll"), DriverKind::Poll),
        ] {
            assert_eq!(wanted(value).unwrap(), kind);
        }
        for value in ["epoll", "Poll", "poll "] {
            let error = wanted(Some(value)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains(value) && error.to_string().contains("\"uring\""));
        }
    }

    #[test]
    fn refusals() {
        for errno in [libc::EPERM, libc::EACCES, libc::ENOSYS, libc::EOPNOTSUPP, libc::ENOMEM] {
            assert!(is_refusal(&io::Error::from_raw_os_error(errno)), "{errno}");
        }
        for errno in [libc::EMFILE, libc::ENFILE, libc::EIO] {
            assert!(!is_refusal(&io::Error::from_raw_os_error(errno)), "{errno}");
        }
    }
}
