//! `tail -F`: the last lines of some files, and then what is appended, also when a file is
//! truncated, replaced, removed and made again. Nothing is polled: `ramie::watch` tells of changes.
//!
//! `cargo run --release --example tail -- FILE...`

use ramie::eprintln;
use ramie::fs::File;
use ramie::watch::{EventKind, Watcher};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const LINES: usize = 10;

struct Tail {
    path: PathBuf,
    file: Option<File>,
    /// What has been printed of the file.
    printed: u64,
}

#[ramie::main]
fn main() -> ExitCode {
    match follow(std::env::args_os().skip(1).map(PathBuf::from).collect()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("tail: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

fn follow(paths: Vec<PathBuf>) -> io::Result<()> {
    let watcher = Watcher::new()?;
    let mut out = Output { titled: paths.len() > 1, last: None };
    let mut tails = Vec::new();
    for (index, path) in paths.into_iter().enumerate() {
        // Watched first: what is appended while we read is then reported.
        watcher.add_file(&path, index)?;
        let mut tail = Tail { path, file: None, printed: 0 };
        tail.open();
        if let Some(file) = &mut tail.file {
            tail.printed = last_lines(file, LINES)?;
        }
        tail.print(index, &mut out)?;
        tails.push(tail);
    }
    for event in &watcher {
        let event = event?;
        match event.value {
            Some(index) => tails[index].changed(index, event.kind, &mut out)?,
            // Too much at once, and some of it was not told: look at all.
            None => {
                for (index, tail) in tails.iter_mut().enumerate() {
                    tail.changed(index, EventKind::Overflow, &mut out)?;
                }
            }
        }
    }
    Ok(())
}

impl Tail {
    fn open(&mut self) {
        let file = File::open(&self.path);
        self.file = file.inspect_err(|e| eprintln!("tail: {}: {e}", self.path.display())).ok();
        self.printed = 0;
    }

    fn changed(&mut self, index: usize, kind: EventKind, out: &mut Output) -> io::Result<()> {
        self.print(index, out)?; // the rest of the old file, if there is a new one
        let identity = |metadata: ramie::fs::Metadata| (metadata.dev(), metadata.ino());
        let named = ramie::fs::metadata(&self.path).ok().map(identity);
        let opened = self.file.as_ref().and_then(|file| file.metadata().ok()).map(identity);
        if named != opened {
            let what = if named.is_some() { "is a new file" } else { "is gone" };
            eprintln!("tail: {} {what}", self.path.display());
            self.file = None;
            if named.is_some() {
                self.open();
            }
            self.print(index, out)?;
        }
        match kind {
            EventKind::Ended => {
                Err(io::Error::other(format!("{}: its directory is gone", self.path.display())))
            }
            _ => Ok(()),
        }
    }

    /// Prints what is there and has not been printed.
    fn print(&mut self, index: usize, out: &mut Output) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        if file.metadata()?.len() < self.printed {
            eprintln!("tail: {} was truncated", self.path.display());
            self.printed = 0;
        }
        file.seek(SeekFrom::Start(self.printed))?;
        let mut buf = [0; 16 << 10];
        loop {
            match file.read(&mut buf)? {
                0 => return Ok(()),
                count => {
                    out.print(index, &self.path, &buf[..count])?;
                    self.printed += count as u64;
                }
            }
        }
    }
}

/// Standard output, with titles if there are several files.
struct Output {
    titled: bool,
    last: Option<usize>,
}

impl Output {
    fn print(&mut self, index: usize, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.titled && self.last != Some(index) {
            writeln!(out, "==> {} <==", path.display())?;
        }
        self.last = Some(index);
        out.write_all(bytes)?;
        out.flush()
    }
}

/// Where the last lines of a file begin. Read from the end, so that a large file costs no more.
fn last_lines(file: &File, mut lines: usize) -> io::Result<u64> {
    let len = file.metadata()?.len();
    let (mut end, mut block) = (len, [0; 4096]);
    while end > 0 {
        let start = (end - 1) / 4096 * 4096;
        let bytes = &mut block[..(end - start) as usize];
        file.read_exact_at(bytes, start)?;
        for (index, _) in bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let next = start + index as u64 + 1;
            lines -= usize::from(next < len); // the last one ends a line, and begins none
            if lines == 0 {
                return Ok(next);
            }
        }
        end = start;
    }
    Ok(0)
}
