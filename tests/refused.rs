//! Where the system refuses io_uring: everything works all the same, and one warning says why.
//!
//! Also the launcher of `ci/refused.sh`, which runs other test programs under such a filter.

mod common;

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Mutex;

/// Makes the kernel answer io_uring's three system calls with `errno`, as containers' filters do:
/// for the calling thread, and what it starts or becomes from now on.
fn refuse_io_uring(errno: i32) {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        step(LOAD, 0, 0, 0), // the call's number
        step(JUMP_IF, 3, 0, libc::SYS_io_uring_setup as u32),
        step(JUMP_IF, 2, 0, libc::SYS_io_uring_enter as u32),
        step(JUMP_IF, 1, 0, libc::SYS_io_uring_register as u32),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
        step(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: a filter of this thread's own calls; the kernel copies it.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_MODE_FILTER;
        assert_eq!(libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program), 0);
    }
}

static LOGGED: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl Write for Log {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        LOGGED.lock().unwrap().write(buf)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Keeps the process's warnings and errors in `LOGGED`, a line each.
fn collect_warnings() {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_core::Level::WARN)
        .with_ansi(false)
        .with_writer(|| Log);
    tracing_core::dispatcher::set_global_default(subscriber.finish().into()).unwrap();
}

/// A bit of everything, on several workers.
fn use_everything() {
    let runtime = common::runtime(2);
    runtime.run(|| {
        let listener = ramie::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let server = ramie::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        });
        let text = "suspends instead of blocking".repeat(10_000);
        let mut client = ramie::net::TcpStream::connect(addr).unwrap();
        client.write_all(text.as_bytes()).unwrap();
        drop(client);
        assert_eq!(server.join().unwrap(), text);

        let dir = common::TempDir::new();
        let path = dir.path().join("file");
        ramie::fs::write(&path, &text).unwrap();
        assert_eq!(ramie::fs::read_to_string(&path).unwrap(), text);
        ramie::fs::remove_file(path).unwrap();
    });
}

fn one_warning(name: &str, errno: i32, cause: &str) {
    let variables = [("RAMIE_DRIVER", "auto"), ("RAMIE_CAPS", "")];
    let output = common::process::child_with(name, &variables, || {
        refuse_io_uring(errno);
        collect_warnings();
        for _ in 0..3 {
            use_everything();
        }
        assert!(!ramie::probe().has_io_uring());
        std::io::stdout().write_all(&LOGGED.lock().unwrap()).unwrap();
    });
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let warnings: Vec<&str> = text.lines().filter(|line| line.contains("WARN")).collect();
    let [warning] = warnings[..] else { panic!("{} warnings:\n{text}", warnings.len()) };
    assert!(warning.contains(cause) && warning.contains("without io_uring"), "{warning}");
    assert!(!text.contains("ERROR"), "{text}");
}

#[test]
fn refused_with_eperm_it_works_and_warns_once() {
    one_warning("refused_with_eperm_it_works_and_warns_once", libc::EPERM, "seccomp");
}

#[test]
fn refused_with_enosys_it_works_and_warns_once() {
    one_warning("refused_with_enosys_it_works_and_warns_once", libc::ENOSYS, "sandbox");
}

#[test]
fn who_insists_on_io_uring_gets_the_reason() {
    let output = common::child("who_insists_on_io_uring_gets_the_reason", || {
        refuse_io_uring(libc::EPERM);
        let builder = ramie::Runtime::builder().workers(1).driver(ramie::DriverKind::Uring);
        println!("{}", builder.build().unwrap_err());
    });
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("kernel.io_uring_disabled"), "{output:?}");
}

/// Becomes the shell command in `RAMIE_LAUNCH`, under a filter that answers `RAMIE_REFUSE`.
#[test]
#[ignore = "a launcher for ci/refused.sh"]
fn launcher() {
    let errno = match std::env::var("RAMIE_REFUSE").as_deref() {
        Ok("EPERM") => libc::EPERM,
        Ok("ENOSYS") => libc::ENOSYS,
        other => panic!("RAMIE_REFUSE is to be EPERM or ENOSYS, not {other:?}"),
    };
    let command = std::env::var("RAMIE_LAUNCH").expect("RAMIE_LAUNCH is a command");
    refuse_io_uring(errno);
    panic!("{}", Command::new("sh").args(["-c", &format!("exec {command}")]).exec());
}
