//! Linux's own part of [`ramie::fs`](crate::fs), as [`std::os::linux::fs`].
//!
//! The trait is std's own, implemented for [`Metadata`](crate::fs::Metadata) (but on RISC-V and a
//! few others, where std's own is tied to a private crate).

#[doc(no_inline)]
pub use std::os::linux::fs::MetadataExt;
