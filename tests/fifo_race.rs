//! FIFOs whose ends come and go quickly.
//!
//! Alone in its binary on purpose: while a child process starts it holds copies of all descriptors
//! for a moment, and a writer that meets such a copy of an earlier reading end does not wait for
//! us.

use std::ffi::CString;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

struct Fifo(PathBuf);

impl Fifo {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ramie-fifo-race-{}-{n}", std::process::id()));
        let name = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: the name is a C string for the whole call.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        Fifo(path)
    }
}

impl Drop for Fifo {
    fn drop(&mut self) {
        _ = std::fs::remove_file(&self.0);
    }
}

fn rounds(default: u32) -> u32 {
    std::env::var("RAMIE_FIFO_ROUNDS").map_or(default, |n| n.parse().unwrap())
}

/// Opens the FIFO to write, if it has a reader.
fn hasty_writer(path: &Path) -> std::io::Result<std::fs::File> {
    std::fs::File::options().write(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// A writer that waits in `open` is let in by the ring's hasty open and may be gone before the
/// reader first looks: over and over, no reader waits for ever and no text is lost.
///
/// The reader once asked for a hang-up, then for a silent writer, and waited if both said no: a
/// writer that left between the two questions was missed. And a reader that was closed was held
/// open by the kernel, so that the next writer did not wait (`closed_is_closed`).
#[test]
fn no_writer_is_missed() {
    let fifo = Fifo::new();
    let runtime = ramie::Runtime::builder().workers(1).build().unwrap();
    for n in 0..rounds(300) {
        let theirs = fifo.0.clone();
        let writer = std::thread::spawn(move || {
            let mut file = std::fs::File::options().write(true).open(theirs).unwrap();
            if n % 2 == 0 {
                file.write_all(b"x").unwrap();
            }
        });
        if n % 3 == 0 {
            std::thread::yield_now();
        }
        let text = runtime.run(|| {
            let mut text = String::new();
            ramie::fs::File::open(&fifo.0).unwrap().read_to_string(&mut text).unwrap();
            text
        });
        assert_eq!(text, if n % 2 == 0 { "x" } else { "" });
        writer.join().unwrap();
        if n % 1000 == 999 {
            println!("{n}");
        }
    }
}

/// A FIFO that was read to its end has no reader once that is dropped. When the ring saw the end,
/// it did so on a kernel worker, whose request outlived its completion and kept the FIFO open.
#[test]
fn closed_is_closed() {
    let fifo = Fifo::new();
    let runtime = ramie::Runtime::builder().workers(1).build().unwrap();
    runtime.run(|| {
        for n in 0..rounds(500) {
            let reader = std::fs::File::options()
                .read(true)
                .custom_flags(libc::O_NONBLOCK)
                .open(&fifo.0)
                .unwrap();
            // SAFETY: no memory is passed; the descriptor is open.
            assert_eq!(
                unsafe { libc::fcntl(std::os::fd::AsRawFd::as_raw_fd(&reader), libc::F_SETFL, 0) },
                0
            );
            let mut reader = ramie::fs::File::from(reader);
            hasty_writer(&fifo.0).unwrap().write_all(b"text").unwrap();
            let mut buf = [0; 9];
            assert_eq!(reader.read(&mut buf).unwrap(), 4);
            assert_eq!(reader.read(&mut buf).unwrap(), 0);
            drop(reader);
            let error = hasty_writer(&fifo.0).expect_err("the reader is closed");
            assert_eq!(error.raw_os_error(), Some(libc::ENXIO), "round {n}");
        }
    });
}

/// The end of a FIFO is seen without its writer's hang-up: it was gone when the reader came. To
/// `read` that is an end like any other.
#[test]
fn an_end_before_the_beginning() {
    let fifo = Fifo::new();
    let (done, is_done) = std::sync::mpsc::channel();
    let theirs = fifo.0.clone();
    std::thread::spawn(move || {
        let first = std::fs::File::options()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&theirs)
            .unwrap();
        hasty_writer(&theirs).unwrap().write_all(b"text").unwrap();
        let runtime = ramie::Runtime::builder().workers(1).build().unwrap();
        let text = runtime.run(|| {
            let mut text = String::new();
            ramie::fs::File::open(&theirs).unwrap().read_to_string(&mut text).unwrap();
            text
        });
        drop(first);
        done.send(text).unwrap();
    });
    let text = is_done.recv_timeout(std::time::Duration::from_secs(20));
    assert_eq!(text.as_deref(), Ok("text"), "the read waits for a writer that was there");
}
