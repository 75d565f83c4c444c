//! Processes and fibers: waiting suspends, can be broken off, and leaves nothing over.

mod common;

use common::{eventually, fds, isolated, runtime, watch};
use ramie::process::{Child, Command, Stdio};
use ramie::{is_cancelled, time};
use std::cell::RefCell;
use std::io::{ErrorKind, Read};
use std::rc::Rc;
use std::time::Duration;

fn sleeper() -> Command {
    let mut command = Command::new("sleep");
    command.arg("1000");
    command
}

/// Whether this process has a child, or a zombie.
fn has_children() -> bool {
    // SAFETY: no memory is passed.
    let waited = unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) };
    waited >= 0
}

fn exists(id: u32) -> bool {
    std::path::Path::new("/proc").join(id.to_string()).exists()
}

#[test]
fn the_worker_goes_on() {
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let child = Rc::new(RefCell::new(Vec::<u32>::new()));
        let ids = Rc::clone(&child);
        let waits = ramie::spawn_local(move || {
            let mut child = sleeper().spawn().unwrap();
            ids.borrow_mut().push(child.id());
            child.wait().unwrap()
        });
        let reads = ramie::spawn_local(|| {
            let mut command = sleeper();
            let mut child = command.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
            child.stdout.as_mut().unwrap().read(&mut [0; 8])
        });
        let collects = ramie::spawn_local(|| sleeper().kill_on_drop(true).output());
        eventually("the sleeper is there", || !child.borrow().is_empty());
        let id = i32::try_from(child.borrow()[0]).unwrap();
        // SAFETY: a child that has not been waited for.
        assert_eq!(unsafe { libc::kill(id, libc::SIGTERM) }, 0);
        assert!(!waits.join().unwrap().success());
        ramie::sleep(Duration::from_millis(20));
        assert!(is_cancelled(&reads.cancel_join().unwrap().unwrap_err()));
        assert!(is_cancelled(&collects.cancel_join().unwrap().unwrap_err()));
    });
}

#[test]
fn a_wait_that_is_broken_off_can_be_repeated() {
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let fiber = ramie::spawn(|| {
            let mut child = sleeper().spawn().unwrap();
            assert!(is_cancelled(&child.wait().unwrap_err()));
            let late = time::timeout(Duration::from_millis(10), || child.wait());
            assert_eq!(late.unwrap_err().kind(), ErrorKind::TimedOut);
            // The inner limit is the shorter one, and then the longer one.
            let limit = Duration::from_millis(10);
            let none = time::timeout(Duration::from_secs(1000), || child.wait_timeout(limit));
            assert_eq!(none.unwrap(), None);
            let late = time::timeout(limit, || child.wait_timeout(Duration::from_secs(1000)));
            assert_eq!(late.unwrap_err().kind(), ErrorKind::TimedOut);
            child.kill().unwrap();
            child.wait().unwrap()
        });
        ramie::sleep(Duration::from_millis(50));
        assert!(!fiber.cancel_join().unwrap().success());
    });
}

#[test]
fn nothing_is_started_after_a_request() {
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        let fiber = ramie::spawn(|| {
            let error = Command::new("true").status().unwrap_err();
            assert!(is_cancelled(&error));
            Command::new("true").status().unwrap().success() // it has been reported
        });
        assert!(fiber.cancel_join().unwrap());
    });
    // Deadlines are for threads, too.
    let late = time::timeout(Duration::from_millis(5), || {
        let mut child = sleeper().kill_on_drop(true).spawn()?;
        child.wait_timeout(Duration::from_secs(1000))
    });
    assert_eq!(late.unwrap_err().kind(), ErrorKind::TimedOut);
}

/// Kept apart, because it counts the children of the whole process.
#[test]
fn who_is_killed_by_a_drop_leaves_no_zombie() {
    isolated("who_is_killed_by_a_drop_leaves_no_zombie", || {
        let before = fds();
        let start = || -> Vec<Child> {
            (0..20).map(|_| sleeper().kill_on_drop(true).spawn().unwrap()).collect()
        };
        let children = start();
        let id = children[0].id();
        assert!(exists(id));
        drop(children);
        eventually("all are gone", || !has_children() && !exists(id));
        runtime(2).run(|| {
            let children = start();
            drop(children);
            eventually("all are gone", || !has_children());
            // One that is not killed.
            let mut child = sleeper().spawn().unwrap();
            child.kill().unwrap();
            child.wait().unwrap();
            let mut done = Command::new("true").kill_on_drop(true).spawn().unwrap();
            done.wait().unwrap();
        });
        eventually("the descriptors are closed", || fds() == before);
    });
}

