//! `ramie::watch`: what is reported, what is not, and what is left over.

mod common;

use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::rng::Rng;
use common::{TempDir, runtime};
use ramie::watch::{Event, EventKind, Watcher};
use std::fs;

use EventKind::{CloseWrite, Create, Delete, Ended, Modify, Overflow, Rename};

/// Long enough for anything that is to come.
const LONG: Duration = Duration::from_secs(20);
/// Long enough for what has happened already.
const SHORT: Duration = Duration::from_millis(30);

/// What is reported until nothing more comes, without the modifications, of which the kernel may
/// make one or several.
fn all<V: Clone>(watcher: &Watcher<V>) -> Vec<Event<V>> {
    let next = || watcher.recv_timeout(SHORT).unwrap();
    std::iter::from_fn(next).filter(|event| event.kind != Modify).collect()
}

fn kinds<V: Clone>(watcher: &Watcher<V>) -> Vec<EventKind> {
    all(watcher).into_iter().map(|event| event.kind).collect()
}

/// Kinds and file names.
fn told<V: Clone>(watcher: &Watcher<V>) -> Vec<(EventKind, String)> {
    let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    all(watcher).into_iter().map(|event| (event.kind, name(event.path))).collect()
}

fn next<V: Clone>(watcher: &Watcher<V>) -> Event<V> {
    watcher.recv_timeout(LONG).unwrap().expect("an event")
}

fn renamed(from: &Path) -> EventKind {
    Rename { from: from.to_path_buf() }
}

