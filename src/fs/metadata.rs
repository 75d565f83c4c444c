//! What the kernel says about a file: [`Metadata`], [`FileType`] and the op that asks for them.

use std::ffi::CStr;
use std::fmt;
use std::fs::Permissions;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
#[cfg(raw_stat)]
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use crate::op::Op;
use crate::sched::submit;
use crate::sys::path::empty_statx;

/// Asks for the metadata of `path`, or of `dir` itself with an empty path and `AT_EMPTY_PATH`.
pub(super) fn statx(dir: Option<BorrowedFd<'_>>, path: &CStr, flags: i32) -> io::Result<Metadata> {
    let mut out = empty_statx();
    let mask = libc::STATX_BASIC_STATS | libc::STATX_BTIME;
    submit(Op::Statx { dir, path, flags, mask, out: &mut out })?;
    Ok(Metadata::new(&out))
}

/// As [`statx`], of an open file.
pub(super) fn of_fd(fd: BorrowedFd<'_>) -> io::Result<Metadata> {
    statx(Some(fd), c"", libc::AT_EMPTY_PATH)
}

/// Metadata information about a file.
///
/// Returned by [`metadata`](super::metadata()), [`symlink_metadata`](super::symlink_metadata) and
/// [`File::metadata`](super::File::metadata). The Unix details are reached through
/// [`std::os::unix::fs::MetadataExt`], which this type implements, as it does Linux's.
///
/// Differs from std in being a type of its own, since nobody else can make a
/// [`std::fs::Metadata`]; its methods are the same.
///
/// # Examples
/// ```
/// use std::os::unix::fs::MetadataExt;
///
/// let metadata = ramie::fs::metadata("Cargo.toml")?;
/// assert!(metadata.is_file() && metadata.len() > 0);
/// assert_eq!(metadata.nlink(), 1);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Metadata {
    dev: u64,
    ino: u64,
    rdev: u64,
    size: u64,
    blocks: u64,
    blksize: u32,
    mode: u32,
    nlink: u32,
    uid: u32,
    gid: u32,
    accessed: Stamp,
    modified: Stamp,
    changed: Stamp,
    created: Option<Stamp>,
    #[cfg(raw_stat)]
    #[allow(deprecated, reason = "std's trait still gives a reference to one")]
    pub(super) raw: OnceLock<Box<std::os::linux::raw::stat>>,
}

#[derive(Clone, Copy)]
struct Stamp {
    sec: i64,
    nsec: u32,
}

impl Stamp {
    fn new(t: &libc::statx_timestamp) -> Self {
        Stamp { sec: t.tv_sec, nsec: t.tv_nsec }
    }

    fn time(self) -> io::Result<SystemTime> {
        let whole = Duration::from_secs(self.sec.unsigned_abs());
        let whole = if self.sec < 0 {
            SystemTime::UNIX_EPOCH.checked_sub(whole)
        } else {
            SystemTime::UNIX_EPOCH.checked_add(whole)
        };
        whole
            .filter(|_| self.nsec < 1_000_000_000)
            .and_then(|t| t.checked_add(Duration::from_nanos(self.nsec.into())))
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "invalid timestamp"))
    }
}

impl Metadata {
    fn new(x: &libc::statx) -> Self {
        Metadata {
            dev: libc::makedev(x.stx_dev_major, x.stx_dev_minor),
            ino: x.stx_ino,
            rdev: libc::makedev(x.stx_rdev_major, x.stx_rdev_minor),
            size: x.stx_size,
            blocks: x.stx_blocks,
            blksize: x.stx_blksize,
            mode: x.stx_mode.into(),
            nlink: x.stx_nlink,
            uid: x.stx_uid,
            gid: x.stx_gid,
            accessed: Stamp::new(&x.stx_atime),
            modified: Stamp::new(&x.stx_mtime),
            changed: Stamp::new(&x.stx_ctime),
            created: (x.stx_mask & libc::STATX_BTIME != 0).then(|| Stamp::new(&x.stx_btime)),
            #[cfg(raw_stat)]
            raw: OnceLock::new(),
        }
    }

    /// The file type of this file.
    #[must_use]
    pub fn file_type(&self) -> FileType {
        FileType::from_mode(self.mode)
    }

