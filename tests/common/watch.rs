//! A guard against tests that hang: one that takes far longer than it may ends the process, with a
//! message that says which, and what every thread waits in. The only upper bound on time that tests
//! may have.

use std::panic::Location;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Far more than any test takes. In seconds in the environment: more for slow machines and tools,
/// less while a hang is being looked into.
fn patience() -> Duration {
    let seconds = std::env::var("RAMIE_TEST_PATIENCE").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(90))
}

const LOOK_EVERY: Duration = Duration::from_millis(250);

struct Entry {
    id: u64,
    what: String,
    end: Instant,
}

#[derive(Default)]
struct Book {
    next_id: u64,
    entries: Vec<Entry>,
}

fn book() -> std::sync::MutexGuard<'static, Book> {
    static BOOK: Mutex<Book> = Mutex::new(Book { next_id: 0, entries: Vec::new() });
    BOOK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Watches for as long as it lives.
pub struct Dog(u64);

/// Watches the calling test, for the usual time.
#[track_caller]
pub fn dog() -> Dog {
    dog_for(patience())
}

/// Watches the calling test, for `patience`.
#[track_caller]
pub fn dog_for(patience: Duration) -> Dog {
    static THREAD: OnceLock<()> = OnceLock::new();
    if cfg!(miri) {
        // It finds out by itself when nothing can go on.
        return Dog(0);
    }
    THREAD.get_or_init(|| {
        std::thread::Builder::new().name("watchdog".into()).spawn(watch).expect("a thread");
    });
    let thread = std::thread::current();
    let what = format!("'{}' at {}", thread.name().unwrap_or("?"), Location::caller());
    let mut book = book();
    book.next_id += 1;
    let id = book.next_id;
    book.entries.push(Entry { id, what, end: Instant::now() + patience });
    Dog(id)
}

impl Drop for Dog {
    fn drop(&mut self) {
        book().entries.retain(|entry| entry.id != self.0);
    }
}

fn watch() {
    loop {
        std::thread::sleep(LOOK_EVERY);
        let now = Instant::now();
        let book = book();
        let late: Vec<&Entry> = book.entries.iter().filter(|entry| entry.end < now).collect();
        if late.is_empty() {
            continue;
        }
        let mut text = String::from("\nwatchdog: these tests hang:\n");
        for entry in late {
            text += &format!("  {}\n", entry.what);
        }
        text += &threads();
        // Past the test harness, which captures what tests print.
        use std::io::Write;
        let _ = std::io::stderr().write_all(text.as_bytes());
        std::process::abort();
    }
}

/// What every thread of the process is, and does in the kernel.
fn threads() -> String {
    let mut text = String::new();
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return text };
    for task in tasks.flatten() {
        let read = |file: &str| {
            let text = std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
            text.trim().to_owned()
        };
        let id = task.file_name();
        let line = format!(
            "  thread {} {}: wchan {} syscall {}",
            id.display(),
            read("comm"),
            read("wchan"),
            read("syscall")
        );
        text += &line;
        text.push('\n');
    }
    text
}
