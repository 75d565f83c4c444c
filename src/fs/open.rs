//! Opening through a ring, where a FIFO needs care.
//!
//! `open` of a FIFO waits for the other end. A ring op does not keep to that:
//!
//! | how the ring runs the open              | a FIFO opened to read | to write            |
//! |-----------------------------------------|-----------------------|---------------------|
//! | inline, as if with `O_NONBLOCK`         | succeeds at once      | ENXIO               |
//! | on a kernel worker: `O_CREAT`,          | waits, and holds up a | waits, and holds up |
//! | `O_TRUNC`, or the name is not cached    | worker others need    | a worker            |
//!
//! So an open that would go to a worker because of its flags is made with `O_NONBLOCK`, which is
//! taken back afterwards, and is then like an inline one. So is every open where there is no ring
//! that can do it: it would occupy a thread of the blocking pool. ENXIO to a writer means that an
//! OS thread must wait for the reader. A reader that was opened in haste is asked whether it is a
//! pipe, which costs a regular file some 30 ns, the price of the whole arrangement; if it is one,
//! the fiber waits here until there is or was a writer, as `open` would have. That wait loses no
//! writer:
//!
//! 1. The watch is set before the look at the pipe that decides to wait.
//! 2. A writer's open cannot wait, since there is a reader; when it is done the watch has an event.
//! 3. A writer that has come is seen ever after: by its presence, its data or the hang-up it left
//!    (`sys::fifo::writer_seen` looks for the hang-up last, so that none slips through between).
//!
//! Reopening on an OS thread instead could wait for ever: the first open lets a writer in, which
//! may have written and left before the second open begins.
//!
//! What remains different from `open`: a name that is not in the kernel's cache yet and turns out
//! to be a FIFO occupies a kernel worker while it waits, and terminals are opened without waiting
//! for their line.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::retry;
use crate::op::{AT_POSITION, Op, Way};
use crate::sched::{
    Haste, blocking, create_here, created, haste, perform_fd, submit, submit_fd, waiting,
};
use crate::sys::fifo;
use crate::sys::file::{Believed, believed};

/// Flags with which an open never waits for another process, or opens no stream at all.
const NEVER_WAITS: i32 = libc::O_NONBLOCK | libc::O_DIRECTORY | libc::O_PATH;

/// A descriptor that has just been opened.
pub(super) struct Opened {
    pub(super) fd: OwnedFd,
    /// Whether it is known to be no pipe.
    pub(super) no_pipe: bool,
    /// How it is written, as far as that is known.
    pub(super) writes: Way,
    /// What it is believed to be, if that was asked for.
    pub(super) believed: Option<Believed>,
}

impl Opened {
    /// A file of which nothing is known.
    fn new(fd: OwnedFd) -> Self {
        Opened { fd, no_pipe: false, writes: Way::Unknown, believed: None }
    }
}

/// Opens `path`, relative to `dir` if there is one, as the system call does, with the same waits.
pub(super) fn open(
    dir: Option<BorrowedFd<'_>>,
    path: &CStr,
    flags: i32,
    mode: u32,
) -> io::Result<Opened> {
    let attempt = |flags| retry(|| submit_fd(Op::OpenAt { dir, path, flags, mode }));
    match haste() {
        haste if haste != Haste::No && flags & NEVER_WAITS == 0 => {
            if dir.is_none()
                && flags & libc::O_CREAT != 0
                && let Some(fd) = create_here(path, flags, mode)
            {
                let writes = created(path, fd.as_fd());
                return Ok(Opened { no_pipe: true, writes, ..Opened::new(fd) });
            }
            let opened = open_in_haste(dir, path, flags, mode, haste, attempt, |_| None)?;
            if dir.is_some() || flags & libc::O_CREAT == 0 {
                return Ok(opened);
            }
            let writes = created(path, opened.fd.as_fd());
            Ok(Opened { writes, ..opened })
        }
        _ => attempt(flags).map(Opened::new),
    }
}

