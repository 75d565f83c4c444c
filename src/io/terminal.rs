//! [`IsTerminal`].
#![forbid(unsafe_code)]

use super::{Stderr, StderrLock, Stdin, StdinLock, Stdout, StdoutLock};
use crate::fs::File;
use std::io;

mod sealed {
    pub trait Sealed {}
}

/// Whether a descriptor or a handle is a terminal.
///
/// Differs from [`std::io::IsTerminal`], which only std may implement, in that the types of this
/// crate have it. So have all that have std's. The types of this crate have the method without the
/// trait, too.
///
/// # Examples
/// ```
/// use ramie::io::{self, IsTerminal};
///
/// fn colours(out: &impl IsTerminal) -> bool {
///     out.is_terminal()
/// }
///
/// assert!(!colours(&ramie::fs::File::open("Cargo.toml")?));
/// assert_eq!(colours(&io::stdout()), colours(&std::io::stdout()));
/// # std::io::Result::Ok(())
/// ```
pub trait IsTerminal: sealed::Sealed {
    /// Whether it is a terminal; not if it is no valid descriptor.
    fn is_terminal(&self) -> bool;
}

impl<T: io::IsTerminal> sealed::Sealed for T {}

impl<T: io::IsTerminal> IsTerminal for T {
    fn is_terminal(&self) -> bool {
        io::IsTerminal::is_terminal(self)
    }
}

macro_rules! own {
    ($($name:ty),*) => { $(
        impl sealed::Sealed for $name {}

        impl IsTerminal for $name {
            fn is_terminal(&self) -> bool {
                self.is_terminal()
            }
        }
    )* };
}

own!(File, Stdin, StdinLock<'_>, Stdout, StdoutLock<'_>, Stderr, StderrLock<'_>);
