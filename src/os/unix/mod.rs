//! What only Unix has, arranged as in [`std::os::unix`].

pub mod fs;
pub mod net;
pub mod prelude;
#[expect(unsafe_code, reason = "`pre_exec` is an unsafe method")]
pub mod process;

pub use crate::os::fd as io;
#[doc(no_inline)]
pub use std::os::unix::ffi;
