//! Closing a descriptor that nobody waits for.
//!
//! It is closed on return, unless its file system has somebody to ask at a close, as NFS has: then
//! a thread does it. Which file systems have nobody to ask is a list, and which one a file is of is
//! looked up in the table of mounts, since questions to the file itself would go to the same
//! server.
#![forbid(unsafe_code)]

use crate::sys::file;
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// File systems without a server.
const LOCAL: &[&str] = &[
    "ext2",
    "ext3",
    "ext4",
    "xfs",
    "btrfs",
    "f2fs",
    "bcachefs",
    "zfs",
    "jfs",
    "reiserfs",
    "nilfs2",
    "tmpfs",
    "ramfs",
    "devtmpfs",
    "devpts",
    "hugetlbfs",
    "rootfs",
    "overlay",
    "squashfs",
    "erofs",
    "iso9660",
    "udf",
    "vfat",
    "msdos",
    "exfat",
    "ntfs3",
    "proc",
    "sysfs",
    "cgroup",
    "cgroup2",
    "debugfs",
    "tracefs",
    "securityfs",
    "configfs",
    "mqueue",
    "bpf",
    "pstore",
    "binfmt_misc",
    "efivarfs",
];

/// Threads that close, at most.
const MOST: usize = 16;
/// Mounts remembered, at most.
const MOUNTS: usize = 1024;

/// See the module's head. Returns whether the descriptor is closed now.
pub(super) fn close(fd: OwnedFd) -> bool {
    let at_once = closes_at_once(&fd);
    if at_once {
        drop(fd);
    } else {
        close_on_thread(fd);
    }
    at_once
}

fn closes_at_once(fd: &OwnedFd) -> bool {
    let Some(what) = file::what(fd.as_fd()) else { return true };
    !what.stored || file::is_memory(fd.as_fd()) || is_local(what)
}

/// Whether the file system that a file is of has nobody to ask.
fn is_local(what: file::What) -> bool {
    /// By mount and device: a mount's number may be used again.
    type Known = HashMap<(Option<u64>, u64), bool>;
    static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(Mutex::default);
    let key = (what.mount, what.identity.0);
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(local) = known.get(&key) {
        return *local;
    }
    // The kernel writes the table; nothing is asked for that waits. Threads may differ in it.
    let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap_or_default();
    let local = file_system(&table, what).is_some_and(|name| LOCAL.contains(&name));
    if known.len() >= MOUNTS {
        known.clear();
    }
    known.insert(key, local);
    local
}

/// The name of the file system, from a table of mounts.
fn file_system(table: &str, what: file::What) -> Option<&str> {
    let device = format!("{}:{}", what.identity.0 >> 32, what.identity.0 & 0xffff_ffff);
    let matches = |line: &&str| {
        let mut fields = line.split(' ');
        let (mount, _parent, dev) = (fields.next(), fields.next(), fields.next());
        match what.mount {
            Some(id) => mount.and_then(|field| field.parse().ok()) == Some(id),
            None => dev == Some(&device),
        }
    };
    let line = table.lines().find(matches)?;
    // After the optional fields, whose number varies.
    line.split_once(" - ")?.1.split(' ').next()
}

struct Queue {
    fds: VecDeque<OwnedFd>,
    /// They end when there is nothing left to close.
    threads: usize,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue { fds: VecDeque::new(), threads: 0 });
static DONE: Condvar = Condvar::new();

fn queue() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn close_on_thread(fd: OwnedFd) {
    let mut queue_now = queue();
    queue_now.fds.push_back(fd);
    if queue_now.threads >= MOST {
        return;
    }
    queue_now.threads += 1;
    drop(queue_now);
    if thread::Builder::new().name("ramie-close".into()).spawn(work).is_err() {
        // No thread is to be had: better slowly than never.
        work();
    }
}

/// Waits until nothing is left to close, but not for ever.
pub(super) fn finish(patience: Duration) {
    let closing = |queue: &mut Queue| queue.threads != 0;
    drop(DONE.wait_timeout_while(queue(), patience, closing));
}

/// Closes what is queued.
fn work() {
    loop {
        let mut queue_now = queue();
        let Some(fd) = queue_now.fds.pop_front() else {
            queue_now.threads -= 1;
            if queue_now.threads == 0 {
                DONE.notify_all();
            }
            return;
        };
        drop(queue_now);
        drop(fd);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, pipe};

    #[test]
    fn what_is_not_stored_is_closed_at_once() {
        let (mut reader, writer) = pipe().unwrap();
        assert!(closes_at_once(&writer.try_clone().unwrap().into()));
        close(writer.into());
        assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn the_kernel_s_own_files_are_local() {
        let fd = OwnedFd::from(File::open("/proc/self/status").unwrap());
        assert!(closes_at_once(&fd));
    }

    #[test]
    fn mounts_are_found() {
        let table = "21 1 8:1 / / rw,noatime shared:1 master:2 - ext4 /dev/sda1 rw\n\
                     36 21 0:42 / /mnt rw - nfs4 server:/ rw\n";
        let what = |mount, device| {
            let identity = (device, 7);
            file::What { stored: true, identity, ambiguous: false, mount }
        };
        assert_eq!(file_system(table, what(Some(21), 0)), Some("ext4"));
        assert_eq!(file_system(table, what(None, 42)), Some("nfs4"));
        assert_eq!(file_system(table, what(None, 8 << 32 | 1)), Some("ext4"));
        assert_eq!(file_system(table, what(Some(3), 42)), None);
    }

    #[test]
    fn a_thread_closes() {
        for _ in 0..100 {
            let (mut reader, writer) = pipe().unwrap();
            close_on_thread(writer.into());
            assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0);
        }
        finish(Duration::from_secs(20));
        assert!(queue().fds.is_empty());
    }
}