contract! {
    /// An ancestor's test.
    fn write_a_file_watch_it_write_it_again() {
        let dir = TempDir::new();
        let path = dir.path().join("file");
        fs::write(&path, "line 1\nline 2\n").unwrap(); // ours may be let go a little later (D9)
        let watcher = Watcher::new().unwrap();
        assert_eq!(watcher.add_file(&path, 'v').unwrap(), None);
        assert_eq!(all(&watcher), []);
        let mut file = ramie::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"line 3\n").unwrap();
        let modified = Event { kind: Modify, path: path.clone(), value: Some('v') };
        assert_eq!(next(&watcher), modified);
        file.close().unwrap();
        let closed = Event { kind: CloseWrite, path: path.clone(), value: Some('v') };
        assert_eq!(next(&watcher), closed);
        assert_eq!(fs::read(&path).unwrap().len(), 21);
    }

    /// What the ancestor could not do.
    fn delete_it_and_make_it_again() {
        let dir = TempDir::new();
        let path = dir.path().join("file");
        let watcher = Watcher::new().unwrap();
        watcher.add_file(&path, ()).unwrap(); // it need not be there yet
        for _ in 0..3 {
            fs::write(&path, "x").unwrap();
            assert_eq!(kinds(&watcher), [Create, CloseWrite]);
            fs::write(&path, "y").unwrap();
            assert_eq!(kinds(&watcher), [CloseWrite]);
            fs::remove_file(&path).unwrap();
            assert_eq!(kinds(&watcher), [Delete]);
        }
        // Its neighbours are nobody's concern.
        fs::write(dir.path().join("other"), "x").unwrap();
        assert_eq!(all(&watcher), []);
    }

    /// As editors do: a new file is written and renamed over the old one, which was moved away.
    fn a_file_is_replaced_by_renaming() {
        let dir = TempDir::new();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "old").unwrap();
        let watcher = Watcher::new().unwrap();
        watcher.add_file(at("file"), 7).unwrap();
        fs::write(at("new"), "new").unwrap();
        fs::rename(at("file"), at("file~")).unwrap();
        fs::rename(at("new"), at("file")).unwrap();
        let event = |kind, path| Event { kind, path, value: Some(7) };
        assert_eq!(all(&watcher), [
            event(renamed(&at("file")), at("file~")),
            event(renamed(&at("new")), at("file")),
        ]);
        ramie::fs::write_atomic(at("file"), "newer").unwrap();
        // It is written before it has a name.
        let events = all(&watcher);
        let [Event { kind: Rename { from }, path, .. }] = &events[..] else {
            panic!("{events:?}")
        };
        assert!(from.starts_with(dir.path()) && *path == at("file"));
        fs::write(at("file"), "in place").unwrap();
        assert_eq!(kinds(&watcher), [CloseWrite]);
    }

    /// To and from directories that are not watched.
    fn half_a_rename() {
        let (dir, elsewhere) = (TempDir::new(), TempDir::new());
        let (here, there) = (dir.path().join("file"), elsewhere.path().join("file"));
        fs::write(&there, "x").unwrap();
        let watcher = Watcher::new().unwrap();
        watcher.add_file(&here, ()).unwrap();
        for _ in 0..3 {
            fs::rename(&there, &here).unwrap();
            fs::rename(&here, &there).unwrap();
        }
        assert_eq!(kinds(&watcher), [Create, Delete, Create, Delete, Create, Delete]);
        // Both watched: one rename, told to both.
        watcher.add_file(&there, ()).unwrap();
        fs::rename(&there, &here).unwrap();
        assert_eq!(kinds(&watcher), [renamed(&there), renamed(&there)]);
    }

    fn values_and_paths() {
        let dir = TempDir::new();
        let path = dir.path().join("file");
        let watcher = Watcher::new().unwrap();
        assert_eq!(watcher.remove(&path), None);
        assert_eq!(watcher.add_file(&path, "one".to_owned()).unwrap(), None);
        fs::write(&path, "x").unwrap();
        assert_eq!(watcher.add_file(&path, "two".to_owned()).unwrap(), Some("one".to_owned()));
        fs::remove_file(&path).unwrap();
        let last = all(&watcher).pop().unwrap();
        assert_eq!((last.kind, last.value.as_deref()), (Delete, Some("two")));
        // As a directory, under another spelling of the same path.
        fs::create_dir(&path).unwrap();
        let spelled = dir.path().join(".").join("file");
        assert_eq!(watcher.add_dir(&spelled, "three".to_owned()).unwrap().as_deref(), Some("two"));
        fs::write(path.join("x"), "x").unwrap();
        let first = next(&watcher);
        assert_eq!((first.kind, first.path), (Create, spelled.join("x")));
        // What has been removed is silent, also about what has happened before.
        assert_eq!(watcher.remove(&path).as_deref(), Some("three"));
        assert_eq!(watcher.remove(&path), None);
        assert_eq!(all(&watcher), []);
    }

    fn what_cannot_be_added() {
        let dir = TempDir::new();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        let watcher = Watcher::new().unwrap();
        watcher.add_file(&file, 1).unwrap();
        let kind = |result: std::io::Result<_>| result.unwrap_err().kind();
        assert_eq!(kind(watcher.add_file(dir.path().join("no/file"), 2)), ErrorKind::NotFound);
        assert_eq!(kind(watcher.add_file(file.join("x"), 2)), ErrorKind::NotADirectory);
        assert_eq!(kind(watcher.add_file("/", 2)), ErrorKind::InvalidInput);
        assert_eq!(kind(watcher.add_file("", 2)), ErrorKind::InvalidInput);
        assert_eq!(kind(watcher.add_file("a\0b/c", 2)), ErrorKind::InvalidInput);
        assert_eq!(kind(watcher.add_dir("a\0b", 2)), ErrorKind::InvalidInput);
        assert_eq!(kind(watcher.add_dir("n".repeat(256), 2)), ErrorKind::InvalidFilename);
        assert_eq!(kind(watcher.add_dir(dir.path().join("no"), 2)), ErrorKind::NotFound);
        // What was there stays, also if the same path was tried.
        assert_eq!(kind(watcher.add_dir(&file, 2)), ErrorKind::NotADirectory);
        fs::write(&file, "y").unwrap();
        assert_eq!(all(&watcher).pop().unwrap().value, Some(1));
        assert_eq!(watcher.remove(&file), Some(1));
    }

    fn a_tree_with_what_is_made_in_it() {
        let dir = TempDir::new();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("a/b")).unwrap();
        let watcher = Watcher::new().unwrap();
        watcher.add_dir(dir.path(), ()).unwrap();
        fs::write(at("a/b/deep"), "x").unwrap();
        assert_eq!(told(&watcher), [(Create, "deep".into()), (CloseWrite, "deep".into())]);
        // All of it is there before anything is read: told once each, parents first.
        fs::create_dir_all(at("c/d/e")).unwrap();
        fs::write(at("c/f"), "x").unwrap();
        fs::write(at("c/d/e/g"), "x").unwrap();
        let events = all(&watcher);
        let created: Vec<_> =
            events.iter().filter(|e| e.kind == Create).map(|e| e.path.clone()).collect();
        let expected = ["c", "c/d", "c/d/e", "c/d/e/g", "c/f"].map(at);
        assert_eq!(created.iter().collect::<BTreeSet<_>>(), expected.iter().collect());
        assert_eq!(created.len(), expected.len(), "{created:?}");
        for path in &created {
            let parent = path.parent().unwrap();
            let place = |path: &Path| created.iter().position(|created| created == path);
            assert!(parent == dir.path() || place(parent) < place(path), "{created:?}");
        }
        // And from then on they are watched.
        fs::write(at("c/d/e/g"), "y").unwrap();
        assert_eq!(told(&watcher), [(CloseWrite, "g".into())]);
        fs::remove_dir_all(at("c")).unwrap();
        let gone = all(&watcher).into_iter().map(|e| (e.kind == Delete, e.path));
        let gone: BTreeSet<_> = gone.collect();
        assert_eq!(gone, expected.into_iter().map(|path| (true, path)).collect());
        // The same name once more is another directory.
        fs::create_dir(at("c")).unwrap();
        fs::write(at("c/x"), "").unwrap();
        let names: BTreeSet<_> =
            all(&watcher).into_iter().filter(|e| e.kind == Create).map(|e| e.path).collect();
        assert_eq!(names.len(), 2);
    }

    fn directories_of_a_tree_move() {
        let (dir, elsewhere) = (TempDir::new(), TempDir::new());
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("a/b/c")).unwrap();
        fs::create_dir(at("z")).unwrap();
        let watcher = Watcher::new().unwrap();
        watcher.add_dir(dir.path(), ()).unwrap();
        fs::rename(at("a/b"), at("z/y")).unwrap();
        let moved = all(&watcher);
        assert_eq!(moved, [
            Event { kind: renamed(&at("a/b")), path: at("z/y"), value: Some(()) }
        ]);
        fs::write(at("z/y/c/f"), "x").unwrap();
        let paths: Vec<_> = all(&watcher).into_iter().map(|e| (e.kind, e.path)).collect();
        assert_eq!(paths, [(Create, at("z/y/c/f")), (CloseWrite, at("z/y/c/f"))]);
        // Out of sight, and back.
        let out = elsewhere.path().join("out");
        fs::rename(at("z"), &out).unwrap();
        assert_eq!(told(&watcher), [(Delete, "z".into())]);
        fs::write(out.join("y/c/f"), "unseen").unwrap();
        assert_eq!(all(&watcher), []);
        fs::rename(&out, at("back")).unwrap();
        let back: BTreeSet<_> = all(&watcher).into_iter().map(|e| e.path).collect();
        assert_eq!(back, ["back", "back/y", "back/y/c", "back/y/c/f"].map(at).into());
        fs::write(at("back/y/c/f"), "seen").unwrap();
        assert_eq!(told(&watcher), [(CloseWrite, "f".into())]);
    }

    fn the_end_of_a_watch() {
        let dir = TempDir::new();
        let tree = dir.path().join("tree");
        let make = || fs::create_dir(&tree).unwrap();
        make();
        let watcher = Watcher::new().unwrap();
        watcher.add_dir(&tree, 'd').unwrap();
        watcher.add_file(tree.join("file"), 'f').unwrap();
        fs::write(tree.join("file"), "").unwrap();
        all(&watcher);
        fs::remove_dir_all(&tree).unwrap();
        let end: Vec<_> = all(&watcher).into_iter().map(|e| (e.value.unwrap(), e.kind)).collect();
        let of = |who| -> Vec<_> {
            end.iter().filter(|(value, _)| *value == who).map(|(_, kind)| kind.clone()).collect()
        };
        assert_eq!(of('d'), [Delete, Delete, Ended]);
        assert_eq!(of('f'), [Delete, Ended]);
        assert_eq!(watcher.remove(&tree), None);
        make();
        assert_eq!(watcher.add_dir(&tree, 'e').unwrap(), None);
        // What has another name is not what was added.
        fs::rename(&tree, dir.path().join("other")).unwrap();
        assert_eq!(kinds(&watcher), [Ended]);
        fs::write(dir.path().join("other/x"), "").unwrap();
        assert_eq!(all(&watcher), []);
    }

    fn one_directory_in_several_watches() {
        let dir = TempDir::new();
        let sub = dir.path().join("sub");
        fs::create_dir(&sub).unwrap();
        let watcher = Watcher::new().unwrap();
        watcher.add_dir(dir.path(), 1).unwrap();
        watcher.add_dir(&sub, 2).unwrap();
        watcher.add_file(sub.join("new"), 3).unwrap();
        let values = || -> BTreeSet<_> {
            all(&watcher).into_iter().filter(|e| e.kind == Create).map(|e| e.value).collect()
        };
        fs::create_dir_all(sub.join("new/er")).unwrap();
        let told = all(&watcher).into_iter().map(|e| (e.value.unwrap(), e.path));
        let mut told: Vec<_> = told.collect();
        told.sort();
        let (new, newer) = (sub.join("new"), sub.join("new/er"));
        let twice = |who| [(who, new.clone()), (who, newer.clone())];
        assert_eq!(told, [&twice(1)[..], &twice(2), &[(3, new.clone())]].concat());
        watcher.remove(&sub).unwrap();
        fs::write(newer.join("x"), "").unwrap();
        assert_eq!(values(), [Some(1)].into());
        watcher.remove(dir.path()).unwrap();
        fs::remove_dir_all(&new).unwrap();
        assert_eq!(kinds(&watcher), [Delete]);
    }

    /// Threads and fibers wait, in turn, while others add and remove.
    fn adding_and_removing_while_others_wait() {
        let dir = TempDir::new();
        let watcher = Arc::new(Watcher::new().unwrap());
        let stop = dir.path().join("stop");
        watcher.add_file(&stop, usize::MAX).unwrap();
        let waiters: Vec<_> = (0..3).map(|_| {
            let watcher = watcher.clone();
            std::thread::spawn(move || {
                let mut seen = 0;
                for event in watcher.iter() {
                    let event = event.unwrap();
                    if event.value == Some(usize::MAX) {
                        return seen;
                    }
                    seen += usize::from(event.kind == Delete);
                }
                unreachable!()
            })
        }).collect();
        for n in 0..30 {
            let path = dir.path().join(format!("{n}"));
            watcher.add_file(&path, n).unwrap();
            ramie::fs::write(&path, "x").unwrap();
            ramie::fs::remove_file(&path).unwrap();
            if n % 3 == 0 {
                watcher.remove(&path);
            }
        }
        // Each waiter takes one of these and ends; there may be more than enough of them.
        let mut seen = 0;
        for waiter in waiters {
            while !waiter.is_finished() {
                ramie::fs::write(&stop, "x").unwrap();
                ramie::sleep(Duration::from_millis(2));
            }
            seen += waiter.join().unwrap();
        }
        assert!((20..=30).contains(&seen), "{seen} of 20 to 30 files were seen to go");
    }

    fn nothing_within_the_time() {
        let watcher: Watcher<()> = Watcher::new().unwrap();
        assert_eq!(watcher.recv_timeout(Duration::ZERO).unwrap(), None);
        assert_eq!(watcher.recv_timeout(Duration::from_millis(5)).unwrap(), None);
    }
}

