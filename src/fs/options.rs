//! [`OpenOptions`], and how a path becomes an open file.

use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::File;
use super::cstr::with_cstr;
use super::open::{open, open_and_ask};
use crate::sys::file::Believed;

/// Options and flags which can be used to configure how a file is opened.
///
/// The mode of a new file and further `open` flags are set through
/// [`std::os::unix::fs::OpenOptionsExt`], which this type implements. `O_CLOEXEC` is always set.
///
/// # Examples
/// ```
/// use ramie::fs::OpenOptions;
/// use std::io::Write;
///
/// let path = std::env::temp_dir().join(format!("ramie-options-{}", std::process::id()));
/// let mut log = OpenOptions::new().append(true).create(true).open(&path)?;
/// log.write_all(b"one line\n")?;
/// # ramie::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct OpenOptions {
    read: bool,
    write: bool,
    append: bool,
    truncate: bool,
    create: bool,
    create_new: bool,
    custom_flags: i32,
    mode: u32,
}

impl OpenOptions {
    /// Options with nothing set: at least one of read, write and append must follow.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "as std's, which has no Default either")]
    pub fn new() -> Self {
        OpenOptions {
            read: false,
            write: false,
            append: false,
            truncate: false,
            create: false,
            create_new: false,
            custom_flags: 0,
            mode: 0o666,
        }
    }

    /// Sets the option for read access.
    pub fn read(&mut self, read: bool) -> &mut Self {
        self.read = read;
        self
    }

    /// Sets the option for write access. Writing to an existing file overwrites it from its start
    /// and does not truncate it.
    pub fn write(&mut self, write: bool) -> &mut Self {
        self.write = write;
        self
    }

    /// Sets the option for the append mode: every write goes to the end of the file, in one step
    /// with finding the end. Implies write access.
    pub fn append(&mut self, append: bool) -> &mut Self {
        self.append = append;
        self
    }

    /// Sets the option for truncating an existing file to length 0. Needs write access.
    pub fn truncate(&mut self, truncate: bool) -> &mut Self {
        self.truncate = truncate;
        self
    }

    /// Sets the option to create a file that does not exist. Needs write or append access.
    pub fn create(&mut self, create: bool) -> &mut Self {
        self.create = create;
        self
    }

    /// Sets the option to create a new file and to fail if it exists, in one step. Needs write or
    /// append access; `create` and `truncate` are then ignored.
    pub fn create_new(&mut self, create_new: bool) -> &mut Self {
        self.create_new = create_new;
        self
    }

    /// Opens the file at `path` with these options.
    ///
    /// As with std, opening a FIFO waits for the other end and opening a device may wait for it.
    ///
    /// # Errors
    /// Those of [`std::fs::OpenOptions::open`], with the same kinds:
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) for a combination of options that makes no
    /// sense and for a path with a NUL byte, [`NotFound`](io::ErrorKind::NotFound),
    /// [`PermissionDenied`](io::ErrorKind::PermissionDenied),
    /// [`AlreadyExists`](io::ErrorKind::AlreadyExists) and more.
    ///
    /// # Cancellation
    /// A cancelled open opened nothing. A file that was open already when the request came is
    /// returned.
    pub fn open<P: AsRef<Path>>(&self, path: P) -> io::Result<File> {
        self.open_at(None, path.as_ref())
    }

    /// As [`open`](OpenOptions::open), relative to a directory if there is one.
    pub(super) fn open_at(&self, dir: Option<BorrowedFd<'_>>, path: &Path) -> io::Result<File> {
        let flags = self.flags()?;
        with_cstr(path, |path| open(dir, path, flags, self.mode))
            .map(|opened| File::opened(opened, flags))
    }

    /// As [`open`](OpenOptions::open), with what the file is believed to be. That tells a plain
    /// file from a pipe, too, so it takes no more calls than `open` does.
    pub(super) fn open_and_ask(&self, path: &Path) -> io::Result<(File, Option<Believed>)> {
        let flags = self.flags()?;
        let opened = with_cstr(path, |path| open_and_ask(path, flags, self.mode))?;
        let believed = opened.believed;
        Ok((File::opened(opened, flags), believed))
    }

    fn flags(&self) -> io::Result<i32> {
        Ok(libc::O_CLOEXEC
            | self.access_mode()?
            | self.creation_mode()?
            | (self.custom_flags & !libc::O_ACCMODE))
    }

    fn access_mode(&self) -> io::Result<i32> {
        match (self.read, self.write, self.append) {
            (true, false, false) => Ok(libc::O_RDONLY),
            (false, true, false) => Ok(libc::O_WRONLY),
            (true, true, false) => Ok(libc::O_RDWR),
            (false, _, true) => Ok(libc::O_WRONLY | libc::O_APPEND),
            (true, _, true) => Ok(libc::O_RDWR | libc::O_APPEND),
            (false, false, false) => Err(invalid(if self.creates() {
                "creating or truncating a file requires write or append access"
            } else {
                "must specify at least one of read, write, or append access"
            })),
        }
    }

    fn creation_mode(&self) -> io::Result<i32> {
        if !self.write && !self.append && self.creates() {
            return Err(invalid("creating or truncating a file requires write or append access"));
        }
        if self.append && self.truncate && !self.create_new {
            return Err(invalid("append access and truncation exclude each other"));
        }
        Ok(match (self.create, self.truncate, self.create_new) {
            (_, _, true) => libc::O_CREAT | libc::O_EXCL,
            (true, true, _) => libc::O_CREAT | libc::O_TRUNC,
            (true, false, _) => libc::O_CREAT,
            (false, true, _) => libc::O_TRUNC,
            (false, false, _) => 0,
        })
    }

    fn creates(&self) -> bool {
        self.create || self.create_new || self.truncate
    }
}

#[cold]
fn invalid(text: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

impl OpenOptionsExt for OpenOptions {
    /// The permission bits of a new file, from which the process's umask is taken away; 0o666 at
    /// first.
    fn mode(&mut self, mode: u32) -> &mut Self {
        self.mode = mode;
        self
    }

    /// Further flags for `open`; its access mode bits are ignored.
    fn custom_flags(&mut self, flags: i32) -> &mut Self {
        self.custom_flags = flags;
        self
    }
}