/// Opens a file that exists, and asks what it is believed to be.
pub(super) fn open_and_ask(path: &CStr, flags: i32, mode: u32) -> io::Result<Opened> {
    let attempt = |flags| retry(|| submit_fd(Op::OpenAt { dir: None, path, flags, mode }));
    let opened = match haste() {
        Haste::No => Opened::new(attempt(flags)?),
        haste => open_in_haste(None, path, flags, mode, haste, attempt, believed)?,
    };
    let believed = opened.believed.or_else(|| believed(opened.fd.as_fd()));
    Ok(Opened { believed, ..opened })
}

/// Opens with an `attempt` that may act as if it were given `O_NONBLOCK`. `ask` may tell that the
/// file is a plain one, which is then not asked whether it is a pipe.
fn open_in_haste(
    dir: Option<BorrowedFd<'_>>,
    path: &CStr,
    flags: i32,
    mode: u32,
    haste: Haste,
    attempt: impl FnOnce(i32) -> io::Result<OwnedFd>,
    ask: impl FnOnce(BorrowedFd<'_>) -> Option<Believed>,
) -> io::Result<Opened> {
    let asks = haste == Haste::Needed || flags & (libc::O_CREAT | libc::O_TRUNC) != 0;
    let fd = match attempt(flags | if asks { libc::O_NONBLOCK } else { 0 }) {
        Ok(fd) => fd,
        // A FIFO without a reader, or a file whose lease its holder must give back first.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENXIO | libc::EWOULDBLOCK)) => {
            let fd = waiting(|| retry(|| perform_fd(Op::OpenAt { dir, path, flags, mode })))?;
            return Ok(Opened::new(fd));
        }
        Err(e) => return Err(e),
    };
    if asks {
        fifo::make_waiting(fd.as_fd(), flags)?;
    }
    let reads = flags & libc::O_ACCMODE == libc::O_RDONLY;
    let believed = ask(fd.as_fd());
    let plain = believed.is_some_and(|file| file.plain);
    let pipe = reads && !plain && fifo::is_pipe(fd.as_fd());
    if pipe {
        wait_for_writer(&fd)?;
    }
    Ok(Opened { no_pipe: reads && !pipe, believed, ..Opened::new(fd) })
}

/// Waits until the FIFO that `reader` was opened for has, or has had, a writer.
#[cold]
fn wait_for_writer(reader: &OwnedFd) -> io::Result<()> {
    let reader = reader.as_fd();
    if fifo::writer_seen(reader)? || !fifo::has_name(reader)? {
        return Ok(());
    }
    let watch = fifo::watch_opens(reader)?;
    let result = await_writer(reader, &watch);
    // The kernel takes some 10 ms for this.
    blocking(|| drop(watch));
    result
}

