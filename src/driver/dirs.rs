//! Directories in memory, in which a worker creates files itself.
//!
//! A ring leaves whatever may create a file to a thread of the kernel, which costs as much as to
//! create a file in memory. There a create has nothing to wait for; but which directories are in
//! memory cannot be asked cheaply for each of them. So it is remembered, by the paths of
//! directories. A file that was created by somebody else, a ring or a thread, is asked whether it
//! is in memory (`file::is_memory`), and the next one beside it is created on the spot. A directory
//! of which nothing is known is asked, without waiting, for its device, which may be that of such a
//! file.
//!
//! Each new file is asked, too. So what is remembered and wrong (something was mounted there, the
//! working directory has changed, two paths have one hash) is forgotten at its first use, and has
//! cost one create that may have waited.
//!
//! On the spot only a new file is created, on a path without symbolic links. Then the kernel knows
//! by heart all that lies on the way, because it is kept for the mount at its end; only where a
//! server has it, the server may be asked whether it is still there. Whatever else there is, the
//! call fails and the op goes the usual way, whose answer counts: files that are there (to shorten
//! a long one takes its time), FIFOs, links. So does all where the kernel has no `openat2`.
#![forbid(unsafe_code)]

use crate::sys::{file, path};
use std::cell::Cell;
use std::ffi::CStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::BorrowedFd;

/// So many directories are remembered, at most.
const SLOTS: usize = 64;
/// And so many devices.
const DEVICES: usize = 4;
/// Directories with longer paths are not asked.
const MAX_PATH: usize = 256;
/// As in `lower.rs`.
const MAX_REFUSALS: u32 = 5;
/// What may be asked for on the spot, besides that the file be new.
const SIMPLE: i32 = libc::O_ACCMODE
    | libc::O_APPEND
    | libc::O_CLOEXEC
    | libc::O_CREAT
    | libc::O_EXCL
    | libc::O_TRUNC;

/// A directory.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Of its path; 0 stands for none.
    hash: u64,
    memory: bool,
    /// Creates in a row that failed, and how many to leave out because of them.
    refusals: u32,
    skip: u32,
}

/// See the module's head.
#[derive(Debug)]
pub(super) struct Dirs {
    known: [Cell<Known>; SLOTS],
    /// Of what is in memory, the one learnt last in front; 0 stands for none.
    devices: Cell<[u64; DEVICES]>,
    enabled: bool,
}

/// A directory, named by the path of a file in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place(u64);

/// What comes before the name of a file in its path.
fn dir_of(path: &CStr) -> &[u8] {
    let path = path.to_bytes();
    &path[..path.iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1)]
}

impl Place {
    fn of(path: &CStr) -> Self {
        let mut hasher = DefaultHasher::new();
        dir_of(path).hash(&mut hasher);
        Self(hasher.finish().max(1))
    }
}

impl Dirs {
    pub(super) fn new(enabled: bool) -> Self {
        Self {
            known: [const { Cell::new(Known { hash: 0, memory: false, refusals: 0, skip: 0 }) };
                SLOTS],
            devices: Cell::new([0; DEVICES]),
            enabled,
        }
    }

    fn slot(&self, place: Place) -> &Cell<Known> {
        &self.known[place.0 as usize % SLOTS]
    }

    /// Where a file would be created on the spot; `None` if it would not.
    pub(super) fn place(&self, path: &CStr, flags: i32) -> Option<Place> {
        if !self.enabled || flags & libc::O_CREAT == 0 || flags & !SIMPLE != 0 {
            return None;
        }
        let place = Place::of(path);
        let slot = self.slot(place);
        let mut known = slot.get();
        if known.hash != place.0 {
            known = Known { hash: place.0, memory: self.ask(path)?, ..Known::default() };
            slot.set(known);
        }
        let skips = known.skip != 0;
        if skips {
            known.skip -= 1;
            slot.set(known);
        }
        (known.memory && !skips).then_some(place)
    }

    /// Whether a directory of which nothing is known is on a device in memory; `None` if there is
    /// nothing to compare it with.
    #[cold]
    fn ask(&self, path: &CStr) -> Option<bool> {
        let devices = self.devices.get();
        if devices[0] == 0 {
            return None;
        }
        let mut buf = [0; MAX_PATH];
        let dir = match dir_of(path) {
            [] => c".",
            dir => {
                buf.get_mut(..dir.len())?.copy_from_slice(dir);
                CStr::from_bytes_until_nul(&buf).ok()?
            }
        };
        Some(path::device(dir).is_some_and(|device| devices.contains(&device)))
    }

    /// Creates a file there. The result is a descriptor that the caller owns, and has to `learn`
    /// from, or whatever negative number.
    pub(super) fn create(&self, place: Place, path: &CStr, flags: i32, mode: u32) -> i32 {
        let result = path::create_new(path, flags, mode);
        let slot = self.slot(place);
        let mut known = slot.get();
        known.refusals = if result < 0 { (known.refusals + 1).min(MAX_REFUSALS) } else { 0 };
        known.skip = (1 << known.refusals) - 1;
        slot.set(known);
        result
    }

