//! Hashing: jobs, each with its own buffer, pull files from a counter.
//!
//! As long as files come from the cache, few jobs are best: their buffers stay in the cache of the
//! core. A disk wants many requests at a time. So fibers start as few; one whose reads wait, time
//! after time, starts another.
//!
//! A small file costs an open, a read, the read that finds the end, and a close; nothing is
//! allocated for it. The size is not asked for beforehand: that would be one more call, and no
//! promise, since a file may grow and those in /proc say 0. As sha256sum does, read to the end.

use crate::plan::Plan;
use crate::print::{Outcome, Printer};
use crate::report::Report;
use crate::seam::{Engine, Job, fs::File};
use sha2::{Digest as _, Sha256};
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What one read asks for: all of most files, and no more, so that the buffers of all jobs find
/// room in the cache of a core.
const CHUNK: usize = 32 * 1024;

/// A job on a large file lets the others run after this many bytes.
const BREATH: usize = 1 << 20;

/// A read from the cache takes a few microseconds, one from a disk many more.
const WAITED: Duration = Duration::from_micros(50);

/// After so many files in a row that had to be waited for, a job starts another one.
const IN_A_ROW: u32 = 4;

struct Work {
    engine: Engine,
    /// At most.
    jobs: usize,
    started: AtomicUsize,
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
    let jobs = jobs.min(plan.len());
    let first = jobs.min(engine.first_jobs());
    let work = Arc::new(Work {
        engine,
        jobs,
        started: AtomicUsize::new(first),
        plan: plan.clone(),
        next: AtomicUsize::new(0),
        printer: Printer::new(plan, report)?,
        report: report.clone(),
    });
    let started: Vec<_> = (0..first).map(|index| work.start(index)).collect();
    for job in started {
        job.join();
    }
    report.hashed_by(work.started.load(Ordering::Relaxed).min(jobs));
    work.printer.finish()
}

impl Work {
    fn start(self: &Arc<Self>, index: usize) -> Job<()> {
        let work = self.clone();
        self.engine.spawn(index, move || work.job())
    }

    /// One more job, if there may be one.
    fn start_another(self: &Arc<Self>) -> Option<Job<()>> {
        let index = self.started.fetch_add(1, Ordering::Relaxed);
        (index < self.jobs).then(|| self.start(index))
    }

    fn job(self: &Arc<Self>) {
        let mut others = Vec::new();
        self.hash_files(&mut others);
        for job in others {
            job.join();
        }
    }

    fn hash_files(self: &Arc<Self>, others: &mut Vec<Job<()>>) {
        let _guard = StopOnPanic(&self.printer);
        let mut buf = vec![0; CHUNK];
        let mut path = Vec::new();
        let mut waits = 0;
        loop {
            let file = self.next.fetch_add(1, Ordering::Relaxed);
            if file >= self.plan.len() || !self.printer.admit(file) {
                return;
            }
            self.plan.path(file, &mut path);
            let mut waited = false;
            match self.hash(&path, &mut buf, &mut waited) {
                Ok(Some(digest)) => self.printer.put(file, Outcome::Digest(digest)),
                Ok(None) => return,
                Err(error) => self.printer.put(file, Outcome::Failed(error)),
            }
            waits = if waited { waits + 1 } else { 0 };
            if waits == IN_A_ROW {
                waits = 0;
                others.extend(self.start_another());
            }
        }
    }

    /// The digest of one file; `None` if nobody wants it any more. Says, too, whether its first
    /// read had to wait.
    fn hash(&self, path: &[u8], buf: &mut [u8], waited: &mut bool) -> io::Result<Option<[u8; 32]>> {
        let mut file = File::open(OsStr::from_bytes(path))?;
        let mut sha = Sha256::new();
        let mut since = 0;
        let opened = Instant::now();
        let mut first = true;
        loop {
            let result = file.read(buf);
            if std::mem::take(&mut first) {
                *waited = opened.elapsed() >= WAITED;
            }
            let n = match result {
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
