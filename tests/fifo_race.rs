//! Opening a FIFO to read, through the ring, races its writer.
//!
//! Alone in its binary on purpose: while a child process starts it holds copies of all descriptors
//! for a moment, and a writer that meets such a copy of an earlier reading end does not wait for us.

use std::ffi::CString;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;

/// A writer that waits in `open` is let in by the ring's hasty open and may be gone before the
/// reader first looks: over and over, no reader waits for ever and no text is lost.
///
/// The reader once asked for a hang-up, then for a silent writer, and waited if both said no: a
/// writer that left between the two questions was missed.
#[test]
fn no_writer_is_missed() {
    let path = std::env::temp_dir().join(format!("ramie-fifo-race-{}", std::process::id()));
    let name = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the name is a C string for the whole call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);

    let runtime = ramie::Runtime::builder().workers(1).build().unwrap();
    for n in 0..300 {
        let theirs = path.clone();
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
            ramie::fs::File::open(&path).unwrap().read_to_string(&mut text).unwrap();
            text
        });
        assert_eq!(text, if n % 2 == 0 { "x" } else { "" });
        writer.join().unwrap();
    }
    std::fs::remove_file(&path).unwrap();
}
