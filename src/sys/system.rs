//! What `/proc` and `/sys` say of the machine, and of this process's limits.
#![forbid(unsafe_code)]

use std::fs;

/// What cannot be read is left out.
#[derive(Clone, Debug, Default)]
pub(crate) struct System {
    pub(crate) release: String,
    /// CPUs that the process may use, and those that there are.
    pub(crate) cpus: usize,
    pub(crate) online: usize,
    /// `RLIMIT_MEMLOCK` in bytes and `RLIMIT_NOFILE`; `None` is unlimited.
    pub(crate) locked: Option<u64>,
    pub(crate) files: Option<u64>,
    pub(crate) max_map_count: u64,
    /// `kernel.io_uring_disabled`, since Linux 6.6.
    pub(crate) disabled: Option<u32>,
    /// A seccomp filter is in force.
    pub(crate) filtered: bool,
}

impl System {
    pub(crate) fn look() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let limits = read("/proc/self/limits");
        // The thread's own: others may be without a filter that it has.
        let mut status = read("/proc/thread-self/status");
        if status.is_empty() {
            status = read("/proc/self/status");
        }
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

    /// Whether the kernel calls itself as new as that. For advice only: what it offers is asked
    /// for.
    pub(crate) fn is_at_least(&self, major: u32, minor: u32) -> bool {
        let mut numbers = self.release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(first)), Some(Ok(second))) => (first, second) >= (major, minor),
            _ => false,
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

/// An amount of bytes, for people.
pub(crate) fn amount(bytes: Option<u64>) -> String {
    match bytes {
        None => "unlimited".into(),
        Some(bytes) if bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        Some(bytes) => format!("{} KiB", bytes >> 10),
    }
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

    #[test]
    fn releases_are_compared() {
        for (release, newer) in [
            ("5.19.0", true),
            ("5.18.17-generic", false),
            ("6.1.0-56-cloud-amd64", true),
            ("4.4.0", false),
            ("10.0", true),
            ("7", false),
            ("", false),
        ] {
            let system = System { release: release.into(), ..System::default() };
            assert_eq!(system.is_at_least(5, 19), newer, "{release}");
        }
    }
}