#[test]
fn a_thousand_children() {
    isolated("a_thousand_children", || {
        let before = fds();
        let runtime = runtime(2);
        runtime.run(|| {
            let fibers: Vec<_> = (0..1000_u32)
                .map(|n| {
                    ramie::spawn(move || {
                        let script = format!("exit {}", n % 100);
                        let mut command = Command::new("sh");
                        command.args(["-c", &script]);
                        // Some with pipes; all of them at once might use up the descriptors.
                        let status = match n % 10 {
                            0 => command.output().unwrap().status,
                            _ => command.status().unwrap(),
                        };
                        assert_eq!(status.code(), Some((n % 100).cast_signed()));
                    })
                })
                .collect();
            for fiber in fibers {
                fiber.join().unwrap();
            }
            assert!(!has_children());
        });
        drop(runtime);
        eventually("the descriptors are closed", || fds() == before);
    });
}

/// Requests and deadlines at any moment: before the start, in a wait, after the end.
#[test]
fn broken_off_at_any_time() {
    isolated("broken_off_at_any_time", || {
        let mut random = common::rng::Rng::from_env();
        let before = fds();
        let runtime = runtime(2);
        runtime.run(|| {
            for _ in 0..30 {
                let fibers: Vec<_> = (0..8)
                    .map(|_| {
                        let kind = random.below(4);
                        let limit = random.micros(6000);
                        ramie::spawn(move || {
                            let mut command = Command::new("sh");
                            command.args(["-c", "echo out; echo err >&2; sleep 0.003"]);
                            command.kill_on_drop(true).stderr(Stdio::null());
                            match kind {
                                0 => command.status().map(drop),
                                1 => command.stderr(Stdio::piped()).output().map(drop),
                                2 => time::timeout(limit, || command.output()).map(drop),
                                _ => command.spawn()?.wait_timeout(limit).map(drop),
                            }
                        })
                    })
                    .collect();
                ramie::sleep(random.micros(6000));
                for fiber in fibers {
                    if random.below(2) == 0 {
                        fiber.cancel();
                    }
                    match fiber.join().unwrap() {
                        Err(error) if is_cancelled(&error) => {}
                        Err(error) if error.kind() == ErrorKind::TimedOut => {}
                        result => result.unwrap(),
                    }
                }
            }
        });
        drop(runtime);
        eventually("no child is left", || !has_children());
        eventually("the descriptors are closed", || fds() == before);
    });
}

/// A wait needs a descriptor, and does without if there is none.
#[test]
fn waiting_without_descriptors() {
    isolated("waiting_without_descriptors", || {
        runtime(1).run(|| {
            let mut one = sleeper().spawn().unwrap();
            let mut other = Command::new("sh").args(["-c", "sleep 0.05; exit 7"]).spawn().unwrap();
            let mut talker = Command::new("sh");
            talker.args(["-c", "echo a; echo b >&2; sleep 0.05; exec 2>&-; sleep 0.05; echo c"]);
            let talker = talker.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
            let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            // SAFETY: writes the limits.
            assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) }, 0);
            limit.rlim_cur = 3; // new ones would have higher numbers
            // SAFETY: reads the limits.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
            assert!(std::io::pipe().is_err());
            assert_eq!(one.wait_timeout(Duration::from_millis(20)).unwrap(), None);
            assert_eq!(other.wait().unwrap().code(), Some(7));
            let output = talker.wait_with_output().unwrap();
            assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"a\nc\n"[..], &b"b\n"[..]));
            let fiber = ramie::spawn(move || {
                assert!(is_cancelled(&one.wait().unwrap_err()));
                one.kill().unwrap();
                one.wait().unwrap()
            });
            ramie::sleep(Duration::from_millis(20));
            assert!(!fiber.cancel_join().unwrap().success());
        });
    });
}

/// What is left at the end of the runtime is asked to end, like any operation.
#[test]
fn shutdown_ends_a_wait() {
    let _watchdog = watch::dog();
    let runtime = runtime(2);
    let fiber = runtime.run(|| {
        let fiber = ramie::spawn(|| {
            let mut child = sleeper().kill_on_drop(true).spawn().unwrap();
            child.wait().map(drop)
        });
        ramie::sleep(Duration::from_millis(30));
        fiber
    });
    drop(runtime);
    assert!(is_cancelled(&fiber.join().unwrap().unwrap_err()));
}
