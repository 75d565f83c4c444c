//! Processes, on threads and on fibers: what std promises of them, and what is more here. The tools
//! (sh, cat, sleep, head, true) are those of any Linux.

mod common;

use common::{TempDir, error, seen};
use ramie::os::unix::process::{CommandExt, ExitStatusExt};
use ramie::process::{Child, ChildStdout, Command, Stdio};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

const LARGE: usize = 3_000_000; // many times what a pipe holds
const NEVER: Duration = Duration::from_secs(1000);

fn sh(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(script);
    command
}

/// A child that sleeps for as long as nobody ends it.
fn sleeper() -> Child {
    Command::new("sleep").arg("1000").spawn().unwrap()
}

contract! {
    fn output_has_all_three() {
        let output = sh("echo out; echo err >&2; exit 3").output().unwrap();
        assert_eq!(output.status.code(), Some(3));
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
        assert!(Command::new("true").status().unwrap().success());
        assert_eq!(sh("kill -USR1 $$").status().unwrap().signal(), Some(libc::SIGUSR1));
    }

    fn arguments_environment_and_directory() {
        let temp = TempDir::new();
        let dir = std::fs::canonicalize(temp.path()).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", r#"pwd; echo "$0|$1|$2|$A|$B|${C-none}""#, "zero", "one", "t w o"]);
        command.env("A", "a").envs([("B", "b"), ("C", "c")]).env_remove("C").current_dir(&dir);
        let expected = format!("{}\nzero|one|t w o|a|b|none\n", dir.display());
        assert_eq!(String::from_utf8(command.output().unwrap().stdout).unwrap(), expected);
        assert_eq!(command.get_program(), "sh");
        assert_eq!(command.get_args().count(), 5);
        assert_eq!(command.get_envs().count(), 3);
        assert_eq!(command.get_current_dir(), Some(&*dir));
        let mut bare = sh("echo ${A-none}");
        bare.env("A", "a").env_clear().env("PATH", "/bin:/usr/bin");
        assert_eq!(bare.output().unwrap().stdout, b"none\n");
    }

    /// Each of the pipes fills up while the other one is read.
    fn much_on_both_pipes() {
        let script = format!("head -c {LARGE} /dev/zero & head -c {LARGE} /dev/zero >&2; wait");
        let output = sh(&script).output().unwrap();
        assert!(output.status.success());
        assert_eq!((output.stdout.len(), output.stderr.len()), (LARGE, LARGE));
        for redirect in ["2>&1", ">&2"] {
            let script = format!("head -c {LARGE} /dev/zero {redirect}");
            let output = sh(&script).output().unwrap();
            assert_eq!(output.stdout.len() + output.stderr.len(), LARGE);
        }
    }

    fn much_through_a_child() {
        let mut cat = Command::new("cat");
        let mut cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = cat.stdin.take().unwrap();
        let data: Vec<u8> = (0..LARGE).map(|n| (n * 7 % 251) as u8).collect();
        let sent = data.clone();
        let writer = std::thread::spawn(move || input.write_all(&sent));
        let output = cat.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        assert!(output.stdout == data && output.status.success());
    }

    fn a_conversation() {
        let mut cat = Command::new("cat");
        let cat = cat.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // The pipes can be moved out, as of std's.
        let (mut input, output) = (cat.stdin.unwrap(), cat.stdout.unwrap());
        let mut output = BufReader::new(output);
        for n in 0..50 {
            writeln!(input, "line {n}").unwrap();
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            assert_eq!(line, format!("line {n}\n"));
        }
        drop(input);
        assert_eq!(output.read(&mut [0; 8]).unwrap(), 0);
    }

    /// Or a child that reads to the end would never come to its own.
    fn waiting_closes_the_input() {
        let cat = || {
            let mut command = Command::new("cat");
            command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap()
        };
        assert!(cat().wait().unwrap().success());
        assert!(cat().wait_timeout(NEVER).unwrap().unwrap().success());
        assert!(cat().wait_with_output().unwrap().status.success());
        let mut child = cat();
        assert!(child.try_wait().unwrap().is_none());
        assert!(child.stdin.is_some());
        child.wait().unwrap();
    }

    fn a_child_that_does_not_read() {
        let mut child = Command::new("true").stdin(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        child.wait().unwrap();
        let error = input.write_all(&[0; 100_000]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    }

    fn killing() {
        let mut child = sleeper();
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        let status = child.wait().unwrap();
        assert_eq!((status.signal(), status.code()), (Some(libc::SIGKILL), None));
        // Known from now on.
        assert_eq!(child.wait().unwrap(), status);
        assert_eq!(child.try_wait().unwrap(), Some(status));
        assert_eq!(child.wait_timeout(Duration::ZERO).unwrap(), Some(status));
        child.kill().unwrap();
        child.send_signal(libc::SIGTERM).unwrap();
    }

    fn a_child_that_ignores_requests() {
        let mut command = sh("trap '' TERM; echo ready; exec sleep 1000");
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
        child.send_signal(libc::SIGTERM).unwrap();
        assert_eq!(child.wait_timeout(Duration::from_millis(60)).unwrap(), None);
        assert_eq!(child.wait_timeout(Duration::ZERO).unwrap(), None);
        assert_eq!(child.send_signal(-5).unwrap_err().kind(), ErrorKind::InvalidInput);
        child.kill().unwrap();
        assert_eq!(child.wait_timeout(NEVER).unwrap().unwrap().signal(), Some(libc::SIGKILL));
    }

    fn what_cannot_be_started() {
        let dir = TempDir::new();
        let plain = dir.path().join("plain");
        std::fs::write(&plain, "no program").unwrap();
        for program in ["no-such-program-anywhere", "", "a\0b", "/", plain.to_str().unwrap()] {
            let ours = format!("{:?}", error(Command::new(program).spawn()));
            let std = format!("{:?}", error(std::process::Command::new(program).spawn()));
            assert_eq!(ours, std, "{program:?}");
        }
        let nowhere = error(Command::new("true").current_dir(dir.path().join("none")).spawn());
        assert_eq!(format!("{nowhere:?}"), "Bad(NotFound, Some(2))");
    }

    fn streams_of_all_kinds() {
        let dir = TempDir::new();
        let path = dir.path().join("file");
        // A file of ours.
        let file = ramie::fs::File::create(&path).unwrap();
        assert!(Command::new("echo").arg("hello").stdout(file).status().unwrap().success());
        let file = ramie::fs::File::open(&path).unwrap();
        assert_eq!(Command::new("cat").stdin(file).output().unwrap().stdout, b"hello\n");
        // Another child's pipe.
        let mut first = sh("echo b; echo a").stdout(Stdio::piped()).spawn().unwrap();
        let second = Command::new("sort").stdin(first.stdout.take().unwrap()).output().unwrap();
        assert_eq!(second.stdout, b"a\nb\n");
        first.wait().unwrap();
        // A socket.
        let (mut ours, theirs) = ramie::os::unix::net::UnixStream::pair().unwrap();
        let theirs = OwnedFd::from(theirs);
        let mut cat = Command::new("cat");
        cat.stdin(theirs.try_clone().unwrap()).stdout(theirs);
        let mut child = cat.spawn().unwrap();
        drop(cat); // it has the other end, too
        ours.write_all(b"hello").unwrap();
        ours.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = String::new();
        ours.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), child.wait().unwrap().success()), ("hello", true));
        // None.
        let output = sh("cat; echo lost >&2").stderr(Stdio::null()).output().unwrap();
        assert_eq!((output.stdout.len(), output.stderr.len()), (0, 0));
        let inherited = sh("exit 0").stdout(Stdio::inherit()).spawn().unwrap();
        assert!(inherited.stdout.is_none());
        assert!(inherited.wait_with_output().unwrap().status.success());
    }

    /// What `output` says of the streams is for that call.
    fn a_command_is_used_again() {
        let mut command = sh("cat");
        assert_eq!(command.output().unwrap().stdout, b"");
        let mut child = command.spawn().unwrap();
        assert!(child.stdin.is_none() && child.stdout.is_none());
        child.kill().unwrap();
        child.wait().unwrap();
        command.stdin(Stdio::piped());
        let child = command.spawn().unwrap();
        assert!(child.stdin.is_some() && child.stdout.is_none());
        assert!(child.wait_with_output().unwrap().status.success());
        assert_eq!(command.output().unwrap().stdout, b"");
    }

    /// The fields are public, so anything may be put there.
    fn output_from_a_plain_file() {
        let dir = TempDir::new();
        std::fs::write(dir.path().join("file"), "from a file").unwrap();
        let file = std::fs::File::open(dir.path().join("file")).unwrap();
        let mut child = sh("echo err >&2").stderr(Stdio::piped()).spawn().unwrap();
        child.stdout = Some(ChildStdout::from(OwnedFd::from(file)));
        let output = child.wait_with_output().unwrap();
        assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"from a file"[..], &b"err\n"[..]));
    }

    fn what_only_unix_has() {
        let mut command = sh("echo $0; cut -d' ' -f5 /proc/$$/stat");
        command.arg0("another-name").process_group(0);
        let child = command.stdout(Stdio::piped()).spawn().unwrap();
        let id = child.id();
        let output = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let lines: Vec<&str> = output.lines().map(str::trim).collect();
        assert_eq!(lines, ["another-name", &id.to_string()]);

        let (mut reader, writer) = io::pipe().unwrap();
        let mut command = Command::new("true");
        let told = writer.try_clone().unwrap();
        // SAFETY: writes to a descriptor, which is async-signal-safe.
        unsafe { command.pre_exec(move || (&told).write_all(b"x")) };
        assert!(command.status().unwrap().success());
        // SAFETY: makes an error of a number.
        unsafe { command.pre_exec(|| Err(io::Error::from_raw_os_error(libc::EXDEV))) };
        assert_eq!(command.spawn().unwrap_err().raw_os_error(), Some(libc::EXDEV));
        drop((command, writer));
        let mut told = Vec::new();
        reader.read_to_end(&mut told).unwrap();
        assert_eq!(told, b"xx");
    }

    fn a_child_of_std() {
        let mut command = std::process::Command::new("cat");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = Child::from(command.spawn().unwrap());
        child.stdin.take().unwrap().write_all(b"hello").unwrap();
        let pipe = std::process::ChildStdout::from(child.stdout.take().unwrap());
        let mut pipe = ChildStdout::from(pipe);
        assert!(pipe.as_fd().try_clone_to_owned().is_ok());
        let mut text = String::new();
        assert_eq!(format!("{:?}", seen(pipe.read_to_string(&mut text))), "Good(5)");
        assert!(child.wait().unwrap().success());
    }

    /// While a thread unwinds nothing suspends.
    fn in_a_destructor() {
        struct Last;
        impl Drop for Last {
            fn drop(&mut self) {
                assert!(std::thread::panicking());
                assert_eq!(sh("echo out; echo err >&2").output().unwrap().stdout, b"out\n");
                let mut child = sleeper();
                assert_eq!(child.wait_timeout(Duration::from_millis(5)).unwrap(), None);
                child.kill().unwrap();
                child.wait().unwrap();
            }
        }
        let panic = std::panic::catch_unwind(|| {
            let _last = Last;
            std::panic::resume_unwind(Box::new("deliberate"));
        });
        assert!(panic.is_err());
    }
}
