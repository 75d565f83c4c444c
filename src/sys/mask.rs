//! The mask: what this process is to do without although the kernel has it. For tests of how older
//! and partial kernels are coped with, and for users who suspect one feature.
//!
//! `RAMIE_CAPS` is a list with commas, and read once:
//!
//! | item         | without                                                            |
//! |--------------|--------------------------------------------------------------------|
//! | `-ftruncate` | what has that name in one of the tables below                      |
//! | `linux-5.15` | whatever in these tables is newer than that kernel                 |
//! | `+futex`     | (restores what an earlier item took away)                          |
//!
//! The tables are the crate's one list of what came with which kernel. They serve the mask alone:
//! what a kernel offers is found by asking it. Hidden is what the crate would use of the kernel's
//! newer parts: the rest of an old kernel (its bugs, its speed) no mask can show.
#![forbid(unsafe_code)]

use std::env::{self, VarError};
use std::io;
use std::sync::OnceLock;

const VARIABLE: &str = "RAMIE_CAPS";

/// The first kernel that has something.
pub(crate) type Version = (u16, u16);

/// What a kernel may lack apart from opcodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cap {
    /// Rings at all.
    IoUring,
    /// `IORING_SETUP_NO_SQARRAY`.
    NoSqArray,
    /// `IORING_SETUP_DEFER_TASKRUN`.
    DeferTaskrun,
    /// `IORING_SETUP_COOP_TASKRUN`.
    CoopTaskrun,
    /// `IORING_SETUP_SUBMIT_ALL`.
    SubmitAll,
    /// `IORING_FEAT_NODROP`.
    NoDrop,
    /// `IORING_FEAT_EXT_ARG`.
    ExtArg,
    /// `IORING_FEAT_RW_CUR_POS`.
    RwCurPos,
    /// `IORING_FEAT_NO_IOWAIT`.
    NoIowait,
    /// `IORING_ACCEPT_MULTISHOT`.
    AcceptMultishot,
    /// `IORING_ASYNC_CANCEL_ANY`.
    CancelAny,
    /// `IORING_REGISTER_IOWQ_MAX_WORKERS`.
    IowqMaxWorkers,
    /// `IORING_REGISTER_RING_FDS`.
    RingFds,
    /// `IORING_REGISTER_SEND_MSG_RING`: posting into a ring without one of one's own.
    SendMsgRing,
    /// Waiting on a futex through a ring.
    Futex,
    /// `MADV_GUARD_INSTALL`.
    GuardInstall,
    /// The same for many ranges, by `process_madvise`.
    GuardBatch,
}

/// What is no opcode. What kernels without a ring have is not here.
const CAPS: &[(Cap, &str, Version)] = &[
    (Cap::IoUring, "io_uring", (5, 1)),
    (Cap::NoDrop, "nodrop", (5, 5)),
    (Cap::RwCurPos, "rw_cur_pos", (5, 6)),
    (Cap::ExtArg, "ext_arg", (5, 11)),
    (Cap::IowqMaxWorkers, "iowq_max_workers", (5, 15)),
    (Cap::SubmitAll, "submit_all", (5, 18)),
    (Cap::RingFds, "ring_fds", (5, 18)),
    (Cap::CoopTaskrun, "coop_taskrun", (5, 19)),
    (Cap::AcceptMultishot, "accept_multishot", (5, 19)),
    (Cap::CancelAny, "cancel_any", (5, 19)),
    (Cap::DeferTaskrun, "defer_taskrun", (6, 1)),
    (Cap::NoSqArray, "no_sqarray", (6, 6)),
    (Cap::Futex, "futex", (6, 7)),
    (Cap::SendMsgRing, "msg_ring", (6, 13)),
    (Cap::GuardInstall, "guard_install", (6, 13)),
    (Cap::GuardBatch, "guard_batch", (6, 13)),
    (Cap::NoIowait, "no_iowait", (6, 15)),
];

