//! What this machine offers, what a runtime makes of it, and what would give more.
#![forbid(unsafe_code)]

use crate::driver::caps::Ring;
use crate::driver::{self, DriverKind, WakeMethod, caps};
use crate::sched::blocking;
use crate::stack::Guarding;
use std::fmt::{self, Display, Formatter};
use std::{fs, io};

/// Finds out what this machine offers to runtimes, as [`RuntimeBuilder::build`] does it, and why
/// not more. For support requests and health checks; the example `doctor` prints it.
///
/// The first call in a process makes experiments, with a ring, a thread and a fiber's stack of its
/// own: a few milliseconds as a rule, half a second for each way of waking that proves not to work.
/// A fiber suspends meanwhile.
///
/// [`RuntimeBuilder::build`]: crate::RuntimeBuilder::build
///
/// # Examples
/// ```
/// let probe = ramie::probe();
/// println!("{probe}");
/// if !probe.has_io_uring() {
///     for line in probe.advice() {
///         eprintln!("to make this faster: {line}");
///     }
/// }
/// ```
pub fn probe() -> Probe {
    blocking(|| Probe {
        system: System::look(),
        mask: caps::check_mask().map(|()| variable("RAMIE_CAPS")).map_err(|e| e.to_string()),
        wanted: driver::environment().map_err(|error| error.to_string()),
        ring: caps::ring(),
        wakes: [WakeMethod::Futex, WakeMethod::MsgRing, WakeMethod::EventFd]
            .into_iter()
            .filter(|&method| caps::wake_method(&[method]).is_ok())
            .collect(),
        guarding: crate::stack::guarding(),
    })
}

/// What [`probe`] has found. Displayed, it is a report of some twenty lines.
#[derive(Debug)]
pub struct Probe {
    system: System,
    /// What capabilities are hidden, or what is wrong with the list of them.
    mask: Result<Option<String>, String>,
    /// The driver that the environment asks for, or what is wrong with it.
    wanted: Result<DriverKind, String>,
    ring: io::Result<Ring>,
    /// The ways of waking that work.
    wakes: Vec<WakeMethod>,
    guarding: io::Result<Guarding>,
}

impl Probe {
    /// Which driver a runtime gets that asks for none; `None` if none can be built, because a
    /// variable in the environment is wrong or asks for what there is not.
    pub fn driver(&self) -> Option<DriverKind> {
        self.mask.as_ref().ok()?;
        match (self.wanted.as_ref().ok()?, self.has_io_uring()) {
            (DriverKind::Poll, _) | (DriverKind::Auto, false) => Some(DriverKind::Poll),
            (_, true) => Some(DriverKind::Uring),
            (DriverKind::Uring, false) => None,
        }
    }

    /// Whether runtimes can use io_uring here.
    pub fn has_io_uring(&self) -> bool {
        self.ring.is_ok() && !self.wakes.is_empty()
    }

    /// Why runtimes cannot use io_uring here, if they cannot, and what to do about it in general;
    /// see also [`advice`](Self::advice).
    pub fn refusal(&self) -> Option<String> {
        self.ring.as_ref().err().map(io::Error::to_string)
    }

    /// How sleeping workers are woken that use io_uring: the first way that works.
    pub fn wake(&self) -> Option<WakeMethod> {
        self.wakes.first().copied()
    }

