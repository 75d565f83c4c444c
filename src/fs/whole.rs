//! Functions that open a file, do one thing with the whole of it and close it.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::stream::not_utf8;
use super::{File, OpenOptions};
use crate::sched::blocking;

/// How much of a copy is done in one go on a thread of the blocking pool.
const COPY_STEP: u64 = 64 << 20;

/// Reads the entire contents of a file.
///
/// # Errors
/// Those of [`OpenOptions::open`] and of reading. [`read_limited`] bounds what is read.
///
/// # Examples
/// ```
/// assert!(ramie::fs::read("Cargo.toml")?.starts_with(b"["));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn read<P: AsRef<Path>>(path: P) -> io::Result<Vec<u8>> {
    let (file, believed) = OpenOptions::new().read(true).open_and_ask(path.as_ref())?;
    let hint = believed.and_then(|file| usize::try_from(file.size).ok());
    read_believed(&file, usize::MAX, hint)
}

/// Reads the whole of `file`, `max` bytes at most, if it is believed to have `hint`.
fn read_believed(file: &File, max: usize, hint: Option<usize>) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    if let Some(size @ 1..) = hint {
        // A read with room for one byte more finds the end of the file, too.
        bytes.try_reserve_exact(size.saturating_add(1).min(max))?;
    }
    file.append_up_to(&mut bytes, max, hint)?;
    Ok(bytes)
}

/// Reads the entire contents of a file as UTF-8.
///
/// # Errors
/// [`InvalidData`](ErrorKind::InvalidData) if it is not UTF-8, and those of [`read`].
pub fn read_to_string<P: AsRef<Path>>(path: P) -> io::Result<String> {
    String::from_utf8(read(path)?).map_err(|_| not_utf8())
}

/// Reads the entire contents of a file of at most `max` bytes. Not in std.
///
/// Of a longer file no more than `max + 1` bytes are read, whatever size it claims to have.
///
/// # Errors
/// [`FileTooLarge`](ErrorKind::FileTooLarge) if there are more than `max` bytes, and those of
/// [`read`].
///
/// # Examples
/// ```
/// use std::io::ErrorKind;
///
/// assert!(ramie::fs::read_limited("Cargo.toml", 1 << 20).is_ok());
/// let e = ramie::fs::read_limited("/dev/zero", 1000).unwrap_err();
/// assert_eq!(e.kind(), ErrorKind::FileTooLarge);
/// ```
pub fn read_limited<P: AsRef<Path>>(path: P, max: usize) -> io::Result<Vec<u8>> {
    let (file, believed) = OpenOptions::new().read(true).open_and_ask(path.as_ref())?;
    let limit = max.saturating_add(1);
    let too_long = |size| size > limit as u64;
    // A belief is no reason to refuse a file.
    if believed.is_none_or(|file| too_long(file.size)) && too_long(file.metadata()?.len()) {
        return Err(too_large(max));
    }
    let hint = believed.map(|file| file.size.min(limit as u64) as usize);
    let bytes = read_believed(&file, limit, hint)?;
    if bytes.len() > max { Err(too_large(max)) } else { Ok(bytes) }
}

#[cold]
fn too_large(max: usize) -> io::Error {
    io::Error::new(ErrorKind::FileTooLarge, format!("the file has more than {max} bytes"))
}

/// Writes `contents` as the entire contents of a file, which is created or truncated.
///
/// # Errors
/// Those of [`OpenOptions::open`] and of writing; the file may then hold a part.
///
/// # Examples
/// ```
/// # let path = std::env::temp_dir().join(format!("ramie-write-{}", std::process::id()));
/// ramie::fs::write(&path, b"Lorem ipsum")?;
/// assert_eq!(ramie::fs::read_to_string(&path)?, "Lorem ipsum");
/// # ramie::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn write<P: AsRef<Path>, C: AsRef<[u8]>>(path: P, contents: C) -> io::Result<()> {
    File::create(path)?.write_all(contents.as_ref())
}

/// As [`write`](write()), and a file that is created gets `mode` less the umask. Not in std.
///
/// The mode of a file that exists already stays as it is.
///
/// # Errors
/// As [`write`](write()).
///
/// # Examples
/// ```
/// use std::os::unix::fs::PermissionsExt;
///
/// # let path = std::env::temp_dir().join(format!("ramie-mode-{}", std::process::id()));
/// ramie::fs::write_mode(&path, "secret", 0o600)?;
/// assert_eq!(ramie::fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
/// # ramie::fs::remove_file(&path)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn write_mode<P: AsRef<Path>, C: AsRef<[u8]>>(
    path: P,
    contents: C,
    mode: u32,
) -> io::Result<()> {
    open_write_mode(path, mode)?.write_all(contents.as_ref())
}

/// Opens a file for reading: [`File::open`]. Not in std.
///
/// # Errors
/// As [`OpenOptions::open`].
pub fn open_read<P: AsRef<Path>>(path: P) -> io::Result<File> {
    File::open(path)
}

/// Opens a file for writing, created or truncated: [`File::create`]. Not in std.
///
/// # Errors
/// As [`OpenOptions::open`].
pub fn open_write<P: AsRef<Path>>(path: P) -> io::Result<File> {
    File::create(path)
}

/// As [`open_write`], and a file that is created gets `mode` less the umask. Not in std.
///
/// # Errors
/// As [`OpenOptions::open`].
pub fn open_write_mode<P: AsRef<Path>>(path: P, mode: u32) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)
}

/// Opens a file for reading and writing; it is created with `mode` less the umask if it does not
/// exist and keeps its contents if it does. Not in std.
///
/// # Errors
/// As [`OpenOptions::open`].
pub fn open_read_write<P: AsRef<Path>>(path: P, mode: u32) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(mode).open(path)
}

/// Copies the contents of a regular file and its permission bits to another, which is created or
/// overwritten, and returns the number of bytes. If both are the same file it ends up empty.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) if `from` is no regular file, and those of opening,
/// reading and writing. `to` may then hold a part.
///
/// # Cancellation
/// Between steps of 64 MiB; `to` then holds a part.
///
/// # Examples
/// ```
/// # let to = std::env::temp_dir().join(format!("ramie-copy-{}", std::process::id()));
/// let n = ramie::fs::copy("Cargo.toml", &to)?;
/// assert_eq!(n, ramie::fs::metadata("Cargo.toml")?.len());
/// # ramie::fs::remove_file(&to)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn copy<P: AsRef<Path>, Q: AsRef<Path>>(from: P, to: Q) -> io::Result<u64> {
    let reader = File::open(from)?;
    let source = reader.metadata()?;
    if !source.is_file() {
        let text = "the source path is neither a regular file nor a symlink to a regular file";
        return Err(io::Error::new(ErrorKind::InvalidInput, text));
    }
    let permissions = source.permissions();
    let writer = open_write_mode(to, permissions.mode())?;
    if writer.metadata()?.is_file() {
        writer.set_permissions(permissions)?;
    }
    let mut total = 0;
    loop {
        // std copies between two files in the kernel where the file systems allow it.
        let n = blocking(|| io::copy(&mut reader.std().take(COPY_STEP), &mut writer.std()))?;
        total += n;
        if n < COPY_STEP {
            return Ok(total);
        }
    }
}