#[test]
fn a_wait_is_cancelled_and_takes_nothing() {
    let _watchdog = common::watch::dog();
    runtime(1).run(|| {
        let dir = TempDir::new();
        let path = dir.path().join("file");
        let watcher = Arc::new(Watcher::new().unwrap());
        watcher.add_file(&path, ()).unwrap();
        // One waits for the kernel, the other for the first one's turn to end.
        let wait = || {
            let watcher = watcher.clone();
            ramie::spawn(move || watcher.recv())
        };
        let fibers = [wait(), wait(), wait()];
        ramie::sleep(Duration::from_millis(2));
        for fiber in &fibers[..2] {
            fiber.cancel();
        }
        let [one, two, three] = fibers;
        for fiber in [one, two] {
            assert!(ramie::is_cancelled(&fiber.join().unwrap().unwrap_err()));
        }
        fs::write(&path, "").unwrap();
        assert_eq!(three.join().unwrap().unwrap().kind, Create);
        assert_eq!(kinds(&watcher), [CloseWrite]);
        let late = ramie::time::timeout(Duration::from_millis(5), || watcher.recv());
        assert_eq!(late.unwrap_err().kind(), ErrorKind::TimedOut);
    });
}

/// While one fiber waits for events, and another's call to add takes its time, the worker runs.
#[test]
fn a_wait_does_not_hold_up_the_worker() {
    let _watchdog = common::watch::dog();
    runtime(1).run(|| {
        let dir = TempDir::new();
        let watcher = Arc::new(Watcher::new().unwrap());
        watcher.add_dir(dir.path(), ()).unwrap();
        let done = Arc::new(AtomicBool::new(false));
        let (theirs, events) = (done.clone(), watcher.clone());
        let waiter = ramie::spawn(move || {
            let event = events.recv().unwrap();
            theirs.store(true, Ordering::Relaxed);
            event.kind
        });
        for _ in 0..100 {
            ramie::yield_now();
        }
        assert!(!done.load(Ordering::Relaxed));
        fs::write(dir.path().join("x"), "").unwrap();
        assert_eq!(waiter.join().unwrap(), Create);
    });
}