/// The opcodes of a ring, by number. Those that are not here yet are newer than all that are.
const OPCODES: &[(&str, Version)] = &[
    ("nop", (5, 1)),
    ("readv", (5, 1)),
    ("writev", (5, 1)),
    ("fsync", (5, 1)),
    ("read_fixed", (5, 1)),
    ("write_fixed", (5, 1)),
    ("poll_add", (5, 1)),
    ("poll_remove", (5, 1)),
    ("sync_file_range", (5, 2)),
    ("sendmsg", (5, 3)),
    ("recvmsg", (5, 3)),
    ("timeout", (5, 4)),
    ("timeout_remove", (5, 5)),
    ("accept", (5, 5)),
    ("async_cancel", (5, 5)),
    ("link_timeout", (5, 5)),
    ("connect", (5, 5)),
    ("fallocate", (5, 6)),
    ("openat", (5, 6)),
    ("close", (5, 6)),
    ("files_update", (5, 6)),
    ("statx", (5, 6)),
    ("read", (5, 6)),
    ("write", (5, 6)),
    ("fadvise", (5, 6)),
    ("madvise", (5, 6)),
    ("send", (5, 6)),
    ("recv", (5, 6)),
    ("openat2", (5, 6)),
    ("epoll_ctl", (5, 6)),
    ("splice", (5, 7)),
    ("provide_buffers", (5, 7)),
    ("remove_buffers", (5, 7)),
    ("tee", (5, 8)),
    ("shutdown", (5, 11)),
    ("renameat", (5, 11)),
    ("unlinkat", (5, 11)),
    ("mkdirat", (5, 15)),
    ("symlinkat", (5, 15)),
    ("linkat", (5, 15)),
    ("msg_ring", (5, 18)),
    ("fsetxattr", (5, 19)),
    ("setxattr", (5, 19)),
    ("fgetxattr", (5, 19)),
    ("getxattr", (5, 19)),
    ("socket", (5, 19)),
    ("uring_cmd", (5, 19)),
    ("send_zc", (6, 0)),
    ("sendmsg_zc", (6, 1)),
    ("read_multishot", (6, 7)),
    ("waitid", (6, 7)),
    ("futex_wait", (6, 7)),
    ("futex_wake", (6, 7)),
    ("futex_waitv", (6, 7)),
    ("fixed_fd_install", (6, 8)),
    ("ftruncate", (6, 9)),
    ("bind", (6, 11)),
    ("listen", (6, 11)),
    ("recv_zc", (6, 15)),
    ("epoll_wait", (6, 15)),
    ("readv_fixed", (6, 15)),
    ("writev_fixed", (6, 15)),
    ("pipe", (6, 16)),
];

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mask {
    opcodes: [u64; 4],
    /// By place in `CAPS`.
    caps: u32,
}

const _: () = assert!(CAPS.len() <= 32);

const NOTHING: Mask = Mask { opcodes: [0; 4], caps: 0 };

impl Mask {
    fn parse(text: &str) -> Result<Self, String> {
        let mut mask = NOTHING;
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let known = if let Some(version) = item.strip_prefix("linux-") {
                version_of(version).map(|version| mask.age_to(version))
            } else if let Some(name) = item.strip_prefix('-') {
                mask.set(name, true)
            } else if let Some(name) = item.strip_prefix('+') {
                mask.set(name, false)
            } else {
                None
            };
            known.ok_or_else(|| complaint(item))?;
        }
        Ok(mask)
    }

    /// Hides what `version` does not have.
    fn age_to(&mut self, version: Version) {
        for code in 0..=u8::MAX {
            if OPCODES.get(usize::from(code)).is_none_or(|&(_, since)| since > version) {
                self.set_opcode(code, true);
            }
        }
        for (place, &(_, _, since)) in CAPS.iter().enumerate() {
            if since > version {
                self.caps |= 1 << place;
            }
        }
    }

    /// Hides all that has this name, or shows it again; `None` if nothing has it.
    fn set(&mut self, name: &str, hidden: bool) -> Option<()> {
        let mut found = None;
        for (code, _) in (0..).zip(OPCODES).filter(|(_, opcode)| opcode.0 == name) {
            self.set_opcode(code, hidden);
            found = Some(());
        }
        for (place, _) in CAPS.iter().enumerate().filter(|(_, cap)| cap.1 == name) {
            self.caps = self.caps & !(1 << place) | u32::from(hidden) << place;
            found = Some(());
        }
        found
    }

    fn set_opcode(&mut self, code: u8, hidden: bool) {
        let (word, bit) = (usize::from(code / 64), code % 64);
        self.opcodes[word] = self.opcodes[word] & !(1 << bit) | u64::from(hidden) << bit;
    }

    fn hides(&self, cap: Cap) -> bool {
        CAPS.iter().enumerate().any(|(place, row)| row.0 == cap && self.caps >> place & 1 == 1)
    }

    fn hides_opcode(&self, code: u8) -> bool {
        self.opcodes[usize::from(code / 64)] >> (code % 64) & 1 == 1
    }
}

fn version_of(text: &str) -> Option<Version> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cold]
fn complaint(item: &str) -> String {
    let mut names: Vec<&str> = CAPS.iter().map(|row| row.1).collect();
    names.extend(OPCODES.iter().map(|row| row.0));
    names.sort_unstable();
    names.dedup();
    format!(
        "{VARIABLE}: \"{item}\" is not understood: a list with commas of -NAME, +NAME and \
         linux-MAJOR.MINOR is expected, where NAME is one of {}",
        names.join(", ")
    )
}

