//! From a kernel result to `io::Result`.
//!
//! | result             | meaning                                                              |
//! |--------------------|----------------------------------------------------------------------|
//! | `>= 0`             | a count, a descriptor or 0                                           |
//! | `-512 .. -530`     | codes the kernel keeps for itself; the ring lets some of them out    |
//! | other `-1 .. -4095`| `-errno`                                                             |
//! | below              | never: [`os_bug`]                                                    |
//!
//! A system call that a signal breaks off returns one of the restart codes inside the kernel, and
//! the way back to user space turns it into `EINTR` or repeats the call. A ring operation has no
//! such way back (a blocked open that is cancelled ends with -512), so the translation is made
//! here.
#![forbid(unsafe_code)]

use std::io;

const ERESTARTSYS: i32 = 512;
const ERESTARTNOINTR: i32 = 513;
const ERESTARTNOHAND: i32 = 514;
const ENOIOCTLCMD: i32 = 515;
const ERESTART_RESTARTBLOCK: i32 = 516;
const EOPENSTALE: i32 = 518;
const MAX_ERRNO: i32 = 4095;

/// Reads an op's result; the number is the count, the descriptor or 0.
#[inline]
pub(crate) fn decode(res: i32) -> io::Result<u32> {
    if res >= 0 { Ok(res.unsigned_abs()) } else { Err(error(res)) }
}

/// Whether a result says that the op was broken off before it did anything.
#[cold]
pub(crate) fn is_interrupted(res: i32) -> bool {
    matches!(
        -res,
        libc::EINTR | ERESTARTSYS | ERESTARTNOINTR | ERESTARTNOHAND | ERESTART_RESTARTBLOCK
    )
}

#[cold]
fn error(res: i32) -> io::Error {
    if res < -MAX_ERRNO {
        return os_bug("a result that is neither a count nor an errno", res);
    }
    let errno = match -res {
        ERESTARTSYS | ERESTARTNOINTR | ERESTARTNOHAND | ERESTART_RESTARTBLOCK => libc::EINTR,
        ENOIOCTLCMD => libc::ENOTTY,
        EOPENSTALE => libc::ESTALE,
        errno => errno,
    };
    io::Error::from_raw_os_error(errno)
}

/// The kernel gave an answer that its interface rules out: a bug there, or in our reading of it.
/// Debug builds stop; others make it an error of the op, which harms one caller only.
#[cold]
pub(crate) fn os_bug(what: &str, res: i32) -> io::Error {
    debug_assert!(false, "impossible answer from the kernel: {what} ({res})");
    io::Error::other(format!("impossible answer from the kernel: {what} ({res})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_errors() {
        assert_eq!(decode(0).unwrap(), 0);
        assert_eq!(decode(i32::MAX).unwrap(), 0x7fff_ffff);
        assert_eq!(decode(-libc::ENOENT).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(decode(-libc::ECANCELED).unwrap_err().raw_os_error(), Some(libc::ECANCELED));
        assert_eq!(decode(-MAX_ERRNO).unwrap_err().raw_os_error(), Some(MAX_ERRNO));
    }

    #[test]
    fn restart_codes_are_interruptions() {
        for code in [512, 513, 514, 516] {
            assert_eq!(decode(-code).unwrap_err().kind(), io::ErrorKind::Interrupted);
        }
        assert_eq!(decode(-515).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
        assert_eq!(decode(-518).unwrap_err().raw_os_error(), Some(libc::ESTALE));
    }

    #[test]
    #[cfg_attr(debug_assertions, should_panic(expected = "impossible answer"))]
    fn impossible_answers() {
        for res in [-4096, i32::MIN] {
            assert_eq!(decode(res).unwrap_err().kind(), io::ErrorKind::Other);
        }
    }
}
