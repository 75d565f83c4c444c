//! [`File`]: opening, closing and everything that is not a byte stream (that is `stream.rs`).

use std::fmt;
use std::fs::{FileTimes, Permissions, TryLockError};
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU8};
use std::time::SystemTime;

use super::metadata::{self, Metadata};
use super::open::Opened;
use super::options::OpenOptions;
use super::retry;
use super::stream::NO_FIFO;
use crate::op::{Habit, Op, Way};
use crate::sched::{Detach, blocking, submit, waiting};

/// An object providing access to an open file on the filesystem.
///
/// Reading and writing on a fiber suspend that fiber; on a plain thread they block it. Files are
/// closed when they go out of scope, without waiting for the kernel and without an error;
/// [`close`](File::close) waits and reports.
///
/// [`Read`](io::Read), [`Write`](io::Write) and [`Seek`](io::Seek) are implemented for `File`
/// and `&File`, and [`std::os::unix::fs::FileExt`] for reads and writes at an offset. (For
/// `Arc<File>` only std can implement them: write `(&*file).read(..)`.)
///
/// Differs from std in one point of concurrency: when two fibers read or write one file *at its
/// position* at the same time, both may see the same position. Use `read_at` and `write_at`, or
/// append mode, where files are shared. (And a read of no bytes at all may succeed where std's says
/// that the file is a directory.) And what the kernel does when the last one lets go of a file (it
/// gives up its locks, and tells those who watch) may come a moment after the close, if a thread of
/// the kernel that has performed an operation of it has not come to its end yet.
///
/// # Examples
/// ```
/// use ramie::fs::File;
/// use std::io::{Read, Seek, Write};
///
/// let path = std::env::temp_dir().join(format!("ramie-file-{}", std::process::id()));
/// let mut file = File::options().read(true).write(true).create(true).open(&path)?;
/// file.write_all(b"hello")?;
/// file.rewind()?;
/// let mut text = String::new();
/// file.read_to_string(&mut text)?;
/// assert_eq!(text, "hello");
/// # ramie::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct File {
    /// std's file, which knows the calls that never wait (dup, lseek) and those that have no ring
    /// operation (locks, chmod); its own reads and writes are not used.
    inner: Detach<std::fs::File>,
    /// Whether the file is known to have offsets; see `offset_of` in `stream.rs`.
    pub(super) has_offsets: AtomicBool,
    /// Whether the file is a FIFO; see `is_fifo` in `stream.rs`.
    pub(super) fifo: AtomicU8,
}

