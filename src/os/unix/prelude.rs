//! What a program that is for Unix only imports as a whole, as [`std::os::unix::prelude`].
//!
//! ```
//! use ramie::fs::File;
//! use ramie::os::unix::prelude::*;
//!
//! let file = File::open("Cargo.toml")?;
//! let mut start = [0; 9];
//! file.read_exact_at(&mut start, 1)?;
//! assert_eq!(&start, b"workspace");
//! # std::io::Result::Ok(())
//! ```
#![forbid(unsafe_code)]

#[doc(no_inline)]
pub use super::ffi::{OsStrExt, OsStringExt};
#[doc(no_inline)]
pub use super::fs::{
    DirEntryExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt,
};
#[doc(no_inline)]
pub use super::io::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
#[doc(no_inline)]
pub use super::process::{CommandExt, ExitStatusExt};