    /// Learns from a file that was created at this path; whether it is in memory.
    pub(super) fn learn(&self, path: &CStr, fd: BorrowedFd<'_>) -> bool {
        let memory = file::is_memory(fd);
        if self.enabled {
            let place = Place::of(path);
            let slot = self.slot(place);
            let known = slot.get();
            if known.hash != place.0 || known.memory != memory {
                slot.set(Known { hash: place.0, memory, ..Known::default() });
                self.learn_device(fd, memory);
            }
        }
        memory
    }

    #[cold]
    fn learn_device(&self, fd: BorrowedFd<'_>, memory: bool) {
        let Some(file::What { identity: (device, _), .. }) = file::what(fd) else { return };
        let mut devices = self.devices.get();
        let place = devices.iter().position(|known| *known == device);
        match (place, memory) {
            (Some(place), false) => devices[place..].rotate_left(1), // and out it goes, below
            (None, true) => devices.rotate_right(1),
            _ => return,
        }
        devices[if memory { 0 } else { DEVICES - 1 }] = if memory { device } else { 0 };
        self.devices.set(devices);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::sync::atomic::{AtomicU32, Ordering};

    const NEW: i32 = libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC | libc::O_CLOEXEC;

    /// A file in memory, and one that is not.
    fn files() -> Option<(File, File)> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = format!("/dev/shm/ramie-dirs-{}-{number}", std::process::id());
        let memory = File::create_new(&path).ok()?;
        std::fs::remove_file(&path).unwrap();
        Some((memory, File::open("/proc/self/status").unwrap()))
    }

    #[test]
    fn directories_are_told_apart_by_their_paths() {
        let Some((memory, disk)) = files() else { return };
        let dirs = Dirs::new(true);
        let knows = |path| dirs.place(path, NEW).is_some();
        assert!(!knows(c"/a/b/file"));
        assert!(!dirs.learn(c"/a/b/file", disk.as_fd()));
        assert!(!knows(c"/a/b/file"));
        assert!(dirs.learn(c"/a/b/file", memory.as_fd()));
        assert!(knows(c"/a/b/another"));
        assert!(!knows(c"/a/b") && !knows(c"/a/b/c/file") && !knows(c"file"));
        dirs.learn(c"/a/b/another", disk.as_fd());
        assert!(!knows(c"/a/b/file"));
        dirs.learn(c"file", memory.as_fd());
        assert!(knows(c"another"));
    }

    #[test]
    fn a_device_in_memory_has_all_its_directories_there() {
        let Some((memory, disk)) = files() else { return };
        let dirs = Dirs::new(true);
        let device = |fd: &File| file::what(fd.as_fd()).unwrap().identity.0;
        let expected = |first: &File| [device(first), 0, 0, 0];
        dirs.learn(c"/a/file", disk.as_fd());
        assert_eq!(dirs.devices.get(), [0; 4]);
        for path in [c"/a/file", c"/b/file"] {
            dirs.learn(path, memory.as_fd());
            assert_eq!(dirs.devices.get(), expected(&memory));
        }
        // As if the disk's device had been that of something in memory.
        dirs.devices.set([device(&memory), device(&disk), 7, 8]);
        assert_eq!(dirs.ask(c"/proc/self/file"), Some(false));
        dirs.learn(c"/a/file", disk.as_fd());
        assert_eq!(dirs.devices.get(), [device(&memory), 7, 8, 0]);
    }

    #[test]
    fn only_plain_creates_are_done_on_the_spot() {
        let Some((memory, _)) = files() else { return };
        let dirs = Dirs::new(true);
        dirs.learn(c"/a/file", memory.as_fd());
        let refused = [
            NEW & !libc::O_CREAT,
            NEW | libc::O_DIRECT,
            NEW | libc::O_NONBLOCK,
            NEW | libc::O_PATH,
            NEW | libc::O_SYNC,
            libc::O_RDWR | libc::O_TMPFILE,
        ];
        for flags in refused {
            assert!(dirs.place(c"/a/file", flags).is_none(), "{flags:o}");
        }
        assert!(dirs.place(c"/a/file", NEW | libc::O_EXCL | libc::O_APPEND).is_some());
        let off = Dirs::new(false);
        off.learn(c"/a/file", memory.as_fd());
        assert!(off.place(c"/a/file", NEW).is_none());
    }

    #[test]
    fn refusals_make_it_rare_and_a_success_frequent() {
        let Some((memory, _)) = files() else { return };
        let dirs = Dirs::new(true);
        let path = c"/nothing/like/this/file";
        dirs.learn(path, memory.as_fd());
        let mut skipped = Vec::new();
        for _ in 0..7 {
            let mut count = 0;
            let place = loop {
                match dirs.place(path, NEW) {
                    Some(place) => break place,
                    None => count += 1,
                }
            };
            skipped.push(count);
            assert!(dirs.create(place, path, NEW, 0o600) < 0);
        }
        assert_eq!(skipped, [0, 1, 3, 7, 15, 31, 31]);
    }
}
