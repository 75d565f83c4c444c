//! Filesystem manipulation operations: [`std::fs`], suspending.
//!
//! The names, signatures, semantics and error kinds are std's: a program is ported by replacing
//! `use std::fs` with `use ramie::fs`. Called on a fiber, an operation suspends that fiber; called
//! on a plain thread, it blocks it. The extension traits of [`std::os::unix::fs`] are implemented
//! for the types here, and std's own [`Permissions`], [`FileTimes`] and [`TryLockError`] are used.
//! Additional to std are [`Dir`], [`ReadStream`] and [`WriteStream`], [`CloseOperation`],
//! [`File::close`], [`File::read_vectored_at`], [`File::write_vectored_at`], [`read_limited`],
//! [`write_mode`], [`write_atomic`] and the four `open_` functions.
//!
//! What std does on its own account does not suspend: the methods of [`std::path::Path`] that ask
//! the file system (`exists`, `metadata`, `read_dir`) block, and have functions here that do not.
//! Reading from and writing to an `Arc<File>` is std's alone to implement; `&File` does both.
//!
//! # Cancellation
//! A cancelled operation fails with an error and has not happened, unless its own page says
//! something else. Operations that consist of many steps ([`copy`], [`remove_dir_all`],
//! [`create_dir_all`]) may have done some of them.
//!
//! | file          | what                                                                   |
//! |---------------|------------------------------------------------------------------------|
//! | `file.rs`     | [`File`]                                                               |
//! | `stream.rs`   | [`File`] as a stream of bytes, and at offsets                          |
//! | `options.rs`  | [`OpenOptions`]                                                        |
//! | `open.rs`     | opening, and what FIFOs need                                           |
//! | `metadata.rs` | [`Metadata`], [`FileType`]                                             |
//! | `raw_stat.rs` | Linux's own view of [`Metadata`]                                       |
//! | `names.rs`    | functions that act on a name: rename, remove, link, metadata           |
//! | `whole.rs`    | functions that act on a whole file: read, write, copy                  |
//! | `atomic.rs`   | [`write_atomic`]                                                       |
//! | `dir.rs`      | [`read_dir`]                                                           |
//! | `tree.rs`     | [`create_dir_all`], [`remove_dir_all`], [`DirBuilder`]                 |
//! | `at.rs`       | [`Dir`]: what an open directory holds                                  |
//! | `streams.rs`  | [`ReadStream`], [`WriteStream`]: a file from an offset on              |
//! | `close.rs`    | [`CloseOperation`]                                                     |
//! | `cstr.rs`     | paths as C strings                                                     |
#![forbid(unsafe_code)]

use std::io;

mod at;
mod atomic;
mod close;
mod cstr;
mod dir;
mod file;
mod metadata;
mod names;
mod open;
mod options;
#[cfg(raw_stat)]
mod raw_stat;
mod stream;
mod streams;
mod tree;
mod whole;

pub use at::Dir;
pub use atomic::write_atomic;
pub use close::CloseOperation;
pub(crate) use cstr::with_cstr;
pub(crate) use dir::Records;
pub use dir::{DirEntry, ReadDir, read_dir};
pub use file::File;
pub use metadata::{FileType, Metadata};
#[expect(deprecated, reason = "std has it, and says so too")]
pub use names::soft_link;
pub(crate) use names::symlink_at;
pub use names::{
    canonicalize, exists, hard_link, metadata, read_link, remove_dir, remove_file, rename,
    set_permissions, symlink_metadata,
};
pub use options::OpenOptions;
#[doc(no_inline)]
pub use std::fs::{FileTimes, Permissions, TryLockError};
pub(crate) use stream::fifo_has_data;
pub use streams::{ReadStream, WriteStream};
pub use tree::{DirBuilder, create_dir, create_dir_all, remove_dir_all};
pub use whole::{
    copy, open_read, open_read_write, open_write, open_write_mode, read, read_limited,
    read_to_string, write, write_mode,
};

/// Repeats `f` while a signal interrupts it.
fn retry<T>(mut f: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match f() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