/// More events than the kernel keeps: it is said so, and watching goes on, also in directories
/// whose creation was lost.
#[test]
fn an_overflow_is_reported() {
    let _watchdog = common::watch::dog();
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    runtime(1).run(|| {
        let dir = TempDir::new();
        let watcher = Watcher::new().unwrap();
        watcher.add_dir(dir.path(), 'v').unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        for _ in 0..=limit / 2 {
            // Two names in turn: the kernel joins events that are the same.
            fs::create_dir(&a).unwrap();
            fs::remove_dir(&a).unwrap();
        }
        fs::create_dir_all(b.join("c")).unwrap();
        let mut overflows = 0;
        while let Some(event) = watcher.recv_timeout(SHORT).unwrap() {
            if event.kind == Overflow {
                assert_eq!((event.path.as_os_str().len(), event.value), (0, None));
                overflows += 1;
            }
        }
        assert_eq!(overflows, 1);
        fs::write(b.join("c/x"), "").unwrap();
        let path = b.join("c/x");
        assert_eq!(next(&watcher), Event { kind: Create, path, value: Some('v') });
    });
}

/// Whatever happens while nobody reads, or somebody does: in the end the events tell what is there.
#[test]
fn the_events_of_a_tree_add_up() {
    let _watchdog = common::watch::dog();
    let mut rng = Rng::from_env();
    runtime(2).run(|| {
        for round in 0..6 {
            let dir = TempDir::new();
            let watcher = Arc::new(Watcher::new().unwrap());
            watcher.add_dir(dir.path(), ()).unwrap();
            let root = dir.path().to_path_buf();
            let mut random = Rng(rng.next());
            let writer = std::thread::spawn(move || {
                for _ in 0..400 {
                    let pick = |rng: &mut Rng| {
                        let depth = 1 + rng.below(3);
                        let names = (0..depth).map(|_| ["a", "b", "c"][rng.below(3) as usize]);
                        names.fold(root.clone(), |path, name| path.join(name))
                    };
                    let path = pick(&mut random);
                    let _ = match random.below(6) {
                        0 | 1 => fs::create_dir_all(&path),
                        2 => fs::write(&path, "x"),
                        3 => fs::remove_file(&path),
                        4 => fs::remove_dir_all(&path),
                        _ => fs::rename(&path, pick(&mut random)),
                    };
                }
            });
            if round % 2 == 0 {
                writer.join().unwrap();
                check(&watcher, dir.path(), || true);
            } else {
                check(&watcher, dir.path(), || writer.is_finished());
            }
        }
    });
}

