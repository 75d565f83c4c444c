//! Hashing: a fixed number of jobs, each with its own buffer, pull files from a counter.
//!
//! A small file costs an open, a read, the read that finds the end, and a close; nothing is
//! allocated for it. The size is not asked for beforehand: that would be one more call, and no
//! promise, since a file may grow and those in /proc say 0. As sha256sum does, read to the end.

use crate::plan::Plan;
use crate::print::{Outcome, Printer};
use crate::report::Report;
use crate::seam::{Engine, fs::File};
use sha2::{Digest as _, Sha256};
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What one read asks for: all of most files, and no more, so that the buffers of all jobs find
/// room in the cache of a core.
const CHUNK: usize = 32 * 1024;

/// A job on a large file lets the others run after this many bytes.
const BREATH: usize = 1 << 20;

struct Work {
    engine: Engine,
    plan: Arc<Plan>,
    next: AtomicUsize,
    printer: Printer,
    report: Arc<Report>,
}

/// Hashes and prints all files; fails only if the output cannot be written.
pub(crate) fn hash_all(
    engine: Engine,
    jobs: usize,
    plan: &Arc<Plan>,
    report: &Arc<Report>,
) -> io::Result<()> {
    let work = Arc::new(Work {
        engine,
        plan: plan.clone(),
        next: AtomicUsize::new(0),
        printer: Printer::new(plan, report)?,
        report: report.clone(),
    });
    let start = |index| {
        let work = work.clone();
        engine.spawn(index, move || work.job())
    };
    let started: Vec<_> = (0..jobs.min(plan.len())).map(start).collect();
    for job in started {
        job.join();
    }
    work.printer.finish()
}

impl Work {
    fn job(&self) {
        let _guard = StopOnPanic(&self.printer);
        let mut buf = vec![0; CHUNK];
        let mut path = Vec::new();
        loop {
            let file = self.next.fetch_add(1, Ordering::Relaxed);
            if file >= self.plan.len() || !self.printer.admit(file) {
                return;
            }
            self.plan.path(file, &mut path);
            match self.hash(&path, &mut buf) {
                Ok(Some(digest)) => self.printer.put(file, Outcome::Digest(digest)),
                Ok(None) => return,
                Err(error) => self.printer.put(file, Outcome::Failed(error)),
            }
        }
    }

    /// The digest of one file; `None` if nobody wants it any more.
    fn hash(&self, path: &[u8], buf: &mut [u8]) -> io::Result<Option<[u8; 32]>> {
        let mut file = File::open(OsStr::from_bytes(path))?;
        let mut sha = Sha256::new();
        let mut since = 0;
        loop {
            let n = match file.read(buf) {
                Ok(0) => return Ok(Some(sha.finalize().into())),
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            sha.update(&buf[..n]);
            self.report.hashed(n);
            since += n;
            if since >= BREATH {
                since = 0;
                if self.printer.stopped() {
                    return Ok(None);
                }
                self.engine.breathe();
            }
        }
    }
}

/// A job that panics never prints its file; the others must not wait for it.
struct StopOnPanic<'a>(&'a Printer);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.stop();
        }
    }
}
