//! The standard streams, in processes of their own.

mod common;

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::{TempDir, runtime, watch};
use ramie::io::{self, BufRead, Read, Write};

const VARIABLE: &str = "RAMIE_STDIO_CHILD";
const DRIVERS: [&str; 2] = ["", "poll"];
const MS: Duration = Duration::from_millis(1);

/// In the child, runs `body` and ends; else gives a command that starts the child. What the test
/// harness prints goes before a line of its own.
fn program(name: &str, driver: &str, body: impl FnOnce()) -> Command {
    if std::env::var(VARIABLE).is_ok_and(|child| child == name) {
        let _watchdog = watch::dog();
        println!();
        println!("BEGIN");
        body();
        std::process::exit(0);
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture", "--test-threads=1"]).env(VARIABLE, name);
    if !driver.is_empty() {
        command.env("RAMIE_DRIVER", driver);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What comes after the harness's own words.
fn printed(bytes: &[u8]) -> String {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    text.split_once("BEGIN\n").expect("it began").1.to_owned()
}

#[track_caller]
fn ends_well(child: Child) -> (String, String) {
    let output = child.wait_with_output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {errors}", output.status);
    (printed(&output.stdout), errors)
}

#[test]
fn lines_in_and_lines_out() {
    for driver in DRIVERS {
        let mut command = program("lines_in_and_lines_out", driver, || {
            runtime(1).run(|| {
                let mut first = String::new();
                assert_eq!(io::stdin().read_line(&mut first).unwrap(), 4);
                let mut byte = [0];
                (&io::stdin()).read_exact(&mut byte).unwrap();
                ramie::print!("{first}{}", byte[0]);
                for line in io::stdin().lines() {
                    ramie::println!("<{}>", line.unwrap());
                }
                ramie::eprintln!("done");
                ramie::print!("held back");
            });
        });
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all("one\nxtw".as_bytes()).unwrap();
        std::thread::sleep(MS * 20);
        input.write_all("o\nthr\u{fc}\nlast".as_bytes()).unwrap();
        drop(input);
        let (out, errors) = ends_well(child);
        assert_eq!(out, "one\n120<two>\n<thr\u{fc}>\n<last>\nheld back");
        assert!(errors.ends_with("done\n"), "{errors}");
    }
}

#[test]
fn files() {
    for driver in DRIVERS {
        let mut command = program("files", driver, || {
            runtime(2).run(|| {
                let mut text = String::new();
                io::stdin().read_to_string(&mut text).unwrap();
                io::stdout().write_all(text.as_bytes()).unwrap();
            });
        });
        let directory = std::env::temp_dir().join(format!("ramie-stdio-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let text: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
        std::fs::write(directory.join("in"), &text).unwrap();
        command.stdin(File::open(directory.join("in")).unwrap());
        command.stdout(File::create(directory.join("out")).unwrap());
        assert!(command.spawn().unwrap().wait().unwrap().success());
        assert!(printed(&std::fs::read(directory.join("out")).unwrap()) == text);
        std::fs::remove_dir_all(directory).unwrap();
    }
}

/// Nobody reads: other fibers of the worker go on, and so do those that wait for the lock.
#[test]
fn a_full_pipe_and_a_silent_input_suspend() {
    for driver in DRIVERS {
        let mut command = program("a_full_pipe_and_a_silent_input_suspend", driver, || {
            runtime(1).run(|| {
                let writers: Vec<_> = (0..3)
                    .map(|n| {
                        ramie::spawn(move || ramie::println!("{}", n.to_string().repeat(99_999)))
                    })
                    .collect();
                let reader = ramie::spawn(|| io::stdin().read_line(&mut String::new()).unwrap());
                for _ in 0..20 {
                    ramie::sleep(MS);
                }
                assert!(!reader.is_finished() && !writers[0].is_finished());
                ramie::eprintln!("alive");
                writers.into_iter().for_each(|fiber| fiber.join().unwrap());
                assert_eq!(reader.join().unwrap(), 3);
            });
        });
        let mut child = command.spawn().unwrap();
        let mut errors = io::BufReader::new(child.stderr.take().unwrap());
        loop {
            let mut line = String::new();
            assert!(errors.read_line(&mut line).unwrap() > 0, "it ended");
            if line == "alive\n" {
                break;
            }
        }
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        let (out, _) = ends_well(child);
        let lines: Vec<_> = out.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|l| l.len() == 99_999 && l.bytes().all(|b| b == l.as_bytes()[0])));
    }
}

#[test]
fn lines_stay_whole() {
    for driver in DRIVERS {
        let mut command = program("lines_stay_whole", driver, || {
            let print = |who: usize| {
                for n in 0..50 {
                    ramie::println!("{who} {n} {}", "x".repeat(who * 37 + n * 11));
                }
            };
            let threads: Vec<_> =
                (0..2).map(|who| std::thread::spawn(move || print(who))).collect();
            let other = std::thread::spawn(move || {
                runtime(1).run(|| ramie::spawn(move || print(2)).join().unwrap());
            });
            runtime(2).run(|| {
                let fibers: Vec<_> = (3..40).map(|who| ramie::spawn(move || print(who))).collect();
                fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
            });
            threads.into_iter().chain([other]).for_each(|thread| thread.join().unwrap());
        });
        let (out, _) = ends_well(command.spawn().unwrap());
        let mut next = [0; 40];
        for line in out.lines() {
            let parts: Vec<_> = line.split(' ').collect();
            let (who, n): (usize, usize) = (parts[0].parse().unwrap(), parts[1].parse().unwrap());
            assert_eq!(n, next[who], "each in its order");
            next[who] += 1;
            assert_eq!(parts[2], "x".repeat(who * 37 + n * 11));
        }
        assert_eq!(next, [50; 40]);
    }
}

#[test]
fn locks() {
    for driver in DRIVERS {
        let mut command = program("locks", driver, || {
            let twice = || {
                let mut first = io::stdout().lock();
                let mut second = io::stdout().lock();
                write!(first, "a").unwrap();
                write!(second, "b").unwrap();
                drop(first); // the second still has it
                ramie::yield_now();
                ramie::sleep(MS);
                ramie::println!("c");
                drop(second);
            };
            twice();
            runtime(1).run(|| {
                let fibers: Vec<_> = (0..3).map(|_| ramie::spawn(twice)).collect();
                fibers.into_iter().for_each(|fiber| fiber.join().unwrap());
                let panic = catch_unwind(|| {
                    let mut lock = io::stdout().lock();
                    lock.write_all(b"d").unwrap();
                    panic!("inside a lock");
                });
                assert!(panic.is_err());
                ramie::spawn(|| ramie::println!("e")).join().unwrap();
            });
        });
        let (out, _) = ends_well(command.spawn().unwrap());
        assert_eq!(out, "abc\nabc\nabc\nabc\nde\n");
    }
}

struct Says(&'static str);

impl Drop for Says {
    fn drop(&mut self) {
        assert!(std::thread::panicking());
        ramie::println!("{}", self.0);
        let mut lock = io::stdout().lock();
        writeln!(lock, "{}", self.0).unwrap();
        lock.flush().unwrap();
        ramie::eprintln!("{}", self.0);
    }
}

/// A destructor prints while a suspended fiber of the same worker has the locks.
#[test]
fn unwinding_goes_past_a_lock() {
    for driver in DRIVERS {
        let mut command = program("unwinding_goes_past_a_lock", driver, || {
            runtime(1).run(|| {
                let holder = ramie::spawn_local(|| {
                    let (mut out, _err) = (io::stdout().lock(), io::stderr().lock());
                    write!(out, "held ").unwrap();
                    ramie::sleep(MS * 50);
                    writeln!(out, "on").unwrap();
                });
                ramie::yield_now();
                let panic = catch_unwind(|| {
                    let _says = Says("dropped");
                    panic!("deliberate");
                });
                assert!(panic.is_err());
                holder.join().unwrap();
                let panic = catch_unwind(AssertUnwindSafe(|| {
                    let mut lock = io::stdout().lock();
                    write!(lock, "mine ").unwrap();
                    let _says = Says("again");
                    panic!("deliberate");
                }));
                assert!(panic.is_err());
            });
        });
        let (out, errors) = ends_well(command.spawn().unwrap());
        assert_eq!(out, "dropped\ndropped\nheld on\nmine again\nagain\n");
        assert!(errors.contains("\ndropped\n") && errors.contains("\nagain\n"), "{errors}");
    }
}

#[test]
fn a_cancelled_read_line_loses_nothing() {
    for driver in DRIVERS {
        let mut command = program("a_cancelled_read_line_loses_nothing", driver, || {
            runtime(1).run(|| {
                for _ in 0..3 {
                    let fiber = ramie::spawn(|| {
                        let mut line = String::new();
                        let result = io::stdin().read_line(&mut line);
                        (result, line)
                    });
                    ramie::sleep(MS * 30);
                    fiber.cancel();
                    let (result, line) = fiber.join().unwrap();
                    assert!(ramie::is_cancelled(&result.unwrap_err()));
                    assert_eq!(line, "");
                }
                ramie::eprintln!("now");
                let mut line = String::new();
                io::stdin().read_line(&mut line).unwrap();
                ramie::print!("{line}");
                let printer = ramie::spawn(|| {
                    ramie::println!("asked to end, and prints");
                    assert!(ramie::cancel::check().is_err());
                });
                printer.cancel();
                printer.join().unwrap();
            });
        });
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(b"be\xc3").unwrap(); // the half of a character
        let mut errors = io::BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while line != "now\n" {
            line.clear();
            assert!(errors.read_line(&mut line).unwrap() > 0, "it ended");
        }
        input.write_all(b"\xbcd\n").unwrap();
        let (out, _) = ends_well(child);
        assert_eq!(out, "be\u{fc}d\nasked to end, and prints\n");
    }
}

/// A terminal that somebody has made non-blocking, shared by all three.
#[test]
fn a_terminal() {
    for driver in DRIVERS {
        let mut command = program("a_terminal", driver, || {
            let echo = || {
                let mut line = String::new();
                io::stdin().read_line(&mut line).unwrap();
                ramie::print!("got {line}");
            };
            assert!(io::stdin().is_terminal() && io::stdout().is_terminal());
            assert!(!io::stderr().is_terminal());
            runtime(1).run(|| {
                let ticks = AtomicUsize::new(0);
                ramie::scope(|s| {
                    s.spawn(echo);
                    s.spawn(|| {
                        for _ in 0..5 {
                            ramie::sleep(MS);
                            ticks.fetch_add(1, Ordering::Relaxed);
                        }
                        ramie::println!("ready");
                    });
                });
                assert_eq!(ticks.into_inner(), 5);
            });
            echo(); // on a plain thread
        });
        let (mut master, mut slave) = (0, 0);
        let null = std::ptr::null_mut();
        // SAFETY: two numbers to write, and nothing else.
        let made =
            unsafe { libc::openpty(&mut master, &mut slave, null, null.cast(), null.cast()) };
        assert_eq!(made, 0);
        // SAFETY: both are new and nobody else's.
        let ends = unsafe { (OwnedFd::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
        let flags = libc::O_RDWR | libc::O_NONBLOCK;
        // SAFETY: numbers only.
        assert_eq!(unsafe { libc::fcntl(ends.1.as_raw_fd(), libc::F_SETFL, flags) }, 0);
        let mut master = File::from(ends.0);
        command.stdin(ends.1.try_clone().unwrap()).stdout(ends.1).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        drop(command);
        let mut seen = String::new();
        let mut until = |master: &mut File, what: &str| {
            while !seen.contains(what) {
                let mut buf = [0; 1000];
                let count = master.read(&mut buf).unwrap();
                seen.push_str(std::str::from_utf8(&buf[..count]).unwrap());
            }
        };
        until(&mut master, "ready");
        master.write_all(b"first\n").unwrap();
        until(&mut master, "got first");
        master.write_all(b"second\n").unwrap();
        until(&mut master, "got second");
        assert!(child.wait().unwrap().success());
    }
}

#[test]
fn closed_descriptors_and_broken_pipes() {
    for driver in DRIVERS {
        let mut command = program("closed_descriptors_and_broken_pipes", driver, || {
            runtime(1).run(|| {
                let mut line = String::new();
                while line != "go\n" {
                    line.clear();
                    io::stdin().read_line(&mut line).unwrap();
                }
                // Programs that other tests start have the pipe too, until they `exec`.
                let mut broken = libc::pollfd { fd: 1, events: 0, revents: 0 };
                // SAFETY: one record, alive for the call.
                assert_eq!(unsafe { libc::poll(&mut broken, 1, -1) }, 1);
                let error = writeln!(io::stdout(), "nobody reads").unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
                assert!(catch_unwind(|| ramie::println!("nobody")).is_err());
                for fd in 0..2 {
                    // SAFETY: a number only; what std does with these is to ignore the error.
                    assert_eq!(unsafe { libc::close(fd) }, 0);
                }
                assert_eq!(io::stdin().read(&mut [0; 10]).unwrap(), 0);
                io::stdout().write_all(b"nowhere\n").unwrap();
                io::stdout().flush().unwrap();
                ramie::eprintln!("well");
            });
        });
        let mut child = command.spawn().unwrap();
        let mut out = io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while line != "BEGIN\n" {
            line.clear();
            assert!(out.read_line(&mut line).unwrap() > 0, "it ended");
        }
        drop(out);
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        let output = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && errors.ends_with("well\n"), "{errors}");
    }
}

const FOLDER: &str = "RAMIE_STDIO_FOLDER";

/// Lines of text, more than any buffer holds.
fn long_text() -> String {
    (0..40_000).map(|n| format!("line {n}\n")).collect()
}

/// A folder with that text in a file.
fn folder(name: &str) -> TempDir {
    let folder = TempDir::new();
    std::fs::write(folder.path().join(name), long_text()).unwrap();
    folder
}

/// What the child prints when its output is a pipe, a file and a socket, if it ends well. The text
/// is in its folder.
fn to_each_kind(mut command: impl FnMut() -> Command) -> [String; 3] {
    let mut first = command(); // the child goes no further, and makes no folder
    let folder = folder("text");
    let folder = folder.path();
    let by_pipe = first.env(FOLDER, folder).output().unwrap();
    assert!(by_pipe.status.success(), "{}", String::from_utf8_lossy(&by_pipe.stderr));
    let path = folder.join("printed");
    let file = File::create(&path).unwrap();
    assert!(command().env(FOLDER, folder).stdout(file).status().unwrap().success());
    let (here, there) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut started = command();
    let mut child = started.env(FOLDER, folder).stdout(OwnedFd::from(there)).spawn().unwrap();
    drop(started);
    let mut by_socket = Vec::new();
    (&here).read_to_end(&mut by_socket).unwrap();
    assert!(child.wait().unwrap().success());
    [by_pipe.stdout, std::fs::read(path).unwrap(), by_socket].map(|bytes| printed(&bytes))
}

/// The kernel copies; what was printed before and what comes after stay in their places.
#[test]
fn copies_to_the_output() {
    let work = || {
        let from = || ramie::fs::File::open(path_of("text")).unwrap();
        ramie::print!("<");
        assert_eq!(io::copy(&mut from(), &mut io::stdout()).unwrap(), long_text().len() as u64);
        ramie::print!("><");
        let mut lock = io::stdout().lock();
        io::copy(&mut from().take(200_001), &mut lock).unwrap();
        write!(lock, "><").unwrap();
        let mut writer = io::BufWriter::new(&mut lock);
        write!(writer, "first ").unwrap();
        io::copy(&mut io::BufReader::new(from()), &mut writer).unwrap();
        write!(writer, ">").unwrap();
        drop(writer);
        drop(lock);
        io::copy(&mut from().take(3), &mut io::stdout()).unwrap();
    };
    for driver in DRIVERS {
        let command = || {
            program("copies_to_the_output", driver, || {
                work();
                runtime(2).run(|| ramie::spawn(work).join().unwrap());
            })
        };
        let text = long_text();
        let once = format!("<{text}><{}><first {text}>{}", &text[..200_001], &text[..3]);
        for printed in to_each_kind(command) {
            assert!(printed == once.repeat(2));
        }
    }
}

fn path_of(name: &str) -> std::path::PathBuf {
    std::path::Path::new(&std::env::var_os(FOLDER).unwrap()).join(name)
}

/// A line is read, and so more than that is buffered; the rest is copied to wherever.
#[test]
fn copies_from_the_input() {
    let to_file = |locked: bool| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).unwrap();
        let mut to = ramie::fs::File::create(path_of("copied")).unwrap();
        let n = if locked {
            let mut lock = io::stdin().lock();
            let first = io::copy(&mut lock.by_ref().take(100), &mut to).unwrap();
            first + io::copy(&mut lock, &mut to).unwrap()
        } else {
            io::copy(&mut io::stdin(), &mut to).unwrap()
        };
        assert_eq!(io::copy(&mut io::stdin(), &mut to).unwrap(), 0);
        ramie::println!("{line}{n}");
    };
    let cat = |locked: bool| {
        let mut out = io::stdout();
        if locked {
            io::copy(&mut io::stdin().lock(), &mut out).unwrap();
        } else {
            io::copy(&mut io::stdin(), &mut out).unwrap();
        }
    };
    let text = long_text();
    let rest = text.split_once('\n').unwrap().1;
    for (driver, how) in DRIVERS.into_iter().flat_map(|d| (0..8).map(move |how| (d, how))) {
        let locked = how & 1 != 0;
        let body = || {
            let how: u8 = std::env::var("RAMIE_STDIO_HOW").unwrap().parse().unwrap();
            let locked = how & 1 != 0;
            let work = move || if how & 2 != 0 { cat(locked) } else { to_file(locked) };
            if how & 4 != 0 { work() } else { runtime(1).run(work) }
        };
        let mut outputs = Vec::new();
        for kind in 0..3 {
            let mut command = program("copies_from_the_input", driver, body);
            let folder = folder("in");
            command.env(FOLDER, folder.path()).env("RAMIE_STDIO_HOW", how.to_string());
            let (here, there) = std::os::unix::net::UnixStream::pair().unwrap();
            match kind {
                0 => {}
                1 => drop(command.stdin(File::open(folder.path().join("in")).unwrap())),
                _ => drop(command.stdin(OwnedFd::from(there))),
            }
            let mut child = command.spawn().unwrap();
            drop(command);
            let pipe = child.stdin.take();
            let text = text.clone();
            let feeder = std::thread::spawn(move || match pipe {
                Some(mut pipe) => pipe.write_all(text.as_bytes()).unwrap(),
                None if kind == 2 => (&here).write_all(text.as_bytes()).unwrap(),
                None => {}
            });
            outputs.push(ends_well(child).0);
            feeder.join().unwrap();
            if how & 2 == 0 {
                let copied = std::fs::read_to_string(folder.path().join("copied")).unwrap();
                assert!(copied == rest, "{driver} {locked} {kind}");
            }
        }
        let expected =
            if how & 2 == 0 { format!("line 0\n{}\n", rest.len()) } else { text.clone() };
        assert!(outputs.iter().all(|out| *out == expected), "{driver} {how}");
    }
}

/// A copy to an output that is not locked waits without the lock, also if another one has taken
/// what it came for, and what others have printed before it goes on comes before.
#[test]
fn others_print_while_a_copy_waits() {
    for driver in DRIVERS {
        let mut command = program("others_print_while_a_copy_waits", driver, || {
            let round = |copies: usize| {
                let (reader, mut writer) = io::pipe().unwrap();
                let copy =
                    |mut reader: io::PipeReader| io::copy(&mut reader, &mut io::stdout()).unwrap();
                let copiers: Vec<_> = (0..copies)
                    .map(|_| reader.try_clone().unwrap())
                    .map(|reader| ramie::spawn(move || copy(reader)))
                    .collect();
                for n in 0..20 {
                    ramie::print!("{n} ");
                    write!(writer, "copied,").unwrap();
                    // Most of the time it is printed then, too.
                    while ramie::unblock(|| bytes_in(&writer)) != 0 {
                        ramie::yield_now();
                    }
                }
                drop(writer);
                let copied = copiers.into_iter().map(|copier| copier.join().unwrap());
                assert_eq!(copied.sum::<u64>(), 140);
            };
            runtime(1).run(|| (1..3).for_each(round));
        });
        let (out, _) = ends_well(command.spawn().unwrap());
        let mut rest = out.as_str();
        let (mut copied, mut next) = (0, 0);
        while !rest.is_empty() {
            match rest.strip_prefix("copied,") {
                Some(after) => (copied, rest) = (copied + 1, after),
                None => {
                    let number = format!("{} ", next % 20);
                    rest = rest.strip_prefix(&number).expect("whole and in order");
                    next += 1;
                }
            }
            assert!(copied <= next, "{out}");
        }
        assert_eq!((copied, next), (40, 40));
    }
}

/// How many bytes wait in a pipe.
fn bytes_in(pipe: &impl AsRawFd) -> i32 {
    let mut bytes = 0;
    // SAFETY: one number to write, alive for the call.
    assert_eq!(unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &mut bytes) }, 0);
    bytes
}
