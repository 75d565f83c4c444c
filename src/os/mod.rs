//! What only some operating systems have, arranged as in [`std::os`].

#[expect(unsafe_code, reason = "FromRawFd has an unsafe method")]
pub mod fd;
pub mod linux;
pub mod unix;

#[doc(no_inline)]
pub use std::os::raw;