/// Follows the events until nothing more happens, and compares.
fn check(watcher: &Watcher<()>, root: &Path, over: impl Fn() -> bool) {
    let mut known = BTreeSet::new();
    loop {
        let was_over = over();
        let Some(event) = watcher.recv_timeout(SHORT).unwrap() else {
            if was_over {
                break;
            }
            continue;
        };
        let path = event.path;
        match event.kind {
            Create => drop(known.insert(path)),
            Delete => known.retain(|known: &PathBuf| !known.starts_with(&path)),
            Rename { from } => {
                let (moved, kept): (Vec<_>, Vec<_>) =
                    known.into_iter().partition(|known| known.starts_with(&from));
                known = kept.into_iter().filter(|known| !known.starts_with(&path)).collect();
                for old in moved {
                    let rest = old.strip_prefix(&from).unwrap();
                    known.insert(path.components().chain(rest.components()).collect());
                }
                known.insert(path);
            }
            Overflow | Ended => panic!("{:?} {path:?}", event.kind),
            _ => {}
        }
    }
    let mut there = BTreeSet::new();
    let mut left = vec![root.to_path_buf()];
    while let Some(dir) = left.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                left.push(entry.path());
            }
            there.insert(entry.path());
        }
    }
    assert_eq!(known, there);
}
