//! What this machine offers, what a runtime makes of it, and what would give more.
#![forbid(unsafe_code)]

use crate::driver::caps::Ring;
use crate::driver::refusal::Refusal;
use crate::driver::{self, DriverKind, WakeMethod, caps};
use crate::sched::blocking;
use crate::stack::Guarding;
use crate::sys::system::{System, amount};
use std::fmt::{self, Display, Formatter};
use std::io;

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

/// A ring that is none for us.
const DEAF: &str = "a worker that waits in an io_uring cannot be woken here";

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

    /// Why runtimes cannot use io_uring here, if they cannot, and what to do about it.
    pub fn refusal(&self) -> Option<String> {
        match &self.ring {
            Ok(_) if self.wakes.is_empty() => Some(DEAF.into()),
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        }
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
                "unset RAMIE_CAPS ({mask}): it makes the process do without a part of what the \
                 kernel has, and the rest of this report speaks as if it had not"
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
            Err(error) => advice.push(Self::why(error).1),
            Ok(_) if self.wakes.is_empty() => {
                advice.push(format!("run outside of this sandbox, or on another kernel: {DEAF}"));
            }
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
        if let Ok(Guarding::Markers) = self.guarding {
            advice.push(
                "run on Linux 6.13 or newer, where no filter refuses process_madvise: it guards \
                 many new stacks by one call"
                    .into(),
            );
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

    /// Why there is no ring, and what to do about it.
    fn why(error: &io::Error) -> (String, String) {
        match Refusal::of(error) {
            Some(refusal) => (refusal.cause.clone(), refusal.remedy.clone()),
            None => (error.to_string(), format!("try again; to make a ring failed: {error}")),
        }
    }

    fn fmt_wakes(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let ways: Vec<&str> = self.wakes.iter().map(|method| method.words()).collect();
        match (self.driver(), ways.as_slice()) {
            (Some(DriverKind::Poll), []) => writeln!(f, "wake-ups      by an eventfd"),
            (Some(DriverKind::Poll), ways) => {
                let ways = ways.join(", ");
                writeln!(f, "wake-ups      by an eventfd (with io_uring: {ways})")
            }
            (_, []) => Ok(()),
            (_, [first]) => writeln!(f, "wake-ups      by {first}"),
            (_, [first, rest @ ..]) => {
                let rest = rest.join(", ");
                writeln!(f, "wake-ups      by {first} (also possible: {rest})")
            }
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
        if self.driver() == Some(DriverKind::Poll) {
            writeln!(
                f,
                "  - opening files, writing them, reading what is not cached: a thread of the \
                 blocking pool"
            )?;
            writeln!(f, "  - accepting from a listener in blocking mode: a thread for it")?;
        }
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
                broken(f, &Self::why(error).0, 14)?;
                writeln!(f)?;
            }
        }
        self.fmt_wakes(f)?;
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

fn variable(name: &str) -> Option<String> {
    let value = std::env::var_os(name)?.to_string_lossy().into_owned();
    (!value.is_empty()).then_some(value)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn machine(ring: io::Result<Ring>) -> Probe {
        Probe {
            system: System { cpus: 4, online: 4, ..System::default() },
            mask: Ok(None),
            wanted: Ok(DriverKind::Auto),
            ring,
            wakes: Vec::new(),
            guarding: Ok(Guarding::Batches),
        }
    }

    #[test]
    fn a_refusal_is_told_once_and_its_remedy_too() {
        let (cause, remedy) = ("it is refused".to_owned(), "ask for it".to_owned());
        let refusal = Refusal { cause, remedy };
        let probe = machine(Err(io::Error::new(io::ErrorKind::PermissionDenied, refusal)));
        assert_eq!(probe.advice(), ["ask for it"]);
        assert_eq!(probe.refusal().as_deref(), Some("it is refused: ask for it"));
        assert_eq!((probe.has_io_uring(), probe.driver()), (false, Some(DriverKind::Poll)));
        let report = probe.to_string();
        for line in [
            "driver        epoll and threads, since there is no io_uring",
            "io_uring      it is refused",
            "wake-ups      by an eventfd",
            "  * ask for it.",
        ] {
            assert_eq!(report.lines().filter(|found| *found == line).count(), 1, "{report}");
        }
    }

    #[test]
    fn a_ring_that_cannot_be_woken_is_none() {
        let probe = machine(Ok(Ring { flags: vec!["SUBMIT_ALL"], lacks: Vec::new() }));
        assert!(!probe.has_io_uring() && probe.refusal().is_some());
        assert_eq!(probe.driver(), Some(DriverKind::Poll));
        assert!(probe.advice()[0].contains("cannot be woken"), "{probe}");
    }

    #[test]
    fn little_is_said_where_all_is_well() {
        let mut probe = machine(Ok(Ring { flags: vec!["SUBMIT_ALL"], lacks: Vec::new() }));
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
