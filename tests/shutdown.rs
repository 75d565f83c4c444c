//! The end of a runtime: what it cancels, what it waits for, what it leaks, what stays usable.

mod common;

use common::process::{fds, threads};
use common::{eventually, isolated, runtime, watch};
use ramie::{JoinHandle, Runtime};
use std::cell::Cell;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

fn pipe() -> (ramie::fs::File, ramie::fs::File) {
    let (reader, writer) = std::io::pipe().unwrap();
    (OwnedFd::from(reader).into(), OwnedFd::from(writer).into())
}

/// Every worker's operations are cancelled, and so are those that come later.
#[test]
fn operations_in_flight_are_cancelled() {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        let rt = runtime(workers);
        let (fibers, writers): (Vec<_>, Vec<_>) = rt.run(|| {
            let all = (0..100)
                .map(|n| {
                    let (mut reader, writer) = pipe();
                    let builder = ramie::Builder::new().worker(n % workers);
                    let fiber = builder.spawn(move || {
                        for _ in 0..3 {
                            let error = reader.read(&mut [0]).unwrap_err();
                            assert!(ramie::is_cancelled(&error), "{error}");
                        }
                        assert!(ramie::is_cancelled(&ramie::fs::read("Cargo.toml").unwrap_err()));
                        n
                    });
                    (fiber.unwrap(), writer)
                })
                .collect::<Vec<_>>();
            ramie::sleep(5 * MS);
            all.into_iter().unzip()
        });
        assert_eq!(rt.shutdown_timeout(Duration::from_secs(30)), 0);
        for (n, fiber) in fibers.into_iter().enumerate() {
            assert!(fiber.is_finished());
            assert_eq!(fiber.join().unwrap(), n);
        }
        drop(writers);
    }
}

/// More operations than the rings can hold, some not yet handed to the kernel, some non-blocking.
#[test]
fn operations_beyond_the_rings_are_cancelled() {
    let _watchdog = watch::dog();
    for entries in [1, 4] {
        let rt = Runtime::builder().workers(2).ring_entries(entries).build().unwrap();
        let (reader, _writer) = pipe();
        let reader = Arc::new(reader);
        let fibers: Vec<_> = rt.run(|| {
            let fibers = (0..500)
                .map(|_| {
                    let reader = Arc::clone(&reader);
                    ramie::spawn(move || (&*reader).read(&mut [0]).unwrap_err())
                })
                .collect();
            ramie::yield_now();
            fibers
        });
        assert_eq!(rt.shutdown_timeout(Duration::from_secs(30)), 0);
        for fiber in fibers {
            assert!(ramie::is_cancelled(&fiber.join().unwrap()));
        }
    }
}

#[test]
fn sleeps_and_timeouts_end_early() {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        let rt = runtime(workers);
        let fibers: Vec<_> = rt.run(|| {
            let parked = ramie::spawn(ramie::park);
            let fibers = vec![
                ramie::spawn(|| ramie::sleep(HOUR)),
                ramie::spawn(|| ramie::sleep(Duration::MAX)),
                ramie::spawn(|| ramie::park_timeout(HOUR)),
                ramie::spawn(|| (0..100).for_each(|_| ramie::sleep(HOUR))),
                // Waits that begin when the end has begun already.
                ramie::spawn(|| (0..100).for_each(|_| ramie::park_timeout(HOUR))),
                ramie::spawn(move || {
                    for _ in 0..3 {
                        ramie::sleep(HOUR);
                    }
                    drop(parked.join_timeout(HOUR));
                }),
            ];
            ramie::sleep(5 * MS);
            fibers
        });
        let start = Instant::now();
        // The parked one stays; the others end, long before their time.
        assert_eq!(rt.shutdown_timeout(Duration::from_secs(60)), 1);
        assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());
        for fiber in fibers {
            assert!(fiber.is_finished());
        }
    }
}

/// Fibers that wait for nothing that could come are leaked, soon, with all they own.
#[test]
fn parked_fibers_are_leaked() {
    struct Dropped(Arc<AtomicBool>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }
    let _watchdog = watch::dog();
    for workers in [1, 3] {
        let rt = runtime(workers);
        let dropped = Arc::new(AtomicBool::new(false));
        let fibers: Vec<_> = rt.run(|| {
            let fibers = (0..20)
                .map(|n| {
                    let guard = Dropped(Arc::clone(&dropped));
                    let builder = ramie::Builder::new().worker(n % workers);
                    let fiber = builder.spawn(move || {
                        let _guard = guard;
                        loop {
                            ramie::park();
                        }
                    });
                    fiber.unwrap()
                })
                .collect();
            ramie::sleep(5 * MS);
            fibers
        });
        let start = Instant::now();
        drop(rt);
        assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
        let first: &JoinHandle<()> = &fibers[0];
        first.cancel();
        first.fiber().unpark();
        assert!(first.is_finished(), "nobody has to wait for it");
        assert!(!dropped.load(Ordering::SeqCst), "nothing of theirs is dropped");
        let mut fibers = fibers.into_iter();
        let late = fibers.next().unwrap().join_timeout(5 * MS);
        assert!(late.expect("they are given up").is_err(), "they have not ended");
        drop(fibers);
        assert!(!dropped.load(Ordering::SeqCst));
    }
}