    /// What to change in order to get more out of this machine, the most important first; a
    /// sentence each. Empty if there is nothing that ramie could use.
    pub fn advice(&self) -> Vec<String> {
        let mut advice = Vec::new();
        match &self.mask {
            Err(error) => advice.push(error.clone()),
            Ok(Some(mask)) => advice.push(format!(
                "unset RAMIE_CAPS: it makes the process do without a part of what the kernel has \
                 ({mask})"
            )),
            Ok(None) => {}
        }
        match &self.wanted {
            Err(error) => advice.push(error.clone()),
            Ok(DriverKind::Poll) if self.has_io_uring() => {
                advice.push("unset RAMIE_DRIVER: io_uring works here, and is faster".into());
            }
            Ok(_) => {}
        }
        match &self.ring {
            Err(error) => advice.push(self.remedy(error)),
            Ok(ring) => {
                let newest = ring.lacks.iter().map(|lack| lack.since).max();
                if let Some((major, minor)) = newest {
                    advice.push(format!(
                        "run on Linux {major}.{minor} or newer for all that ramie can use of \
                         io_uring; the lines marked with - say what each part is for"
                    ));
                }
            }
        }
        if let Ok(Guarding::Mappings) = self.guarding {
            advice.push(format!(
                "raise vm.max_map_count ({} now; sysctl vm.max_map_count=1000000) if you want more \
                 than {} fibers at a time, or run on Linux 6.13 or newer, where a stack's guard \
                 takes no mapping",
                self.system.max_map_count,
                self.system.max_map_count * 15 / 32
            ));
        }
        if self.system.cpus < self.system.online {
            advice.push(format!(
                "raise the CPU quota of the cgroup (cpu.max; --cpus of a container) or widen the \
                 affinity mask, if {} of {} CPUs is not what you want: there is a worker per CPU",
                self.system.cpus, self.system.online
            ));
        }
        if let Some(files) = self.system.files.filter(|&files| files < 4096) {
            advice.push(format!(
                "raise the limit on open files (ulimit -n; {files} now) if you want more \
                 connections: each is a descriptor"
            ));
        }
        advice
    }

    /// What to do about a refused ring, as far as can be told from here.
    fn remedy(&self, error: &io::Error) -> String {
        let system = &self.system;
        match (error.kind(), system.disabled) {
            (io::ErrorKind::PermissionDenied, Some(2)) => {
                "as root, `sysctl kernel.io_uring_disabled=0`: io_uring is switched off for the \
                 whole system (a file in /etc/sysctl.d keeps the setting)"
                    .into()
            }
            (io::ErrorKind::PermissionDenied, Some(1)) => {
                "as root, `sysctl kernel.io_uring_disabled=0`, or put this user into the group \
                 whose number is kernel.io_uring_group: io_uring is kept to privileged processes"
                    .into()
            }
            (io::ErrorKind::PermissionDenied, _) if system.filtered => {
                "let the seccomp filter, under which this process runs, allow io_uring_setup, \
                 io_uring_enter and io_uring_register (in a container: docker run --security-opt \
                 seccomp=PROFILE.json, or a seccompProfile of type Localhost in Kubernetes)"
                    .into()
            }
            (io::ErrorKind::PermissionDenied, _) => {
                "ask the security module of this system (SELinux, AppArmor) to allow io_uring"
                    .into()
            }
            (io::ErrorKind::OutOfMemory, _) => format!(
                "raise the limit on locked memory ({} now; ulimit -l, or LimitMEMLOCK of a systemd \
                 unit)",
                amount(system.locked)
            ),
            (io::ErrorKind::Unsupported, _) if system.filtered => {
                "run on Linux 5.19 or newer, or let the seccomp filter, under which this process \
                 runs, allow io_uring_setup, io_uring_enter and io_uring_register"
                    .into()
            }
            (io::ErrorKind::Unsupported, _) => {
                "run on Linux 5.19 or newer, outside of sandboxes that hide io_uring".into()
            }
            _ => error.to_string(),
        }
    }

    fn chosen(&self) -> &'static str {
        match (&self.wanted, self.driver()) {
            (_, Some(DriverKind::Uring)) => "io_uring",
            (Ok(DriverKind::Poll), Some(_)) => "epoll and threads, since RAMIE_DRIVER says so",
            (_, Some(_)) => "epoll and threads, since there is no io_uring",
            (Ok(DriverKind::Uring), None) if self.mask.is_ok() => {
                "none: RAMIE_DRIVER insists on io_uring"
            }
            (_, None) => "none: a variable in the environment is wrong",
        }
    }
}