fn mask() -> &'static Result<Mask, String> {
    static MASK: OnceLock<Result<Mask, String>> = OnceLock::new();
    MASK.get_or_init(|| match env::var(VARIABLE) {
        Ok(text) => Mask::parse(&text),
        Err(VarError::NotPresent) => Ok(NOTHING),
        Err(VarError::NotUnicode(text)) => Err(complaint(&text.to_string_lossy())),
    })
}

/// The first kernel whose rings know an opcode, as far as the table goes.
pub(crate) fn since_opcode(code: u8) -> Version {
    OPCODES.get(usize::from(code)).map_or((0, 0), |row| row.1)
}

/// The first kernel that has something.
pub(crate) fn since(cap: Cap) -> Version {
    CAPS.iter().find(|row| row.0 == cap).map_or((0, 0), |row| row.2)
}

/// Whether the variable can be understood; without this check it is ignored if not.
pub(crate) fn check() -> io::Result<()> {
    match mask() {
        Ok(_) => Ok(()),
        Err(text) => Err(io::Error::new(io::ErrorKind::InvalidInput, text.as_str())),
    }
}

/// Whether the process is to do without anything that the kernel may have.
pub(crate) fn hides_anything() -> bool {
    matches!(mask(), Ok(mask) if *mask != NOTHING)
}

/// Whether the process is to do without.
pub(crate) fn hides(cap: Cap) -> bool {
    matches!(mask(), Ok(mask) if mask.hides(cap))
}

/// As [`hides`], of a ring's opcode.
pub(crate) fn hides_opcode(code: u8) -> bool {
    matches!(mask(), Ok(mask) if mask.hides_opcode(code))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use io_uring::opcode;

    fn mask(text: &str) -> Mask {
        Mask::parse(text).unwrap()
    }

    #[test]
    fn names_hide_and_show() {
        assert_eq!(mask(""), NOTHING);
        assert_eq!(mask(" , "), NOTHING);
        let some = mask("-ftruncate, -guard_install,-msg_ring");
        assert!(some.hides_opcode(opcode::Ftruncate::CODE) && !some.hides_opcode(0));
        assert!(some.hides(Cap::GuardInstall) && !some.hides(Cap::GuardBatch));
        assert!(some.hides(Cap::SendMsgRing), "both things of that name");
        assert!(some.hides_opcode(opcode::MsgRingData::CODE), "both things of that name");
        assert_eq!(mask("-ftruncate,-futex,+ftruncate,+futex"), NOTHING);
    }

    #[test]
    fn kernels_hide_what_is_newer() {
        let old = mask("linux-5.15");
        assert!(old.hides(Cap::DeferTaskrun) && old.hides(Cap::CancelAny));
        assert!(!old.hides(Cap::IowqMaxWorkers) && !old.hides_opcode(opcode::MkDirAt::CODE));
        assert!(old.hides_opcode(opcode::Socket::CODE));
        assert!(old.hides_opcode(200), "what is not known is newer");
        let odd = mask("linux-6.1,+futex,-openat");
        assert!(odd.hides(Cap::NoSqArray) && !odd.hides(Cap::DeferTaskrun));
        assert!(!odd.hides(Cap::Futex) && odd.hides_opcode(opcode::OpenAt::CODE));
        assert!(mask("linux-4.19").hides(Cap::IoUring));
        assert!(!mask("linux-99.0").hides(Cap::NoIowait));
    }

    #[test]
    fn what_is_not_understood_is_quoted_with_all_names() {
        for text in ["futex", "-fut", "linux-6", "linux-six.one", "6.1", "-", "-nop,what"] {
            let error = Mask::parse(text).unwrap_err();
            let item = text.rsplit(',').next().unwrap();
            assert!(error.contains(&format!("\"{item}\"")), "{error}");
            assert!(error.contains("guard_install") && error.contains("ftruncate"), "{error}");
        }
    }

    /// The opcodes are in the kernel's order.
    #[test]
    fn opcodes_have_their_numbers() {
        let named = [
            ("nop", opcode::Nop::CODE),
            ("accept", opcode::Accept::CODE),
            ("openat", opcode::OpenAt::CODE),
            ("recv", opcode::Recv::CODE),
            ("splice", opcode::Splice::CODE),
            ("mkdirat", opcode::MkDirAt::CODE),
            ("socket", opcode::Socket::CODE),
            ("waitid", opcode::WaitId::CODE),
            ("futex_wait", opcode::FutexWait::CODE),
            ("ftruncate", opcode::Ftruncate::CODE),
            ("listen", opcode::Listen::CODE),
            ("pipe", opcode::Pipe::CODE),
        ];
        for (name, code) in named {
            assert_eq!(OPCODES[usize::from(code)].0, name);
        }
    }
}
