//! Copies files and directories, many at a time: what `cp -r --preserve=mode` does.
//!
//! ```text
//! cargo run --release --example cp -- SOURCE... TARGET
//! ```
//! A fiber walks through the directories, and each file is copied by one of its own. What cannot be
//! copied is reported as by `cp`. Devices, sockets and FIFOs are left out.

use ramie::fs::{self, DirBuilder, File, Metadata};
use ramie::io::{self, IsTerminal};
use ramie::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, symlink};
use ramie::sync::Semaphore;
use ramie::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use ramie::{eprint, eprintln};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

const COPIED_AT_ONCE: usize = 64;
static FILES: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);
static FAILED: AtomicBool = AtomicBool::new(false);

fn fail(what: &str) {
    FAILED.store(true, Relaxed);
    eprintln!("cp: {what}");
}

/// Reports what could not be done with a path, `{}`, in the words of the system.
fn check<T>(what: &str, path: &Path, result: io::Result<T>) -> Option<T> {
    let report = |error: io::Error| {
        let text = error.to_string();
        let text = text.split(" (os error").next().unwrap_or(&text);
        fail(&format!("{}: {text}", what.replace("{}", &q(path))));
    };
    result.map_err(report).ok()
}

/// A name in a message.
fn q(path: &Path) -> String {
    format!("'{}'", path.display())
}

#[ramie::main]
fn main() -> ExitCode {
    let mut sources: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let Some(target) = sources.pop().filter(|_| !sources.is_empty()) else {
        eprintln!("usage: cp SOURCE... TARGET");
        return ExitCode::FAILURE;
    };
    let has_terminal = std::io::stderr().is_terminal();
    let progress = ramie::spawn(move || {
        let mut goes_on = has_terminal;
        while goes_on {
            ramie::sleep(Duration::from_millis(100));
            goes_on = ramie::cancel::check().is_ok();
            let end = if goes_on { " " } else { "\n" };
            eprint!("\r{} files, {} MiB{end}", FILES.load(Relaxed), BYTES.load(Relaxed) >> 20);
        }
    });
    let is_dir = fs::metadata(&target).is_ok_and(|target| target.is_dir());
    if !is_dir && sources.len() > 1 {
        fail(&format!("target {} is not a directory", q(&target)));
        return ExitCode::FAILURE;
    }
    let mut made = HashSet::new();
    for source in &sources {
        let name = source.file_name().unwrap_or(OsStr::new("."));
        let target = if is_dir { target.join(name) } else { target.clone() };
        let is_new = made.insert(target.clone());
        if is_new || fs::symlink_metadata(source).is_ok_and(|source| source.is_dir()) {
            copy_tree(source, &target);
        } else {
            fail(&format!("will not overwrite just-created {} with {}", q(&target), q(source)));
        }
    }
    let _ = progress.cancel_join();
    ExitCode::from(u8::from(FAILED.load(Relaxed)))
}

fn copy_tree(source: &Path, target: &Path) {
    let slots = Semaphore::new(COPIED_AT_ONCE);
    let mut directories = Vec::new();
    ramie::scope(|scope| {
        let mut left = vec![(source.to_owned(), target.to_owned())];
        let mut root = None; // the directory that is the copy
        while let Some((from, to)) = left.pop() {
            let found = fs::symlink_metadata(&from);
            let Some(found) = check("cannot stat {}", &from, found) else { continue };
            if root.is_some_and(|root| root == (found.dev(), found.ino())) {
                fail(&format!(
                    "cannot copy a directory, {}, into itself, {}",
                    q(source),
                    q(target)
                ));
            } else if found.is_dir() {
                let Some(inside) = copy_directory(&from, &to, &found) else { continue };
                left.extend(inside);
                root = root.or_else(|| fs::metadata(&to).ok().map(|to| (to.dev(), to.ino())));
                directories.push((to, found.permissions()));
            } else if found.is_symlink() {
                let made = fs::read_link(&from).and_then(|original| symlink(original, &to));
                check("cannot create symbolic link {}", &to, made);
            } else if found.is_file() {
                let Ok(slot) = slots.acquire() else { return };
                scope.spawn(move || {
                    copy_file(&from, &to, &found);
                    drop(slot);
                });
            } else {
                fail(&format!("skipping special file {}", q(&from)));
            }
        }
    });
    // Only now: a directory may be one that nothing can be put into.
    for (directory, mode) in directories.into_iter().rev() {
        let done = fs::set_permissions(&directory, mode);
        check("preserving permissions for {}", &directory, done);
    }
}

/// Makes a directory, if that is possible, and returns what is to be copied into it.
fn copy_directory(from: &Path, to: &Path, found: &Metadata) -> Option<Vec<(PathBuf, PathBuf)>> {
    let mut made = DirBuilder::new().mode(found.mode() | 0o700).create(to);
    // What is there already may be a directory, but no link that leads elsewhere.
    match fs::symlink_metadata(to) {
        Ok(there) if there.is_dir() => made = Ok(()),
        Ok(_) => {
            let (to, from) = (q(to), q(from));
            fail(&format!("cannot overwrite non-directory {to} with directory {from}"));
            return None;
        }
        Err(_) => {}
    }
    check("cannot create directory {}", to, made)?;
    let names = fs::read_dir(from).and_then(|entries| {
        entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>()
    });
    let names = check("cannot access {}", from, names).unwrap_or_default();
    Some(names.iter().map(|name| (from.join(name), to.join(name))).collect())
}

fn copy_file(from: &Path, to: &Path, found: &Metadata) {
    let opened = File::open(from);
    let Some(mut source) = check("cannot open {} for reading", from, opened) else { return };
    if fs::metadata(to).is_ok_and(|to| (to.dev(), to.ino()) == (found.dev(), found.ino())) {
        return fail(&format!("{} and {} are the same file", q(from), q(to)));
    }
    if !fs::exists(to).unwrap_or(true) && fs::symlink_metadata(to).is_ok() {
        return fail(&format!("not writing through dangling symlink {}", q(to)));
    }
    let mut options = File::options();
    let opened = options.write(true).create(true).truncate(true).mode(found.mode()).open(to);
    let Some(mut target) = check("cannot create regular file {}", to, opened) else { return };
    let copied = io::copy(&mut source, &mut target).and_then(|bytes| {
        target.set_permissions(found.permissions())?;
        target.close().map(|()| bytes)
    });
    if let Some(bytes) = check("error writing {}", to, copied) {
        FILES.fetch_add(1, Relaxed);
        BYTES.fetch_add(bytes, Relaxed);
    }
}