impl File {
    /// Opens a file in read-only mode.
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    ///
    /// # Examples
    /// ```
    /// let manifest = ramie::fs::File::open("Cargo.toml")?;
    /// assert!(manifest.metadata()?.is_file());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn open<P: AsRef<Path>>(path: P) -> io::Result<File> {
        OpenOptions::new().read(true).open(path)
    }

    /// Opens a file in write-only mode: creates it if it does not exist, truncates it if it does.
    ///
    /// # Errors
    /// As [`OpenOptions::open`].
    pub fn create<P: AsRef<Path>>(path: P) -> io::Result<File> {
        OpenOptions::new().write(true).create(true).truncate(true).open(path)
    }

    /// Creates a new file in read-write mode.
    ///
    /// # Errors
    /// [`AlreadyExists`](io::ErrorKind::AlreadyExists) if there is one, and those of
    /// [`OpenOptions::open`].
    pub fn create_new<P: AsRef<Path>>(path: P) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).open(path)
    }

    /// A new [`OpenOptions`], for opening a file in any other way.
    #[must_use]
    pub fn options() -> OpenOptions {
        OpenOptions::new()
    }

    /// Closes the file and reports what a drop keeps to itself. The file is closed in any case.
    /// Not in std.
    ///
    /// Some file systems (NFS, and those with quotas) report a failed write only here. Data is on
    /// the disk only after [`sync_all`](File::sync_all).
    ///
    /// # Errors
    /// What `close` reports, for instance `EIO`.
    ///
    /// # Examples
    /// ```
    /// # let path = std::env::temp_dir().join(format!("ramie-close-{}", std::process::id()));
    /// let file = ramie::fs::File::create(&path)?;
    /// file.close()?;
    /// # ramie::fs::remove_file(&path)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn close(self) -> io::Result<()> {
        submit(Op::Close { fd: ManuallyDrop::new(self.into()) }).map(drop)
    }

    /// Brings the file's data and all its metadata to the disk.
    ///
    /// # Errors
    /// What `fsync` reports. After an error it is unknown what has reached the disk, and a second
    /// call may succeed without having written it.
    ///
    /// # Cancellation
    /// A sync that has begun runs to its end.
    pub fn sync_all(&self) -> io::Result<()> {
        retry(|| submit(Op::Fsync { fd: self.ring_fd(), data_only: false })).map(drop)
    }

    /// As [`sync_all`](File::sync_all), without the metadata that reading the data does not need.
    ///
    /// # Errors
    /// As [`sync_all`](File::sync_all).
    pub fn sync_data(&self) -> io::Result<()> {
        retry(|| submit(Op::Fsync { fd: self.ring_fd(), data_only: true })).map(drop)
    }

    /// Truncates the file, or extends it with zeros, to `size` bytes. The position stays.
    ///
    /// # Errors
    /// [`InvalidInput`](io::ErrorKind::InvalidInput) if the file is not open for writing or the
    /// size is larger than the kernel's type for it, and others of `ftruncate`.
    pub fn set_len(&self, size: u64) -> io::Result<()> {
        let size =
            i64::try_from(size).map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))?;
        let len = size.unsigned_abs();
        retry(|| submit(Op::Ftruncate { fd: self.ring_fd(), len })).map(drop)
    }

    /// Queries metadata about the file.
    ///
    /// # Errors
    /// What `statx` reports; rare for a file that is open.
    pub fn metadata(&self) -> io::Result<Metadata> {
        metadata::of_fd(self.ring_fd())
    }

    /// A new `File` for the same open file: position, flags and locks are shared.
    ///
    /// # Errors
    /// When no descriptor is left.
    pub fn try_clone(&self) -> io::Result<File> {
        self.habit().forget_position(); // it is shared from now on
        Ok(File::from(self.inner.try_clone()?)) // duplicating a descriptor never waits
    }

    /// Changes the permissions of the file.
    ///
    /// # Errors
    /// [`PermissionDenied`](io::ErrorKind::PermissionDenied) when the file is another user's, and
    /// others of `fchmod`.
    pub fn set_permissions(&self, perm: Permissions) -> io::Result<()> {
        blocking(|| self.inner.set_permissions(perm))
    }

    /// Changes the file's times; those not set in `times` stay.
    ///
    /// # Errors
    /// As [`std::fs::File::set_times`].
    ///
    /// # Examples
    /// ```
    /// use ramie::fs::{File, FileTimes};
    /// use std::time::SystemTime;
    ///
    /// # let path = std::env::temp_dir().join(format!("ramie-times-{}", std::process::id()));
    /// let file = File::create(&path)?;
    /// file.set_times(FileTimes::new().set_modified(SystemTime::UNIX_EPOCH))?;
    /// assert_eq!(file.metadata()?.modified()?, SystemTime::UNIX_EPOCH);
    /// # ramie::fs::remove_file(&path)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn set_times(&self, times: FileTimes) -> io::Result<()> {
        blocking(|| self.inner.set_times(times))
    }

    /// Changes the time of the last modification.
    ///
    /// # Errors
    /// As [`set_times`](File::set_times).
    pub fn set_modified(&self, time: SystemTime) -> io::Result<()> {
        self.set_times(FileTimes::new().set_modified(time))
    }

    /// Takes the exclusive lock of this file (`flock`), waiting until nobody else holds a lock on
    /// it. It belongs to the open file: clones share it, and the last close releases it.
    ///
    /// # Errors
    /// What `flock` reports.
    ///
    /// # Cancellation
    /// A wait for a lock cannot be cancelled; use [`try_lock`](File::try_lock) where that matters.
    ///
    /// # Examples
    /// ```
    /// use ramie::fs::File;
    ///
    /// # let path = std::env::temp_dir().join(format!("ramie-lock-{}", std::process::id()));
    /// let (one, two) = (File::create(&path)?, File::open(&path)?);
    /// one.lock()?;
    /// assert!(two.try_lock_shared().is_err());
    /// one.unlock()?;
    /// assert!(two.try_lock_shared().is_ok());
    /// # ramie::fs::remove_file(&path)?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn lock(&self) -> io::Result<()> {
        match self.inner.try_lock() {
            Err(TryLockError::WouldBlock) => waiting(|| self.inner.lock()),
            Err(TryLockError::Error(e)) => Err(e),
            Ok(()) => Ok(()),
        }
    }

    /// Takes a shared lock of this file, waiting until nobody else holds the exclusive one.
    ///
    /// # Errors
    /// What `flock` reports.
    ///
    /// # Cancellation
    /// As [`lock`](File::lock).
    pub fn lock_shared(&self) -> io::Result<()> {
        match self.inner.try_lock_shared() {
            Err(TryLockError::WouldBlock) => waiting(|| self.inner.lock_shared()),
            Err(TryLockError::Error(e)) => Err(e),
            Ok(()) => Ok(()),
        }
    }

    /// Takes the exclusive lock if that needs no waiting.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] if somebody else holds a lock.
    pub fn try_lock(&self) -> Result<(), TryLockError> {
        self.inner.try_lock()
    }

    /// Takes a shared lock if that needs no waiting.
    ///
    /// # Errors
    /// [`TryLockError::WouldBlock`] if somebody else holds the exclusive lock.
    pub fn try_lock_shared(&self) -> Result<(), TryLockError> {
        self.inner.try_lock_shared()
    }

    /// Releases all locks of this open file.
    ///
    /// # Errors
    /// What `flock` reports.
    pub fn unlock(&self) -> io::Result<()> {
        self.inner.unlock()
    }

    /// Whether the file is a terminal; also a method of [`IsTerminal`](crate::io::IsTerminal).
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        io::IsTerminal::is_terminal(&*self.inner)
    }

    /// What is known of the file.
    #[inline]
    pub(super) fn habit(&self) -> &Habit {
        self.inner.habit()
    }

    /// Somebody has moved the position in the kernel, perhaps through the ring.
    pub(crate) fn moved(&self) {
        self.habit().forget_position();
        self.habit().set_ringed();
    }

    /// The descriptor, for an op that goes to the ring in any case.
    pub(super) fn ring_fd(&self) -> BorrowedFd<'_> {
        self.habit().set_ringed();
        self.as_fd()
    }

    /// std's file, for calls that never wait and, inside `blocking`, for those without an op.
    pub(super) fn std(&self) -> &std::fs::File {
        &self.inner
    }
}