impl Display for Probe {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let system = &self.system;
        writeln!(f, "machine       Linux {}, {}", system.release, std::env::consts::ARCH)?;
        let less =
            if system.cpus < system.online { " (affinity, or a cgroup's quota)" } else { "" };
        writeln!(f, "CPUs          {} of {}{less}", system.cpus, system.online)?;
        writeln!(
            f,
            "limits        locked memory {}, open files {}, mappings {}",
            amount(system.locked),
            system.files.map_or("unlimited".into(), |files| files.to_string()),
            system.max_map_count
        )?;
        if let Some(disabled) = system.disabled {
            writeln!(f, "sysctl        kernel.io_uring_disabled = {disabled}")?;
        }
        let filter = if system.filtered { "a filter is in force" } else { "no filter" };
        writeln!(f, "seccomp       {filter}")?;
        if let Ok(Some(mask)) = &self.mask {
            writeln!(f, "RAMIE_CAPS    {mask}")?;
        }
        writeln!(f)?;
        writeln!(f, "driver        {}", self.chosen())?;
        match &self.ring {
            Ok(ring) => {
                writeln!(f, "io_uring      {}", ring.flags.join(", "))?;
                for lack in &ring.lacks {
                    let (major, minor) = lack.since;
                    let (what, instead) = (lack.what, lack.instead);
                    writeln!(f, "  - {what} (Linux {major}.{minor}): {instead}")?;
                }
            }
            Err(error) => {
                write!(f, "io_uring      ")?;
                broken(f, &error.to_string(), 14)?;
                writeln!(f)?;
            }
        }
        match self.wakes.as_slice() {
            [] => {}
            [first, rest @ ..] => {
                write!(f, "wake-ups      by {}", way(*first))?;
                if !rest.is_empty() {
                    let ways: Vec<&str> = rest.iter().map(|&method| way(method)).collect();
                    write!(f, " (also possible: {})", ways.join(", "))?;
                }
                writeln!(f)?;
            }
        }
        match &self.guarding {
            Ok(Guarding::Batches) => writeln!(f, "guards        page markers, in batches")?,
            Ok(Guarding::Markers) => writeln!(f, "guards        page markers, one by one")?,
            Ok(Guarding::Mappings) => {
                let most = system.max_map_count * 15 / 32;
                writeln!(f, "guards        mprotect: up to {most} fibers")?;
            }
            Err(error) => writeln!(f, "guards        none: {error}")?,
        }
        let advice = self.advice();
        if advice.is_empty() {
            return write!(f, "\nThere is nothing more that ramie could use.");
        }
        write!(f, "\nTo get more:")?;
        for line in advice {
            write!(f, "\n  * ")?;
            broken(f, &format!("{line}."), 4)?;
        }
        Ok(())
    }
}

/// Writes a text in lines of some width, all but the first of them indented.
fn broken(f: &mut Formatter<'_>, text: &str, indent: usize) -> fmt::Result {
    const WIDTH: usize = 96;
    let mut column = indent;
    for (place, word) in text.split(' ').enumerate() {
        let len = word.chars().count();
        if place != 0 && column + 1 + len > WIDTH {
            write!(f, "\n{:indent$}", "")?;
            column = indent;
        } else if place != 0 {
            write!(f, " ")?;
            column += 1;
        }
        write!(f, "{word}")?;
        column += len;
    }
    Ok(())
}

fn way(method: WakeMethod) -> &'static str {
    match method {
        WakeMethod::Futex => "a futex in the ring",
        WakeMethod::MsgRing => "messages to the ring",
        WakeMethod::EventFd => "an eventfd",
    }
}

fn amount(bytes: Option<u64>) -> String {
    match bytes {
        None => "unlimited".into(),
        Some(bytes) if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        Some(bytes) => format!("{} KiB", bytes >> 10),
    }
}

fn variable(name: &str) -> Option<String> {
    let value = std::env::var_os(name)?.to_string_lossy().into_owned();
    (!value.is_empty()).then_some(value)
}

/// What `/proc` and `/sys` say. What cannot be read is left out.
#[derive(Clone, Debug, Default)]
struct System {
    release: String,
    /// CPUs that the process may use, and those that there are.
    cpus: usize,
    online: usize,
    /// `RLIMIT_MEMLOCK` in bytes and `RLIMIT_NOFILE`; `None` is unlimited.
    locked: Option<u64>,
    files: Option<u64>,
    max_map_count: u64,
    /// `kernel.io_uring_disabled`, since Linux 6.6.
    disabled: Option<u32>,
    /// A seccomp filter is in force.
    filtered: bool,
}