    /// Whether this is a directory. Of a link asked about by
    /// [`symlink_metadata`](super::symlink_metadata), it is not.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.file_type().is_dir()
    }

    /// Whether this is a regular file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.file_type().is_file()
    }

    /// Whether this is a symbolic link.
    #[must_use]
    pub fn is_symlink(&self) -> bool {
        self.file_type().is_symlink()
    }

    /// The size of the file in bytes.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "std's names")]
    pub fn len(&self) -> u64 {
        self.size
    }

    /// The permissions of the file, as std's own type.
    #[must_use]
    pub fn permissions(&self) -> Permissions {
        Permissions::from_mode(self.mode)
    }

    /// The time of the last modification.
    ///
    /// # Errors
    /// If the file system gives a time that is none.
    pub fn modified(&self) -> io::Result<SystemTime> {
        self.modified.time()
    }

    /// The time of the last access. Many file systems keep it only roughly.
    ///
    /// # Errors
    /// If the file system gives a time that is none.
    pub fn accessed(&self) -> io::Result<SystemTime> {
        self.accessed.time()
    }

    /// The time at which the file was created.
    ///
    /// # Errors
    /// [`Unsupported`](io::ErrorKind::Unsupported) where the file system does not keep it.
    pub fn created(&self) -> io::Result<SystemTime> {
        let created = self.created.ok_or_else(|| {
            let text = "creation time is not available for the filesystem";
            io::Error::new(io::ErrorKind::Unsupported, text)
        })?;
        created.time()
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Metadata");
        out.field("file_type", &self.file_type());
        out.field("permissions", &self.permissions());
        out.field("len", &self.len());
        for (name, time) in [
            ("modified", self.modified()),
            ("accessed", self.accessed()),
            ("created", self.created()),
        ] {
            if let Ok(time) = time {
                out.field(name, &time);
            }
        }
        out.finish_non_exhaustive()
    }
}

impl MetadataExt for Metadata {
    fn dev(&self) -> u64 {
        self.dev
    }
    fn ino(&self) -> u64 {
        self.ino
    }
    fn mode(&self) -> u32 {
        self.mode
    }
    fn nlink(&self) -> u64 {
        self.nlink.into()
    }
    fn uid(&self) -> u32 {
        self.uid
    }
    fn gid(&self) -> u32 {
        self.gid
    }
    fn rdev(&self) -> u64 {
        self.rdev
    }
    fn size(&self) -> u64 {
        self.size
    }
    fn atime(&self) -> i64 {
        self.accessed.sec
    }
    fn atime_nsec(&self) -> i64 {
        self.accessed.nsec.into()
    }
    fn mtime(&self) -> i64 {
        self.modified.sec
    }
    fn mtime_nsec(&self) -> i64 {
        self.modified.nsec.into()
    }
    fn ctime(&self) -> i64 {
        self.changed.sec
    }
    fn ctime_nsec(&self) -> i64 {
        self.changed.nsec.into()
    }
    fn blksize(&self) -> u64 {
        self.blksize.into()
    }
    fn blocks(&self) -> u64 {
        self.blocks
    }
}

/// The type of a file: regular, directory, symbolic link or, through
/// [`std::os::unix::fs::FileTypeExt`], one of Unix's special kinds.
///
/// # Examples
/// ```
/// use std::os::unix::fs::FileTypeExt;
///
/// assert!(ramie::fs::metadata("src")?.file_type().is_dir());
/// assert!(ramie::fs::metadata("/dev/null")?.file_type().is_char_device());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileType {
    kind: u32, // the S_IFMT bits of a mode
}

impl FileType {
    pub(super) fn from_mode(mode: u32) -> Self {
        FileType { kind: mode & libc::S_IFMT }
    }

    /// From the `d_type` of a directory record; `None` where the file system leaves it open.
    pub(crate) fn from_dirent(d_type: u8) -> Option<Self> {
        let kind = match d_type {
            libc::DT_REG => libc::S_IFREG,
            libc::DT_DIR => libc::S_IFDIR,
            libc::DT_LNK => libc::S_IFLNK,
            libc::DT_FIFO => libc::S_IFIFO,
            libc::DT_SOCK => libc::S_IFSOCK,
            libc::DT_CHR => libc::S_IFCHR,
            libc::DT_BLK => libc::S_IFBLK,
            _ => return None,
        };
        Some(FileType { kind })
    }

    /// Whether this is a directory.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.kind == libc::S_IFDIR
    }

    /// Whether this is a regular file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.kind == libc::S_IFREG
    }

    /// Whether this is a symbolic link.
    #[must_use]
    pub fn is_symlink(&self) -> bool {
        self.kind == libc::S_IFLNK
    }
}

impl FileTypeExt for FileType {
    fn is_block_device(&self) -> bool {
        self.kind == libc::S_IFBLK
    }
    fn is_char_device(&self) -> bool {
        self.kind == libc::S_IFCHR
    }
    fn is_fifo(&self) -> bool {
        self.kind == libc::S_IFIFO
    }
    fn is_socket(&self) -> bool {
        self.kind == libc::S_IFSOCK
    }
}

impl fmt::Debug for FileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileType")
            .field("is_file", &self.is_file())
            .field("is_dir", &self.is_dir())
            .field("is_symlink", &self.is_symlink())
            .finish_non_exhaustive()
    }
}
