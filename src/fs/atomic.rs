//! [`write_atomic`]: a file that always has either its old contents or its new ones.
//!
//! The new contents are a file without a name (`O_TMPFILE`) until all of them are on the disk. So
//! whatever ends the call early leaves nothing: an error, a request, a fiber that is leaked, a
//! process that is killed. A name that is free is then given by one call. To replace another file
//! takes two, `linkat` to a hidden name and `rename`, which are one job on the pool: once it has
//! begun, only the end of the process can come in between.
//!
//! Where there are no files without names, the whole is one such job.

use std::ffi::{CStr, CString, OsStr};
use std::fs::Permissions;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::metadata::statx;
use super::{OpenOptions, retry, with_cstr};
use crate::cancel::{check, shield};
use crate::op::{Op, decode::decode};
use crate::sched::{blocking, perform_fd};
use crate::sys::path;

/// Writes `contents` as the entire contents of a file, in one step as far as others and a crash can
/// tell: they find the old contents or the new, never a part. Not in std.
///
/// The contents go to a new file in the same directory, are brought to the disk, and only then get
/// the name; the directory is then brought to the disk too. A file that exists hands on its nine
/// bits of permissions; but not the set-user-ID bit and its like, since the new file's owner and
/// group are those of any file that the caller makes, nor access lists and other attributes. Its
/// other names keep the old contents, and a symbolic link is replaced, not followed. Who watches
/// the name is told of a new file, or of a rename, and of no writing.
///
/// # What can be left behind
/// Nothing by a call that fails, is cancelled, or is cut off by the end of its runtime: the new
/// file has no name until it is complete. To replace a file, the new one then has a hidden name in
/// the same directory, `.NAME.PID-N.tmp`, for the moment between two system calls; a process that
/// ends right then, or a machine that stops, leaves it there. On file systems that know no files
/// without names (NFS and FAT among them) it has that name from the start, and a process that ends
/// meanwhile leaves it. Such a file may be removed when the process with that number does not run.
///
/// # Errors
/// [`IsADirectory`](ErrorKind::IsADirectory) if `path` is a directory,
/// [`InvalidInput`](ErrorKind::InvalidInput) if it does not end in a name, and those of the steps.
/// The old contents are then in place, except where only the last step failed.
///
/// # Cancellation
/// A cancelled call leaves the old contents. Once the new contents are on the disk it is waited
/// for, and from the start on file systems that know no files without names.
///
/// # Examples
/// ```
/// # let path = std::env::temp_dir().join(format!("ramie-atomic-{}", std::process::id()));
/// ramie::fs::write_atomic(&path, "all or nothing")?;
/// assert_eq!(ramie::fs::read_to_string(&path)?, "all or nothing");
/// # ramie::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn write_atomic<P: AsRef<Path>, C: AsRef<[u8]>>(path: P, contents: C) -> io::Result<()> {
    let (path, contents) = (path.as_ref(), contents.as_ref());
    // Not with a slash behind it, nor with `/.`, which only a directory may have.
    let ends_in = |name: &&OsStr| path.as_os_str().as_bytes().ends_with(name.as_bytes());
    let name = path.file_name().filter(ends_in);
    let Some(name) = name else {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            "the path does not end in a file name",
        ));
    };
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    // All that follows is done in this directory, whatever becomes of its name.
    let dir = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(dir)?;
    with_cstr(Path::new(name), |name| {
        let mode = match statx(Some(dir.as_fd()), name, 0) {
            Ok(m) if m.is_dir() => return Err(io::Error::from_raw_os_error(libc::EISDIR)),
            Ok(m) => Some(m.permissions().mode() & 0o777),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(e),
        };
        if !write_unnamed(dir.as_fd(), name, contents, mode)? {
            write_named(dir.as_fd(), name, contents, mode)?;
        }
        Ok(())
    })?;
    // It has happened: a request to end may wait for this.
    shield(|| dir.sync_all())
}

/// Writes a file that has no name until it is complete. `false` if there is no such thing here.
fn write_unnamed(
    dir: BorrowedFd<'_>,
    name: &CStr,
    contents: &[u8],
    mode: Option<u32>,
) -> io::Result<bool> {
    let mut options = OpenOptions::new();
    // Never readable by more people than the old file, not even for a moment.
    options.write(true).mode(mode.unwrap_or(0o666)).custom_flags(libc::O_TMPFILE);
    let mut file = match options.open_at(Some(dir), Path::new(".")) {
        Ok(file) => file,
        Err(e) => match e.raw_os_error() {
            // What file systems and kernels say that have none.
            Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL | libc::ENOSYS) => {
                return Ok(false);
            }
            _ => return Err(e),
        },
    };
    file.write_all(contents)?;
    if let Some(mode) = mode {
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    file.sync_all()?;
    check()?;
    blocking(|| {
        let link = |name: &CStr| link(file.as_fd(), dir, name);
        match link(name) {
            Ok(()) => return Ok(true),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(_) => return Ok(false), // no `/proc`, or no links
        }
        let ((), hidden) = with_hidden_name(name, link)?;
        replace(dir, &hidden, name).map(|()| true)
    })
}

