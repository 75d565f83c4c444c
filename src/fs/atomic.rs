//! [`write_atomic`]: a file that always has either its old contents or its new ones.

use std::ffi::OsString;
use std::fs::Permissions;
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::{File, OpenOptions, metadata, remove_file, rename};
use crate::cancel::shield;

/// Writes `contents` as the entire contents of a file, in one step as far as others and a crash can
/// tell: they find the old contents or the new, never a part. Not in std.
///
/// The contents go to a new file in the same directory, are brought to the disk, and the file is
/// renamed; the directory is then brought to the disk too. A file that exists hands on who may
/// read, write and execute it; but not the set-user-ID bit and its like, since the new file may be
/// somebody else's. Its other names keep the old contents, and a symbolic link is replaced, not
/// followed.
///
/// # Errors
/// [`IsADirectory`](ErrorKind::IsADirectory) if `path` is a directory,
/// [`InvalidInput`](ErrorKind::InvalidInput) if it does not end in a name, and those of the steps.
/// The old contents are then in place, except where only the last step failed.
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
    let name = path.file_name().filter(|_| !path.as_os_str().as_bytes().ends_with(b"/"));
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
    let mode = match metadata(path) {
        Ok(m) if m.is_dir() => return Err(io::Error::from_raw_os_error(libc::EISDIR)),
        Ok(m) => Some(m.permissions().mode() & 0o777),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => return Err(e),
    };
    // Never readable by more people than the old file, not even for a moment.
    let (mut file, temporary) = create_beside(dir, name.as_bytes(), mode.unwrap_or(0o666))?;
    let written = (|| {
        file.write_all(contents)?;
        if let Some(mode) = mode {
            file.set_permissions(Permissions::from_mode(mode))?;
        }
        file.sync_all()?;
        rename(&temporary, path)
    })();
    if let Err(e) = written {
        // A second request to end must not keep us from it. The first error is the one to report.
        let _ = shield(|| remove_file(&temporary));
        return Err(e);
    }
    File::open(dir)?.sync_all()
}

/// A new file in `dir` with a hidden name that contains `name`.
fn create_beside(dir: &Path, name: &[u8], mode: u32) -> io::Result<(File, PathBuf)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        // Names have 255 bytes at most; a part of a long one will do.
        let mut hidden = OsString::from(".");
        hidden.push(std::ffi::OsStr::from_bytes(&name[..name.len().min(200)]));
        hidden.push(format!(".{}-{n}.tmp", std::process::id()));
        let path = dir.join(hidden);
        match OpenOptions::new().write(true).create_new(true).mode(mode).open(&path) {
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {} // a leftover of an earlier process
            result => return Ok((result?, path)),
        }
    }
}
