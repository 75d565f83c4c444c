//! Why there is no ring here, and what would bring one.
#![forbid(unsafe_code)]

use crate::sys::mask;
use crate::sys::system::{System, amount};
use std::fmt::{self, Display, Formatter};
use std::io::{self, ErrorKind};

/// What an error of a ring's creation carries.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) cause: String,
    /// What to do about it.
    pub(crate) remedy: String,
}

impl Display for Refusal {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.cause, self.remedy)
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    /// Of an error, if it is one of these.
    pub(crate) fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// For an error of the kernel's.
    fn explain(error: &io::Error, system: &System) -> Self {
        let what = match error.raw_os_error() {
            Some(libc::EPERM | libc::EACCES) => "io_uring is refused here",
            Some(libc::ENOSYS | libc::EOPNOTSUPP) => "there is no io_uring here",
            Some(libc::ENOMEM) => "there is not enough memory for an io_uring",
            Some(libc::EMFILE | libc::ENFILE) => "there are too many open files for an io_uring",
            _ => "no io_uring can be made",
        };
        Self { cause: format!("{what} ({error})"), remedy: remedy(error.kind(), error, system) }
    }
}

/// Adds to an error of the kernel's what to do about it.
#[cold]
pub(super) fn explain(error: &io::Error) -> io::Error {
    refuse(error.kind(), Refusal::explain(error, &look()))
}

/// For a ring that lacks something.
#[cold]
pub(super) fn too_little(missing: &[&str]) -> io::Error {
    let cause = format!(
        "the io_uring here is too old (Linux 5.19 or newer is needed), or a sandbox offers a part \
         of it only; it lacks {}",
        missing.join(", ")
    );
    let unsupported = ErrorKind::Unsupported;
    let remedy = remedy(unsupported, &unsupported.into(), &look());
    refuse(unsupported, Refusal { cause, remedy })
}

fn refuse(kind: ErrorKind, mut refusal: Refusal) -> io::Error {
    if mask::hides_anything() {
        refusal.cause.insert_str(0, "as RAMIE_CAPS wants it, ");
    }
    io::Error::new(kind, refusal)
}

/// The system; of no release if the process is made to do without what its kernel has.
fn look() -> System {
    let mut system = System::look();
    if mask::hides_anything() {
        system.release.clear();
    }
    system
}

fn remedy(kind: ErrorKind, error: &io::Error, system: &System) -> String {
    let new = system.is_at_least(5, 19);
    match (kind, system.disabled) {
        (ErrorKind::PermissionDenied, Some(2)) => {
            "as root, `sysctl kernel.io_uring_disabled=0`: io_uring is switched off for the whole \
             system (a file in /etc/sysctl.d keeps the setting)"
                .into()
        }
        (ErrorKind::PermissionDenied, Some(1)) => {
            "as root, `sysctl kernel.io_uring_disabled=0`, or put this user into the group whose \
             number is kernel.io_uring_group: io_uring is kept to privileged processes"
                .into()
        }
        (ErrorKind::PermissionDenied, _) if system.filtered => {
            "let the seccomp filter, under which this process runs, allow io_uring_setup, \
             io_uring_enter and io_uring_register (in a container: docker run --security-opt \
             seccomp=PROFILE.json, or a seccompProfile of type Localhost in Kubernetes)"
                .into()
        }
        (ErrorKind::PermissionDenied, _) => {
            "ask the security module of this system (SELinux, AppArmor) to allow io_uring".into()
        }
        (ErrorKind::OutOfMemory, _) => format!(
            "raise the limit on locked memory ({} now; ulimit -l, or LimitMEMLOCK of a systemd \
             unit), or that of the memory cgroup, or ask for fewer ring_entries",
            amount(system.locked)
        ),
        (ErrorKind::Unsupported, _) if system.filtered && new => {
            "let the seccomp filter, under which this process runs, allow io_uring_setup, \
             io_uring_enter and io_uring_register"
                .into()
        }
        (ErrorKind::Unsupported, _) if system.filtered => {
            "run on Linux 5.19 or newer, or let the seccomp filter, under which this process runs, \
             allow io_uring_setup, io_uring_enter and io_uring_register"
                .into()
        }
        (ErrorKind::Unsupported, _) if new => {
            "run on a kernel that was built with io_uring (CONFIG_IO_URING), outside of sandboxes \
             that hide it"
                .into()
        }
        (ErrorKind::Unsupported, _) => {
            "run on Linux 5.19 or newer, outside of sandboxes that hide io_uring".into()
        }
        _ if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
            "raise the limit on open files (ulimit -n)".into()
        }
        _ => "io_uring_setup(2) says when the kernel answers so".into(),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_remedy() {
        let system = System { release: "6.12.3".into(), disabled: Some(0), ..System::default() };
        let old = System { release: "5.10.0".into(), disabled: None, ..System::default() };
        let filtered = System { filtered: true, ..system.clone() };
        let filtered_old = System { filtered: true, ..old.clone() };
        let cases = [
            (libc::EPERM, System { disabled: Some(2), ..system.clone() }, "io_uring_disabled=0"),
            (libc::EPERM, System { disabled: Some(1), ..system.clone() }, "io_uring_group"),
            (libc::EPERM, filtered.clone(), "--security-opt"),
            (libc::EPERM, system.clone(), "SELinux"),
            (libc::ENOSYS, filtered, "let the seccomp"),
            (libc::ENOSYS, filtered_old, "run on Linux 5.19 or newer, or let the seccomp"),
            (libc::ENOSYS, old, "run on Linux 5.19"),
            (libc::ENOSYS, system.clone(), "CONFIG_IO_URING"),
            (libc::ENOMEM, System { locked: Some(65_536), ..system.clone() }, "64 KiB now"),
            (libc::EMFILE, system.clone(), "ulimit -n"),
            (libc::EIO, system, "io_uring_setup(2)"),
        ];
        for (errno, system, remedy) in cases {
            let error = io::Error::from_raw_os_error(errno);
            let refusal = Refusal::explain(&error, &system);
            assert!(refusal.remedy.contains(remedy), "{refusal}");
            assert!(refusal.cause.contains(&error.to_string()), "{refusal}");
        }
    }

    #[test]
    fn it_is_found_in_the_error() {
        let error = explain(&io::Error::from_raw_os_error(libc::EPERM));
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        let refusal = Refusal::of(&error).expect("one of ours");
        assert_eq!(error.to_string(), format!("{}: {}", refusal.cause, refusal.remedy));
        assert!(Refusal::of(&too_little(&["recv"])).is_some_and(|it| it.cause.contains("recv")));
        assert!(Refusal::of(&io::Error::from_raw_os_error(libc::EPERM)).is_none());
    }
}
