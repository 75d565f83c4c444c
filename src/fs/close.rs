//! [`CloseOperation`]: a close that is promised before there is anything to close.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::sched::Detach;

/// A close that was promised beforehand, and cannot fail. Not in std.
///
/// It is made before a descriptor is opened, is given the descriptor once there is one, and closes
/// it when it is finished or dropped: without waiting, and whatever has happened in the meantime.
/// So a function that opens something on its way can promise at its head that it will be closed.
/// Until then the descriptor can be taken back, when it has found another owner.
///
/// The owners of descriptors in this crate keep the same promise by themselves; this is for bare
/// descriptors, and for code that says so explicitly.
///
/// # Examples
/// ```
/// use ramie::fs::{CloseOperation, File};
/// use std::io::{self, Read};
/// use std::os::fd::OwnedFd;
///
/// /// The first bytes of a file, and the file if there is more to it.
/// fn head(path: &str, head: &mut [u8]) -> io::Result<(usize, Option<File>)> {
///     let mut close = CloseOperation::start();
///     let mut file = File::open(path)?;
///     let n = file.read(head)?;
///     close.set_handle(file);
///     if n < head.len() {
///         close.finish();
///         return Ok((n, None));
///     }
///     Ok((n, close.clear_handle().map(File::from)))
/// }
///
/// assert!(matches!(head("Cargo.toml", &mut [0; 4])?, (4, Some(_))));
/// assert!(matches!(head("/dev/null", &mut [0; 4])?, (0, None)));
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct CloseOperation {
    handle: Option<Detach<OwnedFd>>,
}

impl CloseOperation {
    /// A close with nothing to close yet.
    #[must_use]
    pub const fn start() -> Self {
        CloseOperation { handle: None }
    }

    /// Gives it what it shall close. What it had before is closed now.
    pub fn set_handle<T: Into<OwnedFd>>(&mut self, handle: T) {
        self.handle = Some(Detach::new(handle.into()));
    }

    /// Takes back what it was given: it is not closed.
    pub fn clear_handle(&mut self) -> Option<OwnedFd> {
        self.handle.take().map(Detach::into_inner)
    }

    /// What it will close.
    #[must_use]
    pub fn get_handle(&self) -> Option<BorrowedFd<'_>> {
        self.handle.as_ref().map(|handle| handle.as_fd())
    }

    /// Closes what it was given, as a drop does: without waiting for file systems that take their
    /// time over it, and whether or not the fiber has been asked to end.
    pub fn finish(self) {}
}
