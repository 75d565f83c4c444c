//! What the contract tests share.
//!
//! A contract test is a plain function that must hold wherever it runs; [`contract!`] makes tests
//! of it, one for each place. Inside, [`same!`] runs one body with `std::fs` and with `ramie::fs`
//! under the name `fs` and demands the same outcome, so that std says what is right.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod example;
pub mod process;
pub mod rng;
pub mod scopes;
pub mod watch;

#[allow(unused_imports, reason = "as above")]
pub use process::{child, eventually, fds, isolated, threads};

use std::fmt::Debug;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Defines test bodies and runs each of them in every place there is: on a plain thread, on the
/// main fiber of a runtime with one worker, and on a fiber spawned among two workers. (Under Miri
/// there are threads only.)
#[macro_export]
macro_rules! contract {
    ($($(#[doc = $doc:literal])* fn $name:ident() $body:block)*) => {
        $($(#[doc = $doc])* fn $name() $body)*

        mod on_a_thread {
            $(#[test] fn $name() { $crate::common::on_a_thread(super::$name) })*
        }

        #[cfg(not(miri))]
        mod on_a_fiber {
            $(#[test] fn $name() { $crate::common::on_a_fiber(super::$name) })*
        }

        #[cfg(not(miri))]
        mod among_two_workers {
            $(#[test] fn $name() { $crate::common::among_two_workers(super::$name) })*
        }
    };
}

/// Runs a test body as an ordinary thread does.
pub fn on_a_thread(body: fn()) {
    let _watchdog = watch::dog();
    assert!(!ramie::is_fiber());
    body();
}

/// Runs a test body as the main fiber of a runtime with one worker.
pub fn on_a_fiber(body: fn()) {
    let _watchdog = watch::dog();
    runtime(1).run(|| {
        assert!(ramie::is_fiber());
        body();
    });
}

/// Runs a test body as a spawned fiber of a runtime with two workers.
pub fn among_two_workers(body: fn()) {
    let _watchdog = watch::dog();
    runtime(2).run(|| {
        let fiber = ramie::spawn(move || {
            assert!(ramie::is_fiber());
            body();
        });
        if let Err(panic) = fiber.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// How often to do something that shows nothing new after some times: under Miri, a thousand times
/// slower, less often.
pub const fn times(n: usize) -> usize {
    if cfg!(miri) { n.div_ceil(100) } else { n }
}

/// Runs `f` on a fiber where there are fibers, or else on a thread; the result is to be joined.
pub fn go<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> impl FnOnce() -> T {
    let fiber = ramie::is_fiber();
    let (tx, rx) = std::sync::mpsc::channel();
    let work = move || _ = tx.send(f());
    let handle = if fiber { Ok(ramie::spawn(work)) } else { Err(std::thread::spawn(work)) };
    move || {
        match handle {
            Ok(fiber) => fiber.join().unwrap(),
            Err(thread) => thread.join().unwrap(),
        }
        rx.try_recv().unwrap()
    }
}

/// A runtime with that many workers.
pub fn runtime(workers: usize) -> ramie::Runtime {
    ramie::Runtime::builder().workers(workers).build().expect("a runtime can be built")
}

/// Runs a body twice, each time in a fresh directory: with std's `fs`, then with ours. What the two
/// return must look the same.
#[macro_export]
macro_rules! same {
    (|$dir:ident| $body:expr) => {{
        let expected = {
            #[allow(unused_imports)]
            use std::fs;
            #[allow(unused_imports)]
            use std::os::unix::fs as unix;
            let temp = $crate::common::TempDir::new();
            let $dir = temp.path();
            format!("{:?}", $body)
        };
        let ours = {
            #[allow(unused_imports)]
            use ramie::fs;
            #[allow(unused_imports)]
            use ramie::os::unix::fs as unix;
            let temp = $crate::common::TempDir::new();
            let $dir = temp.path();
            format!("{:?}", $body)
        };
        assert_eq!(ours, expected);
    }};
}

/// An outcome in a form that can be compared: the value, or the error's kind and number.
#[derive(Debug)]
pub enum Seen<T> {
    /// It worked.
    Good(T),
    /// It did not.
    Bad(io::ErrorKind, Option<i32>),
}

/// Makes an outcome comparable.
pub fn seen<T: Debug>(result: io::Result<T>) -> Seen<T> {
    match result {
        Ok(value) => Seen::Good(value),
        Err(e) => Seen::Bad(e.kind(), e.raw_os_error()),
    }
}

/// As [`seen`], of an outcome whose value does not matter.
pub fn error<T>(result: io::Result<T>) -> Seen<()> {
    seen(result.map(drop))
}

/// A directory of its own, removed with all its contents when it goes out of scope.
pub struct TempDir {
    path: PathBuf,
}

impl TempDir {
    /// Makes a new, empty directory.
    pub fn new() -> Self {
        Self::new_in(&std::env::temp_dir()).expect("a temporary directory can be made")
    }

    /// One in memory; `None` where there is no such place.
    pub fn in_memory() -> Option<Self> {
        Self::new_in(Path::new("/dev/shm")).ok()
    }

    fn new_in(base: &Path) -> io::Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        loop {
            let n = NEXT.fetch_add(1, Ordering::Relaxed);
            let name = format!("ramie-test-{}-{n}", std::process::id());
            let path = base.join(name);
            match std::fs::create_dir(&path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                result => return result.map(|()| TempDir { path }),
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
