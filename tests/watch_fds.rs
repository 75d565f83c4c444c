//! `ramie::watch` leaves no descriptors open. By itself, since it starts a process: until that
//! executes its program it has copies of all files that are open, so one that another test closes
//! meanwhile is reported as closed later than that test expects.

mod common;

use common::{TempDir, fds, isolated, runtime};
use ramie::watch::Watcher;
use std::fs;
use std::sync::Arc;

#[test]
fn no_descriptor_is_left() {
    isolated("no_descriptor_is_left", || {
        // One worker: a second one may start at any time, and has a ring of its own.
        runtime(1).run(|| {
            let dir = TempDir::new();
            let work = || {
                let watcher = Arc::new(Watcher::new().unwrap());
                watcher.add_dir(dir.path(), ()).unwrap();
                watcher.add_file("missing/x", ()).unwrap_err();
                let theirs = watcher.clone();
                let fiber = ramie::spawn(move || theirs.recv().map(|event| event.kind));
                fs::write(dir.path().join("x"), "").unwrap();
                fiber.join().unwrap().unwrap();
                fs::remove_file(dir.path().join("x")).unwrap();
            };
            work();
            let before = fds();
            for _ in 0..5 {
                work();
            }
            assert_eq!(fds(), before);
        });
    });
}
