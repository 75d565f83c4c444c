//! Where the system refuses io_uring: everything works all the same, and one warning says why.
//!
//! Also the launcher of `ci/refused.sh`, which runs other test programs under such a filter.

mod common;

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Mutex;

/// The calls of io_uring.
const RINGS: [libc::c_long; 3] =
    [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// All that the crate can do without: what came with Linux 4.3 to 5.11. Sandboxes with a kernel of
/// their own lack some of these, and so do filters that were written before them.
const NEWER: [libc::c_long; 14] = [
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_membarrier,
    libc::SYS_copy_file_range,
    libc::SYS_preadv2,
    libc::SYS_pwritev2,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_openat2,
    libc::SYS_faccessat2,
    libc::SYS_close_range,
    libc::SYS_process_madvise,
    libc::SYS_epoll_pwait2,
];

/// Makes the kernel answer some system calls with `errno`, as containers' filters do.
fn refuse(calls: &[libc::c_long], errno: i32) {
    filter(calls, libc::SECCOMP_RET_ERRNO | errno as u32);
}

/// Decides what becomes of some system calls of this thread, and of what it starts or becomes from
/// now on.
fn filter(calls: &[libc::c_long], action: u32) {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const JUMP_IF: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, k| libc::sock_filter { code, jt, jf: 0, k };
    let mut steps = vec![step(LOAD, 0, 0)]; // the call's number
    for (left, &call) in (1..=calls.len()).rev().zip(calls) {
        steps.push(step(JUMP_IF, left as u8, call as u32));
    }
    steps.push(step(RETURN, 0, libc::SECCOMP_RET_ALLOW));
    steps.push(step(RETURN, 0, action));
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
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
        let mut null = ramie::fs::OpenOptions::new().write(true).open("/dev/null").unwrap();
        assert_eq!(null.write(text.as_bytes()).unwrap(), text.len());
    });
}

fn one_warning(name: &str, calls: &[libc::c_long], errno: i32, remedy: &str) {
    let variables = [("RAMIE_DRIVER", "auto"), ("RAMIE_CAPS", "")];
    let output = common::process::child_with(name, &variables, || {
        refuse(calls, errno);
        collect_warnings();
        for _ in 0..3 {
            use_everything();
        }
        // And several at a time.
        std::thread::scope(|scope| (0..3).for_each(|_| drop(scope.spawn(use_everything))));
        assert!(!ramie::probe().has_io_uring());
        std::io::stdout().write_all(&LOGGED.lock().unwrap()).unwrap();
    });
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    let warnings: Vec<&str> = text.lines().filter(|line| line.contains("WARN")).collect();
    let [warning] = warnings[..] else { panic!("{} warnings:\n{text}", warnings.len()) };
    assert!(warning.contains(remedy) && warning.contains("without io_uring"), "{warning}");
    assert!(!text.contains("ERROR"), "{text}");
}

#[test]
fn refused_with_eperm_it_works_and_warns_once() {
    one_warning(
        "refused_with_eperm_it_works_and_warns_once",
        &RINGS,
        libc::EPERM,
        "let the seccomp filter",
    );
}

#[test]
fn refused_with_enosys_it_works_and_warns_once() {
    one_warning(
        "refused_with_enosys_it_works_and_warns_once",
        &RINGS,
        libc::ENOSYS,
        "let the seccomp filter",
    );
}

/// Before Linux 5.12 a ring counted as locked memory.
#[test]
fn refused_with_enomem_it_works_and_warns_once() {
    let name = "refused_with_enomem_it_works_and_warns_once";
    one_warning(name, &RINGS, libc::ENOMEM, "raise the limit on locked memory");
}

/// There are filters that end who tries.
#[test]
fn who_asks_for_no_ring_has_none_tried() {
    let name = "who_asks_for_no_ring_has_none_tried";
    let variables = [("RAMIE_DRIVER", "poll"), ("RAMIE_CAPS", "")];
    let output = common::process::child_with(name, &variables, || {
        filter(&RINGS, libc::SECCOMP_RET_KILL_PROCESS);
        collect_warnings();
        use_everything();
        assert!(LOGGED.lock().unwrap().is_empty());
    });
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn where_newer_calls_are_missing_too_it_works_and_warns_once() {
    let name = "where_newer_calls_are_missing_too_it_works_and_warns_once";
    one_warning(name, &NEWER, libc::ENOSYS, "let the seccomp filter");
}

#[test]
fn where_newer_calls_are_refused_too_it_works_and_warns_once() {
    let name = "where_newer_calls_are_refused_too_it_works_and_warns_once";
    one_warning(name, &NEWER, libc::EPERM, "let the seccomp filter");
}

#[test]
fn who_insists_on_io_uring_gets_the_reason() {
    let output = common::child("who_insists_on_io_uring_gets_the_reason", || {
        refuse(&RINGS, libc::EPERM);
        let builder = ramie::Runtime::builder().workers(1).driver(ramie::DriverKind::Uring);
        println!("{}", builder.build().unwrap_err());
    });
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("let the seccomp filter"), "{output:?}");
}

/// Becomes the shell command in `RAMIE_LAUNCH`, under a filter that answers `RAMIE_REFUSE` to
/// io_uring's calls, or to all of `NEWER` if `RAMIE_REFUSE_MORE` is there.
#[test]
#[ignore = "a launcher for ci/refused.sh"]
fn launcher() {
    let errno = match std::env::var("RAMIE_REFUSE").as_deref() {
        Ok("EPERM") => libc::EPERM,
        Ok("ENOSYS") => libc::ENOSYS,
        other => panic!("RAMIE_REFUSE is to be EPERM or ENOSYS, not {other:?}"),
    };
    let command = std::env::var("RAMIE_LAUNCH").expect("RAMIE_LAUNCH is a command");
    let more = std::env::var_os("RAMIE_REFUSE_MORE").is_some();
    refuse(if more { &NEWER } else { &RINGS }, errno);
    panic!("{}", Command::new("sh").args(["-c", &format!("exec {command}")]).exec());
}
