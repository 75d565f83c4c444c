//! Files that are created on the spot, in directories in memory: nobody can tell.

mod common;

use std::cell::Cell;
use std::ffi::CString;
use std::io::{Read, Seek, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::rc::Rc;

use common::{TempDir, fds, isolated, runtime, seen, watch};

/// A file of each way to create one, beside what can be in the way.
macro_rules! creates {
    ($fs:ident, $dir:expr) => {{
        let dir: &Path = $dir;
        let at = |name: &str| dir.join(name);
        let mut outcomes = Vec::new();
        std::fs::write(at("there"), "what was there before").unwrap();
        std::fs::create_dir(at("directory")).unwrap();
        symlink("nothing", at("dangling")).unwrap();
        symlink("there", at("link")).unwrap();
        symlink("directory", at("linked")).unwrap();
        // What is learnt by the first is used by those that follow.
        for round in 0..3 {
            let names = [
                "first",
                "second",
                "there",
                "dangling",
                "link",
                "directory",
                "directory/file",
                "linked/file",
                "missing/file",
                "there/file",
                "./third",
                "directory/../fourth",
                "",
            ];
            for name in names {
                let path = at(name);
                let new = $fs::File::create_new(&path).map(|file: $fs::File| {
                    let metadata = file.metadata().unwrap();
                    (metadata.len(), metadata.mode(), flags(&file))
                });
                outcomes.push(format!("{round} {name}, new: {:?}", seen(new)));
                let written = $fs::write(&path, format!("{round}"));
                outcomes.push(format!("written: {:?}", seen(written)));
                let mut options = $fs::OpenOptions::new();
                options.create(true).read(true).append(true).mode(0o640);
                let appended = options.open(&path).map(|mut file: $fs::File| {
                    file.write_all(b"more").unwrap();
                    file.rewind().unwrap();
                    let mut text = String::new();
                    file.read_to_string(&mut text).unwrap();
                    (text, flags(&file))
                });
                outcomes.push(format!("appended: {:?}", seen(appended)));
                if round == 1 {
                    let _ = std::fs::remove_file(&path);
                    let mut options = $fs::OpenOptions::new();
                    options.create(true).truncate(true).write(true).mode(0o421);
                    let other = options.open(&path).map(|mut file: $fs::File| {
                        file.write_all(b"other").unwrap();
                        (file.metadata().unwrap().permissions().mode(), flags(&file))
                    });
                    outcomes.push(format!("other: {:?}", seen(other)));
                }
            }
        }
        outcomes
    }};
}

/// The flags of an open file, as the kernel tells everybody.
fn flags(file: &impl std::os::fd::AsRawFd) -> u32 {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd())).unwrap();
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
    u32::from_str_radix(flags.trim(), 8).unwrap()
}

contract! {
    /// Whatever has the name already, and however the file is to be made.
    fn it_is_as_with_std() {
        for in_memory in [false, true] {
            let temp = || if in_memory { TempDir::in_memory() } else { Some(TempDir::new()) };
            let (Some(theirs), Some(ours)) = (temp(), temp()) else { continue };
            let expected = { use std::fs; creates!(fs, theirs.path()) };
            let seen = { use ramie::fs; creates!(fs, ours.path()) };
            assert_eq!(seen, expected);
        }
    }

    /// A FIFO is not a new file: the open waits for the other end.
    fn a_fifo_in_the_way_is_waited_for() {
        let Some(dir) = TempDir::in_memory() else { return };
        ramie::fs::write(dir.path().join("first"), "").unwrap();
        ramie::fs::write(dir.path().join("second"), "").unwrap();
        let path = dir.path().join("fifo");
        let name = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: a C string.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        let reader = {
            let path = path.clone();
            std::thread::spawn(move || std::fs::read(path).unwrap())
        };
        ramie::fs::write(&path, "through it").unwrap();
        assert_eq!(ramie::unblock(|| reader.join().unwrap()), b"through it");
    }

    /// The name of a directory in memory comes to mean one on a disk.
    fn a_directory_becomes_another() {
        let (Some(dir), disk) = (TempDir::in_memory(), TempDir::new()) else { return };
        let (place, aside) = (dir.path().join("place"), dir.path().join("aside"));
        ramie::fs::create_dir(&place).unwrap();
        for round in 0..4 {
            for i in 0..5 {
                ramie::fs::write(place.join(format!("{round} {i}")), "text").unwrap();
            }
            if round % 2 == 0 {
                std::fs::rename(&place, &aside).unwrap();
                symlink(disk.path(), &place).unwrap();
            } else {
                std::fs::remove_file(&place).unwrap();
                std::fs::rename(&aside, &place).unwrap();
            }
        }
        let count = |dir: &Path| {
            let texts = std::fs::read_dir(dir).unwrap().map(|entry| {
                assert_eq!(std::fs::read(entry.unwrap().path()).unwrap(), b"text");
            });
            texts.count()
        };
        assert_eq!((count(&place), count(disk.path())), (10, 10));
    }
}

/// Relative paths, with a working directory that is in memory, on the disk, and in memory again.
#[test]
fn the_working_directory_may_change() {
    isolated("the_working_directory_may_change", || {
        let (Some(memory), disk) = (TempDir::in_memory(), TempDir::new()) else { return };
        let _watchdog = watch::dog();
        runtime(1).run(|| {
            let before = fds();
            for round in 0..3 {
                for dir in [memory.path(), disk.path()] {
                    std::env::set_current_dir(dir).unwrap();
                    for i in 0..4 {
                        ramie::fs::write(format!("{round} {i}"), format!("{i}")).unwrap();
                    }
                }
            }
            assert_eq!(fds(), before);
        });
        for dir in [memory.path(), disk.path()] {
            assert_eq!(std::fs::read_dir(dir).unwrap().count(), 12);
            assert_eq!(std::fs::read(dir.join("2 3")).unwrap(), b"3");
        }
    });
}

/// All but the first are made without leaving the fiber's stack, so without a thread of anybody's.
#[test]
fn it_is_done_on_the_spot() {
    let Some(dir) = TempDir::in_memory() else { return };
    let _watchdog = watch::dog();
    for inline in [true, false] {
        let runtime = ramie::Runtime::builder().workers(1).inline(inline).build().unwrap();
        runtime.run(|| {
            for i in 0..1000 {
                ramie::fs::write(dir.path().join(format!("{inline} {i}")), "text").unwrap();
            }
        });
        // Each has used up the budget of such calls, and yields.
        let resumes = runtime.metrics().resumes;
        assert!(if inline { resumes < 1500 } else { resumes >= 2000 }, "{resumes} resumes");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2000);
}

/// A fiber that was asked to end creates nothing.
#[test]
fn a_cancelled_fiber_creates_nothing() {
    let Some(dir) = TempDir::in_memory() else { return };
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let path = dir.path().to_owned();
        let parks = Rc::new(Cell::new(false));
        let about_to_park = parks.clone();
        let fiber = ramie::spawn_local(move || {
            for i in 0..3 {
                ramie::fs::write(path.join(format!("{i}")), "").unwrap();
            }
            about_to_park.set(true);
            ramie::park();
            let e = ramie::fs::write(path.join("cancelled"), "").unwrap_err();
            assert!(ramie::is_cancelled(&e));
            ramie::fs::write(path.join("afterwards"), "").unwrap();
        });
        while !parks.get() {
            ramie::yield_now();
        }
        fiber.cancel();
        fiber.join().unwrap();
    });
    assert!(!dir.path().join("cancelled").exists());
    assert!(dir.path().join("afterwards").exists());
}