impl System {
    fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (limits, status) = (read("/proc/self/limits"), read("/proc/self/status"));
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let online = count_of_list(read("/sys/devices/system/cpu/online").trim());
        Self {
            release: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpus,
            online: online.unwrap_or(cpus),
            locked: limit(&limits, "Max locked memory"),
            files: limit(&limits, "Max open files"),
            max_map_count: read("/proc/sys/vm/max_map_count").trim().parse().unwrap_or(65_530),
            disabled: read("/proc/sys/kernel/io_uring_disabled").trim().parse().ok(),
            filtered: status.lines().any(|line| line.trim_end() == "Seccomp:\t2"),
        }
    }
}

/// The soft limit that a line of `/proc/self/limits` names.
fn limit(limits: &str, name: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// How many numbers a list such as `0-3,8` has.
fn count_of_list(list: &str) -> Option<usize> {
    list.split(',').try_fold(0, |sum, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        Some(sum + last.checked_sub(first)? + 1)
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_kernel_are_read() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max open files            1024                 524288               files\n\
                      Max locked memory         unlimited            unlimited            bytes\n";
        assert_eq!(limit(limits, "Max open files"), Some(1024));
        assert_eq!(limit(limits, "Max locked memory"), None);
        assert_eq!(count_of_list("0"), Some(1));
        assert_eq!(count_of_list("0-3,8,10-11"), Some(7));
        assert_eq!(count_of_list(""), None);
        assert_eq!(
            (amount(Some(65_536)), amount(Some(8 << 20))),
            ("64 KiB".into(), "8 MiB".into())
        );
    }

    fn refused(errno: i32, system: System) -> Probe {
        Probe {
            system,
            mask: Ok(None),
            wanted: Ok(DriverKind::Auto),
            ring: Err(io::Error::from_raw_os_error(errno)),
            wakes: Vec::new(),
            guarding: Ok(Guarding::Batches),
        }
    }

    #[test]
    fn each_refusal_has_its_remedy() {
        let system = System { cpus: 2, online: 2, max_map_count: 65_530, ..System::default() };
        let filtered = System { filtered: true, ..system.clone() };
        let cases = [
            (libc::EPERM, System { disabled: Some(2), ..system.clone() }, "io_uring_disabled=0"),
            (libc::EPERM, System { disabled: Some(1), ..system.clone() }, "io_uring_group"),
            (libc::EPERM, System { disabled: Some(0), ..filtered.clone() }, "--security-opt"),
            (libc::EPERM, system.clone(), "SELinux"),
            (libc::ENOSYS, filtered, "seccomp"),
            (libc::ENOSYS, system.clone(), "Linux 5.19"),
            (libc::ENOMEM, System { locked: Some(65_536), ..system.clone() }, "64 KiB now"),
        ];
        for (errno, system, remedy) in cases {
            let probe = refused(errno, system);
            let advice = probe.advice();
            assert_eq!(advice.len(), 1, "{advice:?}");
            assert!(advice[0].contains(remedy), "{advice:?}");
            assert!(!probe.has_io_uring() && probe.refusal().is_some());
            assert_eq!(probe.driver(), Some(DriverKind::Poll));
            let report = probe.to_string();
            assert!(report.contains("epoll and threads, since there is no io_uring"), "{report}");
            assert!(report.replace("\n    ", " ").contains(remedy), "{report}");
        }
    }

    #[test]
    fn little_is_said_where_all_is_well() {
        let mut probe = refused(0, System { cpus: 4, online: 4, ..System::default() });
        probe.ring = Ok(Ring { flags: vec!["SUBMIT_ALL"], lacks: Vec::new() });
        probe.wakes = vec![WakeMethod::Futex];
        assert!(probe.has_io_uring() && probe.advice().is_empty());
        assert!(probe.to_string().ends_with("nothing more that ramie could use."));
        assert_eq!(probe.driver(), Some(DriverKind::Uring));
        probe.wanted = Ok(DriverKind::Poll);
        assert_eq!(probe.driver(), Some(DriverKind::Poll));
        probe.system.cpus = 1;
        probe.guarding = Ok(Guarding::Mappings);
        probe.mask = Ok(Some("-futex".into()));
        let advice = probe.advice().join("\n");
        for text in ["RAMIE_CAPS", "unset RAMIE_DRIVER", "vm.max_map_count", "1 of 4 CPUs"] {
            assert!(advice.contains(text), "{advice}");
        }
    }
}