fn await_writer(reader: BorrowedFd<'_>, watch: &OwnedFd) -> io::Result<()> {
    while !fifo::writer_seen(reader)? {
        let mut events = [0; 256];
        retry(|| {
            let (fd, buf) = (watch.as_fd(), &mut events);
            submit(Op::Read { fd, buf, offset: AT_POSITION, habit: None, nowait: false })
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::unix::ffi::OsStrExt;
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread::{sleep, spawn};
    use std::time::{Duration, Instant};

    const WHILE: Duration = Duration::from_millis(30);

    struct Fifo(PathBuf);

    impl Fifo {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("ramie-fifo-{}-{n}", std::process::id());
            let path = std::env::temp_dir().join(name);
            let made = std::process::Command::new("mkfifo").arg(&path).status();
            assert!(made.unwrap().success());
            Fifo(path)
        }

        fn open(&self, flags: i32) -> io::Result<File> {
            as_a_ring_would(&self.0, flags)
        }

        fn writer(&self) -> File {
            File::options().write(true).open(&self.0).unwrap()
        }
    }

    impl Drop for Fifo {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    /// Opens as an inline ring op: `O_NONBLOCK`, which nobody sees afterwards.
    fn as_a_ring_would(path: &Path, flags: i32) -> io::Result<File> {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        let attempt = |flags| {
            let hasty = flags | libc::O_NONBLOCK;
            let fd = perform_fd(Op::OpenAt { dir: None, path: &path, flags: hasty, mode: 0o600 })?;
            if flags & libc::O_NONBLOCK == 0 {
                fifo::make_waiting(fd.as_fd(), flags)?;
            }
            Ok(fd)
        };
        open_in_haste(None, &path, flags, 0o600, Haste::Implied, attempt, believed)
            .map(|opened| opened.fd.into())
    }

    #[test]
    fn a_reader_waits_for_a_silent_writer() {
        let fifo = Fifo::new();
        let path = fifo.0.clone();
        let (opened, reader_has_opened) = std::sync::mpsc::channel();
        let start = Instant::now();
        let writer = spawn(move || {
            sleep(WHILE);
            let _file = File::options().write(true).open(path).unwrap();
            reader_has_opened.recv_timeout(Duration::from_secs(20)).is_ok()
        });
        let mut reader = fifo.open(libc::O_RDONLY).unwrap();
        assert!(start.elapsed() >= WHILE);
        opened.send(()).unwrap();
        assert_eq!(reader.read(&mut [0; 9]).unwrap(), 0);
        assert!(writer.join().unwrap(), "the open returned when the writer came, not when it left");
    }

    #[test]
    fn a_writer_that_has_left_is_seen() {
        let fifo = Fifo::new();
        for text in ["", "some text"] {
            let reader = {
                let path = fifo.0.clone();
                spawn(move || {
                    let mut read = String::new();
                    as_a_ring_would(&path, libc::O_RDONLY)?.read_to_string(&mut read)?;
                    io::Result::Ok(read)
                })
            };
            fifo.writer().write_all(text.as_bytes()).unwrap();
            assert_eq!(reader.join().unwrap().unwrap(), text);
        }
    }

    #[test]
    fn a_writer_waits_for_a_reader() {
        for flags in [libc::O_WRONLY, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC] {
            let fifo = Fifo::new();
            let path = fifo.0.clone();
            let start = Instant::now();
            let reader = spawn(move || {
                sleep(WHILE);
                std::fs::read(path).unwrap()
            });
            let mut writer = fifo.open(flags).unwrap();
            assert!(start.elapsed() >= WHILE);
            writer.write_all(b"text").unwrap();
            drop(writer);
            assert_eq!(reader.join().unwrap(), b"text");
        }
    }

    #[test]
    fn what_is_no_fifo_is_not_waited_for() {
        let fifo = Fifo::new();
        fifo.open(libc::O_RDWR).unwrap();
        let (reader, writer) = io::pipe().unwrap();
        drop(writer);
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
        let mut again = as_a_ring_would(Path::new(&path), libc::O_RDONLY).unwrap();
        assert_eq!(again.read(&mut [0; 9]).unwrap(), 0);
        as_a_ring_would(Path::new("/dev/null"), libc::O_RDONLY).unwrap();
        let e = as_a_ring_would(Path::new("/nothing/here"), libc::O_RDONLY).unwrap_err();
        assert_eq!(e.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn haste_leaves_no_trace_in_the_flags() {
        let path = std::env::temp_dir().join(format!("ramie-haste-{}", std::process::id()));
        for flags in [libc::O_CREAT | libc::O_WRONLY, libc::O_TRUNC | libc::O_RDWR | libc::O_APPEND]
        {
            let file = as_a_ring_would(&path, flags).unwrap();
            let info = format!("/proc/self/fdinfo/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
            let info = std::fs::read_to_string(info).unwrap();
            let seen = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
            let seen = i32::from_str_radix(seen.trim(), 8).unwrap();
            assert_eq!(seen & libc::O_NONBLOCK, 0);
            assert_eq!(seen & libc::O_APPEND, flags & libc::O_APPEND);
        }
        std::fs::remove_file(path).unwrap();
    }
}