/// Fibers that have not started by then never do; those that have come to be joined.
#[test]
fn handles_after_the_end() {
    let _watchdog = watch::dog();
    let rt = runtime(1);
    let handle = rt.handle();
    let ran = Arc::new(AtomicUsize::new(0));
    let theirs = Arc::clone(&ran);
    let ended = rt.run(|| {
        let fiber = ramie::spawn(|| String::from("result"));
        eventually("it ends", || fiber.is_finished());
        fiber
    });
    let fresh = handle.spawn(move || theirs.fetch_add(1, Ordering::SeqCst)).unwrap();
    drop(rt);
    assert_eq!(ended.join().unwrap(), "result");
    // It was in time: the end waits for it.
    assert_eq!(fresh.join().unwrap(), 0);
    assert_eq!(ran.load(Ordering::SeqCst), 1);
    assert!(handle.spawn(|| ()).is_err());
    assert_eq!(handle.metrics().live_fibers, 0);
}

/// A fiber that never stops costs no more than the patience asked for.
#[test]
fn endless_fibers_cost_the_timeout() {
    isolated("endless_fibers_cost_the_timeout", || {
        let stop = Arc::new(AtomicBool::new(false));
        // Two that yield, one on each worker, and one that does not even do that.
        let rt = Runtime::builder().workers(3).shutdown_timeout(200 * MS).build().unwrap();
        rt.run(|| {
            for worker in 0..2 {
                let stop = Arc::clone(&stop);
                let builder = ramie::Builder::new().worker(worker);
                let fiber = builder.spawn(move || {
                    while !stop.load(Ordering::SeqCst) {
                        ramie::yield_now();
                        ramie::sleep(HOUR);
                    }
                });
                drop(fiber.unwrap());
            }
            let stop = Arc::clone(&stop);
            let builder = ramie::Builder::new().worker(2);
            let fiber = builder.spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    std::hint::spin_loop();
                }
            });
            drop(fiber.unwrap());
            ramie::sleep(5 * MS);
        });
        let start = Instant::now();
        drop(rt);
        assert!(start.elapsed() >= 200 * MS);
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        stop.store(true, Ordering::SeqCst);

        let rt = runtime(1);
        drop(
            rt.handle()
                .spawn(|| {
                    loop {
                        ramie::yield_now()
                    }
                })
                .unwrap(),
        );
        assert_eq!(rt.shutdown_timeout(50 * MS), 1);
    });
}

/// A job on the blocking pool is waited for; the fiber that waits for it then ends.
#[test]
fn jobs_are_waited_for() {
    let _watchdog = watch::dog();
    let rt = runtime(2);
    let fiber = rt.run(|| {
        let fiber = ramie::spawn(|| {
            ramie::unblock(|| {
                std::thread::sleep(200 * MS);
                5
            })
        });
        ramie::sleep(5 * MS);
        fiber
    });
    drop(rt);
    assert_eq!(fiber.join().unwrap(), 5);
}

/// Fibers may still spawn, join, and unpark each other while the runtime ends.
#[test]
fn the_last_wishes_of_fibers() {
    let _watchdog = watch::dog();
    for workers in [1, 2] {
        let rt = runtime(workers);
        let fibers: Vec<_> = rt.run(|| {
            let fibers = (0..20)
                .map(|n| {
                    ramie::spawn(move || {
                        ramie::sleep(HOUR);
                        let child = ramie::spawn(move || {
                            ramie::yield_now();
                            n
                        });
                        let me = ramie::current();
                        drop(ramie::spawn(move || me.unpark()));
                        ramie::park();
                        ramie::unblock(|| ());
                        child.join().unwrap()
                    })
                })
                .collect();
            ramie::sleep(5 * MS);
            fibers
        });
        assert_eq!(rt.shutdown_timeout(Duration::from_secs(30)), 0);
        for (n, fiber) in fibers.into_iter().enumerate() {
            assert_eq!(fiber.join().unwrap(), n);
        }
    }
}

/// A runtime that is dropped on a fiber of another one, or in its own thread's other runtime.
#[test]
fn dropped_inside_another_runtime() {
    let _watchdog = watch::dog();
    let (outer, inner) = (runtime(1), runtime(2));
    let fiber = inner.run(|| ramie::spawn(|| 5));
    outer.run(move || drop(inner));
    drop(fiber);
    assert_eq!(outer.run(|| 6), 6);
}