/// Writes a file that has a hidden name meanwhile.
fn write_named(
    dir: BorrowedFd<'_>,
    name: &CStr,
    contents: &[u8],
    mode: Option<u32>,
) -> io::Result<()> {
    check()?;
    blocking(|| {
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC;
        let create = |path: &CStr| {
            let mode = mode.unwrap_or(0o666);
            retry(|| perform_fd(Op::OpenAt { dir: Some(dir), path, flags, mode }))
        };
        let (fd, hidden) = with_hidden_name(name, create)?;
        let mut file = std::fs::File::from(fd);
        let written = (|| {
            file.write_all(contents)?;
            if let Some(mode) = mode {
                file.set_permissions(Permissions::from_mode(mode))?;
            }
            file.sync_all()
        })();
        drop(file); // who watches the name is not to be told of that
        match written {
            Ok(()) => replace(dir, &hidden, name),
            Err(e) => {
                path::unlinkat(Some(dir), &hidden, 0); // the first error is the one to report
                Err(e)
            }
        }
    })
}

/// Renames what has a hidden name, or removes it.
fn replace(dir: BorrowedFd<'_>, hidden: &CStr, name: &CStr) -> io::Result<()> {
    let renamed = retry(|| decode(path::renameat(Some(dir), hidden, Some(dir), name, 0)));
    if renamed.is_err() {
        path::unlinkat(Some(dir), hidden, 0);
    }
    renamed.map(drop)
}

/// Gives a file without a name one that is free.
fn link(file: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &CStr) -> io::Result<()> {
    let by_itself =
        || decode(path::linkat(Some(file), c"", Some(dir), name, libc::AT_EMPTY_PATH)).map(drop);
    // Not everybody may do that, but everybody may follow this link.
    let by_proc = || {
        let path = CString::new(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        decode(path::linkat(None, &path, Some(dir), name, libc::AT_SYMLINK_FOLLOW)).map(drop)
    };
    match retry(by_itself) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => retry(by_proc),
        result => result,
    }
}

/// Calls `make` with hidden names that contain `name`, until one is free.
fn with_hidden_name<T>(
    name: &CStr,
    make: impl Fn(&CStr) -> io::Result<T>,
) -> io::Result<(T, CString)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name = name.to_bytes();
    loop {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        // Names have 255 bytes at most; a part of a long one will do.
        let mut hidden = vec![b'.'];
        hidden.extend_from_slice(&name[..name.len().min(200)]);
        hidden.extend_from_slice(format!(".{}-{n}.tmp", std::process::id()).as_bytes());
        let hidden = CString::new(hidden)?;
        match make(&hidden) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {} // a leftover of an earlier process
            result => return Ok((result?, hidden)),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::sys::inotify;
    use std::io::Read;

    /// Where nothing can be written without a name: the same outcome, and nothing left over.
    #[test]
    fn with_a_name_all_the_time() {
        let path = std::env::temp_dir().join(format!("ramie-atomic-named-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let dir = std::fs::File::open(&path).unwrap();
        let names = || {
            let mut names: Vec<_> =
                std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        write_named(dir.as_fd(), c"f", b"one", None).unwrap();
        let watch = inotify::init().unwrap();
        let (of, what) = (path.as_os_str().as_bytes(), libc::IN_CLOSE_WRITE | libc::IN_MOVED_TO);
        inotify::add_watch(watch.as_fd(), &CString::new(of).unwrap(), what).unwrap();
        write_named(dir.as_fd(), c"f", b"two", Some(0o640)).unwrap();
        let mut records = [0; 4096];
        let n = std::fs::File::from(watch).read(&mut records).unwrap();
        let told: Vec<_> = inotify::records(&records[..n]).map(|record| record.mask).collect();
        assert_eq!(told, [libc::IN_CLOSE_WRITE, libc::IN_MOVED_TO]); // first closed, then named
        assert_eq!(std::fs::read(path.join("f")).unwrap(), b"two");
        assert_eq!(path.join("f").metadata().unwrap().permissions().mode() & 0o777, 0o640);
        std::fs::create_dir(path.join("g")).unwrap();
        write_named(dir.as_fd(), c"g", b"no", None).unwrap_err();
        assert!(write_unnamed(dir.as_fd(), c"g", b"no", None).is_err());
        assert_eq!(names(), ["f", "g"]);
        // A long name, and one that is taken.
        let long = CString::new([b'n'; 255]).unwrap();
        let taken = with_hidden_name(&long, |hidden| {
            if names().len() == 2 {
                std::fs::write(path.join(hidden.to_str().unwrap()), "").unwrap();
                return Err(ErrorKind::AlreadyExists.into());
            }
            Ok(())
        });
        assert_eq!(names().len(), 3);
        assert!(!names().iter().any(|name| name == taken.as_ref().unwrap().1.to_str().unwrap()));
        std::fs::remove_dir_all(&path).unwrap();
        // A directory that is gone.
        write_unnamed(dir.as_fd(), c"f", b"no", None)
            .and_then(
                |done| {
                    if done { Ok(()) } else { write_named(dir.as_fd(), c"f", b"no", None) }
                },
            )
            .unwrap_err();
    }
}