impl fmt::Debug for File {
    /// As std: the descriptor, its path and its access mode, as far as the kernel tells.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl AsFd for File {
    #[inline]
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl AsRawFd for File {
    #[inline]
    fn as_raw_fd(&self) -> RawFd {
        self.inner.as_raw_fd()
    }
}

impl IntoRawFd for File {
    fn into_raw_fd(self) -> RawFd {
        self.inner.into_inner().into_raw_fd()
    }
}

impl File {
    fn new(file: std::fs::File, habit: Habit, fifo: u8) -> Self {
        File {
            inner: Detach::with_habit(file, habit),
            has_offsets: AtomicBool::new(false),
            fifo: AtomicU8::new(fifo),
        }
    }

    /// One end of a pipe that has no name.
    pub(crate) fn of_pipe(fd: OwnedFd) -> Self {
        let file = Self::new(fd.into(), Habit::new(), NO_FIFO);
        file.habit().set_reads(Way::Ring);
        file.habit().set_writes(Way::Ring);
        file
    }

    /// The file that has just been opened with these flags.
    pub(super) fn opened(opened: Opened, flags: i32) -> Self {
        let fifo = if opened.no_pipe { NO_FIFO } else { 0 };
        let habit = Habit::opened(flags, opened.no_pipe);
        habit.set_writes(opened.writes);
        if opened.writes == Way::Memory {
            habit.set_reads(Way::Memory);
        }
        Self::new(opened.fd.into(), habit, fifo)
    }
}

impl From<std::fs::File> for File {
    fn from(file: std::fs::File) -> Self {
        Self::new(file, Habit::new(), 0)
    }
}

impl From<OwnedFd> for File {
    fn from(fd: OwnedFd) -> Self {
        std::fs::File::from(fd).into()
    }
}

impl From<File> for std::fs::File {
    fn from(file: File) -> Self {
        file.inner.into_inner()
    }
}

impl From<File> for OwnedFd {
    fn from(file: File) -> Self {
        file.inner.into_inner().into()
    }
}

impl From<File> for Stdio {
    fn from(file: File) -> Self {
        file.inner.into_inner().into()
    }
}