/// Nothing is left of a runtime: no descriptor, no thread.
#[test]
fn descriptors_and_threads_are_given_back() {
    isolated("descriptors_and_threads_are_given_back", || {
        let dir = common::TempDir::new();
        let work = |round: u32| {
            let rt = Runtime::builder().workers(3).ring_entries(8).build().unwrap();
            let path = dir.path().join("f");
            std::fs::write(&path, "text").unwrap();
            rt.run(|| {
                let fibers: Vec<_> = (0..60)
                    .map(|n| {
                        let path = path.clone();
                        ramie::spawn(move || {
                            // Left open at the end, by some, in a read; closed unseen, by others.
                            let _file = ramie::fs::File::open(path).unwrap();
                            ramie::unblock(|| ());
                            let (mut reader, writer) = pipe();
                            if n % 2 == 0 {
                                drop(reader.read(&mut [0]));
                            }
                            drop(writer);
                        })
                    })
                    .collect();
                if round.is_multiple_of(2) {
                    for (n, fiber) in fibers.into_iter().enumerate() {
                        if n % 2 == 1 {
                            fiber.join().unwrap();
                        }
                    }
                }
            });
        };
        let threads_before = threads();
        work(0); // opens what is opened once per process
        let fds_before = fds();
        for round in 0..10 {
            work(round);
        }
        eventually("all threads end", || threads() == threads_before);
        eventually("all descriptors are closed", || fds() == fds_before);
    });
}

/// What is leaked on purpose is leaked once: the memory of fibers that never ended, and no more.
#[test]
fn runtimes_do_not_pile_up() {
    isolated("runtimes_do_not_pile_up", || {
        let round = || {
            let rt = runtime(2);
            rt.run(|| {
                let fibers: Vec<_> = (0..100).map(|_| ramie::spawn(|| ramie::sleep(MS))).collect();
                fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
            });
        };
        (0..20).for_each(|_| round());
        let before = common::process::resident();
        (0..200).for_each(|_| round());
        let grown = common::process::resident().saturating_sub(before);
        assert!(grown < 16 << 20, "200 runtimes left {} KiB", grown >> 10);
    });
}

/// On a file system that flushes when a file is closed, the kernel closes later, by a thread of its
/// own; the end of the runtime must not take that back.
#[test]
fn closes_that_are_put_off_survive_the_end() {
    isolated("closes_that_are_put_off_survive_the_end", || {
        let dir = common::TempDir::new();
        if let Err(error) = mount_overlay(dir.path()) {
            return println!("skipped: overlayfs cannot be mounted here: {error}");
        }
        let path = dir.path().join("merged/f");
        std::fs::write(&path, "text").unwrap();
        let before = fds();
        for round in 0..20 {
            let rt = runtime(2);
            rt.run(|| {
                for _ in 0..50 {
                    let path = path.clone();
                    drop(ramie::spawn(move || {
                        let file = ramie::fs::File::open(path);
                        ramie::yield_now();
                        drop(file);
                    }));
                }
                if round % 2 == 0 {
                    ramie::sleep(MS);
                }
            });
            drop(rt);
            assert_eq!(fds(), before, "round {round}");
        }
        // Those that somebody waits for. The end comes in the pass in which they begin.
        for round in 0..20 {
            let rt = runtime(1);
            let (go, open) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
            rt.run(|| {
                for _ in 0..50 {
                    let (path, go, open) = (path.clone(), Rc::clone(&go), Rc::clone(&open));
                    drop(ramie::spawn_local(move || {
                        let file = ramie::fs::File::open(path).unwrap();
                        open.set(open.get() + 1);
                        while !go.get() {
                            ramie::yield_now();
                        }
                        file.close().expect("it is closed");
                        open.set(open.get() - 1);
                    }));
                }
                eventually("all are open", || open.get() == 50);
                go.set(true);
            });
            drop(rt);
            assert_eq!((fds(), open.get()), (before, 0), "round {round}");
        }
        let merged = std::ffi::CString::new(dir.path().join("merged").to_str().unwrap()).unwrap();
        // SAFETY: reads the string.
        unsafe { libc::umount2(merged.as_ptr(), libc::MNT_DETACH) };
    });
}

/// Mounts an overlay of its own on `dir/merged`, seen by this process only.
fn mount_overlay(dir: &std::path::Path) -> std::io::Result<()> {
    let check = |result: i32| match result {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    };
    for name in ["lower", "upper", "work", "merged"] {
        std::fs::create_dir(dir.join(name))?;
    }
    let c_string = |text: String| std::ffi::CString::new(text).expect("no zero byte");
    let at = |name: &str| dir.join(name).display().to_string();
    let options =
        format!("lowerdir={},upperdir={},workdir={}", at("lower"), at("upper"), at("work"));
    let (options, merged) = (c_string(options), c_string(at("merged")));
    let private = libc::MS_REC | libc::MS_PRIVATE;
    // SAFETY: the calling thread gets a mount table of its own; the strings are alive.
    unsafe {
        check(libc::unshare(libc::CLONE_NEWNS))?;
        check(libc::mount(
            c"none".as_ptr(),
            c"/".as_ptr(),
            std::ptr::null(),
            private,
            std::ptr::null(),
        ))?;
        check(libc::mount(
            c"overlay".as_ptr(),
            merged.as_ptr(),
            c"overlay".as_ptr(),
            0,
            options.as_ptr().cast(),
        ))
    }
}
