//! Everything on standard error: messages, the progress line, the summary; and the counts.
//!
//! The progress line is drawn only on a terminal, by whichever job first notices that it is due, so
//! nobody has to be woken for it. It is taken away before anything else is written.

use crate::plan::Dir;
use crate::seam::Engine;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How often the progress line is drawn.
const EVERY: Duration = Duration::from_millis(200);

pub(crate) struct Report {
    started: Instant,
    walked: OnceLock<Duration>,
    /// Milliseconds after `started`; `u64::MAX` if there is no terminal.
    due: AtomicU64,
    found: AtomicU64,
    printed: AtomicU64,
    bytes: AtomicU64,
    errors: AtomicU64,
    /// How many jobs were started.
    jobs: AtomicUsize,
    /// Whether the progress line stands on the terminal. Held while writing to standard error.
    drawn: Mutex<bool>,
}

impl Report {
    pub(crate) fn new() -> Report {
        let due = if io::stderr().is_terminal() { EVERY.as_millis() as u64 } else { u64::MAX };
        Report {
            started: Instant::now(),
            walked: OnceLock::new(),
            due: AtomicU64::new(due),
            found: AtomicU64::new(0),
            printed: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            jobs: AtomicUsize::new(0),
            drawn: Mutex::new(false),
        }
    }

    pub(crate) fn errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    /// The walk is over.
    pub(crate) fn walked(&self) {
        self.walked.get_or_init(|| self.started.elapsed());
    }

    /// A directory was read.
    pub(crate) fn found(&self, dir: &Dir) {
        let files = dir.entries.iter().filter(|entry| entry.child == crate::plan::FILE).count();
        self.found.fetch_add(files as u64, Ordering::Relaxed);
        self.tick();
    }

    /// So many bytes were hashed.
    pub(crate) fn hashed(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.tick();
    }

    /// So many jobs did it.
    pub(crate) fn hashed_by(&self, jobs: usize) {
        self.jobs.store(jobs, Ordering::Relaxed);
    }

    /// So many lines were printed.
    pub(crate) fn printed(&self, lines: usize) {
        self.printed.fetch_add(lines as u64, Ordering::Relaxed);
    }

    /// What find would say of something it cannot read.
    pub(crate) fn not_found(&self, path: &[u8], error: &io::Error) {
        self.error(format_args!("'{}': {}", visible(path), message(error)));
    }

    /// What sha256sum would say of a file it cannot read.
    pub(crate) fn unreadable(&self, path: &[u8], error: &io::Error) {
        self.error(format_args!("{}: {}", visible(path), message(error)));
    }

    fn error(&self, text: std::fmt::Arguments<'_>) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        self.say(&format!("sums: {text}\n"));
    }

    /// Takes the progress line away, then writes `text`.
    fn say(&self, text: &str) {
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        let erase = if std::mem::take(&mut *drawn) { ERASE } else { "" };
        if !erase.is_empty() || !text.is_empty() {
            // Nobody is left to be told that standard error is closed.
            let _ = io::stderr().write_all(format!("{erase}{text}").as_bytes());
        }
    }

    /// Takes the progress line away.
    pub(crate) fn clear(&self) {
        if self.due.load(Ordering::Relaxed) != u64::MAX {
            self.say("");
        }
    }

    fn tick(&self) {
        let due = self.due.load(Ordering::Relaxed);
        if due == u64::MAX {
            return;
        }
        let now = self.started.elapsed();
        let next = (now + EVERY).as_millis() as u64;
        let take = |due| self.due.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed);
        if now.as_millis() as u64 >= due && take(due).is_ok() {
            self.draw(now);
        }
    }

    #[cold]
    fn draw(&self, now: Duration) {
        let found = self.found.load(Ordering::Relaxed);
        let mut line = String::from(ERASE);
        // Writing to a String does not fail.
        let _ = match self.walked.get() {
            None => write!(line, "{found} files found"),
            Some(&walked) => {
                let bytes = self.bytes.load(Ordering::Relaxed);
                let printed = self.printed.load(Ordering::Relaxed);
                let rate = per_second(bytes, now.saturating_sub(walked));
                write!(line, "{printed} of {found} files, {}, {}/s", Size(bytes), Size(rate))
            }
        };
        let mut drawn = self.drawn.lock().unwrap_or_else(PoisonError::into_inner);
        *drawn = io::stderr().write_all(line.as_bytes()).is_ok();
    }

    /// The summary that `--stats` asks for.
    pub(crate) fn stats(&self, engine: Engine) {
        let total = self.started.elapsed();
        let walked = self.walked.get().copied().unwrap_or(total);
        let files = self.printed.load(Ordering::Relaxed);
        let bytes = self.bytes.load(Ordering::Relaxed);
        let jobs = self.jobs.load(Ordering::Relaxed);
        self.say(&format!(
            "sums: {files} files, {} ({bytes} bytes), {} errors\n\
             sums: {:.3} s: walk {:.3} s, hash {:.3} s\n\
             sums: {} files/s, {}/s; {engine}, {jobs} files in flight\n",
            Size(bytes),
            self.errors(),
            total.as_secs_f64(),
            walked.as_secs_f64(),
            (total - walked).as_secs_f64(),
            per_second(files, total),
            Size(per_second(bytes, total)),
        ));
    }
}

/// Back to the start of the line, and clear it.
const ERASE: &str = "\r\x1b[K";

fn per_second(count: u64, time: Duration) -> u64 {
    (count as f64 / time.as_secs_f64().max(1e-9)) as u64
}

/// An error's text as the C library's, without the number that std adds.
pub(crate) fn message(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// A path for a message: whatever could confuse a terminal is escaped.
fn visible(path: &[u8]) -> String {
    let mut text = String::new();
    for chunk in path.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// A number of bytes, in units of 1000.
struct Size(u64);

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut value = self.0 as f64;
        for unit in ["B", "kB", "MB", "GB"] {
            if value < 1000.0 {
                return write!(f, "{value:.*} {unit}", usize::from(unit != "B"));
            }
            value /= 1000.0;
        }
        write!(f, "{value:.1} TB")
    }
}
