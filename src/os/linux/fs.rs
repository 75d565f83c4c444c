//! Linux's own part of [`ramie::fs`](crate::fs), as [`std::os::linux::fs`].
//!
//! The trait is std's own, implemented for [`Metadata`](crate::fs::Metadata).

#[doc(no_inline)]
pub use std::os::linux::fs::MetadataExt;
