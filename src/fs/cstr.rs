//! Paths as C strings, on the stack when they are short.

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const ON_STACK: usize = 384;

/// Calls `f` with `path` as a C string, which is made without an allocation if it is short.
///
/// # Errors
/// `InvalidInput` if the path has a NUL byte inside.
pub(crate) fn with_cstr<T>(path: &Path, f: impl FnOnce(&CStr) -> io::Result<T>) -> io::Result<T> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() >= ON_STACK {
        return f(&CString::new(bytes).map_err(|_| has_nul())?);
    }
    let mut buf = [0; ON_STACK];
    buf[..bytes.len()].copy_from_slice(bytes);
    f(CStr::from_bytes_with_nul(&buf[..=bytes.len()]).map_err(|_| has_nul())?)
}

#[cold]
fn has_nul() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "file name contained an unexpected NUL byte")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_around_the_limit() {
        for len in [0, 1, ON_STACK - 1, ON_STACK, ON_STACK + 1, 5000] {
            let path = "x".repeat(len);
            let seen = with_cstr(Path::new(&path), |c| Ok(c.to_bytes().len())).unwrap();
            assert_eq!(seen, len);
        }
    }

    #[test]
    fn nul_inside_is_invalid_input() {
        for path in ["\0".to_string(), "a\0b".to_string(), "x".repeat(ON_STACK) + "\0"] {
            let e = with_cstr(Path::new(&path), |_| Ok(())).unwrap_err();
            assert_eq!(e.kind(), io::ErrorKind::InvalidInput);
        }
    }
}
